//! The end of the process, and of idle connections, as a connection sees it.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::sync::watch;
use tokio::task::coop::unconstrained;

use crate::carry::Carrier;

/// The process's end, as a connection between two requests sees it, and the end of connections that
/// have served while the process is overloaded.
pub(super) struct Drain<'a, F> {
    carrier: &'a Carrier,
    calls: Watched<'a, F>,
    /// A request came on the connection.
    pub(super) is_served: bool,
}

impl<'a, F: Future<Output = ()>> Drain<'a, F> {
    /// `calls`: what [`calls`] gives.
    pub(super) fn new(carrier: &'a Carrier, calls: Pin<&'a mut F>) -> Self {
        Self {
            carrier,
            calls: Watched { calls, since: None },
            is_served: false,
        }
    }

    /// Ready when the connection is to end.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_due() {
            return Poll::Ready(());
        }
        // A call that came meanwhile was heard by the poll, and is not heard again.
        match self.calls.ended(self.carrier.load().told(), cx) || self.is_due() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }

    fn is_due(&self) -> bool {
        let sheds = || self.carrier.load().shedding().ends_connections();
        self.carrier.is_draining() || (self.is_served && sheds())
    }
}

impl<F> Drain<'_, F> {
    /// Until when a connection may send a request all the same; the reply ends it.
    pub(super) fn last_call(&self) -> Option<Instant> {
        self.carrier.handed_over().last_call()
    }
}

/// What wakes when connections are to look whether they end.
struct Watched<'a, F> {
    calls: Pin<&'a mut F>,
    /// It knows whom to wake, since it was told so often. It is asked once: a connection stays in its
    /// task.
    since: Option<u32>,
}

impl<F: Future<Output = ()>> Watched<'_, F> {
    /// Whether nobody is left who could call. `told`: see [`crate::overload::Load::told`].
    fn ended(&mut self, told: Option<u32>, cx: &mut Context<'_>) -> bool {
        if told.is_some() && self.since == told {
            return false;
        }
        // Without the runtime's budget: where that is used up nothing is registered, and it would be
        // believed to be.
        let mut calls = unconstrained(self.calls.as_mut());
        let ended = Pin::new(&mut calls).poll(cx).is_ready();
        self.since = told;
        ended
    }
}

/// Wakes whenever connections are to look whether they end. It ends itself when nobody is left who
/// could call.
pub(super) async fn calls(mut calls: watch::Receiver<u32>) {
    while calls.changed().await.is_ok() {}
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::poll_fn;
    use std::pin::pin;
    use std::task::Waker;

    use super::*;

    #[test]
    fn who_knows_whom_to_wake_is_asked_once_for_each_call() {
        let asked = Cell::new(0);
        let calls = pin!(poll_fn(|_| {
            asked.set(asked.get() + 1);
            Poll::<()>::Pending
        }));
        let mut watched = Watched { calls, since: None };
        let cx = &mut Context::from_waker(Waker::noop());
        for (told, wanted) in [
            (Some(0), 1),
            (Some(0), 1),
            (Some(2), 2),
            (Some(2), 2),
            // While somebody calls.
            (None, 3),
            (None, 4),
            (Some(4), 5),
            (Some(4), 5),
        ] {
            assert!(!watched.ended(told, cx));
            assert_eq!(asked.get(), wanted, "told {told:?}");
        }
    }
}
