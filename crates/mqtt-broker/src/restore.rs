//! The broker's state after a restart, from the rows of its tables and the owed entries.
//!
//! For: building every Session as the log knows it, and who owed what to whom.
//! Called by: `server`, before any door opens: rows, then the owed entries, then `finish`.
//! Holds: what was acknowledged as owed is in a queue again, in its order; a QoS 2 message that
//!   may have been sent keeps its Packet Identifier.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use headwater_mqtt_codec::QoS;

use crate::commit::CommitId;
use crate::directory::Seat;
use crate::input::Between;
use crate::matching::FastMap;
use crate::owed::{Owed, OwedEntry, OwedQueue};
use crate::rows::{self, Floor, OutboundRow};
use crate::session::{Inflight, Progress, Session, Subscribed};
use crate::tree::Subscriber;
use crate::{Input, Now, Position, ShardMessage, Shared, Table};

/// A Session being put together.
#[derive(Debug, Default)]
struct Parts {
    row: Option<rows::SessionRow>,
    subscriptions: Vec<Subscribed>,
    inbound: Vec<u16>,
    outbound: BTreeMap<u16, OutboundRow>,
    floor: Floor,
    /// What it is owed, as it came: each queue ascends by sequence.
    debts: Vec<OwedQueue>,
    /// Behind the highest sequence that names it.
    next_sequence: u64,
}

/// Gathers what the log holds; `finish` gives each shard its Sessions.
#[derive(Debug)]
pub struct Restore {
    shared: Arc<Shared>,
    now: Now,
    parts: FastMap<u64, Parts>,
    unreadable: u64,
}

/// Claims of restored Sessions lie above all that shards will ever count to.
const RESTORED: u64 = 1 << 63;

impl Restore {
    /// `now` is when what the log holds is taken up: what the wall clock says has passed since it
    /// was written has passed.
    pub fn new(shared: Arc<Shared>, now: Now) -> Self {
        Self {
            shared,
            now,
            parts: FastMap::default(),
            unreadable: 0,
        }
    }

    /// One row. Every row of every [`Table`] first, in any order.
    pub fn row(&mut self, table: Table, key: &[u8], value: &Bytes) {
        if self.take_row(table, key, value).is_none() {
            self.unreadable += 1;
            tracing::warn!(?table, "a row could not be read and is left out");
        }
    }

    fn take_row(&mut self, table: Table, key: &[u8], value: &Bytes) -> Option<()> {
        match table {
            Table::Retained => {
                let message = rows::decode_retained(value, self.now)?;
                self.shared.retained.set(&Arc::new(message));
                return Some(());
            }
            Table::Numbers => {
                let next = rows::decode_numbers(value)?;
                self.shared.number_used(next.saturating_sub(1));
                return Some(());
            }
            Table::Sessions
            | Table::Subscriptions
            | Table::Inbound
            | Table::Outbound
            | Table::Floors => {}
        }
        let now = self.now;
        let (number, rest) = rows::split_key(key)?;
        let parts = self.parts.entry(number).or_default();
        match table {
            Table::Sessions => parts.row = Some(rows::decode_session(value, now)?),
            Table::Subscriptions => {
                let (options, id) = rows::decode_subscription(value)?;
                let filter = std::str::from_utf8(rest).ok()?.into();
                parts.subscriptions.push(Subscribed {
                    filter,
                    options,
                    id,
                });
            }
            Table::Inbound => parts.inbound.push(rows::packet_id(rest)?),
            Table::Outbound => {
                parts
                    .outbound
                    .insert(rows::packet_id(rest)?, rows::decode_outbound(value)?);
            }
            Table::Floors => parts.floor = rows::decode_floor(value)?,
            Table::Retained | Table::Numbers => {}
        }
        Some(())
    }

    /// After the rows: the lowest sequence anyone may still be owed; scan the owed partition from
    /// here, or from its log start offset. `None`: nobody can be owed anything.
    pub fn owed_from(&self) -> Option<u64> {
        let known = self.parts.values().filter(|parts| parts.row.is_some());
        known.map(|parts| parts.floor.lowest()).min()
    }

    /// Then every owed record from there, ascending: its own offset, the message's position from
    /// the first 12 bytes of its value, and the rest of its value.
    ///
    /// Keeps a few bytes for each Session that is still owed it, nothing of the entry.
    pub fn owed(&mut self, sequence: u64, position: Position, entry: &[u8]) {
        let Some(entry) = OwedEntry::decode(entry) else {
            self.unreadable += 1;
            return;
        };
        // One that stands for an earlier entry belongs in that one's place.
        let sequence = entry.original.unwrap_or(sequence);
        for group in entry.groups {
            let owed = Owed {
                sequence,
                position,
                qos: group.qos,
                retain: group.retain,
                weight: entry.weight,
                ids: group.ids.into(),
            };
            for number in group.sessions {
                self.shared.number_used(number);
                if let Some(parts) = self.parts.get_mut(&number) {
                    parts.owe(&owed);
                }
            }
        }
    }

    /// Rows and entries that could not be read and were left out.
    pub fn unreadable(&self) -> u64 {
        self.unreadable
    }

    /// The first Inputs of each shard, before any connection is opened.
    pub fn finish(mut self) -> Vec<Vec<Input>> {
        let shards = self.shared.shards.max(1);
        let mut numbers: Vec<u64> = self.parts.keys().copied().collect();
        // The newest first: of two Sessions with one client id, which no commit makes, it stays.
        numbers.sort_unstable_by(|a, b| b.cmp(a));
        let mut inputs: Vec<Vec<Input>> = (0..shards).map(|_| Vec::new()).collect();
        for number in numbers {
            self.shared.number_used(number);
            let home = usize::try_from(number % shards as u64).unwrap_or(0);
            let parts = self.parts.remove(&number);
            let session = parts.and_then(|parts| self.session(number, home, parts));
            if let (Some(session), Some(inputs)) = (session, inputs.get_mut(home)) {
                let message = ShardMessage(Between::Restored(Box::new(session)));
                inputs.push(Input::FromShard(message));
            }
        }
        inputs
    }

    /// A Session from its rows, in the directory and the tree.
    fn session(&self, number: u64, home: usize, mut parts: Parts) -> Option<Session> {
        let now = self.now;
        let row = parts.row.take()?;
        let publisher = Arc::new(row.publisher);
        let persistent = row.expiry_seconds > 0;
        let seat = Arc::new(Seat::new(number, home, persistent));
        let claim = CommitId(RESTORED | number);
        if !self
            .shared
            .directory
            .restore(&publisher, home, claim, &seat)
        {
            tracing::warn!(
                number,
                "a session whose client id a newer one has is left out"
            );
            return None;
        }
        if persistent {
            self.shared.count_persistent(true);
        }
        let mut session = Session::new(seat.clone(), publisher, claim);
        session.expiry_seconds = row.expiry_seconds;
        session.has_rows = true;
        let mut subscriptions = parts.subscriptions;
        subscriptions.sort_by(|a, b| a.filter.cmp(&b.filter));
        for one in &subscriptions {
            let subscriber = Subscriber {
                seat: seat.clone(),
                options: one.options,
                id: one.id,
            };
            self.shared.tree.subscribe(&one.filter, subscriber);
        }
        session.subscriptions = subscriptions;
        session.inbound = parts.inbound.into_iter().map(|id| (id, true)).collect();
        session.next_sequence = parts.next_sequence.max(parts.floor.front);
        let ids: BTreeMap<u64, u16> = parts
            .outbound
            .iter()
            .map(|(id, row)| (row.sequence, *id))
            .collect();
        let mut inflight: BTreeMap<u16, Box<Owed>> = BTreeMap::new();
        if ids.is_empty() && parts.debts.len() == 1 {
            session.owed = parts.debts.pop().unwrap_or_default();
        }
        for owed in settle_debts(parts.debts) {
            let id = ids.get(&owed.sequence);
            match id.filter(|_| owed.qos == QoS::ExactlyOnce) {
                Some(id) => drop(inflight.insert(*id, Box::new(owed))),
                None => session.owed.push(&owed),
            }
        }
        for (id, row) in parts.outbound {
            let progress = if row.released {
                Progress::Released
            } else {
                Progress::SentOnce
            };
            // A PUBREL may be all that is left of a message.
            let released = || Box::new(Owed::released(row.sequence));
            let owed = inflight.remove(&id);
            let owed = owed.or_else(|| row.released.then(released));
            session.last_id = session.last_id.max(id);
            session.ids_restored = true;
            if owed.is_some() {
                session.inflight.push_back(Inflight { id, progress, owed });
            }
        }
        let sequence = |one: &Inflight| one.owed.as_ref().map_or(0, |owed| owed.sequence);
        session.inflight.make_contiguous().sort_by_key(sequence);
        let highest = session.inflight.iter().filter(|one| one.owed.is_some());
        let highest = highest.map(sequence).max();
        session.mixed_below = highest.map_or(0, |highest| highest + 1);
        // Who was connected at the crash left now.
        let left_at_ms = row.left_at_ms.unwrap_or(now.wall_ms);
        session.left_at_ms = Some(left_at_ms);
        let after = |seconds: u32| now.mono_ms + u64::from(seconds) * 1_000;
        if row.expiry_seconds != u32::MAX {
            let away_ms = now.wall_ms.saturating_sub(left_at_ms).max(0).unsigned_abs();
            session.ends_at = Some(
                after(row.expiry_seconds)
                    .saturating_sub(away_ms)
                    .max(now.mono_ms),
            );
        }
        // A Will's delay starts at the restart.
        session.will_at = row.will.as_ref().map(|will| after(will.delay_seconds));
        session.will = row.will.map(Box::new);
        Some(session)
    }
}

impl Parts {
    /// One message the Session was owed, if it still is.
    fn owe(&mut self, owed: &Owed) {
        if self.row.is_none() {
            return;
        }
        self.next_sequence = self.next_sequence.max(owed.sequence + 1);
        if !self.floor.is_owed(owed.sequence) {
            return;
        }
        match self.debts.last_mut() {
            Some(last) if last.back_sequence() < owed.sequence => last.push(owed),
            _ => {
                let mut next = OwedQueue::default();
                next.push(owed);
                self.debts.push(next);
            }
        }
    }
}

/// All debts of one Session in order, each once: of those for one sequence the last counts.
fn settle_debts(debts: Vec<OwedQueue>) -> Vec<Owed> {
    let mut all: Vec<Owed> = debts.iter().flat_map(OwedQueue::iter).collect();
    all.sort_by_key(|owed| owed.sequence);
    all.dedup_by(|later, kept| {
        let same = later.sequence == kept.sequence;
        if same {
            std::mem::swap(later, kept);
        }
        same
    });
    all
}
