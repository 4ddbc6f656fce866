//! The time that shards are told, and where a time in the log lies on it.
//!
//! For: intervals and expiry by the monotonic clock, timestamps by the system's, and what leads from
//!   one to the other.
//! Not for: deciding what has expired (`mqtt-broker`), how long records stay (`serve::housekeeping`).
//! Holds: a jump of the system's clock ends nothing early while this process runs. The time for
//!   which the machine sleeps does not count either: nobody could come for a message then. Over a
//!   restart the system's clock is all there is: what it says has passed has passed.

use std::cell::Cell;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use headwater_mqtt_broker::Now;

/// The system's clock is asked again after this; in between it advances with the monotonic one.
const WALL_VALID_MS: u64 = 200;
/// A difference from the monotonic clock that is a jump. A slewed clock takes both along.
const JUMP_MS: i64 = 500;
/// Jumps that are remembered; a record from before them counts as if it came in between.
const JUMPS_MAX: usize = 64;

/// The two clocks.
pub(crate) trait Source: Send + Sync {
    /// Milliseconds since the start of the process; never goes back.
    fn mono_ms(&self) -> u64;
    /// Milliseconds since 1970.
    fn wall_ms(&self) -> i64;
}

struct System {
    start: Instant,
}

impl Source for System {
    fn mono_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn wall_ms(&self) -> i64 {
        wall_ms()
    }
}

/// What the system's clock showed when, for all threads.
pub(crate) struct Timeline {
    source: Box<dyn Source>,
    /// Ascending; in each the two clocks ran together.
    stretches: RwLock<Vec<Stretch>>,
}

#[derive(Clone, Copy)]
struct Stretch {
    /// Monotonic.
    from_ms: i64,
    /// The system's clock minus the monotonic one.
    ahead_ms: i64,
}

impl Timeline {
    /// Begins now, with the system's clocks.
    pub(crate) fn new() -> Self {
        let start = Instant::now();
        Self::of(Box::new(System { start }))
    }

    fn of(source: Box<dyn Source>) -> Self {
        let first = Stretch {
            from_ms: i64::MIN,
            ahead_ms: ahead(source.mono_ms(), source.wall_ms()),
        };
        Self {
            source,
            stretches: RwLock::new(vec![first]),
        }
    }

    /// Both clocks, read now.
    pub(crate) fn now(&self) -> Now {
        let now = Now {
            mono_ms: self.source.mono_ms(),
            wall_ms: self.source.wall_ms(),
        };
        let ahead_ms = ahead(now.mono_ms, now.wall_ms);
        let is_known = {
            let stretches = (self.stretches.read()).unwrap_or_else(PoisonError::into_inner);
            stretches.last().is_some_and(|last| last.is_near(ahead_ms))
        };
        if !is_known {
            self.jumped(now.mono_ms, ahead_ms);
        }
        now
    }

    fn jumped(&self, mono_ms: u64, ahead_ms: i64) {
        let mut stretches = (self.stretches.write()).unwrap_or_else(PoisonError::into_inner);
        // Another thread may have seen it meanwhile.
        if stretches.last().is_some_and(|last| last.is_near(ahead_ms)) {
            return;
        }
        tracing::info!("the system's clock was set; what expires goes by the time that passes");
        if stretches.len() > JUMPS_MAX {
            stretches.remove(1);
        }
        let from_ms = i64::try_from(mono_ms).unwrap_or(i64::MAX);
        stretches.push(Stretch { from_ms, ahead_ms });
    }

    /// How long ago the system's clock showed `wall_ms`: the last time, if it was set back; since it
    /// passed over it, if it was set forward; 0 where it never did.
    pub(crate) fn age_ms(&self, now: Now, wall_ms: i64) -> u64 {
        let mono_ms = i64::try_from(now.mono_ms).unwrap_or(i64::MAX);
        let stretches = (self.stretches.read()).unwrap_or_else(PoisonError::into_inner);
        let (mut until_ms, mut passed_over) = (mono_ms, None);
        for stretch in stretches.iter().rev() {
            let at_ms = wall_ms.saturating_sub(stretch.ahead_ms);
            if (stretch.from_ms..=until_ms).contains(&at_ms) {
                return mono_ms.abs_diff(at_ms);
            }
            if at_ms > until_ms {
                passed_over.get_or_insert(until_ms);
            }
            until_ms = stretch.from_ms;
        }
        mono_ms.abs_diff(passed_over.unwrap_or(mono_ms))
    }
}

impl Stretch {
    fn is_near(self, ahead_ms: i64) -> bool {
        self.ahead_ms.abs_diff(ahead_ms) < JUMP_MS.unsigned_abs()
    }
}

fn ahead(mono_ms: u64, wall_ms: i64) -> i64 {
    wall_ms.saturating_sub(i64::try_from(mono_ms).unwrap_or(i64::MAX))
}

/// A clock of one thread.
pub(crate) struct Clock {
    timeline: Arc<Timeline>,
    /// Zero of `Now::mono_ms`, for timers.
    start: Instant,
    read: Cell<Now>,
}

impl Clock {
    pub(crate) fn new(timeline: Arc<Timeline>) -> Self {
        let now = timeline.now();
        Self {
            start: Instant::now() - Duration::from_millis(now.mono_ms),
            read: Cell::new(now),
            timeline,
        }
    }

    pub(crate) fn now(&self) -> Now {
        let read = self.read.get();
        let mono_ms = self.timeline.source.mono_ms();
        let since_ms = mono_ms.saturating_sub(read.mono_ms);
        if since_ms >= WALL_VALID_MS {
            let now = self.timeline.now();
            self.read.set(now);
            return now;
        }
        let since_ms = i64::try_from(since_ms).unwrap_or(i64::MAX);
        Now {
            mono_ms,
            wall_ms: read.wall_ms.saturating_add(since_ms),
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

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;

    /// Clocks that stand still until they are told to move.
    #[derive(Clone, Default)]
    pub(crate) struct Told(Arc<(AtomicI64, AtomicI64)>);

    impl Told {
        pub(crate) fn pass(&self, ms: i64) {
            self.0.0.fetch_add(ms, Ordering::Relaxed);
            self.jump(ms);
        }

        pub(crate) fn jump(&self, ms: i64) {
            self.0.1.fetch_add(ms, Ordering::Relaxed);
        }

        pub(crate) fn timeline(&self) -> Arc<Timeline> {
            Arc::new(Timeline::of(Box::new(self.clone())))
        }
    }

    impl Source for Told {
        fn mono_ms(&self) -> u64 {
            u64::try_from(self.0.0.load(Ordering::Relaxed)).unwrap()
        }

        fn wall_ms(&self) -> i64 {
            self.0.1.load(Ordering::Relaxed)
        }
    }

    const HOUR_MS: i64 = 3_600_000;

    #[test]
    fn intervals_do_not_see_a_jump_and_timestamps_do() {
        let told = Told::default();
        told.jump(1_000 * HOUR_MS);
        let clock = Clock::new(told.timeline());
        told.pass(100);
        assert_eq!(clock.now().wall_ms, 1_000 * HOUR_MS + 100);
        told.jump(HOUR_MS);
        told.pass(200);
        let now = clock.now();
        assert_eq!((now.mono_ms, now.wall_ms), (300, 1_001 * HOUR_MS + 300));
        told.jump(-2 * HOUR_MS);
        told.pass(200);
        let now = clock.now();
        assert_eq!((now.mono_ms, now.wall_ms), (500, 999 * HOUR_MS + 500));
    }

    #[test]
    fn age_is_the_time_that_has_passed_whatever_the_clock_was_set_to() {
        let told = Told::default();
        told.jump(1_000 * HOUR_MS);
        let timeline = told.timeline();
        let before_start = told.wall_ms() - 5_000;
        told.pass(10_000);
        let written = told.wall_ms();
        told.pass(10_000);
        let age = |timeline: &Timeline, wall_ms| timeline.age_ms(timeline.now(), wall_ms);
        assert_eq!(age(&timeline, written), 10_000);
        for jump_ms in [HOUR_MS, HOUR_MS, -5 * HOUR_MS, 10 * HOUR_MS] {
            told.jump(jump_ms);
            assert_eq!(age(&timeline, told.wall_ms()), 0, "written now");
            told.pass(1_000);
            let now = told.wall_ms();
            assert_eq!(age(&timeline, now - 1_000), 1_000, "since the jump");
            assert_eq!(
                age(&timeline, now + 100 * HOUR_MS),
                0,
                "the future came now"
            );
        }
        assert_eq!(age(&timeline, written), 14_000);
        assert_eq!(age(&timeline, before_start), 29_000);
        assert_eq!(
            age(&timeline, told.wall_ms() - HOUR_MS),
            1_000,
            "an hour that never was: the jump itself"
        );
    }

    #[test]
    fn jumps_are_remembered_up_to_a_bound() {
        let told = Told::default();
        let timeline = told.timeline();
        for _ in 0..1_000 {
            told.jump(HOUR_MS);
            told.pass(1);
            timeline.now();
        }
        assert_eq!(timeline.stretches.read().unwrap().len(), JUMPS_MAX + 1);
        assert_eq!(
            timeline.age_ms(timeline.now(), 0),
            1_000,
            "the start is kept"
        );
    }
}
