//! Shared Subscriptions by hand, bytes from the specification (MQTT 5.0, 4.8.2).

use super::World;
use super::exchanges::{connect_v3, connect_v5, exchange, hex, live};
use crate::rows;
use crate::session::Session;
use crate::session::connect::NUMBERS_STEP;
use crate::{ConnectionId, Effect, Input, Limits, Strategy, Table};

const LASTING: &str = "05 11 00000064";

/// SUBSCRIBE of MQTT 5.0 to one filter with these options.
pub(super) fn subscribe(filter: &str, options: u8) -> Vec<u8> {
    let mut body = hex("0001 00");
    body.extend(u16::try_from(filter.len()).unwrap().to_be_bytes());
    body.extend(filter.as_bytes());
    body.push(options);
    [&[0x82, u8::try_from(body.len()).unwrap()], &body[..]].concat()
}

pub(super) fn unsubscribe(filter: &str) -> Vec<u8> {
    let mut body = hex("0002 00");
    body.extend(u16::try_from(filter.len()).unwrap().to_be_bytes());
    body.extend(filter.as_bytes());
    [&[0xa2, u8::try_from(body.len()).unwrap()], &body[..]].concat()
}

/// A v5 Client with this subscription.
fn member(world: &mut World, shard: usize, id: char, lasting: bool, options: u8) -> ConnectionId {
    let (flags, properties) = if lasting {
        ("00", LASTING)
    } else {
        ("02", "00")
    };
    let connection = live(world, shard, &connect_v5(id, flags, properties, ""));
    let answer = exchange(world, connection, &subscribe("$share/g/a", options));
    assert_eq!(answer, [&hex("90 04 0001 00")[..], &[options & 3]].concat());
    connection
}

/// The Client comes back; what it gets behind CONNACK.
fn back(world: &mut World, shard: usize, id: char) -> (ConnectionId, Vec<u8>) {
    let connection = world.open(shard);
    let answer = exchange(world, connection, &connect_v5(id, "00", LASTING, ""));
    assert_eq!((answer[0], answer[2], answer[3]), (0x20, 1, 0), "present");
    (connection, answer[2 + usize::from(answer[1])..].to_vec())
}

/// PUBLISH to "a" at QoS 1 or 2 with this identifier, which is its payload too. From 3.1.1.
pub(super) fn publish(world: &mut World, publisher: ConnectionId, qos: u8, id: u8) {
    let bytes = hex(&format!("3{} 06 0001 61 00{id:02x} {id:02x}", qos * 2));
    let answer = exchange(world, publisher, &bytes);
    let wanted = if qos == 2 { "50" } else { "40" };
    assert_eq!(answer, hex(&format!("{wanted} 02 00{id:02x}")));
    if qos == 2 {
        exchange(world, publisher, &hex(&format!("62 02 00{id:02x}")));
    }
}

/// The payloads of the PUBLISHes to "a" in these bytes, with first byte and identifier.
pub(super) fn payloads(mut bytes: &[u8]) -> Vec<u8> {
    let mut found = Vec::new();
    while let [first, length, rest @ ..] = bytes {
        let (body, after) = rest.split_at(usize::from(*length));
        if first >> 4 == 3 {
            found.push(*body.last().unwrap());
        }
        bytes = after;
    }
    found
}

pub(super) fn group(world: &World) -> Option<&Session> {
    let all = world.shards.iter().flat_map(|shard| &shard.sessions);
    let mut groups = all.filter(|(_, session)| session.group.is_some());
    groups.next().map(|(_, session)| &**session)
}

pub(super) fn puback(world: &mut World, connection: ConnectionId, id: u8) -> Vec<u8> {
    exchange(world, connection, &hex(&format!("40 02 00{id:02x}")))
}

#[test]
fn a_bug_behind_a_dispatch_does_not_send_it_again() {
    let mut panics = 0;
    for (qos, answer) in [(1, "40 02 0001"), (2, "50 02 0001")] {
        for fuse in 0..4 {
            let mut world = World::new(1, Limits::default());
            let member = member(&mut world, 0, 'm', false, qos);
            let publisher = live(&mut world, 0, &connect_v3('p', true));
            world.shards[0].fuse = Some(fuse);
            let publish = hex(&format!("3{} 06 0001 61 0001 01", qos * 2));
            exchange(&mut world, publisher, &publish);
            panics += world.panics;
            let mut bytes = world.read(member);
            bytes.extend(exchange(&mut world, member, &hex(answer)));
            assert_eq!(payloads(&bytes), [1], "QoS {qos}, fuse {fuse}");
        }
    }
    assert!(panics > 2, "{panics}");
}

#[test]
fn bad_shared_subscriptions_are_refused() {
    // Rows 17 and 18 of the bad inputs.
    for (filter, options, why) in [
        ("$share//x", 1, "[MQTT-4.8.2-1]"),
        ("$share/g", 1, "[MQTT-4.8.2-2]"),
        ("$share/g/", 1, "[MQTT-4.8.2-2]"),
        ("$share/g+/x", 1, "[MQTT-4.8.2-2]"),
        ("$share/#", 1, "[MQTT-4.8.2-2]"),
        ("$share/g/x#", 1, "[MQTT-4.7.1-1]"),
    ] {
        let mut world = World::new(1, Limits::default());
        let connection = live(&mut world, 0, &connect_v5('a', "02", "00", ""));
        let answer = exchange(&mut world, connection, &subscribe(filter, options));
        assert_eq!((answer[0], answer[2]), (0xe0, 0x8f), "{filter} {why}");
        assert!(!world.is_open(connection), "{filter} {why}");
    }
    let mut world = World::new(1, Limits::default());
    let connection = live(&mut world, 0, &connect_v5('a', "02", "00", ""));
    let answer = exchange(&mut world, connection, &subscribe("$share/g/x", 5));
    assert_eq!((answer[0], answer[2]), (0xe0, 0x82), "[MQTT-3.8.3-4]");
    // Before 5.0 they are well formed, and refused.
    for filter in ["$share//x", "$share/g", "$share/#"] {
        let mut world = World::new(1, Limits::default());
        let connection = live(&mut world, 0, &connect_v3('a', true));
        let mut bytes = subscribe(filter, 1);
        bytes[1] -= 1;
        bytes.remove(4);
        assert_eq!(
            exchange(&mut world, connection, &bytes),
            hex("90 03 0001 80")
        );
        assert!(world.is_open(connection));
        assert_eq!(world.shared.groups.len(), 0);
    }
    // Case counts: this is a filter like any other.
    let connection = live(&mut world, 0, &connect_v5('b', "02", "00", ""));
    let answer = exchange(&mut world, connection, &subscribe("$SHARE/g/x", 1));
    assert_eq!(answer, hex("90 04 0001 00 01"));
    assert_eq!(world.shared.groups.len(), 0);
}

#[test]
fn groups_of_one_filter_are_bounded_and_leave_nothing() {
    let limits = Limits {
        groups_per_filter_max: 3,
        ..Limits::default()
    };
    let mut world = World::new(2, limits);
    let connection = live(&mut world, 0, &connect_v5('a', "00", LASTING, ""));
    for number in 0..3 {
        let answer = exchange(
            &mut world,
            connection,
            &subscribe(&format!("$share/{number}/a"), 1),
        );
        assert_eq!(answer, hex("90 04 0001 00 01"));
    }
    let answer = exchange(&mut world, connection, &subscribe("$share/3/a", 1));
    assert_eq!(answer, hex("90 04 0001 00 97"));
    let answer = exchange(&mut world, connection, &subscribe("$share/3/b", 1));
    assert_eq!(answer, hex("90 04 0001 00 01"));
    assert_eq!(
        (world.shared.groups.len(), world.log.rows(Table::Groups)),
        (4, 4)
    );
    world.agrees_with_its_log(true).unwrap();
    // DISCONNECT with Session Expiry Interval 0.
    exchange(&mut world, connection, &hex("e0 07 00 05 11 00000000"));
    assert_eq!(world.shared.groups.len(), 0);
    for table in [
        Table::Groups,
        Table::Floors,
        Table::Handed,
        Table::Subscriptions,
    ] {
        assert_eq!(world.log.rows(table), 0, "{table:?}");
    }
    assert!(world.shards.iter().all(|shard| shard.sessions.is_empty()));
}

#[test]
fn each_message_goes_to_one_member_in_turn() {
    for lasting in [false, true] {
        let mut world = World::new(2, Limits::default());
        let x = member(&mut world, 0, 'x', lasting, 1);
        let y = member(&mut world, 1, 'y', lasting, 1);
        let p = live(&mut world, 1, &connect_v3('p', true));
        for id in 1..=4 {
            publish(&mut world, p, 1, id);
        }
        let (to_x, to_y) = (world.read(x), world.read(y));
        assert_eq!((payloads(&to_x), payloads(&to_y)), (vec![1, 3], vec![2, 4]));
        assert_eq!(to_x[..8], hex("32 07 0001 61 0001 00"));
        // QoS 0 too, and it is not granted more than asked for.
        exchange(&mut world, p, &hex("30 04 0001 61 09"));
        assert_eq!(world.read(x), hex("30 05 0001 61 00 09"));
        assert_eq!(world.read(y), []);
        world.agrees_with_its_log(false).unwrap();
    }
}

#[test]
fn a_retained_message_is_not_sent_for_a_shared_subscription() {
    let mut world = World::new(1, Limits::default());
    let p = live(&mut world, 0, &connect_v3('p', true));
    exchange(&mut world, p, &hex("33 06 0001 61 0001 78"));
    let x = live(&mut world, 0, &connect_v5('x', "02", "00", ""));
    // Retain As Published, and Retain Handling 0: 4.8.2 has the last word.
    let answer = exchange(&mut world, x, &subscribe("$share/g/a", 0x09));
    assert_eq!(answer, hex("90 04 0001 00 01"));
    exchange(&mut world, p, &hex("33 06 0001 61 0002 79"));
    assert_eq!(world.read(x), hex("33 07 0001 61 0001 00 79"));
}

#[test]
fn what_a_lost_member_did_not_acknowledge_goes_to_another_in_its_order() {
    for lasting in [false, true] {
        let mut world = World::new(2, Limits::default());
        let x = member(&mut world, 0, 'x', lasting, 1);
        let p = live(&mut world, 1, &connect_v3('p', true));
        for id in 1..=3 {
            publish(&mut world, p, 1, id);
        }
        assert_eq!(payloads(&world.read(x)), [1, 2, 3]);
        puback(&mut world, x, 2);
        let y = member(&mut world, 1, 'y', lasting, 1);
        world.cut(x);
        world.run();
        // Not a resend to this one: DUP is 0.
        assert_eq!(
            world.read(y),
            hex("32 07 0001 61 0001 00 01 32 07 0001 61 0002 00 03")
        );
        puback(&mut world, y, 1);
        puback(&mut world, y, 2);
        assert_eq!(
            group(&world).unwrap().group.as_ref().unwrap().waiting(),
            (0, 0)
        );
        world.agrees_with_its_log(false).unwrap();
        if lasting {
            let (_, got) = back(&mut world, 0, 'x');
            assert_eq!(payloads(&got), [], "it is settled");
        }
    }
}

#[test]
fn a_group_whose_members_are_away_keeps_what_it_is_owed_over_a_crash() {
    let mut world = World::new(2, Limits::default());
    let x = member(&mut world, 0, 'x', true, 2);
    let y = member(&mut world, 1, 'y', true, 1);
    world.cut(x);
    world.cut(y);
    let p = live(&mut world, 0, &connect_v3('p', true));
    for id in 1..=5 {
        publish(&mut world, p, 1, id);
    }
    assert_eq!(group(&world).unwrap().owed.len(), 5);
    for crash in [false, true] {
        if crash {
            world.crash(0);
            world.run();
        }
        world.agrees_with_its_log(true).unwrap();
    }
    let (_, got) = back(&mut world, 0, 'y');
    assert_eq!(payloads(&got), [1, 2, 3, 4, 5]);
}

#[test]
fn at_qos_2_what_was_sent_stays_with_its_member() {
    // [MQTT-4.8.2-4] [MQTT-4.8.2-5]
    for crash in [false, true] {
        let mut world = World::new(2, Limits::default());
        let x = member(&mut world, 0, 'x', true, 2);
        let p = live(&mut world, 1, &connect_v3('p', true));
        publish(&mut world, p, 2, 1);
        assert_eq!(payloads(&world.read(x)), [1]);
        world.agrees_with_its_log(false).unwrap();
        let y = member(&mut world, 1, 'y', true, 2);
        world.cut(x);
        world.run();
        assert_eq!(world.read(y), []);
        if crash {
            world.crash(0);
            world.run();
            let (_, got) = back(&mut world, 1, 'y');
            assert_eq!(got, []);
        }
        let (x, got) = back(&mut world, 1, 'x');
        assert_eq!(got, hex("3c 07 0001 61 0001 00 01"), "again, DUP is set");
        assert_eq!(
            exchange(&mut world, x, &hex("50 02 0001")),
            hex("62 02 0001")
        );
        exchange(&mut world, x, &hex("70 02 0001"));
        world.pass(2_000);
        world.run();
        assert_eq!(world.log.rows(Table::Handed), 0);
        assert_eq!(world.log.rows(Table::Outbound), 0);
        world.agrees_with_its_log(true).unwrap();
        world.crash(0);
        world.run();
        let (_, got) = back(&mut world, 0, 'x');
        assert_eq!(got, []);
    }
}

#[test]
fn at_qos_2_a_session_that_ends_takes_what_it_was_sent_with_it() {
    for lasting in [false, true] {
        let mut world = World::new(2, Limits::default());
        let keeper = member(&mut world, 1, 'k', lasting, 2);
        world.shared.groups.len();
        let x = member(&mut world, 0, 'x', false, 2);
        let p = live(&mut world, 1, &connect_v3('p', true));
        publish(&mut world, p, 2, 1);
        publish(&mut world, p, 2, 2);
        assert_eq!(payloads(&world.read(keeper)), [1]);
        assert_eq!(payloads(&world.read(x)), [2]);
        world.cut(x);
        world.run();
        assert_eq!(world.read(keeper), [], "[MQTT-4.8.2-5]");
        world.crash(0);
        world.run();
        if lasting {
            let (_, got) = back(&mut world, 0, 'k');
            assert_eq!(payloads(&got), [1], "sent again to whom it was sent");
        }
        world.agrees_with_its_log(true).unwrap();
    }
}

#[test]
fn a_negative_answer_ends_the_message() {
    // [MQTT-4.8.2-6]
    for (qos, answer) in [(1, "40 03 0001 83"), (2, "50 03 0001 83")] {
        let mut world = World::new(1, Limits::default());
        let x = member(&mut world, 0, 'x', false, qos);
        let p = live(&mut world, 0, &connect_v3('p', true));
        publish(&mut world, p, qos, 1);
        assert_eq!(payloads(&world.read(x)), [1]);
        let y = member(&mut world, 0, 'y', false, qos);
        exchange(&mut world, x, &hex(answer));
        world.cut(x);
        world.run();
        assert_eq!(world.read(y), []);
        assert_eq!(
            group(&world).unwrap().group.as_ref().unwrap().waiting(),
            (0, 0)
        );
    }
}

#[test]
fn a_message_too_long_for_one_member_goes_to_another() {
    let mut world = World::new(1, Limits::default());
    // Maximum Packet Size 64, which a CONNACK fits.
    let x = live(&mut world, 0, &connect_v5('x', "02", "05 27 00000040", ""));
    exchange(&mut world, x, &subscribe("$share/g/a", 1));
    let p = live(&mut world, 0, &connect_v3('p', true));
    let publish_long = |world: &mut World, id: u8| {
        let long = format!("{id:02x}").repeat(64);
        let bytes = hex(&format!("32 45 0001 61 00{id:02x} {long}"));
        assert_eq!(
            exchange(world, p, &bytes),
            hex(&format!("40 02 00{id:02x}"))
        );
    };
    publish_long(&mut world, 1);
    assert_eq!(world.read(x), []);
    let count = |world: &World| world.shards[0].counts().dropped_too_large;
    assert_eq!(count(&world), 1, "nobody else is there");
    let y = member(&mut world, 0, 'y', false, 1);
    publish_long(&mut world, 2);
    publish_long(&mut world, 3);
    publish(&mut world, p, 1, 4);
    assert_eq!(payloads(&world.read(y)), [2, 3]);
    assert_eq!(payloads(&world.read(x)), [4], "its turn");
    assert_eq!(count(&world), 1);
}

#[test]
fn the_last_subscriber_takes_the_group_with_it() {
    let mut world = World::new(2, Limits::default());
    let x = member(&mut world, 0, 'x', true, 1);
    let y = member(&mut world, 1, 'y', true, 1);
    let p = live(&mut world, 0, &connect_v3('p', true));
    world.cut(x);
    world.cut(y);
    world.run();
    publish(&mut world, p, 1, 1);
    let mut reader = |id: char, shard: usize| {
        let connection = world.open(shard);
        exchange(&mut world, connection, &connect_v5(id, "02", "00", ""));
        world.shared.groups.len()
    };
    // Clean Start ends the old sessions.
    assert_eq!((reader('x', 1), reader('y', 1)), (1, 0));
    let dropped: u64 = world
        .shards
        .iter()
        .map(|one| one.counts().dropped_group)
        .sum();
    assert_eq!(dropped, 1);
    assert!(group(&world).is_none());
    for table in [Table::Groups, Table::Floors, Table::Subscriptions] {
        assert_eq!(world.log.rows(table), 0, "{table:?}");
    }
    world.agrees_with_its_log(true).unwrap();
    // Nobody is left who would want it.
    publish(&mut world, p, 1, 2);
}

#[test]
fn unsubscribe_gives_back_what_was_not_sent_and_ends_with_its_acknowledgement_what_was() {
    let mut world = World::new(1, Limits::default());
    // Receive Maximum 2: one at once for the group.
    let x = live(&mut world, 0, &connect_v5('x', "02", "03 21 0002", ""));
    exchange(&mut world, x, &subscribe("$share/g/a", 1));
    let p = live(&mut world, 0, &connect_v3('p', true));
    publish(&mut world, p, 1, 1);
    publish(&mut world, p, 1, 2);
    assert_eq!(payloads(&world.read(x)), [1]);
    let y = live(&mut world, 0, &connect_v5('y', "02", "00", ""));
    let answer = exchange(&mut world, y, &subscribe("$share/g/a", 1));
    assert_eq!(answer[..2], hex("90 04"), "SUBACK first");
    assert_eq!(payloads(&answer), [2]);
    assert_eq!(
        exchange(&mut world, x, &unsubscribe("$share/g/a")),
        hex("b0 04 0002 00 00")
    );
    publish(&mut world, p, 1, 3);
    assert_eq!((world.read(x), payloads(&world.read(y))), (vec![], vec![3]));
    puback(&mut world, x, 1);
    world.cut(x);
    world.run();
    assert_eq!(world.read(y), []);
}

#[test]
fn overlapping_groups_and_plain_subscriptions_get_a_copy_each() {
    let mut world = World::new(2, Limits::default());
    let x = live(&mut world, 0, &connect_v5('x', "00", LASTING, ""));
    for (filter, id) in [("$share/g/a", 1), ("$share/h/+", 2), ("#", 3)] {
        let mut bytes = subscribe(filter, 1);
        // With a Subscription Identifier.
        bytes[1] += 2;
        bytes[4] = 2;
        bytes.splice(5..5, [0x0b, id]);
        exchange(&mut world, x, &bytes);
    }
    let p = live(&mut world, 1, &connect_v3('p', true));
    publish(&mut world, p, 1, 7);
    let got = world.read(x);
    let mut ids: Vec<u8> = got.chunks(11).map(|one| one[9]).collect();
    ids.sort_unstable();
    assert_eq!((payloads(&got), ids), (vec![7, 7, 7], vec![1, 2, 3]));
}

#[test]
fn sticky_and_hash_prefer_the_same_member() {
    for (strategy, same_topic) in [
        (Strategy::Sticky, true),
        (Strategy::HashTopic, true),
        (Strategy::HashClient, true),
    ] {
        let mut world = World::with_strategy(2, Limits::default(), strategy);
        let x = member(&mut world, 0, 'x', false, 1);
        let y = member(&mut world, 1, 'y', false, 1);
        let p = live(&mut world, 1, &connect_v3('p', true));
        for id in 1..=4 {
            publish(&mut world, p, 1, id);
        }
        let (to_x, to_y) = (payloads(&world.read(x)), payloads(&world.read(y)));
        let all = [vec![], vec![1, 2, 3, 4]];
        assert!(
            all.contains(&to_x) && all.contains(&to_y) && to_x != to_y,
            "{strategy:?}"
        );
        assert!(same_topic);
        // It goes: the other has it all, in order.
        let (gone, stays) = if to_x.is_empty() { (y, x) } else { (x, y) };
        world.cut(gone);
        world.run();
        assert_eq!(payloads(&world.read(stays)), [1, 2, 3, 4], "{strategy:?}");
    }
}

#[test]
fn what_a_group_in_memory_gave_away_does_not_count_as_waiting() {
    let mut world = World::new(1, Limits::default());
    // Receive Maximum 2: one at once for the group.
    let x = live(&mut world, 0, &connect_v5('x', "02", "03 21 0002", ""));
    exchange(&mut world, x, &subscribe("$share/g/a", 1));
    let p = live(&mut world, 0, &connect_v3('p', true));
    for id in 1..=5 {
        publish(&mut world, p, 1, id);
    }
    assert!(group(&world).unwrap().queue_bytes > 0);
    for id in 1..=5 {
        puback(&mut world, x, id);
    }
    let session = group(&world).unwrap();
    assert_eq!((session.queue.len(), session.queue_bytes), (0, 0));
}

/// The commit that makes a message x's is asked for when x goes.
fn taken_by_one_that_goes(world: &mut World, p: ConnectionId) {
    world.send(p, &hex("34 06 0001 61 0001 01"));
    world.run_shard(0, 1);
    world.run_log(1);
    world.run_shard(0, 2);
}

#[test]
fn at_qos_2_what_a_session_never_saw_that_ends_goes_to_another() {
    let will = "00 0001 77 0000";
    for (flags, properties, payload, goodbye) in [
        ("00", LASTING, "", "e0 07 00 05 11 00000000"),
        ("06", "00", will, "e0 00"),
        ("06", "00", will, "e0 01 04"),
    ] {
        let mut world = World::new(1, Limits::default());
        let x = live(&mut world, 0, &connect_v5('x', flags, properties, payload));
        exchange(&mut world, x, &subscribe("$share/g/a", 2));
        let y = member(&mut world, 0, 'y', true, 2);
        let p = live(&mut world, 0, &connect_v3('p', true));
        taken_by_one_that_goes(&mut world, p);
        world.send(x, &hex(goodbye));
        world.run_shard(0, 1);
        world.run();
        assert_eq!(payloads(&world.read(x)), [], "it is gone");
        assert_eq!(payloads(&world.read(y)), [1], "{goodbye}");
        world.agrees_with_its_log(false).unwrap();
        world.crash(0);
        world.run();
        let (_, got) = back(&mut world, 0, 'y');
        assert_eq!(payloads(&got), [1]);
    }
}

#[test]
fn at_qos_2_what_a_session_never_saw_is_its_own_when_it_cannot_end() {
    let mut world = World::new(1, Limits::default());
    let x = member(&mut world, 0, 'x', true, 2);
    let y = member(&mut world, 0, 'y', true, 2);
    let p = live(&mut world, 0, &connect_v3('p', true));
    taken_by_one_that_goes(&mut world, p);
    world.send(x, &hex("e0 07 00 05 11 00000000"));
    world.run_shard(0, 1);
    world.run_log(1);
    world.log.full = true;
    world.run();
    world.log.full = false;
    world.agrees_with_its_log(false).unwrap();
    let counts = group(&world).unwrap().group.as_ref().unwrap().waiting();
    assert_eq!(counts, (0, 0), "it is x's");
    let (_, got) = back(&mut world, 0, 'x');
    let got = (payloads(&got), payloads(&world.read(y)));
    assert_eq!(got, (vec![1], vec![]));
}

#[test]
fn a_survey_of_several_turns_sees_what_a_member_takes_meanwhile() {
    let mut world = World::new(1, Limits::default());
    let x = live(&mut world, 0, &connect_v5('x', "00", LASTING, ""));
    // More Sessions than one turn looks at lie between the member and its group.
    for id in 'a'..='k' {
        live(&mut world, 0, &connect_v5(id, "00", LASTING, ""));
    }
    exchange(&mut world, x, &subscribe("$share/g/a", 2));
    let p = live(&mut world, 0, &connect_v3('p', true));
    world.send(p, &hex("34 06 0001 61 0001 01"));
    world.run_shard(0, 1);
    world.run_log(1);
    let mut effects = Vec::new();
    let survey = Input::Survey { id: 1, kept: None };
    world.shards[0].handle(world.now, survey, &mut effects);
    assert!(effects.is_empty(), "not done in one turn");
    world.run_shard(0, 2);
    world.run_log(1);
    world.run_shard(0, 1);
    assert_eq!(payloads(&world.read(x)), [1]);
    while effects.is_empty() {
        world.shards[0].handle(world.now, Input::Tick, &mut effects);
    }
    let needs = effects.iter().find_map(|effect| match effect {
        Effect::Needs { sequence, .. } => Some(*sequence),
        _ => None,
    });
    assert_eq!(needs, Some(Some(0)));
}

#[test]
fn busy_groups_leave_half_of_the_window_to_the_sessions_own_messages() {
    for window in [1, 2, 3] {
        let mut world = World::new(1, Limits::default());
        let properties = format!("03 21 000{window}");
        let x = live(&mut world, 0, &connect_v5('x', "02", &properties, ""));
        for filter in ["$share/g/a", "$share/h/a", "$share/i/a", "b"] {
            exchange(&mut world, x, &subscribe(filter, 1));
        }
        let p = live(&mut world, 0, &connect_v3('p', true));
        for id in 1..=8 {
            publish(&mut world, p, 1, id);
        }
        exchange(&mut world, p, &hex("32 06 0001 62 0063 63"));
        world.read(x);
        let mut got = Vec::new();
        for id in 1..=3 {
            got.extend(payloads(&puback(&mut world, x, id)));
        }
        assert!(got.contains(&0x63), "{window}: {got:?}");
        assert!(got.len() > 1, "the groups go on");
        for id in 4..=25 {
            got.extend(payloads(&puback(&mut world, x, id)));
        }
        assert_eq!(got.len(), 25 - window, "everything comes");
    }
}

#[test]
fn nothing_comes_back_to_who_unsubscribed() {
    let mut world = World::new(1, Limits::default());
    let y = member(&mut world, 0, 'y', true, 1);
    world.cut(y);
    // Receive Maximum 2, and its own messages have it.
    let x = live(&mut world, 0, &connect_v5('x', "02", "03 21 0002", ""));
    exchange(&mut world, x, &subscribe("$share/g/a", 1));
    exchange(&mut world, x, &subscribe("b", 1));
    let p = live(&mut world, 0, &connect_v3('p', true));
    exchange(&mut world, p, &hex("32 06 0001 62 0062 62"));
    exchange(&mut world, p, &hex("32 06 0001 62 0063 63"));
    publish(&mut world, p, 1, 1);
    assert_eq!(payloads(&world.read(x)), [0x62, 0x63]);
    exchange(&mut world, x, &unsubscribe("$share/g/a"));
    let got = [puback(&mut world, x, 1), puback(&mut world, x, 2)].concat();
    assert_eq!(payloads(&got), []);
    let (_, got) = back(&mut world, 0, 'y');
    assert_eq!(payloads(&got), [1]);
}

#[test]
fn what_only_a_member_that_left_would_take_is_dropped() {
    let mut world = World::new(1, Limits::default());
    // Maximum Packet Size 64; and one at once, of which it has one.
    let x = live(&mut world, 0, &connect_v5('x', "02", "05 27 00000040", ""));
    let y = live(&mut world, 0, &connect_v5('y', "02", "03 21 0001", ""));
    exchange(&mut world, x, &subscribe("$share/g/a", 1));
    exchange(&mut world, y, &subscribe("$share/g/a", 1));
    let p = live(&mut world, 0, &connect_v3('p', true));
    publish(&mut world, p, 1, 1);
    publish(&mut world, p, 1, 2);
    assert_eq!(payloads(&world.read(y)), [2]);
    let long = "03".repeat(64);
    exchange(&mut world, p, &hex(&format!("32 45 0001 61 0003 {long}")));
    publish(&mut world, p, 1, 4);
    assert_eq!(payloads(&world.read(x)), [1, 4]);
    let waiting = |world: &World| group(world).unwrap().group.as_ref().unwrap().waiting();
    assert_eq!(waiting(&world).1, 1, "for y");
    exchange(&mut world, y, &unsubscribe("$share/g/a"));
    assert_eq!(waiting(&world).1, 0);
    assert_eq!(world.shards[0].counts().dropped_too_large, 1);
}

#[test]
fn the_row_of_session_numbers_never_goes_back() {
    let mut world = World::new(1, Limits::default());
    let y = live(&mut world, 0, &connect_v5('y', "00", LASTING, ""));
    let x = live(&mut world, 0, &connect_v5('x', "02", "00", ""));
    let mut last = 0;
    for filter in ["$share/g/a", "$share/h/a"] {
        for _ in 0..2 * NUMBERS_STEP {
            last = world.shared.next_number();
        }
        exchange(&mut world, x, &subscribe(filter, 1));
    }
    // The later group's number first, and both before an answer.
    world.send(y, &subscribe("$share/h/a", 1));
    world.send(y, &subscribe("$share/g/a", 1));
    world.run();
    let row = rows::numbers(0, last + 1 + NUMBERS_STEP);
    let stands = world.log.tables.get(&(row.table, row.key));
    assert_eq!(stands, row.value.as_ref());
}
