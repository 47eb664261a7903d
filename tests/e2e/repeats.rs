//! When a request is sent again, and when not.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::support::{Answer, Ask, Conn, Edge, Gate, Origin, Setup, wait};

fn edge(nodes: &[&Origin], upstream: &str, route: &str) -> Edge {
    let mut setup = Setup::new();
    for (node, name) in nodes.iter().zip(["A", "B", "C"]) {
        setup = setup.with(name, node.address);
    }
    setup.start(&format!(
        "[upstream.app]\n{upstream}\noutlier_detection = false\n[[route]]\nupstream = \"app\"\n{route}\n"
    ))
}

/// A node that answers `status` the first `times`, then 200.
fn failing(status: u16, times: usize) -> Origin {
    let count = AtomicUsize::new(0);
    Origin::start(move |_| match count.fetch_add(1, Ordering::SeqCst) {
        n if n < times => Answer::new(status, "sick"),
        _ => Answer::ok("well"),
    })
}

const TWO: &str = "endpoints = [\"@A@\", { address = \"@B@\", backup = true }]";

#[test]
fn a_status_that_is_named_is_tried_elsewhere_and_others_are_answers() {
    let (sick, well) = (failing(503, usize::MAX), Origin::named("b"));
    let retry = "retry = { attempts = 2, on = [\"503\"], budget = \"100%\" }";
    let edge = edge(&[&sick, &well], &format!("{TWO}\n{retry}"), "");
    assert_eq!(edge.get("/").expect(200).text(), "b");
    let post = edge.ask(&Ask::post("/", "x"));
    assert_eq!(post.status, 503, "POST is not idempotent");
    assert_eq!(edge.metric("tidegate_upstream_retries_total"), 1.0);
    drop(edge);
    let (sick, well) = (failing(500, usize::MAX), Origin::named("b"));
    let edge = self::edge(&[&sick, &well], &format!("{TWO}\n{retry}"), "");
    assert_eq!(edge.get("/").status, 500, "not named");
}

#[test]
fn a_status_is_the_answer_when_nobody_else_can_take_the_request() {
    let sick = failing(503, usize::MAX);
    let retry =
        "endpoints = [\"@A@\"]\nretry = { attempts = 3, on = [\"503\"], budget = \"100%\" }";
    let edge = edge(&[&sick], retry, "");
    let reply = edge.get("/");
    assert_eq!((reply.status, reply.text().as_str()), (503, "sick"));
    assert_eq!(sick.count(), 3, "the only endpoint is asked again");
}

#[test]
fn a_route_may_allow_that_a_post_is_repeated() {
    let (sick, well) = (failing(503, usize::MAX), Origin::named("b"));
    let edge = edge(
        &[&sick, &well],
        &format!("{TWO}\nretry = {{ attempts = 2, on = [\"503\"], budget = \"100%\" }}"),
        "retry_non_idempotent = true",
    );
    let reply = edge.ask(&Ask::post("/order", "body")).expect(200);
    assert_eq!(reply.text(), "b");
    assert_eq!(well.last().body, b"body", "the body goes along");
}

#[test]
fn a_node_that_hangs_is_left_after_per_try_timeout() {
    let gate = Gate::default();
    let held = gate.clone();
    let hung = Origin::start(move |_| Answer::ok("late").when(&held));
    let well = Origin::named("b");
    let edge = edge(
        &[&hung, &well],
        &format!(
            "{TWO}\nfirst_byte_timeout = \"5s\"\nretry = {{ attempts = 2, on = [\"timeout\"], per_try_timeout = \"200ms\", budget = \"100%\" }}"
        ),
        "",
    );
    let began = wait::now();
    assert_eq!(edge.get("/").expect(200).text(), "b");
    let took = began.elapsed();
    assert!(took >= wait::millis(190), "{took:?}");
    assert!(took < wait::secs(3), "{took:?}");
    gate.open();
}

#[test]
fn all_attempts_together_take_no_longer_than_first_byte_timeout() {
    let gate = Gate::default();
    let hang = |gate: &Gate| {
        let held = gate.clone();
        Origin::start(move |_| Answer::ok("late").when(&held))
    };
    let nodes = [hang(&gate), hang(&gate), hang(&gate)];
    let edge = edge(
        &nodes.each_ref(),
        "endpoints = [\"@A@\", \"@B@\", \"@C@\"]\nfirst_byte_timeout = \"600ms\"\nretry = { attempts = 3, on = [\"timeout\"], per_try_timeout = \"400ms\", budget = \"100%\" }",
        "",
    );
    let began = wait::now();
    assert_eq!(edge.get("/").status, 504);
    let took = began.elapsed();
    assert!(took >= wait::millis(590), "{took:?}");
    assert!(took < wait::millis(1_100), "three times 400 ms: {took:?}");
    gate.open();
}

#[test]
fn retries_do_not_multiply_an_outage() {
    let nodes = [failing(503, usize::MAX), failing(503, usize::MAX)];
    let edge = edge(
        &nodes.each_ref(),
        "endpoints = [\"@A@\", \"@B@\"]\nretry = { attempts = 3, on = [\"503\"], budget = \"10%\" }",
        "",
    );
    let mut conn = edge.plain();
    let requests = 2_000;
    for _ in 0..requests {
        assert_eq!(conn.ask(&Ask::get("/")).status, 503);
    }
    let sent = nodes[0].count() + nodes[1].count();
    // A tenth, and what is always allowed: a few retries a second.
    assert!(sent > requests, "there is some room for retries: {sent}");
    assert!(sent < requests * 14 / 10, "{sent} for {requests}");
    assert!(
        edge.metric("tidegate_upstream_refused_total{upstream=\"app\",reason=\"retry_budget\"}")
            > 0.0
    );
}

#[test]
fn attempts_that_nobody_can_have_worked_on_cost_no_budget() {
    let mut dead = Origin::named("a");
    let well = Origin::named("b");
    let edge = edge(
        &[&dead, &well],
        "endpoints = [\"@A@\", \"@B@\"]\nbalance = \"round_robin\"\nretry = { attempts = 2, budget = \"1%\" }",
        "",
    );
    dead.down();
    let mut conn = edge.plain();
    for n in 0..400 {
        let ask = match n % 2 {
            0 => Ask::get("/"),
            _ => Ask::post("/", "x"),
        };
        assert_eq!(conn.ask(&ask).expect(200).text(), "b");
    }
}

#[test]
fn a_kept_connection_that_closes_in_the_same_instant_costs_nobody_a_request() {
    // Answers say nothing of a close; the connection ends right behind them, at a random moment of
    // the next request.
    let node = Origin::start(|_| Answer::ok("a").then_close());
    let edge = edge(
        &[&node],
        "endpoints = [\"@A@\"]\nretry = { attempts = 1 }",
        "",
    );
    let posts = Arc::new(AtomicUsize::new(0));
    let mut conn = edge.plain();
    for n in 0..600 {
        let ask = match n % 3 {
            0 => {
                posts.fetch_add(1, Ordering::SeqCst);
                Ask::post("/order", format!("{n}"))
            }
            _ => Ask::get("/"),
        };
        assert_eq!(conn.ask(&ask).status, 200, "request {n}");
    }
    assert_eq!(
        node.count_of("/order"),
        posts.load(Ordering::SeqCst),
        "each order once"
    );
}

#[test]
fn orders_go_on_connections_that_were_in_use_a_moment_ago() {
    let node = Origin::named("a");
    let edge = edge(&[&node], "endpoints = [\"@A@\"]", "");
    let mut conn = edge.plain();
    for n in 0..50 {
        conn.ask(&Ask::post("/order", format!("{n}"))).expect(200);
    }
    assert!(node.connections() < 10, "{}", node.connections());
    // One that rested may be closed at any moment.
    wait::hold(wait::millis(600));
    let before = node.connections();
    conn.ask(&Ask::post("/order", "last")).expect(200);
    assert_eq!(node.connections(), before + 1);
    conn.ask(&Ask::get("/")).expect(200);
    assert_eq!(node.connections(), before + 1, "what can be sent again");
}

#[test]
fn an_order_that_meets_the_end_of_a_connection_is_not_sent_twice() {
    // The second request on a connection is read, and the connection ends without an answer.
    let cut_off = Arc::new(AtomicUsize::new(0));
    let count = cut_off.clone();
    let known = Mutex::new(HashSet::new());
    let node =
        Origin::start(
            move |seen| match known.lock().expect("known").insert(seen.connection) {
                true => Answer::ok("a"),
                false => {
                    count.fetch_add(1, Ordering::SeqCst);
                    Answer::reset()
                }
            },
        );
    let edge = edge(&[&node], "endpoints = [\"@A@\"]", "");
    let mut conn = edge.plain();
    conn.ask(&Ask::post("/order", "1")).expect(200);
    conn.ask(&Ask::post("/order", "2")).expect(502);
    assert_eq!(cut_off.load(Ordering::SeqCst), 1);
    // From then on they have connections of their own.
    for _ in 0..5 {
        conn.ask(&Ask::post("/order", "3")).expect(200);
    }
    assert_eq!(cut_off.load(Ordering::SeqCst), 1);
}

#[test]
fn a_late_answer_is_hedged_and_the_first_one_wins() {
    let slow = Arc::new(AtomicUsize::new(0));
    let sometimes = slow.clone();
    let a = Origin::start(move |_| match sometimes.load(Ordering::SeqCst) {
        0 => Answer::ok("a"),
        _ => Answer::ok("a").after(wait::secs(2)),
    });
    let b = Origin::named("b");
    let edge = edge(
        &[&a, &b],
        "endpoints = [\"@A@\", \"@B@\"]\nbalance = \"round_robin\"\nretry = { attempts = 2, budget = \"100%\" }\nhedge = { percentile = 95, min_delay = \"20ms\" }",
        "",
    );
    let mut conn = edge.plain();
    for _ in 0..200 {
        conn.ask(&Ask::get("/")).expect(200);
    }
    // What is usual is worked out once a second.
    wait::hold(wait::millis(1_300));
    slow.store(1, Ordering::SeqCst);
    for _ in 0..6 {
        let began = wait::now();
        conn.ask(&Ask::get("/")).expect(200);
        let took = began.elapsed();
        assert!(took < wait::millis(1_500), "{took:?}");
    }
    assert!(edge.metric("tidegate_upstream_hedges_total{upstream=\"app\",result=\"won\"}") >= 2.0);
    let before = a.count() + b.count();
    let posted = wait::now();
    conn.ask(&Ask::post("/", "x")).expect(200);
    conn.ask(&Ask::post("/", "x")).expect(200);
    assert!(
        posted.elapsed() >= wait::millis(1_900),
        "POST is not hedged"
    );
    assert_eq!(a.count() + b.count(), before + 2);
}

#[test]
fn an_upload_too_large_to_keep_is_not_repeated_and_a_small_one_is() {
    let (sick, well) = (failing(503, usize::MAX), Origin::named("b"));
    let edge = edge(
        &[&sick, &well],
        &format!(
            "{TWO}\nretry = {{ attempts = 2, on = [\"503\"], budget = \"100%\", max_body_size = \"1KiB\" }}"
        ),
        "",
    );
    let put = |size: usize| edge.ask(&Ask::new("PUT", "/").body(vec![b'x'; size]));
    assert_eq!(put(1_024).expect(200).text(), "b");
    assert_eq!(well.last().body.len(), 1_024);
    assert_eq!(put(1_025).status, 503);
    // More than one for each worker: on a connection that is kept and on one that is made.
    for _ in 0..8 {
        let mut conn = Conn::open(edge.http());
        conn.send("PUT / HTTP/1.1\r\nhost: shop.example\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
        assert_eq!(conn.reply().status, 503, "its length was not announced");
    }
    assert_eq!(well.count(), 1);
}
