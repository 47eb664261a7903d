//! What stands at a key: the variants of a URL.

use std::collections::HashSet;
use std::sync::Arc;

use super::{ENTRY_OVERHEAD, MAX_VARIANTS};
use crate::fields::Fields;
use crate::key::Key;
use crate::stored::Stored;
use crate::tags::{Life, Mode, State};
use http::HeaderName;

/// The variants of one URL, the oldest first.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) variants: Vec<Arc<Stored>>,
}

impl Entry {
    /// One of `variants` that holds their lives; [`release`](Self::release) it once, when it stands nowhere any
    /// more. What was let go of meanwhile is left out.
    fn of(mut variants: Vec<Arc<Stored>>) -> Self {
        variants.retain(|one| one.life().hold());
        variants.shrink_to_fit();
        Self { variants }
    }

    /// The variants of `known` that `keep` lets stay, and one more; its equal goes, what was purged, and the
    /// oldest if there are too many.
    pub(super) fn with(
        known: Option<&Self>,
        keep: impl Fn(&Arc<Stored>) -> bool,
        stored: Arc<Stored>,
        latest: u64,
    ) -> Self {
        let known = known.map_or(&[][..], |known| known.variants.as_slice());
        let stays = |one: &&Arc<Stored>| {
            one.head().variant() != stored.head().variant()
                && one.state(latest) != State::Gone
                && keep(one)
        };
        let mut variants: Vec<_> = known.iter().filter(stays).cloned().collect();
        variants.push(stored);
        let mut total: u64 = variants.iter().map(|one| one.weight()).sum();
        let mut surplus = variants.len().saturating_sub(MAX_VARIANTS);
        total -= variants[..surplus]
            .iter()
            .map(|one| one.weight())
            .sum::<u64>();
        // moka counts an entry in 32 bits.
        while total > u64::from(u32::MAX) / 2 && surplus + 1 < variants.len() {
            total -= variants[surplus].weight();
            surplus += 1;
        }
        variants.drain(..surplus);
        Self::of(variants)
    }

    pub(super) fn filtered(&self, keep: impl Fn(&Arc<Stored>) -> bool) -> Self {
        Self::of(
            self.variants
                .iter()
                .filter(|one| keep(one))
                .cloned()
                .collect(),
        )
    }

    /// It stands nowhere any more.
    pub(super) fn release(&self) {
        self.variants.iter().for_each(|one| one.life().release());
    }

    /// Whether this very object is among the variants.
    pub(super) fn has(&self, stored: &Arc<Stored>) -> bool {
        self.variants.iter().any(|one| Arc::ptr_eq(one, stored))
    }

    /// Those that no purge took away.
    pub(super) fn live(&self, latest: u64) -> impl Iterator<Item = &Arc<Stored>> {
        self.variants
            .iter()
            .filter(move |one| one.state(latest) != State::Gone)
    }

    /// Of those that match, one with Vary before one without, then the latest by Date (RFC 9111
    /// sections 4 and 4.1), then the latest stored.
    pub(super) fn select(
        &self,
        request: &dyn Fields,
        extra: &[HeaderName],
        latest: u64,
    ) -> Option<&Arc<Stored>> {
        self.variants.get(self.position(request, extra, latest)?)
    }

    /// The place of the variant that [`select`](Self::select) finds.
    pub(super) fn position(
        &self,
        request: &dyn Fields,
        extra: &[HeaderName],
        latest: u64,
    ) -> Option<usize> {
        let fits = |stored: &Stored| {
            let variant = stored.head().variant();
            variant.spec().covers(extra)
                && variant.matches(request)
                && stored.state(latest) != State::Gone
        };
        match self.variants.as_slice() {
            [only] => fits(only).then_some(0),
            several => {
                let several = several.iter().enumerate().filter(|(_, one)| fits(one));
                let latest = several.max_by_key(|(_, stored)| {
                    (stored.head().variant().is_by_origin(), stored.head().date())
                });
                latest.map(|(at, _)| at)
            }
        }
    }

    pub(super) fn weight_of_variants(&self) -> u64 {
        self.variants.iter().map(|one| one.weight()).sum()
    }

    pub(super) fn weight(&self, key: &Key) -> u32 {
        u32::try_from(self.weight_of_variants() + key.len() as u64 + ENTRY_OVERHEAD)
            .unwrap_or(u32::MAX)
    }
}

/// Objects of both tiers, each once.
pub(super) struct Lives {
    lives: Vec<Arc<Life>>,
    known: HashSet<*const Life, ahash::RandomState>,
}

impl Lives {
    pub(super) fn of(lives: Vec<Arc<Life>>) -> Self {
        let known = lives.iter().map(Arc::as_ptr).collect();
        Self { lives, known }
    }

    pub(super) fn add(&mut self, entry: &Entry, latest: u64) {
        // What the disk was told of is marked already, and is known here.
        for stored in &entry.variants {
            let life = stored.life();
            if life.state(latest) != State::Gone && self.known.insert(Arc::as_ptr(life)) {
                self.lives.push(Arc::clone(life));
            }
        }
    }

    pub(super) fn add_one(&mut self, life: &Arc<Life>) {
        if self.known.insert(Arc::as_ptr(life)) {
            self.lives.push(Arc::clone(life));
        }
    }

    pub(super) fn purge(&self, mode: Mode) {
        self.lives.iter().for_each(|life| life.purge(mode));
    }

    pub(super) fn count(&self) -> u64 {
        self.lives.len() as u64
    }
}
