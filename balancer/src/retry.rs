//! The retry budget: retries may help a request, but must not multiply an outage.
//!
//! With a fixed number of attempts for each request, an upstream that fails gets that many times
//! its usual load just when it can bear it least. So retries are paid for: each first attempt pays
//! `percent`/100 of a retry into a bucket, and each retry takes one out. As long as most requests
//! succeed the bucket is full, and with everything failing the upstream gets at most `percent` more
//! than without retries. This is the model of Finagle's `RetryBudget`, with a bound on the balance
//! in place of its expiry.
//!
//! An upstream of a few requests a minute would never save up for a retry. So the bucket also fills
//! by [`RESERVE_PER_SECOND`], up to [`RESERVE`].
//!
//! The bucket is one word: the balance in thousandths of a retry, and when it last filled by time.
//! A full bucket is not written, so in fair weather requests only read it.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::convert::{high_half, join, low_half};
use crate::stamp::Stamp;

/// Retries a second that need no first attempts.
const RESERVE_PER_SECOND: u32 = 3;
/// Retries up to which the bucket fills by time alone, and that it starts with.
const RESERVE: u32 = 10;
/// Retries that fit into the bucket.
const MOST: u32 = 100;
/// One retry, in the unit of the balance.
const ONE: u32 = 1_000;

/// The bucket, shared by all requests of an upstream.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct RetryBudget(AtomicU64);

impl Default for RetryBudget {
    fn default() -> Self {
        Self(AtomicU64::new(join(0, RESERVE * ONE)))
    }
}

impl RetryBudget {
    /// A first attempt was made.
    pub(crate) fn deposit(&self, percent: u8) {
        let share = u32::from(percent) * (ONE / 100);
        let paid = |word| {
            let balance = low_half(word);
            (balance < MOST * ONE).then(|| join(high_half(word), (balance + share).min(MOST * ONE)))
        };
        // A full bucket stays as it is.
        let _ = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, paid);
    }

    /// Takes one retry out; false if there is none.
    pub(crate) fn withdraw(&self, now: Stamp) -> bool {
        let taken = |word| {
            let (filled, balance) = fill(word, now);
            Some(join(filled, balance.checked_sub(ONE)?))
        };
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken)
            .is_ok()
    }

    /// How many retries are left.
    pub(crate) fn balance(&self, now: Stamp) -> u32 {
        fill(self.0.load(Ordering::Relaxed), now).1 / ONE
    }
}

/// When the bucket has filled, in milliseconds, and its balance, at `now`.
fn fill(word: u64, now: Stamp) -> (u32, u32) {
    let (filled, balance) = (high_half(word), low_half(word));
    let millis = low_half(now.as_nanos() / 1_000_000);
    let passed = millis.wrapping_sub(filled);
    if passed > u32::MAX / 2 {
        // Another thread was here with a later `now`.
        return (filled, balance);
    }
    let reserve = passed.saturating_mul(RESERVE_PER_SECOND * ONE / 1_000);
    let balance = balance
        .saturating_add(reserve)
        .min((RESERVE * ONE).max(balance));
    (millis, balance)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> Stamp {
        Stamp::from_nanos(0).plus(Duration::from_secs(seconds))
    }

    fn withdraw_all(budget: &RetryBudget, now: Stamp) -> usize {
        (0..10_000).take_while(|_| budget.withdraw(now)).count()
    }

    #[test]
    fn an_upstream_with_few_requests_has_a_reserve() {
        let budget = RetryBudget::default();
        assert_eq!(withdraw_all(&budget, at(0)), 10);
        assert_eq!(withdraw_all(&budget, at(1)), 3);
        assert_eq!(withdraw_all(&budget, at(1_000)), 10, "it is bounded");
    }

    #[test]
    fn first_attempts_pay_their_share() {
        let budget = RetryBudget::default();
        withdraw_all(&budget, at(0));
        (0..200).for_each(|_| budget.deposit(20));
        assert_eq!(budget.balance(at(0)), 40);
        assert_eq!(withdraw_all(&budget, at(0)), 40);
    }

    #[test]
    fn the_balance_is_bounded() {
        let budget = RetryBudget::default();
        (0..100_000).for_each(|_| budget.deposit(100));
        assert_eq!(withdraw_all(&budget, at(0)), 100);
    }

    #[test]
    fn time_does_not_take_away_what_was_paid_in() {
        let budget = RetryBudget::default();
        (0..1_000).for_each(|_| budget.deposit(50));
        assert_eq!(budget.balance(at(500)), 100);
        assert_eq!(withdraw_all(&budget, at(500)), 100);
    }

    #[test]
    fn threads_take_no_retry_twice() {
        let budget = RetryBudget::default();
        (0..1_000).for_each(|_| budget.deposit(100));
        let taken: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| withdraw_all(&budget, at(0))))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("the thread ends"))
                .sum()
        });
        assert_eq!(taken, 100);
    }
}
