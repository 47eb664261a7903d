//! The cache through the real front, against an origin scripted step by step.

use crate::support::Seen;
use crate::support::client::HOST;
use crate::support::h2::H2;
use crate::support::{Answer, Ask, Edge, Origin, Setup, wait};

/// A route with this `cache = {...}` in front of the origin.
pub(crate) fn cached(origin: &Origin, cache: &str) -> Edge {
    cached_in(origin, "", cache)
}

/// The same with these lines in `[cache]`.
pub(crate) fn cached_in(origin: &Origin, store: &str, cache: &str) -> Edge {
    Setup::new().with("APP", origin.address).start(&format!(
        r#"
        [cache]
        {store}
        [upstream.app]
        endpoints = ["@APP@"]
        outlier_detection = false
        [[route]]
        name = "pages"
        upstream = "app"
        cache = {cache}
        [[route]]
        name = "plain"
        match = {{ path_prefix = "/uncached" }}
        upstream = "app"
        "#
    ))
}

/// Answers with the number of the request, so that a repeat shows.
pub(crate) fn counting(answer: impl Fn(&Seen, Answer) -> Answer + Send + Sync + 'static) -> Origin {
    Origin::start(move |seen| answer(seen, Answer::ok(format!("{} #{}", seen.target, seen.nth))))
}

fn fresh_for(seconds: u32) -> Origin {
    counting(move |_, a| a.field("Cache-Control", &format!("max-age={seconds}")))
}

#[track_caller]
fn expect_hit(edge: &Edge, ask: &Ask) -> String {
    let reply = edge.ask(ask).expect(200);
    assert!(reply.is_hit(), "{ask:?}: {reply:?}");
    reply.text()
}

#[test]
fn a_fresh_page_is_answered_without_the_origin_and_says_so() {
    let origin = fresh_for(60);
    let edge = cached(&origin, "{}");
    let first = edge.get("/a").expect(200);
    assert!(!first.is_hit());
    assert!(first.cache_status().starts_with("Tidegate;"), "{first:?}");
    assert!(first.cache_status().contains("fwd="), "{first:?}");
    let second = edge.get("/a").expect(200);
    assert!(
        second.cache_status().starts_with("Tidegate;hit"),
        "{second:?}"
    );
    assert_eq!(second.text(), first.text());
    let age: u64 = second.field("age").expect("Age").parse().unwrap();
    assert!(age < 10, "{age}");
    assert_eq!(origin.count(), 1);
    edge.await_metric(
        r#"tidegate_cache_requests_total{route="pages",result="hit"}"#,
        1.0,
    );
    edge.await_metric(
        r#"tidegate_cache_requests_total{route="pages",result="miss"}"#,
        1.0,
    );
    assert!(edge.metric("tidegate_cache_memory_bytes") > 0.0);
    assert_eq!(edge.metric("tidegate_cache_entries"), 1.0);
}

#[test]
fn hits_are_the_same_over_h1_h2_and_tls_of_one_scheme() {
    let origin = fresh_for(60);
    let edge = cached(&origin, "{}");
    let text = edge.tls().ask(&Ask::get("/a")).text();
    let reply = H2::tls(edge.https(), HOST).ask(&Ask::get("/a"));
    assert!(reply.is_hit(), "{reply:?}");
    assert_eq!(reply.text(), text);
    assert_eq!(origin.count(), 1);
}

#[test]
fn a_route_without_cache_never_stores_and_says_nothing_of_it() {
    let origin = fresh_for(60);
    let edge = cached(&origin, "{}");
    for _ in 0..2 {
        let reply = edge.get("/uncached").expect(200);
        assert_eq!(reply.field("cache-status"), None);
    }
    assert_eq!(origin.count(), 2);
}

#[test]
fn what_must_not_be_shared_is_never_stored() {
    for (what, field, value) in [
        ("no-store", "Cache-Control", "no-store, max-age=60"),
        ("private", "Cache-Control", "private, max-age=60"),
        ("max-age=0", "Cache-Control", "max-age=0"),
        (
            "s-maxage=0 beats max-age",
            "Cache-Control",
            "max-age=60, s-maxage=0",
        ),
        ("Vary: *", "Vary", "*"),
        ("Set-Cookie", "Set-Cookie", "sid=secret"),
    ] {
        let origin = counting(move |_, a| {
            let a = match field {
                "Cache-Control" => a,
                _ => a.field("Cache-Control", "public, max-age=60"),
            };
            a.field(field, value)
        });
        let edge = cached(&origin, "{ ttl = \"60s\" }");
        for _ in 0..3 {
            assert!(!edge.get("/a").expect(200).is_hit(), "{what}");
        }
        assert_eq!(origin.count(), 3, "{what}");
    }
}

#[test]
fn an_authorized_request_is_stored_only_when_route_and_origin_allow_it_in_words() {
    for (cache_control, stored) in [
        ("max-age=60", false),
        ("public, max-age=60", true),
        ("s-maxage=60", true),
        ("max-age=60, must-revalidate", true),
    ] {
        let origin = counting(move |_, a| a.field("Cache-Control", cache_control));
        let shared = cached(&origin, "{ share_authorized = true }");
        let never = cached(&origin, "{}");
        for (edge, stored) in [(shared, stored), (never, false)] {
            let ask = Ask::get("/me").field("Authorization", "Bearer alice");
            edge.ask(&ask).expect(200);
            let second = edge.get("/me").expect(200);
            assert_eq!(second.is_hit(), stored, "{cache_control}");
        }
    }
}

#[test]
fn the_origins_lifetime_wins_over_the_routes() {
    let origin = counting(|seen, a| match seen.target.as_str() {
        "/silent" => a,
        _ => a.field("Cache-Control", "max-age=1"),
    });
    let edge = cached(&origin, "{ ttl = \"60s\" }");
    edge.get("/silent");
    edge.get("/spoken");
    wait::hold(wait::millis(2_100));
    assert!(edge.get("/silent").is_hit());
    assert!(!edge.get("/spoken").is_hit());
}

#[test]
fn without_any_lifetime_nothing_is_kept_by_default() {
    let origin = counting(|_, a| a);
    let edge = cached(&origin, "{}");
    edge.get("/a");
    assert!(!edge.get("/a").is_hit());
}

#[test]
fn an_upstream_age_counts() {
    let origin = counting(|_, a| a.field("Cache-Control", "max-age=60").field("Age", "58"));
    let edge = cached(&origin, "{}");
    edge.get("/a");
    let hit = edge.get("/a");
    let age: u64 = hit.field("age").expect("Age").parse().unwrap();
    assert!(age >= 58, "{age}");
    assert_eq!(hit.all("age").len(), 1);
    wait::hold(wait::millis(3_000));
    assert!(!edge.get("/a").is_hit());
}

#[test]
fn only_get_and_head_are_answered_and_head_from_a_stored_get() {
    let origin = fresh_for(60);
    let edge = cached(&origin, "{}");
    let body = edge.get("/a").text();
    let mut conn = edge.plain();
    let head = conn.ask(&Ask::head("/a")).expect(200);
    assert!(head.is_hit(), "{head:?}");
    assert_eq!(
        head.field("content-length"),
        Some(body.len().to_string().as_str())
    );
    assert_eq!(conn.ask(&Ask::get("/a")).text(), body);
    for _ in 0..2 {
        assert!(!edge.ask(&Ask::post("/post", "x")).is_hit());
        assert!(!edge.ask(&Ask::new("OPTIONS", "/a")).is_hit());
    }
}

#[test]
fn the_query_is_part_of_the_key_and_the_normalised_path_is_what_counts() {
    let origin = fresh_for(60);
    let edge = cached(&origin, "{}");
    let a = edge.get("/a?x=1").text();
    assert_ne!(edge.get("/a?x=2").text(), a);
    assert_ne!(edge.get("/a").text(), a);
    assert_eq!(expect_hit(&edge, &Ask::get("/b/../%61?x=1")), a);
    let other = edge.ask(&Ask::get("/a?x=1").host("other.test")).text();
    assert_ne!(other, a);
}

#[test]
fn each_variant_is_stored_by_what_the_origin_varies_on() {
    let origin = Origin::start(|seen| {
        let language = seen.field("accept-language").unwrap_or("none");
        Answer::fresh(60, language).field("Vary", "Accept-Language")
    });
    let edge = cached(&origin, "{}");
    for round in 0..2 {
        for language in ["de", "en", "fr"] {
            let reply = edge.ask(&Ask::get("/a").field("Accept-Language", language));
            assert_eq!(reply.text(), language);
            assert_eq!(reply.is_hit(), round == 1, "{language} {round}");
        }
        assert_eq!(edge.get("/a").text(), "none");
    }
    assert_eq!(origin.count(), 4);
}

#[test]
fn a_route_varies_on_more_when_the_file_says_so() {
    let origin = Origin::start(|seen| Answer::fresh(60, seen.field("x-market").unwrap_or("none")));
    let edge = cached(&origin, "{ vary = [\"x-market\"] }");
    for market in ["eu", "us", "eu"] {
        assert_eq!(
            edge.ask(&Ask::get("/a").field("X-Market", market)).text(),
            market
        );
    }
    assert_eq!(origin.count(), 2);
}

#[test]
fn a_client_that_has_the_page_gets_304_from_the_cache() {
    let origin = counting(|_, a| {
        a.field("Cache-Control", "max-age=60")
            .field("ETag", "\"v1\"")
            .field("Last-Modified", "Tue, 01 Jan 2019 00:00:00 GMT")
    });
    let edge = cached(&origin, "{}");
    edge.get("/a").expect(200);
    for (name, value, status) in [
        ("If-None-Match", "\"v1\"", 304),
        ("If-None-Match", "W/\"v1\"", 304),
        ("If-None-Match", "\"v0\", \"v1\"", 304),
        ("If-None-Match", "*", 304),
        ("If-None-Match", "\"v2\"", 200),
        ("If-Modified-Since", "Tue, 01 Jan 2019 00:00:00 GMT", 304),
        ("If-Modified-Since", "Mon, 01 Jan 2018 00:00:00 GMT", 200),
    ] {
        let reply = edge.ask(&Ask::get("/a").field(name, value)).expect(status);
        if status == 304 {
            assert_eq!(reply.field("etag"), Some("\"v1\""));
            assert_eq!(reply.field("content-type"), None);
        }
    }
    assert_eq!(origin.count(), 1);
}

#[test]
fn a_range_of_a_stored_page_is_cut_from_it() {
    let origin = Origin::start(|_| Answer::fresh(60, "0123456789").field("ETag", "\"v1\""));
    let edge = cached(&origin, "{}");
    edge.get("/a").expect(200);
    let part = edge
        .ask(&Ask::get("/a").field("Range", "bytes=2-4"))
        .expect(206);
    assert_eq!(part.text(), "234");
    assert_eq!(part.field("content-range"), Some("bytes 2-4/10"));
    let none = edge
        .ask(&Ask::get("/a").field("Range", "bytes=20-"))
        .expect(416);
    assert_eq!(none.field("content-range"), Some("bytes */10"));
    let old = Ask::get("/a")
        .field("Range", "bytes=2-4")
        .field("If-Range", "\"v0\"");
    assert_eq!(edge.ask(&old).expect(200).text(), "0123456789");
    assert_eq!(origin.count(), 1);
}

#[test]
fn a_partial_reply_never_takes_the_place_of_the_whole() {
    let origin = Origin::start(|seen| match seen.field("range") {
        Some(_) => Answer::new(206, "01")
            .field("Content-Range", "bytes 0-1/10")
            .field("Cache-Control", "max-age=60"),
        None => Answer::fresh(60, "0123456789"),
    });
    let edge = cached(&origin, "{}");
    let part = edge.ask(&Ask::get("/a").field("Range", "bytes=0-1"));
    assert!(matches!(part.status, 200 | 206), "{part:?}");
    assert_eq!(edge.get("/a").expect(200).text(), "0123456789");
}

#[test]
fn a_stale_page_is_validated_and_a_304_renews_it() {
    let origin = counting(|seen, a| {
        let a = match seen.field("if-none-match") {
            Some("\"v1\"") => Answer::new(304, ""),
            _ => a,
        };
        a.field("Cache-Control", "max-age=1")
            .field("ETag", "\"v1\"")
    });
    let edge = cached(&origin, "{}");
    let text = edge.get("/a").text();
    wait::hold(wait::millis(2_100));
    let renewed = edge.get("/a").expect(200);
    assert_eq!(renewed.text(), text);
    assert_eq!(origin.last().field("if-none-match"), Some("\"v1\""));
    assert!(edge.get("/a").is_hit());
    assert_eq!(origin.count(), 2);
}

#[test]
fn no_cache_pages_are_validated_each_time() {
    let origin = counting(|seen, a| {
        let a = match seen.field("if-none-match") {
            Some(_) => Answer::new(304, ""),
            None => a,
        };
        a.field("Cache-Control", "no-cache").field("ETag", "\"v1\"")
    });
    let edge = cached(&origin, "{}");
    let text = edge.get("/a").text();
    for _ in 0..2 {
        assert_eq!(edge.get("/a").expect(200).text(), text);
    }
    assert_eq!(origin.count(), 3);
}

#[test]
fn requests_can_ask_for_fresher_or_for_nothing_but_the_cache() {
    let origin = fresh_for(60);
    let edge = cached(&origin, "{}");
    edge.ask(&Ask::get("/a").field("Cache-Control", "only-if-cached"))
        .expect(504);
    assert_eq!(origin.count(), 0);
    edge.get("/a");
    let only = Ask::get("/a").field("Cache-Control", "only-if-cached");
    assert!(edge.ask(&only).expect(200).is_hit());
    for directive in ["no-cache", "max-age=0"] {
        assert!(
            !edge
                .ask(&Ask::get("/a").field("Cache-Control", directive))
                .is_hit()
        );
    }
    assert!(
        !edge
            .ask(&Ask::get("/a").field("Pragma", "no-cache"))
            .is_hit()
    );
    assert_eq!(origin.count(), 4);
}

#[test]
fn an_unsafe_method_invalidates_the_page_and_what_the_reply_points_to() {
    let origin = counting(
        |seen, a| match (seen.method.as_str(), seen.target.as_str()) {
            ("POST", "/fails") => Answer::new(500, "no"),
            ("POST", _) => Answer::new(201, "").field("Location", "/list"),
            _ => a.field("Cache-Control", "max-age=60"),
        },
    );
    let edge = cached(&origin, "{}");
    for target in ["/item", "/list", "/fails", "/else"] {
        edge.get(target);
        assert!(edge.get(target).is_hit(), "{target}");
    }
    edge.ask(&Ask::post("/item", "x")).expect(201);
    assert!(!edge.get("/item").is_hit());
    assert!(!edge.get("/list").is_hit());
    assert!(edge.get("/else").is_hit());
    edge.ask(&Ask::post("/fails", "x")).expect(500);
    assert!(edge.get("/fails").is_hit(), "an error invalidates nothing");
}

#[test]
fn an_unsafe_request_on_another_route_invalidates_what_is_stored() {
    let origin = counting(|seen, a| match seen.method.as_str() {
        "POST" => Answer::new(201, "").field("Location", "/list"),
        _ => a.field("Cache-Control", "max-age=60"),
    });
    for lane in ["on", "off"] {
        let edge = Setup::new().with("APP", origin.address).start(&format!(
            "[server]\nlane = \"{lane}\"\n[upstream.app]\nendpoints = [\"@APP@\"]\n\
             [[route]]\nmatch = {{ method = [\"GET\", \"HEAD\"] }}\nupstream = \"app\"\ncache = {{}}\n\
             [[route]]\nupstream = \"app\"\n"
        ));
        for body in ["x".to_owned(), "x".repeat(300_000)] {
            for target in ["/item", "/list", "/else"] {
                edge.get(target);
                assert!(edge.get(target).is_hit(), "{target}");
            }
            let reply = edge.ask(&Ask::post("/item", body)).expect(201);
            assert_eq!(reply.field("cache-status"), None, "the route has no cache");
            assert!(!edge.get("/item").is_hit(), "lane {lane}");
            assert!(!edge.get("/list").is_hit(), "lane {lane}");
            assert!(edge.get("/else").is_hit(), "lane {lane}");
        }
    }
}

#[test]
fn one_page_is_purged_through_the_admin_server_with_all_its_variants() {
    let origin = Origin::start(|seen| {
        Answer::fresh(60, seen.nth.to_string()).field("Vary", "Accept-Language")
    });
    let edge = cached(&origin, "{}");
    let asks = [
        Ask::get("/a?x=1"),
        Ask::get("/a?x=1").field("Accept-Language", "de"),
        Ask::get("/b"),
    ];
    for ask in &asks {
        edge.ask(ask);
        expect_hit(&edge, ask);
    }
    let purge = "/cache/purge?url=http://shop.test/a?x=1";
    let unauthorised = edge.admin_ask(&Ask::post(purge, ""));
    assert_eq!(unauthorised.status, 401);
    let wrong = Ask::post(purge, "").field("Authorization", "Bearer wrong");
    assert!(matches!(edge.admin_ask(&wrong).status, 401 | 403));
    assert!(edge.ask(&asks[0]).is_hit());
    let purged = edge.command(purge);
    assert!((200..300).contains(&purged.status), "{purged:?}");
    assert!(!edge.ask(&asks[0]).is_hit());
    assert!(!edge.ask(&asks[1]).is_hit());
    assert!(edge.ask(&asks[2]).is_hit());
    assert!(edge.metric("tidegate_cache_purges_total") >= 1.0);
    assert_eq!(edge.admin(purge).status, 405);
}

#[test]
fn what_belongs_to_one_reply_is_not_stored_with_the_page() {
    let origin = Origin::start(|_| {
        Answer::fresh(60, "x")
            .field("Connection", "x-hop")
            .field("X-Hop", "1")
            .field("X-Page", "1")
    });
    let edge = cached(&origin, "{}");
    let first = edge.get("/a");
    let hit = edge.get("/a");
    assert!(hit.is_hit());
    assert_eq!(hit.field("x-page"), Some("1"));
    assert_eq!(hit.field("x-hop"), None);
    assert_ne!(hit.field("x-request-id"), first.field("x-request-id"));
    assert_eq!(hit.all("x-request-id").len(), 1);
}

#[test]
fn filters_apply_to_hits_as_to_misses() {
    let origin = Origin::start(|_| Answer::fresh(60, "x").field("Server", "app"));
    let edge = Setup::new().with("APP", origin.address).start(
        r#"
        [upstream.app]
        endpoints = ["@APP@"]
        [filter.site]
        response_headers = { remove = ["server"], set = { x-site = "1" } }
        [filter.door]
        deny = ["127.0.0.1"]
        [[route]]
        match = { headers = { x-outside = true } }
        upstream = "app"
        cache = {}
        filters = ["door"]
        [[route]]
        upstream = "app"
        cache = {}
        filters = ["site"]
        "#,
    );
    for hit in [false, true] {
        let reply = edge.get("/a");
        assert_eq!(reply.is_hit(), hit);
        assert_eq!(
            (reply.field("server"), reply.field("x-site")),
            (None, Some("1"))
        );
    }
    edge.ask(&Ask::get("/a").field("X-Outside", "1"))
        .expect(403);
}
