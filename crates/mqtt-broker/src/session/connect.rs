//! CONNECT: from its claim on the client id to CONNACK.
//!
//! For: who connects, which Session that is, what it gets of what it asked for.
//! Not for: how a Session that others hold comes here, see `takeover`.
//! Holds: CONNACK follows the commit of what it promises.

use std::num::NonZeroU32;
use std::sync::Arc;

use headwater_mqtt_codec::{
    ConnAck, ConnAckProperties, ConnAckReason, Connect, Packet, Text, Version,
};

use crate::commit::{Claim, Control};
use crate::connection::Stage;
use crate::directory::Seat;
use crate::pending::{Draft, Then};
use crate::rows::{self, Floor};
use crate::session::Session;
use crate::session::end::End;
use crate::session::will::will_row;
use crate::{Change, CommitId, Now, Publisher, Refusal, Shard, Verdict};

impl Shard {
    /// CONNECT (MQTT 5.0, 3.1). An error is answered by CONNACK.
    pub(crate) fn connect_in(
        &mut self,
        at: usize,
        mut connect: Box<Connect>,
    ) -> Result<(), ConnAckReason> {
        let Some(connection) = self.connections.get_mut(at) else {
            return Ok(());
        };
        connection.version = connect.version;
        let mut assigned = false;
        if connect.properties.authentication.is_some() {
            return Err(ConnAckReason::BadAuthenticationMethod);
        }
        if connect.client_id.is_empty() {
            // [MQTT-3.1.3-6]; 3.1.1: only with Clean Session [MQTT-3.1.3-8]; 3.1: never.
            let may = match connect.version {
                Version::V31 => false,
                Version::V311 => connect.clean_start,
                Version::V5 => true,
            };
            let id = Text::try_from(self.shared.assign_client_id());
            connect.client_id = id
                .ok()
                .filter(|_| may)
                .ok_or(ConnAckReason::ClientIdentifierNotValid)?;
            assigned = true;
        }
        connection.assigned = assigned;
        let user = connect.user_name.as_deref();
        let password = connect.password.as_deref();
        let verdict =
            self.shared
                .policy
                .connect(&connection.peer, &connect.client_id, user, password);
        let principal = verdict.map_err(|verdict| match verdict {
            Verdict::BadCredentials => ConnAckReason::BadUserNameOrPassword,
            Verdict::Allow | Verdict::Deny => ConnAckReason::NotAuthorized,
        })?;
        let publisher = Arc::new(Publisher {
            client: (*connect.client_id).into(),
            principal,
        });
        connection.stage = Stage::Claiming;
        connection.connect = Some(connect);
        connection.publisher = Some(publisher.clone());
        connection
            .decoder
            .set_packet_bytes_max(self.shared.limits.packet_bytes_max);
        let claim = Claim {
            publisher,
            connection: connection.id,
        };
        let draft = Draft {
            control: Some(Control::Claim(claim)),
            ..Draft::default()
        };
        let claim = self.submit(draft, Some(at), None, Then::Claimed);
        if let Some(connection) = self.connections.get_mut(at) {
            connection.claim = claim;
        }
        Ok(())
    }

    fn expiry_seconds(&self, connect: &Connect) -> u32 {
        let wish = match connect.version {
            Version::V5 => connect.properties.session_expiry_interval,
            Version::V31 | Version::V311 if connect.clean_start => 0,
            Version::V31 | Version::V311 => u32::MAX,
        };
        wish.min(self.shared.limits.session_expiry_seconds_max)
    }

    /// CONNACK with an error, then the end [MQTT-3.2.2-7].
    pub(crate) fn refuse_connect(&mut self, now: Now, at: usize, reason: ConnAckReason) {
        let Some(connection) = self.connections.get_mut(at) else {
            return;
        };
        let properties = ConnAckProperties::default();
        let packet = ConnAck {
            session_present: false,
            reason,
            properties,
        };
        connection.send(&Packet::ConnAck(Box::new(packet)));
        self.close(now, at, None, End::Abnormal);
    }

    /// The Session of this CONNECT: the old one or a new one.
    pub(crate) fn establish(&mut self, now: Now, at: usize, claim: CommitId, old: Option<usize>) {
        let Some(connection) = self.connections.get_mut(at) else {
            return;
        };
        let Some(connect) = connection.connect.take() else {
            return;
        };
        let Some(publisher) = connection.publisher.take() else {
            return;
        };
        let expiry_seconds = self.expiry_seconds(&connect);
        let is_one_more = expiry_seconds > 0 && old.is_none();
        if is_one_more && self.shared.persistent_sessions() >= self.shared.limits.sessions_max {
            let directory = &self.shared.directory;
            directory.release(&publisher.client, self.index, claim);
            return self.refuse_connect(now, at, ConnAckReason::QuotaExceeded);
        }
        let mut changes = Vec::new();
        let mut old = old;
        if let Some(slot) = old
            && connect.clean_start
        {
            // Its removal is in the commit that CONNACK waits for.
            self.discard(now, slot, &mut changes);
            old = None;
        }
        let present = old.is_some();
        let slot = old.unwrap_or_else(|| {
            let number = self.shared.next_number();
            let seat = Arc::new(Seat::new(number, self.index, expiry_seconds > 0));
            let session = Session::new(seat, publisher.clone(), claim);
            self.put_session(Box::new(session))
        });
        let is_ours = self.settle_seat(slot, claim);
        if !is_ours {
            // Another claim is past us: its Surrender is in our inbox.
            if !present {
                self.take_session(slot);
            }
            if !changes.is_empty() {
                self.change_rows(changes, None, Then::Nothing);
            }
            self.close(now, at, None, End::Abnormal);
            return;
        }
        self.dress(
            now,
            at,
            slot,
            &connect,
            publisher,
            expiry_seconds,
            &mut changes,
        );
        if changes.is_empty() {
            self.connected(now, at, slot, present, Ok(()));
        } else {
            let draft = Draft {
                changes,
                ..Draft::default()
            };
            self.submit(draft, Some(at), Some(slot), Then::Connected { present });
        }
    }

    /// Gives the Session what this CONNECT says, and the connection what the Session is.
    #[expect(clippy::too_many_arguments, reason = "the two ends of one CONNECT")]
    fn dress(
        &mut self,
        now: Now,
        at: usize,
        slot: usize,
        connect: &Connect,
        publisher: Arc<Publisher>,
        expiry_seconds: u32,
        changes: &mut Vec<Change>,
    ) {
        let shared = self.shared.clone();
        let Some(connection) = self.connections.get_mut(at) else {
            return;
        };
        let Some(session) = self.sessions.get_mut(slot) else {
            return;
        };
        connection.session = Some(slot);
        connection.window = usize::from(
            connect
                .properties
                .receive_maximum
                .min(shared.limits.inflight_max)
                .get(),
        );
        if let Some(bytes_max) = connect.properties.maximum_packet_size {
            connection.packet_bytes_max = bytes_max.get() as usize;
        }
        let granted = match shared.limits.keep_alive_seconds_max {
            0 => connect.keep_alive,
            most if connect.keep_alive == 0 || connect.keep_alive > most => {
                // Only MQTT 5.0 can be told; others keep what they asked for.
                if connection.version == Version::V5 {
                    most
                } else {
                    connect.keep_alive
                }
            }
            _ => connect.keep_alive,
        };
        connection.silence_ms_max = u64::from(granted) * 1_500; // [MQTT-3.1.2-22]
        connection.last_packet_ms = now.mono_ms;
        let first_time = !session.has_rows;
        let was_persistent = session.is_persistent();
        let row_differs = session.expiry_seconds != expiry_seconds
            || session.will.is_some()
            || session.left_at_ms.is_some()
            || connect.will.is_some();
        session.publisher = publisher;
        session.connection = Some(at);
        session.expiry_seconds = expiry_seconds;
        session.will = connect
            .will
            .clone()
            .map(|will| Box::new(will_row(will, &session.publisher)));
        (session.will_at, session.ends_at, session.left_at_ms) = (None, None, None);
        let persistent = session.is_persistent();
        if persistent != was_persistent {
            shared.count_persistent(persistent);
            if session.seat.is_persistent() != persistent {
                session.seat.set_persistent(persistent);
                shared.tree.touch_all();
            }
        }
        // A Will is logged also with a Session that ends with its connection.
        let needs_rows = persistent || session.will.is_some();
        if (needs_rows && first_time) || (!first_time && row_differs) {
            session.has_rows = true;
            let number = session.number();
            changes.push(rows::session(number, &session.row()));
            if first_time {
                let floor = Floor {
                    front: self.next_sequence,
                    open: Vec::new(),
                };
                changes.push(rows::floor(number, &floor));
                session.next_sequence = self.next_sequence;
                changes.extend(shared.reserve_numbers(number).map(rows::numbers));
            }
        }
        self.rearm_session(slot);
    }

    /// CONNACK, then what waits.
    pub(crate) fn connected(
        &mut self,
        now: Now,
        at: usize,
        slot: usize,
        present: bool,
        outcome: Result<(), Refusal>,
    ) {
        let limits = self.shared.limits.clone();
        if outcome.is_err() {
            if let Some(connection) = self.connections.get_mut(at) {
                connection.session = None;
            }
            self.refuse_connect(now, at, ConnAckReason::QuotaExceeded);
            if let Some(session) = self.sessions.get_mut(slot) {
                session.connection = None;
                if present {
                    session.left_at_ms = Some(now.wall_ms);
                    self.rearm_after_leave(now, slot);
                } else {
                    session.will = None;
                    session.has_rows = false;
                    self.end_session(now, slot, Then::Nothing);
                }
            }
            return;
        }
        let Some(connection) = self.connections.get_mut(at) else {
            return;
        };
        let Some(session) = self.sessions.get_mut(slot) else {
            return;
        };
        connection.stage = Stage::Live;
        let id = Text::try_from(&*session.publisher.client).ok();
        let keep_alive = connection.silence_ms_max / 1_500;
        let properties = ConnAckProperties {
            // The Client knows what it asked for; what was cut is said.
            session_expiry_interval: Some(session.expiry_seconds),
            receive_maximum: limits.receive_maximum,
            maximum_packet_size: NonZeroU32::new(limits.packet_bytes_max),
            assigned_client_identifier: id.filter(|_| connection.assigned),
            topic_alias_maximum: limits.topic_alias_max,
            shared_subscription_available: false,
            server_keep_alive: (limits.keep_alive_seconds_max > 0)
                .then(|| u16::try_from(keep_alive).unwrap_or(u16::MAX)),
            ..ConnAckProperties::default()
        };
        let reason = ConnAckReason::Success;
        let packet = ConnAck {
            session_present: present,
            reason,
            properties,
        };
        connection.send(&Packet::ConnAck(Box::new(packet)));
        self.counts.connections += 1;
        self.touch(at);
        self.rearm_connection(at);
        self.resume_out(now, slot);
        self.replay.push(at);
    }
}
