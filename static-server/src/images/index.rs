//! What lies in the folder, bounded in bytes: the least recently used goes first.
//!
//! Pure bookkeeping; who calls removes the files.

use std::collections::{BTreeMap, HashMap};

use super::choice::Variant;
use crate::hash::Hash;

/// Disks give room in blocks, and a name takes some too.
const BLOCK: u64 = 4_096;

/// Which variant of which content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) content: Hash,
    pub(super) variant: Variant,
}

/// What came of making a variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is there, so long, with this hash.
    Made { len: u64, tag: Hash },
    /// It would be no smaller than the original.
    Useless,
    /// The original is no wider than the width asked for.
    Whole,
    /// It cannot be made.
    Failed,
}

impl Fate {
    /// The room it takes on the disk.
    pub(super) fn room(self) -> u64 {
        match self {
            Self::Made { len, .. } => len.saturating_add(BLOCK).next_multiple_of(BLOCK),
            Self::Useless | Self::Whole | Self::Failed => BLOCK,
        }
    }
}

struct Entry {
    fate: Fate,
    /// Whether the bytes were compared with their hash since the start.
    checked: bool,
    used: u64,
}

/// See the module.
pub(super) struct Index {
    entries: HashMap<Key, Entry>,
    /// By last use.
    order: BTreeMap<u64, Key>,
    uses: u64,
    bytes: u64,
    limit: u64,
}

impl Index {
    pub(super) fn new(limit: u64) -> Self {
        Self {
            entries: HashMap::new(),
            order: BTreeMap::new(),
            uses: 0,
            bytes: 0,
            limit,
        }
    }

    /// What is known of a variant, and whether its file was checked; counts as a use.
    pub(super) fn find(&mut self, key: &Key) -> Option<(Fate, bool)> {
        let entry = self.entries.get_mut(key)?;
        self.uses += 1;
        self.order.remove(&entry.used);
        entry.used = self.uses;
        self.order.insert(entry.used, *key);
        Some((entry.fate, entry.checked))
    }

    /// Notes a variant, and returns what must go to make room: perhaps this one itself.
    #[must_use]
    pub(super) fn keep(&mut self, key: Key, fate: Fate, checked: bool) -> Vec<(Key, Fate)> {
        let mut gone = Vec::new();
        if let Some(before) = self.forget(&key).filter(|before| *before != fate) {
            gone.push((key, before));
        }
        self.uses += 1;
        let used = self.uses;
        self.entries.insert(
            key,
            Entry {
                fate,
                checked,
                used,
            },
        );
        self.order.insert(used, key);
        self.bytes += fate.room();
        while self.bytes > self.limit {
            let Some((_, oldest)) = self.order.first_key_value() else {
                break;
            };
            let oldest = *oldest;
            gone.extend(self.forget(&oldest).map(|fate| (oldest, fate)));
        }
        gone
    }

    /// The file of a variant has been compared with its hash.
    pub(super) fn checked(&mut self, key: &Key) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.checked = true;
        }
    }

    pub(super) fn forget(&mut self, key: &Key) -> Option<Fate> {
        let entry = self.entries.remove(key)?;
        self.order.remove(&entry.used);
        self.bytes -= entry.fate.room();
        Some(entry.fate)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(number: u8) -> Key {
        Key {
            content: Hash([number; 16]),
            variant: Variant {
                format: None,
                width: Some(1),
            },
        }
    }

    fn made(len: u64) -> Fate {
        let tag = Hash([0; 16]);
        Fate::Made { len, tag }
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let mut index = Index::new(3 * BLOCK);
        for number in 1..=3 {
            assert!(index.keep(key(number), Fate::Useless, true).is_empty());
        }
        assert!(index.find(&key(1)).is_some());
        let gone = index.keep(key(4), Fate::Failed, true);
        assert_eq!(gone, [(key(2), Fate::Useless)]);
        assert_eq!(index.find(&key(2)), None);
        assert_eq!(index.find(&key(1)), Some((Fate::Useless, true)));
    }

    #[test]
    fn what_is_larger_than_all_the_room_does_not_stay() {
        let mut index = Index::new(3 * BLOCK);
        let gone = index.keep(key(1), made(10 * BLOCK), true);
        assert_eq!(gone.len(), 1);
        assert_eq!((index.bytes(), index.len()), (0, 0));
    }

    #[test]
    fn a_new_file_of_the_same_variant_sends_the_old_one_away() {
        let mut index = Index::new(100 * BLOCK);
        assert!(index.keep(key(1), made(7), true).is_empty());
        assert!(
            index.keep(key(1), made(7), true).is_empty(),
            "the same name"
        );
        assert_eq!(index.keep(key(1), made(8), true), [(key(1), made(7))]);
        assert_eq!(index.len(), 1);
    }

    proptest! {
        #[test]
        fn the_bound_holds_and_nothing_is_lost(
            steps in proptest::collection::vec((0_u8..12, 0_u64..20_000, 0_u8..3), 1..200),
        ) {
            let mut index = Index::new(10 * BLOCK);
            let mut there: HashMap<Key, Fate> = HashMap::new();
            for (number, len, what) in steps {
                match what {
                    0 => prop_assert_eq!(
                        index.find(&key(number)).map(|(fate, _)| fate),
                        there.get(&key(number)).copied()
                    ),
                    1 => prop_assert_eq!(index.forget(&key(number)), there.remove(&key(number))),
                    _ => {
                        let gone = index.keep(key(number), made(len), false);
                        there.insert(key(number), made(len));
                        for (key, fate) in gone {
                            if there.get(&key) == Some(&fate) {
                                there.remove(&key);
                            }
                        }
                    }
                }
                prop_assert!(index.bytes() <= 10 * BLOCK);
                prop_assert_eq!(index.len(), there.len());
                prop_assert_eq!(index.bytes(), there.values().map(|fate| fate.room()).sum::<u64>());
            }
        }
    }
}
