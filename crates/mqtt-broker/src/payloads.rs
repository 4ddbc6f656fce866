//! Messages that connected Sessions are owed and could not yet be sent: a bounded cache in front
//! of the log.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::matching::FastMap;
use crate::{Message, Position};

#[derive(Debug)]
pub(crate) struct Payloads {
    messages: FastMap<Position, Arc<Message>>,
    /// Oldest first.
    order: VecDeque<Position>,
    bytes: usize,
    bytes_max: usize,
}

/// What an entry costs besides its message's own bytes.
const ENTRY_BYTES: usize = 200;

impl Payloads {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            messages: FastMap::default(),
            order: VecDeque::new(),
            bytes: 0,
            bytes_max,
        }
    }

    pub(crate) fn insert(&mut self, position: Position, message: &Arc<Message>) {
        if self.messages.insert(position, message.clone()).is_some() {
            return;
        }
        self.order.push_back(position);
        self.bytes += message.weight() + ENTRY_BYTES;
        while self.bytes > self.bytes_max {
            let Some(oldest) = self.order.pop_front() else {
                return;
            };
            if let Some(message) = self.messages.remove(&oldest) {
                self.bytes -= message.weight() + ENTRY_BYTES;
            }
        }
    }

    pub(crate) fn find(&self, position: Position) -> Option<Arc<Message>> {
        self.messages.get(&position).cloned()
    }
}
