//! `headwater sub`: subscribes as mosquitto_sub does and prints what comes.

use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use headwater_mqtt_codec::{
    Delivery, Packet, PacketId, PubAck, PubAckReason, PubComp, PubCompReason, PubRec, PubRecReason,
    Publish, QoS, Subscribe, Subscription, SubscriptionOptions, Text, UserProperties, topic,
};
use serde_json::json;

use super::mqtt_client::{Connection, SessionWish};
use crate::cli::{Sub, Target};

/// mosquitto_sub's exit code when -W has run out.
const TIMED_OUT: u8 = 27;

/// Runs the verb until -C, -W or -E end it, or the connection does.
pub(crate) fn run(target: &Target, verb: &Sub, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let until = verb
        .wait
        .map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let wish = SessionWish {
        clean_start: !verb.no_clean,
        expiry_interval: verb.session_expiry_interval.unwrap_or(if verb.no_clean {
            u32::MAX
        } else {
            0
        }),
    };
    let mut connection = Connection::open(target, &verb.client, &wish)?;
    connection.send(&Packet::Subscribe(Box::new(subscribe(verb)?)))?;
    let mut left = verb.count;
    while left != Some(0) {
        let Some(packet) = connection.receive(until)? else {
            connection.close()?;
            return Ok(ExitCode::from(TIMED_OUT));
        };
        match packet {
            Packet::SubAck(ack) => {
                for (reason, filter) in ack.reasons.iter().zip(&verb.topics) {
                    if reason.is_error() {
                        bail!("the broker refused {filter}: {reason:?}");
                    }
                }
                if verb.exit_after_suback {
                    break;
                }
            }
            Packet::Publish(message) => {
                let shown = show(verb, &message, out)?;
                answer(&mut connection, message.delivery)?;
                if shown {
                    left = left.map(|left| left - 1);
                }
            }
            Packet::PubRel(release) => connection.send(&Packet::PubComp(PubComp::new(
                release.packet_id,
                PubCompReason::Success,
            )))?,
            _ => {}
        }
    }
    connection.close()?;
    Ok(ExitCode::SUCCESS)
}

fn subscribe(verb: &Sub) -> anyhow::Result<Subscribe> {
    let options = SubscriptionOptions {
        qos: QoS::from_bits(verb.client.qos).unwrap_or_default(),
        ..SubscriptionOptions::default()
    };
    let mut subscriptions = Vec::new();
    for filter in &verb.topics {
        if !topic::validate_filter(filter) {
            bail!("{filter} is no Topic Filter: + and # stand alone in a level, # only at the end");
        }
        let filter = Text::try_from(filter.as_str()).context("the filter is no MQTT text")?;
        subscriptions.push(Subscription { filter, options });
    }
    Ok(Subscribe {
        packet_id: PacketId(std::num::NonZeroU16::MIN),
        subscription_id: None,
        user_properties: UserProperties::default(),
        subscriptions,
    })
}

fn answer(connection: &mut Connection, delivery: Delivery) -> anyhow::Result<()> {
    match delivery {
        Delivery::AtMostOnce => Ok(()),
        Delivery::AtLeastOnce { packet_id, .. } => connection.send(&Packet::PubAck(PubAck::new(
            packet_id,
            PubAckReason::Success,
        ))),
        Delivery::ExactlyOnce { packet_id, .. } => connection.send(&Packet::PubRec(PubRec::new(
            packet_id,
            PubRecReason::Success,
        ))),
    }
}

/// Prints a message; false when it is left out.
fn show(verb: &Sub, message: &Publish, out: &mut dyn Write) -> anyhow::Result<bool> {
    if (verb.no_retained && message.retain)
        || verb
            .filter_out
            .iter()
            .any(|filter| topic::matches(filter, &message.topic))
    {
        return Ok(false);
    }
    if let Some(format) = &verb.format {
        write_format(format, message, out)?;
    } else {
        if verb.verbose {
            write!(out, "{} ", message.topic)?;
        }
        out.write_all(&message.payload)?;
    }
    if !verb.no_newline {
        out.write_all(b"\n")?;
    }
    out.flush()?;
    Ok(true)
}

fn write_format(format: &str, message: &Publish, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut rest = format.chars();
    while let Some(character) = rest.next() {
        match character {
            '%' => match rest.next() {
                Some('t') => write!(out, "{}", message.topic)?,
                Some('p') => out.write_all(&message.payload)?,
                Some('q') => write!(out, "{}", message.qos() as u8)?,
                Some('r') => write!(out, "{}", u8::from(message.retain))?,
                Some('l') => write!(out, "{}", message.payload.len())?,
                Some('x') => message
                    .payload
                    .iter()
                    .try_for_each(|byte| write!(out, "{byte:02x}"))?,
                Some('j') => write!(out, "{}", as_json(message))?,
                Some('%') => out.write_all(b"%")?,
                other => bail!(
                    "-F: %{} is not known",
                    other.map_or(String::new(), String::from)
                ),
            },
            '\\' => match rest.next() {
                Some('n') => out.write_all(b"\n")?,
                Some('t') => out.write_all(b"\t")?,
                Some('0') => out.write_all(b"\0")?,
                Some('\\') | None => out.write_all(b"\\")?,
                Some(other) => write!(out, "\\{other}")?,
            },
            plain => write!(out, "{plain}")?,
        }
    }
    Ok(())
}

fn as_json(message: &Publish) -> serde_json::Value {
    json!({
        "topic": message.topic.as_str(),
        "qos": message.qos() as u8,
        "retain": u8::from(message.retain),
        "payloadlen": message.payload.len(),
        "payload": String::from_utf8_lossy(&message.payload),
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn format_letters_are_mosquittos() {
        let message = Publish {
            delivery: Delivery::AtLeastOnce {
                packet_id: PacketId::new(7).unwrap(),
                dup: false,
            },
            retain: true,
            topic: Text::from_static("a/b"),
            topic_alias: None,
            subscription_ids: Vec::new(),
            properties: None,
            payload: Bytes::from_static(b"hi"),
        };
        let shown = |format: &str| {
            let mut out = Vec::new();
            write_format(format, &message, &mut out).map(|()| String::from_utf8(out).unwrap())
        };
        assert_eq!(
            shown("%t %p %q %r %l %x %%\\n").unwrap(),
            "a/b hi 1 1 2 6869 %\n"
        );
        assert!(shown("%j").unwrap().contains("\"payload\":\"hi\""));
        assert!(shown("%k").is_err());
    }
}
