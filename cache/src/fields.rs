//! How the decisions see the fields of a message.
//!
//! A trait and not `http::HeaderMap`, because a carrier may hold a head that it parsed in place;
//! and [`crate::head::Head`] itself keeps its fields as one block of lines. Object-safe, so that
//! the decisions are compiled once.
//!
//! Here too: the syntax that several fields share, lists and tokens (RFC 9110 section 5.6). Nothing
//! here knows what a field means.

use http::header::COOKIE;
use http::{HeaderMap, HeaderName};

/// The fields of one message, in the order received.
pub trait Fields {
    /// The value of the first line with this name, without the whitespace around it.
    fn first(&self, name: &HeaderName) -> Option<&[u8]>;

    /// Calls `f` with the value of each line of this name, in order.
    fn each(&self, name: &HeaderName, f: &mut dyn FnMut(&[u8]));

    /// Calls `f` with name and value of every line. Lines of one name come in order.
    fn all(&self, f: &mut dyn FnMut(&[u8], &[u8]));

    /// Whether there is a line of this name.
    fn has(&self, name: &HeaderName) -> bool {
        self.first(name).is_some()
    }
}

impl Fields for HeaderMap {
    fn first(&self, name: &HeaderName) -> Option<&[u8]> {
        self.get(name).map(|value| trim(value.as_bytes()))
    }

    fn each(&self, name: &HeaderName, f: &mut dyn FnMut(&[u8])) {
        for value in self.get_all(name) {
            f(trim(value.as_bytes()));
        }
    }

    fn all(&self, f: &mut dyn FnMut(&[u8], &[u8])) {
        for (name, value) in self {
            f(name.as_str().as_bytes(), trim(value.as_bytes()));
        }
    }
}

/// Calls `f` with each member of a list field (RFC 9110 section 5.6.1): the lines are joined, commas
/// within quoted strings do not split, empty members are skipped.
pub fn each_member(fields: &dyn Fields, name: &HeaderName, f: &mut dyn FnMut(&[u8])) {
    fields.each(name, &mut |line| split_list(line, f));
}

/// Calls `f` with each member of one line of a list field.
///
/// A quote that is never closed is taken for an ordinary character, so that nothing after it hides.
pub fn split_list(line: &[u8], f: &mut dyn FnMut(&[u8])) {
    Members::of(line)
        .filter(|member| !member.is_empty())
        .for_each(f);
}

/// The members of one line of a list field, empty ones too, in time that grows with the line's length
/// and no faster: a line may be a client's.
pub(crate) struct Members<'a> {
    rest: &'a [u8],
    /// A quote was never closed. What follows it is at most more of its escaped quotes, and no scan from
    /// one of those would come to another end.
    is_open: bool,
}

impl<'a> Members<'a> {
    pub(crate) fn of(line: &'a [u8]) -> Self {
        Self {
            rest: line,
            is_open: false,
        }
    }

    /// Where the first member of the rest ends: at a comma outside quotes, or at the end.
    fn end(&mut self) -> usize {
        let list = self.rest;
        let mut at = 0;
        while at < list.len() {
            match list[at] {
                b',' => return at,
                b'"' if !self.is_open => {
                    let end = quoted_end(list, at);
                    self.is_open = end.is_none();
                    at = end.unwrap_or(at + 1);
                }
                _ => at += 1,
            }
        }
        list.len()
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.rest.is_empty() {
            return None;
        }
        let end = self.end();
        let member = trim(&self.rest[..end]);
        self.rest = self.rest.get(end + 1..).unwrap_or_default();
        Some(member)
    }
}

/// The position after the quoted string that opens at `open`, or `None` when it is never closed
/// (RFC 9110 section 5.6.4).
pub(crate) fn quoted_end(text: &[u8], open: usize) -> Option<usize> {
    let mut at = open + 1;
    while at < text.len() {
        match text[at] {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    None
}

/// The value of the first cookie of this name (RFC 6265 section 4.2).
pub fn cookie(fields: &dyn Fields, name: &str) -> Option<Vec<u8>> {
    let mut found = None;
    fields.each(&COOKIE, &mut |line| {
        for pair in line.split(|byte| *byte == b';') {
            let mut halves = pair.splitn(2, |byte| *byte == b'=');
            let is_it = halves.next().map(trim) == Some(name.as_bytes());
            if is_it && found.is_none() {
                found = halves.next().map(|value| trim(value).to_vec());
            }
        }
    });
    found
}

/// The values of all cookies of this name, in order: applications differ in which one they take.
pub fn cookies(fields: &dyn Fields, name: &str) -> Option<Vec<u8>> {
    let mut found: Option<Vec<u8>> = None;
    fields.each(&COOKIE, &mut |line| {
        for pair in line.split(|byte| *byte == b';') {
            let mut halves = pair.splitn(2, |byte| *byte == b'=');
            if halves.next().map(trim) != Some(name.as_bytes()) {
                continue;
            }
            let value = halves.next().map(trim).unwrap_or_default();
            match &mut found {
                None => found = Some(value.to_vec()),
                Some(found) => {
                    // No value can hold it.
                    found.push(b';');
                    found.extend_from_slice(value);
                }
            }
        }
    });
    found
}

/// Whether `byte` may stand in a token (RFC 9110 section 5.6.2).
pub(crate) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Whether `text` is a token (RFC 9110 section 5.6.2).
pub fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().copied().all(is_token_byte)
}

/// `text` without spaces and tabs around it (OWS, RFC 9110 section 5.6.3).
pub fn trim(text: &[u8]) -> &[u8] {
    let mut text = text;
    while let [b' ' | b'\t', rest @ ..] = text {
        text = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

/// The decimal number that `text` is: digits only, at least one. `u64::MAX` when it is larger.
pub(crate) fn digits(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(text.iter().fold(0u64, |sum, digit| {
        sum.saturating_mul(10)
            .saturating_add(u64::from(digit - b'0'))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::VARY;

    fn members(line: &[u8]) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        split_list(line, &mut |member| found.push(member.to_vec()));
        found
    }

    #[test]
    fn a_list_is_split_at_commas_and_empty_members_are_skipped() {
        assert_eq!(members(b" a ,, b,\tc ,"), [&b"a"[..], b"b", b"c"]);
        assert!(members(b"").is_empty() && members(b" , ,").is_empty());
    }

    #[test]
    fn a_comma_in_a_quoted_string_does_not_split() {
        assert_eq!(
            members(br#"a="x, \" y", b"#),
            [&br#"a="x, \" y""#[..], b"b"]
        );
    }

    #[test]
    fn an_unclosed_quote_hides_nothing() {
        assert_eq!(
            members(br#"a="x, no-store"#),
            [&br#"a="x"#[..], b"no-store"]
        );
    }

    #[test]
    fn lines_of_one_name_are_one_list() {
        let mut map = HeaderMap::new();
        map.append(VARY, "a, b".parse().unwrap());
        map.append(VARY, "c".parse().unwrap());
        let mut found = Vec::new();
        each_member(&map, &VARY, &mut |member| found.push(member.to_vec()));
        assert_eq!(found, [b"a", b"b", b"c"]);
        assert_eq!(map.first(&VARY), Some(&b"a, b"[..]));
    }

    #[test]
    fn a_cookie_is_found_by_its_whole_name() {
        let mut map = HeaderMap::new();
        map.append(COOKIE, "xsid=1; sid = 2;a".parse().unwrap());
        map.append(COOKIE, "late=3; sid=4".parse().unwrap());
        assert_eq!(cookie(&map, "sid").as_deref(), Some(&b"2"[..]));
        assert_eq!(cookie(&map, "late").as_deref(), Some(&b"3"[..]));
        assert_eq!(cookie(&map, "a"), None, "a name without a value");
        assert_eq!(cookie(&map, "SID"), None);
        assert_eq!(cookies(&map, "sid").as_deref(), Some(&b"2;4"[..]));
        assert_eq!(cookies(&map, "SID"), None);
    }

    #[test]
    fn a_number_is_digits_only_and_saturates() {
        assert_eq!(digits(b"007"), Some(7));
        assert_eq!(digits(b"99999999999999999999999"), Some(u64::MAX));
        for bad in [&b""[..], b"-1", b"+1", b"1.0", b" 1", b"1a"] {
            assert_eq!(digits(bad), None);
        }
    }

    proptest::proptest! {
        #[test]
        fn splitting_is_total(line: Vec<u8>) {
            split_list(&line, &mut |member| assert!(!member.is_empty()));
        }
    }
}
