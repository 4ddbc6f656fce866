//! One WAL frame: a group commit as it stands in the write-ahead file, all or nothing.
//!
//! For: writing a frame's header around a payload, and finding out whether bytes are a frame.
//! Not for: what the payload says (`entry`), or files (`wal`).
//! Holds: a frame of another file, another epoch or another place in the chain is never taken.

use crate::record::varint::Reader;

/// Header bytes before the payload.
pub(crate) const HEADER_LEN: usize = 40;
/// Frames begin at multiples of this, so that a search for them can stride.
pub(crate) const ALIGN: usize = 8;
pub(crate) const MAGIC: [u8; 4] = *b"HWFR";

const VERSION: u16 = 1;
const CRC_AT: usize = 36;
/// Set when the frame before was synced before this one was written. Only such a frame proves
/// that what is missing before it was once on disk.
const PREVIOUS_SYNCED: u16 = 1;

/// Where a frame stands in the chain.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Link {
    /// The file's: a counter below 32 random bits, so that a payload cannot fake a frame.
    pub(crate) epoch: u64,
    pub(crate) sequence: u64,
    pub(crate) previous_crc: u32,
    pub(crate) previous_synced: bool,
}

/// A frame that is whole.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Frame<'a> {
    pub(crate) link: Link,
    pub(crate) crc: u32,
    pub(crate) payload: &'a [u8],
    /// Header, payload and padding.
    pub(crate) len: usize,
}

/// Room for the header at the front of a buffer that the payload is appended to.
pub(crate) fn begin(buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.resize(HEADER_LEN, 0);
}

/// Fills the header in and pads; gives the frame's CRC.
pub(crate) fn seal(buffer: &mut Vec<u8>, link: Link) -> u32 {
    let payload_len = u32::try_from(buffer.len() - HEADER_LEN).unwrap_or(u32::MAX);
    let flags = if link.previous_synced {
        PREVIOUS_SYNCED
    } else {
        0
    };
    let mut header = Vec::with_capacity(HEADER_LEN);
    header.extend_from_slice(&MAGIC);
    header.extend_from_slice(&VERSION.to_be_bytes());
    header.extend_from_slice(&flags.to_be_bytes());
    header.extend_from_slice(&link.epoch.to_be_bytes());
    header.extend_from_slice(&link.sequence.to_be_bytes());
    header.extend_from_slice(&payload_len.to_be_bytes());
    header.extend_from_slice(&link.previous_crc.to_be_bytes());
    header.extend_from_slice(&[0; 4]);
    let payload = buffer.get(HEADER_LEN..).unwrap_or_default();
    let crc = crc32c::crc32c_append(crc32c::crc32c(&header), payload);
    header.extend_from_slice(&crc.to_be_bytes());
    if let Some(room) = buffer.get_mut(..HEADER_LEN) {
        room.copy_from_slice(&header);
    }
    buffer.resize(buffer.len().next_multiple_of(ALIGN), 0);
    crc
}

/// The whole frame at the front of `bytes`, if there is one.
pub(crate) fn parse(bytes: &[u8]) -> Option<Frame<'_>> {
    let mut reader = Reader::new(bytes);
    if reader.array::<4>()? != MAGIC || reader.i16()?.cast_unsigned() != VERSION {
        return None;
    }
    let flags = reader.i16()?.cast_unsigned();
    let epoch = reader.u64()?;
    let sequence = reader.u64()?;
    let payload_len = reader.u32()? as usize;
    let previous_crc = reader.u32()?;
    let _reserved = reader.u32()?;
    let crc = reader.u32()?;
    let payload = reader.take(payload_len)?;
    let covered = crc32c::crc32c(bytes.get(..CRC_AT)?);
    if crc32c::crc32c_append(covered, payload) != crc {
        return None;
    }
    let previous_synced = flags & PREVIOUS_SYNCED != 0;
    Some(Frame {
        link: Link {
            epoch,
            sequence,
            previous_crc,
            previous_synced,
        },
        crc,
        payload,
        len: (HEADER_LEN + payload_len).next_multiple_of(ALIGN),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LINK: Link = Link {
        epoch: 7 << 32 | 1,
        sequence: 42,
        previous_crc: 0xdead_beef,
        previous_synced: true,
    };

    fn sealed(payload: &[u8]) -> Vec<u8> {
        let mut buffer = Vec::new();
        begin(&mut buffer);
        buffer.extend_from_slice(payload);
        seal(&mut buffer, LINK);
        buffer
    }

    #[test]
    fn frame_survives_the_trip_and_any_flipped_bit_is_found() {
        let bytes = sealed(b"thirteen byte");
        let frame = parse(&bytes).unwrap();
        assert_eq!(
            (frame.link, frame.payload, frame.len),
            (LINK, &b"thirteen byte"[..], 56)
        );
        for bit in 0..(HEADER_LEN + 13) * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(parse(&damaged), None, "bit {bit}");
        }
    }

    #[test]
    fn zeros_are_no_frame() {
        assert_eq!(parse(&[0; 512]), None);
    }

    proptest! {
        #[test]
        fn parse_is_total(bytes: Vec<u8>) {
            prop_assert_eq!(parse(&bytes), None);
        }
    }
}
