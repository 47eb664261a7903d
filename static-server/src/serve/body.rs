//! An answer's body as hyper wants it: frames, read from files a chunk ahead.
//!
//! While the client takes one chunk, the next is read on the blocking pool. So at most two
//! chunks of a response are in memory, however large the file and slow the client.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::task::JoinHandle;

use crate::answer::{Body, FilePart, Part};

/// How much is read at once: enough that the hand-over to another thread costs little.
const CHUNK: usize = 128 * 1_024;

/// A response body. It ends in an error where a file changes while it is sent, which breaks
/// the connection off: a client must not take a mixture for the file.
#[derive(Debug)]
pub struct Content {
    parts: VecDeque<Part>,
    reading: Option<JoinHandle<io::Result<Chunk>>>,
    /// Bytes still to come.
    left: u64,
}

/// What a read gave, and where to go on.
type Chunk = (Option<Bytes>, FilePart);

impl Content {
    /// The body of an answer.
    pub fn new(body: Body) -> Self {
        let left = body.content_length();
        let parts = match body {
            Body::Empty => VecDeque::new(),
            Body::Memory(bytes) => VecDeque::from([Part::Memory(bytes)]),
            Body::File(part) => VecDeque::from([Part::File(part)]),
            Body::Parts(parts) => parts.into(),
        };
        Self {
            parts,
            reading: None,
            left,
        }
    }

    /// Takes the chunk that was read ahead, and has the next one read.
    fn take(&mut self, chunk: Chunk) -> Option<Bytes> {
        let (bytes, part) = chunk;
        if part.len > 0 {
            self.reading = Some(read(part));
        }
        bytes
    }

    fn poll_bytes(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        loop {
            if let Some(reading) = &mut self.reading {
                let chunk = ready!(Pin::new(reading).poll(context));
                self.reading = None;
                match chunk.map_err(io::Error::other).flatten() {
                    Ok(chunk) => {
                        if let Some(bytes) = self.take(chunk) {
                            return Poll::Ready(Some(Ok(bytes)));
                        }
                    }
                    Err(error) => {
                        self.parts.clear();
                        return Poll::Ready(Some(Err(error)));
                    }
                }
                continue;
            }
            match self.parts.pop_front() {
                None => return Poll::Ready(None),
                Some(Part::Memory(bytes)) if bytes.is_empty() => {}
                Some(Part::Memory(bytes)) => return Poll::Ready(Some(Ok(bytes))),
                Some(Part::File(part)) => self.reading = Some(read(part)),
            }
        }
    }
}

fn read(mut part: FilePart) -> JoinHandle<io::Result<Chunk>> {
    tokio::task::spawn_blocking(move || {
        let bytes = part.read_next(CHUNK)?;
        Ok((bytes, part))
    })
}

impl From<&'static str> for Content {
    fn from(text: &'static str) -> Self {
        Self::new(Body::Memory(Bytes::from_static(text.as_bytes())))
    }
}

impl http_body::Body for Content {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let bytes = ready!(self.poll_bytes(context));
        if let Some(Ok(bytes)) = &bytes {
            self.left = self.left.saturating_sub(bytes.len() as u64);
        }
        Poll::Ready(bytes.map(|bytes| bytes.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.parts.is_empty() && self.reading.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
