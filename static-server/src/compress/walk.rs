//! Which files there are: those that a site would serve, and that can gain by being packed.

use std::fs::{self, DirEntry, FileType};
use std::path::{Path, PathBuf};

use crate::dictionary;
use crate::encoding::Encoding;
use crate::mime;

/// A file that can be packed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) path: PathBuf,
    /// The folder, relative to the root.
    pub(super) folder: PathBuf,
    pub(super) name: String,
    pub(super) len: u64,
}

/// All below a root.
#[derive(Debug, Default)]
pub(super) struct Tree {
    pub(super) files: Vec<Found>,
    /// Copies and differences whose original is among the files.
    pub(super) copies: Vec<PathBuf>,
    /// What could not be looked into, and why.
    pub(super) troubles: Vec<String>,
}

/// Walks the tree below `root`, whose real path it must be.
///
/// Left out is what the server does not serve either (see [`crate::confine`]): names that begin
/// with a dot, except `.well-known` at the top, names that no URL leads to, links out of the
/// root. Linked folders are not entered: they are met where they lie.
pub(super) fn tree(root: &Path) -> Tree {
    let mut tree = Tree::default();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(root.join(&folder)) {
            Ok(entries) => entries,
            Err(error) => {
                tree.trouble(&root.join(&folder), &error);
                continue;
            }
        };
        let mut copies = Vec::new();
        let known = tree.files.len();
        for entry in entries {
            match entry {
                Ok(entry) => {
                    tree.meet(root, &folder, &entry, &mut folders, &mut copies);
                }
                Err(error) => tree.trouble(&root.join(&folder), &error),
            }
        }
        let files = tree.files.get(known..).unwrap_or_default();
        let named = |name: &str| files.iter().any(|file| file.name == name);
        copies.retain(|(original, _)| named(original));
        tree.copies.extend(copies.into_iter().map(|(_, path)| path));
    }
    tree.files.sort_by(|a, b| a.path.cmp(&b.path));
    tree.copies.sort();
    tree
}

impl Tree {
    fn trouble(&mut self, path: &Path, error: &dyn std::fmt::Display) {
        self.troubles.push(format!("{}: {error}", path.display()));
    }

    fn meet(
        &mut self,
        root: &Path,
        folder: &Path,
        entry: &DirEntry,
        folders: &mut Vec<PathBuf>,
        copies: &mut Vec<(String, PathBuf)>,
    ) {
        let Some(name) = entry.file_name().to_str().map(str::to_owned) else {
            return;
        };
        let top = folder.as_os_str().is_empty();
        let hidden = name.starts_with('.') && !(top && name == ".well-known");
        if hidden || name.contains('\\') || name.bytes().any(|byte| byte.is_ascii_control()) {
            return;
        }
        let path = entry.path();
        let kind = match entry.file_type() {
            Ok(kind) => kind,
            Err(error) => return self.trouble(&path, &error),
        };
        if kind.is_dir() {
            folders.push(folder.join(name));
        } else if let Some(original) = original(&name) {
            copies.push((original.to_owned(), path));
        } else if mime::packs(mime::of(&name)) {
            match length(root, &path, kind) {
                Ok(Some(len)) => self.files.push(Found {
                    path,
                    folder: folder.to_owned(),
                    name,
                    len,
                }),
                Ok(None) => {}
                Err(error) => self.trouble(&path, &error),
            }
        }
    }
}

/// The length of a regular file, or of one inside the root that a link leads to.
fn length(root: &Path, path: &Path, kind: FileType) -> std::io::Result<Option<u64>> {
    if kind.is_symlink() {
        // A link to nowhere is nobody's file.
        let Ok(real) = path.canonicalize() else {
            return Ok(None);
        };
        if !real.starts_with(root) {
            return Ok(None);
        }
    }
    let metadata = fs::metadata(path)?;
    Ok(metadata.is_file().then_some(metadata.len()))
}

/// The name of the original, where `name` is one of a copy or a difference.
pub(super) fn original(name: &str) -> Option<&str> {
    let copy = || {
        Encoding::ALL
            .into_iter()
            .find_map(|coding| name.strip_suffix(coding.suffix()))
    };
    let delta = || dictionary::original(name).map(|(original, _)| original);
    copy().or_else(delta)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_a_site_would_not_serve_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap().join("root");
        for (path, content) in [
            ("root/app.js", "js"),
            ("root/app.js.br", "br"),
            ("root/app.js.0123456789abcdef.dcz", "dcz"),
            ("root/orphan.css.gz", "gz"),
            ("root/photo.png", "png"),
            ("root/sub/b.css", "css"),
            ("root/.git/config.js", "no"),
            ("root/.env", "no"),
            ("root/.well-known/a.json", "yes"),
            ("root/sub/.well-known/a.json", "no"),
            ("root/a\\b.js", "no"),
            ("secret.js", "no"),
        ] {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        symlink("sub/b.css", root.join("in.css")).unwrap();
        symlink("../secret.js", root.join("out.js")).unwrap();
        symlink("nowhere.js", root.join("broken.js")).unwrap();
        symlink("..", root.join("sub/up")).unwrap();
        let tree = tree(&root);
        let shown = |path: &PathBuf| path.strip_prefix(&root).unwrap().display().to_string();
        let files: Vec<_> = tree.files.iter().map(|file| shown(&file.path)).collect();
        assert_eq!(
            files,
            [".well-known/a.json", "app.js", "in.css", "sub/b.css"]
        );
        let copies: Vec<_> = tree.copies.iter().map(shown).collect();
        assert_eq!(copies, ["app.js.0123456789abcdef.dcz", "app.js.br"]);
        assert_eq!(tree.troubles, [""; 0]);
    }
}
