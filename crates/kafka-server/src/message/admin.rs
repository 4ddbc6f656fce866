//! Topics made, grown and deleted: CreateTopics (19), DeleteTopics (20), CreatePartitions (37).

use uuid::Uuid;

use super::message;
use crate::error_code::ErrorCode;
use crate::wire::Text;

message! {
    struct CreateTopicsRequest {
        topics: Vec<CreatableTopic> [0..],
        timeout_ms: i32 [0..] = 60_000,
        validate_only: bool [1..],
    }

    struct CreatableTopic {
        name: Text [0..],
        /// -1 asks for the default, or is given beside `assignments`.
        partitions: i32 [0..],
        replication_factor: i16 [0..],
        assignments: Vec<ReplicaAssignment> [0..],
        configs: Vec<CreatableConfig> [0..],
    }

    struct ReplicaAssignment {
        index: i32 [0..],
        broker_ids: Vec<i32> [0..],
    }

    struct CreatableConfig {
        name: Text [0..],
        value: Option<Text> [0..],
    }

    struct CreateTopicsResponse {
        throttle_time_ms: i32 [2..],
        topics: Vec<CreatedTopic> [0..],
    }

    struct CreatedTopic {
        name: Text [0..],
        topic_id: Uuid [7..],
        error: ErrorCode [0..],
        error_message: Option<Text> [1..],
        partitions: i32 [5..] = -1,
        replication_factor: i16 [5..] = -1,
        configs: Option<Vec<CreatedConfig>> [5..],
    }

    struct CreatedConfig {
        name: Text [5..],
        value: Option<Text> [5..],
        read_only: bool [5..],
        source: i8 [5..] = -1,
        is_sensitive: bool [5..],
    }

    struct DeleteTopicsRequest {
        names: Vec<Text> [0..=5],
        timeout_ms: i32 [0..],
    }

    struct DeleteTopicsResponse {
        throttle_time_ms: i32 [1..],
        topics: Vec<DeletedTopic> [0..],
    }

    struct DeletedTopic {
        name: Text [0..],
        error: ErrorCode [0..],
        error_message: Option<Text> [5..],
    }

    struct CreatePartitionsRequest {
        topics: Vec<CreatePartitionsTopic> [0..],
        timeout_ms: i32 [0..],
        validate_only: bool [0..],
    }

    struct CreatePartitionsTopic {
        name: Text [0..],
        /// The total wanted, not the difference.
        total: i32 [0..],
        assignments: Option<Vec<PartitionAssignment>> [0..],
    }

    struct PartitionAssignment {
        broker_ids: Vec<i32> [0..],
    }

    struct CreatePartitionsResponse {
        throttle_time_ms: i32 [0..],
        topics: Vec<CreatedPartitions> [0..],
    }

    struct CreatedPartitions {
        name: Text [0..],
        error: ErrorCode [0..],
        error_message: Option<Text> [0..],
    }
}
