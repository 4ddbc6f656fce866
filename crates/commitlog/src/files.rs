//! A bounded number of files held open for readers; the one unused longest is closed first.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use hashbrown::HashMap;

use crate::fs::{File, Fs, Open};

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

impl Files {
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
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            open.uses += 1;
            let uses = open.uses;
            if let Some(used) = open.by_path.get_mut(path) {
                used.last_use = uses;
                return Ok(Arc::clone(&used.file));
            }
        }
        let file = self.fs.open(path, Open::Read)?;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.by_path.len() >= self.open_max {
            let oldest = open.by_path.iter().min_by_key(|(_, used)| used.last_use);
            if let Some(oldest) = oldest.map(|(path, _)| path.clone()) {
                open.by_path.remove(&oldest);
            }
        }
        let last_use = open.uses;
        open.by_path.insert(
            path.to_owned(),
            Used {
                file: Arc::clone(&file),
                last_use,
            },
        );
        Ok(file)
    }

    /// Closes the file when its last reader is done.
    pub(crate) fn forget(&self, path: &Path) {
        self.open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .by_path
            .remove(path);
    }
}
