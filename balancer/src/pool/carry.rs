//! What a new pool takes over from the previous one: the state of endpoints that are in both.
//!
//! Endpoints are the same if their ids are. The state itself is shared rather than copied, so that
//! requests which still run on the previous pool go on counting.

use std::collections::HashMap;
use std::sync::Arc;

use crate::checks::CheckState;
use crate::endpoint::{Endpoint, EndpointState};
use crate::settings::{EndpointSettings, Mode, PoolSettings};
use crate::stamp::Stamp;

use super::Pool;

/// Why a pool is followed by another one. Health, ejections, requests under way and latencies go
/// over in either case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Carry {
    /// The configuration was read again, and everything may have changed.
    Reload,
    /// Nothing but the endpoints has changed: discovery found others, or an operator has set a mode
    /// or a weight. Tables for hashing are kept where they are the same, which makes it cheap.
    Refresh,
}

/// What the previous pool knows, for the next one to take over.
pub(super) struct States<'a> {
    known: HashMap<&'a str, &'a Endpoint>,
    /// Set if checks begin with the next pool: what earlier ones found out is out of date. The
    /// previous pool does not look at it, so clearing it changes nothing there.
    clear_checks: bool,
    /// Likewise for ejections.
    clear_outlier: bool,
    /// Whether an endpoint that is not known starts with slow start: not when all are new.
    ramp_new: bool,
    /// Whether it waits for checks.
    new_waits: bool,
    now: Stamp,
}

impl<'a> States<'a> {
    pub(super) fn of(previous: Option<&'a Pool>, settings: &PoolSettings, now: Stamp) -> Self {
        let known = |pool: &'a Pool| {
            // Reversed, so that of several endpoints with one id the first counts.
            let endpoints = pool.endpoints.iter().rev();
            endpoints
                .map(|endpoint| (endpoint.id(), endpoint))
                .collect()
        };
        let lacked = |missing: fn(&Pool) -> bool| previous.is_some_and(missing);
        let checks = settings.active_checks;
        Self {
            known: previous.map(known).unwrap_or_default(),
            clear_checks: checks.is_some() && lacked(|pool| pool.active_checks.is_none()),
            clear_outlier: settings.outlier.is_some() && lacked(|pool| pool.outlier.is_none()),
            ramp_new: previous.is_some_and(|pool| !pool.endpoints.is_empty()),
            new_waits: checks.is_some_and(|checks| !checks.start_healthy),
            now,
        }
    }

    /// Makes an endpoint of the next pool, with the state of its id if there is one.
    pub(super) fn adopt(&mut self, settings: EndpointSettings) -> Endpoint {
        let Some(known) = self.known.remove(settings.id.as_str()) else {
            return Endpoint::new(settings, Arc::new(self.fresh()));
        };
        let state = Arc::clone(known.state());
        if self.clear_checks {
            state.checks.clear();
        }
        if self.clear_outlier {
            state.outlier.clear();
        }
        if settings.mode == Mode::Enabled && !known.enabled() {
            // The previous pool does not use it, so does not see this.
            state.ramp.begin(self.now);
        }
        Endpoint::new(settings, state)
    }

    /// The state of an endpoint that nothing is known of.
    fn fresh(&self) -> EndpointState {
        let mut state = EndpointState::default();
        if self.new_waits {
            state.checks = CheckState::waiting();
        }
        if self.ramp_new {
            state.ramp.begin(self.now);
        }
        state
    }
}
