//! An MQTT message as `bridge` sees it: coming in from a publisher, going out to subscribers.
//!
//! For: plain types that `server` maps the broker's message to and from; nothing is copied.
//! Not for: packets and sessions (`mqtt-broker`).

use std::borrow::Cow;

use bytes::Bytes;

/// A PUBLISH that the broker took, before the commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Incoming<'a> {
    /// Topic Name, an alias already resolved.
    pub topic: &'a str,
    pub payload: &'a [u8],
    /// 0, 1 or 2.
    pub qos: u8,
    pub retain: bool,
    /// Client Identifier of the publisher.
    pub client: &'a str,
    /// The publisher's principal; `None` counts as `anonymous` in templates.
    pub user: Option<&'a str>,
    /// Wall clock at arrival, in milliseconds since 1970: the record's timestamp.
    pub at_ms: i64,
    pub properties: Properties<'a>,
}

/// What MQTT 5.0 may add to a PUBLISH (3.3.2.3) that concerns more than one hop.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Properties<'a> {
    /// Payload Format Indicator: `Some(true)` says UTF-8, `Some(false)` bytes.
    pub utf8: Option<bool>,
    /// Message Expiry Interval in seconds, counted from `at_ms`.
    pub expiry_s: Option<u32>,
    pub content_type: Option<&'a str>,
    pub response_topic: Option<&'a str>,
    pub correlation_data: Option<&'a [u8]>,
    /// User Properties in the order they were sent; a name may stand more than once.
    pub user: Vec<(&'a str, &'a str)>,
}

/// A message for the devices, made from a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing<'a> {
    /// Topic Name: not empty, no wildcard, no `$` in front, at most 65,535 bytes.
    pub topic: Cow<'a, str>,
    pub payload: Bytes,
    /// 0, 1 or 2.
    pub qos: u8,
    pub retain: bool,
    /// Client Identifier of the first publisher, where the record came by MQTT.
    pub client: Option<&'a str>,
    /// The record's timestamp. `properties.expiry_s` counts from here: who sends the message
    /// on takes off the time that has passed, and drops it when none is left.
    pub at_ms: i64,
    pub properties: Properties<'a>,
    /// Headers of the record that no User Property can carry (no value, no UTF-8, U+0000, longer
    /// than 65,535 bytes). They are left out; the record keeps them.
    pub headers_left_out: usize,
}
