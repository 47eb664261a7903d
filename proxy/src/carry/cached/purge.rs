//! Purges: what an operator, an application's PURGE or an unsafe request takes out of the store.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use cache::tags::{self, Mode};
use cache::{Fields, Key, KeyRef, Life, invalidate};
use http::{Method, StatusCode};

use crate::carry::Held;
use crate::exchange::Way;
use crate::exchange::normalise::normalise_path;
use crate::exchange::purging::{Purge, Target, Url};
use crate::snapshot::{Action, Cache, Snapshot};

/// Between two times that the store is tidied.
const TIDY: Duration = Duration::from_secs(5);

/// Carries out a purge, or counts what it would find. Returns the number of objects, each once, however
/// many of the targets name it.
///
/// A prefix is looked for among all keys, what several targets have in common too, and what a hard
/// purge took away is swept out: work for a thread that may block.
pub(crate) fn carry_out(snapshot: &Snapshot, purge: &Purge, now: SystemTime) -> u64 {
    let Cache { store, flights, .. } = &*snapshot.cache;
    if purge.dry_run {
        return count(snapshot, &purge.targets);
    }
    if purge.soft {
        // What is stale by one target is still there for the next.
        let objects = count(snapshot, &purge.targets);
        for target in &purge.targets {
            purge_one(snapshot, target, Mode::Soft(now));
        }
        return objects;
    }
    let purged = purge.targets.iter();
    let objects = purged
        .map(|target| purge_one(snapshot, target, Mode::Hard))
        .sum();
    if objects > 0 {
        store.sweep(flights.oldest());
    }
    objects
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

fn purge_one(snapshot: &Snapshot, target: &Target, mode: Mode) -> u64 {
    let Cache { store, flights, .. } = &*snapshot.cache;
    match target {
        Target::Url(url) => keys_of(snapshot, url)
            .iter()
            .map(|key| purge_key(&snapshot.cache, key, mode))
            .sum(),
        Target::Tag(name) => flights.purge_tag(store, name, mode),
        Target::Host(host) => flights.purge_tag(store, &tags::of_host(host.as_bytes()), mode),
        Target::All => flights.purge_tag(store, tags::ALL, mode),
        Target::Prefix { host, path } => {
            flights.purge_prefix(store, host.as_bytes(), path.as_bytes(), mode)
        }
    }
}

/// How many objects a purge of these would find.
fn count(snapshot: &Snapshot, targets: &[Target]) -> u64 {
    let store = &snapshot.cache.store;
    match targets {
        [Target::Tag(name)] => store.tags().count(name),
        [Target::Host(host)] => store.tags().count(&tags::of_host(host.as_bytes())),
        [Target::All] => store.tags().count(tags::ALL),
        [Target::Prefix { host, path }] => store.count_prefix(host.as_bytes(), path.as_bytes()),
        several => {
            let wanted: Vec<Wanted> = several
                .iter()
                .flat_map(|target| Wanted::of(snapshot, target))
                .collect();
            store.count_where(&|key, life| wanted.iter().any(|one| one.takes(key, life)))
        }
    }
}

/// What tells whether an object is one of a target.
enum Wanted {
    Key(Key),
    Tag(Vec<u8>),
    Below(String, String),
}

impl Wanted {
    fn of(snapshot: &Snapshot, target: &Target) -> Vec<Self> {
        match target {
            Target::Url(url) => keys_of(snapshot, url)
                .into_iter()
                .flat_map(|key| match key {
                    UrlKey::One(key) => vec![Self::Key(key.as_key().of_part()), Self::Key(key)],
                    UrlKey::Several(url) => vec![Self::Tag(tags::of_url(&url))],
                })
                .collect(),
            Target::Tag(name) => vec![Self::Tag(name.to_vec())],
            Target::Host(host) => vec![Self::Tag(tags::of_host(host.as_bytes()))],
            Target::All => vec![Self::Tag(tags::ALL.to_vec())],
            Target::Prefix { host, path } => vec![Self::Below(host.clone(), path.clone())],
        }
    }

    fn takes(&self, key: KeyRef<'_>, life: &Life) -> bool {
        match self {
            Self::Key(one) => one.as_key() == key,
            Self::Tag(tag) => life.names().any(|name| name == tag),
            Self::Below(host, path) => key.parts().is_some_and(|parts| {
                parts.host == host.as_bytes() && parts.path.starts_with(path.as_bytes())
            }),
        }
    }
}

/// How the objects of a URL are found on one route.
#[derive(Debug, PartialEq, Eq)]
enum UrlKey {
    One(Key),
    /// There are several keys, which begin with these bytes.
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
            true => UrlKey::Several(key.as_key().url().to_vec()),
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
        UrlKey::Several(url) => cache.flights.purge_url(&cache.store, url, mode),
    }
}

/// A request that may change something, by what it makes untrue: its own URI, and those of Location
/// and Content-Location on the same host (RFC 9111 section 4.4).
pub(crate) struct Change {
    method: Method,
    scheme: &'static str,
    authority: String,
    path: String,
    query: Option<String>,
}

impl Change {
    pub(crate) fn new(method: &Method, scheme: &'static str, way: &Way) -> Self {
        let (path, query) = way.as_asked();
        Self {
            method: method.clone(),
            scheme,
            authority: way.authority.clone(),
            path: path.to_owned(),
            query: query.map(str::to_owned),
        }
    }

    /// What is outdated after this reply.
    pub(crate) fn outdated(&self, status: StatusCode, reply: &dyn Fields) -> Vec<Url> {
        let origin = invalidate::Origin {
            scheme: self.scheme,
            host: &self.authority,
            path: &self.path,
            query: self.query.as_deref(),
        };
        invalidate::targets(&self.method, origin, status, reply)
            .into_iter()
            .map(|target| Url {
                scheme: self.scheme,
                host: self.authority.clone(),
                path: target.path,
                query: target.query,
            })
            .collect()
    }
}

/// Takes out what is [outdated](Change::outdated). What that does to a disk tier is written there
/// before this returns, by a thread that may block.
pub(crate) async fn take_out(snapshot: &Arc<Held>, urls: Vec<Url>) {
    if urls.is_empty() {
        return;
    }
    let snapshot = snapshot.clone();
    let on_disk = snapshot.cache.store.disk().is_some();
    let work = move || {
        for key in urls.iter().flat_map(|url| keys_of(&snapshot, url)) {
            purge_key(&snapshot.cache, &key, Mode::Hard);
        }
    };
    if on_disk {
        // A panic has been logged.
        let _ = tokio::task::spawn_blocking(work).await;
    } else {
        work();
    }
}
