//! What a request's way is made of, each part ready to be counted on its own.
//!
//! The leaf crates are used as they are. The proxy's modules that decide and carry nothing are
//! compiled in once more, because nothing of them is public there. `bench.rs` has the table of what
//! each may take.

mod balancing;
mod door;
mod pages;

// What the proxy's own modules name from the root of their crate.
#[path = "../../proxy/src/exchange/mod.rs"]
#[expect(dead_code, reason = "the proxy uses more of it")]
mod exchange;
#[path = "../../proxy/src/filter/mod.rs"]
#[expect(dead_code, reason = "the proxy uses more of it")]
mod filter;

use std::hint::black_box;
use std::time::Instant;

pub use balancing::request_to_one_of_ten;
pub use door::{
    chunked_body, fields_of_request, head_of_reply, head_of_request, head_sent_on, path_in_place,
    path_to_mend, route,
};
pub use pages::{file_in_memory, fresh_page, key_of_page, page_at_hand};

/// One part of a request's way, with all that it works on.
pub type Part = Box<dyn FnMut()>;

/// `part`, which gives something to see that it was done. It is done once here: what the first time
/// costs (memory, a thread's own state) is not what is counted.
fn ready<T>(mut part: impl FnMut() -> T + 'static) -> Part {
    black_box(part());
    Box::new(move || {
        black_box(part());
    })
}

#[expect(
    clippy::disallowed_methods,
    reason = "a benchmark begins at some instant"
)]
fn now() -> Instant {
    Instant::now()
}
