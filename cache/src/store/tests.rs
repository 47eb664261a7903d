//! The store in memory: look-ups, variants, purges, bounds.

use near::Look;

use super::*;
use crate::coding::Coding;
use crate::testing::{at, date, fields, head_for};
use bytes::Bytes;

fn object(asked: &[&str], replied: &[&str], body: &str) -> Arc<Stored> {
    let head = Arc::new(head_for(asked, 200, replied));
    Arc::new(Stored::new(
        head,
        vec![Bytes::copy_from_slice(body.as_bytes())],
        Arc::default(),
    ))
}

fn key(path: &str) -> Key {
    Key::new("https", "shop.example", path, None)
}

/// What is found, whichever way it is looked for.
fn body(store: &Store, path: &str, asked: &[&str]) -> Option<String> {
    let text = |stored: &Stored| {
        let parts = stored.segments().iter();
        parts.map(|part| String::from_utf8_lossy(part)).collect()
    };
    let found = match store.lookup(key(path).as_key(), &fields(asked), &[]) {
        Lookup::Found(stored) => Ok(text(&stored)),
        Lookup::VaryMiss => Err("vary"),
        Lookup::UriMiss => Err("uri"),
    };
    // Often enough that it is found at hand where it is small.
    for _ in 0..2 * near::FAR {
        let seen = match store.page(key(path).as_key(), &fields(asked), &[]) {
            Lookup::Found(page) => {
                assert_eq!(page.to_body(), text(&page));
                Ok(text(&page))
            }
            Lookup::VaryMiss => Err("vary"),
            Lookup::UriMiss => Err("uri"),
        };
        assert_eq!(seen, found, "{path}");
    }
    found.ok()
}

fn is_near(store: &Store, path: &str) -> bool {
    matches!(
        store.near.look(key(path).as_key().as_bytes(), |_| true),
        Look::Here(_)
    )
}

#[test]
fn what_is_in_demand_and_small_is_at_hand_and_its_uses_are_counted() {
    let store = Store::new(1 << 20);
    let large = "x".repeat(20_000);
    store.insert(key("/a").as_key(), object(&[], &[], "one"));
    store.insert(key("/b").as_key(), object(&[], &[], &large));
    body(&store, "/a", &[]);
    body(&store, "/b", &[]);
    assert!(is_near(&store, "/a") && !is_near(&store, "/b"));
    let uses = 1_000;
    for _ in 0..uses {
        let Lookup::Found(page) = store.page(key("/a").as_key(), &fields(&[]), &[]) else {
            panic!("it is gone");
        };
        page.count();
    }
    let counted = || store.variants(key("/a").as_key())[0].life().hits();
    assert!((uses - 16..=uses).contains(&counted()), "{}", counted());
    let known = store.variants(key("/a").as_key()).remove(0);
    store.purge(key("/a").as_key(), Mode::Hard);
    body(&store, "/a", &[]);
    assert!(!is_near(&store, "/a"));
    // The place is another's now, so what was kept there is told.
    for number in 0..1_000 {
        let path = format!("/{number}");
        store.insert(key(&path).as_key(), object(&[], &[], "one"));
        body(&store, &path, &[]);
    }
    assert_eq!(known.life().hits(), uses);
}

#[test]
fn a_purge_reaches_what_is_at_hand_and_just_being_evicted() {
    let purges: [&dyn Fn(&Store) -> u64; 3] = [
        &|store| store.purge(key("/a").as_key(), Mode::Hard),
        &|store| store.purge(key("/a").as_key(), Mode::Soft(at(0))),
        &|store| store.purge_prefix(b"shop.example", b"/", Mode::Hard),
    ];
    for purge in purges {
        let store = Store::new(1 << 20);
        // At hand, and not in the store: whoever took it out has not said so yet.
        let one = object(&[], &[], "one");
        let kept = Arc::new(Kept::new(Arc::new(Entry::with(None, |_| true, one, 0))));
        while !is_near(&store, "/a") {
            let name = key("/a");
            let Look::Ask(mark) = store.near.look(name.as_key().as_bytes(), |_| true) else {
                continue;
            };
            let own = || Some(Arc::clone(&kept));
            store.near.keep(name.as_key().as_bytes(), mark, own);
        }
        assert!(matches!(
            store.page(key("/a").as_key(), &fields(&[]), &[]),
            Lookup::Found(_)
        ));
        assert_eq!(purge(&store), 0, "it is not there");
        assert!(matches!(
            store.page(key("/a").as_key(), &fields(&[]), &[]),
            Lookup::UriMiss
        ));
    }
}

#[test]
fn a_coding_is_found_at_hand_as_it_is_made() {
    let store = Store::new(1 << 20);
    let stored = object(&[], &["etag: \"a\""], "one");
    store.insert(key("/a").as_key(), Arc::clone(&stored));
    body(&store, "/a", &[]);
    assert!(is_near(&store, "/a"));
    stored.set_coded(Coding::Gzip, Some(vec![Bytes::from("packed")].into()));
    let Lookup::Found(page) = store.page(key("/a").as_key(), &fields(&[]), &[]) else {
        panic!("it is gone");
    };
    let coded = page.clone().in_coding_ready(Coding::Gzip);
    assert_eq!(
        (&page.to_body()[..], &coded.to_body()[..]),
        (&b"one"[..], &b"packed"[..])
    );
    assert_eq!(coded.head().etag(), Some(&b"\"a-gzip\""[..]));
}

#[test]
fn what_is_put_in_is_found_until_it_is_purged() {
    let store = Store::new(1 << 20);
    assert!(store.insert(key("/a").as_key(), object(&[], &[], "one")));
    assert_eq!(body(&store, "/a", &[]).as_deref(), Some("one"));
    assert_eq!(body(&store, "/b", &[]), None);
    assert_eq!(store.count(key("/a").as_key()), 1);
    assert_eq!(store.purge(key("/a").as_key(), Mode::Hard), 1);
    assert_eq!(store.purge(key("/a").as_key(), Mode::Hard), 0);
    assert_eq!(body(&store, "/a", &[]), None);
}

#[test]
fn variants_stand_beside_each_other_and_are_purged_together() {
    let store = Store::new(1 << 20);
    for language in ["de", "en"] {
        let asked = format!("accept-language: {language}");
        store.insert(
            key("/").as_key(),
            object(&[&asked], &["vary: accept-language"], language),
        );
    }
    assert_eq!(
        body(&store, "/", &["accept-language: de"]).as_deref(),
        Some("de")
    );
    assert_eq!(
        body(&store, "/", &["accept-language: EN"]).as_deref(),
        Some("en")
    );
    let miss = store.lookup(key("/").as_key(), &fields(&[]), &[]);
    assert!(matches!(miss, Lookup::VaryMiss));
    store.insert(
        key("/").as_key(),
        object(&["accept-language: de"], &["vary: accept-language"], "neu"),
    );
    assert_eq!(
        body(&store, "/", &["accept-language: de"]).as_deref(),
        Some("neu")
    );
    assert_eq!(store.purge(key("/").as_key(), Mode::Hard), 2);
    assert_eq!(body(&store, "/", &["accept-language: en"]), None);
}

#[test]
fn one_with_vary_goes_before_one_without_and_the_latest_before_the_others() {
    let store = Store::new(1 << 20);
    let dated = |seconds| format!("date: {}", date(seconds));
    store.insert(
        key("/").as_key(),
        object(&["x: 1"], &["vary: x", &dated(1)], "x"),
    );
    store.insert(
        key("/").as_key(),
        object(&["y: 1"], &["vary: y", &dated(2)], "y"),
    );
    store.insert(key("/").as_key(), object(&[], &[&dated(3)], "plain"));
    assert_eq!(body(&store, "/", &["x: 1", "y: 1"]).as_deref(), Some("y"));
    assert_eq!(body(&store, "/", &["x: 1"]).as_deref(), Some("x"));
    assert_eq!(body(&store, "/", &[]).as_deref(), Some("plain"));
}

#[test]
fn what_was_stored_without_a_name_that_the_route_adds_does_not_fit() {
    let store = Store::new(1 << 20);
    store.insert(key("/").as_key(), object(&[], &[], "for all"));
    let extra = [HeaderName::from_static("accept-language")];
    let found = store.lookup(key("/").as_key(), &fields(&[]), &extra);
    assert!(matches!(found, Lookup::VaryMiss));
}

#[test]
fn of_too_many_variants_the_oldest_goes() {
    let store = Store::new(1 << 24);
    for number in 0..=MAX_VARIANTS {
        let asked = format!("x: {number}");
        store.insert(key("/").as_key(), object(&[&asked], &["vary: x"], "."));
    }
    assert_eq!(body(&store, "/", &["x: 0"]), None);
    assert!(body(&store, "/", &["x: 1"]).is_some());
    assert!(body(&store, "/", &[&format!("x: {MAX_VARIANTS}")]).is_some());
}

#[test]
fn the_store_is_bounded_by_bytes() {
    let store = Store::new(1 << 20);
    let large = "x".repeat(10_000);
    for number in 0..1000 {
        store.insert(
            key(&format!("/{number}")).as_key(),
            object(&[], &[], &large),
        );
        assert!(
            store.figures().bytes <= (1 << 20) + (1 << 15),
            "{}",
            store.figures().bytes
        );
    }
    store.maintain();
    let figures = store.figures();
    assert!(figures.bytes <= 1 << 20, "{figures:?}");
    assert!(figures.entries > 50 && figures.entries < 105, "{figures:?}");
    assert_eq!(figures.inserts, 1000);
    assert!(figures.evictions >= 1000 - 105, "{figures:?}");
}

#[test]
fn what_alone_is_too_large_is_refused() {
    let store = Store::new(1000);
    assert!(!store.insert(key("/").as_key(), object(&[], &[], &"x".repeat(1000))));
    assert_eq!(store.figures().refused, 1);
}

#[test]
fn one_variant_can_be_removed_alone() {
    let store = Store::new(1 << 20);
    let (one, two) = (
        object(&["x: 1"], &["vary: x"], "1"),
        object(&["x: 2"], &["vary: x"], "2"),
    );
    store.insert(key("/").as_key(), Arc::clone(&one));
    store.insert(key("/").as_key(), Arc::clone(&two));
    store.remove(key("/").as_key(), &one);
    assert_eq!(body(&store, "/", &["x: 1"]), None);
    assert!(body(&store, "/", &["x: 2"]).is_some());
    store.remove(key("/").as_key(), &two);
    let gone = store.lookup(key("/").as_key(), &fields(&[]), &[]);
    assert!(matches!(gone, Lookup::UriMiss));
}

#[test]
fn the_hint_tells_apart_what_the_stored_vary_names() {
    let store = Store::new(1 << 20);
    let hint = |asked: &[&str]| store.hint(key("/").as_key(), &fields(asked), &[]);
    assert_eq!(
        hint(&["x: 1"]),
        hint(&["x: 2"]),
        "nothing known, nothing told apart"
    );
    store.insert(key("/").as_key(), object(&["x: 1"], &["vary: x"], "1"));
    assert_ne!(hint(&["x: 1"]), hint(&["x: 2"]));
    assert_eq!(hint(&["x: 1", "y: 1"]), hint(&["x: 1"]));
}

/// An object of `path` on a host, with these tags.
fn tagged(store: &Store, host: &str, path: &str, names: &[&str]) -> Key {
    let key = Key::new("https", host, path, None);
    let names: Vec<Box<[u8]>> = names.iter().map(|name| name.as_bytes().into()).collect();
    let life = store.life(key.as_key(), &names, store.tags().latest(), false);
    let lines = ["cache-control: max-age=60"];
    let head = Arc::new(head_for(&[], 200, &lines));
    let stored = Stored::new(head, vec![Bytes::from_static(b"x")], life);
    assert!(store.insert(key.as_key(), Arc::new(stored)));
    key
}

fn found(store: &Store, key: &Key) -> Option<Arc<Stored>> {
    match store.lookup(key.as_key(), &fields(&[]), &[]) {
        Lookup::Found(stored) => Some(stored),
        Lookup::VaryMiss | Lookup::UriMiss => None,
    }
}

#[test]
fn a_purge_by_tag_reaches_all_that_carry_it_and_no_others() {
    let store = Store::new(1 << 20);
    let one = tagged(&store, "shop.example", "/1", &["p1", "all-products"]);
    let two = tagged(&store, "shop.example", "/2", &["p2", "all-products"]);
    assert_eq!(store.tags().count(b"all-products"), 2);
    assert_eq!(store.purge_tag(b"p1", Mode::Hard), 1);
    assert!(found(&store, &one).is_none() && found(&store, &two).is_some());
    assert_eq!(store.purge_tag(b"all-products", Mode::Soft(at(5))), 1);
    let stale = found(&store, &two).expect("soft leaves it there");
    assert!(stale.freshness().is_fresh(at(4)) && !stale.freshness().is_fresh(at(5)));
    store.sweep(store.tags().latest());
    assert_eq!(store.figures().entries, 1);
    assert_eq!(
        store.tags().count(b"all-products"),
        1,
        "exact after the sweep"
    );
}

#[test]
fn a_host_a_prefix_and_everything_can_be_purged() {
    let store = Store::new(1 << 20);
    let shop: Vec<Key> = ["/a/1", "/a/2", "/b"]
        .iter()
        .map(|path| tagged(&store, "shop.example", path, &[]))
        .collect();
    let other = tagged(&store, "other.example", "/a/1", &[]);
    assert_eq!(store.count_prefix(b"shop.example", b"/a/"), 2);
    assert_eq!(store.purge_prefix(b"shop.example", b"/a/", Mode::Hard), 2);
    assert!(found(&store, &shop[0]).is_none() && found(&store, &shop[2]).is_some());
    assert_eq!(
        store.purge_tag(&tags::of_host(b"shop.example"), Mode::Hard),
        1
    );
    assert!(found(&store, &shop[2]).is_none() && found(&store, &other).is_some());
    assert_eq!(store.purge_tag(tags::ALL, Mode::Hard), 1);
    assert!(found(&store, &other).is_none());
}

#[test]
fn a_url_of_several_keys_is_purged_as_one() {
    let store = Store::new(1 << 20);
    let mut keys = Vec::new();
    for currency in [&b"eur"[..], b"chf"] {
        let mut buffer = crate::KeyBuf::new();
        buffer.fill("https", "shop.example", "/p", Some("q"));
        let key = buffer.part(Some(currency)).as_key().to_key();
        let life = store.life(key.as_key(), &[], 0, true);
        let head = Arc::new(head_for(&[], 200, &[]));
        store.insert(key.as_key(), Arc::new(Stored::new(head, Vec::new(), life)));
        keys.push(key);
    }
    let url = Key::new("https", "shop.example", "/p", Some("q"));
    assert_eq!(
        store.purge_tag(&tags::of_url(url.as_key().as_bytes()), Mode::Hard),
        2
    );
    assert!(keys.iter().all(|key| found(&store, key).is_none()));
}

#[test]
fn what_was_evicted_meanwhile_does_not_come_back_with_another_variant() {
    let store = Store::new(1 << 20);
    let variant = |language: &str| {
        let asked = format!("accept-language: {language}");
        let head = head_for(&[asked.as_str()], 200, &["vary: accept-language"]);
        let life = store.life(key("/a").as_key(), &[b"t"[..].into()], 0, false);
        Arc::new(Stored::new(Arc::new(head), Vec::new(), life))
    };
    let entry = Entry::with(None, |_| true, variant("de"), 0);
    let both = Entry::with(Some(&entry), |_| true, variant("fr"), 0);
    assert_eq!(both.variants.len(), 2);
    entry.release();
    assert_eq!(store.tags().count(b"t"), 2, "the other one has both");
    both.release();
    assert_eq!(store.tags().count(b"t"), 0);
    // Its tags may be forgotten by now, and a purge would not find it.
    let next = Entry::with(Some(&both), |_| true, variant("en"), 0);
    assert_eq!(next.variants.len(), 1);
    assert!(both.filtered(|_| true).variants.is_empty());
}

#[test]
fn whatever_stands_under_churn_is_found_by_its_tag() {
    let store = Store::new(32 << 10);
    std::thread::scope(|scope| {
        for nth in 0..2 {
            let store = &store;
            scope.spawn(move || {
                for number in 0..10_000_usize {
                    let key = key(&format!("/{}", number % 7));
                    let asked = format!("accept-language: {}", (number * 31 + nth) % 40);
                    let head = head_for(&[asked.as_str()], 200, &["vary: accept-language"]);
                    let life = store.life(key.as_key(), &[b"t"[..].into()], 0, false);
                    let body = vec![Bytes::from(vec![b'x'; 500])];
                    let stored = Arc::new(Stored::new(Arc::new(head), body, life));
                    store.insert(key.as_key(), stored);
                    store.tidy(u64::MAX);
                }
            });
        }
    });
    store.maintain();
    let standing: u64 = (0..7)
        .map(|number| store.count(key(&format!("/{number}")).as_key()))
        .sum();
    assert!(standing > 0);
    assert_eq!(store.tags().count(b"t"), standing);
    assert_eq!(store.purge_tag(b"t", Mode::Hard), standing);
    assert!((0..7).all(|number| store.count(key(&format!("/{number}")).as_key()) == 0));
}

#[test]
fn the_most_used_objects_come_first() {
    let store = Store::new(1 << 20);
    for (path, hits) in [("/rare", 1), ("/often", 9), ("/never", 0)] {
        let key = tagged(&store, "shop.example", path, &[]);
        let stored = found(&store, &key).expect("it was put in");
        (0..hits).for_each(|_| stored.life().hit());
    }
    let top = store.top(2);
    let paths: Vec<&[u8]> = top
        .iter()
        .map(|seen| seen.key.as_key().parts().expect("parts").path)
        .collect();
    assert_eq!(paths, [&b"/often"[..], b"/rare"]);
}

#[test]
fn the_index_of_tags_is_as_bounded_as_the_store() {
    let store = Store::new(64 << 10);
    for number in 0..2000 {
        let host = format!("host-{number}.example");
        tagged(&store, &host, "/", &[&format!("tag-{number}")]);
    }
    store.tidy(store.tags().latest());
    let entries = usize::try_from(store.figures().entries).expect("few");
    assert!((1..500).contains(&entries), "{entries}");
    // Its own tag and that of its host for each, and one of all.
    assert_eq!(store.tags().len(), 2 * entries + 1);

    store.purge_tag(tags::ALL, Mode::Hard);
    store.tidy(store.tags().latest());
    assert_eq!((store.tags().len(), store.figures().entries), (0, 0));
}
