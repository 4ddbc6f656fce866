//! The store's directory and the doors to it.
//!
//! For: [`Store`], which gives out one [`Writer`] and any number of [`Reader`]s.
//! Not for: what they do.
//! Calls: `schema`, `writer`, `reader`. Called by: the server, which owns the threads.
//! Holds: one writer at a time.

use crate::schema;
use crate::{Reader, Writer};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Most bytes the documents may take on disk, the write-ahead file not counted; an insert
    /// beyond ends in [`crate::InsertError::Full`]. `None`: what the disk holds.
    pub bytes_max: Option<u64>,
    /// How long a document stays at least, in milliseconds from when it came into the store,
    /// whatever time its record tells. `None`: for ever.
    pub retention_ms: Option<i64>,
}

/// The document store of one directory.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
    options: Options,
    has_writer: Arc<AtomicBool>,
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{} cannot be made", path.display())]
    Directory {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{} is not a document store; move it away", path.display())]
    Foreign { path: PathBuf },
    #[error(
        "{} is a document store of version {version}, this program reads up to {version_max}; \
         use the newer program",
        path.display()
    )]
    Newer {
        path: PathBuf,
        version: i32,
        version_max: i32,
    },
    #[error(
        "{} is damaged; move it and its -wal away, and it is made anew from what the log still has",
        path.display()
    )]
    Corrupt {
        path: PathBuf,
        #[source]
        source: rusqlite::Error,
    },
    #[error("{} cannot be opened", path.display())]
    Sqlite {
        path: PathBuf,
        #[source]
        source: rusqlite::Error,
    },
    #[error("the document store already has its writer")]
    WriterTaken,
}

impl OpenError {
    pub(crate) fn from_sqlite(path: &Path, source: rusqlite::Error) -> Self {
        let path = path.to_owned();
        match is_corrupt(&source) {
            true => Self::Corrupt { path, source },
            false => Self::Sqlite { path, source },
        }
    }
}

/// The bytes on disk are not what SQLite wrote.
pub(crate) fn is_corrupt(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    matches!(
        error.sqlite_error_code(),
        Some(DatabaseCorrupt | NotADatabase)
    )
}

impl Store {
    /// Opens the store in `directory`, making it where it is not there. What a killed process left
    /// behind is put in order here.
    pub fn open(directory: &Path, options: Options) -> Result<Self, OpenError> {
        std::fs::create_dir_all(directory).map_err(|source| OpenError::Directory {
            path: directory.to_owned(),
            source,
        })?;
        schema::open(&schema::volume(directory), true)?;
        let has_writer = Arc::new(AtomicBool::new(false));
        Ok(Self {
            directory: directory.to_owned(),
            options,
            has_writer,
        })
    }

    /// The writer; there is one, until it is dropped.
    pub fn writer(&self) -> Result<Writer, OpenError> {
        if self.has_writer.swap(true, Ordering::AcqRel) {
            return Err(OpenError::WriterTaken);
        }
        let taken = Taken(Arc::clone(&self.has_writer));
        Writer::open(&self.directory, &self.options, taken)
    }

    /// One more reader.
    pub fn reader(&self) -> Result<Reader, OpenError> {
        Reader::open(&self.directory)
    }
}

/// The writer's place, free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Taken(Arc<AtomicBool>);

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}
