//! A page as it is found by who only reads it.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use http::HeaderName;
use near::Look;

use super::entry::Entry;
use super::{Lookup, Store, missed};
use crate::coding::Coding;
use crate::fields::Fields;
use crate::key::KeyRef;
use crate::stored::{InCoding, Stored};

/// Uses that a thread counts by itself before it tells the page of them.
const TOLD: u32 = 16;

/// Most that an entry and its key weigh of which each thread keeps a reference of its own: what a thread keeps so
/// is at most [`near::PLACES`] times as much, part of which the store may have let go of.
const MOST_NEAR: u64 = 16 * 1024;

/// An entry that one thread keeps at hand.
#[derive(Debug)]
pub(super) struct Kept {
    entry: Arc<Entry>,
    /// Uses of each variant that it was not told of yet.
    uses: Box<[AtomicU32]>,
    /// Handles on the bodies that are of one piece, which this thread counts.
    bodies: Box<[Option<Bytes>]>,
}

impl Kept {
    pub(super) fn new(entry: Arc<Entry>) -> Self {
        Self {
            uses: entry.variants.iter().map(|_| AtomicU32::new(0)).collect(),
            bodies: entry.variants.iter().map(|one| own_body(one)).collect(),
            entry,
        }
    }

    pub(super) fn entry(&self) -> &Entry {
        &self.entry
    }

    fn count(&self, at: usize) {
        let uses = &self.uses[at];
        // One thread writes: a page is counted where it was found.
        let now = uses.load(Ordering::Relaxed) + 1;
        if now < TOLD {
            uses.store(now, Ordering::Relaxed);
        } else {
            uses.store(0, Ordering::Relaxed);
            self.entry.variants[at].life().used(now);
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        for (variant, uses) in self.entry.variants.iter().zip(&mut self.uses) {
            variant.life().used(*uses.get_mut());
        }
    }
}

fn own_body(stored: &Stored) -> Option<Bytes> {
    match &stored.segments()[..] {
        [one] => Some(Bytes::from_owner(one.clone())),
        _ => None,
    }
}

/// See the module's text.
#[derive(Debug, Clone)]
pub struct Page {
    place: Place,
    at: usize,
    /// The representation, if it is not the origin's.
    coding: Option<Coding>,
}

#[derive(Debug, Clone)]
enum Place {
    Near(Arc<Kept>),
    Far(Arc<Entry>),
}

impl Page {
    pub(super) fn near(kept: Arc<Kept>, at: usize) -> Self {
        Self {
            place: Place::Near(kept),
            at,
            coding: None,
        }
    }

    pub(super) fn far(entry: Arc<Entry>, at: usize) -> Self {
        Self {
            place: Place::Far(entry),
            at,
            coding: None,
        }
    }

    /// Counts a use. What is shown of uses lags behind by a few for each thread.
    pub fn count(&self) {
        match &self.place {
            Place::Near(kept) => kept.count(self.at),
            Place::Far(_) => self.life().hit(),
        }
    }

    /// The body, without copying it where it is of one piece.
    pub fn to_body(&self) -> Bytes {
        if let (Place::Near(kept), None) = (&self.place, self.coding)
            && let Some(body) = &kept.bodies[self.at]
        {
            return body.clone();
        }
        match &self.segments()[..] {
            [one] => one.clone(),
            several => several.concat().into(),
        }
    }

    fn stored(&self) -> &Stored {
        let entry = match &self.place {
            Place::Near(kept) => kept.entry(),
            Place::Far(entry) => entry,
        };
        let stored = &entry.variants[self.at];
        match self.coding.map(|coding| stored.in_coding(coding)) {
            Some(InCoding::Ready(coded)) => coded,
            _ => stored,
        }
    }

    /// The same in a coding in which it is [there](InCoding::Ready).
    #[must_use]
    pub fn in_coding_ready(mut self, coding: Coding) -> Self {
        self.coding = Some(coding);
        self
    }
}

impl Store {
    /// Finds the same as [`lookup`](Self::lookup), for who only reads it: a small page that is in demand
    /// is found without writing what other threads write, too.
    pub fn page(
        &self,
        key: KeyRef<'_>,
        request: &dyn Fields,
        extra: &[HeaderName],
    ) -> Lookup<Page> {
        let latest = self.tags.latest();
        let mark = match self.near.look(key.as_bytes(), |_| true) {
            Look::Here(kept) => {
                return match kept.entry().position(request, extra, latest) {
                    Some(at) => Lookup::Found(Page::near(kept, at)),
                    None => missed(kept.entry(), latest),
                };
            }
            Look::Ask(mark) => mark,
        };
        let Some(entry) = self.entries.get(key.as_bytes()) else {
            return Lookup::UriMiss;
        };
        self.near.keep(key.as_bytes(), mark, || {
            let weight = entry.weight_of_variants() + key.as_bytes().len() as u64;
            let is_small = weight <= MOST_NEAR;
            is_small.then(|| Arc::new(Kept::new(Arc::clone(&entry))))
        });
        match entry.position(request, extra, latest) {
            Some(at) => Lookup::Found(Page::far(entry, at)),
            None => missed(&entry, latest),
        }
    }
}

impl Deref for Page {
    type Target = Stored;

    fn deref(&self) -> &Stored {
        self.stored()
    }
}
