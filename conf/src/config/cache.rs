//! The store of responses, and what a route keeps in it.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use http::HeaderName;
use ipnet::IpNet;

/// `[cache]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheStore {
    /// Bytes of memory for stored responses (keys and heads included).
    pub memory: u64,
    /// Larger bodies are passed and not stored.
    pub max_object_size: u64,
    /// The second tier.
    pub disk: Option<CacheDisk>,
    /// Response fields that carry tags.
    pub tags: Vec<HeaderName>,
    /// Who may PURGE; empty: the method has no meaning here.
    pub purge_from: Vec<IpNet>,
    /// Cookies that belong to one visitor.
    pub session_cookies: Vec<String>,
}

/// `disk = { ... }` of `[cache]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheDisk {
    /// The directory.
    pub path: PathBuf,
    /// Bytes on disk.
    pub size: u64,
}

/// `cache = { ... }` of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteCache {
    /// Lifetime of responses that state none themselves.
    pub ttl: Option<Duration>,
    /// RFC 5861 section 3, where the origin does not say.
    pub stale_while_revalidate: Duration,
    /// RFC 5861 section 4, where the origin does not say.
    pub stale_if_error: Duration,
    /// When nobody answers.
    pub offline: Offline,
    /// The last part of a lifetime, in which it may be refreshed; zero: never.
    pub early_refresh: Duration,
    /// Longest wait for another's fetch; `None`: the upstream's `first_byte_timeout`.
    pub collapse_timeout: Option<Duration>,
    /// Longest rest of a fetch that no client reads.
    pub background_timeout: Duration,
    /// How long nobody waits for what was not to be shared.
    pub hit_for_miss: Duration,
    /// Requests before a response is stored.
    pub min_uses: NonZeroU32,
    /// Request fields that select a variant beside the origin's Vary.
    pub vary: Vec<HeaderName>,
    /// Accept-Encoding is reduced to one of these; empty: it is left alone.
    pub accept_encoding: Vec<ContentCoding>,
    /// Accept-Language is reduced to one of these; empty: it is left alone.
    pub accept_language: Vec<String>,
    /// Codings in which stored responses are offered.
    pub compress: Vec<ContentCoding>,
    /// The order of parameters makes no difference.
    pub sort_query: bool,
    /// Only these parameters are part of the key; empty: all.
    pub keep_query: Vec<String>,
    /// These are not.
    pub drop_query: Vec<QueryPattern>,
    /// Request fields that are part of the key.
    pub key_headers: Vec<HeaderName>,
    /// Cookies that are part of the key.
    pub key_cookies: Vec<String>,
    /// RFC 9111 section 3.5 is in force; else responses to requests with Authorization are not kept.
    pub share_authorized: bool,
    /// Responses to requests with a session cookie are kept like others.
    pub share_sessions: bool,
    /// Percentage of hits by sessions that are compared; 0: none.
    pub compare_sessions: u8,
    /// Cache-Status shows the key.
    pub show_key: bool,
}

/// When no endpoint of an upstream can be reached or answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offline {
    /// `stale_if_error` decides.
    Fail,
    /// What is stored is served, however old.
    ServeStale,
}

/// A content coding (RFC 9110 section 8.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentCoding {
    /// `br`
    Brotli,
    /// `zstd`
    Zstd,
    /// `gzip`
    Gzip,
}

/// Names of query parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueryPattern {
    /// `page`
    Exact(String),
    /// `utm_*`: names that begin so.
    Prefix(String),
}
