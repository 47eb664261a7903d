//! A request that an upstream answers over a kept connection.
//!
//! The head goes up as lines, the reply comes down as lines, and bodies are passed on as they are
//! read. This makes the plain attempt alone: where no connection is kept, where one ends, where the
//! reply is not of the plain kind or not the one that the client gets, all is handed over
//! ([`Begun`]) to the carrier behind, as long as the client has been told nothing.

use std::sync::Arc;

use http::header;

use super::block::Block;
use super::date::http_date;
use super::wire::{Body, Early, Step, Wire};
use super::{Hit, Taken, What, finish_head};
use crate::carry::failure::{ClientFault, Failure};
use crate::carry::upstream::{self, Begun};
use crate::carry::{Carrier, Pending, account};
use crate::clock;
use crate::exchange::backward::{Translated, translate};
use crate::exchange::guard::{HeadFacts, MethodKind};
use crate::exchange::head::{Checked, HeadView};
use crate::exchange::onward::{self, Origin};
use crate::exchange::{self, Way};
use crate::listen::buffers;
use crate::listen::{Conn, ConnInfo, ListenerSettings};
use crate::observe::Record;
use crate::snapshot::{Action, Route, Snapshot};
use crate::upstreams::Upstream;

/// A body of which so much is left is moved from socket to socket where both are plain.
const SPLICED: u64 = 128 * 1024;

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
        peer: &info.peer_text,
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
    for line in head.lines() {
        let name = line.name();
        if !onward::is_taken_over(name) {
            continue;
        }
        let at = out.len();
        if let Some(line) = line.as_written() {
            out.extend_from_slice(line);
        } else {
            out.extend_from_slice(name);
            out.extend_from_slice(b": ");
            out.extend_from_slice(line.value());
            out.extend_from_slice(b"\r\n");
        }
        out[at..at + name.len()].make_ascii_lowercase();
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
        settings: &Arc<ListenerSettings>,
    ) -> Taken {
        let went = self.exchange(conn, &mut hit, facts, closes).await;
        let why = match went {
            Went::Whole { last } => {
                account::close(&mut hit.record, &hit.snapshot, settings);
                return match last {
                    true => Taken::Last,
                    false => Taken::Served,
                };
            }
            Went::Left(begun) => {
                let Hit {
                    snapshot, record, ..
                } = *hit;
                let settings = settings.clone();
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
        account::close(&mut hit.record, &hit.snapshot, settings);
        Taken::Broken
    }

    async fn exchange(
        &self,
        conn: &mut Conn,
        hit: &mut Hit,
        request: &HeadFacts,
        closes: bool,
    ) -> Went {
        let Hit {
            snapshot,
            record,
            what: What::Proxied(asking),
            ..
        } = hit
        else {
            return Went::Gone;
        };
        let mut head = std::mem::take(&mut asking.head);
        let Some(route) = snapshot.routes.get(hit.route) else {
            return Went::Gone;
        };
        let Action::Upstream { upstream, .. } = &route.action else {
            return Went::Gone;
        };
        let begun = upstream::begin(upstream, self.worker, asking.hash, record.start, record);
        let (asked, connection) = match begun {
            Ok(begun) => begun,
            Err(begun) => {
                buffers::give(head);
                return Went::Left(begun);
            }
        };
        let mut wire = Wire {
            connection,
            inbox: Vec::new(),
            at: 0,
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
                record.attempts.answered(reply.status.as_u16());
                return Went::Left(asked.failed(failure));
            }
        };
        let mut now = clock::now();
        asked.answered(reply.status, now, record);
        record.status = reply.status.as_u16();
        conn.take_request(request.head_len);
        wire.head_len = 0;
        let mut block = Block::of_reply(conn.staged());
        if !reply.dated {
            block.push(&header::DATE, &http_date(record.wall));
        }
        let last = closes || self.is_draining();
        finish_head(block, snapshot, hit.route, record, false, last);
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
        let is_whole = wire.at == wire.inbox.len();
        let Wire {
            connection, inbox, ..
        } = wire;
        if reply.keep_alive && is_whole {
            asked.finish(self.worker, connection, now);
        }
        buffers::give(inbox);
        match conn.flush().await {
            Ok(()) => Went::Whole { last },
            Err(_) => Went::Broken(Failure::Client(ClientFault::Gone)),
        }
    }
}
