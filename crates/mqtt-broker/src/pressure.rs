//! How much one connection may cause before its socket is not read, and when it is given up.
//!
//! For: pausing and resuming by what waits for the socket and what waits for the log; Keep Alive;
//!   the Client that does not read.
//! Not for: Sessions' queues, see `publish_out`; the limits themselves, see `limits`.
//! Holds: nothing is dropped to keep a connection's bound: its socket is not read, so that it
//!   causes nothing new. What it had caused by then is one read's packets, and is answered. It
//!   waits for the log or for its own socket only, never for what the Client would have to say.

use headwater_mqtt_codec::DisconnectReason;

use crate::connection::{Connection, Stage};
use crate::session::end::End;
use crate::timers::Due;
use crate::{Effect, Limits, Now, Shard};

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

    /// When it is to be looked at next: for its silence, unless it is not read, and for what its
    /// socket does not take.
    fn due(&self, limits: &Limits, read_since_ms: u64) -> Option<u64> {
        let hears = self.silence_ms_max > 0 && !self.paused;
        let silent_since = self.last_packet_ms.max(read_since_ms);
        let silent = hears.then(|| silent_since + self.silence_ms_max);
        let unread_ms_max = limits.send_ms_max.max(self.silence_ms_max);
        let unread = self.blocked_since.map(|since| since + unread_ms_max);
        silent.into_iter().chain(unread).min()
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
            self.effects.push(Effect::Pause(connection.id));
        }
    }

    /// Reads a paused socket again, if what it had caused is mostly done with.
    pub(crate) fn resume(&mut self, now: Now, at: usize) {
        let Some(connection) = self.connections.get_mut(at) else {
            return;
        };
        let limits = &self.shared.limits;
        if !connection.paused || !connection.is_well_below(limits) {
            return;
        }
        if self.full {
            if !connection.waits_for_shard {
                connection.waits_for_shard = true;
                self.waiting.push((at, connection.id));
            }
            return;
        }
        connection.paused = false;
        // What it sent meanwhile is still to be read.
        connection.last_packet_ms = now.mono_ms;
        self.effects.push(Effect::Resume(connection.id));
        self.rearm_connection(at);
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
        connection.blocked_since = Some(now.mono_ms);
        if connection.stage == Stage::Live {
            self.rearm_connection(at);
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
            self.feed(now, slot);
        }
        self.resume(now, at);
    }

    pub(crate) fn connection_due(&mut self, now: Now, at: usize) {
        let Some(connection) = self.connections.get_mut(at) else {
            return;
        };
        connection.timer = None;
        match connection.stage {
            Stage::Fresh => self.close(now, at, None, End::Abnormal),
            // The log's turn, not the Client's.
            Stage::Claiming | Stage::Closing => {}
            Stage::Live => {
                let limits = &self.shared.limits;
                if self.held {
                    self.read_since_ms = now.mono_ms;
                }
                let due = connection.due(limits, self.read_since_ms);
                if due.is_none_or(|due| due > now.mono_ms) {
                    return self.rearm_connection(at);
                }
                let unread_ms_max = limits.send_ms_max.max(connection.silence_ms_max);
                let blocked = connection.blocked_since;
                let reason = if blocked.is_some_and(|since| since + unread_ms_max <= now.mono_ms) {
                    self.counts.unread += 1;
                    DisconnectReason::QuotaExceeded
                } else {
                    DisconnectReason::KeepAliveTimeout // [MQTT-3.1.2-22]
                };
                self.close(now, at, Some(reason), End::Abnormal);
            }
        }
    }

    /// Sets its timer, unless that comes early enough to look again then.
    pub(crate) fn rearm_connection(&mut self, at: usize) {
        let Some(connection) = self.connections.get_mut(at) else {
            return;
        };
        let due = connection.due(&self.shared.limits, self.read_since_ms);
        if let (Some(due), Some(set)) = (due, connection.timer)
            && set <= due
        {
            return;
        }
        self.timers
            .set(Due::Connection(at), &mut connection.timer, due);
    }
}
