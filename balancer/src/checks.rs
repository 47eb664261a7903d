//! Active health: how results in a row make an endpoint unhealthy and healthy again.
//!
//! Two kinds of evidence count. Probes are the one that decides both ways. Requests that got no
//! connection count as failed probes too, because at many requests a second they know of a
//! dead node long before the next probe. They are tallied apart from probes, though: a request that
//! is answered shows that connections work and takes back what earlier requests said, so that a
//! node which refuses one connection in a thousand stays in. It must not take back what probes said,
//! or a node that announces its shutdown by failing its health page would never leave.
//!
//! The tally is one atomic word, so that threads which report at the same moment agree on who
//! crossed a threshold.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::settings::Checks;

/// Bits of each counter in the word; they stop at the greatest number that fits.
const COUNTER_BITS: u32 = 21;
const COUNTER_MAX: u32 = (1 << COUNTER_BITS) - 1;
const UNHEALTHY_BIT: u64 = 1 << 63;

/// One piece of evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    ProbePassed,
    ProbeFailed,
    /// A request got no connection.
    RequestRefused,
    /// A request got an answer, whichever.
    RequestAnswered,
}

/// A threshold was crossed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Crossed {
    /// After so many failed checks.
    Unhealthy { failed: u32 },
    /// After so many passed ones.
    Healthy { passed: u32 },
}

/// The health of one endpoint by its checks. Starts healthy: an endpoint that was just configured
/// serves until a check says otherwise, unless the configuration wants a check first.
#[derive(Debug, Default)]
pub(crate) struct CheckState(AtomicU64);

impl CheckState {
    /// The start state of an endpoint that waits for its first checks.
    pub(crate) fn waiting() -> Self {
        Self(AtomicU64::new(UNHEALTHY_BIT))
    }

    pub(crate) fn is_unhealthy(&self) -> bool {
        self.0.load(Ordering::Relaxed) & UNHEALTHY_BIT != 0
    }

    /// Failed checks in a row.
    pub(crate) fn failed(&self) -> u32 {
        Tally::unpack(self.0.load(Ordering::Relaxed)).all_failed()
    }

    /// Back to the start state.
    pub(crate) fn clear(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// Counts `report`. Writes nothing if it changes nothing, which is the case for nearly every
    /// request.
    pub(crate) fn apply(&self, report: Report, thresholds: &Checks) -> Option<Crossed> {
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            let before = Tally::unpack(word);
            let (after, crossed) = before.after(report, thresholds);
            if after == before {
                return crossed;
            }
            match self.0.compare_exchange_weak(
                word,
                after.pack(),
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return crossed,
                Err(current) => word = current,
            }
        }
    }
}

/// The word, unpacked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    unhealthy: bool,
    /// Probes passed in a row.
    passed: u32,
    /// Probes failed since the last one passed.
    failed: u32,
    /// Requests refused since the last probe passed or the last request was answered.
    refused: u32,
}

impl Tally {
    fn after(self, report: Report, thresholds: &Checks) -> (Self, Option<Crossed>) {
        let next = match report {
            Report::ProbePassed => Self {
                passed: one_more(self.passed),
                failed: 0,
                refused: 0,
                ..self
            },
            Report::ProbeFailed => Self {
                passed: 0,
                failed: one_more(self.failed),
                ..self
            },
            Report::RequestRefused => Self {
                passed: 0,
                refused: one_more(self.refused),
                ..self
            },
            Report::RequestAnswered => Self { refused: 0, ..self },
        };
        let failed = next.all_failed();
        if self.unhealthy && next.passed >= within_counter(thresholds.healthy_after.get()) {
            return (
                Self {
                    unhealthy: false,
                    ..next
                },
                Some(Crossed::Healthy {
                    passed: next.passed,
                }),
            );
        }
        if !self.unhealthy && failed >= within_counter(thresholds.unhealthy_after.get()) {
            return (
                Self {
                    unhealthy: true,
                    ..next
                },
                Some(Crossed::Unhealthy { failed }),
            );
        }
        (next, None)
    }

    fn all_failed(self) -> u32 {
        self.failed + self.refused
    }

    fn unpack(word: u64) -> Self {
        let counter = |position: u32| {
            let masked = (word >> (position * COUNTER_BITS)) & u64::from(COUNTER_MAX);
            u32::try_from(masked).unwrap_or(COUNTER_MAX)
        };
        Self {
            unhealthy: word & UNHEALTHY_BIT != 0,
            passed: counter(0),
            failed: counter(1),
            refused: counter(2),
        }
    }

    fn pack(self) -> u64 {
        let counters = [self.passed, self.failed, self.refused];
        let flag = if self.unhealthy { UNHEALTHY_BIT } else { 0 };
        counters.iter().rev().fold(0, |word, counter| {
            (word << COUNTER_BITS) | u64::from(*counter)
        }) | flag
    }
}

fn one_more(counter: u32) -> u32 {
    within_counter(counter + 1)
}

fn within_counter(count: u32) -> u32 {
    count.min(COUNTER_MAX)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use proptest::prelude::*;

    use super::*;

    fn thresholds(unhealthy_after: u32, healthy_after: u32) -> Checks {
        let positive = |count| NonZeroU32::new(count).expect("a threshold above zero");
        Checks {
            unhealthy_after: positive(unhealthy_after),
            healthy_after: positive(healthy_after),
            start_healthy: true,
        }
    }

    fn apply_all(
        state: &CheckState,
        thresholds: &Checks,
        reports: &[Report],
    ) -> Vec<Option<Crossed>> {
        reports
            .iter()
            .map(|report| state.apply(*report, thresholds))
            .collect()
    }

    #[test]
    fn an_endpoint_starts_healthy() {
        assert!(!CheckState::default().is_unhealthy());
    }

    #[test]
    fn it_takes_the_threshold_of_failures_in_a_row_to_become_unhealthy() {
        use Report::{ProbeFailed, ProbePassed};
        let state = CheckState::default();
        let seen = apply_all(
            &state,
            &thresholds(3, 2),
            &[
                ProbeFailed,
                ProbeFailed,
                ProbePassed,
                ProbeFailed,
                ProbeFailed,
            ],
        );
        assert_eq!(
            seen,
            vec![None; 5],
            "the pass in between starts the count anew"
        );
        assert_eq!(
            state.apply(ProbeFailed, &thresholds(3, 2)),
            Some(Crossed::Unhealthy { failed: 3 })
        );
        assert!(state.is_unhealthy());
        assert_eq!(
            state.apply(ProbeFailed, &thresholds(3, 2)),
            None,
            "it is reported once"
        );
        assert_eq!(state.failed(), 4);
    }

    #[test]
    fn it_takes_the_threshold_of_passes_in_a_row_to_come_back() {
        use Report::{ProbeFailed, ProbePassed};
        let state = CheckState::default();
        apply_all(
            &state,
            &thresholds(1, 2),
            &[ProbeFailed, ProbePassed, ProbeFailed, ProbePassed],
        );
        assert!(state.is_unhealthy());
        assert_eq!(
            state.apply(ProbePassed, &thresholds(1, 2)),
            Some(Crossed::Healthy { passed: 2 })
        );
        assert!(!state.is_unhealthy());
        assert_eq!(state.failed(), 0);
    }

    #[test]
    fn refused_requests_count_as_failed_checks() {
        use Report::{ProbeFailed, RequestRefused};
        let state = CheckState::default();
        assert_eq!(
            apply_all(&state, &thresholds(3, 1), &[RequestRefused, ProbeFailed]),
            vec![None, None]
        );
        assert_eq!(
            state.apply(RequestRefused, &thresholds(3, 1)),
            Some(Crossed::Unhealthy { failed: 3 })
        );
    }

    #[test]
    fn an_answered_request_takes_back_refused_requests() {
        use Report::{RequestAnswered, RequestRefused};
        let state = CheckState::default();
        for _ in 0..100 {
            apply_all(
                &state,
                &thresholds(2, 1),
                &[RequestRefused, RequestAnswered],
            );
        }
        assert!(
            !state.is_unhealthy(),
            "single lost connections among answered requests are no outage"
        );
    }

    #[test]
    fn an_answered_request_does_not_take_back_failed_probes() {
        use Report::{ProbeFailed, RequestAnswered};
        let state = CheckState::default();
        apply_all(
            &state,
            &thresholds(2, 1),
            &[ProbeFailed, RequestAnswered, ProbeFailed],
        );
        assert!(
            state.is_unhealthy(),
            "a node that fails its health page on purpose leaves while it still answers"
        );
    }

    #[test]
    fn answered_requests_do_not_bring_an_unhealthy_endpoint_back() {
        use Report::{ProbeFailed, RequestAnswered};
        let state = CheckState::default();
        apply_all(
            &state,
            &thresholds(1, 1),
            &[ProbeFailed, RequestAnswered, RequestAnswered],
        );
        assert!(state.is_unhealthy());
    }

    #[test]
    fn counters_stop_where_they_end() {
        let full = Tally {
            unhealthy: true,
            passed: COUNTER_MAX,
            failed: COUNTER_MAX,
            refused: COUNTER_MAX,
        };
        let (next, _) = full.after(Report::ProbeFailed, &thresholds(u32::MAX, u32::MAX));
        assert_eq!(next, Tally { passed: 0, ..full });
    }

    #[test]
    fn of_many_threads_one_reports_the_crossing() {
        let state = CheckState::default();
        let crossings: usize = std::thread::scope(|scope| {
            let report = || {
                (0..1_000)
                    .filter_map(|_| state.apply(Report::ProbeFailed, &thresholds(2_500, 1)))
                    .count()
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(report)).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("the thread ends"))
                .sum()
        });
        assert_eq!(crossings, 1);
        assert_eq!(state.failed(), 4_000, "no report is lost");
    }

    proptest! {
        #[test]
        fn packing_keeps_every_tally(
            unhealthy: bool,
            passed in 0..=COUNTER_MAX,
            failed in 0..=COUNTER_MAX,
            refused in 0..=COUNTER_MAX,
        ) {
            let tally = Tally { unhealthy, passed, failed, refused };
            prop_assert_eq!(Tally::unpack(tally.pack()), tally);
        }
    }
}
