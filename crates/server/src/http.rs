//! What the HTTP door shows: the running system behind `dashboard::System`.
//!
//! For: answering health, metrics, documents, topics, records and groups.
//! Not for: HTTP itself (`dashboard`). Calls: the log, the store, the Kafka side. Called by:
//! `dashboard`, on threads that may block.

pub(crate) mod door;
mod groups;
mod metrics;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use headwater_bridge::partition_for_key;
use headwater_commitlog::record::RecordBody;
use headwater_commitlog::{
    Admin, Append, AppendData, CommitError, Log, Partition, PartitionId, Topic, TopicConfig, Unit,
};
use headwater_dashboard::{
    CreateTopic, Fetch, FetchStart, Fetched, Find, GroupDetail, GroupSummary, HeaderValue,
    ListenerState, NewRecord, PartitionInfo, Position, Readiness, Refusal, RefusalKind,
    StoredRecord, System, TopicInfo,
};
use headwater_docstore::{Bounds, Filter, FindError, Namespace, Query, Reader, Sort, Store};
use headwater_kafka_server::KafkaServer;
use serde_json::Value;

use crate::config::Durability;
use crate::flows::delivers::DeliverCounters;
use crate::flows::sinks::SinkCounters;
use crate::mqtt::retire::Retirements;
use crate::mqtt::{Counters, wall_ms};
use crate::tls::Certificates;

/// Longest time a query for documents may take.
const QUERY_TIME_MAX: Duration = Duration::from_secs(30);
/// Readers of the store kept open.
const READERS_MAX: usize = 4;
/// Longest wait for a commit that a call asks for.
const COMMIT_TIME_MAX: Duration = Duration::from_secs(30);

/// The parts that the HTTP door looks at.
pub(crate) struct Running {
    pub(crate) log: Log,
    pub(crate) store: Store,
    pub(crate) kafka: Arc<KafkaServer>,
    pub(crate) retirements: Arc<Retirements>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) committer: Arc<crate::mqtt::commits::Committer>,
    pub(crate) sinks: Arc<SinkCounters>,
    pub(crate) delivers: Arc<DeliverCounters>,
    pub(crate) shared: Arc<headwater_mqtt_broker::Shared>,
    pub(crate) certificates: Arc<Certificates>,
    pub(crate) durability: Durability,
    pub(crate) partitions: u32,
    /// Whether a topic is made on first use.
    pub(crate) auto_create: bool,
    /// Where the Kafka side's own work runs.
    pub(crate) runtime: tokio::runtime::Handle,
    pub(crate) listeners: RwLock<Vec<ListenerState>>,
    pub(crate) stopping: AtomicBool,
    pub(crate) readers: Mutex<Vec<Reader>>,
    /// Result of the last reload; true before the first.
    pub(crate) reload_good: AtomicBool,
}

impl Running {
    /// A reader of the store, from those not in use.
    fn with_reader<T>(
        &self,
        work: impl FnOnce(&mut Reader) -> Result<T, FindError>,
    ) -> Result<T, Refusal> {
        let kept = self
            .readers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        let mut reader = match kept {
            Some(reader) => reader,
            None => self.store.reader().map_err(|error| {
                Refusal::new(
                    RefusalKind::Internal,
                    format!("the document store: {error}"),
                )
            })?,
        };
        let result = work(&mut reader);
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if readers.len() < READERS_MAX {
            readers.push(reader);
        }
        result.map_err(|error| find_refusal(&error))
    }

    fn known_topic(&self, name: &str) -> Result<Arc<Topic>, Refusal> {
        self.log.topic(name).ok_or_else(|| unknown_topic(name))
    }

    fn partition(&self, topic: &Topic, index: u32) -> Result<Arc<Partition>, Refusal> {
        let id = usize::try_from(index)
            .ok()
            .and_then(|index| topic.partitions.get(index));
        id.and_then(|id| self.log.partition(*id)).ok_or_else(|| {
            let sentence = format!("topic {} has no partition {index}", topic.name);
            Refusal::new(RefusalKind::NotFound, sentence)
        })
    }

    fn info(&self, topic: &Topic) -> TopicInfo {
        let partitions = topic
            .partitions
            .iter()
            .filter_map(|id| self.log.partition(*id));
        TopicInfo {
            name: topic.name.to_string(),
            id: topic.id.to_string(),
            partitions: partitions
                .map(|partition| PartitionInfo {
                    partition: partition.index(),
                    log_start_offset: partition.log_start_offset(),
                    high_watermark: partition.high_watermark(),
                    size_bytes: partition.size_bytes(),
                })
                .collect(),
            config: (topic.config.entries())
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
        }
    }
}

fn unknown_topic(name: &str) -> Refusal {
    Refusal::new(RefusalKind::NotFound, format!("there is no topic {name}"))
}

fn bounds() -> Bounds {
    Bounds {
        deadline: Some(Instant::now() + QUERY_TIME_MAX),
        ..Bounds::default()
    }
}

fn namespace(name: &str) -> Result<Namespace, Refusal> {
    Namespace::parse(name).map_err(|error| Refusal::new(RefusalKind::BadRequest, error.to_string()))
}

fn filter(value: &Value) -> Result<Filter, Refusal> {
    Filter::parse(&value.to_string())
        .map_err(|error| Refusal::new(RefusalKind::BadRequest, error.to_string()))
}

fn find_refusal(error: &FindError) -> Refusal {
    let kind = match error {
        FindError::Scanned(_) | FindError::SortTooLarge(_) | FindError::Deadline => {
            RefusalKind::Unavailable
        }
        _ => RefusalKind::Internal,
    };
    Refusal::new(kind, error.to_string())
}

/// The same error for people and programs.
pub(crate) fn commit_refusal(error: &CommitError) -> Refusal {
    let kind = match error {
        CommitError::Full | CommitError::OutOfFiles | CommitError::BacklogFull { .. } => {
            RefusalKind::Unavailable
        }
        CommitError::UnknownPartition { .. } | CommitError::UnknownTopic { .. } => {
            RefusalKind::NotFound
        }
        CommitError::TopicExists { .. } => RefusalKind::Conflict,
        CommitError::TooLarge { .. } => RefusalKind::TooLarge,
        CommitError::InvalidName(_)
        | CommitError::InvalidConfig(_)
        | CommitError::InvalidPartitions { .. }
        | CommitError::OffsetOutOfRange { .. } => RefusalKind::BadRequest,
        _ => RefusalKind::Internal,
    };
    let mut sentence = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        sentence = format!("{sentence}: {next}");
        cause = next.source();
    }
    Refusal::new(kind, sentence)
}

impl System for Running {
    fn alive(&self) -> bool {
        !self.log.stats().failed
    }

    fn readiness(&self) -> Readiness {
        let listeners = self
            .listeners
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let accepting = !listeners.is_empty() && listeners.iter().all(|door| door.accepting);
        let stats = self.log.stats();
        let mut degraded = Vec::new();
        if stats.full {
            degraded
                .push("the disk is full: publishes are refused until there is space".to_owned());
        }
        if self.durability != Durability::Sync {
            degraded.push(format!("durability is {}", self.durability.name()));
        }
        degraded.extend(self.sinks.troubles.sentences());
        degraded.extend(self.delivers.troubles.sentences());
        let ready = accepting && !self.stopping.load(Ordering::Relaxed) && !stats.failed;
        Readiness {
            ready,
            listeners,
            degraded,
        }
    }

    fn metrics(&self) -> String {
        metrics::text(self)
    }

    fn find(
        &self,
        query: &Find,
        each: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<(), Refusal> {
        let namespace = namespace(&query.namespace)?;
        let sort = match &query.sort {
            None => Sort::default(),
            Some(text) => Sort::parse(text)
                .map_err(|error| Refusal::new(RefusalKind::BadRequest, error.to_string()))?,
        };
        let wish = Query {
            filter: filter(&query.filter)?,
            sort,
            skip: query.skip,
            limit: query.limit,
        };
        self.with_reader(|reader| reader.find(&namespace, &wish, &bounds(), each))
            .map(drop)
    }

    fn count(&self, name: &str, by: &Value) -> Result<u64, Refusal> {
        let (namespace, filter) = (namespace(name)?, filter(by)?);
        self.with_reader(|reader| reader.count(&namespace, &filter, &bounds()))
    }

    fn topics(&self) -> Result<Vec<TopicInfo>, Refusal> {
        let topics = self.log.topics();
        Ok(topics
            .iter()
            .filter(|topic| !topic.is_internal())
            .map(|topic| self.info(topic))
            .collect())
    }

    fn topic(&self, name: &str) -> Result<TopicInfo, Refusal> {
        Ok(self.info(&*self.known_topic(name)?))
    }

    fn create_topic(&self, wish: &CreateTopic) -> Result<TopicInfo, Refusal> {
        let mut config = TopicConfig::default();
        for (key, value) in &wish.config {
            if key == TopicConfig::CLEANUP_POLICY && value.contains("compact") {
                let sentence = "compaction is not built yet; take cleanup.policy=delete";
                return Err(Refusal::new(RefusalKind::BadRequest, sentence));
            }
            config
                .set(key, value)
                .map_err(|error| commit_refusal(&CommitError::InvalidConfig(error)))?;
        }
        refuse_internal(&wish.name)?;
        let partitions = wish.partitions.unwrap_or(self.partitions);
        let create = Admin::CreateTopic {
            name: wish.name.clone(),
            partitions,
            config,
        };
        let unit = Unit {
            admin: vec![create],
            ..Unit::default()
        };
        self.log
            .commit(unit)
            .map_err(|error| commit_refusal(&error))?;
        self.topic(&wish.name)
    }

    fn delete_topic(&self, name: &str) -> Result<(), Refusal> {
        refuse_internal(name)?;
        let (sender, receiver) = std::sync::mpsc::channel();
        let done = Box::new(move |result| {
            // Nobody listens any more only after the time below.
            sender.send(result).ok();
        });
        self.retirements.delete_topic(name, done);
        match receiver.recv_timeout(COMMIT_TIME_MAX) {
            Ok(result) => result.map_err(|error| commit_refusal(&error)),
            Err(_) => Err(Refusal::new(
                RefusalKind::Unavailable,
                "the topic is still being deleted",
            )),
        }
    }

    fn produce(&self, topic: &str, records: Vec<NewRecord>) -> Result<Vec<Position>, Refusal> {
        refuse_internal(topic)?;
        let topic = match self.log.topic(topic) {
            Some(topic) => topic,
            None if !self.auto_create => return Err(unknown_topic(topic)),
            None => {
                self.create_topic(&CreateTopic {
                    name: topic.to_owned(),
                    partitions: None,
                    config: BTreeMap::new(),
                })?;
                self.known_topic(topic)?
            }
        };
        let count = u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX);
        let mut units = Vec::new();
        let mut places = Vec::new();
        for record in &records {
            let index = match (record.partition, &record.key) {
                (Some(partition), _) => partition,
                (None, Some(key)) => partition_for_key(key, count),
                (None, None) => u32::from(rand_byte()) % count.max(1),
            };
            let partition = self.partition(&topic, index)?;
            places.push(index);
            units.push(unit(partition.id(), record));
        }
        let (sender, receiver) = std::sync::mpsc::channel();
        self.log.submit(
            units,
            Box::new(move |answers| {
                sender.send(answers).ok();
            }),
        );
        let answers = receiver.recv_timeout(COMMIT_TIME_MAX).map_err(|_| {
            Refusal::new(RefusalKind::Unavailable, "the log did not answer in time")
        })?;
        let mut positions = Vec::new();
        for (answer, partition) in answers.into_iter().zip(places) {
            let receipt = answer.map_err(|error| commit_refusal(&error))?;
            let offset = receipt
                .positions
                .first()
                .map_or(0, |position| position.offset);
            positions.push(Position { partition, offset });
        }
        Ok(positions)
    }

    fn records(&self, fetch: &Fetch) -> Result<Fetched, Refusal> {
        let topic = self.known_topic(&fetch.topic)?;
        let partition = self.partition(&topic, fetch.partition)?;
        let (start, end) = (partition.log_start_offset(), partition.high_watermark());
        let unreadable =
            |error: &dyn std::error::Error| Refusal::new(RefusalKind::Internal, error.to_string());
        let from = match fetch.start {
            FetchStart::Earliest => start,
            FetchStart::Latest => end,
            FetchStart::Offset(offset) => offset.max(start),
            FetchStart::Timestamp(ms) => partition
                .offset_for_time(ms)
                .map_err(|error| unreadable(&error))?
                .map_or(end, |(offset, _)| offset),
        };
        let mut fetched = Fetched {
            records: Vec::new(),
            next_offset: from,
            log_start_offset: start,
            high_watermark: end,
        };
        if from >= end {
            return Ok(fetched);
        }
        let mut bytes = 0;
        for record in partition
            .records(from, fetch.bytes_max)
            .map_err(|error| unreadable(&error))?
        {
            let record = record.map_err(|error| unreadable(&error))?;
            bytes += record.value.as_ref().map_or(0, |value| value.len());
            fetched.next_offset = record.offset + 1;
            fetched.records.push(StoredRecord {
                offset: record.offset,
                timestamp_ms: record.timestamp_ms,
                headers: record
                    .headers
                    .iter()
                    .map(|(name, value)| {
                        let value = value.map(bytes::Bytes::copy_from_slice);
                        (name.to_owned(), HeaderValue(value))
                    })
                    .collect(),
                key: record.key,
                value: record.value,
            });
            if fetched.records.len() >= fetch.limit || bytes >= fetch.bytes_max {
                break;
            }
        }
        Ok(fetched)
    }

    fn groups(&self) -> Result<Vec<GroupSummary>, Refusal> {
        Ok(self
            .kafka
            .groups()
            .into_iter()
            .map(|group| groups::summary(&group))
            .collect())
    }

    fn group(&self, name: &str) -> Result<GroupDetail, Refusal> {
        let all = self.kafka.groups();
        let found = all.iter().find(|group| group.group_id == name);
        found
            .map(groups::detail)
            .ok_or_else(|| Refusal::new(RefusalKind::NotFound, format!("there is no group {name}")))
    }

    fn delete_group(&self, name: &str) -> Result<(), Refusal> {
        let (kafka, group) = (Arc::clone(&self.kafka), name.to_owned());
        let (sender, receiver) = std::sync::mpsc::channel();
        self.runtime.spawn(async move {
            // Nobody listens any more only after the time below.
            sender.send(kafka.delete_group(&group).await).ok();
        });
        match receiver.recv_timeout(COMMIT_TIME_MAX) {
            Ok(code) => groups::deleted(name, code),
            Err(_) => Err(Refusal::new(
                RefusalKind::Unavailable,
                "the group is still being deleted",
            )),
        }
    }
}

fn refuse_internal(name: &str) -> Result<(), Refusal> {
    if name.starts_with(headwater_commitlog::INTERNAL_PREFIX) {
        let sentence = format!("{name} is a topic of the system's own; take another name");
        return Err(Refusal::new(RefusalKind::BadRequest, sentence));
    }
    Ok(())
}

fn unit(partition: PartitionId, record: &NewRecord) -> Unit {
    let headers: Vec<(&str, Option<&[u8]>)> = (record.headers.iter())
        .map(|(name, value)| (name.as_str(), value.0.as_deref()))
        .collect();
    let body = RecordBody::new(record.key.as_deref(), record.value.as_deref(), headers);
    let timestamp_ms = record.timestamp_ms.unwrap_or_else(wall_ms);
    let mut unit = Unit::default();
    unit.appends.push(Append {
        partition,
        data: AppendData::Record { timestamp_ms, body },
    });
    unit
}

fn rand_byte() -> u8 {
    uuid::Uuid::new_v4()
        .as_bytes()
        .first()
        .copied()
        .unwrap_or_default()
}
