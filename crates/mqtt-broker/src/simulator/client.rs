//! A Client that keeps the protocol, remembers what it was promised, and survives crashes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use std::num::NonZeroU32;

use bytes::{Bytes, BytesMut};
use headwater_mqtt_codec::{
    ConnAckReason, Connect, ConnectProperties, Decoder, Delivery, Disconnect, DisconnectReason,
    Packet, PacketId, PubAck, PubAckReason, PubComp, PubCompReason, PubRec, PubRecReason, PubRel,
    PubRelReason, Publish, QoS, Subscribe, Subscription, SubscriptionOptions, Unsubscribe, Version,
    Will,
};

use crate::ConnectionId;

/// One message of one publisher: its payload is this, written out.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Mark {
    pub(crate) publisher: usize,
    pub(crate) sequence: u64,
}

/// Longest packet that some Clients take: long messages are longer.
pub(crate) const SHORT_BYTES_MAX: NonZeroU32 = NonZeroU32::new(40).unwrap();

/// Shortest payload of those.
pub(crate) const LONG_BYTES_MIN: usize = 50;

impl Mark {
    pub(crate) fn payload(self) -> Vec<u8> {
        let width = if self.is_long() { LONG_BYTES_MIN } else { 0 };
        format!("{} {:<width$}", self.publisher, self.sequence).into_bytes()
    }

    /// Its packets are longer than `SHORT_BYTES_MAX`.
    pub(crate) fn is_long(self) -> bool {
        self.sequence.is_multiple_of(6)
    }

    pub(crate) fn read(payload: &[u8]) -> Option<Self> {
        let payload = std::str::from_utf8(payload).ok()?.trim_end();
        let (publisher, sequence) = payload.split_once(' ')?;
        Some(Self {
            publisher: publisher.parse().ok()?,
            sequence: sequence.parse().ok()?,
        })
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    pub(crate) mark: Mark,
    pub(crate) topic: String,
    pub(crate) qos: QoS,
    retain: bool,
    /// PUBREC came: only PUBREL is to be sent.
    pub(crate) released: bool,
}

/// One PUBLISH from the broker.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) mark: Mark,
    pub(crate) topic: String,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) dup: bool,
    /// It has this QoS 2 message already, and does not pass it on [MQTT-4.3.3-10].
    pub(crate) held: bool,
}

/// What happened at this client, for the judge.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Connected {
        present: bool,
    },
    Subscribed,
    Acknowledged(Mark),
    /// Sent again at QoS 1: it may be taken for another message.
    Resent(Mark),
    Received(Received),
}

pub(crate) struct Client {
    pub(crate) index: usize,
    pub(crate) version: Version,
    pub(crate) persistent: bool,
    pub(crate) filters: Vec<(String, QoS)>,
    /// Its Maximum Packet Size.
    pub(crate) packet_bytes_max: Option<NonZeroU32>,
    pub(crate) connection: Option<ConnectionId>,
    pub(crate) live: bool,
    pub(crate) subscribing: bool,
    /// The Will of this connection, until DISCONNECT takes it back.
    pub(crate) will: Option<Mark>,
    /// It has ended its session, and hears no more on this connection.
    left: bool,
    decoder: Decoder,
    /// Bytes on their way to the broker.
    pub(crate) out: Vec<u8>,
    pub(crate) unacknowledged: VecDeque<(u16, Outgoing)>,
    /// QoS 2 identifiers received and not released.
    held: BTreeSet<u16>,
    next_id: u16,
    next_sequence: BTreeMap<String, u64>,
    counter: u64,
}

impl Client {
    pub(crate) fn new(
        index: usize,
        version: Version,
        persistent: bool,
        filters: Vec<(String, QoS)>,
    ) -> Self {
        Self {
            index,
            version,
            persistent,
            filters,
            packet_bytes_max: None,
            connection: None,
            live: false,
            subscribing: false,
            will: None,
            left: false,
            decoder: Decoder::for_client(version, u32::MAX),
            out: Vec::new(),
            unacknowledged: VecDeque::new(),
            held: BTreeSet::new(),
            next_id: 0,
            next_sequence: BTreeMap::new(),
            counter: 0,
        }
    }

    /// The Shared Subscription that is all it has.
    pub(crate) fn shared(&self) -> Option<&(String, QoS)> {
        self.filters
            .first()
            .filter(|(filter, _)| filter.starts_with("$share/"))
    }

    fn write(&mut self, packet: &Packet) {
        let mut bytes = BytesMut::new();
        packet.encode(self.version, &mut bytes).unwrap();
        self.out.extend_from_slice(&bytes);
    }

    /// The connection is gone; what the session promises is kept. Returns the Will that the broker
    /// took with CONNECT and has to publish.
    pub(crate) fn lost(&mut self) -> Option<Mark> {
        let will = self.will.take().filter(|_| self.live);
        self.connection = None;
        self.live = false;
        self.subscribing = false;
        self.left = false;
        self.out.clear();
        self.decoder = Decoder::for_client(self.version, u32::MAX);
        will
    }

    /// `will` is the mark and the topic of its Will. With `clean` the session's past is over.
    pub(crate) fn connect(
        &mut self,
        connection: ConnectionId,
        clean: bool,
        will: Option<(Mark, &str)>,
    ) {
        self.lost();
        self.connection = Some(connection);
        self.will = will.map(|(mark, _)| mark);
        if clean {
            self.unacknowledged.clear();
            self.held.clear();
        }
        let connect = Connect {
            version: self.version,
            bridge: false,
            clean_start: !self.persistent || clean,
            keep_alive: 0,
            client_id: format!("client{}", self.index).parse().unwrap(),
            will: will.map(|(mark, topic)| Will {
                qos: QoS::AtLeastOnce,
                retain: false,
                topic: topic.parse().unwrap(),
                payload: Bytes::from(mark.payload()).try_into().unwrap(),
                properties: None,
            }),
            user_name: None,
            password: None,
            properties: ConnectProperties {
                session_expiry_interval: if self.persistent && self.version == Version::V5 {
                    100_000
                } else {
                    0
                },
                maximum_packet_size: self.packet_bytes_max,
                ..ConnectProperties::default()
            },
        };
        self.write(&Packet::Connect(Box::new(connect)));
    }

    fn id(&mut self) -> PacketId {
        loop {
            self.next_id = self.next_id.checked_add(1).unwrap_or(1);
            if self
                .unacknowledged
                .iter()
                .all(|(id, _)| *id != self.next_id)
            {
                return PacketId::new(self.next_id).unwrap();
            }
        }
    }

    pub(crate) fn publish(&mut self, topic: &str, qos: QoS, retain: bool) -> Mark {
        self.counter += 1;
        let mark = Mark {
            publisher: self.index,
            sequence: self.counter,
        };
        self.next_sequence.insert(topic.to_owned(), self.counter);
        if qos == QoS::AtMostOnce {
            self.write_publish(mark, topic, Delivery::AtMostOnce, retain);
            return mark;
        }
        let packet_id = self.id();
        let outgoing = Outgoing {
            mark,
            topic: topic.to_owned(),
            qos,
            retain,
            released: false,
        };
        self.unacknowledged.push_back((packet_id.value(), outgoing));
        self.write_publish(mark, topic, delivery(qos, packet_id, false), retain);
        mark
    }

    fn write_publish(&mut self, mark: Mark, topic: &str, delivery: Delivery, retain: bool) {
        self.write(&Packet::Publish(Publish {
            delivery,
            retain,
            topic: topic.parse().unwrap(),
            topic_alias: None,
            subscription_ids: Vec::new(),
            properties: None,
            payload: mark.payload().into(),
        }));
    }

    pub(crate) fn subscribe(&mut self) {
        if self.filters.is_empty() {
            return;
        }
        self.subscribing = true;
        let subscriptions = self.filters.iter().map(|(filter, qos)| Subscription {
            filter: filter.parse().unwrap(),
            options: SubscriptionOptions {
                qos: *qos,
                ..SubscriptionOptions::default()
            },
        });
        let subscribe = Subscribe {
            packet_id: PacketId::new(60_000).unwrap(),
            subscription_id: None,
            user_properties: Default::default(),
            subscriptions: subscriptions.collect(),
        };
        self.write(&Packet::Subscribe(Box::new(subscribe)));
    }

    pub(crate) fn unsubscribe(&mut self) {
        if self.filters.is_empty() {
            return;
        }
        let filters = self
            .filters
            .iter()
            .map(|(filter, _)| filter.parse().unwrap());
        let unsubscribe = Unsubscribe {
            packet_id: PacketId::new(60_001).unwrap(),
            user_properties: Default::default(),
            filters: filters.collect(),
        };
        self.write(&Packet::Unsubscribe(Box::new(unsubscribe)));
    }

    /// Says goodbye; the session `ends` with it, if the broker can let it go.
    pub(crate) fn disconnect(&mut self, ends: bool) {
        let mut disconnect = Disconnect::new(DisconnectReason::NormalDisconnection);
        if ends {
            disconnect.session_expiry_interval = Some(0);
            self.unacknowledged.clear();
            self.held.clear();
            self.left = true;
        }
        self.write(&Packet::Disconnect(Box::new(disconnect)));
        self.live = false;
    }

    /// Reads what came, answers it, and says what happened.
    pub(crate) fn receive(&mut self, bytes: &[u8], events: &mut Vec<Event>) {
        if self.left {
            return;
        }
        let mut bytes = Bytes::copy_from_slice(bytes);
        while let Some(packet) = self.decoder.decode_read(&mut bytes).expect("sound bytes") {
            self.packet(packet, events);
        }
    }

    fn packet(&mut self, packet: Packet, events: &mut Vec<Event>) {
        match packet {
            Packet::ConnAck(ack) => {
                if ack.reason != ConnAckReason::Success {
                    return; // The broker closes; it is tried again.
                }
                events.push(Event::Connected {
                    present: ack.session_present,
                });
                self.connected(ack.session_present, events);
            }
            Packet::SubAck(ack) => {
                self.subscribing = false;
                if ack.reasons.iter().all(|reason| !reason.is_error()) {
                    events.push(Event::Subscribed);
                }
            }
            Packet::PubAck(ack) => {
                if let Some(outgoing) = self.take(ack.packet_id.value(), QoS::AtLeastOnce)
                    && !ack.reason.is_error()
                {
                    events.push(Event::Acknowledged(outgoing.mark));
                }
            }
            Packet::PubRec(ack) => {
                let id = ack.packet_id.value();
                let found = self
                    .unacknowledged
                    .iter_mut()
                    .find(|(other, _)| *other == id);
                if ack.reason.is_error() {
                    self.take(id, QoS::ExactlyOnce);
                } else if let Some((_, outgoing)) = found {
                    if !outgoing.released {
                        outgoing.released = true;
                        events.push(Event::Acknowledged(outgoing.mark));
                    }
                    self.write_release(ack.packet_id);
                }
            }
            Packet::PubComp(ack) => drop(self.take(ack.packet_id.value(), QoS::ExactlyOnce)),
            Packet::PubRel(release) => {
                self.held.remove(&release.packet_id.value());
                let (packet_id, reason) = (release.packet_id, PubCompReason::Success);
                self.write(&Packet::PubComp(PubComp {
                    packet_id,
                    reason,
                    properties: None,
                }));
            }
            Packet::Publish(publish) => self.published(&publish, events),
            Packet::Disconnect(_) | Packet::PingResp | Packet::UnsubAck(_) => {}
            other => panic!("{other:?} to a client"),
        }
    }

    fn connected(&mut self, present: bool, events: &mut Vec<Event>) {
        self.live = true;
        if !present {
            // The session's state is gone on both sides; what is not acknowledged stays unknown.
            self.unacknowledged.clear();
            self.held.clear();
            return;
        }
        for (id, outgoing) in self.unacknowledged.clone() {
            let packet_id = PacketId::new(id).unwrap();
            if outgoing.released {
                self.write_release(packet_id);
            } else {
                let delivery = delivery(outgoing.qos, packet_id, true);
                self.write_publish(outgoing.mark, &outgoing.topic, delivery, outgoing.retain);
                if outgoing.qos == QoS::AtLeastOnce {
                    events.push(Event::Resent(outgoing.mark));
                }
            }
        }
    }

    fn take(&mut self, id: u16, qos: QoS) -> Option<Outgoing> {
        let index = self
            .unacknowledged
            .iter()
            .position(|(other, outgoing)| *other == id && outgoing.qos == qos)?;
        self.unacknowledged
            .remove(index)
            .map(|(_, outgoing)| outgoing)
    }

    fn write_release(&mut self, packet_id: PacketId) {
        let reason = PubRelReason::Success;
        self.write(&Packet::PubRel(PubRel {
            packet_id,
            reason,
            properties: None,
        }));
    }

    fn published(&mut self, publish: &Publish, events: &mut Vec<Event>) {
        let mut received = Received {
            mark: Mark::read(&publish.payload).expect("a payload of ours"),
            topic: publish.topic.to_string(),
            qos: publish.qos(),
            retain: publish.retain,
            dup: false,
            held: false,
        };
        match publish.delivery {
            Delivery::AtMostOnce => {}
            Delivery::AtLeastOnce { packet_id, dup } => {
                received.dup = dup;
                self.write(&Packet::PubAck(PubAck::new(
                    packet_id,
                    PubAckReason::Success,
                )));
            }
            Delivery::ExactlyOnce { packet_id, dup } => {
                received.dup = dup;
                received.held = !self.held.insert(packet_id.value());
                self.write(&Packet::PubRec(PubRec::new(
                    packet_id,
                    PubRecReason::Success,
                )));
            }
        }
        events.push(Event::Received(received));
    }
}

fn delivery(qos: QoS, packet_id: PacketId, dup: bool) -> Delivery {
    match qos {
        QoS::AtMostOnce => Delivery::AtMostOnce,
        QoS::AtLeastOnce => Delivery::AtLeastOnce { packet_id, dup },
        QoS::ExactlyOnce => Delivery::ExactlyOnce { packet_id, dup },
    }
}
