//! Reads back from the log what returning sessions are owed, on a thread of its own.
//!
//! For: `Effect::Load` -> `Input::Loaded`, without a shard's thread ever waiting for the disk.
//! Calls: `convert`, `headwater_commitlog`. Called by: `shard`.
//! Holds: only what lies below the log's start, or in a deleted partition, counts as gone. Whatever
//! else keeps a record from being read is a failure, which the broker tries again.

use std::collections::HashSet;
use std::error::Error;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use headwater_bridge::{Rejected, read_owed};
use headwater_commitlog::record::{BatchError, Record, Records};
use headwater_commitlog::{Log, ReadError};
use headwater_mqtt_broker::{Input, LoadId, Loaded, Message, Position};
use headwater_mqtt_codec::FieldError;
use tracing::{info, warn};

use super::clock::Timeline;
use super::commits::from_broker;
use super::convert::message;
use super::inbox::Inbox;
use super::shard::Mail;
use crate::failure;

/// What one read takes from a partition.
const READ_BYTES: usize = 256 << 10;
/// Records that are passed over before the next one is looked up instead.
const GAP_MAX: u64 = 64;
/// Records that cannot be read, of which each has been logged once.
const FAILING_MAX: usize = 1_000;

struct Request {
    shard: usize,
    id: LoadId,
    positions: Vec<Position>,
    bytes_max: usize,
}

/// The loader's thread. Dropping every `Loader` ends it.
pub(crate) struct Loader {
    requests: Mutex<Sender<Request>>,
}

impl Loader {
    /// Starts the thread. What waits for it is bounded by the sessions: each asks once at a time.
    pub(crate) fn start(
        log: Log,
        inboxes: Arc<[Inbox<Mail>]>,
        timeline: Arc<Timeline>,
    ) -> std::io::Result<(Self, JoinHandle<()>)> {
        let (requests, receiver) = channel();
        let work = move || serve(&log, &inboxes, &timeline, &receiver);
        let thread = failure::thread("loader", work)?;
        Ok((
            Self {
                requests: Mutex::new(requests),
            },
            thread,
        ))
    }

    /// Reads `positions` for `shard`, as many from the front as fit `bytes_max`, at least one.
    pub(crate) fn load(
        &self,
        shard: usize,
        id: LoadId,
        positions: Vec<Position>,
        bytes_max: usize,
    ) {
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        // The thread ends only when the process does: nobody waits for an answer then.
        requests
            .send(Request {
                shard,
                id,
                positions,
                bytes_max,
            })
            .ok();
    }
}

/// Why a record that should be there was not read.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadError {
    #[error("the log cannot be read")]
    Read(#[from] ReadError),
    #[error("a batch is damaged")]
    Batch(#[from] BatchError),
    #[error("there is no record")]
    Missing,
    #[error("the record is no message")]
    Rejected(#[from] Rejected),
    #[error("the record is no MQTT message")]
    Field(#[from] FieldError),
}

fn serve(log: &Log, inboxes: &[Inbox<Mail>], timeline: &Timeline, requests: &Receiver<Request>) {
    let mut failing = HashSet::new();
    while let Ok(request) = requests.recv() {
        let run = Run::new(log);
        let items = read(
            run,
            timeline,
            &request.positions,
            request.bytes_max,
            &mut failing,
        );
        if let Some(inbox) = inboxes.get(request.shard) {
            inbox.put([Mail::Input(Input::Loaded {
                request: request.id,
                items,
            })]);
        }
    }
}

/// What lies at `positions`, up to the first that fails. `failing` are those that failed before.
fn read(
    mut run: Run<'_>,
    timeline: &Timeline,
    positions: &[Position],
    bytes_max: usize,
    failing: &mut HashSet<Position>,
) -> Vec<Loaded> {
    let (mut items, mut bytes) = (Vec::new(), 0);
    for &position in positions {
        let item = match run.message(position, timeline) {
            Ok(Some(message)) => {
                bytes += message.topic.len() + message.payload.len();
                Loaded::Found(Arc::new(message))
            }
            Ok(None) => Loaded::Gone,
            Err(error) => {
                if failing.len() >= FAILING_MAX {
                    failing.clear();
                }
                if failing.insert(position) {
                    let error: &dyn Error = &error;
                    warn!(
                        ?position,
                        error, "what a session is owed cannot be read; its delivery waits"
                    );
                }
                items.push(Loaded::Failed);
                break;
            }
        };
        if !failing.is_empty() && failing.remove(&position) {
            info!(?position, "what a session is owed can be read again");
        }
        items.push(item);
        if bytes >= bytes_max {
            break;
        }
    }
    items
}

/// Reads records that mostly follow each other.
pub(super) struct Run<'l> {
    log: &'l Log,
    /// Where the open read stands: partition, next offset, what is left of it.
    open: Option<(u32, u64, Records)>,
}

impl<'l> Run<'l> {
    pub(super) fn new(log: &'l Log) -> Self {
        Self { log, open: None }
    }

    /// `None` when the log has let it go.
    fn message(
        &mut self,
        wanted: Position,
        timeline: &Timeline,
    ) -> Result<Option<Message>, LoadError> {
        let Some(record) = self.record(wanted)? else {
            return Ok(None);
        };
        let outgoing = read_owed(&record)?;
        Ok(Some(message(&outgoing, Some(wanted), timeline)?))
    }

    /// As [`message`](Self::message).
    pub(super) fn record(&mut self, wanted: Position) -> Result<Option<Record>, LoadError> {
        // What is damaged behind the open read's last record is looked at again.
        if let Ok(Some(record)) = self.advance(wanted) {
            return Ok(Some(record));
        }
        let Some(partition) = self.log.partition(from_broker(wanted).partition) else {
            return Ok(None);
        };
        match partition.records(wanted.offset, READ_BYTES) {
            Ok(records) => self.open = Some((wanted.partition, wanted.offset, records)),
            Err(ReadError::Deleted) => return Ok(None),
            Err(ReadError::OffsetOutOfRange {
                log_start_offset, ..
            }) if wanted.offset < log_start_offset => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        self.advance(wanted)?.map(Some).ok_or(LoadError::Missing)
    }

    /// The record when the open read comes to it soon.
    fn advance(&mut self, wanted: Position) -> Result<Option<Record>, BatchError> {
        let Some((partition, next, records)) = self.open.as_mut() else {
            return Ok(None);
        };
        let reachable = *next..=next.saturating_add(GAP_MAX);
        if *partition != wanted.partition || !reachable.contains(&wanted.offset) {
            return Ok(None);
        }
        for record in records.by_ref() {
            let record = record?;
            *next = record.offset + 1;
            if record.offset == wanted.offset {
                return Ok(Some(record));
            }
            if record.offset > wanted.offset {
                break;
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use headwater_bridge::{Incoming, Properties, encode_record};
    use headwater_commitlog::fs::{FaultFs, FaultKind, RealFs};
    use headwater_commitlog::{
        Admin, Append, AppendData, CommitError, Options, PartitionId, Receipt, TopicConfig, Unit,
    };

    use super::super::commits::to_broker;
    use super::*;

    fn commit(log: &Log, unit: Unit) -> Receipt {
        let (sender, receiver) = channel();
        let done = move |mut answers: Vec<Result<Receipt, CommitError>>| {
            sender.send(answers.remove(0)).unwrap();
        };
        log.submit(vec![unit], Box::new(done));
        receiver.recv().unwrap().unwrap()
    }

    fn admin(log: &Log, admin: Admin) {
        let admin = vec![admin];
        let unit = Unit {
            admin,
            ..Unit::default()
        };
        commit(log, unit);
    }

    fn append(log: &Log, partition: PartitionId, payload: &'static [u8]) -> Position {
        let incoming = Incoming {
            topic: "a",
            payload: &Bytes::from_static(payload),
            qos: 1,
            retain: false,
            client: "c",
            user: None,
            at_ms: 1,
            properties: Properties::default(),
        };
        let body = encode_record(&incoming, None);
        let data = AppendData::Record {
            timestamp_ms: 1,
            body,
        };
        let mut unit = Unit::default();
        unit.appends.push(Append { partition, data });
        to_broker(commit(log, unit).positions[0])
    }

    #[test]
    fn only_what_the_log_let_go_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let files = FaultFs::new(Arc::new(RealFs), FaultKind::Io, u64::MAX, false);
        let log = Log::open(Arc::new(files.clone()), Options::new(dir.path())).unwrap();
        let create = Admin::CreateTopic {
            name: "t".to_owned(),
            partitions: 1,
            config: TopicConfig::default(),
        };
        admin(&log, create);
        let partition = log.topic("t").unwrap().partitions[0];
        let first = append(&log, partition, b"1");
        let second = append(&log, partition, b"2");
        let (timeline, mut failing) = (Timeline::new(), HashSet::new());
        let mut read = |positions: &[Position]| -> Vec<String> {
            let run = Run::new(&log);
            let items = read(run, &timeline, positions, 1 << 20, &mut failing);
            let name = |item: &Loaded| match item {
                Loaded::Found(message) => String::from_utf8(message.payload.to_vec()).unwrap(),
                Loaded::Gone => "gone".to_owned(),
                Loaded::Failed => "failed".to_owned(),
            };
            items.iter().map(name).collect()
        };
        assert_eq!(read(&[first, second]), ["1", "2"]);
        files.break_now();
        assert_eq!(
            read(&[first, second]),
            ["failed"],
            "the disk does not answer"
        );
        files.heal();
        assert_eq!(read(&[first, second]), ["1", "2"]);
        let beyond = Position {
            offset: 7,
            ..second
        };
        assert_eq!(read(&[beyond]), ["failed"], "never let go, so not gone");
        let trim = Admin::TrimTo {
            partition,
            offset: 1,
        };
        admin(&log, trim);
        assert_eq!(read(&[first, second]), ["gone", "2"]);
        let delete = Admin::DeleteTopic {
            name: "t".to_owned(),
        };
        admin(&log, delete);
        assert_eq!(read(&[second]), ["gone"]);
    }
}
