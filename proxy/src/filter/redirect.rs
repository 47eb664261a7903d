//! Sends a client elsewhere.
//!
//! The location is a template over the request. Whatever a client puts into
//! its path or query stays path or query there: a path of `//evil.example`
//! cannot become the host of a scheme-relative reference, and no value can end
//! the header.

use bytes::Bytes;
use conf::TemplatePart;
use http::{HeaderValue, StatusCode, header};

use super::{Reply, Scheme, Step};

/// A compiled redirect, for a filter as for a route's action.
#[derive(Debug)]
pub(crate) struct Redirection {
    parts: Vec<TemplatePart>,
    status: StatusCode,
    /// The template itself begins with `//`, so another host is meant.
    scheme_relative: bool,
}

impl Redirection {
    /// Compiles a redirect; text gets the escapes that a URL needs in a header.
    #[must_use]
    pub(crate) fn new(redirect: &conf::Redirect) -> Self {
        let parts: Vec<_> = redirect.to.iter().map(spelled).collect();
        let first = parts.first();
        let scheme_relative =
            matches!(first, Some(TemplatePart::Text(text)) if text.starts_with("//"));
        Self {
            parts,
            status: redirect.status,
            scheme_relative,
        }
    }

    /// The reply to a request. `path` is normalised, `query` comes without `?`.
    #[must_use]
    pub(crate) fn reply(
        &self,
        scheme: Scheme,
        host: &str,
        path: &str,
        query: Option<&str>,
    ) -> Reply {
        let location = self.location(scheme, host, path, query);
        match HeaderValue::from_maybe_shared(Bytes::from(location)) {
            Ok(location) => Reply {
                by: Step::Redirect,
                status: self.status,
                headers: vec![(header::LOCATION, location)],
                body: Bytes::new(),
            },
            // Not with a host, path and query that the guard has passed.
            Err(_) => {
                let words = "The location of this redirect cannot be told.";
                Reply::plain(Step::Redirect, StatusCode::INTERNAL_SERVER_ERROR, words)
            }
        }
    }

    fn location(&self, scheme: Scheme, host: &str, path: &str, query: Option<&str>) -> String {
        let mut out = String::with_capacity(64 + path.len() + query.map_or(0, str::len));
        for part in &self.parts {
            match part {
                TemplatePart::Text(text) => out.push_str(text),
                TemplatePart::Host => out.push_str(host),
                // `*` is not to run into a host before it.
                TemplatePart::Path if !path.starts_with('/') => out.push('/'),
                TemplatePart::Path => out.push_str(path),
                TemplatePart::Query => {
                    if let Some(query) = query {
                        out.push('?');
                        out.push_str(query);
                    }
                }
                TemplatePart::Scheme => out.push_str(scheme.as_str()),
            }
        }
        let slashes = out.len() - out.trim_start_matches('/').len();
        if slashes > 1 && !self.scheme_relative {
            out.drain(1..slashes);
        }
        out
    }
}

/// Anything but visible ASCII as escapes.
fn spelled(part: &TemplatePart) -> TemplatePart {
    let TemplatePart::Text(text) = part else {
        return part.clone();
    };
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_graphic() {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    TemplatePart::Text(out)
}

#[cfg(test)]
mod tests {
    use conf::TemplatePart::{self, Host, Path, Query, Scheme as SchemePart};
    use http::StatusCode;

    use super::super::Scheme;
    use super::Redirection;

    fn text(text: &str) -> TemplatePart {
        TemplatePart::Text(text.to_owned())
    }

    #[track_caller]
    fn location(to: &[TemplatePart], path: &str, query: Option<&str>) -> String {
        let redirect = conf::Redirect {
            to: to.to_vec(),
            status: StatusCode::PERMANENT_REDIRECT,
        };
        let reply = Redirection::new(&redirect).reply(Scheme::Http, "shop.example", path, query);
        assert_eq!(reply.status, StatusCode::PERMANENT_REDIRECT);
        assert!(reply.body.is_empty());
        let [(name, value)] = &reply.headers[..] else {
            panic!("one field: {reply:?}")
        };
        assert_eq!(name, "location");
        value.to_str().expect("visible ASCII").to_owned()
    }

    #[test]
    fn the_template_is_filled_in() {
        let https = [text("https://"), Host, Path, Query];
        assert_eq!(
            location(&https, "/a%2Fb", Some("c=d")),
            "https://shop.example/a%2Fb?c=d"
        );
        assert_eq!(location(&https, "/", None), "https://shop.example/");
        assert_eq!(location(&https, "/", Some("")), "https://shop.example/?");
        let moved = [SchemePart, text("://new.example/café au lait")];
        assert_eq!(
            location(&moved, "/", Some("x")),
            "http://new.example/caf%C3%A9%20au%20lait"
        );
    }

    #[test]
    fn a_path_never_becomes_a_host() {
        for to in [&[Path][..], &[text("/"), Path], &[text("/"), Path, Query]] {
            assert_eq!(location(to, "//evil.example/x", None), "/evil.example/x");
            assert_eq!(location(to, "/evil.example", None), "/evil.example");
        }
        let host = [text("https://shop.example"), Path];
        assert_eq!(
            location(&host, "//evil.example", None),
            "https://shop.example//evil.example"
        );
        assert_eq!(location(&host, "*", None), "https://shop.example/");
        let meant = [text("//cdn.example"), Path];
        assert_eq!(location(&meant, "/a", None), "//cdn.example/a");
    }

    #[test]
    fn a_value_that_no_header_can_hold_is_not_sent() {
        let redirect = conf::Redirect {
            to: vec![Path],
            status: StatusCode::FOUND,
        };
        let reply = Redirection::new(&redirect).reply(Scheme::Http, "a", "/\r\nx: y", None);
        assert_eq!(reply.status, StatusCode::INTERNAL_SERVER_ERROR);
    }
}
