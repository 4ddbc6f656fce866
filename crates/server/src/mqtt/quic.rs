//! QUIC: one stream that the client opens is one MQTT connection.
//!
//! For: the UDP socket's endpoint, who is let in, and a stream's two halves as one stream for the driver.
//! Not for: the handshake's time and place (`handshake`), certificates (`tls`), MQTT.
//! Calls: `quinn`. Called by: `serve`, `handshake`, then `connection` through the stream's traits.
//! Holds: a connection's packets are made and read on its shard's thread, by a task of quinn's; the
//! endpoint only sorts datagrams. What a client has sent and nobody has read is bounded by windows: a
//! small one until the first read.
//! Does not hold: datagrams that the endpoint has sorted wait for the connection's task in quinn's queue,
//! which nothing here bounds: a thread that is busy for long lets it grow as fast as the network sends.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::UdpSocket;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use anyhow::Context as _;
use headwater_mqtt_broker::Peer;
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{
    Connection, Endpoint, EndpointConfig, Incoming, RecvStream, SendStream, ServerConfig,
    TokioRuntime, TransportConfig, VarInt,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::error;

use super::doors::{Accepted, Carrier, Entrance, hand_over};
use super::guests::Arrivals;
use super::shard::Common;

/// What a client may send before anything of it was read.
const EARLY_BYTES: u32 = 64 << 10;
/// What a client may send ahead of the reader, and what is kept of our own until the client has
/// acknowledged it.
const WINDOW_BYTES: u32 = 256 << 10;
/// Handshakes in progress from which on a client must show that it is where it says: one round trip
/// more, and forged addresses cost nothing. Where clients are counted or paced, each must.
const RETRY_FROM: usize = 64;
/// Datagrams' clients that may wait for this door, and what each may send meanwhile.
const WAITING_MAX: usize = 1024;
const WAITING_BYTES: u64 = 8 << 10;
const WAITING_BYTES_ALL: u64 = 4 << 20;
/// How often a silent client hears of us. MQTT's Keep Alive says when a client is gone, so that this
/// side has no idle timeout; many clients have one of 30 s, which must not end what MQTT keeps.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// The door of one UDP socket.
pub(crate) struct QuicDoor {
    endpoint: Endpoint,
    /// With the key of the address tokens, which outlives certificates.
    config: Arc<ServerConfig>,
    tls: watch::Receiver<Arc<rustls::ServerConfig>>,
    /// One reference for each handshake in progress.
    shaking: Shaking,
}

/// Held as long as a handshake is in progress.
#[derive(Clone, Default)]
struct Shaking(Arc<()>);

/// A QUIC connection before its handshake, which is in progress from now on.
pub(crate) struct Call {
    incoming: Incoming,
    /// As it is when the connection is let in, which may be after it came.
    config: Arc<ServerConfig>,
    shaking: Shaking,
}

impl QuicDoor {
    /// Takes over a bound socket; within a runtime, whose threads sort its datagrams.
    pub(crate) fn open(
        socket: UdpSocket,
        tls: watch::Receiver<Arc<rustls::ServerConfig>>,
    ) -> anyhow::Result<Self> {
        let crypto = crypto(&tls).context("listeners.quic: this certificate does not do")?;
        let mut config = ServerConfig::with_crypto(crypto);
        config
            .transport_config(Arc::new(transport()))
            .max_incoming(WAITING_MAX)
            .incoming_buffer_size(WAITING_BYTES)
            .incoming_buffer_size_total(WAITING_BYTES_ALL);
        let endpoint = Endpoint::new(
            EndpointConfig::default(),
            Some(config.clone()),
            socket,
            Arc::new(TokioRuntime),
        )
        .context("listeners.quic: the socket cannot be watched")?;
        Ok(Self {
            endpoint,
            config: Arc::new(config),
            tls,
            shaking: Shaking::default(),
        })
    }

    /// Lets connections in until `stopping` says so.
    pub(crate) async fn accept(
        mut self,
        entrance: Entrance,
        common: Arc<Common>,
        mut stopping: watch::Receiver<bool>,
    ) {
        let (next, entrance) = (AtomicUsize::new(0), Arc::new(entrance));
        let mut arrivals = entrance.guests.arrivals();
        let is_counting = entrance.guests.is_counting();
        // Those who come too fast, oldest first; quinn's `max_incoming` counts them.
        let mut waiting = VecDeque::new();
        loop {
            let mut wait = Duration::ZERO;
            while !waiting.is_empty() {
                wait = arrivals.as_mut().map_or(Duration::ZERO, Arrivals::wait);
                if !wait.is_zero() {
                    break;
                }
                if let Some(arrivals) = &mut arrivals {
                    arrivals.accepted();
                }
                if let Some(incoming) = waiting.pop_front() {
                    self.let_in(incoming, &entrance, &common, &next);
                }
            }
            let incoming = tokio::select! {
                incoming = self.endpoint.accept() => incoming,
                Ok(()) = self.tls.changed() => {
                    self.renew();
                    continue;
                }
                () = sleep(wait), if !waiting.is_empty() => continue,
                _ = stopping.wait_for(|stopping| *stopping) => None,
            };
            let Some(incoming) = incoming else {
                // Connections go on until their shards have ended them.
                self.endpoint.set_server_config(None);
                return;
            };
            let is_busy = Arc::strong_count(&self.shaking.0) > RETRY_FROM;
            if (is_counting || is_busy) && !incoming.remote_address_validated() {
                // It may be retried, as it has shown nothing. Nobody is charged for it.
                incoming.retry().ok();
                continue;
            }
            waiting.push_back(incoming);
        }
    }

    /// Hands a connection to its shard. One that finds no place is refused.
    fn let_in(
        &self,
        incoming: Incoming,
        entrance: &Arc<Entrance>,
        common: &Common,
        next: &AtomicUsize,
    ) {
        let address = incoming.remote_address();
        let guest = entrance.guests.admit(Some(address.ip()));
        let guest = guest.filter(|_| common.counters.places.take());
        let Some(guest) = guest else {
            common.counters.refused.fetch_add(1, Ordering::Relaxed);
            return incoming.refuse();
        };
        let call = Call {
            incoming,
            config: Arc::clone(&self.config),
            shaking: self.shaking.clone(),
        };
        let accepted = Accepted {
            carrier: Carrier::Quic(Box::new(call)),
            peer: Peer {
                address: Some(address),
            },
            entrance: Arc::clone(entrance),
            guest,
        };
        hand_over(common, next, accepted);
    }

    /// Takes the new certificate for new handshakes.
    fn renew(&mut self) {
        self.tls.mark_unchanged();
        match crypto(&self.tls) {
            Ok(crypto) => {
                let config = Arc::make_mut(&mut self.config);
                config.crypto = crypto;
                self.endpoint.set_server_config(Some(config.clone()));
            }
            Err(refused) => error!(%refused, "a new certificate does not do for QUIC"),
        }
    }
}

fn crypto(
    tls: &watch::Receiver<Arc<rustls::ServerConfig>>,
) -> anyhow::Result<Arc<QuicServerConfig>> {
    let config = Arc::clone(&tls.borrow());
    Ok(Arc::new(QuicServerConfig::try_from(config)?))
}

fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        // A second stream finds no credit: it is MQTT over one stream, and no datagrams.
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .receive_window(VarInt::from_u32(EARLY_BYTES))
        .stream_receive_window(VarInt::from_u32(WINDOW_BYTES))
        .send_window(u64::from(WINDOW_BYTES))
        .max_idle_timeout(None)
        .keep_alive_interval(Some(KEEP_ALIVE));
    transport
}

/// Goes through the handshake, up to the stream that is MQTT's.
pub(crate) async fn shake(call: Call) -> io::Result<QuicStream> {
    let Call {
        incoming,
        config,
        shaking: _shaking,
    } = call;
    let connection = incoming.accept_with(config)?.await?;
    let (send, recv) = connection.accept_bi().await?;
    Ok(QuicStream {
        send,
        recv,
        early: Some(connection),
        ending: None,
    })
}

/// The two halves of a stream. The connection ends when it is dropped.
pub(crate) struct QuicStream {
    send: SendStream,
    recv: RecvStream,
    /// Until something was read: its window is still small.
    early: Option<Connection>,
    /// Until the client has all that was written.
    ending: Option<Pin<Box<dyn Future<Output = ()>>>>,
}

impl AsyncRead for QuicStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.recv).poll_read(cx, buf))?;
        if buf.filled().len() > before
            && let Some(connection) = self.early.take()
        {
            connection.set_receive_window(VarInt::from_u32(WINDOW_BYTES));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for QuicStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(Pin::new(&mut self.send), cx, buf)
    }

    /// One piece after the other: what they are put into is quinn's, and no system call yet.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut wrote = 0;
        for buf in bufs.iter().filter(|buf| !buf.is_empty()) {
            match AsyncWrite::poll_write(Pin::new(&mut self.send), cx, buf) {
                Poll::Ready(Ok(count)) => {
                    wrote += count;
                    if count < buf.len() {
                        break;
                    }
                }
                Poll::Ready(Err(error)) if wrote == 0 => return Poll::Ready(Err(error)),
                Poll::Pending if wrote == 0 => return Poll::Pending,
                Poll::Ready(Err(_)) | Poll::Pending => break,
            }
        }
        Poll::Ready(Ok(wrote))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Ends this side, and waits until the client has all of it: what closes a connection may overtake
    /// what was said before.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let ending = match &mut this.ending {
            Some(ending) => ending,
            None => {
                this.send.finish()?;
                let stopped = this.send.stopped();
                let ending = async move { drop(stopped.await) };
                this.ending.insert(Box::pin(ending))
            }
        };
        ready!(ending.as_mut().poll(cx));
        Poll::Ready(Ok(()))
    }
}
