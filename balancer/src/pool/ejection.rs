//! Who may be ejected: the part of outlier detection that looks at the whole pool.
//!
//! - An endpoint that checks have taken out is not ejected too: it is out already, and would use up
//!   what may be ejected.
//! - At most the configured share of the pool is ejected at once, and never the last endpoint in
//!   service. Ejection moves requests to where they fare better; with nowhere to go it would only
//!   turn a bad answer into none, and would let anybody who can provoke errors switch the upstream
//!   off.
//!
//! Decisions are made under one mutex, or two threads could each eject the last but one. Only an
//! endpoint that has failed often enough, or comes back, gets here; all other requests pass by on
//! relaxed loads.

use std::sync::{MutexGuard, PoisonError};
use std::time::Instant;

use crate::endpoint::{Endpoint, EndpointIndex};
use crate::settings::OutlierSettings;
use crate::stamp::Stamp;
use crate::transition::{Outcome, Transition};

use super::Pool;

impl Pool {
    /// Ends ejections whose time is over, and those beyond the allowed share that a reload may
    /// leave, beginning with the ones that would end first. Picking does not wait for it: an
    /// endpoint whose time is over is in service. Call it about once a second and after a reload,
    /// for the log.
    pub fn sweep(&self, now: Instant) -> Vec<Transition> {
        let Some(outlier) = &self.outlier else {
            return Vec::new();
        };
        let has_ejection = |endpoint: &Endpoint| endpoint.state().outlier.has_ejection();
        if !self.endpoints.iter().any(has_ejection) {
            return Vec::new();
        }
        let now = self.stamp(now);
        let _guard = self.lock_ejections();
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

    /// Counts an outcome for outlier detection and ejects, if that is due and allowed.
    pub(super) fn judge(
        &self,
        index: EndpointIndex,
        outcome: Outcome,
        now: Stamp,
    ) -> Option<Transition> {
        let outlier = self.outlier.as_ref()?;
        let state = &self.endpoint(index).state().outlier;
        if state.is_ejected(now) {
            // A request from before the ejection: it was judged by others of its kind.
            return None;
        }
        if !outcome.is_error() {
            state.forget_errors();
        } else if state.count_error() >= outlier.consecutive_errors.get() {
            return self.eject(index, outlier, outcome, now);
        }
        if state.has_ejection() {
            self.note_return(index, now)
        } else {
            None
        }
    }

    /// Ejects the endpoint unless another thread just did, too many are ejected, or nobody else is
    /// in service.
    fn eject(
        &self,
        index: EndpointIndex,
        outlier: &OutlierSettings,
        last: Outcome,
        now: Stamp,
    ) -> Option<Transition> {
        let _guard = self.lock_ejections();
        let state = self.endpoint(index).state();
        let errors = state.outlier.errors();
        if errors < outlier.consecutive_errors.get() || state.outlier.is_ejected(now) {
            return None;
        }
        let ejected = self
            .endpoints
            .iter()
            .filter(|endpoint| endpoint.state().outlier.is_ejected(now))
            .count();
        let candidates = self.candidates(&[], now);
        let others = self
            .endpoints()
            .any(|(other, _)| other != index && candidates.in_service(other));
        if !others || ejected >= self.allowed(outlier) {
            return None;
        }
        let ejection = state.outlier.eject(outlier.ejection_time, now);
        state.changed(now);
        Some(Transition::Ejected {
            endpoint: index,
            errors,
            last,
            times: ejection.times,
            ejected_for: ejection.lasts,
            ejected: ejected + 1,
            endpoints: self.endpoints.len(),
        })
    }

    /// Reports the end of an ejection that no sweep has noticed yet.
    fn note_return(&self, index: EndpointIndex, now: Stamp) -> Option<Transition> {
        let _guard = self.lock_ejections();
        let state = &self.endpoint(index).state().outlier;
        (state.has_ejection() && !state.is_ejected(now)).then(|| self.give_back(index, now))
    }

    /// Ends an ejection. Call under the lock.
    fn give_back(&self, index: EndpointIndex, now: Stamp) -> Transition {
        let state = self.endpoint(index).state();
        let early = state.outlier.is_ejected(now);
        state.changed(state.outlier.until().min(now));
        let times = state.outlier.give_back(now);
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

    /// The mutex guards no data that a panic could leave half written.
    fn lock_ejections(&self) -> MutexGuard<'_, ()> {
        self.ejections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
