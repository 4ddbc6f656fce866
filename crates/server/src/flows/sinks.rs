//! Carries records into the document store: one thread for all sinks.
//!
//! For: reading each sink's topic from where it stands, writing documents and position in one
//! transaction, and letting log bytes go only once the documents are on disk.
//! Not for: what a document looks like (`bridge`, `docstore`).
//! Calls: `bridge`, `docstore`, `commitlog`. Called by: `serve`, whose `Log::on_advance` hook wakes it
//! after each commit.
//! Holds: a slow or failing store delays documents, never devices; writing again changes nothing; a
//! partition that cannot be read stands alone, and `/readyz` says so; every partition has its turn; a
//! document that the store refuses is a dead letter before the position passes it, once; a failed
//! sync ends the process.

mod waiting;

use std::collections::{BTreeSet, HashMap};
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use headwater_bridge::{DEAD_LETTERS, Flows, Place, Rejected, Sink};
use headwater_commitlog::{Log, Partition, PartitionId, Topic};
use headwater_docstore::{
    Batch, Cursor, DocumentError, Facts, InsertError, Namespace, Position, Reader, SyncError,
    Writer,
};
use tracing::{error, info, warn};
use uuid::Uuid;

pub(crate) use waiting::Waiting;

use super::{Current, Signal, Troubles, dead_letters, positions};
use crate::config::DurationMs;
use crate::failure;
use crate::mqtt::wall_ms;

/// What one turn takes from one partition.
const READ_BYTES: usize = 1 << 20;
/// Documents of one transaction, about.
const BATCH_BYTES_MAX: usize = 8 << 20;
/// Records gather for so long before a turn: one transaction then serves many.
const GATHER: Duration = Duration::from_millis(10);
/// How often what is written is synced, and the log's hold moved.
const SYNC_EVERY: Duration = Duration::from_secs(5);
/// Wait after a failure, doubled up to the second.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
const IDLE: Duration = Duration::from_secs(1);
/// How long a partition that could not be read is left alone.
const DAMAGED_RETRY: Duration = Duration::from_secs(30);
/// How long the end may take to carry what is left; more is carried at the next start.
const END_MAX: Duration = Duration::from_secs(4);
/// Documents that one removal by age takes: it must not keep new ones waiting.
const REMOVE_MAX: u32 = 2_000;
/// How often age is looked at: a tenth of the retention, within these.
const REMOVE_EVERY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));

/// What the metrics show.
#[derive(Default)]
pub(crate) struct SinkCounters {
    /// Documents that were new to the store.
    pub(crate) written: AtomicU64,
    /// Documents that were there already.
    pub(crate) repeated: AtomicU64,
    /// Records that went by retention or deletion before they were documents.
    pub(crate) removed: AtomicU64,
    /// Records whose documents the store refused.
    pub(crate) dead: AtomicU64,
    /// Documents that were older than the store keeps them.
    pub(crate) expired: AtomicU64,
    pub(crate) failures: AtomicU64,
    /// Partitions that cannot be read.
    pub(crate) troubles: Troubles,
}

/// Names a sink's place in a partition. The topic's id, because a name may be used again.
type Seat = (String, Uuid, u32);

/// Where a sink stands in one partition.
struct Standing {
    partition: PartitionId,
    /// The next offset to read.
    next: u64,
    /// What the store has synced.
    synced: u64,
    /// Not read before this, after it could not be.
    retry_at: Option<Instant>,
}

/// The thread's state.
pub(crate) struct Sinks {
    log: Log,
    flows: Arc<Current>,
    writer: Writer,
    reader: Reader,
    signal: Arc<Signal>,
    counters: Arc<SinkCounters>,
    standings: HashMap<Seat, Standing>,
    /// Whose turn was last: the next one begins behind it.
    last: Option<Seat>,
    /// Offsets whose documents the store refused, from where the sink stands on.
    refused: HashMap<Seat, BTreeSet<u64>>,
    batch: Batch,
    synced_at: Instant,
    dirty: bool,
    /// How often age is looked at.
    remove_every: Duration,
    remove_at: Instant,
}

/// One sink's work in one partition.
struct Work<'f> {
    sink: &'f Sink,
    topic: Arc<Topic>,
    partition: Arc<Partition>,
    namespace: Namespace,
    seat: Seat,
}

/// One sink's progress in one partition, to be written with the documents.
struct Step {
    seat: Seat,
    next: u64,
    /// Records that had gone before they were read.
    removed: u64,
}

/// A document that the store refused.
struct Refused {
    namespace: Namespace,
    position: Position,
    reason: DocumentError,
}

impl Sinks {
    fn new(
        log: Log,
        flows: Arc<Current>,
        mut writer: Writer,
        reader: Reader,
        signal: Arc<Signal>,
        counters: Arc<SinkCounters>,
        retention: DurationMs,
    ) -> anyhow::Result<Self> {
        // What a killed process wrote may still be only in memory.
        match writer.sync() {
            Ok(()) => {}
            Err(SyncError::Failed(reason)) => sync_failed(&reason),
            Err(error) => {
                return Err(error).context("the document store cannot be synced");
            }
        }
        let mut sinks = Self {
            log,
            flows,
            writer,
            reader,
            signal,
            counters,
            standings: HashMap::new(),
            last: None,
            refused: HashMap::new(),
            batch: Batch::new(),
            synced_at: Instant::now(),
            dirty: false,
            remove_every: Duration::from_millis(retention.0 / 10)
                .clamp(REMOVE_EVERY.0, REMOVE_EVERY.1),
            remove_at: Instant::now(),
        };
        // Before anything may be trimmed: what is not a document yet is held.
        let flows = Arc::clone(&sinks.flows.load());
        sinks.works(&flows)?;
        Ok(sinks)
    }

    /// Works until the signal is stopped, then carries on to the end of the log and syncs.
    fn run(mut self) {
        let (mut retry, mut end) = (RETRY.0, None);
        loop {
            let stopping = self.signal.is_stopping();
            if stopping && *end.get_or_insert_with(|| Instant::now() + END_MAX) <= Instant::now() {
                warn!("documents are behind; they go on at the next start");
                break;
            }
            match self.round() {
                Ok(true) => retry = RETRY.0,
                Ok(false) if stopping => break,
                Ok(false) => {
                    self.sync_if_due(false);
                    self.signal.wait(IDLE);
                    std::thread::park_timeout(GATHER);
                }
                Err(error) => {
                    self.counters.failures.fetch_add(1, Ordering::Relaxed);
                    if retry == RETRY.0 {
                        error!(
                            error = format!("{error:#}"),
                            "documents wait: the store failed"
                        );
                    }
                    if stopping {
                        break;
                    }
                    // News do not heal the store.
                    self.signal.pause(retry);
                    retry = (retry * 2).min(RETRY.1);
                }
            }
        }
        self.sync_if_due(true);
        info!("the documents are synced");
    }

    /// A turn, and what is too old: that goes also while no turn succeeds, and may be what makes room.
    fn round(&mut self) -> anyhow::Result<bool> {
        let (busy, removing) = (self.turn(), self.remove_old());
        Ok(busy? | removing?)
    }

    /// Reads and writes once. False when there was nothing to do.
    fn turn(&mut self) -> anyhow::Result<bool> {
        let flows = Arc::clone(&self.flows.load());
        self.batch.clear();
        let mut steps = Vec::new();
        for work in self.works(&flows)? {
            steps.extend(self.step(&work));
            self.last = Some(work.seat);
            if self.batch.bytes() >= BATCH_BYTES_MAX {
                break;
            }
        }
        if steps.is_empty() {
            return Ok(false);
        }
        let cursors: Vec<Cursor<'_>> = (steps.iter())
            .map(|step| Cursor {
                name: &step.seat.0,
                topic: step.seat.1,
                partition: step.seat.2,
                next_offset: step.next,
            })
            .collect();
        let inserted = match self.writer.insert(&self.batch, &cursors, wall_ms()) {
            Ok(inserted) => inserted,
            Err(InsertError::Refused {
                namespace,
                position,
                source,
            }) => {
                let refused = Refused {
                    namespace,
                    position,
                    reason: source,
                };
                self.bury(&flows, &refused)?;
                return Ok(true);
            }
            Err(error) => return Err(unless_failed(error).into()),
        };
        self.counters
            .written
            .fetch_add(inserted.written, Ordering::Relaxed);
        self.counters
            .repeated
            .fetch_add(inserted.already_there, Ordering::Relaxed);
        for step in steps {
            self.done(step);
        }
        self.dirty = true;
        self.sync_if_due(false);
        Ok(true)
    }

    /// All there is to work on, in turn. Each has a standing, and with it its hold, afterwards.
    fn works<'f>(&mut self, flows: &'f Flows) -> anyhow::Result<Vec<Work<'f>>> {
        let mut works = Vec::new();
        for sink in flows.sinks() {
            let Some(topic) = self.log.topic(sink.from()) else {
                continue;
            };
            let namespace = Namespace::parse(sink.into_namespace())?;
            for id in &topic.partitions {
                let Some(partition) = self.log.partition(*id) else {
                    continue;
                };
                let seat = (sink.name().to_owned(), topic.id, partition.index());
                self.stand(&seat, &partition)?;
                works.push(Work {
                    sink,
                    topic: Arc::clone(&topic),
                    partition,
                    namespace: namespace.clone(),
                    seat,
                });
            }
        }
        let last = |work: &Work<'_>| Some(&work.seat) == self.last.as_ref();
        let begin = works.iter().position(last).map_or(0, |last| last + 1);
        works.rotate_left(begin);
        Ok(works)
    }

    /// Where the sink goes on; a sink that is new to a partition begins with its first record.
    fn stand(&mut self, seat: &Seat, partition: &Partition) -> anyhow::Result<()> {
        if self.standings.contains_key(seat) {
            return Ok(());
        }
        let stored = self.reader.cursor(&seat.0, seat.1, seat.2)?;
        let next = stored.unwrap_or_else(|| partition.log_start_offset());
        self.log.hold(&seat.0, partition.id(), next);
        let standing = Standing {
            partition: partition.id(),
            next,
            synced: next,
            retry_at: None,
        };
        self.standings.insert(seat.clone(), standing);
        Ok(())
    }

    /// What a step promised is in the store.
    fn done(&mut self, step: Step) {
        if step.removed > 0 {
            self.counters
                .removed
                .fetch_add(step.removed, Ordering::Relaxed);
            let (sink, records) = (&step.seat.0, step.removed);
            warn!(
                sink,
                records, "records were removed before they were documents"
            );
        }
        if let Some(refused) = self.refused.get_mut(&step.seat) {
            *refused = refused.split_off(&step.next);
            if refused.is_empty() {
                self.refused.remove(&step.seat);
            }
        }
        if let Some(standing) = self.standings.get_mut(&step.seat) {
            standing.next = step.next;
        }
    }

    /// Adds one partition's new records to the batch. One that cannot be read stops nobody else.
    fn step(&mut self, work: &Work<'_>) -> Option<Step> {
        let standing = self.standings.get(&work.seat)?;
        let (next, retry_at) = (standing.next, standing.retry_at);
        if retry_at.is_some_and(|at| Instant::now() < at) {
            return None;
        }
        let start = work.partition.log_start_offset();
        let read = self.read(work, next.max(start));
        let troubles = &self.counters.troubles;
        let (sink, id, index) = (&work.seat.0, work.partition.id(), work.seat.2);
        let retry_at = match &read {
            Ok(_) => {
                if retry_at.is_some() && troubles.goes_on(sink, id) {
                    info!(sink, partition = index, "the records can be read again");
                }
                None
            }
            Err(error) => {
                self.counters.failures.fetch_add(1, Ordering::Relaxed);
                let name = &work.topic.name;
                let sentence = format!("sink {sink}: documents of {name}-{index} wait: {error:#}");
                if troubles.stands(sink, id, &sentence) {
                    error!("{sentence}");
                }
                Some(Instant::now() + DAMAGED_RETRY)
            }
        };
        if let Some(standing) = self.standings.get_mut(&work.seat) {
            standing.retry_at = retry_at;
        }
        let read_to = read.ok()?;
        (read_to > next).then(|| Step {
            seat: work.seat.clone(),
            next: read_to,
            removed: start.saturating_sub(next),
        })
    }

    /// Where reading ended. Ends before a record that is damaged; fails when that is the first.
    fn read(&mut self, work: &Work<'_>, from: u64) -> anyhow::Result<u64> {
        let mut at = from;
        if from >= work.partition.high_watermark() {
            return Ok(at);
        }
        let refused = self.refused.get(&work.seat);
        for record in work.partition.records(from, READ_BYTES)? {
            let record = match record {
                Err(_) if at > from => break,
                record => record.with_context(|| format!("offset {at}"))?,
            };
            at = record.offset + 1;
            if refused.is_some_and(|refused| refused.contains(&record.offset)) {
                continue;
            }
            let Some(facts) = work.sink.document(&record, work.place()) else {
                continue;
            };
            self.batch.push(
                &work.namespace,
                &Facts {
                    position: Position {
                        topic: work.topic.id,
                        partition: facts.partition,
                        offset: facts.offset,
                    },
                    kafka_topic: facts.kafka_topic,
                    ts_ms: facts.ts_ms,
                    topic: facts.mqtt_topic,
                    client: facts.client,
                    qos: facts.qos,
                    retain: facts.retain,
                    headers: &facts.headers,
                    payload: facts.payload,
                },
            );
        }
        Ok(at)
    }

    /// Puts a record whose document the store refuses among the dead letters; the next turn goes on
    /// without it. The commit that holds the letter also says up to where letters are written: after
    /// a crash between it and the sink's own position there is no second one.
    fn bury(&mut self, flows: &Flows, refused: &Refused) -> anyhow::Result<()> {
        let Position {
            topic,
            partition,
            offset,
        } = refused.position;
        let is_its = |work: &Work<'_>| {
            work.namespace == refused.namespace && work.seat.1 == topic && work.seat.2 == partition
        };
        let works = self.works(flows)?;
        let Some(work) = works.into_iter().find(is_its) else {
            return Ok(());
        };
        let (name, id) = (work.sink.name(), work.partition.id());
        let buried_to = positions::stored(&self.log, name, id).unwrap_or(0);
        // A dead letter is where it belongs already.
        if offset >= buried_to && work.sink.from() != DEAD_LETTERS {
            let mut records = work.partition.records(offset, 1)?;
            let record = records.next().context("the record has gone")??;
            let rejected = Rejected::Document {
                reason: refused.reason.to_string(),
            };
            let row = positions::row(name, id, offset + 1);
            dead_letters::bury(&self.log, &record, work.place(), name, &rejected, row)
                .context("a dead letter could not be kept")?;
            self.counters.dead.fetch_add(1, Ordering::Relaxed);
            warn!(sink = name, partition, offset, %rejected, "a dead letter");
        }
        self.refused.entry(work.seat).or_default().insert(offset);
        Ok(())
    }

    /// Removes some of what is older than the store keeps it. True when more may wait.
    fn remove_old(&mut self) -> anyhow::Result<bool> {
        if Instant::now() < self.remove_at {
            return Ok(false);
        }
        let removed = self.writer.remove_old(wall_ms(), REMOVE_MAX);
        let removed = removed.map_err(unless_failed)?;
        self.counters.expired.fetch_add(removed, Ordering::Relaxed);
        if removed >= u64::from(REMOVE_MAX) {
            return Ok(true);
        }
        self.remove_at = Instant::now() + self.remove_every;
        Ok(false)
    }

    /// Makes the documents durable from time to time, and lets the log bytes they came from go.
    fn sync_if_due(&mut self, now: bool) {
        if !now && self.synced_at.elapsed() < SYNC_EVERY {
            return;
        }
        self.synced_at = Instant::now();
        self.release_ended();
        if !self.dirty {
            return;
        }
        if let Err(error) = self.writer.sync() {
            if let SyncError::Failed(reason) = &error {
                sync_failed(reason);
            }
            self.counters.failures.fetch_add(1, Ordering::Relaxed);
            warn!(%error, "the documents could not be synced; the log keeps what they came from");
            return;
        }
        self.dirty = false;
        for (place, standing) in &mut self.standings {
            if standing.synced != standing.next {
                standing.synced = standing.next;
                self.log.hold(&place.0, standing.partition, standing.next);
            }
        }
    }

    /// Sinks that no longer stand hold nothing.
    fn release_ended(&mut self) {
        let flows = Arc::clone(&self.flows.load());
        let (log, troubles) = (&self.log, &self.counters.troubles);
        self.standings.retain(|place, standing| {
            let stands = flows.sinks().iter().any(|sink| sink.name() == place.0)
                && log.partition(standing.partition).is_some();
            if !stands {
                log.release_hold(&place.0, standing.partition);
                troubles.goes_on(&place.0, standing.partition);
            }
            stands
        });
    }
}

impl Work<'_> {
    fn place(&self) -> Place<'_> {
        Place {
            kafka_topic: &self.topic.name,
            partition: self.seat.2,
        }
    }
}

fn unless_failed(error: InsertError) -> InsertError {
    match error {
        InsertError::Failed(reason) => sync_failed(&reason),
        other => other,
    }
}

/// Nothing is certain then but what a restart reads back.
fn sync_failed(reason: &dyn Error) -> ! {
    failure::end("THE DOCUMENT STORE", &format!("a sync failed: {reason}"))
}

#[cfg(test)]
mod tests;
