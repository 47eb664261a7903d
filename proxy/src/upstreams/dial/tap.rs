//! Chunked bodies of an HTTP/1.1 connection to an endpoint, and the fields behind them.
//!
//! Pingora's session reads over the trailer section of a reply, takes an empty chunk size for the
//! last one, and ends a chunked request without trailers. So the connection looks at what passes: what
//! is read is kept until the session says how long the reply's head was, and from there on a scanner
//! goes along with a chunked body to its end. What the scanner, which is strict and that of the lane,
//! does not understand is a broken reply.

use crate::exchange::chunked::ChunkScanner;

/// What the session ends a chunked body with.
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Looks at one request and its reply.
#[derive(Debug, Default)]
pub(super) struct Tap {
    reply: Reply,
    /// What the request's body ends with in place of [`LAST_CHUNK`].
    last_chunk: Vec<u8>,
    /// Octets of that which were written.
    written: usize,
}

#[derive(Debug, Default)]
enum Reply {
    /// Nobody wants to know.
    #[default]
    Ignored,
    /// What was read since the request, or since the interim reply before.
    Head(Vec<u8>),
    Body(ChunkScanner),
    /// What stood behind the body.
    Done(Vec<u8>),
    /// It is no body by chunks.
    Malformed,
}

impl Tap {
    /// From now on the octets of a reply are looked at.
    pub(super) fn watch(&mut self) {
        *self = Self {
            reply: Reply::Head(Vec::new()),
            ..Self::default()
        };
    }

    /// Forgets what it knows.
    pub(super) fn ignore(&mut self) {
        *self = Self::default();
    }

    /// These octets are handed to the session.
    pub(super) fn pass(&mut self, bytes: &[u8]) {
        match &mut self.reply {
            Reply::Ignored | Reply::Done(_) | Reply::Malformed => {}
            Reply::Head(seen) => seen.extend_from_slice(bytes),
            Reply::Body(scanner) => match scanner.feed_all(bytes) {
                Ok(progress) if progress.done => self.reply = Reply::Done(scanner.take_trailer()),
                Ok(_) => {}
                Err(_) => self.reply = Reply::Malformed,
            },
        }
    }

    /// The session has read a head of so many octets, and another one follows.
    pub(super) fn interim(&mut self, head: usize) {
        if let Reply::Head(seen) = &mut self.reply {
            seen.drain(..head.min(seen.len()));
        }
    }

    /// The session has read the last head, behind which a chunked body begins.
    pub(super) fn chunked(&mut self, head: usize) {
        if let Reply::Head(seen) = std::mem::take(&mut self.reply) {
            self.reply = Reply::Body(ChunkScanner::new());
            self.pass(seen.get(head..).unwrap_or_default());
        }
    }

    /// The lines behind the body, when it has been read.
    pub(super) fn take_trailer(&mut self) -> Option<Vec<u8>> {
        match std::mem::take(&mut self.reply) {
            Reply::Done(trailer) if !trailer.is_empty() => Some(trailer),
            _ => None,
        }
    }

    /// Whether what was read breaks the form of chunks.
    pub(super) fn is_malformed(&self) -> bool {
        matches!(self.reply, Reply::Malformed)
    }

    /// The chunked request ends with this, and that is what is written next.
    pub(super) fn end_with(&mut self, last_chunk: Vec<u8>) {
        self.last_chunk = last_chunk;
        self.written = 0;
    }

    /// What is still to be written in place of `bytes`, if they are the last chunk.
    pub(super) fn in_place_of(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        (bytes == LAST_CHUNK && !self.last_chunk.is_empty())
            .then(|| self.last_chunk[self.written..].to_vec())
    }

    /// So many octets of that were written; whether it was all.
    pub(super) fn wrote(&mut self, count: usize) -> bool {
        self.written += count;
        if self.written < self.last_chunk.len() {
            return false;
        }
        self.last_chunk = Vec::new();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailers_are_found_behind_interim_replies_wherever_they_are_cut() {
        let interim = "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n";
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        let body = "3\r\nabc\r\n0\r\nx-sum: 1\r\nx-b: 2\r\n\r\n";
        let all = format!("{interim}{head}{body}");
        // The session reads ahead of what it makes of it by as much as comes at once.
        for size in 1..=all.len() {
            let mut tap = Tap::default();
            tap.watch();
            let mut at = 0;
            let mut read = |tap: &mut Tap, to: usize| {
                while at < to {
                    let end = (at + size).min(all.len());
                    tap.pass(&all.as_bytes()[at..end]);
                    at = end;
                }
            };
            read(&mut tap, interim.len());
            tap.interim(interim.len());
            read(&mut tap, interim.len() + head.len());
            tap.chunked(head.len());
            read(&mut tap, all.len());
            let trailer = tap.take_trailer();
            assert_eq!(
                trailer.as_deref(),
                Some(&b"x-sum: 1\r\nx-b: 2\r\n"[..]),
                "by {size}"
            );
        }
    }

    #[test]
    fn what_is_odd_has_none() {
        for (body, is_malformed) in [
            ("3 \r\nabc\r\n0\r\nx: y\r\n\r\n", true),
            ("\r\nabc\r\n0\r\n\r\n", true),
            ("3\r\nabc\r\n0\r\nno colon\r\n\r\n", true),
            ("0\r\n\r\n", false),
            ("3\r\nabc\r\n", false),
        ] {
            let mut tap = Tap::default();
            tap.watch();
            tap.pass(b"head");
            tap.chunked(4);
            tap.pass(body.as_bytes());
            assert_eq!(tap.is_malformed(), is_malformed, "{body:?}");
            assert_eq!(tap.take_trailer(), None, "{body:?}");
        }
        let mut tap = Tap::default();
        tap.pass(b"0\r\nx: y\r\n\r\n");
        tap.chunked(0);
        assert_eq!(tap.take_trailer(), None, "nobody asked");
    }

    #[test]
    fn the_last_chunk_is_replaced_in_as_many_writes_as_it_takes() {
        let mut tap = Tap::default();
        assert_eq!(tap.in_place_of(LAST_CHUNK), None);
        tap.end_with(b"0\r\nx: y\r\n\r\n".to_vec());
        assert_eq!(tap.in_place_of(b"5\r\n"), None);
        assert_eq!(tap.in_place_of(LAST_CHUNK).unwrap(), b"0\r\nx: y\r\n\r\n");
        assert!(!tap.wrote(3));
        assert_eq!(tap.in_place_of(LAST_CHUNK).unwrap(), b"x: y\r\n\r\n");
        assert!(tap.wrote(8));
        assert_eq!(tap.in_place_of(LAST_CHUNK), None);
    }
}
