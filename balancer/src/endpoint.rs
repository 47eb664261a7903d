//! An endpoint of a pool, and the part of it that outlives the pool.
//!
//! What the configuration says about an endpoint belongs to one pool. What was learnt about it is
//! an [`EndpointState`] behind an `Arc`, which the next pool shares if it has an endpoint with the
//! same address.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::checks::CheckState;
use crate::outlier::OutlierState;
use crate::settings::EndpointSettings;
use crate::stamp::Stamp;

/// The position of an endpoint in its pool. It means nothing to another pool: whoever keeps one
/// across a reload keeps the pool with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointIndex(u32);

impl EndpointIndex {
    /// The indexes of a pool with `count` endpoints, in order.
    pub(crate) fn first(count: usize) -> impl Iterator<Item = Self> {
        (0..u32::MAX).take(count).map(Self)
    }

    /// The position in the configured list, from 0.
    #[must_use]
    pub fn as_usize(self) -> usize {
        self.0 as usize
    }
}

/// One endpoint as configured, with what is known about it.
#[derive(Debug)]
pub struct Endpoint {
    settings: EndpointSettings,
    state: Arc<EndpointState>,
}

impl Endpoint {
    pub(crate) fn new(settings: EndpointSettings, state: Arc<EndpointState>) -> Self {
        Self { settings, state }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.settings.address
    }

    /// What the configuration calls it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.settings.name
    }

    /// Its share relative to the other endpoints.
    #[must_use]
    pub fn weight(&self) -> NonZeroU32 {
        self.settings.weight
    }

    /// Whether it gets requests only while no primary endpoint can.
    #[must_use]
    pub fn backup(&self) -> bool {
        self.settings.backup
    }

    /// Requests under way, those of earlier pools included.
    #[must_use]
    pub fn active(&self) -> u32 {
        self.state.active.load(Ordering::Relaxed)
    }

    pub(crate) fn state(&self) -> &Arc<EndpointState> {
        &self.state
    }
}

/// What is known about an endpoint, shared by the pools of successive configurations.
///
/// Aligned to two cache lines, the unit in which common CPUs fetch, so that counting requests on
/// one endpoint does not slow the others down.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct EndpointState {
    active: AtomicU32,
    /// When the last transition was, plus one nanosecond; 0 if there was none.
    changed: AtomicU64,
    pub(crate) checks: CheckState,
    pub(crate) outlier: OutlierState,
}

impl EndpointState {
    /// Notes that a transition took place.
    pub(crate) fn changed(&self, at: Stamp) {
        self.changed
            .store(at.as_nanos().saturating_add(1), Ordering::Relaxed);
    }

    /// How long ago the last transition was, if there was one.
    pub(crate) fn since_change(&self, now: Stamp) -> Option<Duration> {
        let at = self.changed.load(Ordering::Relaxed).checked_sub(1)?;
        Some(now.since(Stamp::from_nanos(at)))
    }
}

/// One request under way at an endpoint; dropping it ends the request. Owns what it needs, so it
/// may outlive the pool.
#[derive(Debug)]
#[must_use = "the request counts as under way only while this is kept"]
pub struct Active {
    state: Arc<EndpointState>,
}

impl Active {
    pub(crate) fn new(state: &Arc<EndpointState>) -> Self {
        state.active.fetch_add(1, Ordering::Relaxed);
        Self {
            state: Arc::clone(state),
        }
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.state.active.fetch_sub(1, Ordering::Relaxed);
    }
}
