//! What the log's threads and its users meet in: the queue, the published views, the counters.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use crate::checkpoint::Checkpoint;
use crate::context::Context;
use crate::tables::Tables;
use crate::topics::Topics;
use crate::trouble::Trouble;
use crate::unit::{CommitError, PartitionId, Receipt, Unit};

/// Gets one result a unit.
pub type Done = Box<dyn FnOnce(Vec<Result<Receipt, CommitError>>) + Send>;

pub(crate) type AdvanceHook = Box<dyn Fn(&[PartitionId]) + Send + Sync>;
pub(crate) type FailureHook = Box<dyn Fn(&str) + Send + Sync>;

pub(crate) struct Submission {
    pub(crate) units: Vec<Unit>,
    pub(crate) bytes: u64,
    pub(crate) done: Done,
}

#[derive(Default)]
pub(crate) struct Queue {
    pub(crate) submissions: VecDeque<Submission>,
    pub(crate) closing: bool,
    /// The committer ended: nothing put in from now on is answered by it.
    pub(crate) ended: bool,
    /// What the checkpoint thread is to do, is doing, or has done.
    pub(crate) checkpoint: CheckpointState,
}

#[derive(Default)]
pub(crate) enum CheckpointState {
    #[default]
    Idle,
    Waiting(Box<Checkpoint>),
    Running,
    Finished,
    /// The thread is to end, or has.
    End,
}

/// Counters since open.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) commits: AtomicU64,
    pub(crate) records: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) syncs: AtomicU64,
    pub(crate) sync_micros: AtomicU64,
    pub(crate) checkpoints: AtomicU64,
    pub(crate) wal_bytes: AtomicU64,
    pub(crate) pending_bytes: AtomicU64,
}

pub(crate) struct Shared {
    pub(crate) context: Arc<Context>,
    pub(crate) queue: Mutex<Queue>,
    /// Something was put into the queue, or a checkpoint finished.
    pub(crate) for_committer: Condvar,
    pub(crate) for_checkpoint: Condvar,
    pub(crate) topics: RwLock<Arc<Topics>>,
    pub(crate) tables: Arc<Tables>,
    pub(crate) counters: Counters,
    pub(crate) full: AtomicBool,
    /// No checkpoint can be made for want of descriptors: nobody waits for one.
    pub(crate) starved: AtomicBool,
    /// The reserve's space is taken.
    pub(crate) reserved: AtomicBool,
    pub(crate) failure: OnceLock<String>,
    pub(crate) on_advance: RwLock<Vec<AdvanceHook>>,
    pub(crate) on_failure: RwLock<Vec<FailureHook>>,
}

impl Shared {
    pub(crate) fn topics(&self) -> Arc<Topics> {
        Arc::clone(&self.topics.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn publish_topics(&self, topics: Topics) {
        *self.topics.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(topics);
    }

    pub(crate) fn is_full(&self) -> bool {
        self.full.load(Ordering::Acquire)
    }

    pub(crate) fn is_starved(&self) -> bool {
        self.starved.load(Ordering::Acquire)
    }

    pub(crate) fn set_starved(&self, starved: bool) {
        self.starved.store(starved, Ordering::Release);
    }

    /// Why what needs a checkpoint is refused.
    pub(crate) fn no_checkpoint(&self) -> CommitError {
        let passing = match self.is_starved() {
            true => CommitError::OutOfFiles,
            false => CommitError::Full,
        };
        self.poisoned().unwrap_or(passing)
    }

    /// The log takes no more writes; those who asked are told, once.
    pub(crate) fn fail(&self, what: &str, error: &std::io::Error) {
        let reason = format!("{what}: {error}");
        if self.failure.set(reason.clone()).is_ok() {
            tracing::error!(
                reason,
                "the log failed and stops; restart to recover from disk"
            );
            for hook in self
                .on_failure
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .iter()
            {
                hook(&reason);
            }
        }
    }

    pub(crate) fn poisoned(&self) -> Option<CommitError> {
        self.failure.get().map(|reason| CommitError::Poisoned {
            reason: reason.clone(),
        })
    }

    /// Gives the reserve's space to what must be finished now.
    pub(crate) fn give_up_reserve(&self) {
        if !self.full.swap(true, Ordering::AcqRel) {
            tracing::warn!("disk full: appends are refused until there is space");
        }
        self.reserved.store(false, Ordering::Release);
        let path = self.context.reserve_path();
        if let Err(error) = crate::checkpoint::remove_file(&self.context, &path) {
            tracing::warn!(%error, "the reserve could not be given up");
        }
    }

    /// Takes the reserve's space; says whether it is there.
    pub(crate) fn take_reserve(&self) -> bool {
        if self.reserved.load(Ordering::Acquire) {
            return true;
        }
        let path = self.context.reserve_path();
        let take = || {
            let file = self.context.open(&path, crate::fs::Open::Create)?;
            file.allocate(self.context.wal_bytes_max)
        };
        match take() {
            Ok(()) => {
                self.reserved.store(true, Ordering::Release);
                true
            }
            Err(error) => {
                if Trouble::of(&error) != Trouble::Full {
                    tracing::warn!(%error, "the reserve could not be taken");
                }
                // What was allocated of it is better free.
                drop(crate::checkpoint::remove_file(&self.context, &path));
                false
            }
        }
    }
}

/// Waits on `condvar`, at most `timeout`.
pub(crate) fn wait<'a, T>(
    condvar: &Condvar,
    guard: std::sync::MutexGuard<'a, T>,
    timeout: Option<Duration>,
) -> std::sync::MutexGuard<'a, T> {
    match timeout {
        Some(timeout) => {
            condvar
                .wait_timeout(guard, timeout)
                .unwrap_or_else(PoisonError::into_inner)
                .0
        }
        None => condvar.wait(guard).unwrap_or_else(PoisonError::into_inner),
    }
}
