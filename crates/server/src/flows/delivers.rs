//! Carries records to devices: one thread for all delivers.
//!
//! For: reading each deliver's topic from its committed position, rendering, handing the messages
//! to the broker with the new position as a row of the same commit.
//! Not for: who is subscribed (`mqtt-broker`), what a message looks like (`bridge`).
//! Calls: `bridge`, `mqtt::injections`. Called by: `serve`, after the sessions are restored.
//! Holds: a position never passes a record that was not handed over: when one is refused, what
//! follows it in the same lane is refused too, and the lane begins again there.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use headwater_bridge::{Deliver, Flows, Place, Rejected};
use headwater_commitlog::record::Record;
use headwater_commitlog::{Lane, Log, Partition, PartitionId, TableChange, Unit};
use headwater_mqtt_broker::Input;
use tracing::{error, warn};

use super::{Current, Signal, Troubles, dead_letters, positions};
use crate::mqtt::inbox::Inbox;
use crate::mqtt::shard::Mail;
use crate::mqtt::{Injected, Injections, Timeline, message};

/// Records of one lane that may be on their way at once.
const WINDOW: u64 = 1_000;
const READ_BYTES: usize = 256 << 10;
const IDLE: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_millis(200);

/// What the metrics show.
#[derive(Default)]
pub(crate) struct DeliverCounters {
    pub(crate) delivered: AtomicU64,
    pub(crate) dead: AtomicU64,
    pub(crate) removed: AtomicU64,
    pub(crate) refused: AtomicU64,
    /// Partitions that cannot be read.
    pub(crate) troubles: Troubles,
}

/// A deliver's name and a partition.
type LaneKey = (String, PartitionId);

/// One deliver's way through one partition.
struct Way {
    /// The next offset to read.
    next: u64,
    /// Everything below is done.
    done: u64,
    /// The highest position that a commit has written down.
    written: u64,
    /// Offsets at or above `done` that are done out of turn.
    ahead: Vec<u64>,
    in_flight: u64,
    lane: Lane,
    /// A record was refused: read again from `done` once nothing is in flight.
    broken: bool,
}

struct Answer {
    key: LaneKey,
    offset: u64,
    injected: Injected,
}

/// Where delivers without a position begin: at the end of what is there now, for a device must not
/// be told what was meant for others before. To be committed before the flows stand; at the start
/// before the Kafka door opens, so that no record comes between end and position.
pub(crate) fn beginnings(log: &Log, flows: &Flows) -> Vec<TableChange> {
    let mut rows = Vec::new();
    for deliver in flows.delivers() {
        let Some(topic) = log.topic(deliver.from()) else {
            continue;
        };
        for id in &topic.partitions {
            let key = (deliver.name().to_owned(), *id);
            if stored(log, &key).is_none()
                && let Some(partition) = log.partition(*id)
            {
                rows.push(row(&key, partition.high_watermark()));
            }
        }
    }
    rows
}

/// The thread's state.
pub(crate) struct Delivers {
    log: Log,
    flows: Arc<Current>,
    injections: Arc<Injections>,
    inboxes: Arc<[Inbox<Mail>]>,
    signal: Arc<Signal>,
    counters: Arc<DeliverCounters>,
    timeline: Arc<Timeline>,
    ways: HashMap<LaneKey, Way>,
    answers: (Sender<Answer>, Receiver<Answer>),
}

impl Delivers {
    pub(crate) fn new(
        log: Log,
        flows: Arc<Current>,
        injections: Arc<Injections>,
        inboxes: Arc<[Inbox<Mail>]>,
        signal: Arc<Signal>,
        counters: Arc<DeliverCounters>,
        timeline: Arc<Timeline>,
    ) -> Self {
        let (ways, answers) = (HashMap::new(), channel());
        let mut delivers = Self {
            log,
            flows,
            injections,
            inboxes,
            signal,
            counters,
            timeline,
            ways,
            answers,
        };
        // Before anything may be trimmed: what is not delivered yet is held.
        let flows = Arc::clone(&delivers.flows.load());
        for (deliver, partition) in delivers.works(&flows) {
            delivers.stand(&(deliver.name().to_owned(), partition.id()), &partition);
        }
        delivers
    }

    /// Each deliver with each partition it reads.
    fn works<'f>(&self, flows: &'f Flows) -> Vec<(&'f Deliver, Arc<Partition>)> {
        let mut works = Vec::new();
        for deliver in flows.delivers() {
            let topic = self.log.topic(deliver.from());
            let ids = topic.iter().flat_map(|topic| &topic.partitions);
            works.extend(ids.filter_map(|id| Some((deliver, self.log.partition(*id)?))));
        }
        works
    }

    /// Begins where the deliver has come to, and holds what follows.
    fn stand(&mut self, key: &LaneKey, partition: &Partition) {
        if self.ways.contains_key(key) {
            return;
        }
        // A topic that was made after the start is delivered from its first record.
        let at = stored(&self.log, key).unwrap_or_else(|| partition.log_start_offset());
        self.log.hold(&key.0, key.1, at);
        self.ways.insert(key.clone(), Way::new(at));
    }

    /// Works until the signal is stopped.
    pub(crate) fn run(mut self) {
        while !self.signal.is_stopping() {
            let mut busy = false;
            while let Ok(answer) = self.answers.1.try_recv() {
                busy = true;
                self.answered(answer);
            }
            busy |= self.turn();
            if !busy {
                self.write_down();
                self.release_ended();
                self.signal.wait(IDLE);
            }
        }
        self.write_down();
    }

    /// Delivers that no longer stand hold nothing; else retention would wait for them for ever.
    fn release_ended(&mut self) {
        let flows = Arc::clone(&self.flows.load());
        let (log, troubles) = (&self.log, &self.counters.troubles);
        self.ways.retain(|key, way| {
            let stands = flows
                .delivers()
                .iter()
                .any(|deliver| deliver.name() == key.0)
                && log.partition(key.1).is_some();
            if stands || way.in_flight > 0 {
                return true;
            }
            log.release_hold(&key.0, key.1);
            troubles.goes_on(&key.0, key.1);
            false
        });
    }

    fn turn(&mut self) -> bool {
        let flows = Arc::clone(&self.flows.load());
        let mut busy = false;
        for (deliver, partition) in self.works(&flows) {
            busy |= self.advance(deliver, &partition);
        }
        busy
    }

    /// Reads on in one partition, as far as the window allows.
    fn advance(&mut self, deliver: &Deliver, partition: &Partition) -> bool {
        let key: LaneKey = (deliver.name().to_owned(), partition.id());
        self.stand(&key, partition);
        let Some(way) = self.ways.get_mut(&key) else {
            return false;
        };
        if way.broken {
            if way.in_flight > 0 {
                return false;
            }
            *way = Way::new(way.done);
        }
        let start = partition.log_start_offset();
        if way.next < start && way.in_flight == 0 {
            self.counters
                .removed
                .fetch_add(start - way.next, Ordering::Relaxed);
            warn!(
                deliver = key.0,
                from = way.next,
                to = start,
                "records were removed before they were delivered"
            );
            *way = Way::new(start);
        }
        if way.in_flight >= WINDOW / 2 || way.next >= partition.high_watermark() {
            return false;
        }
        let from = way.next;
        match partition.records(from, READ_BYTES) {
            Ok(records) => self.hand_over(deliver, partition, &key, records),
            Err(error) => {
                self.unreadable(partition, &key, from, &error);
                false
            }
        }
    }

    fn hand_over(
        &mut self,
        deliver: &Deliver,
        partition: &Partition,
        key: &LaneKey,
        records: headwater_commitlog::record::Records,
    ) -> bool {
        let mut busy = false;
        for record in records {
            let record = match record {
                Ok(record) => record,
                Err(error) => {
                    let at = self.ways.get(key).map_or(0, |way| way.next);
                    self.unreadable(partition, key, at, &error);
                    return busy;
                }
            };
            self.counters.troubles.goes_on(&key.0, key.1);
            let offset = record.offset;
            let Some(way) = self.ways.get_mut(key) else {
                return busy;
            };
            if way.in_flight >= WINDOW {
                return busy;
            }
            let rendered = deliver.render(&record).and_then(|outgoing| {
                message(&outgoing, None, &self.timeline).map_err(|_| Rejected::Header {
                    header: "a text that MQTT cannot carry",
                })
            });
            match rendered {
                Ok(message) => {
                    way.next = offset + 1;
                    way.in_flight += 1;
                    let lane = way.lane.clone();
                    self.inject(key, offset, lane, message);
                }
                // The position passes a dead letter only after all before it are done.
                Err(_) if way.in_flight > 0 => return busy,
                Err(rejected) => {
                    if !self.bury(deliver, partition, key, &record, &rejected) {
                        return busy;
                    }
                }
            }
            busy = true;
        }
        busy
    }

    /// What cannot be read stands alone until it can be; `/readyz` says so.
    fn unreadable(
        &self,
        partition: &Partition,
        key: &LaneKey,
        offset: u64,
        error: &dyn std::error::Error,
    ) {
        let (topic, index) = (partition.topic(), partition.index());
        let sentence = format!(
            "deliver {}: records of {topic}-{index} wait at offset {offset}: {error}",
            key.0
        );
        if self.counters.troubles.stands(&key.0, key.1, &sentence) {
            error!("{sentence}");
        }
    }

    fn inject(
        &self,
        key: &LaneKey,
        offset: u64,
        lane: Lane,
        message: headwater_mqtt_broker::Message,
    ) {
        let (sender, signal, lane_key) = (
            self.answers.0.clone(),
            Arc::clone(&self.signal),
            key.clone(),
        );
        let done = move |injected| {
            // The receiver is gone only when the thread is, and then nobody asks any more.
            sender
                .send(Answer {
                    key: lane_key,
                    offset,
                    injected,
                })
                .ok();
            signal.raise();
        };
        let ticket = self
            .injections
            .ticket(vec![row(key, offset + 1)], Some(lane), Box::new(done));
        let shard = usize::try_from(key.1.0).unwrap_or(0) % self.inboxes.len().max(1);
        if let Some(inbox) = self.inboxes.get(shard) {
            inbox.put([Mail::Input(Input::Inject {
                ticket,
                message: Box::new(message),
            })]);
        }
    }

    /// Puts a record that cannot be delivered among the dead letters, with the position in the
    /// same commit. False when that must be tried again.
    fn bury(
        &mut self,
        deliver: &Deliver,
        partition: &Partition,
        key: &LaneKey,
        record: &Record,
        rejected: &Rejected,
    ) -> bool {
        let place = Place {
            kafka_topic: partition.topic(),
            partition: partition.index(),
        };
        let row = row(key, record.offset + 1);
        let buried = dead_letters::bury(&self.log, record, place, deliver.name(), rejected, row);
        if let Err(error) = buried {
            warn!(deliver = key.0, %error, "a dead letter could not be kept; trying again");
            self.signal.pause(RETRY);
            return false;
        }
        self.counters.dead.fetch_add(1, Ordering::Relaxed);
        if let Some(way) = self.ways.get_mut(key) {
            *way = Way::new(record.offset + 1);
        }
        self.log.hold(&key.0, key.1, record.offset + 1);
        true
    }

    fn answered(&mut self, answer: Answer) {
        let Some(way) = self.ways.get_mut(&answer.key) else {
            return;
        };
        way.in_flight = way.in_flight.saturating_sub(1);
        match answer.injected.outcome {
            Ok(()) => {
                self.counters.delivered.fetch_add(1, Ordering::Relaxed);
                way.finish(answer.offset);
                if answer.injected.rows_committed {
                    way.written = way.written.max(answer.offset + 1);
                    self.log
                        .hold(&answer.key.0, answer.key.1, way.done.min(way.written));
                }
            }
            Err(refusal) => {
                if !way.broken {
                    warn!(deliver = answer.key.0, %refusal, "records wait: the log takes no more");
                }
                self.counters.refused.fetch_add(1, Ordering::Relaxed);
                way.broken = true;
            }
        }
    }

    /// Writes down positions past messages that nothing durable depended on.
    fn write_down(&mut self) {
        let mut unit = Unit::default();
        for (key, way) in &self.ways {
            if way.in_flight == 0 && !way.broken && way.done > way.written {
                unit.tables.push(row(key, way.done));
            }
        }
        if unit.tables.is_empty() || self.log.commit(unit).is_err() {
            return;
        }
        for (key, way) in &mut self.ways {
            if way.in_flight == 0 && !way.broken && way.done > way.written {
                way.written = way.done;
                self.log.hold(&key.0, key.1, way.done);
            }
        }
    }
}

impl Way {
    fn new(at: u64) -> Self {
        Self {
            next: at,
            done: at,
            written: at,
            ahead: Vec::new(),
            in_flight: 0,
            lane: Lane::default(),
            broken: false,
        }
    }

    /// One record is done; `done` moves over all that are.
    fn finish(&mut self, offset: u64) {
        self.ahead.push(offset);
        if self.in_flight == 0 && !self.broken {
            self.done = self.next;
            self.ahead.clear();
            return;
        }
        self.ahead.sort_unstable();
        // Offsets may have gaps (compaction): only what is known to follow moves it on.
        let mut passed = 0;
        for &offset in &self.ahead {
            if offset > self.done {
                break;
            }
            self.done = self.done.max(offset + 1);
            passed += 1;
        }
        self.ahead.drain(..passed);
    }
}

fn row(key: &LaneKey, next: u64) -> TableChange {
    positions::row(&key.0, key.1, next)
}

fn stored(log: &Log, key: &LaneKey) -> Option<u64> {
    positions::stored(log, &key.0, key.1)
}

#[cfg(test)]
mod tests {
    use headwater_bridge::{DeliverConfig, FlowConfig};
    use headwater_commitlog::fs::RealFs;
    use headwater_commitlog::record::RecordBody;
    use headwater_commitlog::{Admin, Append, AppendData, Options, TopicConfig};

    use super::*;
    use crate::mqtt::wall_ms;

    #[test]
    fn what_is_not_delivered_yet_is_held_before_anything_can_be_trimmed() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(Arc::new(RealFs), Options::new(dir.path())).unwrap();
        let mut unit = Unit::default();
        unit.admin.push(Admin::CreateTopic {
            name: "t".to_owned(),
            partitions: 1,
            config: TopicConfig::default().with("retention.ms", "1").unwrap(),
        });
        log.commit(unit).unwrap();
        let mut unit = Unit::default();
        unit.appends.push(Append {
            partition: log.topic("t").unwrap().partitions[0],
            data: AppendData::Record {
                timestamp_ms: 1,
                body: RecordBody::new(None, Some(b"1"), []),
            },
        });
        log.commit(unit).unwrap();
        assert_eq!(log.retention_due(wall_ms()).len(), 1, "old enough to go");
        let config = FlowConfig {
            deliver: vec![DeliverConfig::new("t")],
            ..FlowConfig::default()
        };
        let flows = Arc::new(Current::new(Flows::compile(&config).unwrap()));
        let _delivers = Delivers::new(
            log.clone(),
            flows,
            Arc::default(),
            Arc::from([]),
            Arc::default(),
            Arc::default(),
            Arc::new(Timeline::new()),
        );
        assert_eq!(log.retention_due(wall_ms()), []);
    }
}
