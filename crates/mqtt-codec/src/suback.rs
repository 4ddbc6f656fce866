//! SUBACK: what became of each Topic Filter of a SUBSCRIBE (MQTT 5.0, 3.9).

use bytes::{Buf, Bytes};

use crate::ack::{AckProperties, put_ack_properties};
use crate::error::{DecodeError, EncodeError};
use crate::packet::{PacketId, PacketType, QoS, Version};
use crate::reason::reason_codes;
use crate::wire::{self, Body, Writer};

/// SUBACK (MQTT 5.0, 3.9).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SubAck {
    pub packet_id: PacketId,
    pub properties: Option<Box<AckProperties>>,
    /// One for each filter, in the SUBSCRIBE's order [MQTT-3.9.3-1]. In 3.1 and 3.1.1 every error is 0x80.
    pub reasons: Vec<SubAckReason>,
}

reason_codes! {
    /// Subscribe Reason Codes (MQTT 5.0, table 3-8).
    SubAckReason of SubAck {
        GrantedAtMostOnce = 0x00,
        GrantedAtLeastOnce = 0x01,
        GrantedExactlyOnce = 0x02,
        UnspecifiedError = 0x80,
        ImplementationSpecificError = 0x83,
        NotAuthorized = 0x87,
        TopicFilterInvalid = 0x8f,
        PacketIdentifierInUse = 0x91,
        QuotaExceeded = 0x97,
        SharedSubscriptionsNotSupported = 0x9e,
        SubscriptionIdentifiersNotSupported = 0xa1,
        WildcardSubscriptionsNotSupported = 0xa2,
    }
}

impl SubAckReason {
    pub const fn granted(qos: QoS) -> Self {
        match qos {
            QoS::AtMostOnce => Self::GrantedAtMostOnce,
            QoS::AtLeastOnce => Self::GrantedAtLeastOnce,
            QoS::ExactlyOnce => Self::GrantedExactlyOnce,
        }
    }
}

impl SubAck {
    pub(crate) fn decode(body: &mut Bytes, version: Version) -> Result<Self, DecodeError> {
        let packet_id = wire::packet_id(body)?;
        let properties = match version {
            Version::V5 => AckProperties::decode(body, PacketType::SubAck)?,
            Version::V31 | Version::V311 => None,
        };
        if body.is_empty() {
            return Err(DecodeError::EmptyPayload {
                packet: PacketType::SubAck,
            });
        }
        let reasons: Result<_, _> = body
            .iter()
            .map(|code| SubAckReason::decode(*code, version))
            .collect();
        body.advance(body.len());
        Ok(Self {
            packet_id,
            properties,
            reasons: reasons?,
        })
    }
}

impl Body for SubAck {
    fn first_byte(&self) -> u8 {
        0x90
    }

    fn check(&self, _: Version) -> Result<(), EncodeError> {
        if self.reasons.is_empty() {
            return Err(EncodeError::EmptyPayload {
                packet: PacketType::SubAck,
            });
        }
        Ok(())
    }

    fn write<W: Writer>(&self, version: Version, out: &mut W) {
        out.put_u16(self.packet_id.value());
        if version == Version::V5 {
            put_ack_properties(self.properties.as_deref(), out);
        }
        for reason in &self.reasons {
            // MQTT 3.1.1 has one code for failure. MQTT 3.1 has none; its Clients know this one.
            let failed_v3 = version < Version::V5 && reason.is_error();
            out.put_u8(if failed_v3 { 0x80 } else { reason.code() });
        }
    }
}

impl SubAckReason {
    fn decode(code: u8, version: Version) -> Result<Self, DecodeError> {
        match Self::try_from(code)? {
            // MQTT 3.1.1, [MQTT-3.9.3-2]
            reason if version < Version::V5 && reason.is_error() && code != 0x80 => {
                Err(DecodeError::ReasonCode {
                    packet: PacketType::SubAck,
                    code,
                })
            }
            reason => Ok(reason),
        }
    }
}
