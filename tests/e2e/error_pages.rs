//! Pages that stand in for error replies: the edge's own, a directory's, an app's, stored ones; for
//! each carrier the same.

use serde_json::Value;

use crate::support::client::Reply;
use crate::support::h2::H2;
use crate::support::{Answer, Ask, Edge, Origin, Setup, ports};

const NOT_FOUND: &str = "<h1>{status} {reason}</h1><p>{request_id}</p>";

/// An edge with routes to an app, to nobody, to a directory and to a fixed reply.
fn edge(app: &Origin) -> Edge {
    Setup::new()
        .file("errors/404.html", NOT_FOUND)
        .file("errors/4xx.txt", "client: {status}")
        .file("errors/5xx.html", "<p>sorry, {status}</p>")
        .file("site/index.html", "home")
        .with("APP", app.address)
        .with("NOBODY", ports::free())
        .start(
            r#"
            [server]
            workers = 2
            error_pages = "all"
            [error_pages.all]
            root = "errors"
            pages = { "404" = "404.html", "4xx" = "4xx.txt", "5xx" = "5xx.html" }
            [error_pages.apps]
            root = "errors"
            pages = { "404" = "404.html", "5xx" = "5xx.html" }
            upstream = true
            [upstream.app]
            endpoints = ["@APP@"]
            outlier_detection = false
            [upstream.nobody]
            endpoints = ["@NOBODY@"]
            [static.site]
            root = "site"
            [filter.nobody]
            deny = ["127.0.0.1"]
            [filter.marked]
            response_headers = { set = { x-marked = "yes" } }
            [[route]]
            match = { path_prefix = "/app" }
            upstream = "app"
            error_pages = "apps"
            filters = ["marked"]
            [[route]]
            match = { path_prefix = "/own" }
            upstream = "app"
            [[route]]
            match = { path_prefix = "/cached" }
            upstream = "app"
            error_pages = "apps"
            cache = {}
            [[route]]
            match = { path_prefix = "/down" }
            upstream = "nobody"
            [[route]]
            match = { path_prefix = "/site" }
            static = "site"
            strip_prefix = "/site"
            [[route]]
            match = { path = "/closed" }
            static = "site"
            filters = ["nobody"]
            [[route]]
            match = { path = "/gone" }
            respond = { status = 404, body = "as written" }
            [[route]]
            match = { path = "/empty" }
            respond = { status = 404 }
            [[route]]
            match = { path = "/put", method = "PUT" }
            upstream = "app"
            [[route]]
            match = { path_prefix = "/plain" }
            upstream = "nobody"
            error_pages = false
            "#,
        )
}

/// The app says what the path asks for: `/x/404/html`.
fn app() -> Origin {
    Origin::start(|seen| {
        let mut words = seen.target.split('/').skip(2);
        let status = words.next().and_then(|word| word.parse().ok());
        let media_type = match words.next() {
            Some("json") => "application/json",
            Some("text") => "text/plain",
            _ => "text/html",
        };
        Answer::new(status.unwrap_or(200), "from the app")
            .field("Content-Type", media_type)
            .field("ETag", "\"a\"")
            .field("Retry-After", "9")
            .field("Cache-Control", "max-age=60")
    })
}

/// The same over every carrier there is.
#[track_caller]
fn everywhere(edge: &Edge, ask: &Ask) -> Vec<Reply> {
    vec![
        edge.plain().ask(ask),
        edge.tls().ask(ask),
        H2::plain(edge.http()).ask(ask),
        H2::tls(edge.https(), "shop.test").ask(ask),
    ]
}

#[track_caller]
fn expect_page(reply: &Reply, status: u16, page: &str) {
    assert_eq!((reply.status, reply.text()), (status, page.to_owned()));
    assert_eq!(reply.field("cache-control"), Some("no-store"));
    assert_eq!(reply.field("etag"), None);
    assert_eq!(reply.all("content-type").len(), 1, "{reply:?}");
    assert_eq!(
        reply.all("content-length"),
        [page.len().to_string().as_str()]
    );
    assert!(reply.field("x-request-id").is_some());
}

#[test]
fn a_request_that_no_route_takes_gets_the_page_with_its_facts() {
    let app = app();
    let edge = edge(&app);
    for reply in everywhere(&edge, &Ask::get("/nowhere")) {
        let id = reply.field("x-request-id").expect("an id").to_owned();
        let page = format!("<h1>404 Not Found</h1><p>{id}</p>");
        expect_page(&reply, 404, &page);
        assert_eq!(
            reply.field("content-type"),
            Some("text/html; charset=utf-8")
        );
    }
}

#[test]
fn every_error_found_here_has_a_page_and_keeps_what_speaks_of_it() {
    let app = app();
    let edge = edge(&app);
    for reply in everywhere(&edge, &Ask::get("/down")) {
        expect_page(&reply, 503, "<p>sorry, 503</p>");
        assert_eq!(reply.field("retry-after"), Some("1"));
    }
    for reply in everywhere(&edge, &Ask::get("/closed")) {
        expect_page(&reply, 403, "client: 403");
        assert_eq!(
            reply.field("content-type"),
            Some("text/plain; charset=utf-8")
        );
    }
    for reply in everywhere(&edge, &Ask::get("/put")) {
        expect_page(&reply, 405, "client: 405");
        assert_eq!(reply.field("allow"), Some("PUT"));
    }
    for reply in everywhere(&edge, &Ask::get("/site/none")) {
        let id = reply.field("x-request-id").expect("an id").to_owned();
        expect_page(&reply, 404, &format!("<h1>404 Not Found</h1><p>{id}</p>"));
    }
    for reply in everywhere(&edge, &Ask::get("/site/")) {
        assert_eq!((reply.status, reply.text().as_str()), (200, "home"));
    }
}

#[test]
fn a_reply_that_stands_in_the_configuration_stays_unless_it_is_empty() {
    let app = app();
    let edge = edge(&app);
    assert_eq!(edge.get("/gone").expect(404).text(), "as written");
    assert!(edge.get("/empty").expect(404).text().starts_with("<h1>404"));
    let plain = edge.get("/plain").expect(503).text();
    assert!(plain.starts_with("503 Service Unavailable\n"), "{plain}");
}

#[test]
fn head_has_the_length_and_no_body() {
    let app = app();
    let edge = edge(&app);
    for target in ["/down", "/app/500/html", "/cached/500/html"] {
        for reply in everywhere(&edge, &Ask::head(target)) {
            assert!(reply.status >= 500, "{reply:?}");
            assert_eq!(reply.field("content-length"), Some("17"), "{target}");
            assert_eq!(reply.text(), "");
        }
    }
    let mut conn = edge.plain();
    conn.ask(&Ask::head("/site/none")).expect(404);
    conn.ask(&Ask::get("/site/")).expect(200);
}

#[test]
fn an_apps_error_is_replaced_where_the_route_says_so() {
    let app = app();
    let edge = edge(&app);
    for reply in everywhere(&edge, &Ask::get("/app/500/html")) {
        expect_page(&reply, 500, "<p>sorry, 500</p>");
        assert_eq!(reply.field("retry-after"), Some("9"), "the app's own");
        assert_eq!(reply.field("x-marked"), Some("yes"), "filters run behind");
    }
    for reply in everywhere(&edge, &Ask::get("/app/503/text")) {
        expect_page(&reply, 503, "<p>sorry, 503</p>");
    }
    for (target, status) in [
        ("/app/200/html", 200),
        ("/app/403/html", 403),
        ("/app/500/json", 500),
        ("/own/500/html", 500),
    ] {
        for reply in everywhere(&edge, &Ask::get(target)) {
            assert_eq!(
                (reply.status, reply.text().as_str()),
                (status, "from the app")
            );
            assert_eq!(reply.field("etag"), Some("\"a\""));
        }
    }
    let post = Ask::post("/app/500/html", vec![b'x'; 200_000]);
    for reply in everywhere(&edge, &post) {
        expect_page(&reply, 500, "<p>sorry, 500</p>");
    }
}

#[test]
fn the_upstream_connection_is_kept_after_a_replaced_reply() {
    let app = app();
    let edge = edge(&app);
    let mut conn = edge.plain();
    for _ in 0..10 {
        conn.ask(&Ask::get("/app/500/html")).expect(500);
    }
    assert!(app.connections() <= 4, "{}", app.connections());
}

#[test]
fn a_client_that_wants_json_gets_json_and_an_apps_own_reply() {
    let app = app();
    let edge = edge(&app);
    let ask = |target| Ask::get(target).field("Accept", "application/json");
    for reply in everywhere(&edge, &ask("/down")) {
        let value: Value = serde_json::from_slice(&reply.body).expect("JSON");
        assert_eq!(value["status"], 503);
        assert_eq!(value["reason"], "Service Unavailable");
        assert_eq!(value["request_id"].as_str(), reply.field("x-request-id"));
        assert_eq!(reply.field("content-type"), Some("application/json"));
    }
    for reply in everywhere(&edge, &ask("/app/500/html")) {
        assert_eq!(reply.expect(500).text(), "from the app");
    }
}

#[test]
fn a_stored_error_gets_its_page_at_delivery() {
    let app = app();
    let edge = edge(&app);
    let page = |reply: &Reply| {
        let id = reply.field("x-request-id").expect("an id").to_owned();
        expect_page(reply, 404, &format!("<h1>404 Not Found</h1><p>{id}</p>"));
    };
    // A page is another one by another scheme.
    page(&edge.get("/cached/404/html"));
    page(&edge.tls().ask(&Ask::get("/cached/404/html")));
    for reply in everywhere(&edge, &Ask::get("/cached/404/html")) {
        assert!(reply.is_hit(), "{reply:?}");
        page(&reply);
    }
    assert_eq!(app.count(), 2);
    let conditional = Ask::get("/cached/404/html").field("If-None-Match", "\"a\"");
    page(&edge.ask(&conditional));
    let range = Ask::get("/cached/404/html").field("Range", "bytes=0-3");
    page(&edge.ask(&range));
    let json = Ask::get("/cached/404/html").field("Accept", "application/json");
    for reply in everywhere(&edge, &json) {
        assert_eq!(reply.expect(404).text(), "from the app", "what is stored");
    }
    assert_eq!(app.count(), 2);
}

#[test]
fn pages_are_read_anew_by_a_reload_and_a_broken_one_changes_nothing() {
    let app = app();
    let edge = edge(&app);
    let page = edge.folder().join("errors/5xx.html");
    std::fs::write(&page, "new").unwrap();
    assert_eq!(edge.get("/down").text(), "<p>sorry, 503</p>", "from memory");
    edge.reload(true);
    assert_eq!(edge.get("/down").text(), "new");
    std::fs::write(&page, vec![b'x'; 256 * 1024 + 1]).unwrap();
    edge.reload(false);
    edge.await_stderr("is larger than 256 KiB");
    assert_eq!(edge.get("/down").text(), "new");
}
