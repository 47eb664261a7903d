//! A second copy of a page that is asked for often, in a file that exists in
//! memory alone (memfd_create(2)).
//!
//! The kernel sends from a file without copying (sendfile(2)), and from our own
//! memory it cannot: it would have to know when the last client has read it. For
//! a page of 64 KiB that copy is a third of what a hit costs, and it pushes 64 KiB
//! of other things out of the processor's cache.
//!
//! A twin is made when its page has shown to be in demand, is never written again,
//! and goes with its page; what is on its way to a client then stays as it was. It
//! is no part of the store's memory, so the sum of all is bounded on its own.

use std::sync::Arc;

use cache::Stored;
use static_server::frozen::{Allowance, Frozen};

/// Bodies from here on: below, a copy costs less than the call that it spares.
const SMALLEST: u64 = 16 * 1024;
/// And up to here: making a twin holds up the event loop, a megabyte for some 200 us.
const LARGEST: u64 = 1024 * 1024;
/// The use of a page with which its twin is made, and after which, where there was no room, it is
/// tried again.
const OFTEN: u32 = 8;
/// All twins together: this share of the store's memory.
const SHARE: u64 = 8;

/// All that there are.
#[derive(Debug)]
pub(crate) struct Twins(Arc<Allowance>);

impl Twins {
    /// For a store of `memory` bytes.
    pub(crate) fn new(memory: u64) -> Self {
        Self(Arc::new(Allowance::new(memory / SHARE)))
    }

    /// The twin of this page's body, if it has one by now.
    pub(super) fn of<'a>(&self, stored: &'a Stored) -> Option<&'a Frozen> {
        if !(SMALLEST..=LARGEST).contains(&stored.len()) {
            return None;
        }
        let companion = stored.companion();
        if let Some(twin) = companion.get() {
            return Some(twin);
        }
        if !companion.count_use().is_multiple_of(OFTEN) {
            return None;
        }
        let segments = stored.segments().iter().map(|segment| &segment[..]);
        companion.keep(self.0.copy(stored.len(), segments).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use bytes::Bytes;
    use cache::{Freshness, Head, Policy, Request, Response, ResponseControl, Times};
    use http::{HeaderMap, Method, StatusCode};

    use super::*;

    fn page(size: u64) -> Stored {
        let fields = HeaderMap::new();
        let now = crate::clock::wall();
        let times = Times {
            sent: now,
            received: now,
        };
        let policy = Policy::default();
        let control = ResponseControl::read(&fields);
        let head = Head::new(
            Request {
                method: &Method::GET,
                fields: &fields,
            },
            Response {
                status: StatusCode::OK,
                fields: &fields,
            },
            Freshness::new(&control, &fields, true, &policy, times),
            &policy,
        );
        let half = vec![b'a'; usize::try_from(size / 2).unwrap()];
        let rest = vec![b'b'; usize::try_from(size - size / 2).unwrap()];
        Stored::new(
            Arc::new(head),
            vec![Bytes::from(half), Bytes::from(rest)],
            Arc::default(),
        )
    }

    fn asked_often<'a>(twins: &Twins, page: &'a Stored) -> Option<&'a Frozen> {
        for _ in 1..OFTEN {
            assert!(twins.of(page).is_none(), "it was not asked for often");
        }
        twins.of(page)
    }

    #[test]
    fn a_page_in_demand_gets_a_twin_and_keeps_it_under_a_new_head() {
        let twins = Twins::new(1 << 30);
        let page = page(SMALLEST + 1);
        let mut copy = vec![0; usize::try_from(page.len()).unwrap()];
        asked_often(&twins, &page)
            .expect("a twin")
            .file()
            .read_exact_at(&mut copy, 0)
            .unwrap();
        assert_eq!(copy, page.segments().concat());
        let renewed = page.renewed(Arc::clone(page.head()), Arc::default());
        drop(page);
        assert!(twins.of(&renewed).is_some());
        assert_eq!(twins.0.taken(), SMALLEST + 1);
        drop(renewed);
        assert_eq!(twins.0.taken(), 0);
    }

    #[test]
    fn small_and_large_pages_have_none() {
        let twins = Twins::new(1 << 30);
        for size in [SMALLEST - 1, LARGEST + 1] {
            assert!(asked_often(&twins, &page(size)).is_none());
        }
    }

    #[test]
    fn where_there_is_no_room_the_page_stays_alone_until_there_is() {
        let twins = Twins::new(SHARE * LARGEST);
        let (first, second) = (page(LARGEST), page(SMALLEST));
        assert!(asked_often(&twins, &first).is_some());
        assert!(asked_often(&twins, &second).is_none());
        drop(first);
        assert!(asked_often(&twins, &second).is_some());
        assert_eq!(twins.0.taken(), SMALLEST);
    }
}
