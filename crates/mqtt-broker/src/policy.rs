//! What the broker asks of others: may this happen, and does a route store it?
//!
//! For: the two questions that `server` answers. Both are asked on the data path, for each PUBLISH
//!   and each of its deliveries: no lock that is held for long, no waiting.

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
}
