//! Files are opened here; a bounded number stays open for readers, the one unused longest is closed
//! first.
//!
//! Holds: when the process has no descriptor left, those kept for readers are given up before an
//! open is reported as failed.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;

use crate::fs::{File, Fs, Open};
use crate::trouble::lacks_descriptors;

pub(crate) struct Files {
    fs: Arc<dyn Fs>,
    open_max: usize,
    open: Mutex<OpenFiles>,
}

#[derive(Default)]
struct OpenFiles {
    by_path: HashMap<PathBuf, Used, foldhash::fast::RandomState>,
    uses: u64,
}

struct Used {
    file: Arc<dyn File>,
    last_use: u64,
}

impl OpenFiles {
    fn make_room(&mut self, open_max: usize) {
        while self.by_path.len() >= open_max {
            let oldest = self.by_path.iter().min_by_key(|(_, used)| used.last_use);
            let Some(oldest) = oldest.map(|(path, _)| path.clone()) else {
                return;
            };
            self.by_path.remove(&oldest);
        }
    }
}

impl Files {
    /// Keeps at most `open_max` files open, one at least.
    pub(crate) fn new(fs: Arc<dyn Fs>, open_max: usize) -> Self {
        Self {
            fs,
            open_max: open_max.max(1),
            open: Mutex::default(),
        }
    }

    /// The file, opened for reading if it is not open yet.
    pub(crate) fn read(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        {
            let mut open = self.lock();
            open.uses += 1;
            let uses = open.uses;
            if let Some(used) = open.by_path.get_mut(path) {
                used.last_use = uses;
                return Ok(Arc::clone(&used.file));
            }
            // Before another is opened, so that there is never one too many.
            open.make_room(self.open_max);
        }
        let file = self.open(path, Open::Read)?;
        let mut open = self.lock();
        open.make_room(self.open_max);
        let last_use = open.uses;
        let used = Used {
            file: Arc::clone(&file),
            last_use,
        };
        open.by_path.insert(path.to_owned(), used);
        Ok(file)
    }

    /// Opens a file that is not kept.
    pub(crate) fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>> {
        self.with_descriptor(|| self.fs.open(path, how))
    }

    /// Calls `open`, and once more with the readers' files closed when it found no descriptor.
    pub(crate) fn with_descriptor<T>(
        &self,
        mut open: impl FnMut() -> io::Result<T>,
    ) -> io::Result<T> {
        match open() {
            Err(error) if lacks_descriptors(&error) => {
                let kept = std::mem::take(&mut self.lock().by_path);
                drop(kept);
                open()
            }
            opened => opened,
        }
    }

    /// Closes the file when its last reader is done.
    pub(crate) fn forget(&self, path: &Path) {
        self.lock().by_path.remove(path);
    }

    fn lock(&self) -> MutexGuard<'_, OpenFiles> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
