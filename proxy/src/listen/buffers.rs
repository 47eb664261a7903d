//! Buffers that a connection holds only while it has bytes in them.
//!
//! Each worker thread keeps a small free list: an idle connection owns no
//! buffer at all, a busy one takes a warm one without going to the allocator.

use std::cell::RefCell;

use bytes::Bytes;
use tokio::io::ReadBuf;

/// Capacity of a pooled buffer, one TLS record's worth (RFC 8446 section 5.1).
pub(crate) const CHUNK: usize = 16 * 1024;

/// Octets that are copied at once. From 2,112 on glibc copies by the processor's string instruction where that is
/// said to be fast, and on AMD's Zen 4 it takes thirty times as long (3 for 100 GB/s) where the target lies 1 to 15 octets
/// further in its page than the source does in its own. That is how a frame or a record lies behind its head, as
/// large buffers begin with a page.
const PIECE: usize = 2 * 1024;

/// Octets of a page.
const PAGE: usize = 4 * 1024;

/// Larger ones go back to the allocator instead of the free list.
const KEEP_UP_TO: usize = 8 * CHUNK;

/// Octets of free buffers that a thread keeps, of whatever capacity they are.
const KEEP: usize = 64 * CHUNK;

thread_local! {
    static FREE: RefCell<Free> = const { RefCell::new(Free { buffers: Vec::new(), octets: 0 }) };
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; 3 * CHUNK]);
    static APART: RefCell<Vec<u8>> = RefCell::new(vec![0; CHUNK + PAGE]);
}

struct Free {
    buffers: Vec<Vec<u8>>,
    /// Their capacities together.
    octets: usize,
}

impl Free {
    fn take(&mut self) -> Option<Vec<u8>> {
        let buffer = self.buffers.pop()?;
        self.octets -= buffer.capacity();
        Some(buffer)
    }
}

/// An empty buffer with room for at least [`CHUNK`] bytes.
pub(crate) fn take() -> Vec<u8> {
    FREE.with_borrow_mut(Free::take)
        .unwrap_or_else(|| Vec::with_capacity(CHUNK))
}

/// Gives a buffer back; its content is forgotten.
pub(crate) fn give(mut buffer: Vec<u8>) {
    if buffer.capacity() < CHUNK || buffer.capacity() > KEEP_UP_TO {
        return;
    }
    buffer.clear();
    FREE.with_borrow_mut(|free| {
        if free.octets + buffer.capacity() <= KEEP {
            free.octets += buffer.capacity();
            free.buffers.push(buffer);
        }
    });
}

/// Gives back the buffer of `slot` and leaves an empty one without capacity.
pub(crate) fn release(slot: &mut Vec<u8>) {
    give(std::mem::take(slot));
}

/// Puts `bytes`, which may be many, behind `out`.
pub(crate) fn append(out: &mut Vec<u8>, bytes: &[u8]) {
    if bytes.len() <= PIECE {
        return out.extend_from_slice(bytes);
    }
    out.reserve(bytes.len());
    bytes
        .chunks(PIECE)
        .for_each(|piece| out.extend_from_slice(piece));
}

/// Puts `bytes`, for which there is room, into `room`.
pub(crate) fn put(room: &mut ReadBuf<'_>, bytes: &[u8]) {
    bytes.chunks(PIECE).for_each(|piece| room.put_slice(piece));
}

/// A copy of `bytes`.
pub(crate) fn copied(bytes: &[u8]) -> Bytes {
    if bytes.len() <= PIECE {
        return Bytes::copy_from_slice(bytes);
    }
    let mut copy = Vec::with_capacity(bytes.len());
    append(&mut copy, bytes);
    copy.into()
}

/// Runs `work` on `bytes`, at most [`CHUNK`] of them, as they lie in the middle of a page: for who copies them to
/// just behind the start of one.
///
/// `work` must not call back into this function.
pub(crate) fn apart<T>(bytes: &[u8], work: impl FnOnce(&[u8]) -> T) -> T {
    if bytes.len() <= PIECE {
        return work(bytes);
    }
    APART.with_borrow_mut(|room| {
        let start = (PAGE + PAGE / 2 - room.as_ptr().addr() % PAGE) % PAGE;
        let room = &mut room[start..start + bytes.len()];
        for (to, from) in room.chunks_mut(PIECE).zip(bytes.chunks(PIECE)) {
            to.copy_from_slice(from);
        }
        work(room)
    })
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
    fn copies_are_whole_whatever_their_size() {
        for size in [0, 1, PIECE - 1, PIECE, PIECE + 1, 5 * PIECE + 7] {
            let bytes: Vec<u8> = (0..size).map(|at| b"0123456789abc"[at % 13]).collect();
            assert_eq!(copied(&bytes), bytes);
            let mut out = b"before".to_vec();
            append(&mut out, &bytes);
            assert_eq!(out, [b"before", &bytes[..]].concat());
            let mut room = vec![0; size + 6];
            let mut room = ReadBuf::new(&mut room);
            room.put_slice(b"before");
            put(&mut room, &bytes);
            assert_eq!(room.filled(), out);
        }
    }

    #[test]
    fn what_is_set_apart_is_the_same_in_the_middle_of_a_page() {
        for size in [0, 1, PIECE, PIECE + 1, CHUNK - 1, CHUNK] {
            let bytes: Vec<u8> = (0..size).map(|at| b"0123456789abc"[at % 13]).collect();
            apart(&bytes, |seen| {
                assert_eq!(seen, bytes);
                assert!(size <= PIECE || seen.as_ptr().addr() % PAGE == PAGE / 2);
            });
        }
    }

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
