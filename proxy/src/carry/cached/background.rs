//! Work for the store that no client waits for: a reply read to its end after
//! its client left, and the refresh of what is served stale.

use std::sync::Arc;

use cache::flight::Growth;
use cache::storable::NotStored;
use cache::{Key, KeyBuf, Policy, RequestControl, Stored, Times, Writer};
use pingora::protocols::http::ServerSession;

use super::judge::{Judged, judge, make_question, replaces};
use super::{Cached, NOT_SHARED_FOR};
use crate::carry::turn::Turn;
use crate::carry::upstream::{self, Incoming, Outgoing, Upload};
use crate::clock;
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

/// Reads a reply into the store, whoever still listens.
pub(super) async fn pump(cache: Arc<Cache>, key: Key, mut writer: Writer, incoming: Incoming) {
    let Some(incoming) = read(&cache, &key, &mut writer, incoming).await else {
        return;
    };
    // Nothing is stored when the length is wrong; the readers are told by the writer.
    let _ = writer.finish(&cache.store);
    incoming.finish().await;
}

/// Reads a reply to its end; `None` when it has none.
pub(super) async fn read(
    cache: &Cache,
    key: &Key,
    writer: &mut Writer,
    mut incoming: Incoming,
) -> Option<Incoming> {
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

/// A refresh without a client.
struct Background {
    cache: Arc<Cache>,
    upstream: Arc<Upstream>,
    worker: usize,
    policy: Policy,
    record: Record,
    table: Arc<Table>,
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
            &|| true,
            &mut self.record,
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
        match judge(
            &self.asked,
            &head,
            Some(&base),
            &self.policy,
            &control,
            times,
        ) {
            Judged::Store(head) => {
                writer.head(head);
                pump(self.cache, self.key, writer, incoming).await;
            }
            Judged::Renewed(head, not_kept) => {
                incoming.finish().await;
                if not_kept.is_some_and(NotStored::is_of_the_response) {
                    self.cache.store.remove(self.key.as_key(), &base);
                }
                let renewed = Arc::new(base.with_head(head));
                writer.complete(&self.cache.store, renewed, not_kept.is_none());
            }
            // The stale one stays for as long as it may; the next request tries again.
            Judged::ServeStored | Judged::AskAgain => incoming.abandon().await,
            Judged::Pass(reason) => {
                if replaces(reason, head.status) {
                    self.cache.store.remove(self.key.as_key(), &base);
                }
                if reason.is_of_the_response() {
                    writer.uncacheable(clock::wall(), NOT_SHARED_FOR);
                }
                incoming.abandon().await;
            }
        }
    }
}
