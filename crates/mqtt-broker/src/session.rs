//! One Client's Session: what it subscribed to, what it is owed and what it owes.
//!
//! For: the state that may outlive a Network Connection and moves between shards as one box.
//! Not for: the exchanges themselves, one file each below. They are parts of
//!   [`Shard`](crate::Shard), because an exchange touches the connection, the Session and the round
//!   at once.
//! Holds: a QoS 2 message is routed once, however often it is sent [MQTT-4.3.3-10].

pub(crate) mod ack_in;
pub(crate) mod authenticate;
pub(crate) mod connect;
pub(crate) mod end;
pub(crate) mod feeds;
pub(crate) mod group;
pub(crate) mod held;
pub(crate) mod late;
pub(crate) mod publish_in;
pub(crate) mod publish_out;
pub(crate) mod resume;
pub(crate) mod returned;
pub(crate) mod share;
pub(crate) mod subscribe;
pub(crate) mod takeover;
pub(crate) mod will;

use std::collections::VecDeque;
use std::num::NonZeroI64;
use std::sync::Arc;

use headwater_mqtt_codec::{SubscriptionId, SubscriptionOptions};
use smallvec::SmallVec;

use self::feeds::Feeds;
use self::group::Group;
use self::late::Late;
use self::share::Shares;
use crate::directory::Seat;
use crate::matching::FastMap;
use crate::owed::{Owed, OwedQueue};
use crate::rows::{Floor, SessionRow, WillRow};
use crate::{CommitId, LoadId, Message, Publisher};

/// How far an outbound QoS 1 or 2 message is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Progress {
    /// QoS 1, sent; PUBACK to come.
    Sent,
    /// QoS 2; the row of its Packet Identifier is on its way to the log.
    Storing,
    /// QoS 2, sent; PUBREC to come.
    SentOnce,
    /// PUBREC came; that is on its way to the log.
    Recorded,
    /// PUBREL sent; PUBCOMP to come.
    Released,
}

/// An outbound message that is not finished.
#[derive(Debug)]
pub(crate) struct Inflight {
    pub(crate) id: u16,
    pub(crate) progress: Progress,
    /// What it is for a Session that must be able to send it again.
    pub(crate) owed: Option<Box<Owed>>,
}

/// A message in memory, for a Session that ends with its connection.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) message: Arc<Message>,
    pub(crate) exactly_once: bool,
    pub(crate) retain: bool,
    pub(crate) ids: SmallVec<[SubscriptionId; 2]>,
}

/// One of a Session's subscriptions.
#[derive(Debug)]
pub(crate) struct Subscribed {
    pub(crate) filter: Box<str>,
    pub(crate) options: SubscriptionOptions,
    pub(crate) id: Option<SubscriptionId>,
    /// Of a Shared Subscription.
    pub(crate) group: Option<Arc<Seat>>,
}

/// What a Session reads back from the log.
#[derive(Debug, Default)]
pub(crate) struct Load {
    /// Sequence and message, ascending; `None` when the log has let it go.
    pub(crate) messages: VecDeque<(u64, Option<Arc<Message>>)>,
    /// What the log was asked.
    pub(crate) request: Option<LoadId>,
    /// It could not be read: nothing is asked of it before then.
    pub(crate) at: Option<u64>,
    /// How often in a row that was so.
    pub(crate) failures: u8,
}

#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) seat: Arc<Seat>,
    pub(crate) publisher: Arc<Publisher>,
    /// The claim it is held by.
    pub(crate) claim: CommitId,
    pub(crate) connection: Option<usize>,
    /// Seconds it outlives its connection; `u32::MAX` for ever.
    pub(crate) expiry_seconds: u32,
    /// It has rows in the log.
    pub(crate) has_rows: bool,
    /// Commits of it that are not answered.
    pub(crate) pending: u32,
    /// Another shard's CONNECT wants it.
    pub(crate) surrender: Option<Box<(usize, CommitId)>>,
    /// A commit is under way that takes it up, ends it or publishes its Will. Until it is answered
    /// its timers wait and nothing else of it is written.
    pub(crate) unsettled: bool,
    /// It has ended; its rows are still in the log, which refused to let them go.
    pub(crate) over: bool,
    /// Its row is to be written: the log refused it.
    pub(crate) row_dirty: bool,
    /// Ascending by filter. As the log has them.
    pub(crate) subscriptions: Vec<Subscribed>,
    /// The filters of SUBSCRIBEs whose commits are pending, in their order.
    pub(crate) subscribing: Vec<Box<str>>,
    /// QoS 2 PUBLISHes taken and not released; `false` while the commit is pending.
    pub(crate) inbound: FastMap<u16, bool>,
    pub(crate) inflight: VecDeque<Inflight>,
    /// Weight of the QoS 2 messages whose Packet Identifiers are on their way to the log.
    pub(crate) storing_bytes: usize,
    pub(crate) last_id: u16,
    /// What is in flight was read back: its identifiers need not be in turn.
    pub(crate) ids_restored: bool,
    /// In flight since an earlier connection, to be sent again on this one, in order.
    pub(crate) resend: VecDeque<u16>,
    pub(crate) owed: OwedQueue,
    /// Behind the highest sequence that was in flight or settled when it was read back. Below it what
    /// is settled, in flight and queued lies mixed; above it whatever is in flight comes first.
    pub(crate) mixed_below: u64,
    /// Behind the highest owed sequence it has seen.
    pub(crate) next_sequence: u64,
    pub(crate) queue: VecDeque<Queued>,
    pub(crate) queue_bytes: u64,
    /// Since something had to be read back for this connection.
    pub(crate) load: Option<Box<Load>>,
    /// Retained Messages on their way to it.
    pub(crate) feeds: Option<Box<Feeds>>,
    /// Packet Identifiers whose outbound rows are to be deleted along with the floor.
    pub(crate) finished: Vec<u16>,
    pub(crate) floor_dirty: bool,
    pub(crate) will: Option<Box<WillRow>>,
    pub(crate) will_at: Option<u64>,
    /// Wills that are due and wait for the log.
    pub(crate) late: Option<Box<Late>>,
    pub(crate) ends_at: Option<u64>,
    pub(crate) timer: Option<u64>,
    /// Wall clock.
    pub(crate) left_at_ms: Option<NonZeroI64>,
    /// It is a group, not a Client.
    pub(crate) group: Option<Box<Group>>,
    /// Messages of its groups that it has.
    pub(crate) shares: Option<Box<Shares>>,
}

impl Session {
    pub(crate) fn new(seat: Arc<Seat>, publisher: Arc<Publisher>, claim: CommitId) -> Self {
        Self {
            seat,
            publisher,
            claim,
            connection: None,
            expiry_seconds: 0,
            has_rows: false,
            pending: 0,
            surrender: None,
            unsettled: false,
            over: false,
            row_dirty: false,
            subscriptions: Vec::new(),
            subscribing: Vec::new(),
            inbound: FastMap::default(),
            inflight: VecDeque::new(),
            storing_bytes: 0,
            last_id: 0,
            ids_restored: false,
            resend: VecDeque::new(),
            owed: OwedQueue::default(),
            mixed_below: 0,
            next_sequence: 0,
            queue: VecDeque::new(),
            queue_bytes: 0,
            load: None,
            feeds: None,
            finished: Vec::new(),
            floor_dirty: false,
            will: None,
            will_at: None,
            late: None,
            ends_at: None,
            timer: None,
            left_at_ms: None,
            group: None,
            shares: None,
        }
    }

    pub(crate) fn number(&self) -> u64 {
        self.seat.number()
    }

    pub(crate) fn is_persistent(&self) -> bool {
        self.expiry_seconds > 0
    }

    pub(crate) fn row(&self) -> SessionRow {
        SessionRow {
            publisher: (*self.publisher).clone(),
            expiry_seconds: self.expiry_seconds,
            left_at_ms: self.left_at_ms.map(NonZeroI64::get),
            will: self.will.as_deref().cloned(),
        }
    }

    /// Up to where everything is settled.
    pub(crate) fn floor(&self) -> Floor {
        let front = self.owed.front_sequence().unwrap_or(self.next_sequence);
        let front = front.max(self.mixed_below);
        let inflight = self.inflight.iter();
        let inflight = inflight.filter_map(|one| one.owed.as_deref().filter(|owed| owed.is_own()));
        let of_group = self.group.iter().flat_map(|group| group.owed());
        let queued = self.owed.iter().map(|owed| owed.sequence);
        let mut open: Vec<u64> = inflight
            .chain(of_group)
            .map(|owed| owed.sequence)
            .chain(queued.take_while(|sequence| *sequence < self.mixed_below))
            .collect();
        open.sort_unstable();
        Floor { front, open }
    }

    /// The next free Packet Identifier [MQTT-2.2.1-4].
    pub(crate) fn next_id(&mut self) -> u16 {
        self.ids_restored &= !self.inflight.is_empty();
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            let id = self.last_id;
            // Identifiers are given out in turn, so what is in flight lies between the oldest's and
            // the newest's; only an `id` that has come round to the oldest needs a closer look.
            let newest = id.wrapping_sub(1);
            let span = self
                .inflight
                .front()
                .map_or(0, |oldest| newest.wrapping_sub(oldest.id));
            let comes_round = span > u16::MAX / 2;
            let free = !comes_round && !self.ids_restored;
            if free || !self.inflight.iter().any(|inflight| inflight.id == id) {
                return id;
            }
        }
    }

    /// Where this Packet Identifier is in flight.
    pub(crate) fn find_inflight(&self, id: u16) -> Option<usize> {
        match self.inflight.front() {
            Some(front) if front.id == id => Some(0),
            _ => self.inflight.iter().position(|inflight| inflight.id == id),
        }
    }

    /// The next message that waits in memory.
    pub(crate) fn pop_queued(&mut self) -> Option<Queued> {
        let queued = self.queue.pop_front()?;
        self.queue_bytes -= queued.message.memory() as u64;
        Some(queued)
    }

    pub(crate) fn filters(&self) -> impl Iterator<Item = &str> {
        self.subscriptions.iter().map(|one| &*one.filter)
    }

    pub(crate) fn find_subscription(&self, filter: &str) -> Result<usize, usize> {
        self.subscriptions
            .binary_search_by(|one| (*one.filter).cmp(filter))
    }

    /// What is kept only for the connection that is gone.
    pub(crate) fn forget_connection(&mut self) {
        let sent = self.inflight.back().and_then(|one| one.owed.as_ref());
        let sent = sent.filter(|owed| owed.is_own());
        let waits = self.owed.front();
        if sent.is_some_and(|sent| waits.is_some_and(|one| one.sequence == sent.sequence)) {
            // A panic ended the connection between sending it and taking it from the queue.
            self.owed.pop();
        }
        self.connection = None;
        self.feeds = None;
        self.load = None;
        self.storing_bytes = 0;
        self.queue = VecDeque::new();
        self.queue_bytes = 0;
        self.resend = VecDeque::new();
        self.inflight.retain(|inflight| inflight.owed.is_some());
        self.inflight.shrink_to_fit();
    }
}
