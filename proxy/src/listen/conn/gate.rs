//! How much of a connection's input the borrower of the connection may read.
//!
//! HTTP/1 puts requests one behind the other; where one ends is known from its
//! head, or found by the chunk scanner. The gate closes there, so that what a
//! client pipelined never gets into the hands of who serves the request before.

use crate::exchange::chunked::ChunkScanner;
use crate::exchange::guard::{Framing, HeadFacts, Reject, Upgrade};

/// How far the borrower may read.
#[derive(Debug)]
pub(super) enum Gate {
    /// Without bound: HTTP/2, upgraded connections.
    Open,
    /// This many bytes: head and body of known length.
    Length(u64),
    /// This many bytes of head, then a chunked body to its end.
    Chunked { head: usize, scanner: ChunkScanner },
    /// The request was read to its end, and this is its trailer section.
    Done(Vec<u8>),
}

impl Gate {
    /// Opens for the request of this head, and no further.
    pub(super) fn for_request(facts: &HeadFacts) -> Self {
        let head = facts.head_len as u64;
        match facts.body {
            _ if facts.upgrade == Upgrade::WebSocket => Self::Open,
            Framing::None => Self::Length(head),
            Framing::Length(length) => Self::Length(head.saturating_add(length)),
            Framing::Chunked => Self::Chunked {
                head: facts.head_len,
                scanner: ChunkScanner::default(),
            },
        }
    }

    /// The request was read to its end.
    pub(super) fn is_closed(&self) -> bool {
        matches!(self, Self::Done(_) | Self::Length(0))
    }

    /// The lines behind a chunked body that has passed, once.
    pub(super) fn take_trailer(&mut self) -> Option<Vec<u8>> {
        match self {
            Self::Done(trailer) if !trailer.is_empty() => Some(std::mem::take(trailer)),
            _ => None,
        }
    }

    /// How many of `waiting` may pass now; they have passed with that.
    pub(super) fn admit(&mut self, waiting: &[u8]) -> Result<usize, Reject> {
        Ok(match self {
            Self::Open => waiting.len(),
            Self::Done(_) => 0,
            Self::Length(left) => {
                let passing = usize::try_from(*left)
                    .unwrap_or(usize::MAX)
                    .min(waiting.len());
                *left -= passing as u64;
                passing
            }
            Self::Chunked { head, .. } if *head > 0 => {
                let passing = (*head).min(waiting.len());
                *head -= passing;
                passing
            }
            Self::Chunked { scanner, .. } => {
                let progress = scanner.feed_all(waiting)?;
                if progress.done {
                    *self = Self::Done(scanner.take_trailer());
                }
                progress.consumed
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::guard::{Inspect, inspect};

    /// What passes a gate that is shown the input in pieces of `size`.
    fn passes(input: &[u8], size: usize) -> Result<usize, Reject> {
        let Inspect::Head(facts) = inspect(input, 4096) else {
            panic!("not a whole head");
        };
        let mut gate = Gate::for_request(&facts);
        let mut passed = 0;
        while !gate.is_closed() {
            let end = (passed + size).min(input.len());
            passed += gate.admit(&input[passed..end])?;
        }
        Ok(passed)
    }

    #[test]
    fn a_request_passes_whole_and_the_next_one_does_not() {
        let next = "GET /next HTTP/1.1\r\nHost: a\r\n\r\n";
        for first in [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx: y\r\n\r\n",
        ] {
            let both = format!("{first}{next}");
            for size in 1..both.len() {
                assert_eq!(
                    passes(both.as_bytes(), size),
                    Ok(first.len()),
                    "{first:?} by {size}"
                );
            }
        }
    }

    #[test]
    fn a_broken_chunk_does_not_pass() {
        let bad = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello";
        assert!(passes(bad, 7).is_err());
    }
}
