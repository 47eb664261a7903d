//! HTTP/2 towards endpoints: streams, and what was refused before it was read.

use crate::support::client::HOST;
use crate::support::h2::{DATA, END_HEADERS, END_STREAM, HEADERS, block};
use crate::support::h2_node::{Act, H2Node};
use crate::support::{Answer, Ask, Conn, Edge, Gate, H2, Origin, Setup, in_front_of, wait};

const APP: &str = "[server]\nworkers = 1\nshutdown_timeout = \"10s\"\n\
    [upstream.app]\nendpoints = [\"@A@\"]\nprotocol = \"h2\"\noutlier_detection = false\n";
const ALL: &str = "[[route]]\nupstream = \"app\"\n";

fn edge(node: &H2Node, more: &str) -> Edge {
    Setup::new()
        .with("A", node.address)
        .start(&format!("{APP}{more}\n{ALL}"))
}

fn order(n: usize) -> Ask {
    Ask::post("/order", format!("order {n}"))
}

#[test]
fn requests_one_after_the_other_share_a_connection() {
    let node = H2Node::start(None, |_| Act::Answer);
    let edge = edge(&node, "");
    for n in 0..20 {
        let body = edge.ask(&order(n)).expect(200).text();
        assert_eq!(body, format!("order {n}"));
    }
    edge.get("/").expect(200);
    assert_eq!((node.connections(), node.count()), (1, 21));
    assert_eq!(node.most_streams(), [1]);
}

/// Twelve requests at once; each connection's most streams.
#[track_caller]
fn twelve(peer: Option<u32>, keys: &str) -> Vec<usize> {
    let gate = Gate::default();
    let held = gate.clone();
    let node = H2Node::start(peer, move |_| Act::Hold(held.clone()));
    let edge = edge(&node, keys);
    let mut waiting: Vec<Conn> = Vec::new();
    for n in 0..12 {
        let mut conn = edge.plain();
        conn.send(order(n).bytes());
        waiting.push(conn);
    }
    wait::eventually("all at the node", wait::SOON, || node.count() == 12);
    let open = edge.metric("tidegate_upstream_endpoint_connections{upstream=\"app\"}");
    assert_eq!(open, node.connections() as f64);
    gate.open();
    for (n, conn) in waiting.iter_mut().enumerate() {
        assert_eq!(conn.reply().expect(200).text(), format!("order {n}"));
    }
    node.most_streams()
}

#[test]
fn streams_are_bounded_on_each_connection() {
    let most = twelve(None, "max_concurrent_streams = 3");
    assert_eq!(most, [3, 3, 3, 3]);
    assert_eq!(twelve(None, ""), [12]);
}

#[test]
fn what_the_endpoint_allows_is_kept_to() {
    let most = twelve(Some(2), "");
    assert_eq!(most, [2; 6]);
}

#[test]
fn streams_and_connections_together_are_a_limit_and_the_rest_waits() {
    let gate = Gate::default();
    let held = gate.clone();
    let node = H2Node::start(None, move |_| Act::Hold(held.clone()));
    let edge = edge(
        &node,
        "max_concurrent_streams = 2\nmax_connections = 2\nqueue = { size = 10, timeout = \"20s\" }",
    );
    let mut waiting: Vec<Conn> = Vec::new();
    for n in 0..7 {
        let mut conn = edge.plain();
        conn.send(order(n).bytes());
        waiting.push(conn);
    }
    edge.await_metric("tidegate_upstream_queued_requests{upstream=\"app\"}", 3.0);
    wait::eventually("as many as may", wait::SOON, || node.count() == 4);
    wait::always("no more", wait::millis(300), || node.count() == 4);
    gate.open();
    for conn in &mut waiting {
        conn.reply().expect(200);
    }
    assert_eq!(node.most_streams(), [2, 2]);
}

#[test]
fn clients_that_do_not_read_hold_nobody_up_and_little_memory() {
    // More than the kernel's buffers on the way take.
    const LARGE: usize = 8 << 20;
    let large = "x".repeat(LARGE);
    let app = Origin::start(move |seen| match seen.target.as_str() {
        "/large" => Answer::ok(large.clone()),
        _ => Answer::ok("x".repeat(1 << 20)),
    });
    let inner = in_front_of(app.address);
    let edge = Setup::new()
        .with("A", inner.http())
        .start(&format!("{APP}{ALL}"));
    let whole = |edge: &Edge| assert_eq!(edge.get("/page").expect(200).text().len(), 1 << 20);
    whole(&edge);
    let held = || edge.metric("process_resident_memory_bytes") - edge.program_memory() as f64;
    let before = held();
    const CLIENTS: usize = 64;
    let mut lazy: Vec<Conn> = (0..CLIENTS).map(|_| edge.plain()).collect();
    for conn in &mut lazy {
        conn.send(Ask::get("/large").bytes());
    }
    let open = "tidegate_upstream_endpoint_active_requests{upstream=\"app\"}";
    edge.await_metric(open, CLIENTS as f64);
    // Until nothing moves any more.
    wait::hold(wait::secs(2));
    for _ in 0..3 {
        whole(&edge);
    }
    // The 256 KiB that may be held for who is slow, and the connection itself.
    let each = (held() - before) / CLIENTS as f64;
    assert!(each < 288.0 * 1024.0, "{each} octets for each");
    let late = lazy[0].reply().expect(200);
    assert_eq!(late.text().len(), LARGE, "who reads at last has all of it");
}

#[test]
fn a_refused_stream_is_sent_again_even_for_post_and_executed_once() {
    let node = H2Node::start(None, |stream| match stream.nth % 2 {
        0 => Act::Refuse,
        _ => Act::Answer,
    });
    let edge = edge(&node, "");
    let orders: Vec<String> = (0..10).map(|n| format!("order {n}")).collect();
    for (n, body) in orders.iter().enumerate() {
        assert_eq!(&edge.ask(&order(n)).expect(200).text(), body);
    }
    assert_eq!(node.executed(), orders);
    assert_eq!(node.count(), 20);
    assert_eq!(
        node.connections(),
        1,
        "a refused stream is no broken connection"
    );
    edge.await_metric("tidegate_upstream_retries_total{upstream=\"app\"}", 10.0);
    let errors = edge.metric("tidegate_upstream_errors_total{upstream=\"app\"}");
    assert_eq!(errors, 0.0, "refusing is no failure of the endpoint");
}

#[test]
fn a_refused_stream_goes_to_another_endpoint() {
    let busy = H2Node::start(None, |_| Act::Refuse);
    let idle = H2Node::start(None, |_| Act::Answer);
    let config = format!("{APP}balance = \"round_robin\"\n{ALL}");
    let edge = Setup::new()
        .with("A", busy.address)
        .with("B", idle.address)
        .start(&config.replace("[\"@A@\"]", "[\"@A@\", \"@B@\"]"));
    let orders: Vec<String> = (0..10).map(|n| format!("order {n}")).collect();
    for n in 0..10 {
        edge.ask(&order(n)).expect(200);
    }
    assert_eq!(idle.executed(), orders);
    assert!(busy.count() >= 5, "{} were refused", busy.count());
    assert_eq!(busy.executed(), Vec::<String>::new());
}

#[test]
fn who_refuses_always_is_502_after_all_attempts() {
    let node = H2Node::start(None, |_| Act::Refuse);
    let edge = edge(&node, "retry = { attempts = 3 }");
    edge.ask(&order(0)).expect(502);
    assert_eq!(node.count(), 3);
}

#[test]
fn a_request_that_goaway_does_not_cover_is_sent_again_and_executed_once() {
    let node = H2Node::start(None, |stream| match (stream.connection, stream.nth) {
        (0, 3) => Act::GoAway,
        _ => Act::Answer,
    });
    let edge = edge(&node, "");
    let orders: Vec<String> = (0..8).map(|n| format!("order {n}")).collect();
    for (n, body) in orders.iter().enumerate() {
        assert_eq!(&edge.ask(&order(n)).expect(200).text(), body);
    }
    assert_eq!(node.executed(), orders);
    assert_eq!((node.count(), node.connections()), (9, 2));
}

#[test]
fn a_request_that_goaway_covers_is_answered_and_the_next_takes_a_new_connection() {
    let node = H2Node::start(None, |_| Act::AnswerAndGoAway);
    let edge = edge(&node, "");
    let orders: Vec<String> = (0..6).map(|n| format!("order {n}")).collect();
    for (n, body) in orders.iter().enumerate() {
        assert_eq!(&edge.ask(&order(n)).expect(200).text(), body);
    }
    assert_eq!(node.executed(), orders);
    assert_eq!(node.connections(), 6);
}

#[test]
fn connections_are_replaced_at_their_age() {
    let node = H2Node::start(None, |_| Act::Answer);
    let edge = edge(
        &node,
        "keepalive = { max_age = \"1s\", idle_timeout = \"1s\" }",
    );
    let mut conn = edge.plain();
    wait::eventually("a third connection", wait::SOON, || {
        conn.ask(&Ask::get("/")).expect(200);
        node.connections() == 3
    });
    assert!(node.count() > 50, "{} requests on them", node.count());
    let open = "tidegate_upstream_endpoint_connections{upstream=\"app\"}";
    wait::eventually("idle ones go", wait::SOON, || edge.metric(open) == 0.0);
}

/// Type, flags and payload of each frame.
type Frames = Vec<(u8, u8, Vec<u8>)>;

/// A reply of these fields, and of a body if there is one.
fn reply(fields: &[(&str, &str)], body: Option<&str>) -> Frames {
    let end = if body.is_some() { 0 } else { END_STREAM };
    let mut frames = vec![(HEADERS, END_HEADERS | end, block(fields))];
    if let Some(body) = body {
        frames.push((DATA, END_STREAM, body.into()));
    }
    frames
}

/// What a client must never take for a whole reply (RFC 9113 sections 8.1.1, 8.2 and 8.3.2).
fn malformed() -> Vec<(&'static str, Frames)> {
    let ok = (":status", "200");
    let head = |fields: &[(&str, &str)]| reply(fields, Some("ok"));
    let length = ("content-length", "2");
    let trailers = |fields: &[(&str, &str)]| {
        let mut frames = vec![
            (HEADERS, END_HEADERS, block(&[ok])),
            (DATA, 0, b"ok".to_vec()),
        ];
        frames.push((HEADERS, END_HEADERS | END_STREAM, block(fields)));
        frames
    };
    vec![
        ("no status", head(&[length])),
        ("a status of two digits", head(&[(":status", "20")])),
        ("a status of letters", head(&[(":status", "abc")])),
        ("an empty status", head(&[(":status", "")])),
        ("two statuses", head(&[ok, ok])),
        ("a status behind a field", head(&[length, ok])),
        ("a pseudo-header of requests", head(&[ok, (":path", "/")])),
        ("an unknown pseudo-header", head(&[ok, (":proto", "h2")])),
        ("101", reply(&[(":status", "101")], None)),
        ("connection", head(&[ok, ("connection", "close")])),
        (
            "transfer-encoding",
            head(&[ok, ("transfer-encoding", "chunked")]),
        ),
        ("keep-alive", head(&[ok, ("keep-alive", "timeout=5")])),
        (
            "proxy-connection",
            head(&[ok, ("proxy-connection", "close")]),
        ),
        ("upgrade", head(&[ok, ("upgrade", "h2c")])),
        ("a name in capitals", head(&[ok, ("X-A", "b")])),
        ("an empty name", head(&[ok, ("", "b")])),
        ("a space in a name", head(&[ok, ("x a", "b")])),
        ("CR LF in a value", head(&[ok, ("x-a", "b\r\nx-c: d")])),
        ("NUL in a value", head(&[ok, ("x-a", "b\0c")])),
        (
            "a length that is more than the body",
            head(&[ok, ("content-length", "3")]),
        ),
        (
            "a length that is less than the body",
            head(&[ok, ("content-length", "1")]),
        ),
        (
            "a length that is no number",
            head(&[ok, ("content-length", "+2")]),
        ),
        ("two lengths", head(&[ok, length, ("content-length", "3")])),
        (
            "a pseudo-header in trailers",
            trailers(&[(":status", "200")]),
        ),
        ("trailers in capitals", trailers(&[("X-Sum", "1")])),
    ]
}

/// The library reads over these; nothing of them reaches a client.
const SERVED: [&str; 2] = ["a pseudo-header of requests", "a pseudo-header in trailers"];

#[test]
fn a_malformed_reply_is_a_bad_gateway_or_breaks_off() {
    let mut served = Vec::new();
    for (what, frames) in malformed() {
        let node = H2Node::start(None, move |_| Act::Frames(frames.clone()));
        let edge = edge(&node, "retry = { attempts = 1 }");
        let mut conn = edge.plain();
        let answer = conn.send(Ask::get("/").bytes()).read(false);
        let is_refused = match &answer {
            Ok(reply) => reply.status == 502,
            Err(_) => true,
        };
        if !is_refused {
            served.push(what);
        }
        let answer = H2::tls(edge.https(), HOST).try_ask(&Ask::get("/"));
        let is_refused = answer.as_ref().map_or(true, |reply| reply.status == 502);
        assert_eq!(
            is_refused,
            served.last() != Some(&what),
            "{what}: {answer:?}"
        );
        // The process goes on, and the node is asked again.
        assert_eq!(
            edge.metric("tidegate_requests_active{listener=\"plain\"}"),
            0.0
        );
        assert!(node.count() >= 2, "{what}");
    }
    assert_eq!(served, SERVED);
}
