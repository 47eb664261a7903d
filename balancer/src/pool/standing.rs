//! How a pool and its endpoints stand.

use std::time::{Duration, Instant};

use crate::convert::floor_u32;
use crate::endpoint::{Endpoint, EndpointIndex, EndpointState};
use crate::settings::Mode;
use crate::stamp::Stamp;
use crate::status::{EndpointStatus, Health, Summary};
use crate::window::Sums;

use super::Pool;

impl Pool {
    /// How every endpoint stands, in the order of the configuration.
    #[must_use]
    pub fn status(&self, now: Instant) -> Vec<EndpointStatus<'_>> {
        let now = self.stamp(now);
        self.endpoints()
            .map(|(index, endpoint)| self.endpoint_status(index, endpoint, now))
            .collect()
    }

    /// The pool in a few numbers.
    #[must_use]
    pub fn summary(&self, now: Instant) -> Summary {
        let now = self.stamp(now);
        self.refresh(now);
        let active = self.endpoints.iter().map(Endpoint::active);
        Summary {
            endpoints: self.endpoints.len(),
            in_service: self.in_service(now),
            active: active.fold(0, u32::saturating_add),
            panic: self.groups.panic(),
            retries_left: self.retry_budget.map(|_| self.shared.retries.balance(now)),
        }
    }

    /// The endpoint with this id.
    #[must_use]
    pub fn find(&self, id: &str) -> Option<EndpointIndex> {
        self.endpoints()
            .find(|(_, endpoint)| endpoint.id() == id)
            .map(|(index, _)| index)
    }

    /// How many endpoints are in service, whether or not the pool panics.
    pub(super) fn in_service(&self, now: Stamp) -> usize {
        let serves = |endpoint: &&Endpoint| {
            endpoint.enabled() && self.rules.in_service(endpoint.state(), now)
        };
        self.endpoints.iter().filter(serves).count()
    }

    fn endpoint_status<'a>(
        &self,
        index: EndpointIndex,
        endpoint: &'a Endpoint,
        now: Stamp,
    ) -> EndpointStatus<'a> {
        let state = endpoint.state();
        let ejected_for = self.outlier.and_then(|_| state.outlier.ejected_for(now));
        let health = match (endpoint.mode(), self.is_unhealthy(index), ejected_for) {
            (Mode::Down, ..) => Health::Down,
            (Mode::Drain, ..) => Health::Drained,
            (Mode::Enabled, true, _) => Health::Unhealthy,
            (Mode::Enabled, false, Some(_)) => Health::Ejected,
            (Mode::Enabled, false, None) => Health::Healthy,
        };
        let sums = self.outlier.map_or_else(Sums::default, |outlier| {
            state.window.sums(outlier.window, now)
        });
        let limit = self.rules.ceiling(&state.adaptive).active;
        let average = state.latency.average();
        let percent = floor_u32(self.rules.ramp(state, now) * 100.0);
        EndpointStatus {
            id: endpoint.id(),
            name: endpoint.name(),
            weight: endpoint.weight(),
            priority: endpoint.priority(),
            backup: endpoint.backup(),
            zone: endpoint.zone(),
            mode: endpoint.mode(),
            health,
            ejected_for,
            ejections: state.outlier.ejections(),
            since_transition: self.since_transition(state, now),
            active: endpoint.active(),
            pending: state.load.pending(),
            limit: (limit != u32::MAX).then_some(limit),
            latency: average.map(|micros| {
                Duration::try_from_secs_f64(f64::from(micros) / 1e6).unwrap_or(Duration::MAX)
            }),
            requests: sums.requests,
            errors: sums.errors,
            consecutive_errors: self.outlier.map_or(0, |_| state.outlier.errors()),
            consecutive_failed_checks: self.active_checks.map_or(0, |_| state.checks.failed()),
            slow_start_percent: u8::try_from(percent).unwrap_or(100),
        }
    }

    /// An ejection that is over has ended when its time was, whoever noticed.
    fn since_transition(&self, state: &EndpointState, now: Stamp) -> Option<Duration> {
        if self.outlier.is_some()
            && let Some(returned) = state.outlier.unnoticed_return(now)
        {
            return Some(now.since(returned));
        }
        state.since_change(now)
    }
}
