//! An upgrade: a new process takes the sockets over from the one that runs, and nobody is refused.
//!
//! SIGUSR2 starts the binary anew, with a pair of Unix sockets between the two ([`channel`]). The
//! running process gives away what it listens on; the new one ([`Predecessor`]) reads the
//! configuration, takes what it listens on too, and says when it is ready. Only then does the
//! running one stop accepting, and drains. Until that word whatever goes wrong ends the new process
//! alone. See `docs/decisions/0022-upgrades.md`.

mod channel;
mod inheritance;
mod predecessor;
mod program;
mod relay;
mod successor;
mod systemd;

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

pub(crate) use inheritance::{Inheritance, InheritedUdp};
pub use predecessor::Predecessor;
pub use program::Program;
pub(crate) use relay::{Envelope, Letter, Relay, Relayed};
pub(crate) use successor::Successor;
pub(crate) use systemd::{Word, tell};

/// What the two processes say to each other; another number cannot be understood.
const PROTOCOL: u32 = 1;

/// The new process finds here whose child it is to be; then its standard input is the channel.
const VARIABLE: &str = "TIDEGATE_UPGRADE_FROM";

/// What the running process says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ToSuccessor {
    /// First of all.
    Begin(Begin),
    /// One for each descriptor that comes with it, in their order.
    Sockets(Vec<Described>),
    /// The cache's disk tier is left.
    Disk,
    /// Everything is yours: accept.
    Yours,
}

/// See [`ToSuccessor::Begin`].
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Begin {
    pub(crate) protocol: u32,
    /// Of the process that says it.
    pub(crate) generation: u8,
    /// Sticky cookies that are out there are sealed with it.
    pub(crate) cookie_key: [u8; 32],
    /// Upgrades that went well, and that failed, before this one.
    pub(crate) upgrades: (u64, u64),
    /// Descriptors that follow.
    pub(crate) sockets: usize,
}

impl std::fmt::Debug for Begin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Begin")
            .field("generation", &self.generation)
            .field("sockets", &self.sockets)
            .finish_non_exhaustive()
    }
}

/// What a descriptor is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Described {
    pub(crate) kind: Kind,
    /// As configured.
    pub(crate) address: String,
    /// What hides a connection's place in its ids, where there is one.
    pub(crate) key: Option<String>,
}

/// What a descriptor is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// A listener's.
    Tcp,
    /// A listener's, for HTTP/3.
    Udp,
    /// The admin listener's.
    Admin,
    /// Leads to the process of this generation, for packets of its connections that come to the
    /// UDP sockets of this address.
    Relay(u8),
}

/// What the new process says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum FromSuccessor {
    /// All is read and bound; the disk tier is wanted, if there is one.
    Prepared,
    /// It serves from the word on.
    Ready(Taken),
    /// It will not serve, for this reason.
    Refused(String),
}

/// What the new process goes on with; the rest has no owner any more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Taken {
    pub(crate) admin: bool,
    /// Addresses whose UDP sockets it reads.
    pub(crate) udp: Vec<String>,
}

/// How long a connection between two requests may send another one, which is answered and ends it.
/// A client that sends just when its connection is closed would have to send again, and cannot
/// know whether it may.
const LAST_CALL: Duration = Duration::from_secs(5);

/// Whether another process has taken over from this one, and when.
#[derive(Debug, Default)]
pub(crate) struct HandedOver(OnceLock<Instant>);

impl HandedOver {
    /// Once and for all.
    pub(crate) fn set(&self, now: Instant) {
        let _ = self.0.set(now);
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.get().is_some()
    }

    /// Until when idle connections are kept for another request.
    pub(crate) fn last_call(&self) -> Option<Instant> {
        self.0.get().map(|at| *at + LAST_CALL)
    }
}
