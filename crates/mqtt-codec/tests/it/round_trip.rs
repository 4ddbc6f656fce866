//! What is written reads back, and no bytes are too strange to be read or refused.

use bytes::{Bytes, BytesMut};
use headwater_mqtt_codec::{Decoder, Packet, Version};
use proptest::prelude::*;

use crate::arbitrary::{connect, packets_of_client, packets_of_server, version};
use crate::{PACKET_BYTES_MAX, client, decode_one, encode_one, server};

proptest! {
    #[test]
    fn connect_reads_back(packet in version().prop_flat_map(connect)) {
        let Packet::Connect(connect) = &packet else { panic!("no CONNECT") };
        let wire = encode_one(&packet, connect.version);
        let decoder = Decoder::new(PACKET_BYTES_MAX);
        prop_assert_eq!(decode_one(decoder, &wire), Ok(packet));
    }

    #[test]
    fn packets_of_a_client_read_back(
        (version, packet) in version().prop_flat_map(|v| (Just(v), packets_of_client(v))),
    ) {
        let wire = encode_one(&packet, version);
        prop_assert_eq!(decode_one(server(version), &wire), Ok(packet));
    }

    #[test]
    fn packets_of_a_server_read_back(
        (version, packet) in version().prop_flat_map(|v| (Just(v), packets_of_server(v))),
    ) {
        let wire = encode_one(&packet, version);
        prop_assert_eq!(decode_one(client(version), &wire), Ok(packet));
    }

    #[test]
    fn publish_head_and_payload_are_the_packet(
        (version, packet) in version().prop_flat_map(|v| (Just(v), packets_of_server(v))),
    ) {
        if let Packet::Publish(publish) = &packet {
            let mut out = BytesMut::new();
            publish.encode_head(version, &mut out).unwrap();
            out.extend_from_slice(&publish.payload);
            prop_assert_eq!(out.freeze(), encode_one(&packet, version));
        }
    }

    #[test]
    fn decode_is_total(bytes: Vec<u8>, version in version()) {
        drain_by_all(version, bytes.into());
    }

    /// Random bytes seldom get past the fixed header; these do.
    #[test]
    fn decode_is_total_behind_a_good_fixed_header(
        first_byte: u8,
        body in prop::collection::vec(prop_oneof![any::<u8>(), 0_u8..0x2b], 0..60),
        version in version(),
    ) {
        let mut wire = vec![first_byte, u8::try_from(body.len()).unwrap()];
        wire.extend(body);
        drain_by_all(version, wire.into());
    }

    /// One other byte in a good packet reaches deepest.
    #[test]
    fn decode_is_total_on_a_damaged_packet(
        (version, packet) in version().prop_flat_map(|v| (Just(v), any_packet(v))),
        at: prop::sample::Index,
        byte: u8,
    ) {
        let mut wire = encode_one(&packet, version).to_vec();
        let at = at.index(wire.len());
        wire[at] = byte;
        drain_by_all(version, wire.into());
    }
}

fn any_packet(version: Version) -> impl Strategy<Value = Packet> {
    prop_oneof![
        connect(version),
        packets_of_client(version),
        packets_of_server(version)
    ]
}

fn drain_by_all(version: Version, input: Bytes) {
    drain(Decoder::new(PACKET_BYTES_MAX), server, input.clone());
    drain(server(version), server, input.clone());
    drain(client(version), client, input);
}

/// Reads to the end; what does decode survives a second trip, read by `again`.
fn drain(mut decoder: Decoder, again: fn(Version) -> Decoder, mut input: Bytes) {
    while let Ok(Some(packet)) = decoder.decode(&mut input) {
        let version = decoder.version().unwrap();
        let wire = encode_one(&packet, version);
        let again = match packet {
            Packet::Connect(_) => Decoder::new(PACKET_BYTES_MAX),
            _ => again(version),
        };
        assert_eq!(decode_one(again, &wire), Ok(packet));
    }
}
