//! Reads back from the log what returning sessions are owed, on a thread of its own.
//!
//! For: `Effect::Load` -> `Input::Loaded`, without a shard's thread ever waiting for the disk.
//! Calls: `convert`, `headwater_commitlog`. Called by: `shard`.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use headwater_bridge::read_owed;
use headwater_commitlog::Log;
use headwater_commitlog::record::{Record, Records};
use headwater_mqtt_broker::{Input, LoadId, Message, Position};
use tracing::warn;

use super::commits::from_broker;
use super::convert::message;
use super::inbox::Inbox;
use super::shard::Mail;

/// What one read takes from a partition.
const READ_BYTES: usize = 256 << 10;
/// Records that are passed over before the next one is looked up instead.
const GAP_MAX: u64 = 64;

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
    ) -> std::io::Result<(Self, JoinHandle<()>)> {
        let (requests, receiver) = channel();
        let thread = std::thread::Builder::new()
            .name("loader".to_owned())
            .spawn(move || serve(&log, &inboxes, &receiver))?;
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

fn serve(log: &Log, inboxes: &[Inbox<Mail>], requests: &Receiver<Request>) {
    while let Ok(request) = requests.recv() {
        let items = read(log, &request.positions, request.bytes_max);
        if let Some(inbox) = inboxes.get(request.shard) {
            inbox.put([Mail::Input(Input::Loaded {
                request: request.id,
                items,
            })]);
        }
    }
}

fn read(log: &Log, positions: &[Position], bytes_max: usize) -> Vec<Option<Arc<Message>>> {
    let (mut items, mut bytes) = (Vec::new(), 0);
    let mut run = Run { log, open: None };
    for &position in positions {
        let found = run.record(position).and_then(|record| {
            let outgoing = read_owed(&record).inspect_err(|rejected| {
                warn!(?position, reason = %rejected, "an owed record is no message");
            });
            message(&outgoing.ok()?, Some(position)).ok()
        });
        bytes += found
            .as_ref()
            .map_or(0, |message| message.topic.len() + message.payload.len());
        items.push(found.map(Arc::new));
        if bytes >= bytes_max {
            break;
        }
    }
    items
}

/// Reads records that mostly follow each other.
struct Run<'l> {
    log: &'l Log,
    /// Where the open read stands: partition, next offset, what is left of it.
    open: Option<(u32, u64, Records)>,
}

impl Run<'_> {
    fn record(&mut self, wanted: Position) -> Option<Record> {
        self.advance(wanted).or_else(|| {
            let partition = self.log.partition(from_broker(wanted).partition)?;
            let records = partition.records(wanted.offset, READ_BYTES);
            let records = records.inspect_err(|error| {
                warn!(?wanted, %error, "an owed record could not be read");
            });
            self.open = Some((wanted.partition, wanted.offset, records.ok()?));
            self.advance(wanted)
        })
    }

    /// The record when the open read comes to it soon.
    fn advance(&mut self, wanted: Position) -> Option<Record> {
        let (partition, next, records) = self.open.as_mut()?;
        let reachable = *next..=next.saturating_add(GAP_MAX);
        if *partition != wanted.partition || !reachable.contains(&wanted.offset) {
            return None;
        }
        for record in records.by_ref() {
            let record = record.ok()?;
            *next = record.offset + 1;
            if record.offset == wanted.offset {
                return Some(record);
            }
            if record.offset > wanted.offset {
                return None;
            }
        }
        None
    }
}
