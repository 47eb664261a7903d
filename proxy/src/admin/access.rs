//! Who may change state.

use std::hint::black_box;

use http::HeaderMap;
use http::header::AUTHORIZATION;

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
