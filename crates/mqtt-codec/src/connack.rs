//! CONNACK: the Server's answer to CONNECT (MQTT 5.0, 3.2).

use std::num::{NonZeroU16, NonZeroU32};

use bytes::Bytes;

use crate::error::DecodeError;
use crate::packet::{PacketType, QoS, Version};
use crate::property::{
    Authentication, Owner, Properties, PropertyId, PropertyReader, PropertyWriter, UserProperties,
    authentication, put_properties,
};
use crate::reason::reason_codes;
use crate::text::Text;
use crate::wire::{self, Body, Writer};

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
    /// The exact meaning of a return code of MQTT 3.1 and 3.1.1.
    fn of_return_code_v3(code: u8) -> Result<Self, DecodeError> {
        Ok(match code {
            0 => Self::Success,
            1 => Self::UnsupportedProtocolVersion,
            2 => Self::ClientIdentifierNotValid,
            3 => Self::ServerUnavailable,
            4 => Self::BadUserNameOrPassword,
            5 => Self::NotAuthorized,
            _ => {
                return Err(DecodeError::ReasonCode {
                    packet: PacketType::ConnAck,
                    code,
                });
            }
        })
    }

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

impl ConnAck {
    pub(crate) fn decode(body: &mut Bytes, version: Version) -> Result<Self, DecodeError> {
        let flags = wire::u8(body, "connect acknowledge flags")?;
        let code = wire::u8(body, "connect reason code")?;
        let (reason, properties) = match version {
            Version::V5 => (
                ConnAckReason::try_from(code)?,
                ConnAckProperties::decode(body)?,
            ),
            Version::V31 | Version::V311 => (
                ConnAckReason::of_return_code_v3(code)?,
                ConnAckProperties::default(),
            ),
        };
        // The byte is there in 3.1 and means nothing.
        let session_present = match (version, flags) {
            (Version::V31, _) | (_, 0) => false,
            (_, 1) => true,
            (_, flags) => return Err(DecodeError::ConnAckFlags { flags }), // [MQTT-3.2.2-1]
        };
        Ok(Self {
            session_present,
            reason,
            properties,
        })
    }
}

impl Body for ConnAck {
    fn first_byte(&self) -> u8 {
        0x20
    }

    fn write<W: Writer>(&self, version: Version, out: &mut W) {
        out.put_u8((self.session_present && version > Version::V31).into());
        if version == Version::V5 {
            out.put_u8(self.reason.code());
            put_properties(&self.properties, out);
        } else {
            out.put_u8(self.reason.return_code_v3());
        }
    }
}

impl ConnAckProperties {
    fn decode(body: &mut Bytes) -> Result<Self, DecodeError> {
        let mut reader = PropertyReader::open(body, Owner::Packet(PacketType::ConnAck))?;
        let mut properties = Self::default();
        let (mut method, mut data) = (None, None);
        while let Some(id) = reader.next()? {
            match id {
                PropertyId::AuthenticationMethod => method = Some(reader.text(id)?),
                PropertyId::AuthenticationData => data = Some(reader.binary(id)?),
                other => properties.set(other, &mut reader)?,
            }
        }
        properties.user_properties = reader.finish();
        properties.authentication = authentication(method, data)?;
        Ok(properties)
    }

    /// Reads the value of one property into its field.
    fn set(&mut self, id: PropertyId, reader: &mut PropertyReader) -> Result<(), DecodeError> {
        match id {
            PropertyId::SessionExpiryInterval => {
                self.session_expiry_interval = Some(reader.u32(id)?);
            }
            PropertyId::ReceiveMaximum => self.receive_maximum = reader.nonzero_u16(id)?,
            // Two is said by leaving it out (3.2.2.3.4).
            PropertyId::MaximumQoS => {
                self.maximum_qos = if reader.bool(id)? {
                    QoS::AtLeastOnce
                } else {
                    QoS::AtMostOnce
                };
            }
            PropertyId::RetainAvailable => self.retain_available = reader.bool(id)?,
            PropertyId::MaximumPacketSize => {
                self.maximum_packet_size = Some(reader.nonzero_u32(id)?);
            }
            PropertyId::AssignedClientIdentifier => {
                self.assigned_client_identifier = Some(reader.text(id)?);
            }
            PropertyId::TopicAliasMaximum => self.topic_alias_maximum = reader.u16(id)?,
            PropertyId::ReasonString => self.reason_string = Some(reader.text(id)?),
            PropertyId::WildcardSubscriptionAvailable => {
                self.wildcard_subscription_available = reader.bool(id)?;
            }
            PropertyId::SubscriptionIdentifierAvailable => {
                self.subscription_identifiers_available = reader.bool(id)?;
            }
            PropertyId::SharedSubscriptionAvailable => {
                self.shared_subscription_available = reader.bool(id)?;
            }
            PropertyId::ServerKeepAlive => self.server_keep_alive = Some(reader.u16(id)?),
            PropertyId::ResponseInformation => {
                self.response_information = Some(reader.text(id)?);
            }
            PropertyId::ServerReference => self.server_reference = Some(reader.text(id)?),
            other => return Err(reader.not_allowed(other)),
        }
        Ok(())
    }
}

impl Properties for ConnAckProperties {
    fn write<W: Writer>(&self, out: &mut PropertyWriter<'_, W>) {
        out.optional_u32(
            PropertyId::SessionExpiryInterval,
            self.session_expiry_interval,
        );
        if self.receive_maximum != NonZeroU16::MAX {
            out.u16(PropertyId::ReceiveMaximum, self.receive_maximum.get());
        }
        if self.maximum_qos != QoS::ExactlyOnce {
            out.u8(PropertyId::MaximumQoS, self.maximum_qos as u8);
        }
        out.optional_u32(
            PropertyId::MaximumPacketSize,
            self.maximum_packet_size.map(NonZeroU32::get),
        );
        out.text(
            PropertyId::AssignedClientIdentifier,
            self.assigned_client_identifier.as_ref(),
        );
        if self.topic_alias_maximum != 0 {
            out.u16(PropertyId::TopicAliasMaximum, self.topic_alias_maximum);
        }
        for (id, available) in [
            (PropertyId::RetainAvailable, self.retain_available),
            (
                PropertyId::WildcardSubscriptionAvailable,
                self.wildcard_subscription_available,
            ),
            (
                PropertyId::SubscriptionIdentifierAvailable,
                self.subscription_identifiers_available,
            ),
            (
                PropertyId::SharedSubscriptionAvailable,
                self.shared_subscription_available,
            ),
        ] {
            if !available {
                out.u8(id, false);
            }
        }
        if let Some(keep_alive) = self.server_keep_alive {
            out.u16(PropertyId::ServerKeepAlive, keep_alive);
        }
        out.text(
            PropertyId::ResponseInformation,
            self.response_information.as_ref(),
        );
        out.text(PropertyId::ServerReference, self.server_reference.as_ref());
        out.authentication(self.authentication.as_ref());
        out.text(PropertyId::ReasonString, self.reason_string.as_ref());
        out.user_properties(&self.user_properties);
    }
}
