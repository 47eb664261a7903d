//! The head that an upstream sees, made from the head that a client sent.
//!
//! Fields of the connection stay behind (RFC 9110 section 7.6.1), what the edge
//! knows is added (who asked, how, under which id), and the target is the one
//! that was matched: an upstream never sees a path that the router did not.

use std::net::IpAddr;

use http::Version;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use pingora::http::RequestHeader;

use crate::exchange;
use crate::exchange::guard::Upgrade;
use crate::exchange::head::HeadView;
use crate::listen::ConnInfo;
use crate::snapshot::Snapshot;

static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
static FORWARDED: HeaderName = HeaderName::from_static("forwarded");
pub(super) static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
static KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
static PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// What the edge adds.
pub(super) struct Origin<'a> {
    /// Who connected (not who a Forwarded field claims).
    pub(super) peer: IpAddr,
    /// Whether `peer` is a trusted proxy, whose forwarding fields are kept and extended.
    pub(super) trusted: bool,
    /// The client's connection is encrypted.
    pub(super) tls: bool,
    /// Host and port in one spelling.
    pub(super) authority: &'a str,
    /// 32 hexadecimal digits.
    pub(super) id: &'a HeaderValue,
    /// Normalised (and rewritten) path and query.
    pub(super) target: &'a str,
    /// What the client wants to change to.
    pub(super) upgrade: Upgrade,
}

/// The scheme that the client used: a trusted proxy in front may have ended its TLS.
pub(super) fn scheme(snapshot: &Snapshot, info: &ConnInfo, head: &dyn HeadView) -> &'static str {
    let trusted = &snapshot.config.server.trusted_proxies;
    match head.field(&X_FORWARDED_PROTO) {
        Some(said) if exchange::client::is_trusted(info.peer.ip(), trusted) => {
            exchange::scheme(said.eq_ignore_ascii_case(b"https")).as_str()
        }
        _ => exchange::scheme(info.tls.is_some()).as_str(),
    }
}

/// The head that goes up for the client's `head`.
///
/// Built anew instead of changed in place: most fields are taken over as they
/// are, and a fresh map spares looking for those that are not. Content-Length is
/// left; the carrier sets the framing that it uses.
pub(super) fn prepare(head: &RequestHeader, origin: &Origin<'_>) -> pingora::Result<RequestHeader> {
    let mut fields = HeaderMap::with_capacity(head.headers.len() + 8);
    for (name, value) in &head.headers {
        if is_forwarded(name) {
            fields.append(name, value.clone());
        }
    }
    let host = match head.headers.get(header::HOST) {
        Some(host) => host.clone(),
        None => value(origin.authority)?,
    };
    if origin.upgrade == Upgrade::WebSocket
        && let Some(upgrade) = head.headers.get(header::UPGRADE)
    {
        fields.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        fields.insert(header::UPGRADE, upgrade.clone());
    }
    forward(&mut fields, &head.headers, origin)?;
    fields.insert(header::HOST, host);
    fields.insert(&X_REQUEST_ID, origin.id.clone());
    join_cookies(&mut fields);
    let (mut parts, ()) = http::Request::new(()).into_parts();
    parts.method = head.method.clone();
    parts.version = Version::HTTP_11;
    parts.headers = fields;
    let mut prepared = RequestHeader::from(parts);
    // Set as text: what the router matched goes up byte for byte.
    prepared.set_raw_path(origin.target.as_bytes())?;
    Ok(prepared)
}

/// Fields that stay with the client's connection (RFC 9110 section 7.6.1) or that the edge writes
/// itself are not taken over. Expect is answered here, when the body is read. A name with an
/// underscore is the same as one with a dash to CGI, WSGI and their like: it could pass for a
/// field that only the edge may write.
fn is_forwarded(name: &HeaderName) -> bool {
    !name.as_str().contains('_')
        && ![
            &header::HOST,
            &header::CONNECTION,
            &header::UPGRADE,
            &header::EXPECT,
            &header::TE,
            &header::TRAILER,
            &header::TRANSFER_ENCODING,
            &header::PROXY_AUTHORIZATION,
            &KEEP_ALIVE,
            &PROXY_CONNECTION,
            &X_REQUEST_ID,
            &X_FORWARDED_FOR,
            &X_FORWARDED_PROTO,
            &X_FORWARDED_HOST,
            &FORWARDED,
        ]
        .contains(&name)
}

/// Makes a client's head the one that filters see: without the fields that Connection names
/// (RFC 9110 section 7.6.1), and with the host in its one spelling.
pub(super) fn enter(head: &mut RequestHeader, authority: &str) -> pingora::Result<()> {
    if head.headers.contains_key(header::CONNECTION) {
        for name in nominated(&head.headers) {
            head.remove_header(&name);
        }
    }
    head.insert_header(header::HOST, value(authority)?)
}

fn value(text: &str) -> pingora::Result<HeaderValue> {
    HeaderValue::from_str(text)
        .map_err(|_| pingora::Error::new_down(pingora::ErrorType::InvalidHTTPHeader))
}

/// The fields that Connection names, but for those that stay for its own sake, and those that a
/// client may not take away because they decide who gets what.
pub(super) fn nominated(headers: &HeaderMap) -> Vec<HeaderName> {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|line| line.as_bytes().split(|&byte| byte == b','))
        .map(<[u8]>::trim_ascii)
        // What stands there nearly always, and names no field.
        .filter(|option| {
            !option.eq_ignore_ascii_case(b"keep-alive") && !option.eq_ignore_ascii_case(b"close")
        })
        .filter_map(|option| HeaderName::from_bytes(option).ok())
        .filter(|name| {
            ![
                header::CONNECTION,
                header::UPGRADE,
                header::AUTHORIZATION,
                header::COOKIE,
                header::HOST,
                header::CONTENT_LENGTH,
                header::TRANSFER_ENCODING,
                header::EXPECT,
            ]
            .contains(name)
        })
        .collect()
}

fn forward(fields: &mut HeaderMap, asked: &HeaderMap, origin: &Origin<'_>) -> pingora::Result<()> {
    let theirs = |name: &HeaderName| asked.get(name).filter(|_| origin.trusted).cloned();
    let peer = origin.peer.to_canonical();
    let chain = match theirs(&X_FORWARDED_FOR) {
        Some(_) => {
            let mut chain = joined(asked, &X_FORWARDED_FOR, b", ");
            chain.extend_from_slice(format!(", {peer}").as_bytes());
            HeaderValue::from_maybe_shared(bytes::Bytes::from(chain)).ok()
        }
        None => HeaderValue::from_str(&peer.to_string()).ok(),
    };
    if let Some(chain) = chain {
        fields.insert(&X_FORWARDED_FOR, chain);
    }
    if let Some(forwarded) = theirs(&FORWARDED) {
        fields.insert(&FORWARDED, forwarded);
    }
    let scheme = if origin.tls { "https" } else { "http" };
    let scheme = theirs(&X_FORWARDED_PROTO).unwrap_or(HeaderValue::from_static(scheme));
    fields.insert(&X_FORWARDED_PROTO, scheme);
    let host = match theirs(&X_FORWARDED_HOST) {
        Some(host) => host,
        None => value(origin.authority)?,
    };
    fields.insert(&X_FORWARDED_HOST, host);
    Ok(())
}

fn joined(headers: &HeaderMap, name: &HeaderName, separator: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    for value in headers.get_all(name) {
        if !all.is_empty() {
            all.extend_from_slice(separator);
        }
        all.extend_from_slice(value.as_bytes());
    }
    all
}

/// HTTP/2 may spread cookies over lines; HTTP/1.1 has one (RFC 9113 section 8.2.3).
fn join_cookies(fields: &mut HeaderMap) {
    if fields.get_all(header::COOKIE).iter().nth(1).is_none() {
        return;
    }
    let all = joined(fields, &header::COOKIE, b"; ");
    if let Ok(all) = HeaderValue::from_maybe_shared(bytes::Bytes::from(all)) {
        fields.insert(header::COOKIE, all);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepared(fields: &[(&'static str, &'static str)], trusted: bool) -> RequestHeader {
        let mut head = RequestHeader::build_no_case("GET", b"/raw", None).unwrap();
        for (name, value) in fields {
            head.append_header(*name, *value).unwrap();
        }
        let origin = Origin {
            peer: "192.0.2.7".parse().unwrap(),
            trusted,
            tls: true,
            authority: "shop.example",
            id: &HeaderValue::from_static("id"),
            target: "/matched?q=1",
            upgrade: Upgrade::None,
        };
        enter(&mut head, origin.authority).unwrap();
        prepare(&head, &origin).unwrap()
    }

    fn value<'a>(head: &'a RequestHeader, name: &str) -> Option<&'a str> {
        head.headers.get(name).map(|value| value.to_str().unwrap())
    }

    #[test]
    fn fields_of_the_connection_stay_behind() {
        let head = prepared(
            &[
                ("host", "shop.example"),
                ("connection", "close, x-secret"),
                ("x-secret", "1"),
                ("keep-alive", "timeout=5"),
                ("upgrade", "h2c"),
                ("te", "trailers"),
                ("accept", "*/*"),
            ],
            false,
        );
        for gone in ["connection", "x-secret", "keep-alive", "upgrade", "te"] {
            assert_eq!(
                value(&head, gone),
                None,
                "{gone} must not reach an upstream"
            );
        }
        assert_eq!(value(&head, "accept"), Some("*/*"));
    }

    #[test]
    fn a_client_cannot_take_the_host_or_its_credentials_away() {
        let head = prepared(
            &[
                ("host", "shop.example"),
                ("connection", "host, authorization, x-forwarded-for"),
                ("authorization", "Basic x"),
            ],
            false,
        );
        assert_eq!(value(&head, "host"), Some("shop.example"));
        assert_eq!(value(&head, "authorization"), Some("Basic x"));
        assert_eq!(value(&head, "x-forwarded-for"), Some("192.0.2.7"));
    }

    #[test]
    fn forwarding_fields_of_strangers_are_replaced_and_of_trusted_proxies_extended() {
        let fields = [
            ("host", "shop.example"),
            ("x-forwarded-for", "203.0.113.9"),
            ("x-forwarded-proto", "http"),
            ("forwarded", "for=203.0.113.9"),
        ];
        let stranger = prepared(&fields, false);
        assert_eq!(value(&stranger, "x-forwarded-for"), Some("192.0.2.7"));
        assert_eq!(value(&stranger, "x-forwarded-proto"), Some("https"));
        assert_eq!(value(&stranger, "forwarded"), None);
        let trusted = prepared(&fields, true);
        assert_eq!(
            value(&trusted, "x-forwarded-for"),
            Some("203.0.113.9, 192.0.2.7")
        );
        assert_eq!(value(&trusted, "x-forwarded-proto"), Some("http"));
    }

    #[test]
    fn a_name_with_an_underscore_cannot_pass_for_one_with_a_dash() {
        let head = prepared(
            &[("x_forwarded_for", "6.6.6.6"), ("x_tenant", "other")],
            false,
        );
        assert!(head.headers.keys().all(|name| !name.as_str().contains('_')));
    }

    #[test]
    fn the_matched_target_goes_up_and_cookies_are_one_line() {
        let head = prepared(
            &[("host", "a"), ("cookie", "a=1"), ("cookie", "b=2")],
            false,
        );
        assert_eq!(head.raw_path(), b"/matched?q=1");
        assert_eq!(value(&head, "cookie"), Some("a=1; b=2"));
    }
}
