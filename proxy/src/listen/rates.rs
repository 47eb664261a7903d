//! How many events a second a client may cause, in memory of one size.
//!
//! An entry for each client would grow with their number, and if old ones had to go, who commands many
//! addresses could drive out the entry of any other. So there are no entries: each client has four
//! places in one table, by a hash with a secret key, and each place holds a bucket of tokens (GCRA,
//! ITU-T I.371) that it shares with whoever falls on it, too. A client is held up when all of its
//! places are empty, so one that stays within its rate is held up only if each of the four is shared
//! with clients that do not: with 1,000 such clients for one client in 4,500.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU64;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Places of a table: 256 KiB.
const PLACES: usize = 1 << 15;

/// Places of one client.
const OF_ONE: usize = 4;

/// How many seconds' worth may come at once.
const BURST: u64 = 10;

/// See the module's text. It is made when the first event comes.
#[derive(Debug)]
pub(crate) struct Rates(OnceLock<Table>);

#[derive(Debug)]
struct Table {
    /// Each: when its bucket will be full again, in nanoseconds since `start`.
    places: Box<[AtomicU64]>,
    keys: RandomState,
    start: Instant,
}

impl Rates {
    pub(crate) const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// Counts an event of `client`, unless it is one too many.
    pub(crate) fn admits(&self, client: IpAddr, rate: NonZeroU64, now: Instant) -> bool {
        let table = self.0.get_or_init(|| Table {
            places: (0..PLACES).map(|_| AtomicU64::new(0)).collect(),
            keys: RandomState::new(),
            start: now,
        });
        table.admits(client, rate, now)
    }
}

impl Table {
    fn admits(&self, client: IpAddr, rate: NonZeroU64, now: Instant) -> bool {
        let now = now.saturating_duration_since(self.start).as_nanos();
        let now = u64::try_from(now).unwrap_or(u64::MAX);
        let token = (1_000_000_000 / rate).max(1);
        let burst = (BURST * rate.get()).saturating_mul(token);
        let places = self.of(client);
        let has_room = |place: &AtomicU64| {
            place.load(Ordering::Relaxed).max(now).saturating_add(token)
                <= now.saturating_add(burst)
        };
        if !places.iter().any(|place| has_room(place)) {
            return false;
        }
        for place in places {
            // Two that count at the same moment may count as one.
            let full = place.load(Ordering::Relaxed).max(now).saturating_add(token);
            place.store(full.min(now.saturating_add(burst)), Ordering::Relaxed);
        }
        true
    }

    fn of(&self, client: IpAddr) -> [&AtomicU64; OF_ONE] {
        let hash = self.keys.hash_one(client);
        std::array::from_fn(|nth| {
            let bits = (hash >> (nth * 16)) & 0xffff;
            &self.places[usize::try_from(bits).unwrap_or(0) % PLACES]
        })
    }
}

/// An IPv6 host commands a /64, so that is what counts as one client.
pub(super) fn client_key(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (!0_u128 << 64))),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::*;
    use crate::clock;

    const RATE: NonZeroU64 = NonZeroU64::new(50).unwrap();

    fn client(number: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from_bits(number))
    }

    fn admitted(rates: &Rates, of: IpAddr, now: Instant, events: usize) -> usize {
        (0..events).filter(|_| rates.admits(of, RATE, now)).count()
    }

    #[test]
    fn a_client_has_its_burst_and_then_its_rate() {
        let rates = Rates::new();
        let now = clock::now() + Duration::from_secs(1);
        assert_eq!(admitted(&rates, client(1), now, 10_000), 500);
        let later = now + Duration::from_secs(2);
        assert_eq!(admitted(&rates, client(1), later, 10_000), 100);
        let much_later = later + Duration::from_secs(3600);
        assert_eq!(admitted(&rates, client(1), much_later, 10_000), 500);
    }

    #[test]
    fn many_clients_that_take_too_much_hold_up_few_others() {
        let rates = Rates::new();
        let now = clock::now() + Duration::from_secs(1);
        for attacker in 0..1000 {
            admitted(&rates, client(attacker), now, 600);
        }
        let honest = 5000_u32;
        let held_up = (0..honest)
            .filter(|nth| admitted(&rates, client(0x0a00_0000 + nth), now, 5) < 5)
            .count();
        assert!(held_up < 25, "{held_up} of {honest}");
    }

    #[test]
    fn the_hosts_of_an_ipv6_network_are_one_client() {
        let key = |text: &str| client_key(text.parse().unwrap());
        assert_eq!(key("2001:db8::1"), key("2001:db8::ffff:1"));
        assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
        assert_eq!(key("::ffff:192.0.2.1"), key("192.0.2.1"));
    }
}
