//! What consistent hashing hashes of a request.

use std::net::IpAddr;

use balancer::hash_key;
use conf::{Balance, HashKey};

use super::head::{HeadView, cookie};

/// What the request is for, as routes see it.
#[derive(Clone, Copy)]
pub(crate) struct Target<'a> {
    pub(crate) path: &'a str,
    pub(crate) query: Option<&'a str>,
}

/// The key for upstreams that balance by hash; `None` for others, and for
/// requests that lack what is hashed (they are spread like any other).
#[must_use]
pub(crate) fn key(
    balance: &Balance,
    head: &dyn HeadView,
    target: Target<'_>,
    client: IpAddr,
) -> Option<u64> {
    let Balance::Hash { key, .. } = balance else {
        return None;
    };
    match key {
        HashKey::ClientIp => Some(match client {
            IpAddr::V4(address) => hash_key(&address.octets()),
            IpAddr::V6(address) => hash_key(&address.octets()),
        }),
        HashKey::Path => Some(hash_key(target.path.as_bytes())),
        HashKey::Query(name) => parameter(target.query?, name).map(hash_key),
        HashKey::Header(name) => head.field(name).map(hash_key),
        HashKey::Cookie(name) => cookie(head, name).map(hash_key),
    }
}

/// The value of the query's first parameter of this name, as it is written.
fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a [u8]> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then_some(value.as_bytes())
    })
}
