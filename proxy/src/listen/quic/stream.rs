//! A request's stream: what comes and what goes, as HTTP/3 frames.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap};
use http::request::Parts;
use quinn::{RecvStream, SendStream, VarInt, WriteError};
use tokio::time::timeout;

use super::wire::code::Code;
use super::wire::frames::{DATA, Event, Frames, HEADERS, Role, put_header};
use super::wire::head;
use super::wire::qpack::{self, Encoder, Refused};
use crate::exchange::guard::Reject;
use crate::listen::h2::is_of_connection;

/// Octets that are read at once.
const MOST_READ: usize = 64 * 1024;

/// Why a stream is not read any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The client broke a rule of the connection, which ends.
    Connection(Code),
    /// The request is malformed.
    Malformed(Reject),
    /// It ended before the request did.
    Cut,
    /// The client gave it up, or is gone.
    Gone,
}

impl From<Refused> for Fault {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::TooLarge => Self::Malformed(Reject::HeadTooLarge),
            Refused::Malformed => Self::Connection(Code::QpackDecompression),
        }
    }
}

/// What the client sends.
pub(super) struct Reader {
    stream: RecvStream,
    frames: Frames,
    /// Received, and not looked at yet.
    input: Bytes,
    /// Octets that a field section may count.
    most: usize,
    /// Octets of the body as they were announced.
    announced: Option<u64>,
    /// Octets of the body that came.
    read: u64,
    /// A piece of it that was read ahead.
    ahead: Option<Bytes>,
    /// The fields behind the body came.
    trailed: bool,
    trailers: Option<HeaderMap>,
    ended: bool,
    /// Why it is not read any further.
    fault: Option<Fault>,
    /// What the client is told where it is not read to its end.
    parting: Code,
}

impl Reader {
    pub(super) fn new(stream: RecvStream, most: usize) -> Self {
        Self {
            stream,
            frames: Frames::new(Role::Request, most),
            input: Bytes::new(),
            most,
            announced: None,
            read: 0,
            ahead: None,
            trailed: false,
            trailers: None,
            ended: false,
            fault: None,
            parting: Code::None,
        }
    }

    /// Whether the client sent it before its handshake was done, so that it may be a replay.
    pub(super) fn is_early(&self) -> bool {
        self.stream.is_0rtt()
    }

    /// The request's head, which comes first.
    pub(super) async fn head(&mut self) -> Result<Parts, Fault> {
        let block = match self.event().await? {
            Some(Event::Whole(_, block)) => block,
            Some(Event::TooLarge(_)) => return Err(Fault::Malformed(Reject::HeadTooLarge)),
            Some(Event::Data(_)) => return Err(Fault::Connection(Code::FrameUnexpected)),
            None => return Err(Fault::Cut),
        };
        let section = qpack::decode(&block, self.most)?;
        let parts = head::request(&section).map_err(Fault::Malformed)?;
        let length = parts.headers.get(header::CONTENT_LENGTH);
        self.announced = length.and_then(|length| length.to_str().ok()?.parse().ok());
        Ok(parts)
    }

    /// Reads ahead until it is known whether there is a body.
    pub(super) async fn look_ahead(&mut self) -> Result<(), Fault> {
        if self.ahead.is_none() && !self.ended {
            self.ahead = self.body().await?;
        }
        Ok(())
    }

    /// The next piece of the body; `None` at its end.
    pub(super) async fn data(&mut self) -> Result<Option<Bytes>, Fault> {
        match self.ahead.take() {
            Some(piece) => Ok(Some(piece)),
            None => self.body().await,
        }
    }

    /// The fields behind a body that was read to its end.
    pub(super) fn take_trailers(&mut self) -> Option<HeaderMap> {
        self.trailers.take()
    }

    /// All of the body was handed out.
    pub(super) fn is_done(&self) -> bool {
        self.ended && self.ahead.is_none()
    }

    /// There is none.
    pub(super) fn is_empty(&self) -> bool {
        self.read == 0 && (self.ended || self.announced == Some(0))
    }

    async fn body(&mut self) -> Result<Option<Bytes>, Fault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let piece = self.next_piece().await;
        self.fault = piece.as_ref().err().copied();
        piece
    }

    async fn next_piece(&mut self) -> Result<Option<Bytes>, Fault> {
        loop {
            if self.ended {
                return Ok(None);
            }
            match self.event().await? {
                // Nothing comes behind trailers (RFC 9114 section 4.1).
                Some(_) if self.trailed => return Err(Fault::Connection(Code::FrameUnexpected)),
                Some(Event::Data(piece)) => {
                    self.read += piece.len() as u64;
                    // Section 4.1.2: what it announced is what it sends.
                    if self
                        .announced
                        .is_some_and(|announced| self.read > announced)
                    {
                        return Err(self.malformed(Reject::BadContentLength));
                    }
                    return Ok(Some(piece));
                }
                Some(Event::Whole(_, block)) => {
                    let section = qpack::decode(&block, self.most)?;
                    let came = head::trailers(&section);
                    self.trailers = Some(came.map_err(|reject| self.malformed(reject))?);
                    self.trailed = true;
                }
                Some(Event::TooLarge(_)) => return Err(self.malformed(Reject::TrailerTooLarge)),
                None => {
                    self.ended = true;
                    if self
                        .announced
                        .is_some_and(|announced| self.read < announced)
                    {
                        return Err(self.malformed(Reject::BadContentLength));
                    }
                }
            }
        }
    }

    fn malformed(&mut self, reject: Reject) -> Fault {
        self.part_with(Code::Message);
        Fault::Malformed(reject)
    }

    /// What the client is told where it is not read to its end.
    pub(super) fn part_with(&mut self, code: Code) {
        self.parting = code;
    }

    /// Can be given up while it waits; nothing is lost.
    async fn event(&mut self) -> Result<Option<Event>, Fault> {
        loop {
            let event = self.frames.next(&mut self.input);
            if let Some(event) = event.map_err(Fault::Connection)? {
                return Ok(Some(event));
            }
            match self.stream.read_chunk(MOST_READ, true).await {
                Ok(Some(chunk)) => self.input = chunk.bytes,
                Ok(None) if self.frames.is_between() => return Ok(None),
                // A frame is cut (section 7.1).
                Ok(None) => return Err(Fault::Connection(Code::Frame)),
                Err(_) => return Err(Fault::Gone),
            }
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if !self.ended {
            // It fails where the client ended it in the meantime.
            let _ = self.stream.stop(self.parting.into());
        }
    }
}

/// Why nothing more is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unsent {
    /// The client wants no more, or is gone.
    Gone,
    /// It did not take anything for too long.
    Timeout,
}

impl From<WriteError> for Unsent {
    fn from(_: WriteError) -> Self {
        Self::Gone
    }
}

/// What the client gets.
pub(super) struct Writer {
    stream: SendStream,
    ended: bool,
    /// A frame that is on its way.
    pending: Vec<Bytes>,
}

impl Writer {
    pub(super) fn new(stream: SendStream) -> Self {
        Self {
            stream,
            ended: false,
            pending: Vec::new(),
        }
    }

    pub(super) fn is_ended(&self) -> bool {
        self.ended
    }

    /// The head of a reply, interim or final. Fields of the connection stay behind (RFC 9114 section
    /// 4.2).
    pub(super) async fn head(
        &mut self,
        status: http::StatusCode,
        fields: &HeaderMap,
        patience: Option<Duration>,
    ) -> Result<(), Unsent> {
        let mut encoder = Encoder::new();
        encoder.field(":status", status.as_str().as_bytes());
        for (name, value) in fields {
            if !is_of_connection(name) {
                encoder.field(name.as_str(), value.as_bytes());
            }
        }
        self.frame(HEADERS, encoder.finish(), patience).await
    }

    /// A piece of the body.
    pub(super) async fn data(
        &mut self,
        piece: Bytes,
        patience: Option<Duration>,
    ) -> Result<(), Unsent> {
        match piece.is_empty() {
            true => Ok(()),
            false => self.frame(DATA, piece, patience).await,
        }
    }

    /// A piece of the body, to be written by [`Self::push`].
    pub(super) fn pend(&mut self, piece: Bytes) {
        let mut header = BytesMut::with_capacity(16);
        put_header(&mut header, DATA, piece.len());
        self.pending = vec![header.freeze(), piece];
    }

    pub(super) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Writes what is pending. Dropped while it waits, it is resumed by the next call.
    pub(super) async fn push(&mut self) -> Result<(), Unsent> {
        while !self.pending.is_empty() {
            let done = self.stream.write_chunks(&mut self.pending).await?.chunks;
            self.pending.drain(..done);
        }
        Ok(())
    }

    /// Fields behind the body.
    pub(super) async fn trailers(
        &mut self,
        fields: &HeaderMap,
        patience: Option<Duration>,
    ) -> Result<(), Unsent> {
        let mut encoder = Encoder::new();
        encoder.fields(fields);
        self.frame(HEADERS, encoder.finish(), patience).await
    }

    /// The reply is whole.
    pub(super) fn end(&mut self) {
        if !self.ended {
            // It fails where the client wants no more of it.
            let _ = self.stream.finish();
            self.ended = true;
        }
    }

    /// The reply will not become whole.
    pub(super) fn abandon(&mut self, code: Code) {
        if !self.ended {
            let _ = self.stream.reset(code.into());
            self.ended = true;
        }
    }

    /// Ends when the client wants no more of the reply, with its reason; or when it has all of it, or
    /// is gone.
    pub(super) fn left(&self) -> impl Future<Output = Option<VarInt>> + Send + Sync + 'static {
        let stopped = self.stream.stopped();
        async move { stopped.await.ok().flatten() }
    }

    /// `patience`: for each step forward.
    async fn frame(
        &mut self,
        kind: u64,
        payload: Bytes,
        patience: Option<Duration>,
    ) -> Result<(), Unsent> {
        let mut header = BytesMut::with_capacity(16);
        put_header(&mut header, kind, payload.len());
        let mut chunks = [header.freeze(), payload];
        let mut rest = &mut chunks[..];
        while !rest.is_empty() {
            let step = self.stream.write_chunks(rest);
            let written = match patience {
                Some(patience) => timeout(patience, step).await.map_err(|_| Unsent::Timeout)?,
                None => step.await,
            };
            let done = written?.chunks;
            rest = &mut rest[done..];
        }
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Dropped as it is, the stream would end as if the reply were whole.
        self.abandon(Code::RequestCancelled);
    }
}
