//! The time that a shard is told: monotonic for every interval, wall clock for what people read.

use std::cell::Cell;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use headwater_mqtt_broker::Now;

/// The wall clock is asked again after this; in between it advances with the monotonic one.
const WALL_VALID: Duration = Duration::from_millis(200);

/// A clock of one thread.
pub(crate) struct Clock {
    start: Instant,
    wall: Cell<(Instant, i64)>,
}

impl Clock {
    /// A clock whose `mono_ms` counts from `start`.
    pub(crate) fn new(start: Instant) -> Self {
        Self {
            start,
            wall: Cell::new((Instant::now(), wall_ms())),
        }
    }

    pub(crate) fn now(&self) -> Now {
        let instant = Instant::now();
        let (mut at, mut wall) = self.wall.get();
        if instant - at >= WALL_VALID {
            (at, wall) = (instant, wall_ms());
            self.wall.set((at, wall));
        }
        let since = i64::try_from((instant - at).as_millis()).unwrap_or(i64::MAX);
        let mono_ms = u64::try_from((instant - self.start).as_millis()).unwrap_or(u64::MAX);
        Now {
            mono_ms,
            wall_ms: wall.saturating_add(since),
        }
    }

    /// The moment that the shard calls `mono_ms`.
    pub(crate) fn instant(&self, mono_ms: u64) -> tokio::time::Instant {
        (self.start + Duration::from_millis(mono_ms)).into()
    }
}

/// Milliseconds since 1970; 0 for a clock that is set before.
pub(crate) fn wall_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
