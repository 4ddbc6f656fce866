//! What is done from time to time: letting records go that retention no longer keeps.

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use headwater_commitlog::{CommitError, Log};
use tracing::{info, warn};

use crate::flows::Signal;
use crate::mqtt::retire::Retirements;
use crate::mqtt::wall_ms;

/// How often retention is looked at.
const EVERY: Duration = Duration::from_secs(5);

/// The thread's state.
pub(crate) struct Housekeeping {
    log: Log,
    retirements: Arc<Retirements>,
    signal: Arc<Signal>,
}

impl Housekeeping {
    pub(crate) fn new(log: Log, retirements: Arc<Retirements>, signal: Arc<Signal>) -> Self {
        Self {
            log,
            retirements,
            signal,
        }
    }

    /// Works until the signal is stopped.
    pub(crate) fn run(self) {
        while self.signal.wait(EVERY) {
            for (partition, before) in self.log.retention_due(wall_ms()) {
                let (sender, receiver) = channel();
                let done = Box::new(move |result: Result<(), CommitError>| {
                    // Received just below.
                    sender.send(result).ok();
                });
                self.retirements.trim(partition, before, done);
                match receiver.recv().unwrap_or(Err(CommitError::Closed)) {
                    Ok(()) => info!(
                        ?partition,
                        before, "records past their retention are removed"
                    ),
                    Err(CommitError::Closed) => return,
                    Err(error) => warn!(?partition, %error, "retention waits"),
                }
            }
        }
    }
}
