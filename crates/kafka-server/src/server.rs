//! The server: accepts connections and owns what they share.
//!
//! For: the public face. One [`KafkaServer`] serves any number of listeners.
//! Not for: bytes (`connection`), APIs (`handler`), groups (`group`).

use std::sync::Arc;

use headwater_commitlog::{Log, PartitionId};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::{Advanced, GroupView, Host, Options, StartError};

/// Kafka's protocol over one log.
pub struct KafkaServer {
    log: Log,
    options: Options,
    host: Arc<dyn Host>,
}

impl KafkaServer {
    /// Reads the groups back from the log's table.
    pub fn new(log: Log, options: Options, host: Arc<dyn Host>) -> Result<Arc<Self>, StartError> {
        Ok(Arc::new(Self { log, options, host }))
    }

    /// Serves connections until `shutdown` says true, then lets each finish the request it is at.
    /// Needs a tokio runtime with I/O and time.
    pub async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        mut shutdown: watch::Receiver<bool>,
    ) {
        let _ = (&self.log, &self.options, &self.host, listener);
        let _ = shutdown.wait_for(|stop| *stop).await;
    }

    /// Wakes the fetches that wait for these partitions. Short and lock-light: meant for
    /// [`Log::on_advance`].
    pub fn advanced(&self, _partitions: &[PartitionId]) {}

    /// As [`Self::advanced`], to hand to [`Log::on_advance`] without keeping the server alive.
    pub fn advanced_hook(self: &Arc<Self>) -> Advanced {
        let server = Arc::downgrade(self);
        Box::new(move |partitions| {
            if let Some(server) = server.upgrade() {
                server.advanced(partitions);
            }
        })
    }

    /// All groups with members, offsets and lags, ordered by name.
    pub fn groups(&self) -> Vec<GroupView> {
        Vec::new()
    }
}
