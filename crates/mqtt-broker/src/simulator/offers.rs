//! What CONNACK says there is, and that no more is taken. Bytes from the specification.

use headwater_mqtt_codec::{ConnAckProperties, Decoder, Packet, QoS, Version};

use super::World;
use super::exchanges::{connect_v3, connect_v5, exchange, hex, live};
use crate::Limits;

fn connack(world: &mut World, connect: &[u8]) -> ConnAckProperties {
    let client = world.open(0);
    let mut answer = exchange(world, client, connect).into();
    let packet = Decoder::for_client(Version::V5, u32::MAX).decode(&mut answer);
    match packet {
        Ok(Some(Packet::ConnAck(connack))) if answer.is_empty() => connack.properties,
        other => panic!("{other:?}, then {answer:?}"),
    }
}

#[test]
fn session_expiry_is_said_where_it_may_have_been_cut() {
    let limits = Limits {
        session_expiry_seconds_max: 100,
        ..Limits::default()
    };
    let mut world = World::new(1, limits);
    for (asked, said) in [
        ("00", None),
        ("05 11 00000063", None),
        ("05 11 ffffffff", Some(100)),
    ] {
        let connect = connect_v5('a', "02", asked, "");
        let properties = connack(&mut world, &connect);
        assert_eq!(
            properties.session_expiry_interval, said,
            "3.2.2.3.2: {asked}"
        );
    }
    // Short enough for who takes no more than 20 bytes [MQTT-3.1.2-24].
    let client = world.open(0);
    let answer = exchange(
        &mut world,
        client,
        &connect_v5('a', "02", "05 27 00000014", ""),
    );
    assert_eq!((answer[0], answer[3]), (0x20, 0));
    assert!(answer.len() <= 20, "{answer:02x?}");
}

#[test]
fn response_information_is_for_who_asks() {
    let information = |world: &mut World, properties: &str| {
        let properties = connack(world, &connect_v5('a', "02", properties, ""));
        properties.response_information.map(|text| text.to_string())
    };
    let mut world = World::new(1, Limits::default());
    assert_eq!(information(&mut world, "02 19 01"), None, "there is none");
    world.response_information = Some("answers/".parse().unwrap());
    world.crash(0);
    let said = Some("answers/".to_owned());
    assert_eq!(information(&mut world, "02 19 01"), said);
    assert_eq!(information(&mut world, "00"), None, "[MQTT-3.1.2-28]");
    assert_eq!(information(&mut world, "02 19 00"), None, "[MQTT-3.1.2-28]");
}

#[test]
fn a_lower_maximum_qos_is_announced_granted_and_kept() {
    let limits = Limits {
        qos_max: QoS::AtLeastOnce,
        ..Limits::default()
    };
    let mut world = World::new(1, limits);
    let connect = connect_v5('a', "02", "00", "");
    assert_eq!(connack(&mut world, &connect).maximum_qos, QoS::AtLeastOnce); // [MQTT-3.2.2-9]
    let client = live(&mut world, 0, &connect);
    let subscribe = hex("82 0f 0001 00 0001 61 00 0001 62 01 0001 63 02");
    let answer = exchange(&mut world, client, &subscribe);
    assert_eq!(
        answer,
        hex("90 06 0001 00 00 01 01"),
        "[MQTT-3.2.2-10], [MQTT-3.8.4-7]"
    );
    let answer = exchange(&mut world, client, &hex("34 06 0001 61 0001 00"));
    assert_eq!(answer, hex("e0 01 9b"), "3.2.2.3.4");
    // [MQTT-3.2.2-12]: Will QoS 2.
    let will = connect_v5('a', "16", "00", "00 0001 77 0001 78");
    let client = world.open(0);
    assert_eq!(exchange(&mut world, client, &will), hex("20 03 00 9b 00"));
    assert!(!world.is_open(client));
    // 3.1.1 has no answer but the end.
    let client = live(&mut world, 0, &connect_v3('b', true));
    assert_eq!(
        exchange(&mut world, client, &hex("34 05 0001 61 0001")),
        hex("")
    );
    assert!(!world.is_open(client));
}

#[test]
fn where_nothing_is_retained_it_is_said_and_kept() {
    let limits = Limits {
        retain_available: false,
        ..Limits::default()
    };
    let mut world = World::new(1, limits);
    let connect = connect_v5('a', "02", "00", "");
    assert!(!connack(&mut world, &connect).retain_available);
    let client = live(&mut world, 0, &connect);
    let answer = exchange(&mut world, client, &hex("31 05 0001 61 00 78"));
    assert_eq!(answer, hex("e0 01 9a"), "3.2.2.3.5");
    // [MQTT-3.2.2-13]: Will Retain.
    let will = connect_v5('a', "26", "00", "00 0001 77 0001 78");
    let client = world.open(0);
    assert_eq!(exchange(&mut world, client, &will), hex("20 03 00 9a 00"));
    assert!(!world.is_open(client));
}

#[test]
fn where_wildcards_are_not_available_it_is_said_and_kept() {
    let limits = Limits {
        wildcards_available: false,
        ..Limits::default()
    };
    let mut world = World::new(1, limits);
    let connect = connect_v5('a', "02", "00", "");
    let properties = connack(&mut world, &connect);
    assert!(!properties.wildcard_subscription_available);
    let client = live(&mut world, 0, &connect);
    let subscribe = hex("82 11 0001 00 0001 23 00 0001 61 00 0003 2b2f61 00");
    let answer = exchange(&mut world, client, &subscribe);
    assert_eq!(answer, hex("90 06 0001 00 a2 00 a2"));
    let client = live(&mut world, 0, &connect_v3('b', true));
    let answer = exchange(&mut world, client, &hex("82 06 0001 0001 23 00"));
    assert_eq!(answer, hex("90 03 0001 80"));
}

#[test]
fn a_client_id_is_as_long_as_the_limit() {
    let limits = Limits {
        client_id_bytes_max: 23,
        ..Limits::default()
    };
    let mut world = World::new(1, limits);
    let connect = |version: &str, bytes: usize| {
        let id = "61".repeat(bytes);
        let tail = hex(&format!("{version} 02 0000 {bytes:04x} {id}"));
        [&[0x10, u8::try_from(tail.len()).unwrap()], &tail[..]].concat()
    };
    // 3.1 and 3.1.1: as long as every server must allow (MQTT 3.1.1, [MQTT-3.1.3-5]), and one more.
    for version in ["0006 4d5149736470 03", "0004 4d515454 04"] {
        for (bytes, code) in [(1, 0), (23, 0), (24, 2)] {
            let client = world.open(0);
            let answer = exchange(&mut world, client, &connect(version, bytes));
            assert_eq!(
                answer,
                hex(&format!("20 02 00 {code:02x}")),
                "{version} {bytes}"
            );
            assert_eq!(world.is_open(client), code == 0);
        }
    }
    // By default they may be longer, as brokers in the field have it.
    let mut world = World::new(1, Limits::default());
    let client = world.open(0);
    let answer = exchange(&mut world, client, &connect("0006 4d5149736470 03", 80));
    assert_eq!(answer, hex("20 02 00 00"));
}

#[test]
fn only_some_versions_assign_a_client_id() {
    let mut world = World::new(1, Limits::default());
    // MQTT 5.0, with and without Clean Start [MQTT-3.1.3-6], [MQTT-3.1.3-7].
    let mut assigned = std::collections::BTreeSet::new();
    for flags in ["00", "02"] {
        let connect = hex(&format!("10 0d 0004 4d515454 05 {flags} 0000 00 0000"));
        let id = connack(&mut world, &connect).assigned_client_identifier;
        assert!(assigned.insert(id.unwrap()), "a new one");
    }
    let connect = connect_v5('a', "02", "00", "");
    assert_eq!(
        connack(&mut world, &connect).assigned_client_identifier,
        None
    );
    for (connect, code) in [
        ("10 0c 0004 4d515454 04 02 0000 0000", 0),
        ("10 0c 0004 4d515454 04 00 0000 0000", 2), // 3.1.1, [MQTT-3.1.3-8]
        ("10 0e 0006 4d5149736470 03 02 0000 0000", 2),
    ] {
        let client = world.open(0);
        let answer = exchange(&mut world, client, &hex(connect));
        assert_eq!(answer, hex(&format!("20 02 00 {code:02x}")), "{connect}");
        assert_eq!(world.is_open(client), code == 0, "{connect}");
    }
}

#[test]
fn a_longer_keep_alive_is_cut_and_said() {
    let limits = Limits {
        keep_alive_seconds_max: 10,
        ..Limits::default()
    };
    for (keep_alive, silence_ms) in [("0000", 15_000), ("003c", 15_000), ("0004", 6_000)] {
        let mut world = World::new(1, limits.clone());
        let connect = hex(&format!(
            "10 0e 0004 4d515454 05 02 {keep_alive} 00 0001 61"
        ));
        let client = world.open(0);
        let answer = exchange(&mut world, client, &connect);
        let said = Decoder::for_client(Version::V5, u32::MAX).decode(&mut answer.into());
        let Ok(Some(Packet::ConnAck(said))) = said else {
            panic!("{said:?}");
        };
        let granted = said.properties.server_keep_alive.unwrap();
        assert_eq!(u64::from(granted) * 1_500, silence_ms, "{keep_alive}"); // [MQTT-3.1.2-21]
        world.pass(silence_ms - 1);
        world.run();
        assert!(world.is_open(client), "{keep_alive}");
        world.pass(1);
        world.run();
        assert_eq!(world.read(client), hex("e0 01 8d"), "{keep_alive}"); // [MQTT-3.1.2-22]
    }
    // Without a limit nothing is said, and what the Client asked for holds [MQTT-3.2.2-22].
    let mut world = World::new(1, Limits::default());
    let connect = hex("10 0e 0004 4d515454 05 02 0004 00 0001 61");
    assert_eq!(connack(&mut world, &connect).server_keep_alive, None);
    world.pass(6_000);
    world.run();
    assert!(world.open.is_empty());
}

#[test]
fn a_bridge_of_3_x_does_not_hear_itself_and_sees_what_is_retained() {
    // mosquitto's bridges set the high bit of the level (`try_private`).
    for (level, name) in [("84", "0004 4d515454"), ("83", "0006 4d5149736470")] {
        let mut world = World::new(1, Limits::default());
        let tail = hex(&format!("{name} {level} 00 0000 0001 62"));
        let connect = [&[0x10, u8::try_from(tail.len()).unwrap()], &tail[..]].concat();
        let bridge = live(&mut world, 0, &connect);
        exchange(&mut world, bridge, &hex("82 06 0001 0001 23 01"));
        assert_eq!(
            exchange(&mut world, bridge, &hex("30 04 0001 61 78")),
            hex("")
        );
        let other = live(&mut world, 0, &connect_v3('o', true));
        exchange(&mut world, other, &hex("31 04 0001 61 78"));
        assert_eq!(world.read(bridge), hex("31 04 0001 61 78"), "{level}");
        // Also after a restart.
        world.crash(0);
        let bridge = live(&mut world, 0, &connect);
        assert_eq!(
            exchange(&mut world, bridge, &hex("30 04 0001 61 78")),
            hex("")
        );
    }
}
