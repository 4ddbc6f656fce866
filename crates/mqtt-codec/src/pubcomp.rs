//! PUBCOMP: the receiver lets go of the Packet Identifier (MQTT 5.0, 3.7).

use bytes::Bytes;

use crate::ack::{Ack, AckProperties, put_ack};
use crate::error::DecodeError;
use crate::packet::{PacketId, PacketType, Version};
use crate::reason::reason_codes;
use crate::wire::{Body, Writer};

/// PUBCOMP (MQTT 5.0, 3.7). Reason and properties are left out in 3.1 and 3.1.1.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PubComp {
    pub packet_id: PacketId,
    pub reason: PubCompReason,
    pub properties: Option<Box<AckProperties>>,
}

impl PubComp {
    pub fn new(packet_id: PacketId, reason: PubCompReason) -> Self {
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
        } = Ack::decode(body, version, PacketType::PubComp)?;
        Ok(Self {
            packet_id,
            reason,
            properties,
        })
    }
}

impl Body for PubComp {
    fn first_byte(&self) -> u8 {
        0x70
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
    /// PUBCOMP Reason Codes (MQTT 5.0, table 3-7).
    PubCompReason of PubComp {
        Success = 0x00,
        PacketIdentifierNotFound = 0x92,
    }
}
