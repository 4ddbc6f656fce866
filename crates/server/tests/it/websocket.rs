//! The WebSocket door, by bytes written by hand (RFC 6455; MQTT 5.0, 6).

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::ground::Ground;
use crate::program::{Home, PATIENCE, Program};
use crate::tls_client::Client;
use crate::wire::{Hello, Wire, packet, publish, subscribe};

const UPGRADE: &str = "GET /mqtt HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\
                       Sec-WebSocket-Version: 13\r\n\r\n";
/// CONNECT of version 5, client id "w", with the Will "gone" on "b".
const CONNECT: &[u8] = b"\x10\x18\0\x04MQTT\x05\x06\0\x3c\0\0\x01w\0\0\x01b\0\x04gone";

/// A client's frame of binary data, ping or whatever its first byte says.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xFA, 0x21, 0x3D];
    let mut bytes = vec![first];
    match u8::try_from(payload.len()) {
        Ok(length) if length < 126 => bytes.push(0x80 | length),
        _ => {
            bytes.push(0xFE);
            bytes.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
        }
    }
    bytes.extend(mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(a, b)| a ^ b));
    bytes
}

/// A TCP connection to the door.
struct Socket {
    stream: TcpStream,
    /// MQTT's bytes that came in frames and were not taken yet.
    mqtt: Vec<u8>,
}

impl Socket {
    fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let mqtt = Vec::new();
        Self { stream, mqtt }
    }

    /// After the upgrade.
    fn upgraded(program: &Program) -> Self {
        let mut socket = Self::open(program.doors["ws"]);
        socket.send(UPGRADE.as_bytes());
        let head = socket.head();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert!(head.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
        // [MQTT-6.0.0-4]
        assert!(head.contains("Sec-WebSocket-Protocol: mqtt\r\n"));
        socket
    }

    /// After CONNECT.
    fn connected(program: &Program) -> Self {
        let mut socket = Self::upgraded(program);
        socket.send(&frame(0x82, CONNECT));
        assert_eq!(socket.packet().0, 0x20, "CONNACK");
        socket
    }

    fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// An HTTP answer up to its empty line.
    fn head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.stream.read_exact(&mut byte).unwrap();
            head.extend(byte);
        }
        String::from_utf8(head).unwrap()
    }

    /// The next frame: first byte and payload. `None` where the connection ends.
    fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut head = [0; 2];
        match self.stream.read(&mut head[..1]) {
            Ok(1) => {}
            Ok(_) => return None,
            Err(error) => panic!("neither a frame nor the end: {error}"),
        }
        self.stream.read_exact(&mut head[1..]).unwrap();
        let length = match head[1] {
            126 => {
                let mut length = [0; 2];
                self.stream.read_exact(&mut length).unwrap();
                usize::from(u16::from_be_bytes(length))
            }
            short => usize::from(short),
        };
        assert!(length < 1 << 16, "a server masks nothing");
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload).unwrap();
        Some((head[0], payload))
    }

    /// The next packet of MQTT: first byte and body, which is short.
    fn packet(&mut self) -> (u8, Vec<u8>) {
        loop {
            if let [first, length, body @ ..] = &self.mqtt[..]
                && body.len() >= usize::from(*length)
            {
                let end = 2 + usize::from(*length);
                let packet = (*first, self.mqtt[2..end].to_vec());
                self.mqtt.drain(..end);
                return packet;
            }
            let (first, payload) = self.frame().expect("a frame, not the end");
            assert_eq!(first, 0x82, "[MQTT-6.0.0-1]");
            self.mqtt.extend(payload);
        }
    }
}

/// Who gets the messages and Wills that the others send to "b".
fn heir(ground: &Ground) -> Wire {
    let mut heir = ground.v5("heir");
    heir.subscribe("b", 0);
    heir
}

#[test]
fn packets_over_frames_and_several_in_one() {
    let ground = Ground::new();
    let mut heir = heir(&ground);
    let mut socket = Socket::upgraded(&ground.program);
    for byte in CONNECT {
        socket.send(&frame(0x82, &[*byte]));
    }
    assert_eq!(socket.packet().0, 0x20, "CONNACK [MQTT-6.0.0-2]");
    // One PUBLISH in more than a thousand frames, a ping among them.
    let payload = [b'p'; 1000];
    let whole = publish("b", &payload, 0, 0);
    for (at, byte) in whole.iter().enumerate() {
        if at == 500 {
            socket.send(&frame(0x89, b"alive?"));
        }
        socket.send(&frame(0x82, &[*byte]));
    }
    assert_eq!(
        socket.frame().unwrap(),
        (0x8A, b"alive?".to_vec()),
        "a pong"
    );
    assert_eq!(heir.message().payload, payload);
    socket.send(&frame(0x82, &subscribe("w", 1)));
    assert_eq!(socket.packet().0, 0x90, "SUBACK");
    // Three packets in one message of two fragments.
    let three = [&[0xC0, 0], &publish("w", b"mine", 1, 7)[..], &[0xC0, 0]].concat();
    let (one, two) = three.split_at(5);
    socket.send(&[frame(0x02, one), frame(0x80, two)].concat());
    let mut kinds: Vec<u8> = (0..4).map(|_| socket.packet().0).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, [0x32, 0x40, 0xD0, 0xD0], "PUBLISH, PUBACK, PINGRESP");
    // A Client that ends in order: no Will, and its Close comes back.
    socket.send(&[frame(0x82, &[0xE0, 0]), frame(0x88, b"\x03\xE8")].concat());
    let mut frames = std::iter::from_fn(|| socket.frame());
    assert_eq!(frames.next(), Some((0x88, b"\x03\xE8".to_vec())));
    assert_eq!(frames.next(), None);
    heir.send(&publish("b", b"no Will", 0, 0));
    assert_eq!(heir.message().payload, b"no Will");
    drop((socket, heir));
    ground.end();
}

#[test]
fn row_34_what_breaks_websocket_is_closed_with_its_status() {
    let mut ground = Ground::new();
    let mut heir = heir(&ground);
    for (bytes, status, why) in [
        (
            frame(0x81, b"text"),
            1003_u16,
            "a text frame [MQTT-6.0.0-1]",
        ),
        (
            vec![0x82, 0x02, 0xC0, 0],
            1002,
            "a frame that is not masked",
        ),
        (
            vec![0x82, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4],
            1002,
            "a length of 2^63",
        ),
        (frame(0x09, b"part"), 1002, "a fragmented ping"),
        (frame(0x89, &[0; 126]), 1002, "a ping of 126 bytes"),
        (
            frame(0xC2, &[0xC0, 0]),
            1002,
            "compressed without an extension",
        ),
        (frame(0x80, &[0xC0, 0]), 1002, "a continuation of nothing"),
        (frame(0x83, &[0xC0, 0]), 1002, "an unknown kind"),
        (
            frame(0x88, b"\x03\xE8\xFF"),
            1007,
            "a Close with a reason that is no text",
        ),
    ] {
        for is_connected in [false, true] {
            let mut socket = match is_connected {
                true => Socket::connected(&ground.program),
                false => Socket::upgraded(&ground.program),
            };
            // More than the server has read when it ends: its Close must arrive nevertheless.
            let more = frame(0x82, &[0; 60_000]);
            socket.send(&[&bytes[..], &more].concat());
            let close = (0x88, status.to_be_bytes().to_vec());
            assert_eq!(socket.frame(), Some(close), "{why}");
            assert_eq!(socket.frame(), None, "{why}");
            if is_connected {
                assert_eq!(heir.message().payload, b"gone", "the Will: {why}");
            }
        }
        ground.goes_on();
    }
    drop(heir);
    ground.end();
}

#[test]
fn what_is_no_upgrade_gets_a_short_answer_and_the_end() {
    let ground = Ground::new();
    for (request, status, why) in [
        (
            "GET / HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(),
            "404",
            "another path",
        ),
        (
            "GET /mqtt HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(),
            "426",
            "a browser",
        ),
        (UPGRADE.replace("GET", "POST"), "405", "POST"),
        (
            UPGRADE.replace("Protocol: mqtt", "Protocol: chat"),
            "400",
            "not MQTT",
        ),
        (
            UPGRADE.replace("Host: h", "Origin: https://example.com"),
            "403",
            "a page",
        ),
        ("x".repeat(100), "400", "no HTTP"),
        (
            "GET /".to_owned() + &"x".repeat(1 << 20),
            "414",
            "a line of 1 MB",
        ),
        (
            UPGRADE.trim_end().to_owned() + &"\r\nX: y".repeat(100_000),
            "431",
            "header fields without end",
        ),
    ] {
        let mut socket = Socket::open(ground.program.doors["ws"]);
        socket.send(request.as_bytes());
        let mut answer = String::new();
        socket.stream.read_to_string(&mut answer).unwrap();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{why}: {answer}"
        );
        assert!(
            answer.contains("Connection: close\r\n") && answer.ends_with('\n'),
            "{why}"
        );
    }
    // Who offers no subprotocol is served without one.
    let mut socket = Socket::open(ground.program.doors["ws"]);
    let request = UPGRADE.replace("Sec-WebSocket-Protocol: mqtt\r\n", "");
    socket.send(request.as_bytes());
    let head = socket.head();
    assert!(
        head.starts_with("HTTP/1.1 101 ") && !head.contains("Sec-WebSocket-Protocol"),
        "{head}"
    );
    socket.send(&frame(0x82, CONNECT));
    assert_eq!(socket.packet().0, 0x20, "CONNACK");
    drop(socket);
    ground.end();
}

#[test]
fn path_and_pages_are_what_the_configuration_says() {
    let origins = "listeners.ws.origins=[\"https://example.com\"]";
    let more = ["--set", "listeners.ws.path=/broker", "--set", origins];
    let program = Home::new().start_with(&more);
    for (path, origin, status) in [
        ("/broker", "https://example.com", "101"),
        ("/broker?key=1", "https://EXAMPLE.com", "101"),
        ("/broker", "http://localhost", "403"),
        ("/mqtt", "https://example.com", "404"),
    ] {
        let mut socket = Socket::open(program.doors["ws"]);
        let request = UPGRADE.replace("/mqtt", path);
        socket.send(
            request
                .replace("Host: h", &format!("Origin: {origin}"))
                .as_bytes(),
        );
        let head = socket.head();
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status} ")),
            "{path} {origin}: {head}"
        );
    }
}

/// anchors/bad-inputs, rows 4 and 34.
#[test]
fn ping_floods_and_half_handshakes_cost_little() {
    let mut ground = Ground::with(&["--set", "mqtt.connect_timeout=1s"]);
    // 100 MB of pings that nobody reads the answers of.
    let mut socket = Socket::connected(&ground.program);
    let pings = frame(0x89, &[b'x'; 125]).repeat(1000);
    for _ in 0..760 {
        socket.send(&pings);
    }
    socket.send(&frame(0x89, b"last"));
    let grown = ground.grown();
    assert!(grown < 8 << 20, "{grown} bytes more than before");
    let mut pongs = 1;
    while socket.frame().unwrap() != (0x8A, b"last".to_vec()) {
        pongs += 1;
    }
    assert!(pongs <= 760_001, "{pongs}");
    ground.goes_on();
    // Pings are no CONNECT, and neither is half a request.
    let mut half = Socket::open(ground.program.doors["ws"]);
    half.send(&UPGRADE.as_bytes()[..60]);
    let mut silent = Socket::upgraded(&ground.program);
    silent.send(&frame(0x89, b""));
    assert_eq!(silent.frame(), Some((0x8A, Vec::new())));
    assert_eq!(
        silent.frame(),
        Some((0x88, b"\x03\xE8".to_vec())),
        "a Close"
    );
    assert_eq!(silent.frame(), None);
    assert_eq!(half.stream.read(&mut [0]).unwrap(), 0, "the end");
    drop((socket, silent, half));
    ground.end();
}

#[test]
fn stop_says_disconnect_and_close() {
    let program = Home::new().start();
    let mut socket = Socket::connected(&program);
    let silent = Socket::upgraded(&program);
    let stopping = std::thread::spawn(move || program.stop());
    let (first, body) = socket.packet();
    assert_eq!((first, body[0]), (0xE0, 0x8B), "Server shutting down");
    assert_eq!(socket.frame(), Some((0x88, b"\x03\xE8".to_vec())));
    drop(silent);
    stopping.join().unwrap();
}

#[test]
fn large_packets_go_through_in_both_directions() {
    let program = Home::new().start();
    let mut socket = Socket::connected(&program);
    let (mut reader, _) = Wire::connect(program.mqtt(), &Hello::v5("reader"));
    reader.subscribe("large", 0);
    let payload: Vec<u8> = (0..=250).cycle().take(1 << 20).collect();
    let whole = publish("large", &payload, 0, 0);
    for piece in whole.chunks(60_000) {
        socket.send(&frame(0x82, piece));
    }
    assert!(reader.message().payload == payload);
    socket.send(&frame(0x82, &subscribe("back", 0)));
    assert_eq!(socket.packet().0, 0x90, "SUBACK");
    reader.send(&publish("back", &payload, 0, 0));
    let expected = packet(0x30, &[&b"\0\x04back\0"[..], &payload].concat());
    let mut got = Vec::new();
    socket
        .stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    while got.len() < expected.len() {
        let mut head = [0; 2];
        socket.stream.read_exact(&mut head).unwrap();
        assert_eq!(head[0], 0x82);
        let mut length = vec![
            0;
            match head[1] {
                127 => 8,
                126 => 2,
                _ => 0,
            }
        ];
        socket.stream.read_exact(&mut length).unwrap();
        let length = match length.len() {
            0 => usize::from(head[1]),
            _ => length
                .iter()
                .fold(0, |sum, byte| sum << 8 | usize::from(*byte)),
        };
        let from = got.len();
        got.resize(from + length, 0);
        socket.stream.read_exact(&mut got[from..]).unwrap();
    }
    assert!(got == expected);
}

#[test]
fn secure_websocket_is_the_same_within_tls() {
    let home = Home::new();
    let program = home.start();
    let client = Client {
        protocols: vec![b"http/1.1".to_vec()],
        ..Client::trusting(&home.data().join("tls/ca.pem"))
    };
    let mut stream = client.connect(program.doors["wss"]).unwrap();
    stream.write_all(UPGRADE.as_bytes()).unwrap();
    let mut head = [0; 33];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(&head[..], b"HTTP/1.1 101 Switching Protocols\r");
    let mut rest = Vec::new();
    while !rest.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        rest.extend(byte);
    }
    stream.write_all(&frame(0x82, CONNECT)).unwrap();
    let mut connack = [0; 2];
    stream.read_exact(&mut connack).unwrap();
    assert_eq!(connack[0], 0x82, "CONNACK in a frame");
    stream.write_all(&frame(0x81, b"text")).unwrap();
    let mut answer = Vec::new();
    // Ends with the end of TLS or of the socket.
    stream.read_to_end(&mut answer).ok();
    assert_eq!(answer[0], 0x20, "CONNACK");
    assert!(answer.ends_with(&[0x88, 2, 0x03, 0xEB]), "1003: {answer:?}");
    assert!(
        client.connect(program.doors["tls"]).is_err(),
        "no HTTP at MQTT's own door"
    );
}
