//! What an HTTP/2 connection costs beside its requests: frames that carry nothing.
//!
//! Each PING wants an answer, each SETTINGS and WINDOW_UPDATE a look at the streams, each reset ends
//! work that was begun. A client may send them without bound and the HTTP/2 layer takes most of them
//! without a word (CVE-2019-9511 to 9517, CVE-2023-44487, CVE-2025-8671). So both directions are
//! looked through for frame heads, and nothing but these nine octets is read: frames that carry
//! nothing cost, requests, replies and bodies earn, and time earns a little. A client whose account
//! is empty gives work and has none.
//!
//! It takes some 220 instructions for a request with its reply, and less than one for each 100 octets of
//! a body (counted with valgrind, three frames and one a 16 KiB).
//!
//! What is honest comes out even: a client that downloads may grant windows for what it got, one that
//! gives up requests may do so with those that were answered, and all that a browser does when its
//! user leaves a page fits into what an account holds.

use std::num::NonZeroU64;
use std::time::Instant;

/// Octets of a frame's head (RFC 9113 section 4.1).
const HEAD: usize = 9;

/// Octets in front of a client's first frame (RFC 9113 section 3.4).
const PREFACE: u32 = 24;

/// Frame types (RFC 9113 section 6).
const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const RST_STREAM: u8 = 0x3;
const SETTINGS: u8 = 0x4;
const WINDOW_UPDATE: u8 = 0x8;

/// END_STREAM of DATA, ACK of SETTINGS.
const FLAG: u8 = 0x1;

/// How many seconds' worth of frames an account holds.
const HOLDS: i64 = 20;

/// A frame's head, but for its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Head {
    kind: u8,
    flags: u8,
    /// Octets of its payload.
    length: u32,
}

/// Finds frame heads in octets that come in pieces.
#[derive(Debug)]
struct Scanner {
    /// Of a head that has not all come.
    head: [u8; HEAD],
    have: usize,
    /// Octets up to the next head.
    skip: u32,
}

impl Scanner {
    fn new(skip: u32) -> Self {
        Self {
            head: [0; HEAD],
            have: 0,
            skip,
        }
    }

    fn feed(&mut self, mut bytes: &[u8], mut see: impl FnMut(Head)) {
        loop {
            let skip = self.skip as usize;
            let Some(rest) = bytes.get(skip..) else {
                // Less than `skip`, which came from 32 bits.
                self.skip -= u32::try_from(bytes.len()).unwrap_or(self.skip);
                return;
            };
            self.skip = 0;
            bytes = rest;
            let head = match bytes.split_first_chunk::<HEAD>() {
                Some((head, rest)) if self.have == 0 => {
                    bytes = rest;
                    *head
                }
                _ => {
                    let taken = (HEAD - self.have).min(bytes.len());
                    self.head[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
                    self.have += taken;
                    bytes = &bytes[taken..];
                    if self.have < HEAD {
                        return;
                    }
                    self.have = 0;
                    self.head
                }
            };
            let [a, b, c, kind, flags, ..] = head;
            self.skip = u32::from_be_bytes([0, a, b, c]);
            see(Head {
                kind,
                flags,
                length: self.skip,
            });
        }
    }
}

/// What a client may still cost. It is filled by time, too, as slowly as its rate says, and holds so
/// many seconds' worth.
#[derive(Debug)]
pub(crate) struct Purse {
    left: i64,
    /// Earned a second.
    rate: i64,
    /// Up to when time has earned.
    at: Instant,
    is_over: bool,
}

impl Purse {
    /// `rate`: frames that carry nothing, a second.
    pub(crate) fn new(rate: NonZeroU64, now: Instant) -> Self {
        let rate = i64::try_from(rate.get()).map_or(i64::MAX / HOLDS, |rate| rate.min(1 << 40));
        Self {
            left: rate * HOLDS,
            rate,
            at: now,
            is_over: false,
        }
    }

    /// What it holds at the most.
    fn most(&self) -> i64 {
        self.rate * HOLDS
    }

    /// What is earned, or costs where it is below zero.
    pub(crate) fn put(&mut self, worth: i64) {
        self.left = self.left.saturating_add(worth).min(self.most());
    }

    /// Whether it is empty. It stays so. `now` is asked where that decides: time earns when nothing
    /// else is left, so that it costs no clock otherwise.
    pub(crate) fn is_over(&mut self, now: impl FnOnce() -> Instant) -> bool {
        if self.left < 0 && !self.is_over {
            self.earn(now());
            self.is_over = self.left < 0;
        }
        self.is_over
    }

    fn earn(&mut self, now: Instant) {
        let gone = now.saturating_duration_since(self.at);
        let millis = i64::try_from(gone.as_millis()).unwrap_or(i64::MAX);
        self.put(self.rate.saturating_mul(millis) / 1000);
        self.at = now;
    }
}

/// A connection's account. See the module's text.
#[derive(Debug)]
pub(crate) struct Frames {
    received: Scanner,
    sent: Scanner,
    purse: Purse,
}

impl Frames {
    /// Of a connection on which nothing was read, not even the preface. `rate`: frames that carry
    /// nothing, a second.
    pub(crate) fn new(rate: NonZeroU64, now: Instant) -> Self {
        Self {
            received: Scanner::new(PREFACE),
            sent: Scanner::new(0),
            purse: Purse::new(rate, now),
        }
    }

    /// Whether the account is empty after these octets of the client. It stays so.
    /// `now` is asked where that decides.
    pub(crate) fn receive(&mut self, bytes: &[u8], now: impl FnOnce() -> Instant) -> bool {
        let purse = &mut self.purse;
        self.received.feed(bytes, |head| purse.put(of_client(head)));
        purse.is_over(now)
    }

    /// Octets that the client is sent.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let purse = &mut self.purse;
        self.sent.feed(bytes, |head| purse.put(of_server(head)));
    }
}

/// What a frame of the client's brings, or costs.
fn of_client(head: Head) -> i64 {
    match (head.kind, head.flags & FLAG != 0) {
        // A request; it is not worth more than what ends it without a reply.
        (HEADERS, _) => 2,
        // A piece so small that it might as well be nothing; the HTTP/2 layer counts those.
        (DATA, false) if head.length == 0 => -1,
        (DATA, _) if head.length < 256 => 0,
        (DATA, _) => 1 + i64::from(head.length / 512),
        (RST_STREAM, _) => -5,
        // They may change every stream.
        (SETTINGS, false) => -4,
        // One for a byte costs as much as that byte brings, and more.
        (WINDOW_UPDATE, _) => -2,
        _ => -1,
    }
}

/// What a frame that the client is sent brings, or costs.
fn of_server(head: Head) -> i64 {
    match head.kind {
        HEADERS => 3,
        DATA if head.length > 0 => 1 + i64::from(head.length / 512),
        // Something was wrong with what the client sent: that costs the same as if it had reset.
        RST_STREAM => -5,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::clock;

    const PING: u8 = 0x6;
    const RATE: NonZeroU64 = NonZeroU64::new(100).unwrap();

    fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let size = u32::try_from(length).unwrap().to_be_bytes();
        let mut frame = vec![size[1], size[2], size[3], kind, flags, 0, 0, 0, 1];
        frame.resize(HEAD + length, 0xff);
        frame
    }

    struct Held {
        frames: Frames,
        now: Instant,
    }

    impl Held {
        fn new() -> Self {
            let now = clock::now();
            let mut frames = Frames::new(RATE, now);
            assert!(!frames.receive(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", || now));
            Self { frames, now }
        }

        fn receive(&mut self, bytes: &[u8]) -> bool {
            self.frames.receive(bytes, || self.now)
        }

        /// How many times the frames can be sent.
        fn times(&mut self, frames: &[u8], replies: &[u8]) -> usize {
            (0..100_000)
                .take_while(|_| {
                    let over = self.receive(frames);
                    self.frames.send(replies);
                    !over
                })
                .count()
        }
    }

    #[test]
    fn frames_that_carry_nothing_come_to_an_end() {
        for (name, frames, replies, most) in [
            ("pings", frame(PING, 0, 8), frame(PING, 1, 8), 2000),
            (
                "settings",
                frame(SETTINGS, 0, 6),
                frame(SETTINGS, 1, 0),
                500,
            ),
            ("empty pieces", frame(DATA, 0, 0), vec![], 2000),
            ("priorities", frame(0x2, 0, 5), vec![], 2000),
            ("unknown ones", frame(0x55, 0, 100), vec![], 2000),
            ("windows", frame(WINDOW_UPDATE, 0, 4), vec![], 1000),
        ] {
            assert_eq!(Held::new().times(&frames, &replies), most, "{name}");
        }
    }

    #[test]
    fn requests_that_are_reset_at_once_come_to_an_end() {
        let reset = [frame(HEADERS, 5, 40), frame(RST_STREAM, 0, 4)].concat();
        assert!(Held::new().times(&reset, &[]) < 700);
        let provoked = [frame(HEADERS, 4, 40), frame(WINDOW_UPDATE, 0, 4)].concat();
        let times = Held::new().times(&provoked, &frame(RST_STREAM, 0, 4));
        assert!(times < 700, "{times} resets of ours");
    }

    #[test]
    fn a_body_in_bytes_comes_to_an_end() {
        let window = frame(WINDOW_UPDATE, 0, 4);
        assert!(Held::new().times(&window, &frame(DATA, 0, 1)) <= 2000);
    }

    #[test]
    fn an_honest_client_goes_on_for_ever() {
        for (name, asked, replied) in [
            (
                "requests",
                frame(HEADERS, 5, 60),
                [frame(HEADERS, 4, 30), frame(DATA, 1, 1000)].concat(),
            ),
            (
                "requests that are given up once they are answered",
                [frame(HEADERS, 5, 60), frame(RST_STREAM, 0, 4)].concat(),
                frame(HEADERS, 4, 30),
            ),
            (
                "a download with windows of 4 KiB for stream and connection",
                frame(WINDOW_UPDATE, 0, 4).repeat(2),
                frame(DATA, 0, 4096),
            ),
            (
                "messages that are measured by a ping each",
                frame(PING, 0, 8),
                frame(DATA, 0, 20),
            ),
            (
                "an upload",
                frame(DATA, 0, 1024),
                frame(WINDOW_UPDATE, 0, 4),
            ),
        ] {
            assert_eq!(Held::new().times(&asked, &replied), 100_000, "{name}");
        }
        let mut held = Held::new();
        for second in 0..10_000 {
            held.now += Duration::from_secs(1);
            assert!(!held.receive(&frame(PING, 0, 8).repeat(100)), "{second}");
        }
    }

    #[test]
    fn a_page_that_is_left_is_no_attack() {
        let mut held = Held::new();
        assert!(!held.receive(&frame(HEADERS, 5, 60).repeat(128)));
        assert!(!held.receive(&frame(RST_STREAM, 0, 4).repeat(128)));
    }

    #[test]
    fn once_over_it_stays_over() {
        let mut held = Held::new();
        assert!(held.receive(&frame(PING, 0, 8).repeat(2001)));
        held.now += Duration::from_secs(3600);
        assert!(held.receive(b""));
    }

    proptest! {
        /// Pieces change nothing.
        #[test]
        fn heads_are_found_wherever_they_are_cut(
            frames in prop::collection::vec((any::<u8>(), any::<u8>(), 0..300_usize), 0..20),
            size in 1..64_usize,
        ) {
            let bytes: Vec<u8> = frames.iter().flat_map(|&(kind, flags, length)| frame(kind, flags, length)).collect();
            let mut found = Vec::new();
            let mut scanner = Scanner::new(0);
            for piece in bytes.chunks(size) {
                scanner.feed(piece, |head| found.push((head.kind, head.flags, head.length as usize)));
            }
            prop_assert_eq!(found, frames);
        }
    }
}
