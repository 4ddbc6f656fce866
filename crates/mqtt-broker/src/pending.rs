//! Commits that are asked for and not answered, and what follows each.
//!
//! For: naming a [`Commit`] and keeping its place, telling whoever waits for it how it ended, and
//!   gathering the QoS 2 steps of one round into one commit. A publisher's PUBACK or PUBREC is
//!   decided here (`decided`) and written in its turn by `connection` (`decide`, `send_ack`).
//! Not for: what a commit contains; the exchanges (`session::*`) say that.
//! Holds: commits are answered in the order they were asked; what is promised follows the answer.

use std::sync::Arc;

use bytes::Bytes;
use headwater_mqtt_codec::{
    ConnAckReason, DisconnectReason, PacketId, PubAckReason, QoS, Unsubscribe,
};

use crate::commit::{Commit, Control, Targets};
use crate::connection::{AckSlot, Stage};
use crate::matching::Target;
use crate::owed::Owed;
use crate::reasons::Rejection;
use crate::rows;
use crate::session::Session;
use crate::session::connect::Dress;
use crate::session::end::End;
use crate::session::share::Given;
use crate::session::subscribe::Granted;
use crate::{
    Change, CommitId, ConnectionId, Effect, Lane, Message, Now, Receipt, Refusal, Shard, Table,
    Ticket,
};

const UNAVAILABLE: Rejection = Rejection::new(
    ConnAckReason::ServerUnavailable,
    "the log takes no session now; try again later",
);

/// What follows a commit.
#[derive(Debug)]
pub(crate) enum Then {
    Nothing,
    /// A message that nobody waits for.
    Counted,
    /// A Retained Message that a Session is owed.
    OwedRetained(Box<(Target, Arc<Message>)>),
    Claimed,
    Acknowledge {
        qos: QoS,
        id: PacketId,
        reason: PubAckReason,
    },
    Complete {
        id: PacketId,
    },
    Subscribed(Box<Granted>),
    Unsubscribed(Box<Unsubscribe>),
    Connected(Box<Dress>),
    /// The Session has lost its connection, which is named when it said DISCONNECT.
    Left(Option<ConnectionId>),
    /// Its Will is published.
    Willed(Option<ConnectionId>),
    /// This one of those that wait for the log is published.
    Late(u64),
    /// It has ended.
    Ended(Option<ConnectionId>),
    /// An expired Retained Message is gone.
    Swept,
    Rows(Vec<RowStep>),
    Injected(Ticket),
    /// A member is owed what only its group's memory had.
    HandedOver(Given),
    /// A message is its group's again.
    GivenBack(Given, u64),
}

/// A QoS 2 step to a Session that outlives its connection: committed, then seen.
#[derive(Debug)]
pub(crate) struct RowStep {
    pub(crate) slot: usize,
    pub(crate) number: u64,
    pub(crate) id: u16,
    pub(crate) change: Change,
    /// The group that had the message no longer does.
    handed: Option<Change>,
    /// Which of that group's, and its sequence.
    taken_over: Option<(Given, u64)>,
    pub(crate) step: Step,
}

impl RowStep {
    /// A step of a message that this Session has, or takes over from a group.
    pub(crate) fn new(session: &Session, slot: usize, id: u16, owed: &Owed, step: Step) -> Self {
        let number = session.number();
        let is_sent = matches!(step, Step::Send(_));
        let takes_over = is_sent && !owed.is_own();
        let handed = takes_over.then(|| rows::handed(owed.group, owed.sequence));
        let turn = Shard::given_of(session, id).filter(|_| takes_over);
        let taken_over = turn.map(|turn| (turn, owed.sequence));
        let own = || rows::outbound(number, id, owed, !is_sent);
        let (change, handed) = match handed {
            // All that the log has to know of a Session that ends with its connection.
            Some(handed) if !session.is_persistent() => (handed, None),
            handed => (own(), handed),
        };
        Self {
            slot,
            number,
            id,
            change,
            handed,
            taken_over,
            step,
        }
    }

    pub(crate) fn taken_over(self) -> Option<(Given, u64)> {
        self.taken_over
    }

    /// Whether the Session has a row of its own for it.
    pub(crate) fn outlives_connection(&self) -> bool {
        self.change.table == Table::Outbound
    }

    /// Whether it takes a message over from a group.
    pub(crate) fn takes_over(&self) -> bool {
        self.handed.is_some() || self.change.table == Table::Handed
    }
}

#[derive(Debug)]
pub(crate) enum Step {
    /// PUBLISH goes out.
    Send(Arc<Message>),
    /// PUBREL goes out.
    Release,
}

/// A commit that is asked for and not answered.
#[derive(Debug)]
pub(crate) struct Pending {
    id: CommitId,
    connection: Option<(usize, ConnectionId)>,
    session: Option<(usize, u64)>,
    /// What it weighs.
    bytes: usize,
    floors: Vec<Taken>,
    then: Then,
}

/// What a commit writes of a Session besides what it is for; dirty again when it is refused.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) slot: usize,
    pub(crate) number: u64,
    pub(crate) finished: Vec<u16>,
    /// Of a group: sequences whose rows in `Table::Handed` go.
    pub(crate) handed: Vec<u64>,
    /// Its row too.
    pub(crate) row: bool,
}

/// A commit without its name.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    pub(crate) message: Option<Arc<Message>>,
    pub(crate) routed: bool,
    pub(crate) owed: Option<Bytes>,
    pub(crate) targets: Targets,
    pub(crate) retain: bool,
    pub(crate) if_latest: bool,
    pub(crate) changes: Vec<Change>,
    pub(crate) expects: Vec<Change>,
    pub(crate) expires: Option<Arc<Message>>,
    pub(crate) floors: Vec<Taken>,
    pub(crate) control: Option<Control>,
    pub(crate) ticket: Option<Ticket>,
    pub(crate) lane: Option<Lane>,
}

impl Draft {
    pub(crate) fn rows(changes: Vec<Change>) -> Self {
        Self {
            changes,
            ..Self::default()
        }
    }

    /// Bytes that wait in memory until it is answered.
    fn weight(&self) -> usize {
        let row = |change: &Change| change.key.len() + change.value.as_ref().map_or(0, Bytes::len);
        self.message.as_ref().map_or(0, |message| message.weight())
            + self.owed.as_ref().map_or(0, Bytes::len)
            + self.changes.iter().map(row).sum::<usize>()
    }
}

impl Shard {
    /// Asks for a commit.
    pub(crate) fn submit(
        &mut self,
        draft: Draft,
        at: Option<usize>,
        slot: Option<usize>,
        then: Then,
    ) -> CommitId {
        self.next_commit += 1;
        let id = CommitId(self.next_commit);
        let bytes = draft.weight();
        let connection = at.and_then(|at| {
            let connection = self.connections.get_mut(at)?;
            connection.pending += 1;
            connection.pending_bytes += bytes;
            Some((at, connection.id))
        });
        let session = slot.and_then(|slot| {
            let session = self.sessions.get_mut(slot)?;
            session.pending += 1;
            Some((slot, session.number()))
        });
        let Draft {
            message,
            routed,
            owed,
            targets,
            retain,
            if_latest,
            changes,
            expects,
            expires,
            floors,
            control,
            ticket,
            lane,
        } = draft;
        for taken in &floors {
            if let Some(session) = self.sessions.get_mut(taken.slot) {
                session.pending += 1;
            }
        }
        self.pending.push_back(Pending {
            id,
            connection,
            session,
            bytes,
            floors,
            then,
        });
        self.add_pending(at, bytes);
        let origin = self.index;
        let commit = Commit {
            origin,
            id,
            message,
            routed,
            owed,
            targets,
            retain,
            if_latest,
            changes,
            expects,
            expires,
            control,
            ticket,
            lane,
        };
        self.effects.push(Effect::Commit(Box::new(commit)));
        id
    }

    pub(crate) fn committed(&mut self, now: Now, id: CommitId, outcome: Result<Receipt, Refusal>) {
        let Some(pending) = self.pending.pop_front() else {
            return;
        };
        // Otherwise a Client would be told that what lies nowhere is stored.
        assert_eq!(pending.id, id, "commits are answered in their order");
        if let Ok(Receipt {
            owed: Some(sequence),
            ..
        }) = outcome
        {
            self.next_sequence = self.next_sequence.max(sequence + 1);
        }
        let at = pending.connection.and_then(|(at, id)| {
            let connection = self.connections.get_mut(at).filter(|one| one.id == id)?;
            connection.pending -= 1;
            connection.pending_bytes -= pending.bytes;
            Some(at)
        });
        let slot = pending.session.and_then(|(slot, number)| {
            let session = self
                .sessions
                .get_mut(slot)
                .filter(|one| one.number() == number)?;
            session.pending -= 1;
            Some(slot)
        });
        self.take_pending(now, pending.bytes);
        let floors: Vec<usize> = pending
            .floors
            .into_iter()
            .filter_map(|taken| self.floor_done(taken, outcome.is_ok()))
            .collect();
        self.follow_up(now, id, at, slot, pending.then, outcome);
        for slot in floors {
            self.try_hand_over(slot);
        }
        if let Some(at) = at {
            self.resume(now, at);
        }
        if let Some(slot) = slot {
            self.wake_feeds(slot);
            self.try_hand_over(slot);
        }
    }

    fn follow_up(
        &mut self,
        now: Now,
        id: CommitId,
        at: Option<usize>,
        slot: Option<usize>,
        then: Then,
        outcome: Result<Receipt, Refusal>,
    ) {
        let outcome = outcome.map(|_| ());
        match then {
            Then::Nothing => {}
            Then::Counted => self.counts.refused += u64::from(outcome.is_err()),
            Then::OwedRetained(owed) => match (outcome, slot) {
                (Ok(()), _) => {}
                // It never takes that one.
                (Err(Refusal::TooLarge), _) | (Err(_), None) => self.counts.refused += 1,
                (Err(_), Some(slot)) => self.retained_refused(slot, owed.0, owed.1),
            },
            Then::Claimed => {
                if !self.arrivals.contains_key(&id) {
                    self.lost_claims.remove(&id);
                }
                if outcome.is_err()
                    && let Some(at) = at
                {
                    self.refuse_connect(now, at, UNAVAILABLE);
                }
            }
            Then::Acknowledge { qos, id, reason } => {
                self.decided(now, at, slot, qos, id, outcome.map(|()| reason));
            }
            Then::Complete { id } => self.released(now, at, slot, id, outcome),
            Then::Subscribed(granted) => {
                let Some(slot) = slot else {
                    return self.subscribed_nobody(&granted);
                };
                if let Err(reason) = self.subscribed(at, slot, *granted, outcome)
                    && let Some(at) = at
                {
                    self.close(now, at, Some(reason), End::Abnormal);
                }
            }
            Then::Unsubscribed(asked) => {
                if let Some(slot) = slot {
                    self.unsubscribed(now, at, slot, &asked, outcome);
                }
            }
            Then::Connected(dress) => {
                if let Some(slot) = slot {
                    self.connected(now, at, slot, *dress, outcome);
                }
            }
            Then::Left(said) => self.close_said(now, said, None),
            Then::Willed(said) => {
                if let Some(slot) = slot {
                    self.willed(now, slot, outcome);
                }
                self.close_said(now, said, None);
            }
            Then::Late(sequence) => {
                if let Some(slot) = slot {
                    self.late_done(now, slot, sequence, outcome);
                }
            }
            Then::Ended(said) => {
                if let Some(slot) = slot {
                    self.ended(now, slot, said, outcome);
                }
            }
            Then::Swept => self.swept(now, outcome),
            Then::Rows(steps) => self.rows_done(now, steps, outcome),
            Then::HandedOver(given) => self.handed_over(given, outcome),
            Then::GivenBack(given, sequence) => self.given_back(given, sequence, outcome),
            Then::Injected(ticket) => self.effects.push(Effect::Injected { ticket, outcome }),
        }
    }

    /// A PUBREL is committed, or refused.
    fn released(
        &mut self,
        now: Now,
        at: Option<usize>,
        slot: Option<usize>,
        id: PacketId,
        outcome: Result<(), Refusal>,
    ) {
        if let Some(session) = slot.and_then(|slot| self.sessions.get_mut(slot)) {
            match outcome {
                Ok(()) => session.inbound.remove(&id.value()),
                Err(_) => session.inbound.insert(id.value(), true),
            };
        }
        match (at, outcome) {
            (Some(at), Ok(())) => self.complete(at, id, true),
            // PUBCOMP has no code for this: the Client tries again on its next connection.
            (Some(at), Err(_)) => {
                let reason = Some(DisconnectReason::QuotaExceeded.into());
                self.close(now, at, reason, End::Abnormal);
            }
            (None, _) => {}
        }
    }

    /// A PUBLISH is committed, or refused.
    fn decided(
        &mut self,
        now: Now,
        at: Option<usize>,
        slot: Option<usize>,
        qos: QoS,
        id: PacketId,
        outcome: Result<PubAckReason, Refusal>,
    ) {
        if qos == QoS::ExactlyOnce
            && let Some(session) = slot.and_then(|slot| self.sessions.get_mut(slot))
        {
            match outcome {
                Ok(_) => session.inbound.insert(id.value(), true),
                Err(_) => session.inbound.remove(&id.value()),
            };
        }
        let Some(at) = at else { return };
        let Some(connection) = self.connections.get_mut(at) else {
            return;
        };
        let reason = match outcome {
            Ok(reason) => reason,
            Err(refusal) => {
                self.counts.refused += 1;
                match (refusal, connection.is_v5()) {
                    (Refusal::Full | Refusal::Backlog, true) => PubAckReason::QuotaExceeded,
                    (Refusal::TooLarge | Refusal::Failed, true) => {
                        PubAckReason::ImplementationSpecificError
                    }
                    // No negative answer exists: the Client resends on its next connection.
                    (Refusal::Full | Refusal::Backlog | Refusal::Failed, false) => {
                        return self.close(now, at, None, End::Abnormal);
                    }
                    // It would for ever: acknowledged all the same, as 3.3.5 of MQTT 3.1.1 allows.
                    (Refusal::TooLarge, false) => {
                        let undecided = |slot: &&AckSlot| slot.reason.is_none();
                        if connection.acks.iter().filter(undecided).count() == 1 {
                            // Nothing else went down with it, to be sent again behind what comes.
                            connection.lane = None;
                        }
                        PubAckReason::Success
                    }
                }
            }
        };
        if connection.stage == Stage::Live {
            connection.decide(reason);
            self.touch(at);
        }
    }

    /// Commits what QoS 2 steps of this round need in the log, with the floors of their Sessions.
    pub(crate) fn flush_rows(&mut self) {
        if !self.stalled.is_empty() {
            // Behind what the log refused before, which the sweep tries again.
            self.stalled.append(&mut self.row_steps);
            return;
        }
        let mut steps = std::mem::take(&mut self.row_steps);
        // A Session that is not here any more asks again when it is taken up.
        let sessions = &self.sessions;
        steps.retain(|step| {
            let session = sessions.get(step.slot);
            session.is_some_and(|one| {
                one.number() == step.number && (one.has_rows || step.takes_over()) && !one.unsettled
            })
        });
        if steps.is_empty() {
            return;
        }
        let mut draft = Draft::rows(Vec::with_capacity(steps.len()));
        for step in &steps {
            let Some(session) = self.sessions.get_mut(step.slot) else {
                continue;
            };
            session.pending += 1;
            if step.takes_over() {
                Self::note_asked(session, step.id, true);
            }
            // A floor and its finished identifiers first: the steps may use those again.
            session.take_floor(&mut draft);
        }
        for step in &steps {
            draft.changes.push(step.change.clone());
            let handed = step.handed.clone();
            draft
                .changes
                .extend(handed.filter(|_| !self.forgets_packet_ids));
        }
        // A later step is not to be seen before an earlier one that was refused.
        draft.lane = Some(self.row_lane.clone());
        self.submit(draft, None, None, Then::Rows(steps));
    }

    fn rows_done(&mut self, now: Now, steps: Vec<RowStep>, outcome: Result<(), Refusal>) {
        for step in steps {
            let session = self.sessions.get_mut(step.slot);
            let Some(session) = session.filter(|one| one.number() == step.number) else {
                self.share_left(step, outcome);
                continue;
            };
            session.pending -= 1;
            let slot = step.slot;
            if outcome.is_ok() {
                self.row_done(now, &step);
            } else if !self.share_refused(&step) {
                // Readers go on when there is space again.
                self.stalled.push(step);
            }
            self.wake_feeds(slot);
            self.try_hand_over(slot);
        }
        if outcome.is_err() {
            self.row_lane = Lane::default();
        }
    }

    /// A floor is written, or is dirty again.
    fn floor_done(&mut self, taken: Taken, done: bool) -> Option<usize> {
        let session = self.sessions.get_mut(taken.slot);
        let session = session.filter(|one| one.number() == taken.number)?;
        session.pending -= 1;
        if !done {
            for id in taken.finished {
                // One that stands for another QoS 2 message by now has a new row, or will have.
                let again = session.find_inflight(id);
                let again = again.and_then(|index| session.inflight.get(index)?.owed.as_ref());
                if again.is_none_or(|owed| owed.qos != QoS::ExactlyOnce) {
                    session.finished.push(id);
                }
            }
            session.row_dirty |= taken.row;
            if let Some(group) = &mut session.group {
                group.handed.extend(taken.handed);
            }
            self.mark_dirty(taken.slot);
        }
        Some(taken.slot)
    }

    /// Its row is to be written too.
    pub(crate) fn mark_row_dirty(&mut self, slot: usize) {
        if let Some(session) = self.sessions.get_mut(slot) {
            session.row_dirty = true;
            self.mark_dirty(slot);
        }
    }

    /// Writes floors, and what the log refused before.
    pub(crate) fn write_dirty(&mut self) {
        self.give_back_again();
        self.owe_again();
        let mut stalled = std::mem::take(&mut self.stalled);
        stalled.append(&mut self.row_steps);
        self.row_steps = stalled;
        let mut draft = Draft::default();
        for (slot, number) in std::mem::take(&mut self.dirty) {
            let session = self.sessions.get_mut(slot);
            let Some(session) = session.filter(|one| one.number() == number) else {
                continue;
            };
            if session.unsettled {
                self.dirty.push((slot, number));
            } else {
                session.take_floor(&mut draft);
            }
        }
        if !draft.changes.is_empty() {
            self.submit(draft, None, None, Then::Nothing);
        }
    }

    /// Its floor is to be written within `floors_ms_max`.
    pub(crate) fn mark_dirty(&mut self, slot: usize) {
        let Some(session) = self.sessions.get_mut(slot) else {
            return;
        };
        if session.has_rows && !session.floor_dirty {
            session.floor_dirty = true;
            self.dirty.push((slot, session.number()));
        }
    }
}
