//! WebSockets over a stream of HTTP/2 (RFC 8441) or HTTP/3 (RFC 9220), and what the two handshakes have in common.
//!
//! HTTP/1.1 changes the protocol of a connection, the others ask for a stream of another protocol. Inside,
//! both are a GET that wants an upgrade and a 101 that grants it: so routes, filters and logs see one
//! kind of WebSocket, and each side speaks as its version does.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use h2::ext::Protocol;
use http::header::{self, HeaderValue};
use http::request::Parts;
use http::{Extensions, Method};

use super::guard::OnStream;

/// What a server shows that it has understood (RFC 6455 section 1.3).
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Makes a GET with an Upgrade field of an extended CONNECT that asks for a WebSocket, as conditions of
/// routes know it; all else is as before. `ended`:
/// nothing follows the head, so that there is no stream to carry one.
pub(crate) fn enter(parts: &mut Parts, ended: bool) {
    let asks = parts.extensions.get::<Protocol>();
    let asks = asks.is_some_and(|protocol| protocol.as_str().eq_ignore_ascii_case("websocket"));
    // There it is malformed, and is left to be refused.
    let is_odd = parts.headers.contains_key(header::UPGRADE);
    if parts.method != Method::CONNECT || !asks || ended || is_odd {
        return;
    }
    let upgrade = HeaderValue::from_static("websocket");
    parts.headers.insert(header::UPGRADE, upgrade);
    parts.method = Method::GET;
    parts.extensions.remove::<Protocol>();
    parts.extensions.insert(OnStream);
    // What follows is no content.
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.remove(header::EXPECT);
}

/// Whether a request's stream is to carry a WebSocket.
#[must_use]
pub(crate) fn is_on_stream(extensions: &Extensions) -> bool {
    extensions.get::<OnStream>().is_some()
}

/// For a CONNECT to an endpoint: it asks for a WebSocket.
pub(crate) fn leave(extensions: &mut Extensions) {
    extensions.insert(Protocol::from_static("websocket"));
}

/// A Sec-WebSocket-Key of these bits (RFC 6455 section 4.1).
#[must_use]
pub(crate) fn key(bits: u128) -> HeaderValue {
    let text = STANDARD.encode(bits.to_be_bytes());
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""))
}

/// The Sec-WebSocket-Accept that belongs to a key (RFC 6455 section 4.2.2).
#[must_use]
pub(crate) fn accept(key: &[u8]) -> HeaderValue {
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key, GUID.as_bytes()].concat());
    let text = STANDARD.encode(hash);
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::super::guard::inspect_parts;
    use super::*;

    fn entered(method: Method, protocol: Option<&'static str>, ended: bool) -> Parts {
        let mut request = Request::builder()
            .method(method)
            .uri("https://shop.example/ws")
            .header("content-length", "5")
            .body(())
            .unwrap();
        if let Some(protocol) = protocol {
            let protocol = Protocol::from_static(protocol);
            request.extensions_mut().insert(protocol);
        }
        let mut parts = request.into_parts().0;
        enter(&mut parts, ended);
        parts
    }

    #[test]
    fn an_extended_connect_for_a_websocket_becomes_a_get() {
        let parts = entered(Method::CONNECT, Some("websocket"), false);
        assert_eq!(parts.method, Method::GET);
        assert!(is_on_stream(&parts.extensions));
        assert_eq!(parts.headers.len(), 1);
        assert_eq!(parts.headers["upgrade"], "websocket");
        assert_eq!(inspect_parts(&parts, 100), Ok(()));
    }

    #[test]
    fn any_other_connect_stays_one() {
        for parts in [
            entered(Method::CONNECT, None, false),
            entered(Method::CONNECT, Some("connect-udp"), false),
            entered(Method::CONNECT, Some("websocket"), true),
        ] {
            assert_eq!(parts.method, Method::CONNECT);
            assert!(!is_on_stream(&parts.extensions));
        }
        let parts = entered(Method::GET, None, false);
        assert!(!is_on_stream(&parts.extensions));
    }

    #[test]
    fn keys_are_answered_as_in_the_rfc() {
        assert_eq!(
            accept(b"dGhlIHNhbXBsZSBub25jZQ=="),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
        assert_eq!(key(0), "AAAAAAAAAAAAAAAAAAAAAA==");
    }
}
