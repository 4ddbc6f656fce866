//! Why a data directory is not opened, or not closed cleanly.

use std::io;
use std::path::{Path, PathBuf};

/// Why a data directory was not opened. What is in it stays as it was, beyond what every recovery
/// may repeat.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{dir} is in use by another process; stop it, or choose another data directory")]
    Locked { dir: PathBuf },
    #[error("{file} says version {found}, this program knows up to {known}; use a newer program")]
    Newer {
        file: PathBuf,
        found: u64,
        known: u64,
    },
    #[error("{file} is not a format file of ours; is this a data directory?")]
    Format { file: PathBuf },
    #[error("{file} is damaged at byte {at}: {what}; restore it from a backup")]
    Damaged {
        file: PathBuf,
        at: u64,
        what: &'static str,
    },
    #[error("{file} cannot be read or written")]
    Io {
        file: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("a thread cannot be started")]
    Thread(#[source] io::Error),
}

impl OpenError {
    pub(crate) fn io(file: &Path, source: io::Error) -> Self {
        Self::Io {
            file: file.to_owned(),
            source,
        }
    }

    pub(crate) fn damaged(file: &Path, at: u64, what: &'static str) -> Self {
        Self::Damaged {
            file: file.to_owned(),
            at,
            what,
        }
    }
}

/// Why the log did not close cleanly. Everything acknowledged is on disk all the same.
#[derive(Debug, thiserror::Error)]
#[error("the log failed before it was closed: {reason}")]
pub struct CloseError {
    pub reason: String,
}
