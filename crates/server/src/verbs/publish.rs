//! `headwater pub`: publishes as mosquitto_pub does and waits for what the QoS promises.

use std::collections::HashSet;
use std::io::{self, BufRead, Read};

use anyhow::{Context, bail};
use bytes::Bytes;
use headwater_mqtt_codec::{Delivery, Packet, PacketId, PubRel, PubRelReason, Publish, QoS, Text};

use super::mqtt_client::{Connection, SessionWish};
use crate::cli::{Pub, Target};

/// PUBLISHes sent without their last acknowledgement.
const WINDOW: usize = 100;

struct Publisher {
    connection: Connection,
    topic: Text,
    qos: QoS,
    retain: bool,
    next_id: u16,
    unacknowledged: HashSet<PacketId>,
}

/// Runs the verb; returns once everything is acknowledged.
pub(crate) fn run(target: &Target, verb: &Pub) -> anyhow::Result<()> {
    let topic = Text::try_from(verb.topic.as_str()).context("the topic is no MQTT text")?;
    if !headwater_mqtt_codec::topic::validate_name(&topic) {
        bail!("{topic} is no Topic Name: it may not be empty or hold + or #");
    }
    let wish = SessionWish {
        clean_start: true,
        expiry_interval: 0,
    };
    let mut publisher = Publisher {
        connection: Connection::open(target, &verb.client, &wish)?,
        topic,
        qos: QoS::from_bits(verb.client.qos).unwrap_or_default(),
        retain: verb.retain,
        next_id: 1,
        unacknowledged: HashSet::new(),
    };
    if verb.lines {
        for line in io::stdin().lock().lines() {
            publisher.publish(Bytes::from(line.context("standard input")?))?;
        }
    } else {
        let payload = if let Some(message) = &verb.message {
            Bytes::from(message.clone())
        } else if let Some(path) = &verb.file {
            Bytes::from(std::fs::read(path).with_context(|| path.display().to_string())?)
        } else if verb.stdin {
            let mut all = Vec::new();
            io::stdin().read_to_end(&mut all)?;
            Bytes::from(all)
        } else if verb.null {
            Bytes::new()
        } else {
            bail!("nothing to publish: give -m MESSAGE, -f FILE, -s, -l or -n");
        };
        publisher.publish(payload)?;
    }
    while !publisher.unacknowledged.is_empty() {
        publisher.take_answer()?;
    }
    publisher.connection.close()
}

impl Publisher {
    fn publish(&mut self, payload: Bytes) -> anyhow::Result<()> {
        while self.unacknowledged.len() >= WINDOW {
            self.take_answer()?;
        }
        let delivery = match self.qos {
            QoS::AtMostOnce => Delivery::AtMostOnce,
            QoS::AtLeastOnce => Delivery::AtLeastOnce {
                packet_id: self.take_id()?,
                dup: false,
            },
            QoS::ExactlyOnce => Delivery::ExactlyOnce {
                packet_id: self.take_id()?,
                dup: false,
            },
        };
        self.connection.send(&Packet::Publish(Publish {
            delivery,
            retain: self.retain,
            topic: self.topic.clone(),
            topic_alias: None,
            subscription_ids: Vec::new(),
            properties: None,
            payload,
        }))
    }

    fn take_id(&mut self) -> anyhow::Result<PacketId> {
        // At most WINDOW of 65,535 are in use: some attempt succeeds.
        for _ in 0..=WINDOW {
            let id = PacketId::new(self.next_id);
            self.next_id = self.next_id.wrapping_add(1);
            if let Some(id) = id
                && self.unacknowledged.insert(id)
            {
                return Ok(id);
            }
        }
        bail!("no packet identifier is free")
    }

    fn take_answer(&mut self) -> anyhow::Result<()> {
        match self.connection.receive(None)? {
            Some(Packet::PubAck(ack)) => {
                self.unacknowledged.remove(&ack.packet_id);
                if ack.reason.is_error() {
                    bail!("the broker refused the message: {:?}", ack.reason);
                }
            }
            Some(Packet::PubRec(ack)) => {
                if ack.reason.is_error() {
                    bail!("the broker refused the message: {:?}", ack.reason);
                }
                let release = PubRel::new(ack.packet_id, PubRelReason::Success);
                self.connection.send(&Packet::PubRel(release))?;
            }
            Some(Packet::PubComp(ack)) => {
                self.unacknowledged.remove(&ack.packet_id);
            }
            _ => {}
        }
        Ok(())
    }
}
