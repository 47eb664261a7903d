//! What a site is made from, and what can be wrong with it.

use std::path::PathBuf;

use http::HeaderValue;

use crate::encoding::Encoding;

/// How much memory a site takes for files by default: 64 MiB.
pub const DEFAULT_MEMORY: u64 = 64 * 1_024 * 1_024;

/// The largest file held in memory by default: 256 KiB. Above that the kernel's page cache
/// serves as well, and the copy is not worth its room.
pub const DEFAULT_MAX_MEMORY_FILE: u64 = 256 * 1_024;

/// The name of the page of a directory.
pub const DEFAULT_INDEX: &str = "index.html";

/// The settings of one site.
#[derive(Clone, Debug)]
pub struct SiteSettings {
    /// The directory whose files are served. It may be a symbolic link, which may be moved to
    /// another directory at any time.
    pub root: PathBuf,
    /// Names tried in a directory, in this order; plain names without a slash.
    pub index: Vec<String>,
    /// The file, relative to the root, that answers for pages that do not exist.
    pub fallback: Option<String>,
    /// The codings whose precompressed siblings are looked for, the favourite first.
    pub precompressed: Vec<Encoding>,
    /// `Cache-Control` of every file.
    pub cache_control: Option<HeaderValue>,
    /// How many bytes of memory hold files; 0 holds none.
    pub memory: u64,
    /// Files of more bytes are streamed from the disk.
    pub max_memory_file: u64,
}

impl SiteSettings {
    /// The defaults for a directory: `index.html`, all three codings, no fallback.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            index: vec![DEFAULT_INDEX.to_owned()],
            fallback: None,
            precompressed: Encoding::ALL.to_vec(),
            cache_control: None,
            memory: DEFAULT_MEMORY,
            max_memory_file: DEFAULT_MAX_MEMORY_FILE,
        }
    }
}

/// Why a site cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SiteError {
    /// The root does not exist or cannot be reached.
    #[error("root {}: {error}", .root.display())]
    Root {
        /// The root as it was given.
        root: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// The root is a file.
    #[error("root {}: not a directory", .0.display())]
    NotADirectory(PathBuf),
    /// An index is no plain file name.
    #[error("index \"{0}\": expected a file name such as \"{DEFAULT_INDEX}\"")]
    Index(String),
    /// The fallback is no relative path inside the root.
    #[error("fallback \"{0}\": expected a path below the root such as \"{DEFAULT_INDEX}\"")]
    Fallback(String),
    /// The fallback is not there.
    #[error("fallback \"{path}\": {reason}")]
    FallbackMissing {
        /// The fallback as it was given.
        path: String,
        /// Why it cannot be read.
        reason: String,
    },
}
