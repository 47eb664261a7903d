//! From the path of a URL to a name under the root, or a refusal.
//!
//! The path is decoded once, and only what is left after that counts: an escape of an escape
//! is a file name with a percent sign. What could mean something to a file system or to
//! another reader of the same path (dot segments, hidden slashes, backslashes, control
//! characters) is refused rather than cleaned: cleaning would serve one file under many
//! names, and some rule elsewhere knows only one of them. Symbolic links are the file
//! system's part; see [`crate::files`].

use std::borrow::Cow;

/// The longest decoded path that is looked up: what the kernel takes (`PATH_MAX`).
const LONGEST: usize = 4_096;

/// The one directory with a leading dot that is for the public (RFC 8615).
const WELL_KNOWN: &str = ".well-known";

/// A decoded path that is safe to look up below a root: relative, of plain segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    path: Cow<'a, str>,
}

/// Why a path names no file. All of them are answered with 404: to an outsider, what is
/// refused and what is not there look alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It does not begin with a slash.
    NotAbsolute,
    /// A percent sign without two hex digits.
    Malformed,
    /// Its bytes are not UTF-8 (overlong forms are not).
    NotUtf8,
    /// A NUL or another control character.
    Control,
    /// An encoded slash, or a backslash.
    Separator,
    /// `.` or `..` as a segment.
    DotSegment,
    /// A segment that begins with a dot, other than `/.well-known`.
    Hidden,
    /// Two slashes in a row.
    EmptySegment,
    /// Longer than any path of the system.
    TooLong,
}

impl Refusal {
    /// The reason's name, for the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotAbsolute => "not_absolute",
            Self::Malformed => "malformed_escape",
            Self::NotUtf8 => "not_utf8",
            Self::Control => "control_character",
            Self::Separator => "encoded_separator",
            Self::DotSegment => "dot_segment",
            Self::Hidden => "hidden_name",
            Self::EmptySegment => "empty_segment",
            Self::TooLong => "too_long",
        }
    }
}

impl<'a> Target<'a> {
    /// Decodes and checks the path of a URL, without its query.
    ///
    /// # Errors
    ///
    /// The first reason found to look nothing up.
    pub fn parse(path: &'a str) -> Result<Self, Refusal> {
        let relative = path.strip_prefix('/').ok_or(Refusal::NotAbsolute)?;
        let path = decode(relative)?;
        if path.len() > LONGEST {
            return Err(Refusal::TooLong);
        }
        if path.bytes().any(|byte| byte.is_ascii_control()) {
            return Err(Refusal::Control);
        }
        if path.contains('\\') {
            return Err(Refusal::Separator);
        }
        check_segments(&path)?;
        Ok(Self { path })
    }

    /// The decoded path without its leading slash: `""` is the root, `docs/` a directory.
    pub fn as_str(&self) -> &str {
        &self.path
    }

    /// Whether the URL names a directory, that is, ends with a slash.
    pub fn is_directory(&self) -> bool {
        self.path.is_empty() || self.path.ends_with('/')
    }

    /// The last segment; empty for a directory.
    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }
}

fn decode(path: &str) -> Result<Cow<'_, str>, Refusal> {
    if !path.contains('%') {
        return Ok(Cow::Borrowed(path));
    }
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        if byte != b'%' {
            decoded.push(byte);
            rest = after;
            continue;
        }
        let (&[high, low], after) = after.split_first_chunk().ok_or(Refusal::Malformed)?;
        let byte = escaped(high, low).ok_or(Refusal::Malformed)?;
        if byte == b'/' {
            return Err(Refusal::Separator);
        }
        decoded.push(byte);
        rest = after;
    }
    String::from_utf8(decoded)
        .map(Cow::Owned)
        .map_err(|_| Refusal::NotUtf8)
}

/// The byte that `%` and two hex digits stand for.
pub(crate) fn escaped(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|d| u8::try_from(d).ok())
    };
    Some(digit(high)? << 4 | digit(low)?)
}

fn check_segments(path: &str) -> Result<(), Refusal> {
    let mut segments = path.split('/').enumerate().peekable();
    while let Some((index, segment)) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "" if last => {}
            "" => return Err(Refusal::EmptySegment),
            "." | ".." => return Err(Refusal::DotSegment),
            WELL_KNOWN if index == 0 => {}
            hidden if hidden.starts_with('.') => return Err(Refusal::Hidden),
            _ => {}
        }
    }
    Ok(())
}

/// The last segment of `target` with a slash added, as a relative reference (RFC 9110,
/// 10.2.2): it leads to the right place whatever prefix a router has cut off before.
pub(crate) fn directory_reference(target: &Target<'_>) -> String {
    let mut reference = escaped_name(target.name());
    reference.push('/');
    reference
}

/// A file name as a relative reference, which leads to it from the directory that it is in.
pub(crate) fn escaped_name(name: &str) -> String {
    let mut reference = String::with_capacity(name.len() + 1);
    for byte in name.bytes() {
        // A colon would make the text before it a scheme.
        if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=@".contains(&byte) {
            reference.push(char::from(byte));
        } else {
            reference.push_str(&format!("%{byte:02X}"));
        }
    }
    reference
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refusal(path: &str) -> Refusal {
        Target::parse(path).unwrap_err()
    }

    #[test]
    fn plain_paths_become_relative_names() {
        for (path, name) in [
            ("/", ""),
            ("/a/b.css", "a/b.css"),
            ("/docs/", "docs/"),
            ("/a%20b", "a b"),
            ("/caf%C3%A9", "caf\u{e9}"),
            ("/.well-known/security.txt", ".well-known/security.txt"),
            ("/a..b/c...", "a..b/c..."),
        ] {
            assert_eq!(Target::parse(path).unwrap().as_str(), name, "{path}");
        }
    }

    #[test]
    fn an_escape_is_decoded_once() {
        assert_eq!(Target::parse("/%252e%252e").unwrap().as_str(), "%2e%2e");
    }

    #[test]
    fn each_way_out_has_its_refusal() {
        for (path, expected) in [
            ("a", Refusal::NotAbsolute),
            ("", Refusal::NotAbsolute),
            ("/..", Refusal::DotSegment),
            ("/a/../b", Refusal::DotSegment),
            ("/%2e%2e/b", Refusal::DotSegment),
            ("/.%2E", Refusal::DotSegment),
            ("/a/./b", Refusal::DotSegment),
            ("/a%2fb", Refusal::Separator),
            ("/..%2f..%2fetc", Refusal::Separator),
            ("/a%5cb", Refusal::Separator),
            ("/a\\b", Refusal::Separator),
            ("/a%00.css", Refusal::Control),
            ("/a%0ab", Refusal::Control),
            ("/a%7f", Refusal::Control),
            ("/%", Refusal::Malformed),
            ("/%4", Refusal::Malformed),
            ("/%zz", Refusal::Malformed),
            ("/%+1", Refusal::Malformed),
            ("/%ff", Refusal::NotUtf8),
            ("/%c0%ae%c0%ae", Refusal::NotUtf8),
            ("/.git/config", Refusal::Hidden),
            ("/a/.env", Refusal::Hidden),
            ("/a/.well-known/x", Refusal::Hidden),
            ("/.well-known/.git", Refusal::Hidden),
            ("//evil.example", Refusal::EmptySegment),
            ("/a//b", Refusal::EmptySegment),
        ] {
            assert_eq!(refusal(path), expected, "{path}");
        }
        assert_eq!(
            refusal(&format!("/{}", "a".repeat(5_000))),
            Refusal::TooLong
        );
    }

    #[test]
    fn a_directory_is_told_by_its_slash() {
        assert!(Target::parse("/").unwrap().is_directory());
        assert!(Target::parse("/a/").unwrap().is_directory());
        assert!(!Target::parse("/a").unwrap().is_directory());
        assert_eq!(Target::parse("/a/b").unwrap().name(), "b");
    }

    #[test]
    fn a_reference_to_a_directory_is_no_reference_elsewhere() {
        for (path, expected) in [
            ("/docs", "docs/"),
            ("/a/b%20c", "b%20c/"),
            ("/javascript:alert(1)", "javascript%3Aalert(1)/"),
            ("/%3Fq", "%3Fq/"),
        ] {
            let target = Target::parse(path).unwrap();
            assert_eq!(directory_reference(&target), expected, "{path}");
        }
    }

    proptest! {
        #[test]
        fn whatever_passes_is_plain(path in "/([a.%/\\\\]|%2[efEF]|%5c|%00|\\.\\.|\u{e4}){0,12}") {
            if let Ok(target) = Target::parse(&path) {
                let name = target.as_str();
                prop_assert!(!name.starts_with('/'));
                let trimmed = name.strip_suffix('/').unwrap_or(name);
                if !trimmed.is_empty() {
                    for segment in trimmed.split('/') {
                        prop_assert!(!segment.is_empty() && !segment.starts_with('.'));
                        prop_assert!(!segment.contains(['\\', '\0']));
                    }
                }
            }
        }
    }
}
