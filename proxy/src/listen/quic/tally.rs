//! What the requests of a connection add up to, and what its frames cost beside them.
//!
//! As over HTTP/2 ([`crate::exchange::frames`]) there is one account for all that gives work and has none:
//! frames of HTTP/3 that carry nothing, requests that are given up, and what QUIC takes and answers by
//! itself. The first are counted where they are read. Of QUIC's frames the library keeps count; it is
//! looked at now and then.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use std::time::Instant;

use quinn::{Connection, ConnectionStats};
use tokio::sync::Notify;

use super::ranks::{Rank, Ranks};
use super::wire::code::Code;
use crate::clock;
use crate::exchange::frames::Purse;
use crate::listen::limits::ListenerState;

/// A request; it is not worth more than what ends it without a reply.
pub(super) const REQUEST: i64 = 2;

/// The head of a reply.
pub(super) const REPLY: i64 = 3;

/// A request that its client gave up.
const GIVEN_UP: i64 = -5;

/// A packet may hold so many frames of streams.
const FRAMES_OF_PACKET: u64 = 16;

/// What a piece of a body is worth; one so small that it might as well be nothing is worth nothing.
pub(super) fn of_body(octets: usize) -> i64 {
    match octets {
        0..256 => 0,
        _ => 1 + worth(octets as u64 / 512),
    }
}

fn worth(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A connection's.
pub(super) struct Tally {
    listener: Arc<ListenerState>,
    /// `None`: frames may cost what they will.
    purse: Option<Mutex<Purse>>,
    /// Requests under way.
    open: AtomicUsize,
    all: AtomicU32,
    /// Told when the last one is over.
    over: Notify,
    /// When that was.
    over_at: Mutex<Option<Instant>>,
    /// In which order their replies are sent.
    pub(super) ranks: Ranks,
    /// Octets of replies that were taken.
    taken: AtomicU64,
    /// The limit that the connection is ended for.
    limit: OnceLock<&'static str>,
}

impl Tally {
    pub(super) fn new(listener: Arc<ListenerState>) -> Arc<Self> {
        let limits = listener.settings.load().limits.clone();
        let rate = limits.max_control_frame_rate;
        Arc::new(Self {
            listener,
            ranks: Ranks::new(limits.max_concurrent_streams.get()),
            taken: AtomicU64::new(0),
            purse: rate.map(|rate| Mutex::new(Purse::new(rate, clock::now()))),
            open: AtomicUsize::new(0),
            all: AtomicU32::new(0),
            over: Notify::new(),
            over_at: Mutex::default(),
            limit: OnceLock::new(),
        })
    }

    /// One more request is under way, on this stream; gives their number from the first on, too.
    pub(super) fn open(self: &Arc<Self>, id: u64) -> (Open, u32) {
        self.open.fetch_add(1, Ordering::Relaxed);
        let all = self.all.fetch_add(1, Ordering::Relaxed) + 1;
        let open = Open {
            rank: self.ranks.open(id),
            tally: self.clone(),
            id,
        };
        (open, all)
    }

    /// Octets of a reply were taken; how many of all replies were.
    pub(super) fn took(&self, octets: usize) -> u64 {
        self.taken.fetch_add(octets as u64, Ordering::Relaxed) + octets as u64
    }

    /// Requests are under way.
    pub(super) fn is_busy(&self) -> bool {
        self.open.load(Ordering::Relaxed) > 0
    }

    /// When the last one was over; `None`: there was none.
    pub(super) fn over_at(&self) -> Option<Instant> {
        *self.over_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until none is under way.
    pub(super) async fn quiet(&self) {
        while self.is_busy() {
            self.over.notified().await;
        }
    }
}

/// A request that is under way.
pub(super) struct Open {
    tally: Arc<Tally>,
    id: u64,
    /// Of its reply.
    pub(super) rank: Arc<Rank>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.tally.ranks.close(self.id);
        if self.tally.open.fetch_sub(1, Ordering::Relaxed) == 1 {
            let mut over_at = self
                .tally
                .over_at
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            *over_at = Some(clock::now());
            drop(over_at);
            self.tally.over.notify_one();
        }
    }
}

/// How a stream reaches its connection.
#[derive(Clone)]
pub(super) struct Ending {
    pub(super) connection: Connection,
    pub(super) tally: Arc<Tally>,
}

impl Ending {
    /// The client broke a rule that all its streams depend on.
    pub(super) fn end_connection(&self, code: Code) {
        match code {
            Code::ExcessiveLoad => self.end_for("h3_abuse"),
            _ => self.connection.close(code.into(), b""),
        }
    }

    /// The client met a limit.
    pub(super) fn end_for(&self, limit: &'static str) {
        if self.tally.limit.set(limit).is_ok() {
            let client = self.connection.remote_address().ip();
            self.tally.listener.refused(limit, client);
            self.connection.close(Code::ExcessiveLoad.into(), b"");
        }
    }

    /// What the client brought, or cost where it is below zero; one that has cost too much is ended.
    pub(super) fn put(&self, worth: i64) {
        let is_over = self.tally.purse.as_ref().map(|purse| {
            let mut purse = purse.lock().unwrap_or_else(PoisonError::into_inner);
            purse.put(worth);
            purse.is_over(clock::now)
        });
        if is_over == Some(true) {
            self.end_for("h3_control_frames");
        }
    }

    /// The client gave a request up.
    pub(super) fn given_up(&self) {
        self.put(GIVEN_UP);
    }

    /// Looks at what QUIC took since `before`, which becomes what it is now.
    pub(super) fn weigh_packets(&self, before: &mut ConnectionStats) {
        let now = self.connection.stats();
        self.put(of_packets(before, &now));
        *before = now;
    }
}

/// What QUIC's frames brought, or cost, between two looks. What honest clients send of them goes with
/// what they are sent: a window for what they got, a word that it stands still.
fn of_packets(before: &ConnectionStats, now: &ConnectionStats) -> i64 {
    let since = |count: fn(&ConnectionStats) -> u64| count(now).saturating_sub(count(before));
    let empty = since(|all| {
        let came = &all.frame_rx;
        came.ping
            + came.path_challenge
            + came.path_response
            + came.new_connection_id
            + came.retire_connection_id
            + came.max_data
            + came.max_stream_data
            + came.max_streams_bidi
            + came.max_streams_uni
            + came.data_blocked
            + came.stream_data_blocked
            + came.streams_blocked_bidi
            + came.streams_blocked_uni
    });
    let may_be = since(|all| all.udp_rx.datagrams).saturating_mul(FRAMES_OF_PACKET);
    let crumbs = since(|all| all.frame_rx.stream).saturating_sub(may_be);
    let sent = since(|all| all.frame_tx.stream) + since(|all| all.udp_tx.bytes) / 512;
    worth(sent) - worth(empty) - worth(crumbs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(fill: impl FnOnce(&mut ConnectionStats)) -> ConnectionStats {
        let mut stats = ConnectionStats::default();
        fill(&mut stats);
        stats
    }

    #[test]
    fn frames_that_carry_nothing_cost() {
        let none = ConnectionStats::default();
        let pings = stats(|it| {
            it.frame_rx.ping = 1000;
            it.udp_tx.bytes = 5000;
        });
        assert_eq!(of_packets(&none, &pings), -991);
        assert_eq!(of_packets(&pings, &pings), 0);
        let crumbs = stats(|it| {
            it.udp_rx.datagrams = 10;
            it.frame_rx.stream = 3000;
        });
        assert_eq!(of_packets(&none, &crumbs), -2840);
    }

    #[test]
    fn a_download_through_narrow_windows_pays_for_itself() {
        let none = ConnectionStats::default();
        // 1 MiB in packets of 1200, with a window for stream and connection for each.
        let download = stats(|it| {
            it.frame_tx.stream = 900;
            it.udp_tx.bytes = 1_100_000;
            it.frame_rx.max_data = 900;
            it.frame_rx.max_stream_data = 900;
            it.frame_rx.stream_data_blocked = 0;
        });
        assert!(of_packets(&none, &download) > 0);
    }
}
