//! Sinks before their store is theirs.
//!
//! For: the time in which another program, which reads the store's file since before the start, keeps
//! what a killed process left there from being put in order. Documents wait for it; nothing else does.
//! Calls: `docstore`, the log's holds. Called by: `serve`.
//! Holds: until the store has said where the sinks stand, the log lets nothing go that may not be a
//! document yet, and what it has is no reason to refuse more.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use headwater_commitlog::{Log, PartitionId};
use headwater_docstore::{OpenError, Store};
use tracing::{error, info};

use super::{RETRY, SinkCounters, Sinks, sync_failed};
use crate::config::DurationMs;
use crate::flows::{Current, Signal};

/// How long a try after the first waits for those who read the store: by then they may be our own
/// queries, that end.
pub(super) const BUSY_WAIT: Duration = Duration::from_millis(500);

/// What sinks are made of.
pub(crate) struct Waiting {
    log: Log,
    flows: Arc<Current>,
    store: Store,
    signal: Arc<Signal>,
    counters: Arc<SinkCounters>,
    retention: DurationMs,
    /// How long the next try waits for those who read the store.
    wait: Duration,
    /// Sinks' names and the partitions that they hold whole.
    held: HashSet<(String, PartitionId)>,
}

impl Waiting {
    pub(crate) fn new(
        log: Log,
        flows: Arc<Current>,
        store: Store,
        signal: Arc<Signal>,
        counters: Arc<SinkCounters>,
        retention: DurationMs,
    ) -> Self {
        Self {
            log,
            flows,
            store,
            signal,
            counters,
            retention,
            wait: Duration::ZERO,
            held: HashSet::new(),
        }
    }

    /// The sinks at work; `None` while the store is being read. The first try waits for nobody.
    pub(crate) fn open(&mut self) -> anyhow::Result<Option<Sinks>> {
        let writer = match self.store.writer_within(self.wait) {
            Ok(writer) => writer,
            Err(busy @ OpenError::Busy { .. }) => {
                self.hold(&busy);
                self.wait = BUSY_WAIT;
                return Ok(None);
            }
            Err(OpenError::Failed { source, .. }) => sync_failed(&source),
            Err(error) => return Err(error.into()),
        };
        let sinks = Sinks::new(
            self.log.clone(),
            Arc::clone(&self.flows),
            writer,
            self.store.reader()?,
            Arc::clone(&self.signal),
            Arc::clone(&self.counters),
            self.retention,
        )?;
        for (sink, partition) in self.held.drain() {
            self.counters.troubles.goes_on(&sink, partition);
            // One that has ended meanwhile has no standing, and nobody else would release it.
            let standings = sinks.standings.iter();
            let mut its = standings.filter(|(seat, _)| seat.0 == sink);
            if !its.any(|(_, standing)| standing.partition == partition) {
                self.log.release_hold(&sink, partition);
            }
        }
        Ok(Some(sinks))
    }

    /// Works once the store is free, until the signal is stopped.
    pub(crate) fn run(mut self, first: Option<Sinks>) {
        let (mut sinks, mut retry, mut said) = (first, RETRY.0, String::new());
        while sinks.is_none() && !self.signal.is_stopping() {
            self.signal.pause(retry);
            retry = (retry * 2).min(RETRY.1);
            sinks = self.open().unwrap_or_else(|error| {
                // A start would be refused. Devices need not wait for the next one.
                self.counters.failures.fetch_add(1, Ordering::Relaxed);
                let sentence = format!("documents wait: {error:#}");
                if sentence != said {
                    error!("{sentence}");
                    said = sentence;
                }
                None
            });
            if sinks.is_some() {
                info!("the document store is free, the documents go on");
            }
        }
        if let Some(sinks) = sinks {
            sinks.run();
        }
    }

    /// Keeps all that the sinks may still need, and says so where it is news.
    fn hold(&mut self, why: &OpenError) {
        let flows = Arc::clone(&self.flows.load());
        let mut is_news = false;
        for sink in flows.sinks() {
            let topic = self.log.topic(sink.from());
            let ids = topic.iter().flat_map(|topic| &topic.partitions);
            for partition in ids.filter_map(|id| self.log.partition(*id)) {
                let (name, id) = (sink.name(), partition.id());
                self.log.hold_whole(name, id);
                self.held.insert((name.to_owned(), id));
                let sentence = format!("sink {name}: documents wait: {why}");
                is_news |= self.counters.troubles.stands(name, id, &sentence);
            }
        }
        if is_news {
            error!("documents wait: {why}");
        }
    }
}
