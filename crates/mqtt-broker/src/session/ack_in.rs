//! PUBACK, PUBREC and PUBCOMP from a subscriber: the end of what was sent to it.
//!
//! For: an outbound message's steps behind its PUBLISH, and what the commits of its steps cause
//!   (`row_done`): at QoS 2 the PUBLISH itself, whose Packet Identifier is committed first.
//! Not for: the answers to a publisher, see `pending`.
//! Holds: a step of a Session that outlives its connection is in the log before it is on the wire.

use headwater_mqtt_codec::{Packet, PacketId, PubRel, PubRelReason, QoS};

use crate::connection::{Connection, Stage};
use crate::pending::{RowStep, Step};
use crate::reasons::Violation;
use crate::session::Progress;
use crate::session::publish_out::{Manner, transmit, wire};
use crate::{Now, Shard};

const WRONG_STEP: Violation =
    Violation::protocol("this answer does not fit the message that has its packet identifier");

impl Shard {
    /// A QoS 2 step is in the log: now it may be seen.
    pub(crate) fn row_done(&mut self, now: Now, row: &RowStep) {
        let Some(session) = self.sessions.get_mut(row.slot) else {
            return;
        };
        if session.number() != row.number {
            return;
        }
        if let Step::Send(message) = &row.step {
            session.storing_bytes = session.storing_bytes.saturating_sub(message.weight());
        }
        let at = session.connection;
        if let Some(at) = at {
            // In any case: there may be room now for what waits.
            self.touch(at);
        }
        let Some(session) = self.sessions.get_mut(row.slot) else {
            return;
        };
        let Some(index) = session.find_inflight(row.id) else {
            return;
        };
        let is_ending = session.shares.as_ref().is_some_and(|one| one.ending);
        let resending = session.resend.contains(&row.id);
        let Some(inflight) = session.inflight.get_mut(index) else {
            return;
        };
        let connection = at.and_then(|at| self.connections.get_mut(at));
        let connection = connection.filter(|connection| connection.stage == Stage::Live);
        match (&row.step, inflight.progress) {
            (Step::Send(_), Progress::Storing) if is_ending && row.takes_over() => {
                // The commit that ends the Session lets go of it too.
                Self::note_answered(session, row.id);
            }
            (Step::Send(message), Progress::Storing) => {
                inflight.progress = Progress::SentOnce;
                let Some(owed) = inflight.owed.clone() else {
                    return;
                };
                if !row.outlives_connection() {
                    // Nothing else of it is in the log.
                    inflight.owed = None;
                }
                if !owed.is_own() {
                    self.share_taken(row.slot, row.id, owed.sequence);
                }
                let connection = at.and_then(|at| self.connections.get_mut(at));
                let connection = connection.filter(|one| one.stage == Stage::Live && !resending);
                let Some(connection) = connection else {
                    return;
                };
                let manner = Manner {
                    retain: owed.retain,
                    ids: &owed.ids,
                };
                let delivery = wire(QoS::ExactlyOnce, row.id, false);
                if !transmit(connection, &mut self.counts, now, message, delivery, manner) {
                    self.finish_out(row.slot, index);
                    self.feed(now, row.slot);
                }
            }
            (Step::Release, Progress::Recorded) => {
                inflight.progress = Progress::Released;
                if let Some(connection) = connection {
                    send_release(connection, row.id);
                }
            }
            _ => {}
        }
    }

    /// PUBACK (MQTT 5.0, 3.4). An unknown identifier is ignored.
    pub(crate) fn puback_in(&mut self, now: Now, at: usize, id: PacketId) -> Result<(), Violation> {
        let Some((slot, index, progress)) = self.find_out(at, id) else {
            return Ok(());
        };
        match progress {
            Progress::Sent => {
                self.finish_out(slot, index);
                self.feed(now, slot);
                Ok(())
            }
            Progress::SentOnce | Progress::Recorded | Progress::Released => {
                self.wrong_step(slot, id)
            }
            Progress::Storing => Ok(()),
        }
    }

    /// PUBREC (MQTT 5.0, 3.5); `refused` when its Reason Code is an error.
    pub(crate) fn pubrec_in(
        &mut self,
        now: Now,
        at: usize,
        id: PacketId,
        refused: bool,
    ) -> Result<(), Violation> {
        let Some((slot, index, progress)) = self.find_out(at, id) else {
            if !refused {
                self.release_out(at, id, false);
            }
            return Ok(());
        };
        match progress {
            Progress::SentOnce if refused => {
                self.finish_out(slot, index);
                self.feed(now, slot);
            }
            Progress::SentOnce => self.recorded(at, slot, index, id),
            Progress::Released => self.release_out(at, id, true),
            Progress::Sent => return self.wrong_step(slot, id),
            Progress::Storing | Progress::Recorded => {}
        }
        Ok(())
    }

    /// The Client has the message: PUBREL follows, for an owed one once that is committed.
    fn recorded(&mut self, at: usize, slot: usize, index: usize, id: PacketId) {
        let Some(session) = self.sessions.get_mut(slot) else {
            return;
        };
        let Some(inflight) = session.inflight.get_mut(index) else {
            return;
        };
        if let Some(owed) = inflight.owed.clone() {
            inflight.progress = Progress::Recorded;
            let step = RowStep::new(session, slot, id.value(), &owed, Step::Release);
            self.row_steps.push(step);
        } else {
            inflight.progress = Progress::Released;
            self.release_out(at, id, true);
        }
    }

    fn release_out(&mut self, at: usize, packet_id: PacketId, known: bool) {
        let Some(connection) = self.connections.get_mut(at) else {
            return;
        };
        let reason = if known || !connection.is_v5() {
            PubRelReason::Success
        } else {
            PubRelReason::PacketIdentifierNotFound
        };
        connection.send(&Packet::PubRel(PubRel {
            packet_id,
            reason,
            properties: None,
        }));
        self.touch(at);
    }

    /// PUBCOMP (MQTT 5.0, 3.7). An unknown identifier is ignored.
    pub(crate) fn pubcomp_in(
        &mut self,
        now: Now,
        at: usize,
        id: PacketId,
    ) -> Result<(), Violation> {
        let Some((slot, index, progress)) = self.find_out(at, id) else {
            return Ok(());
        };
        match progress {
            Progress::Released => {
                self.finish_out(slot, index);
                self.feed(now, slot);
                Ok(())
            }
            Progress::Sent | Progress::SentOnce | Progress::Recorded => self.wrong_step(slot, id),
            Progress::Storing => Ok(()),
        }
    }

    /// An answer of the other QoS, or PUBCOMP before PUBREL: it is inconsistent with the state, thus
    /// a Protocol Error (1.2), which ends the connection [MQTT-4.13.1-1]. What an earlier connection
    /// left behind and this one was not sent again yet may have a late answer of any kind.
    fn wrong_step(&self, slot: usize, id: PacketId) -> Result<(), Violation> {
        let session = self.sessions.get(slot);
        if session.is_some_and(|session| session.resend.contains(&id.value())) {
            return Ok(());
        }
        Err(WRONG_STEP)
    }

    /// Slot, index and step of what has this identifier.
    fn find_out(&self, at: usize, id: PacketId) -> Option<(usize, usize, Progress)> {
        let slot = self.connections.get(at)?.session?;
        let session = self.sessions.get(slot)?;
        let index = session.find_inflight(id.value())?;
        let inflight = session.inflight.get(index)?;
        Some((slot, index, inflight.progress))
    }

    /// An outbound message is done with.
    pub(crate) fn finish_out(&mut self, slot: usize, index: usize) {
        let Some(session) = self.sessions.get_mut(slot) else {
            return;
        };
        let Some(inflight) = session.inflight.remove(index) else {
            return;
        };
        if !session.resend.is_empty() {
            session.resend.retain(|id| *id != inflight.id);
        }
        if session.shares.is_some() {
            self.settle_share(slot, inflight.id);
        }
        let Some(session) = self.sessions.get_mut(slot) else {
            return;
        };
        if let Some(owed) = &inflight.owed {
            if owed.qos == QoS::ExactlyOnce {
                session.finished.push(inflight.id);
            }
            self.mark_dirty(slot);
        }
    }
}

pub(crate) fn send_release(connection: &mut Connection, id: u16) {
    if let Some(packet_id) = PacketId::new(id) {
        let reason = PubRelReason::Success;
        connection.send(&Packet::PubRel(PubRel {
            packet_id,
            reason,
            properties: None,
        }));
    }
}
