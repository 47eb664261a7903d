//! A request on a cached route: answered from the store, from another client's
//! fetch, or by a fetch whose reply is stored while it streams.
//!
//! Every decision is the `cache` crate's; this file carries them out. A reply
//! that may be stored is read by a task of its own, so that neither a slow nor a
//! vanished client holds up those who wait for the same page.

mod background;
mod compare;
mod fetch;
mod judge;
mod parts;
pub(super) mod past;
pub(crate) mod purge;
pub(crate) mod purge_method;

use std::sync::Arc;
use std::time::SystemTime;

use cache::Policy;
use cache::reuse::{self, Use, Why};
use cache::status::{CacheStatus, Forward};
use cache::store::Lookup;
use cache::validate::{self, HeadEffect};
use cache::{KeyBuf, RequestControl, Stored, Times, condition, range};
use http::{Method, StatusCode, header};
use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;

use super::turn::{Broken, Turn};
use super::{forward, stored};
use crate::clock;
use crate::exchange::Way;
use crate::exchange::caching::{Caching, Represented, shown};
use crate::exchange::websocket;
use crate::observe::CacheResult;
use crate::snapshot::{Cache, Route};
use crate::upstreams::Upstream;
use fetch::Fetch;

/// One request on a cached route.
pub(super) struct Cached<'a> {
    pub(super) route: &'a Route,
    pub(super) upstream: &'a Arc<Upstream>,
    pub(super) place: u16,
    pub(super) caching: &'a Arc<Caching>,
    pub(super) way: &'a Way,
    /// The key, for Cache-Status, where the route shows it.
    pub(super) shown: Option<String>,
}

impl Cached<'_> {
    fn policy(&self) -> &Policy {
        &self.caching.policy
    }

    /// What every Cache-Status of this request says.
    fn status(&self) -> CacheStatus<'_> {
        CacheStatus {
            key: self.shown.as_deref(),
            ..CacheStatus::default()
        }
    }
}

/// Whether the cache has to do with the request at all.
pub(super) fn concerns(session: &ServerSession) -> bool {
    let head = session.req_header();
    matches!(head.method, Method::GET | Method::HEAD)
        && !head.headers.contains_key(header::UPGRADE)
        && !websocket::is_on_stream(&head.extensions)
}

/// Takes the tags out of a reply: they are between the application and the cache.
pub(super) fn strip_tags(reply: &mut ResponseHeader, policy: &Policy) {
    for name in &policy.tags {
        reply.remove_header(name);
    }
}

/// Serves the request.
pub(super) async fn serve(
    turn: &mut Turn,
    session: &mut ServerSession,
    mut cached: Cached<'_>,
) -> Result<(), Broken> {
    let cache = turn.snapshot.cache.clone();
    let scheme = turn.scheme(session);
    let fields = &session.req_header().headers;
    let name = cached.upstream.name();
    let key = cached.caching.key(scheme, cached.way, name, fields);
    if cached.caching.show_key {
        cached.shown = Some(shown(key.as_key()));
    }
    let cached = &cached;
    let control = RequestControl::read(fields);
    if condition::is_for_origin(fields) || !session.is_body_empty() {
        return Box::pin(pass(turn, session, cached, &key, "precondition")).await;
    }
    let fields = &session.req_header().headers;
    let now = clock::wall();
    let wants_part = range::is_asked(cache::Request {
        method: &session.req_header().method,
        fields,
    });
    let found = {
        let view = cached.caching.normal.apply(fields);
        let vary = &cached.policy().vary;
        cache.store.lookup(key.as_key(), &view, vary)
    };
    if wants_part
        && !matches!(found, Lookup::Found(_))
        && let Some((part, found)) = parts::find(&cache, &key, cached, session, &control, now)
    {
        turn.record.cache = CacheResult::Hit;
        part.life().hit();
        let route = cached.route;
        let answer = stored::answer_part(turn, session, route, &part, &found, cached.status());
        return Box::pin(answer).await;
    }
    let (found, detail) = match found {
        Lookup::UriMiss | Lookup::VaryMiss if cache.disk.is_some() && turn.begun.is_none() => {
            match Box::pin(from_disk(&cache, cached, &key, fields)).await {
                Some(stored) => (Lookup::Found(stored), Some("disk")),
                None => (found, None),
            }
        }
        found => (found, None),
    };
    let (base, why) = match found {
        // It was asked for on the lane, when it was not there.
        Lookup::Found(_) if turn.begun.is_some() => (None, Forward::UriMiss),
        Lookup::Found(found) => match reuse::usable(&found.freshness(), &control, now) {
            usable if usable.is_hit() => {
                let status = CacheStatus {
                    hit: true,
                    detail,
                    ..cached.status()
                };
                let hit = Hit {
                    cache: &cache,
                    key: &key,
                    found: &found,
                    usable,
                    status,
                };
                return hit.serve(turn, session, cached).await;
            }
            Use::Revalidate(why) => (Some(found), forward_for(why)),
            _ => return unavailable(turn, session, cached).await,
        },
        _ if !reuse::may_fetch(&control) => return unavailable(turn, session, cached).await,
        Lookup::VaryMiss => (None, Forward::VaryMiss),
        Lookup::UriMiss => (None, Forward::UriMiss),
    };
    let least = cached.caching.min_uses;
    let unused = least > 1 && cache.uses.count(key.as_key().as_bytes()) < least;
    let personal = cached.policy().is_personal(fields);
    // Of these it is known that the whole will not be stored.
    let passes = || control.no_store || personal || parts::pass_at_once(&cache, &key);
    if base.is_none() && wants_part && passes() {
        return Box::pin(parts::pass(turn, session, cached, &key, !unused)).await;
    }
    let is_head = session.req_header().method == Method::HEAD;
    if base.is_none() && is_head && parts::pass_at_once(&cache, &key) {
        // Asked by GET, the reply would have to be broken off.
        return Box::pin(pass(turn, session, cached, &key, "head")).await;
    }
    let fetch = Fetch {
        cached,
        cache: &cache,
        key: &key,
        why,
        alone: control.no_cache || control.no_store,
        personal,
        unused,
        wants_part,
        control,
    };
    // Boxed: a hit does not pay for the room that a fetch takes.
    Box::pin(fetch.run(turn, session, base)).await
}

/// What only the disk has, read by one for all who want it at the time.
async fn from_disk(
    cache: &Arc<Cache>,
    cached: &Cached<'_>,
    key: &KeyBuf,
    fields: &http::HeaderMap,
) -> Option<Arc<Stored>> {
    let vary = &cached.policy().vary;
    let normal = &cached.caching.normal;
    let place = cache
        .store
        .find_on_disk(key.as_key(), &normal.apply(fields), vary)?;
    let turns = &cache.reading;
    let turn = turns.get(key.spread(turns.len()))?;
    let _turn = turn.lock().await;
    // Another one may have read it meanwhile.
    if let Lookup::Found(found) = cache
        .store
        .lookup(key.as_key(), &normal.apply(fields), vary)
    {
        return Some(found);
    }
    let reader = cache.clone();
    let work = tokio::task::spawn_blocking(move || reader.store.read_from_disk(&place));
    work.await.ok()?
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
            ..cached.status()
        };
        stored::mark(head, &mark);
    })
    .await
}

/// Past the cache, with the reason in Cache-Status.
async fn pass(
    turn: &mut Turn,
    session: &mut ServerSession,
    cached: &Cached<'_>,
    key: &KeyBuf,
    detail: &'static str,
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
    let fields = &session.req_header().headers;
    if let Err(failure) = judge::normalise(&mut outgoing, fields, cached.caching) {
        return turn.fail(session, Some(cached.route), failure).await;
    }
    forward::proxy(
        turn,
        session,
        cached.route,
        cached.upstream,
        &mut outgoing,
        |head| {
            if let Some(asked) = &asked {
                take_in_head(&cache, key, cached.caching, asked, head, sent);
            }
            strip_tags(head, cached.policy());
            let status = CacheStatus {
                fwd: Some(Forward::Bypass),
                detail: Some(detail),
                ..cached.status()
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
    caching: &Caching,
    asked: &http::HeaderMap,
    reply: &ResponseHeader,
    sent: SystemTime,
) {
    let policy = &caching.policy;
    let view = caching.normal.apply(asked);
    if policy.is_personal(&view) {
        // It speaks of one visitor's page.
        return;
    }
    let Lookup::Found(found) = cache.store.lookup(key.as_key(), &view, &policy.vary) else {
        return;
    };
    let request = cache::Request {
        method: &Method::HEAD,
        fields: &view,
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
            // Its life goes on: what made it stale still does.
            let renewed = Arc::new(found.renewed(head, found.life().clone()));
            cache.store.replace(key.as_key(), &found, renewed);
        }
        HeadEffect::Invalidate => cache.store.remove(key.as_key(), &found),
        HeadEffect::Nothing => {}
    }
}

/// A stored page that is the answer.
struct Hit<'a> {
    cache: &'a Arc<Cache>,
    key: &'a KeyBuf,
    found: &'a Arc<Stored>,
    usable: Use,
    status: CacheStatus<'a>,
}

impl Hit<'_> {
    async fn serve(
        self,
        turn: &mut Turn,
        session: &mut ServerSession,
        cached: &Cached<'_>,
    ) -> Result<(), Broken> {
        let Self {
            cache,
            key,
            found,
            usable,
            status,
        } = self;
        turn.record.cache = match usable {
            Use::Fresh => CacheResult::Hit,
            _ => CacheResult::Stale,
        };
        found.life().hit();
        if cached.caching.compare_sessions > 0 {
            Box::pin(compare::sample(turn, session, cached, found)).await;
        }
        let due = match usable {
            Use::StaleWhileRevalidate => true,
            Use::Fresh => {
                let draw = crate::random::share();
                cached.caching.is_due_early(found, clock::wall(), draw)
            }
            _ => false,
        };
        // What comes back for a personal request would not be stored.
        if due && !cached.policy().is_personal(&session.req_header().headers) {
            Box::pin(background::refresh(
                turn, session, cached, cache, key, found,
            ))
            .await;
        }
        let coded = compressed(session, cached, cache, key, found);
        let found = coded.as_ref().unwrap_or(found);
        stored::answer(turn, session, cached.route, found, status).await
    }
}

/// The representation in the coding that the client wants most, where it is offered and there. If it
/// is not there yet, it is made behind the scenes, and this client gets what there is.
fn compressed(
    session: &ServerSession,
    cached: &Cached<'_>,
    cache: &Arc<Cache>,
    key: &KeyBuf,
    found: &Arc<Stored>,
) -> Option<Arc<Stored>> {
    let fields = &session.req_header().headers;
    match cached.caching.represented(fields, found) {
        Represented::AsStored => None,
        Represented::Coded(_, coded) => Some(Arc::clone(coded)),
        Represented::ToBeCoded(coding) => {
            // What is on the disk alone is another object for each who reads it.
            let stays = || cache.store.is_in_memory(key.as_key(), found);
            if stays() && found.begin_coding(coding) {
                background::compress(cache.clone(), key.as_key().to_key(), found.clone(), coding);
            }
            None
        }
    }
}
