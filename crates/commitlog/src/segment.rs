//! One segment: a file of record batches and its two indexes.
//!
//! For: what readers need of a segment, whether it still grows or not.
//! Not for: appending; the partition's one writer does that (`writer`). Its index files are written by
//! checkpoints alone.
//! Holds: bytes below `len` never change.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use crate::files::Files;
use crate::index::{self, Indexes};

/// Where the newest record of a segment is, by timestamp.
pub(crate) const NO_TIMESTAMP: i64 = -1;

/// What the snapshot keeps of a segment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct SegmentMark {
    pub(crate) base_offset: u64,
    pub(crate) len: u64,
    pub(crate) created_ms: i64,
    pub(crate) max_timestamp_ms: i64,
    /// Bytes of the partition before this segment, trimmed ones included.
    pub(crate) start_bytes: u64,
    pub(crate) offset_entries: u32,
    pub(crate) time_entries: u32,
}

pub(crate) struct Segment {
    pub(crate) base_offset: u64,
    pub(crate) created_ms: i64,
    pub(crate) start_bytes: u64,
    path: PathBuf,
    len: AtomicU64,
    max_timestamp_ms: AtomicI64,
    offset_entries: AtomicU32,
    time_entries: AtomicU32,
    /// `None` once the segment is closed and the files have them.
    indexes: RwLock<Option<Indexes>>,
    /// Both index files are there.
    has_index_files: AtomicBool,
}

/// What a checkpoint adds to a segment's index files.
pub(crate) struct IndexTail {
    /// The files are made anew, whatever was there.
    pub(crate) fresh: bool,
    pub(crate) offsets: Tail,
    pub(crate) times: Tail,
}

/// Bytes of one index file, and where they go.
pub(crate) struct Tail {
    pub(crate) at: u64,
    pub(crate) bytes: Vec<u8>,
}

/// The `.log` file of the segment that begins at `base_offset`.
pub(crate) fn log_path(dir: &Path, base_offset: u64) -> PathBuf {
    dir.join(format!("{base_offset:020}.log"))
}

impl Segment {
    /// An empty one.
    pub(crate) fn new(dir: &Path, base_offset: u64, created_ms: i64, start_bytes: u64) -> Self {
        let mark = SegmentMark {
            base_offset,
            len: 0,
            created_ms,
            max_timestamp_ms: NO_TIMESTAMP,
            start_bytes,
            offset_entries: 0,
            time_entries: 0,
        };
        Self::from_mark(dir, mark, Some(Indexes::default()))
    }

    /// One that is on disk; `indexes` for one that grows on.
    pub(crate) fn from_mark(dir: &Path, mark: SegmentMark, indexes: Option<Indexes>) -> Self {
        Self {
            base_offset: mark.base_offset,
            created_ms: mark.created_ms,
            start_bytes: mark.start_bytes,
            path: log_path(dir, mark.base_offset),
            len: AtomicU64::new(mark.len),
            max_timestamp_ms: AtomicI64::new(mark.max_timestamp_ms),
            offset_entries: AtomicU32::new(mark.offset_entries),
            time_entries: AtomicU32::new(mark.time_entries),
            indexes: RwLock::new(indexes),
            has_index_files: AtomicBool::new(false),
        }
    }

    /// Its index files are there, with the entries that its mark says.
    pub(crate) fn with_index_files(self) -> Self {
        self.has_index_files.store(true, Ordering::Release);
        self
    }

    pub(crate) fn mark(&self) -> SegmentMark {
        SegmentMark {
            base_offset: self.base_offset,
            len: self.len(),
            created_ms: self.created_ms,
            max_timestamp_ms: self.max_timestamp_ms(),
            start_bytes: self.start_bytes,
            offset_entries: self.offset_entries.load(Ordering::Acquire),
            time_entries: self.time_entries.load(Ordering::Acquire),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn index_path(&self) -> PathBuf {
        self.path.with_extension("index")
    }

    pub(crate) fn time_index_path(&self) -> PathBuf {
        self.path.with_extension("timeindex")
    }

    /// The segment's three files.
    pub(crate) fn paths(&self) -> [PathBuf; 3] {
        [self.path.clone(), self.index_path(), self.time_index_path()]
    }

    pub(crate) fn len(&self) -> u64 {
        self.len.load(Ordering::Acquire)
    }

    pub(crate) fn max_timestamp_ms(&self) -> i64 {
        self.max_timestamp_ms.load(Ordering::Acquire)
    }

    /// A batch was written at the end.
    pub(crate) fn grew(&self, batch_len: u32, last_offset: u64, max_timestamp_ms: i64) {
        let position = self.len();
        let relative = u32::try_from(last_offset - self.base_offset).unwrap_or(u32::MAX);
        if let Some(indexes) = &mut *self.indexes.write().unwrap_or_else(PoisonError::into_inner) {
            let position = u32::try_from(position).unwrap_or(u32::MAX);
            indexes.add(position, batch_len, relative, max_timestamp_ms);
        }
        self.max_timestamp_ms
            .fetch_max(max_timestamp_ms, Ordering::AcqRel);
        self.len
            .store(position + u64::from(batch_len), Ordering::Release);
    }

    /// Nothing is appended any more: the indexes get their last entry.
    pub(crate) fn seal(&self) {
        if let Some(indexes) = &mut *self.indexes.write().unwrap_or_else(PoisonError::into_inner) {
            indexes.add_time();
        }
    }

    /// What the files do not have yet; nothing for a segment without records. From here on the mark
    /// counts it as written: the caller writes it before that mark counts.
    pub(crate) fn take_index_tail(&self) -> Option<IndexTail> {
        let indexes = self.indexes.read().unwrap_or_else(PoisonError::into_inner);
        let indexes = indexes.as_ref().filter(|_| self.len() > 0)?;
        let count = |entries| u32::try_from(entries).unwrap_or(u32::MAX);
        let offsets_from = self
            .offset_entries
            .swap(count(indexes.offsets.len()), Ordering::AcqRel);
        let times_from = self
            .time_entries
            .swap(count(indexes.times.len()), Ordering::AcqRel);
        let fresh = !self.has_index_files.swap(true, Ordering::AcqRel);
        let offsets = indexes.offsets.iter().skip(offsets_from as usize);
        let times = indexes.times.iter().skip(times_from as usize);
        let tail = IndexTail {
            fresh,
            offsets: Tail {
                at: u64::from(offsets_from) * index::OFFSET_ENTRY_LEN as u64,
                bytes: offsets.flat_map(|entry| entry.to_bytes()).collect(),
            },
            times: Tail {
                at: u64::from(times_from) * index::TIME_ENTRY_LEN as u64,
                bytes: times.flat_map(|entry| entry.to_bytes()).collect(),
            },
        };
        (fresh || !tail.offsets.bytes.is_empty() || !tail.times.bytes.is_empty()).then_some(tail)
    }

    /// The segment is sealed and the files have the whole indexes: memory is given back.
    pub(crate) fn drop_indexes(&self) {
        *self.indexes.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// A byte at which a batch begins, at or before the one that holds `offset`.
    pub(crate) fn position(&self, files: &Files, offset: u64) -> io::Result<u64> {
        let relative = u32::try_from(offset.saturating_sub(self.base_offset)).unwrap_or(u32::MAX);
        if let Some(indexes) = &*self.indexes.read().unwrap_or_else(PoisonError::into_inner) {
            return Ok(u64::from(indexes.position(relative)));
        }
        let entries = self.offset_entries.load(Ordering::Acquire);
        let file = files.read(&self.index_path())?;
        let position = index::position_in(&*file, entries, relative)?;
        Ok(u64::from(position).min(self.len()))
    }

    /// An offset up to which all records are older than `timestamp_ms`.
    pub(crate) fn older(&self, files: &Files, timestamp_ms: i64) -> io::Result<u64> {
        if let Some(indexes) = &*self.indexes.read().unwrap_or_else(PoisonError::into_inner) {
            return Ok(self.base_offset + u64::from(indexes.older(timestamp_ms)));
        }
        let entries = self.time_entries.load(Ordering::Acquire);
        let file = files.read(&self.time_index_path())?;
        Ok(self.base_offset + u64::from(index::older_in(&*file, entries, timestamp_ms)?))
    }
}
