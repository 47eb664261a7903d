//! A request on its way to an upstream and its reply's head on the way back, whatever protocol the
//! client speaks.

use std::time::Instant;

use super::lines::Lines;
use super::wire::{Body, Client, Early, Step, Wire};
use super::{Hit, What};
use crate::carry::failure::Failure;
use crate::carry::upstream::{self, Asked, Begun};
use crate::exchange::backward::{ReplyFacts, Translated, translate};
use crate::listen::buffers;
use crate::snapshot::Action;

/// How an exchange went.
pub(super) enum Went {
    /// The client has the whole reply.
    Whole {
        /// And was told that the connection ends.
        last: bool,
    },
    /// The other carrier goes on with it.
    Left(Begun),
    /// The client left before it was told anything.
    Gone,
    /// It broke off in the middle of the reply.
    Broken(Failure),
}

/// What becomes of the upstream's connection behind a whole reply.
pub(super) struct Ending {
    pub(super) worker: usize,
    /// The upstream goes on with it.
    pub(super) keep_alive: bool,
}

impl Ending {
    /// The whole reply was passed on.
    pub(super) fn finish(self, flight: InFlight, now: Instant) {
        let InFlight { asked, wire } = flight;
        let is_whole = wire.at == wire.inbox.len();
        let Wire {
            connection, inbox, ..
        } = wire;
        if self.keep_alive && is_whole {
            asked.finish(self.worker, connection, now);
        }
        buffers::give(inbox);
    }
}

/// A request that went up, and the connection that its reply comes on. Who waits for the reply borrows
/// it: moved from one to the next, each would have room for it.
pub(super) struct InFlight {
    pub(super) asked: Asked,
    pub(super) wire: Wire,
}

impl InFlight {
    /// What came of its reply is for the other carrier to judge.
    pub(super) fn leave(self) -> Went {
        Went::Left(self.asked.leave(self.wire.connection, self.wire.inbox))
    }

    pub(super) fn failed(self, failure: Failure) -> Went {
        Went::Left(self.asked.failed(failure))
    }

    /// The upstream's connection is over, and nothing came.
    fn ended(self) -> Went {
        Went::Left(self.asked.ended())
    }

    fn late(self) -> Went {
        self.failed(Failure::FirstByteTimeout)
    }
}

/// Sends the request up, but for a body that is to go up as it comes; `flight` is what becomes of it.
///
/// # Errors
/// Why it is not sent: never [`Went::Whole`] or [`Went::Broken`].
pub(super) async fn send(
    worker: usize,
    client: &mut impl Client,
    hit: &mut Hit,
    request_len: usize,
    flight: &mut Option<InFlight>,
) -> Result<(), Went> {
    let Hit {
        snapshot,
        record,
        what: What::Proxied(asking),
        route,
    } = hit
    else {
        return Err(Went::Gone);
    };
    let mut lines = std::mem::take(&mut asking.lines);
    let Some(Action::Upstream { upstream, .. }) =
        snapshot.routes.get(*route).map(|route| &route.action)
    else {
        return Err(Went::Gone);
    };
    let wanted = (asking.hash, asking.reuse);
    let (asked, connection) = {
        let begun = match upstream::begin(upstream, worker, wanted, record.start, record) {
            // What cannot be sent again is seldom sent on a connection that was idle for a while.
            Err(begun) if asking.streamed.is_some() => {
                Box::pin(upstream::connect(begun, worker, record)).await
            }
            begun => begun,
        };
        match begun {
            Ok(begun) => begun,
            Err(begun) => {
                buffers::give(lines);
                return Err(Went::Left(begun));
            }
        }
    };
    let InFlight { asked, wire } = flight.insert(InFlight {
        asked,
        wire: Wire {
            connection,
            inbox: Vec::new(),
            at: 0,
            request_len,
            trailers: None,
        },
    });
    client.set_deadline(Some(asked.deadline()));
    let sent = wire.send(client, &lines).await;
    buffers::release(&mut lines);
    match sent {
        Step::Done => {
            wire.inbox = buffers::take();
            Ok(())
        }
        Step::Ended => Err(over(flight, InFlight::ended)),
        Step::Gone => Err(Went::Gone),
        Step::Late => Err(over(flight, InFlight::late)),
    }
}

/// What is told instead of a reply.
pub(super) fn over(flight: &mut Option<InFlight>, why: fn(InFlight) -> Went) -> Went {
    flight.take().map_or(Went::Gone, why)
}

/// Reads the head of the reply, and a small body. The client's head is begun in `out`.
///
/// # Errors
/// Why there is none to begin: never [`Went::Whole`] or [`Went::Broken`].
pub(super) async fn hear(
    client: &mut impl Client,
    hit: &mut Hit,
    flight: &mut Option<InFlight>,
    to_head: bool,
    out: &mut Vec<u8>,
) -> Result<(ReplyFacts, Body), Went> {
    let Hit {
        snapshot,
        record,
        what: What::Proxied(asking),
        ..
    } = hit
    else {
        return Err(Went::Gone);
    };
    let Some(route) = snapshot.routes.get(hit.route) else {
        return Err(Went::Gone);
    };
    let Action::Upstream { cache, .. } = &route.action else {
        return Err(Went::Gone);
    };
    let (wire, asked, reply) = loop {
        let Some(InFlight { asked, wire }) = flight else {
            return Err(Went::Gone);
        };
        match wire.more(client).await {
            Step::Done => {}
            Step::Ended if !wire.inbox.is_empty() => return Err(over(flight, InFlight::leave)),
            Step::Ended => return Err(over(flight, InFlight::ended)),
            Step::Gone => return Err(Went::Gone),
            Step::Late => return Err(over(flight, InFlight::late)),
        }
        match translate(&wire.inbox, to_head, out) {
            Translated::Partial => {}
            Translated::Head(reply) => break (wire, asked, reply),
            Translated::Other => return Err(over(flight, InFlight::leave)),
        }
    };
    let is_for_one = match (&mut asking.past, cache) {
        (Some(past), Some(caching)) => {
            let reply = cache::Response {
                status: reply.status,
                fields: &Lines::of_reply(out),
            };
            past.is_for_one(&caching.policy, reply, record.wall)
        }
        _ => true,
    };
    if !asked.is_wanted(reply.status) || route.may_cover(reply.status) || !is_for_one {
        return Err(over(flight, InFlight::leave));
    }
    match wire.begin_body(client, &reply).await {
        Ok(body) => Ok((reply, body)),
        Err(Early::Gone) => Err(Went::Gone),
        Err(Early::Failed(failure)) => {
            record.attempts.answered(reply.status.as_u16());
            Err(flight
                .take()
                .map_or(Went::Gone, |flight| flight.failed(failure)))
        }
    }
}
