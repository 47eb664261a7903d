//! A request that an upstream answers over a kept connection.
//!
//! The head goes up as lines, the reply comes down as lines, and bodies are passed on as they are
//! read. This makes the plain attempt alone: where no connection is kept, where one ends, where the
//! reply is not of the plain kind or not the one that the client gets, all is handed over
//! ([`Begun`]) to the carrier behind, as long as the client has been told nothing.

use std::sync::Arc;
use std::time::Instant;

use http::{StatusCode, header};

use super::block::Block;
use super::date::http_date;
use super::head::LaneHead;
use super::lines::Lines;
use super::upload::Upload;
use super::wire::{Body, Client, Early, Step, Wire};
use super::{By, HeadEnd, Hit, Taken, What, finish_head};
use crate::carry::cached::past::{Past, Question};
use crate::carry::failure::{ClientFault, Failure};
use crate::carry::upstream::{self, Asked, Begun, EARLY_BODY};
use crate::carry::{Carrier, Pending, account};
use crate::clock;
use crate::exchange::backward::{ReplyBody, ReplyFacts, Translated, translate};
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
    /// Most octets of a body.
    pub(super) most: u64,
    hash: Option<u64>,
    reuse: Reuse,
    /// It goes past the cache of its route.
    past: Option<Box<Past>>,
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
    let most = route.max_body_size;
    let most = most.unwrap_or(by.settings.limits.max_body_size);
    let most = most.min(settings.retry.max_body_size).min(EARLY_BODY);
    if !upstream.is_plain() || route.hints.is_some() || !by.upload.may_be_of(most) {
        return None;
    }
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
        // Requests that could be are not taken.
        certified: false,
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
    write_head(&mut lines, head, way, by.upload, &origin, question);
    Some(Asking {
        lines,
        upload: by.upload,
        most,
        hash,
        reuse: upstream::reuse(may_repeat),
        past: past.map(Box::new),
    })
}

fn write_head(
    out: &mut Vec<u8>,
    head: &impl LaneHead,
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
    onward::added(head, origin, &mut |name, value| block.push(name, value));
    if let Some(question) = question {
        question.put(&mut block);
    }
    block.end(b"\r\n");
}

/// How an exchange went.
pub(super) enum Went {
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

/// What becomes of the upstream's connection behind a whole reply.
pub(super) struct Ending {
    pub(super) worker: usize,
    /// The upstream goes on with it.
    pub(super) keep_alive: bool,
}

impl Ending {
    /// The whole reply was passed on.
    pub(super) fn finish(self, asked: Asked, wire: Wire, now: Instant) {
        let is_whole = wire.at == wire.inbox.len();
        let Wire {
            connection, inbox, ..
        } = wire;
        if self.keep_alive && is_whole {
            asked.finish(self.worker, connection, now);
        }
        buffers::give(inbox);
    }
}

/// A reply that can be begun.
pub(super) struct Replying {
    pub(super) asked: Asked,
    pub(super) wire: Wire,
    pub(super) reply: ReplyFacts,
    pub(super) body: Body,
}

/// Sends the request up and reads the head of the reply, and a small body. The client's head is
/// begun in `out`.
///
/// # Errors
/// Why there is none to begin: never [`Went::Whole`] or [`Went::Broken`].
pub(super) async fn ask(
    worker: usize,
    client: &mut impl Client,
    hit: &mut Hit,
    (request_len, to_head): (usize, bool),
    out: &mut Vec<u8>,
) -> Result<Replying, Went> {
    let Hit {
        snapshot,
        record,
        what: What::Proxied(asking),
        ..
    } = hit
    else {
        return Err(Went::Gone);
    };
    let mut lines = std::mem::take(&mut asking.lines);
    let Some(route) = snapshot.routes.get(hit.route) else {
        return Err(Went::Gone);
    };
    let Action::Upstream {
        upstream, cache, ..
    } = &route.action
    else {
        return Err(Went::Gone);
    };
    let wanted = (asking.hash, asking.reuse);
    let begun = upstream::begin(upstream, worker, wanted, record.start, record);
    let (asked, connection) = match begun {
        Ok(begun) => begun,
        Err(begun) => {
            buffers::give(lines);
            return Err(Went::Left(begun));
        }
    };
    let mut wire = Wire {
        connection,
        inbox: Vec::new(),
        at: 0,
        request_len,
        trailers: None,
    };
    client.set_deadline(Some(asked.deadline()));
    let sent = wire.send(client, &lines).await;
    buffers::release(&mut lines);
    match sent {
        Step::Done => {}
        Step::Ended => return Err(Went::Left(asked.ended())),
        Step::Gone => return Err(Went::Gone),
        Step::Late => return Err(Went::Left(asked.failed(Failure::FirstByteTimeout))),
    }
    wire.inbox = buffers::take();
    let reply = loop {
        match wire.more(client).await {
            Step::Done => {}
            // What came of a reply is for the other carrier to judge.
            Step::Ended if !wire.inbox.is_empty() => {
                return Err(Went::Left(asked.leave(wire.connection, wire.inbox)));
            }
            Step::Ended => return Err(Went::Left(asked.ended())),
            Step::Gone => return Err(Went::Gone),
            Step::Late => return Err(Went::Left(asked.failed(Failure::FirstByteTimeout))),
        }
        match translate(&wire.inbox, to_head, out) {
            Translated::Partial => {}
            Translated::Head(reply) => break reply,
            Translated::Other => {
                return Err(Went::Left(asked.leave(wire.connection, wire.inbox)));
            }
        }
    };
    let is_for_one = match (&mut asking.past, cache) {
        (Some(past), Some(caching)) => {
            let reply = cache::Response {
                status: reply.status,
                fields: &Lines::of_reply(out),
            };
            past.is_for_one(&caching.policy, reply, record.wall)
        }
        _ => true,
    };
    if !asked.is_wanted(reply.status) || route.may_cover(reply.status) || !is_for_one {
        return Err(Went::Left(asked.leave(wire.connection, wire.inbox)));
    }
    match wire.begin_body(client, &reply).await {
        Ok(body) => Ok(Replying {
            asked,
            wire,
            reply,
            body,
        }),
        Err(Early::Gone) => Err(Went::Gone),
        Err(Early::Failed(failure)) => {
            record.attempts.answered(reply.status.as_u16());
            Err(Went::Left(asked.failed(failure)))
        }
    }
}

impl Carrier {
    /// Passes a request on, and its reply back.
    pub(super) async fn pass(
        &self,
        conn: &mut Conn,
        mut hit: Box<Hit>,
        facts: &HeadFacts,
        closes: bool,
        settings: &Arc<ListenerSettings>,
    ) -> Taken {
        let went = match hit.take_body(conn, facts).await {
            Ok(octets) => {
                let request_len = facts.head_len + octets;
                let to_head = facts.method == MethodKind::Head;
                self.exchange(conn, &mut hit, (request_len, to_head), closes)
                    .await
            }
            Err(begun) => Went::Left(begun),
        };
        let why = match went {
            Went::Whole { last } => {
                account::close(&mut hit.record, &hit.snapshot, settings);
                return match last {
                    true => Taken::Last,
                    false => Taken::Served,
                };
            }
            Went::Left(begun) => return Taken::Begun(hit.leave(begun, settings)),
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
        (request_len, to_head): (usize, bool),
        closes: bool,
    ) -> Went {
        let mut out = buffers::take();
        let replying = ask(self.worker, conn, hit, (request_len, to_head), &mut out).await;
        let Replying {
            asked,
            mut wire,
            reply,
            mut body,
        } = match replying {
            Ok(replying) => replying,
            Err(went) => {
                buffers::give(out);
                return went;
            }
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
        ending.finish(asked, wire, now);
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
    /// The reply whose head stands in `out` is the client's: what that means for the cache of the route.
    pub(super) async fn settle(&mut self, status: StatusCode, out: &mut Vec<u8>) {
        let What::Proxied(Asking { past, .. }) = &mut self.what else {
            return;
        };
        let Some(past) = past.take() else {
            return;
        };
        let route = self.snapshot.routes.get(self.route);
        if let Some(Action::Upstream {
            cache: Some(caching),
            ..
        }) = route.map(|route| &route.action)
        {
            let lines = Lines::of_reply(out);
            let mut settled = past.settle(&self.snapshot.cache, caching, status, &lines);
            // Boxed: it is seldom there, and every request would have room for it.
            Box::pin(settled.take_out(&self.snapshot)).await;
            settled.mark(&caching.policy, &mut Block::of_reply(out));
        }
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
