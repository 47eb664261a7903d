//! How an endpoint stands, for the admin interface and the metrics.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::settings::Mode;

/// Whether an endpoint is in service and, if not, why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Health {
    /// In service.
    Healthy,
    /// Out of service because checks fail, or have not passed yet.
    Unhealthy,
    /// Out of service for a while because requests failed or took too long.
    Ejected,
    /// Drained by an operator: it finishes what it has.
    Drained,
    /// Taken down by an operator.
    Down,
}

impl Health {
    /// Every value, for metrics that show one series for each.
    pub const ALL: [Self; 5] = [
        Self::Healthy,
        Self::Unhealthy,
        Self::Ejected,
        Self::Drained,
        Self::Down,
    ];

    /// The word for the admin interface, logs and metric labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::Ejected => "ejected",
            Self::Drained => "drained",
            Self::Down => "down",
        }
    }
}

/// One endpoint at one moment. The parts are read one after the other, not in one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointStatus<'a> {
    /// Its identity, the text of its address.
    pub id: &'a str,
    /// What the configuration calls it.
    pub name: &'a str,
    /// Its weight.
    pub weight: NonZeroU32,
    /// Lower ones are preferred.
    pub priority: u8,
    /// Whether it comes after every priority.
    pub backup: bool,
    /// Where it is.
    pub zone: Option<&'a str>,
    /// What an operator has set by hand.
    pub mode: Mode,
    /// In service or why not: first by the operator, then by checks, then by ejection.
    pub health: Health,
    /// How much longer it stays ejected, if it is.
    pub ejected_for: Option<Duration>,
    /// How often it has been ejected since it is known.
    pub ejections: u32,
    /// How long ago it last left service or came back; `None` if it was in service ever since it
    /// was added.
    pub since_transition: Option<Duration>,
    /// Requests under way.
    pub active: u32,
    /// Of those, the ones that wait for a connection.
    pub pending: u32,
    /// How many may be under way at once: the configured limit, or the one found from latency if
    /// that is lower.
    pub limit: Option<u32>,
    /// What a request to it takes until the first byte: the average that peak_ewma goes by, in which
    /// a slow request weighs at once. `None` before the first answer.
    pub latency: Option<Duration>,
    /// Requests within the window of outlier detection; 0 without it.
    pub requests: u64,
    /// Failed ones among them.
    pub errors: u64,
    /// Failed requests since the last success, return or ejection.
    pub consecutive_errors: u32,
    /// Failed checks since the last passed one, including requests that counted as such.
    pub consecutive_failed_checks: u32,
    /// How much of its weight counts, in percent: below 100 during slow start.
    pub slow_start_percent: u8,
}

/// A pool in a few numbers, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// How many endpoints there are.
    pub endpoints: usize,
    /// How many of them are in service.
    pub in_service: usize,
    /// Requests under way at them.
    pub active: u32,
    /// Whether health is ignored because too few are in service.
    pub panic: bool,
    /// How many retries the budget would allow now; `None` without a budget.
    pub retries_left: Option<u32>,
}
