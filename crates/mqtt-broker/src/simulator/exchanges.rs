//! Exchanges written by hand, bytes from the specification.

use crate::{Effect, Input, Limits, Table};

use super::{Disk, World};
use crate::ConnectionId;

pub(super) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    let pairs = digits
        .chunks(2)
        .map(|pair| std::str::from_utf8(pair).unwrap());
    pairs
        .map(|pair| u8::from_str_radix(pair, 16).unwrap())
        .collect()
}

/// MQTT 3.1.1, Clean Session, id of one letter.
pub(super) fn connect_v3(id: char, clean: bool) -> Vec<u8> {
    let flags = if clean { "02" } else { "00" };
    hex(&format!(
        "10 0d 0004 4d515454 04 {flags} 0000 0001 {:02x}",
        id as u32
    ))
}

/// MQTT 5.0 with these flags and properties (their length first), id of one letter, then `rest`.
pub(super) fn connect_v5(id: char, flags: &str, properties: &str, rest: &str) -> Vec<u8> {
    let tail = hex(&format!(
        "0004 4d515454 05 {flags} 0000 {properties} 0001 {:02x} {rest}",
        id as u32
    ));
    [&[0x10, u8::try_from(tail.len()).unwrap()], &tail[..]].concat()
}

/// Sends and lets everything happen; what came back.
pub(super) fn exchange(world: &mut World, connection: ConnectionId, bytes: &[u8]) -> Vec<u8> {
    world.send(connection, bytes);
    world.run();
    world.read(connection)
}

pub(super) fn live(world: &mut World, shard: usize, connect: &[u8]) -> ConnectionId {
    let connection = world.open(shard);
    let answer = exchange(world, connection, connect);
    assert_eq!(answer.first(), Some(&0x20), "CONNACK");
    assert_eq!(answer[3], 0, "accepted");
    connection
}

#[test]
fn a_thousand_sockets_with_one_client_id_leave_exactly_one() {
    let mut world = World::new(3, Limits::default());
    let connect = connect_v3('a', false);
    let all: Vec<_> = (0..1_000)
        .map(|index| {
            let connection = world.open(index % 3);
            world.send(connection, &connect);
            connection
        })
        .collect();
    world.run();
    let open = all
        .iter()
        .filter(|connection| world.is_open(**connection))
        .count();
    assert_eq!(open, 1); // MQTT 3.1.1, [MQTT-3.1.4-2]
    assert_eq!(
        world
            .shards
            .iter()
            .map(|shard| shard.counts().sessions)
            .sum::<u64>(),
        1
    );
    assert_eq!(world.shared.persistent_sessions(), 1);
    assert_eq!(world.log.rows(Table::Sessions), 1);
    let survivor = *all
        .iter()
        .find(|connection| world.is_open(**connection))
        .unwrap();
    assert_eq!(
        exchange(&mut world, survivor, &hex("c000")).last_chunk(),
        Some(&[0xd0, 0x00])
    );
}

#[test]
fn malformed_bytes_are_answered_by_the_protocols_own_code() {
    let plain = connect_v5('a', "02", "00", "");
    for (connect, bytes, answer, why) in [
        (None, "c000", "", "PINGREQ first [MQTT-3.1.0-1]"),
        (None, "30ff", "", "PUBLISH first"),
        (
            Some(&plain),
            "2003000000",
            "e00182",
            "CONNACK from a client",
        ),
        (
            Some(&plain),
            "3003000000",
            "e00182",
            "PUBLISH without topic or alias",
        ),
        (
            Some(&plain),
            "8206000100000161",
            "e00181",
            "SUBSCRIBE without options",
        ),
        (
            Some(&plain),
            "c100",
            "e00181",
            "PINGREQ with flags [MQTT-2.1.3-1]",
        ),
        (
            Some(&plain),
            "60020001",
            "e00181",
            "PUBREL with flags [MQTT-3.6.1-1]",
        ),
        (
            Some(&plain),
            "8007000100000161 00",
            "e00181",
            "SUBSCRIBE with flags [MQTT-3.8.1-1]",
        ),
        (
            Some(&plain),
            "a006000100000161",
            "e00181",
            "UNSUBSCRIBE with flags [MQTT-3.10.1-1]",
        ),
        (
            Some(&plain),
            "e100",
            "e00181",
            "DISCONNECT with flags [MQTT-3.14.1-1]",
        ),
        (
            Some(&plain),
            "30ffffffff7f",
            "e00181",
            "five bytes of length",
        ),
    ] {
        let mut world = World::new(1, Limits::default());
        let connection = world.open(0);
        if let Some(connect) = connect {
            exchange(&mut world, connection, connect);
        }
        let got = exchange(&mut world, connection, &hex(bytes));
        let want = hex(answer);
        let got = &got[..got.len().min(3)];
        // A DISCONNECT may say its property length or leave it out.
        let same = match (got, &want[..]) {
            ([], []) => true,
            ([0xe0, _, code], [0xe0, _, wanted]) => code == wanted,
            _ => false,
        };
        assert!(same, "{why}: {got:02x?}");
        assert!(!world.is_open(connection), "{why}");
    }
}

#[test]
fn second_connect_is_a_protocol_error() {
    let mut world = World::new(1, Limits::default());
    let connect = connect_v5('a', "02", "00", "");
    let connection = live(&mut world, 0, &connect);
    let answer = exchange(&mut world, connection, &connect); // [MQTT-3.1.0-2]
    assert_eq!((answer[0], answer[2]), (0xe0, 0x82));
    assert!(!world.is_open(connection));
}

#[test]
fn time_for_the_connect_includes_the_handshake_before_it() {
    let mut world = World::new(1, Limits::default());
    let plain = world.open(0);
    let late = world.open_after(0, 3_000);
    let too_late = world.open_after(0, 6_000);
    world.run();
    let open = |world: &World| [plain, late, too_late].map(|one| world.is_open(one));
    world.pass(1_999);
    world.run();
    assert_eq!(open(&world), [true, true, false]);
    world.pass(1);
    world.run();
    assert_eq!(open(&world), [true, false, false]);
    world.pass(3_000);
    world.run();
    assert_eq!(open(&world), [false, false, false]);
}

#[test]
fn silence_of_one_and_a_half_keep_alives_ends_the_connection_and_publishes_the_will() {
    // 3.1.1 and 5.0, Will "x" on "w", Keep Alive 10, a Session that ends with its connection.
    for connect in [
        "10 13 0004 4d515454 04 06 000a 0001 61 0001 77 0001 78",
        "10 15 0004 4d515454 05 06 000a 00 0001 61 00 0001 77 0001 78",
    ] {
        let mut world = World::new(2, Limits::default());
        let subscriber = live(&mut world, 1, &connect_v3('s', true));
        exchange(&mut world, subscriber, &hex("82 06 0001 0001 77 00"));
        let connection = live(&mut world, 0, &hex(connect));
        world.pass(14_999);
        world.run();
        assert!(world.is_open(connection));
        world.pass(1);
        world.run();
        assert!(!world.is_open(connection)); // [MQTT-3.1.2-22]
        assert_eq!(world.read(subscriber), hex("30 04 0001 77 78")); // [MQTT-3.1.2-8]
        assert_eq!(world.log.rows(Table::Sessions), 0, "its row went with it");
    }
}

#[test]
fn a_normal_disconnect_takes_the_will_away() {
    let mut world = World::new(1, Limits::default());
    let subscriber = live(&mut world, 0, &connect_v3('s', true));
    exchange(&mut world, subscriber, &hex("82 06 0001 0001 77 00"));
    let will = hex("10 13 0004 4d515454 04 06 0000 0001 61 0001 77 0001 78");
    let connection = live(&mut world, 0, &will);
    exchange(&mut world, connection, &hex("e000"));
    assert!(!world.is_open(connection));
    assert_eq!(world.read(subscriber), Vec::<u8>::new()); // MQTT 3.1.1, [MQTT-3.1.2-10]
}

#[test]
fn a_wills_delay_starts_again_at_the_restart() {
    let mut world = World::new(1, Limits::default());
    // Expiry 100 s; Will "x" on "w" with a delay of 5 s.
    let will = connect_v5(
        'a',
        "06",
        "05 11 00000064",
        "05 18 00000005 0001 77 0001 78",
    );
    let connection = live(&mut world, 0, &will);
    world.cut(connection);
    world.run();
    world.pass(4_000);
    world.crash(0);
    let subscriber = live(&mut world, 0, &connect_v3('s', true));
    exchange(&mut world, subscriber, &hex("82 06 0001 0001 77 00"));
    world.pass(4_000);
    world.run();
    assert_eq!(world.read(subscriber), Vec::<u8>::new());
    world.pass(1_000);
    world.run();
    assert_eq!(world.read(subscriber), hex("30 04 0001 77 78"));
}

#[test]
fn retained_messages_are_kept_sent_and_cleared() {
    let mut world = World::new(2, Limits::default());
    let publisher = live(&mut world, 0, &connect_v3('p', true));
    exchange(&mut world, publisher, &hex("31 06 0003 612f62 78"));
    world.crash(0);
    let subscriber = live(&mut world, 1, &connect_v3('s', true));
    let answer = exchange(&mut world, subscriber, &hex("82 08 0001 0003 612f23 00"));
    assert_eq!(answer, hex("90 03 0001 00 31 06 0003 612f62 78")); // MQTT 3.1.1, [MQTT-3.3.1-8]
    let publisher = live(&mut world, 0, &connect_v3('p', true));
    exchange(&mut world, publisher, &hex("31 05 0003 612f62"));
    assert_eq!(world.read(subscriber), hex("30 05 0003 612f62"));
    assert_eq!(world.log.rows(Table::Retained), 0); // MQTT 3.1.1, [MQTT-3.3.1-10]
    let answer = exchange(&mut world, subscriber, &hex("82 08 0002 0003 612f23 00"));
    assert_eq!(answer, hex("90 03 0002 00"));
}

#[test]
fn a_full_disk_refuses_and_recovers_by_itself() {
    let mut world = World::new(1, Limits::default());
    let v5 = live(&mut world, 0, &connect_v5('a', "02", "00", ""));
    let v3 = live(&mut world, 0, &connect_v3('b', true));
    world.log.full = true;
    // QoS 1 to "routed/x".
    let publish_v3 = hex("32 0c 0008 726f757465642f78 0001");
    let publish_v5 = hex("32 0d 0008 726f757465642f78 0001 00");
    let answer = exchange(&mut world, v5, &publish_v5);
    assert_eq!((answer[0], answer[4]), (0x40, 0x97));
    assert_eq!(exchange(&mut world, v3, &publish_v3), Vec::<u8>::new());
    assert!(!world.is_open(v3), "3.1.1 has no negative answer");
    world.log.full = false;
    assert_eq!(exchange(&mut world, v5, &publish_v5), hex("40 02 0001"));
}

#[test]
fn an_expired_session_leaves_nothing() {
    let mut world = World::new(1, Limits::default());
    let connection = live(&mut world, 0, &connect_v5('a', "02", "05 11 00000005", ""));
    exchange(&mut world, connection, &hex("82 07 0001 00 0001 61 01"));
    world.cut(connection);
    world.run();
    assert_eq!(
        (
            world.log.rows(Table::Sessions),
            world.log.rows(Table::Subscriptions)
        ),
        (1, 1)
    );
    world.pass(5_000);
    world.run();
    for table in [Table::Sessions, Table::Subscriptions, Table::Floors] {
        assert_eq!(world.log.rows(table), 0, "{table:?}");
    }
    assert_eq!(world.shared.persistent_sessions(), 0);
}

#[test]
fn an_idle_client_with_one_subscription_costs_less_than_a_kilobyte() {
    let fixed = size_of::<crate::connection::Connection>() + size_of::<crate::session::Session>();
    assert!(fixed < 900, "{fixed} bytes before names and filters");
}

#[test]
fn unreleased_qos2_identifiers_stay_within_the_window() {
    let limits = Limits {
        receive_maximum: std::num::NonZeroU16::new(2).unwrap(),
        ..Limits::default()
    };
    let mut world = World::new(1, limits);
    // anchors/bad-inputs.md, row 14: three QoS 2 PUBLISHes to "a", no PUBREL.
    let v3 = live(&mut world, 0, &connect_v3('a', true));
    for (id, open) in [(1, true), (2, true), (2, true), (3, false)] {
        exchange(&mut world, v3, &hex(&format!("34 05 0001 61 {id:04x}")));
        assert_eq!(world.is_open(v3), open, "identifier {id}");
    }
    let v5 = live(&mut world, 0, &connect_v5('b', "02", "00", ""));
    exchange(&mut world, v5, &hex("34 06 0001 61 0001 00"));
    exchange(&mut world, v5, &hex("34 06 0001 61 0002 00"));
    let answer = exchange(&mut world, v5, &hex("34 06 0001 61 0003 00"));
    assert_eq!((answer[0], answer[2]), (0xe0, 0x93)); // [MQTT-3.3.4-7]
}

#[test]
fn a_full_queue_drops_the_oldest_and_counts_them() {
    let by_number = Limits {
        queue_messages_max: 2,
        ..Limits::default()
    };
    // A topic of one byte and as much payload, two times.
    let by_bytes = Limits {
        queue_bytes_max: 4,
        ..Limits::default()
    };
    for limits in [by_number, by_bytes] {
        let mut world = World::new(1, limits);
        let subscriber = live(&mut world, 0, &connect_v3('s', false));
        exchange(&mut world, subscriber, &hex("82 06 0001 0001 61 01"));
        world.cut(subscriber);
        let publisher = live(&mut world, 0, &connect_v3('p', true));
        for id in 1..=4 {
            // QoS 1 to "a", the identifier is the payload.
            let bytes = hex(&format!("32 06 0001 61 {id:04x} {id:02x}"));
            assert_eq!(
                exchange(&mut world, publisher, &bytes),
                hex(&format!("40 02 {id:04x}"))
            );
        }
        assert_eq!(world.shards[0].counts().dropped_limit, 2);
        let subscriber = world.open(0);
        let answer = exchange(&mut world, subscriber, &connect_v3('s', false));
        assert_eq!(
            answer,
            hex("20 02 01 00 32 06 0001 61 0001 03 32 06 0001 61 0002 04")
        );
    }
}

#[test]
fn a_connect_is_bounded_and_a_subscribe_in_filters() {
    let limits = Limits {
        connect_bytes_max: 30,
        filters_per_packet_max: 2,
        ..Limits::default()
    };
    let mut world = World::new(1, limits);
    let client = live(&mut world, 0, &connect_v5('c', "02", "00", ""));
    let subscribe = "82 0f 0001 00 0001 61 00 0001 62 00 0001 63 00";
    let answer = exchange(&mut world, client, &hex(subscribe));
    assert_eq!(answer, hex("90 06 0001 00 00 00 97"));
    // Once connected, longer packets are taken: it gets back what it sends to "a".
    let long = [&hex("30 40 0001 61 00")[..], &[7; 60]].concat();
    assert_eq!(exchange(&mut world, client, &long), long);
    let stranger = world.open(0);
    let named = "0010 32333435363738393031323334353637";
    let connect = hex(&format!("10 1d 0004 4d515454 05 02 0000 00 {named}"));
    assert_eq!(connect.len(), 31);
    // Its length is told before its version: there is no form to answer in.
    assert_eq!(exchange(&mut world, stranger, &connect), []);
    assert!(!world.is_open(stranger));
    // One byte less is taken.
    let shorter = "000f 323334353637383930313233343536";
    let connect = hex(&format!("10 1c 0004 4d515454 05 02 0000 00 {shorter}"));
    live(&mut world, 0, &connect);
}

#[test]
fn a_topic_alias_stands_for_its_topic_on_its_connection() {
    let mut world = World::new(1, Limits::default());
    let subscriber = live(&mut world, 0, &connect_v3('s', true));
    exchange(&mut world, subscriber, &hex("82 06 0001 0001 61 00"));
    let connect = connect_v5('p', "02", "00", "");
    let publisher = live(&mut world, 0, &connect);
    exchange(&mut world, publisher, &hex("30 08 0001 61 03 23 0001 31"));
    exchange(&mut world, publisher, &hex("30 07 0000 03 23 0001 32"));
    assert_eq!(
        world.read(subscriber),
        hex("30 04 0001 61 31 30 04 0001 61 32")
    );
    // The next connection knows none; beyond the maximum of 32 there is none.
    let publisher = live(&mut world, 0, &connect);
    let answer = exchange(&mut world, publisher, &hex("30 07 0000 03 23 0001 33"));
    assert_eq!((answer[0], answer[2]), (0xe0, 0x82));
    let publisher = live(&mut world, 0, &connect);
    let answer = exchange(&mut world, publisher, &hex("30 08 0001 61 03 23 0021 34"));
    assert_eq!((answer[0], answer[2]), (0xe0, 0x94)); // [MQTT-3.2.2-17]
}

#[test]
fn no_local_subscriptions_do_not_hear_their_own() {
    let mut world = World::new(1, Limits::default());
    let own = live(&mut world, 0, &connect_v5('a', "02", "00", ""));
    exchange(&mut world, own, &hex("82 07 0001 00 0001 61 04"));
    let other = live(&mut world, 0, &connect_v5('b', "02", "00", ""));
    exchange(&mut world, other, &hex("82 07 0001 00 0001 61 04"));
    let answer = exchange(&mut world, own, &hex("30 05 0001 61 00 78"));
    assert_eq!(answer, Vec::<u8>::new()); // [MQTT-3.8.3-3]
    assert_eq!(world.read(other), hex("30 05 0001 61 00 78"));
}

#[test]
fn overlapping_subscriptions_deliver_once_with_both_identifiers() {
    let mut world = World::new(1, Limits::default());
    let subscriber = live(&mut world, 0, &connect_v5('a', "02", "00", ""));
    exchange(
        &mut world,
        subscriber,
        &hex("82 09 0001 02 0b 05 0001 61 00"),
    );
    exchange(
        &mut world,
        subscriber,
        &hex("82 09 0002 02 0b 07 0001 23 00"),
    );
    let answer = exchange(&mut world, subscriber, &hex("30 05 0001 61 00 78"));
    assert_eq!(answer, hex("30 09 0001 61 04 0b 05 0b 07 78")); // [MQTT-3.3.4-4]
}

#[test]
fn what_is_left_of_the_message_expiry_is_sent() {
    let mut world = World::new(1, Limits::default());
    // Expiry 100 s, subscription at QoS 1, then away.
    let connect = connect_v5('s', "00", "05 11 00000064", "");
    let subscriber = live(&mut world, 0, &connect);
    exchange(&mut world, subscriber, &hex("82 07 0001 00 0001 61 01"));
    world.cut(subscriber);
    let publisher = live(&mut world, 0, &connect_v5('p', "02", "00", ""));
    // One that lives 10 s, one that lives 3 s.
    exchange(
        &mut world,
        publisher,
        &hex("32 0c 0001 61 0001 05 02 0000000a 78"),
    );
    exchange(
        &mut world,
        publisher,
        &hex("32 0c 0001 61 0002 05 02 00000003 79"),
    );
    world.pass(4_000);
    let subscriber = world.open(0);
    let answer = exchange(&mut world, subscriber, &connect);
    let publish = hex("32 0c 0001 61 0001 05 02 00000006 78"); // [MQTT-3.3.2-6]
    assert!(answer.ends_with(&publish), "{answer:02x?}");
    assert_eq!(world.shards[0].counts().dropped_expired, 1);
}

#[test]
fn a_message_longer_than_the_client_takes_is_left_out() {
    let mut world = World::new(1, Limits::default());
    // Maximum Packet Size 40: CONNACK fits.
    let subscriber = live(&mut world, 0, &connect_v5('s', "02", "05 27 00000028", ""));
    exchange(&mut world, subscriber, &hex("82 07 0001 00 0001 61 00"));
    let publisher = live(&mut world, 0, &connect_v3('p', true));
    exchange(
        &mut world,
        publisher,
        &[&hex("30 2b 0001 61")[..], &[0; 40]].concat(),
    );
    assert_eq!(world.read(subscriber), Vec::<u8>::new()); // [MQTT-3.1.2-24]
    assert_eq!(world.shards[0].counts().dropped_too_large, 1);
    exchange(&mut world, publisher, &hex("30 04 0001 61 78"));
    assert_eq!(world.read(subscriber), hex("30 05 0001 61 00 78"));
}

#[test]
fn what_cannot_be_read_waits_and_keeps_its_order() {
    let limits = Limits {
        cache_bytes_max: 0,
        ..Limits::default()
    };
    let mut world = World::new(1, limits);
    let subscriber = live(&mut world, 0, &connect_v3('s', false));
    exchange(&mut world, subscriber, &hex("82 06 0001 0001 61 01"));
    world.cut(subscriber);
    let publisher = live(&mut world, 0, &connect_v3('p', true));
    exchange(&mut world, publisher, &hex("32 06 0001 61 0001 01"));
    exchange(&mut world, publisher, &hex("32 06 0001 61 0002 02"));
    world.disk = Disk::Fails;
    let subscriber = live(&mut world, 0, &connect_v3('s', false));
    // Behind what waits, also what is in memory.
    exchange(&mut world, publisher, &hex("32 06 0001 61 0003 03"));
    assert_eq!(world.shards[0].counts().loads_failed, 1);
    // A second, and an hour: 100, 200, 400, 800 ms, ... then every 10 s.
    for (ms, failed_max) in [(1_000, 5), (3_600_000, 400)] {
        for _ in 0..ms / 100 {
            world.pass(100);
            world.run();
        }
        let failed = world.shards[0].counts().loads_failed;
        assert!((4..=failed_max).contains(&failed), "{failed}");
    }
    assert_eq!(world.read(subscriber), Vec::<u8>::new());
    world.disk = Disk::Works;
    world.pass(10_000);
    world.run();
    let all = "32 06 0001 61 0001 01 32 06 0001 61 0002 02 32 06 0001 61 0003 03";
    assert_eq!(world.read(subscriber), hex(all));
    assert_eq!(world.shards[0].counts().dropped_gone, 0);
}

#[test]
fn what_the_log_has_let_go_is_counted() {
    let limits = Limits {
        cache_bytes_max: 0,
        ..Limits::default()
    };
    let mut world = World::new(1, limits);
    let subscriber = live(&mut world, 0, &connect_v3('s', false));
    exchange(&mut world, subscriber, &hex("82 06 0001 0001 61 01"));
    world.cut(subscriber);
    let publisher = live(&mut world, 0, &connect_v3('p', true));
    exchange(&mut world, publisher, &hex("32 06 0001 61 0001 01"));
    exchange(&mut world, publisher, &hex("32 06 0001 61 0002 02"));
    let kept = world.log.records.values_mut().next().unwrap();
    kept[0] = None;
    let subscriber = live(&mut world, 0, &connect_v3('s', false));
    assert_eq!(world.read(subscriber), Vec::<u8>::new());
    assert_eq!(world.shards[0].counts().dropped_gone, 1);
}

#[test]
fn a_bug_behind_a_commit_ends_one_connection_and_no_more() {
    let mut world = World::new(1, Limits::default());
    let one = live(&mut world, 0, &connect_v5('a', "02", "00", ""));
    let other = live(&mut world, 0, &connect_v5('b', "02", "00", ""));
    // QoS 1 to "routed/x", twice in one read.
    let publish = hex("32 0d 0008 726f757465642f78 0001 00");
    world.shards[0].fuse = Some(0);
    let answer = exchange(&mut world, one, &[&publish[..], &publish[..]].concat());
    assert_eq!((world.panics, world.log.syncs), (1, 1), "its first commit");
    assert_eq!((answer[0], answer[2]), (0xe0, 0x80));
    assert!(!world.is_open(one));
    assert_eq!(exchange(&mut world, other, &publish), hex("40 02 0001"));
    assert_eq!(world.shards[0].pending_commits(), 0);
}

#[test]
fn a_clock_that_is_set_expires_nothing_early_and_keeps_nothing_longer() {
    for jump_ms in [3_600_000, -3_600_000] {
        let mut world = World::new(1, Limits::default());
        // A session that lives for 100 s with a Will after 50 s, owed a message of 20 s.
        let connect = connect_v5(
            's',
            "04",
            "05 11 00000064",
            "05 18 00000032 0001 77 0001 78",
        );
        let away = live(&mut world, 0, &connect);
        exchange(&mut world, away, &hex("82 07 0001 00 0001 61 01"));
        world.cut(away);
        let other = live(&mut world, 0, &connect_v5('o', "02", "00", ""));
        exchange(&mut world, other, &hex("82 07 0001 00 0001 77 00"));
        exchange(
            &mut world,
            other,
            &hex("33 0c 0001 61 0001 05 02 00000014 78"),
        );
        world.now.wall_ms += jump_ms;
        world.pass(19_000);
        world.run();
        let answer = exchange(&mut world, other, &hex("82 07 0002 00 0001 61 00"));
        let retained = hex("31 0a 0001 61 05 02 00000001 78");
        assert!(answer.ends_with(&retained), "{jump_ms}: {answer:02x?}");
        let back = world.open(0);
        let answer = exchange(&mut world, back, &connect);
        let owed = hex("32 0c 0001 61 0001 05 02 00000001 78");
        assert!(answer.ends_with(&owed), "{jump_ms}: {answer:02x?}");
        exchange(&mut world, back, &hex("40 02 0001"));
        world.cut(back);
        world.run();
        world.pass(2_000);
        let answer = exchange(&mut world, other, &hex("82 07 0003 00 0001 61 00"));
        assert_eq!(answer, hex("90 04 0003 00 00"), "{jump_ms}: 20 s are over");
        world.run();
        world.read(other);
        world.pass(47_000);
        world.run();
        assert_eq!(world.read(other), hex(""), "{jump_ms}: the Will waits");
        world.pass(2_000);
        world.run();
        assert_eq!(world.read(other), hex("30 05 0001 77 00 78"), "{jump_ms}");
        world.pass(48_000);
        world.run();
        assert_eq!(world.log.rows(Table::Sessions), 1, "{jump_ms}");
        world.pass(2_000);
        world.run();
        assert_eq!(world.log.rows(Table::Sessions), 0, "{jump_ms}");
    }
}

#[test]
fn sessions_are_asked_what_they_need_a_few_at_a_time() {
    let mut world = World::new(1, Limits::default());
    for id in 'a'..='t' {
        let subscriber = live(&mut world, 0, &connect_v3(id, false));
        exchange(&mut world, subscriber, &hex("82 06 0001 0001 61 01"));
        world.cut(subscriber);
    }
    let publisher = live(&mut world, 0, &connect_v3('p', true));
    exchange(&mut world, publisher, &hex("32 06 0001 61 0001 01"));
    let mut effects = Vec::new();
    let id = 1;
    let survey = Input::Survey { id, kept: None };
    world.shards[0].step(world.now, survey, &mut effects);
    let mut turns = 1;
    while effects.is_empty() {
        assert_eq!(world.shards[0].deadline(), Some(0), "at once again");
        world.shards[0].step(world.now, Input::Tick, &mut effects);
        turns += 1;
    }
    let needs = |effect: &Effect| {
        matches!(
            effect,
            Effect::Needs {
                survey: 1,
                sequence: Some(0),
                ..
            }
        )
    };
    assert!(effects.len() == 1 && needs(&effects[0]), "{effects:?}");
    // Twenty Sessions with a message each, eight steps a turn.
    assert_eq!(turns, 5);
}

#[test]
fn a_socket_is_read_again_when_its_client_id_comes_from_another_shard() {
    let mut world = World::new(2, Limits::default());
    live(&mut world, 0, &connect_v3('a', true));
    let taker = world.open(1);
    let both = [connect_v3('a', true), hex("c0 00")].concat();
    assert_eq!(exchange(&mut world, taker, &both), hex("20 02 00 00 d0 00"));
    assert_eq!(world.stuck(), Vec::<String>::new());
    assert_eq!(exchange(&mut world, taker, &hex("c0 00")), hex("d0 00"));
}
