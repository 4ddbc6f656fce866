//! The broker's state after a restart, from the rows of its tables and the owed entries.
//!
//! For: building every Session as the log knows it, and who owed what to whom.
//! Called by: `server`, before any door opens: rows, then the owed entries, then `finish`.
//! Holds: what was acknowledged as owed is in a queue again, in its order; a QoS 2 message that
//!   may have been sent keeps its Packet Identifier.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroI64;
use std::sync::Arc;

use bytes::Bytes;
use headwater_mqtt_codec::{QoS, topic};

use crate::commit::CommitId;
use crate::directory::Seat;
use crate::groups::GroupName;
use crate::input::Between;
use crate::matching::FastMap;
use crate::owed::{Owed, OwedEntry, OwedQueue};
use crate::rows::{self, Floor, OutboundRow};
use crate::session::late::Late;
use crate::session::{Inflight, Progress, Session, Subscribed};
use crate::tree::Subscriber;
use crate::{Input, Message, Now, Position, ShardMessage, Shared, Table};

/// A Session being put together.
#[derive(Debug, Default)]
struct Parts {
    row: Option<rows::SessionRow>,
    subscriptions: Vec<Subscribed>,
    inbound: Vec<u16>,
    outbound: BTreeMap<u16, OutboundRow>,
    /// The name, where it is a group.
    group: Option<Box<str>>,
    /// What members have of it for good.
    handed: BTreeSet<u64>,
    /// Wills that wait for the log.
    wills: BTreeMap<u64, Arc<Message>>,
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
    /// Number of a group, sequence -> the member that has the message for good, and its identifier.
    taken: FastMap<(u64, u64), (u64, u16)>,
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
            taken: FastMap::default(),
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
                let message = rows::decode_message(value, self.now)?;
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
            | Table::Floors
            | Table::Groups
            | Table::Handed
            | Table::Wills => {}
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
                    group: None,
                });
            }
            Table::Inbound => parts.inbound.push(rows::packet_id(rest)?),
            Table::Outbound => {
                let (id, row) = (rows::packet_id(rest)?, rows::decode_outbound(value)?);
                if let Some(owed) = &row.from_group {
                    let key = (owed.group, owed.sequence);
                    self.taken.insert(key, (number, id));
                }
                parts.outbound.insert(id, row);
            }
            Table::Floors => parts.floor = rows::decode_floor(value)?,
            Table::Groups => parts.group = Some(rows::decode_group(value)?),
            Table::Handed => drop(parts.handed.insert(rows::sequence(rest)?)),
            Table::Wills => {
                let message = Arc::new(rows::decode_message(value, now)?);
                parts.wills.insert(rows::sequence(rest)?, message);
            }
            Table::Retained | Table::Numbers => {}
        }
        Some(())
    }

    /// After the rows: the lowest sequence anyone may still be owed; scan the owed partition from
    /// here, or from its log start offset. `None`: nobody can be owed anything.
    pub fn owed_from(&self) -> Option<u64> {
        let known = self.parts.values().filter(|parts| parts.is_known());
        // Where a message of a group went that a member has, only an entry says.
        let taken = self.taken.keys().map(|(_, sequence)| *sequence);
        known.map(|parts| parts.floor.lowest()).chain(taken).min()
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
                group: 0,
            };
            for number in group.sessions {
                self.shared.number_used(number);
                if let Some((member, id)) = self.taken.get(&(number, sequence)) {
                    let row = self.parts.get_mut(member);
                    let row = row.and_then(|parts| parts.outbound.get_mut(id));
                    if let Some(taken) = row.and_then(|row| row.from_group.as_mut()) {
                        taken.position = position;
                    }
                }
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
        // The newest first: of two Sessions with one client id it stays.
        numbers.sort_unstable_by(|a, b| b.cmp(a));
        let mut inputs: Vec<Vec<Input>> = (0..shards).map(|_| Vec::new()).collect();
        for number in &numbers {
            self.shared.number_used(*number);
        }
        let is_group = |number: &u64| self.parts.get(number).is_some_and(Parts::is_group);
        let (groups, clients): (Vec<u64>, Vec<u64>) = numbers.into_iter().partition(is_group);
        // Their seats first, then their members, then themselves: without members they end.
        let groups: Vec<(Arc<Seat>, Parts)> = groups
            .into_iter()
            .filter_map(|number| self.group_seat(number, home_of(number, shards)))
            .collect();
        let mut give = |home: usize, session: Session| {
            if let Some(inputs) = inputs.get_mut(home) {
                let message = ShardMessage(Between::Restored(Box::new(session)));
                inputs.push(Input::FromShard(message));
            }
        };
        for number in clients {
            let home = home_of(number, shards);
            let parts = self.parts.remove(&number);
            if let Some(session) = parts.and_then(|parts| self.session(number, home, parts)) {
                give(home, session);
            }
        }
        for (seat, parts) in groups {
            give(seat.home(), self.group(&seat, parts));
        }
        inputs
    }

    /// The seat of a group, for its members to find. Of two with one name the newer stays: nobody
    /// subscribes to the other any more.
    fn group_seat(&mut self, number: u64, home: usize) -> Option<(Arc<Seat>, Parts)> {
        let parts = self.parts.remove(&number)?;
        let name = parts.group.as_deref().unwrap_or_default();
        let seat = Seat::for_group(number, home, GroupName::new(name, true));
        let seat = Arc::new(seat);
        self.shared.groups.restore(&seat);
        Some((seat, parts))
    }

    /// A group as it stood in the log; it ends at once where nobody subscribes to it.
    fn group(&self, seat: &Arc<Seat>, parts: Parts) -> Session {
        let mut session = Session::for_group(seat.clone());
        session.next_sequence = parts.next_sequence.max(parts.floor.front);
        for owed in settle_debts(parts.debts) {
            session.owed.push(&owed);
        }
        // Between those that it still owes, members have others.
        let handed = parts.handed.last().map_or(0, |highest| highest + 1);
        session.mixed_below = parts.floor.front.max(handed);
        if let Some(group) = &mut session.group {
            group.handed = parts.handed.into_iter().collect();
            session.floor_dirty = !group.handed.is_empty();
        }
        if self.shared.groups.is_empty(seat) {
            session.over = true;
            session.ends_at = Some(self.now.mono_ms);
        }
        session
    }

    /// The seat of the group that a restored subscription belongs to, where it is a shared one.
    fn join(&self, filter: &str, qos: QoS, home: usize) -> Option<Arc<Seat>> {
        let shared = topic::split_shared(filter).ok()??;
        let make = || {
            // All its members end with their connections, and have ended.
            let name = GroupName::new(filter, false);
            Arc::new(Seat::for_group(self.shared.next_number(), home, name))
        };
        let seat = self.shared.groups.reserve(shared, None, make)?;
        self.shared
            .groups
            .count(&self.shared.tree, &seat, None, qos);
        Some(seat)
    }

    /// A Session from its rows, in the directory and the tree.
    fn session(&self, number: u64, home: usize, mut parts: Parts) -> Option<Session> {
        let now = self.now;
        let row = parts.row.take()?;
        let publisher = Arc::new(row.publisher);
        // It had ended when a newer one came, and the log did not let it go: it ends again.
        let over = self.shared.directory.is_held(&publisher.client);
        let persistent = row.expiry_seconds > 0 && !over;
        let seat = Arc::new(Seat::new(number, home, persistent));
        let claim = CommitId(RESTORED | number);
        if !over {
            self.shared
                .directory
                .restore(&publisher, home, claim, &seat);
        }
        if persistent {
            self.shared.count_persistent(true);
        }
        let mut session = Session::new(seat.clone(), publisher, claim);
        session.over = over;
        session.expiry_seconds = row.expiry_seconds;
        session.has_rows = true;
        let mut subscriptions = parts.subscriptions;
        subscriptions.sort_by(|a, b| a.filter.cmp(&b.filter));
        for one in subscriptions.iter_mut().filter(|_| !over) {
            one.group = self.join(&one.filter, one.options.qos, home);
            if one.group.is_some() {
                continue;
            }
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
        let own = parts
            .outbound
            .iter()
            .filter(|(_, row)| row.from_group.is_none());
        let ids: BTreeMap<u64, u16> = own.map(|(id, row)| (row.sequence, *id)).collect();
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
            let sequence = row.sequence;
            let released = || Box::new(Owed::released(sequence));
            let owed = inflight.remove(&id).or(row.from_group);
            let owed = owed.or_else(|| row.released.then(released));
            session.last_id = session.last_id.max(id);
            session.ids_restored = true;
            if owed.is_some() {
                session.inflight.push_back(Inflight { id, progress, owed });
            }
        }
        let sequence = |one: &Inflight| one.owed.as_ref().map_or(0, |owed| owed.sequence);
        session.inflight.make_contiguous().sort_by_key(sequence);
        let is_own = |one: &&Inflight| one.owed.as_ref().is_some_and(|owed| owed.is_own());
        let highest = session.inflight.iter().filter(is_own).map(sequence).max();
        // Between those that are open below the floor's front, others are settled.
        session.mixed_below = highest
            .map_or(0, |highest| highest + 1)
            .max(parts.floor.front);
        // Who was connected at the crash left now.
        let left_at_ms = row.left_at_ms.unwrap_or(now.wall_ms);
        session.left_at_ms = NonZeroI64::new(left_at_ms);
        let after = |seconds: u32| now.mono_ms + u64::from(seconds) * 1_000;
        if row.expiry_seconds != u32::MAX {
            let away_ms = now.wall_ms.saturating_sub(left_at_ms).max(0).unsigned_abs();
            session.ends_at = Some(
                after(row.expiry_seconds)
                    .saturating_sub(away_ms)
                    .max(now.mono_ms),
            );
        }
        if over {
            session.ends_at = Some(now.mono_ms);
        }
        // A Will's delay starts at the restart.
        session.will_at = row.will.as_ref().map(|will| after(will.delay_seconds));
        session.will = row.will.map(Box::new);
        session.late = Late::restored(parts.wills, now);
        Some(session)
    }
}

fn home_of(number: u64, shards: usize) -> usize {
    usize::try_from(number % shards as u64).unwrap_or(0)
}

impl Parts {
    /// Rows that were left behind by a group that has ended make one that ends.
    fn is_group(&self) -> bool {
        self.group.is_some() || !self.handed.is_empty()
    }

    fn is_known(&self) -> bool {
        self.row.is_some() || self.group.is_some()
    }

    /// One message the Session was owed, if it still is.
    fn owe(&mut self, owed: &Owed) {
        if !self.is_known() {
            return;
        }
        self.next_sequence = self.next_sequence.max(owed.sequence + 1);
        if !self.floor.is_owed(owed.sequence) || self.handed.contains(&owed.sequence) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::owed::OwedGroup;
    use crate::rows::SessionRow;
    use crate::{Change, Config, Publisher};

    fn give(restore: &mut Restore, row: &Change) {
        restore.row(row.table, &row.key, row.value.as_ref().unwrap());
    }

    #[test]
    fn what_was_settled_between_open_messages_stays_settled() {
        let shared = Arc::new(Shared::new(Config::default()));
        let mut restore = Restore::new(shared, Now::default());
        let row = SessionRow {
            publisher: Publisher {
                client: "c".into(),
                principal: "p".into(),
            },
            expiry_seconds: 100,
            left_at_ms: None,
            will: None,
        };
        give(&mut restore, &rows::session(7, &row));
        let floor = Floor {
            front: 4,
            open: vec![0, 2],
        };
        give(&mut restore, &rows::floor(7, &floor));
        for sequence in 0..5 {
            let group = OwedGroup {
                qos: QoS::AtLeastOnce,
                retain: false,
                ids: Vec::new(),
                sessions: vec![7],
            };
            let entry = OwedEntry::new(vec![group]).unwrap().encode();
            restore.owed(sequence, Position::default(), &entry);
        }
        let input = restore.finish().remove(0).pop();
        let Some(Input::FromShard(ShardMessage(Between::Restored(mut session)))) = input else {
            panic!("{input:?}");
        };
        for gone in [None, Some(0), Some(2)] {
            if gone.is_some() {
                assert_eq!(session.owed.pop().map(|owed| owed.sequence), gone);
            }
            let floor = session.floor();
            let still = (0..5).filter(|sequence| floor.is_owed(*sequence));
            let queued = session.owed.iter().map(|owed| owed.sequence);
            assert!(still.eq(queued), "{floor:?} after {gone:?}");
        }
    }
}
