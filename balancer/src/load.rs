//! Requests under way: at an endpoint, in the pool, and the guard that ends them.
//!
//! An endpoint's requests and those of them that still wait for a connection are the halves of one
//! word, so that both limits are checked and taken in one step. With a limit the step is a
//! compare-and-exchange, which never counts above it, not even for a moment in which another thread
//! would see the endpoint as full. Without one it is an addition.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::convert::{high_half, low_half};
use crate::endpoint::EndpointState;
use crate::shared::PoolState;

const ACTIVE: u64 = 1;
const PENDING: u64 = 1 << 32;

/// Requests under way at one endpoint (lower half), and of those the ones that wait for a
/// connection (upper half).
#[derive(Debug, Default)]
pub(crate) struct Load(AtomicU64);

/// The most that [`Load::enter`] may count up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ceiling {
    pub(crate) active: u32,
    pub(crate) pending: u32,
}

impl Ceiling {
    /// No limit at all.
    pub(crate) const NONE: Self = Self {
        active: u32::MAX,
        pending: u32::MAX,
    };

    /// Whether one more fits on top of a load.
    fn admits(self, word: u64) -> bool {
        low_half(word) < self.active && high_half(word) < self.pending
    }
}

impl Load {
    pub(crate) fn active(&self) -> u32 {
        low_half(self.0.load(Ordering::Relaxed))
    }

    pub(crate) fn pending(&self) -> u32 {
        high_half(self.0.load(Ordering::Relaxed))
    }

    /// Whether one more request would fit.
    pub(crate) fn has_room(&self, ceiling: Ceiling) -> bool {
        ceiling.admits(self.0.load(Ordering::Relaxed))
    }

    /// Counts one more request, which waits for a connection; false if that would be too many.
    fn enter(&self, ceiling: Ceiling) -> bool {
        if ceiling == Ceiling::NONE {
            self.0.fetch_add(ACTIVE + PENDING, Ordering::Relaxed);
            return true;
        }
        let one_more = |word| ceiling.admits(word).then_some(word + ACTIVE + PENDING);
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
            .is_ok()
    }
}

/// Requests under way in a whole pool. Only counted for a limit or a bound that needs it.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Total(AtomicU32);

impl Total {
    pub(crate) fn active(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    fn enter(&self, limit: Option<NonZeroU32>) -> bool {
        let Some(limit) = limit else {
            self.0.fetch_add(1, Ordering::Relaxed);
            return true;
        };
        let one_more = |count| (count < limit.get()).then_some(count + 1);
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
            .is_ok()
    }
}

/// Who had no room for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    Pool,
    Endpoint,
}

/// One request under way at an endpoint; dropping it ends the request. Owns what it needs, so it
/// may outlive the pool.
///
/// It begins as waiting for a connection: see [`Active::connected`].
#[derive(Debug)]
#[must_use = "the request counts as under way only while this is kept"]
pub struct Active {
    state: Arc<EndpointState>,
    /// Set if the pool counts its requests as well.
    pool: Option<Arc<PoolState>>,
    pending: bool,
}

impl Active {
    /// Counts a request at the endpoint, and at the pool if that is given, unless one of them is
    /// full.
    pub(crate) fn enter(
        state: &Arc<EndpointState>,
        ceiling: Ceiling,
        pool: Option<&Arc<PoolState>>,
        total: Option<NonZeroU32>,
    ) -> Result<Self, Full> {
        if let Some(pool) = pool
            && !pool.total.enter(total)
        {
            return Err(Full::Pool);
        }
        if !state.load.enter(ceiling) {
            if let Some(pool) = pool {
                pool.total.0.fetch_sub(1, Ordering::Relaxed);
            }
            return Err(Full::Endpoint);
        }
        Ok(Self {
            state: Arc::clone(state),
            pool: pool.map(Arc::clone),
            pending: true,
        })
    }

    /// Counts a request whatever the limits.
    pub(crate) fn start(state: &Arc<EndpointState>, pool: Option<&Arc<PoolState>>) -> Self {
        if let Some(pool) = pool {
            pool.total.enter(None);
        }
        state.load.enter(Ceiling::NONE);
        Self {
            state: Arc::clone(state),
            pool: pool.map(Arc::clone),
            pending: true,
        }
    }

    /// Says that the request has its connection and no longer waits for one. Further calls do
    /// nothing.
    pub fn connected(&mut self) {
        if self.pending {
            self.pending = false;
            self.state.load.0.fetch_sub(PENDING, Ordering::Relaxed);
        }
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        let counted = if self.pending {
            ACTIVE + PENDING
        } else {
            ACTIVE
        };
        self.state.load.0.fetch_sub(counted, Ordering::Relaxed);
        if let Some(pool) = &self.pool {
            pool.total.0.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn enter(
        state: &Arc<EndpointState>,
        pool: &Arc<PoolState>,
        active: u32,
        total: u32,
    ) -> Result<Active, Full> {
        let ceiling = Ceiling {
            active,
            ..Ceiling::NONE
        };
        Active::enter(state, ceiling, Some(pool), NonZeroU32::new(total))
    }

    #[test]
    fn no_more_get_in_than_a_limit_says() {
        let (state, pool) = (Arc::default(), Arc::default());
        let under_way: Vec<_> = (0..10)
            .map_while(|_| enter(&state, &pool, 3, 9).ok())
            .collect();
        assert_eq!(under_way.len(), 3);
        assert_eq!(enter(&state, &pool, 3, 9).err(), Some(Full::Endpoint));
        assert_eq!(pool.total.active(), 3, "who did not get in is not counted");
        assert_eq!(enter(&state, &pool, 9, 3).err(), Some(Full::Pool));
        drop(under_way);
        assert_eq!((state.load.active(), pool.total.active()), (0, 0));
    }

    #[test]
    fn threads_never_count_above_a_limit() {
        let (state, pool) = (Arc::default(), Arc::default());
        let work = || {
            for _ in 0..20_000 {
                let entered = enter(&state, &pool, 2, 3);
                assert!(state.load.active() <= 2 && pool.total.active() <= 3);
                drop(entered);
            }
        };
        thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(work))));
        assert_eq!((state.load.active(), state.load.pending()), (0, 0));
    }
}
