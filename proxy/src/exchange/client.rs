//! Who the client is when a trusted proxy stands in between.

use std::net::{IpAddr, SocketAddr};

use http::header::HeaderName;
use ipnet::IpNet;

use super::head::HeadView;

static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Whether `peer` may say who the client is.
#[must_use]
pub(crate) fn is_trusted(peer: IpAddr, trusted: &[IpNet]) -> bool {
    let peer = peer.to_canonical();
    trusted.iter().any(|network| network.contains(&peer))
}

/// The client's address: the peer's, or, where the peer is a trusted proxy, the
/// rightmost address of X-Forwarded-For that is not one. Hops are believed from
/// the right, one by one; what a client wrote itself stands left of all of them.
#[must_use]
pub(crate) fn address(peer: IpAddr, head: &dyn HeadView, trusted: &[IpNet]) -> IpAddr {
    let mut client = peer.to_canonical();
    if trusted.is_empty() || !is_trusted(client, trusted) {
        return client;
    }
    let mut hops: Vec<&[u8]> = Vec::new();
    head.each_field(&X_FORWARDED_FOR, &mut |line| {
        hops.extend(line.split(|&byte| byte == b','));
    });
    for hop in hops.into_iter().rev() {
        let Some(address) = parse(hop) else {
            // What stands further left was vouched for by nobody we understand.
            break;
        };
        client = address;
        if !is_trusted(client, trusted) {
            break;
        }
    }
    client
}

/// An address, in brackets or with a port as some proxies write it.
fn parse(hop: &[u8]) -> Option<IpAddr> {
    let hop = std::str::from_utf8(hop).ok()?.trim();
    hop.parse()
        .ok()
        .or_else(|| hop.parse().ok().map(|address: SocketAddr| address.ip()))
        .or_else(|| hop.strip_prefix('[')?.strip_suffix(']')?.parse().ok())
        .map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, Method};

    use super::super::head::Head;
    use super::*;

    fn client(peer: &str, forwarded: &[&str], trusted: &[&str]) -> String {
        let mut fields = HeaderMap::new();
        for line in forwarded {
            fields.append(&X_FORWARDED_FOR, HeaderValue::from_str(line).unwrap());
        }
        let head = Head {
            method: &Method::GET,
            fields: &fields,
        };
        let trusted: Vec<IpNet> = trusted.iter().map(|net| net.parse().unwrap()).collect();
        address(peer.parse().unwrap(), &head, &trusted).to_string()
    }

    #[test]
    fn a_stranger_is_not_believed() {
        assert_eq!(
            client("192.0.2.1", &["198.51.100.9"], &["10.0.0.0/8"]),
            "192.0.2.1"
        );
        assert_eq!(client("192.0.2.1", &["198.51.100.9"], &[]), "192.0.2.1");
    }

    #[test]
    fn trusted_hops_are_walked_from_the_right() {
        let chain = ["6.6.6.6, 198.51.100.9", "10.0.0.7"];
        assert_eq!(client("10.0.0.2", &chain, &["10.0.0.0/8"]), "198.51.100.9");
    }

    #[test]
    fn what_is_no_address_ends_the_walk() {
        assert_eq!(
            client("10.0.0.2", &["6.6.6.6, unknown, 10.0.0.7"], &["10.0.0.0/8"]),
            "10.0.0.7"
        );
    }

    #[test]
    fn mapped_addresses_and_ports_are_understood() {
        assert_eq!(
            client("::ffff:10.0.0.2", &["198.51.100.9:4711"], &["10.0.0.0/8"]),
            "198.51.100.9"
        );
        assert_eq!(
            client("10.0.0.2", &["[2001:db8::1]:80"], &["10.0.0.0/8"]),
            "2001:db8::1"
        );
    }
}
