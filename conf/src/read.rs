//! The typed reader: a table of the file, read by the keys that its shape lists.
//!
//! Every look-up goes through the shape, which gives the bounds and is where
//! unknown keys are compared. A value of the wrong kind is reported here, once,
//! and the reader goes on with the default: so one run finds every mistake, and
//! because any mistake keeps the configuration from being built, such a stand-in
//! value is never used.

mod findings;
mod scalar;
mod unknown;

use std::cell::RefCell;
use std::collections::BTreeSet;

pub(crate) use findings::{Finding, Findings};
pub(crate) use scalar::{not_empty, size_text};

use crate::environment::Environment;
use crate::keys::{Key, Kind, Need, ROOT, Shape};
use crate::raw::{Entry, Node, Value};
use crate::source::{Place, Sources};
use crate::text::quoted;

/// What reading needs beside the tree.
pub(crate) struct Cx<'a> {
    pub(crate) sources: &'a Sources,
    pub(crate) environment: &'a dyn Environment,
    pub(crate) findings: &'a Findings,
    /// Keys looked up so far, as `shape.key`; compared with the shapes by a test.
    pub(crate) used: RefCell<BTreeSet<String>>,
}

/// A table of the file, or several that make one section together.
pub(crate) struct Table<'a> {
    pub(crate) cx: &'a Cx<'a>,
    pub(crate) shape: &'static Shape,
    /// Where its header or the key that holds it stands.
    pub(crate) place: Place,
    /// How messages call it.
    title: String,
    entries: Vec<&'a Entry>,
    /// Unknown keys and what was said about each.
    unknown: Vec<(&'a str, String)>,
}

impl<'a> Table<'a> {
    /// A section that is not in the file: everything has its default.
    pub(crate) fn absent(cx: &'a Cx<'a>, shape: &'static Shape, place: Place) -> Self {
        Self {
            cx,
            shape,
            place,
            title: shape.title.to_owned(),
            entries: Vec::new(),
            unknown: Vec::new(),
        }
    }

    /// The same table under its own name: `[upstream.app]`.
    pub(crate) fn titled(self, title: String) -> Self {
        Self { title, ..self }
    }

    /// The table that `node` is, its unknown keys reported; `None`, reported: it is none.
    pub(crate) fn open(
        cx: &'a Cx<'a>,
        shape: &'static Shape,
        place: Place,
        node: &'a Node,
    ) -> Option<Self> {
        let mut table = Self::absent(cx, shape, place);
        table.join(place, node).then_some(table)
    }

    /// With the keys of the table that `entry` holds; `None`, reported: it holds none.
    pub(crate) fn joined(mut self, entry: &'a Entry) -> Option<Self> {
        self.join(entry.place, &entry.node).then_some(self)
    }

    /// Adds the keys of another table with the same name, from an included file.
    pub(crate) fn join(&mut self, place: Place, node: &'a Node) -> bool {
        let entries = match &node.value {
            Value::Table(entries) => entries,
            Value::List(items)
                if self.is_section()
                    && matches!(
                        items[..],
                        [
                            Node {
                                value: Value::Table(_),
                                ..
                            },
                            ..
                        ]
                    ) =>
            {
                let name = self.shape.title.trim_matches(['[', ']']);
                self.cx.error(
                    Finding::error(
                        place,
                        format!(
                            "[[{name}]] is written as a list, but there is only one such section"
                        ),
                    )
                    .label(format!("write [{name}]")),
                );
                return false;
            }
            other => {
                self.cx.error(
                    Finding::error(
                        node.place,
                        format!("{} must be a table, this is {}", self.title, other.noun()),
                    )
                    .label(format!("keys of it: {}", self.shape.names())),
                );
                return false;
            }
        };
        for entry in entries {
            self.take(entry);
        }
        true
    }

    /// Takes in one key, if it is known and not there yet.
    fn take(&mut self, entry: &'a Entry) {
        if self.shape.key(&entry.key).is_none() {
            self.report_unknown(entry);
            return;
        }
        let first = self.entries.iter().find(|known| known.key == entry.key);
        if let Some(first) = first.filter(|_| !self.adds_up(&entry.key)) {
            self.cx.error(
                Finding::error(
                    entry.place,
                    format!("`{}` of {} is set a second time", entry.key, self.title),
                )
                .label("delete one of them")
                .also("it is set first at", first.place),
            );
            return;
        }
        self.entries.push(entry);
    }

    fn is_section(&self) -> bool {
        self.shape.title.starts_with('[')
    }

    /// Sections of several files are put together, and so are lists of tables.
    fn adds_up(&self, key: &str) -> bool {
        let list =
            |key: &Key| matches!(key.kind, Kind::Tables(_) | Kind::OneOrMore(Kind::Table(_)));
        std::ptr::eq(self.shape, &ROOT) || self.shape.key(key).is_some_and(list)
    }

    /// The value of a key; `None`: it is not there.
    pub(crate) fn get(&self, name: &'static str) -> Option<&'a Node> {
        self.entry(name).map(|entry| &entry.node)
    }

    /// The key and its value.
    pub(crate) fn entry(&self, name: &'static str) -> Option<&'a Entry> {
        self.entries_of(name).next()
    }

    /// The key in every file that has it; more than one only for lists of tables.
    pub(crate) fn entries_of(&self, name: &'static str) -> impl Iterator<Item = &'a Entry> {
        self.cx
            .used
            .borrow_mut()
            .insert(format!("{}.{name}", self.shape.id));
        self.entries
            .iter()
            .copied()
            .filter(move |entry| entry.key == name)
    }

    /// Reports that a key which must be there is not.
    pub(crate) fn missing(&self, name: &'static str) {
        if self.explains(name) {
            return;
        }
        let sample = self
            .shape
            .key(name)
            .map_or_else(String::new, |key| key.kind.sample());
        self.cx.error(
            Finding::error(self.place, format!("{} has no `{name}`", self.title))
                .label(format!("write {name} = {sample}")),
        );
    }

    /// A key that must be there; `None`, reported: it is not.
    pub(crate) fn require(&self, name: &'static str) -> Option<&'a Node> {
        let found = self.get(name);
        if found.is_none() {
            self.missing(name);
        }
        found
    }

    /// The inner table of a key; `None`: there is none, or it is none (reported).
    pub(crate) fn table(&self, name: &'static str) -> Option<Table<'a>> {
        let entry = self.entry(name)?;
        let shape = self.kind(name).shapes().first().copied()?;
        self.open_inner(shape, entry)
    }

    /// Opens the table that is the value of `entry`, with a hint where it is none.
    pub(crate) fn open_inner(&self, shape: &'static Shape, entry: &'a Entry) -> Option<Table<'a>> {
        if matches!(entry.node.value, Value::Table(_)) {
            return Table::open(self.cx, shape, entry.place, &entry.node);
        }
        self.wrong_kind(&entry.node, entry.key.as_str(), self.kind(&entry.key));
        None
    }

    /// The items of a list; a value that is no list is reported.
    pub(crate) fn list(&self, name: &'static str) -> Option<&'a [Node]> {
        let node = self.get(name)?;
        let kind = self.kind(name);
        let Value::List(items) = &node.value else {
            let single = match kind {
                Kind::List { of, .. } => of.accepts(&node.value),
                _ => false,
            };
            let finding = Finding::error(
                node.place,
                format!("{name} must be a list, this is {}", node.value.noun()),
            );
            self.cx.error(match &node.value {
                Value::Text(text) if single => finding.label(format!("write [{}]", quoted(text))),
                _ => finding.label(format!("such as {}", kind.sample())),
            });
            return None;
        };
        if items.is_empty() && matches!(kind, Kind::List { empty: false, .. }) {
            self.cx.error(
                Finding::error(node.place, format!("the list `{name}` is empty"))
                    .label(self.instead_of_empty(name)),
            );
        }
        Some(items)
    }

    fn instead_of_empty(&self, name: &str) -> String {
        match self.shape.key(name) {
            Some(Key {
                need: Need::Required,
                kind,
                ..
            }) => format!("such as {}", kind.sample()),
            _ => format!(
                "leave `{name}` out, or such as {}",
                self.kind(name).sample()
            ),
        }
    }

    /// One value or several: each with its node.
    pub(crate) fn one_or_more(&self, name: &'static str) -> Vec<&'a Node> {
        let Some(node) = self.get(name) else {
            return Vec::new();
        };
        match &node.value {
            Value::List(items) if items.is_empty() => {
                self.cx.error(
                    Finding::error(node.place, format!("the list `{name}` is empty"))
                        .label(format!("leave `{name}` out to take {}", self.without(name))),
                );
                Vec::new()
            }
            Value::List(items) => items.iter().collect(),
            _ => vec![node],
        }
    }

    /// What holds without a key, for a sentence.
    fn without(&self, name: &str) -> &'static str {
        match self.shape.key(name) {
            Some(Key {
                need: Need::Optional(words),
                ..
            }) => words,
            _ => "all",
        }
    }

    /// The entries of a table with free keys.
    pub(crate) fn map(&self, name: &'static str) -> &'a [Entry] {
        let Some(node) = self.get(name) else {
            return &[];
        };
        match &node.value {
            Value::Table(entries) if entries.is_empty() => {
                let fix = match self.shape.key(name).map(|key| &key.need) {
                    Some(Need::Required) => "one entry at least".to_owned(),
                    _ => format!("leave `{name}` out"),
                };
                self.cx.error(
                    Finding::error(node.place, format!("the table `{name}` is empty")).label(fix),
                );
                &[]
            }
            Value::Table(entries) => entries,
            _ => {
                self.wrong_kind(node, name, self.kind(name));
                &[]
            }
        }
    }

    /// The kind that the shape lists for a key.
    pub(crate) fn kind(&self, name: &str) -> &'static Kind {
        self.shape.key(name).map_or(&Kind::Bool, |key| &key.kind)
    }

    /// Reports a value that is not of its key's kind.
    pub(crate) fn wrong_kind(&self, node: &Node, name: &str, kind: &Kind) {
        self.cx.wrong_kind(node, name, kind);
    }

    /// Reports that a key has no effect together with another.
    pub(crate) fn no_effect(&self, name: &'static str, why: &str, fix: &str) {
        if let Some(entry) = self.entry(name) {
            self.cx.error(
                Finding::error(entry.place, format!("`{name}` has no effect: {why}")).label(fix),
            );
        }
    }
}

impl Cx<'_> {
    pub(crate) fn error(&self, finding: Finding) {
        self.findings.add(finding);
    }
}

impl Kind {
    /// Whether a value is of this kind as far as its TOML type goes.
    pub(crate) fn accepts(&self, value: &Value) -> bool {
        match self {
            Self::Bool => matches!(value, Value::Bool(_)),
            Self::Only(flag) => matches!(value, Value::Bool(found) if found == flag),
            Self::Integer { .. } => matches!(value, Value::Integer(_)),
            Self::Duration { .. }
            | Self::Size { .. }
            | Self::Percent { .. }
            | Self::Text(_)
            | Self::Choice(_) => matches!(value, Value::Text(_)),
            Self::List { .. } | Self::Tables(_) => matches!(value, Value::List(_)),
            Self::OneOrMore(of) => matches!(value, Value::List(_)) || of.accepts(value),
            Self::Table(_) | Self::Named(_) | Self::Map { .. } => {
                matches!(value, Value::Table(_))
            }
            Self::Either(kinds) => kinds.iter().any(|kind| kind.accepts(value)),
        }
    }
}
