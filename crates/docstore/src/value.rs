//! MongoDB's values and their one order.
//!
//! For: [`Value`], read from Extended JSON and compared as MongoDB compares.
//! Not for: filters, paths, SQL.
//! Calls: `date`. Called by: everything that looks into a document.
//! Holds: an integer stays an integer and a double a double; `compare` is a total order.

use crate::date;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;

/// A value of a document or a filter. Strings are borrowed from the text where it has no escapes.
#[derive(Clone, Debug)]
pub(crate) enum Value<'a> {
    Null,
    Bool(bool),
    /// BSON's int32 and int64, which differ in nothing that a filter can see.
    Int(i64),
    Double(f64),
    String(Cow<'a, str>),
    /// The order of the fields counts when objects are compared.
    Object(Vec<(Cow<'a, str>, Self)>),
    Array(Vec<Self>),
    Binary {
        subtype: u8,
        bytes: Vec<u8>,
    },
    /// Milliseconds since 1970.
    Date(i64),
}

/// Whether an object with a `$` key is read as the typed value it stands for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Reading {
    /// Documents of this store: `$` keys can only be types, a device's own are escaped.
    Extended,
    /// A device's payload, or a filter, where `$` may mean an operator: objects stay objects.
    Plain,
}

/// Why `{"$type": …}` is not a typed value.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Typed {
    /// The key is none of the types that are known here.
    Unknown,
    /// The key is a type, what it holds is not of it.
    Invalid,
}

impl<'a> Value<'a> {
    /// Reads one JSON text, at most 127 levels deep.
    pub(crate) fn parse(text: &'a str, reading: Reading) -> Result<Self, serde_json::Error> {
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let value = Tree { reading }.deserialize(&mut deserializer)?;
        deserializer.end()?;
        Ok(value)
    }

    /// The value that a `$`-keyed object of Extended JSON stands for.
    pub(crate) fn typed(fields: &[(Cow<'a, str>, Self)]) -> Result<Self, Typed> {
        let [(key, inner)] = fields else {
            return Err(Typed::Unknown);
        };
        let value = match (key.as_ref(), inner) {
            ("$date", Self::String(text)) => date::parse(text).map(Self::Date),
            ("$date", Self::Int(ms)) => Some(Self::Date(*ms)),
            ("$date", Self::Object(inner)) => match Self::typed(inner) {
                Ok(Self::Int(ms)) => Some(Self::Date(ms)),
                _ => None,
            },
            ("$numberInt", Self::String(text)) => {
                text.parse::<i32>().ok().map(|n| Self::Int(i64::from(n)))
            }
            ("$numberLong", Self::String(text)) => text.parse().ok().map(Self::Int),
            ("$numberDouble", Self::String(text)) => match text.as_ref() {
                "Infinity" => Some(f64::INFINITY),
                "-Infinity" => Some(f64::NEG_INFINITY),
                "NaN" => Some(f64::NAN),
                text if text
                    .bytes()
                    .all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b)) =>
                {
                    text.parse().ok()
                }
                _ => None,
            }
            .map(Self::Double),
            ("$binary", Self::Object(inner)) => binary(inner),
            ("$date" | "$numberInt" | "$numberLong" | "$numberDouble" | "$binary", _) => None,
            _ => return Err(Typed::Unknown),
        };
        value.ok_or(Typed::Invalid)
    }

    pub(crate) fn into_owned(self) -> Value<'static> {
        match self {
            Self::Null => Value::Null,
            Self::Bool(b) => Value::Bool(b),
            Self::Int(n) => Value::Int(n),
            Self::Double(n) => Value::Double(n),
            Self::String(s) => Value::String(Cow::Owned(s.into_owned())),
            Self::Object(fields) => Value::Object(
                fields
                    .into_iter()
                    .map(|(k, v)| (Cow::Owned(k.into_owned()), v.into_owned()))
                    .collect(),
            ),
            Self::Array(items) => Value::Array(items.into_iter().map(Self::into_owned).collect()),
            Self::Binary { subtype, bytes } => Value::Binary { subtype, bytes },
            Self::Date(ms) => Value::Date(ms),
        }
    }

    /// Bytes this value holds in memory, about; for bounding what is kept.
    pub(crate) fn weight(&self) -> usize {
        let inside = match self {
            Self::String(s) => s.len(),
            Self::Object(fields) => fields.iter().map(|(k, v)| 24 + k.len() + v.weight()).sum(),
            Self::Array(items) => items.iter().map(Self::weight).sum(),
            Self::Binary { bytes, .. } => bytes.len(),
            Self::Null | Self::Bool(_) | Self::Int(_) | Self::Double(_) | Self::Date(_) => 0,
        };
        size_of::<Self>() + inside
    }

    /// The place of the value's type in MongoDB's order of types. Values of different types are
    /// never equal, and `$gt` and its like compare only within one type.
    pub(crate) fn type_rank(&self) -> u8 {
        match self {
            Self::Null => 5,
            Self::Int(_) | Self::Double(_) => 10,
            Self::String(_) => 15,
            Self::Object(_) => 20,
            Self::Array(_) => 25,
            Self::Binary { .. } => 30,
            Self::Bool(_) => 40,
            Self::Date(_) => 45,
        }
    }

    /// MongoDB's order over all values.
    pub(crate) fn compare(&self, other: &Value<'_>) -> Ordering {
        match (self, other) {
            (Self::Bool(a), Value::Bool(b)) => a.cmp(b),
            (Self::Int(a), Value::Int(b)) | (Self::Date(a), Value::Date(b)) => a.cmp(b),
            (Self::Double(a), Value::Double(b)) => compare_doubles(*a, *b),
            (Self::Int(a), Value::Double(b)) => compare_int_double(*a, *b),
            (Self::Double(a), Value::Int(b)) => compare_int_double(*b, *a).reverse(),
            // Byte by byte; for UTF-8 that is the order of code points.
            (Self::String(a), Value::String(b)) => a.cmp(b),
            (Self::Object(a), Value::Object(b)) => compare_objects(a, b),
            (Self::Array(a), Value::Array(b)) => {
                let unequal = a
                    .iter()
                    .zip(b)
                    .map(|(a, b)| a.compare(b))
                    .find(|o| o.is_ne());
                unequal.unwrap_or_else(|| a.len().cmp(&b.len()))
            }
            // Length first, then the subtype, then the bytes.
            (
                Self::Binary {
                    subtype: s,
                    bytes: a,
                },
                Value::Binary {
                    subtype: t,
                    bytes: b,
                },
            ) => (a.len(), s, a).cmp(&(b.len(), t, b)),
            _ => self.type_rank().cmp(&other.type_rank()),
        }
    }
}

impl PartialEq for Value<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.compare(other).is_eq()
    }
}

/// Field by field: the type of the value, then the name, then the value.
fn compare_objects(a: &[(Cow<'_, str>, Value<'_>)], b: &[(Cow<'_, str>, Value<'_>)]) -> Ordering {
    for ((name, value), (other_name, other)) in a.iter().zip(b) {
        let order = value
            .type_rank()
            .cmp(&other.type_rank())
            .then_with(|| name.cmp(other_name))
            .then_with(|| value.compare(other));
        if order.is_ne() {
            return order;
        }
    }
    a.len().cmp(&b.len())
}

/// NaN equals itself and is less than every number; both zeros are one.
fn compare_doubles(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b)
        .unwrap_or_else(|| b.is_nan().cmp(&a.is_nan()))
}

/// Exact, also where an `f64` cannot hold the integer.
#[expect(
    clippy::cast_possible_truncation,
    reason = "within the range checked, the cast only cuts the fraction, on purpose"
)]
fn compare_int_double(int: i64, double: f64) -> Ordering {
    const TWO_TO_63: f64 = 9_223_372_036_854_775_808.0;
    if double.is_nan() || double < -TWO_TO_63 {
        Ordering::Greater
    } else if double >= TWO_TO_63 {
        Ordering::Less
    } else {
        let fraction = double.fract();
        int.cmp(&(double as i64))
            .then_with(|| compare_doubles(0.0, fraction))
    }
}

fn binary<'a>(fields: &[(Cow<'a, str>, Value<'a>)]) -> Option<Value<'a>> {
    let field = |name| {
        fields.iter().find_map(|(key, value)| match value {
            Value::String(text) if key == name => Some(text.as_ref()),
            _ => None,
        })
    };
    let bytes = BASE64.decode(field("base64")?).ok()?;
    let subtype = u8::from_str_radix(field("subType")?, 16).ok()?;
    (fields.len() == 2).then_some(Value::Binary { subtype, bytes })
}

/// Appends `text` as a JSON string.
pub(crate) fn push_string(out: &mut String, text: &str) {
    out.push('"');
    let mut rest = text;
    while let Some(at) = rest
        .bytes()
        .position(|b| b < 0x20 || b == b'"' || b == b'\\')
    {
        // The byte found is ASCII, so both cuts lie between characters.
        let (plain, tail) = rest.split_at_checked(at).unwrap_or((rest, ""));
        out.push_str(plain);
        let mut characters = tail.chars();
        match characters.next() {
            Some('"') => out.push_str("\\\""),
            Some('\\') => out.push_str("\\\\"),
            Some('\n') => out.push_str("\\n"),
            Some('\r') => out.push_str("\\r"),
            Some('\t') => out.push_str("\\t"),
            Some(other) => date::write_all(out, format_args!("\\u{:04x}", u32::from(other))),
            None => {}
        }
        rest = characters.as_str();
    }
    out.push_str(rest);
    out.push('"');
}

/// Appends `bytes` as Extended JSON's generic binary.
pub(crate) fn push_binary(out: &mut String, bytes: &[u8]) {
    out.push_str(r#"{"$binary":{"base64":""#);
    BASE64.encode_string(bytes, out);
    out.push_str(r#"","subType":"00"}}"#);
}

/// Builds a [`Value`] while `serde_json` reads: it tells 1 from 1.0, and keeps order and doubles.
#[derive(Clone, Copy)]
struct Tree {
    reading: Reading,
}

impl<'de> DeserializeSeed<'de> for Tree {
    type Value = Value<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value<'de>, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value<'de>, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value<'de>, E> {
        Ok(Value::Int(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value<'de>, E> {
        // An integer that no int64 holds is a double, as in MongoDB's own readers of JSON.
        Ok(i64::try_from(value).map_or(Value::Double(value as f64), Value::Int))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value<'de>, E> {
        Ok(Value::Double(value))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Value<'de>, E> {
        Ok(Value::String(Cow::Borrowed(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value<'de>, E> {
        Ok(Value::String(Cow::Owned(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value<'de>, A::Error> {
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value<'de>, A::Error> {
        let mut fields = Vec::new();
        while let Some(key) = entries.next_key_seed(Key)? {
            fields.push((key, entries.next_value_seed(self)?));
        }
        if self.reading == Reading::Extended
            && fields.first().is_some_and(|(key, _)| key.starts_with('$'))
            && let Ok(typed) = Value::typed(&fields)
        {
            return Ok(typed);
        }
        Ok(Value::Object(fields))
    }
}

/// A key, borrowed where it has no escapes.
pub(crate) struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Cow<'de, str>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(value.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value(text: &str) -> Value<'_> {
        Value::parse(text, Reading::Extended).unwrap()
    }

    #[test]
    fn types_are_ordered_as_mongodb_orders_them() {
        let ascending = [
            "null",
            r#"{"$numberDouble":"NaN"}"#,
            r#"{"$numberDouble":"-Infinity"}"#,
            "-1.5",
            "0",
            "1",
            "1.5",
            "9007199254740993",
            "9007199254740994.0",
            "9223372036854775807",
            "9223372036854775808.0",
            r#""""#,
            r#""A""#,
            r#""a""#,
            r#""ab""#,
            r#""ä""#,
            "{}",
            r#"{"a":1}"#,
            r#"{"a":1,"b":1}"#,
            r#"{"b":1}"#,
            r#"{"a":"x"}"#,
            "[]",
            "[1]",
            "[1,2]",
            "[2]",
            r#"{"$binary":{"base64":"/w==","subType":"00"}}"#,
            r#"{"$binary":{"base64":"AAA=","subType":"00"}}"#,
            "false",
            "true",
            r#"{"$date":{"$numberLong":"-1"}}"#,
            r#"{"$date":"1970-01-01T00:00:00Z"}"#,
        ];
        for (i, a) in ascending.iter().enumerate() {
            for (j, b) in ascending.iter().enumerate() {
                assert_eq!(value(a).compare(&value(b)), i.cmp(&j), "{a} and {b}");
            }
        }
    }

    #[test]
    fn numbers_are_equal_across_types_and_exact() {
        for (a, b, expected, why) in [
            ("1", "1.0", Ordering::Equal, "int and double"),
            ("0", "-0.0", Ordering::Equal, "the zeros"),
            (
                "9007199254740993",
                "9007199254740992.0",
                Ordering::Greater,
                "2^53 + 1 is no double",
            ),
            (
                "-9223372036854775808",
                "-9223372036854775808.0",
                Ordering::Equal,
                "the least int64",
            ),
            ("-1", "-1.5", Ordering::Greater, "a negative fraction"),
            (
                "18446744073709551615",
                "18446744073709551615.0",
                Ordering::Equal,
                "beyond int64",
            ),
        ] {
            assert_eq!(value(a).compare(&value(b)), expected, "{a} and {b}: {why}");
        }
    }

    #[test]
    fn types_of_extended_json_are_read() {
        for (text, expected, why) in [
            (r#"{"$date":5}"#, Value::Date(5), "milliseconds"),
            (
                r#"{"$date":{"$numberLong":"5"}}"#,
                Value::Date(5),
                "canonical form",
            ),
            (r#"{"$numberLong":"5"}"#, Value::Int(5), "int64"),
            (r#"{"$numberDouble":"5"}"#, Value::Double(5.0), "double"),
        ] {
            assert_eq!(value(text), expected, "{text}: {why}");
        }
        for (text, expected) in [
            (r#"{"$date":"soon"}"#, Typed::Invalid),
            (r#"{"$numberInt":"3000000000"}"#, Typed::Invalid),
            (r#"{"$numberDouble":"nan"}"#, Typed::Invalid),
            (
                r#"{"$binary":{"base64":"!","subType":"00"}}"#,
                Typed::Invalid,
            ),
            (r#"{"$oid":"x"}"#, Typed::Unknown),
        ] {
            let Value::Object(fields) = Value::parse(text, Reading::Plain).unwrap() else {
                panic!("{text} is an object");
            };
            assert_eq!(Value::typed(&fields), Err(expected), "{text}");
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "callers stay below 1e30")]
    fn whole(double: f64) -> i128 {
        double.floor() as i128
    }

    proptest! {
        #[test]
        fn strings_survive_quoting(text: String) {
            let mut out = String::new();
            push_string(&mut out, &text);
            prop_assert_eq!(&serde_json::from_str::<String>(&out).unwrap(), &text);
            prop_assert!(!out.contains('\n'));
        }

        #[test]
        fn ints_and_doubles_compare_as_the_real_numbers_do(int: i64, double: f64) {
            // Beyond it every integer is on the same side; below it i128 holds the whole part.
            prop_assume!(double.abs() < 1e30);
            let expected = i128::from(int).cmp(&whole(double)).then_with(|| {
                if double.fract() == 0.0 { Ordering::Equal } else { Ordering::Less }
            });
            prop_assert_eq!(Value::Int(int).compare(&Value::Double(double)), expected);
        }
    }
}
