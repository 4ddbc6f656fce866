//! The data types of the wire (MQTT 5.0, 1.5): reading from `Bytes`, writing into anything that counts.
//!
//! For: integers, strings, lengths. Not for: properties, packets. Calls: `text`. Called by: all.
//! Holds: a read never goes past the bytes there are, and names the field that was cut.

use bytes::{Buf, Bytes, BytesMut};

use crate::REMAINING_LENGTH_MAX;
use crate::error::{DecodeError, EncodeError};
use crate::packet::{PacketId, Version};
use crate::text::{Binary, Text};

/// Reads one byte.
#[inline]
pub(crate) fn u8(body: &mut Bytes, field: &'static str) -> Result<u8, DecodeError> {
    body.try_get_u8()
        .map_err(|error| truncated(field, error.requested, error.available))
}

/// Reads a Two Byte Integer.
#[inline]
pub(crate) fn u16(body: &mut Bytes, field: &'static str) -> Result<u16, DecodeError> {
    body.try_get_u16()
        .map_err(|error| truncated(field, error.requested, error.available))
}

/// Reads a Four Byte Integer.
#[inline]
pub(crate) fn u32(body: &mut Bytes, field: &'static str) -> Result<u32, DecodeError> {
    body.try_get_u32()
        .map_err(|error| truncated(field, error.requested, error.available))
}

/// Reads a Packet Identifier, which is not zero [MQTT-2.2.1-3].
#[inline]
pub(crate) fn packet_id(body: &mut Bytes) -> Result<PacketId, DecodeError> {
    PacketId::new(u16(body, "packet identifier")?).ok_or(DecodeError::ZeroPacketId)
}

/// Reads a length of two bytes and as many bytes, as a slice.
#[inline]
fn prefixed(body: &mut Bytes, field: &'static str) -> Result<Bytes, DecodeError> {
    let need = usize::from(u16(body, field)?);
    if need > body.len() {
        return Err(truncated(field, need, body.len()));
    }
    Ok(body.split_to(need))
}

/// Reads a UTF-8 Encoded String.
#[inline]
pub(crate) fn text(body: &mut Bytes, field: &'static str) -> Result<Text, DecodeError> {
    Text::try_from(prefixed(body, field)?).map_err(|source| DecodeError::Field { field, source })
}

/// Reads Binary Data.
#[inline]
pub(crate) fn binary(body: &mut Bytes, field: &'static str) -> Result<Binary, DecodeError> {
    let bytes = prefixed(body, field)?;
    Binary::try_from(bytes).map_err(|source| DecodeError::Field { field, source })
}

/// Takes the next byte if it is zero.
#[inline]
pub(crate) fn take_zero(body: &mut Bytes) -> bool {
    let zero = body.first() == Some(&0);
    if zero {
        body.advance(1);
    }
    zero
}

/// Reads a Variable Byte Integer.
pub(crate) fn variable(body: &mut Bytes, field: &'static str) -> Result<u32, DecodeError> {
    match variable_at_front(body, field)? {
        Some((value, length)) => {
            body.advance(length);
            Ok(value)
        }
        None => Err(truncated(field, body.len() + 1, body.len())),
    }
}

/// The Variable Byte Integer that `bytes` begin with and how many bytes it takes; `None` when more
/// are needed. A fourth byte that asks for a fifth is refused without waiting for it.
#[inline]
pub(crate) fn variable_at_front(
    bytes: &[u8],
    field: &'static str,
) -> Result<Option<(u32, usize)>, DecodeError> {
    let mut value = 0;
    for (index, byte) in bytes.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            // A last byte of zero adds nothing [MQTT-1.5.5-1].
            if *byte == 0 && index > 0 {
                return Err(DecodeError::IntegerNotMinimal { field });
            }
            return Ok(Some((value, index + 1)));
        }
    }
    if bytes.len() < 4 {
        Ok(None)
    } else {
        Err(DecodeError::IntegerTooLong { field })
    }
}

fn truncated(field: &'static str, need: usize, have: usize) -> DecodeError {
    DecodeError::Truncated { field, need, have }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the mask leaves seven bits"
)]
fn low_bits(value: usize) -> u8 {
    (value & 0x7f) as u8
}

/// Where encoded bytes go: a buffer, or only their number. One function writes a packet for both, so
/// that a length can not differ from what is written.
pub(crate) trait Writer {
    fn put(&mut self, bytes: &[u8]);

    fn put_u8(&mut self, value: u8) {
        self.put(&[value]);
    }

    fn put_u16(&mut self, value: u16) {
        self.put(&value.to_be_bytes());
    }

    fn put_u32(&mut self, value: u32) {
        self.put(&value.to_be_bytes());
    }

    /// A Variable Byte Integer in as few bytes as it needs [MQTT-1.5.5-1].
    fn put_variable(&mut self, value: usize) {
        let mut rest = value;
        while rest > 0x7f {
            self.put_u8(low_bits(rest) | 0x80);
            rest >>= 7;
        }
        self.put_u8(low_bits(rest));
    }

    /// The two-byte length and the bytes of a `Text` or `Binary`, whose length fits by their types.
    fn put_prefixed(&mut self, bytes: &[u8]) {
        debug_assert!(
            bytes.len() <= crate::FIELD_BYTES_MAX,
            "a field longer than its length"
        );
        #[expect(
            clippy::cast_possible_truncation,
            reason = "Text and Binary are at most 65535"
        )]
        self.put_u16(bytes.len() as u16);
        self.put(bytes);
    }
}

impl Writer for BytesMut {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    #[inline]
    fn put_u8(&mut self, value: u8) {
        bytes::BufMut::put_u8(self, value);
    }
}

/// How many bytes would be written.
#[derive(Default)]
pub(crate) struct Length(pub(crate) usize);

impl Writer for Length {
    fn put(&mut self, bytes: &[u8]) {
        self.0 = self.0.saturating_add(bytes.len());
    }
}

/// A packet without its Remaining Length.
pub(crate) trait Body {
    /// Type and flags.
    fn first_byte(&self) -> u8;

    /// Whether this value can be written at all in `version`.
    fn check(&self, version: Version) -> Result<(), EncodeError> {
        let _ = version;
        Ok(())
    }

    /// Variable header and payload.
    fn write<W: Writer>(&self, version: Version, out: &mut W);
}

/// All bytes of a packet.
pub(crate) fn encoded_len(packet: &impl Body, version: Version) -> usize {
    let mut length = Length::default();
    packet.write(version, &mut length);
    let remaining = length.0;
    length.put_u8(packet.first_byte());
    length.put_variable(remaining);
    length.0
}

/// Appends the fixed header and the body, or nothing.
pub(crate) fn encode(
    packet: &impl Body,
    version: Version,
    out: &mut BytesMut,
) -> Result<(), EncodeError> {
    packet.check(version)?;
    let mut remaining = Length::default();
    packet.write(version, &mut remaining);
    put_fixed_header(packet.first_byte(), remaining.0, 5 + remaining.0, out)?;
    packet.write(version, out);
    Ok(())
}

/// Appends a fixed header; before it makes room for `room` bytes, its own counted.
#[inline(always)] // The compiler's choice turns with the size of the crate; 2 % of a PUBLISH.
pub(crate) fn put_fixed_header(
    first_byte: u8,
    remaining: usize,
    room: usize,
    out: &mut BytesMut,
) -> Result<(), EncodeError> {
    if remaining > REMAINING_LENGTH_MAX as usize {
        return Err(EncodeError::TooLarge { bytes: remaining });
    }
    out.reserve(room);
    let [a, b, c, d] = [remaining, remaining >> 7, remaining >> 14, remaining >> 21].map(low_bits);
    match remaining {
        0..=0x7f => out.put(&[first_byte, a]),
        0x80..=0x3fff => out.put(&[first_byte, a | 0x80, b]),
        0x4000..=0x1f_ffff => out.put(&[first_byte, a | 0x80, b | 0x80, c]),
        _ => out.put(&[first_byte, a | 0x80, b | 0x80, c | 0x80, d]),
    }
    Ok(())
}
