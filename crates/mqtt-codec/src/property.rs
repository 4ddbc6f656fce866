//! Properties of MQTT 5.0 (2.2.2): identifiers, values, reading and writing them.
//!
//! For: [`PropertyId`], [`UserProperties`], and the reader and writer that packets use.
//! Not for: which packet may have which, that stands with each packet.
//! Calls: `wire`. Called by: every packet that has properties.
//! Holds: a property that may come once comes once; a value out of its range does not exist.

use std::fmt;
use std::num::{NonZeroU16, NonZeroU32};
use std::ops::Range;

use bytes::{Bytes, BytesMut};

use crate::error::DecodeError;
use crate::packet::PacketType;
use crate::text::{Binary, Text};
use crate::topic;
use crate::wire::{self, Length, Writer};

macro_rules! property_ids {
    ($($name:ident = $id:literal $text:literal,)+) => {
        /// A property's identifier (MQTT 5.0, table 2-4).
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        #[repr(u8)]
        pub enum PropertyId { $($name = $id,)+ }

        impl PropertyId {
            /// `None` for an identifier the specification does not know.
            pub const fn new(id: u32) -> Option<Self> {
                match id {
                    $($id => Some(Self::$name),)+
                    _ => None,
                }
            }
        }

        impl PropertyId {
            /// As the specification writes it: `Session Expiry Interval`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }
        }
    };
}

impl fmt::Display for PropertyId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

property_ids! {
    PayloadFormatIndicator = 0x01 "Payload Format Indicator",
    MessageExpiryInterval = 0x02 "Message Expiry Interval",
    ContentType = 0x03 "Content Type",
    ResponseTopic = 0x08 "Response Topic",
    CorrelationData = 0x09 "Correlation Data",
    SubscriptionIdentifier = 0x0b "Subscription Identifier",
    SessionExpiryInterval = 0x11 "Session Expiry Interval",
    AssignedClientIdentifier = 0x12 "Assigned Client Identifier",
    ServerKeepAlive = 0x13 "Server Keep Alive",
    AuthenticationMethod = 0x15 "Authentication Method",
    AuthenticationData = 0x16 "Authentication Data",
    RequestProblemInformation = 0x17 "Request Problem Information",
    WillDelayInterval = 0x18 "Will Delay Interval",
    RequestResponseInformation = 0x19 "Request Response Information",
    ResponseInformation = 0x1a "Response Information",
    ServerReference = 0x1c "Server Reference",
    ReasonString = 0x1f "Reason String",
    ReceiveMaximum = 0x21 "Receive Maximum",
    TopicAliasMaximum = 0x22 "Topic Alias Maximum",
    TopicAlias = 0x23 "Topic Alias",
    MaximumQoS = 0x24 "Maximum QoS",
    RetainAvailable = 0x25 "Retain Available",
    UserProperty = 0x26 "User Property",
    MaximumPacketSize = 0x27 "Maximum Packet Size",
    WildcardSubscriptionAvailable = 0x28 "Wildcard Subscription Available",
    SubscriptionIdentifierAvailable = 0x29 "Subscription Identifier Available",
    SharedSubscriptionAvailable = 0x2a "Shared Subscription Available",
}

/// What the payload is said to be (MQTT 5.0, 3.3.2.3.2). Sent on unaltered [MQTT-3.3.2-4].
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[repr(u8)]
pub enum PayloadFormat {
    Unspecified = 0,
    Utf8 = 1,
}

/// Names a subscription to its client, 1 to 268,435,455 (MQTT 5.0, 3.8.2.1.2).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SubscriptionId(NonZeroU32);

impl SubscriptionId {
    /// `None` for zero and for what four bytes of variable length cannot hold.
    pub const fn new(id: u32) -> Option<Self> {
        match NonZeroU32::new(id) {
            Some(id) if id.get() <= crate::REMAINING_LENGTH_MAX => Some(Self(id)),
            _ => None,
        }
    }

    pub const fn value(self) -> u32 {
        self.0.get()
    }
}

/// Enhanced authentication (MQTT 5.0, 4.12): data without a method cannot be built.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Authentication {
    pub method: Text,
    pub data: Option<Binary>,
}

/// User Properties in their order, names may repeat [MQTT-3.1.3-10], [MQTT-3.3.2-18].
///
/// Kept as the bytes they are on the wire: reading costs no allocation for each of a stranger's
/// pairs, and passing them on is one copy.
#[derive(Clone, Default, Eq, PartialEq)]
pub struct UserProperties(Bytes);

impl UserProperties {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes on the wire.
    pub fn size_bytes(&self) -> usize {
        self.0.len()
    }

    /// The pairs in their order.
    pub fn iter(&self) -> UserPropertiesIter<'_> {
        UserPropertiesIter(&self.0)
    }

    /// A copy that keeps no read buffer alive; for what is stored long.
    pub fn detached(&self) -> Self {
        Self(Bytes::copy_from_slice(&self.0))
    }
}

/// The pairs of [`UserProperties`].
#[derive(Clone, Debug)]
pub struct UserPropertiesIter<'a>(&'a [u8]);

impl<'a> Iterator for UserPropertiesIter<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let (_identifier, rest) = self.0.split_first()?;
        let (name, rest) = split_text(rest)?;
        let (value, rest) = split_text(rest)?;
        self.0 = rest;
        Some((name, value))
    }
}

fn split_text(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (text, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    Some((std::str::from_utf8(text).ok()?, rest))
}

impl<'a> IntoIterator for &'a UserProperties {
    type Item = (&'a str, &'a str);
    type IntoIter = UserPropertiesIter<'a>;

    fn into_iter(self) -> UserPropertiesIter<'a> {
        self.iter()
    }
}

impl FromIterator<(Text, Text)> for UserProperties {
    fn from_iter<I: IntoIterator<Item = (Text, Text)>>(pairs: I) -> Self {
        let mut properties = Self::default();
        properties.extend(pairs);
        properties
    }
}

impl Extend<(Text, Text)> for UserProperties {
    fn extend<I: IntoIterator<Item = (Text, Text)>>(&mut self, pairs: I) {
        let mut bytes = BytesMut::from(std::mem::take(&mut self.0));
        for (name, value) in pairs {
            Writer::put_u8(&mut bytes, PropertyId::UserProperty as u8);
            bytes.put_prefixed(name.as_bytes());
            bytes.put_prefixed(value.as_bytes());
        }
        self.0 = bytes.freeze();
    }
}

impl fmt::Debug for UserProperties {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self).finish()
    }
}

/// What properties belong to, for the refusal of a strange one.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Owner {
    Packet(PacketType),
    Will,
}

/// Reads the properties of one packet. User Properties, which every packet may have, are gathered
/// here; every other identifier is handed to the packet.
pub(crate) struct PropertyReader {
    owner: Owner,
    /// All properties, and what is left of them to read.
    all: Bytes,
    rest: Bytes,
    /// A bit for each identifier that was there; the highest is 0x2A.
    seen: u64,
    /// The last run of adjacent User Properties within `all`, and the runs before it.
    run: Range<usize>,
    runs_before: BytesMut,
}

impl PropertyReader {
    /// Takes the Property Length and as many bytes off `body`.
    pub(crate) fn open(body: &mut Bytes, owner: Owner) -> Result<Self, DecodeError> {
        const FIELD: &str = "property length";
        let need = wire::variable(body, FIELD)? as usize;
        if need > body.len() {
            return Err(DecodeError::Truncated {
                field: FIELD,
                need,
                have: body.len(),
            });
        }
        let all = if need == 0 {
            Bytes::new()
        } else {
            body.split_to(need)
        };
        let rest = all.clone();
        Ok(Self {
            owner,
            all,
            rest,
            seen: 0,
            run: 0..0,
            runs_before: BytesMut::new(),
        })
    }

    /// The next identifier; its value must be read before the next call.
    pub(crate) fn next(&mut self) -> Result<Option<PropertyId>, DecodeError> {
        while !self.rest.is_empty() {
            let start = self.position();
            let id = wire::variable(&mut self.rest, "property identifier")?;
            let id = PropertyId::new(id).ok_or(DecodeError::UnknownProperty { id })?;
            if id != PropertyId::UserProperty {
                self.once(id)?;
                return Ok(Some(id));
            }
            // Both strings are checked here and not kept [MQTT-1.5.7-1].
            self.text(id)?;
            self.text(id)?;
            self.user_property(start..self.position());
        }
        Ok(None)
    }

    fn position(&self) -> usize {
        self.all.len() - self.rest.len()
    }

    /// Refuses a second one. Only a PUBLISH has several Subscription Identifiers (3.3.2.3.8).
    fn once(&mut self, id: PropertyId) -> Result<(), DecodeError> {
        let bit = 1 << id as u8;
        let repeats = matches!(self.owner, Owner::Packet(PacketType::Publish))
            && id == PropertyId::SubscriptionIdentifier;
        if self.seen & bit != 0 && !repeats {
            return Err(DecodeError::DuplicateProperty { property: id });
        }
        self.seen |= bit;
        Ok(())
    }

    fn user_property(&mut self, range: Range<usize>) {
        if self.run.end == range.start {
            self.run.end = range.end;
        } else {
            self.end_run();
            self.run = range;
        }
    }

    /// Copies the run away: only when User Properties do not all lie side by side.
    fn end_run(&mut self) {
        self.runs_before
            .extend_from_slice(self.all.get(self.run.clone()).unwrap_or_default());
    }

    /// The User Properties, after [`next`](Self::next) gave `None`.
    pub(crate) fn finish(mut self) -> UserProperties {
        if self.run.is_empty() {
            UserProperties::default()
        } else if self.runs_before.is_empty() {
            UserProperties(self.all.slice(self.run))
        } else {
            self.end_run();
            UserProperties(self.runs_before.freeze())
        }
    }

    /// The error for an identifier this packet does not have.
    pub(crate) fn not_allowed(&self, property: PropertyId) -> DecodeError {
        match self.owner {
            Owner::Packet(packet) => DecodeError::PropertyNotAllowed { packet, property },
            Owner::Will => DecodeError::WillPropertyNotAllowed { property },
        }
    }

    pub(crate) fn u16(&mut self, id: PropertyId) -> Result<u16, DecodeError> {
        wire::u16(&mut self.rest, id.name())
    }

    pub(crate) fn u32(&mut self, id: PropertyId) -> Result<u32, DecodeError> {
        wire::u32(&mut self.rest, id.name())
    }

    pub(crate) fn text(&mut self, id: PropertyId) -> Result<Text, DecodeError> {
        wire::text(&mut self.rest, id.name())
    }

    pub(crate) fn binary(&mut self, id: PropertyId) -> Result<Binary, DecodeError> {
        wire::binary(&mut self.rest, id.name())
    }

    pub(crate) fn bool(&mut self, id: PropertyId) -> Result<bool, DecodeError> {
        match wire::u8(&mut self.rest, id.name())? {
            0 => Ok(false),
            1 => Ok(true),
            value => Err(bad_value(id, value.into())),
        }
    }

    pub(crate) fn nonzero_u16(&mut self, id: PropertyId) -> Result<NonZeroU16, DecodeError> {
        NonZeroU16::new(self.u16(id)?).ok_or(bad_value(id, 0))
    }

    pub(crate) fn nonzero_u32(&mut self, id: PropertyId) -> Result<NonZeroU32, DecodeError> {
        NonZeroU32::new(self.u32(id)?).ok_or(bad_value(id, 0))
    }

    pub(crate) fn payload_format(&mut self, id: PropertyId) -> Result<PayloadFormat, DecodeError> {
        let utf8 = self.bool(id)?;
        Ok(if utf8 {
            PayloadFormat::Utf8
        } else {
            PayloadFormat::Unspecified
        })
    }

    /// Zero is a Protocol Error (3.8.2.1.2).
    pub(crate) fn subscription_id(&mut self) -> Result<SubscriptionId, DecodeError> {
        let id = PropertyId::SubscriptionIdentifier;
        let value = wire::variable(&mut self.rest, id.name())?;
        SubscriptionId::new(value).ok_or(bad_value(id, value))
    }

    /// A Topic Name, so without wildcards [MQTT-3.3.2-14].
    pub(crate) fn response_topic(&mut self) -> Result<Text, DecodeError> {
        let name = self.text(PropertyId::ResponseTopic)?;
        if topic::validate_name(&name) {
            Ok(name)
        } else {
            Err(DecodeError::ResponseTopic)
        }
    }
}

fn bad_value(property: PropertyId, value: u32) -> DecodeError {
    DecodeError::PropertyValue { property, value }
}

/// Joins Authentication Method and Data: data alone is a Protocol Error (3.1.2.11.10).
pub(crate) fn authentication(
    method: Option<Text>,
    data: Option<Binary>,
) -> Result<Option<Authentication>, DecodeError> {
    match (method, data) {
        (Some(method), data) => Ok(Some(Authentication { method, data })),
        (None, Some(_)) => Err(DecodeError::NoAuthenticationMethod),
        (None, None) => Ok(None),
    }
}

/// What can write its properties; what has its default is left out.
pub(crate) trait Properties {
    fn write<W: Writer>(&self, out: &mut PropertyWriter<'_, W>);
}

/// Bytes of the properties, without the Property Length.
pub(crate) fn properties_len(properties: &impl Properties) -> usize {
    let mut length = Length::default();
    properties.write(&mut PropertyWriter(&mut length));
    length.0
}

/// Writes the Property Length and the properties [MQTT-2.2.2-1].
pub(crate) fn put_properties<W: Writer>(properties: &impl Properties, out: &mut W) {
    out.put_variable(properties_len(properties));
    properties.write(&mut PropertyWriter(out));
}

/// Writes identifiers with their values.
pub(crate) struct PropertyWriter<'a, W>(&'a mut W);

impl<'a, W: Writer> PropertyWriter<'a, W> {
    pub(crate) fn new(out: &'a mut W) -> Self {
        Self(out)
    }

    pub(crate) fn u8(&mut self, id: PropertyId, value: impl Into<u8>) {
        self.0.put(&[id as u8, value.into()]);
    }

    pub(crate) fn u16(&mut self, id: PropertyId, value: u16) {
        self.0.put_u8(id as u8);
        self.0.put_u16(value);
    }

    pub(crate) fn u32(&mut self, id: PropertyId, value: u32) {
        self.0.put_u8(id as u8);
        self.0.put_u32(value);
    }

    pub(crate) fn text(&mut self, id: PropertyId, value: Option<&Text>) {
        if let Some(text) = value {
            self.0.put_u8(id as u8);
            self.0.put_prefixed(text.as_bytes());
        }
    }

    pub(crate) fn binary(&mut self, id: PropertyId, value: Option<&Binary>) {
        if let Some(binary) = value {
            self.0.put_u8(id as u8);
            self.0.put_prefixed(binary);
        }
    }

    pub(crate) fn optional_u32(&mut self, id: PropertyId, value: Option<u32>) {
        if let Some(value) = value {
            self.u32(id, value);
        }
    }

    pub(crate) fn payload_format(&mut self, value: Option<PayloadFormat>) {
        if let Some(format) = value {
            self.u8(PropertyId::PayloadFormatIndicator, format as u8);
        }
    }

    pub(crate) fn subscription_id(&mut self, id: SubscriptionId) {
        self.0.put_u8(PropertyId::SubscriptionIdentifier as u8);
        self.0.put_variable(id.value() as usize);
    }

    pub(crate) fn authentication(&mut self, value: Option<&Authentication>) {
        if let Some(Authentication { method, data }) = value {
            self.text(PropertyId::AuthenticationMethod, Some(method));
            self.binary(PropertyId::AuthenticationData, data.as_ref());
        }
    }

    /// As they came, in one piece [MQTT-3.3.2-18].
    pub(crate) fn user_properties(&mut self, properties: &UserProperties) {
        self.0.put(&properties.0);
    }
}

impl Properties for UserProperties {
    fn write<W: Writer>(&self, out: &mut PropertyWriter<'_, W>) {
        out.user_properties(self);
    }
}
