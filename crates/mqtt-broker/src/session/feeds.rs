//! Retained Messages on their way to new subscriptions.
//!
//! For: sending each of them once, in slices, as fast as the Client takes them.
//! Not for: finding them, see `retained`.
//! Holds: each Retained Message that stood when the subscription was made, and was neither replaced
//!   nor cleared before its turn, is sent once; what is set later reaches the subscription by
//!   itself (`commit::distribute`). One feed a Session and Topic Filter; SUBSCRIBE again, and it
//!   begins again. However many feeds there are, a turn of the shard looks at no more than
//!   [`NODES_A_TURN`] messages; nobody's socket waits for them, whose acknowledgements they need.

use std::collections::BTreeMap;
use std::sync::Arc;

use headwater_mqtt_codec::QoS;

use crate::commit::Targets;
use crate::matching::{Matched, Target};
use crate::pending::{Draft, Then};
use crate::retained::Scan;
use crate::session::Session;
use crate::{Message, Now, Shard};

/// Retained Messages that all feeds of a shard look at before others have their turn. Well below a
/// millisecond.
const NODES_A_TURN: usize = 4_096;
/// And that they send.
const MESSAGES_A_TURN: usize = 256;
/// Messages that may wait in a Session before its feeds wait too; they go on at half of it. A feed
/// never pushes what is owed out of the queue.
// Few enough in tests that schedules reach it.
const WAITING_MAX: usize = if cfg!(test) { 4 } else { 512 };

/// The feeds of one Session. They end with its connection.
#[derive(Debug, Default)]
pub(crate) struct Feeds {
    /// By Topic Filter.
    running: BTreeMap<Box<str>, Scan>,
    /// What the log refused, to be asked again.
    refused: Vec<(Target, Arc<Message>)>,
    /// It is on the shard's list of those that can go on.
    ready: bool,
}

/// What is left of a turn.
#[derive(Debug)]
pub(crate) struct Turn {
    nodes: usize,
    messages: usize,
}

impl Default for Turn {
    fn default() -> Self {
        Self {
            nodes: NODES_A_TURN,
            messages: MESSAGES_A_TURN,
        }
    }
}

impl Session {
    /// Topic Filters whose Retained Messages are being sent.
    pub(crate) fn feeds_len(&self) -> usize {
        self.feeds.as_ref().map_or(0, |feeds| feeds.running.len())
    }

    /// Messages on their way to it that are not in flight.
    fn waiting(&self) -> usize {
        let refused = self.feeds.as_ref().map_or(0, |feeds| feeds.refused.len());
        self.pending as usize + self.queue.len() + self.owed.len() + refused
    }

    /// Its subscription is gone.
    pub(crate) fn end_feed(&mut self, filter: &str) {
        if let Some(feeds) = &mut self.feeds {
            feeds.running.remove(filter);
        }
    }
}

impl Shard {
    /// Sends the Retained Messages that stood at `stood_at` to a subscription of the Session.
    pub(crate) fn start_feed(&mut self, slot: usize, filter: Box<str>, stood_at: u64) {
        let Some(session) = self.sessions.get_mut(slot) else {
            return;
        };
        let feeds = session.feeds.get_or_insert_default();
        feeds.running.insert(filter, Scan::new(stood_at));
        self.wake_feeds(slot);
    }

    /// Something of the Session was sent, acknowledged or committed: its feeds may go on.
    pub(crate) fn wake_feeds(&mut self, slot: usize) {
        let Some(session) = self.sessions.get_mut(slot) else {
            return;
        };
        if session.feeds_len() == 0 || session.waiting() > WAITING_MAX / 2 {
            return;
        }
        let number = session.number();
        if let Some(feeds) = &mut session.feeds
            && !feeds.ready
        {
            feeds.ready = true;
            self.feeding.push_back((slot, number));
        }
    }

    /// What the feeds can do in what is left of this turn.
    pub(crate) fn run_feeds(&mut self, now: Now) {
        while self.turn.nodes > 0
            && self.turn.messages > 0
            && let Some((slot, number)) = self.feeding.pop_front()
        {
            let session = self.sessions.get_mut(slot);
            if let Some(session) = session.filter(|one| one.number() == number)
                && let Some(feeds) = &mut session.feeds
            {
                feeds.ready = false;
                self.run_feed(now, slot);
            }
        }
    }

    /// One slice of one feed of a Session.
    fn run_feed(&mut self, now: Now, slot: usize) {
        if !self.takes_retained(slot) {
            return; // Woken when something of it is done.
        }
        let Some(session) = self.sessions.get_mut(slot) else {
            return;
        };
        let Some((filter, mut scan)) = session
            .feeds
            .as_mut()
            .and_then(|feeds| feeds.running.pop_first())
        else {
            return self.feed_ended(slot);
        };
        let found = session.find_subscription(&filter).ok();
        let subscription = found.and_then(|index| session.subscriptions.get(index));
        let Some(subscription) = subscription else {
            return self.feed_ended(slot);
        };
        let target = Target {
            seat: session.seat.clone(),
            qos: subscription.options.qos,
            retain_as_published: true,
            lasting: session.is_persistent(),
            ids: subscription.id.map(|id| Arc::from([id])),
        };
        let room = WAITING_MAX.saturating_sub(session.waiting());
        let messages_max = self.turn.messages.min(room);
        let before = scan.clone();
        let slice = self.shared.retained_for(&filter).slice(
            &filter,
            &mut scan,
            self.turn.nodes,
            messages_max,
        );
        self.turn.nodes = self.turn.nodes.saturating_sub(slice.visited.max(1));
        let mut sent = None;
        for message in &slice.found {
            if !self.takes_retained(slot) {
                // Goes on behind the last one that was sent.
                scan = before.behind(sent);
                break;
            }
            self.turn.messages = self.turn.messages.saturating_sub(1);
            self.send_retained(now, slot, &target, message);
            sent = Some(&*message.topic);
        }
        if scan.is_done() {
            return self.feed_ended(slot);
        }
        if let Some(session) = self.sessions.get_mut(slot)
            && let Some(feeds) = &mut session.feeds
        {
            feeds.running.insert(filter, scan);
        }
        self.wake_feeds(slot);
    }

    fn feed_ended(&mut self, slot: usize) {
        let Some(session) = self.sessions.get_mut(slot) else {
            return;
        };
        let feeds = session.feeds.as_ref();
        if feeds.is_some_and(|one| one.running.is_empty() && one.refused.is_empty()) {
            session.feeds = None;
        }
        self.wake_feeds(slot);
    }

    /// The log does not take that this Session is owed a Retained Message: it is asked again for as
    /// long as the connection stands.
    pub(crate) fn retained_refused(&mut self, slot: usize, target: Target, message: Arc<Message>) {
        let Some(session) = self.sessions.get_mut(slot) else {
            return;
        };
        if session.connection.is_none() {
            return;
        }
        let number = session.number();
        let feeds = session.feeds.get_or_insert_default();
        feeds.refused.push((target, message));
        self.owing.push((slot, number));
    }

    /// Asks the log again for what it refused.
    pub(crate) fn owe_again(&mut self) {
        for (slot, number) in std::mem::take(&mut self.owing) {
            let session = self.sessions.get_mut(slot);
            let Some(session) = session.filter(|one| one.number() == number) else {
                continue;
            };
            let at = session.connection;
            let feeds = session.feeds.as_mut();
            let refused = feeds.map(|feeds| std::mem::take(&mut feeds.refused));
            for (target, message) in refused.into_iter().flatten() {
                self.owe_retained(at, slot, &target, &message);
            }
            self.feed_ended(slot);
        }
    }

    fn takes_retained(&mut self, slot: usize) -> bool {
        let limits = &self.shared.limits;
        let Some(session) = self.sessions.get(slot) else {
            return false;
        };
        let connection = session
            .connection
            .and_then(|at| self.connections.get_mut(at));
        connection.is_some_and(|connection| {
            (connection.output).takes_message(session.storing_bytes, limits.output_bytes_max)
                && connection.pending_bytes < limits.connection_commit_bytes_max
                && session.waiting() < WAITING_MAX
        })
    }

    /// A Retained Message to a Session that outlives its connection is owed like any other.
    fn send_retained(&mut self, now: Now, slot: usize, target: &Target, message: &Arc<Message>) {
        if message.is_expired(now) {
            return;
        }
        let qos = message.qos.min(target.qos);
        if qos == QoS::AtMostOnce || !target.seat.is_persistent() {
            self.deliver_retained(now, slot, message, target);
            return;
        }
        let at = self.sessions.get(slot).and_then(|one| one.connection);
        self.owe_retained(at, slot, target, message);
    }

    /// Commits that this Session is owed a Retained Message.
    pub(crate) fn owe_retained(
        &mut self,
        at: Option<usize>,
        slot: usize,
        target: &Target,
        message: &Arc<Message>,
    ) {
        let then = Then::OwedRetained(Box::new((target.clone(), message.clone())));
        self.owe_one(at, Some(slot), target, message, then);
    }

    /// Commits that one Session is owed a message; a retained one not if it is no longer the
    /// Retained Message of its topic.
    pub(crate) fn owe_one(
        &mut self,
        at: Option<usize>,
        slot: Option<usize>,
        target: &Target,
        message: &Arc<Message>,
        then: Then,
    ) {
        let matched = Matched::one(target.clone());
        let weight = u32::try_from(message.weight()).unwrap_or(u32::MAX);
        let owed = matched.owed(message.qos, message.retain).map(|mut entry| {
            entry.weight = weight;
            entry.encode()
        });
        let draft = Draft {
            message: Some(message.clone()),
            owed,
            targets: Targets::new(Arc::new(matched), None),
            if_latest: matches!(then, Then::OwedRetained(_)),
            ..Draft::default()
        };
        self.submit(draft, at, slot, then);
    }
}
