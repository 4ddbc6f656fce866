//! A checkpoint: after it the write-ahead files before it are not needed any more.
//!
//! For: syncing what the segments got since the last one, writing their index files and the snapshot,
//! removing what no snapshot names. On a thread of its own, while commits go on in the next
//! write-ahead file.
//! Holds: the order. Segments, indexes and folders are synced before the snapshot is in place, and
//! nothing is removed before the snapshot's name is on disk. Besides the segments that were open
//! already, it has one file open at a time.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::context::Context;
use crate::fs::{File, Open, write_all_at};
use crate::segment::{IndexTail, Segment, Tail};
use crate::snapshot::Snapshot;
use crate::state::{Doomed, State};
use crate::wal::{self, ChainEnd};

pub(crate) struct Checkpoint {
    snapshot: Snapshot,
    files: Vec<Arc<dyn File>>,
    indexes: Vec<Indexed>,
    dirs: Vec<PathBuf>,
    doomed: Doomed,
}

/// A segment whose index files are behind.
struct Indexed {
    segment: Arc<Segment>,
    tail: IndexTail,
    /// Nothing is appended to it any more: its readers can use the files.
    sealed: bool,
}

impl Checkpoint {
    /// Takes the cut; what it captured is no longer the state's to sync. `wal_number` is the file
    /// that the next frame goes to, its name on disk already.
    pub(crate) fn take(state: &mut State, wal_number: u64, end: ChainEnd) -> Self {
        let context = &state.context;
        let before_ms = context
            .now_ms()
            .saturating_sub(context.options.producer_expiry_ms);
        state.producers.expire(before_ms);
        let mut dirty = std::mem::take(&mut state.dirty);
        let sealed = dirty.sealed.drain().map(|(_, segment)| (segment, true));
        let growing = state
            .writers
            .values()
            .map(|one| (Arc::clone(&one.active), false));
        let mut indexes = Vec::new();
        for (segment, sealed) in sealed.chain(growing) {
            let Some(tail) = segment.take_index_tail() else {
                if sealed {
                    segment.drop_indexes();
                }
                continue;
            };
            if tail.fresh {
                dirty
                    .dirs
                    .extend(segment.path().parent().map(Path::to_owned));
            }
            indexes.push(Indexed {
                segment,
                tail,
                sealed,
            });
        }
        // Behind the indexes: it says how many entries their files have.
        let snapshot = Snapshot::take(state, wal_number, end);
        let doomed = std::mem::take(&mut state.doomed);
        state.removing.clone_from(&doomed.dirs);
        for writer in state.writers.values_mut() {
            // The next write opens it again and marks it dirty again.
            writer.close_file();
        }
        let (files, behind) = (dirty.files.len(), indexes.len());
        tracing::debug!(files, indexes = behind, "checkpoint taken");
        Self {
            snapshot,
            files: dirty.files.into_values().collect(),
            indexes,
            dirs: dirty.dirs.into_iter().collect(),
            doomed,
        }
    }

    /// Carries it out. Where a full disk or a want of descriptors was the reason it failed it may be
    /// called again, and does what is left.
    pub(crate) fn run(&mut self, context: &Context) -> io::Result<()> {
        while let Some(file) = self.files.pop() {
            context.sync(&*file)?;
        }
        while let Some(one) = self.indexes.last() {
            let (tail, segment) = (&one.tail, &one.segment);
            write_tail(context, &segment.index_path(), &tail.offsets, tail.fresh)?;
            write_tail(context, &segment.time_index_path(), &tail.times, tail.fresh)?;
            if one.sealed {
                segment.drop_indexes();
            }
            self.indexes.pop();
        }
        while let Some(dir) = self.dirs.last() {
            match context.sync_dir(dir) {
                // Its topic was deleted and the folder removed by an earlier checkpoint.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                synced => synced?,
            }
            self.dirs.pop();
        }
        self.snapshot.write(context)?;
        self.remove(context)
    }

    fn remove(&self, context: &Context) -> io::Result<()> {
        for number in wal::list(context)? {
            if number < self.snapshot.wal_number {
                remove_file(context, &wal::path(context, number))?;
            }
        }
        for path in &self.doomed.files {
            remove_file(context, path)?;
        }
        for dir in &self.doomed.dirs {
            remove_dir(context, dir)?;
        }
        Ok(())
    }
}

fn write_tail(context: &Context, path: &Path, tail: &Tail, fresh: bool) -> io::Result<()> {
    let file = match fresh {
        true => context.open(path, Open::Create)?,
        false if tail.bytes.is_empty() => return Ok(()),
        false => context.open(path, Open::Write)?,
    };
    write_all_at(&*file, &tail.bytes, tail.at)?;
    context.sync(&*file)
}

/// Removes a file that may be gone already.
pub(crate) fn remove_file(context: &Context, path: &Path) -> io::Result<()> {
    context.files.forget(path);
    match context.fs.remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Removes a folder of files; either may be gone already.
pub(crate) fn remove_dir(context: &Context, dir: &Path) -> io::Result<()> {
    let entries = match context.list(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        remove_file(context, &dir.join(entry.name))?;
    }
    match context.fs.remove_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}
