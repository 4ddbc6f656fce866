//! A checkpoint: after it the write-ahead files before it are not needed any more.
//!
//! For: syncing what the segments got since the last one, writing the snapshot, removing what no
//! snapshot names. On a thread of its own, while commits go on in the next write-ahead file.
//! Holds: the order. Segments and folders are synced before the snapshot is in place, and nothing
//! is removed before the snapshot's name is on disk.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::context::Context;
use crate::fs::File;
use crate::snapshot::Snapshot;
use crate::state::{Doomed, State};
use crate::wal::{self, ChainEnd};

pub(crate) struct Checkpoint {
    snapshot: Snapshot,
    files: Vec<Arc<dyn File>>,
    dirs: Vec<PathBuf>,
    doomed: Doomed,
}

impl Checkpoint {
    /// Takes the cut; what it captured is no longer the state's to sync. `wal_number` is the file
    /// that the next frame goes to, its name on disk already.
    pub(crate) fn take(state: &mut State, wal_number: u64, end: ChainEnd) -> io::Result<Self> {
        let context = Arc::clone(&state.context);
        let before_ms = context
            .now_ms()
            .saturating_sub(context.options.producer_expiry_ms);
        state.producers.expire(before_ms);
        for writer in state.writers.values() {
            writer.write_indexes(&context, &mut state.dirty)?;
        }
        let snapshot = Snapshot::take(state, wal_number, end);
        let dirty = std::mem::take(&mut state.dirty);
        let doomed = std::mem::take(&mut state.doomed);
        state.removing.clone_from(&doomed.dirs);
        let mut open = 0;
        for writer in state.writers.values_mut() {
            // The next write opens it again and marks it dirty again.
            open += usize::from(writer.close_file());
        }
        tracing::debug!(open, dirty = dirty.files.len(), "checkpoint taken");
        Ok(Self {
            snapshot,
            files: dirty.files.into_values().collect(),
            dirs: dirty.dirs.into_iter().collect(),
            doomed,
        })
    }

    /// Carries it out. May be called again after a full disk was the reason it failed; a failed
    /// sync must not be repeated.
    pub(crate) fn run(&mut self, context: &Context) -> Result<(), Failure> {
        for file in &self.files {
            context.sync(&**file).map_err(Failure::Sync)?;
        }
        self.files.clear();
        for dir in &self.dirs {
            match context.sync_dir(dir) {
                // Its topic was deleted and the folder removed by an earlier checkpoint.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                synced => synced.map_err(Failure::Sync)?,
            }
        }
        self.dirs.clear();
        self.snapshot.write(context).map_err(|error| {
            if is_full(&error) {
                Failure::Full
            } else {
                Failure::Sync(error)
            }
        })?;
        self.remove(context).map_err(Failure::Sync)
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

#[derive(Debug)]
pub(crate) enum Failure {
    Full,
    /// The log has to stop.
    Sync(io::Error),
}

pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// Removes a file that may be gone already.
pub(crate) fn remove_file(context: &Context, path: &std::path::Path) -> io::Result<()> {
    context.files.forget(path);
    match context.fs.remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Removes a folder of files; either may be gone already.
pub(crate) fn remove_dir(context: &Context, dir: &std::path::Path) -> io::Result<()> {
    let entries = match context.fs.list(dir) {
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
