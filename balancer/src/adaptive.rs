//! Adaptive concurrency: how many requests an endpoint can bear at once, found from its latency.
//!
//! An endpoint that is given more than it can work on answers no more requests, only later. So the
//! latency of the last quarter of a second is compared with a baseline, what a request takes while
//! the endpoint is not busy. As long as it stays within a tolerance, the limit grows by its square
//! root, which lets a short queue form and thus shows whether there is room. Beyond it, the limit
//! is multiplied by how far beyond. The limit only grows while it is in use: an idle endpoint
//! teaches nothing.
//!
//! The idea and the shape of the formula are those of the gradient limit in Netflix's
//! concurrency-limits ("Performance Under Load", 2018). What is hard about it is the baseline. If it
//! follows the measured latency, however slowly, an endpoint that is overloaded for long becomes
//! its own baseline, and the limit runs away. So here it follows only latencies close to itself;
//! and if there were none for a while, the limit is cut to a quarter for a moment, to measure what
//! a request takes without the queue (as Envoy's adaptive concurrency filter does at intervals).
//! That tells an endpoint that is overloaded from one that has become slower.
//!
//! Requests only add to atomics. The one whose compare-and-exchange closes a span reckons the new
//! limit, alone; readers see the old or the new one.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::convert::{floor_u32, narrow};
use crate::settings::AdaptiveSettings;
use crate::stamp::Stamp;

/// A span is at least this long.
const SPAN: Duration = Duration::from_millis(250);
/// And has at least this many answers.
const MIN_SAMPLES: u64 = 20;
/// The limit at the beginning, within the configured range.
const FIRST_LIMIT: u32 = 20;
/// How many times the baseline a request may take.
const TOLERANCE: f64 = 1.5;
/// Up to so many times the baseline, a latency counts as one of an endpoint that is not busy.
const NEAR: f64 = 1.2;
/// How far the baseline moves towards such a latency.
const FOLLOW: f64 = 0.1;
/// How far the limit moves towards the new one.
const SMOOTHING: f64 = 0.5;
/// With timeouts the limit shrinks at least by this.
const AFTER_TIMEOUTS: f64 = 0.7;
/// Spans without a latency near the baseline after which it is measured anew.
const UNCONFIRMED_SPANS: u32 = 120;

/// Bits of the sum of latencies in its word; the count has the rest.
const SUM_BITS: u32 = 44;
/// The longest latency that is counted as it is, a quarter of an hour.
const MAX_MICROS: u64 = 1 << 30;

const NORMAL: u8 = 0;
/// The limit was cut; requests from before are still answered.
const DRAINING: u8 = 1;
/// Requests are answered that came under the cut limit.
const MEASURING: u8 = 2;

/// The limit of one endpoint, and what it follows from.
#[derive(Debug, Default)]
pub(crate) struct Adaptive {
    /// In force; 0 before the first span is over.
    limit: AtomicU32,
    /// The most requests seen under way in this span.
    most_active: AtomicU32,
    timeouts: AtomicU32,
    /// Spans since a latency was near the baseline.
    unconfirmed: AtomicU32,
    /// Answers and the sum of their latencies, in this span.
    sums: AtomicU64,
    /// When this span began, plus one nanosecond; 0 before the first answer.
    begun: AtomicU64,
    /// The limit as a fraction, as the bits of an `f32`; not cut while measuring.
    exact: AtomicU32,
    /// Microseconds, as the bits of an `f32`; 0 before the first span is over.
    baseline: AtomicU32,
    phase: AtomicU8,
}

/// What an attempt says about the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sample {
    Answered(Duration),
    TimedOut,
}

impl Adaptive {
    /// How many requests may be under way.
    pub(crate) fn limit(&self, settings: &AdaptiveSettings) -> u32 {
        let limit = match self.limit.load(Ordering::Relaxed) {
            0 => FIRST_LIMIT,
            limit => limit,
        };
        limit.min(settings.max.get()).max(settings.min.get())
    }

    /// Takes note of an attempt that ended while `active` requests were under way, itself included.
    pub(crate) fn record(
        &self,
        sample: Sample,
        active: u32,
        settings: &AdaptiveSettings,
        now: Stamp,
    ) {
        if active > self.most_active.load(Ordering::Relaxed) {
            self.most_active.fetch_max(active, Ordering::Relaxed);
        }
        let answers = match sample {
            Sample::Answered(latency) => {
                let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
                let one = (1 << SUM_BITS) | micros.min(MAX_MICROS);
                (self.sums.fetch_add(one, Ordering::Relaxed) >> SUM_BITS) + 1
            }
            Sample::TimedOut => {
                self.timeouts.fetch_add(1, Ordering::Relaxed);
                MIN_SAMPLES
            }
        };
        let stamp = now.as_nanos().saturating_add(1);
        let begun = self.begun.load(Ordering::Acquire);
        let over = begun != 0 && now.since(Stamp::from_nanos(begun - 1)) >= SPAN;
        if begun == 0 || over && answers >= MIN_SAMPLES {
            let closed =
                self.begun
                    .compare_exchange(begun, stamp, Ordering::AcqRel, Ordering::Relaxed);
            if closed.is_ok() && over {
                self.close(settings);
            }
        }
    }

    /// Reckons the new limit. Called by one thread at a time, but for one that is held up for a
    /// whole span; the worst that comes of it is one odd step.
    fn close(&self, settings: &AdaptiveSettings) {
        let sums = self.sums.swap(0, Ordering::Relaxed);
        let most_active = self.most_active.swap(0, Ordering::Relaxed);
        let timeouts = self.timeouts.swap(0, Ordering::Relaxed);
        let (count, micros) = (sums >> SUM_BITS, sums & ((1 << SUM_BITS) - 1));
        let (least, most) = (f64::from(settings.min.get()), f64::from(settings.max.get()));
        let exact = match f64::from(f32::from_bits(self.exact.load(Ordering::Relaxed))) {
            0.0 => f64::from(FIRST_LIMIT),
            exact => exact,
        };
        let exact = exact.min(most).max(least);
        let latency = (count > 0).then(|| micros as f64 / count as f64);

        match self.phase.load(Ordering::Relaxed) {
            DRAINING => {
                self.phase.store(MEASURING, Ordering::Relaxed);
                return;
            }
            MEASURING => {
                if let Some(latency) = latency {
                    self.set_baseline(latency);
                }
                self.unconfirmed.store(0, Ordering::Relaxed);
                self.phase.store(NORMAL, Ordering::Relaxed);
                self.limit.store(floor_u32(exact), Ordering::Relaxed);
                return;
            }
            _ => {}
        }
        let gradient = match latency {
            Some(latency) => self.gradient(latency),
            None => 0.5,
        };
        let gradient = if timeouts > 0 {
            gradient.min(AFTER_TIMEOUTS)
        } else {
            gradient
        };
        let target = exact * gradient + exact.sqrt();
        let in_use = f64::from(most_active) * 2.0 >= exact;
        let next = if target > exact && !in_use {
            exact
        } else {
            exact + (target - exact) * SMOOTHING
        };
        let next = next.min(most).max(least);
        self.exact.store(narrow(next).to_bits(), Ordering::Relaxed);
        let in_force = if self.unconfirmed.load(Ordering::Relaxed) >= UNCONFIRMED_SPANS {
            self.phase.store(DRAINING, Ordering::Relaxed);
            (next / 4.0).max(least)
        } else {
            next
        };
        self.limit
            .store(floor_u32(in_force).max(1), Ordering::Relaxed);
    }

    /// How much of the limit is left, by the mean latency of a span; moves the baseline.
    fn gradient(&self, latency: f64) -> f64 {
        let baseline = f64::from(f32::from_bits(self.baseline.load(Ordering::Relaxed)));
        if baseline <= 0.0 {
            self.set_baseline(latency);
            return 1.0;
        }
        if latency <= baseline * NEAR {
            self.set_baseline(baseline + (latency - baseline) * FOLLOW);
            self.unconfirmed.store(0, Ordering::Relaxed);
        } else {
            self.unconfirmed.fetch_add(1, Ordering::Relaxed);
        }
        (TOLERANCE * baseline / latency.max(1.0)).clamp(0.5, 1.0)
    }

    fn set_baseline(&self, micros: f64) {
        self.baseline
            .store(narrow(micros.max(1.0)).to_bits(), Ordering::Relaxed);
    }
}
