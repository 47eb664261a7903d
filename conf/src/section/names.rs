//! Names that routes refer to, and whether any does.

use std::cell::RefCell;
use std::collections::BTreeSet;

use crate::raw::{Node, Value};
use crate::read::{Cx, Finding};
use crate::suggest::nearest;
use crate::text::quoted;

use super::entry::Named;

/// Everything that can be named by a route.
pub(super) struct Names {
    pub(super) listeners: Group,
    pub(super) upstreams: Group,
    pub(super) statics: Group,
    pub(super) filters: Group,
    pub(super) error_pages: Group,
}

/// Things of one kind.
pub(super) struct Group {
    word: &'static str,
    named: Named,
    used: RefCell<BTreeSet<usize>>,
}

impl Names {
    pub(super) fn new(
        listeners: Named,
        upstreams: Named,
        statics: Named,
        filters: Named,
        error_pages: Named,
    ) -> Self {
        let group = |word, named| Group {
            word,
            named,
            used: RefCell::default(),
        };
        Self {
            listeners: group("listener", listeners),
            upstreams: group("upstream", upstreams),
            statics: group("static", statics),
            filters: group("filter", filters),
            error_pages: group("error_pages", error_pages),
        }
    }

    /// What no route names is dead weight, or the sign of a route that was forgotten.
    pub(super) fn warn_of_unused(&self, cx: &Cx<'_>) {
        let groups = [
            &self.upstreams,
            &self.statics,
            &self.filters,
            &self.error_pages,
        ];
        for group in groups {
            let used = group.used.borrow();
            for (index, (name, place)) in group.named.0.iter().enumerate() {
                if !used.contains(&index) {
                    cx.findings.add(
                        Finding::warning(*place, format!("no route uses [{}.{name}]", group.word))
                            .label("name it in a route, or delete it"),
                    );
                }
            }
        }
    }
}

impl Group {
    /// The index of what `node` names; reported where there is no such thing.
    pub(super) fn find(&self, cx: &Cx<'_>, node: &Node) -> Option<usize> {
        let word = self.word;
        let Value::Text(text) = &node.value else {
            cx.error(match node.value {
                Value::Table(_) => Finding::error(
                    node.place,
                    format!("{word} must be a name here, this is a table"),
                )
                .label(format!(
                    "write {word} = \"NAME\", and the rest as [{word}.NAME]"
                )),
                _ => Finding::error(
                    node.place,
                    format!("{word} must be a name here, this is {}", node.value.noun()),
                )
                .label(format!("the name of a [{word}.NAME]")),
            });
            return None;
        };
        let found = self.named.0.iter().position(|(name, _)| name == text);
        match found {
            Some(index) => {
                self.used.borrow_mut().insert(index);
            }
            None if self.named.1 => cx.error(self.unknown(node, text)),
            None => {}
        }
        found
    }

    fn unknown(&self, node: &Node, text: &str) -> Finding {
        let word = self.word;
        let finding = Finding::error(node.place, format!("there is no {word} {}", quoted(text)));
        let names = || self.named.0.iter().map(|(name, _)| name.as_str());
        if let Some(near) = nearest(text, names()) {
            if let Some(index) = self.named.0.iter().position(|(name, _)| name == near) {
                self.used.borrow_mut().insert(index);
            }
            return finding.label(format!("did you mean {}?", quoted(near)));
        }
        if text.contains(':') && word == "upstream" {
            return finding
                .label("this is the name of a pool, not an address")
                .help(format!(
                    "help: write [upstream.app] with endpoints = [{}], and upstream = \"app\" here",
                    quoted(text.trim_start_matches("http://"))
                ));
        }
        let known: Vec<&str> = names().collect();
        let finding = match word {
            "listener" => {
                finding.label("the name of a [[listener]], or its address where it has none")
            }
            _ => finding.label(format!("write a section [{word}.{text}]")),
        };
        finding.help(if known.is_empty() {
            format!("help: there is no {word} at all")
        } else {
            format!("help: known are {}", known.join(", "))
        })
    }
}
