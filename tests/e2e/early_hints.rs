//! Early hints (RFC 8297) as clients see them, over every carrier, and what is learned from whom.

use std::path::Path;
use std::process::Command;

use crate::support::client::HOST;
use crate::support::tools::{self, tool};
use crate::support::{Answer, Ask, Edge, Gate, Origin, Setup, wait};

const CSS: &str = "</app.css>; rel=preload; as=style";

/// An app whose pages name a style sheet; `/private...` is for one visitor.
fn app() -> Origin {
    Origin::start(|seen| {
        let page = Answer::ok("<p>page</p>")
            .field("Content-Type", "text/html; charset=utf-8")
            .field(
                "Link",
                "</learned.css>; rel=preload; as=style, </next>; rel=next",
            );
        match seen.target.as_str() {
            "/private" => page.field("Set-Cookie", "sid=1"),
            "/cached/a" => page.field("Cache-Control", "max-age=60"),
            "/own" => Answer::raw(
                "HTTP/1.1 103 Early Hints\r\nLink: </of-the-app.css>; rel=preload\r\n\
                 Connection: x-hop\r\nX-Hop: 1\r\n\r\n\
                 HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx",
            ),
            _ => page,
        }
    })
}

fn edge(app: &Origin) -> Edge {
    Setup::new().with("APP", app.address).start(
        r#"
        [log]
        access = { path = "access.log" }
        [upstream.app]
        endpoints = ["@APP@"]
        [[route]]
        name = "said"
        match = { path_prefix = "/said" }
        upstream = "app"
        early_hints = { links = ["</app.css>; rel=preload; as=style"], learn = false }
        [[route]]
        name = "loud"
        match = { path_prefix = "/loud" }
        upstream = "app"
        early_hints = { links = ["</app.css>; rel=preload; as=style"], http1 = true }
        [[route]]
        name = "cached"
        match = { path_prefix = "/cached" }
        upstream = "app"
        early_hints = {}
        cache = {}
        [[route]]
        name = "learning"
        upstream = "app"
        early_hints = {}
        "#,
    )
}

/// How curl is told to ask.
const CARRIERS: [(&str, &str, bool); 4] = [
    ("--http1.1", "http", false),
    ("--http1.1", "https", false),
    ("--http2-prior-knowledge", "http", true),
    ("--http2", "https", true),
];

/// Status and `Link` values of every head that curl was shown, the final one last.
fn heads(
    curl: &Path,
    edge: &Edge,
    (how, scheme, _): (&str, &str, bool),
    path: &str,
    more: &[&str],
) -> Vec<(u16, Vec<String>)> {
    let address = match scheme {
        "https" => edge.https(),
        _ => edge.http(),
    };
    let mut command = Command::new(curl);
    command
        .args(["-sk", "-D", "-", "-o", "/dev/null", how])
        .arg("--connect-to")
        .arg(format!("{HOST}:{}:{address}", address.port()))
        .args(more)
        .arg(format!("{scheme}://{HOST}:{}{path}", address.port()));
    let done = tools::run(&mut command, wait::SOON);
    assert_eq!(done.code, Some(0), "{done:?}");
    let mut heads = Vec::new();
    for block in done.stdout.split("\r\n\r\n").filter(|it| !it.is_empty()) {
        let mut lines = block.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1));
        let links = lines
            .filter_map(|line| line.split_once(": "))
            .filter(|(name, _)| name.eq_ignore_ascii_case("link"))
            .map(|(_, value)| value.to_owned());
        let status = status.and_then(|status| status.parse().ok());
        heads.push((status.expect("a status"), links.collect()));
    }
    heads
}

const NAVIGATE: [&str; 2] = ["-H", "Sec-Fetch-Mode: navigate"];

fn hint(link: &str) -> (u16, Vec<String>) {
    (103, vec![link.to_owned()])
}

#[test]
fn a_browser_is_told_over_http2_and_over_http1_where_the_route_says_so() {
    let curl = tool!("curl", "curl");
    let app = app();
    let edge = edge(&app);
    for carrier in CARRIERS {
        let said = heads(&curl, &edge, carrier, "/said", &NAVIGATE);
        let loud = heads(&curl, &edge, carrier, "/loud", &NAVIGATE);
        assert_eq!(said.last().map(|head| head.0), Some(200));
        let told = usize::from(carrier.2);
        assert_eq!(said.len(), 1 + told, "{carrier:?}: {said:?}");
        if carrier.2 {
            assert_eq!(said[0], hint(CSS), "{carrier:?}");
        }
        assert_eq!(loud[0].0, 103, "{carrier:?}: {loud:?}");
        assert_eq!(loud[0].1[0], CSS);
    }
    assert_eq!(
        edge.metric("tidegate_early_hints_total{route=\"said\"}"),
        2.0
    );
    assert_eq!(
        edge.metric("tidegate_early_hints_total{route=\"loud\"}"),
        4.0
    );
}

#[test]
fn who_cannot_use_a_hint_gets_none() {
    let curl = tool!("curl", "curl");
    let app = app();
    let edge = edge(&app);
    let post = [NAVIGATE[0], NAVIGATE[1], "-d", "a=1"];
    let script = ["-H", "Sec-Fetch-Mode: cors"];
    for carrier in CARRIERS {
        for more in [&[][..], &script[..], &post[..]] {
            let heads = heads(&curl, &edge, carrier, "/loud", more);
            assert_eq!(heads.len(), 1, "{carrier:?} {more:?}: {heads:?}");
        }
    }
    let old = [NAVIGATE[0], NAVIGATE[1], "--http1.0"];
    let heads = heads(&curl, &edge, CARRIERS[0], "/loud", &old);
    assert_eq!(heads.len(), 1, "HTTP/1.0: {heads:?}");
    assert!(!edge.has_metric("tidegate_early_hints_total"));
}

#[test]
fn the_hint_is_there_before_the_app_answers() {
    let gate = Gate::default();
    let held = gate.clone();
    let app = Origin::start(move |_| Answer::ok("late").when(&held));
    let edge = edge(&app);
    let ask = Ask::get("/loud").field("Sec-Fetch-Mode", "navigate");
    let mut conn = edge.plain();
    conn.send(ask.bytes());
    let told = conn.exactly("HTTP/1.1 103 Early Hints\r\n".len());
    assert_eq!(told.as_deref(), Ok(&b"HTTP/1.1 103 Early Hints\r\n"[..]));
    // Who leaves then had no answer.
    drop(conn);
    edge.await_metric(
        "tidegate_requests_total{route=\"loud\",class=\"none\"}",
        1.0,
    );
    gate.open();
}

#[test]
fn links_are_learned_from_what_everybody_gets_and_from_nothing_else() {
    let curl = tool!("curl", "curl");
    let app = app();
    let edge = edge(&app);
    let learned = "</learned.css>; rel=preload; as=style";
    let h2 = CARRIERS[3];
    let told = |path: &str, more: &[&str]| {
        let more = [&NAVIGATE[..], more].concat();
        let heads = heads(&curl, &edge, h2, path, &more);
        heads.len() > 1 && heads[0] == hint(learned)
    };
    let cookie = ["-H", "Cookie: sid=7"];
    assert!(!told("/a", &cookie), "nothing is known yet");
    assert!(!told("/a", &[]), "one with a cookie taught nothing");
    assert!(told("/a", &[]));
    assert!(told("/a", &cookie), "all are told");
    assert!(told("/a?page=2", &[]), "the path counts");
    assert!(!told("/b", &[]), "another page");
    assert!(told("/b", &[]));
    assert!(!told("/private", &[]));
    assert!(!told("/private", &[]), "its reply sets a cookie");
    edge.reload(true);
    assert!(told("/a", &[]), "a reload forgets nothing");
}

#[test]
fn a_stored_page_needs_no_hint_and_a_miss_gets_one() {
    let curl = tool!("curl", "curl");
    let app = app();
    let edge = edge(&app);
    let h2 = CARRIERS[3];
    let ask = |more: &[&str]| {
        let more = [&NAVIGATE[..], more].concat();
        heads(&curl, &edge, h2, "/cached/a", &more).len()
    };
    assert_eq!(ask(&[]), 1, "a miss, and nothing known");
    assert_eq!(ask(&[]), 1, "a hit");
    edge.command("/cache/purge?all=true").expect(200);
    assert_eq!(ask(&[]), 2, "a miss");
    assert_eq!(ask(&[]), 1, "a hit");
    let reload = ["-H", "Cache-Control: no-cache"];
    assert_eq!(ask(&reload), 2, "it must be asked for again");
    assert_eq!(app.count(), 3);
}

#[test]
fn hints_of_the_app_pass_over_every_carrier_without_what_is_of_its_connection() {
    let curl = tool!("curl", "curl");
    let app = app();
    let edge = edge(&app);
    for carrier in CARRIERS {
        let heads = heads(&curl, &edge, carrier, "/own", &[]);
        assert_eq!(heads.len(), 2, "{carrier:?}: {heads:?}");
        assert_eq!(heads[0], hint("</of-the-app.css>; rel=preload"));
        assert_eq!(heads[1].0, 200);
    }
}

#[test]
fn another_implementation_of_http2_takes_the_hint() {
    let nghttp = tool!("nghttp", "nghttp2-client");
    let app = app();
    let edge = edge(&app);
    let mut command = Command::new(nghttp);
    command
        .args(["-nv", "-H", "sec-fetch-mode: navigate"])
        .arg(format!("http://{}/said", edge.http()));
    let done = tools::run(&mut command, wait::SOON);
    assert_eq!(done.code, Some(0), "{done:?}");
    let interim = done.stdout.find(":status: 103");
    let last = done.stdout.find(":status: 200");
    assert!(interim.is_some() && interim < last, "{}", done.stdout);
}

/// The app's page waits until the style sheet was asked for, which nobody but a browser that was
/// told of it can do by then.
#[test]
fn a_browser_fetches_what_it_was_told_before_the_page_is_there() {
    let chromium = tool!("chromium", "chromium");
    let gate = Gate::default();
    let told = gate.clone();
    let app = Origin::start(move |seen| match seen.target.as_str() {
        "/app.css" => {
            told.open();
            Answer::ok("p { color: green }")
                .field("Content-Type", "text/css")
                .field("Cache-Control", "max-age=60")
        }
        "/said" => Answer::ok("<link rel=stylesheet href=/app.css><p id=page>the page</p>")
            .field("Content-Type", "text/html")
            .when(&told),
        _ => Answer::new(404, "none"),
    });
    let edge = edge(&app);
    let address = edge.https();
    let mut command = Command::new(chromium);
    command
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--ignore-certificate-errors",
            "--dump-dom",
        ])
        .arg(format!("--host-resolver-rules=MAP {HOST} {}", address.ip()))
        .arg(format!(
            "--user-data-dir={}",
            edge.folder().join("profile").display()
        ))
        .env("HOME", edge.folder())
        .arg(format!("https://{HOST}:{}/said", address.port()));
    let shown = tools::run(&mut command, wait::secs(90));
    assert!(shown.stdout.contains("the page"), "{shown:?}");
    // The page was not answered before the style was asked for.
    assert!(gate.is_open());
    let log = edge.folder().join("access.log");
    let place = |path: &str| {
        let log = std::fs::read_to_string(&log).unwrap();
        let target = format!("\"target\":\"{path}\"");
        log.lines().position(|line| line.contains(&target))
    };
    wait::eventually("both in the log", wait::SOON, || {
        place("/said").is_some() && place("/app.css").is_some()
    });
}
