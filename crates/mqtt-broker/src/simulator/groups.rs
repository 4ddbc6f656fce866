//! Groups of Shared Subscriptions whose members refuse, are full or come and go: what waits, and for
//! whom. Bytes from the specification (MQTT 5.0, 4.8.2).

use std::num::NonZeroU16;
use std::sync::atomic::Ordering;

use rustix::time::{ClockId, clock_gettime};

use super::World;
use super::exchanges::{connect_v3, connect_v5, exchange, hex, live};
use super::shares::{group, payloads, puback, publish, subscribe, unsubscribe};
use crate::{ConnectionId, Limits};

/// A member of `$share/g/a` at QoS 1 whose CONNECT has this property, of five bytes at the most.
fn member_with(world: &mut World, id: char, lasting: bool, property: &str) -> ConnectionId {
    let (flags, expiry) = match lasting {
        true => ("00", "11 00000064 "),
        false => ("02", ""),
    };
    let all = format!("{expiry}{property}");
    let length = hex(&all).len();
    let connect = connect_v5(id, flags, &format!("{length:02x} {all}"), "");
    let connection = live(world, 0, &connect);
    exchange(world, connection, &subscribe("$share/g/a", 1));
    connection
}

/// Maximum Packet Size 64.
const SHORT: &str = "27 00000040";
/// Receive Maximum 2: one at once for the group.
const ONE: &str = "21 0002";

/// PUBLISH to "a" at QoS 1 that is longer than 64 bytes.
fn publish_long(world: &mut World, publisher: ConnectionId, id: u8) {
    let long = format!("{id:02x}").repeat(64);
    let bytes = hex(&format!("32 45 0001 61 00{id:02x} {long}"));
    let answer = exchange(world, publisher, &bytes);
    assert_eq!(answer, hex(&format!("40 02 00{id:02x}")));
}

/// Messages of the group that are with members, and that came back.
fn waiting(world: &World) -> (usize, usize) {
    let session = group(world).unwrap();
    session.group.as_ref().unwrap().waiting()
}

fn returned(world: &World) -> usize {
    waiting(world).1
}

#[test]
fn a_message_that_waits_for_one_member_holds_up_no_other() {
    for lasting in [false, true] {
        let limits = Limits {
            cache_bytes_max: 0, // What is owed is read back from the log.
            ..Limits::default()
        };
        let mut world = World::new(1, limits);
        let x = member_with(&mut world, 'x', lasting, SHORT);
        let y = member_with(&mut world, 'y', lasting, ONE);
        let p = live(&mut world, 0, &connect_v3('p', true));
        publish(&mut world, p, 1, 1);
        publish(&mut world, p, 1, 2);
        publish_long(&mut world, p, 3);
        publish(&mut world, p, 1, 4);
        publish_long(&mut world, p, 5);
        publish(&mut world, p, 1, 6);
        assert_eq!(payloads(&world.read(x)), [1, 4, 6]);
        assert_eq!(payloads(&world.read(y)), [2]);
        assert_eq!(payloads(&puback(&mut world, y, 1)), [3]);
        assert_eq!(payloads(&puback(&mut world, y, 2)), [5]);
        assert_eq!(world.read(x), []);
        assert_eq!(world.shards[0].counts().dropped_too_large, 0);
        world.agrees_with_its_log(false).unwrap();
    }
}

#[test]
fn so_many_messages_wait_for_one_member_and_no_more() {
    for lasting in [false, true] {
        let mut world = World::new(1, Limits::default());
        let x = member_with(&mut world, 'x', lasting, SHORT);
        let y = member_with(&mut world, 'y', lasting, ONE);
        let p = live(&mut world, 0, &connect_v3('p', true));
        publish(&mut world, p, 1, 1);
        publish(&mut world, p, 1, 2);
        for id in 3..=72 {
            publish_long(&mut world, p, id);
        }
        publish(&mut world, p, 1, 73);
        assert_eq!(payloads(&world.read(x)), [1]);
        assert_eq!((payloads(&world.read(y)), returned(&world)), (vec![2], 64));
        for id in 1..=70 {
            assert_eq!(payloads(&puback(&mut world, y, id)), [id + 2]);
        }
        assert_eq!(payloads(&world.read(x)), [73]);
        assert_eq!(returned(&world), 0);
    }
}

#[test]
fn what_no_member_takes_is_counted_by_why() {
    let mut world = World::new(1, Limits::default());
    let p = live(&mut world, 0, &connect_v3('p', true));
    let counts = |world: &World| {
        let counts = world.shards[0].counts();
        (counts.dropped_denied, counts.dropped_too_large)
    };
    let d = live(&mut world, 0, &connect_v5('d', "02", "00", ""));
    exchange(&mut world, d, &subscribe("$share/g/secret", 1));
    exchange(&mut world, p, &hex("32 0b 0006 736563726574 0001 01"));
    assert_eq!(counts(&world), (1, 0), "it may not read it");
    let x = live(&mut world, 0, &connect_v5('x', "02", "05 27 00000040", ""));
    exchange(&mut world, x, &subscribe("$share/g/secret", 1));
    let long = "02".repeat(64);
    let bytes = hex(&format!("32 4a 0006 736563726574 0002 {long}"));
    assert_eq!(exchange(&mut world, p, &bytes), hex("40 02 0002"));
    assert_eq!(counts(&world), (1, 1), "nor is it too long for everyone");
    exchange(&mut world, p, &hex("32 0b 0006 736563726574 0003 03"));
    assert_eq!(payloads(&world.read(x)), [3]);
    assert_eq!((world.read(d), counts(&world)), (vec![], (1, 1)));
}

#[test]
fn who_refused_a_message_is_asked_again_on_the_next_connection() {
    // Of the same Maximum Packet Size, and of another.
    for (property, got) in [(SHORT, vec![1]), ("27 00000100", vec![1, 3])] {
        let mut world = World::new(1, Limits::default());
        let x = member_with(&mut world, 'x', true, SHORT);
        member_with(&mut world, 'y', true, ONE);
        let p = live(&mut world, 0, &connect_v3('p', true));
        publish(&mut world, p, 1, 1);
        publish(&mut world, p, 1, 2);
        publish_long(&mut world, p, 3);
        assert_eq!((payloads(&world.read(x)), returned(&world)), (vec![1], 1));
        world.cut(x);
        world.run();
        let connect = connect_v5('x', "00", &format!("0a 11 00000064 {property}"), "");
        let x = world.open(0);
        assert_eq!(payloads(&exchange(&mut world, x, &connect)), got);
        assert_eq!(returned(&world), 2 - got.len());
    }
}

#[test]
fn who_was_denied_a_message_is_asked_again_by_other_rules() {
    let mut world = World::new(1, Limits::default());
    let d = live(&mut world, 0, &connect_v5('d', "02", "00", ""));
    let y = live(&mut world, 0, &connect_v5('y', "02", "03 21 0002", ""));
    let p = live(&mut world, 0, &connect_v3('p', true));
    for member in [d, y] {
        exchange(&mut world, member, &subscribe("$share/g/secret", 1));
    }
    let publish = |world: &mut World, id: u8| {
        let bytes = hex(&format!("32 0b 0006 736563726574 00{id:02x} {id:02x}"));
        exchange(world, p, &bytes);
    };
    for id in 1..=3 {
        publish(&mut world, id);
    }
    assert_eq!((world.read(d), payloads(&world.read(y))), (vec![], vec![1]));
    assert_eq!(returned(&world), 2);
    world.rules.fetch_add(1, Ordering::Relaxed);
    publish(&mut world, 4);
    assert_eq!(payloads(&world.read(d)), [2, 3, 4]);
    assert_eq!(world.shards[0].counts().dropped_denied, 0);
}

/// PUBLISH to this topic of one letter at QoS 1, 200 bytes long.
fn publish_200(world: &mut World, publisher: ConnectionId, topic: char, id: u8) {
    let payload = format!("{id:02x}").repeat(193);
    let head = format!("32 c6 01 0001 {:02x} 00{id:02x}", topic as u32);
    let bytes = hex(&format!("{head} {payload}"));
    exchange(world, publisher, &bytes);
}

/// The payloads' last bytes of PUBLISHes of that length.
fn last_bytes(bytes: &[u8]) -> Vec<u8> {
    let all = bytes.chunks(202);
    all.map(|one| *one.last().unwrap()).collect()
}

#[test]
fn what_groups_hold_in_memory_is_bounded_over_all_and_shared_evenly() {
    let limits = Limits {
        shared_bytes_max: 10_000,
        ..Limits::default()
    };
    for shards in [1, 2] {
        let mut world = World::new(shards, limits.clone());
        let p = live(&mut world, 0, &connect_v3('p', true));
        let x = member_with(&mut world, 'x', false, ONE);
        // Where its first member is lives a group.
        let y = live(
            &mut world,
            shards - 1,
            &connect_v5('y', "02", "03 21 0002", ""),
        );
        exchange(&mut world, y, &subscribe("$share/h/b", 1));
        for id in 1..=60 {
            publish_200(&mut world, p, 'a', id);
        }
        let held = world.shared.held.bytes();
        assert!((9_000..=10_500).contains(&held), "{held} by one shard");
        for id in 61..=65 {
            publish_200(&mut world, p, 'b', id);
        }
        assert!(world.shared.held.bytes() <= 15_000);
        let all = world.shards.iter().map(|one| one.counts().dropped_limit);
        let dropped: u64 = all.sum();
        assert!(dropped > 30, "{dropped}");
        let (mut to_x, mut to_y) = (world.read(x), world.read(y));
        for id in 1..=60 {
            to_x.extend(puback(&mut world, x, id));
            to_y.extend(puback(&mut world, y, id));
        }
        let mut wanted = vec![1];
        wanted.extend(u8::try_from(dropped).unwrap() + 2..=60);
        assert_eq!(last_bytes(&to_x), wanted, "the oldest went");
        assert_eq!(last_bytes(&to_y), [61, 62, 63, 64, 65], "none of the other");
        assert_eq!(world.shared.held.bytes(), 0);
    }
}

#[test]
fn what_comes_back_counts_as_held_and_the_oldest_of_it_goes() {
    let limits = Limits {
        shared_bytes_max: 10_000,
        ..Limits::default()
    };
    let mut world = World::new(1, limits);
    let p = live(&mut world, 0, &connect_v3('p', true));
    let x = live(&mut world, 0, &connect_v5('x', "02", "00", ""));
    exchange(&mut world, x, &subscribe("$share/g/a", 1));
    let y = member_with(&mut world, 'y', false, ONE);
    for id in 1..=60 {
        publish_200(&mut world, p, 'a', id);
    }
    assert_eq!(waiting(&world), (60, 0));
    let mut to_y = world.read(y);
    assert_eq!(last_bytes(&to_y), [2]);
    world.cut(x);
    world.run();
    let held = world.shared.held.bytes();
    assert!((9_000..=10_000).contains(&held), "{held}");
    let dropped = world.shards[0].counts().dropped_limit;
    let dropped = usize::try_from(dropped).unwrap();
    assert_eq!(waiting(&world), (1, 59 - dropped));
    for id in 1..=60 {
        to_y.extend(puback(&mut world, y, id));
    }
    let others = (1..=60).filter(|id| *id != 2);
    let wanted: Vec<u8> = [2].into_iter().chain(others.skip(dropped)).collect();
    assert_eq!(last_bytes(&to_y), wanted, "the oldest went");
    assert_eq!(world.shared.held.bytes(), 0);
}

#[test]
fn what_members_have_at_once_is_bounded_over_all_groups() {
    let limits = Limits {
        shared_bytes_max: 10_000,
        ..Limits::default()
    };
    let mut world = World::new(1, limits);
    let p = live(&mut world, 0, &connect_v3('p', true));
    let x = live(&mut world, 0, &connect_v5('x', "00", "05 11 00000064", ""));
    for filter in ["$share/g/a", "$share/h/b"] {
        exchange(&mut world, x, &subscribe(filter, 1));
    }
    for id in 1..=40 {
        publish_200(&mut world, p, 'a', id);
    }
    let mut got = last_bytes(&world.read(x));
    assert!((10..30).contains(&got.len()), "{}", got.len());
    for id in 41..=80 {
        publish_200(&mut world, p, 'b', id);
    }
    let of_other = last_bytes(&world.read(x));
    assert!((5..15).contains(&of_other.len()), "{}", of_other.len());
    assert!(world.shared.held.bytes() <= 16_000);
    got.extend(of_other);
    for id in 1..=80 {
        got.extend(last_bytes(&puback(&mut world, x, id)));
    }
    let (one, other): (Vec<u8>, Vec<u8>) = got.iter().partition(|id| **id <= 40);
    assert_eq!(one, (1..=40).collect::<Vec<u8>>(), "all, in order");
    assert_eq!(other, (41..=80).collect::<Vec<u8>>());
    assert_eq!(world.shared.held.bytes(), 0);
    world.cut(x);
    world.run();
    // DISCONNECT with Session Expiry Interval 0.
    let x = world.open(0);
    exchange(&mut world, x, &connect_v5('x', "00", "05 11 00000064", ""));
    publish_200(&mut world, p, 'a', 81);
    assert!(world.shared.held.bytes() > 0);
    exchange(&mut world, x, &hex("e0 07 00 05 11 00000000"));
    assert_eq!(world.shared.held.bytes(), 0);
}

/// SUBSCRIBE at QoS 1 to the group of this number.
fn subscribe_to(number: usize) -> Vec<u8> {
    subscribe(&format!("$share/{number}/a"), 1)
}

#[test]
fn a_session_has_so_many_shared_subscriptions_and_no_more() {
    for (flags, properties) in [("02", "00"), ("00", "05 11 00000064")] {
        let limits = Limits {
            shared_subscriptions_max: 2,
            ..Limits::default()
        };
        let mut world = World::new(1, limits);
        let x = live(&mut world, 0, &connect_v5('x', flags, properties, ""));
        // Before any of them is answered.
        let several = [subscribe_to(1), subscribe_to(2), subscribe_to(3)].concat();
        let (granted, refused) = (hex("90 04 0001 00 01"), hex("90 04 0001 00 97"));
        let answers = [&granted[..], &granted, &refused].concat();
        assert_eq!(exchange(&mut world, x, &several), answers);
        // The same again is no more; and all others are others.
        let two = hex("82 1d 0001 00 000a 2473686172652f312f61 01 000a 2473686172652f332f61 01");
        assert_eq!(exchange(&mut world, x, &two), hex("90 05 0001 00 01 97"));
        assert_eq!(exchange(&mut world, x, &subscribe("a", 1)), granted);
        exchange(&mut world, x, &unsubscribe("$share/1/a"));
        assert_eq!(exchange(&mut world, x, &subscribe_to(3)), granted);
        assert_eq!(exchange(&mut world, x, &subscribe_to(1)), refused);
        assert_eq!(world.shared.groups.len(), 2);
        // Before 5.0 there is one code for all.
        let z = live(&mut world, 0, &connect_v3('z', true));
        for (number, code) in [(3, "01"), (4, "01"), (5, "80")] {
            let mut bytes = subscribe_to(number);
            bytes[1] -= 1;
            bytes.remove(4);
            let answer = hex(&format!("90 03 0001 {code}"));
            assert_eq!(exchange(&mut world, z, &bytes), answer);
        }
    }
}

#[test]
fn at_qos_2_what_only_memory_had_is_not_lost_when_the_log_refuses_it_to_a_member() {
    for too_long in [false, true] {
        let mut world = World::new(1, Limits::default());
        let x = live(&mut world, 0, &connect_v5('x', "02", "03 21 0002", ""));
        exchange(&mut world, x, &subscribe("$share/g/a", 2));
        let p = live(&mut world, 0, &connect_v3('p', true));
        for id in 1..=3 {
            publish(&mut world, p, 2, id);
        }
        assert_eq!(payloads(&world.read(x)), [1], "one at once");
        let y = live(&mut world, 0, &connect_v5('y', "00", "05 11 00000064", ""));
        world.send(y, &subscribe("$share/g/a", 2));
        world.run_shard(0, 1);
        world.run_log(1);
        world.log.full = !too_long;
        world.log.payload_bytes_max = too_long.then_some(0);
        world.run();
        assert_eq!(world.read(y), hex("90 04 0001 00 02"));
        let (out, back) = if too_long { (1, 2) } else { (3, 0) };
        assert_eq!(waiting(&world), (out, back));
        if too_long {
            // What the log never takes is for those that need no log.
            exchange(&mut world, x, &hex("50 02 0001"));
            assert_eq!(payloads(&exchange(&mut world, x, &hex("70 02 0001"))), [2]);
            continue;
        }
        world.pass(2_000);
        world.run();
        world.log.full = false;
        assert_eq!(world.read(y), []);
        world.pass(2_000);
        world.run();
        assert_eq!(payloads(&world.read(y)), [2, 3]);
        assert_eq!(waiting(&world), (1, 0), "it is y's for good");
        world.agrees_with_its_log(false).unwrap();
    }
}

/// For how long this thread has had a processor: what others do meanwhile does not count.
fn busy_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let (whole, part) = (u64::try_from(time.tv_sec), u64::try_from(time.tv_nsec));
    whole.unwrap() * 1_000_000_000 + part.unwrap()
}

#[test]
fn the_clock_that_costs_are_read_from_goes_on_between_any_two_looks() {
    let looks: Vec<u64> = (0..50).map(|_| busy_ns()).collect();
    assert!(looks.is_sorted_by(|a, b| a < b), "{looks:?}");
}

fn least_of_three(run: impl Fn() -> u64) -> u64 {
    (0..3).map(|_| run()).min().unwrap()
}

/// What `what` costs in a world whose group has given x, that has a large window, so many messages;
/// the least of three times.
fn costs(count: usize, what: impl Fn(&mut World, ConnectionId)) -> u64 {
    least_of_three(|| {
        let limits = Limits {
            inflight_max: NonZeroU16::MAX,
            ..Limits::default()
        };
        let mut world = World::new(1, limits);
        let x = live(&mut world, 0, &connect_v5('x', "02", "00", ""));
        exchange(&mut world, x, &subscribe("$share/g/a", 1));
        let p = live(&mut world, 0, &connect_v3('p', true));
        let message = hex("32 06 0001 61 0001 01");
        exchange(&mut world, p, &message.repeat(count));
        assert_eq!(payloads(&world.read(x)).len(), count);
        let start = busy_ns();
        what(&mut world, x);
        busy_ns() - start
    })
}

#[test]
fn what_waits_for_one_member_costs_those_nothing_that_overtake_it() {
    let cost = |longs: u8| {
        least_of_three(|| {
            let mut world = World::new(1, Limits::default());
            member_with(&mut world, 'y', false, ONE);
            for id in '0'..='W' {
                member_with(&mut world, id, false, SHORT);
            }
            let p = live(&mut world, 0, &connect_v3('p', true));
            // One for each of them.
            for id in 1..=41 {
                publish(&mut world, p, 1, id);
            }
            for id in 1..=longs {
                publish_long(&mut world, p, id);
            }
            assert_eq!(returned(&world), usize::from(longs));
            let message = hex("32 06 0001 61 0001 01");
            let start = busy_ns();
            exchange(&mut world, p, &message.repeat(300));
            let cost = busy_ns() - start;
            assert_eq!(waiting(&world), (341, usize::from(longs)));
            cost
        })
    };
    let (none, many) = (cost(0), cost(60));
    assert!(many < 3 * none, "{none} ns, {many} ns");
}

#[test]
fn what_waits_for_a_member_is_not_kept_when_that_one_goes() {
    let mut world = World::new(1, Limits::default());
    let x = member_with(&mut world, 'x', false, SHORT);
    let y = member_with(&mut world, 'y', false, ONE);
    let p = live(&mut world, 0, &connect_v3('p', true));
    publish(&mut world, p, 1, 1);
    publish(&mut world, p, 1, 2);
    publish_long(&mut world, p, 3);
    publish(&mut world, p, 1, 4);
    assert_eq!(payloads(&world.read(x)), [1, 4]);
    assert_eq!(returned(&world), 1);
    world.cut(y);
    world.run();
    assert_eq!(payloads(&world.read(x)), [2]);
    assert_eq!(world.shards[0].counts().dropped_too_large, 1);
    assert_eq!(waiting(&world), (3, 0));
}

#[test]
fn what_a_member_costs_that_comes_or_goes_is_in_proportion_to_what_it_has() {
    // Another subscribes again and again.
    let join = |world: &mut World, _| {
        let y = member_with(world, 'y', false, ONE);
        for _ in 0..1_000 {
            exchange(world, y, &subscribe("$share/g/a", 1));
        }
    };
    let (few, many) = (costs(100, join), costs(16_000, join));
    assert!(many < 10 * few, "{few} ns, {many} ns");
    let leave = |world: &mut World, x| {
        member_with(world, 'y', false, ONE);
        world.cut(x);
        world.run();
        assert!(returned(world) > 0);
    };
    let (few, many) = (costs(2_000, leave), costs(16_000, leave));
    assert!(many < 20 * few, "8 times as many: {few} ns, {many} ns");
}

#[test]
fn who_subscribes_again_has_what_it_had() {
    let mut world = World::new(1, Limits::default());
    let x = member_with(&mut world, 'x', false, "21 0004");
    let p = live(&mut world, 0, &connect_v3('p', true));
    for id in 1..=6 {
        publish(&mut world, p, 1, id);
    }
    assert_eq!(payloads(&world.read(x)), [1, 2]);
    // y keeps the group.
    let y = member_with(&mut world, 'y', false, ONE);
    assert_eq!(payloads(&world.read(y)), []);
    exchange(&mut world, x, &unsubscribe("$share/g/a"));
    for _ in 0..2 {
        let answer = exchange(&mut world, x, &subscribe("$share/g/a", 1));
        assert_eq!(payloads(&answer), [], "two at once for the group");
    }
    assert_eq!(payloads(&puback(&mut world, x, 1)), [4]);
    assert_eq!(payloads(&puback(&mut world, x, 2)), [5]);
    assert_eq!(payloads(&puback(&mut world, x, 3)), [6]);
}
