//! Giving up root once every socket is bound.

use std::fs::symlink_metadata;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Uid, User, setgid, setgroups, setuid};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, chownat, fchown, openat, statat};
use rustix::io::Errno;

/// What the account is given before the change.
#[derive(Debug, Default)]
pub(crate) struct Owned {
    pub(crate) files: Vec<PathBuf>,
    /// With what is in them, and in the folders in them.
    pub(crate) folders: Vec<PathBuf>,
}

/// Why the account could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    /// There is no such account.
    #[error("[server] user = {0:?}: there is no such user on this machine")]
    Unknown(String),
    /// The system's user database could not be read, or it refused.
    #[error("[server] user = {user:?}: {reason}")]
    Refused {
        /// The account.
        user: String,
        /// The system's reason.
        reason: String,
    },
}

/// Whether there is such an account.
///
/// # Errors
/// See [`PrivilegeError`].
pub(crate) fn exists(name: &str) -> Result<(), PrivilegeError> {
    account(name).map(drop)
}

fn account(name: &str) -> Result<User, PrivilegeError> {
    User::from_name(name)
        .map_err(|error| PrivilegeError::Refused {
            user: name.to_owned(),
            reason: error.to_string(),
        })?
        .ok_or_else(|| PrivilegeError::Unknown(name.to_owned()))
}

/// Changes to `name` for the rest of the process's life, and gives it the files in `owned`.
/// Without root this is an error unless the process runs as that account already.
///
/// # Errors
/// See [`PrivilegeError`].
pub(crate) fn drop_to(name: &str, owned: &Owned) -> Result<(), PrivilegeError> {
    let refused = |reason: String| PrivilegeError::Refused {
        user: name.to_owned(),
        reason,
    };
    let user = account(name)?;
    if Uid::effective() == user.uid {
        return Ok(());
    }
    if !Uid::effective().is_root() {
        return Err(refused(
            "only root can change the user; start as root, or remove the key".into(),
        ));
    }
    let owner = Owner {
        uid: rustix::fs::Uid::from_raw(user.uid.as_raw()),
        gid: rustix::fs::Gid::from_raw(user.gid.as_raw()),
    };
    let at = |path: &Path, error: io::Error| refused(format!("{}: {error}", path.display()));
    for path in &owned.files {
        owner.give(path).map_err(|error| at(path, error))?;
    }
    for path in &owned.folders {
        owner.give_folder(path).map_err(|error| at(path, error))?;
    }
    change(user.uid, user.gid).map_err(|error| refused(error.to_string()))
}

/// Folders that were given away once are the account's to write: whoever has it may have put links
/// there that would give it files of others. So no link is followed, folders are gone through by their
/// descriptors, and a file that has other names stays whose it is.
struct Owner {
    uid: rustix::fs::Uid,
    gid: rustix::fs::Gid,
}

impl Owner {
    /// Devices and pipes stay whose they are, as does what is no file at all (`-`).
    fn give(&self, path: &Path) -> io::Result<()> {
        let kind = match symlink_metadata(path) {
            Ok(facts) => facts.file_type(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        if kind.is_file() || kind.is_socket() {
            self.own(CWD, path)?;
        }
        Ok(())
    }

    fn give_folder(&self, path: &Path) -> io::Result<()> {
        match open_folder(path) {
            Ok(folder) => self.give_all(&folder, true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn give_all(&self, folder: &OwnedFd, with_folders: bool) -> io::Result<()> {
        fchown(folder, Some(self.uid), Some(self.gid))?;
        for entry in Dir::read_from(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let facts = match statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
                // Another process works in the folder, too.
                Err(Errno::NOENT) => continue,
                facts => facts?,
            };
            match FileType::from_raw_mode(facts.st_mode) {
                FileType::Directory if with_folders => {
                    let inner = openat(folder, name, FOLDER | OFlags::NOFOLLOW, Mode::empty())?;
                    self.give_all(&inner, false)?;
                }
                FileType::RegularFile if facts.st_nlink == 1 => self.own(folder, name)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn own(&self, folder: impl AsFd, name: impl rustix::path::Arg) -> io::Result<()> {
        let (uid, gid) = (Some(self.uid), Some(self.gid));
        match chownat(folder, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => Ok(()),
            given => Ok(given?),
        }
    }
}

const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

fn open_folder(path: &Path) -> io::Result<OwnedFd> {
    Ok(openat(CWD, path, FOLDER | follow(path)?, Mode::empty())?)
}

/// What `path` is to be opened with, so that root follows no link that another account made: whoever
/// may write its folder could let root open any file. A link that root made is one that an operator
/// wants.
///
/// # Errors
/// It is such a link.
pub(crate) fn follow(path: &Path) -> io::Result<OFlags> {
    if !Uid::effective().is_root() {
        return Ok(OFlags::empty());
    }
    match symlink_metadata(path) {
        Ok(link) if link.file_type().is_symlink() => match link.uid() {
            0 => Ok(OFlags::empty()),
            _ => Err(io::Error::other(
                "it is a symbolic link that does not belong to root; put what it names there",
            )),
        },
        _ => Ok(OFlags::NOFOLLOW),
    }
}

/// Groups first: without root they cannot be changed any more.
fn change(uid: Uid, gid: Gid) -> nix::Result<()> {
    setgroups(&[gid])?;
    setgid(gid)?;
    setuid(uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_account_is_named() {
        let error = drop_to("no-such-user-here", &Owned::default())
            .unwrap_err()
            .to_string();
        assert!(error.contains("no-such-user-here"), "{error}");
    }

    /// Who can give files to others is root, as in the containers that tests run in; elsewhere there is
    /// nothing to see.
    #[test]
    fn links_of_the_account_give_it_nothing_of_others() {
        if !Uid::effective().is_root() {
            return;
        }
        let scratch = std::env::temp_dir().join(format!("tidegate-owned-{}", std::process::id()));
        let (folder, others) = (scratch.join("storage"), scratch.join("others"));
        std::fs::create_dir_all(folder.join("certificates")).unwrap();
        std::fs::create_dir_all(&others).unwrap();
        for file in [
            folder.join("certificates/a.pem"),
            folder.join("lock"),
            others.join("secret"),
            others.join("twice"),
        ] {
            std::fs::write(file, "x").unwrap();
        }
        std::os::unix::fs::symlink(&others, folder.join("accounts")).unwrap();
        std::os::unix::fs::symlink(others.join("secret"), folder.join("link")).unwrap();
        std::fs::hard_link(others.join("twice"), folder.join("twice")).unwrap();
        let owner = Owner {
            uid: rustix::fs::Uid::from_raw(12_345),
            gid: rustix::fs::Gid::from_raw(12_345),
        };
        owner.give_folder(&folder).unwrap();
        owner.give(&folder.join("link")).unwrap();
        let uid = |path: PathBuf| std::fs::metadata(path).unwrap().uid();
        assert_eq!(uid(folder.join("certificates/a.pem")), 12_345);
        assert_eq!(uid(folder.join("lock")), 12_345);
        assert_eq!(uid(folder), 12_345);
        assert_eq!(uid(others.join("secret")), 0);
        assert_eq!(uid(others.join("twice")), 0);
        assert_eq!(uid(others.clone()), 0);
        // A link of root's is followed, one of the account's is not.
        let link = scratch.join("to");
        std::os::unix::fs::symlink(&others, &link).unwrap();
        owner.give_folder(&link).unwrap();
        assert_eq!(uid(others), 12_345);
        owner.own(CWD, &link).unwrap();
        let error = owner.give_folder(&link).unwrap_err().to_string();
        assert!(error.contains("does not belong to root"), "{error}");
        std::fs::remove_dir_all(scratch).unwrap();
    }
}
