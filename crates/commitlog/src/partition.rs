//! One partition as its readers see it.

use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use crate::record::{BatchError, Records};
use crate::unit::PartitionId;

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("offset {offset} is not within {log_start_offset} to {high_watermark}")]
    OffsetOutOfRange {
        offset: u64,
        log_start_offset: u64,
        high_watermark: u64,
    },
    #[error("the partition was deleted")]
    Deleted,
    #[error("{file} is damaged at byte {at}")]
    Damaged {
        file: String,
        at: u64,
        #[source]
        source: BatchError,
    },
    #[error("{file} cannot be read")]
    Io {
        file: String,
        #[source]
        source: std::io::Error,
    },
}

/// A partition; stays readable in the hands of those who hold it.
pub struct Partition {
    id: PartitionId,
    topic: Arc<str>,
    topic_id: Uuid,
    index: u32,
}

impl Partition {
    pub fn id(&self) -> PartitionId {
        self.id
    }

    pub fn topic(&self) -> &Arc<str> {
        &self.topic
    }

    pub fn topic_id(&self) -> Uuid {
        self.topic_id
    }

    pub fn index(&self) -> u32 {
        self.index
    }

    pub fn log_start_offset(&self) -> u64 {
        0
    }

    /// The offset after the last record that is committed.
    pub fn high_watermark(&self) -> u64 {
        0
    }

    pub fn size_bytes(&self) -> u64 {
        0
    }

    /// Whole batches from the one that holds `offset` on, about `bytes_max`, one at least; empty
    /// at the high watermark.
    pub fn read(&self, offset: u64, _bytes_max: usize) -> Result<Bytes, ReadError> {
        Err(ReadError::OffsetOutOfRange {
            offset,
            log_start_offset: 0,
            high_watermark: 0,
        })
    }

    /// The records of one [`read`](Self::read), from `offset` on.
    pub fn records(&self, offset: u64, bytes_max: usize) -> Result<Records, ReadError> {
        let limits = crate::record::Limits::default();
        Ok(crate::record::records(self.read(offset, bytes_max)?, &limits).from_offset(offset))
    }

    /// Offset and timestamp of the first record that is not older than `timestamp_ms`.
    pub fn offset_for_time(&self, _timestamp_ms: i64) -> Result<Option<(u64, i64)>, ReadError> {
        Ok(None)
    }

    /// Offset and timestamp of the newest record by timestamp (ListOffsets -3).
    pub fn max_timestamp(&self) -> Result<Option<(u64, i64)>, ReadError> {
        Ok(None)
    }
}
