//! The cells of one name: what listeners, probers and carriers hold to count
//! things that are no request.

use std::sync::Arc;

use super::cells::{ForwardEnd, ListenerCells, TlsHandshake};
use crate::observe::shard::Sharded;

/// What is counted on a listener beside finished requests.
#[derive(Debug)]
pub(crate) struct ListenerMetrics {
    pub(super) cells: Sharded<ListenerCells>,
}

/// Of no worker and no configuration: counts, and is shown nowhere.
impl Default for ListenerMetrics {
    fn default() -> Self {
        Self::new(0)
    }
}

impl ListenerMetrics {
    pub(super) fn new(workers: usize) -> Self {
        Self {
            cells: Sharded::new(workers),
        }
    }

    /// A connection was accepted; it is open until the guard is dropped, on whichever thread.
    #[must_use]
    pub(crate) fn connection(self: &Arc<Self>) -> OpenConnection {
        let cells = self.cells.here();
        cells.connections.add(1);
        cells.connections_active.up();
        OpenConnection(Arc::clone(self))
    }

    /// A request has begun. Whoever calls this calls [`ListenerMetrics::request_ends`],
    /// whatever becomes of the request.
    pub(crate) fn request_begins(&self) {
        self.cells.here().requests_active.up();
    }

    /// See [`ListenerMetrics::request_begins`].
    pub(crate) fn request_ends(&self) {
        self.cells.here().requests_active.down();
    }

    /// A connection was closed before anything was read from it, for this reason:
    /// `max_connections`, `max_connections_per_ip`, ...
    pub(crate) fn refused(&self, reason: &'static str) {
        self.cells.here().refused.add(reason);
    }

    /// A request was refused as malformed, for this reason.
    pub(crate) fn rejected(&self, reason: &'static str) {
        self.cells.here().rejected.add(reason);
    }

    /// A connection that was passed on ended.
    pub(crate) fn forwarded(&self, end: ForwardEnd) {
        self.cells.here().forwarded[end as usize].add(1);
    }

    /// A TLS handshake ended.
    pub(crate) fn handshake(&self, end: TlsHandshake) {
        self.cells.here().handshakes[end as usize].add(1);
    }
}

/// Counts a connection as open while it lives.
#[derive(Debug)]
pub(crate) struct OpenConnection(Arc<ListenerMetrics>);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.cells.here().connections_active.down();
    }
}
