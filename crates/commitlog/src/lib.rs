//! One write-ahead log, topic partitions, tables and their recovery.
//!
//! For: making any number of appends and table changes durable in one `fdatasync`, and reading
//! them back. A partition's segments are Kafka's own files.
//! Not for: any protocol, any clock but the one injected, async. Every call blocks or is short.
//! Called by: `kafka-server` and `server`; `bridge` uses [`record`] alone.
//! The way of a write: [`Log::submit`] (`log`) queues; the thread of `committer` takes what waits,
//! plans it (`group`, `entry`) into one `frame`, writes and syncs that (`wal`), applies it (`state`,
//! `writer`, `segment`, `tables`), answers and announces. `checkpoint` syncs the segments behind it,
//! `recovery` does the same from the file at the start.
//! Holds: what a `done` reported as committed survives kill -9 and power loss (`Durability::Sync`);
//! an offset's bytes never change; a reader never sees what a crash could take back.

mod checkpoint;
mod committer;
mod context;
#[cfg(test)]
mod crash;
mod entry;
mod error;
mod files;
mod frame;
pub mod fs;
mod group;
mod index;
mod log;
mod options;
mod partition;
mod producers;
pub mod record;
mod recovery;
mod retention;
mod segment;
mod shared;
mod snapshot;
mod state;
mod tables;
mod topics;
mod trouble;
mod unit;
mod wal;
mod writer;

pub use error::{CloseError, OpenError};
pub use log::{Log, Stats};
#[cfg(any(test, faults))]
pub use options::Fault;
pub use options::{Clock, Durability, Options};
pub use partition::{Partition, ReadError};
pub use shared::Done;
pub use topics::{
    ConfigError, INTERNAL_PREFIX, NAME_BYTES_MAX, NameError, Topic, TopicConfig, Topics,
    validate_name,
};
pub use unit::{
    Admin, Append, AppendData, CommitError, Lane, PartitionId, Position, Receipt, TableChange,
    TableId, Unit,
};
