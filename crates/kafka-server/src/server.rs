//! The server: accepts connections and owns what they share.
//!
//! For: the public face. One [`KafkaServer`] serves any number of listeners.
//! Not for: bytes (`connection`), APIs (`handler`), groups (`group`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use headwater_commitlog::{Log, PartitionId};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tracing::{error, warn};

use crate::budget::{Budget, Pool};
use crate::connection;
use crate::groups::Groups;
use crate::handler::{READS_MAX, Shared};
use crate::waiters::Waiters;
use crate::wire::Text;
use crate::{Advanced, ErrorCode, GroupView, Host, Memory, Options, StartError};

/// After a failed accept (no descriptor left, most likely) the next one waits for a connection of ours
/// to end; another part of the process may have given one back after this time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Kafka's protocol over one log.
pub struct KafkaServer {
    shared: Arc<Shared>,
    connections: Arc<Semaphore>,
    /// Connections closed at once because there were too many.
    refused: AtomicU64,
    /// The last one was, which is said once.
    is_full: AtomicBool,
}

impl KafkaServer {
    /// Reads the groups back from the log's table. Needs to be inside a tokio runtime with time.
    pub fn new(log: Log, options: Options, host: Arc<dyn Host>) -> Result<Arc<Self>, StartError> {
        let groups = Groups::restore(log.clone(), &options.groups).map_err(StartError::Groups)?;
        let connections = Arc::new(Semaphore::new(options.connections_max));
        let requests = Budget::new(options.requests_bytes_max);
        let responses = Pool::new(options.responses_bytes_max);
        let shared = Shared {
            log,
            options,
            host,
            groups,
            waiters: Waiters::default(),
            requests,
            responses,
            reads: Arc::new(Semaphore::new(READS_MAX)),
        };
        Ok(Arc::new(Self {
            shared: Arc::new(shared),
            connections,
            refused: AtomicU64::new(0),
            is_full: AtomicBool::new(false),
        }))
    }

    /// Serves connections until `shutdown` says true, then lets each finish what waits for the
    /// disk. Needs a tokio runtime with I/O and time. May be called once a listener.
    pub async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        mut shutdown: watch::Receiver<bool>,
    ) {
        let told = shutdown.clone();
        // The groups are driven on until the last connection has its answers.
        let (stop, stopped) = watch::channel(false);
        let shared = Arc::clone(&self.shared);
        let driver = tokio::spawn(async move { shared.groups.drive(stopped).await });
        let mut connections = JoinSet::new();
        // Until then nothing is accepted.
        let mut again_at = Instant::now();
        let mut is_failing = false;
        loop {
            let pauses = Instant::now() < again_at;
            tokio::select! {
                accepted = listener.accept(), if !pauses => match accepted {
                    Ok((stream, peer)) => {
                        is_failing = false;
                        self.open(&mut connections, stream, peer, &told);
                    }
                    Err(error) => {
                        if !std::mem::replace(&mut is_failing, true) {
                            warn!(%error, "Kafka connections cannot be accepted");
                        }
                        again_at = Instant::now() + ACCEPT_PAUSE;
                    }
                },
                () = tokio::time::sleep_until(again_at), if pauses => {}
                Some(ended) = connections.join_next() => {
                    again_at = Instant::now();
                    report(ended);
                }
                () = connection::stopped(&mut shutdown) => break,
            }
        }
        drop(listener);
        while let Some(ended) = connections.join_next().await {
            report(ended);
        }
        stop.send_replace(true);
        report(driver.await);
    }

    #[cfg(test)]
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    fn open(
        &self,
        connections: &mut JoinSet<()>,
        stream: TcpStream,
        peer: std::net::SocketAddr,
        shutdown: &watch::Receiver<bool>,
    ) {
        let permit = Arc::clone(&self.connections).try_acquire_owned();
        let place = permit.ok().and_then(|permit| {
            let host = Arc::clone(&self.shared.host);
            // Made only once it was taken: its end gives the place back.
            host.take_place().then(|| Place {
                host,
                _permit: permit,
            })
        });
        let Some(place) = place else {
            self.refused.fetch_add(1, Ordering::Relaxed);
            // Strangers come as fast as they like: once, until one is taken again.
            if !self.is_full.swap(true, Ordering::Relaxed) {
                let connections_max = self.shared.options.connections_max;
                warn!(%peer, connections_max, "too many connections, the newest of Kafka's are closed");
            }
            return;
        };
        self.is_full.store(false, Ordering::Relaxed);
        let served = connection::serve(Arc::clone(&self.shared), stream, peer, shutdown.clone());
        connections.spawn(async move {
            served.await;
            drop(place);
        });
    }

    /// Wakes the fetches that wait for these partitions. Short: meant for [`Log::on_advance`].
    pub fn advanced(&self, partitions: &[PartitionId]) {
        self.shared.waiters.advanced(partitions);
    }

    /// As [`Self::advanced`], to hand to [`Log::on_advance`] without keeping the server alive.
    pub fn advanced_hook(self: &Arc<Self>) -> Advanced {
        let server = Arc::downgrade(self);
        Box::new(move |partitions| {
            if let Some(server) = server.upgrade() {
                server.advanced(partitions);
            }
        })
    }

    /// What requests and responses hold right now, of [`Options::requests_bytes_max`] and
    /// [`Options::responses_bytes_max`].
    pub fn memory(&self) -> Memory {
        Memory {
            requests_bytes: self.shared.requests.held(),
            responses_bytes: self.shared.responses.held(),
        }
    }

    /// Connections closed at once, since the start, because there were too many.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Deletes a group without members, its offsets with it, as DeleteGroups does; on disk when this
    /// answers [`ErrorCode::None`].
    pub async fn delete_group(&self, group_id: &str) -> ErrorCode {
        self.shared.groups.delete(&Text::from(group_id)).await
    }

    /// All groups with members, offsets and lags, ordered by name.
    pub fn groups(&self) -> Vec<GroupView> {
        self.shared.groups.views()
    }
}

/// A connection's place among ours and among the host's.
struct Place {
    host: Arc<dyn Host>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.host.give_place_back();
    }
}

/// A panic ends its connection, not the server; it is a bug of ours all the same.
fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        error!(%error, "a Kafka connection's task panicked");
    }
}
