//! SUBSCRIBE and UNSUBSCRIBE. The Retained Messages that a SUBSCRIBE asks for: see `feeds`.
//!
//! Holds: for a Session that outlives its connection, SUBACK and UNSUBACK follow the commit; the
//!   tree knows the subscription before SUBACK is on the wire.

use headwater_mqtt_codec::{
    DisconnectReason, Packet, PacketId, RetainHandling, SubAck, SubAckReason, Subscribe,
    Subscription, SubscriptionId, SubscriptionOptions, UnsubAck, UnsubAckReason, Unsubscribe,
};

use crate::pending::{Draft, Then};
use crate::rows;
use crate::session::{Session, Subscribed};
use crate::tree::Subscriber;
use crate::{Refusal, Shard, Verdict};

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
            self.subscribed(Some(at), slot, *granted, Ok(()));
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
                retained.push(one.filter);
            }
        }
        let Some(at) = at else { return };
        // The tree has the subscriptions: what is set from here on reaches them by itself.
        let stood_at = self.shared.retained.stands();
        if let Some(connection) = self.connections.get_mut(at) {
            let packet = SubAck {
                packet_id,
                properties: None,
                reasons,
            };
            connection.send(&Packet::SubAck(Box::new(packet)));
            self.touch(at);
        }
        for filter in retained {
            self.start_feed(slot, filter, stood_at);
        }
        let feeds = self.sessions.get(slot).map_or(0, |one| one.feeds_len());
        if feeds >= self.shared.limits.feeds_max {
            self.pause(at);
        }
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
                    session.end_feed(filter);
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
