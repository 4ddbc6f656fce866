//! One connection: frames in, frames out, one task.
//!
//! For: taking requests in order, answering them in order, and knowing when the client is gone.
//! Not for: what a request means (`api`, `handler`).
//! Holds: memory grows with the bytes that came, not with a length that was announced (beyond 64
//! KiB), and what goes beyond 4 KiB is asked of the budget first; a stranger has 64 KiB and five seconds for its
//! first request; Produce requests wait for the disk together, anything else waits for those before
//! it; a connection that is idle owns no buffer.

use std::collections::VecDeque;
use std::future::{Future, pending};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, timeout};
use tracing::debug;

use crate::api::{ApiKey, Frame, Header, Request, encode_response};
use crate::budget::{Budget, Charge, SMALL_FRAME_BYTES};
use crate::error_code::ErrorCode;
use crate::handler::{
    Answer, Call, Client, Produced, Sasl, Shared, api_versions, authenticate_token,
};
use crate::host::Principal;
use crate::wire::{DecodeError, allowance};

/// The four bytes before each frame.
const LENGTH_BYTES: usize = 4;

/// What a connection may hold unasked: most requests need no more. Also what is read ahead while
/// a request is answered, to notice a client that hangs up.
const OWN_BYTES: usize = 4 << 10;

/// Room for a long request's first read; then it doubles as its bytes come.
const READ_BYTES: usize = 64 << 10;

/// Longest first request, with its length: what a stranger may cost (contract, Always 6).
const STRANGER_BYTES_MAX: usize = 64 << 10;

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
    #[error("the client sent nothing, or too little of a request, for {seconds} s")]
    Silent { seconds: u64 },
    #[error("the login was refused")]
    Refused,
    #[error("the server stops")]
    Stopped,
}

/// A Produce request that waits for the disk, and what its answer is charged for.
pub(crate) struct Settling {
    pub(crate) frame: Pin<Box<dyn Future<Output = Vec<Bytes>> + Send>>,
    pub(crate) charge: Charge,
}

struct Connection {
    shared: Arc<Shared>,
    client: Client,
    input: Input,
    output: OwnedWriteHalf,
    /// Produce requests in the order they came, waiting for the disk.
    in_flight: VecDeque<Settling>,
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
        let input = Input {
            reader,
            bytes: BytesMut::new(),
            charge: shared.requests.charge(0),
            whole_by: Instant::now(),
            is_stranger: true,
            frame_bytes_max: shared.options.frame_bytes_max,
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
        let mut silence = Box::pin(tokio::time::sleep(self.patience()));
        loop {
            let may_take = self.in_flight.len() < self.shared.options.requests_in_flight_max;
            if may_take && let Some(bytes) = self.input.frame()? {
                let charge = self.input.charge_for(&self.shared.requests, 0);
                self.take(bytes, charge).await?;
                self.rest(&mut silence);
                continue;
            }
            let lacks = self.input.lacks(&self.shared.requests)?;
            // Whoever waits for us is not the one that is silent.
            let may_end = may_take && lacks.is_none();
            let begun = Instant::now();
            if self.input.charge.is_empty() {
                self.input.whole_by = begun + self.shared.options.stall_timeout;
            }
            tokio::select! {
                answer = next(&mut self.in_flight) => {
                    if !may_end {
                        self.input.whole_by += begun.elapsed();
                    }
                    self.write(answer, None).await?;
                    self.rest(&mut silence);
                }
                more = self.input.go_on(lacks), if may_take => {
                    if !more.map_err(ConnectionError::Io)? {
                        return Ok(());
                    }
                    if !may_end {
                        self.input.whole_by += begun.elapsed();
                    }
                    // A stranger's time runs from the start, whatever it sends.
                    if !self.input.is_stranger {
                        self.rest(&mut silence);
                    }
                }
                () = stopped(&mut self.shutdown) => {
                    return timeout(GRACE, self.drain(None)).await.unwrap_or(Ok(()));
                }
                () = &mut silence, if may_end => {
                    let seconds = self.patience().as_secs();
                    return Err(ConnectionError::Silent { seconds });
                }
            }
        }
    }

    /// How long the client may now be silent.
    fn patience(&self) -> Duration {
        let options = &self.shared.options;
        match (self.input.is_stranger, self.input.bytes.is_empty()) {
            (true, _) => options.first_request_timeout,
            (false, true) => options.idle_timeout,
            (false, false) => options.stall_timeout.min(options.idle_timeout),
        }
    }

    /// Bytes buy time, but not for a request that is overdue while others wait for its room.
    fn rest(&self, silence: &mut Pin<Box<Sleep>>) {
        let mut until = Instant::now() + self.patience();
        if self.input.charge.is_in_the_way() {
            until = until.min(self.input.whole_by);
        }
        silence.as_mut().reset(until);
    }

    /// One request, from its bytes to its answer or to its place among those in flight. `charge`
    /// covers the bytes if they are more than a connection's own.
    async fn take(&mut self, bytes: Bytes, mut charge: Charge) -> Result<(), ConnectionError> {
        if self.client.sasl == Sasl::AgreedBare {
            return self.take_bare_token(&bytes).await;
        }
        let length = bytes.len();
        let mut allowance = allowance(length);
        if self.input.is_stranger {
            allowance = allowance.min(STRANGER_BYTES_MAX);
        } else if length > OWN_BYTES {
            self.admit(&mut charge, length + allowance).await?;
        }
        let (frame, spent) = Frame::decode(bytes, allowance).map_err(ConnectionError::Malformed)?;
        self.input.is_stranger = false;
        if length > OWN_BYTES {
            charge.shrink(length + spent);
        }
        match frame {
            Frame::Request(header, request) => match *request {
                Request::Produce(request) => {
                    // However short, its bytes wait for the disk, and its answer for its turn.
                    let bytes = length.max(charge.bytes()) + request.answer_bytes();
                    self.admit(&mut charge, bytes).await?;
                    let produced = self.call(&header).produce(request, charge);
                    self.in_flight.push_back(settling(header, produced));
                    Ok(())
                }
                request => {
                    self.drain(Some(&charge)).await?;
                    self.answer(header, request, charge).await
                }
            },
            Frame::ApiVersionsUnknown { correlation_id } => {
                self.drain(Some(&charge)).await?;
                let key = ApiKey::ApiVersions;
                let header = Header {
                    key,
                    version: 0,
                    correlation_id,
                    client_id: None,
                };
                let response = api_versions(ErrorCode::UnsupportedVersion);
                self.write(encode_response(&header, &response).into(), None)
                    .await
            }
        }
    }

    /// Waits until `charge` covers so many bytes, or the server stops. Answers in flight are sent
    /// meanwhile: what they hold may be what is waited for.
    async fn admit(&mut self, charge: &mut Charge, bytes: usize) -> Result<(), ConnectionError> {
        loop {
            tokio::select! {
                biased;
                () = charge.cover(bytes) => return Ok(()),
                answer = next(&mut self.in_flight) => self.write(answer, Some(charge)).await?,
                () = stopped(&mut self.shutdown) => return Err(ConnectionError::Stopped),
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

    /// Answers one request, which `charge` covers, unless the client hangs up first.
    async fn answer(
        &mut self,
        mut header: Header,
        request: Request,
        charge: Charge,
    ) -> Result<(), ConnectionError> {
        // Nothing of a frame waits with a member of a group.
        header.client_id = header.client_id.map(|id| id.detached());
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
            header: &header,
        };
        let answer = tokio::select! {
            answer = call.answer(request, charge) => answer,
            gone = input.read_ahead() => return gone.map_err(ConnectionError::Io),
            () = stopped(shutdown), if may_wait_long => return Ok(()),
        };
        self.write(answer, None).await?;
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
        self.write(vec![Bytes::from_static(&[0; LENGTH_BYTES])].into(), None)
            .await
    }

    /// Answers all that wait for the disk, before the request that is `waiting`.
    async fn drain(&mut self, waiting: Option<&Charge>) -> Result<(), ConnectionError> {
        while !self.in_flight.is_empty() {
            let answer = next(&mut self.in_flight).await;
            self.write(answer, waiting).await?;
        }
        Ok(())
    }

    /// Sends all of an answer within the idle time. A client that takes none of it for long is
    /// closed sooner when that answer, one behind it, or a request that is `waiting`, takes the room
    /// of others.
    async fn write(
        &mut self,
        answer: Answer,
        waiting: Option<&Charge>,
    ) -> Result<(), ConnectionError> {
        let options = &self.shared.options;
        let mut chunks: VecDeque<Bytes> = answer.frame.into();
        let begun = Instant::now();
        loop {
            let written = write_some(&mut self.output, &mut chunks);
            let is_in_the_way = match timeout(options.stall_timeout, written).await {
                Ok(Ok(true)) => false,
                Ok(Ok(false)) => return Ok(()),
                Ok(Err(error)) => return Err(ConnectionError::Io(error)),
                Err(_) => {
                    let behind = self.in_flight.iter().map(|one| &one.charge);
                    let held = answer.charges.iter().chain([&self.input.charge]);
                    held.chain(behind).chain(waiting).any(Charge::is_in_the_way)
                }
            };
            if is_in_the_way || begun.elapsed() >= options.idle_timeout {
                return Err(ConnectionError::Stalled);
            }
        }
    }
}

/// The oldest answer in flight, once it is there; it leaves the queue only then, so that this may
/// be cancelled.
async fn next(in_flight: &mut VecDeque<Settling>) -> Answer {
    let Some(settling) = in_flight.front_mut() else {
        return pending().await;
    };
    let frame = settling.frame.as_mut().await;
    let settled = in_flight.pop_front();
    Answer {
        frame,
        charges: settled.map(|one| one.charge).into_iter().collect(),
    }
}

/// The answer to a Produce request, once the disk has its records; nothing of its frame waits.
pub(crate) fn settling(header: Header, mut produced: Produced) -> Settling {
    let header = Header {
        client_id: None,
        ..header
    };
    let charge = produced.charge.split(usize::MAX);
    let frame = Box::pin(async move {
        let is_silent = produced.is_silent;
        let response = produced.settled().await;
        if is_silent {
            Vec::new()
        } else {
            encode_response(&header, &response)
        }
    });
    Settling { frame, charge }
}

/// Writes what the socket takes of `chunks`; false when nothing is left. May be cancelled.
async fn write_some(output: &mut OwnedWriteHalf, chunks: &mut VecDeque<Bytes>) -> io::Result<bool> {
    while chunks.front().is_some_and(Bytes::is_empty) {
        chunks.pop_front();
    }
    if chunks.is_empty() {
        return Ok(false);
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
    for chunk in chunks.iter_mut() {
        let part = written.min(chunk.len());
        chunk.advance(part);
        written -= part;
    }
    Ok(true)
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
    /// Covers `bytes` beyond [`OWN_BYTES`]; goes on with the frame it was grown for.
    charge: Charge,
    /// When the frame is to be whole, counted from its first charge without the time that it
    /// waited for us; held against it only while others wait for its room.
    whole_by: Instant,
    /// No valid request has come yet.
    is_stranger: bool,
    frame_bytes_max: usize,
}

impl Input {
    /// Bytes of the next frame, its length included.
    fn frame_bytes(&self) -> Result<Option<usize>, ConnectionError> {
        let Some(length) = self.bytes.first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let length = i32::from_be_bytes(*length);
        let length_max = match self.is_stranger {
            true => self.frame_bytes_max.min(STRANGER_BYTES_MAX - LENGTH_BYTES),
            false => self.frame_bytes_max,
        };
        usize::try_from(length)
            .ok()
            .filter(|length| *length <= length_max)
            .map(|length| Some(LENGTH_BYTES + length))
            .ok_or(ConnectionError::FrameLength { length, length_max })
    }

    /// Takes one whole frame, without its length.
    fn frame(&mut self) -> Result<Option<Bytes>, ConnectionError> {
        let Some(frame) = self
            .frame_bytes()?
            .filter(|frame| *frame <= self.bytes.len())
        else {
            return Ok(None);
        };
        let frame = self.bytes.split_to(frame).freeze().split_off(LENGTH_BYTES);
        if self.bytes.is_empty() {
            self.bytes = BytesMut::new();
        }
        Ok(Some(frame))
    }

    /// The bytes that are to be had together before the next read: a small request's all, a long
    /// one's as they come.
    fn room(&self) -> Result<usize, ConnectionError> {
        let have = self.bytes.len();
        Ok(match self.frame_bytes()? {
            None => OWN_BYTES,
            Some(frame) if frame <= SMALL_FRAME_BYTES => frame.max(OWN_BYTES),
            Some(frame) => frame.min(READ_BYTES.max(2 * have)),
        })
    }

    /// The charge that goes with the frame just taken; what comes next begins with one of its own.
    fn charge_for(&mut self, budget: &Budget, next: usize) -> Charge {
        std::mem::replace(&mut self.charge, budget.charge(next))
    }

    /// What the budget must give before the next read, if it has not.
    fn lacks(&mut self, budget: &Budget) -> Result<Option<usize>, ConnectionError> {
        let room = self.room()?;
        if self.is_stranger || room <= OWN_BYTES {
            return Ok(None);
        }
        if self.charge.is_empty() {
            let frame = self.frame_bytes()?.unwrap_or(room);
            self.charge = budget.charge(frame);
        }
        Ok((!self.charge.covers(room)).then_some(room))
    }

    /// Gets what is lacking, or reads; false at the end. May be cancelled.
    async fn go_on(&mut self, lacks: Option<usize>) -> io::Result<bool> {
        match lacks {
            Some(bytes) => {
                self.charge.cover(bytes).await;
                Ok(true)
            }
            None => {
                // A frame that cannot be is refused before anything is read on.
                let room = self.room().unwrap_or(OWN_BYTES);
                self.read(room).await
            }
        }
    }

    /// Reads what is there, up to `room` bytes in all; false at the end. May be cancelled.
    async fn read(&mut self, room: usize) -> io::Result<bool> {
        loop {
            self.reader.readable().await?;
            let more = room.saturating_sub(self.bytes.len()).max(1);
            self.bytes.reserve(more);
            // The buffer may have more room than was asked for.
            match self.reader.try_read_buf(&mut (&mut self.bytes).limit(more)) {
                Ok(count) => return Ok(count > 0),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Returns when the client has hung up. Reads on within what is its own, so as to notice.
    async fn read_ahead(&mut self) -> io::Result<()> {
        while self.bytes.len() < OWN_BYTES {
            if !self.read(OWN_BYTES).await? {
                return Ok(());
            }
        }
        pending().await
    }
}
