//! UNSUBACK: what became of each Topic Filter of an UNSUBSCRIBE (MQTT 5.0, 3.11).

use bytes::{Buf, Bytes};

use crate::ack::{AckProperties, put_ack_properties};
use crate::error::{DecodeError, EncodeError};
use crate::packet::{PacketId, PacketType, Version};
use crate::reason::reason_codes;
use crate::wire::{self, Body, Writer};

/// UNSUBACK (MQTT 5.0, 3.11).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UnsubAck {
    pub packet_id: PacketId,
    pub properties: Option<Box<AckProperties>>,
    /// One for each filter, in the UNSUBSCRIBE's order [MQTT-3.11.3-1]. Left out in 3.1 and 3.1.1.
    pub reasons: Vec<UnsubAckReason>,
}

reason_codes! {
    /// UNSUBACK Reason Codes (MQTT 5.0, table 3-9).
    UnsubAckReason of UnsubAck {
        Success = 0x00,
        NoSubscriptionExisted = 0x11,
        UnspecifiedError = 0x80,
        ImplementationSpecificError = 0x83,
        NotAuthorized = 0x87,
        TopicFilterInvalid = 0x8f,
        PacketIdentifierInUse = 0x91,
    }
}

impl UnsubAck {
    pub(crate) fn decode(body: &mut Bytes, version: Version) -> Result<Self, DecodeError> {
        let packet_id = wire::packet_id(body)?;
        if version < Version::V5 {
            return Ok(Self {
                packet_id,
                properties: None,
                reasons: Vec::new(),
            });
        }
        let properties = AckProperties::decode(body, PacketType::UnsubAck)?;
        if body.is_empty() {
            return Err(DecodeError::EmptyPayload {
                packet: PacketType::UnsubAck,
            });
        }
        let reasons: Result<_, _> = body
            .iter()
            .map(|code| UnsubAckReason::try_from(*code))
            .collect();
        body.advance(body.len());
        Ok(Self {
            packet_id,
            properties,
            reasons: reasons?,
        })
    }
}

impl Body for UnsubAck {
    fn first_byte(&self) -> u8 {
        0xb0
    }

    fn check(&self, version: Version) -> Result<(), EncodeError> {
        if version == Version::V5 && self.reasons.is_empty() {
            return Err(EncodeError::EmptyPayload {
                packet: PacketType::UnsubAck,
            });
        }
        Ok(())
    }

    fn write<W: Writer>(&self, version: Version, out: &mut W) {
        out.put_u16(self.packet_id.value());
        if version == Version::V5 {
            put_ack_properties(self.properties.as_deref(), out);
            for reason in &self.reasons {
                out.put_u8(reason.code());
            }
        }
    }
}
