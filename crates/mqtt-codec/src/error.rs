//! Why bytes are not an MQTT packet, and what is answered.
//!
//! For: [`DecodeError`] and its Reason Codes; [`EncodeError`]. Not for: refusals by policy or limit
//! of a broker. Called by: every packet.
//! Holds: each error has exactly one Reason Code (MQTT 5.0, 4.13), and no `_` arm hides a new one.

use crate::packet::{PacketType, Version};
use crate::property::PropertyId;
use crate::text::FieldError;
use crate::{ConnAckReason, DisconnectReason};

/// Why bytes from the peer are not a valid MQTT packet.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum DecodeError {
    #[error("first packet is no CONNECT, it begins with 0x{first_byte:02x}")] // [MQTT-3.1.0-1]
    NotConnect { first_byte: u8 },
    #[error("{packet} may not be sent by this side or at this time")] // [MQTT-3.1.0-2]
    UnexpectedPacket { packet: PacketType },
    #[error("first byte 0x{first_byte:02x} has a reserved packet type")]
    ReservedPacketType { first_byte: u8 },
    #[error("{packet} with fixed header flags 0b{flags:04b}")] // [MQTT-2.1.3-1]
    FixedHeaderFlags { packet: PacketType, flags: u8 },
    #[error("packet of {bytes} bytes, the most is {bytes_max}")]
    PacketTooLarge { bytes: u32, bytes_max: u32 },
    #[error("{field} is longer than four bytes")] // 1.5.5
    IntegerTooLong { field: &'static str },
    #[error("{field} does not use the fewest bytes")] // [MQTT-1.5.5-1]
    IntegerNotMinimal { field: &'static str },

    #[error("{field} needs {need} bytes, {have} left")]
    Truncated {
        field: &'static str,
        need: usize,
        have: usize,
    },
    #[error("{bytes} bytes left over after {packet}")]
    LeftOver { packet: PacketType, bytes: usize },
    #[error("{field} is no valid string")]
    Field {
        field: &'static str,
        source: FieldError,
    },

    #[error("protocol name is neither MQTT nor MQIsdp")] // [MQTT-3.1.2-1]
    ProtocolName,
    #[error("protocol level 0x{level:02x} is not supported")] // [MQTT-3.1.2-2]
    ProtocolLevel { level: u8 },
    #[error("CONNECT flags 0b{flags:08b} contradict themselves")] // [MQTT-3.1.2-3], -11, -13
    ConnectFlags { flags: u8 },
    #[error("CONNACK flags 0b{flags:08b} use reserved bits")] // [MQTT-3.2.2-1]
    ConnAckFlags { flags: u8 },

    #[error("packet identifier is zero")] // [MQTT-2.2.1-3]
    ZeroPacketId,
    #[error("QoS bits are both set")] // [MQTT-3.3.1-4]
    QoS,
    #[error("DUP is set at QoS 0")] // [MQTT-3.3.1-2]
    DupAtMostOnce,
    #[error("topic name is not valid")] // [MQTT-3.3.2-2], [MQTT-4.7.3-1]
    TopicName,
    #[error("topic name is empty and there is no topic alias")] // 3.3.2.1
    NoTopic,
    #[error("topic filter is not valid")] // [MQTT-4.7.1-1], [MQTT-4.7.1-2], [MQTT-4.8.2-1]
    TopicFilter,
    #[error("response topic is not valid")] // [MQTT-3.3.2-14]
    ResponseTopic,
    #[error("topic alias is zero")] // [MQTT-3.3.2-8]
    ZeroTopicAlias,
    #[error("subscription options 0b{options:08b} use reserved bits")] // [MQTT-3.8.3-5]
    SubscriptionReserved { options: u8 },
    #[error("subscription options 0b{options:08b} ask for QoS 3 or retain handling 3")] // 3.8.3.1
    SubscriptionOptions { options: u8 },
    #[error("no local on a shared subscription")] // [MQTT-3.8.3-4]
    NoLocalShared,
    #[error("{packet} with an empty payload")] // [MQTT-3.8.3-2], [MQTT-3.10.3-2]
    EmptyPayload { packet: PacketType },
    #[error("{packet} with reason code 0x{code:02x}")]
    ReasonCode { packet: PacketType, code: u8 },

    #[error("property identifier 0x{id:x} is not known")] // 2.2.2.2
    UnknownProperty { id: u32 },
    #[error("{property} is not a property of {packet}")] // 2.2.2.2
    PropertyNotAllowed {
        packet: PacketType,
        property: PropertyId,
    },
    #[error("{property} is not a property of the Will")] // 3.1.3.2
    WillPropertyNotAllowed { property: PropertyId },
    #[error("{property} more than once")]
    DuplicateProperty { property: PropertyId },
    #[error("{property} has the value {value}")]
    PropertyValue { property: PropertyId, value: u32 },
    #[error("{packet} may not carry {property} in this direction")]
    // [MQTT-3.3.4-6], [MQTT-3.14.2-2]
    PropertyDirection {
        packet: PacketType,
        property: PropertyId,
    },
    #[error("authentication data without an authentication method")] // 3.1.2.11.10
    NoAuthenticationMethod,
}

impl DecodeError {
    /// The v5 Reason Code for the CONNACK or DISCONNECT that answers it (MQTT 5.0, 4.13).
    pub fn reason_code(&self) -> u8 {
        const MALFORMED: u8 = 0x81;
        const PROTOCOL: u8 = 0x82;
        match self {
            Self::ReservedPacketType { .. }
            | Self::FixedHeaderFlags { .. }
            | Self::IntegerTooLong { .. }
            | Self::IntegerNotMinimal { .. }
            | Self::Truncated { .. }
            | Self::LeftOver { .. }
            | Self::Field { .. }
            | Self::ConnectFlags { .. }
            | Self::ConnAckFlags { .. }
            | Self::QoS
            | Self::DupAtMostOnce
            | Self::SubscriptionReserved { .. }
            | Self::ReasonCode { .. }
            | Self::UnknownProperty { .. }
            | Self::PropertyNotAllowed { .. }
            | Self::WillPropertyNotAllowed { .. } => MALFORMED,
            Self::NotConnect { .. }
            | Self::UnexpectedPacket { .. }
            | Self::ZeroPacketId
            | Self::NoTopic
            | Self::ResponseTopic
            | Self::SubscriptionOptions { .. }
            | Self::NoLocalShared
            | Self::EmptyPayload { .. }
            | Self::DuplicateProperty { .. }
            | Self::PropertyValue { .. }
            | Self::PropertyDirection { .. }
            | Self::NoAuthenticationMethod => PROTOCOL,
            Self::ProtocolName | Self::ProtocolLevel { .. } => 0x84,
            Self::TopicFilter => 0x8f,
            Self::TopicName => 0x90,
            Self::ZeroTopicAlias => 0x94,
            Self::PacketTooLarge { .. } => 0x95,
        }
    }

    /// The same for a CONNACK. Has no 0x8F and 0x94, but no CONNECT can earn those.
    pub fn connack_reason(&self) -> ConnAckReason {
        ConnAckReason::try_from(self.reason_code()).unwrap_or(ConnAckReason::MalformedPacket)
    }

    /// The same for a DISCONNECT. Has no 0x84, but only a CONNECT can earn that.
    pub fn disconnect_reason(&self) -> DisconnectReason {
        DisconnectReason::try_from(self.reason_code()).unwrap_or(DisconnectReason::ProtocolError)
    }

    /// The return code of a 3.1 or 3.1.1 CONNACK that answers it; `None` means close without one.
    pub fn connack_code_v3(&self) -> Option<u8> {
        // MQTT 3.1.1, 3.1.2.2: unacceptable protocol level. A wrong name is not MQTT at all.
        matches!(self, Self::ProtocolLevel { .. }).then_some(1)
    }
}

/// Why a packet cannot be written. Nothing has been appended then.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum EncodeError {
    #[error("remaining length of {bytes}, the most is 268435455")] // 2.1.4
    TooLarge { bytes: usize },
    #[error("{packet} does not exist in {version}")]
    NotInVersion {
        packet: PacketType,
        version: Version,
    },
    #[error("{packet} with an empty payload")] // [MQTT-3.8.3-2], [MQTT-3.10.3-2]
    EmptyPayload { packet: PacketType },
    #[error("password without a user name in {version}")] // MQTT 3.1.1, [MQTT-3.1.2-22]
    PasswordAlone { version: Version },
}
