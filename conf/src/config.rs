//! What the program runs on: a configuration in which every name is resolved,
//! every value parsed and every combination possible.
//!
//! Nothing here can be built from a file that has an error: [`crate::load`]
//! either gives a whole [`Config`] or all the errors. What the user wrote is
//! another set of types (`raw`).

mod acme;
mod cache;
mod overload;
mod pages;
mod tls;
mod upstream;

use std::fmt;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, StatusCode};
use ipnet::IpNet;
use regex::Regex;

pub use acme::{
    Acme, AcmeChallenge, AcmeDirectory, AcmeKey, DnsRecords, DnsUpdate, ExternalAccount,
    TsigAlgorithm,
};
pub use cache::{CacheDisk, CacheStore, ContentCoding, Offline, QueryPattern, RouteCache};
pub use overload::{MemoryMark, Overload, Priority};
pub use pages::{EarlyHints, ErrorPages, ErrorPagesId, Maintenance, PageStatus};
pub use tls::{
    Certificate, CipherSuite, ClientAuth, KeyExchangeGroup, Tls, TlsOptions, TlsVersion,
};
pub use upstream::{
    AdaptiveConcurrency, Balance, BodyPattern, Discovery, Endpoint, EndpointAddress, Family,
    HashKey, HashTable, HealthCheck, HealthCheckKind, Hedge, HttpCheck, Keepalive,
    OutlierDetection, ProxyVersion, Queue, Resolve, Retry, Sticky, Upstream, UpstreamLimits,
    UpstreamProtocol, UpstreamTls,
};

/// A whole, checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// The process.
    pub server: Server,
    /// Where monitoring and operators look; `None`: no admin listener.
    pub admin: Option<Admin>,
    /// What is written about the run and about each request.
    pub log: Log,
    /// When, and how, load is shed.
    pub overload: Overload,
    /// Where clients connect, in file order; at least one.
    pub listeners: Vec<Listener>,
    /// Certificates; present whenever a listener has `tls`.
    pub tls: Option<Tls>,
    /// Pools of app servers, in file order.
    pub upstreams: Vec<Upstream>,
    /// Directories served, in file order.
    pub statics: Vec<StaticSite>,
    /// Pages for error replies, in file order.
    pub error_pages: Vec<ErrorPages>,
    /// The shared response store.
    pub cache: CacheStore,
    /// Named sets of steps, in file order.
    pub filters: Vec<Filter>,
    /// Routes in file order; precedence is the router's.
    pub routes: Vec<Route>,
    /// Findings that do not stop a start (a route that can never match).
    pub warnings: Vec<crate::Diagnostic>,
    /// First 64 bits of SHA-256 over every file read, in order read.
    pub hash: u64,
}

/// Index into [`Config::upstreams`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct UpstreamId(pub usize);
/// Index into [`Config::listeners`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ListenerId(pub usize);
/// Index into [`Config::statics`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StaticId(pub usize);
/// Index into [`Config::filters`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FilterId(pub usize);

/// `[server]`
#[derive(Debug, Clone)]
pub struct Server {
    /// Event loops, one thread each; default one per core.
    pub workers: NonZeroUsize,
    /// Account to change to once every listener is bound (needs root).
    pub user: Option<String>,
    /// How long a drain waits for requests in flight.
    pub shutdown_timeout: Duration,
    /// How long a process that is to take over may need until it is ready.
    pub upgrade_timeout: Duration,
    /// Peers whose `X-Forwarded-For` is believed; default nobody.
    pub trusted_proxies: Vec<IpNet>,
    /// Where this process runs: upstreams prefer endpoints of the same zone.
    pub zone: Option<String>,
    /// Whether `//` in a path becomes `/` before matching; default true.
    pub merge_slashes: bool,
    /// Whether plain requests take the short way; default true.
    pub lane: bool,
    /// Pages for error replies outside of all routes; routes that say nothing have them, too.
    pub error_pages: Option<ErrorPagesId>,
    /// How the site is closed for a while.
    pub maintenance: Option<Maintenance>,
}

/// `[admin]`
#[derive(Debug, Clone)]
pub struct Admin {
    /// Where it listens.
    pub address: AdminAddress,
    /// Bearer token wanted for whatever changes state. Without one such calls are refused.
    pub token: Option<Secret>,
}

/// A TCP address or a Unix socket path (`unix:/run/tidegate/admin.sock`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminAddress {
    /// TCP.
    Tcp(SocketAddr),
    /// Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for AdminAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A value that never reaches a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps the value.
    #[must_use]
    pub fn new(value: String) -> Self {
        Self(value)
    }
    /// The value itself, for the one comparison it is meant for.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

/// `[log]`
#[derive(Debug, Clone)]
pub struct Log {
    /// The least severe level that is written.
    pub level: LogLevel,
    /// How events are written to standard error.
    pub format: LogFormat,
    /// The access log; `None`: none is written.
    pub access: Option<AccessLog>,
}

/// Severity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// Event format on standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `[log] access = { path, format }`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessLog {
    /// File appended to; reopened on SIGUSR1. `-` is standard output.
    pub path: PathBuf,
    /// Line format.
    pub format: AccessFormat,
}

/// Access log line format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessFormat {
    /// One JSON object a line.
    Json,
    /// NCSA combined, as nginx and Apache write it.
    Combined,
}

/// Limits in force on one listener (`[limits]`, overridden by the listener's own).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The whole request head, from its first byte; else 408.
    pub header_timeout: Duration,
    /// Between two reads of a request body, and between two writes of a reply.
    pub body_timeout: Duration,
    /// A whole request body, from the end of its head; else 408.
    pub request_timeout: Duration,
    /// Bytes a second that a client must send of a body, and take of what waits for it; `None`: any.
    pub min_rate: Option<NonZeroU64>,
    /// Over how long that is averaged.
    pub min_rate_grace: Duration,
    /// A keep-alive connection without a request.
    pub idle_timeout: Duration,
    /// Bytes of the request line and fields; else 431.
    pub max_header_size: usize,
    /// Fields of a request, all cookies together being one; else 431.
    pub max_headers: usize,
    /// Bytes of a request body; else 413.
    pub max_body_size: u64,
    /// Open connections on the listener.
    pub max_connections: usize,
    /// Open connections from one address.
    pub max_connections_per_ip: usize,
    /// New connections a second from one address; `None`: any.
    pub max_connection_rate_per_ip: Option<NonZeroU64>,
    /// TLS handshakes a second from one address; `None`: any.
    pub max_handshake_rate_per_ip: Option<NonZeroU64>,
    /// Requests on one connection before it is closed.
    pub max_requests_per_connection: NonZeroU32,
    /// Concurrent HTTP/2 streams on one connection.
    pub max_concurrent_streams: NonZeroU32,
    /// HTTP/2 control frames a second beyond what useful ones earn; `None`: any.
    pub max_control_frame_rate: Option<NonZeroU64>,
}

/// `[[listener]]`
#[derive(Debug, Clone)]
pub struct Listener {
    /// Unique; default the address. Labels metrics.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Whether TLS is terminated here.
    pub tls: bool,
    /// How TLS is spoken here, if it is.
    pub tls_options: TlsOptions,
    /// HTTP/1.1 is spoken.
    pub h1: bool,
    /// HTTP/2 is spoken (by ALPN with TLS, by prior knowledge without).
    pub h2: bool,
    /// HTTP/3 is spoken, on the UDP port of the same number; needs `tls`.
    pub h3: Option<Http3>,
    /// Limits in force here.
    pub limits: Limits,
    /// Networks whose connections begin with a PROXY header; none by default.
    pub proxy_protocol: Vec<IpNet>,
    /// Whether its requests are written to the access log (`access_log = false`); default true.
    pub access_log: bool,
    /// Connections that are passed on as they are.
    pub forward: Option<Forward>,
}

/// How a listener speaks HTTP/3 (RFC 9114).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http3 {
    /// What replies over TCP say of it (Alt-Svc, RFC 7838); `None`: nothing.
    pub alt_svc: Option<HeaderValue>,
    /// Whether safe requests are served from TLS early data (RFC 8470).
    pub early_data: bool,
    /// Handshakes under way beyond which a client must first prove its address (RFC 9000 section
    /// 8.1.2); 0: always.
    pub retry_above: usize,
}

/// `[static.NAME]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticSite {
    /// Its name in the file.
    pub name: String,
    /// Directory; exists when the file is loaded.
    pub root: PathBuf,
    /// File names tried for a directory.
    pub index: Vec<String>,
    /// Whether a directory without an index is shown.
    pub listing: bool,
    /// File (relative to the root) served with 200 where nothing else is found (single-page applications).
    pub fallback: Option<String>,
    /// Encodings looked for beside a file, in order of preference at equal q.
    pub precompressed: Vec<Precompressed>,
    /// `Cache-Control` sent with files that may change under their name.
    pub cache_control: HeaderValue,
    /// Files that never change under their name; `None`: there are none.
    pub immutable: Option<ImmutableFiles>,
    /// Where files are that the root lacks.
    pub releases: Option<Releases>,
    /// Which smaller forms of pictures are made.
    pub images: Option<Images>,
    /// Whether files are dictionaries for their other releases, and differences are sent.
    pub dictionaries: bool,
    /// Bytes of file content kept in memory.
    pub memory: u64,
    /// Files up to this size are kept in memory.
    pub max_memory_file: u64,
}

/// Files that never change under their name: those with a fingerprint in it, and more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImmutableFiles {
    /// Patterns of paths below the root; `*` goes past slashes.
    pub paths: Vec<glob::Pattern>,
    /// `Cache-Control` sent with them.
    pub cache_control: HeaderValue,
}

/// Older releases of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Releases {
    /// How many, beside the current one.
    pub keep: NonZeroU32,
    /// The directory that holds them; `None`: the one that holds what the root leads to.
    pub folder: Option<PathBuf>,
}

/// Smaller forms of pictures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Images {
    /// Formats, in order of preference.
    pub formats: Vec<ImageFormat>,
    /// Widths in pixels, rising.
    pub widths: Vec<NonZeroU32>,
    /// The directory they are kept in; that of one site is a directory of its name in it.
    pub cache: PathBuf,
    /// Bytes of it at the most, for one site.
    pub size: u64,
    /// 1 to 100.
    pub quality: u8,
    /// Threads; `None`: half of the processors.
    pub workers: Option<NonZeroU32>,
    /// Larger pictures are served as they are.
    pub max_megapixels: NonZeroU32,
}

/// A format that pictures are made in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageFormat {
    /// `image/avif`
    Avif,
    /// `image/webp`
    WebP,
}

/// A precompressed sibling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precompressed {
    /// `.br`
    Brotli,
    /// `.zst`
    Zstd,
    /// `.gz`
    Gzip,
}

/// `[[route]]`
#[derive(Debug, Clone)]
pub struct Route {
    /// Unique; default `route-N` (1-based place in the file). Labels metrics.
    pub name: String,
    /// What it matches; all of it must.
    pub matcher: Match,
    /// Filters before the action, in order.
    pub filters: Vec<FilterId>,
    /// What is done.
    pub action: Action,
    /// Whether and how responses are cached; only with [`Action::Upstream`].
    pub cache: Option<RouteCache>,
    /// Pages for its error replies, its own or those of `[server]`.
    pub error_pages: Option<ErrorPagesId>,
    /// What browsers are told before the app is asked; only with [`Action::Upstream`].
    pub early_hints: Option<EarlyHints>,
    /// Whether it is closed with the site.
    pub maintenance: bool,
    /// Overrides the listener's.
    pub max_body_size: Option<u64>,
    /// When its requests are given up.
    pub priority: Priority,
    /// Whether a request whose method is not idempotent may be sent again.
    pub retry_non_idempotent: bool,
    /// Whether gRPC-Web is turned into gRPC; only with [`Action::Upstream`].
    pub grpc_web: bool,
}

/// `match = { ... }`; an empty one matches everything.
#[derive(Debug, Clone, Default)]
pub struct Match {
    /// `listener = "http"` or `["http", "internal"]`: the request came in on one of these
    /// listeners, by name; empty: on any. Routes that name the listener come before all that
    /// name none.
    pub listeners: Vec<ListenerId>,
    /// Any of these; empty: every host.
    pub hosts: Vec<HostPattern>,
    /// The path.
    pub path: PathPattern,
    /// Any of these; empty: every method. GET includes HEAD only when listed.
    pub methods: Vec<Method>,
    /// All of these.
    pub headers: Vec<FieldMatch<HeaderName>>,
    /// All of these.
    pub query: Vec<FieldMatch<String>>,
}

/// `forward` of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// Where connections go that no name covers.
    pub upstream: Option<UpstreamId>,
    /// Where those go whose clients ask for these names.
    pub names: Vec<(HostPattern, UpstreamId)>,
    /// A connection on which nothing moves for so long is closed.
    pub idle_timeout: Duration,
}

/// Host names are lower-case, without port or trailing dot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// `shop.example`
    Exact(String),
    /// `*.shop.example`, stored as `.shop.example`: one or more labels in front.
    Suffix(String),
}

/// Against the normalised path.
#[derive(Debug, Clone, Default)]
pub enum PathPattern {
    /// Every path.
    #[default]
    Any,
    /// This path.
    Exact(String),
    /// On segment boundaries: `/catalog` matches `/catalog` and `/catalog/x`, not `/catalogue`.
    Prefix(String),
    /// Anchored at neither end unless it says so.
    Regex(Regex),
}

/// A header or query parameter that must be there, or have a value.
#[derive(Debug, Clone)]
pub struct FieldMatch<N> {
    /// Name.
    pub name: N,
    /// What its value must be.
    pub value: ValueMatch,
}

/// A condition on a value.
#[derive(Debug, Clone)]
pub enum ValueMatch {
    /// `true` in the file: it is there.
    Present,
    /// `false` in the file: it is not there.
    Absent,
    /// A string in the file: exactly this.
    Exact(String),
    /// `{ regex = "..." }`
    Regex(Regex),
}

/// What a route does.
#[derive(Debug, Clone)]
pub enum Action {
    /// Proxied.
    Upstream(UpstreamId),
    /// A file.
    Static {
        /// From where.
        site: StaticId,
        /// Taken off the path before the look-up; default the route's `path_prefix` is kept.
        strip_prefix: Option<String>,
    },
    /// Another location.
    Redirect(Redirect),
    /// A fixed reply.
    Respond(Respond),
}

/// `redirect = { to = "https://{host}{path}{query}", status = 308 }`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// The location, in parts.
    pub to: Vec<TemplatePart>,
    /// 301, 302, 303, 307 or 308.
    pub status: StatusCode,
}

/// A piece of a redirect target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TemplatePart {
    /// As it stands.
    Text(String),
    /// `{host}`: the request's host without port.
    Host,
    /// `{path}`: the normalised path.
    Path,
    /// `{query}`: `?` and the query, or nothing.
    Query,
    /// `{scheme}`: `http` or `https`.
    Scheme,
}

/// `respond = { status = 200, body = "ok", content_type = "text/plain" }`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Respond {
    /// Status (200 to 599).
    pub status: StatusCode,
    /// Body; empty for 204 and 304.
    pub body: String,
    /// Media type; default `text/plain; charset=utf-8`.
    pub content_type: HeaderValue,
}

/// `[filter.NAME]`: its steps run in the order of these fields.
#[derive(Debug, Clone)]
pub struct Filter {
    /// Its name in the file.
    pub name: String,
    /// Addresses let in; empty: all that are not denied. The longest network decides.
    pub allow: Vec<IpNet>,
    /// Addresses refused with 403.
    pub deny: Vec<IpNet>,
    /// Changes the path (and query) sent upstream or looked up.
    pub rewrite: Option<Rewrite>,
    /// Ends the request with a redirect.
    pub redirect: Option<Redirect>,
    /// Ends the request with a fixed reply.
    pub respond: Option<Respond>,
    /// Changes request fields.
    pub request_headers: HeaderOps,
    /// Changes response fields.
    pub response_headers: HeaderOps,
}

/// `rewrite = { prefix = "/old", to = "/new" }` or `{ regex = "^/p/(\\d+)$", to = "/product?id=$1" }`
#[derive(Debug, Clone)]
pub enum Rewrite {
    /// On segment boundaries.
    Prefix {
        /// Taken off.
        prefix: String,
        /// Put in its place.
        to: String,
    },
    /// All captures can be used as `$1` or `${name}`.
    Regex {
        /// Against the normalised path.
        regex: Regex,
        /// Replacement of the whole path; may carry a query.
        to: String,
    },
}

/// Applied in the order remove, set, add.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderOps {
    /// Taken out.
    pub remove: Vec<HeaderName>,
    /// Replaced or added.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Added beside what is there.
    pub add: Vec<(HeaderName, HeaderValue)>,
}

impl HeaderOps {
    /// Whether nothing is changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }
}
