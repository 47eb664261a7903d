//! Changes of endpoints' states, with the numbers behind them, for the log and the counters.

use balancer::{Cause, EndpointIndex, Transition};

use super::members::Members;
use crate::observe::EjectionCause;

impl Members {
    /// Writes a change of an endpoint's state with the numbers behind it, and what was seen last.
    pub(super) fn log(&self, transition: &Transition, reason: &str) {
        let upstream = self.common().name();
        match *transition {
            Transition::Unhealthy {
                endpoint,
                failed_checks,
                evidence,
            } => {
                tracing::warn!(
                    upstream,
                    endpoint = self.name(endpoint),
                    failed_checks,
                    by = evidence.as_str(),
                    reason,
                    "endpoint is out of service"
                );
            }
            Transition::Healthy {
                endpoint,
                passed_checks,
            } => {
                tracing::info!(
                    upstream,
                    endpoint = self.name(endpoint),
                    passed_checks,
                    "endpoint is back in service"
                );
            }
            Transition::Ejected {
                endpoint,
                cause,
                times,
                ejected_for,
                ejected,
                endpoints,
            } => {
                self.ejected(endpoint, &cause);
                tracing::warn!(
                    upstream,
                    endpoint = self.name(endpoint),
                    cause = word(&cause).as_str(),
                    numbers = %cause,
                    times,
                    ?ejected_for,
                    ejected,
                    endpoints,
                    "endpoint is ejected"
                );
            }
            Transition::Returned {
                endpoint,
                times,
                early,
            } => {
                if let Some(cells) = self.shown().cells(endpoint.as_usize()) {
                    cells.returned();
                }
                tracing::info!(
                    upstream,
                    endpoint = self.name(endpoint),
                    times,
                    early,
                    "endpoint returns from ejection"
                );
            }
            Transition::Panic {
                in_service,
                endpoints,
            } => {
                tracing::error!(
                    upstream,
                    in_service,
                    endpoints,
                    "too few endpoints are in service: health is ignored (panic_threshold)"
                );
            }
            Transition::PanicOver {
                in_service,
                endpoints,
            } => {
                tracing::info!(
                    upstream,
                    in_service,
                    endpoints,
                    "enough endpoints are in service again"
                );
            }
        }
        // Who waits may find room at an endpoint that came back.
        if let Some(queue) = &self.common().queue {
            queue.wake();
        }
    }

    fn ejected(&self, endpoint: EndpointIndex, cause: &Cause) {
        if let Some(cells) = self.shown().cells(endpoint.as_usize()) {
            cells.ejected(word(cause));
        }
    }
}

fn word(cause: &Cause) -> EjectionCause {
    match cause {
        Cause::Consecutive { .. } => EjectionCause::ConsecutiveErrors,
        Cause::ErrorRate { .. } => EjectionCause::ErrorRate,
        Cause::Latency { .. } => EjectionCause::Latency,
    }
}
