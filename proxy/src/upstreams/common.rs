//! What all sets of endpoints of an upstream have in common.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::dial::Dialer;
use super::link::UpstreamLinks;
use super::{Queue, Sticky};
use crate::observe::metrics::UpstreamMetrics;

/// See the module's text.
pub(crate) struct Common {
    /// As configured.
    pub(crate) settings: conf::Upstream,
    /// Makes connections.
    pub(crate) dialer: Arc<Dialer>,
    /// Counts connections to all endpoints, over reloads.
    pub(crate) links: Arc<UpstreamLinks>,
    pub(super) workers: usize,
    /// Where requests wait for an endpoint.
    pub(crate) queue: Option<Arc<Queue>>,
    /// Reads and writes cookies.
    pub(crate) sticky: Option<Sticky>,
    pub(crate) metrics: Arc<UpstreamMetrics>,
    /// When the endpoints were last found out; `None` where they cannot change.
    pub(super) found_at: Option<Mutex<Instant>>,
}

impl Common {
    pub(crate) fn name(&self) -> &str {
        &self.settings.name
    }

    /// When the endpoints were last found out, where they can change.
    pub(super) fn found_at(&self) -> Option<Instant> {
        let at = self.found_at.as_ref()?;
        Some(*at.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Since then.
    pub(crate) fn discovery_age(&self, now: Instant) -> Option<Duration> {
        Some(now.saturating_duration_since(self.found_at()?))
    }

    /// The endpoints are known as of `now`.
    pub(super) fn found_now(&self, now: Instant) {
        if let Some(at) = &self.found_at {
            *at.lock().unwrap_or_else(PoisonError::into_inner) = now;
        }
    }
}
