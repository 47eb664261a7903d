//! A request that an upstream answers over a kept connection.
//!
//! The head goes up as lines, the reply comes down as lines, and bodies are passed on as they are
//! read. This makes the plain attempt alone: where no connection is kept, where one ends, where the
//! reply is not of the plain kind or not the one that the client gets, all is handed over
//! ([`Begun`]) to the carrier behind, as long as the client has been told nothing.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use http::header;
use tokio::io::AsyncWrite;

use super::block::Block;
use super::date::http_date;
use super::{Hit, Taken, What};
use crate::carry::failure::{ClientFault, Failure};
use crate::carry::upstream::{self, Begun, EARLY_BODY, EARLY_TIME};
use crate::carry::{Carrier, Pending, account};
use crate::clock;
use crate::exchange::backward::{ReplyBody, ReplyFacts, Translated, translate};
use crate::exchange::chunked::ChunkScanner;
use crate::exchange::guard::{HeadFacts, MethodKind};
use crate::exchange::head::{Checked, HeadView};
use crate::exchange::onward::{self, Origin};
use crate::exchange::{self, Way};
use crate::listen::buffers::{self, CHUNK};
use crate::listen::{Conn, ConnInfo};
use crate::observe::Record;
use crate::snapshot::{Action, Route, Snapshot};
use crate::upstreams::{Connection, Upstream};

/// Most bytes of a reply that are read at once, and held while a client does not take them.
const PIECE: usize = 4 * CHUNK;

/// A request as it goes up.
pub(super) struct Asking {
    head: Vec<u8>,
    hash: Option<u64>,
}

/// The request for `upstream`, if it and the route ask for nothing but that it is passed on.
pub(super) fn asking(
    snapshot: &Snapshot,
    info: &ConnInfo,
    route: &Route,
    upstream: &Upstream,
    way: &Way,
    head: &Checked<'_>,
    record: &Record,
) -> Option<Asking> {
    let settings = upstream.settings();
    let is_plain = settings.protocol == conf::UpstreamProtocol::H1
        && settings.hedge.is_none()
        && settings.sticky.is_none()
        && settings.proxy_protocol.is_none()
        && route.hints.is_none();
    let mut cookies = 0;
    head.each_field(&header::COOKIE, &mut |_| cookies += 1);
    if !is_plain || cookies > 1 {
        return None;
    }
    let sought = exchange::hash::Target {
        path: &way.path,
        query: way.query.as_deref(),
    };
    let hash = exchange::hash::key(&settings.balance, head, sought, record.client);
    let peer = info.peer.ip();
    let origin = Origin {
        peer,
        trusted: exchange::client::is_trusted(peer, &snapshot.config.server.trusted_proxies),
        tls: info.tls.is_some(),
        authority: &way.authority,
        id: &account::id_digits(record.id),
    };
    let mut out = buffers::take();
    write_head(&mut out, head, way, &origin);
    Some(Asking { head: out, hash })
}

fn write_head(out: &mut Vec<u8>, head: &Checked<'_>, way: &Way, origin: &Origin<'_>) {
    out.extend_from_slice(HeadView::method(head).as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(way.path.as_bytes());
    if let Some(query) = &way.query {
        out.push(b'?');
        out.extend_from_slice(query.as_bytes());
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
    for (name, value) in head.lines() {
        if onward::is_taken_over(name) {
            let at = out.len();
            out.extend_from_slice(name);
            out[at..].make_ascii_lowercase();
            out.extend_from_slice(b": ");
            out.extend_from_slice(value);
            out.extend_from_slice(b"\r\n");
        }
    }
    let mut block = Block::new(out, 0);
    onward::added(head, origin, &mut |name, value| block.push(name, value));
    block.end(b"\r\n");
}

/// How an exchange went.
enum Went {
    /// The client has the whole reply.
    Whole {
        /// And was told that the connection ends.
        last: bool,
    },
    /// The other carrier goes on with it.
    Left(Begun),
    /// The client left before it was told anything.
    Gone,
    /// It broke off in the middle of the reply.
    Broken(Failure),
}

impl Carrier {
    /// Passes a request on, and its reply back.
    pub(super) async fn pass(
        &self,
        conn: &mut Conn,
        mut hit: Box<Hit>,
        facts: &HeadFacts,
        closes: bool,
    ) -> Taken {
        let went = self.exchange(conn, &mut hit, facts, closes).await;
        let why = match went {
            Went::Whole { last } => {
                account::close(&mut hit.record, &hit.snapshot, &hit.settings);
                return match last {
                    true => Taken::Last,
                    false => Taken::Served,
                };
            }
            Went::Left(begun) => {
                let Hit {
                    snapshot,
                    settings,
                    record,
                    ..
                } = *hit;
                return Taken::Begun(Box::new(Pending {
                    snapshot,
                    settings,
                    record,
                    begun,
                }));
            }
            Went::Gone => Failure::Client(ClientFault::Gone),
            Went::Broken(failure) => failure,
        };
        hit.record.why = Some(why.as_str());
        account::close(&mut hit.record, &hit.snapshot, &hit.settings);
        Taken::Broken
    }

    async fn exchange(
        &self,
        conn: &mut Conn,
        hit: &mut Hit,
        request: &HeadFacts,
        closes: bool,
    ) -> Went {
        let What::Proxied(asking) = &mut hit.what else {
            return Went::Gone;
        };
        let mut head = std::mem::take(&mut asking.head);
        let hash = asking.hash;
        let snapshot = hit.snapshot.clone();
        let Some(route) = snapshot.routes.get(hit.route) else {
            return Went::Gone;
        };
        let Action::Upstream { upstream, .. } = &route.action else {
            return Went::Gone;
        };
        let (asked, connection) =
            match upstream::begin(upstream, self.worker, hash, &mut hit.record) {
                Ok(begun) => begun,
                Err(begun) => {
                    buffers::give(head);
                    return Went::Left(begun);
                }
            };
        let mut wire = Wire {
            connection,
            inbox: Vec::new(),
            head_len: request.head_len,
        };
        conn.set_deadline(Some(asked.deadline()));
        let sent = wire.send(conn, &head).await;
        buffers::release(&mut head);
        match sent {
            Step::Done => {}
            Step::Ended => return Went::Left(asked.stale()),
            Step::Gone => return Went::Gone,
            Step::Late => return Went::Left(asked.failed(Failure::FirstByteTimeout)),
        }
        wire.inbox = buffers::take();
        let to_head = request.method == MethodKind::Head;
        let reply = loop {
            match wire.more(conn).await {
                Step::Done => {}
                Step::Ended => return Went::Left(asked.stale()),
                Step::Gone => return Went::Gone,
                Step::Late => return Went::Left(asked.failed(Failure::FirstByteTimeout)),
            }
            match translate(&wire.inbox, to_head, conn.staged()) {
                Translated::Partial => conn.unstage(),
                Translated::Head(reply) => break reply,
                Translated::Other => {
                    conn.unstage();
                    return Went::Left(asked.leave(wire.connection, wire.inbox));
                }
            }
        };
        if !asked.is_wanted(reply.status) || route.may_cover(reply.status) {
            conn.unstage();
            return Went::Left(asked.leave(wire.connection, wire.inbox));
        }
        let mut body = match wire.begin_body(conn, &reply).await {
            Ok(body) => body,
            Err(Early::Gone) => return Went::Gone,
            Err(Early::Failed(failure)) => {
                conn.unstage();
                hit.record.attempts.answered(reply.status.as_u16());
                return Went::Left(asked.failed(failure));
            }
        };
        asked.answered(reply.status, &mut hit.record);
        hit.record.status = reply.status.as_u16();
        conn.take_request(request.head_len);
        wire.head_len = 0;
        let mut block = Block::of_reply(conn.staged());
        if !reply.dated {
            block.push(&header::DATE, &http_date(hit.record.wall));
        }
        let last = closes || *self.draining.borrow();
        hit.finish_head(block, last);
        let sent = &mut hit.record.bytes_out;
        while !body.is_done() {
            if let Err(failure) = wire.pass_on(conn, &mut body, sent).await {
                asked.broke_off(failure);
                return Went::Broken(failure);
            }
            if body.is_done() {
                break;
            }
            if conn.flush().await.is_err() {
                return Went::Broken(Failure::Client(ClientFault::Gone));
            }
            conn.set_deadline(Some(clock::now() + asked.read_timeout()));
            wire.make_room();
            let failure = match wire.more(conn).await {
                Step::Done => continue,
                Step::Ended => Failure::Reset,
                Step::Gone => Failure::Client(ClientFault::Gone),
                Step::Late => Failure::ReadTimeout,
            };
            // What there is has been sent; the end of the connection says that it is not whole.
            asked.broke_off(failure);
            return Went::Broken(failure);
        }
        let Wire {
            connection, inbox, ..
        } = wire;
        if reply.keep_alive && inbox.is_empty() {
            asked.finish(self.worker, connection);
        }
        buffers::give(inbox);
        match conn.flush().await {
            Ok(()) => Went::Whole { last },
            Err(_) => Went::Broken(Failure::Client(ClientFault::Gone)),
        }
    }
}

/// The upstream's connection while a reply is read from it.
struct Wire {
    connection: Box<Connection>,
    /// Read and not passed on yet.
    inbox: Vec<u8>,
    /// Bytes of the request that wait on the client's connection.
    head_len: usize,
}

/// What a wait came to.
enum Step {
    Done,
    /// The upstream's connection ended, or failed.
    Ended,
    /// The client's did.
    Gone,
    /// The client's connection has a deadline, which is over.
    Late,
}

/// Why no reply can be begun.
enum Early {
    Gone,
    Failed(Failure),
}

impl Wire {
    async fn send(&mut self, conn: &mut Conn, bytes: &[u8]) -> Step {
        let mut rest = bytes;
        poll_fn(|cx| {
            while !rest.is_empty() {
                match Pin::new(&mut *self.connection).poll_write(cx, rest) {
                    Poll::Ready(Ok(taken)) if taken > 0 => rest = &rest[taken..],
                    Poll::Ready(_) => return Poll::Ready(Step::Ended),
                    Poll::Pending => return self.poll_interrupted(cx, conn),
                }
            }
            match Pin::new(&mut *self.connection).poll_flush(cx) {
                Poll::Ready(Ok(())) => Poll::Ready(Step::Done),
                Poll::Ready(Err(_)) => Poll::Ready(Step::Ended),
                Poll::Pending => self.poll_interrupted(cx, conn),
            }
        })
        .await
    }

    /// Reads on behind what is there.
    async fn more(&mut self, conn: &mut Conn) -> Step {
        poll_fn(|cx| match self.connection.poll_more(cx, &mut self.inbox) {
            Poll::Ready(Ok(gained)) if gained > 0 => Poll::Ready(Step::Done),
            Poll::Ready(_) => Poll::Ready(Step::Ended),
            Poll::Pending => self.poll_interrupted(cx, conn),
        })
        .await
    }

    fn poll_interrupted(&self, cx: &mut Context<'_>, conn: &mut Conn) -> Poll<Step> {
        if conn.poll_gone(cx, self.head_len).is_ready() {
            return Poll::Ready(Step::Gone);
        }
        ready!(conn.poll_deadline(cx));
        Poll::Ready(Step::Late)
    }

    /// Takes the head off; reads a small body whole, unless that takes its time.
    async fn begin_body(&mut self, conn: &mut Conn, reply: &ReplyFacts) -> Result<Body, Early> {
        self.inbox.drain(..reply.len);
        let length = match reply.body {
            ReplyBody::None => 0,
            ReplyBody::Length(length) => length,
            ReplyBody::Chunked => return self.begin_chunked(),
        };
        if length <= EARLY_BODY {
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            let mut until: Option<Instant> = None;
            while self.inbox.len() < length {
                if until.is_none() {
                    conn.set_deadline(Some(*until.insert(clock::now() + EARLY_TIME)));
                    self.inbox.reserve(length - self.inbox.len());
                }
                match self.more(conn).await {
                    Step::Done => {}
                    Step::Ended => return Err(Early::Failed(Failure::Reset)),
                    Step::Gone => return Err(Early::Gone),
                    Step::Late => break,
                }
            }
        }
        Ok(Body::Length(length))
    }

    /// What is malformed at once is no reply.
    fn begin_chunked(&self) -> Result<Body, Early> {
        let scanner = ChunkScanner::new();
        match scanner.clone().feed(&self.inbox) {
            Ok(_) => Ok(Body::Chunked(scanner)),
            Err(_) => Err(Early::Failed(Failure::BadReply)),
        }
    }

    /// The inbox is empty: more of the reply is read at once from now on.
    fn make_room(&mut self) {
        if self.inbox.capacity() < PIECE {
            self.inbox.reserve(PIECE);
        }
    }

    /// Passes on what there is of the body. What stands behind it stays.
    async fn pass_on(
        &mut self,
        conn: &mut Conn,
        body: &mut Body,
        sent: &mut u64,
    ) -> Result<(), Failure> {
        let gone = |_| Failure::Client(ClientFault::Gone);
        let taken = match body {
            Body::Length(left) => {
                let here = usize::try_from(*left).unwrap_or(usize::MAX);
                let here = here.min(self.inbox.len());
                conn.write(&self.inbox[..here], sent).await.map_err(gone)?;
                *left -= here as u64;
                here
            }
            Body::Chunked(scanner) => {
                let (progress, data) = unchunk(scanner, &mut self.inbox)?;
                if data > 0 {
                    let mut size = [0; CHUNK_HEAD];
                    conn.write(chunk_head(data, &mut size), &mut 0)
                        .await
                        .map_err(gone)?;
                    conn.write(&self.inbox[..data], sent).await.map_err(gone)?;
                    conn.write(b"\r\n", &mut 0).await.map_err(gone)?;
                }
                if progress.done {
                    conn.write(b"0\r\n\r\n", &mut 0).await.map_err(gone)?;
                    *body = Body::Length(0);
                }
                progress.consumed
            }
        };
        self.inbox.drain(..taken);
        Ok(())
    }
}

/// What is left of a reply's body.
enum Body {
    Length(u64),
    Chunked(ChunkScanner),
}

impl Body {
    fn is_done(&self) -> bool {
        matches!(self, Self::Length(0))
    }
}

/// Moves the data of the chunks in `bytes` to its front; how far the scanner came, and how many
/// bytes of data there are.
fn unchunk(
    scanner: &mut ChunkScanner,
    bytes: &mut [u8],
) -> Result<(exchange::chunked::Progress, usize), Failure> {
    let (mut at, mut data) = (0, 0);
    loop {
        let next = scanner.next_data(&bytes[at..]);
        let (progress, stretch) = next.map_err(|_| Failure::BadReply)?;
        let stretch = at + stretch.start..at + stretch.end;
        let len = stretch.len();
        bytes.copy_within(stretch, data);
        data += len;
        at += progress.consumed;
        if progress.done || progress.consumed == 0 {
            let progress = exchange::chunked::Progress {
                consumed: at,
                done: progress.done,
            };
            return Ok((progress, data));
        }
    }
}

/// Octets of the longest chunk head written here.
const CHUNK_HEAD: usize = 18;

/// `size CRLF` of a chunk (RFC 9112 section 7.1).
fn chunk_head(size: usize, room: &mut [u8; CHUNK_HEAD]) -> &[u8] {
    let mut at = CHUNK_HEAD - 2;
    room[at..].copy_from_slice(b"\r\n");
    let mut left = size;
    loop {
        at -= 1;
        room[at] = b"0123456789abcdef"[left & 15];
        left >>= 4;
        if left == 0 {
            return &room[at..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_head_is_its_size_in_hexadecimal() {
        for size in [0, 1, 15, 16, 65_536, usize::MAX] {
            let mut room = [0; CHUNK_HEAD];
            let wanted = format!("{size:x}\r\n");
            assert_eq!(chunk_head(size, &mut room), wanted.as_bytes());
        }
    }

    #[test]
    fn the_data_of_chunks_is_moved_together_wherever_they_are_cut() {
        let wire = b"3\r\nabc\r\n10;x=y\r\n0123456789abcdef\r\n0\r\nx: y\r\n\r\nnext";
        for cut in 0..wire.len() {
            let mut scanner = ChunkScanner::new();
            let mut got = Vec::new();
            let mut inbox = wire[..cut].to_vec();
            let (progress, data) = unchunk(&mut scanner, &mut inbox).unwrap();
            got.extend_from_slice(&inbox[..data]);
            inbox.drain(..progress.consumed);
            inbox.extend_from_slice(&wire[cut..]);
            let (progress, data) = unchunk(&mut scanner, &mut inbox).unwrap();
            got.extend_from_slice(&inbox[..data]);
            assert_eq!(got, b"abc0123456789abcdef", "cut at {cut}");
            assert!(progress.done);
            assert_eq!(&inbox[progress.consumed..], b"next");
        }
    }
}
