//! The body of a request that goes up whole, if it does.

use std::io::ErrorKind;

use http::header;

use super::block::Block;
use super::{Hit, What};
use crate::carry::upstream::{self, Begun, EARLY_BODY, EARLY_TIME};
use crate::clock;
use crate::exchange::chunked::ChunkScanner;
use crate::exchange::guard::{Framing, HeadFacts};
use crate::listen::{Conn, buffers};
use crate::snapshot::Action;

/// What the head of a request tells of its body.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Upload {
    /// So many octets; none where there is no body.
    Length(u64),
    /// It comes in chunks (RFC 9112 section 7.1), or over HTTP/2 without a length, and goes up in
    /// chunks, as on the other way.
    Unsaid,
}

impl Upload {
    pub(super) fn of(request: &HeadFacts) -> Self {
        match request.body {
            Framing::None => Self::Length(0),
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Unsaid,
        }
    }

    pub(super) fn is_empty(self) -> bool {
        self == Self::Length(0)
    }

    /// Whether it may be of at most so many octets.
    pub(super) fn may_be_of(self, most: u64) -> bool {
        match self {
            Self::Length(length) => length <= most,
            Self::Unsaid => true,
        }
    }

    /// The field that tells the upstream of it.
    pub(super) fn announce(self, block: &mut Block<'_>) {
        match self {
            Self::Length(0) => {}
            Self::Length(length) => {
                let digits = &mut itoa::Buffer::new();
                block.push(&header::CONTENT_LENGTH, digits.format(length).as_bytes());
            }
            Self::Unsaid => block.push(&header::TRANSFER_ENCODING, b"chunked"),
        }
    }

    /// Puts the whole `body` behind its head.
    fn put(self, body: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::Length(_) => out.extend_from_slice(body),
            Self::Unsaid if body.is_empty() => out.extend_from_slice(b"0\r\n\r\n"),
            Self::Unsaid => {
                out.extend_from_slice(format!("{:x}\r\n", body.len()).as_bytes());
                out.extend_from_slice(body);
                out.extend_from_slice(b"\r\n0\r\n\r\n");
            }
        }
    }
}

/// Chunks that come by and by.
#[derive(Default)]
struct Chunks {
    scanner: ChunkScanner,
    /// Octets that were looked at.
    seen: usize,
    data: Vec<u8>,
}

/// How far the chunks of a body are.
enum Came {
    Part,
    /// All, and no more than the body.
    Whole,
    /// They are many, or slow.
    Later,
    /// They are malformed, or more than a body: the other carrier's.
    Other,
}

impl Chunks {
    /// Looks at `bytes`, the body as far as it has come, from where it looked last.
    fn look(&mut self, bytes: &[u8]) -> Came {
        while self.seen < bytes.len() {
            let rest = &bytes[self.seen..];
            let Ok((progress, data)) = self.scanner.next_data(rest) else {
                return Came::Other;
            };
            self.data.extend_from_slice(&rest[data]);
            self.seen += progress.consumed;
            match progress.done {
                true if self.scanner.has_trailers() => return Came::Other,
                true => return Came::Whole,
                false if self.seen as u64 > EARLY_BODY => return Came::Later,
                false => {}
            }
        }
        Came::Part
    }
}

impl Hit {
    /// Puts the body behind the request's head as it goes up, if it is there soon, and says of how
    /// many octets on the connection it is; it waits on `conn`, too. 0 where it goes up as it comes.
    ///
    /// # Errors
    /// It is not: the request for the other carrier.
    pub(super) async fn take_body(
        &mut self,
        conn: &mut Conn,
        request: &HeadFacts,
    ) -> Result<usize, Begun> {
        let start = request.head_len;
        let goes_later = matches!(&self.what, What::Proxied(asking) if asking.streamed.is_some());
        let length = match Upload::of(request) {
            _ if goes_later => return Ok(0),
            Upload::Length(0) => return Ok(0),
            Upload::Length(length) => usize::try_from(length).unwrap_or(usize::MAX),
            // Boxed: few requests come so, and each would have room for it.
            Upload::Unsaid => return Box::pin(self.take_chunks(conn, start)).await,
        };
        let end = start.saturating_add(length);
        if conn.waiting().len() < end {
            conn.set_deadline(Some(clock::now() + EARLY_TIME));
            while conn.waiting().len() < end && !conn.ended() && conn.more().await.is_ok() {}
        }
        self.bring(conn.waiting().get(start..end)).map(|()| length)
    }

    async fn take_chunks(&mut self, conn: &mut Conn, start: usize) -> Result<usize, Begun> {
        let mut chunks = Chunks {
            data: buffers::take(),
            ..Chunks::default()
        };
        let mut is_timed = false;
        let came = loop {
            let bytes = conn.waiting().get(start..).unwrap_or_default();
            match chunks.look(bytes) {
                Came::Part => {}
                came => break came,
            }
            if !is_timed {
                conn.set_deadline(Some(clock::now() + EARLY_TIME));
                is_timed = true;
            }
            if conn.ended() {
                break Came::Other;
            }
            match conn.more().await {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::TimedOut => break Came::Later,
                Err(_) => break Came::Other,
            }
        };
        let here = chunks.data.len() as u64;
        let goes_later = match (&mut self.what, &came) {
            (What::Proxied(asking), Came::Whole) => here > asking.most && asking.goes_later(here),
            (What::Proxied(asking), Came::Later) => asking.goes_later(here),
            _ => false,
        };
        let brought = match came {
            _ if goes_later => Ok(0),
            Came::Whole => self.bring(Some(&chunks.data)).map(|()| chunks.seen),
            _ => self.bring(None).map(|()| 0),
        };
        buffers::give(chunks.data);
        brought
    }

    /// Puts `body` behind the request's head.
    ///
    /// # Errors
    /// There is none, or more than is sent so: the request for the other carrier.
    pub(super) fn bring(&mut self, body: Option<&[u8]>) -> Result<(), Begun> {
        let What::Proxied(asking) = &mut self.what else {
            return Ok(());
        };
        if let Some(body) = body.filter(|body| body.len() as u64 <= asking.most) {
            asking.upload.put(body, &mut asking.lines);
            self.record.bytes_in = body.len() as u64;
            return Ok(());
        }
        buffers::release(&mut asking.lines);
        // Only what is to be proxied has a body.
        match self
            .snapshot
            .routes
            .get(self.route)
            .map(|route| &route.action)
        {
            Some(Action::Upstream { upstream, .. }) => {
                Err(upstream::unbegun(upstream, self.snapshot.worker))
            }
            _ => Ok(()),
        }
    }
}
