//! Retained Messages: the last one of each topic.
//!
//! For: setting and clearing in commit order, and finding those a new subscription selects.
//! Not for: their rows, see `rows`; their delivery, see `session::subscribe`.
//! Holds: bounded in number and bytes; no recursion by level.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
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
    /// That it is full was said, and it was not half empty since.
    was_full: AtomicBool,
}

impl Retained {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            store: RwLock::default(),
            messages_max: limits.retained_messages_max,
            bytes_max: limits.retained_bytes_max,
            was_full: AtomicBool::new(false),
        }
    }

    pub(crate) fn size(&self) -> (usize, usize) {
        let store = self.store.read().unwrap_or_else(PoisonError::into_inner);
        (store.messages.len(), store.bytes)
    }

    /// Whether this message may be retained: it clears, or what it replaces leaves room enough.
    /// What is being committed is not counted.
    pub(crate) fn has_room(&self, message: &Message) -> bool {
        if message.payload.is_empty() {
            return true;
        }
        let store = self.store.read().unwrap_or_else(PoisonError::into_inner);
        let (number, bytes) = (store.messages.len(), store.bytes);
        let old = store.messages.get(&*message.topic);
        let others = bytes - old.map_or(0, |old| old.weight());
        let has_room = others + message.weight() <= self.bytes_max
            && (number < self.messages_max || old.is_some());
        if has_room {
            if number <= self.messages_max / 2 && bytes <= self.bytes_max / 2 {
                self.was_full.store(false, Ordering::Relaxed);
            }
        } else if !self.was_full.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                number,
                bytes,
                "retained messages are at their limit: more are not retained"
            );
        }
        has_room
    }

    /// Whether this very message is the Retained Message of its topic.
    pub(crate) fn is_latest(&self, message: &Arc<Message>) -> bool {
        let store = self.store.read().unwrap_or_else(PoisonError::into_inner);
        let latest = store.messages.get(&*message.topic);
        latest.is_some_and(|latest| Arc::ptr_eq(latest, message))
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
