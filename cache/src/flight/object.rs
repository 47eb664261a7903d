//! The object itself while it is on its way: what came so far, who reads it and how far they are.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;

use super::{Reader, lock};
use crate::head::Head;
use crate::key::Key;
use crate::stored::Stored;
use crate::tags::{Life, Mode};

/// One object on its way.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) key: Key,
    pub(super) hint: Box<[u8]>,
    /// The number of the latest purge by tag when it began.
    pub(super) since: u64,
    /// It was begun for all, and not for one request alone.
    pub(super) shared: bool,
    pub(super) state: Mutex<State>,
    /// Head, bytes or end came.
    pub(super) news: Notify,
    /// The slowest reader read, or the last one left.
    pub(super) room: Notify,
    pub(super) buffered: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) head: Option<Arc<Head>>,
    /// The pieces still held; the first one has the number `first`.
    pub(super) pieces: VecDeque<Bytes>,
    pub(super) first: usize,
    /// Bytes held that count against the budget, and bytes of body so far.
    pub(super) held: u64,
    pub(super) received: u64,
    pub(super) end: Option<End>,
    pub(super) joinable: bool,
    /// What the URL was purged by meanwhile.
    pub(super) purged: Option<Mode>,
    /// What the object is bound to, once its head is known.
    pub(super) life: Option<Arc<Life>>,
    pub(super) windowed: bool,
    /// Where each reader stands.
    pub(super) places: HashMap<u64, Place, ahash::RandomState>,
    pub(super) next_reader: u64,
}

/// A reader's position.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// The number of its next piece.
    pub(super) next: usize,
    /// Whether it is one of those who wait for another's fetch.
    pub(super) follower: bool,
}

/// How it ended.
#[derive(Debug, Clone)]
pub(super) enum End {
    Complete(Option<Arc<Stored>>),
    Failed,
}

impl State {
    /// Its URL is purged: nobody new joins what may be older than that.
    pub(super) fn purge(&mut self, mode: Mode) {
        self.joinable = false;
        if self.purged != Some(Mode::Hard) {
            self.purged = Some(mode);
        }
    }

    pub(super) fn attach(&mut self, place: Place) -> u64 {
        let id = self.next_reader;
        self.next_reader += 1;
        self.places.insert(id, place);
        id
    }

    /// Lets go of what every reader has read; for a window only. Returns the bytes.
    pub(super) fn reclaim(&mut self) -> u64 {
        let needed = self.places.values().map(|place| place.next).min();
        let needed = needed.unwrap_or(self.first + self.pieces.len());
        let mut freed = 0;
        while self.first < needed
            && let Some(piece) = self.pieces.pop_front()
        {
            self.first += 1;
            freed += piece.len() as u64;
        }
        self.held -= freed.min(self.held);
        freed
    }
}

impl Flight {
    pub(super) fn new(
        key: Key,
        hint: &[u8],
        since: u64,
        joinable: bool,
        buffered: &Arc<AtomicU64>,
    ) -> Self {
        Self {
            key,
            hint: hint.into(),
            since,
            shared: joinable,
            state: Mutex::new(State {
                joinable,
                ..State::default()
            }),
            news: Notify::new(),
            room: Notify::new(),
            buffered: Arc::clone(buffered),
        }
    }

    pub(super) fn follow(self: &Arc<Self>) -> Option<Reader> {
        let mut state = lock(&self.state);
        if !state.joinable {
            return None;
        }
        let place = Place {
            next: state.first,
            follower: true,
        };
        let id = state.attach(place);
        drop(state);
        Some(Reader::new(Arc::clone(self), id))
    }

    /// After a reader moved or left.
    pub(super) fn make_room(&self, state: &mut State) {
        if state.windowed {
            self.buffered.fetch_sub(state.reclaim(), Ordering::Relaxed);
            self.room.notify_one();
        }
    }

    pub(super) fn set_end(&self, end: End) {
        let mut state = lock(&self.state);
        state.joinable = false;
        state.end = Some(end);
        drop(state);
        self.news.notify_waiters();
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.buffered
            .fetch_sub(lock(&self.state).held, Ordering::Relaxed);
    }
}

/// The largest piece into which small ones are joined.
pub(super) const PIECE: usize = 64 << 10;

/// Joins pieces, so that an object that came in crumbs does not stay in crumbs.
pub(super) fn compact(pieces: Vec<Bytes>) -> Vec<Bytes> {
    let total: usize = pieces.iter().map(Bytes::len).sum();
    if pieces.len() <= total.div_ceil(PIECE).max(1) {
        return pieces;
    }
    let mut joined = Vec::with_capacity(total.div_ceil(PIECE));
    let mut left = total;
    let mut current = BytesMut::with_capacity(left.min(PIECE));
    for mut piece in pieces {
        while !piece.is_empty() {
            let taken = piece.split_to(piece.len().min(PIECE - current.len()));
            current.extend_from_slice(&taken);
            left -= taken.len();
            if current.len() == PIECE {
                let full =
                    std::mem::replace(&mut current, BytesMut::with_capacity(left.min(PIECE)));
                joined.push(full.freeze());
            }
        }
    }
    if !current.is_empty() {
        joined.push(current.freeze());
    }
    joined
}
