//! So many of something a second, and some of them at once.
//!
//! Holds: over any time no more than the rate and one burst.

/// A bucket of tokens that fills with time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    per_second: u64,
    /// Thousandths of a token; below zero is what was taken ahead of time.
    left: i64,
    at_ms: u64,
}

const TOKEN: i64 = 1_000;

impl Pace {
    /// So many a second; a second's worth at once. 0 is none at all.
    pub(crate) fn new(per_second: u64) -> Self {
        // Beyond this a rate is none.
        let per_second = per_second.min(1 << 40);
        let mut new = Self {
            per_second,
            left: 0,
            at_ms: 0,
        };
        new.left = new.burst();
        new
    }

    fn burst(&self) -> i64 {
        i64::try_from(self.per_second).unwrap_or(i64::MAX) * TOKEN
    }

    fn fill(&mut self, now_ms: u64) {
        let passed = now_ms.saturating_sub(self.at_ms).min(1 << 20);
        // A token a second is a thousandth of one in a millisecond.
        let more = i64::try_from(passed.saturating_mul(self.per_second)).unwrap_or(i64::MAX);
        self.left = self.left.saturating_add(more).min(self.burst());
        self.at_ms = self.at_ms.max(now_ms);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_a_second_of_the_rate_and_then_time_decides() {
        let mut pace = Pace::new(10);
        let taken = |pace: &mut Pace, now_ms| (0..100).filter(|_| pace.take_one(now_ms)).count();
        assert_eq!(taken(&mut pace, 5), 10);
        assert_eq!(taken(&mut pace, 104), 0);
        assert_eq!(taken(&mut pace, 105), 1);
        assert_eq!(taken(&mut pace, 505), 4);
        assert_eq!(taken(&mut pace, 1 << 60), 10);
        assert_eq!(taken(&mut pace, 0), 0, "time never goes back");
        assert_eq!(taken(&mut Pace::new(0), 1 << 60), 0);
    }
}
