//! Passive health: what requests say about one endpoint, and how long an ejection lasts.
//!
//! Too many errors eject an endpoint; after a while it simply is in service again and gets a chance
//! to fail or not. An endpoint that keeps failing is ejected for longer each time, up to
//! [`MAX_TIMES`] times the configured span, and each span that it stayed in service afterwards
//! forgives one ejection.
//!
//! This module knows a single endpoint. How many may be ejected at once is decided by the pool,
//! which also takes the lock that [`OutlierState::eject`] and [`OutlierState::give_back`] ask for.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::stamp::Stamp;

/// The longest ejection, as a multiple of the configured span.
pub(crate) const MAX_TIMES: u32 = 10;

/// `until` of an endpoint that is not ejected.
const IN_SERVICE: u64 = 0;

/// What outlier detection knows about one endpoint.
#[derive(Debug, Default)]
pub(crate) struct OutlierState {
    /// When the ejection ends, or ended if nobody has called `give_back` since; else `IN_SERVICE`.
    until: AtomicU64,
    /// Errors in a row.
    errors: AtomicU32,
    /// Ejections since the endpoint is known.
    ejections: AtomicU32,
    /// When the last ejection ended. Written under the pool's lock.
    returned: AtomicU64,
    /// Ejections in a recent series. Written under the pool's lock.
    times: AtomicU32,
}

/// One ejection, decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ejection {
    pub(crate) times: u32,
    pub(crate) lasts: Duration,
}

impl OutlierState {
    pub(crate) fn errors(&self) -> u32 {
        self.errors.load(Ordering::Relaxed)
    }

    /// Writes only if there is something to forget, so that a healthy endpoint's cache line stays
    /// shared.
    pub(crate) fn forget_errors(&self) {
        if self.errors() != 0 {
            self.errors.store(0, Ordering::Relaxed);
        }
    }

    /// Counts one more error and gives how many came in a row.
    pub(crate) fn count_error(&self) -> u32 {
        let before = self.errors.fetch_add(1, Ordering::Relaxed);
        before.saturating_add(1)
    }

    pub(crate) fn is_ejected(&self, now: Stamp) -> bool {
        self.until.load(Ordering::Relaxed) > now.as_nanos()
    }

    /// True if the endpoint was ejected and nobody has called `give_back` yet, whether or not its
    /// time is over.
    pub(crate) fn has_ejection(&self) -> bool {
        self.until.load(Ordering::Relaxed) != IN_SERVICE
    }

    /// When an ejection ended that nobody has called `give_back` for.
    pub(crate) fn unnoticed_return(&self, now: Stamp) -> Option<Stamp> {
        (self.has_ejection() && !self.is_ejected(now)).then(|| self.until())
    }

    /// Ejections since the endpoint is known.
    pub(crate) fn ejections(&self) -> u32 {
        self.ejections.load(Ordering::Relaxed)
    }

    /// When the ejection ends.
    pub(crate) fn until(&self) -> Stamp {
        Stamp::from_nanos(self.until.load(Ordering::Relaxed))
    }

    /// How much longer it stays ejected.
    pub(crate) fn ejected_for(&self, now: Stamp) -> Option<Duration> {
        let until = self.until();
        (until > now).then(|| until.since(now))
    }

    /// Back to the start state.
    pub(crate) fn clear(&self) {
        self.errors.store(0, Ordering::Relaxed);
        self.until.store(IN_SERVICE, Ordering::Relaxed);
        self.returned.store(0, Ordering::Relaxed);
        self.times.store(0, Ordering::Relaxed);
    }

    /// Ejects from `now` on, for `span` times the number of recent ejections. Call under the pool's
    /// lock.
    pub(crate) fn eject(&self, span: Duration, now: Stamp) -> Ejection {
        if self.has_ejection() {
            self.give_back(now);
        }
        let in_service = now.since(Stamp::from_nanos(self.returned.load(Ordering::Relaxed)));
        let forgiven = in_service
            .as_nanos()
            .checked_div(span.as_nanos())
            .unwrap_or(u128::MAX);
        let forgiven = u32::try_from(forgiven).unwrap_or(u32::MAX);
        let times = self
            .times
            .load(Ordering::Relaxed)
            .saturating_sub(forgiven)
            .saturating_add(1)
            .min(MAX_TIMES);
        let lasts = span.saturating_mul(times);

        self.times.store(times, Ordering::Relaxed);
        self.ejections.fetch_add(1, Ordering::Relaxed);
        self.forget_errors();
        // An ejection of no length at the epoch itself would read as "in service"; one nanosecond
        // does no harm.
        self.until.store(
            now.plus(lasts).as_nanos().max(IN_SERVICE + 1),
            Ordering::Relaxed,
        );
        Ejection { times, lasts }
    }

    /// Ends the ejection at `now` or, if it was over earlier, then. Gives which one of a series it
    /// was. Call under the pool's lock.
    pub(crate) fn give_back(&self, now: Stamp) -> u32 {
        let ended = self.until().min(now);
        self.returned.store(ended.as_nanos(), Ordering::Relaxed);
        self.until.store(IN_SERVICE, Ordering::Relaxed);
        self.times.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: Duration = Duration::from_secs(10);

    fn at(seconds: u64) -> Stamp {
        Stamp::from_nanos(0).plus(Duration::from_secs(seconds))
    }

    #[test]
    fn an_ejection_ends_by_itself() {
        let state = OutlierState::default();
        assert_eq!(
            state.eject(SPAN, at(100)),
            Ejection {
                times: 1,
                lasts: SPAN
            }
        );
        assert!(state.is_ejected(at(109)));
        assert_eq!(state.ejected_for(at(107)), Some(Duration::from_secs(3)));
        assert!(!state.is_ejected(at(110)));
        assert_eq!(state.ejected_for(at(110)), None);
    }

    #[test]
    fn ejections_that_follow_each_other_last_longer_up_to_a_bound() {
        let state = OutlierState::default();
        let mut now = at(0);
        let mut lasted = Vec::new();
        for _ in 0..12 {
            let Ejection { lasts, .. } = state.eject(SPAN, now);
            lasted.push(lasts.as_secs());
            now = now.plus(lasts).plus(Duration::from_secs(1));
        }
        assert_eq!(lasted, [10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 100, 100]);
    }

    #[test]
    fn each_span_in_service_forgives_one_ejection() {
        let state = OutlierState::default();
        state.eject(SPAN, at(0));
        state.eject(SPAN, at(11));
        assert_eq!(state.eject(SPAN, at(32)).times, 3, "it had returned at 31");
        assert_eq!(
            state.eject(SPAN, at(62 + 25)).times,
            2,
            "it had returned at 62; 25 s forgive two of three"
        );
        assert_eq!(state.eject(SPAN, at(10_000)).times, 1);
    }

    #[test]
    fn giving_back_late_does_not_shorten_the_time_in_service() {
        let state = OutlierState::default();
        state.eject(SPAN, at(0));
        assert_eq!(state.give_back(at(500)), 1);
        assert_eq!(
            state.eject(SPAN, at(501)).times,
            1,
            "it was in service since 10, not since 500"
        );
    }

    #[test]
    fn an_ejection_forgets_the_errors_that_led_to_it() {
        let state = OutlierState::default();
        assert_eq!((state.count_error(), state.count_error()), (1, 2));
        state.eject(SPAN, at(0));
        assert_eq!(state.errors(), 0);
    }

    #[test]
    fn spans_beyond_all_measure_are_bounded_by_the_stamp() {
        let state = OutlierState::default();
        assert_eq!(state.eject(Duration::MAX, at(1)).times, 1);
        assert!(state.is_ejected(at(1_000_000)));
        let state = OutlierState::default();
        state.eject(Duration::ZERO, at(0));
        assert!(state.has_ejection());
        assert!(!state.is_ejected(at(1)));
    }
}
