//! DescribeConfigs, IncrementalAlterConfigs: the settings of topics, and the node's, read only.

use headwater_commitlog::{Admin, TopicConfig};

use super::topics::{Refusal, SOURCE_TOPIC, refusal, set};
use super::{Call, is_internal};
use crate::error_code::ErrorCode;
use crate::host::Action;
use crate::message::{
    AlterConfigsResource, AlterableConfig, AlteredConfigs, DescribeConfigsRequest,
    DescribeConfigsResource, DescribeConfigsResponse, DescribedConfig, DescribedConfigs,
    IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
};
use crate::wire::Text;

const RESOURCE_TOPIC: i8 = 2;
const RESOURCE_BROKER: i8 = 4;

/// `STATIC_BROKER_CONFIG`: from the node's configuration.
const SOURCE_NODE: i8 = 4;
/// `DEFAULT_CONFIG`.
const SOURCE_DEFAULT: i8 = 5;

/// Kafka's `ConfigType` codes.
const TYPE_BOOLEAN: i8 = 1;
const TYPE_STRING: i8 = 2;
const TYPE_INT: i8 = 3;
const TYPE_LONG: i8 = 5;
const TYPE_LIST: i8 = 7;

/// A topic's settings: name, default, type.
const TOPIC_SETTINGS: [(&str, &str, i8); 9] = [
    (TopicConfig::CLEANUP_POLICY, "delete", TYPE_LIST),
    ("compression.type", "producer", TYPE_STRING),
    (TopicConfig::MAX_MESSAGE_BYTES, "1048588", TYPE_INT),
    ("message.timestamp.type", "CreateTime", TYPE_STRING),
    ("min.insync.replicas", "1", TYPE_INT),
    (TopicConfig::RETENTION_BYTES, "-1", TYPE_LONG),
    (TopicConfig::RETENTION_MS, "604800000", TYPE_LONG),
    (TopicConfig::SEGMENT_BYTES, "1073741824", TYPE_INT),
    (TopicConfig::SEGMENT_MS, "604800000", TYPE_LONG),
];

const OPERATION_SET: i8 = 0;
const OPERATION_DELETE: i8 = 1;

impl Call<'_> {
    pub(super) fn describe_configs(
        &self,
        request: DescribeConfigsRequest,
    ) -> DescribeConfigsResponse {
        let results = request.resources.into_iter().map(|resource| {
            let configs = self.settings(&resource);
            let (error, error_message, configs) = match configs {
                Ok(configs) => (ErrorCode::None, None, configs),
                Err((error, message)) => (error, Some(message), Vec::new()),
            };
            DescribedConfigs {
                error,
                error_message,
                resource_type: resource.resource_type,
                name: resource.name,
                configs,
            }
        });
        DescribeConfigsResponse {
            results: results.collect(),
            ..DescribeConfigsResponse::default()
        }
    }

    fn settings(
        &self,
        resource: &DescribeConfigsResource,
    ) -> Result<Vec<DescribedConfig>, Refusal> {
        let mut settings = match resource.resource_type {
            RESOURCE_TOPIC => self.topic_settings(&resource.name)?,
            RESOURCE_BROKER => self.node_settings(),
            _ => {
                let message = "only topics (2) and brokers (4) have settings";
                return Err((ErrorCode::InvalidRequest, message.into()));
            }
        };
        if let Some(keys) = &resource.keys {
            settings.retain(|setting| keys.contains(&setting.name));
        }
        Ok(settings)
    }

    fn topic_settings(&self, name: &str) -> Result<Vec<DescribedConfig>, Refusal> {
        if !self.allows(Action::DescribeTopic(name)) {
            let message = "not allowed to describe this topic";
            return Err((ErrorCode::TopicAuthorizationFailed, message.into()));
        }
        let Some(topic) = self.shared.log.topic(name) else {
            return Err((
                ErrorCode::UnknownTopicOrPartition,
                "there is no such topic".into(),
            ));
        };
        let defaults = &self.shared.options.topic_defaults;
        Ok(TOPIC_SETTINGS
            .iter()
            .map(|(name, default, kind)| {
                let (value, source) = match (topic.config.value(name), defaults.value(name)) {
                    (Some(value), _) => (value, SOURCE_TOPIC),
                    (None, Some(value)) => (value, SOURCE_NODE),
                    (None, None) => (*default, SOURCE_DEFAULT),
                };
                described(name, value, source, *kind)
            })
            .collect())
    }

    fn node_settings(&self) -> Vec<DescribedConfig> {
        let options = &self.shared.options;
        let setting = |name, value: String, kind| DescribedConfig {
            read_only: true,
            ..described(name, &value, SOURCE_NODE, kind)
        };
        vec![
            setting(
                "auto.create.topics.enable",
                options.auto_create.to_string(),
                TYPE_BOOLEAN,
            ),
            setting("default.replication.factor", "1".to_owned(), TYPE_INT),
            setting(
                "fetch.max.bytes",
                options.fetch_bytes_max.to_string(),
                TYPE_INT,
            ),
            setting("node.id", options.node_id.to_string(), TYPE_INT),
            setting("num.partitions", options.partitions.to_string(), TYPE_INT),
            setting(
                "socket.request.max.bytes",
                options.frame_bytes_max.to_string(),
                TYPE_INT,
            ),
        ]
    }

    pub(super) async fn incremental_alter_configs(
        &self,
        request: IncrementalAlterConfigsRequest,
    ) -> IncrementalAlterConfigsResponse {
        let mut response = IncrementalAlterConfigsResponse::default();
        for resource in request.resources {
            let outcome = self.alter(&resource, request.validate_only).await;
            let (error, error_message) = match outcome {
                Ok(()) => (ErrorCode::None, None),
                Err((error, message)) => (error, Some(message)),
            };
            response.responses.push(AlteredConfigs {
                error,
                error_message,
                resource_type: resource.resource_type,
                name: resource.name,
            });
        }
        response
    }

    async fn alter(
        &self,
        resource: &AlterConfigsResource,
        validate_only: bool,
    ) -> Result<(), Refusal> {
        if resource.resource_type != RESOURCE_TOPIC {
            let message = "only a topic's settings can be changed here; the node's stand in its \
                           configuration file";
            return Err((ErrorCode::InvalidRequest, message.into()));
        }
        if is_internal(&resource.name) {
            return Err((
                ErrorCode::InvalidTopic,
                "the topic is the system's own".into(),
            ));
        }
        if !self.allows(Action::AlterTopic(&resource.name)) {
            let message = "not allowed to change this topic";
            return Err((ErrorCode::TopicAuthorizationFailed, message.into()));
        }
        let Some(topic) = self.shared.log.topic(&resource.name) else {
            return Err((
                ErrorCode::UnknownTopicOrPartition,
                "there is no such topic".into(),
            ));
        };
        let mut config = topic.config.clone();
        for change in &resource.configs {
            apply(&mut config, change)?;
        }
        if validate_only {
            return Ok(());
        }
        let set = Admin::SetConfig {
            name: resource.name.to_string(),
            config,
        };
        self.shared
            .administer(set)
            .await
            .map(drop)
            .map_err(|error| refusal(&error))
    }
}

fn apply(config: &mut TopicConfig, change: &AlterableConfig) -> Result<(), Refusal> {
    let invalid = |message| Err((ErrorCode::InvalidConfig, Text::from(message)));
    match (change.operation, &change.value) {
        (OPERATION_SET, Some(value)) => set(config, &change.name, value),
        (OPERATION_SET, None) => invalid("a setting has no value"),
        (OPERATION_DELETE, _) => {
            config.unset(&change.name);
            Ok(())
        }
        _ => invalid("settings can be set and deleted, not appended to or subtracted from"),
    }
}

fn described(name: &str, value: &str, source: i8, kind: i8) -> DescribedConfig {
    DescribedConfig {
        name: Text::from(name),
        value: Some(Text::from(value)),
        source,
        kind,
        ..DescribedConfig::default()
    }
}
