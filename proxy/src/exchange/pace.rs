//! How slow a client may be: so many bytes a second, on average.
//!
//! It is an account of bytes. While somebody waits for the client it shrinks by the rate, each byte
//! that came through adds to it, and it never holds more than the grace is worth: so a client may do
//! nothing for as long as that, and one that was fast has earned no more. Time in which nobody waits
//! for the client is not its fault and costs nothing.

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

/// What a client was too slow with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Slow {
    /// It was slower than the rate.
    #[error("the client is too slow")]
    Rate,
    /// A whole request did not come in time.
    #[error("the request did not come in time")]
    Whole,
    /// It took nothing for too long.
    #[error("the client takes nothing")]
    Still,
}

impl Slow {
    /// Metric label, and `why` of the log.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Rate => "min_rate",
            Self::Whole => "request_timeout",
            Self::Still => "write_timeout",
        }
    }
}

/// What a byte is counted as, so that no wait is too short to count.
const BYTE: u128 = 1_000_000_000;

/// See the module's text.
#[derive(Debug, Clone)]
pub(crate) struct Pace {
    /// Bytes a second: so much of a [`BYTE`] a nanosecond.
    rate: u128,
    /// What it holds at the most.
    most: u128,
    left: u128,
    /// How many wait for the client, and up to when their waiting has been counted.
    waiting: u32,
    at: Instant,
}

impl Pace {
    pub(crate) fn new(rate: NonZeroU64, grace: Duration, now: Instant) -> Self {
        let rate = u128::from(rate.get());
        let most = rate * grace.as_nanos();
        Self {
            rate,
            most,
            left: most,
            waiting: 0,
            at: now,
        }
    }

    /// Somebody waits for the client from now on.
    pub(crate) fn begin(&mut self, now: Instant) {
        self.settle(now);
        self.waiting += 1;
    }

    /// And no longer.
    pub(crate) fn end(&mut self, now: Instant) {
        self.settle(now);
        self.waiting = self.waiting.saturating_sub(1);
    }

    /// The same for one of several. Once all who waited in vain are gone, it begins anew: who comes next
    /// has not been slow yet.
    pub(crate) fn leave(&mut self, now: Instant) {
        self.end(now);
        if self.waiting == 0 && self.left == 0 {
            self.restore(now);
        }
    }

    /// Bytes came through.
    pub(crate) fn took(&mut self, bytes: usize) {
        self.left = (self.left + bytes as u128 * BYTE).min(self.most);
    }

    /// When the client will have been too slow, if no byte comes through until then.
    pub(crate) fn deadline(&self) -> Instant {
        // At most the grace, so it fits.
        let nanos = u64::try_from(self.left.div_ceil(self.rate)).unwrap_or(u64::MAX);
        self.at + Duration::from_nanos(nanos)
    }

    /// Whether the client was too slow, while somebody waits for it.
    pub(crate) fn is_over(&mut self, now: Instant) -> bool {
        self.settle(now);
        self.waiting > 0 && self.left == 0
    }

    /// Forgets what was: nobody looked meanwhile.
    pub(crate) fn restore(&mut self, now: Instant) {
        self.at = now;
        self.left = self.most;
    }

    fn settle(&mut self, now: Instant) {
        let gone = now.saturating_duration_since(self.at);
        self.at = now;
        if self.waiting > 0 {
            self.left = self.left.saturating_sub(self.rate * gone.as_nanos());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock;

    const GRACE: Duration = Duration::from_secs(30);

    fn pace(rate: u64) -> (Pace, Instant) {
        let now = clock::now();
        (Pace::new(NonZeroU64::new(rate).unwrap(), GRACE, now), now)
    }

    /// When a client is cut that lets `bytes` through each `every`.
    fn lasts(rate: u64, bytes: usize, every: Duration) -> Option<Duration> {
        let (mut pace, start) = pace(rate);
        let mut now = start;
        for _ in 0..10_000 {
            pace.begin(now);
            if pace.deadline() <= now + every {
                let at = pace.deadline();
                assert!(pace.is_over(at), "the deadline is when it is over");
                return Some(at - start);
            }
            now += every;
            assert!(!pace.is_over(now), "not before its deadline");
            pace.took(bytes);
            pace.end(now);
        }
        None
    }

    #[test]
    fn silence_is_borne_for_the_grace() {
        let cut = lasts(500, 0, Duration::from_secs(100)).unwrap();
        assert!(
            cut >= GRACE && cut < GRACE + Duration::from_millis(10),
            "{cut:?}"
        );
    }

    #[test]
    fn a_client_at_the_rate_goes_on_and_one_below_it_does_not() {
        let second = Duration::from_secs(1);
        assert_eq!(lasts(500, 500, second), None);
        assert_eq!(lasts(500, 5000, 10 * second), None);
        let half = lasts(500, 250, second).unwrap();
        assert!(half > GRACE && half < 3 * GRACE, "{half:?}");
        assert!(lasts(500, 1, second).unwrap() < 2 * GRACE);
    }

    #[test]
    fn a_fast_client_earns_no_more_than_the_grace() {
        let (mut pace, mut now) = pace(500);
        pace.begin(now);
        pace.took(1 << 40);
        now += GRACE + Duration::from_secs(1);
        assert!(pace.is_over(now));
    }

    #[test]
    fn time_in_which_nobody_waits_costs_nothing() {
        let (mut pace, mut now) = pace(500);
        for _ in 0..100 {
            pace.begin(now);
            now += Duration::from_millis(100);
            pace.end(now);
            now += Duration::from_secs(100);
        }
        pace.begin(now);
        assert!(!pace.is_over(now + Duration::from_secs(19)));
        assert!(pace.is_over(now + Duration::from_secs(21)));
    }

    #[test]
    fn all_who_waited_in_vain_are_cut_and_who_comes_next_is_not() {
        let (mut pace, mut now) = pace(500);
        pace.begin(now);
        pace.begin(now);
        now += GRACE;
        assert!(pace.is_over(now));
        pace.leave(now);
        assert!(pace.is_over(now), "the other one, too");
        pace.leave(now);
        pace.begin(now);
        assert!(!pace.is_over(now + GRACE / 2));
    }

    #[test]
    fn who_takes_anything_holds_up_all_who_wait() {
        let (mut pace, mut now) = pace(500);
        pace.begin(now);
        pace.begin(now);
        for _ in 0..100 {
            now += Duration::from_secs(1);
            assert!(!pace.is_over(now));
            pace.took(500);
        }
    }

    proptest! {
        /// Short waits add up to what one long wait costs.
        #[test]
        fn waits_add_up(rate in 1..100_000_u64, millis in 1..50_u64) {
            let (mut pace, mut now) = pace(rate);
            let wait = Duration::from_millis(millis);
            let mut waited = Duration::ZERO;
            loop {
                pace.begin(now);
                now += wait;
                waited += wait;
                if pace.is_over(now) {
                    break;
                }
                pace.end(now);
                now += wait;
            }
            prop_assert!(waited >= GRACE && waited < GRACE + wait, "{waited:?}");
        }
    }
}
