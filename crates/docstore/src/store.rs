//! The store's files and the doors to them.

use crate::{Batch, Filter, Namespace, Sort};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;
use uuid::Uuid;

#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Most bytes the store may take on disk; an insert beyond ends in [`InsertError::Full`].
    pub bytes_max: Option<u64>,
}

/// The document store of one directory.
#[derive(Debug)]
pub struct Store {}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the document store already has its writer")]
    WriterTaken,
}

/// The one connection that writes. `Send`, not `Sync`: it lives on a thread of its own.
#[derive(Debug)]
pub struct Writer {}

/// How far a sink has come in one partition, stored with the documents it wrote.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Cursor<'a> {
    pub name: &'a str,
    pub topic: Uuid,
    pub partition: u32,
    /// The first offset that is not done.
    pub next_offset: u64,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Inserted {
    /// Documents that are new.
    pub written: u64,
    /// Documents whose position was there already; nothing was changed.
    pub already_there: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum InsertError {
    #[error("no room for more documents; nothing of this batch was written")]
    Full,
}

#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    #[error("the document store could not be synced; it is closed for writing until a restart")]
    Failed(#[source] std::io::Error),
}

/// A connection that reads; any number of them, each on one thread at a time.
#[derive(Debug)]
pub struct Reader {}

#[derive(Clone, Debug, Default)]
pub struct Query {
    pub filter: Filter,
    pub sort: Sort,
    pub skip: u64,
    /// `None`: all.
    pub limit: Option<u64>,
}

/// What one query may cost.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Documents looked at.
    pub scanned_max: u64,
    /// Bytes held for sorting.
    pub sort_bytes_max: usize,
    pub deadline: Option<Instant>,
    /// Set to true from anywhere, it ends the query.
    pub cancel: Option<Arc<AtomicBool>>,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            scanned_max: 10_000_000,
            sort_bytes_max: 32 << 20,
            deadline: None,
            cancel: None,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Found {
    pub documents: u64,
    pub scanned: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum FindError {
    #[error("the query took longer than it may")]
    Deadline,
    #[error("the query was cancelled")]
    Cancelled,
}

impl Store {
    /// Opens the store in `directory`, making it where it is not there.
    pub fn open(directory: &Path, options: Options) -> Result<Self, OpenError> {
        let _later = (directory, options);
        Ok(Self {})
    }

    /// The writer; there is one, until it is dropped.
    pub fn writer(&self) -> Result<Writer, OpenError> {
        Ok(Writer {})
    }

    pub fn reader(&self) -> Result<Reader, OpenError> {
        Ok(Reader {})
    }
}

impl Writer {
    /// Writes `batch` and moves `cursors` in one transaction: all of it or nothing.
    pub fn insert(
        &mut self,
        batch: &Batch,
        cursors: &[Cursor<'_>],
    ) -> Result<Inserted, InsertError> {
        let _later = cursors;
        Ok(Inserted {
            written: batch.len() as u64,
            already_there: 0,
        })
    }

    /// Everything inserted so far is on disk when this returns.
    pub fn sync(&mut self) -> Result<(), SyncError> {
        Ok(())
    }

    pub fn create_index(&mut self, namespace: &Namespace, path: &str) -> Result<(), InsertError> {
        let _later = (namespace, path);
        Ok(())
    }
}

impl Reader {
    /// Gives each document that matches to `each`, as one line of JSON without the line's end.
    pub fn find(
        &mut self,
        namespace: &Namespace,
        query: &Query,
        bounds: &Bounds,
        each: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Found, FindError> {
        let _later = (namespace, query, bounds, each);
        Ok(Found::default())
    }

    pub fn count(
        &mut self,
        namespace: &Namespace,
        filter: &Filter,
        bounds: &Bounds,
    ) -> Result<u64, FindError> {
        let _later = (namespace, filter, bounds);
        Ok(0)
    }

    pub fn collections(&mut self) -> Result<Vec<Namespace>, FindError> {
        Ok(Vec::new())
    }

    /// The first offset sink `name` has not done of a partition; `None` where it never was.
    pub fn cursor(
        &mut self,
        name: &str,
        topic: Uuid,
        partition: u32,
    ) -> Result<Option<u64>, FindError> {
        let _later = (name, topic, partition);
        Ok(None)
    }
}
