//! PUBLISH: carries a message either way (MQTT 5.0, 3.3).

use std::num::NonZeroU16;

use bytes::{Bytes, BytesMut};

use crate::decoder::Side;
use crate::error::{DecodeError, EncodeError};
use crate::packet::{PacketId, PacketType, QoS, Version};
use crate::property::{
    Owner, PayloadFormat, Properties, PropertyId, PropertyReader, PropertyWriter, SubscriptionId,
    UserProperties, properties_len,
};
use crate::text::{Binary, Text};
use crate::topic;
use crate::wire::{self, Length, Writer, put_fixed_header};

/// The QoS of a PUBLISH with what belongs to it: no Packet Identifier and no DUP at QoS 0
/// [MQTT-2.2.1-2], [MQTT-3.3.1-2], always an identifier above it [MQTT-2.2.1-3].
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Delivery {
    AtMostOnce,
    AtLeastOnce { packet_id: PacketId, dup: bool },
    ExactlyOnce { packet_id: PacketId, dup: bool },
}

impl Delivery {
    pub const fn qos(self) -> QoS {
        match self {
            Self::AtMostOnce => QoS::AtMostOnce,
            Self::AtLeastOnce { .. } => QoS::AtLeastOnce,
            Self::ExactlyOnce { .. } => QoS::ExactlyOnce,
        }
    }

    pub const fn packet_id(self) -> Option<PacketId> {
        match self {
            Self::AtMostOnce => None,
            Self::AtLeastOnce { packet_id, .. } | Self::ExactlyOnce { packet_id, .. } => {
                Some(packet_id)
            }
        }
    }

    pub const fn dup(self) -> bool {
        match self {
            Self::AtMostOnce => false,
            Self::AtLeastOnce { dup, .. } | Self::ExactlyOnce { dup, .. } => dup,
        }
    }
}

/// PUBLISH (MQTT 5.0, 3.3). Without properties, reading one allocates nothing.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Publish {
    pub delivery: Delivery,
    pub retain: bool,
    /// Without wildcards [MQTT-3.3.2-2]; empty only beside a Topic Alias.
    pub topic: Text,
    /// Never zero [MQTT-3.3.2-8]. Belongs to the connection, not to the message.
    pub topic_alias: Option<NonZeroU16>,
    /// Only from a Server [MQTT-3.3.4-6]. Belong to the delivery, not to the message.
    pub subscription_ids: Vec<SubscriptionId>,
    /// The properties a Server sends on unaltered, but for the expiry.
    pub properties: Option<Box<PublishProperties>>,
    pub payload: Bytes,
}

/// The properties of a message (MQTT 5.0, 3.3.2.3).
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PublishProperties {
    pub payload_format: Option<PayloadFormat>,
    /// In seconds.
    pub message_expiry_interval: Option<u32>,
    /// Without wildcards [MQTT-3.3.2-14].
    pub response_topic: Option<Text>,
    pub correlation_data: Option<Binary>,
    pub content_type: Option<Text>,
    pub user_properties: UserProperties,
}

impl PublishProperties {
    /// Bytes of what has no fixed length.
    pub fn size_bytes(&self) -> usize {
        let text = |text: &Option<Text>| text.as_ref().map_or(0, |text| text.len());
        text(&self.response_topic)
            + text(&self.content_type)
            + self.correlation_data.as_ref().map_or(0, |data| data.len())
            + self.user_properties.size_bytes()
    }

    /// A copy that keeps no read buffer alive; for what is stored long.
    pub fn detached(&self) -> Self {
        let text = |text: &Option<Text>| text.as_ref().map(Text::detached);
        Self {
            payload_format: self.payload_format,
            message_expiry_interval: self.message_expiry_interval,
            response_topic: text(&self.response_topic),
            correlation_data: self.correlation_data.as_ref().map(Binary::detached),
            content_type: text(&self.content_type),
            user_properties: self.user_properties.detached(),
        }
    }
}

/// A PUBLISH that owns nothing: what one subscriber gets of a message that many get.
#[derive(Clone, Copy, Debug)]
pub struct PublishRef<'a> {
    pub delivery: Delivery,
    pub retain: bool,
    pub topic: &'a Text,
    pub topic_alias: Option<NonZeroU16>,
    pub subscription_ids: &'a [SubscriptionId],
    /// In seconds; stands in place of the properties' own, which does not shrink while it waits
    /// [MQTT-3.3.2-6].
    pub message_expiry_interval: Option<u32>,
    pub properties: Option<&'a PublishProperties>,
    pub payload: &'a [u8],
}

impl Publish {
    pub fn qos(&self) -> QoS {
        self.delivery.qos()
    }

    pub fn packet_id(&self) -> Option<PacketId> {
        self.delivery.packet_id()
    }

    pub fn dup(&self) -> bool {
        self.delivery.dup()
    }

    /// A view of all of it.
    pub fn as_view(&self) -> PublishRef<'_> {
        let properties = self.properties.as_deref();
        PublishRef {
            delivery: self.delivery,
            retain: self.retain,
            topic: &self.topic,
            topic_alias: self.topic_alias,
            subscription_ids: &self.subscription_ids,
            message_expiry_interval: properties.and_then(|all| all.message_expiry_interval),
            properties,
            payload: &self.payload,
        }
    }
}

/// The low four bits of the first byte.
pub(crate) mod flags {
    pub(crate) const DUP: u8 = 0b1000;
    pub(crate) const QOS_SHIFT: u8 = 1;
    pub(crate) const RETAIN: u8 = 0b0001;
}

impl Publish {
    /// `first_byte` has been checked by [`check_flags`].
    #[inline] // Its one caller: else each PUBLISH is moved once more.
    pub(crate) fn decode(
        first_byte: u8,
        body: &mut Bytes,
        version: Version,
        from: Side,
    ) -> Result<Self, DecodeError> {
        let qos = QoS::from_bits(first_byte >> flags::QOS_SHIFT & 0b11).ok_or(DecodeError::QoS)?;
        let dup = first_byte & flags::DUP != 0;
        let topic = wire::text(body, "topic name")?;
        let delivery = match qos {
            QoS::AtMostOnce => Delivery::AtMostOnce,
            QoS::AtLeastOnce => Delivery::AtLeastOnce {
                packet_id: wire::packet_id(body)?,
                dup,
            },
            QoS::ExactlyOnce => Delivery::ExactlyOnce {
                packet_id: wire::packet_id(body)?,
                dup,
            },
        };
        let mut publish = Self {
            delivery,
            retain: first_byte & flags::RETAIN != 0,
            topic,
            topic_alias: None,
            subscription_ids: Vec::new(),
            properties: None,
            payload: Bytes::new(),
        };
        // Most have none: their one byte of Property Length is all there is to read.
        if version == Version::V5 && !wire::take_zero(body) {
            publish.read_properties(body, from)?;
        }
        if publish.topic.is_empty() {
            match publish.topic_alias {
                Some(_) => {}
                None => return Err(DecodeError::NoTopic),
            }
        } else if !topic::validate_name(&publish.topic) {
            return Err(DecodeError::TopicName);
        }
        publish.payload = std::mem::take(body);
        Ok(publish)
    }

    fn read_properties(&mut self, body: &mut Bytes, from: Side) -> Result<(), DecodeError> {
        let mut reader = PropertyReader::open(body, Owner::Packet(PacketType::Publish))?;
        let mut properties = PublishProperties::default();
        while let Some(id) = reader.next()? {
            match id {
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
                PropertyId::TopicAlias => {
                    let alias = NonZeroU16::new(reader.u16(id)?);
                    self.topic_alias = Some(alias.ok_or(DecodeError::ZeroTopicAlias)?);
                }
                // [MQTT-3.3.4-6]
                PropertyId::SubscriptionIdentifier if from == Side::Client => {
                    let packet = PacketType::Publish;
                    return Err(DecodeError::PropertyDirection {
                        packet,
                        property: id,
                    });
                }
                PropertyId::SubscriptionIdentifier => {
                    self.subscription_ids.push(reader.subscription_id()?);
                }
                other => return Err(reader.not_allowed(other)),
            }
        }
        properties.user_properties = reader.finish();
        if properties != PublishProperties::default() {
            self.properties = Some(Box::new(properties));
        }
        Ok(())
    }

    /// As [`PublishRef::encode_head`]: for a driver that sends a large payload without copying it.
    pub fn encode_head(&self, version: Version, out: &mut BytesMut) -> Result<(), EncodeError> {
        self.as_view().encode_head(version, out)
    }
}

/// Refuses what the first byte of a PUBLISH may not say.
pub(crate) fn check_flags(first_byte: u8, version: Version) -> Result<(), DecodeError> {
    match QoS::from_bits(first_byte >> flags::QOS_SHIFT & 0b11) {
        None => Err(DecodeError::QoS), // [MQTT-3.3.1-4]
        // [MQTT-3.3.1-2]; MQTT 3.1 does not forbid it.
        Some(QoS::AtMostOnce) if first_byte & flags::DUP != 0 && version > Version::V31 => {
            Err(DecodeError::DupAtMostOnce)
        }
        Some(_) => Ok(()),
    }
}

impl PublishRef<'_> {
    fn first_byte(&self) -> u8 {
        let dup = if self.delivery.dup() { flags::DUP } else { 0 };
        let retain = if self.retain { flags::RETAIN } else { 0 };
        0x30 | dup | (self.delivery.qos() as u8) << flags::QOS_SHIFT | retain
    }

    /// Property Length; 0 also before 5.0, where there is no such field.
    fn properties_len(&self, version: Version) -> usize {
        let none = self.properties.is_none()
            && self.message_expiry_interval.is_none()
            && self.topic_alias.is_none()
            && self.subscription_ids.is_empty();
        if none || version < Version::V5 {
            0
        } else {
            properties_len(self)
        }
    }

    fn remaining_len(&self, version: Version, properties_len: usize) -> usize {
        let mut length = Length(2 + self.topic.len() + properties_len + self.payload.len());
        if self.delivery.packet_id().is_some() {
            length.0 += 2;
        }
        if version == Version::V5 {
            length.put_variable(properties_len);
        }
        length.0
    }

    /// All bytes of the packet, fixed header and payload counted.
    pub fn encoded_len(&self, version: Version) -> usize {
        let remaining = self.remaining_len(version, self.properties_len(version));
        let mut length = Length(1 + remaining);
        length.put_variable(remaining);
        length.0
    }

    /// Appends everything before the payload; the payload's bytes must follow.
    pub fn encode_head(&self, version: Version, out: &mut BytesMut) -> Result<(), EncodeError> {
        self.put_head(version, 0, out)
    }

    /// Appends the whole packet.
    pub fn encode(&self, version: Version, out: &mut BytesMut) -> Result<(), EncodeError> {
        self.put_head(version, self.payload.len(), out)?;
        out.put(self.payload);
        Ok(())
    }

    /// The head, in as few pieces as there can be: one message goes to many subscribers, and each
    /// piece costs a check of the room that is left. Leaves `room` bytes of it for what follows.
    #[inline]
    fn put_head(
        &self,
        version: Version,
        room: usize,
        out: &mut BytesMut,
    ) -> Result<(), EncodeError> {
        let properties_len = self.properties_len(version);
        let remaining = self.remaining_len(version, properties_len);
        let head_len = 5 + remaining - self.payload.len();
        put_fixed_header(self.first_byte(), remaining, head_len + room, out)?;
        out.put_prefixed(self.topic.as_bytes());
        let packet_id = self.delivery.packet_id().map(|id| id.value().to_be_bytes());
        match (version, packet_id) {
            (Version::V31 | Version::V311, None) => {}
            (Version::V31 | Version::V311, Some(id)) => out.put(&id),
            (Version::V5, None) if properties_len == 0 => out.put(&[0]),
            (Version::V5, Some([high, low])) if properties_len == 0 => out.put(&[high, low, 0]),
            (Version::V5, id) => {
                out.put(id.as_ref().map_or(&[], |id| &id[..]));
                out.put_variable(properties_len);
                self.write(&mut PropertyWriter::new(out));
            }
        }
        Ok(())
    }
}

impl Properties for PublishRef<'_> {
    fn write<W: Writer>(&self, out: &mut PropertyWriter<'_, W>) {
        out.optional_u32(
            PropertyId::MessageExpiryInterval,
            self.message_expiry_interval,
        );
        if let Some(alias) = self.topic_alias {
            out.u16(PropertyId::TopicAlias, alias.get());
        }
        for id in self.subscription_ids {
            out.subscription_id(*id);
        }
        if let Some(properties) = self.properties {
            out.payload_format(properties.payload_format);
            out.text(PropertyId::ContentType, properties.content_type.as_ref());
            out.text(
                PropertyId::ResponseTopic,
                properties.response_topic.as_ref(),
            );
            out.binary(
                PropertyId::CorrelationData,
                properties.correlation_data.as_ref(),
            );
            out.user_properties(&properties.user_properties);
        }
    }
}
