//! Work for the store that no client waits for: a reply read to its end after
//! its client left, and the refresh of what is served stale.

use std::sync::Arc;

use cache::flight::Growth;
use cache::storable::NotStored;
use cache::{Coding, Key, KeyBuf, Life, RequestControl, Stored, Times, Writer, coding};
use pingora::protocols::http::ServerSession;
use tokio::time::timeout;

use super::Cached;
use super::judge::{Judged, judge, make_question, replaces, supersede};
use crate::carry::turn::Turn;
use crate::carry::upstream::{self, Incoming, Outgoing, Upload};
use crate::clock;
use crate::exchange::caching::Caching;
use crate::observe::{Record, Table};
use crate::snapshot::Cache;
use crate::upstreams::Upstream;

/// Fetches in the background what is served stale now, unless that is under way.
pub(super) async fn refresh(
    turn: &mut Turn,
    session: &mut ServerSession,
    cached: &Cached<'_>,
    cache: &Arc<Cache>,
    key: &KeyBuf,
    found: &Arc<Stored>,
) {
    let policy = cached.policy();
    let writer = {
        let fields = cached.caching.normal.apply(&session.req_header().headers);
        let key = key.as_key();
        let hint = cache.store.hint(key, &fields, &policy.vary);
        let is_current = || cache.store.is_current(key, &fields, &policy.vary, found);
        let most = policy.max_object_size;
        cache.flights.refresh(key, &hint, most, is_current)
    };
    let Some(writer) = writer else {
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
        caching: cached.caching.clone(),
        record: turn.background_record(cached.place),
        table: turn.snapshot.table.clone(),
        asked: session.req_header().headers.clone(),
        key: key.as_key().to_key(),
    };
    tokio::spawn(task.run(outgoing, found.clone(), writer));
}

/// Reads a reply into the store, whoever still listens.
pub(super) async fn pump(
    cache: Arc<Cache>,
    key: Key,
    caching: Arc<Caching>,
    mut writer: Writer,
    incoming: Incoming,
) {
    let Some(incoming) = read(&cache, &key, &caching, &mut writer, incoming).await else {
        return;
    };
    // Nothing is stored when the length is wrong; the readers are told by the writer.
    let _ = writer.finish(&cache.store);
    incoming.finish().await;
}

/// Reads a reply to its end; `None` when it has none, or none in time while nobody reads it.
pub(super) async fn read(
    cache: &Cache,
    key: &Key,
    caching: &Caching,
    writer: &mut Writer,
    mut incoming: Incoming,
) -> Option<Incoming> {
    let mut passing = false;
    let mut upload = Upload::Done;
    let mut unread_since = None;
    loop {
        let piece = match writer.has_readers() {
            true => {
                unread_since = None;
                incoming.next(&mut upload, None).await
            }
            false => {
                let now = clock::now();
                let most = *unread_since.get_or_insert(now) + caching.background_timeout;
                let left = most.saturating_duration_since(now);
                // A wait that is given up takes nothing from the reply.
                match timeout(left, incoming.next(&mut upload, None)).await {
                    Ok(piece) => piece,
                    Err(_) if writer.give_up_unread() => {
                        tracing::debug!(
                            "fetch for the cache given up: nobody reads it, and it takes too long"
                        );
                        break;
                    }
                    Err(_) => continue,
                }
            }
        };
        match piece {
            Ok(Some(piece)) => {
                match writer.push(piece).await {
                    Ok(Growth::Kept) => {}
                    Ok(Growth::Passing) if passing => {}
                    Ok(Growth::Passing) => {
                        // Too large to keep: nobody is to wait for another one of it.
                        passing = true;
                        cache.counts.not_stored(NotStored::TooLarge);
                        let now = clock::wall();
                        cache.flights.mark(key.as_key(), now, caching.hit_for_miss);
                    }
                    Err(_) => break,
                }
                if incoming.is_done() {
                    return Some(incoming);
                }
            }
            Ok(None) => return Some(incoming),
            Err(failure) => {
                tracing::debug!(failure = failure.as_str(), "fetch for the cache broken off");
                break;
            }
        }
    }
    incoming.abandon().await;
    None
}

/// Compresses what is stored, on a thread that may be busy for milliseconds; two at a time.
pub(super) fn compress(cache: Arc<Cache>, key: Key, stored: Arc<Stored>, coding: Coding) {
    tokio::spawn(async move {
        // It is never closed.
        let Ok(_turn) = cache.compressing.acquire().await else {
            return;
        };
        let source = stored.segments().clone();
        let work = tokio::task::spawn_blocking(move || coding::compress(coding, &source));
        let body = work.await.unwrap_or_default();
        stored.set_coded(coding, body.map(Into::into));
        cache.store.weigh(key.as_key(), &stored);
    });
}

/// A refresh without a client.
struct Background {
    cache: Arc<Cache>,
    upstream: Arc<Upstream>,
    worker: usize,
    caching: Arc<Caching>,
    record: Record,
    table: Arc<Table>,
    asked: http::HeaderMap,
    key: Key,
}

impl Background {
    fn life(&self, tags: &[Box<[u8]>], writer: &Writer) -> Arc<Life> {
        let several = self.caching.has_several_keys();
        self.cache
            .store
            .life(self.key.as_key(), tags, writer.since(), several)
    }

    async fn run(mut self, mut outgoing: Outgoing, base: Arc<Stored>, mut writer: Writer) {
        outgoing.upload = Upload::Done;
        let question = make_question(&mut outgoing, &self.asked, &self.caching, Some(&base));
        if question.is_err() {
            return;
        }
        let sent = clock::wall();
        let opened = upstream::open(
            &self.upstream,
            self.worker,
            &mut outgoing,
            None,
            &|| true,
            &mut self.record,
            None,
        )
        .await;
        self.record.end(clock::now());
        self.table.finish(&self.record);
        let (incoming, head) = match opened {
            Ok(opened) => opened,
            Err(failure) => {
                tracing::debug!(
                    upstream = self.upstream.name(),
                    failure = failure.as_str(),
                    "background refresh failed"
                );
                return;
            }
        };
        let times = Times {
            sent,
            received: clock::wall(),
        };
        let control = RequestControl::default();
        let judged = {
            let asked = self.caching.normal.apply(&self.asked);
            judge(&asked, &head, Some(&base), &self.caching, &control, times)
        };
        match judged {
            Judged::Store(head, tags) => {
                supersede(&self.cache, self.key.as_key(), Some(&base), &head);
                let life = self.life(&tags, &writer);
                writer.head(head, life);
                pump(self.cache, self.key, self.caching, writer, incoming).await;
            }
            Judged::Renewed(head, tags, not_kept) => {
                incoming.finish().await;
                if let Some(reason) = not_kept {
                    self.cache.counts.not_stored(reason);
                }
                match not_kept {
                    None => {
                        let tags =
                            tags.unwrap_or_else(|| base.life().tags().map(Into::into).collect());
                        let renewed = Arc::new(base.renewed(head, self.life(&tags, &writer)));
                        writer.complete(&self.cache.store, renewed, true);
                    }
                    Some(reason) if reason.is_of_the_response() => {
                        self.cache.store.remove(self.key.as_key(), &base);
                        writer.uncacheable(clock::wall(), self.caching.hit_for_miss);
                    }
                    Some(_) => drop(writer),
                }
            }
            // The stale one stays for as long as it may; the next request tries again.
            Judged::ServeStored | Judged::AskAgain => incoming.abandon().await,
            Judged::Pass(reason) => {
                self.cache.counts.not_stored(reason);
                if replaces(reason, head.status) {
                    self.cache.store.remove(self.key.as_key(), &base);
                }
                if reason.is_of_the_response() {
                    writer.uncacheable(clock::wall(), self.caching.hit_for_miss);
                }
                incoming.abandon().await;
            }
        }
    }
}
