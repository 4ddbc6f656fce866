//! SUBSCRIBE and UNSUBSCRIBE, and the Retained Messages that a SUBSCRIBE asks for.
//!
//! Holds: for a Session that outlives its connection, SUBACK and UNSUBACK follow the commit; the
//!   tree knows the subscription before SUBACK is on the wire.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use headwater_mqtt_codec::{
    DisconnectReason, Packet, PacketId, QoS, RetainHandling, SubAck, SubAckReason, Subscribe,
    Subscription, SubscriptionId, SubscriptionOptions, Text, UnsubAck, UnsubAckReason, Unsubscribe,
    Version, topic,
};

use crate::connection::explanation;
use crate::directory::Seat;
use crate::groups::{self, GroupName};
use crate::input::Between;
use crate::pending::{Draft, Then};
use crate::reasons::Violation;
use crate::rows;
use crate::session::connect::NUMBERS_STEP;
use crate::session::end::End;
use crate::session::{Session, Subscribed};
use crate::tree::Subscriber;
use crate::{Change, Now, Refusal, Shard, Verdict, reasons};

/// Most Sessions have no more subscriptions, and so no memory for more.
const FEW: usize = 8;

/// What a SUBSCRIBE was granted, until its commit is there.
#[derive(Debug)]
pub(crate) struct Granted {
    packet_id: PacketId,
    id: Option<SubscriptionId>,
    reasons: Vec<SubAckReason>,
    filters: Vec<GrantedFilter>,
    /// Up to where its commit reserves Session numbers.
    numbers: Option<u64>,
}

#[derive(Debug)]
struct GrantedFilter {
    filter: Box<str>,
    options: SubscriptionOptions,
    /// Of a Shared Subscription; it counts this one already.
    group: Option<Arc<Seat>>,
}

impl GrantedFilter {
    fn wants_retained(&self, is_new: bool) -> bool {
        if self.group.is_some() {
            return false; // 4.8.2
        }
        match self.options.retain_handling {
            RetainHandling::Send => true,
            RetainHandling::SendIfNew => is_new,
            RetainHandling::DoNotSend => false,
        }
    }
}

impl Session {
    /// Its Shared Subscriptions, those counted whose commits are pending.
    fn shared_subscriptions(&self) -> usize {
        let is_new = |filter: &&str| {
            filter.starts_with(groups::PREFIX) && self.find_subscription(filter).is_err()
        };
        let subscribing = self.subscribing.iter().map(|one| &**one);
        // They lie together.
        let all = &self.subscriptions;
        let first = all.partition_point(|one| &*one.filter < groups::PREFIX);
        let shared = all.get(first..).unwrap_or_default();
        shared.partition_point(|one| one.group.is_some()) + subscribing.filter(is_new).count()
    }

    /// Which of them are new; the options of those that are not are replaced [MQTT-3.8.4-3].
    fn remember_subscriptions(
        &mut self,
        filters: &[GrantedFilter],
        id: Option<SubscriptionId>,
    ) -> Vec<bool> {
        let mut named = BTreeSet::new();
        let are_new = filters
            .iter()
            .map(|one| self.find_subscription(&one.filter).is_err() && named.insert(&*one.filter));
        let are_new = are_new.collect();
        self.subscriptions
            .extend(filters.iter().map(|one| Subscribed {
                filter: one.filter.clone(),
                options: one.options,
                id,
                group: one.group.clone(),
            }));
        // Two runs, the first in order. Stable: of one filter's the last is the newest.
        self.subscriptions.sort_by(|a, b| a.filter.cmp(&b.filter));
        self.subscriptions.dedup_by(|later, kept| {
            let is_same = later.filter == kept.filter;
            if is_same {
                std::mem::swap(later, kept);
            }
            is_same
        });
        if self.subscriptions.len() <= FEW {
            self.subscriptions.shrink_to_fit();
        }
        are_new
    }
}

impl Shard {
    /// SUBSCRIBE (MQTT 5.0, 3.8). An error closes the connection.
    pub(crate) fn subscribe_in(
        &mut self,
        at: usize,
        subscribe: &Subscribe,
    ) -> Result<(), Violation> {
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
            numbers: None,
        };
        let mut changes = Vec::new();
        let number = session.number();
        let (has_rows, is_persistent) = (session.has_rows, session.is_persistent());
        let (bridge, qos_max) = (connection.bridge, self.shared.limits.qos_max);
        let mut shares = session.shared_subscriptions();
        for (index, wanted) in subscribe.subscriptions.iter().enumerate() {
            let more = granted.filters.len();
            let group = match self.grant(slot, index, wanted, more, &mut shares) {
                Ok(group) => group,
                Err(reason) => {
                    granted.reasons.push(reason);
                    continue;
                }
            };
            let mut options = wanted.options;
            options.qos = options.qos.min(qos_max); // [MQTT-3.2.2-10]
            options.no_local |= bridge && group.is_none();
            options.retain_as_published |= bridge;
            if has_rows {
                let row = rows::subscription(number, &wanted.filter, options, granted.id);
                changes.push(row);
            }
            if is_persistent && let Some(seat) = &group {
                self.group_rows(seat, &mut changes, &mut granted.numbers);
            }
            granted.reasons.push(SubAckReason::granted(options.qos));
            granted.filters.push(GrantedFilter {
                filter: (*wanted.filter).into(),
                options,
                group,
            });
        }
        let granted = Box::new(granted);
        // What this Client sent before is not in the log yet: its own Retained Message must not meet
        // the subscription as if it came after it. Then the subscription waits for its turn.
        let is_first = (self.connections.get(at)).is_some_and(|connection| connection.pending == 0);
        if changes.is_empty() && is_first {
            return self.subscribed(Some(at), slot, *granted, Ok(()));
        }
        if let Some(session) = self.sessions.get_mut(slot) {
            let filters = granted.filters.iter().map(|one| one.filter.clone());
            session.subscribing.extend(filters);
        }
        let draft = Draft::rows(changes);
        self.submit(draft, Some(at), Some(slot), Then::Subscribed(granted));
        Ok(())
    }

    /// The seat of the group, where it is a Shared Subscription; an error refuses the filter. The
    /// Session has `shares` of them by then.
    fn grant(
        &self,
        slot: usize,
        index: usize,
        wanted: &Subscription,
        more: usize,
        shares: &mut usize,
    ) -> Result<Option<Arc<Seat>>, SubAckReason> {
        // `$share/group/filter` belongs to 3.x too here, as everywhere in this field; in 5.0 one
        // that is none never comes here [MQTT-4.8.2-1] [MQTT-4.8.2-2].
        let shared =
            topic::split_shared(&wanted.filter).map_err(|_| SubAckReason::TopicFilterInvalid)?;
        let selects = shared.map_or(&*wanted.filter, |shared| shared.filter);
        if let Some(reason) = self.refusal(slot, index, &wanted.filter, selects, more) {
            return Err(reason);
        }
        let Some(shared) = shared else {
            return Ok(None);
        };
        let broker = &self.shared;
        let session = self.sessions.get(slot);
        let is_new = session.is_some_and(|one| one.find_subscription(&wanted.filter).is_err());
        if is_new && *shares >= broker.limits.shared_subscriptions_max {
            return Err(SubAckReason::QuotaExceeded);
        }
        let make = || {
            let name = GroupName::new(&wanted.filter, false);
            Arc::new(Seat::for_group(broker.next_number(), self.index, name))
        };
        let seat = broker.groups.reserve(shared, Some(&broker.limits), make);
        *shares += usize::from(is_new && seat.is_some());
        seat.map(Some).ok_or(SubAckReason::QuotaExceeded)
    }

    /// What the log must know of a group once a Session that outlives its connection subscribes.
    fn group_rows(&mut self, seat: &Seat, changes: &mut Vec<Change>, numbers: &mut Option<u64>) {
        let Some(group) = seat.group().filter(|group| !group.is_lasting()) else {
            return;
        };
        let number = seat.number();
        changes.push(rows::group(number, &group.name));
        let reserved = self.numbers_reserved.max(numbers.unwrap_or(0));
        if number >= reserved {
            let next = self.numbers_asked.max(number + NUMBERS_STEP);
            self.numbers_asked = next;
            *numbers = Some(next);
            changes.push(rows::numbers(self.index, next));
        }
    }

    /// Why not; `more` filters are granted already in this packet.
    fn refusal(
        &self,
        slot: usize,
        index: usize,
        filter: &str,
        selects: &str,
        more: usize,
    ) -> Option<SubAckReason> {
        let session = self.sessions.get(slot)?;
        let limits = &self.shared.limits;
        if index >= limits.filters_per_packet_max
            || (session.subscriptions.len() + session.subscribing.len() + more
                >= limits.subscriptions_max
                && session.find_subscription(filter).is_err())
        {
            return Some(SubAckReason::QuotaExceeded);
        }
        if !limits.wildcards_available && selects.contains(['+', '#']) {
            return Some(SubAckReason::WildcardSubscriptionsNotSupported);
        }
        if filter.len() > limits.topic_bytes_max {
            return Some(SubAckReason::TopicFilterInvalid);
        }
        let limit = limits.topic_levels_max;
        if selects.len() >= limit && selects.bytes().filter(|byte| *byte == b'/').count() >= limit {
            return Some(SubAckReason::TopicFilterInvalid);
        }
        if !self.may_read_system(slot, selects) {
            return Some(SubAckReason::NotAuthorized);
        }
        match self.shared.policy.subscribe(&session.publisher, selects) {
            Verdict::Allow => None,
            Verdict::Deny | Verdict::BadCredentials => Some(SubAckReason::NotAuthorized),
        }
    }

    /// The subscriptions are in the log, where they must be: from here on they count. An error
    /// closes the connection.
    pub(crate) fn subscribed(
        &mut self,
        at: Option<usize>,
        slot: usize,
        granted: Granted,
        outcome: Result<(), Refusal>,
    ) -> Result<(), Violation> {
        let Granted {
            packet_id,
            id,
            mut reasons,
            filters,
            numbers,
        } = granted;
        let Some(session) = self.sessions.get_mut(slot) else {
            return Ok(());
        };
        if !session.subscribing.is_empty() {
            let count = filters.len().min(session.subscribing.len());
            session.subscribing.drain(..count);
        }
        let mut retained = Vec::new();
        if outcome.is_ok() {
            self.numbers_reserved = self.numbers_reserved.max(numbers.unwrap_or(0));
            self.count_in_groups(slot, &filters);
            let Some(session) = self.sessions.get_mut(slot) else {
                return Ok(());
            };
            let are_new = session.remember_subscriptions(&filters, id);
            let new = filters.iter().zip(&are_new).filter(|(_, is_new)| **is_new);
            self.counts
                .add_subscriptions(new.map(|(one, _)| &*one.filter));
            let seat = session.seat.clone();
            for (one, is_new) in filters.into_iter().zip(are_new) {
                if one.group.is_some() {
                    self.join_group(slot, &one.filter);
                    continue;
                }
                let (seat, options) = (seat.clone(), one.options);
                let subscriber = Subscriber { seat, options, id };
                let store = self.shared.retained_for(&one.filter);
                let stood_at = store.standing(|| {
                    self.shared.tree.subscribe(&one.filter, subscriber);
                });
                if one.wants_retained(is_new) && at.is_some() {
                    retained.push((one.filter, stood_at));
                }
            }
        } else {
            for reason in reasons.iter_mut().filter(|reason| !reason.is_error()) {
                *reason = SubAckReason::QuotaExceeded;
            }
            for group in filters.iter().filter_map(|one| one.group.as_ref()) {
                self.leave_group(group, None);
            }
        }
        let Some(at) = at else { return Ok(()) };
        let version = self
            .connections
            .get(at)
            .map(|connection| connection.version);
        if outcome.is_err() && version == Some(Version::V31) {
            return Err(DisconnectReason::QuotaExceeded.into()); // It has no code for a failure.
        }
        self.send_suback(at, packet_id, &reasons);
        for (filter, stood_at) in retained {
            self.start_feed(slot, filter, stood_at);
        }
        Ok(())
    }

    /// SUBACK; it says why where something is refused.
    fn send_suback(&mut self, at: usize, packet_id: PacketId, reasons: &[SubAckReason]) {
        let Some(connection) = self.connections.get_mut(at) else {
            return;
        };
        let refused = reasons.iter().find(|reason| reason.is_error());
        let why = refused.map_or("", |reason| reasons::subscribe(*reason));
        connection.send_explained(Text::from_static(why), |why| {
            Packet::SubAck(Box::new(SubAck {
                packet_id,
                properties: why.map(explanation),
                reasons: reasons.to_vec(),
            }))
        });
        self.touch(at);
    }

    /// The Session has ended before the commit was answered.
    pub(crate) fn subscribed_nobody(&mut self, granted: &Granted) {
        for group in granted.filters.iter().filter_map(|one| one.group.as_ref()) {
            self.leave_group(group, None);
        }
    }

    /// The Shared Subscriptions among these count in their groups.
    fn count_in_groups(&mut self, slot: usize, filters: &[GrantedFilter]) {
        let mut named: BTreeMap<&str, QoS> = BTreeMap::new();
        for one in filters {
            let Some(group) = &one.group else { continue };
            let Some(session) = self.sessions.get(slot) else {
                return;
            };
            let found = session.find_subscription(&one.filter).ok();
            let old = found.and_then(|index| session.subscriptions.get(index));
            let is_persistent = session.is_persistent();
            let old = named
                .insert(&one.filter, one.options.qos)
                .or(old.map(|one| one.options.qos));
            if let Some(name) = group.group().filter(|_| is_persistent)
                && name.set_lasting()
            {
                // From here on what the group is matched for is owed by the log.
                group.set_persistent(true);
                self.shared.tree.touch_all();
                self.tell(group.home(), Between::Group(group.clone()));
            }
            let (groups, tree) = (&self.shared.groups, &self.shared.tree);
            groups.count(tree, group, old, one.options.qos);
            if old.is_some() {
                self.leave_group(group, None); // It was counted before.
            }
        }
    }

    /// UNSUBSCRIBE (MQTT 5.0, 3.10).
    pub(crate) fn unsubscribe_in(&mut self, now: Now, at: usize, asked: Box<Unsubscribe>) {
        let Some(connection) = self.connections.get(at) else {
            return;
        };
        let Some(slot) = connection.session else {
            return;
        };
        let Some(session) = self.sessions.get(slot) else {
            return;
        };
        let number = session.number();
        let is_first = session.subscribing.is_empty();
        let mut changes = Vec::new();
        if session.has_rows {
            let subscribing: BTreeSet<&str> =
                session.subscribing.iter().map(|one| &**one).collect();
            let is_known = |filter: &&str| {
                session.find_subscription(filter).is_ok() || subscribing.contains(filter)
            };
            let known = asked.filters.iter().map(|filter| &**filter);
            // However often one is named.
            let known: BTreeSet<&str> = known.filter(is_known).collect();
            changes.extend(known.iter().map(|one| rows::subscription_gone(number, one)));
        }
        // Behind a SUBSCRIBE that waits.
        if changes.is_empty() && is_first {
            self.unsubscribed(now, Some(at), slot, &asked, Ok(()));
        } else {
            let then = Then::Unsubscribed(asked);
            self.submit(Draft::rows(changes), Some(at), Some(slot), then);
        }
    }

    /// The subscriptions are gone from the log, where they were, or stay.
    pub(crate) fn unsubscribed(
        &mut self,
        now: Now,
        at: Option<usize>,
        slot: usize,
        asked: &Unsubscribe,
        outcome: Result<(), Refusal>,
    ) {
        let Some(session) = self.sessions.get_mut(slot) else {
            return;
        };
        let mut reasons = Vec::with_capacity(asked.filters.len());
        let mut gone = BTreeSet::new();
        let mut groups = Vec::new();
        for filter in &asked.filters {
            reasons.push(match session.find_subscription(filter) {
                _ if outcome.is_err() => UnsubAckReason::ImplementationSpecificError,
                Ok(index) if gone.insert(index) => {
                    session.end_feed(filter);
                    match session.subscriptions.get(index) {
                        Some(Subscribed {
                            group: Some(group),
                            options,
                            ..
                        }) => groups.push((group.clone(), options.qos)),
                        _ => drop(self.shared.tree.unsubscribe(filter, session.number())),
                    }
                    UnsubAckReason::Success
                }
                Ok(_) | Err(_) => UnsubAckReason::NoSubscriptionExisted,
            });
        }
        if !gone.is_empty() {
            let all = gone
                .iter()
                .filter_map(|one| session.subscriptions.get(*one));
            self.counts.drop_subscriptions(all.map(|one| &*one.filter));
            let mut indexes = 0..;
            let mut stays = |_: &Subscribed| indexes.next().is_none_or(|one| !gone.contains(&one));
            session.subscriptions.retain(&mut stays);
        }
        for (group, qos) in groups {
            self.part_group(slot, &group);
            self.leave_group(&group, Some(qos));
        }
        let Some(at) = at else { return };
        let Some(connection) = self.connections.get_mut(at) else {
            return;
        };
        if outcome.is_err() && !connection.is_v5() {
            // Its UNSUBACK can only say that it is done.
            return self.close(now, at, None, End::Abnormal);
        }
        let why = if outcome.is_err() {
            reasons::UNSUBSCRIBE
        } else {
            ""
        };
        connection.send_explained(Text::from_static(why), |why| {
            Packet::UnsubAck(Box::new(UnsubAck {
                packet_id: asked.packet_id,
                properties: why.map(explanation),
                reasons: reasons.clone(),
            }))
        });
        self.touch(at);
    }
}
