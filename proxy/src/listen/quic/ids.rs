//! Connection ids that say which worker a connection is served by.
//!
//! The kernel spreads packets over the workers' sockets by addresses. A client that comes from
//! another address with a connection it has (RFC 9000 section 9) may therefore reach another
//! worker's socket, which finds the right one by the id alone ([`super::socket`]). The worker's
//! number is hidden in it under what only this server can compute, so that an observer cannot tell
//! by it which ids are of one connection (section 5.1).

use std::hash::{DefaultHasher, Hasher};
use std::time::Duration;

use quinn::{ConnectionId, ConnectionIdGenerator};

/// Octets of an id: so many random ones, and two for the worker.
pub(super) const LENGTH: usize = RANDOM + 2;
const RANDOM: usize = 8;

/// Makes the ids of one worker.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ids {
    pub(super) key: u128,
    pub(super) worker: u16,
}

impl ConnectionIdGenerator for Ids {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; LENGTH];
        let (random, worker) = id.split_at_mut(RANDOM);
        // It fails on no system that this runs on; ids that are not random are no worse than none.
        let _ = aws_lc_rs::rand::fill(random);
        let hidden = self.worker ^ mask(self.key, random);
        worker.copy_from_slice(&hidden.to_be_bytes());
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        LENGTH
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// The worker whose connection a datagram is for, if it says so: only packets with a short header
/// do, which are those of a connection that stands (RFC 8999 section 5.2).
pub(super) fn worker_of(key: u128, datagram: &[u8]) -> Option<u16> {
    let (first, rest) = datagram.split_first()?;
    if first & 0x80 != 0 {
        return None;
    }
    let id = rest.get(..LENGTH)?;
    let (random, hidden) = id.split_at(RANDOM);
    let hidden = u16::from_be_bytes(hidden.try_into().ok()?);
    Some(hidden ^ mask(key, random))
}

fn mask(key: u128, random: &[u8]) -> u16 {
    let mut hasher = DefaultHasher::new();
    hasher.write_u128(key);
    hasher.write(random);
    let [.., high, low] = hasher.finish().to_be_bytes();
    u16::from_be_bytes([high, low])
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn an_id_leads_to_its_worker_and_does_not_show_it() {
        let mut shown = HashSet::new();
        for worker in [0, 1, 300] {
            let mut ids = Ids { key: 7, worker };
            for _ in 0..50 {
                let id = ids.generate_cid();
                let datagram = [&[0x40][..], &id, b"rest"].concat();
                assert_eq!(worker_of(7, &datagram), Some(worker));
                shown.insert(id[RANDOM..].to_vec());
            }
        }
        assert!(
            shown.len() > 100,
            "the same octets stand in {} ids only",
            shown.len()
        );
    }

    #[test]
    fn packets_of_a_handshake_and_short_ones_lead_nowhere() {
        assert_eq!(worker_of(7, &[0xc0; 40]), None);
        assert_eq!(worker_of(7, &[0x40; LENGTH]), None);
        assert_eq!(worker_of(7, &[]), None);
    }
}
