//! A message as a Kafka record and back: the headers of the crate's dictionary.
//!
//! For: [`encode_record`] before the commit, [`decode_record`] when a record goes to devices.
//! Calls: `commitlog::record`, which owns the bytes.
//! Holds: `decode_record` gives back exactly what `encode_record` took, but for the publisher's
//! principal, which no header carries. An empty retained payload is a null value, for it clears;
//! any other empty payload is an empty value.

use std::borrow::Cow;

pub use headwater_commitlog::record::{Record, RecordBody};
use smallvec::SmallVec;

use crate::dead_letter::{Rejected, check_mqtt_topic};
use crate::filter::MQTT_STRING_BYTES_MAX;
use crate::message::{Incoming, Outgoing, Properties};

pub const TOPIC: &str = "mqtt-topic";
pub const CLIENT: &str = "mqtt-client";
pub const QOS: &str = "mqtt-qos";
pub const RETAIN: &str = "mqtt-retain";
pub const FORMAT: &str = "mqtt-format";
pub const EXPIRY: &str = "mqtt-expiry";
pub const CONTENT_TYPE: &str = "mqtt-content-type";
pub const RESPONSE_TOPIC: &str = "mqtt-response-topic";
pub const CORRELATION_DATA: &str = "mqtt-correlation-data";

/// Stands before a User Property whose name would pass for one of ours, or begins with it itself.
const ESCAPE: char = '~';

pub(crate) type Header<'a> = (&'a str, Option<&'a [u8]>);

/// The record of a message, with `key`.
pub fn encode_record(incoming: &Incoming<'_>, key: Option<&[u8]>) -> RecordBody {
    encode_with(incoming, key, &[])
}

/// As [`encode_record`], with headers of ours at the end.
pub(crate) fn encode_with(
    incoming: &Incoming<'_>,
    key: Option<&[u8]>,
    ours: &[Header<'_>],
) -> RecordBody {
    let value = (!incoming.payload.is_empty() || !incoming.retain).then_some(incoming.payload);
    let always = [
        (TOPIC, Some(incoming.topic.as_bytes())),
        (CLIENT, Some(incoming.client.as_bytes())),
        (QOS, Some(qos_text(incoming.qos).as_bytes())),
        (RETAIN, Some(bool_text(incoming.retain).as_bytes())),
    ];
    let properties = &incoming.properties;
    if ours.is_empty() && *properties == Properties::default() {
        return RecordBody::new(key, value, always);
    }
    let expiry = properties.expiry_s.map(|seconds| seconds.to_string());
    let escaped: SmallVec<[Cow<'_, str>; 4]> = properties
        .user
        .iter()
        .map(|(name, _)| header_name(name))
        .collect();
    let sometimes = [
        (
            FORMAT,
            properties.utf8.map(|utf8| format_text(utf8).as_bytes()),
        ),
        (EXPIRY, expiry.as_ref().map(|text| text.as_bytes())),
        (CONTENT_TYPE, properties.content_type.map(str::as_bytes)),
        (RESPONSE_TOPIC, properties.response_topic.map(str::as_bytes)),
        (CORRELATION_DATA, properties.correlation_data),
    ];
    let mut headers: SmallVec<[Header<'_>; 16]> = always.into_iter().collect();
    headers.extend(sometimes.into_iter().filter(|(_, value)| value.is_some()));
    let user = escaped.iter().zip(&properties.user);
    headers.extend(user.map(|(name, (_, value))| (name.as_ref(), Some(value.as_bytes()))));
    headers.extend(ours.iter().copied());
    RecordBody::new(key, value, headers.iter().copied())
}

/// The message that a record holds by its headers, whatever its key is: what `deliver` without
/// `to` sends.
pub fn decode_record(record: &Record) -> Result<Outgoing<'_>, Rejected> {
    let facts = Facts::read(record);
    let topic = facts.topic.ok_or(Rejected::NoMqttTopic)?;
    facts.outgoing(record, Cow::Borrowed(topic), None, None)
}

/// As [`decode_record`] for a record of our own making that a Client is owed: the broker took its
/// topic when it was published, so also `$` topics, which no deliver may send to.
pub fn read_owed(record: &Record) -> Result<Outgoing<'_>, Rejected> {
    let facts = Facts::read(record);
    let topic = facts.topic.ok_or(Rejected::NoMqttTopic)?;
    facts.unchecked(record, Cow::Borrowed(topic), None, None)
}

/// A header's name for a User Property's.
pub(crate) fn header_name(property: &str) -> Cow<'_, str> {
    if is_ours(property) || property.starts_with(ESCAPE) {
        Cow::Owned(format!("{ESCAPE}{property}"))
    } else {
        Cow::Borrowed(property)
    }
}

/// The User Property's name for a header's that is not ours.
fn property_name(header: &str) -> &str {
    match header.strip_prefix(ESCAPE) {
        Some(rest) if is_ours(rest) || rest.starts_with(ESCAPE) => rest,
        // Nothing of ours writes such a name; a Kafka producer may.
        _ => header,
    }
}

/// Names that no User Property and no device can give a header.
pub fn is_ours(header: &str) -> bool {
    header.starts_with("mqtt-") || header.starts_with("headwater-")
}

pub(crate) fn qos_text(qos: u8) -> &'static str {
    match qos {
        0 => "0",
        1 => "1",
        _ => "2",
    }
}

pub(crate) fn bool_text(truth: bool) -> &'static str {
    if truth { "true" } else { "false" }
}

pub(crate) fn format_text(utf8: bool) -> &'static str {
    if utf8 { "1" } else { "0" }
}

/// What the headers of a record say in MQTT's terms. Where a name of ours stands twice, the last
/// one counts, as Kafka's clients read it.
#[derive(Debug, Default)]
pub(crate) struct Facts<'a> {
    pub(crate) topic: Option<&'a str>,
    pub(crate) client: Option<&'a str>,
    pub(crate) qos: Option<u8>,
    pub(crate) retain: Option<bool>,
    properties: Properties<'a>,
    /// A header of ours with a value that it cannot have: another hand wrote it.
    wrong: Option<&'static str>,
    left_out: usize,
}

impl<'a> Facts<'a> {
    pub(crate) fn read(record: &'a Record) -> Self {
        let mut facts = Self::default();
        for (name, value) in record.headers.iter() {
            if is_ours(name) {
                facts.ours(name, value);
            } else {
                let text = value.and_then(mqtt_text);
                let property = property_name(name);
                match text.filter(|_| mqtt_text(property.as_bytes()).is_some()) {
                    Some(text) => facts.properties.user.push((property, text)),
                    None => facts.left_out += 1,
                }
            }
        }
        facts
    }

    fn ours(&mut self, name: &str, value: Option<&'a [u8]>) {
        let text = value.and_then(mqtt_text);
        let properties = &mut self.properties;
        let wrong = match name {
            TOPIC => keep(&mut self.topic, text, TOPIC),
            CLIENT => keep(&mut self.client, text, CLIENT),
            QOS => keep(&mut self.qos, text.and_then(qos_number), QOS),
            RETAIN => keep(&mut self.retain, text.and_then(truth), RETAIN),
            FORMAT => keep(&mut properties.utf8, text.and_then(truth), FORMAT),
            EXPIRY => keep(
                &mut properties.expiry_s,
                text.and_then(|t| t.parse().ok()),
                EXPIRY,
            ),
            CONTENT_TYPE => keep(&mut properties.content_type, text, CONTENT_TYPE),
            RESPONSE_TOPIC => keep(&mut properties.response_topic, text, RESPONSE_TOPIC),
            CORRELATION_DATA => {
                let short = value.filter(|bytes| bytes.len() <= MQTT_STRING_BYTES_MAX);
                keep(&mut properties.correlation_data, short, CORRELATION_DATA)
            }
            // A later version's, or a dead letter's reason.
            _ => None,
        };
        self.wrong = self.wrong.or(wrong);
    }

    /// The message to `topic`; the record's QoS and retain where none is given.
    pub(crate) fn outgoing(
        self,
        record: &Record,
        topic: Cow<'a, str>,
        qos: Option<u8>,
        retain: Option<bool>,
    ) -> Result<Outgoing<'a>, Rejected> {
        if self.wrong.is_none() {
            check_mqtt_topic(&topic).map_err(Rejected::MqttTopic)?;
        }
        self.unchecked(record, topic, qos, retain)
    }

    fn unchecked(
        self,
        record: &Record,
        topic: Cow<'a, str>,
        qos: Option<u8>,
        retain: Option<bool>,
    ) -> Result<Outgoing<'a>, Rejected> {
        if let Some(header) = self.wrong {
            return Err(Rejected::Header { header });
        }
        Ok(Outgoing {
            topic,
            payload: record.value.clone().unwrap_or_default(),
            qos: qos.or(self.qos).unwrap_or(1),
            retain: retain.or(self.retain).unwrap_or(false),
            client: self.client,
            at_ms: record.timestamp_ms,
            properties: self.properties,
            headers_left_out: self.left_out,
        })
    }
}

/// Puts `value` into `slot`; names the header if there is nothing to put.
fn keep<T>(slot: &mut Option<T>, value: Option<T>, header: &'static str) -> Option<&'static str> {
    *slot = value;
    slot.is_none().then_some(header)
}

fn qos_number(text: &str) -> Option<u8> {
    match text {
        "0" => Some(0),
        "1" => Some(1),
        "2" => Some(2),
        _ => None,
    }
}

/// `true`/`false` as we write them, `1`/`0` as others do.
fn truth(text: &str) -> Option<bool> {
    match text {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

/// Bytes that can be an MQTT string (1.5.4).
fn mqtt_text(bytes: &[u8]) -> Option<&str> {
    let fits = bytes.len() <= MQTT_STRING_BYTES_MAX && !bytes.contains(&0);
    str::from_utf8(bytes).ok().filter(|_| fits)
}

#[cfg(test)]
pub(crate) mod tests {
    use bytes::Bytes;
    use headwater_commitlog::record::{BatchBuilder, Limits, records};
    use proptest::prelude::*;

    use super::*;

    /// The record as a reader of the log gets it.
    pub(crate) fn read_back(body: &RecordBody, timestamp_ms: i64) -> Record {
        let mut batch = BatchBuilder::new(0);
        batch.push(timestamp_ms, body);
        let mut found = records(batch.finish(), &Limits::default());
        found.next().unwrap().unwrap()
    }

    fn headers(record: &Record) -> Vec<(String, String)> {
        record
            .headers
            .iter()
            .map(|(name, value)| {
                (
                    name.to_owned(),
                    String::from_utf8_lossy(value.unwrap()).into_owned(),
                )
            })
            .collect()
    }

    pub(crate) fn plain<'a>(topic: &'a str, payload: &'a [u8]) -> Incoming<'a> {
        Incoming {
            topic,
            payload,
            qos: 1,
            client: "c1",
            at_ms: 1_000,
            ..Incoming::default()
        }
    }

    #[test]
    fn the_mqtt_facts_stand_in_headers() {
        let mut incoming = plain("a/b", b"{}");
        incoming.properties = Properties {
            utf8: Some(true),
            expiry_s: Some(60),
            content_type: Some("application/json"),
            response_topic: Some("r"),
            correlation_data: Some(b"x"),
            user: vec![("k", "1"), ("k", "2")],
        };
        let record = read_back(&encode_record(&incoming, Some(b"key")), 1_000);
        assert_eq!(record.key.as_deref(), Some(&b"key"[..]));
        assert_eq!(record.value.as_deref(), Some(&b"{}"[..]));
        let expected = [
            ("mqtt-topic", "a/b"),
            ("mqtt-client", "c1"),
            ("mqtt-qos", "1"),
            ("mqtt-retain", "false"),
            ("mqtt-format", "1"),
            ("mqtt-expiry", "60"),
            ("mqtt-content-type", "application/json"),
            ("mqtt-response-topic", "r"),
            ("mqtt-correlation-data", "x"),
            ("k", "1"),
            ("k", "2"),
        ];
        assert_eq!(
            headers(&record),
            expected.map(|(n, v)| (n.to_owned(), v.to_owned()))
        );
    }

    #[test]
    fn what_a_client_is_owed_is_read_back_whatever_its_topic() {
        let record = read_back(&encode_record(&plain("$foo/bar", b"x"), None), 1_000);
        let refused = decode_record(&record);
        assert!(
            matches!(refused, Err(Rejected::MqttTopic(_))),
            "{refused:?}"
        );
        let outgoing = read_owed(&record).unwrap();
        assert_eq!(
            (&*outgoing.topic, &*outgoing.payload),
            ("$foo/bar", &b"x"[..])
        );
    }

    #[test]
    fn a_device_cannot_fake_our_headers() {
        let mut incoming = plain("a", b"x");
        incoming.properties.user = [
            ("mqtt-client", "admin"),
            ("headwater-dead-flow", "f"),
            ("~mqtt-qos", "2"),
            ("~", "t"),
            ("Mqtt-x", "y"),
        ]
        .into_iter()
        .collect();
        let record = read_back(&encode_record(&incoming, None), 0);
        assert_eq!(record.headers.last("mqtt-client"), Some(Some(&b"c1"[..])));
        let names: Vec<String> = headers(&record)
            .into_iter()
            .skip(4)
            .map(|(n, _)| n)
            .collect();
        assert_eq!(
            names,
            [
                "~mqtt-client",
                "~headwater-dead-flow",
                "~~mqtt-qos",
                "~~",
                "Mqtt-x"
            ]
        );
        let back = decode_record(&record).unwrap();
        assert_eq!(back.properties.user, incoming.properties.user);
    }

    #[test]
    fn only_an_empty_retained_payload_is_a_null_value() {
        for (payload, retain, value) in [
            (&b""[..], true, None),
            (b"", false, Some(&b""[..])),
            (b"x", true, Some(b"x")),
        ] {
            let incoming = Incoming {
                retain,
                ..plain("a", payload)
            };
            let record = read_back(&encode_record(&incoming, None), 0);
            assert_eq!(record.value.as_deref(), value, "{payload:?} {retain}");
        }
    }

    #[test]
    fn a_record_of_another_hand_is_read_as_far_as_mqtt_can_carry_it() {
        let long = vec![b'x'; MQTT_STRING_BYTES_MAX + 1];
        let foreign: [(&str, Option<&[u8]>); 7] = [
            (TOPIC, Some(b"first")),
            (TOPIC, Some(b"last")),
            ("ok", Some(b"1")),
            ("null", None),
            ("bytes", Some(b"\xFF")),
            ("nul", Some(b"\0")),
            ("long", Some(&long)),
        ];
        let record = read_back(&RecordBody::new(None, None, foreign), 77);
        let message = decode_record(&record).unwrap();
        assert_eq!(message.topic, "last");
        assert_eq!((message.qos, message.retain, message.at_ms), (1, false, 77));
        assert_eq!(message.payload, Bytes::new());
        assert_eq!(message.properties.user.as_slice(), [("ok", "1")]);
        assert_eq!(message.headers_left_out, 4);
    }

    #[test]
    fn a_header_of_ours_with_an_impossible_value_is_rejected() {
        for (header, value) in [(QOS, "3"), (RETAIN, "yes"), (EXPIRY, "-1"), (FORMAT, "2")] {
            let both = [(TOPIC, Some(&b"t"[..])), (header, Some(value.as_bytes()))];
            let record = read_back(&RecordBody::new(None, None, both), 0);
            assert_eq!(decode_record(&record), Err(Rejected::Header { header }));
        }
        let record = read_back(&RecordBody::new(None, Some(b"v"), []), 0);
        assert_eq!(decode_record(&record), Err(Rejected::NoMqttTopic));
    }

    prop_compose! {
        fn properties()(
            utf8: Option<bool>,
            expiry_s: Option<u32>,
            content_type in proptest::option::of("[a-z/]{0,8}"),
            response_topic in proptest::option::of("[a-z/]{1,8}"),
            correlation_data: Option<Vec<u8>>,
            user in proptest::collection::vec(
                ("(mqtt-|headwater-|~|~~|)[^\0]{0,6}|mqtt-(topic|client|qos)", "[^\0]{0,6}"), 0..6),
        ) -> (Option<bool>, Option<u32>, Option<String>, Option<String>, Option<Vec<u8>>, Vec<(String, String)>) {
            (utf8, expiry_s, content_type, response_topic, correlation_data, user)
        }
    }

    proptest! {
        #[test]
        fn decoding_gives_back_what_was_encoded(
            topic in "[^$+#\0][^+#\0]{0,30}",
            client in "[^\0]{0,23}",
            payload: Vec<u8>,
            qos in 0_u8..3,
            retain: bool,
            at_ms in 0_i64..4_000_000_000_000,
            key: Option<Vec<u8>>,
            held in properties(),
        ) {
            let incoming = Incoming {
                topic: &topic,
                payload: &payload,
                qos,
                retain,
                client: &client,
                user: Some("u"),
                at_ms,
                properties: Properties {
                    utf8: held.0,
                    expiry_s: held.1,
                    content_type: held.2.as_deref(),
                    response_topic: held.3.as_deref(),
                    correlation_data: held.4.as_deref(),
                    user: held.5.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect(),
                },
            };
            let record = read_back(&encode_record(&incoming, key.as_deref()), at_ms);
            prop_assert_eq!(record.key.as_deref(), key.as_deref());
            let expected = Outgoing {
                topic: Cow::Borrowed(&topic),
                payload: Bytes::copy_from_slice(&payload),
                qos,
                retain,
                client: Some(&client),
                at_ms,
                properties: incoming.properties,
                headers_left_out: 0,
            };
            prop_assert_eq!(decode_record(&record), Ok(expected));
        }
    }
}
