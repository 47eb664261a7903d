//! Connection ids that say which worker of which process a connection is served by.
//!
//! The kernel spreads packets over the workers' sockets by addresses. A client that comes from
//! another address with a connection it has (RFC 9000 section 9) may therefore reach another
//! worker's socket, which finds the right one by the id alone ([`super::socket`]). After an upgrade
//! packets of connections that the process before still serves come to the new one, which knows by
//! the id that they are not its own. The place is hidden in the id under what only this server can
//! compute, so that an observer cannot tell by it which ids are of one connection (section 5.1).

use std::hash::{DefaultHasher, Hasher};
use std::time::Duration;

use quinn::{ConnectionId, ConnectionIdGenerator};

/// Octets of an id: so many random ones, one for the process, and two for the worker.
pub(super) const LENGTH: usize = RANDOM + PLACE;
const RANDOM: usize = 8;
const PLACE: usize = 3;

/// Where a connection is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Of the process: one more than that of the process that it took over from.
    pub(super) generation: u8,
    /// Of its socket among those of the listener.
    pub(super) socket: u16,
}

/// Makes the ids of one worker.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ids {
    pub(super) key: u128,
    pub(super) place: Place,
}

impl ConnectionIdGenerator for Ids {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; LENGTH];
        let (random, place) = id.split_at_mut(RANDOM);
        // It fails on no system that this runs on; ids that are not random are no worse than none.
        let _ = aws_lc_rs::rand::fill(random);
        let [high, low] = self.place.socket.to_be_bytes();
        let shown = [self.place.generation, high, low];
        let mask = mask(self.key, random);
        for (octet, (shown, mask)) in place.iter_mut().zip(shown.into_iter().zip(mask)) {
            *octet = shown ^ mask;
        }
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        LENGTH
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// Where the connection that a datagram is for is served, if it says so. Packets with a short header
/// do, which are those of a connection that stands (RFC 8999 section 5.2).
pub(super) fn place_of(key: u128, datagram: &[u8]) -> Option<Place> {
    let (first, rest) = datagram.split_first()?;
    if first & 0x80 != 0 {
        return None;
    }
    shown(key, rest.get(..LENGTH)?)
}

/// The same for packets of a handshake that was answered once: from then on a client writes the id
/// that it got. The id that it began with is its own and shows nothing; that it has as many octets
/// is rare, and that it then leads anywhere, too. A token comes with such a first packet, and whoever
/// gave it has kept nothing (RFC 9000 section 8.1.2).
pub(super) fn place_of_handshake(key: u128, datagram: &[u8]) -> Option<Place> {
    let (first, rest) = datagram.split_first()?;
    // The version stands between.
    let (length, rest) = rest.get(4..)?.split_first()?;
    if first & 0x80 == 0 || usize::from(*length) != LENGTH {
        return None;
    }
    let (id, rest) = rest.split_at_checked(LENGTH)?;
    let is_initial = first & 0x30 == 0;
    if is_initial {
        let (length, rest) = rest.split_first()?;
        if *rest.get(usize::from(*length))? != 0 {
            return None;
        }
    }
    shown(key, id)
}

fn shown(key: u128, id: &[u8]) -> Option<Place> {
    let (random, hidden) = id.split_at_checked(RANDOM)?;
    let mask = mask(key, random);
    let [generation, high, low]: [u8; PLACE] = hidden.try_into().ok()?;
    Some(Place {
        generation: generation ^ mask[0],
        socket: u16::from_be_bytes([high ^ mask[1], low ^ mask[2]]),
    })
}

fn mask(key: u128, random: &[u8]) -> [u8; PLACE] {
    let mut hasher = DefaultHasher::new();
    hasher.write_u128(key);
    hasher.write(random);
    let [.., first, second, third] = hasher.finish().to_be_bytes();
    [first, second, third]
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn ids(generation: u8, socket: u16) -> Ids {
        let place = Place { generation, socket };
        Ids { key: 7, place }
    }

    #[test]
    fn an_id_leads_to_its_place_and_does_not_show_it() {
        let mut shown = HashSet::new();
        for (generation, socket) in [(0, 0), (0, 1), (255, 300)] {
            let mut ids = ids(generation, socket);
            for _ in 0..50 {
                let id = ids.generate_cid();
                let datagram = [&[0x40][..], &id, b"rest"].concat();
                assert_eq!(place_of(7, &datagram), Some(ids.place));
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
        assert_eq!(place_of(7, &[0xc0; 40]), None);
        assert_eq!(place_of(7, &[0x40; LENGTH]), None);
        assert_eq!(place_of(7, &[]), None);
    }

    #[test]
    fn a_handshake_that_was_answered_leads_to_who_answered() {
        let mut ids = ids(3, 1);
        let id = ids.generate_cid();
        let packet = |first: u8, token: u8| {
            let length = u8::try_from(LENGTH).unwrap();
            let own = [4, 9, 9, 9, 9];
            [
                &[first, 0, 0, 0, 1, length][..],
                &id,
                &own,
                &[token],
                b"rest",
            ]
            .concat()
        };
        assert_eq!(place_of_handshake(7, &packet(0xc0, 0)), Some(ids.place));
        assert_eq!(place_of_handshake(7, &packet(0xe0, 8)), Some(ids.place));
        let with_token = packet(0xc0, 8);
        assert_eq!(
            place_of_handshake(7, &with_token),
            None,
            "answered by a token"
        );
        for cut in 0..with_token.len() {
            let _ = place_of_handshake(7, &with_token[..cut]);
        }
        let of_the_client = [0xc0, 0, 0, 0, 1, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0];
        assert_eq!(place_of_handshake(7, &of_the_client), None);
    }
}
