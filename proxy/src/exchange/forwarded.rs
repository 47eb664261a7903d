//! Who forwarded a request for whom: X-Forwarded-For, and Forwarded (RFC 7239).
//!
//! Both are lists to which each proxy appends whom it heard, so they are read from the right: what a
//! trusted proxy says of its peer is believed, and what stands further left only if that peer is a
//! trusted proxy, too. What nobody can read ends the walk. Every octet is looked at once.

use std::net::{IpAddr, SocketAddr};

/// Who stands at the end of a chain of trusted proxies that begins with `peer`. `hops`: the list's
/// members from the right; `None` among them: one that names no address (RFC 7239 section 6: `unknown`
/// and obfuscated identifiers), or is no member at all.
#[must_use]
pub(crate) fn walk(
    peer: IpAddr,
    hops: impl Iterator<Item = Option<IpAddr>>,
    is_trusted: impl Fn(IpAddr) -> bool,
) -> IpAddr {
    let mut client = peer.to_canonical();
    for hop in hops {
        if !is_trusted(client) {
            break;
        }
        let Some(hop) = hop else {
            // What stands further left was vouched for by nobody who is known.
            break;
        };
        client = hop;
    }
    client
}

/// The members of one line of X-Forwarded-For, from the right.
pub(crate) fn x_forwarded_for(line: &[u8]) -> impl Iterator<Item = Option<IpAddr>> {
    line.rsplit(|&byte| byte == b',').map(address)
}

/// What one element of Forwarded says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Element {
    /// `for`, where it is an address.
    pub(crate) client: Option<IpAddr>,
    /// `proto` is `https` (true) or `http` (false).
    pub(crate) https: Option<bool>,
}

/// The elements of one line of Forwarded, from the right.
///
/// They are told apart from the right, too: a quote that a client has left open stands left of what a
/// proxy appended, and must not swallow it. One that breaks the grammar of RFC 7239 section 4 says
/// nothing.
#[must_use]
pub(crate) fn forwarded(line: &[u8]) -> Vec<Element> {
    let mut elements = Vec::new();
    let (mut end, mut is_quoted) = (line.len(), false);
    for at in (0..line.len()).rev() {
        match line[at] {
            b'"' if at == 0 || line[at - 1] != b'\\' => is_quoted = !is_quoted,
            b',' if !is_quoted => {
                elements.push(element(&line[at + 1..end]).unwrap_or_default());
                end = at;
            }
            _ => {}
        }
    }
    elements.push(element(&line[..end]).unwrap_or_default());
    elements
}

/// `[ pair ] *( ";" [ pair ] )`.
fn element(text: &[u8]) -> Option<Element> {
    let mut element = Element::default();
    let mut seen = Seen::default();
    let mut rest = text.trim_ascii();
    loop {
        if !matches!(rest.first(), None | Some(b';')) {
            rest = pair(rest, &mut element, &mut seen)?;
        }
        match rest.split_first() {
            Some((b';', more)) => rest = more.trim_ascii_start(),
            None => return Some(element),
            Some(_) => return None,
        }
    }
}

/// Which parameters an element had: each stands in it once at most.
#[derive(Default)]
struct Seen {
    client: bool,
    proto: bool,
}

/// `token "=" ( token / quoted-string )` at the start of `rest`; what follows it.
fn pair<'a>(rest: &'a [u8], element: &mut Element, seen: &mut Seen) -> Option<&'a [u8]> {
    let (name, rest) = token(rest)?;
    let rest = rest.strip_prefix(b"=")?;
    let (value, rest) = match rest.first() {
        Some(b'"') => quoted(rest.get(1..)?)?,
        _ => {
            let (value, rest) = token(rest)?;
            (value.to_vec(), rest)
        }
    };
    if name.eq_ignore_ascii_case(b"for") {
        if std::mem::replace(&mut seen.client, true) {
            return None;
        }
        element.client = address(&value);
    } else if name.eq_ignore_ascii_case(b"proto") {
        if std::mem::replace(&mut seen.proto, true) {
            return None;
        }
        element.https = match value.to_ascii_lowercase().as_slice() {
            b"https" => Some(true),
            b"http" => Some(false),
            _ => None,
        };
    }
    Some(rest.trim_ascii_start())
}

fn token(rest: &[u8]) -> Option<(&[u8], &[u8])> {
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    let end = rest.iter().position(|byte| !is_token(byte));
    let (token, rest) = rest.split_at(end.unwrap_or(rest.len()));
    (!token.is_empty()).then_some((token, rest))
}

/// What stands in quotes, behind the first of them (RFC 9110 section 5.6.4).
fn quoted(rest: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut value = Vec::new();
    let mut at = 0;
    loop {
        match *rest.get(at)? {
            b'"' => return Some((value, &rest[at + 1..])),
            b'\\' => {
                value.push(*rest.get(at + 1)?);
                at += 2;
            }
            byte => {
                value.push(byte);
                at += 1;
            }
        }
    }
}

/// An address, with a port or in brackets as it is written in either field; `None`: something else.
#[must_use]
pub(crate) fn address(text: &[u8]) -> Option<IpAddr> {
    // The longest has brackets and a port; what is longer need not be looked at.
    if text.len() > 128 {
        return None;
    }
    let text = std::str::from_utf8(text).ok()?.trim();
    let plain = || text.parse::<IpAddr>().ok();
    let with_port = || text.parse::<SocketAddr>().ok().map(|both| both.ip());
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    let found = plain().or_else(with_port).or_else(bracketed);
    found.map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn clients(line: &str) -> Vec<Option<String>> {
        let elements = forwarded(line.as_bytes());
        let clients = elements.iter().map(|element| element.client);
        clients.map(|it| it.map(|it| it.to_string())).collect()
    }

    #[test]
    fn elements_are_read_from_the_right() {
        let some = |text: &str| Some(text.to_owned());
        for (line, wanted) in [
            ("for=192.0.2.43", vec![some("192.0.2.43")]),
            (
                "for=192.0.2.43, for=198.51.100.17;by=203.0.113.60;proto=http;host=example.com",
                vec![some("198.51.100.17"), some("192.0.2.43")],
            ),
            (
                "For=\"[2001:db8:cafe::17]:4711\"",
                vec![some("2001:db8:cafe::17")],
            ),
            ("for=\"[2001:db8::1]\"", vec![some("2001:db8::1")]),
            ("for=\"192.0.2.43:47011\"", vec![some("192.0.2.43")]),
            ("for=\"\\192.0.2.43\"", vec![some("192.0.2.43")]),
            (
                "for=unknown, for=_hidden, for=\"_S:_p\"",
                vec![None, None, None],
            ),
            ("proto=https", vec![None]),
            ("for=\"::ffff:192.0.2.7\"", vec![some("192.0.2.7")]),
            ("for=\"a,b;c=\\\"d\"", vec![None]),
            (
                "for=192.0.2.1,, for=192.0.2.2",
                vec![some("192.0.2.2"), None, some("192.0.2.1")],
            ),
        ] {
            assert_eq!(clients(line), wanted, "{line}");
        }
    }

    #[test]
    fn what_breaks_the_grammar_says_nothing() {
        for line in [
            "for",
            "for=",
            "for =192.0.2.1",
            "for= 192.0.2.1",
            "for=[2001:db8::1]",
            "for=192.0.2.1:80",
            "for=\"192.0.2.1",
            "for=\"192.0.2.1\\",
            "for=\"192.0.2.1\"x",
            "for=192.0.2.1 for=192.0.2.2",
            "for=192.0.2.1;for=192.0.2.2",
            "=192.0.2.1",
            "for=192.0.2.1; proto=http; proto=https",
            "for=192.0.2.1\u{1}",
        ] {
            assert_eq!(clients(line), [None], "{line}");
            let behind = format!("{line}, for=192.0.2.9");
            assert_eq!(
                clients(&behind)[0].as_deref(),
                Some("192.0.2.9"),
                "{behind}"
            );
        }
    }

    #[test]
    fn the_scheme_is_one_of_two() {
        let https = |line: &str| forwarded(line.as_bytes())[0].https;
        assert_eq!(https("proto=HTTPS"), Some(true));
        assert_eq!(https("proto=\"http\""), Some(false));
        assert_eq!(https("proto=gopher"), None);
    }

    #[test]
    fn the_walk_ends_at_the_first_stranger_and_at_what_nobody_can_read() {
        let trusted = |address: IpAddr| address.to_string().starts_with("10.");
        let peer = "10.0.0.1".parse().unwrap();
        let walked = |line: &str| walk(peer, x_forwarded_for(line.as_bytes()), trusted).to_string();
        assert_eq!(walked("6.6.6.6, 192.0.2.1, 10.0.0.2"), "192.0.2.1");
        assert_eq!(walked("6.6.6.6, unknown, 10.0.0.2"), "10.0.0.2");
        assert_eq!(walked("10.0.0.9"), "10.0.0.9");
        assert_eq!(walked(""), "10.0.0.1");
        assert_eq!(
            walked("6.6.6.6,"),
            "10.0.0.1",
            "an empty member is no address"
        );
        assert_eq!(walked("fe80::1%eth0"), "10.0.0.1");
        let stranger = "192.0.2.9".parse().unwrap();
        let hops = x_forwarded_for(b"6.6.6.6");
        assert_eq!(walk(stranger, hops, trusted).to_string(), "192.0.2.9");
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = forwarded(&line);
            let _ = x_forwarded_for(&line).count();
        }

        /// Whatever a client wrote itself stands left of what the proxy appended, and changes nothing.
        #[test]
        fn a_client_cannot_become_somebody_else(own in "[ -~]{0,80}", quote in any::<bool>()) {
            let peer = "10.0.0.1".parse().unwrap();
            let trusted = |address: IpAddr| address == peer;
            let client: IpAddr = "192.0.2.7".parse().unwrap();
            let line = format!("{own}, 192.0.2.7");
            prop_assert_eq!(walk(peer, x_forwarded_for(line.as_bytes()), trusted), client);
            let line = match quote {
                true => format!("{own}, for=\"192.0.2.7\""),
                false => format!("{own}, for=192.0.2.7"),
            };
            let hops = forwarded(line.as_bytes());
            let found = walk(peer, hops.iter().map(|hop| hop.client), trusted);
            prop_assert_eq!(found, client, "{}", line);
        }
    }
}
