//! Numbered messages of one publisher, and a Session that takes them and sees whether one is missing, doubled or out of turn.
//!
//! For: runs that ask how much and how long, where an event a message would be most of the work.
//! Not for: connections that break while messages are sent; `load` and `judge` do that.
//! Calls: `client`, `payload`. Called by: `owed`.
//! Holds: a message at QoS 2 that comes a second time after its PUBREL is an error, whatever happened in between.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use headwater_mqtt_codec::{
    Packet, PubAck, PubAckReason, PubComp, PubCompReason, PubRec, PubRecReason, PubRel,
    PubRelReason, Publish, QoS, Version,
};

use crate::client::{Connection, Identity, publish};
use crate::payload::Payload;

/// Unanswered messages of a publisher; fewer when the server takes fewer.
const WINDOW: u16 = 1_000;
/// A disk that others use too answers late.
const WAIT: Duration = Duration::from_secs(60);

/// What one publisher sends.
#[derive(Clone, Debug)]
pub struct Stream {
    /// Also its Client Identifier.
    pub producer: String,
    pub topic: String,
    pub qos: QoS,
    pub pad_bytes: usize,
}

impl Stream {
    /// Publishes these numbers and returns when each is acknowledged.
    pub fn publish(
        &self,
        address: SocketAddr,
        run: &str,
        numbers: Range<u64>,
    ) -> anyhow::Result<()> {
        let identity = Identity {
            client_id: self.producer.clone(),
            version: Version::V5,
            lasting: false,
        };
        let mut connection = Connection::open(address, &identity)?;
        let window = usize::from(WINDOW.min(connection.receive_maximum));
        let (mut next, mut open) = (numbers.start, 0);
        while next < numbers.end || open > 0 {
            while next < numbers.end && open < window {
                let payload = Payload::new(run, &self.producer, next, self.pad_bytes).to_bytes();
                // Never again while it is open: the window is far smaller than the cycle.
                let id = u16::try_from(next % u64::from(u16::MAX))? + 1;
                connection.put(&publish(&self.topic, self.qos, id, false, false, payload)?)?;
                next += 1;
                open += 1;
            }
            connection.flush()?;
            loop {
                open -= usize::from(answered(&mut connection)?);
                if !connection.has_input() {
                    break;
                }
            }
        }
        connection.disconnect();
        Ok(())
    }
}

/// Takes one answer; true when it ends a message.
fn answered(connection: &mut Connection) -> anyhow::Result<bool> {
    let packet = connection.receive(WAIT)?;
    match packet.with_context(|| format!("no acknowledgement in {WAIT:?}"))? {
        Packet::PubAck(answer) if !answer.reason.is_error() => Ok(true),
        Packet::PubComp(answer) if !answer.reason.is_error() => Ok(true),
        Packet::PubRec(answer) if !answer.reason.is_error() => {
            let release = PubRel::new(answer.packet_id, PubRelReason::Success);
            connection.put(&Packet::PubRel(release))?;
            Ok(false)
        }
        other => bail!("instead of an acknowledgement: {other:?}"),
    }
}

/// A subscriber that keeps its Session.
#[derive(Clone, Debug)]
pub struct Taker {
    run: String,
    identity: Identity,
    /// By producer: the number that must come next.
    next: BTreeMap<String, u64>,
    /// QoS 2 Packet Identifiers from PUBLISH to PUBREL: what comes again under one of them is the same message.
    unreleased: HashSet<u16>,
    /// Messages so far, each once.
    pub taken: u64,
    /// QoS 1 messages that came again, which a fault allows.
    pub repeated: u64,
}

impl Taker {
    pub fn new(run: &str, client_id: &str) -> Self {
        Self {
            run: run.to_owned(),
            identity: Identity {
                client_id: client_id.to_owned(),
                version: Version::V5,
                lasting: true,
            },
            next: BTreeMap::new(),
            unreleased: HashSet::new(),
            taken: 0,
            repeated: 0,
        }
    }

    /// Makes the Session with one subscription and goes away; it ends after `expiry` seconds if that is given.
    pub fn subscribe_and_leave(
        &self,
        address: SocketAddr,
        filter: &str,
        qos: QoS,
        expiry: Option<u32>,
    ) -> anyhow::Result<()> {
        let mut connection = match expiry {
            Some(expiry) => Connection::open_for(address, &self.identity, expiry)?,
            None => Connection::open(address, &self.identity)?,
        };
        ensure!(!connection.session_present, "a Session was there already");
        connection.subscribe(filter, qos)?;
        connection.leave()
    }

    /// Comes back to its Session.
    pub fn connect(&self, address: SocketAddr) -> anyhow::Result<Connection> {
        let connection = Connection::open(address, &self.identity)?;
        ensure!(
            connection.session_present,
            "the Session of {} is gone",
            self.identity.client_id
        );
        Ok(connection)
    }

    /// Comes back once more and ends its Session.
    pub fn end(self, address: SocketAddr) -> anyhow::Result<()> {
        Connection::open_for(address, &self.identity, 0)?.leave()
    }

    /// Takes messages until it has `total` of them.
    pub fn take(&mut self, connection: &mut Connection, total: u64) -> anyhow::Result<()> {
        while self.taken < total {
            let packet = connection.receive(WAIT)?;
            let packet = packet.with_context(|| {
                format!(
                    "{} of {total} messages, then nothing in {WAIT:?}",
                    self.taken
                )
            })?;
            connection.put(&self.answer(&packet)?)?;
            if !connection.has_input() {
                connection.flush()?;
            }
        }
        connection.flush()
    }

    fn answer(&mut self, packet: &Packet) -> anyhow::Result<Packet> {
        match packet {
            Packet::Publish(publish) => self.arrived(publish),
            Packet::PubRel(release) => {
                self.unreleased.remove(&release.packet_id.value());
                let end = PubComp::new(release.packet_id, PubCompReason::Success);
                Ok(Packet::PubComp(end))
            }
            other => bail!("instead of a message: {other:?}"),
        }
    }

    fn arrived(&mut self, publish: &Publish) -> anyhow::Result<Packet> {
        let payload =
            Payload::from_bytes(&publish.payload, &self.run).map_err(anyhow::Error::msg)?;
        let id = publish.packet_id().context("a message at QoS 0")?;
        if publish.qos() == QoS::ExactlyOnce {
            if self.unreleased.insert(id.value()) {
                self.count(&payload, false)?;
            }
            return Ok(Packet::PubRec(PubRec::new(id, PubRecReason::Success)));
        }
        self.count(&payload, true)?;
        Ok(Packet::PubAck(PubAck::new(id, PubAckReason::Success)))
    }

    fn count(&mut self, payload: &Payload, may_repeat: bool) -> anyhow::Result<()> {
        let next = self.next.entry(payload.producer.clone()).or_insert(0);
        if payload.seq < *next && may_repeat {
            self.repeated += 1;
            return Ok(());
        }
        ensure!(
            payload.seq == *next,
            "{}: number {} where {next} was due",
            payload.producer,
            payload.seq
        );
        *next += 1;
        self.taken += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(qos: QoS, id: u16, seq: u64) -> Packet {
        let payload = Payload::new("r", "p", seq, 0).to_bytes();
        publish("t", qos, id, false, false, payload).unwrap()
    }

    #[test]
    fn missing_and_doubled_messages_are_errors() {
        let mut taker = Taker::new("r", "c");
        let at_least = QoS::AtLeastOnce;
        taker.answer(&message(at_least, 1, 0)).unwrap();
        taker.answer(&message(at_least, 2, 1)).unwrap();
        taker.answer(&message(at_least, 3, 0)).unwrap();
        assert_eq!((taker.taken, taker.repeated), (2, 1));
        assert!(taker.answer(&message(at_least, 4, 3)).is_err(), "a gap");
        assert!(
            Taker::new("q", "c")
                .answer(&message(at_least, 1, 0))
                .is_err()
        );
    }

    #[test]
    fn exactly_once_message_comes_again_only_under_its_identifier() {
        let mut taker = Taker::new("r", "c");
        let exactly = QoS::ExactlyOnce;
        for _ in 0..2 {
            taker.answer(&message(exactly, 7, 0)).unwrap();
        }
        assert_eq!((taker.taken, taker.repeated), (1, 0));
        let id = crate::client::packet_id(7).unwrap();
        let release = PubRel::new(id, PubRelReason::Success);
        taker.answer(&Packet::PubRel(release)).unwrap();
        assert!(taker.answer(&message(exactly, 7, 0)).is_err(), "doubled");
    }
}
