//! Bytes that broke other brokers, and each rule's own violation: the Reason Code each must earn.

use bytes::{Bytes, BytesMut};
use headwater_mqtt_codec::Version::{V5, V31, V311};
use headwater_mqtt_codec::{
    ConnAckReason, DecodeError, Decoder, DisconnectReason, Packet, PacketType, PropertyId,
};

use crate::{PACKET_BYTES_MAX, client, connect_bytes, decode_one, hex, server};

fn first() -> Decoder {
    Decoder::new(PACKET_BYTES_MAX)
}

/// What the bytes are refused with. They need not be a whole packet.
#[track_caller]
fn refusal(mut decoder: Decoder, wire: &str) -> DecodeError {
    let mut input = hex(wire);
    let error = match decoder.decode(&mut input) {
        Ok(packet) => panic!("{wire} is taken: {packet:?}"),
        Err(error) => error,
    };
    assert_eq!(
        decoder.decode(&mut connect_bytes(V5)),
        Err(error.clone()),
        "an error is final"
    );
    error
}

/// The same, of what a client sends in MQTT 5.0 after its CONNECT.
#[track_caller]
fn code(wire: &str) -> u8 {
    refusal(server(V5), wire).reason_code()
}

#[test]
fn first_packet_must_be_connect() {
    // [MQTT-3.1.0-1]; the first byte is enough.
    for wire in [
        "30 80808074",
        "30",
        "c0 00",
        "f0 00",
        "e0",
        "00",
        "20 02 00 00",
    ] {
        let error = refusal(first(), wire);
        let first_byte = hex(wire)[0];
        assert_eq!(error, DecodeError::NotConnect { first_byte }, "{wire}");
        assert_eq!(error.reason_code(), 0x82);
        assert_eq!(error.connack_code_v3(), None);
    }
    assert_eq!(
        refusal(first(), "1f 0f 0004 'MQTT' 04 02 000a 0003 'cid'"),
        DecodeError::FixedHeaderFlags {
            packet: PacketType::Connect,
            flags: 0xf
        }
    );
}

#[test]
fn second_connect_is_refused() {
    // [MQTT-3.1.0-2]
    for version in [V31, V311, V5] {
        let mut decoder = server(version);
        let error = decoder.decode(&mut connect_bytes(version)).unwrap_err();
        assert_eq!(
            error,
            DecodeError::UnexpectedPacket {
                packet: PacketType::Connect
            }
        );
        assert_eq!(error.disconnect_reason(), DisconnectReason::ProtocolError);
    }
}

#[test]
fn packets_of_the_other_side_are_refused() {
    for wire in [
        "20 03 00 00 00",
        "90 04 0001 00 00",
        "b0 04 0001 00 00",
        "d0 00",
        "20",
    ] {
        assert_eq!(code(wire), 0x82, "{wire} from a client");
    }
    for wire in [
        "10",
        "82 07 0001 00 0001 'a' 00",
        "a2 06 0001 00 0001 'a'",
        "c0 00",
    ] {
        assert_eq!(
            refusal(client(V5), wire).reason_code(),
            0x82,
            "{wire} from a server"
        );
    }
    // Before 5.0 a server does not send it, and AUTH does not exist.
    assert_eq!(
        refusal(client(V311), "e0 00"),
        DecodeError::UnexpectedPacket {
            packet: PacketType::Disconnect
        }
    );
    for version in [V31, V311] {
        let error = refusal(server(version), "f0 00");
        assert_eq!(error, DecodeError::ReservedPacketType { first_byte: 0xf0 });
    }
    assert_eq!(code("00 00"), 0x81);
    assert_eq!(code("0f"), 0x81);
}

#[test]
fn fixed_header_flags_are_fixed() {
    // [MQTT-2.1.3-1], [MQTT-3.6.1-1], [MQTT-3.8.1-1], [MQTT-3.10.1-1], [MQTT-3.14.1-1], [MQTT-3.15.1-1]
    for wire in [
        "41 02 0001",
        "52",
        "60 02 0001",
        "63",
        "6a",
        "71",
        "80",
        "8a",
        "a0",
        "c1 00",
        "e1 00",
        "f1",
    ] {
        assert_eq!(code(wire), 0x81, "{wire}");
        assert!(
            matches!(
                refusal(server(V5), wire),
                DecodeError::FixedHeaderFlags { .. }
            ),
            "{wire}"
        );
    }
    for wire in ["21", "91", "b2", "d1"] {
        let error = refusal(client(V311), wire);
        assert!(
            matches!(error, DecodeError::FixedHeaderFlags { .. }),
            "{wire}: {error}"
        );
    }
}

#[test]
fn remaining_length_is_judged_before_the_packet_is_there() {
    // A fifth byte, as soon as the fourth asks for it.
    let field = "remaining length";
    assert_eq!(
        refusal(first(), "10 ffffffff"),
        DecodeError::IntegerTooLong { field }
    );
    assert_eq!(
        refusal(server(V5), "30 ffffffff7f"),
        DecodeError::IntegerTooLong { field }
    );
    // [MQTT-1.5.5-1]
    assert_eq!(
        refusal(server(V5), "30 80808000"),
        DecodeError::IntegerNotMinimal { field }
    );
    assert_eq!(refusal(server(V5), "c0 8000").reason_code(), 0x81);
    // Three bytes are not yet too few.
    assert_eq!(server(V5).decode(&mut hex("30 808080")), Ok(None));
}

#[test]
fn size_is_judged_by_the_fixed_header() {
    // 256 MB announced, nothing sent.
    let error = refusal(first(), "10 ffffff7f");
    let bytes = 268_435_455 + 5;
    assert_eq!(
        error,
        DecodeError::PacketTooLarge {
            bytes,
            bytes_max: PACKET_BYTES_MAX
        }
    );
    assert_eq!(error.connack_reason(), ConnAckReason::PacketTooLarge);
    assert_eq!(error.disconnect_reason(), DisconnectReason::PacketTooLarge);

    let mut decoder = server(V5);
    decoder.set_packet_bytes_max(9);
    assert_eq!(
        decoder.decode(&mut hex("30 07 0001")),
        Ok(None),
        "9 bytes in all are allowed"
    );
    let error = decoder.decode(&mut hex("30 08")).unwrap_err();
    assert_eq!(
        error,
        DecodeError::PacketTooLarge {
            bytes: 10,
            bytes_max: 9
        }
    );
    assert_eq!(error.reason_code(), 0x95);

    // These have no body: what they announce is not awaited.
    assert_eq!(code("c0 01"), 0x81);
    assert_eq!(refusal(client(V5), "d0 7f").reason_code(), 0x81);
}

#[test]
fn connect_names_a_protocol_we_speak() {
    let name = |wire: &str| {
        let mut decoder = first();
        let error = decoder.decode(&mut hex(wire)).unwrap_err();
        assert_eq!(
            error.connack_reason(),
            ConnAckReason::UnsupportedProtocolVersion,
            "{wire}"
        );
        assert_eq!(decoder.version(), None);
        error
    };
    // [MQTT-3.1.2-1]
    assert_eq!(
        name("10 0d 0004 'mqtt' 04 02 003c 0001 'a'"),
        DecodeError::ProtocolName
    );
    assert_eq!(
        name("10 0d 0004 ffffffff 04 02 003c 0001 'a'"),
        DecodeError::ProtocolName
    );
    assert_eq!(
        name("10 09 0000 04 02 003c 0001 'a'"),
        DecodeError::ProtocolName
    );
    // [MQTT-3.1.2-2]; MQTT 3.1.1 answers with return code 1.
    for (wire, level) in [
        ("10 0d 0004 'MQTT' 06 02 003c 0001 'a'", 6),
        ("10 0d 0004 'MQTT' 03 02 003c 0001 'a'", 3),
        ("10 0d 0004 'MQTT' 85 02 003c 0001 'a'", 0x85),
        ("10 0f 0006 'MQIsdp' 04 02 003c 0001 'a'", 4),
    ] {
        let error = name(wire);
        assert_eq!(error, DecodeError::ProtocolLevel { level });
        assert_eq!(error.connack_code_v3(), Some(1));
    }
}

#[test]
fn version_is_known_even_if_the_rest_of_connect_is_refused() {
    for (wire, version, flags) in [
        // [MQTT-3.1.2-3]
        ("10 0d 0004 'MQTT' 04 03 003c 0001 'a'", V311, 3),
        ("10 0e 0004 'MQTT' 05 03 003c 00 0001 'a'", V5, 3),
        // A password without a user name.
        ("10 0f 0006 'MQIsdp' 03 42 003c 0001 'a'", V31, 0x42),
    ] {
        let mut decoder = first();
        let error = decoder.decode(&mut hex(wire)).unwrap_err();
        assert_eq!(error, DecodeError::ConnectFlags { flags });
        assert_eq!(decoder.version(), Some(version));
        assert_eq!(error.connack_code_v3(), None);
    }
}

#[test]
fn connect_flags_must_agree() {
    for (flags, expected) in [
        ("08", DecodeError::ConnectFlags { flags: 0x08 }), // [MQTT-3.1.2-11]
        ("20", DecodeError::ConnectFlags { flags: 0x20 }), // [MQTT-3.1.2-13]
        ("1e", DecodeError::QoS),                          // [MQTT-3.1.2-12]
    ] {
        let wire = format!("10 13 0004 'MQTT' 05 {flags} 003c 00 0001 'a' 00 0001 'w' 0000");
        let error = refusal(first(), &wire);
        assert_eq!(error, expected, "{flags}");
        assert_eq!(error.connack_reason(), ConnAckReason::MalformedPacket);
    }
    // MQTT 3.1.1, [MQTT-3.1.2-22]
    assert_eq!(
        refusal(first(), "10 10 0004 'MQTT' 04 42 003c 0001 'a' 0001 'p'"),
        DecodeError::ConnectFlags { flags: 0x42 }
    );
}

#[test]
fn connect_fields_that_are_missing_or_too_many() {
    for wire in [
        // MQTT 5.0: fields that their flags announce [MQTT-3.1.2-9], [MQTT-3.1.2-17],
        // [MQTT-3.1.2-19].
        "10 0b 0004 'MQTT' 05 02 003c 00", // [MQTT-3.1.3-3]
        "10 0e 0004 'MQTT' 05 06 003c 00 0001 'a'",
        "10 0f 0004 'MQTT' 05 06 003c 00 0001 'a' 00", // no Will Topic
        "10 12 0004 'MQTT' 05 06 003c 00 0001 'a' 00 0001 'w'", // no Will Payload
        "10 14 0004 'MQTT' 05 06 003c 00 0001 'a' 0001 'w' 0001 'x'", // no Will Properties
        "10 0e 0004 'MQTT' 05 82 003c 00 0001 'a'",
        "10 11 0004 'MQTT' 05 c2 003c 00 0001 'a' 0001 'u'",
        "10 0e 0004 'MQTT' 05 42 003c 00 0001 'a'",
        // And fields that no flag announces [MQTT-3.1.2-16], [MQTT-3.1.2-18].
        "10 11 0004 'MQTT' 05 02 003c 00 0001 'a' 0001 'u'",
        "10 14 0004 'MQTT' 05 82 003c 00 0001 'a' 0001 'u' 0001 'p'",
        // The same before 5.0.
        "10 00",
        "10 0a 0004 'MQTT' 04 02 003c",
        "10 0f 0004 'MQTT' 04 02 003c 0050 'abc'", // an identifier of 80 bytes
        "10 0d 0004 'MQTT' 04 82 003c 0001 'a'",
        "10 10 0004 'MQTT' 04 c2 003c 0001 'a' 0001 'u'",
        "10 0d 0004 'MQTT' 04 06 003c 0001 'a'",
        "10 10 0004 'MQTT' 04 02 003c 0001 'a' 0001 'u'",
        "10 13 0004 'MQTT' 04 82 003c 0001 'a' 0001 'u' 0001 'p'",
        "10 0e 0004 'MQTT' 05 02 003c 40 0001 'a'", // a Property Length past the end
        "10 0f 0004 'MQTT' 05 02 003c 8000 0001 'a'", // and one not minimal
        "10 12 0004 'MQTT' 05 02 003c ffffffff7f 0001 'a'",
        "10 0b 0004 'MQTT' 05 02 003c 80",
    ] {
        assert_eq!(refusal(first(), wire).reason_code(), 0x81, "{wire}");
    }
    assert_eq!(
        refusal(first(), "10 10 0004 'MQTT' 04 02 003c 0001 'a' 0001 'u'"),
        DecodeError::LeftOver {
            packet: PacketType::Connect,
            bytes: 3
        }
    );
}

/// CONNECT of 5.0 with these properties.
fn connect_with(properties: &str) -> String {
    let length = hex(properties).len();
    assert!(length < 0x60);
    format!(
        "10 {:02x} 0004 'MQTT' 05 02 003c {length:02x} {properties} 0001 'a'",
        14 + length
    )
}

/// CONNECT of 5.0 whose Will has these properties.
fn will_with(properties: &str) -> String {
    let length = hex(properties).len();
    format!(
        "10 {:02x} 0004 'MQTT' 05 06 003c 00 0001 'a' {length:02x} {properties} 0001 'w' 0000",
        20 + length
    )
}

#[test]
fn connect_properties() {
    for (properties, code, why) in [
        ("00", 0x81, "no such identifier"),
        ("04", 0x81, "no such identifier"),
        ("7f", 0x81, "no such identifier"),
        ("ffffff7f", 0x81, "an identifier of four bytes"),
        ("9100 00000001", 0x81, "an identifier not minimal"),
        (
            "11 00000001 11 00000001",
            0x82,
            "3.1.2.11.2: more than once",
        ),
        ("21 0001 21 0001", 0x82, "3.1.2.11.3: more than once"),
        ("21 0000", 0x82, "3.1.2.11.3: Receive Maximum zero"),
        ("27 00000000", 0x82, "3.1.2.11.4: Maximum Packet Size zero"),
        ("19 02", 0x82, "3.1.2.11.6: neither 0 nor 1"),
        ("17 02", 0x82, "3.1.2.11.7: neither 0 nor 1"),
        ("16 0001 'd'", 0x82, "3.1.2.11.10: data without a method"),
        (
            "15 0001 'm' 15 0001 'm'",
            0x82,
            "3.1.2.11.9: more than once",
        ),
        ("23 0001", 0x81, "2.2.2.2: Topic Alias belongs to PUBLISH"),
        (
            "18 00000001",
            0x81,
            "2.2.2.2: Will Delay Interval belongs to the Will",
        ),
        ("11 000001", 0x81, "cut"),
        ("26 0001 'k'", 0x81, "cut"),
        ("26 0001 'k' 0002 c328", 0x81, "[MQTT-1.5.7-1]"),
    ] {
        let wire = connect_with(properties);
        assert_eq!(
            refusal(first(), &wire).reason_code(),
            code,
            "{properties}: {why}"
        );
    }
    assert!(decode_one(first(), &hex(&connect_with("11 ffffffff 21 ffff 22 0000"))).is_ok());
}

#[test]
fn will_properties() {
    for (properties, code, why) in [
        (
            "11 00000001",
            0x81,
            "2.2.2.2: Session Expiry Interval belongs to CONNECT",
        ),
        ("0b 01", 0x81, "2.2.2.2: Subscription Identifier"),
        ("23 0001", 0x81, "2.2.2.2: Topic Alias"),
        ("18 00000001 18 00000001", 0x82, "3.1.3.2.2: more than once"),
        ("01 02", 0x82, "3.1.3.2.3: neither 0 nor 1"),
        ("08 0003 'a/#'", 0x82, "[MQTT-3.3.2-14]"),
        ("08 0000", 0x82, "[MQTT-4.7.3-1]"),
    ] {
        let wire = will_with(properties);
        assert_eq!(
            refusal(first(), &wire).reason_code(),
            code,
            "{properties}: {why}"
        );
    }
    assert!(decode_one(first(), &hex(&will_with("18 ffffffff"))).is_ok());
    for topic in ["0003 'a/#'", "0001 '+'", "0000"] {
        let bytes = 17 + hex(topic).len();
        let wire = format!("10 {bytes:02x} 0004 'MQTT' 05 06 003c 00 0001 'a' 00 {topic} 0000");
        assert_eq!(refusal(first(), &wire), DecodeError::TopicName, "{topic}");
    }
}

#[test]
fn publish_that_is_cut_or_contradicts_itself() {
    for (wire, code, why) in [
        ("30 03 0000 00", 0x82, "3.3.2.1: no topic and no alias"),
        ("32 03 0001 'a'", 0x81, "ends after the topic"),
        ("32 04 0001 'a' 00", 0x81, "ends within the identifier"),
        (
            "32 05 0001 'a' 0001",
            0x81,
            "ends before the Property Length",
        ),
        ("30 03 0050 'a'", 0x81, "topic past the end"),
        ("30 03 0002 'a'", 0x81, "topic one byte past the end"),
        ("30 01 00", 0x81, "half a length"),
        ("30 00", 0x81, "nothing"),
        ("36 06 0001 'a' 0001 00", 0x81, "[MQTT-3.3.1-4]"),
        ("38", 0x81, "[MQTT-3.3.1-2]"),
        ("32 06 0001 'a' 0000 00", 0x82, "[MQTT-2.2.1-3]"),
        ("34 06 0001 'a' 0000 00", 0x82, "[MQTT-2.2.1-3]"),
        ("30 06 0003 'a/#' 00", 0x90, "[MQTT-3.3.2-2]"),
        ("30 06 0003 '+/a' 00", 0x90, "[MQTT-3.3.2-2]"),
        ("30 05 0001 'a' 40 00", 0x81, "Property Length past the end"),
        (
            "30 06 0001 'a' 8000 00",
            0x81,
            "Property Length not minimal",
        ),
        ("30 07 0001 'a' 03 23 0000", 0x94, "[MQTT-3.3.2-8]"),
        (
            "30 0a 0001 'a' 06 23 0001 23 0001",
            0x82,
            "3.3.2.3.4: more than once",
        ),
        ("30 06 0001 'a' 02 0b 01", 0x82, "[MQTT-3.3.4-6]"),
        ("30 06 0001 'a' 02 01 02", 0x82, "3.3.2.3.2"),
        ("30 0a 0001 'a' 06 08 0003 'a/#'", 0x82, "[MQTT-3.3.2-14]"),
        (
            "30 09 0001 'a' 05 11 00000001",
            0x81,
            "2.2.2.2: belongs to CONNECT",
        ),
    ] {
        assert_eq!(self::code(wire), code, "{wire}: {why}");
    }
    // MQTT 3.1.1: no alias could stand in.
    assert_eq!(refusal(server(V311), "30 02 0000"), DecodeError::NoTopic);
    assert_eq!(refusal(server(V311), "38"), DecodeError::DupAtMostOnce);
    // MQTT 3.1 does not forbid DUP at QoS 0.
    assert!(decode_one(server(V31), &hex("38 03 0001 'a'")).is_ok());
    // From a server it may, but not zero (3.8.2.1.2).
    let error = refusal(client(V5), "30 06 0001 'a' 02 0b 00");
    let property = PropertyId::SubscriptionIdentifier;
    assert_eq!(error, DecodeError::PropertyValue { property, value: 0 });
    assert_eq!(error.reason_code(), 0x82);
}

#[test]
fn strings_must_be_utf8_without_null() {
    // [MQTT-1.5.4-1], [MQTT-1.5.4-2]
    for bad in [
        "c328", "eda080", "edbfbf", "c0af", "00", "f09f8c", "f4908080", "80", "61 00 61",
    ] {
        let n = hex(bad).len();
        let at = |bytes: usize| format!("{:02x}", bytes + n);
        for (wire, decoder) in [
            // Client Identifier [MQTT-3.1.3-4], User Name [MQTT-3.1.3-12], Will Topic
            // [MQTT-3.1.3-11]; in MQTT 5.0, and before it.
            (
                format!("10 {} 0004 'MQTT' 05 02 003c 00 {n:04x} {bad}", at(13)),
                first(),
            ),
            (
                format!(
                    "10 {} 0004 'MQTT' 05 82 003c 00 0001 'a' {n:04x} {bad}",
                    at(16)
                ),
                first(),
            ),
            (
                format!(
                    "10 {} 0004 'MQTT' 05 06 003c 00 0001 'a' 00 {n:04x} {bad} 0000",
                    at(19)
                ),
                first(),
            ),
            (
                format!("10 {} 0004 'MQTT' 04 02 003c {n:04x} {bad}", at(12)),
                first(),
            ),
            (
                format!(
                    "10 {} 0004 'MQTT' 04 82 003c 0001 'a' {n:04x} {bad}",
                    at(15)
                ),
                first(),
            ),
            (
                format!(
                    "10 {} 0004 'MQTT' 04 06 003c 0001 'a' {n:04x} {bad} 0000",
                    at(17)
                ),
                first(),
            ),
            // Topic Name [MQTT-3.3.2-1] and Topic Filters [MQTT-3.8.3-1], [MQTT-3.10.3-1].
            (format!("30 {} {n:04x} {bad} 00", at(3)), server(V5)),
            (format!("82 {} 0001 00 {n:04x} {bad} 00", at(6)), server(V5)),
            (format!("a2 {} 0001 00 {n:04x} {bad}", at(5)), server(V5)),
            (
                format!("30 {} 0001 'a' {} 26 {n:04x} {bad} 0000", at(9), at(5)),
                server(V5),
            ),
            // Content Type [MQTT-3.3.2-19] and Response Topic [MQTT-3.3.2-13].
            (
                format!("30 {} 0001 'a' {} 03 {n:04x} {bad}", at(7), at(3)),
                server(V5),
            ),
            (
                format!("30 {} 0001 'a' {} 08 {n:04x} {bad}", at(7), at(3)),
                server(V5),
            ),
            (
                format!("e0 {} 00 {} 1f {n:04x} {bad}", at(5), at(3)),
                server(V5),
            ),
        ] {
            let error = refusal(decoder, &wire);
            assert!(
                matches!(error, DecodeError::Field { .. }),
                "{wire}: {error}"
            );
            assert_eq!(error.reason_code(), 0x81);
        }
    }
}

#[test]
fn identifier_zero_is_refused() {
    // [MQTT-2.2.1-3]
    for wire in [
        "82 07 0000 00 0001 'a' 00",
        "a2 06 0000 00 0001 'a'",
        "40 02 0000",
        "50 02 0000",
        "62 02 0000",
        "70 02 0000",
    ] {
        assert_eq!(
            refusal(server(V5), wire),
            DecodeError::ZeroPacketId,
            "{wire}"
        );
    }
}

#[test]
fn acknowledgement_that_is_cut_too_long_or_strange() {
    for wire in [
        "40 00",
        "40 01 00",
        "62 05 0001 00 01 1f",
        "40 05 0001 00 00 00",
        "70 04 0001 00 80",
    ] {
        assert_eq!(code(wire), 0x81, "{wire}");
    }
    // [MQTT-3.4.2-1], [MQTT-3.5.2-1], [MQTT-3.6.2-1], [MQTT-3.7.2-1]
    for (wire, packet) in [
        ("40 03 0001 92", PacketType::PubAck),
        ("50 03 0001 01", PacketType::PubRec),
        ("62 03 0001 10", PacketType::PubRel),
        ("70 03 0001 80", PacketType::PubComp),
    ] {
        let code = hex(wire)[4];
        assert_eq!(
            refusal(server(V5), wire),
            DecodeError::ReasonCode { packet, code },
            "{wire}"
        );
    }
    assert_eq!(
        code("40 06 0001 00 02 01 00"),
        0x81,
        "another packet's property"
    );
    assert_eq!(
        code("40 0a 0001 00 06 1f 0000 1f 0000"),
        0x82,
        "a second Reason String"
    );
    let error = refusal(server(V311), "40 03 0001 00");
    assert_eq!(
        error,
        DecodeError::LeftOver {
            packet: PacketType::PubAck,
            bytes: 1
        }
    );
}

#[test]
fn subscribe_that_is_cut_or_empty() {
    for (wire, expected, why) in [
        ("82 06 0001 00 0001 'a'", 0x81, "no options byte"),
        ("82 05 0001 00 0000", 0x81, "an empty filter and no options"),
        ("82 06 0001 00 0000 00", 0x8f, "[MQTT-4.7.3-1]"),
        ("82 03 0001 00", 0x82, "[MQTT-3.8.3-2]"),
        ("82 07 0001 00 0001 'a' 03", 0x82, "3.8.3.1: QoS 3"),
        (
            "82 07 0001 00 0001 'a' 30",
            0x82,
            "3.8.3.1: Retain Handling 3",
        ),
        ("82 07 0001 00 0001 'a' 40", 0x81, "[MQTT-3.8.3-5]"),
        ("82 07 0001 00 0001 'a' 80", 0x81, "[MQTT-3.8.3-5]"),
        (
            "82 09 0001 02 0b 00 0001 'a' 00",
            0x82,
            "3.8.2.1.2: identifier zero",
        ),
        (
            "82 0b 0001 04 0b 01 0b 02 0001 'a' 00",
            0x82,
            "3.8.2.1.2: more than once",
        ),
        (
            "82 0d 0001 06 0b ffffffff7f 0001 'a' 00",
            0x81,
            "five bytes",
        ),
        (
            "82 0a 0001 03 1f 0000 0001 'a' 00",
            0x81,
            "2.2.2.2: no Reason String here",
        ),
        ("82 08 0001 00 0002 '#a' 00", 0x8f, "[MQTT-4.7.1-1]"),
        ("82 08 0001 00 0002 'a+' 00", 0x8f, "[MQTT-4.7.1-2]"),
    ] {
        assert_eq!(code(wire), expected, "{wire}: {why}");
    }
    for version in [V31, V311] {
        // MQTT 3.1.1, [MQTT-3.8.3-3], [MQTT-3.8.3-4]
        for wire in [
            "82 02 0001",
            "82 06 0001 0001 'a' 04",
            "82 06 0001 0001 'a' 03",
        ] {
            refusal(server(version), wire);
        }
    }
    assert_eq!(code("a2 03 0001 00"), 0x82, "[MQTT-3.10.3-2]");
    assert_eq!(code("a2 05 0001 00 0000"), 0x8f, "[MQTT-4.7.3-1]");
    assert_eq!(
        code("a2 07 0001 02 0b 01 0000"),
        0x81,
        "2.2.2.2: no identifier here"
    );
}

#[test]
fn shared_subscriptions_are_well_formed() {
    let subscribe = |filter: &str, options: &str| {
        format!(
            "82 {:02x} 0001 00 {:04x} '{filter}' {options}",
            6 + filter.len(),
            filter.len()
        )
    };
    // [MQTT-4.8.2-1], [MQTT-4.8.2-2]
    for filter in [
        "$share//x",
        "$share/g",
        "$share/g/",
        "$share/g+/x",
        "$share/#",
        "$share/",
        "$share/g/a#",
    ] {
        let error = refusal(server(V5), &subscribe(filter, "00"));
        assert_eq!(error, DecodeError::TopicFilter, "{filter}");
        assert_eq!(
            error.disconnect_reason(),
            DisconnectReason::TopicFilterInvalid
        );
    }
    assert!(decode_one(server(V5), &hex(&subscribe("$SHARE/g", "00"))).is_ok());
    // [MQTT-3.8.3-4]
    let error = refusal(server(V5), &subscribe("$share/g/x", "04"));
    assert_eq!(error, DecodeError::NoLocalShared);
    assert_eq!(error.reason_code(), 0x82);
    assert!(decode_one(server(V5), &hex(&subscribe("g/x", "04"))).is_ok());
    // Before 5.0 it is a level like any other.
    assert!(decode_one(server(V311), &hex("82 0e 0001 0009 '$share//x' 00")).is_ok());
}

#[test]
fn disconnect_that_is_cut() {
    for (wire, expected, why) in [
        ("e0 02 00 81", 0x81, "a Property Length that is cut"),
        ("e0 02 00 05", 0x81, "properties that are cut"),
        ("e1 00", 0x81, "[MQTT-3.14.1-1]"),
        ("e0 01 01", 0x81, "[MQTT-3.14.2-1]"),
        ("e0 03 00 00 00", 0x81, "left over"),
        (
            "e0 0c 00 0a 11 00000001 11 00000001",
            0x82,
            "3.14.2.2.2: more than once",
        ),
    ] {
        assert_eq!(code(wire), expected, "{wire}: {why}");
    }
    // A Session Expiry Interval is not a Server's to change, 3.14.2.2.2.
    assert_eq!(
        refusal(client(V5), "e0 07 00 05 11 00000001").reason_code(),
        0x82
    );
    assert_eq!(refusal(server(V311), "e0 01 00").reason_code(), 0x81);
}

#[test]
fn auth_needs_a_method() {
    for wire in ["f0 00", "f0 02 18 00", "f0 06 18 04 16 0001 'd'"] {
        assert_eq!(
            refusal(server(V5), wire),
            DecodeError::NoAuthenticationMethod,
            "{wire}"
        );
        assert_eq!(code(wire), 0x82);
    }
    // [MQTT-3.15.2-1]
    assert_eq!(code("f0 06 17 04 15 0001 'm'"), 0x81);
    assert_eq!(code("f0 01 18"), 0x81, "no Property Length");
}

#[test]
fn connack_suback_unsuback_are_checked_by_a_client() {
    for (version, wire, expected) in [
        (V5, "20 03 02 00 00", 0x81),             // 3.2.2.1: reserved flags
        (V311, "20 02 02 00", 0x81),              // MQTT 3.1.1, 3.2.2.1
        (V5, "20 03 00 01 00", 0x81),             // table 3-1
        (V311, "20 02 00 06", 0x81),              // MQTT 3.1.1, table 3.1
        (V311, "20 03 00 00 00", 0x81),           // left over
        (V5, "20 05 00 00 02 24 02", 0x82),       // 3.2.2.3.4: Maximum QoS 2
        (V5, "20 06 00 00 03 21 0000", 0x82),     // 3.2.2.3.3
        (V5, "20 08 00 00 05 27 00000000", 0x82), // 3.2.2.3.6
        (V5, "20 05 00 00 02 25 02", 0x82),       // 3.2.2.3.5
        (V5, "20 05 00 00 02 17 00", 0x81),       // 2.2.2.2
        (V5, "90 03 0001 00", 0x82),              // no Reason Code
        (V5, "90 04 0001 00 03", 0x81),           // table 3-8
        (V311, "90 03 0001 87", 0x81),            // MQTT 3.1.1, [MQTT-3.9.3-2]
        (V5, "b0 04 0001 00 01", 0x81),           // table 3-9
        (V311, "b0 03 0001 00", 0x81),            // left over
    ] {
        assert_eq!(
            refusal(client(version), wire).reason_code(),
            expected,
            "{version}: {wire}"
        );
    }
}

#[test]
fn topics_of_32767_levels_are_read_and_matched() {
    use headwater_mqtt_codec::topic;
    let levels = "/".repeat(65_535);
    assert!(topic::validate_name(&levels) && topic::validate_filter(&levels));
    assert!(topic::matches(&levels, &levels));
    let plus = "+/".repeat(32_767) + "+";
    assert!(topic::validate_filter(&plus));
    assert!(topic::matches(&plus, &"a/".repeat(32_767)));
    assert!(!topic::matches(&plus, &levels));
    let mut wire = BytesMut::from(&b"\x30\x81\x80\x04\xff\xff"[..]);
    wire.extend_from_slice(levels.as_bytes());
    let Ok(Packet::Publish(packet)) = decode_one(server(V311), &wire.freeze()) else {
        panic!("no PUBLISH")
    };
    assert_eq!(packet.topic.len(), 65_535);
}

#[test]
fn a_cut_at_every_byte_is_waited_for_not_judged() {
    // Row 38: a packet that is only not there yet is no error.
    for (version, wire) in [
        (V5, "32 11 0003 'a/b' 000a 07 26 0001 'k' 0001 'v' 'hi'"),
        (V311, "82 0c 000a 0003 'a/b' 01 0001 '#' 02"),
    ] {
        let whole = hex(wire);
        for end in 0..whole.len() {
            let mut input: Bytes = whole.slice(..end);
            assert_eq!(
                server(version).decode(&mut input),
                Ok(None),
                "{end} bytes of {wire}"
            );
            assert_eq!(input.len(), end, "left alone");
        }
        assert!(decode_one(server(version), &whole).is_ok());
    }
}
