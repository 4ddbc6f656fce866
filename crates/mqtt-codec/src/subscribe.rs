//! SUBSCRIBE: a Client asks for the messages of Topic Filters (MQTT 5.0, 3.8).

use bytes::Bytes;

use crate::error::{DecodeError, EncodeError};
use crate::packet::{PacketId, PacketType, QoS, Version};
use crate::property::{
    Owner, Properties, PropertyId, PropertyReader, PropertyWriter, SubscriptionId, UserProperties,
    put_properties,
};
use crate::text::Text;
use crate::topic;
use crate::wire::{self, Body, Writer};

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

impl Subscribe {
    pub(crate) fn decode(body: &mut Bytes, version: Version) -> Result<Self, DecodeError> {
        let packet_id = wire::packet_id(body)?;
        let mut subscription_id = None;
        let mut user_properties = UserProperties::default();
        if version == Version::V5 {
            let mut reader = PropertyReader::open(body, Owner::Packet(PacketType::Subscribe))?;
            while let Some(id) = reader.next()? {
                match id {
                    PropertyId::SubscriptionIdentifier => {
                        subscription_id = Some(reader.subscription_id()?);
                    }
                    other => return Err(reader.not_allowed(other)),
                }
            }
            user_properties = reader.finish();
        }
        if body.is_empty() {
            return Err(DecodeError::EmptyPayload {
                packet: PacketType::Subscribe,
            });
        }
        let mut subscriptions = Vec::new();
        while !body.is_empty() {
            subscriptions.push(Subscription::decode(body, version)?);
        }
        Ok(Self {
            packet_id,
            subscription_id,
            user_properties,
            subscriptions,
        })
    }
}

impl Body for Subscribe {
    fn first_byte(&self) -> u8 {
        0x82 // [MQTT-3.8.1-1]
    }

    fn check(&self, _: Version) -> Result<(), EncodeError> {
        if self.subscriptions.is_empty() {
            return Err(EncodeError::EmptyPayload {
                packet: PacketType::Subscribe,
            });
        }
        Ok(())
    }

    fn write<W: Writer>(&self, version: Version, out: &mut W) {
        out.put_u16(self.packet_id.value());
        if version == Version::V5 {
            put_properties(self, out);
        }
        for subscription in &self.subscriptions {
            out.put_prefixed(subscription.filter.as_bytes());
            out.put_u8(subscription.options.bits(version));
        }
    }
}

impl Properties for Subscribe {
    fn write<W: Writer>(&self, out: &mut PropertyWriter<'_, W>) {
        if let Some(id) = self.subscription_id {
            out.subscription_id(id);
        }
        out.user_properties(&self.user_properties);
    }
}

impl Subscription {
    fn decode(body: &mut Bytes, version: Version) -> Result<Self, DecodeError> {
        let filter = wire::text(body, "topic filter")?;
        let options =
            SubscriptionOptions::decode(wire::u8(body, "subscription options")?, version)?;
        if check_filter(&filter, version)? == Kind::Shared && options.no_local {
            return Err(DecodeError::NoLocalShared); // [MQTT-3.8.3-4]
        }
        Ok(Self { filter, options })
    }
}

#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) enum Kind {
    Plain,
    Shared,
}

/// Refuses a filter that is not well formed. Before MQTT 5.0 `$share` is a level like any other, and
/// whether to read more into it is the broker's choice.
pub(crate) fn check_filter(filter: &str, version: Version) -> Result<Kind, DecodeError> {
    let shared = match version {
        Version::V5 => topic::split_shared(filter).map_err(|_| DecodeError::TopicFilter)?,
        Version::V31 | Version::V311 => None,
    };
    match shared {
        Some(_) => Ok(Kind::Shared),
        None if topic::validate_filter(filter) => Ok(Kind::Plain),
        None => Err(DecodeError::TopicFilter),
    }
}

impl SubscriptionOptions {
    const QOS: u8 = 0b0000_0011;
    const NO_LOCAL: u8 = 0b0000_0100;
    const RETAIN_AS_PUBLISHED: u8 = 0b0000_1000;
    const RETAIN_HANDLING_SHIFT: u8 = 4;

    fn decode(options: u8, version: Version) -> Result<Self, DecodeError> {
        // Before 5.0 only the QoS bits are not reserved (MQTT 3.1.1, [MQTT-3.8.3-4]).
        let reserved = if version == Version::V5 {
            0b1100_0000
        } else {
            !Self::QOS
        };
        if options & reserved != 0 {
            return Err(DecodeError::SubscriptionReserved { options }); // [MQTT-3.8.3-5]
        }
        let qos = QoS::from_bits(options & Self::QOS);
        let retain_handling = match options >> Self::RETAIN_HANDLING_SHIFT & 0b11 {
            0 => Some(RetainHandling::Send),
            1 => Some(RetainHandling::SendIfNew),
            2 => Some(RetainHandling::DoNotSend),
            _ => None,
        };
        match (qos, retain_handling) {
            (Some(qos), Some(retain_handling)) => Ok(Self {
                qos,
                no_local: options & Self::NO_LOCAL != 0,
                retain_as_published: options & Self::RETAIN_AS_PUBLISHED != 0,
                retain_handling,
            }),
            _ => Err(DecodeError::SubscriptionOptions { options }),
        }
    }

    fn bits(self, version: Version) -> u8 {
        let qos = self.qos as u8;
        if version < Version::V5 {
            return qos;
        }
        let no_local = if self.no_local { Self::NO_LOCAL } else { 0 };
        let as_published = if self.retain_as_published {
            Self::RETAIN_AS_PUBLISHED
        } else {
            0
        };
        qos | no_local | as_published | (self.retain_handling as u8) << Self::RETAIN_HANDLING_SHIFT
    }
}
