//! Time, for the tests: the one place that reads the clock or sleeps.
//!
//! Whatever a test waits for has a deadline and is looked at again and again;
//! nothing assumes that "a moment later" is long enough. [`hold`] is for the
//! opposite: showing that something does *not* happen during a while.

#![expect(
    clippy::disallowed_methods,
    reason = "tests watch a real process, so real time passes here and nowhere else"
)]

use std::time::{Duration, Instant};

/// Between two looks.
const STEP: Duration = Duration::from_millis(5);

/// Long enough for anything that ought to be immediate, on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(10);

pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Looks until there is something, at most for `limit`.
pub(crate) fn try_until<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = now() + limit;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if now() >= deadline {
            return None;
        }
        std::thread::sleep(STEP);
    }
}

/// Looks until there is something; a test failure after `limit`.
#[track_caller]
pub(crate) fn until<T>(what: &str, limit: Duration, look: impl FnMut() -> Option<T>) -> T {
    match try_until(limit, look) {
        Some(found) => found,
        None => panic!("waited {limit:?} in vain: {what}"),
    }
}

/// Looks until it is so; a test failure after `limit`.
#[track_caller]
pub(crate) fn eventually(what: &str, limit: Duration, mut look: impl FnMut() -> bool) {
    until(what, limit, || look().then_some(()));
}

/// Looks all through `span`; a test failure as soon as it is not so.
#[track_caller]
pub(crate) fn always(what: &str, span: Duration, mut look: impl FnMut() -> bool) {
    let end = now() + span;
    while now() < end {
        assert!(look(), "did not hold for {span:?}: {what}");
        std::thread::sleep(STEP);
    }
}

/// Lets time pass because its passing is what is tested (silence on a
/// connection, an age in seconds, a slow origin).
pub(crate) fn hold(span: Duration) {
    std::thread::sleep(span);
}

pub(crate) fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

pub(crate) fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}
