//! A client's side of a flight.

use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;

use super::lock;
use super::object::{End, Flight, State};
use crate::head::Head;
use crate::stored::Stored;

/// A client's position in an object on its way. A clone reads on from the same position.
#[derive(Debug)]
pub struct Reader {
    flight: Arc<Flight>,
    id: u64,
}

/// Why a reader gets no head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NoHead {
    /// The response is not to be shared: ask for yourself.
    #[error("the response is for another client only")]
    Released,
    /// The leader failed before it had one.
    #[error("the fetch failed before a head came")]
    Failed,
}

/// The leader failed: what was read is not the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the fetch failed before the body was complete")]
pub struct Failed;

impl Reader {
    pub(super) fn new(flight: Arc<Flight>, id: u64) -> Self {
        Self { flight, id }
    }

    /// Waits for the head.
    ///
    /// # Errors
    /// When there will be none for this reader.
    pub async fn head(&mut self) -> Result<Arc<Head>, NoHead> {
        self.wait(|state, id| {
            if !state.places.contains_key(&id) {
                return Some(Err(NoHead::Released));
            }
            match (&state.head, &state.end) {
                (Some(head), _) => Some(Ok(Arc::clone(head))),
                (None, Some(_)) => Some(Err(NoHead::Failed)),
                (None, None) => None,
            }
        })
        .await
    }

    /// Waits for the next bytes of the body; `None` at its end. A wait that is given up loses nothing.
    pub async fn next(&mut self) -> Option<Result<Bytes, Failed>> {
        let flight = Arc::clone(&self.flight);
        self.wait(move |state, id| {
            let first = state.first;
            let Some(place) = state.places.get_mut(&id) else {
                return Some(Some(Err(Failed)));
            };
            if let Some(piece) = state.pieces.get(place.next.saturating_sub(first)).cloned() {
                place.next += 1;
                flight.make_room(state);
                return Some(Some(Ok(piece)));
            }
            match &state.end {
                Some(End::Complete(_)) => Some(None),
                Some(End::Failed) => Some(Some(Err(Failed))),
                None => None,
            }
        })
        .await
    }

    /// The whole object, once it is complete and if it was small enough to keep.
    pub fn stored(&self) -> Option<Arc<Stored>> {
        match &lock(&self.flight.state).end {
            Some(End::Complete(stored)) => stored.clone(),
            Some(End::Failed) | None => None,
        }
    }

    /// Runs `look` until it finds something, each time that something is new.
    async fn wait<T>(&self, mut look: impl FnMut(&mut State, u64) -> Option<T>) -> T {
        loop {
            // Listening before looking, so that news in between is not missed.
            let mut news = pin!(self.flight.news.notified());
            news.as_mut().enable();
            if let Some(found) = look(&mut lock(&self.flight.state), self.id) {
                return found;
            }
            news.await;
        }
    }
}

impl Clone for Reader {
    fn clone(&self) -> Self {
        let mut state = lock(&self.flight.state);
        let id = match state.places.get(&self.id).copied() {
            Some(place) => state.attach(place),
            // Released: the clone is, too.
            None => self.id,
        };
        drop(state);
        Self::new(Arc::clone(&self.flight), id)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = lock(&self.flight.state);
        state.places.remove(&self.id);
        self.flight.make_room(&mut state);
    }
}
