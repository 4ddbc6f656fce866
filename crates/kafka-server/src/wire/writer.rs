//! Writes a response's fields; long byte strings are passed on as they are, not copied.

use bytes::{BufMut, Bytes, BytesMut};
use uuid::Uuid;

use super::{Text, Wire};

/// Byte strings from here on become a chunk of their own: below, a copy is cheaper.
const CHUNK_BYTES_MIN: usize = 4 << 10;

/// A response in the making, for one version of one message.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    chunks: Vec<Bytes>,
    current: BytesMut,
    version: i16,
    flexible: bool,
}

impl Writer {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn set_version(&mut self, version: i16, flexible: bool) {
        self.version = version;
        self.flexible = flexible;
    }

    pub(crate) fn version(&self) -> i16 {
        self.version
    }

    pub(crate) fn put_bool(&mut self, value: bool) {
        self.current.put_u8(u8::from(value));
    }

    pub(crate) fn put_i8(&mut self, value: i8) {
        self.current.put_i8(value);
    }

    pub(crate) fn put_i16(&mut self, value: i16) {
        self.current.put_i16(value);
    }

    pub(crate) fn put_i32(&mut self, value: i32) {
        self.current.put_i32(value);
    }

    pub(crate) fn put_i64(&mut self, value: i64) {
        self.current.put_i64(value);
    }

    pub(crate) fn put_uuid(&mut self, value: Uuid) {
        self.current.put_u128(value.as_u128());
    }

    fn put_unsigned_varint(&mut self, mut value: u32) {
        loop {
            let [low, ..] = value.to_le_bytes();
            value >>= 7;
            if value == 0 {
                self.current.put_u8(low & 0x7f);
                return;
            }
            self.current.put_u8(low | 0x80);
        }
    }

    /// What we send never comes near these ends: a frame is bounded far below 2 GiB and a text
    /// far below 32 KiB. Should one be passed all the same, it is cut to nothing that misleads:
    /// null.
    fn put_length(&mut self, length: Option<usize>, short: bool) -> bool {
        let limit = if short {
            i64::from(i16::MAX)
        } else {
            i64::from(i32::MAX - 1)
        };
        let length = length
            .and_then(|length| i64::try_from(length).ok())
            .filter(|length| *length <= limit)
            .unwrap_or(-1);
        if self.flexible {
            self.put_unsigned_varint(u32::try_from(length + 1).unwrap_or(0));
        } else if short {
            self.current.put_i16(i16::try_from(length).unwrap_or(-1));
        } else {
            self.current.put_i32(i32::try_from(length).unwrap_or(-1));
        }
        length >= 0
    }

    pub(crate) fn put_text(&mut self, text: Option<&Text>) {
        if self.put_length(text.map(|text| text.len()), true)
            && let Some(text) = text
        {
            self.current.put_slice(text.as_bytes());
        }
    }

    pub(crate) fn put_bytes(&mut self, bytes: Option<&Bytes>) {
        if self.put_length(bytes.map(Bytes::len), false)
            && let Some(bytes) = bytes
        {
            self.put_chunk(bytes);
        }
    }

    /// Record bytes made of several pieces, as one byte string.
    pub(crate) fn put_chunks(&mut self, chunks: &[Bytes]) {
        if self.put_length(Some(chunks.iter().map(Bytes::len).sum()), false) {
            for chunk in chunks {
                self.put_chunk(chunk);
            }
        }
    }

    fn put_chunk(&mut self, bytes: &Bytes) {
        if bytes.len() < CHUNK_BYTES_MIN {
            self.current.put_slice(bytes);
        } else {
            self.chunks.push(self.current.split().freeze());
            self.chunks.push(bytes.clone());
        }
    }

    pub(crate) fn put_array<T: Wire>(&mut self, elements: Option<&[T]>) {
        if self.put_length(elements.map(<[T]>::len), false) {
            for element in elements.unwrap_or_default() {
                element.encode(self);
            }
        }
    }

    /// No tagged fields, at the end of each struct of a flexible version.
    pub(crate) fn end_of_struct(&mut self) {
        if self.flexible {
            self.current.put_u8(0);
        }
    }

    /// The frame: its length in four bytes, then all that was written.
    pub(crate) fn into_frame(mut self) -> Vec<Bytes> {
        self.chunks.push(self.current.freeze());
        let length: usize = self.chunks.iter().map(Bytes::len).sum();
        let length = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
        match self.chunks.as_mut_slice() {
            // The first chunk is ours and small: one copy instead of one more write.
            [first, ..] => {
                let mut head = BytesMut::with_capacity(first.len() + 4);
                head.put_slice(&length);
                head.put_slice(first);
                *first = head.freeze();
            }
            [] => self.chunks.push(Bytes::copy_from_slice(&length)),
        }
        self.chunks
    }

    #[cfg(test)]
    pub(crate) fn into_bytes(mut self) -> Bytes {
        self.chunks.push(self.current.freeze());
        self.chunks.concat().into()
    }
}
