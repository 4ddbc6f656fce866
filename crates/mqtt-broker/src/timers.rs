//! When something is due, in simulated or real milliseconds.
//!
//! Holds: one timer a connection and one a Session, moved in O(log n), so that nobody can pile
//!   them up.

use std::collections::BTreeSet;

/// Whose timer it is, by its slot in the shard.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Due {
    Connection(usize),
    Session(usize),
    /// Floors, and memory that idle connections give back.
    Sweep,
}

#[derive(Debug, Default)]
pub(crate) struct Timers {
    set: BTreeSet<(u64, Due)>,
}

impl Timers {
    /// Moves a timer from `old` to `new`; `old` is what the owner remembers of it.
    pub(crate) fn set(&mut self, due: Due, old: &mut Option<u64>, new: Option<u64>) {
        if *old == new {
            return;
        }
        if let Some(at) = *old {
            self.set.remove(&(at, due));
        }
        if let Some(at) = new {
            self.set.insert((at, due));
        }
        *old = new;
    }

    pub(crate) fn next(&self) -> Option<u64> {
        self.set.first().map(|(at, _)| *at)
    }

    /// The next that is due; its owner's memory of it must be cleared.
    pub(crate) fn pop(&mut self, now: u64) -> Option<Due> {
        let (at, due) = *self.set.first()?;
        if at > now {
            return None;
        }
        self.set.remove(&(at, due));
        Some(due)
    }
}
