//! SUBACK: what became of each Topic Filter of a SUBSCRIBE (MQTT 5.0, 3.9).

use crate::ack::AckProperties;
use crate::packet::{PacketId, QoS};
use crate::reason::reason_codes;

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
