//! PUBREL: the sender lets go of a QoS 2 message (MQTT 5.0, 3.6).

use bytes::Bytes;

use crate::ack::{Ack, AckProperties, put_ack};
use crate::error::DecodeError;
use crate::packet::{PacketId, PacketType, Version};
use crate::reason::reason_codes;
use crate::wire::{Body, Writer};

/// PUBREL (MQTT 5.0, 3.6). Reason and properties are left out in 3.1 and 3.1.1.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PubRel {
    pub packet_id: PacketId,
    pub reason: PubRelReason,
    pub properties: Option<Box<AckProperties>>,
}

impl PubRel {
    pub fn new(packet_id: PacketId, reason: PubRelReason) -> Self {
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
        } = Ack::decode(body, version, PacketType::PubRel)?;
        Ok(Self {
            packet_id,
            reason,
            properties,
        })
    }
}

impl Body for PubRel {
    fn first_byte(&self) -> u8 {
        0x62 // [MQTT-3.6.1-1]
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
    /// PUBREL Reason Codes (MQTT 5.0, table 3-6).
    PubRelReason of PubRel {
        Success = 0x00,
        PacketIdentifierNotFound = 0x92,
    }
}
