//! The broker's table rows as bytes: what a restart knows.
//!
//! For: encoding and decoding each row. Every value begins with a version byte.
//! Holds: decoding is total; a row of an unknown version reads as `None`, never as something else.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use headwater_mqtt_codec::{
    Decoder, Delivery, Packet, PacketId, PublishRef, QoS, RetainHandling, SubscriptionId,
    SubscriptionOptions, Version,
};
use smallvec::SmallVec;

use crate::owed::{Owed, put_varint, take_u8, take_varint};
use crate::{Change, Message, Now, Position, Publisher, Table};

const VERSION: u8 = 1;
/// Of the rows of QoS 2 messages that came from a group.
const VERSION_OF_GROUPS: u8 = 2;

/// A Session as its row knows it.
#[derive(Debug)]
pub(crate) struct SessionRow {
    pub(crate) publisher: Publisher,
    /// Session Expiry Interval in seconds; `u32::MAX` never.
    pub(crate) expiry_seconds: u32,
    /// When its last connection ended, wall clock; `None` while connected.
    pub(crate) left_at_ms: Option<i64>,
    pub(crate) will: Option<WillRow>,
}

/// A Will, logged with its Session.
#[derive(Clone, Debug)]
pub(crate) struct WillRow {
    pub(crate) delay_seconds: u32,
    /// `at_ms` is set anew when it is published.
    pub(crate) message: Arc<Message>,
}

/// Up to where everything a Session is owed is settled.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Floor {
    /// From here on everything is still owed.
    pub(crate) front: u64,
    /// Below `front`, only these are: they were sent and not acknowledged. Ascending.
    pub(crate) open: Vec<u64>,
}

impl Floor {
    pub(crate) fn is_owed(&self, sequence: u64) -> bool {
        sequence >= self.front || self.open.binary_search(&sequence).is_ok()
    }

    pub(crate) fn lowest(&self) -> u64 {
        self.open.first().copied().unwrap_or(self.front)
    }
}

/// How far a QoS 2 message to a Session is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct OutboundRow {
    pub(crate) sequence: u64,
    /// PUBREC came.
    pub(crate) released: bool,
    /// A group owed it: no entry says that this Session does.
    pub(crate) from_group: Option<Box<Owed>>,
}

fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.put_slice(bytes);
}

fn take_bytes<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(take_varint(bytes)?).ok()?;
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

fn take_str(bytes: &mut &[u8]) -> Option<Box<str>> {
    Some(std::str::from_utf8(take_bytes(bytes)?).ok()?.into())
}

fn take_i64(bytes: &mut &[u8]) -> Option<i64> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(i64::from_be_bytes(*taken))
}

fn take_version(bytes: &mut &[u8]) -> Option<()> {
    (take_u8(bytes)? == VERSION).then_some(())
}

fn key(number: u64, rest: &[u8]) -> Bytes {
    let mut key = BytesMut::with_capacity(8 + rest.len());
    key.put_u64(number);
    key.put_slice(rest);
    key.freeze()
}

/// The session number a key begins with, and the rest of the key.
pub(crate) fn split_key(key: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = key.split_first_chunk()?;
    Some((u64::from_be_bytes(*number), rest))
}

/// The packet identifier that is the rest of a key.
pub(crate) fn packet_id(rest: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(rest.try_into().ok()?))
}

fn row(table: Table, key: Bytes, value: Option<BytesMut>) -> Change {
    Change {
        table,
        key,
        value: value.map(BytesMut::freeze),
    }
}

fn begin() -> BytesMut {
    let mut value = BytesMut::new();
    value.put_u8(VERSION);
    value
}

pub(crate) fn session(number: u64, session: &SessionRow) -> Change {
    let mut value = begin();
    put_bytes(&mut value, session.publisher.client.as_bytes());
    put_bytes(&mut value, session.publisher.principal.as_bytes());
    value.put_u32(session.expiry_seconds);
    value.put_u8(u8::from(session.left_at_ms.is_some()));
    value.put_i64(session.left_at_ms.unwrap_or(0));
    value.put_u8(u8::from(session.will.is_some()));
    if let Some(will) = &session.will {
        value.put_u32(will.delay_seconds);
        put_message(&mut value, &will.message);
    }
    row(Table::Sessions, key(number, &[]), Some(value))
}

pub(crate) fn decode_session(value: &Bytes, now: Now) -> Option<SessionRow> {
    let mut bytes = &value[..];
    let bytes = &mut bytes;
    take_version(bytes)?;
    let publisher = Publisher {
        client: take_str(bytes)?,
        principal: take_str(bytes)?,
    };
    let expiry_seconds = take_u32(bytes)?;
    let left = take_u8(bytes)? != 0;
    let at = take_i64(bytes)?;
    let will = if take_u8(bytes)? != 0 {
        let delay_seconds = take_u32(bytes)?;
        Some(WillRow {
            delay_seconds,
            message: Arc::new(take_message(bytes, value, now)?),
        })
    } else {
        None
    };
    Some(SessionRow {
        publisher,
        expiry_seconds,
        left_at_ms: left.then_some(at),
        will,
    })
}

fn take_u32(bytes: &mut &[u8]) -> Option<u32> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u32::from_be_bytes(*taken))
}

pub(crate) fn session_gone(number: u64) -> Change {
    row(Table::Sessions, key(number, &[]), None)
}

pub(crate) fn subscription(
    number: u64,
    filter: &str,
    options: SubscriptionOptions,
    id: Option<SubscriptionId>,
) -> Change {
    let mut value = begin();
    value.put_u8(
        options.qos as u8
            | u8::from(options.no_local) << 2
            | u8::from(options.retain_as_published) << 3
            | (options.retain_handling as u8) << 4,
    );
    put_varint(&mut value, id.map_or(0, |id| u64::from(id.value())));
    row(
        Table::Subscriptions,
        key(number, filter.as_bytes()),
        Some(value),
    )
}

pub(crate) fn decode_subscription(
    value: &[u8],
) -> Option<(SubscriptionOptions, Option<SubscriptionId>)> {
    let mut bytes = value;
    let bytes = &mut bytes;
    take_version(bytes)?;
    let flags = take_u8(bytes)?;
    let options = SubscriptionOptions {
        qos: QoS::from_bits(flags & 3)?,
        no_local: flags & 4 != 0,
        retain_as_published: flags & 8 != 0,
        retain_handling: match flags >> 4 {
            0 => RetainHandling::Send,
            1 => RetainHandling::SendIfNew,
            2 => RetainHandling::DoNotSend,
            _ => return None,
        },
    };
    let id = SubscriptionId::new(u32::try_from(take_varint(bytes)?).ok()?);
    Some((options, id))
}

pub(crate) fn subscription_gone(number: u64, filter: &str) -> Change {
    row(Table::Subscriptions, key(number, filter.as_bytes()), None)
}

pub(crate) fn inbound(number: u64, id: PacketId) -> Change {
    row(
        Table::Inbound,
        key(number, &id.value().to_be_bytes()),
        Some(begin()),
    )
}

pub(crate) fn inbound_gone(number: u64, id: u16) -> Change {
    row(Table::Inbound, key(number, &id.to_be_bytes()), None)
}

pub(crate) fn outbound(number: u64, id: u16, owed: &Owed, released: bool) -> Change {
    let mut value = begin();
    if !owed.is_own() {
        value.clear();
        value.put_u8(VERSION_OF_GROUPS);
    }
    value.put_u8(u8::from(released));
    put_varint(&mut value, owed.sequence);
    if !owed.is_own() {
        put_varint(&mut value, owed.group);
        put_varint(&mut value, u64::from(owed.position.partition));
        put_varint(&mut value, owed.position.offset);
        put_varint(&mut value, u64::from(owed.weight));
        value.put_u8(u8::from(owed.retain));
        for id in &owed.ids {
            put_varint(&mut value, u64::from(id.value()));
        }
    }
    row(Table::Outbound, key(number, &id.to_be_bytes()), Some(value))
}

pub(crate) fn decode_outbound(value: &[u8]) -> Option<OutboundRow> {
    let mut bytes = value;
    let bytes = &mut bytes;
    let version = take_u8(bytes)?;
    if version != VERSION && version != VERSION_OF_GROUPS {
        return None;
    }
    let released = take_u8(bytes)? != 0;
    let sequence = take_varint(bytes)?;
    let from_group = match version {
        VERSION => None,
        _ => Some(Box::new(take_owed(bytes, sequence)?)),
    };
    Some(OutboundRow {
        sequence,
        released,
        from_group,
    })
}

/// A group's QoS 2 message that a member has for good.
fn take_owed(bytes: &mut &[u8], sequence: u64) -> Option<Owed> {
    let group = take_varint(bytes)?;
    let position = Position {
        partition: u32::try_from(take_varint(bytes)?).ok()?,
        offset: take_varint(bytes)?,
    };
    let weight = u32::try_from(take_varint(bytes)?).ok()?;
    let retain = take_u8(bytes)? != 0;
    let mut ids = SmallVec::new();
    while !bytes.is_empty() {
        ids.push(SubscriptionId::new(
            u32::try_from(take_varint(bytes)?).ok()?,
        )?);
    }
    Some(Owed {
        sequence,
        position,
        qos: QoS::ExactlyOnce,
        retain,
        weight,
        ids,
        group,
    })
}

pub(crate) fn outbound_gone(number: u64, id: u16) -> Change {
    row(Table::Outbound, key(number, &id.to_be_bytes()), None)
}

pub(crate) fn floor(number: u64, floor: &Floor) -> Change {
    let mut value = begin();
    put_varint(&mut value, floor.front);
    let mut last = 0;
    for sequence in &floor.open {
        put_varint(&mut value, sequence - last);
        last = *sequence;
    }
    row(Table::Floors, key(number, &[]), Some(value))
}

pub(crate) fn decode_floor(value: &[u8]) -> Option<Floor> {
    let mut bytes = value;
    let bytes = &mut bytes;
    take_version(bytes)?;
    let front = take_varint(bytes)?;
    let mut open = Vec::new();
    let mut last = 0_u64;
    while !bytes.is_empty() {
        last = last.checked_add(take_varint(bytes)?)?;
        open.push(last);
    }
    Some(Floor { front, open })
}

pub(crate) fn floor_gone(number: u64) -> Change {
    row(Table::Floors, key(number, &[]), None)
}

pub(crate) fn group(number: u64, name: &str) -> Change {
    let mut value = begin();
    value.put_slice(name.as_bytes());
    row(Table::Groups, key(number, &[]), Some(value))
}

pub(crate) fn decode_group(value: &[u8]) -> Option<Box<str>> {
    let mut bytes = value;
    take_version(&mut bytes)?;
    Some(std::str::from_utf8(bytes).ok()?.into())
}

pub(crate) fn group_gone(number: u64) -> Change {
    row(Table::Groups, key(number, &[]), None)
}

pub(crate) fn handed(group: u64, sequence: u64) -> Change {
    let value = Some(begin());
    row(Table::Handed, key(group, &sequence.to_be_bytes()), value)
}

/// The sequence that is the rest of a key.
pub(crate) fn sequence(rest: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(rest.try_into().ok()?))
}

pub(crate) fn handed_gone(group: u64, sequence: u64) -> Change {
    row(Table::Handed, key(group, &sequence.to_be_bytes()), None)
}

/// Each shard's numbers ascend in commit order, so each has a row of its own.
pub(crate) fn numbers(shard: usize, next: u64) -> Change {
    let mut value = begin();
    value.put_u64(next);
    let key = (shard as u64).to_be_bytes();
    row(Table::Numbers, Bytes::copy_from_slice(&key), Some(value))
}

pub(crate) fn decode_numbers(value: &[u8]) -> Option<u64> {
    let mut bytes = value;
    take_version(&mut bytes)?;
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

/// The row of the Retained Message of `message`'s topic.
pub(crate) fn retained(message: &Message) -> Change {
    let value = (!message.payload.is_empty()).then(|| {
        let mut value = begin();
        put_message(&mut value, message);
        value
    });
    row(
        Table::Retained,
        Bytes::copy_from_slice(message.topic.as_bytes()),
        value,
    )
}

/// A Will that waits for the log, in its place among those of one Session.
pub(crate) fn will(number: u64, sequence: u64, message: &Message) -> Change {
    let mut value = begin();
    put_message(&mut value, message);
    let key = key(number, &sequence.to_be_bytes());
    row(Table::Wills, key, Some(value))
}

pub(crate) fn will_gone(number: u64, sequence: u64) -> Change {
    row(Table::Wills, key(number, &sequence.to_be_bytes()), None)
}

pub(crate) fn decode_message(value: &Bytes, now: Now) -> Option<Message> {
    let mut bytes = &value[..];
    let bytes = &mut bytes;
    take_version(bytes)?;
    take_message(bytes, value, now)
}

/// Who, when, until when, then the message as an MQTT 5.0 PUBLISH.
fn put_message(out: &mut BytesMut, message: &Message) {
    put_bytes(out, message.publisher.client.as_bytes());
    put_bytes(out, message.publisher.principal.as_bytes());
    out.put_i64(message.at_ms);
    // By the wall clock, which a restart has.
    let expires_ms = (message.expiry_ms().and_then(|ms| i64::try_from(ms).ok()))
        .filter(|_| message.expires_at.is_some())
        .map(|ms| message.at_ms.saturating_add(ms));
    out.put_u8(u8::from(expires_ms.is_some()));
    out.put_i64(expires_ms.unwrap_or(0));
    let (packet_id, dup) = (PacketId(std::num::NonZeroU16::MIN), false);
    let view = PublishRef {
        delivery: match message.qos {
            QoS::AtMostOnce => Delivery::AtMostOnce,
            QoS::AtLeastOnce => Delivery::AtLeastOnce { packet_id, dup },
            QoS::ExactlyOnce => Delivery::ExactlyOnce { packet_id, dup },
        },
        retain: message.retain,
        topic: &message.topic,
        topic_alias: None,
        subscription_ids: &[],
        message_expiry_interval: message
            .properties
            .as_deref()
            .and_then(|properties| properties.message_expiry_interval),
        properties: message.properties.as_deref(),
        payload: &message.payload,
    };
    // Fails only for what is longer than a packet can be, and it came in a packet. The row then
    // reads as none.
    if view.encode(Version::V5, out).is_err() {
        out.clear();
    }
}

/// `bytes` is the rest of `value`, whose memory the message shares.
fn take_message(bytes: &mut &[u8], value: &Bytes, now: Now) -> Option<Message> {
    let publisher = Arc::new(Publisher {
        client: take_str(bytes)?,
        principal: take_str(bytes)?,
    });
    let at_ms = take_i64(bytes)?;
    let expires = take_u8(bytes)? != 0;
    let expires_ms = take_i64(bytes)?;
    let mut packet = value.slice(value.len().checked_sub(bytes.len())?..);
    let mut decoder = Decoder::for_client(Version::V5, u32::MAX);
    let Ok(Some(Packet::Publish(publish))) = decoder.decode(&mut packet) else {
        return None;
    };
    let mut message = Message {
        qos: publish.qos(),
        topic: publish.topic,
        payload: publish.payload,
        retain: publish.retain,
        properties: publish.properties,
        publisher,
        at_ms,
        expires_at: None,
        stored: None,
        from_log: false,
    };
    if expires {
        let left_ms = u64::try_from(expires_ms.saturating_sub(now.wall_ms)).unwrap_or(0);
        // Where the wall clock was set back meanwhile, it lives as if it came now, not longer.
        let left_ms = left_ms.min(message.expiry_ms().unwrap_or(u64::MAX));
        message.expires_at = Some(now.mono_ms.saturating_add(left_ms));
    }
    Some(message)
}

#[cfg(test)]
mod tests {
    use headwater_mqtt_codec::PublishProperties;
    use proptest::prelude::*;

    use super::*;

    fn value(change: Change) -> Bytes {
        change.value.unwrap()
    }

    #[test]
    fn message_rows_give_the_message_back() {
        let message = Message {
            qos: QoS::ExactlyOnce,
            at_ms: 5,
            ..Message::example("a/b")
        };
        let now = Now {
            mono_ms: 7_000,
            wall_ms: 3_000,
        };
        let back = decode_message(&value(retained(&message)), now).unwrap();
        assert_eq!(format!("{back:?}"), format!("{message:?}"));
        let back = decode_message(&value(will(1, 2, &message)), now).unwrap();
        assert_eq!(format!("{back:?}"), format!("{message:?}"));
        let empty = Message {
            payload: Bytes::new(),
            ..message.clone()
        };
        assert_eq!(retained(&empty).value, None, "an empty payload clears");
        let row = SessionRow {
            publisher: Publisher {
                client: "c".into(),
                principal: "p".into(),
            },
            expiry_seconds: 7,
            left_at_ms: Some(-3),
            will: Some(WillRow {
                delay_seconds: 4,
                message: Arc::new(message),
            }),
        };
        let back = decode_session(&value(session(1, &row)), now).unwrap();
        assert_eq!(format!("{back:?}"), format!("{row:?}"));
    }

    #[test]
    fn expiry_goes_by_the_wall_clock_over_a_restart() {
        let mut message = Message {
            properties: Some(Box::new(PublishProperties {
                message_expiry_interval: Some(60),
                ..PublishProperties::default()
            })),
            ..Message::example("a")
        };
        let at = |mono_ms, wall_ms| Now { mono_ms, wall_ms };
        message.arrive(at(500_000, 1_000_000));
        let row = value(retained(&message));
        for (wall_ms, left_ms, why) in [
            (1_000_000, 60_000, "at once"),
            (1_020_000, 40_000, "20 s later"),
            (1_060_000, 0, "too late"),
            (
                9_000_000,
                0,
                "or the clock was set forward while it was down",
            ),
            (
                1,
                60_000,
                "the clock was set back: not longer than its interval",
            ),
        ] {
            let back = decode_message(&row, at(3_000, wall_ms)).unwrap();
            assert_eq!(back.expires_at, Some(3_000 + left_ms), "{why}");
            assert_eq!(back.at_ms, 1_000_000);
        }
    }

    #[test]
    fn the_row_of_a_groups_message_gives_it_back() {
        let owed = Owed {
            sequence: 300,
            position: Position {
                partition: 2,
                offset: 1 << 40,
            },
            qos: QoS::ExactlyOnce,
            retain: true,
            weight: 77,
            ids: SmallVec::from_slice(&[SubscriptionId::new(200).unwrap()]),
            group: 9,
        };
        let back = decode_outbound(&value(outbound(1, 5, &owed, true))).unwrap();
        assert_eq!(back.from_group.as_deref(), Some(&owed));
        assert!(back.released && back.sequence == 300);
        let own = Owed { group: 0, ..owed };
        let back = decode_outbound(&value(outbound(1, 5, &own, false))).unwrap();
        assert!(back.from_group.is_none() && !back.released && back.sequence == 300);
    }

    proptest! {
        #[test]
        fn floors_survive(front: u64, open: std::collections::BTreeSet<u64>) {
            let all = Floor { front, open: open.into_iter().collect() };
            prop_assert_eq!(decode_floor(&value(floor(1, &all))), Some(all));
        }

        #[test]
        fn decoding_is_total(bytes: Vec<u8>) {
            let bytes = Bytes::from(bytes);
            let _ = decode_session(&bytes, Now::default());
            let _ = decode_message(&bytes, Now::default());
            let _ = decode_subscription(&bytes);
            let _ = decode_floor(&bytes);
            let _ = decode_outbound(&bytes);
            let _ = decode_numbers(&bytes);
            let _ = decode_group(&bytes);
        }
    }
}
