//! Accepts sockets of a door and spreads them over the shards.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use headwater_mqtt_broker::Peer;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::warn;

use super::shard::{Common, Mail};

/// Without a free file descriptor a new try makes sense only after others had time to close.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts until `stopping` says so. Beyond `connections_max` a socket is closed at once.
pub(crate) async fn accept(
    listener: TcpListener,
    common: Arc<Common>,
    connections_max: usize,
    mut stopping: watch::Receiver<bool>,
) {
    let next = AtomicUsize::new(0);
    let mut is_failing = false;
    loop {
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
        if common.counters.connections.load(Ordering::Relaxed) >= connections_max {
            common.counters.refused.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        let std = stream.set_nodelay(true).and_then(|()| stream.into_std());
        if let Ok(socket) = std {
            hand_over(&common, &next, socket, address);
        }
    }
}

fn hand_over(
    common: &Common,
    next: &AtomicUsize,
    socket: std::net::TcpStream,
    address: std::net::SocketAddr,
) {
    let turn = next.fetch_add(1, Ordering::Relaxed) % common.inboxes.len().max(1);
    if let Some(inbox) = common.inboxes.get(turn) {
        common.counters.connections.fetch_add(1, Ordering::Relaxed);
        inbox.put([Mail::Accepted(
            socket,
            Peer {
                address: Some(address),
            },
        )]);
    }
}
