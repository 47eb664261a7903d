//! Which endpoints were asked for one request, and how each attempt ended.

use super::labels::labels;

/// Attempts kept of one request; later ones are only counted.
pub(crate) const MAX_ATTEMPTS: usize = 32;

/// Attempts of one request in order. One attempt, which is the rule, allocates nothing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Attempts {
    first: Option<Attempt>,
    more: Vec<Attempt>,
    /// 0 is the first, others follow.
    current: usize,
    not_kept: u32,
}

/// One endpoint asked for one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attempt {
    /// Index of the endpoint in its upstream.
    pub(crate) endpoint: u16,
    /// Status it answered with; 0 while it has not.
    pub(crate) status: u16,
    /// What went wrong, before the answer or in the middle of it.
    pub(crate) failure: Option<UpstreamFailure>,
}

impl Attempts {
    /// An attempt on `endpoint` begins. Past [`MAX_ATTEMPTS`] the last one is replaced.
    pub(crate) fn begin(&mut self, endpoint: u16) {
        let attempt = Attempt {
            endpoint,
            status: 0,
            failure: None,
        };
        if self.first.is_none() {
            self.first = Some(attempt);
        } else if self.more.len() < MAX_ATTEMPTS - 1 {
            self.more.push(attempt);
        } else if let Some(last) = self.more.last_mut() {
            *last = attempt;
            self.not_kept = self.not_kept.saturating_add(1);
        }
        self.current = self.more.len();
    }

    /// What is said next is about the last attempt on `endpoint`, of several under way.
    pub(crate) fn resume(&mut self, endpoint: u16) {
        let of = |attempt: &Attempt| attempt.endpoint == endpoint;
        self.current = match self.more.iter().rposition(of) {
            Some(place) => place + 1,
            None => 0,
        };
    }

    /// The attempt under way was answered with `status`.
    pub(crate) fn answered(&mut self, status: u16) {
        if let Some(attempt) = self.current() {
            attempt.status = status;
        }
    }

    /// The attempt under way failed; it may have answered before.
    pub(crate) fn failed(&mut self, failure: UpstreamFailure) {
        if let Some(attempt) = self.current() {
            attempt.failure = Some(failure);
        }
    }

    /// The attempt that was spoken of last: that which gave the answer, or the last that failed.
    #[must_use]
    pub(crate) fn last(&self) -> Option<Attempt> {
        match self.current.checked_sub(1) {
            None => self.first,
            Some(place) => self.more.get(place).copied(),
        }
    }

    /// How many there were, those not kept included.
    #[must_use]
    pub(crate) fn count(&self) -> u64 {
        let kept = usize::from(self.first.is_some()) + self.more.len();
        kept as u64 + u64::from(self.not_kept)
    }

    /// Those kept, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Attempt> {
        self.first.iter().chain(&self.more).copied()
    }

    fn current(&mut self) -> Option<&mut Attempt> {
        match self.current.checked_sub(1) {
            None => self.first.as_mut(),
            Some(place) => self.more.get_mut(place),
        }
    }
}

labels! {
    /// Why an attempt on an endpoint gave no usable answer.
    pub(crate) enum UpstreamFailure {
        /// The connection was refused or could not be routed.
        Connect = "connect",
        /// No connection within `connect_timeout`.
        ConnectTimeout = "connect_timeout",
        /// The TLS handshake or the certificate failed.
        Tls = "tls",
        /// The connection ended before the answer did.
        Reset = "reset",
        /// No first byte within `first_byte_timeout`.
        FirstByteTimeout = "first_byte_timeout",
        /// The body stood still for `read_timeout`.
        ReadTimeout = "read_timeout",
        /// The answer is not HTTP as it must be.
        Malformed = "malformed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_keep_their_order_and_how_each_ended() {
        let mut attempts = Attempts::default();
        attempts.answered(200);
        assert_eq!(attempts.last(), None, "an answer to no attempt is none");
        attempts.begin(2);
        attempts.failed(UpstreamFailure::Connect);
        attempts.begin(0);
        attempts.answered(200);
        attempts.failed(UpstreamFailure::Reset);
        let seen: Vec<Attempt> = attempts.iter().collect();
        assert_eq!(
            seen,
            [
                Attempt {
                    endpoint: 2,
                    status: 0,
                    failure: Some(UpstreamFailure::Connect)
                },
                Attempt {
                    endpoint: 0,
                    status: 200,
                    failure: Some(UpstreamFailure::Reset)
                },
            ]
        );
        assert_eq!(attempts.last().map(|last| last.endpoint), Some(0));
    }

    #[test]
    fn attempts_are_bounded_and_still_counted() {
        let mut attempts = Attempts::default();
        for endpoint in 0..100 {
            attempts.begin(endpoint);
        }
        assert_eq!(attempts.iter().count(), MAX_ATTEMPTS);
        assert_eq!(attempts.count(), 100);
        assert_eq!(attempts.last().map(|last| last.endpoint), Some(99));
    }
}
