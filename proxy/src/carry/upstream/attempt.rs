//! One attempt: a connection to one endpoint, the request on it, the head of the reply.

use std::sync::Arc;
use std::time::{Duration, Instant};

use balancer::{EndpointIndex, Outcome};
use pingora::http::ResponseHeader;

use super::exchange::Exchange;
use super::incoming::Incoming;
use super::{Client, GoesOn, Outgoing, Upload};
use crate::carry::failure::{Failure, dial_failure};
use crate::clock;
use crate::observe::Record;
use crate::upstreams::{Connected, Connection, Place, RECENT, Reuse, Share};

/// What an attempt needs to know.
pub(super) struct Attempt<'a> {
    pub(super) members: &'a Arc<Share>,
    pub(super) worker: usize,
    pub(super) goes_on: GoesOn<'a>,
    /// When the first byte must be there; `None`: `first_byte_timeout` after it is sent.
    pub(super) until: Option<Instant>,
}

/// A reply has begun.
pub(super) struct Made {
    pub(super) incoming: Incoming,
    pub(super) head: Box<ResponseHeader>,
    /// From the request sent to the reply's head.
    pub(super) first_byte: Duration,
    pub(super) until: Instant,
}

/// None has.
pub(super) struct Failed {
    pub(super) failure: Failure,
    pub(super) until: Instant,
}

/// Where an attempt begins.
pub(super) enum Start {
    /// With a connection.
    New,
    /// With one that never served: a kept one ended before it was of use.
    Stale {
        /// How long that one had been idle.
        rested: Duration,
    },
    /// On this one, on which the request was sent.
    On {
        connection: Box<Connection>,
        /// How long it had been idle; `None`: it was made for this request.
        rested: Option<Duration>,
        sent: Instant,
    },
}

impl Attempt<'_> {
    pub(super) async fn make(
        &self,
        mut place: Place,
        start: Start,
        outgoing: &mut Outgoing,
        mut client: Client<'_>,
        record: &mut Record,
    ) -> Result<Made, Failed> {
        let settings = &self.members.common().settings;
        let mut reuse = outgoing.reuse();
        let mut until = self.until;
        let mut given = None;
        match start {
            Start::New => {}
            Start::Stale { rested } => {
                self.went_stale(place.endpoint(), rested);
                reuse = Reuse::Never;
            }
            Start::On {
                connection,
                rested,
                sent,
            } => {
                let connected = match rested {
                    Some(rested) => Connected::kept(connection, rested),
                    None => Connected::made(connection),
                };
                given = Some((connected, sent));
            }
        }
        loop {
            let is_given = given.is_some();
            let began = clock::now();
            let deadline = |now: Instant| now + settings.first_byte_timeout;
            let connected = match given.take() {
                Some(given) => Ok(given),
                None => self
                    .members
                    .connect(place.endpoint(), self.worker, reuse, outgoing.from, began)
                    .await
                    .map(|connected| (connected, clock::now())),
            };
            let (connected, sent) = match connected {
                Ok(connected) => connected,
                Err(error) => {
                    let failure = dial_failure(&error);
                    tracing::debug!(
                        upstream = self.members.common().name(),
                        endpoint = self.members.name(place.endpoint()),
                        %error,
                        "no connection"
                    );
                    return Err(Failed {
                        failure,
                        until: until.unwrap_or_else(|| deadline(clock::now())),
                    });
                }
            };
            place.connected();
            if !is_given {
                record.connect = (!connected.reused).then(|| sent.saturating_duration_since(began));
            }
            let until = *until.get_or_insert_with(|| deadline(sent));
            let this_try = match settings.retry.per_try_timeout {
                Some(patience) => until.min(sent + patience),
                None => until,
            };
            let multiplexed = connected.session.is_h2();
            let mut exchange = Exchange {
                session: connected.session,
                settings,
                goes_on: self.goes_on,
                sent,
                until: this_try,
                tainted: false,
                seen: false,
            };
            match exchange.run(outgoing, client.as_deref_mut()).await {
                Ok(head) => {
                    return Ok(Made {
                        first_byte: clock::now().saturating_duration_since(exchange.sent),
                        incoming: Incoming::new(
                            self.members.clone(),
                            self.worker,
                            place,
                            exchange.session,
                            (
                                exchange.tainted,
                                matches!(outgoing.upload, Upload::Streamed { .. }),
                            ),
                        ),
                        head,
                        until,
                    });
                }
                // The connection was old and ended before it was of use: that says nothing of the
                // endpoint, unless it was in use a moment ago.
                Err(Failure::Reset)
                    if connected.reused
                        && !exchange.seen
                        && reuse == Reuse::Any
                        && !multiplexed =>
                {
                    self.went_stale(place.endpoint(), connected.rested);
                    reuse = Reuse::Never;
                }
                Err(Failure::Reset) if connected.reused && !exchange.seen && !multiplexed => {
                    self.members.be_careful(place.endpoint(), clock::now());
                    return Err(Failed {
                        failure: Failure::Reset,
                        until,
                    });
                }
                Err(failure) => return Err(Failed { failure, until }),
            }
        }
    }

    /// A kept connection ended before it was of use.
    fn went_stale(&self, endpoint: EndpointIndex, rested: Duration) {
        if rested < RECENT {
            let now = clock::now();
            self.members.be_careful(endpoint, now);
            // Nobody lets go of such a one: it is an error of the endpoint.
            self.members.record(endpoint, Outcome::Reset, None, now);
        }
    }
}
