//! Giving up root once every socket is bound.

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

/// Changes to `name` for the rest of the process's life. Without root this is
/// an error unless the process runs as that account already.
///
/// # Errors
/// See [`PrivilegeError`].
pub(crate) fn drop_to(name: &str) -> Result<(), PrivilegeError> {
    let refused = |reason: String| PrivilegeError::Refused {
        user: name.to_owned(),
        reason,
    };
    let user = User::from_name(name)
        .map_err(|error| refused(error.to_string()))?
        .ok_or_else(|| PrivilegeError::Unknown(name.to_owned()))?;
    if Uid::effective() == user.uid {
        return Ok(());
    }
    if !Uid::effective().is_root() {
        return Err(refused(
            "only root can change the user; start as root, or remove the key".into(),
        ));
    }
    change(user.uid, user.gid).map_err(|error| refused(error.to_string()))
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
        let error = drop_to("no-such-user-here").unwrap_err().to_string();
        assert!(error.contains("no-such-user-here"), "{error}");
    }
}
