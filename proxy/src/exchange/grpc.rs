//! gRPC as far as an edge has to know it: its statuses and the frame that stands in for trailers
//! where a browser cannot see them (gRPC-Web).
//!
//! Sources: grpc/grpc, doc/PROTOCOL-HTTP2.md (requests, statuses, percent-encoding),
//! doc/http-grpc-status-mapping.md, doc/statuscodes.md, doc/PROTOCOL-WEB.md.
//!
//! Messages are not looked into: whoever speaks gRPC frames them, and nothing here needs their ends.

pub(crate) mod base64;

use std::fmt::Write as _;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};

/// `grpc-status`.
pub(crate) static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// `grpc-message`.
pub(crate) static GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Which gRPC a request speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// Over HTTP/2, with trailers.
    Grpc,
    /// gRPC-Web: trailers are a frame of the body.
    Web,
    /// The same in base64, for browsers that read replies as text.
    WebText,
}

impl Dialect {
    /// What a request with these fields speaks; `None`: no gRPC.
    #[must_use]
    pub(crate) fn of(fields: &HeaderMap) -> Option<Self> {
        Self::named(fields.get(header::CONTENT_TYPE)?.as_bytes())
    }

    /// The same of the content type alone.
    #[must_use]
    pub(crate) fn named(kind: &[u8]) -> Option<Self> {
        let kind = std::str::from_utf8(kind).ok()?;
        let kind = kind.split(';').next()?.trim_ascii();
        let rest = kind
            .get(..16)
            .filter(|start| start.eq_ignore_ascii_case("application/grpc"))
            .and(kind.get(16..))?;
        let (dialect, rest) = match rest {
            _ if starts(rest, "-web-text") => (Self::WebText, rest.get(9..)?),
            _ if starts(rest, "-web") => (Self::Web, rest.get(4..)?),
            _ => (Self::Grpc, rest),
        };
        (rest.is_empty() || rest.starts_with('+')).then_some(dialect)
    }

    /// The same of a request: gRPC is always a POST.
    #[must_use]
    pub(crate) fn asked(method: &Method, fields: &HeaderMap) -> Option<Self> {
        Self::of(fields).filter(|_| method == Method::POST)
    }

    /// Its content type without what stands behind `+`.
    fn essence(self) -> &'static str {
        match self {
            Self::Grpc => "application/grpc",
            Self::Web => "application/grpc-web",
            Self::WebText => "application/grpc-web-text",
        }
    }

    /// A content type of gRPC in this dialect; what stands behind `+` is kept.
    #[must_use]
    pub(crate) fn translated(self, content_type: &HeaderValue) -> HeaderValue {
        let text = content_type.to_str().unwrap_or_default();
        let kind = text.split(';').next().unwrap_or_default().trim_ascii();
        let suffix = kind.find('+').and_then(|plus| kind.get(plus..));
        let whole = format!("{}{}", self.essence(), suffix.unwrap_or_default());
        HeaderValue::from_str(&whole).unwrap_or(HeaderValue::from_static(self.essence()))
    }
}

fn starts(text: &str, with: &str) -> bool {
    text.get(..with.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(with))
}

/// The status of gRPC that stands for a status of HTTP.
///
/// doc/http-grpc-status-mapping.md, and for what it calls unknown the nearest one that
/// doc/statuscodes.md has.
#[must_use]
pub(crate) fn status_of(status: StatusCode) -> u8 {
    match status.as_u16() {
        // OK.
        200..=299 => 0,
        // INTERNAL: the request is malformed.
        400 | 417 | 426 | 500 => 13,
        // UNAUTHENTICATED.
        401 => 16,
        // PERMISSION_DENIED.
        403 => 7,
        // UNIMPLEMENTED: nobody here has the method.
        404 | 405 | 415 | 501 | 505 => 12,
        // DEADLINE_EXCEEDED.
        408 | 504 => 4,
        // RESOURCE_EXHAUSTED.
        413 | 414 | 431 => 8,
        // UNAVAILABLE: it may be tried again.
        429 | 502 | 503 => 14,
        // UNKNOWN.
        _ => 2,
    }
}

/// A text as `grpc-message` (doc/PROTOCOL-HTTP2.md, "Percent-Encoded").
#[must_use]
pub(crate) fn message(text: &str) -> HeaderValue {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
            // Writing to a String does not fail.
            _ => drop(write!(encoded, "%{byte:02X}")),
        }
    }
    HeaderValue::from_str(&encoded).unwrap_or(HeaderValue::from_static(""))
}

/// Marks a frame that holds trailers (doc/PROTOCOL-WEB.md).
const TRAILERS: u8 = 0x80;

/// Trailers as the last frame of a gRPC-Web body: a flag, a length, and lines as HTTP/1.1 has them.
#[must_use]
pub(crate) fn trailer_frame(fields: &HeaderMap) -> Bytes {
    let mut lines = Vec::new();
    for (name, value) in fields {
        lines.extend_from_slice(name.as_str().as_bytes());
        lines.extend_from_slice(b": ");
        lines.extend_from_slice(value.as_bytes());
        lines.extend_from_slice(b"\r\n");
    }
    let mut frame = BytesMut::with_capacity(5 + lines.len());
    frame.put_u8(TRAILERS);
    // Trailers are bounded by far less.
    frame.put_u32(u32::try_from(lines.len()).unwrap_or(u32::MAX));
    frame.put_slice(&lines);
    frame.freeze()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn dialect(kind: &str) -> Option<Dialect> {
        let mut fields = HeaderMap::new();
        fields.insert(header::CONTENT_TYPE, kind.parse().unwrap());
        Dialect::of(&fields)
    }

    #[test]
    fn dialects_are_told_apart_by_their_content_type() {
        for (kind, wanted) in [
            ("application/grpc", Some(Dialect::Grpc)),
            ("application/grpc+proto", Some(Dialect::Grpc)),
            ("Application/GRPC; charset=utf-8", Some(Dialect::Grpc)),
            ("application/grpc-web", Some(Dialect::Web)),
            ("application/grpc-web+proto", Some(Dialect::Web)),
            ("application/grpc-web-text", Some(Dialect::WebText)),
            ("application/grpc-Web-Text+proto", Some(Dialect::WebText)),
            ("application/grpc-webtext", None),
            ("application/grpcx", None),
            ("application/json", None),
            ("application/grp", None),
            ("", None),
        ] {
            assert_eq!(dialect(kind), wanted, "{kind}");
        }
        assert_eq!(Dialect::of(&HeaderMap::new()), None);
        let mut fields = HeaderMap::new();
        fields.insert(header::CONTENT_TYPE, "application/grpc".parse().unwrap());
        assert_eq!(Dialect::asked(&Method::GET, &fields), None);
    }

    #[test]
    fn a_content_type_keeps_what_it_says_of_messages() {
        for (kind, to, wanted) in [
            (
                "application/grpc-web-text+proto; x=y",
                Dialect::Grpc,
                "application/grpc+proto",
            ),
            ("application/grpc", Dialect::Web, "application/grpc-web"),
            (
                "application/grpc+json",
                Dialect::WebText,
                "application/grpc-web-text+json",
            ),
        ] {
            assert_eq!(to.translated(&HeaderValue::from_static(kind)), wanted);
        }
    }

    #[test]
    fn each_status_that_the_edge_makes_has_its_own_in_grpc() {
        for (status, wanted) in [
            (200, 0),
            (400, 13),
            (401, 16),
            (403, 7),
            (404, 12),
            (405, 12),
            (408, 4),
            (413, 8),
            (418, 2),
            (429, 14),
            (502, 14),
            (503, 14),
            (504, 4),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(status_of(status), wanted, "{status}");
        }
    }

    #[test]
    fn a_message_is_one_line_of_ascii() {
        assert_eq!(message("100 % ü\r\n"), "100 %25 %C3%BC%0D%0A");
    }

    #[test]
    fn trailers_become_a_frame() {
        let mut fields = HeaderMap::new();
        fields.append(&GRPC_STATUS, HeaderValue::from_static("0"));
        fields.append("x-a", HeaderValue::from_static("b"));
        assert_eq!(
            &trailer_frame(&fields)[..],
            b"\x80\x00\x00\x00\x18grpc-status: 0\r\nx-a: b\r\n"
        );
        assert_eq!(&trailer_frame(&HeaderMap::new())[..], b"\x80\0\0\0\0");
    }

    proptest! {
        #[test]
        fn any_text_is_a_message(text in any::<String>()) {
            let value = message(&text);
            prop_assert!(value.as_bytes().iter().all(|byte| (0x20..0x7f).contains(byte)));
        }
    }
}
