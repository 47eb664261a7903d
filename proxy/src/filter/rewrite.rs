//! Another path (and query) for what follows: the upstream, the file look-up.
//!
//! A rewrite works on the normalised path, and what it makes is normalised
//! again, so it can neither make a dot segment nor a second spelling. The
//! client does not see it: that would be a redirect. The route is not looked
//! for again.

use regex::{Captures, Regex};

use crate::exchange::guard::Reject;
use crate::exchange::guard::octets::{QUERY, is};
use crate::exchange::normalise::{canonical, normalise_path};

/// A compiled rewrite.
#[derive(Debug)]
pub(crate) struct Rewriting(Kind);

#[derive(Debug)]
enum Kind {
    Prefix {
        prefix: String,
        to: String,
    },
    Regex {
        regex: Regex,
        path: Vec<Piece>,
        query: Option<Vec<Piece>>,
    },
}

/// A part of a replacement.
#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    /// Index of a capture group; one that the regex lacks is empty.
    Group(usize),
}

/// What a rewrite made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rewritten {
    /// Normalised.
    pub(crate) path: String,
    /// Without `?`.
    pub(crate) query: Option<String>,
}

impl Rewriting {
    /// Compiles a rewrite: groups are resolved, text gets the escapes that it needs.
    #[must_use]
    pub(crate) fn new(rewrite: &conf::Rewrite) -> Self {
        match rewrite {
            conf::Rewrite::Prefix { prefix, to } => Self(Kind::Prefix {
                prefix: canonical(prefix),
                to: canonical(to),
            }),
            conf::Rewrite::Regex { regex, to } => {
                let (path, query) = match to.split_once('?') {
                    Some((path, query)) => (path, Some(query)),
                    None => (to.as_str(), None),
                };
                Self(Kind::Regex {
                    regex: regex.clone(),
                    path: pieces(path, regex, canonical),
                    query: query.map(|query| pieces(query, regex, query_text)),
                })
            }
        }
    }

    /// The new path and query; `None` when the rewrite does not apply.
    ///
    /// A prefix is replaced on a segment boundary and leaves the query alone. A
    /// regex that matches anywhere replaces the whole path; when its
    /// replacement has a query, the request's own is put behind it with `&`.
    /// What a group brings into a query cannot end its parameter: `&`, `=`, `+`
    /// and `;` are escaped.
    ///
    /// # Errors
    /// When the result is no path: see [`normalise_path`].
    pub(crate) fn apply(
        &self,
        path: &str,
        query: Option<&str>,
        merge_slashes: bool,
    ) -> Result<Option<Rewritten>, Reject> {
        let (path, query) = match &self.0 {
            Kind::Prefix { prefix, to } => match below(path, prefix) {
                Some(rest) => (join(to, rest), query.map(str::to_owned)),
                None => return Ok(None),
            },
            Kind::Regex {
                regex,
                path: to,
                query: to_query,
            } => {
                let Some(captures) = regex.captures(path) else {
                    return Ok(None);
                };
                let new = expand(to, &captures, |out, text| out.push_str(text));
                (new, new_query(to_query.as_deref(), &captures, query))
            }
        };
        let path = normalise_path(&path, merge_slashes)?.into_owned();
        Ok(Some(Rewritten { path, query }))
    }
}

/// What follows `prefix` if it ends on a segment boundary of `path`.
fn below<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    let rest = path.strip_prefix(prefix)?;
    (rest.is_empty() || rest.starts_with('/') || prefix.ends_with('/')).then_some(rest)
}

/// With exactly one slash between `to` and what follows.
fn join(to: &str, rest: &str) -> String {
    if rest.is_empty() {
        return if to.is_empty() {
            "/".to_owned()
        } else {
            to.to_owned()
        };
    }
    let to = to.strip_suffix('/').unwrap_or(to);
    let rest = rest.strip_prefix('/').unwrap_or(rest);
    format!("{to}/{rest}")
}

fn new_query(to: Option<&[Piece]>, captures: &Captures<'_>, own: Option<&str>) -> Option<String> {
    let Some(to) = to else {
        return own.map(str::to_owned);
    };
    let mut query = expand(to, captures, push_parameter);
    match own {
        Some(own) if !own.is_empty() => {
            if !query.is_empty() {
                query.push('&');
            }
            query.push_str(own);
        }
        _ => {}
    }
    Some(query)
}

fn expand(pieces: &[Piece], captures: &Captures<'_>, push: impl Fn(&mut String, &str)) -> String {
    let mut out = String::new();
    for piece in pieces {
        match piece {
            Piece::Text(text) => out.push_str(text),
            Piece::Group(index) => {
                if let Some(group) = captures.get(*index) {
                    push(&mut out, group.as_str());
                }
            }
        }
    }
    out
}

/// A piece of a normalised path, as (a part of) a form parameter's value.
fn push_parameter(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("%26"),
            '=' => out.push_str("%3D"),
            '+' => out.push_str("%2B"),
            ';' => out.push_str("%3B"),
            c => out.push(c),
        }
    }
}

/// Escapes what a query must not carry bare.
fn query_text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if is(byte, QUERY) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Splits `$1`, `$name`, `${name}` and `$$` out of `text` by the rules of the
/// regex crate: a name without braces is as long as it can be.
fn pieces(text: &str, regex: &Regex, spell: fn(&str) -> String) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        literal.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        match reference(rest) {
            Some((name, after)) => {
                flush(&mut pieces, &mut literal, spell);
                pieces.extend(group(name, regex).map(Piece::Group));
                rest = after;
            }
            None => {
                literal.push('$');
                rest = rest.strip_prefix('$').unwrap_or(rest);
            }
        }
    }
    literal.push_str(rest);
    flush(&mut pieces, &mut literal, spell);
    pieces
}

fn flush(pieces: &mut Vec<Piece>, literal: &mut String, spell: fn(&str) -> String) {
    if !literal.is_empty() {
        pieces.push(Piece::Text(spell(literal)));
        literal.clear();
    }
}

/// The group name behind a `$`, and what follows it.
fn reference(text: &str) -> Option<(&str, &str)> {
    if let Some(braced) = text.strip_prefix('{') {
        return braced.split_once('}');
    }
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let end = text.find(|c| !word(c)).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

fn group(name: &str, regex: &Regex) -> Option<usize> {
    match name.parse() {
        Ok(index) => Some(index),
        Err(_) => regex.capture_names().position(|group| group == Some(name)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use regex::Regex;

    use super::{Rewriting, Rewritten};
    use crate::exchange::guard::Reject;
    use crate::exchange::normalise::normalise_path;

    fn prefix(prefix: &str, to: &str) -> Rewriting {
        Rewriting::new(&conf::Rewrite::Prefix {
            prefix: prefix.to_owned(),
            to: to.to_owned(),
        })
    }

    fn regex(regex: &str, to: &str) -> Rewriting {
        let regex = Regex::new(regex).expect("a regex");
        Rewriting::new(&conf::Rewrite::Regex {
            regex,
            to: to.to_owned(),
        })
    }

    /// `path?query` of the result; `None` when the rewrite does not apply.
    #[track_caller]
    fn made(rewriting: &Rewriting, target: &str) -> Option<String> {
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        let made = rewriting.apply(path, query, true).expect("a path");
        made.map(|Rewritten { path, query }| match query {
            Some(query) => format!("{path}?{query}"),
            None => path,
        })
    }

    #[test]
    fn a_prefix_is_replaced_on_segment_boundaries() {
        for (from, to, target, wanted) in [
            ("/old", "/new", "/old/a?b=c", Some("/new/a?b=c")),
            ("/old", "/new", "/old", Some("/new")),
            ("/old", "/new", "/old/", Some("/new/")),
            ("/old", "/new", "/older", None),
            ("/old", "/new", "/x/old", None),
            ("/old", "/", "/old/a", Some("/a")),
            ("/old", "/", "/old", Some("/")),
            ("/old", "", "/old/a", Some("/a")),
            ("/old", "", "/old", Some("/")),
            ("/old/", "/new", "/old/a", Some("/new/a")),
            ("/old/", "/new/", "/old/a", Some("/new/a")),
            ("/", "/v1", "/a", Some("/v1/a")),
            (
                "/café",
                "/kaffee haus",
                "/caf%C3%A9/a",
                Some("/kaffee%20haus/a"),
            ),
        ] {
            assert_eq!(
                made(&prefix(from, to), target).as_deref(),
                wanted,
                "{from} {to} {target}"
            );
        }
    }

    #[test]
    fn a_regex_replaces_the_whole_path_with_its_groups() {
        for (from, to, target, wanted) in [
            (
                r"^/p/(\d+)$",
                "/product?id=$1",
                "/p/17",
                Some("/product?id=17"),
            ),
            (
                r"^/p/(\d+)$",
                "/product?id=$1",
                "/p/17?x=y",
                Some("/product?id=17&x=y"),
            ),
            (r"^/p/(\d+)$", "/product?id=$1", "/p/x", None),
            (
                r"^/p/(?<id>\d+)$",
                "/q/${id}x$$",
                "/p/17?x=y",
                Some("/q/17x$?x=y"),
            ),
            (r"^/p/(?<id>\d+)$", "/$id/$idx/$9", "/p/17", Some("/17/")),
            ("b", "/x", "/a/b/c", Some("/x")),
            ("^(/.*)$", "$1", "/a//b", Some("/a/b")),
            (
                "^/(.*)$",
                "/a b/$1?c d=é",
                "/x",
                Some("/a%20b/x?c%20d=%C3%A9"),
            ),
            ("^/a$", "/x?", "/a?b", Some("/x?b")),
            ("^/a$", "/x$", "/a", Some("/x$")),
            ("^/a$", "/x${1", "/a", Some("/x$%7B1")),
        ] {
            assert_eq!(
                made(&regex(from, to), target).as_deref(),
                wanted,
                "{from} {to} {target}"
            );
        }
    }

    #[test]
    fn a_group_cannot_add_a_parameter_of_its_own() {
        let rewriting = regex("^/p/(.*)$", "/product?id=$1");
        let wanted = "/product?id=1%26admin%3D1%3B%2B%2F";
        assert_eq!(
            made(&rewriting, "/p/1&admin=1;+%2F").as_deref(),
            Some(wanted)
        );
    }

    #[test]
    fn a_result_that_is_no_path_is_refused() {
        let up = regex("^/a/(.*)$", "/x/../../$1");
        assert_eq!(up.apply("/a/b", None, true), Err(Reject::PathAboveRoot));
        let dots = regex("^/a/(.*)$", "/x/.$1/y");
        assert_eq!(made(&dots, "/a/.").as_deref(), Some("/y"));
        let relative = regex("^/a/(.*)$", "$1");
        assert_eq!(relative.apply("/a/b", None, true), Err(Reject::BadTarget));
        let cut = regex("^/(.)", "/$1");
        assert_eq!(cut.apply("/%2F", None, true), Err(Reject::BadEscape));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_rewritten_path_is_in_its_one_spelling(path in "/[a-c./%2Ee&;-]{0,12}", to in "[/$1a.?&%]{0,8}") {
            if let Ok(path) = normalise_path(&path, true) {
                for rewriting in [regex("^/a?(.*)$", &format!("/{to}")), prefix("/a", &to)] {
                    if let Ok(Some(made)) = rewriting.apply(&path, None, true) {
                        let again = normalise_path(&made.path, true);
                        prop_assert_eq!(again.as_deref(), Ok(&*made.path));
                    }
                }
            }
        }
    }
}
