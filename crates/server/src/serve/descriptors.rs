//! The process's limit of open files, and who gets how many of them.
//!
//! Holds: clients, however many connect, leave the log the files that it needs to go on.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

/// Part of the limit that the log takes, within bounds.
const LOG_SHARE: u64 = 8;
const LOG_MIN: u64 = 64;
const LOG_MAX: u64 = 4_096;
/// For everything that is neither a partition's file nor a connection: the write-ahead file, the document
/// store, listeners, the runtimes.
const HOUSE: u64 = 64;

/// What each may have open.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Shares {
    /// Files of partitions, where the configuration says nothing.
    pub(crate) log: usize,
    /// Most connections of a door, where the configuration allows more.
    pub(crate) mqtt: usize,
    pub(crate) kafka: usize,
    pub(crate) http: usize,
}

impl Shares {
    /// Of the limit that holds now.
    pub(crate) fn now(log: Option<u32>) -> Self {
        Self::of(limit(), log)
    }

    fn of(limit: u64, log: Option<u32>) -> Self {
        let log = log.map_or_else(|| (limit / LOG_SHARE).clamp(LOG_MIN, LOG_MAX), u64::from);
        let eighth = limit.saturating_sub(log + HOUSE) / 8;
        let size = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
        Self {
            log: size(log),
            mqtt: size(eighth.saturating_mul(5)),
            kafka: size(eighth.saturating_mul(2)),
            http: size(eighth),
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

    #[test]
    fn connections_share_what_the_log_and_the_house_leave() {
        let of = |limit, log| {
            let shares = Shares::of(limit, log);
            (shares.log, shares.mqtt, shares.kafka, shares.http)
        };
        assert_eq!(of(1_024, None), (128, 520, 208, 104));
        assert_eq!(of(20_000, None), (2_500, 10_895, 4_358, 2_179));
        assert_eq!(of(20_000, Some(100)).0, 100);
        assert_eq!(of(100, None), (64, 0, 0, 0));
        assert_eq!(of(u64::MAX, None).0, 4_096);
    }
}
