//! PUBACK, PUBREC and PUBCOMP from a subscriber: the end of what was sent to it.
//!
//! For: an outbound message's steps behind its PUBLISH, and what the commits of its steps cause
//!   (`row_done`): at QoS 2 the PUBLISH itself, whose Packet Identifier is committed first.
//! Not for: the answers to a publisher, see `pending`.
//! Holds: a step of a Session that outlives its connection is in the log before it is on the wire.

use headwater_mqtt_codec::{Packet, PacketId, PubRel, PubRelReason, QoS};

use crate::connection::{Connection, Stage};
use crate::pending::{RowStep, Step};
use crate::session::publish_out::{Manner, transmit, wire};
use crate::session::{Inflight, Progress};
use crate::{Now, Shard};

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
        let resending = session.resend.contains(&row.id);
        let Some(inflight) = session.inflight.get_mut(index) else {
            return;
        };
        let connection = at.and_then(|at| self.connections.get_mut(at));
        let connection =
            connection.filter(|connection| connection.stage == Stage::Live && !resending);
        match (&row.step, inflight.progress) {
            (Step::Send(message), Progress::Storing) => {
                inflight.progress = Progress::SentOnce;
                let (Some(connection), Some(owed)) = (connection, &inflight.owed) else {
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
    pub(crate) fn puback_in(&mut self, now: Now, at: usize, id: PacketId) {
        let Some((slot, index)) = self.find_out(at, id) else {
            return;
        };
        let Some(session) = self.sessions.get_mut(slot) else {
            return;
        };
        let is_sent = |inflight: &Inflight| inflight.progress == Progress::Sent;
        if session.inflight.get(index).is_some_and(is_sent) {
            self.finish_out(slot, index);
            self.feed(now, slot);
        }
    }

    /// PUBREC (MQTT 5.0, 3.5); `refused` when its Reason Code is an error.
    pub(crate) fn pubrec_in(&mut self, now: Now, at: usize, id: PacketId, refused: bool) {
        let Some((slot, index)) = self.find_out(at, id) else {
            if !refused {
                self.release_out(at, id, false);
            }
            return;
        };
        let Some(session) = self.sessions.get_mut(slot) else {
            return;
        };
        let number = session.number();
        let Some(inflight) = session.inflight.get_mut(index) else {
            return;
        };
        match inflight.progress {
            Progress::SentOnce if refused => {
                self.finish_out(slot, index);
                self.feed(now, slot);
            }
            Progress::SentOnce => match &inflight.owed {
                Some(owed) => {
                    inflight.progress = Progress::Recorded;
                    let step = RowStep::release(slot, number, id.value(), owed.sequence);
                    self.row_steps.push(step);
                }
                None => {
                    inflight.progress = Progress::Released;
                    self.release_out(at, id, true);
                }
            },
            Progress::Released => self.release_out(at, id, true),
            Progress::Sent | Progress::Storing | Progress::Recorded => {}
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
    pub(crate) fn pubcomp_in(&mut self, now: Now, at: usize, id: PacketId) {
        let Some((slot, index)) = self.find_out(at, id) else {
            return;
        };
        let Some(session) = self.sessions.get_mut(slot) else {
            return;
        };
        let is_released = |inflight: &Inflight| inflight.progress == Progress::Released;
        if session.inflight.get(index).is_some_and(is_released) {
            self.finish_out(slot, index);
            self.feed(now, slot);
        }
    }

    fn find_out(&self, at: usize, id: PacketId) -> Option<(usize, usize)> {
        let slot = self.connections.get(at)?.session?;
        let index = self.sessions.get(slot)?.find_inflight(id.value())?;
        Some((slot, index))
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
