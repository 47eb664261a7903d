//! Groups of app servers: their endpoints, how one is chosen and reached, and when one is left out.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, StatusCode};
use regex::bytes::Regex;

use super::{Certificate, Secret};

/// `[upstream.NAME]`
#[derive(Debug, Clone, PartialEq)]
pub struct Upstream {
    /// Its name in the file; labels metrics.
    pub name: String,
    /// In file order, not all of them backups. Empty only where `discovery` is set.
    pub endpoints: Vec<Endpoint>,
    /// Where further endpoints are read from while the edge runs.
    pub discovery: Option<Discovery>,
    /// How names among the endpoints are looked up, again and again.
    pub resolve: Resolve,
    /// How one is picked.
    pub balance: Balance,
    /// Keeps a client on its endpoint by a cookie.
    pub sticky: Option<Sticky>,
    /// Percentage of a priority's weight in service below which the next one takes a share; 0: only
    /// when none is left.
    pub overflow_below: u8,
    /// The same for the own zone, towards the others.
    pub zone_overflow_below: u8,
    /// Percentage of all weight in service below which health is ignored; 0: never.
    pub panic_threshold: u8,
    /// What is spoken to it.
    pub protocol: UpstreamProtocol,
    /// Streams on one HTTP/2 connection.
    pub max_concurrent_streams: NonZeroU32,
    /// TLS towards it; `None`: plain.
    pub tls: Option<UpstreamTls>,
    /// Header that tells the client's address in front of each connection.
    pub proxy_protocol: Option<ProxyVersion>,
    /// TCP (and TLS) connect.
    pub connect_timeout: Duration,
    /// From the request sent, its body included, to the first byte of the reply, further attempts included.
    pub first_byte_timeout: Duration,
    /// Between two reads of a reply.
    pub read_timeout: Duration,
    /// Idle connections kept.
    pub keepalive: Keepalive,
    /// How much it takes at once.
    pub limits: UpstreamLimits,
    /// Where requests wait when it takes no more; `None`: they are refused at once.
    pub queue: Option<Queue>,
    /// Limits requests at each endpoint by its latency.
    pub adaptive_concurrency: Option<AdaptiveConcurrency>,
    /// Active checks; `None`: endpoints are taken for healthy.
    pub health_check: Option<HealthCheck>,
    /// Passive ejection after errors on real requests; `None` when `outlier_detection = false`.
    pub outlier_detection: Option<OutlierDetection>,
    /// How long the share of an endpoint that returns or is added grows; zero: not at all.
    pub slow_start: Duration,
    /// Further attempts for a request.
    pub retry: Retry,
    /// A second attempt beside one that is late.
    pub hedge: Option<Hedge>,
}

/// One app node, or a name that stands for some.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Where it is.
    pub address: EndpointAddress,
    /// Share of requests relative to others (1 to 1000).
    pub weight: NonZeroU32,
    /// Lower ones are used first (0 to 9).
    pub priority: u8,
    /// Used only while no other is available.
    pub backup: bool,
    /// Where it stands, to be compared with `[server] zone`.
    pub zone: Option<String>,
}

/// An address given outright, or a name looked up while the edge runs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum EndpointAddress {
    /// `10.0.0.11:8080`, `[::1]:8080`
    Ip(SocketAddr),
    /// `app.internal:8080`: A and AAAA records.
    Name {
        /// Lower-case host name.
        host: String,
        /// Port.
        port: u16,
    },
    /// `{ srv = "_http._tcp.app.internal" }`: SRV records (RFC 2782); priority and weight come from them.
    Srv(String),
    /// `unix:/run/app.sock`
    Unix(PathBuf),
}

impl fmt::Display for EndpointAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
            Self::Srv(name) => f.write_str(name),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// `discovery = { file = "..." }` or `{ url = "..." }`
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Discovery {
    /// A TOML or JSON file (by its extension) that is watched.
    File(PathBuf),
    /// A JSON list that is polled.
    Http {
        /// `http://` or `https://`, with host, port and path.
        url: String,
        /// Between two polls.
        every: Duration,
        /// A poll that takes longer has failed.
        timeout: Duration,
    },
}

/// `resolve = { servers, every, family }`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolve {
    /// DNS servers; empty: the system's.
    pub servers: Vec<SocketAddr>,
    /// Longest time between two look-ups; a record's TTL may make it shorter.
    pub every: Duration,
    /// Which addresses are taken.
    pub family: Family,
}

/// Which addresses of a name are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Both where each has one (the faster one wins), else the one that can be reached from here.
    Auto,
    /// A records only.
    Ipv4,
    /// AAAA records only.
    Ipv6,
}

/// `sticky = { cookie, ttl, secret }`
#[derive(Debug, Clone, PartialEq)]
pub struct Sticky {
    /// Name of the cookie.
    pub cookie: String,
    /// How long it is good for; `None`: the browser's session.
    pub ttl: Option<Duration>,
    /// What it is encrypted with; `None`: a random key that lives as long as the process.
    pub secret: Option<Secret>,
}

/// PROXY protocol towards an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyVersion {
    /// Text.
    V1,
    /// Binary.
    V2,
}

/// What an upstream takes at once; `None`: no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UpstreamLimits {
    /// Connections to each endpoint.
    pub max_connections: Option<NonZeroU32>,
    /// Requests under way at each endpoint.
    pub max_requests: Option<NonZeroU32>,
    /// Requests that wait for a connection to each endpoint.
    pub max_pending: Option<NonZeroU32>,
    /// Connections to all endpoints.
    pub max_total_connections: Option<NonZeroU32>,
    /// Requests under way at all endpoints.
    pub max_total_requests: Option<NonZeroU32>,
}

/// `queue = { size, timeout }`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queue {
    /// Requests that wait at once.
    pub size: NonZeroU32,
    /// Then 503.
    pub timeout: Duration,
}

/// `adaptive_concurrency = { min, max }`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdaptiveConcurrency {
    /// The limit never falls below.
    pub min: NonZeroU32,
    /// Nor rises above.
    pub max: NonZeroU32,
}

/// `retry = { ... }`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// Attempts for one request, the first included.
    pub attempts: NonZeroU32,
    /// No connection came about.
    pub on_connect_failure: bool,
    /// The connection broke before the reply's head was there.
    pub on_reset: bool,
    /// The reply did not begin within `per_try_timeout`.
    pub on_timeout: bool,
    /// These statuses.
    pub on_statuses: Vec<StatusCode>,
    /// Percentage of requests that may be sent again; those that cannot have been read are free.
    pub budget: u8,
    /// How long one attempt may take to the first byte; `None`: `first_byte_timeout`.
    pub per_try_timeout: Option<Duration>,
    /// Bytes of a request's body kept to be sent again.
    pub max_body_size: u64,
}

/// `hedge = { percentile, min_delay }`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hedge {
    /// Of the time to the first byte, after which the second attempt begins (50 to 99).
    pub percentile: u8,
    /// But not before.
    pub min_delay: Duration,
}

/// How an endpoint is picked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Balance {
    /// Smooth weighted round robin.
    RoundRobin,
    /// Weighted random.
    Random,
    /// Fewest active requests of some random choices.
    LeastRequest {
        /// How many are compared (2 to 10).
        choices: NonZeroU32,
    },
    /// Lowest latency times active requests of two random choices.
    PeakEwma,
    /// Consistent hashing on something of the request.
    Hash {
        /// What is hashed.
        key: HashKey,
        /// How keys are spread.
        table: HashTable,
        /// Percentage (above 100) of the mean load that an endpoint may have; `None`: any.
        max_load: Option<u32>,
    },
}

/// How keys are spread over endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashTable {
    /// Rendezvous hashing: the fewest keys move.
    Rendezvous,
    /// A ring with many points for each endpoint.
    Ketama,
    /// Google's table: the most even.
    Maglev,
}

/// What is hashed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashKey {
    /// The client's address.
    ClientIp,
    /// The path as routes see it, without query.
    Path,
    /// A request header.
    Header(HeaderName),
    /// A cookie.
    Cookie(String),
    /// A parameter of the query.
    Query(String),
}

/// Protocol towards an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamProtocol {
    /// HTTP/1.1.
    H1,
    /// HTTP/2 (prior knowledge on plain connections).
    H2,
}

/// TLS towards an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamTls {
    /// Trust anchors; `None`: the system's.
    pub ca: Option<PathBuf>,
    /// Name sent and verified. Mandatory: an empty one would switch verification off.
    pub server_name: String,
    /// Whether the certificate is verified; default true.
    pub verify: bool,
    /// Client certificate (PEM, the chain) and its key.
    pub certificate: Option<Certificate>,
}

/// `keepalive = { max_idle, idle_timeout }`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keepalive {
    /// Idle connections kept for each endpoint, by each worker.
    pub max_idle: usize,
    /// After which an idle one is closed.
    pub idle_timeout: Duration,
    /// Age after which one is not used again; `None`: any.
    pub max_age: Option<Duration>,
}

/// `health_check = { ... }`
#[derive(Debug, Clone, PartialEq)]
pub struct HealthCheck {
    /// What is done.
    pub kind: HealthCheckKind,
    /// Between two checks of one endpoint.
    pub interval: Duration,
    /// The same while it is out.
    pub down_interval: Duration,
    /// A check that takes longer has failed.
    pub timeout: Duration,
    /// Failures in a row until it is out.
    pub unhealthy_after: NonZeroU32,
    /// Successes in a row until it is back.
    pub healthy_after: NonZeroU32,
    /// Whether an endpoint that was not checked yet is taken for healthy.
    pub start_healthy: bool,
}

/// What a check does.
#[derive(Debug, Clone, PartialEq)]
pub enum HealthCheckKind {
    /// A connection is made and closed.
    Tcp,
    /// A TLS handshake is made, and the certificate verified as for requests.
    Tls,
    /// A request whose status (and body) must be the expected ones.
    Http(HttpCheck),
    /// The gRPC health protocol (`grpc.health.v1.Health/Check`) over HTTP/2.
    Grpc {
        /// The service asked about; empty: the whole server.
        service: String,
    },
}

/// A check of type `http`.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpCheck {
    /// GET unless said otherwise.
    pub method: Method,
    /// Origin-form target.
    pub path: String,
    /// Host field; default the upstream's server name or the endpoint's address.
    pub host: Option<String>,
    /// Further fields.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Statuses taken for healthy; empty: any 2xx.
    pub statuses: Vec<StatusCode>,
    /// What the body (its first 64 KiB) must contain.
    pub body: Option<BodyPattern>,
}

/// `outlier_detection = { ... }`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutlierDetection {
    /// Connect failures, resets, timeouts and 5xx in a row until ejected.
    pub consecutive_errors: NonZeroU32,
    /// Percentage of requests in the window that fail until ejected; `None`: not looked at.
    pub error_rate: Option<u8>,
    /// Times the others' median latency until ejected; `None`: not looked at.
    pub latency_factor: Option<NonZeroU32>,
    /// What `error_rate` and `latency_factor` look back on.
    pub window: Duration,
    /// Requests in the window without which neither decides.
    pub min_requests: NonZeroU32,
    /// How long it stays out.
    pub ejection_time: Duration,
    /// Percentage (0 to 100) of the endpoints that may be out at once; at least one may.
    pub max_ejected: u8,
}

/// A regular expression over bytes; equal if written alike.
#[derive(Debug, Clone)]
pub struct BodyPattern(pub Regex);

impl PartialEq for BodyPattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}
