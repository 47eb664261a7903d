//! What is answered from memory: stored pages and files.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use cache::store::Lookup;
use cache::{
    Head, KeyBuf, Policy, Request, RequestControl, Response, Storable, Store, Stored, Times, reuse,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use static_server::{Sending, Site, SiteSettings};

use crate::door::REQUEST;
use crate::exchange::guard::MethodKind;
use crate::exchange::head::Checked;
use crate::{Part, now, ready};

fn key() -> KeyBuf {
    let mut key = KeyBuf::new();
    key.fill(
        black_box("https"),
        "shop.example",
        "/catalog/shoes",
        Some("page=2&sort=price"),
    );
    key
}

/// What a page is known by.
#[must_use]
pub fn key_of_page() -> Part {
    ready(key)
}

/// Key, look-up, the request's directives, freshness.
///
/// # Panics
/// If the page may not be stored.
#[must_use]
#[expect(clippy::expect_used, reason = "constants of these files")]
pub fn fresh_page() -> Part {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let asked = Checked::new(REQUEST, MethodKind::Get).expect("a head");
    let store = Store::new(64 << 20);
    let page = stored(&asked, now).expect("a page that may be stored");
    store.insert(key().as_key(), Arc::new(page));
    let hit = move || {
        let Lookup::Found(found) = store.lookup(key().as_key(), &asked, &[]) else {
            return false;
        };
        let control = RequestControl::read(&asked);
        reuse::usable(&found.head().freshness(), &control, now).is_hit()
    };
    assert!(hit(), "fresh");
    ready(hit)
}

/// The same for a page that its thread has at hand.
///
/// # Panics
/// If the page may not be stored.
#[must_use]
#[expect(clippy::expect_used, reason = "constants of these files")]
pub fn page_at_hand() -> Part {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let asked = Checked::new(REQUEST, MethodKind::Get).expect("a head");
    let store = Store::new(64 << 20);
    let page = stored(&asked, now).expect("a page that may be stored");
    store.insert(key().as_key(), Arc::new(page));
    let hit = move || {
        let Lookup::Found(found) = store.page(key().as_key(), &asked, &[]) else {
            return false;
        };
        let control = RequestControl::read(&asked);
        reuse::usable(&found.head().freshness(), &control, now).is_hit()
    };
    assert!((0..100).all(|_| hit()), "fresh");
    ready(hit)
}

fn stored(asked: &Checked<'_>, now: SystemTime) -> Option<Stored> {
    let request = Request {
        method: &Method::GET,
        fields: asked,
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
    let policy = Policy::default();
    let times = Times {
        sent: now,
        received: now,
    };
    let storable = cache::storable::storable(request, response, &policy, times);
    let Storable::Store(freshness) = storable else {
        return None;
    };
    let head = Arc::new(Head::new(request, response, freshness, &policy));
    let body = vec![Bytes::from(vec![b'x'; 1024])];
    Some(Stored::new(head, body, Arc::default()))
}

/// The whole answer for a file of 1 KiB that is in memory.
///
/// # Panics
/// If there is no folder to be had for it.
#[must_use]
#[expect(clippy::expect_used, reason = "it cannot be counted without its file")]
pub fn file_in_memory() -> Part {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("a.css"), vec![b'a'; 1024]).expect("a file");
    let site = Site::new(SiteSettings::new(folder.path())).expect("a site");
    let asked = Checked::new(REQUEST, MethodKind::Get).expect("a head");
    let now = now();
    let answer = move || {
        let request = static_server::Request {
            method: &Method::GET,
            path: black_box("/a.css"),
            query: None,
            fields: &asked,
            sending: Sending::Copied,
        };
        let status = site.answer(&request, now).status;
        assert!(folder.path().is_absolute(), "kept as long as the site");
        status
    };
    assert_eq!(answer(), StatusCode::OK, "found");
    ready(answer)
}
