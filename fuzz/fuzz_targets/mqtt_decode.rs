//! Any bytes, as a server and as a client of each version read them.
//!
//! For: no panic; the same packets and the same error however reads cut the stream; what decodes
//! survives being written and read again, in as many bytes as were announced.
//! The first byte chooses who reads, the second how many bytes a read has.

#![no_main]

use bytes::{Bytes, BytesMut};
use headwater_mqtt_codec::{DecodeError, Decoder, Packet, Version};
use libfuzzer_sys::fuzz_target;

const PACKET_BYTES_MAX: u32 = 1 << 16;

fuzz_target!(|data: &[u8]| {
    let [reader, read_bytes, stream @ ..] = data else {
        return;
    };
    let stream = Bytes::copy_from_slice(stream);
    let reads = usize::from(*read_bytes).max(1);
    let whole = packets(decoder(*reader), &stream, stream.len().max(1));
    let cut = packets(decoder(*reader), &stream, reads);
    assert_eq!(whole, cut, "reads of {reads} bytes change what is read");
    for packet in &whole.0 {
        survives(*reader, packet);
    }
});

fn decoder(reader: u8) -> Decoder {
    match reader % 7 {
        1 => connected(b"\x10\x0f\0\x06MQIsdp\x03\x02\0\x3c\0\x01a"),
        2 => connected(b"\x10\x0d\0\x04MQTT\x04\x02\0\x3c\0\x01a"),
        3 => connected(b"\x10\x0e\0\x04MQTT\x05\x02\0\x3c\0\0\x01a"),
        4 => Decoder::for_client(Version::V31, PACKET_BYTES_MAX),
        5 => Decoder::for_client(Version::V311, PACKET_BYTES_MAX),
        6 => Decoder::for_client(Version::V5, PACKET_BYTES_MAX),
        _ => Decoder::new(PACKET_BYTES_MAX),
    }
}

fn connected(connect: &'static [u8]) -> Decoder {
    let mut decoder = Decoder::new(PACKET_BYTES_MAX);
    let packet = decoder.decode(&mut Bytes::from_static(connect));
    assert!(matches!(packet, Ok(Some(Packet::Connect(_)))));
    decoder
}

/// All packets, and the error that ended the stream.
fn packets(
    mut decoder: Decoder,
    stream: &Bytes,
    read_bytes: usize,
) -> (Vec<Packet>, Option<DecodeError>, Option<Version>) {
    let mut packets = Vec::new();
    for at in (0..stream.len()).step_by(read_bytes) {
        let mut read = stream.slice(at..stream.len().min(at + read_bytes));
        loop {
            match decoder.decode_read(&mut read) {
                Ok(Some(packet)) => packets.push(packet),
                Ok(None) => break,
                Err(error) => {
                    error.reason_code();
                    return (packets, Some(error), decoder.version());
                }
            }
        }
        assert!(read.is_empty(), "a read is taken whole");
    }
    (packets, None, decoder.version())
}

fn survives(reader: u8, packet: &Packet) {
    let mut again = decoder(reader);
    let version = match packet {
        Packet::Connect(connect) => connect.version,
        _ => match again.version() {
            Some(version) => version,
            // A fresh server's later packets have the version of a CONNECT that is gone here.
            None => return,
        },
    };
    let mut wire = BytesMut::new();
    packet
        .encode(version, &mut wire)
        .expect("what was read can be written");
    assert_eq!(wire.len(), packet.encoded_len(version));
    let mut wire = wire.freeze();
    assert_eq!(again.decode(&mut wire), Ok(Some(packet.clone())));
    assert!(wire.is_empty());
}
