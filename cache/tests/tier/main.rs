//! The store with both tiers, over restarts, purges and damage.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test stops at the first thing that is not as it should be"
)]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use cache::disk::Settings;
use cache::store::Lookup;
use cache::tags::{self, Mode};
use cache::{Head, Key, Policy, Request, Response, Storable, Store, Stored, Times};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use tempfile::TempDir;

const MEMORY: u64 = 4 << 20;
const DISK: u64 = 64 << 20;
const PATIENCE: Duration = Duration::from_secs(30);

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds)
}

fn fields(lines: &[&str]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(": ").unwrap();
        map.append(
            HeaderName::from_bytes(name.as_bytes()).unwrap(),
            HeaderValue::from_str(value).unwrap(),
        );
    }
    map
}

fn key(path: &str) -> Key {
    Key::new("https", "shop.example", path, None)
}

fn open(folder: &Path) -> Store {
    let settings = Settings {
        folder: folder.to_owned(),
        size: DISK,
    };
    Store::new(MEMORY).with_disk(&settings).unwrap()
}

fn settled(store: &Store) {
    store.disk().unwrap().flush(PATIENCE);
}

/// Puts a page in.
fn put(store: &Store, path: &str, asked: &[&str], replied: &[&str], body: &[u8], names: &[&str]) {
    let (asked, replied) = (fields(asked), fields(replied));
    let request = Request {
        method: &Method::GET,
        fields: &asked,
    };
    let response = Response {
        status: StatusCode::OK,
        fields: &replied,
    };
    let times = Times {
        sent: at(0),
        received: at(0),
    };
    let policy = Policy {
        ttl: Some(Duration::from_secs(600)),
        ..Policy::default()
    };
    let Storable::Store(freshness) = cache::storable::storable(request, response, &policy, times)
    else {
        panic!("not to be stored");
    };
    let head = Head::new(request, response, freshness, &policy);
    let names: Vec<Box<[u8]>> = names.iter().map(|name| name.as_bytes().into()).collect();
    let key = key(path);
    let life = store.life(key.as_key(), &names, store.tags().latest(), false);
    let stored = Stored::new(Arc::new(head), vec![Bytes::copy_from_slice(body)], life);
    assert!(store.insert(key.as_key(), Arc::new(stored)));
}

fn page(store: &Store, path: &str) {
    put(store, path, &[], &[], path.as_bytes(), &[path, "all"]);
}

/// What a request gets, from memory, else from the disk.
fn get(store: &Store, path: &str, asked: &[&str]) -> Option<Arc<Stored>> {
    let (key, asked) = (key(path), fields(asked));
    if let Lookup::Found(stored) = store.lookup(key.as_key(), &asked, &[]) {
        return Some(stored);
    }
    let found = store.find_on_disk(key.as_key(), &asked, &[])?;
    store.read_from_disk(&found)
}

fn body(stored: &Stored) -> Vec<u8> {
    stored.segments().concat()
}

#[test]
fn a_restart_comes_back_warm_with_variants_heads_and_tags() {
    let folder = TempDir::new().unwrap();
    let store = open(folder.path());
    for language in ["de", "en"] {
        let asked = format!("accept-language: {language}");
        let replied = [
            "vary: accept-language",
            "etag: \"a\"",
            "cache-control: max-age=60",
        ];
        put(
            &store,
            "/p",
            &[&asked],
            &replied,
            language.as_bytes(),
            &["p1"],
        );
    }
    page(&store, "/q");
    settled(&store);
    drop(store);
    let store = open(folder.path());
    assert_eq!(store.figures().entries, 0, "memory is empty");
    assert_eq!(store.disk().unwrap().figures().objects, 3);
    let german = get(&store, "/p", &["accept-language: de"]).unwrap();
    assert_eq!(body(&german), b"de");
    assert_eq!(german.head().etag(), Some(&b"\"a\""[..]));
    assert_eq!(german.freshness().age(at(9)), Duration::from_secs(9));
    assert!(german.freshness().is_fresh(at(59)) && !german.freshness().is_fresh(at(60)));
    assert_eq!(
        body(&get(&store, "/p", &["accept-language: en"]).unwrap()),
        b"en"
    );
    assert!(get(&store, "/p", &[]).is_none());
    assert_eq!(
        store.tags().count(b"p1"),
        2,
        "each variant once, though it is in both tiers"
    );
    assert_eq!(store.tags().count(tags::ALL), 3);
    assert_eq!(store.count(key("/p").as_key()), 2);
}

#[test]
fn what_was_purged_does_not_come_back_after_a_restart() {
    let folder = TempDir::new().unwrap();
    let store = open(folder.path());
    for path in [
        "/url",
        "/tag",
        "/a/1",
        "/a/2",
        "/kept",
        "/soft",
        "/soft-tag",
        "/removed",
    ] {
        page(&store, path);
    }
    settled(&store);
    assert_eq!(store.purge(key("/url").as_key(), Mode::Hard), 1);
    assert_eq!(store.purge_tag(b"/tag", Mode::Hard), 1);
    assert_eq!(store.count_prefix(b"shop.example", b"/a/"), 2);
    assert_eq!(store.purge_prefix(b"shop.example", b"/a/", Mode::Hard), 2);
    assert_eq!(store.purge(key("/soft").as_key(), Mode::Soft(at(7))), 1);
    assert_eq!(store.purge_tag(b"/soft-tag", Mode::Soft(at(8))), 1);
    let removed = get(&store, "/removed", &[]).unwrap();
    store.remove(key("/removed").as_key(), &removed);
    // Fetched again after the purge: it is another one.
    put(&store, "/tag", &[], &[], b"new", &["/tag"]);
    settled(&store);
    let gone = ["/url", "/a/1", "/a/2", "/removed"];
    assert!(gone.iter().all(|path| get(&store, path, &[]).is_none()));
    drop(store);
    for _ in 0..2 {
        let store = open(folder.path());
        for path in gone {
            assert!(get(&store, path, &[]).is_none(), "{path} is back");
        }
        assert_eq!(body(&get(&store, "/tag", &[]).unwrap()), b"new");
        assert!(
            get(&store, "/kept", &[])
                .unwrap()
                .freshness()
                .is_fresh(at(9))
        );
        for (path, since) in [("/soft", 7), ("/soft-tag", 8)] {
            let stale = get(&store, path, &[]).unwrap();
            assert!(stale.freshness().is_fresh(at(since - 1)), "{path}");
            assert!(!stale.freshness().is_fresh(at(since)), "{path}");
        }
        assert_eq!(store.tags().count(b"/tag"), 1);
    }
}

#[test]
fn a_purge_of_everything_is_final() {
    let folder = TempDir::new().unwrap();
    let store = open(folder.path());
    (0..20).for_each(|number| page(&store, &format!("/{number}")));
    assert_eq!(store.purge_tag(tags::ALL, Mode::Hard), 20, "written or not");
    store.sweep(store.tags().latest());
    assert_eq!(store.disk().unwrap().figures().objects, 0);
    settled(&store);
    drop(store);
    let store = open(folder.path());
    assert!((0..20).all(|number| get(&store, &format!("/{number}"), &[]).is_none()));
    assert_eq!(store.tags().count(tags::ALL), 0);
}

#[test]
fn what_memory_lets_go_or_cannot_hold_stays_on_the_disk() {
    let folder = TempDir::new().unwrap();
    let store = open(folder.path());
    let large = vec![7; (MEMORY / 4) as usize];
    put(&store, "/large", &[], &[], &large, &[]);
    let small = vec![1; 64 << 10];
    for number in 0..200 {
        put(&store, &format!("/{number}"), &[], &[], &small, &["all"]);
        // So that nothing is dropped for want of speed.
        settled(&store);
    }
    store.maintain();
    assert!(store.figures().entries < 100, "memory holds a part");
    assert_eq!(store.tags().count(b"all"), 200, "and nothing is forgotten");
    for number in 0..200 {
        let stored = get(&store, &format!("/{number}"), &[]).unwrap();
        assert_eq!(body(&stored), small, "{number}");
    }
    let stored = get(&store, "/large", &[]).unwrap();
    assert_eq!(body(&stored), large);
    let miss = store.lookup(key("/large").as_key(), &fields(&[]), &[]);
    assert!(matches!(miss, Lookup::UriMiss), "too large for memory");
}

#[test]
fn a_newer_object_takes_the_place_of_the_older_in_both_tiers() {
    let folder = TempDir::new().unwrap();
    let store = open(folder.path());
    for body in [&b"old"[..], b"new"] {
        put(&store, "/", &[], &[], body, &["t"]);
        settled(&store);
    }
    assert_eq!(store.tags().count(b"t"), 1);
    drop(store);
    let store = open(folder.path());
    assert_eq!(body(&get(&store, "/", &[]).unwrap()), b"new");
    assert_eq!(store.tags().count(b"t"), 1);
}

#[test]
fn a_flipped_byte_is_a_miss_and_counted() {
    let folder = TempDir::new().unwrap();
    let store = open(folder.path());
    (0..50).for_each(|number| page(&store, &format!("/{number}")));
    settled(&store);
    drop(store);
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        if bytes.len() > 100 {
            bytes[middle] ^= 0x40;
            std::fs::write(&path, bytes).unwrap();
        }
    }
    let store = open(folder.path());
    let mut found = 0;
    for number in 0..50 {
        let path = format!("/{number}");
        if let Some(stored) = get(&store, &path, &[]) {
            assert_eq!(body(&stored), path.as_bytes(), "never a wrong body");
            found += 1;
        }
    }
    assert!(found < 50, "something was damaged");
    assert!(store.disk().unwrap().figures().damaged > 0);
}

#[test]
fn a_removed_folder_fails_nothing_and_is_made_again() {
    let folder = TempDir::new().unwrap();
    let inner = folder.path().join("cache");
    let store = open(&inner);
    page(&store, "/before");
    settled(&store);
    std::fs::remove_dir_all(&inner).unwrap();
    page(&store, "/after");
    settled(&store);
    for path in ["/before", "/after"] {
        assert_eq!(body(&get(&store, path, &[]).unwrap()), path.as_bytes());
    }
    drop(store);
    let store = open(&inner);
    assert!(
        get(&store, "/before", &[]).is_none(),
        "it went with the folder"
    );
    assert_eq!(body(&get(&store, "/after", &[]).unwrap()), b"/after");
}

#[test]
fn the_oldest_goes_when_the_disk_is_used_up() {
    let folder = TempDir::new().unwrap();
    let settings = Settings {
        folder: folder.path().to_owned(),
        size: 16 << 20,
    };
    let store = Store::new(1 << 20).with_disk(&settings).unwrap();
    let body = vec![3; 100 << 10];
    for number in 0..400 {
        put(&store, &format!("/{number}"), &[], &[], &body, &["t"]);
        settled(&store);
    }
    let figures = store.disk().unwrap().figures();
    assert!(figures.bytes <= 16 << 20, "{figures:?}");
    assert!(
        figures.objects < 170 && figures.objects > 100,
        "{figures:?}"
    );
    assert!(get(&store, "/0", &[]).is_none() && get(&store, "/399", &[]).is_some());
    store.maintain();
    let counted = store.tags().count(b"t");
    assert!(
        counted >= figures.objects && counted < 200,
        "{counted} {figures:?}"
    );
}

#[test]
fn a_second_process_is_told_that_the_folder_is_in_use() {
    let folder = TempDir::new().unwrap();
    let _store = open(folder.path());
    let settings = Settings {
        folder: folder.path().to_owned(),
        size: DISK,
    };
    let refused = Store::new(MEMORY).with_disk(&settings).unwrap_err();
    assert!(refused.to_string().contains("another process"), "{refused}");
}

#[test]
fn a_folder_that_was_left_to_another_is_read_on_and_taken_back_with_what_came_meanwhile() {
    let folder = TempDir::new().unwrap();
    let store = open(folder.path());
    for path in ["/kept", "/purged"] {
        page(&store, path);
    }
    settled(&store);
    let disk = store.disk().unwrap();
    disk.leave(PATIENCE).unwrap();
    disk.leave(PATIENCE).unwrap();
    // The other finds everything, writes more, and ends.
    let other = open(folder.path());
    assert_eq!(other.disk().unwrap().figures().recovered, 2);
    let in_use = disk.take_back().unwrap_err().to_string();
    assert!(in_use.contains("another process"), "{in_use}");
    page(&other, "/of-the-other");
    settled(&other);
    page(&store, "/waiting");
    store.purge(key("/purged").as_key(), Mode::Hard);
    let found = store
        .find_on_disk(key("/kept").as_key(), &fields(&[]), &[])
        .unwrap();
    assert_eq!(body(&store.read_from_disk(&found).unwrap()), b"/kept");
    drop(other);
    disk.take_back().unwrap();
    page(&store, "/later");
    settled(&store);
    drop(store);
    let store = open(folder.path());
    for path in ["/kept", "/waiting", "/later", "/of-the-other"] {
        assert!(get(&store, path, &[]).is_some(), "{path}");
    }
    assert!(
        get(&store, "/purged", &[]).is_none(),
        "it was purged meanwhile"
    );
}

#[test]
fn a_folder_that_is_left_for_good_holds_nobody_up() {
    let folder = TempDir::new().unwrap();
    let store = open(folder.path());
    page(&store, "/one");
    store.disk().unwrap().leave(PATIENCE).unwrap();
    let next = open(folder.path());
    // Ends while it still waits for the word that it may write again.
    drop(store);
    assert!(get(&next, "/one", &[]).is_some());
}
