//! The client's own conditions, answered from what is stored (RFC 9111 section 4.3.2).
//!
//! Comes after [`crate::reuse`] said that the stored response may be used. If-Match and
//! If-Unmodified-Since are the origin's to answer; a request that carries one goes past the cache.

use std::time::SystemTime;

use http::header::{IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_UNMODIFIED_SINCE};

use crate::date;
use crate::fields::Fields;
use crate::head::Head;

/// Whether the client needs the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// Answer in full.
    Full,
    /// 304: the client has it.
    NotModified,
}

/// Whether the request has a condition that only the origin can judge.
pub fn is_for_origin(request: &dyn Fields) -> bool {
    request.has(&IF_MATCH) || request.has(&IF_UNMODIFIED_SINCE)
}

/// Judges the conditions of a GET or HEAD against the stored response.
pub fn evaluate(head: &Head, request: &dyn Fields, now: SystemTime) -> Condition {
    // RFC 9110 section 13.2.1: conditions are about what succeeds.
    if !head.status().is_success() {
        return Condition::Full;
    }
    let met = if request.has(&IF_NONE_MATCH) {
        // If-Modified-Since has then no say (RFC 9110 section 13.1.3).
        matches_none(head.etag(), request)
    } else {
        unmodified_since(head, request, now)
    };
    if met {
        Condition::NotModified
    } else {
        Condition::Full
    }
}

/// If-None-Match: one of the tags is the stored one, by weak comparison (RFC 9110 section 13.1.2).
fn matches_none(etag: Option<&[u8]>, request: &dyn Fields) -> bool {
    let mut found = false;
    request.each(&IF_NONE_MATCH, &mut |line| {
        found |= line == b"*";
        each_tag(line, &mut |tag| {
            found |= etag.is_some_and(|etag| is_weakly_equal(etag, tag));
        });
    });
    found
}

/// If-Modified-Since, against Last-Modified, or Date where there is none.
fn unmodified_since(head: &Head, request: &dyn Fields, now: SystemTime) -> bool {
    request
        .first(&IF_MODIFIED_SINCE)
        .and_then(|line| date::parse(line, now))
        .is_some_and(|since| head.last_modified().unwrap_or_else(|| head.date()) <= since)
}

/// Calls `f` with each entity tag of a line, `W/` and quotes included. A tag has no escapes, so this
/// is no list of quoted strings (RFC 9110 section 8.8.3).
pub(crate) fn each_tag(line: &[u8], f: &mut dyn FnMut(&[u8])) {
    let mut rest = line;
    while let Some(start) = rest
        .iter()
        .position(|byte| !matches!(byte, b' ' | b'\t' | b','))
    {
        rest = &rest[start..];
        let opening = if rest.starts_with(b"W/\"") {
            3
        } else {
            usize::from(rest[0] == b'"')
        };
        let end = if opening > 0 {
            memchr::memchr(b'"', &rest[opening..]).map(|at| opening + at + 1)
        } else {
            memchr::memchr(b',', rest)
        };
        let (tag, tail) = rest.split_at(end.unwrap_or(rest.len()));
        f(crate::fields::trim(tag));
        rest = tail;
    }
}

/// Weak comparison (RFC 9110 section 8.8.3.2).
pub(crate) fn is_weakly_equal(one: &[u8], other: &[u8]) -> bool {
    let opaque = |tag: &[u8]| tag.strip_prefix(b"W/").map_or(tag.len(), <[u8]>::len);
    one[one.len() - opaque(one)..] == other[other.len() - opaque(other)..]
}

/// Strong comparison: equal, and neither is weak.
pub(crate) fn is_strongly_equal(one: &[u8], other: &[u8]) -> bool {
    one == other && !is_weak(one)
}

/// Whether a tag is weak.
pub(crate) fn is_weak(tag: &[u8]) -> bool {
    tag.starts_with(b"W/")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{at, date, fields, head_of};

    fn decide(stored: &[&str], asked: &[&str]) -> Condition {
        evaluate(&head_of(200, stored), &fields(asked), at(0))
    }

    #[test]
    fn a_tag_the_client_has_is_not_sent_again() {
        for asked in ["\"a\"", "W/\"a\"", "\"x\", \"a\"", "\"x,y\",W/\"a\"", "*"] {
            let asked = format!("if-none-match: {asked}");
            assert_eq!(
                decide(&["etag: \"a\""], &[&asked]),
                Condition::NotModified,
                "{asked}"
            );
            assert_eq!(
                decide(&["etag: W/\"a\""], &[&asked]),
                Condition::NotModified,
                "{asked}"
            );
        }
        for asked in ["\"b\"", "a", "\"A\"", "\"b, \"", "w/\"a\""] {
            let asked = format!("if-none-match: {asked}");
            assert_eq!(
                decide(&["etag: \"a\""], &[&asked]),
                Condition::Full,
                "{asked}"
            );
        }
    }

    #[test]
    fn if_none_match_puts_if_modified_since_out_of_force() {
        let modified = format!("last-modified: {}", date(0));
        let since = format!("if-modified-since: {}", date(0));
        let asked = [since.as_str(), "if-none-match: \"b\""];
        assert_eq!(decide(&[&modified, "etag: \"a\""], &asked), Condition::Full);
        assert_eq!(
            decide(&[&modified, "etag: \"a\""], &[&since]),
            Condition::NotModified
        );
    }

    #[test]
    fn if_modified_since_is_held_against_last_modified_or_date() {
        let since = |seconds: u64| format!("if-modified-since: {}", date(seconds));
        let modified = format!("last-modified: {}", date(100));
        assert_eq!(decide(&[&modified], &[&since(100)]), Condition::NotModified);
        assert_eq!(decide(&[&modified], &[&since(99)]), Condition::Full);
        let dated = format!("date: {}", date(50));
        assert_eq!(decide(&[&dated], &[&since(50)]), Condition::NotModified);
        assert_eq!(decide(&[&dated], &[&since(49)]), Condition::Full);
        assert_eq!(
            decide(&[&modified], &["if-modified-since: x"]),
            Condition::Full
        );
    }

    #[test]
    fn conditions_are_only_about_what_succeeds() {
        let head = head_of(404, &["etag: \"a\""]);
        assert_eq!(
            evaluate(&head, &fields(&["if-none-match: *"]), at(0)),
            Condition::Full
        );
    }

    #[test]
    fn if_match_is_for_the_origin() {
        assert!(is_for_origin(&fields(&["if-match: \"a\""])));
        assert!(is_for_origin(&fields(&["if-unmodified-since: x"])));
        assert!(!is_for_origin(&fields(&["if-none-match: \"a\""])));
    }

    proptest::proptest! {
        #[test]
        fn reading_tags_is_total(line: Vec<u8>) {
            each_tag(&line, &mut |tag| assert!(!tag.is_empty()));
        }
    }
}
