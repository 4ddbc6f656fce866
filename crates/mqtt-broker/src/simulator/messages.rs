//! What a message is on its way: its properties, its QoS and its order, and the steps of each QoS on
//! both sides. Bytes from the specification.

use super::World;
use super::exchanges::{connect_v3, connect_v5, exchange, hex, live};
use super::shares::subscribe;
use crate::{ConnectionId, Limits, Table};

const LASTING: &str = "05 11 00000064";

/// MQTT 5.0 Client 's' with one subscription to "a", lasting.
fn subscriber(world: &mut World, options: &str) -> ConnectionId {
    let client = live(world, 0, &connect_v5('s', "00", LASTING, ""));
    exchange(
        world,
        client,
        &hex(&format!("82 07 0001 00 0001 61 {options}")),
    );
    client
}

/// Client 's' on a new connection, and what came behind its CONNACK.
fn back(world: &mut World) -> (ConnectionId, Vec<u8>) {
    let client = world.open(0);
    let answer = exchange(world, client, &connect_v5('s', "00", LASTING, ""));
    assert_eq!((answer[0], answer[2]), (0x20, 1));
    (client, answer[2 + usize::from(answer[1])..].to_vec())
}

/// Payload Format Indicator, Content Type "t", Response Topic "r", Correlation Data ff, and User
/// Properties k=1, a=2, k=3.
const PROPERTIES: &str = "01 01 03 0001 74 08 0001 72 09 0001 ff \
                          26 0001 6b 0001 31 26 0001 61 0001 32 26 0001 6b 0001 33";

#[test]
fn properties_of_a_message_reach_subscribers_unaltered() {
    // [MQTT-3.3.2-4], [MQTT-3.3.2-15], [MQTT-3.3.2-16], [MQTT-3.3.2-20]; User Properties
    // [MQTT-3.3.2-17] in their order [MQTT-3.3.2-18].
    let length = hex(PROPERTIES).len();
    let publish = |id: &str| {
        hex(&format!(
            "32 {:02x} 0001 61 {id} {length:02x} {PROPERTIES} 78",
            7 + length
        ))
    };
    let mut world = World::new(2, Limits::default());
    let client = subscriber(&mut world, "01");
    let publisher = live(&mut world, 1, &connect_v5('p', "02", "00", ""));
    exchange(&mut world, publisher, &publish("0005"));
    assert_eq!(world.read(client), publish("0001"), "at once");
    exchange(&mut world, client, &hex("40 02 0001"));
    world.cut(client);
    exchange(&mut world, publisher, &publish("0006"));
    world.crash(0);
    let (_, owed) = back(&mut world);
    assert_eq!(owed, publish("0001"), "from the log, after a crash");
    // Retained, and as a Will [MQTT-3.1.3-10].
    let mut world = World::new(1, Limits::default());
    let tail = format!("{length:02x} {PROPERTIES} 78");
    let publisher = live(&mut world, 0, &connect_v5('p', "02", "00", ""));
    exchange(
        &mut world,
        publisher,
        &hex(&format!("31 {:02x} 0001 61 {tail}", 5 + length)),
    );
    world.crash(0);
    let client = live(&mut world, 0, &connect_v5('s', "02", "00", ""));
    let answer = exchange(
        &mut world,
        client,
        &hex("82 0b 0001 00 0001 61 00 0001 77 00"),
    );
    let retained = hex(&format!(
        "90 05 0001 00 00 00 31 {:02x} 0001 61 {tail}",
        5 + length
    ));
    assert_eq!(answer, retained);
    let will = format!("{length:02x} {PROPERTIES} 0001 77 0001 78");
    let dying = live(&mut world, 0, &connect_v5('w', "06", "00", &will));
    world.cut(dying);
    world.run();
    assert_eq!(
        world.read(client),
        hex(&format!("30 {:02x} 0001 77 {tail}", 5 + length))
    );
}

#[test]
fn a_message_comes_at_the_lower_qos_of_the_two() {
    // [MQTT-3.8.4-8]; no Packet Identifier [MQTT-2.2.1-2] and no DUP [MQTT-4.3.1-1] at QoS 0.
    for subscribed in 0..3_u8 {
        let mut world = World::new(1, Limits::default());
        let client = subscriber(&mut world, &format!("{subscribed:02x}"));
        let publisher = live(&mut world, 0, &connect_v5('p', "02", "00", ""));
        for (published, answer) in [
            ("30 05 0001 61 00 78", ""),
            ("32 07 0001 61 0003 00 78", "40 02 0003"),
            ("34 07 0001 61 0004 00 78", "50 02 0004"),
        ] {
            // [MQTT-3.3.4-1], [MQTT-2.2.1-5]
            let got = exchange(&mut world, publisher, &hex(published));
            assert_eq!(got, hex(answer), "{published}");
            if answer.starts_with("50") {
                let complete = exchange(&mut world, publisher, &hex("62 02 0004"));
                assert_eq!(complete, hex("70 02 0004"));
            }
            let qos = hex(published)[0] >> 1 & 3;
            let heard = world.read(client);
            let first = 0x30 | qos.min(subscribed) << 1;
            let id: &[u8] = match qos.min(subscribed) {
                0 => &[],
                _ => &heard[5..7],
            };
            let length = u8::try_from(5 + id.len()).unwrap();
            let want = [&[first, length, 0, 1, b'a'], id, &[0, b'x']].concat();
            assert_eq!(heard, want, "{published} at {subscribed}");
        }
    }
}

#[test]
fn each_member_of_a_group_gets_the_qos_that_it_was_granted() {
    // [MQTT-4.8.2-3]: the other member is granted QoS 2.
    for (granted, properties) in
        (0..6_u8).map(|case| (case % 3, ["00", LASTING][case as usize / 3]))
    {
        let mut world = World::new(2, Limits::default());
        let mut member = |id, shard, qos| {
            let client = live(&mut world, shard, &connect_v5(id, "00", properties, ""));
            exchange(&mut world, client, &subscribe("$share/g/a", qos));
            client
        };
        let members = [member('s', 0, granted), member('t', 1, 2)];
        let publisher = live(&mut world, 0, &connect_v5('p', "02", "00", ""));
        let two = "34 07 0001 61 0001 00 78 34 07 0001 61 0002 00 79";
        exchange(&mut world, publisher, &hex(two));
        let heard = members.map(|member| world.read(member)[0]);
        assert_eq!(heard, [0x30 | granted << 1, 0x34], "{properties}");
    }
}

#[test]
fn overlapping_subscriptions_give_one_message_at_the_highest_qos_with_all_identifiers() {
    let mut world = World::new(2, Limits::default());
    let client = live(&mut world, 0, &connect_v5('s', "00", LASTING, ""));
    // "a" at QoS 0 as 5, "#" at QoS 1 as 7, "+" at QoS 2 without one.
    exchange(&mut world, client, &hex("82 09 0001 02 0b 05 0001 61 00"));
    exchange(&mut world, client, &hex("82 09 0002 02 0b 07 0001 23 01"));
    exchange(&mut world, client, &hex("82 07 0003 00 0001 2b 02"));
    let publisher = live(&mut world, 1, &connect_v5('p', "02", "00", ""));
    // [MQTT-3.3.4-2], [MQTT-3.3.4-3], [MQTT-3.3.4-4]
    exchange(&mut world, publisher, &hex("34 07 0001 61 0001 00 78"));
    let heard = |first: &str, id: &str| hex(&format!("{first} 0b 0001 61 {id} 04 0b 05 0b 07 78"));
    assert_eq!(world.read(client), heard("34", "0001"));
    world.cut(client);
    // Also what waits, and after a restart.
    exchange(&mut world, publisher, &hex("32 07 0001 61 0002 00 78"));
    world.crash(0);
    let (client, owed) = back(&mut world);
    assert_eq!(owed, [heard("3c", "0001"), heard("32", "0002")].concat());
    let publisher = live(&mut world, 1, &connect_v5('p', "02", "00", ""));
    exchange(&mut world, publisher, &hex("32 07 0001 61 0003 00 78"));
    assert_eq!(world.read(client), heard("32", "0003"));
    // By groups it is sent more than once, each with its own identifier [MQTT-3.3.4-5].
    exchange(&mut world, client, &hex("40 02 0003"));
    let mut grouped = subscribe("$share/g/a", 0);
    grouped[1] += 2;
    grouped.splice(4..5, hex("02 0b 09"));
    exchange(&mut world, client, &grouped);
    exchange(&mut world, publisher, &hex("30 05 0001 61 00 78"));
    let mut copies: Vec<_> = world.read(client);
    let plain = hex("30 09 0001 61 04 0b 05 0b 07 78");
    let at = copies.windows(plain.len()).position(|copy| copy == plain);
    copies.drain(at.unwrap()..at.unwrap() + plain.len());
    assert_eq!(copies, hex("30 07 0001 61 02 0b 09 78"));
    // MQTT 3.1.1 too: one copy, the highest QoS (3.3.5).
    let client = live(&mut world, 0, &connect_v3('o', true));
    exchange(&mut world, client, &hex("82 0a 0001 0001 61 00 0001 23 02"));
    exchange(&mut world, publisher, &hex("32 07 0001 61 0004 00 78"));
    assert_eq!(world.read(client), hex("32 06 0001 61 0001 78"));
}

#[test]
fn dup_is_a_senders_own() {
    let mut world = World::new(1, Limits::default());
    let client = subscriber(&mut world, "02");
    let publisher = live(&mut world, 0, &connect_v5('p', "02", "00", ""));
    // DUP set by the publisher is not passed on [MQTT-3.3.1-3], [MQTT-4.3.2-2], [MQTT-4.3.3-2].
    exchange(
        &mut world,
        publisher,
        &hex("3a 07 0001 61 0001 00 78 3c 07 0001 61 0002 00 79"),
    );
    let heard = world.read(client);
    assert_eq!(
        heard,
        hex("32 07 0001 61 0001 00 78 34 07 0001 61 0002 00 79")
    );
    // Not while the connection lasts [MQTT-4.4.0-1].
    world.pass(3_600_000);
    assert_eq!(exchange(&mut world, client, &hex("c0 00")), hex("d0 00"));
    world.cut(client);
    // Unacknowledged [MQTT-4.3.2-3], [MQTT-4.3.3-3], it comes again [MQTT-4.4.0-1], and now it is
    // set [MQTT-3.3.1-1].
    let (client, again) = back(&mut world);
    assert_eq!(
        again,
        hex("3a 07 0001 61 0001 00 78 3c 07 0001 61 0002 00 79")
    );
    // PUBREC is answered by PUBREL of the same identifier [MQTT-4.3.3-4], [MQTT-2.2.1-5].
    let answer = exchange(&mut world, client, &hex("40 02 0001 50 02 0002"));
    assert_eq!(answer, hex("62 02 0002"));
    world.pass(3_600_000);
    assert_eq!(exchange(&mut world, client, &hex("c0 00")), hex("d0 00"));
    world.cut(client);
    // From then on PUBREL comes again [MQTT-4.3.3-5], PUBLISH does not [MQTT-4.3.3-6].
    let (client, again) = back(&mut world);
    assert_eq!(again, hex("62 02 0002"));
    exchange(&mut world, client, &hex("70 02 0002"));
    world.cut(client);
    let (_, again) = back(&mut world);
    assert_eq!(again, hex(""));
}

#[test]
fn packet_identifiers_are_not_zero_and_not_in_use() {
    let mut world = World::new(1, Limits::default());
    let client = subscriber(&mut world, "02");
    let publisher = live(&mut world, 0, &connect_v5('p', "02", "00", ""));
    let mut open = std::collections::BTreeSet::new();
    // They come round to the first.
    world.shards[0]
        .sessions
        .iter_mut()
        .next()
        .unwrap()
        .1
        .last_id = u16::MAX - 20;
    for round in 0..400_u32 {
        let flags = if round % 2 == 0 { "32" } else { "34" };
        let publish = hex(&format!("{flags} 07 0001 61 0001 00 78 62 02 0001"));
        exchange(&mut world, publisher, &publish);
        let heard = world.read(client);
        assert_eq!(heard.len(), 9, "round {round}");
        let id = u16::from_be_bytes([heard[5], heard[6]]);
        // [MQTT-2.2.1-4], [MQTT-4.3.2-1], [MQTT-4.3.3-1]
        assert!(id != 0 && open.insert(id), "{id} in round {round}");
        // Every third of QoS 1 stays open, and all of QoS 2.
        if round % 6 < 4 && flags == "32" {
            exchange(&mut world, client, &hex(&format!("40 02 {id:04x}")));
            open.remove(&id);
        }
        if round == 200 {
            // As after a restart: the next in turn are in use.
            let mut sessions = world.shards[0].sessions.iter_mut();
            let lasting = sessions.find(|(_, one)| one.is_persistent());
            let (_, session) = lasting.unwrap();
            session.last_id = open.first().unwrap() - 1;
            session.ids_restored = true;
        }
    }
    assert!(open.len() > 200);
}

#[test]
fn each_publish_after_its_acknowledgement_is_a_new_message() {
    let mut world = World::new(1, Limits::default());
    let client = subscriber(&mut world, "00");
    let publisher = live(&mut world, 0, &connect_v5('p', "02", "00", ""));
    for flags in ["32", "3a"] {
        let publish = hex(&format!("{flags} 07 0001 61 0001 00 78"));
        // [MQTT-4.3.2-4]; whatever DUP says [MQTT-4.3.2-5].
        assert_eq!(exchange(&mut world, publisher, &publish), hex("40 02 0001"));
        assert_eq!(world.read(client), hex("30 05 0001 61 00 78"));
    }
    let publish = hex("34 07 0001 61 0001 00 78");
    for _ in 0..2 {
        // [MQTT-4.3.3-8]; until PUBREL it is the same [MQTT-4.3.3-10].
        let answer = exchange(&mut world, publisher, &[&publish[..], &publish].concat());
        assert_eq!(answer, hex("50 02 0001 50 02 0001"));
        assert_eq!(world.read(client), hex("30 05 0001 61 00 78"));
        // [MQTT-4.3.3-11], [MQTT-4.3.3-12]
        assert_eq!(
            exchange(&mut world, publisher, &hex("62 02 0001")),
            hex("70 02 0001")
        );
    }
}

#[test]
fn an_expired_message_is_not_begun_and_a_begun_one_does_not_expire() {
    let mut world = World::new(1, Limits::default());
    let client = subscriber(&mut world, "02");
    let publisher = live(&mut world, 0, &connect_v5('p', "02", LASTING, ""));
    let expiring = |id: &str| hex(&format!("34 0c 0001 61 {id} 05 02 00000003 78"));
    exchange(&mut world, publisher, &expiring("0001"));
    assert_eq!(world.read(client), expiring("0001"));
    world.cut(client);
    exchange(&mut world, publisher, &expiring("0002"));
    world.pass(5_000);
    world.run();
    // The second was not begun [MQTT-3.3.2-5]; the first was sent, so it comes again, with nothing
    // left of its time [MQTT-4.3.3-7], [MQTT-3.3.2-6].
    let (client, again) = back(&mut world);
    assert_eq!(again, hex("3c 0c 0001 61 0001 05 02 00000000 78"));
    let answer = exchange(&mut world, client, &hex("50 02 0001"));
    assert_eq!(answer, hex("62 02 0001"));
    assert_eq!(exchange(&mut world, client, &hex("70 02 0001")), hex(""));
    // The publisher's side of both goes on [MQTT-4.3.3-13].
    let answer = exchange(&mut world, publisher, &hex("62 02 0001 62 02 0002"));
    assert_eq!(answer, hex("70 02 0001 70 02 0002"));
    assert_eq!(world.log.rows(Table::Inbound), 0);
}

#[test]
fn messages_of_one_publisher_keep_their_order() {
    for qos in 0..3_u8 {
        let mut world = World::new(3, Limits::default());
        let client = subscriber(&mut world, "02");
        let connect = connect_v5('w', "00", LASTING, "");
        let away = live(&mut world, 2, &connect);
        exchange(&mut world, away, &hex("82 07 0001 00 0001 23 02"));
        world.cut(away);
        let publisher = live(&mut world, 1, &connect_v5('p', "02", "00", ""));
        let publish = |id: u8| match qos {
            0 => hex(&format!("30 05 0001 61 00 {id:02x}")),
            _ => hex(&format!("3{} 07 0001 61 {id:04x} 00 {id:02x}", qos << 1)),
        };
        let release = |id: u8| hex(&format!("62 02 {id:04x}"));
        let sent = (1..=50).flat_map(|id| match qos {
            2 => [publish(id), release(id)].concat(),
            _ => publish(id),
        });
        world.send(publisher, &sent.collect::<Vec<u8>>());
        world.run();
        // [MQTT-4.6.0-5], [MQTT-4.6.0-6]
        let all: Vec<u8> = (1..=50).flat_map(publish).collect();
        assert_eq!(world.read(client), all, "{qos}");
        // Each was added to the Session of who is away too [MQTT-4.5.0-1], over a crash.
        world.crash(0);
        let away = world.open(0);
        let answer = exchange(&mut world, away, &connect);
        assert_eq!((answer[0], answer[2]), (0x20, 1));
        let owed = if qos == 0 { &[] } else { &all[..] };
        assert_eq!(answer[2 + usize::from(answer[1])..], *owed, "{qos}");
    }
}

#[test]
fn a_message_too_long_for_its_subscriber_is_done_with() {
    let mut world = World::new(1, Limits::default());
    // Maximum Packet Size 40, Receive Maximum 1.
    let connect = connect_v5('s', "00", "0d 11 00000064 27 00000028 21 0001", "");
    let client = live(&mut world, 0, &connect);
    exchange(&mut world, client, &hex("82 07 0001 00 0001 61 01"));
    let publisher = live(&mut world, 0, &connect_v3('p', true));
    let long = [&hex("32 2d 0001 61 0001")[..], &[0; 40]].concat();
    assert_eq!(exchange(&mut world, publisher, &long), hex("40 02 0001"));
    exchange(&mut world, publisher, &hex("32 06 0001 61 0002 78"));
    // [MQTT-3.1.2-24]; it takes no place in the window and does not come back [MQTT-3.1.2-25].
    let heard = world.read(client);
    assert_eq!((heard.len(), &heard[..5]), (9, &hex("32 07 0001 61")[..]));
    world.cut(client);
    let client = world.open(0);
    let answer = exchange(&mut world, client, &connect);
    assert!(
        answer.ends_with(&[&[0x3a], &heard[1..]].concat()),
        "{answer:02x?}"
    );
    assert_eq!(answer.len(), 2 + usize::from(answer[1]) + heard.len());
}

#[test]
fn the_servers_other_packets_have_no_reason_string() {
    let mut world = World::explaining(1, Limits::default());
    let client = live(&mut world, 0, &connect_v5('a', "02", "00", ""));
    // [MQTT-3.6.2-2], [MQTT-3.6.2-3], [MQTT-3.7.2-2], [MQTT-3.7.2-3]: there is none to be too long.
    let answer = exchange(&mut world, client, &hex("50 02 0009 62 02 0009"));
    assert_eq!(answer, hex("62 03 0009 92 70 03 0009 92"));
    // [MQTT-3.15.2-2], [MQTT-3.15.2-3]
    let client = world.open(0);
    let answer = exchange(
        &mut world,
        client,
        &connect_v5('b', "02", "04 15 0001 57", ""),
    );
    assert_eq!(answer, hex("f0 0a 18 08 15 0001 57 16 0001 3f"));
}
