//! Streams of HTTP/2 and HTTP/3 that wait for their client: for a piece of a body, or for room for one.
//!
//! How little a client may send and take is counted for all streams of a connection together: they
//! share its line, and a hundred pictures at once over a slow one are no hundred slow clients. That
//! no single stream stands still is looked after for each.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use ::h2::SendStream;
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep_until};
use tokio_util::sync::PollSemaphore;

use super::conn::ConnInfo;
use crate::clock;
use crate::exchange::pace::{Pace, Slow};

/// Octets of bodies that all streams of a connection may have waiting for its socket. The library has
/// a bound for each stream alone, and a client that opens a hundred wide ones and reads none would have
/// a hundred of those held for it.
const WAITING: usize = 64 * 1024;

/// Of these, what one stream takes at once.
const AT_ONCE: usize = 32 * 1024;

/// What the streams of a connection give together, and take.
#[derive(Debug)]
pub(crate) struct Paces {
    pub(crate) up: SharedPace,
    pub(crate) down: SharedPace,
    /// A permit for each octet of [`WAITING`].
    waiting: Arc<Semaphore>,
}

impl Paces {
    pub(crate) fn new(limits: &conf::Limits, now: Instant) -> Self {
        let pace = |rate| Arc::new(Mutex::new(Pace::new(rate, limits.min_rate_grace, now)));
        let new = || SharedPace(limits.min_rate.map(pace));
        Self {
            up: new(),
            down: new(),
            waiting: Arc::new(Semaphore::new(WAITING)),
        }
    }

    /// For a stream that asks for its part of what may wait.
    pub(super) fn waiting(&self) -> PollSemaphore {
        PollSemaphore::new(self.waiting.clone())
    }

    /// `piece`, counted among what waits for the socket until it has left; as it is where there is
    /// no room for it now.
    pub(crate) fn try_hold(&self, piece: Bytes) -> Result<Bytes, Bytes> {
        let count = u32::try_from(piece.len()).unwrap_or(u32::MAX);
        match self.waiting.clone().try_acquire_many_owned(count) {
            Ok(permit) => Ok(held(piece, permit)),
            Err(_) => Err(piece),
        }
    }

    /// The same, once there is room.
    async fn hold(&self, piece: Bytes) -> Bytes {
        let piece = match self.try_hold(piece) {
            Ok(held) => return held,
            Err(piece) => piece,
        };
        let count = u32::try_from(piece.len()).unwrap_or(u32::MAX);
        match self.waiting.clone().acquire_many_owned(count).await {
            Ok(permit) => held(piece, permit),
            // It is never closed.
            Err(_) => piece,
        }
    }
}

/// `piece` with what it takes of [`WAITING`], which is given back with its last handle: when it has
/// left, or its stream is reset.
pub(super) fn held(piece: Bytes, permit: OwnedSemaphorePermit) -> Bytes {
    Bytes::from_owner(Held {
        piece,
        _permit: permit,
    })
}

struct Held {
    piece: Bytes,
    _permit: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.piece
    }
}

/// How many octets the client has made room for, once it has. The library tells only of room that was
/// made since it was asked last, so what is left of before is looked for first.
pub(super) fn poll_room(
    writer: &mut SendStream<Bytes>,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<usize, ::h2::Error>>> {
    loop {
        // Room that was given may have been taken back (RFC 9113 section 6.9.2).
        match writer.capacity() {
            0 => match ready!(writer.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                ended => return Poll::Ready(ended),
            },
            room => return Poll::Ready(Some(Ok(room))),
        }
    }
}

/// How much of `wanted` octets one stream asks for at once where the client has made `room` for it.
pub(super) fn at_once(wanted: usize, room: usize) -> usize {
    wanted.min(room).min(AT_ONCE)
}

/// One of [`Paces`].
#[derive(Debug, Clone)]
pub(crate) struct SharedPace(Option<Arc<Mutex<Pace>>>);

impl SharedPace {
    fn lock(&self) -> Option<MutexGuard<'_, Pace>> {
        let pace = self.0.as_ref()?;
        Some(pace.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Bytes came through on a stream that waited for them.
    pub(crate) fn took(&self, bytes: usize) {
        if let Some(mut pace) = self.lock() {
            pace.took(bytes);
        }
    }

    /// Does `work`, which waits for the client, for `most` and until `until` at the longest.
    pub(crate) async fn wait<T>(
        &self,
        most: Option<Duration>,
        until: Option<Instant>,
        work: impl Future<Output = T>,
    ) -> Result<T, Slow> {
        let mut work = pin!(work);
        let mut waiting: Option<Waiting> = None;
        poll_fn(|cx| {
            if let Poll::Ready(done) = work.as_mut().poll(cx) {
                return Poll::Ready(Ok(done));
            }
            let waiting = waiting.get_or_insert_with(|| Waiting::new(self, most, until));
            waiting.poll(cx).map(Err)
        })
        .await
    }
}

/// A stream that waits.
pub(super) struct Waiting {
    pace: SharedPace,
    still: Option<Instant>,
    whole: Option<Instant>,
    timer: Pin<Box<Sleep>>,
}

impl Waiting {
    /// From now on; see [`SharedPace::wait`].
    pub(super) fn new(pace: &SharedPace, most: Option<Duration>, whole: Option<Instant>) -> Self {
        let now = clock::now();
        if let Some(mut pace) = pace.lock() {
            pace.begin(now);
        }
        let mut waiting = Self {
            pace: pace.clone(),
            still: most.map(|most| now + most),
            whole,
            timer: Box::pin(sleep_until(now.into())),
        };
        // Nobody has waited yet, so it is in the future, or the timer says so at once.
        if let Ok(later) = waiting.due(now) {
            waiting.timer.as_mut().reset(later.into());
        }
        waiting
    }

    /// Ends when the client was too slow.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Slow> {
        loop {
            ready!(self.timer.as_mut().poll(cx));
            match self.due(clock::now()) {
                Ok(later) => self.timer.as_mut().reset(later.into()),
                Err(slow) => return Poll::Ready(slow),
            }
        }
    }

    /// When to look again, or what is over.
    fn due(&self, now: Instant) -> Result<Instant, Slow> {
        let pace = self.pace.lock().map(|mut pace| match pace.is_over(now) {
            true => now,
            false => pace.deadline(),
        });
        let all = [
            (self.whole, Slow::Whole),
            (pace, Slow::Rate),
            (self.still, Slow::Still),
        ];
        let known = all.into_iter().filter_map(|(at, slow)| Some((at?, slow)));
        match known.min_by_key(|(at, _)| *at) {
            Some((at, slow)) if at <= now => Err(slow),
            Some((at, _)) => Ok(at),
            // For ever, as nothing bounds it.
            None => Ok(now + Duration::from_secs(3600)),
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(mut pace) = self.pace.lock() {
            pace.leave(clock::now());
        }
    }
}

/// The client has left, or takes nothing, or too little.
pub(crate) struct Gone;

/// Sends `data` down a stream as the client makes room; `ends` that of the whole body. `patience`: how
/// long the client may make no room. `count` counts the bytes for which it did.
pub(crate) async fn send(
    writer: &mut SendStream<Bytes>,
    mut data: Bytes,
    ends: bool,
    (patience, info): (Duration, &ConnInfo),
    count: &mut u64,
) -> Result<(), Gone> {
    while !data.is_empty() {
        writer.reserve_capacity(data.len());
        let room = poll_fn(|cx| poll_room(writer, cx));
        let room = match info.paces().down.wait(Some(patience), None, room).await {
            Ok(Some(Ok(room))) => room,
            Ok(_) => return Err(Gone),
            Err(slow) => {
                info.listener.refused(slow.as_str(), info.peer.ip());
                return Err(Gone);
            }
        };
        let piece = data.split_to(at_once(data.len(), room));
        let held = info.paces().hold(piece);
        let piece = match info.paces().down.wait(Some(patience), None, held).await {
            Ok(piece) => piece,
            Err(slow) => {
                info.listener.refused(slow.as_str(), info.peer.ip());
                return Err(Gone);
            }
        };
        info.paces().down.took(piece.len());
        *count += piece.len() as u64;
        let is_last = ends && data.is_empty();
        writer.send_data(piece, is_last).map_err(|_| Gone)?;
        if is_last {
            return Ok(());
        }
    }
    match ends {
        true => writer.send_data(data, true).map_err(|_| Gone),
        false => Ok(()),
    }
}
