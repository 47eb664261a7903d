//! The same strictness for a request that HTTP/2 framed.
//!
//! The HTTP/2 layer has refused unknown and repeated pseudo-fields, upper-case
//! names and a length that the body does not keep. Left to see here is what it
//! lets through and HTTP/1 upstreams would read another way. It frames
//! nothing, and it does not count octets: SETTINGS_MAX_HEADER_LIST_SIZE does.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Uri};

use super::MAX_METHOD;
use super::fields::{content_length, expect};
use super::host::{Authority, authority_of};
use super::octets::{PATH, QUERY, is, next_control};
use super::reject::Reject;

/// Fields that HTTP/2 must not carry (RFC 9113 section 8.2.2).
static CONNECTION_FIELDS: [HeaderName; 5] = [
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// In the extensions of a request that asked for a WebSocket by the extended CONNECT (RFC 8441, RFC 9220), and
/// was made the GET with an Upgrade field that it would be in HTTP/1.1.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OnStream;

/// Judges a request whose head came as HTTP/2 fields.
///
/// # Errors
/// The first rule of RFC 9113 section 8 that it breaks, or that it has too many fields. CONNECT is
/// refused as in HTTP/1, but for [`OnStream`].
pub(crate) fn inspect_parts(parts: &Parts, max_fields: usize) -> Result<(), Reject> {
    if parts.method == Method::CONNECT {
        return Err(Reject::ConnectMethod);
    }
    if parts.method.as_str().len() > MAX_METHOD {
        return Err(Reject::BadMethod);
    }
    // What has few is not looked through for cookies.
    if parts.headers.len() > max_fields && count(&parts.headers) > max_fields {
        return Err(Reject::TooManyFields);
    }
    check_target(&parts.uri, &parts.method)?;
    check_host(&parts.uri, &parts.headers)?;
    check_values(&parts.headers)?;
    check_connection_fields(parts)?;
    check_length(&parts.headers)?;
    let credentials = parts.headers.get_all(header::AUTHORIZATION);
    if credentials.iter().nth(1).is_some() {
        return Err(Reject::RepeatedAuthorization);
    }
    for value in parts.headers.get_all(header::EXPECT) {
        expect(value.as_bytes())?;
    }
    Ok(())
}

/// Fields, all cookies together being one: clients may send each by itself (RFC 9113 section 8.2.3).
fn count(fields: &HeaderMap) -> usize {
    fields.len() - fields.get_all(header::COOKIE).iter().skip(1).count()
}

/// `:scheme` and `:path` (RFC 9113 section 8.3.1).
fn check_target(uri: &Uri, method: &Method) -> Result<(), Reject> {
    if uri
        .scheme_str()
        .is_some_and(|scheme| scheme != "http" && scheme != "https")
    {
        return Err(Reject::BadTarget);
    }
    let path = uri.path();
    let path_fits = match path {
        "*" => method == Method::OPTIONS,
        _ => path.starts_with('/') && path.bytes().all(|b| is(b, PATH)),
    };
    let query = uri.query().unwrap_or_default();
    if path_fits && query.bytes().all(|b| is(b, QUERY)) {
        Ok(())
    } else {
        Err(Reject::BadTarget)
    }
}

/// One host, by `:authority`, by Host, or by both alike.
fn check_host(uri: &Uri, fields: &HeaderMap) -> Result<(), Reject> {
    let mut lines = fields.get_all(header::HOST).iter();
    let host = lines.next().map(parse_host).transpose()?;
    if lines.next().is_some() {
        return Err(Reject::RepeatedHost);
    }
    let authority = uri
        .authority()
        .map(|a| authority_of(a.as_str().as_bytes()))
        .transpose()?;
    let default_port = if uri.scheme_str() == Some("http") {
        80
    } else {
        443
    };
    match (authority, host) {
        (None, None) => Err(Reject::MissingHost),
        (Some(authority), Some(host)) if !authority.same_as(&host, default_port) => {
            Err(Reject::HostMismatch)
        }
        _ => Ok(()),
    }
}

fn parse_host(value: &HeaderValue) -> Result<Authority<'_>, Reject> {
    authority_of(value.as_bytes())
}

/// RFC 9113 section 8.2.1: no control character, no white space at the ends.
fn check_values(fields: &HeaderMap) -> Result<(), Reject> {
    let white = |b: Option<&u8>| matches!(b, Some(b' ' | b'\t'));
    for value in fields.values() {
        let value = value.as_bytes();
        if next_control(value, 0).is_some() {
            return Err(Reject::ControlCharacter);
        }
        if white(value.first()) || white(value.last()) {
            return Err(Reject::BadFieldValue);
        }
    }
    Ok(())
}

/// RFC 9113 section 8.2.2; TE may say `trailers` and nothing else.
fn check_connection_fields(parts: &Parts) -> Result<(), Reject> {
    let fields = &parts.headers;
    let is_ours = parts.extensions.get::<OnStream>().is_some();
    if CONNECTION_FIELDS
        .iter()
        .any(|name| fields.contains_key(name) && !(is_ours && name == header::UPGRADE))
    {
        return Err(Reject::ConnectionField);
    }
    let only_trailers = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"trailers");
    if !fields.get_all(header::TE).iter().all(only_trailers) {
        return Err(Reject::ConnectionField);
    }
    Ok(())
}

fn check_length(fields: &HeaderMap) -> Result<(), Reject> {
    let mut lines = fields.get_all(header::CONTENT_LENGTH).iter();
    if let Some(value) = lines.next() {
        content_length(value.as_bytes())?;
    }
    match lines.next() {
        Some(_) => Err(Reject::RepeatedContentLength),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use http::Request;
    use http::request::Builder;

    use super::super::Reject;
    use super::inspect_parts;

    fn get(uri: &str) -> Builder {
        Request::get(uri)
    }

    #[track_caller]
    fn judged(builder: Builder) -> Result<(), Reject> {
        inspect_parts(&builder.body(()).expect("a request").into_parts().0, 128)
    }

    #[test]
    fn an_ordinary_request_passes() {
        let builder = get("https://shop.example/a?b=c|d")
            .header("te", "trailers")
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .header("content-length", "3")
            .header("x", "");
        assert_eq!(judged(builder), Ok(()));
        assert_eq!(judged(get("/a").header("host", "shop.example")), Ok(()));
        let both = get("https://shop.example/a").header("host", "SHOP.example:443");
        assert_eq!(judged(both), Ok(()));
        assert_eq!(judged(Request::options("*").header("host", "a")), Ok(()));
    }

    #[test]
    fn the_host_must_be_one_and_a_host() {
        assert_eq!(judged(get("/a")), Err(Reject::MissingHost));
        assert_eq!(judged(get("/a").header("host", "")), Err(Reject::BadHost));
        assert_eq!(judged(get("https://u@shop.example/")), Err(Reject::BadHost));
        let two = get("/").header("host", "a").header("host", "a");
        assert_eq!(judged(two), Err(Reject::RepeatedHost));
        let other = get("https://shop.example/").header("host", "evil.example");
        assert_eq!(judged(other), Err(Reject::HostMismatch));
        let port = get("https://shop.example/").header("host", "shop.example:80");
        assert_eq!(judged(port), Err(Reject::HostMismatch));
    }

    #[test]
    fn fields_about_the_connection_are_refused() {
        for (name, value) in [
            ("connection", "close"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "close"),
            ("te", "gzip"),
            ("te", "trailers, gzip"),
        ] {
            let request = get("https://a/").header(name, value);
            assert_eq!(
                judged(request),
                Err(Reject::ConnectionField),
                "{name}: {value}"
            );
        }
    }

    #[test]
    fn lengths_targets_methods_and_expectations_are_held_to_the_same_rules_as_in_http_1() {
        let length = |v| judged(get("https://a/").header("content-length", v));
        assert_eq!(length("+5"), Err(Reject::BadContentLength));
        assert_eq!(length("5, 5"), Err(Reject::BadContentLength));
        let two = get("https://a/")
            .header("content-length", "5")
            .header("content-length", "5");
        assert_eq!(judged(two), Err(Reject::RepeatedContentLength));
        let two = get("https://a/")
            .header("authorization", "Bearer a")
            .header("authorization", "Bearer a");
        assert_eq!(judged(two), Err(Reject::RepeatedAuthorization));
        assert_eq!(judged(get("https://a/\"")), Err(Reject::BadTarget));
        assert_eq!(judged(get("*").header("host", "a")), Err(Reject::BadTarget));
        assert_eq!(judged(get("ftp://a/")), Err(Reject::BadTarget));
        assert_eq!(
            judged(Request::connect("a:443")),
            Err(Reject::ConnectMethod)
        );
        let expect = get("https://a/").header("expect", "200-ok");
        assert_eq!(judged(expect), Err(Reject::UnknownExpectation));
        let white = get("https://a/").header("x", " y");
        assert_eq!(judged(white), Err(Reject::BadFieldValue));
        let many = (0..129).fold(get("https://a/"), |b, _| b.header("x", "y"));
        assert_eq!(judged(many), Err(Reject::TooManyFields));
        let cookies = (0..300).fold(get("https://a/"), |b, _| b.header("cookie", "a=b"));
        assert_eq!(judged(cookies), Ok(()));
    }
}
