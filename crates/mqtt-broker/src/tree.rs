//! Which Sessions want a Topic Name: one tree for the whole process.
//!
//! For: subscribing, unsubscribing and matching. A filter without wildcards is one hash lookup,
//!   the others are a trie walked level by level.
//! Not for: what a match means, see `matching`.
//! Holds: no recursion by level; matching costs no more than the nodes of the trie on each level;
//!   whoever remembers a match can tell by [`Stamp`] whether it still holds.

use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashTable};
use headwater_mqtt_codec::{SubscriptionId, SubscriptionOptions};
use slab::Slab;

use crate::directory::Seat;

/// One Session's subscription.
#[derive(Clone, Debug)]
pub(crate) struct Subscriber {
    pub(crate) seat: Arc<Seat>,
    pub(crate) options: SubscriptionOptions,
    pub(crate) id: Option<SubscriptionId>,
}

/// A subscription in the tree.
#[derive(Debug)]
struct Standing {
    subscriber: Subscriber,
    /// The version it came with, of those that its filter counts for in a [`Stamp`].
    since: u64,
}

impl Standing {
    fn number(&self) -> u64 {
        self.subscriber.seat.number()
    }
}

/// The subscribers of one Topic Filter.
#[derive(Debug, Default)]
struct Subscribers {
    crowd: Crowd,
    /// No subscription here is newer than this version: who asks for newer ones need not look.
    newest: u64,
}

/// Most filters have one subscriber; some have everybody.
#[derive(Debug)]
enum Crowd {
    Few(Vec<Standing>),
    Many(HashMap<u64, Standing, RandomState>),
}

/// From here on a map: 100,000 Sessions leaving one filter must not cost their square.
const FEW_MAX: usize = 32;

impl Default for Crowd {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl Subscribers {
    fn is_empty(&self) -> bool {
        match &self.crowd {
            Crowd::Few(list) => list.is_empty(),
            Crowd::Many(map) => map.is_empty(),
        }
    }

    /// With the version it comes with; whether it was there already.
    fn insert(&mut self, subscriber: Subscriber, since: u64) -> bool {
        self.newest = self.newest.max(since);
        let new = Standing { subscriber, since };
        match &mut self.crowd {
            Crowd::Few(list) => {
                let number = new.number();
                if let Some(old) = list.iter_mut().find(|old| old.number() == number) {
                    *old = new;
                    return true;
                }
                if list.len() < FEW_MAX {
                    list.reserve_exact(1);
                    list.push(new);
                } else {
                    let all = list.drain(..).chain([new]);
                    self.crowd = Crowd::Many(all.map(|one| (one.number(), one)).collect());
                }
                false
            }
            Crowd::Many(map) => map.insert(new.number(), new).is_some(),
        }
    }

    fn remove(&mut self, number: u64) -> bool {
        match &mut self.crowd {
            Crowd::Few(list) => {
                let found = list.iter().position(|one| one.number() == number);
                found.map(|index| list.swap_remove(index)).is_some()
            }
            Crowd::Many(map) => {
                let removed = map.remove(&number).is_some();
                if map.len() <= FEW_MAX / 2 {
                    self.crowd = Crowd::Few(map.drain().map(|(_, one)| one).collect());
                }
                removed
            }
        }
    }

    /// Those that came after version `after`.
    fn collect(&self, after: u64, found: &mut Vec<Subscriber>) {
        if self.newest <= after {
            return;
        }
        let newer = |one: &Standing| (one.since > after).then(|| one.subscriber.clone());
        match &self.crowd {
            Crowd::Few(list) => found.extend(list.iter().filter_map(newer)),
            Crowd::Many(map) => found.extend(map.values().filter_map(newer)),
        }
    }
}

#[derive(Debug)]
struct Exact {
    filter: Box<str>,
    subscribers: Subscribers,
}

/// A level of a filter with wildcards. A group of Shared Subscriptions is a subscriber like others.
#[derive(Debug, Default)]
struct Node {
    parent: usize,
    level: Box<str>,
    /// Children, the `+` one counted.
    children: usize,
    /// The `+` child; [`ROOT`] where there is none.
    plus: usize,
    /// The filter that ends here.
    here: Subscribers,
    /// The filter that ends here with `/#`.
    below: Subscribers,
}

/// The trie's root, which is nobody's child.
const ROOT: usize = 0;

#[derive(Debug)]
struct Tree {
    exact: HashTable<Exact>,
    nodes: Slab<Node>,
    /// Child nodes by (parent, level).
    edges: HashTable<usize>,
}

/// Scratch space of a match, kept by whoever matches.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pub(crate) found: Vec<Subscriber>,
    level: Vec<usize>,
    next: Vec<usize>,
}

/// How old a match is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Stamp {
    wildcards: u64,
    exact: u64,
}

const EXACT_VERSIONS: usize = 256;

/// The tree behind its lock, with the version numbers that remembered matches are checked against.
#[derive(Debug)]
pub(crate) struct SubscriptionTree {
    hasher: RandomState,
    tree: RwLock<Tree>,
    wildcards: AtomicU64,
    /// By hash of the filter: a subscription to one topic spoils the memory of few others.
    exact: Vec<AtomicU64>,
}

fn has_wildcard(filter: &str) -> bool {
    filter.bytes().any(|byte| matches!(byte, b'+' | b'#'))
}

impl SubscriptionTree {
    pub(crate) fn new() -> Self {
        let mut nodes = Slab::new();
        nodes.insert(Node::default());
        let tree = Tree {
            exact: HashTable::new(),
            nodes,
            edges: HashTable::new(),
        };
        Self {
            hasher: RandomState::default(),
            tree: RwLock::new(tree),
            wildcards: AtomicU64::new(0),
            exact: (0..EXACT_VERSIONS).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// The hash that a Topic Name is looked up with.
    pub(crate) fn hash(&self, topic: &str) -> u64 {
        self.hasher.hash_one(topic)
    }

    fn version(&self, hash: u64) -> &AtomicU64 {
        #[expect(clippy::indexing_slicing, reason = "a remainder of the length")]
        &self.exact[(hash >> 40) as usize % EXACT_VERSIONS]
    }

    /// To be read before matching; equal later means that the match still holds.
    pub(crate) fn stamp(&self, hash: u64) -> Stamp {
        Stamp {
            wildcards: self.wildcards.load(Ordering::Acquire),
            exact: self.version(hash).load(Ordering::Acquire),
        }
    }

    /// Makes every remembered match invalid: a Session moved, or is no longer persistent.
    pub(crate) fn touch_all(&self) {
        self.wildcards.fetch_add(1, Ordering::AcqRel);
    }

    /// Adds or replaces; whether it was there already [MQTT-3.8.4-3].
    pub(crate) fn subscribe(&self, filter: &str, subscriber: Subscriber) -> bool {
        let mut tree = self.tree.write().unwrap_or_else(PoisonError::into_inner);
        // Newer than every stamp of a match that was made before the lock was taken.
        if has_wildcard(filter) {
            let since = self.wildcards.load(Ordering::Acquire) + 1;
            let existed = tree.insert_wildcard(&self.hasher, filter, subscriber, since);
            self.touch_all();
            existed
        } else {
            let hash = self.hash(filter);
            let since = self.version(hash).load(Ordering::Acquire) + 1;
            let entry = tree.exact.entry(
                hash,
                |exact| *exact.filter == *filter,
                |exact| self.hasher.hash_one(&*exact.filter),
            );
            let exact = entry
                .or_insert_with(|| Exact {
                    filter: filter.into(),
                    subscribers: Subscribers::default(),
                })
                .into_mut();
            let existed = exact.subscribers.insert(subscriber, since);
            self.version(hash).fetch_add(1, Ordering::AcqRel);
            existed
        }
    }

    /// Whether it was there.
    pub(crate) fn unsubscribe(&self, filter: &str, number: u64) -> bool {
        let mut tree = self.tree.write().unwrap_or_else(PoisonError::into_inner);
        if has_wildcard(filter) {
            let existed = tree.remove_wildcard(&self.hasher, filter, number);
            self.touch_all();
            return existed;
        }
        let hash = self.hash(filter);
        let Ok(mut entry) = tree
            .exact
            .find_entry(hash, |exact| *exact.filter == *filter)
        else {
            return false;
        };
        let existed = entry.get_mut().subscribers.remove(number);
        if entry.get().subscribers.is_empty() {
            entry.remove();
        }
        self.version(hash).fetch_add(1, Ordering::AcqRel);
        existed
    }

    /// Appends to `scratch.found` every subscription that selects `topic`; `hash` is its
    /// [`hash`](Self::hash). A Session with overlapping subscriptions is found several times.
    pub(crate) fn matches(&self, topic: &str, hash: u64, scratch: &mut Scratch) {
        self.matches_after(Stamp::default(), topic, hash, scratch);
    }

    /// As `matches`, but only those made since a match of this stamp.
    pub(crate) fn matches_after(
        &self,
        stamp: Stamp,
        topic: &str,
        hash: u64,
        scratch: &mut Scratch,
    ) {
        let tree = self.tree.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(exact) = tree.exact.find(hash, |exact| *exact.filter == *topic) {
            exact.subscribers.collect(stamp.exact, &mut scratch.found);
        }
        tree.matches_wildcards(&self.hasher, topic, stamp.wildcards, scratch);
    }
}

fn edge_hash(hasher: &RandomState, parent: usize, level: &str) -> u64 {
    let mut state = hasher.build_hasher();
    state.write_usize(parent);
    level.hash(&mut state);
    state.finish()
}

impl Tree {
    fn child(&self, hasher: &RandomState, parent: usize, level: &str) -> Option<usize> {
        let hash = edge_hash(hasher, parent, level);
        let is_it = |child: &usize| {
            self.nodes
                .get(*child)
                .is_some_and(|node| node.parent == parent && *node.level == *level)
        };
        self.edges.find(hash, is_it).copied()
    }

    /// The node of `filter`, without its `#`, made where it is missing.
    fn insert_wildcard(
        &mut self,
        hasher: &RandomState,
        filter: &str,
        subscriber: Subscriber,
        since: u64,
    ) -> bool {
        let mut at = ROOT;
        for level in filter.split('/') {
            if level == "#" {
                return self
                    .nodes
                    .get_mut(at)
                    .is_some_and(|node| node.below.insert(subscriber, since));
            }
            at = self.step(hasher, at, level);
        }
        self.nodes
            .get_mut(at)
            .is_some_and(|node| node.here.insert(subscriber, since))
    }

    fn step(&mut self, hasher: &RandomState, parent: usize, level: &str) -> usize {
        let plus = level == "+";
        let existing = if plus {
            self.nodes
                .get(parent)
                .map(|node| node.plus)
                .filter(|plus| *plus != ROOT)
        } else {
            self.child(hasher, parent, level)
        };
        if let Some(child) = existing {
            return child;
        }
        let child = self.nodes.insert(Node {
            parent,
            level: level.into(),
            ..Node::default()
        });
        if let Some(node) = self.nodes.get_mut(parent) {
            node.children += 1;
            if plus {
                node.plus = child;
            }
        }
        if !plus {
            let nodes = &self.nodes;
            let rehash = |child: &usize| match nodes.get(*child) {
                Some(node) => edge_hash(hasher, node.parent, &node.level),
                None => 0,
            };
            self.edges
                .insert_unique(edge_hash(hasher, parent, level), child, rehash);
        }
        child
    }

    fn remove_wildcard(&mut self, hasher: &RandomState, filter: &str, number: u64) -> bool {
        let mut at = ROOT;
        let mut multi = false;
        for level in filter.split('/') {
            if level == "#" {
                multi = true;
                break;
            }
            let child = if level == "+" {
                self.nodes
                    .get(at)
                    .map(|node| node.plus)
                    .filter(|plus| *plus != ROOT)
            } else {
                self.child(hasher, at, level)
            };
            match child {
                Some(child) => at = child,
                None => return false,
            }
        }
        let Some(node) = self.nodes.get_mut(at) else {
            return false;
        };
        let existed = if multi {
            node.below.remove(number)
        } else {
            node.here.remove(number)
        };
        self.prune(hasher, at);
        existed
    }

    /// Removes nodes that nobody needs, from `at` towards the root.
    fn prune(&mut self, hasher: &RandomState, mut at: usize) {
        while at != ROOT {
            let Some(node) = self.nodes.get(at) else {
                return;
            };
            if node.children > 0 || !node.here.is_empty() || !node.below.is_empty() {
                return;
            }
            let node = self.nodes.remove(at);
            let is_plus = match self.nodes.get_mut(node.parent) {
                Some(parent) => {
                    parent.children -= 1;
                    let is_plus = parent.plus == at;
                    if is_plus {
                        parent.plus = ROOT;
                    }
                    is_plus
                }
                None => false,
            };
            if !is_plus {
                let hash = edge_hash(hasher, node.parent, &node.level);
                if let Ok(edge) = self.edges.find_entry(hash, |child| *child == at) {
                    edge.remove();
                }
            }
            at = node.parent;
        }
    }

    fn matches_wildcards(
        &self,
        hasher: &RandomState,
        topic: &str,
        after: u64,
        scratch: &mut Scratch,
    ) {
        let Scratch {
            found,
            level: current,
            next,
        } = scratch;
        if self.nodes.len() == 1
            && self
                .nodes
                .get(ROOT)
                .is_some_and(|root| root.below.is_empty())
        {
            return;
        }
        current.clear();
        current.push(ROOT);
        // A filter that begins with a wildcard does not select a `$` topic [MQTT-4.7.2-1].
        let mut dollar = topic.starts_with('$');
        for level in topic.split('/') {
            next.clear();
            for at in current.iter() {
                let Some(node) = self.nodes.get(*at) else {
                    continue;
                };
                if !dollar {
                    node.below.collect(after, found);
                    if node.plus != ROOT {
                        next.push(node.plus);
                    }
                }
                if node.children > usize::from(node.plus != ROOT)
                    && let Some(child) = self.child(hasher, *at, level)
                {
                    next.push(child);
                }
            }
            dollar = false;
            std::mem::swap(current, next);
            if current.is_empty() {
                return;
            }
        }
        for at in current.iter() {
            let Some(node) = self.nodes.get(*at) else {
                continue;
            };
            node.here.collect(after, found);
            // `sport/#` selects `sport` too (4.7.1.2).
            node.below.collect(after, found);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 4.7 word by word, for one filter and one name.
    fn naive(filter: &str, topic: &str) -> bool {
        let filter: Vec<_> = filter.split('/').collect();
        let topic: Vec<_> = topic.split('/').collect();
        if topic[0].starts_with('$') && matches!(filter[0], "+" | "#") {
            return false;
        }
        for (index, level) in filter.iter().enumerate() {
            match (*level, topic.get(index)) {
                ("#", _) => return true,
                (_, None) => return false,
                ("+", Some(_)) => {}
                (level, Some(name)) if level == *name => {}
                _ => return false,
            }
        }
        filter.len() == topic.len()
    }

    fn subscriber(number: u64) -> Subscriber {
        Subscriber {
            seat: Arc::new(Seat::new(number, 0, false)),
            options: SubscriptionOptions::default(),
            id: None,
        }
    }

    fn numbers(tree: &SubscriptionTree, topic: &str) -> Vec<u64> {
        let mut scratch = Scratch::default();
        tree.matches(topic, tree.hash(topic), &mut scratch);
        let mut numbers: Vec<_> = scratch.found.iter().map(|one| one.seat.number()).collect();
        numbers.sort_unstable();
        numbers
    }

    #[test]
    fn topic_filter_selects_topic_name() {
        for (filter, topic, expected, why) in [
            (
                "sport/#",
                "sport",
                true,
                "# includes its parent level, 4.7.1.2",
            ),
            ("sport/+", "sport", false, "+ is one whole level, 4.7.1.3"),
            (
                "sport/+",
                "sport/",
                true,
                "an empty level is a level, 4.7.1.1",
            ),
            ("+/+", "/finance", true, "4.7.1.3"),
            ("/+", "/finance", true, "4.7.1.3"),
            ("+", "/finance", false, "4.7.1.3"),
            ("#", "$SYS/uptime", false, "[MQTT-4.7.2-1]"),
            ("+/uptime", "$SYS/uptime", false, "[MQTT-4.7.2-1]"),
            ("$SYS/#", "$SYS/uptime", true, "4.7.2"),
            ("$SYS/+", "$SYS/uptime", true, "4.7.2"),
        ] {
            let tree = SubscriptionTree::new();
            tree.subscribe(filter, subscriber(1));
            assert_eq!(
                !numbers(&tree, topic).is_empty(),
                expected,
                "{filter} on {topic}: {why}"
            );
            assert_eq!(
                naive(filter, topic),
                expected,
                "the judge: {filter} on {topic}: {why}"
            );
        }
    }

    #[test]
    fn a_crowd_leaves_one_filter_and_nothing_stays() {
        let tree = SubscriptionTree::new();
        for number in 1..=200 {
            assert!(!tree.subscribe("a/+/c", subscriber(number)));
            assert!(
                tree.subscribe("a/+/c", subscriber(number)),
                "replaced [MQTT-3.8.4-3]"
            );
        }
        assert_eq!(numbers(&tree, "a/b/c").len(), 200);
        for number in 1..=200 {
            assert!(tree.unsubscribe("a/+/c", number));
            assert!(!tree.unsubscribe("a/+/c", number));
        }
        let inside = tree.tree.read().unwrap();
        assert_eq!((inside.nodes.len(), inside.edges.len()), (1, 0));
    }

    #[test]
    fn deep_topics_and_filters_do_not_recurse() {
        let tree = SubscriptionTree::new();
        let deep = "/".repeat(65_535);
        tree.subscribe(
            &deep.replace('/', "/+").replacen("/+", "+", 1)[..65_535],
            subscriber(1),
        );
        tree.subscribe("#", subscriber(2));
        assert!(numbers(&tree, &deep).contains(&2));
    }

    #[test]
    fn a_change_spoils_remembered_matches_of_its_topic_only() {
        let tree = SubscriptionTree::new();
        let (a, b) = (tree.hash("a"), tree.hash("bb"));
        let (stamp_a, stamp_b) = (tree.stamp(a), tree.stamp(b));
        tree.subscribe("a", subscriber(1));
        assert_ne!(tree.stamp(a), stamp_a);
        if (a >> 40) as usize % EXACT_VERSIONS != (b >> 40) as usize % EXACT_VERSIONS {
            assert_eq!(tree.stamp(b), stamp_b);
        }
        tree.subscribe("+", subscriber(1));
        assert_ne!(tree.stamp(b), stamp_b);
    }

    #[test]
    fn a_match_made_again_for_the_newer_finds_those_alone() {
        let tree = SubscriptionTree::new();
        let topic = "a/b";
        let hash = tree.hash(topic);
        for (old, new) in [("a/b", "a/b"), ("a/+", "#"), ("#", "a/b"), ("a/b", "+/b")] {
            tree.subscribe(old, subscriber(1));
            tree.touch_all();
            let stamp = tree.stamp(hash);
            let newer = || {
                let mut scratch = Scratch::default();
                tree.matches_after(stamp, topic, hash, &mut scratch);
                let found = scratch.found.iter().map(|one| one.seat.number());
                found.collect::<Vec<_>>()
            };
            assert_eq!(newer(), []);
            tree.subscribe(new, subscriber(2));
            assert_eq!(newer(), [2], "{old} {new}");
            tree.unsubscribe(old, 1);
            tree.unsubscribe(new, 2);
        }
    }

    #[test]
    fn whoever_asks_for_newer_subscriptions_does_not_look_at_a_crowd_of_old_ones() {
        let mut crowd = Subscribers::default();
        for number in 1..=1_000 {
            crowd.insert(subscriber(number), number);
        }
        let newer = |crowd: &Subscribers, after| {
            let mut found = Vec::new();
            crowd.collect(after, &mut found);
            found.len()
        };
        assert_eq!((newer(&crowd, 990), newer(&crowd, 1_000)), (10, 0));
        // Who looked would see them all.
        crowd.newest = 5;
        assert_eq!((newer(&crowd, 4), newer(&crowd, 5)), (996, 0));
    }

    fn level() -> impl Strategy<Value = &'static str> {
        prop_oneof![Just("a"), Just("b"), Just(""), Just("$x")]
    }

    fn topic() -> impl Strategy<Value = String> {
        prop::collection::vec(level(), 1..5).prop_map(|levels| levels.join("/"))
    }

    fn filter() -> impl Strategy<Value = String> {
        let level = prop_oneof![3 => level(), 1 => Just("+")];
        (prop::collection::vec(level, 0..5), any::<bool>()).prop_map(|(mut levels, multi)| {
            if multi || levels.is_empty() {
                levels.push("#");
            }
            levels.join("/")
        })
    }

    proptest! {
        #[test]
        fn tree_agrees_with_the_naive_matcher(
            filters in prop::collection::vec((filter(), 1_u64..6), 1..40),
            removed in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
            topics in prop::collection::vec(topic(), 1..10),
        ) {
            let tree = SubscriptionTree::new();
            let mut model = std::collections::BTreeSet::new();
            for (filter, number) in &filters {
                let existed = tree.subscribe(filter, subscriber(*number));
                prop_assert_eq!(existed, !model.insert((filter.clone(), *number)));
            }
            for index in removed {
                let (filter, number) = &filters[index.index(filters.len())];
                let existed = tree.unsubscribe(filter, *number);
                prop_assert_eq!(existed, model.remove(&(filter.clone(), *number)));
            }
            for topic in topics {
                let mut expected: Vec<u64> = model
                    .iter()
                    .filter(|(filter, _)| naive(filter, &topic))
                    .map(|(_, number)| *number)
                    .collect();
                expected.sort_unstable();
                prop_assert_eq!(numbers(&tree, &topic), expected, "{}", topic);
            }
        }
    }
}
