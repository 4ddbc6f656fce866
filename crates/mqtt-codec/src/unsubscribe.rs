//! UNSUBSCRIBE: a Client gives up Topic Filters (MQTT 5.0, 3.10).

use bytes::Bytes;

use crate::error::{DecodeError, EncodeError};
use crate::packet::{PacketId, PacketType, Version};
use crate::property::{Owner, PropertyReader, UserProperties, put_properties};
use crate::subscribe::check_filter;
use crate::text::Text;
use crate::wire::{self, Body, Writer};

/// UNSUBSCRIBE (MQTT 5.0, 3.10).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Unsubscribe {
    pub packet_id: PacketId,
    pub user_properties: UserProperties,
    /// At least one [MQTT-3.10.3-2].
    pub filters: Vec<Text>,
}

impl Unsubscribe {
    pub(crate) fn decode(body: &mut Bytes, version: Version) -> Result<Self, DecodeError> {
        let packet_id = wire::packet_id(body)?;
        let mut user_properties = UserProperties::default();
        if version == Version::V5 {
            let mut reader = PropertyReader::open(body, Owner::Packet(PacketType::Unsubscribe))?;
            if let Some(other) = reader.next()? {
                return Err(reader.not_allowed(other));
            }
            user_properties = reader.finish();
        }
        if body.is_empty() {
            return Err(DecodeError::EmptyPayload {
                packet: PacketType::Unsubscribe,
            });
        }
        let mut filters = Vec::new();
        while !body.is_empty() {
            let filter = wire::text(body, "topic filter")?;
            check_filter(&filter, version)?;
            filters.push(filter);
        }
        Ok(Self {
            packet_id,
            user_properties,
            filters,
        })
    }
}

impl Body for Unsubscribe {
    fn first_byte(&self) -> u8 {
        0xa2 // [MQTT-3.10.1-1]
    }

    fn check(&self, _: Version) -> Result<(), EncodeError> {
        if self.filters.is_empty() {
            return Err(EncodeError::EmptyPayload {
                packet: PacketType::Unsubscribe,
            });
        }
        Ok(())
    }

    fn write<W: Writer>(&self, version: Version, out: &mut W) {
        out.put_u16(self.packet_id.value());
        if version == Version::V5 {
            put_properties(&self.user_properties, out);
        }
        for filter in &self.filters {
            out.put_prefixed(filter.as_bytes());
        }
    }
}
