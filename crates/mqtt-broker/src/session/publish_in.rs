//! PUBLISH from a Client, and everything else that publishes.
//!
//! For: deciding who gets a message, whether something durable depends on it, and when it is
//!   acknowledged.
//! Holds: matched before the commit; a QoS 2 identifier is committed with its PUBLISH; while a
//!   connection has commits pending, everything it publishes goes through the same stream.

use std::sync::Arc;

use headwater_mqtt_codec::{
    DisconnectReason, Packet, PacketId, PubAckReason, PubComp, PubCompReason, PubRel, Publish, QoS,
};

use crate::commit::Targets;
use crate::connection::{Connection, Stage};
use crate::input::Forwarded;
use crate::matching::Matched;
use crate::pending::{Draft, Then};
use crate::reasons::{self, Violation};
use crate::rows;
use crate::system::is_system;
use crate::{Message, Now, Publisher, Shard, Verdict};

/// [MQTT-3.3.4-7]
const WINDOW_EXCEEDED: Violation = Violation::new(
    DisconnectReason::ReceiveMaximumExceeded,
    "more unacknowledged messages than the receive maximum of CONNACK",
);
/// 3.2.2.3.4, [MQTT-3.2.2-11]
const QOS_TOO_HIGH: Violation = Violation::new(
    DisconnectReason::QoSNotSupported,
    "the QoS is above the maximum QoS of CONNACK",
);
/// 3.2.2.3.5, [MQTT-3.2.2-14]
const NOT_RETAINED: Violation = Violation::new(
    DisconnectReason::RetainNotSupported,
    "no message is retained here, as CONNACK said",
);
/// [MQTT-3.2.2-17]
const ALIAS_TOO_HIGH: Violation = Violation::new(
    DisconnectReason::TopicAliasInvalid,
    "the topic alias is above the topic alias maximum of CONNACK",
);
/// Well formed and not taken here (MQTT 5.0, 3.14.2.1; bad-inputs, row 15).
const TOPIC_NOT_TAKEN: Violation = Violation::new(
    DisconnectReason::TopicNameInvalid,
    reasons::publish(PubAckReason::TopicNameInvalid),
);
const UNKNOWN_ALIAS: Violation =
    Violation::protocol("this topic alias was not set on this connection");

/// A message with who wants it.
#[derive(Debug)]
pub(crate) struct Publication {
    pub(crate) message: Message,
    pub(crate) matched: Arc<Matched>,
    /// The publisher's Session, whose No Local subscriptions do not count.
    pub(crate) publisher: Option<u64>,
    pub(crate) routed: bool,
    /// It becomes the Retained Message of its topic.
    pub(crate) retains: bool,
}

impl Publication {
    /// Something must be in the log before this is acknowledged.
    fn is_durable(&self) -> bool {
        self.routed
            || self.retains
            || self.matched.persistent_qos.min(self.message.qos) > QoS::AtMostOnce
    }

    fn is_unwanted(&self) -> bool {
        self.matched.is_empty() && !self.routed && !self.retains
    }
}

impl Shard {
    /// PUBLISH (MQTT 5.0, 3.3). An error closes the connection.
    pub(crate) fn publish_in(
        &mut self,
        now: Now,
        at: usize,
        mut publish: Publish,
    ) -> Result<(), Violation> {
        self.resolve_alias(at, &mut publish)?;
        let qos = publish.qos();
        match qos {
            QoS::AtMostOnce => self.counts.received_qos0 += 1,
            QoS::AtLeastOnce => self.counts.received_qos1 += 1,
            QoS::ExactlyOnce => self.counts.received_qos2 += 1,
        }
        let limits = &self.shared.limits;
        if qos > limits.qos_max {
            return Err(QOS_TOO_HIGH);
        }
        if publish.retain && !limits.retain_available {
            return Err(NOT_RETAINED);
        }
        self.counts.payload_received += publish.payload.len() as u64;
        let Some(connection) = self.connections.get_mut(at) else {
            return Ok(());
        };
        let Some(slot) = connection.session else {
            return Ok(());
        };
        let Some(session) = self.sessions.get_mut(slot) else {
            return Ok(());
        };
        if let Some(id) = publish.packet_id() {
            if qos == QoS::ExactlyOnce {
                match session.inbound.get(&id.value()) {
                    // Taken before and not released: acknowledged, not routed [MQTT-4.3.3-10].
                    Some(true) => {
                        connection.acknowledge(qos, id, Some(PubAckReason::Success));
                        self.touch(at);
                        return Ok(());
                    }
                    // Its PUBREC follows its commit.
                    Some(false) => return Ok(()),
                    None => {}
                }
            }
            let receive_maximum = limits.receive_maximum.get();
            // Identifiers that wait for PUBREL. A new connection has a window of its own (4.9)
            // beside those of the one before. Before MQTT 5.0 nothing announces a window: it bounds
            // what is held, and closes.
            let mut held_max = usize::from(receive_maximum);
            if connection.is_v5() {
                held_max *= 2;
                if connection.taken >= u32::from(receive_maximum) {
                    return Err(WINDOW_EXCEEDED);
                }
                connection.taken += 1;
            }
            if qos == QoS::ExactlyOnce && session.inbound.len() >= held_max {
                return Err(WINDOW_EXCEEDED);
            }
        }
        if let Err(reason) = self.may_publish(slot, &publish.topic) {
            // 3.1.1 lets a Server take and drop what is not authorized (3.3.5); this is another fault.
            if reason == PubAckReason::TopicNameInvalid && !self.can_refuse(at, qos) {
                return Err(TOPIC_NOT_TAKEN);
            }
            self.refuse_publish(at, &publish, reason);
            return Ok(());
        }
        let Some(mut publication) = self.publication(now, slot, &mut publish) else {
            return Ok(());
        };
        self.retain_if_room(&mut publication);
        if publication.message.retain && !publication.retains && self.can_refuse(at, qos) {
            self.refuse_publish(at, &publish, PubAckReason::QuotaExceeded);
            return Ok(());
        }
        self.accept(now, at, slot, &publish, publication);
        Ok(())
    }

    fn resolve_alias(&mut self, at: usize, publish: &mut Publish) -> Result<(), Violation> {
        let Some(alias) = publish.topic_alias else {
            return Ok(());
        };
        if alias.get() > self.shared.limits.topic_alias_max {
            return Err(ALIAS_TOO_HIGH);
        }
        let Some(connection) = self.connections.get_mut(at) else {
            return Ok(());
        };
        if publish.topic.is_empty() {
            let aliases = connection.aliases.as_ref();
            let known = aliases.and_then(|aliases| aliases.topic(alias));
            publish.topic = known.cloned().ok_or(UNKNOWN_ALIAS)?;
        } else {
            let aliases = connection.aliases.get_or_insert_default();
            aliases.set(alias, &publish.topic);
        }
        Ok(())
    }

    pub(crate) fn may_publish(&self, slot: usize, topic: &str) -> Result<(), PubAckReason> {
        let session = self.sessions.get(slot);
        let session = session.ok_or(PubAckReason::NotAuthorized)?;
        self.judge_topic(&session.publisher, topic)
    }

    /// Whether `publisher` may publish to `topic` at all: a PUBLISH or a Will.
    pub(crate) fn judge_topic(
        &self,
        publisher: &Publisher,
        topic: &str,
    ) -> Result<(), PubAckReason> {
        let limits = &self.shared.limits;
        if topic.len() > limits.topic_bytes_max {
            return Err(PubAckReason::TopicNameInvalid);
        }
        let limit = limits.topic_levels_max;
        if topic.len() >= limit && topic.bytes().filter(|byte| *byte == b'/').count() >= limit {
            return Err(PubAckReason::TopicNameInvalid);
        }
        // The Server SHOULD prevent Clients from exchanging messages by these (4.7.2); the second is no
        // filter's, `$share/` has another meaning there.
        if is_system(topic) || topic.starts_with("$share/") {
            return Err(PubAckReason::NotAuthorized);
        }
        match self.shared.policy.publish(publisher, topic) {
            Verdict::Allow => Ok(()),
            Verdict::Deny | Verdict::BadCredentials => Err(PubAckReason::NotAuthorized),
        }
    }

    /// Without room for it a message is published and not retained, unless its publisher can be
    /// told: closing the connection would make the Client send it again for as long as others fill
    /// the store.
    fn retain_if_room(&mut self, publication: &mut Publication) {
        let message = &publication.message;
        if publication.retains && !self.shared.retained.has_room(message) {
            publication.retains = false;
            self.counts.not_retained += 1;
        }
    }

    /// Whether the protocol has a negative answer to a PUBLISH of this QoS.
    fn can_refuse(&self, at: usize, qos: QoS) -> bool {
        let connection = self.connections.get(at);
        qos > QoS::AtMostOnce && connection.is_some_and(Connection::is_v5)
    }

    /// Nothing is routed. Before MQTT 5.0 there is no negative answer: it is acknowledged all the
    /// same, as 3.3.5 of MQTT 3.1.1 allows.
    fn refuse_publish(&mut self, at: usize, publish: &Publish, reason: PubAckReason) {
        self.counts.refused += 1;
        let Some(connection) = self.connections.get_mut(at) else {
            return;
        };
        let Some(id) = publish.packet_id() else {
            return;
        };
        let reason = if connection.is_v5() {
            reason
        } else {
            PubAckReason::Success
        };
        connection.acknowledge(publish.qos(), id, Some(reason));
        self.touch(at);
    }

    /// Takes the message out of its packet and finds who wants it.
    fn publication(&mut self, now: Now, slot: usize, publish: &mut Publish) -> Option<Publication> {
        let session = self.sessions.get(slot)?;
        let properties = publish.properties.take();
        let mut message = Message {
            topic: std::mem::take(&mut publish.topic),
            payload: std::mem::take(&mut publish.payload),
            qos: publish.qos(),
            retain: publish.retain,
            properties,
            publisher: session.publisher.clone(),
            at_ms: 0,
            expires_at: None,
            stored: None,
            from_log: false,
        };
        message.arrive(now);
        let number = session.number();
        Some(self.find_subscribers(message, Some(number)))
    }

    /// `number` is the publisher's Session, whose No Local subscriptions do not count.
    #[inline] // Else each Publication is moved once more.
    pub(crate) fn find_subscribers(
        &mut self,
        message: Message,
        number: Option<u64>,
    ) -> Publication {
        let mut matched = self.matches.find(&self.shared.tree, &message.topic).clone();
        if matched.no_local
            && let Some(number) = number
        {
            matched = self
                .matches
                .find_for(&self.shared.tree, &message.topic, number);
        }
        let routed = !message.from_log && self.shared.routes.takes(&message);
        Publication {
            retains: message.retain,
            message,
            matched,
            publisher: number,
            routed,
        }
    }

    /// Delivers and acknowledges at once what nothing durable depends on; commits the rest.
    fn accept(
        &mut self,
        now: Now,
        at: usize,
        slot: usize,
        publish: &Publish,
        publication: Publication,
    ) {
        let qos = publish.qos();
        let Some(connection) = self.connections.get_mut(at) else {
            return;
        };
        let Some(session) = self.sessions.get_mut(slot) else {
            return;
        };
        let remembers = qos == QoS::ExactlyOnce && session.is_persistent();
        let reason = if publication.is_unwanted() {
            self.counts.unwanted += 1;
            PubAckReason::NoMatchingSubscribers // Only MQTT 5.0 shows it.
        } else {
            PubAckReason::Success
        };
        if !remembers && !publication.is_durable() && connection.pending == 0 {
            if let Some(id) = publish.packet_id() {
                if qos == QoS::ExactlyOnce {
                    session.inbound.insert(id.value(), true);
                }
                connection.acknowledge(qos, id, Some(reason));
                self.touch(at);
            }
            self.deliver_now(now, &publication.matched, publication.message);
            return;
        }
        let mut draft = Draft::default();
        let mut then = Then::Counted;
        if let Some(id) = publish.packet_id() {
            if !connection.is_v5() {
                draft.lane = Some(connection.lane.get_or_insert_default().clone());
            }
            connection.acknowledge(qos, id, None);
            if qos == QoS::ExactlyOnce {
                session.inbound.insert(id.value(), false);
                if remembers && !self.forgets_packet_ids {
                    draft.changes.push(rows::inbound(session.number(), id));
                }
            }
            then = Then::Acknowledge { qos, id, reason };
        }
        self.commit_publication(publication, draft, Some(at), Some(slot), then);
        self.burn();
    }

    /// The commit of a message, with whatever else shall happen in it.
    fn commit_publication(
        &mut self,
        publication: Publication,
        mut draft: Draft,
        at: Option<usize>,
        slot: Option<usize>,
        then: Then,
    ) {
        let Publication {
            message,
            matched,
            publisher,
            routed,
            retains,
        } = publication;
        if retains {
            draft.changes.push(rows::retained(&message));
        }
        let weight = u32::try_from(message.weight()).unwrap_or(u32::MAX);
        let owed = matched.owed(message.qos, message.retain).map(|mut entry| {
            entry.weight = weight;
            entry.encode()
        });
        let draft = Draft {
            retain: retains,
            message: Some(message.detach()),
            routed,
            owed,
            targets: Targets::new(matched, publisher),
            ..draft
        };
        self.submit(draft, at, slot, then);
    }

    /// Publishes for somebody who is no connection: a Will, an injected message. `draft` is what
    /// is committed with it.
    pub(crate) fn publish_other(
        &mut self,
        message: Message,
        draft: Draft,
        at: Option<usize>,
        slot: Option<usize>,
        then: Then,
    ) {
        let mut publication = self.find_subscribers(message, None);
        self.retain_if_room(&mut publication);
        self.commit_publication(publication, draft, at, slot, then);
    }

    /// To this shard's Sessions directly, to the others' with this round.
    pub(crate) fn deliver_now(&mut self, now: Now, matched: &Matched, message: Message) {
        let mut shared: Option<Arc<Message>> = None;
        for (shard, targets) in &matched.groups {
            if *shard == self.index {
                self.deliver_all(now, &message, &mut shared, targets);
            } else if targets.iter().all(|one| one.drops(message.qos)) {
                self.counts.dropped_qos0 += targets.len() as u64;
            } else {
                let message = shared
                    .get_or_insert_with(|| message.clone().detach())
                    .clone();
                if let Some(batch) = self.forwards.get_mut(*shard) {
                    batch.push(Forwarded {
                        message,
                        targets: targets.clone(),
                    });
                }
            }
        }
    }

    /// PUBREL (MQTT 5.0, 3.6): the Client lets go of a QoS 2 message.
    pub(crate) fn release_in(&mut self, at: usize, release: &PubRel) {
        let id = release.packet_id;
        let Some(connection) = self.connections.get_mut(at) else {
            return;
        };
        let Some(slot) = connection.session else {
            return;
        };
        let Some(session) = self.sessions.get_mut(slot) else {
            return;
        };
        let taken = session.inbound.get(&id.value()).copied();
        if taken == Some(false) {
            // Its PUBLISH or an earlier PUBREL is being committed: the answer follows that.
            return;
        }
        let known = taken == Some(true);
        if known && session.is_persistent() {
            // PUBCOMP promises that the identifier is free also after a crash.
            let number = session.number();
            session.inbound.insert(id.value(), false);
            let draft = Draft::rows(vec![rows::inbound_gone(number, id.value())]);
            self.submit(draft, Some(at), Some(slot), Then::Complete { id });
            return;
        }
        if known {
            session.inbound.remove(&id.value());
        }
        self.complete(at, id, known);
    }

    pub(crate) fn complete(&mut self, at: usize, packet_id: PacketId, known: bool) {
        let Some(connection) = self.connections.get_mut(at) else {
            return;
        };
        if known {
            connection.taken = connection.taken.saturating_sub(1);
        }
        if connection.stage == Stage::Live {
            let reason = if known || !connection.is_v5() {
                PubCompReason::Success
            } else {
                PubCompReason::PacketIdentifierNotFound
            };
            connection.send(&Packet::PubComp(PubComp {
                packet_id,
                reason,
                properties: None,
            }));
            self.touch(at);
        }
    }
}
