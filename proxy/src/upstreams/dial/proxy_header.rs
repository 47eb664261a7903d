//! The PROXY protocol's header, as a client of the protocol writes it.
//!
//! Source: "The PROXY protocol, Versions 1 & 2" (HAProxy, doc/proxy-protocol.txt),
//! sections 2.1 and 2.2.

use std::net::{IpAddr, SocketAddr};

/// Opens every header of version 2.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, connection on behalf of nobody.
const LOCAL: u8 = 0x20;
/// Version 2, connection on behalf of a client.
const PROXY: u8 = 0x21;
/// AF_INET, SOCK_STREAM.
const TCP4: u8 = 0x11;
/// AF_INET6, SOCK_STREAM.
const TCP6: u8 = 0x21;

/// The two ends of a client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Addresses {
    /// The client.
    pub(crate) client: SocketAddr,
    /// Where it arrived.
    pub(crate) local: SocketAddr,
}

/// The header for a connection that serves `from`; `None`: it serves nobody (a check).
pub(super) fn header(version: conf::ProxyVersion, from: Option<Addresses>) -> Vec<u8> {
    match version {
        conf::ProxyVersion::V1 => v1(from),
        conf::ProxyVersion::V2 => v2(from),
    }
}

/// At most 107 bytes.
fn v1(from: Option<Addresses>) -> Vec<u8> {
    let Some(from) = from else {
        return b"PROXY UNKNOWN\r\n".to_vec();
    };
    let (client, local) = one_family(from);
    let family = if client.is_ipv4() { "TCP4" } else { "TCP6" };
    format!(
        "PROXY {family} {client} {local} {} {}\r\n",
        from.client.port(),
        from.local.port()
    )
    .into_bytes()
}

fn v2(from: Option<Addresses>) -> Vec<u8> {
    let mut header = Vec::with_capacity(52);
    header.extend_from_slice(SIGNATURE);
    let Some(from) = from else {
        header.extend_from_slice(&[LOCAL, 0, 0, 0]);
        return header;
    };
    match one_family(from) {
        (IpAddr::V4(client), IpAddr::V4(local)) => {
            header.extend_from_slice(&[PROXY, TCP4, 0, 12]);
            header.extend_from_slice(&client.octets());
            header.extend_from_slice(&local.octets());
        }
        (client, local) => {
            header.extend_from_slice(&[PROXY, TCP6, 0, 36]);
            header.extend_from_slice(&as_v6(client));
            header.extend_from_slice(&as_v6(local));
        }
    }
    header.extend_from_slice(&from.client.port().to_be_bytes());
    header.extend_from_slice(&from.local.port().to_be_bytes());
    header
}

/// A header has one family for both ends: where they differ both are written as IPv6.
fn one_family(from: Addresses) -> (IpAddr, IpAddr) {
    let (client, local) = (
        from.client.ip().to_canonical(),
        from.local.ip().to_canonical(),
    );
    match client.is_ipv4() == local.is_ipv4() {
        true => (client, local),
        false => (as_v6(client).into(), as_v6(local).into()),
    }
}

fn as_v6(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

#[cfg(test)]
mod tests {
    use conf::ProxyVersion::{V1, V2};

    use super::*;

    fn from(client: &str, local: &str) -> Option<Addresses> {
        Some(Addresses {
            client: client.parse().unwrap(),
            local: local.parse().unwrap(),
        })
    }

    #[test]
    fn version_1_is_a_line_of_text() {
        let said = |from| String::from_utf8(header(V1, from)).unwrap();
        assert_eq!(said(None), "PROXY UNKNOWN\r\n");
        assert_eq!(
            said(from("192.0.2.7:5000", "198.51.100.1:443")),
            "PROXY TCP4 192.0.2.7 198.51.100.1 5000 443\r\n"
        );
        assert_eq!(
            said(from("[2001:db8::7]:5000", "[2001:db8::1]:443")),
            "PROXY TCP6 2001:db8::7 2001:db8::1 5000 443\r\n"
        );
        assert_eq!(
            said(from("[::ffff:192.0.2.7]:5000", "198.51.100.1:443")),
            "PROXY TCP4 192.0.2.7 198.51.100.1 5000 443\r\n",
            "an IPv4 client of a socket for both families is an IPv4 client"
        );
        assert_eq!(
            said(from("192.0.2.7:5000", "[2001:db8::1]:443")),
            "PROXY TCP6 ::ffff:192.0.2.7 2001:db8::1 5000 443\r\n"
        );
    }

    #[test]
    fn version_2_is_binary() {
        let start = b"\r\n\r\n\0\r\nQUIT\n";
        assert_eq!(header(V2, None), [&start[..], &[0x20, 0, 0, 0]].concat());
        let v4 = header(V2, from("192.0.2.7:5000", "198.51.100.1:443"));
        let rest = [
            0x21, 0x11, 0, 12, 192, 0, 2, 7, 198, 51, 100, 1, 0x13, 0x88, 1, 0xBB,
        ];
        assert_eq!(v4, [&start[..], &rest].concat());
        let v6 = header(V2, from("[2001:db8::7]:5000", "[2001:db8::1]:443"));
        assert_eq!(v6.len(), 16 + 36);
        assert_eq!(&v6[12..16], &[0x21, 0x21, 0, 36]);
        assert_eq!(&v6[16..20], &[0x20, 1, 0x0d, 0xb8]);
        assert_eq!(&v6[48..], &[0x13, 0x88, 1, 0xBB]);
    }
}
