//! The process's limit of open files.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

/// Part of the limit that the log takes; connections need the most.
const LOG_SHARE: u64 = 8;
const LOG_MIN: u64 = 64;
const LOG_MAX: u64 = 4_096;

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

/// Files of partitions that the log may have open where the configuration says nothing.
pub(super) fn for_log() -> usize {
    usize::try_from(share(limit())).unwrap_or(usize::MAX)
}

fn share(limit: u64) -> u64 {
    (limit / LOG_SHARE).clamp(LOG_MIN, LOG_MAX)
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
    fn the_log_takes_an_eighth_within_bounds() {
        for (limit, expected) in [(0, 64), (1_024, 128), (20_000, 2_500), (u64::MAX, 4_096)] {
            assert_eq!(share(limit), expected, "{limit}");
        }
    }
}
