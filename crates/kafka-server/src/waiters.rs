//! Fetches that wait for records, and who wakes them.
//!
//! For: long polls without polling: a fetch is woken by the commit that grew one of its partitions.
//! Not for: deciding whether it has enough (`handler::fetch`).
//! Holds: a partition that grows after `watch` returned wakes the fetch, however early it waits.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;
use headwater_commitlog::PartitionId;
use smallvec::SmallVec;
use tokio::sync::Notify;

/// Partitions are spread over so many locks, each held for a few instructions.
const SHARDS: usize = 16;

type Watching = HashMap<PartitionId, SmallVec<[Arc<Notify>; 2]>, foldhash::fast::RandomState>;

#[derive(Debug, Default)]
pub(crate) struct Waiters {
    shards: [Mutex<Watching>; SHARDS],
}

/// One fetch's place among the waiters; leaves it when dropped.
#[derive(Debug)]
pub(crate) struct Watch<'a> {
    waiters: &'a Waiters,
    partitions: Vec<PartitionId>,
    notify: Arc<Notify>,
}

impl Waiters {
    pub(crate) fn watch(&self, partitions: Vec<PartitionId>) -> Watch<'_> {
        let notify = Arc::new(Notify::new());
        for partition in &partitions {
            self.lock(*partition)
                .entry(*partition)
                .or_default()
                .push(Arc::clone(&notify));
        }
        Watch {
            waiters: self,
            partitions,
            notify,
        }
    }

    pub(crate) fn advanced(&self, partitions: &[PartitionId]) {
        for partition in partitions {
            if let Some(waiting) = self.lock(*partition).get(partition) {
                for notify in waiting {
                    notify.notify_one();
                }
            }
        }
    }

    #[expect(clippy::indexing_slicing, reason = "a remainder is below its divisor")]
    fn lock(&self, partition: PartitionId) -> MutexGuard<'_, Watching> {
        let index = usize::try_from(partition.0).unwrap_or(0) % SHARDS;
        self.shards[index]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watch<'_> {
    /// Returns once a partition has grown since the last call, or since `watch`.
    pub(crate) async fn advanced(&self) {
        self.notify.notified().await;
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        for partition in &self.partitions {
            let mut watching = self.waiters.lock(*partition);
            if let Some(waiting) = watching.get_mut(partition) {
                waiting.retain(|notify| !Arc::ptr_eq(notify, &self.notify));
                if waiting.is_empty() {
                    watching.remove(partition);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_advance_between_watch_and_wait_is_not_lost() {
        let waiters = Waiters::default();
        let watch = waiters.watch(vec![PartitionId(1), PartitionId(17)]);
        waiters.advanced(&[PartitionId(17)]);
        watch.advanced().await;
    }

    #[test]
    fn a_dropped_watch_leaves_nothing_behind() {
        let waiters = Waiters::default();
        let kept = waiters.watch(vec![PartitionId(1)]);
        drop(waiters.watch(vec![PartitionId(1), PartitionId(2)]));
        assert_eq!(
            waiters
                .lock(PartitionId(1))
                .get(&PartitionId(1))
                .map(SmallVec::len),
            Some(1)
        );
        assert!(!waiters.lock(PartitionId(2)).contains_key(&PartitionId(2)));
        drop(kept);
        assert!(waiters.lock(PartitionId(1)).is_empty());
    }
}
