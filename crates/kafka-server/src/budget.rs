//! How much memory requests and responses may take, over all connections together.
//!
//! For: a [`Pool`] of bytes that are asked for before they are allocated and come back when a
//! [`Charge`] is dropped; the [`Budget`] of requests, two pools.
//! Not for: who waits, and what for (`connection`, `handler::fetch`).
//! Holds: what is charged stays below the pool's size but for one charge at a time, which has the
//! overdraft: so holders that wait for each other's bytes never stand still together.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What is counted: a finer count would buy nothing.
const UNIT_BYTES: usize = 1 << 10;

/// Below this a pool is short: who holds some of it and does not move makes others wait.
pub(crate) const SHORT_BYTES: usize = 64 << 10;

/// Requests up to this many bytes have a part of the budget of their own.
pub(crate) const SMALL_FRAME_BYTES: usize = 64 << 10;

/// The part of the budget that is kept for small requests: one in so many.
const SMALL_PART: usize = 4;

/// Bytes that many connections share.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    units: Arc<Semaphore>,
    units_max: u32,
    overdraft: Arc<Semaphore>,
}

impl Pool {
    pub(crate) fn new(bytes_max: usize) -> Self {
        let units_max = units(bytes_max).max(1);
        Self {
            units: Arc::new(Semaphore::new(usize::try_from(units_max).unwrap_or(1))),
            units_max,
            overdraft: Arc::new(Semaphore::new(1)),
        }
    }

    /// A charge of nothing, to be grown.
    pub(crate) fn charge(&self) -> Charge {
        Charge {
            pool: self.clone(),
            held: None,
            overdraft: None,
        }
    }

    /// Bytes that nobody holds.
    pub(crate) fn left(&self) -> usize {
        self.units.available_permits().saturating_mul(UNIT_BYTES)
    }

    /// Bytes that are held, but for those that go with the overdraft.
    pub(crate) fn held(&self) -> usize {
        let all = usize::try_from(self.units_max).unwrap_or(usize::MAX);
        all.saturating_mul(UNIT_BYTES).saturating_sub(self.left())
    }

    /// Whether others wait, or soon will.
    pub(crate) fn is_short(&self) -> bool {
        self.left() < SHORT_BYTES
    }
}

/// The budget of requests. A quarter is for requests of up to [`SMALL_FRAME_BYTES`], so that a few
/// clients with very long ones keep nobody from his heartbeats, fetches and small batches.
#[derive(Debug)]
pub(crate) struct Budget {
    small: Pool,
    large: Pool,
}

impl Budget {
    pub(crate) fn new(bytes_max: usize) -> Self {
        let small = bytes_max / SMALL_PART;
        Self {
            small: Pool::new(small),
            large: Pool::new(bytes_max - small),
        }
    }

    /// A charge of nothing yet, for a request of so many bytes.
    pub(crate) fn charge(&self, frame_bytes: usize) -> Charge {
        if frame_bytes <= SMALL_FRAME_BYTES {
            self.small.charge()
        } else {
            self.large.charge()
        }
    }

    /// Bytes that are held, but for those that go with an overdraft.
    pub(crate) fn held(&self) -> usize {
        self.small.held() + self.large.held()
    }
}

/// Bytes taken from a pool, given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    pool: Pool,
    held: Option<OwnedSemaphorePermit>,
    overdraft: Option<OwnedSemaphorePermit>,
}

impl Charge {
    fn held_units(&self) -> u32 {
        let held = self
            .held
            .as_ref()
            .map_or(0, OwnedSemaphorePermit::num_permits);
        u32::try_from(held).unwrap_or(u32::MAX)
    }

    /// What is short of `bytes` in all. More than the whole pool counts as the whole pool.
    fn lacks(&self, bytes: usize) -> u32 {
        if self.overdraft.is_some() {
            return 0;
        }
        let wanted = units(bytes).min(self.pool.units_max);
        wanted.saturating_sub(self.held_units())
    }

    /// What is held, but for what goes with the overdraft.
    pub(crate) fn bytes(&self) -> usize {
        let units = usize::try_from(self.held_units()).unwrap_or(usize::MAX);
        units.saturating_mul(UNIT_BYTES)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.overdraft.is_none() && self.held_units() == 0
    }

    /// Whether it holds anything that others wait for, or soon will.
    pub(crate) fn is_in_the_way(&self) -> bool {
        !self.is_empty() && self.pool.is_short()
    }

    pub(crate) fn covers(&self, bytes: usize) -> bool {
        self.lacks(bytes) == 0
    }

    /// Waits until this covers `bytes` in all, first come, first served. Once it is cancelled it
    /// holds what it held before.
    pub(crate) async fn cover(&mut self, bytes: usize) {
        let lacks = self.lacks(bytes);
        if lacks == 0 {
            return;
        }
        let (units, overdraft) = (&self.pool.units, &self.pool.overdraft);
        // Nobody closes these semaphores, so that an error cannot be.
        let taken = match Arc::clone(units).try_acquire_many_owned(lacks) {
            Ok(taken) => Some(taken),
            Err(_) => tokio::select! {
                taken = Arc::clone(units).acquire_many_owned(lacks) => taken.ok(),
                turn = Arc::clone(overdraft).acquire_owned() => {
                    self.overdraft = turn.ok();
                    None
                }
            },
        };
        if let Some(taken) = taken {
            self.hold(taken);
        }
    }

    fn hold(&mut self, taken: OwnedSemaphorePermit) {
        match &mut self.held {
            Some(held) => held.merge(taken),
            None => self.held = Some(taken),
        }
    }

    /// Whether it holds what only one at a time may.
    pub(crate) fn is_overdrawn(&self) -> bool {
        self.overdraft.is_some()
    }

    /// A part of so many bytes, as far as they are held, as a charge of its own.
    pub(crate) fn split(&mut self, bytes: usize) -> Self {
        let part = units(bytes).min(self.held_units());
        let part = usize::try_from(part).unwrap_or(0);
        Self {
            pool: self.pool.clone(),
            held: self.held.as_mut().and_then(|held| held.split(part)),
            overdraft: None,
        }
    }

    /// Gives back what goes beyond `bytes`, and the overdraft if the pool can do without.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        if let Some(overdraft) = self.overdraft.take() {
            let lacks = self.lacks(bytes);
            match Arc::clone(&self.pool.units).try_acquire_many_owned(lacks) {
                Ok(taken) => self.hold(taken),
                Err(_) => self.overdraft = Some(overdraft),
            }
        }
        let surplus = self.held_units().saturating_sub(units(bytes));
        if let Some(held) = &mut self.held {
            drop(held.split(usize::try_from(surplus).unwrap_or(0)));
        }
    }
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const KIB: usize = 1 << 10;

    async fn waits(charge: &mut Charge, bytes: usize) -> bool {
        timeout(Duration::ZERO, charge.cover(bytes)).await.is_err()
    }

    #[tokio::test]
    async fn holders_that_wait_for_each_other_go_on_one_at_a_time() {
        let pool = Pool::new(10 * KIB);
        let (mut one, mut two) = (pool.charge(), pool.charge());
        one.cover(5 * KIB).await;
        two.cover(5 * KIB).await;
        // Neither can grow by the pool alone.
        one.cover(8 * KIB).await;
        assert!(one.covers(1 << 30), "the overdraft covers all of a frame");
        assert!(waits(&mut two, 8 * KIB).await);
        assert!(two.covers(5 * KIB), "a wait that ends takes nothing away");
        drop(one);
        two.cover(8 * KIB).await;
        assert_eq!(pool.left(), 2 * KIB);
        drop(two);
        assert_eq!(pool.left(), 10 * KIB);
    }

    #[tokio::test]
    async fn the_overdraft_is_given_back_as_soon_as_the_pool_can_do_without() {
        let pool = Pool::new(10 * KIB);
        let (mut one, mut two) = (pool.charge(), pool.charge());
        one.cover(5 * KIB).await;
        two.cover(5 * KIB).await;
        two.cover(100 * KIB).await;
        two.shrink(6 * KIB);
        assert!(two.is_overdrawn(), "there is nothing to have instead");
        drop(one);
        two.shrink(6 * KIB);
        assert!(!two.is_overdrawn());
        assert_eq!(pool.left(), 4 * KIB);
        // What is held already may be enough, however short the pool is.
        let mut three = pool.charge();
        three.cover(4 * KIB).await;
        three.cover(7 * KIB).await;
        three.shrink(4 * KIB);
        assert!(!three.is_overdrawn());
        assert_eq!(pool.left(), 0);
    }

    #[tokio::test]
    async fn more_than_the_pool_waits_for_the_whole_pool() {
        let pool = Pool::new(10 * KIB);
        let mut long = pool.charge();
        long.cover(1 << 30).await;
        assert_eq!(pool.left(), 0);
        long.shrink(3 * KIB);
        assert_eq!(pool.left(), 7 * KIB);
    }

    #[tokio::test]
    async fn long_requests_leave_small_ones_their_part() {
        let budget = Budget::new(400 * KIB);
        let mut long: Vec<Charge> = (0..3).map(|_| budget.charge(1 << 20)).collect();
        for charge in &mut long[..2] {
            charge.cover(300 * KIB).await;
        }
        assert!(waits(&mut long[2], 300 * KIB).await);
        let mut small = budget.charge(KIB);
        assert!(!waits(&mut small, 100 * KIB).await);
        assert_eq!(budget.held(), 400 * KIB);
    }
}
