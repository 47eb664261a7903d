//! Older releases of a site, and in which of them a file still is.
//!
//! A deploy puts a new directory beside the old ones and flips a link. A browser that has a page
//! of the release before goes on asking for the scripts of that release, when the visitor opens
//! the next part of the application. So what the current release lacks is looked for in the others,
//! the newest first: also those newer than the current one, for after a way back to an older
//! release it is their pages that are open.

use std::fs::{Metadata, read_dir, symlink_metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use crate::files::{Disk, Files};
use crate::settings::{Releases, SiteError};

/// How long the list of releases is believed, in milliseconds of the site's life.
const TRUST_MILLIS: u64 = 1_000;

/// How many directories are looked at: of more, only the first that the system names.
const MOST: usize = 1_000;

/// See the module.
pub(crate) struct Older {
    root: PathBuf,
    settings: Releases,
    list: Mutex<List>,
}

#[derive(Default)]
struct List {
    read_at: Option<u64>,
    releases: Vec<Release>,
}

#[derive(Clone)]
struct Release {
    path: PathBuf,
    files: Arc<dyn Files>,
}

impl Older {
    pub(crate) fn new(root: &Path, settings: Releases) -> Result<Self, SiteError> {
        let is_link = || symlink_metadata(root).is_ok_and(|found| found.is_symlink());
        if settings.folder.is_none() && !is_link() {
            return Err(SiteError::NoReleases(root.to_owned()));
        }
        Ok(Self {
            root: root.to_owned(),
            settings,
            list: Mutex::default(),
        })
    }

    /// The trees of the older releases, in the order in which they are to be asked.
    pub(crate) fn files(&self, at: u64) -> Vec<Arc<dyn Files>> {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        if list
            .read_at
            .is_none_or(|read| at >= read.saturating_add(TRUST_MILLIS))
        {
            list.read_at = Some(at);
            let paths = self.newest();
            list.releases = renew(&list.releases, paths);
        }
        list.releases
            .iter()
            .map(|release| Arc::clone(&release.files))
            .collect()
    }

    /// The directories of the newest releases, without the current one.
    fn newest(&self) -> Vec<PathBuf> {
        let Ok(current) = self.root.canonicalize() else {
            return Vec::new();
        };
        let folder = match &self.settings.folder {
            Some(folder) => Some(folder.as_path()),
            None => current.parent(),
        };
        let Some(entries) = folder.and_then(|folder| read_dir(folder).ok()) else {
            return Vec::new();
        };
        let same = |found: &Metadata, other: &Metadata| {
            (found.dev(), found.ino()) == (other.dev(), other.ino())
        };
        let now = current.metadata().ok();
        let mut found: Vec<(SystemTime, PathBuf)> = entries
            .take(MOST)
            .filter_map(Result::ok)
            // Uploads under way have hidden names, and the link itself is no release.
            .filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."))
            .filter_map(|entry| {
                let facts = entry.metadata().ok().filter(Metadata::is_dir)?;
                let is_current = now.as_ref().is_some_and(|now| same(now, &facts));
                (!is_current).then(|| {
                    (
                        facts.modified().unwrap_or(SystemTime::UNIX_EPOCH),
                        entry.path(),
                    )
                })
            })
            .collect();
        found.sort_by(|a, b| b.cmp(a));
        found.truncate(self.settings.keep);
        found.into_iter().map(|(_, path)| path).collect()
    }
}

/// Keeps the trees that stay in the list.
fn renew(before: &[Release], paths: Vec<PathBuf>) -> Vec<Release> {
    let releases = paths.into_iter().map(|path| {
        let known = before.iter().find(|release| release.path == path);
        known.cloned().unwrap_or_else(|| Release {
            files: Arc::new(Disk::new(path.clone())),
            path,
        })
    });
    releases.collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::files::Found;

    /// Releases `names`, each a day younger than the one before, with a file of its name.
    fn releases(names: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (day, name) in (1_u64..).zip(names) {
            let path = dir.path().join("releases").join(name);
            fs::create_dir_all(&path).unwrap();
            fs::write(path.join(name), name).unwrap();
            let time = UNIX_EPOCH + Duration::from_secs(day * 86_400);
            fs::File::open(&path).unwrap().set_modified(time).unwrap();
        }
        dir
    }

    fn flip(dir: &tempfile::TempDir, name: &str) {
        let link = dir.path().join("current");
        let _ = fs::remove_file(&link);
        symlink(dir.path().join("releases").join(name), link).unwrap();
    }

    fn older(dir: &tempfile::TempDir, keep: usize) -> Older {
        let settings = Releases { keep, folder: None };
        Older::new(&dir.path().join("current"), settings).unwrap()
    }

    fn names(older: &Older, at: u64, all: &[&'static str]) -> Vec<&'static str> {
        let files = older.files(at);
        let name = |tree: &Arc<dyn Files>| {
            let found = all
                .iter()
                .find(|name| matches!(tree.look(name), Ok(Found::File(_))));
            *found.unwrap()
        };
        files.iter().map(name).collect()
    }

    #[test]
    fn the_newest_are_asked_first_and_the_current_one_not_again() {
        let all = ["a", "b", "c", "d"];
        let dir = releases(&all);
        flip(&dir, "d");
        let older = older(&dir, 2);
        assert_eq!(names(&older, 0, &all), ["c", "b"]);
        flip(&dir, "b");
        assert_eq!(
            names(&older, 999, &all),
            ["c", "b"],
            "it is looked for once a second"
        );
        assert_eq!(
            names(&older, 1_000, &all),
            ["d", "c"],
            "after a way back too"
        );
    }

    #[test]
    fn hidden_directories_files_and_links_are_no_releases() {
        let dir = releases(&["a", "b", ".uploading"]);
        flip(&dir, "b");
        let folder = dir.path().join("releases");
        fs::write(folder.join("notes.txt"), "").unwrap();
        symlink(folder.join("a"), folder.join("link")).unwrap();
        assert_eq!(names(&older(&dir, 9), 0, &["a", "b"]), ["a"]);
    }

    #[test]
    fn a_root_that_is_no_link_has_to_say_where_releases_are() {
        let dir = releases(&["a", "b"]);
        let root = dir.path().join("releases/b");
        let keep = |folder| Releases { keep: 3, folder };
        assert!(matches!(
            Older::new(&root, keep(None)),
            Err(SiteError::NoReleases(_))
        ));
        let older = Older::new(&root, keep(Some(dir.path().join("releases")))).unwrap();
        assert_eq!(names(&older, 0, &["a", "b"]), ["a"]);
    }
}
