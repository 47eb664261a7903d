//! What requests report about an endpoint, and the changes that follow from it.
//!
//! A [`Transition`] carries the numbers behind a change and words for the log; it changes nothing
//! itself.

use std::fmt;
use std::time::Duration;

use crate::endpoint::EndpointIndex;

/// How a request to an endpoint went, seen from the proxy.
///
/// A pooled connection that the endpoint closed while it was idle says nothing about the endpoint:
/// do not record it. Nor does a client that went away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// A complete response with any status below 500.
    Success,
    /// No connection came about: refused, unreachable, TLS failed, or no answer within the connect
    /// timeout.
    ConnectFailed,
    /// The connection broke, or what came over it was no HTTP, before the response was complete.
    Reset,
    /// Connected, but the response or its next part did not come in time.
    Timeout,
    /// A response with a status from 500 to 599.
    Status5xx,
}

impl Outcome {
    /// The word for logs and metric labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::ConnectFailed => "connect_failure",
            Self::Reset => "reset",
            Self::Timeout => "timeout",
            Self::Status5xx => "status_5xx",
        }
    }

    /// Whether outlier detection counts it as an error.
    #[must_use]
    pub fn is_error(self) -> bool {
        match self {
            Self::Success => false,
            Self::ConnectFailed | Self::Reset | Self::Timeout | Self::Status5xx => true,
        }
    }
}

/// Who found out that an endpoint is unhealthy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Evidence {
    /// A health check.
    Check,
    /// A request that got no connection, which counts as a failed check.
    Request,
}

impl Evidence {
    /// The word for logs and metric labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Check => "check",
            Self::Request => "request",
        }
    }
}

/// What outlier detection holds against an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It failed every request for a while.
    Consecutive {
        /// Errors in a row.
        errors: u32,
        /// The last of them.
        last: Outcome,
    },
    /// It failed too many.
    ErrorRate {
        /// Failed requests in the window.
        errors: u64,
        /// All requests in the window.
        requests: u64,
        /// The window.
        window: Duration,
    },
    /// It took too long.
    Latency {
        /// Its mean latency in the window.
        mean: Duration,
        /// The median of the means of the other endpoints.
        median: Duration,
        /// How many times that it may take.
        factor: u32,
    },
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Consecutive { errors, last } => {
                let last = last.as_str();
                write!(f, "{errors} errors in a row, the last a {last}")
            }
            Self::ErrorRate {
                errors,
                requests,
                window,
            } => {
                write!(f, "{errors} of {requests} requests failed in {window:?}")
            }
            Self::Latency {
                mean,
                median,
                factor,
            } => write!(
                f,
                "mean latency {mean:?}, more than {factor} times the others' median of {median:?}"
            ),
        }
    }
}

/// An endpoint left service or came back, or the pool began or ceased to ignore that, with the
/// numbers behind it.
///
/// `Display` gives a clause for the log that names neither pool nor endpoint: "ejected for 10s: 5
/// errors in a row, the last a timeout; 1 of 3 endpoints ejected".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    /// Failed checks took it out of service until enough of them pass.
    Unhealthy {
        /// Which endpoint of the pool.
        endpoint: EndpointIndex,
        /// Failed checks in a row, including requests that counted as such.
        failed_checks: u32,
        /// What the last of them was.
        evidence: Evidence,
    },
    /// Passed checks brought it back.
    Healthy {
        /// Which endpoint of the pool.
        endpoint: EndpointIndex,
        /// Passed checks in a row.
        passed_checks: u32,
    },
    /// Outlier detection took it out of service for a while.
    Ejected {
        /// Which endpoint of the pool.
        endpoint: EndpointIndex,
        /// Why.
        cause: Cause,
        /// Which ejection this is in a recent series, from 1.
        times: u32,
        /// How long it lasts.
        ejected_for: Duration,
        /// How many endpoints are ejected now, this one included.
        ejected: usize,
        /// How many endpoints the pool has.
        endpoints: usize,
    },
    /// An ejection ended. An endpoint that fails again at once, before anybody noticed that its
    /// time was over, is reported as ejected again without a return in between.
    Returned {
        /// Which endpoint of the pool.
        endpoint: EndpointIndex,
        /// Which ejection of a recent series has ended, from 1.
        times: u32,
        /// True if it ended before its time, because a reload left more endpoints ejected than are
        /// allowed.
        early: bool,
    },
    /// Too few endpoints are in service: from now on health and ejections are ignored.
    Panic {
        /// How many are in service, of those that may be used.
        in_service: usize,
        /// How many may be used.
        endpoints: usize,
    },
    /// Enough endpoints are in service again.
    PanicOver {
        /// How many are in service, of those that may be used.
        in_service: usize,
        /// How many may be used.
        endpoints: usize,
    },
}

impl Transition {
    /// Which endpoint of the pool it is about; `None` if it is about all of them.
    #[must_use]
    pub fn endpoint(&self) -> Option<EndpointIndex> {
        match *self {
            Self::Unhealthy { endpoint, .. }
            | Self::Healthy { endpoint, .. }
            | Self::Ejected { endpoint, .. }
            | Self::Returned { endpoint, .. } => Some(endpoint),
            Self::Panic { .. } | Self::PanicOver { .. } => None,
        }
    }

    /// The word for logs and metric labels.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Unhealthy { .. } => "unhealthy",
            Self::Healthy { .. } => "healthy",
            Self::Ejected { .. } => "ejected",
            Self::Returned { .. } => "returned",
            Self::Panic { .. } => "panic",
            Self::PanicOver { .. } => "panic_over",
        }
    }
}

impl fmt::Display for Transition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Unhealthy {
                failed_checks,
                evidence,
                ..
            } => {
                let evidence = evidence.as_str();
                write!(
                    f,
                    "unhealthy: {failed_checks} failed in a row, the last a {evidence}"
                )
            }
            Self::Healthy { passed_checks, .. } => {
                write!(f, "healthy: {passed_checks} checks passed in a row")
            }
            Self::Ejected {
                cause,
                times,
                ejected_for,
                ejected,
                endpoints,
                ..
            } => {
                write!(f, "ejected for {ejected_for:?}: {cause}; ")?;
                if times > 1 {
                    write!(f, "ejection {times} in a series; ")?;
                }
                write!(f, "{ejected} of {endpoints} endpoints ejected")
            }
            Self::Returned {
                early: false,
                times,
                ..
            } => write!(f, "returned after ejection {times}"),
            Self::Returned {
                early: true, times, ..
            } => {
                write!(
                    f,
                    "returned early from ejection {times}: too many of the pool are ejected"
                )
            }
            Self::Panic {
                in_service,
                endpoints,
            } => write!(
                f,
                "panic: {in_service} of {endpoints} endpoints in service, health is ignored"
            ),
            Self::PanicOver {
                in_service,
                endpoints,
            } => write!(
                f,
                "panic is over: {in_service} of {endpoints} endpoints in service"
            ),
        }
    }
}
