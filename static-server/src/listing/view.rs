//! Which entries are shown, and in which order.

use std::cmp::Ordering;
use std::collections::HashSet;

use crate::confine::Target;
use crate::encoding::Encoding;
use crate::files::{Entry, EntryKind, Listed};

/// What the entries are sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SortBy {
    /// Capitals beside their small letters.
    #[default]
    Name,
    /// Length in bytes.
    Size,
    /// Modification time.
    Date,
}

impl SortBy {
    /// Every one, in the order of the columns.
    pub const ALL: [Self; 3] = [Self::Name, Self::Size, Self::Date];

    /// Its name in a query.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Size => "size",
            Self::Date => "date",
        }
    }
}

/// The order of a listing. Directories always come first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Order {
    /// The column.
    pub by: SortBy,
    /// The largest first.
    pub descending: bool,
}

impl Order {
    /// Reads `sort=name|size|date` and `order=asc|desc`. Whatever else a query says does not
    /// matter; of a key said twice, the first counts.
    pub fn from_query(query: Option<&str>) -> Self {
        let value = |key: &str| {
            let mut pairs = query.unwrap_or_default().split('&');
            pairs.find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='))
        };
        let by = value("sort").and_then(|name| {
            let mut all = SortBy::ALL.into_iter();
            all.find(|by| by.as_str() == name)
        });
        Self {
            by: by.unwrap_or_default(),
            descending: value("order") == Some("desc"),
        }
    }

    fn compare(self, a: &Entry, b: &Entry) -> Ordering {
        let by = match self.by {
            SortBy::Name => Ordering::Equal,
            SortBy::Size => size(a).cmp(&size(b)),
            SortBy::Date => a.modified.cmp(&b.modified),
        };
        // Names are distinct, so that the order is the same on every node.
        let full = by
            .then_with(|| folded(&a.name).cmp(folded(&b.name)))
            .then_with(|| a.name.cmp(&b.name));
        let full = if self.descending {
            full.reverse()
        } else {
            full
        };
        is_file(a).cmp(&is_file(b)).then(full)
    }
}

fn size(entry: &Entry) -> u64 {
    match entry.kind {
        EntryKind::File(size) => size,
        EntryKind::Directory => 0,
    }
}

fn is_file(entry: &Entry) -> bool {
    matches!(entry.kind, EntryKind::File(_))
}

fn folded(name: &str) -> impl Iterator<Item = char> {
    name.chars().flat_map(char::to_lowercase)
}

/// A directory as it is shown.
#[derive(Clone, Debug)]
pub struct View {
    entries: Vec<Entry>,
    more: bool,
    order: Order,
}

impl View {
    /// Leaves out what has no address of its own, and sorts the rest.
    pub fn new(listed: Listed, order: Order) -> Self {
        let Listed { mut entries, more } = listed;
        entries.retain(|entry| has_address(&entry.name));
        let names = entries.iter().filter(|entry| is_file(entry));
        let names: HashSet<String> = names.map(|entry| entry.name.clone()).collect();
        entries.retain(|entry| !is_file(entry) || !is_copy(&entry.name, &names));
        entries.sort_by(|a, b| order.compare(a, b));
        Self {
            entries,
            more,
            order,
        }
    }

    /// What is shown, in its order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Whether the directory has more than was read.
    pub fn more(&self) -> bool {
        self.more
    }

    /// The order that was asked for.
    pub fn order(&self) -> Order {
        self.order
    }
}

/// Whether a URL can lead to the name: what [`Target`] refuses is never served, and a link to
/// it would lead nowhere.
fn has_address(name: &str) -> bool {
    if name.starts_with('.') || name.contains('/') {
        return false;
    }
    let path = format!("/{}", name.replace('%', "%25"));
    Target::parse(&path).is_ok_and(|target| target.as_str() == name && !name.is_empty())
}

/// Whether a file is another coding of one beside it: `NAME.gz` and the like, or a delta
/// `NAME.<16 hex digits>.dcz` (RFC 9842).
fn is_copy(name: &str, names: &HashSet<String>) -> bool {
    let suffixes = Encoding::ALL.iter().map(|coding| coding.suffix());
    for suffix in suffixes.chain([".dcz", ".dcb"]) {
        let Some(rest) = name.strip_suffix(suffix) else {
            continue;
        };
        let original = rest.rsplit_once('.').and_then(|(original, id)| {
            let is_id = id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
            (is_id && suffix.starts_with(".dc")).then_some(original)
        });
        return names.contains(rest) || original.is_some_and(|name| names.contains(name));
    }
    false
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::prelude::*;

    use super::*;

    fn file(name: &str, size: u64, day: u64) -> Entry {
        Entry {
            name: name.to_owned(),
            kind: EntryKind::File(size),
            modified: UNIX_EPOCH + Duration::from_secs(day * 86_400),
        }
    }

    fn directory(name: &str) -> Entry {
        Entry {
            kind: EntryKind::Directory,
            ..file(name, 0, 9)
        }
    }

    fn names(entries: Vec<Entry>, query: &str) -> Vec<String> {
        let listed = Listed {
            entries,
            more: false,
        };
        let view = View::new(listed, Order::from_query(Some(query)));
        view.entries().iter().map(|e| e.name.clone()).collect()
    }

    #[test]
    fn the_query_sets_the_order_and_directories_stay_first() {
        let all = || {
            vec![
                file("b", 1, 3),
                file("A", 3, 2),
                file("c", 2, 1),
                directory("z"),
            ]
        };
        for (query, expected) in [
            ("", ["z", "A", "b", "c"]),
            ("sort=name&order=desc", ["z", "c", "b", "A"]),
            ("sort=size", ["z", "b", "c", "A"]),
            ("order=desc&sort=size", ["z", "A", "c", "b"]),
            ("sort=date&order=asc", ["z", "c", "A", "b"]),
            ("sort=date&order=desc", ["z", "b", "A", "c"]),
            ("sort=colour&order=up", ["z", "A", "b", "c"]),
            ("sort=size&sort=name", ["z", "b", "c", "A"]),
            ("sorted=size&x&=&sort", ["z", "A", "b", "c"]),
        ] {
            assert_eq!(names(all(), query), expected, "{query}");
        }
    }

    #[test]
    fn copies_are_not_shown_beside_what_they_pack() {
        let all = vec![
            file("app.css", 1, 1),
            file("app.css.br", 1, 1),
            file("app.css.zst", 1, 1),
            file("app.css.gz", 1, 1),
            file("app.css.dcb", 1, 1),
            file("app.css.0123456789abcdef.dcz", 1, 1),
            file("app.css.0123456789abcdef.gz", 1, 1),
            file("backup.tar.gz", 1, 1),
            file("old.0123456789abcdef.dcz", 1, 1),
            directory("dir"),
            file("dir.gz", 1, 1),
        ];
        assert_eq!(
            names(all, ""),
            [
                "dir",
                "app.css",
                "app.css.0123456789abcdef.gz",
                "backup.tar.gz",
                "dir.gz",
                "old.0123456789abcdef.dcz"
            ]
        );
    }

    #[test]
    fn what_is_never_served_is_not_shown() {
        let all = vec![
            file(".env", 1, 1),
            directory(".git"),
            directory(".well-known"),
            file("a\\b", 1, 1),
            file("a\nb", 1, 1),
            file("a\u{7f}", 1, 1),
            file("100%", 1, 1),
            file("%2e%2e", 1, 1),
        ];
        assert_eq!(names(all, ""), ["%2e%2e", "100%"]);
    }

    proptest! {
        #[test]
        fn the_order_is_total_and_the_same_however_the_names_came(
            sizes in prop::collection::vec((0_u64..3, 0_u64..3), 0..8),
            by in prop::sample::select(vec!["name", "size", "date"]),
            descending in any::<bool>(),
        ) {
            let all = sizes.iter().enumerate();
            let all: Vec<Entry> = all.map(|(n, (size, day))| file(&format!("{n}"), *size, *day)).collect();
            let query = format!("sort={by}&order={}", if descending { "desc" } else { "asc" });
            let there = names(all.clone(), &query);
            let back = names(all.into_iter().rev().collect(), &query);
            prop_assert_eq!(there, back);
        }
    }
}
