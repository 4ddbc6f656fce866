//! The one writer of a partition: appends batches, rolls segments, trims them.
//!
//! Not for: syncing; the write-ahead file is what makes a batch durable until the next checkpoint
//! syncs the segments.
//! Holds: what fails half-way (a full disk) can be done again and gives the same bytes.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::context::Context;
use crate::fs::{File, Open, write_all_at};
use crate::partition::Partition;
use crate::record::{BatchBuilder, BatchHeader};
use crate::segment::{Segment, log_path};

/// What a topic's settings say about its segments.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rolling {
    pub(crate) segment_bytes: u64,
    pub(crate) segment_ms: i64,
    pub(crate) message_bytes_max: usize,
}

pub(crate) struct Writer {
    pub(crate) partition: Arc<Partition>,
    pub(crate) rolling: Rolling,
    /// The offset after the last record applied.
    pub(crate) next_offset: u64,
    /// The segment that grows.
    pub(crate) active: Arc<Segment>,
    /// Open while it is among the dirty ones.
    file: Option<Arc<dyn File>>,
    /// What the group being built adds.
    pub(crate) staged: Staged,
}

#[derive(Default)]
pub(crate) struct Staged {
    pub(crate) touched: bool,
    pub(crate) next_offset: u64,
    pub(crate) builder: BatchBuilder,
}

/// Files that were written since the last checkpoint, and folders that got new names.
#[derive(Default)]
pub(crate) struct Dirty {
    pub(crate) files: hashbrown::HashMap<PathBuf, Arc<dyn File>>,
    pub(crate) dirs: hashbrown::HashSet<PathBuf>,
    /// Segments that end, whose index files the next checkpoint completes. By path.
    pub(crate) sealed: hashbrown::HashMap<PathBuf, Arc<Segment>>,
}

impl Writer {
    pub(crate) fn new(partition: Arc<Partition>, rolling: Rolling) -> Option<Self> {
        let active = partition.segments().last().map(Arc::clone)?;
        let next_offset = partition.high_watermark();
        let staged = Staged {
            touched: false,
            next_offset,
            builder: BatchBuilder::new(next_offset),
        };
        Some(Self {
            partition,
            rolling,
            next_offset,
            active,
            file: None,
            staged,
        })
    }

    /// Bytes of the longest backlog that a holder has.
    pub(crate) fn held_bytes(&self) -> u64 {
        match self.partition.held_from_bytes() {
            u64::MAX => 0,
            from => (self.active.start_bytes + self.active.len()).saturating_sub(from),
        }
    }

    /// Forgets what the group had staged.
    pub(crate) fn unstage(&mut self) {
        self.staged.touched = false;
        self.staged.next_offset = self.next_offset;
        self.staged.builder.restart(self.next_offset);
    }

    /// Appends one batch whose base offset is the next. Readers see it once the partition advances.
    pub(crate) fn append(
        &mut self,
        context: &Context,
        dirty: &mut Dirty,
        batch: &[u8],
        header: &BatchHeader,
        now_ms: i64,
    ) -> io::Result<()> {
        assert_eq!(
            header.base_offset, self.next_offset,
            "a partition's offsets are dense"
        );
        if self.must_roll(batch.len() as u64, header, now_ms) {
            self.roll(context, dirty, now_ms)?;
        }
        let file = self.file(context, dirty)?;
        write_all_at(&*file, batch, self.active.len())?;
        let len = u32::try_from(batch.len()).unwrap_or(u32::MAX);
        self.active
            .grew(len, header.last_offset(), header.max_timestamp_ms);
        self.next_offset = header.next_offset();
        Ok(())
    }

    /// Whether an append of such a batch opens a file.
    pub(crate) fn opens_file(&self, batch_len: u64, header: &BatchHeader, now_ms: i64) -> bool {
        self.file.is_none() || self.must_roll(batch_len, header, now_ms)
    }

    fn must_roll(&self, batch_len: u64, header: &BatchHeader, now_ms: i64) -> bool {
        let len = self.active.len();
        // Index entries have 32 bits for both.
        let too_far = header.last_offset() - self.active.base_offset > i32::MAX as u64;
        let too_long = len + batch_len > self.rolling.segment_bytes.min(i32::MAX as u64);
        let too_old = now_ms.saturating_sub(self.active.created_ms) > self.rolling.segment_ms;
        len > 0 && (too_far || too_long || too_old)
    }

    fn file(&mut self, context: &Context, dirty: &mut Dirty) -> io::Result<Arc<dyn File>> {
        let path = self.active.path();
        let file = match &self.file {
            Some(file) => Arc::clone(file),
            None => {
                let file = context.open(path, Open::Write)?;
                dirty.files.insert(path.to_owned(), Arc::clone(&file));
                self.file = Some(Arc::clone(&file));
                file
            }
        };
        Ok(file)
    }

    /// Closes the segment and begins the next one.
    pub(crate) fn roll(
        &mut self,
        context: &Context,
        dirty: &mut Dirty,
        now_ms: i64,
    ) -> io::Result<()> {
        let dir = self.partition.dir();
        let start_bytes = self.active.start_bytes + self.active.len();
        let fresh = Arc::new(Segment::new(&dir, self.next_offset, now_ms, start_bytes));
        let file = context.open(&log_path(&dir, self.next_offset), Open::Create)?;
        self.active.seal();
        let sealed = Arc::clone(&self.active);
        dirty.sealed.insert(sealed.path().to_owned(), sealed);
        dirty
            .files
            .insert(fresh.path().to_owned(), Arc::clone(&file));
        dirty.dirs.insert(dir);
        let mut segments = self.partition.segments().to_vec();
        segments.push(Arc::clone(&fresh));
        self.partition.set_segments(segments);
        self.active = fresh;
        self.file = Some(file);
        Ok(())
    }

    /// Moves the log start offset; gives the segments that are wholly below it.
    pub(crate) fn trim(
        &mut self,
        context: &Context,
        dirty: &mut Dirty,
        offset: u64,
        now_ms: i64,
    ) -> io::Result<Vec<Arc<Segment>>> {
        if offset <= self.partition.log_start_offset() {
            return Ok(Vec::new());
        }
        if offset >= self.next_offset && self.active.len() > 0 {
            self.roll(context, dirty, now_ms)?;
        }
        self.partition.start_at(offset);
        let segments = self.partition.segments();
        let ends = segments.iter().skip(1).map(|next| next.base_offset);
        let gone = ends.take_while(|end| *end <= offset).count();
        if gone == 0 {
            return Ok(Vec::new());
        }
        let (gone, kept) = segments.split_at_checked(gone).unwrap_or_default();
        self.partition.set_segments(kept.to_vec());
        Ok(gone.to_vec())
    }

    /// Closes the file; it is opened again when needed.
    pub(crate) fn close_file(&mut self) {
        self.file = None;
    }
}
