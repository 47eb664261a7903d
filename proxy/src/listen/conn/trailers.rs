//! Fields behind the bodies of a client's HTTP/1.1 connection.
//!
//! Pingora's session reads over the trailer section of a request, and ends a chunked reply without
//! one. The gate sees every octet of a chunked request, so it leaves the section here; and whoever
//! ends a reply leaves here what the last chunk is to be, which the connection then writes in the
//! place of Pingora's.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// What Pingora ends a chunked body with.
pub(crate) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Those of the request that is being served, and of its reply. Boxed, as they are rare and every
/// connection has room for them.
#[derive(Debug, Default)]
pub(crate) struct Trailers(Mutex<Option<Box<Held>>>);

#[derive(Debug, Default)]
struct Held {
    /// Lines as they came.
    request: Vec<u8>,
    /// What is written as the last chunk.
    reply: Vec<u8>,
}

impl Trailers {
    /// For the next request.
    pub(super) fn clear(&self) {
        *self.held() = None;
    }

    /// The request's section has come.
    pub(super) fn came(&self, section: Vec<u8>) {
        self.held().get_or_insert_default().request = section;
    }

    /// The lines behind the request's body, once.
    pub(crate) fn take_request(&self) -> Vec<u8> {
        let mut held = self.held();
        let request = held.as_mut().map(|held| &mut held.request);
        request.map(std::mem::take).unwrap_or_default()
    }

    /// The chunked reply ends with this in place of [`LAST_CHUNK`], which must be what is written
    /// next.
    pub(crate) fn end_with(&self, last_chunk: Vec<u8>) {
        self.held().get_or_insert_default().reply = last_chunk;
    }

    /// What stands in for `written`, if that is the last chunk.
    pub(super) fn in_place_of(&self, written: &[u8]) -> Option<Vec<u8>> {
        if written != LAST_CHUNK {
            return None;
        }
        let reply = std::mem::take(&mut self.held().as_mut()?.reply);
        (!reply.is_empty()).then_some(reply)
    }

    fn held(&self) -> MutexGuard<'_, Option<Box<Held>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_chunk_is_replaced_and_once() {
        let trailers = Trailers::default();
        assert_eq!(trailers.in_place_of(LAST_CHUNK), None);
        trailers.end_with(b"0\r\nx: y\r\n\r\n".to_vec());
        assert_eq!(trailers.in_place_of(b"5\r\n"), None);
        assert_eq!(
            trailers.in_place_of(LAST_CHUNK),
            Some(b"0\r\nx: y\r\n\r\n".to_vec())
        );
        assert_eq!(trailers.in_place_of(LAST_CHUNK), None);
    }

    #[test]
    fn nothing_of_one_request_is_left_for_the_next() {
        let trailers = Trailers::default();
        trailers.came(b"x: y\r\n".to_vec());
        trailers.end_with(b"0\r\nx: y\r\n\r\n".to_vec());
        trailers.clear();
        assert_eq!(trailers.take_request(), b"");
        assert_eq!(trailers.in_place_of(LAST_CHUNK), None);
        trailers.came(b"a: b\r\n".to_vec());
        assert_eq!(trailers.take_request(), b"a: b\r\n");
        assert_eq!(trailers.take_request(), b"");
    }
}
