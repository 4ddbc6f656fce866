//! From the facts of a record to the text of its document.
//!
//! For: [`Facts`] in, the body of a document out, collected in a [`Batch`]; and the whole document
//! out of a body and what stands in columns.
//! Not for: which records become documents and where they go (`bridge`), nor for SQL.
//! Calls: `payload`. Called by: the sink's driver; `writer` reads the batch, `reader` the bodies.
//! Holds: every record makes a document; a payload that cannot stand as JSON stands as text or
//! base64, with its kind named. A document is one line.
//!
//! A document's fields: `_id` ("TOPIC-UUID/PARTITION/OFFSET"), `topic` (MQTT's), `ts` (a date),
//! `kafka_topic`, `partition`, `offset`, `client`, `qos`, `retain`, `headers`, `payload`,
//! `payload_kind` (json, text, binary, null). All are always there; what is not known is null.
//! `headers` is an object: a value is text, `{"$binary": …}` where it is not UTF-8, or null; a name
//! that occurs more than once has an array of its values.

use crate::Namespace;
use crate::date::{push_date, write_all};
use crate::payload::{push_key, push_payload};
use crate::value::{Value, push_binary, push_string};
use std::borrow::Cow;
use std::ops::Range;
use uuid::Uuid;

/// Where a record lies in the log; a document's `_id`.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Position {
    /// The Kafka topic's random id: a topic made anew under the same name has another.
    pub topic: Uuid,
    pub partition: u32,
    /// At most `i64::MAX`, as Kafka's.
    pub offset: u64,
}

/// What is known of a record. All borrowed: [`Batch::push`] copies what it needs.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    pub position: Position,
    pub kafka_topic: &'a str,
    /// The record's timestamp, milliseconds since 1970.
    pub ts_ms: i64,
    /// The MQTT topic name; `None` for a record that did not come by MQTT.
    pub topic: Option<&'a str>,
    pub client: Option<&'a str>,
    pub qos: Option<u8>,
    pub retain: Option<bool>,
    /// The record's headers in order, without those the fields above were read from.
    pub headers: &'a [(&'a str, Option<&'a [u8]>)],
    /// The record's value; `None` is Kafka's null.
    pub payload: Option<&'a [u8]>,
}

/// Documents on their way into the store: one buffer for all, to be cleared and used again.
#[derive(Debug, Default)]
pub struct Batch {
    text: String,
    rows: Vec<Row>,
    /// The few different collections of `rows`.
    namespaces: Vec<Namespace>,
    kafka_topics: Vec<String>,
}

#[derive(Debug)]
struct Row {
    namespace: usize,
    kafka_topic: usize,
    position: Position,
    ts_ms: i64,
    arrays: bool,
    topic: Option<Range<usize>>,
    body: Range<usize>,
}

/// One document of a batch, as `writer` wants it.
pub(crate) struct Entry<'b> {
    pub(crate) namespace: &'b Namespace,
    pub(crate) kafka_topic: &'b str,
    pub(crate) position: Position,
    pub(crate) ts_ms: i64,
    pub(crate) topic: Option<&'b str>,
    pub(crate) arrays: bool,
    pub(crate) body: &'b str,
}

impl Batch {
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends the document of `facts`, to be written into `namespace`.
    pub fn push(&mut self, namespace: &Namespace, facts: &Facts<'_>) {
        let namespace = intern(
            &mut self.namespaces,
            |n| n == namespace,
            || namespace.clone(),
        );
        let kafka_topic = intern(
            &mut self.kafka_topics,
            |name| name == facts.kafka_topic,
            || facts.kafka_topic.to_owned(),
        );
        let topic = facts.topic.map(|topic| {
            let start = self.text.len();
            self.text.push_str(topic);
            start..self.text.len()
        });
        let start = self.text.len();
        let arrays = push_body(&mut self.text, facts);
        self.rows.push(Row {
            namespace,
            kafka_topic,
            position: facts.position,
            ts_ms: facts.ts_ms,
            arrays,
            topic,
            body: start..self.text.len(),
        });
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Bytes of text held, for bounding a batch.
    pub fn bytes(&self) -> usize {
        self.text.len()
    }

    /// Forgets the documents, keeps the memory.
    pub fn clear(&mut self) {
        self.text.clear();
        self.rows.clear();
        self.namespaces.clear();
        self.kafka_topics.clear();
    }

    /// The documents as `find` will give them, each one line without its end.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.entries().map(|entry| {
            let head = Head {
                position: entry.position,
                topic: entry.topic,
                ts_ms: entry.ts_ms,
                kafka_topic: entry.kafka_topic,
            };
            let mut line = String::with_capacity(entry.body.len() + 256);
            head.push_document(&mut line, entry.body);
            line
        })
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        self.rows.iter().filter_map(|row| {
            Some(Entry {
                namespace: self.namespaces.get(row.namespace)?,
                kafka_topic: self.kafka_topics.get(row.kafka_topic)?,
                position: row.position,
                ts_ms: row.ts_ms,
                topic: match &row.topic {
                    Some(range) => Some(self.text.get(range.clone())?),
                    None => None,
                },
                arrays: row.arrays,
                body: self.text.get(row.body.clone())?,
            })
        })
    }
}

/// The place of a value in a short list, appended where it is not there. The last is the likeliest.
fn intern<T>(list: &mut Vec<T>, same: impl Fn(&T) -> bool, make: impl FnOnce() -> T) -> usize {
    list.iter().rposition(same).unwrap_or_else(|| {
        list.push(make());
        list.len() - 1
    })
}

/// Appends what of a document is not in columns; true if an array stands in it.
fn push_body(out: &mut String, facts: &Facts<'_>) -> bool {
    out.push_str(r#"{"client":"#);
    match facts.client {
        Some(client) => push_string(out, client),
        None => out.push_str("null"),
    }
    match facts.qos {
        Some(qos) => write_all(out, format_args!(",\"qos\":{qos}")),
        None => out.push_str(",\"qos\":null"),
    }
    out.push_str(match facts.retain {
        Some(true) => ",\"retain\":true,\"headers\":{",
        Some(false) => ",\"retain\":false,\"headers\":{",
        None => ",\"retain\":null,\"headers\":{",
    });
    let repeated = push_headers(out, facts.headers);
    out.push_str("},\"payload\":");
    let payload = push_payload(out, facts.payload);
    out.push_str(",\"payload_kind\":\"");
    out.push_str(payload.kind.name());
    out.push_str("\"}");
    repeated || payload.arrays
}

/// True if a name is there more than once.
fn push_headers(out: &mut String, headers: &[(&str, Option<&[u8]>)]) -> bool {
    // By name, then by place: the values of one name are next to each other, and no number of
    // headers costs more than a sort.
    let mut order: Vec<usize> = (0..headers.len()).collect();
    let name = |place: &usize| headers.get(*place).map_or("", |(name, _)| name);
    order.sort_by(|a, b| name(a).cmp(name(b)));
    let mut groups: Vec<&[usize]> = order.chunk_by(|a, b| name(a) == name(b)).collect();
    groups.sort_by_key(|group| group.first().copied());
    for (n, group) in groups.iter().enumerate() {
        if n > 0 {
            out.push(',');
        }
        push_key(out, group.first().map_or("", name));
        out.push_str(if group.len() > 1 { ":[" } else { ":" });
        for (n, place) in group.iter().enumerate() {
            if n > 0 {
                out.push(',');
            }
            match headers.get(*place).and_then(|(_, value)| *value) {
                None => out.push_str("null"),
                Some(bytes) => match str::from_utf8(bytes) {
                    Ok(text) => push_string(out, text),
                    Err(_) => push_binary(out, bytes),
                },
            }
        }
        if group.len() > 1 {
            out.push(']');
        }
    }
    groups.len() < headers.len()
}

/// What of a document stands in columns.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head<'a> {
    pub(crate) position: Position,
    pub(crate) topic: Option<&'a str>,
    pub(crate) ts_ms: i64,
    pub(crate) kafka_topic: &'a str,
}

impl Head<'_> {
    /// Appends the whole document: the head, then what stands in `body`.
    pub(crate) fn push_document(&self, out: &mut String, body: &str) {
        out.push_str("{\"_id\":\"");
        push_id(out, &self.position);
        out.push_str("\",\"topic\":");
        match self.topic {
            Some(topic) => push_string(out, topic),
            None => out.push_str("null"),
        }
        out.push_str(",\"ts\":");
        push_date(out, self.ts_ms);
        out.push_str(",\"kafka_topic\":");
        push_string(out, self.kafka_topic);
        let Position {
            partition, offset, ..
        } = self.position;
        write_all(
            out,
            format_args!(",\"partition\":{partition},\"offset\":{offset},"),
        );
        out.push_str(body.get(1..).unwrap_or("}"));
    }

    /// The whole document as a value, for filters and sorts.
    pub(crate) fn value<'a>(&'a self, body: Value<'a>) -> Value<'a> {
        let mut id = String::with_capacity(64);
        push_id(&mut id, &self.position);
        let offset = i64::try_from(self.position.offset).unwrap_or(i64::MAX);
        let mut fields: Vec<(Cow<'a, str>, Value<'a>)> = Vec::with_capacity(12);
        let mut field = |name: &'static str, value| fields.push((Cow::Borrowed(name), value));
        field("_id", Value::String(Cow::Owned(id)));
        field(
            "topic",
            self.topic
                .map_or(Value::Null, |topic| Value::String(Cow::Borrowed(topic))),
        );
        field("ts", Value::Date(self.ts_ms));
        field(
            "kafka_topic",
            Value::String(Cow::Borrowed(self.kafka_topic)),
        );
        field("partition", Value::Int(i64::from(self.position.partition)));
        field("offset", Value::Int(offset));
        if let Value::Object(body) = body {
            fields.extend(body);
        }
        Value::Object(fields)
    }
}

/// Appends "TOPIC-UUID/PARTITION/OFFSET".
pub(crate) fn push_id(out: &mut String, position: &Position) {
    let mut buffer = Uuid::encode_buffer();
    out.push_str(position.topic.hyphenated().encode_lower(&mut buffer));
    write_all(
        out,
        format_args!("/{}/{}", position.partition, position.offset),
    );
}

/// Reads what [`push_id`] writes, and nothing else.
pub(crate) fn parse_id(text: &str) -> Option<Position> {
    let mut parts = text.splitn(3, '/');
    let position = Position {
        topic: Uuid::try_parse(parts.next()?).ok()?,
        partition: parts.next()?.parse().ok()?,
        offset: parts
            .next()?
            .parse()
            .ok()
            .filter(|offset| i64::try_from(*offset).is_ok())?,
    };
    let mut canonical = String::with_capacity(64);
    push_id(&mut canonical, &position);
    (canonical == text).then_some(position)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts<'static> {
        Facts {
            position: Position {
                topic: Uuid::from_u128(1),
                partition: 2,
                offset: 3,
            },
            kafka_topic: "mqtt",
            ts_ms: 1_795_368_451_123,
            topic: Some("a/\"b\""),
            client: Some("c1"),
            qos: Some(1),
            retain: Some(false),
            headers: &[],
            payload: Some(b"{\"temp\": 21.50}"),
        }
    }

    fn document(facts: &Facts<'_>) -> String {
        let mut batch = Batch::new();
        batch.push(&Namespace::parse("a.b").unwrap(), facts);
        batch.lines().next().unwrap()
    }

    #[test]
    fn a_record_made_from_mqtt_is_a_document() {
        assert_eq!(
            document(&facts()),
            concat!(
                r#"{"_id":"00000000-0000-0000-0000-000000000001/2/3","topic":"a/\"b\"","#,
                r#""ts":{"$date":"2026-11-22T17:27:31.123Z"},"kafka_topic":"mqtt","#,
                r#""partition":2,"offset":3,"client":"c1","qos":1,"retain":false,"headers":{},"#,
                r#""payload":{"temp": 21.50},"payload_kind":"json"}"#
            )
        );
    }

    #[test]
    fn what_a_record_does_not_say_is_null() {
        let bare = Facts {
            topic: None,
            client: None,
            qos: None,
            retain: None,
            payload: None,
            ts_ms: -1,
            ..facts()
        };
        assert!(document(&bare).ends_with(concat!(
            r#""topic":null,"ts":{"$date":{"$numberLong":"-1"}},"kafka_topic":"mqtt","#,
            r#""partition":2,"offset":3,"client":null,"qos":null,"retain":null,"headers":{},"#,
            r#""payload":null,"payload_kind":"null"}"#
        )));
    }

    #[test]
    fn headers_keep_order_repetition_and_bytes() {
        let headers: [(&str, Option<&[u8]>); 5] = [
            ("z", Some(b"1")),
            ("$a", Some(b"\xff")),
            ("z", Some(b"2")),
            ("n", None),
            ("z", None),
        ];
        let document = document(&Facts {
            headers: &headers,
            ..facts()
        });
        let expected = concat!(
            r#""headers":{"z":["1","2",null],"#,
            r#""_$a":{"$binary":{"base64":"/w==","subType":"00"}},"n":null}"#
        );
        assert!(document.contains(expected), "{document}");
    }

    #[test]
    fn ids_are_read_only_as_they_are_written() {
        let position = facts().position;
        let mut text = String::new();
        push_id(&mut text, &position);
        assert_eq!(parse_id(&text), Some(position));
        for wrong in [
            "",
            "x/2/3",
            &text.replace("/2/", "/02/"),
            &format!("{text}/4"),
            &text[..37],
        ] {
            assert_eq!(parse_id(wrong), None, "{wrong}");
        }
        assert_eq!(
            parse_id(&format!("{}/0/9223372036854775808", Uuid::nil())),
            None
        );
    }
}
