//! Retained Messages: the last one of each topic.
//!
//! For: setting and clearing in commit order, and finding those a new subscription selects.
//! Not for: their rows, see `rows`; their delivery, see `session::subscribe`.
//! Holds: bounded in number and bytes; no recursion by level. Its lock is taken before the tree's,
//!   so that a message is either found standing by a subscription or finds that subscription.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use headwater_mqtt_codec::topic;

use crate::{Limits, Message, Now, rows};

#[derive(Debug, Default)]
struct Store {
    /// Ordered, so that a filter's fixed beginning is a range.
    messages: BTreeMap<Box<str>, Entry>,
    bytes: usize,
    /// When each that expires does, and its Topic Name.
    expiries: BTreeSet<(u64, Box<str>)>,
    /// How often one was set.
    sets: u64,
}

impl Store {
    fn forget_expiry(&mut self, message: &Message) {
        if let Some(at) = message.expires_at {
            self.expiries.remove(&(at, (*message.topic).into()));
        }
    }
}

#[derive(Debug)]
struct Entry {
    message: Arc<Message>,
    /// `Store::sets` with it.
    set_at: u64,
}

/// How far a search has come that is done in slices.
#[derive(Clone, Debug)]
pub(crate) struct Scan {
    /// What was set later is passed over.
    stood_at: u64,
    /// The last Topic Name that was looked at.
    after: Option<Box<str>>,
    done: bool,
}

impl Scan {
    pub(crate) fn new(stood_at: u64) -> Self {
        Self {
            stood_at,
            after: None,
            done: false,
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.done
    }

    /// The same, to go on behind `topic`; where it was without one.
    pub(crate) fn behind(self, topic: Option<&str>) -> Self {
        let after = topic.map(Box::from).or(self.after);
        Self { after, ..self }
    }
}

/// What one slice of a search gave.
#[derive(Debug, Default)]
pub(crate) struct Slice {
    pub(crate) found: Vec<Arc<Message>>,
    /// Retained Messages that were looked at.
    pub(crate) visited: usize,
}

#[derive(Debug)]
pub(crate) struct Retained {
    store: RwLock<Store>,
    messages_max: usize,
    bytes_max: usize,
    /// That it is full was said, and it was not half empty since.
    was_full: AtomicBool,
    next_expiry: AtomicU64,
    /// All that slices have looked at.
    #[cfg(test)]
    pub(crate) visited: std::sync::atomic::AtomicUsize,
}

impl Retained {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            store: RwLock::default(),
            messages_max: limits.retained_messages_max,
            bytes_max: limits.retained_bytes_max,
            was_full: AtomicBool::new(false),
            next_expiry: AtomicU64::new(u64::MAX),
            #[cfg(test)]
            visited: std::sync::atomic::AtomicUsize::default(),
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
        let others = bytes - old.map_or(0, |old| old.message.weight());
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
        latest.is_some_and(|latest| Arc::ptr_eq(&latest.message, message))
    }

    /// The new Retained Message of its topic; an empty payload clears it [MQTT-3.3.1-6].
    pub(crate) fn set(&self, message: &Arc<Message>) {
        self.set_and(message, || {});
    }

    /// As `set`; `late` looks at the subscriptions before anybody can make one in
    /// [`standing`](Self::standing).
    pub(crate) fn set_and<T>(&self, message: &Arc<Message>, late: impl FnOnce() -> T) -> T {
        let mut store = self.store.write().unwrap_or_else(PoisonError::into_inner);
        let old = if message.payload.is_empty() {
            store.messages.remove(&*message.topic)
        } else {
            store.bytes += message.weight();
            store.sets += 1;
            let entry = Entry {
                message: message.clone(),
                set_at: store.sets,
            };
            store.messages.insert((*message.topic).into(), entry)
        };
        if let Some(old) = old {
            store.bytes -= old.message.weight();
            store.forget_expiry(&old.message);
        }
        if let (Some(at), false) = (message.expires_at, message.payload.is_empty()) {
            store.expiries.insert((at, (*message.topic).into()));
        }
        self.note_next_expiry(&store);
        late()
    }

    /// [`Now::mono_ms`] when the next of them expires; `u64::MAX` when none does.
    pub(crate) fn next_expiry(&self) -> u64 {
        self.next_expiry.load(Ordering::Relaxed)
    }

    fn note_next_expiry(&self, store: &Store) {
        let next = store.expiries.first().map_or(u64::MAX, |(at, _)| *at);
        self.next_expiry.store(next, Ordering::Relaxed);
    }

    /// Some of those that have expired.
    pub(crate) fn expired(&self, now: Now, messages_max: usize) -> Vec<Arc<Message>> {
        let store = self.store.read().unwrap_or_else(PoisonError::into_inner);
        let expired = store
            .expiries
            .iter()
            .take_while(|(at, _)| *at <= now.mono_ms);
        let topics = expired.take(messages_max).map(|(_, topic)| topic);
        let entries = topics.filter_map(|topic| store.messages.get(topic));
        entries.map(|entry| entry.message.clone()).collect()
    }

    /// The log has let go of the row of `message`: so does memory of what that row says.
    pub(crate) fn expire(&self, message: &Arc<Message>) {
        let mut store = self.store.write().unwrap_or_else(PoisonError::into_inner);
        let Some(entry) = store.messages.get(&*message.topic) else {
            return;
        };
        let latest = entry.message.clone();
        if !Arc::ptr_eq(&latest, message) && rows::retained(&latest) != rows::retained(message) {
            return;
        }
        store.messages.remove(&*message.topic);
        store.bytes -= latest.weight();
        store.forget_expiry(&latest);
        self.note_next_expiry(&store);
    }

    /// What stands when `subscribe` makes a subscription, for [`Scan::new`]: what is set after this
    /// is younger, and reaches the subscription by itself.
    pub(crate) fn standing(&self, subscribe: impl FnOnce()) -> u64 {
        // Held over both, else a message set between them would come twice.
        let store = self.store.read().unwrap_or_else(PoisonError::into_inner);
        subscribe();
        store.sets
    }

    /// Now, for [`Scan::new`].
    #[cfg(test)]
    pub(crate) fn stands(&self) -> u64 {
        self.standing(|| {})
    }

    /// The next Retained Messages that `filter` selects: looks at no more than `nodes_max`, finds no
    /// more than `messages_max`, and lets go of the lock. Each message that stands all the while is
    /// looked at once, in the order of Topic Names.
    pub(crate) fn slice(
        &self,
        filter: &str,
        scan: &mut Scan,
        nodes_max: usize,
        messages_max: usize,
    ) -> Slice {
        let slice = self.look(filter, scan, nodes_max, messages_max);
        #[cfg(test)]
        (self.visited).fetch_add(slice.visited, Ordering::Relaxed);
        slice
    }

    fn look(&self, filter: &str, scan: &mut Scan, nodes_max: usize, messages_max: usize) -> Slice {
        let store = self.store.read().unwrap_or_else(PoisonError::into_inner);
        let mut slice = Slice::default();
        let fixed_len = filter.find(['+', '#']).unwrap_or(filter.len());
        if fixed_len == filter.len() {
            let entry = store.messages.get(filter);
            let entry = entry.filter(|entry| entry.set_at <= scan.stood_at);
            slice.found.extend(entry.map(|entry| entry.message.clone()));
            slice.visited = 1;
            scan.done = true;
            return slice;
        }
        // `sport/#` selects `sport` too, so the slash before `#` is not part of the beginning.
        let fixed = filter.get(..fixed_len).unwrap_or_default();
        let fixed = fixed.strip_suffix('/').unwrap_or(fixed);
        let from = match &scan.after {
            Some(after) => Bound::Excluded(&**after),
            None => Bound::Included(fixed),
        };
        let mut last: Option<&str> = None;
        for (name, entry) in store.messages.range::<str, _>((from, Bound::Unbounded)) {
            if !name.starts_with(fixed) {
                break;
            }
            if slice.visited >= nodes_max || slice.found.len() >= messages_max {
                if let Some(last) = last {
                    scan.after = Some(Box::from(last));
                }
                return slice;
            }
            slice.visited += 1;
            last = Some(&**name);
            if entry.set_at <= scan.stood_at && topic::matches(filter, name) {
                slice.found.push(entry.message.clone());
            }
        }
        scan.done = true;
        slice
    }
}
