//! Retained Messages: who gets which, and their limits. Bytes from the specification.

use super::World;
use super::exchanges::{connect_v3, connect_v5, exchange, hex, live};
use crate::{Limits, Table};

#[test]
fn a_retained_message_reaches_who_subscribes_while_it_commits() {
    for (clean, qos, publish, why) in [
        (true, 0, "30 04 0001 61 78", "at once"),
        (true, 1, "32 06 0001 61 0001 78", "from memory"),
        (false, 1, "32 06 0001 61 0001 78", "owed"),
    ] {
        let mut world = World::new(2, Limits::default());
        let subscriber = live(&mut world, 0, &connect_v3('s', clean));
        let publisher = live(&mut world, 1, &connect_v3('p', true));
        world.send(publisher, &hex("33 06 0001 61 0001 78"));
        world.send(subscriber, &hex(&format!("82 06 0001 0001 61 0{qos}")));
        // Matched before anybody has subscribed; subscribed before it is in the log.
        for shard in if clean { [1, 0] } else { [0, 1] } {
            world.run_shard(shard, 1);
        }
        if !clean {
            world.run_log(1);
            world.run_shard(0, 2);
        }
        world.run();
        let got = world.read(subscriber);
        let suback = hex(&format!("90 03 0001 0{qos}"));
        assert_eq!(got, [suback, hex(publish)].concat(), "{why}");
    }
}

#[test]
fn a_client_that_retains_and_then_subscribes_gets_it_as_retained() {
    // MQTT 3.1.1, [MQTT-3.3.1-8]; in 5.0 with Retain Handling 2 it gets nothing [MQTT-3.3.1-11].
    for (connect, both, wanted) in [
        (
            connect_v3('s', true),
            "31 04 0001 61 78 82 06 0001 0001 61 00",
            "90 03 0001 00 31 04 0001 61 78",
        ),
        (
            connect_v5('s', "02", "00", ""),
            "31 05 0001 61 00 78 82 07 0001 00 0001 61 20",
            "90 04 0001 00 00",
        ),
        // And what it unsubscribes from in the same breath stays unsubscribed from.
        (
            connect_v3('s', true),
            "31 04 0001 61 78 82 06 0001 0001 61 00 a2 05 0002 0001 61",
            "90 03 0001 00 b0 02 0002",
        ),
    ] {
        let mut world = World::new(1, Limits::default());
        let client = live(&mut world, 0, &connect);
        assert_eq!(
            exchange(&mut world, client, &hex(both)),
            hex(wanted),
            "{both}"
        );
        let other = live(&mut world, 0, &connect_v3('o', true));
        exchange(&mut world, other, &hex("30 04 0001 61 79"));
        let came = !world.read(client).is_empty();
        assert_eq!(came, !wanted.ends_with("0002"), "{both}");
    }
}

#[test]
fn no_local_holds_for_a_subscription_made_while_a_retained_message_commits() {
    let mut world = World::new(1, Limits::default());
    let client = live(&mut world, 0, &connect_v5('c', "02", "00", ""));
    // QoS 0 | No Local, Retain Handling 2.
    let both = hex("31 05 0001 61 00 78 82 07 0001 00 0001 61 24");
    let answer = exchange(&mut world, client, &both);
    assert_eq!(answer, hex("90 04 0001 00 00"));
}

#[test]
fn an_older_retained_message_does_not_follow_a_newer_one() {
    let mut world = World::new(1, Limits::default());
    let publisher = live(&mut world, 0, &connect_v3('p', true));
    exchange(&mut world, publisher, &hex("33 06 0001 61 0001 78"));
    let subscriber = live(&mut world, 0, &connect_v3('s', false));
    world.send(subscriber, &hex("82 06 0001 0001 61 01"));
    world.run_shard(0, 1);
    world.run_log(1);
    // SUBACK, and the commit of what is retained; but the newer one is before it in the log.
    world.send(publisher, &hex("33 06 0001 61 0002 79"));
    let newer = world.inboxes[0].pop_back().unwrap();
    world.inboxes[0].push_front(newer);
    world.run();
    let got = world.read(subscriber);
    assert_eq!(got, hex("90 03 0001 01 32 06 0001 61 0001 79"));
    // Neither does it after a restart.
    exchange(&mut world, subscriber, &hex("40 02 0001"));
    world.pass(2_000);
    world.run();
    world.crash(0);
    let subscriber = world.open(0);
    let answer = exchange(&mut world, subscriber, &connect_v3('s', false));
    assert_eq!(answer, hex("20 02 01 00"));
}

#[test]
fn a_full_store_of_retained_messages_refuses_who_can_be_told() {
    let limits = Limits {
        retained_messages_max: 1,
        retained_bytes_max: 10,
        ..Limits::default()
    };
    let mut world = World::new(1, limits);
    let subscriber = live(&mut world, 0, &connect_v3('s', true));
    exchange(&mut world, subscriber, &hex("82 06 0001 0001 23 01"));
    let v3 = live(&mut world, 0, &connect_v3('p', true));
    let v5 = live(&mut world, 0, &connect_v5('q', "02", "00", ""));
    for (publisher, publish, answer, delivered, why) in [
        (
            v3,
            "33 07 0001 61 0001 3132",
            "40 02 0001",
            true,
            "there is room",
        ),
        (
            v3,
            "33 0e 0001 61 0001 313233343536373839",
            "40 02 0001",
            true,
            "for one as long as all",
        ),
        (
            v3,
            "33 06 0001 62 0001 78",
            "40 02 0001",
            true,
            "3.x cannot be told",
        ),
        (
            v5,
            "33 07 0001 62 0001 00 78",
            "40 03 0001 97",
            false,
            "5.0 can",
        ),
        (v5, "31 05 0001 62 00 78", "", true, "not at QoS 0"),
        (
            v5,
            "33 0b 0001 61 0001 00 3132333435",
            "40 02 0001",
            true,
            "a shorter one",
        ),
        (v5, "33 06 0001 61 0001 00", "40 02 0001", true, "cleared"),
    ] {
        let got = exchange(&mut world, publisher, &hex(publish));
        let short = |bytes: &[u8]| bytes.iter().take(5).copied().collect::<Vec<u8>>();
        assert_eq!(short(&got), short(&hex(answer)), "{why}");
        assert_eq!(!world.read(subscriber).is_empty(), delivered, "{why}");
    }
    assert_eq!(world.log.rows(Table::Retained), 0);
    assert_eq!(world.shards[0].counts().not_retained, 3);
    assert_eq!(world.shards[0].counts().refused, 1);
}
