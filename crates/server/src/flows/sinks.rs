//! Carries records into the document store: one thread for all sinks.
//!
//! For: reading each sink's topic from where it stands, writing documents and position in one
//! transaction, and letting log bytes go only once the documents are on disk.
//! Not for: what a document looks like (`bridge`, `docstore`).
//! Calls: `bridge`, `docstore`, `commitlog`. Called by: `serve`.
//! Holds: a slow or failing store delays documents, never devices; writing again changes nothing; a
//! partition that cannot be read stands alone, and `/readyz` says so.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use headwater_bridge::{Place, Sink};
use headwater_commitlog::{Log, Partition, PartitionId, Topic};
use headwater_docstore::{Batch, Cursor, Facts, Namespace, Position, Reader, Writer};
use tracing::{error, info, warn};
use uuid::Uuid;

use super::{Current, Signal, Troubles};
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
    batch: Batch,
    synced_at: Instant,
    dirty: bool,
    /// How long documents stay, in milliseconds.
    retention_ms: i64,
    remove_at: Instant,
}

/// One sink's progress in one partition, to be written with the documents.
struct Step {
    place: Seat,
    next: u64,
}

impl Sinks {
    pub(crate) fn new(
        log: Log,
        flows: Arc<Current>,
        mut writer: Writer,
        reader: Reader,
        signal: Arc<Signal>,
        counters: Arc<SinkCounters>,
        retention_ms: i64,
    ) -> anyhow::Result<Self> {
        // What a killed process wrote may still be only in memory.
        writer
            .sync()
            .context("the document store cannot be synced")?;
        Ok(Self {
            log,
            flows,
            writer,
            reader,
            signal,
            counters,
            standings: HashMap::new(),
            batch: Batch::new(),
            synced_at: Instant::now(),
            dirty: false,
            retention_ms,
            remove_at: Instant::now(),
        })
    }

    /// Works until the signal is stopped, then carries on to the end of the log and syncs.
    pub(crate) fn run(mut self) {
        let (mut retry, mut end) = (RETRY.0, None);
        loop {
            let stopping = self.signal.is_stopping();
            if stopping && *end.get_or_insert_with(|| Instant::now() + END_MAX) <= Instant::now() {
                warn!("documents are behind; they go on at the next start");
                break;
            }
            match self.turn().and_then(|busy| Ok(self.remove_old()? || busy)) {
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
                    self.signal.wait(retry);
                    retry = (retry * 2).min(RETRY.1);
                }
            }
        }
        self.sync_if_due(true);
        info!("the documents are synced");
    }

    /// Reads and writes once. False when there was nothing to do.
    fn turn(&mut self) -> anyhow::Result<bool> {
        let flows = Arc::clone(&self.flows.load());
        self.batch.clear();
        let mut steps = Vec::new();
        for sink in flows.sinks() {
            let Some(topic) = self.log.topic(sink.from()) else {
                continue;
            };
            let namespace = Namespace::parse(sink.into_namespace())?;
            for id in &topic.partitions {
                let Some(partition) = self.log.partition(*id) else {
                    continue;
                };
                steps.extend(self.step(sink, &topic, &partition, &namespace)?);
                if self.batch.bytes() >= BATCH_BYTES_MAX {
                    break;
                }
            }
        }
        if steps.is_empty() {
            return Ok(false);
        }
        let cursors: Vec<Cursor<'_>> = (steps.iter())
            .map(|step| Cursor {
                name: &step.place.0,
                topic: step.place.1,
                partition: step.place.2,
                next_offset: step.next,
            })
            .collect();
        let inserted = self.writer.insert(&self.batch, &cursors)?;
        self.counters
            .written
            .fetch_add(inserted.written, Ordering::Relaxed);
        self.counters
            .repeated
            .fetch_add(inserted.already_there, Ordering::Relaxed);
        for step in steps {
            if let Some(standing) = self.standings.get_mut(&step.place) {
                standing.next = step.next;
            }
        }
        self.dirty = true;
        self.sync_if_due(false);
        Ok(true)
    }

    /// Adds one partition's new records to the batch. One that cannot be read stops nobody else.
    fn step(
        &mut self,
        sink: &Sink,
        topic: &Topic,
        partition: &Partition,
        namespace: &Namespace,
    ) -> anyhow::Result<Option<Step>> {
        let place = (sink.name().to_owned(), topic.id, partition.index());
        let (next, retry_at) = self.standing(&place, partition)?;
        if retry_at.is_some_and(|at| Instant::now() < at) {
            return Ok(None);
        }
        let read = self.read(sink, topic, partition, namespace, next);
        let troubles = &self.counters.troubles;
        let retry_at = match &read {
            Ok(_) => {
                if retry_at.is_some() && troubles.goes_on(&place.0, partition.id()) {
                    info!(
                        sink = place.0,
                        partition = place.2,
                        "the records can be read again"
                    );
                }
                None
            }
            Err(error) => {
                self.counters.failures.fetch_add(1, Ordering::Relaxed);
                let (name, index) = (&topic.name, place.2);
                let sentence = format!(
                    "sink {}: documents of {name}-{index} wait: {error:#}",
                    place.0
                );
                if troubles.stands(&place.0, partition.id(), &sentence) {
                    error!("{sentence}");
                }
                Some(Instant::now() + DAMAGED_RETRY)
            }
        };
        if let Some(standing) = self.standings.get_mut(&place) {
            standing.retry_at = retry_at;
        }
        let next = read.ok().flatten();
        Ok(next.map(|next| Step { place, next }))
    }

    /// Where reading ended, `None` where there was nothing. Ends before a record that is damaged;
    /// fails when that is the first.
    fn read(
        &mut self,
        sink: &Sink,
        topic: &Topic,
        partition: &Partition,
        namespace: &Namespace,
        next: u64,
    ) -> anyhow::Result<Option<u64>> {
        let start = partition.log_start_offset();
        if next < start {
            self.counters
                .removed
                .fetch_add(start - next, Ordering::Relaxed);
            warn!(
                sink = sink.name(),
                from = next,
                to = start,
                "records were removed before they were documents"
            );
        }
        let from = next.max(start);
        if from >= partition.high_watermark() {
            return Ok(None);
        }
        let mut at = from;
        for record in partition.records(from, READ_BYTES)? {
            let record = match record {
                Err(_) if at > from => break,
                record => record.with_context(|| format!("offset {at}"))?,
            };
            at = record.offset + 1;
            let place = Place {
                kafka_topic: &topic.name,
                partition: partition.index(),
            };
            let Some(facts) = sink.document(&record, place) else {
                continue;
            };
            self.batch.push(
                namespace,
                &Facts {
                    position: Position {
                        topic: topic.id,
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
        Ok(Some(at))
    }

    /// Where the sink goes on; a sink that is new to a partition begins with its first record.
    fn standing(
        &mut self,
        place: &Seat,
        partition: &Partition,
    ) -> anyhow::Result<(u64, Option<Instant>)> {
        if let Some(standing) = self.standings.get(place) {
            return Ok((standing.next, standing.retry_at));
        }
        let stored = self.reader.cursor(&place.0, place.1, place.2)?;
        let next = stored.unwrap_or_else(|| partition.log_start_offset());
        self.log.hold(&place.0, partition.id(), next);
        let standing = Standing {
            partition: partition.id(),
            next,
            synced: next,
            retry_at: None,
        };
        self.standings.insert(place.clone(), standing);
        Ok((next, None))
    }

    /// Removes some of what is older than the store keeps it. True when more may wait.
    fn remove_old(&mut self) -> anyhow::Result<bool> {
        if Instant::now() < self.remove_at {
            return Ok(false);
        }
        let before = wall_ms().saturating_sub(self.retention_ms);
        let removed = self.writer.remove_older(before, REMOVE_MAX)?;
        self.counters.expired.fetch_add(removed, Ordering::Relaxed);
        if removed >= u64::from(REMOVE_MAX) {
            return Ok(true);
        }
        let tenth = Duration::from_millis(u64::try_from(self.retention_ms / 10).unwrap_or(0));
        self.remove_at = Instant::now() + tenth.clamp(REMOVE_EVERY.0, REMOVE_EVERY.1);
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
