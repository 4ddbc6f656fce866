//! PUBREL: the sender lets go of a QoS 2 message (MQTT 5.0, 3.6).

use crate::ack::AckProperties;
use crate::packet::PacketId;
use crate::reason::reason_codes;

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
}

reason_codes! {
    /// PUBREL Reason Codes (MQTT 5.0, table 3-6).
    PubRelReason of PubRel {
        Success = 0x00,
        PacketIdentifierNotFound = 0x92,
    }
}
