//! Keys that are not known: what was probably meant.

use super::{Finding, Table};
use crate::keys::{ROOT, alternatives};
use crate::raw::Entry;
use crate::suggest::nearest;

impl<'a> Table<'a> {
    pub(super) fn report_unknown(&mut self, entry: &'a Entry) {
        let word = entry.key.as_str();
        let finding = Finding::error(
            entry.place,
            format!("unknown key `{word}` in {}", self.title),
        );
        let near = || nearest(word, self.shape.keys.iter().map(|key| key.name));
        let said = match self.shape.advice(word) {
            Some(advice) => Some(advice.to_owned()),
            None => near()
                .map(|near| format!("did you mean `{near}`?"))
                .or_else(|| self.elsewhere(word)),
        };
        self.cx.error(match &said {
            Some(said) => finding.label(said.as_str()),
            None => finding
                .label("delete it, or write what was meant")
                .help(format!("help: keys here are {}", self.shape.names())),
        });
        self.unknown.push((word, said.unwrap_or_default()));
    }

    /// Where a key belongs that is known, but not here.
    fn elsewhere(&self, word: &str) -> Option<String> {
        let inner = self.shape.keys.iter().find(|key| {
            let shapes = key.kind.shapes();
            shapes.iter().any(|shape| shape.key(word).is_some())
        });
        match inner {
            Some(key) if !std::ptr::eq(self.shape, &ROOT) => Some(format!(
                "it belongs in `{0}`: {0} = {{ {word} = ... }}",
                key.name
            )),
            _ => {
                let homes: Vec<String> = ROOT
                    .keys
                    .iter()
                    .flat_map(|key| key.kind.shapes())
                    .filter(|shape| shape.key(word).is_some())
                    .map(|shape| shape.title.to_owned())
                    .collect();
                (!homes.is_empty()).then(|| {
                    format!(
                        "it is a key of {}; a key belongs to the header above it",
                        alternatives(&homes)
                    )
                })
            }
        }
    }

    /// Whether an unknown key is probably this one: then that it is missing is no news.
    pub(crate) fn explains(&self, name: &str) -> bool {
        self.unknown.iter().any(|(_, said)| said.contains(name))
    }

    /// Whether there are unknown keys, so that what seems to be missing may be among them.
    pub(crate) fn has_unknown(&self) -> bool {
        !self.unknown.is_empty()
    }
}
