//! So many of something a second, and some of them at once.
//!
//! For: a bucket of tokens, and [`Paces`], what one connection may send.
//! Not for: what waits meanwhile, see `pressure`.
//! Holds: over any time no more than the rate and one burst, but for the last thing that was taken.

use crate::limits::{ClientLimits, Rate};

/// A bucket of tokens that fills with time.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    per_second: i64,
    burst: i64,
    /// Thousandths of a token; below zero is what was taken ahead of time.
    left: i64,
    at_ms: u64,
}

const TOKEN: i64 = 1_000;
/// Beyond this a rate is as good as none.
const MOST: u64 = 1 << 40;

fn tokens(count: u64) -> i64 {
    i64::try_from(count.min(MOST)).unwrap_or(i64::MAX)
}

impl Pace {
    /// Full. A rate of 0 fills it never.
    pub fn new(rate: Rate) -> Self {
        let burst = if rate.burst == 0 {
            rate.per_second
        } else {
            rate.burst
        };
        let burst = tokens(burst) * TOKEN;
        Self {
            per_second: tokens(rate.per_second),
            burst,
            left: burst,
            at_ms: 0,
        }
    }

    fn fill(&mut self, now_ms: u64) {
        let passed = i64::try_from(now_ms.saturating_sub(self.at_ms)).unwrap_or(i64::MAX);
        // A token a second is a thousandth of one in a millisecond.
        let more = passed.saturating_mul(self.per_second);
        self.left = self.left.saturating_add(more).min(self.burst);
        self.at_ms = self.at_ms.max(now_ms);
    }

    /// Takes so many, there or not.
    pub fn take(&mut self, now_ms: u64, count: u64) {
        self.fill(now_ms);
        self.left = self.left.saturating_sub(tokens(count) * TOKEN);
    }

    /// Milliseconds until so many are there.
    pub fn wait_ms(&mut self, now_ms: u64, count: u64) -> u64 {
        self.fill(now_ms);
        let lacks = (tokens(count) * TOKEN).saturating_sub(self.left);
        // Rounded up: then it is there.
        let wait = lacks.saturating_add(self.per_second - 1) / self.per_second.max(1);
        u64::try_from(wait).unwrap_or(0)
    }

    /// Milliseconds until there are some, if there is not one: as many as come in a twentieth of a
    /// second, so that who waits is woken no oftener than that.
    pub(crate) fn wait_for_some_ms(&mut self, now_ms: u64) -> u64 {
        if self.wait_ms(now_ms, 1) == 0 {
            return 0;
        }
        let some = self.per_second.div_euclid(20).min(self.burst / TOKEN);
        self.wait_ms(now_ms, u64::try_from(some).unwrap_or(1).max(1))
    }

    /// Takes one, if there is one.
    pub(crate) fn take_one(&mut self, now_ms: u64) -> bool {
        self.fill(now_ms);
        let has_one = self.left >= TOKEN;
        if has_one {
            self.left -= TOKEN;
        }
        has_one
    }
}

/// What one connection may send.
#[derive(Debug)]
pub(crate) struct Paces {
    messages: Option<Pace>,
    bytes: Option<Pace>,
    /// It is ahead of them until then: what it has sent waits.
    pub(crate) until_ms: Option<u64>,
}

impl Paces {
    /// `None` without any limit.
    pub(crate) fn new(limits: &ClientLimits) -> Option<Box<Self>> {
        let pace = |rate: Rate| (rate.per_second > 0).then(|| Pace::new(rate));
        let (messages, bytes) = (pace(limits.messages), pace(limits.bytes));
        let has_any = messages.is_some() || bytes.is_some();
        has_any.then(|| {
            Box::new(Self {
                messages,
                bytes,
                until_ms: None,
            })
        })
    }

    pub(crate) fn message(&mut self, now_ms: u64) {
        if let Some(messages) = &mut self.messages {
            messages.take(now_ms, 1);
        }
    }

    pub(crate) fn bytes(&mut self, now_ms: u64, count: usize) {
        if let Some(bytes) = &mut self.bytes {
            bytes.take(now_ms, count as u64);
        }
    }

    /// When its next packet may be taken, if not now.
    pub(crate) fn ahead_until(&mut self, now_ms: u64) -> Option<u64> {
        // Bytes are paid for when they come, a message when it is taken.
        let messages = (self.messages.as_mut()).map(|one| one.wait_for_some_ms(now_ms));
        let bytes = self.bytes.as_mut().map(|one| one.wait_ms(now_ms, 0));
        let wait = messages.max(bytes).filter(|wait| *wait > 0)?;
        Some(now_ms + wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(per_second: u64, burst: u64) -> Pace {
        Pace::new(Rate { per_second, burst })
    }

    #[test]
    fn a_burst_and_then_time_decides() {
        let mut pace = pace(10, 0);
        let taken = |pace: &mut Pace, now_ms| (0..100).filter(|_| pace.take_one(now_ms)).count();
        assert_eq!(taken(&mut pace, 5), 10);
        assert_eq!(taken(&mut pace, 104), 0);
        assert_eq!(taken(&mut pace, 105), 1);
        assert_eq!(taken(&mut pace, 505), 4);
        assert_eq!(taken(&mut pace, 1 << 60), 10);
        assert_eq!(taken(&mut pace, 0), 0, "time never goes back");
        assert_eq!(taken(&mut self::pace(0, 0), 1 << 60), 0);
    }

    #[test]
    fn what_was_taken_ahead_of_time_is_waited_for() {
        let mut pace = pace(1_000, 50);
        pace.take(0, 50);
        assert_eq!((pace.wait_ms(0, 0), pace.wait_ms(0, 1)), (0, 1));
        pace.take(0, 100);
        assert_eq!((pace.wait_ms(0, 0), pace.wait_ms(40, 1)), (100, 61));
        assert_eq!(pace.wait_ms(10_000, 50), 0);
        assert_eq!(pace.wait_ms(10_000, 51), 1, "no more than the burst");
        let mut slow = self::pace(3, 1);
        slow.take(0, 1);
        assert_eq!(
            (
                slow.wait_ms(0, 1),
                slow.wait_ms(333, 1),
                slow.wait_ms(334, 1)
            ),
            (334, 1, 0)
        );
        let mut endless = self::pace(u64::MAX, u64::MAX);
        endless.take(0, u64::MAX);
        assert_eq!(endless.wait_ms(u64::MAX, 1), 0);
    }
}
