//! A publishing Client that keeps its Session: what is not answered is sent again, as the protocol says.
//!
//! Holds: a Packet Identifier is free again only after PUBACK or PUBCOMP; after a reconnect to the same Session,
//! PUBREL and PUBLISH are repeated, each in its first order [MQTT-4.4.0-1, MQTT-4.6.0-1].

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use headwater_mqtt_codec::{Packet, PubRel, PubRelReason, QoS, Version};
use rand::RngExt;

use super::{Phase, Progress, Shared};
use crate::client::{Connection, Identity, packet_id, publish};
use crate::history::{Event, Op};
use crate::payload::Payload;

/// How a publisher treats its connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Habit {
    Steady,
    /// Drops the connection every now and then, in the middle of whatever it does.
    Flapping,
    /// Sends, does not listen for a while, and often hangs up before it has heard the answer: the server may have
    /// taken the message by then, and the DUP that follows tells whether it remembers.
    Deaf,
}

#[derive(Clone, Debug)]
pub struct PublisherPlan {
    pub name: String,
    pub topic: String,
    pub version: Version,
    pub qos: QoS,
    pub retain: bool,
    pub habit: Habit,
    pub messages_per_second: u32,
    /// Messages in flight at most.
    pub window: usize,
    pub pad_bytes: usize,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    /// Its bytes have not left on this connection.
    Due,
    Sent,
    /// PUBREC was heard: only PUBREL may follow.
    Received,
}

#[derive(Clone, Debug)]
struct InFlight {
    packet_id: u16,
    seq: u64,
    stage: Stage,
    /// It left on an earlier connection of the same Session.
    dup: bool,
}

struct Publisher<'a> {
    plan: &'a PublisherPlan,
    shared: &'a Shared,
    in_flight: VecDeque<InFlight>,
    next_seq: u64,
    last_packet_id: u16,
    session_epoch: u32,
    next_due: Instant,
}

pub(super) fn run(
    plan: &PublisherPlan,
    shared: &Shared,
    progress: &Progress,
) -> anyhow::Result<()> {
    let identity = Identity {
        client_id: plan.name.clone(),
        version: plan.version,
        lasting: true,
    };
    let mut publisher = Publisher {
        plan,
        shared,
        in_flight: VecDeque::new(),
        next_seq: 1,
        last_packet_id: 0,
        session_epoch: 0,
        next_due: Instant::now(),
    };
    // Until its first connection this publisher is not at rest, though nothing is in flight.
    progress.count.store(1, Ordering::Release);
    while shared.phase() != Phase::Stop {
        match Connection::open(shared.address, &identity) {
            Ok(connection) => {
                publisher.resume(&connection)?;
                publisher.talk(connection, progress)?;
            }
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
    Ok(())
}

impl Publisher<'_> {
    fn event(&self, op: Op, one: &InFlight) -> Event {
        Event {
            client: self.plan.name.clone(),
            op,
            topic: self.plan.topic.clone(),
            key: self.plan.name.clone(),
            seq: one.seq,
            qos: self.plan.qos as u8,
            packet_id: one.packet_id,
            dup: one.dup,
            retain: self.plan.retain,
            session_epoch: self.session_epoch,
            lasting: true,
            ..Event::default()
        }
    }

    fn resume(&mut self, connection: &Connection) -> anyhow::Result<()> {
        let present = connection.session_present;
        if !present {
            self.session_epoch += 1;
            if self.plan.qos == QoS::ExactlyOnce {
                // The server forgot the identifiers: to send again might double, so their fate stays open.
                self.in_flight.clear();
            }
        }
        self.shared.recorder.record(Event {
            client: self.plan.name.clone(),
            op: Op::Connect,
            session_present: present,
            session_epoch: self.session_epoch,
            lasting: true,
            ..Event::default()
        })?;
        for one in &mut self.in_flight {
            one.dup = present && (one.dup || one.stage == Stage::Sent);
            if one.stage == Stage::Sent {
                one.stage = Stage::Due;
            }
        }
        Ok(())
    }

    /// Until the connection ends, by either side, or the load stops. Only what makes the run worthless is an error.
    fn talk(&mut self, mut connection: Connection, progress: &Progress) -> anyhow::Result<()> {
        let mut random = rand::rng();
        for one in self
            .in_flight
            .iter()
            .filter(|one| one.stage == Stage::Received)
        {
            connection.put(&release(one.packet_id)?)?;
        }
        let hangs_up_after = Duration::from_millis(random.random_range(30..250));
        let begun = Instant::now();
        loop {
            let phase = self.shared.phase();
            if phase == Phase::Stop {
                connection.disconnect();
                return Ok(());
            }
            let publishing = phase == Phase::Publish;
            if publishing {
                self.make();
            }
            self.put_due(&mut connection)?;
            progress
                .count
                .store(self.in_flight.len() as u64, Ordering::Release);
            if connection.flush().is_err() {
                return Ok(());
            }
            if publishing && self.plan.habit != Habit::Steady && begun.elapsed() > hangs_up_after {
                return Ok(());
            }
            if publishing && self.plan.habit == Habit::Deaf && random.random_bool(0.3) {
                std::thread::sleep(Duration::from_millis(random.random_range(5..60)));
                if random.random_bool(0.5) {
                    return Ok(());
                }
            }
            if !self.take_all(&mut connection)? {
                return Ok(());
            }
        }
    }

    /// Takes what is there, and waits a moment for the first. False: the connection ended.
    fn take_all(&mut self, connection: &mut Connection) -> anyhow::Result<bool> {
        let mut wait = Duration::from_millis(5);
        for _ in 0..self.plan.window {
            match connection.receive(wait) {
                Ok(Some(packet)) => self.take(connection, &packet)?,
                Ok(None) => return Ok(true),
                Err(_) => return Ok(false),
            }
            wait = Duration::from_millis(1);
        }
        Ok(true)
    }

    /// New messages as the rate allows.
    fn make(&mut self) {
        let now = Instant::now();
        let pause = Duration::from_secs(1) / self.plan.messages_per_second.max(1);
        // What could not be sent while the server was away is not made up for.
        self.next_due = self.next_due.max(now.checked_sub(pause * 4).unwrap_or(now));
        while self.next_due <= now && self.in_flight.len() < self.plan.window {
            self.next_due += pause;
            let packet_id = self.free_packet_id();
            self.in_flight.push_back(InFlight {
                packet_id,
                seq: self.next_seq,
                stage: Stage::Due,
                dup: false,
            });
            self.next_seq += 1;
        }
    }

    fn free_packet_id(&mut self) -> u16 {
        loop {
            self.last_packet_id = self.last_packet_id.checked_add(1).unwrap_or(1);
            if self
                .in_flight
                .iter()
                .all(|one| one.packet_id != self.last_packet_id)
            {
                return self.last_packet_id;
            }
        }
    }

    /// Puts what is due into the output and records it: the record stands before the bytes leave.
    fn put_due(&mut self, connection: &mut Connection) -> anyhow::Result<()> {
        let plan = self.plan;
        let window = usize::from(connection.receive_maximum);
        let due: Vec<InFlight> = self
            .in_flight
            .iter()
            .take(window)
            .filter(|one| one.stage == Stage::Due)
            .cloned()
            .collect();
        for one in due {
            let payload =
                Payload::new(&self.shared.run, &plan.name, one.seq, plan.pad_bytes).to_bytes();
            connection.put(&publish(
                &plan.topic,
                plan.qos,
                one.packet_id,
                one.dup,
                plan.retain,
                payload,
            )?)?;
            self.shared.recorder.record(self.event(Op::Send, &one))?;
        }
        for one in self
            .in_flight
            .iter_mut()
            .take(window)
            .filter(|one| one.stage == Stage::Due)
        {
            one.stage = Stage::Sent;
        }
        Ok(())
    }

    fn take(&mut self, connection: &mut Connection, packet: &Packet) -> anyhow::Result<()> {
        match packet {
            Packet::PubAck(answer) => {
                let id = answer.packet_id.value();
                self.answered(id, answer.reason.code())?;
                self.forget(id);
            }
            Packet::PubRec(answer) => {
                let id = answer.packet_id.value();
                self.answered(id, answer.reason.code())?;
                if answer.reason.is_error() {
                    self.forget(id);
                } else {
                    connection.put(&release(id)?)?;
                }
            }
            Packet::PubComp(answer) => self.forget(answer.packet_id.value()),
            _ => {}
        }
        Ok(())
    }

    /// The first answer to a message decides its fate; a repeated PUBREC adds nothing.
    fn answered(&mut self, id: u16, code: u8) -> anyhow::Result<()> {
        let waiting = self
            .in_flight
            .iter_mut()
            .find(|one| one.packet_id == id && one.stage != Stage::Received);
        let Some(one) = waiting else { return Ok(()) };
        one.stage = Stage::Received;
        let one = one.clone();
        let refused = code >= 0x80;
        let op = if refused { Op::Fail } else { Op::Ack };
        let detail = if code == 0 {
            String::new()
        } else {
            format!("0x{code:02x}")
        };
        self.shared.recorder.record(Event {
            detail,
            ..self.event(op, &one)
        })?;
        if !refused {
            self.shared.acked.fetch_add(1, Ordering::AcqRel);
        }
        Ok(())
    }

    fn forget(&mut self, id: u16) {
        self.in_flight.retain(|one| one.packet_id != id);
    }
}

fn release(id: u16) -> anyhow::Result<Packet> {
    Ok(Packet::PubRel(PubRel::new(
        packet_id(id)?,
        PubRelReason::Success,
    )))
}
