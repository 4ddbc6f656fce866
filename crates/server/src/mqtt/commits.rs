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
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use headwater_bridge::{DEAD_LETTERS, Flows, encode_record, partition_for_key};
use headwater_commitlog::record::RecordBody;
use headwater_commitlog::{
    Admin, Append, AppendData, CommitError, Lane, Log, PartitionId, Position, TableChange, TableId,
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

/// How topics come to be.
pub(crate) struct TopicRules {
    pub(crate) auto_create: bool,
    pub(crate) partitions: u32,
    /// Partitions of all topics up to which routes make more.
    pub(crate) routed_partitions_max: usize,
}

/// After a topic could not be made none is tried for so long: each try is a group commit of its own.
const MAKE_AGAIN: Duration = Duration::from_secs(1);

/// What was seen of making topics.
#[derive(Default)]
struct Making {
    /// When the last try failed, and what its message is told if it can be stored nowhere.
    failed: Option<(Instant, Refusal)>,
    /// That messages go without their topics was said.
    said: bool,
}

impl Making {
    /// Why none is tried for now.
    fn refusal(&self) -> Option<Refusal> {
        let (at, refusal) = self.failed?;
        (at.elapsed() < MAKE_AGAIN).then_some(refusal)
    }
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
    making: Mutex<Making>,
    dead_letters: AtomicU64,
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
            making: Mutex::default(),
            dead_letters: AtomicU64::new(0),
            stages,
        }
    }

    /// Messages stored among the dead letters, because their route could not be carried out.
    pub(crate) fn dead_letters(&self) -> u64 {
        self.dead_letters.load(Ordering::Relaxed)
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
                    if let Some(lane) = &commit.lane {
                        Lane::from(Arc::clone(&lane.0)).break_off();
                    }
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
        unit.tables.extend(commit.changes.iter().map(table_change));
        unit.expects.extend(commit.expects.iter().map(table_change));
        if let Some(ticket) = commit.ticket {
            let (rows, lane) = self.injections.changes(ticket);
            unit.tables.extend(rows);
            unit.lane = lane;
        }
        if let Some(lane) = &commit.lane {
            unit.lane = Some(Arc::clone(&lane.0).into());
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
            let mut dead_letters = 0;
            for mut routed in flows.route(&incoming) {
                let topic = match topics.by_name(&routed.topic) {
                    Some(topic) => topic,
                    None if self.may_make(&routed.topic, topics) => {
                        return Err(Held::Topic(routed.topic.into_owned()));
                    }
                    None => {
                        routed = routed.without_topic();
                        self.dead_letter_topic(topics)?
                    }
                };
                dead_letters += u64::from(routed.rejected.is_some());
                let partition = self.partition(topic, &routed.key);
                let body = routed.encode(&incoming);
                unit.appends.push(Append {
                    partition,
                    data: AppendData::Record { timestamp_ms, body },
                });
            }
            self.dead_letters.fetch_add(dead_letters, Ordering::Relaxed);
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

    /// Whether a missing topic is to be made. What goes without it is said once, until one is made.
    fn may_make(&self, topic: &str, topics: &Topics) -> bool {
        let mut making = self.making();
        if making.refusal().is_some() {
            return false;
        }
        let partitions = topics.partitions().len();
        let after = partitions.saturating_add(self.rules.partitions as usize);
        let limit = self.rules.routed_partitions_max;
        if topic == DEAD_LETTERS || (self.rules.auto_create && after <= limit) {
            return true;
        }
        if !std::mem::replace(&mut making.said, true) {
            let auto_create = self.rules.auto_create;
            warn!(
                kafka_topic = topic,
                auto_create,
                partitions,
                routed_partitions_max = limit,
                "routes lead to topics that do not exist: messages become dead letters"
            );
        }
        false
    }

    fn making(&self) -> MutexGuard<'_, Making> {
        self.making.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where a message goes whose own topic is not made.
    fn dead_letter_topic<'t>(&self, topics: &'t Topics) -> Result<&'t Arc<Topic>, Held> {
        let failed = self.making().refusal();
        // Not on a full disk: there it waits for its own topic.
        match (topics.by_name(DEAD_LETTERS), failed) {
            (_, Some(Refusal::Full)) => Err(Held::Refused(Refusal::Full)),
            (Some(topic), _) => Ok(topic),
            (None, _) if self.may_make(DEAD_LETTERS, topics) => {
                Err(Held::Topic(DEAD_LETTERS.to_owned()))
            }
            (None, failed) => Err(Held::Refused(failed.unwrap_or(Refusal::Failed))),
        }
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
        let partitions = match &*name {
            DEAD_LETTERS => 1,
            _ => self.rules.partitions,
        };
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

    /// Goes on with what waited; the commit that needed the topic sees that there is none.
    fn topic_made(self: &Arc<Self>, origin: usize, name: &str, failed: Option<CommitError>) {
        let Some(mut stage) = self.stage(origin) else {
            return;
        };
        stage.creating = false;
        {
            let mut making = self.making();
            match failed {
                None => {
                    making.failed = None;
                    making.said &= name == DEAD_LETTERS;
                }
                Some(error) => {
                    making.failed = Some((Instant::now(), refusal(&error)));
                    if !std::mem::replace(&mut making.said, true) {
                        warn!(kafka_topic = name, %error, "topics of routes cannot be made");
                    }
                }
            }
        }
        self.send(origin, &mut stage);
    }
}

fn table_change(change: &broker::Change) -> TableChange {
    TableChange {
        table: table_id(change.table),
        key: change.key.clone(),
        value: change.value.clone(),
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
        // Both pass by themselves.
        CommitError::Full | CommitError::OutOfFiles => Refusal::Full,
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
        | CommitError::RowChanged
        | CommitError::Unreadable { .. }
        | CommitError::BadReference { .. } => Refusal::Failed,
    }
}
