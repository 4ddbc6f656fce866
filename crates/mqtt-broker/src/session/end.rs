//! The end of a connection and of a Session.
//!
//! For: DISCONNECT from either side, a connection that is gone, what a Session keeps then, and the
//!   removal of one that does not outlive it.
//! Holds: where the log knows a Session, its end is a commit; what DISCONNECT promises follows it.

use headwater_mqtt_codec::{Disconnect, DisconnectReason, Packet};

use crate::connection::Stage;
use crate::pending::Then;
use crate::rows;
use crate::session::Session;
use crate::{Change, Effect, Now, Shard};

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
    ) -> Result<(), DisconnectReason> {
        let Some(connection) = self.connections.get_mut(at) else {
            return Ok(());
        };
        let Some(slot) = connection.session else {
            return Ok(());
        };
        let Some(session) = self.sessions.get_mut(slot) else {
            return Ok(());
        };
        if let Some(wish) = disconnect.session_expiry_interval {
            if session.expiry_seconds == 0 && wish > 0 {
                return Err(DisconnectReason::ProtocolError); // 3.14.2.2.2
            }
            session.expiry_seconds = wish.min(self.shared.limits.session_expiry_seconds_max);
            if session.expiry_seconds == 0 && session.seat.is_persistent() {
                session.seat.set_persistent(false);
                self.shared.count_persistent(false);
                self.shared.tree.touch_all();
            }
        }
        let end = match disconnect.reason {
            DisconnectReason::NormalDisconnection => End::Normal,
            _ => End::Abnormal,
        };
        connection.stage = Stage::Closing;
        connection.session = None;
        self.counts.connections -= 1;
        let id = connection.id;
        if !self.leave(now, slot, end, Then::Close(id)) {
            self.close(now, at, None, End::Abnormal);
        }
        Ok(())
    }

    /// A connection ends from our side: DISCONNECT where it can be said, then `Effect::Close`.
    pub(crate) fn close(
        &mut self,
        now: Now,
        at: usize,
        reason: Option<DisconnectReason>,
        end: End,
    ) {
        let Some(connection) = self.connections.get_mut(at) else {
            return;
        };
        if let Some(reason) = reason
            && connection.is_v5()
            && connection.stage == Stage::Live
        {
            connection.send(&Packet::Disconnect(Box::new(Disconnect::new(reason))));
        }
        let id = connection.id;
        let output = std::mem::take(&mut connection.output);
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
            self.leave(now, slot, end, Then::Nothing);
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

    /// A Session loses its connection. Returns whether a commit came of it, whose `then` follows.
    fn leave(&mut self, now: Now, slot: usize, end: End, then: Then) -> bool {
        let Some(session) = self.sessions.get_mut(slot) else {
            return false;
        };
        session.forget_connection();
        if end == End::Normal {
            session.will = None;
        }
        if !session.is_persistent() {
            return self.end_session(now, slot, then);
        }
        session.left_at_ms = Some(now.wall_ms);
        self.rearm_after_leave(now, slot);
        self.flush_rows();
        let Some(session) = self.sessions.get_mut(slot) else {
            return false;
        };
        let will_now = session.will_at.is_some_and(|at| at <= now.mono_ms);
        let mut row = session.row();
        if will_now {
            row.will = None;
        }
        let number = session.number();
        let mut changes = vec![rows::session(number, &row)];
        session.take_floor(&mut changes);
        if will_now {
            self.publish_will(now, slot, changes, then)
        } else {
            self.change_rows(changes, Some(slot), then)
        }
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

    /// The Session's end: its Will, its rows, its place. Returns whether a commit came of it.
    pub(crate) fn end_session(&mut self, now: Now, slot: usize, then: Then) -> bool {
        self.flush_rows();
        let Some(session) = self.sessions.get_mut(slot) else {
            return false;
        };
        let mut changes = Vec::new();
        session.remove_rows(&mut changes);
        let has_will = session.will.is_some();
        let committed = if has_will {
            self.publish_will(now, slot, changes, then)
        } else {
            self.change_rows(changes, Some(slot), then)
        };
        let Some(session) = self.sessions.get(slot) else {
            return committed;
        };
        self.shared
            .directory
            .release(&session.publisher.client, self.index, session.claim);
        let surrender = session.surrender;
        self.unsubscribe_all(slot);
        if let Some((to, claim)) = surrender {
            self.hand_over(to, claim, None);
        }
        committed
    }

    /// An old Session makes way for a Clean Start; its rows' removal goes into `changes`.
    pub(crate) fn discard(&mut self, now: Now, slot: usize, changes: &mut Vec<Change>) {
        let Some(session) = self.sessions.get_mut(slot) else {
            return;
        };
        session.remove_rows(changes);
        if session.will.is_some() {
            // The Session ends before the Will Delay Interval has passed [MQTT-3.1.3-9].
            self.publish_will(now, slot, Vec::new(), Then::Nothing);
        }
        self.unsubscribe_all(slot);
    }

    /// Takes a Session out of the tree and out of this shard.
    fn unsubscribe_all(&mut self, slot: usize) {
        let Some(session) = self.take_session(slot) else {
            return;
        };
        for subscription in &session.subscriptions {
            self.shared
                .tree
                .unsubscribe(&subscription.filter, session.number());
        }
        if session.seat.is_persistent() {
            self.shared.count_persistent(false);
        }
    }
}

impl Session {
    /// The deletion of everything the log knows of it.
    fn remove_rows(&mut self, changes: &mut Vec<Change>) {
        if !self.has_rows {
            return;
        }
        let number = self.number();
        changes.push(rows::session_gone(number));
        changes.push(rows::floor_gone(number));
        for subscription in &self.subscriptions {
            changes.push(rows::subscription_gone(number, &subscription.filter));
        }
        changes.extend(
            self.inbound
                .keys()
                .map(|id| rows::inbound_gone(number, *id)),
        );
        let outbound = self
            .inflight
            .iter()
            .filter(|inflight| inflight.owed.is_some());
        changes.extend(outbound.map(|inflight| rows::outbound_gone(number, inflight.id)));
        changes.extend(
            self.finished
                .drain(..)
                .map(|id| rows::outbound_gone(number, id)),
        );
        self.has_rows = false;
        self.floor_dirty = false;
    }

    /// The row of its floor, and the rows of what is finished, which may not be later.
    pub(crate) fn take_floor(&mut self, changes: &mut Vec<Change>) {
        if !self.has_rows || !self.floor_dirty {
            return;
        }
        self.floor_dirty = false;
        let number = self.number();
        changes.extend(
            self.finished
                .drain(..)
                .map(|id| rows::outbound_gone(number, id)),
        );
        changes.push(rows::floor(number, &self.floor()));
    }
}
