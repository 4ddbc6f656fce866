//! One group: its members and the generation they are in.
//!
//! For: joining, syncing, heartbeats, leaving, and every timeout between them.
//! Not for: which groups exist, committed offsets, rows on disk (`coordinator`, `row`).
//! Holds: at most one rebalance is under way; a member waits with at most one JoinGroup and one
//! SyncGroup; a static member's name has one holder (KIP-345).

use std::collections::BTreeMap;

use bytes::Bytes;
use hashbrown::HashMap;

use super::{
    Answer, Caller, Description, Join, Joined, MemberDescription, Now, Sync, Synced, Ticket, Turn,
    Write, row,
};
use crate::error_code::ErrorCode;
use crate::options::GroupLimits;
use crate::view::GroupState;
use crate::wire::Text;

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Member {
    pub(super) id: Text,
    pub(super) instance_id: Option<Text>,
    pub(super) client_id: Text,
    pub(super) client_host: Text,
    pub(super) session_timeout_ms: u64,
    pub(super) rebalance_timeout_ms: u64,
    /// Strategies in the order of preference, each with the subscription.
    pub(super) protocols: Vec<(Text, Bytes)>,
    pub(super) assignment: Bytes,
    pub(super) awaiting_join: Option<Ticket>,
    pub(super) awaiting_sync: Option<Ticket>,
    pub(super) session_deadline_ms: u64,
}

impl Member {
    fn subscription(&self, protocol: Option<&Text>) -> Bytes {
        self.protocols
            .iter()
            .find(|(name, _)| Some(name) == protocol)
            .map(|(_, subscription)| subscription.clone())
            .unwrap_or_default()
    }

    fn is_waiting(&self) -> bool {
        self.awaiting_join.is_some() || self.awaiting_sync.is_some()
    }

    fn heard(&mut self, now: Now) {
        self.session_deadline_ms = now.mono_ms.saturating_add(self.session_timeout_ms);
    }
}

#[derive(Debug)]
pub(super) struct Group {
    pub(super) state: GroupState,
    pub(super) generation: i32,
    pub(super) protocol_type: Option<Text>,
    pub(super) protocol: Option<Text>,
    pub(super) leader: Option<Text>,
    pub(super) members: BTreeMap<Text, Member>,
    /// Instance id to member id.
    pub(super) static_members: HashMap<Text, Text, foldhash::fast::RandomState>,
    /// Ids told to members that have not joined with them yet, and until when they may.
    pub(super) pending: BTreeMap<Text, u64>,
    /// Wall clock since when the group has no members; 0 if it never had any.
    pub(super) empty_since_ms: i64,
    /// While preparing: when those who have not joined are left behind.
    rebalance_deadline_ms: u64,
    /// While an empty group gathers its first members: when it looks around, and at the latest.
    gathering: Option<(u64, u64)>,
    /// While completing: when members that have not asked for their assignment are left behind.
    sync_deadline_ms: u64,
    /// The leader's assignment is on its way to the disk.
    assigning: bool,
}

impl Group {
    pub(super) fn new(generation: i32) -> Self {
        Self {
            state: GroupState::Empty,
            generation,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            static_members: HashMap::default(),
            pending: BTreeMap::new(),
            empty_since_ms: 0,
            rebalance_deadline_ms: 0,
            gathering: None,
            sync_deadline_ms: 0,
            assigning: false,
        }
    }

    /// After a restart every member has its whole session to come back.
    pub(super) fn restore_sessions(&mut self, now: Now) {
        for member in self.members.values_mut() {
            member.heard(now);
        }
    }

    // --- joining ---

    pub(super) fn join(&mut self, turn: &mut Turn<'_>, ticket: Ticket, join: Join) {
        if let Err(error) = self.check_join(turn.limits, &join) {
            let member_id = join.member_id.clone();
            return turn.answer(ticket, Answer::Joined(Joined::refused(error, member_id)));
        }
        if join.member_id.is_empty() {
            self.join_newcomer(turn, ticket, join);
        } else if self.pending.remove(&join.member_id).is_some() {
            let id = join.member_id.clone();
            self.admit(turn, ticket, id, join);
        } else {
            self.rejoin(turn, ticket, join);
        }
    }

    fn check_join(&self, limits: &GroupLimits, join: &Join) -> Result<(), ErrorCode> {
        let timeouts = limits.session_timeout_ms_min..=limits.session_timeout_ms_max;
        if !timeouts.contains(&join.session_timeout_ms) {
            return Err(ErrorCode::InvalidSessionTimeout);
        }
        let subscriptions: usize = join
            .protocols
            .iter()
            .map(|(name, s)| name.len() + s.len())
            .sum();
        if subscriptions > limits.metadata_bytes_max {
            return Err(ErrorCode::PolicyViolation);
        }
        let others = || {
            self.members
                .values()
                .filter(|member| member.id != join.member_id)
        };
        let supported =
            |name: &Text| others().all(|other| other.protocols.iter().any(|(own, _)| own == name));
        if join.protocol_type.is_empty()
            || join.protocols.is_empty()
            || (others().next().is_some()
                && (self.protocol_type.as_ref() != Some(&join.protocol_type)
                    || !join.protocols.iter().any(|(name, _)| supported(name))))
        {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        let is_member = self.members.contains_key(&join.member_id)
            || self.pending.contains_key(&join.member_id)
            || join
                .instance_id
                .as_ref()
                .is_some_and(|id| self.static_members.contains_key(id));
        if !is_member
            && join.member_id.is_empty()
            && self.members.len() + self.pending.len() >= limits.members_max
        {
            return Err(ErrorCode::GroupMaxSizeReached);
        }
        Ok(())
    }

    fn join_newcomer(&mut self, turn: &mut Turn<'_>, ticket: Ticket, join: Join) {
        let fresh = join.fresh_member_id.clone();
        if let Some(instance_id) = &join.instance_id {
            return match self.static_members.get(instance_id).cloned() {
                Some(held) => self.replace(turn, ticket, &held, join),
                None => self.admit(turn, ticket, fresh, join),
            };
        }
        if join.member_id_required {
            let until = turn.now.mono_ms.saturating_add(join.session_timeout_ms);
            self.pending.insert(fresh.clone(), until);
            let told = Joined::refused(ErrorCode::MemberIdRequired, fresh);
            return turn.answer(ticket, Answer::Joined(told));
        }
        self.admit(turn, ticket, fresh, join);
    }

    fn admit(&mut self, turn: &mut Turn<'_>, ticket: Ticket, id: Text, join: Join) {
        if let Some(instance_id) = &join.instance_id {
            self.static_members.insert(instance_id.clone(), id.clone());
        }
        if self.members.is_empty() {
            self.protocol_type = Some(join.protocol_type.clone());
        }
        let mut member = Member {
            id: id.clone(),
            instance_id: join.instance_id,
            client_id: join.client_id,
            client_host: join.client_host,
            session_timeout_ms: join.session_timeout_ms,
            rebalance_timeout_ms: join.rebalance_timeout_ms,
            protocols: join.protocols,
            assignment: Bytes::new(),
            awaiting_join: Some(ticket),
            awaiting_sync: None,
            session_deadline_ms: 0,
        };
        member.heard(turn.now);
        self.members.insert(id, member);
        self.prepare(turn);
        if let Some((until, latest)) = &mut self.gathering {
            let delay = turn.limits.initial_rebalance_delay_ms;
            *until = turn.now.mono_ms.saturating_add(delay).min(*latest);
        }
        self.try_complete(turn);
    }

    fn rejoin(&mut self, turn: &mut Turn<'_>, ticket: Ticket, join: Join) {
        let caller = Caller {
            group_id: join.group_id.clone(),
            member_id: join.member_id.clone(),
            instance_id: join.instance_id.clone(),
            generation: self.generation,
        };
        if let Err(error) = self.check_caller(&caller) {
            return turn.answer(
                ticket,
                Answer::Joined(Joined::refused(error, join.member_id)),
            );
        }
        let state = self.state;
        let is_leader = self.leader.as_ref() == Some(&join.member_id);
        let Some(member) = self.members.get_mut(&join.member_id) else {
            return;
        };
        let changed = member.protocols != join.protocols;
        member.protocols = join.protocols;
        member.session_timeout_ms = join.session_timeout_ms;
        member.rebalance_timeout_ms = join.rebalance_timeout_ms;
        member.heard(turn.now);
        let rebalance = match state {
            // A leader that joins again wants a new assignment, whatever its reason.
            GroupState::Stable => changed || is_leader,
            GroupState::CompletingRebalance => changed,
            GroupState::PreparingRebalance => true,
            GroupState::Empty => false,
        };
        if !rebalance {
            // Its answer was lost; nothing changed since.
            let joined = self.joined(&join.member_id);
            return turn.answer(ticket, Answer::Joined(joined));
        }
        let earlier = member.awaiting_join.replace(ticket);
        if let Some(earlier) = earlier {
            let stale = Joined::refused(ErrorCode::UnknownMemberId, join.member_id);
            turn.answer(earlier, Answer::Joined(stale));
        }
        self.prepare(turn);
        self.try_complete(turn);
    }

    /// A static member came back under a new id: it takes over the old one's place.
    fn replace(&mut self, turn: &mut Turn<'_>, ticket: Ticket, held: &Text, join: Join) {
        let Some(mut member) = self.members.remove(held) else {
            return;
        };
        let id = join.fresh_member_id.clone();
        if let Some(waiting) = member.awaiting_join.take() {
            let fenced = Joined::refused(ErrorCode::FencedInstanceId, held.clone());
            turn.answer(waiting, Answer::Joined(fenced));
        }
        if let Some(waiting) = member.awaiting_sync.take() {
            let fenced = Synced::refused(ErrorCode::FencedInstanceId);
            turn.answer(waiting, Answer::Synced(fenced));
        }
        let was_leader = self.leader.as_ref() == Some(held);
        if was_leader {
            self.leader = Some(id.clone());
        }
        if let Some(instance_id) = &join.instance_id {
            self.static_members.insert(instance_id.clone(), id.clone());
        }
        let selected = self.protocol.clone();
        let before = member.subscription(selected.as_ref());
        member.id = id.clone();
        member.client_id = join.client_id;
        member.client_host = join.client_host;
        member.session_timeout_ms = join.session_timeout_ms;
        member.rebalance_timeout_ms = join.rebalance_timeout_ms;
        member.protocols = join.protocols;
        member.heard(turn.now);
        let unchanged = before == member.subscription(selected.as_ref());
        self.members.insert(id.clone(), member);
        if self.state == GroupState::Stable
            && unchanged
            && (!was_leader || join.can_skip_assignment)
        {
            let mut joined = self.joined(&id);
            joined.skip_assignment = was_leader;
            let row = row::assigned_group(&join.group_id, self);
            let group_id = join.group_id;
            return turn.persist(
                vec![row],
                Write::Replaced {
                    group_id,
                    ticket,
                    joined,
                },
            );
        }
        if let Some(member) = self.members.get_mut(&id) {
            member.awaiting_join = Some(ticket);
        }
        self.prepare(turn);
        self.try_complete(turn);
    }

    // --- the rebalance ---

    /// Begins a rebalance unless one is gathering already.
    fn prepare(&mut self, turn: &mut Turn<'_>) {
        match self.state {
            GroupState::PreparingRebalance => return,
            GroupState::Empty => {
                let delay = turn.limits.initial_rebalance_delay_ms;
                let latest = turn.now.mono_ms.saturating_add(self.rebalance_timeout_ms());
                self.gathering = Some((turn.now.mono_ms.saturating_add(delay).min(latest), latest));
            }
            GroupState::CompletingRebalance => {
                self.refuse_syncs(turn, ErrorCode::RebalanceInProgress);
            }
            GroupState::Stable => {}
        }
        self.assigning = false;
        self.state = GroupState::PreparingRebalance;
        self.rebalance_deadline_ms = turn.now.mono_ms.saturating_add(self.rebalance_timeout_ms());
    }

    fn rebalance_timeout_ms(&self) -> u64 {
        self.members
            .values()
            .map(|member| member.rebalance_timeout_ms)
            .max()
            .unwrap_or(0)
    }

    fn refuse_syncs(&mut self, turn: &mut Turn<'_>, error: ErrorCode) {
        for member in self.members.values_mut() {
            member.assignment = Bytes::new();
            if let Some(ticket) = member.awaiting_sync.take() {
                member.heard(turn.now);
                turn.answer(ticket, Answer::Synced(Synced::refused(error)));
            }
        }
    }

    /// Marks the rebalance complete when all are there; `complete` then names the generation.
    fn try_complete(&mut self, turn: &mut Turn<'_>) {
        if self.state != GroupState::PreparingRebalance || self.gathering.is_some() {
            return;
        }
        let all_joined = self
            .members
            .values()
            .all(|member| member.awaiting_join.is_some());
        if all_joined && self.pending.is_empty() {
            self.rebalance_deadline_ms = turn.now.mono_ms;
        }
    }

    /// Ends the gathering of members. Those who did not join again are left behind, but static
    /// ones, which have until their session ends (KIP-345).
    fn complete(&mut self, turn: &mut Turn<'_>, group_id: &Text) {
        self.gathering = None;
        let late: Vec<Text> = self
            .members
            .values()
            .filter(|member| member.awaiting_join.is_none() && member.instance_id.is_none())
            .map(|member| member.id.clone())
            .collect();
        for id in &late {
            self.remove(id);
        }
        let joined = |member: &&Member| member.awaiting_join.is_some();
        if !self.members.is_empty() && !self.members.values().any(|member| joined(&member)) {
            // Only static members, all away: wait on for one of them or for their sessions' end.
            self.rebalance_deadline_ms = turn
                .now
                .mono_ms
                .saturating_add(self.rebalance_timeout_ms().max(1));
            return;
        }
        self.generation = self.generation.saturating_add(1);
        if self.members.is_empty() {
            return self.become_empty(turn, group_id);
        }
        let leads = self
            .leader
            .as_ref()
            .and_then(|leader| self.members.get(leader));
        if leads.is_none_or(|leader| !joined(&leader)) {
            let heir = self
                .members
                .values()
                .find(joined)
                .map(|member| member.id.clone());
            self.leader = heir;
        }
        self.protocol = self.select_protocol();
        self.state = GroupState::CompletingRebalance;
        self.assigning = false;
        self.sync_deadline_ms = turn.now.mono_ms.saturating_add(self.rebalance_timeout_ms());
        let mut answers = Vec::with_capacity(self.members.len());
        let ids: Vec<Text> = self.members.keys().cloned().collect();
        for id in ids {
            let joined = self.joined(&id);
            if let Some(member) = self.members.get_mut(&id) {
                member.assignment = Bytes::new();
                if let Some(ticket) = member.awaiting_join.take() {
                    member.heard(turn.now);
                    answers.push((ticket, joined));
                }
            }
        }
        let row = row::group(group_id, self);
        let (group_id, generation) = (group_id.clone(), self.generation);
        turn.persist(
            vec![row],
            Write::Generation {
                group_id,
                generation,
                answers,
            },
        );
    }

    fn become_empty(&mut self, turn: &mut Turn<'_>, group_id: &Text) {
        self.state = GroupState::Empty;
        self.gathering = None;
        self.protocol = None;
        self.leader = None;
        self.empty_since_ms = turn.now.wall_ms;
        let row = row::group(group_id, self);
        turn.persist(vec![row], Write::Unwatched);
    }

    /// Of the strategies all members know, the one most of them like best.
    fn select_protocol(&self) -> Option<Text> {
        let first = self.members.values().next()?;
        let candidates: Vec<&Text> = first
            .protocols
            .iter()
            .map(|(name, _)| name)
            .filter(|name| {
                self.members
                    .values()
                    .all(|member| member.protocols.iter().any(|(own, _)| own == *name))
            })
            .collect();
        let votes = |candidate: &Text| {
            self.members
                .values()
                .filter_map(|member| {
                    member
                        .protocols
                        .iter()
                        .map(|(name, _)| name)
                        .find(|n| candidates.contains(n))
                })
                .filter(|choice| *choice == candidate)
                .count()
        };
        // `max_by_key` keeps the last of equals; reversed, the first member's preference decides.
        candidates
            .iter()
            .rev()
            .max_by_key(|candidate| votes(candidate))
            .map(|name| (*name).clone())
    }

    /// What a member of this generation is told.
    fn joined(&self, member_id: &Text) -> Joined {
        let leader = self.leader.clone().unwrap_or_default();
        let members = if leader == *member_id {
            self.members
                .values()
                .map(|member| {
                    let subscription = member.subscription(self.protocol.as_ref());
                    (member.id.clone(), member.instance_id.clone(), subscription)
                })
                .collect()
        } else {
            Vec::new()
        };
        Joined {
            error: ErrorCode::None,
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader,
            member_id: member_id.clone(),
            skip_assignment: false,
            members,
        }
    }

    // --- syncing ---

    pub(super) fn sync(&mut self, turn: &mut Turn<'_>, ticket: Ticket, sync: Sync) {
        let refused = |error| Answer::Synced(Synced::refused(error));
        if let Err(error) = self.check_caller(&sync.caller) {
            return turn.answer(ticket, refused(error));
        }
        let differs = |given: &Option<Text>, own: &Option<Text>| given.is_some() && given != own;
        if differs(&sync.protocol_type, &self.protocol_type)
            || differs(&sync.protocol, &self.protocol)
        {
            return turn.answer(ticket, refused(ErrorCode::InconsistentGroupProtocol));
        }
        match self.state {
            GroupState::Empty => turn.answer(ticket, refused(ErrorCode::UnknownMemberId)),
            GroupState::PreparingRebalance => {
                turn.answer(ticket, refused(ErrorCode::RebalanceInProgress));
            }
            GroupState::Stable => {
                self.heard(turn.now, &sync.caller.member_id);
                let synced = self.synced(&sync.caller.member_id);
                turn.answer(ticket, Answer::Synced(synced));
            }
            GroupState::CompletingRebalance => self.sync_completing(turn, ticket, sync),
        }
    }

    fn sync_completing(&mut self, turn: &mut Turn<'_>, ticket: Ticket, sync: Sync) {
        let largest = sync
            .assignments
            .iter()
            .map(|(_, assignment)| assignment.len())
            .max();
        if largest.unwrap_or(0) > turn.limits.metadata_bytes_max {
            let refused = Synced::refused(ErrorCode::PolicyViolation);
            return turn.answer(ticket, Answer::Synced(refused));
        }
        let leads = self.leader.as_ref() == Some(&sync.caller.member_id);
        if let Some(member) = self.members.get_mut(&sync.caller.member_id) {
            member.heard(turn.now);
            if let Some(earlier) = member.awaiting_sync.replace(ticket) {
                let stale = Synced::refused(ErrorCode::UnknownMemberId);
                turn.answer(earlier, Answer::Synced(stale));
            }
        }
        if !leads || self.assigning {
            return;
        }
        for (id, assignment) in sync.assignments {
            if let Some(member) = self.members.get_mut(&id) {
                member.assignment = assignment;
            }
        }
        self.assigning = true;
        let row = row::assigned_group(&sync.caller.group_id, self);
        let (group_id, generation) = (sync.caller.group_id, self.generation);
        turn.persist(
            vec![row],
            Write::Assignment {
                group_id,
                generation,
            },
        );
    }

    /// The generation's row is on disk, or is not and never was told to anybody.
    pub(super) fn generation_persisted(&mut self, turn: &mut Turn<'_>, generation: i32, ok: bool) {
        if !ok && self.generation == generation && self.state == GroupState::CompletingRebalance {
            self.prepare(turn);
        }
    }

    /// The assignment is on disk, or is not and the members have to join again.
    pub(super) fn assignment_persisted(&mut self, turn: &mut Turn<'_>, generation: i32, ok: bool) {
        let current = self.generation == generation
            && self.state == GroupState::CompletingRebalance
            && self.assigning;
        if !current {
            return;
        }
        if !ok {
            self.refuse_syncs(turn, ErrorCode::CoordinatorNotAvailable);
            return self.prepare(turn);
        }
        self.assigning = false;
        self.state = GroupState::Stable;
        let waiting: Vec<(Text, Ticket)> = self
            .members
            .values_mut()
            .filter_map(|member| {
                let ticket = member.awaiting_sync.take()?;
                member.heard(turn.now);
                Some((member.id.clone(), ticket))
            })
            .collect();
        for (id, ticket) in waiting {
            let synced = self.synced(&id);
            turn.answer(ticket, Answer::Synced(synced));
        }
    }

    fn synced(&self, member_id: &Text) -> Synced {
        Synced {
            error: ErrorCode::None,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            assignment: self
                .members
                .get(member_id)
                .map(|member| member.assignment.clone())
                .unwrap_or_default(),
        }
    }

    // --- staying and leaving ---

    /// Whether `caller` is a member of the current generation.
    pub(super) fn check_caller(&self, caller: &Caller) -> Result<(), ErrorCode> {
        if let Some(instance_id) = &caller.instance_id {
            match self.static_members.get(instance_id) {
                None => return Err(ErrorCode::UnknownMemberId),
                Some(held) if *held != caller.member_id => return Err(ErrorCode::FencedInstanceId),
                Some(_) => {}
            }
        }
        if !self.members.contains_key(&caller.member_id) {
            return Err(ErrorCode::UnknownMemberId);
        }
        if caller.generation != self.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        Ok(())
    }

    pub(super) fn heartbeat(&mut self, now: Now, caller: &Caller) -> ErrorCode {
        if let Err(error) = self.check_caller(caller) {
            return error;
        }
        self.heard(now, &caller.member_id);
        match self.state {
            GroupState::PreparingRebalance => ErrorCode::RebalanceInProgress,
            GroupState::Empty | GroupState::CompletingRebalance | GroupState::Stable => {
                ErrorCode::None
            }
        }
    }

    pub(super) fn heard(&mut self, now: Now, member_id: &Text) {
        if let Some(member) = self.members.get_mut(member_id) {
            member.heard(now);
        }
    }

    pub(super) fn leave(
        &mut self,
        turn: &mut Turn<'_>,
        member_id: &Text,
        instance_id: Option<&Text>,
    ) -> ErrorCode {
        let id = match instance_id.map(|id| self.static_members.get(id)) {
            Some(None) => return ErrorCode::UnknownMemberId,
            // An administrator removes a static member by its name alone.
            Some(Some(held)) if member_id.is_empty() || held == member_id => held.clone(),
            Some(Some(_)) => return ErrorCode::FencedInstanceId,
            None => member_id.clone(),
        };
        if self.pending.remove(&id).is_some() {
            self.try_complete(turn);
            return ErrorCode::None;
        }
        if !self.members.contains_key(&id) {
            return ErrorCode::UnknownMemberId;
        }
        self.drop_member(turn, &id, ErrorCode::UnknownMemberId);
        ErrorCode::None
    }

    /// Removes a member and rebalances what is left.
    fn drop_member(&mut self, turn: &mut Turn<'_>, id: &Text, told: ErrorCode) {
        let Some(member) = self.remove(id) else {
            return;
        };
        if let Some(ticket) = member.awaiting_join {
            turn.answer(ticket, Answer::Joined(Joined::refused(told, id.clone())));
        }
        if let Some(ticket) = member.awaiting_sync {
            turn.answer(ticket, Answer::Synced(Synced::refused(told)));
        }
        self.prepare(turn);
        self.try_complete(turn);
    }

    fn remove(&mut self, id: &Text) -> Option<Member> {
        let member = self.members.remove(id)?;
        if let Some(instance_id) = &member.instance_id
            && self.static_members.get(instance_id) == Some(id)
        {
            self.static_members.remove(instance_id);
        }
        Some(member)
    }

    // --- time ---

    /// Does what is due. Calling it too early or too often changes nothing.
    pub(super) fn tick(&mut self, turn: &mut Turn<'_>, group_id: &Text) {
        let now = turn.now.mono_ms;
        self.pending.retain(|_, until| *until > now);
        let expired: Vec<Text> = self
            .members
            .values()
            .filter(|member| !member.is_waiting() && member.session_deadline_ms <= now)
            .map(|member| member.id.clone())
            .collect();
        for id in expired {
            self.drop_member(turn, &id, ErrorCode::UnknownMemberId);
        }
        if self.state == GroupState::CompletingRebalance
            && self.sync_deadline_ms <= now
            && !self.assigning
        {
            let silent: Vec<Text> = self
                .members
                .values()
                .filter(|member| member.awaiting_sync.is_none())
                .map(|member| member.id.clone())
                .collect();
            for id in silent {
                self.drop_member(turn, &id, ErrorCode::UnknownMemberId);
            }
        }
        if self.gathering.is_some_and(|(until, _)| until <= now) {
            self.gathering = None;
        }
        self.try_complete(turn);
        let due = self.state == GroupState::PreparingRebalance && self.gathering.is_none();
        if due && self.rebalance_deadline_ms <= now {
            self.complete(turn, group_id);
        }
    }

    /// When `tick` has something to do, in `Now::mono_ms`.
    pub(super) fn deadline(&self) -> Option<u64> {
        let sessions = self
            .members
            .values()
            .filter(|member| !member.is_waiting())
            .map(|member| member.session_deadline_ms);
        let rebalance = match (self.state, self.gathering) {
            (GroupState::PreparingRebalance, Some((until, _))) => Some(until),
            (GroupState::PreparingRebalance, None) => Some(self.rebalance_deadline_ms),
            (GroupState::CompletingRebalance, _) if !self.assigning => Some(self.sync_deadline_ms),
            (GroupState::Empty | GroupState::CompletingRebalance | GroupState::Stable, _) => None,
        };
        sessions
            .chain(self.pending.values().copied())
            .chain(rebalance)
            .min()
    }

    pub(super) fn describe(&self, group_id: &Text) -> Description {
        Description {
            group_id: group_id.clone(),
            state: self.state,
            generation: self.generation,
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            protocol: match self.state {
                GroupState::Stable => self.protocol.clone().unwrap_or_default(),
                GroupState::Empty
                | GroupState::PreparingRebalance
                | GroupState::CompletingRebalance => Text::default(),
            },
            members: self
                .members
                .values()
                .map(|member| MemberDescription {
                    member_id: member.id.clone(),
                    instance_id: member.instance_id.clone(),
                    client_id: member.client_id.clone(),
                    client_host: member.client_host.clone(),
                    subscription: member.subscription(self.protocol.as_ref()),
                    assignment: member.assignment.clone(),
                })
                .collect(),
        }
    }
}
