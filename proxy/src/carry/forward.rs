//! A reply of an upstream on its way to the client, piece by piece.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;

use super::failure::{ClientFault, Failure};
use super::turn::{Broken, Turn};
use super::upstream::{self, Incoming, Outgoing, Upload};
use super::{grpc, respond, sticky, tunnel};
use crate::clock;
use crate::exchange::websocket;
use crate::snapshot::Route;
use crate::upstreams::Upstream;

/// Sends `outgoing` up and its reply down.
pub(super) async fn proxy(
    turn: &mut Turn,
    session: &mut ServerSession,
    route: &Route,
    upstream: &Arc<Upstream>,
    outgoing: &mut Outgoing,
    mark: impl FnOnce(&mut ResponseHeader),
) -> Result<(), Broken> {
    match open(turn, session, upstream, outgoing).await {
        Ok(incoming) => relay(turn, session, route, incoming, outgoing, mark).await,
        Err(failure) => turn.fail(session, Some(route), failure).await,
    }
}

/// Sends the request up. Returns the reply's head and what its body comes from.
pub(super) async fn open(
    turn: &mut Turn,
    session: &mut ServerSession,
    upstream: &Arc<Upstream>,
    outgoing: &mut Outgoing,
) -> Result<(Incoming, Box<ResponseHeader>), Failure> {
    let worker = turn.carrier.worker();
    upstream::open(
        upstream,
        worker,
        outgoing,
        Some(session),
        &|| false,
        &mut turn.record,
        turn.begun.take(),
    )
    .await
}

/// The reply to the client; `mark` adds what the edge says of it.
pub(super) async fn relay(
    turn: &mut Turn,
    session: &mut ServerSession,
    route: &Route,
    (mut incoming, mut head): (Incoming, Box<ResponseHeader>),
    outgoing: &mut Outgoing,
    mark: impl FnOnce(&mut ResponseHeader),
) -> Result<(), Broken> {
    let is_switched = head.status == StatusCode::SWITCHING_PROTOCOLS;
    let opens = websocket::is_on_stream(&session.req_header().extensions);
    if opens && !is_switched && head.status.is_success() {
        // Passed on, it would open what the endpoint has not granted.
        incoming.abandon().await;
        return turn.fail(session, Some(route), Failure::BadReply).await;
    }
    let bridged = grpc::bridged(route, session);
    let mut down = bridged.and_then(|it| grpc::Down::begin(it, &mut head, &mut incoming));
    respond::adapt(&mut head, session)?;
    mark(&mut head);
    let secure = turn.scheme(session) == "https";
    sticky::give(&incoming, outgoing, &mut head, secure, clock::wall())?;
    if !is_switched
        && grpc::spoken(session).is_none()
        && let Some(cover) = turn.cover_of(session, route, head.status, &head.headers)
    {
        cover.put_on(&mut *head);
        route.chain.response(&mut *head);
        turn.carrier.close_if_draining(session);
        leave(incoming, outgoing).await;
        return turn.write(session, head, cover.body).await;
    }
    route.chain.response(&mut *head);
    let status = head.status;
    turn.carrier.close_if_draining(session);
    let ends = down.is_none()
        && !is_switched
        && respond::ends_with_head(session, status)
        && incoming.is_done();
    let begun = match ends {
        true => respond::only(session, head, &turn.id).await,
        false => respond::begin(session, head, &turn.id).await,
    };
    if begun.is_err() {
        incoming.abandon().await;
        return turn
            .fail(session, Some(route), Failure::Client(ClientFault::Gone))
            .await;
    }
    if is_switched {
        session.set_read_timeout(None);
        session.set_write_timeout(None);
        let patience = incoming.read_timeout();
        let Some((endpoint, first, place)) = incoming.into_stream() else {
            return turn.fail(session, Some(route), Failure::BadReply).await;
        };
        let joined = tunnel::join(session, endpoint, first, patience).await;
        drop(place);
        return match joined {
            Ok(()) => Ok(respond::finish(session).await?),
            Err(failure) => turn.fail(session, Some(route), failure).await,
        };
    }
    if session.req_header().method == Method::HEAD && !incoming.is_done() {
        // Asked by GET on the cache's behalf, and of no use to it: the body is not fetched.
        incoming.abandon().await;
        return Ok(respond::finish(session).await?);
    }
    if ends {
        incoming.finish().await;
        return Ok(());
    }
    let patience = Some(turn.settings.limits.body_timeout);
    let body = (&mut incoming, down.as_mut());
    match copy(session, status, body, outgoing, patience).await {
        Ok(()) => {
            incoming.finish().await;
            Ok(())
        }
        Err(failure) => {
            incoming.abandon().await;
            turn.fail(session, Some(route), failure).await
        }
    }
}

/// Gives a reply up whose body nobody gets. The connection is kept if the request went up whole.
async fn leave(incoming: Incoming, outgoing: &Outgoing) {
    match outgoing.upload {
        Upload::Done | Upload::Buffered(_) => drop(tokio::spawn(incoming.discard())),
        Upload::Streamed { .. } => incoming.abandon().await,
    }
}

async fn copy(
    session: &mut ServerSession,
    status: StatusCode,
    (incoming, mut down): (&mut Incoming, Option<&mut grpc::Down>),
    outgoing: &mut Outgoing,
    patience: Option<Duration>,
) -> Result<(), Failure> {
    let wanted =
        respond::may_have_body(session, status) || status == StatusCode::SWITCHING_PROTOCOLS;
    while let Some(piece) = incoming.next(&mut outgoing.upload, Some(session)).await? {
        if wanted && !piece.is_empty() {
            let piece = match &down {
                None => piece,
                Some(down) => down.piece(piece),
            };
            incoming
                .write(piece, &mut outgoing.upload, session, patience)
                .await?;
        }
        if incoming.is_done() {
            break;
        }
    }
    let mut trailers = incoming.trailers().await?.filter(|_| wanted);
    if let Some(down) = &mut down
        && let Some(end) = down.end(trailers.take())
    {
        incoming
            .write(end, &mut outgoing.upload, session, patience)
            .await?;
    }
    respond::finish_with(session, trailers)
        .await
        .map_err(|_| Failure::Client(ClientFault::Gone))
}
