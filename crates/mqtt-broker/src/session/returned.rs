//! What came back to a group from its members, each in its turn: the order in which the messages left
//! the queue.
//!
//! For: who refused which of them, which of them wait for one member and are overtaken, and how much
//!   of it nothing but memory has.
//! Not for: who takes a message, see `group`.

use std::collections::BTreeMap;
use std::sync::Arc;

use headwater_mqtt_codec::QoS;
use smallvec::SmallVec;

use crate::owed::Owed;
use crate::session::share::Unfit;
use crate::{ConnectionId, Message};

/// One message of a group.
#[derive(Debug)]
pub(crate) enum Item {
    /// The log has it.
    Owed(Box<Owed>),
    /// Nothing but memory has it: all members end with their connections.
    Memory { message: Arc<Message>, qos: QoS },
}

impl Item {
    pub(crate) fn qos(&self) -> QoS {
        match self {
            Self::Owed(owed) => owed.qos,
            Self::Memory { qos, .. } => *qos,
        }
    }

    pub(crate) fn owed(&self) -> Option<&Owed> {
        match self {
            Self::Owed(owed) => Some(owed),
            Self::Memory { .. } => None,
        }
    }

    pub(crate) fn owed_mut(&mut self) -> Option<&mut Owed> {
        match self {
            Self::Owed(owed) => Some(owed),
            Self::Memory { .. } => None,
        }
    }

    /// Bytes, of what the log does not have.
    fn memory(&self) -> u64 {
        match self {
            Self::Owed(_) => 0,
            Self::Memory { message, .. } => message.memory() as u64,
        }
    }
}

/// A member that does not take a message, for as long as it has this connection; one that may not
/// read it, by rules that still stand.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) member: u64,
    pub(crate) connection: ConnectionId,
    pub(crate) why: Unfit,
}

/// Ascending by member.
pub(crate) type Refused = SmallVec<[Refusal; 1]>;

/// A message that came back.
#[derive(Debug)]
pub(crate) struct Returned {
    pub(crate) item: Item,
    pub(crate) refused: Refused,
}

/// Messages that may wait for a member that has no room, and be overtaken; behind so many all wait.
pub(crate) const OVERTAKEN_MAX: usize = 64;

/// All of them, by turn.
#[derive(Debug, Default)]
pub(crate) struct Back {
    turns: BTreeMap<u64, Returned>,
    /// Those that could not go when they were looked at, by turn.
    blocked: BTreeMap<u64, Returned>,
    /// What those of them take that only memory has.
    bytes: u64,
}

impl Back {
    pub(crate) fn len(&self) -> usize {
        self.turns.len() + self.blocked.len()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn items(&self) -> impl Iterator<Item = &Item> {
        let all = self.turns.values().chain(self.blocked.values());
        all.map(|one| &one.item)
    }

    pub(crate) fn items_mut(&mut self) -> impl Iterator<Item = &mut Item> {
        let all = self.turns.values_mut().chain(self.blocked.values_mut());
        all.map(|one| &mut one.item)
    }

    /// Those that are not blocked, by turn.
    pub(crate) fn unblocked(&self) -> impl Iterator<Item = &Returned> {
        self.turns.values()
    }

    /// The first that is not blocked, unless as many are before it as may be overtaken.
    pub(crate) fn first(&self) -> Option<(u64, &Returned)> {
        let (turn, one) = self.turns.first_key_value()?;
        let is_behind = self.blocked.len() >= OVERTAKEN_MAX
            && (self.blocked.range(..*turn).nth(OVERTAKEN_MAX - 1)).is_some();
        (!is_behind).then_some((*turn, one))
    }

    /// It cannot go now.
    pub(crate) fn block(&mut self, turn: u64) {
        if let Some(one) = self.turns.remove(&turn) {
            self.blocked.insert(turn, one);
        }
    }

    /// Those of the blocked that are to be looked at again, by who refused them.
    pub(crate) fn unblock(&mut self, which: impl Fn(&Refused) -> bool) {
        let of_those = self.blocked.extract_if(.., |_, one| which(&one.refused));
        self.turns.extend(of_those);
    }

    pub(crate) fn get(&self, turn: u64) -> Option<&Returned> {
        self.turns.get(&turn).or_else(|| self.blocked.get(&turn))
    }

    pub(crate) fn insert(&mut self, turn: u64, one: Returned) {
        self.bytes += one.item.memory();
        self.turns.insert(turn, one);
    }

    pub(crate) fn remove(&mut self, turn: u64) -> Option<Returned> {
        let one = self.turns.remove(&turn);
        let one = one.or_else(|| self.blocked.remove(&turn))?;
        self.bytes -= one.item.memory();
        Some(one)
    }

    /// Drops the oldest that only memory has; `false` when there is none, or when it is the last and
    /// that one is to be kept.
    pub(crate) fn drop_oldest(&mut self, keeps_last: bool) -> bool {
        if self.bytes == 0 {
            return false;
        }
        let oldest = [&self.turns, &self.blocked].into_iter().filter_map(|some| {
            let mut all = some.iter().map(|(turn, one)| (*turn, one.item.memory()));
            all.find(|(_, bytes)| *bytes > 0)
        });
        let Some((turn, bytes)) = oldest.min() else {
            return false;
        };
        if keeps_last && bytes == self.bytes {
            return false;
        }
        self.remove(turn).is_some()
    }
}
