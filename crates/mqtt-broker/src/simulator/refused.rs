//! What is refused, and what it leaves behind. Bytes from the specification.

use std::sync::Arc;

use super::World;
use super::exchanges::{connect_v3, connect_v5, exchange, hex, live};
use crate::directory::Claimed;
use crate::{CommitId, Limits, Message, Publisher, Table, rows};

#[test]
fn at_the_limit_of_sessions_those_that_exist_come_back() {
    let limits = Limits {
        sessions_max: 1,
        ..Limits::default()
    };
    let mut world = World::new(2, limits);
    let first = live(&mut world, 0, &connect_v3('a', false));
    world.cut(first);
    for (version, refused) in [
        (connect_v3('b', false), "20 02 00 03"),
        (
            connect_v5('b', "02", "05 11 00000064", ""),
            "20 03 00 97 00",
        ),
    ] {
        let other = world.open(0);
        assert_eq!(exchange(&mut world, other, &version), hex(refused));
        assert!(!world.is_open(other));
    }
    // Its client id is not held by what was refused.
    let who = Arc::new(Publisher {
        client: "b".into(),
        principal: "anonymous".into(),
    });
    let (directory, claim) = (&world.shared.directory, CommitId(99));
    let held = directory.claim(&who, 0, claim);
    assert!(matches!(held, Claimed::Fresh), "{held:?}");
    assert!(directory.release("b", 0, claim));
    live(&mut world, 1, &connect_v3('b', true));
    let back = world.open(1);
    let answer = exchange(&mut world, back, &connect_v3('a', false));
    assert_eq!(answer, hex("20 02 01 00"), "session present");
    // Clean Start replaces one by one.
    let clean = connect_v5('a', "02", "05 11 00000064", "");
    let back = world.open(0);
    let answer = exchange(&mut world, back, &clean);
    assert_eq!(
        &answer[2..4],
        [0, 0],
        "a new session in the old one's place"
    );
    assert_eq!(world.shared.persistent_sessions(), 1);
}

#[test]
fn a_message_that_the_log_never_takes_does_not_come_back_for_ever() {
    let mut world = World::new(1, Limits::default());
    world.log.payload_bytes_max = Some(1);
    let v3 = live(&mut world, 0, &connect_v3('a', false));
    let v5 = live(&mut world, 0, &connect_v5('b', "02", "00", ""));
    for (client, sent, answer) in [
        (v3, "32 0e 0008 726f757465642f78 0001 7878", "40 02 0001"),
        (v3, "34 0e 0008 726f757465642f78 0002 7878", "50 02 0002"),
        (v3, "62 02 0002", "70 02 0002"),
        (
            v5,
            "32 0f 0008 726f757465642f78 0001 00 7878",
            "40 03 0001 83",
        ),
    ] {
        assert_eq!(exchange(&mut world, client, &hex(sent)), hex(answer));
    }
    assert_eq!(world.shards[0].counts().refused, 3);
    assert!(!world.log.held(b"xx"));
    assert_eq!(world.log.rows(Table::Inbound), 0);
}

#[test]
fn a_qos_2_step_that_a_full_disk_refused_moves_with_its_session() {
    let mut world = World::new(2, Limits::default());
    let subscriber = live(&mut world, 0, &connect_v3('s', false));
    exchange(&mut world, subscriber, &hex("82 06 0001 0001 61 02"));
    let publisher = live(&mut world, 0, &connect_v3('p', true));
    world.send(publisher, &hex("34 06 0001 61 0001 78"));
    world.run_shard(0, 1);
    world.run_log(1);
    world.log.full = true;
    world.run();
    assert_eq!(
        world.read(subscriber),
        hex(""),
        "its Packet Identifier is not stored"
    );
    world.cut(subscriber);
    world.log.full = false;
    let subscriber = world.open(1);
    let answer = exchange(&mut world, subscriber, &connect_v3('s', false));
    assert_eq!(answer, hex("20 02 01 00 34 06 0001 61 0001 78"));
}

#[test]
fn of_two_rows_of_one_client_id_the_newer_session_stays() {
    let mut world = World::new(2, Limits::default());
    for number in [5, 8] {
        let row = rows::SessionRow {
            publisher: Publisher {
                client: "a".into(),
                principal: "anonymous".into(),
            },
            expiry_seconds: u32::MAX,
            left_at_ms: None,
            will: (number == 5).then(|| rows::WillRow {
                delay_seconds: 0,
                message: Arc::new(Message::example("routed/x")),
            }),
        };
        let change = rows::session(number, &row);
        let key = (change.table, change.key);
        world.log.tables.insert(key, change.value.unwrap());
    }
    world.crash(0);
    world.run();
    let sessions = world.shards.iter().flat_map(|shard| &shard.sessions);
    let numbers: Vec<u64> = sessions.map(|(_, session)| session.number()).collect();
    assert_eq!(numbers, [8]);
    // The log had not let the other go, nor taken its Will.
    assert_eq!(world.log.rows(Table::Sessions), 1);
    let records = world.log.records.values();
    assert_eq!(records.map(Vec::len).sum::<usize>(), 1);
    world.agrees_with_its_log(true).unwrap();
}

#[test]
fn qos_0_of_3_1_1_is_taken_again_when_there_is_space() {
    let mut world = World::new(1, Limits::default());
    let publisher = live(&mut world, 0, &connect_v3('p', true));
    world.log.full = true;
    exchange(
        &mut world,
        publisher,
        &hex("30 0b 0008 726f757465642f78 31"),
    );
    assert!(!world.log.held(b"1"));
    world.log.full = false;
    exchange(
        &mut world,
        publisher,
        &hex("30 0b 0008 726f757465642f78 32"),
    );
    assert!(world.log.held(b"2"));
}

/// QoS 1 to "routed/x".
fn routed(id: u8, payload: &str) -> Vec<u8> {
    let head = [0x32, u8::try_from(12 + payload.len()).unwrap()];
    let topic = [&[0, 8][..], b"routed/x"].concat();
    [&head[..], &topic, &[0, id], payload.as_bytes()].concat()
}

#[test]
fn what_3_1_1_sends_behind_what_the_log_never_takes_is_taken() {
    let mut world = World::new(1, Limits::default());
    world.log.payload_bytes_max = Some(1);
    let client = live(&mut world, 0, &connect_v3('a', false));
    for (id, payload) in [(1, "xx"), (2, "2")] {
        let answer = exchange(&mut world, client, &routed(id, payload));
        assert_eq!(answer, [0x40, 2, 0, id]);
    }
    assert!(world.log.held(b"2"));
}

#[test]
fn nothing_passes_what_went_down_with_what_the_log_never_takes() {
    let mut world = World::new(1, Limits::default());
    world.log.payload_bytes_max = Some(1);
    let client = live(&mut world, 0, &connect_v3('a', false));
    world.send(client, &[routed(1, "xx"), routed(2, "2")].concat());
    world.run_shard(0, 1);
    // The third comes between the answers to the first and to the second.
    world.run_log(1);
    world.send(client, &routed(3, "3"));
    world.run_log(1);
    world.run();
    assert_eq!(world.read(client), [0x40, 2, 0, 1]);
    assert!(!world.is_open(client), "it sends both again");
    assert!(!world.log.held(b"3"), "the second would come behind it");
}

#[test]
fn what_a_bug_left_sent_and_queued_is_not_sent_anew() {
    let mut world = World::new(1, Limits::default());
    // Receive Maximum 1.
    let connect = connect_v5('s', "00", "08 11 00000064 21 0001", "");
    let subscriber = live(&mut world, 0, &connect);
    exchange(&mut world, subscriber, &hex("82 07 0001 00 0001 61 01"));
    let publisher = live(&mut world, 0, &connect_v3('p', true));
    for id in [1, 2] {
        let bytes = format!("32 06 0001 61 {id:04x} {id:02x}");
        exchange(&mut world, publisher, &hex(&bytes));
    }
    assert_eq!(world.read(subscriber), hex("32 07 0001 61 0001 00 01"));
    world.shards[0].fuse = Some(0);
    world.send(subscriber, &hex("40 02 0001"));
    world.run();
    assert_eq!(world.panics, 1);
    assert!(!world.is_open(subscriber));
    let subscriber = live(&mut world, 0, &connect);
    let answer = exchange(&mut world, subscriber, &hex("40 02 0002"));
    assert_eq!(answer, hex(""), "the second was sent again, and is done");
    assert_eq!(world.stuck(), Vec::<String>::new());
}
