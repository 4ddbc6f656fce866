//! What broke other brokers, one test a row of the list that the project keeps of such inputs (`row_NN_...`).
//!
//! Each sends those bytes and asserts the answer; then others must go on, every socket of the row must be
//! gone, no bug may have been met, and memory must have come back. Where a row holds much, what is freed
//! stays with the allocator for a while: such a row goes several rounds, and the later ones must find the
//! memory of the first.

mod floods;
mod handshake;
mod packets;
mod publishes;
mod sessions;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::program::{Home, PATIENCE, Program, until};
use crate::wire::{Hello, Wire, publish};

/// What a debug build may hold more after a row than before it: buffers, caches, the allocator's spare pages.
const SLACK_BYTES: usize = 12 << 20;

/// CONNECT of 3.1.1 and of 5.0, client id "a", clean, Keep Alive 60 s.
const CON4: &str = "10 0d 0004 4d515454 04 02 003c 0001 61";
const CON5: &str = "10 0e 0004 4d515454 05 02 003c 00 0001 61";

/// Bytes of hexadecimal digits; blanks are for the eye.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<char> = text.chars().filter(|one| !one.is_whitespace()).collect();
    let byte = |pair: &[char]| u8::from_str_radix(&String::from_iter(pair), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

/// A program and two clients of it that must not notice.
struct Ground {
    program: Program,
    speaker: Wire,
    listener: Wire,
    told: u32,
    before: usize,
    /// Resident memory after each round of a row that has several.
    rounds: Vec<usize>,
}

impl Ground {
    fn new() -> Self {
        Self::with(&[])
    }

    /// With more arguments to `serve`.
    fn with(more: &[&str]) -> Self {
        Self::at(&Home::new(), more)
    }

    fn at(home: &Home, more: &[&str]) -> Self {
        let program = home.start_with(&[&["--set", "default_flows=false"], more].concat());
        let (speaker, _) = Wire::connect(program.mqtt(), &Hello::v5("speaker"));
        let (mut listener, _) = Wire::connect(program.mqtt(), &Hello::v5("listener"));
        listener.subscribe("witness", 1);
        let mut ground = Self {
            program,
            speaker,
            listener,
            told: 0,
            before: 0,
            rounds: Vec::new(),
        };
        ground.goes_on();
        ground.before = ground.program.resident();
        ground
    }

    /// The two exchange a message at QoS 1.
    fn goes_on(&mut self) {
        self.told += 1;
        let payload = self.told.to_be_bytes();
        self.speaker.send(&publish("witness", &payload, 1, 1));
        assert_eq!(self.speaker.packet().0, 0x40, "PUBACK to the speaker");
        let message = self.listener.message();
        assert_eq!(message.payload, payload);
        self.listener.acknowledge(0x40, message.id);
    }

    fn v5(&self, id: &str) -> Wire {
        Wire::connect(self.program.mqtt(), &Hello::v5(id)).0
    }

    fn v3(&self, id: &str) -> Wire {
        Wire::connect(self.program.mqtt(), &Hello::v3(id)).0
    }

    /// These bytes on a new connection; what is answered until the end, which must come.
    fn answer(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.program.mqtt()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // It may be closed before all of it is written.
        stream.write_all(bytes).ok();
        to_the_end(&mut stream)
    }

    /// A first packet that gets no answer at all.
    fn no_answer(&mut self, bytes: &[u8], why: &str) {
        assert_eq!(self.answer(bytes), b"", "{why}");
        self.goes_on();
    }

    /// A CONNECT of version 5 that is refused with one of these codes, or by the close alone.
    fn connect_refused(&mut self, bytes: &[u8], reasons: &[u8], why: &str) {
        let answer = self.answer(bytes);
        if !answer.is_empty() {
            assert_eq!((answer[0], answer[2]), (0x20, 0), "CONNACK: {why}");
            assert!(reasons.contains(&answer[3]), "{why}: {:#x}", answer[3]);
        }
        self.goes_on();
    }

    /// Bytes behind an accepted CONNECT that end the connection: in 5.0 with one of these codes,
    /// before it by the close alone.
    fn refused(&mut self, bytes: &str, reasons: &[u8], why: &str) {
        self.refused_bytes(&hex(bytes), reasons, why);
    }

    fn refused_bytes(&mut self, bytes: &[u8], reasons: &[u8], why: &str) {
        let mut wire = self.v5("a");
        wire.send(bytes);
        ends_with(&mut wire, reasons, why);
        self.goes_on();
    }

    fn refused_in_3(&mut self, bytes: &str, why: &str) {
        let mut wire = self.v3("a");
        wire.send(&hex(bytes));
        assert_eq!(wire.next(), None, "3.1.1: {why}");
        self.goes_on();
    }

    /// Only the witnesses are connected.
    fn all_gone(&self) {
        until("the sockets of the row are gone", || {
            self.program.metric("headwater_sockets") == 2
        });
    }

    /// One round of a row is over.
    fn round_over(&mut self) {
        self.goes_on();
        self.all_gone();
        self.rounds.push(self.program.resident());
    }

    /// The row is over: its sockets and what it held are gone, and nobody met a bug.
    fn end(mut self) {
        self.goes_on();
        self.all_gone();
        let back = SLACK_BYTES + self.rounds.first().copied().unwrap_or(self.before);
        let begin = Instant::now();
        let program = &self.program;
        while program.resident() >= back {
            let held = program.resident();
            assert!(
                begin.elapsed() < PATIENCE,
                "{held} bytes; {} before, {:?} after each round",
                self.before,
                self.rounds
            );
            std::thread::park_timeout(Duration::from_millis(10));
        }
        assert_eq!(program.metric("headwater_panics_total"), 0, "bugs");
        self.program.stop();
    }
}

/// All bytes until the peer closes.
fn to_the_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
        Err(error) => panic!("the connection does not end: {error}"),
    }
    answer
}

/// DISCONNECT with one of these codes, then the end. Packets before it are passed over.
fn ends_with(wire: &mut Wire, reasons: &[u8], why: &str) {
    while let Some((first, body)) = wire.next() {
        if first == 0xE0 {
            // A body of no bytes is Normal disconnection.
            let reason = body.first().copied().unwrap_or(0);
            assert!(reasons.contains(&reason), "{why}: {reason:#x}");
            assert_eq!(wire.next(), None, "{why}");
            return;
        }
    }
    panic!("{why}: closed without a DISCONNECT");
}

/// A string as MQTT writes it.
fn text(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap();
    [&length.to_be_bytes()[..], bytes].concat()
}

/// The list has 38 rows; none is left out.
#[test]
fn every_row_has_its_test() {
    let sources = [
        include_str!("bad_rows/floods.rs"),
        include_str!("bad_rows/handshake.rs"),
        include_str!("bad_rows/packets.rs"),
        include_str!("bad_rows/publishes.rs"),
        include_str!("bad_rows/sessions.rs"),
        include_str!("websocket.rs"),
    ];
    for row in 1..=38 {
        let name = format!("\nfn row_{row:02}_");
        assert!(sources.iter().any(|one| one.contains(&name)), "row {row}");
    }
}
