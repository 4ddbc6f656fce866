//! `[[sink]]`: which records become documents, and what there is to say in them.
//!
//! For: [`Sink::document`], the facts of one record. The document itself is built by the store.
//! Not for: JSON, `_id`, writing (`server` hands the facts to `docstore`).
//! Holds: every header is in the document, either as a fact of its own or among `headers`.

use crate::condition::Condition;
use crate::config::SinkConfig;
use crate::flows::{Fault, check_source, compile_where};
use crate::record::{self, Facts, Record};
use crate::scope::{Context, Scope};

/// Longest `into`, as MongoDB has it for a namespace.
const NAMESPACE_BYTES_MAX: usize = 255;

/// A compiled `[[sink]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Sink {
    name: String,
    from: String,
    into: String,
    condition: Option<Condition>,
}

/// In which partition a record lies; its offset it knows itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    pub kafka_topic: &'a str,
    pub partition: u32,
}

/// What a document says of a record. A fact is `None` where the record has no such header, as
/// records of Kafka producers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentFacts<'a> {
    /// `topic`
    pub mqtt_topic: Option<&'a str>,
    /// `ts`: the record's timestamp, milliseconds since 1970.
    pub ts_ms: i64,
    pub client: Option<&'a str>,
    pub qos: Option<u8>,
    pub retain: Option<bool>,
    pub kafka_topic: &'a str,
    pub partition: u32,
    pub offset: u64,
    pub key: Option<&'a [u8]>,
    /// All headers but the four that are facts above, in order, by the names they have in the log.
    pub headers: Vec<(&'a str, Option<&'a [u8]>)>,
    /// `None` for a null value.
    pub payload: Option<&'a [u8]>,
}

impl Sink {
    pub(crate) fn compile(config: &SinkConfig) -> Result<Self, Fault> {
        check_source(&config.from)?;
        check_namespace(&config.into)?;
        Ok(Self {
            name: format!("sink/{}/{}", config.from, config.into),
            from: config.from.clone(),
            into: config.into.clone(),
            condition: compile_where(config.condition.as_deref(), Context::Record)?,
        })
    }

    /// Names its position in the store, its metrics and its dead letters. The same as long as
    /// `from` and `into` are the same.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The Kafka topic it reads.
    pub fn from(&self) -> &str {
        &self.from
    }

    /// `database.collection`
    pub fn into_namespace(&self) -> &str {
        &self.into
    }

    /// The facts of `record`, which lies at `place`; `None` if `where` does not take it.
    pub fn document<'a>(&self, record: &'a Record, place: Place<'a>) -> Option<DocumentFacts<'a>> {
        let facts = Facts::read(record);
        if let Some(condition) = &self.condition
            && !condition.holds(&Scope::record(record, &facts), &[])
        {
            return None;
        }
        let own = [record::TOPIC, record::CLIENT, record::QOS, record::RETAIN];
        Some(DocumentFacts {
            mqtt_topic: facts.topic,
            ts_ms: record.timestamp_ms,
            client: facts.client,
            qos: facts.qos,
            retain: facts.retain,
            kafka_topic: place.kafka_topic,
            partition: place.partition,
            offset: record.offset,
            key: record.key.as_deref(),
            headers: record
                .headers
                .iter()
                .filter(|(name, _)| !own.contains(name))
                .collect(),
            payload: record.value.as_deref(),
        })
    }
}

/// `database.collection`: a letter, digit, `_` or `-` each, the collection with dots too.
fn check_namespace(into: &str) -> Result<(), Fault> {
    let fail = |at, message: &str| Err(Fault::at("into", at, message));
    if into.len() > NAMESPACE_BYTES_MAX {
        return fail(0, "`into` has at most 255 bytes");
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if let Some((at, found)) = into.char_indices().find(|(_, c)| !allowed(*c)) {
        let sentence = format!("`{found}` cannot stand here; write `database.collection`");
        return Err(Fault::at("into", at, sentence));
    }
    match into.split_once('.') {
        Some((database, collection)) if !database.is_empty() => {
            if collection.split('.').any(str::is_empty) {
                return fail(
                    database.len() + 1,
                    "the collection's name is missing behind the dot",
                );
            }
            Ok(())
        }
        _ => fail(0, "write `database.collection`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Incoming, Properties};
    use crate::record::tests::{plain, read_back};
    use crate::record::{RecordBody, encode_record};

    fn sink(condition: Option<&str>) -> Sink {
        let mut config = SinkConfig::new("mqtt", "headwater.messages");
        config.condition = condition.map(str::to_owned);
        Sink::compile(&config).unwrap_or_else(|fault| {
            let _unused = fault;
            panic!("{condition:?}")
        })
    }

    const PLACE: Place<'_> = Place {
        kafka_topic: "mqtt",
        partition: 2,
    };

    #[test]
    fn a_message_becomes_its_facts() {
        let incoming = Incoming {
            properties: Properties {
                content_type: Some("text/plain"),
                user: [("k", "v"), ("mqtt-x", "w")].into_iter().collect(),
                ..Properties::default()
            },
            ..plain("a/b", b"{}")
        };
        let mut record = read_back(&encode_record(&incoming, Some(b"c1")), 7);
        record.offset = 40;
        let expected = DocumentFacts {
            mqtt_topic: Some("a/b"),
            ts_ms: 7,
            client: Some("c1"),
            qos: Some(1),
            retain: Some(false),
            kafka_topic: "mqtt",
            partition: 2,
            offset: 40,
            key: Some(b"c1"),
            headers: [
                ("mqtt-content-type", Some(&b"text/plain"[..])),
                ("k", Some(b"v")),
                ("~mqtt-x", Some(b"w")),
            ]
            .into_iter()
            .collect(),
            payload: Some(b"{}"),
        };
        assert_eq!(sink(None).document(&record, PLACE), Some(expected));
    }

    #[test]
    fn a_record_of_a_kafka_producer_lacks_the_mqtt_facts_and_is_kept() {
        let record = read_back(&RecordBody::new(None, None, [("mqtt-qos", None)]), 7);
        let facts = sink(None).document(&record, PLACE).unwrap();
        assert_eq!(
            (facts.mqtt_topic, facts.qos, facts.key, facts.payload),
            (None, None, None, None)
        );
    }

    #[test]
    fn where_decides_over_key_headers_and_value() {
        let record = read_back(&encode_record(&plain("a/b", br#"{"t": 3}"#), Some(b"k")), 7);
        for (condition, taken) in [
            (
                "value.t == 3 and key == 'k' and topic == 'a/b' and client == 'c1'",
                true,
            ),
            ("header.mqtt-qos == '1'", true),
            ("value.t > 3", false),
        ] {
            let found = sink(Some(condition)).document(&record, PLACE);
            assert_eq!(found.is_some(), taken, "{condition}");
        }
    }
}
