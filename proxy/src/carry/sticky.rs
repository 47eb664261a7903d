//! The cookie that keeps a client on its endpoint, on its way up and down.

use std::time::SystemTime;

use http::header::{self, HeaderValue};
use pingora::http::{RequestHeader, ResponseHeader};

use super::upstream::{Incoming, Outgoing};
use crate::upstreams::{Kept, Upstream};

/// Cookies of the name that are looked into: a client that sends more of them is up to something, and
/// each costs a decryption.
const MOST_COOKIES: usize = 4;

/// What the client's cookie says. It goes no further: the app has no use for it.
pub(super) fn take(
    upstream: &Upstream,
    head: &mut RequestHeader,
    now: SystemTime,
) -> pingora::Result<Option<Kept>> {
    let Some(sticky) = &upstream.common().sticky else {
        return Ok(None);
    };
    // There is one line of them: those of HTTP/2 were joined.
    let Some(cookies) = head.headers.get(header::COOKIE) else {
        return Ok(None);
    };
    let name = sticky.settings.cookie.as_bytes();
    let mut kept = None;
    let mut others: Vec<u8> = Vec::with_capacity(cookies.len());
    let mut found = 0;
    for pair in cookies.as_bytes().split(|&byte| byte == b';') {
        let pair = pair.trim_ascii();
        match pair.strip_prefix(name).and_then(|it| it.strip_prefix(b"=")) {
            Some(value) => {
                found += 1;
                if kept.is_none() && found <= MOST_COOKIES {
                    kept = sticky.read(value, now);
                }
            }
            None => {
                if !others.is_empty() {
                    others.extend_from_slice(b"; ");
                }
                others.extend_from_slice(pair);
            }
        }
    }
    if found == 0 {
        return Ok(None);
    }
    match HeaderValue::from_maybe_shared(bytes::Bytes::from(others)) {
        Ok(others) if !others.is_empty() => head.insert_header(header::COOKIE, others)?,
        _ => {
            head.remove_header(&header::COOKIE);
        }
    }
    Ok(kept)
}

/// Binds the client to the endpoint that answered, unless it is bound to it already.
///
/// A reply that any cache on the way may store gets no cookie: it would bind everybody.
pub(super) fn give(
    incoming: &Incoming,
    outgoing: &Outgoing,
    head: &mut ResponseHeader,
    secure: bool,
    now: SystemTime,
) -> pingora::Result<()> {
    let (Some(sticky), Some(hash)) = (incoming.sticky_cookies(), incoming.sticky()) else {
        return Ok(());
    };
    let bound = outgoing
        .sticky
        .is_some_and(|kept| kept.hash == hash && !kept.renew);
    if bound || is_for_all(head) {
        return Ok(());
    }
    if let Some(cookie) = sticky.write(hash, secure, now) {
        head.append_header(header::SET_COOKIE, cookie)?;
    }
    Ok(())
}

/// Whether the app says that caches may share it (RFC 9111 section 5.2.2).
fn is_for_all(head: &ResponseHeader) -> bool {
    let lines = head.headers.get_all(header::CACHE_CONTROL);
    lines.iter().any(|line| {
        line.as_bytes().split(|&byte| byte == b',').any(|word| {
            let word = word.trim_ascii();
            word.eq_ignore_ascii_case(b"public")
                || word
                    .get(..8)
                    .is_some_and(|start| start.eq_ignore_ascii_case(b"s-maxage"))
        })
    })
}
