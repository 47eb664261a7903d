//! What a pool is made from: plain values, already validated by whoever read the configuration.
//!
//! Nothing here has a default: defaults belong to the configuration, where they are documented for
//! users.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;

/// Everything about one upstream that choosing an endpoint depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolSettings {
    /// The endpoints in the order of the configuration. Addresses are expected to differ: of
    /// several endpoints with one address only the first takes over the state of the previous pool.
    /// An empty list is allowed; such a pool has nobody to offer.
    pub endpoints: Vec<EndpointSettings>,
    /// How an endpoint is chosen among those in service.
    pub balance: Balance,
    /// Set if the endpoints are probed. Without it every endpoint counts as healthy.
    pub active_checks: Option<Thresholds>,
    /// Set if the outcomes of requests may eject an endpoint for a while.
    pub outlier: Option<OutlierSettings>,
}

/// One endpoint as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSettings {
    /// Where it listens. This is its identity: state is carried across reloads by address, and
    /// consistent hashing places it by address.
    pub address: SocketAddr,
    /// What the configuration calls it, for logs, metrics and the admin interface.
    pub name: String,
    /// Its share relative to the other endpoints. Only ratios matter.
    pub weight: NonZeroU32,
    /// A backup gets requests only while no primary endpoint can.
    pub backup: bool,
}

/// How an endpoint is chosen among those in service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    /// In turn, smoothly interleaved by weight.
    RoundRobin,
    /// At random by weight, without memory.
    Random,
    /// The less busy (active requests over weight) of two endpoints drawn at random.
    LeastRequest,
    /// By the key of the request, so that one key stays with one endpoint and as few keys as
    /// possible move when endpoints come and go.
    Hash,
}

impl Balance {
    /// The configuration's word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RoundRobin => "round_robin",
            Self::Random => "random",
            Self::LeastRequest => "least_request",
            Self::Hash => "hash",
        }
    }
}

/// How many checks in a row change the mind about an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Failed checks in a row after which a healthy endpoint is unhealthy.
    pub unhealthy_after: NonZeroU32,
    /// Passed checks in a row after which an unhealthy endpoint is healthy again.
    pub healthy_after: NonZeroU32,
}

/// When the outcomes of requests eject an endpoint, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutlierSettings {
    /// Failed requests in a row after which an endpoint is ejected.
    pub consecutive_errors: NonZeroU32,
    /// How long the first ejection lasts. Repeated ones last a multiple of it.
    pub ejection_time: Duration,
    /// How many endpoints of the pool, in percent and rounded down, may be ejected at the same
    /// time. Any value above zero allows at least one. Values above 100 mean 100.
    pub max_ejected_percent: u8,
}
