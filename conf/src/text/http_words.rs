//! Hosts, paths, methods and header fields.

use http::{HeaderName, HeaderValue, Method};

use super::{Wrong, quoted};
use crate::config::HostPattern;
use crate::suggest::nearest;

/// Methods that are known well enough to recognise a slip of one.
const METHODS: &[&str] = &[
    "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "PROPFIND",
];

/// A host name (or IPv4 address), lower-cased, without a final dot.
pub(crate) fn host_name(text: &str) -> Result<String, Wrong> {
    let host = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let digits = |c: char| c.is_ascii_digit() || c == '.';
    if host.chars().all(digits) && host.parse::<std::net::Ipv4Addr>().is_err() {
        return Err(Wrong::new(
            format!("{} is neither an IP address nor a host name", quoted(text)),
            "an IPv4 address has four numbers from 0 to 255",
        ));
    }
    if host.len() <= 253 && host.split('.').all(label) {
        return Ok(host);
    }
    let fix = if host.is_ascii() {
        "a host name has letters, digits, `-` and dots: \"shop.example\""
    } else {
        "write it in its ASCII form (xn--...), as browsers send it"
    };
    Err(Wrong::new(
        format!("{} is not a host name", quoted(text)),
        fix,
    ))
}

/// The value of an Alt-Svc field that offers HTTP/3 (RFC 7838 section 3).
pub(crate) fn alt_svc(text: &str) -> Result<HeaderValue, Wrong> {
    let offers = text.split(',').any(|one| {
        let authority = one.trim().strip_prefix("h3=\"");
        authority.is_some_and(|rest| rest.split_once('"').is_some_and(|it| it.0.contains(':')))
    });
    match HeaderValue::from_str(text) {
        Ok(value) if offers => Ok(value),
        _ => Err(Wrong::new(
            format!("{} offers no HTTP/3", quoted(text)),
            "write 'h3=\":443\"; ma=86400', with the port that clients see",
        )),
    }
}

/// `"shop.example"`, `"*.shop.example"`, `"192.0.2.1"`, `"[2001:db8::1]"`.
pub(crate) fn host_pattern(text: &str) -> Result<HostPattern, Wrong> {
    if let Some((_, rest)) = text.split_once("://") {
        let host = rest.split(['/', ':']).next().unwrap_or(rest);
        return Err(Wrong::new(
            "a host has no scheme in front",
            format!("write \"{host}\""),
        ));
    }
    if let Some((host, _)) = text.split_once('/') {
        return Err(Wrong::new(
            "a host has no path behind",
            format!("write \"{host}\", and the path as `path` or `path_prefix`"),
        ));
    }
    if let Some(ip) = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'))
        && let Ok(ip) = ip.parse::<std::net::Ipv6Addr>()
    {
        return Ok(HostPattern::Exact(format!("[{ip}]")));
    }
    if text.parse::<std::net::Ipv6Addr>().is_ok() {
        return Err(Wrong::new(
            "an IPv6 address as a host stands in brackets",
            format!("write \"[{text}]\""),
        ));
    }
    if let Some((host, _)) = text.rsplit_once(':') {
        return Err(Wrong::new(
            "a host is matched without its port",
            format!("write \"{host}\"; ports belong to [[listener]]"),
        ));
    }
    if text == "*" || text == "_" {
        return Err(Wrong::new(
            format!("{} is not a host pattern", quoted(text)),
            "leave `host` out to match every host",
        ));
    }
    match text.strip_prefix("*.") {
        Some(rest) if !rest.contains('*') => {
            host_name(rest).map(|host| HostPattern::Suffix(format!(".{host}")))
        }
        None if !text.contains('*') => {
            if let Some(rest) = text.strip_prefix('.') {
                return Err(Wrong::new(
                    format!("{} is not a host name", quoted(text)),
                    format!("write \"*.{rest}\" for every name below {rest}"),
                ));
            }
            host_name(text).map(HostPattern::Exact)
        }
        _ => Err(Wrong::new(
            format!("{} has `*` in a place where it cannot stand", quoted(text)),
            "`*` stands for whole labels in front: \"*.shop.example\"",
        )),
    }
}

/// A path as a request has it, normalised: `"/catalog"`.
pub(crate) fn path(text: &str) -> Result<String, Wrong> {
    if let Some(wild) = text.find('*') {
        let before = &text[..wild];
        return Err(Wrong::new(
            "`*` is no wildcard in a path",
            if before.len() > 1 {
                format!("write path_prefix = \"{}\"", before.trim_end_matches('/'))
            } else {
                "leave `path` out to match every path".into()
            },
        ));
    }
    literal(text)
}

/// The same for a prefix, without a final slash: it ends at a segment anyway.
pub(crate) fn path_prefix(text: &str) -> Result<String, Wrong> {
    if let Some(before) = text.strip_suffix('*') {
        let before = match before.trim_end_matches('/') {
            "" => "/",
            before => before,
        };
        return Err(Wrong::new(
            "a prefix needs no `*`",
            format!("write \"{before}\""),
        ));
    }
    let path = literal(text)?;
    Ok(match path.trim_end_matches('/') {
        "" => "/".to_owned(),
        path => path.to_owned(),
    })
}

fn literal(text: &str) -> Result<String, Wrong> {
    let Some(rest) = text.strip_prefix('/') else {
        return Err(match text.split_once("://") {
            Some((_, rest)) => Wrong::new(
                "a path has no scheme and host in front",
                match rest.split_once('/') {
                    Some((host, path)) => format!("write \"/{path}\", and host = \"{host}\""),
                    None => "write the path only: \"/\"".into(),
                },
            ),
            None if text.starts_with(['^', '~']) => Wrong::new(
                format!("{} looks like a regular expression", quoted(text)),
                "a route takes it as `path_regex`",
            ),
            None => Wrong::new(
                format!("the path {} does not start with a slash", quoted(text)),
                format!("write \"/{text}\""),
            ),
        });
    };
    if let Some((path, _)) = text.split_once('?') {
        return Err(Wrong::new(
            "a path is matched without its query",
            format!("write \"{path}\", and conditions on parameters as `query`"),
        ));
    }
    if let Some((path, _)) = text.split_once('#') {
        return Err(Wrong::new(
            "a request has no fragment (`#...`)",
            format!("write \"{path}\""),
        ));
    }
    if let Some(odd) = text.chars().find(|c| !c.is_ascii_graphic()) {
        let escaped: String = text
            .bytes()
            .map(|byte| match byte {
                0x21..=0x7e => char::from(byte).to_string(),
                _ => format!("%{byte:02X}"),
            })
            .collect();
        return Err(Wrong::new(
            format!("{odd:?} never stands in a path as it is"),
            format!("write it percent-encoded: \"{escaped}\""),
        ));
    }
    if rest
        .split('/')
        .any(|segment| segment == "." || segment == "..")
    {
        return Err(Wrong::new(
            "`.` and `..` never stand in a path: they are resolved before it is matched",
            "write the path that results",
        ));
    }
    Ok(text.to_owned())
}

/// `"GET"`: RFC 9110 section 9.1 makes methods case-sensitive.
pub(crate) fn method(text: &str) -> Result<Method, Wrong> {
    let upper = text.to_ascii_uppercase();
    if upper != text && METHODS.contains(&upper.as_str()) {
        return Err(Wrong::new(
            format!("methods are case-sensitive, {} is none", quoted(text)),
            format!("write \"{upper}\""),
        ));
    }
    if !METHODS.contains(&text)
        && let Some(near) = nearest(text, METHODS.iter().copied())
    {
        return Err(Wrong::new(
            format!("{} is not a known method", quoted(text)),
            format!("did you mean \"{near}\"?"),
        ));
    }
    Method::from_bytes(text.as_bytes()).map_err(|_| {
        Wrong::new(
            format!("{} is not a method", quoted(text)),
            "one word: \"GET\"",
        )
    })
}

/// A field name; case does not matter.
pub(crate) fn header_name(text: &str) -> Result<HeaderName, Wrong> {
    HeaderName::from_bytes(text.as_bytes()).map_err(|_| {
        Wrong::new(
            format!("{} is not a header name", quoted(text)),
            match text.trim_end_matches([':', ' ']) {
                name if name != text => format!("write \"{name}\""),
                _ => "letters, digits and `-`: \"x-request-id\"".into(),
            },
        )
    })
}

/// Request fields that app servers do not get as the client sent them. What a response may vary by goes by the
/// same list, in the `cache` crate, which this one does not know.
const WRITTEN_ANEW: [&str; 5] = [
    "forwarded",
    "te",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-request-id",
];

/// The name of a field by which stored pages are told apart; case does not matter.
pub(crate) fn telling_header(text: &str) -> Result<HeaderName, Wrong> {
    let name = header_name(text)?;
    if WRITTEN_ANEW.contains(&name.as_str()) {
        return Err(Wrong::new(
            format!("{} is written anew for the app server", quoted(text)),
            "pages cannot be told apart by what a client says in it: leave it out, and let the app \
             send `Cache-Control: private` with what hangs on the client's address",
        ));
    }
    Ok(name)
}

/// A field value: visible characters, spaces and tabs.
pub(crate) fn header_value(text: &str) -> Result<HeaderValue, Wrong> {
    if text != text.trim() {
        return Err(Wrong::new(
            "a header value has no spaces at its ends",
            format!("write {}", quoted(text.trim())),
        ));
    }
    HeaderValue::from_str(text).map_err(|_| {
        Wrong::new(
            "a header value must not hold line breaks or control characters",
            "write it in one line; several values are a list under `add`",
        )
    })
}

/// `"text/html; charset=utf-8"`.
pub(crate) fn media_type(text: &str) -> Result<HeaderValue, Wrong> {
    let essence = text.split(';').next().unwrap_or(text).trim();
    let parts: Vec<&str> = essence.split('/').collect();
    let token = |part: &&str| HeaderName::from_bytes(part.as_bytes()).is_ok();
    if parts.len() != 2 || !parts.iter().all(token) {
        return Err(Wrong::new(
            format!("{} is not a media type", quoted(text)),
            "such as \"text/html; charset=utf-8\" or \"application/json\"",
        ));
    }
    header_value(text)
}

/// A cookie name (RFC 6265 section 4.1.1: a token).
pub(crate) fn cookie_name(text: &str) -> Result<String, Wrong> {
    match HeaderName::from_bytes(text.as_bytes()) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err(Wrong::new(
            format!("{} is not a cookie name", quoted(text)),
            "the name alone, as in \"sid\"",
        )),
    }
}

/// The name of a query parameter, as it stands in a URL.
pub(crate) fn query_name(text: &str) -> Result<String, Wrong> {
    let name = text.trim_start_matches('?');
    let name = name.split(['=', '&', '#']).next().unwrap_or(name);
    if name.is_empty() {
        return Err(Wrong::new(
            "a parameter without a name",
            "write its name, as in \"id\"",
        ));
    }
    if name != text {
        return Err(Wrong::new(
            format!("{} is not the name of a parameter", quoted(text)),
            format!("the name alone: {}", quoted(name)),
        ));
    }
    match text.chars().find(|c| !c.is_ascii_graphic()) {
        None => Ok(text.to_owned()),
        Some(odd) => Err(Wrong::new(
            format!("{odd:?} never stands in a query as it is"),
            "write it percent-encoded, as it stands in the URL",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fix<T: std::fmt::Debug>(result: Result<T, Wrong>) -> String {
        result.expect_err("wrong").fix
    }

    #[test]
    fn hosts_are_folded_and_wildcards_stand_in_front() {
        assert_eq!(
            host_pattern("Shop.Example."),
            Ok(HostPattern::Exact("shop.example".into()))
        );
        assert_eq!(
            host_pattern("*.shop.example"),
            Ok(HostPattern::Suffix(".shop.example".into()))
        );
        assert!(fix(host_pattern("shop.example:443")).starts_with("write \"shop.example\""));
        assert_eq!(fix(host_pattern("https://a.b/c")), "write \"a.b\"");
        assert!(fix(host_pattern(".a.b")).starts_with("write \"*.a.b\""));
        assert!(fix(host_pattern("*")).starts_with("leave `host` out"));
        assert!(host_pattern("www.*").is_err());
        assert!(host_pattern("a..b").is_err());
        assert!(fix(host_pattern("käse.example")).contains("xn--"));
        assert!(host_pattern("[::1]").is_ok());
    }

    #[test]
    fn paths_are_what_matching_sees() {
        assert_eq!(path("/a/b"), Ok("/a/b".into()));
        assert_eq!(path_prefix("/a/"), Ok("/a".into()));
        assert_eq!(path_prefix("/"), Ok("/".into()));
        assert_eq!(fix(path_prefix("/api/*")), "write \"/api\"");
        assert_eq!(fix(path("/api/*")), "write path_prefix = \"/api\"");
        assert_eq!(fix(path("api")), "write \"/api\"");
        assert!(fix(path("/a?b=c")).contains("`query`"));
        assert!(fix(path("/ä")).contains("%C3%A4"));
        assert!(path("/a/../b").is_err());
    }

    #[test]
    fn a_method_is_written_in_capitals() {
        assert_eq!(fix(method("get")), "write \"GET\"");
        assert!(fix(method("GTE")).contains("GET"));
        assert!(method("PURGE").is_ok(), "extension methods are methods");
        assert!(method("A B").is_err());
    }

    #[test]
    fn a_parameter_is_named_without_what_surrounds_it() {
        assert_eq!(query_name("id"), Ok("id".into()));
        assert_eq!(fix(query_name("?id=")), "the name alone: \"id\"");
        assert!(query_name("").is_err());
        assert!(fix(query_name("a b")).contains("percent-encoded"));
    }

    proptest! {
        #[test]
        fn no_text_makes_them_panic(text in "(\\PC|[/*.:?#\\[\\]]){0,20}") {
            let _ = (host_pattern(&text).is_ok(), path(&text), path_prefix(&text), method(&text).is_ok());
            let _ = (header_name(&text).is_ok(), header_value(&text).is_ok(), media_type(&text).is_ok());
        }

        #[test]
        fn an_accepted_prefix_starts_with_a_slash_and_ends_without(text in "[/a.*]{1,8}") {
            if let Ok(prefix) = path_prefix(&text) {
                prop_assert!(prefix.starts_with('/'));
                prop_assert!(prefix == "/" || !prefix.ends_with('/'));
            }
        }
    }
}
