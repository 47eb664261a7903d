//! Entity tags: the syntax and the two comparisons of RFC 9110, 8.8.3, and the lists of
//! them that `If-Match` and `If-None-Match` carry.
//!
//! A tag borrows the bytes of the field it came from; nothing is copied to compare.

use http::HeaderName;

use crate::fields::{Fields, trim};

/// An entity tag such as `"3f9a1c"` or `W/"3f9a1c"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntityTag<'a> {
    weak: bool,
    opaque: &'a [u8],
}

impl<'a> EntityTag<'a> {
    /// Reads a field value that is exactly one tag; `None` where it is malformed.
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        match Self::split(value)? {
            (tag, []) => Some(tag),
            _ => None,
        }
    }

    /// Whether the tag carries `W/`.
    pub fn is_weak(self) -> bool {
        self.weak
    }

    /// Strong comparison (RFC 9110, 8.8.3.2): same characters, and neither is weak.
    pub fn strongly_equals(self, other: EntityTag<'_>) -> bool {
        !self.weak && !other.weak && self.opaque == other.opaque
    }

    /// Weak comparison (RFC 9110, 8.8.3.2): same characters, whatever the strength.
    pub fn weakly_equals(self, other: EntityTag<'_>) -> bool {
        self.opaque == other.opaque
    }

    /// Takes one tag off the front of `text`.
    fn split(text: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (weak, quoted) = match text.strip_prefix(b"W/") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let inner = quoted.strip_prefix(b"\"")?;
        let end = inner.iter().position(|&byte| !is_etagc(byte))?;
        let (opaque, rest) = inner.split_at(end);
        let rest = rest.strip_prefix(b"\"")?;
        Some((Self { weak, opaque }, rest))
    }
}

/// `etagc` of RFC 9110, 8.8.3: visible characters but the quote, and obs-text.
fn is_etagc(byte: u8) -> bool {
    matches!(byte, 0x21 | 0x23..=0x7e | 0x80..)
}

/// Which comparison a list is searched with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    Strong,
    Weak,
}

/// Whether the list in field `name` holds `current`, or is `*` (the caller has a current
/// representation, else it would not ask).
///
/// A malformed list holds nothing: for `If-Match` that refuses, for `If-None-Match` that
/// answers in full, and both are the safe side.
pub(crate) fn listed(
    fields: &dyn Fields,
    name: &HeaderName,
    current: Option<EntityTag<'_>>,
    comparison: Comparison,
) -> bool {
    let mut list = List {
        current,
        comparison,
        members: 0,
        any: false,
        found: false,
        malformed: false,
    };
    fields.each(name, &mut |line| list.read(line));
    !list.malformed && (list.found || (list.any && list.members == 1))
}

/// What was seen so far of a list that may stretch over several lines.
struct List<'t> {
    current: Option<EntityTag<'t>>,
    comparison: Comparison,
    members: u32,
    any: bool,
    found: bool,
    malformed: bool,
}

impl List<'_> {
    fn read(&mut self, line: &[u8]) {
        let mut rest = trim(line);
        while !rest.is_empty() && !self.malformed {
            // RFC 9110, 5.6.1.2: a recipient takes empty members.
            if let Some(next) = rest.strip_prefix(b",") {
                rest = trim(next);
                continue;
            }
            rest = trim(self.member(rest));
            if !rest.is_empty() && !rest.starts_with(b",") {
                self.malformed = true;
            }
        }
    }

    /// Reads one member and returns what follows it.
    fn member<'l>(&mut self, text: &'l [u8]) -> &'l [u8] {
        self.members += 1;
        if let Some(rest) = text.strip_prefix(b"*") {
            self.any = true;
            self.malformed |= self.members > 1;
            return rest;
        }
        let Some((tag, rest)) = EntityTag::split(text) else {
            self.malformed = true;
            return &[];
        };
        self.malformed |= self.any;
        self.found |= self.current.is_some_and(|current| match self.comparison {
            Comparison::Strong => tag.strongly_equals(current),
            Comparison::Weak => tag.weakly_equals(current),
        });
        rest
    }
}

#[cfg(test)]
mod tests {
    use http::header::IF_MATCH;
    use http::{HeaderMap, HeaderValue};

    use super::*;

    fn tag(text: &str) -> EntityTag<'_> {
        EntityTag::parse(text.as_bytes()).unwrap()
    }

    fn has(lines: &[&str], comparison: Comparison) -> bool {
        let mut map = HeaderMap::new();
        for line in lines {
            map.append(IF_MATCH, HeaderValue::from_str(line).unwrap());
        }
        listed(&map, &IF_MATCH, Some(tag("\"a\"")), comparison)
    }

    #[test]
    fn comparisons_follow_the_table_of_the_rfc() {
        let cases = [
            ("W/\"1\"", "W/\"1\"", false, true),
            ("W/\"1\"", "W/\"2\"", false, false),
            ("W/\"1\"", "\"1\"", false, true),
            ("\"1\"", "\"1\"", true, true),
        ];
        for (left, right, strong, weak) in cases {
            assert_eq!(
                tag(left).strongly_equals(tag(right)),
                strong,
                "{left} {right}"
            );
            assert_eq!(tag(left).weakly_equals(tag(right)), weak, "{left} {right}");
        }
    }

    #[test]
    fn what_is_no_tag_is_refused() {
        for text in [
            "", "a", "\"a", "a\"", "w/\"a\"", "W/ \"a\"", "\"a b\"", "\"a\"b", "*",
        ] {
            assert_eq!(EntityTag::parse(text.as_bytes()), None, "{text}");
        }
        assert!(EntityTag::parse(b"\"\"").is_some(), "an empty tag is a tag");
        assert!(
            EntityTag::parse(b"\"\xfc\"").is_some(),
            "obs-text is allowed"
        );
    }

    #[test]
    fn a_list_is_searched_over_commas_and_lines() {
        assert!(has(&["\"x\", \"a\""], Comparison::Strong));
        assert!(has(&["\"x\"", "\"a\""], Comparison::Strong));
        assert!(
            has(&[",, \"a\" ,"], Comparison::Strong),
            "empty members are skipped"
        );
        assert!(
            has(&["\"a,b\",\"a\""], Comparison::Strong),
            "a comma inside a tag"
        );
        assert!(!has(&["\"x\", \"y\""], Comparison::Strong));
        assert!(!has(&[""], Comparison::Weak));
    }

    #[test]
    fn a_weak_member_counts_only_weakly() {
        assert!(!has(&["W/\"a\""], Comparison::Strong));
        assert!(has(&["W/\"a\""], Comparison::Weak));
    }

    #[test]
    fn a_star_stands_alone() {
        assert!(has(&["*"], Comparison::Strong));
        assert!(!has(&["*, \"a\""], Comparison::Strong));
        assert!(!has(&["\"a\", *"], Comparison::Weak));
        assert!(!has(&["*", "*"], Comparison::Weak));
    }

    #[test]
    fn a_malformed_list_holds_nothing() {
        for line in ["\"a\" \"b\"", "\"a\", b", "\"a\"x", "a", "\"a\", \"b"] {
            assert!(!has(&[line], Comparison::Weak), "{line}");
        }
    }
}
