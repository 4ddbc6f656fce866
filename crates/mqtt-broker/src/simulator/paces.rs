//! Clients that send more than their rates allow: they are read later, and nothing is lost.

use std::sync::Arc;

use super::World;
use super::exchanges::{connect_v3, connect_v5, exchange, hex, live};
use crate::{ClientLimits, ConnectionId, Limits, Rate};

fn world(messages: Rate, bytes: Rate) -> World {
    let mut world = World::new(2, Limits::default());
    world.client_limits = Arc::new(ClientLimits {
        messages,
        bytes,
        ..ClientLimits::default()
    });
    world
}

const NONE: Rate = Rate {
    per_second: 0,
    burst: 0,
};

/// Who gets what is published to "a".
fn reader(world: &mut World) -> ConnectionId {
    let limits = std::mem::take(&mut world.client_limits);
    let reader = live(world, 1, &connect_v3('r', true));
    exchange(world, reader, &hex("82 06 0001 0001 61 00"));
    world.client_limits = limits;
    reader
}

fn pass(world: &mut World, ms: u64) {
    for _ in 0..ms {
        world.pass(1);
        world.run();
    }
}

#[test]
fn messages_beyond_the_rate_wait_in_their_order() {
    let rate = Rate {
        per_second: 10,
        burst: 5,
    };
    let mut world = world(rate, NONE);
    let reader = reader(&mut world);
    let writer = live(&mut world, 0, &connect_v3('w', true));
    let message = |one: u8| [&hex("30 04 0001 61")[..], &[one]].concat();
    let all: Vec<u8> = (0..20).flat_map(message).collect();
    // A PINGREQ between, and the end of a message in the next read.
    let (first, rest) = all.split_at(6 * 10 + 3);
    let sent = [&first[..6 * 7], &hex("c000"), &first[6 * 7..]].concat();
    assert_eq!(exchange(&mut world, writer, &sent), []);
    assert!(world.paused.contains(&writer));
    assert_eq!(world.read(reader), all[..6 * 5], "the burst");
    pass(&mut world, 99);
    assert_eq!(world.read(reader), []);
    pass(&mut world, 1);
    assert_eq!(world.read(reader), all[6 * 5..6 * 6]);
    pass(&mut world, 199);
    assert_eq!(world.read(writer), [], "PINGREQ waits with the rest");
    pass(&mut world, 1);
    assert_eq!(world.read(writer), hex("d000"));
    world.send(writer, rest);
    let begun = world.now.mono_ms;
    let mut got = all[..6 * 6].to_vec();
    while got.len() < all.len() {
        pass(&mut world, 1);
        got.extend(world.read(reader));
        assert!(world.now.mono_ms < begun + 2_000, "{} bytes", got.len());
    }
    assert_eq!(got, all);
    // 15 beyond the burst at 10 a second, of which 3 were over before.
    assert_eq!(world.now.mono_ms - begun, 1_200);
    assert!(world.shards[0].counts().slowed > 5);
    pass(&mut world, 100);
    assert!(!world.paused.contains(&writer));
}

#[test]
fn bytes_beyond_the_rate_wait_and_others_do_not() {
    let rate = Rate {
        per_second: 1_000,
        burst: 100,
    };
    let mut world = world(NONE, rate);
    let reader = reader(&mut world);
    let writers = ['v', 'w'].map(|id| live(&mut world, 0, &connect_v3(id, true)));
    let long = [&hex("30 cb02 0001 61")[..], &[7; 328]].concat();
    assert_eq!(long.len(), 334);
    world.send(writers[0], &long);
    world.run();
    assert_eq!(world.read(reader), [], "234 bytes ahead of its time");
    exchange(&mut world, writers[1], &hex("30 04 0001 61 78"));
    assert_eq!(world.read(reader), hex("30 04 0001 61 78"));
    pass(&mut world, 233);
    assert_eq!(world.read(reader), []);
    pass(&mut world, 1);
    assert_eq!(world.read(reader), long);
    assert!(!world.paused.contains(&writers[0]));
}

#[test]
fn a_client_that_waits_for_its_rate_is_not_silent() {
    let rate = Rate {
        per_second: 1,
        burst: 1,
    };
    let mut world = world(rate, NONE);
    // Keep Alive 2.
    let writer = live(
        &mut world,
        0,
        &hex("10 0d 0004 4d515454 04 02 0002 0001 77"),
    );
    exchange(&mut world, writer, &hex("30 04 0001 61 78").repeat(6));
    pass(&mut world, 5_000);
    assert_eq!(world.shards[0].counts().received_qos0, 6);
    assert!(world.is_open(writer));
    // A second until it is read again; then its silence begins.
    pass(&mut world, 1_000 + 2_999);
    assert!(world.is_open(writer));
    pass(&mut world, 1);
    assert!(!world.is_open(writer)); // MQTT 3.1.1, [MQTT-3.1.2-24]
}

#[test]
fn exactly_once_stays_so_at_a_rate_and_the_end_of_a_connection_waits_for_what_was_sent() {
    let rate = Rate {
        per_second: 10,
        burst: 1,
    };
    let mut world = world(rate, NONE);
    let reader = reader(&mut world);
    let writer = live(&mut world, 0, &connect_v5('w', "02", "00", ""));
    // Two at QoS 2, the first one's PUBREL, DISCONNECT.
    let sent = "34 07 0001 61 0001 00 78  34 07 0001 61 0002 00 79  62 02 0001  e000";
    let answer = exchange(&mut world, writer, &hex(sent));
    assert_eq!(answer, hex("50 02 0001"));
    pass(&mut world, 100);
    assert_eq!(world.read(writer), hex("50 02 0002"));
    pass(&mut world, 100);
    assert_eq!(world.read(writer), hex("70 02 0001"));
    assert!(!world.is_open(writer));
    assert_eq!(world.read(reader), hex("30 04 0001 61 78 30 04 0001 61 79"));
}

#[test]
fn who_is_far_ahead_is_looked_at_seldom_and_copied_once() {
    let rate = Rate {
        per_second: 200,
        burst: 100,
    };
    let mut world = world(rate, NONE);
    let reader = reader(&mut world);
    let writer = live(&mut world, 0, &connect_v3('w', true));
    exchange(&mut world, writer, &hex("30 04 0001 61 00").repeat(300));
    let end = |world: &World| {
        let held = world.shards[0].connections.iter().map(|(_, one)| &one.held);
        held.map(|held| held.as_ptr_range().end).max()
    };
    let first = end(&world);
    pass(&mut world, 500);
    assert_eq!(end(&world), first, "the same copy");
    pass(&mut world, 500);
    assert_eq!(world.read(reader).len(), 6 * 300);
    // 200 messages, ten a twentieth of a second.
    let slowed = world.shards[0].counts().slowed;
    assert!(slowed <= 21, "{slowed}");
}
