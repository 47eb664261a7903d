//! Who reads a configuration goes last.
//!
//! A reload runs beside workers, on few cores on one of theirs. A scheduler that lets it finish
//! its turn holds up every request there for as long as that takes, some milliseconds; so it gives
//! the core away between two steps, if anybody wants it (sched_yield(2)).

use std::cell::Cell;
use std::time::{Duration, Instant};

/// Each time that the core is given away to somebody busy costs a whole turn of theirs.
const TURN: Duration = Duration::from_micros(200);

thread_local! {
    static SINCE: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Lets others go first, if this thread has not for a while; between steps of some tens of
/// microseconds.
pub fn give_way() {
    #[expect(
        clippy::disallowed_methods,
        reason = "nothing is decided by it but when to be polite"
    )]
    let now = Instant::now();
    if SINCE.get().is_none_or(|since| now - since >= TURN) {
        std::thread::yield_now();
        SINCE.set(Some(now));
    }
}
