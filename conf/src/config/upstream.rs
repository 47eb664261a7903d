//! Groups of app servers: their endpoints, how one is chosen and reached, and when one is left out.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, StatusCode};

/// `[upstream.NAME]`
#[derive(Debug, Clone, PartialEq)]
pub struct Upstream {
    /// Its name in the file; labels metrics.
    pub name: String,
    /// At least one, not all of them backups.
    pub endpoints: Vec<Endpoint>,
    /// How one is picked.
    pub balance: Balance,
    /// What is spoken to it.
    pub protocol: UpstreamProtocol,
    /// TLS towards it; `None`: plain.
    pub tls: Option<UpstreamTls>,
    /// TCP (and TLS) connect.
    pub connect_timeout: Duration,
    /// From the request sent to the first byte of the reply.
    pub first_byte_timeout: Duration,
    /// Between two reads of a reply.
    pub read_timeout: Duration,
    /// Idle connections kept.
    pub keepalive: Keepalive,
    /// Active checks; `None`: endpoints are taken for healthy.
    pub health_check: Option<HealthCheck>,
    /// Passive ejection after errors on real requests; `None` when `outlier_detection = false`.
    pub outlier_detection: Option<OutlierDetection>,
    /// Attempts for one request, the first included.
    pub retry_attempts: NonZeroU32,
}

/// One app node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Where it is.
    pub address: EndpointAddress,
    /// Share of requests relative to others (1 to 1000).
    pub weight: NonZeroU32,
    /// Used only while no other is available.
    pub backup: bool,
}

/// An address given outright, or a name looked up when the file is loaded.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum EndpointAddress {
    /// `10.0.0.11:8080`, `[::1]:8080`
    Ip(SocketAddr),
    /// `app.internal:8080`
    Name {
        /// Lower-case host name.
        host: String,
        /// Port.
        port: u16,
    },
}

impl fmt::Display for EndpointAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

/// How an endpoint is picked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Balance {
    /// Smooth weighted round robin.
    RoundRobin,
    /// Weighted random.
    Random,
    /// Fewer active requests of two random choices.
    LeastRequest,
    /// Consistent hashing on something of the request.
    Hash(HashKey),
}

/// What is hashed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashKey {
    /// The client's address.
    ClientIp,
    /// A request header.
    Header(HeaderName),
    /// A cookie.
    Cookie(String),
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
}

/// `keepalive = { max_idle, idle_timeout }`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keepalive {
    /// Idle connections kept for the whole upstream and worker.
    pub max_idle: usize,
    /// After which an idle one is closed.
    pub idle_timeout: Duration,
}

/// `health_check = { ... }`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// What is done.
    pub kind: HealthCheckKind,
    /// Between two checks of one endpoint.
    pub interval: Duration,
    /// A check that takes longer has failed.
    pub timeout: Duration,
    /// Failures in a row until it is out.
    pub unhealthy_after: NonZeroU32,
    /// Successes in a row until it is back.
    pub healthy_after: NonZeroU32,
}

/// What a check does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HealthCheckKind {
    /// A connection is made and closed.
    Tcp,
    /// A GET whose status must be the expected one.
    Http {
        /// Origin-form target.
        path: String,
        /// Host field; default the upstream's server name or the endpoint's address.
        host: Option<String>,
        /// Status taken for healthy; `None`: any 2xx.
        status: Option<StatusCode>,
    },
}

/// `outlier_detection = { consecutive_errors, ejection_time, max_ejected }`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutlierDetection {
    /// Connect failures, resets, timeouts and 5xx in a row until ejected.
    pub consecutive_errors: NonZeroU32,
    /// How long it stays out.
    pub ejection_time: Duration,
    /// Percentage (0 to 100) of the endpoints that may be out at once; at least one may.
    pub max_ejected: u8,
}
