//! What all shards of a process share, each part behind a short lock of its own.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use headwater_mqtt_codec::Text;

use crate::directory::Directory;
use crate::groups::{Groups, Strategy};
use crate::retained::Retained;
use crate::session::held::Held;
use crate::system::{System, is_system};
use crate::tree::SubscriptionTree;
use crate::{AllowAll, AuthenticationMethod, Limits, NoRoutes, Policy, Routes};

/// What a broker is made of.
pub struct Config {
    pub shards: usize,
    pub limits: Limits,
    pub routes: Box<dyn Routes>,
    pub policy: Box<dyn Policy>,
    /// Response Information for Clients that ask for it (MQTT 5.0, 3.2.2.3.15).
    pub response_information: Option<Text>,
    /// Methods of enhanced authentication, by name. A CONNECT that names one is judged by it alone,
    /// not by [`Policy::connect`].
    pub methods: BTreeMap<Box<str>, Box<dyn AuthenticationMethod>>,
    /// What the broker says of itself.
    pub system: System,
    /// Which member of a Shared Subscription gets a message.
    pub strategy: Strategy,
    /// Random, new at each start: part of the client ids the broker assigns.
    pub seed: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            shards: 1,
            limits: Limits::default(),
            routes: Box::new(NoRoutes),
            policy: Box::new(AllowAll),
            response_information: None,
            methods: BTreeMap::new(),
            system: System::default(),
            strategy: Strategy::default(),
            seed: 0,
        }
    }
}

/// One a process, in an `Arc`.
pub struct Shared {
    pub(crate) shards: usize,
    pub(crate) limits: Limits,
    pub(crate) routes: Box<dyn Routes>,
    pub(crate) policy: Box<dyn Policy>,
    pub(crate) response_information: Option<Text>,
    pub(crate) methods: BTreeMap<Box<str>, Box<dyn AuthenticationMethod>>,
    pub(crate) strategy: Strategy,
    pub(crate) tree: SubscriptionTree,
    pub(crate) groups: Groups,
    pub(crate) held: Held,
    pub(crate) retained: Retained,
    /// What stands below `$SYS`: in memory alone.
    pub(crate) standing: Retained,
    pub(crate) system: System,
    pub(crate) directory: Directory,
    /// The next session number.
    numbers: AtomicU64,
    persistent: AtomicU64,
    seed: u64,
    assigned: AtomicU64,
}

impl Shared {
    pub fn new(config: Config) -> Self {
        Self {
            shards: config.shards,
            retained: Retained::new(&config.limits),
            standing: Retained::new(&config.limits),
            held: Held::new(&config.limits),
            system: config.system,
            limits: config.limits,
            routes: config.routes,
            policy: config.policy,
            response_information: config.response_information,
            methods: config.methods,
            strategy: config.strategy,
            tree: SubscriptionTree::new(),
            groups: Groups::default(),
            directory: Directory::new(),
            numbers: AtomicU64::new(1),
            persistent: AtomicU64::new(0),
            seed: config.seed,
            assigned: AtomicU64::new(0),
        }
    }

    /// Retained Messages in number and bytes.
    pub fn retained_size(&self) -> (usize, usize) {
        self.retained.size()
    }

    /// Where what stands for a new subscription is found.
    pub(crate) fn retained_for(&self, filter: &str) -> &Retained {
        if is_system(filter) {
            &self.standing
        } else {
            &self.retained
        }
    }

    /// Sessions that outlive their connection.
    pub fn persistent_sessions(&self) -> u64 {
        self.persistent.load(Ordering::Relaxed)
    }

    pub(crate) fn count_persistent(&self, now: bool) {
        if now {
            self.persistent.fetch_add(1, Ordering::Relaxed);
        } else {
            self.persistent.fetch_sub(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn next_number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// No number below `number` is given out from here on.
    pub(crate) fn number_used(&self, number: u64) {
        self.numbers
            .fetch_max(number.saturating_add(1), Ordering::Relaxed);
    }

    /// A client id that nobody else has [MQTT-3.1.3-6], [MQTT-3.2.2-16]: who was given one can guess
    /// the next, and name its own Session so.
    pub(crate) fn assign_client_id(&self) -> String {
        loop {
            let count = self.assigned.fetch_add(1, Ordering::Relaxed);
            let id = format!("headwater-{:016x}{count:08x}", self.seed);
            if !self.directory.is_held(&id) {
                return id;
            }
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Shared")
            .field("shards", &self.shards)
            .finish_non_exhaustive()
    }
}
