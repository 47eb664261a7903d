//! Which endpoints were asked for one request, and how each attempt ended.

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

/// Why an attempt on an endpoint gave no usable answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UpstreamFailure {
    /// The connection was refused or could not be routed.
    Connect,
    /// No connection within `connect_timeout`.
    ConnectTimeout,
    /// The TLS handshake or the certificate failed.
    Tls,
    /// The connection ended before the answer did.
    Reset,
    /// No first byte within `first_byte_timeout`.
    FirstByteTimeout,
    /// The body stood still for `read_timeout`.
    ReadTimeout,
    /// The answer is not HTTP as it must be.
    Malformed,
}

impl UpstreamFailure {
    /// Every failure; [`UpstreamFailure::index`] is the place in it.
    pub(crate) const ALL: [Self; 7] = [
        Self::Connect,
        Self::ConnectTimeout,
        Self::Tls,
        Self::Reset,
        Self::FirstByteTimeout,
        Self::ReadTimeout,
        Self::Malformed,
    ];

    /// Place in [`UpstreamFailure::ALL`].
    #[must_use]
    pub(crate) fn index(self) -> usize {
        self as usize
    }

    /// Label and log value.
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::ConnectTimeout => "connect_timeout",
            Self::Tls => "tls",
            Self::Reset => "reset",
            Self::FirstByteTimeout => "first_byte_timeout",
            Self::ReadTimeout => "read_timeout",
            Self::Malformed => "malformed",
        }
    }
}

/// Why outlier detection ejected an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EjectionCause {
    /// Errors in a row.
    ConsecutiveErrors,
    /// Too many of its recent requests failed.
    ErrorRate,
    /// Much slower than the others.
    Latency,
}

impl EjectionCause {
    /// Every cause; [`EjectionCause::index`] is the place in it.
    pub(crate) const ALL: [Self; 3] = [Self::ConsecutiveErrors, Self::ErrorRate, Self::Latency];

    /// Place in [`EjectionCause::ALL`].
    #[must_use]
    pub(crate) fn index(self) -> usize {
        self as usize
    }

    /// Label value: the key of `outlier_detection` that decided.
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::ConsecutiveErrors => "consecutive_errors",
            Self::ErrorRate => "error_rate",
            Self::Latency => "latency_factor",
        }
    }
}

/// What became of a second attempt beside a late one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hedge {
    /// It answered first.
    Won,
    /// The late one did, or both failed.
    Lost,
}

impl Hedge {
    /// Every end; [`Hedge::index`] is the place in it.
    pub(crate) const ALL: [Self; 2] = [Self::Won, Self::Lost];

    /// Place in [`Hedge::ALL`].
    #[must_use]
    pub(crate) fn index(self) -> usize {
        self as usize
    }

    /// Label and log value.
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Won => "won",
            Self::Lost => "lost",
        }
    }
}

/// Why an upstream took no attempt, or no further one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// No endpoint is in service.
    NoEndpoint,
    /// A limit is reached and there is no queue.
    Limit,
    /// The queue is full.
    QueueFull,
    /// The wait in the queue was too long.
    QueueTimeout,
    /// The retry budget is spent.
    RetryBudget,
}

impl Refused {
    /// Every reason; [`Refused::index`] is the place in it.
    pub(crate) const ALL: [Self; 5] = [
        Self::NoEndpoint,
        Self::Limit,
        Self::QueueFull,
        Self::QueueTimeout,
        Self::RetryBudget,
    ];

    /// Place in [`Refused::ALL`].
    #[must_use]
    pub(crate) fn index(self) -> usize {
        self as usize
    }

    /// Label value.
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::NoEndpoint => "no_endpoint",
            Self::Limit => "limit",
            Self::QueueFull => "queue_full",
            Self::QueueTimeout => "queue_timeout",
            Self::RetryBudget => "retry_budget",
        }
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

    #[test]
    fn the_tables_of_labels_are_in_the_order_of_their_indexes() {
        for (place, failure) in UpstreamFailure::ALL.into_iter().enumerate() {
            assert_eq!(failure.index(), place);
        }
        for (place, cause) in EjectionCause::ALL.into_iter().enumerate() {
            assert_eq!(cause.index(), place);
        }
        for (place, hedge) in Hedge::ALL.into_iter().enumerate() {
            assert_eq!(hedge.index(), place);
        }
        for (place, refused) in Refused::ALL.into_iter().enumerate() {
            assert_eq!(refused.index(), place);
        }
    }
}
