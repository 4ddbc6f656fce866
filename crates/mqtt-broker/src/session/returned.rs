//! What came back to a group from its members, each in its turn: the order in which the messages left
//! the queue.
//!
//! For: who refused which of them, and how much of it nothing but memory has.
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

/// All of them, by turn.
#[derive(Debug, Default)]
pub(crate) struct Back {
    turns: BTreeMap<u64, Returned>,
    /// What those of them take that only memory has.
    bytes: u64,
}

impl Back {
    pub(crate) fn len(&self) -> usize {
        self.turns.len()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &Returned)> {
        self.turns.iter().map(|(turn, one)| (*turn, one))
    }

    pub(crate) fn items_mut(&mut self) -> impl Iterator<Item = &mut Item> {
        self.turns.values_mut().map(|one| &mut one.item)
    }

    pub(crate) fn get(&self, turn: u64) -> Option<&Returned> {
        self.turns.get(&turn)
    }

    pub(crate) fn insert(&mut self, turn: u64, one: Returned) {
        self.bytes += one.item.memory();
        self.turns.insert(turn, one);
    }

    pub(crate) fn remove(&mut self, turn: u64) -> Option<Returned> {
        let one = self.turns.remove(&turn)?;
        self.bytes -= one.item.memory();
        Some(one)
    }

    /// Drops the oldest that only memory has; `false` when there is none, or when it is the last and
    /// that one is to be kept.
    pub(crate) fn drop_oldest(&mut self, keeps_last: bool) -> bool {
        if self.bytes == 0 {
            return false;
        }
        let mut all = self.turns.iter();
        let oldest = all.find(|(_, one)| one.item.memory() > 0);
        let Some((turn, bytes)) = oldest.map(|(turn, one)| (*turn, one.item.memory())) else {
            return false;
        };
        if keeps_last && bytes == self.bytes {
            return false;
        }
        self.remove(turn).is_some()
    }
}
