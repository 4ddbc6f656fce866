//! Properties of MQTT 5.0 (2.2.2): identifiers, values, reading and writing them.
//!
//! For: [`PropertyId`], [`UserProperties`], and the reader and writer that packets use.
//! Not for: which packet may have which, that stands with each packet.
//! Calls: `wire`. Called by: every packet that has properties.
//! Holds: a property that may come once comes once; a value out of its range does not exist.

use std::fmt;
use std::num::NonZeroU32;

use bytes::Bytes;

use crate::text::{Binary, Text};

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

        /// As the specification writes it: `Session Expiry Interval`.
        impl fmt::Display for PropertyId {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(match self { $(Self::$name => $text,)+ })
            }
        }
    };
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
pub struct UserProperties(pub(crate) Bytes);

impl UserProperties {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The pairs in their order.
    pub fn iter(&self) -> UserPropertiesIter<'_> {
        UserPropertiesIter(&self.0)
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
        let mut bytes = bytes::BytesMut::from(std::mem::take(&mut self.0));
        for (name, value) in pairs {
            bytes.extend_from_slice(&[PropertyId::UserProperty as u8]);
            for text in [&name, &value] {
                // A `Text` is at most 65,535 bytes.
                #[expect(clippy::cast_possible_truncation, reason = "a Text's length is a u16")]
                bytes.extend_from_slice(&(text.len() as u16).to_be_bytes());
                bytes.extend_from_slice(text.as_bytes());
            }
        }
        self.0 = bytes.freeze();
    }
}

impl fmt::Debug for UserProperties {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self).finish()
    }
}
