//! What requests and checks say about an endpoint.

use std::time::{Duration, Instant};

use crate::adaptive::Sample;
use crate::checks::{Crossed, Report};
use crate::convert::narrow;
use crate::endpoint::EndpointIndex;
use crate::stamp::Stamp;
use crate::transition::{Evidence, Outcome, Transition};

use super::Pool;

impl Pool {
    /// Takes note of how an attempt went. Any error counts towards ejection; a connection that did
    /// not come about also counts as a failed check, if there are checks. One that broke does not:
    /// checks that pass would take the endpoint back within moments, and one that breaks every
    /// second reply would go in and out for ever, where ejections of such an endpoint grow longer.
    /// `latency` is the time to the
    /// first byte of the response, where there was one.
    pub fn record(
        &self,
        index: EndpointIndex,
        outcome: Outcome,
        latency: Option<Duration>,
        now: Instant,
    ) -> Option<Transition> {
        let now = self.stamp(now);
        self.measure(index, outcome, latency, now);
        let report = match outcome {
            Outcome::ConnectFailed => Some(Report::RequestRefused),
            Outcome::Success | Outcome::Status5xx => Some(Report::RequestAnswered),
            Outcome::Reset | Outcome::Timeout => None,
        };
        let by_checks = report.and_then(|report| self.report(index, report, now));
        if by_checks.is_some() || self.is_unhealthy(index) {
            return by_checks;
        }
        self.judge(index, outcome, now)
    }

    /// Whether checks, as far as there are any, find nothing wrong with the endpoint. It may be
    /// ejected nevertheless, or changed by hand.
    #[must_use]
    pub fn is_healthy(&self, index: EndpointIndex) -> bool {
        !self.is_unhealthy(index)
    }

    /// Takes note of a health check's result. Without
    /// [`PoolSettings::active_checks`](crate::PoolSettings::active_checks) it means nothing.
    pub fn probed(&self, index: EndpointIndex, passed: bool, now: Instant) -> Option<Transition> {
        let report = if passed {
            Report::ProbePassed
        } else {
            Report::ProbeFailed
        };
        self.report(index, report, self.stamp(now))
    }

    /// Takes note of how long an attempt took, wherever that is asked for.
    fn measure(
        &self,
        index: EndpointIndex,
        outcome: Outcome,
        latency: Option<Duration>,
        now: Stamp,
    ) {
        let state = self.endpoint(index).state();
        let micros = latency.map(|latency| narrow(latency.as_secs_f64() * 1e6));
        let failed = outcome.is_error();
        state.latency.record(micros, failed, now);
        if let (Some(latency), Some(micros), false) = (latency, micros, failed) {
            state.histogram.count(latency);
            if self.shared.typical() <= 0.0 {
                // The first answer of all has to do until the next sweep.
                self.shared.set_typical(micros);
            }
        }
        if let Some(outlier) = &self.outlier {
            state.window.count(failed, outlier.window, now);
            if let Some(latency) = latency
                && !failed
                && outlier.latency_factor.is_some()
            {
                state.window.time(latency, outlier.window, now);
            }
        }
        if let Some(settings) = &self.rules.adaptive {
            let sample = match (outcome, latency) {
                (Outcome::Success, Some(latency)) => Sample::Answered(latency),
                (Outcome::Timeout, _) => Sample::TimedOut,
                // How fast something fails tells nothing about load.
                _ => return,
            };
            let active = state.load.active();
            state.adaptive.record(sample, active, settings, now);
        }
    }

    /// Counts evidence for or against an endpoint's health.
    fn report(&self, endpoint: EndpointIndex, report: Report, now: Stamp) -> Option<Transition> {
        let state = self.endpoint(endpoint).state();
        let crossed = state.checks.apply(report, self.active_checks.as_ref()?)?;
        let transition = match crossed {
            Crossed::Healthy { passed } => {
                // Errors from before the outage say nothing about the node that came back.
                state.outlier.forget_errors();
                state.window.clear();
                // Whoever waited for its first checks when the program started is not back: it
                // never was away, and there is nobody else who could bear its share meanwhile.
                if state.since_change(now).is_some() || state.ramp.began() {
                    state.ramp.begin(now);
                }
                Transition::Healthy {
                    endpoint,
                    passed_checks: passed,
                }
            }
            Crossed::Unhealthy { failed } => {
                let evidence = if report == Report::ProbeFailed {
                    Evidence::Check
                } else {
                    Evidence::Request
                };
                Transition::Unhealthy {
                    endpoint,
                    failed_checks: failed,
                    evidence,
                }
            }
        };
        state.changed(now);
        self.shared.health_changed();
        Some(transition)
    }

    pub(super) fn is_unhealthy(&self, index: EndpointIndex) -> bool {
        self.active_checks.is_some() && self.endpoint(index).state().checks.is_unhealthy()
    }
}
