//! CONNECT: a Client opens a connection and names its session (MQTT 5.0, 3.1).

use std::num::{NonZeroU16, NonZeroU32};

use crate::packet::{QoS, Version};
use crate::property::{Authentication, PayloadFormat, UserProperties};
use crate::text::{Binary, Text};

/// CONNECT (MQTT 5.0, 3.1). Its version is its own: `encode` writes that one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Connect {
    pub version: Version,
    /// The level came with its high bit set (0x83, 0x84): a bridge, to which its own messages must
    /// not be sent back. Not in the specification, mosquitto's way. Never set in MQTT 5.0.
    pub bridge: bool,
    /// Clean Session in 3.1 and 3.1.1.
    pub clean_start: bool,
    /// In seconds; 0 turns it off.
    pub keep_alive: u16,
    /// May be empty; the broker decides which may [MQTT-3.1.3-6]. MQTT 3.1 asks for 1 to 23 characters.
    pub client_id: Text,
    pub will: Option<Will>,
    pub user_name: Option<Text>,
    pub password: Option<Binary>,
    /// All defaults in 3.1 and 3.1.1.
    pub properties: ConnectProperties,
}

/// The properties of CONNECT (MQTT 5.0, 3.1.2.11); what is absent has its default.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConnectProperties {
    /// In seconds; 0xFFFFFFFF means never. Default 0.
    pub session_expiry_interval: u32,
    /// Default 65,535.
    pub receive_maximum: NonZeroU16,
    /// In bytes, the fixed header counted; `None` means no limit.
    pub maximum_packet_size: Option<NonZeroU32>,
    /// Default 0: no aliases.
    pub topic_alias_maximum: u16,
    /// Default false.
    pub request_response_information: bool,
    /// Default true.
    pub request_problem_information: bool,
    pub user_properties: UserProperties,
    pub authentication: Option<Authentication>,
}

impl Default for ConnectProperties {
    fn default() -> Self {
        Self {
            session_expiry_interval: 0,
            receive_maximum: NonZeroU16::MAX,
            maximum_packet_size: None,
            topic_alias_maximum: 0,
            request_response_information: false,
            request_problem_information: true,
            user_properties: UserProperties::default(),
            authentication: None,
        }
    }
}

/// The Will Message: published when the connection ends without a DISCONNECT [MQTT-3.1.2-8].
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Will {
    pub topic: Text,
    pub payload: Binary,
    pub qos: QoS,
    pub retain: bool,
    pub properties: Option<Box<WillProperties>>,
}

/// The properties of the Will (MQTT 5.0, 3.1.3.2).
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct WillProperties {
    /// In seconds. Default 0.
    pub delay_interval: u32,
    pub payload_format: Option<PayloadFormat>,
    /// In seconds.
    pub message_expiry_interval: Option<u32>,
    pub content_type: Option<Text>,
    pub response_topic: Option<Text>,
    pub correlation_data: Option<Binary>,
    pub user_properties: UserProperties,
}
