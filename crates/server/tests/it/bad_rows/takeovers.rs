//! Connections that end others: a second CONNECT, and many with one client id.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use super::{CON4, CON5};
use crate::ground::{Ground, ends_with};
use crate::program::until;
use crate::wire::{Wire, hex, packet, publish, text};

#[test]
fn row_26_second_connect_and_a_thousand_of_one_id() {
    let mut ground = Ground::new();
    ground.refused(CON5, 0x82, "a second CONNECT [MQTT-3.1.0-2]");
    ground.refused_in_3(CON4, "a second CONNECT");
    for _ in 0..2 {
        let mut first = ground.v5("a");
        let mut wires: Vec<Wire> = Vec::new();
        for _ in 0..1_000 {
            let mut wire = Wire::open(ground.program.mqtt());
            wire.send(&hex(CON5));
            wires.push(wire);
        }
        until("all but one are closed", || {
            ground.program.metric("headwater_sockets") == 3
        });
        ends_with(&mut first, 0x8E, "[MQTT-3.1.4-3]");
        let mut survivors = 0;
        for wire in &mut wires {
            // Only the one that stays answers this.
            wire.send_if_open(&[0xC0, 0]);
            let Some((first, body)) = wire.next() else {
                // Another one came before its turn: without CONNACK there is no DISCONNECT [MQTT-3.14.0-1].
                continue;
            };
            assert_eq!((first, body[1]), (0x20, 0), "CONNACK, Success");
            match wire.packet() {
                (0xD0, _) => survivors += 1,
                (first, body) => assert_eq!((first, body[0]), (0xE0, 0x8E), "[MQTT-3.1.4-3]"),
            }
        }
        assert_eq!(survivors, 1, "exactly one stays");
        drop(wires);
        ground.round_over();
    }
    let sessions = "headwater_sessions{state=\"all\"}";
    until("no session is left over", || {
        ground.program.metric(sessions) == 2
    });
    ground.end();
}

/// Wills of those that take the Session over.
const ONE_BY_ONE: RangeInclusive<u16> = 1..=20;
/// 200 sockets where the row has 1,000: those are the test above.
const CROWD: RangeInclusive<u16> = 21..=220;

/// CONNECT of 5.0, client id "a", for a Session of an hour, with this Will on "will" at QoS 1.
fn heard(will: u16) -> Vec<u8> {
    let body = [
        &b"\0\x04MQTT\x05\x0c\0\x3c\x05\x11\0\0\x0e\x10\0\x01a\0"[..],
        &text(b"will"),
        &text(&will.to_be_bytes()),
    ];
    packet(0x10, &body.concat())
}

/// The numbers of the Wills that are accepted, and the one connection that stays.
fn fight(ground: &Ground, others: u64) -> (BTreeSet<u16>, u16, Wire) {
    let mut wires: Vec<Wire> = Vec::new();
    for will in CROWD {
        let mut wire = Wire::open(ground.program.mqtt());
        wire.send(&heard(will));
        wires.push(wire);
    }
    until("all but one are closed", || {
        ground.program.metric("headwater_sockets") == others + 1
    });
    let mut accepted = BTreeSet::new();
    let mut stays = None;
    for (will, mut wire) in CROWD.zip(wires) {
        wire.send_if_open(&[0xC0, 0]);
        let Some((first, body)) = wire.next() else {
            continue;
        };
        assert_eq!(
            (first, body[0], body[1]),
            (0x20, 1, 0),
            "CONNACK, the Session"
        );
        accepted.insert(will);
        let (mut first, mut body) = wire.packet();
        if first == 0x3C {
            // What is in flight is sent to each that gets so far [MQTT-4.4.0-1].
            (first, body) = wire.packet();
        }
        match first {
            0xD0 => assert!(stays.replace((will, wire)).is_none(), "one stays"),
            _ => assert_eq!((first, body[0]), (0xE0, 0x8E), "[MQTT-3.1.4-3]"),
        }
    }
    let (will, wire) = stays.expect("one that stays");
    (accepted, will, wire)
}

#[test]
fn row_26_takeovers_with_qos_2_and_a_will_in_flight() {
    let ground = Ground::new();
    let mut heir = ground.v5("heir");
    heir.subscribe("will", 1);
    heir.subscribe("out", 2);
    let mut first = Wire::open(ground.program.mqtt());
    first.send(&heard(0));
    assert_eq!(first.packet().1[..2], [0, 0], "CONNACK, no Session");
    first.subscribe("in", 2);
    // One in flight to it without PUBREC, one from it without PUBREL.
    heir.send(&publish("in", b"to it", 0, 0));
    heir.send(&publish("in", b"to it", 2, 5));
    assert_eq!(heir.packet().0, 0x50, "PUBREC");
    heir.acknowledge(0x62, 5);
    assert_eq!(heir.packet().0, 0x70, "PUBCOMP");
    assert_eq!(first.message().id, 0);
    let in_flight = first.message().id;
    first.send(&publish("out", b"from it", 2, 7));
    assert_eq!(first.packet().0, 0x50, "PUBREC");
    let message = heir.message();
    assert_eq!(message.payload, b"from it");
    for (answer, then) in [(0x50, 0x62), (0x70, 0xD0)] {
        heir.acknowledge(answer, message.id);
        if answer == 0x70 {
            heir.send(&[0xC0, 0]);
        }
        assert_eq!(heir.packet().0, then);
    }
    // One after the other, then all at once: of a crowd few come as far as CONNACK.
    for will in ONE_BY_ONE {
        let mut next = Wire::open(ground.program.mqtt());
        next.send(&heard(will));
        assert_eq!(next.packet().1[..2], [1, 0], "CONNACK, the Session");
        ends_with(&mut first, 0x8E, "[MQTT-3.1.4-3]");
        first = next;
    }
    let (mut accepted, stays, mut last) = fight(&ground, 3);
    ends_with(&mut first, 0x8E, "[MQTT-3.1.4-3]");
    accepted.extend(ONE_BY_ONE);
    // Both exchanges go on where they were.
    last.acknowledge(0x50, in_flight);
    assert_eq!(last.packet(), (0x62, in_flight.to_be_bytes().to_vec()));
    last.acknowledge(0x70, in_flight);
    let mut again = publish("out", b"from it", 2, 7);
    again[0] |= 0x08;
    last.send(&again);
    assert_eq!(last.packet(), (0x50, vec![0, 7]), "PUBREC");
    last.acknowledge(0x62, 7);
    assert_eq!(last.packet(), (0x70, vec![0, 7]), "PUBCOMP");
    last.send(&publish("will", b"end", 1, 8));
    assert_eq!(last.packet().0, 0x40, "PUBACK");
    // Who was accepted and is gone is heard of, once, and so may be whose CONNACK came too late for
    // it; who stays is not. No copy of what came at QoS 2 is among them.
    let mut wills = BTreeSet::new();
    loop {
        let message = heir.message();
        heir.acknowledge(0x40, message.id);
        if message.payload == b"end" {
            break;
        }
        let will = u16::from_be_bytes(message.payload.try_into().unwrap());
        assert!(wills.insert(will), "Will {will} twice");
    }
    assert!(wills.contains(&0), "of the first");
    let silent: Vec<&u16> = accepted.difference(&wills).collect();
    assert_eq!(silent, [&stays], "of {accepted:?}");
    // Session Expiry Interval 0.
    last.send(&hex("e0 07 00 05 11 00000000"));
    assert_eq!(last.next(), None);
    drop(heir);
    let sessions = "headwater_sessions{state=\"all\"}";
    until("no session is left over", || {
        ground.program.metric(sessions) == 2
    });
    ground.end();
}
