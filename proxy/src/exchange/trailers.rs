//! Fields behind a body (RFC 9110 section 6.5): which of them cross, and how HTTP/1.1 writes them.
//!
//! A trailer field is read when much was already decided by the head. So what decides (framing,
//! routing, who asks, how the content is to be read) is no trailer field (section 6.5.1), and is left
//! out here, whichever version it came by; so is what this edge alone may say.

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

/// Most fields that cross.
const MOST: usize = 64;

/// Most octets of their names and values; HTTP/2 endpoints may send more than a client would take.
const MOST_OCTETS: usize = 16 * 1024;

/// Names that are never taken over, sorted.
///
/// Framing and connection, routing, request modifiers, credentials and cookies, control of caches
/// and of the reply, what the content is (RFC 9110 section 6.5.1), and what the edge says of a client.
const FORBIDDEN: &[&str] = &[
    "age",
    "authorization",
    "cache-control",
    "client-cert",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "cookie",
    "date",
    "expect",
    "expires",
    "forwarded",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "keep-alive",
    "location",
    "max-forwards",
    "pragma",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "proxy-connection",
    "range",
    "retry-after",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "vary",
    "warning",
    "www-authenticate",
    "x-client-cert-fingerprint",
    "x-client-cert-subject",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-request-id",
];

/// Those of `fields` that may cross; `None` where there are none.
#[must_use]
pub(crate) fn crossing(fields: &HeaderMap) -> Option<HeaderMap> {
    let mut kept = HeaderMap::new();
    let mut octets = 0;
    for (name, value) in fields.iter().filter(|(name, _)| may_cross(name)).take(MOST) {
        octets += name.as_str().len() + value.len();
        if octets > MOST_OCTETS {
            break;
        }
        kept.append(name, value.clone());
    }
    (!kept.is_empty()).then_some(kept)
}

/// The fields in a trailer section of HTTP/1.1 that may cross. `section`: its lines, whose grammar
/// the chunk scanner has checked, with or without the empty one behind them.
#[must_use]
pub(crate) fn read(section: &[u8]) -> Option<HeaderMap> {
    let mut kept = HeaderMap::new();
    for line in section.split(|&byte| byte == b'\n') {
        let Some(colon) = memchr::memchr(b':', line) else {
            continue;
        };
        let (Ok(name), Ok(value)) = (
            HeaderName::from_bytes(&line[..colon]),
            HeaderValue::from_bytes(line[colon + 1..].trim_ascii()),
        ) else {
            continue;
        };
        if may_cross(&name) && kept.len() < MOST {
            kept.append(name, value);
        }
    }
    (!kept.is_empty()).then_some(kept)
}

/// What ends a chunked body with these fields behind it (RFC 9112 section 7.1.2).
#[must_use]
pub(crate) fn last_chunk(fields: &HeaderMap) -> Vec<u8> {
    let mut out = b"0\r\n".to_vec();
    for (name, value) in fields {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
    out
}

/// A name with an underscore could pass for one that may not cross, as in heads.
fn may_cross(name: &HeaderName) -> bool {
    let name = name.as_str();
    FORBIDDEN.binary_search(&name).is_err() && memchr::memchr(b'_', name.as_bytes()).is_none()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(fields: Option<HeaderMap>) -> Vec<(String, String)> {
        let fields = fields.unwrap_or_default();
        let pairs = fields.iter().map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes());
            (name.to_string(), value.into_owned())
        });
        pairs.collect()
    }

    fn pairs(wanted: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        wanted.iter().map(owned).collect()
    }

    #[test]
    fn the_names_are_sorted_so_that_each_is_found() {
        assert!(FORBIDDEN.is_sorted());
    }

    #[test]
    fn lines_become_fields_and_lines_again() {
        let section = b"X-Checksum: abc \r\ngrpc-status:0\r\nX-Empty:\r\nx-checksum: def\r\n\r\n";
        let fields = read(section);
        let wanted = [
            ("x-checksum", "abc"),
            ("x-checksum", "def"),
            ("grpc-status", "0"),
            ("x-empty", ""),
        ];
        assert_eq!(text(fields.clone()), pairs(&wanted));
        assert_eq!(
            last_chunk(&fields.unwrap()),
            b"0\r\nx-checksum: abc\r\nx-checksum: def\r\ngrpc-status: 0\r\nx-empty: \r\n\r\n"
        );
        assert_eq!(read(b""), None);
        assert_eq!(read(b"\r\n"), None);
    }

    #[test]
    fn what_decides_something_does_not_cross() {
        let section = "Content-Length: 5\r\nTransfer-Encoding: chunked\r\nHost: evil.test\r\n\
                       Authorization: x\r\nSet-Cookie: a=b\r\nCache-Control: public\r\n\
                       X-Forwarded-For: 6.6.6.6\r\nx_forwarded_for: 6.6.6.6\r\nX-Request-Id: x\r\n\
                       TE: trailers\r\nTrailer: x\r\n";
        assert_eq!(read(section.as_bytes()), None);
        let mut fields = HeaderMap::new();
        for name in FORBIDDEN {
            fields.append(*name, HeaderValue::from_static("x"));
        }
        assert_eq!(crossing(&fields), None);
        fields.append("x-fine", HeaderValue::from_static("y"));
        assert_eq!(text(crossing(&fields)), pairs(&[("x-fine", "y")]));
    }

    #[test]
    fn nobody_says_behind_a_body_whose_certificate_it_has() {
        for name in &crate::exchange::onward::CLIENT_CERT {
            assert!(!may_cross(name), "{name}");
            let line = format!("{name}: CN=admin\r\n");
            assert_eq!(read(line.as_bytes()), None);
        }
    }

    #[test]
    fn a_flood_of_fields_is_cut() {
        let section: String = (0..1000).map(|nth| format!("x-{nth}: y\r\n")).collect();
        assert_eq!(read(section.as_bytes()).unwrap().len(), MOST);
    }

    proptest! {
        /// No value can begin another line.
        #[test]
        fn what_is_written_reads_the_same(lines in proptest::collection::vec(("x-[a-z]{1,8}", "[!-~]([ -~\t]{0,20}[!-~])?"), 0..8)) {
            let section: String = lines.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
            let fields = read(section.as_bytes()).unwrap_or_default();
            prop_assert_eq!(fields.len(), lines.len());
            let written = last_chunk(&fields);
            let again = read(&written[3..]).unwrap_or_default();
            prop_assert_eq!(again, fields);
        }
    }
}
