//! What a carrier keeps beside a stored object, and how often the object was of use before.
//!
//! Some carriers send faster from another form of a body than the bytes that are kept. Making that
//! form pays for what is asked for often, and it has to go when the object goes; so its place is
//! here. What it is, is the carrier's affair, and so is what it weighs: it is not in
//! [`crate::Stored::weight`].

use std::any::Any;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

/// See the module's text.
#[derive(Debug, Default)]
pub struct Companion {
    uses: AtomicU32,
    kept: OnceLock<Arc<dyn Any + Send + Sync>>,
}

impl Companion {
    /// What is kept, where it is of this type.
    pub fn get<T: Any>(&self) -> Option<&T> {
        self.kept.get()?.downcast_ref()
    }

    /// Keeps `made`, unless somebody was faster; what stands then is what is kept.
    pub fn keep<T: Any + Send + Sync>(&self, made: T) -> Option<&T> {
        // Nobody waits here for another's making: it is made before.
        let _ = self.kept.set(Arc::new(made));
        self.get()
    }

    /// Counts a use; gives how many there were with it. Ask only while nothing is kept: the count
    /// is shared by all threads.
    pub fn count_use(&self) -> u32 {
        self.uses.fetch_add(1, Ordering::Relaxed).wrapping_add(1)
    }
}

/// The same body goes on under another head: what is kept goes with it.
impl Clone for Companion {
    fn clone(&self) -> Self {
        Self {
            uses: AtomicU32::new(self.uses.load(Ordering::Relaxed)),
            kept: self.kept.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_that_is_kept_stays_and_goes_with_a_clone() {
        let companion = Companion::default();
        assert_eq!(companion.get::<u8>(), None);
        assert_eq!((companion.count_use(), companion.count_use()), (1, 2));
        assert_eq!(companion.keep(7_u8), Some(&7));
        assert_eq!(companion.keep(8_u8), Some(&7));
        assert_eq!(companion.get::<u16>(), None, "of another type");
        let clone = companion.clone();
        drop(companion);
        assert_eq!(clone.get::<u8>(), Some(&7));
    }
}
