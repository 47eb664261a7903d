//! A request's stream: what comes and what goes, as HTTP/3 frames.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap};
use http::request::Parts;
use quinn::{RecvStream, SendStream, VarInt};

use super::ranks::Rank;
use super::tally::{self, Ending};
use super::wire::code::Code;
use super::wire::frames::{DATA, Event, Frames, HEADERS, Role, put_header};
use super::wire::head;
use super::wire::qpack::{self, Encoder, Refused};
use crate::exchange::guard::Reject;
use crate::exchange::priority::Wish;
use crate::listen::session::{Step, is_of_connection};

/// Octets that are read at once.
const MOST_READ: usize = 64 * 1024;

/// Pieces of a body below this are joined with what came behind them, up to so many octets: each is
/// passed on by itself, and a client may make them of one octet.
const TINY: usize = 256;
const MOST_JOINED: usize = 16 * 1024;

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
    /// What stood behind pieces that were joined.
    held: Option<Result<Event, Code>>,
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
    /// What comes is no body, but a WebSocket.
    is_tunnel: bool,
    ending: Ending,
}

impl Reader {
    pub(super) fn new(stream: RecvStream, most: usize, ending: Ending) -> Self {
        Self {
            stream,
            frames: Frames::new(Role::Request, most),
            input: Bytes::new(),
            held: None,
            most,
            announced: None,
            read: 0,
            ahead: None,
            trailed: false,
            trailers: None,
            ended: false,
            fault: None,
            parting: Code::None,
            is_tunnel: false,
            ending,
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

    /// The client opens a WebSocket: what comes has no announced length, and nothing behind it.
    pub(super) fn carries_tunnel(&mut self) {
        self.is_tunnel = true;
        self.announced = None;
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
                // Section 4.4.
                Some(Event::Whole(..) | Event::TooLarge(_)) if self.is_tunnel => {
                    return Err(Fault::Connection(Code::FrameUnexpected));
                }
                Some(Event::Data(piece)) => {
                    let piece = self.join(piece);
                    self.read += piece.len() as u64;
                    self.ending.put(tally::of_body(piece.len()));
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

    /// A piece with those that are there behind it, where it is tiny.
    fn join(&mut self, first: Bytes) -> Bytes {
        if first.len() >= TINY || self.input.is_empty() {
            return first;
        }
        let mut joined = BytesMut::from(first);
        while joined.len() < MOST_JOINED {
            match self.next_there() {
                Ok(Some(Event::Data(more))) => joined.extend_from_slice(&more),
                Ok(None) => break,
                Ok(Some(event)) => {
                    self.held = Some(Ok(event));
                    break;
                }
                Err(code) => {
                    self.held = Some(Err(code));
                    break;
                }
            }
        }
        joined.freeze()
    }

    /// The next event of what is there.
    fn next_there(&mut self) -> Result<Option<Event>, Code> {
        let event = self.frames.next(&mut self.input);
        let empty = self.frames.take_empty();
        if empty > 0 {
            self.ending.put(-i64::from(empty));
        }
        event
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
        if let Some(held) = self.held.take() {
            return held.map(Some).map_err(Fault::Connection);
        }
        loop {
            if let Some(event) = self.next_there().map_err(Fault::Connection)? {
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

/// The client wants no more, or is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gone;

/// A frame that is on its way.
struct Going {
    header: Bytes,
    payload: Bytes,
    is_body: bool,
}

/// What the client gets. A frame waits in it until it is written.
pub(super) struct Writer {
    stream: SendStream,
    /// Where it stands among others, and what QUIC knows of that.
    rank: Arc<Rank>,
    place: i32,
    /// It let a more urgent one go first.
    has_yielded: bool,
    going: Option<Going>,
    /// Behind what waits there is nothing more.
    ends: bool,
    ended: bool,
}

impl Writer {
    pub(super) fn new(stream: SendStream, rank: Arc<Rank>) -> Self {
        Self {
            stream,
            rank,
            place: 0,
            has_yielded: false,
            going: None,
            ends: false,
            ended: false,
        }
    }

    pub(super) fn is_ended(&self) -> bool {
        self.ended || self.ends
    }

    /// The head of a reply, interim or final. Fields of the connection stay behind (RFC 9114 section
    /// 4.2).
    pub(super) fn head(&mut self, status: http::StatusCode, fields: &HeaderMap) {
        if !status.is_informational() {
            self.rank.replied(Wish::of(fields));
        }
        let mut encoder = Encoder::new();
        encoder.field(":status", status.as_str().as_bytes());
        for (name, value) in fields {
            if !is_of_connection(name) {
                encoder.field(name.as_str(), value.as_bytes());
            }
        }
        self.frame(HEADERS, encoder.finish());
    }

    /// A piece of the body.
    pub(super) fn data(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.frame(DATA, piece);
        }
    }

    /// Fields behind the body.
    pub(super) fn trailers(&mut self, fields: &HeaderMap) {
        let mut encoder = Encoder::new();
        encoder.fields(fields);
        self.frame(HEADERS, encoder.finish());
    }

    fn frame(&mut self, kind: u64, payload: Bytes) {
        let mut header = BytesMut::with_capacity(16);
        put_header(&mut header, kind, payload.len());
        self.going = Some(Going {
            header: header.freeze(),
            payload,
            is_body: kind == DATA,
        });
    }

    pub(super) fn has_pending(&self) -> bool {
        self.going.is_some()
    }

    /// Writes some of what waits.
    pub(super) fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Result<Step, Gone>> {
        let Some(going) = &mut self.going else {
            return Poll::Ready(Ok(Step::default()));
        };
        let place = self.rank.place(cx.waker());
        if place != self.place {
            // It fails where the stream is closed, which the next call says.
            let _ = self.stream.set_priority(place);
            self.place = place;
        }
        if !self.has_yielded && self.rank.comes_behind(place) {
            self.has_yielded = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.has_yielded = false;
        let mut chunks = [
            std::mem::take(&mut going.header),
            std::mem::take(&mut going.payload),
        ];
        let before = chunks.each_ref().map(Bytes::len);
        let step = pin!(self.stream.write_chunks(&mut chunks)).poll(cx);
        let after = chunks.each_ref().map(Bytes::len);
        [going.header, going.payload] = chunks;
        self.rank.waits(place, step.is_pending());
        ready!(step).map_err(|_| Gone)?;
        let body = before[1] - after[1];
        let step = Step {
            octets: before[0] - after[0] + body,
            body: if going.is_body { body } else { 0 },
        };
        if after == [0, 0] {
            self.going = None;
            if self.ends {
                self.finish();
            }
        }
        Poll::Ready(Ok(step))
    }

    /// A more urgent one waits for room.
    pub(super) fn comes_behind(&self) -> bool {
        self.rank.comes_behind(self.place)
    }

    /// Writes all that waits.
    pub(super) async fn flush(&mut self) -> Result<(), Gone> {
        while self.has_pending() {
            poll_fn(|cx| self.poll_step(cx)).await?;
        }
        Ok(())
    }

    /// The reply is whole with what waits.
    pub(super) fn end(&mut self) {
        self.ends = true;
        if self.going.is_none() {
            self.finish();
        }
    }

    fn finish(&mut self) {
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
            self.rank.abandon();
            self.ended = true;
        }
        self.going = None;
    }

    /// Ends when the client wants no more of the reply, with its reason; or when it has all of it, or
    /// is gone.
    pub(super) fn left(&self) -> impl Future<Output = Option<VarInt>> + Send + Sync + 'static {
        let stopped = self.stream.stopped();
        async move { stopped.await.ok().flatten() }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Dropped as it is, the stream would end as if the reply were whole.
        self.abandon(Code::RequestCancelled);
    }
}
