//! Who is there and what it speaks: ApiVersions (18), Metadata (3), DescribeCluster (60),
//! SaslHandshake (17), SaslAuthenticate (36), DescribeLogDirs (35).

use bytes::Bytes;
use uuid::Uuid;

use super::message;
use crate::error_code::ErrorCode;
use crate::wire::Text;

message! {
    struct ApiVersionsRequest {
        client_software_name: Text [3..],
        client_software_version: Text [3..],
    }

    struct ApiVersionsResponse {
        error: ErrorCode [0..],
        api_keys: Vec<ApiVersionRange> [0..],
        throttle_time_ms: i32 [1..],
    }

    struct ApiVersionRange {
        api_key: i16 [0..],
        min_version: i16 [0..],
        max_version: i16 [0..],
    }

    struct MetadataRequest {
        /// `None` asks for all; in version 0 an empty list does.
        topics: Option<Vec<MetadataRequestTopic>> [0..]; null 1..,
        allow_auto_topic_creation: bool [4..] = true,
        include_cluster_authorized_operations: bool [8..=10],
        include_topic_authorized_operations: bool [8..],
    }

    struct MetadataRequestTopic {
        topic_id: Uuid [10..],
        name: Option<Text> [0..]; null 10..,
    }

    struct MetadataResponse {
        throttle_time_ms: i32 [3..],
        brokers: Vec<MetadataBroker> [0..],
        cluster_id: Option<Text> [2..],
        controller_id: i32 [1..] = -1,
        topics: Vec<MetadataTopic> [0..],
        cluster_authorized_operations: i32 [8..=10] = i32::MIN,
    }

    struct MetadataBroker {
        node_id: i32 [0..],
        host: Text [0..],
        port: i32 [0..],
        rack: Option<Text> [1..],
    }

    struct MetadataTopic {
        error: ErrorCode [0..],
        name: Option<Text> [0..]; null 12..,
        topic_id: Uuid [10..],
        is_internal: bool [1..],
        partitions: Vec<MetadataPartition> [0..],
        authorized_operations: i32 [8..] = i32::MIN,
    }

    struct MetadataPartition {
        error: ErrorCode [0..],
        index: i32 [0..],
        leader_id: i32 [0..],
        leader_epoch: i32 [7..] = -1,
        replicas: Vec<i32> [0..],
        in_sync_replicas: Vec<i32> [0..],
        offline_replicas: Vec<i32> [5..],
    }

    struct DescribeClusterRequest {
        include_cluster_authorized_operations: bool [0..],
        /// 1 brokers, 2 controllers.
        endpoint_type: i8 [1..] = 1,
    }

    struct DescribeClusterResponse {
        throttle_time_ms: i32 [0..],
        error: ErrorCode [0..],
        error_message: Option<Text> [0..],
        endpoint_type: i8 [1..] = 1,
        cluster_id: Text [0..],
        controller_id: i32 [0..] = -1,
        brokers: Vec<DescribedBroker> [0..],
        cluster_authorized_operations: i32 [0..] = i32::MIN,
    }

    struct DescribedBroker {
        node_id: i32 [0..],
        host: Text [0..],
        port: i32 [0..],
        rack: Option<Text> [0..],
    }

    struct SaslHandshakeRequest {
        mechanism: Text [0..],
    }

    struct SaslHandshakeResponse {
        error: ErrorCode [0..],
        mechanisms: Vec<Text> [0..],
    }

    struct SaslAuthenticateRequest {
        auth_bytes: Bytes [0..],
    }

    struct SaslAuthenticateResponse {
        error: ErrorCode [0..],
        error_message: Option<Text> [0..],
        auth_bytes: Bytes [0..],
        session_lifetime_ms: i64 [1..],
    }

    struct DescribeLogDirsRequest {
        /// `None` asks for all.
        topics: Option<Vec<DescribeLogDirsTopic>> [0..],
    }

    struct DescribeLogDirsTopic {
        name: Text [0..],
        partitions: Vec<i32> [0..],
    }

    struct DescribeLogDirsResponse {
        throttle_time_ms: i32 [0..],
        error: ErrorCode [3..],
        results: Vec<DescribedLogDir> [0..],
    }

    struct DescribedLogDir {
        error: ErrorCode [0..],
        path: Text [0..],
        topics: Vec<DescribedLogDirTopic> [0..],
        total_bytes: i64 [4..] = -1,
        usable_bytes: i64 [4..] = -1,
    }

    struct DescribedLogDirTopic {
        name: Text [0..],
        partitions: Vec<DescribedLogDirPartition> [0..],
    }

    struct DescribedLogDirPartition {
        index: i32 [0..],
        size_bytes: i64 [0..],
        offset_lag: i64 [0..],
        is_future_key: bool [0..],
    }
}
