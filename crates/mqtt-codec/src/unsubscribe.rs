//! UNSUBSCRIBE: a Client gives up Topic Filters (MQTT 5.0, 3.10).

use crate::packet::PacketId;
use crate::property::UserProperties;
use crate::text::Text;

/// UNSUBSCRIBE (MQTT 5.0, 3.10).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Unsubscribe {
    pub packet_id: PacketId,
    pub user_properties: UserProperties,
    /// At least one [MQTT-3.10.3-2].
    pub filters: Vec<Text>,
}
