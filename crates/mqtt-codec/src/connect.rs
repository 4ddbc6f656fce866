//! CONNECT: a Client opens a connection and names its session (MQTT 5.0, 3.1).

use std::num::{NonZeroU16, NonZeroU32};

use bytes::Bytes;

use crate::error::{DecodeError, EncodeError};
use crate::packet::{PacketType, QoS, Version};
use crate::property::{
    Authentication, Owner, PayloadFormat, Properties, PropertyId, PropertyReader, PropertyWriter,
    UserProperties, authentication, put_properties,
};
use crate::text::{Binary, Text};
use crate::topic;
use crate::wire::{self, Body, Writer};

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

/// The high bit of the protocol level, by which mosquitto's bridges make themselves known.
const BRIDGE: u8 = 0x80;

impl Version {
    /// Protocol name and level (3.1: "MQIsdp" 3; 3.1.1: "MQTT" 4; 5.0: "MQTT" 5).
    const fn protocol(self) -> (&'static [u8], u8) {
        match self {
            Self::V31 => (b"MQIsdp", 3),
            Self::V311 => (b"MQTT", 4),
            Self::V5 => (b"MQTT", 5),
        }
    }

    fn of_protocol(name: &[u8], level: u8) -> Result<Self, DecodeError> {
        match (name, level) {
            (b"MQIsdp", 3) => Ok(Self::V31),
            (b"MQTT", 4) => Ok(Self::V311),
            (b"MQTT", 5) => Ok(Self::V5),
            (b"MQIsdp" | b"MQTT", level) => Err(DecodeError::ProtocolLevel { level }),
            _ => Err(DecodeError::ProtocolName), // [MQTT-3.1.2-1]
        }
    }
}

/// The CONNECT flags (MQTT 5.0, 3.1.2.3).
#[derive(Clone, Copy)]
struct Flags(u8);

impl Flags {
    const CLEAN_START: u8 = 0b0000_0010;
    const WILL: u8 = 0b0000_0100;
    const WILL_QOS_SHIFT: u8 = 3;
    const WILL_RETAIN: u8 = 0b0010_0000;
    const PASSWORD: u8 = 0b0100_0000;
    const USER_NAME: u8 = 0b1000_0000;

    fn decode(body: &mut Bytes, version: Version) -> Result<Self, DecodeError> {
        let flags = Self(wire::u8(body, "connect flags")?);
        // [MQTT-3.1.2-3]; MQTT 3.1 only says that the bit is not used (its section 3.1).
        let reserved = flags.0 & 1 != 0 && version > Version::V31;
        // [MQTT-3.1.2-11], [MQTT-3.1.2-13]
        let will_without_will = !flags.has(Self::WILL)
            && (flags.has(Self::WILL_RETAIN) || flags.0 >> Self::WILL_QOS_SHIFT & 0b11 != 0);
        // MQTT 3.1.1, [MQTT-3.1.2-22]; allowed from 5.0 on.
        let password_alone =
            version < Version::V5 && flags.has(Self::PASSWORD) && !flags.has(Self::USER_NAME);
        if reserved || will_without_will || password_alone {
            return Err(DecodeError::ConnectFlags { flags: flags.0 });
        }
        Ok(flags)
    }

    const fn has(self, flag: u8) -> bool {
        self.0 & flag != 0
    }

    fn will_qos(self) -> Result<QoS, DecodeError> {
        QoS::from_bits(self.0 >> Self::WILL_QOS_SHIFT & 0b11).ok_or(DecodeError::QoS)
    }
}

impl Connect {
    /// Says in `version` which version was asked for, even when the rest is refused.
    pub(crate) fn decode(
        body: &mut Bytes,
        version: &mut Option<Version>,
    ) -> Result<Self, DecodeError> {
        let name = wire::binary(body, "protocol name")?;
        let level = wire::u8(body, "protocol level")?;
        // MQTT 5.0 has no such bit.
        let bridge = matches!(level, 0x83 | 0x84);
        let asked = Version::of_protocol(&name, if bridge { level & !BRIDGE } else { level })?;
        *version = Some(asked);
        let flags = Flags::decode(body, asked)?;
        let keep_alive = wire::u16(body, "keep alive")?;
        let properties = match asked {
            Version::V5 => ConnectProperties::decode(body)?,
            Version::V31 | Version::V311 => ConnectProperties::default(),
        };
        // The order of [MQTT-3.1.3-1].
        let client_id = wire::text(body, "client identifier")?;
        let will = match flags.has(Flags::WILL) {
            true => Some(Will::decode(body, asked, flags)?),
            false => None,
        };
        // MQTT 3.1 lets both be missing in spite of their flags (its section 3.1, "User name and
        // password flags").
        let there =
            |body: &Bytes, flag| flags.has(flag) && !(asked == Version::V31 && body.is_empty());
        let user_name = match there(body, Flags::USER_NAME) {
            true => Some(wire::text(body, "user name")?),
            false => None,
        };
        let password = match there(body, Flags::PASSWORD) {
            true => Some(wire::binary(body, "password")?),
            false => None,
        };
        let clean_start = flags.has(Flags::CLEAN_START);
        Ok(Self {
            version: asked,
            bridge,
            clean_start,
            keep_alive,
            client_id,
            will,
            user_name,
            password,
            properties,
        })
    }

    fn flags(&self) -> u8 {
        let mut flags = 0;
        let mut set = |flag, on: bool| flags |= if on { flag } else { 0 };
        set(Flags::CLEAN_START, self.clean_start);
        set(Flags::USER_NAME, self.user_name.is_some());
        set(Flags::PASSWORD, self.password.is_some());
        if let Some(will) = &self.will {
            set(
                Flags::WILL | (will.qos as u8) << Flags::WILL_QOS_SHIFT,
                true,
            );
            set(Flags::WILL_RETAIN, will.retain);
        }
        flags
    }
}

impl Body for Connect {
    fn first_byte(&self) -> u8 {
        0x10
    }

    fn check(&self, _: Version) -> Result<(), EncodeError> {
        if self.version < Version::V5 && self.password.is_some() && self.user_name.is_none() {
            return Err(EncodeError::PasswordAlone {
                version: self.version,
            });
        }
        Ok(())
    }

    fn write<W: Writer>(&self, _: Version, out: &mut W) {
        let (name, level) = self.version.protocol();
        let bridge = self.bridge && self.version < Version::V5;
        out.put_prefixed(name);
        out.put_u8(if bridge { level | BRIDGE } else { level });
        out.put_u8(self.flags());
        out.put_u16(self.keep_alive);
        if self.version == Version::V5 {
            put_properties(&self.properties, out);
        }
        out.put_prefixed(self.client_id.as_bytes());
        if let Some(will) = &self.will {
            will.write(self.version, out);
        }
        if let Some(user_name) = &self.user_name {
            out.put_prefixed(user_name.as_bytes());
        }
        if let Some(password) = &self.password {
            out.put_prefixed(password);
        }
    }
}

impl ConnectProperties {
    fn decode(body: &mut Bytes) -> Result<Self, DecodeError> {
        let mut reader = PropertyReader::open(body, Owner::Packet(PacketType::Connect))?;
        let mut properties = Self::default();
        let (mut method, mut data) = (None, None);
        while let Some(id) = reader.next()? {
            match id {
                PropertyId::SessionExpiryInterval => {
                    properties.session_expiry_interval = reader.u32(id)?;
                }
                PropertyId::ReceiveMaximum => {
                    properties.receive_maximum = reader.nonzero_u16(id)?
                }
                PropertyId::MaximumPacketSize => {
                    properties.maximum_packet_size = Some(reader.nonzero_u32(id)?);
                }
                PropertyId::TopicAliasMaximum => properties.topic_alias_maximum = reader.u16(id)?,
                PropertyId::RequestResponseInformation => {
                    properties.request_response_information = reader.bool(id)?;
                }
                PropertyId::RequestProblemInformation => {
                    properties.request_problem_information = reader.bool(id)?;
                }
                PropertyId::AuthenticationMethod => method = Some(reader.text(id)?),
                PropertyId::AuthenticationData => data = Some(reader.binary(id)?),
                other => return Err(reader.not_allowed(other)),
            }
        }
        properties.user_properties = reader.finish();
        properties.authentication = authentication(method, data)?;
        Ok(properties)
    }
}

impl Properties for ConnectProperties {
    fn write<W: Writer>(&self, out: &mut PropertyWriter<'_, W>) {
        if self.session_expiry_interval != 0 {
            out.u32(
                PropertyId::SessionExpiryInterval,
                self.session_expiry_interval,
            );
        }
        if self.receive_maximum != NonZeroU16::MAX {
            out.u16(PropertyId::ReceiveMaximum, self.receive_maximum.get());
        }
        out.optional_u32(
            PropertyId::MaximumPacketSize,
            self.maximum_packet_size.map(NonZeroU32::get),
        );
        if self.topic_alias_maximum != 0 {
            out.u16(PropertyId::TopicAliasMaximum, self.topic_alias_maximum);
        }
        if self.request_response_information {
            out.u8(PropertyId::RequestResponseInformation, true);
        }
        if !self.request_problem_information {
            out.u8(PropertyId::RequestProblemInformation, false);
        }
        out.authentication(self.authentication.as_ref());
        out.user_properties(&self.user_properties);
    }
}

impl Will {
    fn decode(body: &mut Bytes, version: Version, flags: Flags) -> Result<Self, DecodeError> {
        let qos = flags.will_qos()?; // [MQTT-3.1.2-12]
        let properties = match version {
            Version::V5 => WillProperties::decode(body)?,
            Version::V31 | Version::V311 => None,
        };
        let topic = wire::text(body, "will topic")?;
        if !topic::validate_name(&topic) {
            return Err(DecodeError::TopicName);
        }
        let payload = wire::binary(body, "will payload")?;
        Ok(Self {
            topic,
            payload,
            qos,
            retain: flags.has(Flags::WILL_RETAIN),
            properties,
        })
    }

    fn write<W: Writer>(&self, version: Version, out: &mut W) {
        if version == Version::V5 {
            match &self.properties {
                Some(properties) => put_properties(&**properties, out),
                None => out.put_u8(0),
            }
        }
        out.put_prefixed(self.topic.as_bytes());
        out.put_prefixed(&self.payload);
    }
}

impl WillProperties {
    /// `None` when there are none.
    fn decode(body: &mut Bytes) -> Result<Option<Box<Self>>, DecodeError> {
        let mut reader = PropertyReader::open(body, Owner::Will)?;
        let mut properties = Self::default();
        while let Some(id) = reader.next()? {
            match id {
                PropertyId::WillDelayInterval => properties.delay_interval = reader.u32(id)?,
                PropertyId::PayloadFormatIndicator => {
                    properties.payload_format = Some(reader.payload_format(id)?);
                }
                PropertyId::MessageExpiryInterval => {
                    properties.message_expiry_interval = Some(reader.u32(id)?);
                }
                PropertyId::ContentType => properties.content_type = Some(reader.text(id)?),
                PropertyId::ResponseTopic => {
                    properties.response_topic = Some(reader.response_topic()?);
                }
                PropertyId::CorrelationData => {
                    properties.correlation_data = Some(reader.binary(id)?);
                }
                other => return Err(reader.not_allowed(other)),
            }
        }
        properties.user_properties = reader.finish();
        Ok((properties != Self::default()).then(|| Box::new(properties)))
    }
}

impl Properties for WillProperties {
    fn write<W: Writer>(&self, out: &mut PropertyWriter<'_, W>) {
        if self.delay_interval != 0 {
            out.u32(PropertyId::WillDelayInterval, self.delay_interval);
        }
        out.payload_format(self.payload_format);
        out.optional_u32(
            PropertyId::MessageExpiryInterval,
            self.message_expiry_interval,
        );
        out.text(PropertyId::ContentType, self.content_type.as_ref());
        out.text(PropertyId::ResponseTopic, self.response_topic.as_ref());
        out.binary(PropertyId::CorrelationData, self.correlation_data.as_ref());
        out.user_properties(&self.user_properties);
    }
}
