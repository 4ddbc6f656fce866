//! Retained Messages: the last one of each topic.
//!
//! For: setting and clearing in commit order, and finding those a new subscription selects.
//! Not for: their rows, see `rows`; their delivery, see `session::subscribe`.
//! Holds: bounded in number and bytes; no recursion by level.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock};

use headwater_mqtt_codec::topic;

use crate::{Limits, Message};

#[derive(Debug, Default)]
struct Store {
    /// Ordered, so that a filter's fixed beginning is a range.
    messages: BTreeMap<Box<str>, Arc<Message>>,
    bytes: usize,
}

#[derive(Debug)]
pub(crate) struct Retained {
    store: RwLock<Store>,
    messages_max: usize,
    bytes_max: usize,
}

impl Retained {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            store: RwLock::default(),
            messages_max: limits.retained_messages_max,
            bytes_max: limits.retained_bytes_max,
        }
    }

    pub(crate) fn size(&self) -> (usize, usize) {
        let store = self.store.read().unwrap_or_else(PoisonError::into_inner);
        (store.messages.len(), store.bytes)
    }

    /// Whether one more message of this weight may be retained.
    pub(crate) fn has_room(&self, topic: &str, weight: usize) -> bool {
        let store = self.store.read().unwrap_or_else(PoisonError::into_inner);
        store.bytes + weight <= self.bytes_max
            && (store.messages.len() < self.messages_max || store.messages.contains_key(topic))
    }

    /// The new Retained Message of its topic; an empty payload clears it [MQTT-3.3.1-6].
    pub(crate) fn set(&self, message: &Arc<Message>) {
        let mut store = self.store.write().unwrap_or_else(PoisonError::into_inner);
        let old = if message.payload.is_empty() {
            store.messages.remove(&*message.topic)
        } else {
            store.bytes += message.weight();
            store
                .messages
                .insert((*message.topic).into(), message.clone())
        };
        if let Some(old) = old {
            store.bytes -= old.weight();
        }
    }

    /// Appends every Retained Message that `filter` selects.
    pub(crate) fn matches(&self, filter: &str, found: &mut Vec<Arc<Message>>) {
        let store = self.store.read().unwrap_or_else(PoisonError::into_inner);
        let fixed_len = filter.find(['+', '#']).unwrap_or(filter.len());
        if fixed_len == filter.len() {
            found.extend(store.messages.get(filter).cloned());
            return;
        }
        // `sport/#` selects `sport` too, so the slash before `#` is not part of the beginning.
        let fixed = filter.get(..fixed_len).unwrap_or_default();
        let fixed = fixed.strip_suffix('/').unwrap_or(fixed);
        let from = (Bound::Included(fixed), Bound::Unbounded);
        for (name, message) in store.messages.range::<str, _>(from) {
            if !name.starts_with(fixed) {
                return;
            }
            if topic::matches(filter, name) {
                found.push(message.clone());
            }
        }
    }
}
