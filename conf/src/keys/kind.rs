//! Kinds of values: what a key takes, and how that is said.

use super::Shape;
use crate::text::quoted;

/// What a key takes.
#[derive(Debug)]
pub(crate) enum Kind {
    Bool,
    /// This one of the two only.
    Only(bool),
    Integer {
        min: i64,
        max: i64,
    },
    Duration {
        zero: bool,
    },
    /// Bounds in bytes.
    Size {
        min: u64,
        max: u64,
    },
    /// Bounds in percent.
    Percent {
        min: u32,
        max: u32,
    },
    Text(&'static Form),
    /// One of these words, each with its meaning.
    Choice(&'static [(&'static str, &'static str)]),
    List {
        of: &'static Kind,
        empty: bool,
    },
    /// One value, or a list of them that is not empty.
    OneOrMore(&'static Kind),
    Table(&'static Shape),
    /// `[[name]]`, or a list of tables.
    Tables(&'static Shape),
    /// `[name.NAME]`.
    Named(&'static Shape),
    /// A table whose keys are free: what they are, and what each takes.
    Map {
        what: &'static str,
        of: &'static Kind,
    },
    Either(&'static [Kind]),
}

/// A string of a certain form.
#[derive(Debug)]
pub(crate) struct Form {
    /// What it is, with its article.
    pub(crate) noun: &'static str,
    /// Without quotes.
    pub(crate) example: &'static str,
    /// For the schema: broader than what the loader takes, never narrower.
    pub(crate) pattern: &'static str,
}

impl Kind {
    /// What it takes, in words with an article: `a time such as "30s"`.
    pub(crate) fn noun(&self) -> String {
        match self {
            Self::Bool => "true or false".into(),
            Self::Only(flag) => flag.to_string(),
            Self::Integer { .. } => "a whole number".into(),
            Self::Duration { .. } => "a time such as \"30s\"".into(),
            Self::Size { .. } => "a size such as \"16MiB\"".into(),
            Self::Percent { .. } => format!("a percentage such as {}", self.sample()),
            Self::Text(form) => format!("{} such as {}", form.noun, quoted(form.example)),
            Self::Choice(_) => alternatives(&self.each()),
            Self::List { of, .. } => format!("a list: [{}]", of.sample()),
            Self::OneOrMore(of) => format!("{}, or a list of such", of.noun()),
            Self::Table(shape) if shape.keys.len() <= 4 => {
                format!("a table with {}", shape.names())
            }
            Self::Table(_) => "a table".into(),
            Self::Tables(_) => "a list of tables".into(),
            Self::Named(_) => "a table for each name".into(),
            Self::Map { what, .. } => format!("a table with {what} as keys"),
            Self::Either(_) => alternatives(&self.each()),
        }
    }

    /// The alternatives it has, each in words.
    fn each(&self) -> Vec<String> {
        match self {
            Self::Choice(words) => words.iter().map(|(word, _)| quoted(word)).collect(),
            Self::Either(kinds) => kinds.iter().flat_map(Self::each).collect(),
            other => vec![other.noun()],
        }
    }

    /// A value of this kind, as TOML.
    pub(crate) fn sample(&self) -> String {
        match self {
            Self::Bool => "true".into(),
            Self::Only(flag) => flag.to_string(),
            // A count without a real bound; one is no sensible number of anything.
            Self::Integer { max: 1_000_000, .. } => "100".into(),
            Self::Integer { min, .. } => min.max(&1).to_string(),
            Self::Duration { .. } => "\"30s\"".into(),
            Self::Size { .. } => "\"16MiB\"".into(),
            Self::Percent { min: 0..=50, .. } => "\"50%\"".into(),
            Self::Percent { .. } => "\"125%\"".into(),
            Self::Text(form) => quoted(form.example),
            Self::Choice(words) => words.first().map_or_else(String::new, |w| quoted(w.0)),
            Self::List { of, .. } => format!("[{}]", of.sample()),
            Self::OneOrMore(of) => of.sample(),
            Self::Table(shape) => shape.sample(),
            Self::Tables(shape) => format!("[{}]", shape.sample()),
            Self::Named(_) | Self::Map { .. } => "{ ... }".into(),
            Self::Either(kinds) => kinds.first().map_or_else(String::new, Self::sample),
        }
    }

    /// The shapes named in it.
    pub(crate) fn shapes(&self) -> Vec<&'static Shape> {
        match self {
            Self::Table(shape) | Self::Tables(shape) | Self::Named(shape) => vec![*shape],
            Self::List { of, .. } | Self::OneOrMore(of) | Self::Map { of, .. } => of.shapes(),
            Self::Either(kinds) => kinds.iter().flat_map(Self::shapes).collect(),
            _ => Vec::new(),
        }
    }
}

/// `a`, `a or b`, `a, b or c`.
pub(crate) fn alternatives(words: &[String]) -> String {
    match words {
        [] => String::new(),
        [only] => only.clone(),
        [rest @ .., last] => format!("{} or {last}", rest.join(", ")),
    }
}
