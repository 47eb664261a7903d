//! An endpoint with room for one more request, or a turn in the queue for one.

use std::sync::Arc;

use balancer::{PickContext, PickError};

use super::{Client, GoesOn};
use crate::carry::failure::{ClientFault, Failure};
use crate::clock;
use crate::observe::{Record, Refused};
use crate::upstreams::{NoTurn, Place, Share, Try};

/// Why there is none.
pub(super) enum NoPlace {
    Pick(PickError),
    /// The wait in the queue came to nothing, or its client left.
    Queue(Failure),
}

/// Gets a place; waits in the queue, if there is one, while none is free. `client` is watched
/// meanwhile.
pub(super) async fn get(
    members: &Arc<Share>,
    context: &PickContext<'_>,
    client: Client<'_>,
    goes_on: GoesOn<'_>,
    record: &mut Record,
) -> Result<Place, NoPlace> {
    let queue = members.common().queue.as_ref();
    // Who waits already comes first.
    if queue.is_none_or(|queue| queue.len() == 0) {
        match (members.acquire(context, clock::now()), queue) {
            (Ok(place), _) => return Ok(place),
            (Err(PickError::Saturated), Some(_)) => {}
            (Err(error), _) => return Err(NoPlace::Pick(error)),
        }
    }
    let (Some(queue), Some(settings)) = (queue, members.common().settings.queue) else {
        return Err(NoPlace::Pick(PickError::Saturated));
    };
    let began = clock::now();
    let take = || match members.acquire(context, clock::now()) {
        Err(PickError::Saturated) if context.tried.is_empty() && members.are_newest() => {
            Try::NothingFree
        }
        Err(PickError::Saturated) => Try::NothingForMe,
        other => Try::Taken(other),
    };
    let wait = queue.wait(began + settings.timeout, take);
    let got = Box::pin(watched(wait, client, goes_on)).await;
    record.queued = Some(clock::now().saturating_duration_since(began));
    match got {
        Ok(Ok(Ok(place))) => Ok(place),
        Ok(Ok(Err(error))) => Err(NoPlace::Pick(error)),
        Ok(Err(no_turn)) => {
            let (refused, failure) = match no_turn {
                NoTurn::Full => (Refused::QueueFull, Failure::QueueFull),
                NoTurn::Timeout => (Refused::QueueTimeout, Failure::QueueTimeout),
            };
            record.refused = Some(refused);
            Err(NoPlace::Queue(failure))
        }
        Err(failure) => Err(NoPlace::Queue(failure)),
    }
}

/// Does `work` while the client is there, or others wait for the same.
pub(super) async fn watched<T>(
    work: impl Future<Output = T>,
    client: Client<'_>,
    goes_on: GoesOn<'_>,
) -> Result<T, Failure> {
    let mut work = std::pin::pin!(work);
    let Some(client) = client else {
        return Ok(work.await);
    };
    tokio::select! {
        biased;
        done = &mut work => return Ok(done),
        // Without a body to come this ends by the client going away, or by one that breaks the
        // protocol.
        _ = client.read_body_or_idle(true) => {}
    }
    if goes_on() {
        return Ok(work.await);
    }
    Err(Failure::Client(ClientFault::Gone))
}
