//! A payload as it stands in a document.
//!
//! For: telling JSON from text from other bytes, and writing each into the document's text.
//! Not for: the document around it (`document`).
//! Calls: `value`. Called by: `document`.
//! Holds: a JSON payload goes in byte for byte, unless something in it cannot stay: line ends, a
//! key that begins with `$`, a key said twice, an integer that no int64 holds. What MongoDB could
//! not hold at all (deeper than [`PAYLOAD_DEPTH_MAX`], a NUL in a key, a number beyond a double)
//! is kept as text.

use crate::date::write_all;
use crate::value::{Key, Reading, Value, push_string};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use smallvec::SmallVec;
use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

/// Deepest payload that is kept as JSON. MongoDB takes 100 levels, some are the document's own.
pub const PAYLOAD_DEPTH_MAX: usize = 96;

/// `payload_kind`: what the payload was.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    Json,
    Text,
    Binary,
    Null,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Text => "text",
            Self::Binary => "binary",
            Self::Null => "null",
        }
    }
}

/// What [`push_payload`] wrote.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Written {
    pub(crate) kind: Kind,
    /// An array stands somewhere in it: paths then reach further than SQL can follow.
    pub(crate) arrays: bool,
}

/// Appends the payload as a JSON value on one line.
pub(crate) fn push_payload(out: &mut String, payload: Option<&[u8]>) -> Written {
    let plain = |kind| Written {
        kind,
        arrays: false,
    };
    let Some(bytes) = payload else {
        out.push_str("null");
        return plain(Kind::Null);
    };
    let Ok(text) = str::from_utf8(bytes) else {
        out.push('"');
        BASE64.encode_string(bytes, out);
        out.push('"');
        return plain(Kind::Binary);
    };
    let Some(shape) = Shape::of(text) else {
        push_string(out, text);
        return plain(Kind::Text);
    };
    // Outside of strings a control character can only be white space; inside there can be none.
    if shape.verbatim && text.bytes().all(|b| b >= 0x20) {
        out.push_str(text.trim_matches(' '));
    } else if let Ok(value) = Value::parse(text, Reading::Plain) {
        push_value(out, &value);
    }
    Written {
        kind: Kind::Json,
        arrays: shape.arrays,
    }
}

/// Appends a key, escaped if it begins with `$`: those are Extended JSON's. Underscores in front
/// of a `$` become one more; so the way back is to take one off, and no two keys become one.
pub(crate) fn push_key(out: &mut String, key: &str) {
    if is_reserved(key) {
        let at = out.len();
        push_string(out, key);
        out.insert(at + 1, '_');
    } else {
        push_string(out, key);
    }
}

fn is_reserved(key: &str) -> bool {
    key.trim_start_matches('_').starts_with('$')
}

/// Of a key said twice the last value counts, as everywhere in JSON, at the place of the first.
fn push_value(out: &mut String, value: &Value<'_>) {
    match value {
        Value::Object(fields) => {
            let mut order: Vec<(&str, &Value<'_>)> = Vec::with_capacity(fields.len());
            let mut places = std::collections::HashMap::with_capacity(fields.len());
            for (key, value) in fields {
                let place = *places.entry(key.as_ref()).or_insert(order.len());
                match order.get_mut(place) {
                    Some(entry) => entry.1 = value,
                    None => order.push((key, value)),
                }
            }
            out.push('{');
            for (n, (key, value)) in order.into_iter().enumerate() {
                if n > 0 {
                    out.push(',');
                }
                push_key(out, key);
                out.push(':');
                push_value(out, value);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (n, item) in items.iter().enumerate() {
                if n > 0 {
                    out.push(',');
                }
                push_value(out, item);
            }
            out.push(']');
        }
        Value::String(text) => push_string(out, text),
        Value::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
        Value::Int(n) => write_all(out, format_args!("{n}")),
        // With a point or an exponent, always: so it is read as a double again.
        Value::Double(n) => write_all(out, format_args!("{n:?}")),
        // `Reading::Plain` makes neither.
        Value::Null | Value::Binary { .. } | Value::Date(_) => out.push_str("null"),
    }
}

/// What a JSON text looks like, found in one pass that builds nothing.
#[derive(Clone, Copy, Debug)]
struct Shape {
    verbatim: bool,
    arrays: bool,
}

impl Shape {
    /// `None`: not JSON that a document can hold.
    fn of(text: &str) -> Option<Self> {
        let mut shape = Self {
            verbatim: true,
            arrays: false,
        };
        let mut deserializer = serde_json::Deserializer::from_str(text);
        Look {
            shape: &mut shape,
            depth: 0,
        }
        .deserialize(&mut deserializer)
        .ok()?;
        deserializer.end().ok()?;
        Some(shape)
    }
}

struct Look<'s> {
    shape: &'s mut Shape,
    depth: usize,
}

impl Look<'_> {
    fn deeper<E: Error>(&mut self) -> Result<usize, E> {
        if self.depth >= PAYLOAD_DEPTH_MAX {
            return Err(E::custom("too deep"));
        }
        Ok(self.depth + 1)
    }
}

impl<'de> DeserializeSeed<'de> for Look<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Look<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.shape.verbatim &= i64::try_from(value).is_ok();
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        // A long integer comes as a double too; "-0" as -0.0. Both are written anew.
        const TWO_TO_63: f64 = 9_223_372_036_854_775_808.0;
        self.shape.verbatim &=
            value.abs() < TWO_TO_63 && (value != 0.0 || value.is_sign_positive());
        Ok(())
    }

    fn visit_borrowed_str<E>(self, _: &'de str) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        self.shape.arrays = true;
        let depth = self.deeper()?;
        while items
            .next_element_seed(Look {
                shape: self.shape,
                depth,
            })?
            .is_some()
        {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut entries: A) -> Result<(), A::Error> {
        let depth = self.deeper()?;
        let mut keys = Keys::default();
        while let Some(key) = entries.next_key_seed(Key)? {
            if key.contains('\0') {
                return Err(A::Error::custom("a NUL in a key"));
            }
            // A key with escapes is rare and may hide anything: the slow way looks at it decoded.
            self.shape.verbatim &= match key {
                Cow::Borrowed(key) => !is_reserved(key) && keys.is_new(key),
                Cow::Owned(_) => false,
            };
            entries.next_value_seed(Look {
                shape: self.shape,
                depth,
            })?;
        }
        Ok(())
    }
}

/// The keys of one object so far. A few are compared one by one; many, as only a hostile or a very
/// wide object has, are hashed.
#[derive(Default)]
struct Keys<'de> {
    few: SmallVec<[&'de str; 16]>,
    many: HashSet<&'de str>,
}

impl<'de> Keys<'de> {
    fn is_new(&mut self, key: &'de str) -> bool {
        if self.many.is_empty() && self.few.len() < 16 {
            let new = !self.few.contains(&key);
            self.few.push(key);
            return new;
        }
        self.many.extend(self.few.drain(..));
        self.many.insert(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(payload: &[u8]) -> (Kind, String) {
        let mut out = String::new();
        let written = push_payload(&mut out, Some(payload));
        (written.kind, out)
    }

    #[test]
    fn payloads_are_json_text_or_base64() {
        let deepest = format!("{}{}", "[".repeat(96), "]".repeat(96));
        let too_deep = format!("{}{}", "[".repeat(97), "]".repeat(97));
        let as_text = format!("\"{too_deep}\"");
        for (payload, kind, text, why) in [
            (
                r#"{"b": 1.0, "a": [1e5]}"#,
                Kind::Json,
                r#"{"b": 1.0, "a": [1e5]}"#,
                "verbatim",
            ),
            ("  42 ", Kind::Json, "42", "white space around it"),
            ("null", Kind::Json, "null", "JSON's null is JSON"),
            ("\"a\"", Kind::Json, "\"a\"", "a string in JSON"),
            ("a \"b\"\n", Kind::Text, r#""a \"b\"\n""#, "text"),
            ("", Kind::Text, "\"\"", "an empty value is empty text"),
            (
                "{\"a\":\n\t1}",
                Kind::Json,
                r#"{"a":1}"#,
                "one document is one line",
            ),
            (
                "{\"a\":1} x",
                Kind::Text,
                r#""{\"a\":1} x""#,
                "something behind the JSON",
            ),
            ("NaN", Kind::Text, "\"NaN\"", "no JSON"),
            (
                r#"{"$oid":"x"}"#,
                Kind::Json,
                r#"{"_$oid":"x"}"#,
                "a device's own $ key",
            ),
            (
                r#"{"_$a":{"$b":2}}"#,
                Kind::Json,
                r#"{"__$a":{"_$b":2}}"#,
                "what looks escaped",
            ),
            (
                r#"{"\u0024a":1}"#,
                Kind::Json,
                r#"{"_$a":1}"#,
                "a $ in disguise",
            ),
            (
                r#"{"a$":1,"_a":2}"#,
                Kind::Json,
                r#"{"a$":1,"_a":2}"#,
                "a $ elsewhere",
            ),
            (
                r#"{"a":1,"b":2,"a":3}"#,
                Kind::Json,
                r#"{"a":3,"b":2}"#,
                "the last one counts",
            ),
            (
                r#"{"a":1,"\u0061":3}"#,
                Kind::Json,
                r#"{"a":3}"#,
                "the same key, escaped",
            ),
            (
                "9223372036854775807",
                Kind::Json,
                "9223372036854775807",
                "the greatest int64",
            ),
            (
                "9223372036854775808",
                Kind::Json,
                "9.223372036854776e18",
                "beyond int64",
            ),
            (
                "100000000000000000000000",
                Kind::Json,
                "1e23",
                "beyond uint64",
            ),
            ("1e999", Kind::Text, "\"1e999\"", "beyond a double"),
            (
                r#"{"a\u0000":1}"#,
                Kind::Text,
                r#""{\"a\\u0000\":1}""#,
                "BSON has no such key",
            ),
            (
                r#""\ud800""#,
                Kind::Text,
                r#""\"\\ud800\"""#,
                "half a character",
            ),
            (&deepest, Kind::Json, &deepest, "as deep as may be"),
            (&too_deep, Kind::Text, &as_text, "deeper"),
        ] {
            assert_eq!(
                written(payload.as_bytes()),
                (kind, text.to_owned()),
                "{payload}: {why}"
            );
        }
        assert_eq!(written(b"\xff\x00"), (Kind::Binary, "\"/wA=\"".to_owned()));
        let mut out = String::new();
        assert_eq!(push_payload(&mut out, None).kind, Kind::Null);
        assert_eq!(out, "null");
    }

    #[test]
    fn an_object_of_many_keys_is_searched_for_doubles() {
        let mut fields: Vec<String> = (0..1000).map(|n| format!("\"k{n}\":{n}")).collect();
        let text = format!("{{{}}}", fields.join(","));
        assert_eq!(written(text.as_bytes()).1, text);
        fields.push("\"k999\":1".to_owned());
        let text = format!("{{{}}}", fields.join(","));
        assert!(
            written(text.as_bytes())
                .1
                .ends_with("\"k998\":998,\"k999\":1}")
        );
    }

    proptest! {
        #[test]
        fn any_bytes_make_one_line_of_json(bytes: Vec<u8>) {
            let (_, text) = written(&bytes);
            prop_assert!(!text.contains(['\n', '\r']));
            prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{}", text);
        }

        #[test]
        fn escaped_keys_stay_apart(a in "_{0,2}[$]?[a_$]{0,2}", b in "_{0,2}[$]?[a_$]{0,2}") {
            let mut out = (String::new(), String::new());
            push_key(&mut out.0, &a);
            push_key(&mut out.1, &b);
            prop_assert_eq!(a == b, out.0 == out.1);
            prop_assert!(!out.0.starts_with("\"$"));
        }
    }
}
