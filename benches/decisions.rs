//! What the pure decisions of a request cost: `cargo bench --bench decisions`.
//!
//! They run on every request, so they are measured apart from sockets and
//! kernel, where a change of a few nanoseconds can still be seen. The load
//! benchmark (`benches/README.md`) says what becomes of them in a whole server.

use std::hint::black_box;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use balancer::{
    Balance, Carry, Checks, EndpointSettings, HashTable, Limits, Mode, Outcome, PickContext, Pool,
    PoolSettings,
};
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
            id: format!("10.0.0.{n}:8080"),
            name: format!("10.0.0.{n}:8080"),
            weight: NonZeroU32::MIN,
            priority: 0,
            backup: false,
            zone: None,
            mode: Mode::Enabled,
        })
        .collect();
    let settings = PoolSettings {
        endpoints,
        balance,
        own_zone: None,
        overflow_below: 70,
        zone_overflow_below: 70,
        panic_threshold: 0,
        active_checks: Some(Checks {
            unhealthy_after: NonZeroU32::MIN,
            healthy_after: NonZeroU32::MIN,
            start_healthy: true,
        }),
        outlier: None,
        limits: Limits::default(),
        adaptive: None,
        slow_start: Duration::ZERO,
        retry_budget: None,
    };
    Pool::new(settings, None, Carry::Reload, now())
}

/// Every algorithm, by the name of its measurement.
fn algorithms() -> Vec<(&'static str, Balance)> {
    let least_request = |choices: u32| Balance::LeastRequest {
        choices: NonZeroU32::MIN.saturating_add(choices - 1),
    };
    let hash = |table, max_load| Balance::Hash { table, max_load };
    vec![
        ("round_robin", Balance::RoundRobin),
        ("random", Balance::Random),
        ("least_request", least_request(2)),
        ("least_request-5", least_request(5)),
        ("peak_ewma", Balance::PeakEwma),
        ("rendezvous", hash(HashTable::Rendezvous, None)),
        ("ketama", hash(HashTable::Ketama, None)),
        ("maglev", hash(HashTable::Maglev, None)),
        ("ketama-bounded", hash(HashTable::Ketama, Some(125))),
    ]
}

/// What choosing alone costs, with all endpoints in service and with a third of them out.
fn picking(c: &mut Criterion) {
    for (name, balance) in algorithms() {
        for out in [0, 33] {
            let pool = pool(balance, 100);
            let now = now();
            for (at, (index, _)) in pool.endpoints().enumerate() {
                pool.record(index, Outcome::Success, Some(Duration::from_millis(9)), now);
                if at % 3 == 0 && at < out * 3 {
                    pool.probed(index, false, now);
                }
            }
            let mut random = 1_u64;
            c.bench_function(&format!("balancer/pick/{name}/100-{out}"), |b| {
                b.iter(|| {
                    random = random
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1);
                    let context = PickContext {
                        hash: Some(random),
                        ..PickContext::default()
                    };
                    black_box(pool.pick(&context, now, random).is_ok())
                });
            });
        }
    }
}

/// What one request costs from its choice to its end.
fn balancing(c: &mut Criterion) {
    for (name, balance) in algorithms() {
        let pool = pool(balance, 10);
        let now = now();
        let mut random = 1_u64;
        c.bench_function(&format!("balancer/request/{name}/10"), |b| {
            b.iter(|| {
                random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                let context = PickContext {
                    hash: Some(random),
                    ..PickContext::default()
                };
                let picked = pool.acquire(&context, now, random);
                if let Ok((endpoint, mut active)) = picked {
                    active.connected();
                    let latency = Some(Duration::from_micros(random >> 54));
                    pool.record(endpoint, Outcome::Success, latency, now);
                    drop(active);
                    return true;
                }
                false
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
                query: None,
                fields: &fields,
                sending: static_server::Sending::Copied,
            };
            black_box(site.answer(&request, now).status)
        });
    });
}

/// What the macro makes is public; in here it needs no text.
mod all {
    use super::{balancing, caching, files, picking};

    criterion::criterion_group!(benches, picking, balancing, caching, files);
}

criterion_main!(all::benches);
