//! All groups of one shard: which exist, what they have committed, when something is due.
//!
//! For: one call an input; each appends its effects in order and never blocks.
//! Not for: one group's protocol (`membership`).
//! Holds: offsets in memory are those on disk; a commit of a member that is fenced is refused; an
//! offset changes only by a commit, by deletion, or with its partition.

use std::collections::BTreeSet;

use hashbrown::HashMap;
use headwater_commitlog::PartitionId;

use super::membership::Group;
use super::row::{self, Row, RowError};
use super::{
    Answer, Caller, Committed, Description, Effect, Join, Joined, Now, RowChange, Sync, Synced,
    Ticket, Turn, Write, WriteId, Writes,
};
use crate::error_code::ErrorCode;
use crate::options::GroupLimits;
use crate::view::GroupState;
use crate::wire::Text;

/// How often groups are looked through for what is too old to keep.
const SWEEP_MS: u64 = 60_000;

/// Longest name of a group or an instance, in bytes.
const NAME_BYTES_MAX: usize = 1_024;

type Offsets = HashMap<PartitionId, Committed, foldhash::fast::RandomState>;

#[derive(Debug)]
struct Entry {
    group: Group,
    offsets: Offsets,
    /// When `wakes` wakes this group.
    wake_at: Option<u64>,
}

/// The groups of one shard.
#[derive(Debug)]
pub(crate) struct Coordinator {
    shard: u8,
    limits: GroupLimits,
    groups: HashMap<Text, Entry, foldhash::fast::RandomState>,
    wakes: BTreeSet<(u64, Text)>,
    writes: Writes,
    /// Groups begin above it, so that the name of a deleted one meets no old generation again.
    generation_floor: i32,
    sweep_at_ms: u64,
}

impl Coordinator {
    pub(crate) fn new(shard: u8, limits: GroupLimits, now: Now) -> Self {
        Self {
            shard,
            limits,
            groups: HashMap::default(),
            wakes: BTreeSet::new(),
            writes: Writes::default(),
            generation_floor: 0,
            sweep_at_ms: now.mono_ms.saturating_add(SWEEP_MS),
        }
    }

    /// Which group a row of the table belongs to; `None` for rows that concern every shard.
    pub(crate) fn group_of_row(
        key: &bytes::Bytes,
        value: &bytes::Bytes,
    ) -> Result<Option<Text>, RowError> {
        Ok(match row::decode(key, value)? {
            Row::Group { group_id, .. } | Row::Offset { group_id, .. } => Some(group_id),
            Row::GenerationFloor(_) => None,
        })
    }

    /// Takes back one row of the table, before anything else happens.
    pub(crate) fn restore(
        &mut self,
        now: Now,
        key: &bytes::Bytes,
        value: &bytes::Bytes,
    ) -> Result<(), RowError> {
        match row::decode(key, value)? {
            Row::Group {
                group_id,
                mut group,
            } => {
                group.restore_sessions(now);
                self.entry(&group_id).group = group;
                self.reschedule(&group_id);
            }
            Row::Offset {
                group_id,
                partition,
                committed,
            } => {
                self.entry(&group_id).offsets.insert(partition, committed);
            }
            Row::GenerationFloor(floor) => {
                self.generation_floor = self.generation_floor.max(floor);
            }
        }
        Ok(())
    }

    pub(crate) fn join(&mut self, now: Now, ticket: Ticket, join: Join, effects: &mut Vec<Effect>) {
        let refusal = if !is_name(&join.group_id) {
            Some(ErrorCode::InvalidGroupId)
        } else if join.instance_id.as_ref().is_some_and(|id| !is_name(id)) {
            Some(ErrorCode::InvalidRequest)
        } else if !self.groups.contains_key(&join.group_id) && !join.member_id.is_empty() {
            Some(ErrorCode::UnknownMemberId)
        } else if self.is_full(&join.group_id) {
            Some(ErrorCode::PolicyViolation)
        } else {
            None
        };
        if let Some(error) = refusal {
            let answer = Answer::Joined(Joined::refused(error, join.member_id));
            return effects.push(Effect::Answer { ticket, answer });
        }
        let group_id = join.group_id.detached();
        self.turn(now, &group_id, effects, |group, turn| {
            group.join(turn, ticket, join)
        });
    }

    pub(crate) fn sync(&mut self, now: Now, ticket: Ticket, sync: Sync, effects: &mut Vec<Effect>) {
        let group_id = sync.caller.group_id.clone();
        if !self.groups.contains_key(&group_id) {
            let answer = Answer::Synced(Synced::refused(ErrorCode::UnknownMemberId));
            return effects.push(Effect::Answer { ticket, answer });
        }
        self.turn(now, &group_id, effects, |group, turn| {
            group.sync(turn, ticket, sync)
        });
    }

    /// Needs no disk: the answer is there at once. Sessions only grow longer by it, so that what is
    /// scheduled stays good.
    pub(crate) fn heartbeat(&mut self, now: Now, caller: &Caller) -> ErrorCode {
        match self.groups.get_mut(&caller.group_id) {
            Some(entry) => entry.group.heartbeat(now, caller),
            None => ErrorCode::UnknownMemberId,
        }
    }

    pub(crate) fn leave(
        &mut self,
        now: Now,
        group_id: &Text,
        member_id: &Text,
        instance_id: Option<&Text>,
        effects: &mut Vec<Effect>,
    ) -> ErrorCode {
        if !self.groups.contains_key(group_id) {
            return ErrorCode::UnknownMemberId;
        }
        let mut outcome = ErrorCode::None;
        self.turn(now, group_id, effects, |group, turn| {
            outcome = group.leave(turn, member_id, instance_id);
        });
        outcome
    }

    /// Commits offsets for a member, or, with generation -1 and no member, for a reader that
    /// assigns itself its partitions.
    pub(crate) fn commit(
        &mut self,
        now: Now,
        ticket: Ticket,
        caller: &Caller,
        offsets: Vec<(PartitionId, Committed)>,
        effects: &mut Vec<Effect>,
    ) {
        if let Err(error) = self.check_commit(now, caller) {
            let answer = Answer::Done(error);
            return effects.push(Effect::Answer { ticket, answer });
        }
        let group_id = caller.group_id.detached();
        // The group is there from now on, so that nobody deletes what is being written.
        let entry = self.entry(&group_id);
        let mut rows: Vec<RowChange> = offsets
            .iter()
            .map(|(partition, committed)| row::offset(&group_id, *partition, committed))
            .collect();
        if entry.offsets.is_empty() && entry.group.members.is_empty() {
            rows.push(row::group(&group_id, &entry.group));
        }
        let write = Write::Offsets {
            group_id,
            ticket,
            offsets,
        };
        self.open_turn(now, effects).persist(rows, write);
    }

    fn check_commit(&mut self, now: Now, caller: &Caller) -> Result<(), ErrorCode> {
        if !is_name(&caller.group_id) {
            return Err(ErrorCode::InvalidGroupId);
        }
        if self.is_full(&caller.group_id) {
            return Err(ErrorCode::PolicyViolation);
        }
        let entry = self.groups.get_mut(&caller.group_id);
        let is_simple = caller.generation < 0;
        match entry {
            None if is_simple => Ok(()),
            None => Err(ErrorCode::IllegalGeneration),
            Some(entry) if is_simple && entry.group.state == GroupState::Empty => Ok(()),
            Some(entry) => {
                entry.group.check_caller(caller)?;
                entry.group.heard(now, &caller.member_id);
                match entry.group.state {
                    // The generation is new to the member: it must first learn what it owns.
                    GroupState::CompletingRebalance => Err(ErrorCode::RebalanceInProgress),
                    GroupState::Empty | GroupState::PreparingRebalance | GroupState::Stable => {
                        Ok(())
                    }
                }
            }
        }
    }

    pub(crate) fn delete_offsets(
        &mut self,
        now: Now,
        ticket: Ticket,
        group_id: &Text,
        partitions: Vec<PartitionId>,
        effects: &mut Vec<Effect>,
    ) {
        let rows = partitions
            .iter()
            .map(|id| row::offset_deleted(group_id, *id))
            .collect();
        let write = Write::OffsetsDeleted {
            group_id: group_id.clone(),
            ticket,
            partitions,
        };
        self.open_turn(now, effects).persist(rows, write);
    }

    /// Deletes a group without members, its offsets with it.
    pub(crate) fn delete(
        &mut self,
        now: Now,
        ticket: Ticket,
        group_id: &Text,
        effects: &mut Vec<Effect>,
    ) {
        let error = match self.groups.get(group_id) {
            None => ErrorCode::GroupIdNotFound,
            Some(entry) if entry.group.state != GroupState::Empty => ErrorCode::NonEmptyGroup,
            // A commit on its way to the disk would outlive the group.
            Some(_) if self.is_busy(group_id) => ErrorCode::CoordinatorLoadInProgress,
            Some(_) => ErrorCode::None,
        };
        if error.is_error() {
            let answer = Answer::Done(error);
            return effects.push(Effect::Answer { ticket, answer });
        }
        let rows = self.forget(group_id);
        self.open_turn(now, effects)
            .persist(rows, Write::GroupDeleted { ticket });
    }

    /// The rows that a write handed out are on disk, or are not and never will be.
    pub(crate) fn persisted(
        &mut self,
        now: Now,
        write: WriteId,
        ok: bool,
        effects: &mut Vec<Effect>,
    ) {
        let Some(write) = self.writes.waiting.remove(&write) else {
            return;
        };
        let outcome = if ok {
            ErrorCode::None
        } else {
            ErrorCode::CoordinatorNotAvailable
        };
        let mut answer = |ticket, answer| effects.push(Effect::Answer { ticket, answer });
        match write {
            Write::Generation {
                group_id,
                generation,
                answers,
            } => {
                for (ticket, joined) in answers {
                    answer(ticket, Answer::Joined(settled(joined, outcome)));
                }
                self.turn_if_there(now, &group_id, effects, |group, turn| {
                    group.generation_persisted(turn, generation, ok);
                });
            }
            Write::Assignment {
                group_id,
                generation,
            } => {
                self.turn_if_there(now, &group_id, effects, |group, turn| {
                    group.assignment_persisted(turn, generation, ok);
                });
            }
            Write::Replaced {
                group_id: _,
                ticket,
                joined,
            } => {
                answer(ticket, Answer::Joined(settled(joined, outcome)));
            }
            Write::Offsets {
                group_id,
                ticket,
                offsets,
            } => {
                answer(ticket, Answer::Done(outcome));
                if ok && let Some(entry) = self.groups.get_mut(&group_id) {
                    entry.offsets.extend(offsets);
                }
            }
            Write::OffsetsDeleted {
                group_id,
                ticket,
                partitions,
            } => {
                answer(ticket, Answer::Done(outcome));
                if ok && let Some(entry) = self.groups.get_mut(&group_id) {
                    entry
                        .offsets
                        .retain(|partition, _| !partitions.contains(partition));
                }
            }
            Write::GroupDeleted { ticket } => answer(ticket, Answer::Done(outcome)),
            Write::Unwatched => {}
        }
    }

    /// When `tick` has something to do, in `Now::mono_ms`.
    pub(crate) fn deadline(&self) -> u64 {
        self.wakes
            .first()
            .map_or(self.sweep_at_ms, |(at, _)| self.sweep_at_ms.min(*at))
    }

    /// Does what is due. `partition_exists` tells whether an offset still points at something.
    pub(crate) fn tick(
        &mut self,
        now: Now,
        partition_exists: &dyn Fn(PartitionId) -> bool,
        effects: &mut Vec<Effect>,
    ) {
        while let Some((at, group_id)) = self.wakes.first().cloned()
            && at <= now.mono_ms
        {
            self.wakes.pop_first();
            if let Some(entry) = self.groups.get_mut(&group_id) {
                entry.wake_at = None;
            }
            self.turn_if_there(now, &group_id, effects, |_, _| {});
        }
        if self.sweep_at_ms <= now.mono_ms {
            self.sweep_at_ms = now.mono_ms.saturating_add(SWEEP_MS);
            self.sweep(now, partition_exists, effects);
        }
    }

    /// Drops offsets of deleted partitions, offsets too old of groups without members, and groups
    /// that have neither members nor offsets.
    fn sweep(
        &mut self,
        now: Now,
        partition_exists: &dyn Fn(PartitionId) -> bool,
        effects: &mut Vec<Effect>,
    ) {
        let retention_ms = i64::try_from(self.limits.offset_retention_ms).unwrap_or(i64::MAX);
        let before = now.wall_ms.saturating_sub(retention_ms);
        let mut rows = Vec::new();
        let mut gone = Vec::new();
        // A group with a write under way is not judged by what memory says of it.
        let busy: Vec<Text> = self
            .writes
            .waiting
            .values()
            .filter_map(Write::group_id)
            .cloned()
            .collect();
        for (group_id, entry) in &mut self.groups {
            if busy.contains(group_id) {
                continue;
            }
            let is_empty = entry.group.state == GroupState::Empty;
            let empty_since = entry.group.empty_since_ms;
            entry.offsets.retain(|partition, committed| {
                let aged = is_empty && committed.committed_at_ms.max(empty_since) < before;
                let keep = partition_exists(*partition) && !aged;
                if !keep {
                    rows.push(row::offset_deleted(group_id, *partition));
                }
                keep
            });
            if is_empty && entry.offsets.is_empty() && entry.group.pending.is_empty() {
                gone.push(group_id.clone());
            }
        }
        for group_id in gone {
            rows.extend(self.forget(&group_id));
        }
        if !rows.is_empty() {
            self.open_turn(now, effects).persist(rows, Write::Unwatched);
        }
    }

    pub(crate) fn describe(&self, group_id: &Text) -> Option<Description> {
        self.groups
            .get(group_id)
            .map(|entry| entry.group.describe(group_id))
    }

    pub(crate) fn descriptions(&self) -> impl Iterator<Item = Description> {
        self.groups
            .iter()
            .map(|(group_id, entry)| entry.group.describe(group_id))
    }

    /// What the group has committed, in no particular order.
    pub(crate) fn offsets(
        &self,
        group_id: &Text,
    ) -> impl Iterator<Item = (PartitionId, &Committed)> {
        self.groups
            .get(group_id)
            .into_iter()
            .flat_map(|entry| entry.offsets.iter().map(|(id, committed)| (*id, committed)))
    }

    pub(crate) fn offset(&self, group_id: &Text, partition: PartitionId) -> Option<&Committed> {
        self.groups.get(group_id)?.offsets.get(&partition)
    }

    // --- within ---

    fn is_full(&self, group_id: &Text) -> bool {
        !self.groups.contains_key(group_id) && self.groups.len() >= self.limits.groups_max
    }

    fn is_busy(&self, group_id: &Text) -> bool {
        self.writes
            .waiting
            .values()
            .any(|write| write.group_id() == Some(group_id))
    }

    fn entry(&mut self, group_id: &Text) -> &mut Entry {
        let floor = self.generation_floor;
        self.groups
            .entry(group_id.clone())
            .or_insert_with(|| Entry {
                group: Group::new(floor),
                offsets: Offsets::default(),
                wake_at: None,
            })
    }

    /// Takes a group out; the rows that say so, with the floor its generation leaves behind.
    fn forget(&mut self, group_id: &Text) -> Vec<RowChange> {
        let Some(entry) = self.groups.remove(group_id) else {
            return Vec::new();
        };
        if let Some(at) = entry.wake_at {
            self.wakes.remove(&(at, group_id.clone()));
        }
        let mut rows: Vec<RowChange> = entry
            .offsets
            .keys()
            .map(|id| row::offset_deleted(group_id, *id))
            .collect();
        rows.push(row::group_deleted(group_id));
        if entry.group.generation > self.generation_floor {
            self.generation_floor = entry.group.generation;
            rows.push(row::generation_floor(self.shard, self.generation_floor));
        }
        rows
    }

    fn open_turn<'a>(&'a mut self, now: Now, effects: &'a mut Vec<Effect>) -> Turn<'a> {
        Turn {
            now,
            limits: &self.limits,
            effects,
            writes: &mut self.writes,
        }
    }

    fn turn_if_there(
        &mut self,
        now: Now,
        group_id: &Text,
        effects: &mut Vec<Effect>,
        input: impl FnOnce(&mut Group, &mut Turn<'_>),
    ) {
        if self.groups.contains_key(group_id) {
            self.turn(now, group_id, effects, input);
        }
    }

    /// One input to one group, then what is due by it, then its next waking.
    fn turn(
        &mut self,
        now: Now,
        group_id: &Text,
        effects: &mut Vec<Effect>,
        input: impl FnOnce(&mut Group, &mut Turn<'_>),
    ) {
        self.entry(group_id);
        let Some(entry) = self.groups.get_mut(group_id) else {
            return;
        };
        let mut turn = Turn {
            now,
            limits: &self.limits,
            effects,
            writes: &mut self.writes,
        };
        input(&mut entry.group, &mut turn);
        entry.group.tick(&mut turn, group_id);
        self.reschedule(group_id);
    }

    fn reschedule(&mut self, group_id: &Text) {
        let Some(entry) = self.groups.get_mut(group_id) else {
            return;
        };
        let deadline = entry.group.deadline();
        if deadline == entry.wake_at {
            return;
        }
        if let Some(at) = entry.wake_at.take() {
            self.wakes.remove(&(at, group_id.clone()));
        }
        if let Some(at) = deadline {
            self.wakes.insert((at, group_id.clone()));
        }
        entry.wake_at = deadline;
    }
}

impl Write {
    fn group_id(&self) -> Option<&Text> {
        match self {
            Self::Generation { group_id, .. }
            | Self::Assignment { group_id, .. }
            | Self::Replaced { group_id, .. }
            | Self::Offsets { group_id, .. }
            | Self::OffsetsDeleted { group_id, .. } => Some(group_id),
            Self::GroupDeleted { .. } | Self::Unwatched => None,
        }
    }
}

fn settled(joined: Joined, outcome: ErrorCode) -> Joined {
    if outcome.is_error() {
        Joined::refused(outcome, joined.member_id)
    } else {
        joined
    }
}

fn is_name(name: &Text) -> bool {
    !name.is_empty() && name.len() <= NAME_BYTES_MAX
}
