//! A request on a cached route: answered from the store, from another client's
//! fetch, or by a fetch whose reply is stored while it streams.
//!
//! Every decision is the `cache` crate's; this file carries them out. A reply
//! that may be stored is read by a task of its own, so that neither a slow nor a
//! vanished client holds up those who wait for the same page.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cache::flight::{Growth, NoHead};
use cache::reuse::{self, OnError, Use, Why};
use cache::status::{CacheStatus, Forward};
use cache::storable::{NotStored, storable};
use cache::store::Lookup;
use cache::validate::{self, Freshened};
use cache::{
    Fields, Head, Join, Key, KeyBuf, Policy, Reader, RequestControl, Response, Storable, Stored, Times,
    Writer, condition,
};
use http::{Method, StatusCode, header};
use pingora::protocols::http::ServerSession;

use super::turn::{Broken, Turn};
use super::upstream::{self, ClientFault, Failure, Incoming, Outgoing, Upload};
use super::{forward, stored};
use stored::Arriving;
use crate::clock;
use crate::exchange::Way;
use crate::observe::{CacheResult, Record};
use crate::snapshot::{Cache, Route};
use crate::upstreams::Upstream;

/// How long nobody waits for another's fetch of a page that was not to be shared.
const NOT_SHARED_FOR: Duration = Duration::from_secs(10);

/// Fetches that fail before one gives up waiting for others and asks for itself.
const MOST_JOINS: u32 = 3;

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
    key_of(scheme, &way.host, path, query, upstream)
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
    method: &Method,
    reply: &pingora::http::ResponseHeader,
) {
    let (path, query) = way.as_asked();
    let origin = cache::invalidate::Origin {
        scheme,
        host: &way.host,
        path,
        query,
    };
    for target in cache::invalidate::targets(method, origin, reply.status, &reply.headers) {
        let query = target.query.as_deref();
        let key = key_of(scheme, &way.host, &target.path, query, upstream);
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
    let scheme = crate::exchange::scheme(turn.info.tls.is_some()).as_str();
    let key = key(scheme, cached.way, cached.upstream);
    let fields = &session.req_header().headers;
    let control = RequestControl::read(fields);
    if condition::is_for_origin(fields) || !session.is_body_empty() {
        return pass(turn, session, cached, "precondition").await;
    }
    let fields = &session.req_header().headers;
    let now = clock::wall();
    let (base, why) = match cache.store.lookup(key.as_key(), fields, &cached.policy.vary) {
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
    if base.is_none() && fields.has(&header::RANGE) {
        // The part alone cannot be stored, and the whole may be large: it passes.
        return pass(turn, session, cached, "range").await;
    }
    let fetch = Fetch {
        cached,
        cache: &cache,
        key: &key,
        why,
        alone: control.no_cache || control.no_store,
        control,
    };
    fetch.run(turn, session, base).await
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

/// Past the cache, with the reason in Cache-Status.
async fn pass(
    turn: &mut Turn,
    session: &mut ServerSession,
    cached: &Cached<'_>,
    detail: &'static str,
) -> Result<(), Broken> {
    turn.record.cache = CacheResult::Bypass;
    turn.record.upstream = Some(cached.place);
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
            let status = CacheStatus {
                fwd: Some(Forward::Bypass),
                detail: Some(detail),
                ..CacheStatus::default()
            };
            stored::mark(head, &status);
        },
    )
    .await
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
        refresh(turn, session, cached, cache, key, found).await;
    }
    let status = CacheStatus {
        hit: true,
        ..CacheStatus::default()
    };
    stored::answer(turn, session, cached.route, found, status).await
}

/// Fetches in the background what is served stale now, unless that is under way.
async fn refresh(
    turn: &mut Turn,
    session: &mut ServerSession,
    cached: &Cached<'_>,
    cache: &Arc<Cache>,
    key: &KeyBuf,
    found: &Arc<Stored>,
) {
    let fields = &session.req_header().headers;
    let hint = cache.store.hint(key.as_key(), fields, &cached.policy.vary);
    let most = cached.policy.max_object_size;
    let Some(writer) = cache.flights.refresh(key.as_key(), &hint, most) else {
        return;
    };
    let Ok(outgoing) = turn
        .outgoing(session, cached.route, cached.upstream, cached.way)
        .await
    else {
        return;
    };
    let task = Background {
        cache: cache.clone(),
        upstream: cached.upstream.clone(),
        worker: turn.carrier.worker(),
        policy: cached.policy.clone(),
        record: turn.background_record(cached.place),
        table: turn.snapshot.table.clone(),
        asked: session.req_header().headers.clone(),
        key: key.as_key().to_key(),
    };
    tokio::spawn(task.run(outgoing, found.clone(), writer));
}

/// A fetch, or the wait for somebody else's.
struct Fetch<'a> {
    cached: &'a Cached<'a>,
    cache: &'a Arc<Cache>,
    key: &'a KeyBuf,
    why: Forward,
    control: RequestControl,
    /// The request must not be answered with what others asked for.
    alone: bool,
}

/// What a turn of the loop came to.
enum Step {
    Done(Result<(), Broken>),
    /// Join again.
    Again,
    /// Ask for this client alone.
    Alone,
}

impl Fetch<'_> {
    async fn run(
        &self,
        turn: &mut Turn,
        session: &mut ServerSession,
        base: Option<Arc<Stored>>,
    ) -> Result<(), Broken> {
        for _ in 0..MOST_JOINS {
            let writer = match self.join(session) {
                Join::Found(found) => {
                    turn.record.cache = CacheResult::Hit;
                    let status = CacheStatus {
                        hit: true,
                        ..CacheStatus::default()
                    };
                    return stored::answer(turn, session, self.cached.route, &found, status).await;
                }
                Join::Follow(reader) => match self.follow(turn, session, reader).await {
                    Step::Done(done) => return done,
                    Step::Again => continue,
                    Step::Alone => self.writer(session),
                },
                Join::Lead(writer) | Join::Alone(writer) => writer,
            };
            return self.lead(turn, session, base, writer).await;
        }
        let writer = self.writer(session);
        self.lead(turn, session, base, writer).await
    }

    /// A fetch that nobody joins.
    fn writer(&self, session: &ServerSession) -> Writer {
        let policy = self.cached.policy;
        let key = self.key.as_key();
        let fields = &session.req_header().headers;
        let hint = self.cache.store.hint(key, fields, &policy.vary);
        self.cache.flights.alone(key, &hint, policy.max_object_size)
    }

    fn join(&self, session: &ServerSession) -> Join {
        if self.alone {
            return Join::Alone(self.writer(session));
        }
        let fields = &session.req_header().headers;
        let policy = self.cached.policy;
        let now = clock::wall();
        let hint = self.cache.store.hint(self.key.as_key(), fields, &policy.vary);
        self.cache.flights.join(
            self.key.as_key(),
            &hint,
            policy.max_object_size,
            now,
            || {
                let Lookup::Found(found) =
                    self.cache.store.lookup(self.key.as_key(), fields, &policy.vary)
                else {
                    return None;
                };
                reuse::usable(found.head().freshness(), &self.control, now)
                    .is_hit()
                    .then_some(found)
            },
        )
    }

    /// Reads along with somebody else's fetch.
    async fn follow(
        &self,
        turn: &mut Turn,
        session: &mut ServerSession,
        mut reader: Reader,
    ) -> Step {
        let head = tokio::select! {
            biased;
            head = reader.head() => head,
            _ = session.read_body_or_idle(true) => {
                let gone = Failure::Client(ClientFault::Gone);
                return Step::Done(turn.fail(session, Some(self.cached.route), gone).await);
            }
        };
        match head {
            Err(NoHead::Released) => Step::Alone,
            Err(NoHead::Failed) => Step::Again,
            Ok(head) if !head.variant().matches(&session.req_header().headers) => Step::Again,
            Ok(head)
                if !reuse::usable(head.freshness(), &self.control, clock::wall()).is_hit() =>
            {
                Step::Alone
            }
            Ok(head) => {
                turn.record.cache = CacheResult::Collapsed;
                let status = CacheStatus {
                    fwd: Some(self.why),
                    collapsed: true,
                    ..CacheStatus::default()
                };
                let route = self.cached.route;
                let object = Arriving {
                    head: &head,
                    own: None,
                    reader,
                };
                Step::Done(stored::stream(turn, session, route, object, status).await)
            }
        }
    }

    /// Asks the upstream, for all who wait.
    async fn lead(
        &self,
        turn: &mut Turn,
        session: &mut ServerSession,
        mut base: Option<Arc<Stored>>,
        mut writer: Writer,
    ) -> Result<(), Broken> {
        turn.record.cache = CacheResult::Miss;
        turn.record.upstream = Some(self.cached.place);
        loop {
            let mut outgoing = match self.outgoing(turn, session, base.as_deref()).await {
                Ok(outgoing) => outgoing,
                Err(failure) => {
                    return turn.fail(session, Some(self.cached.route), failure).await;
                }
            };
            let sent = clock::wall();
            let worker = turn.carrier.worker();
            let upstream = self.cached.upstream;
            let opened =
                upstream::open(upstream, worker, &mut outgoing, Some(session), &mut turn.record)
                    .await;
            let incoming = match opened {
                Ok(incoming) => incoming,
                Err(failure @ Failure::Client(_)) => {
                    return turn.fail(session, Some(self.cached.route), failure).await;
                }
                Err(failure) => {
                    return self.failed(turn, session, base, writer, failure).await;
                }
            };
            let asked = &session.req_header().headers;
            let judged = judge(
                asked,
                &incoming,
                base.as_deref(),
                self.cached.policy,
                &self.control,
                Times {
                    sent,
                    received: clock::wall(),
                },
            );
            match judged {
                Judged::Store(head) => {
                    let status = CacheStatus {
                        fwd: Some(self.why),
                        stored: true,
                        ..CacheStatus::default()
                    };
                    let now = clock::wall();
                    if !reuse::is_shareable(head.freshness(), now) {
                        writer.release(now, NOT_SHARED_FOR);
                    }
                    writer.head(head.clone());
                    let reader = writer.reader();
                    // Fields that are for this client alone are in the upstream's head only.
                    let own = incoming.head.clone();
                    let key = self.key.as_key().to_key();
                    tokio::spawn(pump(self.cache.clone(), key, writer, incoming));
                    let route = self.cached.route;
                    let object = Arriving {
                        head: &head,
                        own: Some(own),
                        reader,
                    };
                    return stored::stream(turn, session, route, object, status).await;
                }
                Judged::Renewed(head, kept) => {
                    let Some(old) = base else {
                        return Err(Broken);
                    };
                    incoming.finish().await;
                    let renewed = Arc::new(old.with_head(head));
                    self.renew(&old, &renewed, kept, writer);
                    turn.record.cache = CacheResult::Revalidated;
                    let status = CacheStatus {
                        fwd: Some(self.why),
                        fwd_status: Some(304),
                        stored: kept.is_none(),
                        ..CacheStatus::default()
                    };
                    return stored::answer(turn, session, self.cached.route, &renewed, status)
                        .await;
                }
                Judged::AskAgain => {
                    incoming.abandon().await;
                    base = None;
                }
                Judged::ServeStored => {
                    incoming.abandon().await;
                    return self.stale(turn, session, base, writer).await;
                }
                Judged::Pass(reason) => {
                    if let Some(old) = &base
                        && reason != NotStored::RequestNoStore
                    {
                        self.cache.store.remove(self.key.as_key(), old);
                    }
                    writer.uncacheable(clock::wall(), NOT_SHARED_FOR);
                    let status = CacheStatus {
                        fwd: Some(self.why),
                        detail: Some(reason.as_str()),
                        ..CacheStatus::default()
                    };
                    let route = self.cached.route;
                    return forward::relay(turn, session, route, incoming, &mut outgoing, |head| {
                        stored::mark(head, &status);
                    })
                    .await;
                }
            }
        }
    }

    /// The cache's own question: for the whole, by GET, with the stored validators.
    async fn outgoing(
        &self,
        turn: &mut Turn,
        session: &mut ServerSession,
        base: Option<&Stored>,
    ) -> Result<Outgoing, Failure> {
        let cached = self.cached;
        let mut outgoing = turn
            .outgoing(session, cached.route, cached.upstream, cached.way)
            .await?;
        make_question(&mut outgoing, base)?;
        Ok(outgoing)
    }

    fn renew(
        &self,
        old: &Arc<Stored>,
        renewed: &Arc<Stored>,
        not_kept: Option<NotStored>,
        writer: Writer,
    ) {
        if not_kept.is_some_and(|reason| reason != NotStored::RequestNoStore) {
            self.cache.store.remove(self.key.as_key(), old);
        }
        writer.complete(&self.cache.store, renewed.clone(), not_kept.is_none());
    }

    /// No reply: what is stored may stand in for it (RFC 5861 section 4).
    async fn failed(
        &self,
        turn: &mut Turn,
        session: &mut ServerSession,
        base: Option<Arc<Stored>>,
        writer: Writer,
        failure: Failure,
    ) -> Result<(), Broken> {
        let now = clock::wall();
        let verdict = base.as_ref().map(|stored| {
            reuse::on_error(stored.head().freshness(), &self.control, now)
        });
        match verdict {
            Some(OnError::ServeStored) => {
                turn.record.why = Some(failure.as_str());
                self.stale(turn, session, base, writer).await
            }
            Some(OnError::GatewayTimeout) => {
                drop(writer);
                turn.record.why = Some(failure.as_str());
                let explanation = "What is stored must not be used without the app server.";
                let status = StatusCode::GATEWAY_TIMEOUT;
                turn.error(session, Some(self.cached.route), status, explanation, |_| {})
                    .await
            }
            Some(OnError::PassOn) | None => {
                drop(writer);
                turn.fail(session, Some(self.cached.route), failure).await
            }
        }
    }

    async fn stale(
        &self,
        turn: &mut Turn,
        session: &mut ServerSession,
        base: Option<Arc<Stored>>,
        writer: Writer,
    ) -> Result<(), Broken> {
        let Some(stored) = base else {
            return Err(Broken);
        };
        writer.complete(&self.cache.store, stored.clone(), false);
        turn.record.cache = CacheResult::Stale;
        let status = CacheStatus {
            hit: true,
            detail: Some("stale-if-error"),
            ..CacheStatus::default()
        };
        stored::answer(turn, session, self.cached.route, &stored, status).await
    }
}

/// Makes a client's request the cache's own.
fn make_question(outgoing: &mut Outgoing, base: Option<&Stored>) -> Result<(), Failure> {
    outgoing.head.set_method(Method::GET);
    for name in &validate::NOT_FORWARDED {
        outgoing.head.remove_header(name);
    }
    if let Some(base) = base {
        for (name, value) in validate::conditions(base.head()) {
            outgoing
                .head
                .insert_header(name, value)
                .map_err(|_| Failure::BadReply)?;
        }
    }
    Ok(())
}

/// What a reply's head means for the cache.
enum Judged {
    Store(Arc<Head>),
    /// What is stored holds; the reason why it must not be kept, if there is one.
    Renewed(Arc<Head>, Option<NotStored>),
    /// The 304 was about something else.
    AskAgain,
    /// The upstream failed, and what is stored may stand in.
    ServeStored,
    Pass(NotStored),
}

fn judge(
    asked: &http::HeaderMap,
    incoming: &Incoming,
    base: Option<&Stored>,
    policy: &Policy,
    control: &RequestControl,
    times: Times,
) -> Judged {
    let request = cache::Request {
        method: &Method::GET,
        fields: asked,
    };
    let reply = Response {
        status: incoming.head.status,
        fields: &incoming.head.headers,
    };
    if let Some(base) = base {
        if reply.status == StatusCode::NOT_MODIFIED {
            return match validate::freshen(base.head(), request, reply.fields, policy, times) {
                Freshened::Updated(head) => Judged::Renewed(head, None),
                Freshened::Once(head, reason) => Judged::Renewed(head, Some(reason)),
                Freshened::Mismatch => Judged::AskAgain,
            };
        }
        if reuse::is_failure(reply.status)
            && reuse::may_serve_on_error(base.head().freshness(), control, times.received)
        {
            return Judged::ServeStored;
        }
    }
    match storable(request, reply, policy, times) {
        Storable::Store(freshness) => {
            Judged::Store(Arc::new(Head::new(request, reply, freshness, policy)))
        }
        Storable::No(reason) => Judged::Pass(reason),
    }
}

/// Reads a reply into the store, whoever still listens.
async fn pump(cache: Arc<Cache>, key: Key, mut writer: Writer, mut incoming: Incoming) {
    let mut passing = false;
    let mut upload = Upload::Done;
    loop {
        match incoming.next(&mut upload, None).await {
            Ok(Some(piece)) => {
                match writer.push(piece).await {
                    Ok(Growth::Kept) => {}
                    Ok(Growth::Passing) if passing => {}
                    Ok(Growth::Passing) => {
                        // Too large to keep: nobody is to wait for another one of it.
                        passing = true;
                        let now = clock::wall();
                        cache.flights.mark(key.as_key(), now, NOT_SHARED_FOR);
                    }
                    Err(_) => return incoming.abandon().await,
                }
                if incoming.is_done() {
                    break;
                }
            }
            Ok(None) => break,
            Err(failure) => {
                tracing::debug!(failure = failure.as_str(), "fetch for the cache broken off");
                return incoming.abandon().await;
            }
        }
    }
    // Nothing is stored when the length is wrong; the readers are told by the writer.
    let _ = writer.finish(&cache.store);
    incoming.finish().await;
}

/// A refresh without a client.
struct Background {
    cache: Arc<Cache>,
    upstream: Arc<Upstream>,
    worker: usize,
    policy: Policy,
    record: Record,
    table: Arc<crate::observe::Table>,
    asked: http::HeaderMap,
    key: Key,
}

impl Background {
    async fn run(mut self, mut outgoing: Outgoing, base: Arc<Stored>, mut writer: Writer) {
        outgoing.upload = Upload::Done;
        if make_question(&mut outgoing, Some(&base)).is_err() {
            return;
        }
        let sent = clock::wall();
        let opened = upstream::open(
            &self.upstream,
            self.worker,
            &mut outgoing,
            None,
            &mut self.record,
        )
        .await;
        self.record.end(clock::now());
        self.table.finish(&self.record);
        let incoming = match opened {
            Ok(incoming) => incoming,
            Err(failure) => {
                tracing::debug!(upstream = self.upstream.name(), failure = failure.as_str(), "background refresh failed");
                return;
            }
        };
        let times = Times {
            sent,
            received: clock::wall(),
        };
        let control = RequestControl::default();
        match judge(&self.asked, &incoming, Some(&base), &self.policy, &control, times) {
            Judged::Store(head) => {
                writer.head(head);
                pump(self.cache, self.key, writer, incoming).await;
            }
            Judged::Renewed(head, not_kept) => {
                incoming.finish().await;
                if not_kept.is_some() {
                    self.cache.store.remove(self.key.as_key(), &base);
                }
                let renewed = Arc::new(base.with_head(head));
                writer.complete(&self.cache.store, renewed, not_kept.is_none());
            }
            // The stale one stays for as long as it may; the next request tries again.
            Judged::ServeStored | Judged::AskAgain => incoming.abandon().await,
            Judged::Pass(_) => {
                self.cache.store.remove(self.key.as_key(), &base);
                writer.uncacheable(clock::wall(), NOT_SHARED_FOR);
                incoming.abandon().await;
            }
        }
    }
}

/// Segments of a body between two offsets.
pub(super) fn slice(segments: &[Bytes], mut start: u64, end: u64) -> Vec<Bytes> {
    let mut left = end.saturating_sub(start);
    let mut parts = Vec::new();
    for segment in segments {
        let length = segment.len() as u64;
        if left == 0 {
            break;
        }
        if start >= length {
            start -= length;
            continue;
        }
        let taken = (length - start).min(left);
        let from = usize::try_from(start).unwrap_or(0);
        let to = from + usize::try_from(taken).unwrap_or(0);
        parts.push(segment.slice(from..to));
        left -= taken;
        start = 0;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_goes_over_segment_borders() {
        let segments = [Bytes::from("abc"), Bytes::from("def"), Bytes::from("ghi")];
        let text = |start, end| slice(&segments, start, end).concat();
        assert_eq!(text(0, 9), b"abcdefghi");
        assert_eq!(text(2, 4), b"cd");
        assert_eq!(text(3, 6), b"def");
        assert_eq!(text(8, 9), b"i");
        assert_eq!(text(4, 4), b"");
    }
}
