//! Before CONNECT is accepted.

use std::io::Write;
use std::net::TcpStream;

use super::{CON4, CON5};
use crate::ground::{Ground, ends_with, to_the_end};
use crate::program::{Home, PATIENCE, until};
use crate::wire::{Hello, Wire, hex, packet, text};

/// A quick limit, so that a test need not wait five seconds for each.
const QUICK: &[&str] = &["--set", "mqtt.connect_timeout=300ms"];

#[test]
fn row_01_first_packet_is_no_connect_and_announces_much() {
    let mut ground = Ground::new();
    for first in [0x00_u8, 0x30, 0x32, 0x40, 0x62, 0x82, 0xA2, 0xE0, 0xF0] {
        let head = [first, 0x80, 0x80, 0x80, 0x74];
        ground.no_answer(&head[..1], "the first byte is enough [MQTT-3.1.0-1]");
        let mut wire = Wire::open(ground.program.mqtt());
        wire.send(&head);
        let taken = wire.flood(&[0; 1 << 16], 100 << 20);
        assert!(taken < 16 << 20, "{first:#x}: {taken} bytes taken");
        ground.goes_on();
    }
    ground.end();
}

#[test]
fn row_02_pingreq_first() {
    let mut ground = Ground::new();
    ground.no_answer(&hex("c000"), "no PINGRESP before CONNECT");
    ground.end();
}

#[test]
fn row_03_connect_announces_256_mb() {
    let mut ground = Ground::with(QUICK);
    let sockets: Vec<TcpStream> = (0..1_000)
        .map(|_| {
            let mut stream = TcpStream::connect(ground.program.mqtt()).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(&hex("10 ffffff7f")).unwrap();
            stream
        })
        .collect();
    for mut socket in sockets {
        assert_eq!(to_the_end(&mut socket), b"");
    }
    ground.goes_on();
    // What is announced within the limit is not taken on trust either.
    let sockets: Vec<TcpStream> = (0..1_000)
        .map(|_| {
            let mut stream = TcpStream::connect(ground.program.mqtt()).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(&hex("10 80fe03 0004 4d515454")).unwrap();
            stream
        })
        .collect();
    ground.goes_on();
    let grown = ground.grown();
    assert!(
        grown < 12 << 20,
        "{grown} bytes for 1,000 announced CONNECTs"
    );
    for mut socket in sockets {
        assert_eq!(to_the_end(&mut socket), b"");
    }
    ground.end();
}

#[test]
fn row_04_silence_and_half_a_connect() {
    let mut ground = Ground::with(QUICK);
    let connect = hex(CON5);
    for part in [0, 1, connect.len() - 1] {
        let sockets: Vec<TcpStream> = (0..1_000)
            .map(|_| {
                let mut stream = TcpStream::connect(ground.program.mqtt()).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                stream.write_all(&connect[..part]).unwrap();
                stream
            })
            .collect();
        ground.goes_on();
        for mut socket in sockets {
            assert_eq!(to_the_end(&mut socket), b"", "{part} bytes, then silence");
        }
    }
    ground.end();
    // A machine that allows few open files: accept goes on once some are free again.
    let home = Home::with_files(160);
    let mut ground = Ground::at(&home, QUICK);
    let sockets: Vec<TcpStream> = (0..400)
        .map(|_| TcpStream::connect(ground.program.mqtt()).unwrap())
        .collect();
    ground.goes_on();
    drop(sockets);
    until("a new client gets in", || {
        let mut wire = Wire::open(ground.program.mqtt());
        wire.send(&hex(CON4));
        wire.next().is_some()
    });
    ground.end();
}

#[test]
fn row_10_strings_longer_than_the_packet() {
    let mut ground = Ground::new();
    let head = b"\0\x04MQTT\x05\x02\0\x3c";
    for (rest, why) in [
        (
            &b"\0\0\x50abc"[..],
            "a client id of 80 bytes, three are there",
        ),
        (b"\x40\x11\0\0", "64 bytes of properties, three are there"),
        (b"\0\xff\xff", "a client id of 65,535 bytes, none is there"),
    ] {
        let connect = packet(0x10, &[&head[..], rest].concat());
        ground.connect_refused(&connect, 0x81, why);
    }
    let connect = packet(0x10, b"\0\x04MQTT\x04\x02\0\x3c\0\x50abc");
    ground.no_answer(&connect, "3.1.1: a client id of 80 bytes");
    ground.end();
}

#[test]
fn row_12_property_that_a_will_may_not_have() {
    let mut ground = Ground::new();
    // Topic Alias (0x23), Receive Maximum (0x21) and Reason String (0x1F) in the Will's properties.
    for property in ["23 0001", "21 0001", "1f 0003 616263"] {
        let property = hex(property);
        let body = [
            &b"\0\x04MQTT\x05\x06\0\x3c\0\0\x01a"[..],
            &[u8::try_from(property.len()).unwrap()],
            &property,
            &text(b"will"),
            &text(&[b'x'; 60_000]),
        ]
        .concat();
        let connect = packet(0x10, &body);
        // 180 MB of Wills in all, where the row has 100,000 small ones: a leak of a tenth shows.
        for _ in 0..1_000 {
            let answer = ground.answer(&connect);
            assert_eq!(answer.first(), Some(&0x20), "{answer:x?}");
            assert_eq!(answer[2..4], [0, 0x81], "CONNACK");
        }
        ground.goes_on();
    }
    ground.end();
}

#[test]
fn row_20_connect_with_flags_in_its_fixed_header() {
    let mut ground = Ground::new();
    let connect = hex("1f0f00044d5154540402000a0003636964");
    ground.no_answer(&connect, "the flags are reserved [MQTT-2.1.3-1]");
    for (bytes, why) in [
        ("41 02 0001", "PUBACK"),
        ("52 02 0001", "PUBREC"),
        ("60 02 0001", "PUBREL"),
        ("71 02 0001", "PUBCOMP"),
        ("80 06 0001 0001 61 00", "SUBSCRIBE"),
        ("a0 05 0001 0001 61", "UNSUBSCRIBE"),
        ("c1 00", "PINGREQ"),
        ("e1 00", "DISCONNECT"),
    ] {
        ground.refused(bytes, 0x81, why);
        ground.refused_in_3(bytes, why);
    }
    ground.end();
}

#[test]
fn row_21_will_qos_or_will_retain_without_a_will() {
    let mut ground = Ground::new();
    for flags in [0x0A, 0x12, 0x22, 0x3A] {
        let body = [&b"\0\x04MQTT\x05"[..], &[flags], &b"\0\x3c\0\0\x01a"[..]].concat();
        let why = format!("flags {flags:#x} [MQTT-3.1.2-11], [MQTT-3.1.2-13]");
        ground.connect_refused(&packet(0x10, &body), 0x81, &why);
        let body = [&b"\0\x04MQTT\x04"[..], &[flags], &b"\0\x3c\0\x01a"[..]].concat();
        ground.no_answer(&packet(0x10, &body), &why);
    }
    ground.end();
}

#[test]
fn row_35_auth_that_nobody_asked_for() {
    let mut ground = Ground::new();
    ground.no_answer(&hex("f0 00"), "before CONNECT");
    ground.no_answer(&hex("f0 02 18 00"), "before CONNECT");
    ground.refused("f0 00", 0x82, "no method was agreed");
    let again = "f0 08 19 06 15 0003 616263";
    ground.refused(again, 0x82, "re-authentication without a method");
    let body = [
        &b"\x18\x88\x80\x04\x15\0\x03abc\x16"[..],
        &text(&[b'x'; 65_535]),
    ]
    .concat();
    let auth = packet(0xF0, &body);
    ground.refused_bytes(&auth, 0x82, "64 KiB of data");
    // A method that nobody knows.
    let connect = packet(0x10, b"\0\x04MQTT\x05\x02\0\x3c\x06\x15\0\x03abc\0\x01a");
    ground.connect_refused(&connect, 0x8C, "an unknown method");
    // Data without a method.
    let connect = packet(0x10, b"\0\x04MQTT\x05\x02\0\x3c\x06\x16\0\x03abc\0\x01a");
    ground.connect_refused(&connect, 0x82, "data without a method");
    ground.end();
}

#[test]
fn row_36_maxima_that_let_nothing_through() {
    let mut ground = Ground::new();
    for (property, why) in [
        ("21 0000", "Receive Maximum 0"),
        ("27 00000000", "Maximum Packet Size 0"),
    ] {
        let property = hex(property);
        let body = [
            &b"\0\x04MQTT\x05\x02\0\x3c"[..],
            &[u8::try_from(property.len()).unwrap()],
            &property,
            b"\0\x01a",
        ]
        .concat();
        ground.connect_refused(&packet(0x10, &body), 0x82, why);
    }
    for most in 1..=4 {
        let body = [
            &b"\0\x04MQTT\x05\x02\0\x3c\x05\x27\0\0\0"[..],
            &[most],
            b"\0\x01a",
        ]
        .concat();
        ground.no_answer(&packet(0x10, &body), "no CONNACK fits [MQTT-3.1.2-24]");
    }
    let hello = Hello {
        expiry_s: 0,
        ..Hello::v5("a")
    };
    let (mut wire, _) = Wire::connect(ground.program.mqtt(), &hello);
    wire.send(&hex("e0 07 00 05 11 00000e10"));
    ends_with(
        &mut wire,
        0x82,
        "an expiry raised from 0 in DISCONNECT, 3.14.2.2.2",
    );
    ground.end();
}
