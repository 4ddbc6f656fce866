//! A subscribing Client that keeps its Session, and the fresh one that reads Retained Messages.
//!
//! Holds: a PUBLISH is recorded before it is answered; once it is answered the server may forget it.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use headwater_mqtt_codec::{
    Packet, PubAck, PubAckReason, PubComp, PubCompReason, PubRec, PubRecReason, Publish, QoS,
    Version,
};
use rand::RngExt;

use super::{Phase, Progress, Shared, TOPICS};
use crate::client::{Connection, Identity};
use crate::history::{Event, Op, Recorder};
use crate::payload::Payload;

/// When a subscriber is connected.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Presence {
    Online,
    /// Drops the connection every now and then.
    Flapping,
    /// Away while messages are published; comes to take what it is owed, and leaves again.
    Offline,
}

#[derive(Clone, Debug)]
pub struct SubscriberPlan {
    pub name: String,
    pub version: Version,
    pub qos: QoS,
    pub presence: Presence,
}

struct Subscriber<'a> {
    plan: &'a SubscriberPlan,
    shared: &'a Shared,
    progress: &'a Progress,
    seen: HashSet<(String, u64)>,
    session_epoch: u32,
    subscribed: bool,
}

pub(super) fn run(
    plan: &SubscriberPlan,
    shared: &Shared,
    progress: &Progress,
) -> anyhow::Result<()> {
    let identity = Identity {
        client_id: plan.name.clone(),
        version: plan.version,
        lasting: true,
    };
    let mut subscriber = Subscriber {
        plan,
        shared,
        progress,
        seen: HashSet::new(),
        session_epoch: 0,
        subscribed: false,
    };
    loop {
        let phase = shared.phase();
        if phase == Phase::Stop {
            return Ok(());
        }
        if subscriber.is_away(phase) {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        }
        match Connection::open(shared.address, &identity) {
            Ok(connection) => subscriber.listen(connection)?,
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
        progress.connected.store(false, Ordering::Release);
    }
}

impl Subscriber<'_> {
    fn is_away(&self, phase: Phase) -> bool {
        self.plan.presence == Presence::Offline && phase != Phase::Drain
    }

    fn event(&self, op: Op) -> Event {
        Event {
            client: self.plan.name.clone(),
            op,
            session_epoch: self.session_epoch,
            lasting: true,
            ..Event::default()
        }
    }

    fn listen(&mut self, mut connection: Connection) -> anyhow::Result<()> {
        let session_present = connection.session_present;
        if !session_present {
            self.session_epoch += 1;
            self.subscribed = false;
        }
        self.shared.recorder.record(Event {
            session_present,
            ..self.event(Op::Connect)
        })?;
        if !self.subscribed {
            let Ok(early) = connection.subscribe(TOPICS, self.plan.qos) else {
                return Ok(());
            };
            let (topic, qos) = (TOPICS.to_owned(), self.plan.qos as u8);
            self.shared.recorder.record(Event {
                topic,
                qos,
                ..self.event(Op::Subscribe)
            })?;
            self.subscribed = true;
            for packet in early {
                self.take(&mut connection, &packet)?;
            }
        }
        self.progress.connected.store(true, Ordering::Release);
        let hangs_up_after = Duration::from_millis(rand::rng().random_range(40..300));
        let begun = Instant::now();
        loop {
            let phase = self.shared.phase();
            if phase == Phase::Stop || self.is_away(phase) {
                connection.disconnect();
                return Ok(());
            }
            let flaps = self.plan.presence == Presence::Flapping && phase == Phase::Publish;
            if flaps && begun.elapsed() > hangs_up_after {
                return Ok(());
            }
            match connection.receive(Duration::from_millis(5)) {
                Ok(Some(packet)) => self.take(&mut connection, &packet)?,
                Ok(None) => {}
                Err(_) => return Ok(()),
            }
        }
    }

    /// Records, then answers. That an answer could not be sent shows at the next receive.
    fn take(&mut self, connection: &mut Connection, packet: &Packet) -> anyhow::Result<()> {
        self.shared
            .last_arrival
            .store(self.shared.recorder.now(), Ordering::Release);
        let answer = match packet {
            Packet::Publish(publish) => {
                let payload = Payload::from_bytes(&publish.payload, &self.shared.run);
                let session_epoch = self.session_epoch;
                let event = arrival(&self.plan.name, publish, &payload);
                self.shared.recorder.record(Event {
                    session_epoch,
                    ..event
                })?;
                if let Ok(payload) = payload {
                    self.seen.insert((payload.producer, payload.seq));
                    self.progress
                        .count
                        .store(self.seen.len() as u64, Ordering::Release);
                }
                match (publish.qos(), publish.packet_id()) {
                    (QoS::AtLeastOnce, Some(id)) => {
                        Packet::PubAck(PubAck::new(id, PubAckReason::Success))
                    }
                    (QoS::ExactlyOnce, Some(id)) => {
                        Packet::PubRec(PubRec::new(id, PubRecReason::Success))
                    }
                    _ => return Ok(()),
                }
            }
            Packet::PubRel(release) => {
                let packet_id = release.packet_id.value();
                self.shared.recorder.record(Event {
                    packet_id,
                    ..self.event(Op::Release)
                })?;
                Packet::PubComp(PubComp::new(release.packet_id, PubCompReason::Success))
            }
            _ => return Ok(()),
        };
        drop(connection.send(&answer));
        Ok(())
    }
}

fn arrival(client: &str, publish: &Publish, payload: &Result<Payload, String>) -> Event {
    let event = Event {
        client: client.to_owned(),
        op: Op::Recv,
        topic: publish.topic.to_string(),
        qos: publish.qos() as u8,
        packet_id: publish.packet_id().map_or(0, |id| id.value()),
        dup: publish.dup(),
        retain: publish.retain,
        ..Event::default()
    };
    match payload {
        Ok(payload) => Event {
            key: payload.producer.clone(),
            seq: payload.seq,
            ..event
        },
        Err(why) => Event {
            detail: why.clone(),
            ..event
        },
    }
}

/// Reads the Retained Message of each topic as a Client that was never there before, and records what it found.
pub fn read_retained(
    address: SocketAddr,
    run: &str,
    recorder: &Recorder,
    topics: &[String],
) -> anyhow::Result<()> {
    for topic in topics {
        let client_id = format!("fresh-{}", recorder.now());
        let identity = Identity {
            client_id: client_id.clone(),
            version: Version::V311,
            lasting: false,
        };
        let mut connection = Connection::open(address, &identity)?;
        let mut packets = connection.subscribe(topic, QoS::AtLeastOnce)?;
        if packets.is_empty() {
            packets.extend(connection.receive(Duration::from_secs(2))?);
        }
        let found = match packets.first() {
            Some(Packet::Publish(publish)) => arrival(
                &client_id,
                publish,
                &Payload::from_bytes(&publish.payload, run),
            ),
            _ => Event {
                client: client_id,
                topic: topic.clone(),
                ..Event::default()
            },
        };
        recorder.record(Event {
            op: Op::Retained,
            ..found
        })?;
        connection.disconnect();
    }
    Ok(())
}
