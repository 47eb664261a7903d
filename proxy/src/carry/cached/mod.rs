//! A request on a cached route: answered from the store, from another client's
//! fetch, or by a fetch whose reply is stored while it streams.
//!
//! Every decision is the `cache` crate's; this file carries them out. A reply
//! that may be stored is read by a task of its own, so that neither a slow nor a
//! vanished client holds up those who wait for the same page.

mod background;
mod fetch;
mod judge;
mod parts;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cache::reuse::{self, Use, Why};
use cache::status::{CacheStatus, Forward};
use cache::store::Lookup;
use cache::validate::{self, HeadEffect};
use cache::{KeyBuf, Policy, RequestControl, Stored, Times, condition, range};
use http::{Method, StatusCode, header};
use pingora::protocols::http::ServerSession;

use super::turn::{Broken, Turn};
use super::{forward, stored};
use crate::clock;
use crate::exchange::Way;
use crate::exchange::normalise::normalise_path;
use crate::observe::CacheResult;
use crate::snapshot::{Cache, Route};
use crate::upstreams::Upstream;
use fetch::Fetch;

/// How long nobody waits for another's fetch of a page that was not to be shared.
const NOT_SHARED_FOR: Duration = Duration::from_secs(10);

/// One request on a cached route.
pub(super) struct Cached<'a> {
    pub(super) route: &'a Route,
    pub(super) upstream: &'a Arc<Upstream>,
    pub(super) place: u16,
    pub(super) policy: &'a Policy,
    pub(super) way: &'a Way,
}

/// Whether the cache has to do with the request at all.
pub(super) fn concerns(session: &ServerSession) -> bool {
    let head = session.req_header();
    matches!(head.method, Method::GET | Method::HEAD) && !head.headers.contains_key(header::UPGRADE)
}

/// The key of what `way` asks for.
pub(crate) fn key(scheme: &str, way: &Way, upstream: &Upstream) -> KeyBuf {
    let (path, query) = way.as_asked();
    key_of(scheme, &way.authority, path, query, upstream)
}

/// Two upstreams never share an entry, even where a host name leads to both (by listener, say).
pub(crate) fn key_of(
    scheme: &str,
    host: &str,
    path: &str,
    query: Option<&str>,
    upstream: &Upstream,
) -> KeyBuf {
    let mut key = KeyBuf::new();
    key.fill(scheme, host, path, query)
        .part(Some(upstream.name().as_bytes()));
    key
}

/// Takes out what an unsafe request made untrue: its own URI, and those of Location and
/// Content-Location on the same host (RFC 9111 section 4.4).
pub(super) fn invalidate(
    cache: &Cache,
    scheme: &str,
    way: &Way,
    upstream: &Upstream,
    merge_slashes: bool,
    method: &Method,
    reply: &pingora::http::ResponseHeader,
) {
    let (path, query) = way.as_asked();
    let origin = cache::invalidate::Origin {
        scheme,
        host: &way.authority,
        path,
        query,
    };
    for target in cache::invalidate::targets(method, origin, reply.status, &reply.headers) {
        // In the spelling by which pages are known.
        let Ok(path) = normalise_path(&target.path, merge_slashes) else {
            continue;
        };
        let query = target.query.as_deref();
        let key = key_of(scheme, &way.authority, &path, query, upstream);
        cache.flights.purge(&cache.store, key.as_key());
    }
}

/// Serves the request.
pub(super) async fn serve(
    turn: &mut Turn,
    session: &mut ServerSession,
    cached: &Cached<'_>,
) -> Result<(), Broken> {
    let cache = turn.snapshot.cache.clone();
    let scheme = turn.scheme(session);
    let key = key(scheme, cached.way, cached.upstream);
    let fields = &session.req_header().headers;
    let control = RequestControl::read(fields);
    if condition::is_for_origin(fields) || !session.is_body_empty() {
        return Box::pin(pass(turn, session, cached, &key)).await;
    }
    let fields = &session.req_header().headers;
    let now = clock::wall();
    let request = cache::Request {
        method: &session.req_header().method,
        fields,
    };
    let wants_part = range::is_asked(request);
    let found = cache
        .store
        .lookup(key.as_key(), fields, &cached.policy.vary);
    if wants_part
        && !matches!(found, Lookup::Found(_))
        && let Some((part, found)) =
            parts::find(&cache, &key, cached.policy, request, &control, now)
    {
        turn.record.cache = CacheResult::Hit;
        return Box::pin(stored::answer_part(
            turn,
            session,
            cached.route,
            &part,
            &found,
        ))
        .await;
    }
    let (base, why) = match found {
        Lookup::Found(found) => match reuse::usable(found.head().freshness(), &control, now) {
            usable if usable.is_hit() => {
                return hit(turn, session, cached, &cache, &key, &found, usable).await;
            }
            Use::Revalidate(why) => (Some(found), forward_for(why)),
            _ => return unavailable(turn, session, cached).await,
        },
        _ if !reuse::may_fetch(&control) => return unavailable(turn, session, cached).await,
        Lookup::VaryMiss => (None, Forward::VaryMiss),
        Lookup::UriMiss => (None, Forward::UriMiss),
    };
    let passes = control.no_store || parts::pass_at_once(&cache, &key);
    if wants_part && base.is_none() && passes {
        return Box::pin(parts::pass(turn, session, cached, &key)).await;
    }
    let fetch = Fetch {
        cached,
        cache: &cache,
        key: &key,
        why,
        alone: control.no_cache || control.no_store,
        wants_part,
        control,
    };
    // Boxed: a hit does not pay for the room that a fetch takes.
    Box::pin(fetch.run(turn, session, base)).await
}

fn forward_for(why: Why) -> Forward {
    match why {
        Why::Request => Forward::Request,
        Why::NoCache | Why::Stale => Forward::Stale,
    }
}

/// `only-if-cached` and nothing usable (RFC 9111 section 5.2.1.7).
async fn unavailable(
    turn: &mut Turn,
    session: &mut ServerSession,
    cached: &Cached<'_>,
) -> Result<(), Broken> {
    turn.record.cache = CacheResult::Miss;
    turn.record.why = Some("only_if_cached");
    let explanation = "Only a stored response was asked for, and none may be used.";
    let status = StatusCode::GATEWAY_TIMEOUT;
    turn.error(session, Some(cached.route), status, explanation, |head| {
        let mark = CacheStatus {
            detail: Some("only-if-cached"),
            ..CacheStatus::default()
        };
        stored::mark(head, &mark);
    })
    .await
}

/// Past the cache: only the application can answer.
async fn pass(
    turn: &mut Turn,
    session: &mut ServerSession,
    cached: &Cached<'_>,
    key: &KeyBuf,
) -> Result<(), Broken> {
    turn.record.cache = CacheResult::Bypass;
    turn.record.upstream = Some(cached.place);
    let cache = turn.snapshot.cache.clone();
    let asked = session.req_header();
    let is_head = asked.method == Method::HEAD;
    let asked = is_head.then(|| asked.headers.clone());
    let sent = clock::wall();
    let outgoing = turn
        .outgoing(session, cached.route, cached.upstream, cached.way)
        .await;
    let mut outgoing = match outgoing {
        Ok(outgoing) => outgoing,
        Err(failure) => return turn.fail(session, Some(cached.route), failure).await,
    };
    forward::proxy(
        turn,
        session,
        cached.route,
        cached.upstream,
        &mut outgoing,
        |head| {
            if let Some(asked) = &asked {
                take_in_head(&cache, key, cached.policy, asked, head, sent);
            }
            let status = CacheStatus {
                fwd: Some(Forward::Bypass),
                detail: Some("precondition"),
                ..CacheStatus::default()
            };
            stored::mark(head, &status);
        },
    )
    .await
}

/// What the reply to a HEAD says of the page that is stored (RFC 9111 section 4.3.5).
fn take_in_head(
    cache: &Cache,
    key: &KeyBuf,
    policy: &Policy,
    asked: &http::HeaderMap,
    reply: &pingora::http::ResponseHeader,
    sent: SystemTime,
) {
    let Lookup::Found(found) = cache.store.lookup(key.as_key(), asked, &policy.vary) else {
        return;
    };
    let request = cache::Request {
        method: &Method::HEAD,
        fields: asked,
    };
    let reply = cache::Response {
        status: reply.status,
        fields: &reply.headers,
    };
    let times = Times {
        sent,
        received: clock::wall(),
    };
    match validate::head_effect(found.head(), request, reply, policy, times) {
        HeadEffect::Update(head) => {
            let renewed = Arc::new(found.with_head(head));
            cache.store.replace(key.as_key(), &found, renewed);
        }
        HeadEffect::Invalidate => cache.store.remove(key.as_key(), &found),
        HeadEffect::Nothing => {}
    }
}

async fn hit(
    turn: &mut Turn,
    session: &mut ServerSession,
    cached: &Cached<'_>,
    cache: &Arc<Cache>,
    key: &KeyBuf,
    found: &Arc<Stored>,
    usable: Use,
) -> Result<(), Broken> {
    turn.record.cache = match usable {
        Use::Fresh => CacheResult::Hit,
        _ => CacheResult::Stale,
    };
    if usable == Use::StaleWhileRevalidate {
        Box::pin(background::refresh(
            turn, session, cached, cache, key, found,
        ))
        .await;
    }
    let status = CacheStatus {
        hit: true,
        ..CacheStatus::default()
    };
    stored::answer(turn, session, cached.route, found, status).await
}
