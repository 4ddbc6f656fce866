//! Packets over reads that cut them anywhere.

use bytes::{Bytes, BytesMut};
use headwater_mqtt_codec::Version::{V5, V311};
use headwater_mqtt_codec::{Decoder, Packet};
use proptest::prelude::*;

use crate::arbitrary::{packets_of_client, version};
use crate::{PACKET_BYTES_MAX, connect_bytes, encode_one, hex, server};

/// All packets of `input`, as a connection's owner reads them.
fn drain(decoder: &mut Decoder, mut input: Bytes, packets: &mut Vec<Packet>) {
    while let Some(packet) = decoder.decode_read(&mut input).unwrap() {
        packets.push(packet);
    }
    assert!(input.is_empty(), "what is left is kept by the decoder");
}

proptest! {
    #[test]
    fn any_cuts_give_the_same_packets(
        (version, sent) in version().prop_flat_map(|version| {
            (Just(version), prop::collection::vec(packets_of_client(version), 1..6))
        }),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let mut wire = BytesMut::from(connect_bytes(version));
        for packet in &sent {
            wire.extend_from_slice(&encode_one(packet, version));
        }
        let wire = wire.freeze();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(wire.len())).collect();
        cuts.extend([0, wire.len()]);
        cuts.sort_unstable();
        let mut decoder = Decoder::new(PACKET_BYTES_MAX);
        let mut received = Vec::new();
        for pair in cuts.windows(2) {
            drain(&mut decoder, wire.slice(pair[0]..pair[1]), &mut received);
        }
        prop_assert!(matches!(received.remove(0), Packet::Connect(_)));
        prop_assert_eq!(received, sent);
    }
}

#[test]
fn byte_by_byte_gives_the_same_packets() {
    let wire =
        hex("32 11 0003 'a/b' 000a 07 26 0001 'k' 0001 'v' 'hi' c0 00 30 05 0001 'a' 00 'x'");
    let (mut decoder, mut whole) = (server(V5), Vec::new());
    drain(&mut decoder, wire.clone(), &mut whole);
    assert_eq!(whole.len(), 3);
    let (mut decoder, mut pieces) = (server(V5), Vec::new());
    for at in 0..wire.len() {
        drain(&mut decoder, wire.slice(at..=at), &mut pieces);
    }
    assert_eq!(pieces, whole);
}

#[test]
fn only_the_packet_that_lies_in_two_reads_is_copied() {
    let mut decoder = server(V311);
    let first = hex("30 05 0001 'a' 'x1' 30 05 0001");
    let second = hex("'a' 'x2' 30 05 0001 'a' 'x3'");
    let mut packets = Vec::new();
    drain(&mut decoder, first.clone(), &mut packets);
    drain(&mut decoder, second.clone(), &mut packets);
    let payloads: Vec<_> = packets
        .iter()
        .map(|packet| match packet {
            Packet::Publish(publish) => &publish.payload,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(payloads, [&b"x1"[..], b"x2", b"x3"]);
    let within = |outer: &Bytes, inner: &Bytes| outer.as_ptr_range().contains(&inner.as_ptr());
    assert!(within(&first, payloads[0]) && within(&second, payloads[2]));
    assert!(!within(&first, payloads[1]) && !within(&second, payloads[1]));
}

#[test]
fn a_refused_header_in_a_cut_packet_stays_refused() {
    let mut decoder = server(V5);
    assert_eq!(decoder.decode_read(&mut hex("30 ffffff")), Ok(None));
    let error = decoder.decode_read(&mut hex("ff")).unwrap_err();
    assert_eq!(error.reason_code(), 0x81);
    assert_eq!(decoder.decode_read(&mut hex("c0 00")), Err(error.clone()));
    assert_eq!(decoder.decode(&mut hex("c0 00")), Err(error));
}
