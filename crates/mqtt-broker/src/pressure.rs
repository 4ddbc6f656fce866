//! How much one connection may cause before its socket is not read, and when it is given up.
//!
//! For: pausing and resuming by what waits for the socket and what waits for the log; Keep Alive;
//!   the Client that does not read.
//! Not for: Sessions' queues, see `publish_out`; the limits themselves, see `limits`.
//! Holds: nothing is dropped to keep a connection's bound: its socket is not read, so that it
//!   causes nothing new. What it had caused by then is one read's packets, and is answered. It
//!   waits for the log or for its own socket only, never for what the Client would have to say.

use std::num::NonZeroU64;

use bytes::Bytes;
use headwater_mqtt_codec::{ConnAckReason, DisconnectReason};

use crate::connection::{Connection, Stage};
use crate::reasons::{Rejection, Violation};
use crate::session::authenticate::TOO_SLOW;
use crate::session::end::End;
use crate::timers::Due;
use crate::{Effect, Limits, Now, Shard};

const UNREAD: Violation = Violation::new(
    DisconnectReason::QuotaExceeded,
    "nothing of what waits for this client was read for too long",
);

impl Connection {
    /// Whether it must cause nothing new for now.
    fn is_over(&self, limits: &Limits) -> bool {
        self.pending >= limits.connection_commits_max
            || self.pending_bytes >= limits.connection_commit_bytes_max
            || self.output.len() >= limits.output_bytes_max.saturating_mul(2)
    }

    /// Whether it may cause something again, after it was paused.
    fn is_well_below(&self, limits: &Limits) -> bool {
        self.stage != Stage::Claiming
            && self.pending <= limits.connection_commits_max / 2
            && self.pending_bytes <= limits.connection_commit_bytes_max / 2
            && !self.output.is_congested()
    }

    /// When it is to be looked at next: for its silence and its proof, unless it is not read, and for
    /// what its socket does not take. `held_ms` is how long nobody was read so far.
    fn due(&self, limits: &Limits, held_ms: u64) -> Option<u64> {
        let hears = self.silence_ms_max > 0 && !self.paused;
        let silent = hears.then(|| self.heard_ms + self.silence_ms_max + held_ms);
        let others = [
            self.unread_until(limits),
            self.proof_until(held_ms),
            self.ahead_until(),
        ];
        silent.into_iter().chain(others.into_iter().flatten()).min()
    }

    /// When its socket must have taken something of what waits for it.
    fn unread_until(&self, limits: &Limits) -> Option<u64> {
        let unread_ms_max = limits.send_ms_max.max(self.silence_ms_max);
        self.blocked_since.map(|since| since.get() + unread_ms_max)
    }

    /// When its rates allow more.
    fn ahead_until(&self) -> Option<u64> {
        self.paces.as_ref()?.until_ms
    }

    /// Whether its Client takes nothing, and its output no message before it does.
    pub(crate) fn is_deaf(&self) -> bool {
        self.blocked_since.is_some() && self.output.is_congested()
    }

    /// When a Client that proves itself again must be done.
    fn proof_until(&self, held_ms: u64) -> Option<u64> {
        Some(self.enhanced.as_ref()?.until_ms()? + held_ms)
    }
}

impl Shard {
    /// After a read: stops reading the socket when its Client has caused enough.
    pub(crate) fn pause_if_over(&mut self, at: usize) {
        let limits = &self.shared.limits;
        let Some(connection) = self.connections.get_mut(at) else {
            return;
        };
        if connection.is_over(limits) {
            // Marks an Output that holds answers alone: it is relieved when half of it is written.
            connection.output.takes_message(0, limits.output_bytes_max);
            self.pause(at);
        }
    }

    pub(crate) fn pause(&mut self, at: usize) {
        let Some(connection) = self.connections.get_mut(at) else {
            return;
        };
        if !connection.paused {
            connection.paused = true;
            if let Some(enhanced) = &mut connection.enhanced {
                enhanced.pause(self.hears_at_ms);
            }
            self.effects.push(Effect::Pause(connection.id));
        }
    }

    /// Reads a paused socket again, if what it had caused is mostly done with.
    pub(crate) fn resume(&mut self, now: Now, at: usize) {
        let heard_ms = self.hearing_ms(now);
        let Some(connection) = self.connections.get_mut(at) else {
            return;
        };
        let limits = &self.shared.limits;
        if !connection.paused
            || !connection.is_well_below(limits)
            || connection.ahead_until().is_some()
        {
            return;
        }
        if self.full {
            if !connection.waits_for_shard {
                connection.waits_for_shard = true;
                self.waiting.push((at, connection.id));
            }
            return;
        }
        if !connection.held.is_empty() {
            // First what was read already.
            self.replay.push(at);
            return;
        }
        connection.paused = false;
        // What it sent meanwhile is still to be read.
        connection.heard_ms = heard_ms;
        if let Some(enhanced) = &mut connection.enhanced {
            enhanced.resume(heard_ms);
        }
        self.effects.push(Effect::Resume(connection.id));
        self.rearm_connection(now, at);
    }

    /// Keeps the rest of a read until the Client's rates allow it.
    pub(crate) fn wait_for_pace(&mut self, now: Now, at: usize, until_ms: u64, rest: Bytes) {
        let Some(connection) = self.connections.get_mut(at) else {
            return;
        };
        if let Some(paces) = &mut connection.paces {
            paces.until_ms = Some(until_ms);
        }
        connection.held = rest;
        self.counts.slowed += 1;
        self.pause(at);
        self.rearm_connection(now, at);
    }

    /// A commit that weighs this much was asked for, for this connection if for one.
    pub(crate) fn add_pending(&mut self, at: Option<usize>, bytes: usize) {
        self.pending_bytes += bytes;
        let limits = &self.shared.limits;
        self.full |= self.pending.len() >= limits.shard_commits_max
            || self.pending_bytes >= limits.shard_commit_bytes_max;
        if let Some(at) = at
            && self.full
        {
            self.pause(at);
        }
    }

    /// And answered.
    pub(crate) fn take_pending(&mut self, now: Now, bytes: usize) {
        self.pending_bytes -= bytes;
        let limits = &self.shared.limits;
        if !self.full
            || self.pending.len() > limits.shard_commits_max / 2
            || self.pending_bytes > limits.shard_commit_bytes_max / 2
        {
            return;
        }
        self.full = false;
        for (at, id) in std::mem::take(&mut self.waiting) {
            let connection = self.connections.get_mut(at);
            if let Some(connection) = connection.filter(|one| one.id == id) {
                connection.waits_for_shard = false;
                self.resume(now, at);
            }
        }
    }

    /// Its socket takes no more for now.
    pub(crate) fn blocked(&mut self, now: Now, at: usize) {
        let Some(connection) = self.connections.get_mut(at) else {
            return;
        };
        connection.blocked_since = Some(NonZeroU64::new(now.mono_ms).unwrap_or(NonZeroU64::MIN));
        if connection.stage == Stage::Live {
            self.rearm_connection(now, at);
        }
    }

    /// Its socket has taken all that waited, or so much that more may wait.
    pub(crate) fn drained(&mut self, now: Now, at: usize) {
        let Some(connection) = self.connections.get_mut(at) else {
            return;
        };
        if connection.output.is_empty() {
            connection.blocked_since = None;
        }
        connection.output.relieve();
        if let Some(slot) = connection.session {
            if let Some(session) = self.sessions.get(slot) {
                session.seat.set_deaf(false);
            }
            self.feed(now, slot);
        }
        self.resume(now, at);
    }

    /// How long no socket was read, all such times together.
    fn held_ms(&self, now: Now) -> u64 {
        let held_since = self.held_since_ms.unwrap_or(now.mono_ms);
        self.held_ms_before + now.mono_ms.saturating_sub(held_since)
    }

    /// A clock that stands still while no socket is read: nobody's silence is theirs then.
    pub(crate) fn hearing_ms(&self, now: Now) -> u64 {
        now.mono_ms.saturating_sub(self.held_ms(now))
    }

    /// No socket is read from now on, or all are again.
    pub(crate) fn hold_all(&mut self, now: Now, is_held: bool) {
        self.held_ms_before = self.held_ms(now);
        self.held_since_ms = is_held.then_some(now.mono_ms);
    }

    pub(crate) fn connection_due(&mut self, now: Now, at: usize) {
        let held_ms = self.held_ms(now);
        let Some(connection) = self.connections.get_mut(at) else {
            return;
        };
        connection.timer = None;
        match connection.stage {
            Stage::Fresh => self.close(now, at, None, End::Abnormal),
            Stage::Authenticating => {
                let reason = ConnAckReason::NotAuthorized;
                self.refuse_connect(now, at, Rejection::new(reason, TOO_SLOW.why));
            }
            // The log's turn, not the Client's.
            Stage::Claiming | Stage::Closing => {}
            Stage::Live => {
                if let Some(paces) = &mut connection.paces
                    && paces.until_ms.is_some_and(|until| until <= now.mono_ms)
                {
                    paces.until_ms = None;
                    self.rearm_connection(now, at);
                    return self.resume(now, at);
                }
                let limits = &self.shared.limits;
                let due = connection.due(limits, held_ms);
                if due.is_none_or(|due| due > now.mono_ms) {
                    return self.rearm_connection(now, at);
                }
                let is_past = |due: Option<u64>| due.is_some_and(|due| due <= now.mono_ms);
                let why = if is_past(connection.unread_until(limits)) {
                    self.counts.unread += 1;
                    UNREAD
                } else if is_past(connection.proof_until(held_ms)) {
                    TOO_SLOW
                } else {
                    DisconnectReason::KeepAliveTimeout.into() // [MQTT-3.1.2-22]
                };
                self.close(now, at, Some(why), End::Abnormal);
            }
        }
    }

    /// Sets its timer, unless that comes early enough to look again then.
    pub(crate) fn rearm_connection(&mut self, now: Now, at: usize) {
        let held_ms = self.held_ms(now);
        let Some(connection) = self.connections.get_mut(at) else {
            return;
        };
        let due = connection.due(&self.shared.limits, held_ms);
        if let (Some(due), Some(set)) = (due, connection.timer)
            && set <= due
        {
            return;
        }
        self.timers
            .set(Due::Connection(at), &mut connection.timer, due);
    }
}
