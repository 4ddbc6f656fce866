//! Dead letters: what a flow could not carry out, kept with the reason.
//!
//! For: the record that goes to [`DEAD_LETTERS`]: key, value and headers as they were, and these
//! after them:
//!
//! | header | value |
//! | --- | --- |
//! | `headwater-dead-reason` | a word of [`Rejected::code`] |
//! | `headwater-dead-message` | the same as a sentence |
//! | `headwater-dead-flow` | the flow's name, e.g. `deliver/commands/devices/{key}/cmd` |
//! | `headwater-dead-topic`, `-partition`, `-offset` | where the record lies; absent after a route, which stored it nowhere else |
//!
//! Holds: no device can write these headers: a User Property of such a name is escaped.

use headwater_commitlog::record::{Record, RecordBody};
use smallvec::SmallVec;

use crate::kafka_name::NameFault;
use crate::record::Header;
use crate::sink::Place;

/// The Kafka topic of dead letters.
pub const DEAD_LETTERS: &str = "headwater.dead-letters";

pub(crate) const REASON: &str = "headwater-dead-reason";
pub(crate) const MESSAGE: &str = "headwater-dead-message";
pub(crate) const FLOW: &str = "headwater-dead-flow";
const TOPIC: &str = "headwater-dead-topic";
const PARTITION: &str = "headwater-dead-partition";
const OFFSET: &str = "headwater-dead-offset";

/// Why a flow cannot carry out a message or record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    #[error("the placeholder {{{placeholder}}} finds nothing here")]
    MissingValue { placeholder: String },
    #[error("the template gives no Kafka topic")]
    KafkaTopic(#[source] NameFault),
    #[error("the template gives no MQTT topic")]
    MqttTopic(#[source] MqttTopicFault),
    #[error("the record has no mqtt-topic header and the deliver has no `to`")]
    NoMqttTopic,
    #[error("the header {header} holds no value that is allowed there")]
    Header { header: &'static str },
    #[error("the topic {topic} does not exist and is not made")]
    NoKafkaTopic { topic: String },
    #[error("the store refuses the document: {reason}")]
    Document { reason: String },
}

impl Rejected {
    /// The word that stands in `headwater-dead-reason`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::MissingValue { .. } => "missing-value",
            Self::KafkaTopic(_) => "kafka-topic",
            Self::MqttTopic(_) => "mqtt-topic",
            Self::NoMqttTopic => "no-mqtt-topic",
            Self::Header { .. } => "header",
            Self::NoKafkaTopic { .. } => "no-kafka-topic",
            Self::Document { .. } => "document",
        }
    }

    /// The whole sentence, with its cause.
    pub fn sentence(&self) -> String {
        match std::error::Error::source(self) {
            Some(cause) => format!("{self}: {cause}"),
            None => self.to_string(),
        }
    }
}

/// Why a text is not a Topic Name that a flow may publish to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MqttTopicFault {
    #[error("a topic name cannot be empty")]
    Empty,
    #[error("a topic name has at most 65,535 bytes")]
    TooLong,
    #[error("a topic name cannot hold the wildcard `{0}`")]
    Wildcard(char),
    #[error("a topic name cannot hold U+0000")]
    Nul,
    #[error("topics that begin with `$` belong to the broker")]
    Dollar,
}

/// Checks a Topic Name that came out of a template or a header.
pub fn check_mqtt_topic(topic: &str) -> Result<(), MqttTopicFault> {
    if topic.is_empty() {
        return Err(MqttTopicFault::Empty);
    }
    if topic.len() > crate::filter::MQTT_STRING_BYTES_MAX {
        return Err(MqttTopicFault::TooLong);
    }
    if topic.starts_with('$') {
        return Err(MqttTopicFault::Dollar);
    }
    match topic.bytes().find(|byte| matches!(byte, b'+' | b'#' | 0)) {
        Some(0) => Err(MqttTopicFault::Nul),
        Some(wildcard) => Err(MqttTopicFault::Wildcard(char::from(wildcard))),
        None => Ok(()),
    }
}

/// The dead letter of a record that lies at `place` and that `flow` could not carry out.
pub fn dead_letter(
    record: &Record,
    place: Place<'_>,
    flow: &str,
    rejected: &Rejected,
) -> RecordBody {
    let sentence = rejected.sentence();
    let partition = place.partition.to_string();
    let offset = record.offset.to_string();
    let mut headers: SmallVec<[Header<'_>; 16]> = record.headers.iter().collect();
    headers.extend(
        [
            (REASON, rejected.code()),
            (MESSAGE, &sentence),
            (FLOW, flow),
            (TOPIC, place.kafka_topic),
            (PARTITION, &partition),
            (OFFSET, &offset),
        ]
        .map(|(name, value)| (name, Some(value.as_bytes()))),
    );
    RecordBody::new(
        record.key.as_deref(),
        record.value.as_deref(),
        headers.iter().copied(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::read_back;

    #[test]
    fn a_dead_letter_is_the_record_with_the_reason_behind_it() {
        let original: [(&str, Option<&[u8]>); 2] = [("a", Some(b"1")), (FLOW, Some(b"older"))];
        let mut record = read_back(&RecordBody::new(Some(b"k"), None, original), 5);
        record.offset = 42;
        let rejected = Rejected::MqttTopic(MqttTopicFault::Wildcard('#'));
        let place = Place {
            kafka_topic: "commands",
            partition: 3,
        };
        let body = dead_letter(&record, place, "deliver/commands/", &rejected);
        let letter = read_back(&body, 6);
        assert_eq!(
            (letter.key.as_deref(), letter.value.as_deref()),
            (Some(&b"k"[..]), None)
        );
        let headers: Vec<_> = letter
            .headers
            .iter()
            .map(|(name, value)| (name, str::from_utf8(value.unwrap()).unwrap()))
            .collect();
        let sentence =
            "the template gives no MQTT topic: a topic name cannot hold the wildcard `#`";
        assert_eq!(
            headers,
            [
                ("a", "1"),
                ("headwater-dead-flow", "older"),
                ("headwater-dead-reason", "mqtt-topic"),
                ("headwater-dead-message", sentence),
                ("headwater-dead-flow", "deliver/commands/"),
                ("headwater-dead-topic", "commands"),
                ("headwater-dead-partition", "3"),
                ("headwater-dead-offset", "42"),
            ]
        );
    }

    #[test]
    fn a_topic_that_devices_cannot_get_is_refused() {
        let long = "x".repeat(65_536);
        for (topic, expected) in [
            ("devices/7/cmd", Ok(())),
            ("", Err(MqttTopicFault::Empty)),
            (&long, Err(MqttTopicFault::TooLong)),
            (&long[1..], Ok(())),
            ("a/+/b", Err(MqttTopicFault::Wildcard('+'))),
            ("a/#", Err(MqttTopicFault::Wildcard('#'))),
            ("a\0", Err(MqttTopicFault::Nul)),
            ("$SYS/x", Err(MqttTopicFault::Dollar)),
        ] {
            assert_eq!(check_mqtt_topic(topic), expected, "{topic:.20}");
        }
    }
}
