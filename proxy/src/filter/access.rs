//! Who is let in, by address.
//!
//! The longest network that holds the address decides, wherever it stands;
//! where the same network is allowed and denied, it is denied. An address in
//! no network is let in unless there is a list of those who are. An IPv4
//! address that comes in IPv6 form (`::ffff:192.0.2.1`) is judged as IPv4, and
//! no IPv6 network holds an IPv4 address.
//!
//! Whom a request comes from (trusted proxies) is decided before.

use std::net::IpAddr;

use ipnet::IpNet;

/// Compiled networks: a look-up costs one binary search for each prefix length in use.
#[derive(Debug)]
pub(crate) struct Access {
    v4: Levels,
    v6: Levels,
    otherwise: Admission,
}

/// Whether a client is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It is.
    Allowed,
    /// It is not.
    Denied,
}

/// Networks of one address family by prefix length, longest first. Addresses
/// stand left-aligned in 128 bits.
#[derive(Debug, Default)]
struct Levels(Vec<Level>);

#[derive(Debug)]
struct Level {
    prefix_len: u8,
    /// Sorted by address, each once.
    networks: Vec<(u128, Admission)>,
}

impl Access {
    /// `None` when both lists are empty: there is nothing to judge.
    #[must_use]
    pub(crate) fn new(allow: &[IpNet], deny: &[IpNet]) -> Option<Self> {
        if allow.is_empty() && deny.is_empty() {
            return None;
        }
        let otherwise = if allow.is_empty() {
            Admission::Allowed
        } else {
            Admission::Denied
        };
        let mut access = Self {
            v4: Levels::default(),
            v6: Levels::default(),
            otherwise,
        };
        for net in allow {
            access.insert(*net, Admission::Allowed);
        }
        // After the allowed ones, so that deny replaces allow.
        for net in deny {
            access.insert(*net, Admission::Denied);
        }
        Some(access)
    }

    /// Whether `client` is let in.
    #[must_use]
    pub(crate) fn judge(&self, client: IpAddr) -> Admission {
        let (levels, address) = match client.to_canonical() {
            IpAddr::V4(v4) => (&self.v4, left_aligned(v4.to_bits())),
            IpAddr::V6(v6) => (&self.v6, v6.to_bits()),
        };
        levels.longest(address).unwrap_or(self.otherwise)
    }

    fn insert(&mut self, net: IpNet, admission: Admission) {
        match (net.network().to_canonical(), net.prefix_len()) {
            (IpAddr::V4(v4), len) => {
                // A network written in mapped form has 96 bits more.
                let len = if matches!(net, IpNet::V6(_)) {
                    len.saturating_sub(96)
                } else {
                    len
                };
                self.v4.insert(left_aligned(v4.to_bits()), len, admission);
            }
            (IpAddr::V6(v6), len) => self.v6.insert(v6.to_bits(), len, admission),
        }
    }
}

impl Levels {
    fn longest(&self, address: u128) -> Option<Admission> {
        self.0.iter().find_map(|level| {
            let network = masked(address, level.prefix_len);
            let at = level
                .networks
                .binary_search_by_key(&network, |(net, _)| *net)
                .ok()?;
            Some(level.networks[at].1)
        })
    }

    fn insert(&mut self, network: u128, prefix_len: u8, admission: Admission) {
        let level = match self.0.binary_search_by(|l| prefix_len.cmp(&l.prefix_len)) {
            Ok(at) => &mut self.0[at],
            Err(at) => {
                self.0.insert(
                    at,
                    Level {
                        prefix_len,
                        networks: Vec::new(),
                    },
                );
                &mut self.0[at]
            }
        };
        let network = masked(network, prefix_len);
        match level
            .networks
            .binary_search_by_key(&network, |(net, _)| *net)
        {
            Ok(at) => level.networks[at].1 = admission,
            Err(at) => level.networks.insert(at, (network, admission)),
        }
    }
}

fn left_aligned(v4: u32) -> u128 {
    u128::from(v4) << 96
}

fn masked(address: u128, prefix_len: u8) -> u128 {
    match 128_u32.checked_sub(u32::from(prefix_len)) {
        Some(128) => 0,
        Some(host_bits) => address >> host_bits << host_bits,
        None => address,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use ipnet::{IpNet, Ipv4Net};
    use proptest::prelude::*;

    use super::{Access, Admission};

    fn nets(list: &[&str]) -> Vec<IpNet> {
        list.iter()
            .map(|net| net.parse().expect("a network"))
            .collect()
    }

    #[track_caller]
    fn lets_in(allow: &[&str], deny: &[&str], client: &str) -> bool {
        let access = Access::new(&nets(allow), &nets(deny)).expect("not empty");
        access.judge(client.parse().expect("an address")) == Admission::Allowed
    }

    #[test]
    fn without_lists_there_is_nothing_to_judge() {
        assert!(Access::new(&[], &[]).is_none());
    }

    #[test]
    fn the_longest_network_decides() {
        let allow = &["10.1.0.0/16", "10.1.1.1/32"];
        let deny = &["10.0.0.0/8", "10.1.1.0/24"];
        assert!(lets_in(allow, deny, "10.1.2.3"));
        assert!(!lets_in(allow, deny, "10.1.1.2"));
        assert!(lets_in(allow, deny, "10.1.1.1"));
        assert!(!lets_in(allow, deny, "10.2.0.1"));
        assert!(
            !lets_in(&["10.0.0.0/8"], &["10.0.0.0/8"], "10.0.0.1"),
            "deny wins a tie"
        );
    }

    #[test]
    fn who_is_in_no_network_is_let_in_unless_some_are_allowed() {
        assert!(lets_in(&[], &["10.0.0.0/8"], "11.0.0.1"));
        assert!(!lets_in(&["10.0.0.0/8"], &[], "11.0.0.1"));
        assert!(!lets_in(&["10.0.0.0/8"], &["12.0.0.0/8"], "11.0.0.1"));
    }

    #[test]
    fn families_are_kept_apart_and_mapped_addresses_are_ipv4() {
        assert!(!lets_in(&[], &["10.0.0.0/8"], "::ffff:10.0.0.1"));
        assert!(!lets_in(&[], &["::ffff:10.0.0.0/104"], "10.0.0.1"));
        assert!(lets_in(&[], &["::ffff:10.0.0.0/104"], "11.0.0.1"));
        assert!(lets_in(&[], &["::/0"], "10.0.0.1"));
        assert!(!lets_in(&[], &["::/0"], "2001:db8::1"));
        assert!(!lets_in(&[], &["0.0.0.0/0"], "10.0.0.1"));
        assert!(lets_in(
            &["2001:db8:1::/48"],
            &["2001:db8::/32"],
            "2001:db8:1::9"
        ));
        assert!(!lets_in(
            &["2001:db8:1::/48"],
            &["2001:db8::/32"],
            "2001:db8:2::9"
        ));
        assert!(lets_in(&["::1/128"], &[], "::1"));
    }

    fn network() -> impl Strategy<Value = IpNet> {
        // Few addresses, so that networks nest.
        (0_u32..16, 24_u8..=32).prop_map(|(low, len)| {
            let address = Ipv4Addr::from_bits(0x0a00_0000 | low << 4);
            Ipv4Net::new(address, len).expect("a length").trunc().into()
        })
    }

    proptest! {
        #[test]
        fn the_look_up_gives_what_a_plain_search_gives(
            allow in proptest::collection::vec(network(), 0..8),
            deny in proptest::collection::vec(network(), 1..8),
            low in 0_u32..256,
        ) {
            let client = IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 | low));
            let longest = |nets: &[IpNet]| {
                nets.iter().filter(|net| net.contains(&client)).map(IpNet::prefix_len).max()
            };
            let wanted = match (longest(&allow), longest(&deny)) {
                (None, None) => allow.is_empty(),
                (allowed, denied) => allowed > denied,
            };
            let access = Access::new(&allow, &deny).expect("not empty");
            prop_assert_eq!(access.judge(client) == Admission::Allowed, wanted);
        }
    }
}
