//! The store's directory and the doors to it.
//!
//! For: [`Store`], which gives out one [`Writer`] and any number of [`Reader`]s.
//! Not for: what they do.
//! Calls: `schema`, `writer`, `reader`. Called by: the server, which owns the threads.
//! Holds: one writer at a time.

use crate::schema;
use crate::writer::is_failed_sync;
use crate::{Reader, Writer};
use rusqlite::{Connection, ErrorCode};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Most bytes the documents may take on disk, the write-ahead file not counted; an insert
    /// beyond ends in [`crate::InsertError::Full`]. `None`: what the disk holds.
    pub bytes_max: Option<u64>,
    /// How long a document stays at least, in milliseconds from when it came into the store,
    /// whatever time its record tells. `None`: for ever.
    pub retention_ms: Option<i64>,
}

/// The document store of one directory. A clone is the same one.
#[derive(Clone, Debug)]
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
    #[error(
        "{} is being read, by another program since before the start or by a query of this one; \
         end that program, a query ends by itself",
        path.display()
    )]
    Busy { path: PathBuf },
    /// The process has to end: what the disk holds is known only after a restart.
    #[error("{} could not be synced", path.display())]
    Failed {
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
    /// behind is read, and put in order by the [`writer`](Self::writer).
    pub fn open(directory: &Path, options: Options) -> Result<Self, OpenError> {
        std::fs::create_dir_all(directory).map_err(|source| OpenError::Directory {
            path: directory.to_owned(),
            source,
        })?;
        let path = schema::volume(directory);
        schema::open(&path, true)?;
        let has_writer = Arc::new(AtomicBool::new(false));
        Ok(Self {
            directory: directory.to_owned(),
            options,
            has_writer,
        })
    }

    /// The writer; there is one, until it is dropped. What a killed process left behind is put in
    /// order and on disk first: no cursor may be relied on before. [`OpenError::Busy`] at once while
    /// somebody reads a state from before that.
    pub fn writer(&self) -> Result<Writer, OpenError> {
        self.writer_within(Duration::ZERO)
    }

    /// As [`writer`](Self::writer), but waits so long for those who read.
    pub fn writer_within(&self, wait: Duration) -> Result<Writer, OpenError> {
        if self.has_writer.swap(true, Ordering::AcqRel) {
            return Err(OpenError::WriterTaken);
        }
        let taken = Taken(Arc::clone(&self.has_writer));
        let path = schema::volume(&self.directory);
        settle(&schema::open(&path, false)?, &path, wait)?;
        Writer::open(&self.directory, &self.options, taken)
    }

    /// One more reader.
    pub fn reader(&self) -> Result<Reader, OpenError> {
        Reader::open(&self.directory)
    }
}

/// Copies what is in the write-ahead file to its place, syncs it there and begins that file anew.
///
/// A sync of the process before may have failed. What it should have written is then in the page cache
/// only, counts there as written, and no further sync writes it: it must be written again, before
/// anyone relies on a cursor. With less than all of it gone from the write-ahead file, the next commits
/// would stand behind frames that a power cut may leave unreadable.
///
/// Waits at most `wait` for those who read what is there: readers of this process too. One that comes
/// once all is copied needs nothing of the file and keeps nobody waiting, so trying again gets there.
///
/// On a full disk it stays where it is: what a start refused there could not make room.
fn settle(connection: &Connection, path: &Path, wait: Duration) -> Result<(), OpenError> {
    let refused = |source| OpenError::from_sqlite(path, source);
    connection.busy_timeout(wait).map_err(refused)?;
    let checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)";
    let busy = connection.query_row(checkpoint, [], |row| row.get::<_, i64>(0));
    match busy {
        Ok(0) => Ok(()),
        Ok(_) => Err(OpenError::Busy {
            path: path.to_owned(),
        }),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::DiskFull) => Ok(()),
        Err(source) if is_failed_sync(&source) => Err(OpenError::Failed {
            path: path.to_owned(),
            source,
        }),
        Err(error) => Err(refused(error)),
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
