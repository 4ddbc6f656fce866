//! One connection: frames in, frames out, one task.
//!
//! For: taking requests in order, answering them in order, and knowing when the client is gone.
//! Not for: what a request means (`api`, `handler`).
//! Holds: memory grows with the bytes that came, never with a length that was announced; Produce
//! requests wait for the disk together, anything else waits for those before it; a connection
//! that is idle owns no buffer.

use std::collections::VecDeque;
use std::future::{Future, pending};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, timeout};
use tracing::debug;

use crate::api::{ApiKey, Frame, Header, Request, encode_response};
use crate::error_code::ErrorCode;
use crate::handler::{Call, Client, Sasl, Shared, api_versions, authenticate_token};
use crate::host::Principal;
use crate::wire::DecodeError;

/// The four bytes before each frame.
const LENGTH_BYTES: usize = 4;

/// Room made for one read while a frame is short of it.
const READ_BYTES_MIN: usize = 4 << 10;

/// Room made for one read at the most, but to double a frame's.
const READ_BYTES_MAX: usize = 64 << 10;

/// Bytes read ahead while a request is being answered, to notice a client that hangs up.
const READ_AHEAD_BYTES_MAX: usize = 64 << 10;

/// Pieces of a response handed to one write.
const SLICES_MAX: usize = 64;

/// How long requests that wait for nothing but the disk may still take at shutdown.
const GRACE: Duration = Duration::from_secs(2);

/// Why a connection ended, where that is worth a line.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectionError {
    #[error("the connection failed")]
    Io(#[source] io::Error),
    #[error("a request of {length} bytes, at most {length_max} are allowed")]
    FrameLength { length: i32, length_max: usize },
    #[error("the request is malformed")]
    Malformed(#[source] DecodeError),
    #[error("the client did not read its responses")]
    Stalled,
    #[error("the login was refused")]
    Refused,
}

type Answer = Pin<Box<dyn Future<Output = Vec<Bytes>> + Send>>;

struct Connection {
    shared: Arc<Shared>,
    client: Client,
    input: Input,
    output: OwnedWriteHalf,
    /// Produce requests in the order they came, waiting for the disk.
    in_flight: VecDeque<Answer>,
    shutdown: watch::Receiver<bool>,
}

/// Serves one connection to its end.
pub(crate) async fn serve(
    shared: Arc<Shared>,
    stream: TcpStream,
    peer: SocketAddr,
    shutdown: watch::Receiver<bool>,
) {
    let outcome = match Connection::new(shared, stream, peer, shutdown) {
        Ok(connection) => connection.run().await,
        Err(error) => Err(ConnectionError::Io(error)),
    };
    if let Err(error) = outcome {
        let cause = std::error::Error::source(&error);
        debug!(%peer, %error, cause, "connection closed");
    }
}

impl Connection {
    fn new(
        shared: Arc<Shared>,
        stream: TcpStream,
        peer: SocketAddr,
        shutdown: watch::Receiver<bool>,
    ) -> io::Result<Self> {
        // Responses are whole when they are written: waiting to fill a segment only delays them.
        stream.set_nodelay(true)?;
        let reached_at = stream.local_addr()?;
        let (reader, output) = stream.into_split();
        let client = Client {
            peer,
            reached_at,
            principal: Principal::anonymous(),
            sasl: Sasl::default(),
        };
        let frame_bytes_max = shared.options.frame_bytes_max;
        let input = Input {
            reader,
            bytes: BytesMut::new(),
            frame_bytes_max,
        };
        Ok(Self {
            shared,
            client,
            input,
            output,
            in_flight: VecDeque::new(),
            shutdown,
        })
    }

    async fn run(mut self) -> Result<(), ConnectionError> {
        let (first, idle) = (
            self.shared.options.first_request_timeout,
            self.shared.options.idle_timeout,
        );
        let mut silence = Box::pin(tokio::time::sleep(first));
        loop {
            if self.in_flight.len() < self.shared.options.requests_in_flight_max
                && let Some(frame) = self.input.frame()?
            {
                rest(&mut silence, idle);
                self.take(frame).await?;
                continue;
            }
            let may_read = self.in_flight.len() < self.shared.options.requests_in_flight_max;
            tokio::select! {
                frame = next(&mut self.in_flight) => {
                    self.write(frame).await?;
                    rest(&mut silence, idle);
                }
                more = self.input.read(), if may_read => {
                    if !more.map_err(ConnectionError::Io)? {
                        return Ok(());
                    }
                }
                () = stopped(&mut self.shutdown) => {
                    return timeout(GRACE, self.drain()).await.unwrap_or(Ok(()));
                }
                () = &mut silence => return Ok(()),
            }
        }
    }

    /// One request, from its bytes to its answer or to its place among those in flight.
    async fn take(&mut self, bytes: Bytes) -> Result<(), ConnectionError> {
        if self.client.sasl == Sasl::AgreedBare {
            return self.take_bare_token(&bytes).await;
        }
        match Frame::decode(bytes).map_err(ConnectionError::Malformed)? {
            Frame::Request(header, request) => match *request {
                Request::Produce(request) => {
                    let produced = self.call(&header).produce(request).await;
                    self.in_flight.push_back(Box::pin(async move {
                        let is_silent = produced.is_silent;
                        let response = produced.settled().await;
                        if is_silent {
                            Vec::new()
                        } else {
                            encode_response(&header, &response)
                        }
                    }));
                    Ok(())
                }
                request => {
                    self.drain().await?;
                    self.answer(&header, request).await
                }
            },
            Frame::ApiVersionsUnknown { correlation_id } => {
                self.drain().await?;
                let key = ApiKey::ApiVersions;
                let header = Header {
                    key,
                    version: 0,
                    correlation_id,
                    client_id: None,
                };
                let response = api_versions(ErrorCode::UnsupportedVersion);
                self.write(encode_response(&header, &response)).await
            }
        }
    }

    fn call<'a>(&'a mut self, header: &'a Header) -> Call<'a> {
        Call {
            shared: &self.shared,
            client: &mut self.client,
            header,
        }
    }

    /// Answers one request unless the client hangs up first.
    async fn answer(&mut self, header: &Header, request: Request) -> Result<(), ConnectionError> {
        // These may wait for what never comes; everything else waits for the disk alone.
        let may_wait_long = matches!(
            request,
            Request::Fetch(_) | Request::JoinGroup(_) | Request::SyncGroup(_)
        );
        let Self {
            shared,
            client,
            input,
            shutdown,
            ..
        } = self;
        let mut call = Call {
            shared,
            client,
            header,
        };
        let frame = tokio::select! {
            frame = call.answer(request) => frame,
            gone = input.read_ahead() => return gone.map_err(ConnectionError::Io),
            () = stopped(shutdown), if may_wait_long => return Ok(()),
        };
        self.write(frame).await?;
        match self.client.sasl {
            Sasl::Refused => Err(ConnectionError::Refused),
            Sasl::NotAsked | Sasl::Agreed | Sasl::AgreedBare | Sasl::Done => Ok(()),
        }
    }

    async fn take_bare_token(&mut self, token: &[u8]) -> Result<(), ConnectionError> {
        let principal = authenticate_token(self.shared.host.as_ref(), token);
        self.client.principal = principal.ok_or(ConnectionError::Refused)?;
        self.client.sasl = Sasl::Done;
        // An empty frame: PLAIN has nothing more to say.
        self.write(vec![Bytes::from_static(&[0; LENGTH_BYTES])])
            .await
    }

    /// Answers all that wait for the disk.
    async fn drain(&mut self) -> Result<(), ConnectionError> {
        while !self.in_flight.is_empty() {
            let frame = next(&mut self.in_flight).await;
            self.write(frame).await?;
        }
        Ok(())
    }

    async fn write(&mut self, frame: Vec<Bytes>) -> Result<(), ConnectionError> {
        let written = timeout(
            self.shared.options.idle_timeout,
            write_all(&mut self.output, frame),
        );
        match written.await {
            Ok(outcome) => outcome.map_err(ConnectionError::Io),
            Err(_) => Err(ConnectionError::Stalled),
        }
    }
}

fn rest(silence: &mut Pin<Box<Sleep>>, idle: Duration) {
    silence.as_mut().reset(Instant::now() + idle);
}

/// The oldest answer in flight, once it is there; it leaves the queue only then, so that this may
/// be cancelled.
async fn next(in_flight: &mut VecDeque<Answer>) -> Vec<Bytes> {
    match in_flight.front_mut() {
        Some(answer) => {
            let frame = answer.await;
            in_flight.pop_front();
            frame
        }
        None => pending().await,
    }
}

async fn write_all(output: &mut OwnedWriteHalf, frame: Vec<Bytes>) -> io::Result<()> {
    let mut chunks: VecDeque<Bytes> = frame.into();
    loop {
        while chunks.front().is_some_and(Bytes::is_empty) {
            chunks.pop_front();
        }
        if chunks.is_empty() {
            return Ok(());
        }
        let slices: Vec<IoSlice<'_>> = chunks
            .iter()
            .take(SLICES_MAX)
            .map(|chunk| IoSlice::new(chunk))
            .collect();
        let mut written = output.write_vectored(&slices).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        for chunk in &mut chunks {
            let part = written.min(chunk.len());
            chunk.advance(part);
            written -= part;
        }
    }
}

/// Returns when the server is told to stop, or is gone.
pub(crate) async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    // An error says that nobody is left to tell: the same.
    drop(shutdown.wait_for(|stop| *stop).await);
}

/// Bytes on their way in.
struct Input {
    reader: OwnedReadHalf,
    bytes: BytesMut,
    frame_bytes_max: usize,
}

impl Input {
    /// The length that the next frame announces.
    fn length(&self) -> Result<Option<usize>, ConnectionError> {
        let Some(length) = self.bytes.first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let length = i32::from_be_bytes(*length);
        usize::try_from(length)
            .ok()
            .filter(|length| *length <= self.frame_bytes_max)
            .map(Some)
            .ok_or(ConnectionError::FrameLength {
                length,
                length_max: self.frame_bytes_max,
            })
    }

    /// Takes one whole frame, without its length.
    fn frame(&mut self) -> Result<Option<Bytes>, ConnectionError> {
        let Some(length) = self.length()? else {
            return Ok(None);
        };
        if self.bytes.len() < LENGTH_BYTES + length {
            return Ok(None);
        }
        self.bytes.advance(LENGTH_BYTES);
        let frame = self.bytes.split_to(length).freeze();
        if self.bytes.is_empty() {
            self.bytes = BytesMut::new();
        }
        Ok(Some(frame))
    }

    /// Reads what is there; false at the end. May be cancelled.
    async fn read(&mut self) -> io::Result<bool> {
        loop {
            self.reader.readable().await?;
            let have = self.bytes.len();
            // A long frame's room doubles as its bytes come, up to its end.
            let short = match self.length() {
                Ok(Some(length)) => (LENGTH_BYTES + length).saturating_sub(have),
                Ok(None) | Err(_) => 0,
            };
            let room = short.clamp(READ_BYTES_MIN, READ_BYTES_MAX.max(have));
            self.bytes.reserve(room);
            match self.reader.try_read_buf(&mut self.bytes) {
                Ok(count) => return Ok(count > 0),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Returns when the client has hung up. Reads on within bounds, so as to notice.
    async fn read_ahead(&mut self) -> io::Result<()> {
        while self.bytes.len() < READ_AHEAD_BYTES_MAX {
            if !self.read().await? {
                return Ok(());
            }
        }
        pending().await
    }
}
