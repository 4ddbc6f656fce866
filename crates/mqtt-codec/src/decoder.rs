//! Takes packets off a byte stream, with what a connection must remember to do so.
//!
//! For: the fixed header, whose turn it is to speak, and joining packets that reads have cut.
//! Not for: what is inside a packet. Calls: each packet's `decode`. Called by: a connection's owner.
//! Holds: refused as early as bytes allow; no allocation by a length the peer announced.

use bytes::{Bytes, BytesMut};

use crate::{DecodeError, Packet, Version};

/// Reads the packets of one connection.
#[derive(Debug)]
pub struct Decoder {
    version: Option<Version>,
    packet_bytes_max: u32,
    partial: BytesMut,
}

impl Decoder {
    /// For a server: the first packet must be CONNECT [MQTT-3.1.0-1], and gives the version.
    /// `packet_bytes_max` is the largest whole packet taken, the fixed header counted.
    pub fn new(packet_bytes_max: u32) -> Self {
        Self {
            version: None,
            packet_bytes_max,
            partial: BytesMut::new(),
        }
    }

    /// For a client that sent its CONNECT with this version.
    pub fn for_client(version: Version, packet_bytes_max: u32) -> Self {
        Self {
            version: Some(version),
            packet_bytes_max,
            partial: BytesMut::new(),
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
    /// `None` when there is none yet; `input` is left alone then, and on an error.
    pub fn decode(&mut self, input: &mut Bytes) -> Result<Option<Packet>, DecodeError> {
        let _ = input;
        todo!()
    }

    /// As [`decode`](Self::decode), but keeps what is left of a packet that a read has cut, so that
    /// `input` is empty when this returns `None`. Only a packet that lies in two reads is copied.
    pub fn decode_read(&mut self, input: &mut Bytes) -> Result<Option<Packet>, DecodeError> {
        let _ = (input, &self.partial);
        todo!()
    }
}
