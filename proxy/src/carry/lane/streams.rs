//! Requests of HTTP/2, by the same decisions, straight on their stream.
//!
//! What is small and there is answered at once, within the connection's own task. A request for an
//! upstream has a task of its own: a small body is read there if it comes soon, and the reply is sent
//! from there. What is not for the lane is left to the carrier behind.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::header::{self, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response};
use static_server::{Body as FileBody, Sending};
use tokio::time::timeout;

use super::flight::{self, Ending, InFlight, Went};
use super::flow::{self, Deadline};
use super::head::StreamHead;
use super::proxied;
use super::upload::Upload;
use super::wire::{Body, Client};
use super::{By, HeadEnd, Hit, What};
use crate::carry::failure::{ClientFault, Failure};
use crate::carry::upstream::{self, EARLY_BODY, EARLY_TIME};
use crate::carry::{Carrier, Pending, account};
use crate::clock;
use crate::exchange::backward::ReplyFacts;
use crate::exchange::onward;
use crate::exchange::websocket;
use crate::listen::buffers;
use crate::listen::keep_trailers;
use crate::listen::room::{self, Gone};
use crate::listen::{ConnInfo, ListenerSettings};
use crate::observe::{Protocol, Record};

/// What became of a stream that was offered.
pub(crate) enum TakenStream {
    /// It is not for the lane, and is as before.
    No(Box<Stream>),
    /// It is answered.
    Served,
    /// It is answered by [`Carrier::go_on`].
    Begun(Box<Going>),
}

/// A request's stream.
pub(crate) struct Stream {
    head: Parts,
    /// Of the body, what was read.
    read: BytesMut,
    body: RecvStream,
    reply: SendResponse<Bytes>,
}

impl Stream {
    pub(crate) fn new(request: Request<RecvStream>, reply: SendResponse<Bytes>) -> Self {
        let (mut head, body) = request.into_parts();
        websocket::enter(&mut head, body.is_end_stream());
        Self {
            head,
            read: BytesMut::new(),
            body,
            reply,
        }
    }

    /// Head, what was read of the body, the rest of it, and the way back.
    pub(crate) fn into_parts(self) -> (Parts, Bytes, RecvStream, SendResponse<Bytes>) {
        (self.head, self.read.freeze(), self.body, self.reply)
    }

    /// The body as it is announced; `None` where that is not what comes.
    fn upload(&self) -> Option<Upload> {
        let announced = self.head.headers.get(header::CONTENT_LENGTH);
        match (announced, self.body.is_end_stream()) {
            (None, true) => Some(Upload::Length(0)),
            (Some(length), true) => (length == "0").then_some(Upload::Length(0)),
            (Some(length), false) => Some(Upload::Length(length.to_str().ok()?.parse().ok()?)),
            (None, false) => Some(Upload::Unsaid),
        }
    }

    fn has_body(&self) -> bool {
        !self.body.is_end_stream() || !self.read.is_empty()
    }

    /// Reads the body if it comes soon, and puts it behind the request's head as it goes up.
    ///
    /// # Errors
    /// It does not: the request for the other carrier.
    async fn take_body(&mut self, hit: &mut Hit) -> Result<(), upstream::Begun> {
        let whole = async {
            while let Some(piece) = self.body.data().await {
                let Ok(piece) = piece else {
                    return false;
                };
                // Fails only for more than was received.
                let _ = self.body.flow_control().release_capacity(piece.len());
                // In one: pieces may be many and small, or empty.
                self.read.extend_from_slice(&piece);
                if self.read.len() as u64 > EARLY_BODY {
                    return false;
                }
            }
            match self.body.trailers().await {
                Ok(None) => true,
                Ok(Some(came)) => {
                    keep_trailers(&mut self.head.extensions, came);
                    false
                }
                Err(_) => false,
            }
        };
        let is_whole = timeout(EARLY_TIME, whole).await.unwrap_or(false);
        hit.bring(is_whole.then_some(&self.read[..]))
    }

    fn is_head(&self) -> bool {
        self.head.method == Method::HEAD
    }
}

/// A stream that takes a while.
pub(crate) struct Going {
    stream: Box<Stream>,
    hit: Box<Hit>,
    info: Arc<ConnInfo>,
    settings: Arc<ListenerSettings>,
    /// A body that waits for the client to take it.
    rest: Option<(SendStream<Bytes>, Bytes)>,
}

impl Carrier {
    /// Answers the request if it is of the kind that is answered here.
    pub(crate) fn take_stream(&self, stream: Box<Stream>, info: &Arc<ConnInfo>) -> TakenStream {
        let settings = info.listener.settings.load();
        let Some(mut hit) = self.find_h2(&stream, info, &settings) else {
            return TakenStream::No(stream);
        };
        let going = |stream, hit, rest| {
            TakenStream::Begun(Box::new(Going {
                stream,
                hit,
                info: Arc::clone(info),
                settings: Arc::clone(&settings),
                rest,
            }))
        };
        let body = match &hit.what {
            What::Proxied(_) => return going(stream, hit, None),
            What::Page(page) => page.to_body(),
            What::File(answer) => match &answer.body {
                FileBody::Memory(bytes) => bytes.clone(),
                _ => Bytes::new(),
            },
            What::Fixed(_) | What::Said => hit.reply().map(super::fixed::body).unwrap_or_default(),
        };
        let mut stream = stream;
        let mut out = buffers::take();
        hit.write_head(&mut out, HeadEnd::Stream);
        let body = match stream.is_head() {
            true => Bytes::new(),
            false => body,
        };
        // What is in memory anyway costs nothing while it waits.
        let begun = begin(&mut stream.reply, &hit, &out, body, None);
        buffers::give(out);
        match begun {
            Ok(Begun::Whole(sent)) => hit.record.bytes_out = sent,
            Ok(Begun::Waits(writer, rest)) => return going(stream, hit, Some((writer, rest))),
            Err(Gone) => hit.record.why = Some("client_gone"),
        }
        account::close(&mut hit.record, &hit.snapshot, &settings);
        TakenStream::Served
    }

    fn find_h2(
        &self,
        stream: &Stream,
        info: &ConnInfo,
        settings: &ListenerSettings,
    ) -> Option<Box<Hit>> {
        let parts = &stream.head;
        let upload = stream.upload()?;
        if parts.method == Method::CONNECT || websocket::is_on_stream(&parts.extensions) {
            return None;
        }
        let head = StreamHead::new(parts)?;
        let by = By {
            info,
            settings,
            protocol: Protocol::Http2,
            is_read: upload.is_empty() && matches!(parts.method, Method::GET | Method::HEAD),
            upload,
            expects: false,
            claims_certificate: onward::claims_certificate(&parts.headers),
            h2: Some(parts),
            sending: Sending::Copied,
            most: EARLY_BODY,
        };
        self.find(&head, &by)
    }

    /// Answers a stream that takes a while, or gives it back with what was begun.
    pub(crate) async fn go_on(&self, going: Box<Going>) -> Option<(Box<Stream>, Box<Pending>)> {
        let Going {
            mut stream,
            mut hit,
            info,
            settings,
            rest,
        } = *going;
        let waits = (settings.limits.body_timeout, &*info);
        let went = match rest {
            Some((writer, rest)) => finish(writer, rest, waits, &mut hit.record).await,
            None => self.pass_stream(&mut stream, &mut hit, waits).await,
        };
        let why = match went {
            Went::Whole { .. } => None,
            Went::Left(begun) => return Some((stream, hit.leave(begun, &settings))),
            Went::Gone => Some(Failure::Client(ClientFault::Gone)),
            Went::Broken(failure) => Some(failure),
        };
        if let Some(why) = why {
            hit.record.why = Some(why.as_str());
        }
        account::close(&mut hit.record, &hit.snapshot, &settings);
        None
    }

    async fn pass_stream(
        &self,
        stream: &mut Stream,
        hit: &mut Hit,
        waits: (Duration, &ConnInfo),
    ) -> Went {
        // Boxed, as all that most streams do not need: each one's task would have room for it.
        if stream.has_body()
            && let Err(begun) = Box::pin(stream.take_body(hit)).await
        {
            return Went::Left(begun);
        }
        let mut out = buffers::take();
        let mut flight = None;
        let replying = match self.ask(stream, hit, &mut flight, &mut out).await {
            Ok(replying) => replying,
            Err(went) => {
                buffers::give(out);
                return went;
            }
        };
        let sender = &mut stream.reply;
        self.pass_reply(sender, hit, (&mut flight, replying), out, waits)
            .await
    }

    /// Sends the request up, and reads the head of its reply.
    ///
    /// # Errors
    /// As [`flight::send`] and [`flight::hear`].
    async fn ask(
        &self,
        stream: &mut Stream,
        hit: &mut Hit,
        flight: &mut Option<InFlight>,
        out: &mut Vec<u8>,
    ) -> Result<(ReplyFacts, Body), Went> {
        let to_head = stream.is_head();
        let mut client = Watched {
            reply: &mut stream.reply,
            deadline: Deadline::default(),
        };
        flight::send(self.worker, &mut client, hit, 0, flight).await?;
        flight::hear(&mut client, hit, flight, to_head, out).await
    }

    async fn pass_reply(
        &self,
        sender: &mut SendResponse<Bytes>,
        hit: &mut Hit,
        (flight, (reply, mut body)): (&mut Option<InFlight>, (ReplyFacts, Body)),
        mut out: Vec<u8>,
        waits: (Duration, &ConnInfo),
    ) -> Went {
        hit.settle(reply.status, &mut out).await;
        let Some(InFlight { asked, wire }) = flight.as_mut() else {
            return Went::Gone;
        };
        let now = clock::now();
        asked.answered(reply.status, now, &mut hit.record);
        hit.record.status = reply.status.as_u16();
        proxied::finish_reply(
            &mut out,
            &reply,
            &hit.snapshot,
            hit.route,
            &hit.record,
            HeadEnd::Stream,
        );
        let ending = Ending {
            worker: self.worker,
            keep_alive: reply.keep_alive,
        };
        let there = (wire.inbox.len() - wire.at) as u64;
        let is_whole = matches!(body, Body::Length(length) if length <= there);
        let gone = Went::Broken(Failure::Client(ClientFault::Gone));
        if !is_whole {
            let response = response(hit.record.status, &out);
            buffers::give(out);
            let writer = response.and_then(|response| sender.send_response(response, false).ok());
            let (Some(writer), Some(flight)) = (writer, flight.take()) else {
                return gone;
            };
            let rest = (flight, body);
            return Box::pin(flow::pass_on(writer, rest, waits, &mut hit.record, ending)).await;
        }
        // What is whole is there, and breaks no rule.
        let piece = wire.take(&mut body).unwrap_or_default();
        if let Some(flight) = flight.take() {
            ending.finish(flight, now);
        }
        let begun = begin(sender, hit, &out, piece, Some(waits.1));
        buffers::give(out);
        match begun {
            Ok(Begun::Whole(sent)) => {
                hit.record.bytes_out = sent;
                Went::Whole { last: false }
            }
            Ok(Begun::Waits(writer, rest)) => {
                Box::pin(finish(writer, rest, waits, &mut hit.record)).await
            }
            Err(Gone) => gone,
        }
    }
}

/// Sends the rest of a body.
async fn finish(
    mut writer: SendStream<Bytes>,
    rest: Bytes,
    waits: (Duration, &ConnInfo),
    record: &mut Record,
) -> Went {
    match room::send(&mut writer, rest, true, waits, &mut record.bytes_out).await {
        Ok(()) => Went::Whole { last: false },
        Err(Gone) => Went::Broken(Failure::Client(ClientFault::Gone)),
    }
}

/// Octets of a small reply that are not worth counting: all streams that a client may open together
/// have less than a megabyte of them.
const UNCOUNTED: usize = 4 * 1024;

/// A reply whose head is on its way.
enum Begun {
    /// And its body; octets of it.
    Whole(u64),
    /// The client has to make room for the body.
    Waits(SendStream<Bytes>, Bytes),
}

/// Sends the head that stands in `lines`, and the body if there is room for it; `counts`: also among
/// what may wait on that connection.
fn begin(
    sender: &mut SendResponse<Bytes>,
    hit: &Hit,
    lines: &[u8],
    mut body: Bytes,
    counts: Option<&ConnInfo>,
) -> Result<Begun, Gone> {
    let response = response(hit.record.status, lines).ok_or(Gone)?;
    let length = body.len();
    let mut writer = sender
        .send_response(response, length == 0)
        .map_err(|_| Gone)?;
    if length > 0 {
        writer.reserve_capacity(length);
        if writer.capacity() < length {
            return Ok(Begun::Waits(writer, body));
        }
        if let Some(info) = counts.filter(|_| length > UNCOUNTED) {
            body = match info.paces().try_hold(body) {
                Ok(held) => held,
                Err(body) => return Ok(Begun::Waits(writer, body)),
            };
        }
        writer.send_data(body, true).map_err(|_| Gone)?;
    }
    Ok(Begun::Whole(length as u64))
}

/// The response of a status line and field lines.
fn response(status: u16, lines: &[u8]) -> Option<Response<()>> {
    let mut response = Response::new(());
    *response.status_mut() = http::StatusCode::from_u16(status).ok()?;
    let fields = response.headers_mut();
    fields.reserve(16);
    let all = Bytes::copy_from_slice(lines);
    let mut at = memchr::memchr(b'\n', lines)? + 1;
    while let Some(length) = memchr::memchr(b'\n', &lines[at..]) {
        let line = &lines[at..at + length - 1];
        let colon = memchr::memchr(b':', line)?;
        let name = HeaderName::from_bytes(&line[..colon]).ok()?;
        let value = all.slice(at + colon + 2..at + length - 1);
        fields.append(name, HeaderValue::from_maybe_shared(value).ok()?);
        at += length + 1;
    }
    Some(response)
}

/// A stream whose client is watched while its reply is waited for.
struct Watched<'a> {
    reply: &'a mut SendResponse<Bytes>,
    deadline: Deadline,
}

impl Client for Watched<'_> {
    fn poll_gone(&mut self, cx: &mut Context<'_>, _: usize) -> Poll<()> {
        self.reply.poll_reset(cx).map(|_| ())
    }

    fn set_deadline(&mut self, deadline: Option<Instant>) {
        self.deadline.set(deadline);
    }

    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.deadline.poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_a_response() {
        let lines =
            b"HTTP/1.1 200 OK\r\nserver: a\r\nset-cookie: a=1\r\nset-cookie: b=2\r\nx-empty: \r\n";
        let response = response(200, lines).unwrap();
        assert_eq!(response.status(), 200);
        let fields: Vec<_> = response
            .headers()
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
            .collect();
        assert_eq!(
            fields,
            [
                ("server", "a"),
                ("set-cookie", "a=1"),
                ("set-cookie", "b=2"),
                ("x-empty", "")
            ]
        );
    }
}
