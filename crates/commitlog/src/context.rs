//! What every part of one log shares: the files, the options, the folders' names.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::files::Files;
use crate::fs::{Entry, File, Fs, Open};
use crate::options::Options;
use crate::trouble::{lacks_descriptors, sync_failed};

pub(crate) struct Context {
    pub(crate) fs: Arc<dyn Fs>,
    pub(crate) options: Options,
    pub(crate) wal_bytes_max: u64,
    pub(crate) files: Files,
    /// A sync failed: none is called any more, whatever thread would.
    sync_failed: AtomicBool,
}

/// Of [`Options::open_files_max`] the readers, the writers and a checkpoint get one each.
const FILE_SHARES: usize = 3;

impl Context {
    /// The largest unit that is taken. A group that is not full yet holds as much at most before one
    /// more comes to it, so that any group fits one file, half of the bound.
    pub(crate) fn unit_bytes_max(&self) -> u64 {
        self.wal_bytes_max / 7
    }

    pub(crate) fn new(fs: Arc<dyn Fs>, options: Options, wal_bytes_max: u64) -> Self {
        Self {
            files: Files::new(Arc::clone(&fs), options.open_files_max / FILE_SHARES),
            fs,
            options,
            wal_bytes_max,
            sync_failed: AtomicBool::new(false),
        }
    }

    /// Most segment files that are open for writing; a checkpoint may hold as many that it syncs.
    pub(crate) fn written_files_max(&self) -> usize {
        (self.options.open_files_max / FILE_SHARES).max(1)
    }

    pub(crate) fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>> {
        self.files.open(path, how)
    }

    pub(crate) fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        self.files.with_descriptor(|| self.fs.list(dir))
    }

    pub(crate) fn wal_dir(&self) -> PathBuf {
        self.options.dir.join("wal")
    }

    pub(crate) fn log_dir(&self) -> PathBuf {
        self.options.dir.join("log")
    }

    pub(crate) fn snapshot_path(&self) -> PathBuf {
        self.wal_dir().join("snapshot")
    }

    pub(crate) fn reserve_path(&self) -> PathBuf {
        self.wal_dir().join("reserve")
    }

    pub(crate) fn now_ms(&self) -> i64 {
        (self.options.clock)()
    }

    /// A failure ends the log: nothing is synced after it.
    pub(crate) fn sync(&self, file: &dyn File) -> io::Result<()> {
        self.no_sync_failed()?;
        let synced = file.sync();
        #[cfg(any(test, faults))]
        if synced.is_err() && self.has_fault(crate::options::Fault::RetryFsync) {
            return file.sync();
        }
        synced.map_err(|error| self.note_failed_sync(error))
    }

    /// As [`sync`](Self::sync), but a folder that is not there, or that no descriptor was left for, was
    /// not synced at all and says so.
    pub(crate) fn sync_dir(&self, path: &Path) -> io::Result<()> {
        #[cfg(any(test, faults))]
        if self.has_fault(crate::options::Fault::SkipDirFsync) {
            return Ok(());
        }
        self.no_sync_failed()?;
        match self.files.with_descriptor(|| self.fs.sync_dir(path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound || lacks_descriptors(&error) => {
                Err(error)
            }
            synced => synced.map_err(|error| self.note_failed_sync(error)),
        }
    }

    fn no_sync_failed(&self) -> io::Result<()> {
        match self.sync_failed.load(Ordering::Acquire) {
            false => Ok(()),
            true => Err(sync_failed(io::Error::other("an earlier one did"))),
        }
    }

    fn note_failed_sync(&self, error: io::Error) -> io::Error {
        self.sync_failed.store(true, Ordering::Release);
        sync_failed(error)
    }

    #[cfg(any(test, faults))]
    pub(crate) fn has_fault(&self, fault: crate::options::Fault) -> bool {
        self.options.fault == Some(fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::PowerCutFs;

    #[test]
    fn after_a_failed_sync_none_is_called() {
        for first in ["file", "folder"] {
            let fs = PowerCutFs::default();
            fs.create_dir(Path::new("/data")).unwrap();
            let context = Context::new(Arc::new(fs.clone()), Options::new("/data"), 0);
            let file = context.open(Path::new("/data/a"), Open::Create).unwrap();
            let folder = Path::new("/data");
            // ENOSPC.
            fs.fail_sync_at(1, 28);
            match first {
                "file" => context.sync(&*file).unwrap_err(),
                _ => context.sync_dir(folder).unwrap_err(),
            };
            context.sync(&*file).unwrap_err();
            context.sync_dir(folder).unwrap_err();
            assert_eq!(fs.syncs().len(), 1, "{first}");
        }
    }
}
