//! Checking what a producer sent, before it may enter the log.
//!
//! Holds: a [`ValidBatch`] has a right checksum, dense offsets and records that all decode.

use bytes::Bytes;

use super::batch::{BatchHeader, HEADER_LEN};
use super::body::{decompress, read_record};

/// Bounds on what a batch may make its reader allocate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Most bytes of one batch as sent. Default 100 MiB; a topic's own limit is checked at commit.
    pub batch_bytes_max: usize,
    /// Most bytes of one batch's records once decompressed. Default 64 MiB.
    pub decompressed_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            batch_bytes_max: 100 << 20,
            decompressed_bytes_max: 64 << 20,
        }
    }
}

/// Why bytes are not a record batch we take.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BatchError {
    #[error("the batch needs {need} bytes, {have} are there")]
    Truncated { need: usize, have: usize },
    #[error("message format {magic} is not served, only 2")]
    Magic { magic: u8 },
    #[error("batch length {length} is impossible")]
    Length { length: i32 },
    #[error("base offset {base_offset} is negative")]
    BaseOffset { base_offset: i64 },
    #[error("the batch has {bytes} bytes, at most {bytes_max} are allowed")]
    TooLarge { bytes: usize, bytes_max: usize },
    #[error("the checksum does not match")]
    Crc,
    #[error("{count} records with a last offset delta of {last_offset_delta}")]
    Count { count: i32, last_offset_delta: i32 },
    #[error("compression {bits} is unknown")]
    Compression { bits: u16 },
    #[error("the compressed records are damaged")]
    Compressed,
    #[error("the records are more than {bytes_max} bytes once decompressed")]
    Inflated { bytes_max: usize },
    #[error("a record is damaged")]
    Record,
    #[error("the offset deltas do not count up from 0")]
    OffsetDelta,
    #[error("bytes are left over after the last record")]
    TrailingBytes,
    #[error("transactional and control batches are not taken from producers")]
    Transactional,
    #[error("the producer's id, epoch and sequence do not fit each other")]
    Producer,
    #[error("the request holds no batch")]
    Empty,
}

/// One record batch that was checked inside and out.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ValidBatch(Bytes);

impl ValidBatch {
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// What its header says, base offset and leader epoch still as the producer sent them.
    #[expect(clippy::expect_used, reason = "validate parsed this very header")]
    pub fn header(&self) -> BatchHeader {
        BatchHeader::parse(&self.0).expect("a valid batch has a valid header")
    }
}

/// Checks that `bytes` are exactly one batch that may enter the log.
pub fn validate(bytes: Bytes, limits: &Limits) -> Result<ValidBatch, BatchError> {
    let header = BatchHeader::parse(&bytes)?;
    let have = bytes.len();
    if header.len > limits.batch_bytes_max {
        return Err(BatchError::TooLarge {
            bytes: header.len,
            bytes_max: limits.batch_bytes_max,
        });
    }
    if header.len > have {
        return Err(BatchError::Truncated {
            need: header.len,
            have,
        });
    }
    if header.len < have {
        return Err(BatchError::TrailingBytes);
    }
    if !header.crc_matches(&bytes) {
        return Err(BatchError::Crc);
    }
    check_header(&header)?;
    check_records(&bytes, &header, limits)?;
    Ok(ValidBatch(bytes))
}

/// Checks a whole Produce payload of one partition: one batch after the other, nothing left over.
pub fn validate_all(mut bytes: Bytes, limits: &Limits) -> Result<Vec<ValidBatch>, BatchError> {
    let mut batches = Vec::new();
    while !bytes.is_empty() {
        let header = BatchHeader::parse(&bytes)?;
        let have = bytes.len();
        if header.len > have {
            return Err(BatchError::Truncated {
                need: header.len,
                have,
            });
        }
        batches.push(validate(bytes.split_to(header.len), limits)?);
    }
    if batches.is_empty() {
        Err(BatchError::Empty)
    } else {
        Ok(batches)
    }
}

fn check_header(header: &BatchHeader) -> Result<(), BatchError> {
    if header.is_transactional() || header.is_control() {
        return Err(BatchError::Transactional);
    }
    if header.record_count == 0 || header.last_offset_delta != header.record_count - 1 {
        return Err(BatchError::Count {
            count: header.record_count.cast_signed(),
            last_offset_delta: header.last_offset_delta.cast_signed(),
        });
    }
    let fits = if header.producer_id >= 0 {
        header.producer_epoch >= 0 && header.base_sequence >= 0
    } else {
        header.producer_id == -1 && header.base_sequence == -1
    };
    if fits {
        Ok(())
    } else {
        Err(BatchError::Producer)
    }
}

fn check_records(batch: &Bytes, header: &BatchHeader, limits: &Limits) -> Result<(), BatchError> {
    let mut data = decompress(batch, header, limits)?;
    for index in 0..header.record_count {
        let record = read_record(&mut data, header)?;
        if record.offset != header.base_offset.saturating_add(u64::from(index)) {
            return Err(BatchError::OffsetDelta);
        }
    }
    if data.is_empty() {
        Ok(())
    } else {
        Err(BatchError::TrailingBytes)
    }
}

const _: () = assert!(HEADER_LEN == 61);
