//! Who holds which client id, and where each Session lives.
//!
//! For: [`Seat`], the part of a Session that everyone may see, and the map from client id to its
//!   holder.
//! Not for: the Session itself, which one shard owns.
//! Holds: only `distribute` gives a client id to somebody else, in commit order.

use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use crate::groups::GroupName;
use crate::{CommitId, Publisher};

/// A Session as others see it: its number, where it lives, whether it is owed what is committed.
#[derive(Debug)]
pub struct Seat {
    number: u64,
    home: AtomicU32,
    /// Index in its home's sessions; [`Seat::NO_SLOT`] while it is on its way.
    slot: AtomicU32,
    persistent: AtomicBool,
    /// Its Client takes nothing: a QoS 0 message would be dropped.
    deaf: AtomicBool,
    /// It is no Client's, but a group's of Shared Subscriptions.
    group: Option<Box<GroupName>>,
}

impl Seat {
    /// Names no Session.
    pub(crate) const NOBODY: u64 = 0;
    pub(crate) const NO_SLOT: u32 = u32::MAX;

    pub(crate) fn new(number: u64, home: usize, persistent: bool) -> Self {
        Self {
            number,
            home: AtomicU32::new(narrow(home)),
            slot: AtomicU32::new(Self::NO_SLOT),
            persistent: AtomicBool::new(persistent),
            deaf: AtomicBool::new(false),
            group: None,
        }
    }

    pub(crate) fn for_group(number: u64, home: usize, group: GroupName) -> Self {
        let persistent = group.is_lasting();
        Self {
            group: Some(Box::new(group)),
            ..Self::new(number, home, persistent)
        }
    }

    pub(crate) fn group(&self) -> Option<&GroupName> {
        self.group.as_deref()
    }

    /// Never used again, also not after a restart.
    pub fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn home(&self) -> usize {
        self.home.load(Ordering::Acquire) as usize
    }

    pub(crate) fn move_to(&self, shard: usize) {
        self.home.store(narrow(shard), Ordering::Release);
    }

    pub(crate) fn slot(&self) -> usize {
        self.slot.load(Ordering::Relaxed) as usize
    }

    pub(crate) fn set_slot(&self, slot: usize) {
        self.slot.store(narrow(slot), Ordering::Relaxed);
    }

    /// Whether it outlives its Network Connection.
    pub(crate) fn is_persistent(&self) -> bool {
        self.persistent.load(Ordering::Relaxed)
    }

    pub(crate) fn set_persistent(&self, persistent: bool) {
        self.persistent.store(persistent, Ordering::Relaxed);
    }

    /// As its home saw it last. Who relies on it spares its home what that would drop.
    pub(crate) fn is_deaf(&self) -> bool {
        self.deaf.load(Ordering::Relaxed)
    }

    pub(crate) fn set_deaf(&self, deaf: bool) {
        // Others read this line for each message: it is written only when it changes.
        if self.is_deaf() != deaf {
            self.deaf.store(deaf, Ordering::Relaxed);
        }
    }
}

/// Shards and slots are counted in 32 bits; one past them is nobody's.
fn narrow(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

#[derive(Debug)]
struct Entry {
    publisher: Arc<Publisher>,
    shard: u32,
    claim: CommitId,
    seat: Option<Arc<Seat>>,
}

/// What a claim found.
#[derive(Debug)]
pub(crate) enum Claimed {
    /// Nobody held this client id.
    Fresh,
    /// It belongs to another principal.
    Foreign,
    /// It was held like this until now.
    Held {
        shard: usize,
        claim: CommitId,
        seat: Option<Arc<Seat>>,
    },
}

const PARTS: usize = 64;

/// Client id -> holder, in parts with a short lock each.
#[derive(Debug)]
pub(crate) struct Directory {
    hasher: RandomState,
    parts: Vec<Mutex<HashTable<Entry>>>,
}

impl Directory {
    pub(crate) fn new() -> Self {
        Self {
            hasher: RandomState::default(),
            parts: (0..PARTS).map(|_| Mutex::new(HashTable::new())).collect(),
        }
    }

    fn part(&self, client: &str) -> (u64, MutexGuard<'_, HashTable<Entry>>) {
        let hash = self.hasher.hash_one(client);
        #[expect(
            clippy::indexing_slicing,
            reason = "a remainder of PARTS, which is its length"
        )]
        let part = &self.parts[(hash >> 32) as usize % PARTS];
        // Nothing panics while it holds the lock; a poisoned one is as good.
        (hash, part.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Gives the client id to `claim` of `shard`. Called in commit order.
    pub(crate) fn claim(
        &self,
        publisher: &Arc<Publisher>,
        shard: usize,
        claim: CommitId,
    ) -> Claimed {
        let (hash, mut part) = self.part(&publisher.client);
        let shard = narrow(shard);
        if let Some(entry) = part.find_mut(hash, |entry| entry.publisher.client == publisher.client)
        {
            if entry.publisher.principal != publisher.principal {
                return Claimed::Foreign;
            }
            let held = Claimed::Held {
                shard: entry.shard as usize,
                claim: entry.claim,
                seat: entry.seat.clone(),
            };
            entry.shard = shard;
            entry.claim = claim;
            return held;
        }
        let entry = Entry {
            publisher: publisher.clone(),
            shard,
            claim,
            seat: None,
        };
        part.insert_unique(hash, entry, |entry| {
            self.hasher.hash_one(&*entry.publisher.client)
        });
        Claimed::Fresh
    }

    /// Whether somebody holds this client id.
    pub(crate) fn is_held(&self, client: &str) -> bool {
        let (hash, part) = self.part(client);
        part.find(hash, |entry| *entry.publisher.client == *client)
            .is_some()
    }

    /// Sets the Session of a claim, unless the client id has gone to somebody else meanwhile.
    pub(crate) fn settle(
        &self,
        client: &str,
        shard: usize,
        claim: CommitId,
        seat: &Arc<Seat>,
    ) -> bool {
        let (hash, mut part) = self.part(client);
        let entry = part.find_mut(hash, |entry| {
            *entry.publisher.client == *client
                && entry.claim == claim
                && entry.shard == narrow(shard)
        });
        match entry {
            Some(entry) => {
                entry.seat = Some(seat.clone());
                true
            }
            None => false,
        }
    }

    /// Forgets a claim whose Session has ended, unless somebody else has the client id by now.
    pub(crate) fn release(&self, client: &str, shard: usize, claim: CommitId) -> bool {
        let (hash, mut part) = self.part(client);
        let found = part.find_entry(hash, |entry| {
            *entry.publisher.client == *client
                && entry.claim == claim
                && entry.shard == narrow(shard)
        });
        match found {
            Ok(entry) => {
                entry.remove();
                true
            }
            Err(_) => false,
        }
    }

    /// Puts a restored Session in its place, before any connection is open; `false` when its
    /// client id is taken.
    pub(crate) fn restore(
        &self,
        publisher: &Arc<Publisher>,
        shard: usize,
        claim: CommitId,
        seat: &Arc<Seat>,
    ) -> bool {
        if !matches!(self.claim(publisher, shard, claim), Claimed::Fresh) {
            return false;
        }
        self.settle(&publisher.client, shard, claim, seat)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publisher(client: &str, principal: &str) -> Arc<Publisher> {
        Arc::new(Publisher {
            client: client.into(),
            principal: principal.into(),
        })
    }

    #[test]
    fn claims_of_one_client_id_follow_each_other() {
        let directory = Directory::new();
        let who = publisher("a", "p");
        assert!(matches!(
            directory.claim(&who, 0, CommitId(1)),
            Claimed::Fresh
        ));
        let seat = Arc::new(Seat::new(7, 0, true));
        assert!(directory.settle("a", 0, CommitId(1), &seat));
        match directory.claim(&who, 1, CommitId(1)) {
            Claimed::Held {
                shard: 0,
                claim: CommitId(1),
                seat: Some(seat),
            } => {
                assert_eq!(seat.number(), 7);
            }
            other => panic!("{other:?}"),
        }
        assert!(
            !directory.settle("a", 0, CommitId(1), &seat),
            "the old claim is over"
        );
        assert!(
            !directory.release("a", 0, CommitId(1)),
            "and cannot forget the new one"
        );
        assert!(directory.release("a", 1, CommitId(1)));
        assert!(matches!(
            directory.claim(&who, 0, CommitId(2)),
            Claimed::Fresh
        ));
    }

    #[test]
    fn a_client_id_belongs_to_its_principal() {
        let directory = Directory::new();
        directory.claim(&publisher("a", "p"), 0, CommitId(1));
        let other = publisher("a", "q");
        assert!(matches!(
            directory.claim(&other, 0, CommitId(2)),
            Claimed::Foreign
        ));
        assert!(directory.release("a", 0, CommitId(1)), "the holder stays");
    }
}
