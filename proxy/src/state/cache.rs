//! What the admin server says of the cache: what it holds, and why it would do what with a request.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cache::reuse::{self, Use, Why};
use cache::store::{Lookup, Seen};
use cache::{Fields, Freshness, RequestControl, Stored};
use http::{HeaderMap, Method, Request, header};
use serde_json::{Value, json};

use crate::exchange::caching::{Caching, shown};
use crate::exchange::purging::Url;
use crate::exchange::{Asked, Course, Way, course};
use crate::snapshot::{Action, Route, Snapshot};

/// Objects and tags that are listed.
const MOST: usize = 20;

/// Sizes, the most used objects, the largest tags.
pub(super) fn overview(snapshot: &Snapshot) -> Value {
    let store = &snapshot.cache.store;
    store.maintain();
    let figures = store.figures();
    let (tags, distinct) = store.tags().top(MOST);
    let top: Vec<Value> = store.top(MOST).iter().map(used).collect();
    let tags: Vec<Value> = tags
        .iter()
        .map(|tag| json!({ "tag": tag.name, "objects": tag.objects }))
        .collect();
    json!({
        "memory": {
            "bytes": figures.bytes,
            "limit": snapshot.cache.memory,
            "entries": figures.entries,
            "inserts": figures.inserts,
            "evictions": figures.evictions,
            "too_large": figures.refused,
        },
        "disk": store.disk().map(|disk| {
            let disk = disk.figures();
            json!({
                "bytes": disk.bytes,
                "limit": disk.limit,
                "objects": disk.objects,
                "recovered": disk.recovered,
                "written": disk.written,
                "write_errors": disk.write_errors,
                "not_written": disk.not_written,
                "reads": disk.hits,
                "damaged": disk.damaged,
            })
        }),
        "purged_objects": figures.purges,
        "fetches": snapshot.cache.flights.len(),
        "tags": { "distinct": distinct, "top": tags },
        "top": top,
    })
}

fn used(seen: &Seen) -> Value {
    json!({
        "key": shown(seen.key.as_key()),
        "hits": seen.stored.life().hits(),
        "bytes": seen.stored.len(),
    })
}

/// What is stored for a URL, and what a GET for it with these fields would get at `now`.
pub(super) fn inspect(
    snapshot: &Snapshot,
    url: &Url,
    fields: &HeaderMap,
    now: SystemTime,
) -> Value {
    let Some((way, route)) = find(snapshot, url, fields) else {
        return json!({ "stored": [], "decision": "none", "why": "no route takes this URL" });
    };
    let Action::Upstream {
        upstream,
        cache: Some(caching),
        ..
    } = &route.action
    else {
        let why = "the route does not cache";
        return json!({ "route": route.name, "stored": [], "decision": "none", "why": why });
    };
    let store = &snapshot.cache.store;
    let key = caching.key(url.scheme, &way, upstream.name(), fields);
    let mut stored: Vec<Value> = Vec::new();
    for one in store.variants(key.as_key()) {
        stored.push(described(&one, "memory", now));
    }
    for (one, in_memory) in store.variants_on_disk(key.as_key()) {
        if !in_memory {
            stored.push(described(&one, "disk", now));
        }
    }
    let control = RequestControl::read(fields);
    let view = caching.normal.apply(fields);
    let vary = &caching.policy.vary;
    let found = match store.lookup(key.as_key(), &view, vary) {
        Lookup::Found(found) => Lookup::Found(found),
        other => {
            let place = store.find_on_disk(key.as_key(), &view, vary);
            let read = place.and_then(|place| store.disk()?.read(&place));
            read.map_or(other, Lookup::Found)
        }
    };
    let (decision, why) = decide(&found, &control, caching, fields, now);
    json!({
        "route": route.name,
        "key": shown(key.as_key()),
        "stored": stored,
        "decision": decision,
        "why": why,
        "not_shared": snapshot.cache.flights.is_marked(key.as_key(), now),
    })
}

/// The way of a GET for `url` on a listener of its scheme.
fn find<'s>(snapshot: &'s Snapshot, url: &Url, fields: &HeaderMap) -> Option<(Way, &'s Route)> {
    let tls = url.scheme == "https";
    let target = match &url.query {
        Some(query) => format!("{}?{query}", url.path),
        None => url.path.clone(),
    };
    let mut request = Request::builder()
        .method(Method::GET)
        .uri("/")
        .body(())
        .ok()?;
    *request.headers_mut() = fields.clone();
    let host = url.host.parse().ok()?;
    request.headers_mut().insert(header::HOST, host);
    let (head, ()) = request.into_parts();
    let listeners = || snapshot.config.listeners.iter().enumerate();
    // Behind one that terminates TLS and is trusted, pages of https come in on a plain listener.
    let mut ways = listeners()
        .filter(|(_, listener)| listener.tls == tls)
        .chain(listeners().filter(|(_, listener)| listener.tls != tls))
        .map(|(listener, _)| {
            let asked = Asked {
                head: &head,
                listener,
                tls,
                target: &target,
                h2: None,
                max_fields: usize::MAX,
                begun: None,
                merge_slashes: snapshot.config.server.merge_slashes,
            };
            course(&snapshot.router, &asked)
        });
    ways.find_map(|found| match found {
        Course::Route(way) | Course::Closed(way) | Course::Shed(way) => {
            let route = snapshot.routes.get(way.route)?;
            Some((way, route))
        }
        Course::Malformed(_)
        | Course::NotFound
        | Course::MethodNotAllowed(_)
        | Course::Challenge(_) => None,
    })
}

fn described(stored: &Arc<Stored>, tier: &str, now: SystemTime) -> Value {
    let head = stored.head();
    let freshness = stored.freshness();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let variant: Vec<Value> = head
        .variant()
        .readable()
        .map(|(name, value)| json!({ "header": name.as_str(), "value": value.map(text) }))
        .collect();
    let tags: Vec<String> = stored.life().tags().map(text).collect();
    json!({
        "tier": tier,
        "status": head.status().as_u16(),
        "bytes": stored.len(),
        "age_seconds": freshness.age_seconds(now),
        "lifetime_seconds": freshness.lifetime.as_secs(),
        "lifetime_from": freshness.source.as_str(),
        "fresh_for_seconds": freshness.ttl_seconds(now),
        "stale_while_revalidate_seconds": freshness.stale_while_revalidate.as_secs(),
        "stale_if_error_seconds": freshness.stale_if_error.as_secs(),
        "soft_purged_seconds_ago": stored
            .life()
            .soft_at()
            .and_then(|at| now.duration_since(at).ok())
            .map(|ago| ago.as_secs()),
        "etag": head.etag().map(text),
        "last_modified": head.first(&header::LAST_MODIFIED).map(text),
        "varies_by": variant,
        "tags": tags,
        "hits": stored.life().hits(),
    })
}

/// What would be done, in a word, and why, in a sentence.
fn decide(
    found: &Lookup,
    control: &RequestControl,
    caching: &Caching,
    fields: &HeaderMap,
    now: SystemTime,
) -> (&'static str, String) {
    let stored = match found {
        Lookup::Found(stored) => stored,
        Lookup::UriMiss | Lookup::VaryMiss if control.only_if_cached => {
            return (
                "gateway-timeout",
                "only a stored response is wanted, and there is none".into(),
            );
        }
        Lookup::UriMiss => return ("fetch", unstored("nothing is stored", caching, fields)),
        Lookup::VaryMiss => {
            let why = "what is stored is for requests that say other things to the headers of Vary";
            return ("fetch", unstored(why, caching, fields));
        }
    };
    let freshness = stored.freshness();
    let purged = match stored.life().soft_at() {
        Some(_) => " since it was purged softly",
        None => "",
    };
    let seconds = |time: Duration| time.as_secs();
    match reuse::usable(&freshness, control, now) {
        Use::Fresh => (
            "serve",
            format!(
                "fresh for {} s more (lifetime from {})",
                seconds(freshness.remaining(now)),
                freshness.source.as_str()
            ),
        ),
        Use::StaleWhileRevalidate => (
            "serve",
            format!(
                "stale for {} s{purged}, within stale-while-revalidate of {} s: served while it is fetched anew",
                seconds(freshness.staleness(now)),
                seconds(freshness.stale_while_revalidate)
            ),
        ),
        Use::StaleByRequest => (
            "serve",
            format!(
                "stale for {} s{purged}, and the request takes it so (max-stale)",
                seconds(freshness.staleness(now))
            ),
        ),
        Use::Revalidate(why) => ("validate", validation(why, &freshness, purged, stored, now)),
        Use::GatewayTimeout => (
            "gateway-timeout",
            "only a stored response is wanted, and this one must be validated first".into(),
        ),
    }
}

fn unstored(why: &str, caching: &Caching, fields: &HeaderMap) -> String {
    match caching.policy.is_personal(fields) {
        true => format!("{why}; the reply is not stored, as the request is one visitor's own"),
        false => why.to_owned(),
    }
}

fn validation(
    why: Why,
    freshness: &Freshness,
    purged: &str,
    stored: &Stored,
    now: SystemTime,
) -> String {
    let reason = match why {
        Why::NoCache => "the response says no-cache".to_owned(),
        Why::Request => "the request wants it fresher than it is".to_owned(),
        Why::Stale => format!("stale for {} s{purged}", freshness.staleness(now).as_secs()),
    };
    let how = match cache::validate::is_validatable(stored.head()) {
        true => "the origin is asked whether it still holds",
        false => "it has no ETag or Last-Modified, so the whole is fetched anew",
    };
    format!("{reason}; {how}")
}
