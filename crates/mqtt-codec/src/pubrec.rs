//! PUBREC: the receiver takes over a QoS 2 message (MQTT 5.0, 3.5).

use bytes::Bytes;

use crate::ack::{Ack, AckProperties, put_ack};
use crate::error::DecodeError;
use crate::packet::{PacketId, PacketType, Version};
use crate::reason::reason_codes;
use crate::wire::{Body, Writer};

/// PUBREC (MQTT 5.0, 3.5). Reason and properties are left out in 3.1 and 3.1.1.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PubRec {
    pub packet_id: PacketId,
    pub reason: PubRecReason,
    pub properties: Option<Box<AckProperties>>,
}

impl PubRec {
    pub fn new(packet_id: PacketId, reason: PubRecReason) -> Self {
        Self {
            packet_id,
            reason,
            properties: None,
        }
    }

    pub(crate) fn decode(body: &mut Bytes, version: Version) -> Result<Self, DecodeError> {
        let Ack {
            packet_id,
            reason,
            properties,
        } = Ack::decode(body, version, PacketType::PubRec)?;
        Ok(Self {
            packet_id,
            reason,
            properties,
        })
    }
}

impl Body for PubRec {
    fn first_byte(&self) -> u8 {
        0x50
    }

    fn write<W: Writer>(&self, version: Version, out: &mut W) {
        put_ack(
            self.packet_id,
            self.reason.code(),
            self.properties.as_deref(),
            version,
            out,
        );
    }
}

reason_codes! {
    /// PUBREC Reason Codes (MQTT 5.0, table 3-5).
    PubRecReason of PubRec {
        Success = 0x00,
        NoMatchingSubscribers = 0x10,
        UnspecifiedError = 0x80,
        ImplementationSpecificError = 0x83,
        NotAuthorized = 0x87,
        TopicNameInvalid = 0x90,
        PacketIdentifierInUse = 0x91,
        QuotaExceeded = 0x97,
        PayloadFormatInvalid = 0x99,
    }
}
