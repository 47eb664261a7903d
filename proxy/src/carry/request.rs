//! The head that an upstream sees, made from the head that a client sent.
//!
//! Which fields it has is said by [`onward`]; the target is the one that was
//! matched: an upstream never sees a path that the router did not.

use http::Version;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;
use pingora::http::RequestHeader;

use crate::exchange::guard::Upgrade;
use crate::exchange::head::HeadView;
use crate::exchange::onward::{self, CLIENT_CERT, Origin};
use crate::exchange::websocket;
use crate::exchange::{self, Way};
use crate::listen::ConnInfo;
use crate::snapshot::Snapshot;

/// The scheme that the client used: a trusted proxy in front may have ended its TLS.
pub(super) fn scheme(snapshot: &Snapshot, info: &ConnInfo, head: &dyn HeadView) -> &'static str {
    let trusted = &snapshot.config.server.trusted_proxies;
    let said = exchange::client::came_by_https(info.peer.ip(), head, trusted);
    exchange::scheme(said.unwrap_or(info.tls.is_some())).as_str()
}

/// Whether the pages of the route can be told apart by what is asked for: a trusted proxy in front does not
/// name another host.
pub(super) fn is_of_its_host(
    snapshot: &Snapshot,
    info: &ConnInfo,
    head: &dyn HeadView,
    way: &Way,
) -> bool {
    let trusted = &snapshot.config.server.trusted_proxies;
    !exchange::client::names_another_host(info.peer.ip(), head, trusted, &way.authority)
}

/// The head that goes up for the client's `head`.
///
/// Built anew instead of changed in place: most fields are taken over as they
/// are, and a fresh map spares looking for those that are not. Content-Length is
/// left; the carrier sets the framing that it uses.
pub(super) fn prepare(
    head: &RequestHeader,
    origin: &Origin<'_>,
    target: &str,
    upgrade: Upgrade,
) -> pingora::Result<RequestHeader> {
    let mut fields = HeaderMap::with_capacity(head.headers.len() + 8);
    for (name, value) in &head.headers {
        if onward::is_taken_over(name.as_str().as_bytes()) {
            fields.append(name, value.clone());
        }
    }
    if upgrade == Upgrade::WebSocket {
        let asked = head.headers.get(header::UPGRADE).cloned();
        let upgrade = asked.unwrap_or(HeaderValue::from_static("websocket"));
        fields.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        fields.insert(header::UPGRADE, upgrade);
        if websocket::is_on_stream(&head.extensions) {
            // HTTP/2 needs no key (RFC 8441 section 5), and HTTP/1.1 does.
            let key = websocket::key(crate::random::id());
            fields.insert(header::SEC_WEBSOCKET_KEY, key);
        }
    }
    let mut fits = true;
    onward::added(
        &**head,
        origin,
        head.field(&header::HOST),
        &mut |name, value| match HeaderValue::from_bytes(value) {
            // An upgrade is one of the connection, too.
            Ok(_) if *name == header::CONNECTION && fields.contains_key(name) => {}
            Ok(value) => drop(fields.insert(name, value)),
            Err(_) => fits = false,
        },
    );
    if !fits {
        return Err(no_header());
    }
    join_cookies(&mut fields);
    let (mut parts, ()) = http::Request::new(()).into_parts();
    parts.method = head.method.clone();
    parts.version = Version::HTTP_11;
    parts.headers = fields;
    let mut prepared = RequestHeader::from(parts);
    // Set as text: what the router matched goes up byte for byte.
    prepared.set_raw_path(target.as_bytes())?;
    Ok(prepared)
}

/// Makes a client's head the one that filters see: without the fields that Connection names
/// (RFC 9110 section 7.6.1), and with the host in its one spelling. TE is the connection's own, and
/// counts only where Connection says so (section 10.1.4).
pub(super) fn enter(head: &mut RequestHeader, authority: &str) -> pingora::Result<()> {
    let mut te_counts = head.version >= Version::HTTP_2;
    if head.headers.contains_key(header::CONNECTION) {
        for name in nominated(&head.headers) {
            match name {
                header::TE => te_counts = true,
                name => drop(head.remove_header(&name)),
            }
        }
    }
    if !te_counts {
        head.remove_header(&header::TE);
    }
    head.insert_header(header::HOST, value(authority)?)
}

/// Puts in what is known of the client's certificate. Nobody else may say it, but a trusted proxy
/// of a client of its own (RFC 9440 section 2.4).
pub(super) fn certify(
    head: &mut RequestHeader,
    info: &ConnInfo,
    trusted: &[IpNet],
) -> pingora::Result<()> {
    let known = info.client_cert.as_deref();
    if known.is_none() && exchange::client::is_trusted(info.peer.ip(), trusted) {
        return Ok(());
    }
    let values = known.map(|known| [&known.encoded, &known.subject, &known.fingerprint]);
    for (nth, name) in CLIENT_CERT.iter().enumerate() {
        match values {
            Some(values) => head.insert_header(name, values[nth])?,
            None => drop(head.remove_header(name)),
        }
    }
    Ok(())
}

fn value(text: &str) -> pingora::Result<HeaderValue> {
    HeaderValue::from_str(text).map_err(|_| no_header())
}

fn no_header() -> Box<pingora::Error> {
    pingora::Error::new_down(pingora::ErrorType::InvalidHTTPHeader)
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
                && !CLIENT_CERT.contains(name)
        })
        .collect()
}

/// HTTP/2 may spread cookies over lines; HTTP/1.1 has one (RFC 9113 section 8.2.3).
fn join_cookies(fields: &mut HeaderMap) {
    if fields.get_all(header::COOKIE).iter().nth(1).is_none() {
        return;
    }
    let mut all = Vec::new();
    for value in fields.get_all(header::COOKIE) {
        if !all.is_empty() {
            all.extend_from_slice(b"; ");
        }
        all.extend_from_slice(value.as_bytes());
    }
    if let Ok(all) = HeaderValue::from_maybe_shared(bytes::Bytes::from(all)) {
        fields.insert(header::COOKIE, all);
    }
}

#[cfg(test)]
mod tests {
    use crate::exchange::onward::AddressText;

    use super::*;

    fn prepared(fields: &[(&'static str, &'static str)], trusted: bool) -> RequestHeader {
        let mut head = RequestHeader::build_no_case("GET", b"/raw", None).unwrap();
        for (name, value) in fields {
            head.append_header(*name, *value).unwrap();
        }
        let origin = Origin {
            peer: &AddressText::new("192.0.2.7".parse().unwrap()),
            trusted,
            tls: true,
            certified: false,
            authority: "shop.example",
            id: b"id",
            trailers: None,
        };
        enter(&mut head, origin.authority).unwrap();
        prepare(&head, &origin, "/matched?q=1", Upgrade::None).unwrap()
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
    fn nor_what_the_edge_says_of_its_certificate() {
        let fields = HeaderMap::from_iter([(
            header::CONNECTION,
            HeaderValue::from_static("x-client-cert-subject, x-mine"),
        )]);
        assert_eq!(nominated(&fields), ["x-mine"]);
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
