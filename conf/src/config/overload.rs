//! What is given up first when there is more to do than can be done.

use std::time::Duration;

/// `[overload]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overload {
    /// Memory in use from which on the edge sheds; `None`: that is no reason.
    pub memory: Option<MemoryMark>,
    /// Lag of an event loop from which on it does; `None`: that is no reason.
    pub lag: Option<Duration>,
    /// When clients of refused requests may come again.
    pub retry_after: Duration,
}

/// An amount of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryMark {
    /// Percentage of what the process may have, 1 to 99.
    Share(u8),
    /// Bytes.
    Bytes(u64),
}

/// `priority` of a route: when its requests are given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// Never.
    Critical,
    /// Last.
    Normal,
    /// First.
    Sheddable,
}
