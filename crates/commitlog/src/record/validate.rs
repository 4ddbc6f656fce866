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
    #[error("base offset {base_offset} cannot stand here")]
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::{BatchBuilder, Compression, Record, RecordBody, records};

    /// A batch around `data`, written by hand from Kafka's description of the format.
    fn batch_of(attributes: i16, count: i32, last_delta: i32, data: &[u8]) -> Vec<u8> {
        let mut covered = attributes.to_be_bytes().to_vec();
        covered.extend(last_delta.to_be_bytes());
        covered.extend(1000i64.to_be_bytes());
        covered.extend(1005i64.to_be_bytes());
        covered.extend((-1i64).to_be_bytes());
        covered.extend((-1i16).to_be_bytes());
        covered.extend((-1i32).to_be_bytes());
        covered.extend(count.to_be_bytes());
        covered.extend(data);
        let mut batch = 0i64.to_be_bytes().to_vec();
        batch.extend((u32::try_from(covered.len()).unwrap() + 9).to_be_bytes());
        batch.extend([0xff, 0xff, 0xff, 0xff, 2]);
        batch.extend(crc32c::crc32c(&covered).to_be_bytes());
        batch.extend(covered);
        batch
    }

    /// Offset 0: key "k", value "v", header h=1. Offset 1, 5 ms later: nulls, header n=null.
    const FIRST: [u8; 13] = [24, 0, 0, 0, 2, b'k', 2, b'v', 2, 2, b'h', 2, b'1'];
    const SECOND: [u8; 10] = [18, 0, 10, 2, 1, 1, 2, 2, b'n', 1];

    fn two() -> Vec<u8> {
        [&FIRST[..], &SECOND[..]].concat()
    }

    fn check_two(batch: Vec<u8>) {
        let valid = validate(batch.into(), &Limits::default()).unwrap();
        let found: Vec<Record> = records(valid.as_bytes().clone(), &Limits::default())
            .collect::<Result<_, _>>()
            .unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].offset, found[0].timestamp_ms), (0, 1000));
        assert_eq!(found[0].key.as_deref(), Some(&b"k"[..]));
        assert_eq!(found[0].value.as_deref(), Some(&b"v"[..]));
        assert_eq!(
            found[0].headers.iter().collect::<Vec<_>>(),
            [("h", Some(&b"1"[..]))]
        );
        assert_eq!((found[1].offset, found[1].timestamp_ms), (1, 1005));
        assert_eq!(
            (found[1].key.as_ref(), found[1].value.as_ref()),
            (None, None)
        );
        assert_eq!(found[1].headers.last("n"), Some(None));
    }

    #[test]
    fn a_batch_reads_as_the_format_says() {
        check_two(batch_of(0, 2, 1, &two()));
    }

    #[test]
    fn each_compression_reads_as_plain_does() {
        use std::io::Write;
        let plain = two();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), Default::default());
        gzip.write_all(&plain).unwrap();
        check_two(batch_of(1, 2, 1, &gzip.finish().unwrap()));
        let raw = snap::raw::Encoder::new().compress_vec(&plain).unwrap();
        check_two(batch_of(2, 2, 1, &raw));
        // As Java frames it, in two blocks.
        let mut framed = vec![
            0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1,
        ];
        for block in [&FIRST[..], &SECOND[..]] {
            let block = snap::raw::Encoder::new().compress_vec(block).unwrap();
            framed.extend(u32::try_from(block.len()).unwrap().to_be_bytes());
            framed.extend(block);
        }
        check_two(batch_of(2, 2, 1, &framed));
        let mut lz4 = lz4_flex::frame::FrameEncoder::new(Vec::new());
        lz4.write_all(&plain).unwrap();
        check_two(batch_of(3, 2, 1, &lz4.finish().unwrap()));
        check_two(batch_of(4, 2, 1, &zstd::encode_all(&plain[..], 3).unwrap()));
    }

    #[test]
    fn what_inflates_too_far_is_refused() {
        use std::io::Write;
        let zeros = vec![0; 1 << 20];
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), Default::default());
        gzip.write_all(&zeros).unwrap();
        let mut lz4 = lz4_flex::frame::FrameEncoder::new(Vec::new());
        lz4.write_all(&zeros).unwrap();
        for (compression, bytes) in [
            (Compression::Gzip, gzip.finish().unwrap()),
            (
                Compression::Snappy,
                snap::raw::Encoder::new().compress_vec(&zeros).unwrap(),
            ),
            (Compression::Lz4, lz4.finish().unwrap()),
            (Compression::Zstd, zstd::encode_all(&zeros[..], 3).unwrap()),
        ] {
            let bytes_max = (1 << 20) - 1;
            let refused = compression.decompress(&bytes, bytes_max);
            assert_eq!(
                refused,
                Err(BatchError::Inflated { bytes_max }),
                "{compression:?}"
            );
            assert!(
                compression.decompress(&bytes, 1 << 20).is_ok(),
                "{compression:?}"
            );
        }
        // Five bytes that claim 4 GiB.
        let claim = Compression::Snappy.decompress(&[0xff, 0xff, 0xff, 0xff, 0x0f], usize::MAX);
        assert_eq!(claim, Err(BatchError::Compressed));
    }

    #[test]
    fn what_a_producer_may_not_send_is_refused() {
        let two = two();
        let gap = [&FIRST[..], &[18, 0, 10, 4, 1, 1, 2, 2, b'n', 1]].concat();
        let long = [&two[..], &[0]].concat();
        for (batch, expected) in [
            (
                batch_of(0, 1, 1, &two),
                BatchError::Count {
                    count: 1,
                    last_offset_delta: 1,
                },
            ),
            (
                batch_of(0, 0, -1, &[]),
                BatchError::Count {
                    count: 0,
                    last_offset_delta: -1,
                },
            ),
            (batch_of(0, 3, 2, &two), BatchError::Record),
            (batch_of(0, 2, 1, &gap), BatchError::OffsetDelta),
            (batch_of(0, 2, 1, &long), BatchError::TrailingBytes),
            (batch_of(0x10, 2, 1, &two), BatchError::Transactional),
            (batch_of(0x20, 2, 1, &two), BatchError::Transactional),
            (batch_of(5, 2, 1, &two), BatchError::Compression { bits: 5 }),
            (batch_of(1, 2, 1, &two), BatchError::Compressed),
        ] {
            assert_eq!(validate(batch.into(), &Limits::default()), Err(expected));
        }
        let mut old = batch_of(0, 2, 1, &two);
        old[16] = 1;
        let refused = validate(old.into(), &Limits::default());
        assert_eq!(refused, Err(BatchError::Magic { magic: 1 }));
        let good = batch_of(0, 2, 1, &two);
        for bit in 17 * 8..good.len() * 8 {
            let mut damaged = good.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(
                validate(damaged.into(), &Limits::default()).is_err(),
                "{bit}"
            );
        }
    }

    #[test]
    fn a_request_may_hold_several_batches_and_nothing_else() {
        let one = batch_of(0, 2, 1, &two());
        let both = [&one[..], &one[..]].concat();
        assert_eq!(
            validate_all(both.clone().into(), &Limits::default())
                .unwrap()
                .len(),
            2
        );
        let refused = validate(both.clone().into(), &Limits::default());
        assert_eq!(refused, Err(BatchError::TrailingBytes));
        let cut = both[..both.len() - 1].to_vec();
        let refused = validate_all(cut.into(), &Limits::default());
        assert!(matches!(refused, Err(BatchError::Truncated { .. })));
        assert_eq!(
            validate_all(Bytes::new(), &Limits::default()),
            Err(BatchError::Empty)
        );
    }

    type Fields = (
        Option<Vec<u8>>,
        Option<Vec<u8>>,
        Vec<(String, Option<Vec<u8>>)>,
        u32,
    );

    proptest! {
        #[test]
        fn what_is_built_is_valid_and_reads_back(rows in prop::collection::vec(any::<Fields>(), 1..20)) {
            let mut builder = BatchBuilder::new(7);
            for (key, value, headers, time) in &rows {
                let headers: Vec<_> =
                    headers.iter().map(|(key, value)| (key.as_str(), value.as_deref())).collect();
                let body = RecordBody::new(key.as_deref(), value.as_deref(), headers);
                builder.push(i64::from(*time), &body);
            }
            let batch = validate(builder.finish(), &Limits::default()).unwrap();
            let found = records(batch.as_bytes().clone(), &Limits::default());
            let found: Vec<_> = found.collect::<Result<_, _>>().unwrap();
            prop_assert_eq!(found.len(), rows.len());
            for (record, (key, value, headers, time)) in found.iter().zip(&rows) {
                prop_assert_eq!(record.key.as_deref(), key.as_deref());
                prop_assert_eq!(record.value.as_deref(), value.as_deref());
                prop_assert_eq!(record.timestamp_ms, i64::from(*time));
                let expected = headers.iter().map(|(key, value)| (key.as_str(), value.as_deref()));
                prop_assert!(record.headers.iter().eq(expected));
            }
        }

        #[test]
        fn reading_is_total(bytes: Vec<u8>, attributes in 0i16..16, count in -2i32..5) {
            // With a right checksum, so that the inside is reached.
            let batch = batch_of(attributes, count, count.wrapping_sub(1), &bytes);
            let limits = Limits { batch_bytes_max: 1 << 20, decompressed_bytes_max: 1 << 16 };
            let valid = validate(batch.clone().into(), &limits);
            let read: Result<Vec<_>, _> = records(batch.into(), &limits).collect();
            prop_assert!(valid.is_err() || read.is_ok());
            drop(validate_all(bytes.clone().into(), &limits));
            prop_assert!(records(bytes.into(), &limits).count() < 1 << 16);
        }
    }
}
