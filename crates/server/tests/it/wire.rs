//! MQTT by hand: bytes as the specification draws them, never by our own encoder.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::program::PATIENCE;

/// A network connection, and whole packets from it.
pub(crate) struct Wire<S = TcpStream>(S);

/// How a Client says CONNECT.
pub(crate) struct Hello<'a> {
    pub(crate) id: &'a str,
    /// 3 (MQTT 3.1), 4 (3.1.1) or 5.
    pub(crate) level: u8,
    pub(crate) clean: bool,
    /// Session Expiry Interval, for level 5.
    pub(crate) expiry_s: u32,
}

impl<'a> Hello<'a> {
    pub(crate) fn v5(id: &'a str) -> Self {
        Self {
            id,
            level: 5,
            clean: true,
            expiry_s: 0,
        }
    }

    pub(crate) fn v3(id: &'a str) -> Self {
        Self {
            id,
            level: 4,
            clean: true,
            expiry_s: 0,
        }
    }

    /// A session that outlives its connection.
    pub(crate) fn lasting(id: &'a str) -> Self {
        Self {
            id,
            level: 5,
            clean: false,
            expiry_s: 3600,
        }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', self.level];
        body.push(u8::from(self.clean) << 1);
        body.extend([0, 60]);
        if self.level == 5 {
            // Property 0x11: Session Expiry Interval.
            body.extend([5, 0x11]);
            body.extend(self.expiry_s.to_be_bytes());
        }
        body.extend(text(self.id.as_bytes()));
        packet(0x10, &body)
    }
}

/// A string as MQTT writes it.
pub(crate) fn text(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap();
    [&length.to_be_bytes()[..], bytes].concat()
}

/// Bytes of hexadecimal digits; blanks are for the eye.
pub(crate) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<char> = text.chars().filter(|one| !one.is_whitespace()).collect();
    let byte = |pair: &[char]| u8::from_str_radix(&String::from_iter(pair), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

/// A fixed header and what follows it.
pub(crate) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut left = body.len();
    loop {
        let low = u8::try_from(left % 128).unwrap();
        left /= 128;
        bytes.push(if left > 0 { low | 0x80 } else { low });
        if left == 0 {
            break;
        }
    }
    bytes.extend(body);
    bytes
}

/// A PUBLISH of version 5; `id` 0 is none.
pub(crate) fn publish(topic: &str, payload: &[u8], qos: u8, id: u16) -> Vec<u8> {
    let mut body = text(topic.as_bytes());
    if qos > 0 {
        body.extend(id.to_be_bytes());
    }
    body.push(0);
    body.extend(payload);
    packet(0x30 | qos << 1, &body)
}

/// A SUBSCRIBE of version 5 with packet identifier 1.
pub(crate) fn subscribe(filter: &str, qos: u8) -> Vec<u8> {
    let mut body = vec![0, 1, 0];
    body.extend(text(filter.as_bytes()));
    body.push(qos);
    packet(0x82, &body)
}

impl<S: Read + Write> Wire<S> {
    /// Connects over a stream that is there, and takes the CONNACK, which must say yes.
    pub(crate) fn over(stream: S, hello: &Hello<'_>) -> Self {
        let mut wire = Self(stream);
        wire.send(&hello.bytes());
        let (first, body) = wire.packet();
        assert_eq!((first, body[1]), (0x20, 0), "CONNACK");
        wire
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    /// Sends what the peer may have closed to.
    pub(crate) fn send_if_open(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).ok();
    }

    /// Reads and drops this many bytes.
    pub(crate) fn skip(&mut self, bytes: usize) {
        let read = std::io::copy(&mut (&mut self.0).take(bytes as u64), &mut std::io::sink());
        assert_eq!(read.unwrap(), bytes as u64, "and no fewer");
    }

    /// The next packet: first byte and body.
    pub(crate) fn packet(&mut self) -> (u8, Vec<u8>) {
        self.next().expect("a packet, not the end")
    }

    /// The next packet; `None` where the connection ends before it, or is reset. Silence and half a
    /// packet are neither.
    pub(crate) fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut first = [0];
        match self.0.read(&mut first) {
            Ok(1) => {}
            Ok(_) => return None,
            // Also without a goodbye of TLS.
            Err(error) if is_end(&error) => return None,
            Err(error) => panic!("neither a packet nor the end: {error}"),
        }
        match self.rest() {
            Ok(body) => Some((first[0], body)),
            // Closed over bytes that were not read: what was under way is lost.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => None,
            Err(error) => panic!("{:#x} and no whole packet: {error}", first[0]),
        }
    }

    /// What follows the first byte of a packet.
    fn rest(&mut self) -> Result<Vec<u8>> {
        let (mut length, mut shift) = (0, 0);
        loop {
            let mut byte = [0];
            self.0.read_exact(&mut byte)?;
            length |= usize::from(byte[0] & 0x7f) << shift;
            shift += 7;
            if byte[0] & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        Ok(body)
    }

    /// Subscribes and takes the SUBACK, which must grant.
    pub(crate) fn subscribe(&mut self, filter: &str, qos: u8) {
        self.send(&subscribe(filter, qos));
        let (first, body) = self.packet();
        assert_eq!((first, body[body.len() - 1]), (0x90, qos), "SUBACK");
    }

    /// The next packet, which must be a PUBLISH of version 5.
    pub(crate) fn message(&mut self) -> Message {
        let (first, body) = self.packet();
        assert_eq!(first & 0xF0, 0x30, "a PUBLISH, not {first:#x} {body:?}");
        let length = usize::from(u16::from_be_bytes([body[0], body[1]]));
        let (topic, mut rest) = body[2..].split_at(length);
        let mut id = 0;
        if first & 0x06 != 0 {
            id = u16::from_be_bytes([rest[0], rest[1]]);
            rest = &rest[2..];
        }
        let properties = usize::from(rest[0]);
        assert!(
            properties < 128,
            "one byte of length is all that is read here"
        );
        Message {
            topic: String::from_utf8(topic.to_vec()).unwrap(),
            payload: rest[1 + properties..].to_vec(),
            id,
        }
    }

    /// PUBACK, PUBREC, PUBREL or PUBCOMP by its first byte.
    pub(crate) fn acknowledge(&mut self, first: u8, id: u16) {
        self.send(&packet(first, &id.to_be_bytes()));
    }
}

impl Wire {
    pub(crate) fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    /// Connects and takes the CONNACK, which must say yes; whether a session was present.
    pub(crate) fn connect(address: SocketAddr, hello: &Hello<'_>) -> (Self, bool) {
        let mut wire = Self::open(address);
        wire.send(&hello.bytes());
        let (first, body) = wire.packet();
        assert_eq!((first, body[1]), (0x20, 0), "CONNACK");
        (wire, body[0] == 1)
    }

    /// Connects with version 5; the Maximum Packet Size of the CONNACK.
    pub(crate) fn connect_for_size(address: SocketAddr, hello: &Hello<'_>) -> (Self, usize) {
        let mut wire = Self::open(address);
        wire.send(&hello.bytes());
        let (_, body) = wire.packet();
        let mut at = 3;
        loop {
            // Only what our CONNACK says: one byte, two, four bytes of value, by identifier.
            let value = match body[at] {
                0x24 | 0x25 | 0x28 | 0x29 | 0x2A => 1,
                0x13 | 0x21 | 0x22 => 2,
                0x11 => 4,
                0x27 => {
                    let size = body[at + 1..at + 5].try_into().unwrap();
                    return (wire, u32::from_be_bytes(size) as usize);
                }
                other => panic!("property {other:#x} before the Maximum Packet Size"),
            };
            at += 1 + value;
        }
    }

    /// Sends `packets` again and again, `bytes_max` in all, until nobody has taken any of it for
    /// two seconds or the connection ends; how many bytes were taken.
    pub(crate) fn flood(&mut self, packets: &[u8], bytes_max: usize) -> usize {
        let patience = Some(Duration::from_secs(2));
        self.0.set_write_timeout(patience).unwrap();
        let mut taken = 0;
        while taken < bytes_max {
            let from = taken % packets.len();
            match self.0.write(&packets[from..]) {
                Ok(wrote) => taken += wrote,
                Err(_) => break,
            }
        }
        taken
    }
}

pub(crate) struct Message {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) id: u16,
}

fn is_end(error: &Error) -> bool {
    let kinds = [ErrorKind::ConnectionReset, ErrorKind::UnexpectedEof];
    kinds.contains(&error.kind())
}

#[test]
#[should_panic(expected = "no whole packet")]
fn half_a_packet_is_not_the_end() {
    Wire(std::io::Cursor::new(vec![0xE0, 2, 0])).next();
}

#[test]
#[should_panic(expected = "neither a packet nor the end")]
fn silence_is_not_the_end() {
    let (near, _far) = std::os::unix::net::UnixStream::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    Wire(near).next();
}
