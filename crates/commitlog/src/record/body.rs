//! One record: encoding its key, value and headers, and reading records out of batches.

use bytes::Bytes;

use super::batch::BatchHeader;
use super::compression::Compression;
use super::validate::{BatchError, Limits};
use super::varint::{self, Reader};

/// Key, value and headers as message format 2 encodes them after the deltas.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RecordBody(Bytes);

impl RecordBody {
    pub fn new<'h, I>(key: Option<&[u8]>, value: Option<&[u8]>, headers: I) -> Self
    where
        I: IntoIterator<Item = (&'h str, Option<&'h [u8]>)>,
        I::IntoIter: Clone,
    {
        let headers = headers.into_iter();
        let room = key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len) + 16;
        let in_headers: usize = headers
            .clone()
            .map(|(key, value)| key.len() + value.map_or(0, <[u8]>::len) + 4)
            .sum();
        let mut out = Vec::with_capacity(room + in_headers);
        put_nullable(&mut out, key);
        put_nullable(&mut out, value);
        varint::put(&mut out, headers.clone().count() as i64);
        for (key, value) in headers {
            put_nullable(&mut out, Some(key.as_bytes()));
            put_nullable(&mut out, value);
        }
        Self(Bytes::from(out))
    }

    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Never: even a record of nulls has three bytes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Where the value's bytes begin and how many there are; `None` for a null value.
    pub(crate) fn value_range(&self) -> Option<(usize, usize)> {
        let mut reader = Reader::new(&self.0);
        reader.nullable()?;
        let len = usize::try_from(reader.varint()?).ok()?;
        Some((reader.position(), len))
    }
}

fn put_nullable(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => {
            varint::put(out, bytes.len() as i64);
            out.extend_from_slice(bytes);
        }
        None => varint::put(out, -1),
    }
}

/// One record. Its parts are slices of the (decompressed) batch.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Record {
    pub offset: u64,
    pub timestamp_ms: i64,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    pub headers: Headers,
}

impl Record {
    /// The same key, value and headers, ready to be appended elsewhere.
    pub fn to_body(&self) -> RecordBody {
        let headers: Vec<_> = self.headers.iter().collect();
        RecordBody::new(self.key.as_deref(), self.value.as_deref(), headers)
    }
}

/// The headers of one record, checked when it was read.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Headers {
    bytes: Bytes,
    count: u32,
}

impl Headers {
    pub fn len(&self) -> usize {
        self.count as usize
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<&[u8]>)> + Clone {
        let mut reader = Reader::new(&self.bytes);
        std::iter::from_fn(move || read_header(&mut reader))
    }

    /// The value of the last header of that name, as Kafka's `lastHeader`.
    pub fn last(&self, name: &str) -> Option<Option<&[u8]>> {
        self.iter()
            .filter(|(key, _)| *key == name)
            .map(|(_, value)| value)
            .last()
    }
}

fn read_header<'a>(reader: &mut Reader<'a>) -> Option<(&'a str, Option<&'a [u8]>)> {
    let key = str::from_utf8(reader.nullable()??).ok()?;
    Some((key, reader.nullable()?))
}

/// Reads the records of `batches`, one whole batch after the other; a batch cut short at the end
/// is left out, as Kafka's clients do. Ends after the first error.
pub fn records(batches: Bytes, limits: &Limits) -> Records {
    Records {
        batches,
        limits: *limits,
        current: None,
        skip_before: 0,
        failed: false,
    }
}

/// An iterator over records; see [`records`].
#[derive(Debug)]
pub struct Records {
    batches: Bytes,
    limits: Limits,
    current: Option<Open>,
    skip_before: u64,
    failed: bool,
}

#[derive(Debug)]
struct Open {
    header: BatchHeader,
    /// Decompressed.
    data: Bytes,
    left: u32,
}

impl Records {
    /// Leaves out records below `offset`.
    pub fn from_offset(mut self, offset: u64) -> Self {
        self.skip_before = offset;
        self
    }

    fn open_next(&mut self) -> Option<Result<(), BatchError>> {
        loop {
            if self.batches.len() < super::HEADER_LEN {
                return None;
            }
            let header = match BatchHeader::parse(&self.batches) {
                Ok(header) => header,
                Err(error) => return Some(Err(error)),
            };
            if header.len > self.batches.len() {
                return None;
            }
            let batch = self.batches.split_to(header.len);
            if header.last_offset() < self.skip_before || header.is_control() {
                continue;
            }
            return Some(decompress(&batch, &header, &self.limits).map(|data| {
                self.current = Some(Open {
                    header,
                    data,
                    left: header.record_count,
                });
            }));
        }
    }
}

impl Iterator for Records {
    type Item = Result<Record, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.failed {
                return None;
            }
            let Some(open) = self.current.as_mut().filter(|open| open.left > 0) else {
                self.current = None;
                match self.open_next()? {
                    Ok(()) => continue,
                    Err(error) => {
                        self.failed = true;
                        return Some(Err(error));
                    }
                }
            };
            open.left -= 1;
            match read_record(&mut open.data, &open.header) {
                Ok(record) if record.offset < self.skip_before => {}
                Ok(record) => return Some(Ok(record)),
                Err(error) => {
                    self.failed = true;
                    return Some(Err(error));
                }
            }
        }
    }
}

/// The records' bytes of one whole batch.
pub(crate) fn decompress(
    batch: &Bytes,
    header: &BatchHeader,
    limits: &Limits,
) -> Result<Bytes, BatchError> {
    let have = batch.len();
    if have < header.len {
        return Err(BatchError::Truncated {
            need: header.len,
            have,
        });
    }
    let records = batch.slice(super::HEADER_LEN..header.len);
    match header.compression()? {
        Compression::None => Ok(records),
        compression => compression
            .decompress(&records, limits.decompressed_bytes_max)
            .map(Bytes::from),
    }
}

/// Takes one record off the front of `data`.
pub(crate) fn read_record(data: &mut Bytes, header: &BatchHeader) -> Result<Record, BatchError> {
    let mut outer = Reader::new(data);
    let len = outer.varint().and_then(|len| usize::try_from(len).ok());
    let len = len
        .filter(|len| *len <= outer.left())
        .ok_or(BatchError::Record)?;
    let start = outer.position();
    let mut record = data.split_to(start + len).split_off(start);
    parse_record(&mut record, header).ok_or(BatchError::Record)
}

fn parse_record(bytes: &mut Bytes, batch: &BatchHeader) -> Option<Record> {
    let mut reader = Reader::new(bytes);
    let _attributes = reader.u8()?;
    let timestamp_delta = reader.varlong()?;
    let offset_delta = u32::try_from(reader.varint()?).ok()?;
    let key = reader.nullable()?.map(|key| bytes.slice_ref(key));
    let value = reader.nullable()?.map(|value| bytes.slice_ref(value));
    let count = u32::try_from(reader.varint()?).ok()?;
    // Each header has two bytes at least.
    if count as usize > reader.left() / 2 {
        return None;
    }
    let start = reader.position();
    for _ in 0..count {
        read_header(&mut reader)?;
    }
    if reader.left() != 0 {
        return None;
    }
    let timestamp_ms = if batch.is_log_append_time() {
        batch.max_timestamp_ms
    } else {
        batch.base_timestamp_ms.checked_add(timestamp_delta)?
    };
    Some(Record {
        offset: batch.base_offset.checked_add(u64::from(offset_delta))?,
        timestamp_ms,
        key,
        value,
        headers: Headers {
            bytes: bytes.slice(start..),
            count,
        },
    })
}
