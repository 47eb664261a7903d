//! Where requests wait while an upstream takes no more.
//!
//! First come, first served: whoever is at the head of the line is woken when a request ends
//! or an endpoint returns, tries to get an endpoint, and leaves the line only when it has one or
//! gives up. A waiter that was woken in vain (all that became free is an endpoint that it has
//! tried) wakes the one behind it, so that it does not stand in the way.
//!
//! The line has a lock. Requests that need not wait never take it: they read one atomic.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;
use tokio::time::timeout_at;

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Queue {
    size: usize,
    /// How many stand in line; written under the lock.
    waiting: AtomicUsize,
    line: Mutex<VecDeque<Arc<Notify>>>,
}

/// Why a wait came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoTurn {
    /// The line is as long as it may be.
    Full,
    /// It took too long.
    Timeout,
}

impl Queue {
    /// A line of at most `size`.
    pub(crate) fn new(size: usize) -> Self {
        Self {
            size,
            waiting: AtomicUsize::new(0),
            line: Mutex::default(),
        }
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        // Ordered with the counts of active requests that the callers change before they look: see
        // `wake`.
        self.waiting.load(Ordering::SeqCst)
    }

    /// Something became free: wakes the head of the line.
    ///
    /// A request that ends counts itself out of its endpoint and then looks here; one that
    /// begins to wait stands in line and then looks at the endpoints. So one of the two sees the
    /// other.
    pub(crate) fn wake(&self) {
        if self.len() > 0
            && let Some(first) = self.line().front()
        {
            first.notify_one();
        }
    }

    /// Waits until `take` gives something; it is asked at once, when woken, and never while
    /// somebody is further ahead who was not asked.
    ///
    /// # Errors
    /// [`NoTurn`].
    pub(crate) async fn wait<T>(
        self: &Arc<Self>,
        until: Instant,
        mut take: impl FnMut() -> Option<T>,
    ) -> Result<T, NoTurn> {
        let place = self.join()?;
        // What became free between the caller's own try and the place in line woke nobody.
        if place.is_first()
            && let Some(taken) = take()
        {
            return Ok(place.leave(taken));
        }
        loop {
            if timeout_at(until.into(), place.turn.notified())
                .await
                .is_err()
            {
                return Err(NoTurn::Timeout);
            }
            match take() {
                Some(taken) => return Ok(place.leave(taken)),
                None => place.wake_next(),
            }
        }
    }

    fn join(self: &Arc<Self>) -> Result<Place, NoTurn> {
        let mut line = self.line();
        if line.len() >= self.size {
            return Err(NoTurn::Full);
        }
        let turn = Arc::new(Notify::new());
        line.push_back(turn.clone());
        self.waiting.store(line.len(), Ordering::SeqCst);
        Ok(Place {
            queue: self.clone(),
            turn,
        })
    }

    fn line(&self) -> MutexGuard<'_, VecDeque<Arc<Notify>>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in line, given up when it is dropped.
struct Place {
    queue: Arc<Queue>,
    turn: Arc<Notify>,
}

impl Place {
    fn is_first(&self) -> bool {
        let line = self.queue.line();
        line.front()
            .is_some_and(|first| Arc::ptr_eq(first, &self.turn))
    }

    fn wake_next(&self) {
        let line = self.queue.line();
        let mut line = line.iter();
        if line.any(|turn| Arc::ptr_eq(turn, &self.turn))
            && let Some(next) = line.next()
        {
            next.notify_one();
        }
    }

    /// Leaves with what was taken; there may be more of it for the next.
    fn leave<T>(self, taken: T) -> T {
        drop(self);
        taken
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        {
            let mut line = self.queue.line();
            line.retain(|turn| !Arc::ptr_eq(turn, &self.turn));
            self.queue.waiting.store(line.len(), Ordering::SeqCst);
        }
        // It may have been woken and not have looked.
        self.queue.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;
    use std::time::Duration;

    use super::*;
    use crate::clock;

    fn soon() -> Instant {
        clock::now() + Duration::from_secs(10)
    }

    /// Takes one of what there is.
    fn take(free: &AtomicU32) -> Option<()> {
        free.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |free| {
            free.checked_sub(1)
        })
        .ok()
        .map(drop)
    }

    #[tokio::test]
    async fn what_is_free_is_taken_at_once() {
        let queue = Arc::new(Queue::new(1));
        assert_eq!(queue.wait(soon(), || Some(7)).await, Ok(7));
        assert_eq!(queue.len(), 0);
    }

    #[tokio::test]
    async fn those_who_wait_are_served_in_the_order_in_which_they_came() {
        let queue = Arc::new(Queue::new(10));
        let free = Arc::new(AtomicU32::new(0));
        let (sender, mut served) = tokio::sync::mpsc::unbounded_channel();
        for number in 0..10 {
            let (line, free, sender) = (queue.clone(), free.clone(), sender.clone());
            tokio::spawn(async move {
                line.wait(soon(), || take(&free)).await.expect("a turn");
                sender.send(number).expect("the test listens");
            });
            while queue.len() <= number {
                tokio::task::yield_now().await;
            }
        }
        for number in 0..10 {
            free.fetch_add(1, Ordering::SeqCst);
            queue.wake();
            assert_eq!(served.recv().await, Some(number));
        }
    }

    #[tokio::test]
    async fn one_wake_serves_all_for_whom_there_is_room() {
        let queue = Arc::new(Queue::new(5));
        let free = Arc::new(AtomicU32::new(0));
        let waiting: Vec<_> = (0..5)
            .map(|_| {
                let (queue, free) = (queue.clone(), free.clone());
                tokio::spawn(async move { queue.wait(soon(), || take(&free)).await })
            })
            .collect();
        while queue.len() < 5 {
            tokio::task::yield_now().await;
        }
        free.store(5, Ordering::SeqCst);
        queue.wake();
        for waiter in waiting {
            assert_eq!(waiter.await.expect("no panic"), Ok(()));
        }
    }

    #[tokio::test]
    async fn a_waiter_that_cannot_use_what_is_free_does_not_block_the_next() {
        let queue = Arc::new(Queue::new(5));
        let picky = {
            let queue = queue.clone();
            tokio::spawn(async move { queue.wait(soon(), || None::<()>).await })
        };
        while queue.len() < 1 {
            tokio::task::yield_now().await;
        }
        let free = Arc::new(AtomicU32::new(0));
        let other = {
            let (queue, free) = (queue.clone(), free.clone());
            tokio::spawn(async move { queue.wait(soon(), || take(&free)).await })
        };
        while queue.len() < 2 {
            tokio::task::yield_now().await;
        }
        free.store(1, Ordering::SeqCst);
        queue.wake();
        assert_eq!(other.await.expect("no panic"), Ok(()));
        picky.abort();
    }

    #[tokio::test]
    async fn a_full_line_and_a_long_wait_end_in_words() {
        let queue = Arc::new(Queue::new(1));
        let until = clock::now() + Duration::from_millis(30);
        let (first, second) = tokio::join!(
            queue.wait(until, || None::<()>),
            queue.wait(until, || None::<()>)
        );
        assert_eq!(first, Err(NoTurn::Timeout));
        assert_eq!(second, Err(NoTurn::Full));
        assert_eq!(queue.len(), 0, "who gave up is not in line");
    }

    #[tokio::test]
    async fn a_waiter_that_goes_away_passes_its_wake_on() {
        let queue = Arc::new(Queue::new(5));
        let free = Arc::new(AtomicU32::new(0));
        let wait = || {
            let (queue, free) = (queue.clone(), free.clone());
            tokio::spawn(async move { queue.wait(soon(), || take(&free)).await })
        };
        let first = wait();
        while queue.len() < 1 {
            tokio::task::yield_now().await;
        }
        let second = wait();
        while queue.len() < 2 {
            tokio::task::yield_now().await;
        }
        free.store(1, Ordering::SeqCst);
        queue.wake();
        first.abort();
        let taken = second.await.expect("no panic");
        assert_eq!(taken, Ok(()));
    }
}
