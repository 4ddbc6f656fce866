//! One write-ahead log, topic partitions, tables and their recovery.
//!
//! For: making any number of appends and table changes durable in one `fdatasync`, and reading
//! them back. A partition's segments are Kafka's own files.
//! Not for: any protocol, any clock but the one injected, async. Every call blocks or is short.
//! Called by: `kafka-server` and `server`; `bridge` uses [`record`] alone.
//! Holds: what a `done` reported as committed survives kill -9 and power loss (`Durability::Sync`);
//! an offset's bytes never change; a reader never sees what a crash could take back.

pub mod fs;
mod log;
mod options;
mod partition;
pub mod record;
mod topics;
mod unit;

pub use log::{CloseError, Done, Log, OpenError, Stats};
#[cfg(any(test, faults))]
pub use options::Fault;
pub use options::{Clock, Durability, Options};
pub use partition::{Partition, ReadError};
pub use topics::{
    ConfigError, INTERNAL_PREFIX, NAME_BYTES_MAX, NameError, Topic, TopicConfig, Topics,
    validate_name,
};
pub use unit::{
    Admin, Append, AppendData, CommitError, PartitionId, Position, Receipt, TableChange, TableId,
    Unit,
};
