//! Strangers' bytes: what is wrong ends one connection, with the protocol's own code.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::ground::Ground;
use crate::program::{Home, PATIENCE};
use crate::wire::{Hello, Wire, packet, publish};

#[test]
fn malformed_mqtt_ends_its_connection_with_a_reason() {
    let mut ground = Ground::new();
    for (bytes, reason, why) in [
        (vec![0x36, 4, 0, 1, b'a', 0], 0x81, "QoS 3 [MQTT-3.3.1-4]"),
        (
            vec![0x80, 0],
            0x81,
            "SUBSCRIBE with wrong flags [MQTT-3.8.1-1]",
        ),
        (
            packet(0x30, &[0, 9, b'a', 0]),
            0x81,
            "a topic longer than the packet",
        ),
        (
            packet(0x30, &[0, 1, b'#', 0]),
            0x90,
            "a wildcard in a Topic Name",
        ),
        (packet(0x30, &[0, 1, 0xFF, 0]), 0x81, "no UTF-8"),
        (
            vec![0x30, 0xFF, 0xFF, 0xFF, 0xFF, 1],
            0x81,
            "five bytes of length",
        ),
        (
            packet(0x10, b"\0\x04MQTT\x05\x02\0\0\0\0\0"),
            0x82,
            "a second CONNECT",
        ),
    ] {
        ground.refused_bytes(&bytes, reason, why);
        ground.refused_bytes_in_3(&bytes, why);
    }
    ground.end();
}

#[test]
fn malformed_connect_is_answered_by_connack_or_the_end() {
    let mut ground = Ground::new();
    for (body, reason, why) in [
        (
            &b"\0\x04MQTT\x05\x03\0\0\0\0\0"[..],
            0x81,
            "the reserved flag [MQTT-3.1.2-3]",
        ),
        (b"\0\x04MQTT\x07\x02\0\0\0\0\0", 0x84, "version 7"),
        (
            b"\0\x04MQTT\x05\x02\0\0\x02\x21\0\0\0",
            0x81,
            "Receive Maximum without its value",
        ),
    ] {
        ground.connect_refused(&packet(0x10, body), reason, why);
    }
    ground.no_answer(b"GET / HTTP/1.1\r\n\r\n", "no CONNECT");
    ground.end();
}

#[test]
fn oversized_packet_is_refused_by_its_head_alone() {
    let mut ground = Ground::with(&["--set", "mqtt.packet_bytes_max=1KiB"]);
    ground.refused("30 d00f", 0x95, "Packet too large");
    ground.refused_in_3("30 d00f", "Packet too large");
    ground.end();
}

#[test]
fn packet_of_the_announced_size_is_taken_by_the_log() {
    // Over TCP, in order and whole [MQTT-4.2-1].
    let home = Home::new();
    // Each message is routed twice and retained.
    home.configure(
        "[log]\nwal_bytes_max = \"16MiB\"\n[[route]]\nfrom = \"#\"\nto = \"one\"\ncopy = true\n\
         [[route]]\nfrom = \"{all...}\"\nto = \"two\"\nkey = \"{all}\"\n",
    );
    let program = home.start();
    let name = "c".repeat(60_000);
    let (mut wire, size) = Wire::connect_for_size(program.mqtt(), &Hello::v5(&name));
    assert_eq!(
        size,
        (16 << 20) / 7 / 3 - (256 << 10),
        "a seventh, in three copies"
    );
    let topic = "t".repeat(60_000);
    let overhead = publish(&topic, &[0; 1 << 16], 1, 1).len() - (1 << 16);
    let mut bytes = publish(&topic, &vec![7; size - overhead], 1, 1);
    bytes[0] |= 1;
    assert_eq!(bytes.len(), size);
    wire.send(&bytes);
    assert_eq!(wire.packet(), (0x40, vec![0, 1]), "PUBACK, Success");
    bytes = publish(&topic, &vec![7; size + 1 - overhead], 1, 1);
    let (mut wire, _) = Wire::connect(program.mqtt(), &Hello::v5("more"));
    wire.send(&bytes[..5]);
    assert_eq!(wire.packet().1[0], 0x95, "Packet too large");
}

/// ApiVersions 0 by hand; the answer's correlation id.
fn api_versions(address: SocketAddr) -> i32 {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
        .write_all(&[0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 77, 0xFF, 0xFF])
        .unwrap();
    let mut head = [0; 8];
    stream.read_exact(&mut head).unwrap();
    i32::from_be_bytes([head[4], head[5], head[6], head[7]])
}

#[test]
fn malformed_kafka_ends_its_connection() {
    let program = Home::new().start();
    let address = program.doors["kafka"];
    for (bytes, why) in [
        (&[0xFF, 0xFF, 0xFF, 0xFF][..], "a negative frame"),
        (&[0x7F, 0xFF, 0xFF, 0xFF], "two gigabytes announced"),
        (&[0, 0, 0, 2, 0, 18], "a header cut short"),
        (
            &[
                0, 0, 0, 14, 0, 3, 0, 1, 0, 0, 0, 1, 0xFF, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF,
            ],
            "Metadata of two milliards of topics in four bytes",
        ),
        (
            &[0, 0, 0, 10, 0x7F, 0, 0, 0, 0, 0, 0, 1, 0xFF, 0xFF],
            "an API that is none",
        ),
    ] {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(bytes).unwrap();
        let mut rest = Vec::new();
        match stream.read_to_end(&mut rest) {
            Ok(_) => assert_eq!(rest, b"", "{why}"),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{why}"),
        }
        assert_eq!(api_versions(address), 77, "after {why}");
    }
}
