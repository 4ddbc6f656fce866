//! Each packet in each version, against bytes written from the specifications.

use std::num::{NonZeroU16, NonZeroU32};

use bytes::Bytes;
use headwater_mqtt_codec::Version::{V5, V31, V311};
use headwater_mqtt_codec::{
    AckProperties, Auth, AuthReason, Authentication, Binary, ConnAck, ConnAckProperties,
    ConnAckReason, Connect, ConnectProperties, Delivery, Disconnect, DisconnectReason, Packet,
    PacketId, PayloadFormat, PubAck, PubAckReason, PubComp, PubCompReason, PubRec, PubRecReason,
    PubRel, PubRelReason, Publish, PublishProperties, QoS, RetainHandling, SubAck, SubAckReason,
    Subscribe, Subscription, SubscriptionId, SubscriptionOptions, UnsubAck, UnsubAckReason,
    Unsubscribe, UserProperties, Version, Will, WillProperties,
};

use crate::{client, decode_one, encode_one, hex, server, text};

fn id(id: u16) -> PacketId {
    PacketId::new(id).unwrap()
}

fn binary(bytes: &'static [u8]) -> Binary {
    Bytes::from_static(bytes).try_into().unwrap()
}

fn user(pairs: &[(&str, &str)]) -> UserProperties {
    pairs
        .iter()
        .map(|(name, value)| (text(name), text(value)))
        .collect()
}

fn connect(version: Version) -> Connect {
    Connect {
        version,
        bridge: false,
        clean_start: true,
        keep_alive: 60,
        client_id: text("a"),
        will: None,
        user_name: None,
        password: None,
        properties: ConnectProperties::default(),
    }
}

fn publish(delivery: Delivery, topic: &str, payload: &'static [u8]) -> Publish {
    Publish {
        delivery,
        retain: false,
        topic: text(topic),
        topic_alias: None,
        subscription_ids: Vec::new(),
        properties: None,
        payload: Bytes::from_static(payload),
    }
}

fn ack_properties() -> Option<Box<AckProperties>> {
    Some(Box::new(AckProperties {
        reason_string: Some(text("why")),
        user_properties: user(&[("k", "v")]),
    }))
}

/// Reason String "why" and User Property k=v, with their length of 13.
const ACK_PROPERTIES: &str = "0d 1f 0003 'why' 26 0001 'k' 0001 'v'";

/// Holds in both directions that these bytes are this packet.
#[track_caller]
fn both_ways(decoder: headwater_mqtt_codec::Decoder, version: Version, wire: &str, packet: Packet) {
    let bytes = hex(wire);
    assert_eq!(
        decode_one(decoder, &bytes),
        Ok(packet.clone()),
        "{version}: {wire}"
    );
    let encoded = encode_one(&packet, version);
    assert_eq!(encoded, bytes, "{version}: {encoded:02x?} is not {wire}");
}

/// The same, as a server reads it.
#[track_caller]
fn from_client(version: Version, wire: &str, packet: Packet) {
    both_ways(server(version), version, wire, packet);
}

/// The same, as a client reads it.
#[track_caller]
fn from_server(version: Version, wire: &str, packet: Packet) {
    both_ways(client(version), version, wire, packet);
}

#[track_caller]
fn connects(version: Version, wire: &str, packet: Connect) {
    let decoder = headwater_mqtt_codec::Decoder::new(crate::PACKET_BYTES_MAX);
    both_ways(decoder, version, wire, Packet::Connect(Box::new(packet)));
}

#[test]
fn connect_of_3_1_has_bits_that_are_not_used() {
    // MQTT 3.1, 3.1: DUP, QoS and RETAIN of the fixed header, and bit 0 of the flags.
    for wire in [
        "14 0f 0006 'MQIsdp' 03 02 003c 0001 'a'",
        "1f 0f 0006 'MQIsdp' 03 02 003c 0001 'a'",
        "10 0f 0006 'MQIsdp' 03 03 003c 0001 'a'",
    ] {
        let decoder = headwater_mqtt_codec::Decoder::new(crate::PACKET_BYTES_MAX);
        let packet = Packet::Connect(Box::new(connect(V31)));
        assert_eq!(decode_one(decoder, &hex(wire)), Ok(packet), "{wire}");
    }
}

#[test]
fn connect_with_client_identifier_only() {
    connects(V31, "10 0f 0006 'MQIsdp' 03 02 003c 0001 'a'", connect(V31));
    connects(V311, "10 0d 0004 'MQTT' 04 02 003c 0001 'a'", connect(V311));
    connects(V5, "10 0e 0004 'MQTT' 05 02 003c 00 0001 'a'", connect(V5));
    // Zero bytes are the broker's to judge.
    let anonymous = Connect {
        client_id: text(""),
        ..connect(V5)
    };
    connects(V5, "10 0d 0004 'MQTT' 05 02 003c 00 0000", anonymous);
}

#[test]
fn connect_of_a_bridge() {
    connects(
        V31,
        "10 0f 0006 'MQIsdp' 83 02 003c 0001 'a'",
        Connect {
            bridge: true,
            ..connect(V31)
        },
    );
    connects(
        V311,
        "10 0d 0004 'MQTT' 84 02 003c 0001 'a'",
        Connect {
            bridge: true,
            ..connect(V311)
        },
    );
}

#[test]
fn connect_with_will_user_name_and_password() {
    let full = |version| Connect {
        clean_start: false,
        will: Some(Will {
            topic: text("w"),
            payload: binary(b"\0\xff"),
            qos: QoS::ExactlyOnce,
            retain: true,
            properties: None,
        }),
        user_name: Some(text("u")),
        password: Some(binary(b"\0p")),
        ..connect(version)
    };
    // Flags: user name, password, will retain, will QoS 2, will. The order is [MQTT-3.1.3-1].
    let v31 = "10 1d 0006 'MQIsdp' 03 f4 003c 0001 'a' 0001 'w' 0002 00ff 0001 'u' 0002 00 'p'";
    connects(V31, v31, full(V31));
    let v311 = "10 1b 0004 'MQTT' 04 f4 003c 0001 'a' 0001 'w' 0002 00ff 0001 'u' 0002 00 'p'";
    connects(V311, v311, full(V311));
    let v5 = "10 1d 0004 'MQTT' 05 f4 003c 00 0001 'a' 00 0001 'w' 0002 00ff 0001 'u' 0002 00 'p'";
    connects(V5, v5, full(V5));
}

#[test]
fn connect_v5_with_password_and_no_user_name() {
    let packet = Connect {
        password: Some(binary(b"p")),
        ..connect(V5)
    };
    connects(
        V5,
        "10 11 0004 'MQTT' 05 42 003c 00 0001 'a' 0001 'p'",
        packet,
    );
}

#[test]
fn connect_with_every_property() {
    let packet = Connect {
        properties: ConnectProperties {
            session_expiry_interval: 3600,
            receive_maximum: NonZeroU16::new(10).unwrap(),
            maximum_packet_size: NonZeroU32::new(65_536),
            topic_alias_maximum: 5,
            request_response_information: true,
            request_problem_information: false,
            user_properties: user(&[("k", "v"), ("k", "w")]),
            authentication: Some(Authentication {
                method: text("m"),
                data: Some(binary(b"d")),
            }),
        },
        will: Some(Will {
            topic: text("w"),
            payload: binary(b""),
            qos: QoS::AtMostOnce,
            retain: false,
            properties: Some(Box::new(WillProperties {
                delay_interval: 1,
                payload_format: Some(PayloadFormat::Utf8),
                message_expiry_interval: Some(2),
                content_type: Some(text("c")),
                response_topic: Some(text("r")),
                correlation_data: Some(binary(b"x")),
                user_properties: user(&[("k", "v")]),
            })),
        }),
        ..connect(V5)
    };
    let wire = "10 5d 0004 'MQTT' 05 06 003c \
        2a 11 00000e10 21 000a 27 00010000 22 0005 19 01 17 00 15 0001 'm' 16 0001 'd' \
           26 0001 'k' 0001 'v' 26 0001 'k' 0001 'w' \
        0001 'a' \
        1f 18 00000001 01 01 02 00000002 03 0001 'c' 08 0001 'r' 09 0001 'x' 26 0001 'k' 0001 'v' \
        0001 'w' 0000";
    connects(V5, wire, packet);
}

#[test]
fn connack() {
    let accepted = |session_present| {
        Packet::ConnAck(Box::new(ConnAck {
            session_present,
            reason: ConnAckReason::Success,
            properties: ConnAckProperties::default(),
        }))
    };
    from_server(V31, "20 02 00 00", accepted(false));
    from_server(V311, "20 02 01 00", accepted(true));
    from_server(V5, "20 03 01 00 00", accepted(true));
    // The byte means nothing in 3.1.
    assert_eq!(
        decode_one(client(V31), &hex("20 02 01 00")),
        Ok(accepted(false))
    );
    assert_eq!(&encode_one(&accepted(true), V31)[..], b"\x20\x02\0\0");
}

#[test]
fn connack_return_codes_before_v5() {
    for (code, reason) in [
        ("00", ConnAckReason::Success),
        ("01", ConnAckReason::UnsupportedProtocolVersion),
        ("02", ConnAckReason::ClientIdentifierNotValid),
        ("03", ConnAckReason::ServerUnavailable),
        ("04", ConnAckReason::BadUserNameOrPassword),
        ("05", ConnAckReason::NotAuthorized),
    ] {
        let properties = ConnAckProperties::default();
        let packet = ConnAck {
            session_present: false,
            reason,
            properties,
        };
        let packet = Packet::ConnAck(Box::new(packet));
        from_server(V31, &format!("20 02 00 {code}"), packet.clone());
        from_server(V311, &format!("20 02 00 {code}"), packet);
    }
    for reason in ConnAckReason::ALL {
        assert_eq!(
            reason.return_code_v3() == 0,
            *reason == ConnAckReason::Success
        );
        assert!(reason.return_code_v3() <= 5, "{reason:?}");
    }
}

#[test]
fn connack_with_every_property() {
    let packet = ConnAck {
        session_present: false,
        reason: ConnAckReason::ServerMoved,
        properties: ConnAckProperties {
            session_expiry_interval: Some(0),
            receive_maximum: NonZeroU16::new(1000).unwrap(),
            maximum_qos: QoS::AtLeastOnce,
            retain_available: false,
            maximum_packet_size: NonZeroU32::new(1 << 20),
            assigned_client_identifier: Some(text("i")),
            topic_alias_maximum: 16,
            reason_string: Some(text("r")),
            user_properties: user(&[("k", "v")]),
            wildcard_subscription_available: false,
            subscription_identifiers_available: false,
            shared_subscription_available: false,
            server_keep_alive: Some(300),
            response_information: Some(text("p")),
            server_reference: Some(text("s")),
            authentication: Some(Authentication {
                method: text("m"),
                data: None,
            }),
        },
    };
    let wire = "20 3b 00 9d \
        38 11 00000000 21 03e8 24 01 27 00100000 12 0001 'i' 22 0010 25 00 28 00 29 00 2a 00 \
           13 012c 1a 0001 'p' 1c 0001 's' 15 0001 'm' 1f 0001 'r' 26 0001 'k' 0001 'v'";
    from_server(V5, wire, Packet::ConnAck(Box::new(packet)));
}

#[test]
fn publish_at_each_qos() {
    let zero = Packet::Publish(publish(Delivery::AtMostOnce, "a/b", b"hi"));
    from_client(V31, "30 07 0003 'a/b' 'hi'", zero.clone());
    from_client(V311, "30 07 0003 'a/b' 'hi'", zero.clone());
    from_client(V5, "30 08 0003 'a/b' 00 'hi'", zero);

    let one = Delivery::AtLeastOnce {
        packet_id: id(10),
        dup: false,
    };
    let one = Publish {
        retain: true,
        ..publish(one, "a/b", b"")
    };
    from_client(V31, "33 07 0003 'a/b' 000a", Packet::Publish(one.clone()));
    from_server(V311, "33 07 0003 'a/b' 000a", Packet::Publish(one.clone()));
    from_server(V5, "33 08 0003 'a/b' 000a 00", Packet::Publish(one));

    let two = Delivery::ExactlyOnce {
        packet_id: id(0xffff),
        dup: true,
    };
    let two = publish(two, "a/b", b"x");
    from_client(
        V31,
        "3c 08 0003 'a/b' ffff 'x'",
        Packet::Publish(two.clone()),
    );
    from_client(
        V311,
        "3c 08 0003 'a/b' ffff 'x'",
        Packet::Publish(two.clone()),
    );
    from_client(V5, "3c 09 0003 'a/b' ffff 00 'x'", Packet::Publish(two));
}

#[test]
fn publish_with_every_property() {
    let packet = Publish {
        topic_alias: NonZeroU16::new(7),
        subscription_ids: vec![
            SubscriptionId::new(1).unwrap(),
            SubscriptionId::new(268_435_455).unwrap(),
        ],
        properties: Some(Box::new(PublishProperties {
            payload_format: Some(PayloadFormat::Unspecified),
            message_expiry_interval: Some(0xffff_ffff),
            response_topic: Some(text("r")),
            correlation_data: Some(binary(b"\0")),
            content_type: Some(text("c")),
            user_properties: user(&[("", "")]),
        })),
        ..publish(Delivery::AtMostOnce, "t", b"p")
    };
    let wire = "30 27 0001 't' \
        22 02 ffffffff 23 0007 0b 01 0b ffffff7f 01 00 03 0001 'c' 08 0001 'r' 09 0001 00 26 0000 0000 \
        'p'";
    from_server(V5, wire, Packet::Publish(packet));
}

#[test]
fn publish_by_topic_alias_alone() {
    let packet = Publish {
        topic_alias: NonZeroU16::new(1),
        ..publish(Delivery::AtMostOnce, "", b"p")
    };
    from_client(V5, "30 07 0000 03 23 0001 'p'", Packet::Publish(packet));
}

#[test]
fn publish_head_is_all_but_the_payload() {
    let one = Delivery::AtLeastOnce {
        packet_id: id(10),
        dup: false,
    };
    let packet = publish(one, "a/b", b"hi");
    for (version, head) in [
        (V311, "32 09 0003 'a/b' 000a"),
        (V5, "32 0a 0003 'a/b' 000a 00"),
    ] {
        let mut out = bytes::BytesMut::new();
        packet.encode_head(version, &mut out).unwrap();
        assert_eq!(out.freeze(), hex(head), "{version}");
    }
}

#[test]
fn remaining_length_takes_the_fewest_bytes() {
    // [MQTT-1.5.5-1], the borders of table 1-1.
    for (remaining, head) in [
        (127, "30 7f"),
        (128, "30 8001"),
        (16_383, "30 ff7f"),
        (16_384, "30 808001"),
        (2_097_151, "30 ffff7f"),
        (2_097_152, "30 80808001"),
    ] {
        let payload = Bytes::from(vec![0; remaining - 3]);
        let packet = Publish {
            payload,
            ..publish(Delivery::AtMostOnce, "t", b"")
        };
        let mut out = bytes::BytesMut::new();
        packet.encode_head(V311, &mut out).unwrap();
        assert_eq!(
            out.freeze(),
            hex(&format!("{head} 0001 't'")),
            "{remaining}"
        );
        let mut decoder = headwater_mqtt_codec::Decoder::for_client(V311, 1 << 22);
        let wire = encode_one(&Packet::Publish(packet.clone()), V311);
        assert_eq!(
            decoder.decode(&mut wire.clone()),
            Ok(Some(Packet::Publish(packet)))
        );
    }
}

#[test]
fn a_view_says_its_own_expiry_alias_and_subscriptions() {
    let properties = PublishProperties {
        message_expiry_interval: Some(100),
        content_type: Some(text("c")),
        ..PublishProperties::default()
    };
    let message = Publish {
        topic_alias: NonZeroU16::new(9),
        properties: Some(Box::new(properties)),
        ..publish(Delivery::AtMostOnce, "t", b"p")
    };
    let view = headwater_mqtt_codec::PublishRef {
        topic_alias: None,
        subscription_ids: &[SubscriptionId::new(3).unwrap()],
        message_expiry_interval: Some(40),
        ..message.as_view()
    };
    let mut out = bytes::BytesMut::new();
    view.encode(V5, &mut out).unwrap();
    assert_eq!(out.len(), view.encoded_len(V5));
    assert_eq!(
        out.split().freeze(),
        hex("30 10 0001 't' 0b 02 00000028 0b 03 03 0001 'c' 'p'")
    );
    // No subscriber of 3.1.1 is told of any of it.
    view.encode(V311, &mut out).unwrap();
    assert_eq!(out.freeze(), hex("30 04 0001 't' 'p'"));
}

#[test]
fn acknowledgements_without_reason() {
    for version in [V31, V311, V5] {
        for (first, packet) in [
            (
                "40",
                Packet::PubAck(PubAck::new(id(258), PubAckReason::Success)),
            ),
            (
                "50",
                Packet::PubRec(PubRec::new(id(258), PubRecReason::Success)),
            ),
            (
                "62",
                Packet::PubRel(PubRel::new(id(258), PubRelReason::Success)),
            ),
            (
                "70",
                Packet::PubComp(PubComp::new(id(258), PubCompReason::Success)),
            ),
        ] {
            from_client(version, &format!("{first} 02 0102"), packet.clone());
            from_server(version, &format!("{first} 02 0102"), packet);
        }
    }
}

#[test]
fn acknowledgements_with_reason_and_properties() {
    let puback = PubAck::new(id(1), PubAckReason::NoMatchingSubscribers);
    from_server(V5, "40 03 0001 10", Packet::PubAck(puback));
    let pubrec = PubRec::new(id(1), PubRecReason::QuotaExceeded);
    from_server(V5, "50 03 0001 97", Packet::PubRec(pubrec));
    let pubrel = PubRel::new(id(1), PubRelReason::PacketIdentifierNotFound);
    from_client(V5, "62 03 0001 92", Packet::PubRel(pubrel));
    let pubcomp = PubComp::new(id(1), PubCompReason::PacketIdentifierNotFound);
    from_client(V5, "70 03 0001 92", Packet::PubComp(pubcomp));

    let (packet_id, properties) = (id(1), ack_properties());
    let reason = PubAckReason::Success;
    let puback = PubAck {
        packet_id,
        reason,
        properties: properties.clone(),
    };
    from_server(
        V5,
        &format!("40 11 0001 00 {ACK_PROPERTIES}"),
        Packet::PubAck(puback),
    );
    let reason = PubRecReason::NotAuthorized;
    let pubrec = PubRec {
        packet_id,
        reason,
        properties: properties.clone(),
    };
    from_server(
        V5,
        &format!("50 11 0001 87 {ACK_PROPERTIES}"),
        Packet::PubRec(pubrec),
    );
    let reason = PubRelReason::Success;
    let pubrel = PubRel {
        packet_id,
        reason,
        properties: properties.clone(),
    };
    from_server(
        V5,
        &format!("62 11 0001 00 {ACK_PROPERTIES}"),
        Packet::PubRel(pubrel),
    );
    let reason = PubCompReason::Success;
    let pubcomp = PubComp {
        packet_id,
        reason,
        properties,
    };
    from_server(
        V5,
        &format!("70 11 0001 00 {ACK_PROPERTIES}"),
        Packet::PubComp(pubcomp),
    );
}

#[test]
fn acknowledgement_loses_its_reason_before_v5() {
    let reason = PubAckReason::QuotaExceeded;
    let packet = Packet::PubAck(PubAck {
        packet_id: id(1),
        reason,
        properties: ack_properties(),
    });
    assert_eq!(encode_one(&packet, V311), hex("40 02 0001"));
}

#[test]
fn acknowledgement_may_spell_out_what_it_could_leave_out() {
    // 3.4.2.1, 3.4.2.2.1: success, and a Property Length of zero.
    let expected = Ok(Packet::PubAck(PubAck::new(id(1), PubAckReason::Success)));
    for wire in ["40 02 0001", "40 03 0001 00", "40 04 0001 00 00"] {
        assert_eq!(decode_one(server(V5), &hex(wire)), expected, "{wire}");
    }
}

fn subscription(filter: &str, options: SubscriptionOptions) -> Subscription {
    Subscription {
        filter: text(filter),
        options,
    }
}

#[test]
fn subscribe() {
    let qos = |qos| SubscriptionOptions {
        qos,
        ..SubscriptionOptions::default()
    };
    let plain = Packet::Subscribe(Box::new(Subscribe {
        packet_id: id(10),
        subscription_id: None,
        user_properties: UserProperties::default(),
        subscriptions: vec![
            subscription("a/b", qos(QoS::AtLeastOnce)),
            subscription("#", qos(QoS::ExactlyOnce)),
        ],
    }));
    from_client(V31, "82 0c 000a 0003 'a/b' 01 0001 '#' 02", plain.clone());
    from_client(V311, "82 0c 000a 0003 'a/b' 01 0001 '#' 02", plain.clone());
    from_client(V5, "82 0d 000a 00 0003 'a/b' 01 0001 '#' 02", plain);

    let full = Packet::Subscribe(Box::new(Subscribe {
        packet_id: id(10),
        subscription_id: SubscriptionId::new(128),
        user_properties: user(&[("k", "v")]),
        subscriptions: vec![
            subscription(
                "a",
                SubscriptionOptions {
                    qos: QoS::ExactlyOnce,
                    no_local: true,
                    retain_as_published: true,
                    retain_handling: RetainHandling::DoNotSend,
                },
            ),
            subscription(
                "$share/g/+/x",
                SubscriptionOptions {
                    retain_handling: RetainHandling::SendIfNew,
                    ..SubscriptionOptions::default()
                },
            ),
        ],
    }));
    let wire = "82 20 000a 0a 0b 8001 26 0001 'k' 0001 'v' 0001 'a' 2e 000c '$share/g/+/x' 10";
    from_client(V5, wire, full);
}

#[test]
fn suback() {
    let packet = |reasons: &[SubAckReason]| {
        let (packet_id, reasons) = (id(10), reasons.to_vec());
        Packet::SubAck(Box::new(SubAck {
            packet_id,
            properties: None,
            reasons,
        }))
    };
    let granted = [
        SubAckReason::GrantedAtMostOnce,
        SubAckReason::GrantedAtLeastOnce,
        SubAckReason::GrantedExactlyOnce,
        SubAckReason::UnspecifiedError,
    ];
    from_server(V31, "90 06 000a 00 01 02 80", packet(&granted));
    from_server(V311, "90 06 000a 00 01 02 80", packet(&granted));
    from_server(V5, "90 07 000a 00 00 01 02 80", packet(&granted));
    // MQTT 3.1.1, [MQTT-3.9.3-2]: there is one code for failure.
    assert_eq!(
        encode_one(&packet(&[SubAckReason::NotAuthorized]), V311),
        hex("90 03 000a 80")
    );
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        assert_eq!(SubAckReason::granted(qos).code(), qos as u8);
    }

    let full = SubAck {
        packet_id: id(10),
        properties: ack_properties(),
        reasons: vec![SubAckReason::QuotaExceeded],
    };
    let full = Packet::SubAck(Box::new(full));
    from_server(V5, &format!("90 11 000a {ACK_PROPERTIES} 97"), full);
}

#[test]
fn unsubscribe() {
    let packet = |user_properties| {
        Packet::Unsubscribe(Box::new(Unsubscribe {
            packet_id: id(10),
            user_properties,
            filters: vec![text("a/b"), text("+")],
        }))
    };
    from_client(V31, "a2 0a 000a 0003 'a/b' 0001 '+'", packet(user(&[])));
    from_client(V311, "a2 0a 000a 0003 'a/b' 0001 '+'", packet(user(&[])));
    from_client(V5, "a2 0b 000a 00 0003 'a/b' 0001 '+'", packet(user(&[])));
    let wire = "a2 12 000a 07 26 0001 'k' 0001 'v' 0003 'a/b' 0001 '+'";
    from_client(V5, wire, packet(user(&[("k", "v")])));
}

#[test]
fn unsuback() {
    let packet = |properties, reasons: &[UnsubAckReason]| {
        let (packet_id, reasons) = (id(10), reasons.to_vec());
        Packet::UnsubAck(Box::new(UnsubAck {
            packet_id,
            properties,
            reasons,
        }))
    };
    let reasons = [
        UnsubAckReason::Success,
        UnsubAckReason::NoSubscriptionExisted,
    ];
    from_server(V31, "b0 02 000a", packet(None, &[]));
    from_server(V311, "b0 02 000a", packet(None, &[]));
    from_server(V5, "b0 05 000a 00 00 11", packet(None, &reasons));
    let wire = format!("b0 12 000a {ACK_PROPERTIES} 00 11");
    from_server(V5, &wire, packet(ack_properties(), &reasons));
    // Before 5.0 it has no payload.
    assert_eq!(encode_one(&packet(None, &reasons), V311), hex("b0 02 000a"));
}

#[test]
fn pings() {
    for version in [V31, V311, V5] {
        from_client(version, "c0 00", Packet::PingReq);
        from_server(version, "d0 00", Packet::PingResp);
    }
}

#[test]
fn disconnect() {
    let packet = |reason| Packet::Disconnect(Box::new(Disconnect::new(reason)));
    for version in [V31, V311, V5] {
        from_client(
            version,
            "e0 00",
            packet(DisconnectReason::NormalDisconnection),
        );
    }
    from_client(
        V5,
        "e0 01 04",
        packet(DisconnectReason::DisconnectWithWillMessage),
    );
    from_server(V5, "e0 01 8e", packet(DisconnectReason::SessionTakenOver));
    // 3.14.2.1, 3.14.2.2.1: spelled out.
    for wire in ["e0 01 00", "e0 02 00 00"] {
        let normal = Ok(packet(DisconnectReason::NormalDisconnection));
        assert_eq!(decode_one(server(V5), &hex(wire)), normal, "{wire}");
    }

    let full = Disconnect {
        session_expiry_interval: Some(0),
        reason_string: Some(text("r")),
        server_reference: Some(text("s")),
        user_properties: user(&[("k", "v")]),
        ..Disconnect::new(DisconnectReason::NormalDisconnection)
    };
    let wire = "e0 16 00 14 11 00000000 1c 0001 's' 1f 0001 'r' 26 0001 'k' 0001 'v'";
    from_client(V5, wire, Packet::Disconnect(Box::new(full)));
}

#[test]
fn auth() {
    let packet = |reason, data, reason_string, user_properties| {
        let authentication = Authentication {
            method: text("m"),
            data,
        };
        Packet::Auth(Box::new(Auth {
            reason,
            authentication,
            reason_string,
            user_properties,
        }))
    };
    let short = packet(AuthReason::ReAuthenticate, None, None, user(&[]));
    from_client(V5, "f0 06 19 04 15 0001 'm'", short);
    let full = packet(
        AuthReason::ContinueAuthentication,
        Some(binary(b"d")),
        Some(text("r")),
        user(&[("k", "v")]),
    );
    let wire = "f0 15 18 13 15 0001 'm' 16 0001 'd' 1f 0001 'r' 26 0001 'k' 0001 'v'";
    from_server(V5, wire, full);
}

#[test]
fn mqtt_31_user_name_may_be_missing_in_spite_of_its_flag() {
    // Its section 3.1: the Remaining Length takes precedence over the flags.
    let decoder = || headwater_mqtt_codec::Decoder::new(crate::PACKET_BYTES_MAX);
    let neither = hex("10 0f 0006 'MQIsdp' 03 c2 003c 0001 'a'");
    assert_eq!(
        decode_one(decoder(), &neither),
        Ok(Packet::Connect(Box::new(connect(V31))))
    );
    let no_password = hex("10 12 0006 'MQIsdp' 03 c2 003c 0001 'a' 0001 'u'");
    let packet = Connect {
        user_name: Some(text("u")),
        ..connect(V31)
    };
    assert_eq!(
        decode_one(decoder(), &no_password),
        Ok(Packet::Connect(Box::new(packet)))
    );
}

#[test]
fn mqtt_31_sends_again_with_dup() {
    let packet = Packet::PubRel(PubRel::new(id(1), PubRelReason::Success));
    assert_eq!(decode_one(server(V31), &hex("6a 02 0001")), Ok(packet));
    assert!(decode_one(server(V31), &hex("8a 06 000a 0001 'a' 00")).is_ok());
    assert!(decode_one(server(V31), &hex("aa 05 000a 0001 'a'")).is_ok());
}

#[test]
fn strings_keep_what_looks_strange() {
    // BOM [MQTT-1.5.4-3], U+FFFF, U+0001, a character of four bytes.
    for (wire, topic) in [
        ("30 06 0003 efbbbf 00", "\u{feff}"),
        ("30 06 0003 efbfbf 00", "\u{ffff}"),
        ("30 04 0001 01 00", "\u{1}"),
        ("30 07 0004 f09f8c8a 00", "🌊"),
    ] {
        from_client(
            V5,
            wire,
            Packet::Publish(publish(Delivery::AtMostOnce, topic, b"")),
        );
    }
}

#[test]
fn user_properties_keep_their_order_between_others() {
    // [MQTT-3.3.2-18], also where other properties stand between them.
    let wire =
        "30 1c 0001 't' 18 26 0001 'b' 0001 '1' 03 0001 'c' 26 0001 'a' 0001 '2' 26 0001 'b' 0000";
    let Ok(Packet::Publish(packet)) = decode_one(server(V5), &hex(wire)) else {
        panic!("no PUBLISH")
    };
    let properties = packet.properties.unwrap();
    let pairs: Vec<_> = properties.user_properties.iter().collect();
    assert_eq!(pairs, [("b", "1"), ("a", "2"), ("b", "")]);
    assert_eq!(properties.content_type, Some(text("c")));
}

#[test]
fn payload_and_topic_are_slices_of_the_input() {
    let input = hex("30 07 0003 'a/b' 'hi'");
    let Ok(Packet::Publish(packet)) = decode_one(server(V311), &input) else {
        panic!("no PUBLISH")
    };
    assert_eq!(packet.topic.as_bytes().as_ptr(), input[4..].as_ptr());
    assert_eq!(packet.payload.as_ptr(), input[7..].as_ptr());
}
