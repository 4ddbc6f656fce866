//! The end of a connection and of a Session.
//!
//! For: DISCONNECT from either side, a connection that is gone, what a Session keeps then, and the
//!   removal of one that does not outlive it.
//! Holds: where the log knows a Session, its end is a commit; what DISCONNECT promises follows it.

use std::num::NonZeroI64;

use headwater_mqtt_codec::{Disconnect, DisconnectReason, Packet, Text};

use crate::connection::{Connection, Stage};
use crate::pending::{Draft, Taken, Then};
use crate::reasons::Violation;
use crate::rows;
use crate::session::will::RETRY_MS;
use crate::session::{Progress, Session, Subscribed};
use crate::system;
use crate::{Change, ConnectionId, Effect, Now, Refusal, Shard};

/// How a connection ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum End {
    /// DISCONNECT with Reason Code 0x00: the Will is gone.
    Normal,
    Abnormal,
}

impl Shard {
    /// DISCONNECT from the Client (MQTT 5.0, 3.14).
    pub(crate) fn disconnect_in(
        &mut self,
        now: Now,
        at: usize,
        disconnect: &Disconnect,
    ) -> Result<(), Violation> {
        let Some(connection) = self.connections.get_mut(at) else {
            return Ok(());
        };
        let Some(slot) = connection.session else {
            return Ok(());
        };
        let Some(session) = self.sessions.get_mut(slot) else {
            return Ok(());
        };
        let mut ends = false;
        match disconnect.session_expiry_interval {
            Some(wish) if session.expiry_seconds == 0 && wish > 0 => {
                // 3.14.2.2.2
                return Err(Violation::protocol(
                    "the session expiry interval was 0 in CONNECT and cannot be raised",
                ));
            }
            // It stays what it was until the log has let it go.
            Some(0) => ends = true,
            Some(wish) => {
                session.expiry_seconds = wish.min(self.shared.limits.session_expiry_seconds_max);
            }
            None => {}
        }
        let end = match disconnect.reason {
            DisconnectReason::NormalDisconnection => End::Normal,
            _ => End::Abnormal,
        };
        self.announce_gone(
            now,
            at,
            if end == End::Normal {
                "normal"
            } else {
                "disconnect_with_will_message"
            },
        );
        let Some(connection) = self.connections.get_mut(at) else {
            return Ok(());
        };
        connection.stage = Stage::Closing;
        connection.session = None;
        self.counts.connections -= 1;
        let (id, said) = (connection.id, Some(connection.id));
        self.leave_groups(slot, id);
        self.leave(now, slot, end, ends, said);
        Ok(())
    }

    /// What a DISCONNECT promises is in the log, or refused for `reason`: now the connection goes.
    pub(crate) fn close_said(
        &mut self,
        now: Now,
        said: Option<ConnectionId>,
        reason: Option<DisconnectReason>,
    ) {
        let Some(at) = said.and_then(|id| self.by_id.get(&id)).copied() else {
            return;
        };
        if let Some(reason) = reason
            && let Some(connection) = self.connections.get_mut(at)
            && connection.is_v5()
        {
            say_disconnect(
                connection,
                reason,
                Text::from_static(Violation::from(reason).why),
            );
        }
        self.close(now, at, None, End::Abnormal);
    }

    /// A connection ends from our side: DISCONNECT where it can be said, then `Effect::Close`.
    pub(crate) fn close(&mut self, now: Now, at: usize, why: Option<Violation>, end: End) {
        let why = why.map(|one| (one.reason, Text::from_static(one.why)));
        self.close_saying(now, at, why, end);
    }

    /// As `close`, with a sentence that is not constant.
    pub(crate) fn close_saying(
        &mut self,
        now: Now,
        at: usize,
        why: Option<(DisconnectReason, Text)>,
        end: End,
    ) {
        let said = why.as_ref().map(|(reason, _)| *reason);
        self.announce_gone(now, at, system::reason(said));
        let Some(connection) = self.connections.get_mut(at) else {
            return;
        };
        if let Some((reason, why)) = why
            && connection.is_v5()
            && connection.stage == Stage::Live
        {
            say_disconnect(connection, reason, why);
        }
        let id = connection.id;
        let mut output = std::mem::take(&mut connection.output);
        self.counts.sent(&mut output);
        self.closing.insert(id, output);
        self.effects.push(Effect::Close(id));
        self.gone(now, at, end);
    }

    /// A connection is no more.
    pub(crate) fn gone(&mut self, now: Now, at: usize, end: End) {
        let Some(mut connection) = self.connections.try_remove(at) else {
            return;
        };
        self.by_id.remove(&connection.id);
        self.timers.set(
            crate::timers::Due::Connection(at),
            &mut connection.timer,
            None,
        );
        if connection.stage == Stage::Live {
            self.counts.connections -= 1;
        }
        if let Some(slot) = connection.session {
            if connection.stage == Stage::Claiming {
                // The commit of its CONNECT is under way; `connected` goes on.
                if let Some(session) = self.sessions.get_mut(slot) {
                    session.connection = None;
                }
            } else {
                self.leave_groups(slot, connection.id);
                self.leave(now, slot, end, false, None);
            }
        } else if connection.stage == Stage::Claiming
            && let Some(publisher) = connection.publisher
        {
            // Its claim is in the stream, or its Session on the way.
            if let Some(arrival) = self.arrivals.get_mut(&connection.claim) {
                arrival.connection = None;
            }
            self.lost_claims.insert(connection.claim, publisher);
        }
    }

    /// A Session loses its connection, and `ends` if it is not to outlive it. `said` is the
    /// connection that waits with its DISCONNECT.
    pub(crate) fn leave(
        &mut self,
        now: Now,
        slot: usize,
        end: End,
        ends: bool,
        said: Option<ConnectionId>,
    ) {
        let Some(session) = self.sessions.get_mut(slot) else {
            return;
        };
        session.forget_connection();
        if end == End::Normal {
            session.will = None;
        }
        session.left_at_ms = NonZeroI64::new(now.wall_ms);
        if ends || !session.is_persistent() {
            return self.end_session(now, slot, said);
        }
        self.rearm_after_leave(now, slot);
        self.flush_rows();
        let Some(session) = self.sessions.get_mut(slot) else {
            return;
        };
        if session.will_at.is_some_and(|at| at <= now.mono_ms) {
            return self.will_due(now, slot, said);
        }
        session.row_dirty = true;
        let mut draft = Draft::default();
        session.take_floor(&mut draft);
        self.submit(draft, None, Some(slot), Then::Left(said));
    }

    pub(crate) fn rearm_after_leave(&mut self, now: Now, slot: usize) {
        let Some(session) = self.sessions.get_mut(slot) else {
            return;
        };
        let after = |seconds: u32| now.mono_ms + u64::from(seconds) * 1_000;
        session.will_at = session.will.as_ref().map(|will| after(will.delay_seconds));
        session.ends_at =
            (session.expiry_seconds != u32::MAX).then(|| after(session.expiry_seconds));
        self.rearm_session(slot);
    }

    /// The Session's end: its Will and its rows go first, then it goes itself.
    pub(crate) fn end_session(&mut self, now: Now, slot: usize, said: Option<ConnectionId>) {
        self.flush_rows();
        let Some(session) = self.sessions.get_mut(slot) else {
            return;
        };
        if !session.has_rows {
            self.forget_session(slot);
            return self.close_said(now, said, None);
        }
        session.unsettled = true;
        if let Some(shares) = &mut session.shares {
            shares.ending = true;
        }
        let draft = Draft::rows(session.removal());
        self.publish_will(now, slot, draft, Then::Ended(said));
    }

    /// The log has let a Session go, or has not: then it stays.
    pub(crate) fn ended(
        &mut self,
        now: Now,
        slot: usize,
        said: Option<ConnectionId>,
        outcome: Result<(), Refusal>,
    ) {
        let Some(session) = self.sessions.get_mut(slot) else {
            return;
        };
        session.unsettled = false;
        if outcome.is_ok() {
            self.forget_session(slot);
            return self.close_said(now, said, None);
        }
        if outcome == Err(Refusal::TooLarge) && session.will.take().is_some() {
            self.counts.refused += 1; // That Will is never taken.
            return self.end_session(now, slot, said);
        }
        if said.is_some() && session.is_persistent() {
            // As if the DISCONNECT had said nothing of it.
            self.keep_taken(slot);
            self.rearm_after_leave(now, slot);
            self.mark_row_dirty(slot);
        } else {
            session.over = true;
            session.ends_at = Some(now.mono_ms + RETRY_MS);
            self.rearm_session(slot);
        }
        self.close_said(now, said, Some(DisconnectReason::QuotaExceeded));
    }

    /// A Session that the log does not know any more.
    pub(crate) fn forget_session(&mut self, slot: usize) {
        let Some(session) = self.sessions.get(slot) else {
            return;
        };
        self.shared
            .directory
            .release(&session.publisher.client, self.index, session.claim);
        let surrender = session.surrender.as_deref().copied();
        self.unsubscribe_all(slot);
        if let Some((to, claim)) = surrender {
            self.hand_over(to, claim, None);
        }
    }

    /// Takes a Session out of the tree and out of this shard.
    pub(crate) fn unsubscribe_all(&mut self, slot: usize) {
        let Some(mut session) = self.take_session(slot) else {
            return;
        };
        self.drop_shares(session.shares.take());
        for subscription in &session.subscriptions {
            self.unsubscribe(session.number(), subscription);
        }
        if session.seat.is_persistent() && session.group.is_none() {
            self.shared.count_persistent(false);
        }
    }
}

fn say_disconnect(connection: &mut Connection, reason: DisconnectReason, why: Text) {
    connection.send_explained(why, |reason_string| {
        Packet::Disconnect(Box::new(Disconnect {
            reason_string,
            ..Disconnect::new(reason)
        }))
    });
}

impl Shard {
    /// Takes a subscription out of the tree, or out of its group.
    pub(crate) fn unsubscribe(&mut self, number: u64, subscription: &Subscribed) {
        match &subscription.group {
            Some(group) => self.leave_group(group, Some(subscription.options.qos)),
            None => drop(self.shared.tree.unsubscribe(&subscription.filter, number)),
        }
    }
}

impl Session {
    /// The deletion of everything the log knows of it, or will know.
    pub(crate) fn removal(&self) -> Vec<Change> {
        let number = self.number();
        let mut changes = vec![rows::floor_gone(number)];
        changes.push(match &self.group {
            Some(_) => rows::group_gone(number),
            None => rows::session_gone(number),
        });
        let handed = self.group.iter().flat_map(|group| &group.handed);
        changes.extend(handed.map(|sequence| rows::handed_gone(number, *sequence)));
        // What it was to have of a group and never saw is the group's again.
        let unseen = (self.inflight.iter()).filter(|one| one.progress == Progress::Storing);
        let unseen = unseen.filter_map(|one| one.owed.as_deref());
        let unseen = unseen.filter(|owed| !owed.is_own());
        changes.extend(unseen.map(|owed| rows::handed_gone(owed.group, owed.sequence)));
        let filters = self.subscriptions.iter().map(|one| &one.filter);
        let filters = filters.chain(&self.subscribing);
        changes.extend(filters.map(|filter| rows::subscription_gone(number, filter)));
        let inbound = self.inbound.keys();
        changes.extend(inbound.map(|id| rows::inbound_gone(number, *id)));
        let outbound = self.inflight.iter().filter(|one| one.owed.is_some());
        let outbound = outbound
            .map(|one| one.id)
            .chain(self.finished.iter().copied());
        changes.extend(outbound.map(|id| rows::outbound_gone(number, id)));
        changes.extend(self.late_gone());
        changes
    }

    /// The row of its floor, the rows of what is finished, which may not be later, and its own row
    /// where that is due.
    pub(crate) fn take_floor(&mut self, draft: &mut Draft) {
        if !self.has_rows || !(self.floor_dirty || self.row_dirty) {
            return;
        }
        let number = self.number();
        let taken = Taken {
            slot: self.seat.slot(),
            number,
            finished: std::mem::take(&mut self.finished),
            handed: (self.group.as_mut())
                .map_or_else(Vec::new, |group| std::mem::take(&mut group.handed)),
            row: std::mem::take(&mut self.row_dirty),
        };
        let finished = taken.finished.iter();
        draft
            .changes
            .extend(finished.map(|id| rows::outbound_gone(number, *id)));
        let handed = taken.handed.iter();
        draft
            .changes
            .extend(handed.map(|sequence| rows::handed_gone(number, *sequence)));
        if std::mem::take(&mut self.floor_dirty) {
            draft.changes.push(rows::floor(number, &self.floor()));
        }
        if taken.row {
            draft.changes.push(rows::session(number, &self.row()));
        }
        draft.floors.push(taken);
    }
}
