//! The adapter between broker and log: each Commit becomes one Unit, each answer the shards' Inputs.
//!
//! For: routing a message to its records, filling in the owed entry, making topics that a route
//! needs, and handing what was committed back in commit order.
//! Not for: what is durable (`mqtt-broker` says), where a route leads (`bridge` says).
//! Calls: `convert`, `headwater_bridge`, `headwater_commitlog`. Called by: `shard`, and on the
//! committer thread by the log.
//! Holds: the commits of one shard reach the log in the order in which the shard made them, also
//! when one of them must wait for a topic to be made.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use headwater_bridge::{Flows, encode_record, partition_for_key};
use headwater_commitlog::record::RecordBody;
use headwater_commitlog::{
    Admin, Append, AppendData, CommitError, Log, PartitionId, Position, TableChange, TableId,
    Topic, TopicConfig, Topics, Unit,
};
use headwater_mqtt_broker::{self as broker, Commit, Input, Message, Refusal, Shared, distribute};
use tracing::warn;

use super::Internal;
use super::convert::incoming;
use super::inbox::Inbox;
use super::injections::Injections;
use super::shard::Mail;
use crate::flows::Current;

/// What a record costs a partition; topics made by routes are capped.
pub(crate) const ROUTED_TOPICS_MAX: usize = 10_000;

/// How topics come to be.
pub(crate) struct TopicRules {
    pub(crate) auto_create: bool,
    pub(crate) partitions: u32,
}

/// One for the process.
pub(crate) struct Committer {
    log: Log,
    shared: Arc<Shared>,
    inboxes: Arc<[Inbox<Mail>]>,
    flows: Arc<Current>,
    injections: Arc<Injections>,
    rules: TopicRules,
    internal: Internal,
    /// A shard's commits that wait behind one whose topic is being made.
    stages: Vec<Mutex<Stage>>,
}

#[derive(Default)]
struct Stage {
    waiting: VecDeque<Box<Commit>>,
    creating: bool,
}

/// A commit on its way, with what its unit's answer means to it.
struct Sent {
    commit: Box<Commit>,
    /// Which append holds the message.
    message: Option<usize>,
    /// Which append is the owed entry.
    owed: Option<usize>,
}

/// What stops a commit from becoming a unit.
enum Held {
    /// Until this topic is made.
    Topic(String),
    Refused(Refusal),
}

impl Committer {
    pub(crate) fn new(
        log: Log,
        shared: Arc<Shared>,
        inboxes: Arc<[Inbox<Mail>]>,
        flows: Arc<Current>,
        injections: Arc<Injections>,
        rules: TopicRules,
        internal: Internal,
    ) -> Self {
        let stages = inboxes.iter().map(|_| Mutex::default()).collect();
        Self {
            log,
            shared,
            inboxes,
            flows,
            injections,
            rules,
            internal,
            stages,
        }
    }

    /// Hands the commits of one round of shard `origin` to the log.
    #[expect(
        clippy::vec_box,
        reason = "boxed by the broker; moved on, never rebuilt"
    )]
    pub(crate) fn submit(self: &Arc<Self>, origin: usize, commits: Vec<Box<Commit>>) {
        let Some(mut stage) = self.stage(origin) else {
            return;
        };
        stage.waiting.extend(commits);
        if !stage.creating {
            self.send(origin, &mut stage);
        }
    }

    fn stage(&self, origin: usize) -> Option<MutexGuard<'_, Stage>> {
        Some(
            self.stages
                .get(origin)?
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    /// Submits what waits, up to the first commit that needs a topic made.
    fn send(self: &Arc<Self>, origin: usize, stage: &mut Stage) {
        let (flows, topics) = (self.flows.load(), self.log.topics());
        let (mut units, mut sent) = (Vec::new(), Vec::new());
        let mut refused = Vec::new();
        let mut missing = None;
        while let Some(commit) = stage.waiting.pop_front() {
            match self.unit(&commit, &flows, &topics) {
                Ok((unit, message, owed)) => {
                    units.push(unit);
                    refused.push(None);
                    sent.push(Sent {
                        commit,
                        message,
                        owed,
                    });
                }
                Err(Held::Refused(refusal)) => {
                    // Its place in the order is kept by an empty unit.
                    units.push(Unit::default());
                    refused.push(Some(refusal));
                    sent.push(Sent {
                        commit,
                        message: None,
                        owed: None,
                    });
                }
                Err(Held::Topic(name)) => {
                    stage.waiting.push_front(commit);
                    stage.creating = true;
                    missing = Some(name);
                    break;
                }
            }
        }
        if !units.is_empty() {
            let committer = Arc::clone(self);
            let done = move |answers| committer.answered(sent, refused, answers);
            self.log.submit(units, Box::new(done));
        }
        // Behind what was gathered before it: its answer lets the next commit's overtake nothing.
        if let Some(name) = missing {
            self.make_topic(origin, name);
        }
    }

    /// Runs on the committer thread, in commit order.
    fn answered(
        &self,
        sent: Vec<Sent>,
        refused: Vec<Option<Refusal>>,
        answers: Vec<Result<headwater_commitlog::Receipt, CommitError>>,
    ) {
        let outcomes =
            sent.into_iter()
                .zip(refused)
                .zip(answers)
                .map(|((sent, refused), answer)| {
                    let outcome = match (refused, answer) {
                        (Some(refusal), _) => Err(refusal),
                        (None, Ok(receipt)) => {
                            let position =
                                |append: Option<usize>| receipt.positions.get(append?).copied();
                            Ok(broker::Receipt {
                                stored: position(sent.message).map(to_broker),
                                owed: position(sent.owed).map(|position| position.offset),
                            })
                        }
                        (None, Err(error)) => Err(refusal(&error)),
                    };
                    (sent.commit, outcome)
                });
        let mut into: Vec<Vec<Input>> = self.inboxes.iter().map(|_| Vec::new()).collect();
        distribute(&self.shared, outcomes.collect(), &mut into);
        let mail = |inputs: Vec<Input>| inputs.into_iter().map(Mail::Input).collect();
        Inbox::put_together(&self.inboxes, into.into_iter().map(mail).collect());
    }

    fn unit(
        &self,
        commit: &Commit,
        flows: &Flows,
        topics: &Topics,
    ) -> Result<(Unit, Option<usize>, Option<usize>), Held> {
        let mut unit = Unit::default();
        let (mut message_at, mut owed_at) = (None, None);
        if let Some(message) = &commit.message {
            if commit.stores_message() {
                // A topic may be deleted between this look at the topics and the commit.
                unit.fallback = Some(self.internal.kept);
                self.store(commit, message, flows, topics, &mut unit)?;
                message_at = Some(0);
            }
            if let Some(entry) = &commit.owed {
                let timestamp_ms = message.at_ms;
                let data = match message.stored {
                    None => {
                        let body = owed_record(UNKNOWN, entry);
                        AppendData::Reference {
                            timestamp_ms,
                            to: 0,
                            body,
                        }
                    }
                    Some(stored) => {
                        let body = owed_record(from_broker(stored), entry);
                        AppendData::Record { timestamp_ms, body }
                    }
                };
                owed_at = Some(unit.appends.len());
                unit.appends.push(Append {
                    partition: self.internal.owed,
                    data,
                });
            }
        }
        unit.tables
            .extend(commit.changes.iter().map(|change| TableChange {
                table: table_id(change.table),
                key: change.key.clone(),
                value: change.value.clone(),
            }));
        if let Some(ticket) = commit.ticket {
            let (rows, lane) = self.injections.changes(ticket);
            unit.tables.extend(rows);
            unit.lane = lane;
        }
        Ok((unit, message_at, owed_at))
    }

    /// Appends the message wherever routes want it, else to the kept topic.
    fn store(
        &self,
        commit: &Commit,
        message: &Message,
        flows: &Flows,
        topics: &Topics,
        unit: &mut Unit,
    ) -> Result<(), Held> {
        let incoming = incoming(message);
        let timestamp_ms = message.at_ms;
        if commit.routed {
            for routed in flows.route(&incoming) {
                let Some(topic) = topics.by_name(&routed.topic) else {
                    return Err(self.missing(&routed.topic, topics));
                };
                let partition = self.partition(topic, &routed.key);
                let body = routed.encode(&incoming);
                unit.appends.push(Append {
                    partition,
                    data: AppendData::Record { timestamp_ms, body },
                });
            }
        }
        // Also when the routes changed since the broker asked, and none takes it now.
        if unit.appends.is_empty() {
            unit.appends.push(Append {
                partition: self.internal.kept,
                data: AppendData::Record {
                    timestamp_ms,
                    body: encode_record(&incoming, None),
                },
            });
        }
        Ok(())
    }

    fn missing(&self, topic: &str, topics: &Topics) -> Held {
        if self.rules.auto_create && topics.len() < ROUTED_TOPICS_MAX {
            return Held::Topic(topic.to_owned());
        }
        warn!(
            kafka_topic = topic,
            "message refused: its route leads to a topic that does not exist"
        );
        Held::Refused(Refusal::Failed)
    }

    /// Java's choice for a key.
    fn partition(&self, topic: &Topic, key: &[u8]) -> PartitionId {
        let count = u32::try_from(topic.partitions.len())
            .unwrap_or(u32::MAX)
            .max(1);
        let index = usize::try_from(partition_for_key(key, count)).unwrap_or(0);
        topic
            .partitions
            .get(index)
            .copied()
            .unwrap_or(self.internal.kept)
    }

    fn make_topic(self: &Arc<Self>, origin: usize, name: String) {
        let partitions = self.rules.partitions;
        let create = Admin::CreateTopic {
            name: name.clone(),
            partitions,
            config: TopicConfig::default(),
        };
        let unit = Unit {
            admin: vec![create],
            ..Unit::default()
        };
        let committer = Arc::clone(self);
        let done = move |answers: Vec<Result<_, CommitError>>| {
            let failed = match answers.into_iter().next() {
                Some(Ok(_) | Err(CommitError::TopicExists { .. })) => None,
                Some(Err(error)) => Some(error),
                None => Some(CommitError::Closed),
            };
            committer.topic_made(origin, &name, failed);
        };
        self.log.submit(vec![unit], Box::new(done));
    }

    /// Goes on with what waited; the commit that needed the topic is refused when there is none.
    fn topic_made(self: &Arc<Self>, origin: usize, name: &str, failed: Option<CommitError>) {
        let Some(mut stage) = self.stage(origin) else {
            return;
        };
        stage.creating = false;
        if let Some(error) = failed {
            warn!(kafka_topic = name, %error, "the topic of a route could not be made");
            if let Some(commit) = stage.waiting.pop_front() {
                let sent = vec![Sent {
                    commit,
                    message: None,
                    owed: None,
                }];
                self.answered(
                    sent,
                    vec![Some(refusal(&error))],
                    vec![Err(CommitError::Closed)],
                );
            }
        }
        self.send(origin, &mut stage);
    }
}

/// The log's table for one of the broker's.
pub(crate) fn table_id(table: broker::Table) -> TableId {
    TableId(TableId::BROKER.0 + table.index())
}

pub(crate) fn to_broker(position: Position) -> broker::Position {
    broker::Position {
        partition: position.partition.0,
        offset: position.offset,
    }
}

pub(crate) fn from_broker(position: broker::Position) -> Position {
    Position {
        partition: PartitionId(position.partition),
        offset: position.offset,
    }
}

/// Stands where the log will write a position.
const UNKNOWN: Position = Position {
    partition: PartitionId(0),
    offset: 0,
};

/// The record of an owed entry: where the message lies, then to whom it is owed.
pub(crate) fn owed_record(message: Position, entry: &[u8]) -> RecordBody {
    let mut value = Vec::with_capacity(Position::LEN + entry.len());
    value.extend_from_slice(&message.to_bytes());
    value.extend_from_slice(entry);
    RecordBody::new(None, Some(&value), std::iter::empty())
}

/// What the broker tells a Client about a failed commit.
fn refusal(error: &CommitError) -> Refusal {
    match error {
        CommitError::Full => Refusal::Full,
        CommitError::BacklogFull { .. } => Refusal::Backlog,
        CommitError::TooLarge { .. } => Refusal::TooLarge,
        CommitError::Poisoned { .. }
        | CommitError::Closed
        | CommitError::UnknownPartition { .. }
        | CommitError::UnknownTopic { .. }
        | CommitError::TopicExists { .. }
        | CommitError::InvalidName(_)
        | CommitError::InvalidConfig(_)
        | CommitError::InvalidPartitions { .. }
        | CommitError::OffsetOutOfRange { .. }
        | CommitError::DuplicateSequence { .. }
        | CommitError::OutOfOrderSequence { .. }
        | CommitError::InvalidProducerEpoch { .. }
        | CommitError::LaneBroken
        | CommitError::Unreadable { .. }
        | CommitError::BadReference { .. } => Refusal::Failed,
    }
}
