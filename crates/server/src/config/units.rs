//! Durations and sizes as people write them: `"7d"`, `"100ms"`, `"16MiB"`, or a bare number.

use std::fmt;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};

/// A span of time in milliseconds. In TOML an integer (milliseconds) or text with a unit: ms, s,
/// m, h, d.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub(crate) struct DurationMs(pub(crate) u64);

/// A size in bytes. In TOML an integer or text with a unit: B, kB, MB, GB, KiB, MiB, GiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub(crate) struct ByteSize(pub(crate) u64);

impl DurationMs {
    pub(crate) const fn days(days: u64) -> Self {
        Self(days * 86_400_000)
    }
}

const TIME_UNITS: &[(&str, u64)] = &[
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];
const SIZE_UNITS: &[(&str, u64)] = &[
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("B", 1),
];

/// `None` when there is no number, an unknown unit, or more than a u64 holds.
fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at_checked(digits)?;
    let factor = units.iter().find(|(name, _)| *name == unit.trim())?.1;
    number.parse::<u64>().ok()?.checked_mul(factor)
}

struct Units {
    units: &'static [(&'static str, u64)],
    expecting: &'static str,
}

impl Visitor<'_> for Units {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expecting)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<u64, E> {
        u64::try_from(value).map_err(|_| E::custom(format!("{value} is negative")))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<u64, E> {
        Ok(value)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<u64, E> {
        parse(value, self.units)
            .ok_or_else(|| E::custom(format!("\"{value}\" is not {}", self.expecting)))
    }
}

impl<'de> Deserialize<'de> for DurationMs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expecting = "milliseconds or a duration such as \"100ms\", \"5s\", \"7d\"";
        deserializer
            .deserialize_any(Units {
                units: TIME_UNITS,
                expecting,
            })
            .map(Self)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expecting = "bytes or a size such as \"64KiB\", \"16MiB\", \"1GB\"";
        deserializer
            .deserialize_any(Units {
                units: SIZE_UNITS,
                expecting,
            })
            .map(Self)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, factor) in [("GiB", 1_u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
            if self.0 >= factor && self.0.is_multiple_of(factor) {
                return write!(f, "{} {unit}", self.0 / factor);
            }
        }
        write!(f, "{} B", self.0)
    }
}

impl fmt::Display for DurationMs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, factor) in [("days", 86_400_000), ("hours", 3_600_000), ("s", 1_000)] {
            if self.0 >= factor && self.0.is_multiple_of(factor) {
                return write!(f, "{} {unit}", self.0 / factor);
            }
        }
        write!(f, "{} ms", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read_as_people_write_them() {
        for (text, expected) in [
            ("7d", Some(604_800_000)),
            ("100ms", Some(100)),
            ("5 s", Some(5_000)),
            ("5", None),
            ("s", None),
            ("-5s", None),
            ("5 parsecs", None),
            ("99999999999999999999d", None),
        ] {
            assert_eq!(parse(text, TIME_UNITS), expected, "{text}");
        }
        assert_eq!(parse("16MiB", SIZE_UNITS), Some(16 << 20));
        assert_eq!(parse("1GB", SIZE_UNITS), Some(1_000_000_000));
        assert_eq!(parse("18446744073709551615GiB", SIZE_UNITS), None);
    }

    #[test]
    fn sizes_and_times_are_shown_in_round_units() {
        assert_eq!(ByteSize(256 << 20).to_string(), "256 MiB");
        assert_eq!(ByteSize(1_000).to_string(), "1000 B");
        assert_eq!(DurationMs::days(7).to_string(), "7 days");
        assert_eq!(DurationMs(1_500).to_string(), "1500 ms");
    }
}
