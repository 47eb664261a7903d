//! The fetch of a page that is not stored or must be validated: by this request
//! for all who wait, along with another's, or alone.

use std::sync::Arc;

use cache::flight::NoHead;
use cache::range;
use cache::reuse::{self, OnError};
use cache::status::{CacheStatus, Forward};
use cache::storable::NotStored;
use cache::store::Lookup;
use cache::{
    Fields, Join, KeyBuf, Life, Normalised, Reader, RequestControl, Stored, Times, Writer,
};
use http::{HeaderValue, StatusCode, header};
use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;

use super::background::pump;
use super::judge::{Judged, judge, make_question, not_kept, replaces, supersede};
use super::{Cached, compressed, parts, strip_tags};
use crate::carry::failure::{ClientFault, Failure};
use crate::carry::forward;
use crate::carry::stored::{self, Arriving};
use crate::carry::turn::{Broken, Turn};
use crate::carry::upstream::{self, Outgoing};
use crate::clock;
use crate::observe::CacheResult;
use crate::snapshot::Cache;

/// Fetches that fail before one gives up waiting for others and asks for itself.
const MOST_JOINS: u32 = 3;

/// A fetch, or the wait for somebody else's.
pub(super) struct Fetch<'a> {
    pub(super) cached: &'a Cached<'a>,
    pub(super) cache: &'a Arc<Cache>,
    pub(super) key: &'a KeyBuf,
    pub(super) why: Forward,
    pub(super) control: RequestControl,
    /// The request must not be answered with what others asked for.
    pub(super) alone: bool,
    /// Its reply is not for others, who therefore must not wait for it.
    pub(super) personal: bool,
    /// The page was not asked for often enough to be stored.
    pub(super) unused: bool,
    /// It asks for a part. The whole is fetched for it, unless that is too much.
    pub(super) wants_part: bool,
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
    pub(super) async fn run(
        &self,
        turn: &mut Turn,
        session: &mut ServerSession,
        base: Option<Arc<Stored>>,
    ) -> Result<(), Broken> {
        if turn.begun.is_some() {
            // The lane has asked, for this client alone.
            let writer = self.writer(session);
            return self.lead(turn, session, base, writer).await;
        }
        let began = clock::now();
        let patience = self.cached.upstream.settings().first_byte_timeout;
        for _ in 0..MOST_JOINS {
            let writer = match self.join(session) {
                Join::Found(found) => {
                    turn.record.cache = CacheResult::Hit;
                    let status = CacheStatus {
                        hit: true,
                        ..self.cached.status()
                    };
                    return self.answer(turn, session, &found, status).await;
                }
                Join::Follow(reader) => {
                    match self.follow(turn, session, reader, base.as_ref()).await {
                        Step::Done(done) => return done,
                        // Others' fetches took as long as an upstream may: one more wait would not help.
                        Step::Again if clock::now() - began >= patience => {
                            let writer = self.writer(session);
                            let failure = Failure::FirstByteTimeout;
                            return self.failed(turn, session, base, writer, failure).await;
                        }
                        Step::Again => continue,
                        Step::Alone => self.writer(session),
                    }
                }
                Join::Lead(writer) | Join::Alone(writer) => writer,
            };
            if self.wants_part && base.is_none() && parts::pass_at_once(self.cache, self.key) {
                // Somebody has found out meanwhile.
                drop(writer);
                let keep = !self.unused;
                return parts::pass(turn, session, self.cached, self.key, keep).await;
            }
            return self.lead(turn, session, base, writer).await;
        }
        let writer = self.writer(session);
        self.lead(turn, session, base, writer).await
    }

    /// The request's fields as variants and the origin see them.
    fn view<'s>(&'s self, session: &'s ServerSession) -> Normalised<'s> {
        let fields = &session.req_header().headers;
        self.cached.caching.normal.apply(fields)
    }

    /// A fetch that nobody joins.
    fn writer(&self, session: &ServerSession) -> Writer {
        let policy = self.cached.policy();
        let key = self.key.as_key();
        let fields = self.view(session);
        let hint = self.cache.store.hint(key, &fields, &policy.vary);
        self.cache.flights.alone(key, &hint, policy.max_object_size)
    }

    fn join(&self, session: &ServerSession) -> Join {
        if self.alone {
            return Join::Alone(self.writer(session));
        }
        let fields = self.view(session);
        let policy = self.cached.policy();
        let now = clock::wall();
        let hint = self
            .cache
            .store
            .hint(self.key.as_key(), &fields, &policy.vary);
        if self.personal {
            let reader = self.cache.flights.follow(self.key.as_key(), &hint);
            return reader.map_or_else(|| Join::Alone(self.writer(session)), Join::Follow);
        }
        self.cache.flights.join(
            self.key.as_key(),
            &hint,
            policy.max_object_size,
            now,
            || {
                let Lookup::Found(found) =
                    self.cache
                        .store
                        .lookup(self.key.as_key(), &fields, &policy.vary)
                else {
                    return None;
                };
                reuse::usable(&found.freshness(), &self.control, now)
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
        base: Option<&Arc<Stored>>,
    ) -> Step {
        turn.hint(session, self.cached.route, self.cached.way).await;
        let patience = self.cached.caching.collapse_timeout;
        let head = tokio::select! {
            biased;
            head = reader.head() => head,
            // Whoever fetches it takes too long: the others are not to wait with them.
            () = tokio::time::sleep(patience) => return Step::Alone,
            _ = session.read_body_or_idle(true) => {
                let gone = Failure::Client(ClientFault::Gone);
                return Step::Done(turn.fail(session, Some(self.cached.route), gone).await);
            }
        };
        match head {
            Err(NoHead::Released) => Step::Alone,
            Err(NoHead::Failed) => Step::Again,
            Ok(head) if !head.variant().matches(&self.view(session)) => Step::Again,
            // Who was waited for had no reply either, and made do with what is stored.
            Ok(head) if base.is_some_and(|base| Arc::ptr_eq(base.head(), &head)) => {
                match base.filter(|base| self.on_error(base) == OnError::ServeStored) {
                    Some(base) => Step::Done(self.stand_in(turn, session, base).await),
                    None => Step::Alone,
                }
            }
            Ok(head)
                if !reuse::usable(&head.freshness(), &self.control, clock::wall()).is_hit() =>
            {
                Step::Alone
            }
            Ok(head) => {
                turn.record.cache = CacheResult::Collapsed;
                let status = CacheStatus {
                    fwd: Some(self.why),
                    collapsed: true,
                    ..self.cached.status()
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
            turn.hint(session, self.cached.route, self.cached.way).await;
            let begun = turn.begun.take();
            let sent = match &begun {
                Some(_) => turn.record.wall,
                None => clock::wall(),
            };
            let worker = turn.carrier.worker();
            let upstream = self.cached.upstream;
            let opened = upstream::open(
                upstream,
                worker,
                &mut outgoing,
                Some(session),
                &|| writer.has_readers(),
                &mut turn.record,
                begun,
            )
            .await;
            let (incoming, mut reply) = match opened {
                Ok(opened) => opened,
                Err(failure @ Failure::Client(_)) => {
                    return turn.fail(session, Some(self.cached.route), failure).await;
                }
                Err(failure) => {
                    return self.failed(turn, session, base, writer, failure).await;
                }
            };
            turn.learn(session, self.cached.route, self.cached.way, &reply);
            let times = Times {
                sent,
                received: clock::wall(),
            };
            let judged = {
                let asked = self.view(session);
                let (base, caching) = (base.as_deref(), self.cached.caching);
                judge(&asked, &reply, base, caching, &self.control, times)
            };
            strip_tags(&mut reply, self.cached.policy());
            if self.wants_part && is_too_much(&judged, reply.status) {
                incoming.abandon().await;
                self.give_up(base, writer, &judged, reply.status);
                let keep = !self.unused;
                return parts::pass(turn, session, self.cached, self.key, keep).await;
            }
            match judged {
                Judged::Store(head, tags) => {
                    supersede(self.cache, self.key.as_key(), base.as_ref(), &head);
                    let status = CacheStatus {
                        fwd: Some(self.why),
                        stored: !self.unused,
                        detail: self.unused.then_some(NotStored::MinUses.as_str()),
                        ..self.cached.status()
                    };
                    if self.unused {
                        self.cache.counts.not_stored(NotStored::MinUses);
                        writer.keep_not();
                    }
                    let now = clock::wall();
                    if !reuse::is_shareable(&head.freshness(), now) {
                        writer.release(now, self.cached.caching.hit_for_miss);
                    }
                    let life = self.life(&tags, &writer);
                    writer.head(head.clone(), life);
                    let reader = writer.reader();
                    if negotiates(&*head) && !negotiates(&reply.headers) {
                        let name = HeaderValue::from_name(header::ACCEPT_ENCODING);
                        reply.append_header(header::VARY, name)?;
                    }
                    // Fields that are for this client alone are in the upstream's head only.
                    let key = self.key.as_key().to_key();
                    let caching = self.cached.caching.clone();
                    let cache = self.cache.clone();
                    tokio::spawn(pump(cache, key, caching, writer, incoming));
                    let route = self.cached.route;
                    let object = Arriving {
                        head: &head,
                        own: Some(reply),
                        reader,
                    };
                    return stored::stream(turn, session, route, object, status).await;
                }
                Judged::Renewed(head, tags, kept) => {
                    let Some(old) = base else {
                        return Err(Broken);
                    };
                    incoming.finish().await;
                    let tags = tags.unwrap_or_else(|| old.life().tags().map(Into::into).collect());
                    let renewed = Arc::new(old.renewed(head, self.life(&tags, &writer)));
                    if let Some(reason) = kept {
                        self.cache.counts.not_stored(reason);
                    }
                    self.renew(&old, &renewed, kept, writer);
                    turn.record.cache = CacheResult::Revalidated;
                    let status = CacheStatus {
                        fwd: Some(self.why),
                        fwd_status: Some(304),
                        stored: kept.is_none(),
                        detail: kept.map(NotStored::as_str),
                        ..self.cached.status()
                    };
                    return self.answer(turn, session, &renewed, status).await;
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
                    not_kept(self.cache, self.key, reason);
                    if let Some(old) = &base
                        && replaces(reason, reply.status)
                    {
                        self.cache.store.remove(self.key.as_key(), old);
                    }
                    if reason.is_of_the_response() {
                        writer.uncacheable(clock::wall(), self.cached.caching.hit_for_miss);
                    } else {
                        // This request's own doing: those who wait fetch together without it.
                        drop(writer);
                    }
                    let status = CacheStatus {
                        fwd: Some(self.why),
                        detail: Some(reason.as_str()),
                        ..self.cached.status()
                    };
                    let route = self.cached.route;
                    let opened = (incoming, reply);
                    return forward::relay(turn, session, route, opened, &mut outgoing, |head| {
                        stored::mark(head, &status);
                    })
                    .await;
                }
            }
        }
    }

    /// What the object is bound to that `writer` takes in.
    fn life(&self, tags: &[Box<[u8]>], writer: &Writer) -> Arc<Life> {
        let several = self.cached.caching.has_several_keys();
        self.cache
            .store
            .life(self.key.as_key(), tags, writer.since(), several)
    }

    /// The whole is not for the store: nobody who wants a part is to fetch it for a while.
    fn give_up(
        &self,
        base: Option<Arc<Stored>>,
        writer: Writer,
        judged: &Judged,
        status: StatusCode,
    ) {
        let reason = match judged {
            Judged::Pass(reason) => Some(*reason),
            _ => None,
        };
        if let (Some(old), Some(reason)) = (base, reason)
            && replaces(reason, status)
        {
            self.cache.store.remove(self.key.as_key(), &old);
        }
        let of_the_response = reason.is_none_or(NotStored::is_of_the_response);
        let lifetime = if of_the_response {
            parts::PASS_FOR
        } else {
            self.cached.caching.hit_for_miss
        };
        parts::let_pass(self.cache, self.key, lifetime);
        if reason.is_some_and(NotStored::is_of_the_response) {
            writer.uncacheable(clock::wall(), self.cached.caching.hit_for_miss);
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
        let asked = &session.req_header().headers;
        make_question(&mut outgoing, asked, cached.caching, base)?;
        Ok(outgoing)
    }

    fn renew(
        &self,
        old: &Arc<Stored>,
        renewed: &Arc<Stored>,
        not_kept: Option<NotStored>,
        writer: Writer,
    ) {
        match not_kept {
            None => {
                writer.complete(&self.cache.store, renewed.clone(), true);
            }
            // What it says is for this client alone.
            Some(reason) if reason.is_of_the_response() => {
                self.cache.store.remove(self.key.as_key(), old);
                writer.uncacheable(clock::wall(), self.cached.caching.hit_for_miss);
            }
            // This request's own doing: those who wait fetch together without it.
            Some(_) => drop(writer),
        }
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
        let verdict = base.as_ref().map(|stored| self.on_error(stored));
        let mark = |head: &mut ResponseHeader| {
            let status = CacheStatus {
                fwd: Some(self.why),
                detail: Some(failure.as_str()),
                ..self.cached.status()
            };
            stored::mark(head, &status);
        };
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
                let route = Some(self.cached.route);
                turn.error(session, route, status, explanation, mark).await
            }
            Some(OnError::PassOn) | None => {
                drop(writer);
                let route = Some(self.cached.route);
                turn.fail_with(session, route, failure, mark).await
            }
        }
    }

    /// What is stored, where no reply came.
    fn on_error(&self, stored: &Stored) -> OnError {
        let offline = self.cached.caching.offline;
        reuse::on_error(&stored.freshness(), &self.control, clock::wall(), offline)
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
        self.stand_in(turn, session, &stored).await
    }

    /// Answers with what is stored though it is stale.
    async fn stand_in(
        &self,
        turn: &mut Turn,
        session: &mut ServerSession,
        stored: &Arc<Stored>,
    ) -> Result<(), Broken> {
        turn.record.cache = CacheResult::Stale;
        let status = CacheStatus {
            hit: true,
            detail: Some("stale-if-error"),
            ..self.cached.status()
        };
        self.answer(turn, session, stored, status).await
    }

    /// Answers with what is stored, in the coding that the client wants.
    async fn answer(
        &self,
        turn: &mut Turn,
        session: &mut ServerSession,
        stored: &Arc<Stored>,
        status: CacheStatus<'_>,
    ) -> Result<(), Broken> {
        let coded = compressed(session, self.cached, self.cache, self.key, stored);
        let stored = coded.as_ref().unwrap_or(stored);
        stored::answer(turn, session, self.cached.route, stored, status).await
    }
}

/// Whether a reply says that it depends on Accept-Encoding.
fn negotiates(fields: &dyn Fields) -> bool {
    let mut names = false;
    cache::fields::each_member(fields, &header::VARY, &mut |name| {
        names |= name.eq_ignore_ascii_case(b"accept-encoding");
    });
    names
}

fn is_too_much(judged: &Judged, status: StatusCode) -> bool {
    match judged {
        Judged::Store(head, _) => range::wants_own_fetch(Some(head), status),
        Judged::Pass(_) => range::wants_own_fetch(None, status),
        Judged::Renewed(..) | Judged::AskAgain | Judged::ServeStored => false,
    }
}
