//! Topic Aliases both ways. Bytes from the specification.

use super::World;
use super::exchanges::{connect_v3, connect_v5, exchange, hex, live};
use crate::Limits;

/// A subscriber of "#" with these properties, and a publisher.
fn both(
    world: &mut World,
    properties: &str,
    qos: &str,
) -> (crate::ConnectionId, crate::ConnectionId) {
    let subscriber = live(world, 0, &connect_v5('s', "00", properties, ""));
    let subscribe = hex(&format!("82 07 0001 00 0001 23 {qos}"));
    exchange(world, subscriber, &subscribe);
    let publisher = live(world, 0, &connect_v3('p', true));
    (subscriber, publisher)
}

/// QoS 0, payload "x".
fn publish(topic: &str) -> Vec<u8> {
    let topic: String = topic.bytes().map(|byte| format!("{byte:02x}")).collect();
    let length = topic.len() / 2;
    hex(&format!("30 {:02x} {length:04x} {topic} 78", 3 + length))
}

#[test]
fn a_client_that_takes_aliases_hears_each_topic_once_while_there_are_enough() {
    let mut world = World::new(1, Limits::default());
    // Topic Alias Maximum 2.
    let (subscriber, publisher) = both(&mut world, "03 22 0002", "00");
    for (topic, heard, why) in [
        ("t/aa", "30 0b 0004 742f6161 03 23 0001 78", "new"),
        ("t/aa", "30 07 0000 03 23 0001 78", "known"),
        ("t/bb", "30 0b 0004 742f6262 03 23 0002 78", "new"),
        // [MQTT-3.1.2-26], [MQTT-3.3.2-11]: two, and never zero [MQTT-3.3.2-8].
        (
            "t/cc",
            "30 0b 0004 742f6363 03 23 0001 78",
            "the older one's",
        ),
        ("t/aa", "30 0b 0004 742f6161 03 23 0002 78", "forgotten"),
        ("t/cc", "30 07 0000 03 23 0001 78", "known"),
        ("abc", "30 07 0003 616263 00 78", "shorter than an alias"),
    ] {
        exchange(&mut world, publisher, &publish(topic));
        assert_eq!(world.read(subscriber), hex(heard), "{topic}: {why}");
    }
}

#[test]
fn a_client_that_takes_no_aliases_gets_none() {
    for properties in ["00", "03 22 0000"] {
        let mut world = World::new(1, Limits::default());
        let (subscriber, publisher) = both(&mut world, properties, "00");
        for _ in 0..2 {
            exchange(&mut world, publisher, &publish("t/aa"));
            let heard = hex("30 08 0004 742f6161 00 78");
            assert_eq!(world.read(subscriber), heard, "[MQTT-3.1.2-27]");
        }
        let none = |one: &crate::connection::Connection| one.aliases.is_none();
        assert!(world.shards[0].connections.iter().all(|(_, one)| none(one)));
    }
}

#[test]
fn a_new_connection_is_told_each_topic_again() {
    let mut world = World::new(1, Limits::default());
    let properties = "08 11 00000064 22 0005";
    let (subscriber, publisher) = both(&mut world, properties, "01");
    for id in ["0001", "0002"] {
        let publish = hex(&format!("32 09 0004 742f6161 {id} 78"));
        exchange(&mut world, publisher, &publish);
    }
    let heard = "32 0d 0004 742f6161 0001 03 23 0001 78 32 09 0000 0002 03 23 0001 78";
    assert_eq!(world.read(subscriber), hex(heard));
    world.cut(subscriber);
    let subscriber = world.open(0);
    let answer = exchange(
        &mut world,
        subscriber,
        &connect_v5('s', "00", properties, ""),
    );
    // The same two, sent again: the first says the topic (3.3.2.3.4).
    let heard = "3a 0d 0004 742f6161 0001 03 23 0001 78 3a 09 0000 0002 03 23 0001 78";
    assert!(answer.ends_with(&hex(heard)), "{answer:02x?}");
}

#[test]
fn an_alias_that_was_not_said_stands_for_nothing() {
    let mut world = World::new(1, Limits::default());
    // Maximum Packet Size 50, Topic Alias Maximum 5.
    let (subscriber, publisher) = both(&mut world, "08 27 00000032 22 0005", "00");
    let payload = |bytes: usize| {
        let head = [0x30, u8::try_from(6 + bytes).unwrap(), 0, 4];
        [&head[..], b"t/aa", &vec![b'x'; bytes]].concat()
    };
    let heard = |world: &mut World, bytes: usize| {
        exchange(world, publisher, &payload(bytes));
        world.read(subscriber)
    };
    // 50 bytes with the name; the alias has no room beside it.
    let head = hex("30 30 0004 742f6161 00");
    assert_eq!(heard(&mut world, 41), [&head[..], &[b'x'; 41]].concat());
    assert_eq!(heard(&mut world, 42), hex(""), "[MQTT-3.1.2-24]");
    let head = hex("30 30 0004 742f6161 03 23 0001");
    assert_eq!(heard(&mut world, 38), [&head[..], &[b'x'; 38]].concat());
    // By the alias there is more room.
    let head = hex("30 30 0000 03 23 0001");
    assert_eq!(heard(&mut world, 42), [&head[..], &[b'x'; 42]].concat());
}

#[test]
fn the_clients_aliases_are_its_connections() {
    let mut world = World::new(1, Limits::default());
    let connect = connect_v5('p', "00", "05 11 00000064", "");
    for (packets, code, why) in [
        ("30 07 0001 61 03 23 0000", 0x94, "zero [MQTT-3.3.2-8]"),
        (
            "30 07 0001 61 03 23 0021",
            0x94,
            "beyond the 32 of CONNACK [MQTT-3.3.2-9]",
        ),
        ("30 06 0000 03 23 0020", 0x82, "never set, 3.3.2.3.4"),
    ] {
        let client = live(&mut world, 0, &connect);
        let answer = exchange(&mut world, client, &hex(packets));
        assert_eq!(answer, hex(&format!("e0 01 {code:02x}")), "{why}");
    }
    // All of 1 to 32, which CONNACK has said, are taken [MQTT-3.3.2-12], and set anew.
    let (subscriber, _) = both(&mut world, "00", "00");
    let client = world.open(0);
    let connack = exchange(&mut world, client, &connect);
    assert!(connack.windows(3).any(|three| three == hex("22 0020")));
    for alias in 1..=32 {
        let set = hex(&format!("30 07 0001 61 03 23 {alias:04x}"));
        assert_eq!(exchange(&mut world, client, &set), hex(""));
    }
    exchange(&mut world, client, &hex("30 07 0001 62 03 23 0020"));
    world.read(subscriber);
    exchange(
        &mut world,
        client,
        &hex("30 06 0000 03 23 0001 30 06 0000 03 23 0020"),
    );
    assert_eq!(
        world.read(subscriber),
        hex("30 04 0001 61 00 30 04 0001 62 00")
    );
    // Taken over: the session goes on, the aliases do not [MQTT-3.3.2-7]; bad-inputs.md, row 19.
    let taker = live(&mut world, 0, &connect);
    assert!(!world.is_open(client));
    let answer = exchange(&mut world, taker, &hex("30 06 0000 03 23 0001"));
    assert_eq!(answer, hex("e0 01 82"));
}
