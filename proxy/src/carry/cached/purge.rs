//! Purges: what an operator, an application's PURGE or an unsafe request takes out of the store.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use cache::tags::{self, Mode};
use cache::{Key, invalidate};
use http::Method;

use crate::exchange::Way;
use crate::exchange::normalise::normalise_path;
use crate::exchange::purging::{Target, Url};
use crate::snapshot::{Action, Cache, Snapshot};

/// Between two times that the store is tidied.
const TIDY: Duration = Duration::from_secs(5);

/// Purges. Returns how many objects were stored, each variant counted.
///
/// A prefix is looked for among all keys, and what a purge by tag, host or of everything took away is
/// swept out: work for a thread that may block.
pub(crate) fn purge(snapshot: &Snapshot, target: &Target, mode: Mode) -> u64 {
    let Cache { store, flights, .. } = &*snapshot.cache;
    let by_tag = |name: &[u8]| {
        let objects = flights.purge_tag(store, name, mode);
        if mode == Mode::Hard {
            store.sweep(flights.oldest());
        }
        objects
    };
    match target {
        Target::Url(url) => keys_of(snapshot, url)
            .iter()
            .map(|key| purge_key(&snapshot.cache, key, mode))
            .sum(),
        Target::Tag(name) => by_tag(name.as_bytes()),
        Target::Host(host) => by_tag(&tags::of_host(host.as_bytes())),
        Target::All => by_tag(tags::ALL),
        Target::Prefix { host, path } => {
            flights.purge_prefix(store, host.as_bytes(), path.as_bytes(), mode)
        }
    }
}

/// Every few seconds forgets the tags of what is no longer stored, and sweeps out what purges took
/// away and nobody swept.
pub(crate) async fn tidy_now_and_then(snapshot: Arc<ArcSwap<Snapshot>>) {
    let mut every = tokio::time::interval(TIDY);
    loop {
        every.tick().await;
        let cache = snapshot.load().cache.clone();
        let work = move || cache.store.tidy(cache.flights.oldest());
        // Awaited, so that there are never two. A panic has been logged, and the next one may go well.
        let _ = tokio::task::spawn_blocking(work).await;
    }
}

/// How many objects [`purge`] would find.
pub(crate) fn count(snapshot: &Snapshot, target: &Target) -> u64 {
    let store = &snapshot.cache.store;
    match target {
        Target::Url(url) => keys_of(snapshot, url)
            .iter()
            .map(|key| match key {
                // With the part of it that may be stored, which a purge takes too.
                UrlKey::One(key) => store.count(key.as_key()),
                UrlKey::Several(tag) => store.tags().count(tag),
            })
            .sum(),
        Target::Tag(name) => store.tags().count(name.as_bytes()),
        Target::Host(host) => store.tags().count(&tags::of_host(host.as_bytes())),
        Target::All => store.tags().count(tags::ALL),
        Target::Prefix { host, path } => store.count_prefix(host.as_bytes(), path.as_bytes()),
    }
}

/// How the objects of a URL are found on one route.
#[derive(Debug, PartialEq, Eq)]
enum UrlKey {
    One(Key),
    /// There are several keys, which share this tag.
    Several(Vec<u8>),
}

/// On every route that caches: which of them took the page is not asked.
fn keys_of(snapshot: &Snapshot, url: &Url) -> Vec<UrlKey> {
    let merge = snapshot.config.server.merge_slashes;
    let Ok(path) = normalise_path(&url.path, merge) else {
        return Vec::new();
    };
    let mut keys = Vec::new();
    for route in &snapshot.routes {
        let Action::Upstream {
            upstream,
            cache: Some(caching),
            ..
        } = &route.action
        else {
            continue;
        };
        let query = url.query.as_deref();
        let key = caching.key_of(url.scheme, &url.host, &path, query, upstream.name());
        let key = match caching.has_several_keys() {
            true => UrlKey::Several(tags::of_url(key.as_key().url())),
            false => UrlKey::One(key.as_key().to_key()),
        };
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys
}

fn purge_key(cache: &Cache, key: &UrlKey, mode: Mode) -> u64 {
    match key {
        UrlKey::One(key) => cache.flights.purge(&cache.store, key.as_key(), mode),
        UrlKey::Several(tag) => cache.flights.purge_tag(&cache.store, tag, mode),
    }
}

/// Takes out what an unsafe request made untrue: its own URI, and those of Location and
/// Content-Location on the same host (RFC 9111 section 4.4).
pub(crate) fn after_unsafe(
    snapshot: &Arc<Snapshot>,
    scheme: &'static str,
    way: &Way,
    method: &Method,
    reply: &pingora::http::ResponseHeader,
) {
    let (path, query) = way.as_asked();
    let origin = invalidate::Origin {
        scheme,
        host: &way.authority,
        path,
        query,
    };
    for target in invalidate::targets(method, origin, reply.status, &reply.headers) {
        let url = Url {
            scheme,
            host: way.authority.clone(),
            path: target.path,
            query: target.query,
        };
        for key in keys_of(snapshot, &url) {
            purge_key(&snapshot.cache, &key, Mode::Hard);
        }
    }
}
