//! Who the client is when a trusted proxy stands in between.

use std::net::IpAddr;

use http::header::HeaderName;
use ipnet::IpNet;

use super::forwarded;
use super::head::HeadView;

static FORWARDED: HeaderName = HeaderName::from_static("forwarded");
static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Whether `peer` may say who the client is.
#[must_use]
pub(crate) fn is_trusted(peer: IpAddr, trusted: &[IpNet]) -> bool {
    let peer = peer.to_canonical();
    trusted.iter().any(|network| network.contains(&peer))
}

/// The client's address: the peer's, or, where the peer is a trusted proxy, the rightmost address of
/// X-Forwarded-For that is not one. Hops are believed from the right, one by one; what a client wrote
/// itself stands left of all of them. Forwarded counts where there is no X-Forwarded-For: proxies that
/// write the one let the other pass as the client sent it, and most write X-Forwarded-For.
#[must_use]
pub(crate) fn address(peer: IpAddr, head: &dyn HeadView, trusted: &[IpNet]) -> IpAddr {
    let peer = peer.to_canonical();
    if trusted.is_empty() || !is_trusted(peer, trusted) {
        return peer;
    }
    let is_trusted = |address| is_trusted(address, trusted);
    let lines = lines(head, &X_FORWARDED_FOR);
    if !lines.is_empty() {
        let hops = lines.into_iter().rev().flat_map(forwarded::x_forwarded_for);
        return forwarded::walk(peer, hops, is_trusted);
    }
    let hops = elements(head).map(|element| element.client);
    forwarded::walk(peer, hops, is_trusted)
}

/// Whether the client came by https, as far as a trusted proxy says so.
#[must_use]
pub(crate) fn came_by_https(peer: IpAddr, head: &dyn HeadView, trusted: &[IpNet]) -> Option<bool> {
    if trusted.is_empty() || !is_trusted(peer, trusted) {
        return None;
    }
    let said = said_scheme(head)?;
    Some(said == b"https" || said == b"wss")
}

/// Whether a trusted proxy says that its client asked for another host than `authority`. That goes up, so
/// a reply may be of that host's, and pages are known by `authority`.
#[must_use]
pub(crate) fn names_another_host(
    peer: IpAddr,
    head: &dyn HeadView,
    trusted: &[IpNet],
    authority: &str,
) -> bool {
    !trusted.is_empty()
        && is_trusted(peer, trusted)
        && last_member(head, &X_FORWARDED_HOST)
            .is_some_and(|said| !said.eq_ignore_ascii_case(authority.as_bytes()))
}

/// The scheme that a trusted proxy says its client used: http, https, or ws and wss as some call them.
/// `None`: it says none of them. Where X-Forwarded-For stands alone, nothing is said: Forwarded may be
/// the client's own then.
#[must_use]
pub(crate) fn said_scheme(head: &dyn HeadView) -> Option<&[u8]> {
    if let Some(said) = last_member(head, &X_FORWARDED_PROTO) {
        let known: [&[u8]; 4] = [b"https", b"http", b"wss", b"ws"];
        return known.into_iter().find(|one| one.eq_ignore_ascii_case(said));
    }
    if head.field(&X_FORWARDED_FOR).is_some() {
        return None;
    }
    match elements(head).next()?.https? {
        true => Some(b"https"),
        false => Some(b"http"),
    }
}

/// The last member of a list on one line or several: what the peer itself wrote.
#[must_use]
pub(crate) fn last_member<'a>(head: &'a dyn HeadView, name: &HeaderName) -> Option<&'a [u8]> {
    let line = lines(head, name).pop()?;
    let member = line.rsplit(|&byte| byte == b',').next()?.trim_ascii();
    (!member.is_empty()).then_some(member)
}

/// The elements of Forwarded, from the right.
fn elements<'a>(head: &'a dyn HeadView) -> impl Iterator<Item = forwarded::Element> + 'a {
    let lines = lines(head, &FORWARDED);
    lines.into_iter().rev().flat_map(forwarded::forwarded)
}

fn lines<'a>(head: &'a dyn HeadView, name: &HeaderName) -> Vec<&'a [u8]> {
    let mut lines = Vec::new();
    head.each_field(name, &mut |line| lines.push(line));
    lines
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

    /// Fields as a trusted proxy sends them, and what is made of them.
    fn told(fields: &[(&'static str, &str)]) -> (String, Option<bool>) {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        let head = Head {
            method: &Method::GET,
            fields: &map,
        };
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        let peer = "10.0.0.2".parse().unwrap();
        (
            address(peer, &head, &trusted).to_string(),
            came_by_https(peer, &head, &trusted),
        )
    }

    #[test]
    fn forwarded_is_read_where_it_stands_alone() {
        for (fields, client, https) in [
            (
                &[("forwarded", "for=192.0.2.7;proto=https")][..],
                "192.0.2.7",
                Some(true),
            ),
            (
                &[("forwarded", "for=\"[2001:db8::1]:99\"")],
                "2001:db8::1",
                None,
            ),
            (
                &[("forwarded", "for=6.6.6.6"), ("forwarded", "for=192.0.2.7")],
                "192.0.2.7",
                None,
            ),
            (
                &[("forwarded", "for=6.6.6.6, for=_hidden, for=10.0.0.9")],
                "10.0.0.9",
                None,
            ),
            (
                &[(
                    "forwarded",
                    "for=6.6.6.6;proto=https, for=192.0.2.7;proto=http",
                )],
                "192.0.2.7",
                Some(false),
            ),
            (&[("forwarded", "for=unknown")], "10.0.0.2", None),
            (
                &[
                    ("forwarded", "for=\"6.6.6.6"),
                    ("forwarded", "for=192.0.2.7"),
                ],
                "192.0.2.7",
                None,
            ),
        ] {
            assert_eq!(told(fields), (client.to_owned(), https), "{fields:?}");
        }
    }

    #[test]
    fn where_both_are_there_and_disagree_the_one_that_proxies_write_counts() {
        let fields = [
            ("forwarded", "for=6.6.6.6;proto=https"),
            ("x-forwarded-for", "192.0.2.7"),
        ];
        assert_eq!(told(&fields), ("192.0.2.7".to_owned(), None));
        let fields = [
            ("x-forwarded-for", "garbage"),
            ("forwarded", "for=6.6.6.6"),
            ("x-forwarded-proto", "HTTPS"),
        ];
        assert_eq!(told(&fields), ("10.0.0.2".to_owned(), Some(true)));
    }

    #[test]
    fn of_several_schemes_the_one_that_the_proxy_wrote_counts() {
        let proto = "x-forwarded-proto";
        for (fields, https) in [
            (&[(proto, "https"), (proto, "http")][..], Some(false)),
            (&[(proto, "http"), (proto, "https")], Some(true)),
            (&[(proto, "http, HTTPS")], Some(true)),
            (&[(proto, "https,http")], Some(false)),
            (&[(proto, "wss")], Some(true)),
            (&[(proto, "ws")], Some(false)),
            (&[(proto, "https, ")], None),
            (&[(proto, "gopher")], None),
        ] {
            assert_eq!(told(fields).1, https, "{fields:?}");
        }
    }
}
