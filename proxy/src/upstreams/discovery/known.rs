//! The last known state of one part, and when it is due.

use std::time::{Duration, Instant};

use super::DiscoveryError;

/// After the first failure in a row; doubled with each further one, up to the part's own interval.
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// The last known value of one part.
///
/// A failure never takes it away, and neither does an answer without content: a name that vanished
/// or a list that came out empty is more often a slip in the DNS or in what writes the list than a
/// pool that is really gone, and in the second case health checks take the endpoints out anyway.
#[derive(Debug)]
pub(super) struct Known<T> {
    value: Option<T>,
    as_of: Instant,
    due: Instant,
    failures: u32,
    error: Option<DiscoveryError>,
}

impl<T> Known<T> {
    /// Nothing known, due at once.
    pub(super) fn nothing(now: Instant) -> Self {
        Self {
            value: None,
            as_of: now,
            due: now,
            failures: 0,
            error: None,
        }
    }

    pub(super) fn value(&self) -> Option<&T> {
        self.value.as_ref()
    }

    /// When the value was last found to be so; while nothing is known, when it was first wanted.
    pub(super) fn as_of(&self) -> Instant {
        self.as_of
    }

    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// Why it is not up to date.
    pub(super) fn error(&self) -> Option<&DiscoveryError> {
        self.error.as_ref()
    }

    pub(super) fn due_now(&mut self, now: Instant) {
        self.due = now;
    }

    pub(super) fn found(&mut self, value: T, now: Instant, again_in: Duration) {
        self.value = Some(value);
        self.confirmed(now, again_in);
    }

    /// The value is still so.
    pub(super) fn confirmed(&mut self, now: Instant, again_in: Duration) {
        self.error = None;
        self.failures = 0;
        self.as_of = now;
        self.due = now + again_in;
    }

    /// Keeps what is known; the error is returned for the caller to report.
    pub(super) fn failed(
        &mut self,
        error: DiscoveryError,
        now: Instant,
        at_most: Duration,
    ) -> DiscoveryError {
        let error = error.after(self.error.as_ref());
        let wait = FIRST_RETRY.saturating_mul(2_u32.saturating_pow(self.failures));
        self.failures = self.failures.saturating_add(1);
        self.due = now + wait.min(at_most);
        self.error = Some(error.clone());
        error
    }

    /// A value that is not whole: taken, but asked for again as after a failure.
    pub(super) fn found_in_part(
        &mut self,
        value: T,
        error: DiscoveryError,
        now: Instant,
        at_most: Duration,
    ) -> DiscoveryError {
        self.value = Some(value);
        self.as_of = now;
        self.failed(error, now, at_most)
    }
}
