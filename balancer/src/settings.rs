//! What a pool is made from: plain values, already validated by whoever read the configuration.
//!
//! Nothing here has a default: defaults belong to the configuration, where they are documented for
//! users.

use std::num::NonZeroU32;
use std::time::Duration;

/// Everything about one upstream that choosing an endpoint depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolSettings {
    /// The endpoints in the order of the configuration. Ids are expected to differ: of several
    /// endpoints with one id only the first takes over the state of the previous pool. An empty
    /// list is allowed; such a pool has nobody to offer.
    pub endpoints: Vec<EndpointSettings>,
    /// How an endpoint is chosen among those in service.
    pub balance: Balance,
    /// Where this program runs. Endpoints of this zone are preferred, if there are any.
    pub own_zone: Option<String>,
    /// The percentage of a priority's weight that has to be in service for it to get every
    /// request. Below it, a part goes on to the next priority. 0: the next one is used only when
    /// nobody of this one is in service.
    pub overflow_below: u8,
    /// The same between the own zone and the others of one priority.
    pub zone_overflow_below: u8,
    /// The percentage of a priority's weight below which, if no priority reaches it, health and
    /// ejections are ignored. 0: never.
    pub panic_threshold: u8,
    /// Set if the endpoints are probed. Without it every endpoint counts as healthy.
    pub active_checks: Option<Checks>,
    /// Set if the outcomes of requests may eject an endpoint for a while.
    pub outlier: Option<OutlierSettings>,
    /// How many requests may be under way.
    pub limits: Limits,
    /// Set if a limit for each endpoint is found from its latency.
    pub adaptive: Option<AdaptiveSettings>,
    /// How long an endpoint that comes back, or is new to the pool, takes to get its full share.
    /// Zero: it has it at once.
    pub slow_start: Duration,
    /// How many retries there may be for a hundred first attempts, besides a small reserve. `None`:
    /// as many as the caller likes.
    pub retry_budget: Option<u8>,
}

/// One endpoint as configured or discovered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSettings {
    /// Its identity, the text of its address: "10.0.0.1:80", "unix:/run/app.sock". State is carried
    /// over by it, and consistent hashing places the endpoint by it.
    pub id: String,
    /// What the configuration calls it, for logs, metrics and the admin interface.
    pub name: String,
    /// Its share relative to the other endpoints. Only ratios matter.
    pub weight: NonZeroU32,
    /// Lower ones are preferred; 0 is the first.
    pub priority: u8,
    /// A backup comes after every priority.
    pub backup: bool,
    /// Where it is, for [`PoolSettings::own_zone`].
    pub zone: Option<String>,
    /// What an operator has set by hand.
    pub mode: Mode,
}

/// Whether an endpoint may be used at all, as set by an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// It may.
    Enabled,
    /// It finishes what it has and gets nothing new.
    Drain,
    /// It gets nothing; the caller may end what it has.
    Down,
}

impl Mode {
    /// The word for the admin interface.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enabled => "enabled",
            Self::Drain => "drain",
            Self::Down => "down",
        }
    }
}

/// How an endpoint is chosen among those in service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    /// In turn, smoothly interleaved by weight.
    RoundRobin,
    /// At random by weight, without memory.
    Random,
    /// The least busy (active requests over weight) of some endpoints drawn at random.
    LeastRequest {
        /// How many are drawn: 2 to 10. More look further and agree more with each other.
        choices: NonZeroU32,
    },
    /// Of two endpoints drawn at random, the one with the lower product of latency and load.
    PeakEwma,
    /// By the key of the request, so that one key stays with one endpoint and few keys move when
    /// endpoints come and go.
    Hash {
        /// How keys are laid out over endpoints.
        table: HashTable,
        /// The most that an endpoint may be loaded, in percent of its share of the requests under
        /// way; above 100. Keys of an endpoint that is fuller go to the next one. `None`: no bound.
        max_load: Option<u32>,
    },
}

impl Balance {
    /// The configuration's word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RoundRobin => "round_robin",
            Self::Random => "random",
            Self::LeastRequest { .. } => "least_request",
            Self::PeakEwma => "peak_ewma",
            Self::Hash { .. } => "hash",
        }
    }
}

/// How consistent hashing lays keys out over endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HashTable {
    /// Every endpoint bids for a slot of keys; fewest moves.
    Rendezvous,
    /// Points on a ring; the usual one.
    Ketama,
    /// A table filled in turn; the most even one.
    Maglev,
}

impl HashTable {
    /// Every value.
    pub const ALL: [Self; 3] = [Self::Rendezvous, Self::Ketama, Self::Maglev];

    /// The configuration's word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rendezvous => "rendezvous",
            Self::Ketama => "ketama",
            Self::Maglev => "maglev",
        }
    }
}

/// How checks change the mind about an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checks {
    /// Failed checks in a row after which a healthy endpoint is unhealthy.
    pub unhealthy_after: NonZeroU32,
    /// Passed checks in a row after which an unhealthy endpoint is healthy again.
    pub healthy_after: NonZeroU32,
    /// Whether an endpoint that nothing is known of serves until a check says otherwise, or waits
    /// until checks have passed.
    pub start_healthy: bool,
}

/// When the outcomes of requests eject an endpoint, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutlierSettings {
    /// Failed requests in a row after which an endpoint is ejected.
    pub consecutive_errors: NonZeroU32,
    /// The percentage of failed requests in [`window`](Self::window) from which on an endpoint is
    /// ejected. `None`: the rate does not matter.
    pub error_rate: Option<u8>,
    /// How many times the median of the others an endpoint's mean latency in the window may be.
    /// `None`: latency does not matter.
    pub latency_factor: Option<NonZeroU32>,
    /// How far back error rate and mean latency look.
    pub window: Duration,
    /// Fewer requests than this in the window say nothing about rate or latency.
    pub min_requests: NonZeroU32,
    /// How long the first ejection lasts. Repeated ones last a multiple of it.
    pub ejection_time: Duration,
    /// How many endpoints of the pool, in percent and rounded down, may be ejected at the same
    /// time. Any value above zero allows at least one. Values above 100 mean 100.
    pub max_ejected_percent: u8,
}

/// How many requests may be under way at the same time. `None` means no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// At one endpoint.
    pub endpoint_requests: Option<NonZeroU32>,
    /// At one endpoint, of those that wait for a connection.
    pub endpoint_pending: Option<NonZeroU32>,
    /// In the whole pool.
    pub total_requests: Option<NonZeroU32>,
}

/// The range in which the limit of an endpoint is sought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdaptiveSettings {
    /// The limit never falls below this many requests.
    pub min: NonZeroU32,
    /// The limit never rises above this many requests.
    pub max: NonZeroU32,
}
