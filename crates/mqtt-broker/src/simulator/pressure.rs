//! Clients that cause more than they take: when they are not read, and when they are closed.

use super::World;
use super::exchanges::{connect_v3, connect_v5, exchange, hex, live};
use crate::{Input, Limits};

#[test]
fn a_connection_with_too_many_pending_commits_is_paused_until_half_are_done() {
    let limits = Limits {
        connection_commits_max: 4,
        ..Limits::default()
    };
    let mut world = World::new(1, limits);
    let publisher = live(&mut world, 0, &connect_v3('p', true));
    for id in 1..=4 {
        // QoS 1 to "routed/x".
        let bytes = format!("32 0c 0008 726f757465642f78 {id:04x}");
        world.send(publisher, &hex(&bytes));
        world.run_shard(0, 1);
        assert_eq!(world.paused.contains(&publisher), id == 4, "{id} pending");
    }
    for left in [3, 2] {
        world.run_log(1);
        world.run_shard(0, 10);
        assert_eq!(
            world.paused.contains(&publisher),
            left > 2,
            "{left} pending"
        );
    }
    assert_eq!(world.pauses, 1);
}

/// QoS 1 to "routed/x" with this much payload.
fn routed(id: u16, bytes: usize) -> Vec<u8> {
    let mut body = hex("0008 726f757465642f78");
    body.extend(id.to_be_bytes());
    body.resize(body.len() + bytes, 0);
    let (low, high) = ((body.len() % 128) | 0x80, body.len() / 128);
    let length = [low, high].map(|byte| u8::try_from(byte).unwrap());
    [&[0x32][..], &length, &body].concat()
}

#[test]
fn pending_commits_are_weighed_and_pause_the_read() {
    let limits = Limits {
        connection_commit_bytes_max: 4_000,
        ..Limits::default()
    };
    let mut world = World::new(1, limits);
    let publisher = live(&mut world, 0, &connect_v3('p', true));
    for id in 1..=4 {
        world.send(publisher, &routed(id, 1_000));
        world.run_shard(0, 1);
        assert_eq!(world.paused.contains(&publisher), id == 4, "{id} pending");
    }
    for left in [3, 2, 1] {
        world.run_log(1);
        world.run_shard(0, 10);
        assert_eq!(world.paused.contains(&publisher), left > 1, "{left} left");
    }
}

#[test]
fn publishers_of_a_shard_share_a_bound_of_bytes() {
    let limits = Limits {
        shard_commit_bytes_max: 4_000,
        ..Limits::default()
    };
    let mut world = World::new(1, limits);
    let [a, b] = ['a', 'b'].map(|id| live(&mut world, 0, &connect_v3(id, true)));
    let idle = live(&mut world, 0, &connect_v3('i', true));
    for id in 1..=3 {
        world.send(a, &routed(id, 1_000));
    }
    world.send(b, &routed(4, 1_000));
    world.run_shard(0, 4);
    assert_eq!(Vec::from_iter(&world.paused), [&b], "who went over it");
    world.send(a, &routed(5, 1_000));
    world.send(idle, &hex("c000"));
    world.run_shard(0, 2);
    assert_eq!(Vec::from_iter(&world.paused), [&a, &b], "who adds to it");
    assert_eq!(world.read(idle), hex("d000"));
    world.run_log(3);
    world.run_shard(0, 10);
    assert_eq!(world.paused.len(), 2, "half of it is more than 2,000");
    world.run();
    assert_eq!(world.paused.len(), 0);
    assert_eq!(world.pauses, 2);
}

#[test]
fn answers_that_nobody_reads_stop_the_reading_until_half_is_taken() {
    let limits = Limits {
        output_bytes_max: 1_000,
        ..Limits::default()
    };
    let mut world = World::new(1, limits);
    let client = live(&mut world, 0, &connect_v3('c', true));
    world.room.insert(client, 0);
    let mut sent = 0;
    while !world.paused.contains(&client) {
        world.send(client, &hex("c000").repeat(100));
        world.run();
        sent += 200;
        assert!(sent <= 2_000, "twice the bound of answers");
    }
    assert_eq!(sent, 2_000);
    world.make_room(client, 1_499);
    world.run();
    assert!(world.paused.contains(&client), "501 wait");
    world.make_room(client, 1);
    world.run();
    assert!(!world.paused.contains(&client), "500 wait");
    world.make_room(client, 1_000);
    world.run();
    assert_eq!(world.read(client), hex("d000").repeat(1_000));
}

#[test]
fn what_others_publish_does_not_stop_the_reading() {
    let limits = Limits {
        output_bytes_max: 1_000,
        ..Limits::default()
    };
    let mut world = World::new(1, limits);
    let subscriber = live(&mut world, 0, &connect_v3('s', true));
    exchange(&mut world, subscriber, &hex("82 06 0001 0001 61 00"));
    world.room.insert(subscriber, 0);
    let publisher = live(&mut world, 0, &connect_v3('p', true));
    exchange(
        &mut world,
        publisher,
        &hex("30 04 0001 61 78").repeat(1_000),
    );
    exchange(&mut world, subscriber, &hex("c000"));
    assert!(!world.paused.contains(&subscriber));
    // Full at 1,002 bytes; nothing more until half of it is taken.
    assert_eq!(world.shards[0].counts().dropped_qos0, 1_000 - 167);
    world.make_room(subscriber, 500);
    exchange(&mut world, publisher, &hex("30 04 0001 61 78"));
    assert_eq!(world.shards[0].counts().dropped_qos0, 1_001 - 167);
    world.make_room(subscriber, 100);
    world.run();
    exchange(&mut world, publisher, &hex("30 04 0001 61 79"));
    assert_eq!(world.shards[0].counts().dropped_qos0, 1_001 - 167);
}

#[test]
fn another_shard_is_spared_what_it_would_drop_until_its_client_reads_again() {
    let limits = Limits {
        output_bytes_max: 1_000,
        ..Limits::default()
    };
    let mut world = World::new(2, limits);
    // At QoS 1: what is published below is QoS 0 all the same.
    let subscribe = hex("82 06 0001 0001 61 01");
    let subscriber = live(&mut world, 1, &connect_v3('s', false));
    exchange(&mut world, subscriber, &subscribe);
    let publisher = live(&mut world, 0, &connect_v3('p', true));
    let publish = |world: &mut World, many: usize| {
        exchange(world, publisher, &hex("30 04 0001 61 78").repeat(many));
        [0, 1].map(|shard| world.shards[shard].counts().dropped_qos0)
    };
    world.room.insert(subscriber, 0);
    // Full at 1,002 bytes. Once its socket is known to take nothing, and one more was dropped where the Client is, those
    // behind it are where they come from.
    assert_eq!(publish(&mut world, 168), [0, 1]);
    assert_eq!(publish(&mut world, 1), [0, 2]);
    assert_eq!(publish(&mut world, 10), [10, 2]);
    // More than half of it is taken: 402 bytes, and 408 with one more.
    world.make_room(subscriber, 600);
    world.run();
    assert_eq!(publish(&mut world, 1), [10, 2]);
    assert_eq!(publish(&mut world, 99 + 3), [10, 5], "full again");
    assert_eq!(publish(&mut world, 1), [11, 5]);
    // It comes back.
    let again = live(&mut world, 1, &connect_v3('s', false));
    world.read(again);
    assert_eq!(publish(&mut world, 1), [11, 5]);
    assert_eq!(world.read(again), hex("30 04 0001 61 78"));
}

#[test]
fn messages_held_back_by_a_burst_go_on_when_it_is_written_at_once() {
    let limits = Limits {
        output_bytes_max: 1_000,
        ..Limits::default()
    };
    let mut world = World::new(1, limits);
    let subscriber = live(&mut world, 0, &connect_v3('s', true));
    exchange(&mut world, subscriber, &hex("82 06 0001 0001 61 01"));
    let publisher = live(&mut world, 0, &connect_v3('p', true));
    // One round: QoS 0 until it is full, then one of QoS 1.
    let burst = [
        hex("30 04 0001 61 78").repeat(200),
        hex("32 06 0001 61 0001 79"),
    ]
    .concat();
    exchange(&mut world, publisher, &burst);
    assert!(
        world
            .read(subscriber)
            .ends_with(&hex("32 06 0001 61 0001 79"))
    );
}

#[test]
fn qos_2_messages_on_their_way_through_the_log_count_as_output() {
    let limits = Limits {
        output_bytes_max: 1_000,
        ..Limits::default()
    };
    let mut world = World::new(1, limits);
    let subscriber = live(&mut world, 0, &connect_v3('s', false));
    exchange(&mut world, subscriber, &hex("82 06 0001 0001 61 02"));
    let publisher = live(&mut world, 0, &connect_v3('p', true));
    for id in 1..=10_u16 {
        let head = hex(&format!("34 b1 02 0001 61 {id:04x}"));
        world.send(publisher, &[&head[..], &[0; 300]].concat());
    }
    world.run_shard(0, 10);
    world.run_log(usize::MAX);
    world.run_shard(0, usize::MAX);
    let session = world.shards[0]
        .sessions
        .iter()
        .find(|(_, one)| one.storing_bytes > 0);
    let (_, session) = session.unwrap();
    assert_eq!(
        (session.storing_bytes, session.inflight.len()),
        (4 * 301, 4)
    );
    world.run();
    assert_eq!(world.read(subscriber).len(), 10 * (3 + 3 + 2 + 300));
    assert!(
        world.shards[0]
            .sessions
            .iter()
            .all(|(_, one)| one.storing_bytes == 0)
    );
}

/// Time passes in steps, as a driver sees it.
fn wait(world: &mut World, ms: u64) {
    for _ in 0..ms / 100 {
        world.pass(100);
        world.run();
    }
}

#[test]
fn who_takes_nothing_for_too_long_is_closed_and_who_takes_little_is_not() {
    for (keep_alive, ms_max, why) in [
        ("0000", 15_000, "EMQX's send_timeout"),
        ("0002", 15_000, "not less for a short Keep Alive"),
        ("003c", 90_000, "1.5 times a long one"),
    ] {
        let mut world = World::new(1, Limits::default());
        let connect = hex(&format!("10 0d 0004 4d515454 04 02 {keep_alive} 0001 73"));
        let subscriber = live(&mut world, 0, &connect);
        exchange(&mut world, subscriber, &hex("82 06 0001 0001 61 00"));
        let publisher = live(&mut world, 0, &connect_v3('p', true));
        world.room.insert(subscriber, 3);
        exchange(&mut world, publisher, &hex("30 04 0001 61 78").repeat(10));
        let steps = ms_max / 1_000;
        let ping = |world: &mut World, seconds| {
            for _ in 0..seconds {
                exchange(world, subscriber, &hex("c000"));
                wait(world, 1_000);
            }
        };
        ping(&mut world, steps - 1);
        world.make_room(subscriber, 1);
        ping(&mut world, steps - 1);
        assert!(world.is_open(subscriber), "{why}");
        ping(&mut world, 2);
        assert!(!world.is_open(subscriber), "{why}");
        assert_eq!(world.shards[0].counts().unread, 1, "{why}");
    }
}

#[test]
fn silence_counts_only_while_the_socket_is_read() {
    let limits = Limits {
        connection_commits_max: 2,
        ..Limits::default()
    };
    let mut world = World::new(1, limits);
    // Keep Alive 2.
    let connect = hex("10 0d 0004 4d515454 04 02 0002 0001 70");
    let publisher = live(&mut world, 0, &connect);
    for id in 1..=2 {
        world.send(publisher, &routed(id, 200));
    }
    world.run_shard(0, 2);
    assert!(world.paused.contains(&publisher));
    for _ in 0..100 {
        world.pass(100);
        world.shards[0].handle(world.now, Input::Tick, &mut Vec::new());
    }
    assert!(
        world.shards[0].output(publisher).is_some(),
        "the log's turn"
    );
    world.run();
    assert!(!world.paused.contains(&publisher));
    wait(&mut world, 2_900);
    assert!(world.is_open(publisher));
    wait(&mut world, 200);
    assert!(!world.is_open(publisher)); // MQTT 3.1.1, [MQTT-3.1.2-24]
}

#[test]
fn silence_does_not_count_while_the_driver_reads_nobody() {
    let mut world = World::new(1, Limits::default());
    // Keep Alive 2.
    let client = live(
        &mut world,
        0,
        &hex("10 0d 0004 4d515454 04 02 0002 0001 70"),
    );
    wait(&mut world, 2_900);
    world.inboxes[0].push_back(Input::Held);
    world.run();
    wait(&mut world, 10_000);
    world.inboxes[0].push_back(Input::Released);
    world.run();
    assert!(world.is_open(client));
    wait(&mut world, 100);
    assert!(!world.is_open(client)); // MQTT 3.1.1, [MQTT-3.1.2-24]
}

#[test]
fn who_is_silent_is_closed_however_often_the_driver_stops_reading() {
    let mut world = World::new(1, Limits::default());
    // Keep Alive 2.
    let client = live(
        &mut world,
        0,
        &hex("10 0d 0004 4d515454 04 02 0002 0001 70"),
    );
    let mut pass = |ms, input| {
        world.inboxes[0].extend(input);
        world.run();
        for _ in 0..ms {
            world.pass(1);
            world.run();
        }
        world.is_open(client)
    };
    // Silent for 3 s, and 1 ms in each second of them that is not its silence.
    for _ in 0..3 {
        assert!(pass(1, Some(Input::Held)));
        assert!(pass(999, Some(Input::Released)));
    }
    assert!(pass(2, None), "for 2.999 s");
    assert!(!pass(1, None)); // MQTT 3.1.1, [MQTT-3.1.2-24]
}

#[test]
fn what_waits_in_memory_is_counted_with_the_memory_it_takes() {
    let limits = Limits {
        queue_bytes_max: 8_000,
        ..Limits::default()
    };
    let mut world = World::new(1, limits);
    // It takes one message and never acknowledges it: the others wait in memory.
    let subscriber = live(&mut world, 0, &connect_v5('s', "02", "03 21 0001", ""));
    exchange(&mut world, subscriber, &hex("82 07 0001 00 0001 61 01"));
    let publisher = live(&mut world, 0, &connect_v5('p', "02", "00", ""));
    for _ in 0..200 {
        exchange(&mut world, publisher, &hex("32 06 0001 61 0001 00"));
    }
    // Two bytes each, and some hundred to hold them.
    let dropped = world.shards[0].counts().dropped_limit;
    assert!((160..195).contains(&dropped), "{dropped} of 200");
}
