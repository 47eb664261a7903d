//! One spelling for each path.
//!
//! Routing, caching and file look-up all work on what comes out of here, so
//! that no rule is slipped by through another spelling of the same path
//! (RFC 3986 section 6.2.2). Escapes of unreserved characters are decoded, all
//! others are in upper case and stay escaped: `%2F` never becomes `/`. What a
//! path may not carry bare is escaped. Dot segments are gone. The result is a
//! fixed point: normalising it again changes nothing.
//!
//! The query is passed as it came; its meaning is the application's, and
//! stray `%` in it are common.

use std::borrow::Cow;

use super::guard::Reject;
use super::guard::octets::{PATH, PCHAR, QUERY, UNRESERVED, is};

/// A request target in its one spelling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target<'a> {
    /// Begins with `/`, or is `*` (OPTIONS about the server itself). ASCII.
    pub(crate) path: Cow<'a, str>,
    /// Behind the first `?`, without it; may be empty. ASCII.
    pub(crate) query: Option<&'a str>,
}

/// Normalises a target in origin-form, absolute-form or asterisk-form.
///
/// With `merge_slashes` runs of `/` become one. Nothing is allocated when the
/// path has its one spelling already. The authority of an absolute target is
/// cut off unseen: the guard has judged it.
///
/// # Errors
/// [`Reject::BadTarget`] for an octet or form that no target has, [`Reject::BadEscape`],
/// [`Reject::NulInPath`], [`Reject::PathAboveRoot`] and [`Reject::HiddenDotSegment`].
pub(crate) fn normalise(target: &str, merge_slashes: bool) -> Result<Target<'_>, Reject> {
    let relative = without_authority(target);
    let (path, query) = match memchr::memchr(b'?', relative.as_bytes()) {
        Some(at) => (&relative[..at], Some(&relative[at + 1..])),
        None => (relative, None),
    };
    if !query.unwrap_or_default().bytes().all(|b| is(b, QUERY)) {
        return Err(Reject::BadTarget);
    }
    let path = match path {
        "" if relative.len() < target.len() => Cow::Borrowed("/"),
        "*" if target == "*" => Cow::Borrowed("*"),
        path => normalise_path(path, merge_slashes)?,
    };
    Ok(Target { path, query })
}

/// Normalises a path alone.
///
/// # Errors
/// As [`normalise`]; a `?` is [`Reject::BadTarget`].
pub(crate) fn normalise_path(path: &str, merge_slashes: bool) -> Result<Cow<'_, str>, Reject> {
    if !path.starts_with('/') {
        return Err(Reject::BadTarget);
    }
    let found = survey(path.as_bytes(), merge_slashes)?;
    let path = if found.respell {
        let spelled = respell(path)?;
        Cow::Owned(resolve(&spelled, merge_slashes)?)
    } else if found.resolve {
        Cow::Owned(resolve(path, merge_slashes)?)
    } else {
        Cow::Borrowed(path)
    };
    if found.dubious && hides_dot_segment(&path) {
        return Err(Reject::HiddenDotSegment);
    }
    Ok(path)
}

/// The spelling that a configured path has once a request for it is
/// normalised: everything that needs an escape gets one (`/café` becomes
/// `/caf%C3%A9`), escapes are unified. Segments stay as they are.
#[must_use]
pub(crate) fn canonical(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match (bytes[at], escape(bytes, at)) {
            (b'%', Ok(byte)) => {
                push_octet(&mut out, byte, UNRESERVED);
                at += 3;
            }
            (byte, _) => {
                push_octet(&mut out, byte, PCHAR);
                at += 1;
            }
        }
    }
    out
}

/// What follows `http://authority`; origin-form and `*` as they are.
fn without_authority(target: &str) -> &str {
    let rest = strip_scheme(target, "http://").or_else(|| strip_scheme(target, "https://"));
    let Some(rest) = rest else {
        return target;
    };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    &rest[end..]
}

fn strip_scheme<'a>(target: &'a str, scheme: &str) -> Option<&'a str> {
    let (start, rest) = target.split_at_checked(scheme.len())?;
    start.eq_ignore_ascii_case(scheme).then_some(rest)
}

/// What has to be done to a path.
#[derive(Default)]
struct Survey {
    /// An escape or a bare octet is not in its one spelling.
    respell: bool,
    /// There may be dot segments or runs of slashes.
    resolve: bool,
    /// Characters that could hide a dot segment are there.
    dubious: bool,
}

fn survey(path: &[u8], merge_slashes: bool) -> Result<Survey, Reject> {
    let mut found = Survey::default();
    let mut at = 0;
    while at < path.len() {
        let byte = path[at];
        match byte {
            b'/' => match path.get(at + 1) {
                Some(b'/') => found.resolve |= merge_slashes,
                Some(b'.') => found.resolve |= begins_with_dot_segment(&path[at + 1..]),
                _ => {}
            },
            b'%' => {
                let octet = escape(path, at)?;
                let lower = path[at + 1..at + 3].iter().any(u8::is_ascii_lowercase);
                found.respell |= lower || is(octet, UNRESERVED);
                found.dubious |= matches!(octet, b'/' | b'\\');
                at += 2;
            }
            b';' => found.dubious = true,
            _ if is(byte, PCHAR) => {}
            _ if is(byte, PATH) => found.respell = true,
            _ => return Err(Reject::BadTarget),
        }
        at += 1;
    }
    Ok(found)
}

/// Whether the segment that begins here is `.` or `..`.
fn begins_with_dot_segment(rest: &[u8]) -> bool {
    let end = rest.iter().position(|&b| b == b'/').unwrap_or(rest.len());
    matches!(&rest[..end], b"." | b"..")
}

/// The octet that the escape at `at` stands for.
fn escape(bytes: &[u8], at: usize) -> Result<u8, Reject> {
    let digit = |offset: usize| {
        let byte = bytes.get(at + offset).copied().unwrap_or_default();
        (byte as char)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    match (digit(1), digit(2)) {
        (Some(0), Some(0)) => Err(Reject::NulInPath),
        (Some(high), Some(low)) => Ok(high << 4 | low),
        _ => Err(Reject::BadEscape),
    }
}

fn respell(path: &str) -> Result<String, Reject> {
    let mut out = String::with_capacity(path.len() + 8);
    let bytes = path.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == b'%' {
            push_octet(&mut out, escape(bytes, at)?, UNRESERVED);
            at += 3;
        } else {
            push_octet(&mut out, bytes[at], PCHAR);
            at += 1;
        }
    }
    Ok(out)
}

/// Bare when it is a slash or of the class `bare`, else as an escape. An octet
/// that came escaped is bare only if unreserved, so an escaped slash never is.
fn push_octet(out: &mut String, byte: u8, bare: u8) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    if is(byte, bare) || (byte == b'/' && bare == PCHAR) {
        out.push(char::from(byte));
    } else {
        out.push('%');
        out.push(char::from(HEX[usize::from(byte >> 4)]));
        out.push(char::from(HEX[usize::from(byte & 15)]));
    }
}

/// Removes dot segments (RFC 3986 section 5.2.4) and, when told, empty ones.
/// Where the RFC lets `..` stop at the root, this is an error: nobody who
/// means well asks for more.
fn resolve(path: &str, merge_slashes: bool) -> Result<String, Reject> {
    let mut out = String::with_capacity(path.len());
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." => {}
            ".." => out.truncate(out.rfind('/').ok_or(Reject::PathAboveRoot)?),
            "" if last || merge_slashes => {}
            segment => {
                out.push('/');
                out.push_str(segment);
            }
        }
        if last && matches!(segment, "" | "." | "..") {
            out.push('/');
        }
    }
    Ok(out)
}

/// Whether a server behind us may find a dot segment that is none by RFC 3986:
/// one that takes `%2F` or `%5C` for a slash, or drops what follows `;`.
fn hides_dot_segment(path: &str) -> bool {
    path.split('/')
        .flat_map(|segment| segment.split("%2F"))
        .flat_map(|segment| segment.split("%5C"))
        .any(|piece| matches!(piece.split(';').next(), Some("." | "..")))
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use proptest::prelude::*;

    use super::{Target, canonical, normalise, normalise_path};
    use crate::exchange::guard::Reject;

    #[track_caller]
    fn becomes(path: &str, wanted: &str) {
        assert_eq!(normalise_path(path, true).as_deref(), Ok(wanted), "{path}");
    }

    #[track_caller]
    fn refused(path: &str, reject: Reject) {
        assert_eq!(normalise_path(path, true), Err(reject), "{path}");
    }

    #[test]
    fn a_path_in_its_one_spelling_is_borrowed() {
        for path in [
            "/",
            "/a/b.css",
            "/.well-known/x",
            "/...",
            "/a/..b",
            "/a;b=c",
            "/%2F%5C%25%C3%A4",
            "/a:@!$&'()*+,=~-_",
            "/a%2Fb;c",
        ] {
            assert!(
                matches!(normalise_path(path, true), Ok(Cow::Borrowed(p)) if p == path),
                "{path}"
            );
        }
        assert!(matches!(
            normalise_path("//a//", false),
            Ok(Cow::Borrowed("//a//"))
        ));
    }

    #[test]
    fn escapes_get_one_spelling() {
        becomes("/%61%7E%2d", "/a~-");
        becomes("/%c3%a4%2f%5c%3f%3b", "/%C3%A4%2F%5C%3F%3B");
        becomes("/%2541", "/%2541");
        becomes("/{a}|^[b]", "/%7Ba%7D%7C%5E%5Bb%5D");
        becomes("/%7Ba%7d", "/%7Ba%7D");
        becomes("/%0a%7f", "/%0A%7F");
    }

    #[test]
    fn dot_segments_are_removed_in_every_spelling() {
        for path in [
            "/a/./b",
            "/a/%2e/b",
            "/a/x/../b",
            "/a/x/%2E%2e/b",
            "/a/x/.%2e/b",
            "/a//b",
            "/a/x//../b",
        ] {
            becomes(path, "/a/b");
        }
        becomes("/a/.", "/a/");
        becomes("/a/..", "/");
        becomes("/a/b/..", "/a/");
        becomes("/./", "/");
        becomes("//", "/");
        becomes("/a//", "/a/");
    }

    #[test]
    fn slashes_are_merged_only_when_told() {
        let kept = |path| normalise_path(path, false).map(Cow::into_owned);
        assert_eq!(kept("//a/./b").as_deref(), Ok("//a/b"));
        assert_eq!(kept("/a//../b").as_deref(), Ok("/a/b"));
        assert_eq!(kept("//..").as_deref(), Ok("/"));
    }

    #[test]
    fn a_path_never_leads_above_the_root() {
        for path in [
            "/..",
            "/../",
            "/a/../..",
            "/%2e%2e/a",
            "/./../a",
            "//..",
            "/a/../../a",
        ] {
            refused(path, Reject::PathAboveRoot);
        }
    }

    #[test]
    fn dot_segments_that_only_another_server_would_see_are_refused() {
        for path in [
            "/a/..;/b",
            "/a/..;x=y/b",
            "/a/.;/b",
            "/a/%2e%2e;/b",
            "/a/..%2fb",
            "/a/..%5cb",
            "/a%2f..",
            "/a%2F..%2Fb",
            "/a/b%5C%2e%2e",
            "/a/.%2F",
            "/;/..;",
            "/a%2f%2e%2e%5c",
        ] {
            refused(path, Reject::HiddenDotSegment);
        }
        becomes("/a/b..;c", "/a/b..;c");
    }

    #[test]
    fn malformed_paths_are_refused() {
        for path in ["/%", "/%a", "/%zz", "/%4", "/a%", "/%%41", "/%+1"] {
            refused(path, Reject::BadEscape);
        }
        refused("/a%00", Reject::NulInPath);
        for path in [
            "", "a", "*", "/a b", "/a#b", "/a\\b", "/a?b", "/ä", "/\"", "/<", "/\0", "/\u{7f}",
        ] {
            refused(path, Reject::BadTarget);
        }
    }

    #[test]
    fn every_target_form_gives_path_and_query() {
        for (target, path, query) in [
            ("/a?b=%zz|&c?d", "/a", Some("b=%zz|&c?d")),
            ("/a?", "/a", Some("")),
            ("*", "*", None),
            ("http://shop.example", "/", None),
            ("HTTPS://shop.example?a", "/", Some("a")),
            ("http://shop.example:80/a/../b?c", "/b", Some("c")),
            ("//shop.example/a", "/shop.example/a", None),
        ] {
            let wanted = Target {
                path: Cow::Borrowed(path),
                query,
            };
            assert_eq!(normalise(target, true), Ok(wanted), "{target}");
        }
        for target in [
            "",
            "?a",
            "*?a",
            "ftp://a/",
            "/?#",
            "/? ",
            "/?ä",
            "http://a/#",
        ] {
            assert_eq!(normalise(target, true), Err(Reject::BadTarget), "{target}");
        }
    }

    #[test]
    fn a_configured_path_gets_the_spelling_of_requests_for_it() {
        assert_eq!(canonical("/café au lait"), "/caf%C3%A9%20au%20lait");
        assert_eq!(canonical("/%7e%c3%a9%2f"), "/~%C3%A9%2F");
        assert_eq!(canonical("/50%"), "/50%25");
        assert_eq!(canonical("/a?b"), "/a%3Fb");
    }

    fn soup() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            4 => Just("/"), 2 => Just("."), 2 => Just(".."), 2 => Just("%2e"), 2 => Just("%2F"),
            1 => Just("%5c"), 1 => Just(";"), 2 => Just("a"), 1 => Just("%41"), 1 => Just("%c3"),
            1 => Just("%25"), 1 => Just("{"), 1 => Just("%7b"), 1 => Just("2e"), 1 => Just("%"),
        ];
        proptest::collection::vec(piece, 0..14).prop_map(|pieces| format!("/{}", pieces.concat()))
    }

    /// Decodes everything, as a careless server would.
    fn decoded(path: &str) -> Vec<u8> {
        let bytes = path.as_bytes();
        let mut out = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            match bytes[at] {
                b'%' => {
                    out.push(u8::from_str_radix(&path[at + 1..at + 3], 16).expect("an escape"));
                    at += 3;
                }
                byte => {
                    out.push(byte);
                    at += 1;
                }
            }
        }
        out
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn normalising_twice_changes_nothing_and_allocates_nothing(path in soup(), merge: bool) {
            if let Ok(once) = normalise_path(&path, merge) {
                let twice = normalise_path(&once, merge);
                prop_assert!(matches!(twice, Ok(Cow::Borrowed(p)) if p == once), "{path} -> {once}");
                prop_assert_eq!(canonical(&once), once.as_ref());
            }
        }

        #[test]
        fn no_dot_segment_is_left_however_it_is_decoded(path in soup(), merge: bool) {
            if let Ok(out) = normalise_path(&path, merge) {
                prop_assert!(out.starts_with('/'));
                prop_assert!(!merge || !out.contains("//"));
                let decoded = decoded(&out);
                let dots = decoded.split(|b| matches!(b, b'/' | b'\\')).any(|s| s == b"." || s == b"..");
                prop_assert!(!dots, "{path} -> {out}");
            }
        }

        #[test]
        fn the_order_of_decoding_and_removing_never_matters(path in soup()) {
            let Ok(plain) = normalise_path(&path, true) else {
                return Ok(());
            };
            let escaped: String = path.replace("%2e", ".").replace("%41", "A").chars()
                .map(|c| if c == '.' { "%2e".to_owned() } else { c.to_string() })
                .collect();
            prop_assert_eq!(normalise_path(&escaped, true), Ok(plain), "{}", escaped);
        }

        #[test]
        fn no_text_makes_it_panic(target in ".{0,40}", merge: bool) {
            let _ = normalise(&target, merge);
            let _ = canonical(&target);
        }
    }
}
