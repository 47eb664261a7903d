//! A second attempt beside one that is late: the first answer wins.
//!
//! The loser is not cut off. Its endpoint is at work anyway, its connection can be used again, and
//! how it ends says something about it; so it is read to its end beside the request, within the same
//! limits.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use balancer::{EndpointIndex, PickContext};
use tokio::time::sleep;

use super::attempt::{Attempt, Failed, Made, Start};
use super::place::watched;
use super::{Client, GoesOn, Outgoing, answered, early, failed_at};
use crate::carry::failure::Failure;
use crate::clock;
use crate::observe::{Hedge, Record};
use crate::upstreams::{Place, Share};

/// What both attempts share.
pub(super) struct Hedged<'a> {
    pub(super) members: &'a Arc<Share>,
    pub(super) worker: usize,
    pub(super) goes_on: GoesOn<'a>,
    /// After which the second one begins.
    pub(super) delay: Duration,
    /// When the first byte must be there.
    pub(super) until: Instant,
    pub(super) prefer: Option<EndpointIndex>,
}

/// An attempt that owns all that it needs, with the part of the record that it fills.
type Runner = Pin<Box<dyn Future<Output = (Result<Made, Failed>, Record)> + Send>>;

impl Hedged<'_> {
    /// The reply and the endpoints that were asked.
    pub(super) async fn make(
        &self,
        place: Place,
        outgoing: &Outgoing,
        client: Client<'_>,
        record: &mut Record,
    ) -> (Result<Made, Failure>, Vec<EndpointIndex>) {
        let mut asked = vec![place.endpoint()];
        let work = self.race(place, outgoing, record, &mut asked);
        let made = match watched(work, client, self.goes_on).await {
            Ok(made) => made,
            Err(gone) => Err(gone),
        };
        (made, asked)
    }

    async fn race(
        &self,
        place: Place,
        outgoing: &Outgoing,
        record: &mut Record,
        asked: &mut Vec<EndpointIndex>,
    ) -> Result<Made, Failure> {
        let first = place.endpoint();
        let mut early = self.runner(place, outgoing, record);
        let done = tokio::select! {
            biased;
            done = &mut early => Some(done),
            () = sleep(self.delay) => None,
        };
        let mut late = match done {
            Some(done) => return self.settle(first, done, record),
            None => match self.second(first, outgoing.hash, asked) {
                Some(place) => {
                    record.attempts.begin(place.number());
                    self.runner(place, outgoing, record)
                }
                None => {
                    let done = early.await;
                    return self.settle(first, done, record);
                }
            },
        };
        let second = asked.last().copied().unwrap_or(first);
        record.hedge = Some(Hedge::Lost);
        let (winner, done, other, rest) = tokio::select! {
            biased;
            done = &mut early => (first, done, second, late),
            done = &mut late => (second, done, first, early),
        };
        if done.0.is_ok() {
            if winner == second {
                record.hedge = Some(Hedge::Won);
            }
            self.leave_behind(other, rest);
            return self.settle(winner, done, record);
        }
        // One failed: the other may still answer.
        let failed = self.settle(winner, done, record);
        let made = self.settle(other, rest.await, record);
        if made.is_ok() && other == second {
            record.hedge = Some(Hedge::Won);
        }
        made.or(failed)
    }

    /// An endpoint for the second attempt, if the retry budget has one.
    fn second(
        &self,
        first: EndpointIndex,
        hash: Option<u64>,
        asked: &mut Vec<EndpointIndex>,
    ) -> Option<Place> {
        let tried = [first];
        let context = PickContext {
            hash,
            tried: &tried,
            prefer: self.prefer,
        };
        let now = clock::now();
        let place = self.members.acquire(&context, now).ok()?;
        if !self.members.pool().may_retry(now) {
            return None;
        }
        asked.push(place.endpoint());
        Some(place)
    }

    fn runner(&self, place: Place, outgoing: &Outgoing, record: &Record) -> Runner {
        let (members, worker, until) = (self.members.clone(), self.worker, self.until);
        let mut outgoing = outgoing.copy();
        let mut own = Record::new(
            record.start,
            record.wall,
            record.id,
            record.listener,
            record.client,
        );
        Box::pin(async move {
            let attempt = Attempt {
                members: &members,
                worker,
                goes_on: &|| true,
                until: Some(until),
            };
            let start = Start::New;
            let made = attempt
                .make(place, start, &mut outgoing, None, &mut own)
                .await;
            (early(made).await, own)
        })
    }

    /// Tells record and pool how an attempt ended.
    fn settle(
        &self,
        endpoint: EndpointIndex,
        (made, own): (Result<Made, Failed>, Record),
        record: &mut Record,
    ) -> Result<Made, Failure> {
        let number = u16::try_from(endpoint.as_usize()).unwrap_or(u16::MAX);
        record.attempts.resume(number);
        match made {
            Ok(made) => {
                record.connect = own.connect;
                record.first_byte = Some(made.first_byte);
                record.attempts.answered(made.head.status.as_u16());
                let (status, now) = (made.head.status, clock::now());
                answered(self.members, endpoint, status, made.first_byte, now);
                Ok(made)
            }
            Err(failed) => {
                failed_at(self.members, endpoint, failed.failure, record);
                Err(failed.failure)
            }
        }
    }

    fn leave_behind(&self, endpoint: EndpointIndex, rest: Runner) {
        let members = self.members.clone();
        tokio::spawn(async move {
            match rest.await {
                (Ok(made), _) => {
                    let (status, now) = (made.head.status, clock::now());
                    answered(&members, endpoint, status, made.first_byte, now);
                    made.incoming.discard().await;
                }
                (Err(failed), mut own) => {
                    failed_at(&members, endpoint, failed.failure, &mut own);
                }
            }
        });
    }
}
