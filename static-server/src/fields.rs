//! How the decisions read header fields: one small trait, so that a parsed head, an
//! `http::HeaderMap` and a carrier's own header type can all be asked the same questions
//! without being copied first.
//!
//! Values are bytes: what a peer sent need not be text, and the parsers here say no by
//! themselves.

use http::{HeaderMap, HeaderName};

/// The header fields of one request.
pub trait Fields {
    /// The value of the first line with this name, without surrounding whitespace.
    fn first(&self, name: &HeaderName) -> Option<&[u8]>;

    /// Calls `f` with the value of every line of this name, in the order received.
    fn each(&self, name: &HeaderName, f: &mut dyn FnMut(&[u8]));
}

impl Fields for HeaderMap {
    fn first(&self, name: &HeaderName) -> Option<&[u8]> {
        self.get(name).map(http::HeaderValue::as_bytes)
    }

    fn each(&self, name: &HeaderName, f: &mut dyn FnMut(&[u8])) {
        for value in self.get_all(name) {
            f(value.as_bytes());
        }
    }
}

/// How often a field that may stand only once was sent.
pub(crate) enum Lines<'a> {
    None,
    One(&'a [u8]),
    Several,
}

/// Reads a field that is no list, such as `Range` or `If-Modified-Since`.
pub(crate) fn lines<'a>(fields: &'a dyn Fields, name: &HeaderName) -> Lines<'a> {
    let Some(value) = fields.first(name) else {
        return Lines::None;
    };
    let mut count = 0_u32;
    fields.each(name, &mut |_| count += 1);
    if count > 1 {
        Lines::Several
    } else {
        Lines::One(value)
    }
}

/// `value` without optional whitespace at its ends (RFC 9110, 5.6.3).
pub(crate) fn trim(value: &[u8]) -> &[u8] {
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = value.iter().position(|b| !blank(b)).unwrap_or(value.len());
    let end = value
        .iter()
        .rposition(|b| !blank(b))
        .map_or(start, |i| i + 1);
    value.get(start..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whitespace_is_taken_from_both_ends_only() {
        assert_eq!(trim(b" \ta b\t "), b"a b");
        assert_eq!(trim(b"  "), b"");
        assert_eq!(trim(b""), b"");
    }

    #[test]
    fn repeated_lines_are_told_from_one() {
        let mut map = HeaderMap::new();
        assert!(matches!(lines(&map, &http::header::RANGE), Lines::None));
        map.append(http::header::RANGE, http::HeaderValue::from_static("a"));
        assert!(matches!(
            lines(&map, &http::header::RANGE),
            Lines::One(b"a")
        ));
        map.append(http::header::RANGE, http::HeaderValue::from_static("b"));
        assert!(matches!(lines(&map, &http::header::RANGE), Lines::Several));
    }
}
