//! What a purge by tag costs, and what it does to those who are served meanwhile.
//!
//! 100,000 objects under one tag are made stale at once, again and again, while readers look up
//! objects at a steady rate. `cargo bench --bench purge` prints how long the purges took and the
//! latencies of look-ups without and with them, from when each was due. The hit is what the store
//! does for one: key, look-up, variant, state, freshness.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark stops at what is not as it should be, prints, and reads the clock"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use cache::store::Lookup;
use cache::tags::Mode;
use cache::{
    Head, Key, KeyBuf, Policy, Request, RequestControl, Response, Storable, Store, Stored, Times,
    reuse,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

const OBJECTS: usize = 100_000;
/// One look-up each; far below what a core can do, so that waiting shows.
const PACE: Duration = Duration::from_micros(20);
const SPAN: Duration = Duration::from_secs(5);
const PURGES: usize = 20;

fn main() {
    let store = Arc::new(Store::new(1 << 30));
    let keys: Vec<Key> = (0..OBJECTS).map(|number| fill(&store, number)).collect();
    let keys = Arc::new(keys);
    store.maintain();
    assert_eq!(store.tags().count(b"all"), OBJECTS as u64);

    let calm = measure(&store, &keys, || {});
    let slowest = Arc::new(AtomicU64::new(0));
    let (purging, worst) = (Arc::clone(&store), Arc::clone(&slowest));
    let purged = measure(&store, &keys, move || {
        for _ in 0..PURGES {
            let begun = Instant::now();
            let objects = purging.purge_tag(b"all", Mode::Soft(SystemTime::now()));
            let took = begun.elapsed();
            assert_eq!(objects, OBJECTS as u64);
            worst.fetch_max(u64::try_from(took.as_nanos()).unwrap(), Ordering::Relaxed);
            std::thread::park_timeout(SPAN / 30);
        }
    });
    let slowest = Duration::from_nanos(slowest.load(Ordering::Relaxed));
    println!("soft purge of {OBJECTS} objects by one tag: {slowest:?} (slowest of {PURGES})");
    println!("look-ups     p50        p99        p99.9      max");
    for (name, figures) in [("calm", &calm), ("purged", &purged)] {
        let [median, high, higher, most] = figures;
        println!("{name:<10} {median:>10.2?} {high:>10.2?} {higher:>10.2?} {most:>10.2?}");
    }
    let sweep = Instant::now();
    let objects = store.purge_tag(b"all", Mode::Hard);
    let hard = sweep.elapsed();
    store.sweep(store.tags().latest());
    println!(
        "hard purge of {objects}: {hard:?}, memory given back after {:?}",
        sweep.elapsed()
    );
    assert_eq!(store.figures().entries, 0);
}

fn fill(store: &Store, number: usize) -> Key {
    let key = Key::new("https", "shop.example", &format!("/product/{number}"), None);
    let asked = HeaderMap::new();
    let mut replied = HeaderMap::new();
    replied.insert("cache-control", HeaderValue::from_static("max-age=3600"));
    replied.insert("etag", HeaderValue::from_static("\"5f3a-61b2c8d7e9f00\""));
    let request = Request {
        method: &Method::GET,
        fields: &asked,
    };
    let response = Response {
        status: StatusCode::OK,
        fields: &replied,
    };
    let (policy, now) = (Policy::default(), SystemTime::now());
    let times = Times {
        sent: now,
        received: now,
    };
    let Storable::Store(freshness) = cache::storable::storable(request, response, &policy, times)
    else {
        unreachable!("it states a lifetime");
    };
    let head = Head::new(request, response, freshness, &policy);
    let tags: Vec<Box<[u8]>> = [
        "all".to_owned(),
        format!("product-{number}"),
        format!("category-{}", number % 100),
    ]
    .iter()
    .map(|tag| tag.as_bytes().into())
    .collect();
    let life = store.life(key.as_key(), &tags, store.tags().latest(), false);
    let body = vec![Bytes::from(vec![b'x'; 1024])];
    store.insert(
        key.as_key(),
        Arc::new(Stored::new(Arc::new(head), body, life)),
    );
    key
}

/// Looks up at a steady rate while `work` runs on another thread. The latencies, from when each was
/// due: median, 99th and 99.9th percentile, longest.
fn measure(
    store: &Arc<Store>,
    keys: &Arc<Vec<Key>>,
    work: impl FnOnce() + Send + 'static,
) -> [Duration; 4] {
    let stop = Arc::new(AtomicBool::new(false));
    let worker = std::thread::spawn(work);
    let reader = {
        let (store, keys, stop) = (Arc::clone(store), Arc::clone(keys), Arc::clone(&stop));
        std::thread::spawn(move || read(&store, &keys, &stop))
    };
    std::thread::park_timeout(SPAN);
    worker.join().unwrap();
    stop.store(true, Ordering::Relaxed);
    let mut all = reader.join().unwrap();
    all.sort_unstable();
    let at = |permille: usize| all[(all.len() - 1) * permille / 1000];
    [at(500), at(990), at(999), at(1000)]
}

fn read(store: &Store, keys: &[Key], stop: &AtomicBool) -> Vec<Duration> {
    let asked = HeaderMap::new();
    let control = RequestControl::default();
    let mut buffer = KeyBuf::new();
    let mut latencies = Vec::new();
    let mut due = Instant::now();
    let mut number = 0_usize;
    while !stop.load(Ordering::Relaxed) {
        due += PACE;
        while Instant::now() < due {
            std::hint::spin_loop();
        }
        number = (number + 7919) % keys.len();
        buffer.fill("https", "shop.example", &format!("/product/{number}"), None);
        let found = store.lookup(buffer.as_key(), &asked, &[]);
        if let Lookup::Found(stored) = found {
            std::hint::black_box(reuse::usable(
                &stored.freshness(),
                &control,
                SystemTime::now(),
            ));
        }
        latencies.push(due.elapsed());
    }
    latencies
}
