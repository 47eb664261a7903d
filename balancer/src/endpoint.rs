//! An endpoint of a pool, and the part of it that outlives the pool.
//!
//! What the configuration says about an endpoint belongs to one pool. What was learnt about it is
//! an [`EndpointState`] behind an `Arc`, which the next pool shares if it has an endpoint with the
//! same id.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::adaptive::Adaptive;
use crate::checks::CheckState;
use crate::histogram::Histogram;
use crate::latency::Estimate;
use crate::load::Load;
use crate::outlier::OutlierState;
use crate::ramp::Ramp;
use crate::settings::{EndpointSettings, Mode};
use crate::stamp::Stamp;
use crate::window::Window;

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
///
/// What a pick looks at comes first and is small; the rest lies elsewhere.
#[derive(Debug)]
pub struct Endpoint {
    state: Arc<EndpointState>,
    weight: NonZeroU32,
    enabled: bool,
    /// One over its weight.
    inverse_weight: f64,
    settings: Box<EndpointSettings>,
}

impl Endpoint {
    pub(crate) fn new(settings: EndpointSettings, state: Arc<EndpointState>) -> Self {
        Self {
            state,
            weight: settings.weight,
            inverse_weight: 1.0 / f64::from(settings.weight.get()),
            enabled: settings.mode == Mode::Enabled,
            settings: Box::new(settings),
        }
    }

    /// Its identity, the text of its address.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.settings.id
    }

    /// What the configuration calls it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.settings.name
    }

    /// Its share relative to the other endpoints.
    #[must_use]
    pub fn weight(&self) -> NonZeroU32 {
        self.weight
    }

    /// Lower ones are preferred.
    #[must_use]
    pub fn priority(&self) -> u8 {
        self.settings.priority
    }

    /// Whether it comes after every priority.
    #[must_use]
    pub fn backup(&self) -> bool {
        self.settings.backup
    }

    /// Where it is.
    #[must_use]
    pub fn zone(&self) -> Option<&str> {
        self.settings.zone.as_deref()
    }

    /// What an operator has set by hand.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.settings.mode
    }

    /// Requests under way, those of earlier pools included.
    #[must_use]
    pub fn active(&self) -> u32 {
        self.state.load.active()
    }

    /// Requests under way over weight.
    pub(crate) fn load(&self) -> f64 {
        f64::from(self.active()) * self.inverse_weight
    }

    pub(crate) fn enabled(&self) -> bool {
        self.enabled
    }

    pub(crate) fn state(&self) -> &Arc<EndpointState> {
        &self.state
    }
}

/// What is known about an endpoint, shared by the pools of successive configurations.
///
/// Aligned to two cache lines, the unit in which common CPUs fetch, so that counting requests on
/// one endpoint does not slow the others down. What a pick reads comes first.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub(crate) struct EndpointState {
    pub(crate) load: Load,
    pub(crate) checks: CheckState,
    pub(crate) outlier: OutlierState,
    pub(crate) ramp: Ramp,
    pub(crate) latency: Estimate,
    pub(crate) adaptive: Adaptive,
    /// When the last transition was, plus one nanosecond; 0 if there was none.
    changed: AtomicU64,
    pub(crate) window: Window,
    pub(crate) histogram: Histogram,
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
