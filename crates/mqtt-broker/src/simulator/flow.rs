//! Flow control both ways, at the exact numbers (MQTT 5.0, 4.9), and acknowledgements of what is not
//! in flight. Bytes from the specification.

use std::num::NonZeroU16;

use super::World;
use super::exchanges::{connect_v3, connect_v5, exchange, hex, live};
use crate::{ConnectionId, Limits};

/// Session Expiry Interval 100 s, Receive Maximum 2.
const TWO: &str = "08 11 00000064 21 0002";

fn receive_maximum(number: u16) -> Limits {
    Limits {
        receive_maximum: NonZeroU16::new(number).unwrap(),
        ..Limits::default()
    }
}

/// Publishes payloads of one byte, `from` up to `to`, at QoS 2 to "a".
fn publish(world: &mut World, publisher: ConnectionId, from: u8, to: u8) {
    for payload in from..=to {
        let id = format!("{payload:04x}");
        exchange(
            world,
            publisher,
            &hex(&format!("34 06 0001 61 {id} {payload:02x}")),
        );
        exchange(world, publisher, &hex(&format!("62 02 {id}")));
    }
}

#[test]
fn no_more_is_sent_than_the_client_takes_at_once() {
    for (qos, publish_flags, done) in [("01", "32", "40"), ("02", "34", "70")] {
        let mut world = World::new(1, Limits::default());
        let subscriber = live(&mut world, 0, &connect_v5('s', "00", TWO, ""));
        exchange(
            &mut world,
            subscriber,
            &hex(&format!("82 07 0001 00 0001 61 {qos}")),
        );
        let publisher = live(&mut world, 0, &connect_v3('p', true));
        publish(&mut world, publisher, 1, 4);
        let sent = |id: u8| hex(&format!("{publish_flags} 07 0001 61 {id:04x} 00 {id:02x}"));
        // [MQTT-3.3.4-9], [MQTT-4.9.0-1], [MQTT-4.9.0-2]
        assert_eq!(world.read(subscriber), [sent(1), sent(2)].concat(), "{qos}");
        // Other packets go on [MQTT-3.3.4-10], [MQTT-4.9.0-3].
        let other = exchange(
            &mut world,
            subscriber,
            &hex("c0 00 82 07 0002 00 0001 62 00"),
        );
        assert_eq!(other, hex("d0 00 90 04 0002 00 00"), "{qos}");
        let qos0 = exchange(&mut world, subscriber, &hex("30 05 0001 62 00 78"));
        assert_eq!(qos0, hex("30 05 0001 62 00 78"), "{qos}");
        if qos == "02" {
            // PUBREC makes no room, PUBCOMP does.
            assert_eq!(
                exchange(&mut world, subscriber, &hex("50 02 0001")),
                hex("62 02 0001")
            );
        }
        let ack = hex(&format!("{done} 02 0001"));
        assert_eq!(exchange(&mut world, subscriber, &ack), sent(3), "{qos}");
        // A second time it makes no room.
        assert_eq!(exchange(&mut world, subscriber, &ack), hex(""), "{qos}");
    }
}

#[test]
fn a_refusal_makes_room_and_is_the_end_of_its_message() {
    for (qos, publish_flags, ack) in [("01", "32", "40"), ("02", "34", "50")] {
        let mut world = World::new(1, Limits::default());
        let connect = connect_v5('s', "00", TWO, "");
        let subscriber = live(&mut world, 0, &connect);
        exchange(
            &mut world,
            subscriber,
            &hex(&format!("82 07 0001 00 0001 61 {qos}")),
        );
        let publisher = live(&mut world, 0, &connect_v3('p', true));
        publish(&mut world, publisher, 1, 3);
        world.read(subscriber);
        // Implementation specific error: no PUBREL, and the third comes.
        let refused = hex(&format!("{ack} 03 0001 83"));
        let third = "07 0001 61 0003 00 03";
        let answer = exchange(&mut world, subscriber, &refused);
        assert_eq!(answer, hex(&format!("{publish_flags} {third}")));
        world.cut(subscriber);
        let subscriber = world.open(0);
        let answer = exchange(&mut world, subscriber, &connect);
        // [MQTT-4.4.0-2]: only 2 and 3 come again.
        let dup = if qos == "01" { "3a" } else { "3c" };
        let again = hex(&format!("{dup} 07 0001 61 0002 00 02 {dup} {third}"));
        assert!(answer.ends_with(&again), "{answer:02x?}");
        assert!(!answer.ends_with(&[&hex("07 0001 61 0001 00 01")[..], &again].concat()));
    }
}

#[test]
fn what_is_sent_again_keeps_to_the_new_window_and_pubrel_waits_for_nothing() {
    let mut world = World::new(1, Limits::default());
    let connect = |window: &str| connect_v5('s', "00", &format!("08 11 00000064 21 {window}"), "");
    let subscriber = live(&mut world, 0, &connect("0005"));
    exchange(&mut world, subscriber, &hex("82 07 0001 00 0001 61 02"));
    let publisher = live(&mut world, 0, &connect_v3('p', true));
    publish(&mut world, publisher, 1, 5);
    world.read(subscriber);
    exchange(&mut world, subscriber, &hex("50 02 0004"));
    world.cut(subscriber);
    let subscriber = world.open(0);
    let answer = exchange(&mut world, subscriber, &connect("0002"));
    // PUBREL at once [MQTT-3.3.4-10]; of the four PUBLISHes only as many as fit, in their order
    // and with their identifiers [MQTT-4.4.0-1], [MQTT-4.6.0-1], DUP set [MQTT-3.3.1-1].
    let again = "62 02 0004 3c 07 0001 61 0001 00 01";
    assert!(answer.ends_with(&hex(again)), "{answer:02x?}");
    assert_eq!(
        exchange(&mut world, subscriber, &hex("70 02 0004")),
        hex("3c 07 0001 61 0002 00 02")
    );
    // A PUBREC for one that waits to be sent again: its PUBREL does not wait.
    assert_eq!(
        exchange(&mut world, subscriber, &hex("50 02 0005")),
        hex("62 02 0005")
    );
    exchange(&mut world, subscriber, &hex("50 02 0001"));
    let next = exchange(&mut world, subscriber, &hex("70 02 0001"));
    // The fifth was not sent on this connection, so it takes no place.
    assert_eq!(next, hex("3c 07 0001 61 0003 00 03"));
    let next = exchange(&mut world, subscriber, &hex("70 02 0005"));
    assert_eq!(next, hex(""), "two and three are open");
}

#[test]
fn a_client_is_held_to_the_receive_maximum_and_not_to_less() {
    // [MQTT-3.3.4-7]: 0x93, at QoS 1 while the log does not answer.
    let mut world = World::new(1, receive_maximum(2));
    let client = live(&mut world, 0, &connect_v5('a', "02", "00", ""));
    let qos1 = |id: u16| hex(&format!("32 0d 0008 726f757465642f78 {id:04x} 00"));
    let qos2 = |id: u16| hex(&format!("34 0d 0008 726f757465642f78 {id:04x} 00"));
    for round in 0..3 {
        let answer = exchange(&mut world, client, &[qos1(1), qos2(2)].concat());
        assert_eq!(answer, hex("40 02 0001 50 02 0002"), "{round}");
        assert_eq!(
            exchange(&mut world, client, &hex("62 02 0002")),
            hex("70 02 0002")
        );
    }
    // One of each kind is two.
    world.send(client, &[qos1(1), qos2(2)].concat());
    world.run_shard(0, 1);
    assert!(world.is_open(client));
    world.send(client, &qos1(3));
    world.run_shard(0, 1);
    assert_eq!(world.read(client), hex("e0 01 93"));
    assert!(!world.is_open(client));
}

#[test]
fn a_refused_qos_2_publish_takes_no_place_in_the_window() {
    let mut world = World::new(1, receive_maximum(1));
    let client = live(&mut world, 0, &connect_v5('a', "02", "00", ""));
    for id in 1..5 {
        // To "$SYS/x".
        let answer = exchange(
            &mut world,
            client,
            &hex(&format!("34 0b 0006 245359532f78 {id:04x} 00")),
        );
        assert_eq!(answer, hex(&format!("50 03 {id:04x} 87")));
    }
    // [MQTT-4.3.3-9]: the same identifier is a new message.
    let answer = exchange(&mut world, client, &hex("34 06 0001 61 0001 00"));
    assert_eq!(answer, hex("50 03 0001 10"));
}

#[test]
fn a_new_connection_has_a_whole_window_whatever_was_not_released_before() {
    let mut world = World::new(1, receive_maximum(2));
    let connect = connect_v5('a', "00", "05 11 00000064", "");
    let client = live(&mut world, 0, &connect);
    exchange(
        &mut world,
        client,
        &hex("34 06 0001 61 0001 00 34 06 0001 61 0002 00"),
    );
    world.cut(client);
    world.run();
    let client = live(&mut world, 0, &connect);
    let answer = exchange(
        &mut world,
        client,
        &hex("34 06 0001 61 0003 00 34 06 0001 61 0004 00"),
    );
    assert_eq!(answer, hex("50 03 0003 10 50 03 0004 10"));
    // A third is one too many, and none more is kept however often it comes back.
    assert_eq!(
        exchange(&mut world, client, &hex("34 06 0001 61 0005 00")),
        hex("e0 01 93")
    );
    let client = live(&mut world, 0, &connect);
    assert_eq!(
        exchange(&mut world, client, &hex("34 06 0001 61 0005 00")),
        hex("e0 01 93")
    );
    let client = live(&mut world, 0, &connect);
    for id in 1..=4 {
        let answer = exchange(&mut world, client, &hex(&format!("62 02 {id:04x}")));
        assert_eq!(answer, hex(&format!("70 02 {id:04x}")));
    }
    let answer = exchange(&mut world, client, &hex("34 06 0001 61 0005 00"));
    assert_eq!(answer, hex("50 03 0005 10"));
}

#[test]
fn the_same_qos_2_publish_again_and_again_is_one_message() {
    for connect in [
        connect_v5('a', "00", "05 11 00000064", ""),
        connect_v3('a', false),
    ] {
        let v5 = connect[8] == 5;
        let mut world = World::new(1, receive_maximum(2));
        let client = live(&mut world, 0, &connect);
        let subscriber = live(&mut world, 0, &connect_v3('s', true));
        exchange(&mut world, subscriber, &hex("82 06 0001 0001 61 00"));
        let publish = hex(if v5 {
            "34 07 0001 61 0001 00 78"
        } else {
            "34 06 0001 61 0001 78"
        });
        // anchors/bad-inputs.md, row 13; [MQTT-4.3.3-10]: PUBREC each time, routed once.
        for round in 0..1_000 {
            let answer = exchange(&mut world, client, &publish);
            assert_eq!(answer, hex("50 02 0001"), "{round}");
        }
        assert_eq!(world.read(subscriber), hex("30 04 0001 61 78"));
        let (_, session) = world.shards[0]
            .sessions
            .iter()
            .find(|(_, one)| one.is_persistent())
            .unwrap();
        assert_eq!(session.inbound.len(), 1);
        // After PUBCOMP it is a new one [MQTT-4.3.3-11], [MQTT-4.3.3-12].
        assert_eq!(
            exchange(&mut world, client, &hex("62 02 0001")),
            hex("70 02 0001")
        );
        exchange(&mut world, client, &publish);
        assert_eq!(world.read(subscriber), hex("30 04 0001 61 78"));
    }
}

#[test]
fn acknowledgements_of_what_is_not_in_flight_change_nothing() {
    let mut world = World::new(1, Limits::default());
    let subscriber = live(&mut world, 0, &connect_v5('s', "00", TWO, ""));
    exchange(&mut world, subscriber, &hex("82 07 0001 00 0001 61 02"));
    let publisher = live(&mut world, 0, &connect_v3('p', true));
    publish(&mut world, publisher, 1, 4);
    assert_eq!(world.read(subscriber).len(), 2 * 9);
    // anchors/bad-inputs.md, row 22. Unknown: nothing, or 0x92.
    for (packet, answer, why) in [
        ("40 02 0009", "", "PUBACK for nothing"),
        ("70 02 0009", "", "PUBCOMP for nothing"),
        ("50 03 0009 80", "", "a refusal of nothing"),
        (
            "50 02 0009",
            "62 03 0009 92",
            "PUBREC for nothing [MQTT-3.6.2-1]",
        ),
        (
            "62 02 0009",
            "70 03 0009 92",
            "PUBREL for nothing [MQTT-3.7.2-1]",
        ),
    ] {
        let got = exchange(&mut world, subscriber, &hex(packet));
        assert_eq!(got, hex(answer), "{why}");
    }
    // Nothing more came, so the quota is what it was.
    assert_eq!(
        exchange(&mut world, subscriber, &hex("50 02 0002")),
        hex("62 02 0002")
    );
    let third = exchange(&mut world, subscriber, &hex("70 02 0002"));
    assert_eq!(third, hex("34 07 0001 61 0003 00 03"));
    // The answer of another step is a Protocol Error.
    for packet in ["40 02 0001", "70 02 0001"] {
        let client = live(&mut world, 0, &connect_v5('s', "00", TWO, ""));
        assert_eq!(
            exchange(&mut world, client, &hex(packet)),
            hex("e0 01 82"),
            "{packet}"
        );
    }
    // And zero is no identifier [MQTT-2.2.1-3].
    for packet in [
        "32 06 0001 61 0000 00",
        "82 07 0000 00 0001 61 00",
        "a2 06 0000 00 0001 61",
    ] {
        let client = live(&mut world, 0, &connect_v5('z', "02", "00", ""));
        assert_eq!(
            exchange(&mut world, client, &hex(packet)),
            hex("e0 01 82"),
            "{packet}"
        );
    }
}
