//! Slow start: an endpoint that comes back gets its share little by little.
//!
//! Its weight counts by a factor that grows linearly over the configured span. What began when is
//! kept here whether or not slow start is configured, since that is one word; who is not at full
//! weight is looked up only where it is.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::stamp::Stamp;

/// The factor at the very beginning: too little to hurt, enough to warm up on.
pub(crate) const LEAST: f64 = 0.1;

/// Since when an endpoint has been back, plus one nanosecond; 0 if it never was away.
#[derive(Debug, Default)]
pub(crate) struct Ramp(AtomicU64);

impl Ramp {
    /// Begins at `at`.
    pub(crate) fn begin(&self, at: Stamp) {
        self.0
            .store(at.as_nanos().saturating_add(1), Ordering::Relaxed);
    }

    /// Whether it ever began.
    pub(crate) fn began(&self) -> bool {
        self.0.load(Ordering::Relaxed) != 0
    }

    /// The factor at `now`, from [`LEAST`] to 1. `returned` is when an ejection ended that nobody
    /// has noticed yet.
    pub(crate) fn factor(&self, span: Duration, returned: Option<Stamp>, now: Stamp) -> f64 {
        let word = self.0.load(Ordering::Relaxed);
        let begun = returned.map_or(0, |at| at.as_nanos().saturating_add(1));
        let Some(begun) = word.max(begun).checked_sub(1) else {
            return 1.0;
        };
        let since = now.since(Stamp::from_nanos(begun));
        if since >= span {
            return 1.0;
        }
        (since.as_secs_f64() / span.as_secs_f64()).max(LEAST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: Duration = Duration::from_secs(10);

    fn at(millis: u64) -> Stamp {
        Stamp::from_nanos(0).plus(Duration::from_millis(millis))
    }

    #[test]
    fn an_endpoint_that_never_was_away_has_its_full_weight() {
        assert!((Ramp::default().factor(SPAN, None, at(0)) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn the_factor_grows_linearly_from_a_little_to_one() {
        let ramp = Ramp::default();
        ramp.begin(at(0));
        for (millis, due) in [
            (0, LEAST),
            (500, LEAST),
            (2_500, 0.25),
            (7_500, 0.75),
            (10_000, 1.0),
        ] {
            let factor = ramp.factor(SPAN, None, at(millis));
            assert!((factor - due).abs() < 1e-9, "{factor} after {millis} ms");
        }
    }

    #[test]
    fn an_ejection_that_ended_unnoticed_counts_from_its_end() {
        let ramp = Ramp::default();
        ramp.begin(at(0));
        let factor = ramp.factor(SPAN, Some(at(8_000)), at(12_000));
        assert!((factor - 0.4).abs() < 1e-9, "{factor}");
    }
}
