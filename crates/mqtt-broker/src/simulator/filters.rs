//! SUBSCRIBE and UNSUBSCRIBE: their answers and options, and Retained Messages. Bytes from the
//! specification.

use super::World;
use super::exchanges::{connect_v3, connect_v5, exchange, hex, live};
use crate::{Limits, Table};

const LASTING: &str = "05 11 00000064";

#[test]
fn each_filter_is_answered_in_its_place() {
    let limits = Limits {
        topic_levels_max: 3,
        ..Limits::default()
    };
    let mut world = World::new(1, limits);
    let client = live(&mut world, 0, &connect_v5('s', "02", LASTING, ""));
    // "a" at 2, "a/b/c/d" which is too deep, "b" at 0, "c" at 1.
    let subscribe = hex("82 19 1234 00 0001 61 02 0007 612f622f632f64 01 0001 62 00 0001 63 01");
    // [MQTT-3.8.4-1], [MQTT-3.8.4-2], [MQTT-2.2.1-6]; one code each [MQTT-3.8.4-5],
    // [MQTT-3.8.4-6], [MQTT-3.8.4-7], in their order [MQTT-3.9.3-1], from table 3-8 [MQTT-3.9.3-2].
    assert_eq!(
        exchange(&mut world, client, &subscribe),
        hex("90 07 1234 00 02 8f 00 01")
    );
    // MQTT 3.1.1 and 3.1: 0x80.
    for connect in [
        connect_v3('o', true),
        hex("10 0f 0006 4d5149736470 03 02 0000 0001 6f"),
    ] {
        let client = live(&mut world, 0, &connect);
        let subscribe = hex("82 10 0001 0001 61 02 0007 612f622f632f64 01");
        assert_eq!(
            exchange(&mut world, client, &subscribe),
            hex("90 04 0001 02 80")
        );
    }
    // "c", nobody, "a": [MQTT-3.10.4-4], [MQTT-3.10.4-5], [MQTT-3.10.4-6], [MQTT-3.11.3-1],
    // [MQTT-3.11.3-2], [MQTT-2.2.1-6].
    let unsubscribe = hex("a2 0c 4321 00 0001 63 0001 78 0001 61");
    assert_eq!(
        exchange(&mut world, client, &unsubscribe),
        hex("b0 06 4321 00 00 11 00")
    );
    let unsubscribe = hex("a2 06 4322 00 0001 78");
    assert_eq!(
        exchange(&mut world, client, &unsubscribe),
        hex("b0 04 4322 00 11")
    );
    assert_eq!(world.log.rows(Table::Subscriptions), 1);
}

#[test]
fn unsubscribe_takes_the_filter_that_is_the_same_and_no_other() {
    let mut world = World::new(1, Limits::default());
    let client = live(&mut world, 0, &connect_v5('s', "02", LASTING, ""));
    exchange(
        &mut world,
        client,
        &hex("82 13 0001 00 0003 612f2b 01 0003 612f62 01 0001 41 00"),
    );
    let publisher = live(&mut world, 0, &connect_v3('p', true));
    let publish = |id: &str| hex(&format!("32 08 0003 612f62 {id} 78"));
    exchange(&mut world, publisher, &publish("0001"));
    let heard = |first: &str, id: &str| hex(&format!("{first} 09 0003 612f62 {id} 00 78"));
    assert_eq!(world.read(client), heard("32", "0001"));
    // Character by character [MQTT-3.10.4-1]: "a/c", which "a/+" would select, and "a/B" are others.
    let answer = exchange(
        &mut world,
        client,
        &hex("a2 0d 0002 00 0003 612f63 0003 612f42"),
    );
    assert_eq!(answer, hex("b0 05 0002 00 11 11"));
    exchange(&mut world, client, &hex("a2 08 0003 00 0003 612f62"));
    exchange(&mut world, publisher, &publish("0002"));
    assert_eq!(
        world.read(client),
        heard("32", "0002"),
        "by the other filter"
    );
    exchange(&mut world, client, &hex("a2 08 0004 00 0003 612f2b"));
    exchange(&mut world, publisher, &publish("0003"));
    assert_eq!(world.read(client), hex(""), "[MQTT-3.10.4-2]");
    // What was begun is completed [MQTT-3.10.4-3].
    world.cut(client);
    let client = world.open(0);
    let answer = exchange(&mut world, client, &connect_v5('s', "00", LASTING, ""));
    let again = [heard("3a", "0001"), heard("3a", "0002")].concat();
    assert!(answer.ends_with(&again), "{answer:02x?}");
}

#[test]
fn retain_handling_says_when_retained_messages_are_sent() {
    let mut world = World::new(1, Limits::default());
    let publisher = live(&mut world, 0, &connect_v3('p', true));
    exchange(&mut world, publisher, &hex("31 04 0001 61 78"));
    for (handling, at_first, again) in [
        (0, true, true),   // [MQTT-3.3.1-9], [MQTT-3.8.4-4]
        (1, true, false),  // [MQTT-3.3.1-10]
        (2, false, false), // [MQTT-3.3.1-11]
    ] {
        for flags in ["02", "00"] {
            let client = live(&mut world, 0, &connect_v5('s', flags, LASTING, ""));
            exchange(&mut world, client, &hex("a2 06 0001 00 0001 61"));
            for (round, expected) in [at_first, again].into_iter().enumerate() {
                let options = handling << 4;
                let subscribe = hex(&format!("82 07 0001 00 0001 61 {options:02x}"));
                let retained = if expected { "31 05 0001 61 00 78" } else { "" };
                let want = hex(&format!("90 04 0001 00 00 {retained}"));
                let answer = exchange(&mut world, client, &subscribe);
                assert_eq!(answer, want, "{handling}, {round}, {flags}");
            }
        }
    }
    // A Session that is taken up has its subscription already [MQTT-3.3.1-10].
    world.crash(0);
    let client = live(&mut world, 0, &connect_v5('s', "00", LASTING, ""));
    let answer = exchange(&mut world, client, &hex("82 07 0001 00 0001 61 10"));
    assert_eq!(answer, hex("90 04 0001 00 00"));
}

#[test]
fn options_of_a_subscription_hold_after_a_restart_and_are_replaced() {
    let mut world = World::new(1, Limits::default());
    let connect = connect_v5('s', "00", LASTING, "");
    let client = live(&mut world, 0, &connect);
    // QoS 0, No Local and Retain As Published, as 9.
    exchange(&mut world, client, &hex("82 09 0001 02 0b 09 0001 61 0c"));
    for round in 0..2 {
        let publisher = live(&mut world, 0, &connect_v3('p', true));
        exchange(
            &mut world,
            publisher,
            &hex("31 04 0001 61 78 30 04 0001 61 79"),
        );
        // RETAIN as published [MQTT-3.3.1-13], with its identifier [MQTT-3.3.4-3].
        let client = *world.open.keys().find(|id| **id != publisher).unwrap();
        let heard = hex("31 07 0001 61 02 0b 09 78 30 07 0001 61 02 0b 09 79");
        assert_eq!(world.read(client), heard, "{round}");
        // And not its own [MQTT-3.8.3-3].
        let answer = exchange(&mut world, client, &hex("30 05 0001 61 00 7a"));
        assert_eq!(answer, hex(""), "{round}");
        world.crash(0);
        live(&mut world, 0, &connect);
    }
    // Replaced [MQTT-3.8.4-3]: RETAIN is 0 whatever it was [MQTT-3.3.1-12], its own is heard, and
    // there is no identifier.
    let client = *world.open.keys().next().unwrap();
    exchange(&mut world, client, &hex("82 07 0002 00 0001 61 20"));
    let answer = exchange(&mut world, client, &hex("31 05 0001 61 00 78"));
    assert_eq!(answer, hex("30 05 0001 61 00 78"));
    assert_eq!(world.log.rows(Table::Subscriptions), 1);
}

#[test]
fn a_replaced_subscription_loses_nothing() {
    let mut world = World::new(2, Limits::default());
    let client = live(&mut world, 0, &connect_v5('s', "00", LASTING, ""));
    exchange(&mut world, client, &hex("82 07 0001 00 0001 61 01"));
    let publisher = live(&mut world, 1, &connect_v3('p', true));
    // [MQTT-3.8.4-4]: messages come in between, whatever is committed first.
    for id in 1..=40_u8 {
        world.send(publisher, &hex(&format!("32 06 0001 61 {id:04x} {id:02x}")));
        world.send(client, &hex("82 07 0002 00 0001 61 01"));
        for shard in if id % 2 == 0 { [0, 1] } else { [1, 0] } {
            world.run_shard(shard, 1 + usize::from(id % 3));
        }
        world.run_log(usize::from(id % 4));
    }
    world.run();
    let heard = world.read(client);
    let mut rest = &heard[..];
    let mut payloads = Vec::new();
    while let [first, length, tail @ ..] = rest {
        let (body, tail) = tail.split_at(usize::from(*length));
        if first & 0xf0 == 0x30 {
            payloads.push(*body.last().unwrap());
        }
        rest = tail;
    }
    assert_eq!(payloads, (1..=40).collect::<Vec<u8>>());
}

#[test]
fn one_retained_message_is_kept_for_a_topic() {
    let mut world = World::new(1, Limits::default());
    let publisher = live(&mut world, 0, &connect_v5('p', "02", "00", ""));
    let retained = |world: &mut World| {
        let client = live(world, 0, &connect_v5('s', "02", "00", ""));
        let answer = exchange(world, client, &hex("82 07 0001 00 0001 61 00"));
        answer[6..].to_vec()
    };
    exchange(&mut world, publisher, &hex("31 05 0001 61 00 78"));
    assert_eq!(retained(&mut world), hex("31 05 0001 61 00 78"));
    // Replaced [MQTT-3.3.1-5]; not by one that is not retained [MQTT-3.3.1-8].
    exchange(
        &mut world,
        publisher,
        &hex("31 05 0001 61 00 79 30 05 0001 61 00 7a"),
    );
    assert_eq!(retained(&mut world), hex("31 05 0001 61 00 79"));
    // Nor is one that has nothing in it, if it is not retained.
    exchange(&mut world, publisher, &hex("30 04 0001 61 00"));
    assert_eq!(retained(&mut world), hex("31 05 0001 61 00 79"));
    // An empty one removes it [MQTT-3.3.1-6] and is not kept itself [MQTT-3.3.1-7].
    // Who has subscribed already gets it as any other message.
    let client = live(&mut world, 0, &connect_v5('t', "02", "00", ""));
    exchange(&mut world, client, &hex("82 07 0001 00 0001 61 20"));
    exchange(&mut world, publisher, &hex("31 04 0001 61 00"));
    assert_eq!(world.read(client), hex("30 04 0001 61 00"));
    assert_eq!(retained(&mut world), hex(""));
    assert_eq!(world.log.rows(Table::Retained), 0);
    // A message comes to who has a filter for its topic [MQTT-3.3.2-3].
    let client = live(&mut world, 0, &connect_v5('t', "02", "00", ""));
    exchange(&mut world, client, &hex("82 09 0001 00 0003 612f2b 00"));
    exchange(
        &mut world,
        publisher,
        &hex("30 05 0001 61 00 78 30 07 0003 612f62 00 78 30 09 0005 612f622f63 00 78"),
    );
    assert_eq!(world.read(client), hex("30 07 0003 612f62 00 78"));
}

#[test]
fn retain_is_as_published_or_zero_at_every_qos_now_and_later() {
    for qos in 0..3_u8 {
        for (as_published, expected) in [(0, 0), (8, 1)] {
            let mut world = World::new(1, Limits::default());
            let connect = connect_v5('s', "00", LASTING, "");
            let client = live(&mut world, 0, &connect);
            let options = qos | as_published;
            let subscribe = hex(&format!("82 07 0001 00 0001 61 {options:02x}"));
            exchange(&mut world, client, &subscribe);
            let publisher = live(&mut world, 0, &connect_v3('p', true));
            let publish = hex("35 06 0001 61 0001 78 62 02 0001");
            exchange(&mut world, publisher, &publish);
            let first = 0x30 | qos << 1 | expected; // [MQTT-3.3.1-12], [MQTT-3.3.1-13]
            assert_eq!(world.read(client)[0], first, "{options}");
            if qos == 0 {
                continue;
            }
            world.cut(client);
            exchange(&mut world, publisher, &publish);
            let client = world.open(0);
            let answer = exchange(&mut world, client, &connect);
            let owed = &answer[answer.len() - 9..];
            assert_eq!(owed[0] & !8, first, "{options}, owed");
        }
    }
}
