//! Room for one more request.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use balancer::{Active, EndpointIndex};

use super::Queue;

/// One request's place at an endpoint. Dropping it ends the request there and lets the next one in.
pub(crate) struct Place {
    endpoint: EndpointIndex,
    active: Option<Active>,
    queue: Option<Arc<Queue>>,
}

impl Place {
    pub(crate) fn new(endpoint: EndpointIndex, active: Active, queue: Option<Arc<Queue>>) -> Self {
        Self {
            endpoint,
            active: Some(active),
            queue,
        }
    }

    pub(crate) fn endpoint(&self) -> EndpointIndex {
        self.endpoint
    }

    /// As a record carries it.
    pub(crate) fn number(&self) -> u16 {
        u16::try_from(self.endpoint.as_usize()).unwrap_or(u16::MAX)
    }

    /// It has a connection now.
    pub(crate) fn connected(&mut self) {
        if let Some(active) = &mut self.active {
            active.connected();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.active = None;
        if let Some(queue) = &self.queue {
            // See `Queue::wake`: the count must have fallen before the line is looked at.
            fence(Ordering::SeqCst);
            queue.wake();
        }
    }
}
