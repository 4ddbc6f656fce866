//! A program under bad input, two clients of it that must not notice, and what must be back afterwards.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::program::{Home, PATIENCE, Program, until};
use crate::wire::{Hello, Wire, hex, publish};

/// What a debug build may hold more after a row than before it: buffers, caches, the allocator's spare pages.
const SLACK_BYTES: usize = 12 << 20;

/// A program and two clients of it that must not notice.
pub(crate) struct Ground {
    pub(crate) program: Program,
    speaker: Wire,
    listener: Wire,
    told: u32,
    before: usize,
    /// Resident memory after each round of a row that has several.
    rounds: Vec<usize>,
}

impl Ground {
    pub(crate) fn new() -> Self {
        Self::with(&[])
    }

    /// With more arguments to `serve`.
    pub(crate) fn with(more: &[&str]) -> Self {
        Self::at(&Home::new(), more)
    }

    pub(crate) fn at(home: &Home, more: &[&str]) -> Self {
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
    pub(crate) fn goes_on(&mut self) {
        self.told += 1;
        let payload = self.told.to_be_bytes();
        self.speaker.send(&publish("witness", &payload, 1, 1));
        assert_eq!(self.speaker.packet().0, 0x40, "PUBACK to the speaker");
        let message = self.listener.message();
        assert_eq!(message.payload, payload);
        self.listener.acknowledge(0x40, message.id);
    }

    pub(crate) fn v5(&self, id: &str) -> Wire {
        Wire::connect(self.program.mqtt(), &Hello::v5(id)).0
    }

    pub(crate) fn v3(&self, id: &str) -> Wire {
        Wire::connect(self.program.mqtt(), &Hello::v3(id)).0
    }

    /// These bytes on a new connection; what is answered until the end, which must come.
    pub(crate) fn answer(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.program.mqtt()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // It may be closed before all of it is written.
        stream.write_all(bytes).ok();
        to_the_end(&mut stream)
    }

    /// A first packet that gets no answer at all.
    pub(crate) fn no_answer(&mut self, bytes: &[u8], why: &str) {
        assert_eq!(self.answer(bytes), b"", "{why}");
        self.goes_on();
    }

    /// A CONNECT of version 5 that a CONNACK refuses with this code, and nothing behind it.
    pub(crate) fn connect_refused(&mut self, bytes: &[u8], reason: u8, why: &str) {
        let answer = self.answer(bytes);
        assert!(answer.len() > 4, "{why}: {answer:x?} is no CONNACK");
        let head = (answer[0], usize::from(answer[1]), answer[2], answer[3]);
        let expected = (0x20, answer.len() - 2, 0, reason);
        assert_eq!(head, expected, "{why}: {answer:x?}");
        self.goes_on();
    }

    /// Bytes behind an accepted CONNECT that end the connection: in 5.0 with this code.
    pub(crate) fn refused(&mut self, bytes: &str, reason: u8, why: &str) {
        self.refused_bytes(&hex(bytes), reason, why);
    }

    pub(crate) fn refused_bytes(&mut self, bytes: &[u8], reason: u8, why: &str) {
        let mut wire = self.v5("a");
        wire.send(bytes);
        ends_with(&mut wire, reason, why);
        self.goes_on();
    }

    /// As [`Self::refused`], in 3.1.1, which has no word for it: by the close alone.
    pub(crate) fn refused_in_3(&mut self, bytes: &str, why: &str) {
        self.refused_bytes_in_3(&hex(bytes), why);
    }

    pub(crate) fn refused_bytes_in_3(&mut self, bytes: &[u8], why: &str) {
        let mut wire = self.v3("a");
        wire.send(bytes);
        assert_eq!(wire.next(), None, "3.1.1: {why}");
        self.goes_on();
    }

    /// Resident bytes beyond those before the row.
    pub(crate) fn grown(&self) -> usize {
        self.program.resident().saturating_sub(self.before)
    }

    /// Only the witnesses are connected.
    pub(crate) fn all_gone(&self) {
        until("the sockets of the row are gone", || {
            self.program.metric("headwater_sockets") == 2
        });
    }

    /// One round of a row is over.
    pub(crate) fn round_over(&mut self) {
        self.goes_on();
        self.all_gone();
        self.rounds.push(self.program.resident());
    }

    /// The row is over: its sockets and what it held are gone, and nobody met a bug.
    pub(crate) fn end(mut self) {
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
pub(crate) fn to_the_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
        Err(error) => panic!("the connection does not end: {error}"),
    }
    answer
}

/// DISCONNECT with this code, then the end. Packets before it are passed over.
pub(crate) fn ends_with(wire: &mut Wire, reason: u8, why: &str) {
    while let Some((first, body)) = wire.next() {
        if first == 0xE0 {
            // A body of no bytes is Normal disconnection.
            let said = body.first().copied().unwrap_or(0);
            assert_eq!(said, reason, "{why}: {said:#x}");
            assert_eq!(wire.next(), None, "{why}");
            return;
        }
    }
    panic!("{why}: closed without a DISCONNECT");
}
