//! Directories as they were shown, so that a folder of thousands of files is not read and sorted
//! for each request.

use std::sync::Arc;

use moka::sync::Cache;

use super::{Form, Order, Shown};
use crate::files::{Files, Sign, Trouble};

/// How long one is believed where nobody tells of changes, in milliseconds.
const TRUST_MILLIS: u64 = 1_000;

/// The same where they are told: nobody tells of what a link leads to, nor when something changed
/// in a directory below, whose time is shown.
const WATCHED_TRUST_MILLIS: u64 = 10_000;

/// What one takes beside its bytes.
const OVERHEAD: usize = 512;

/// A directory, below the root and with its slash; how it is shown.
pub(super) type Key = (Box<str>, Form, Order);

/// The listings of a site.
pub struct Listings(Cache<Key, Arc<Kept>>);

struct Kept {
    shown: Arc<Shown>,
    sign: Option<Sign>,
    /// In milliseconds of the site's life.
    made: u64,
}

impl Kept {
    fn is_right(&self, at: u64) -> bool {
        let trust = match &self.sign {
            Some(sign) if sign.is_lit() => WATCHED_TRUST_MILLIS,
            Some(_) => return false,
            None => TRUST_MILLIS,
        };
        at < self.made.saturating_add(trust)
    }
}

impl Listings {
    /// Listings of which at most `bytes` are kept.
    pub fn new(bytes: u64) -> Self {
        let weigh = |key: &Key, kept: &Arc<Kept>| {
            let weight = OVERHEAD + key.0.len() + kept.shown.body.len();
            u32::try_from(weight).unwrap_or(u32::MAX)
        };
        Self(Cache::builder().max_capacity(bytes).weigher(weigh).build())
    }

    /// The one that was kept, if it is still right, or what `show` makes.
    pub(super) fn shown(
        &self,
        key: Key,
        files: &dyn Files,
        at: u64,
        show: impl FnOnce() -> Result<Shown, Trouble>,
    ) -> Result<Arc<Shown>, Trouble> {
        if let Some(kept) = self.0.get(&key).filter(|kept| kept.is_right(at)) {
            return Ok(Arc::clone(&kept.shown));
        }
        files.refresh();
        // Before the look, so that it vouches for what that finds.
        let sign = files.sign_of_all(key.0.trim_end_matches('/'));
        let shown = Arc::new(show()?);
        let kept = Kept {
            shown: Arc::clone(&shown),
            sign,
            made: at,
        };
        self.0.insert(key, Arc::new(kept));
        Ok(shown)
    }
}

impl std::fmt::Debug for Listings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Listings {{ kept: {} }}", self.0.entry_count())
    }
}
