//! The one place that reads the clock.
//!
//! Every decision elsewhere takes `now` as an argument, so that a test can hold
//! time in its hand; `clippy.toml` bans the clock outside this module.

use std::time::{Instant, SystemTime};

/// Monotonic time: timeouts, durations, ejection.
#[must_use]
pub(crate) fn now() -> Instant {
    #[expect(
        clippy::disallowed_methods,
        reason = "this module owns the monotonic clock"
    )]
    Instant::now()
}

/// Wall-clock time: freshness, dates, log lines.
#[must_use]
pub(crate) fn wall() -> SystemTime {
    #[expect(clippy::disallowed_methods, reason = "this module owns the wall clock")]
    SystemTime::now()
}
