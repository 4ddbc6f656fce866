//! Retained Messages to new subscriptions: once each, in slices, to Clients of all kinds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use headwater_mqtt_codec::{QoS, Version};

use super::World;
use super::client::{Client, Event, Mark};
use super::exchanges::{connect_v3, connect_v5, exchange, hex, live};
use crate::{ConnectionId, Input, Limits, Message};

fn mark(sequence: u64) -> Mark {
    let publisher = 9;
    Mark {
        publisher,
        sequence,
    }
}

/// Sets a Retained Message as a commit would, and nothing else.
fn retain(world: &World, topic: &str, sequence: u64, qos: QoS) {
    let message = Message {
        payload: mark(sequence).payload().into(),
        qos,
        ..Message::example(topic)
    };
    world.shared.retained.set(&Arc::new(message));
}

/// SUBSCRIBE of 3.1.1 for filters of less than 100 bytes in all.
fn subscribe(filters: &[&str]) -> Vec<u8> {
    let mut body = vec![0, 1];
    for filter in filters {
        body.extend([0, u8::try_from(filter.len()).unwrap()]);
        body.extend(filter.as_bytes());
        body.push(0);
    }
    [&[0x82, u8::try_from(body.len()).unwrap()], &body[..]].concat()
}

fn feeds(world: &World) -> usize {
    let all = world.shards.iter().flat_map(|shard| &shard.sessions);
    all.map(|(_, session)| session.feeds_len()).sum()
}

fn visited(world: &World) -> usize {
    world.shared.retained.visited.load(Ordering::Relaxed)
}

/// One round of a shard and what came of it, as the driver goes on.
fn turn(world: &mut World) {
    world.inboxes[0].push_back(Input::Tick);
    world.run_shard(0, usize::MAX);
}

/// r/0000 to r/0999 are retained, and a Client of 3.1.1 reads nothing.
fn thousand_and_one_who_does_not_read() -> (World, ConnectionId) {
    let limits = Limits {
        output_bytes_max: 1_000,
        ..Limits::default()
    };
    let mut world = World::new(1, limits);
    for sequence in 0..1_000 {
        retain(
            &world,
            &format!("r/{sequence:04}"),
            sequence,
            QoS::AtMostOnce,
        );
    }
    let client = live(&mut world, 0, &connect_v3('c', true));
    world.room.insert(client, 0);
    (world, client)
}

#[test]
fn who_subscribes_again_has_one_feed_that_begins_again() {
    let (mut world, client) = thousand_and_one_who_does_not_read();
    for _ in 0..100 {
        world.send(client, &subscribe(&["r/#", "#"]));
        world.run();
        assert_eq!(feeds(&world), 2);
    }
    // Nobody reads, so the sum of what was looked at stays at a slice for each bound.
    assert!(visited(&world) < 5_000, "{}", visited(&world));
    world.room.remove(&client);
    world.make_room(client, usize::MAX);
    world.run();
    let bytes = world.read(client);
    let last = bytes.windows(6).filter(|bytes| bytes == b"r/0999");
    assert_eq!(
        last.count(),
        2,
        "for each filter once, behind the last SUBSCRIBE"
    );
    assert_eq!(feeds(&world), 0);
}

#[test]
fn a_turn_looks_at_few_of_a_hundred_thousand_and_others_go_on() {
    let mut world = World::new(1, Limits::default());
    for sequence in 0..100_000 {
        retain(
            &world,
            &format!("r/{sequence:06}/x"),
            sequence,
            QoS::AtMostOnce,
        );
    }
    retain(&world, "z/y", 7, QoS::AtMostOnce);
    let other = live(&mut world, 0, &connect_v3('o', true));
    let clients = ['a', 'b', 'c'].map(|id| live(&mut world, 0, &connect_v3(id, true)));
    for client in clients {
        // Each for the same few at the end, and again in the same read.
        world.send(client, &subscribe(&["+/y"]).repeat(50));
    }
    let (mut turns, mut most) = (0, 0);
    while turns == 0 || world.shards[0].deadline() == Some(0) {
        let before = visited(&world);
        world.send(other, &hex("c000"));
        turn(&mut world);
        assert_eq!(world.read(other), hex("d000"), "in its turn");
        most = most.max(visited(&world) - before);
        turns += 1;
    }
    assert!(most <= 4_096, "{most} in one turn");
    assert!(turns >= 3 * 100_000 / 4_096);
    for client in clients {
        let bytes = world.read(client);
        let found = bytes.windows(3).filter(|bytes| bytes == b"z/y").count();
        assert_eq!(found, 1);
    }
}

#[test]
fn what_stood_comes_once_and_what_replaces_it_comes_as_it_is_published() {
    let mut world = World::new(1, Limits::default());
    for sequence in 0..3_000 {
        retain(
            &world,
            &format!("r/{sequence:04}"),
            sequence,
            QoS::AtMostOnce,
        );
    }
    let client = live(&mut world, 0, &connect_v3('c', true));
    let publisher = live(&mut world, 0, &connect_v3('p', true));
    world.send(client, &subscribe(&["r/#"]));
    world.run_shard(0, 1);
    assert_eq!(feeds(&world), 1, "the first slice is sent");
    let publish = |topic: &str, payload: &str| {
        let mut bytes = vec![0x31, u8::try_from(2 + topic.len() + payload.len()).unwrap()];
        bytes.extend([0, u8::try_from(topic.len()).unwrap()]);
        [&bytes[..], topic.as_bytes(), payload.as_bytes()].concat()
    };
    for (topic, payload) in [("r/2000", "new"), ("r/2500", ""), ("r/2999a", "more")] {
        world.send(publisher, &publish(topic, payload));
    }
    world.run_shard(0, usize::MAX);
    world.run_log(usize::MAX);
    assert_eq!(feeds(&world), 1, "it has not come to them");
    world.run();
    let bytes = world.read(client);
    let count = |needle: &[u8]| {
        bytes
            .windows(needle.len())
            .filter(|at| *at == needle)
            .count()
    };
    for sequence in 0..3_000 {
        let old = [
            format!("r/{sequence:04}").into_bytes(),
            mark(sequence).payload(),
        ]
        .concat();
        let gone = [2_000, 2_500].contains(&sequence);
        assert_eq!(count(&old), usize::from(!gone), "r/{sequence:04}");
    }
    assert_eq!(count(b"r/2000new"), 1, "as it was published");
    assert_eq!(count(b"r/2999amore"), 1, "as it was published");
}

#[test]
fn unsubscribe_ends_its_feed() {
    let (mut world, client) = thousand_and_one_who_does_not_read();
    exchange(&mut world, client, &subscribe(&["#"]));
    exchange(&mut world, client, &hex("a2 05 0001 0001 23"));
    world.make_room(client, usize::MAX);
    world.run();
    assert_eq!(feeds(&world), 0);
    assert!(
        world.read(client).ends_with(&hex("b0 02 0001")),
        "UNSUBACK is the last"
    );
}

/// A Client that answers everything; what it received, by sequence.
fn receive_all(world: &mut World, client: &mut Client, id: ConnectionId) -> BTreeMap<u64, u32> {
    let mut got = BTreeMap::new();
    loop {
        world.run();
        let mut events = Vec::new();
        client.receive(&world.read(id), &mut events);
        if events.is_empty() && client.out.is_empty() {
            return got;
        }
        for event in events {
            if let Event::Received(one) = event {
                assert!(one.retain, "MQTT 3.1.1, [MQTT-3.3.1-8]");
                *got.entry(one.mark.sequence).or_default() += 1;
            }
        }
        let out = std::mem::take(&mut client.out);
        world.send(id, &out);
    }
}

#[test]
fn a_feed_never_pushes_what_is_owed_out_of_the_queue() {
    for (version, persistent) in [
        (Version::V311, false),
        (Version::V311, true),
        (Version::V5, true),
    ] {
        for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let limits = Limits {
                queue_messages_max: 600,
                inflight_max: 10.try_into().unwrap(),
                ..Limits::default()
            };
            let mut world = World::new(2, limits);
            for sequence in 0..3_000 {
                retain(
                    &world,
                    &format!("r/{sequence:04}"),
                    sequence,
                    QoS::ExactlyOnce,
                );
            }
            let id = world.open(1);
            let mut client = Client::new(0, version, persistent, vec![("r/#".into(), qos)]);
            client.connect(id, false, None);
            assert_eq!(receive_all(&mut world, &mut client, id).len(), 0);
            client.subscribe();
            let got = receive_all(&mut world, &mut client, id);
            assert_eq!(got.len(), 3_000, "{version:?} {persistent} {qos:?}");
            assert!(got.values().all(|count| *count == 1));
            assert_eq!(world.shards[1].counts().dropped_limit, 0);
        }
    }
}

#[test]
fn many_feeds_that_wait_for_answers_get_them() {
    let limits = Limits {
        inflight_max: 10.try_into().unwrap(),
        ..Limits::default()
    };
    let mut world = World::new(1, limits);
    for sequence in 0..2_000 {
        let topic = format!("r/{sequence:04}");
        retain(&world, &topic, sequence, QoS::AtLeastOnce);
    }
    let id = world.open(0);
    let filters = (0..70).map(|some| (format!("x/{some}"), QoS::AtLeastOnce));
    let all = [
        ("r/#".into(), QoS::AtLeastOnce),
        ("#".into(), QoS::AtLeastOnce),
    ];
    let filters = all.into_iter().chain(filters).collect();
    let mut client = Client::new(0, Version::V311, false, filters);
    client.connect(id, false, None);
    receive_all(&mut world, &mut client, id);
    client.subscribe();
    let got = receive_all(&mut world, &mut client, id);
    assert_eq!(got.len(), 2_000);
    assert!(got.values().all(|count| *count == 2), "by both filters");
    assert_eq!(world.stuck(), Vec::<String>::new());
}

#[test]
fn what_nobody_needs_any_more_does_not_hold_up_a_feed() {
    let mut world = World::new(1, Limits::default());
    // Receive Maximum 1.
    let client = live(&mut world, 0, &connect_v5('c', "02", "03 21 0001", ""));
    exchange(&mut world, client, &hex("82 07 0001 00 0001 61 01"));
    let publisher = live(&mut world, 0, &connect_v5('p', "02", "00", ""));
    // One in flight, and more than feeds let wait, for one second each.
    for id in 1..=600 {
        let bytes = hex(&format!("32 0c 0001 61 {id:04x} 05 02 00000001 78"));
        exchange(&mut world, publisher, &bytes);
    }
    retain(&world, "r", 1, QoS::AtMostOnce);
    exchange(&mut world, client, &hex("82 07 0002 00 0001 72 00"));
    assert_eq!(feeds(&world), 1, "it waits");
    world.pass(2_000);
    let answer = exchange(&mut world, client, &hex("40 02 0001"));
    assert_eq!(
        answer,
        [&hex("31 07 0001 72 00")[..], &mark(1).payload()].concat()
    );
}
