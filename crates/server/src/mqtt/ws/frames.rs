//! WebSocket frames as a client sends them (RFC 6455, 5.2), taken off in the buffer they were read into.
//!
//! For: the bytes of MQTT out of binary frames, whole, fragmented or cut anywhere; what a ping or a
//!   Close asks for; the status code for what a client may not send.
//! Not for: sockets, and frames to the client (`super`).
//! Called by: `super::WebSocket`, the fuzz target `websocket`.
//! Holds: what comes out does not depend on how reads cut the stream. Nothing is kept of a frame but
//! its head and a control frame's payload, 125 bytes at most: a length announced costs nothing.

/// The longest head of a frame.
const HEAD_BYTES_MAX: usize = 14;
/// Longest payload of a control frame (5.5).
const CONTROL_BYTES_MAX: u64 = 125;

/// Status codes of a Close (7.4.1).
pub(crate) mod status {
    /// The purpose is fulfilled.
    pub(crate) const NORMAL: u16 = 1000;
    pub(crate) const PROTOCOL_ERROR: u16 = 1002;
    /// A kind of data that MQTT has no use for.
    pub(crate) const UNSUPPORTED_DATA: u16 = 1003;
    /// Text that is no UTF-8.
    pub(crate) const INVALID_DATA: u16 = 1007;
}

/// Why nothing more is read out of the frames.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum End {
    /// The client said Close; the status code to answer with.
    Closed(u16),
    /// The client broke the protocol; the status code that says how.
    Broken(u16),
}

/// What the next byte belongs to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    Head,
    Data,
    Control(Control),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Control {
    Close,
    Ping,
    Pong,
}

/// A reader of frames, between two reads.
#[derive(Debug)]
pub(crate) struct Frames {
    stage: Stage,
    /// The head as far as it has come.
    head: [u8; HEAD_BYTES_MAX],
    head_bytes: u8,
    /// A message has begun and not ended (5.4).
    is_fragmented: bool,
    /// The byte that the next one of the payload is masked with comes first.
    mask: [u8; 4],
    /// Of the payload, still to come.
    left: u64,
    /// The payload of a control frame as far as it has come.
    control: Vec<u8>,
    /// The payload of the last ping, until it is answered.
    ping: Option<Vec<u8>>,
    end: Option<End>,
}

impl Frames {
    pub(crate) fn new() -> Self {
        Self {
            stage: Stage::Head,
            head: [0; HEAD_BYTES_MAX],
            head_bytes: 0,
            is_fragmented: false,
            mask: [0; 4],
            left: 0,
            control: Vec::new(),
            ping: None,
            end: None,
        }
    }

    /// What ended it: no later byte counts.
    pub(crate) fn end(&self) -> Option<End> {
        self.end
    }

    /// The payload that a pong must carry. Of several pings that wait, the last (5.5.3).
    pub(crate) fn take_ping(&mut self) -> Option<Vec<u8>> {
        self.ping.take()
    }

    /// Takes one read. What it carries of MQTT stands at the front of `raw` afterwards: so many bytes.
    pub(crate) fn take(&mut self, raw: &mut [u8]) -> usize {
        let (mut at, mut kept) = (0, 0);
        while at < raw.len() && self.end.is_none() {
            if self.stage == Stage::Head {
                at += self.take_head(raw.get(at..).unwrap_or_default());
                continue;
            }
            let left = usize::try_from(self.left).unwrap_or(usize::MAX);
            let here = at..at + left.min(raw.len() - at);
            let payload = raw.get_mut(here.clone()).unwrap_or_default();
            self.unmask(payload);
            self.left -= payload.len() as u64;
            at = here.end;
            if self.stage == Stage::Data {
                raw.copy_within(here.clone(), kept);
                kept += here.len();
            } else {
                self.control.extend_from_slice(payload);
            }
            if self.left == 0 {
                self.end_frame();
            }
        }
        kept
    }

    /// Takes what is there of a head, and how much that was.
    fn take_head(&mut self, raw: &[u8]) -> usize {
        let mut taken = 0;
        for byte in raw {
            let at = usize::from(self.head_bytes);
            let Some(slot) = self.head.get_mut(at) else {
                break;
            };
            *slot = *byte;
            self.head_bytes += 1;
            taken += 1;
            if self.head_bytes >= 2 && self.head_bytes == self.head_bytes_wanted() {
                self.head_bytes = 0;
                if let Err(status) = self.begin_frame() {
                    self.end = Some(End::Broken(status));
                }
                break;
            }
        }
        taken
    }

    /// How long the head is, by its second byte.
    fn head_bytes_wanted(&self) -> u8 {
        let [_, second, ..] = self.head;
        let length = match second & 0x7F {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        // A client's frame is masked; of one that is not, the head is refused without a mask.
        2 + length + if second & 0x80 == 0 { 0 } else { 4 }
    }

    /// Judges a whole head.
    fn begin_frame(&mut self) -> Result<(), u16> {
        let [first, second, rest @ ..] = self.head;
        let [a, b, c, d, e, f, g, h, i, j, k, l] = rest;
        // A length in more bytes than it needs says the same, and small clients send it.
        (self.left, self.mask) = match second & 0x7F {
            126 => (u64::from(u16::from_be_bytes([a, b])), [c, d, e, f]),
            127 => (u64::from_be_bytes([a, b, c, d, e, f, g, h]), [i, j, k, l]),
            short => (u64::from(short), [a, b, c, d]),
        };
        let (is_final, reserved) = (first & 0x80 != 0, first & 0x70);
        if reserved != 0 || second & 0x80 == 0 || self.left >> 63 != 0 {
            return Err(status::PROTOCOL_ERROR);
        }
        self.stage = match (first & 0x0F, self.is_fragmented) {
            (0, true) | (2, false) => {
                self.is_fragmented = !is_final;
                Stage::Data
            }
            // [MQTT-6.0.0-1]: binary frames, and no others.
            (1, _) => return Err(status::UNSUPPORTED_DATA),
            (8, _) => Stage::Control(Control::Close),
            (9, _) => Stage::Control(Control::Ping),
            (10, _) => Stage::Control(Control::Pong),
            _ => return Err(status::PROTOCOL_ERROR),
        };
        if self.stage != Stage::Data && (!is_final || self.left > CONTROL_BYTES_MAX) {
            return Err(status::PROTOCOL_ERROR);
        }
        if self.left == 0 {
            self.end_frame();
        }
        Ok(())
    }

    /// Carries out a whole control frame.
    fn end_frame(&mut self) {
        let stage = std::mem::replace(&mut self.stage, Stage::Head);
        let Stage::Control(control) = stage else {
            return;
        };
        let payload = std::mem::take(&mut self.control);
        match control {
            Control::Close => self.end = Some(closed(&payload)),
            Control::Ping => self.ping = Some(payload),
            Control::Pong => {}
        }
    }

    fn unmask(&mut self, payload: &mut [u8]) {
        let [a, b, c, d] = self.mask;
        let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
        let (blocks, rest) = payload.as_chunks_mut::<8>();
        for block in blocks {
            *block = (u64::from_ne_bytes(*block) ^ wide).to_ne_bytes();
        }
        for (byte, mask) in rest.iter_mut().zip(wide.to_ne_bytes()) {
            *byte ^= mask;
        }
        self.mask.rotate_left(rest.len() % 4);
    }
}

/// What a Close asks for by its payload (5.5.1): its own status code back.
fn closed(payload: &[u8]) -> End {
    match payload {
        [] => End::Closed(status::NORMAL),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            let is_known = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
            match std::str::from_utf8(reason) {
                Ok(_) if is_known => End::Closed(code),
                Ok(_) => End::Broken(status::PROTOCOL_ERROR),
                Err(_) => End::Broken(status::INVALID_DATA),
            }
        }
        [_] => End::Broken(status::PROTOCOL_ERROR),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame as a client sends it: first byte, mask, payload.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        assert!(length < 126);
        let mask = [0xA1, 0xB2, 0xC3, 0xD4];
        let masked = payload.iter().zip(mask.iter().cycle()).map(|(a, b)| a ^ b);
        [&[first, 0x80 | length][..], &mask]
            .concat()
            .into_iter()
            .chain(masked)
            .collect()
    }

    /// What comes out of a stream in reads of so many bytes: MQTT's bytes, the pings, the end.
    fn read(stream: &[u8], bytes: usize) -> (Vec<u8>, Vec<Vec<u8>>, Option<End>) {
        let (mut frames, mut data, mut pings) = (Frames::new(), Vec::new(), Vec::new());
        for piece in stream.chunks(bytes) {
            let mut raw = piece.to_vec();
            let kept = frames.take(&mut raw);
            data.extend_from_slice(&raw[..kept]);
            pings.extend(frames.take_ping());
        }
        (data, pings, frames.end())
    }

    #[test]
    fn mqtt_comes_out_of_binary_frames_however_reads_cut_them() {
        let long: Vec<u8> = (0..=255).cycle().take(70_000).collect();
        let mut large = vec![0x82, 0xFF];
        large.extend((long.len() as u64).to_be_bytes());
        large.extend([1, 2, 3, 4]);
        large.extend(
            long.iter()
                .zip([1, 2, 3, 4].iter().cycle())
                .map(|(a, b)| a ^ b),
        );
        let stream = [
            // [MQTT-6.0.0-2]: a packet over frames, several in one.
            frame(0x82, b"\xC0"),
            frame(0x82, b"\x00\xC0\x00"),
            // A message in three fragments with a ping between them.
            frame(0x02, b"one"),
            frame(0x00, b" and"),
            frame(0x89, b"there?"),
            frame(0x80, b" all"),
            frame(0x82, b""),
            frame(0x8A, b"unasked pong"),
            large,
            // Two bytes of length for one that needs none.
            vec![0x82, 0xFE, 0, 1, 0, 0, 0, 0, b'!'],
            frame(0x88, b"\x03\xE8bye"),
            frame(0x82, b"too late"),
        ]
        .concat();
        let expected = [b"\xC0\x00\xC0\x00one and all", &long[..], b"!"].concat();
        for bytes in [1, 2, 3, 5, 7, 8, 13, 64, 1000, stream.len()] {
            let (data, pings, end) = read(&stream, bytes);
            assert!(data == expected, "reads of {bytes}");
            assert_eq!(pings, [b"there?"], "reads of {bytes}");
            assert_eq!(end, Some(End::Closed(1000)), "reads of {bytes}");
        }
    }

    #[test]
    fn what_a_client_may_not_send_has_its_status() {
        let utf8 = frame(0x88, b"\x03\xE8\xFF");
        for (bad, status, why) in [
            (frame(0x81, b"text"), 1003, "text [MQTT-6.0.0-1]"),
            (vec![0x82, 0x01], 1002, "not masked, 5.1"),
            (
                frame(0xC2, b"x"),
                1002,
                "a reserved bit without an extension, 5.2",
            ),
            (frame(0x83, b"x"), 1002, "a reserved data frame, 5.2"),
            (frame(0x8B, b"x"), 1002, "a reserved control frame, 5.2"),
            (frame(0x09, b"x"), 1002, "a fragmented ping, 5.5"),
            (
                vec![0x89, 0xFE, 0, 126, 0, 0, 0, 0],
                1002,
                "a ping of 126 bytes, 5.5",
            ),
            (frame(0x80, b"x"), 1002, "a continuation of nothing, 5.4"),
            (
                vec![0x82, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
                1002,
                "a length of 2^63, 5.2",
            ),
            (frame(0x88, b"x"), 1002, "half a status code, 5.5.1"),
            (
                frame(0x88, b"\x03\xED"),
                1002,
                "status 1005 is never sent, 7.4.1",
            ),
            (utf8, 1007, "a reason that is no UTF-8, 5.5.1"),
        ] {
            let stream = [frame(0x82, b"before"), bad, frame(0x82, b"after")].concat();
            for bytes in [1, 3, stream.len()] {
                let (data, _, end) = read(&stream, bytes);
                assert_eq!(end, Some(End::Broken(status)), "{why}");
                assert_eq!(data, b"before", "{why}");
            }
        }
        let fragments = [frame(0x02, b"a"), frame(0x82, b"b")].concat();
        let (data, _, end) = read(&fragments, fragments.len());
        assert_eq!(
            (&data[..], end),
            (&b"a"[..], Some(End::Broken(1002))),
            "5.4"
        );
    }

    #[test]
    fn announced_length_and_answered_pings_cost_nothing() {
        let mut frames = Frames::new();
        let mut head = vec![
            0x82, 0xFF, 0x7F, 255, 255, 255, 255, 255, 255, 255, 1, 2, 3, 4,
        ];
        assert_eq!(frames.take(&mut head), 0);
        assert_eq!(frames.end(), None, "2^63 - 1 bytes are on their way");
        let mut frames = Frames::new();
        for ping in 0..1000_u32 {
            frames.take(&mut frame(0x89, &ping.to_be_bytes()));
        }
        assert_eq!(frames.take_ping().unwrap(), 999_u32.to_be_bytes());
        assert_eq!(frames.take_ping(), None);
        assert_eq!(frames.control.capacity(), 0);
    }
}
