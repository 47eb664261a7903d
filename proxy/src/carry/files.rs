//! A static answer on its way to the client.
//!
//! What is in memory is written as it is, a file piece by piece ([`Pieces`]).

use bytes::Bytes;
use http::header::{HeaderMap, HeaderValue};
use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;
use static_server::{Answer, Body, FilePart, Part};
use tokio::task::{JoinHandle, spawn_blocking};

use super::respond;
use crate::listen::is_h2;

/// Bytes read from a file at a time. There may be two such pieces, and what TLS holds, for a client
/// that does not read: 256 KiB in all.
const PIECE: usize = 96 * 1024;

/// The same for one of many streams, none of which is read ahead for.
const STREAM_PIECE: usize = 32 * 1024;

/// Why an answer was not written whole.
pub(super) enum Cut {
    /// The client is gone.
    Client,
    /// The file changed or could not be read.
    File(std::io::Error),
}

impl From<Box<pingora::Error>> for Cut {
    fn from(_: Box<pingora::Error>) -> Self {
        Self::Client
    }
}

/// The head of `answer`.
pub(super) fn head(answer: &Answer) -> Box<ResponseHeader> {
    let count = answer.headers.shared.fields().len() + answer.headers.own.len();
    let mut fields = HeaderMap::with_capacity(count + respond::ADDED);
    for (name, value) in answer.headers.iter() {
        fields.append(name, value.clone());
    }
    respond::from_fields(answer.status, fields)
}

/// Writes `head` and the body of `answer`.
pub(super) async fn write(
    session: &mut ServerSession,
    head: Box<ResponseHeader>,
    body: Body,
    id: &HeaderValue,
) -> Result<(), Cut> {
    let parts = match body {
        Body::Empty => return Ok(respond::write(session, head, Bytes::new(), id).await?),
        Body::Memory(bytes) => return Ok(respond::write(session, head, bytes, id).await?),
        Body::File(part) => vec![Part::File(part)],
        Body::Parts(parts) => parts,
    };
    respond::begin(session, head, id).await?;
    for part in parts {
        match part {
            Part::Memory(bytes) => respond::write_body(session, bytes, false).await?,
            Part::File(part) => copy(session, part).await?,
        }
    }
    Ok(respond::finish(session).await?)
}

async fn copy(session: &mut ServerSession, part: FilePart) -> Result<(), Cut> {
    let mut pieces = match is_h2(session) {
        false => Pieces::new(part),
        true => Pieces::of_stream(part),
    };
    while let Some(bytes) = pieces.next().await.map_err(Cut::File)? {
        session.write_response_body(bytes, false).await?;
    }
    Ok(())
}

/// A stretch of a file, piece by piece.
///
/// What the kernel has in memory is read at once. What has to come from the disk is read on the
/// blocking pool, a piece ahead of the client, so that a cold disk never holds the event loop.
pub(super) struct Pieces {
    size: usize,
    part: Option<FilePart>,
    ahead: Option<JoinHandle<Read>>,
}

impl Pieces {
    pub(super) fn new(part: FilePart) -> Self {
        Self {
            size: PIECE,
            part: Some(part),
            ahead: None,
        }
    }

    /// For a stream of HTTP/2 or HTTP/3, of which a client may have a hundred.
    pub(super) fn of_stream(part: FilePart) -> Self {
        Self {
            size: STREAM_PIECE,
            ..Self::new(part)
        }
    }

    /// The next bytes, `None` at the end.
    ///
    /// # Errors
    /// Where the file changed or cannot be read: what was promised cannot be kept.
    pub(super) async fn next(&mut self) -> std::io::Result<Option<Bytes>> {
        let reading = match (self.ahead.take(), &mut self.part) {
            (Some(reading), _) => reading,
            (None, None) => return Ok(None),
            (None, Some(part)) => match part.read_ready(self.size) {
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    read(part.clone(), self.size)
                }
                ready => return ready,
            },
        };
        let (part, bytes) = reading.await.map_err(std::io::Error::other)??;
        // The kernel reads ahead as well; what it has got by now needs no other thread.
        if part.len > 0 && self.size == PIECE {
            self.ahead = Some(read(part.clone(), self.size));
        }
        self.part = Some(part);
        Ok(bytes)
    }
}

type Read = std::io::Result<(FilePart, Option<Bytes>)>;

fn read(mut part: FilePart, size: usize) -> JoinHandle<Read> {
    spawn_blocking(move || {
        let bytes = part.read_next(size)?;
        Ok((part, bytes))
    })
}
