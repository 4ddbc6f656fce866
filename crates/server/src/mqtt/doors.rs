//! Accepts sockets of a door and spreads them over the shards.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use headwater_mqtt_broker::Peer;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::warn;

use super::guests::{Arrivals, Guest, Guests};
use super::quic::Call;
use super::shard::{Common, Mail};
use super::ws::Terms;
use crate::config::Network;

/// Without a free file descriptor a new try makes sense only after others had time to close.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a door does with each connection before MQTT begins. None of it: bytes are MQTT at once.
#[derive(Default)]
pub(crate) struct Entrance {
    /// Peers whose connections begin with a PROXY protocol header, before anything else.
    pub(crate) proxies: Vec<Network>,
    /// TLS first, with what stands here when the handshake begins.
    pub(crate) tls: Option<watch::Receiver<Arc<ServerConfig>>>,
    /// Then a WebSocket, on these terms.
    pub(crate) ws: Option<Terms>,
    /// Those who are in.
    pub(crate) guests: Arc<Guests>,
}

/// What a peer's bytes come over.
pub(crate) enum Carrier {
    Socket(std::net::TcpStream),
    Quic(Box<Call>),
}

/// A connection on its way to the shard that will serve it.
pub(crate) struct Accepted {
    pub(crate) carrier: Carrier,
    pub(crate) peer: Peer,
    pub(crate) entrance: Arc<Entrance>,
    /// Its place at the door.
    pub(crate) guest: Guest,
}

impl Entrance {
    /// Whether MQTT begins with the first byte that `peer` sends.
    pub(crate) fn is_open_for(&self, peer: &Peer) -> bool {
        self.tls.is_none() && self.ws.is_none() && !self.is_proxy(peer)
    }

    /// Whether `peer` speaks for others.
    pub(crate) fn is_proxy(&self, peer: &Peer) -> bool {
        let address = peer.address.map(|address| address.ip());
        address.is_some_and(|address| self.proxies.iter().any(|one| one.contains(address)))
    }
}

/// Accepts until `stopping` says so. A socket that finds no place is closed at once.
pub(crate) async fn accept(
    listener: TcpListener,
    entrance: Entrance,
    common: Arc<Common>,
    mut stopping: watch::Receiver<bool>,
) {
    let (next, entrance) = (AtomicUsize::new(0), Arc::new(entrance));
    let mut is_failing = false;
    let mut arrivals = entrance.guests.arrivals();
    loop {
        // Whoever has to wait waits in the system's queue.
        let wait = arrivals.as_mut().map_or(Duration::ZERO, Arrivals::wait);
        if !wait.is_zero() {
            let stopped = stopping.wait_for(|stopping| *stopping);
            if timeout(wait, stopped).await.is_ok() {
                return;
            }
        }
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopping.wait_for(|stopping| *stopping) => return,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                if !std::mem::replace(&mut is_failing, true) {
                    warn!(%error, "MQTT connections cannot be accepted");
                }
                let stopped = stopping.wait_for(|stopping| *stopping);
                match timeout(ACCEPT_PAUSE, stopped).await {
                    Ok(_) => return,
                    Err(_) => continue,
                }
            }
        };
        is_failing = false;
        if let Some(arrivals) = &mut arrivals {
            arrivals.accepted();
        }
        let peer = Peer {
            address: Some(address),
        };
        // One that speaks for others is many.
        let counted = Some(address.ip()).filter(|_| !entrance.is_proxy(&peer));
        let Some(guest) = entrance.guests.admit(counted) else {
            common.counters.refused.fetch_add(1, Ordering::Relaxed);
            continue;
        };
        if !common.counters.places.take() {
            common.counters.refused.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        let Ok(socket) = stream.set_nodelay(true).and_then(|()| stream.into_std()) else {
            common.counters.places.give_back();
            continue;
        };
        let accepted = Accepted {
            carrier: Carrier::Socket(socket),
            peer,
            entrance: Arc::clone(&entrance),
            guest,
        };
        hand_over(&common, &next, accepted);
    }
}

pub(super) fn hand_over(common: &Common, next: &AtomicUsize, accepted: Accepted) {
    let turn = next.fetch_add(1, Ordering::Relaxed) % common.inboxes.len().max(1);
    if let Some(inbox) = common.inboxes.get(turn) {
        inbox.put([Mail::Accepted(accepted)]);
    }
}
