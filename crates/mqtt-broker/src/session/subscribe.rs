//! SUBSCRIBE and UNSUBSCRIBE, and the Retained Messages that a SUBSCRIBE asks for.
//!
//! Holds: for a Session that outlives its connection, SUBACK and UNSUBACK follow the commit; the
//!   tree knows the subscription before SUBACK is on the wire.

use std::collections::VecDeque;
use std::sync::Arc;

use headwater_mqtt_codec::{
    DisconnectReason, Packet, PacketId, QoS, RetainHandling, SubAck, SubAckReason, Subscribe,
    Subscription, SubscriptionId, SubscriptionOptions, UnsubAck, UnsubAckReason, Unsubscribe,
};

use crate::commit::Targets;
use crate::matching::{Matched, Target};
use crate::pending::{Draft, Then};
use crate::rows;
use crate::session::{Session, Subscribed};
use crate::tree::Subscriber;
use crate::{Message, Now, Refusal, Shard, Verdict};

/// What a SUBSCRIBE was granted, until its commit is there.
#[derive(Debug)]
pub(crate) struct Granted {
    packet_id: PacketId,
    id: Option<SubscriptionId>,
    reasons: Vec<SubAckReason>,
    filters: Vec<GrantedFilter>,
}

#[derive(Debug)]
struct GrantedFilter {
    filter: Box<str>,
    options: SubscriptionOptions,
    is_new: bool,
}

impl GrantedFilter {
    fn wants_retained(&self) -> bool {
        match self.options.retain_handling {
            RetainHandling::Send => true,
            RetainHandling::SendIfNew => self.is_new,
            RetainHandling::DoNotSend => false,
        }
    }
}

/// Retained Messages on their way to one subscription, in slices.
#[derive(Debug)]
pub(crate) struct Feed {
    slot: usize,
    number: u64,
    target: Target,
    messages: VecDeque<Arc<Message>>,
}

/// Retained Messages sent to one subscription in one round, so that others have their turn.
const SLICE: usize = 256;

impl Session {
    /// Whether it is new; the options of one that is not are replaced [MQTT-3.8.4-3].
    fn remember_subscription(
        &mut self,
        filter: &str,
        options: SubscriptionOptions,
        id: Option<SubscriptionId>,
    ) -> bool {
        let found = self.find_subscription(filter);
        if let Some(old) = found
            .ok()
            .and_then(|index| self.subscriptions.get_mut(index))
        {
            (old.options, old.id) = (options, id);
        } else if let Err(index) = found {
            self.subscriptions.reserve_exact(1);
            let new = Subscribed {
                filter: filter.into(),
                options,
                id,
            };
            self.subscriptions.insert(index, new);
        }
        found.is_err()
    }
}

impl Shard {
    /// SUBSCRIBE (MQTT 5.0, 3.8). An error closes the connection.
    pub(crate) fn subscribe_in(
        &mut self,
        now: Now,
        at: usize,
        subscribe: &Subscribe,
    ) -> Result<(), DisconnectReason> {
        let Some(connection) = self.connections.get(at) else {
            return Ok(());
        };
        let Some(slot) = connection.session else {
            return Ok(());
        };
        let Some(session) = self.sessions.get(slot) else {
            return Ok(());
        };
        let mut granted = Granted {
            packet_id: subscribe.packet_id,
            id: subscribe.subscription_id,
            reasons: Vec::with_capacity(subscribe.subscriptions.len()),
            filters: Vec::new(),
        };
        let mut changes = Vec::new();
        let number = session.number();
        let has_rows = session.has_rows;
        for (index, wanted) in subscribe.subscriptions.iter().enumerate() {
            if let Some(reason) = self.refusal(slot, index, wanted) {
                granted.reasons.push(reason);
                continue;
            }
            let options = wanted.options;
            let id = granted.id;
            let Some(session) = self.sessions.get_mut(slot) else {
                return Ok(());
            };
            let is_new = session.remember_subscription(&wanted.filter, options, id);
            granted.reasons.push(SubAckReason::granted(options.qos));
            granted.filters.push(GrantedFilter {
                filter: (*wanted.filter).into(),
                options,
                is_new,
            });
            if has_rows {
                changes.push(rows::subscription(number, &wanted.filter, options, id));
            }
        }
        let granted = Box::new(granted);
        if changes.is_empty() {
            self.subscribed(now, Some(at), slot, *granted, Ok(()));
        } else {
            let draft = Draft {
                changes,
                ..Draft::default()
            };
            self.submit(draft, Some(at), Some(slot), Then::Subscribed(granted));
        }
        Ok(())
    }

    fn refusal(&self, slot: usize, index: usize, wanted: &Subscription) -> Option<SubAckReason> {
        let filter = &*wanted.filter;
        let session = self.sessions.get(slot)?;
        let limits = &self.shared.limits;
        if index >= limits.filters_per_packet_max
            || (session.subscriptions.len() >= limits.subscriptions_max
                && session.find_subscription(filter).is_err())
        {
            return Some(SubAckReason::QuotaExceeded);
        }
        // `$share/group/filter` belongs to 3.x too here, as everywhere in this field.
        if filter.starts_with("$share/") {
            return Some(SubAckReason::SharedSubscriptionsNotSupported);
        }
        let limit = limits.topic_levels_max;
        if filter.len() >= limit && filter.bytes().filter(|byte| *byte == b'/').count() >= limit {
            return Some(SubAckReason::TopicFilterInvalid);
        }
        match self.shared.policy.subscribe(&session.publisher, filter) {
            Verdict::Allow => None,
            Verdict::Deny | Verdict::BadCredentials => Some(SubAckReason::NotAuthorized),
        }
    }

    /// The subscriptions are in the log, where they must be: from here on they count.
    pub(crate) fn subscribed(
        &mut self,
        now: Now,
        at: Option<usize>,
        slot: usize,
        granted: Granted,
        outcome: Result<(), Refusal>,
    ) {
        let Granted {
            packet_id,
            id,
            mut reasons,
            filters,
        } = granted;
        if outcome.is_err() {
            for reason in reasons.iter_mut().filter(|reason| !reason.is_error()) {
                *reason = SubAckReason::QuotaExceeded;
            }
        }
        let mut retained = Vec::new();
        for one in filters {
            let Some(session) = self.sessions.get_mut(slot) else {
                return;
            };
            let found = session.find_subscription(&one.filter);
            let Ok(index) = found else { continue }; // An UNSUBSCRIBE came meanwhile.
            if outcome.is_err() {
                if one.is_new {
                    session.subscriptions.remove(index);
                }
                continue;
            }
            let (seat, options) = (session.seat.clone(), one.options);
            self.shared
                .tree
                .subscribe(&one.filter, Subscriber { seat, options, id });
            if one.wants_retained() && at.is_some() {
                retained.push((one.filter, options));
            }
        }
        let Some(at) = at else { return };
        if let Some(connection) = self.connections.get_mut(at) {
            let packet = SubAck {
                packet_id,
                properties: None,
                reasons,
            };
            connection.send(&Packet::SubAck(Box::new(packet)));
            self.touch(at);
        }
        for (filter, options) in retained {
            self.gather_retained(slot, &filter, options, id);
        }
        self.feed_retained(now);
    }

    fn gather_retained(
        &mut self,
        slot: usize,
        filter: &str,
        options: SubscriptionOptions,
        id: Option<SubscriptionId>,
    ) {
        let Some(session) = self.sessions.get(slot) else {
            return;
        };
        let mut messages = Vec::new();
        self.shared.retained.matches(filter, &mut messages);
        if messages.is_empty() {
            return;
        }
        let target = Target {
            seat: session.seat.clone(),
            qos: options.qos,
            retain_as_published: true,
            ids: id.map(|id| Arc::from([id])),
        };
        let number = session.number();
        self.feeds.push_back(Feed {
            slot,
            number,
            target,
            messages: messages.into(),
        });
    }

    /// One slice of each feed, while its connection takes it.
    pub(crate) fn feed_retained(&mut self, now: Now) {
        for _ in 0..self.feeds.len() {
            let Some(mut feed) = self.feeds.pop_front() else {
                return;
            };
            let session = self.sessions.get(feed.slot);
            let connection = session
                .filter(|session| session.number() == feed.number)
                .and_then(|session| session.connection);
            // A feed ends with its connection: the next SUBSCRIBE asks anew.
            let Some(at) = connection else { continue };
            for _ in 0..SLICE {
                if !self.takes_retained(at) {
                    break;
                }
                let Some(message) = feed.messages.pop_front() else {
                    break;
                };
                self.send_retained(now, at, &feed, &message);
            }
            if !feed.messages.is_empty() {
                self.feeds.push_back(feed);
            }
        }
    }

    fn takes_retained(&mut self, at: usize) -> bool {
        let limits = &self.shared.limits;
        let Some(connection) = self.connections.get_mut(at) else {
            return false;
        };
        connection.output.takes_message(0, limits.output_bytes_max)
            && connection.pending < limits.connection_commits_max
            && connection.pending_bytes < limits.connection_commit_bytes_max
    }

    /// A Retained Message to a Session that outlives its connection is owed like any other.
    fn send_retained(&mut self, now: Now, at: usize, feed: &Feed, message: &Arc<Message>) {
        // One that is newer has come to this subscription by itself.
        if message.is_expired(now) || !self.shared.retained.is_latest(message) {
            return;
        }
        let target = &feed.target;
        let qos = message.qos.min(target.qos);
        if qos == QoS::AtMostOnce || !target.seat.is_persistent() {
            self.deliver_retained(now, feed.slot, message, target);
            return;
        }
        self.owe_retained(Some(at), feed.slot, target, message);
    }

    /// Commits that this Session is owed a Retained Message.
    pub(crate) fn owe_retained(
        &mut self,
        at: Option<usize>,
        slot: usize,
        target: &Target,
        message: &Arc<Message>,
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
            if_latest: true,
            ..Draft::default()
        };
        self.submit(draft, at, Some(slot), Then::Nothing);
    }

    /// Whether a feed only waits for its next turn.
    pub(crate) fn feeds_are_ready(&self) -> bool {
        self.feeds.iter().any(|feed| {
            let session = self.sessions.get(feed.slot);
            let at = session.and_then(|session| session.connection);
            at.and_then(|at| self.connections.get(at))
                .is_none_or(|connection| {
                    !connection.output.is_congested()
                        && connection.pending < self.shared.limits.connection_commits_max
                })
        })
    }

    /// UNSUBSCRIBE (MQTT 5.0, 3.10).
    pub(crate) fn unsubscribe_in(&mut self, at: usize, unsubscribe: &Unsubscribe) {
        let Some(connection) = self.connections.get(at) else {
            return;
        };
        let Some(slot) = connection.session else {
            return;
        };
        let Some(session) = self.sessions.get_mut(slot) else {
            return;
        };
        let number = session.number();
        let mut reasons = Vec::with_capacity(unsubscribe.filters.len());
        let mut changes = Vec::new();
        for filter in &unsubscribe.filters {
            match session.find_subscription(filter) {
                Ok(index) => {
                    session.subscriptions.remove(index);
                    self.shared.tree.unsubscribe(filter, number);
                    if session.has_rows {
                        changes.push(rows::subscription_gone(number, filter));
                    }
                    reasons.push(UnsubAckReason::Success);
                }
                Err(_) => reasons.push(UnsubAckReason::NoSubscriptionExisted),
            }
        }
        let packet = UnsubAck {
            packet_id: unsubscribe.packet_id,
            properties: None,
            reasons,
        };
        let packet = Box::new(packet);
        if changes.is_empty() {
            self.unsubscribed(at, packet, Ok(()));
        } else {
            let draft = Draft {
                changes,
                ..Draft::default()
            };
            self.submit(draft, Some(at), Some(slot), Then::Unsubscribed(packet));
        }
    }

    pub(crate) fn unsubscribed(
        &mut self,
        at: usize,
        mut packet: Box<UnsubAck>,
        outcome: Result<(), Refusal>,
    ) {
        if outcome.is_err() {
            for reason in &mut packet.reasons {
                *reason = UnsubAckReason::UnspecifiedError;
            }
        }
        if let Some(connection) = self.connections.get_mut(at) {
            connection.send(&Packet::UnsubAck(packet));
            self.touch(at);
        }
    }
}
