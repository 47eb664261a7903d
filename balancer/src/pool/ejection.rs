//! Who may be ejected: the part of outlier detection that looks at the whole pool.
//!
//! - An endpoint that checks have taken out is not ejected too: it is out already, and would use up
//!   what may be ejected.
//! - At most the configured share of the pool is ejected at once, and never the last endpoint in
//!   service. Ejection moves requests to where they fare better; with nowhere to go it would only
//!   turn a bad answer into none, and would let anybody who can provoke errors switch the upstream
//!   off.
//!
//! Errors are judged as they come. Latency is judged by the sweep, since it takes a look at the
//! others: an endpoint is slow only compared with those that do the same work.
//!
//! Decisions are made under one mutex, or two threads could each eject the last but one. Only an
//! endpoint that has failed often enough, or comes back, gets here; all other requests pass by on
//! relaxed loads.

use std::time::{Duration, Instant};

use crate::endpoint::{Endpoint, EndpointIndex};
use crate::settings::OutlierSettings;
use crate::stamp::Stamp;
use crate::transition::{Cause, Outcome, Transition};

use super::Pool;

/// Endpoints with a latency besides the one that is judged; of fewer there is no telling who is odd.
const LEAST_OTHERS: usize = 2;
/// How often latencies fade.
const FADE_EVERY: Duration = Duration::from_secs(1);
/// The time constant with which they do.
const FADE_OVER: Duration = Duration::from_secs(15);

impl Pool {
    /// What is to be done about once a second, and after a reload.
    ///
    /// It ends ejections whose time is over, and those beyond the allowed share that a reload may
    /// leave, beginning with the ones that would end first; ejects those that are too slow; brings
    /// the figures over the whole pool up to date; and tells of panic. Picking does not wait for it:
    /// an endpoint whose time is over is in service.
    pub fn sweep(&self, now: Instant) -> Vec<Transition> {
        let now = self.stamp(now);
        let mut transitions = self.end_ejections(now);
        self.learn_latencies(now);
        transitions.extend(self.eject_slow(now));
        self.refresh(now);
        transitions.extend(self.change_of_panic(now));
        transitions
    }

    fn end_ejections(&self, now: Stamp) -> Vec<Transition> {
        let Some(outlier) = &self.outlier else {
            return Vec::new();
        };
        let has_ejection = |endpoint: &Endpoint| endpoint.state().outlier.has_ejection();
        if !self.endpoints.iter().any(has_ejection) {
            return Vec::new();
        }
        let _guard = self.shared.lock();
        let mut ejected: Vec<_> = self
            .endpoints()
            .filter(|(_, endpoint)| has_ejection(endpoint))
            .collect();
        ejected.sort_by_key(|(_, endpoint)| endpoint.state().outlier.until());
        let surplus = ejected.len().saturating_sub(self.allowed(outlier));
        let due = |position: usize, endpoint: &Endpoint| {
            position < surplus || !endpoint.state().outlier.is_ejected(now)
        };
        let ejected = ejected.into_iter().enumerate();
        ejected
            .filter(|(position, (_, endpoint))| due(*position, endpoint))
            .map(|(_, (index, _))| self.give_back(index, now))
            .collect()
    }

    /// Adds up what endpoints took, lets it fade, and finds out what is typical.
    fn learn_latencies(&self, now: Stamp) {
        let histograms = || self.endpoints.iter().map(|it| &it.state().histogram);
        let since = now.since(self.shared.faded());
        if since >= FADE_EVERY {
            let kept = (-since.as_secs_f64() / FADE_OVER.as_secs_f64()).exp();
            histograms().for_each(|histogram| histogram.fade(kept));
            self.shared.set_faded(now);
        }
        self.shared.latencies.become_sum(histograms());
        // The median of endpoints rather than a mean, which one that is very slow would decide.
        let known = |endpoint: &Endpoint| {
            let serves = endpoint.enabled() && self.rules.in_service(endpoint.state(), now);
            let latency = &endpoint.state().latency;
            latency
                .average()
                .filter(|_| serves && latency.evidence(now) >= 1.0)
        };
        let mut averages: Vec<f32> = self.endpoints.iter().filter_map(known).collect();
        averages.sort_by(f32::total_cmp);
        if let Some(median) = averages.get(averages.len().saturating_sub(1) / 2) {
            self.shared.set_typical(*median);
        }
    }

    /// Ejects endpoints whose mean latency is too far above that of the others, the slowest first.
    fn eject_slow(&self, now: Stamp) -> Vec<Transition> {
        let Some(outlier) = &self.outlier else {
            return Vec::new();
        };
        let Some(factor) = outlier.latency_factor else {
            return Vec::new();
        };
        let timed = |(index, endpoint): (EndpointIndex, &Endpoint)| {
            let state = endpoint.state();
            if !endpoint.enabled() || !self.rules.in_service(state, now) {
                return None;
            }
            let sums = state.window.sums(outlier.window, now);
            Some((sums.mean()?, sums.timed, index))
        };
        let mut by_latency: Vec<_> = self.endpoints().filter_map(timed).collect();
        if by_latency.len() <= LEAST_OTHERS {
            return Vec::new();
        }
        by_latency.sort_unstable();
        let middle = (by_latency.len() - 2) / 2;
        let judged = (0..by_latency.len()).rev().filter_map(|position| {
            let (mean, timed, index) = by_latency[position];
            // The median of the others: in their order, without this one.
            let median = by_latency[middle + usize::from(position <= middle)].0;
            let slow = mean > median.saturating_mul(factor.get());
            if !slow || timed < u64::from(outlier.min_requests.get()) {
                return None;
            }
            let cause = Cause::Latency {
                mean,
                median,
                factor: factor.get(),
            };
            self.eject(index, outlier, cause, now)
        });
        judged.collect()
    }

    fn change_of_panic(&self, now: Stamp) -> Option<Transition> {
        let panic = self.groups.panic();
        if !self.shared.panics(panic) {
            return None;
        }
        let in_service = self.in_service(now);
        let endpoints = self.endpoints.iter().filter(|it| it.enabled()).count();
        Some(if panic {
            Transition::Panic {
                in_service,
                endpoints,
            }
        } else {
            Transition::PanicOver {
                in_service,
                endpoints,
            }
        })
    }

    /// Counts an outcome for outlier detection and ejects, if that is due and allowed.
    pub(super) fn judge(
        &self,
        index: EndpointIndex,
        outcome: Outcome,
        now: Stamp,
    ) -> Option<Transition> {
        let outlier = self.outlier.as_ref()?;
        let endpoint = self.endpoint(index);
        let state = &endpoint.state().outlier;
        if state.is_ejected(now) || !endpoint.enabled() {
            // A request from before the ejection: it was judged by others of its kind. Nor does it
            // matter how those of a drained endpoint end.
            return None;
        }
        if outcome.is_error() {
            let errors = state.count_error();
            let cause = self.cause(index, errors, outcome, outlier, now);
            let ejected = cause.and_then(|cause| self.eject(index, outlier, cause, now));
            if ejected.is_some() {
                return ejected;
            }
        } else {
            state.forget_errors();
        }
        if state.has_ejection() {
            self.note_return(index, now)
        } else {
            None
        }
    }

    /// What an error that has just been counted makes of the errors before.
    fn cause(
        &self,
        index: EndpointIndex,
        errors: u32,
        last: Outcome,
        outlier: &OutlierSettings,
        now: Stamp,
    ) -> Option<Cause> {
        if errors >= outlier.consecutive_errors.get() {
            return Some(Cause::Consecutive { errors, last });
        }
        let percent = u64::from(outlier.error_rate?);
        let window = outlier.window;
        let sums = self.endpoint(index).state().window.sums(window, now);
        let enough = sums.requests >= u64::from(outlier.min_requests.get());
        (enough && sums.errors * 100 >= percent * sums.requests).then_some(Cause::ErrorRate {
            errors: sums.errors,
            requests: sums.requests,
            window,
        })
    }

    /// Ejects the endpoint unless another thread just did, too many are ejected, or nobody else is
    /// in service.
    fn eject(
        &self,
        index: EndpointIndex,
        outlier: &OutlierSettings,
        cause: Cause,
        now: Stamp,
    ) -> Option<Transition> {
        let _guard = self.shared.lock();
        let state = self.endpoint(index).state();
        if state.outlier.is_ejected(now) {
            return None;
        }
        let cause = match cause {
            Cause::Consecutive { last, .. } => {
                let errors = state.outlier.errors();
                if errors < outlier.consecutive_errors.get() {
                    return None;
                }
                Cause::Consecutive { errors, last }
            }
            Cause::ErrorRate { .. } | Cause::Latency { .. } => cause,
        };
        let is_ejected = |endpoint: &&Endpoint| endpoint.state().outlier.is_ejected(now);
        let ejected = self.endpoints.iter().filter(is_ejected).count();
        let others = self.endpoints().any(|(other, endpoint)| {
            other != index && endpoint.enabled() && self.rules.in_service(endpoint.state(), now)
        });
        if !others || ejected >= self.allowed(outlier) {
            return None;
        }
        let ejection = state.outlier.eject(outlier.ejection_time, now);
        // When it comes back it is judged by what it does then.
        state.window.clear();
        state.changed(now);
        self.shared.health_changed();
        Some(Transition::Ejected {
            endpoint: index,
            cause,
            times: ejection.times,
            ejected_for: ejection.lasts,
            ejected: ejected + 1,
            endpoints: self.endpoints.len(),
        })
    }

    /// Reports the end of an ejection that no sweep has noticed yet.
    fn note_return(&self, index: EndpointIndex, now: Stamp) -> Option<Transition> {
        let _guard = self.shared.lock();
        let state = &self.endpoint(index).state().outlier;
        (state.has_ejection() && !state.is_ejected(now)).then(|| self.give_back(index, now))
    }

    /// Ends an ejection. Call under the lock.
    fn give_back(&self, index: EndpointIndex, now: Stamp) -> Transition {
        let state = self.endpoint(index).state();
        let early = state.outlier.is_ejected(now);
        let ended = state.outlier.until().min(now);
        state.changed(ended);
        state.ramp.begin(ended);
        let times = state.outlier.give_back(now);
        self.shared.health_changed();
        Transition::Returned {
            endpoint: index,
            times,
            early,
        }
    }

    /// How many may be ejected at once.
    fn allowed(&self, outlier: &OutlierSettings) -> usize {
        let percent = usize::from(outlier.max_ejected_percent.min(100));
        let share = self.endpoints.len() * percent / 100;
        share.max(usize::from(percent > 0))
    }
}
