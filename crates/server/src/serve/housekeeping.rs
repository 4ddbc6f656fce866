//! What is done from time to time: letting records go that retention no longer keeps, and what the
//! internal topics hold for nobody.

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use headwater_commitlog::{CommitError, Log};
use tracing::{info, warn};

use crate::flows::Signal;
use crate::mqtt::retire::{Done, Retirements};
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
                match self.wait(|done| self.retirements.trim(partition, before, done)) {
                    Ok(()) => info!(
                        ?partition,
                        before, "records past their retention are removed"
                    ),
                    Err(CommitError::Closed) => return,
                    Err(error) => warn!(?partition, %error, "retention waits"),
                }
            }
            match self.wait(|done| self.retirements.tend(done)) {
                Ok(()) => {}
                Err(CommitError::Closed) => return,
                Err(error) => warn!(%error, "what nobody is owed any more stays for now"),
            }
        }
    }

    /// Starts a job and waits for its end.
    fn wait(&self, start: impl FnOnce(Done)) -> Result<(), CommitError> {
        let (sender, receiver) = channel();
        start(Box::new(move |result| {
            // Received just below.
            sender.send(result).ok();
        }));
        receiver.recv().unwrap_or(Err(CommitError::Closed))
    }
}
