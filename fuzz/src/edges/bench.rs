//! Two clients and two apps around two edges, in step.

use std::fmt;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use super::app::{Answers, App};
use super::edge::{self, Edge};
use super::message::{self, Asked, Methods, Reply, Text};
use super::socket::Socket;

/// An edge that is busy for so long is taken for one that never rests.
const BUSY: Duration = Duration::from_secs(5);

/// How long a reply that is owed may let wait for it where nothing else happens: a timer may bring
/// it.
const SILENCE: Duration = Duration::from_secs(1);

/// How long sockets are waited for before the edges are looked at again.
const NAP: Duration = Duration::from_micros(30);

/// What became of the client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The edge ended it of itself.
    ByEdge,
    /// When the client had ended its side.
    AfterClient,
    /// The edge let it open even then.
    Open,
}

/// All that a client and an app saw.
pub(super) struct Told {
    pub(super) replies: Vec<Reply>,
    /// What is no reply.
    pub(super) behind: Text,
    pub(super) end: End,
    pub(super) asked: Vec<Asked>,
}

impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "the client got:")?;
        for reply in &self.replies {
            write!(f, "{reply:?}")?;
        }
        writeln!(f, "behind it {:?}, end {:?}", self.behind, self.end)?;
        writeln!(f, "the app got:")?;
        for asked in &self.asked {
            write!(f, "{asked:?}")?;
        }
        Ok(())
    }
}

struct Side {
    edge: Edge,
    app: App,
    client: Option<Socket>,
}

/// See the module's text.
pub(super) struct Bench {
    sides: [Side; 2],
    run: u64,
}

impl Bench {
    pub(super) fn start(trusted: &str) -> Self {
        let sides = edge::start(trusted).map(|(edge, listener)| Side {
            edge,
            app: App::new(listener),
            client: None,
        });
        Self { sides, run: 0 }
    }

    pub(super) fn next_run(&mut self) -> u64 {
        self.run += 1;
        self.run
    }

    /// New clients, and a connection to the app for each of `warm`, unless it is to be `cold`. Their
    /// requests are first ones if they come on a connection `of_their_own`.
    pub(super) fn connect(&mut self, warm: &[&str], cold: bool, of_their_own: bool) {
        self.clear();
        if !cold {
            self.answer(|| Answers::ByPath { held: false });
            self.open();
            for path in warm {
                let request = format!("GET {path} HTTP/1.1\r\nHost: shop.example\r\n\r\n");
                self.send(request.as_bytes());
                self.settle();
                for side in &mut self.sides {
                    let client = side.client.as_mut().expect("connected");
                    assert!(client.inbox.starts_with(b"HTTP/1.1 200 "), "a plain reply");
                    client.inbox.clear();
                }
            }
            if !of_their_own {
                return;
            }
            self.clear_clients();
            self.settle();
        }
        self.open();
    }

    fn open(&mut self) {
        for side in &mut self.sides {
            side.client = Some(Socket::connect(side.edge.address));
        }
    }

    /// Nothing is left of the run before.
    fn clear(&mut self) {
        self.clear_clients();
        self.each_app(App::forget);
        self.settle();
        self.each_app(App::forget);
    }

    fn clear_clients(&mut self) {
        for side in &mut self.sides {
            side.client = None;
        }
    }

    pub(super) fn answer(&mut self, answers: impl Fn() -> Answers) {
        self.each_app(|app| app.begin(answers()));
    }

    pub(super) fn each_app(&mut self, mut act: impl FnMut(&mut App)) {
        for side in &mut self.sides {
            act(&mut side.app);
        }
    }

    pub(super) fn send(&mut self, bytes: &[u8]) {
        for client in self.clients() {
            client.send(bytes);
        }
    }

    pub(super) fn finish(&mut self) {
        for client in self.clients() {
            client.finish();
        }
    }

    /// Clients break off.
    pub(super) fn reset(&mut self) {
        self.clear_clients();
    }

    fn clients(&mut self) -> impl Iterator<Item = &mut Socket> {
        self.sides
            .iter_mut()
            .filter_map(|side| side.client.as_mut())
    }

    /// Until neither edge has anything to do.
    pub(super) fn settle(&mut self) {
        let begun = now();
        let mut calm = 0;
        loop {
            let mut moved = false;
            for side in &mut self.sides {
                moved |= side.client.as_mut().is_some_and(Socket::pump);
                moved |= side.app.pump();
            }
            if moved {
                calm = 0;
                continue;
            }
            // Twice, since threads are not looked at all at once: one may wake another and sleep.
            if calm == 2 {
                return;
            }
            if self
                .sides
                .iter_mut()
                .all(|side| side.edge.threads.are_asleep())
            {
                calm += 1;
                continue;
            }
            calm = 0;
            assert!(begun.elapsed() < BUSY, "an edge does not come to rest");
            self.nap(NAP);
        }
    }

    /// Until something is there to be read, or for so long.
    fn nap(&self, time: Duration) {
        let mut sockets = Vec::new();
        let watch = |fd, is_full| {
            let flags = match is_full {
                true => PollFlags::POLLIN | PollFlags::POLLOUT,
                false => PollFlags::POLLIN,
            };
            PollFd::new(fd, flags)
        };
        for side in &self.sides {
            let listener: BorrowedFd<'_> = std::os::fd::AsFd::as_fd(side.app.listener());
            sockets.push(watch(listener, false));
            let conns = side.app.conns.iter().map(|conn| &conn.socket);
            let open = conns.chain(&side.client).filter(|socket| !socket.ended);
            sockets.extend(open.map(|socket| watch(socket.as_fd(), socket.is_full())));
        }
        // Interrupted is as good as over.
        let _ = ppoll(&mut sockets, Some(TimeSpec::from_duration(time)), None);
    }

    /// Lets the apps do what their answers say, until clients that asked with these methods have
    /// so many final replies. Where an app has said all and a client still waits, the app's
    /// connections end.
    pub(super) fn play(&mut self, methods: &[bool], owed: usize) {
        loop {
            self.settle();
            let mut stepped = false;
            self.each_app(|app| stepped |= app.step());
            if stepped {
                continue;
            }
            let waits: Vec<bool> = self
                .sides
                .iter()
                .map(|side| side.owes(methods, owed))
                .collect();
            if !waits.contains(&true) {
                return;
            }
            let mut ended = false;
            for (side, waits) in self.sides.iter_mut().zip(waits) {
                if waits {
                    ended |= !side.app.conns.is_empty();
                    side.app.conns.clear();
                }
            }
            if !ended && !self.waits_for_a_timer(methods, owed) {
                return;
            }
        }
    }

    /// Whether something comes of itself.
    fn waits_for_a_timer(&mut self, methods: &[bool], owed: usize) -> bool {
        let begun = now();
        while begun.elapsed() < SILENCE {
            self.nap(Duration::from_millis(5));
            self.settle();
            let owes = |side: &Side| side.owes(methods, owed) && side.app.conns.is_empty();
            if !self.sides.iter().any(owes) {
                return true;
            }
        }
        false
    }

    /// What both sides saw, when the clients have ended theirs.
    pub(super) fn tell(&mut self, methods: Methods<'_>) -> [Told; 2] {
        let ended = self.ended();
        self.finish();
        self.settle();
        let ends = self.ended();
        let mut told = self.sides.iter_mut().zip(ended).zip(ends);
        let mut next = || {
            let ((side, before), after) = told.next().expect("two sides");
            let came = match &mut side.client {
                Some(client) => std::mem::take(&mut client.inbox),
                None => Vec::new(),
            };
            let (replies, behind) = message::replies(&came, methods);
            Told {
                replies,
                behind,
                end: match (before, after) {
                    (true, _) => End::ByEdge,
                    (false, true) => End::AfterClient,
                    (false, false) => End::Open,
                },
                asked: side.app.asked(),
            }
        };
        [next(), next()]
    }

    fn ended(&self) -> [bool; 2] {
        let mut ended = [false; 2];
        for (side, ended) in self.sides.iter().zip(&mut ended) {
            *ended = side.client.as_ref().is_none_or(|client| client.ended);
        }
        ended
    }
}

impl Side {
    /// Whether the client waits for one of its replies.
    fn owes(&self, methods: &[bool], owed: usize) -> bool {
        let Some(client) = &self.client else {
            return false;
        };
        if client.ended {
            return false;
        }
        let (replies, behind) = message::replies(&client.inbox, Methods::Known(methods));
        let whole = replies.iter().filter(|reply| reply.is_final_and_whole());
        // What follows on another protocol owes nothing.
        let is_tunnel = replies.last().is_some_and(Reply::is_switch);
        !is_tunnel && (whole.count() < owed || !behind.0.is_empty())
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "an edge that never rests must be found out"
)]
fn now() -> Instant {
    Instant::now()
}
