//! How the cache fetches: once for many, as it arrives, stale meanwhile, and
//! within its bounds.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::cache::{cached, counting};
use crate::support::{Answer, Ask, Broken, Edge, Gate, Origin, Reply, Setup, wait};

#[test]
fn a_stale_page_is_served_at_once_while_one_request_renews_it() {
    let gate = Gate::default();
    let held = gate.clone();
    let origin = counting(move |seen, a| {
        if seen.nth == 0 {
            a.field("Cache-Control", "max-age=1, stale-while-revalidate=60")
        } else {
            a.field("Cache-Control", "max-age=60").when(&held)
        }
    });
    let edge = cached(&origin, "{}");
    let old = edge.get("/a").text();
    wait::hold(wait::millis(2_100));
    for _ in 0..10 {
        let started = wait::now();
        assert_eq!(edge.get("/a").expect(200).text(), old);
        assert!(started.elapsed() < wait::secs(2));
    }
    wait::eventually("the renewal", wait::SOON, || origin.count() == 2);
    gate.open();
    wait::eventually("the new page", wait::SOON, || edge.get("/a").text() != old);
    assert_eq!(origin.count(), 2, "one renewal for all");
}

#[test]
fn a_stale_page_is_served_when_the_origin_fails_as_long_as_allowed() {
    for failure in ["500", "reset", "down", "slow"] {
        let mut origin = counting(move |seen, a| match (seen.nth, failure) {
            (0, _) => a.field("Cache-Control", "max-age=1"),
            (_, "500") => Answer::new(500, "broken"),
            (_, "slow") => a.after(wait::secs(4)),
            _ => Answer::reset(),
        });
        let edge = Setup::new().with("APP", origin.address).start(
            r#"
            [upstream.app]
            endpoints = ["@APP@"]
            first_byte_timeout = "500ms"
            outlier_detection = false
            [[route]]
            upstream = "app"
            cache = { stale_if_error = "1h" }
            "#,
        );
        let old = edge.get("/a").text();
        wait::hold(wait::millis(2_100));
        if failure == "down" {
            origin.down();
        }
        let reply = edge.get("/a").expect(200);
        assert_eq!(reply.text(), old, "{failure}");
        assert!(
            reply.field("age").is_some_and(|age| age != "0"),
            "{failure}"
        );
        let unknown = edge.get("/b").status;
        assert!(unknown >= 500, "{failure}: {unknown}");
    }
}

/// Twenty clients that all wait for one fetch of a page, which `gate` holds up; their replies.
fn crowd(edge: &Edge, gate: &Gate) -> Vec<Reply> {
    let mut conns: Vec<_> = (0..20).map(|_| edge.plain()).collect();
    for conn in &mut conns {
        conn.send(Ask::get("/a").bytes());
    }
    let active = r#"tidegate_requests_active{listener="plain"}"#;
    wait::eventually("all to wait", wait::SOON, || edge.metric(active) >= 20.0);
    gate.open();
    conns
        .iter_mut()
        .map(|conn| conn.reply().expect(200))
        .collect()
}

#[test]
fn who_waited_for_an_origin_that_failed_gets_what_is_stored_as_the_first_one_does() {
    let gate = Gate::default();
    let held = gate.clone();
    let origin = counting(move |seen, a| match seen.nth {
        0 => a.field("Cache-Control", "max-age=1"),
        _ => Answer::new(503, "broken").when(&held),
    });
    let edge = cached(&origin, "{ stale_if_error = \"1h\" }");
    let old = edge.get("/a").text();
    wait::hold(wait::millis(2_100));
    for reply in crowd(&edge, &gate) {
        assert_eq!(reply.text(), old);
        let said = reply.cache_status();
        assert!(said.contains("detail=stale-if-error"), "{said}");
    }
    assert_eq!(origin.count(), 2, "it was asked once");
}

#[test]
fn what_a_304_says_to_one_client_alone_is_told_to_nobody_else() {
    let gate = Gate::default();
    let held = gate.clone();
    let origin = counting(move |seen, a| match seen.nth {
        0 => a
            .field("Cache-Control", "max-age=1")
            .field("ETag", "\"v1\""),
        nth => Answer::new(304, "")
            .field("Cache-Control", "private, max-age=60")
            .field("X-Account", &nth.to_string())
            .when(&held),
    });
    let edge = cached(&origin, "{}");
    edge.get("/a");
    wait::hold(wait::millis(2_100));
    let mut accounts: Vec<String> = crowd(&edge, &gate)
        .iter()
        .map(|reply| reply.field("x-account").expect("whose it is").to_owned())
        .collect();
    accounts.sort();
    accounts.dedup();
    assert_eq!(accounts.len(), 20, "each has its own: {accounts:?}");
    assert!(!edge.get("/a").is_hit());
}

#[test]
fn must_revalidate_forbids_stale_answers_even_when_the_route_allows_them() {
    let origin = counting(|seen, a| match seen.nth {
        0 => a.field("Cache-Control", "max-age=1, must-revalidate"),
        _ => Answer::new(500, "broken"),
    });
    let edge = cached(
        &origin,
        "{ stale_if_error = \"1h\", stale_while_revalidate = \"1h\" }",
    );
    edge.get("/a");
    wait::hold(wait::millis(2_100));
    assert!(edge.get("/a").status >= 500);
}

#[test]
fn many_clients_that_want_one_missing_page_make_one_upstream_request() {
    let gate = Gate::default();
    let held = gate.clone();
    let origin = counting(move |_, a| a.field("Cache-Control", "max-age=60").when(&held));
    let edge = cached(&origin, "{}");
    let mut conns: Vec<_> = (0..40).map(|_| edge.plain()).collect();
    for conn in &mut conns {
        conn.send(Ask::get("/a").bytes());
    }
    let active = r#"tidegate_requests_active{listener="plain"}"#;
    wait::eventually("all to wait", wait::SOON, || edge.metric(active) >= 40.0);
    gate.open();
    for conn in &mut conns {
        assert_eq!(conn.reply().expect(200).text(), "/a #0");
    }
    assert_eq!(origin.count(), 1);
}

#[test]
fn a_page_streams_to_those_who_wait_while_it_arrives() {
    let origin = Origin::start(|_| {
        Answer::chunks(&["first", "second"], wait::secs(2)).field("Cache-Control", "max-age=60")
    });
    let edge = cached(&origin, "{}");
    let mut leader = edge.plain().patience(wait::millis(1_500));
    leader.send(Ask::get("/a").bytes());
    leader.head().expect("the head");
    let mut follower = edge.plain().patience(wait::millis(1_500));
    follower.send(Ask::get("/a").bytes());
    follower.head().expect("the head before the body is whole");
    for conn in [&mut leader, &mut follower] {
        let first = conn.exactly(10).expect("the first part before the second");
        assert!(String::from_utf8_lossy(&first).contains("first"));
    }
    assert_eq!(origin.count(), 1);
}

#[test]
fn clients_of_an_uncacheable_page_do_not_queue_behind_each_other() {
    let origin = counting(|_, a| {
        a.field("Cache-Control", "no-store")
            .after(wait::millis(300))
    });
    let edge = cached(&origin, "{}");
    let started = wait::now();
    let mut conns: Vec<_> = (0..20).map(|_| edge.plain()).collect();
    for conn in &mut conns {
        conn.send(Ask::get("/a").bytes());
    }
    let mut bodies: Vec<String> = conns
        .iter_mut()
        .map(|c| c.reply().expect(200).text())
        .collect();
    assert!(
        started.elapsed() < wait::secs(3),
        "one by one: {:?}",
        started.elapsed()
    );
    bodies.sort();
    bodies.dedup();
    assert_eq!(bodies.len(), 20, "an uncacheable page was shared");
}

#[test]
fn a_page_that_breaks_off_is_an_error_to_its_readers_and_is_not_stored() {
    let origin = Origin::start(|seen| match seen.nth {
        0 => Answer::fresh(60, "half of ").short_by(8),
        _ => Answer::fresh(60, "whole"),
    });
    let edge = Setup::new().with("APP", origin.address).start(
        "[upstream.app]\nendpoints = [\"@APP@\"]\nretry = { attempts = 1 }\n\
         [[route]]\nupstream = \"app\"\ncache = {}\n",
    );
    let mut conn = edge.plain();
    let broken = conn.send(Ask::get("/a").bytes()).read(false);
    assert!(
        matches!(broken, Err(Broken::Cut(_) | Broken::ClosedSilently))
            || broken.as_ref().is_ok_and(|r| r.status == 502),
        "{broken:?}"
    );
    assert_eq!(edge.get("/a").expect(200).text(), "whole");
}

#[test]
fn a_broken_page_is_no_whole_one_to_a_client_of_http_1_0() {
    let chunks = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nhalf of \r\n";
    for config in ["{}", "{ ttl = \"1s\", min_uses = 5 }"] {
        let origin = Origin::start(move |seen| match seen.target.as_str() {
            "/cut" => Answer::raw(chunks),
            _ => Answer::raw(format!("{chunks}0\r\n\r\n")),
        });
        let edge = cached(&origin, config);
        let read = |target: &str| {
            let mut socket = TcpStream::connect(edge.http()).unwrap();
            socket.set_read_timeout(Some(wait::SOON)).unwrap();
            write!(socket, "GET {target} HTTP/1.0\r\nHost: shop.test\r\n\r\n").unwrap();
            let mut reply = Vec::new();
            socket.read_to_end(&mut reply).map_err(|error| error.kind())
        };
        assert!(read("/whole").is_ok_and(|length| length > 8));
        assert_eq!(read("/cut"), Err(ErrorKind::ConnectionReset), "{config}");
    }
}

#[test]
fn a_leader_that_goes_away_does_not_take_the_page_from_the_others() {
    let gate = Gate::default();
    let held = gate.clone();
    let origin = counting(move |_, a| a.field("Cache-Control", "max-age=60").when(&held));
    let edge = cached(&origin, "{}");
    let mut leader = edge.plain();
    leader.send(Ask::get("/a").bytes());
    wait::eventually("the fetch", wait::SOON, || origin.count() == 1);
    let mut follower = edge.plain();
    follower.send(Ask::get("/a").bytes());
    let active = r#"tidegate_requests_active{listener="plain"}"#;
    wait::eventually("both to wait", wait::SOON, || edge.metric(active) >= 2.0);
    leader.reset();
    wait::always("no second fetch", wait::millis(300), || origin.count() == 1);
    gate.open();
    assert_eq!(follower.reply().expect(200).text(), "/a #0");
}

#[test]
fn a_page_that_comes_by_and_by_is_fetched_no_longer_than_configured_once_nobody_reads_it() {
    let origin = Origin::start(|seen| {
        let (pieces, control) = match (seen.target.as_str(), seen.nth) {
            ("/short", _) => (20, "max-age=60"),
            ("/stale", 0) => (1, "max-age=0, stale-while-revalidate=600"),
            _ => (10_000, "max-age=60"),
        };
        Answer::chunks(&vec!["piece "; pieces], wait::millis(100)).field("Cache-Control", control)
    });
    let edge = cached(&origin, "{ background_timeout = \"1s\" }");
    edge.get("/stale").expect(200);
    let whole = edge.get("/short").expect(200);
    assert_eq!(whole.text(), "piece ".repeat(20), "somebody reads it");
    assert!(edge.get("/short").is_hit());
    for (path, fetches) in [("/left", 1), ("/stale", 2)] {
        let mut conn = edge.plain();
        let ended = || origin.connections() - origin.open();
        let (began, before) = (wait::now(), ended());
        conn.send(Ask::get(path).bytes());
        // Before there is a head nothing is fetched for the store alone.
        conn.head().expect("a head");
        wait::eventually("the fetch", wait::SOON, || origin.count_of(path) == fetches);
        conn.reset();
        wait::eventually("its end", wait::SOON, || ended() > before);
        let took = began.elapsed();
        assert!(took >= wait::millis(900), "{path}: {took:?}");
    }
}

#[test]
fn objects_above_the_limit_pass_and_are_not_stored() {
    let big = vec![b'x'; 300_000];
    let body = big.clone();
    let origin = Origin::start(move |seen| match seen.target.as_str() {
        "/chunked" => Answer::chunks(&[&body[..150_000], &body[150_000..]], wait::millis(1))
            .field("Cache-Control", "max-age=60"),
        _ => Answer::fresh(60, body.clone()),
    });
    let edge = Setup::new().with("APP", origin.address).start(
        "[cache]\nmemory = \"10MiB\"\nmax_object_size = \"100KiB\"\n\
         [upstream.app]\nendpoints = [\"@APP@\"]\n[[route]]\nupstream = \"app\"\ncache = {}\n",
    );
    for target in ["/length", "/chunked"] {
        for _ in 0..2 {
            let reply = edge.get(target).expect(200);
            assert!(reply.body == big, "{target}");
            assert!(!reply.is_hit(), "{target}");
        }
    }
}

#[test]
fn the_store_is_bounded_by_bytes() {
    let origin = Origin::start(|_| Answer::fresh(600, vec![b'x'; 64 * 1024]));
    let edge = Setup::new().with("APP", origin.address).start(
        "[cache]\nmemory = \"1MiB\"\nmax_object_size = \"256KiB\"\n\
         [upstream.app]\nendpoints = [\"@APP@\"]\n[[route]]\nupstream = \"app\"\ncache = {}\n",
    );
    let mut conn = edge.plain();
    for n in 0..60 {
        conn.ask(&Ask::get(&format!("/{n}"))).expect(200);
    }
    let limit = 1024.0 * 1024.0;
    assert_eq!(edge.metric("tidegate_cache_memory_limit_bytes"), limit);
    wait::eventually("the bound to hold", wait::SOON, || {
        let bytes = edge.metric("tidegate_cache_memory_bytes");
        bytes > 0.0 && bytes <= limit
    });
    assert!(edge.metric("tidegate_cache_evictions_total") > 0.0);
}

#[test]
fn a_body_is_never_mixed_up_under_concurrent_load() {
    let origin = Origin::start(|seen| {
        let body = seen.target.repeat(500);
        match seen.target.len() % 2 {
            0 => Answer::fresh(1, body),
            _ => Answer::chunks(&[body], wait::millis(0)).field("Cache-Control", "max-age=1"),
        }
    });
    let edge = cached(&origin, "{ stale_while_revalidate = \"1s\" }");
    let hits = Arc::new(AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for worker in 0..8usize {
            let (edge, hits) = (&edge, Arc::clone(&hits));
            scope.spawn(move || {
                let mut conn = edge.plain();
                for round in 0..200usize {
                    let target = format!("/{}", "p".repeat((worker * 7 + round) % 23));
                    let reply = conn.ask(&Ask::get(&target)).expect(200);
                    assert!(reply.text() == target.repeat(500), "{target}");
                    hits.fetch_add(usize::from(reply.is_hit()), Ordering::Relaxed);
                }
            });
        }
    });
    assert!(hits.load(Ordering::Relaxed) > 100);
}
