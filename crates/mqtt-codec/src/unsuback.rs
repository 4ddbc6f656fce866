//! UNSUBACK: what became of each Topic Filter of an UNSUBSCRIBE (MQTT 5.0, 3.11).

use crate::ack::AckProperties;
use crate::packet::PacketId;
use crate::reason::reason_codes;

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
