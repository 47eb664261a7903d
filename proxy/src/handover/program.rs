//! How this process was started, so that it can be started again.
//!
//! The path is kept as it was given: where it is a link, or the file was replaced, the new one is
//! meant. What the system knows as the running program would be the old file.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A program and its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    pub(super) path: PathBuf,
    pub(super) arguments: Vec<OsString>,
}

impl Program {
    /// This one, from its start on.
    ///
    /// # Errors
    /// The system does not say which it is.
    pub fn of_this_process() -> io::Result<Self> {
        let mut arguments = env::args_os();
        let name = PathBuf::from(arguments.next().unwrap_or_default());
        let path = match found(&name, &env::var_os("PATH").unwrap_or_default()) {
            Some(path) => std::path::absolute(path)?,
            // Whoever started it gave it another name.
            None => env::current_exe()?,
        };
        let arguments = arguments.collect();
        Ok(Self { path, arguments })
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}

/// Where a shell would find it.
fn found(name: &Path, path: &std::ffi::OsStr) -> Option<PathBuf> {
    let is_program = |file: &PathBuf| {
        fs::metadata(file).is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0)
    };
    if name.components().count() > 1 {
        return Some(name.to_owned()).filter(is_program);
    }
    env::split_paths(path)
        .map(|folder| folder.join(name))
        .find(is_program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_stays_a_link_and_a_bare_name_is_looked_for() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("edge");
        std::os::unix::fs::symlink(env::current_exe().unwrap(), &link).unwrap();
        assert_eq!(found(&link, "".as_ref()), Some(link.clone()));
        let path = env::join_paths([Path::new("/nowhere"), folder.path()]).unwrap();
        assert_eq!(found(Path::new("edge"), &path), Some(link));
        fs::write(folder.path().join("text"), "no program").unwrap();
        assert_eq!(found(Path::new("text"), &path), None);
    }
}
