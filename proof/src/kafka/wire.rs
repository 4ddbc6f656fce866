//! Kafka's primitive types and the record batch, version 2, uncompressed; both ways.

use anyhow::{Context, ensure};

/// Appends big-endian values.
#[derive(Debug, Default)]
pub(super) struct Writer {
    pub(super) bytes: Vec<u8>,
}

impl Writer {
    pub(super) fn i8(&mut self, value: i8) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    pub(super) fn i16(&mut self, value: i16) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    pub(super) fn i32(&mut self, value: i32) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    pub(super) fn i64(&mut self, value: i64) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    /// The harness's own names are short: a longer one would be cut, and found to be wrong.
    pub(super) fn string(&mut self, text: &str) -> &mut Self {
        let length = i16::try_from(text.len()).unwrap_or(i16::MAX);
        self.i16(length).raw(text.as_bytes())
    }

    fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// Zigzag, seven bits a byte.
    fn varint(&mut self, value: i64) -> &mut Self {
        let mut rest = (value << 1).cast_unsigned() ^ (value >> 63).cast_unsigned();
        loop {
            let low = (rest & 0x7f).to_le_bytes()[0];
            rest >>= 7;
            if rest == 0 {
                self.bytes.push(low);
                return self;
            }
            self.bytes.push(low | 0x80);
        }
    }
}

/// Takes big-endian values off the front.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    fn take(&mut self, count: usize) -> anyhow::Result<&'a [u8]> {
        let (head, rest) = self
            .rest
            .split_at_checked(count)
            .context("the answer is too short")?;
        self.rest = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> anyhow::Result<[u8; N]> {
        Ok(self.take(N)?.try_into()?)
    }

    pub(super) fn i8(&mut self) -> anyhow::Result<i8> {
        Ok(i8::from_be_bytes(self.array()?))
    }

    pub(super) fn i16(&mut self) -> anyhow::Result<i16> {
        Ok(i16::from_be_bytes(self.array()?))
    }

    pub(super) fn i32(&mut self) -> anyhow::Result<i32> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    pub(super) fn i64(&mut self) -> anyhow::Result<i64> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    /// A null string reads as the empty one.
    pub(super) fn string(&mut self) -> anyhow::Result<&'a [u8]> {
        let length = self.i16()?;
        self.take(usize::try_from(length).unwrap_or(0))
    }

    pub(super) fn nullable_bytes(&mut self) -> anyhow::Result<Option<&'a [u8]>> {
        match usize::try_from(self.i32()?) {
            Ok(length) => Ok(Some(self.take(length)?)),
            Err(_) => Ok(None),
        }
    }

    fn varint(&mut self) -> anyhow::Result<i64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
            }
        }
        anyhow::bail!("a varint of more than ten bytes")
    }

    fn varint_bytes(&mut self) -> anyhow::Result<Option<&'a [u8]>> {
        match usize::try_from(self.varint()?) {
            Ok(length) => Ok(Some(self.take(length)?)),
            Err(_) => Ok(None),
        }
    }
}

/// One record of a batch.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Record<'a> {
    pub(super) offset: u64,
    pub(super) value: Option<&'a [u8]>,
    /// Over timestamp, key, value and headers.
    pub(super) checksum: u32,
}

/// All records of all whole batches; a last batch that was cut by the size limit is left out, as Fetch allows.
pub(super) fn records(bytes: &[u8]) -> anyhow::Result<Vec<Record<'_>>> {
    let mut found = Vec::new();
    let mut reader = Reader::new(bytes);
    while reader.rest.len() >= 12 {
        let base_offset = reader.i64()?;
        let length = usize::try_from(reader.i32()?)?;
        let Ok(body) = reader.take(length) else { break };
        batch_records(base_offset, body, &mut found)
            .with_context(|| format!("the batch at {base_offset}"))?;
    }
    Ok(found)
}

fn batch_records<'a>(
    base_offset: i64,
    body: &'a [u8],
    found: &mut Vec<Record<'a>>,
) -> anyhow::Result<()> {
    let mut reader = Reader::new(body);
    reader.i32()?; // leader epoch
    let magic = reader.i8()?;
    ensure!(magic == 2, "magic {magic}");
    let crc = reader.i32()?.cast_unsigned();
    ensure!(crc == crc32c::crc32c(reader.rest), "its checksum is wrong");
    let attributes = reader.i16()?;
    ensure!(
        attributes & 0x7 == 0,
        "compressed, which this reader does not do"
    );
    let last_offset_delta = reader.i32()?;
    let base_timestamp = reader.i64()?;
    reader.i64()?; // greatest timestamp
    reader.i64()?; // producer
    reader.i16()?; // its epoch
    reader.i32()?; // base sequence
    let count = reader.i32()?;
    for index in 0..count {
        let length = usize::try_from(reader.varint()?)?;
        let mut record = Reader::new(reader.take(length)?);
        record.i8()?; // attributes
        let timestamp = base_timestamp + record.varint()?;
        let offset_delta = record.varint()?;
        ensure!(
            offset_delta == i64::from(index),
            "record {index} says its offset delta is {offset_delta}"
        );
        // Key, value and headers as they stand: what comes after the deltas never changes.
        let seed = crc32c::crc32c(&timestamp.to_be_bytes());
        let checksum = crc32c::crc32c_append(seed, record.rest);
        record.varint_bytes()?; // key
        let value = record.varint_bytes()?;
        found.push(Record {
            offset: u64::try_from(base_offset + offset_delta)?,
            value,
            checksum,
        });
    }
    ensure!(
        count == last_offset_delta + 1,
        "{count} records, last offset delta {last_offset_delta}"
    );
    Ok(())
}

/// A batch of one record, as a producer sends it.
pub(super) fn batch(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut record = Writer::default();
    record.i8(0).varint(0).varint(0);
    for part in [key, value] {
        record
            .varint(i64::try_from(part.len()).unwrap_or(0))
            .raw(part);
    }
    record.varint(0); // headers
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(0));
    let mut covered = Writer::default();
    covered
        .i16(0)
        .i32(0)
        .i64(now)
        .i64(now)
        .i64(-1)
        .i16(-1)
        .i32(-1)
        .i32(1);
    covered
        .varint(i64::try_from(record.bytes.len()).unwrap_or(0))
        .raw(&record.bytes);
    let mut body = Writer::default();
    body.i32(-1)
        .i8(2)
        .i32(crc32c::crc32c(&covered.bytes).cast_signed())
        .raw(&covered.bytes);
    let mut batch = Writer::default();
    batch
        .i64(0)
        .i32(i32::try_from(body.bytes.len()).unwrap_or(0))
        .raw(&body.bytes);
    batch.bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varint_is_zigzag_as_protocol_buffers_writes_it() {
        for (value, bytes) in [
            (0, vec![0]),
            (-1, vec![1]),
            (1, vec![2]),
            (63, vec![0x7e]),
            (-64, vec![0x7f]),
            (300, vec![0xd8, 0x04]),
        ] {
            let mut writer = Writer::default();
            writer.varint(value);
            assert_eq!(writer.bytes, bytes, "{value}");
            assert_eq!(Reader::new(&bytes).varint().unwrap(), value);
        }
    }

    #[test]
    fn batch_is_read_back_and_a_changed_one_is_refused() {
        let mut bytes = batch(b"k", b"value");
        let found = records(&bytes).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].offset, found[0].value), (0, Some(&b"value"[..])));
        let checksum = found[0].checksum;

        // The base offset lies outside of the checksum: the server sets it.
        bytes[7] = 9;
        assert_eq!(records(&bytes).unwrap()[0].offset, 9);
        assert_eq!(records(&bytes).unwrap()[0].checksum, checksum);

        let last = bytes.len() - 2;
        bytes[last] ^= 1;
        assert!(format!("{:#}", records(&bytes).unwrap_err()).contains("checksum is wrong"));
    }

    #[test]
    fn batch_that_the_size_limit_cut_is_left_out() {
        let mut bytes = batch(b"k", b"value");
        let whole = bytes.clone();
        bytes.extend_from_slice(&whole[..20]);
        assert_eq!(records(&bytes).unwrap().len(), 1);
    }
}
