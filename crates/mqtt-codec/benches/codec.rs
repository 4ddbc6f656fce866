//! Ours beside `mqttbytes`, which serves 3.1.1 and 5.0 too, in one run. A verdict is the ratio.
//!
//!     cargo bench -p headwater-mqtt-codec
//!
//! One iteration handles `PACKETS` packets that lie in one buffer, as one read from a socket gives
//! them; the counter turns it into packets a second.

use std::hint::black_box;
use std::num::NonZeroU16;

use bytes::{Bytes, BytesMut};
use divan::counter::ItemsCount;
use divan::{Bencher, Divan};
use headwater_mqtt_codec::{
    Decoder, Delivery, Packet, PacketId, PublishProperties, PublishRef, Text, Version,
};

const PACKETS: usize = 1000;
const PACKET_BYTES_MAX: u32 = 1 << 20;
const TOPIC: &str = "sensors/berlin/device-17/telemetry";
static PAYLOAD: [u8; 64] = [b'x'; 64];

fn main() {
    Divan::from_args().main();
}

/// PUBLISH at QoS 0, or at QoS 1 with Packet Identifier 1.
fn publish(version: Version, qos: u8) -> Vec<u8> {
    let mut body = vec![0, u8::try_from(TOPIC.len()).unwrap_or_default()];
    body.extend_from_slice(TOPIC.as_bytes());
    if qos > 0 {
        body.extend_from_slice(&[0, 1]);
    }
    if version == Version::V5 {
        body.push(0);
    }
    body.extend_from_slice(&PAYLOAD);
    let mut wire = vec![
        0x30 | qos << 1,
        u8::try_from(body.len()).unwrap_or_default(),
    ];
    wire.extend(body);
    wire
}

/// What a busy server reads: mostly PUBLISH, each third with its PUBACK, now and then the rest.
fn mixed(version: Version) -> Vec<u8> {
    let v5 = version == Version::V5;
    let subscribe: &[u8] = if v5 {
        b"\x82\x0d\0\x0a\0\0\x03a/b\x01\0\x01#\x02"
    } else {
        b"\x82\x0c\0\x0a\0\x03a/b\x01\0\x01#\x02"
    };
    (0..PACKETS)
        .flat_map(|index| match index % 20 {
            0 => b"\xc0\0".to_vec(),
            1 => subscribe.to_vec(),
            2..8 => b"\x40\x02\0\x01".to_vec(),
            8..14 => publish(version, 1),
            _ => publish(version, 0),
        })
        .collect()
}

fn repeated(packet: &[u8]) -> Vec<u8> {
    packet.repeat(PACKETS)
}

fn server(version: Version) -> Decoder {
    let connect: &[u8] = if version == Version::V5 {
        b"\x10\x0e\0\x04MQTT\x05\x02\0\x3c\0\0\x01a"
    } else {
        b"\x10\x0d\0\x04MQTT\x04\x02\0\x3c\0\x01a"
    };
    let mut decoder = Decoder::new(PACKET_BYTES_MAX);
    let packet = decoder.decode(&mut Bytes::from_static(connect));
    assert!(matches!(packet, Ok(Some(Packet::Connect(_)))), "no CONNECT");
    decoder
}

fn decode_ours(bencher: Bencher<'_, '_>, version: Version, wire: Vec<u8>) {
    let wire = Bytes::from(wire);
    bencher
        .counter(ItemsCount::new(PACKETS))
        .with_inputs(|| (server(version), wire.clone()))
        .bench_local_values(|(mut decoder, mut input)| {
            let mut packets = 0;
            while let Ok(Some(packet)) = decoder.decode_read(&mut input) {
                black_box(&packet);
                packets += 1;
            }
            assert_eq!(packets, PACKETS, "a packet was refused");
        });
}

fn decode_mqttbytes(bencher: Bencher<'_, '_>, version: Version, wire: Vec<u8>) {
    bencher
        .counter(ItemsCount::new(PACKETS))
        .with_inputs(|| BytesMut::from(&wire[..]))
        .bench_local_values(|mut input| {
            let max = PACKET_BYTES_MAX as usize;
            let mut packets = 0;
            while !input.is_empty() {
                let taken = if version == Version::V5 {
                    mqttbytes::v5::read(&mut input, max).map(|packet| drop(black_box(packet)))
                } else {
                    mqttbytes::v4::read(&mut input, max).map(|packet| drop(black_box(packet)))
                };
                assert!(taken.is_ok(), "a packet was refused");
                packets += 1;
            }
            assert_eq!(packets, PACKETS);
        });
}

mod decode_publish_64 {
    use super::*;

    #[divan::bench(args = [0, 1])]
    fn ours_v311(bencher: Bencher<'_, '_>, qos: u8) {
        decode_ours(
            bencher,
            Version::V311,
            repeated(&publish(Version::V311, qos)),
        );
    }

    #[divan::bench(args = [0, 1])]
    fn mqttbytes_v311(bencher: Bencher<'_, '_>, qos: u8) {
        decode_mqttbytes(
            bencher,
            Version::V311,
            repeated(&publish(Version::V311, qos)),
        );
    }

    #[divan::bench(args = [0, 1])]
    fn ours_v5(bencher: Bencher<'_, '_>, qos: u8) {
        decode_ours(bencher, Version::V5, repeated(&publish(Version::V5, qos)));
    }

    #[divan::bench(args = [0, 1])]
    fn mqttbytes_v5(bencher: Bencher<'_, '_>, qos: u8) {
        decode_mqttbytes(bencher, Version::V5, repeated(&publish(Version::V5, qos)));
    }
}

mod decode_mixed {
    use super::*;

    #[divan::bench]
    fn ours_v311(bencher: Bencher<'_, '_>) {
        decode_ours(bencher, Version::V311, mixed(Version::V311));
    }

    #[divan::bench]
    fn mqttbytes_v311(bencher: Bencher<'_, '_>) {
        decode_mqttbytes(bencher, Version::V311, mixed(Version::V311));
    }

    #[divan::bench]
    fn ours_v5(bencher: Bencher<'_, '_>) {
        decode_ours(bencher, Version::V5, mixed(Version::V5));
    }

    #[divan::bench]
    fn mqttbytes_v5(bencher: Bencher<'_, '_>) {
        decode_mqttbytes(bencher, Version::V5, mixed(Version::V5));
    }
}

/// One message to `PACKETS` subscribers, whose output buffers have room: the broker's fan-out.
mod encode_publish_64 {
    use super::*;

    fn encode_ours(
        bencher: Bencher<'_, '_>,
        version: Version,
        qos: u8,
        properties: Option<PublishProperties>,
    ) {
        let topic = Text::from_static(TOPIC);
        let mut out = BytesMut::with_capacity(256 * PACKETS);
        bencher.counter(ItemsCount::new(PACKETS)).bench_local(|| {
            out.clear();
            for id in (1..=u16::MAX).take(PACKETS) {
                let packet_id = NonZeroU16::new(id).map_or(PacketId(NonZeroU16::MIN), PacketId);
                let delivery = match qos {
                    0 => Delivery::AtMostOnce,
                    _ => Delivery::AtLeastOnce {
                        packet_id,
                        dup: false,
                    },
                };
                let view = PublishRef {
                    delivery,
                    retain: false,
                    topic: black_box(&topic),
                    topic_alias: None,
                    subscription_ids: &[],
                    message_expiry_interval: None,
                    properties: black_box(properties.as_ref()),
                    payload: black_box(&PAYLOAD),
                };
                assert!(view.encode(version, &mut out).is_ok(), "refused");
            }
            black_box(&out);
        });
    }

    #[divan::bench(args = [0, 1])]
    fn ours_v311(bencher: Bencher<'_, '_>, qos: u8) {
        encode_ours(bencher, Version::V311, qos, None);
    }

    #[divan::bench(args = [0, 1])]
    fn mqttbytes_v311(bencher: Bencher<'_, '_>, qos: u8) {
        let mut out = BytesMut::with_capacity(256 * PACKETS);
        let payload = Bytes::from_static(&PAYLOAD);
        let qos = mqttbytes::qos(qos).unwrap_or(mqttbytes::QoS::AtMostOnce);
        let mut packet = mqttbytes::v4::Publish::from_bytes(TOPIC, qos, payload);
        bencher.counter(ItemsCount::new(PACKETS)).bench_local(|| {
            out.clear();
            for id in (1..=u16::MAX).take(PACKETS) {
                packet.pkid = id;
                assert!(black_box(&packet).write(&mut out).is_ok(), "refused");
            }
            black_box(&out);
        });
    }

    #[divan::bench(args = [0, 1])]
    fn ours_v5(bencher: Bencher<'_, '_>, qos: u8) {
        encode_ours(bencher, Version::V5, qos, None);
    }

    #[divan::bench(args = [0, 1])]
    fn mqttbytes_v5(bencher: Bencher<'_, '_>, qos: u8) {
        let mut out = BytesMut::with_capacity(256 * PACKETS);
        let payload = Bytes::from_static(&PAYLOAD);
        let qos = mqttbytes::qos(qos).unwrap_or(mqttbytes::QoS::AtMostOnce);
        let mut packet = mqttbytes::v5::Publish::from_bytes(TOPIC, qos, payload);
        bencher.counter(ItemsCount::new(PACKETS)).bench_local(|| {
            out.clear();
            for id in (1..=u16::MAX).take(PACKETS) {
                packet.pkid = id;
                assert!(black_box(&packet).write(&mut out).is_ok(), "refused");
            }
            black_box(&out);
        });
    }

    #[divan::bench(args = [0, 1])]
    fn ours_v5_with_properties(bencher: Bencher<'_, '_>, qos: u8) {
        let pair = (Text::from_static("unit"), Text::from_static("celsius"));
        let properties = PublishProperties {
            content_type: Some(Text::from_static("application/json")),
            user_properties: [pair].into_iter().collect(),
            ..PublishProperties::default()
        };
        encode_ours(bencher, Version::V5, qos, Some(properties));
    }
}

/// The floor: the same bytes moved once.
#[divan::bench]
fn copy_100_bytes(bencher: Bencher<'_, '_>) {
    let bytes = [b'x'; 100];
    let mut out = BytesMut::with_capacity(256 * PACKETS);
    bencher.counter(ItemsCount::new(PACKETS)).bench_local(|| {
        out.clear();
        for _ in 0..PACKETS {
            out.extend_from_slice(black_box(&bytes));
        }
        black_box(&out);
    });
}
