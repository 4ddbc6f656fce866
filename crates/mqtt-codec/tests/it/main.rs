//! The codec from outside: bytes written by hand from the specifications, and properties that hold
//! for all bytes and all packets.

#![cfg(test)]

mod arbitrary;
mod bad_inputs;
mod bytes_by_hand;
mod cannot_be_written;
mod round_trip;
mod stream;

use bytes::{Bytes, BytesMut};
use headwater_mqtt_codec::{DecodeError, Decoder, Packet, Text, Version};

/// No test packet is near it.
const PACKET_BYTES_MAX: u32 = 1 << 20;

/// Bytes from text: hex digits, and characters in single quotes. Blanks mean nothing.
fn hex(text: &str) -> Bytes {
    let mut bytes = Vec::new();
    for (index, part) in text.split('\'').enumerate() {
        if index % 2 == 1 {
            bytes.extend_from_slice(part.as_bytes());
            continue;
        }
        let digits: String = part.split_whitespace().collect();
        assert!(digits.len().is_multiple_of(2), "half a byte in {part:?}");
        for at in (0..digits.len()).step_by(2) {
            bytes.push(u8::from_str_radix(&digits[at..at + 2], 16).unwrap());
        }
    }
    bytes.into()
}

fn text(text: &str) -> Text {
    text.parse().unwrap()
}

/// CONNECT with client identifier "a", by hand.
fn connect_bytes(version: Version) -> Bytes {
    hex(match version {
        Version::V31 => "10 0f 0006 'MQIsdp' 03 02 003c 0001 'a'",
        Version::V311 => "10 0d 0004 'MQTT' 04 02 003c 0001 'a'",
        Version::V5 => "10 0e 0004 'MQTT' 05 02 003c 00 0001 'a'",
    })
}

/// A server's decoder that has read a CONNECT.
fn server(version: Version) -> Decoder {
    let mut decoder = Decoder::new(PACKET_BYTES_MAX);
    let packet = decoder.decode(&mut connect_bytes(version)).unwrap();
    assert!(matches!(packet, Some(Packet::Connect(_))));
    decoder
}

fn client(version: Version) -> Decoder {
    Decoder::for_client(version, PACKET_BYTES_MAX)
}

/// The one packet that `bytes` are.
fn decode_one(mut decoder: Decoder, bytes: &Bytes) -> Result<Packet, DecodeError> {
    let mut input = bytes.clone();
    let packet = decoder.decode(&mut input)?.expect("a whole packet");
    assert!(input.is_empty(), "{} bytes not taken", input.len());
    Ok(packet)
}

fn encode_one(packet: &Packet, version: Version) -> Bytes {
    let mut out = BytesMut::new();
    packet.encode(version, &mut out).unwrap();
    assert_eq!(out.len(), packet.encoded_len(version), "{packet:?}");
    out.freeze()
}
