//! The HTTP request that makes a byte stream a WebSocket (RFC 6455, 4.2), and its answer.
//!
//! For: one request, bounded, and one answer: 101, or a status with a sentence.
//! Not for: the time it may take (`handshake`), frames (`super`).
//! Called by: `handshake`; the fuzz target `websocket`.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, BytesMut};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Longest head of a request: the line and the header fields, a browser's cookies among them.
pub(crate) const HEAD_BYTES_MAX: usize = 16 << 10;
const HEADERS_MAX: usize = 64;
/// Room for one read: most requests come in one.
const READ_BYTES: usize = 1 << 10;
/// What the key is hashed with (RFC 6455, 1.3).
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Subprotocols that mean MQTT: MQTT's own, that of MQTT 3.1, and what clients of other brokers say. A
/// browser fails a connection whose answer names none of those it offered.
const SUBPROTOCOLS: [&str; 7] = [
    "mqtt",
    "mqttv3.1",
    "mqttv3.1.1",
    "mqttv5",
    "mqtt-v3",
    "mqtt-v3.1.1",
    "mqtt-v5",
];

/// What a door asks of a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Terms {
    /// The path that is MQTT's, with its first `/`.
    pub(crate) path: String,
    pub(crate) origins: Origins,
}

/// Pages whose scripts may connect, by the `Origin` that their browser names (RFC 6454). A client that
/// is no browser names none and is not asked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Origins {
    Any,
    /// Pages of this computer. For a door on loopback that lets everybody in: else each page on the web
    /// that a user of this computer opens could read and write here.
    Local,
    Listed(Vec<String>),
}

/// Why a request is no upgrade: the status, a header field, a sentence.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Refusal(&'static str, &'static str, &'static str);

const BAD_REQUEST: Refusal = Refusal("400 Bad Request", "", "this is no HTTP request");
const BAD_KEY: Refusal = Refusal(
    "400 Bad Request",
    "",
    "Sec-WebSocket-Key is missing or not 16 bytes in base64",
);
const BAD_SUBPROTOCOL: Refusal = Refusal(
    "400 Bad Request",
    "",
    "offer the subprotocol mqtt in Sec-WebSocket-Protocol",
);
const FORBIDDEN: Refusal = Refusal(
    "403 Forbidden",
    "",
    "pages of this origin may not connect; name it in the listener's key origins",
);
const NOT_FOUND: Refusal = Refusal("404 Not Found", "", "MQTT is at another path of this port");
const NOT_ALLOWED: Refusal = Refusal(
    "405 Method Not Allowed",
    "Allow: GET\r\n",
    "a WebSocket begins with GET",
);
const LINE_TOO_LONG: Refusal = Refusal("414 URI Too Long", "", "the request line is too long");
const NO_UPGRADE: Refusal = Refusal(
    "426 Upgrade Required",
    "Upgrade: websocket\r\n",
    "this is MQTT's WebSocket; connect with an MQTT client",
);
const WRONG_VERSION: Refusal = Refusal(
    "426 Upgrade Required",
    "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
    "only version 13 of the WebSocket protocol is spoken here",
);
const HEAD_TOO_LARGE: Refusal = Refusal(
    "431 Request Header Fields Too Large",
    "",
    "the header fields are too many or too long",
);

/// Reads the request and answers it. What came behind it, when `stream` is a WebSocket now; `None` when
/// the answer was no.
pub(crate) async fn upgrade<S>(stream: &mut S, terms: &Terms) -> io::Result<Option<BytesMut>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut head = BytesMut::new();
    let answer = match read_head(stream, &mut head).await? {
        Ok(end) => {
            let early = head.split_off(end);
            let answer = accept(&head, terms);
            head = early;
            answer
        }
        Err(refusal) => Err(refusal),
    };
    let text = match &answer {
        Ok(text) => text,
        Err(refusal) => &refusal.text(),
    };
    stream.write_all(text.as_bytes()).await?;
    stream.flush().await?;
    Ok(answer.is_ok().then_some(head))
}

/// Reads until the empty line behind the header fields; where it ends.
async fn read_head<S>(stream: &mut S, head: &mut BytesMut) -> io::Result<Result<usize, Refusal>>
where
    S: AsyncRead + Unpin,
{
    loop {
        let searched = head.len().saturating_sub(3);
        let room = HEAD_BYTES_MAX - head.len();
        if room == 0 {
            let has_line = head.contains(&b'\n');
            return Ok(Err(if has_line {
                HEAD_TOO_LARGE
            } else {
                LINE_TOO_LONG
            }));
        }
        head.reserve(READ_BYTES.min(room));
        if stream.read_buf(&mut (&mut *head).limit(room)).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // MQTT without a WebSocket, or TLS: nobody shall wait for the end of it.
        if !head.first().is_some_and(u8::is_ascii_uppercase) {
            return Ok(Err(BAD_REQUEST));
        }
        let fresh = head.get(searched..).unwrap_or_default();
        if let Some(at) = fresh.windows(4).position(|four| four == b"\r\n\r\n") {
            return Ok(Ok(searched + at + 4));
        }
    }
}

/// The answer to a whole head.
fn accept(head: &[u8], terms: &Terms) -> Result<String, Refusal> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Err(BAD_REQUEST),
        Err(httparse::Error::TooManyHeaders) => return Err(HEAD_TOO_LARGE),
        Err(_) => return Err(BAD_REQUEST),
    }
    let path = request.path.unwrap_or_default().split('?').next();
    if path != Some(&terms.path) {
        return Err(NOT_FOUND);
    }
    if request.method != Some("GET") {
        return Err(NOT_ALLOWED);
    }
    let fields = Fields(request.headers);
    // HTTP/1.0 knows no upgrade.
    let upgrades = fields.lists("Connection", "upgrade") && fields.lists("Upgrade", "websocket");
    if request.version != Some(1) || !upgrades {
        return Err(NO_UPGRADE);
    }
    if fields.first("Sec-WebSocket-Version") != Some("13") {
        return Err(WRONG_VERSION);
    }
    if let Some(origin) = fields.first("Origin")
        && !terms.origins.take(origin)
    {
        return Err(FORBIDDEN);
    }
    let key = fields.first("Sec-WebSocket-Key").unwrap_or_default();
    if STANDARD.decode(key).map_or(0, |bytes| bytes.len()) != 16 {
        return Err(BAD_KEY);
    }
    let subprotocol = match fields.subprotocol()? {
        Some(name) => format!("Sec-WebSocket-Protocol: {name}\r\n"),
        None => String::new(),
    };
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{GUID}").as_bytes());
    let accept = STANDARD.encode(hash);
    Ok(format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n{subprotocol}\r\n"
    ))
}

/// The header fields of a request.
struct Fields<'a>(&'a [httparse::Header<'a>]);

impl<'a> Fields<'a> {
    /// All values of a field, as they stand.
    fn all(&self, name: &str) -> impl Iterator<Item = &'a str> {
        (self.0.iter())
            .filter(move |field| field.name.eq_ignore_ascii_case(name))
            .filter_map(|field| std::str::from_utf8(field.value).ok())
            .map(str::trim)
    }

    fn first(&self, name: &str) -> Option<&'a str> {
        self.all(name).next()
    }

    /// The members of a field that is a list, over all its lines.
    fn members(&self, name: &str) -> impl Iterator<Item = &'a str> {
        self.all(name)
            .flat_map(|value| value.split(',').map(str::trim))
            .filter(|member| !member.is_empty())
    }

    fn lists(&self, name: &str, member: &str) -> bool {
        self.members(name)
            .any(|one| one.eq_ignore_ascii_case(member))
    }

    /// The subprotocol to name: one that was offered, `mqtt` before all [MQTT-6.0.0-4]. Who offers none
    /// is a client that must [MQTT-6.0.0-3], and small ones do not: it gets none and is MQTT by its path.
    fn subprotocol(&self) -> Result<Option<&'static str>, Refusal> {
        let offers = || self.members("Sec-WebSocket-Protocol");
        let chosen = (SUBPROTOCOLS.into_iter()).find(|name| offers().any(|offer| offer == *name));
        match chosen {
            None if offers().next().is_some() => Err(BAD_SUBPROTOCOL),
            chosen => Ok(chosen),
        }
    }
}

impl Origins {
    fn take(&self, origin: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Local => is_local(origin),
            Self::Listed(origins) => origins.iter().any(|one| one.eq_ignore_ascii_case(origin)),
        }
    }
}

/// Whether an origin's host is this computer. `null` is not: a page can give itself that one.
fn is_local(origin: &str) -> bool {
    let Some((_, authority)) = origin.split_once("://") else {
        return false;
    };
    if let Some((six, _)) = authority
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'))
    {
        return six.parse::<Ipv6Addr>().is_ok_and(|at| at.is_loopback());
    }
    let host = authority.split(':').next().unwrap_or_default();
    let is_name = host == "localhost" || host.ends_with(".localhost");
    is_name || host.parse::<Ipv4Addr>().is_ok_and(|at| at.is_loopback())
}

impl Refusal {
    fn text(&self) -> String {
        let Self(status, field, why) = self;
        format!(
            "HTTP/1.1 {status}\r\n{field}Connection: close\r\nContent-Type: text/plain\r\n\
             Content-Length: {}\r\n\r\n{why}\n",
            why.len() + 1
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6455, 1.2, as a client of MQTT sends it.
    const REQUEST: &str = "GET /mqtt HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                           Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                           Sec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Version: 13\r\n\r\n";

    fn terms() -> Terms {
        Terms {
            path: "/mqtt".to_owned(),
            origins: Origins::Local,
        }
    }

    fn answer(request: &str) -> String {
        accept(request.as_bytes(), &terms()).unwrap_or_else(|refusal| refusal.text())
    }

    #[test]
    fn upgrade_is_answered_with_the_hash_of_its_key() {
        assert_eq!(
            answer(REQUEST),
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
        );
        for other in [
            REQUEST.replace("Connection: Upgrade", "connection: keep-alive, upgrade"),
            REQUEST.replace("Upgrade: websocket", "UPGRADE: WebSocket"),
            REQUEST.replace("/mqtt ", "/mqtt?token=1 "),
            REQUEST.replace("Host: h", "Origin: http://localhost:3000"),
            REQUEST.replace("Host: h", "Origin: https://[::1]:3000"),
            REQUEST.replace("Host: h", "Origin: http://127.0.0.1"),
        ] {
            assert!(answer(&other).starts_with("HTTP/1.1 101 "), "{other}");
        }
    }

    #[test]
    fn subprotocol_is_one_that_the_client_offered() {
        for (offers, expected, why) in [
            ("mqttv3.1, mqtt", Some("mqtt"), "[MQTT-6.0.0-4]"),
            ("chat, mqtt", Some("mqtt"), "[MQTT-6.0.0-3]"),
            ("mqttv3.1", Some("mqttv3.1"), "MQTT 3.1"),
            ("mqtt-v5", Some("mqtt-v5"), "a client of other brokers"),
            ("", None, "offered none"),
        ] {
            let field = format!("Sec-WebSocket-Protocol: {offers}\r\n");
            let request = REQUEST.replace("Sec-WebSocket-Protocol: mqtt\r\n", &field);
            let text = answer(&request);
            assert!(text.starts_with("HTTP/1.1 101 "), "{why}: {text}");
            let named = text
                .lines()
                .find_map(|line| line.strip_prefix("Sec-WebSocket-Protocol: "));
            assert_eq!(named, expected, "{why}");
        }
        let several = "Sec-WebSocket-Protocol: mqttv3.1\r\nSec-WebSocket-Protocol: mqtt\r\n";
        let request = REQUEST.replace("Sec-WebSocket-Protocol: mqtt\r\n", several);
        assert!(
            answer(&request).contains("Protocol: mqtt\r\n"),
            "a list over two lines"
        );
    }

    #[test]
    fn what_is_no_upgrade_is_refused_with_a_status() {
        let many = "X: y\r\n".repeat(HEADERS_MAX);
        for (request, status, why) in [
            (REQUEST.replace("/mqtt ", "/other "), 404, "another path"),
            (REQUEST.replace("GET", "POST"), 405, "another method"),
            (REQUEST.replace("HTTP/1.1", "HTTP/1.0"), 426, "HTTP/1.0"),
            (
                REQUEST.replace("Upgrade: websocket\r\n", ""),
                426,
                "a page is asked for",
            ),
            (
                REQUEST.replace("Version: 13", "Version: 8"),
                426,
                "an old version",
            ),
            (
                REQUEST.replace("dGhlIH", "!!!!!!"),
                400,
                "a key that is no base64",
            ),
            (
                REQUEST.replace("dGhlIHNhbXBsZSBub25jZQ", "dGhlIA"),
                400,
                "a short key",
            ),
            (
                REQUEST.replace("Protocol: mqtt", "Protocol: soap"),
                400,
                "not MQTT",
            ),
            (
                REQUEST.replace("Host: h", "Origin: https://example.com"),
                403,
                "a strange page",
            ),
            (
                REQUEST.replace("Host: h", "Origin: null"),
                403,
                "a page without an origin",
            ),
            (
                REQUEST.replace("Host: h", "Origin: http://localhost.example"),
                403,
                "a trick",
            ),
            (
                REQUEST.replace("Host: h\r\n", &many),
                431,
                "too many fields",
            ),
            (
                REQUEST.replace("Host: h", "Ho st h"),
                400,
                "no header field",
            ),
        ] {
            let text = answer(&request);
            assert!(
                text.starts_with(&format!("HTTP/1.1 {status} ")),
                "{why}: {text}"
            );
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.contains("Connection: close"), "{why}");
            assert!(
                head.contains(&format!("Content-Length: {}", body.len())),
                "{why}"
            );
        }
    }

    #[tokio::test]
    async fn head_is_bounded_and_what_follows_it_is_kept() {
        for (request, status, why) in [
            (
                "G".repeat(HEAD_BYTES_MAX),
                Some("414"),
                "a line without end",
            ),
            (
                REQUEST.trim_end().to_owned() + &"\r\nX: y".repeat(HEAD_BYTES_MAX),
                Some("431"),
                "fields without end",
            ),
            ("\x10\x0c\0\x04MQTT".to_owned(), Some("400"), "MQTT at once"),
            (
                REQUEST.to_owned() + "early",
                None,
                "frames behind the request",
            ),
        ] {
            for piece in [1, 17, request.len()] {
                let (mut ours, theirs) = tokio::io::duplex(1 << 20);
                let (mut answer, mut theirs) = tokio::io::split(theirs);
                for bytes in request.as_bytes().chunks(piece) {
                    theirs.write_all(bytes).await.unwrap();
                }
                let early = upgrade(&mut ours, &terms()).await.unwrap();
                let mut text = [0; 12];
                answer.read_exact(&mut text).await.unwrap();
                let said = std::str::from_utf8(&text).unwrap();
                assert_eq!(
                    said,
                    format!("HTTP/1.1 {}", status.unwrap_or("101")),
                    "{why}"
                );
                if let Some(mut early) = early {
                    while early.len() < 5 {
                        ours.read_buf(&mut early).await.unwrap();
                    }
                    assert_eq!(&early[..], b"early", "{why}");
                }
            }
        }
    }

    #[tokio::test]
    async fn half_a_request_is_no_upgrade() {
        let (mut ours, mut theirs) = tokio::io::duplex(1 << 10);
        theirs.write_all(&REQUEST.as_bytes()[..50]).await.unwrap();
        drop(theirs);
        let error = upgrade(&mut ours, &terms()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
