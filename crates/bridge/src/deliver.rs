//! `[[deliver]]`: what a record says to devices.
//!
//! For: [`Deliver::render`], the message of one record.
//! Not for: reading the log, sessions, the position (`server`, in the same commit as the effects).
//! Holds: without `to` it is the exact inverse of a route, whatever the key is.

use std::borrow::Cow;

use crate::config::{DeliverConfig, Qos};
use crate::dead_letter::{Rejected, check_mqtt_topic};
use crate::flows::{Fault, check_commit, check_source};
use crate::message::Outgoing;
use crate::record::{Facts, Record};
use crate::scope::{Context, Scope};
use crate::template::Template;

/// A compiled `[[deliver]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Deliver {
    name: String,
    from: String,
    to: Option<Template>,
    qos: Option<Qos>,
    retain: Option<bool>,
}

impl Deliver {
    pub(crate) fn compile(config: &DeliverConfig) -> Result<Self, Fault> {
        check_source(&config.from)?;
        let to = match config.to.as_deref() {
            None => None,
            Some(text) => Some(compile_to(text)?),
        };
        check_commit(config)?;
        Ok(Self {
            name: format!(
                "deliver/{}/{}",
                config.from,
                config.to.as_deref().unwrap_or("")
            ),
            from: config.from.clone(),
            to,
            qos: config.qos,
            retain: config.retain,
        })
    }

    /// Names its position in the log, its metrics and its dead letters. The same as long as `from`
    /// and `to` are the same.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The Kafka topic it reads.
    pub fn from(&self) -> &str {
        &self.from
    }

    /// The message of `record`. What it publishes must not be routed again.
    pub fn render<'a>(&self, record: &'a Record) -> Result<Outgoing<'a>, Rejected> {
        let facts = Facts::read(record);
        let topic = match &self.to {
            None => Cow::Borrowed(facts.topic.ok_or(Rejected::NoMqttTopic)?),
            Some(to) => {
                let scope = Scope::record(record, &facts);
                let topic = to
                    .render(&scope, &[])
                    .map_err(|missing| Rejected::MissingValue {
                        placeholder: missing.0,
                    })?;
                Cow::Owned(topic.into_owned())
            }
        };
        facts.outgoing(record, topic, self.qos.map(Qos::number), self.retain)
    }
}

fn compile_to(text: &str) -> Result<Template, Fault> {
    let template = Template::parse(text, Context::Record).map_err(Fault::text("to"))?;
    if let Some(fixed) = template.fixed() {
        check_mqtt_topic(fixed).map_err(|fault| Fault::at("to", 0, fault.to_string()))?;
    }
    for literal in template.literals() {
        if let Some(wildcard) = literal.chars().find(|c| matches!(c, '+' | '#' | '\0')) {
            let at = text.find(wildcard).unwrap_or(0);
            return Err(Fault::at(
                "to",
                at,
                "a topic name holds no wildcard and no U+0000",
            ));
        }
    }
    if text.starts_with('$') {
        return Err(Fault::at(
            "to",
            0,
            "topics that begin with `$` belong to the broker",
        ));
    }
    Ok(template)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dead_letter::MqttTopicFault;
    use crate::message::{Incoming, Properties};
    use crate::record::tests::{plain, read_back};
    use crate::record::{RecordBody, encode_record};

    fn deliver(config: &DeliverConfig) -> Deliver {
        Deliver::compile(config).unwrap_or_else(|fault| {
            let _unused = fault;
            panic!("{config:?}")
        })
    }

    fn to(text: &str) -> Deliver {
        deliver(&DeliverConfig {
            to: Some(text.to_owned()),
            ..DeliverConfig::new("commands")
        })
    }

    fn record(key: &[u8], value: &[u8]) -> Record {
        let headers: [(&str, Option<&[u8]>); 1] = [("site", Some(b"lab"))];
        read_back(&RecordBody::new(Some(key), Some(value), headers), 9)
    }

    #[test]
    fn a_template_makes_the_topic_from_key_headers_and_value() {
        let record = record(b"7", br#"{"kind": "reset"}"#);
        let message = to("{header.site}/{key}/{value.kind}")
            .render(&record)
            .unwrap();
        assert_eq!(message.topic, "lab/7/reset");
        assert_eq!((message.qos, message.retain), (1, false));
        assert_eq!(message.properties.user.as_slice(), [("site", "lab")]);
        assert_eq!(message.payload, record.value.clone().unwrap());
    }

    #[test]
    fn without_to_it_is_the_inverse_of_a_route() {
        let incoming = Incoming {
            qos: 2,
            retain: true,
            properties: Properties {
                expiry_s: Some(5),
                ..Properties::default()
            },
            ..plain("a/b", b"x")
        };
        let record = read_back(&encode_record(&incoming, Some(b"any key")), 1_000);
        let message = deliver(&DeliverConfig::new("t")).render(&record).unwrap();
        assert_eq!(
            (&*message.topic, message.qos, message.retain),
            ("a/b", 2, true)
        );
        assert_eq!((message.client, message.at_ms), (Some("c1"), 1_000));
        assert_eq!(message.properties, incoming.properties);
    }

    #[test]
    fn qos_and_retain_of_the_flow_win_over_the_headers() {
        let record = read_back(&encode_record(&plain("a", b"x"), None), 0);
        let config = DeliverConfig {
            qos: Some(Qos::AT_MOST_ONCE),
            retain: Some(true),
            ..DeliverConfig::new("t")
        };
        let message = deliver(&config).render(&record).unwrap();
        assert_eq!((message.qos, message.retain), (0, true));
    }

    #[test]
    fn what_gives_no_topic_is_rejected_with_the_reason() {
        use MqttTopicFault::{Dollar, Empty, TooLong, Wildcard};
        let long = vec![b'x'; 65_536];
        for (template, key, expected) in [
            ("{key}", &b""[..], Rejected::MqttTopic(Empty)),
            ("{key}", b"a/#", Rejected::MqttTopic(Wildcard('#'))),
            ("{key}", b"$SYS/x", Rejected::MqttTopic(Dollar)),
            ("{key}", &long, Rejected::MqttTopic(TooLong)),
            (
                "{key}",
                b"\xFF",
                Rejected::MissingValue {
                    placeholder: "key".to_owned(),
                },
            ),
            (
                "a/{value.x}",
                b"k",
                Rejected::MissingValue {
                    placeholder: "value.x".to_owned(),
                },
            ),
            (
                "{topic}/x",
                b"k",
                Rejected::MissingValue {
                    placeholder: "topic".to_owned(),
                },
            ),
        ] {
            assert_eq!(
                to(template).render(&record(key, b"{}")),
                Err(expected),
                "{template}"
            );
        }
    }

    #[test]
    fn a_record_without_key_has_no_key_to_go_by() {
        let record = read_back(&RecordBody::new(None, Some(b"v"), []), 0);
        let missing = Rejected::MissingValue {
            placeholder: "key".to_owned(),
        };
        assert_eq!(to("{key}").render(&record), Err(missing));
    }

    #[test]
    fn a_tombstone_is_an_empty_payload() {
        let record = read_back(&RecordBody::new(Some(b"a/b"), None, []), 0);
        assert!(to("{key}").render(&record).unwrap().payload.is_empty());
    }
}
