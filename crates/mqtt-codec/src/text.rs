//! The two length-prefixed field types: UTF-8 Encoded String and Binary Data (MQTT 5.0, 1.5.4, 1.5.6).
//!
//! For: values whose two-byte length and character rules hold from the moment they exist.
//! Not for: topic rules, see `topic`. Calls: nothing. Called by: every packet.
//! Holds: a [`Text`] is well-formed UTF-8 without U+0000 and, as [`Binary`], at most 65,535 bytes.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;

use bytes::Bytes;
use bytestring::ByteString;

/// The most a two-byte length can say.
pub const FIELD_BYTES_MAX: usize = u16::MAX as usize;

/// Why bytes cannot be a [`Text`] or a [`Binary`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum FieldError {
    #[error("{bytes} bytes, the most is 65535")]
    TooLong { bytes: usize },
    #[error("not well-formed UTF-8 after {valid_bytes} bytes")] // [MQTT-1.5.4-1]
    NotUtf8 { valid_bytes: usize },
    #[error("contains U+0000")] // [MQTT-1.5.4-2]
    NullCharacter,
}

/// A UTF-8 Encoded String: reads as `str`, clones by reference count, usually a slice of the read
/// buffer. U+FEFF and noncharacters are kept as they are [MQTT-1.5.4-3].
#[derive(Clone, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Text(ByteString);

static EMPTY: Text = Text(ByteString::from_static(""));

impl Text {
    /// The empty string.
    pub fn empty() -> &'static Self {
        &EMPTY
    }

    /// For constants: does not compile in a const when the text breaks a rule, else panics.
    pub const fn from_static(text: &'static str) -> Self {
        assert!(text.len() <= FIELD_BYTES_MAX, "longer than 65535 bytes");
        let mut rest = text.as_bytes();
        while let [first, tail @ ..] = rest {
            assert!(*first != 0, "contains U+0000");
            rest = tail;
        }
        Self(ByteString::from_static(text))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn as_bytes(&self) -> &Bytes {
        self.0.as_bytes()
    }

    pub fn into_bytes(self) -> Bytes {
        self.0.into_bytes()
    }

    /// A copy that keeps no read buffer alive; for what is stored long.
    pub fn detached(&self) -> Self {
        Self(ByteString::from(self.as_str()))
    }
}

/// Whether the characters, which are UTF-8 already, may stand in a field.
#[inline]
fn check(text: &str) -> Result<(), FieldError> {
    if text.len() > FIELD_BYTES_MAX {
        return Err(FieldError::TooLong { bytes: text.len() });
    }
    // Without an early exit this becomes a few vector instructions.
    if text
        .as_bytes()
        .iter()
        .fold(false, |found, byte| found | (*byte == 0))
    {
        return Err(FieldError::NullCharacter);
    }
    Ok(())
}

impl TryFrom<Bytes> for Text {
    type Error = FieldError;

    /// Copies nothing.
    #[inline]
    fn try_from(bytes: Bytes) -> Result<Self, FieldError> {
        let text = ByteString::try_from(bytes).map_err(|error| FieldError::NotUtf8 {
            valid_bytes: error.valid_up_to(),
        })?;
        check(&text)?;
        Ok(Self(text))
    }
}

impl TryFrom<&str> for Text {
    type Error = FieldError;

    fn try_from(text: &str) -> Result<Self, FieldError> {
        check(text)?;
        Ok(Self(ByteString::from(text)))
    }
}

impl TryFrom<String> for Text {
    type Error = FieldError;

    fn try_from(text: String) -> Result<Self, FieldError> {
        check(&text)?;
        Ok(Self(ByteString::from(text)))
    }
}

impl std::str::FromStr for Text {
    type Err = FieldError;

    fn from_str(text: &str) -> Result<Self, FieldError> {
        Self::try_from(text)
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Text {
    fn as_ref(&self) -> &str {
        self
    }
}

impl Borrow<str> for Text {
    fn borrow(&self) -> &str {
        self
    }
}

/// As `str` hashes, so that a map keyed by `Text` can be asked with a `&str`.
impl Hash for Text {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), formatter)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.as_str(), formatter)
    }
}

/// Binary Data: at most 65,535 bytes, usually a slice of the read buffer. May hold a password, so
/// `Debug` says only how many.
#[derive(Clone, Default, Eq, Hash, PartialEq)]
pub struct Binary(Bytes);

impl Binary {
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    pub fn into_bytes(self) -> Bytes {
        self.0
    }

    /// A copy that keeps no read buffer alive; for what is stored long.
    pub fn detached(&self) -> Self {
        Self(Bytes::copy_from_slice(&self.0))
    }
}

impl TryFrom<Bytes> for Binary {
    type Error = FieldError;

    /// Copies nothing.
    fn try_from(bytes: Bytes) -> Result<Self, FieldError> {
        if bytes.len() > FIELD_BYTES_MAX {
            return Err(FieldError::TooLong { bytes: bytes.len() });
        }
        Ok(Self(bytes))
    }
}

impl Deref for Binary {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Binary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Binary({} bytes)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_holds_its_rules() {
        let bytes = |bytes: &'static [u8]| Text::try_from(Bytes::from_static(bytes));
        assert_eq!(bytes(b"a\xff"), Err(FieldError::NotUtf8 { valid_bytes: 1 }));
        assert_eq!(bytes(b"a\0"), Err(FieldError::NullCharacter));
        assert_eq!(Text::try_from("a\0"), Err(FieldError::NullCharacter));
        assert_eq!(
            Text::try_from(String::from("a\0")),
            Err(FieldError::NullCharacter)
        );
        assert!(Text::try_from("a".repeat(65_535)).is_ok());
        let too_long = Err(FieldError::TooLong { bytes: 65_536 });
        assert_eq!(Text::try_from("a".repeat(65_536)), too_long);
        assert_eq!(Text::try_from(Bytes::from("a".repeat(65_536))), too_long);
        assert!(Binary::try_from(Bytes::from(vec![0; 65_536])).is_err());
    }

    #[test]
    fn a_map_of_text_is_asked_with_str() {
        let map = std::collections::HashMap::from([(Text::from_static("a"), 1)]);
        assert_eq!(map.get("a"), Some(&1));
    }

    #[test]
    fn detached_text_shares_no_buffer() {
        let buffer = Bytes::from(b"topic and much more".to_vec());
        let text = Text::try_from(buffer.slice(..5)).unwrap();
        assert_eq!(text.detached(), text);
        drop(text.detached());
        let copy = text.detached();
        drop(text);
        assert!(buffer.is_unique(), "the copy keeps nothing alive");
        assert_eq!(copy, "topic");
    }

    #[test]
    fn debug_of_binary_hides_it() {
        let secret = Binary::try_from(Bytes::from_static(b"secret")).unwrap();
        assert_eq!(format!("{secret:?}"), "Binary(6 bytes)");
    }
}
