//! Packets that are no packets, behind an accepted CONNECT.

use std::io::Write;
use std::net::{Shutdown, TcpStream};

use super::CON5;
use crate::ground::{Ground, ends_with, to_the_end};
use crate::program::{PATIENCE, until};
use crate::wire::{Wire, hex, packet, publish, text};

#[test]
fn row_05_packets_that_only_a_server_sends() {
    let mut ground = Ground::new();
    for (bytes, why) in [
        ("20 03 00 00 00", "CONNACK"),
        ("90 04 0001 00 00", "SUBACK"),
        ("b0 04 0001 00 00", "UNSUBACK"),
        ("d0 00", "PINGRESP"),
    ] {
        ground.refused(bytes, 0x82, why);
        ground.refused_in_3(bytes, why);
    }
    ground.end();
}

#[test]
fn row_07_publish_that_ends_behind_its_topic() {
    let mut ground = Ground::new();
    ground.refused("32 03 0001 61", 0x81, "no Packet Identifier");
    ground.refused_in_3("32 03 0001 61", "no Packet Identifier");
    let mut padded = hex("32 03 0001 61");
    padded.resize(1_024, 0);
    ground.refused_bytes(&padded, 0x81, "padded to 1,024 bytes");
    ground.end();
}

#[test]
fn row_08_subscribe_without_its_options() {
    let mut ground = Ground::new();
    ground.refused("82 06 0001 00 0001 61", 0x81, "no options byte");
    ground.refused_in_3("82 05 0001 0001 61", "no options byte");
    ground.refused("82 03 0001 00", 0x82, "no filter at all [MQTT-3.8.3-2]");
    ground.end();
}

#[test]
fn row_09_subscribe_with_an_empty_filter() {
    let mut ground = Ground::new();
    ground.refused("82 05 0001 00 0000", 0x81, "and no options");
    ground.refused("82 06 0001 00 0000 00", 0x8F, "[MQTT-4.7.3-1]");
    ground.end();
}

#[test]
fn row_11_malformed_disconnect_publishes_the_will() {
    let mut ground = Ground::new();
    let mut heir = ground.v5("heir");
    heir.subscribe("will/+", 0);
    for (index, bytes) in ["e0 02 00 81", "e0 03 00 05 11", "e1 01 00", "e0 02 04 7f"]
        .into_iter()
        .enumerate()
    {
        let topic = format!("will/{index}");
        let body = [
            &b"\0\x04MQTT\x05\x06\0\x3c\0\0\x01a\0"[..],
            &text(topic.as_bytes()),
            &text(b"gone"),
        ]
        .concat();
        let mut wire = Wire::open(ground.program.mqtt());
        wire.send(&packet(0x10, &body));
        assert_eq!(wire.packet().0, 0x20);
        wire.send(&hex(bytes));
        ends_with(&mut wire, 0x81, bytes);
        assert_eq!(heir.message().topic, topic);
        ground.goes_on();
    }
    drop(heir);
    ground.end();
}

#[test]
fn row_22_packet_identifiers_that_are_zero_or_unknown() {
    let mut ground = Ground::new();
    for (bytes, why) in [
        ("32 06 0001 61 0000 00", "PUBLISH at QoS 1"),
        ("34 06 0001 61 0000 00", "PUBLISH at QoS 2"),
        ("82 07 0000 00 0001 61 00", "SUBSCRIBE"),
        ("a2 06 0000 00 0001 61", "UNSUBSCRIBE"),
        ("40 02 0000", "PUBACK"),
        ("50 02 0000", "PUBREC"),
        ("62 02 0000", "PUBREL"),
        ("70 02 0000", "PUBCOMP"),
    ] {
        ground.refused(bytes, 0x82, &format!("{why} 0 [MQTT-2.2.1-3]"));
    }
    // A window of one message, and acknowledgements of identifiers that are not in flight.
    let connect = packet(0x10, b"\0\x04MQTT\x05\x02\0\x3c\x03\x21\0\x01\0\x01a");
    let mut wire = Wire::open(ground.program.mqtt());
    wire.send(&connect);
    assert_eq!(wire.packet().0, 0x20);
    wire.subscribe("window", 2);
    let mut other = ground.v5("other");
    for number in 1..=3_u8 {
        other.send(&publish("window", &[number], 1, number.into()));
        assert_eq!(other.packet().0, 0x40);
    }
    let first = wire.message();
    assert_eq!(first.payload, [1]);
    for unknown in [2_u16, 7, 65_535] {
        wire.acknowledge(0x40, unknown);
        wire.acknowledge(0x70, unknown);
    }
    // PUBREC for what is not in flight: PUBREL 0x92 is its answer.
    wire.acknowledge(0x50, 9);
    let (kind, body) = wire.packet();
    assert_eq!(
        (kind, &body[..3]),
        (0x62, &[0, 9, 0x92][..]),
        "no second PUBLISH"
    );
    wire.send(&[0xC0, 0]);
    assert_eq!(wire.packet().0, 0xD0, "nothing more in the window");
    wire.acknowledge(0x40, first.id);
    assert_eq!(
        wire.message().payload,
        [2],
        "the window is one message still"
    );
    drop((wire, other));
    ground.end();
}

#[test]
fn row_23_text_that_is_no_utf_8() {
    let mut ground = Ground::new();
    for (bad, why) in [
        ("c328", "a sequence cut short"),
        ("eda080", "a surrogate [MQTT-1.5.4-1]"),
        ("c0af", "an overlong form"),
        ("00", "U+0000 [MQTT-1.5.4-2]"),
        ("61f09f98", "four bytes cut at the end"),
        ("f4908080", "beyond U+10FFFF"),
    ] {
        let bad = text(&hex(bad));
        let user_property = [&b"\x26"[..], &bad, &text(b"v")].concat();
        let length = [u8::try_from(user_property.len()).unwrap()];
        let reason = [&b"\x1f"[..], &bad].concat();
        let reason_length = [u8::try_from(reason.len()).unwrap()];
        for (first, body, place) in [
            (0x30, [&bad[..], b"\0x"].concat(), "Topic Name"),
            (
                0x82,
                [&b"\0\x01\0"[..], &bad, b"\0"].concat(),
                "Topic Filter",
            ),
            (0xA2, [&b"\0\x01\0"[..], &bad].concat(), "UNSUBSCRIBE"),
            (
                0x30,
                [&b"\0\x01t"[..], &length, &user_property, b"x"].concat(),
                "User Property",
            ),
            (
                0x40,
                [&b"\0\x01\0"[..], &reason_length, &reason].concat(),
                "Reason String",
            ),
        ] {
            let why = format!("{why} in {place}");
            ground.refused_bytes(&packet(first, &body), 0x81, &why);
        }
        let head = &b"\0\x04MQTT\x05"[..];
        let id = [head, b"\x02\0\x3c\0", &bad].concat();
        ground.connect_refused(&packet(0x10, &id), 0x81, why);
        let user = [head, b"\x82\0\x3c\0\0\x01a", &bad].concat();
        ground.connect_refused(&packet(0x10, &user), 0x81, why);
    }
    // U+FEFF and U+FFFF are text, and stay [MQTT-1.5.4-3].
    let mut wire = ground.v5("a");
    for topic in ["\u{feff}a", "a/\u{ffff}"] {
        wire.subscribe(topic, 0);
        wire.send(&publish(topic, b"x", 0, 0));
        assert_eq!(wire.message().topic, topic);
    }
    drop(wire);
    ground.end();
}

#[test]
fn row_24_lengths_that_are_none() {
    let mut ground = Ground::new();
    for (bytes, why) in [
        ("30 ffffffff7f", "five bytes"),
        ("30 ffffffff", "the fifth is not waited for"),
        ("30 80808000", "not the shortest form [MQTT-1.5.5-1]"),
        ("c0 8000", "not the shortest form"),
        (
            "30 07 0001 61 8000 7878",
            "properties' length in a longer form",
        ),
        ("30 05 0001 61 05 78", "properties longer than the packet"),
        (
            "30 08 0001 61 ffffffff 7f",
            "five bytes of properties' length",
        ),
    ] {
        ground.refused(bytes, 0x81, why);
    }
    ground.refused_in_3("30 ffffffff7f", "five bytes");
    ground.refused_in_3("30 80808000", "not the shortest form");
    ground.no_answer(&hex("10 ffffffff7f"), "five bytes in the first packet");
    ground.end();
}

#[test]
fn row_25_properties_that_may_not_be_there() {
    let mut ground = Ground::new();
    for (bytes, reason, why) in [
        (
            "30 09 0001 61 04 0100 0100 78",
            0x82,
            "Payload Format twice",
        ),
        ("30 07 0001 61 02 0000 78", 0x81, "identifier 0x00"),
        ("30 07 0001 61 02 0400 78", 0x81, "identifier 0x04"),
        ("30 07 0001 61 02 7f00 78", 0x81, "identifier 0x7F"),
        (
            "30 0a 0001 61 05 80808001 00 78",
            0x81,
            "an identifier of four bytes",
        ),
        (
            "30 0a 0001 61 05 11 00000001 78",
            0x81,
            "Session Expiry in PUBLISH",
        ),
        (
            "30 07 0001 61 02 0b01 78",
            0x82,
            "Subscription Identifier from a client [MQTT-3.3.4-6]",
        ),
        (
            "82 09 0001 02 0b00 0001 61 00",
            0x82,
            "Subscription Identifier 0",
        ),
        (
            "82 0b 0001 04 0b01 0b02 0001 61 00",
            0x82,
            "Subscription Identifier twice",
        ),
        (
            "30 07 0001 61 02 0800 78",
            0x81,
            "a Response Topic cut short",
        ),
        (
            "30 08 0001 61 03 080000 78",
            0x82,
            "a Response Topic of no bytes [MQTT-4.7.3-1]",
        ),
    ] {
        ground.refused(bytes, reason, why);
    }
    ground.end();
}

#[test]
fn row_37_wildcards_where_a_name_must_be() {
    let mut ground = Ground::new();
    let names = [&b"a/#"[..], b"a/+", b"#", b"+"];
    for name in names {
        let name = text(name);
        ground.refused_bytes(
            &packet(0x30, &[&name[..], b"\0x"].concat()),
            0x90,
            "Topic Name [MQTT-3.3.2-2]",
        );
        let length = [u8::try_from(name.len() + 1).unwrap()];
        let body = [&b"\0\x01t"[..], &length, b"\x08", &name, b"x"].concat();
        ground.refused_bytes(&packet(0x30, &body), 0x82, "Response Topic [MQTT-3.3.2-14]");
        let body = [
            &b"\0\x04MQTT\x05\x06\0\x3c\0\0\x01a\0"[..],
            &name,
            b"\0\x01x",
        ]
        .concat();
        ground.connect_refused(&packet(0x10, &body), 0x90, "Will Topic");
    }
    ground.end();
}

/// One packet of each kind that a Client may send, behind CONNECT.
fn stream_of_5() -> Vec<u8> {
    let packets = [
        hex(CON5),
        hex("82 0d 0001 02 0b01 0007 612f622f632f64 01"),
        publish("a/b/c/d", b"payload", 1, 2),
        publish("a/b/c/d", b"payload", 2, 3),
        hex("62 02 0003"),
        hex("c0 00"),
        hex("a2 0c 0004 00 0007 612f622f632f64"),
        hex("e0 02 04 00"),
    ];
    packets.concat()
}

/// As [`stream_of_5`], in 3.1.1 and in a Session that lasts: what a stream leaves undone is the next one's.
fn stream_of_4() -> Vec<u8> {
    let packets = [
        "10 0d 0004 4d515454 04 00 003c 0001 62",
        "82 0c 0001 0007 612f622f632f64 01",
        "32 12 0007 612f622f632f64 0002 7061796c6f6164",
        "34 12 0007 612f622f632f64 0003 7061796c6f6164",
        "62 02 0003",
        "c0 00",
        "a2 0b 0004 0007 612f622f632f64",
        "e0 00",
    ];
    packets.map(hex).concat()
}

#[test]
fn row_38_packets_cut_at_every_byte_and_bits_that_flip() {
    // What lasts shall be over soon.
    let mut ground = Ground::with(&["--set", "mqtt.session_expiry_max=1s"]);
    let address = ground.program.mqtt();
    let send = |bytes: &[u8], reset: bool| {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(bytes).ok();
        if reset {
            // Closed over unread answers: the kernel sends RST.
            drop(stream);
        } else {
            stream.shutdown(Shutdown::Write).ok();
            to_the_end(&mut stream);
        }
    };
    let streams = [stream_of_5(), stream_of_4()];
    for whole in &streams {
        for cut in 0..=whole.len() {
            send(&whole[..cut], false);
            send(&whole[..cut], true);
        }
        ground.goes_on();
    }
    // A fixed sequence of numbers (xorshift), so that a failure can be seen again. Of the million bits of the
    // row 18,000 flip here: the fuzzers' targets take the rest.
    let mut random = 0x2545_F491_4F6C_DD1D_u64;
    for round in 0..6_000 {
        let mut bytes = streams[round % 2].clone();
        for _ in 0..3 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let bit = usize::try_from(random % (bytes.len() as u64 * 8)).unwrap();
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        send(&bytes, false);
        if round % 100 == 0 {
            ground.goes_on();
        }
    }
    let lasting = "headwater_sessions{state=\"persistent\"}";
    until("nothing outlives its expiry", || {
        ground.program.metric(lasting) == 0
    });
    ground.end();
}
