//! Requests for a part of a page that is not stored whole.
//!
//! The whole is fetched where it will be stored (`fetch.rs`), and the part answered from it as it
//! arrives. Where it is too much for that, the client's own request passes here, and for a while
//! the next ones at once. The part that comes back is kept beside the page, and joined to one that
//! is there ([`cache::part`]).

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cache::reuse::{self, Use};
use cache::status::{CacheStatus, Forward};
use cache::store::Lookup;
use cache::{Head, Key, KeyBuf, RequestControl, Stored, Times, Writer, part, tags};
use http::HeaderMap;
use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;

use super::background::read;
use super::judge::normalise;
use super::{Cached, strip_tags};
use crate::carry::forward;
use crate::carry::stored::{self, Arriving};
use crate::carry::turn::{Broken, Turn};
use crate::carry::upstream::{self, Incoming};
use crate::clock;
use crate::exchange::caching::Caching;
use crate::observe::CacheResult;
use crate::snapshot::Cache;

/// How long requests for parts pass after the whole turned out to be too much. As long as a file
/// that is too large seldom becomes a small one.
pub(super) const PASS_FOR: Duration = Duration::from_secs(300);

/// The stored part that has what is asked for.
pub(super) fn find(
    cache: &Cache,
    key: &KeyBuf,
    cached: &Cached<'_>,
    session: &ServerSession,
    control: &RequestControl,
    now: SystemTime,
) -> Option<(Arc<Stored>, part::Found)> {
    let asked = session.req_header();
    let request = cache::Request {
        method: &asked.method,
        fields: &asked.headers,
    };
    let stored = known(
        cache,
        &key.as_key().of_part(),
        cached.caching,
        &asked.headers,
    )?;
    // A part is never validated, so there is nothing to do in the background either.
    match reuse::usable(&stored.freshness(), control, now) {
        Use::Fresh | Use::StaleByRequest => {
            let found = part::select(&stored, request, now)?;
            Some((stored, found))
        }
        _ => None,
    }
}

/// Whether requests for parts of this page pass.
pub(super) fn pass_at_once(cache: &Cache, key: &KeyBuf) -> bool {
    let mark = key.as_key().of_passing_parts();
    cache.flights.is_marked(mark.as_key(), clock::wall())
}

/// Lets them pass from now on.
pub(super) fn let_pass(cache: &Cache, key: &KeyBuf, lifetime: Duration) {
    let mark = key.as_key().of_passing_parts();
    cache.flights.mark(mark.as_key(), clock::wall(), lifetime);
}

/// The client's own request for a part. What comes back is kept, if it may be and `keep` says so.
pub(super) async fn pass(
    turn: &mut Turn,
    session: &mut ServerSession,
    cached: &Cached<'_>,
    key: &KeyBuf,
    keep: bool,
) -> Result<(), Broken> {
    turn.record.cache = CacheResult::Bypass;
    turn.record.upstream = Some(cached.place);
    let cache = turn.snapshot.cache.clone();
    let route = cached.route;
    let outgoing = turn
        .outgoing(session, route, cached.upstream, cached.way)
        .await;
    let mut outgoing = match outgoing {
        Ok(outgoing) => outgoing,
        Err(failure) => return turn.fail(session, Some(route), failure).await,
    };
    let asked = &session.req_header().headers;
    if let Err(failure) = normalise(&mut outgoing, asked, cached.caching) {
        return turn.fail(session, Some(route), failure).await;
    }
    let key = key.as_key().of_part();
    // It flies from here on, so that a purge meanwhile reaches it.
    let mut writer = {
        let (caching, policy) = (cached.caching, cached.policy());
        let view = caching.normal.apply(&session.req_header().headers);
        let hint = cache.store.hint(key.as_key(), &view, &policy.vary);
        let most = policy.max_object_size;
        cache.flights.alone(key.as_key(), &hint, most)
    };
    let sent = clock::wall();
    let worker = turn.carrier.worker();
    let opened = upstream::open(
        cached.upstream,
        worker,
        &mut outgoing,
        Some(session),
        &|| false,
        &mut turn.record,
        None,
    )
    .await;
    let (incoming, mut reply) = match opened {
        Ok(opened) => opened,
        Err(failure) => return turn.fail(session, Some(route), failure).await,
    };
    let kept = keepable(session, cached, &reply, sent).filter(|_| keep);
    let (caching, policy) = (cached.caching, cached.policy());
    let names = tags::read(&reply.headers, &policy.tags).unwrap_or_default();
    strip_tags(&mut reply, policy);
    let asked = &session.req_header().headers;
    let there = known(&cache, &key, caching, asked).is_some();
    let status = CacheStatus {
        fwd: Some(if there {
            Forward::Partial
        } else {
            Forward::Bypass
        }),
        stored: kept.is_some(),
        detail: Some("range"),
        ..cached.status()
    };
    let Some(head) = kept.map(Arc::new) else {
        drop(writer);
        let opened = (incoming, reply);
        return forward::relay(turn, session, route, opened, &mut outgoing, |head| {
            stored::mark(head, &status);
        })
        .await;
    };
    let several = caching.has_several_keys();
    let life = cache
        .store
        .life(key.as_key(), &names, writer.since(), several);
    writer.head(head.clone(), life);
    let reader = writer.reader();
    let keeping = Keeping {
        cache,
        key,
        asked: asked.clone(),
        caching: caching.clone(),
    };
    tokio::spawn(keeping.run(writer, incoming));
    let object = Arriving {
        head: &head,
        own: Some(reply),
        reader,
    };
    stored::stream(turn, session, route, object, status).await
}

fn keepable(
    session: &ServerSession,
    cached: &Cached<'_>,
    reply: &ResponseHeader,
    sent: SystemTime,
) -> Option<Head> {
    let asked = session.req_header();
    let view = cached.caching.normal.apply(&asked.headers);
    let request = cache::Request {
        method: &asked.method,
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
    part::keepable(request, reply, cached.policy(), times)
}

/// A part on its way into the store.
struct Keeping {
    cache: Arc<Cache>,
    key: Key,
    asked: HeaderMap,
    caching: Arc<Caching>,
}

impl Keeping {
    async fn run(self, mut writer: Writer, incoming: Incoming) {
        let cache = &self.cache;
        let read = read(cache, &self.key, &self.caching, &mut writer, incoming);
        let Some(incoming) = read.await else {
            return;
        };
        // Looked for only now: another part may have come meanwhile.
        let older = known(cache, &self.key, &self.caching, &self.asked);
        if let Ok(Some(newer)) = writer.finish(&cache.store)
            && let Some(older) = older
        {
            let view = self.caching.normal.apply(&self.asked);
            let both = part::combine(&older, &newer, &view, &self.caching.policy);
            if let Some(both) = both {
                let key = self.key.as_key();
                cache.store.replace(key, &newer, Arc::new(both));
            }
        }
        incoming.finish().await;
    }
}

/// The part that is stored.
fn known(cache: &Cache, key: &Key, caching: &Caching, asked: &HeaderMap) -> Option<Arc<Stored>> {
    let view = caching.normal.apply(asked);
    match cache
        .store
        .lookup(key.as_key(), &view, &caching.policy.vary)
    {
        Lookup::Found(stored) => Some(stored),
        Lookup::VaryMiss | Lookup::UriMiss => None,
    }
}
