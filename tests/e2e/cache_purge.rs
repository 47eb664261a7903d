//! Purges: every kind of them, hard and soft, takes exactly what it names with all its variants,
//! says how much that was, and reaches what is on its way.

use serde_json::Value;

use crate::cache::{cached_in, counting};
use crate::support::client::HOST;
use crate::support::{Answer, Ask, Conn, Edge, Gate, H2, Origin, Setup, wait};

/// The answer to a purge through the admin server.
#[track_caller]
pub(crate) fn purge(edge: &Edge, query: &str) -> Value {
    let reply = edge.command(&format!("/cache/purge?{query}"));
    assert!(matches!(reply.status, 200 | 404), "{query}: {reply:?}");
    serde_json::from_slice(&reply.body).expect("a JSON body")
}

const PAGES: [(&str, &str, &str); 4] = [
    ("shop.test", "/p/1", "one all-p"),
    ("shop.test", "/p/2", "two all-p"),
    ("shop.test", "/q", "q"),
    ("other.test", "/p/1", "one"),
];

/// What a purge takes, as places in [`PAGES`].
const PURGES: [(&str, &[usize]); 8] = [
    ("url=http://shop.test/p/1", &[0]),
    ("tag=one", &[0, 3]),
    ("prefix=http://shop.test/p", &[0, 1]),
    ("prefix=https://shop.test/p/2", &[1]),
    ("host=shop.test", &[0, 1, 2]),
    ("tag=q&host=other.test", &[2, 3]),
    ("tag=nobody", &[]),
    ("all=true", &[0, 1, 2, 3]),
];

/// Two languages of each page, of which the first is asked for compressed.
const LANGUAGES: [(&str, &str); 2] = [("de", "gzip"), ("en", "identity")];

fn site() -> Origin {
    Origin::start(|seen| {
        let host = seen.field("host").unwrap_or_default();
        let (_, _, tags) = PAGES
            .iter()
            .find(|(name, path, _)| *name == host && *path == seen.target)
            .expect("a page");
        let language = seen.field("accept-language").unwrap_or_default();
        let answer = match seen.field("if-none-match") {
            Some("\"v1\"") => Answer::new(304, ""),
            _ => Answer::ok(format!("{host}{} in {language} ", seen.target).repeat(50)),
        };
        answer
            .field("Cache-Control", "max-age=600")
            .field("Content-Type", "text/html")
            .field("ETag", "\"v1\"")
            .field("Vary", "Accept-Language")
            .field("Surrogate-Key", tags)
    })
}

fn ask(page: usize, language: &str, coding: &str) -> Ask {
    let (host, path, _) = PAGES[page];
    Ask::get(path)
        .host(host)
        .field("Accept-Language", language)
        .field("Accept-Encoding", coding)
}

/// Asks until every page is stored in every variant, compressed where that is asked for.
fn fill(conn: &mut Conn) {
    for page in 0..PAGES.len() {
        for (language, coding) in LANGUAGES {
            wait::eventually("the page to be stored", wait::SOON, || {
                let reply = conn.ask(&ask(page, language, coding)).expect(200);
                reply.is_hit()
                    && (coding == "identity") == reply.field("content-encoding").is_none()
            });
        }
    }
}

#[test]
fn every_purge_takes_what_it_names_in_all_variants_and_nothing_else() {
    let origin = site();
    let edge = cached_in(&origin, "", "{ compress = [\"gzip\"] }");
    let mut conn = edge.plain();
    for soft in [false, true] {
        let mode = if soft { "soft" } else { "hard" };
        for (what, pages) in PURGES {
            fill(&mut conn);
            let objects = (pages.len() * LANGUAGES.len()) as u64;
            let query = format!("soft={soft}&{what}");
            let dry = purge(&edge, &format!("dry_run=true&{query}"));
            assert_eq!(dry["would_purge"], objects, "{query}");
            assert_eq!(dry["mode"], mode, "{query}");
            let before = origin.count();
            fill(&mut conn);
            assert_eq!(
                origin.count(),
                before,
                "a dry run changed something: {query}"
            );

            let done = purge(&edge, &query);
            assert_eq!(done["purged"], objects, "{query}");
            assert_eq!(done["mode"], mode, "{query}");
            for page in 0..PAGES.len() {
                for (language, coding) in LANGUAGES {
                    let reply = conn.ask(&ask(page, language, coding)).expect(200);
                    let purged = pages.contains(&page);
                    let said = reply.cache_status();
                    assert_eq!(reply.is_hit(), !purged, "{query} {page} {language}: {said}");
                    if purged {
                        let why = if soft {
                            "fwd=stale;fwd-status=304"
                        } else {
                            "-miss"
                        };
                        assert!(said.contains(why), "{query} {page} {language}: {said}");
                    }
                }
            }
        }
    }
    let purges = edge.metric("tidegate_cache_purges_total");
    assert_eq!(
        purges, 14.0,
        "those that found something, dry runs not counted"
    );
}

#[test]
fn a_softly_purged_page_is_past_its_lifetime_and_may_be_served_as_such() {
    let gate = Gate::default();
    let held = gate.clone();
    let origin = counting(move |seen, a| {
        let a = a
            .field("Cache-Control", "max-age=600, stale-while-revalidate=600")
            .field("Surrogate-Key", "x");
        if seen.nth == 0 { a } else { a.when(&held) }
    });
    let edge = cached_in(&origin, "", "{}");
    let old = edge.get("/a").text();
    assert_eq!(purge(&edge, "soft=true&tag=x")["purged"], 1);
    let reply = edge.get("/a").expect(200);
    assert_eq!(reply.text(), old);
    let ttl = reply.cache_status();
    let ttl = ttl.rsplit_once("ttl=").map(|(_, ttl)| ttl.to_owned());
    let ttl: i64 = ttl.expect("a ttl").parse().unwrap();
    assert!(ttl <= 0, "{ttl} seconds fresh after a purge");
    wait::eventually("the renewal", wait::SOON, || origin.count() == 2);
    gate.open();
    wait::eventually("the new page", wait::SOON, || edge.get("/a").text() != old);
    assert_eq!(origin.count(), 2);
    assert!(edge.get("/a").is_hit(), "the new one is fresh");
}

#[test]
fn what_is_on_its_way_when_it_is_purged_is_not_kept_as_fresh() {
    for soft in [false, true] {
        for what in [
            "url=http://shop.test/a",
            "tag=x",
            "prefix=http://shop.test/",
            "host=shop.test",
            "all=true",
        ] {
            let gate = Gate::default();
            let held = gate.clone();
            let origin = counting(move |seen, a| {
                let a = a.field("Cache-Control", "max-age=600").field("xkey", "x");
                if seen.nth == 0 { a.when(&held) } else { a }
            });
            let edge = cached_in(&origin, "", "{}");
            let mut first = edge.plain();
            first.send(Ask::get("/a").bytes());
            wait::eventually("the fetch", wait::SOON, || origin.count() == 1);
            let done = purge(&edge, &format!("soft={soft}&{what}"));
            assert_eq!(done["purged"], 0, "nothing was stored yet: {what}");
            if !soft {
                let second = edge.get("/a").expect(200);
                assert_eq!(second.text(), "/a #1", "joined what was purged: {what}");
            }
            gate.open();
            assert_eq!(first.reply().expect(200).text(), "/a #0", "{what}");
            wait::eventually("the fetch to end", wait::SOON, || {
                edge.json("/cache")["fetches"] == 0
            });
            let after = edge.get("/a").expect(200);
            assert_eq!(after.text(), "/a #1", "soft={soft} {what}");
            assert_eq!(origin.count(), 2, "soft={soft} {what}");
        }
    }
}

#[test]
fn what_is_on_its_way_is_kept_when_another_tag_is_purged() {
    let gate = Gate::default();
    let held = gate.clone();
    let origin = counting(move |_, a| {
        a.field("Cache-Control", "max-age=600")
            .field("xkey", "mine, also-mine")
            .when(&held)
    });
    let edge = cached_in(&origin, "", "{}");
    let mut first = edge.plain();
    first.send(Ask::get("/a").bytes());
    wait::eventually("the fetch", wait::SOON, || origin.count() == 1);
    purge(&edge, "tag=other");
    purge(&edge, "soft=true&tag=also");
    gate.open();
    first.reply().expect(200);
    wait::eventually("the page to be stored", wait::SOON, || {
        edge.json("/cache")["fetches"] == 0
    });
    assert!(edge.get("/a").is_hit());
    assert_eq!(origin.count(), 1);
}

#[test]
fn the_stored_part_of_a_page_is_counted_and_purged_with_it() {
    let origin = Origin::start(|seen| {
        let answer = match seen.field("range") {
            Some(_) => Answer::new(206, "01").field("Content-Range", "bytes 0-1/200000"),
            None => Answer::ok(vec![b'x'; 200_000]),
        };
        answer
            .field("Cache-Control", "max-age=600")
            .field("ETag", "\"v1\"")
            .field("Surrogate-Key", "film")
    });
    for what in [
        "url=http://shop.test/a",
        "tag=film",
        "prefix=http://shop.test/a",
    ] {
        let edge = cached_in(&origin, "max_object_size = \"100KiB\"", "{}");
        let part = Ask::get("/a").field("Range", "bytes=0-1");
        wait::eventually("the part to be stored", wait::SOON, || {
            edge.ask(&part).expect(206).is_hit()
        });
        let dry = purge(&edge, &format!("dry_run=true&{what}"));
        assert_eq!(dry["would_purge"], 1, "{what}");
        assert_eq!(purge(&edge, what)["purged"], 1, "{what}");
        assert!(!edge.ask(&part).expect(206).is_hit(), "{what}");
    }
}

#[test]
fn a_purge_that_makes_no_sense_is_refused_with_a_sentence() {
    let origin = site();
    let edge = cached_in(&origin, "", "{}");
    for (query, word) in [
        ("", "say what"),
        ("soft=true", "say what"),
        ("all=maybe", "true or false"),
        ("url=/a", "whole URL"),
        ("tag=", "tag is empty"),
        ("host=http://shop.test", "host is a name"),
        ("everything=true", "no parameter"),
    ] {
        let reply = edge.command(&format!("/cache/purge?{query}"));
        assert_eq!(reply.status, 400, "{query}: {reply:?}");
        assert!(reply.text().contains(word), "{query}: {}", reply.text());
    }
    let unknown = edge.command("/cache/purge?url=http://shop.test/p/1");
    assert_eq!(unknown.status, 404);
    let tag = edge.command("/cache/purge?tag=nobody");
    assert_eq!(tag.status, 200, "a tag that nothing has is no mistake");
}

/// An edge behind a proxy that says who the client is.
fn purged_from(origin: &Origin, networks: &str) -> Edge {
    Setup::new().with("APP", origin.address).start(&format!(
        r#"
        [server]
        workers = 2
        trusted_proxies = ["127.0.0.1"]
        [cache]
        {networks}
        [upstream.app]
        endpoints = ["@APP@"]
        [[route]]
        match = {{ path_prefix = "/uncached" }}
        upstream = "app"
        [[route]]
        upstream = "app"
        cache = {{}}
        "#
    ))
}

fn purging(target: &str, client: &str) -> Ask {
    Ask::new("PURGE", target).field("X-Forwarded-For", client)
}

#[test]
fn the_method_purge_is_carried_out_for_those_who_may() {
    let origin = counting(|seen, a| {
        a.field("Cache-Control", "max-age=600")
            .field("Vary", "Accept-Language")
            .field(
                "Surrogate-Key",
                if seen.target == "/c" { "c" } else { "ab" },
            )
    });
    let edge = purged_from(&origin, "purge_from = [\"10.0.0.0/8\"]");
    let asks = [
        Ask::get("/a?x=1"),
        Ask::get("/a?x=1").field("Accept-Language", "de"),
        Ask::get("/b"),
        Ask::get("/c"),
    ];
    let fill = || {
        for ask in &asks {
            edge.ask(ask).expect(200);
            assert!(edge.ask(ask).is_hit(), "{ask:?}");
        }
    };
    let hits = || {
        asks.each_ref()
            .map(|ask| edge.ask(ask).expect(200).is_hit())
    };
    fill();

    let stranger = edge.ask(&purging("/a?x=1", "192.0.2.1"));
    assert_eq!(stranger.status, 403, "{stranger:?}");
    assert_eq!(hits(), [true; 4]);

    let before = origin.count();
    let done = edge.ask(&purging("/a?x=1", "10.1.2.3")).expect(200);
    assert_eq!(done.text().trim(), "{\"purged\": 2}");
    assert_eq!(done.field("content-type"), Some("application/json"));
    assert_eq!(origin.count(), before, "PURGE is not for the application");
    assert_eq!(hits(), [false, false, true, true]);

    fill();
    let by_tag = purging("/", "10.1.2.3").field("xkey", "ab other");
    let done = edge.ask(&by_tag).expect(200);
    assert_eq!(done.text().trim(), "{\"purged\": 3}");
    assert_eq!(hits(), [false, false, false, true]);

    fill();
    for (soft, why) in [("1", "fwd=stale"), ("0", "fwd=uri-miss")] {
        let ask = purging("/c", "10.1.2.3").field("Soft-Purge", soft);
        assert_eq!(edge.ask(&ask).expect(200).text().trim(), "{\"purged\": 1}");
        let reply = edge.ask(&asks[3]).expect(200);
        assert!(reply.cache_status().contains(why), "{soft}: {reply:?}");
    }
    let nothing = edge.ask(&purging("/nothing", "10.1.2.3")).expect(200);
    assert_eq!(nothing.text().trim(), "{\"purged\": 0}");

    let mut h2 = H2::tls(edge.https(), HOST);
    h2.ask(&Ask::get("/b")).expect(200);
    let done = h2.ask(&purging("/b", "10.1.2.3")).expect(200);
    assert_eq!(done.text().trim(), "{\"purged\": 1}");
    assert!(!h2.ask(&Ask::get("/b")).is_hit());
    assert!(edge.get("/b").is_hit(), "of the other scheme");

    let many: Vec<String> = (0..1001).map(|n| format!("t{n}")).collect();
    let many = purging("/", "10.1.2.3").field("xkey", &many.join(" "));
    assert_eq!(edge.ask(&many).status, 400);
    assert_eq!(edge.metric("tidegate_cache_purges_total"), 5.0);
}

#[test]
fn purge_is_a_method_like_others_where_nobody_may_and_where_nothing_is_cached() {
    let origin = counting(|_, a| a.field("Cache-Control", "max-age=600"));
    let edge = purged_from(&origin, "");
    edge.get("/a").expect(200);
    edge.ask(&purging("/a", "10.1.2.3")).expect(200);
    assert_eq!(origin.last().method, "PURGE");
    let edge = purged_from(&origin, "purge_from = [\"10.0.0.0/8\"]");
    edge.ask(&purging("/uncached", "10.1.2.3")).expect(200);
    assert_eq!(origin.last().target, "/uncached");
}
