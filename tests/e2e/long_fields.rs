//! A field that is long and odd costs no more time than one that is long: who sends it cannot keep
//! the edge busy with little.

use std::time::Duration;

use http::header::{HeaderName, HeaderValue};

use crate::support::{Answer, Ask, Edge, Origin, Setup};

/// CPU time that one request may take, in a build without optimisation. What grows with the square of
/// these lengths takes seconds.
const PATIENCE: Duration = Duration::from_millis(300);

/// Values that make bad parsers begin again and again, filled up to `length` octets.
fn values(length: usize) -> Vec<String> {
    let filled = |start: &str, piece: &str| {
        let count = (length - start.len()) / piece.len();
        format!("{start}{}", piece.repeat(count))
    };
    vec![
        filled("a;", "x"),
        filled("a=\"", "\\\""),
        filled("a=\"", "\\\","),
        filled("", "\"\","),
        filled("", "\"a\", "),
        filled("W/", "W/\"a\","),
        filled("", "a,"),
        filled("", ",;=\" "),
        filled("bytes=", "0-0,"),
        filled("bytes=", "-1,"),
        filled("", "a=b; "),
        filled("", "a;q=0.5, "),
        filled("", "en-"),
        filled("for=", "\"[::1]\";for="),
        filled("</a>; rel=preload", ", </b>; rel=preload"),
        filled("<", "<"),
        filled("</a>; rel=\"", "a "),
        filled(":", "AAAA"),
        filled("(", "("),
        filled("", "%20"),
        filled("1", "0"),
        filled("x", " x"),
    ]
}

const OF_REQUESTS: &[&str] = &[
    "accept",
    "accept-encoding",
    "accept-language",
    "authorization",
    "available-dictionary",
    "cache-control",
    "cookie",
    "connection",
    "dictionary-id",
    "forwarded",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "pragma",
    "range",
    "surrogate-capability",
    "te",
    "x-forwarded-for",
    "x-forwarded-proto",
];

const OF_REPLIES: &[&str] = &[
    "age",
    "cache-control",
    "cache-status",
    "cache-tag",
    "cdn-cache-control",
    "connection",
    "content-encoding",
    "content-location",
    "content-type",
    "etag",
    "expires",
    "last-modified",
    "link",
    "location",
    "set-cookie",
    "surrogate-control",
    "vary",
    "xkey",
];

fn edge(app: &Origin) -> Edge {
    Setup::new()
        .with("APP", app.address)
        .file("www/f/a.css", "a { color: red }".repeat(100))
        .start(
            r#"
            [server]
            workers = 1
            trusted_proxies = ["127.0.0.0/8"]
            [cache]
            session_cookies = ["sid"]
            [upstream.app]
            endpoints = ["@APP@"]
            first_byte_timeout = "20s"
            [static.www]
            root = "www"
            [[route]]
            match = { path_prefix = "/f" }
            static = "www"
            [[route]]
            match = { path_prefix = "/plain" }
            upstream = "app"
            [[route]]
            upstream = "app"
            early_hints = {}
            cache = { compress = ["br", "gzip"], accept_language = ["en", "de"], sort_query = true }
            "#,
        )
}

/// `what` takes the edge little time.
#[track_caller]
fn expect_quick(edge: &Edge, what: &str, act: impl FnOnce()) {
    let before = edge.cpu_time();
    act();
    let took = edge.cpu_time().saturating_sub(before);
    assert!(took < PATIENCE, "{what}: {took:?}");
}

fn shown(name: &str, value: &str) -> String {
    format!("{name}: {}...", value.chars().take(40).collect::<String>())
}

#[test]
fn long_fields_of_clients_are_read_in_time() {
    let app = Origin::start(|_| {
        Answer::fresh(60, "a page of all ".repeat(200)).field("Content-Type", "text/html")
    });
    let edge = edge(&app);
    edge.get("/").expect(200);
    for name in OF_REQUESTS {
        for value in values(30_000) {
            for target in ["/", "/f/a.css", "/plain"] {
                let ask = Ask::get(target).field(name, &value);
                expect_quick(&edge, &format!("{target} {}", shown(name, &value)), || {
                    let mut conn = edge.plain();
                    conn.send(ask.host("shop.example").bytes());
                    // Whatever it is: a refusal is an answer.
                    let _ = conn.read(false);
                });
            }
        }
    }
}

#[test]
fn long_fields_of_apps_are_read_in_time() {
    let app = Origin::start(|seen| {
        let mut answer = Answer::ok("a page").field("Content-Type", "text/html");
        if let (Some(name), Some(nth)) = (seen.field("x-name"), seen.field("x-nth")) {
            let nth: usize = nth.parse().expect("a number");
            answer = answer.field(name, &values(60_000)[nth]);
        }
        answer
    });
    let edge = edge(&app);
    for name in OF_REPLIES {
        assert!(HeaderName::from_bytes(name.as_bytes()).is_ok());
        for (nth, value) in values(60_000).iter().enumerate() {
            assert!(HeaderValue::from_str(value).is_ok());
            let target = format!("/{name}/{nth}");
            expect_quick(&edge, &shown(name, value), || {
                let ask = Ask::get(&target)
                    .field("X-Name", name)
                    .field("X-Nth", &nth.to_string());
                let mut conn = edge.plain();
                conn.send(ask.host("shop.example").bytes());
                let _ = conn.read(false);
            });
        }
    }
}
