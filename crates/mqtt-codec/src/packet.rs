//! The packet sum type and the small values that packets share.
//!
//! For: [`Packet`], [`Version`], [`QoS`], [`PacketId`]. Not for: framing, see `decoder`.
//! Calls: each packet's own module. Called by: the crate's users.
//! Holds: one packet is one appended run of bytes, or nothing is appended.

use std::fmt;
use std::num::NonZeroU16;

use bytes::BytesMut;

use crate::wire;
use crate::{
    Auth, ConnAck, Connect, Disconnect, EncodeError, PubAck, PubComp, PubRec, PubRel, Publish,
    SubAck, Subscribe, UnsubAck, Unsubscribe,
};

/// The protocol versions, in the order of their age.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Version {
    V31,
    V311,
    V5,
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::V31 => "MQTT 3.1",
            Self::V311 => "MQTT 3.1.1",
            Self::V5 => "MQTT 5.0",
        })
    }
}

/// How often a message is delivered (MQTT 5.0, 4.3).
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
pub enum QoS {
    #[default]
    AtMostOnce = 0,
    AtLeastOnce = 1,
    ExactlyOnce = 2,
}

impl QoS {
    /// From its two bits; `None` for both set, which no packet may have [MQTT-3.3.1-4].
    pub const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }
}

/// Names an unacknowledged packet of one direction of a session. Never zero [MQTT-2.2.1-3].
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PacketId(pub NonZeroU16);

impl PacketId {
    /// `None` for zero.
    pub const fn new(id: u16) -> Option<Self> {
        match NonZeroU16::new(id) {
            Some(id) => Some(Self(id)),
            None => None,
        }
    }

    pub const fn value(self) -> u16 {
        self.0.get()
    }
}

impl fmt::Display for PacketId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// The high four bits of a packet's first byte (MQTT 5.0, 2.1.2).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[repr(u8)]
pub enum PacketType {
    Connect = 1,
    ConnAck = 2,
    Publish = 3,
    PubAck = 4,
    PubRec = 5,
    PubRel = 6,
    PubComp = 7,
    Subscribe = 8,
    SubAck = 9,
    Unsubscribe = 10,
    UnsubAck = 11,
    PingReq = 12,
    PingResp = 13,
    Disconnect = 14,
    Auth = 15,
}

impl PacketType {
    /// `None` for the reserved type 0.
    pub const fn of_first_byte(byte: u8) -> Option<Self> {
        Some(match byte >> 4 {
            1 => Self::Connect,
            2 => Self::ConnAck,
            3 => Self::Publish,
            4 => Self::PubAck,
            5 => Self::PubRec,
            6 => Self::PubRel,
            7 => Self::PubComp,
            8 => Self::Subscribe,
            9 => Self::SubAck,
            10 => Self::Unsubscribe,
            11 => Self::UnsubAck,
            12 => Self::PingReq,
            13 => Self::PingResp,
            14 => Self::Disconnect,
            15 => Self::Auth,
            _ => return None,
        })
    }
}

/// As the specification writes it: `PUBLISH`.
impl fmt::Display for PacketType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Connect => "CONNECT",
            Self::ConnAck => "CONNACK",
            Self::Publish => "PUBLISH",
            Self::PubAck => "PUBACK",
            Self::PubRec => "PUBREC",
            Self::PubRel => "PUBREL",
            Self::PubComp => "PUBCOMP",
            Self::Subscribe => "SUBSCRIBE",
            Self::SubAck => "SUBACK",
            Self::Unsubscribe => "UNSUBSCRIBE",
            Self::UnsubAck => "UNSUBACK",
            Self::PingReq => "PINGREQ",
            Self::PingResp => "PINGRESP",
            Self::Disconnect => "DISCONNECT",
            Self::Auth => "AUTH",
        })
    }
}

/// Any MQTT Control Packet. The rare and large ones are boxed, so that a PUBLISH sets the size.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Packet {
    Connect(Box<Connect>),
    ConnAck(Box<ConnAck>),
    Publish(Publish),
    PubAck(PubAck),
    PubRec(PubRec),
    PubRel(PubRel),
    PubComp(PubComp),
    Subscribe(Box<Subscribe>),
    SubAck(Box<SubAck>),
    Unsubscribe(Box<Unsubscribe>),
    UnsubAck(Box<UnsubAck>),
    PingReq,
    PingResp,
    Disconnect(Box<Disconnect>),
    Auth(Box<Auth>),
}

impl Packet {
    pub fn packet_type(&self) -> PacketType {
        match self {
            Self::Connect(_) => PacketType::Connect,
            Self::ConnAck(_) => PacketType::ConnAck,
            Self::Publish(_) => PacketType::Publish,
            Self::PubAck(_) => PacketType::PubAck,
            Self::PubRec(_) => PacketType::PubRec,
            Self::PubRel(_) => PacketType::PubRel,
            Self::PubComp(_) => PacketType::PubComp,
            Self::Subscribe(_) => PacketType::Subscribe,
            Self::SubAck(_) => PacketType::SubAck,
            Self::Unsubscribe(_) => PacketType::Unsubscribe,
            Self::UnsubAck(_) => PacketType::UnsubAck,
            Self::PingReq => PacketType::PingReq,
            Self::PingResp => PacketType::PingResp,
            Self::Disconnect(_) => PacketType::Disconnect,
            Self::Auth(_) => PacketType::Auth,
        }
    }

    /// All bytes of the packet, the fixed header counted: to hold against a peer's Maximum Packet Size.
    pub fn encoded_len(&self, version: Version) -> usize {
        match self {
            Self::Connect(packet) => wire::encoded_len(&**packet, version),
            Self::ConnAck(packet) => wire::encoded_len(&**packet, version),
            Self::Publish(packet) => packet.as_view().encoded_len(version),
            Self::PubAck(packet) => wire::encoded_len(packet, version),
            Self::PubRec(packet) => wire::encoded_len(packet, version),
            Self::PubRel(packet) => wire::encoded_len(packet, version),
            Self::PubComp(packet) => wire::encoded_len(packet, version),
            Self::Subscribe(packet) => wire::encoded_len(&**packet, version),
            Self::SubAck(packet) => wire::encoded_len(&**packet, version),
            Self::Unsubscribe(packet) => wire::encoded_len(&**packet, version),
            Self::UnsubAck(packet) => wire::encoded_len(&**packet, version),
            Self::PingReq | Self::PingResp => 2,
            Self::Disconnect(packet) => wire::encoded_len(&**packet, version),
            Self::Auth(packet) => wire::encoded_len(&**packet, version),
        }
    }

    /// Appends the packet. A CONNECT is written in its own version.
    pub fn encode(&self, version: Version, out: &mut BytesMut) -> Result<(), EncodeError> {
        match self {
            Self::Connect(packet) => wire::encode(&**packet, version, out),
            Self::ConnAck(packet) => wire::encode(&**packet, version, out),
            Self::Publish(packet) => packet.as_view().encode(version, out),
            Self::PubAck(packet) => wire::encode(packet, version, out),
            Self::PubRec(packet) => wire::encode(packet, version, out),
            Self::PubRel(packet) => wire::encode(packet, version, out),
            Self::PubComp(packet) => wire::encode(packet, version, out),
            Self::Subscribe(packet) => wire::encode(&**packet, version, out),
            Self::SubAck(packet) => wire::encode(&**packet, version, out),
            Self::Unsubscribe(packet) => wire::encode(&**packet, version, out),
            Self::UnsubAck(packet) => wire::encode(&**packet, version, out),
            Self::PingReq => wire::put_fixed_header(0xc0, 0, 2, out),
            Self::PingResp => wire::put_fixed_header(0xd0, 0, 2, out),
            Self::Disconnect(packet) => wire::encode(&**packet, version, out),
            Self::Auth(packet) => wire::encode(&**packet, version, out),
        }
    }
}
