//! The path of a request in its one form (RFC 3986, 6.2.2): what the edge does before it
//! routes, done here for the service that runs alone.
//!
//! Escapes of characters that need none are decoded, the others written in capitals, dot
//! segments resolved and slashes merged. A path that climbs above its beginning, or has a
//! broken escape, is refused: no honest client sends one.

use std::borrow::Cow;

use crate::confine::escaped;

/// Why a path has no normal form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPath {
    /// It does not begin with a slash.
    #[error("the path does not begin with a slash")]
    NotAbsolute,
    /// A percent sign without two hex digits.
    #[error("a percent sign without two hex digits")]
    Malformed,
    /// More `..` than segments before it.
    #[error("the path leads above its root")]
    AboveRoot,
}

/// Brings the path of a URL, without its query, into its one form.
///
/// # Errors
///
/// See [`BadPath`]; a server answers 400.
pub fn normalise(path: &str) -> Result<Cow<'_, str>, BadPath> {
    if !path.starts_with('/') {
        return Err(BadPath::NotAbsolute);
    }
    if !["%", "//", "/."].iter().any(|sign| path.contains(sign)) {
        return Ok(Cow::Borrowed(path));
    }
    let decoded = decode_unreserved(path)?;
    let mut kept: Vec<&str> = Vec::new();
    let mut directory = false;
    for segment in decoded.split('/') {
        directory = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => {
                kept.pop().ok_or(BadPath::AboveRoot)?;
            }
            segment => kept.push(segment),
        }
    }
    let mut normal = String::with_capacity(decoded.len());
    for segment in &kept {
        normal.push('/');
        normal.push_str(segment);
    }
    if directory || kept.is_empty() {
        normal.push('/');
    }
    Ok(Cow::Owned(normal))
}

fn decode_unreserved(path: &str) -> Result<String, BadPath> {
    let mut decoded = String::with_capacity(path.len());
    let mut parts = path.split('%');
    decoded.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let (digits, rest) = part.split_at_checked(2).ok_or(BadPath::Malformed)?;
        let byte = match digits.as_bytes() {
            &[high, low] => escaped(high, low).ok_or(BadPath::Malformed)?,
            _ => return Err(BadPath::Malformed),
        };
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            decoded.push(char::from(byte));
        } else {
            decoded.push('%');
            decoded.push_str(&digits.to_ascii_uppercase());
        }
        decoded.push_str(rest);
    }
    Ok(decoded)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_come_into_their_one_form() {
        for (path, expected) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a/", "/a/"),
            ("//a///b", "/a/b"),
            ("/a/./b/../c", "/a/c"),
            ("/a/..", "/"),
            ("/a/.", "/a/"),
            ("/%61%2D", "/a-"),
            ("/%2e%2E/", "!"),
            ("/a/%2e%2e/b", "/b"),
            ("/%2f%c3", "/%2F%C3"),
            ("/%25%32%65", "/%252e"),
            ("/.x", "/.x"),
            ("/a%20b", "/a%20b"),
        ] {
            let got = normalise(path);
            let got = got.as_deref().unwrap_or("!");
            assert_eq!(got, expected, "{path}");
        }
    }

    #[test]
    fn what_has_no_form_is_refused() {
        for (path, expected) in [
            ("", BadPath::NotAbsolute),
            ("*", BadPath::NotAbsolute),
            ("/..", BadPath::AboveRoot),
            ("/a/../../b", BadPath::AboveRoot),
            ("/%", BadPath::Malformed),
            ("/%4", BadPath::Malformed),
            ("/%4g", BadPath::Malformed),
            ("/%\u{e4}", BadPath::Malformed),
        ] {
            assert_eq!(normalise(path), Err(expected), "{path}");
        }
    }

    proptest! {
        #[test]
        fn a_normal_form_is_its_own_and_climbs_nowhere(path in "/([a./]|%2[eEfF]|%41|%25){0,16}") {
            if let Ok(normal) = normalise(&path) {
                prop_assert!(normal.starts_with('/') && !normal.contains("//"));
                prop_assert!(normal.split('/').all(|s| s != "." && s != ".."));
                prop_assert_eq!(normalise(&normal).unwrap(), normal.as_ref());
            }
        }
    }
}
