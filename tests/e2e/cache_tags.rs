//! Tags: what an application says of its pages to the cache stays between the two, counts exactly,
//! and is bounded.

use crate::cache::{cached, cached_in, counting};
use crate::cache_purge::purge;
use crate::support::client::HOST;
use crate::support::h2::H2;
use crate::support::{Answer, Ask, Origin, Reply, wait};

const NAMES: [&str; 3] = ["surrogate-key", "cache-tag", "xkey"];

/// Every reply of its carries tags in all three fields.
fn tagging() -> Origin {
    Origin::start(|seen| {
        let answer = match seen.target.as_str() {
            _ if seen.field("if-none-match") == Some("\"v1\"") => Answer::new(304, ""),
            "/fails" => Answer::new(500, "no"),
            "/private" => Answer::ok("private").field("Cache-Control", "private"),
            "/stale" => Answer::fresh(0, "stale"),
            _ => Answer::fresh(600, "0123456789"),
        };
        answer
            .field("ETag", "\"v1\"")
            .field("Surrogate-Key", "a b")
            .field("Cache-Tag", "b, c")
            .field("XKey", "d")
            .field("XKey", "e")
    })
}

#[test]
fn tags_never_reach_a_client() {
    let origin = tagging();
    let edge = cached(&origin, "{}");
    let mut h2 = H2::tls(edge.https(), HOST);
    let if_match = |ask: Ask| ask.field("If-Match", "\"v1\"");
    let has_it = |ask: Ask| ask.field("If-None-Match", "\"v1\"");
    for (what, ask, status) in [
        ("a miss", Ask::get("/a"), 200),
        ("a hit", Ask::get("/a"), 200),
        ("HEAD from the store", Ask::head("/a"), 200),
        ("HEAD that misses", Ask::head("/b"), 200),
        ("HEAD past the cache", if_match(Ask::head("/a")), 200),
        ("GET past the cache", if_match(Ask::get("/a")), 200),
        ("304 from the store", has_it(Ask::get("/a")), 304),
        ("304 for a miss", has_it(Ask::get("/c")), 304),
        ("stored for validation", Ask::get("/stale"), 200),
        ("validated", Ask::get("/stale"), 200),
        (
            "a client's 304 of what is validated",
            has_it(Ask::get("/stale")),
            304,
        ),
        (
            "past the cache with the client's 304",
            has_it(Ask::post("/a", "x")),
            304,
        ),
        ("a part", Ask::get("/a").field("Range", "bytes=1-2"), 206),
        ("POST", Ask::post("/post", "x"), 200),
        ("OPTIONS", Ask::new("OPTIONS", "/a"), 200),
        ("what is not stored", Ask::get("/private"), 200),
        ("a failure", Ask::get("/fails"), 500),
    ] {
        let replies: [Reply; 2] = [edge.ask(&ask), h2.ask(&ask)];
        for reply in replies {
            assert_eq!(reply.status, status, "{what}: {reply:?}");
            for name in NAMES {
                assert_eq!(reply.field(name), None, "{what}: {reply:?}");
            }
        }
    }
}

#[test]
fn a_route_without_cache_passes_them_on_and_other_names_can_be_chosen() {
    let origin = tagging();
    let edge = cached(&origin, "{}");
    let reply = edge.get("/uncached").expect(200);
    assert_eq!(reply.field("surrogate-key"), Some("a b"));

    let own = counting(|_, a| {
        a.field("Cache-Control", "max-age=600")
            .field("X-Depends", "a")
            .field("XKey", "d")
    });
    let edge = cached_in(&own, "tags = [\"x-depends\"]", "{}");
    for _ in 0..2 {
        let reply = edge.get("/a").expect(200);
        let tags = (reply.field("x-depends"), reply.field("xkey"));
        assert_eq!(tags, (None, Some("d")), "{reply:?}");
    }
    assert_eq!(purge(&edge, "tag=d")["purged"], 0);
    assert_eq!(purge(&edge, "tag=a")["purged"], 1);

    let edge = cached_in(&own, "tags = []", "{}");
    for _ in 0..2 {
        let reply = edge.get("/a").expect(200);
        assert_eq!(reply.field("x-depends"), Some("a"));
    }
    assert_eq!(purge(&edge, "tag=a")["purged"], 0);
}

#[test]
fn tags_are_words_of_any_kind_each_counted_once() {
    let origin = counting(|_, a| {
        a.field("Cache-Control", "max-age=600")
            .field("Surrogate-Key", "p42  p42\tB&B")
            .field("Cache-Tag", "b,c , ,größe,p42")
    });
    let edge = cached(&origin, "{}");
    let fill = || {
        edge.get("/a").expect(200);
        wait::eventually("a hit", wait::SOON, || edge.get("/a").is_hit());
    };
    for tag in ["p42", "B%26B", "b", "c", "gr%C3%B6%C3%9Fe"] {
        fill();
        let dry = purge(&edge, &format!("dry_run=true&tag={tag}"));
        assert_eq!(dry["would_purge"], 1, "{tag}");
        assert_eq!(purge(&edge, &format!("tag={tag}"))["purged"], 1, "{tag}");
        assert!(!edge.get("/a").is_hit(), "{tag}");
    }
    for tag in ["P42", "p4", "B"] {
        assert_eq!(purge(&edge, &format!("tag={tag}"))["purged"], 0, "{tag}");
    }
    for tag in ["%20", "p42,b"] {
        let refused = edge.command(&format!("/cache/purge?tag={tag}"));
        assert!(refused.expect(400).text().contains("no space and no comma"));
    }
}

#[test]
fn a_304_may_state_other_tags_and_keeps_them_where_it_states_none() {
    let origin = Origin::start(|seen| {
        let answer = match seen.field("if-none-match") {
            Some(_) => Answer::new(304, ""),
            None => Answer::ok("x"),
        };
        let answer = answer
            .field("ETag", "\"v1\"")
            .field("Cache-Control", "no-cache");
        match (seen.nth, seen.target.as_str()) {
            (_, "/kept") if seen.nth > 0 => answer,
            (0, _) | (_, "/kept") => answer.field("xkey", "old"),
            _ => answer.field("xkey", "new"),
        }
    });
    let edge = cached(&origin, "{}");
    let count = |tag: &str| purge(&edge, &format!("dry_run=true&tag={tag}"))["would_purge"].clone();
    edge.get("/a").expect(200);
    assert_eq!((count("old"), count("new")), (1.into(), 0.into()));
    let reply = edge.get("/a").expect(200);
    assert!(reply.cache_status().contains("fwd-status=304"), "{reply:?}");
    assert_eq!((count("old"), count("new")), (0.into(), 1.into()));

    let origin = Origin::start(|seen| match seen.field("if-none-match") {
        Some(_) => Answer::new(304, "").field("ETag", "\"v1\""),
        None => Answer::ok("x")
            .field("ETag", "\"v1\"")
            .field("Cache-Control", "no-cache")
            .field("xkey", "old"),
    });
    let edge = cached(&origin, "{}");
    for _ in 0..2 {
        edge.get("/a").expect(200);
    }
    assert_eq!(purge(&edge, "tag=old")["purged"], 1);
}

/// As many as the header limits let through: the page passes, and is not stored.
#[test]
fn too_many_tags_are_counted_and_the_client_has_its_page() {
    let origin = Origin::start(|seen| {
        let many = |count: usize| (0..count).map(|n| format!("t{n}")).collect::<Vec<_>>();
        let answer = Answer::fresh(600, seen.target.clone());
        match seen.target.as_str() {
            "/1000" => answer.field("Surrogate-Key", &many(1000).join(" ")),
            "/1001" => answer.field("Surrogate-Key", &many(1001).join(" ")),
            "/10000" => answer.field("Cache-Tag", &many(10_000).join(",")),
            "/lines" => many(2000)
                .chunks(20)
                .fold(answer, |answer, tags| answer.field("xkey", &tags.join(" "))),
            "/twice" => answer.field("xkey", &"same ".repeat(1500)),
            "/512" => answer.field("xkey", &"x".repeat(512)),
            "/513" => answer.field("xkey", &"x".repeat(513)),
            _ => answer.field("xkey", &"x".repeat(500_000)),
        }
    });
    let edge = cached(&origin, "{}");
    let refused = r#"tidegate_cache_not_stored_total{reason="tags"}"#;
    for (target, stored) in [
        ("/1000", true),
        ("/1001", false),
        ("/10000", false),
        ("/lines", false),
        ("/twice", true),
        ("/512", true),
        ("/513", false),
        ("/huge", false),
    ] {
        let before = edge.metric(refused);
        let first = edge.get(target).expect(200);
        assert_eq!(first.text(), target);
        assert_eq!(first.field("surrogate-key"), None);
        let why = first.cache_status();
        assert_eq!(why.contains("detail=tags"), !stored, "{target}: {why}");
        let second = edge.get(target).expect(200);
        assert_eq!(second.is_hit(), stored, "{target}: {second:?}");
        let counted = if stored { 0.0 } else { 2.0 };
        assert_eq!(edge.metric(refused) - before, counted, "{target}");
    }
    // 1000 tags, one that repeats, one of the greatest length.
    assert_eq!(edge.metric("tidegate_cache_tags"), 1002.0);
    assert_eq!(purge(&edge, "tag=t999")["purged"], 1);
    assert_eq!(edge.metric("tidegate_cache_tags"), 2.0);
    assert_eq!(edge.metric("tidegate_cache_entries"), 2.0);
}

/// Two thousand pages under one tag go in one step.
#[test]
fn the_pages_of_a_large_tag_are_gone_at_once() {
    let origin = Origin::start(|seen| {
        let nth = seen.target.trim_start_matches('/').to_owned();
        Answer::fresh(600, nth.clone()).field("Surrogate-Key", &format!("all page-{nth}"))
    });
    let edge = cached(&origin, "{}");
    std::thread::scope(|scope| {
        for part in 0..4 {
            let edge = &edge;
            scope.spawn(move || {
                let mut conn = edge.plain();
                for nth in 0..500 {
                    let target = format!("/{}", part * 500 + nth);
                    conn.ask(&Ask::get(&target)).expect(200);
                }
            });
        }
    });
    wait::eventually("all to be stored", wait::SOON, || {
        purge(&edge, "dry_run=true&tag=all")["would_purge"] == 2000
    });
    assert_eq!(purge(&edge, "tag=page-7&tag=page-1999")["purged"], 2);
    assert_eq!(purge(&edge, "tag=all")["purged"], 1998);
    let mut conn = edge.plain();
    for nth in [0, 7, 1000, 1998] {
        assert!(!conn.ask(&Ask::get(&format!("/{nth}"))).is_hit(), "{nth}");
    }
    wait::eventually("the memory to be given back", wait::SOON, || {
        edge.metric("tidegate_cache_entries") == 4.0 && edge.metric("tidegate_cache_tags") == 5.0
    });
}
