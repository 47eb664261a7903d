//! The file system behind one small trait: what stands at a name, its bytes, a descriptor.
//!
//! Names are relative to the root and already plain (see [`crate::confine`]); whoever
//! implements this keeps what a name leads to inside the root, symbolic links included, and
//! never blocks on a pipe or a device. [`Disk`] is the real one, tests bring their own.

mod disk;
mod list;
mod watch;

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;

pub use disk::Disk;
pub(crate) use disk::{facts_of, pread, read_cached, read_unchanged, unchanged};
pub use watch::{Directory, Sign};

/// How a file's modification time lies to the clock that stamps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// Old enough that a further change must show in the time.
    Settled,
    /// So young that it may change once more within the same stamp.
    Fresh,
    /// The clock says it is yet to come.
    Future,
}

/// What the file system knows of a regular file.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// Length in bytes.
    pub len: u64,
    /// Modification time, as exactly as the file system keeps it.
    pub modified: SystemTime,
    /// When anything about the file last changed, its permissions and names included
    /// (st_ctime). Nobody can set it, so that it tells what a kept modification time hides.
    pub changed: SystemTime,
    /// Inode number: a file replaced by renaming gets another.
    pub inode: u64,
    /// Whether a symbolic link below the root led here. Then nobody tells of its changes.
    pub linked: bool,
    /// How far the time can be trusted.
    pub age: Age,
}

impl Facts {
    /// Whether both describe one state of one file. What was fresh when it was looked at
    /// (`self`) may have changed without a trace, and is never the same.
    pub fn still(&self, now: &Self) -> bool {
        self.age != Age::Fresh && self.changed == now.changed && self.identical(now)
    }

    /// Whether time, length and inode are equal: the content is the same, though the file may
    /// have got another name or none.
    pub(crate) fn identical(&self, other: &Self) -> bool {
        (self.len, self.modified, self.inode) == (other.len, other.modified, other.inode)
    }
}

/// What stands at a name.
#[derive(Clone, Copy, Debug)]
pub enum Found {
    /// A regular file.
    File(Facts),
    /// A directory.
    Directory,
}

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name, without its directory.
    pub name: String,
    /// What it is, links followed.
    pub kind: EntryKind,
    /// Modification time.
    pub modified: SystemTime,
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file of so many bytes.
    File(u64),
    /// A directory.
    Directory,
}

/// What a directory holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// Files and directories, in no order. Names that are no text and those that begin with a
    /// dot are left out, and so is what leads out of the root or is no file.
    pub entries: Vec<Entry>,
    /// Whether there are names that were not read.
    pub more: bool,
}

/// Why a name gives no file.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// Nothing there; also a name longer than the file system takes.
    #[error("no such file")]
    Missing,
    /// A symbolic link leads out of the root.
    #[error("a symbolic link leads out of the root")]
    Escapes,
    /// A pipe, socket or device.
    #[error("not a regular file")]
    Special,
    /// This process may not read it.
    #[error("permission denied")]
    Forbidden,
    /// No descriptor or memory left; passes.
    #[error("out of descriptors or memory")]
    Exhausted,
    /// It changed while it was read; passes.
    #[error("changed while it was read")]
    Unstable,
    /// Anything else that the system says.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
}

/// Read access to the tree below one root. Calls may do a few quick system calls.
pub trait Files: Send + Sync + 'static {
    /// Forgets where the root's name leads. Called before a group of looks that belong
    /// together; between two calls, the root may be taken to be the same directory.
    fn refresh(&self);

    /// A sign that goes out when something called `name` changes in `directory` (`""` is the
    /// root, others have no slash at their end). Taken before a look, it vouches for what the
    /// look finds. `None` where nobody tells of changes there.
    fn sign(&self, directory: &str, name: &str) -> Option<Sign> {
        let _ = (directory, name);
        None
    }

    /// A sign that goes out when anything changes in `directory`.
    fn sign_of_all(&self, directory: &str) -> Option<Sign> {
        let _ = directory;
        None
    }

    /// What stands at `path`; does not open it for reading.
    ///
    /// # Errors
    ///
    /// See [`Trouble`]; what is neither file nor directory is [`Trouble::Special`].
    fn look(&self, path: &str) -> Result<Found, Trouble>;

    /// The whole content of the file that a look found at `path`, and the facts that hold for just these bytes.
    ///
    /// # Errors
    ///
    /// [`Trouble::Unstable`] where it is longer than `limit` bytes or keeps changing.
    fn read(&self, path: &str, limit: u64) -> Result<(Bytes, Facts), Trouble>;

    /// A descriptor of the file that a look found at `path`, and its facts.
    ///
    /// # Errors
    ///
    /// See [`Trouble`]; [`Trouble::Special`] where something else took the file's place.
    fn open(&self, path: &str) -> Result<(Arc<File>, Facts), Trouble>;

    /// What the directory at `path` holds (`""` is the root, others have no slash at their
    /// end). No more than `limit` names are read, those that are left out included.
    ///
    /// # Errors
    ///
    /// See [`Trouble`]; [`Trouble::Missing`] where it is no directory, and from those who do not
    /// list.
    fn list(&self, path: &str, limit: usize) -> Result<Listed, Trouble> {
        let _ = (path, limit);
        Err(Trouble::Missing)
    }
}
