//! The flow tables of the configuration, as written: `[[route]]`, `[[deliver]]`, `[[sink]]`.
//!
//! For: their keys and defaults. `server` puts these types into its own configuration.
//! Not for: what the texts mean; [`crate::Flows::compile`] finds that out.
//! Holds: an unknown key is refused; a key of a later version is refused as not built yet.

use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize};

/// All flows of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowConfig {
    /// Whether the default flows stand while none is configured.
    pub default_flows: bool,
    pub route: Vec<RouteConfig>,
    pub deliver: Vec<DeliverConfig>,
    pub sink: Vec<SinkConfig>,
}

impl Default for FlowConfig {
    fn default() -> Self {
        Self {
            default_flows: true,
            route: Vec::new(),
            deliver: Vec::new(),
            sink: Vec::new(),
        }
    }
}

impl FlowConfig {
    /// What really runs: the configured flows, or the default ones where none is configured and
    /// they were not declined.
    pub fn effective(&self) -> Self {
        let configured =
            !(self.route.is_empty() && self.deliver.is_empty() && self.sink.is_empty());
        if configured || !self.default_flows {
            return self.clone();
        }
        Self {
            default_flows: true,
            route: vec![RouteConfig::new("#", "mqtt")],
            deliver: vec![DeliverConfig {
                to: Some("{key}".to_owned()),
                ..DeliverConfig::new("mqtt.commands")
            }],
            sink: vec![SinkConfig::new("mqtt", "headwater.messages")],
        }
    }
}

/// `[[route]]`: MQTT to log. The first route that takes a message ends the search, unless it says
/// `copy = true`.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct RouteConfig {
    /// MQTT Topic Filter; `{x}` is a named `+`, `{rest...}` a named `#`.
    pub from: String,
    /// Kafka topic, a template: `{x}` of `from`, `{client}`, `{user}`, `{topic}`, `{payload.id}`,
    /// `{header.x}`. What a placeholder gives is escaped (see [`crate::kafka_name`]).
    pub to: String,
    /// Key of the record, a template. Default `{client}`, which also stands in where a
    /// placeholder finds nothing: a device's order is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Takes only what matches (see [`crate::condition`]).
    #[serde(default, rename = "where", skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// Lets the message go on to later routes. Default false.
    #[serde(default)]
    pub copy: bool,
    #[serde(default, deserialize_with = "not_built", skip_serializing)]
    pub(crate) qos: (),
    #[serde(default, deserialize_with = "not_built", skip_serializing)]
    pub(crate) format: (),
    #[serde(default, deserialize_with = "not_built", skip_serializing)]
    pub(crate) schema: (),
    #[serde(default, deserialize_with = "not_built", skip_serializing)]
    pub(crate) invalid: (),
    #[serde(default, deserialize_with = "not_built", skip_serializing)]
    pub(crate) ack: (),
}

impl RouteConfig {
    pub fn new(from: &str, to: &str) -> Self {
        Self {
            from: from.to_owned(),
            to: to.to_owned(),
            key: None,
            condition: None,
            copy: false,
            qos: (),
            format: (),
            schema: (),
            invalid: (),
            ack: (),
        }
    }
}

/// `[[deliver]]`: log to MQTT. What it publishes is not routed again.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct DeliverConfig {
    /// Kafka topic to read.
    pub from: String,
    /// MQTT Topic Name, a template: `{key}`, `{header.x}`, `{value.x}`, `{topic}` and `{client}`
    /// (the record's MQTT facts). Default: the record's `mqtt-topic` header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Default: the record's `mqtt-qos` header, else 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qos: Option<Qos>,
    /// Default: the record's `mqtt-retain` header, else false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retain: Option<bool>,
    /// When a record counts as delivered. Default `routed`.
    #[serde(default)]
    pub commit: CommitPoint,
    #[serde(default, deserialize_with = "not_built", skip_serializing)]
    pub(crate) format: (),
    #[serde(default, deserialize_with = "not_built", skip_serializing)]
    pub(crate) expiry: (),
}

impl DeliverConfig {
    pub fn new(from: &str) -> Self {
        Self {
            from: from.to_owned(),
            to: None,
            qos: None,
            retain: None,
            commit: CommitPoint::Routed,
            format: (),
            expiry: (),
        }
    }
}

/// `[[sink]]`: log to documents.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct SinkConfig {
    /// Kafka topic to read.
    pub from: String,
    /// `database.collection` to write.
    pub into: String,
    /// Keeps only what matches (see [`crate::condition`]).
    #[serde(default, rename = "where", skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    #[serde(default, deserialize_with = "not_built", skip_serializing)]
    pub(crate) write: (),
    #[serde(default, deserialize_with = "not_built", skip_serializing)]
    pub(crate) id: (),
    #[serde(default, deserialize_with = "not_built", skip_serializing)]
    pub(crate) select: (),
    #[serde(default, deserialize_with = "not_built", skip_serializing)]
    pub(crate) batch: (),
    #[serde(default, deserialize_with = "not_built", skip_serializing)]
    pub(crate) fail: (),
}

impl SinkConfig {
    pub fn new(from: &str, into: &str) -> Self {
        Self {
            from: from.to_owned(),
            into: into.to_owned(),
            condition: None,
            write: (),
            id: (),
            select: (),
            batch: (),
            fail: (),
        }
    }
}

/// When a delivery counts as done and its position moves.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum CommitPoint {
    /// The sessions of the devices hold the message.
    #[default]
    Routed,
    /// The devices acknowledged it. Not built yet: refused by [`crate::Flows::compile`].
    Acked,
}

/// Quality of Service, 0 to 2.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(try_from = "u64", into = "u64")]
pub struct Qos(u8);

impl Qos {
    pub const AT_MOST_ONCE: Self = Self(0);
    pub const AT_LEAST_ONCE: Self = Self(1);
    pub const EXACTLY_ONCE: Self = Self(2);

    pub fn number(self) -> u8 {
        self.0
    }
}

/// A number that is no Quality of Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("qos is 0, 1 or 2, not {0}")]
pub struct NoSuchQos(pub u64);

impl TryFrom<u64> for Qos {
    type Error = NoSuchQos;

    fn try_from(number: u64) -> Result<Self, NoSuchQos> {
        match number {
            0 => Ok(Self::AT_MOST_ONCE),
            1 => Ok(Self::AT_LEAST_ONCE),
            2 => Ok(Self::EXACTLY_ONCE),
            _ => Err(NoSuchQos(number)),
        }
    }
}

impl From<Qos> for u64 {
    fn from(qos: Qos) -> Self {
        Self::from(qos.0)
    }
}

/// Which of the three tables a flow stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FlowKind {
    Route,
    Deliver,
    Sink,
}

impl FlowKind {
    /// The table's name in the file.
    pub fn table(self) -> &'static str {
        match self {
            Self::Route => "route",
            Self::Deliver => "deliver",
            Self::Sink => "sink",
        }
    }

    /// The table that a key path like `route[1].form` leads into.
    pub(crate) fn of_path(path: &str) -> Option<Self> {
        [Self::Route, Self::Deliver, Self::Sink]
            .into_iter()
            .find(|kind| {
                path.strip_prefix(kind.table())
                    .is_some_and(|rest| rest.starts_with('['))
            })
    }

    /// The keys that may be written today.
    pub fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Route => &["from", "to", "key", "where", "copy"],
            Self::Deliver => &["from", "to", "qos", "retain", "commit"],
            Self::Sink => &["from", "into", "where"],
        }
    }
}

impl FlowKind {
    /// Keys that are known and refused as not built yet.
    pub(crate) fn later_keys(self) -> &'static [&'static str] {
        match self {
            Self::Route => &["qos", "format", "schema", "invalid", "ack"],
            Self::Deliver => &["format", "expiry"],
            Self::Sink => &["write", "id", "select", "batch", "fail"],
        }
    }
}

/// The sentence of a key that a later version will know.
pub(crate) const NOT_BUILT: &str = "this key is not built yet in this version; leave it out";

fn not_built<'de, D: Deserializer<'de>>(_: D) -> Result<(), D::Error> {
    Err(D::Error::custom(NOT_BUILT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_stand_only_while_nothing_is_configured_and_they_are_not_declined() {
        let nothing = FlowConfig::default().effective();
        assert_eq!(nothing.route, [RouteConfig::new("#", "mqtt")]);
        assert_eq!(nothing.deliver[0].from, "mqtt.commands");
        assert_eq!(nothing.deliver[0].to.as_deref(), Some("{key}"));
        assert_eq!(
            nothing.sink,
            [SinkConfig::new("mqtt", "headwater.messages")]
        );

        let declined = FlowConfig {
            default_flows: false,
            ..FlowConfig::default()
        };
        assert_eq!(declined.effective(), declined);

        let one = FlowConfig {
            sink: vec![SinkConfig::new("t", "a.b")],
            ..FlowConfig::default()
        };
        assert_eq!(one.effective(), one);
    }

    #[test]
    fn a_key_of_a_later_version_is_refused_as_not_built() {
        for text in [
            "from = 'a'\nto = 'b'\nformat = 'avro'",
            "from = 'a'\nto = 'b'\nqos = 1",
            "from = 'a'\nto = 'b'\nack = { deep = 'durable' }",
        ] {
            let error = toml::from_str::<RouteConfig>(text).unwrap_err();
            assert_eq!(error.message(), NOT_BUILT, "{text}");
        }
        let error = toml::from_str::<SinkConfig>("from = 'a'\ninto = 'b.c'\nwrite = 'upsert'");
        assert_eq!(error.unwrap_err().message(), NOT_BUILT);
    }

    #[test]
    fn qos_is_zero_one_or_two() {
        assert_eq!(
            toml::from_str::<DeliverConfig>("from = 'a'\nqos = 2")
                .unwrap()
                .qos,
            Some(Qos::EXACTLY_ONCE)
        );
        let error = toml::from_str::<DeliverConfig>("from = 'a'\nqos = 3").unwrap_err();
        assert!(error.message().contains("0, 1 or 2, not 3"), "{error}");
    }
}
