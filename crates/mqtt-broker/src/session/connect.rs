//! CONNECT, taking a Session over, DISCONNECT and the end of a Session.
//!
//! For: from CONNECT through its claim, the old holder's surrender and the commit of its rows, to
//!   CONNACK; and back.
//! Holds: a client id has one holder in commit order; CONNACK follows what it promises.

use std::num::NonZeroU32;
use std::sync::Arc;

use headwater_mqtt_codec::{
    ConnAck, ConnAckProperties, ConnAckReason, Connect, Disconnect, DisconnectReason, Packet, Text,
    Version,
};

use crate::commit::{Claim, Control, Delivery};
use crate::connection::Stage;
use crate::directory::Seat;
use crate::input::Between;
use crate::matching::Target;
use crate::rows::{self, Floor};
use crate::session::Session;
use crate::session::will::will_row;
use crate::shard::{Draft, Then};
use crate::{
    Change, CommitId, ConnectionId, Effect, Moved, Now, Publisher, Refusal, Shard, ShardMessage,
    Verdict,
};

/// A Session that was claimed and is not here yet.
#[derive(Debug)]
pub(crate) struct Arrival {
    /// `None` when the connection that claimed it is gone.
    connection: Option<ConnectionId>,
    number: u64,
    /// What was delivered to it meanwhile, in order.
    kept: Vec<(Delivery, Target)>,
    /// Where its messages went meanwhile.
    pub(crate) moved: Vec<Arc<[Moved]>>,
    /// Somebody else has claimed it already.
    surrender: Option<(usize, CommitId)>,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum End {
    /// DISCONNECT with Reason Code 0x00: the Will is gone.
    Normal,
    Abnormal,
}

impl Shard {
    /// CONNECT (MQTT 5.0, 3.1). An error is answered by CONNACK.
    pub(crate) fn connect_in(
        &mut self,
        at: usize,
        mut connect: Box<Connect>,
    ) -> Result<(), ConnAckReason> {
        let expiry = self.expiry_seconds(&connect);
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
        if expiry > 0 && self.shared.persistent_sessions() >= self.shared.limits.sessions_max {
            return Err(ConnAckReason::QuotaExceeded);
        }
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

    /// Word from the commit stream, or from the shard that held the Session before.
    pub(crate) fn between(&mut self, now: Now, message: Between) {
        match message {
            Between::Forward(forwarded) => {
                for one in forwarded {
                    let mut shared = Some(one.message.clone());
                    self.deliver_all(now, &one.message, &mut shared, &one.targets);
                }
            }
            Between::Claimed {
                connection,
                claim,
                previous,
            } => {
                self.claimed(now, connection, claim, previous);
            }
            Between::ClaimRefused { connection } => {
                if let Some(at) = self.by_id.get(&connection).copied() {
                    self.refuse_connect(now, at, ConnAckReason::NotAuthorized);
                }
            }
            Between::Surrender {
                held,
                seat,
                to,
                claim,
            } => {
                self.surrender(now, held, seat.as_ref(), to, claim);
            }
            Between::Handover { claim, session } => self.arrived(now, claim, session),
            Between::Restored(session) => self.restored(now, session),
        }
    }

    /// The turn of a CONNECT has come: the client id is ours.
    fn claimed(
        &mut self,
        now: Now,
        connection: ConnectionId,
        claim: CommitId,
        previous: Option<u64>,
    ) {
        let is_here = self.by_id.contains_key(&connection);
        let number = previous.unwrap_or(Seat::NOBODY);
        let connection = is_here.then_some(connection);
        let arrival = Arrival {
            connection,
            number,
            kept: Vec::new(),
            moved: Vec::new(),
            surrender: None,
        };
        self.arrivals.insert(claim, arrival);
        if number != Seat::NOBODY {
            self.arriving.insert(number, claim);
        }
        if previous.is_none() {
            self.arrived(now, claim, None);
        }
    }

    /// Keeps a delivery for a Session that is on its way here; `false` when it is not.
    pub(crate) fn keep_for_arrival(&mut self, delivery: &Delivery, target: &Target) -> bool {
        let claim = self.arriving.get(&target.seat.number());
        let Some(arrival) = claim.and_then(|claim| self.arrivals.get_mut(claim)) else {
            return false;
        };
        arrival.kept.push((delivery.clone(), target.clone()));
        true
    }

    /// Another CONNECT has our client id.
    fn surrender(
        &mut self,
        now: Now,
        held: CommitId,
        seat: Option<&Arc<Seat>>,
        to: usize,
        claim: CommitId,
    ) {
        if let Some(arrival) = self.arrivals.get_mut(&held) {
            arrival.surrender = Some((to, claim));
            let connection = arrival.connection.take();
            if let Some(at) = connection.and_then(|id| self.by_id.get(&id)).copied() {
                self.close(
                    now,
                    at,
                    Some(DisconnectReason::SessionTakenOver),
                    End::Abnormal,
                );
            }
            return;
        }
        let slot = seat.and_then(|seat| self.slot_of(seat));
        let Some(slot) = slot else {
            self.hand_over(to, claim, None);
            return;
        };
        if let Some(session) = self.sessions.get_mut(slot) {
            session.surrender = Some((to, claim));
            if let Some(at) = session.connection {
                // [MQTT-3.1.4-3]
                self.close(
                    now,
                    at,
                    Some(DisconnectReason::SessionTakenOver),
                    End::Abnormal,
                );
            }
        }
        self.flush_rows();
        self.try_hand_over(slot);
    }

    /// Hands a wanted Session over once nothing of it is pending.
    pub(crate) fn try_hand_over(&mut self, slot: usize) {
        let Some(session) = self.sessions.get(slot) else {
            return;
        };
        let Some((to, claim)) = session.surrender else {
            return;
        };
        if session.pending > 0 {
            return;
        }
        let mut session = self.take_session(slot);
        if let Some(session) = &mut session {
            session.surrender = None;
        }
        self.hand_over(to, claim, session);
    }

    fn hand_over(&mut self, to: usize, claim: CommitId, session: Option<Box<Session>>) {
        let message = ShardMessage(Between::Handover { claim, session });
        if to == self.index {
            self.own.push(message);
        } else {
            self.effects.push(Effect::ToShard(to, message));
        }
    }

    /// The claimed Session is here, or there is none.
    fn arrived(&mut self, now: Now, claim: CommitId, session: Option<Box<Session>>) {
        let Some(arrival) = self.arrivals.remove(&claim) else {
            return;
        };
        // A later claim of this shard may wait for the same Session.
        if self.arriving.get(&arrival.number) == Some(&claim) {
            self.arriving.remove(&arrival.number);
        }
        let lost = self.lost_claims.remove(&claim);
        let at = arrival
            .connection
            .and_then(|id| self.by_id.get(&id))
            .copied();
        let slot = session.map(|session| self.put_session(session));
        if let Some(slot) = slot {
            if let Some(session) = self.sessions.get_mut(slot) {
                session.claim = claim;
            }
            for (delivery, target) in &arrival.kept {
                self.deliver_one(now, slot, delivery, target);
            }
            if let Some(session) = self.sessions.get_mut(slot) {
                for moved in &arrival.moved {
                    session.follow(moved);
                }
            }
        }
        self.inquire_arrived(claim, slot);
        if let Some((to, claim)) = arrival.surrender {
            match slot {
                Some(slot) => {
                    if let Some(session) = self.sessions.get_mut(slot) {
                        session.surrender = Some((to, claim));
                    }
                    self.try_hand_over(slot);
                }
                None => self.hand_over(to, claim, None),
            }
            return;
        }
        match (at, slot) {
            (Some(at), slot) => self.establish(now, at, claim, slot),
            // The connection that claimed went before its Session came.
            (None, Some(slot)) => {
                self.settle_seat(slot, claim);
                self.rearm_session(slot);
            }
            (None, None) => {
                if let Some(publisher) = lost {
                    self.shared
                        .directory
                        .release(&publisher.client, self.index, claim);
                }
            }
        }
    }

    /// Whether the directory still knows this claim, which now has this Session.
    fn settle_seat(&mut self, slot: usize, claim: CommitId) -> bool {
        self.sessions.get(slot).is_some_and(|session| {
            let client = &session.publisher.client;
            self.shared
                .directory
                .settle(client, self.index, claim, &session.seat)
        })
    }

    /// The Session of this CONNECT: the old one or a new one.
    fn establish(&mut self, now: Now, at: usize, claim: CommitId, old: Option<usize>) {
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

    fn rearm_after_leave(&mut self, now: Now, slot: usize) {
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
    fn discard(&mut self, now: Now, slot: usize, changes: &mut Vec<Change>) {
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
