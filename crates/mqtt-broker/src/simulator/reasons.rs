//! Reason Strings, and packets that are longer than a Client takes. Bytes from the specification.

use super::World;
use super::exchanges::{connect_v3, connect_v5, exchange, hex, live};
use crate::Limits;

/// Request Problem Information 0.
const NO_PROBLEMS: &str = "02 17 00";

fn text(words: &str) -> Vec<u8> {
    let length = u8::try_from(words.len()).unwrap();
    [&[0x1f, 0, length], words.as_bytes()].concat()
}

/// The same exchange with a Client that wants reasons, one that does not, and one whose packets have
/// no room for them.
fn three_ways(world: &mut World, ask: &[u8], plain: &str, explained: &[u8]) {
    for (id, properties, why) in [
        ('a', "00", ""),
        ('b', NO_PROBLEMS, "[MQTT-3.1.2-29]"),
        ('c', "05 27 00000020", "Maximum Packet Size 32"),
    ] {
        let client = live(world, 0, &connect_v5(id, "02", properties, ""));
        let answer = exchange(world, client, ask);
        let want = if why.is_empty() {
            explained
        } else {
            &hex(plain)
        };
        assert_eq!(answer, want, "{why}");
    }
}

#[test]
fn a_refused_publish_says_why_to_who_wants_to_know_and_has_room() {
    let mut world = World::explaining(1, Limits::default());
    let why = "this client may not publish to this topic";
    // To "$SYS/x": [MQTT-3.4.2-2] at QoS 1, [MQTT-3.5.2-2] at QoS 2; 0x87 [MQTT-3.4.2-1],
    // [MQTT-3.5.2-1]. There is never a User Property: [MQTT-3.4.2-3], [MQTT-3.5.2-3]. Neither where no problem
    // information is asked for [MQTT-3.1.2-29].
    for (publish, answer) in [("32", 0x40), ("34", 0x50)] {
        let ask = hex(&format!("{publish} 0b 0006 245359532f78 0007 00"));
        let explained = [&[answer, 48, 0, 7, 0x87, 44][..], &text(why)].concat();
        let plain = format!("{answer:02x} 03 0007 87");
        three_ways(&mut world, &ask, &plain, &explained);
    }
}

#[test]
fn a_refused_filter_says_why_to_who_wants_to_know_and_has_room() {
    let limits = Limits {
        subscriptions_max: 1,
        ..Limits::default()
    };
    let mut world = World::explaining(1, limits);
    let why = "too many subscriptions or filters, or no room on the disk: fewer, or later";
    let ask = hex("82 0b 0001 00 0001 61 00 0001 62 00");
    let explained = [&hex("90 52 0001 4d")[..], &text(why), &hex("00 97")].concat();
    // [MQTT-3.9.2-1], [MQTT-3.9.2-2], [MQTT-3.1.2-29]
    three_ways(&mut world, &ask, "90 05 0001 00 00 97", &explained);
}

#[test]
fn a_refused_unsubscribe_says_why_to_who_wants_to_know_and_has_room() {
    let why = "the log did not take this; the subscriptions stay";
    for (properties, explained) in [
        ("05 11 00000064", true),
        ("07 11 00000064 17 00", false),       // [MQTT-3.1.2-29]
        ("0a 11 00000064 27 00000020", false), // [MQTT-3.11.2-1], [MQTT-3.11.2-2]
    ] {
        let mut world = World::explaining(1, Limits::default());
        let client = live(&mut world, 0, &connect_v5('s', "02", properties, ""));
        exchange(&mut world, client, &hex("82 07 0001 00 0001 61 00"));
        world.log.full = true;
        let answer = exchange(&mut world, client, &hex("a2 06 0002 00 0001 61"));
        let want = match explained {
            true => [&hex("b0 38 0002 34")[..], &text(why), &[0x83]].concat(),
            false => hex("b0 04 0002 00 83"), // [MQTT-3.11.3-2]
        };
        assert_eq!(answer, want, "{properties}");
    }
}

#[test]
fn a_disconnect_says_why_to_who_wants_to_know_and_has_room() {
    let mut world = World::explaining(1, Limits::default());
    let why = "this topic alias was not set on this connection";
    // PUBLISH with alias 1 and no topic.
    let ask = hex("30 07 0000 03 23 0001 78");
    let explained = [&hex("e0 34 82 32")[..], &text(why)].concat();
    // [MQTT-3.14.2-3], [MQTT-3.14.2-4], [MQTT-3.14.2-1]
    three_ways(&mut world, &ask, "e0 01 82", &explained);
}

#[test]
fn a_refused_connect_says_why_to_who_wants_to_know_and_has_room() {
    let limits = Limits {
        sessions_max: 0,
        ..Limits::default()
    };
    let mut world = World::explaining(1, limits);
    let why = "there are as many lasting sessions as the server keeps; try a session expiry of 0";
    for (properties, want) in [
        (
            "05 11 00000064",
            [&hex("20 57 00 97 54")[..], &text(why)].concat(),
        ),
        ("07 11 00000064 17 00", hex("20 03 00 97 00")),
        // [MQTT-3.2.2-19], [MQTT-3.2.2-20]; without properties their length is zero [MQTT-2.2.2-1].
        ("0a 11 00000064 27 00000020", hex("20 03 00 97 00")),
        // Not even a CONNACK without properties: it is closed, no more. [MQTT-3.1.2-24]
        ("0a 11 00000064 27 00000004", hex("")),
    ] {
        let client = world.open(0);
        let answer = exchange(&mut world, client, &connect_v5('a', "02", properties, ""));
        assert_eq!(answer, want, "{properties}");
        // [MQTT-3.2.2-6], [MQTT-3.2.2-7], [MQTT-3.2.2-8]
        assert!(!world.is_open(client), "{properties}");
    }
}

#[test]
fn no_refusal_has_a_reason_string_when_the_server_gives_none() {
    let mut world = World::new(1, Limits::default());
    let client = live(&mut world, 0, &connect_v5('a', "02", "00", ""));
    let answer = exchange(&mut world, client, &hex("32 0b 0006 245359532f78 0007 00"));
    assert_eq!(answer, hex("40 03 0007 87"));
    let answer = exchange(&mut world, client, &hex("c1 00"));
    assert_eq!(answer, hex("e0 01 81"));
}

#[test]
fn success_has_no_reason_string() {
    let mut world = World::explaining(1, Limits::default());
    let client = live(&mut world, 0, &connect_v5('a', "02", "05 11 00000064", ""));
    for (ask, answer) in [
        ("82 07 0001 00 0001 61 02", "90 04 0001 00 02"),
        ("32 06 0001 62 0002 00", "40 03 0002 10"),
        ("34 06 0001 62 0003 00", "50 03 0003 10"),
        ("62 02 0003", "70 02 0003"),
        ("a2 06 0004 00 0001 78", "b0 04 0004 00 11"),
    ] {
        assert_eq!(
            exchange(&mut world, client, &hex(ask)),
            hex(answer),
            "{ask}"
        );
    }
}

#[test]
fn a_client_whose_maximum_has_no_room_for_connack_is_closed_and_leaves_nothing() {
    for bytes_max in 1..=4_u32 {
        let mut world = World::explaining(1, Limits::default());
        let client = world.open(0);
        // anchors/bad-inputs.md, row 36; with a Will, which is published.
        let subscriber = live(&mut world, 0, &connect_v3('s', true));
        exchange(&mut world, subscriber, &hex("82 06 0001 0001 77 00"));
        let properties = format!("05 27 {bytes_max:08x}");
        let connect = connect_v5('a', "06", &properties, "00 0001 77 0001 78");
        assert_eq!(exchange(&mut world, client, &connect), hex("")); // [MQTT-3.1.2-24]
        assert!(!world.is_open(client), "{bytes_max}");
        assert_eq!(world.read(subscriber), hex("30 04 0001 77 78"));
        assert_eq!(world.shards[0].counts().connections, 1);
        assert_eq!(world.shards[0].counts().sessions, 1);
    }
    // Receive Maximum and Maximum Packet Size of zero are Protocol Errors (3.1.2.11.3, 3.1.2.11.4).
    for properties in ["03 21 0000", "05 27 00000000"] {
        let mut world = World::explaining(1, Limits::default());
        let client = world.open(0);
        let answer = exchange(&mut world, client, &connect_v5('a', "02", properties, ""));
        assert_eq!((answer[0], answer[3]), (0x20, 0x82), "{properties}");
        assert!(!world.is_open(client));
    }
}

#[test]
fn an_unknown_protocol_level_is_answered_in_the_form_its_client_reads() {
    for (connect, answer) in [
        // Level 2 and, of the wrong name, 4: return code 1 (MQTT 3.1.1, 3.1.2.2).
        ("10 0d 0004 4d515454 02 02 0000 0001 61", "20 02 00 01"),
        ("10 0f 0006 4d5149736470 04 02 0000 0001 61", "20 02 00 01"),
        // Level 6: Reason Code 0x84 [MQTT-3.1.2-2].
        (
            "10 0e 0004 4d515454 06 02 0000 00 0001 61",
            "20 03 00 84 00",
        ),
        // Another protocol: nothing [MQTT-3.1.2-1].
        ("10 0d 0004 48545450 05 02 0000 0001 61", ""),
    ] {
        let mut world = World::new(1, Limits::default());
        let client = world.open(0);
        let got = exchange(&mut world, client, &hex(connect));
        assert_eq!(got, hex(answer), "{connect}");
        assert!(!world.is_open(client), "{connect}");
    }
}
