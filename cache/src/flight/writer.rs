//! The leader's side of a flight.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use thiserror::Error;

use super::object::{End, Flight, Place, compact};
use super::{Reader, Table, lock};
use crate::head::Head;
use crate::store::Store;
use crate::stored::Stored;
use crate::tags::{Life, Mode};

/// The leader's end. Dropped without an end, it fails its readers.
#[derive(Debug)]
pub struct Writer {
    pub(super) flight: Arc<Flight>,
    table: Arc<Table>,
    max_object: u64,
    declared: Option<u64>,
    /// Nobody was to wait for this fetch from the start.
    alone: bool,
    /// What comes is for those who wait, and not stored.
    unkept: bool,
    ended: bool,
}

/// What became of the bytes pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Growth {
    /// They are kept for the object.
    Kept,
    /// The object is too large to keep; they pass by those who read.
    Passing,
}

/// Why a body came to no good end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PushError {
    /// The object will not be kept and nobody reads it any more: stop fetching.
    #[error("nobody reads this object any more, and it is not to be kept")]
    Abandoned,
    /// There are more bytes than Content-Length says.
    #[error("the body is longer than its Content-Length")]
    TooLong,
}

/// Why a flight could not be finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the body ended before its Content-Length, or without a head")]
pub struct Incomplete;

impl Writer {
    pub(super) fn new(flight: Arc<Flight>, table: &Arc<Table>, max_object: u64) -> Self {
        let alone = !lock(&flight.state).joinable;
        let table = Arc::clone(table);
        Self {
            flight,
            table,
            max_object,
            declared: None,
            alone,
            unkept: false,
            ended: false,
        }
    }

    /// A reader for the leader's own client, whom [`release`](Self::release) does not send away.
    /// Take it before the first push.
    pub fn reader(&self) -> Reader {
        let mut state = lock(&self.flight.state);
        let place = Place {
            next: state.first,
            follower: false,
        };
        let id = state.attach(place);
        drop(state);
        Reader::new(Arc::clone(&self.flight), id)
    }

    /// The number of the latest purge by tag when the fetch began: what its object is
    /// [bound](Store::life) with.
    pub fn since(&self) -> u64 {
        self.flight.since
    }

    /// What comes is shared with those who wait for it, and not stored.
    pub fn keep_not(&mut self) {
        self.unkept = true;
    }

    /// The head came, and is for all. `life` is what the object is bound to.
    pub fn head(&mut self, head: Arc<Head>, life: Arc<Life>) {
        self.declared = head.content_length().filter(|_| head.may_have_body());
        let mut state = lock(&self.flight.state);
        state.head = Some(head);
        state.life = Some(life);
        drop(state);
        self.flight.news.notify_waiters();
    }

    /// The response is not to be shared: sends the followers on their own ways and leaves a marker,
    /// so that for `lifetime` nobody waits. What still comes may be stored, for validation. Call it
    /// before [`head`](Self::head): a follower who is already sending would have to break off.
    pub fn release(&mut self, now: SystemTime, lifetime: Duration) {
        self.table.mark(self.flight.key.as_key(), now, lifetime);
        let mut state = lock(&self.flight.state);
        state.joinable = false;
        state.places.retain(|_, place| !place.follower);
        self.flight.make_room(&mut state);
        drop(state);
        self.flight.news.notify_waiters();
    }

    /// The response is not to be stored at all: [`release`](Self::release)s all and ends.
    pub fn uncacheable(mut self, now: SystemTime, lifetime: Duration) {
        self.release(now, lifetime);
    }

    /// Bytes of the body. Waits only in a window, for the slowest reader; a wait that is given up has
    /// taken nothing.
    ///
    /// # Errors
    /// When there are more than declared, or nobody is left who wants them; then drop the writer.
    pub async fn push(&mut self, data: Bytes) -> Result<Growth, PushError> {
        loop {
            // Listening before looking, so that room made in between is not missed.
            let mut room = pin!(self.flight.room.notified());
            room.as_mut().enable();
            if let Some(result) = self.try_push(&data) {
                return result;
            }
            room.await;
        }
    }

    /// `None`: no room.
    fn try_push(&self, data: &Bytes) -> Option<Result<Growth, PushError>> {
        let length = data.len() as u64;
        let flight = &*self.flight;
        let mut state = lock(&flight.state);
        let total = state.received + length;
        if self.declared.is_some_and(|declared| total > declared) {
            return Some(Err(PushError::TooLong));
        }
        let budget = self.table.limits.max_buffered;
        let fits = flight
            .buffered
            .load(Ordering::Relaxed)
            .saturating_add(length)
            <= budget;
        if !state.windowed && (total > self.max_object || !fits) {
            state.windowed = true;
            state.joinable = false;
            flight.make_room(&mut state);
        }
        if (state.windowed || self.unkept) && state.places.is_empty() {
            // Who would join now would have to be failed.
            state.joinable = false;
            return Some(Err(PushError::Abandoned));
        }
        if state.windowed && state.held >= self.table.limits.window {
            return None;
        }
        let growth = if state.windowed {
            Growth::Passing
        } else {
            Growth::Kept
        };
        if length > 0 {
            // What is kept must not hold on to the upstream's larger buffer.
            let owned = growth == Growth::Kept;
            let piece = if owned {
                Bytes::copy_from_slice(data)
            } else {
                data.clone()
            };
            state.pieces.push_back(piece);
            state.held += length;
            state.received = total;
            flight.buffered.fetch_add(length, Ordering::Relaxed);
        }
        drop(state);
        flight.news.notify_waiters();
        Some(Ok(growth))
    }

    /// Whether somebody reads. A fetch for the store goes on without.
    pub fn has_readers(&self) -> bool {
        !lock(&self.flight.state).places.is_empty()
    }

    /// Lets nobody join any more, if nobody reads; whether that is so. Who joined in time is not to be
    /// failed.
    pub fn give_up_unread(&mut self) -> bool {
        let mut state = lock(&self.flight.state);
        let is_unread = state.places.is_empty();
        state.joinable &= !is_unread;
        is_unread
    }

    /// The body is complete: puts the object into the store and ends the flight. `None` when it was
    /// too large to keep, was purged meanwhile, or the store cannot hold it.
    ///
    /// # Errors
    /// [`Incomplete`] when bytes are missing; the readers then see a failure and nothing is stored.
    pub fn finish(mut self, store: &Store) -> Result<Option<Arc<Stored>>, Incomplete> {
        let (head, life, pieces) = {
            let state = lock(&self.flight.state);
            let head = state.head.clone().ok_or(Incomplete)?;
            let life = state.life.clone().ok_or(Incomplete)?;
            if self
                .declared
                .is_some_and(|declared| declared != state.received)
            {
                return Err(Incomplete);
            }
            (
                head,
                life,
                (!state.windowed).then(|| state.pieces.iter().cloned().collect::<Vec<_>>()),
            )
        };
        let stored = pieces.map(|pieces| Arc::new(Stored::new(head, compact(pieces), life)));
        let keep = !self.unkept;
        Ok(self.conclude(store, stored, keep))
    }

    /// The object is known as a whole, as after a 304: ends the flight with it, in place of
    /// [`head`](Self::head) and [`push`](Self::push). It goes into the store
    /// unless `keep` is false or it was purged meanwhile. Returns whether it was put in.
    pub fn complete(mut self, store: &Store, stored: Arc<Stored>, keep: bool) -> bool {
        let mut state = lock(&self.flight.state);
        state.head = Some(Arc::clone(stored.head()));
        state.pieces.extend(stored.segments().iter().cloned());
        drop(state);
        self.conclude(store, Some(stored), keep).is_some()
    }

    fn conclude(
        &mut self,
        store: &Store,
        stored: Option<Arc<Stored>>,
        keep: bool,
    ) -> Option<Arc<Stored>> {
        self.ended = true;
        let key = self.flight.key.as_key();
        let kept = self.table.end(&self.flight, |purged| {
            let Some(stored) = stored.as_ref().filter(|_| keep) else {
                return false;
            };
            if let Some(mode) = purged {
                stored.life().purge(mode);
            }
            purged != Some(Mode::Hard) && store.insert(key, Arc::clone(stored))
        });
        if kept && self.alone {
            // What was not to be shared is now there for all.
            self.table.markers.invalidate(&self.flight.key);
        }
        self.flight.set_end(End::Complete(stored.clone()));
        stored.filter(|_| kept)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.ended {
            self.table.end(&self.flight, |_| false);
            self.flight.set_end(End::Failed);
        }
    }
}
