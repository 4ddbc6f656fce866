//! The PROXY protocol, versions 1 and 2: what a load balancer says first about whom it carries
//! (HAProxy's proxy-protocol.txt, 2.1 and 2.2).
//!
//! For: the source address that a header names.
//! Not for: deciding from whom a header is taken (`handshake`); what else a header may say: TLVs are
//!   passed over.
//! Holds: whatever the bytes, no more than a header's are asked for, and no more than
//!   [`V1_BYTES_MAX`] or [`V2_BYTES_MAX`]. Own code, since the whole of it is shorter than the
//!   reading of a library's: these are strangers' bytes before anything else has looked at them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The longest line of version 1, CR LF included (2.1).
pub(crate) const V1_BYTES_MAX: usize = 107;
/// Header, addresses and TLVs of version 2. Proxies send a few hundred bytes at most.
pub(crate) const V2_BYTES_MAX: usize = V2_HEAD_BYTES + 1_024;

const V1_SIGNATURE: &[u8] = b"PROXY ";
/// `PROXY UNKNOWN` and the end of the line.
const V1_BYTES_MIN: usize = 15;
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const V2_HEAD_BYTES: usize = 16;

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Header {
    /// The beginning of a header that has so many bytes in all, at least.
    Needs(usize),
    /// A whole header. `None` where it names no source: the proxy speaks for itself, or does not know.
    Whole(Option<SocketAddr>),
}

/// Why bytes are no header.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum HeaderError {
    #[error("the connection does not begin with a PROXY protocol header")]
    Signature,
    #[error("the PROXY protocol header is longer than allowed")]
    TooLong,
    #[error("the PROXY protocol header is malformed")]
    Malformed,
}

/// Reads `bytes`, which end where the header does or before.
pub(crate) fn parse(bytes: &[u8]) -> Result<Header, HeaderError> {
    if begins(bytes, V1_SIGNATURE) {
        parse_v1(bytes)
    } else if begins(bytes, V2_SIGNATURE) {
        parse_v2(bytes)
    } else {
        Err(HeaderError::Signature)
    }
}

/// As far as both go.
fn begins(bytes: &[u8], signature: &[u8]) -> bool {
    bytes.iter().zip(signature).all(|(one, other)| one == other)
}

fn parse_v1(bytes: &[u8]) -> Result<Header, HeaderError> {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
        let needs = (bytes.len() + 1).max(V1_BYTES_MIN);
        return match needs {
            ..=V1_BYTES_MAX => Ok(Header::Needs(needs)),
            _ => Err(HeaderError::TooLong),
        };
    };
    let (line, rest) = bytes.split_at_checked(end).unwrap_or_default();
    if rest.len() != 1 {
        return Err(HeaderError::Malformed);
    }
    let line = line.strip_suffix(b"\r").ok_or(HeaderError::Malformed)?;
    let line = line
        .strip_prefix(V1_SIGNATURE)
        .ok_or(HeaderError::Malformed)?;
    let line = str::from_utf8(line).map_err(|_| HeaderError::Malformed)?;
    source_v1(line)
        .ok_or(HeaderError::Malformed)
        .map(Header::Whole)
}

/// Protocol, source, destination, source port, destination port, one space between them.
fn source_v1(line: &str) -> Option<Option<SocketAddr>> {
    let mut fields = line.split(' ');
    let protocol = fields.next()?;
    if protocol == "UNKNOWN" {
        // 2.1: whatever follows is passed over.
        return Some(None);
    }
    let mut address = || -> Option<IpAddr> {
        let field = fields.next()?;
        match protocol {
            "TCP4" => field.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            "TCP6" => field.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let (source, _) = (address()?, address()?);
    let mut port = || -> Option<u16> {
        let field = fields.next()?;
        // `parse` would take a sign.
        let is_number = field.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| field.parse().ok())?
    };
    let (port, _) = (port()?, port()?);
    let is_all = fields.next().is_none();
    is_all.then_some(Some(SocketAddr::new(source, port)))
}

fn parse_v2(bytes: &[u8]) -> Result<Header, HeaderError> {
    let Some((head, body)) = bytes.split_at_checked(V2_HEAD_BYTES) else {
        return Ok(Header::Needs(V2_HEAD_BYTES));
    };
    let &[.., command, family, high, low] = head else {
        return Err(HeaderError::Malformed);
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if V2_HEAD_BYTES + length > V2_BYTES_MAX {
        return Err(HeaderError::TooLong);
    }
    if body.len() < length {
        return Ok(Header::Needs(V2_HEAD_BYTES + length));
    }
    match command {
        // LOCAL: a health check of the proxy's own.
        0x20 => Ok(Header::Whole(None)),
        0x21 => source_v2(family, body).map(Header::Whole),
        _ => Err(HeaderError::Malformed),
    }
}

/// By family and transport: source, destination, source port, destination port.
fn source_v2(family: u8, body: &[u8]) -> Result<Option<SocketAddr>, HeaderError> {
    let found = match family {
        // Unspecified, and a Unix socket's path.
        0x00 | 0x31 => return Ok(None),
        0x11 => body.first_chunk::<12>().map(|all| {
            let &[a, b, c, d, _, _, _, _, high, low, _, _] = all;
            (IpAddr::from([a, b, c, d]), [high, low])
        }),
        0x21 => body.first_chunk::<36>().and_then(|all| {
            let (source, rest) = all.split_first_chunk::<16>()?;
            let &[.., high, low, _, _] = rest else {
                return None;
            };
            Some((IpAddr::from(*source), [high, low]))
        }),
        // 2.2: a receiver drops what it does not expect.
        _ => None,
    };
    let (source, port) = found.ok_or(HeaderError::Malformed)?;
    Ok(Some(SocketAddr::new(source, u16::from_be_bytes(port))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [V2_SIGNATURE, &[command, family], &length, body].concat()
    }

    fn v4_body(more: &[u8]) -> Vec<u8> {
        [&[192, 0, 2, 1, 10, 0, 0, 1, 0x30, 0x39, 0x07, 0x5B], more].concat()
    }

    #[test]
    fn whole_header_gives_its_source() {
        let v6 = [
            &[0x20, 1, 0x0d, 0xb8][..],
            &[0; 11],
            &[1],
            &[0; 16],
            &[0, 1, 0, 2],
        ]
        .concat();
        for (bytes, source, why) in [
            (
                b"PROXY TCP4 192.0.2.1 10.0.0.1 12345 1883\r\n".to_vec(),
                Some("192.0.2.1:12345"),
                "1: TCP4",
            ),
            (
                b"PROXY TCP6 2001:db8::1 ::1 1 2\r\n".to_vec(),
                Some("[2001:db8::1]:1"),
                "1: TCP6",
            ),
            (b"PROXY UNKNOWN\r\n".to_vec(), None, "1: UNKNOWN"),
            (
                b"PROXY UNKNOWN ffff::1 x 1 2\r\n".to_vec(),
                None,
                "1: UNKNOWN, the rest passed over",
            ),
            (
                v2(0x21, 0x11, &v4_body(b"")),
                Some("192.0.2.1:12345"),
                "2: TCP over IPv4",
            ),
            (
                v2(0x21, 0x11, &v4_body(&[4, 0, 3, 1, 2, 3])),
                Some("192.0.2.1:12345"),
                "2: with a TLV",
            ),
            (
                v2(0x21, 0x21, &v6),
                Some("[2001:db8::1]:1"),
                "2: TCP over IPv6",
            ),
            (
                v2(0x20, 0x11, &v4_body(b"")),
                None,
                "2: LOCAL, the addresses passed over",
            ),
            (v2(0x20, 0x00, b""), None, "2: LOCAL"),
            (v2(0x21, 0x00, b""), None, "2: unspecified"),
            (v2(0x21, 0x31, &[0; 216]), None, "2: a Unix socket"),
        ] {
            let source = source.map(|source| source.parse().unwrap());
            assert_eq!(parse(&bytes), Ok(Header::Whole(source)), "{why}");
            // Byte by byte, as a slow proxy sends it: never refused, never asked for more than there is.
            for cut in 0..bytes.len() {
                match parse(&bytes[..cut]) {
                    Ok(Header::Needs(needs)) => {
                        assert!(cut < needs && needs <= bytes.len(), "{why}: {cut} {needs}");
                    }
                    other => panic!("{why}: {other:?} after {cut} bytes"),
                }
            }
        }
    }

    #[test]
    fn what_is_no_header_is_refused_at_once() {
        let long_v1 = [b"PROXY UNKNOWN ".to_vec(), vec![b'x'; 93]].concat();
        let long_v2 = [V2_SIGNATURE, &[0x21, 0x11, 4, 1]].concat();
        for (bytes, error, why) in [
            (
                &b"\x10\x0d\x00\x04MQTT"[..],
                HeaderError::Signature,
                "CONNECT",
            ),
            (b"\x16\x03\x01", HeaderError::Signature, "a ClientHello"),
            (b"PROXZ", HeaderError::Signature, "nearly version 1"),
            (
                b"\r\n\r\n\0\r\nQUIZ",
                HeaderError::Signature,
                "nearly version 2",
            ),
            (&long_v1, HeaderError::TooLong, "version 1 without an end"),
            (
                &long_v2,
                HeaderError::TooLong,
                "version 2, by its length alone",
            ),
            (
                b"PROXY TCP4 192.0.2.1 10.0.0.1 1 2\n",
                HeaderError::Malformed,
                "no CR",
            ),
            (
                b"PROXY TCP4 192.0.2.1 10.0.0.1 1\r\n",
                HeaderError::Malformed,
                "a field less",
            ),
            (
                b"PROXY TCP4 192.0.2.1 10.0.0.1 1 2 3\r\n",
                HeaderError::Malformed,
                "a field more",
            ),
            (
                b"PROXY TCP4 192.0.2.1  10.0.0.1 1 2\r\n",
                HeaderError::Malformed,
                "two spaces",
            ),
            (
                b"PROXY TCP4 192.0.2.01 10.0.0.1 1 2\r\n",
                HeaderError::Malformed,
                "a leading zero",
            ),
            (
                b"PROXY TCP4 ::1 ::1 1 2\r\n",
                HeaderError::Malformed,
                "the other family",
            ),
            (
                b"PROXY TCP4 192.0.2.1 10.0.0.1 +1 2\r\n",
                HeaderError::Malformed,
                "a sign",
            ),
            (
                b"PROXY TCP4 192.0.2.1 10.0.0.1 65536 2\r\n",
                HeaderError::Malformed,
                "no port",
            ),
            (
                b"PROXY TCP4\nxxxx",
                HeaderError::Malformed,
                "an end in the middle",
            ),
            (
                b"PROXY UDP4 192.0.2.1 10.0.0.1 1 2\r\n",
                HeaderError::Malformed,
                "no TCP",
            ),
            (
                b"PROXY \xff\xff\xff\xff\xff\xff\xff\r\n",
                HeaderError::Malformed,
                "no text",
            ),
            (
                &v2(0x11, 0x11, &v4_body(b"")),
                HeaderError::Malformed,
                "version 1 in 2",
            ),
            (
                &v2(0x22, 0x11, &v4_body(b"")),
                HeaderError::Malformed,
                "no command",
            ),
            (
                &v2(0x21, 0x12, &v4_body(b"")),
                HeaderError::Malformed,
                "UDP",
            ),
            (
                &v2(0x21, 0x21, &v4_body(b"")),
                HeaderError::Malformed,
                "too short for IPv6",
            ),
            (&v2(0x21, 0x41, b""), HeaderError::Malformed, "no family"),
        ] {
            assert_eq!(parse(bytes), Err(error), "{why}");
        }
    }
}
