//! Valid packets that say what may not be said, and QoS 2 that never ends.

use crate::ground::{Ground, ends_with};
use crate::wire::{Hello, Wire, hex, packet, publish, subscribe, text};

/// The identifier and the reason of a PUBACK.
fn refusal(wire: &mut Wire) -> [u8; 3] {
    let (first, body) = wire.packet();
    assert_eq!(first, 0x40, "PUBACK");
    [body[0], body[1], body[2]]
}

#[test]
fn row_06_publish_without_a_topic() {
    let mut ground = Ground::new();
    ground.refused("30 03 0000 00", 0x82, "no name and no alias");
    ground.refused("32 05 0000 0001 00", 0x82, "at QoS 1");
    ground.refused_in_3("30 02 0000", "no name [MQTT-4.7.3-1]");
    ground.end();
}

#[test]
fn row_13_one_qos_2_identifier_again_and_again() {
    let mut ground = Ground::new();
    let mut taker = ground.v5("taker");
    taker.subscribe("once", 2);
    for version in [4, 5] {
        let id = format!("again-{version}");
        let hello = Hello {
            level: version,
            ..Hello::v5(&id)
        };
        let (mut wire, _) = Wire::connect(ground.program.mqtt(), &hello);
        let properties = &[0][..usize::from(version == 5)];
        let first = [&text(b"once")[..], &[0, 7], properties, b"first"].concat();
        let rest = [&text(b"once")[..], &[0, 7], properties, &[b'x'; 8_192]].concat();
        wire.send(&packet(0x34, &first));
        assert_eq!(wire.packet().0, 0x50, "PUBREC");
        let again = packet(0x3C, &rest);
        for _ in 0..3_000 {
            wire.send(&again);
            assert_eq!(wire.packet().0, 0x50, "PUBREC each time");
        }
        let message = taker.message();
        assert_eq!(message.payload, b"first");
        taker.acknowledge(0x50, message.id);
        assert_eq!(taker.packet().0, 0x62);
        taker.acknowledge(0x70, message.id);
        taker.send(&[0xC0, 0]);
        assert_eq!(taker.packet().0, 0xD0, "one copy [MQTT-4.3.3-10]");
        let grown = ground.grown();
        assert!(grown < 12 << 20, "{grown} bytes for one stored copy");
        ground.goes_on();
    }
    drop(taker);
    ground.end();
}

#[test]
fn row_14_qos_2_identifiers_without_a_pubrel() {
    let mut ground = Ground::new();
    for version in [4, 5] {
        let hello = Hello {
            level: version,
            ..Hello::v5("hoarder")
        };
        let (mut wire, _) = Wire::connect(ground.program.mqtt(), &hello);
        let properties = &[0][..usize::from(version == 5)];
        // The announced Receive Maximum.
        for id in 1..=1_000_u16 {
            let body = [
                &text(b"t")[..],
                &id.to_be_bytes(),
                properties,
                &[b'x'; 16_384],
            ]
            .concat();
            wire.send(&packet(0x34, &body));
            assert_eq!(wire.packet().0, 0x50, "PUBREC {id}");
        }
        let grown = ground.grown();
        assert!(grown < 12 << 20, "{grown} bytes: identifiers, not payloads");
        let body = [&text(b"t")[..], &[0x10, 0], properties, b"x"].concat();
        wire.send(&packet(0x34, &body));
        if version == 5 {
            ends_with(&mut wire, 0x93, "[MQTT-3.3.4-7]");
        } else {
            assert_eq!(wire.next(), None, "3.1.1 has no word for it");
        }
        ground.goes_on();
    }
    ground.end();
}

#[test]
fn row_15_topics_of_65_536_levels() {
    let mut ground = Ground::new();
    let deep = "/".repeat(65_535);
    let mut wire = ground.v5("deep");
    wire.send(&publish(&deep, b"x", 1, 1));
    assert_eq!(refusal(&mut wire), [0, 1, 0x90], "Topic Name invalid");
    let at_qos_0 = publish(&deep, b"x", 0, 0);
    ground.refused_bytes(&at_qos_0, 0x90, "nothing else answers QoS 0");
    let name = text(deep.as_bytes());
    for (first, rest, why) in [
        (0x30, &b"x"[..], "QoS 0"),
        (0x32, b"\0\x01x", "QoS 1"),
        (0x35, b"\0\x01x", "QoS 2, retained"),
    ] {
        let publish = packet(first, &[&name[..], rest].concat());
        ground.refused_bytes_in_3(&publish, why);
    }
    let mut retained = publish(&deep, b"x", 1, 2);
    retained[0] |= 1;
    wire.send(&retained);
    assert_eq!(refusal(&mut wire), [0, 2, 0x90]);
    wire.send(&subscribe(&deep, 1));
    let (first, body) = wire.packet();
    assert_eq!(
        (first, body[body.len() - 1]),
        (0x90, 0x8F),
        "Topic Filter invalid"
    );
    let plus = "+/".repeat(32_767);
    wire.send(&subscribe(&plus, 1));
    assert_eq!(wire.packet().1.last(), Some(&0x8F));
    drop(wire);
    let body = [
        &b"\0\x04MQTT\x05\x06\0\x3c\0\0\x01a\0"[..],
        &text(&[b'/'; 60_000]),
        b"\0\x01x",
    ]
    .concat();
    ground.connect_refused(&packet(0x10, &body), 0x90, "a deep Will Topic");
    // What is within the limit works.
    let mut wire = ground.v5("deep");
    let fine = "/".repeat(199);
    wire.subscribe(&"+/".repeat(199), 0);
    wire.send(&publish(&fine, b"x", 0, 0));
    assert_eq!(wire.message().topic, fine);
    drop(wire);
    ground.end();
}

#[test]
fn row_16_topics_that_are_the_servers() {
    let mut ground = Ground::new();
    let mut all = ground.v5("all");
    all.subscribe("#", 0);
    all.subscribe("+/broker/version", 0);
    all.subscribe("+/x", 0);
    let mut wire = ground.v5("spoof");
    for topic in ["$SYS/broker/version", "$SYS/x"] {
        wire.send(&publish(topic, b"9.9", 1, 1));
        assert_eq!(refusal(&mut wire), [0, 1, 0x87], "{topic}");
    }
    for topic in ["$abc/x", "$CONTROL/dynamic-security/v1", "$", "$/x"] {
        wire.send(&publish(topic, b"x", 1, 1));
        assert_eq!(refusal(&mut wire), [0, 1, 0x10], "nobody's: {topic}");
    }
    let body = [
        &b"\0\x04MQTT\x05\x06\0\x3c\0\0\x01a\0"[..],
        &text(b"$SYS/x"),
        b"\0\x01x",
    ]
    .concat();
    ground.connect_refused(&packet(0x10, &body), 0x87, "a Will on $SYS");
    // What one Client says stays in order: all that went before this has come before it.
    wire.send(&publish("said", b"last", 0, 0));
    loop {
        // Only what the two witnesses say reaches `#` besides [MQTT-4.7.2-1].
        let message = all.message();
        if message.topic == "said" {
            break;
        }
        assert_eq!(message.topic, "witness");
    }
    drop((wire, all));
    ground.end();
}

#[test]
fn row_17_shared_filters_that_are_none() {
    let mut ground = Ground::new();
    for filter in [
        "$share//x",
        "$share/g",
        "$share/g/",
        "$share/g+/x",
        "$share/g#/x",
        "$share/#",
        "$share/+/x",
        "$share/",
    ] {
        ground.refused_bytes(&subscribe(filter, 1), 0x8F, filter); // [MQTT-4.8.2-1]
    }
    let mut wire = ground.v5("shared");
    // Case counts: this is an ordinary filter.
    wire.subscribe("$SHARE/g/x", 1);
    // Many groups on one filter: up to the limit of the Session, and gone with it.
    let mut refused = 0;
    for group in 0..12_000 {
        wire.send(&subscribe(&format!("$share/g{group}/x"), 0));
        let (_, body) = wire.packet();
        match body[body.len() - 1] {
            0 => {}
            0x97 => refused += 1,
            other => panic!("{other:#x}"),
        }
    }
    assert_eq!(refused, 12_000 - 100, "Shared Subscriptions of a Session");
    ground.goes_on();
    drop(wire);
    ground.end();
}

#[test]
fn row_18_shared_with_no_local() {
    let mut ground = Ground::new();
    let body = [&b"\0\x01\0"[..], &text(b"$share/g/x"), &[0x05]].concat();
    ground.refused_bytes(&packet(0x82, &body), 0x82, "[MQTT-3.8.3-4]");
    ground.end();
}

#[test]
fn row_19_topic_aliases_that_are_none() {
    let mut ground = Ground::new();
    ground.refused("30 07 0001 61 03 230000", 0x94, "alias 0 [MQTT-3.3.2-8]");
    ground.refused(
        "30 07 0001 61 03 23ffff",
        0x94,
        "more than was announced [MQTT-3.3.2-9]",
    );
    ground.refused("30 06 0000 03 230001", 0x82, "never set");
    for round in ["a reconnect", "a takeover"] {
        let mut wire = ground.v5("aliased");
        wire.send(&hex("30 07 0001 61 03 230001"));
        wire.send(&[0xC0, 0]);
        assert_eq!(wire.packet().0, 0xD0, "the alias is set");
        if round == "a reconnect" {
            wire.send(&[0xE0, 0]);
            assert_eq!(wire.next(), None);
        }
        let mut next = ground.v5("aliased");
        next.send(&hex("30 06 0000 03 230001"));
        ends_with(&mut next, 0x82, round);
    }
    ground.end();
}

#[test]
fn row_28_large_payloads() {
    let mut ground = Ground::with(&["--set", "mqtt.packet_bytes_max=4MiB"]);
    // 250 MB announced: the header alone is judged, several at once.
    let mut wires: Vec<Wire> = (0..8).map(|one| ground.v5(&format!("big-{one}"))).collect();
    for wire in &mut wires {
        wire.send(&hex("30 ffffff7f"));
        ends_with(wire, 0x95, "Packet too large [MQTT-3.2.2-15]");
    }
    drop(wires);
    ground.goes_on();
    let payload = vec![b'x'; (4 << 20) - 64];
    let bytes = publish("big", &payload, 1, 1);
    for _ in 0..3 {
        // One of the largest, in small pieces; one payload for all who get it.
        let mut takers: Vec<Wire> = (0..40)
            .map(|one| ground.v5(&format!("taker-{one}")))
            .collect();
        for taker in &mut takers {
            taker.subscribe("big", 0);
        }
        let mut wire = ground.v5("large");
        for piece in bytes[..2_000].chunks(1) {
            wire.send(piece);
        }
        for piece in bytes[2_000..].chunks(1_447) {
            wire.send(piece);
        }
        assert_eq!(wire.packet().0, 0x40);
        ground.goes_on();
        let grown = ground.grown();
        assert!(
            grown < 40 << 20,
            "{grown} bytes for 4 MiB and 40 who want them"
        );
        for taker in &mut takers {
            assert_eq!(taker.packet().1.len(), payload.len() + 6);
        }
        drop((wire, takers));
        ground.round_over();
    }
    ground.end();
}
