//! One Network Connection: what is known of it besides its Session.

use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::sync::Arc;

use bytes::Bytes;
use headwater_mqtt_codec::{
    AckProperties, Connect, Decoder, Packet, PacketId, PubAck, PubAckReason, PubRec, PubRecReason,
    QoS, Text, Version,
};

use crate::aliases::{Alias, Aliases};
use crate::pace::Paces;
use crate::session::authenticate::Enhanced;
use crate::{CommitId, ConnectionId, Lane, Limits, Output, Peer, Publisher, reasons};

/// How far a connection is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Stage {
    /// No CONNECT yet.
    Fresh,
    /// Its CONNECT named an authentication method, whose exchange is under way.
    Authenticating,
    /// Its CONNECT waits for its turn, for the Session or for its commit.
    Claiming,
    Live,
    /// It said DISCONNECT; it is closed once that is committed.
    Closing,
}

/// A PUBACK or PUBREC in its place.
#[derive(Debug)]
pub(crate) struct AckSlot {
    pub(crate) qos: QoS,
    pub(crate) id: PacketId,
    /// `None` while its commit is pending.
    pub(crate) reason: Option<PubAckReason>,
}

#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) id: ConnectionId,
    pub(crate) stage: Stage,
    pub(crate) version: Version,
    pub(crate) touched: bool,
    /// Its socket is not read: it has caused as much as it may for now.
    pub(crate) paused: bool,
    /// It may be read but for the shard, whose list of those it is on.
    pub(crate) waits_for_shard: bool,
    /// Since when its socket has taken nothing of what waits for it.
    pub(crate) blocked_since: Option<NonZeroU64>,
    /// What it may send, where that has a limit.
    pub(crate) paces: Option<Box<Paces>>,
    /// Its Output owns memory and is on the shard's list of those.
    pub(crate) warm: bool,
    pub(crate) peer: Peer,
    pub(crate) decoder: Decoder,
    /// What came behind CONNECT, before CONNACK.
    pub(crate) held: Bytes,
    pub(crate) output: Output,
    pub(crate) session: Option<usize>,
    /// When its last packet came, by [`hearing_ms`](crate::Shard::hearing_ms).
    pub(crate) heard_ms: u64,
    /// 1.5 times the Keep Alive; 0 is off.
    pub(crate) silence_ms_max: u64,
    pub(crate) timer: Option<u64>,
    /// QoS 1 and 2 PUBLISHes the Client takes at once.
    pub(crate) window: u16,
    /// Longest packet the Client takes.
    pub(crate) packet_bytes_max: u32,
    /// Topic Aliases the Client takes [MQTT-3.1.2-26].
    pub(crate) aliases_max: u16,
    /// It asked for Response Information.
    pub(crate) wants_response_information: bool,
    /// A bridge of 3.x: what it sends does not come back to it, and RETAIN is sent as published.
    pub(crate) bridge: bool,
    /// Its refusals may carry a Reason String.
    pub(crate) explains: bool,
    pub(crate) acks: VecDeque<AckSlot>,
    /// QoS 1 and 2 PUBLISHes taken on it and not acknowledged to the end; only in MQTT 5.0, which
    /// announces how many there may be (4.9).
    pub(crate) taken: u32,
    /// Commits of this connection that are not answered.
    pub(crate) pending: u32,
    /// And what they weigh.
    pub(crate) pending_bytes: usize,
    /// Of QoS 1 and 2 before MQTT 5.0: what was sent behind a refused PUBLISH is refused too, for
    /// there is no answer that would keep the Client from sending the refused one again, behind it.
    pub(crate) lane: Option<Lane>,
    pub(crate) aliases: Option<Box<Aliases>>,
    pub(crate) enhanced: Option<Box<Enhanced>>,
    pub(crate) connect: Option<Box<Connect>>,
    /// Until the Session has it.
    pub(crate) publisher: Option<Arc<Publisher>>,
    pub(crate) claim: CommitId,
    pub(crate) assigned: bool,
    /// As its CONNECT said.
    pub(crate) clean_start: bool,
}

impl Connection {
    pub(crate) fn new(id: ConnectionId, peer: Peer, limits: &Limits) -> Self {
        Self {
            id,
            stage: Stage::Fresh,
            version: Version::V5,
            touched: false,
            paused: false,
            waits_for_shard: false,
            blocked_since: None,
            paces: None,
            warm: false,
            peer,
            decoder: Decoder::new(limits.connect_bytes_max),
            held: Bytes::new(),
            output: Output::default(),
            session: None,
            heard_ms: 0,
            silence_ms_max: 0,
            timer: None,
            window: u16::MAX,
            packet_bytes_max: u32::MAX,
            aliases_max: 0,
            wants_response_information: false,
            bridge: false,
            explains: limits.reason_strings,
            acks: VecDeque::new(),
            taken: 0,
            pending: 0,
            pending_bytes: 0,
            lane: None,
            aliases: None,
            enhanced: None,
            connect: None,
            publisher: None,
            claim: CommitId::default(),
            assigned: false,
            clean_start: false,
        }
    }

    pub(crate) fn is_v5(&self) -> bool {
        self.version == Version::V5
    }

    fn fits(&self, packet: &Packet) -> bool {
        self.packet_bytes_max == u32::MAX
            || packet.encoded_len(self.version) <= self.packet_bytes_max as usize
    }

    /// Appends a packet that is no PUBLISH; `false` when it is longer than the Client takes
    /// [MQTT-3.1.2-24].
    pub(crate) fn send(&mut self, packet: &Packet) -> bool {
        if !self.fits(packet) {
            return false;
        }
        // Our own small packets are never too large to encode, and exist in this version.
        let encoded = packet.encode(self.version, self.output.tail());
        self.output.note_answer();
        debug_assert!(encoded.is_ok(), "{packet:?}");
        true
    }

    /// As `send`, with a Reason String where the Client wants one [MQTT-3.1.2-29] and it fits.
    pub(crate) fn send_explained(
        &mut self,
        why: Text,
        packet: impl Fn(Option<Text>) -> Packet,
    ) -> bool {
        if self.explains && !why.is_empty() {
            let explained = packet(Some(why));
            if self.fits(&explained) {
                return self.send(&explained);
            }
        }
        self.send(&packet(None))
    }

    /// How a PUBLISH to this Client says its topic.
    pub(crate) fn alias(&mut self, topic: &str) -> Alias {
        if self.aliases_max == 0 {
            return Alias::No; // [MQTT-3.1.2-27]
        }
        let aliases = self.aliases.get_or_insert_default();
        aliases.of(topic, self.aliases_max)
    }

    /// Answers a PUBLISH, behind those that came before it.
    pub(crate) fn acknowledge(&mut self, qos: QoS, id: PacketId, reason: Option<PubAckReason>) {
        match reason {
            Some(reason) if self.acks.is_empty() => self.send_ack(qos, id, reason),
            reason => self.acks.push_back(AckSlot { qos, id, reason }),
        }
    }

    /// The next pending answer is decided; sends all that are not behind another.
    pub(crate) fn decide(&mut self, reason: PubAckReason) {
        if let Some(slot) = self.acks.iter_mut().find(|slot| slot.reason.is_none()) {
            slot.reason = Some(reason);
        }
        while let Some(AckSlot {
            qos,
            id,
            reason: Some(reason),
        }) = self.acks.front()
        {
            let (qos, id, reason) = (*qos, *id, *reason);
            self.acks.pop_front();
            self.send_ack(qos, id, reason);
        }
        if self.acks.is_empty() && self.acks.capacity() > 64 {
            self.acks = VecDeque::new();
        }
    }

    fn send_ack(&mut self, qos: QoS, id: PacketId, reason: PubAckReason) {
        if qos == QoS::AtLeastOnce || reason.is_error() {
            self.taken = self.taken.saturating_sub(1);
        }
        let packet = |why: Option<Text>| {
            let properties = why.map(explanation);
            if qos == QoS::ExactlyOnce {
                // The same codes with the same meaning (MQTT 5.0, tables 3-4 and 3-5).
                let reason =
                    PubRecReason::try_from(reason.code()).unwrap_or(PubRecReason::UnspecifiedError);
                let packet = PubRec::new(id, reason);
                Packet::PubRec(PubRec {
                    properties,
                    ..packet
                })
            } else {
                let packet = PubAck::new(id, reason);
                Packet::PubAck(PubAck {
                    properties,
                    ..packet
                })
            }
        };
        if reason.is_error() {
            self.send_explained(Text::from_static(reasons::publish(reason)), packet);
        } else {
            self.send(&packet(None));
        }
    }
}

/// The properties of an acknowledgement that has nothing but a Reason String.
pub(crate) fn explanation(why: Text) -> Box<AckProperties> {
    Box::new(AckProperties {
        reason_string: Some(why),
        ..AckProperties::default()
    })
}
