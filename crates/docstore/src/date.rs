//! Dates as relaxed Extended JSON writes them.
//!
//! For: milliseconds since 1970 <-> `2026-11-22T17:27:31.123Z`, in the proleptic Gregorian calendar.
//! Not for: time zones' names, clocks, leap seconds.
//! Calls: nothing.
//! Holds: what is written is read back as the same millisecond.

use std::fmt::Write;

const DAY_MS: i64 = 86_400_000;

/// Appends `{"$date": …}` for `ms`: as a date in the years 1970 to 9999, as a number else, as the
/// relaxed form of Extended JSON wants it.
pub(crate) fn push_date(out: &mut String, ms: i64) {
    const YEAR_10000_MS: i64 = 253_402_300_800_000;
    if !(0..YEAR_10000_MS).contains(&ms) {
        write_all(out, format_args!(r#"{{"$date":{{"$numberLong":"{ms}"}}}}"#));
        return;
    }
    let (year, month, day) = civil(ms.div_euclid(DAY_MS));
    let of_day = ms.rem_euclid(DAY_MS);
    let (hour, minute, second) = (of_day / 3_600_000, of_day / 60_000 % 60, of_day / 1000 % 60);
    let millis = of_day % 1000;
    write_all(
        out,
        format_args!(
            r#"{{"$date":"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z"}}"#
        ),
    );
}

/// Reads a date of RFC 3339, the seconds, their fraction and the zone optional (then UTC), as is
/// the whole time of day.
pub(crate) fn parse(text: &str) -> Option<i64> {
    let (date, time) = text.split_once(['T', 't', ' ']).unwrap_or((text, ""));
    let mut parts = date.splitn(3, '-');
    let year = digits(parts.next()?, 4)?;
    let month = digits(parts.next()?, 2)?;
    let day = digits(parts.next()?, 2)?;
    if !(1..=12).contains(&month) || day < 1 || day > month_days(year, month) {
        return None;
    }
    let (time, zone_minutes) = zone(time)?;
    Some(days(year, month, day) * DAY_MS + time_of_day(time)? - zone_minutes * 60_000)
}

/// Cuts the zone off a time: the rest and the minutes east of Greenwich.
fn zone(time: &str) -> Option<(&str, i64)> {
    if let Some(rest) = time.strip_suffix(['Z', 'z']) {
        return Some((rest, 0));
    }
    let Some(at) = time.rfind(['+', '-']) else {
        return Some((time, 0));
    };
    let (rest, zone) = time.split_at_checked(at)?;
    let sign = if zone.starts_with('-') { -1 } else { 1 };
    let zone = zone.get(1..)?;
    let (hours, minutes) = match zone.split_once(':') {
        Some(both) => both,
        None if zone.len() == 4 => zone.split_at_checked(2)?,
        None => (zone, "00"),
    };
    let (hours, minutes) = (digits(hours, 2)?, digits(minutes, 2)?);
    (hours < 24 && minutes < 60).then_some((rest, sign * (hours * 60 + minutes)))
}

fn time_of_day(time: &str) -> Option<i64> {
    if time.is_empty() {
        return Some(0);
    }
    let mut parts = time.splitn(3, ':');
    let hour = digits(parts.next()?, 2)?;
    let minute = digits(parts.next()?, 2)?;
    let (second, fraction) = parts
        .next()
        .map_or(("00", ""), |s| s.split_once('.').unwrap_or((s, "")));
    let second = digits(second, 2)?;
    if hour > 23 || minute > 59 || second > 59 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    // Beyond the millisecond it is cut, not rounded.
    let millis = fraction
        .bytes()
        .chain(*b"000")
        .take(3)
        .fold(0, |n, b| n * 10 + i64::from(b - b'0'));
    Some(((hour * 60 + minute) * 60 + second) * 1000 + millis)
}

fn digits(text: &str, count: usize) -> Option<i64> {
    (text.len() == count && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

fn month_days(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01. The year is taken to begin in March, so that the leap day is its last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// The inverse of [`days`].
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 {
        march_month + 3
    } else {
        march_month - 9
    };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day)
}

/// Writing to a `String` cannot fail.
pub(crate) fn write_all(out: &mut String, arguments: std::fmt::Arguments<'_>) {
    let written = out.write_fmt(arguments);
    debug_assert!(written.is_ok());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn dates_are_read() {
        for (text, ms, why) in [
            ("1970-01-01T00:00:00.000Z", Some(0), "the epoch"),
            (
                "2024-02-29T00:00:00Z",
                Some(1_709_164_800_000),
                "a leap day, no fraction",
            ),
            ("2023-02-29T00:00:00Z", None, "not a leap year"),
            (
                "2000-02-29",
                Some(951_782_400_000),
                "divisible by 400; no time is midnight UTC",
            ),
            ("1900-02-29", None, "divisible by 100 and not by 400"),
            (
                "2026-11-22T17:27:31.1239Z",
                Some(1_795_368_451_123),
                "cut after the millisecond",
            ),
            (
                "2026-11-22T18:27:31.123+01:00",
                Some(1_795_368_451_123),
                "a zone",
            ),
            (
                "2026-11-22T16:57:31.123-0030",
                Some(1_795_368_451_123),
                "a zone without colon",
            ),
            ("1969-12-31T23:59:59.999Z", Some(-1), "before the epoch"),
            ("2026-13-01", None, "no such month"),
            ("2026-11-22T24:00:00Z", None, "no such hour"),
            ("2026-1-2", None, "two digits"),
            ("tomorrow", None, "a word"),
            ("2026-11-22T17:27:31.12é", None, "not digits"),
            ("", None, "empty"),
        ] {
            assert_eq!(parse(text), ms, "{text:?}: {why}");
        }
    }

    #[test]
    fn dates_outside_1970_to_9999_are_numbers() {
        for (ms, text) in [
            (0, r#"{"$date":"1970-01-01T00:00:00.000Z"}"#),
            (
                253_402_300_799_999,
                r#"{"$date":"9999-12-31T23:59:59.999Z"}"#,
            ),
            (
                253_402_300_800_000,
                r#"{"$date":{"$numberLong":"253402300800000"}}"#,
            ),
            (-1, r#"{"$date":{"$numberLong":"-1"}}"#),
        ] {
            let mut out = String::new();
            push_date(&mut out, ms);
            assert_eq!(out, text);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(ms in 0i64..253_402_300_800_000) {
            let mut out = String::new();
            push_date(&mut out, ms);
            let text = out.trim_start_matches(r#"{"$date":""#).trim_end_matches(r#""}"#);
            prop_assert_eq!(parse(text), Some(ms), "{}", text);
        }

        #[test]
        fn parse_is_total(text: String) {
            let _any = parse(&text);
        }
    }
}
