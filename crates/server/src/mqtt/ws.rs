//! A WebSocket as a stream of MQTT's bytes (RFC 6455; MQTT 5.0, 6): the one driver serves it like a socket.
//!
//! For: binary frames in and out over any byte stream, pings answered, the close handshake.
//! Not for: MQTT, time limits, TLS (`handshake` puts the layers together).
//! Calls: `frames`, `upgrade`. Called by: `handshake`, then `connection` through its traits.
//! Holds: an idle connection owns no buffer. A read is unmasked in the caller's buffer, a write becomes
//! one frame in one call of the stream, however many packets it holds.
//!
//! tungstenite was weighed and not taken: its codec keeps a read buffer for each connection, reserves
//! by the length a frame announces, gathers whole messages before MQTT's own limits see a byte, copies
//! what it writes, and its handshake answers nothing to what it refuses.

// By path, so that the fuzz target can take this file as a module of its own.
#[path = "ws/frames.rs"]
mod frames;
#[path = "ws/upgrade.rs"]
mod upgrade;

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use frames::{End, Frames, status};
pub(crate) use upgrade::{Origins, Terms, upgrade};

/// Reads of the stream for one of the caller's: frames may carry nothing.
const READS_MAX: usize = 8;
/// Pieces of one write.
const SLICES_MAX: usize = 64;
/// A frame ends with the piece that reaches this: a client that takes frames whole needs no more memory
/// than this and a packet.
const FRAME_BYTES: usize = 64 << 10;
/// The longest head of a frame from a server, which masks nothing.
const HEAD_BYTES_MAX: usize = 10;

/// A server's side of a WebSocket over `stream`.
pub(crate) struct WebSocket<S> {
    stream: S,
    frames: Frames,
    /// What came with the request and was not read yet.
    early: BytesMut,
    open: Option<OpenFrame>,
    /// A control frame on its way, from its first byte that is still to be written.
    control: Vec<u8>,
    /// A Close was written or is on its way: nothing may follow it.
    is_closed: bool,
    /// The reader has heard that the client broke the protocol.
    is_broken: bool,
}

/// A data frame whose head has begun to go out: so many bytes will follow, whatever else waits.
#[derive(Clone, Copy)]
struct OpenFrame {
    head: [u8; HEAD_BYTES_MAX],
    head_from: u8,
    head_to: u8,
    /// Of the payload, still to be written.
    left: usize,
}

impl<S> WebSocket<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    /// After the upgrade, with what it read behind the request.
    pub(crate) fn new(stream: S, early: BytesMut) -> Self {
        Self {
            stream,
            frames: Frames::new(),
            // A copy, if anything: it is a part of the request's buffer, which would stay as long.
            early: BytesMut::from(&early[..]),
            open: None,
            control: Vec::new(),
            is_closed: false,
            is_broken: false,
        }
    }

    /// One read, from what came early or from the stream.
    fn poll_raw(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.early.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let count = self.early.len().min(buf.remaining());
        buf.put_slice(self.early.get(..count).unwrap_or_default());
        self.early.advance(count);
        if self.early.is_empty() {
            self.early = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }

    /// Writes the control frames that are due, unless a data frame is open: then they wait for its end.
    fn poll_control(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.open.is_none() {
            if self.control.is_empty() {
                self.control = Vec::new();
                match self.frames.take_ping() {
                    Some(payload) if !self.is_closed => self.control = control(0x8A, &payload),
                    _ => return Poll::Ready(Ok(())),
                }
            }
            match ready!(Pin::new(&mut self.stream).poll_write(cx, &self.control))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                wrote => drop(self.control.drain(..wrote.min(self.control.len()))),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Puts a Close behind what is on its way. An open data frame cannot be interrupted: then the end
    /// of the stream says it.
    fn close(&mut self, code: u16) {
        if !std::mem::replace(&mut self.is_closed, true) && self.open.is_none() {
            self.control.extend(control(0x88, &code.to_be_bytes()));
        }
    }

    /// What a reader gets behind the last byte of MQTT.
    fn poll_end(&mut self, cx: &mut Context<'_>, end: End) -> Poll<io::Result<()>> {
        match end {
            End::Closed(code) => {
                self.close(code);
                // So far as the client takes it at once: it is on its way out.
                if let Poll::Ready(Ok(())) = self.poll_control(cx) {
                    Pin::new(&mut self.stream).poll_flush(cx).is_ready();
                }
                Poll::Ready(Ok(()))
            }
            End::Broken(code) => {
                self.is_broken = true;
                self.close(code);
                Poll::Ready(Err(io::ErrorKind::InvalidData.into()))
            }
        }
    }
}

impl<S> AsyncRead for WebSocket<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    /// The end of the stream when the client has closed; `InvalidData` when it has broken the protocol.
    /// What is read after that is no MQTT, and to be dropped.
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        for _ in 0..READS_MAX {
            // What the client sent before it went away is still to be read.
            if let Poll::Ready(Err(_)) = this.poll_control(cx) {
                this.control = Vec::new();
            }
            match this.frames.end() {
                Some(_) if this.is_broken => return this.poll_raw(cx, buf),
                Some(end) => return this.poll_end(cx, end),
                None => {}
            }
            let before = buf.filled().len();
            ready!(this.poll_raw(cx, buf))?;
            let raw = buf.filled_mut().get_mut(before..).unwrap_or_default();
            if raw.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let kept = this.frames.take(raw);
            buf.set_filled(before + kept);
            if kept > 0 {
                return Poll::Ready(Ok(()));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<S> AsyncWrite for WebSocket<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    /// Writes a frame of all that `bufs` hold, or goes on with the open one. The length of a frame
    /// stands before it: what a caller has offered once, it must offer again until it is taken.
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        loop {
            let mut frame = match this.open {
                Some(frame) => frame,
                None => {
                    ready!(this.poll_control(cx))?;
                    match OpenFrame::of(bufs) {
                        Some(_) if this.is_closed => {
                            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
                        }
                        Some(frame) => frame,
                        None => return Poll::Ready(Ok(0)),
                    }
                }
            };
            let wrote = {
                let mut slices = [IoSlice::new(&[]); SLICES_MAX + 1];
                let filled = frame.slices(bufs, &mut slices);
                let slices = slices.get(..filled).unwrap_or_default();
                if slices.is_empty() {
                    return Poll::Ready(Ok(0));
                }
                ready!(Pin::new(&mut this.stream).poll_write_vectored(cx, slices))?
            };
            if wrote == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let payload = frame.advance(wrote);
            this.open = (!frame.is_done()).then_some(frame);
            if payload > 0 {
                return Poll::Ready(Ok(payload));
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_control(cx))?;
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    /// Says Close and closes this side. The client's own Close is read as the end of the stream.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.close(status::NORMAL);
        ready!(this.poll_control(cx))?;
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}

impl OpenFrame {
    /// A binary frame for what `bufs` hold, up to the piece that reaches [`FRAME_BYTES`].
    fn of(bufs: &[IoSlice<'_>]) -> Option<Self> {
        let mut bytes = 0_usize;
        for buf in bufs.iter().take(SLICES_MAX) {
            bytes = bytes.saturating_add(buf.len());
            if bytes >= FRAME_BYTES {
                break;
            }
        }
        if bytes == 0 {
            return None;
        }
        let length = (bytes as u64).to_be_bytes();
        let [a, b, c, d, e, f, g, h] = length;
        let (head, head_to) = match bytes {
            0..=125 => ([0x82, h, 0, 0, 0, 0, 0, 0, 0, 0], 2),
            126..=0xFFFF => ([0x82, 126, g, h, 0, 0, 0, 0, 0, 0], 4),
            _ => ([0x82, 127, a, b, c, d, e, f, g, h], 10),
        };
        Some(Self {
            head,
            head_from: 0,
            head_to,
            left: bytes,
        })
    }

    /// What is still to be written of it, out of `bufs`; how many slices that is.
    fn slices<'a>(&'a self, bufs: &'a [IoSlice<'a>], into: &mut [IoSlice<'a>]) -> usize {
        let head = usize::from(self.head_from)..usize::from(self.head_to);
        let head = self.head.get(head).unwrap_or_default();
        let mut left = self.left;
        let payload = bufs.iter().map(|buf| {
            let piece = buf.get(..buf.len().min(left)).unwrap_or_default();
            left -= piece.len();
            piece
        });
        let pieces = std::iter::once(head).chain(payload);
        let mut filled = 0;
        for (slot, piece) in (into.iter_mut()).zip(pieces.filter(|piece| !piece.is_empty())) {
            *slot = IoSlice::new(piece);
            filled += 1;
        }
        filled
    }

    /// Counts what was written; how much of it was payload.
    fn advance(&mut self, wrote: usize) -> usize {
        let head = usize::from(self.head_to - self.head_from);
        let of_head = wrote.min(head);
        self.head_from += u8::try_from(of_head).unwrap_or(self.head_to - self.head_from);
        let payload = wrote - of_head;
        self.left = self.left.saturating_sub(payload);
        payload
    }

    fn is_done(&self) -> bool {
        self.left == 0
    }
}

/// A control frame; its payload is at most 125 bytes long.
fn control(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap_or(u8::MAX);
    [&[first, length], payload].concat()
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    /// A client's frame; the mask is zero, so that its payload can be read here.
    fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        [&[first, 0x80 | length, 0, 0, 0, 0], payload].concat()
    }

    fn pair(room: usize) -> (WebSocket<DuplexStream>, DuplexStream) {
        let (ours, theirs) = duplex(room);
        (WebSocket::new(ours, BytesMut::new()), theirs)
    }

    /// Counts the calls that write, and takes so many bytes in each.
    struct Sparing {
        bytes_max: usize,
        calls: Vec<Vec<u8>>,
        is_willing: bool,
    }

    impl AsyncRead for Sparing {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Sparing {
        fn poll_write(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.poll_write_vectored(cx, &[IoSlice::new(buf)])
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bufs: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            self.is_willing = !self.is_willing;
            if !self.is_willing && self.bytes_max < usize::MAX {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let mut bytes: Vec<u8> = bufs.iter().flat_map(|buf| buf.iter().copied()).collect();
            bytes.truncate(self.bytes_max);
            let wrote = bytes.len();
            self.calls.push(bytes);
            Poll::Ready(Ok(wrote))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn sparing(bytes_max: usize) -> WebSocket<Sparing> {
        let stream = Sparing {
            bytes_max,
            calls: Vec::new(),
            is_willing: false,
        };
        WebSocket::new(stream, BytesMut::new())
    }

    async fn write(socket: &mut WebSocket<Sparing>, pieces: &[&[u8]]) -> usize {
        let slices: Vec<_> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        poll_fn(|cx| Pin::new(&mut *socket).poll_write_vectored(cx, &slices))
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn write_of_many_pieces_is_one_frame_in_one_call() {
        let mut socket = sparing(usize::MAX);
        assert_eq!(write(&mut socket, &[b"a", b"", b"bc", b"def"]).await, 6);
        assert_eq!(socket.stream.calls, [b"\x82\x06abcdef"]);
        assert_eq!(write(&mut socket, &[&[7; 200], &[7; 200]]).await, 400);
        assert_eq!(socket.stream.calls[1][..5], [0x82, 126, 1, 0x90, 7]);
        assert_eq!(write(&mut socket, &[&[7; 65_536], &[7; 1]]).await, 65_536);
        assert_eq!(
            socket.stream.calls[2][..11],
            [0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0, 7]
        );
    }

    #[tokio::test]
    async fn frame_taken_in_pieces_keeps_its_length() {
        let text = b"what a slow client takes byte by byte";
        for bytes_max in 1..8 {
            let mut socket = sparing(bytes_max);
            let mut wrote = 0;
            while wrote < text.len() {
                // More has come meanwhile: it is not part of the open frame.
                let offered = [&text[wrote..], b" and more"];
                let taken = write(&mut socket, &offered[..1 + usize::from(wrote > 0)]).await;
                wrote += taken.min(text.len() - wrote);
            }
            let bytes = socket.stream.calls.concat();
            let whole = [b"\x82\x25", &text[..]].concat();
            assert_eq!(bytes, whole, "{bytes_max} bytes a call");
            assert!(socket.open.is_none());
        }
    }

    #[tokio::test]
    async fn pings_are_answered_between_frames() {
        let (mut socket, mut theirs) = pair(8);
        let mut early = masked(0x89, b"first");
        early.extend(masked(0x89, b"last"));
        early.extend(masked(0x82, b"data"));
        socket.early = BytesMut::from(&early[..]);
        let mut bytes = [0; 64];
        let wrote = socket.write(b"longer than eight").await.unwrap();
        let read = socket.read(&mut bytes).await.unwrap();
        assert_eq!(&bytes[..read], b"data");
        assert!(socket.early.is_empty() && socket.early.capacity() == 0);
        let rest = async {
            socket
                .write_all(&b"longer than eight"[wrote..])
                .await
                .unwrap();
            socket.flush().await.unwrap();
            drop(socket);
        };
        let mut all = Vec::new();
        tokio::join!(rest, async { theirs.read_to_end(&mut all).await.unwrap() });
        assert_eq!(all, b"\x82\x11longer than eight\x8A\x04last");
    }

    #[test]
    fn nothing_of_the_request_stays() {
        for (behind, kept) in [(&b""[..], 0), (b"frame", 5)] {
            let mut request = BytesMut::with_capacity(4096);
            request.extend_from_slice(b"GET / HTTP/1.1\r\n\r\n");
            let end = request.len();
            request.extend_from_slice(behind);
            let socket = WebSocket::new(duplex(1).0, request.split_off(end));
            assert_eq!(&socket.early[..], behind);
            assert_eq!(socket.early.capacity(), kept, "bytes kept");
        }
    }

    #[tokio::test]
    async fn close_is_answered_after_what_came_before_it() {
        let (mut socket, mut theirs) = pair(64);
        let last = [masked(0x82, b"last words"), masked(0x88, b"\x0B\xB8bye")].concat();
        theirs.write_all(&last).await.unwrap();
        let mut read = Vec::new();
        socket.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"last words");
        socket.shutdown().await.unwrap();
        let mut answer = Vec::new();
        theirs.read_to_end(&mut answer).await.unwrap();
        assert_eq!(
            answer, b"\x88\x02\x0B\xB8",
            "one Close, with the client's status"
        );
        let late = socket.write(b"late").await.unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::BrokenPipe);
    }

    #[tokio::test]
    async fn broken_protocol_is_an_error_and_a_status() {
        let (mut socket, mut theirs) = pair(64);
        let bad = [masked(0x82, b"good"), masked(0x81, b"text")].concat();
        theirs.write_all(&bad).await.unwrap();
        let mut read = [0; 64];
        assert_eq!(socket.read(&mut read).await.unwrap(), 4);
        let error = socket.read(&mut read).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        socket.shutdown().await.unwrap();
        theirs.write_all(b"what nobody reads").await.unwrap();
        theirs.shutdown().await.unwrap();
        let mut dropped = Vec::new();
        socket.read_to_end(&mut dropped).await.unwrap();
        let mut answer = Vec::new();
        theirs.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"\x88\x02\x03\xEB", "1003");
    }

    #[tokio::test]
    async fn we_close_first_and_read_until_the_client_closes() {
        let (mut socket, mut theirs) = pair(64);
        socket.write_all(b"bye").await.unwrap();
        socket.shutdown().await.unwrap();
        let mut said = Vec::new();
        theirs.read_to_end(&mut said).await.unwrap();
        assert_eq!(said, b"\x82\x03bye\x88\x02\x03\xE8");
        theirs.write_all(&masked(0x88, b"\x03\xE8")).await.unwrap();
        let mut rest = Vec::new();
        socket.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"");
    }
}
