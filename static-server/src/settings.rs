//! What a site is made from, and what can be wrong with it.

use std::path::PathBuf;

use http::HeaderValue;

use crate::encoding::Encoding;
use crate::images::{ImageSettings, ImagesError};

/// How much memory a site takes for files by default: 64 MiB.
pub const DEFAULT_MEMORY: u64 = 64 * 1_024 * 1_024;

/// The largest file held in memory by default: 256 KiB. Above that the kernel's page cache
/// serves as well, and the copy is not worth its room.
pub const DEFAULT_MAX_MEMORY_FILE: u64 = 256 * 1_024;

/// The name of the page of a directory.
pub const DEFAULT_INDEX: &str = "index.html";

/// What files get whose name says nothing of their content: a short life, after which the client
/// asks whether its copy is still right.
pub const DEFAULT_CACHE_CONTROL: &str = "public, max-age=60";

/// What files get whose name changes with their content: the longest life, and no question even
/// when the visitor reloads the page (RFC 8246).
pub const IMMUTABLE_CACHE_CONTROL: &str = "public, max-age=31536000, immutable";

/// The settings of one site.
#[derive(Clone, Debug)]
pub struct SiteSettings {
    /// The directory whose files are served. It may be a symbolic link, which may be moved to
    /// another directory at any time.
    pub root: PathBuf,
    /// Names tried in a directory, in this order; plain names without a slash.
    pub index: Vec<String>,
    /// Whether a directory without an index is shown. Off, it is not found.
    pub listing: bool,
    /// The file, relative to the root, that answers for pages that do not exist.
    pub fallback: Option<String>,
    /// The codings whose precompressed siblings are looked for, the favourite first.
    pub precompressed: Vec<Encoding>,
    /// `Cache-Control` of files.
    pub cache_control: Option<HeaderValue>,
    /// Which files never change, and what they get instead.
    pub immutable: Option<Immutable>,
    /// Where files of older releases are found.
    pub releases: Option<Releases>,
    /// Which smaller forms of pictures are made.
    pub images: Option<ImageSettings>,
    /// Whether files with a hash in their name are dictionaries for their other releases, and
    /// the differences beside them are sent (see [`crate::dictionary`]).
    pub dictionaries: bool,
    /// How many bytes of memory hold files; 0 holds none.
    pub memory: u64,
    /// Files of more bytes are streamed from the disk.
    pub max_memory_file: u64,
}

impl SiteSettings {
    /// The defaults for a directory: `index.html`, all three codings, fingerprinted names are
    /// immutable; no listing, no fallback, no older releases, no images, no dictionaries.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            index: vec![DEFAULT_INDEX.to_owned()],
            listing: false,
            fallback: None,
            precompressed: Encoding::ALL.to_vec(),
            cache_control: Some(HeaderValue::from_static(DEFAULT_CACHE_CONTROL)),
            immutable: Some(Immutable::default()),
            releases: None,
            images: None,
            dictionaries: false,
            memory: DEFAULT_MEMORY,
            max_memory_file: DEFAULT_MAX_MEMORY_FILE,
        }
    }
}

/// Files whose content never changes under their name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Immutable {
    /// `Cache-Control` of such files.
    pub cache_control: HeaderValue,
    /// Patterns of paths below the root, such as `assets/*`, that are immutable beside those with
    /// a fingerprint in their name. `*` goes past slashes.
    pub patterns: Vec<glob::Pattern>,
}

impl Default for Immutable {
    fn default() -> Self {
        Self {
            cache_control: HeaderValue::from_static(IMMUTABLE_CACHE_CONTROL),
            patterns: Vec::new(),
        }
    }
}

/// Older releases of the site, whose files are served where the current one lacks them: a page
/// that was opened before a deploy goes on with what it was made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Releases {
    /// How many of them, the newest first.
    pub keep: usize,
    /// The directory that has a directory for each release. `None`: the root is a symbolic link,
    /// and releases stand beside what it leads to.
    pub folder: Option<PathBuf>,
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
    /// Releases are to be found by a link that is none.
    #[error(
        "root {}: no symbolic link, so that it does not say where older releases are", .0.display()
    )]
    NoReleases(PathBuf),
    /// Pictures cannot be kept or made.
    #[error("images: {0}")]
    Images(#[from] ImagesError),
    /// The fallback is not there.
    #[error("fallback \"{path}\": {reason}")]
    FallbackMissing {
        /// The fallback as it was given.
        path: String,
        /// Why it cannot be read.
        reason: String,
    },
}
