//! PUBLISH: carries a message either way (MQTT 5.0, 3.3).

use std::num::NonZeroU16;

use bytes::{Bytes, BytesMut};

use crate::error::EncodeError;
use crate::packet::{PacketId, QoS, Version};
use crate::property::{PayloadFormat, SubscriptionId, UserProperties};
use crate::text::{Binary, Text};

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

impl PublishRef<'_> {
    /// All bytes of the packet, fixed header and payload counted.
    pub fn encoded_len(&self, version: Version) -> usize {
        let _ = version;
        todo!()
    }

    /// Appends everything before the payload; the payload's bytes must follow.
    pub fn encode_head(&self, version: Version, out: &mut BytesMut) -> Result<(), EncodeError> {
        let _ = (version, out);
        todo!()
    }

    /// Appends the whole packet.
    pub fn encode(&self, version: Version, out: &mut BytesMut) -> Result<(), EncodeError> {
        let _ = (version, out);
        todo!()
    }
}

impl Publish {
    /// As [`PublishRef::encode_head`]: for a driver that sends a large payload without copying it.
    pub fn encode_head(&self, version: Version, out: &mut BytesMut) -> Result<(), EncodeError> {
        self.as_view().encode_head(version, out)
    }
}
