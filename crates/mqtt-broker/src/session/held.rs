//! What the groups of a shard hold in memory, all together, and which of them holds too much.
//!
//! For: one bound over all groups, however many there are: on messages that only memory has and
//!   no member has room for, and on messages that members have and did not settle.
//! Not for: what a group is owed by the log and nobody has; what came back waits where it was.
//! Holds: at the bound a group that holds less than an even share of it is not held up by those
//!   that hold more. One that is has messages with members, and goes on when they are settled.

use crate::session::Session;
use crate::session::group::Group;
use crate::{Limits, Shard};

#[derive(Debug)]
pub(crate) struct Held {
    groups: u64,
    pub(crate) bytes: u64,
    bytes_max: u64,
}

impl Held {
    /// Of one of so many shards.
    pub(crate) fn new(limits: &Limits, shards: usize) -> Self {
        Self {
            groups: 0,
            bytes: 0,
            bytes_max: limits.shared_bytes_max / shards.max(1) as u64,
        }
    }

    pub(crate) fn add(&mut self) {
        self.groups += 1;
    }

    pub(crate) fn remove(&mut self, group: &Group) {
        self.groups -= 1;
        self.bytes -= group.counted;
    }

    /// Whether this is a group that must not take more for now.
    pub(crate) fn is_too_much(&self, session: &Session) -> bool {
        let Some(group) = &session.group else {
            return false;
        };
        let own = bytes(session, group);
        self.bytes - group.counted + own > self.bytes_max
            && own > self.bytes_max / self.groups.max(1)
    }
}

fn bytes(session: &Session, group: &Group) -> u64 {
    session.queue_bytes + group.out_bytes
}

impl Shard {
    /// Counts what this group holds now.
    pub(crate) fn weigh_group(&mut self, slot: usize) {
        if let Some(session) = self.sessions.get_mut(slot)
            && let Some(group) = &session.group
        {
            let own = bytes(session, group);
            self.held.bytes = self.held.bytes - group.counted + own;
            if let Some(group) = &mut session.group {
                group.counted = own;
            }
        }
    }
}
