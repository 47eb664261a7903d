//! The Cache-Status field (RFC 9211): what the cache did with a request, in a line.
//!
//! ```text
//! cache-status: Tidegate;hit;ttl=42
//! cache-status: Tidegate;fwd=uri-miss;fwd-status=200;stored
//! cache-status: Tidegate;fwd=stale;fwd-status=304;stored;collapsed;ttl=-3;detail=revalidated
//! ```
//!
//! A line of the upstream's own stays; ours is added behind it.

use std::fmt::Write;

/// Why a request went upstream (RFC 9211 section 2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forward {
    /// The route does not cache this.
    Bypass,
    /// The method is not one that is answered from the cache.
    Method,
    /// Nothing is stored for the URL.
    UriMiss,
    /// Something is, but no variant that fits.
    VaryMiss,
    /// Nothing fits, and which of the two is not known.
    Miss,
    /// The request wanted it validated.
    Request,
    /// What is stored is stale.
    Stale,
    /// Only a part is stored.
    Partial,
}

impl Forward {
    /// The token of RFC 9211.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::Method => "method",
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Miss => "miss",
            Self::Request => "request",
            Self::Stale => "stale",
            Self::Partial => "partial",
        }
    }
}

/// What the cache did. The default says nothing but the name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheStatus<'a> {
    /// The request went upstream, for this reason; `None` means answered from the store.
    pub fwd: Option<Forward>,
    /// Answered without going upstream. Not written where `fwd` is set.
    pub hit: bool,
    /// The status that the upstream answered with, where it is not the one the client sees.
    pub fwd_status: Option<u16>,
    /// The response was stored.
    pub stored: bool,
    /// The request waited for that of another client.
    pub collapsed: bool,
    /// Seconds left of the lifetime, negative when stale.
    pub ttl: Option<i64>,
    /// The key, where it may be shown.
    pub key: Option<&'a str>,
    /// A word more, such as [`crate::storable::NotStored::as_str`].
    pub detail: Option<&'a str>,
}

/// The name under which this cache appears.
pub const NAME: &str = "Tidegate";

/// The range of an integer in a structured field (RFC 9651 section 3.3.1).
const MAX_INTEGER: i64 = 999_999_999_999_999;

impl CacheStatus<'_> {
    /// Writes the value of the field.
    pub fn write(&self, out: &mut String) {
        out.push_str(NAME);
        if let Some(why) = self.fwd {
            out.push_str(";fwd=");
            out.push_str(why.as_str());
        } else if self.hit {
            out.push_str(";hit");
        }
        if let (Some(status), Some(_)) = (self.fwd_status, self.fwd) {
            let _ = write!(out, ";fwd-status={status}");
        }
        if self.stored {
            out.push_str(";stored");
        }
        if self.collapsed {
            out.push_str(";collapsed");
        }
        if let Some(ttl) = self.ttl {
            out.push_str(";ttl=");
            let ttl = ttl.clamp(-MAX_INTEGER, MAX_INTEGER);
            out.push_str(itoa::Buffer::new().format(ttl));
        }
        if let Some(key) = self.key {
            out.push_str(";key=");
            write_string(key, out);
        }
        if let Some(detail) = self.detail {
            out.push_str(";detail=");
            if is_token(detail) {
                out.push_str(detail);
            } else {
                write_string(detail, out);
            }
        }
    }

    /// The value of the field.
    pub fn to_value(&self) -> String {
        let mut out = String::with_capacity(64);
        self.write(&mut out);
        out
    }
}

/// A token of RFC 9651 section 3.3.4.
fn is_token(text: &str) -> bool {
    let starts = text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '*');
    starts
        && text
            .bytes()
            .all(|byte| crate::fields::is_token_byte(byte) || matches!(byte, b':' | b'/'))
}

/// A string of RFC 9651 section 3.3.3; what it cannot hold is written as `?`.
fn write_string(text: &str, out: &mut String) {
    out.push('"');
    for one in text.chars() {
        match one {
            '"' | '\\' => out.extend(['\\', one]),
            ' '..='~' => out.push(one),
            _ => out.push('?'),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_hit_says_how_long_it_lasts() {
        let status = CacheStatus {
            hit: true,
            ttl: Some(42),
            ..CacheStatus::default()
        };
        assert_eq!(status.to_value(), "Tidegate;hit;ttl=42");
    }

    #[test]
    fn a_miss_says_why_and_what_came_of_it() {
        let status = CacheStatus {
            fwd: Some(Forward::UriMiss),
            fwd_status: Some(200),
            stored: true,
            collapsed: true,
            ttl: Some(-3),
            detail: Some("no-lifetime"),
            ..CacheStatus::default()
        };
        assert_eq!(
            status.to_value(),
            "Tidegate;fwd=uri-miss;fwd-status=200;stored;collapsed;ttl=-3;detail=no-lifetime"
        );
    }

    fn forward() -> impl Strategy<Value = Option<Forward>> {
        prop::sample::select(vec![
            None,
            Some(Forward::Bypass),
            Some(Forward::Method),
            Some(Forward::UriMiss),
            Some(Forward::VaryMiss),
            Some(Forward::Miss),
            Some(Forward::Request),
            Some(Forward::Stale),
            Some(Forward::Partial),
        ])
    }

    proptest! {
        #[test]
        fn it_is_always_a_structured_list_of_one_item(
            fwd in forward(), hit: bool, fwd_status in prop::option::of(100u16..600), stored: bool,
            collapsed: bool, ttl: Option<i64>, key: Option<String>, detail: Option<String>,
        ) {
            let status = CacheStatus {
                fwd, hit, fwd_status, stored, collapsed, ttl,
                key: key.as_deref(), detail: detail.as_deref(),
            };
            let value = status.to_value();
            let list: sfv::List = sfv::Parser::new(&value).parse().unwrap();
            prop_assert_eq!(list.len(), 1);
            let hit_and_fwd = value.contains(";hit") && value.contains(";fwd=");
            prop_assert!(!hit_and_fwd || key.is_some() || detail.is_some());
        }
    }
}
