//! A request that an upstream answers over a kept connection.
//!
//! The head goes up as lines, the reply comes down as lines, and bodies are passed on as they are
//! read. This makes the plain attempt alone: where no connection is kept (large uploads get one of
//! their own), where one ends, where the reply is not of the plain kind or not the one that the client gets, all is handed over
//! ([`Begun`]) to the carrier behind, as long as the client has been told nothing.

use std::sync::Arc;
use std::time::Duration;

use http::{StatusCode, header};

use super::block::Block;
use super::date::http_date;
use super::flight::{Ending, InFlight, Went, hear, over, send};
use super::head::LaneHead;
use super::lines::Lines;
use super::streamed::{Streamed, Up, Waits};
use super::upload::Upload;
use super::wire::{Body, Step};
use super::{By, HeadEnd, Hit, Taken, What, finish_head};
use crate::carry::cached::past::{Past, Question};
use crate::carry::failure::{ClientFault, Failure};
use crate::carry::upstream::{self, Begun};
use crate::carry::{Carrier, Pending, account};
use crate::clock;
use crate::exchange::backward::{ReplyBody, ReplyFacts};
use crate::exchange::grpc::Dialect;
use crate::exchange::guard::{HeadFacts, MethodKind};
use crate::exchange::head::HeadView;
use crate::exchange::onward::{self, Origin, TakesTrailers};
use crate::exchange::{self, Way};
use crate::filter::FieldsMut;
use crate::listen::buffers;
use crate::listen::{Conn, ListenerSettings};
use crate::observe::Record;
use crate::snapshot::{Action, Route, Snapshot};
use crate::upstreams::Reuse;

/// A body of which so much is left is moved from socket to socket where both are plain.
const SPLICED: u64 = 128 * 1024;

/// A request as it goes up.
pub(super) struct Asking {
    /// Its head; the body is put behind it when it is there.
    pub(super) lines: Vec<u8>,
    pub(super) upload: Upload,
    /// Its body goes up as it comes.
    pub(super) streamed: Option<Streamed>,
    /// Most octets of a body that is put behind the head.
    pub(super) most: u64,
    /// And of one in chunks that is not, but may go up as it comes.
    in_chunks: Option<u64>,
    pub(super) hash: Option<u64>,
    pub(super) reuse: Reuse,
    /// It goes past the cache of its route.
    pub(super) past: Option<Box<Past>>,
}

/// The request for `upstream`, if it and the route ask for nothing but that it is passed on.
pub(super) fn asking(
    snapshot: &Snapshot,
    by: &By<'_>,
    route: &Route,
    way: &Way,
    head: &impl LaneHead,
    record: &Record,
    past: Option<Past>,
) -> Option<Asking> {
    let Action::Upstream {
        upstream, cache, ..
    } = &route.action
    else {
        return None;
    };
    let info = by.info;
    let settings = upstream.settings();
    let allowed = route.most_body(&by.settings.limits);
    let most = upstream::most_at_once(upstream, allowed);
    if !upstream.is_plain() || route.hints.is_some() {
        return None;
    }
    let may_stream = || {
        // Who speaks gRPC may be silent for longer than others.
        let is_call = head
            .field(&header::CONTENT_TYPE)
            .is_some_and(|kind| Dialect::named(kind).is_some());
        by.h2.is_none() && !is_call
    };
    let is_unsaid = by.upload == Upload::Unsaid;
    // Who announces trailers has them announced, and passed on, on the other way.
    let is_bare = is_unsaid && head.field(&header::TRAILER).is_none();
    let in_chunks = (is_bare && may_stream()).then_some(allowed);
    let streamed = match (by.upload, in_chunks) {
        (upload, _) if upload.may_be_of(most) && !by.expects => None,
        (Upload::Length(length), _)
            if length <= allowed && upstream::is_streamed(upstream, length) && may_stream() =>
        {
            Some(Streamed::of_length(length, by.expects))
        }
        (Upload::Unsaid, Some(most)) => Some(Streamed::in_chunks(most, by.expects)),
        _ => return None,
    };
    let sought = exchange::hash::Target {
        path: &way.path,
        query: way.query.as_deref(),
    };
    let hash = exchange::hash::key(&settings.balance, head, sought, record.client);
    let peer = info.peer.ip();
    let origin = Origin {
        peer: &info.peer_text,
        trusted: exchange::client::is_trusted(peer, &snapshot.config.server.trusted_proxies),
        tls: info.tls.is_some(),
        // What clients say of it was not taken; a filter may have said something.
        certified: route.chain.edits_requests(),
        authority: &way.authority,
        id: &account::id_digits(record.id),
        // In HTTP/1.1 only where Connection names it, which is not for the lane.
        trailers: (by.h2.is_some() && onward::takes_trailers(head))
            .then_some(TakesTrailers::OfConnection),
    };
    let may_repeat = upstream::may_repeat(HeadView::method(head), route.retry_non_idempotent);
    let mut lines = buffers::take();
    let question = match (&past, cache) {
        (Some(past), Some(caching)) => past.question(caching, head),
        _ => None,
    };
    let host = match route.chain.edits_requests() {
        true => head.field(&header::HOST),
        false => None,
    };
    write_head(&mut lines, (head, host), way, by.upload, &origin, question);
    Some(Asking {
        lines,
        upload: by.upload,
        streamed,
        most,
        in_chunks,
        hash,
        reuse: upstream::reuse(may_repeat && streamed.is_none() && !is_unsaid),
        past: past.map(Box::new),
    })
}

impl Asking {
    /// Has its body, which comes in chunks and of which `here` octets are there, go up as it comes;
    /// whether it may.
    pub(super) fn goes_later(&mut self, here: u64) -> bool {
        let most = self.in_chunks.filter(|most| here <= *most);
        self.streamed = most.map(|most| Streamed::in_chunks(most, false));
        self.streamed.is_some()
    }
}

fn write_head(
    out: &mut Vec<u8>,
    (head, host): (&impl LaneHead, Option<&[u8]>),
    way: &Way,
    upload: Upload,
    origin: &Origin<'_>,
    question: Option<Question>,
) {
    out.extend_from_slice(HeadView::method(head).as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(way.path.as_bytes());
    if let Some(query) = &way.query {
        out.push(b'?');
        out.extend_from_slice(query.as_bytes());
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
    // HTTP/2 may spread cookies over lines; HTTP/1.1 has one (RFC 9113 section 8.2.3).
    let mut cookies = 0;
    head.each_field(&header::COOKIE, &mut |_| cookies += 1);
    let joins = cookies > 1;
    // Where there is a body its length is said once more, in its one spelling.
    head.write_lines(out, &|name| {
        onward::is_taken_over(name)
            && !(joins && name.eq_ignore_ascii_case(b"cookie"))
            && (upload.is_empty() || !name.eq_ignore_ascii_case(b"content-length"))
            && (question.is_none() || Question::keeps(name))
    });
    let mut block = Block::new(out, 0);
    upload.announce(&mut block);
    if joins {
        block.push(
            &header::COOKIE,
            &onward::joined(head, &header::COOKIE, b"; "),
        );
    }
    onward::added(head, origin, host, &mut |name, value| {
        block.push(name, value);
    });
    if let Some(question) = question {
        question.put(&mut block);
    }
    block.end(b"\r\n");
}

impl Carrier {
    /// Passes a request on, and its reply back.
    pub(super) async fn pass(
        &self,
        conn: &mut Conn,
        mut hit: Box<Hit>,
        facts: &mut HeadFacts,
        closes: bool,
        settings: &Arc<ListenerSettings>,
    ) -> Taken {
        let octets = match hit.take_body(conn, facts).await {
            Ok(octets) => octets,
            Err(begun) => return hit.left(begun, conn, facts, settings),
        };
        let request = (facts.head_len, facts.head_len + octets);
        let to_head = facts.method == MethodKind::Head;
        let how = (request, to_head, settings.limits.body_timeout);
        let why = match self.exchange(conn, &mut hit, how, closes).await {
            Went::Whole { last } => {
                let now = account::close(&mut hit.record, &hit.snapshot, settings);
                return match last {
                    true => Taken::Last,
                    false => Taken::Served(now),
                };
            }
            Went::Left(begun) => return hit.left(begun, conn, facts, settings),
            Went::Gone => Failure::Client(ClientFault::Gone),
            Went::Broken(failure) => failure,
        };
        hit.record.why = Some(why.as_str());
        account::close(&mut hit.record, &hit.snapshot, settings);
        Taken::Broken
    }

    async fn exchange(
        &self,
        conn: &mut Conn,
        hit: &mut Hit,
        ((head_len, request_len), to_head, patience): ((usize, usize), bool, Duration),
        closes: bool,
    ) -> Went {
        let mut flight = None;
        if let Err(went) = send(self.worker, conn, hit, request_len, &mut flight).await {
            return went;
        }
        if hit.is_streamed()
            && let Err(went) = Box::pin(hit.go_up(conn, &mut flight, head_len, patience)).await
        {
            return went;
        }
        let mut out = buffers::take();
        let (reply, mut body) = match hear(conn, hit, &mut flight, to_head, &mut out).await {
            Ok(replying) => replying,
            Err(went) => {
                buffers::give(out);
                return went;
            }
        };
        let Some(InFlight { asked, wire }) = &mut flight else {
            return Went::Gone;
        };
        hit.settle(reply.status, &mut out).await;
        let Hit {
            snapshot, record, ..
        } = hit;
        let mut now = clock::now();
        asked.answered(reply.status, now, record);
        record.status = reply.status.as_u16();
        conn.take_request(request_len);
        wire.request_len = 0;
        let last = closes || self.ends_connections();
        let end = HeadEnd::of_h1(last);
        finish_reply(&mut out, &reply, snapshot, hit.route, record, end);
        conn.stage(out);
        let sent = &mut record.bytes_out;
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
            now = clock::now();
            let patience = asked.read_timeout();
            conn.set_deadline(Some(now + patience));
            let step = match &mut body {
                Body::Length(left) if *left >= SPLICED && wire.can_splice(conn) => {
                    buffers::release(&mut wire.inbox);
                    wire.at = 0;
                    wire.splice(conn, left, patience, sent).await
                }
                _ => {
                    wire.make_room();
                    wire.more(conn).await
                }
            };
            let failure = match step {
                Step::Done => continue,
                Step::Ended => Failure::Reset,
                Step::Gone => Failure::Client(ClientFault::Gone),
                Step::Late => Failure::ReadTimeout,
            };
            // What there is has been sent; the end of the connection says that it is not whole.
            asked.broke_off(failure);
            return Went::Broken(failure);
        }
        let ending = Ending {
            worker: self.worker,
            keep_alive: reply.keep_alive,
        };
        if let Some(flight) = flight {
            ending.finish(flight, now);
        }
        match conn.flush().await {
            Ok(()) => Went::Whole { last },
            Err(_) => Went::Broken(Failure::Client(ClientFault::Gone)),
        }
    }
}

/// What belongs to this reply alone, and the end of its head.
pub(super) fn finish_reply(
    out: &mut Vec<u8>,
    reply: &ReplyFacts,
    snapshot: &Snapshot,
    route: usize,
    record: &Record,
    end: HeadEnd,
) {
    let mut block = Block::of_reply(out);
    if let (HeadEnd::Stream, ReplyBody::Chunked) = (end, reply.body) {
        block.remove(&header::TRANSFER_ENCODING);
    }
    if !reply.dated {
        block.push(&header::DATE, &http_date(record.wall));
    }
    finish_head(block, snapshot, route, record, false, end);
}

impl Hit {
    /// The reply whose head stands in `out` is the client's: what that means for the cache.
    pub(super) async fn settle(&mut self, status: StatusCode, out: &mut Vec<u8>) {
        let What::Proxied(Asking { past, .. }) = &mut self.what else {
            return;
        };
        let Some(past) = past.take() else {
            return;
        };
        let route = self.snapshot.routes.get(self.route);
        let Some(Action::Upstream { cache, .. }) = route.map(|route| &route.action) else {
            return;
        };
        let lines = Lines::of_reply(out);
        let mut settled = past.settle(&self.snapshot.cache, cache.as_deref(), status, &lines);
        // Boxed: it is seldom there, and every request would have room for it.
        Box::pin(settled.take_out(&self.snapshot)).await;
        if let Some(caching) = cache {
            settled.mark(&caching.policy, &mut Block::of_reply(out));
        }
    }

    fn streamed(&mut self) -> Option<&mut Streamed> {
        match &mut self.what {
            What::Proxied(asking) => asking.streamed.as_mut(),
            _ => None,
        }
    }

    fn is_streamed(&self) -> bool {
        matches!(&self.what, What::Proxied(asking) if asking.streamed.is_some())
    }

    /// Sends the body up as it comes.
    ///
    /// # Errors
    /// Why the reply is not waited for here.
    async fn go_up(
        &mut self,
        conn: &mut Conn,
        flight: &mut Option<InFlight>,
        head_len: usize,
        patience: Duration,
    ) -> Result<(), Went> {
        let (Some(streamed), Some(InFlight { asked, wire })) = (self.streamed(), flight.as_mut())
        else {
            return Ok(());
        };
        let waits = Waits {
            client: patience,
            endpoint: asked.read_timeout(),
        };
        let up = streamed.go_up((wire, conn), head_len, waits).await;
        let is_whole = streamed.is_whole();
        self.record.bytes_in = streamed.passed.unwrap_or(0);
        if is_whole {
            asked.is_whole(clock::now());
        }
        match up {
            Up::Whole => {
                conn.set_deadline(Some(asked.deadline()));
                return Ok(());
            }
            Up::Gone => {}
            Up::Spoke | Up::Other => return Err(over(flight, InFlight::leave)),
            Up::Failed(failure) => {
                return Err(flight
                    .take()
                    .map_or(Went::Gone, |flight| flight.failed(failure)));
            }
        }
        Err(Went::Gone)
    }

    /// Leaves the other carrier the request, or what is left of one that goes up as it comes.
    fn left(
        mut self: Box<Self>,
        begun: Begun,
        conn: &mut Conn,
        facts: &mut HeadFacts,
        settings: &Arc<ListenerSettings>,
    ) -> Taken {
        let begun = match self.streamed() {
            Some(streamed) => {
                streamed.hand_over(conn, facts);
                begun.passed(streamed.passed)
            }
            None => begun,
        };
        Taken::Begun(self.leave(begun, settings))
    }

    /// For the other carrier.
    pub(super) fn leave(
        self: Box<Self>,
        begun: Begun,
        settings: &Arc<ListenerSettings>,
    ) -> Box<Pending> {
        let Self {
            snapshot, record, ..
        } = *self;
        Box::new(Pending {
            snapshot,
            settings: settings.clone(),
            record,
            begun,
        })
    }
}
