//! Looking into the cache: what `/cache` and `/cache/inspect` say is what is there and what happens.

use serde_json::Value;

use crate::cache::{cached, cached_in, counting};
use crate::cache_purge::purge;
use crate::support::{Answer, Ask, Edge, Gate, Origin, Setup, wait};

/// What is said of a page, for a request with these fields (percent-encoded).
#[track_caller]
fn inspect(edge: &Edge, url: &str, fields: &[&str]) -> Value {
    let fields: String = fields
        .iter()
        .map(|field| format!("header={field}&"))
        .collect();
    edge.json(&format!("/cache/inspect?{fields}url={url}"))
}

#[track_caller]
fn decision(edge: &Edge, url: &str, fields: &[&str]) -> (String, String) {
    let said = inspect(edge, url, fields);
    let word = |name: &str| said[name].as_str().unwrap_or_default().to_owned();
    (word("decision"), word("why"))
}

#[test]
fn an_inspected_page_shows_its_age_lifetime_tags_and_variants() {
    let origin = counting(|_, a| {
        a.field(
            "Cache-Control",
            "max-age=100, stale-while-revalidate=30, stale-if-error=40",
        )
        .field("Age", "20")
        .field("ETag", "\"v1\"")
        .field("Last-Modified", "Tue, 01 Jan 2019 00:00:00 GMT")
        .field("Vary", "Accept-Language")
        .field("Surrogate-Key", "p42 list")
    });
    let edge = cached(&origin, "{}");
    for language in ["de", "en"] {
        edge.ask(&Ask::get("/a?q=1").field("Accept-Language", language));
    }
    wait::eventually("a hit", wait::SOON, || {
        let ask = Ask::get("/a?q=1").field("Accept-Language", "de");
        edge.ask(&ask).is_hit()
    });
    let said = inspect(&edge, "http://shop.test/a?q=1", &["accept-language:%20de"]);
    assert_eq!(said["route"], "pages");
    assert_eq!(said["key"], "http://shop.test/a?q=1");
    assert_eq!(said["decision"], "serve");
    assert_eq!(said["not_shared"], false);
    let stored = said["stored"].as_array().expect("a list");
    assert_eq!(stored.len(), 2, "{said}");
    let german = stored
        .iter()
        .find(|one| one["varies_by"][0]["value"] == "de")
        .expect("the German one");
    assert_eq!(german["varies_by"][0]["header"], "accept-language");
    assert_eq!(german["status"], 200);
    assert_eq!(german["bytes"], "/a?q=1 #0".len());
    assert_eq!(german["lifetime_seconds"], 100);
    assert_eq!(german["lifetime_from"], "max-age");
    assert_eq!(german["stale_while_revalidate_seconds"], 30);
    assert_eq!(german["stale_if_error_seconds"], 40);
    assert_eq!(german["soft_purged_seconds_ago"], Value::Null);
    assert_eq!(german["etag"], "\"v1\"");
    assert_eq!(german["last_modified"], "Tue, 01 Jan 2019 00:00:00 GMT");
    let mut tags: Vec<_> = german["tags"].as_array().unwrap().clone();
    tags.sort_by_key(ToString::to_string);
    assert_eq!(tags, ["list", "p42"]);
    assert!(german["hits"].as_u64().unwrap() >= 1);
    let number = |name: &str| german[name].as_i64().expect(name);
    let age = number("age_seconds");
    assert!((20..40).contains(&age), "{age}");
    let left = number("fresh_for_seconds");
    assert!((99..=100).contains(&(age + left)), "{age} and {left}");
    let shown = edge.ask(&Ask::get("/a?q=1").field("Accept-Language", "de"));
    let shown: i64 = shown.field("age").unwrap().parse().unwrap();
    assert!(shown >= age && shown - age < 10, "{shown} and {age}");

    assert_eq!(purge(&edge, "soft=true&tag=p42")["purged"], 2);
    let ask = Ask::get("/a?q=1").field("Accept-Language", "de");
    let (word, why) = decision(&edge, "http://shop.test/a?q=1", &["accept-language:%20de"]);
    assert_eq!(word, "serve", "{why}");
    assert!(why.contains("purged softly"), "{why}");
    assert!(edge.ask(&ask).is_hit());
}

/// What is said beforehand is what a request then gets.
#[test]
fn the_decision_is_the_one_that_a_request_meets() {
    let origin = counting(|seen, a| {
        let a = match seen.field("if-none-match") {
            Some(_) => Answer::new(304, ""),
            None => a,
        };
        let control = match seen.target.as_str() {
            "/fresh" => "max-age=600",
            "/no-cache" => "no-cache",
            "/stale" => "max-age=0",
            "/swr" => "max-age=0, stale-while-revalidate=600",
            _ => "no-store",
        };
        a.field("Cache-Control", control)
            .field("ETag", "\"v1\"")
            .field("Vary", "X-Market")
    });
    let edge = cached_in(&origin, "session_cookies = [\"sid\"]", "{}");
    let only = "cache-control:%20only-if-cached";
    let fresh = "cache-control:%20max-age=0";
    for target in ["/fresh", "/no-cache", "/stale", "/swr", "/unstored"] {
        edge.get(target).expect(200);
    }
    for (target, fields, word, reason) in [
        ("/fresh", &[][..], "serve", "fresh for"),
        (
            "/fresh",
            &[fresh],
            "validate",
            "the request wants it fresher",
        ),
        ("/fresh", &[only], "serve", "fresh for"),
        ("/fresh", &["x-market:eu"], "fetch", "headers of Vary"),
        (
            "/fresh",
            &["x-market:eu", only],
            "gateway-timeout",
            "there is none",
        ),
        ("/no-cache", &[], "validate", "no-cache"),
        ("/no-cache", &[only], "gateway-timeout", "validated first"),
        ("/stale", &[], "validate", "stale for"),
        ("/stale", &["cache-control:max-stale"], "serve", "max-stale"),
        ("/swr", &[], "serve", "stale-while-revalidate of 600"),
        ("/unstored", &[], "fetch", "nothing is stored"),
        ("/unstored", &[only], "gateway-timeout", "there is none"),
        ("/unstored", &["cookie:sid=1"], "fetch", "one visitor's own"),
        (
            "/unstored",
            &["authorization:x"],
            "fetch",
            "one visitor's own",
        ),
    ] {
        let url = format!("http://shop.test{target}");
        let (said, why) = decision(&edge, &url, fields);
        assert_eq!(said, word, "{target} {fields:?}: {why}");
        assert!(why.contains(reason), "{target} {fields:?}: {why}");
        let ask = fields.iter().fold(Ask::get(target), |ask, field| {
            let (name, value) = field.split_once(':').expect("a field");
            ask.field(name, value.trim_start_matches("%20"))
        });
        let reply = edge.ask(&ask);
        let met = match reply.status {
            504 => "gateway-timeout",
            _ if reply.is_hit() => "serve",
            _ if reply.cache_status().contains("fwd-status=304") => "validate",
            _ => "fetch",
        };
        assert_eq!(met, word, "{target} {fields:?}: {reply:?}");
        if target == "/fresh" && fields.contains(&"x-market:eu") {
            // It is stored now; the next row wants it away.
            purge(&edge, "url=http://shop.test/fresh");
            edge.get("/fresh").expect(200);
        }
        wait::eventually("all fetches to end", wait::SOON, || {
            edge.json("/cache")["fetches"] == 0
        });
    }
}

#[test]
fn an_inspection_finds_the_route_or_says_that_there_is_none() {
    let origin = counting(|_, a| a.field("Cache-Control", "max-age=600"));
    let edge = Setup::new().with("APP", origin.address).start(
        r#"
        [upstream.app]
        endpoints = ["@APP@"]
        [[route]]
        name = "german"
        match = { host = "shop.test", headers = { x-shop = "de" } }
        upstream = "app"
        cache = { show_key = true }
        [[route]]
        name = "plain"
        match = { host = "shop.test", path_prefix = "/uncached" }
        upstream = "app"
        "#,
    );
    let url = "http://shop.test/a";
    assert_eq!(inspect(&edge, url, &[])["why"], "no route takes this URL");
    assert_eq!(inspect(&edge, url, &["x-shop:de"])["route"], "german");
    let plain = inspect(&edge, "https://shop.test/uncached/x", &[]);
    assert_eq!(plain["why"], "the route does not cache");
    for (query, word) in [
        ("", "name the page"),
        ("url=/a", "whole URL"),
        ("header=x&url=http://shop.test/a", "NAME: VALUE"),
        ("page=1", "no parameter"),
    ] {
        let reply = edge.admin(&format!("/cache/inspect?{query}"));
        assert_eq!(reply.status, 400, "{query}");
        assert!(reply.text().contains(word), "{query}: {}", reply.text());
    }
    let refused = edge.command("/cache/inspect?url=http://shop.test/a");
    assert_eq!(refused.status, 405);
}

#[test]
fn a_page_of_https_is_found_behind_a_trusted_proxy_that_ends_it() {
    let origin = counting(|_, a| a.field("Cache-Control", "max-age=600"));
    let edge = Setup::new().with("APP", origin.address).start(
        r#"
        [server]
        trusted_proxies = ["127.0.0.1"]
        [[listener]]
        name = "plain"
        address = "@HTTP@"
        [upstream.app]
        endpoints = ["@APP@"]
        [[route]]
        upstream = "app"
        cache = {}
        "#,
    );
    let ask = Ask::get("/a").field("X-Forwarded-Proto", "https");
    edge.ask(&ask).expect(200);
    let said = inspect(&edge, "https://shop.test/a", &[]);
    assert_eq!(said["stored"].as_array().map(Vec::len), Some(1), "{said}");
    let other = inspect(&edge, "http://shop.test/a", &[]);
    assert_eq!(other["stored"].as_array().map(Vec::len), Some(0), "{other}");
}

#[test]
fn the_overview_shows_what_is_stored_used_tagged_and_on_its_way() {
    let gate = Gate::default();
    let held = gate.clone();
    let origin = counting(move |seen, a| {
        let a = a.field("Cache-Control", "max-age=600").field(
            "Surrogate-Key",
            &format!("all {}", seen.target.trim_start_matches('/')),
        );
        if seen.target == "/slow" {
            a.when(&held)
        } else {
            a
        }
    });
    let edge = cached(&origin, "{}");
    for (target, hits) in [("/a", 3), ("/b", 1), ("/c", 0)] {
        edge.get(target).expect(200);
        for _ in 0..hits {
            assert!(edge.get(target).is_hit());
        }
    }
    let mut slow = edge.plain();
    slow.send(Ask::get("/slow").bytes());
    wait::eventually("the fetch", wait::SOON, || origin.count() == 4);
    let said = edge.json("/cache");
    assert_eq!(said["fetches"], 1, "{said}");
    let memory = &said["memory"];
    assert_eq!(memory["entries"], 3, "{said}");
    assert_eq!(memory["inserts"], 3, "{said}");
    assert_eq!(memory["limit"], 256 << 20, "{said}");
    let bytes = memory["bytes"].as_u64().expect("bytes");
    assert!((100..100_000).contains(&bytes), "{bytes}");
    assert_eq!(said["top"][0]["key"], "http://shop.test/a");
    assert_eq!(said["top"][0]["hits"], 3);
    assert_eq!(said["top"][1]["key"], "http://shop.test/b");
    assert_eq!(said["tags"]["distinct"], 4);
    assert_eq!(said["tags"]["top"][0]["tag"], "all");
    assert_eq!(said["tags"]["top"][0]["objects"], 3);
    assert_eq!(said["purged_objects"], 0);
    gate.open();
    slow.reply().expect(200);
    purge(&edge, "tag=a");
    wait::eventually("the purge to show", wait::SOON, || {
        let said = edge.json("/cache");
        said["purged_objects"] == 1 && said["memory"]["entries"] == 3
    });
}

#[test]
fn the_key_stands_in_cache_status_where_the_route_shows_it() {
    let origin = Origin::start(|seen| match seen.target.as_str() {
        "/private" => Answer::ok("x").field("Cache-Control", "private"),
        _ => Answer::fresh(600, "x"),
    });
    let edge = cached(
        &origin,
        "{ show_key = true, drop_query = [\"utm_*\"], key_headers = [\"x-market\"], key_cookies = [\"land\"] }",
    );
    let ask = |target: &str| {
        Ask::get(target)
            .field("X-Market", "e\"u")
            .field("Cookie", "a=b; land=ch")
    };
    let key = r#";key="http://shop.test/a?q=1 [x-market=e\"u, land=ch]""#;
    for what in ["stored", "hit"] {
        let reply = edge.ask(&ask("/a?q=1&utm_source=x")).expect(200);
        let said = reply.cache_status();
        assert!(said.contains(what) && said.contains(key), "{said}");
    }
    let bare = edge.get("/private").expect(200).cache_status();
    let key = r#";key="http://shop.test/private [x-market, land]""#;
    assert!(
        bare.contains(key) && bare.contains("detail=private"),
        "{bare}"
    );
    let only = Ask::get("/never").field("Cache-Control", "only-if-cached");
    assert!(edge.ask(&only).expect(504).cache_status().contains(";key="));
    let quiet = cached(&origin, "{}");
    for _ in 0..2 {
        let reply = quiet.get("/a").expect(200);
        assert!(!reply.cache_status().contains("key="), "{reply:?}");
    }
}

/// Whatever way a reply came on, if it was fetched and not stored, that is counted.
#[test]
fn every_fetched_reply_that_is_not_stored_is_counted_with_its_reason() {
    let origin = counting(|seen, a| match (seen.target.as_str(), seen.nth) {
        ("/grows", _) => Answer::chunks(&["x".repeat(150_000)], wait::millis(0))
            .field("Cache-Control", "max-age=600"),
        (_, 0) => a
            .field("Cache-Control", "max-age=0, stale-while-revalidate=600")
            .field("ETag", "\"v1\""),
        _ => a.field("Cache-Control", "no-store"),
    });
    let counted = |edge: &Edge, reason: &str| {
        edge.metric(&format!(
            "tidegate_cache_not_stored_total{{reason=\"{reason}\"}}"
        ))
    };
    let edge = cached(&origin, "{}");
    edge.get("/refreshed").expect(200);
    assert!(edge.get("/refreshed").expect(200).is_hit());
    wait::eventually("the refresh that is not stored", wait::SOON, || {
        counted(&edge, "no-store") == 1.0
    });

    let tagging = Origin::start(|seen| {
        let many: Vec<String> = (0..1001).map(|n| format!("t{n}")).collect();
        match seen.field("if-none-match") {
            Some(_) => Answer::new(304, "").field("xkey", &many.join(" ")),
            None => Answer::ok("x")
                .field("Cache-Control", "no-cache")
                .field("ETag", "\"v1\""),
        }
    });
    let edge = cached(&tagging, "{}");
    edge.get("/renewed").expect(200);
    let reply = edge.get("/renewed").expect(200);
    assert_eq!(reply.text(), "x");
    let said = reply.cache_status();
    assert!(
        said.contains("fwd-status=304") && said.contains("detail=tags"),
        "{said}"
    );
    assert_eq!(counted(&edge, "tags"), 1.0);

    let edge = cached_in(&origin, "max_object_size = \"100KiB\"", "{}");
    assert_eq!(edge.get("/grows").expect(200).body.len(), 150_000);
    wait::eventually("what outgrew the store", wait::SOON, || {
        counted(&edge, "too-large") == 1.0
    });
}
