//! Values that no version can write, and that nothing is appended then.

use bytes::{Bytes, BytesMut};
use headwater_mqtt_codec::Version::{V5, V311};
use headwater_mqtt_codec::{
    Auth, AuthReason, Authentication, Decoder, Delivery, EncodeError, Packet, PacketId, PacketType,
    Publish, Subscribe, UnsubAck, Unsubscribe, UserProperties, Version,
};

use crate::{PACKET_BYTES_MAX, connect_bytes, decode_one, hex, text};

#[test]
fn what_cannot_be_written_is_refused_and_appends_nothing() {
    let packet_id = PacketId::new(1).unwrap();
    let user_properties = UserProperties::default();
    let auth = Packet::Auth(Box::new(Auth {
        reason: AuthReason::Success,
        authentication: Authentication {
            method: text("m"),
            data: None,
        },
        reason_string: None,
        user_properties: user_properties.clone(),
    }));
    let subscribe = Packet::Subscribe(Box::new(Subscribe {
        packet_id,
        subscription_id: None,
        user_properties: user_properties.clone(),
        subscriptions: Vec::new(),
    }));
    let filters = Vec::new();
    let unsubscribe = Packet::Unsubscribe(Box::new(Unsubscribe {
        packet_id,
        user_properties,
        filters,
    }));
    let unsuback = Packet::UnsubAck(Box::new(UnsubAck {
        packet_id,
        properties: None,
        reasons: Vec::new(),
    }));
    let Ok(Packet::Connect(mut connect)) =
        decode_one(Decoder::new(PACKET_BYTES_MAX), &connect_bytes(V311))
    else {
        panic!("no CONNECT")
    };
    connect.password = Some(Bytes::from_static(b"p").try_into().unwrap());
    let connect = Packet::Connect(connect);
    let empty = |packet| EncodeError::EmptyPayload { packet };
    let cases: [(Packet, Version, EncodeError); 5] = [
        (
            auth,
            V311,
            EncodeError::NotInVersion {
                packet: PacketType::Auth,
                version: V311,
            },
        ),
        (subscribe, V5, empty(PacketType::Subscribe)),
        (unsubscribe, V311, empty(PacketType::Unsubscribe)),
        (unsuback, V5, empty(PacketType::UnsubAck)),
        (connect, V311, EncodeError::PasswordAlone { version: V311 }),
    ];
    for (packet, version, expected) in cases {
        let mut out = BytesMut::from(&b"before"[..]);
        assert_eq!(packet.encode(version, &mut out), Err(expected));
        assert_eq!(&out[..], b"before");
    }
}

#[test]
fn a_publish_past_the_remaining_length_is_refused() {
    // 2.1.4; the largest that can be said is 268,435,455.
    let payload = Bytes::from(vec![0; 268_435_455 - 2]);
    let mut out = BytesMut::new();
    let packet = Publish {
        delivery: Delivery::AtMostOnce,
        retain: false,
        topic: text("t"),
        topic_alias: None,
        subscription_ids: Vec::new(),
        properties: None,
        payload,
    };
    let error = packet.encode_head(V311, &mut out).unwrap_err();
    assert_eq!(error, EncodeError::TooLarge { bytes: 268_435_456 });
    assert!(out.is_empty());
    let payload = packet.payload.slice(1..);
    let packet = Publish { payload, ..packet };
    packet.encode_head(V311, &mut out).unwrap();
    assert_eq!(out.freeze(), hex("30 ffffff7f 0001 't'"));
}
