//! Which files of former releases the new ones are compared with.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use super::walk::Found;
use crate::fingerprint;

/// The largest file that takes part: both lie in memory whole while they are compared.
const LARGEST: u64 = 64 << 20;

/// So many former releases of one file are enough; the youngest are taken.
const MOST_RELEASES: usize = 4;

/// A file, and a former release of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Pair<'a> {
    pub(super) file: &'a Found,
    pub(super) dictionary: &'a Path,
    pub(super) dictionary_len: u64,
}

/// The same file in all its releases: folder, and what stands before and after the hash.
type Key<'a> = (&'a Path, &'a str, &'a str);

/// The pairs of files that carry a hash in their names, lie in the same folder and differ in
/// the hash alone.
///
/// Where a release has several files of one pattern (`chunk-*.js`), nothing says which was
/// which: a client would hold one of them as the dictionary for all. Those are left out, and
/// their number is the second thing returned.
pub(super) fn pairs<'a>(files: &'a [Found], former: &'a [Found]) -> (Vec<Pair<'a>>, usize) {
    let mut releases: HashMap<Key<'a>, Vec<&'a Found>> = HashMap::new();
    for file in former.iter().filter(|file| file.len <= LARGEST) {
        if let Some(key) = key(file) {
            releases.entry(key).or_default().push(file);
        }
    }
    let place = |file: &'a Found| (file.folder.as_path(), file.name.as_str());
    let known: HashSet<_> = former.iter().map(place).collect();
    let mut fresh: HashMap<Key<'a>, Vec<&'a Found>> = HashMap::new();
    for file in files.iter().filter(|file| file.len <= LARGEST) {
        if let Some(key) = key(file)
            && releases.contains_key(&key)
            && !known.contains(&place(file))
        {
            fresh.entry(key).or_default().push(file);
        }
    }
    let mut pairs = Vec::new();
    let mut unclear = 0;
    for (key, fresh) in fresh {
        let [file] = fresh[..] else {
            unclear += fresh.len();
            continue;
        };
        let mut former = releases.remove(&key).unwrap_or_default();
        former.sort_by_key(|old| std::cmp::Reverse(age(&old.path)));
        former.truncate(MOST_RELEASES);
        pairs.extend(former.into_iter().map(|old| Pair {
            file,
            dictionary: &old.path,
            dictionary_len: old.len,
        }));
    }
    pairs.sort_by_key(|pair| (&pair.file.path, pair.dictionary));
    (pairs, unclear)
}

fn key(file: &Found) -> Option<Key<'_>> {
    let print = fingerprint::of(&file.name).filter(|print| print.same_file(print))?;
    Some((&file.folder, print.before(), print.after()))
}

fn age(path: &Path) -> Option<std::time::SystemTime> {
    path.metadata().and_then(|facts| facts.modified()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(root: &str, folder: &str, name: &str) -> Found {
        Found {
            path: Path::new(root).join(folder).join(name),
            folder: folder.into(),
            name: name.to_owned(),
            len: 1_000,
        }
    }

    fn shown(files: &[Found], former: &[Found]) -> (Vec<String>, usize) {
        let (pairs, unclear) = pairs(files, former);
        let show =
            |pair: &Pair<'_>| format!("{} {}", pair.file.path.display(), pair.dictionary.display());
        (pairs.iter().map(show).collect(), unclear)
    }

    #[test]
    fn a_file_meets_its_former_releases_in_the_same_folder() {
        let files = [
            found("new", "js", "app-3f9a1c2b.js"),
            found("new", "js", "same-11aa22bb.js"),
            found("new", "js", "other-3f9a1c2b.js"),
            found("new", "", "plain.js"),
        ];
        let former = [
            found("old", "js", "app-0b1c2d3e.js"),
            found("old", "css", "app-7b1c2d3e.js"),
            found("old", "js", "same-11aa22bb.js"),
            found("old", "", "plain.js"),
        ];
        let expected = vec!["new/js/app-3f9a1c2b.js old/js/app-0b1c2d3e.js".to_owned()];
        assert_eq!(shown(&files, &former), (expected, 0));
    }

    #[test]
    fn a_pattern_of_several_files_is_left_out() {
        let files = [
            found("new", "", "chunk-3f9a1c2b.js"),
            found("new", "", "chunk-4f9a1c2b.js"),
        ];
        let former = [found("old", "", "chunk-0b1c2d3e.js")];
        assert_eq!(shown(&files, &former), (vec![], 2));
    }

    #[test]
    fn a_folder_that_keeps_its_former_releases_works_as_well() {
        let old = found("all", "", "app-0b1c2d3e.js");
        let files = [old, found("all", "", "app-3f9a1c2b.js")];
        let expected = vec!["all/app-3f9a1c2b.js old/app-0b1c2d3e.js".to_owned()];
        let former = [found("old", "", "app-0b1c2d3e.js")];
        assert_eq!(shown(&files, &former), (expected, 0));
    }
}
