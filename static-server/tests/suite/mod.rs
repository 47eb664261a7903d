//! One list of requests and what must come back, for every front that serves a site.
//!
//! [`tree`] makes the files, [`cases`] and [`spa_cases`] are the list, [`run`] asks one of
//! them over a plain socket. It needs nothing but the standard library, so that the tests of
//! another package can include it by its path and run it through another front.
//!
//! The site is to be set up so: root as [`tree`] returns it; index `index.html`; all three
//! codings, brotli first, then zstd, then gzip; no fallback for [`cases`], `index.html` for
//! [`spa_cases`]; `Cache-Control` as [`CACHE_CONTROL`]; files of up to [`MAX_MEMORY_FILE`]
//! bytes in memory.

mod client;
mod list;
mod tree;

pub use client::{run, warm};
pub use list::{cases, spa_cases};
pub use tree::tree;

/// The site's `Cache-Control`.
pub const CACHE_CONTROL: &str = "public, max-age=60";

/// The site's limit for files in memory; `big.bin` is larger.
pub const MAX_MEMORY_FILE: u64 = 64 * 1_024;

/// When every file of the tree was written.
pub const MODIFIED: &str = "Tue, 02 Jan 2024 03:04:05 GMT";

/// One request and what must come back.
#[derive(Clone, Debug)]
pub struct Case {
    /// What is checked, as a sentence.
    pub name: String,
    /// The method.
    pub method: &'static str,
    /// The request target, sent as it stands.
    pub target: String,
    /// Fields to send. `{etag}` in a value becomes the tag that a GET with the same
    /// `Accept-Encoding` gets, `{weak}` the same tag made weak.
    pub fields: Vec<(&'static str, String)>,
    /// Statuses that are right.
    pub status: Vec<u16>,
    /// Header fields that must be right.
    pub headers: Vec<(&'static str, Check)>,
    /// The body that must come.
    pub body: Content,
}

/// What a header field must be.
#[derive(Clone, Debug)]
pub enum Check {
    /// Exactly this.
    Is(String),
    /// Something that begins so.
    Begins(&'static str),
    /// Something that ends so.
    Ends(&'static str),
    /// Not sent.
    Absent,
}

/// What a body must be.
#[derive(Clone, Debug)]
pub enum Content {
    /// Whatever fits the framing.
    Any,
    /// Exactly this.
    Is(Vec<u8>),
    /// `multipart/byteranges` with these parts: `Content-Range` and bytes.
    Parts(Vec<(String, Vec<u8>)>),
}

impl Case {
    fn new(method: &'static str, target: &str, status: u16, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            method,
            target: target.to_owned(),
            fields: Vec::new(),
            status: vec![status],
            headers: Vec::new(),
            body: Content::Any,
        }
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    fn or(mut self, status: u16) -> Self {
        self.status.push(status);
        self
    }

    fn has(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, Check::Is(value.into())));
        self
    }

    fn check(mut self, name: &'static str, check: Check) -> Self {
        self.headers.push((name, check));
        self
    }

    fn lacks(self, names: &[&'static str]) -> Self {
        names
            .iter()
            .fold(self, |case, name| case.check(name, Check::Absent))
    }

    fn body(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.body = Content::Is(bytes.into());
        self
    }

    fn parts(mut self, parts: &[(&str, &[u8])]) -> Self {
        let parts = parts
            .iter()
            .map(|(range, bytes)| ((*range).to_owned(), bytes.to_vec()));
        self.body = Content::Parts(parts.collect());
        self
    }
}
