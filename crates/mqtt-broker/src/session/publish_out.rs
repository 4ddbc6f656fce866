//! PUBLISH to Clients: what is sent at once, and what waits.
//!
//! For: deliveries of any kind to the Sessions of this shard. What an earlier connection left
//!   behind is sent again in `resume`; what Clients answer is in `ack_in`.
//! Holds: never more in flight than the Client's Receive Maximum [MQTT-3.3.4-9]; a QoS 2 Packet
//!   Identifier of a Session that outlives its connection is in the log before it is on the wire.

use std::sync::Arc;

use headwater_mqtt_codec::{Delivery as Wire, PacketId, PublishRef, QoS, SubscriptionId, Text};
use smallvec::SmallVec;

use crate::aliases::Alias;
use crate::commit::Delivery;
use crate::connection::{Connection, Stage};
use crate::counts::Counts;
use crate::matching::Target;
use crate::output::CHUNK_BYTES_MIN;
use crate::owed::Owed;
use crate::pending::{RowStep, Step};
use crate::session::{Inflight, Progress, Queued};
use crate::system::is_system;
use crate::{Message, Now, Shard, Verdict};

/// How one subscriber gets a message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner<'a> {
    pub(crate) retain: bool,
    pub(crate) ids: &'a [SubscriptionId],
}

/// Whether the PUBLISH, with its Topic Name, would be longer than the Client takes.
pub(crate) fn is_too_long(
    connection: &Connection,
    now: Now,
    message: &Message,
    delivery: Wire,
    manner: Manner<'_>,
) -> bool {
    let view = PublishRef {
        delivery,
        retain: manner.retain,
        topic: &message.topic,
        topic_alias: None,
        subscription_ids: manner.ids,
        message_expiry_interval: message.expiry_left(now),
        properties: message.properties.as_deref(),
        payload: &message.payload,
    };
    let bytes_max = connection.packet_bytes_max;
    bytes_max != u32::MAX && view.encoded_len(connection.version) > bytes_max as usize
}

/// Appends the PUBLISH; `false` when it is longer than the Client takes [MQTT-3.1.2-24].
pub(crate) fn transmit(
    connection: &mut Connection,
    counts: &mut Counts,
    now: Now,
    message: &Message,
    delivery: Wire,
    manner: Manner<'_>,
) -> bool {
    let mut alias = connection.alias(&message.topic);
    let mut view = PublishRef {
        delivery,
        retain: manner.retain,
        topic: match alias {
            Alias::Known(_) => Text::empty(),
            Alias::No | Alias::New(_) => &message.topic,
        },
        topic_alias: alias.number(),
        subscription_ids: manner.ids,
        message_expiry_interval: message.expiry_left(now),
        properties: message.properties.as_deref(),
        payload: &message.payload,
    };
    let version = connection.version;
    if connection.packet_bytes_max != u32::MAX {
        let bytes_max = connection.packet_bytes_max as usize;
        let mut fits = view.encoded_len(version) <= bytes_max;
        if !fits && let Alias::New(_) = alias {
            (alias, view.topic_alias) = (Alias::No, None);
            fits = view.encoded_len(version) <= bytes_max;
        }
        if !fits {
            counts.dropped_too_large += 1;
            return false;
        }
    }
    let encoded = if message.payload.len() < CHUNK_BYTES_MIN {
        view.encode(version, connection.output.tail())
    } else {
        let head = view.encode_head(version, connection.output.tail());
        if head.is_ok() {
            connection.output.push_chunk(message.payload.clone());
        }
        head
    };
    if encoded.is_err() {
        counts.dropped_too_large += 1;
        return false;
    }
    if let Alias::New(alias) = alias {
        let aliases = connection.aliases.get_or_insert_default();
        aliases.give(alias, &message.topic);
    }
    connection.output.note_packet();
    counts.packets_sent += 1;
    counts.payload_sent += message.payload.len() as u64;
    match delivery {
        Wire::AtMostOnce => counts.sent_qos0 += 1,
        Wire::AtLeastOnce { .. } => counts.sent_qos1 += 1,
        Wire::ExactlyOnce { .. } => counts.sent_qos2 += 1,
    }
    true
}

pub(crate) fn wire(qos: QoS, id: u16, dup: bool) -> Wire {
    match (qos, PacketId::new(id)) {
        (QoS::AtLeastOnce, Some(packet_id)) => Wire::AtLeastOnce { packet_id, dup },
        (QoS::ExactlyOnce, Some(packet_id)) => Wire::ExactlyOnce { packet_id, dup },
        _ => Wire::AtMostOnce,
    }
}

impl Shard {
    /// Committed messages, in commit order.
    pub(crate) fn deliver_committed(&mut self, now: Now, deliveries: Vec<Delivery>) {
        for delivery in deliveries {
            for target in delivery.targets.iter() {
                // A Session may still be here from before another shard claimed it and this one
                // claimed it back: what was delivered there comes first, with the Session.
                if self.keep_for_arrival(&delivery, target) {
                    continue;
                }
                let slot = self.slot_of(&target.seat);
                if let Some(slot) = slot.or_else(|| self.group_slot(&target.seat)) {
                    self.deliver_one(now, slot, &delivery, target);
                }
            }
        }
    }

    /// One committed message for one Session that is here.
    pub(crate) fn deliver_one(
        &mut self,
        now: Now,
        slot: usize,
        delivery: &Delivery,
        target: &Target,
    ) {
        let qos = delivery.message.qos.min(target.qos);
        let Some(session) = self.sessions.get_mut(slot) else {
            return;
        };
        let lasts = match session.group {
            Some(_) => target.lasting && session.becomes_lasting(),
            None => session.is_persistent(),
        };
        let durable = qos > QoS::AtMostOnce && lasts;
        if delivery.late && durable {
            let at = session.connection;
            return self.owe_retained(at, slot, target, &delivery.message);
        }
        let (Some(sequence), true) = (delivery.owed, durable) else {
            let mut shared = Some(delivery.message.clone());
            self.deliver_transient(now, slot, &delivery.message, &mut shared, target);
            return;
        };
        if sequence < session.next_sequence {
            return;
        }
        session.next_sequence = sequence + 1;
        if delivery.if_latest && !self.shared.retained.is_latest(&delivery.message) {
            self.mark_dirty(slot);
            return;
        }
        let owed = Owed {
            sequence,
            position: delivery.stored.unwrap_or_default(),
            qos,
            retain: delivery.message.retain && target.retain_as_published,
            weight: u32::try_from(delivery.message.weight()).unwrap_or(u32::MAX),
            ids: SmallVec::from_slice(target.ids()),
            group: 0,
        };
        let nothing_before = session.owed.is_empty() && session.resend.is_empty();
        let at = session.connection.filter(|_| nothing_before);
        if let Some(at) = at
            && self.has_room(slot, at)
        {
            self.send_owed(now, slot, at, owed, &delivery.message);
            return;
        }
        self.owe(slot, &owed, &delivery.message);
        self.dispatch(now, slot);
    }

    /// Puts it behind what the Session is owed already.
    fn owe(&mut self, slot: usize, owed: &Owed, message: &Arc<Message>) {
        let Some(session) = self.sessions.get_mut(slot) else {
            return;
        };
        session.owed.push(owed);
        if session.connection.is_some()
            || session.group.as_ref().is_some_and(|one| one.has_members())
        {
            self.payloads.insert(owed.position, message);
        }
        let limits = &self.shared.limits;
        let mut dropped = false;
        while session.owed.len() > limits.queue_messages_max
            || (session.owed.weight() > limits.queue_bytes_max && session.owed.len() > 1)
        {
            // The oldest leave the Session, never the log.
            session.owed.pop();
            self.counts.dropped_limit += 1;
            dropped = true;
        }
        if dropped {
            self.mark_dirty(slot);
        }
    }

    /// Uncommitted messages for the Sessions of this shard.
    pub(crate) fn deliver_all(
        &mut self,
        now: Now,
        message: &Message,
        shared: &mut Option<Arc<Message>>,
        targets: &[Target],
    ) {
        for target in targets {
            let slot = self.slot_of(&target.seat);
            match slot.or_else(|| self.group_slot(&target.seat)) {
                Some(slot) => self.deliver_transient(now, slot, message, shared, target),
                None => self.counts.dropped_qos0 += 1,
            }
        }
    }

    /// A message the log does not owe this Session: now, or from memory, or not at all.
    fn deliver_transient(
        &mut self,
        now: Now,
        slot: usize,
        message: &Message,
        shared: &mut Option<Arc<Message>>,
        target: &Target,
    ) {
        let manner = Manner {
            retain: message.retain && target.retain_as_published,
            ids: target.ids(),
        };
        self.send_transient(
            now,
            slot,
            message,
            shared,
            message.qos.min(target.qos),
            manner,
        );
    }

    /// A Retained Message for a new subscription: RETAIN is set (3.3.1.3).
    pub(crate) fn deliver_retained(
        &mut self,
        now: Now,
        slot: usize,
        message: &Arc<Message>,
        target: &Target,
    ) {
        let qos = message.qos.min(target.qos);
        let manner = Manner {
            retain: true,
            ids: target.ids(),
        };
        let mut shared = Some(message.clone());
        self.send_transient(now, slot, message, &mut shared, qos, manner);
    }

    pub(crate) fn send_transient(
        &mut self,
        now: Now,
        slot: usize,
        message: &Message,
        shared: &mut Option<Arc<Message>>,
        qos: QoS,
        manner: Manner<'_>,
    ) {
        let Some(session) = self.sessions.get_mut(slot) else {
            return;
        };
        let Some(at) = session.connection else {
            if session.group.is_some() {
                return self.offer(now, slot, message, shared, qos);
            }
            // What the broker says of itself is state: who is away lacks nothing when it is back.
            self.counts.dropped_qos0 += u64::from(!is_system(&message.topic));
            return;
        };
        if self.is_dropped(now, slot, message) {
            return;
        }
        let Some(session) = self.sessions.get_mut(slot) else {
            return;
        };
        let Some(connection) = self.connections.get_mut(at) else {
            return;
        };
        let output_bytes_max = self.shared.limits.output_bytes_max;
        let takes = (connection.output).takes_message(session.storing_bytes, output_bytes_max);
        let live = connection.stage == Stage::Live && takes;
        if qos == QoS::AtMostOnce && !live {
            self.counts.dropped_qos0 += 1;
            session.seat.set_deaf(connection.is_deaf());
            return;
        }
        let waits = !live
            || session.inflight.len() >= usize::from(connection.window)
            || !session.queue.is_empty();
        if qos > QoS::AtMostOnce && waits {
            let message = shared
                .get_or_insert_with(|| message.clone().detach())
                .clone();
            let ids = SmallVec::from_slice(manner.ids);
            let exactly_once = qos == QoS::ExactlyOnce;
            self.enqueue(
                slot,
                Queued {
                    message,
                    exactly_once,
                    retain: manner.retain,
                    ids,
                },
            );
            return;
        }
        self.send_unowed(now, slot, at, message, qos, manner);
    }

    /// Whether it is too late for this message, or the Session may not read it.
    fn is_dropped(&mut self, now: Now, slot: usize, message: &Message) -> bool {
        if message.is_expired(now) {
            self.counts.dropped_expired += 1;
            return true;
        }
        let denied = !self.may_receive(slot, &message.topic);
        self.counts.dropped_denied += u64::from(denied);
        denied
    }

    /// Whether the Session may read it now. Its subscription was allowed once, maybe on another
    /// connection and under other rules.
    pub(crate) fn may_receive(&self, slot: usize, topic: &str) -> bool {
        let policy = &self.shared.policy;
        self.sessions.get(slot).is_some_and(|session| {
            policy.receive(&session.publisher, topic) == Verdict::Allow
                && self.may_read_system(slot, topic)
        })
    }

    /// PUBLISH whose exchange ends with the connection. Its Packet Identifier, where it has one and
    /// was sent.
    pub(crate) fn send_unowed(
        &mut self,
        now: Now,
        slot: usize,
        at: usize,
        message: &Message,
        qos: QoS,
        manner: Manner<'_>,
    ) -> Option<u16> {
        let connection = self.connections.get_mut(at)?;
        let session = self.sessions.get_mut(slot)?;
        let progress = match qos {
            QoS::AtMostOnce => None,
            QoS::AtLeastOnce => Some(Progress::Sent),
            QoS::ExactlyOnce => Some(Progress::SentOnce),
        };
        let id = progress.map_or(0, |_| session.next_id());
        let delivery = wire(qos, id, false);
        if !transmit(connection, &mut self.counts, now, message, delivery, manner) {
            return None;
        }
        if let Some(progress) = progress {
            session.inflight.push_back(Inflight {
                id,
                progress,
                owed: None,
            });
        }
        self.touch(at);
        progress.map(|_| id)
    }

    pub(crate) fn enqueue(&mut self, slot: usize, queued: Queued) {
        let Some(session) = self.sessions.get_mut(slot) else {
            return;
        };
        session.queue_bytes += queued.message.memory() as u64;
        session.queue.push_back(queued);
        let limits = &self.shared.limits;
        while session.queue.len() > limits.queue_messages_max
            || (session.queue.len() > 1 && session.queue_bytes > limits.queue_bytes_max)
        {
            session.pop_queued();
            self.counts.dropped_limit += 1;
        }
    }

    /// Whether the connection takes one more QoS 1 or 2 message now.
    pub(crate) fn has_room(&mut self, slot: usize, at: usize) -> bool {
        let Some(connection) = self.connections.get_mut(at) else {
            return false;
        };
        let Some(session) = self.sessions.get(slot) else {
            return false;
        };
        let output_bytes_max = self.shared.limits.output_bytes_max;
        (connection.output).takes_message(session.storing_bytes, output_bytes_max)
            && connection.stage == Stage::Live
            && session.inflight.len() - session.resend.len() < usize::from(connection.window)
    }

    /// Sends one owed message: QoS 1 at once, QoS 2 once its Packet Identifier is in the log.
    pub(crate) fn send_owed(
        &mut self,
        now: Now,
        slot: usize,
        at: usize,
        owed: Owed,
        message: &Arc<Message>,
    ) {
        if self.is_dropped(now, slot, message) {
            return self.mark_dirty(slot);
        }
        let Some(connection) = self.connections.get_mut(at) else {
            return;
        };
        let Some(session) = self.sessions.get_mut(slot) else {
            return;
        };
        let id = session.next_id();
        let owed = Box::new(owed);
        if owed.qos == QoS::ExactlyOnce {
            session.finished.retain(|finished| *finished != id);
            session.inflight.push_back(Inflight {
                id,
                progress: Progress::Storing,
                owed: Some(owed.clone()),
            });
            self.store_id(slot, id, &owed, message);
            return;
        }
        let manner = Manner {
            retain: owed.retain,
            ids: &owed.ids,
        };
        let delivery = wire(owed.qos, id, false);
        if transmit(connection, &mut self.counts, now, message, delivery, manner) {
            let progress = Progress::Sent;
            session.inflight.push_back(Inflight {
                id,
                progress,
                owed: Some(owed),
            });
            self.touch(at);
        } else {
            self.mark_dirty(slot);
        }
    }

    /// Asks for the row of a QoS 2 Packet Identifier; the PUBLISH follows its commit.
    pub(crate) fn store_id(&mut self, slot: usize, id: u16, owed: &Owed, message: &Arc<Message>) {
        let Some(session) = self.sessions.get_mut(slot) else {
            return;
        };
        session.storing_bytes += message.weight();
        let step = Step::Send(message.clone());
        self.row_steps
            .push(RowStep::new(session, slot, id, owed, step));
    }

    /// Sends what waits, as far as there is room.
    pub(crate) fn feed(&mut self, now: Now, slot: usize) {
        self.feed_shares(now, slot);
        self.feed_queues(now, slot);
        // Where nothing of its own waits any more.
        self.feed_shares(now, slot);
        self.wake_feeds(slot);
    }

    fn feed_queues(&mut self, now: Now, slot: usize) {
        let Some(session) = self.sessions.get_mut(slot) else {
            return;
        };
        let Some(at) = session.connection else {
            return self.dispatch(now, slot);
        };
        if session.queue.is_empty() && session.owed.is_empty() && session.resend.is_empty() {
            return;
        }
        if !self.feed_again(now, slot, at) {
            return;
        }
        self.feed_shares(now, slot);
        while self.has_room(slot, at) {
            let Some(session) = self.sessions.get_mut(slot) else {
                return;
            };
            let Some(queued) = session.pop_queued() else {
                break;
            };
            self.send_queued(now, slot, at, &queued);
            self.own_was_sent(slot);
        }
        while self.has_room(slot, at) {
            let Some(session) = self.sessions.get_mut(slot) else {
                return;
            };
            let Some(owed) = session.owed.front() else {
                return;
            };
            match self.payload(slot, &owed) {
                Some(Some(message)) => {
                    // In this order: at every moment it is somewhere.
                    self.send_owed(now, slot, at, owed, &message);
                    self.burn();
                    self.pop_owed(slot);
                    self.own_was_sent(slot);
                }
                Some(None) => {
                    self.pop_owed(slot);
                    self.counts.dropped_gone += 1;
                    self.mark_dirty(slot);
                }
                None => {
                    self.load_owed(slot);
                    return;
                }
            }
        }
    }

    /// Its groups' turn.
    fn own_was_sent(&mut self, slot: usize) {
        let session = self.sessions.get_mut(slot);
        if let Some(shares) = session.and_then(|session| session.shares.as_mut()) {
            shares.own_was_sent = true;
        }
    }

    fn pop_owed(&mut self, slot: usize) {
        if let Some(session) = self.sessions.get_mut(slot) {
            session.owed.pop();
        }
    }

    fn send_queued(&mut self, now: Now, slot: usize, at: usize, queued: &Queued) {
        if queued.message.is_expired(now) {
            self.counts.dropped_expired += 1;
            return;
        }
        let qos = match queued.exactly_once {
            true => QoS::ExactlyOnce,
            false => QoS::AtLeastOnce,
        };
        let manner = Manner {
            retain: queued.retain,
            ids: &queued.ids,
        };
        self.send_unowed(now, slot, at, &queued.message, qos, manner);
    }
}
