//! One partition as its readers see it.
//!
//! For: reading whole batches, single records and offsets by time, from any thread, while the
//! committer appends.
//! Not for: appending (`writer`).
//! Holds: nothing above the high watermark is ever read; every batch's checksum is checked before
//! it is given out.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bytes::Bytes;
use hashbrown::HashMap;
use uuid::Uuid;

use crate::context::Context;
use crate::fs::read_full_at;
use crate::index::INTERVAL_BYTES;
use crate::record::{BatchError, BatchHeader, HEADER_LEN, Limits, Records, records};
use crate::segment::Segment;
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
        file: PathBuf,
        at: u64,
        #[source]
        source: BatchError,
    },
    #[error("{file} cannot be read")]
    Io {
        file: PathBuf,
        #[source]
        source: io::Error,
    },
}

type Segments = Arc<Vec<Arc<Segment>>>;

/// What one holder needs.
#[derive(Clone, Copy)]
struct Hold {
    /// Nothing from here on is trimmed.
    offset: u64,
    /// What counts against `Options::backlog_bytes_max` begins here.
    backlog_from: u64,
}

/// A partition; stays readable in the hands of those who hold it, until it is deleted.
pub struct Partition {
    id: PartitionId,
    topic: Arc<str>,
    topic_id: Uuid,
    index: u32,
    context: Arc<Context>,
    log_start: AtomicU64,
    high_watermark: AtomicU64,
    deleted: AtomicBool,
    refuses_appends: AtomicBool,
    /// By base offset; the last one grows. Never empty.
    segments: RwLock<Segments>,
    holds: Mutex<HashMap<String, Hold>>,
    /// Where the longest backlog begins, in bytes from the partition's first record ever.
    held_from_bytes: AtomicU64,
}

impl Partition {
    pub(crate) fn new(
        context: Arc<Context>,
        id: PartitionId,
        topic: (Arc<str>, Uuid),
        index: u32,
        offsets: (u64, u64),
        segments: Vec<Arc<Segment>>,
    ) -> Self {
        Self {
            id,
            topic: topic.0,
            topic_id: topic.1,
            index,
            context,
            log_start: AtomicU64::new(offsets.0),
            high_watermark: AtomicU64::new(offsets.1),
            deleted: AtomicBool::new(false),
            refuses_appends: AtomicBool::new(false),
            segments: RwLock::new(Arc::new(segments)),
            holds: Mutex::default(),
            held_from_bytes: AtomicU64::new(u64::MAX),
        }
    }

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
        self.log_start.load(Ordering::Acquire)
    }

    /// The offset after the last record that is committed.
    pub fn high_watermark(&self) -> u64 {
        self.high_watermark.load(Ordering::Acquire)
    }

    pub fn is_deleted(&self) -> bool {
        self.deleted.load(Ordering::Acquire)
    }

    /// Bytes of all segments that are there.
    pub fn size_bytes(&self) -> u64 {
        self.segments().iter().map(|segment| segment.len()).sum()
    }

    /// Whole batches from the one that holds `offset` on, about `bytes_max`, one at least; empty
    /// at the high watermark.
    pub fn read(&self, offset: u64, bytes_max: usize) -> Result<Bytes, ReadError> {
        let high_watermark = self.check(offset)?;
        if offset == high_watermark {
            return Ok(Bytes::new());
        }
        let segments = self.segments();
        // Batches do not span segments, and no segment but the last is empty.
        let after = segments.partition_point(|segment| segment.base_offset <= offset);
        let Some(segment) = after.checked_sub(1).and_then(|index| segments.get(index)) else {
            return Err(self.out_of_range(offset));
        };
        let file = segment.path();
        let start = segment
            .position(&self.context.files, offset)
            .map_err(|source| ReadError::Io {
                file: file.to_owned(),
                source,
            })?;
        let read = Scan {
            partition: self,
            segment,
            offset,
            high_watermark,
        };
        let found = match read.batches(start, bytes_max) {
            // An index that points wrong is no reason to fail: the segment itself says where.
            Err(ReadError::Damaged { .. }) | Ok(None) if start > 0 => read.batches(0, bytes_max),
            found => found,
        };
        // What is committed is there: a base offset must be damaged.
        let (need, have) = (HEADER_LEN, 0);
        found?.ok_or_else(|| read.damaged(segment.len(), BatchError::Truncated { need, have }))
    }

    /// The records of one [`read`](Self::read), from `offset` on.
    pub fn records(&self, offset: u64, bytes_max: usize) -> Result<Records, ReadError> {
        Ok(records(self.read(offset, bytes_max)?, &Limits::default()).from_offset(offset))
    }

    /// Offset and timestamp of the first record that is not older than `timestamp_ms`.
    pub fn offset_for_time(&self, timestamp_ms: i64) -> Result<Option<(u64, i64)>, ReadError> {
        let segments = self.segments();
        let newer = |segment: &&Arc<Segment>| segment.max_timestamp_ms() >= timestamp_ms;
        for segment in segments.iter().filter(newer) {
            let older = segment
                .older(&self.context.files, timestamp_ms)
                .map_err(|source| ReadError::Io {
                    file: segment.path().to_owned(),
                    source,
                })?;
            let from = older.max(self.log_start_offset());
            let found = self.first_record(from, |record_ms| record_ms >= timestamp_ms)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// Offset and timestamp of the newest record by timestamp (ListOffsets -3).
    pub fn max_timestamp(&self) -> Result<Option<(u64, i64)>, ReadError> {
        let segments = self.segments();
        let newest = segments
            .iter()
            .map(|segment| segment.max_timestamp_ms())
            .max();
        match newest {
            Some(newest) if newest >= 0 => self.offset_for_time(newest),
            _ => Ok(None),
        }
    }

    fn first_record(
        &self,
        mut offset: u64,
        wanted: impl Fn(i64) -> bool,
    ) -> Result<Option<(u64, i64)>, ReadError> {
        const STEP_BYTES: usize = 1 << 20;
        while offset < self.high_watermark() {
            let mut batches = self.read(offset, STEP_BYTES)?;
            let Ok(mut header) = BatchHeader::parse(&batches) else {
                break;
            };
            while batches.len() >= header.len {
                let batch = batches.split_to(header.len);
                if wanted(header.max_timestamp_ms) {
                    for record in records(batch, &Limits::default()).from_offset(offset) {
                        let record = record.map_err(|source| ReadError::Damaged {
                            file: self.dir(),
                            at: header.base_offset,
                            source,
                        })?;
                        if wanted(record.timestamp_ms) {
                            return Ok(Some((record.offset, record.timestamp_ms)));
                        }
                    }
                }
                offset = header.next_offset();
                match BatchHeader::parse(&batches) {
                    Ok(next) => header = next,
                    Err(_) => break,
                }
            }
        }
        Ok(None)
    }

    fn check(&self, offset: u64) -> Result<u64, ReadError> {
        if self.is_deleted() {
            return Err(ReadError::Deleted);
        }
        let high_watermark = self.high_watermark();
        if offset < self.log_start_offset() || offset > high_watermark {
            return Err(self.out_of_range(offset));
        }
        Ok(high_watermark)
    }

    fn out_of_range(&self, offset: u64) -> ReadError {
        ReadError::OffsetOutOfRange {
            offset,
            log_start_offset: self.log_start_offset(),
            high_watermark: self.high_watermark(),
        }
    }

    pub(crate) fn dir(&self) -> PathBuf {
        dir(&self.context.log_dir(), &self.topic, self.index)
    }

    pub(crate) fn segments(&self) -> Segments {
        Arc::clone(&self.segments.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn set_segments(&self, segments: Vec<Arc<Segment>>) {
        *self
            .segments
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Arc::new(segments);
    }

    pub(crate) fn advance(&self, high_watermark: u64) {
        self.high_watermark.store(high_watermark, Ordering::Release);
    }

    pub(crate) fn start_at(&self, offset: u64) {
        self.log_start.store(offset, Ordering::Release);
    }

    pub(crate) fn delete(&self) {
        self.deleted.store(true, Ordering::Release);
    }

    pub(crate) fn refuses_appends(&self) -> bool {
        self.refuses_appends.load(Ordering::Acquire)
    }

    pub(crate) fn refuse_appends(&self, refuse: bool) {
        self.refuses_appends.store(refuse, Ordering::Release);
    }

    /// All bytes ever appended, trimmed ones included.
    pub(crate) fn end_bytes(&self) -> u64 {
        self.segments()
            .last()
            .map_or(0, |segment| segment.start_bytes + segment.len())
    }

    /// Where the longest backlog of a holder begins, in bytes; `u64::MAX` if nobody holds.
    pub(crate) fn held_from_bytes(&self) -> u64 {
        self.held_from_bytes.load(Ordering::Acquire)
    }

    /// The lowest offset that some holder needs.
    pub(crate) fn held_from(&self) -> Option<u64> {
        self.holds
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .map(|hold| hold.offset)
            .min()
    }

    pub(crate) fn hold(&self, name: &str, offset: u64) {
        let hold = Hold {
            offset,
            backlog_from: offset,
        };
        self.change_holds(|holds| *holds.entry_ref(name).or_insert(hold) = hold);
    }

    /// All that is there and what comes; only what comes is backlog. Whoever holds already goes on so.
    pub(crate) fn hold_whole(&self, name: &str) {
        let hold = Hold {
            offset: self.log_start_offset(),
            backlog_from: self.high_watermark(),
        };
        self.change_holds(|holds| {
            holds.entry_ref(name).or_insert(hold);
        });
    }

    pub(crate) fn release_hold(&self, name: &str) {
        self.change_holds(|holds| {
            holds.remove(name);
        });
    }

    fn change_holds(&self, change: impl FnOnce(&mut HashMap<String, Hold>)) {
        let backlog_from =
            |holds: &HashMap<String, Hold>| holds.values().map(|hold| hold.backlog_from).min();
        let mut holds = self.holds.lock().unwrap_or_else(PoisonError::into_inner);
        let before = backlog_from(&holds);
        change(&mut holds);
        let from = backlog_from(&holds);
        if from != before {
            let from = from.map_or(u64::MAX, |offset| self.bytes_before(offset));
            self.held_from_bytes.store(from, Ordering::Release);
        }
    }

    /// About how many bytes lie before `offset`, never too many.
    fn bytes_before(&self, offset: u64) -> u64 {
        let segments = self.segments();
        if offset >= self.high_watermark() {
            return self.end_bytes();
        }
        let after = segments.partition_point(|segment| segment.base_offset <= offset);
        let Some(segment) = after.checked_sub(1).and_then(|index| segments.get(index)) else {
            return segments.first().map_or(0, |segment| segment.start_bytes);
        };
        segment.start_bytes + segment.position(&self.context.files, offset).unwrap_or(0)
    }
}

/// The folder of a partition. Names cannot hold `/`, and the index is what follows the last `-`.
pub(crate) fn dir(log_dir: &Path, topic: &str, index: u32) -> PathBuf {
    log_dir.join(format!("{topic}-{index}"))
}

/// One read of one segment.
struct Scan<'a> {
    partition: &'a Partition,
    segment: &'a Segment,
    offset: u64,
    high_watermark: u64,
}

impl Scan<'_> {
    /// Whole batches from the one that holds the offset on, looking from byte `start` on; `None`
    /// if it is not there.
    fn batches(&self, start: u64, bytes_max: usize) -> Result<Option<Bytes>, ReadError> {
        let mut at = start;
        let mut room = bytes_max
            .saturating_add(INTERVAL_BYTES as usize)
            .max(HEADER_LEN);
        loop {
            let bytes = self.bytes(at, room)?;
            let skipped = self.skip(&bytes, at)?;
            let found = bytes.slice(skipped.min(bytes.len())..);
            if found.len() < HEADER_LEN {
                // All of it was before the offset.
                if skipped == 0 || at + skipped as u64 >= self.segment.len() {
                    return Ok(None);
                }
                at += skipped as u64;
                continue;
            }
            let header = self.header(&found, at + skipped as u64)?;
            if found.len() < header.len {
                (at, room) = (at + skipped as u64, header.len.max(bytes_max));
                if at + header.len as u64 > self.segment.len() {
                    return Err(self.damaged(at, BatchError::Length { length: -1 }));
                }
                continue;
            }
            return self.whole(found, at + skipped as u64, bytes_max).map(Some);
        }
    }

    /// How many bytes hold batches that end before the offset.
    fn skip(&self, bytes: &Bytes, at: u64) -> Result<usize, ReadError> {
        let mut skipped = 0;
        while let Some(rest) = bytes.get(skipped..).filter(|rest| rest.len() >= HEADER_LEN) {
            let header = self.header(rest, at + skipped as u64)?;
            if header.last_offset() >= self.offset {
                break;
            }
            skipped += header.len;
        }
        Ok(skipped)
    }

    /// Cuts after the last whole batch that is committed and fits, each checked; one at least. What
    /// is whole before a damaged one is given out: the next read begins with the damage and names it.
    fn whole(&self, bytes: Bytes, at: u64, bytes_max: usize) -> Result<Bytes, ReadError> {
        let (mut end, mut next) = (0, None);
        while let Some(rest) = bytes.get(end..).filter(|rest| rest.len() >= HEADER_LEN) {
            let room = if end == 0 {
                usize::MAX
            } else {
                bytes_max.saturating_sub(end)
            };
            match self.checked(rest, at + end as u64, next, room) {
                Ok(Some(header)) => {
                    end += header.len;
                    next = Some(header.next_offset());
                }
                Ok(None) => break,
                Err(_) if end > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(bytes.slice(..end))
    }

    /// The batch at the front of `bytes`, which follows on `next`; `None` if it is not committed yet,
    /// not all there or longer than `room`.
    fn checked(
        &self,
        bytes: &[u8],
        at: u64,
        next: Option<u64>,
        room: usize,
    ) -> Result<Option<BatchHeader>, ReadError> {
        let header = self.header(bytes, at)?;
        let committed = header.next_offset() <= self.high_watermark;
        // The base offset is outside the checksum: it must fit what was asked for, or follow on.
        let fits_in = match next {
            None => header.base_offset <= self.offset && committed,
            Some(next) => header.base_offset == next || !committed,
        };
        if !fits_in {
            let base_offset = header.base_offset.cast_signed();
            return Err(self.damaged(at, BatchError::BaseOffset { base_offset }));
        }
        if !committed || bytes.len() < header.len || header.len > room {
            return Ok(None);
        }
        match header.crc_matches(bytes) {
            true => Ok(Some(header)),
            false => Err(self.damaged(at, BatchError::Crc)),
        }
    }

    fn header(&self, bytes: &[u8], at: u64) -> Result<BatchHeader, ReadError> {
        BatchHeader::parse(bytes).map_err(|source| self.damaged(at, source))
    }

    fn damaged(&self, at: u64, source: BatchError) -> ReadError {
        ReadError::Damaged {
            file: self.segment.path().to_owned(),
            at,
            source,
        }
    }

    fn bytes(&self, at: u64, room: usize) -> Result<Bytes, ReadError> {
        let left = self.segment.len().saturating_sub(at);
        let mut bytes = vec![0; room.min(usize::try_from(left).unwrap_or(usize::MAX))];
        let path = self.segment.path();
        let read = || {
            let file = self.partition.context.files.read(path)?;
            read_full_at(&*file, &mut bytes, at)
        };
        match { read }() {
            Ok(filled) if filled == bytes.len() => Ok(Bytes::from(bytes)),
            Ok(_) => Err(self.io(io::ErrorKind::UnexpectedEof.into())),
            Err(source) => Err(self.io(source)),
        }
    }

    fn io(&self, source: io::Error) -> ReadError {
        // A segment that went while we looked is no longer in range.
        if self.partition.is_deleted() {
            return ReadError::Deleted;
        }
        if source.kind() == io::ErrorKind::NotFound
            && self.offset < self.partition.log_start_offset()
        {
            return self.partition.out_of_range(self.offset);
        }
        ReadError::Io {
            file: self.segment.path().to_owned(),
            source,
        }
    }
}
