//! Topics: their names, settings and partitions, as one immutable view.
//!
//! For: looking a topic up by name or id without a lock held; Kafka's rules for names and settings.
//! Not for: creating or deleting; that is [`Admin`](crate::Admin) through a commit.
//! Holds: a topic's id is random and never given twice; a partition's number is never used again.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashMap;
use uuid::Uuid;

use crate::partition::Partition;
use crate::unit::PartitionId;

/// Longest topic name, Kafka's limit: with `-` and the partition it is still a file name.
pub const NAME_BYTES_MAX: usize = 249;

/// Topics of this prefix are the system's own.
pub const INTERNAL_PREFIX: &str = "__headwater_";

#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NameError {
    #[error("the name is empty")]
    Empty,
    #[error("the name has {len} bytes, at most {NAME_BYTES_MAX} are allowed")]
    TooLong { len: usize },
    #[error("the name is . or ..")]
    Dots,
    #[error("the name has a character other than a-z, A-Z, 0-9, '.', '_' and '-'")]
    Character,
}

/// Kafka's rule for topic names.
pub fn validate_name(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(NameError::TooLong { len: name.len() });
    }
    if name == "." || name == ".." {
        return Err(NameError::Dots);
    }
    if !name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    {
        return Err(NameError::Character);
    }
    Ok(())
}

#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ConfigError {
    #[error("{key} is not a topic setting")]
    Unknown { key: String },
    #[error("{value} is not a value of {key}: {allowed}")]
    Value {
        key: String,
        value: String,
        allowed: &'static str,
    },
}

/// A topic's own settings, by Kafka's names; what is not set falls back to the log's defaults.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TopicConfig {
    entries: BTreeMap<String, String>,
}

impl TopicConfig {
    pub const RETENTION_MS: &str = "retention.ms";
    pub const RETENTION_BYTES: &str = "retention.bytes";
    pub const SEGMENT_BYTES: &str = "segment.bytes";
    pub const SEGMENT_MS: &str = "segment.ms";
    pub const MAX_MESSAGE_BYTES: &str = "max.message.bytes";
    pub const CLEANUP_POLICY: &str = "cleanup.policy";

    /// Sets one entry after checking it; `-1` means no limit where Kafka says so.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), ConfigError> {
        let allowed = match key {
            Self::RETENTION_MS | Self::RETENTION_BYTES => (
                value.parse::<i64>().is_ok_and(|number| number >= -1),
                "a whole number from -1",
            ),
            Self::SEGMENT_MS => (
                value.parse::<i64>().is_ok_and(|number| number >= 1),
                "a whole number from 1",
            ),
            // Kafka's lower bound is 14 bytes; below 1 KiB a segment would hold one record.
            Self::SEGMENT_BYTES => (
                value.parse::<i32>().is_ok_and(|number| number >= 1024),
                "a whole number from 1024 to 2147483647",
            ),
            Self::MAX_MESSAGE_BYTES => (
                value.parse::<i32>().is_ok_and(|number| number >= 0),
                "0 to 2147483647",
            ),
            Self::CLEANUP_POLICY => (
                matches!(
                    value,
                    "delete" | "compact" | "compact,delete" | "delete,compact"
                ),
                "delete, compact or both",
            ),
            // Kept as given, for clients that ask back what they said.
            "compression.type" => (value == "producer", "producer"),
            "message.timestamp.type" => (value == "CreateTime", "CreateTime"),
            "min.insync.replicas" => (value == "1", "1"),
            _ => {
                return Err(ConfigError::Unknown {
                    key: key.to_owned(),
                });
            }
        };
        let (valid, allowed) = allowed;
        if !valid {
            return Err(ConfigError::Value {
                key: key.to_owned(),
                value: value.to_owned(),
                allowed,
            });
        }
        self.entries.insert(key.to_owned(), value.to_owned());
        Ok(())
    }

    /// As [`set`](Self::set), for building one in a row.
    pub fn with(mut self, key: &str, value: &str) -> Result<Self, ConfigError> {
        self.set(key, value)?;
        Ok(self)
    }

    pub fn unset(&mut self, key: &str) {
        self.entries.remove(key);
    }

    pub fn value(&self, key: &str) -> Option<&str> {
        self.entries.get(key).map(String::as_str)
    }

    /// What is set, ordered by key.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.entries
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
    }

    pub fn retention_ms(&self) -> Option<i64> {
        self.number(Self::RETENTION_MS)
    }

    pub fn retention_bytes(&self) -> Option<i64> {
        self.number(Self::RETENTION_BYTES)
    }

    pub fn segment_bytes(&self) -> Option<u32> {
        self.number(Self::SEGMENT_BYTES)
    }

    pub fn segment_ms(&self) -> Option<i64> {
        self.number(Self::SEGMENT_MS)
    }

    pub fn max_message_bytes(&self) -> Option<u32> {
        self.number(Self::MAX_MESSAGE_BYTES)
    }

    fn number<N: std::str::FromStr>(&self, key: &str) -> Option<N> {
        self.entries.get(key)?.parse().ok()
    }
}

#[derive(Clone, Debug)]
pub struct Topic {
    pub id: Uuid,
    pub name: Arc<str>,
    pub config: TopicConfig,
    /// By index.
    pub partitions: Vec<PartitionId>,
}

impl Topic {
    pub fn is_internal(&self) -> bool {
        self.name.starts_with(INTERNAL_PREFIX)
    }
}

/// All topics at one commit. Cheap to share; a newer commit makes a newer view.
#[derive(Clone, Default)]
pub struct Topics {
    by_name: BTreeMap<Arc<str>, Arc<Topic>>,
    by_id: HashMap<Uuid, Arc<Topic>, foldhash::fast::RandomState>,
    partitions: HashMap<PartitionId, Arc<Partition>, foldhash::fast::RandomState>,
}

impl Topics {
    pub fn by_name(&self, name: &str) -> Option<&Arc<Topic>> {
        self.by_name.get(name)
    }

    pub fn by_id(&self, id: Uuid) -> Option<&Arc<Topic>> {
        self.by_id.get(&id)
    }

    /// All topics, ordered by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<Topic>> {
        self.by_name.values()
    }

    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    pub fn partition(&self, id: PartitionId) -> Option<&Arc<Partition>> {
        self.partitions.get(&id)
    }

    /// In no particular order.
    pub fn partitions(&self) -> impl ExactSizeIterator<Item = &Arc<Partition>> {
        self.partitions.values()
    }

    pub(crate) fn insert_topic(&mut self, topic: Arc<Topic>) {
        self.by_id.insert(topic.id, Arc::clone(&topic));
        self.by_name.insert(Arc::clone(&topic.name), topic);
    }

    /// Takes the topic and its partitions out.
    pub(crate) fn remove_topic(&mut self, name: &str) -> Vec<Arc<Partition>> {
        let Some(topic) = self.by_name.remove(name) else {
            return Vec::new();
        };
        self.by_id.remove(&topic.id);
        topic
            .partitions
            .iter()
            .filter_map(|id| self.partitions.remove(id))
            .collect()
    }

    pub(crate) fn insert_partition(&mut self, partition: Arc<Partition>) {
        self.partitions.insert(partition.id(), partition);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_names_follow_kafkas_rule() {
        for (name, expected) in [
            ("telemetry", Ok(())),
            ("a.b_c-D9", Ok(())),
            ("...", Ok(())),
            ("", Err(NameError::Empty)),
            (".", Err(NameError::Dots)),
            ("..", Err(NameError::Dots)),
            ("a/b", Err(NameError::Character)),
            ("ä", Err(NameError::Character)),
        ] {
            assert_eq!(validate_name(name), expected, "{name}");
        }
        assert_eq!(validate_name(&"x".repeat(249)), Ok(()));
        assert_eq!(
            validate_name(&"x".repeat(250)),
            Err(NameError::TooLong { len: 250 })
        );
    }

    #[test]
    fn topic_settings_are_checked_and_kept_as_given() {
        let mut config = TopicConfig::default();
        config.set("retention.ms", "-1").unwrap();
        config.set("cleanup.policy", "compact,delete").unwrap();
        assert_eq!(config.retention_ms(), Some(-1));
        assert_eq!(config.value("cleanup.policy"), Some("compact,delete"));
        assert_eq!(
            config.set("retention.sm", "1"),
            Err(ConfigError::Unknown {
                key: "retention.sm".into()
            })
        );
        assert!(matches!(
            config.set("segment.bytes", "13"),
            Err(ConfigError::Value { .. })
        ));
    }
}
