//! Lets records go without taking them from sessions that are still owed them.
//!
//! For: retention, DeleteRecords and topic deletion: what is owed of the bytes that go is copied to
//! the kept topic, and the references follow, in commits that end with the removal.
//! Not for: deciding what goes (the log's retention, Kafka clients).
//! Calls: the log, and every shard through its inbox. Called by: `serve`'s housekeeping, the Kafka
//! door, the HTTP door.
//! Holds: at every moment, and after a crash at every moment, what a session is owed can be read.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use headwater_commitlog::{
    Admin, Append, AppendData, CommitError, Log, PartitionId, Position, Unit,
};
use headwater_mqtt_broker::{Input, Moved, OwedReference};
use tracing::warn;

use super::Internal;
use super::commits::{from_broker, owed_record, to_broker};
use super::inbox::Inbox;
use super::shard::Mail;

/// Called once the records are gone, or why they stay.
pub(crate) type Done = Box<dyn FnOnce(Result<(), CommitError>) + Send>;

/// Bytes of copied records in one commit, about.
const COPY_BYTES_MAX: usize = 4 << 20;
const READ_BYTES: usize = 1 << 20;
/// How often a wait for the shards looks whether the process ends.
const PATIENCE: Duration = Duration::from_secs(1);

struct Job {
    /// Partitions and the offset below which their records go.
    going: Vec<(PartitionId, u64)>,
    end: Admin,
    done: Done,
}

/// A shard's answer for one partition.
struct Answer {
    partition: u32,
    before: u64,
    references: Vec<OwedReference>,
}

/// One for the process, with a thread of its own.
pub(crate) struct Retirements {
    log: Log,
    jobs: Mutex<Option<Sender<Job>>>,
    answers: Mutex<Sender<Answer>>,
}

/// The thread's state.
struct Worker {
    log: Log,
    inboxes: Arc<[Inbox<Mail>]>,
    internal: Internal,
    jobs: Receiver<Job>,
    answers: Receiver<Answer>,
}

impl Retirements {
    pub(crate) fn start(
        log: Log,
        inboxes: Arc<[Inbox<Mail>]>,
        internal: Internal,
    ) -> std::io::Result<Self> {
        let (jobs, job_receiver) = channel();
        let (answers, answer_receiver) = channel();
        let worker = Worker {
            log: log.clone(),
            inboxes,
            internal,
            jobs: job_receiver,
            answers: answer_receiver,
        };
        std::thread::Builder::new()
            .name("retire".to_owned())
            .spawn(move || worker.run())?;
        Ok(Self {
            log,
            jobs: Mutex::new(Some(jobs)),
            answers: Mutex::new(answers),
        })
    }

    /// No further job begins.
    pub(crate) fn stop(&self) {
        self.jobs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
    }

    /// Drops the records of `partition` below `before`.
    pub(crate) fn trim(&self, partition: PartitionId, before: u64, done: Done) {
        let end = Admin::TrimTo {
            partition,
            offset: before,
        };
        self.ask(Job {
            going: vec![(partition, before)],
            end,
            done,
        });
    }

    /// Deletes a topic with its records.
    pub(crate) fn delete_topic(&self, name: &str, done: Done) {
        let going = match self.log.topic(name) {
            Some(topic) => topic.partitions.iter().map(|id| (*id, u64::MAX)).collect(),
            None => {
                return done(Err(CommitError::UnknownTopic {
                    name: name.to_owned(),
                }));
            }
        };
        self.ask(Job {
            going,
            end: Admin::DeleteTopic {
                name: name.to_owned(),
            },
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
    pub(crate) fn answered(&self, partition: u32, before: u64, references: Vec<OwedReference>) {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        // The worker is gone only when the process ends.
        answers
            .send(Answer {
                partition,
                before,
                references,
            })
            .ok();
    }
}

impl Worker {
    fn run(self) {
        while let Ok(job) = self.jobs.recv() {
            let result = self.work(&job.going, job.end);
            (job.done)(result);
        }
    }

    fn work(&self, going: &[(PartitionId, u64)], end: Admin) -> Result<(), CommitError> {
        let mut owed: BTreeMap<Position, Vec<OwedReference>> = BTreeMap::new();
        for &(partition, before) in going {
            for reference in self.owed(partition, before)? {
                owed.entry(from_broker(reference.position))
                    .or_default()
                    .push(reference);
            }
        }
        let mut unit = Unit::default();
        let mut moving = Vec::new();
        for (from, references) in owed {
            self.copy(from, references, &mut unit, &mut moving);
            if unit.size_bytes() >= COPY_BYTES_MAX {
                self.commit(std::mem::take(&mut unit), std::mem::take(&mut moving))?;
            }
        }
        unit.admin.push(end);
        self.commit(unit, moving)
    }

    /// What all shards' sessions are owed of the records that shall go.
    fn owed(&self, partition: PartitionId, before: u64) -> Result<Vec<OwedReference>, CommitError> {
        // Asked in commit order: every delivery of a record that may go is in the inboxes by then.
        let inboxes = Arc::clone(&self.inboxes);
        let ask = move |_| {
            for inbox in inboxes.iter() {
                inbox.put([Mail::Input(Input::Retire {
                    partition: partition.0,
                    before,
                })]);
            }
        };
        self.log.submit(vec![Unit::default()], Box::new(ask));
        let mut references = Vec::new();
        let mut missing = self.inboxes.len();
        while missing > 0 {
            match self.answers.recv_timeout(PATIENCE) {
                Ok(answer) if (answer.partition, answer.before) == (partition.0, before) => {
                    references.extend(answer.references);
                    missing -= 1;
                }
                // The answer to a question that was given up.
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) if !self.log.stats().failed => {}
                Err(_) => return Err(CommitError::Closed),
            }
        }
        Ok(references)
    }

    /// Adds the copy of one record and the entries that refer to it.
    fn copy(
        &self,
        from: Position,
        references: Vec<OwedReference>,
        unit: &mut Unit,
        moving: &mut Vec<(u64, Position, usize)>,
    ) {
        let record = self.log.partition(from.partition).and_then(|partition| {
            partition
                .records(from.offset, READ_BYTES)
                .ok()?
                .next()?
                .ok()
        });
        let Some(record) = record.filter(|record| record.offset == from.offset) else {
            warn!(?from, "an owed record is not there to be kept");
            return;
        };
        let to = unit.appends.len();
        let timestamp_ms = record.timestamp_ms;
        unit.appends.push(Append {
            partition: self.internal.kept,
            data: AppendData::Record {
                timestamp_ms,
                body: record.to_body(),
            },
        });
        for reference in references {
            let body = owed_record(from, &reference.entry);
            unit.appends.push(Append {
                partition: self.internal.owed,
                data: AppendData::Reference {
                    timestamp_ms,
                    to,
                    body,
                },
            });
            moving.push((reference.sequence, from, to));
        }
    }

    /// Commits, and tells every shard where its references lead now, in commit order.
    fn commit(&self, unit: Unit, moving: Vec<(u64, Position, usize)>) -> Result<(), CommitError> {
        let inboxes = Arc::clone(&self.inboxes);
        let (sender, receiver) = channel();
        let done = move |answers: Vec<Result<headwater_commitlog::Receipt, CommitError>>| {
            let answer = answers
                .into_iter()
                .next()
                .unwrap_or(Err(CommitError::Closed));
            let result = answer.map(|receipt| {
                let moved: Arc<[Moved]> = (moving.into_iter())
                    .filter_map(|(sequence, from, append)| {
                        let to = to_broker(*receipt.positions.get(append)?);
                        Some(Moved {
                            sequence,
                            from: to_broker(from),
                            to,
                        })
                    })
                    .collect();
                if !moved.is_empty() {
                    for inbox in inboxes.iter() {
                        inbox.put([Mail::Input(Input::Moved(Arc::clone(&moved)))]);
                    }
                }
            });
            // The worker waits just below.
            sender.send(result).ok();
        };
        self.log.submit(vec![unit], Box::new(done));
        receiver.recv().unwrap_or(Err(CommitError::Closed))
    }
}
