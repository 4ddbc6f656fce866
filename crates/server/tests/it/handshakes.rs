//! What comes before MQTT on a connection: how long it may take, how many, and from whom.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::program::{Home, PATIENCE, Program, until};
use crate::tls_client::Client;
use crate::wire::{Hello, Wire};

/// The first bytes of a ClientHello: a record of 512 bytes, of which the rest never comes.
const HALF_HELLO: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";

fn over_tls(home: &Home) -> Client {
    Client::trusting(&home.data().join("tls/ca.pem"))
}

fn open(program: &Program, door: &str) -> TcpStream {
    let stream = TcpStream::connect(program.doors[door]).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Whether the program ended this connection, in whatever way, within our patience.
fn ended(stream: &mut impl Read) -> bool {
    loop {
        match stream.read(&mut [0; 4096]) {
            Ok(0) => return true,
            // An alert that says why.
            Ok(_) => {}
            Err(error) => return error.kind() != std::io::ErrorKind::WouldBlock,
        }
    }
}

#[test]
fn handshakes_that_stop_halfway_are_closed_and_hold_nobody_up() {
    let home = Home::new();
    let program = home.start_with(&["--set", "mqtt.connect_timeout=3s"]);
    let begin = Instant::now();
    let client = over_tls(&home);
    let mut silent: Vec<TcpStream> = (0..150).map(|_| open(&program, "tls")).collect();
    for half in silent.iter_mut().skip(75) {
        half.write_all(HALF_HELLO).unwrap();
    }
    // Through the handshake, and no CONNECT: the limit is for both.
    let mut no_connect: Vec<_> = (0..50)
        .map(|_| client.connect(program.doors["tls"]).unwrap())
        .collect();
    let stream = client.connect(program.doors["tls"]).unwrap();
    let mut served = Wire::over(stream, &Hello::v5("served"));
    served.subscribe("t", 0);
    if begin.elapsed() < Duration::from_secs(2) {
        assert_eq!(program.metric("headwater_sockets"), 201, "all are counted");
    }
    for stream in &mut silent {
        assert!(ended(stream));
    }
    assert!(
        begin.elapsed() >= Duration::from_secs(2),
        "not before the limit"
    );
    for stream in &mut no_connect {
        assert!(ended(stream));
    }
    until("their places are free", || {
        program.metric("headwater_sockets") == 1
    });
    assert_eq!(program.metric("headwater_handshakes_failed_total"), 150);
    served.send(&[0xC0, 0]);
    assert_eq!(served.packet(), (0xD0, vec![]), "PINGRESP");
    program.stop();
}

#[test]
fn one_handshake_too_many_ends_the_oldest() {
    let home = Home::new();
    let program = home.start_with(&[
        "--set",
        "mqtt.connect_timeout=1h",
        "--set",
        "mqtt.handshakes_max=4",
        "--set",
        "mqtt.shards=1",
    ]);
    let mut halves: Vec<TcpStream> = (0..10).map(|_| open(&program, "tls")).collect();
    assert!(over_tls(&home).gets_in(program.doors["tls"]));
    for half in &mut halves[..6] {
        assert!(ended(half));
    }
    until("the rest and nobody else", || {
        program.metric("headwater_sockets") <= 4
    });
    // They do not hold up the end either.
    program.stop();
}

#[test]
fn bytes_of_another_protocol_end_their_connection_alone() {
    let home = Home::new();
    let program = home.start();
    let client = over_tls(&home);
    let stream = client.connect(program.doors["tls"]).unwrap();
    let mut secure = Wire::over(stream, &Hello::v5("secure"));
    let (mut plain, _) = Wire::connect(program.mqtt(), &Hello::v5("plain"));
    for (door, bytes, what) in [
        (
            "tls",
            &b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01c"[..],
            "CONNECT",
        ),
        ("tls", b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP"),
        (
            "tls",
            b"PROXY TCP4 192.0.2.1 10.0.0.1 1 2\r\n",
            "a PROXY header",
        ),
        ("tcp", HALF_HELLO, "a ClientHello"),
        ("tcp", b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP"),
        (
            "tcp",
            b"PROXY TCP4 192.0.2.1 10.0.0.1 1 2\r\n",
            "a PROXY header",
        ),
        (
            "tcp",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x01\x02\x03\x04\x05\x06\x07\x08\0\x01\0\x02",
            "PROXY v2",
        ),
    ] {
        let begin = Instant::now();
        let mut stream = open(&program, door);
        stream.write_all(bytes).unwrap();
        assert!(ended(&mut stream), "{what} on {door}");
        assert!(
            begin.elapsed() < Duration::from_secs(4),
            "{what} on {door}: at once"
        );
    }
    secure.send(&[0xC0, 0]);
    assert_eq!(secure.packet(), (0xD0, vec![]), "PINGRESP");
    plain.send(&[0xC0, 0]);
    assert_eq!(plain.packet(), (0xD0, vec![]), "PINGRESP");
    program.stop();
}

#[test]
fn proxy_header_is_taken_from_listed_addresses_only() {
    let v1 = b"PROXY TCP4 192.0.2.77 10.0.0.1 4711 1883\r\n";
    let v2 =
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0f\xc0\x00\x02\x4d\x0a\0\0\x01\x12\x67\x07\x5b\x04\0\0";
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
    let home = Home::verbose();
    let listed = "[\"192.0.2.9\", \"127.0.0.0/8\"]";
    let mut program = home.start_with(&[
        "--set",
        &format!("listeners.tcp.proxy_protocol={listed}"),
        "--set",
        &format!("listeners.tls.proxy_protocol={listed}"),
    ]);
    let client = over_tls(&home);
    let announced = "192.0.2.77:4711";
    for (header, address) in [
        (&v1[..], announced),
        (v2, announced),
        (local, "127.0.0.1"),
        (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
    ] {
        for door in ["tcp", "tls"] {
            // Cut in two, so that one read does not hold it all.
            let mut socket = open(&program, door);
            socket.set_nodelay(true).unwrap();
            let (first, rest) = header.split_at(header.len() / 2);
            socket.write_all(first).unwrap();
            socket.write_all(rest).unwrap();
            if door == "tcp" {
                Wire::over(socket, &Hello::v5("p"));
            } else {
                Wire::over(client.connect_over(socket).unwrap(), &Hello::v5("p"));
            }
            program.wait_for_line(&format!("a handshake is over address={address}"));
        }
    }
    for (bytes, why) in [
        (
            &b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01c"[..],
            "no header at all",
        ),
        (b"PROXY TCP4 192.0.2.77 10.0.0.1 4711\r\n", "half a header"),
        (b"PROXY TCP4 192.0.2.77 10.0.0.1 99999 1\r\n", "a wrong one"),
    ] {
        let mut socket = open(&program, "tcp");
        socket.write_all(bytes).unwrap();
        assert!(ended(&mut socket), "{why}");
    }
    program.stop();
    // The same header from an address that is not listed: a spoof.
    let program = home.start_with(&["--set", "listeners.tcp.proxy_protocol=[\"192.0.2.9\"]"]);
    for header in [&v1[..], v2] {
        let mut socket = open(&program, "tcp");
        socket.write_all(header).unwrap();
        assert!(ended(&mut socket), "a spoof");
    }
    Wire::connect(program.mqtt(), &Hello::v5("direct"));
    program.stop();
}
