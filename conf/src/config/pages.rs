//! What is answered beside or in place of an app's reply.

use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderValue, StatusCode};
use ipnet::IpNet;

/// Index into [`Config::error_pages`](super::Config::error_pages).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ErrorPagesId(pub usize);

/// `[error_pages.NAME]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorPages {
    /// Its name in the file.
    pub name: String,
    /// Which file for which statuses, in file order; each exists when the configuration is loaded.
    pub pages: Vec<(PageStatus, PathBuf)>,
    /// Whether error replies of an app get a page, too.
    pub upstream: bool,
}

/// What a page is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PageStatus {
    /// `"404"`
    Exact(StatusCode),
    /// `"4xx"`: every client error that has no page of its own.
    ClientError,
    /// `"5xx"`: every server error that has no page of its own.
    ServerError,
}

/// `[server] maintenance`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Maintenance {
    /// While it is there, the site is closed.
    pub file: PathBuf,
    /// What is shown then; exists when the configuration is loaded. `None`: what is shown for 503.
    pub page: Option<PathBuf>,
    /// `Retry-After`.
    pub retry_after: Duration,
    /// Client networks that see the site as usual.
    pub allow: Vec<IpNet>,
}

/// `[[route]] early_hints`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EarlyHints {
    /// Values of Link fields.
    pub links: Vec<HeaderValue>,
    /// Whether the app's own links are told to later visitors.
    pub learn: bool,
    /// Whether HTTP/1.1 clients are told.
    pub http1: bool,
}
