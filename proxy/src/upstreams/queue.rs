//! Where requests wait while an upstream takes no more.
//!
//! First come, first served: whoever is at the head of the line is woken when a request ends
//! or an endpoint returns, tries to get an endpoint, and leaves the line only when it has one or
//! gives up. A waiter that cannot use what others can (all that is free is an endpoint that it has
//! tried, or one that its set of endpoints does not know) wakes the one behind it, so that it does
//! not stand in the way. One that finds nothing free wakes nobody: who is behind it would find the
//! same, or what becomes free in between, out of turn.
//!
//! The line has a lock. Requests that need not wait never take it: they read one atomic.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
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
    line: Mutex<VecDeque<Arc<Turn>>>,
    /// How many sets of endpoints have been made for it.
    sets: AtomicU64,
}

/// Of one who waits.
#[derive(Debug, Default)]
struct Turn {
    notify: Notify,
    /// Woken, and has not tried yet. Written under the lock of the line.
    called: AtomicBool,
}

impl Turn {
    fn call(&self) {
        self.called.store(true, Ordering::Relaxed);
        self.notify.notify_one();
    }
}

/// What a try gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Try<T> {
    /// Something, or a reason not to wait any longer.
    Taken(T),
    /// Nothing is free, for nobody.
    NothingFree,
    /// Nothing that this one can use.
    NothingForMe,
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
            sets: AtomicU64::new(0),
        }
    }

    /// The number of a set of endpoints that is made now; see [`Queue::is_newest`].
    pub(super) fn number_set(&self) -> u64 {
        self.sets.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Whether no set was made behind this one: those behind in line know no other.
    pub(super) fn is_newest(&self, set: u64) -> bool {
        self.sets.load(Ordering::Relaxed) == set
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
            first.call();
        }
    }

    /// Waits until `take` gives something; it is asked at once, when woken, and never while
    /// somebody is further ahead who has been woken and was not asked.
    ///
    /// # Errors
    /// [`NoTurn`].
    pub(crate) async fn wait<T>(
        self: &Arc<Self>,
        until: Instant,
        mut take: impl FnMut() -> Try<T>,
    ) -> Result<T, NoTurn> {
        let place = self.join()?;
        // What became free between the caller's own try and the place in line woke nobody.
        if place.is_first()
            && let Try::Taken(taken) = take()
        {
            return Ok(place.leave(taken));
        }
        loop {
            let woken = place.turn.notify.notified();
            if timeout_at(until.into(), woken).await.is_err() {
                return Err(NoTurn::Timeout);
            }
            if !place.is_my_turn() {
                continue;
            }
            match take() {
                Try::Taken(taken) => return Ok(place.leave(taken)),
                Try::NothingFree => {}
                Try::NothingForMe => place.wake_next(),
            }
        }
    }

    fn join(self: &Arc<Self>) -> Result<Place, NoTurn> {
        let mut line = self.line();
        if line.len() >= self.size {
            return Err(NoTurn::Full);
        }
        let turn = Arc::<Turn>::default();
        line.push_back(turn.clone());
        self.waiting.store(line.len(), Ordering::SeqCst);
        Ok(Place {
            queue: self.clone(),
            turn,
        })
    }

    fn line(&self) -> MutexGuard<'_, VecDeque<Arc<Turn>>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in line, given up when it is dropped.
struct Place {
    queue: Arc<Queue>,
    turn: Arc<Turn>,
}

impl Place {
    fn is_first(&self) -> bool {
        let line = self.queue.line();
        line.front()
            .is_some_and(|first| Arc::ptr_eq(first, &self.turn))
    }

    /// Whether nobody is ahead who was woken and has not tried: that one comes first, and wakes who
    /// is behind it.
    fn is_my_turn(&self) -> bool {
        let line = self.queue.line();
        self.turn.called.store(false, Ordering::Relaxed);
        let mut ahead = line
            .iter()
            .take_while(|turn| !Arc::ptr_eq(turn, &self.turn));
        !ahead.any(|turn| turn.called.load(Ordering::Relaxed))
    }

    fn wake_next(&self) {
        let line = self.queue.line();
        let mut line = line.iter();
        if line.any(|turn| Arc::ptr_eq(turn, &self.turn))
            && let Some(next) = line.next()
        {
            next.call();
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
    fn take(free: &AtomicU32) -> Try<()> {
        let taken = free.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |free| {
            free.checked_sub(1)
        });
        match taken {
            Ok(_) => Try::Taken(()),
            Err(_) => Try::NothingFree,
        }
    }

    #[tokio::test]
    async fn what_is_free_is_taken_at_once() {
        let queue = Arc::new(Queue::new(1));
        assert_eq!(queue.wait(soon(), || Try::Taken(7)).await, Ok(7));
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
            tokio::spawn(async move { queue.wait(soon(), || Try::NothingForMe::<()>).await })
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
    async fn nobody_is_asked_behind_one_who_found_nothing_free() {
        let queue = Arc::new(Queue::new(5));
        let free = Arc::new(AtomicU32::new(0));
        let asked = Arc::new(AtomicU32::new(0));
        let first = {
            let (queue, free) = (queue.clone(), free.clone());
            tokio::spawn(async move { queue.wait(soon(), || take(&free)).await })
        };
        while queue.len() < 1 {
            tokio::task::yield_now().await;
        }
        let second = {
            let (queue, free, asked) = (queue.clone(), free.clone(), asked.clone());
            let take = move || {
                asked.fetch_add(1, Ordering::SeqCst);
                take(&free)
            };
            tokio::spawn(async move { queue.wait(soon(), take).await })
        };
        while queue.len() < 2 {
            tokio::task::yield_now().await;
        }
        for _ in 0..3 {
            queue.wake();
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
        }
        assert_eq!(asked.load(Ordering::SeqCst), 0);
        free.store(2, Ordering::SeqCst);
        queue.wake();
        assert_eq!(first.await.expect("no panic"), Ok(()));
        assert_eq!(second.await.expect("no panic"), Ok(()));
    }

    #[tokio::test]
    async fn a_full_line_and_a_long_wait_end_in_words() {
        let queue = Arc::new(Queue::new(1));
        let until = clock::now() + Duration::from_millis(30);
        let (first, second) = tokio::join!(
            queue.wait(until, || Try::NothingFree::<()>),
            queue.wait(until, || Try::NothingFree::<()>)
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
