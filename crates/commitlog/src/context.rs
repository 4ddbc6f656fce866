//! What every part of one log shares: the files, the options, the folders' names.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::files::Files;
use crate::fs::{File, Fs};
use crate::options::Options;

pub(crate) struct Context {
    pub(crate) fs: Arc<dyn Fs>,
    pub(crate) options: Options,
    pub(crate) wal_bytes_max: u64,
    pub(crate) files: Files,
}

impl Context {
    /// The largest unit that is taken: the write-ahead file holds several.
    pub(crate) fn unit_bytes_max(&self) -> u64 {
        self.wal_bytes_max / 8
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

    pub(crate) fn sync(&self, file: &dyn File) -> io::Result<()> {
        let synced = file.sync();
        #[cfg(any(test, faults))]
        if synced.is_err() && self.has_fault(crate::options::Fault::RetryFsync) {
            return file.sync();
        }
        synced
    }

    pub(crate) fn sync_dir(&self, path: &Path) -> io::Result<()> {
        #[cfg(any(test, faults))]
        if self.has_fault(crate::options::Fault::SkipDirFsync) {
            return Ok(());
        }
        self.fs.sync_dir(path)
    }

    #[cfg(any(test, faults))]
    pub(crate) fn has_fault(&self, fault: crate::options::Fault) -> bool {
        self.options.fault == Some(fault)
    }
}
