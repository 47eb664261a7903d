//! Buffers that a connection holds only while it has bytes in them.
//!
//! Each worker thread keeps a small free list: an idle connection owns no
//! buffer at all, a busy one takes a warm one without going to the allocator.

use std::cell::RefCell;

/// Capacity of a pooled buffer, one TLS record's worth (RFC 8446 section 5.1).
pub(crate) const CHUNK: usize = 16 * 1024;

/// Larger ones go back to the allocator instead of the free list.
const KEEP_UP_TO: usize = 8 * CHUNK;

/// Free buffers kept by a thread: 1 MiB at the least capacity.
const KEEP: usize = 64;

thread_local! {
    static FREE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; 3 * CHUNK]);
}

/// An empty buffer with room for at least [`CHUNK`] bytes.
pub(crate) fn take() -> Vec<u8> {
    FREE.with_borrow_mut(Vec::pop)
        .unwrap_or_else(|| Vec::with_capacity(CHUNK))
}

/// Gives a buffer back; its content is forgotten.
pub(crate) fn give(mut buffer: Vec<u8>) {
    if buffer.capacity() < CHUNK || buffer.capacity() > KEEP_UP_TO {
        return;
    }
    buffer.clear();
    FREE.with_borrow_mut(|free| {
        if free.len() < KEEP {
            free.push(buffer);
        }
    });
}

/// Gives back the buffer of `slot` and leaves an empty one without capacity.
pub(crate) fn release(slot: &mut Vec<u8>) {
    give(std::mem::take(slot));
}

/// Runs `work` on this thread's scratch space (initialised, three records long).
///
/// `work` must not call back into this function.
pub(crate) fn with_scratch<T>(work: impl FnOnce(&mut [u8]) -> T) -> T {
    SCRATCH.with_borrow_mut(|scratch| work(scratch))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_given_back_is_taken_again() {
        let mut first = take();
        first.extend_from_slice(b"bytes");
        let place = first.as_ptr();
        give(first);
        let second = take();
        assert!(second.is_empty());
        assert_eq!(second.as_ptr(), place, "the warm buffer is the one reused");
    }

    #[test]
    fn odd_sizes_are_not_kept() {
        give(Vec::new());
        give(Vec::with_capacity(KEEP_UP_TO + 1));
        assert!(take().capacity() >= CHUNK);
    }
}
