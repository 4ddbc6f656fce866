//! Consumer groups: FindCoordinator (10), JoinGroup (11), Heartbeat (12), LeaveGroup (13),
//! SyncGroup (14), DescribeGroups (15), ListGroups (16), DeleteGroups (42).

use bytes::Bytes;

use super::message;
use crate::error_code::ErrorCode;
use crate::wire::Text;

message! {
    struct FindCoordinatorRequest {
        key: Text [0..=3],
        /// 0 a group, 1 a transaction.
        key_type: i8 [1..],
        keys: Vec<Text> [4..],
    }

    struct FindCoordinatorResponse {
        throttle_time_ms: i32 [1..],
        error: ErrorCode [0..=3],
        error_message: Option<Text> [1..=3],
        node_id: i32 [0..=3],
        host: Text [0..=3],
        port: i32 [0..=3],
        coordinators: Vec<FoundCoordinator> [4..],
    }

    struct FoundCoordinator {
        key: Text [4..],
        node_id: i32 [4..],
        host: Text [4..],
        port: i32 [4..],
        error: ErrorCode [4..],
        error_message: Option<Text> [4..],
    }

    struct JoinGroupRequest {
        group_id: Text [0..],
        session_timeout_ms: i32 [0..],
        rebalance_timeout_ms: i32 [1..] = -1,
        member_id: Text [0..],
        group_instance_id: Option<Text> [5..],
        protocol_type: Text [0..],
        protocols: Vec<JoinGroupProtocol> [0..],
        reason: Option<Text> [8..],
    }

    struct JoinGroupProtocol {
        name: Text [0..],
        metadata: Bytes [0..],
    }

    struct JoinGroupResponse {
        throttle_time_ms: i32 [2..],
        error: ErrorCode [0..],
        generation: i32 [0..] = -1,
        protocol_type: Option<Text> [7..],
        protocol_name: Option<Text> [0..]; null 7..,
        leader: Text [0..],
        skip_assignment: bool [9..],
        member_id: Text [0..],
        members: Vec<JoinedMember> [0..],
    }

    struct JoinedMember {
        member_id: Text [0..],
        group_instance_id: Option<Text> [5..],
        metadata: Bytes [0..],
    }

    struct SyncGroupRequest {
        group_id: Text [0..],
        generation: i32 [0..],
        member_id: Text [0..],
        group_instance_id: Option<Text> [3..],
        protocol_type: Option<Text> [5..],
        protocol_name: Option<Text> [5..],
        assignments: Vec<SyncGroupAssignment> [0..],
    }

    struct SyncGroupAssignment {
        member_id: Text [0..],
        assignment: Bytes [0..],
    }

    struct SyncGroupResponse {
        throttle_time_ms: i32 [1..],
        error: ErrorCode [0..],
        protocol_type: Option<Text> [5..],
        protocol_name: Option<Text> [5..],
        assignment: Bytes [0..],
    }

    struct HeartbeatRequest {
        group_id: Text [0..],
        generation: i32 [0..],
        member_id: Text [0..],
        group_instance_id: Option<Text> [3..],
    }

    struct HeartbeatResponse {
        throttle_time_ms: i32 [1..],
        error: ErrorCode [0..],
    }

    struct LeaveGroupRequest {
        group_id: Text [0..],
        member_id: Text [0..=2],
        members: Vec<LeavingMember> [3..],
    }

    struct LeavingMember {
        member_id: Text [3..],
        group_instance_id: Option<Text> [3..],
        reason: Option<Text> [5..],
    }

    struct LeaveGroupResponse {
        throttle_time_ms: i32 [1..],
        error: ErrorCode [0..],
        members: Vec<LeftMember> [3..],
    }

    struct LeftMember {
        member_id: Text [3..],
        group_instance_id: Option<Text> [3..],
        error: ErrorCode [3..],
    }

    struct DescribeGroupsRequest {
        groups: Vec<Text> [0..],
        include_authorized_operations: bool [3..],
    }

    struct DescribeGroupsResponse {
        throttle_time_ms: i32 [1..],
        groups: Vec<DescribedGroup> [0..],
    }

    struct DescribedGroup {
        error: ErrorCode [0..],
        group_id: Text [0..],
        state: Text [0..],
        protocol_type: Text [0..],
        protocol: Text [0..],
        members: Vec<DescribedMember> [0..],
        authorized_operations: i32 [3..] = i32::MIN,
    }

    struct DescribedMember {
        member_id: Text [0..],
        group_instance_id: Option<Text> [4..],
        client_id: Text [0..],
        client_host: Text [0..],
        metadata: Bytes [0..],
        assignment: Bytes [0..],
    }

    struct ListGroupsRequest {
        states_filter: Vec<Text> [4..],
    }

    struct ListGroupsResponse {
        throttle_time_ms: i32 [1..],
        error: ErrorCode [0..],
        groups: Vec<ListedGroup> [0..],
    }

    struct ListedGroup {
        group_id: Text [0..],
        protocol_type: Text [0..],
        state: Text [4..],
    }

    struct DeleteGroupsRequest {
        groups: Vec<Text> [0..],
    }

    struct DeleteGroupsResponse {
        throttle_time_ms: i32 [0..],
        results: Vec<DeletedGroup> [0..],
    }

    struct DeletedGroup {
        group_id: Text [0..],
        error: ErrorCode [0..],
    }
}
