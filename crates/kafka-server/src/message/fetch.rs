//! Fetch (key 1). Record bytes of its response stay the pieces that were read from the log.

use bytes::Bytes;

use super::message;
use crate::error_code::ErrorCode;
use crate::wire::{DecodeError, Reader, Text, Wire, Writer};

message! {
    struct FetchRequest {
        replica_id: i32 [0..] = -1,
        max_wait_ms: i32 [0..],
        min_bytes: i32 [0..],
        max_bytes: i32 [3..] = i32::MAX,
        isolation_level: i8 [4..],
        session_id: i32 [7..],
        session_epoch: i32 [7..] = -1,
        topics: Vec<FetchTopic> [0..],
        forgotten: Vec<ForgottenTopic> [7..],
        rack_id: Text [11..],
    }

    struct FetchTopic {
        name: Text [0..],
        partitions: Vec<FetchPartition> [0..],
    }

    struct FetchPartition {
        index: i32 [0..],
        current_leader_epoch: i32 [9..] = -1,
        offset: i64 [0..],
        last_fetched_epoch: i32 [12..] = -1,
        log_start_offset: i64 [5..] = -1,
        max_bytes: i32 [0..],
    }

    struct ForgottenTopic {
        name: Text [7..],
        partitions: Vec<i32> [7..],
    }

    struct FetchResponse {
        throttle_time_ms: i32 [1..],
        error: ErrorCode [7..],
        session_id: i32 [7..],
        topics: Vec<FetchedTopic> [0..],
    }

    struct FetchedTopic {
        name: Text [0..],
        partitions: Vec<FetchedPartition> [0..],
    }

    struct FetchedPartition {
        index: i32 [0..],
        error: ErrorCode [0..],
        high_watermark: i64 [0..] = -1,
        last_stable_offset: i64 [4..] = -1,
        log_start_offset: i64 [5..] = -1,
        aborted_transactions: Option<Vec<AbortedTransaction>> [4..],
        preferred_read_replica: i32 [11..] = -1,
        records: Records [0..],
    }

    struct AbortedTransaction {
        producer_id: i64 [4..],
        first_offset: i64 [4..],
    }
}

/// Record bytes of a response: what was read from the log, piece by piece, joined on the wire.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Records(pub(crate) Vec<Bytes>);

impl Records {
    pub(crate) fn len(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }
}

impl Wire for Records {
    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self(reader.bytes()?.into_iter().collect()))
    }

    fn encode(&self, writer: &mut Writer) {
        writer.put_chunks(&self.0);
    }
}

#[cfg(test)]
impl super::sample::Sample for Records {
    fn sample(source: &mut super::sample::Source) -> Self {
        Self(vec![super::sample::Sample::sample(source)])
    }
}
