//! Who is let in at a door, and what each may do there.
//!
//! For: the door's own number of connections, those from one address, how fast they come.
//! Not for: the process's places for connections (`serve::descriptors`).
//! Called by: `doors`, which asks for each socket. A [`Guest`] goes with its connection.
//! Holds: nothing is counted by address where that has no limit.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use foldhash::fast::RandomState;
use headwater_mqtt_broker::{ClientLimits, Pace, Rate};
use tokio::time::{Duration, Instant};

/// What a door's configuration says of those who come.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct House {
    pub(crate) clients: Arc<ClientLimits>,
    /// Connections at once; `None` is without limit.
    pub(crate) connections_max: Option<usize>,
    /// Connections at once from one address that is not loopback, of IPv6 from one /64; 0 is without
    /// limit.
    pub(crate) connections_per_address_max: u32,
    /// Sockets accepted.
    pub(crate) connects: Rate,
}

/// The connections of one door.
#[derive(Debug, Default)]
pub(crate) struct Guests {
    house: House,
    count: AtomicUsize,
    by_address: Mutex<HashMap<IpAddr, u32, RandomState>>,
}

/// One of them; leaves when this is dropped.
#[derive(Debug)]
pub(crate) struct Guest {
    guests: Arc<Guests>,
    /// Where it is counted by its address.
    address: Option<IpAddr>,
}

impl Guests {
    pub(crate) fn new(house: House) -> Self {
        Self {
            house,
            ..Self::default()
        }
    }

    /// Lets a socket from `address` in, unless there are too many. `None` is an address that
    /// speaks for others, or none at all.
    pub(crate) fn admit(self: &Arc<Self>, address: Option<IpAddr>) -> Option<Guest> {
        let most = self.house.connections_max.unwrap_or(usize::MAX);
        let more = |count| (count < most).then(|| count + 1);
        let relaxed = Ordering::Relaxed;
        self.count.fetch_update(relaxed, relaxed, more).ok()?;
        // From here on dropping it gives its place back.
        let mut guest = Guest {
            guests: Arc::clone(self),
            address: None,
        };
        let most = self.house.connections_per_address_max;
        let address = address.map(|address| address.to_canonical());
        if most > 0
            && let Some(address) = address.filter(|address| !address.is_loopback())
        {
            let address = counted(address);
            let mut all = self.lock();
            let count = all.entry(address).or_default();
            if *count >= most {
                drop(all);
                return None;
            }
            *count += 1;
            guest.address = Some(address);
        }
        Some(guest)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<IpAddr, u32, RandomState>> {
        (self.by_address.lock()).unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether one who comes takes something from others who come: from those of its address, or of
    /// the pace of all.
    pub(crate) fn is_counting(&self) -> bool {
        self.house.connections_per_address_max > 0 || self.house.connects.per_second > 0
    }

    /// What paces the accepting, where that has a rate.
    pub(crate) fn arrivals(&self) -> Option<Arrivals> {
        let connects = self.house.connects;
        (connects.per_second > 0).then(|| Arrivals {
            pace: Pace::new(connects),
            begun: Instant::now(),
        })
    }
}

impl Guest {
    pub(crate) fn limits(&self) -> &Arc<ClientLimits> {
        &self.guests.house.clients
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.guests.count.fetch_sub(1, Ordering::Relaxed);
        let Some(address) = self.address else { return };
        let mut all = self.guests.lock();
        if let Some(count) = all.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                all.remove(&address);
            }
        }
    }
}

/// What stands for `address`: of IPv6 its first 64 bits, all of whose addresses one subscriber has.
fn counted(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

/// How fast sockets are accepted.
pub(crate) struct Arrivals {
    pace: Pace,
    begun: Instant,
}

impl Arrivals {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// One was accepted.
    pub(crate) fn accepted(&mut self) {
        let now_ms = self.now_ms();
        self.pace.take(now_ms, 1);
    }

    /// How long the next has to wait.
    pub(crate) fn wait(&mut self) -> Duration {
        let now_ms = self.now_ms();
        Duration::from_millis(self.pace.wait_ms(now_ms, 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_door_is_full_and_one_that_leaves_makes_room() {
        let guests = Arc::new(Guests::new(House {
            connections_max: Some(2),
            ..House::default()
        }));
        let one = guests.admit(None);
        let two = guests.admit(None);
        assert!(one.is_some() && two.is_some() && guests.admit(None).is_none());
        drop(one);
        assert!(guests.admit(None).is_some());
    }

    #[test]
    fn one_address_has_its_share_and_loopback_all() {
        let guests = Arc::new(Guests::new(House {
            connections_per_address_max: 2,
            ..House::default()
        }));
        let far = |text: &str| guests.admit(Some(text.parse().unwrap()));
        let mut all = vec![far("192.0.2.1"), far("::ffff:192.0.2.1"), far("192.0.2.2")];
        assert!(all.iter().all(Option::is_some));
        assert!(far("192.0.2.1").is_none(), "the same address in both forms");
        assert_eq!(
            guests.count.load(Ordering::Relaxed),
            3,
            "a refused one has no place"
        );
        all.extend([far("2001:db8:0:1::1"), far("2001:db8:0:1:ff::2")]);
        assert!(far("2001:db8:0:1::3").is_none(), "of the same /64");
        all.push(far("2001:db8:0:2::1"));
        all.extend((0..9).map(|_| far("127.0.0.1")));
        all.extend((0..9).map(|_| far("::1")));
        assert!(all.iter().all(Option::is_some));
        all.clear();
        assert!(guests.lock().is_empty());
        assert!(far("192.0.2.1").is_some());
    }
}
