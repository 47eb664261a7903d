//! How often keys were asked for lately, roughly and in little room: what `min_uses` goes by.
//!
//! A count-min sketch (Cormode and Muthukrishnan, 2005) of small counters. It may count too high,
//! when keys share all their counters, and never too low until it ages: after a number of counts all
//! counters are halved, so that what was asked for long ago does not count for ever.

use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

/// Counters in a row; a power of two.
const WIDTH: usize = 1 << 16;
const ROWS: usize = 4;
/// Counts between two halvings: most keys then still have counters of their own.
const AGE: u32 = 1 << 16;

/// The sketch: 256 KiB.
#[derive(Debug)]
pub struct Uses {
    counters: Box<[AtomicU8]>,
    hasher: ahash::RandomState,
    counted: AtomicU32,
}

impl Default for Uses {
    fn default() -> Self {
        Self {
            counters: (0..WIDTH * ROWS).map(|_| AtomicU8::new(0)).collect(),
            hasher: ahash::RandomState::new(),
            counted: AtomicU32::new(0),
        }
    }
}

impl Uses {
    /// Counts a use of `key`. Returns how many there were lately, this one included; 255 at the most.
    pub fn count(&self, key: &[u8]) -> u8 {
        if self.counted.fetch_add(1, Ordering::Relaxed) % AGE == AGE - 1 {
            self.halve();
        }
        let hash = self.hasher.hash_one(key);
        let mut least = u8::MAX;
        for row in 0..ROWS {
            // Sixteen bits of the hash for each row.
            let place = usize::try_from(hash >> (16 * row)).unwrap_or(usize::MAX) % WIDTH;
            let counter = &self.counters[row * WIDTH + place];
            let before = counter.load(Ordering::Relaxed);
            // A count lost to another thread in the same instant does no harm.
            counter.store(before.saturating_add(1), Ordering::Relaxed);
            least = least.min(before.saturating_add(1));
        }
        least
    }

    fn halve(&self) {
        for counter in &self.counters {
            counter.store(counter.load(Ordering::Relaxed) / 2, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_counted_and_others_hardly_disturb_it() {
        let uses = Uses::default();
        assert_eq!(uses.count(b"a"), 1);
        assert_eq!(uses.count(b"a"), 2);
        let wrong = (0..10_000_u32)
            .filter(|number| uses.count(&number.to_le_bytes()) > 1)
            .count();
        assert!(wrong < 100, "{wrong} of 10,000 new keys seem known");
    }

    #[test]
    fn what_was_asked_for_long_ago_is_forgotten() {
        let uses = Uses::default();
        assert_eq!((uses.count(b"a"), uses.count(b"a")), (1, 2));
        for number in 0..3 * AGE {
            uses.count(&number.to_le_bytes());
        }
        let after = uses.count(b"a");
        assert!(after <= 3, "{after}");
        let last = (0..300).map(|_| uses.count(b"b")).last();
        assert_eq!(last, Some(u8::MAX), "it does not wrap");
    }
}
