//! What an upstream sees of a request's fields.
//!
//! Fields of the connection stay behind (RFC 9110 section 7.6.1), and what the
//! edge knows is added: who asked, how, for which host, under which id.

use std::io::Write as _;
use std::net::IpAddr;

use http::HeaderMap;
use http::header::{self, HeaderName};

use super::client;
use super::head::HeadView;

static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
static FORWARDED: HeaderName = HeaderName::from_static("forwarded");
/// Who a client is by its certificate: the certificate (RFC 9440), its subject, its SHA-256.
pub(crate) static CLIENT_CERT: [HeaderName; 3] = [
    HeaderName::from_static("client-cert"),
    HeaderName::from_static("x-client-cert-subject"),
    HeaderName::from_static("x-client-cert-fingerprint"),
];
/// A request's id, towards upstreams and clients.
pub(crate) static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What the edge knows of a request.
pub(crate) struct Origin<'a> {
    /// Who connected (not who a Forwarded field claims).
    pub(crate) peer: &'a AddressText,
    /// Whether `peer` is a trusted proxy, whose forwarding fields are kept and extended.
    pub(crate) trusted: bool,
    /// The client's connection is encrypted.
    pub(crate) tls: bool,
    /// What the request says of a client's certificate was put there by the edge.
    pub(crate) certified: bool,
    /// Host and port in one spelling.
    pub(crate) authority: &'a str,
    /// 32 hexadecimal digits.
    pub(crate) id: &'a [u8],
    /// How the upstream is told that the client takes trailers; `None`: it does not.
    pub(crate) trailers: Option<TakesTrailers>,
}

/// How `TE: trailers` is said (RFC 9110 section 10.1.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TakesTrailers {
    /// With TE named in Connection: HTTP/1.1.
    OfConnection,
    /// Alone: HTTP/2.
    Alone,
}

/// Whether a client's field of this name, in whatever case, is taken over.
///
/// Fields that stay with the client's connection or that the edge writes itself ([`added`]) are
/// not, nor is the framing, which is each connection's own. Expect is answered here, when the body
/// is read. A name with an underscore is the same as one with a dash to CGI, WSGI and their like:
/// it could pass for a field that only the edge may write.
#[must_use]
pub(crate) fn is_taken_over(name: &[u8]) -> bool {
    let stays: &[&[u8]] = match name.len() {
        2 => &[b"te"],
        4 => &[b"host"],
        6 => &[b"expect"],
        7 => &[b"upgrade", b"trailer"],
        9 => &[b"forwarded"],
        10 => &[b"connection", b"keep-alive"],
        11 => &[b"client-cert"],
        12 => &[b"x-request-id"],
        15 => &[b"x-forwarded-for"],
        16 => &[b"x-forwarded-host", b"proxy-connection"],
        17 => &[b"x-forwarded-proto", b"transfer-encoding"],
        19 => &[b"proxy-authorization"],
        21 => &[b"x-client-cert-subject"],
        25 => &[b"x-client-cert-fingerprint"],
        _ => &[],
    };
    !stays.iter().any(|one| one.eq_ignore_ascii_case(name)) && memchr::memchr(b'_', name).is_none()
}

/// Calls `add` with each field that the edge adds to a request of `head`'s fields. `host`: what a
/// filter may have written there; else it goes up in its one spelling.
pub(crate) fn added(
    head: &dyn HeadView,
    origin: &Origin<'_>,
    host: Option<&[u8]>,
    add: &mut dyn FnMut(&'static HeaderName, &[u8]),
) {
    add(&header::HOST, host.unwrap_or(origin.authority.as_bytes()));
    let peer = origin.peer;
    if origin.trusted && head.field(&X_FORWARDED_FOR).is_some() {
        let mut chain = joined(head, &X_FORWARDED_FOR, b", ");
        chain.extend_from_slice(b", ");
        chain.extend_from_slice(peer.as_bytes());
        add(&X_FORWARDED_FOR, &chain);
    } else {
        add(&X_FORWARDED_FOR, peer.as_bytes());
    }
    if origin.trusted && head.field(&FORWARDED).is_some() {
        let mut chain = joined(head, &FORWARDED, b", ");
        // RFC 7239 section 6: an IPv6 address has brackets and quotes around it.
        let (before, behind) = match memchr::memchr(b':', peer.as_bytes()) {
            None => (&b", for="[..], &b""[..]),
            Some(_) => (&b", for=\"["[..], &b"]\""[..]),
        };
        for part in [before, peer.as_bytes(), behind] {
            chain.extend_from_slice(part);
        }
        add(&FORWARDED, &chain);
    }
    let (mut scheme, mut host) = (None, None);
    if origin.trusted {
        scheme = client::said_scheme(head);
        host = client::last_member(head, &X_FORWARDED_HOST);
    }
    let own = super::scheme(origin.tls).as_str().as_bytes();
    add(&X_FORWARDED_PROTO, scheme.unwrap_or(own));
    add(
        &X_FORWARDED_HOST,
        host.unwrap_or(origin.authority.as_bytes()),
    );
    add(&X_REQUEST_ID, origin.id);
    if origin.trusted || origin.certified {
        for name in &CLIENT_CERT {
            if let Some(value) = head.field(name) {
                add(name, value);
            }
        }
    }
    if let Some(how) = origin.trailers {
        add(&header::TE, b"trailers");
        if how == TakesTrailers::OfConnection {
            add(&header::CONNECTION, b"te");
        }
    }
}

/// Whether a request says something of a client's certificate.
pub(crate) fn claims_certificate(fields: &HeaderMap) -> bool {
    fields.keys().any(|name| CLIENT_CERT.contains(name))
}

/// Whether a TE field of the client counts and says that it takes trailers.
#[must_use]
pub(crate) fn takes_trailers(head: &dyn HeadView) -> bool {
    let mut says = false;
    head.each_field(&header::TE, &mut |line| {
        says |= members(line).any(|one| one.eq_ignore_ascii_case(b"trailers"));
    });
    says
}

fn members(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|&byte| byte == b',').map(<[u8]>::trim_ascii)
}

/// The values of all lines of a field as one.
#[must_use]
pub(crate) fn joined(head: &dyn HeadView, name: &HeaderName, separator: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    head.each_field(name, &mut |value| {
        if !all.is_empty() {
            all.extend_from_slice(separator);
        }
        all.extend_from_slice(value);
    });
    all
}

/// An address as text. Made once for a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AddressText {
    text: [u8; Self::LONGEST],
    len: usize,
}

impl AddressText {
    /// Of an IPv6 address with an IPv4 address at its end.
    const LONGEST: usize = 46;

    /// An IPv4 address in IPv6 is written as what it is.
    #[must_use]
    pub(crate) fn new(address: IpAddr) -> Self {
        let mut text = [0; Self::LONGEST];
        let mut rest = &mut text[..];
        let room = rest.len();
        // It has room for the longest one.
        let _ = write!(rest, "{}", address.to_canonical());
        let len = room - rest.len();
        Self { text, len }
    }

    fn as_bytes(&self) -> &[u8] {
        &self.text[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, Method};

    use super::super::head::Head;
    use super::*;

    fn fields(given: &[(&'static str, &'static str)], trusted: bool) -> Vec<(String, String)> {
        let mut fields = HeaderMap::new();
        for (name, value) in given {
            fields.append(*name, HeaderValue::from_static(value));
        }
        let head = Head {
            method: &Method::GET,
            fields: &fields,
        };
        let origin = Origin {
            peer: &AddressText::new("::ffff:192.0.2.7".parse().unwrap()),
            trusted,
            tls: true,
            certified: false,
            authority: "shop.example",
            id: b"id",
            trailers: None,
        };
        let mut all = Vec::new();
        added(
            &head,
            &origin,
            head.field(&header::HOST),
            &mut |name, value| {
                all.push((
                    name.as_str().to_owned(),
                    String::from_utf8(value.to_vec()).unwrap(),
                ));
            },
        );
        all
    }

    fn pairs(wanted: &[(&str, &str)]) -> Vec<(String, String)> {
        wanted
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    const GIVEN: [(&str, &str); 4] = [
        ("x-forwarded-for", "203.0.113.9"),
        ("x-forwarded-for", "198.51.100.1"),
        ("x-forwarded-proto", "http"),
        ("forwarded", "for=203.0.113.9"),
    ];

    #[test]
    fn what_strangers_claim_is_replaced() {
        assert_eq!(
            fields(&GIVEN, false),
            pairs(&[
                ("host", "shop.example"),
                ("x-forwarded-for", "192.0.2.7"),
                ("x-forwarded-proto", "https"),
                ("x-forwarded-host", "shop.example"),
                ("x-request-id", "id"),
            ])
        );
    }

    #[test]
    fn what_trusted_proxies_say_is_kept_and_extended() {
        assert_eq!(
            fields(&GIVEN, true),
            pairs(&[
                ("host", "shop.example"),
                ("x-forwarded-for", "203.0.113.9, 198.51.100.1, 192.0.2.7"),
                ("forwarded", "for=203.0.113.9, for=192.0.2.7"),
                ("x-forwarded-proto", "http"),
                ("x-forwarded-host", "shop.example"),
                ("x-request-id", "id"),
            ])
        );
    }

    #[test]
    fn of_lists_the_last_member_goes_up_and_the_scheme_of_forwarded_too() {
        let of = |given: &[(&'static str, &'static str)], name: &str| {
            let fields = fields(given, true);
            let found = fields.into_iter().find(|(key, _)| key == name);
            found.expect("it is added").1
        };
        let (proto, host) = ("x-forwarded-proto", "x-forwarded-host");
        assert_eq!(of(&[(proto, "https"), (proto, "http")], proto), "http");
        assert_eq!(of(&[(proto, "https, http")], proto), "http");
        assert_eq!(of(&[(proto, "x\t")], proto), "https", "its own");
        assert_eq!(of(&[("forwarded", "for=a;proto=http")], proto), "http");
        assert_eq!(of(&[(host, "evil.example, a.example")], host), "a.example");
        assert_eq!(of(&[(host, "evil.example"), (host, "b")], host), "b");
        assert_eq!(of(&[("host", "inner.example")], "host"), "inner.example");
    }

    #[test]
    fn a_client_that_takes_trailers_says_so_by_one_word() {
        let takes = |value: &'static str| {
            let mut fields = HeaderMap::new();
            fields.append(header::TE, HeaderValue::from_static(value));
            takes_trailers(&Head {
                method: &Method::GET,
                fields: &fields,
            })
        };
        assert!(takes("trailers") && takes("gzip;q=0.5, Trailers"));
        assert!(!takes("gzip") && !takes("trailersx"));
    }

    #[test]
    fn names_are_known_in_any_case() {
        for stays in ["Host", "TE", "x-Forwarded-FOR", "Proxy-Connection", "x_a"] {
            assert!(!is_taken_over(stays.as_bytes()), "{stays}");
        }
        for goes in ["Accept", "cookie", "x-forwarded-by", "hosts", "tea"] {
            assert!(is_taken_over(goes.as_bytes()), "{goes}");
        }
    }

    #[test]
    fn the_longest_address_has_room() {
        let longest = "1111:2222:3333:4444:5555:6666:7777:8888";
        let address = AddressText::new(longest.parse().unwrap());
        assert_eq!(address.as_bytes(), longest.as_bytes());
    }
}
