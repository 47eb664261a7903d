//! Random bits for choices that need no secrecy (which endpoint, which id).
//!
//! One small generator a thread, seeded from the system's hasher keys: no lock,
//! no system call on a request's way. Not for keys or tokens.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};

thread_local! {
    static STATE: Cell<u64> = Cell::new(RandomState::new().hash_one(0_u8));
}

/// 64 bits, by SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom
/// number generators", OOPSLA 2014).
pub(crate) fn bits() -> u64 {
    STATE.with(|state| {
        let next = state.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
        state.set(next);
        let mut z = next;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    })
}

/// A number in `[0, 1)`.
pub(crate) fn share() -> f64 {
    // The mantissa has 53 bits.
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
    let share = (bits() >> 11) as f64 / (1_u64 << 53) as f64;
    share
}

/// A request id: two draws, so that ids of several processes do not meet.
pub(crate) fn id() -> u128 {
    (u128::from(bits()) << 64) | u128::from(bits())
}
