//! Reads a frame's fields; refuses what does not fit instead of allocating for it.

use bytes::{Buf, Bytes};
use uuid::Uuid;

use super::{Text, Wire};

/// Decoded arrays may cost this many bytes for each byte of the frame: the fields of a struct are
/// wider than their bytes on the wire, a text by up to 32 times, but frames are mostly text and
/// records, which are slices and cost nothing.
const ALLOWANCE_FACTOR: usize = 4;

/// And this many bytes more, so that a short frame may hold a few wide structs.
const ALLOWANCE_FLOOR: usize = 64 << 10;

/// What a long frame's arrays may cost in all: far more than a node's 10,000 partitions take.
const ALLOWANCE_MAX: usize = 16 << 20;

/// Bytes that the decoded arrays of a frame of `frame` bytes may cost at the most.
pub(crate) fn allowance(frame: usize) -> usize {
    frame
        .saturating_mul(ALLOWANCE_FACTOR)
        .saturating_add(ALLOWANCE_FLOOR)
        .min(ALLOWANCE_MAX)
}

/// Why bytes from the peer are not the request they claim to be.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum DecodeError {
    #[error("a field needs {need} bytes, {have} left")]
    Truncated { need: usize, have: usize },
    #[error("a length of {length} is not possible here")]
    Length { length: i64 },
    #[error("an array of {count} elements cannot fit the {have} bytes left")]
    Count { count: usize, have: usize },
    #[error("the arrays of a frame of {frame} bytes cost too much memory")]
    Allowance { frame: usize },
    #[error("a variable-length integer is longer than five bytes")]
    Varint,
    #[error("text is not UTF-8")]
    Text,
    #[error("null where a value is needed")]
    UnexpectedNull,
    #[error("API key {key} is unknown")]
    UnknownKey { key: i16 },
    #[error("version {version} of API {key} is not served")]
    UnknownVersion { key: i16, version: i16 },
}

/// A cursor over one frame, for one version of one message.
#[derive(Debug)]
pub(crate) struct Reader {
    bytes: Bytes,
    version: i16,
    flexible: bool,
    frame: usize,
    /// What arrays may still cost, and have cost.
    allowance: usize,
    spent: usize,
}

impl Reader {
    /// Over one frame, whose arrays may cost `allowance` bytes.
    pub(crate) fn new(bytes: Bytes, allowance: usize) -> Self {
        let frame = bytes.len();
        Self {
            bytes,
            version: 0,
            flexible: false,
            frame,
            allowance,
            spent: 0,
        }
    }

    /// Bytes that the arrays have cost.
    pub(crate) fn spent(&self) -> usize {
        self.spent
    }

    /// From here on the fields are those of `version`, in compact forms if it is `flexible`.
    pub(crate) fn set_version(&mut self, version: i16, flexible: bool) {
        self.version = version;
        self.flexible = flexible;
    }

    pub(crate) fn version(&self) -> i16 {
        self.version
    }

    fn need(&self, need: usize) -> Result<(), DecodeError> {
        let have = self.bytes.len();
        if have < need {
            Err(DecodeError::Truncated { need, have })
        } else {
            Ok(())
        }
    }

    pub(crate) fn bool(&mut self) -> Result<bool, DecodeError> {
        Ok(self.i8()? != 0)
    }

    pub(crate) fn i8(&mut self) -> Result<i8, DecodeError> {
        self.need(1)?;
        Ok(self.bytes.get_i8())
    }

    pub(crate) fn i16(&mut self) -> Result<i16, DecodeError> {
        self.need(2)?;
        Ok(self.bytes.get_i16())
    }

    pub(crate) fn i32(&mut self) -> Result<i32, DecodeError> {
        self.need(4)?;
        Ok(self.bytes.get_i32())
    }

    pub(crate) fn i64(&mut self) -> Result<i64, DecodeError> {
        self.need(8)?;
        Ok(self.bytes.get_i64())
    }

    pub(crate) fn uuid(&mut self) -> Result<Uuid, DecodeError> {
        self.need(16)?;
        Ok(Uuid::from_u128(self.bytes.get_u128()))
    }

    fn unsigned_varint(&mut self) -> Result<u32, DecodeError> {
        let mut value = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            self.need(1)?;
            let byte = self.bytes.get_u8();
            let bits = u32::from(byte & 0x7f);
            if shift == 28 && bits > 0x0f {
                return Err(DecodeError::Varint);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::Varint)
    }

    /// A length that is one more than the count in compact form, -1 or 0 meaning null.
    fn length(&mut self, short: bool) -> Result<Option<usize>, DecodeError> {
        let length = if self.flexible {
            i64::from(self.unsigned_varint()?) - 1
        } else if short {
            i64::from(self.i16()?)
        } else {
            i64::from(self.i32()?)
        };
        match length {
            -1 => Ok(None),
            _ => usize::try_from(length)
                .map(Some)
                .map_err(|_| DecodeError::Length { length }),
        }
    }

    pub(crate) fn text(&mut self) -> Result<Option<Text>, DecodeError> {
        let Some(length) = self.length(true)? else {
            return Ok(None);
        };
        self.need(length)?;
        let text = Text::from_utf8(self.bytes.split_to(length)).map_err(|_| DecodeError::Text)?;
        Ok(Some(text))
    }

    pub(crate) fn bytes(&mut self) -> Result<Option<Bytes>, DecodeError> {
        let Some(length) = self.length(false)? else {
            return Ok(None);
        };
        self.need(length)?;
        Ok(Some(self.bytes.split_to(length)))
    }

    /// Elements are made as they are read; their count is believed only as far as bytes are left.
    pub(crate) fn array<T: Wire>(&mut self) -> Result<Option<Vec<T>>, DecodeError> {
        let Some(count) = self.length(false)? else {
            return Ok(None);
        };
        let have = self.bytes.len();
        if count > have {
            return Err(DecodeError::Count { count, have });
        }
        let cost = count.saturating_mul(size_of::<T>());
        self.allowance = self
            .allowance
            .checked_sub(cost)
            .ok_or(DecodeError::Allowance { frame: self.frame })?;
        self.spent += cost;
        let mut elements = Vec::with_capacity(count);
        for _ in 0..count {
            elements.push(T::decode(self)?);
        }
        Ok(Some(elements))
    }

    /// Skips the tagged fields that end each struct of a flexible version: none that a client
    /// sends to these versions changes what we answer (KIP-482).
    pub(crate) fn end_of_struct(&mut self) -> Result<(), DecodeError> {
        if !self.flexible {
            return Ok(());
        }
        let count = self.unsigned_varint()?;
        for _ in 0..count {
            self.unsigned_varint()?;
            let length = usize::try_from(self.unsigned_varint()?).unwrap_or(usize::MAX);
            self.need(length)?;
            self.bytes.advance(length);
        }
        Ok(())
    }

    #[cfg(test)]
    pub(crate) fn left_over(&self) -> usize {
        self.bytes.len()
    }
}
