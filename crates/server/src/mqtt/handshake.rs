//! What comes before MQTT on a connection: the way from an accepted socket to a stream that speaks it.
//!
//! For: the layers that a door's [`Entrance`] names, one inside the other, within the time that a
//!   stranger has for its CONNECT.
//! Not for: the layers themselves; MQTT (`connection` drives the stream that comes out).
//! Calls: `proxy`, `tokio_rustls`, `ws`, `quic`, `ShardThread::serve`. Called by: `ShardThread::accept`.
//! Holds: a handshake runs as a task of its connection's thread: nobody waits for its peer, and it
//! holds up neither `accept` nor the end. What it computes, TLS' signature above all, takes that
//! thread's time from its other connections. The broker hears of the connection when it is over.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use headwater_mqtt_broker::{ConnectionId, Peer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;
use tracing::debug;

use super::connection::linger;
use super::doors::Entrance;
use super::guests::Guest;
use super::proxy::{self, Header};
use super::quic::{self, Call};
use super::shard::ShardThread;
use super::ws::{WebSocket, upgrade};

/// What TLS may keep for a socket that takes no more: a record. The shard sees that a slow reader
/// reads by what leaves its output.
const TLS_BYTES_MAX: usize = 16 << 10;

/// A connection whose handshake is not over.
pub(crate) struct Arrival {
    connection: ConnectionId,
    peer: Peer,
    entrance: Arc<Entrance>,
    guest: Guest,
    since: Instant,
    place: Place,
}

/// Its place among the connections, which it gives back unless MQTT takes it over.
struct Place {
    shard: Rc<ShardThread>,
    connection: ConnectionId,
    taken: bool,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shard.shaken(self.connection);
        if !self.taken {
            let failed = &self.shard.counters().handshakes_failed;
            failed.fetch_add(1, Ordering::Relaxed);
            self.shard.discount();
        }
    }
}

impl Arrival {
    pub(crate) fn new(
        shard: Rc<ShardThread>,
        connection: ConnectionId,
        peer: Peer,
        entrance: Arc<Entrance>,
        guest: Guest,
    ) -> Self {
        Self {
            connection,
            peer,
            entrance,
            guest,
            since: Instant::now(),
            place: Place {
                shard,
                connection,
                taken: false,
            },
        }
    }

    /// Goes through all layers; at its end the connection is served, or closed.
    pub(crate) async fn enter(self, stream: TcpStream) {
        let (address, limit) = (self.peer.address, self.limit());
        in_time(address, limit, self.unwrap(stream)).await;
    }

    /// The same for a QUIC connection, whose layers are one.
    pub(crate) async fn enter_quic(self, call: Call) {
        let (address, limit) = (self.peer.address, self.limit());
        let layers = async {
            let stream = quic::shake(call).await?;
            self.served(stream);
            Ok(())
        };
        in_time(address, limit, layers).await;
    }

    fn limit(&self) -> Duration {
        Duration::from_millis(self.guest.limits().connect_ms_max)
    }

    async fn unwrap(mut self, mut stream: TcpStream) -> io::Result<()> {
        if self.entrance.is_proxy(&self.peer)
            && let Some(source) = read_proxy_header(&mut stream).await?
        {
            self.peer.address = Some(source);
        }
        let tls = (self.entrance.tls.as_ref()).map(|config| Arc::clone(&config.borrow()));
        match tls {
            None => self.within(stream).await,
            Some(config) => {
                let accepting = TlsAcceptor::from(config).accept_with(stream, |tls| {
                    tls.set_buffer_limit(Some(TLS_BYTES_MAX));
                });
                let accepting = accepting.into_fallible();
                match accepting.await {
                    Ok(stream) => self.within(stream).await,
                    Err((error, mut stream)) => {
                        // The alert that says why must reach the peer.
                        linger(&mut stream).await.ok();
                        Err(error)
                    }
                }
            }
        }
    }

    /// What is the same with TLS around it and without.
    async fn within<S>(self, mut stream: S) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let Some(terms) = &self.entrance.ws else {
            self.served(stream);
            return Ok(());
        };
        match upgrade(&mut stream, terms).await? {
            Some(early) => self.served(WebSocket::new(stream, early)),
            // The answer that says why must reach the peer.
            None => linger(&mut stream).await?,
        }
        Ok(())
    }

    /// From here on `stream` carries MQTT.
    fn served<S>(mut self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        self.place.taken = true;
        let address = self.peer.address.map(tracing::field::display);
        debug!(address, "a handshake is over");
        let took_ms = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        let shard = &self.place.shard;
        shard.serve(self.connection, self.peer, self.guest, took_ms, stream);
    }
}

/// Reads the header and not a byte beyond it; the source that it names.
async fn read_proxy_header(stream: &mut TcpStream) -> io::Result<Option<SocketAddr>> {
    let mut header = [0; proxy::V2_BYTES_MAX];
    let mut filled = 0;
    loop {
        let read = header.get(..filled).unwrap_or_default();
        let needs = match proxy::parse(read) {
            Ok(Header::Needs(needs)) => needs,
            Ok(Header::Whole(source)) => return Ok(source),
            Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        };
        let room = header.get_mut(filled..needs).unwrap_or_default();
        match stream.read(room).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => filled += read,
        }
    }
}

/// Waits for the layers, but no longer.
async fn in_time(
    address: Option<SocketAddr>,
    limit: Duration,
    layers: impl Future<Output = io::Result<()>>,
) {
    match timeout(limit, layers).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(?address, %error, "a handshake failed"),
        Err(_) => debug!(?address, "a handshake was not over in time"),
    }
}
