//! SUBSCRIBE: a Client asks for the messages of Topic Filters (MQTT 5.0, 3.8).

use crate::packet::{PacketId, QoS};
use crate::property::{SubscriptionId, UserProperties};
use crate::text::Text;

/// SUBSCRIBE (MQTT 5.0, 3.8).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Subscribe {
    pub packet_id: PacketId,
    pub subscription_id: Option<SubscriptionId>,
    pub user_properties: UserProperties,
    /// At least one [MQTT-3.8.3-2].
    pub subscriptions: Vec<Subscription>,
}

/// One Topic Filter of a SUBSCRIBE with its options.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Subscription {
    /// Well formed by `topic::validate_filter`, in MQTT 5.0 also as a Shared Subscription.
    pub filter: Text,
    pub options: SubscriptionOptions,
}

/// Subscription Options (MQTT 5.0, 3.8.3.1); only the QoS is there in 3.1 and 3.1.1.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct SubscriptionOptions {
    pub qos: QoS,
    /// Not together with a Shared Subscription [MQTT-3.8.3-4].
    pub no_local: bool,
    pub retain_as_published: bool,
    pub retain_handling: RetainHandling,
}

/// When Retained Messages are sent at a SUBSCRIBE (MQTT 5.0, 3.8.3.1).
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[repr(u8)]
pub enum RetainHandling {
    #[default]
    Send = 0,
    SendIfNew = 1,
    DoNotSend = 2,
}
