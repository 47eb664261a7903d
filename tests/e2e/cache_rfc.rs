//! What RFC 9110, 9111 and 9211 ask of a cache, seen from both its sides. The decisions behind are
//! tested where they are made, in the `cache` crate; `docs/cache-conformance.md` names both.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::cache::{cached, counting};
use crate::support::client::{HOST, Reply};
use crate::support::h2::H2;
use crate::support::{Answer, Ask, Edge, Origin, Setup, wait};
use crate::support::{Gate, Seen};

const BODY: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// A file of 36 bytes, whole or the one range that is asked for.
fn file(seen: &Seen, tag: &str) -> Answer {
    let range = seen.field("range").and_then(|range| {
        let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
        let first: usize = first.parse().ok()?;
        let last = last.parse().map_or(BODY.len(), |last: usize| last + 1);
        Some(first..last.min(BODY.len()))
    });
    let answer = match range {
        Some(range) => {
            let (first, last) = (range.start, range.end - 1);
            let extent = format!("bytes {first}-{last}/{}", BODY.len());
            Answer::new(206, &BODY[range]).field("Content-Range", &extent)
        }
        None => Answer::ok(BODY),
    };
    answer
        .field("Cache-Control", "max-age=60")
        .field("ETag", tag)
}

fn range(target: &str, range: &str) -> Ask {
    Ask::get(target).field("Range", &format!("bytes={range}"))
}

/// An edge that keeps 20 bytes of a page, and no more.
fn small(origin: &Origin) -> Edge {
    Setup::new().with("APP", origin.address).start(
        "[cache]\nmemory = \"10MiB\"\nmax_object_size = \"20B\"\n\
         [upstream.app]\nendpoints = [\"@APP@\"]\n[[route]]\nupstream = \"app\"\ncache = {}\n",
    )
}

#[track_caller]
fn expect_part(edge: &Edge, ask: &Ask, body: &str) -> Reply {
    let reply = edge.ask(ask).expect(206);
    assert_eq!(reply.text(), body, "{reply:?}");
    assert_eq!(
        reply.field("content-length"),
        Some(body.len().to_string().as_str())
    );
    reply
}

#[test]
fn date_stays_the_origins_and_age_grows() {
    const DATE: &str = "Tue, 01 Jan 2019 00:00:00 GMT";
    let origin = counting(|_, a| {
        a.field("Cache-Control", "max-age=999999999")
            .field("Date", DATE)
            .field("X-Big", &"x".repeat(4000))
    });
    let edge = cached(&origin, "{}");
    for number in 0..3 {
        let reply = edge.get("/a").expect(200);
        assert_eq!(reply.is_hit(), number > 0);
        assert_eq!(reply.all("date"), [DATE]);
    }
    let tls = edge.tls().ask(&Ask::get("/a"));
    assert_eq!(tls.all("date"), [DATE], "over TLS");
    // Over HTTP/2 the Age beside it says how old the page is, too.
    let reply = H2::tls(edge.https(), HOST).ask(&Ask::get("/a"));
    let age: u64 = reply.field("age").expect("Age").parse().unwrap();
    assert!(age > 200_000_000, "{age}");
    let passed = edge.get("/uncached").expect(200);
    assert_eq!(passed.all("date"), [DATE], "of a reply that only passes");
}

#[test]
fn only_what_the_origin_did_not_just_say_has_an_age() {
    let origin = counting(|seen, a| {
        let a = match seen.field("if-none-match") {
            Some(_) => Answer::new(304, ""),
            None => a,
        };
        a.field("Cache-Control", "max-age=60")
            .field("ETag", "\"v1\"")
    });
    let edge = cached(&origin, "{}");
    assert_eq!(edge.get("/a").field("age"), None, "fetched");
    assert!(edge.get("/a").field("age").is_some(), "stored");
    let ask = Ask::get("/a").field("Cache-Control", "no-cache");
    let validated = edge.ask(&ask);
    assert!(validated.cache_status().contains("fwd-status=304"));
    assert_eq!(validated.field("age"), None, "validated");
}

#[test]
fn a_condition_for_the_origin_goes_there() {
    let origin = counting(|seen, a| match seen.field("if-match") {
        Some("\"v0\"") => Answer::new(412, "no"),
        _ => a
            .field("Cache-Control", "max-age=60")
            .field("ETag", "\"v1\""),
    });
    let edge = cached(&origin, "{}");
    edge.get("/a").expect(200);
    let reply = edge.ask(&Ask::get("/a").field("If-Match", "\"v0\""));
    assert_eq!(reply.expect(412).text(), "no");
    assert!(
        edge.get("/a").is_hit(),
        "and changes nothing that is stored"
    );
}

#[test]
fn a_304_about_another_representation_renews_nothing() {
    let origin = counting(|seen, a| {
        let a = match seen.field("if-none-match") {
            Some(_) => Answer::new(304, "").field("ETag", "\"v2\""),
            None => a.field("ETag", "\"v1\""),
        };
        a.field("Cache-Control", "no-cache")
    });
    let edge = cached(&origin, "{}");
    edge.get("/a").expect(200);
    let second = edge.get("/a").expect(200);
    assert_eq!(second.text(), "/a #2", "asked again, without a condition");
    assert_eq!(origin.last().field("if-none-match"), None);
}

#[test]
fn a_304_brings_new_fields_but_for_those_that_describe_the_body() {
    let origin = Origin::start(|seen| {
        let a = match seen.field("if-none-match") {
            Some(_) => Answer::new(304, "")
                .field("Content-Encoding", "br")
                .field("X-Page", "new")
                .field("Cache-Control", "max-age=60"),
            None => Answer::ok("x")
                .field("Content-Encoding", "identity")
                .field("X-Page", "old")
                .field("X-Kept", "1")
                .field("Cache-Control", "no-cache"),
        };
        a.field("ETag", "\"v1\"")
    });
    let edge = cached(&origin, "{}");
    edge.get("/a").expect(200);
    for hit in [false, true] {
        let reply = edge.get("/a").expect(200);
        assert_eq!(reply.is_hit(), hit);
        assert_eq!(reply.text(), "x");
        assert_eq!(reply.field("x-page"), Some("new"));
        assert_eq!(reply.field("x-kept"), Some("1"));
        assert_eq!(reply.field("content-encoding"), Some("identity"));
    }
}

#[test]
fn a_304_that_forbids_storing_is_the_pages_last_answer() {
    let origin = counting(|seen, a| {
        let a = match seen.field("if-none-match") {
            Some(_) => Answer::new(304, "").field("Cache-Control", "no-store"),
            None => a.field("Cache-Control", "no-cache"),
        };
        a.field("ETag", "\"v1\"")
    });
    let edge = cached(&origin, "{}");
    let text = edge.get("/a").text();
    assert_eq!(edge.get("/a").expect(200).text(), text);
    assert_eq!(origin.last().field("if-none-match"), Some("\"v1\""));
    edge.get("/a").expect(200);
    assert_eq!(origin.last().field("if-none-match"), None, "it is gone");
}

#[test]
fn a_full_reply_to_a_validation_takes_the_pages_place() {
    let version = Arc::new(AtomicUsize::new(1));
    let now = version.clone();
    let origin = counting(move |_, a| {
        let tag = format!("\"v{}\"", now.load(Ordering::Relaxed));
        a.field("Cache-Control", "max-age=60").field("ETag", &tag)
    });
    let edge = cached(&origin, "{}");
    edge.get("/a").expect(200);
    version.store(2, Ordering::Relaxed);
    let ask = Ask::get("/a").field("Cache-Control", "no-cache");
    let second = edge.ask(&ask).expect(200);
    assert_eq!(origin.last().field("if-none-match"), Some("\"v1\""));
    let third = edge.get("/a");
    assert!(third.is_hit());
    assert_eq!(third.text(), second.text());
    assert_eq!(third.field("etag"), Some("\"v2\""));
}

#[test]
fn a_head_that_goes_upstream_renews_or_removes_the_page() {
    let version = Arc::new(AtomicUsize::new(1));
    let now = version.clone();
    let origin = Origin::start(move |seen| {
        let version = now.load(Ordering::Relaxed);
        Answer::fresh(60, "body")
            .field("ETag", &format!("\"v{version}\""))
            .field("X-Method", &seen.method)
    });
    let edge = cached(&origin, "{}");
    // Only the origin can answer it, so it goes there as it is.
    let head = Ask::head("/a").field("If-Match", "\"v1\"");
    edge.get("/a").expect(200);
    edge.plain().ask(&head).expect(200);
    let hit = edge.get("/a");
    assert!(hit.is_hit());
    assert_eq!(hit.field("x-method"), Some("HEAD"), "its fields are newer");
    assert_eq!(hit.text(), "body");
    version.store(2, Ordering::Relaxed);
    edge.plain().ask(&head).expect(200);
    assert!(!edge.get("/a").is_hit(), "it is another page by now");
}

#[test]
fn an_early_hint_reaches_who_waits_and_is_not_stored() {
    let origin = Origin::start(|_| {
        Answer::raw(
            "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n\
             HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 1\r\n\r\nx",
        )
    });
    let edge = cached(&origin, "{}");
    let first = edge.get("/a").expect(200);
    assert_eq!(first.interim, [103]);
    let hit = edge.get("/a").expect(200);
    assert!(hit.is_hit());
    assert!(hit.interim.is_empty());
    assert_eq!(hit.field("link"), None);
    assert_eq!(hit.text(), "x");
}

#[test]
fn fields_that_are_for_one_client_are_not_in_the_next_ones_reply() {
    let origin = Origin::start(|_| {
        Answer::ok("x")
            .field(
                "Cache-Control",
                "max-age=60, private=\"x-user\", no-cache=\"x-cart\"",
            )
            .field("X-User", "alice")
            .field("X-Cart", "3")
    });
    let edge = cached(&origin, "{}");
    let first = edge.get("/a").expect(200);
    assert_eq!(first.field("x-user"), Some("alice"));
    let hit = edge.get("/a").expect(200);
    assert!(hit.is_hit());
    assert_eq!((hit.field("x-user"), hit.field("x-cart")), (None, None));
}

#[test]
fn what_is_said_to_the_edge_alone_goes_before_what_is_said_to_all() {
    let origin = counting(|seen, a| match seen.target.as_str() {
        "/cdn" => a
            .field("Cache-Control", "no-store")
            .field("CDN-Cache-Control", "max-age=60"),
        "/other" => a
            .field("Cache-Control", "max-age=60")
            .field("Surrogate-Control", "no-store;tidegate"),
        _ => a
            .field("Cache-Control", "no-store")
            .field("Surrogate-Control", "max-age=60;tidegate"),
    });
    let edge = cached(&origin, "{}");
    for (target, hit) in [("/surrogate", true), ("/cdn", true), ("/other", false)] {
        edge.get(target);
        let capability = origin.last();
        assert_eq!(
            capability.field("surrogate-capability"),
            Some("tidegate=\"Surrogate/1.0\"")
        );
        assert_eq!(edge.get(target).is_hit(), hit, "{target}");
    }
}

#[test]
fn a_reply_that_points_to_another_host_empties_nothing_there() {
    let origin = counting(|seen, a| match seen.method.as_str() {
        "POST" => Answer::new(201, "").field("Location", "http://other.test/list"),
        _ => a.field("Cache-Control", "max-age=60"),
    });
    let edge = cached(&origin, "{}");
    let other = Ask::get("/list").host("other.test");
    for ask in [&other, &Ask::get("/list")] {
        edge.ask(ask);
    }
    edge.ask(&Ask::post("/item", "x")).expect(201);
    assert!(edge.ask(&other).is_hit());
    assert!(edge.get("/list").is_hit());
}

#[test]
fn a_reply_that_points_to_a_page_in_another_spelling_outdates_it() {
    let origin = counting(|seen, a| match seen.method.as_str() {
        "POST" => Answer::new(201, "").field("Location", "../x/./%6cist?a=1"),
        _ => a.field("Cache-Control", "max-age=60"),
    });
    let edge = cached(&origin, "{}");
    edge.get("/x/list?a=1");
    assert!(edge.get("/x/list?a=1").is_hit());
    edge.ask(&Ask::post("/item/new", "x")).expect(201);
    assert!(!edge.get("/x/list?a=1").is_hit());
}

#[test]
fn an_age_that_cannot_be_read_is_never_a_hit() {
    for age in ["x", "-1", "1.0", "5;a=b"] {
        let origin = counting(move |_, a| {
            a.field("Cache-Control", "max-age=60")
                .field("ETag", "\"v1\"")
                .field("Age", age)
        });
        let edge = cached(&origin, "{ stale_while_revalidate = \"60s\" }");
        edge.get("/a");
        assert!(!edge.get("/a").is_hit(), "{age}");
    }
}

#[test]
fn a_part_of_what_is_not_stored_comes_from_the_whole_fetched_for_all() {
    let gate = Gate::default();
    let held = gate.clone();
    let origin = Origin::start(move |seen| file(seen, "\"v1\"").when(&held));
    let edge = cached(&origin, "{}");
    std::thread::scope(|scope| {
        let parts = ["0-4", "10-", "-3"].map(|part| {
            let edge = &edge;
            scope.spawn(move || edge.ask(&range("/a", part)).expect(206).text())
        });
        let whole = scope.spawn(|| edge.get("/a").expect(200).body);
        wait::eventually("the fetch has begun", wait::secs(5), || origin.count() == 1);
        wait::hold(wait::millis(200));
        gate.open();
        let texts = parts.map(|part| part.join().unwrap());
        assert_eq!(texts, ["01234", "abcdefghijklmnopqrstuvwxyz", "xyz"]);
        assert_eq!(whole.join().unwrap(), BODY);
    });
    assert_eq!(origin.count(), 1, "one fetch for all");
    assert_eq!(origin.last().field("range"), None, "of the whole");
    assert!(edge.get("/a").is_hit());
    assert!(edge.ask(&range("/a", "1-2")).is_hit());
    let none = edge.ask(&range("/b", "99-")).expect(416);
    assert_eq!(none.field("content-range"), Some("bytes */36"));
}

#[test]
fn a_part_is_sent_as_soon_as_its_bytes_are_there() {
    let body = vec![b'x'; 200_000];
    let origin = Origin::start(move |_| {
        Answer::fresh(60, body.as_slice())
            .short_by(1)
            .field("ETag", "\"v1\"")
    });
    let edge = cached(&origin, "{}");
    let part = edge.ask(&range("/a", "5-6")).expect(206);
    assert_eq!(part.text(), "xx");
    assert_eq!(part.field("content-range"), Some("bytes 5-6/200001"));
    // The rest never came: the whole is not stored, though the part was right.
    assert!(!edge.ask(&range("/a", "5-6")).is_hit());
}

#[test]
fn a_part_of_what_is_too_large_passes_and_the_next_ones_at_once() {
    let origin = Origin::start(|seen| file(seen, "W/\"v1\""));
    let edge = small(&origin);
    let first = expect_part(&edge, &range("/a", "0-4"), "01234");
    assert_eq!(first.cache_status(), "Tidegate;fwd=bypass;detail=range");
    let asked = |nth: usize| origin.seen()[nth].field("range").map(str::to_owned);
    assert_eq!((asked(0), asked(1)), (None, Some("bytes=0-4".to_owned())));
    expect_part(&edge, &range("/a", "5-9"), "56789");
    assert_eq!(origin.count(), 3, "the whole is not asked for again");
    assert_eq!(asked(2), Some("bytes=5-9".to_owned()));
    // A weak tag does not say that two parts belong together: nothing was kept.
    expect_part(&edge, &range("/a", "5-9"), "56789");
    assert_eq!(origin.count(), 4);
}

#[test]
fn a_part_for_one_visitor_alone_passes_and_is_not_kept() {
    let origin = Origin::start(|seen| file(seen, "\"v1\""));
    let edge = cached(&origin, "{}");
    for field in [
        ("Authorization", "Bearer alice"),
        ("Cache-Control", "no-store"),
    ] {
        let before = origin.count();
        let own = range("/a", "0-4").field(field.0, field.1);
        expect_part(&edge, &own, "01234");
        expect_part(&edge, &own, "01234");
        assert_eq!(origin.count(), before + 2, "the whole is not asked for");
    }
    expect_part(&edge, &range("/a", "0-4"), "01234");
    assert_eq!(origin.last().field("range"), None, "for all it is");
}

#[test]
fn a_head_of_what_is_too_large_goes_up_as_head() {
    let origin = Origin::start(|seen| file(seen, "\"v1\""));
    let edge = small(&origin);
    for method in ["GET", "HEAD"] {
        let reply = edge.plain().ask(&Ask::head("/a")).expect(200);
        assert_eq!(reply.field("content-length"), Some("36"));
        assert_eq!(origin.last().method, method, "the first one found out");
    }
}

#[test]
fn a_whole_of_unknown_length_is_given_up_for_the_part() {
    let origin = Origin::start(|seen| match seen.field("range") {
        Some(_) => file(seen, "\"v1\""),
        None => Answer::chunks(&[BODY], wait::millis(0)).field("Cache-Control", "max-age=60"),
    });
    let edge = cached(&origin, "{}");
    expect_part(&edge, &range("/a", "1-3"), "123");
    assert_eq!(edge.get("/a").expect(200).body, BODY);
    expect_part(&edge, &range("/a", "2-3"), "23");
    assert!(edge.ask(&range("/a", "2-3")).is_hit());
}

#[test]
fn parts_with_one_tag_become_one_and_never_the_whole() {
    let version = Arc::new(AtomicUsize::new(1));
    let now = version.clone();
    let origin = Origin::start(move |seen| {
        let tag = format!("\"v{}\"", now.load(Ordering::Relaxed));
        file(seen, &tag)
    });
    let edge = small(&origin);
    let first = expect_part(&edge, &range("/a", "0-9"), "0123456789");
    let status = first.cache_status();
    assert!(
        status.starts_with("Tidegate;fwd=bypass;stored;ttl="),
        "{status}"
    );
    let hit = edge.ask(&range("/a", "3-5")).expect(206);
    assert!(hit.is_hit(), "{hit:?}");
    assert_eq!(hit.text(), "345");
    assert_eq!(hit.field("content-range"), Some("bytes 3-5/36"));
    assert_eq!(hit.all("content-range").len(), 1);

    let before = origin.count();
    let next = expect_part(&edge, &range("/a", "8-15"), "89abcdef");
    assert!(next.cache_status().contains("fwd=partial"), "{next:?}");
    assert_eq!(origin.count(), before + 1);
    wait::eventually("both parts are one", wait::secs(5), || {
        let both = edge.ask(&range("/a", "2-14"));
        both.is_hit() && both.text() == "23456789abcde"
    });
    let before = origin.count();
    let known = range("/a", "2-3").field("If-None-Match", "\"v1\"");
    assert_eq!(edge.ask(&known).expect(304).field("etag"), Some("\"v1\""));
    let only = range("/a", "2-3").field("Cache-Control", "only-if-cached");
    assert!(edge.ask(&only).expect(206).is_hit());
    assert_eq!(origin.count(), before);
    assert_eq!(
        edge.get("/a").expect(200).body,
        BODY,
        "the whole is fetched"
    );
    assert_eq!(origin.count(), before + 1);

    version.store(2, Ordering::Relaxed);
    expect_part(&edge, &range("/a", "16-20"), "ghijk");
    wait::eventually("the new part is kept", wait::secs(5), || {
        edge.ask(&range("/a", "17-18")).is_hit()
    });
    assert!(
        !edge.ask(&range("/a", "14-17")).is_hit(),
        "parts of two representations are not one"
    );
}

#[test]
fn what_outdates_a_page_outdates_its_parts() {
    let origin = Origin::start(|seen| match seen.method.as_str() {
        "POST" => Answer::new(204, ""),
        _ => file(seen, "\"v1\""),
    });
    let edge = small(&origin);
    let ask = range("/a", "0-4");
    let kept = || {
        edge.ask(&ask).expect(206);
        wait::eventually("the part is kept", wait::secs(5), || {
            edge.ask(&ask).is_hit()
        });
    };
    kept();
    edge.ask(&Ask::post("/a", "x")).expect(204);
    assert!(!edge.ask(&ask).is_hit());
    kept();
    edge.command("/cache/purge?url=http://shop.test/a")
        .expect(200);
    assert!(!edge.ask(&ask).is_hit());
}

#[test]
fn a_part_on_its_way_when_its_page_is_purged_is_not_kept() {
    let gate = Gate::default();
    let held = gate.clone();
    let origin = Origin::start(move |seen| match seen.field("range") {
        Some("bytes=10-14") => file(seen, "\"v1\"").when(&held),
        _ => file(seen, "\"v1\""),
    });
    let edge = small(&origin);
    edge.ask(&range("/a", "0-4")).expect(206);
    let before = origin.count();
    std::thread::scope(|scope| {
        let part = scope.spawn(|| edge.ask(&range("/a", "10-14")).expect(206).text());
        wait::eventually("it is on its way", wait::secs(5), || {
            origin.count() > before
        });
        edge.command("/cache/purge?url=http://shop.test/a")
            .expect(200);
        gate.open();
        assert_eq!(part.join().unwrap(), "abcde");
    });
    let again = edge.ask(&range("/a", "10-14")).expect(206);
    assert!(!again.is_hit(), "{again:?}");
}

#[test]
fn several_parts_of_a_stored_page_come_as_one_multipart_reply() {
    let origin = Origin::start(|seen| {
        file(seen, "\"v1\"")
            .field("Content-Type", "text/x-file")
            .field("Content-Range", "bytes 0-0/1")
    });
    let edge = cached(&origin, "{}");
    edge.get("/a").expect(200);
    let reply = edge.ask(&range("/a", "0-1, 34-")).expect(206);
    assert!(reply.is_hit());
    assert_eq!(reply.field("content-range"), None, "each part has its own");
    let kind = reply.field("content-type").unwrap();
    let boundary = kind
        .strip_prefix("multipart/byteranges; boundary=")
        .unwrap();
    let part = |extent, text| {
        format!(
            "\r\n--{boundary}\r\nContent-Type: text/x-file\r\nContent-Range: bytes {extent}/36\r\n\r\n{text}"
        )
    };
    let expected = format!(
        "{}{}\r\n--{boundary}--\r\n",
        part("0-1", "01"),
        part("34-35", "yz")
    );
    assert_eq!(reply.text(), expected);
    let head = edge
        .plain()
        .ask(&Ask::head("/a").field("Range", "bytes=0-1"));
    assert_eq!(head.status, 200, "a range is for GET alone");
}

#[test]
fn a_range_is_kept_to_only_for_the_very_same_page() {
    let origin = Origin::start(|seen| {
        file(seen, "\"v1\"").field("Last-Modified", "Tue, 01 Jan 2019 00:00:00 GMT")
    });
    let edge = cached(&origin, "{}");
    for (condition, status) in [
        ("\"v1\"", 206),
        ("W/\"v1\"", 200),
        ("\"v0\"", 200),
        ("Tue, 01 Jan 2019 00:00:00 GMT", 206),
        ("Tue, 01 Jan 2019 00:00:01 GMT", 200),
    ] {
        // The first of them comes from the page as it arrives.
        let ask = range("/a", "0-1").field("If-Range", condition);
        assert_eq!(edge.ask(&ask).status, status, "{condition}");
    }
    assert_eq!(origin.count(), 1);
}
