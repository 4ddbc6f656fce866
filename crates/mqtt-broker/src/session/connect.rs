//! CONNECT: from its claim on the client id to CONNACK.
//!
//! For: who connects, which Session that is, what it gets of what it asked for.
//! Not for: how a Session that others hold comes here, see `takeover`.
//! Holds: CONNACK follows the commit of what it promises.

use std::num::NonZeroU32;
use std::sync::Arc;

use headwater_mqtt_codec::{
    ConnAck, ConnAckProperties, ConnAckReason, Connect, Packet, PubAckReason, Text, Version,
};

use crate::commit::{Claim, Control};
use crate::connection::{Connection, Stage};
use crate::directory::Seat;
use crate::pending::{Draft, Then};
use crate::reasons::Rejection;
use crate::rows::{self, Floor, SessionRow, WillRow};
use crate::session::Session;
use crate::session::end::End;
use crate::session::late::LATE_MAX;
use crate::session::will::will_row;
use crate::{Change, CommitId, Limits, Message, Now, Publisher, Refusal, Shard, Shared, Verdict};

/// Session numbers that one row reserves.
pub(crate) const NUMBERS_STEP: u64 = 1 << 12;

const EMPTY_CLIENT_ID: Rejection = Rejection::new(
    ConnAckReason::ClientIdentifierNotValid,
    "an empty client identifier needs a clean session",
);
const LONG_CLIENT_ID: Rejection = Rejection::new(
    ConnAckReason::ClientIdentifierNotValid,
    "the client identifier is too long",
);
/// [MQTT-3.2.2-12]
const WILL_QOS: Rejection = Rejection::new(
    ConnAckReason::QoSNotSupported,
    "the QoS of the Will is above the highest that is available here",
);
/// [MQTT-3.2.2-13]
const WILL_RETAIN: Rejection = Rejection::new(
    ConnAckReason::RetainNotSupported,
    "no message is retained here, so no Will",
);
const BAD_CREDENTIALS: Rejection = Rejection::new(
    ConnAckReason::BadUserNameOrPassword,
    "user name or password is wrong",
);
const NOT_ALLOWED: Rejection = Rejection::new(
    ConnAckReason::NotAuthorized,
    "this client may not connect here",
);
const WILL_TOO_DEEP: Rejection = Rejection::new(
    ConnAckReason::TopicNameInvalid,
    "the topic of the Will has more levels or bytes than are taken",
);
const WILL_NOT_ALLOWED: Rejection = Rejection::new(
    ConnAckReason::NotAuthorized,
    "this client may not publish to the topic of its Will",
);
const TOO_MANY_SESSIONS: Rejection = Rejection::new(
    ConnAckReason::QuotaExceeded,
    "there are as many lasting sessions as the server keeps; try a session expiry of 0",
);
const NO_ROOM: Rejection = Rejection::new(
    ConnAckReason::QuotaExceeded,
    "the log has no room for this session now; try again later",
);
const TOO_MANY_WILLS: Rejection = Rejection::new(
    ConnAckReason::QuotaExceeded,
    "the log has no room for the Wills of this client's earlier connections; try one without a Will",
);

/// What a Session becomes once the commit of its CONNECT is there.
#[derive(Debug)]
pub(crate) struct Dress {
    claim: CommitId,
    publisher: Arc<Publisher>,
    expiry_seconds: u32,
    will: Option<Box<WillRow>>,
    /// Its row is in that commit.
    writes_row: bool,
    present: bool,
    /// Wills that wait for the log from now on, behind those that do.
    late: Vec<Arc<Message>>,
    /// Slot and number of the old Session whose end is in that commit.
    replaced: Option<(usize, u64)>,
    /// Up to where that commit reserves Session numbers.
    numbers: Option<u64>,
}

/// Whether it asks for no more than there is.
fn may_connect(limits: &Limits, connect: &Connect) -> Result<(), Rejection> {
    if connect.client_id.len() > limits.client_id_bytes_max {
        return Err(LONG_CLIENT_ID);
    }
    match &connect.will {
        Some(will) if will.qos > limits.qos_max => Err(WILL_QOS),
        Some(will) if will.retain && !limits.retain_available => Err(WILL_RETAIN),
        _ => Ok(()),
    }
}

impl Shard {
    /// CONNECT (MQTT 5.0, 3.1). An error is answered by CONNACK.
    pub(crate) fn connect_in(
        &mut self,
        now: Now,
        at: usize,
        mut connect: Box<Connect>,
    ) -> Result<(), Rejection> {
        let Some(connection) = self.connections.get_mut(at) else {
            return Ok(());
        };
        connection.version = connect.version;
        if let Some(bytes_max) = connect.properties.maximum_packet_size {
            connection.packet_bytes_max = bytes_max.get();
        }
        connection.explains &= connect.properties.request_problem_information;
        connection.wants_response_information = connect.properties.request_response_information;
        connection.bridge = connect.bridge;
        connection.aliases_max = connect.properties.topic_alias_maximum;
        may_connect(&self.shared.limits, &connect)?;
        let mut assigned = false;
        if connect.client_id.is_empty() {
            // [MQTT-3.1.3-6]; 3.1.1: only with Clean Session [MQTT-3.1.3-8]; 3.1: never.
            let may = match connect.version {
                Version::V31 => false,
                Version::V311 => connect.clean_start,
                Version::V5 => true,
            };
            let id = Text::try_from(self.shared.assign_client_id());
            connect.client_id = id.ok().filter(|_| may).ok_or(EMPTY_CLIENT_ID)?;
            assigned = true;
        }
        connection.assigned = assigned;
        if let Some(asked) = connect.properties.authentication.take() {
            connection.connect = Some(connect);
            return self.authenticate(now, at, &asked);
        }
        let user = connect.user_name.as_deref();
        let password = connect.password.as_deref();
        let verdict =
            self.shared
                .policy
                .connect(&connection.peer, &connect.client_id, user, password);
        let principal = verdict.map_err(|verdict| match verdict {
            Verdict::BadCredentials => BAD_CREDENTIALS,
            Verdict::Allow | Verdict::Deny => NOT_ALLOWED,
        })?;
        connection.connect = Some(connect);
        self.claim(at, principal)
    }

    /// The Client is who it says: its CONNECT asks for its client id.
    pub(crate) fn claim(&mut self, at: usize, principal: Box<str>) -> Result<(), Rejection> {
        let connect = self
            .connections
            .get(at)
            .and_then(|one| one.connect.as_ref());
        let Some(connect) = connect else {
            return Ok(());
        };
        let publisher = Arc::new(Publisher {
            client: (*connect.client_id).into(),
            principal,
        });
        if let Some(will) = &connect.will {
            self.judge_topic(&publisher, &will.topic)
                .map_err(|reason| match reason {
                    PubAckReason::TopicNameInvalid => WILL_TOO_DEEP,
                    _ => WILL_NOT_ALLOWED,
                })?;
        }
        let Some(connection) = self.connections.get_mut(at) else {
            return Ok(());
        };
        connection.stage = Stage::Claiming;
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
    pub(crate) fn refuse_connect(&mut self, now: Now, at: usize, why: Rejection) {
        self.refuse_connect_saying(now, at, why.reason, Text::from_static(why.why));
    }

    /// As `refuse_connect`, with a sentence that is not constant.
    pub(crate) fn refuse_connect_saying(
        &mut self,
        now: Now,
        at: usize,
        reason: ConnAckReason,
        why: Text,
    ) {
        let Some(connection) = self.connections.get_mut(at) else {
            return;
        };
        connection.send_explained(why, |reason_string| {
            let properties = ConnAckProperties {
                reason_string,
                ..ConnAckProperties::default()
            };
            Packet::ConnAck(Box::new(ConnAck {
                session_present: false, // [MQTT-3.2.2-6]
                reason,
                properties,
            }))
        });
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
        // Whoever claimed an assigned client id since it was found free has guessed it.
        let is_new = connect.clean_start || connection.assigned;
        let old_session = old.and_then(|slot| self.sessions.get(slot));
        let is_clean = is_new || old_session.is_some_and(|one| one.over);
        let expiry_seconds = self.expiry_seconds(&connect);
        let is_one_more = expiry_seconds > 0 && old.is_none();
        if is_one_more && self.shared.persistent_sessions() >= self.shared.limits.sessions_max {
            let directory = &self.shared.directory;
            directory.release(&publisher.client, self.index, claim);
            return self.refuse_connect(now, at, TOO_MANY_SESSIONS);
        }
        let present = old.is_some() && !is_clean;
        let late = old_session.map_or_else(Vec::new, |one| one.wills_due(now, present));
        let waiting = old_session.filter(|_| present);
        let waiting = waiting.map_or(0, |one| one.late_count()) + late.len();
        if connect.will.is_some() && waiting >= LATE_MAX {
            // The Session stays what it was.
            if let Some(old) = old {
                self.settle_seat(old, claim);
                self.rearm_session(old);
            }
            return self.refuse_connect(now, at, TOO_MANY_WILLS);
        }
        let slot = old.filter(|_| present).unwrap_or_else(|| {
            let number = self.shared.next_number();
            let seat = Arc::new(Seat::new(number, self.index, expiry_seconds > 0));
            let mut session = Session::new(seat, publisher.clone(), claim);
            session.next_sequence = self.next_sequence;
            if expiry_seconds > 0 {
                self.shared.count_persistent(true);
            }
            self.put_session(Box::new(session))
        });
        // The client id's seat is an old Session's until the log has let that go.
        if !self.settle_seat(old.unwrap_or(slot), claim) {
            // Another claim is past us: its Surrender is in our inbox.
            if !present {
                self.unsubscribe_all(slot);
            }
            return self.close(now, at, None, End::Abnormal);
        }
        let mut dress = Dress {
            claim,
            will: (connect.will.as_ref()).map(|will| Box::new(will_row(will.clone(), &publisher))),
            publisher,
            expiry_seconds,
            writes_row: false,
            present,
            late,
            replaced: None,
            numbers: None,
        };
        self.take_connection(now, at, slot, &connect);
        let draft = Draft::rows(self.dress_rows(slot, &mut dress));
        self.submit_dress(now, at, slot, old.filter(|_| !present), draft, dress);
    }

    /// Commits what CONNECT changes; the end of the `old` Session too, where it is another's.
    fn submit_dress(
        &mut self,
        now: Now,
        at: usize,
        slot: usize,
        old: Option<usize>,
        mut draft: Draft,
        mut dress: Dress,
    ) {
        if let Some(old) = old
            && let Some(session) = self.sessions.get_mut(old)
        {
            session.unsettled = true;
            session.pending += 1;
            dress.replaced = Some((old, session.number()));
            draft.changes.extend(session.removal());
        } else if draft.changes.is_empty() {
            return self.connected(now, Some(at), slot, dress, Ok(()));
        }
        if let Some(session) = self.sessions.get_mut(slot) {
            session.unsettled = true;
        }
        self.submit(
            draft,
            Some(at),
            Some(slot),
            Then::Connected(Box::new(dress)),
        );
    }

    /// The connection becomes what this CONNECT says.
    fn take_connection(&mut self, now: Now, at: usize, slot: usize, connect: &Connect) {
        let heard_ms = self.hearing_ms(now);
        let shared = &self.shared;
        let Some(connection) = self.connections.get_mut(at) else {
            return;
        };
        let Some(session) = self.sessions.get_mut(slot) else {
            return;
        };
        session.connection = Some(at);
        session.seat.set_deaf(false);
        connection.session = Some(slot);
        connection.clean_start = connect.clean_start;
        let window = connect.properties.receive_maximum;
        connection.window = window.min(shared.limits.inflight_max).get(); // [MQTT-4.9.0-1]
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
        connection.heard_ms = heard_ms;
    }

    /// The rows that the Session gets with this CONNECT.
    fn dress_rows(&mut self, slot: usize, dress: &mut Dress) -> Vec<Change> {
        let mut changes = Vec::new();
        let Some(session) = self.sessions.get(slot) else {
            return changes;
        };
        let first_time = !session.has_rows;
        let row_differs = session.expiry_seconds != dress.expiry_seconds
            || session.row_dirty
            || session.will.is_some()
            || session.left_at_ms.is_some()
            || dress.will.is_some();
        // A Will is logged also with a Session that ends with its connection.
        let needs_rows = dress.expiry_seconds > 0 || dress.will.is_some() || !dress.late.is_empty();
        dress.writes_row = if first_time { needs_rows } else { row_differs };
        if !dress.writes_row {
            return changes;
        }
        let number = session.number();
        let row = SessionRow {
            publisher: (*dress.publisher).clone(),
            expiry_seconds: dress.expiry_seconds,
            left_at_ms: None,
            will: dress.will.as_deref().cloned(),
        };
        changes.push(rows::session(number, &row));
        changes.extend(session.late_rows(&dress.late));
        if first_time {
            let floor = Floor {
                front: session.next_sequence,
                open: Vec::new(),
            };
            changes.push(rows::floor(number, &floor));
            if number >= self.numbers_reserved {
                let next = self.numbers_asked.max(number + NUMBERS_STEP);
                self.numbers_asked = next;
                dress.numbers = Some(next);
                changes.push(rows::numbers(self.index, next));
            }
        }
        changes
    }

    /// The Session becomes what its CONNECT said.
    fn put_on(&mut self, slot: usize, dress: Dress) {
        let Some(session) = self.sessions.get_mut(slot) else {
            return;
        };
        session.publisher = dress.publisher;
        session.expiry_seconds = dress.expiry_seconds;
        session.will = dress.will;
        session.push_late(dress.late);
        (session.will_at, session.ends_at, session.left_at_ms) = (None, None, None);
        if dress.writes_row {
            session.has_rows = true;
            session.row_dirty = false;
        }
        self.numbers_reserved = self.numbers_reserved.max(dress.numbers.unwrap_or(0));
        let persistent = session.is_persistent();
        if session.seat.is_persistent() != persistent {
            self.shared.count_persistent(persistent);
            session.seat.set_persistent(persistent);
            self.shared.tree.touch_all();
        }
        self.rearm_session(slot);
    }

    /// What CONNECT asked for is in the log, or refused.
    pub(crate) fn connected(
        &mut self,
        now: Now,
        at: Option<usize>,
        slot: usize,
        dress: Dress,
        outcome: Result<(), Refusal>,
    ) {
        if let Some(session) = self.sessions.get_mut(slot) {
            session.unsettled = false;
        }
        if outcome.is_err() {
            return self.unconnected(now, at, slot, &dress);
        }
        let present = dress.present;
        let is_ours = match dress.replaced {
            Some(replaced) => self.replace(replaced, slot, dress.claim),
            None => true,
        };
        self.put_on(slot, dress);
        self.publish_late(now, slot);
        if !is_ours {
            // Another claim is past us, and gets nothing: this Session has no past yet.
            if let Some(at) = at {
                self.let_go(at, slot);
                self.close(now, at, None, End::Abnormal);
            }
            return self.end_session(now, slot, None);
        }
        match at {
            Some(at) => self.welcome(now, at, slot, present),
            // Its connection went meanwhile.
            None => self.leave(now, slot, End::Abnormal, false, None),
        }
    }

    /// The old Session is gone from the log. Returns whether the client id is still ours.
    fn replace(&mut self, replaced: (usize, u64), slot: usize, claim: CommitId) -> bool {
        let (old, number) = replaced;
        let session = self.sessions.get(old);
        let Some(session) = session.filter(|one| one.number() == number) else {
            return false;
        };
        let surrender = session.surrender.as_deref().copied();
        self.unsubscribe_all(old);
        if let Some((to, claim)) = surrender {
            self.hand_over(to, claim, None);
            return false;
        }
        self.settle_seat(slot, claim)
    }

    /// The log refused: everything stays what it was.
    fn unconnected(&mut self, now: Now, at: Option<usize>, slot: usize, dress: &Dress) {
        if let Some(at) = at {
            self.let_go(at, slot);
            self.refuse_connect(now, at, NO_ROOM);
        }
        if let Some((old, number)) = dress.replaced {
            self.unsubscribe_all(slot);
            let session = self.sessions.get_mut(old);
            if let Some(session) = session.filter(|one| one.number() == number) {
                session.unsettled = false;
                session.pending -= 1;
                self.rearm_session(old);
                self.try_hand_over(old);
            }
        } else if dress.present {
            self.rearm_session(slot);
        } else {
            self.forget_session(slot);
        }
    }

    /// Connection and Session are not each other's.
    fn let_go(&mut self, at: usize, slot: usize) {
        if let Some(connection) = self.connections.get_mut(at) {
            connection.session = None;
        }
        if let Some(session) = self.sessions.get_mut(slot) {
            session.connection = None;
        }
    }

    /// CONNACK, then what waits.
    fn welcome(&mut self, now: Now, at: usize, slot: usize, present: bool) {
        let Some(connection) = self.connections.get_mut(at) else {
            return;
        };
        let Some(session) = self.sessions.get_mut(slot) else {
            return;
        };
        connection.stage = Stage::Live;
        let packet = Packet::ConnAck(Box::new(ConnAck {
            session_present: present,
            reason: ConnAckReason::Success,
            properties: connection.welcome_properties(&self.shared, session),
        }));
        let sent = connection.send(&packet);
        self.counts.connections += 1;
        self.counts.connected += 1;
        if !sent {
            // The Client takes no packet as long as this one; nothing may come before it.
            return self.close(now, at, None, End::Abnormal);
        }
        self.touch(at);
        self.rearm_connection(now, at);
        self.announce_connected(now, at, slot);
        self.resume_out(now, slot);
        self.join_groups(slot);
        self.replay.push(at);
    }
}

impl Connection {
    /// What a CONNACK of success says: what the Client gets of what it asked for, and the bounds.
    fn welcome_properties(&mut self, shared: &Shared, session: &Session) -> ConnAckProperties {
        let limits = &shared.limits;
        let id = Text::try_from(&*session.publisher.client).ok();
        let keep_alive = u16::try_from(self.silence_ms_max / 1_500).unwrap_or(u16::MAX);
        let information = shared.response_information.as_ref();
        let enhanced = self.enhanced.as_mut();
        ConnAckProperties {
            // The Client knows what it asked for (3.2.2.3.2): what may have been cut is said.
            session_expiry_interval: Some(session.expiry_seconds)
                .filter(|seconds| *seconds == limits.session_expiry_seconds_max),
            receive_maximum: limits.receive_maximum,
            maximum_qos: limits.qos_max, // [MQTT-3.2.2-9]
            retain_available: limits.retain_available,
            maximum_packet_size: NonZeroU32::new(limits.packet_bytes_max),
            assigned_client_identifier: id.filter(|_| self.assigned), // [MQTT-3.1.3-7]
            topic_alias_maximum: limits.topic_alias_max,
            wildcard_subscription_available: limits.wildcards_available,
            server_keep_alive: (limits.keep_alive_seconds_max > 0).then_some(keep_alive),
            // [MQTT-3.1.2-28]
            response_information: information
                .filter(|_| self.wants_response_information)
                .cloned(),
            authentication: enhanced.map(|enhanced| enhanced.take_last()), // [MQTT-4.12.0-5]
            ..ConnAckProperties::default()
        }
    }
}
