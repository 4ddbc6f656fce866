//! Which groups of Shared Subscriptions there are (MQTT 5.0, 4.8.2), and the seat of each.
//!
//! For: one seat for all who name the same group and Topic Filter, in the tree for as long as
//!   somebody subscribes.
//! Not for: what a group is owed and who gets it, see `session::group`.
//! Holds: a group that has lost its last subscriber is never found again; who comes later makes a
//!   new one. Its lock is taken before the tree's.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use headwater_mqtt_codec::{QoS, SubscriptionOptions, topic};

use crate::Limits;
use crate::directory::Seat;
use crate::tree::{Subscriber, SubscriptionTree};

/// What the Topic Filter of a Shared Subscription begins with.
pub(crate) const PREFIX: &str = "$share/";

/// Which member of a group gets a message, of those that have room for one.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Strategy {
    /// One after the other.
    #[default]
    RoundRobin,
    /// The same for as long as it is connected and has room.
    Sticky,
    /// The same for all messages of one publishing Client.
    HashClient,
    /// The same for all messages of one Topic Name.
    HashTopic,
}

/// What everyone may see of a group.
#[derive(Debug)]
pub(crate) struct GroupName {
    /// `$share/{group}/{filter}`.
    pub(crate) name: Box<str>,
    /// Nobody subscribes any more.
    over: AtomicBool,
    /// It has a row in the log.
    lasting: AtomicBool,
}

impl GroupName {
    pub(crate) fn new(name: &str, lasting: bool) -> Self {
        Self {
            name: name.into(),
            over: AtomicBool::new(false),
            lasting: AtomicBool::new(lasting),
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    pub(crate) fn is_lasting(&self) -> bool {
        self.lasting.load(Ordering::Acquire)
    }

    /// Its row is in the log; whether that is news.
    pub(crate) fn set_lasting(&self) -> bool {
        !self.lasting.swap(true, Ordering::AcqRel)
    }
}

impl Seat {
    /// The group is over.
    fn end(&self) {
        if let Some(group) = self.group() {
            group.over.store(true, Ordering::Release);
        }
    }
}

#[derive(Debug)]
struct Entry {
    seat: Arc<Seat>,
    /// Subscriptions, those counted whose commits are pending.
    subscriptions: usize,
    /// Those that count, by the QoS they were granted.
    by_qos: [usize; 3],
}

impl Entry {
    fn new(seat: &Arc<Seat>, subscriptions: usize) -> Self {
        Self {
            seat: seat.clone(),
            subscriptions,
            by_qos: [0; 3],
        }
    }

    fn highest(&self) -> Option<QoS> {
        let all = [QoS::ExactlyOnce, QoS::AtLeastOnce, QoS::AtMostOnce];
        all.into_iter().find(|qos| {
            self.by_qos
                .get(*qos as usize)
                .is_some_and(|count| *count > 0)
        })
    }

    fn count(&mut self, qos: QoS) -> Option<&mut usize> {
        self.by_qos.get_mut(qos as usize)
    }
}

/// All groups of a process.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    filters: Mutex<Filters>,
}

#[derive(Debug, Default)]
struct Filters {
    /// Topic Filter -> its groups.
    all: BTreeMap<Box<str>, BTreeMap<Box<str>, Entry>>,
    /// How many groups these are.
    groups: usize,
}

impl Filters {
    fn find(&mut self, shared: topic::Shared<'_>) -> Option<&mut Entry> {
        self.all.get_mut(shared.filter)?.get_mut(shared.group)
    }

    /// Groups with this Topic Filter.
    fn with(&self, filter: &str) -> usize {
        self.all.get(filter).map_or(0, BTreeMap::len)
    }

    /// One that is new.
    fn insert(&mut self, shared: topic::Shared<'_>, entry: Entry) {
        let groups = self.all.entry(shared.filter.into()).or_default();
        groups.insert(shared.group.into(), entry);
        self.groups += 1;
    }

    fn remove(&mut self, shared: topic::Shared<'_>) {
        let Some(groups) = self.all.get_mut(shared.filter) else {
            return;
        };
        self.groups -= usize::from(groups.remove(shared.group).is_some());
        if groups.is_empty() {
            self.all.remove(shared.filter);
        }
    }
}

/// What a subscription of a group says to the tree: the message as it was published. The member's
/// own options count when it is sent.
fn subscriber(seat: &Arc<Seat>, qos: QoS) -> Subscriber {
    Subscriber {
        seat: seat.clone(),
        options: SubscriptionOptions {
            qos,
            retain_as_published: true,
            ..SubscriptionOptions::default()
        },
        id: None,
    }
}

/// The parts of a seat's name.
fn parts(seat: &Seat) -> Option<topic::Shared<'_>> {
    topic::split_shared(&seat.group()?.name).ok()?
}

impl Groups {
    fn lock(&self) -> MutexGuard<'_, Filters> {
        // Nothing panics while it holds the lock; a poisoned one is as good.
        self.filters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The seat of this group, made by `make` where it is new. It stays until `leave`. `None`: there
    /// are as many groups as `limits` allow, with this filter or in all.
    pub(crate) fn reserve(
        &self,
        shared: topic::Shared<'_>,
        limits: Option<&Limits>,
        make: impl FnOnce() -> Arc<Seat>,
    ) -> Option<Arc<Seat>> {
        let mut filters = self.lock();
        if let Some(entry) = filters.find(shared) {
            entry.subscriptions += 1;
            return Some(entry.seat.clone());
        }
        if let Some(limits) = limits
            && (filters.groups >= limits.shared_groups_max
                || filters.with(shared.filter) >= limits.groups_per_filter_max)
        {
            return None;
        }
        let seat = make();
        filters.insert(shared, Entry::new(&seat, 1));
        Some(seat)
    }

    /// As it stood in the log, without subscriptions; over at once when a newer one has its name.
    pub(crate) fn restore(&self, seat: &Arc<Seat>) {
        let Some(shared) = parts(seat) else {
            return seat.end();
        };
        let mut filters = self.lock();
        if filters.find(shared).is_some() {
            return seat.end();
        }
        filters.insert(shared, Entry::new(seat, 0));
    }

    /// A reserved subscription counts from here on, at `to`; or one that counted at `from` changes.
    pub(crate) fn count(
        &self,
        tree: &SubscriptionTree,
        seat: &Arc<Seat>,
        from: Option<QoS>,
        to: QoS,
    ) {
        self.change(tree, seat, from, Some(to));
    }

    /// A subscription that counted at `qos` is gone, or one that was only reserved. Whether it was
    /// the last: then the group is over.
    pub(crate) fn leave(
        &self,
        tree: &SubscriptionTree,
        seat: &Arc<Seat>,
        qos: Option<QoS>,
    ) -> bool {
        self.change(tree, seat, qos, None);
        self.end_unless(seat, |entry| {
            entry.subscriptions = entry.subscriptions.saturating_sub(1);
            entry.subscriptions > 0
        })
    }

    /// Whether nobody subscribes to a restored group: then it is over.
    pub(crate) fn is_empty(&self, seat: &Arc<Seat>) -> bool {
        self.end_unless(seat, |entry| entry.subscriptions > 0);
        seat.group().is_none_or(GroupName::is_over)
    }

    fn end_unless(&self, seat: &Arc<Seat>, stays: impl FnOnce(&mut Entry) -> bool) -> bool {
        let Some(shared) = parts(seat) else {
            return false;
        };
        let mut filters = self.lock();
        let entry = filters.find(shared);
        let Some(entry) = entry.filter(|entry| Arc::ptr_eq(&entry.seat, seat)) else {
            return false;
        };
        if stays(entry) {
            return false;
        }
        filters.remove(shared);
        seat.end();
        true
    }

    fn change(
        &self,
        tree: &SubscriptionTree,
        seat: &Arc<Seat>,
        from: Option<QoS>,
        to: Option<QoS>,
    ) {
        let Some(shared) = parts(seat) else { return };
        let mut filters = self.lock();
        let entry = filters.find(shared);
        let Some(entry) = entry.filter(|entry| Arc::ptr_eq(&entry.seat, seat)) else {
            return;
        };
        let before = entry.highest();
        if let Some(count) = to.and_then(|qos| entry.count(qos)) {
            *count += 1;
        }
        if let Some(count) = from.and_then(|qos| entry.count(qos)) {
            *count = count.saturating_sub(1);
        }
        match (before, entry.highest()) {
            (before, after) if before == after => {}
            (_, Some(qos)) => drop(tree.subscribe(shared.filter, subscriber(seat, qos))),
            (_, None) => drop(tree.unsubscribe(shared.filter, seat.number())),
        }
    }

    /// Groups, all filters together.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        let filters = self.lock();
        let groups = filters.all.values().map(BTreeMap::len).sum();
        assert_eq!(filters.groups, groups);
        groups
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Scratch;

    fn found(tree: &SubscriptionTree, topic: &str) -> Vec<QoS> {
        let mut scratch = Scratch::default();
        tree.matches(topic, tree.hash(topic), &mut scratch);
        scratch.found.iter().map(|one| one.options.qos).collect()
    }

    #[test]
    fn a_group_is_in_the_tree_once_at_its_highest_qos_and_over_with_its_last_subscription() {
        let (groups, tree) = (Groups::default(), SubscriptionTree::new());
        let name = "$share/g/a/+";
        let shared = topic::split_shared(name).unwrap().unwrap();
        let make = || Arc::new(Seat::for_group(1, 0, GroupName::new(name, false)));
        let limits = Limits {
            groups_per_filter_max: 1,
            shared_groups_max: 2,
            ..Limits::default()
        };
        let limits = Some(&limits);
        let seat = groups.reserve(shared, limits, make).unwrap();
        assert_eq!(found(&tree, "a/b"), [], "not before its commit");
        groups.count(&tree, &seat, None, QoS::AtMostOnce);
        let same = groups.reserve(shared, limits, || unreachable!()).unwrap();
        assert!(Arc::ptr_eq(&seat, &same));
        groups.count(&tree, &seat, None, QoS::ExactlyOnce);
        assert_eq!(found(&tree, "a/b"), [QoS::ExactlyOnce]);
        groups.count(&tree, &seat, Some(QoS::ExactlyOnce), QoS::AtLeastOnce);
        assert_eq!(found(&tree, "a/b"), [QoS::AtLeastOnce]);
        let other = topic::split_shared("$share/h/a/+").unwrap().unwrap();
        assert!(groups.reserve(other, limits, || unreachable!()).is_none());
        let of_filter = |filter| topic::split_shared(filter).unwrap().unwrap();
        let second = groups.reserve(of_filter("$share/g/b"), limits, || {
            Arc::new(Seat::for_group(2, 0, GroupName::new("$share/g/b", false)))
        });
        let third = of_filter("$share/g/c");
        let in_all = || groups.reserve(third, limits, || unreachable!());
        assert!(in_all().is_none(), "in all");
        assert!(groups.leave(&tree, &second.unwrap(), None));
        assert!(!groups.leave(&tree, &seat, Some(QoS::AtLeastOnce)));
        assert_eq!(found(&tree, "a/b"), [QoS::AtMostOnce]);
        assert!(groups.leave(&tree, &seat, Some(QoS::AtMostOnce)));
        assert_eq!((found(&tree, "a/b"), groups.len()), (Vec::new(), 0));
        assert!(seat.group().unwrap().is_over());
    }
}
