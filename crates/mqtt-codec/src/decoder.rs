//! Takes packets off a byte stream, with what a connection must remember to do so.
//!
//! For: the fixed header, whose turn it is to speak, and joining packets that reads have cut.
//! Not for: what is inside a packet. Calls: each packet's `decode`. Called by: a connection's owner.
//! Holds: refused as early as bytes allow; no allocation by a length the peer announced.

use bytes::{Buf, Bytes, BytesMut};

use crate::packet::{Packet, PacketType, Version};
use crate::publish::check_flags;
use crate::{
    Auth, ConnAck, Connect, DecodeError, Disconnect, PubAck, PubComp, PubRec, PubRel, Publish,
    SubAck, Subscribe, UnsubAck, Unsubscribe, wire,
};

/// Who sent the bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Side {
    Client,
    Server,
}

/// Reads the packets of one connection, in one direction.
#[derive(Debug)]
pub struct Decoder {
    from: Side,
    version: Option<Version>,
    /// False until a Client's CONNECT has been read whole.
    connected: bool,
    packet_bytes_max: u32,
    /// The beginning of a packet whose end is still to come; see `decode_read`.
    partial: BytesMut,
    failed: Option<Box<DecodeError>>,
}

/// A fixed header that has been found good.
#[derive(Clone, Copy)]
struct FixedHeader {
    first_byte: u8,
    packet: PacketType,
    /// Its own bytes, and those of the whole packet.
    bytes: usize,
    packet_bytes: usize,
}

impl Decoder {
    /// For a server: the first packet must be CONNECT [MQTT-3.1.0-1], and gives the version.
    /// `packet_bytes_max` is the largest whole packet taken, the fixed header counted.
    pub fn new(packet_bytes_max: u32) -> Self {
        Self {
            from: Side::Client,
            version: None,
            connected: false,
            packet_bytes_max,
            partial: BytesMut::new(),
            failed: None,
        }
    }

    /// For a client that sends its CONNECT with this version.
    pub fn for_client(version: Version, packet_bytes_max: u32) -> Self {
        Self {
            from: Side::Server,
            version: Some(version),
            connected: true,
            ..Self::new(packet_bytes_max)
        }
    }

    /// Known as soon as CONNECT has said it, also when the rest of that CONNECT is refused: it says
    /// in which version to answer.
    pub fn version(&self) -> Option<Version> {
        self.version
    }

    /// A server allows more once it knows who is there.
    pub fn set_packet_bytes_max(&mut self, packet_bytes_max: u32) {
        self.packet_bytes_max = packet_bytes_max;
    }

    /// Takes one whole packet off the front of `input`: its text and payload are slices of it.
    /// `None` when there is none yet, and `input` is left alone then. An error is final: a stream
    /// has no next packet after it, and every later call gives the same error.
    pub fn decode(&mut self, input: &mut Bytes) -> Result<Option<Packet>, DecodeError> {
        if let Some(error) = &self.failed {
            return Err(DecodeError::clone(error));
        }
        let decoded = self.take_packet(input);
        if let Err(error) = &decoded {
            self.failed = Some(Box::new(error.clone()));
        }
        decoded
    }

    fn take_packet(&mut self, input: &mut Bytes) -> Result<Option<Packet>, DecodeError> {
        let Some(header) = self.fixed_header(input)? else {
            return Ok(None);
        };
        if input.len() < header.packet_bytes {
            return Ok(None);
        }
        let mut body = input.split_to(header.packet_bytes);
        body.advance(header.bytes);
        let packet = self.decode_body(header, &mut body)?;
        match body.len() {
            0 => Ok(Some(packet)),
            bytes => Err(DecodeError::LeftOver {
                packet: header.packet,
                bytes,
            }),
        }
    }

    /// As [`decode`](Self::decode), but keeps what is left of a packet that a read has cut, so that
    /// `input` is empty when this returns `None`. Only a packet that lies in two reads is copied, and
    /// memory grows with the bytes that came, not with the length that was announced.
    pub fn decode_read(&mut self, input: &mut Bytes) -> Result<Option<Packet>, DecodeError> {
        if self.partial.is_empty() {
            let decoded = self.decode(input);
            if matches!(decoded, Ok(None)) {
                self.keep(input.len(), input);
            }
            return decoded;
        }
        loop {
            let missing = match self.fixed_header(&self.partial) {
                Ok(Some(header)) => header.packet_bytes.saturating_sub(self.partial.len()),
                Ok(None) => 1,
                Err(error) => {
                    self.failed = Some(Box::new(error.clone()));
                    return Err(error);
                }
            };
            if missing == 0 {
                let mut whole = std::mem::take(&mut self.partial).freeze();
                return self.decode(&mut whole);
            }
            if input.is_empty() {
                return Ok(None);
            }
            self.keep(missing, input);
        }
    }

    /// Moves at most `bytes` from `input` behind what is kept.
    fn keep(&mut self, bytes: usize, input: &mut Bytes) {
        let taken = input.split_to(bytes.min(input.len()));
        let kept = self.partial.len();
        let need = kept + taken.len();
        if need > self.partial.capacity() {
            // At least doubles, so that a packet that comes byte by byte is not copied each time, but
            // never goes past the packet's end, so that its payload does not keep room alive.
            let room = need.max(2 * kept).min(kept + bytes);
            let partial = std::mem::replace(&mut self.partial, BytesMut::with_capacity(room));
            self.partial.extend_from_slice(&partial);
        }
        self.partial.extend_from_slice(&taken);
    }

    /// The fixed header that `input` begins with; `None` when it is not there yet. Everything that
    /// can be refused by it is refused here.
    fn fixed_header(&self, input: &[u8]) -> Result<Option<FixedHeader>, DecodeError> {
        let Some((&first_byte, rest)) = input.split_first() else {
            return Ok(None);
        };
        let packet = self.packet_type(first_byte)?;
        let Some((remaining, length)) = wire::variable_at_front(rest, "remaining length")? else {
            return Ok(None);
        };
        let bytes = 1 + length;
        let packet_bytes = bytes + remaining as usize;
        if packet_bytes > self.packet_bytes_max as usize {
            return Err(DecodeError::PacketTooLarge {
                bytes: u32::try_from(packet_bytes).unwrap_or(u32::MAX),
                bytes_max: self.packet_bytes_max,
            });
        }
        let pings = matches!(packet, PacketType::PingReq | PacketType::PingResp);
        if pings && remaining > 0 {
            return Err(DecodeError::LeftOver {
                packet,
                bytes: remaining as usize,
            });
        }
        Ok(Some(FixedHeader {
            first_byte,
            packet,
            bytes,
            packet_bytes,
        }))
    }

    /// Refuses a packet that this side may not send now, and flags that it may not have.
    fn packet_type(&self, first_byte: u8) -> Result<PacketType, DecodeError> {
        let packet = PacketType::of_first_byte(first_byte);
        let (packet, version) = match (packet, self.version) {
            // Which flags it may have, its body says.
            (Some(PacketType::Connect), _) if !self.connected => return Ok(PacketType::Connect),
            (_, None) => return Err(DecodeError::NotConnect { first_byte }),
            (None, Some(_)) => return Err(DecodeError::ReservedPacketType { first_byte }),
            // AUTH's type is reserved before 5.0.
            (Some(PacketType::Auth), Some(version)) if version < Version::V5 => {
                return Err(DecodeError::ReservedPacketType { first_byte });
            }
            (Some(packet), Some(version)) => (packet, version),
        };
        if self.connected && !may_send(self.from, packet, version) {
            return Err(DecodeError::UnexpectedPacket { packet });
        }
        check_fixed_flags(packet, first_byte, version)?;
        Ok(packet)
    }

    fn decode_body(
        &mut self,
        header: FixedHeader,
        body: &mut Bytes,
    ) -> Result<Packet, DecodeError> {
        let version = match self.version {
            Some(version) if self.connected => version,
            _ => {
                let connect = Connect::decode(body, &mut self.version)?;
                // MQTT 3.1 has DUP, QoS and RETAIN "not used" in CONNECT (its section 3.1).
                if connect.version > Version::V31 {
                    check_fixed_flags(header.packet, header.first_byte, connect.version)?;
                }
                self.connected = true;
                return Ok(Packet::Connect(Box::new(connect)));
            }
        };
        let from = self.from;
        Ok(match header.packet {
            PacketType::Publish => {
                Packet::Publish(Publish::decode(header.first_byte, body, version, from)?)
            }
            PacketType::PubAck => Packet::PubAck(PubAck::decode(body, version)?),
            PacketType::PubRec => Packet::PubRec(PubRec::decode(body, version)?),
            PacketType::PubRel => Packet::PubRel(PubRel::decode(body, version)?),
            PacketType::PubComp => Packet::PubComp(PubComp::decode(body, version)?),
            PacketType::Subscribe => Packet::Subscribe(Box::new(Subscribe::decode(body, version)?)),
            PacketType::SubAck => Packet::SubAck(Box::new(SubAck::decode(body, version)?)),
            PacketType::Unsubscribe => {
                Packet::Unsubscribe(Box::new(Unsubscribe::decode(body, version)?))
            }
            PacketType::UnsubAck => Packet::UnsubAck(Box::new(UnsubAck::decode(body, version)?)),
            PacketType::PingReq => Packet::PingReq,
            PacketType::PingResp => Packet::PingResp,
            PacketType::Disconnect => {
                Packet::Disconnect(Box::new(Disconnect::decode(body, version, from)?))
            }
            PacketType::Auth => Packet::Auth(Box::new(Auth::decode(body)?)),
            PacketType::ConnAck => Packet::ConnAck(Box::new(ConnAck::decode(body, version)?)),
            packet @ PacketType::Connect => return Err(DecodeError::UnexpectedPacket { packet }),
        })
    }
}

/// Who sends what once CONNECT has passed (MQTT 5.0, table 2-1).
fn may_send(from: Side, packet: PacketType, version: Version) -> bool {
    match packet {
        // A second one [MQTT-3.1.0-2], or one from a Server.
        PacketType::Connect => false,
        PacketType::Subscribe | PacketType::Unsubscribe | PacketType::PingReq => {
            from == Side::Client
        }
        PacketType::ConnAck | PacketType::SubAck | PacketType::UnsubAck | PacketType::PingResp => {
            from == Side::Server
        }
        PacketType::Disconnect => from == Side::Client || version == Version::V5,
        PacketType::Publish
        | PacketType::PubAck
        | PacketType::PubRec
        | PacketType::PubRel
        | PacketType::PubComp
        | PacketType::Auth => true,
    }
}

/// [MQTT-2.1.3-1]: every packet but PUBLISH has fixed flags.
fn check_fixed_flags(
    packet: PacketType,
    first_byte: u8,
    version: Version,
) -> Result<(), DecodeError> {
    let flags = first_byte & 0x0f;
    let expected = match packet {
        PacketType::Publish => return check_flags(first_byte, version),
        // [MQTT-3.6.1-1], [MQTT-3.8.1-1], [MQTT-3.10.1-1]
        PacketType::PubRel | PacketType::Subscribe | PacketType::Unsubscribe => 0b0010,
        PacketType::Connect
        | PacketType::ConnAck
        | PacketType::PubAck
        | PacketType::PubRec
        | PacketType::PubComp
        | PacketType::SubAck
        | PacketType::UnsubAck
        | PacketType::PingReq
        | PacketType::PingResp
        | PacketType::Disconnect
        | PacketType::Auth => 0, // [MQTT-3.14.1-1], [MQTT-3.15.1-1]
    };
    // MQTT 3.1 sets DUP when it sends PUBREL, SUBSCRIBE or UNSUBSCRIBE again (its section 2.1).
    let again = version == Version::V31 && expected != 0 && flags == expected | 0b1000;
    if flags == expected || again {
        Ok(())
    } else {
        Err(DecodeError::FixedHeaderFlags { packet, flags })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A PUBLISH of 1 MiB and its fixed header.
    fn large() -> Bytes {
        let mut wire = b"\x30\x80\x80\x40\0\x01t".to_vec();
        wire.resize(4 + (1 << 20), b'x');
        wire.into()
    }

    fn connected() -> Decoder {
        Decoder {
            connected: true,
            version: Some(Version::V311),
            ..Decoder::new(2 << 20)
        }
    }

    #[test]
    fn room_follows_what_came_not_what_was_announced() {
        let (mut decoder, wire) = (connected(), large());
        for at in 0..10_000 {
            assert_eq!(decoder.decode_read(&mut wire.slice(at..=at)), Ok(None));
            let room = decoder.partial.capacity();
            assert!(room <= 2 * (at + 1) + 64, "{room} bytes for {at}");
        }
    }

    #[test]
    fn a_packet_from_many_reads_keeps_no_room_beyond_itself() {
        let (mut decoder, wire) = (connected(), large());
        let mut read_bytes = (0..wire.len()).step_by(3000).peekable();
        while let Some(at) = read_bytes.next() {
            let mut read = wire.slice(at..read_bytes.peek().map_or(wire.len(), |end| *end));
            let packet = decoder.decode_read(&mut read);
            assert!(decoder.partial.capacity() <= wire.len());
            assert_eq!(packet.unwrap().is_some(), read_bytes.peek().is_none());
        }
        assert_eq!(
            decoder.partial.capacity(),
            0,
            "an idle connection owns no buffer"
        );
    }

    #[test]
    fn a_packet_is_small_enough_to_move() {
        assert!(size_of::<Packet>() <= 128, "{} bytes", size_of::<Packet>());
    }
}
