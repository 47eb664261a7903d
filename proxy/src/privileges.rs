//! Giving up root once every socket is bound.

use std::io;
use std::os::unix::fs::{FileTypeExt, chown};
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Uid, User, setgid, setgroups, setuid};

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
pub(crate) fn drop_to(name: &str, owned: &[PathBuf]) -> Result<(), PrivilegeError> {
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
    for path in owned {
        give(path, &user).map_err(|error| refused(format!("{}: {error}", path.display())))?;
    }
    change(user.uid, user.gid).map_err(|error| refused(error.to_string()))
}

/// Devices and pipes stay whose they are, as does what is no file at all (`-`).
fn give(path: &Path, user: &User) -> io::Result<()> {
    let kind = match std::fs::symlink_metadata(path) {
        Ok(facts) => facts.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if kind.is_file() || kind.is_socket() || kind.is_dir() {
        chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
    }
    Ok(())
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
        let error = drop_to("no-such-user-here", &[]).unwrap_err().to_string();
        assert!(error.contains("no-such-user-here"), "{error}");
    }
}
