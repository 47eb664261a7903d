//! What a new pool takes over from the previous one: the state of endpoints that are in both.
//!
//! Endpoints are the same if their addresses are. The state itself is shared rather than copied, so
//! that requests which still run on the previous pool go on counting.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::endpoint::{Endpoint, EndpointState};
use crate::settings::{EndpointSettings, PoolSettings};

use super::Pool;

/// What the previous pool knows, for the next one to take over.
pub(super) struct States {
    known: HashMap<SocketAddr, Arc<EndpointState>>,
    /// Set if checks begin with the next pool: what earlier ones found out is out of date. The
    /// previous pool does not look at it, so clearing it changes nothing there.
    clear_checks: bool,
    /// Likewise for ejections.
    clear_outlier: bool,
}

impl States {
    pub(super) fn of(previous: Option<&Pool>, settings: &PoolSettings) -> Self {
        let known = |pool: &Pool| {
            // Reversed, so that of several endpoints with one address the first counts.
            let endpoints = pool.endpoints.iter().rev();
            endpoints
                .map(|endpoint| (endpoint.address(), Arc::clone(endpoint.state())))
                .collect()
        };
        let lacked = |missing: fn(&Pool) -> bool| previous.is_some_and(missing);
        Self {
            known: previous.map(known).unwrap_or_default(),
            clear_checks: settings.active_checks.is_some()
                && lacked(|pool| pool.active_checks.is_none()),
            clear_outlier: settings.outlier.is_some() && lacked(|pool| pool.outlier.is_none()),
        }
    }

    /// Makes an endpoint of the next pool, with the state of its address if there is one.
    pub(super) fn adopt(&mut self, endpoint: EndpointSettings) -> Endpoint {
        let state = self.known.remove(&endpoint.address).unwrap_or_default();
        if self.clear_checks {
            state.checks.clear();
        }
        if self.clear_outlier {
            state.outlier.clear();
        }
        Endpoint::new(endpoint, state)
    }
}
