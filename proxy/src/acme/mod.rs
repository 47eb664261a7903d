//! Certificates by themselves: obtained from an authority, kept, and renewed (ACME, RFC 8555).
//!
//! A [`Managed`] is one certificate of the configuration. A task of the control thread
//! ([`Keepers`]) orders it when it is due, answers are shown meanwhile by [`Challenges`], and what
//! comes of it goes to the storage and to the handshakes. The old certificate serves until then,
//! whatever happens. When, and how often, is decided without I/O in [`schedule`].

mod account;
mod challenge;
mod challenges;
mod client;
mod failure;
mod keeper;
mod managed;
mod order;
mod schedule;
mod storage;
mod update;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub(crate) use challenges::{ALPN, Challenges};
pub(crate) use failure::Outcome;
pub(crate) use keeper::Keepers;
pub use managed::AcmeError;
pub(crate) use managed::Managed;

/// What all certificates of a process share, for its whole life.
#[derive(Debug, Default)]
pub(crate) struct Orders {
    pub(crate) challenges: Arc<Challenges>,
    /// One order at a time: authorities count those at once.
    turn: tokio::sync::Mutex<()>,
    ended: [AtomicU64; Outcome::ALL.len()],
}

impl Orders {
    /// How many orders ended so.
    pub(crate) fn ended(&self) -> impl Iterator<Item = (Outcome, u64)> {
        let counts = Outcome::ALL.into_iter().zip(&self.ended);
        counts.map(|(outcome, count)| (outcome, count.load(Ordering::Relaxed)))
    }

    /// Waits until no order is under way. None begins while what this returns is there: an authority
    /// that looks would ask a process that knows nothing of it.
    pub(crate) async fn rest(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    fn count(&self, outcome: Outcome) {
        let counts = Outcome::ALL.into_iter().zip(&self.ended);
        for (_, count) in counts.filter(|(one, _)| *one == outcome) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}
