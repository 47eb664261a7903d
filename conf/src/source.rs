//! The files read, and places in them.

use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::diagnostic::Excerpt;

/// Longest part of a line that is shown, in characters.
const WINDOW: usize = 120;

/// Which file; in the order read, so that places sort in file order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct FileId(pub(crate) usize);

/// Bytes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    pub(crate) file: FileId,
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// Whether the file as a whole is meant.
    pub(crate) whole: bool,
}

impl Place {
    pub(crate) fn new(file: FileId, span: Range<usize>) -> Self {
        Self {
            file,
            start: span.start,
            end: span.end,
            whole: false,
        }
    }

    /// The file as a whole.
    pub(crate) fn whole(file: FileId) -> Self {
        Self {
            file,
            start: 0,
            end: 0,
            whole: true,
        }
    }
}

/// One file read.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
    /// What must not be shown: secrets written in plain.
    pub(crate) masked: Vec<Range<usize>>,
}

/// All files read.
#[derive(Debug, Default)]
pub(crate) struct Sources(pub(crate) Vec<Source>);

impl Sources {
    pub(crate) fn add(&mut self, path: PathBuf, text: String) -> FileId {
        self.0.push(Source {
            path,
            text,
            masked: Vec::new(),
        });
        FileId(self.0.len() - 1)
    }

    pub(crate) fn path(&self, file: FileId) -> &Path {
        self.0
            .get(file.0)
            .map_or(Path::new(""), |source| source.path.as_path())
    }

    /// A path as a value in `file` means it: relative to the file that names it.
    pub(crate) fn resolve(&self, file: FileId, path: impl AsRef<Path>) -> PathBuf {
        match self.path(file).parent() {
            Some(directory) => directory.join(path),
            None => path.as_ref().to_owned(),
        }
    }

    pub(crate) fn text(&self, file: FileId) -> &str {
        self.0.get(file.0).map_or("", |source| source.text.as_str())
    }

    /// 1-based line and column (in characters); zeros for a whole file.
    pub(crate) fn position(&self, place: Place) -> (usize, usize) {
        if place.whole {
            return (0, 0);
        }
        let text = self.text(place.file);
        let start = floor(text, place.start);
        let before = &text[..start];
        let line = before.matches('\n').count() + 1;
        let column = before[line_start(text, start)..].chars().count() + 1;
        (line, column)
    }

    /// `file:line:column`, for a sentence.
    pub(crate) fn name(&self, place: Place) -> String {
        let (line, column) = self.position(place);
        format!("{}:{line}:{column}", self.path(place.file).display())
    }

    /// The line at `place` with its first marked characters, secrets masked.
    pub(crate) fn excerpt(&self, place: Place) -> Option<Excerpt> {
        if place.whole {
            return None;
        }
        let source = self.0.get(place.file.0)?;
        let text = &source.text;
        let start = floor(text, place.start);
        let first = line_start(text, start);
        let rest = &text[first..];
        let line = rest.split('\n').next().unwrap_or(rest);
        let line = line.strip_suffix('\r').unwrap_or(line);
        let last = first + line.len();
        let end = floor(text, place.end).clamp(start.min(last), last);
        let indent = text[first..start.min(last)].chars().count();
        let width = text[start.min(last)..end].chars().count().max(1);
        let shown = line
            .char_indices()
            .map(|(at, c)| source.shown(first + at, c))
            .collect();
        Some(window(shown, indent, width))
    }
}

impl Source {
    fn shown(&self, at: usize, c: char) -> char {
        if self.masked.iter().any(|span| span.contains(&at)) {
            '*'
        } else if c.is_control() && c != '\t' {
            '\u{fffd}'
        } else {
            c
        }
    }
}

/// Cuts a long line to a window around what is marked.
fn window(line: Vec<char>, indent: usize, width: usize) -> Excerpt {
    if line.len() <= WINDOW {
        return Excerpt {
            text: line.into_iter().collect(),
            indent,
            width,
        };
    }
    let from = indent.saturating_sub(WINDOW / 3);
    let upto = (from + WINDOW).min(line.len());
    let (mut text, mut lead) = (String::new(), 0);
    if from > 0 {
        text.push_str("...");
        lead = 3;
    }
    text.extend(&line[from..upto]);
    if upto < line.len() {
        text.push_str("...");
    }
    let indent = indent - from + lead;
    Excerpt {
        text,
        indent,
        width: width.min((upto - from + lead).saturating_sub(indent).max(1)),
    }
}

fn line_start(text: &str, at: usize) -> usize {
    text[..at].rfind('\n').map_or(0, |newline| newline + 1)
}

/// The nearest character boundary at or before `at`.
fn floor(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one(text: &str) -> Sources {
        let mut sources = Sources::default();
        sources.add("conf/a.toml".into(), text.into());
        sources
    }

    #[test]
    fn columns_count_characters_not_bytes() {
        let sources = one("a = 1\nkäse = 2\n");
        let place = Place::new(FileId(0), 12..13);
        assert_eq!(sources.position(place), (2, 6));
        assert_eq!(sources.name(place), "conf/a.toml:2:6");
    }

    #[test]
    fn a_secret_is_masked_and_a_long_line_is_cut() {
        let mut sources = one(&format!("token = \"abc\" # {}\n", "x".repeat(300)));
        sources.0[0].masked.push(9..12);
        let excerpt = sources
            .excerpt(Place::new(FileId(0), 8..13))
            .expect("a line");
        assert!(excerpt.text.starts_with("token = \"***\""));
        assert!(excerpt.text.ends_with("..."));
        assert_eq!((excerpt.indent, excerpt.width), (8, 5));
    }

    #[test]
    fn a_relative_path_belongs_to_the_file_that_names_it() {
        let sources = one("");
        assert_eq!(sources.resolve(FileId(0), "x.pem"), Path::new("conf/x.pem"));
        assert_eq!(sources.resolve(FileId(0), "/x.pem"), Path::new("/x.pem"));
    }

    proptest! {
        #[test]
        fn any_place_of_any_text_can_be_shown(text in "\\PC{0,40}(\\n|\\r\\n)\\PC{0,200}", a in 0usize..300, b in 0usize..300) {
            let sources = one(&text);
            let place = Place::new(FileId(0), a..b);
            let (line, column) = sources.position(place);
            prop_assert!(line >= 1 && column >= 1);
            let excerpt = sources.excerpt(place).expect("a line");
            prop_assert!(excerpt.indent <= excerpt.text.chars().count());
        }
    }
}
