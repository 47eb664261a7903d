//! Calm under load: what keeps the application from noticing how many ask, how old a page gets, and
//! that it is down.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::cache::{cached, counting};
use crate::cache_purge::purge;
use crate::support::load::{Load, Talk};
use crate::support::{Answer, Ask, Conn, Edge, Gate, Origin, Setup, runtime, tools, wait};

/// Seconds of lifetime left, by Cache-Status.
fn ttl(said: &str) -> Option<i64> {
    let (_, ttl) = said.split_once(";ttl=")?;
    ttl.split(';').next()?.parse().ok()
}

#[test]
fn a_page_in_demand_is_fetched_anew_behind_the_scenes_once_before_its_end() {
    let gate = Gate::default();
    let held = gate.clone();
    let origin = counting(move |seen, a| {
        let a = a.field("Cache-Control", "max-age=600");
        if seen.nth == 0 { a } else { a.when(&held) }
    });
    let edge = cached(&origin, "{ early_refresh = \"600s\" }");
    let old = edge.get("/a").expect(200).text();
    let mut conn = edge.plain();
    let mut hit = || {
        let reply = conn.ask(&Ask::get("/a")).expect(200);
        let said = reply.cache_status();
        assert!(ttl(&said).is_some_and(|ttl| ttl > 500), "{said}");
        assert!(reply.is_hit(), "{said}");
        reply.text()
    };
    wait::eventually("a refresh by one in a hundred", 3 * wait::SOON, || {
        hit();
        origin.count() == 2
    });
    for _ in 0..500 {
        assert_eq!(hit(), old, "nobody waits for it");
    }
    assert_eq!(origin.count(), 2, "one refresh at a time");
    gate.open();
    wait::eventually("the new page", wait::SOON, || hit() != old);
    let quiet = cached(&origin, "{}");
    let before = origin.count();
    for _ in 0..500 {
        quiet.get("/a").expect(200);
    }
    assert_eq!(origin.count(), before + 1, "only where the route says so");
}

#[test]
fn a_page_in_demand_never_grows_stale() {
    let origin = counting(|_, a| {
        a.field("Cache-Control", "max-age=4")
            .after(wait::millis(100))
    });
    let edge = cached(&origin, "{ early_refresh = \"3s\" }");
    edge.get("/a").expect(200);
    let mut conn = edge.plain();
    let mut requests = 0;
    wait::always("every reply to be a fresh hit", wait::secs(10), || {
        let reply = conn.ask(&Ask::get("/a")).expect(200);
        requests += 1;
        let said = reply.cache_status();
        reply.is_hit() && ttl(&said).is_some_and(|ttl| ttl >= 0)
    });
    let fetches = origin.count();
    assert!(
        (3..=12).contains(&fetches),
        "{fetches} for {requests} requests"
    );
}

/// A shop of three nodes whose catalogue outlives them.
fn shop(nodes: &[Origin]) -> Edge {
    let endpoints: Vec<String> = nodes.iter().map(|n| format!("\"{}\"", n.address)).collect();
    Setup::new().with("NODES", endpoints.join(", ")).start(
        r#"
            [upstream.app]
            endpoints = [@NODES@]
            health_check = { type = "tcp", interval = "200ms", healthy_after = 1 }
            [[route]]
            match = { path_prefix = "/cart" }
            upstream = "app"
            [[route]]
            match = { path_prefix = "/strict" }
            upstream = "app"
            cache = { }
            [[route]]
            name = "catalog"
            upstream = "app"
            cache = { offline = "serve_stale" }
            "#,
    )
}

fn node() -> Origin {
    Origin::start(|seen| {
        let control = match seen.target.as_str() {
            "/must" => "max-age=1, must-revalidate",
            "/no-cache" => "no-cache",
            "/shared" => "s-maxage=1",
            _ => "max-age=1",
        };
        Answer::ok(seen.target.clone())
            .field("Cache-Control", control)
            .field("ETag", "\"v1\"")
    })
}

#[test]
fn the_catalogue_is_served_however_old_while_no_node_answers() {
    let mut nodes = [node(), node(), node()];
    let edge = shop(&nodes);
    let pages = ["/catalog", "/must", "/no-cache", "/shared", "/strict"];
    for target in pages {
        edge.get(target).expect(200);
    }
    let load = Load::start(Talk::Plain, edge.http(), &Ask::get("/catalog"), 100, 20);
    wait::eventually("load", wait::SOON, || load.so_far().ok > 50);
    for node in &mut nodes {
        node.down();
    }
    let before = load.so_far().ok;
    wait::eventually("the page to be served stale", wait::SOON, || {
        let said = edge.get("/catalog").expect(200).cache_status();
        said.contains("hit") && ttl(&said).is_some_and(|ttl| ttl < -2)
    });
    wait::eventually("more load", wait::SOON, || load.so_far().ok > before + 200);
    // 502 until the checks have found out.
    wait::eventually("503 where nothing is cached", wait::SOON, || {
        edge.get("/cart").status == 503
    });
    let unknown = edge.get("/catalog/unknown").expect(503).cache_status();
    assert!(unknown.contains("fwd=uri-miss;detail="), "{unknown}");
    assert_eq!(
        edge.get("/strict").status,
        503,
        "where the route does not say so"
    );
    for target in ["/must", "/no-cache", "/shared"] {
        let forbidden = edge.get(target).expect(504).cache_status();
        assert!(
            forbidden.contains("fwd=stale;detail="),
            "{target}: {forbidden}"
        );
    }
    purge(&edge, "soft=true&url=http://shop.test/catalog");
    edge.get("/catalog").expect(200);
    for node in &mut nodes {
        node.up();
    }
    wait::eventually("a fresh page again", 2 * wait::SOON, || {
        let reply = edge.get("/catalog").expect(200);
        ttl(&reply.cache_status()).is_some_and(|ttl| ttl >= 0)
    });
    load.end().expect_flawless(250);
}

#[test]
fn being_offline_is_that_nobody_answers_and_not_that_somebody_fails() {
    let origin = counting(|seen, a| match (seen.nth, seen.target.as_str()) {
        (0 | 1, _) => a
            .field("Cache-Control", "max-age=0")
            .field("ETag", "\"v1\""),
        (_, "/slow") => a.after(wait::secs(3)),
        _ => Answer::new(500, "broken"),
    });
    let edge = Setup::new().with("APP", origin.address).start(
        r#"
        [upstream.app]
        endpoints = ["@APP@"]
        first_byte_timeout = "300ms"
        outlier_detection = false
        [[route]]
        upstream = "app"
        cache = { offline = "serve_stale" }
        "#,
    );
    for target in ["/slow", "/fails"] {
        edge.get(target).expect(200);
    }
    let slow = edge.get("/slow").expect(200);
    assert!(slow.is_hit(), "{slow:?}");
    assert_eq!(edge.get("/fails").status, 500);
}

#[test]
fn who_waited_long_enough_for_another_fetches_alone() {
    let gate = Gate::default();
    let held = gate.clone();
    let origin = counting(move |seen, a| {
        let a = a.field("Cache-Control", "max-age=600");
        if seen.nth == 0 { a.when(&held) } else { a }
    });
    let edge = cached(&origin, "{ collapse_timeout = \"300ms\" }");
    let mut leader = edge.plain();
    leader.send(Ask::get("/a").bytes());
    wait::eventually("the fetch", wait::SOON, || origin.count() == 1);
    let started = wait::now();
    let by_himself = edge.get("/a").expect(200);
    assert!(started.elapsed() >= wait::millis(250), "it did not wait");
    assert_eq!(by_himself.text(), "/a #1");
    assert!(
        by_himself.cache_status().contains("stored"),
        "{by_himself:?}"
    );
    assert!(
        edge.get("/a").is_hit(),
        "and the others have it from then on"
    );
    gate.open();
    assert_eq!(leader.reply().expect(200).text(), "/a #0");
}

fn send(edge: &Edge, ask: &Ask) -> Conn {
    let mut conn = edge.plain();
    conn.send(ask.bytes());
    conn
}

#[test]
fn after_a_page_that_was_not_for_all_nobody_waits_for_a_while() {
    for (cache, side_by_side) in [
        ("{ hit_for_miss = \"1h\" }", true),
        ("{}", true),
        ("{ hit_for_miss = \"0s\" }", false),
    ] {
        let gate = Gate::default();
        let held = gate.clone();
        let origin = counting(move |seen, a| match seen.nth {
            0 => a.field("Cache-Control", "private"),
            _ => a.field("Cache-Control", "max-age=600").when(&held),
        });
        let edge = cached(&origin, cache);
        edge.get("/a").expect(200);
        let known = edge.json("/cache/inspect?url=http://shop.test/a");
        assert_eq!(known["not_shared"], side_by_side, "{cache}");
        let mut conns = [(); 3].map(|()| send(&edge, &Ask::get("/a")));
        if side_by_side {
            wait::eventually("all to fetch", wait::SOON, || origin.count() == 4);
        } else {
            let active = r#"tidegate_requests_active{listener="plain"}"#;
            wait::eventually("all to wait", wait::SOON, || edge.metric(active) >= 3.0);
            wait::always("one fetch", wait::millis(200), || origin.count() <= 2);
        }
        gate.open();
        for conn in &mut conns {
            conn.reply().expect(200);
        }
        wait::eventually("a page that is for all after all", wait::SOON, || {
            edge.get("/a").is_hit()
        });
    }
}

#[test]
fn a_page_is_stored_when_it_was_asked_for_often_enough() {
    let origin = counting(|_, a| a.field("Cache-Control", "max-age=600"));
    let edge = cached(&origin, "{ min_uses = 3 }");
    let reason = r#"tidegate_cache_not_stored_total{reason="min-uses"}"#;
    for nth in 1..=5 {
        let reply = edge.get("/a").expect(200);
        let said = reply.cache_status();
        assert_eq!(said.contains("detail=min-uses"), nth < 3, "{nth}: {said}");
        assert_eq!(said.contains("stored"), nth == 3, "{nth}: {said}");
        assert_eq!(reply.is_hit(), nth > 3, "{nth}: {said}");
        assert_eq!(edge.metric(reason), f64::from(nth.min(2)), "{nth}");
    }
    assert_eq!(origin.count(), 3);
    let said = edge.get("/b").expect(200).cache_status();
    assert!(said.contains("detail=min-uses"), "another page: {said}");
}

/// Who waits for a page that will not be stored still shares the one fetch of it.
#[test]
fn a_page_that_is_not_stored_for_want_of_uses_is_fetched_once_for_those_who_wait() {
    let gate = Gate::default();
    let held = gate.clone();
    let origin = counting(move |_, a| a.field("Cache-Control", "max-age=600").when(&held));
    let edge = cached(&origin, "{ min_uses = 100 }");
    let mut conns = [(); 10].map(|()| send(&edge, &Ask::get("/a")));
    let active = r#"tidegate_requests_active{listener="plain"}"#;
    wait::eventually("all to wait", wait::SOON, || edge.metric(active) >= 10.0);
    gate.open();
    for conn in &mut conns {
        assert_eq!(conn.reply().expect(200).text(), "/a #0");
    }
    assert_eq!(origin.count(), 1);
    assert_eq!(edge.json("/cache")["memory"]["entries"], 0);
}

const CLIENTS: usize = 2000;
const PAGES: usize = 20;

/// 2,000 clients at once on 20 pages that have just run out, from an application that takes a second
/// for each: it is asked for each page once.
#[test]
fn a_stampede_on_expired_pages_is_one_request_a_page() {
    tools::raise_open_files(2 * CLIENTS as u64 + 500);
    let origin = counting(|seen, a| match seen.nth {
        0..PAGES => a.field("Cache-Control", "max-age=1"),
        _ => a.field("Cache-Control", "max-age=600").after(wait::secs(1)),
    });
    let edge = Setup::new().with("APP", origin.address).start(
        r#"
        [limits]
        max_connections_per_ip = 3000
        [upstream.app]
        endpoints = ["@APP@"]
        [[route]]
        upstream = "app"
        cache = {}
        "#,
    );
    let target = |page: usize| format!("/page/{page}");
    for page in 0..PAGES {
        edge.get(&target(page)).expect(200);
    }
    // All connect before the first of them asks, and the pages run out meanwhile.
    let mut sockets: Vec<TcpStream> = (0..CLIENTS).map(|_| connect(edge.http())).collect();
    wait::eventually("all pages to have run out", wait::SOON, || {
        (0..PAGES).all(|page| {
            let url = format!("/cache/inspect?url=http://shop.test{}", target(page));
            edge.json(&url)["decision"] == "validate"
        })
    });
    let asked: Vec<_> = sockets
        .drain(..)
        .enumerate()
        .map(|(nth, socket)| {
            let page = target(nth % PAGES);
            runtime().spawn(async move {
                let limit = 6 * wait::SOON;
                let reply = tokio::time::timeout(limit, exchange(socket, &page)).await;
                (page, reply.map_err(|_| "no reply in time".to_owned()))
            })
        })
        .collect();
    for task in asked {
        let (page, reply) = runtime().block_on(task).expect("a client");
        let reply = reply.and_then(|reply| reply.map_err(|error| error.to_string()));
        let reply = reply.unwrap_or_else(|error| panic!("{page}: {error}"));
        assert!(reply.starts_with("HTTP/1.1 200"), "{page}: {reply}");
        // The first request for each page is long ago: it is the new one.
        let body = reply.rsplit("\r\n").next().unwrap_or_default();
        let (name, nth) = body.split_once(" #").expect("a page");
        assert_eq!(name, page);
        assert!(nth.parse::<usize>().expect("a number") >= PAGES, "{reply}");
    }
    assert_eq!(origin.count(), 2 * PAGES, "more than one request a page");
    assert!(origin.broken().is_empty());
}

fn connect(address: SocketAddr) -> TcpStream {
    let socket = runtime().block_on(TcpStream::connect(address));
    socket.expect("a connection")
}

async fn exchange(mut socket: TcpStream, target: &str) -> std::io::Result<String> {
    let ask = format!("GET {target} HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n");
    socket.write_all(ask.as_bytes()).await?;
    let mut reply = String::new();
    socket.read_to_string(&mut reply).await?;
    Ok(reply)
}
