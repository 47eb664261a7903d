//! What consistent hashing hashes of a request.

use std::net::IpAddr;

use balancer::hash_key;
use conf::{Balance, HashKey};

use super::head::{HeadView, cookie};

/// The key for upstreams that balance by hash; `None` for others, and for
/// requests that lack what is hashed (they are spread like any other).
#[must_use]
pub(crate) fn key(balance: &Balance, head: &dyn HeadView, client: IpAddr) -> Option<u64> {
    let Balance::Hash(key) = balance else {
        return None;
    };
    match key {
        HashKey::ClientIp => Some(match client {
            IpAddr::V4(address) => hash_key(&address.octets()),
            IpAddr::V6(address) => hash_key(&address.octets()),
        }),
        HashKey::Header(name) => head.field(name).map(hash_key),
        HashKey::Cookie(name) => cookie(head, name).map(hash_key),
    }
}
