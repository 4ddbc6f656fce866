//! Any bytes at the WebSocket door, before the upgrade and after it, in arbitrary pieces.
//!
//! For: no panic; the same bytes of MQTT and the same end however reads cut the stream; whole and
//! well-formed frames out however little the peer takes at once; answers no longer than what asked.
//! The first byte says whether the request is a good one already, the second how many bytes a read
//! has, the third how many a write.

#![no_main]

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

// The server's own module: its crate would bring the whole program along.
#[allow(dead_code, unreachable_pub)]
#[path = "../../crates/server/src/mqtt/ws.rs"]
mod ws;

use ws::{Origins, Terms, WebSocket, upgrade};

const REQUEST: &[u8] = b"GET /mqtt HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

fuzz_target!(|data: &[u8]| {
    let [before, read_bytes, write_bytes, stream @ ..] = data else {
        return;
    };
    let request = if before % 4 == 0 { &[][..] } else { REQUEST };
    let stream = Bytes::from([request, stream].concat());
    let whole = serve(Peer::new(&stream, usize::MAX, usize::MAX));
    let cut = serve(Peer::new(
        &stream,
        usize::from(*read_bytes).max(1),
        usize::from(*write_bytes).max(1),
    ));
    assert_eq!(whole, cut, "reads of {read_bytes}, writes of {write_bytes} bytes");
});

/// What a stream came to: its upgrade's status, the bytes of MQTT, how it ended, the Close it got.
type Outcome = (Vec<u8>, Vec<u8>, Option<io::ErrorKind>, Option<Vec<u8>>);

/// A peer that sends a stream and takes what it gets, a few bytes at a time.
struct Peer {
    sends: Bytes,
    read_bytes: usize,
    write_bytes: usize,
    got: Vec<u8>,
    is_willing: bool,
}

impl Peer {
    fn new(stream: &Bytes, read_bytes: usize, write_bytes: usize) -> Self {
        Self {
            sends: stream.clone(),
            read_bytes,
            write_bytes,
            got: Vec::new(),
            is_willing: false,
        }
    }
}

impl AsyncRead for Peer {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let count = self.read_bytes.min(self.sends.len()).min(buf.remaining());
        buf.put_slice(&self.sends.split_to(count));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Peer {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.is_willing = !self.is_willing || self.write_bytes == usize::MAX;
        if !self.is_willing {
            return Poll::Pending;
        }
        let count = self.write_bytes.min(buf.len());
        self.got.extend_from_slice(&buf[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Polls to the end: nothing here waits for anything.
fn finish<T>(future: impl Future<Output = T>) -> T {
    let (mut future, mut cx) = (pin!(future), Context::from_waker(Waker::noop()));
    for _ in 0..1 << 22 {
        if let Poll::Ready(done) = future.as_mut().poll(&mut cx) {
            return done;
        }
    }
    panic!("it waits for nothing");
}

/// Upgrades, then sends every read back.
fn serve(mut peer: Peer) -> Outcome {
    let asked = peer.sends.len();
    let terms = Terms {
        path: "/mqtt".to_owned(),
        origins: Origins::Local,
    };
    let upgraded = finish(upgrade(&mut peer, &terms));
    let status = peer.got.iter().copied().take(12).collect();
    let answer = peer.got.len();
    let early = match upgraded {
        Ok(Some(early)) => early,
        Ok(None) => return (status, Vec::new(), None, None),
        Err(error) => return (status, Vec::new(), Some(error.kind()), None),
    };
    let mut socket = WebSocket::new(&mut peer, early);
    let (mut mqtt, mut error) = (Vec::new(), None);
    let mut scratch = [0; 512];
    loop {
        match finish(socket.read(&mut scratch)) {
            Ok(0) => break,
            Ok(read) => {
                mqtt.extend_from_slice(&scratch[..read]);
                finish(socket.write_all(&scratch[..read])).expect("written before the end");
            }
            Err(failed) => {
                assert_eq!(failed.kind(), io::ErrorKind::InvalidData);
                error = Some(failed.kind());
                break;
            }
        }
    }
    finish(socket.shutdown()).expect("an answer to the end");
    drop(socket);
    // Each frame here has a smaller head than the masked one that asked for it, each read of a large one
    // a head of its own.
    let answers = peer.got.len() - answer;
    assert!(answers <= asked * 3 + 4, "{answers} bytes for {asked}");
    let (echoed, close) = frames(&peer.got[answer..]);
    assert_eq!(echoed, mqtt, "what is written arrives");
    (status, mqtt, error, close)
}

/// The server's frames: all binary payload, and the Close.
fn frames(mut bytes: &[u8]) -> (Vec<u8>, Option<Vec<u8>>) {
    let (mut data, mut close) = (Vec::new(), None);
    while let [first, length, rest @ ..] = bytes {
        assert!(close.is_none(), "nothing follows a Close");
        let (length, rest) = match length {
            126 => (usize::from(u16::from_be_bytes([rest[0], rest[1]])), &rest[2..]),
            short => (usize::from(*short), rest),
        };
        let (payload, rest) = rest.split_at(length);
        match first {
            0x82 => data.extend_from_slice(payload),
            0x8A => assert!(length < 126, "a pong"),
            0x88 => close = Some(payload.to_vec()),
            other => panic!("no frame of ours: {other:#x}"),
        }
        bytes = rest;
    }
    assert!(bytes.is_empty(), "whole frames");
    (data, close)
}
