//! Files as the log sees them: one small trait, so that a test can tear a write or fail a sync.

mod fault;
mod power_cut;
mod real;

use std::any::Any;
use std::io;
use std::path::Path;
use std::sync::Arc;

pub use fault::{FaultFs, FaultKind};
pub use power_cut::{PowerCutFs, Seed, Synced};
pub use real::RealFs;

/// How a file is opened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Open {
    /// Must exist; read only.
    Read,
    /// Must exist.
    Write,
    /// Made, or emptied if it exists.
    Create,
}

#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Entry {
    pub name: String,
    pub is_dir: bool,
}

/// Bytes of the disk that holds a folder.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Space {
    pub total: u64,
    pub available: u64,
}

/// A file system. Names become durable by [`sync_dir`](Fs::sync_dir) of their folder only.
///
/// EMFILE and ENFILE are told as they are: nothing was opened, and so nothing done.
pub trait Fs: Send + Sync + 'static {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>>;
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// The folder must be empty.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Replaces `to` in one step.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Ordered by name.
    fn list(&self, path: &Path) -> io::Result<Vec<Entry>>;
    /// Takes an exclusive lock until the answer is dropped; `WouldBlock` when another holds it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>>;
    fn space(&self, path: &Path) -> io::Result<Space>;
}

/// An open file. May write or read less than asked and may say `Interrupted`.
#[expect(
    clippy::len_without_is_empty,
    reason = "a file's length is an operation that can fail"
)]
pub trait File: Send + Sync {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize>;
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;
    /// The bytes and the length are on disk afterwards; the file's name need not be.
    fn sync(&self) -> io::Result<()>;
    fn set_len(&self, len: u64) -> io::Result<()>;
    fn len(&self) -> io::Result<u64>;
    /// Makes the file at least `len` long, with zeros that do not run out of space when written, as far
    /// as the file system can promise that.
    fn allocate(&self, len: u64) -> io::Result<()>;
}

/// Writes all of `bytes`, however often the system takes less or is interrupted.
pub fn write_all_at(file: &dyn File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write_at(bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                bytes = bytes.get(written..).unwrap_or_default();
                offset += written as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads until `into` is full or the file ends; gives how much was read.
pub fn read_full_at(file: &dyn File, into: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(room) = into.get_mut(filled..).filter(|room| !room.is_empty()) {
        match file.read_at(room, offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Makes the file `len` long by writing zeros behind its end.
pub(crate) fn write_zeros(file: &dyn File, len: u64) -> io::Result<()> {
    const CHUNK: usize = 1 << 20;
    let zeros = vec![0; CHUNK];
    let mut at = file.len()?;
    while at < len {
        let count = usize::try_from(len - at).unwrap_or(CHUNK).min(CHUNK);
        write_all_at(file, zeros.get(..count).unwrap_or_default(), at)?;
        at += count as u64;
    }
    Ok(())
}
