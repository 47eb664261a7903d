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
    /// A request whose connection failed or was reset, which counts as a failed check.
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

/// An endpoint left service or came back, with the numbers behind it.
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
        /// Errors in a row.
        errors: u32,
        /// The last of them.
        last: Outcome,
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
}

impl Transition {
    /// Which endpoint of the pool it is about.
    #[must_use]
    pub fn endpoint(&self) -> EndpointIndex {
        match *self {
            Self::Unhealthy { endpoint, .. }
            | Self::Healthy { endpoint, .. }
            | Self::Ejected { endpoint, .. }
            | Self::Returned { endpoint, .. } => endpoint,
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
                errors,
                last,
                times,
                ejected_for,
                ejected,
                endpoints,
                ..
            } => {
                let last = last.as_str();
                write!(
                    f,
                    "ejected for {ejected_for:?}: {errors} errors in a row, the last a {last}; "
                )?;
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
        }
    }
}
