//! Who may purge, and what.

use std::hint::black_box;

use http::header::AUTHORIZATION;
use http::{HeaderMap, Uri};

/// The URL whose stored responses are to go, as far as it can be told without
/// knowing how paths are normalised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PurgeTarget {
    /// `http` or `https`.
    pub(crate) scheme: Scheme,
    /// Lower-case host without port; an IPv6 address keeps its brackets.
    pub(crate) host: String,
    /// The port that the URL names: part of what is stored, unless it is the scheme's own.
    pub(crate) port: Option<u16>,
    /// Path as written, not normalised; at least `/`.
    pub(crate) path: String,
    /// Query as written, without the `?`.
    pub(crate) query: Option<String>,
}

/// Scheme of a URL that can be in the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// `http`
    Http,
    /// `https`
    Https,
}

impl Scheme {
    /// As it stands in a URL.
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// What a purge did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PurgeOutcome {
    /// The URL was stored, and is no more; with it all its variants.
    Purged,
    /// Nothing was stored for it.
    NotStored,
}

impl PurgeTarget {
    /// Reads the `url` parameter of a purge's query.
    ///
    /// A URL that was not encoded (it holds `://`) is taken as it stands, to the
    /// end of the query, so that its own `?` and `&` need no care in a shell.
    /// One that was is decoded once.
    ///
    /// # Errors
    /// A sentence for the operator: no such parameter, or not a whole http(s) URL.
    pub(super) fn from_query(query: Option<&str>) -> Result<Self, &'static str> {
        const MISSING: &str = "name the page as ?url=https://host/path";
        let query = query.ok_or(MISSING)?;
        let start = if query.starts_with("url=") {
            4
        } else {
            query.find("&url=").ok_or(MISSING)? + 5
        };
        let rest = &query[start..];
        if rest.contains("://") {
            return Self::parse(rest);
        }
        let value = rest.split_once('&').map_or(rest, |(value, _)| value);
        let decoded = percent_decode(value).ok_or("the url parameter is not well encoded")?;
        Self::parse(&decoded)
    }

    fn parse(url: &str) -> Result<Self, &'static str> {
        const NOT_A_URL: &str = "url is not a whole URL as https://host/path";
        let url: Uri = url.parse().map_err(|_| NOT_A_URL)?;
        let scheme = match url.scheme_str() {
            Some("http") => Scheme::Http,
            Some("https") => Scheme::Https,
            _ => return Err(NOT_A_URL),
        };
        let authority = url.authority().ok_or(NOT_A_URL)?;
        if authority.as_str().contains('@') || authority.host().is_empty() {
            return Err("url must name a host and no user");
        }
        let path = match url.path() {
            "" => "/",
            path => path,
        };
        Ok(Self {
            scheme,
            host: authority.host().to_ascii_lowercase(),
            port: authority.port_u16(),
            path: path.to_owned(),
            query: url.query().map(str::to_owned),
        })
    }
}

/// `None` for a broken escape or what is not UTF-8.
fn percent_decode(text: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            decoded.push(*first);
            continue;
        }
        let [high, low, tail @ ..] = tail else {
            return None;
        };
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let value = digit(*high)? * 16 + digit(*low)?;
        decoded.push(u8::try_from(value).ok()?);
        rest = tail;
    }
    String::from_utf8(decoded).ok()
}

/// Whether a request may change state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// It carries the token.
    Granted,
    /// No token is configured: nobody may.
    Disabled,
    /// It carries no bearer token (RFC 6750 section 2.1).
    NoToken,
    /// It carries another one.
    WrongToken,
}

impl Access {
    pub(super) fn of(headers: &HeaderMap, token: Option<&conf::Secret>) -> Self {
        let Some(token) = token else {
            return Self::Disabled;
        };
        let Some(given) = bearer(headers) else {
            return Self::NoToken;
        };
        if same_secret(given, token.expose().as_bytes()) {
            Self::Granted
        } else {
            Self::WrongToken
        }
    }
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked(7)?;
    scheme
        .eq_ignore_ascii_case(b"bearer ")
        .then(|| token.trim_ascii())
}

/// Compares in a time that tells nothing but whether the lengths are equal. An
/// empty secret equals nothing.
fn same_secret(given: &[u8], secret: &[u8]) -> bool {
    if secret.is_empty() || given.len() != secret.len() {
        return false;
    }
    let pairs = given.iter().zip(secret);
    let difference = pairs.fold(0, |difference, (a, b)| black_box(difference | (a ^ b)));
    difference == 0
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn target(url: &str) -> Result<PurgeTarget, &'static str> {
        PurgeTarget::from_query(Some(&format!("url={url}")))
    }

    #[test]
    fn a_plain_url_is_taken_whole_with_its_own_query() {
        let target = target("https://Shop.Example/a%2Fb?x=1&y=2").expect("a URL");
        assert_eq!(
            target,
            PurgeTarget {
                scheme: Scheme::Https,
                host: "shop.example".to_owned(),
                port: None,
                path: "/a%2Fb".to_owned(),
                query: Some("x=1&y=2".to_owned()),
            }
        );
    }

    #[test]
    fn an_encoded_url_is_decoded_once() {
        let query = "soft=1&url=http%3A%2F%2F[::1]%3A8080%2Fa%252Fb%3Fx%3D1%26y&more=1";
        let target = PurgeTarget::from_query(Some(query)).expect("a URL");
        assert_eq!(
            (target.scheme, target.host.as_str()),
            (Scheme::Http, "[::1]")
        );
        assert_eq!(target.port, Some(8080));
        assert_eq!(target.path, "/a%2Fb");
        assert_eq!(target.query.as_deref(), Some("x=1&y"));
    }

    #[test]
    fn a_url_without_a_path_is_its_root() {
        assert_eq!(target("https://shop.example").expect("a URL").path, "/");
    }

    #[test]
    fn what_is_no_whole_url_is_refused() {
        for url in [
            "",
            "/path",
            "shop.example/path",
            "ftp://shop.example/",
            "https://",
            "https:///path",
            "https://user@shop.example/",
            "https://shop.example/ space",
            "https%3A%2F%2Fshop.example%2",
            "%ff%fe",
        ] {
            assert!(target(url).is_err(), "{url}");
        }
        assert!(PurgeTarget::from_query(None).is_err());
        assert!(PurgeTarget::from_query(Some("uri=https://shop.example/")).is_err());
    }

    #[test]
    fn only_the_configured_token_grants_access() {
        let secret = conf::Secret::new("s3cret".to_owned());
        let access = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, HeaderValue::from_static(value));
            Access::of(&headers, Some(&secret))
        };
        assert_eq!(access("Bearer s3cret"), Access::Granted);
        assert_eq!(access("bearer  s3cret "), Access::Granted);
        for wrong in [
            "Bearer s3cre",
            "Bearer s3crets",
            "Bearer S3CRET",
            "Bearer x",
        ] {
            assert_eq!(access(wrong), Access::WrongToken, "{wrong}");
        }
        for none in ["Basic s3cret", "s3cret", "Bearer"] {
            assert_eq!(access(none), Access::NoToken, "{none}");
        }
        let headers = HeaderMap::new();
        assert_eq!(Access::of(&headers, Some(&secret)), Access::NoToken);
        assert_eq!(Access::of(&headers, None), Access::Disabled);
    }

    #[test]
    fn an_empty_secret_grants_nothing() {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer "));
        let empty = conf::Secret::new(String::new());
        assert_ne!(Access::of(&headers, Some(&empty)), Access::Granted);
    }
}
