//! Drives one network connection: bytes in, bytes out, for any stream.
//!
//! For: reading when the shard may take more, writing what the shard has put out, ending.
//! Not for: any decision about MQTT. A transport is a stream and its accept loop; this driver is
//! shared by all of them.
//! Calls: `ShardThread` for every input and its outputs. Called by: `ShardThread::serve`, which
//! spawns `drive` for each stream.
//! Holds: an idle connection owns no buffer: reads go to the shard's scratch, writes leave from the
//! shard's output.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Buf;
use headwater_mqtt_broker::{ConnectionId, Input, Output};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use tokio_util::io::{poll_read_buf, poll_write_buf};
use tracing::trace;

use super::shard::{ReadGate, ShardThread};

/// Reads of one connection before the others get their turn.
const READS_A_TURN: usize = 4;
/// How long a peer may take to read its last packet and close its side.
const LINGER: Duration = Duration::from_millis(500);
/// What a peer may still send meanwhile; more ends the waiting.
const LINGER_BYTES_MAX: usize = 1 << 20;

/// Serves `stream` as `connection` until either side ends it.
pub(crate) async fn drive<S>(shard: Rc<ShardThread>, connection: ConnectionId, mut stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    match poll_fn(|cx| poll_connection(&shard, connection, &mut stream, cx)).await {
        Ended::Gone => shard.step(Input::Closed { connection }),
        Ended::Broken => {
            shard.step(Input::Closed { connection });
            if Box::pin(linger(&mut stream)).await.is_err() {
                trace!(?connection, "the peer did not take what is wrong");
            }
        }
        // Boxed, so that its buffer is no part of every idle connection.
        Ended::Asked => Box::pin(say_last(&shard, connection, &mut stream)).await,
    }
    shard.forget(connection);
}

/// Why a connection is no longer served.
enum Ended {
    /// The peer or the network ended it.
    Gone,
    /// The peer broke the rules of its transport, which has something to say about it.
    Broken,
    /// The broker did.
    Asked,
}

fn poll_connection<S>(
    shard: &ShardThread,
    connection: ConnectionId,
    stream: &mut S,
    cx: &mut Context<'_>,
) -> Poll<Ended>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    shard.register(connection, cx.waker());
    if poll_write(shard, connection, stream, cx).is_err() {
        return Poll::Ready(Ended::Gone);
    }
    for _ in 0..READS_A_TURN {
        match shard.read_gate(connection) {
            ReadGate::Closing => return Poll::Ready(Ended::Asked),
            ReadGate::Paused => return Poll::Pending,
            ReadGate::Open => {}
        }
        let bytes = {
            let mut scratch = shard.scratch();
            match ready!(poll_read_buf(Pin::new(&mut *stream), cx, &mut *scratch)) {
                Ok(0) => return Poll::Ready(Ended::Gone),
                Ok(read) => scratch.split_to(read).freeze(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    return Poll::Ready(Ended::Broken);
                }
                Err(_) => return Poll::Ready(Ended::Gone),
            }
        };
        shard.step(Input::Received { connection, bytes });
    }
    cx.waker().wake_by_ref();
    Poll::Pending
}

/// Writes what waits for the socket, as much as it takes, and tells the shard what it waits for.
fn poll_write<S>(
    shard: &ShardThread,
    connection: ConnectionId,
    stream: &mut S,
    cx: &mut Context<'_>,
) -> io::Result<()>
where
    S: AsyncWrite + Unpin,
{
    let (mut wrote, mut blocked) = (false, false);
    let relieved = {
        let mut core = shard.core();
        let Some(output) = core.output(connection) else {
            return Ok(());
        };
        while output.has_remaining() {
            match poll_send(stream, cx, output) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(_)) => wrote = true,
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => {
                    blocked = true;
                    break;
                }
            }
        }
        // What TLS or a WebSocket keep of it goes out too.
        if !blocked {
            match Pin::new(&mut *stream).poll_flush(cx) {
                Poll::Ready(flushed) => flushed?,
                Poll::Pending => blocked = true,
            }
        }
        output.is_relieved()
    };
    let was_blocked = shard.set_blocked(connection, blocked);
    if blocked && (wrote || !was_blocked) {
        shard.step(Input::Blocked { connection });
    }
    if relieved || (was_blocked && !blocked) {
        shard.step(Input::Drained { connection });
    }
    Ok(())
}

/// Most often there is one chunk: a plain write costs the kernel less than a vectored one.
fn poll_send<S>(
    stream: &mut S,
    cx: &mut Context<'_>,
    output: &mut Output,
) -> Poll<io::Result<usize>>
where
    S: AsyncWrite + Unpin,
{
    let mut stream = Pin::new(stream);
    if output.chunk().len() < output.remaining() {
        return poll_write_buf(stream, cx, output);
    }
    let written = ready!(stream.as_mut().poll_write(cx, output.chunk()))?;
    output.advance(written);
    Poll::Ready(Ok(written))
}

/// Writes the last packets, so far as the peer takes them at once, and closes our side.
async fn say_last<S>(shard: &ShardThread, connection: ConnectionId, stream: &mut S)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Some(mut output) = shard.take_last(connection) else {
        return;
    };
    let said = timeout(LINGER, async {
        stream.write_all_buf(&mut output).await?;
        close(stream).await
    });
    if !matches!(said.await, Ok(Ok(()))) {
        trace!(?connection, "the peer did not take its last packet");
    }
}

/// Closes our side, and gives what was written last a moment to arrive.
pub(crate) async fn linger<S>(stream: &mut S) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    timeout(LINGER, close(stream)).await?
}

/// Closes our side. What the peer still sends is read and dropped: a socket closed over unread bytes is
/// reset, and the reset may overtake the DISCONNECT that says why.
async fn close<S>(stream: &mut S) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    stream.shutdown().await?;
    let mut left = LINGER_BYTES_MAX;
    let mut dropped = [0; 4096];
    while left > 0 {
        match stream.read(&mut dropped).await? {
            0 => break,
            read => left = left.saturating_sub(read),
        }
    }
    Ok(())
}
