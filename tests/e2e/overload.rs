//! More to do than can be done: what is given up, in which order, and that it ends.

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::h2::{END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, PING, block, frame};
use crate::support::{Answer, Ask, Edge, H2, Origin, Setup, wait};

const ROUTES: &str = r#"
[upstream.app]
endpoints = ["@APP@"]
[[route]]
match = { path_prefix = "/checkout" }
upstream = "app"
priority = "critical"
[[route]]
match = { path_prefix = "/extra" }
upstream = "app"
priority = "sheddable"
[[route]]
match = { path = "/fixed" }
respond = { body = "fixed" }
[[route]]
upstream = "app"
"#;

fn config(overload: &str) -> String {
    format!("[overload]\n{overload}\n{ROUTES}")
}

fn edge(overload: &str) -> Edge {
    let origin = Origin::start(|_| Answer::ok("app"));
    let address = origin.address;
    // Ends with the process.
    std::mem::forget(origin);
    Setup::new().with("APP", address).start(&config(overload))
}

fn level(edge: &Edge) -> String {
    let said: Value = edge.json("/overload");
    said["level"].as_str().expect("a level").to_owned()
}

#[track_caller]
fn await_level(edge: &Edge, wanted: &str) {
    wait::eventually(&format!("level {wanted}"), wait::secs(40), || {
        level(edge) == wanted
    });
}

/// Memory of the process, as a size for the file.
fn memory(edge: &Edge, factor: f64) -> String {
    let bytes = edge.metric("process_resident_memory_bytes");
    format!("{:.0}B", bytes * factor)
}

/// Requests that were given up: sheddable ones, normal ones.
fn shed(edge: &Edge) -> (f64, f64) {
    let of = |priority: &str| {
        edge.metric(&format!(
            "tidegate_overload_shed_total{{priority=\"{priority}\"}}"
        ))
    };
    (of("sheddable"), of("normal"))
}

#[test]
fn at_the_end_all_but_the_critical_is_given_up_and_it_ends() {
    let edge = edge("memory = \"1MiB\"\nlag = false\nretry_after = \"7s\"");
    await_level(&edge, "normal");
    for path in ["/", "/fixed", "/extra"] {
        let reply = edge.get(path).expect(503);
        assert_eq!(reply.field("retry-after"), Some("7"), "{path}");
        assert_eq!(reply.field("connection"), Some("close"), "{path}");
        assert!(reply.text().contains("busy"), "{}", reply.text());
    }
    let mut h2 = H2::tls(edge.https(), "shop.test");
    let reply = h2.ask(&Ask::get("/")).expect(503);
    assert_eq!(reply.field("retry-after"), Some("7"));
    edge.get("/checkout").expect(200);
    edge.ask(&Ask::post("/checkout", "order")).expect(200);
    assert_eq!(shed(&edge), (1.0, 3.0));
    assert_eq!(edge.metric("tidegate_overload_level"), 3.0);
    edge.await_stderr("overload: more is given up");

    edge.rewrite(&config("memory = false\nlag = false"));
    edge.reload(true);
    await_level(&edge, "calm");
    edge.get("/").expect(200);
    edge.get("/extra").expect(200);
    edge.await_stderr("overload is over");
}

#[test]
fn first_connections_that_wait_are_closed() {
    let edge = edge("memory = false\nlag = false");
    let mut idle = edge.plain();
    idle.ask(&Ask::get("/")).expect(200);
    let mut fresh = edge.plain();
    let mut frames = Frames::open(edge.http());
    let head = block(&[
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", "shop.test"),
    ]);
    frames.write(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &head));
    wait::eventually("an answer", wait::SOON, || {
        matches!(frames.read_frame(), Some((HEADERS, ..)))
    });
    assert_eq!(level(&edge), "calm");
    edge.get("/fixed").expect(200);
    // The first third of what is left, in the middle of it.
    settle_at(&edge, "connections", 1.05);
    idle.expect_end();
    // It asked for nothing yet, so it is asked what it wants; then it is closed.
    let reply = fresh.ask(&Ask::get("/extra")).expect(200);
    assert_eq!(reply.field("connection"), Some("close"));
    fresh.expect_end();
    let reply = edge.get("/fixed").expect(200);
    assert_eq!(reply.field("connection"), Some("close"));
    let mut said_goodbye = false;
    while let Some((kind, _, _, payload)) = frames.read_frame() {
        said_goodbye |= kind == GOAWAY;
        if kind == PING {
            frames.frame(PING, 1, 0, &payload);
        }
    }
    assert!(said_goodbye, "GOAWAY before the end");
}

/// Whether that level is reached, and left neither upwards nor downwards with the next samples.
fn settles(edge: &Edge, wanted: &str) -> bool {
    let reached = wait::try_until(wait::secs(5), || (level(edge) == wanted).then_some(()));
    let left = || wait::try_until(wait::millis(1500), || (level(edge) != wanted).then_some(()));
    reached.is_some() && left().is_none()
}

/// Brings `edge` to a level by saying that what it has now is so much more than its mark. Memory moves:
/// where it left the third that was meant, that is found anew.
#[track_caller]
fn settle_at(edge: &Edge, wanted: &str, above: f64) {
    let is_there = (0..3).any(|_| {
        edge.rewrite(&config("memory = false\nlag = false"));
        edge.reload(true);
        await_level(edge, "calm");
        let mark = memory(edge, 1.0 / above);
        edge.rewrite(&config(&format!("memory = \"{mark}\"\nlag = false")));
        edge.reload(true);
        settles(edge, wanted)
    });
    assert!(is_there, "level {}\n{}", level(edge), edge.stderr());
}

#[test]
fn then_what_is_sheddable_is_given_up_and_the_rest_is_served() {
    let edge = edge("memory = false\nlag = false");
    // What the first requests take for good, those over TLS among them, is there before memory is measured.
    for path in ["/", "/fixed", "/extra", "/checkout"] {
        edge.get(path).expect(200);
        H2::tls(edge.https(), "shop.test")
            .ask(&Ask::get(path))
            .expect(200);
    }
    // The second third of what is left, in the middle of it.
    settle_at(&edge, "sheddable", 1.15);
    let reply = edge.get("/extra").expect(503);
    assert_eq!(reply.field("retry-after"), Some("5"));
    assert!(reply.text().contains("busy"), "{}", reply.text());
    for path in ["/", "/fixed", "/checkout"] {
        let reply = edge.get(path).expect(200);
        assert_eq!(reply.field("connection"), Some("close"), "{path}");
    }
    edge.ask(&Ask::post("/", "order")).expect(200);
    for (path, status) in [("/extra", 503), ("/", 200)] {
        let mut h2 = H2::tls(edge.https(), "shop.test");
        h2.ask(&Ask::get(path)).expect(status);
    }
    assert_eq!(shed(&edge), (2.0, 0.0));
    assert_eq!(edge.metric("tidegate_overload_level"), 2.0);
    edge.await_stderr("to=\"sheddable\"");
}

#[test]
fn a_loop_that_is_late_is_a_sign() {
    let edge = edge("memory = false\nlag = \"50ms\"");
    assert_eq!(level(&edge), "calm");
    wait::eventually("a level above calm", wait::SOON, || {
        // It has to be late each time for a second: a process that stands still most of the time is.
        for _ in 0..4 {
            edge.signal(Signal::SIGSTOP);
            wait::hold(wait::millis(400));
            edge.signal(Signal::SIGCONT);
            wait::hold(wait::millis(10));
        }
        level(&edge) != "calm"
    });
    edge.await_stderr("why=\"lag\"");
    edge.get("/checkout").expect(200);
    assert!(edge.has_metric("tidegate_overload_lag_seconds"));
}
