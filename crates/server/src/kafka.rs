//! The Kafka side as this program wires it: its options, and what it asks of the house.
//!
//! For: turning the configuration into `headwater_kafka_server::Options`; deeds of Kafka clients that
//! touch what sessions are owed.
//! Not for: Kafka's protocol (`kafka-server`).
//! Calls: `mqtt::retire`. Called by: `serve`.

use std::path::Path;
use std::sync::Arc;

use headwater_commitlog::fs::RealFs;
use headwater_commitlog::{PartitionId, TopicConfig};
use headwater_kafka_server::{Done, Host, Options};

use crate::config::{ByteSize, Config};
use crate::data_dir;
use crate::mqtt::retire::Retirements;
use crate::serve::descriptors::Places;
use crate::serve::log_options;

pub(crate) fn options(config: &Config, dir: &Path) -> anyhow::Result<Options> {
    let cluster_id = data_dir::cluster_id(&RealFs, dir)?;
    Ok(Options {
        cluster_id,
        frame_bytes_max: size(config.kafka.frame_bytes_max),
        requests_bytes_max: size(config.kafka.requests_bytes_max),
        responses_bytes_max: size(config.kafka.responses_bytes_max),
        connections_max: config.kafka.connections_max,
        auto_create: config.log.auto_create,
        partitions: config.log.partitions,
        topic_defaults: topic_defaults(config)?,
        ..Options::default()
    })
}

fn size(size: ByteSize) -> usize {
    usize::try_from(size.0).unwrap_or(usize::MAX)
}

/// `[log]`'s settings by Kafka's names: what DescribeConfigs tells of a topic that says nothing.
fn topic_defaults(config: &Config) -> anyhow::Result<TopicConfig> {
    let options = log_options(config, Path::new(""), 0);
    let defaults = TopicConfig::default()
        .with(TopicConfig::RETENTION_MS, &options.retention_ms.to_string())?
        .with(
            TopicConfig::RETENTION_BYTES,
            &options.retention_bytes.to_string(),
        )?
        .with(
            TopicConfig::SEGMENT_BYTES,
            &options.segment_bytes.to_string(),
        )?
        .with(
            TopicConfig::MAX_MESSAGE_BYTES,
            &options.message_bytes_max.to_string(),
        )?;
    Ok(defaults)
}

/// What Kafka clients touch of the rest.
pub(crate) struct House {
    /// What they remove goes through here, so that no session loses it.
    pub(crate) retirements: Arc<Retirements>,
    pub(crate) places: Places,
}

impl Host for House {
    fn trim(&self, partition: PartitionId, before: u64, done: Done) {
        self.retirements.trim(partition, before, done);
    }

    fn delete_topic(&self, name: &str, done: Done) {
        self.retirements.delete_topic(name, done);
    }

    fn take_place(&self) -> bool {
        self.places.take()
    }

    fn give_place_back(&self) {
        self.places.give_back();
    }
}
