//! The index while the log is read back.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::note::{self, Note};
use super::super::{Address, Recovered};
use super::index::{Place, Placed};
use crate::key::Key;
use crate::store::{MAX_VARIANTS, is_below};
use crate::tags::{Mode, State, Tags};

/// What was read back so far.
pub(super) struct Recovery<'t> {
    tags: &'t Tags,
    index: HashMap<Key, Vec<Placed>>,
}

impl<'t> Recovery<'t> {
    pub(super) fn new(tags: &'t Tags) -> Self {
        Self {
            tags,
            index: HashMap::new(),
        }
    }

    pub(super) fn take(&mut self, record: Recovered<'_>) {
        match record {
            Recovered::Object {
                address, key, meta, ..
            } => self.object(address, key, meta),
            Recovered::Note(bytes) => match Note::read(bytes) {
                Some(note) => self.note(&note),
                None => self.index.clear(),
            },
            Recovered::Gap => self.index.clear(),
        }
    }

    fn object(&mut self, address: Address, key: &[u8], meta: &[u8]) {
        let (Some(key), Some(read)) = (Key::from_bytes(key), note::read_object(meta)) else {
            return;
        };
        self.tags.at_least(read.since);
        let names = read.tags.iter().copied();
        let life = self.tags.bind(names, read.since);
        if let Some(time) = read.soft_at {
            life.purge(Mode::Soft(time));
        }
        let placed = Placed {
            place: Place::At(address),
            variant: read.head.variant().clone(),
            date: read.head.date(),
            life: Arc::new(life),
        };
        let variants = self.index.entry(key).or_default();
        variants.retain(|one| one.variant != placed.variant);
        if variants.len() >= MAX_VARIANTS {
            variants.remove(0);
        }
        variants.push(placed);
    }

    fn note(&mut self, note: &Note<'_>) {
        match *note {
            Note::Key { key, mode } => {
                let Some(variants) = self.index.get_mut(key) else {
                    return;
                };
                variants.iter().for_each(|one| one.life.purge(mode));
                if mode == Mode::Hard {
                    self.index.remove(key);
                }
            }
            Note::Variant { key, variant } => {
                if let Some(variants) = self.index.get_mut(key) {
                    variants.retain(|one| one.variant.values() != variant);
                }
            }
            Note::Prefix { host, path, mode } => {
                for (key, variants) in &self.index {
                    if is_below(key.as_key(), host, path) {
                        variants.iter().for_each(|one| one.life.purge(mode));
                    }
                }
            }
            Note::Tag { name, mode, number } => self.tags.replay(name, mode, number),
        }
    }

    /// What no purge took away.
    pub(super) fn into_index(mut self) -> HashMap<Key, Vec<Placed>> {
        let latest = self.tags.latest();
        self.index.retain(|_, variants| {
            variants.retain(|one| one.life.state(latest) != State::Gone);
            !variants.is_empty()
        });
        self.index
    }
}
