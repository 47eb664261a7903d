//! A static answer on its way to the client.
//!
//! What is in memory is written as it is. A file is read in pieces on the
//! blocking pool, so that a cold disk never holds the event loop. The next piece
//! is read once the client took the last one: who does not read costs one piece.

use bytes::Bytes;
use http::header::{HeaderMap, HeaderValue};
use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;
use static_server::{Answer, Body, FilePart, Part};
use tokio::task::{JoinHandle, spawn_blocking};

use super::respond;

/// Bytes read from a file at a time.
const PIECE: usize = 128 * 1024;

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
    let count = answer.headers.shared.len() + answer.headers.own.len();
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

async fn copy(session: &mut ServerSession, mut part: FilePart) -> Result<(), Cut> {
    loop {
        let (rest, bytes) = match read(part).await {
            Ok(Ok(read)) => read,
            Ok(Err(error)) => return Err(Cut::File(error)),
            Err(error) => return Err(Cut::File(std::io::Error::other(error))),
        };
        let Some(bytes) = bytes else {
            return Ok(());
        };
        part = rest;
        session.write_response_body(bytes, false).await?;
    }
}

type Read = std::io::Result<(FilePart, Option<Bytes>)>;

fn read(mut part: FilePart) -> JoinHandle<Read> {
    spawn_blocking(move || {
        let bytes = part.read_next(PIECE)?;
        Ok((part, bytes))
    })
}
