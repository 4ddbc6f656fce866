//! Enhanced authentication by a method made for it: AUTH packets by hand. Bytes from the
//! specification.

use std::sync::Arc;

use headwater_mqtt_codec::{Binary, ConnAckReason, Decoder, Packet, Version};

use super::World;
use super::exchanges::{connect_v3, connect_v5, exchange, hex, live};
use crate::{
    Applicant, AuthenticationExchange, AuthenticationMethod, AuthenticationStep, ClientLimits,
    Input, Limits, Rate, Verdict,
};

/// Asks "?" until it hears "ok" (or "me": another principal); "no" is refused, "pw" as a password.
pub(super) struct Word;

struct Words;

impl AuthenticationMethod for Word {
    fn begin(&self, applicant: Applicant<'_>) -> Box<dyn AuthenticationExchange> {
        assert!(!applicant.client.is_empty());
        Box::new(Words)
    }
}

impl AuthenticationExchange for Words {
    fn step(&mut self, data: Option<&[u8]>) -> AuthenticationStep {
        let say = |bytes: &'static [u8]| Binary::try_from(bytes::Bytes::from_static(bytes)).ok();
        let done = |principal: &str| AuthenticationStep::Done {
            principal: principal.into(),
            data: say(b"!"),
        };
        match data {
            Some(b"ok") => done("ann"),
            Some(b"me") => done("bob"),
            Some(b"no") => AuthenticationStep::Refused(Verdict::Deny),
            Some(b"pw") => AuthenticationStep::Refused(Verdict::BadCredentials),
            _ => AuthenticationStep::Continue(say(b"?")),
        }
    }
}

/// Properties with method "W" and this data.
pub(super) fn proof(data: &str) -> String {
    let data: String = data.bytes().map(|byte| format!("{byte:02x}")).collect();
    let length = data.len() / 2;
    let properties = format!("15 0001 57 16 {length:04x} {data}");
    format!("{:02x} {properties}", 4 + 3 + length)
}

pub(super) fn auth(reason: &str, data: &str) -> Vec<u8> {
    let tail = hex(&format!("{reason} {}", proof(data)));
    [&[0xf0, u8::try_from(tail.len()).unwrap()], &tail[..]].concat()
}

/// A Client 'a' that has named "W" and was asked "?".
fn asked(world: &mut World) -> crate::ConnectionId {
    let client = world.open(0);
    let connect = connect_v5('a', "02", "04 15 0001 57", "");
    // 0x18, and the same method.
    assert_eq!(exchange(world, client, &connect), auth("18", "?"));
    assert!(world.is_open(client));
    client
}

fn proven(world: &mut World) -> crate::ConnectionId {
    let client = asked(world);
    let answer = exchange(world, client, &auth("18", "ok"));
    assert_eq!((answer[0], answer[3]), (0x20, 0), "CONNACK");
    client
}

#[test]
fn a_client_that_proves_itself_is_connected_with_method_and_data() {
    let mut world = World::new(1, Limits::default());
    let client = asked(&mut world);
    // Again 0x18 and the same method [MQTT-4.12.0-2], [MQTT-3.15.2-1], [MQTT-4.12.0-5].
    assert_eq!(
        exchange(&mut world, client, &auth("18", "a")),
        auth("18", "?")
    );
    let answer = exchange(&mut world, client, &auth("18", "ok"));
    assert_eq!((answer[0], answer[3]), (0x20, 0));
    let ends = hex("15 0001 57 16 0001 21");
    assert!(answer.ends_with(&ends), "[MQTT-4.12.0-5] {answer:02x?}");
    assert_eq!(exchange(&mut world, client, &hex("c0 00")), hex("d0 00"));
    let (_, session) = world.shards[0].sessions.iter().next().unwrap();
    assert_eq!(&*session.publisher.principal, "ann");
    // And in one step.
    let client = world.open(0);
    let connect = connect_v5('b', "02", &proof("ok"), "");
    let answer = exchange(&mut world, client, &connect);
    assert_eq!((answer[0], answer[3]), (0x20, 0));
    assert!(answer.ends_with(&ends), "{answer:02x?}");
}

#[test]
fn a_client_that_names_no_method_gets_none() {
    let mut world = World::new(1, Limits::default());
    // Without and with user name "u" and password "ok", which the method would take.
    for (flags, credentials) in [("c2", "0001 75 0002 6f6b"), ("02", "")] {
        let client = world.open(0);
        let connect = connect_v5('a', flags, "00", credentials);
        let mut answer = exchange(&mut world, client, &connect).into();
        // [MQTT-4.12.0-6]: CONNACK alone, with no method and no data.
        let packet = Decoder::for_client(Version::V5, u32::MAX).decode(&mut answer);
        let Ok(Some(Packet::ConnAck(connack))) = packet else {
            panic!("{packet:?}");
        };
        assert_eq!(connack.reason, ConnAckReason::Success);
        assert_eq!(connack.properties.authentication, None);
        assert!(answer.is_empty(), "{answer:02x?}");
    }
    let client = live(&mut world, 0, &connect_v5('a', "02", "00", ""));
    // [MQTT-4.12.0-7]; anchors/bad-inputs.md, row 35.
    assert_eq!(
        exchange(&mut world, client, &auth("19", "ok")),
        hex("e0 01 82")
    );
    assert!(!world.is_open(client));
}

#[test]
fn what_no_method_accepts_is_refused_by_its_code() {
    // [MQTT-3.1.4-2]
    for (properties, code, why) in [
        ("04 15 0001 58", 0x8c, "unknown method [MQTT-4.12.0-1]"),
        (
            "05 16 0002 6f6b",
            0x82,
            "data without a method, 3.1.2.11.10",
        ),
        (&proof("no"), 0x87, "[MQTT-4.12.0-4]"),
        (&proof("pw"), 0x86, "[MQTT-4.12.0-4]"),
    ] {
        let mut world = World::new(1, Limits::default());
        let client = world.open(0);
        let answer = exchange(&mut world, client, &connect_v5('a', "02", properties, ""));
        assert_eq!(answer, hex(&format!("20 03 00 {code:02x} 00")), "{why}");
        assert!(!world.is_open(client), "{why}");
        assert_eq!(world.shards[0].counts().sessions, 0, "{why}");
    }
    // AUTH first of all is no CONNECT [MQTT-3.1.0-1].
    let mut world = World::new(1, Limits::default());
    let client = world.open(0);
    assert_eq!(exchange(&mut world, client, &auth("18", "ok")), hex(""));
    assert!(!world.is_open(client));
    // AUTH does not exist before 5.0.
    let client = live(&mut world, 0, &connect_v3('a', true));
    assert_eq!(exchange(&mut world, client, &auth("18", "ok")), hex(""));
    assert!(!world.is_open(client));
}

#[test]
fn before_connack_nothing_but_auth_of_that_method_is_heard() {
    let other = hex("f0 06 18 04 15 0001 58");
    for (packet, code, why) in [
        (hex("c0 00"), 0x82, "PINGREQ [MQTT-3.1.2-30]"),
        (hex("30 04 0001 61 00"), 0x82, "PUBLISH"),
        (auth("19", "ok"), 0x82, "Re-authenticate [MQTT-4.12.0-3]"),
        (
            auth("00", "ok"),
            0x82,
            "Success is the Server's, table 3-11",
        ),
        (other, 0x82, "another method [MQTT-4.12.0-5]"),
        (hex("f0 00"), 0x82, "no method, 3.15.2.2.2"),
        (hex("f1 00"), 0x81, "[MQTT-3.15.1-1]"),
        (hex("f0 02 17 00"), 0x81, "no such reason [MQTT-3.15.2-1]"),
        (auth("18", "no"), 0x87, "[MQTT-4.12.0-4]"),
    ] {
        let mut world = World::new(1, Limits::default());
        let client = asked(&mut world);
        let answer = exchange(&mut world, client, &packet);
        // CONNACK, never DISCONNECT [MQTT-3.14.0-1].
        assert_eq!(answer, hex(&format!("20 03 00 {code:02x} 00")), "{why}");
        assert!(!world.is_open(client), "{why}");
    }
    // DISCONNECT may be sent, and ends it.
    let mut world = World::new(1, Limits::default());
    let client = asked(&mut world);
    assert_eq!(exchange(&mut world, client, &hex("e0 00")), hex(""));
    assert!(!world.is_open(client));
}

#[test]
fn an_exchange_has_bounds_in_packets_bytes_and_time() {
    let mut world = World::new(1, Limits::default());
    let client = asked(&mut world);
    for _ in 0..15 {
        assert_eq!(
            exchange(&mut world, client, &auth("18", "a")),
            auth("18", "?")
        );
    }
    let answer = exchange(&mut world, client, &auth("18", "ok"));
    assert_eq!(answer, hex("20 03 00 97 00"), "the seventeenth packet");
    // Twice 40,000 bytes; anchors/bad-inputs.md, row 35.
    let client = asked(&mut world);
    let head = hex("f0 cbb802 18 c7b802 15 0001 57 16 9c40");
    let long = [&head[..], &[b'x'; 40_000]].concat();
    assert_eq!(exchange(&mut world, client, &long), auth("18", "?"));
    assert_eq!(exchange(&mut world, client, &long), hex("20 03 00 97 00"));
    // One packet beyond what a stranger may send: from its header alone.
    let client = asked(&mut world);
    let answer = exchange(&mut world, client, &hex("f0 808004 18"));
    assert_eq!(answer, hex("20 03 00 95 00"));
    let client = asked(&mut world);
    world.pass(4_999);
    world.run();
    assert!(world.is_open(client));
    world.pass(1);
    world.run();
    assert_eq!(world.read(client), hex("20 03 00 87 00"));
    assert!(!world.is_open(client));
    assert_eq!(world.shards[0].connections.len(), 0);
}

#[test]
fn a_connected_client_proves_itself_again_while_its_traffic_goes_on() {
    let mut world = World::new(1, Limits::default());
    let client = proven(&mut world);
    exchange(&mut world, client, &hex("82 07 0001 00 0001 61 00"));
    assert_eq!(
        exchange(&mut world, client, &auth("19", "a")),
        auth("18", "?")
    );
    let answer = exchange(&mut world, client, &hex("32 07 0001 61 0001 00 78"));
    assert_eq!(answer, hex("40 02 0001 30 05 0001 61 00 78"));
    assert_eq!(
        exchange(&mut world, client, &auth("18", "ok")),
        auth("00", "!")
    );
    // And the time it had is over for nobody.
    world.pass(60_000);
    assert_eq!(exchange(&mut world, client, &hex("c0 00")), hex("d0 00"));
}

#[test]
fn a_client_that_fails_to_prove_itself_again_is_closed_by_its_code() {
    let other = hex("f0 06 19 04 15 0001 58");
    for (first, then, code, why) in [
        (other, None, 0x82, "another method [MQTT-4.12.1-1]"),
        (auth("18", "ok"), None, 0x82, "nobody asked"),
        (auth("00", "ok"), None, 0x82, "Success is the Server's"),
        (auth("19", "no"), None, 0x87, "[MQTT-4.12.1-2]"),
        (auth("19", "pw"), None, 0x87, "DISCONNECT has no 0x86"),
        (auth("19", "me"), None, 0x87, "another principal"),
        (
            auth("19", "a"),
            Some(auth("19", "a")),
            0x82,
            "one at a time",
        ),
        (
            auth("19", "a"),
            Some(auth("18", "no")),
            0x87,
            "[MQTT-4.12.1-2]",
        ),
    ] {
        let mut world = World::new(1, Limits::default());
        let client = proven(&mut world);
        let mut answer = exchange(&mut world, client, &first);
        if let Some(then) = then {
            assert_eq!(answer, auth("18", "?"), "{why}");
            answer = exchange(&mut world, client, &then);
        }
        assert_eq!(answer, hex(&format!("e0 01 {code:02x}")), "{why}");
        assert!(!world.is_open(client), "{why}");
    }
    // Or does not go on.
    let mut world = World::new(1, Limits::default());
    let client = proven(&mut world);
    exchange(&mut world, client, &auth("19", "a"));
    world.pass(5_000);
    world.run();
    assert_eq!(world.read(client), hex("e0 01 87"));
    assert!(!world.is_open(client));
}

/// Time passes in steps, as a driver sees it; the log does nothing meanwhile.
fn wait(world: &mut World, ms: u64) {
    for _ in 0..ms {
        world.pass(1);
        let due = world.shards[0].deadline();
        if due.is_some_and(|due| due <= world.now.mono_ms) {
            world.inboxes[0].push_back(Input::Tick);
        }
        world.run_shard(0, usize::MAX);
    }
}

#[test]
fn the_time_to_prove_itself_again_stands_still_while_the_client_is_not_read() {
    // QoS 1 to "routed/x": a commit.
    let publish = hex("32 0d 0008 726f757465642f78 0001 00");
    let goes_on = |world: &mut World, client, why: &str| {
        wait(world, 999);
        assert!(world.is_open(client), "{why}");
        wait(world, 1);
        assert_eq!(world.read(client), hex("e0 01 87"), "{why}");
        assert!(!world.is_open(client), "{why}");
    };
    // The log takes its time, for this Client or for all of the shard; before AUTH in the same read,
    // or after.
    for (of_shard, later) in [(false, true), (true, true), (false, false)] {
        let mut limits = Limits::default();
        match of_shard {
            true => limits.shard_commits_max = 1,
            false => limits.connection_commits_max = 1,
        }
        let why = format!("shard {of_shard}, later {later}");
        let mut world = World::new(1, limits);
        let client = proven(&mut world);
        let first = if later { &[][..] } else { &publish[..] };
        world.send(client, &[first, &auth("19", "a")].concat());
        world.run_shard(0, usize::MAX);
        assert_eq!(world.read(client), auth("18", "?"), "{why}");
        if later {
            wait(&mut world, 4_000);
            world.send(client, &publish);
        }
        world.run_shard(0, usize::MAX);
        assert!(world.paused.contains(&client), "{why}");
        wait(&mut world, 20_000);
        assert!(world.shards[0].output(client).is_some(), "{why}");
        world.run_log(usize::MAX);
        world.run_shard(0, usize::MAX);
        assert!(!world.paused.contains(&client), "{why}");
        world.read(client);
        if !later {
            wait(&mut world, 4_000);
        }
        goes_on(&mut world, client, &why);
    }
    // Or nobody is read.
    let mut world = World::new(1, Limits::default());
    let client = proven(&mut world);
    exchange(&mut world, client, &auth("19", "a"));
    wait(&mut world, 4_000);
    world.inboxes[0].push_back(Input::Held);
    world.run_shard(0, usize::MAX);
    wait(&mut world, 20_000);
    world.inboxes[0].push_back(Input::Released);
    world.run_shard(0, usize::MAX);
    goes_on(&mut world, client, "held");
    // Or it is ahead of its rate: its AUTH waits behind what it sent before.
    let mut world = World::new(1, Limits::default());
    world.client_limits = Arc::new(ClientLimits {
        messages: Rate {
            per_second: 1,
            burst: 1,
        },
        ..ClientLimits::default()
    });
    let client = proven(&mut world);
    exchange(&mut world, client, &auth("19", "a"));
    let many = hex("30 05 0001 61 00 78").repeat(11);
    world.send(client, &[&many[..], &auth("18", "ok")].concat());
    wait(&mut world, 10_000);
    assert_eq!(world.read(client), []);
    wait(&mut world, 2_000);
    assert_eq!(world.read(client), auth("00", "!"));
}

#[test]
fn a_session_stays_with_who_made_it_by_whatever_method() {
    let mut world = World::new(1, Limits::default());
    let lasting = |data| {
        connect_v5(
            'a',
            "00",
            &format!("0e 11 00000064 {}", &proof(data)[3..]),
            "",
        )
    };
    let client = world.open(0);
    assert_eq!(exchange(&mut world, client, &lasting("ok"))[3], 0);
    let thief = world.open(0);
    let answer = exchange(&mut world, thief, &lasting("me"));
    assert_eq!(answer, hex("20 03 00 87 00"));
    assert!(world.is_open(client) && !world.is_open(thief));
}
