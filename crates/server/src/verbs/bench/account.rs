//! What a run of `bench` counts: each message by its number, latencies, processor time.
//!
//! For: saying that nothing was lost, repeated or out of order, or how much was.
//! Not for: sockets. Called by: `client` for each message, `bench` for the figures.

use std::collections::VecDeque;
use std::fs;
use std::ops::Range;
use std::task::Waker;
use std::time::Duration;

use anyhow::Context;

/// At the front of each payload: when it was due, who sent it, its number there.
pub(super) const STAMP_BYTES: usize = 16;

/// Who sent a message, when, and its place among what that publisher sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Stamp {
    /// Nanoseconds since the run began.
    pub(super) due_ns: u64,
    pub(super) publisher: u32,
    pub(super) number: u32,
}

impl Stamp {
    pub(super) fn bytes(self) -> [u8; STAMP_BYTES] {
        let all = u128::from(self.due_ns) << 64
            | u128::from(self.publisher) << 32
            | u128::from(self.number);
        all.to_be_bytes()
    }

    /// `None` when the payload is not one of ours.
    #[expect(clippy::cast_possible_truncation, reason = "it takes the parts apart")]
    pub(super) fn read(payload: &[u8]) -> Option<Self> {
        let all = u128::from_be_bytes(*payload.first_chunk()?);
        Some(Self {
            due_ns: (all >> 64) as u64,
            publisher: (all >> 32) as u32,
            number: all as u32,
        })
    }
}

/// A publisher's messages on their way.
#[derive(Debug, Default)]
pub(super) struct Way {
    pub(super) sent: u64,
    /// At all its subscribers together.
    delivered: u64,
    /// At a fixed rate: messages that are due, with the moment from which each is. No longer than
    /// the run has ticks.
    due: VecDeque<(u64, u32)>,
    /// Of the task that publishes, when it waits for any of this.
    pub(super) waker: Option<Waker>,
}

/// A message that may be sent, with the moment from which it was due.
pub(super) enum Next {
    Now,
    Since(u64),
    Nothing,
}

/// Every message of a run.
#[derive(Debug)]
pub(super) struct Account {
    /// Subscribers of each message.
    fan: u64,
    /// Most undelivered messages of a publisher; `None` at a fixed rate.
    window: Option<u64>,
    pub(super) ways: Vec<Way>,
    /// By subscriber: the publishers it hears, and the number that comes next from each.
    expected: Vec<(Range<u32>, Vec<u32>)>,
    pub(super) delivered: u64,
    /// QoS 1 and 2 messages sent and not acknowledged.
    pub(super) unacknowledged: u64,
    /// Numbers that did not come before a later one.
    skipped: u64,
    /// Came again, or behind a later one.
    pub(super) late: u64,
    /// Not of this run, or not for this subscriber.
    pub(super) foreign: u64,
    pub(super) latency: Histogram,
}

impl Account {
    pub(super) fn new(publishers: u32, hears: Vec<Range<u32>>, window: Option<u64>) -> Self {
        let heard: u64 = hears.iter().map(|all| all.len() as u64).sum();
        let expected = hears
            .into_iter()
            .map(|all| (all.clone(), vec![0; all.len()]));
        Self {
            fan: heard / u64::from(publishers.max(1)),
            window,
            ways: (0..publishers).map(|_| Way::default()).collect(),
            expected: expected.collect(),
            delivered: 0,
            unacknowledged: 0,
            skipped: 0,
            late: 0,
            foreign: 0,
            latency: Histogram::default(),
        }
    }

    /// Whether `publisher` may send one more.
    pub(super) fn next(&mut self, publisher: usize) -> Next {
        let Some(way) = self.ways.get_mut(publisher) else {
            return Next::Nothing;
        };
        match self.window {
            Some(window) if way.sent * self.fan - way.delivered < window * self.fan => Next::Now,
            Some(_) => Next::Nothing,
            None => match way.due.front_mut() {
                Some((since, left)) => {
                    let since = *since;
                    *left -= 1;
                    if *left == 0 {
                        way.due.pop_front();
                    }
                    Next::Since(since)
                }
                None => Next::Nothing,
            },
        }
    }

    /// Makes one more message of a publisher due.
    pub(super) fn release(&mut self, publisher: usize, now_ns: u64) {
        if let Some(way) = self.ways.get_mut(publisher) {
            match way.due.back_mut() {
                Some((since, count)) if *since == now_ns => *count += 1,
                _ => way.due.push_back((now_ns, 1)),
            }
            if let Some(waker) = way.waker.take() {
                waker.wake();
            }
        }
    }

    /// A message has come to `subscriber`.
    pub(super) fn came(&mut self, subscriber: usize, stamp: Option<Stamp>, now_ns: u64) {
        let place = stamp.and_then(|stamp| {
            let (hears, next) = self.expected.get_mut(subscriber)?;
            let at = stamp.publisher.checked_sub(hears.start)?;
            Some((stamp, next.get_mut(usize::try_from(at).ok()?)?))
        });
        let Some((stamp, next)) = place else {
            self.foreign += 1;
            return;
        };
        if stamp.number < *next {
            self.late += 1;
            return;
        }
        self.skipped += u64::from(stamp.number - *next);
        *next = stamp.number + 1;
        self.delivered += 1;
        self.latency.add(now_ns.saturating_sub(stamp.due_ns));
        let way = self.ways.get_mut(stamp.publisher as usize);
        if let Some(way) = way {
            way.delivered += 1;
            if let Some(waker) = way.waker.take() {
                waker.wake();
            }
        }
    }

    pub(super) fn sent(&self) -> u64 {
        self.ways.iter().map(|way| way.sent).sum()
    }

    pub(super) fn owed(&self) -> u64 {
        self.sent() * self.fan
    }

    /// Every message has come and is acknowledged.
    pub(super) fn is_complete(&self) -> bool {
        self.delivered >= self.owed() && self.unacknowledged == 0
    }

    pub(super) fn lost(&self) -> u64 {
        self.owed().saturating_sub(self.delivered)
    }

    pub(super) fn is_clean(&self) -> bool {
        self.is_complete() && self.skipped + self.late + self.foreign == 0
    }
}

/// Durations, each to within 1/32 of itself.
#[derive(Debug)]
pub(super) struct Histogram {
    counts: Vec<u64>,
    all: u64,
}

/// For every `u64`.
const BUCKETS: usize = 58 * 32 + 64;

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: vec![0; BUCKETS],
            all: 0,
        }
    }
}

impl Histogram {
    fn add(&mut self, value: u64) {
        // Its six highest bits, and how many are below them.
        let shift = (u64::BITS - value.leading_zeros()).saturating_sub(6);
        let bucket = u64::from(shift) * 32 + (value >> shift);
        if let Some(count) = usize::try_from(bucket)
            .ok()
            .and_then(|at| self.counts.get_mut(at))
        {
            *count += 1;
            self.all += 1;
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The longest of the shortest `share` of all.
    pub(super) fn quantile(&self, share: f64) -> Duration {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a count"
        )]
        let wanted = (self.all as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (bucket, count) in (0_u64..).zip(&self.counts) {
            seen += count;
            if seen >= wanted && *count > 0 {
                let shift = (bucket / 32).saturating_sub(1);
                return Duration::from_nanos((bucket - shift * 32) << shift);
            }
        }
        Duration::ZERO
    }
}

/// User and system time that a process of this machine has taken.
pub(super) fn cpu_time(pid: u32) -> anyhow::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))
        .with_context(|| format!("no process {pid} to measure"))?;
    // Behind the name, which may hold anything.
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let ticks: u64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .flat_map(str::parse::<u64>)
        .sum();
    let a_second = rustix::param::clock_ticks_per_second();
    Ok(Duration::from_secs(ticks) / u32::try_from(a_second).unwrap_or(100))
}

/// Bytes of memory that a process of this machine has resident.
pub(super) fn resident_bytes(pid: u32) -> anyhow::Result<u64> {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm"))
        .with_context(|| format!("no process {pid} to measure"))?;
    let pages = statm
        .split_whitespace()
        .nth(1)
        .context("no memory in statm")?;
    Ok(pages.parse::<u64>()? * rustix::param::page_size() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(publisher: u32, number: u32) -> Option<Stamp> {
        let due_ns = 7;
        Some(Stamp {
            due_ns,
            publisher,
            number,
        })
    }

    /// Two publishers, one subscriber that hears both; each has sent `sent`.
    fn account(sent: u64) -> Account {
        let mut account = Account::new(2, vec![0..2; 1], Some(5));
        for way in &mut account.ways {
            way.sent = sent;
        }
        account
    }

    #[test]
    fn stamp_reads_as_it_was_written() {
        let one = Stamp {
            due_ns: u64::MAX - 1,
            publisher: 3,
            number: u32::MAX,
        };
        assert_eq!(Stamp::read(&one.bytes()), Some(one));
        assert_eq!(Stamp::read(b"short"), None);
    }

    #[test]
    fn messages_in_order_are_clean_and_anything_else_is_not() {
        for (came, clean, lost, late, foreign) in [
            (&[(0, 0), (1, 0), (0, 1), (1, 1)][..], true, 0, 0, 0),
            (&[(0, 0), (1, 0), (0, 1)], false, 1, 0, 0),
            (&[(0, 0), (0, 0), (1, 0), (0, 1), (1, 1)], false, 0, 1, 0),
            (&[(0, 1), (0, 0), (1, 0), (1, 1)], false, 1, 1, 0),
            (&[(0, 0), (1, 0), (0, 1), (1, 1), (2, 0)], false, 0, 0, 1),
        ] {
            let mut account = account(2);
            for (publisher, number) in came {
                account.came(0, stamp(*publisher, *number), 10);
            }
            let found = (account.lost(), account.late, account.foreign);
            assert_eq!(found, (lost, late, foreign), "{came:?}");
            assert_eq!(account.is_clean(), clean, "{came:?}");
        }
        let mut unanswered = account(0);
        unanswered.unacknowledged = 1;
        assert!(!unanswered.is_clean());
    }

    #[test]
    fn window_counts_what_is_not_delivered() {
        let mut account = account(5);
        assert!(matches!(account.next(0), Next::Nothing));
        account.came(0, stamp(0, 0), 10);
        assert!(matches!(account.next(0), Next::Now));
        assert!(matches!(account.next(1), Next::Nothing));
    }

    #[test]
    fn what_is_due_keeps_its_moment_while_it_waits() {
        let mut account = Account::new(1, vec![0..1; 1], None);
        for due_ns in [100, 100, 200] {
            account.release(0, due_ns);
        }
        for expected in [100, 100, 200] {
            assert!(matches!(account.next(0), Next::Since(since) if since == expected));
        }
        assert!(matches!(account.next(0), Next::Nothing));
    }

    #[test]
    fn quantiles_are_within_a_thirtieth() {
        let mut histogram = Histogram::default();
        for value in 1..=100_000 {
            histogram.add(value);
        }
        for share in [0.01, 0.5, 0.99, 1.0] {
            let found = histogram.quantile(share).as_nanos() as f64;
            let exact = 100_000.0 * share;
            assert!((found / exact - 1.0).abs() < 0.032, "{found} for {exact}");
        }
        histogram.add(u64::MAX);
        assert!(histogram.quantile(1.0).as_nanos() as f64 > 0.96 * u64::MAX as f64);
    }

    #[test]
    fn own_process_has_taken_time_and_memory() {
        assert!(resident_bytes(std::process::id()).unwrap() > 100_000);
        assert!(cpu_time(std::process::id()).unwrap() < Duration::from_secs(100_000));
        assert!(cpu_time(u32::MAX).is_err());
    }
}
