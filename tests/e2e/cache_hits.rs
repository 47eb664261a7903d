//! Hits as they leave: they may take a short way past the session, and nothing
//! but their cost may tell.

use std::fs;
use std::net::TcpStream;

use serde_json::Value;

use crate::cache::cached;
use crate::support::{Answer, Ask, Conn, Edge, Origin, Reply, Setup, wait};

const MIB: usize = 1024 * 1024;

/// A body of this size that is not the same twice within itself.
fn body(size: usize) -> Vec<u8> {
    (0..size)
        .map(|at| (at / 251 + at).to_le_bytes()[0])
        .collect()
}

/// `/SIZE` is a page of that size, fresh for an hour; `/no/...` is stored by nobody.
fn pages() -> Origin {
    Origin::start(|seen| match seen.target.trim_start_matches('/').parse() {
        Ok(size) => Answer::fresh(3600, body(size)).field("ETag", &format!("\"{size}\"")),
        Err(_) => Answer::ok(format!("{} #{}", seen.target, seen.nth)),
    })
}

/// Has `target` stored.
#[track_caller]
fn stored(edge: &Edge, target: &str) {
    wait::eventually("the page is stored", wait::SOON, || {
        edge.get(target).expect(200).is_hit()
    });
}

/// A client whose socket takes little at a time.
fn narrow(edge: &Edge) -> Conn {
    let socket = TcpStream::connect(edge.http()).unwrap();
    socket2::SockRef::from(&socket)
        .set_recv_buffer_size(64 * 1024)
        .unwrap();
    Conn::from(socket)
}

/// No `what` (connections, requests) are active any more.
#[track_caller]
fn await_none(edge: &Edge, what: &str) {
    let series = format!("tidegate_{what}_active{{listener=\"plain\"}}");
    wait::eventually(&format!("{series} is 0"), wait::SOON, || {
        edge.metric(&series) == 0.0
    });
}

#[track_caller]
fn expect_page(reply: &Reply, size: usize) {
    assert_eq!(reply.status, 200);
    assert_eq!(reply.field("content-length"), Some(&*size.to_string()));
    assert!(
        reply.body == body(size),
        "a body of {} for {size}",
        reply.body.len()
    );
}

#[test]
fn one_connection_carries_hits_and_other_replies_in_the_order_asked() {
    let origin = pages();
    let edge = cached(&origin, "{}");
    let sizes = [0, 1, 1000, 16_000, 20_000, 64 * 1024, MIB];
    for mut conn in [edge.plain(), edge.tls()] {
        let mut all = Vec::new();
        for size in sizes {
            // The pages of https are others than those of http.
            expect_page(&conn.ask(&Ask::get(&format!("/{size}"))), size);
            all.extend(Ask::get(&format!("/{size}")).bytes());
            all.extend(Ask::get("/no").bytes());
        }
        let before = origin.count();
        conn.send(&all);
        for size in sizes {
            let page = conn.reply();
            assert!(page.is_hit(), "{size}");
            expect_page(&page, size);
            assert!(conn.reply().text().starts_with("/no #"));
        }
        conn.expect_quiet(wait::millis(50));
        assert_eq!(origin.count() - before, sizes.len());
    }
}

#[test]
fn a_hit_says_the_same_on_both_ways() {
    let origin = Origin::start(|_| {
        Answer::fresh(3600, "page")
            .field("X-Request-Id", "the-origins")
            .field("X-Twice", "1")
            .field("X-Twice", "2")
            .field("Cache-Status", "Other;hit")
            .field("Vary", "accept")
    });
    let edge = cached(&origin, "{}");
    stored(&edge, "/a");
    let said = |ask: &Ask| {
        let reply = edge.ask(ask).expect(200);
        let hit = |line: &&str| line.starts_with("Tidegate;hit;ttl=35");
        assert_eq!(
            reply.all("cache-status").iter().filter(|l| hit(l)).count(),
            1
        );
        assert_eq!(reply.all("x-request-id").len(), 1, "{reply:?}");
        assert_ne!(reply.field("x-request-id"), Some("the-origins"));
        let timed = ["age", "date", "x-request-id", "cache-status"];
        for name in timed {
            assert!(reply.field(name).is_some(), "{name} in {reply:?}");
        }
        let mut fields: Vec<(String, String)> = reply
            .fields
            .iter()
            .map(|(name, value)| (name.to_ascii_lowercase(), value.clone()))
            .filter(|(name, _)| !timed.contains(&name.as_str()))
            .collect();
        fields.sort();
        (reply.version.clone(), reply.status, fields, reply.body)
    };
    let short = said(&Ask::get("/a"));
    // A field that Connection names is taken away first: the long way.
    let long = said(&Ask::get("/a").field("Connection", "x-nothing"));
    assert_eq!(short, long);
    assert_eq!(origin.count(), 1);
}

#[test]
fn head_is_answered_without_a_body_and_the_connection_goes_on() {
    let origin = pages();
    let edge = cached(&origin, "{}");
    stored(&edge, "/5000");
    let mut conn = edge.plain();
    for _ in 0..2 {
        let reply = conn.ask(&Ask::head("/5000")).expect(200);
        assert!(reply.is_hit());
        assert_eq!(reply.field("content-length"), Some("5000"));
        expect_page(&conn.ask(&Ask::get("/5000")), 5000);
    }
    assert_eq!(origin.count(), 1);
}

#[test]
fn the_connection_ends_when_either_side_wants_it() {
    let origin = pages();
    let edge = Setup::new().with("APP", origin.address).start(
        r#"
        [limits]
        max_requests_per_connection = 3
        [upstream.app]
        endpoints = ["@APP@"]
        [[route]]
        upstream = "app"
        cache = {}
        "#,
    );
    stored(&edge, "/70000");
    for (line, option, closes) in [
        ("HTTP/1.1", "close", true),
        ("HTTP/1.1", "Keep-Alive, CLOSE", true),
        ("HTTP/1.1", "keep-alive", false),
        ("HTTP/1.0", "x", true),
        ("HTTP/1.0", "keep-alive", false),
    ] {
        let mut conn = edge.plain();
        let ask = format!("GET /70000 {line}\r\nHost: shop.test\r\nConnection: {option}\r\n\r\n");
        conn.send(&ask);
        let reply = conn.reply();
        assert!(reply.is_hit(), "{line} {option}");
        expect_page(&reply, 70_000);
        let wanted = if closes { "close" } else { "keep-alive" };
        assert_eq!(reply.field("connection"), Some(wanted), "{line} {option}");
        if closes {
            conn.expect_end();
        } else {
            conn.send(&ask);
            expect_page(&conn.reply(), 70_000);
        }
    }
    let mut conn = edge.plain();
    conn.send(Ask::get("/70000").bytes().repeat(4));
    for nth in 1..=3 {
        let reply = conn.reply();
        expect_page(&reply, 70_000);
        let wanted = if nth < 3 { "keep-alive" } else { "close" };
        assert_eq!(reply.field("connection"), Some(wanted), "request {nth}");
    }
    conn.expect_end();
    assert_eq!(origin.count(), 1);
}

#[test]
fn a_slow_reader_gets_every_byte() {
    let origin = pages();
    let edge = cached(&origin, "{}");
    for size in [64 * 1024, MIB] {
        stored(&edge, &format!("/{size}"));
        let mut conn = narrow(&edge);
        // Often enough for the page to be sent another way at last.
        conn.send(Ask::get(&format!("/{size}")).bytes().repeat(12));
        for _ in 0..12 {
            let head = conn.head().unwrap();
            assert!(head.is_hit());
            let mut got = Vec::new();
            while got.len() < size {
                // Its socket stays full meanwhile.
                wait::hold(wait::millis(1));
                let step = (size - got.len()).min(32 * 1024);
                got.extend(conn.exactly(step).unwrap());
            }
            assert!(got == body(size), "{size}");
        }
        conn.expect_quiet(wait::millis(50));
    }
}

#[test]
fn a_client_that_reads_nothing_is_given_up() {
    let origin = pages();
    let edge = Setup::new().with("APP", origin.address).start(
        r#"
        [limits]
        body_timeout = "1s"
        [upstream.app]
        endpoints = ["@APP@"]
        [[route]]
        upstream = "app"
        cache = {}
        "#,
    );
    for size in [64 * 1024, 2 * MIB] {
        stored(&edge, &format!("/{size}"));
        let mut conn = narrow(&edge);
        conn.send(Ask::get(&format!("/{size}")).bytes().repeat(300));
        edge.await_metric(r#"tidegate_requests_active{listener="plain"}"#, 1.0);
        for active in ["connections", "requests"] {
            await_none(&edge, active);
        }
    }
}

#[test]
fn the_log_counts_the_bytes_of_hits_and_names_clients_that_left() {
    let origin = pages();
    let edge = Setup::new().with("APP", origin.address).start(
        r#"
        [log]
        access = { path = "access.log", format = "json" }
        [upstream.app]
        endpoints = ["@APP@"]
        [[route]]
        name = "pages"
        upstream = "app"
        cache = {}
        "#,
    );
    let size = 8 * MIB;
    for target in [size, 1000, 70_000] {
        stored(&edge, &format!("/{target}"));
    }
    let mut conn = edge.plain();
    let reply = conn.ask(&Ask::get("/1000").field("User-Agent", "a"));
    conn.ask(&Ask::get("/70000").field("User-Agent", "b"));
    conn.ask(&Ask::head("/70000").field("User-Agent", "c"));
    let mut gone = narrow(&edge);
    gone.send(
        Ask::get(&format!("/{size}"))
            .field("User-Agent", "d")
            .bytes(),
    );
    gone.exactly(1000).unwrap();
    gone.reset();
    let line_of = |agent: &str| -> Value {
        let path = edge.folder().join("access.log");
        wait::until(&format!("a line of {agent}"), wait::SOON, || {
            let text = fs::read_to_string(&path).unwrap_or_default();
            text.lines()
                .filter_map(|line| serde_json::from_str::<Value>(line).ok())
                .find(|line| line["user_agent"] == agent)
        })
    };
    let line = line_of("a");
    for (field, value) in [
        ("request_id", reply.field("x-request-id").unwrap()),
        ("listener", "plain"),
        ("route", "pages"),
        ("client", "127.0.0.1"),
        ("method", "GET"),
        ("host", "shop.test"),
        ("target", "/1000"),
        ("cache", "hit"),
    ] {
        assert_eq!(line[field], value, "{field} in {line}");
    }
    for (agent, bytes) in [("a", 1000), ("b", 70_000), ("c", 0)] {
        let line = line_of(agent);
        assert_eq!(line["status"], 200, "{line}");
        assert_eq!(line["bytes_out"], bytes, "{line}");
    }
    let line = line_of("d");
    assert!(line.to_string().contains("client_gone"), "{line}");
    assert!(line["bytes_out"].as_u64().unwrap() < size as u64, "{line}");
    await_none(&edge, "requests");
}

#[test]
fn filters_edit_hits_and_keep_out_whom_they_keep_out() {
    let origin = Origin::start(|_| {
        Answer::fresh(60, "x")
            .field("Server", "app")
            .field("X-App", "1")
    });
    let edge = Setup::new().with("APP", origin.address).start(
        r#"
        [server]
        trusted_proxies = ["127.0.0.1"]
        [upstream.app]
        endpoints = ["@APP@"]
        [filter.door]
        deny = ["192.0.2.0/24"]
        [filter.site]
        response_headers = { remove = ["server", "age"], set = { x-site = "1", x-app = "2" }, add = { x-app = "3" } }
        [filter.old]
        rewrite = { prefix = "/old", to = "/" }
        [[route]]
        upstream = "app"
        cache = {}
        filters = ["door", "site", "old"]
        "#,
    );
    stored(&edge, "/old/a");
    let reply = edge.get("/old/a").expect(200);
    assert!(reply.is_hit());
    assert_eq!(reply.field("server"), None);
    assert_eq!(reply.field("age"), None);
    assert_eq!(reply.field("x-site"), Some("1"));
    assert_eq!(reply.all("x-app"), ["2", "3"]);
    let denied = Ask::get("/old/a").field("X-Forwarded-For", "192.0.2.7");
    assert!(!edge.ask(&denied).expect(403).is_hit());
    let secure = Ask::get("/old/a").field("X-Forwarded-Proto", "https");
    assert!(!edge.ask(&secure).is_hit(), "a page of http for https");
}

#[test]
fn what_the_short_way_leaves_is_answered_as_ever() {
    let origin = pages();
    let edge = cached(&origin, "{}");
    stored(&edge, "/1000");
    let mut conn = edge.plain();
    let ask = |name: &str, value: &str| Ask::get("/1000").field(name, value);
    let part = conn.ask(&ask("Range", "bytes=10-19")).expect(206);
    assert_eq!(part.body, body(1000)[10..20]);
    conn.ask(&ask("If-None-Match", "\"1000\"")).expect(304);
    let spelt = conn.ask(&Ask::get("/./1000").host("SHOP.test:80"));
    assert!(spelt.is_hit(), "{spelt:?}");
    let absolute = conn.ask(&Ask::get("http://shop.test/1000"));
    assert!(absolute.is_hit(), "{absolute:?}");
    let passed = conn.ask(&Ask::get("/1000").body("abc")).expect(200);
    assert!(
        !passed.is_hit(),
        "a request with a body goes past the cache"
    );
    expect_page(&conn.ask(&Ask::get("/1000")), 1000);
    conn.send("GET /1000 HTTP/1.1\r\nHost: shop.test\r\nHost: shop.test\r\n\r\n");
    assert_eq!(conn.reply().status, 400);
    conn.expect_end();
}

#[test]
fn who_is_reading_a_page_reads_it_to_its_end_whatever_becomes_of_it() {
    let origin = Origin::start(|seen| {
        let letter = b'a' + u8::try_from(seen.nth).unwrap();
        Answer::fresh(3600, vec![letter; MIB])
    });
    let edge = cached(&origin, "{}");
    for _ in 0..20 {
        stored(&edge, "/a");
    }
    let mut slow = narrow(&edge);
    slow.send(Ask::get("/a").bytes());
    assert!(slow.head().unwrap().is_hit());
    let purge = "/cache/purge?url=http://shop.test/a";
    assert_eq!(edge.command(purge).status / 100, 2);
    for nth in 0..20 {
        let new = edge.get("/a");
        assert_eq!(new.is_hit(), nth > 0);
        assert!(new.body == vec![b'b'; MIB]);
    }
    assert!(slow.exactly(MIB).unwrap() == vec![b'a'; MIB]);
    slow.expect_quiet(wait::millis(50));
}

#[test]
fn a_purge_counts_from_the_next_request_of_an_open_connection() {
    let origin = pages();
    let edge = cached(&origin, "{}");
    stored(&edge, "/1000");
    let mut conn = edge.plain();
    assert!(conn.ask(&Ask::get("/1000")).is_hit());
    let purge = "/cache/purge?url=http://shop.test/1000";
    assert_eq!(edge.command(purge).status / 100, 2);
    assert!(!conn.ask(&Ask::get("/1000")).is_hit());
    assert!(conn.ask(&Ask::get("/1000")).is_hit());
    assert_eq!(origin.count(), 2);
}
