//! Carries records into the document store: one thread for all sinks.
//!
//! For: reading each sink's topic from where it stands, writing documents and position in one
//! transaction, and letting log bytes go only once the documents are on disk.
//! Not for: what a document looks like (`bridge`, `docstore`).
//! Calls: `bridge`, `docstore`, `commitlog`. Called by: `serve`.
//! Holds: a slow or failing store delays documents, never devices; writing again changes nothing.

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

use super::{Current, Signal};

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

/// What the metrics show.
#[derive(Default)]
pub(crate) struct SinkCounters {
    /// Documents that were new to the store.
    pub(crate) written: AtomicU64,
    /// Documents that were there already.
    pub(crate) repeated: AtomicU64,
    /// Records that went by retention or deletion before they were documents.
    pub(crate) removed: AtomicU64,
    pub(crate) failures: AtomicU64,
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
        })
    }

    /// Works until the signal is stopped, then carries on to the end of the log and syncs.
    pub(crate) fn run(mut self) {
        let mut retry = RETRY.0;
        loop {
            let stopping = self.signal.is_stopping();
            match self.turn() {
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
                if let Some(step) = self.read(sink, &topic, &partition, &namespace)? {
                    steps.push(step);
                }
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

    /// Adds one partition's new records to the batch.
    fn read(
        &mut self,
        sink: &Sink,
        topic: &Topic,
        partition: &Partition,
        namespace: &Namespace,
    ) -> anyhow::Result<Option<Step>> {
        let place = (sink.name().to_owned(), topic.id, partition.index());
        let next = self.standing(&place, partition)?;
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
        let mut at = next.max(start);
        if at >= partition.high_watermark() {
            return Ok(None);
        }
        for record in partition.records(at, READ_BYTES)? {
            let record = record?;
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
        Ok(Some(Step { place, next: at }))
    }

    /// Where the sink goes on; a sink that is new to a partition begins with its first record.
    fn standing(&mut self, place: &Seat, partition: &Partition) -> anyhow::Result<u64> {
        if let Some(standing) = self.standings.get(place) {
            return Ok(standing.next);
        }
        let stored = self.reader.cursor(&place.0, place.1, place.2)?;
        let next = stored.unwrap_or_else(|| partition.log_start_offset());
        self.log.hold(&place.0, partition.id(), next);
        let standing = Standing {
            partition: partition.id(),
            next,
            synced: next,
        };
        self.standings.insert(place.clone(), standing);
        Ok(next)
    }

    /// Makes the documents durable from time to time, and lets the log bytes they came from go.
    fn sync_if_due(&mut self, now: bool) {
        if !self.dirty || (!now && self.synced_at.elapsed() < SYNC_EVERY) {
            return;
        }
        if let Err(error) = self.writer.sync() {
            self.counters.failures.fetch_add(1, Ordering::Relaxed);
            warn!(%error, "the documents could not be synced; the log keeps what they came from");
            self.synced_at = Instant::now();
            return;
        }
        self.dirty = false;
        self.synced_at = Instant::now();
        for (place, standing) in &mut self.standings {
            if standing.synced != standing.next {
                standing.synced = standing.next;
                self.log.hold(&place.0, standing.partition, standing.next);
            }
        }
        self.release_ended();
    }

    /// Sinks that no longer stand hold nothing.
    fn release_ended(&mut self) {
        let flows = Arc::clone(&self.flows.load());
        let log = &self.log;
        self.standings.retain(|place, standing| {
            let stands = flows.sinks().iter().any(|sink| sink.name() == place.0)
                && log.partition(standing.partition).is_some();
            if !stands {
                log.release_hold(&place.0, standing.partition);
            }
            stands
        });
    }
}
