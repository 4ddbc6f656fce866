//! Clients that cause more than they take: each costs only itself, and no more than its bounds.

use std::time::{Duration, Instant};

use crate::program::{Home, Program, until};
use crate::wire::{Hello, Wire, packet, publish, subscribe};

/// What is left over for everything else that may grow in a debug build.
const SLACK_BYTES: usize = 8 << 20;
/// More than all buffers of both ends hold.
const FLOOD_BYTES: usize = 48 << 20;

fn program(more: &[&str]) -> Program {
    let off = ["--set", "default_flows=false"];
    Home::new().start_with(&[&off[..], more].concat())
}

/// Somebody else on the same program, who must not notice: both threads have one.
fn others_are_served(program: &Program) {
    for id in ["one", "two", "three"] {
        let (mut other, _) = Wire::connect(program.mqtt(), &Hello::v5(id));
        other.subscribe(id, 1);
        other.send(&publish(id, b"x", 0, 0));
        assert_eq!(other.message().payload, b"x");
    }
}

#[test]
fn answers_that_nobody_reads_are_bounded_and_all_come() {
    let program = program(&["--set", "mqtt.output_bytes_max=64KiB"]);
    for (question, answer_bytes, why) in [
        (vec![0xC0, 0], 2, "PINGREQ"),
        (
            packet(0x62, &[0, 1]),
            5,
            "PUBREL of an identifier that is not held",
        ),
        (
            publish("a", b"", 1, 1),
            5,
            "PUBLISH at QoS 1 that nobody wants",
        ),
    ] {
        let (mut client, _) = Wire::connect(program.mqtt(), &Hello::v5("deaf"));
        let before = program.resident();
        let taken = client.flood(&question.repeat(4_096), FLOOD_BYTES);
        assert!(taken < FLOOD_BYTES, "{why}: everything was taken");
        let grown = program.resident().saturating_sub(before);
        assert!(grown < SLACK_BYTES, "{why}: {grown} bytes more");
        others_are_served(&program);
        // Once it reads, all of it is answered and it goes on: the rest of the packet that was cut
        // is taken too.
        client.skip(taken / question.len() * answer_bytes);
        client.send(&question[taken % question.len()..]);
        client.skip(answer_bytes);
        client.send(&[0xC0, 0]);
        assert_eq!(client.packet(), (0xD0, Vec::new()), "{why}");
    }
}

#[test]
fn retained_messages_asked_for_again_and_again_are_bounded() {
    let program = program(&["--set", "mqtt.output_bytes_max=64KiB"]);
    let (mut publisher, _) = Wire::connect(program.mqtt(), &Hello::v5("publisher"));
    for index in 0..1_000 {
        let mut retained = publish(&format!("r/{index}"), &[b'x'; 100], 0, 0);
        retained[0] |= 1;
        publisher.send(&retained);
    }
    until("a thousand retained messages", || {
        program.metric("headwater_retained") == 1_000
    });
    let before = program.resident();
    for id in ["deaf", "deaf too"] {
        let (mut client, _) = Wire::connect(program.mqtt(), &Hello::v5(id));
        let taken = client.flood(&subscribe("r/#", 0).repeat(1_000), FLOOD_BYTES);
        assert!(taken < FLOOD_BYTES, "everything was taken");
    }
    let grown = program.resident().saturating_sub(before);
    assert!(grown < SLACK_BYTES, "{grown} bytes more");
    others_are_served(&program);
}

/// CONNECT of version 5 without Keep Alive.
fn without_keep_alive(program: &Program) -> Wire {
    let mut wire = Wire::open(program.mqtt());
    wire.send(&packet(0x10, b"\0\x04MQTT\x05\x02\0\0\0\0\x04deaf"));
    assert_eq!(wire.packet().0, 0x20);
    wire
}

#[test]
fn client_that_never_reads_is_closed_after_the_send_timeout() {
    let program = program(&[
        "--set",
        "mqtt.output_bytes_max=64KiB",
        "--set",
        "mqtt.send_timeout=3s",
    ]);
    let mut deaf = without_keep_alive(&program);
    deaf.flood(&[0xC0, 0].repeat(4_096), FLOOD_BYTES);
    let (mut idle, _) = Wire::connect(program.mqtt(), &Hello::v5("idle"));
    until("the end of who does not read", || {
        program.metric("headwater_connections_unread_total") == 1
    });
    idle.send(&[0xC0, 0]);
    assert_eq!(idle.packet().0, 0xD0, "who waits for nothing stays");
}

/// A CONNECT of 64 KiB that never becomes whole.
fn long_connect() -> Vec<u8> {
    let mut bytes = vec![0x10, 0xF0, 0xFF, 0x03];
    bytes.extend(b"\0\x04MQTT\x05\xC2\0\0\0\0\x01a\xF0\x00");
    bytes.resize(60 << 10, b'u');
    bytes
}

#[test]
fn strangers_cost_at_most_64_kib_each() {
    // Longer than the patience of this test: who ends before it was refused.
    let program = program(&["--set", "mqtt.connect_timeout=60s"]);
    others_are_served(&program);
    let before = program.resident();
    let mut strangers: Vec<Wire> = (0..200).map(|_| Wire::open(program.mqtt())).collect();
    for (index, stranger) in strangers.iter_mut().enumerate() {
        match index % 4 {
            // Nothing at all; the first byte; much of it; and a length that is refused by its head.
            0 => {}
            1 => stranger.send(&[0x10]),
            2 => stranger.send(&long_connect()),
            _ => stranger.send(&[0x10, 0x81, 0x80, 0x04]),
        }
    }
    for stranger in strangers.iter_mut().skip(3).step_by(4) {
        assert_eq!(stranger.next(), None, "more than 64 KiB announced");
    }
    let grown = || program.resident().saturating_sub(before);
    until("what they sent is held", || grown() > 50 * (60 << 10));
    let grown = grown();
    assert!(grown < strangers.len() * (64 << 10), "{grown} bytes more");
    others_are_served(&program);
}

#[test]
fn strangers_have_5_s_and_no_more() {
    let program = program(&[]);
    let begin = Instant::now();
    let mut strangers: Vec<Wire> = (0..30).map(|_| Wire::open(program.mqtt())).collect();
    for stranger in strangers.iter_mut().step_by(2) {
        stranger.send(&long_connect());
    }
    for stranger in &mut strangers {
        assert_eq!(stranger.next(), None);
    }
    let took = begin.elapsed();
    let least = Duration::from_secs(5);
    assert!(took >= least, "the time they have: {took:?}");
    others_are_served(&program);
}
