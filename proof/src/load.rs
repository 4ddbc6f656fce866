//! The load of a fault run: many Clients with different habits, each on a thread of its own.
//!
//! For: [`Load`], which starts them, tells them when to publish, to settle and to stop, and knows when nothing is left.
//! Not for: deciding whether what they saw is right; they only record it.
//! Calls: `publisher`, `subscriber`. Called by: `fault`, and `headwater-proof load`.

mod publisher;
mod subscriber;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::bail;
use headwater_mqtt_codec::{QoS, Version};

use crate::history::Recorder;

pub use publisher::{Habit, PublisherPlan};
pub use subscriber::{Presence, SubscriberPlan, read_retained};

/// All messages of a run lie below this level, and all subscribers of a load ask for all of it.
pub const TOPICS: &str = "proof/#";
const RETAINED_TOPICS: &str = "proof/retained/";

/// What the clients of a load shall do now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Phase {
    /// Publish; whoever is away stays away.
    Publish,
    /// No new messages: bring those in flight to their end.
    Settle,
    /// Also, everybody who was away comes and takes what is owed.
    Drain,
    Stop,
}

/// What all clients of a load share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) address: SocketAddr,
    pub(crate) run: String,
    pub(crate) recorder: Arc<Recorder>,
    phase: AtomicU8,
    /// Messages acknowledged so far, each once.
    pub(crate) acked: AtomicU64,
    /// When anything last arrived at a subscriber, in the recorder's time.
    pub(crate) last_arrival: AtomicU64,
    /// A thread met something it cannot record or encode: the run is no evidence.
    broken: AtomicBool,
}

impl Shared {
    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Publish,
            1 => Phase::Settle,
            2 => Phase::Drain,
            _ => Phase::Stop,
        }
    }
}

/// What one client tells the load.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    name: String,
    /// Publisher: messages without an end. Subscriber: distinct messages received.
    pub(crate) count: AtomicU64,
    pub(crate) connected: AtomicBool,
}

impl Progress {
    fn of(name: &str) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            ..Self::default()
        })
    }
}

/// Who takes part.
#[derive(Clone, Debug)]
pub struct Cast {
    pub publishers: Vec<PublisherPlan>,
    pub subscribers: Vec<SubscriberPlan>,
}

impl Cast {
    /// The standard cast: QoS 1 and 2, MQTT 3.1.1 and 5.0, steady, flapping and deaf publishers, two with
    /// Retained Messages; subscribers that are there, that come and go, and that are away until the end.
    pub fn standard(messages_per_second: u32) -> Self {
        let publisher = |name: &str, version, qos, habit| PublisherPlan {
            name: name.to_owned(),
            topic: format!("proof/{name}"),
            version,
            qos,
            retain: false,
            habit,
            messages_per_second,
            window: 40,
            pad_bytes: 64,
        };
        let retained = |plan: PublisherPlan| PublisherPlan {
            topic: format!("{RETAINED_TOPICS}{}", plan.name),
            retain: true,
            ..plan
        };
        let subscriber = |name: &str, version, qos, presence| SubscriberPlan {
            name: name.to_owned(),
            version,
            qos,
            presence,
        };
        use QoS::{AtLeastOnce, ExactlyOnce};
        use Version::{V5, V311};
        Self {
            publishers: vec![
                publisher("p1-v311", V311, AtLeastOnce, Habit::Steady),
                publisher("p1-v5", V5, AtLeastOnce, Habit::Steady),
                publisher("p2-v311", V311, ExactlyOnce, Habit::Steady),
                publisher("p2-v5", V5, ExactlyOnce, Habit::Steady),
                publisher("p2-flap", V5, ExactlyOnce, Habit::Flapping),
                publisher("p2-deaf", V311, ExactlyOnce, Habit::Deaf),
                publisher("p1-deaf", V5, AtLeastOnce, Habit::Deaf),
                retained(publisher("p1-ret", V5, AtLeastOnce, Habit::Steady)),
                retained(publisher("p2-ret", V311, ExactlyOnce, Habit::Steady)),
            ],
            subscribers: vec![
                subscriber("s2-on", V5, ExactlyOnce, Presence::Online),
                subscriber("s1-on", V311, AtLeastOnce, Presence::Online),
                subscriber("s2-flap", V311, ExactlyOnce, Presence::Flapping),
                subscriber("s1-off", V311, AtLeastOnce, Presence::Offline),
                subscriber("s2-off", V5, ExactlyOnce, Presence::Offline),
            ],
        }
    }

    /// A few of them, for a run that asks about one system call.
    pub fn small(messages_per_second: u32) -> Self {
        let mut cast = Self::standard(messages_per_second);
        cast.publishers
            .retain(|plan| ["p1-v311", "p2-v5", "p2-deaf", "p1-ret"].contains(&plan.name.as_str()));
        cast.subscribers
            .retain(|plan| ["s1-on", "s2-off"].contains(&plan.name.as_str()));
        cast
    }

    pub fn retained_topics(&self) -> Vec<String> {
        self.publishers
            .iter()
            .filter(|plan| plan.retain)
            .map(|plan| plan.topic.clone())
            .collect()
    }
}

/// Called again and again while a load waits: it looks after the program under test.
pub type Tend<'a> = &'a mut dyn FnMut() -> anyhow::Result<()>;

/// Running clients.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    publishers: Vec<Arc<Progress>>,
    subscribers: Vec<(Presence, Arc<Progress>)>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// Subscribes every subscriber of the cast, then starts the publishers. `tend` is called while it waits: a fault
    /// run starts its program again there.
    pub fn start(
        address: SocketAddr,
        run: &str,
        recorder: Arc<Recorder>,
        cast: &Cast,
        tend: Tend<'_>,
    ) -> anyhow::Result<Self> {
        let shared = Arc::new(Shared {
            address,
            run: run.to_owned(),
            recorder,
            phase: AtomicU8::new(Phase::Drain as u8),
            acked: AtomicU64::new(0),
            last_arrival: AtomicU64::new(0),
            broken: AtomicBool::new(false),
        });
        let mut load = Self {
            shared,
            publishers: Vec::new(),
            subscribers: Vec::new(),
            threads: Vec::new(),
        };
        for plan in &cast.subscribers {
            let progress = Progress::of(&plan.name);
            load.subscribers
                .push((plan.presence, Arc::clone(&progress)));
            let (plan, shared) = (plan.clone(), Arc::clone(&load.shared));
            load.spawn(move || subscriber::run(&plan, &shared, &progress));
        }
        let all_there = |load: &Self| {
            load.subscribers
                .iter()
                .all(|(_, one)| one.connected.load(Ordering::Acquire))
        };
        load.wait(
            Duration::from_secs(30),
            "the subscribers' first connections",
            tend,
            all_there,
        )?;
        load.set(Phase::Publish);
        for plan in &cast.publishers {
            let progress = Progress::of(&plan.name);
            load.publishers.push(Arc::clone(&progress));
            let (plan, shared) = (plan.clone(), Arc::clone(&load.shared));
            load.spawn(move || publisher::run(&plan, &shared, &progress));
        }
        Ok(load)
    }

    fn spawn(&mut self, body: impl FnOnce() -> anyhow::Result<()> + Send + 'static) {
        let shared = Arc::clone(&self.shared);
        self.threads.push(std::thread::spawn(move || {
            if let Err(error) = body() {
                eprintln!("headwater-proof: a client of the load broke: {error:#}");
                shared.broken.store(true, Ordering::Release);
            }
        }));
    }

    pub fn set(&self, phase: Phase) {
        self.shared.phase.store(phase as u8, Ordering::Release);
    }

    pub fn acked(&self) -> u64 {
        self.shared.acked.load(Ordering::Acquire)
    }

    /// Waits until `done` holds, or says what did not happen.
    fn wait(
        &self,
        at_most: Duration,
        what: &str,
        tend: Tend<'_>,
        done: impl Fn(&Self) -> bool,
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + at_most;
        while !done(self) {
            tend()?;
            if self.shared.broken.load(Ordering::Acquire) {
                bail!("a client of the load broke");
            }
            if Instant::now() > deadline {
                bail!(
                    "after {at_most:?} still waiting for {what}; {}",
                    self.state()
                );
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Until this many more messages are acknowledged.
    pub fn wait_for_acks(
        &self,
        more: u64,
        at_most: Duration,
        tend: Tend<'_>,
    ) -> anyhow::Result<()> {
        let target = self.acked() + more;
        self.wait(at_most, "acknowledgements", tend, |load| {
            load.acked() >= target
        })
    }

    /// Brings everything to rest: each message in flight to its end, then each session to what it is owed.
    /// Who is owed something that does not come is found by the judge, so that a loss ends as a verdict: this
    /// only gives up when nothing at all has arrived for a while.
    pub fn settle(&self, tend: Tend<'_>) -> anyhow::Result<()> {
        self.set(Phase::Settle);
        let settled = |load: &Self| {
            load.publishers
                .iter()
                .all(|one| one.count.load(Ordering::Acquire) == 0)
        };
        self.wait(
            Duration::from_secs(60),
            "every message in flight to be answered",
            tend,
            settled,
        )?;
        self.set(Phase::Drain);
        let begun = self.shared.recorder.now();
        let drained = |load: &Self| {
            let acked = load.acked();
            let here = load
                .subscribers
                .iter()
                .all(|(_, one)| one.connected.load(Ordering::Acquire));
            let all = load
                .subscribers
                .iter()
                .all(|(_, one)| one.count.load(Ordering::Acquire) >= acked);
            let since = load.shared.last_arrival.load(Ordering::Acquire).max(begun);
            let quiet_micros = load.shared.recorder.now().saturating_sub(since);
            // A moment of quiet even then: what would come twice must be given the time to come.
            here && quiet_micros > if all { 150_000 } else { 4_000_000 }
        };
        self.wait(
            Duration::from_secs(60),
            "the sessions to be drained",
            tend,
            drained,
        )
    }

    /// For a person who asks why it does not come to rest.
    fn state(&self) -> String {
        let in_flight = self
            .publishers
            .iter()
            .filter(|one| one.count.load(Ordering::Acquire) > 0);
        let away = self
            .subscribers
            .iter()
            .filter(|(_, one)| !one.connected.load(Ordering::Acquire));
        format!(
            "{} acknowledged, messages in flight at {:?}, not connected {:?}",
            self.acked(),
            in_flight.map(|one| &one.name).collect::<Vec<_>>(),
            away.map(|(_, one)| &one.name).collect::<Vec<_>>(),
        )
    }

    /// Ends all clients, each where it is.
    pub fn stop(mut self) -> anyhow::Result<()> {
        self.set(Phase::Stop);
        for thread in std::mem::take(&mut self.threads) {
            if thread.join().is_err() {
                bail!("a client of the load panicked");
            }
        }
        Ok(())
    }
}

impl Drop for Load {
    /// A trial that broke off leaves no clients behind to disturb the next one.
    fn drop(&mut self) {
        self.set(Phase::Stop);
        for thread in std::mem::take(&mut self.threads) {
            drop(thread.join());
        }
    }
}
