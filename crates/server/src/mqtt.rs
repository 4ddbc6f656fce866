//! MQTT's threads: one a shard, the loader, and the doors that hand sockets to them.
//!
//! For: starting them over a restored log, spreading connections, stopping all of it.
//! Not for: what happens on a connection (`connection`, `mqtt-broker`).
//! Calls: `shard`, `restore`, `retire`. Called by: `serve`.

mod clock;
pub(crate) mod commits;
mod connection;
mod convert;
mod doors;
pub(crate) mod guests;
mod handshake;
pub(crate) mod inbox;
mod injections;
mod loader;
mod proxy;
mod quic;
mod restore;
pub(crate) mod retire;
pub(crate) mod shard;
pub(crate) mod system;
mod ws;

use std::sync::atomic::AtomicU64;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::Context;
use headwater_commitlog::{Log, PartitionId};
use headwater_mqtt_broker as broker;

pub(crate) use clock::{Timeline, wall_ms};
pub(crate) use convert::{incoming, message};
pub(crate) use doors::{Entrance, accept};
pub(crate) use injections::{Injected, Injections};
pub(crate) use quic::QuicDoor;
pub(crate) use ws::{Origins, Terms};

use crate::failure;
use crate::flows::Current;
use crate::permissions::{PermissionQuestion, Permissions};
use crate::serve::descriptors::Places;
use commits::{Committer, TopicRules};
use inbox::Inbox;
use loader::Loader;
use retire::Retirements;
use shard::{Common, Mail, ShardThread};

/// What the threads count besides the broker's own numbers.
pub(crate) struct Counters {
    /// Of open sockets, CONNECT seen or not, a handshake over or not.
    pub(crate) places: Places,
    pub(crate) panics: AtomicU64,
    /// Sockets closed at once because there were too many.
    pub(crate) refused: AtomicU64,
    /// Connections that ended before their handshake was over.
    pub(crate) handshakes_failed: AtomicU64,
    /// Each shard's numbers as of its last turn of the clock.
    pub(crate) broker: Mutex<Vec<broker::Counts>>,
}

impl Counters {
    /// The broker's numbers over all shards.
    pub(crate) fn totals(&self) -> broker::Counts {
        let mut sum = broker::Counts::default();
        for counts in self
            .broker
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
        {
            sum.add(counts);
        }
        sum
    }
}

/// Where the internal partitions are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Internal {
    /// `__headwater_owed`: to whom which message is owed.
    pub(crate) owed: PartitionId,
    /// `__headwater_kept`: messages that no topic of the user's keeps.
    pub(crate) kept: PartitionId,
}

/// What MQTT is started with.
pub(crate) struct Setup {
    pub(crate) log: Log,
    pub(crate) flows: Arc<Current>,
    pub(crate) permissions: Arc<Permissions>,
    pub(crate) limits: broker::Limits,
    pub(crate) response_information: Option<String>,
    pub(crate) system: broker::System,
    pub(crate) strategy: broker::Strategy,
    pub(crate) shards: usize,
    /// Handshakes in progress, in all.
    pub(crate) handshakes_max: usize,
    /// For its connections.
    pub(crate) places: Places,
    pub(crate) internal: Internal,
    pub(crate) rules: TopicRules,
}

/// The running threads.
pub(crate) struct Mqtt {
    pub(crate) common: Arc<Common>,
    pub(crate) shared: Arc<broker::Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Mqtt {
    /// Restores the broker and starts its threads, each with what it needs; no door is open yet.
    pub(crate) fn start(setup: Setup) -> anyhow::Result<Self> {
        let Setup {
            log,
            flows,
            permissions,
            limits,
            response_information,
            system,
            strategy,
            shards,
            handshakes_max,
            places,
            internal,
            rules,
        } = setup;
        let thread_limits = shard::Limits {
            handshakes_max: (handshakes_max / shards.max(1)).max(1),
        };
        let shared = Arc::new(broker::Shared::new(broker::Config {
            shards,
            limits,
            routes: Box::new(crate::flows::RouteQuestion(Arc::clone(&flows))),
            policy: Box::new(PermissionQuestion(permissions)),
            strategy,
            response_information: response_information.and_then(|text| text.try_into().ok()),
            methods: Default::default(),
            system,
            seed: uuid::Uuid::new_v4().as_u64_pair().0,
        }));
        let timeline = Arc::new(Timeline::new());
        let restored = restore::restore(&log, &shared, internal.owed, timeline.now())?;
        let inboxes: Arc<[Inbox<Mail>]> = (0..shards).map(|_| Inbox::new()).collect();
        for (inputs, inbox) in restored.into_iter().zip(inboxes.iter()) {
            inbox.put(inputs.into_iter().map(Mail::Input));
        }
        let injections = Arc::new(Injections::default());
        let committer = Arc::new(Committer::new(
            log.clone(),
            Arc::clone(&shared),
            Arc::clone(&inboxes),
            flows,
            Arc::clone(&injections),
            rules,
            internal,
        ));
        let (loader, _loading) =
            Loader::start(log.clone(), Arc::clone(&inboxes), Arc::clone(&timeline))?;
        let counters = Arc::new(Counters {
            places,
            panics: AtomicU64::new(0),
            handshakes_failed: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            broker: Mutex::new(vec![broker::Counts::default(); shards]),
        });
        let retirements = Arc::new(Retirements::start(log, Arc::clone(&inboxes), internal)?);
        let common = Arc::new(Common {
            timeline,
            inboxes,
            committer,
            loader,
            injections,
            retirements,
            counters,
            limits: thread_limits,
        });
        let mut threads = Vec::new();
        let (built, outcomes) = sync_channel(shards);
        for index in 0..shards {
            let core = broker::Shard::new(Arc::clone(&shared), index);
            let common = Arc::clone(&common);
            let built = built.clone();
            let run = move || ShardThread::run(index, core, common, &built);
            let thread = failure::thread(&format!("mqtt-{index}"), run);
            threads.push(thread.context("cannot start a thread for MQTT")?);
        }
        // Each says so once; what ends otherwise ends the process.
        for outcome in outcomes.into_iter().take(shards) {
            outcome
                .with_context(|| format!("cannot start {shards} threads for MQTT (mqtt.shards)"))?;
        }
        Ok(Self {
            common,
            shared,
            threads,
        })
    }

    /// Says goodbye to every Client; returns once all are gone and all is committed.
    pub(crate) fn stop(self) {
        for inbox in self.common.inboxes.iter() {
            inbox.put([Mail::Stop]);
        }
        for thread in self.threads {
            // One that ends in a panic ends the process.
            thread.join().ok();
        }
    }
}
