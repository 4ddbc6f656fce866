//! Offsets: of partitions (ListOffsets 2, OffsetForLeaderEpoch 23, DeleteRecords 21) and of groups
//! (OffsetCommit 8, OffsetFetch 9, OffsetDelete 47).

use super::message;
use crate::error_code::ErrorCode;
use crate::wire::Text;

message! {
    struct ListOffsetsRequest {
        replica_id: i32 [0..] = -1,
        isolation_level: i8 [2..],
        topics: Vec<ListOffsetsTopic> [0..],
    }

    struct ListOffsetsTopic {
        name: Text [0..],
        partitions: Vec<ListOffsetsPartition> [0..],
    }

    struct ListOffsetsPartition {
        index: i32 [0..],
        current_leader_epoch: i32 [4..] = -1,
        /// Milliseconds, or -1 latest, -2 earliest, -3 the greatest timestamp (from version 7).
        timestamp: i64 [0..],
    }

    struct ListOffsetsResponse {
        throttle_time_ms: i32 [2..],
        topics: Vec<ListedOffsetsTopic> [0..],
    }

    struct ListedOffsetsTopic {
        name: Text [0..],
        partitions: Vec<ListedOffset> [0..],
    }

    struct ListedOffset {
        index: i32 [0..],
        error: ErrorCode [0..],
        timestamp: i64 [1..] = -1,
        offset: i64 [1..] = -1,
        leader_epoch: i32 [4..] = -1,
    }

    struct OffsetForLeaderEpochRequest {
        replica_id: i32 [3..] = -2,
        topics: Vec<LeaderEpochTopic> [0..],
    }

    struct LeaderEpochTopic {
        name: Text [0..],
        partitions: Vec<LeaderEpochPartition> [0..],
    }

    struct LeaderEpochPartition {
        index: i32 [0..],
        current_leader_epoch: i32 [2..] = -1,
        leader_epoch: i32 [0..],
    }

    struct OffsetForLeaderEpochResponse {
        throttle_time_ms: i32 [2..],
        topics: Vec<LeaderEpochEndTopic> [0..],
    }

    struct LeaderEpochEndTopic {
        name: Text [0..],
        partitions: Vec<LeaderEpochEnd> [0..],
    }

    struct LeaderEpochEnd {
        error: ErrorCode [0..],
        index: i32 [0..],
        leader_epoch: i32 [1..] = -1,
        end_offset: i64 [0..] = -1,
    }

    struct DeleteRecordsRequest {
        topics: Vec<DeleteRecordsTopic> [0..],
        timeout_ms: i32 [0..],
    }

    struct DeleteRecordsTopic {
        name: Text [0..],
        partitions: Vec<DeleteRecordsPartition> [0..],
    }

    struct DeleteRecordsPartition {
        index: i32 [0..],
        /// The first offset to keep; -1 keeps none below the high watermark.
        offset: i64 [0..],
    }

    struct DeleteRecordsResponse {
        throttle_time_ms: i32 [0..],
        topics: Vec<DeletedRecordsTopic> [0..],
    }

    struct DeletedRecordsTopic {
        name: Text [0..],
        partitions: Vec<DeletedRecords> [0..],
    }

    struct DeletedRecords {
        index: i32 [0..],
        low_watermark: i64 [0..] = -1,
        error: ErrorCode [0..],
    }

    struct OffsetCommitRequest {
        group_id: Text [0..],
        generation: i32 [1..] = -1,
        member_id: Text [1..],
        group_instance_id: Option<Text> [7..],
        retention_time_ms: i64 [2..=4] = -1,
        topics: Vec<OffsetCommitTopic> [0..],
    }

    struct OffsetCommitTopic {
        name: Text [0..],
        partitions: Vec<OffsetCommitPartition> [0..],
    }

    struct OffsetCommitPartition {
        index: i32 [0..],
        offset: i64 [0..],
        leader_epoch: i32 [6..] = -1,
        metadata: Option<Text> [0..],
    }

    struct OffsetCommitResponse {
        throttle_time_ms: i32 [3..],
        topics: Vec<OffsetCommittedTopic> [0..],
    }

    struct OffsetCommittedTopic {
        name: Text [0..],
        partitions: Vec<PartitionOutcome> [0..],
    }

    /// What became of one partition of a request.
    struct PartitionOutcome {
        index: i32 [0..],
        error: ErrorCode [0..],
    }

    struct OffsetFetchRequest {
        group_id: Text [0..=7],
        /// `None` asks for all that the group has.
        topics: Option<Vec<OffsetFetchTopic>> [0..=7]; null 2..,
        groups: Vec<OffsetFetchGroup> [8..],
        require_stable: bool [7..],
    }

    struct OffsetFetchGroup {
        group_id: Text [8..],
        topics: Option<Vec<OffsetFetchTopic>> [8..],
    }

    struct OffsetFetchTopic {
        name: Text [0..],
        partitions: Vec<i32> [0..],
    }

    struct OffsetFetchResponse {
        throttle_time_ms: i32 [3..],
        topics: Vec<OffsetFetchedTopic> [0..=7],
        error: ErrorCode [2..=7],
        groups: Vec<OffsetFetchedGroup> [8..],
    }

    struct OffsetFetchedGroup {
        group_id: Text [8..],
        topics: Vec<OffsetFetchedTopic> [8..],
        error: ErrorCode [8..],
    }

    struct OffsetFetchedTopic {
        name: Text [0..],
        partitions: Vec<OffsetFetched> [0..],
    }

    struct OffsetFetched {
        index: i32 [0..],
        offset: i64 [0..] = -1,
        leader_epoch: i32 [5..] = -1,
        metadata: Option<Text> [0..],
        error: ErrorCode [0..],
    }

    struct OffsetDeleteRequest {
        group_id: Text [0..],
        topics: Vec<OffsetDeleteTopic> [0..],
    }

    struct OffsetDeleteTopic {
        name: Text [0..],
        partitions: Vec<OffsetDeletePartition> [0..],
    }

    struct OffsetDeletePartition {
        index: i32 [0..],
    }

    struct OffsetDeleteResponse {
        error: ErrorCode [0..],
        throttle_time_ms: i32 [0..],
        topics: Vec<OffsetDeletedTopic> [0..],
    }

    struct OffsetDeletedTopic {
        name: Text [0..],
        partitions: Vec<PartitionOutcome> [0..],
    }
}
