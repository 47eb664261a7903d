//! A request that another carrier began and leaves to this one.
//!
//! The lane makes a first attempt of the plain kind: on a kept connection that will do for the
//! request. What does not come out as an ordinary reply is handed over as it stands, so that all that
//! is to be decided then (whether and where again, what the client is told) is decided in one place.

use std::sync::Arc;
use std::time::{Duration, Instant};

use balancer::{EndpointIndex, Outcome, PickContext};

use super::attempt::{Failed, Start};
use super::{Run, answered};
use crate::carry::failure::Failure;
use crate::clock;
use crate::observe::Record;
use crate::upstreams::{Connection, Members, Place, Reuse, Upstream};

/// See the module's text.
pub(crate) struct Begun {
    members: Arc<Members>,
    pub(super) came: Came,
}

/// How far it came.
pub(super) enum Came {
    /// No endpoint was asked.
    Nowhere,
    /// One was picked, to which no connection is kept.
    Picked(Place),
    /// One was asked, and this came of it.
    Asked {
        place: Place,
        start: Start,
        until: Instant,
    },
    /// It failed there.
    Failed {
        endpoint: EndpointIndex,
        failed: Failed,
    },
}

/// A request under way on a kept connection.
pub(crate) struct Asked {
    members: Arc<Members>,
    place: Place,
    reuse: Reuse,
    /// How long the connection had been idle.
    rested: Duration,
    sent: Instant,
    /// When the first byte must be there.
    until: Instant,
}

/// A request for which no endpoint was picked yet.
pub(crate) fn unbegun(upstream: &Upstream) -> Begun {
    Begun {
        members: upstream.members(),
        came: Came::Nowhere,
    }
}

/// Picks an endpoint and takes a kept connection to it, one that will do for the request.
///
/// # Errors
/// What there is for the other carrier, where that cannot be had at once.
pub(crate) fn begin(
    upstream: &Upstream,
    worker: usize,
    (hash, reuse): (Option<u64>, Reuse),
    now: Instant,
    record: &mut Record,
) -> Result<(Asked, Box<Connection>), Begun> {
    let members = upstream.members();
    let nowhere = |members| Begun {
        members,
        came: Came::Nowhere,
    };
    let common = members.common();
    // Who waits already comes first.
    if common.queue.as_ref().is_some_and(|queue| queue.len() > 0) {
        return Err(nowhere(members));
    }
    let context = PickContext {
        hash,
        tried: &[],
        prefer: None,
    };
    let Ok(mut place) = members.acquire(&context, now) else {
        return Err(nowhere(members));
    };
    let Some((connection, rested)) = members.take(place.endpoint(), worker, reuse, now) else {
        let came = Came::Picked(place);
        return Err(Begun { members, came });
    };
    record.endpoints = Some(members.shown().clone());
    record.attempts.begin(place.number());
    place.connected();
    let settings = &members.common().settings;
    let until = now + settings.first_byte_timeout;
    let asked = Asked {
        place,
        reuse,
        rested,
        sent: now,
        until,
        members,
    };
    Ok((asked, connection))
}

impl Asked {
    /// When the reply must have begun.
    pub(crate) fn deadline(&self) -> Instant {
        let settings = &self.members.common().settings;
        match settings.retry.per_try_timeout {
            Some(patience) => self.until.min(self.sent + patience),
            None => self.until,
        }
    }

    /// Longest wait within a reply.
    pub(crate) fn read_timeout(&self) -> Duration {
        self.members.common().settings.read_timeout
    }

    /// Whether a reply of this status is the one that the client gets.
    pub(crate) fn is_wanted(&self, status: http::StatusCode) -> bool {
        let retry = &self.members.common().settings.retry;
        !retry.on_statuses.contains(&status)
    }

    /// The reply has begun by `now` and is the one that the client gets.
    pub(crate) fn answered(&self, status: http::StatusCode, now: Instant, record: &mut Record) {
        let first_byte = now.saturating_duration_since(self.sent);
        record.first_byte = Some(first_byte);
        record.attempts.answered(status.as_u16());
        answered(
            &self.members,
            self.place.endpoint(),
            status,
            first_byte,
            now,
        );
    }

    /// The reply broke off when the client had been told of it.
    pub(crate) fn broke_off(&self, failure: Failure) {
        if let Some((outcome, _)) = failure.outcome() {
            self.record(outcome);
        }
    }

    fn record(&self, outcome: Outcome) {
        let endpoint = self.place.endpoint();
        self.members.record(endpoint, outcome, None, clock::now());
    }

    /// The whole reply was read, and the connection can be used again.
    pub(crate) fn finish(self, worker: usize, connection: Box<Connection>, now: Instant) {
        self.members
            .put(self.place.endpoint(), worker, connection, now);
    }

    /// The connection ended before anything came of it.
    pub(crate) fn ended(self) -> Begun {
        let rested = self.rested;
        match self.reuse {
            Reuse::Any => self.asked(Start::Stale { rested }),
            // Whether it was read cannot be known.
            Reuse::Recent | Reuse::Never => {
                self.members.be_careful(self.place.endpoint(), clock::now());
                self.failed(Failure::Reset)
            }
        }
    }

    /// What came of it, `unread`, is for the other carrier to read.
    pub(crate) fn leave(self, mut connection: Box<Connection>, unread: Vec<u8>) -> Begun {
        connection.begin_anew(unread);
        let start = Start::On {
            connection,
            rested: self.rested,
            sent: self.sent,
        };
        self.asked(start)
    }

    /// It failed before the client was told of a reply.
    pub(crate) fn failed(self, failure: Failure) -> Begun {
        let endpoint = self.place.endpoint();
        let failed = Failed {
            failure,
            until: self.until,
        };
        Begun {
            members: self.members,
            came: Came::Failed { endpoint, failed },
        }
    }

    fn asked(self, start: Start) -> Begun {
        Begun {
            members: self.members,
            came: Came::Asked {
                place: self.place,
                start,
                until: self.until,
            },
        }
    }
}

impl Begun {
    /// The rest of the run, and how far it came.
    pub(super) fn into_run<'a>(self, worker: usize, goes_on: super::GoesOn<'a>) -> (Run<'a>, Came) {
        let mut run = Run::new(self.members, worker, goes_on, None);
        match &self.came {
            Came::Nowhere | Came::Picked(_) => {}
            Came::Asked { until, .. } => {
                run.count = 1;
                run.until = Some(*until);
            }
            Came::Failed { .. } => run.count = 1,
        }
        (run, self.came)
    }
}
