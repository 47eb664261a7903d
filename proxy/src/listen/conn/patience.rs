//! How long a client is waited for: while its request's body comes, and while it takes what is
//! written to it.
//!
//! Every byte of every carrier comes through here, so it is held to the limits here, once. Accounts
//! and timers are made when somebody first waits; a connection that never does has none.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::time::{Sleep, sleep_until};

use super::Conn;
use crate::clock;
use crate::exchange::pace::{Pace, Slow};

/// A deadline that is over for so long was not looked at: its timer would have been heard.
const UNSEEN: Duration = Duration::from_secs(1);

/// A connection's.
pub(super) struct Patience {
    /// How long the client may take nothing.
    most: Duration,
    /// What it takes.
    taking: Option<Box<Pace>>,
    /// Runs while it takes nothing.
    stall: Option<Pin<Box<Sleep>>>,
    /// What it gives.
    giving: Option<Box<Pace>>,
    pause: Option<Pin<Box<Sleep>>>,
    /// A read waits for the client.
    pauses: bool,
    /// When the request must have come whole.
    until: Option<Instant>,
    /// The client was too slow.
    is_over: bool,
}

impl Patience {
    pub(super) fn new(most: Duration) -> Self {
        Self {
            most,
            taking: None,
            stall: None,
            giving: None,
            pause: None,
            pauses: false,
            until: None,
            is_over: false,
        }
    }
}

impl Conn {
    /// The socket took bytes.
    pub(super) fn took(&mut self, bytes: usize) {
        let stalled = self.patience.stall.take().is_some();
        if let Some(pace) = &mut self.patience.taking {
            if stalled {
                pace.end(clock::now());
            }
            pace.took(bytes);
        }
    }

    /// Called while the socket takes nothing. Fails once the client has taken nothing for too long, or
    /// too little on average: who does not read holds a connection and what waits in it.
    pub(super) fn poll_stall(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.patience.stall.is_none() {
            let now = clock::now();
            let mut until = now + self.patience.most;
            self.patience.taking = self.patience.taking.take().or_else(|| self.new_pace(now));
            if let Some(pace) = &mut self.patience.taking {
                pace.begin(now);
                until = until.min(pace.deadline());
            }
            self.patience.stall = Some(Box::pin(sleep_until(until.into())));
        }
        if let Some(stall) = &mut self.patience.stall {
            ready!(stall.as_mut().poll(cx));
        }
        let pace = self.patience.taking.as_mut();
        let slow = match pace.is_some_and(|pace| pace.is_over(clock::now())) {
            true => Slow::Rate,
            false => Slow::Still,
        };
        Poll::Ready(Err(self.too_slow(slow)))
    }

    /// A request's body, if there `is` one that ends, has its time from now on.
    pub(super) fn expect_body(&mut self, is: bool) {
        if std::mem::take(&mut self.patience.pauses)
            && let Some(pace) = &mut self.patience.giving
        {
            // The reply was whole before the last body was.
            pace.end(clock::now());
        }
        self.patience.until = is.then(|| {
            let limits = &self.slot.listener().settings.load().limits;
            clock::now() + limits.request_timeout
        });
    }

    /// Bytes of a body came.
    pub(super) fn gave(&mut self, bytes: usize) {
        let paused = std::mem::take(&mut self.patience.pauses);
        let Some(pace) = &mut self.patience.giving else {
            return;
        };
        if paused {
            let now = clock::now();
            let late = pace.deadline() + UNSEEN <= now;
            pace.end(now);
            if late {
                // Who waited for them did not look for a while: they may have been there.
                pace.restore(now);
            }
        }
        pace.took(bytes);
    }

    /// Called while a body does not come. Fails when the whole of it is late, or the client too slow.
    pub(super) fn poll_pause(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(until) = self.patience.until else {
            return Poll::Pending;
        };
        if !self.patience.pauses {
            let now = clock::now();
            self.patience.pauses = true;
            self.patience.giving = self.patience.giving.take().or_else(|| self.new_pace(now));
            if let Some(pace) = &mut self.patience.giving {
                pace.begin(now);
            }
        }
        let pace = self.patience.giving.as_ref();
        let deadline = pace.map_or(until, |pace| until.min(pace.deadline()));
        loop {
            let timer = self
                .patience
                .pause
                .get_or_insert_with(|| Box::pin(sleep_until(deadline.into())));
            // It is not moved for each wait: it fires at some earlier deadline, and is set anew then.
            if timer.deadline().into_std() > deadline {
                timer.as_mut().reset(deadline.into());
            }
            ready!(timer.as_mut().poll(cx));
            if clock::now() >= deadline {
                break;
            }
            timer.as_mut().reset(deadline.into());
        }
        self.patience.pause = None;
        let slow = match deadline == until {
            true => Slow::Whole,
            false => Slow::Rate,
        };
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, slow)))
    }

    fn new_pace(&self, now: Instant) -> Option<Box<Pace>> {
        let limits = &self.slot.listener().settings.load().limits;
        let rate = limits.min_rate?;
        Some(Box::new(Pace::new(rate, limits.min_rate_grace, now)))
    }

    fn too_slow(&mut self, slow: Slow) -> io::Error {
        if !std::mem::replace(&mut self.patience.is_over, true) {
            let client = self.slot.peer().ip();
            self.slot.listener().refused(slow.as_str(), client);
        }
        io::Error::new(io::ErrorKind::TimedOut, slow)
    }
}
