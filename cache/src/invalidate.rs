//! What a request that changed something makes outdated (RFC 9111 section 4.4).
//!
//! The target itself, and what Location and Content-Location name, if it has the same origin:
//! otherwise one site could empty another's cache. The targets come as path and query; the caller
//! normalises them as any request and makes the keys.

use http::header::{CONTENT_LOCATION, LOCATION};
use http::{Method, StatusCode, Uri};

use crate::fields::Fields;

/// An object to remove, on the origin of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The path, dot segments resolved, percent-encoding as it was.
    pub path: String,
    /// The query, without its question mark.
    pub query: Option<String>,
}

/// The target of a request, as the route saw it.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// `http` or `https`.
    pub scheme: &'a str,
    /// Host and, where it is not the scheme's own, port.
    pub host: &'a str,
    /// The path, beginning with a slash.
    pub path: &'a str,
    /// The query, without its question mark.
    pub query: Option<&'a str>,
}

/// Whether a response to this method makes what is stored outdated: the method may change something
/// (RFC 9110 section 9.2.1; of an unknown one that must be assumed), and it went well.
pub fn invalidates(method: &Method, status: StatusCode) -> bool {
    let safe = matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE
    );
    !safe && (status.is_success() || status.is_redirection())
}

/// All that is outdated, the target of the request first. Empty unless [`invalidates`].
pub fn targets(
    method: &Method,
    origin: Origin<'_>,
    status: StatusCode,
    reply: &dyn Fields,
) -> Vec<Target> {
    if !invalidates(method, status) {
        return Vec::new();
    }
    let mut targets = vec![Target {
        path: origin.path.to_owned(),
        query: origin.query.map(str::to_owned),
    }];
    for name in [LOCATION, CONTENT_LOCATION] {
        let named = reply.first(&name).and_then(|value| resolve(origin, value));
        if let Some(target) = named.filter(|target| !targets.contains(target)) {
            targets.push(target);
        }
    }
    targets
}

/// A URI reference, resolved against the request's target (RFC 3986 section 5.2.2); `None` if it
/// leaves the origin.
fn resolve(origin: Origin<'_>, reference: &[u8]) -> Option<Target> {
    let text = std::str::from_utf8(reference).ok()?;
    let text = text.split('#').next().unwrap_or_default();
    if let Some(rest) = text.strip_prefix("//") {
        return resolve_absolute(origin, &format!("{}://{rest}", origin.scheme));
    }
    if has_scheme(text) {
        return resolve_absolute(origin, text);
    }
    let (path, query) = split_query(text);
    if path.is_empty() {
        let query = query.or(origin.query).map(str::to_owned);
        return Some(Target {
            path: origin.path.to_owned(),
            query,
        });
    }
    let path = if path.starts_with('/') {
        without_dots(path)
    } else {
        let folder = origin.path.rfind('/').map_or("/", |at| &origin.path[..=at]);
        without_dots(&format!("{folder}{path}"))
    };
    Some(Target {
        path,
        query: query.map(str::to_owned),
    })
}

fn resolve_absolute(origin: Origin<'_>, text: &str) -> Option<Target> {
    let uri: Uri = text.parse().ok()?;
    let scheme = uri.scheme_str()?;
    let own_port = |scheme: &str| {
        if scheme.eq_ignore_ascii_case("https") {
            443
        } else {
            80
        }
    };
    let (host, port) = split_port(origin.host);
    let same = scheme.eq_ignore_ascii_case(origin.scheme)
        && uri.host()?.eq_ignore_ascii_case(host)
        && uri.port_u16().unwrap_or(own_port(scheme)) == port.unwrap_or(own_port(origin.scheme));
    same.then(|| Target {
        path: without_dots(if uri.path().is_empty() {
            "/"
        } else {
            uri.path()
        }),
        query: uri.query().map(str::to_owned),
    })
}

fn has_scheme(text: &str) -> bool {
    let Some((scheme, _)) = text.split_once(':') else {
        return false;
    };
    scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

fn split_query(text: &str) -> (&str, Option<&str>) {
    text.split_once('?')
        .map_or((text, None), |(path, query)| (path, Some(query)))
}

fn split_port(host: &str) -> (&str, Option<u16>) {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => match port.parse() {
            Ok(port) => (name, Some(port)),
            Err(_) => (host, None),
        },
        _ => (host, None),
    }
}

/// RFC 3986 section 5.2.4.
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                if last {
                    kept.push("");
                }
            }
            other => kept.push(other),
        }
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::fields;

    const ORIGIN: Origin<'_> = Origin {
        scheme: "https",
        host: "shop.example",
        path: "/cart/items",
        query: Some("a=1"),
    };

    fn named(line: &str) -> Vec<String> {
        let found = targets(&Method::POST, ORIGIN, StatusCode::OK, &fields(&[line]));
        found
            .into_iter()
            .skip(1)
            .map(|target| {
                target.query.map_or(target.path.clone(), |query| {
                    format!("{}?{query}", target.path)
                })
            })
            .collect()
    }

    #[test]
    fn an_unsafe_request_that_went_well_outdates_its_target() {
        for method in [
            Method::POST,
            Method::PUT,
            Method::DELETE,
            Method::PATCH,
            "PURL".parse().unwrap(),
        ] {
            assert!(
                invalidates(&method, StatusCode::OK) && invalidates(&method, StatusCode::SEE_OTHER)
            );
            assert!(
                !invalidates(&method, StatusCode::NOT_FOUND),
                "{method} changed nothing"
            );
        }
        for method in [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE] {
            assert!(!invalidates(&method, StatusCode::OK));
        }
        let found = targets(&Method::PUT, ORIGIN, StatusCode::NO_CONTENT, &fields(&[]));
        assert_eq!(
            found,
            [Target {
                path: "/cart/items".into(),
                query: Some("a=1".into())
            }]
        );
        assert!(targets(&Method::PUT, ORIGIN, StatusCode::BAD_GATEWAY, &fields(&[])).is_empty());
    }

    #[test]
    fn location_and_content_location_are_resolved() {
        for (reference, expected) in [
            ("/x/y?z=1#f", "/x/y?z=1"),
            ("new", "/cart/new"),
            ("../list?p=2", "/list?p=2"),
            ("./", "/cart/"),
            ("/a/./b/../c/..", "/a/"),
            ("?b=2", "/cart/items?b=2"),
            ("https://SHOP.example:443/p", "/p"),
            ("//shop.example/p", "/p"),
            ("https://shop.example", "/"),
            ("/a:b", "/a:b"),
        ] {
            assert_eq!(
                named(&format!("location: {reference}")),
                [expected],
                "{reference}"
            );
            assert_eq!(
                named(&format!("content-location: {reference}")),
                [expected],
                "{reference}"
            );
        }
    }

    #[test]
    fn another_origin_is_left_alone() {
        for reference in [
            "http://shop.example/p",
            "https://shop.example:444/p",
            "https://other.example/p",
            "//other.example/p",
            "mailto:a@b",
            "https://[",
        ] {
            assert!(
                named(&format!("location: {reference}")).is_empty(),
                "{reference}"
            );
        }
    }

    #[test]
    fn a_port_belongs_to_the_origin() {
        let origin = Origin {
            scheme: "http",
            host: "[::1]:8080",
            path: "/",
            query: None,
        };
        let reply = fields(&["location: http://[::1]:8080/p"]);
        assert_eq!(
            targets(&Method::POST, origin, StatusCode::OK, &reply).len(),
            2
        );
        let reply = fields(&["location: http://[::1]/p"]);
        assert_eq!(
            targets(&Method::POST, origin, StatusCode::OK, &reply).len(),
            1
        );
    }

    proptest::proptest! {
        #[test]
        fn resolving_is_total_and_gives_a_path(reference: Vec<u8>) {
            if let Some(target) = resolve(ORIGIN, &reference) {
                assert!(target.path.starts_with('/'));
            }
        }
    }
}
