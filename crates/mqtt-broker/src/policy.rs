//! What the broker asks of others: may this happen, and does a route store it?
//!
//! For: the questions that `server` answers. Two are asked on the data path, for each PUBLISH and each
//!   of its deliveries: no lock that is held for long, no waiting. And the methods by which a Client
//!   may prove who it is.

use headwater_mqtt_codec::Binary;

use crate::{Message, Peer, Publisher};

/// Whether a route stores a message in the log.
pub trait Routes: Send + Sync {
    fn takes(&self, message: &Message) -> bool;
}

/// No route takes anything.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoRoutes;

impl Routes for NoRoutes {
    fn takes(&self, _message: &Message) -> bool {
        false
    }
}

/// The answer at a door.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    Allow,
    /// Not authorized, 0x87.
    Deny,
    /// Bad user name or password, 0x86. Only at CONNECT.
    BadCredentials,
}

/// Who may do what. Every door of the house asks the same one.
pub trait Policy: Send + Sync {
    /// Whose Session this CONNECT would be; `Err` refuses it. A Session belongs to its principal.
    fn connect(
        &self,
        peer: &Peer,
        client: &str,
        user: Option<&str>,
        password: Option<&[u8]>,
    ) -> Result<Box<str>, Verdict>;
    fn publish(&self, publisher: &Publisher, topic: &str) -> Verdict;
    fn subscribe(&self, subscriber: &Publisher, filter: &str) -> Verdict;
    /// Whether this message may reach a subscriber whose filter was allowed and selects more.
    fn receive(&self, subscriber: &Publisher, topic: &str) -> Verdict;
    /// Which rules the answers are by: another number once all answers are by others, so that what
    /// is read before a question is no newer than its answer.
    fn generation(&self) -> u64;
}

/// Who wants to prove something.
#[derive(Clone, Copy, Debug)]
pub struct Applicant<'a> {
    pub peer: &'a Peer,
    pub client: &'a str,
    /// The User Name of CONNECT; `None` also when a connected Client proves itself again.
    pub user: Option<&'a str>,
}

/// A method of enhanced authentication (MQTT 5.0, 4.12), under its name in `Config::methods`.
pub trait AuthenticationMethod: Send + Sync {
    /// Begins one exchange. What the Client said first comes to its `step`.
    fn begin(&self, applicant: Applicant<'_>) -> Box<dyn AuthenticationExchange>;
}

/// One Client's exchange. Ends with its connection; its number of steps, the bytes of their data and
/// its time are bounded by the broker.
pub trait AuthenticationExchange: Send {
    /// The Authentication Data of the Client's CONNECT or AUTH. No waiting: a shard waits with it.
    fn step(&mut self, data: Option<&[u8]>) -> AuthenticationStep;
}

/// What follows from what the Client said.
#[derive(Clone, Debug)]
pub enum AuthenticationStep {
    /// The Client is asked for more, with this data.
    Continue(Option<Binary>),
    /// It is who it says. The data goes with CONNACK, or with AUTH 0x00.
    Done {
        /// Whose Session it is. It cannot change while the Session lives.
        principal: Box<str>,
        data: Option<Binary>,
    },
    /// It is not.
    Refused(Verdict),
}

/// Allows everything to everyone, who all are `anonymous`.
#[derive(Clone, Copy, Debug, Default)]
pub struct AllowAll;

impl Policy for AllowAll {
    fn connect(
        &self,
        _peer: &Peer,
        _client: &str,
        _user: Option<&str>,
        _password: Option<&[u8]>,
    ) -> Result<Box<str>, Verdict> {
        Ok("anonymous".into())
    }

    fn publish(&self, _publisher: &Publisher, _topic: &str) -> Verdict {
        Verdict::Allow
    }

    fn subscribe(&self, _subscriber: &Publisher, _filter: &str) -> Verdict {
        Verdict::Allow
    }

    fn receive(&self, _subscriber: &Publisher, _topic: &str) -> Verdict {
        Verdict::Allow
    }

    fn generation(&self) -> u64 {
        0
    }
}
