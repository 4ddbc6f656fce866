//! The key of the HTTP door.

use std::fmt;
use std::hint::black_box;

/// A text that is compared and never shown.
#[derive(Clone)]
pub struct Secret(Box<[u8]>);

impl Secret {
    /// White space around `text` does not count: the file may end with a line end.
    pub fn new(text: &str) -> Self {
        Self(text.trim().as_bytes().into())
    }

    /// Whether `given` is the secret, in a time that depends on `given`'s length alone. An empty
    /// secret is nobody's.
    pub fn is(&self, given: &[u8]) -> bool {
        let mut different = u8::from(self.0.is_empty() || self.0.len() != given.len());
        for (index, byte) in given.iter().enumerate() {
            let own = self.0.get(index).copied().unwrap_or(0);
            // Without black_box the compiler may leave the loop at the first difference.
            different = black_box(different | (own ^ byte));
        }
        different == 0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_secret_is_the_secret() {
        let secret = Secret::new("abc\n");
        assert!(secret.is(b"abc"));
        for other in [&b""[..], b"ab", b"abcd", b"abd", b"abc\0", b"ABC"] {
            assert!(!secret.is(other), "{other:?}");
        }
        assert!(!Secret::new(" \n").is(b""));
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", Secret::new("abc")), "***");
    }
}
