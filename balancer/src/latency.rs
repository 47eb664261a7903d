//! What a request to an endpoint is reckoned to take: a moving average that is sensitive to peaks.
//!
//! A sample above the average becomes the average at once; one below it pulls it down with a time
//! constant of ten seconds. So a node that begins to stall is noticed by its first slow answer, and
//! forgiven by many quick ones. This is the Peak EWMA of Twitter's Finagle.
//!
//! How far to trust the figure is kept beside it, as a number of samples that fades with the same
//! time constant. The estimate that balancing goes by is a mean of the figure, weighted by these
//! samples, and of what is typical in the pool, weighted by [`PRIOR`]. That does two things. A node
//! without samples counts as a typical one, neither as infinitely fast nor as infinitely slow. And
//! a node that was slow, and therefore gets no requests that could show it is better now, drifts
//! back to typical and is tried again.
//!
//! Failures count as latency too, or a node that fails fast would look like a fast one and draw
//! requests like a black hole. The figure is multiplied by how many of the last requests failed. To
//! take a failure as one very slow answer instead would not do: where all endpoints fail now and
//! then, each would be as slow as that, what is typical would follow, and with it what a failure
//! counts as.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::convert::{high_half, join, low_half};
use crate::stamp::Stamp;

/// The time constant, in seconds.
const TIME_CONSTANT: f32 = 10.0;
/// Time is kept in units of 2 to the power of this in nanoseconds, about a millisecond. It wraps
/// after 52 days.
const TICK_BITS: u32 = 20;
const TICK_SECONDS: f32 = (1_u64 << TICK_BITS) as f32 / 1e9;
/// Samples count up to this many, so that the most trusted figure fades within a minute or so.
const MOST_EVIDENCE: f32 = 20.0;
/// How many samples the typical latency counts as.
const PRIOR: f32 = 4.0;
/// How many times longer a request to an endpoint is reckoned to take on top, if all of them fail
/// there.
const FAILURE_FACTOR: f32 = 20.0;
/// With less evidence than this an endpoint counts as little known.
const LITTLE_EVIDENCE: f32 = 3.0;

/// The average of one endpoint.
#[derive(Debug, Default)]
pub(crate) struct Estimate {
    /// Microseconds as the bits of an `f32` (upper half; zero before the first answer), when there
    /// was an update (lower half); 0 before the first request.
    word: AtomicU64,
    /// The number of samples at that time, as the bits of an `f32`. Not written in one step with
    /// the average: that a race loses a sample does not matter.
    evidence: AtomicU32,
    /// How many of them failed, likewise.
    failures: AtomicU32,
}

/// What is known at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Known {
    /// Microseconds; zero if nothing is known of any endpoint.
    pub(crate) micros: f32,
    /// Whether that is more than a guess.
    pub(crate) well: bool,
}

impl Estimate {
    /// Takes note of a request and of its latency in microseconds, where there was an answer.
    pub(crate) fn record(&self, micros: Option<f32>, failed: bool, now: Stamp) {
        let tick = tick(now);
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            let average = f32::from_bits(high_half(word));
            let kept = (-age(word, tick) / TIME_CONSTANT).exp();
            let next = match micros {
                Some(micros) if micros >= average => micros,
                // How fast something fails says nothing.
                Some(micros) if !failed => average * kept + micros * (1.0 - kept),
                _ => average,
            };
            let next = join(next.to_bits(), tick);
            if next == word {
                return self.count(kept, failed);
            }
            match self
                .word
                .compare_exchange_weak(word, next, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => return self.count(kept, failed),
                Err(current) => word = current,
            }
        }
    }

    /// Counts up to [`MOST_EVIDENCE`]; from there on a new sample takes the place of an old one.
    fn count(&self, kept: f32, failed: bool) {
        let before = f32::from_bits(self.evidence.load(Ordering::Relaxed));
        let counted = before * kept + 1.0;
        let after = counted.min(MOST_EVIDENCE);
        if after.to_bits() != before.to_bits() {
            self.evidence.store(after.to_bits(), Ordering::Relaxed);
        }
        let before = f32::from_bits(self.failures.load(Ordering::Relaxed));
        if failed || before > 0.0 {
            let counted = (before * kept + f32::from(u8::from(failed))) * after / counted;
            // What is nearly nothing becomes nothing, so that an endpoint which is well is not
            // written to.
            let counted = if counted < 0.01 { 0.0 } else { counted };
            self.failures.store(counted.to_bits(), Ordering::Relaxed);
        }
    }

    /// The average alone, in microseconds.
    pub(crate) fn average(&self) -> Option<f32> {
        let average = f32::from_bits(high_half(self.word.load(Ordering::Relaxed)));
        (average > 0.0).then_some(average)
    }

    /// How many samples there are at `now`.
    pub(crate) fn evidence(&self, now: Stamp) -> f32 {
        f32::from_bits(self.evidence.load(Ordering::Relaxed)) * self.faded(now)
    }

    fn faded(&self, now: Stamp) -> f32 {
        faded(age(self.word.load(Ordering::Relaxed), tick(now)))
    }

    /// What balancing goes by; `typical` is what endpoints of the pool typically take, zero if that
    /// is not known.
    pub(crate) fn known(&self, typical: f32, now: Stamp) -> Known {
        let faded = self.faded(now);
        let evidence = f32::from_bits(self.evidence.load(Ordering::Relaxed)) * faded;
        let failures = f32::from_bits(self.failures.load(Ordering::Relaxed)) * faded;
        let each = 1.0 / (evidence + PRIOR);
        let micros = match self.average() {
            None => typical,
            Some(average) if typical <= 0.0 => average,
            Some(average) => (average * evidence + typical * PRIOR) * each,
        };
        Known {
            micros: micros * (1.0 + FAILURE_FACTOR * failures * each),
            well: evidence >= LITTLE_EVIDENCE,
        }
    }
}

fn tick(now: Stamp) -> u32 {
    low_half(now.as_nanos() >> TICK_BITS)
}

/// Seconds from the word's update to `tick`.
fn age(word: u64, tick: u32) -> f32 {
    let ticks = tick.wrapping_sub(low_half(word));
    if ticks > u32::MAX / 2 {
        // Another thread was here with a later `now`.
        return 0.0;
    }
    ticks as f32 * TICK_SECONDS
}

/// About exp(-age / time constant). Picking reads it twice, where the true one would be a good part
/// of its cost; this one falls a little more slowly.
fn faded(age: f32) -> f32 {
    let base = 1.0 + age / (8.0 * TIME_CONSTANT);
    let square = base * base;
    let fourth = square * square;
    1.0 / (fourth * fourth)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: f64) -> Stamp {
        Stamp::from_nanos(0).plus(Duration::from_secs_f64(seconds))
    }

    /// An endpoint that took `micros` again and again until the second `until`.
    fn settled(micros: f32, until: u32) -> Estimate {
        let estimate = Estimate::default();
        (0..=until * 10)
            .for_each(|tenth| estimate.record(Some(micros), false, at(f64::from(tenth) / 10.0)));
        estimate
    }

    #[test]
    fn a_peak_counts_at_once_and_is_forgotten_slowly() {
        let estimate = settled(1_000.0, 5);
        estimate.record(Some(50_000.0), false, at(5.0));
        assert_eq!(estimate.average(), Some(50_000.0));
        (0..=100).for_each(|tenth| {
            estimate.record(Some(1_000.0), false, at(5.0 + f64::from(tenth) / 10.0));
        });
        let average = estimate.average().expect("there are samples");
        let due = 1_000.0 + 49_000.0 / std::f32::consts::E;
        assert!((average / due - 1.0).abs() < 0.02, "{average}, not {due}");
    }

    #[test]
    fn an_endpoint_without_samples_counts_as_a_typical_one() {
        let known = Estimate::default().known(2_000.0, at(1.0));
        assert_eq!((known.micros, known.well), (2_000.0, false));
    }

    #[test]
    fn a_figure_from_many_samples_outweighs_what_is_typical() {
        let known = settled(10_000.0, 30).known(1_000.0, at(30.0));
        assert!(known.well);
        assert!(known.micros > 8_000.0, "{known:?}");
    }

    #[test]
    fn an_old_bad_figure_fades_towards_what_is_typical() {
        let estimate = settled(1_000_000.0, 30);
        let mut before = f32::MAX;
        for seconds in [0.0, 10.0, 20.0, 40.0, 80.0] {
            let known = estimate.known(1_000.0, at(30.0 + seconds));
            assert!(known.micros < before, "{known:?} after {seconds} s");
            before = known.micros;
        }
        assert!(before < 30_000.0, "still {before} us after 80 s");
        assert!(!estimate.known(1_000.0, at(110.0)).well);
    }

    #[test]
    fn who_fails_counts_as_slow_and_fast_failures_not_as_fast() {
        let healthy = settled(1_000.0, 30);
        let sick = settled(1_000.0, 30);
        (0..40).for_each(|n| sick.record(Some(1.0), n % 2 == 0, at(30.0)));
        let (healthy, sick) = (
            healthy.known(1_000.0, at(30.0)),
            sick.known(1_000.0, at(30.0)),
        );
        assert!(sick.micros > healthy.micros * 7.0, "{sick:?}, {healthy:?}");
        let only = Estimate::default();
        (0..40).for_each(|_| only.record(None, true, at(1.0)));
        assert!(only.known(1_000.0, at(1.0)).micros > 10_000.0);
        assert_eq!(only.average(), None);
    }

    #[test]
    fn failures_are_forgotten() {
        let estimate = settled(1_000.0, 30);
        estimate.record(None, true, at(30.0));
        (0..200).for_each(|_| estimate.record(Some(1_000.0), false, at(30.0)));
        let known = estimate.known(1_000.0, at(30.0));
        assert!((known.micros - 1_000.0).abs() < 1.0, "{known:?}");
        let idle = Estimate::default();
        (0..20).for_each(|_| idle.record(None, true, at(0.0)));
        assert!(idle.known(1_000.0, at(90.0)).micros < 1_500.0);
    }

    #[test]
    fn a_now_from_before_the_last_update_is_no_age() {
        let estimate = settled(1_000.0, 5);
        estimate.record(Some(500.0), false, at(4.0));
        assert_eq!(estimate.average(), Some(1_000.0));
    }

    #[test]
    fn the_cheap_exponential_is_close_enough() {
        for tenths in 0_u16..300 {
            let age = f32::from(tenths) / 10.0;
            let due = (-age / TIME_CONSTANT).exp();
            assert!(faded(age) >= due * 0.999, "{age}");
            assert!(faded(age) - due < 0.04, "{age}");
        }
    }
}
