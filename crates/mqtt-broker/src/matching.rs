//! Who gets a message: subscriptions that overlap become one delivery a Session.
//!
//! For: [`Matched`], what a Topic Name's subscribers are, sorted by the shard they live in, and
//!   [`MatchCache`], which remembers it.
//! Calls: `tree`. Called by: `session::publish_in`.
//! Holds: a remembered match is used only while its [`Stamp`] is the tree's.

use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use headwater_mqtt_codec::{QoS, SubscriptionId};

use crate::directory::Seat;
use crate::owed::{OwedEntry, OwedGroup};
use crate::tree::{Scratch, Stamp, Subscriber, SubscriptionTree};

/// One Session that gets a message, with what all its matching subscriptions say together.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) seat: Arc<Seat>,
    /// The highest of the subscriptions' [MQTT-3.3.4-2].
    pub(crate) qos: QoS,
    pub(crate) retain_as_published: bool,
    /// It outlived its connections when it was matched. Whether a group is owed a message by the log
    /// goes by this: it may be in the log by the time that the message is.
    pub(crate) lasting: bool,
    /// Of all matching subscriptions that have one [MQTT-3.3.4-4].
    pub(crate) ids: Option<Arc<[SubscriptionId]>>,
}

impl Target {
    pub(crate) fn ids(&self) -> &[SubscriptionId] {
        self.ids.as_deref().unwrap_or_default()
    }

    /// Whether its home would drop a message of this QoS that nothing durable depends on.
    pub(crate) fn drops(&self, qos: QoS) -> bool {
        self.qos.min(qos) == QoS::AtMostOnce && self.seat.is_deaf()
    }

    /// Whether the log shall owe it what it gets.
    fn is_persistent(&self) -> bool {
        match self.seat.group() {
            Some(_) => self.lasting,
            None => self.seat.is_persistent(),
        }
    }
}

/// The subscribers of one Topic Name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Matched {
    /// Shard -> its Sessions, ascending by number.
    pub(crate) groups: Vec<(usize, Arc<[Target]>)>,
    /// The highest QoS that a Session which outlives its connection is to get.
    pub(crate) persistent_qos: QoS,
    /// Some subscription has No Local: ask again without the publisher's own.
    pub(crate) no_local: bool,
    /// The tree's when this was asked; `None` for what was not asked of it.
    stamp: Option<Stamp>,
}

impl Matched {
    pub(crate) fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Just one Session.
    pub(crate) fn one(target: Target) -> Self {
        let persistent = target.is_persistent();
        Self {
            persistent_qos: if persistent {
                target.qos
            } else {
                QoS::AtMostOnce
            },
            groups: vec![(target.seat.home(), Arc::new([target]))],
            no_local: false,
            stamp: None,
        }
    }

    fn targets(&self) -> usize {
        self.groups.iter().map(|(_, targets)| targets.len()).sum()
    }

    fn has(&self, number: u64) -> bool {
        let is_in = |targets: &Arc<[Target]>| {
            targets
                .binary_search_by_key(&number, |target| target.seat.number())
                .is_ok()
        };
        self.groups.iter().any(|(_, targets)| is_in(targets))
    }

    /// Those who want `topic` by now and are not among these; `publisher` as in `merge`.
    pub(crate) fn late(
        &self,
        tree: &SubscriptionTree,
        topic: &str,
        publisher: Option<u64>,
    ) -> Self {
        let hash = tree.hash(topic);
        let stamp = Some(tree.stamp(hash));
        if self.stamp == stamp {
            return Self::default();
        }
        // Few, where those that were matched may be a crowd: this is the committer's thread.
        let mut scratch = Scratch::default();
        tree.matches_after(self.stamp.unwrap_or_default(), topic, hash, &mut scratch);
        // A Shared Subscription gets no Retained Messages (4.8.2).
        (scratch.found).retain(|one| one.seat.group().is_none() && !self.has(one.seat.number()));
        Self::merge(&mut scratch.found, publisher, stamp)
    }

    /// Merges what was found. `publisher` is whose own No Local subscriptions do not count
    /// [MQTT-3.8.3-3].
    fn merge(found: &mut Vec<Subscriber>, publisher: Option<u64>, stamp: Option<Stamp>) -> Self {
        let no_local = found.iter().any(|one| one.options.no_local);
        if let Some(publisher) = publisher {
            found.retain(|one| !(one.options.no_local && one.seat.number() == publisher));
        }
        found.sort_unstable_by_key(|one| one.seat.number());
        let mut homes: Vec<(usize, Vec<Target>)> = Vec::new();
        let mut persistent_qos = QoS::AtMostOnce;
        for same in found.chunk_by(|a, b| a.seat.number() == b.seat.number()) {
            let Some(target) = together(same) else {
                continue;
            };
            if target.is_persistent() {
                persistent_qos = persistent_qos.max(target.qos);
            }
            let home = target.seat.home();
            match homes.iter_mut().find(|(shard, _)| *shard == home) {
                Some((_, targets)) => targets.push(target),
                None => homes.push((home, vec![target])),
            }
        }
        found.clear();
        let groups = homes
            .into_iter()
            .map(|(shard, targets)| (shard, targets.into()))
            .collect();
        Self {
            groups,
            persistent_qos,
            no_local,
            stamp,
        }
    }

    /// The owed entry of a message published at `qos` with this RETAIN flag; `None` when no
    /// Session that outlives its connection is owed it.
    pub(crate) fn owed(&self, qos: QoS, retain: bool) -> Option<OwedEntry> {
        if self.persistent_qos.min(qos) == QoS::AtMostOnce {
            return None;
        }
        let mut groups: Vec<OwedGroup> = Vec::new();
        for target in self.groups.iter().flat_map(|(_, targets)| targets.iter()) {
            let qos = target.qos.min(qos);
            if qos == QoS::AtMostOnce || !target.is_persistent() {
                continue;
            }
            let retain = retain && target.retain_as_published;
            let number = target.seat.number();
            let same = |group: &&mut OwedGroup| {
                group.qos == qos && group.retain == retain && group.ids == target.ids()
            };
            match groups.iter_mut().find(same) {
                Some(group) => group.sessions.push(number),
                None => groups.push(OwedGroup {
                    qos,
                    retain,
                    ids: target.ids().to_vec(),
                    sessions: vec![number],
                }),
            }
        }
        OwedEntry::new(groups)
    }
}

/// One target of all subscriptions of one Session.
fn together(same: &[Subscriber]) -> Option<Target> {
    let first = same.first()?;
    let mut ids: Vec<SubscriptionId> = same.iter().filter_map(|one| one.id).collect();
    ids.sort_unstable();
    ids.dedup();
    Some(Target {
        seat: first.seat.clone(),
        qos: same.iter().map(|one| one.options.qos).max()?,
        retain_as_published: same.iter().any(|one| one.options.retain_as_published),
        lasting: first.seat.is_persistent(),
        ids: (!ids.is_empty()).then(|| ids.into()),
    })
}

#[derive(Debug)]
struct Remembered {
    topic: Box<str>,
    hash: u64,
    matched: Arc<Matched>,
}

/// What a shard remembers of matches, bounded in topics and in targets.
#[derive(Debug)]
pub(crate) struct MatchCache {
    topics: HashTable<Remembered>,
    topics_max: usize,
    targets: usize,
    targets_max: usize,
    scratch: Scratch,
}

/// Targets remembered in all; beyond it everything is forgotten and gathered anew.
const TARGETS_MAX: usize = 1 << 20;

impl MatchCache {
    pub(crate) fn new(topics_max: usize) -> Self {
        let (topics, scratch) = (HashTable::new(), Scratch::default());
        Self {
            topics,
            topics_max,
            targets: 0,
            targets_max: TARGETS_MAX,
            scratch,
        }
    }

    /// The subscribers of `topic`.
    pub(crate) fn find(&mut self, tree: &SubscriptionTree, topic: &str) -> &Arc<Matched> {
        let hash = tree.hash(topic);
        // Before matching: what changes meanwhile makes it old.
        let stamp = Some(tree.stamp(hash));
        if self.topics.len() >= self.topics_max || self.targets >= self.targets_max {
            self.topics.clear();
            self.targets = 0;
        }
        let entry = self.topics.entry(
            hash,
            |one| one.hash == hash && *one.topic == *topic,
            |one| one.hash,
        );
        let remembered = match entry {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry
                .insert(Remembered {
                    topic: topic.into(),
                    hash,
                    matched: Arc::default(),
                })
                .into_mut(),
        };
        if remembered.matched.stamp != stamp {
            tree.matches(topic, hash, &mut self.scratch);
            let matched = Matched::merge(&mut self.scratch.found, None, stamp);
            self.targets += matched.targets();
            self.targets -= remembered.matched.targets();
            remembered.matched = Arc::new(matched);
        }
        &remembered.matched
    }

    /// The subscribers of `topic` without `publisher`'s own No Local subscriptions.
    pub(crate) fn find_for(
        &mut self,
        tree: &SubscriptionTree,
        topic: &str,
        publisher: u64,
    ) -> Arc<Matched> {
        let hash = tree.hash(topic);
        let stamp = Some(tree.stamp(hash));
        tree.matches(topic, hash, &mut self.scratch);
        Arc::new(Matched::merge(
            &mut self.scratch.found,
            Some(publisher),
            stamp,
        ))
    }
}

/// Keeps the hasher type in one place for the maps of this crate that strangers do not fill.
pub(crate) type FastMap<K, V> = hashbrown::HashMap<K, V, RandomState>;

#[cfg(test)]
mod tests {
    use headwater_mqtt_codec::SubscriptionOptions;

    use super::*;

    #[test]
    fn the_cache_stays_within_its_targets_when_remembered_topics_get_subscribers() {
        let tree = SubscriptionTree::new();
        let mut cache = MatchCache::new(1_000);
        cache.targets_max = 200;
        let topics: Vec<String> = (0..100).map(|topic| format!("t/{topic}")).collect();
        for topic in &topics {
            cache.find(&tree, topic);
        }
        for number in 1..=10 {
            let subscriber = Subscriber {
                seat: Arc::new(Seat::new(number, 0, false)),
                options: SubscriptionOptions::default(),
                id: None,
            };
            tree.subscribe("t/+", subscriber);
        }
        for topic in &topics {
            assert_eq!(cache.find(&tree, topic).targets(), 10);
            let held: usize = cache.topics.iter().map(|one| one.matched.targets()).sum();
            assert_eq!(cache.targets, held);
            assert!(held < 200 + 10, "one topic more than the bound");
        }
    }
}
