//! What can be set about the log.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// When a commit counts as done.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Durability {
    /// After `fdatasync` of its write-ahead frame.
    #[default]
    Sync,
    /// After the write; synced every so many milliseconds. Power loss takes what came since.
    Interval { interval_ms: u64 },
    /// After the write; the operating system decides. Power loss takes what it had not written.
    Os,
}

/// A wrong behaviour, chosen to prove that the tests find it.
#[cfg(any(test, faults))]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// Answers before the frame is synced.
    AckBeforeSync,
    /// Never syncs a folder.
    SkipDirFsync,
    /// Tries a failed sync once more and believes the second answer.
    RetryFsync,
}

#[cfg(any(test, faults))]
impl Fault {
    /// The fault that `HEADWATER_FAULT` names; others' faults are none of ours.
    #[cfg(faults)]
    pub fn from_environment() -> Option<Self> {
        match std::env::var("HEADWATER_FAULT").ok()?.as_str() {
            "ack-before-sync" => Some(Self::AckBeforeSync),
            "skip-dir-fsync" => Some(Self::SkipDirFsync),
            "retry-fsync" => Some(Self::RetryFsync),
            _ => None,
        }
    }
}

/// Wall clock, milliseconds since 1970.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

#[derive(Clone)]
pub struct Options {
    /// The data directory; made if it is not there.
    pub dir: PathBuf,
    pub durability: Durability,
    /// Most bytes the write-ahead files may take, and the size of the reserve. `None`: 256 MiB,
    /// or a sixteenth of the disk where that is less.
    pub wal_bytes_max: Option<u64>,
    /// A topic's `segment.bytes` where it says none. Default 1 GiB.
    pub segment_bytes: u32,
    /// Age at which a segment is rolled, in milliseconds. Default 7 days.
    pub segment_ms: i64,
    /// A topic's `retention.ms` where it says none; -1 keeps for ever. Default 7 days.
    pub retention_ms: i64,
    /// A topic's `retention.bytes` a partition where it says none; -1 has no limit. Default -1.
    pub retention_bytes: i64,
    /// A topic's `max.message.bytes` where it says none. Default 1,048,588, as Kafka's.
    pub message_bytes_max: u32,
    /// Most bytes a partition keeps for its slowest sink or deliver before appends are refused.
    pub backlog_bytes_max: u64,
    /// Most partitions of all topics together.
    pub partitions_max: u32,
    /// Most files of partitions held open at once: a third each for readers, for appending and for
    /// the checkpoint under way. What a third cannot hold is closed and opened again when needed;
    /// a file that was appended to is synced first. Default 768.
    pub open_files_max: usize,
    /// Idempotent producers remembered a partition; the one idle longest is forgotten first.
    pub producers_max: usize,
    /// Idle time after which a producer is forgotten, in milliseconds. Default 1 day.
    pub producer_expiry_ms: i64,
    pub clock: Clock,
    #[cfg(any(test, faults))]
    pub fault: Option<Fault>,
}

impl Options {
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        const DAY_MS: i64 = 24 * 60 * 60 * 1000;
        Self {
            dir: dir.into(),
            durability: Durability::Sync,
            wal_bytes_max: None,
            segment_bytes: 1 << 30,
            segment_ms: 7 * DAY_MS,
            retention_ms: 7 * DAY_MS,
            retention_bytes: -1,
            message_bytes_max: 1_048_588,
            backlog_bytes_max: 16 << 30,
            partitions_max: 10_000,
            open_files_max: 768,
            producers_max: 10_000,
            producer_expiry_ms: DAY_MS,
            clock: Arc::new(wall_clock_ms),
            #[cfg(all(test, not(faults)))]
            fault: None,
            #[cfg(faults)]
            fault: Fault::from_environment(),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("dir", &self.dir)
            .field("durability", &self.durability)
            .field("wal_bytes_max", &self.wal_bytes_max)
            .finish_non_exhaustive()
    }
}

fn wall_clock_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
