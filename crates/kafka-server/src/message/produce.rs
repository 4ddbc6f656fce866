//! Produce (key 0) and InitProducerId (key 22).

use bytes::Bytes;

use super::message;
use crate::error_code::ErrorCode;
use crate::wire::Text;

message! {
    struct ProduceRequest {
        transactional_id: Option<Text> [3..],
        acks: i16 [0..],
        timeout_ms: i32 [0..],
        topics: Vec<ProduceTopic> [0..],
    }

    struct ProduceTopic {
        name: Text [0..],
        partitions: Vec<ProducePartition> [0..],
    }

    struct ProducePartition {
        index: i32 [0..],
        records: Option<Bytes> [0..],
    }

    struct ProduceResponse {
        topics: Vec<ProducedTopic> [0..],
        throttle_time_ms: i32 [1..],
    }

    struct ProducedTopic {
        name: Text [0..],
        partitions: Vec<ProducedPartition> [0..],
    }

    struct ProducedPartition {
        index: i32 [0..],
        error: ErrorCode [0..],
        base_offset: i64 [0..] = -1,
        /// -1 unless the topic stamps records with the time of their arrival.
        log_append_time_ms: i64 [2..] = -1,
        log_start_offset: i64 [5..] = -1,
        record_errors: Vec<RecordError> [8..],
        error_message: Option<Text> [8..],
    }

    struct RecordError {
        batch_index: i32 [8..],
        message: Option<Text> [8..],
    }

    struct InitProducerIdRequest {
        transactional_id: Option<Text> [0..],
        transaction_timeout_ms: i32 [0..],
        producer_id: i64 [3..] = -1,
        producer_epoch: i16 [3..] = -1,
    }

    struct InitProducerIdResponse {
        throttle_time_ms: i32 [0..],
        error: ErrorCode [0..],
        producer_id: i64 [0..] = -1,
        producer_epoch: i16 [0..],
    }
}
