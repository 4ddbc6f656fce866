//! What the groups of a process hold in memory, all together, and which of them holds too much.
//!
//! For: one bound over all groups, however many there are and wherever they live: on messages that
//!   only memory has and that wait, new or back from a member, and on messages that members have
//!   and did not settle.
//! Not for: what a group is owed by the log and no member has.
//! Holds: at the bound a group that holds less than an even share of it is not held up by those
//!   that hold more. One that is has messages with members, and goes on when they are settled.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::session::Session;
use crate::session::group::Group;
use crate::{Limits, Shard};

/// One a process. Each group is counted by its home alone, so that what is counted for one is never
/// more than the total.
#[derive(Debug)]
pub(crate) struct Held {
    groups: AtomicU64,
    bytes: AtomicU64,
    bytes_max: u64,
}

impl Held {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            groups: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            bytes_max: limits.shared_bytes_max,
        }
    }

    pub(crate) fn add(&self) {
        self.groups.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn remove(&self, group: &Group) {
        self.groups.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(group.counted, Ordering::Relaxed);
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Counts what this group holds now.
    fn weigh(&self, group: &mut Group, own: u64) {
        if own != group.counted {
            // Less is more, modulo 2^64.
            let more = own.wrapping_sub(group.counted);
            self.bytes.fetch_add(more, Ordering::Relaxed);
            group.counted = own;
        }
    }

    /// Whether this is a group that must not take more for now.
    pub(crate) fn is_too_much(&self, session: &Session) -> bool {
        let Some(group) = &session.group else {
            return false;
        };
        let own = bytes(session, group);
        let groups = self.groups.load(Ordering::Relaxed);
        self.bytes() - group.counted + own > self.bytes_max && own > self.bytes_max / groups.max(1)
    }
}

fn bytes(session: &Session, group: &Group) -> u64 {
    session.queue_bytes + group.out_bytes + group.back.bytes()
}

impl Session {
    /// Drops the oldest that only memory has and no member; `false` when the newest alone is left.
    fn drop_oldest(&mut self) -> bool {
        let Some(group) = &mut self.group else {
            return false;
        };
        // What came back has left the queue before what is in it.
        group.back.drop_oldest(self.queue.is_empty())
            || (self.queue.len() > 1 && self.pop_queued().is_some())
    }
}

impl Shard {
    /// More waits in memory than before: the oldest of it goes, down to the group's part.
    pub(crate) fn shed(&mut self, slot: usize) {
        let Some(session) = self.sessions.get_mut(slot) else {
            return;
        };
        while self.shared.held.is_too_much(session) && session.drop_oldest() {
            self.counts.dropped_limit += 1;
        }
        self.weigh_group(slot);
    }

    /// Counts what this group holds now.
    pub(crate) fn weigh_group(&mut self, slot: usize) {
        let Some(session) = self.sessions.get_mut(slot) else {
            return;
        };
        let own = session.group.as_ref().map(|group| bytes(session, group));
        if let (Some(group), Some(own)) = (&mut session.group, own) {
            self.shared.held.weigh(group, own);
        }
    }
}
