//! CONNECT, CONNACK and DISCONNECT: what a Session is and how long, and what a Will is published
//! as. Bytes from the specification.

use std::num::NonZeroU16;

use headwater_mqtt_codec::{DisconnectReason, QoS};

use super::World;
use super::exchanges::{connect_v3, connect_v5, exchange, hex, live};
use crate::{ConnectionId, Input, Limits, Table};

/// Session Expiry Interval of 100 s.
const LASTING: &str = "05 11 00000064";

/// Session Present of the CONNACK to this CONNECT on a new connection.
fn present(world: &mut World, connect: &[u8]) -> (ConnectionId, bool) {
    let client = world.open(0);
    let answer = exchange(world, client, connect);
    assert_eq!((answer[0], answer[3]), (0x20, 0), "[MQTT-3.1.4-5]");
    assert!(answer[2] <= 1, "[MQTT-3.2.2-1]");
    (client, answer[2] == 1)
}

fn subscriptions(world: &World) -> usize {
    let sessions = world.shards.iter().flat_map(|shard| &shard.sessions);
    sessions.map(|(_, one)| one.subscriptions.len()).sum()
}

#[test]
fn a_session_is_taken_up_or_made_anew_as_clean_start_says() {
    let mut world = World::new(1, Limits::default());
    // There is none: one is made [MQTT-3.1.2-6], and Session Present is 0 [MQTT-3.2.2-3].
    let (client, was_there) = present(&mut world, &connect_v5('a', "00", LASTING, ""));
    assert!(!was_there);
    exchange(&mut world, client, &hex("82 07 0001 00 0001 61 01"));
    world.cut(client);
    world.run();
    // It is stored while it is away [MQTT-3.1.2-23], also over a crash.
    world.crash(0);
    // Another Client Identifier has another [MQTT-3.1.3-2].
    let (_, was_there) = present(&mut world, &connect_v5('b', "00", LASTING, ""));
    assert!(!was_there);
    // [MQTT-3.1.2-5], [MQTT-3.2.2-3]
    let (client, was_there) = present(&mut world, &connect_v5('a', "00", LASTING, ""));
    assert!(was_there);
    let answer = exchange(&mut world, client, &hex("32 07 0001 61 0001 00 78"));
    assert_eq!(answer, hex("32 07 0001 61 0001 00 78 40 02 0001"));
    // Discarded [MQTT-3.1.2-4], [MQTT-3.1.4-4], and Session Present is 0 [MQTT-3.2.2-2].
    let (client, was_there) = present(&mut world, &connect_v5('a', "02", LASTING, ""));
    assert!(!was_there);
    assert_eq!(subscriptions(&world), 0);
    let answer = exchange(&mut world, client, &hex("32 06 0001 61 0001 00"));
    assert_eq!(answer, hex("40 03 0001 10"));
}

#[test]
fn a_session_lives_as_long_as_its_connection_and_its_expiry() {
    let mut world = World::new(1, Limits::default());
    let connect = connect_v5('a', "00", "05 11 00000005", "");
    let (client, _) = present(&mut world, &connect);
    exchange(&mut world, client, &hex("82 07 0001 00 0001 61 01"));
    // While it is connected no expiry runs [MQTT-4.1.0-1].
    world.pass(60_000);
    world.run();
    assert_eq!(subscriptions(&world), 1);
    world.cut(client);
    world.run();
    world.pass(4_999);
    world.run();
    let (client, was_there) = present(&mut world, &connect);
    assert!(was_there);
    world.pass(60_000);
    world.run();
    assert_eq!(subscriptions(&world), 1);
    world.cut(client);
    world.run();
    world.pass(5_000);
    world.run();
    assert_eq!(world.log.rows(Table::Sessions), 0, "[MQTT-4.1.0-2]");
    let (_, was_there) = present(&mut world, &connect);
    assert!(!was_there);
}

#[test]
fn disconnect_may_change_the_expiry_but_not_from_zero() {
    // Expiry 0, raised: a Protocol Error (3.14.2.2.2); anchors/bad-inputs.md, row 36.
    let mut world = World::new(1, Limits::default());
    for connect in [
        connect_v5('a', "02", "00", ""),
        connect_v5('a', "02", "05 11 00000000", ""),
    ] {
        let client = live(&mut world, 0, &connect);
        let answer = exchange(&mut world, client, &hex("e0 07 00 05 11 00000064"));
        assert_eq!(answer, hex("e0 01 82"));
        assert_eq!(world.log.rows(Table::Sessions), 0);
    }
    for (disconnect, lives_ms) in [
        ("e0 07 00 05 11 00000002", 2_000),
        ("e0 07 00 05 11 000000c8", 200_000),
        ("e0 07 04 05 11 000000c8", 200_000),
        ("e0 07 00 05 11 00000000", 0),
        ("e0 00", 100_000),
    ] {
        let mut world = World::new(1, Limits::default());
        let client = live(&mut world, 0, &connect_v5('a', "02", LASTING, ""));
        assert_eq!(exchange(&mut world, client, &hex(disconnect)), hex(""));
        assert!(!world.is_open(client));
        if lives_ms > 0 {
            world.pass(lives_ms - 1);
            world.run();
            assert_eq!(world.log.rows(Table::Sessions), 1, "{disconnect}");
            // Also when the server was down meanwhile.
            world.crash(0);
            world.run();
            world.pass(1);
            world.run();
        }
        assert_eq!(
            world.log.rows(Table::Sessions),
            0,
            "{disconnect} [MQTT-4.1.0-2]"
        );
    }
}

#[test]
fn connack_comes_first_and_once() {
    let mut world = World::new(2, Limits::default());
    let connect = connect_v5('a', "00", LASTING, "");
    let (client, _) = present(&mut world, &connect);
    exchange(&mut world, client, &hex("82 07 0001 00 0001 61 01"));
    world.cut(client);
    let other = live(&mut world, 1, &connect_v3('o', true));
    exchange(&mut world, other, &hex("32 06 0001 61 0001 78"));
    // What is owed, and the answers to what was sent along, follow it. Byte by byte.
    let client = world.open(1);
    let sent = [&connect[..], &hex("c0 00 82 07 0002 00 0001 62 00")].concat();
    for byte in &sent {
        world.send(client, &[*byte]);
    }
    world.run();
    let answer = world.read(client);
    let (connack, rest) = answer.split_at(2 + usize::from(answer[1]));
    assert_eq!(
        connack[..4],
        [0x20, connack[1], 1, 0],
        "[MQTT-3.2.0-1], [MQTT-3.1.4-5]"
    );
    let mut rest = rest.to_vec();
    let mut types = Vec::new();
    while !rest.is_empty() {
        types.push(rest[0]);
        rest.drain(..2 + usize::from(rest[1]));
    }
    types.sort_unstable();
    assert_eq!(types, [0x32, 0x90, 0xd0], "[MQTT-3.2.0-2], [MQTT-3.12.4-1]");
}

#[test]
fn a_connect_that_is_not_one_is_closed() {
    // [MQTT-3.1.4-1]: by CONNACK in MQTT 5.0, by the close before that.
    for (connect, answer, why) in [
        (
            "10 0e 0004 4d515454 05 03 0000 00 0001 61",
            "20 03 00 81 00",
            "[MQTT-3.1.2-3]",
        ),
        (
            "10 0d 0004 4d515454 04 03 0000 0001 61",
            "",
            "[MQTT-3.1.2-3]",
        ),
        (
            "10 0e 0004 4d515454 05 22 0000 00 0001 61",
            "20 03 00 81 00",
            "[MQTT-3.1.2-13]",
        ),
        (
            "10 0d 0004 4d515454 04 22 0000 0001 61",
            "",
            "[MQTT-3.1.2-13]",
        ),
        // A password alone: not before 5.0 (MQTT 3.1.1, 3.1.2.9).
        (
            "10 10 0004 4d515454 04 42 0000 0001 61 0001 70",
            "",
            "password alone",
        ),
        (
            "10 12 0006 4d5149736470 03 42 0000 0001 61 0001 70",
            "",
            "password alone",
        ),
    ] {
        let mut world = World::new(1, Limits::default());
        let client = world.open(0);
        assert_eq!(
            exchange(&mut world, client, &hex(connect)),
            hex(answer),
            "{why}"
        );
        assert!(!world.is_open(client), "{why}");
        assert_eq!(world.shards[0].counts().sessions, 0);
    }
    let mut world = World::new(1, Limits::default());
    live(
        &mut world,
        0,
        &hex("10 11 0004 4d515454 05 42 0000 00 0001 61 0001 70"),
    );
}

#[test]
fn nothing_follows_a_disconnect() {
    let mut world = World::new(1, Limits::default());
    let subscriber = live(&mut world, 0, &connect_v3('s', true));
    exchange(&mut world, subscriber, &hex("82 06 0001 0001 61 00"));
    // PINGREQ, a malformed one, and what may not be answered or routed any more.
    let client = live(&mut world, 0, &connect_v5('a', "02", "00", ""));
    let bytes = hex("c0 00 c1 00 c0 00 30 05 0001 61 00 78");
    let answer = exchange(&mut world, client, &bytes);
    // [MQTT-3.14.4-1], [MQTT-3.14.4-2], [MQTT-4.13.1-1], [MQTT-4.13.2-1]
    assert_eq!(answer, hex("d0 00 e0 01 81"));
    assert!(!world.is_open(client));
    assert_eq!(world.read(subscriber), hex(""));
    // The same of the Client's own.
    let client = live(&mut world, 0, &connect_v5('a', "02", "00", ""));
    let answer = exchange(&mut world, client, &hex("e0 00 c0 00 30 05 0001 61 00 78"));
    assert_eq!(answer, hex(""));
    assert!(!world.is_open(client));
    assert_eq!(world.read(subscriber), hex(""));
}

#[test]
fn a_will_is_stored_with_its_session_and_published_as_it_says() {
    // Will QoS 0 to 2 [MQTT-3.1.2-12]; Will Retain 0 [MQTT-3.1.2-14] and 1 [MQTT-3.1.2-15].
    for (flags, qos) in [
        ("06", 0),
        ("0e", 1),
        ("16", 2),
        ("26", 0),
        ("2e", 1),
        ("36", 2),
    ] {
        let mut world = World::new(2, Limits::default());
        let subscriber = live(&mut world, 1, &connect_v5('s', "02", "00", ""));
        exchange(&mut world, subscriber, &hex("82 07 0001 00 0001 77 0a"));
        let client = live(
            &mut world,
            0,
            &connect_v5('a', flags, "00", "00 0001 77 0001 78"),
        );
        // Stored before CONNACK [MQTT-3.1.2-7].
        assert_eq!(world.log.rows(Table::Sessions), 1, "{flags}");
        assert_eq!(world.read(subscriber), hex(""));
        world.cut(client);
        world.run();
        let retains = flags.starts_with(['2', '3']);
        let first = 0x30 | qos << 1 | u8::from(retains);
        let want = match qos {
            0 => [&[first], &hex("05 0001 77 00 78")[..]].concat(),
            _ => [&[first], &hex("07 0001 77 0001 00 78")[..]].concat(),
        };
        assert_eq!(world.read(subscriber), want, "{flags} [MQTT-3.1.2-8]");
        assert_eq!(
            world.log.rows(Table::Retained),
            usize::from(retains),
            "{flags}"
        );
        // It is gone with that [MQTT-3.1.2-10].
        assert_eq!(world.log.rows(Table::Sessions), 0);
    }
}

#[test]
fn a_will_goes_by_the_reason_of_disconnect() {
    for (last, heard) in [
        ("e0 00", false),       // [MQTT-3.14.4-3], [MQTT-3.1.2-10]
        ("e0 02 00 00", false), // [MQTT-3.14.4-3]
        ("e0 01 04", true),     // Disconnect with Will Message
        ("e0 01 80", true),
        ("e0 01 42", true), // no such reason
    ] {
        let mut world = World::new(1, Limits::default());
        let subscriber = live(&mut world, 0, &connect_v5('s', "02", "00", ""));
        exchange(&mut world, subscriber, &hex("82 07 0001 00 0001 77 00"));
        let client = live(
            &mut world,
            0,
            &connect_v5('a', "06", LASTING, "00 0001 77 0001 78"),
        );
        exchange(&mut world, client, &hex(last));
        assert!(!world.is_open(client));
        world.pass(200_000);
        world.run();
        let will = if heard { "30 05 0001 77 00 78" } else { "" };
        assert_eq!(world.read(subscriber), hex(will), "{last}");
    }
}

#[test]
fn a_delayed_will_waits_for_its_client_but_not_past_the_session() {
    // Will Delay Interval 10 s; a Session that lives 100 s, 5 s, or ends with the connection
    // [MQTT-3.1.2-8].
    for (properties, due_ms) in [(LASTING, 10_000), ("05 11 00000005", 5_000), ("00", 0)] {
        let mut world = World::new(1, Limits::default());
        let subscriber = live(&mut world, 0, &connect_v5('s', "02", "00", ""));
        exchange(&mut world, subscriber, &hex("82 07 0001 00 0001 77 00"));
        let will = "05 18 0000000a 0001 77 0001 78";
        let client = live(&mut world, 0, &connect_v5('a', "06", properties, will));
        world.cut(client);
        world.run();
        if due_ms > 0 {
            world.pass(due_ms - 1);
            world.run();
            assert_eq!(world.read(subscriber), hex(""), "{properties}");
            world.pass(1);
            world.run();
        }
        assert_eq!(
            world.read(subscriber),
            hex("30 05 0001 77 00 78"),
            "{properties}"
        );
    }
    // Back in time, without a Will or with another: the first is never sent [MQTT-3.1.3-9].
    let mut world = World::new(1, Limits::default());
    let subscriber = live(&mut world, 0, &connect_v5('s', "02", "00", ""));
    exchange(&mut world, subscriber, &hex("82 07 0001 00 0001 77 00"));
    let will = connect_v5('a', "04", LASTING, "05 18 0000000a 0001 77 0001 78");
    let client = live(&mut world, 0, &will);
    world.cut(client);
    world.run();
    world.pass(9_999);
    let client = live(&mut world, 0, &connect_v5('a', "00", LASTING, ""));
    world.pass(60_000);
    world.run();
    world.cut(client);
    world.run();
    world.pass(200_000);
    world.run();
    assert_eq!(world.read(subscriber), hex(""));
    // Clean Start ends that Session, so it is sent.
    let client = live(&mut world, 0, &will);
    world.cut(client);
    world.run();
    live(&mut world, 0, &connect_v5('a', "02", "00", ""));
    assert_eq!(world.read(subscriber), hex("30 05 0001 77 00 78"));
}

#[test]
fn a_takeover_is_in_time_for_a_delayed_will_and_publishes_another() {
    // [MQTT-3.1.2-8], [MQTT-3.1.3-9]
    for (delay, shard, heard) in [
        (10, 0, ""),
        (10, 1, ""),
        (0, 0, "30 05 0001 77 00 78"),
        (0, 1, "30 05 0001 77 00 78"),
    ] {
        let mut world = World::new(2, Limits::default());
        let subscriber = live(&mut world, 0, &connect_v5('s', "02", "00", ""));
        exchange(&mut world, subscriber, &hex("82 07 0001 00 0001 77 00"));
        let will = format!("05 18 {delay:08x} 0001 77 0001 78");
        let client = live(&mut world, 0, &connect_v5('a', "04", LASTING, &will));
        live(&mut world, shard, &connect_v5('a', "00", LASTING, ""));
        assert!(!world.is_open(client));
        world.pass(60_000);
        world.run();
        let why = format!("delay {delay}, shard {shard}");
        assert_eq!(world.read(subscriber), hex(heard), "{why}");
    }
}

#[test]
fn a_will_is_published_once_however_its_session_ends() {
    for restarts in [false, true] {
        let mut world = World::new(1, Limits::default());
        let listen = connect_v5('s', "00", LASTING, "");
        let (mut subscriber, _) = present(&mut world, &listen);
        exchange(&mut world, subscriber, &hex("82 07 0001 00 0001 77 01"));
        // At QoS 1.
        let will = "00 0001 77 0001 78";
        let client = live(&mut world, 0, &connect_v5('a', "0c", LASTING, will));
        world.cut(client);
        world.run();
        let heard = world.read(subscriber);
        assert_eq!(heard, hex("32 07 0001 77 0001 00 78"));
        exchange(&mut world, subscriber, &hex("40 02 0001"));
        if restarts {
            // Its PUBACK is in the log by then.
            world.pass(2_000);
            world.run();
            world.crash(0);
            world.run();
            subscriber = world.open(0);
            let answer = exchange(&mut world, subscriber, &listen);
            assert_eq!(answer.len(), 2 + usize::from(answer[1]), "CONNACK alone");
        }
        world.pass(100_000);
        world.run();
        assert_eq!(world.log.rows(Table::Sessions), 1, "its own is gone");
        assert_eq!(world.read(subscriber), hex(""), "[MQTT-3.1.2-10]");
    }
}

/// The code of a DISCONNECT that has no property but a Reason String.
fn code_of(disconnect: &[u8]) -> u8 {
    let [0xe0, length, code, properties @ ..] = disconnect else {
        panic!("{disconnect:02x?}");
    };
    assert_eq!(usize::from(*length), 1 + properties.len());
    if let [length, id, high, low, text @ ..] = properties {
        assert_eq!(*id, 0x1f, "{disconnect:02x?}");
        let text_bytes = u16::from_be_bytes([*high, *low]);
        assert_eq!(usize::from(text_bytes), text.len());
        assert_eq!(usize::from(*length), 3 + text.len());
    } else {
        assert_eq!(properties, []);
    }
    *code
}

#[test]
fn a_disconnect_of_the_server_has_its_code_and_no_session_expiry() {
    let limits = Limits {
        receive_maximum: NonZeroU16::MIN,
        qos_max: QoS::AtLeastOnce,
        retain_available: false,
        ..Limits::default()
    };
    let mut world = World::explaining(2, limits);
    let connect = connect_v5('a', "02", LASTING, "");
    // QoS 1 to "routed/x", twice before the log answers.
    let publish = "32 0d 0008 726f757465642f78 0001 00 32 0d 0008 726f757465642f78 0002 00";
    // Of table 3-10 [MQTT-3.14.2-1]; the Session's expiry is not the Server's to change
    // [MQTT-3.14.2-2].
    for (bytes, code) in [
        ("c1 00", 0x81),
        ("20 03 00 00 00", 0x82),
        ("f0 06 19 04 15 0001 57", 0x82),
        ("82 08 0001 00 0002 2361 00", 0x8f),
        ("30 06 0003 612f23 00", 0x90),
        (publish, 0x93),
        ("30 08 0001 61 03 23 0021 78", 0x94),
        ("30 ffffff7f", 0x95),
        ("31 05 0001 61 00 78", 0x9a),
        ("34 06 0001 61 0001 00", 0x9b),
    ] {
        let client = live(&mut world, 0, &connect);
        let answer = exchange(&mut world, client, &hex(bytes));
        assert_eq!(code_of(&answer), code, "{bytes}");
        assert!(!world.is_open(client), "{bytes}");
    }
    // Keep Alive 10.
    let keep_alive = hex("10 13 0004 4d515454 05 02 000a 05 11 00000064 0001 61");
    let client = live(&mut world, 0, &keep_alive);
    world.pass(15_000);
    world.run();
    assert_eq!(code_of(&world.read(client)), 0x8d);
    let connection = live(&mut world, 0, &connect);
    let reason = DisconnectReason::AdministrativeAction;
    world.inboxes[0].push_back(Input::Disconnect { connection, reason });
    world.run();
    assert_eq!(code_of(&world.read(connection)), 0x98);
    // Taken over, on the same shard and from another [MQTT-3.1.4-3].
    let mut last = live(&mut world, 0, &connect);
    for shard in [0, 1] {
        let taker = live(&mut world, shard, &connect);
        assert_eq!(code_of(&world.read(last)), 0x8e);
        assert!(!world.is_open(last) && world.is_open(taker));
        last = taker;
    }
    for inbox in &mut world.inboxes {
        inbox.push_back(Input::Stop);
    }
    world.run();
    assert_eq!(code_of(&world.read(last)), 0x8b);
}
