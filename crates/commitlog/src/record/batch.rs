//! The header of a record batch, and building a batch record by record.

use bytes::Bytes;

use super::body::RecordBody;
use super::compression::Compression;
use super::validate::BatchError;
use super::varint::{self, Reader};

/// Bytes before the first record.
pub const HEADER_LEN: usize = 61;

const MAGIC: u8 = 2;
const COMPRESSION_MASK: u16 = 0x07;
const LOG_APPEND_TIME: u16 = 0x08;
const TRANSACTIONAL: u16 = 0x10;
const CONTROL: u16 = 0x20;
/// `batchLength` counts what follows it.
const LENGTH_END: usize = 12;
/// The checksum covers attributes to the end.
const CRC_START: usize = 21;

/// What the first 61 bytes of a batch say. Unchecked against the rest of the batch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BatchHeader {
    pub base_offset: u64,
    /// The whole batch, header included.
    pub len: usize,
    pub leader_epoch: i32,
    pub crc: u32,
    pub attributes: u16,
    pub last_offset_delta: u32,
    pub base_timestamp_ms: i64,
    pub max_timestamp_ms: i64,
    /// -1: not an idempotent producer's.
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub record_count: u32,
}

impl BatchHeader {
    /// Reads the header at the front of `bytes`; the records need not be there.
    pub fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
        let have = bytes.len();
        if have < HEADER_LEN {
            return Err(BatchError::Truncated {
                need: HEADER_LEN,
                have,
            });
        }
        Self::read(&mut Reader::new(bytes), have)
    }

    fn read(reader: &mut Reader<'_>, have: usize) -> Result<Self, BatchError> {
        let short = || BatchError::Truncated {
            need: HEADER_LEN,
            have,
        };
        let base_offset = reader.i64().ok_or_else(short)?;
        let length = reader.i32().ok_or_else(short)?;
        let leader_epoch = reader.i32().ok_or_else(short)?;
        let magic = reader.u8().ok_or_else(short)?;
        if magic != MAGIC {
            return Err(BatchError::Magic { magic });
        }
        let len = usize::try_from(length)
            .ok()
            .map(|length| length + LENGTH_END)
            .filter(|len| *len >= HEADER_LEN)
            .ok_or(BatchError::Length { length })?;
        let crc = reader.u32().ok_or_else(short)?;
        let attributes = reader.i16().ok_or_else(short)?.cast_unsigned();
        let last_offset_delta = reader.i32().ok_or_else(short)?;
        let base_timestamp_ms = reader.i64().ok_or_else(short)?;
        let max_timestamp_ms = reader.i64().ok_or_else(short)?;
        let producer_id = reader.i64().ok_or_else(short)?;
        let producer_epoch = reader.i16().ok_or_else(short)?;
        let base_sequence = reader.i32().ok_or_else(short)?;
        let count = reader.i32().ok_or_else(short)?;
        Ok(Self {
            base_offset: u64::try_from(base_offset)
                .map_err(|_| BatchError::BaseOffset { base_offset })?,
            len,
            leader_epoch,
            crc,
            attributes,
            last_offset_delta: u32::try_from(last_offset_delta).map_err(|_| BatchError::Count {
                count,
                last_offset_delta,
            })?,
            base_timestamp_ms,
            max_timestamp_ms,
            producer_id,
            producer_epoch,
            base_sequence,
            record_count: u32::try_from(count).map_err(|_| BatchError::Count {
                count,
                last_offset_delta,
            })?,
        })
    }

    pub fn compression(&self) -> Result<Compression, BatchError> {
        Compression::from_attributes(self.attributes & COMPRESSION_MASK)
    }

    pub fn last_offset(&self) -> u64 {
        self.base_offset
            .saturating_add(u64::from(self.last_offset_delta))
    }

    /// The offset after the last record's.
    pub fn next_offset(&self) -> u64 {
        self.last_offset().saturating_add(1)
    }

    /// Every record then carries `max_timestamp_ms`.
    pub fn is_log_append_time(&self) -> bool {
        self.attributes & LOG_APPEND_TIME != 0
    }

    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }

    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }

    pub fn has_producer(&self) -> bool {
        self.producer_id >= 0
    }

    /// The last record's sequence; sequences wrap to 0 after `i32::MAX`.
    pub fn last_sequence(&self) -> i32 {
        let sum = i64::from(self.base_sequence) + i64::from(self.last_offset_delta);
        i32::try_from(sum % (i64::from(i32::MAX) + 1)).unwrap_or(-1)
    }

    /// Whether the checksum of `batch`, which begins with this header, is right.
    pub fn crc_matches(&self, batch: &[u8]) -> bool {
        batch
            .get(CRC_START..self.len)
            .is_some_and(|covered| crc32c::crc32c(covered) == self.crc)
    }
}

/// Writes what the server assigns; neither field is covered by the checksum.
pub(crate) fn assign(batch: &mut [u8], base_offset: u64) {
    if let Some((offset, rest)) = batch.split_first_chunk_mut::<8>() {
        *offset = base_offset.to_be_bytes();
        if let Some(epoch) = rest.get_mut(4..8) {
            epoch.fill(0);
        }
    }
}

/// Builds one uncompressed batch.
#[derive(Debug, Default)]
pub struct BatchBuilder {
    bytes: Vec<u8>,
    base_offset: u64,
    count: u32,
    base_timestamp_ms: i64,
    max_timestamp_ms: i64,
}

impl BatchBuilder {
    pub fn new(base_offset: u64) -> Self {
        Self {
            base_offset,
            ..Self::default()
        }
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes of the batch so far, header included.
    pub fn len(&self) -> usize {
        self.bytes.len().max(HEADER_LEN)
    }

    pub fn next_offset(&self) -> u64 {
        self.base_offset + u64::from(self.count)
    }

    /// Appends one record and gives its offset.
    pub fn push(&mut self, timestamp_ms: i64, body: &RecordBody) -> u64 {
        if self.count == 0 {
            self.bytes.resize(HEADER_LEN, 0);
            self.base_timestamp_ms = timestamp_ms;
            self.max_timestamp_ms = timestamp_ms;
        }
        self.max_timestamp_ms = self.max_timestamp_ms.max(timestamp_ms);
        let timestamp_delta = timestamp_ms.wrapping_sub(self.base_timestamp_ms);
        let offset_delta = i64::from(self.count);
        let len = 1 + varint::len(timestamp_delta) + varint::len(offset_delta) + body.len();
        self.bytes.reserve(len + 8);
        varint::put(&mut self.bytes, len as i64);
        self.bytes.push(0);
        varint::put(&mut self.bytes, timestamp_delta);
        varint::put(&mut self.bytes, offset_delta);
        self.bytes.extend_from_slice(body.as_bytes());
        self.count += 1;
        self.base_offset + u64::from(self.count - 1)
    }

    /// The last `body` pushed, for writing a position into its value.
    pub(crate) fn last_body_mut(&mut self, body_len: usize) -> Option<&mut [u8]> {
        let start = self.bytes.len().checked_sub(body_len)?;
        self.bytes.get_mut(start..)
    }

    /// Seals the batch, lends it to `use_batch`, and starts an empty one at `base_offset`, keeping
    /// the memory.
    pub(crate) fn seal_into(&mut self, out: &mut Vec<u8>) {
        self.write_header();
        out.extend_from_slice(&self.bytes);
        self.base_offset = self.next_offset();
        self.bytes.clear();
        self.count = 0;
    }

    pub(crate) fn restart(&mut self, base_offset: u64) {
        self.bytes.clear();
        self.count = 0;
        self.base_offset = base_offset;
    }

    /// The finished batch; empty if nothing was pushed.
    pub fn finish(mut self) -> Bytes {
        self.write_header();
        Bytes::from(self.bytes)
    }

    fn write_header(&mut self) {
        let len = self.bytes.len();
        let Some((header, records)) = self.bytes.split_first_chunk_mut::<HEADER_LEN>() else {
            return;
        };
        let mut fields = Vec::with_capacity(HEADER_LEN);
        fields.extend_from_slice(&self.base_offset.to_be_bytes());
        fields.extend_from_slice(
            &u32::try_from(len - LENGTH_END)
                .unwrap_or(u32::MAX)
                .to_be_bytes(),
        );
        fields.extend_from_slice(&0i32.to_be_bytes());
        fields.push(MAGIC);
        fields.extend_from_slice(&[0; 4]);
        fields.extend_from_slice(&0i16.to_be_bytes());
        fields.extend_from_slice(&self.count.saturating_sub(1).to_be_bytes());
        fields.extend_from_slice(&self.base_timestamp_ms.to_be_bytes());
        fields.extend_from_slice(&self.max_timestamp_ms.to_be_bytes());
        fields.extend_from_slice(&(-1i64).to_be_bytes());
        fields.extend_from_slice(&(-1i16).to_be_bytes());
        fields.extend_from_slice(&(-1i32).to_be_bytes());
        fields.extend_from_slice(&self.count.to_be_bytes());
        header.copy_from_slice(&fields);
        let head = crc32c::crc32c(fields.get(CRC_START..).unwrap_or_default());
        let crc = crc32c::crc32c_append(head, records);
        if let Some(field) = header.get_mut(17..CRC_START) {
            field.copy_from_slice(&crc.to_be_bytes());
        }
    }
}
