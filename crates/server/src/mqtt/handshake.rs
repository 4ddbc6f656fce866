//! What comes before MQTT on a connection: the way from an accepted socket to a stream that speaks it.
//!
//! For: the layers that a door's [`Entrance`] names, one inside the other, within the time that a
//!   stranger has for its CONNECT.
//! Not for: the layers themselves; MQTT (`connection` drives the stream that comes out).
//! Calls: `tokio_rustls`, `ws`, `ShardThread::serve`. Called by: `ShardThread::accept`.
//! Holds: a handshake runs as a task of its connection's thread: nobody waits for it, and it holds
//! up neither `accept` nor the end. The broker hears of the connection when it is over.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use headwater_mqtt_broker::{ConnectionId, Peer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsAcceptor;
use tracing::debug;

use super::connection::linger;
use super::doors::Entrance;
use super::shard::ShardThread;
use super::ws::{WebSocket, upgrade};

/// A connection whose handshake is not over.
pub(crate) struct Arrival {
    connection: ConnectionId,
    peer: Peer,
    entrance: Arc<Entrance>,
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
    ) -> Self {
        Self {
            connection,
            peer,
            entrance,
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
        let address = self.peer.address;
        let limit = Duration::from_millis(self.place.shard.limits().connect_ms_max);
        match timeout_at(self.since + limit, self.unwrap(stream)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(?address, %error, "a handshake failed"),
            Err(_) => debug!(?address, "a handshake was not over in time"),
        }
    }

    async fn unwrap(self, stream: TcpStream) -> io::Result<()> {
        let tls = (self.entrance.tls.as_ref()).map(|config| Arc::clone(&config.borrow()));
        match tls {
            None => self.within(stream).await,
            Some(config) => {
                let stream = TlsAcceptor::from(config).accept(stream).await?;
                self.within(stream).await
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
        let took_ms = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        let shard = &self.place.shard;
        shard.serve(self.connection, self.peer, took_ms, stream);
    }
}
