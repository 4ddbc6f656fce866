//! What a Client and a door may take, as the configuration says.

use std::io::Read;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::program::{Home, Program};
use crate::wire::{Hello, Wire, packet, publish, subscribe};

fn start(settings: &[&str]) -> Program {
    let all: Vec<&str> = settings.iter().flat_map(|one| ["--set", one]).collect();
    Home::new().start_with(&all)
}

/// The Reason Code that ends an answer.
fn code(wire: &mut Wire) -> u8 {
    *wire.packet().1.last().unwrap()
}

#[test]
fn topics_and_subscriptions_are_bounded_by_their_keys() {
    let program = start(&[
        "mqtt.topic_levels_max=3",
        "mqtt.topic_bytes_max=9",
        "mqtt.subscriptions_max=2",
        "mqtt.reason_strings=false",
    ]);
    let (mut wire, _) = Wire::connect(program.doors["tcp"], &Hello::v5("c"));
    for (filter, expected) in [
        ("a/b/c", 0),
        ("a/b/c/#", 0x8f),
        ("1234567890", 0x8f),
        ("123456789", 0),
        ("d", 0x97),
    ] {
        wire.send(&subscribe(filter, 0));
        assert_eq!(code(&mut wire), expected, "{filter}");
    }
    for (topic, expected) in [("a/b/c/d", 0x90), ("1234567890", 0x90)] {
        wire.send(&publish(topic, b"x", 1, 7));
        let (first, body) = wire.packet();
        assert_eq!((first, body[2]), (0x40, expected), "{topic}");
    }
}

#[test]
fn shared_subscriptions_are_bounded_by_their_keys() {
    let program = start(&[
        "mqtt.shared_subscriptions_max=2",
        "mqtt.shared_groups_max=3",
        "mqtt.reason_strings=false",
    ]);
    let (mut one, _) = Wire::connect(program.doors["tcp"], &Hello::v5("c"));
    let (mut other, _) = Wire::connect(program.doors["tcp"], &Hello::v5("d"));
    let subscribe_to = |wire: &mut Wire, filter| {
        wire.send(&subscribe(filter, 0));
        code(wire)
    };
    for (filter, expected) in [("$share/1/a", 0), ("$share/2/a", 0), ("$share/3/a", 0x97)] {
        assert_eq!(subscribe_to(&mut one, filter), expected, "{filter}");
    }
    for (filter, expected) in [("$share/3/a", 0), ("$share/4/a", 0x97), ("$share/1/a", 0)] {
        assert_eq!(subscribe_to(&mut other, filter), expected, "{filter}");
    }
}

#[test]
fn no_more_is_in_flight_than_its_key_says() {
    let program = start(&["mqtt.inflight_max=2", "default_flows=false"]);
    let (mut reader, _) = Wire::connect(program.doors["tcp"], &Hello::v5("r"));
    reader.subscribe("a", 1);
    let (mut writer, _) = Wire::connect(program.doors["tcp"], &Hello::v5("w"));
    for id in 1..=3 {
        writer.send(&publish("a", &[id], 1, id.into()));
        assert_eq!(writer.packet().0, 0x40);
    }
    let first = reader.message();
    reader.message();
    reader.send(&[0xc0, 0]);
    assert_eq!(reader.packet().0, 0xd0, "and not the third");
    reader.acknowledge(0x40, first.id);
    assert_eq!(reader.message().payload, [3]);
}

#[test]
fn who_sends_too_fast_is_slowed_and_loses_nothing() {
    let program = start(&[
        "mqtt.bytes_per_second=1MiB",
        "listeners.tcp.messages_per_second=50",
        "listeners.tcp.messages_burst=10",
    ]);
    let (mut reader, _) = Wire::connect(program.doors["tcp"], &Hello::v5("r"));
    reader.subscribe("a", 0);
    let (mut writer, _) = Wire::connect(program.doors["tcp"], &Hello::v5("w"));
    let begun = Instant::now();
    let all: Vec<u8> = (0..60).flat_map(|one| publish("a", &[one], 0, 0)).collect();
    writer.send(&all);
    writer.send(&[0xc0, 0]);
    for one in 0..60 {
        assert_eq!(reader.message().payload, [one]);
    }
    assert_eq!(writer.packet().0, 0xd0);
    // 50 beyond the burst at 50 a second.
    assert!(
        begun.elapsed() >= Duration::from_millis(980),
        "{:?}",
        begun.elapsed()
    );
    assert!(program.metric("headwater_reads_slowed_total") > 0);
}

/// Whether it is closed without a word.
fn is_closed(mut stream: TcpStream) -> bool {
    stream
        .set_read_timeout(Some(crate::program::PATIENCE))
        .unwrap();
    matches!(stream.read(&mut [0]), Ok(0))
}

#[test]
fn a_door_that_is_full_closes_one_more_until_another_leaves() {
    let program = start(&["listeners.tcp.connections_max=2", "mqtt.connect_timeout=1h"]);
    let door = program.doors["tcp"];
    let (mut one, _) = Wire::connect(door, &Hello::v5("1"));
    let (_two, _) = Wire::connect(door, &Hello::v5("2"));
    assert!(is_closed(TcpStream::connect(door).unwrap()));
    one.send(&packet(0xe0, &[]));
    assert!(one.next().is_none());
    // Its place is given back when the server has seen the end.
    let begun = Instant::now();
    loop {
        let mut wire = Wire::open(door);
        wire.send(&Hello::v5("3").bytes());
        if wire.next().is_some() {
            break;
        }
        assert!(begun.elapsed() < crate::program::PATIENCE);
    }
}

#[test]
fn sockets_that_come_too_fast_wait_and_are_let_in() {
    let program = start(&[
        "listeners.tcp.connect_rate=20",
        "listeners.tcp.connect_burst=5",
    ]);
    let begun = Instant::now();
    let all: Vec<TcpStream> = (0..25)
        .map(|_| TcpStream::connect(program.doors["tcp"]).unwrap())
        .collect();
    for (number, stream) in all.into_iter().enumerate() {
        Wire::over(stream, &Hello::v5(&number.to_string()));
    }
    // 20 beyond the burst at 20 a second.
    assert!(
        begun.elapsed() >= Duration::from_millis(980),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn a_stranger_has_the_time_of_its_door() {
    let program = start(&[
        "mqtt.connect_timeout=1h",
        "listeners.tcp.connect_timeout=100ms",
    ]);
    assert!(is_closed(TcpStream::connect(program.doors["tcp"]).unwrap()));
}
