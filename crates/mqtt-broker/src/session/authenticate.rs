//! Enhanced authentication (MQTT 5.0, 4.12): the AUTH packets between CONNECT and CONNACK, and those
//! by which a Client that is connected proves itself again.
//!
//! For: whose turn it is, the method's name in every packet, bounds on rounds, bytes and time.
//! Not for: any method; `Config::methods` has them. What follows success, see `connect`.
//! Holds: nothing but AUTH and DISCONNECT before CONNACK [MQTT-3.1.2-30]; no AUTH to a Client whose
//!   CONNECT named no method [MQTT-4.12.0-6].

use std::fmt;

use headwater_mqtt_codec::{
    Auth, AuthReason, Authentication, Binary, ConnAckReason, DisconnectReason, Packet, Text,
    UserProperties,
};

use crate::connection::{Connection, Stage};
use crate::policy::{Applicant, AuthenticationExchange, AuthenticationStep};
use crate::reasons::{Rejection, Violation};
use crate::{Now, Shard, Verdict};

/// Packets of a Client in one exchange, its CONNECT counted.
const ROUNDS_MAX: u8 = 16;

const UNKNOWN_METHOD: Rejection = Rejection::new(
    ConnAckReason::BadAuthenticationMethod,
    "this authentication method is not known here",
);
const NOT_YOUR_TURN: Rejection = Rejection::new(
    ConnAckReason::ProtocolError,
    "only AUTH 0x18 with the method of CONNECT may follow before CONNACK",
);
const TOO_MUCH: Rejection = Rejection::new(
    ConnAckReason::QuotaExceeded,
    "the authentication took too many packets or bytes",
);
const UNPROVEN: &str = "the authentication failed";
const NO_METHOD: Violation = Violation::protocol("CONNECT named no authentication method");
const OTHER_METHOD: Violation =
    Violation::protocol("the authentication method is another than that of CONNECT");
const OUT_OF_TURN: Violation = Violation::protocol("this AUTH was not asked for");
const OTHER_USER: Violation = Violation::new(
    DisconnectReason::NotAuthorized,
    "the session belongs to the user who connected",
);
pub(crate) const TOO_SLOW: Violation = Violation::new(
    DisconnectReason::NotAuthorized,
    "the authentication took too long",
);

/// What a connection has of it, if its CONNECT named a method.
pub(crate) struct Enhanced {
    method: Text,
    under_way: Option<Exchange>,
    /// What goes with CONNACK.
    last: Option<Binary>,
}

struct Exchange {
    method: Box<dyn AuthenticationExchange>,
    rounds: u8,
    bytes: usize,
    /// It is over by then, by [`hearing_ms`](Shard::hearing_ms).
    until_ms: u64,
    /// The socket is not read since then: the Client's time stands still.
    paused_ms: Option<u64>,
}

impl fmt::Debug for Enhanced {
    /// Without what an exchange knows.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Enhanced")
            .field("method", &self.method)
            .field("under_way", &self.under_way.is_some())
            .finish_non_exhaustive()
    }
}

impl Enhanced {
    /// When a Client that proves itself again must be done, by
    /// [`hearing_ms`](Shard::hearing_ms); never while its socket is not read.
    pub(crate) fn until_ms(&self) -> Option<u64> {
        let exchange = self.under_way.as_ref();
        let exchange = exchange.filter(|one| one.paused_ms.is_none());
        exchange.map(|one| one.until_ms)
    }

    /// Its socket is not read any more.
    pub(crate) fn pause(&mut self, hearing_ms: u64) {
        if let Some(exchange) = &mut self.under_way {
            exchange.paused_ms = Some(hearing_ms);
        }
    }

    /// It is again.
    pub(crate) fn resume(&mut self, hearing_ms: u64) {
        if let Some(exchange) = &mut self.under_way
            && let Some(paused_ms) = exchange.paused_ms.take()
        {
            exchange.until_ms += hearing_ms.saturating_sub(paused_ms);
        }
    }

    /// For CONNACK [MQTT-4.12.0-5].
    pub(crate) fn take_last(&mut self) -> Authentication {
        Authentication {
            method: self.method.clone(),
            data: self.last.take(),
        }
    }
}

/// How far an exchange is after what the Client said.
enum Step {
    Asked,
    Proven(Box<str>, Option<Binary>),
}

impl Exchange {
    fn step(
        &mut self,
        data: Option<&Binary>,
        bytes_max: usize,
    ) -> Result<AuthenticationStep, Rejection> {
        self.rounds += 1;
        self.bytes += data.map_or(0, |data| data.len());
        if self.rounds > ROUNDS_MAX || self.bytes > bytes_max {
            return Err(TOO_MUCH);
        }
        Ok(self.method.step(data.map(|data| &data[..])))
    }
}

impl Connection {
    /// AUTH with this connection's method; `false` when it is longer than the Client takes.
    fn send_auth(&mut self, reason: AuthReason, data: Option<Binary>) -> bool {
        let Some(enhanced) = &self.enhanced else {
            return false;
        };
        let authentication = Authentication {
            method: enhanced.method.clone(),
            data,
        };
        self.send(&Packet::Auth(Box::new(Auth {
            reason,
            authentication,
            reason_string: None,
            user_properties: UserProperties::default(),
        })))
    }
}

impl Shard {
    /// CONNECT named a method: its exchange begins. The CONNECT is in its connection.
    pub(crate) fn authenticate(
        &mut self,
        now: Now,
        at: usize,
        asked: &Authentication,
    ) -> Result<(), Rejection> {
        let Some(connection) = self.connections.get_mut(at) else {
            return Ok(());
        };
        if !self.shared.methods.contains_key(&*asked.method) {
            return Err(UNKNOWN_METHOD); // [MQTT-4.12.0-1]
        }
        connection.stage = Stage::Authenticating;
        connection.enhanced = Some(Box::new(Enhanced {
            method: asked.method.detached(),
            under_way: None,
            last: None,
        }));
        self.begin_exchange(now, at);
        self.prove(at, asked.data.as_ref())
    }

    /// Any packet between such a CONNECT and its CONNACK.
    pub(crate) fn authenticating(&mut self, at: usize, packet: &Packet) -> Result<(), Rejection> {
        let method = self.connections.get(at);
        let method = method.and_then(|one| Some(&one.enhanced.as_ref()?.method));
        match packet {
            Packet::Auth(auth)
                if auth.reason == AuthReason::ContinueAuthentication
                    && Some(&auth.authentication.method) == method =>
            {
                self.prove(at, auth.authentication.data.as_ref())
            }
            _ => Err(NOT_YOUR_TURN),
        }
    }

    /// The Client's turn on its way to CONNACK.
    fn prove(&mut self, at: usize, data: Option<&Binary>) -> Result<(), Rejection> {
        match self.step_exchange(at, data)? {
            Step::Asked => Ok(()),
            Step::Proven(principal, last) => {
                if let Some(connection) = self.connections.get_mut(at)
                    && let Some(enhanced) = &mut connection.enhanced
                {
                    enhanced.last = last;
                }
                self.claim(at, principal)
            }
        }
    }

    fn begin_exchange(&mut self, now: Now, at: usize) {
        let hearing_ms = self.hearing_ms(now);
        let Some(connection) = self.connections.get_mut(at) else {
            return;
        };
        let Some(enhanced) = &mut connection.enhanced else {
            return;
        };
        let Some(method) = self.shared.methods.get(&*enhanced.method) else {
            return;
        };
        let session = connection.session.and_then(|slot| self.sessions.get(slot));
        let connect = connection.connect.as_ref();
        let applicant = Applicant {
            peer: &connection.peer,
            client: match (session, connect) {
                (Some(session), _) => &session.publisher.client,
                (None, Some(connect)) => &connect.client_id,
                (None, None) => "",
            },
            user: connect.and_then(|connect| connect.user_name.as_deref()),
        };
        enhanced.under_way = Some(Exchange {
            method: method.begin(applicant),
            rounds: 0,
            bytes: 0,
            until_ms: hearing_ms + self.shared.limits.connect_ms_max,
            paused_ms: connection.paused.then_some(hearing_ms),
        });
    }

    /// Hands the Client's data to the method and sends what that asks for.
    fn step_exchange(&mut self, at: usize, data: Option<&Binary>) -> Result<Step, Rejection> {
        let bytes_max = self.shared.limits.connect_bytes_max as usize;
        let connection = self.connections.get_mut(at).ok_or(TOO_MUCH)?;
        let enhanced = connection.enhanced.as_mut().ok_or(UNKNOWN_METHOD)?;
        let exchange = enhanced.under_way.as_mut().ok_or(NOT_YOUR_TURN)?;
        let step = exchange.step(data, bytes_max);
        if !matches!(step, Ok(AuthenticationStep::Continue(_))) {
            enhanced.under_way = None;
        }
        match step? {
            AuthenticationStep::Continue(data) => {
                // [MQTT-4.12.0-2]
                if !connection.send_auth(AuthReason::ContinueAuthentication, data) {
                    return Err(Rejection::new(ConnAckReason::PacketTooLarge, ""));
                }
                self.touch(at);
                Ok(Step::Asked)
            }
            AuthenticationStep::Done { principal, data } => Ok(Step::Proven(principal, data)),
            AuthenticationStep::Refused(verdict) => Err(match verdict {
                Verdict::BadCredentials => {
                    Rejection::new(ConnAckReason::BadUserNameOrPassword, UNPROVEN)
                }
                Verdict::Allow | Verdict::Deny => {
                    Rejection::new(ConnAckReason::NotAuthorized, UNPROVEN)
                }
            }),
        }
    }

    /// AUTH on a connection that stands (4.12.1). An error closes it.
    pub(crate) fn auth_in(&mut self, now: Now, at: usize, auth: &Auth) -> Result<(), Violation> {
        let Some(connection) = self.connections.get(at) else {
            return Ok(());
        };
        let enhanced = connection.enhanced.as_ref().ok_or(NO_METHOD)?; // [MQTT-4.12.0-7]
        if enhanced.method != auth.authentication.method {
            return Err(OTHER_METHOD); // [MQTT-4.12.1-1]
        }
        match (auth.reason, &enhanced.under_way) {
            (AuthReason::ReAuthenticate, None) => self.begin_exchange(now, at),
            (AuthReason::ContinueAuthentication, Some(_)) => {}
            _ => return Err(OUT_OF_TURN),
        }
        let step = self.step_exchange(at, auth.authentication.data.as_ref());
        let step = step.map_err(|rejection| Violation {
            reason: match rejection.reason {
                ConnAckReason::QuotaExceeded => DisconnectReason::QuotaExceeded,
                ConnAckReason::PacketTooLarge => DisconnectReason::PacketTooLarge,
                _ => DisconnectReason::NotAuthorized, // DISCONNECT has no 0x86.
            },
            why: rejection.why,
        })?; // [MQTT-4.12.1-2]
        if let Step::Proven(principal, data) = step {
            let connection = self.connections.get_mut(at);
            let session = connection
                .as_ref()
                .and_then(|one| self.sessions.get(one.session?));
            if session.is_none_or(|session| session.publisher.principal != principal) {
                return Err(OTHER_USER);
            }
            if let Some(connection) = connection {
                connection.send_auth(AuthReason::Success, data);
                self.touch(at);
            }
        }
        self.rearm_connection(now, at);
        Ok(())
    }
}
