//! PUBCOMP: the receiver lets go of the Packet Identifier (MQTT 5.0, 3.7).

use crate::ack::AckProperties;
use crate::packet::PacketId;
use crate::reason::reason_codes;

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
}

reason_codes! {
    /// PUBCOMP Reason Codes (MQTT 5.0, table 3-7).
    PubCompReason of PubComp {
        Success = 0x00,
        PacketIdentifierNotFound = 0x92,
    }
}
