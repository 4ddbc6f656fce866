//! `$SYS`: what the broker says of itself.
//!
//! For: values that the driver gives ([`Input::System`](crate::Input::System)), which stand like
//!   Retained Messages, and who comes and goes, in EMQX's form.
//! Not for: reckoning the values; `server` does.
//! Holds: it is state and no message: nothing of it is routed, in the log or owed to anybody. It
//!   goes out at QoS 0, whatever was granted; a Session that is away gets none of it, and what
//!   stands when it subscribes again. Announcements have a rate, and without it cost nothing.

use std::fmt::Write;
use std::sync::Arc;

use bytes::Bytes;
use headwater_mqtt_codec::{DisconnectReason, QoS, Text, Version};

use crate::connection::{Connection, Stage};
use crate::directory::Seat;
use crate::session::Session;
use crate::{Message, Now, Publisher, Rate, Shard};

/// What is said below `$SYS`, and to whom.
#[derive(Clone, Debug)]
pub struct System {
    /// This broker's name in `$SYS/brokers/NAME`: one level of a Topic Name.
    pub node: Box<str>,
    /// Clients that come and go are announced, so many of them a second at most; 0 is none.
    pub announcements_per_second: u32,
    /// Clients from other machines may read it.
    pub is_open: bool,
}

impl Default for System {
    fn default() -> Self {
        Self {
            node: "headwater@127.0.0.1".into(),
            announcements_per_second: 1_000,
            is_open: false,
        }
    }
}

impl System {
    /// A shard's part of them, one at least.
    pub(crate) fn announcements(&self, shards: usize) -> Rate {
        let all = u64::from(self.announcements_per_second);
        Rate {
            per_second: all.div_ceil(shards.max(1) as u64),
            burst: 0,
        }
    }
}

/// Whether a Topic Name is the broker's own, or a Topic Filter selects such names and no others.
pub(crate) fn is_system(topic: &str) -> bool {
    (topic.strip_prefix("$SYS")).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

pub(crate) const TCP_CLOSED: &str = "tcp_closed";

/// EMQX's word for the end of a connection from our side.
pub(crate) fn reason(said: Option<DisconnectReason>) -> &'static str {
    match said {
        Some(DisconnectReason::KeepAliveTimeout) => "keepalive_timeout",
        Some(DisconnectReason::SessionTakenOver) => "takenover",
        Some(DisconnectReason::ServerShuttingDown) => "server_shutting_down",
        Some(DisconnectReason::AdministrativeAction) => "kicked",
        Some(DisconnectReason::NotAuthorized) => "not_authorized",
        Some(DisconnectReason::PacketTooLarge) => "packet_too_large",
        Some(DisconnectReason::MalformedPacket) => "malformed_packet",
        Some(DisconnectReason::ProtocolError) => "protocol_error",
        Some(DisconnectReason::QuotaExceeded) => "quota_exceeded",
        Some(_) => "disconnected_by_server",
        None => TCP_CLOSED,
    }
}

impl Shard {
    /// New values: they stand from now on, and reach who has subscribed to them.
    pub(crate) fn system(&mut self, now: Now, values: Vec<(Text, Bytes)>) {
        for (topic, payload) in values {
            let message = self.own_message(now, topic, payload, true);
            let shared = self.shared.clone();
            let matches = &mut self.matches;
            let matched = shared.standing.set_and(&Arc::new(message.clone()), || {
                matches.find(&shared.tree, &message.topic).clone()
            });
            self.deliver_now(now, &matched, message);
        }
    }

    fn own_message(&self, now: Now, topic: Text, payload: Bytes, retain: bool) -> Message {
        let publisher = Publisher {
            client: self.shared.system.node.clone(),
            principal: "headwater".into(),
        };
        Message {
            topic,
            payload,
            qos: QoS::AtMostOnce,
            retain,
            properties: None,
            publisher: Arc::new(publisher),
            at_ms: now.wall_ms,
            expires_at: None,
            stored: None,
            from_log: false,
        }
    }

    /// Whether this Session's Client may read what this Topic Name is or this Topic Filter selects,
    /// as far as the broker says it of itself.
    pub(crate) fn may_read_system(&self, slot: usize, topic: &str) -> bool {
        if self.shared.system.is_open || !is_system(topic) {
            return true;
        }
        let connection = self.sessions.get(slot).and_then(|one| one.connection);
        let connection = connection.and_then(|at| self.connections.get(at));
        let address = connection.and_then(|one| one.peer.address);
        address.is_none_or(|address| address.ip().to_canonical().is_loopback())
    }

    /// `$SYS/brokers/NODE/clients/ID/connected`.
    pub(crate) fn announce_connected(&mut self, now: Now, at: usize, slot: usize) {
        self.announce(now, at, slot, "connected", |text, connection, session| {
            let keep_alive = connection.silence_ms_max / 1_500;
            write!(
                text,
                ",\"connected_at\":{at},\"connack\":0,\"clean_start\":{clean},\
                 \"keepalive\":{keep_alive},\"expiry_interval\":{expiry}",
                at = now.wall_ms,
                clean = connection.clean_start,
                expiry = session.expiry_seconds,
            )
        });
    }

    /// `$SYS/brokers/NODE/clients/ID/disconnected`, if it was connected.
    pub(crate) fn announce_gone(&mut self, now: Now, at: usize, reason: &'static str) {
        let connection = self.connections.get(at);
        let connection = connection.filter(|one| one.stage == Stage::Live);
        let Some(slot) = connection.and_then(|one| one.session) else {
            return;
        };
        self.announce(now, at, slot, "disconnected", |text, _, _| {
            let at = now.wall_ms;
            write!(text, ",\"disconnected_at\":{at},\"reason\":\"{reason}\"")
        });
    }

    fn announce(
        &mut self,
        now: Now,
        at: usize,
        slot: usize,
        what: &str,
        more: impl FnOnce(&mut String, &Connection, &Session) -> std::fmt::Result,
    ) {
        let system = &self.shared.system;
        if system.announcements_per_second == 0 {
            return;
        }
        if !self.announcements.take_one(now.mono_ms) {
            self.counts.unannounced += 1;
            return;
        }
        let (Some(connection), Some(session)) = (self.connections.get(at), self.sessions.get(slot))
        else {
            return;
        };
        let client = &session.publisher.client;
        let topic = format!("$SYS/brokers/{}/clients/{client}/{what}", system.node);
        // A client id may hold what a Topic Name may not.
        let Some(topic) = Text::try_from(&*topic)
            .ok()
            .filter(|_| !client.contains(['+', '#']))
        else {
            return;
        };
        // Not remembered: the next one has another topic.
        let tree = &self.shared.tree;
        let matched = self.matches.find_for(tree, &topic, Seat::NOBODY);
        if matched.is_empty() {
            return;
        }
        let mut text = String::new();
        let written = describe(&mut text, now, connection, session)
            .and_then(|()| more(&mut text, connection, session));
        if written.is_err() {
            return; // A String takes everything.
        }
        text.push('}');
        let message = self.own_message(now, topic, text.into(), false);
        self.deliver_now(now, &matched, message);
    }
}

/// What EMQX says of a Client in both cases, without the closing brace.
fn describe(
    text: &mut String,
    now: Now,
    connection: &Connection,
    session: &Session,
) -> std::fmt::Result {
    let (name, level) = match connection.version {
        Version::V31 => ("MQIsdp", 3),
        Version::V311 => ("MQTT", 4),
        Version::V5 => ("MQTT", 5),
    };
    text.push_str("{\"clientid\":");
    push_json(text, &session.publisher.client)?;
    text.push_str(",\"username\":");
    push_json(text, &session.publisher.principal)?;
    if let Some(address) = connection.peer.address {
        write!(text, ",\"ipaddress\":\"{}\"", address.ip().to_canonical())?;
    }
    let ts = now.wall_ms;
    write!(
        text,
        ",\"proto_name\":\"{name}\",\"proto_ver\":{level},\"ts\":{ts}"
    )
}

fn push_json(text: &mut String, value: &str) -> std::fmt::Result {
    text.push('"');
    for letter in value.chars() {
        match letter {
            '"' | '\\' => {
                text.push('\\');
                text.push(letter);
            }
            control if control.is_control() => write!(text, "\\u{:04x}", u32::from(control))?,
            other => text.push(other),
        }
    }
    text.push('"');
    Ok(())
}
