//! The log as its users hold it.
//!
//! For: opening, submitting, looking at topics, partitions and tables, closing.
//! Not for: any of the work; the committer and the checkpoint thread do it.
//! Holds: when the last clone is dropped without `close`, what was submitted is still committed.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;

use bytes::Bytes;

use crate::committer::{Committer, run_checkpoints};
use crate::context::Context;
use crate::error::{CloseError, OpenError};
use crate::fs::Fs;
use crate::options::Options;
use crate::partition::Partition;
use crate::recovery;
use crate::retention::{self, Retention};
use crate::shared::{AdvanceHook, Done, FailureHook, Shared, Submission};
use crate::topics::{Topic, Topics};
use crate::unit::{CommitError, PartitionId, Receipt, TableId, Unit};

const WAL_BYTES_MAX: u64 = 256 << 20;
const WAL_BYTES_MIN: u64 = 64 << 10;

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
    /// Bytes of frames in the newest write-ahead file.
    pub wal_bytes: u64,
    pub wal_bytes_max: u64,
    pub pending_bytes: u64,
    pub full: bool,
    pub failed: bool,
    /// Group commits that recovery applied again.
    pub recovered_commits: u64,
    /// Bytes of a torn last frame that recovery cut.
    pub torn_bytes: u64,
}

/// One log. Clones share it.
#[derive(Clone)]
pub struct Log {
    handle: Arc<Handle>,
}

struct Handle {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    recovered: (u64, u64),
    /// Held until the threads have ended.
    _lock: Box<dyn std::any::Any + Send + Sync>,
}

impl Log {
    /// Locks the directory, recovers what is in it, starts the committer.
    pub fn open(fs: Arc<dyn Fs>, options: Options) -> Result<Self, OpenError> {
        let dir = options.dir.clone();
        make_dirs(&*fs, &dir).map_err(|error| OpenError::io(&dir, error))?;
        let lock_path = dir.join("headwater.lock");
        let lock = fs.lock(&lock_path).map_err(|error| match error.kind() {
            std::io::ErrorKind::WouldBlock => OpenError::Locked { dir: dir.clone() },
            _ => OpenError::io(&lock_path, error),
        })?;
        let space = fs.space(&dir).map_err(|error| OpenError::io(&dir, error))?;
        let wal_bytes_max = options
            .wal_bytes_max
            .unwrap_or_else(|| WAL_BYTES_MAX.min(space.total / 16));
        let context = Arc::new(Context::new(fs, options, wal_bytes_max.max(WAL_BYTES_MIN)));
        recovery::prepare(&context)?;
        let recovered = recovery::recover(&context)?;
        let numbers = (recovered.frames, recovered.torn_bytes);
        tracing::info!(commits = numbers.0, torn_bytes = numbers.1, "log recovered");
        let shared = Arc::new(Shared {
            context,
            queue: Mutex::default(),
            for_committer: std::sync::Condvar::new(),
            for_checkpoint: std::sync::Condvar::new(),
            topics: std::sync::RwLock::new(Arc::new(recovered.state.topics.clone())),
            tables: Arc::clone(&recovered.state.tables),
            counters: crate::shared::Counters::default(),
            full: std::sync::atomic::AtomicBool::new(false),
            starved: std::sync::atomic::AtomicBool::new(false),
            reserved: std::sync::atomic::AtomicBool::new(false),
            failure: std::sync::OnceLock::new(),
            on_advance: std::sync::RwLock::default(),
            on_failure: std::sync::RwLock::default(),
        });
        if !shared.take_reserve() {
            shared.full.store(true, Ordering::Release);
            tracing::warn!("disk full: appends are refused until there is space");
        }
        let threads = start(&shared, recovered).map_err(OpenError::Thread)?;
        let threads = Mutex::new(threads);
        Ok(Self {
            handle: Arc::new(Handle {
                shared,
                threads,
                recovered: numbers,
                _lock: lock,
            }),
        })
    }

    /// Hands units over, in order. `done` is called on the committer thread, strictly in commit
    /// order, when they are as durable as the mode promises and readable; it must be short.
    pub fn submit(&self, units: Vec<Unit>, done: Done) {
        let shared = &self.handle.shared;
        let bytes = units.iter().map(Unit::size_bytes).sum::<usize>() as u64;
        let mut queue = shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.closing || queue.ended {
            drop(queue);
            done(units.iter().map(|_| Err(CommitError::Closed)).collect());
            return;
        }
        shared
            .counters
            .pending_bytes
            .fetch_add(bytes, Ordering::AcqRel);
        let was_empty = queue.submissions.is_empty();
        queue
            .submissions
            .push_back(Submission { units, bytes, done });
        drop(queue);
        if was_empty {
            shared.for_committer.notify_one();
        }
    }

    /// As [`submit`](Self::submit) of one unit, waiting for the answer. For start-up, verbs, tests;
    /// never from within `done` or a hook.
    pub fn commit(&self, unit: Unit) -> Result<Receipt, CommitError> {
        let (answer, answered) = mpsc::sync_channel(1);
        let done = move |mut results: Vec<_>| {
            // The receiver waits below.
            drop(answer.send(results.pop().unwrap_or(Err(CommitError::Closed))));
        };
        self.submit(vec![unit], Box::new(done));
        answered.recv().unwrap_or(Err(CommitError::Closed))
    }

    pub fn topics(&self) -> Arc<Topics> {
        self.handle.shared.topics()
    }

    pub fn topic(&self, name: &str) -> Option<Arc<Topic>> {
        self.topics().by_name(name).cloned()
    }

    pub fn partition(&self, id: PartitionId) -> Option<Arc<Partition>> {
        self.topics().partition(id).cloned()
    }

    /// Calls `row` with each key and value of a consistent view, in no particular order.
    pub fn scan_table(&self, table: TableId, row: &mut dyn FnMut(&Bytes, &Bytes)) {
        self.handle
            .shared
            .tables
            .view(table)
            .rows()
            .for_each(|(key, value)| row(key, value));
    }

    pub fn table_row(&self, table: TableId, key: &[u8]) -> Option<Bytes> {
        self.handle.shared.tables.row(table, key)
    }

    /// Called after each applied commit with the partitions that grew, after everyone was
    /// answered; must be short.
    pub fn on_advance(&self, hook: AdvanceHook) {
        let hooks = &self.handle.shared.on_advance;
        hooks
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .push(hook);
    }

    /// Called once, when the log fails: the process has to end.
    pub fn on_failure(&self, hook: FailureHook) {
        let hooks = &self.handle.shared.on_failure;
        hooks
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .push(hook);
    }

    /// Partitions and the offsets up to which age or size lets them go, minus holds.
    pub fn retention_due(&self, now_ms: i64) -> Vec<(PartitionId, u64)> {
        let topics = self.topics();
        let options = &self.handle.shared.context.options;
        let mut found = Vec::new();
        for topic in topics.iter() {
            // Compaction alone keeps the newest record of each key for ever.
            let compacted = topic
                .config
                .value(crate::topics::TopicConfig::CLEANUP_POLICY)
                == Some("compact");
            // The system's own topics say themselves what they let go.
            let (ms, bytes) = match topic.is_internal() {
                true => (-1, -1),
                false => (options.retention_ms, options.retention_bytes),
            };
            let retention = Retention {
                ms: topic.config.retention_ms().unwrap_or(ms),
                bytes: topic.config.retention_bytes().unwrap_or(bytes),
            };
            let partitions = topic
                .partitions
                .iter()
                .filter_map(|id| topics.partition(*id));
            for partition in partitions.filter(|_| !compacted) {
                let due = retention::due(partition, retention, now_ms);
                found.extend(due.map(|offset| (partition.id(), offset)));
            }
        }
        found
    }

    /// `name` still needs `partition` from `offset` on. Kept in memory only: whoever holds says so
    /// again after a restart, before the first trim.
    pub fn hold(&self, name: &str, partition: PartitionId, offset: u64) {
        if let Some(partition) = self.partition(partition) {
            partition.hold(name, offset);
        }
    }

    /// `name` may need all of `partition`, but cannot say yet where it stands: nothing is trimmed, and
    /// only what is appended from now on counts against `Options::backlog_bytes_max`. Changes nothing
    /// where `name` holds already; ends like any hold.
    pub fn hold_whole(&self, name: &str, partition: PartitionId) {
        if let Some(partition) = self.partition(partition) {
            partition.hold_whole(name);
        }
    }

    pub fn release_hold(&self, name: &str, partition: PartitionId) {
        if let Some(partition) = self.partition(partition) {
            partition.release_hold(name);
        }
    }

    /// Whether `partition` refuses appends, as if it were gone already, and its topic further
    /// partitions. For whoever empties a topic before deleting it: an empty unit that is submitted
    /// behind this is answered when the last append before it is applied. In memory only.
    pub fn refuse_appends(&self, partition: PartitionId, refuse: bool) {
        if let Some(partition) = self.partition(partition) {
            partition.refuse_appends(refuse);
        }
    }

    /// Bytes handed over and not answered yet.
    pub fn pending_bytes(&self) -> u64 {
        self.handle
            .shared
            .counters
            .pending_bytes
            .load(Ordering::Acquire)
    }

    /// The largest [`Unit`] that is taken, in bytes of [`Unit::size_bytes`].
    pub fn unit_bytes_max(&self) -> u64 {
        self.handle.shared.context.unit_bytes_max()
    }

    pub fn stats(&self) -> Stats {
        let shared = &self.handle.shared;
        let counters = &shared.counters;
        Stats {
            commits: counters.commits.load(Ordering::Relaxed),
            records: counters.records.load(Ordering::Relaxed),
            bytes: counters.bytes.load(Ordering::Relaxed),
            syncs: counters.syncs.load(Ordering::Relaxed),
            sync_micros: counters.sync_micros.load(Ordering::Relaxed),
            checkpoints: counters.checkpoints.load(Ordering::Relaxed),
            wal_bytes: counters.wal_bytes.load(Ordering::Relaxed),
            wal_bytes_max: shared.context.wal_bytes_max,
            pending_bytes: self.pending_bytes(),
            full: shared.is_full(),
            failed: shared.failure.get().is_some(),
            recovered_commits: self.handle.recovered.0,
            torn_bytes: self.handle.recovered.1,
        }
    }

    /// Commits what waits, applies and checkpoints: each record is in its segment afterwards, and
    /// no space is taken ahead. Other clones get `CommitError::Closed` from now on.
    pub fn close(self) -> Result<(), CloseError> {
        self.handle.end();
        match self.handle.shared.failure.get() {
            Some(reason) => Err(CloseError {
                reason: reason.clone(),
            }),
            None => Ok(()),
        }
    }
}

impl Handle {
    fn end(&self) {
        {
            let mut queue = self
                .shared
                .queue
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            queue.closing = true;
            self.shared.for_committer.notify_one();
            self.shared.for_checkpoint.notify_one();
        }
        let threads =
            std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // A `done` that drops the last clone runs on the committer itself.
            if thread.thread().id() != std::thread::current().id() && thread.join().is_err() {
                let error = std::io::Error::other("it panicked");
                self.shared.fail("a thread of the log ended", &error);
            }
        }
        let reserve = self.shared.context.reserve_path();
        if let Err(error) = crate::checkpoint::remove_file(&self.shared.context, &reserve) {
            tracing::debug!(%error, "the reserve could not be removed");
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.end();
    }
}

fn start(
    shared: &Arc<Shared>,
    recovered: recovery::Recovered,
) -> std::io::Result<Vec<JoinHandle<()>>> {
    let checkpoints = Arc::clone(shared);
    let committing = Arc::clone(shared);
    let committer = Committer::new(Arc::clone(shared), recovered);
    let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
    Ok(vec![
        thread("log-commit").spawn(move || {
            let _told = TellPanic(Arc::clone(&committing));
            committer.run();
        })?,
        thread("log-checkpoint").spawn(move || {
            let _told = TellPanic(Arc::clone(&checkpoints));
            run_checkpoints(&checkpoints);
        })?,
    ])
}

/// A thread that panics fails the log: nobody shall wait for an answer that cannot come.
struct TellPanic(Arc<Shared>);

impl Drop for TellPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail(
                "a thread of the log ended",
                &std::io::Error::other("it panicked"),
            );
            let mut queue = self.0.queue.lock().unwrap_or_else(PoisonError::into_inner);
            queue.ended = true;
            queue.submissions.clear();
            queue.checkpoint = crate::shared::CheckpointState::End;
            self.0.for_committer.notify_one();
            self.0.for_checkpoint.notify_one();
        }
    }
}

/// Makes `dir` and what is missing above it, each name on disk.
fn make_dirs(fs: &dyn Fs, dir: &Path) -> std::io::Result<()> {
    match fs.create_dir(dir) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let Some(parent) = dir.parent() else {
                return Err(error);
            };
            make_dirs(fs, parent)?;
            fs.create_dir(dir)?;
        }
        Err(error) => return Err(error),
    }
    match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => fs.sync_dir(parent),
        _ => fs.sync_dir(Path::new(".")),
    }
}
