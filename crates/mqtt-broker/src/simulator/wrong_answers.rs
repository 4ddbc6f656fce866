//! Answers of a subscriber that do not fit what it was sent. Bytes from the specification.

use super::World;
use super::exchanges::{connect_v3, connect_v5, exchange, hex, live};
use crate::Limits;

/// A subscriber of `a` at this QoS whom one message was sent as identifier 1; then its answers.
fn after(version: u8, qos: u8, answers: &[&str]) -> (bool, Vec<u8>) {
    let mut world = World::new(1, Limits::default());
    let (connect, subscribe) = match version {
        4 => (
            connect_v3('s', true),
            format!("82 06 0001 0001 61 {qos:02x}"),
        ),
        _ => (
            connect_v5('s', "02", "00", ""),
            format!("82 07 0001 00 0001 61 {qos:02x}"),
        ),
    };
    let subscriber = live(&mut world, 0, &connect);
    exchange(&mut world, subscriber, &hex(&subscribe));
    let publisher = live(&mut world, 0, &connect_v3('p', true));
    let publish = hex(&format!("{:02x} 06 0001 61 0007 78", 0x30 | qos << 1));
    exchange(&mut world, publisher, &publish);
    let sent = world.read(subscriber);
    assert!(sent.windows(2).any(|pair| pair == [0, 1]), "{sent:?}");
    let mut last = Vec::new();
    for answer in answers {
        last = exchange(&mut world, subscriber, &hex(answer));
    }
    (world.is_open(subscriber), last)
}

#[test]
fn answer_of_the_other_qos_ends_the_connection() {
    // [MQTT-4.13.1-1]; MQTT 3.1.1, [MQTT-4.8.0-1].
    for (qos, answers, why) in [
        (1, &["50 02 0001"][..], "PUBREC for QoS 1"),
        (1, &["70 02 0001"], "PUBCOMP for QoS 1"),
        (2, &["40 02 0001"], "PUBACK for QoS 2"),
        (2, &["70 02 0001"], "PUBCOMP before PUBREC"),
        (2, &["50 02 0001", "40 02 0001"], "PUBACK for PUBREL"),
    ] {
        for version in [4, 5] {
            let (is_open, last) = after(version, qos, answers);
            assert!(!is_open, "{why}, version {version}");
            // DISCONNECT 0x82 where there is one.
            let said = last.first() == Some(&0xE0) && last.get(2) == Some(&0x82);
            assert_eq!(said, version == 5, "{why}: {last:02x?}");
        }
    }
}

#[test]
fn right_answers_and_those_to_nothing_do_no_harm() {
    for (qos, answers) in [
        (1, &["40 02 0001", "40 02 0001"][..]),
        (1, &["40 02 0009", "70 02 0009"]),
        (2, &["50 02 0001", "50 02 0001", "70 02 0001", "70 02 0001"]),
    ] {
        for version in [4, 5] {
            let (is_open, _) = after(version, qos, answers);
            assert!(is_open, "{qos} {answers:?}");
        }
    }
}

#[test]
fn topic_that_begins_like_a_shared_filter_is_not_published_to() {
    let mut world = World::new(1, Limits::default());
    let publisher = live(&mut world, 0, &connect_v5('p', "02", "00", ""));
    let publish = "32 11 000a 2473686172652f672f61 0001 00 7878";
    let answer = exchange(&mut world, publisher, &hex(publish));
    assert_eq!(answer.get(4), Some(&0x87), "{answer:02x?}");
}
