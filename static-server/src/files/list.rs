//! The names in a directory, with what each leads to.
//!
//! A link is followed as it is when it is asked for, and so is left out where it leads out of the
//! root or to nothing. Pipes, sockets and devices are looked at, never opened.

use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Dir, FileType, OFlags, fstat, statat};

use super::disk::{Disk, facts, trouble};
use super::{Entry, EntryKind, Listed, Trouble};

/// See [`super::Files::list`].
pub(super) fn list(disk: &Disk, path: &str, limit: usize) -> Result<Listed, Trouble> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK;
    let (directory, _) = disk.beneath(path, flags)?;
    let mut listed = Listed::default();
    let mut names = Dir::read_from(&directory).map_err(trouble)?;
    let mut read = 0;
    while let Some(name) = names.read() {
        let name = name.map_err(trouble)?;
        let name = name.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        if read == limit {
            listed.more = true;
            break;
        }
        read += 1;
        let name = std::str::from_utf8(name).ok();
        if let Some(name) = name.filter(|name| !name.starts_with('.')) {
            listed.entries.extend(entry(disk, &directory, path, name));
        }
    }
    Ok(listed)
}

/// The entry `name` of the open `directory` at `path`. `None` is what is not served.
fn entry(disk: &Disk, directory: &OwnedFd, path: &str, name: &str) -> Option<Entry> {
    let mut stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
        let path = if path.is_empty() {
            name.to_owned()
        } else {
            format!("{path}/{name}")
        };
        let (followed, _) = disk.beneath(&path, OFlags::PATH).ok()?;
        stat = fstat(followed).ok()?;
    }
    let facts = facts(&stat);
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => EntryKind::File(facts.len),
        FileType::Directory => EntryKind::Directory,
        _ => return None,
    };
    Some(Entry {
        name: name.to_owned(),
        kind,
        modified: facts.modified,
    })
}
