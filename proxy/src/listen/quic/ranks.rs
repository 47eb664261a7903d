//! Which of a connection's replies is sent first (RFC 9218): what its client says of them, before and
//! while they are sent.
//!
//! A reply knows its place here; a PRIORITY_UPDATE finds it by the number of its stream, or is kept
//! until there is such a stream. No more is kept than a client may open.
//!
//! QUIC sends what it holds in this order; what it holds, whoever writes first decides. So a reply that
//! is less urgent than one that waits for room lets that one go first, once each time: room that the
//! other cannot use (its own window is shut) is not left unused.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use super::wire::code::Code;
use crate::exchange::priority::Wish;

/// Of a connection.
#[derive(Debug)]
pub(super) struct Ranks {
    known: Mutex<Known>,
    waiting: Line,
    /// Streams that the client may have open at once.
    most: u64,
}

#[derive(Debug, Default)]
struct Known {
    ranks: HashMap<u64, Arc<Rank>>,
    /// The first stream that was not opened.
    next: u64,
}

/// Replies that wait for room: where they stand, and their streams.
type Line = Arc<Mutex<Vec<(i32, u64)>>>;

/// Of a reply.
#[derive(Debug)]
pub(super) struct Rank {
    id: u64,
    waiting: Line,
    state: Mutex<State>,
    is_abandoned: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    /// By the client's frames, if there were any; by its request; by the reply.
    updated: Option<Wish>,
    asked: Wish,
    replied: Wish,
    /// Who is to hear of a change.
    waker: Option<Waker>,
}

impl Ranks {
    pub(super) fn new(most: u32) -> Self {
        Self {
            known: Mutex::default(),
            waiting: Line::default(),
            most: most.into(),
        }
    }

    /// Of the reply on a stream that was opened, until it is dropped.
    pub(super) fn open(&self, id: u64) -> Arc<Rank> {
        let mut known = lock(&self.known);
        known.next = known.next.max(id + 4);
        known.rank(id, &self.waiting)
    }

    /// A stream is over.
    pub(super) fn close(&self, id: u64) {
        lock(&self.known).ranks.remove(&id);
        lock(&self.waiting).retain(|(_, other)| *other != id);
    }

    /// The client says it anew (section 7.2).
    ///
    /// # Errors
    /// A connection error: it cannot have such a stream.
    pub(super) fn update(&self, id: u64, wish: Wish) -> Result<(), Code> {
        let mut known = lock(&self.known);
        // Numbers of streams for requests are multiples of four (RFC 9000 section 2.1).
        if !id.is_multiple_of(4) || id >= known.next.saturating_add(4 * self.most) {
            return Err(Code::Id);
        }
        // What is over needs none.
        if id < known.next && !known.ranks.contains_key(&id) {
            return Ok(());
        }
        let rank = known.rank(id, &self.waiting);
        drop(known);
        let mut state = lock(&rank.state);
        state.updated = Some(wish);
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
        Ok(())
    }
}

impl Known {
    fn rank(&mut self, id: u64, waiting: &Line) -> Arc<Rank> {
        let rank = || {
            Arc::new(Rank {
                id,
                waiting: waiting.clone(),
                state: Mutex::default(),
                is_abandoned: AtomicBool::new(false),
            })
        };
        self.ranks.entry(id).or_insert_with(rank).clone()
    }
}

impl Rank {
    /// The reply was reset: nothing of it is on its way.
    pub(super) fn abandon(&self) {
        self.is_abandoned.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.is_abandoned.load(Ordering::Relaxed)
    }

    /// What the request says.
    pub(super) fn asked(&self, wish: Wish) {
        lock(&self.state).asked = wish;
    }

    /// What the reply says, which knows better (section 8).
    pub(super) fn replied(&self, wish: Wish) {
        lock(&self.state).replied = wish;
    }

    /// Where it stands; the higher, the sooner. `waker` hears of a change.
    pub(super) fn place(&self, waker: &Waker) -> i32 {
        let mut state = lock(&self.state);
        match &mut state.waker {
            Some(known) => known.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
        // A frame stands for all that the request said, also one that says nothing (section 7).
        let client = state.updated.unwrap_or(state.asked);
        state.replied.over(client).rank(self.id / 4)
    }

    /// Whether a more urgent one waits for room.
    pub(super) fn comes_behind(&self, place: i32) -> bool {
        lock(&self.waiting).iter().any(|(other, _)| *other > place)
    }

    /// It waits for room, or does not.
    pub(super) fn waits(&self, place: i32, waits: bool) {
        let mut line = lock(&self.waiting);
        line.retain(|(_, id)| *id != self.id);
        if waits {
            line.push((place, self.id));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(rank: &Rank) -> i32 {
        rank.place(Waker::noop())
    }

    #[test]
    fn frames_count_before_and_after_the_stream_is_there() {
        let ranks = Ranks::new(2);
        ranks.update(0, Wish::read(b"u=0")).unwrap();
        let (first, second) = (ranks.open(0), ranks.open(4));
        second.asked(Wish::read(b"u=1"));
        assert!(place(&first) > place(&second));
        ranks.update(0, Wish::read(b"u=7, i")).unwrap();
        assert!(place(&first) < place(&second));
        second.replied(Wish::read(b"u=7, i"));
        assert_eq!(place(&first), place(&second));
    }

    #[test]
    fn a_frame_that_says_nothing_takes_back_what_the_request_said() {
        let ranks = Ranks::new(2);
        let (first, second) = (ranks.open(0), ranks.open(4));
        first.asked(Wish::read(b"u=1"));
        assert!(place(&first) > place(&second));
        ranks.update(0, Wish::read(b"")).unwrap();
        assert_eq!(place(&first), {
            ranks.close(0);
            place(&ranks.open(0))
        });
    }

    #[test]
    fn who_is_less_urgent_lets_those_go_first_that_wait() {
        let ranks = Ranks::new(2);
        let (first, second) = (ranks.open(0), ranks.open(4));
        second.waits(10, true);
        assert!(first.comes_behind(9));
        assert!(!first.comes_behind(10));
        second.waits(10, false);
        assert!(!first.comes_behind(9));
        second.waits(10, true);
        ranks.close(4);
        assert!(!first.comes_behind(9));
    }

    #[test]
    fn no_more_is_kept_than_may_be_open() {
        let ranks = Ranks::new(2);
        ranks.open(0);
        let wish = Wish::read(b"u=0");
        assert_eq!(ranks.update(8, wish), Ok(()));
        for beyond in [12, 1 << 60] {
            assert_eq!(ranks.update(beyond, wish), Err(Code::Id));
        }
        for other in [1, 2, 3, 5] {
            assert_eq!(ranks.update(other, wish), Err(Code::Id));
        }
        ranks.close(0);
        assert_eq!(ranks.update(0, wish), Ok(()));
        assert_eq!(lock(&ranks.known).ranks.len(), 1);
    }
}
