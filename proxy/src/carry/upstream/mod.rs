//! One request to an upstream and its reply: pick, connect, send, read, and
//! again elsewhere where that is safe.
//!
//! A request is sent a second time only if
//!
//! - nothing of it can have been read: no connection came about, or an HTTP/2 endpoint said that
//!   it did not process it (RFC 9113 section 8.7). That costs no retry budget, since it gives
//!   nobody more work;
//! - or it may be repeated: its method is idempotent (RFC 9110 section 9.2.2) or its route says so,
//!   its body is in memory, `retry.on` names what happened, and the retry budget allows it.
//!
//! A kept connection may have been closed by the other side in the same instant, which looks like a
//! reset: requests that may be repeated are then sent on a new connection to the same endpoint
//! without blaming it. Others are sent only on one that was in use less than half a second ago, to
//! an endpoint that has not closed such a one lately: servers keep connections for seconds.

mod attempt;
mod begun;
mod exchange;
mod hedge;
mod incoming;
mod place;

use std::sync::Arc;
use std::time::{Duration, Instant};

use balancer::{EndpointIndex, Outcome, PickContext, PickError};
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::ServerSession;

use self::attempt::{Attempt, Failed, Made, Start};
use self::begun::Came;
pub(crate) use self::begun::{Asked, Begun, begin, connect, unbegun};
pub(crate) use self::incoming::{BothWays, EARLY_BODY, EARLY_TIME, Incoming};
use super::failure::Failure;
use crate::clock;
use crate::exchange::grpc::base64::Decoder;
use crate::observe::{Record, Refused};
use crate::upstreams::{Addresses, Kept, Place, Reuse, Share, Upstream};

/// The body of a request on its way up.
pub(crate) enum Upload {
    /// There is none, or it was sent.
    Done,
    /// In memory, so that it can be sent again.
    Buffered(Bytes),
    /// Read from the client as it arrives.
    Streamed {
        /// Bytes that are still allowed.
        left: u64,
        /// Longest wait between two pieces.
        patience: Duration,
        /// It comes as base64, and goes up as what that stands for.
        text: Option<Decoder>,
    },
}

/// What is sent.
pub(crate) struct Outgoing {
    /// The head as the endpoint sees it, but for the Host of checks.
    pub(crate) head: RequestHeader,
    /// Its body.
    pub(crate) upload: Upload,
    /// The fields behind a body in memory.
    pub(crate) trailers: Option<HeaderMap>,
    /// Consistent-hash key.
    pub(crate) hash: Option<u64>,
    /// The endpoint that the client's cookie names.
    pub(crate) sticky: Option<Kept>,
    /// The client asked to change protocols.
    pub(crate) upgrade: bool,
    /// By HTTP/2, so that the key in the head is the edge's own.
    pub(crate) made_key: bool,
    /// The route allows that it is sent again though its method is not idempotent.
    pub(crate) repeatable: bool,
    /// The body is streamed and part of it was taken from the client: it is gone.
    pub(crate) taken: bool,
    /// For the PROXY header; `None` for work that no client waits for.
    pub(crate) from: Option<Addresses>,
}

impl Outgoing {
    /// Whether doing it twice does no more than doing it once, as far as the edge is told.
    fn may_repeat(&self) -> bool {
        may_repeat(&self.head.method, self.repeatable) && !self.upgrade
    }

    /// Whether the whole of it can be sent once more, though it was sent before.
    fn can_repeat(&self) -> bool {
        !self.taken && !matches!(self.upload, Upload::Streamed { .. })
    }

    /// Which kept connections will do for it.
    fn reuse(&self) -> Reuse {
        match self.upgrade {
            true => Reuse::Never,
            false => reuse(self.may_repeat() && self.can_repeat()),
        }
    }

    fn can_hedge(&self) -> bool {
        matches!(self.head.method, Method::GET | Method::HEAD)
            && matches!(self.upload, Upload::Done)
            && !self.upgrade
    }

    /// The same request once more; only for one without a body.
    fn copy(&self) -> Self {
        Self {
            head: self.head.clone(),
            upload: Upload::Done,
            trailers: None,
            hash: self.hash,
            sticky: self.sticky,
            upgrade: false,
            made_key: false,
            repeatable: self.repeatable,
            taken: false,
            from: self.from,
        }
    }
}

/// Whether a request may be carried out twice. `declared`: its route says so.
pub(crate) fn may_repeat(method: &Method, declared: bool) -> bool {
    declared || method.is_idempotent()
}

/// Which kept connections will do for a request. `again`: it can be sent once more, and may be.
pub(crate) fn reuse(again: bool) -> Reuse {
    match again {
        true => Reuse::Any,
        false => Reuse::Recent,
    }
}

/// Whether a body of `length` octets goes up as it comes, instead of being kept for a second attempt.
pub(crate) fn is_streamed(upstream: &Upstream, length: u64) -> bool {
    length > upstream.settings().retry.max_body_size
}

/// Most octets of a body that are sent in one with the head, and once more with it.
///
/// `allowed`: most that the request may have.
pub(crate) fn most_at_once(upstream: &Upstream, allowed: u64) -> u64 {
    let again = upstream.settings().retry.max_body_size;
    allowed.min(again).min(EARLY_BODY)
}

/// The client's side while a request is carried; `None` for work in the background.
pub(crate) type Client<'c> = Option<&'c mut ServerSession>;

/// Whether a request goes on when its client leaves before the reply: others may wait for it.
pub(crate) type GoesOn<'a> = &'a (dyn Fn() -> bool + Sync);

/// Sends `outgoing` to an endpoint of `upstream` and reads the head of the reply. Where the request
/// has `begun` on another carrier, goes on from there.
///
/// # Errors
/// The last attempt's failure, when no further one is allowed.
pub(crate) async fn open(
    upstream: &Upstream,
    worker: usize,
    outgoing: &mut Outgoing,
    mut client: Client<'_>,
    goes_on: GoesOn<'_>,
    record: &mut Record,
    begun: Option<Begun>,
) -> Result<(Incoming, Box<ResponseHeader>), Failure> {
    let (mut run, came) = match begun {
        Some(begun) => begun.into_run(worker, goes_on),
        None => {
            let members = upstream.share(worker);
            let prefer = outgoing.sticky.and_then(|kept| members.sticky(kept.hash));
            let run = Run::new(members, worker, goes_on, prefer);
            (run, Came::Nowhere)
        }
    };
    record.endpoints = Some(run.members.shown().clone());
    let mut step = match came {
        Came::Nowhere => {
            let place = run.place(outgoing, client.as_deref_mut(), record).await?;
            Step::Attempt(place, Start::New)
        }
        Came::Picked(place) => Step::Attempt(place, Start::New),
        Came::Asked { place, start, .. } => Step::Attempt(place, start),
        Came::Failed { endpoint, failed } => Step::Failed(run.fail(endpoint, &failed, record)),
    };
    loop {
        let made = match step {
            Step::Attempt(place, start) => {
                run.attempt(place, start, outgoing, client.as_deref_mut(), record)
                    .await
            }
            Step::Failed(failure) => Err(failure),
        };
        let failure = match made {
            Ok(reply) => {
                if !run.again_on(reply.head.status, outgoing, record) {
                    return Ok((reply.incoming, reply.head));
                }
                let endpoint = reply.incoming.endpoint();
                if !run.tried.contains(&endpoint) {
                    run.tried.push(endpoint);
                }
                // The answer is given up only for the promise of another one.
                let next = run.place(outgoing, client.as_deref_mut(), record).await;
                let Ok(next) = next else {
                    return Ok((reply.incoming, reply.head));
                };
                tokio::spawn(reply.incoming.discard());
                step = Step::Attempt(next, Start::New);
                continue;
            }
            Err(failure) => failure,
        };
        if !run.again_after(failure, outgoing, record) {
            return Err(run.verdict(failure));
        }
        // Within so short a time, an endpoint that cannot be reached stays so.
        run.same_again = !failure.is_unsent();
        let next = match run.place(outgoing, client.as_deref_mut(), record).await {
            Ok(next) => next,
            Err(client @ Failure::Client(_)) => return Err(client),
            Err(_) => return Err(run.verdict(failure)),
        };
        step = Step::Attempt(next, Start::New);
    }
}

/// What is to be looked at next.
enum Step {
    Attempt(Place, Start),
    /// One that was made before.
    Failed(Failure),
}

/// What has been done for one request so far.
struct Run<'a> {
    members: Arc<Share>,
    worker: usize,
    goes_on: GoesOn<'a>,
    prefer: Option<EndpointIndex>,
    tried: Vec<EndpointIndex>,
    count: u32,
    /// Where nobody else is left, an endpoint that was tried may be asked once more.
    same_again: bool,
    /// When the first byte of a reply must be there: set when the request is sent first.
    until: Option<Instant>,
}

impl<'a> Run<'a> {
    fn new(
        members: Arc<Share>,
        worker: usize,
        goes_on: GoesOn<'a>,
        prefer: Option<EndpointIndex>,
    ) -> Self {
        Self {
            members,
            worker,
            goes_on,
            prefer,
            tried: Vec::new(),
            count: 0,
            same_again: true,
            until: None,
        }
    }

    /// An endpoint for the next attempt, waited for in the upstream's queue if need be.
    async fn place(
        &self,
        outgoing: &Outgoing,
        client: Client<'_>,
        record: &mut Record,
    ) -> Result<Place, Failure> {
        let context = PickContext {
            hash: outgoing.hash,
            tried: &self.tried,
            prefer: self.prefer,
        };
        let streamed = !outgoing.can_repeat();
        let got = place::get(
            &self.members,
            &context,
            client.filter(|_| !streamed),
            self.goes_on,
            record,
        )
        .await;
        match got {
            Ok(place) => Ok(place),
            Err(place::NoPlace::Pick(PickError::Exhausted)) if self.same_again => {
                let context = PickContext {
                    tried: &[],
                    ..context
                };
                let place = self.members.acquire(&context, clock::now());
                place.map_err(|_| Failure::NoEndpoint)
            }
            Err(place::NoPlace::Pick(error)) => {
                let (refused, failure) = match error {
                    PickError::Saturated => (Refused::Limit, Failure::Saturated),
                    PickError::NoneAvailable | PickError::Exhausted => {
                        (Refused::NoEndpoint, Failure::NoEndpoint)
                    }
                };
                record.refused = Some(refused);
                Err(failure)
            }
            Err(place::NoPlace::Queue(failure)) => Err(failure),
        }
    }

    /// One attempt, or two beside each other.
    async fn attempt(
        &mut self,
        place: Place,
        start: Start,
        outgoing: &mut Outgoing,
        client: Client<'_>,
        record: &mut Record,
    ) -> Result<Made, Failure> {
        let settings = &self.members.common().settings;
        let is_new = matches!(start, Start::New);
        if is_new {
            self.count += 1;
            record.attempts.begin(place.number());
        }
        if is_new
            && self.count == 1
            && let Some(hedge) = settings.hedge
            && outgoing.can_hedge()
            && let Some(delay) = self.members.pool().latency_percentile(hedge.percentile)
        {
            let delay = delay.max(hedge.min_delay);
            let hedged = hedge::Hedged {
                members: &self.members,
                worker: self.worker,
                goes_on: self.goes_on,
                delay,
                until: *self
                    .until
                    .insert(clock::now() + settings.first_byte_timeout),
                prefer: self.prefer,
            };
            let (made, tried) = Box::pin(hedged.make(place, outgoing, client, record)).await;
            self.count = u32::try_from(tried.len()).unwrap_or(self.count);
            self.tried.extend(tried);
            return made;
        }
        let endpoint = place.endpoint();
        let attempt = Attempt {
            members: &self.members,
            worker: self.worker,
            goes_on: self.goes_on,
            until: self.until,
        };
        let mut made = attempt.make(place, start, outgoing, client, record).await;
        if let Ok(reply) = &made {
            record.attempts.answered(reply.head.status.as_u16());
        }
        if matches!(outgoing.upload, Upload::Done | Upload::Buffered(_)) {
            made = early(made).await;
        }
        self.settle(endpoint, made, record)
    }

    /// Tells the pool and the record how an attempt ended.
    fn settle(
        &mut self,
        endpoint: EndpointIndex,
        made: Result<Made, Failed>,
        record: &mut Record,
    ) -> Result<Made, Failure> {
        match made {
            Ok(made) => {
                self.until = Some(made.until);
                record.first_byte = Some(made.first_byte);
                let (status, now) = (made.head.status, clock::now());
                answered(&self.members, endpoint, status, made.first_byte, now);
                Ok(made)
            }
            Err(failed) => Err(self.fail(endpoint, &failed, record)),
        }
    }

    fn fail(&mut self, endpoint: EndpointIndex, failed: &Failed, record: &mut Record) -> Failure {
        self.until = Some(failed.until);
        self.tried.push(endpoint);
        if failed.failure == Failure::ConnectionLimit {
            record.refused = Some(Refused::Limit);
        }
        failed_at(&self.members, endpoint, failed.failure, record);
        failed.failure
    }

    fn may_go_on(&self) -> bool {
        self.count < self.members.common().settings.retry.attempts.get()
    }

    fn again_on(&self, status: StatusCode, outgoing: &Outgoing, record: &mut Record) -> bool {
        let retry = &self.members.common().settings.retry;
        retry.on_statuses.contains(&status)
            && self.may_go_on()
            && outgoing.may_repeat()
            && outgoing.can_repeat()
            && self.budget(record)
    }

    fn again_after(&self, failure: Failure, outgoing: &Outgoing, record: &mut Record) -> bool {
        let retry = &self.members.common().settings.retry;
        if !self.may_go_on() {
            return false;
        }
        let again = match failure {
            // Nobody was asked.
            Failure::ConnectionLimit => true,
            Failure::Unprocessed => !outgoing.taken,
            // A client certificate is refused after the request was sent: what was taken of its
            // body then is gone.
            failure if failure.is_unsent() => retry.on_connect_failure && !outgoing.taken,
            failure => {
                let named = match failure {
                    Failure::Reset | Failure::BadReply => retry.on_reset,
                    Failure::FirstByteTimeout => {
                        retry.on_timeout && self.until.is_some_and(|until| clock::now() < until)
                    }
                    _ => false,
                };
                named && outgoing.may_repeat() && outgoing.can_repeat() && self.budget(record)
            }
        };
        if again {
            tracing::debug!(
                upstream = self.members.common().name(),
                failure = failure.as_str(),
                attempt = self.count,
                "attempt failed"
            );
        }
        again
    }

    /// Takes one from the retry budget.
    fn budget(&self, record: &mut Record) -> bool {
        let allowed = self.members.pool().may_retry(clock::now());
        if !allowed {
            record.refused = Some(Refused::RetryBudget);
        }
        allowed
    }

    /// What the client is told in the end.
    fn verdict(&self, failure: Failure) -> Failure {
        match failure {
            // Not one of them can be reached: that passes, and the client is told when to come again.
            Failure::Connect if self.tried.len() >= self.members.len() => Failure::AllRefused,
            Failure::ConnectionLimit => Failure::Saturated,
            failure => failure,
        }
    }
}

/// A reply whose body is small and breaks off is none.
async fn early(made: Result<Made, Failed>) -> Result<Made, Failed> {
    let mut made = made?;
    match made.incoming.read_early(&made.head).await {
        Ok(()) => Ok(made),
        Err(failure) => Err(Failed {
            failure,
            until: made.until,
        }),
    }
}

/// Tells the pool of an answer.
fn answered(
    members: &Share,
    endpoint: EndpointIndex,
    status: StatusCode,
    first_byte: Duration,
    now: Instant,
) {
    let outcome = match status.is_server_error() {
        true => Outcome::Status5xx,
        false => Outcome::Success,
    };
    members.record(endpoint, outcome, Some(first_byte), now);
}

/// Tells the pool and the record of a failure, if it is the endpoint's.
fn failed_at(members: &Share, endpoint: EndpointIndex, failure: Failure, record: &mut Record) {
    let Some((outcome, counted)) = failure.outcome() else {
        return;
    };
    record.attempts.failed(counted);
    members.record(endpoint, outcome, None, clock::now());
}
