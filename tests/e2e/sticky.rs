//! Visitors who stay on their app server.

use std::collections::BTreeSet;

use crate::support::{Ask, Edge, Origin, Reply, Setup, wait};

const STICKY: &str = r#"
    [upstream.app]
    endpoints = ["@A@", "@B@", "@C@"]
    balance = "round_robin"
    sticky = { cookie = "tg_node", ttl = "1h", secret = { env = "STICKY_KEY" } }
    outlier_detection = { consecutive_errors = 1, ejection_time = "60s", max_ejected = "90%" }
    [[route]]
    upstream = "app"
"#;

fn nodes() -> [Origin; 3] {
    ["a", "b", "c"].map(Origin::named)
}

fn edge(nodes: &[Origin; 3], key: &str) -> Edge {
    Setup::new()
        .with("A", nodes[0].address)
        .with("B", nodes[1].address)
        .with("C", nodes[2].address)
        .env("STICKY_KEY", key)
        .start(STICKY)
}

/// `NAME=VALUE` of the cookie that a reply sets.
fn cookie(reply: &Reply) -> Option<String> {
    let line = reply.field("set-cookie")?;
    line.split(';').next().map(str::to_owned)
}

fn ask(edge: &Edge, cookie: &str) -> Reply {
    edge.ask(&Ask::get("/").field("cookie", cookie)).expect(200)
}

#[test]
fn a_visitor_stays_on_the_endpoint_that_answered_first() {
    let nodes = nodes();
    let edge = edge(&nodes, "0123456789abcdef");
    let mut seen = BTreeSet::new();
    for _ in 0..6 {
        let first = edge.get("/").expect(200);
        let cookie = cookie(&first).expect("a cookie");
        let attributes = first.field("set-cookie").expect("a cookie").to_owned();
        for wanted in ["Path=/", "HttpOnly", "SameSite=Lax", "Max-Age=3600"] {
            assert!(attributes.contains(wanted), "{attributes}");
        }
        assert!(!attributes.contains("Secure"), "it came over plain HTTP");
        let node = first.text();
        for _ in 0..5 {
            let again = ask(&edge, &format!("lang=de; {cookie}; theme=dark"));
            assert_eq!(again.field("set-cookie"), None, "it has its cookie");
            assert_eq!(again.text(), node);
        }
        seen.insert(node);
    }
    assert_eq!(seen.len(), 3, "new visitors are spread: {seen:?}");
    let apps: Vec<String> = nodes
        .iter()
        .flat_map(Origin::seen)
        .filter_map(|seen| seen.field("cookie").map(str::to_owned))
        .collect();
    assert_eq!(apps.len(), 30);
    assert!(
        apps.iter().all(|cookie| cookie == "lang=de; theme=dark"),
        "the app sees its own cookies and not the edge's: {apps:?}"
    );
}

#[test]
fn the_cookie_follows_when_the_endpoint_is_gone() {
    let mut nodes = nodes();
    let edge = edge(&nodes, "0123456789abcdef");
    let first = edge.get("/").expect(200);
    let (node, bound) = (first.text(), cookie(&first).expect("a cookie"));
    let gone = nodes
        .iter_mut()
        .zip(["a", "b", "c"])
        .find(|(_, name)| *name == node);
    gone.expect("one of them").0.down();
    let moved = ask(&edge, &bound);
    assert_ne!(moved.text(), node);
    let next = cookie(&moved).expect("a new cookie");
    for _ in 0..4 {
        let again = ask(&edge, &next);
        assert_eq!(again.text(), moved.text());
        assert_eq!(again.field("set-cookie"), None);
    }
}

#[test]
fn a_cookie_that_was_made_up_is_replaced_and_binds_nobody() {
    let nodes = nodes();
    let edge = edge(&nodes, "0123456789abcdef");
    let good = cookie(&edge.get("/").expect(200)).expect("a cookie");
    let mut changed = good;
    let last = changed.pop().expect("not empty");
    changed.pop();
    changed.push(if last == 'A' { 'B' } else { 'A' });
    changed.push(last);
    for bad in ["tg_node=", "tg_node=a", "tg_node=../../etc", &changed] {
        let reply = ask(&edge, bad);
        assert!(cookie(&reply).is_some(), "{bad} was taken");
    }
}

#[test]
fn a_heap_of_cookies_is_not_searched_to_its_end() {
    let nodes = nodes();
    let edge = edge(&nodes, "0123456789abcdef");
    let good = cookie(&edge.get("/").expect(200)).expect("a cookie");
    let heap = |before: usize| format!("{}{good}", "tg_node=x; ".repeat(before));
    assert_eq!(ask(&edge, &heap(3)).field("set-cookie"), None);
    assert!(cookie(&ask(&edge, &heap(500))).is_some());
    let mut seen = nodes.iter().flat_map(Origin::seen);
    assert!(
        seen.all(|seen| seen.field("cookie").is_none()),
        "the app sees none of them"
    );
}

#[test]
fn edges_with_one_secret_agree_and_others_do_not() {
    let nodes = nodes();
    let one = edge(&nodes, "0123456789abcdef");
    let same = edge(&nodes, "0123456789abcdef");
    let other = edge(&nodes, "fedcba9876543210");
    let first = one.get("/").expect(200);
    let bound = cookie(&first).expect("a cookie");
    for _ in 0..4 {
        let reply = ask(&same, &bound);
        assert_eq!(reply.text(), first.text());
        assert_eq!(reply.field("set-cookie"), None);
    }
    assert!(cookie(&ask(&other, &bound)).is_some());
}

#[test]
fn a_cookie_outlives_a_reload_also_without_a_secret() {
    let nodes = nodes();
    let toml = STICKY.replace(", secret = { env = \"STICKY_KEY\" }", "");
    let edge = Setup::new()
        .with("A", nodes[0].address)
        .with("B", nodes[1].address)
        .with("C", nodes[2].address)
        .start(&toml);
    let first = edge.get("/").expect(200);
    let bound = cookie(&first).expect("a cookie");
    edge.rewrite(&toml.replace("\"1h\"", "\"2h\""));
    edge.reload(true);
    let reply = ask(&edge, &bound);
    assert_eq!(reply.text(), first.text());
}

#[test]
fn what_caches_may_share_gets_no_cookie() {
    let shared = Origin::start(|seen| {
        let answer = crate::support::Answer::ok("page");
        match seen.target.as_str() {
            "/public" => answer.field("cache-control", "public, max-age=60"),
            "/s-maxage" => answer.field("cache-control", "s-maxage=60"),
            "/private" => answer.field("cache-control", "private"),
            _ => answer,
        }
    });
    let edge = Setup::new().with("A", shared.address).start(
        r#"
        [upstream.app]
        endpoints = ["@A@"]
        sticky = { cookie = "tg_node" }
        [[route]]
        match = { path_prefix = "/cached" }
        upstream = "app"
        cache = { ttl = "60s" }
        [[route]]
        upstream = "app"
        "#,
    );
    for target in ["/public", "/s-maxage"] {
        assert_eq!(edge.get(target).expect(200).field("set-cookie"), None);
    }
    let private = edge.get("/private").expect(200);
    let line = private.field("set-cookie").expect("a cookie");
    assert!(!line.contains("Max-Age"), "the browser's session: {line}");
    for _ in 0..2 {
        let cached = edge.get("/cached").expect(200);
        assert_eq!(cached.field("set-cookie"), None, "a page for all");
    }
    wait::always("no cookie in the store", wait::millis(50), || {
        edge.get("/cached").field("set-cookie").is_none()
    });
}
