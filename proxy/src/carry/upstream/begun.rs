//! A request that another carrier began and leaves to this one.
//!
//! The lane makes a first attempt of the plain kind: on a kept connection that will do for the
//! request. What does not come out as an ordinary reply is handed over as it stands, so that all that
//! is to be decided then (whether and where again, what the client is told) is decided in one place.

use std::sync::Arc;
use std::time::{Duration, Instant};

use balancer::{EndpointIndex, Outcome, PickContext};

use super::attempt::{Failed, Start};
use super::exchange::first_byte_patience;
use super::{Run, answered};
use crate::carry::failure::{Failure, dial_failure};
use crate::clock;
use crate::observe::Record;
use crate::upstreams::{Connection, Place, Reuse, Share, Upstream};

/// See the module's text.
pub(crate) struct Begun {
    members: Arc<Share>,
    pub(super) came: Came,
    passed: Option<u64>,
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

/// A request under way on a kept connection, or on one that was made for it.
pub(crate) struct Asked {
    members: Arc<Share>,
    place: Place,
    /// [`Reuse::Never`]: the connection is not a kept one.
    reuse: Reuse,
    /// How long the connection had been idle.
    rested: Duration,
    sent: Instant,
    /// When the first byte must be there.
    until: Instant,
}

/// A request for which no endpoint was picked yet.
pub(crate) fn unbegun(upstream: &Upstream, worker: usize) -> Begun {
    Begun::new(upstream.share(worker), Came::Nowhere)
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
    let members = upstream.share(worker);
    let nowhere = |members| Begun::new(members, Came::Nowhere);
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
    let Ok(place) = members.acquire(&context, now) else {
        return Err(nowhere(members));
    };
    let Some((connection, rested)) = members.take(place.endpoint(), worker, reuse, now) else {
        return Err(Begun::new(members, Came::Picked(place)));
    };
    record.attempts.begin(place.number());
    let asked = Asked::new(members, place, (reuse, rested), now, record);
    Ok((asked, connection))
}

/// Makes the connection that `begun` has an endpoint for and that is not kept.
///
/// # Errors
/// There is no endpoint, or no connection came about.
pub(crate) async fn connect(
    begun: Begun,
    worker: usize,
    record: &mut Record,
) -> Result<(Asked, Box<Connection>), Begun> {
    let Begun {
        members,
        came: Came::Picked(place),
        ..
    } = begun
    else {
        return Err(begun);
    };
    let endpoint = place.endpoint();
    record.endpoints = Some(members.shown().clone());
    record.attempts.begin(place.number());
    let began = clock::now();
    let connected = members.connect_raw(endpoint, worker, None).await;
    let now = clock::now();
    match connected {
        Ok(connection) => {
            record.connect = Some(now.saturating_duration_since(began));
            let kept = (Reuse::Never, Duration::ZERO);
            let asked = Asked::new(members, place, kept, now, record);
            Ok((asked, connection))
        }
        Err(error) => {
            let failed = Failed {
                failure: dial_failure(&error),
                until: now + members.common().settings.first_byte_timeout,
            };
            Err(Begun::new(members, Came::Failed { endpoint, failed }))
        }
    }
}

impl Asked {
    /// A connection to `place` is there at `now`.
    fn new(
        members: Arc<Share>,
        mut place: Place,
        (reuse, rested): (Reuse, Duration),
        now: Instant,
        record: &mut Record,
    ) -> Self {
        record.endpoints = Some(members.shown().clone());
        place.connected();
        Self {
            until: now + members.common().settings.first_byte_timeout,
            place,
            reuse,
            rested,
            sent: now,
            members,
        }
    }

    /// The whole of a body that took its time has gone up by `now`: the endpoint's time begins.
    pub(crate) fn is_whole(&mut self, now: Instant) {
        self.sent = now;
        self.until = now + self.members.common().settings.first_byte_timeout;
    }

    /// When the reply must have begun.
    pub(crate) fn deadline(&self) -> Instant {
        let patience = first_byte_patience(&self.members.common().settings);
        self.until.min(self.sent + patience)
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
            Reuse::Recent => {
                self.members.be_careful(self.place.endpoint(), clock::now());
                self.failed(Failure::Reset)
            }
            Reuse::Never => self.failed(Failure::Reset),
        }
    }

    /// What came of it, `unread`, is for the other carrier to read.
    pub(crate) fn leave(self, mut connection: Box<Connection>, unread: Vec<u8>) -> Begun {
        connection.begin_anew(unread);
        let start = Start::On {
            connection,
            rested: (self.reuse != Reuse::Never).then_some(self.rested),
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
        Begun::new(self.members, Came::Failed { endpoint, failed })
    }

    fn asked(self, start: Start) -> Begun {
        let came = Came::Asked {
            place: self.place,
            start,
            until: self.until,
        };
        Begun::new(self.members, came)
    }
}

impl Begun {
    fn new(members: Arc<Share>, came: Came) -> Self {
        Self {
            members,
            came,
            passed: None,
        }
    }

    /// So many octets of the body went up; the request that is handed over has the rest.
    pub(crate) fn passed(self, octets: Option<u64>) -> Self {
        Self {
            passed: octets,
            ..self
        }
    }

    /// The whole request went up, with its body.
    pub(in crate::carry) fn is_sent(&self) -> bool {
        let on = matches!(
            self.came,
            Came::Asked {
                start: Start::On { .. },
                ..
            }
        );
        on && self.passed.is_none()
    }

    /// How many octets of the body went up, if it went up as it came.
    pub(in crate::carry) fn has_passed(&self) -> Option<u64> {
        self.passed
    }

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
