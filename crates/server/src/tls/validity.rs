//! Until when a certificate or a revocation list holds, read from its DER (RFC 5280, 4.1 and 5.1).
//!
//! For: the one field that the libraries here do not give out.
//! Not for: judging anything: `rustls` verifies.

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
/// `[0] EXPLICIT`: the version of a certificate.
const VERSION: u8 = 0xA0;

/// `notAfter` of a certificate, in seconds since 1970.
pub(super) fn not_after_s(certificate: &[u8]) -> Option<i64> {
    let (body, _) = element(certificate, SEQUENCE)?;
    let (body, _) = element(body, SEQUENCE)?;
    let rest = element(body, VERSION).map_or(body, |(_, rest)| rest);
    let (_, rest) = element(rest, INTEGER)?;
    let (_, rest) = element(rest, SEQUENCE)?;
    let (_, rest) = element(rest, SEQUENCE)?;
    let (validity, _) = element(rest, SEQUENCE)?;
    let (_, rest) = time_s(validity)?;
    time_s(rest).map(|(at, _)| at)
}

/// `nextUpdate` of a revocation list, in seconds since 1970.
pub(super) fn next_update_s(list: &[u8]) -> Option<i64> {
    let (body, _) = element(list, SEQUENCE)?;
    let (body, _) = element(body, SEQUENCE)?;
    let rest = element(body, INTEGER).map_or(body, |(_, rest)| rest);
    let (_, rest) = element(rest, SEQUENCE)?;
    let (_, rest) = element(rest, SEQUENCE)?;
    let (_, rest) = time_s(rest)?;
    time_s(rest).map(|(at, _)| at)
}

/// Contents of the first element, which must have this tag, and what follows it.
fn element(input: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    let (&tag, rest) = input.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7F => (usize::from(first), rest),
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7F))?;
            let add = |sum: usize, byte: &u8| sum << 8 | usize::from(*byte);
            (bytes.iter().fold(0, add), rest)
        }
        _ => return None,
    };
    if tag != wanted {
        return None;
    }
    rest.split_at_checked(length)
}

/// A time in one of its two forms, which both end in seconds and `Z`.
fn time_s(input: &[u8]) -> Option<(i64, &[u8])> {
    let (text, rest, century) = match element(input, UTC_TIME) {
        Some((text, rest)) => {
            let (year, _) = digits(text)?;
            // 4.1.2.5.1: two digits stand for 1950 to 2049.
            (text, rest, Some(if year < 50 { 2000 } else { 1900 }))
        }
        None => {
            let (text, rest) = element(input, GENERALIZED_TIME)?;
            (text, rest, None)
        }
    };
    let (first, mut text) = digits(text)?;
    let year = match century {
        Some(century) => century + first,
        None => {
            let (second, after) = digits(text)?;
            text = after;
            first * 100 + second
        }
    };
    let mut next = || {
        let (value, after) = digits(text)?;
        text = after;
        Some(value)
    };
    let (month, day, hour, minute, second) = (next()?, next()?, next()?, next()?, next()?);
    let days = days_since_1970(year, month, day);
    Some((((days * 24 + hour) * 60 + minute) * 60 + second, rest))
}

fn digits(text: &[u8]) -> Option<(i64, &[u8])> {
    let (pair, rest) = text.split_at_checked(2)?;
    Some((str::from_utf8(pair).ok()?.parse().ok()?, rest))
}

/// By the Gregorian calendar, counted in years that begin in March.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + of_year
        - 719_468
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    #[test]
    fn end_of_a_certificate_is_read_in_both_forms() {
        for (year, month, day, expected) in [
            (2026, 11, 22, 1_795_305_600),
            (2028, 2, 29, 1_835_395_200),
            (2049, 12, 31, 2_524_521_600),
            (2050, 1, 1, 2_524_608_000),
            (4096, 1, 1, 67_090_118_400_i64),
        ] {
            let mut params = CertificateParams::new(vec!["a".to_owned()]).unwrap();
            params.not_after = date_time_ymd(year, month, day);
            let key = KeyPair::generate().unwrap();
            let der = params.self_signed(&key).unwrap();
            assert_eq!(params.not_after.unix_timestamp(), expected, "the table");
            assert_eq!(not_after_s(der.der()), Some(expected), "{year}");
            for cut in 0..der.der().len().min(200) {
                // Nothing but `None` comes of a part.
                assert_eq!(not_after_s(&der.der()[..cut]), None);
            }
        }
    }
}
