//! What the packets that answer others share: a Reason String and User Properties.

use bytes::Bytes;

use crate::error::DecodeError;
use crate::packet::{PacketId, PacketType, Version};
use crate::property::{
    Owner, Properties, PropertyId, PropertyReader, PropertyWriter, UserProperties, put_properties,
};
use crate::text::Text;
use crate::wire::{self, Writer};

/// The properties of PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK and UNSUBACK (MQTT 5.0, 3.4.2.2).
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct AckProperties {
    /// For people, not for programs.
    pub reason_string: Option<Text>,
    pub user_properties: UserProperties,
}

impl AckProperties {
    /// `None` when there are none.
    pub(crate) fn decode(
        body: &mut Bytes,
        packet: PacketType,
    ) -> Result<Option<Box<Self>>, DecodeError> {
        let mut reader = PropertyReader::open(body, Owner::Packet(packet))?;
        let mut reason_string = None;
        while let Some(id) = reader.next()? {
            match id {
                PropertyId::ReasonString => reason_string = Some(reader.text(id)?),
                other => return Err(reader.not_allowed(other)),
            }
        }
        let properties = Self {
            reason_string,
            user_properties: reader.finish(),
        };
        Ok((properties != Self::default()).then(|| Box::new(properties)))
    }
}

impl Properties for AckProperties {
    fn write<W: Writer>(&self, out: &mut PropertyWriter<'_, W>) {
        out.text(PropertyId::ReasonString, self.reason_string.as_ref());
        out.user_properties(&self.user_properties);
    }
}

/// Writes the Property Length and what there is: SUBACK and UNSUBACK always have one.
pub(crate) fn put_ack_properties<W: Writer>(properties: Option<&AckProperties>, out: &mut W) {
    match properties {
        Some(properties) => put_properties(properties, out),
        None => out.put_u8(0),
    }
}

/// What PUBACK, PUBREC, PUBREL and PUBCOMP all are.
pub(crate) struct Ack<R> {
    pub(crate) packet_id: PacketId,
    pub(crate) reason: R,
    pub(crate) properties: Option<Box<AckProperties>>,
}

impl<R: TryFrom<u8, Error = DecodeError>> Ack<R> {
    /// A Remaining Length of 2 means success, one of 3 no properties (MQTT 5.0, 3.4.2.1).
    pub(crate) fn decode(
        body: &mut Bytes,
        version: Version,
        packet: PacketType,
    ) -> Result<Self, DecodeError> {
        let packet_id = wire::packet_id(body)?;
        let mut code = 0;
        let mut properties = None;
        if version == Version::V5 && !body.is_empty() {
            code = wire::u8(body, "reason code")?;
            if !body.is_empty() {
                properties = AckProperties::decode(body, packet)?;
            }
        }
        Ok(Self {
            packet_id,
            reason: R::try_from(code)?,
            properties,
        })
    }
}

/// Writes it in the shortest form there is.
pub(crate) fn put_ack<W: Writer>(
    packet_id: PacketId,
    code: u8,
    properties: Option<&AckProperties>,
    version: Version,
    out: &mut W,
) {
    out.put_u16(packet_id.value());
    let properties = properties.filter(|properties| **properties != AckProperties::default());
    if version < Version::V5 || (code == 0 && properties.is_none()) {
        return;
    }
    out.put_u8(code);
    if let Some(properties) = properties {
        put_properties(properties, out);
    }
}
