//! CONNACK: the Server's answer to CONNECT (MQTT 5.0, 3.2).

use std::num::{NonZeroU16, NonZeroU32};

use crate::packet::QoS;
use crate::property::{Authentication, UserProperties};
use crate::reason::reason_codes;
use crate::text::Text;

/// CONNACK (MQTT 5.0, 3.2).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConnAck {
    /// Not in MQTT 3.1.
    pub session_present: bool,
    /// In 3.1 and 3.1.1 one of six return codes: see [`ConnAckReason::return_code_v3`].
    pub reason: ConnAckReason,
    /// Not in 3.1 and 3.1.1: left out there.
    pub properties: ConnAckProperties,
}

/// The properties of CONNACK (MQTT 5.0, 3.2.2.3); what is absent has its default.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConnAckProperties {
    /// In seconds; `None`: as the Client asked.
    pub session_expiry_interval: Option<u32>,
    /// Default 65,535.
    pub receive_maximum: NonZeroU16,
    /// Default `ExactlyOnce`.
    pub maximum_qos: QoS,
    /// Default true.
    pub retain_available: bool,
    /// In bytes, the fixed header counted; `None` means no limit.
    pub maximum_packet_size: Option<NonZeroU32>,
    pub assigned_client_identifier: Option<Text>,
    /// Default 0: no aliases.
    pub topic_alias_maximum: u16,
    pub reason_string: Option<Text>,
    pub user_properties: UserProperties,
    /// Default true.
    pub wildcard_subscription_available: bool,
    /// Default true.
    pub subscription_identifiers_available: bool,
    /// Default true.
    pub shared_subscription_available: bool,
    /// In seconds; `None`: as the Client asked [MQTT-3.2.2-22].
    pub server_keep_alive: Option<u16>,
    pub response_information: Option<Text>,
    pub server_reference: Option<Text>,
    pub authentication: Option<Authentication>,
}

impl Default for ConnAckProperties {
    fn default() -> Self {
        Self {
            session_expiry_interval: None,
            receive_maximum: NonZeroU16::MAX,
            maximum_qos: QoS::ExactlyOnce,
            retain_available: true,
            maximum_packet_size: None,
            assigned_client_identifier: None,
            topic_alias_maximum: 0,
            reason_string: None,
            user_properties: UserProperties::default(),
            wildcard_subscription_available: true,
            subscription_identifiers_available: true,
            shared_subscription_available: true,
            server_keep_alive: None,
            response_information: None,
            server_reference: None,
            authentication: None,
        }
    }
}

reason_codes! {
    /// Connect Reason Codes (MQTT 5.0, table 3-1).
    ConnAckReason of ConnAck {
        Success = 0x00,
        UnspecifiedError = 0x80,
        MalformedPacket = 0x81,
        ProtocolError = 0x82,
        ImplementationSpecificError = 0x83,
        UnsupportedProtocolVersion = 0x84,
        ClientIdentifierNotValid = 0x85,
        BadUserNameOrPassword = 0x86,
        NotAuthorized = 0x87,
        ServerUnavailable = 0x88,
        ServerBusy = 0x89,
        Banned = 0x8a,
        BadAuthenticationMethod = 0x8c,
        TopicNameInvalid = 0x90,
        PacketTooLarge = 0x95,
        QuotaExceeded = 0x97,
        PayloadFormatInvalid = 0x99,
        RetainNotSupported = 0x9a,
        QoSNotSupported = 0x9b,
        UseAnotherServer = 0x9c,
        ServerMoved = 0x9d,
        ConnectionRateExceeded = 0x9f,
    }
}

impl ConnAckReason {
    /// The nearest return code of MQTT 3.1 and 3.1.1 (3.1.1, table 3.1), 0 to 5.
    pub const fn return_code_v3(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::UnsupportedProtocolVersion => 1,
            Self::ClientIdentifierNotValid => 2,
            Self::UnspecifiedError
            | Self::MalformedPacket
            | Self::ProtocolError
            | Self::ImplementationSpecificError
            | Self::ServerUnavailable
            | Self::ServerBusy
            | Self::PacketTooLarge
            | Self::QuotaExceeded
            | Self::PayloadFormatInvalid
            | Self::RetainNotSupported
            | Self::QoSNotSupported
            | Self::UseAnotherServer
            | Self::ServerMoved
            | Self::ConnectionRateExceeded => 3,
            Self::BadUserNameOrPassword => 4,
            Self::NotAuthorized
            | Self::Banned
            | Self::BadAuthenticationMethod
            | Self::TopicNameInvalid => 5,
        }
    }
}
