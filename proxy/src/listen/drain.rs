//! The end of the process, and of idle connections, as a connection sees it.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::sync::watch;
use tokio::task::coop::unconstrained;

use crate::carry::Carrier;

/// The process's end, as a connection between two requests sees it, and the end of connections that
/// have served while the process is overloaded.
pub(super) struct Drain<'a, F> {
    carrier: &'a Carrier,
    /// Wakes when one of them may have come.
    calls: Pin<&'a mut F>,
    /// `calls` knows whom to wake, since it was told so often ([`crate::overload::Load::told`]). It is
    /// asked once: a connection stays in its task.
    is_watched: Option<u32>,
    /// A request came on the connection.
    pub(super) is_served: bool,
}

impl<'a, F: Future<Output = ()>> Drain<'a, F> {
    /// `calls`: what [`calls`] gives.
    pub(super) fn new(carrier: &'a Carrier, calls: Pin<&'a mut F>) -> Self {
        Self {
            carrier,
            calls,
            is_watched: None,
            is_served: false,
        }
    }

    /// Ready when the connection is to end.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_due() {
            return Poll::Ready(());
        }
        let told = self.carrier.load().told();
        if told.is_some() && self.is_watched == told {
            return Poll::Pending;
        }
        // Without the runtime's budget: where that is used up nothing is registered, and it would be
        // believed to be.
        let mut calls = unconstrained(self.calls.as_mut());
        ready!(Pin::new(&mut calls).poll(cx));
        self.is_watched = told;
        // A call that came meanwhile was heard by the poll, and is not heard again.
        match self.is_due() {
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

/// Wakes whenever connections are to look whether they end. It ends itself when nobody is left who
/// could call.
pub(super) async fn calls(mut calls: watch::Receiver<u32>) {
    while calls.changed().await.is_ok() {}
}
