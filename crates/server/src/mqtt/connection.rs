//! Drives one network connection: bytes in, bytes out, for any stream.
//!
//! For: reading when the shard may take more, writing what the shard has put out, ending.
//! Not for: any decision about MQTT. A transport is a stream and its accept loop; this driver is
//! shared by all of them.
//! Calls: `ShardThread` for every input and its outputs. Called by: `ShardThread::serve`, which
//! spawns `drive` for each stream.
//! Holds: an idle connection owns no buffer: reads go to the shard's scratch, writes leave from the
//! shard's output. A bug in a stream ends its connection, for the shard too.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Buf;
use headwater_mqtt_broker::{ConnectionId, Input, Output};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use tokio_util::io::{poll_read_buf, poll_write_buf};
use tracing::{error, trace};

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
    // First, so that it is there until the end, however that comes.
    let mut served = Served {
        shard: Rc::clone(&shard),
        connection,
        is_over: false,
    };
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
    served.is_over = true;
}

/// A connection that has a driver. Tokio swallows the panic of a task: what would end with it silently
/// ends here.
struct Served {
    shard: Rc<ShardThread>,
    connection: ConnectionId,
    /// The driver has told the shard how it ended.
    is_over: bool,
}

impl Drop for Served {
    fn drop(&mut self) {
        let (shard, connection) = (&self.shard, self.connection);
        if !self.is_over {
            shard.counters().panics.fetch_add(1, Ordering::Relaxed);
            error!(?connection, "a bug in its transport ended a connection");
            shard.step(Input::Closed { connection });
        }
        shard.forget(connection);
    }
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

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use headwater_bridge::Flows;
    use headwater_commitlog::fs::{Fs, PowerCutFs};
    use headwater_commitlog::{Admin, Log, Options, PartitionId, TopicConfig, Unit};
    use headwater_mqtt_broker::{Peer, Shard, Strategy, System};
    use tokio::io::ReadBuf;
    use tokio::runtime::{Builder, LocalOptions};
    use tokio::task::yield_now;

    use super::*;
    use crate::config::Config;
    use crate::flows::Current;
    use crate::mqtt::commits::TopicRules;
    use crate::mqtt::guests::Guests;
    use crate::mqtt::{Internal, Mqtt, Setup};
    use crate::permissions::Permissions;
    use crate::serve::descriptors::{Protocol, Shares};

    const DEADLINE: Duration = Duration::from_secs(10);

    /// A broker of one shard.
    fn broker() -> Mqtt {
        let fs = PowerCutFs::default();
        fs.create_dir(Path::new("/data")).unwrap();
        let log = Log::open(Arc::new(fs), Options::new("/data")).unwrap();
        let create = |name: &str| Admin::CreateTopic {
            name: name.to_owned(),
            partitions: 1,
            config: TopicConfig::default(),
        };
        let unit = Unit {
            admin: vec![create("owed"), create("kept")],
            ..Unit::default()
        };
        log.commit(unit).unwrap();
        Mqtt::start(Setup {
            log,
            flows: Arc::new(Current::new(Flows::default())),
            permissions: Arc::new(Permissions::default()),
            limits: headwater_mqtt_broker::Limits::default(),
            response_information: None,
            system: System {
                node: "n".into(),
                announcements_per_second: 0,
                is_open: false,
            },
            strategy: Strategy::RoundRobin,
            shards: 1,
            handshakes_max: 1,
            places: Shares::now(&Config::default()).places(Protocol::Mqtt),
            internal: Internal {
                owed: PartitionId(0),
                kept: PartitionId(1),
            },
            rules: TopicRules {
                auto_create: false,
                partitions: 1,
                routed_partitions_max: 1,
            },
        })
        .unwrap()
    }

    /// What a bug is in.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Buggy {
        Read,
        Flush,
        Shutdown,
    }

    impl Buggy {
        fn poll(self, of: Self) -> Poll<io::Result<()>> {
            assert_ne!(self, of, "a bug in a transport, as this test wants it");
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncRead for Buggy {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            // No MQTT: the broker ends the connection.
            buf.put_slice(&[0; 2]);
            self.poll(Self::Read)
        }
    }

    impl AsyncWrite for Buggy {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(buf.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.poll(Self::Flush)
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.poll(Self::Shutdown)
        }
    }

    #[test]
    fn a_bug_in_a_transport_leaves_nothing_behind() {
        let broker = broker();
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build_local(LocalOptions::default())
            .unwrap();
        let core = Shard::new(Arc::clone(&broker.shared), 0);
        let shard = Rc::new(ShardThread::new(0, core, Arc::clone(&broker.common)));
        let (counters, guests) = (&broker.common.counters, Arc::new(Guests::default()));
        let whats = [Buggy::Read, Buggy::Flush, Buggy::Shutdown];
        runtime.block_on(async {
            for (number, what) in (0..).zip(whats) {
                assert!(counters.places.take());
                let guest = guests.admit(None).unwrap();
                shard.serve(ConnectionId(number), Peer { address: None }, guest, 0, what);
                let panics = 1 + number;
                let counted = async {
                    while counters.panics.load(Ordering::Relaxed) < panics {
                        yield_now().await;
                    }
                };
                timeout(DEADLINE, counted).await.unwrap();
                assert_eq!(counters.places.held(), 0, "{what:?}");
                assert!(shard.core().output(ConnectionId(number)).is_none());
                assert!(shard.is_idle(), "{what:?}");
            }
        });
        broker.stop();
    }
}
