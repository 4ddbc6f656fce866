//! What clients ask first: ApiVersions, Metadata, DescribeCluster, FindCoordinator, DescribeLogDirs.

use headwater_commitlog::{Admin, CommitError, Topic, TopicConfig, Topics, validate_name};
use uuid::Uuid;

use super::fetch::LEADER_EPOCH;
use super::{Call, is_internal, signed};
use crate::api::API_KEYS;
use crate::error_code::ErrorCode;
use crate::host::Action;
use crate::message::{
    ApiVersionRange, ApiVersionsResponse, DescribeClusterRequest, DescribeClusterResponse,
    DescribeLogDirsRequest, DescribeLogDirsResponse, DescribedBroker, DescribedLogDir,
    DescribedLogDirPartition, DescribedLogDirTopic, FindCoordinatorRequest,
    FindCoordinatorResponse, FoundCoordinator, MetadataBroker, MetadataPartition, MetadataRequest,
    MetadataRequestTopic, MetadataResponse, MetadataTopic,
};
use crate::wire::Text;

/// A coordinator of groups; 1 would be one of transactions.
const KEY_TYPE_GROUP: i8 = 0;

/// Bits of what may be done with a topic: read, write, create, delete, alter, describe, describe
/// and alter its settings (Kafka's AclOperation codes).
const TOPIC_OPERATIONS: i32 = 0b1101_1111_1000;

/// The same for the cluster: create, alter, describe, idempotent write and the rest.
const CLUSTER_OPERATIONS: i32 = 0b1_1111_1010_0000;

pub(crate) fn api_versions(error: ErrorCode) -> ApiVersionsResponse {
    let api_keys = API_KEYS.iter().map(|key| {
        let row = key.row();
        ApiVersionRange {
            api_key: row.key as i16,
            min_version: row.advertised_min,
            max_version: row.max,
        }
    });
    ApiVersionsResponse {
        error,
        api_keys: api_keys.collect(),
        throttle_time_ms: 0,
    }
}

impl Call<'_> {
    /// Host and port under which clients find this node.
    fn advertised(&self) -> (Text, i32) {
        match &self.shared.options.advertised {
            Some((host, port)) => (Text::from(host.as_str()), i32::from(*port)),
            None => {
                let address = self.client.reached_at;
                (
                    Text::from(address.ip().to_string()),
                    i32::from(address.port()),
                )
            }
        }
    }

    pub(super) async fn metadata(&self, request: MetadataRequest) -> MetadataResponse {
        let options = &self.shared.options;
        // Version 0 has no null: an empty list asks for all.
        let wanted = match request.topics {
            Some(wanted) if wanted.is_empty() && self.header.version == 0 => None,
            wanted => wanted,
        };
        let mut topics = Vec::new();
        match wanted {
            None => {
                let view = self.shared.log.topics();
                // The system's own topics are shown to who knows their names.
                let allowed = view.iter().filter(|topic| {
                    !topic.is_internal() && self.allows(Action::DescribeTopic(&topic.name))
                });
                topics.extend(allowed.map(|topic| self.describe_topic(topic)));
            }
            Some(wanted) => {
                for wanted in wanted {
                    topics.push(
                        self.metadata_of(wanted, request.allow_auto_topic_creation)
                            .await,
                    );
                }
            }
        }
        if request.include_topic_authorized_operations {
            for topic in &mut topics {
                topic.authorized_operations = TOPIC_OPERATIONS;
            }
        }
        let (host, port) = self.advertised();
        MetadataResponse {
            brokers: vec![MetadataBroker {
                node_id: options.node_id,
                host,
                port,
                rack: None,
            }],
            cluster_id: Some(Text::from(options.cluster_id.as_str())),
            controller_id: options.node_id,
            topics,
            cluster_authorized_operations: if request.include_cluster_authorized_operations {
                CLUSTER_OPERATIONS
            } else {
                i32::MIN
            },
            ..MetadataResponse::default()
        }
    }

    async fn metadata_of(&self, wanted: MetadataRequestTopic, may_create: bool) -> MetadataTopic {
        let refused = |error, name: Option<Text>, topic_id| MetadataTopic {
            error,
            name,
            topic_id,
            ..MetadataTopic::default()
        };
        let topics = self.shared.log.topics();
        let Some(name) = wanted.name else {
            let found = topics.by_id(wanted.topic_id);
            return match found.filter(|topic| self.allows(Action::DescribeTopic(&topic.name))) {
                Some(topic) => self.describe_topic(topic),
                None => refused(ErrorCode::UnknownTopicId, None, wanted.topic_id),
            };
        };
        if !self.allows(Action::DescribeTopic(&name)) {
            return refused(ErrorCode::TopicAuthorizationFailed, Some(name), Uuid::nil());
        }
        if let Some(topic) = topics.by_name(&name) {
            return self.describe_topic(topic);
        }
        match self.create_on_first_use(&name, may_create).await {
            Ok(topics) => match topics.by_name(&name) {
                Some(topic) => self.describe_topic(topic),
                None => refused(ErrorCode::UnknownTopicOrPartition, Some(name), Uuid::nil()),
            },
            Err(error) => refused(error, Some(name), Uuid::nil()),
        }
    }

    async fn create_on_first_use(
        &self,
        name: &Text,
        client_allows: bool,
    ) -> Result<std::sync::Arc<Topics>, ErrorCode> {
        validate_name(name).map_err(|_| ErrorCode::InvalidTopic)?;
        let may_create = client_allows && self.shared.options.auto_create && !is_internal(name);
        if !may_create {
            return Err(ErrorCode::UnknownTopicOrPartition);
        }
        if !self.allows(Action::CreateTopic(name)) {
            return Err(ErrorCode::TopicAuthorizationFailed);
        }
        let create = Admin::CreateTopic {
            name: name.to_string(),
            partitions: self.shared.options.partitions,
            config: TopicConfig::default(),
        };
        match self.shared.administer(create).await {
            // Somebody else was quicker; that one will do.
            Ok(_) | Err(CommitError::TopicExists { .. }) => Ok(self.shared.log.topics()),
            Err(error) => Err(ErrorCode::from(&error)),
        }
    }

    fn describe_topic(&self, topic: &Topic) -> MetadataTopic {
        let node_id = self.shared.options.node_id;
        let partitions = (0..)
            .zip(&topic.partitions)
            .map(|(index, _)| MetadataPartition {
                error: ErrorCode::None,
                index,
                leader_id: node_id,
                leader_epoch: LEADER_EPOCH,
                replicas: vec![node_id],
                in_sync_replicas: vec![node_id],
                offline_replicas: Vec::new(),
            });
        MetadataTopic {
            error: ErrorCode::None,
            name: Some(Text::from(&*topic.name)),
            topic_id: topic.id,
            is_internal: topic.is_internal(),
            partitions: partitions.collect(),
            ..MetadataTopic::default()
        }
    }

    pub(super) fn describe_cluster(
        &self,
        request: &DescribeClusterRequest,
    ) -> DescribeClusterResponse {
        let options = &self.shared.options;
        if !self.allows(Action::DescribeCluster) {
            let error = ErrorCode::ClusterAuthorizationFailed;
            return DescribeClusterResponse {
                error,
                ..DescribeClusterResponse::default()
            };
        }
        let (host, port) = self.advertised();
        DescribeClusterResponse {
            endpoint_type: request.endpoint_type,
            cluster_id: Text::from(options.cluster_id.as_str()),
            controller_id: options.node_id,
            brokers: vec![DescribedBroker {
                node_id: options.node_id,
                host,
                port,
                rack: None,
            }],
            cluster_authorized_operations: if request.include_cluster_authorized_operations {
                CLUSTER_OPERATIONS
            } else {
                i32::MIN
            },
            ..DescribeClusterResponse::default()
        }
    }

    pub(super) fn find_coordinator(
        &self,
        request: FindCoordinatorRequest,
    ) -> FindCoordinatorResponse {
        let is_group = request.key_type == KEY_TYPE_GROUP;
        let find = |key: Text| {
            let (error, message) = if !is_group {
                let message = "transactions are not served; use an idempotent producer \
                               without transactional.id";
                // librdkafka asks again after any other code, until its caller's time is over.
                let error = ErrorCode::TransactionalIdAuthorizationFailed;
                (error, Some(Text::from(message)))
            } else if !self.allows(Action::DescribeGroup(&key)) {
                (ErrorCode::GroupAuthorizationFailed, None)
            } else {
                (ErrorCode::None, None)
            };
            let (host, port) = self.advertised();
            let node_id = self.shared.options.node_id;
            if error.is_error() {
                let host = Text::default();
                FoundCoordinator {
                    key,
                    node_id: -1,
                    host,
                    port: -1,
                    error,
                    error_message: message,
                }
            } else {
                FoundCoordinator {
                    key,
                    node_id,
                    host,
                    port,
                    error,
                    error_message: message,
                }
            }
        };
        if self.header.version >= 4 {
            let coordinators = request.keys.into_iter().map(find).collect();
            return FindCoordinatorResponse {
                coordinators,
                ..FindCoordinatorResponse::default()
            };
        }
        let found = find(request.key);
        FindCoordinatorResponse {
            error: found.error,
            error_message: found.error_message,
            node_id: found.node_id,
            host: found.host,
            port: found.port,
            ..FindCoordinatorResponse::default()
        }
    }

    pub(super) fn describe_log_dirs(
        &self,
        request: DescribeLogDirsRequest,
    ) -> DescribeLogDirsResponse {
        if !self.allows(Action::DescribeCluster) {
            let error = ErrorCode::ClusterAuthorizationFailed;
            return DescribeLogDirsResponse {
                error,
                ..DescribeLogDirsResponse::default()
            };
        }
        let view = self.shared.log.topics();
        let is_wanted = |name: &str, index: i32| match &request.topics {
            None => true,
            Some(wanted) => wanted
                .iter()
                .any(|topic| topic.name.as_str() == name && topic.partitions.contains(&index)),
        };
        let topics = view.iter().map(|topic| DescribedLogDirTopic {
            name: Text::from(&*topic.name),
            partitions: (0..)
                .zip(&topic.partitions)
                .filter(|(index, _)| is_wanted(&topic.name, *index))
                .filter_map(|(index, id)| {
                    let size_bytes = signed(view.partition(*id)?.size_bytes());
                    Some(DescribedLogDirPartition {
                        index,
                        size_bytes,
                        ..DescribedLogDirPartition::default()
                    })
                })
                .collect(),
        });
        DescribeLogDirsResponse {
            results: vec![DescribedLogDir {
                // Where the directory really lies is nobody's business on the network.
                path: Text::from("log"),
                topics: topics
                    .filter(|topic| !topic.partitions.is_empty())
                    .collect(),
                ..DescribedLogDir::default()
            }],
            ..DescribeLogDirsResponse::default()
        }
    }
}
