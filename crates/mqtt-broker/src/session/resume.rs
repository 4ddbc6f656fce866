//! A Session that comes back: what was in flight is sent again, what waits is read from the log.
//!
//! Holds: in the order it was first sent [MQTT-4.6.0-1], with DUP and the same Packet Identifier
//!   [MQTT-4.4.0-1]. What cannot be read stays owed, and what is behind it waits.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::owed::Owed;
use crate::pending::{RowStep, Step};
use crate::session::ack_in::send_release;
use crate::session::publish_out::{Manner, transmit, wire};
use crate::session::{Progress, Session};
use crate::{Effect, LoadId, Loaded, Message, Now, Position, Shard};

/// Records asked back from the log at once.
const LOAD_RECORDS_MAX: usize = 128;
/// And their bytes.
const LOAD_BYTES_MAX: usize = 1 << 20;
/// The pause after a read that failed; it doubles with each further one.
const LOAD_PAUSE_MS_MIN: u64 = 100;
/// And no longer than this.
const LOAD_PAUSE_MS_MAX: u64 = 10_000;

/// What became of one message that is to be sent again.
enum Again {
    Sent,
    /// It cannot be: too long for this Client, or gone from the log.
    Over,
    /// The log was asked.
    Later,
}

impl Shard {
    /// A new connection of a Session that was in the middle of something.
    pub(crate) fn resume_out(&mut self, now: Now, slot: usize) {
        let Some(session) = self.sessions.get(slot) else {
            return;
        };
        let connection = session.connection;
        let mut connection = connection.and_then(|at| self.connections.get_mut(at));
        let mut resend = VecDeque::new();
        for inflight in &session.inflight {
            match (inflight.progress, &inflight.owed, &mut connection) {
                // At once, whatever the Client's window [MQTT-3.3.4-10].
                (Progress::Released, _, Some(connection)) => send_release(connection, inflight.id),
                // A step that the log may not have: it is asked for again. Whichever of two is
                // committed first is seen, the other changes nothing.
                (Progress::Recorded, Some(owed), _) => {
                    let step = RowStep::new(session, slot, inflight.id, owed, Step::Release);
                    self.row_steps.push(step);
                }
                _ => resend.push_back(inflight.id),
            }
        }
        if let Some(session) = self.sessions.get_mut(slot) {
            session.resend = resend;
        }
        self.feed(now, slot);
    }

    /// `false` while some of it is still to come.
    pub(crate) fn feed_again(&mut self, now: Now, slot: usize, at: usize) -> bool {
        loop {
            let Some(session) = self.sessions.get(slot) else {
                return false;
            };
            let Some(id) = session.resend.front().copied() else {
                return true;
            };
            if !self.has_room(slot, at) {
                return false;
            }
            match self.send_again(now, slot, at, id) {
                Again::Later => return false,
                Again::Sent => {
                    let Some(session) = self.sessions.get_mut(slot) else {
                        return false;
                    };
                    session.resend.pop_front();
                    self.touch(at);
                }
                Again::Over => {
                    let Some(session) = self.sessions.get_mut(slot) else {
                        return false;
                    };
                    session.resend.pop_front();
                    if let Some(index) = session.find_inflight(id) {
                        self.finish_out(slot, index);
                    }
                }
            }
        }
    }

    fn send_again(&mut self, now: Now, slot: usize, at: usize, id: u16) -> Again {
        let Some(session) = self.sessions.get(slot) else {
            return Again::Over;
        };
        let inflight = session
            .find_inflight(id)
            .and_then(|index| session.inflight.get(index));
        let Some(inflight) = inflight else {
            return Again::Over;
        };
        let owed = match (inflight.progress, &inflight.owed) {
            // The Client has it after all: its PUBREL is sent, or follows its commit.
            (Progress::Recorded | Progress::Released, _) => return Again::Sent,
            (_, None) => return Again::Over,
            (_, Some(owed)) => owed.clone(),
        };
        let storing = inflight.progress == Progress::Storing;
        if storing
            && !owed.is_own()
            && let Some(session) = self.sessions.get_mut(slot)
            && Self::note_asked(session, id, false)
        {
            return Again::Sent; // When its row is there.
        }
        let Some(found) = self.payload(slot, &owed) else {
            self.load_resend(slot);
            return Again::Later;
        };
        let Some(message) = found else {
            self.counts.dropped_gone += 1;
            return Again::Over;
        };
        if storing {
            self.store_id(slot, id, &owed, &message);
            return Again::Sent;
        }
        let Some(connection) = self.connections.get_mut(at) else {
            return Again::Over;
        };
        let manner = Manner {
            retain: owed.retain,
            ids: &owed.ids,
        };
        let delivery = wire(owed.qos, id, true);
        if transmit(
            connection,
            &mut self.counts,
            now,
            &message,
            delivery,
            manner,
        ) {
            Again::Sent
        } else {
            Again::Over
        }
    }

    /// The message behind an owed entry: `None` when the log must be asked, `Some(None)` when the
    /// log has let it go.
    pub(crate) fn payload(&mut self, slot: usize, owed: &Owed) -> Option<Option<Arc<Message>>> {
        let session = self.sessions.get_mut(slot)?;
        if let Some(load) = &mut session.load {
            while let Some((sequence, _)) = load.messages.front() {
                if *sequence > owed.sequence {
                    break;
                }
                let is_it = *sequence == owed.sequence;
                let (_, message) = load.messages.pop_front()?;
                if is_it {
                    return Some(message);
                }
            }
        }
        self.payloads.find(owed.position).map(Some)
    }

    pub(crate) fn load_owed(&mut self, slot: usize) {
        let Some(session) = self.sessions.get(slot) else {
            return;
        };
        let again = session.group.iter().flat_map(|one| one.owed_again());
        let wanted: Vec<(u64, Position)> = again
            .cloned()
            .chain(session.owed.iter())
            .take(LOAD_RECORDS_MAX)
            .map(|owed| (owed.sequence, owed.position))
            .collect();
        self.load(slot, &wanted);
    }

    fn load_resend(&mut self, slot: usize) {
        let Some(session) = self.sessions.get(slot) else {
            return;
        };
        let wanted: Vec<(u64, Position)> = session
            .resend
            .iter()
            .filter_map(|id| session.inflight.get(session.find_inflight(*id)?))
            .filter(|inflight| {
                !matches!(inflight.progress, Progress::Recorded | Progress::Released)
            })
            .filter_map(|inflight| inflight.owed.as_deref())
            .take(LOAD_RECORDS_MAX)
            .map(|owed| (owed.sequence, owed.position))
            .collect();
        self.load(slot, &wanted);
    }

    fn load(&mut self, slot: usize, wanted: &[(u64, Position)]) {
        let Some(session) = self.sessions.get_mut(slot) else {
            return;
        };
        let load = session.load.get_or_insert_default();
        if load.request.is_some() || load.at.is_some() || wanted.is_empty() {
            return;
        }
        self.next_load += 1;
        let request = LoadId(self.next_load);
        load.request = Some(request);
        self.loads.insert(request, (slot, wanted.to_vec()));
        self.effects.push(Effect::Load {
            request,
            positions: wanted.iter().map(|(_, position)| *position).collect(),
            bytes_max: LOAD_BYTES_MAX,
        });
    }

    /// What the log gave back.
    pub(crate) fn loaded(&mut self, now: Now, request: LoadId, items: Vec<Loaded>) {
        let Some((slot, wanted)) = self.loads.remove(&request) else {
            return;
        };
        let Some(session) = self.sessions.get_mut(slot) else {
            return;
        };
        let mut load = match session.load.take() {
            Some(load) if load.request == Some(request) => load,
            other => {
                session.load = other;
                return;
            }
        };
        load.request = None;
        load.messages.clear();
        // None at all is against the rule of `Input::Loaded`: not asked again at once, either.
        let mut failed = items.is_empty();
        for ((sequence, position), item) in wanted.into_iter().zip(items) {
            let item = match item {
                Loaded::Found(message) => Some(message),
                // The record went while it was asked for: it lies elsewhere by now.
                Loaded::Gone if session.has_moved(sequence, position) => break,
                Loaded::Gone => None,
                Loaded::Failed => {
                    failed = true;
                    break;
                }
            };
            load.messages.push_back((sequence, item));
        }
        self.counts.loads_failed += u64::from(failed);
        if failed && load.messages.is_empty() {
            let pause_ms = LOAD_PAUSE_MS_MIN << load.failures.min(16);
            load.failures = load.failures.saturating_add(1);
            load.at = Some(now.mono_ms + pause_ms.min(LOAD_PAUSE_MS_MAX));
            session.load = Some(load);
            self.rearm_session(slot);
            return;
        }
        load.failures = 0;
        session.load = Some(load);
        self.feed(now, slot);
    }
}

impl Session {
    /// Whether the message it is owed as `sequence` is no longer at `position`.
    fn has_moved(&self, sequence: u64, position: Position) -> bool {
        let inflight = self.inflight.iter();
        let mut all = inflight
            .filter_map(|one| one.owed.as_deref())
            .chain(self.group.iter().flat_map(|group| group.owed()))
            .cloned()
            .chain(self.owed.iter());
        let owed = all.find(|owed| owed.sequence == sequence);
        owed.is_some_and(|owed| owed.position != position)
    }
}
