//! What a caller hands to the log and what it gets back: units, receipts, errors.
//!
//! For: the vocabulary of [`Log::submit`](crate::Log::submit).
//! Not for: deciding whether a unit is acceptable; that is the committer's.
//! Holds: a [`Unit`] is atomic. All of it is in the log after a crash, or nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use smallvec::SmallVec;

use crate::record::{RecordBody, ValidBatch};
use crate::topics::{ConfigError, NameError, TopicConfig};

/// A partition's number: given once, never used again, the same after restarts and renames.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PartitionId(pub u32);

/// Where a record lies.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Position {
    pub partition: PartitionId,
    pub offset: u64,
}

impl Position {
    /// The bytes that [`AppendData::Reference`] writes: partition u32 BE, offset u64 BE.
    pub const LEN: usize = 12;

    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        let (partition, offset) = bytes.split_at_mut(4);
        partition.copy_from_slice(&self.partition.0.to_be_bytes());
        offset.copy_from_slice(&self.offset.to_be_bytes());
        bytes
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote at the front of `bytes`.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (partition, rest) = bytes.split_first_chunk::<4>()?;
        let (offset, _) = rest.split_first_chunk::<8>()?;
        Some(Self {
            partition: PartitionId(u32::from_be_bytes(*partition)),
            offset: u64::from_be_bytes(*offset),
        })
    }
}

/// One key/value map of the log. Think of it as a compacted topic that lives in memory.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct TableId(pub u8);

impl TableId {
    // 0 is reserved for the log's own use.
    /// Positions of sinks, delivers and the outbox.
    pub const CURSORS: Self = Self(1);
    /// Kafka groups.
    pub const GROUPS: Self = Self(2);
    /// Topics whose deletion is decided and not yet done.
    pub const DELETIONS: Self = Self(3);
    /// The first one of the broker's.
    pub const BROKER: Self = Self(16);
}

/// Appends, table changes and admin steps that happen together or not at all.
///
/// An empty unit passes in order without causing a sync.
#[derive(Clone, Debug, Default)]
pub struct Unit {
    pub appends: SmallVec<[Append; 2]>,
    pub tables: Vec<TableChange>,
    /// Rows that must be like this when the unit's turn has come, or it is refused.
    pub expects: Vec<TableChange>,
    pub admin: Vec<Admin>,
    /// Units of one lane never pass one another: see [`Lane`].
    pub lane: Option<Lane>,
    /// Where a record goes whose own partition is gone, or about to: it is as if the record had come
    /// just before the deletion. The receipt says where it is. Without it such a unit is refused.
    pub fallback: Option<PartitionId>,
}

/// Keeps submitters honest who send ahead: once a unit of a lane is refused, every later unit of
/// it is refused too, so that none is committed whose predecessor is missing. The submitter then
/// begins again with a new lane.
#[derive(Clone, Debug, Default)]
pub struct Lane(Arc<AtomicBool>);

impl From<Arc<AtomicBool>> for Lane {
    /// The lane whose end that flag is.
    fn from(broken: Arc<AtomicBool>) -> Self {
        Self(broken)
    }
}

impl Lane {
    pub(crate) fn is_broken(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// From here on every unit of it is refused.
    pub fn break_off(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Unit {
    pub fn is_empty(&self) -> bool {
        self.appends.is_empty() && self.tables.is_empty() && self.admin.is_empty()
    }

    /// About how many bytes this unit keeps in memory and adds to the write-ahead file.
    pub fn size_bytes(&self) -> usize {
        let appends: usize = self
            .appends
            .iter()
            .map(|append| append.data.size_bytes())
            .sum();
        let tables: usize = self
            .tables
            .iter()
            .map(|change| 16 + change.key.len() + change.value.as_ref().map_or(0, Bytes::len))
            .sum();
        appends + tables + self.admin.len() * 64 + 32
    }
}

#[derive(Clone, Debug)]
pub struct Append {
    pub partition: PartitionId,
    pub data: AppendData,
}

#[derive(Clone, Debug)]
pub enum AppendData {
    /// Merged with the group commit's other records into one batch a partition.
    Record { timestamp_ms: i64, body: RecordBody },
    /// As `Record`, but the first [`Position::LEN`] bytes of its value become the position that
    /// append `to` of this unit got. `to` must come before this append.
    Reference {
        timestamp_ms: i64,
        to: usize,
        body: RecordBody,
    },
    /// A producer's batch, stored verbatim but for its base offset and leader epoch.
    Batch(ValidBatch),
}

impl AppendData {
    fn size_bytes(&self) -> usize {
        match self {
            Self::Record { body, .. } | Self::Reference { body, .. } => body.len() + 24,
            Self::Batch(batch) => batch.as_bytes().len() + 16,
        }
    }
}

/// One row of one table; `None` deletes it.
#[derive(Clone, Debug)]
pub struct TableChange {
    pub table: TableId,
    pub key: Bytes,
    pub value: Option<Bytes>,
}

#[derive(Clone, Debug)]
pub enum Admin {
    CreateTopic {
        name: String,
        partitions: u32,
        config: TopicConfig,
    },
    DeleteTopic {
        name: String,
    },
    /// `total` must be more than the topic has now.
    AddPartitions {
        name: String,
        total: u32,
    },
    /// Replaces the whole configuration.
    SetConfig {
        name: String,
        config: TopicConfig,
    },
    /// Moves the log start offset up to `offset`; an offset below it changes nothing.
    TrimTo {
        partition: PartitionId,
        offset: u64,
    },
    /// [`Receipt::producer_id`] gets an id that was never given before and never will be again.
    AllocateProducerId,
}

/// A unit that is committed: on disk as far as the durability mode says, and readable.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Receipt {
    /// The group commit's number; several units share one.
    pub sequence: u64,
    /// One an append, in order; for a batch the position of its first record.
    pub positions: SmallVec<[Position; 2]>,
    /// The answer to [`Admin::AllocateProducerId`].
    pub producer_id: Option<i64>,
}

/// Why a unit was not committed. Nothing of it happened.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CommitError {
    #[error("the disk is full; free space and the log goes on by itself")]
    Full,
    #[error(
        "there is no file descriptor for a checkpoint; raise the limit of open files, and the log goes \
         on by itself once some are free"
    )]
    OutOfFiles,
    #[error("the log failed and takes no more writes: {reason}")]
    Poisoned { reason: String },
    #[error("the log is closed")]
    Closed,
    #[error("partition {} does not exist", .partition.0)]
    UnknownPartition { partition: PartitionId },
    #[error("topic {name} does not exist")]
    UnknownTopic { name: String },
    #[error("topic {name} already exists")]
    TopicExists { name: String },
    #[error("topic name refused")]
    InvalidName(#[source] NameError),
    #[error("topic configuration refused")]
    InvalidConfig(#[source] ConfigError),
    #[error("{given} partitions refused, {allowed}")]
    InvalidPartitions { given: u32, allowed: &'static str },
    #[error("offset {offset} is past the high watermark {high_watermark}")]
    OffsetOutOfRange { offset: u64, high_watermark: u64 },
    #[error("the batch was committed before, at offset {base_offset}")]
    DuplicateSequence { base_offset: u64 },
    #[error("sequence {given} of producer {producer_id} is out of order, expected {expected}")]
    OutOfOrderSequence {
        producer_id: i64,
        given: i32,
        expected: i32,
    },
    #[error("producer epoch {given} is fenced by {current}")]
    InvalidProducerEpoch { given: i16, current: i16 },
    #[error("partition {} waits for its slowest reader and holds {held_bytes} bytes for it", .partition.0)]
    BacklogFull {
        partition: PartitionId,
        held_bytes: u64,
    },
    #[error("{bytes} bytes, at most {bytes_max} are allowed")]
    TooLarge { bytes: u64, bytes_max: u64 },
    #[error("an earlier unit of the same lane was refused")]
    LaneBroken,
    #[error("a row is not what the unit expects any more")]
    RowChanged,
    #[error("the record at offset {offset} of partition {} has to be kept and cannot be read", .partition.0)]
    Unreadable { partition: PartitionId, offset: u64 },
    #[error("append {append} refers to append {to}, or its value has no room for a position")]
    BadReference { append: usize, to: usize },
}
