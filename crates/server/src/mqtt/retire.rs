//! Lets records go without taking them from sessions that are still owed them.
//!
//! For: retention, DeleteRecords and topic deletion: what is owed of the bytes that go is copied to
//! the kept topic, and the references follow, before the removal. `internal` keeps the owed and the
//! kept topic themselves small.
//! Not for: deciding what goes of users' topics (the log's retention, Kafka clients).
//! Calls: the log, and every shard through its inbox. Called by: `serve`'s housekeeping, the Kafka
//! door, the HTTP door.
//! Holds: at every moment, and after a crash at every moment, what a session is owed can be read; a
//! topic that was closed for its deletion is never opened again, for messages that belong in it went
//! past it: the deletion is tried until it is done, also after a restart.

mod internal;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use headwater_commitlog::{
    Admin, Append, AppendData, CommitError, Log, PartitionId, Position, TableChange, TableId,
    Topic, Unit,
};
use headwater_mqtt_broker::{Going, Input, Moved, OwedReference};
use tracing::{info, warn};
use uuid::Uuid;

use super::Internal;
use super::commits::{from_broker, owed_record, to_broker};
use super::inbox::Inbox;
use super::loader::Run;
use super::shard::Mail;
use crate::failure;
use internal::Tended;

/// Called once the records are gone, or why they stay.
pub(crate) type Done = Box<dyn FnOnce(Result<(), CommitError>) + Send>;

/// Bytes of copied records in one commit, about; less where the log takes no such unit.
const COPY_BYTES_MAX: u64 = 4 << 20;
/// What a record or an entry costs a unit besides its bytes, at most.
const APPEND_BYTES: usize = 64;
/// How often a wait for the shards looks whether the process ends.
const PATIENCE: Duration = Duration::from_millis(200);
/// Wait before a deletion that failed is tried again, doubled up to the second.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

struct Job {
    task: Task,
    done: Done,
}

enum Task {
    /// Drop the records of a partition below an offset.
    Trim { partition: PartitionId, before: u64 },
    /// Delete a topic with its records.
    Delete { name: String },
    /// Look after the internal partitions.
    Tend,
}

/// A shard's answer.
enum Answer {
    Owes {
        going: Going,
        references: Vec<OwedReference>,
        complete: bool,
    },
    Needs {
        survey: u64,
        sequence: Option<u64>,
        kept: Option<u64>,
    },
}

/// One for the process, with a thread of its own.
pub(crate) struct Retirements {
    jobs: Mutex<Option<Sender<Job>>>,
    answers: Mutex<Sender<Answer>>,
    stopping: Arc<AtomicBool>,
}

/// The thread's state.
struct Worker {
    log: Log,
    inboxes: Arc<[Inbox<Mail>]>,
    internal: Internal,
    jobs: Receiver<Job>,
    answers: Receiver<Answer>,
    stopping: Arc<AtomicBool>,
    tended: Tended,
    surveys: u64,
    /// Deletions that are decided and failed, or come from before a restart.
    deletions: BTreeMap<Uuid, Retry>,
}

/// When to try again.
struct Retry {
    at: Instant,
    wait: Duration,
}

/// A unit that is filled with copies.
#[derive(Default)]
struct Gathered {
    unit: Unit,
    bytes: usize,
    /// Sequence, old place, and which append is the new one.
    moving: Vec<(u64, Position, usize)>,
}

/// The end of the internal partitions when the shards were asked.
#[derive(Clone, Copy, Debug, Default)]
struct Ends {
    owed: u64,
    kept: u64,
}

impl Retirements {
    /// Goes on with the deletions that a restart cut off. No door may be open yet: their topics must
    /// be closed first.
    pub(crate) fn start(
        log: Log,
        inboxes: Arc<[Inbox<Mail>]>,
        internal: Internal,
    ) -> std::io::Result<Self> {
        let (jobs, job_receiver) = channel();
        let (answers, answer_receiver) = channel();
        let stopping = Arc::new(AtomicBool::new(false));
        let mut worker = Worker {
            log,
            inboxes,
            internal,
            jobs: job_receiver,
            answers: answer_receiver,
            stopping: Arc::clone(&stopping),
            tended: Tended::default(),
            surveys: 0,
            deletions: BTreeMap::new(),
        };
        worker.take_up_deletions();
        failure::thread("retire", move || worker.run())?;
        Ok(Self {
            jobs: Mutex::new(Some(jobs)),
            answers: Mutex::new(answers),
            stopping,
        })
    }

    /// No further job begins, and one that waits for the shards gives up.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.jobs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
    }

    /// Drops the records of `partition` below `before`.
    pub(crate) fn trim(&self, partition: PartitionId, before: u64, done: Done) {
        self.ask(Job {
            task: Task::Trim { partition, before },
            done,
        });
    }

    /// Lets go what nobody needs of the internal partitions, in a bounded step, if it is worth it.
    pub(crate) fn tend(&self, done: Done) {
        self.ask(Job {
            task: Task::Tend,
            done,
        });
    }

    /// Deletes a topic with its records.
    pub(crate) fn delete_topic(&self, name: &str, done: Done) {
        let name = name.to_owned();
        self.ask(Job {
            task: Task::Delete { name },
            done,
        });
    }

    fn ask(&self, job: Job) {
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        match jobs.as_ref() {
            Some(sender) => {
                if let Err(unsent) = sender.send(job) {
                    (unsent.0.done)(Err(CommitError::Closed));
                }
            }
            None => (job.done)(Err(CommitError::Closed)),
        }
    }

    /// A shard's `Effect::Owes`.
    pub(crate) fn owes(&self, going: Going, references: Vec<OwedReference>, complete: bool) {
        self.answered(Answer::Owes {
            going,
            references,
            complete,
        });
    }

    /// A shard's `Effect::Needs`.
    pub(crate) fn needs(&self, survey: u64, sequence: Option<u64>, kept: Option<u64>) {
        self.answered(Answer::Needs {
            survey,
            sequence,
            kept,
        });
    }

    fn answered(&self, answer: Answer) {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        // The worker is gone only when the process ends.
        answers.send(answer).ok();
    }
}

impl Worker {
    fn run(mut self) {
        loop {
            let next = self.deletions.values().map(|retry| retry.at).min();
            let job = match next {
                None => self.jobs.recv().map_err(RecvTimeoutError::from),
                Some(at) => {
                    let patience = at.saturating_duration_since(Instant::now());
                    self.jobs.recv_timeout(patience)
                }
            };
            match job {
                Ok(Job { task, done }) => {
                    let result = match task {
                        Task::Trim { partition, before } => self.trim(partition, before),
                        Task::Delete { name } => self.delete(&name),
                        Task::Tend => self.tend(),
                    };
                    done(result);
                }
                Err(RecvTimeoutError::Timeout) => self.retry_deletions(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn trim(&self, partition: PartitionId, before: u64) -> Result<(), CommitError> {
        let end = self
            .log
            .partition(partition)
            .map(|one| one.high_watermark());
        // What is not there yet cannot be asked for: it would come, and go unasked.
        if let Some(high_watermark) = end.filter(|end| before > *end) {
            return Err(CommitError::OffsetOutOfRange {
                offset: before,
                high_watermark,
            });
        }
        self.settle(partition, before)?;
        self.end(vec![Admin::TrimTo {
            partition,
            offset: before,
        }])
    }

    /// First the deletion is decided, for good; then nothing more comes to the topic, then what
    /// sessions are owed of it is copied, then it goes. Messages that routes lead there meanwhile go
    /// to the kept topic, as if they had come just before.
    fn delete(&mut self, name: &str) -> Result<(), CommitError> {
        let Some(topic) = self.log.topic(name) else {
            let name = name.to_owned();
            return Err(CommitError::UnknownTopic { name });
        };
        let decided = Unit {
            tables: vec![deletion(&topic, Some(Bytes::new()))],
            ..Unit::default()
        };
        self.log.commit(decided)?;
        self.carry_out(&topic)
    }

    /// Does what is decided, or has it tried again.
    fn carry_out(&mut self, topic: &Topic) -> Result<(), CommitError> {
        let deleted = self.close_and_delete(topic);
        let before = self.deletions.remove(&topic.id);
        if let Err(error) = &deleted {
            let wait = before.map_or(RETRY.0, |retry| (retry.wait * 2).min(RETRY.1));
            // The process ends: the next start goes on with it.
            if !matches!(error, CommitError::Closed) {
                let kafka_topic = &*topic.name;
                warn!(kafka_topic, %error, ?wait, "a topic's deletion waits; it takes no records");
            }
            let at = Instant::now() + wait;
            self.deletions.insert(topic.id, Retry { at, wait });
        }
        deleted
    }

    fn close_and_delete(&self, topic: &Topic) -> Result<(), CommitError> {
        for id in self.close(&topic.name)? {
            self.settle(id, u64::MAX)?;
        }
        let name = topic.name.as_ref().to_owned();
        let done = Unit {
            admin: vec![Admin::DeleteTopic { name }],
            tables: vec![deletion(topic, None)],
            ..Unit::default()
        };
        self.log.commit(done).map(drop)
    }

    /// Closes the topics whose deletion was cut off, and has it done soon.
    fn take_up_deletions(&mut self) {
        let (topics, now) = (self.log.topics(), Instant::now());
        let deletions = &mut self.deletions;
        self.log.scan_table(TableId::DELETIONS, &mut |key, _| {
            if let Ok(id) = Uuid::from_slice(key) {
                let (at, wait) = (now, RETRY.0);
                deletions.insert(id, Retry { at, wait });
            }
        });
        for topic in deletions.keys().filter_map(|id| topics.by_id(*id)) {
            for id in &topic.partitions {
                self.log.refuse_appends(*id, true);
            }
            info!(kafka_topic = &*topic.name, "a topic's deletion goes on");
        }
    }

    fn retry_deletions(&mut self) {
        let now = Instant::now();
        let due = self.deletions.iter().filter(|(_, retry)| retry.at <= now);
        let due: Vec<Uuid> = due.map(|(id, _)| *id).collect();
        for id in due {
            let topic = self.log.topics().by_id(id).map(Arc::clone);
            let Some(topic) = topic else {
                self.deletions.remove(&id);
                continue;
            };
            if self.carry_out(&topic).is_ok() {
                info!(kafka_topic = &*topic.name, "a topic is deleted at last");
            }
        }
    }

    /// Has every partition of the topic refuse appends, and says which they are. When this returns,
    /// those before are applied, and no partition can be added.
    fn close(&self, name: &str) -> Result<Vec<PartitionId>, CommitError> {
        let mut closed = Vec::new();
        loop {
            let Some(topic) = self.log.topic(name) else {
                let name = name.to_owned();
                return Err(CommitError::UnknownTopic { name });
            };
            // Numbers are never given again: this is the topic that was closed, and all of it.
            if topic.partitions == closed {
                return Ok(closed);
            }
            closed.clone_from(&topic.partitions);
            closed
                .iter()
                .for_each(|id| self.log.refuse_appends(*id, true));
            self.log.commit(Unit::default())?;
        }
    }

    /// Copies what sessions are owed of a partition's records below `before`.
    fn settle(&self, partition: PartitionId, before: u64) -> Result<(), CommitError> {
        let partition = partition.0;
        let going = Going::Records { partition, before };
        let owed = self.owed(going, usize::MAX)?;
        self.copy_all(owed.unwrap_or_default())
    }

    /// What all shards' sessions are owed of what shall go; `None` when that is more than
    /// `references_max` for one of them.
    fn owed(
        &self,
        going: Going,
        references_max: usize,
    ) -> Result<Option<Vec<OwedReference>>, CommitError> {
        self.question(move || Input::Retire {
            going,
            references_max,
        })?;
        let (mut references, mut whole) = (Vec::new(), true);
        let mut missing = self.inboxes.len();
        while missing > 0 {
            match self.answer()? {
                Answer::Owes {
                    going: about,
                    references: some,
                    complete,
                } if about == going => {
                    references.extend(some);
                    whole &= complete;
                    missing -= 1;
                }
                // The answer to a question that was given up.
                Answer::Owes { .. } | Answer::Needs { .. } => {}
            }
        }
        Ok(whole.then_some(references))
    }

    /// Asks every shard, in commit order: every delivery that was committed before is in the
    /// inboxes by then.
    fn question(&self, input: impl Fn() -> Input + Send + 'static) -> Result<Ends, CommitError> {
        let inboxes = Arc::clone(&self.inboxes);
        let (log, internal) = (self.log.clone(), self.internal);
        let (sender, receiver) = channel();
        let ask = move |_| {
            let end = |id| log.partition(id).map_or(0, |one| one.high_watermark());
            let ends = Ends {
                owed: end(internal.owed),
                kept: end(internal.kept),
            };
            let each = inboxes.iter().map(|_| vec![Mail::Input(input())]);
            Inbox::put_together(&inboxes, each.collect());
            // The worker waits just below.
            sender.send(ends).ok();
        };
        self.log.submit(vec![Unit::default()], Box::new(ask));
        receiver.recv().map_err(|_| CommitError::Closed)
    }

    /// The next answer of a shard.
    fn answer(&self) -> Result<Answer, CommitError> {
        loop {
            match self.answers.recv_timeout(PATIENCE) {
                Ok(answer) => return Ok(answer),
                Err(RecvTimeoutError::Timeout)
                    if !self.log.stats().failed && !self.stopping.load(Ordering::Relaxed) => {}
                Err(_) => return Err(CommitError::Closed),
            }
        }
    }

    /// Copies the records behind these references to the kept topic. The old ones may go only when
    /// this has returned: whoever looks for one there in vain finds in its inbox where it is.
    fn copy_all(&self, references: Vec<OwedReference>) -> Result<(), CommitError> {
        let mut owed: BTreeMap<Position, Vec<OwedReference>> = BTreeMap::new();
        for reference in references {
            owed.entry(from_broker(reference.position))
                .or_default()
                .push(reference);
        }
        let mut gathered = Gathered::default();
        let mut run = Run::new(&self.log);
        for (from, references) in owed {
            self.copy(&mut run, from, references, &mut gathered)?;
        }
        self.commit(gathered)
    }

    /// Before so many bytes are added: commits what is gathered if it would become too much.
    fn make_room(&self, gathered: &mut Gathered, bytes: usize) -> Result<(), CommitError> {
        let most = COPY_BYTES_MAX.min(self.log.unit_bytes_max());
        let after = gathered.bytes.saturating_add(bytes);
        if usize::try_from(most).is_ok_and(|most| after > most) {
            self.commit(std::mem::take(gathered))?;
        }
        gathered.bytes += bytes;
        Ok(())
    }

    /// The last step: what is free of debts goes.
    fn end(&self, admin: Vec<Admin>) -> Result<(), CommitError> {
        let unit = Unit {
            admin,
            ..Unit::default()
        };
        self.log.commit(unit).map(drop)
    }

    /// Adds the copy of one record and the entries that refer to it. What cannot be read stops the
    /// retirement: it stays where it is.
    fn copy(
        &self,
        run: &mut Run<'_>,
        from: Position,
        references: Vec<OwedReference>,
        gathered: &mut Gathered,
    ) -> Result<(), CommitError> {
        let record = run.record(to_broker(from)).map_err(|error| {
            let error: &dyn std::error::Error = &error;
            warn!(?from, error, "an owed record cannot be read");
            let (partition, offset) = (from.partition, from.offset);
            CommitError::Unreadable { partition, offset }
        })?;
        let Some(record) = record else {
            // A debt that was settled and came back with a floor row from before a crash.
            warn!(?from, "an owed record is gone already");
            return Ok(());
        };
        let timestamp_ms = record.timestamp_ms;
        let body = record.to_body();
        let entries: usize = references
            .iter()
            .map(|one| one.entry.len() + APPEND_BYTES)
            .sum();
        self.make_room(gathered, body.len() + APPEND_BYTES + entries)?;
        let appends = &mut gathered.unit.appends;
        let to = appends.len();
        appends.push(Append {
            partition: self.internal.kept,
            data: AppendData::Record { timestamp_ms, body },
        });
        for reference in references {
            let body = owed_record(from, &reference.entry);
            appends.push(Append {
                partition: self.internal.owed,
                data: AppendData::Reference {
                    timestamp_ms,
                    to,
                    body,
                },
            });
            gathered.moving.push((reference.sequence, from, to));
        }
        Ok(())
    }

    /// Commits, and tells every shard where its references lead now, in commit order.
    fn commit(&self, gathered: Gathered) -> Result<(), CommitError> {
        let Gathered { unit, moving, .. } = gathered;
        let inboxes = Arc::clone(&self.inboxes);
        let (sender, receiver) = channel();
        let done = move |answers: Vec<Result<headwater_commitlog::Receipt, CommitError>>| {
            let answer = answers
                .into_iter()
                .next()
                .unwrap_or(Err(CommitError::Closed));
            let result = answer.map(|receipt| {
                let mut moved: Vec<Moved> = (moving.into_iter())
                    .filter_map(|(sequence, from, append)| {
                        let to = to_broker(*receipt.positions.get(append)?);
                        Some(Moved {
                            sequence,
                            from: to_broker(from),
                            to,
                        })
                    })
                    .collect();
                // Gathered by place; shards look them up by sequence.
                moved.sort_unstable_by_key(|one| one.sequence);
                let moved: Arc<[Moved]> = moved.into();
                if !moved.is_empty() {
                    let mail = || vec![Mail::Input(Input::Moved(Arc::clone(&moved)))];
                    Inbox::put_together(&inboxes, inboxes.iter().map(|_| mail()).collect());
                }
            });
            // The worker waits just below.
            sender.send(result).ok();
        };
        self.log.submit(vec![unit], Box::new(done));
        receiver.recv().unwrap_or(Err(CommitError::Closed))
    }
}

/// The row that says whether a topic's deletion is decided.
fn deletion(topic: &Topic, value: Option<Bytes>) -> TableChange {
    TableChange {
        table: TableId::DELETIONS,
        key: Bytes::copy_from_slice(topic.id.as_bytes()),
        value,
    }
}

#[cfg(test)]
mod tests;
