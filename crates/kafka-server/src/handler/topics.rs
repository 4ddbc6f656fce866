//! CreateTopics, DeleteTopics, CreatePartitions.

use headwater_commitlog::{Admin, CommitError, TopicConfig, validate_name};
use tokio::sync::oneshot;

use super::{Call, is_internal, sentence};
use crate::error_code::ErrorCode;
use crate::host::Action;
use crate::message::{
    CreatableTopic, CreatePartitionsRequest, CreatePartitionsResponse, CreatePartitionsTopic,
    CreateTopicsRequest, CreateTopicsResponse, CreatedConfig, CreatedPartitions, CreatedTopic,
    DeleteTopicsRequest, DeleteTopicsResponse, DeletedTopic,
};
use crate::wire::Text;

/// An error with its sentence.
pub(super) type Refusal = (ErrorCode, Text);

/// `DYNAMIC_TOPIC_CONFIG`: set on the topic itself.
pub(super) const SOURCE_TOPIC: i8 = 1;

impl Call<'_> {
    pub(super) async fn create_topics(&self, request: CreateTopicsRequest) -> CreateTopicsResponse {
        let mut response = CreateTopicsResponse::default();
        for (index, topic) in request.topics.iter().enumerate() {
            let twice = request
                .topics
                .iter()
                .enumerate()
                .any(|(other, twin)| other != index && twin.name == topic.name);
            let outcome = if twice {
                Err((
                    ErrorCode::InvalidRequest,
                    "the topic stands twice in the request".into(),
                ))
            } else {
                self.create_topic(topic, request.validate_only).await
            };
            response
                .topics
                .push(outcome.unwrap_or_else(|(error, message)| CreatedTopic {
                    name: topic.name.clone(),
                    error,
                    error_message: Some(message),
                    ..CreatedTopic::default()
                }));
        }
        response
    }

    async fn create_topic(
        &self,
        topic: &CreatableTopic,
        validate_only: bool,
    ) -> Result<CreatedTopic, Refusal> {
        let (partitions, config) = self.check_topic(topic)?;
        if !validate_only {
            let config = config.clone();
            let create = Admin::CreateTopic {
                name: topic.name.to_string(),
                partitions,
                config,
            };
            self.shared
                .administer(create)
                .await
                .map_err(|error| refusal(&error))?;
        }
        let id = self.shared.log.topic(&topic.name).map(|topic| topic.id);
        let configs = config.entries().map(|(name, value)| CreatedConfig {
            name: Text::from(name),
            value: Some(Text::from(value)),
            source: SOURCE_TOPIC,
            ..CreatedConfig::default()
        });
        Ok(CreatedTopic {
            name: topic.name.clone(),
            topic_id: id.unwrap_or_default(),
            partitions: i32::try_from(partitions).unwrap_or(i32::MAX),
            replication_factor: 1,
            configs: Some(configs.collect()),
            ..CreatedTopic::default()
        })
    }

    fn check_topic(&self, topic: &CreatableTopic) -> Result<(u32, TopicConfig), Refusal> {
        let refuse = |error, message: &str| Err((error, Text::from(message)));
        validate_name(&topic.name).map_err(|error| (ErrorCode::InvalidTopic, sentence(&error)))?;
        if is_internal(&topic.name) {
            return refuse(
                ErrorCode::InvalidTopic,
                "names of this prefix are the system's own",
            );
        }
        if !self.allows(Action::CreateTopic(&topic.name)) {
            return refuse(
                ErrorCode::TopicAuthorizationFailed,
                "not allowed to create this topic",
            );
        }
        if self.shared.log.topic(&topic.name).is_some() {
            return refuse(ErrorCode::TopicAlreadyExists, "the topic exists already");
        }
        if topic.replication_factor != -1 && topic.replication_factor != 1 {
            return refuse(
                ErrorCode::InvalidReplicationFactor,
                "there is one node: the replication factor is 1, or -1 for the default",
            );
        }
        let partitions = if topic.assignments.is_empty() {
            topic.partitions
        } else {
            self.check_assignments(topic)?
        };
        let partitions = match (partitions, u32::try_from(partitions)) {
            (-1, _) => self.shared.options.partitions,
            (_, Ok(partitions)) if partitions > 0 => partitions,
            _ => {
                return refuse(
                    ErrorCode::InvalidPartitions,
                    "a topic has at least 1 partition",
                );
            }
        };
        self.check_partitions(partitions)?;
        let mut config = TopicConfig::default();
        for entry in &topic.configs {
            let Some(value) = &entry.value else {
                return refuse(ErrorCode::InvalidConfig, "a setting has no value");
            };
            set(&mut config, &entry.name, value)?;
        }
        Ok((partitions, config))
    }

    fn check_partitions(&self, partitions: u32) -> Result<(), Refusal> {
        let most = self.shared.options.partitions_max;
        if partitions > most {
            let message = format!("{partitions} partitions, at most {most} are allowed");
            return Err((ErrorCode::InvalidPartitions, Text::from(message)));
        }
        Ok(())
    }

    /// Explicit assignments are taken if they say what is so anyway.
    fn check_assignments(&self, topic: &CreatableTopic) -> Result<i32, Refusal> {
        let node_id = self.shared.options.node_id;
        let mut indexes: Vec<i32> = topic.assignments.iter().map(|a| a.index).collect();
        indexes.sort_unstable();
        let is_dense = (0..)
            .zip(&indexes)
            .all(|(expected, index)| expected == *index);
        let is_ours = topic.assignments.iter().all(|a| a.broker_ids == [node_id]);
        if !is_dense || !is_ours || topic.partitions != -1 {
            let message = format!("there is one node, {node_id}: leave the assignment out");
            return Err((ErrorCode::InvalidReplicaAssignment, Text::from(message)));
        }
        Ok(i32::try_from(indexes.len()).unwrap_or(i32::MAX))
    }

    pub(super) async fn delete_topics(&self, request: DeleteTopicsRequest) -> DeleteTopicsResponse {
        let mut response = DeleteTopicsResponse::default();
        for name in request.names {
            let outcome = self.delete_topic(&name).await;
            let (error, error_message) = match outcome {
                Ok(()) => (ErrorCode::None, None),
                Err((error, message)) => (error, Some(message)),
            };
            response.topics.push(DeletedTopic {
                name,
                error,
                error_message,
            });
        }
        response
    }

    async fn delete_topic(&self, name: &Text) -> Result<(), Refusal> {
        if is_internal(name) {
            return Err((
                ErrorCode::InvalidTopic,
                "the topic is the system's own".into(),
            ));
        }
        if !self.allows(Action::DeleteTopic(name)) {
            let message = "not allowed to delete this topic";
            return Err((ErrorCode::TopicAuthorizationFailed, message.into()));
        }
        if self.shared.log.topic(name).is_none() {
            return Err((
                ErrorCode::UnknownTopicOrPartition,
                "there is no such topic".into(),
            ));
        }
        let (sender, receiver) = oneshot::channel();
        // Whoever hung up in the meantime needs no answer.
        let done = Box::new(move |outcome| drop(sender.send(outcome)));
        self.shared.host.delete_topic(name, done);
        let outcome = receiver.await.unwrap_or(Err(CommitError::Closed));
        outcome.map_err(|error| refusal(&error))
    }

    pub(super) async fn create_partitions(
        &self,
        request: CreatePartitionsRequest,
    ) -> CreatePartitionsResponse {
        let mut response = CreatePartitionsResponse::default();
        for topic in request.topics {
            let outcome = self.grow_topic(&topic, request.validate_only).await;
            let (error, error_message) = match outcome {
                Ok(()) => (ErrorCode::None, None),
                Err((error, message)) => (error, Some(message)),
            };
            response.topics.push(CreatedPartitions {
                name: topic.name,
                error,
                error_message,
            });
        }
        response
    }

    async fn grow_topic(
        &self,
        topic: &CreatePartitionsTopic,
        validate_only: bool,
    ) -> Result<(), Refusal> {
        if is_internal(&topic.name) {
            return Err((
                ErrorCode::InvalidTopic,
                "the topic is the system's own".into(),
            ));
        }
        if !self.allows(Action::AlterTopic(&topic.name)) {
            let message = "not allowed to change this topic";
            return Err((ErrorCode::TopicAuthorizationFailed, message.into()));
        }
        let Some(found) = self.shared.log.topic(&topic.name) else {
            return Err((
                ErrorCode::UnknownTopicOrPartition,
                "there is no such topic".into(),
            ));
        };
        let has = found.partitions.len();
        let total = u32::try_from(topic.total).unwrap_or(0);
        if usize::try_from(total).unwrap_or(usize::MAX) <= has {
            let message = format!("the topic has {has} partitions; the total must be more");
            return Err((ErrorCode::InvalidPartitions, Text::from(message)));
        }
        self.check_partitions(total)?;
        let node_id = self.shared.options.node_id;
        if topic
            .assignments
            .iter()
            .flatten()
            .any(|a| a.broker_ids != [node_id])
        {
            let message = format!("there is one node, {node_id}: leave the assignment out");
            return Err((ErrorCode::InvalidReplicaAssignment, Text::from(message)));
        }
        if validate_only {
            return Ok(());
        }
        let add = Admin::AddPartitions {
            name: topic.name.to_string(),
            total,
        };
        self.shared
            .administer(add)
            .await
            .map(drop)
            .map_err(|error| refusal(&error))
    }
}

/// Sets one entry of a topic's settings. What would not be carried out is refused: a topic that
/// its owner believes to be compacted grows for ever.
pub(super) fn set(config: &mut TopicConfig, name: &str, value: &str) -> Result<(), Refusal> {
    if name == TopicConfig::CLEANUP_POLICY && value.contains("compact") {
        let message = "compaction is not built yet; take cleanup.policy=delete, with \
                       retention.ms=-1 to keep every record";
        return Err((ErrorCode::InvalidConfig, message.into()));
    }
    config
        .set(name, value)
        .map_err(|error| (ErrorCode::InvalidConfig, sentence(&error)))
}

pub(super) fn refusal(error: &CommitError) -> Refusal {
    (ErrorCode::from(error), sentence(error))
}
