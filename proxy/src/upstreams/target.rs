//! Where an endpoint is reached.
//!
//! Names are looked up elsewhere: what is dialed is always an address.

use std::cmp::Ordering;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// What a connection is made to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Target {
    /// TCP.
    Inet {
        /// Tried first.
        first: SocketAddr,
        /// Of the other family, where the endpoint's name has both (RFC 8305).
        second: Option<SocketAddr>,
    },
    /// A Unix socket.
    Unix(PathBuf),
}

impl Target {
    /// What the endpoint is known by from one look-up to the next: `10.0.0.1:80`, `[::1]:80`,
    /// `unix:/run/app.sock`.
    ///
    /// For a node with two families it is the IPv4 address: an AAAA record is more often added to
    /// a node, taken away or late than its A record, and none of that should make it a new node
    /// whose health, counters and connections begin again.
    pub(crate) fn id(&self) -> String {
        match self {
            Self::Inet { first, second } => second.unwrap_or(*first).to_string(),
            Self::Unix(path) => format!("unix:{}", path.display()),
        }
    }

    /// The order of a list of endpoints: addresses by number, then sockets by path.
    pub(crate) fn compare(&self, other: &Self) -> Ordering {
        match (self, other) {
            (
                Self::Inet { first, second },
                Self::Inet {
                    first: other_first,
                    second: other_second,
                },
            ) => second
                .unwrap_or(*first)
                .cmp(&other_second.unwrap_or(*other_first)),
            (Self::Inet { .. }, Self::Unix(_)) => Ordering::Less,
            (Self::Unix(_), Self::Inet { .. }) => Ordering::Greater,
            (Self::Unix(path), Self::Unix(other)) => path.cmp(other),
        }
    }
}
impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Self {
        Self::Inet {
            first: address,
            second: None,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inet { first, .. } => first.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}
