//! What a full disk refuses, by hand: the protocol's answer, and memory as the log has it.

use super::exchanges::{connect_v3, connect_v5, exchange, hex, live};
use super::{ROUTED, World};
use crate::session::late::LATE_MAX;
use crate::{ConnectionId, Limits, Refusal, Table};

const LASTING: &str = "05 11 00000064";

/// A lasting v5 session that subscribed to "a" at QoS 1, and its connection.
fn lasting() -> (World, ConnectionId) {
    let mut world = World::new(2, Limits::default());
    let connection = live(&mut world, 0, &connect_v5('s', "00", LASTING, ""));
    let answer = exchange(&mut world, connection, &hex("82 07 0001 00 0001 61 01"));
    assert_eq!(answer, hex("90 04 0001 00 01"));
    (world, connection)
}

/// Whether CONNECT finds the session.
fn is_present(world: &mut World, connect: &[u8]) -> bool {
    let connection = world.open(1);
    let answer = exchange(world, connection, connect);
    assert_eq!((answer[0], answer[3]), (0x20, 0), "accepted");
    answer[2] == 1
}

#[test]
fn refused_subscribe_changes_nothing() {
    let (mut world, connection) = lasting();
    world.log.full = true;
    // "a" at QoS 2, "b" at QoS 0.
    let subscribe = hex("82 0b 0002 00 0001 61 02 0001 62 00");
    assert_eq!(
        exchange(&mut world, connection, &subscribe),
        hex("90 05 0002 00 97 97")
    );
    world.agrees_with_its_log(true).unwrap();
    world.log.full = false;
    assert_eq!(
        exchange(&mut world, connection, &subscribe),
        hex("90 05 0002 00 02 00")
    );
    world.agrees_with_its_log(true).unwrap();
}

#[test]
fn a_retained_message_that_the_log_refuses_to_owe_comes_later() {
    let mut world = World::new(1, Limits::default());
    let publisher = live(&mut world, 0, &connect_v3('p', true));
    exchange(&mut world, publisher, &hex("33 06 0001 61 0001 78"));
    let connection = live(&mut world, 0, &connect_v5('s', "00", LASTING, ""));
    world.send(connection, &hex("82 07 0001 00 0001 61 01"));
    world.run_shard(0, 1);
    // The subscription is in the log, what follows it is not.
    world.run_log(1);
    world.log.full = true;
    world.run();
    assert_eq!(world.read(connection), hex("90 04 0001 00 01"));
    world.log.full = false;
    world.pass(2_000);
    world.run();
    assert_eq!(world.read(connection), hex("33 07 0001 61 0001 00 78"));
}

#[test]
fn refused_unsubscribe_changes_nothing() {
    let (mut world, connection) = lasting();
    let v3 = live(&mut world, 1, &connect_v3('t', false));
    exchange(&mut world, v3, &hex("82 06 0001 0001 61 01"));
    world.log.full = true;
    let unsubscribe = hex("a2 06 0002 00 0001 61");
    assert_eq!(
        exchange(&mut world, connection, &unsubscribe),
        hex("b0 04 0002 00 83")
    );
    exchange(&mut world, v3, &hex("a2 05 0002 0001 61"));
    assert!(!world.is_open(v3), "UNSUBACK of 3.1.1 only says yes");
    world.agrees_with_its_log(false).unwrap();
    world.log.full = false;
    // What is published now still reaches it.
    let publisher = live(&mut world, 0, &connect_v3('p', true));
    exchange(&mut world, publisher, &hex("32 06 0001 61 0001 78"));
    assert_eq!(world.read(connection), hex("32 07 0001 61 0001 00 78"));
    assert_eq!(
        exchange(&mut world, connection, &unsubscribe),
        hex("b0 04 0002 00 00")
    );
}

#[test]
fn refused_end_of_a_session_leaves_it() {
    let (mut world, connection) = lasting();
    world.log.full = true;
    // DISCONNECT with Session Expiry Interval 0.
    let disconnect = hex("e0 07 00 05 11 00000000");
    let answer = exchange(&mut world, connection, &disconnect);
    assert_eq!((answer[0], answer[2]), (0xe0, 0x97));
    assert!(!world.is_open(connection));
    world.agrees_with_its_log(false).unwrap();
    world.log.full = false;
    let again = connect_v5('s', "00", LASTING, "");
    assert!(is_present(&mut world, &again));
    let connection = live(&mut world, 0, &again);
    assert_eq!(
        exchange(&mut world, connection, &disconnect),
        Vec::<u8>::new()
    );
    world.agrees_with_its_log(true).unwrap();
    assert!(!is_present(&mut world, &again));
}

#[test]
fn refused_clean_start_leaves_the_old_session() {
    let (mut world, connection) = lasting();
    world.cut(connection);
    world.run();
    world.log.full = true;
    for shard in [0, 1] {
        let connection = world.open(shard);
        let answer = exchange(&mut world, connection, &connect_v5('s', "02", LASTING, ""));
        assert_eq!((answer[0], answer[3]), (0x20, 0x97));
        world.agrees_with_its_log(true).unwrap();
    }
    world.log.full = false;
    let again = connect_v5('s', "00", LASTING, "");
    assert!(is_present(&mut world, &again));
    assert!(!is_present(&mut world, &connect_v5('s', "02", LASTING, "")));
    world.agrees_with_its_log(true).unwrap();
}

#[test]
fn a_refused_will_is_published_though_its_client_is_back() {
    // Will Delay Interval 0 and 10 s [MQTT-3.1.2-8]; the Client comes with another Will, or none.
    for (delay, again) in [("00", "00"), ("05 18 0000000a", "00"), ("00", "04")] {
        let mut world = World::new(2, Limits::default());
        let subscriber = live(&mut world, 1, &connect_v5('s', "02", "00", ""));
        exchange(&mut world, subscriber, &hex("82 07 0001 00 0001 77 00"));
        let will = format!("{delay} 0001 77 0001 78");
        let client = live(&mut world, 0, &connect_v5('a', "04", LASTING, &will));
        world.log.full = true;
        world.cut(client);
        world.run();
        world.pass(10_000);
        world.run();
        let will = if again == "04" {
            "00 0001 77 0001 79"
        } else {
            ""
        };
        let again = connect_v5('a', again, LASTING, will);
        let refused = world.open(1);
        let answer = exchange(&mut world, refused, &again);
        assert_eq!((answer[0], answer[3]), (0x20, 0x97));
        assert_eq!(world.read(subscriber), hex(""));
        world.log.full = false;
        let client = live(&mut world, 1, &again);
        assert_eq!(
            world.read(subscriber),
            hex("30 05 0001 77 00 78"),
            "{delay}"
        );
        world.agrees_with_its_log(true).unwrap();
        // Once.
        world.pass(20_000);
        world.run();
        world.cut(client);
        world.run();
        let next = if will.is_empty() {
            ""
        } else {
            "30 05 0001 77 00 79"
        };
        assert_eq!(world.read(subscriber), hex(next), "{delay}");
    }
}

/// CONNECT of one Client; its Will is for "routed/x".
fn mortal(flags: &str, properties: &str, payload: &str) -> Vec<u8> {
    let topic = "0008 726f757465642f78";
    let length = payload.len() / 2;
    let will = format!("00 {topic} {length:04x} {payload}");
    connect_v5('a', flags, properties, &will)
}

/// What routes took.
fn routed(world: &World) -> Vec<Vec<u8>> {
    let records = world.log.records.get(&ROUTED).into_iter().flatten();
    records.flatten().map(|one| one.payload.to_vec()).collect()
}

fn refused(world: &World) -> u64 {
    let shards = world.shards.iter();
    shards.map(|shard| shard.counts().refused).sum()
}

/// As the log does: a full disk and a backlog take rows, and nothing that is appended.
#[test]
fn a_refused_will_refuses_no_connect() {
    let cases = [
        (Refusal::Full, "04", LASTING, false),
        (Refusal::Backlog, "04", LASTING, true),
        (Refusal::Full, "06", LASTING, true), // Clean Start
        (Refusal::Backlog, "06", LASTING, false),
        (Refusal::Full, "04", "00", false), // It ends with its connection.
        (Refusal::Full, "04", "00", true),
    ];
    for (refusal, flags, properties, restarts) in cases {
        let case = format!("{refusal:?}, {flags}, {properties}, restarts: {restarts}");
        let mut world = World::new(2, Limits::default());
        let mut last = live(&mut world, 0, &mortal("04", properties, "31"));
        world.log.refuses_appends = Some(refusal);
        for (shard, payload) in [(1, "32"), (0, "33")] {
            world.cut(last);
            world.run();
            last = world.open(shard);
            let answer = exchange(&mut world, last, &mortal(flags, properties, payload));
            let present = u8::from(flags == "04" && properties == LASTING);
            assert_eq!(
                (answer[0], answer[2], answer[3]),
                (0x20, present, 0),
                "{case}"
            );
            world.agrees_with_its_log(false).unwrap();
        }
        world.cut(last);
        world.run();
        if restarts {
            world.crash(0);
            world.run();
        }
        // To read only.
        let last = live(&mut world, 1, &connect_v5('a', "00", LASTING, ""));
        world.pass(10_000);
        world.run();
        assert!(routed(&world).is_empty(), "{case}");
        world.log.refuses_appends = None;
        world.pass(1_000);
        world.run();
        assert_eq!(routed(&world), [b"1", b"2", b"3"], "{case}");
        assert_eq!(world.log.rows(Table::Wills), 0);
        world.agrees_with_its_log(true).unwrap();
        // Once.
        world.cut(last);
        world.run();
        world.crash(0);
        world.pass(20_000);
        world.run();
        assert_eq!((routed(&world).len(), refused(&world)), (3, 0), "{case}");
    }
}

#[test]
fn a_will_that_waits_goes_before_the_next() {
    for properties in [LASTING, "00"] {
        let mut world = World::new(2, Limits::default());
        let mut last = live(&mut world, 0, &mortal("04", properties, "31"));
        world.log.refuses_appends = Some(Refusal::Full);
        for payload in ["32", "33"] {
            world.cut(last);
            world.run();
            last = live(&mut world, 1, &mortal("04", properties, payload));
        }
        // There is space before the log is asked again.
        world.log.refuses_appends = None;
        world.cut(last);
        world.run();
        assert_eq!(routed(&world), [b"1", b"2", b"3"], "{properties}");
        world.agrees_with_its_log(true).unwrap();
    }
}

#[test]
fn a_will_that_is_too_large_for_the_log_is_counted_and_gone() {
    // In the row of its Session, which lives on, or ends.
    for (properties, sessions) in [(LASTING, 1), ("00", 0)] {
        let mut world = World::new(1, Limits::default());
        let client = live(&mut world, 0, &mortal("04", properties, "3131"));
        world.log.payload_bytes_max = Some(1);
        world.cut(client);
        world.run();
        assert_eq!(refused(&world), 1);
        world.pass(2_000);
        world.run();
        assert_eq!(world.log.rows(Table::Sessions), sessions);
        world.agrees_with_its_log(true).unwrap();
        live(&mut world, 0, &connect_v5('a', "00", LASTING, ""));
        assert_eq!((routed(&world).len(), refused(&world)), (0, 1));
    }
    // In a row of its own: the one behind it is published.
    let mut world = World::new(1, Limits::default());
    let mut last = live(&mut world, 0, &mortal("04", LASTING, "3131"));
    world.log.refuses_appends = Some(Refusal::Full);
    for payload in ["32", "33"] {
        world.cut(last);
        world.run();
        last = live(&mut world, 0, &mortal("04", LASTING, payload));
    }
    world.log.payload_bytes_max = Some(1);
    world.log.refuses_appends = None;
    for _ in 0..2 {
        world.pass(1_000);
        world.run();
    }
    assert_eq!(routed(&world), [b"2"]);
    assert_eq!((refused(&world), world.log.rows(Table::Wills)), (1, 0));
    world.agrees_with_its_log(true).unwrap();
}

#[test]
fn so_many_wills_of_one_client_wait_and_no_more() {
    let mut world = World::new(1, Limits::default());
    world.log.refuses_appends = Some(Refusal::Full);
    let mut taken = Vec::new();
    loop {
        let payload = u8::try_from(taken.len()).unwrap();
        let client = world.open(0);
        let connect = mortal("04", LASTING, &format!("{payload:02x}"));
        let answer = exchange(&mut world, client, &connect);
        if answer[3] != 0 {
            assert_eq!(answer[3], 0x97);
            break;
        }
        taken.push(vec![payload]);
        world.cut(client);
        world.run();
    }
    assert_eq!(taken.len(), LATE_MAX);
    world.agrees_with_its_log(false).unwrap();
    // Without a Will there is none to wait.
    live(&mut world, 0, &connect_v5('a', "00", LASTING, ""));
    assert_eq!(world.log.rows(Table::Wills), LATE_MAX);
    world.log.refuses_appends = None;
    world.pass(1_000);
    world.run();
    assert_eq!(routed(&world), taken);
    world.agrees_with_its_log(true).unwrap();
}

#[test]
fn refused_steps_of_qos_2_wait_or_close() {
    let (mut world, connection) = lasting();
    let subscribe = hex("82 07 0002 00 0001 61 02");
    exchange(&mut world, connection, &subscribe);
    // Its own message comes back as number 1; its own identifier is 7.
    let answer = exchange(&mut world, connection, &hex("34 06 0001 61 0007 00"));
    assert!(
        answer.ends_with(&hex("34 06 0001 61 0001 00")),
        "{answer:02x?}"
    );
    world.log.full = true;
    assert_eq!(
        exchange(&mut world, connection, &hex("50 02 0001")),
        hex("")
    );
    world.agrees_with_its_log(true).unwrap();
    let answer = exchange(&mut world, connection, &hex("62 02 0007"));
    assert_eq!((answer[0], answer[2]), (0xe0, 0x97), "no code in PUBCOMP");
    world.agrees_with_its_log(false).unwrap();
    world.log.full = false;
    let connection = world.open(1);
    let answer = exchange(&mut world, connection, &connect_v5('s', "00", LASTING, ""));
    assert!(
        answer.ends_with(&hex("62 02 0001")),
        "PUBREL: {answer:02x?}"
    );
    exchange(&mut world, connection, &hex("70 02 0001"));
    assert_eq!(
        exchange(&mut world, connection, &hex("62 02 0007")),
        hex("70 02 0007")
    );
    world.pass(1_000);
    world.run();
    world.agrees_with_its_log(true).unwrap();
}

#[test]
fn refused_qos_0_is_counted() {
    let mut world = World::new(1, Limits::default());
    let publisher = live(&mut world, 0, &connect_v3('p', true));
    world.log.full = true;
    exchange(&mut world, publisher, &hex("30 0a 0008 726f757465642f78"));
    assert_eq!(world.shards[0].counts().refused, 1);
    assert!(world.is_open(publisher));
}

#[test]
fn nothing_behind_a_refused_publish_of_3_1_1_is_committed_before_the_close() {
    let mut world = World::new(1, Limits::default());
    let publisher = live(&mut world, 0, &connect_v3('p', true));
    world.log.full = true;
    for id in [1, 2] {
        // QoS 1 to "routed/x".
        let bytes = format!("32 0c 0008 726f757465642f78 {id:04x}");
        world.send(publisher, &hex(&bytes));
        world.run_shard(0, 1);
    }
    world.run_log(1);
    // Space comes back between the two.
    world.log.full = false;
    world.run();
    assert!(world.log.records.is_empty());
    assert!(!world.is_open(publisher));
}
