//! The process's limit of open files, and who may have how many of them.
//!
//! For: the log's share, and places for connections. Each of the protocols has a few of its own; what
//! is left is one pool that whoever needs it takes, first come, first served.
//! Called by: `serve`; every door that accepts, before it keeps a connection.
//! Holds: clients, however many connect, leave the log the files that it needs to go on, and no
//! protocol's clients shut another's out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::Notify;
use tracing::warn;

use crate::config::Config;

/// Part of the limit that the log takes, within bounds: it opens and closes files as it needs them.
const LOG_SHARE: u64 = 32;
const LOG_MIN: u64 = 64;
const LOG_MAX: u64 = 4_096;
/// For everything that is neither a partition's file nor a connection: the write-ahead file, the document
/// store, listeners, the runtimes.
const HOUSE: u64 = 64;
/// And for each shard, whose runtime watches its sockets and wakes itself by files.
const HOUSE_A_SHARD: u64 = 4;
/// Part of the limit that is kept for Kafka clients, and half as much for HTTP.
const KAFKA_SHARE: u64 = 128;
const OTHERS_MIN: u64 = 16;

/// Who asks for connections.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Protocol {
    Mqtt,
    Kafka,
    Http,
}

impl Protocol {
    const COUNT: usize = 3;

    fn shift(self) -> u32 {
        COUNT_BITS * self as u32
    }
}

/// All protocols' counts are one number, so that a place is taken of all or of none.
const COUNT_BITS: u32 = 21;
const COUNT_MAX: u64 = (1 << COUNT_BITS) - 1;

/// The places of all connections.
#[derive(Debug)]
struct All {
    /// Connections, by protocol.
    held: AtomicU64,
    /// Descriptors for connections.
    size: u64,
    /// Kept for that protocol, used or not; together no more than `size`.
    kept: [u64; Protocol::COUNT],
    /// What the configuration allows.
    most: [u64; Protocol::COUNT],
    /// A place was given back.
    given_back: Notify,
}

/// The places that one protocol's connections take; a clone takes the same ones.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    all: Arc<All>,
    protocol: Protocol,
}

impl Places {
    /// Takes a place, to be given back. False: there is none, now.
    pub(crate) fn take(&self) -> bool {
        let one = 1 << self.protocol.shift();
        let more = |held| self.all.has_room(held, self.protocol).then(|| held + one);
        let held = &self.all.held;
        held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .is_ok()
    }

    /// Gives back a place that was taken.
    pub(crate) fn give_back(&self) {
        let one = 1 << self.protocol.shift();
        self.all.held.fetch_sub(one, Ordering::Relaxed);
        self.all.given_back.notify_one();
    }

    /// Until somebody has given back a place since the last time this was asked; it may be taken
    /// again by then. For one door alone, which has not found a place: the others close at once.
    pub(crate) async fn given_back(&self) {
        self.all.given_back.notified().await;
    }

    /// Places that there are when nobody else asks for more than is kept for it.
    pub(crate) fn most(&self) -> usize {
        let own = self.protocol as usize;
        let kept = self.all.kept.iter().enumerate();
        let kept: u64 = kept
            .filter(|(index, _)| *index != own)
            .map(|(_, kept)| kept)
            .sum();
        let most = self.all.most.get(own).copied().unwrap_or(0).min(COUNT_MAX);
        usize::try_from(self.all.size.saturating_sub(kept).min(most)).unwrap_or(usize::MAX)
    }

    /// Connections that have a place.
    pub(crate) fn held(&self) -> u64 {
        count(
            self.all.held.load(Ordering::Relaxed),
            self.protocol as usize,
        )
    }
}

fn count(held: u64, protocol: usize) -> u64 {
    (0..protocol).fold(held, |held, _| held >> COUNT_BITS) & COUNT_MAX
}

impl All {
    fn has_room(&self, held: u64, protocol: Protocol) -> bool {
        let mut needed = 0;
        for (index, (kept, most)) in self.kept.iter().zip(self.most).enumerate() {
            let mut wanted = count(held, index);
            if index == protocol as usize {
                if wanted >= most.min(COUNT_MAX) {
                    return false;
                }
                wanted += 1;
            }
            needed += wanted.max(*kept);
        }
        needed <= self.size
    }
}

/// What the limit that holds now comes to.
#[derive(Debug)]
pub(crate) struct Shares {
    /// Files of partitions.
    pub(crate) log: usize,
    all: Arc<All>,
}

impl Shares {
    /// Of the limit that holds now.
    pub(crate) fn now(config: &Config) -> Self {
        Self::of(limit(), config)
    }

    fn of(limit: u64, config: &Config) -> Self {
        let log = config.log.open_files_max;
        let log = log.map_or_else(|| (limit / LOG_SHARE).clamp(LOG_MIN, LOG_MAX), u64::from);
        let shards = super::shards(config) as u64;
        let size = limit.saturating_sub(log + HOUSE + shards.saturating_mul(HOUSE_A_SHARD));
        let others = |share: u64| (limit / share).clamp(OTHERS_MIN, COUNT_MAX).min(size / 4);
        let most = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let all = All {
            held: AtomicU64::new(0),
            size,
            kept: [size / 4, others(KAFKA_SHARE), others(KAFKA_SHARE * 2)],
            most: [
                most(config.mqtt.connections_max),
                most(config.kafka.connections_max),
                u64::MAX,
            ],
            given_back: Notify::new(),
        };
        Self {
            log: usize::try_from(log).unwrap_or(usize::MAX),
            all: Arc::new(all),
        }
    }

    pub(crate) fn places(&self, protocol: Protocol) -> Places {
        Places {
            all: Arc::clone(&self.all),
            protocol,
        }
    }
}

/// Raises the soft limit to the hard one, and gives what holds then.
pub(super) fn raise() -> u64 {
    let found = getrlimit(Resource::Nofile);
    let wanted = Rlimit {
        current: found.maximum,
        maximum: found.maximum,
    };
    if found.current != found.maximum
        && let Err(error) = setrlimit(Resource::Nofile, wanted)
    {
        warn!(%error, "the limit of open files could not be raised");
    }
    limit()
}

/// `None` is no limit.
fn limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let hard = getrlimit(Resource::Nofile).maximum;
        let low = Rlimit {
            current: hard.map(|hard| hard - 1),
            maximum: hard,
        };
        setrlimit(Resource::Nofile, low).unwrap();
        assert_eq!(raise(), hard.unwrap_or(u64::MAX));
        assert_eq!(getrlimit(Resource::Nofile).current, hard);
    }

    fn shares(limit: u64) -> Shares {
        let mut config = Config::default();
        config.mqtt.shards = 2;
        Shares::of(limit, &config)
    }

    /// How many more it gets, up to `wanted`.
    fn taken(places: &Places, wanted: u64) -> u64 {
        (0..wanted).take_while(|_| places.take()).count() as u64
    }

    #[test]
    fn who_comes_alone_takes_what_others_do_not_keep() {
        for (limit, log, mqtt, kafka, http) in [
            (100, 64, 0, 0, 0),
            (256, 64, 88, 74, 74),
            (1_024, 64, 856, 650, 650),
            (20_000, 625, 19_069, 10_000, 14_322),
        ] {
            let alone = |protocol| taken(&shares(limit).places(protocol), limit);
            assert_eq!(shares(limit).log, log, "{limit}");
            assert_eq!(alone(Protocol::Mqtt), mqtt, "{limit}");
            let most = shares(limit).places(Protocol::Mqtt).most();
            assert_eq!(most as u64, mqtt, "{limit}");
            assert_eq!(alone(Protocol::Kafka), kafka, "{limit}");
            assert_eq!(alone(Protocol::Http), http, "{limit}");
        }
        assert_eq!(shares(u64::MAX).log, 4_096);
        let endless = shares(u64::MAX).places(Protocol::Mqtt);
        assert_eq!(taken(&endless, 2_000_000), 1_000_000, "connections_max");
    }

    #[test]
    fn each_gets_what_is_kept_for_it_whoever_came_first() {
        use Protocol::{Http, Kafka, Mqtt};
        for (first, then) in [
            (Mqtt, [(Kafka, 156), (Http, 78)]),
            (Kafka, [(Mqtt, 9_225), (Http, 78)]),
            (Http, [(Mqtt, 4_825), (Kafka, 156)]),
        ] {
            let shares = shares(20_000);
            taken(&shares.places(first), 20_000);
            for (late, least) in then {
                let got = taken(&shares.places(late), 20_000);
                assert_eq!(got, least, "{late:?} behind {first:?}");
            }
        }
    }

    #[test]
    fn place_that_is_given_back_is_anybodys() {
        let shares = shares(1_024);
        let (mqtt, kafka) = (
            shares.places(Protocol::Mqtt),
            shares.places(Protocol::Kafka),
        );
        let all = taken(&mqtt, 1_024);
        assert_eq!(taken(&kafka, 1_024), 16);
        mqtt.give_back();
        assert!(kafka.take() && !mqtt.take(), "one place, one taker");
        for _ in 0..17 {
            kafka.give_back();
        }
        assert_eq!((mqtt.held(), kafka.held()), (all - 1, 0));
        assert_eq!(taken(&mqtt, 1_024), 1, "the rest is kept");
    }

    #[test]
    fn places_add_up_however_many_take_and_give_at_once() {
        let shares = shares(300);
        std::thread::scope(|scope| {
            for protocol in [Protocol::Mqtt, Protocol::Kafka, Protocol::Http] {
                let places = shares.places(protocol);
                scope.spawn(move || {
                    for _ in 0..500 {
                        (0..taken(&places, 300)).for_each(|_| places.give_back());
                    }
                });
            }
        });
        assert_eq!(shares.all.held.load(Ordering::Relaxed), 0);
    }
}
