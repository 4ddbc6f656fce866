//! The log as its users hold it.

use std::sync::Arc;

use bytes::Bytes;

use crate::fs::Fs;
use crate::options::Options;
use crate::partition::Partition;
use crate::topics::{Topic, Topics};
use crate::unit::{CommitError, PartitionId, Receipt, TableId, Unit};

pub type Done = Box<dyn FnOnce(Vec<Result<Receipt, CommitError>>) + Send>;

/// Why a data directory was not opened. Nothing in it was changed beyond what recovery may repeat.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("this build of the log cannot open a directory yet")]
    Unfinished,
}

/// Why the log did not close cleanly. Everything acknowledged is on disk all the same.
#[derive(Debug, thiserror::Error)]
#[error("the log failed before it was closed: {reason}")]
pub struct CloseError {
    pub reason: String,
}

/// Counters since open, and what is so right now.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Stats {
    pub commits: u64,
    pub records: u64,
    pub bytes: u64,
    pub syncs: u64,
    /// Time spent in `fdatasync` of the write-ahead file, all syncs together.
    pub sync_micros: u64,
    pub checkpoints: u64,
    pub wal_bytes: u64,
    pub wal_bytes_max: u64,
    pub pending_bytes: u64,
    pub full: bool,
    pub failed: bool,
}

/// One log. Clones share it.
#[derive(Clone)]
pub struct Log {}

impl Log {
    /// Locks the directory, recovers what is in it, starts the committer.
    pub fn open(_fs: Arc<dyn Fs>, _options: Options) -> Result<Self, OpenError> {
        Err(OpenError::Unfinished)
    }

    /// Hands units over, in order. `done` is called on the committer thread, strictly in commit
    /// order, when they are as durable as the mode promises and readable; it must be short.
    pub fn submit(&self, units: Vec<Unit>, done: Done) {
        done(units.iter().map(|_| Err(CommitError::Closed)).collect());
    }

    /// As [`submit`](Self::submit) of one unit, waiting for the answer. For start-up, verbs, tests.
    pub fn commit(&self, _unit: Unit) -> Result<Receipt, CommitError> {
        Err(CommitError::Closed)
    }

    pub fn topics(&self) -> Arc<Topics> {
        Arc::default()
    }

    pub fn topic(&self, _name: &str) -> Option<Arc<Topic>> {
        None
    }

    pub fn partition(&self, _id: PartitionId) -> Option<Arc<Partition>> {
        None
    }

    /// Calls `row` with each key and value of a consistent view, in no particular order.
    pub fn scan_table(&self, _table: TableId, _row: &mut dyn FnMut(&Bytes, &Bytes)) {}

    pub fn table_row(&self, _table: TableId, _key: &[u8]) -> Option<Bytes> {
        None
    }

    /// Called after each applied commit with the partitions that grew; must be short.
    pub fn on_advance(&self, _hook: Box<dyn Fn(&[PartitionId]) + Send + Sync>) {}

    /// Called once, when the log fails: the process has to end.
    pub fn on_failure(&self, _hook: Box<dyn Fn(&str) + Send + Sync>) {}

    /// Partitions and the offsets up to which age or size lets them go, minus holds.
    pub fn retention_due(&self, _now_ms: i64) -> Vec<(PartitionId, u64)> {
        Vec::new()
    }

    /// `name` still needs `partition` from `offset` on.
    pub fn hold(&self, _name: &str, _partition: PartitionId, _offset: u64) {}

    pub fn release_hold(&self, _name: &str, _partition: PartitionId) {}

    /// Bytes handed over and not answered yet.
    pub fn pending_bytes(&self) -> u64 {
        0
    }

    pub fn stats(&self) -> Stats {
        Stats::default()
    }

    /// Commits what waits, applies and checkpoints: each record is in its segment afterwards.
    pub fn close(self) -> Result<(), CloseError> {
        Ok(())
    }
}
