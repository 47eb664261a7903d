//! What the pure decisions of a request cost: `cargo bench --bench decisions`.
//!
//! They run on every request, so they are measured apart from sockets and
//! kernel, where a change of a few nanoseconds can still be seen. The load
//! benchmark (`benches/README.md`) says what becomes of them in a whole server.

use std::hint::black_box;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use balancer::{Balance, EndpointSettings, Outcome, PickContext, Pool, PoolSettings};
use bytes::Bytes;
use cache::store::Lookup;
use cache::{
    Head, KeyBuf, Policy, Request, RequestControl, Response, Storable, Store, Stored, Times, reuse,
};
use criterion::{Criterion, criterion_main};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use static_server::{Site, SiteSettings};

#[expect(
    clippy::disallowed_methods,
    reason = "a benchmark begins at some instant"
)]
fn now() -> Instant {
    Instant::now()
}

fn pool(balance: Balance, endpoints: u8) -> Pool {
    let endpoints = (1..=endpoints)
        .map(|n| EndpointSettings {
            address: ([10, 0, 0, n], 8080).into(),
            name: format!("10.0.0.{n}:8080"),
            weight: NonZeroU32::MIN,
            backup: false,
        })
        .collect();
    let settings = PoolSettings {
        endpoints,
        balance,
        active_checks: None,
        outlier: None,
    };
    Pool::new(settings, None, now())
}

fn balancing(c: &mut Criterion) {
    for balance in [
        Balance::RoundRobin,
        Balance::Random,
        Balance::LeastRequest,
        Balance::Hash,
    ] {
        let pool = pool(balance, 10);
        let now = now();
        let mut random = 1_u64;
        c.bench_function(&format!("balancer/{}/10", balance.as_str()), |b| {
            b.iter(|| {
                random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                let context = PickContext {
                    hash: Some(random),
                    tried: &[],
                };
                let picked = pool.pick(&context, now, random);
                if let Ok(endpoint) = picked {
                    let active = pool.start(endpoint);
                    pool.record(endpoint, Outcome::Success, now);
                    drop(active);
                }
                black_box(picked.is_ok())
            });
        });
    }
}

fn caching(c: &mut Criterion) {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let store = Store::new(64 << 20);
    let asked = HeaderMap::new();
    let request = Request {
        method: &Method::GET,
        fields: &asked,
    };
    let mut fields = HeaderMap::new();
    fields.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("max-age=3600"),
    );
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html"));
    let response = Response {
        status: StatusCode::OK,
        fields: &fields,
    };
    let times = Times {
        sent: now,
        received: now,
    };
    let policy = Policy::default();
    let Storable::Store(freshness) = cache::storable::storable(request, response, &policy, times)
    else {
        return;
    };
    let head = Arc::new(Head::new(request, response, freshness, &policy));
    let mut key = KeyBuf::new();
    key.fill("https", "shop.example", "/catalog/1", Some("page=2"));
    let stored = Stored::new(head, vec![Bytes::from(vec![b'x'; 1024])], Arc::default());
    store.insert(key.as_key(), Arc::new(stored));
    c.bench_function("cache/hit", |b| {
        b.iter(|| {
            let mut key = KeyBuf::new();
            key.fill("https", "shop.example", "/catalog/1", Some("page=2"));
            let Lookup::Found(found) = store.lookup(key.as_key(), &asked, &[]) else {
                return false;
            };
            let control = RequestControl::read(&asked);
            reuse::usable(&found.head().freshness(), &control, now).is_hit()
        });
    });
}

fn files(c: &mut Criterion) {
    let Ok(folder) = tempfile::tempdir() else {
        return;
    };
    if std::fs::write(folder.path().join("a.css"), vec![b'a'; 1024]).is_err() {
        return;
    }
    let Ok(site) = Site::new(SiteSettings::new(folder.path())) else {
        return;
    };
    let fields = HeaderMap::new();
    let now = now();
    c.bench_function("static/in-memory", |b| {
        b.iter(|| {
            let request = static_server::Request {
                method: &Method::GET,
                path: "/a.css",
                fields: &fields,
            };
            black_box(site.answer(&request, now).status)
        });
    });
}

/// What the macro makes is public; in here it needs no text.
mod all {
    use super::{balancing, caching, files};

    criterion::criterion_group!(benches, balancing, caching, files);
}

criterion_main!(all::benches);
