//! Mistakes of TOML syntax, said so that somebody who never read its grammar can mend them.

use std::ops::Range;

use crate::keys::{FILTER, LIMITS, LISTENER, ROOT, ROUTE, STATIC, TLS, UPSTREAM};
use crate::source::{FileId, Place};

use super::is_secret;

const SEMICOLON: &str = "lines do not end in a semicolon";

/// One mistake of syntax.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mistake {
    pub(crate) place: Place,
    pub(crate) message: String,
    pub(crate) label: Option<String>,
    pub(crate) help: Option<String>,
    /// Whether the recovered tree can be trusted.
    pub(crate) harmless: bool,
}

/// What the parser found, one a line, in file order.
///
/// After an unclosed bracket or quote everything behind it is noise, so such a
/// mistake is the last that is told.
pub(crate) fn explain(text: &str, file: FileId, errors: &[toml::de::Error]) -> Vec<Mistake> {
    let mut found: Vec<(usize, Mistake, bool)> = errors
        .iter()
        .map(|error| {
            let span = error.span().unwrap_or(0..0);
            let line = text[..floor(text, span.start)].matches('\n').count();
            let (mistake, last) = one(text, file, span, error.message());
            (line, mistake, last)
        })
        .collect();
    found.sort_by_key(|(line, mistake, _)| (*line, mistake.harmless, mistake.place));
    found.dedup_by_key(|(line, _, _)| *line);
    let mut mistakes = Vec::new();
    for (_, mistake, last) in found {
        mistakes.push(mistake);
        if last {
            break;
        }
    }
    mistakes
}

/// One mistake, and whether what follows it is noise.
fn one(text: &str, file: FileId, span: Range<usize>, message: &str) -> (Mistake, bool) {
    let line = Line::around(text, span.start);
    let mut mistake = Mistake {
        place: Place::new(file, span.clone()),
        message: format!("this is not TOML: {message}"),
        label: None,
        help: None,
        harmless: false,
    };
    let mut last = false;
    if let Some((message, help)) = line.habit() {
        mistake.place = Place::new(file, line.content());
        mistake.message = message.into();
        mistake.help = Some(help);
        mistake.harmless = message == SEMICOLON;
    } else if message.starts_with("duplicate key") {
        duplicate(text, &span, &mut mistake);
    } else if message.starts_with("string values must be quoted")
        || message.starts_with("invalid float")
        || message.starts_with("invalid integer")
        || message.starts_with("invalid datetime")
        || message.starts_with("invalid boolean")
    {
        unquoted(text, file, &line, &mut mistake);
    } else if message.contains("unclosed")
        || message.starts_with("invalid basic string")
        || message.starts_with("invalid literal string")
        || message.starts_with("invalid multi-line")
    {
        unclosed(message, &mut mistake);
        last = true;
    } else if message.contains("escape") {
        mistake.message = "a backslash inside double quotes starts an escape".into();
        mistake.help = Some(
            "help: write regular expressions in single quotes, where a backslash is a backslash: '^/p/(\\d+)$'"
                .into(),
        );
    } else if message.starts_with("unexpected key or value") {
        mistake.message = "more follows where the line should end".into();
        mistake.label = Some("one key to a line".into());
    } else if message.starts_with("missing comma") {
        (mistake.message, mistake.label) = if line.content().start >= span.start {
            (
                "the line before ends without a comma or its closing bracket".into(),
                Some("`,` or the closing `]` or `}` is missing before this".into()),
            )
        } else {
            (
                "a comma is missing between two values".into(),
                Some("put `,` here, or close the bracket before".into()),
            )
        };
        last = true;
    } else if message.contains("`=`") || message.contains("assignment") {
        mistake.message = "a key without `=` and a value".into();
        mistake.help = Some("help: write key = value".into());
    }
    (mistake, last)
}

/// A value of plain words: `30s`, `on`, `127.0.0.1:80`, `round_robin`.
fn unquoted(text: &str, file: FileId, line: &Line<'_>, mistake: &mut Mistake) {
    let start = floor(text, mistake.place.start);
    let from = text[..start]
        .rfind(['=', ',', '[', '\n', ' '])
        .map_or(0, |at| at + 1)
        .max(line.start);
    let rest = &text[from..line.end];
    let ends = [',', ']', '}', '#', ';', ' '];
    let word = rest.split(ends).next().unwrap_or(rest).trim();
    if word.is_empty() {
        mistake.place = Place::new(file, line.content());
        mistake.message = "a key without a value".into();
        mistake.label = Some("a value is missing after `=`".into());
        return;
    }
    mistake.place = Place::new(file, from..from + word.len());
    let flag = match word.to_ascii_lowercase().as_str() {
        "yes" | "on" | "true" => Some("true"),
        "no" | "off" | "false" => Some("false"),
        _ => None,
    };
    if is_secret(line.words()) {
        mistake.message = "a value without quotes".into();
        mistake.label = Some("strings stand in double quotes".into());
        mistake.harmless = true;
        return;
    }
    (mistake.message, mistake.label) = match flag {
        Some(flag) => (
            format!("`{word}` is not a value in TOML"),
            Some(format!("write {flag}")),
        ),
        None => (
            format!("`{word}` has no quotes"),
            Some(format!("write \"{word}\"")),
        ),
    };
    mistake.harmless = true;
}

fn duplicate(text: &str, span: &Range<usize>, mistake: &mut Mistake) {
    let key = text.get(span.clone()).unwrap_or_default();
    let lines = text.lines().collect::<Vec<_>>();
    let at = text[..floor(text, span.start)].matches('\n').count();
    let here = lines.get(at).copied().unwrap_or_default().trim();
    mistake.harmless = true;
    if here.starts_with('[') {
        mistake.message = format!("the section `{key}` is there twice");
        mistake.help = Some(format!(
            "help: put the keys of both under one header; lists of sections ([[listener]], [[route]]) have double brackets{}",
            first_line(&lines, at, |line| line == here
                || line.trim_matches(['[', ']']) == here.trim_matches(['[', ']']))
        ));
    } else {
        mistake.message = format!("the key `{key}` is there twice in one table");
        mistake.label = Some("delete one of them".into());
        let same = |line: &str| {
            let rest = line.trim_start().strip_prefix(key);
            rest.is_some_and(|rest| rest.trim_start().starts_with('='))
        };
        let start = lines[..at]
            .iter()
            .rposition(|line| line.trim_start().starts_with('['));
        let before = (start.unwrap_or(0)..at).find(|line| same(lines[*line]));
        mistake.help = before.map(|line| format!("note: it is there first in line {}", line + 1));
    }
}

fn first_line(lines: &[&str], before: usize, matches: impl Fn(&str) -> bool) -> String {
    lines
        .iter()
        .take(before)
        .position(|line| matches(line.trim()))
        .map_or_else(String::new, |line| format!(" (first in line {})", line + 1))
}

fn unclosed(message: &str, mistake: &mut Mistake) {
    let (what, mark) = if message.contains("array table") {
        ("a section header", "]]")
    } else if message.contains("inline table") {
        ("a table that starts with `{`", "}")
    } else if message.contains("array") {
        ("a list that starts with `[`", "]")
    } else if message.contains("table") {
        ("a section header", "]")
    } else if message.contains("literal") {
        ("a string in single quotes", "'")
    } else {
        ("a string", "\"")
    };
    mistake.message = format!("{what} is not closed");
    mistake.label = Some(format!("`{mark}` is missing"));
    if mark == "]" && what.contains("header") {
        mistake.help = Some(
            "help: names in a header have letters, digits, `_` and `-`; others need quotes: [upstream.\"a.b\"]"
                .into(),
        );
    }
}

/// What stands for a block of nginx or Caddy.
fn block(words: &str) -> String {
    let (first, rest) = words.split_once(' ').unwrap_or((words, ""));
    match first {
        "server" => "help: write a [[listener]] for the address, and a [[route]] with match = { host = \"...\" }".into(),
        "upstream" => format!("help: write a header: [upstream.{}]", rest.trim()),
        _ => match ROOT.advice(first) {
            Some(advice) => format!("help: {advice}"),
            None => "help: a section starts with a header such as [server], and below it lines of key = value".into(),
        },
    }
}

/// What stands for a directive of nginx, wherever it belongs here.
fn directive(word: &str) -> Option<&'static str> {
    let likely = [
        &LISTENER, &ROUTE, &STATIC, &UPSTREAM, &LIMITS, &FILTER, &TLS,
    ];
    let others = ROOT.family();
    let mut shapes = likely.into_iter().chain(others);
    shapes.find_map(|shape| shape.advice(word))
}

/// The line around a place.
struct Line<'a> {
    text: &'a str,
    start: usize,
    end: usize,
}

impl<'a> Line<'a> {
    fn around(text: &'a str, at: usize) -> Self {
        let at = floor(text, at);
        let start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
        let end = text[at..].find('\n').map_or(text.len(), |more| at + more);
        Self { text, start, end }
    }

    fn words(&self) -> &'a str {
        self.text[self.start..self.end].trim()
    }

    fn content(&self) -> Range<usize> {
        let line = &self.text[self.start..self.end];
        let lead = line.len() - line.trim_start().len();
        self.start + lead..self.start + line.trim_end().len().max(lead)
    }

    /// Lines as other programs want them.
    fn habit(&self) -> Option<(&'static str, String)> {
        let words = self.words();
        if words.starts_with("//") || words.starts_with("--") || words.starts_with("/*") {
            return Some((
                "this is no comment in TOML",
                "help: a comment starts with `#`".into(),
            ));
        }
        if words.starts_with("- ") {
            return Some((
                "lists are not written with dashes in TOML",
                "help: a list of sections is [[listener]] for each; a list of values is [\"a\", \"b\"]".into(),
            ));
        }
        if words == "}" {
            return Some((
                "sections are not closed in TOML",
                "help: delete this line; a section ends where the next header starts".into(),
            ));
        }
        if let Some(before) = words.strip_suffix('{')
            && !before.contains('=')
        {
            return Some(("sections have no braces in TOML", block(before.trim())));
        }
        let Some(before) = words.strip_suffix(';') else {
            return self.colon();
        };
        match before.split_once('=') {
            Some(_) => Some((SEMICOLON, format!("help: write {}", self.hidden(before)))),
            None => {
                let (key, value) = before.split_once(' ').unwrap_or((before, "..."));
                let help = match directive(key) {
                    Some(advice) => format!("help: {advice}"),
                    None => format!("help: the form here is {key} = \"{}\"", value.trim()),
                };
                Some(("this is written as for nginx", self.hidden(&help)))
            }
        }
    }

    /// `key: value`, as in YAML.
    fn colon(&self) -> Option<(&'static str, String)> {
        let words = self.words();
        let (key, value) = words.split_once(':')?;
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
        if key.is_empty() || !key.chars().all(plain) {
            return None;
        }
        let value = match value.trim() {
            "" => "...",
            value => value,
        };
        Some((
            "keys and values are joined by `=`, not by `:`",
            self.hidden(&format!("help: write {key} = {value}")),
        ))
    }

    /// Text for a message, unless the line may hold a secret.
    fn hidden(&self, shown: &str) -> String {
        if is_secret(self.words()) {
            "help: write key = value".into()
        } else {
            shown.to_owned()
        }
    }
}

/// In a file whose tree cannot be trusted: whole values of lines that speak of a secret.
pub(crate) fn secret_lines(text: &str) -> Vec<Range<usize>> {
    let mut masked = Vec::new();
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        if is_secret(line)
            && let Some(at) = line.find(['=', ':', '"'])
        {
            masked.push(start + at + 1..start + line.len());
        }
        start += line.len();
    }
    masked
}

fn floor(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}
