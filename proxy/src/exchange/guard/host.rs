//! Who a request is for: the value of Host, of an absolute target's authority,
//! and of HTTP/2's `:authority`, held to one grammar.
//!
//! Narrower than RFC 3986's reg-name, which allows what no DNS name has
//! (escapes, `!$&'()*+,;=`): those only serve to make two servers read two
//! hosts out of one value. It resolves nothing and lower-cases only on demand.

use std::borrow::Cow;
use std::cell::RefCell;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::octets::{LABEL, is};
use super::reject::Reject;

/// Longest host name (RFC 1035 section 2.3.4, in its textual form).
const MAX_NAME: usize = 253;
/// Longest label of it.
const MAX_LABEL: usize = 63;

/// `uri-host [ ":" port ]` (RFC 9110 section 7.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Authority<'a> {
    /// As it came, but without one trailing dot; an IPv6 address keeps its brackets. ASCII.
    host: &'a [u8],
    /// The port, when one is given.
    pub(crate) port: Option<u16>,
}

impl<'a> Authority<'a> {
    /// The host as text, which is not looked at again for each of those who ask whether it is one.
    ///
    /// # Errors
    /// None: it was held to the grammar.
    pub(crate) fn host(&self) -> Result<&'a str, Reject> {
        std::str::from_utf8(self.host).map_err(|_| Reject::BadHost)
    }

    /// Whether both name the same host and port, where a missing port is `default_port`.
    #[must_use]
    pub(crate) fn same_as(&self, other: &Authority<'_>, default_port: u16) -> bool {
        self.host.eq_ignore_ascii_case(other.host)
            && self.port.unwrap_or(default_port) == other.port.unwrap_or(default_port)
    }
}

/// The host in a Host value, without its port and one trailing dot, in the
/// letters it came in; an IPv6 address keeps its brackets.
///
/// # Errors
/// [`Reject::BadHost`] when it is empty, has userinfo, or is neither a name of
/// letters, digits, `-`, `_` and single dots, nor an address.
#[cfg(test)]
pub(crate) fn host_of(value: &[u8]) -> Result<&str, Reject> {
    authority_of(value)?.host()
}

/// Host and port of a Host value.
///
/// # Errors
/// As [`host_of`], and for a port that is no number up to 65535.
pub(crate) fn authority_of(value: &[u8]) -> Result<Authority<'_>, Reject> {
    if let Some(known) = Accepted::last(value) {
        return Ok(known);
    }
    let authority = parse(value)?;
    Accepted::keep(value, &authority);
    Ok(authority)
}

/// The value that a thread accepted last: a client asks for one host many times, and most shops
/// have one.
#[derive(Clone, Copy)]
struct Accepted {
    value: [u8; Self::LONGEST],
    len: u8,
    /// Octets of its host.
    host: u8,
    port: Option<u16>,
}

impl Accepted {
    /// Longer ones are not kept.
    const LONGEST: usize = 64;

    const NONE: Self = Self {
        value: [0; Self::LONGEST],
        len: 0,
        host: 0,
        port: None,
    };

    fn last(value: &[u8]) -> Option<Authority<'_>> {
        LAST.with_borrow(|last| {
            if value.is_empty() || last.value.get(..usize::from(last.len)) != Some(value) {
                return None;
            }
            let host = value.get(..usize::from(last.host))?;
            Some(Authority {
                host,
                port: last.port,
            })
        })
    }

    fn keep(value: &[u8], authority: &Authority<'_>) {
        let (Ok(len), Ok(host)) = (
            u8::try_from(value.len()),
            u8::try_from(authority.host.len()),
        ) else {
            return;
        };
        LAST.with_borrow_mut(|last| {
            if let Some(room) = last.value.get_mut(..value.len()) {
                room.copy_from_slice(value);
                (last.len, last.host, last.port) = (len, host, authority.port);
            }
        });
    }
}

thread_local! {
    static LAST: RefCell<Accepted> = const { RefCell::new(Accepted::NONE) };
}

fn parse(value: &[u8]) -> Result<Authority<'_>, Reject> {
    let text = std::str::from_utf8(value).map_err(|_| Reject::BadHost)?;
    let (host, rest) = if text.starts_with('[') {
        let end = text.find(']').ok_or(Reject::BadHost)? + 1;
        (literal(&text[..end])?, &text[end..])
    } else {
        let end = text.find(':').unwrap_or(text.len());
        (name(&text[..end])?, &text[end..])
    };
    let port = match rest.strip_prefix(':') {
        Some(digits) => port(digits)?,
        None if rest.is_empty() => None,
        None => return Err(Reject::BadHost),
    };
    Ok(Authority {
        host: host.as_bytes(),
        port,
    })
}

/// The host in lower case; borrowed when it already is.
#[must_use]
pub(crate) fn lower(host: &str) -> Cow<'_, str> {
    if host.bytes().any(|b| b.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    }
}

/// `[` IPv6address `]`; zones and IPvFuture are refused.
fn literal(text: &str) -> Result<&str, Reject> {
    let inner = text.trim_start_matches('[').trim_end_matches(']');
    match inner.parse::<Ipv6Addr>() {
        Ok(_) if inner.len() + 2 == text.len() => Ok(text),
        _ => Err(Reject::BadHost),
    }
}

fn name(text: &str) -> Result<&str, Reject> {
    let name = text.strip_suffix('.').unwrap_or(text);
    if name.is_empty() || name.len() > MAX_NAME {
        return Err(Reject::BadHost);
    }
    let mut label = 0;
    let mut numeric = true;
    for byte in name.bytes() {
        if byte == b'.' {
            if label == 0 {
                return Err(Reject::BadHost);
            }
            label = 0;
            numeric = true;
            continue;
        }
        label += 1;
        numeric &= byte.is_ascii_digit();
        if label > MAX_LABEL || !is(byte, LABEL) {
            return Err(Reject::BadHost);
        }
    }
    // No top-level domain is a number: what ends in one is an IPv4 address or nothing.
    if label == 0 || (numeric && name.parse::<Ipv4Addr>().is_err()) {
        return Err(Reject::BadHost);
    }
    Ok(name)
}

/// `*DIGIT`: an empty port is allowed (RFC 3986 section 3.2.3) and says nothing.
fn port(digits: &str) -> Result<Option<u16>, Reject> {
    if digits.is_empty() {
        return Ok(None);
    }
    if digits.len() > 5 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Reject::BadHost);
    }
    digits.parse().map(Some).map_err(|_| Reject::BadHost)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{authority_of, host_of, lower};

    #[test]
    fn a_value_reads_the_same_when_it_was_the_last_one() {
        for value in [
            "shop.example.:80",
            "[2001:db8::1]:1",
            "a",
            "a:",
            &"b".repeat(63),
        ] {
            let first = authority_of(value.as_bytes());
            assert_eq!(authority_of(value.as_bytes()), first, "{value}");
            assert!(authority_of(format!("{value}/").as_bytes()).is_err());
            assert!(authority_of(b"").is_err());
            assert_eq!(authority_of(value.as_bytes()), first, "{value}");
        }
    }

    #[test]
    fn names_and_addresses_are_accepted() {
        for (value, host, port) in [
            ("shop.example", "shop.example", None),
            ("Shop.Example:8443", "Shop.Example", Some(8443)),
            ("shop.example.", "shop.example", None),
            ("shop.example.:80", "shop.example", Some(80)),
            ("shop.example:", "shop.example", None),
            ("app_1.internal", "app_1.internal", None),
            ("localhost", "localhost", None),
            ("127.0.0.1:80", "127.0.0.1", Some(80)),
            ("[::1]", "[::1]", None),
            ("[2001:db8::1]:443", "[2001:db8::1]", Some(443)),
            ("1.example", "1.example", None),
        ] {
            let authority = authority_of(value.as_bytes()).expect(value);
            assert_eq!(
                (authority.host(), authority.port),
                (Ok(host), port),
                "{value}"
            );
        }
    }

    #[test]
    fn what_names_no_host_is_refused() {
        let long = format!("{}.example", "a".repeat(64));
        for value in [
            "",
            ".",
            "..",
            ":80",
            "a..b",
            ".a",
            "a b",
            "a,b",
            "a/b",
            "user@a",
            "a:b@c",
            "a%41",
            "a:99999",
            "a:+1",
            "a:80:80",
            "[::1",
            "::1",
            "[]",
            "[::1]x",
            "[[::1]]",
            "[::1%25eth0]",
            "[v1.x]",
            "1.2.3",
            "1.2.3.999",
            "1.2.3.4.5",
            "012.1.1.1",
            "a\0",
            "a\t",
            "ä",
            "a#",
            "a?",
            "http://a",
            "*.a",
            &long,
        ] {
            assert!(host_of(value.as_bytes()).is_err(), "{value:?} is no host");
        }
        assert!(host_of(b"\xff").is_err());
    }

    #[test]
    fn lower_case_costs_nothing_when_it_is_there_already() {
        assert!(matches!(
            lower("shop.example"),
            std::borrow::Cow::Borrowed(_)
        ));
        assert_eq!(lower("SHOP.example"), "shop.example");
    }

    proptest! {
        #[test]
        fn no_value_panics_and_an_accepted_host_is_accepted_again(value in "[a-z0-9.:\\[\\]@_-]{0,24}") {
            if let Ok(host) = host_of(value.as_bytes()) {
                prop_assert_eq!(host_of(host.as_bytes()), Ok(host));
            }
        }
    }
}
