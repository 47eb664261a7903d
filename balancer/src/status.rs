//! How an endpoint stands, for the admin interface and the metrics.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;

/// Whether an endpoint is in service and, if not, why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Health {
    /// In service.
    Healthy,
    /// Out of service because checks fail.
    Unhealthy,
    /// Out of service for a while because requests failed.
    Ejected,
}

impl Health {
    /// Every value, for metrics that show one series for each.
    pub const ALL: [Self; 3] = [Self::Healthy, Self::Unhealthy, Self::Ejected];

    /// The word for the admin interface, logs and metric labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::Ejected => "ejected",
        }
    }
}

/// One endpoint at one moment. The parts are read one after the other, not in one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointStatus<'a> {
    /// What the configuration calls it.
    pub name: &'a str,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its configured weight.
    pub weight: NonZeroU32,
    /// Whether it is a backup.
    pub backup: bool,
    /// In service or why not. An endpoint that is both unhealthy and ejected shows as unhealthy.
    pub health: Health,
    /// How much longer it stays ejected, if it is.
    pub ejected_for: Option<Duration>,
    /// How long ago it last left service or came back; `None` if it was in service ever since it
    /// was added.
    pub since_transition: Option<Duration>,
    /// Requests under way.
    pub active: u32,
    /// Failed requests since the last success, return or ejection.
    pub consecutive_errors: u32,
    /// Failed checks since the last passed one, including requests that counted as such.
    pub consecutive_failed_checks: u32,
}
