//! Kafka topic names: what is legal, and how any text gets into one and out again.
//!
//! For: `to` of a route, whose placeholders may hold anything a device can say.
//! Holds: escaping is injective and reversible; `a.b/c` and `a/b/c` stay two topics.
//!
//! Letters, digits, `.` and `-` stand for themselves; every other byte of the UTF-8 text becomes
//! `_` and two hexadecimal digits, `_` itself included (`/` is `_2F`, `_` is `_5F`).

use std::borrow::Cow;

/// Longest name Kafka takes.
pub const NAME_BYTES_MAX: usize = 249;

/// Begins the names of topics that nobody outside writes to.
pub const INTERNAL: &str = "__headwater_";

/// Why a name is not a Kafka topic's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameFault {
    #[error("a Kafka topic name cannot be empty")]
    Empty,
    #[error("a Kafka topic name cannot be `.` or `..`")]
    Dots,
    #[error("a Kafka topic name has at most 249 characters")]
    TooLong,
    #[error("a Kafka topic name has letters, digits, `.`, `_` and `-` only, not `{found}`")]
    Illegal { at: usize, found: char },
    #[error("names that begin with `__headwater_` belong to Headwater itself")]
    Internal,
}

/// Checks a name that stands in a configuration or came out of a template.
pub fn check(name: &str) -> Result<(), NameFault> {
    if name.is_empty() {
        return Err(NameFault::Empty);
    }
    if name == "." || name == ".." {
        return Err(NameFault::Dots);
    }
    if let Some((at, found)) = name.char_indices().find(|(_, c)| !is_legal(*c)) {
        return Err(NameFault::Illegal { at, found });
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(NameFault::TooLong);
    }
    if name.starts_with(INTERNAL) {
        return Err(NameFault::Internal);
    }
    Ok(())
}

/// Whether Kafka takes this character in a topic name.
pub fn is_legal(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

/// Writes `text` so that it is legal in a topic name.
pub fn escape(text: &str) -> Cow<'_, str> {
    escape_also(text, "")
}

/// As [`escape`]; the legal characters in `also` are escaped too. A template with several
/// placeholders names its separators here: `{a}.{b}` then keeps `x.y`,`z` and `x`,`y.z` apart.
pub(crate) fn escape_also<'t>(text: &'t str, also: &str) -> Cow<'t, str> {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let keep = |byte: u8| {
        let c = char::from(byte);
        (c.is_ascii_alphanumeric() || c == '.' || c == '-') && !also.contains(c)
    };
    // A text of one or two dots alone would be no name.
    let dots = text == "." || text == "..";
    if !dots && text.bytes().all(keep) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for byte in text.bytes() {
        if keep(byte) && !dots {
            escaped.push(char::from(byte));
        } else {
            escaped.push('_');
            for nibble in [byte >> 4, byte & 15] {
                escaped.extend(HEX.get(usize::from(nibble)).copied().map(char::from));
            }
        }
    }
    Cow::Owned(escaped)
}

/// The text that [`escape`] turned into `name`; `None` if it never does.
pub fn unescape(name: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'_' {
            bytes.push(hex(rest.next()?)? << 4 | hex(rest.next()?)?);
        } else {
            bytes.push(byte);
        }
    }
    let text = String::from_utf8(bytes).ok()?;
    (escape(&text) == name).then_some(text)
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn escaping_keeps_apart_what_swapping_would_join() {
        assert_eq!(escape("a.b/c"), "a.b_2Fc");
        assert_eq!(escape("a/b/c"), "a_2Fb_2Fc");
        assert_eq!(escape("a_b"), "a_5Fb");
        assert_eq!(escape("_2F"), "_5F2F");
        assert_eq!(escape("ä"), "_C3_A4");
        assert_eq!(escape(".."), "_2E_2E");
        assert_eq!(escape_also("a.b", "."), "a_2Eb");
    }

    #[test]
    fn only_legal_names_pass() {
        let long = "x".repeat(250);
        for (name, expected) in [
            ("telemetry.site-1_a", Ok(())),
            ("", Err(NameFault::Empty)),
            ("..", Err(NameFault::Dots)),
            ("a/b", Err(NameFault::Illegal { at: 1, found: '/' })),
            ("__headwater_owed", Err(NameFault::Internal)),
            (&long, Err(NameFault::TooLong)),
            (&long[1..], Ok(())),
        ] {
            assert_eq!(check(name), expected, "{name}");
        }
    }

    #[test]
    fn only_what_escape_writes_is_unescaped() {
        for never in ["_2", "_2f", "_41", "_FF", "a/b", "_", ".."] {
            assert_eq!(unescape(never), None, "{never}");
        }
    }

    proptest! {
        #[test]
        fn escaping_is_legal_and_reversible(text in ".{1,40}|[./_a-]{1,6}") {
            let escaped = escape(&text);
            prop_assert!(escaped.chars().all(is_legal), "{}", escaped);
            if escaped.len() <= NAME_BYTES_MAX {
                prop_assert_eq!(check(&escaped), Ok(()));
            }
            prop_assert_eq!(unescape(&escaped), Some(text));
        }
    }
}
