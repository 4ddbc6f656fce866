//! CONNECT of MQTT 5.0: the Client Identifiers that are taken and assigned, and what a refusal says
//! and leaves undone. Bytes from the specification.

use std::collections::BTreeSet;

use headwater_mqtt_codec::{Decoder, Packet, QoS, Version};

use super::World;
use super::authentication::{auth, proof};
use super::exchanges::{connect_v3, connect_v5, exchange, hex, live};
use crate::{ConnectionId, Input, Limits, Table};

/// Session Expiry Interval of 100 s.
const LASTING: &str = "05 11 00000064";

/// The characters of [MQTT-3.1.3-5].
const CHARACTERS: &str = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

/// CONNECT of MQTT 5.0, a lasting Session, Clean Start 0.
fn connect_as(id: &str) -> Vec<u8> {
    let length = u8::try_from(id.len()).unwrap();
    let head = hex(&format!(
        "0004 4d515454 05 00 0000 {LASTING} 00 {length:02x}"
    ));
    [&[0x10, 18 + length], &head[..], id.as_bytes()].concat()
}

fn short_ids() -> Limits {
    Limits {
        client_id_bytes_max: 23,
        ..Limits::default()
    }
}

#[test]
fn an_identifier_of_1_to_23_digits_and_letters_names_its_session() {
    // [MQTT-3.1.3-5]: each character alone, and each length, over all characters.
    let single = (0..CHARACTERS.len()).map(|at| &CHARACTERS[at..=at]);
    let long = (1..=23).flat_map(|length| {
        let starts = (0..CHARACTERS.len() - length).step_by(length);
        starts
            .chain([CHARACTERS.len() - length])
            .map(move |at| &CHARACTERS[at..at + length])
    });
    let ids: BTreeSet<&str> = single.chain(long).collect();
    for limits in [Limits::default(), short_ids()] {
        let mut world = World::new(2, limits);
        for was_there in [0, 1] {
            for id in &ids {
                let client = world.open(id.len() % 2);
                let answer = exchange(&mut world, client, &connect_as(id));
                let head = (answer[0], answer[2], answer[3]);
                assert_eq!(head, (0x20, was_there, 0), "{id}");
                world.cut(client);
            }
        }
        assert_eq!(world.shared.persistent_sessions(), ids.len() as u64);
    }
}

#[test]
fn an_identifier_that_is_refused_is_answered_by_0x85_and_the_end() {
    let mut world = World::new(1, short_ids());
    let client = world.open(0);
    // [MQTT-3.1.3-8]
    let answer = exchange(&mut world, client, &connect_as(&CHARACTERS[..24]));
    assert_eq!(answer, hex("20 03 00 85 00"));
    assert!(!world.is_open(client));
    assert_eq!(world.shards[0].counts().sessions, 0);
}

/// The Assigned Client Identifier to a CONNECT without one; and the connection.
fn assigned(world: &mut World) -> (ConnectionId, String) {
    let client = world.open(0);
    world.send(client, &connect_as(""));
    // Its identifier is found before the log does anything, and what was asked before it is done
    // before its claim.
    world.run_shard(0, usize::MAX);
    world.run_log(1);
    world.run_shard(1, usize::MAX);
    world.run();
    let answer = world.read(client);
    let packet = Decoder::for_client(Version::V5, u32::MAX).decode(&mut answer.into());
    let Ok(Some(Packet::ConnAck(connack))) = packet else {
        panic!("{packet:?}");
    };
    assert!(!connack.session_present, "a new Session");
    let id = connack.properties.assigned_client_identifier;
    (client, id.unwrap().to_string())
}

#[test]
fn an_assigned_identifier_is_of_no_other_session() {
    let mut world = World::new(2, Limits::default());
    let (client, id) = assigned(&mut world);
    // As if the Client had said it [MQTT-3.1.3-7].
    world.cut(client);
    let client = live(&mut world, 1, &connect_as(&id));
    assert_eq!(world.shared.persistent_sessions(), 1);
    // Whoever sees one can guess the next: those Sessions are taken, by one that is there and by
    // one that is away.
    let after = |id: &str, more: u32| {
        let (name, count) = id.split_at(id.len() - 8);
        let count = u32::from_str_radix(count, 16).unwrap();
        format!("{name}{:08x}", count + more)
    };
    let next = |more| after(&id, more);
    let there = live(&mut world, 0, &connect_as(&next(1)));
    let away = live(&mut world, 1, &connect_as(&next(2)));
    world.cut(away);
    world.run();
    // [MQTT-3.2.2-16]
    let mut all = BTreeSet::from([id.clone(), next(1), next(2)]);
    for _ in 0..3 {
        let (_, id) = assigned(&mut world);
        assert!(all.insert(id.clone()), "{id}");
    }
    assert!(world.is_open(client) && world.is_open(there));
    // Nor does it get the Session of who guesses it before its own claim is in the log.
    let guess = after(all.last().unwrap(), 1);
    let guesser = world.open(1);
    world.send(guesser, &connect_as(&guess));
    world.run_shard(1, usize::MAX);
    let (_, id) = assigned(&mut world);
    assert_eq!(id, guess, "it was free");
    assert!(!world.is_open(guesser));
    all.insert(id);
    // And after a restart, where the Sessions still are.
    world.crash(0);
    let (_, id) = assigned(&mut world);
    assert!(all.insert(id.clone()), "{id}");
    assert_eq!(world.shared.persistent_sessions(), all.len() as u64);
}

/// CONNECTs that are refused after each other step, and the code of their CONNACK (table 3-1).
fn refused() -> Vec<(World, Vec<u8>, u8, &'static str)> {
    let world = |limits| World::new(1, limits);
    let plain = || world(Limits::default());
    let mut full = plain();
    full.log.full = true;
    let mut taken = plain();
    live(&mut taken, 0, &connect_v5('a', "02", &proof("ok"), ""));
    let qos_max = Limits {
        qos_max: QoS::AtLeastOnce,
        ..Limits::default()
    };
    let nothing_retained = Limits {
        retain_available: false,
        ..Limits::default()
    };
    let no_sessions = Limits {
        sessions_max: 0,
        ..Limits::default()
    };
    let lasting = connect_v5('a', "02", LASTING, "");
    let will = |flags| connect_v5('a', flags, "00", "00 0001 77 0001 78");
    let of_method = |properties: &str| connect_v5('a', "02", properties, "");
    let long = connect_as(&CHARACTERS[..24]);
    vec![
        (plain(), connect_v5('a', "03", "00", ""), 0x81, "malformed"),
        (plain(), of_method("03 21 0000"), 0x82, "a Protocol Error"),
        (world(short_ids()), long, 0x85, "its identifier"),
        (world(qos_max), will("16"), 0x9b, "QoS of its Will"),
        (
            world(nothing_retained),
            will("26"),
            0x9a,
            "its Will's RETAIN",
        ),
        (plain(), of_method("04 15 0001 58"), 0x8c, "its method"),
        (plain(), of_method(&proof("no")), 0x87, "by its method"),
        (plain(), of_method(&proof("pw")), 0x86, "by its method"),
        (world(no_sessions), lasting.clone(), 0x97, "by its claim"),
        (taken, lasting.clone(), 0x87, "somebody else's Session"),
        (full, lasting, 0x97, "by the log"),
    ]
}

#[test]
fn nothing_behind_a_refused_connect_is_processed() {
    // SUBSCRIBE to "#", PUBLISH of QoS 0 and RETAIN and of QoS 1 to "a", PINGREQ, DISCONNECT.
    let behind =
        hex("82 07 0001 00 0001 23 00 31 05 0001 61 00 78 32 07 0001 61 0001 00 79 c0 00 e0 00");
    for at_once in [true, false] {
        for (mut world, connect, code, why) in refused() {
            let watcher = live(&mut world, 0, &connect_v3('w', true));
            exchange(&mut world, watcher, &hex("82 06 0001 0001 23 00"));
            let sessions = world.shards[0].counts().sessions;
            let rows = world.log.tables.len();
            let client = world.open(0);
            if at_once {
                world.send(client, &[&connect[..], &behind].concat());
            } else {
                world.send(client, &connect);
                world.send(client, &behind);
            }
            world.run();
            // [MQTT-3.1.4-6]: nothing but CONNACK, with a code of table 3-1 [MQTT-3.2.2-8], and
            // the close [MQTT-3.2.2-7], [MQTT-3.1.4-2].
            let answer = world.read(client);
            assert_eq!(answer, hex(&format!("20 03 00 {code:02x} 00")), "{why}");
            assert!(!world.is_open(client), "{why}");
            world.log.full = false;
            world.run();
            assert_eq!(world.read(watcher), [], "{why}");
            assert_eq!(world.shards[0].counts().sessions, sessions, "{why}");
            assert_eq!(world.log.tables.len(), rows, "{why}");
        }
    }
    // Also behind the AUTH that is refused.
    let mut world = World::new(1, Limits::default());
    let watcher = live(&mut world, 0, &connect_v3('w', true));
    exchange(&mut world, watcher, &hex("82 06 0001 0001 23 00"));
    let client = world.open(0);
    exchange(
        &mut world,
        client,
        &connect_v5('a', "02", "04 15 0001 57", ""),
    );
    let answer = exchange(
        &mut world,
        client,
        &[&auth("18", "no")[..], &behind].concat(),
    );
    assert_eq!(answer, hex("20 03 00 87 00"));
    assert_eq!(world.read(watcher), []);
    assert_eq!(world.log.rows(Table::Retained), 0);
}

#[test]
fn connack_flags_say_whether_there_was_a_session_and_nothing_else() {
    let mut world = World::new(1, Limits::default());
    let will = "00 0001 77 0001 78";
    // [MQTT-3.2.2-1], and Session Present 0 where it is refused [MQTT-3.2.2-6], by Clean Start
    // [MQTT-3.2.2-2] or for want of a Session [MQTT-3.2.2-3].
    for (flags, properties, rest, full, said) in [
        ("00", LASTING, "", false, (0, 0)),
        ("00", LASTING, "", false, (1, 0)),
        ("04", LASTING, will, true, (0, 0x97)),
        ("01", LASTING, "", false, (0, 0x81)),
        ("00", &proof("no"), "", false, (0, 0x87)),
        ("04", LASTING, will, false, (1, 0)),
        ("02", LASTING, "", false, (0, 0)),
        ("00", "00", "", false, (1, 0)),
        ("00", "00", "", false, (0, 0)),
        ("02", "00", "", false, (0, 0)),
    ] {
        let client = world.open(0);
        world.log.full = full;
        let answer = exchange(
            &mut world,
            client,
            &connect_v5('a', flags, properties, rest),
        );
        world.log.full = false;
        let why = format!("{flags} {properties}");
        assert_eq!((answer[0], (answer[2], answer[3])), (0x20, said), "{why}");
        world.cut(client);
        world.run();
    }
}

#[test]
fn a_server_that_stops_says_so_to_who_had_connack() {
    let mut world = World::new(1, Limits::default());
    let connected = live(&mut world, 0, &connect_v5('a', "02", "00", ""));
    let asked = world.open(0);
    let connect = connect_v5('b', "02", "04 15 0001 57", "");
    assert_eq!(exchange(&mut world, asked, &connect)[0], 0xf0, "AUTH");
    let fresh = world.open(0);
    let claiming = world.open(0);
    world.send(claiming, &connect_v5('c', "02", "00", ""));
    world.run_shard(0, usize::MAX);
    world.inboxes[0].push_back(Input::Stop);
    world.run();
    // [MQTT-3.14.0-1]
    assert_eq!(world.read(connected), hex("e0 01 8b"));
    for client in [asked, fresh, claiming] {
        assert_eq!(world.read(client), []);
        assert!(!world.is_open(client));
    }
}
