//! Limits that follow from latency, limits of connections, and how long idle ones are kept.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use crate::support::load::{Load, Talk};
use crate::support::{Answer, Ask, Conn, Edge, Gate, Origin, Setup, ports, wait};

/// One worker, so that what each worker keeps for itself is all there is.
fn edge(nodes: &[&Origin], upstream: &str) -> Edge {
    let mut setup = Setup::new();
    for (node, name) in nodes.iter().zip(["A", "B"]) {
        setup = setup.with(name, node.address);
    }
    setup.start(&config(upstream))
}

fn config(upstream: &str) -> String {
    format!(
        "[server]\nworkers = 1\nshutdown_timeout = \"10s\"\n[upstream.app]\n{upstream}\n[[route]]\nupstream = \"app\"\n"
    )
}

fn held(gate: &Gate) -> Origin {
    let gate = gate.clone();
    Origin::start(move |seen| match seen.target.as_str() {
        "/hold" => Answer::ok("held").when(&gate),
        _ => Answer::ok(seen.connection.to_string()),
    })
}

/// Connections that wait for `/hold`.
#[track_caller]
fn hold(edge: &Edge, node: &Origin, count: usize) -> Vec<Conn> {
    let before = node.count_of("/hold");
    let mut waiting = Vec::new();
    for nth in 1..=count {
        let mut conn = edge.plain();
        conn.send(Ask::get("/hold").bytes());
        waiting.push(conn);
        wait::eventually("it is held", wait::SOON, || {
            node.count_of("/hold") == before + nth
        });
    }
    waiting
}

fn endpoint(name: &str, node: &Origin) -> String {
    format!(
        "tidegate_upstream_endpoint_{name}{{upstream=\"app\",endpoint=\"{}\"}}",
        node.address
    )
}

#[test]
fn a_node_that_slows_down_gets_a_lower_limit_and_a_higher_one_when_it_recovers() {
    let slow = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&slow);
    let a = Origin::start(move |_| {
        let millis = if flag.load(Ordering::SeqCst) { 400 } else { 40 };
        Answer::ok("a")
            .field("x-node", "a")
            .after(wait::millis(millis))
    });
    let b = Origin::start(|_| Answer::ok("b").field("x-node", "b").after(wait::millis(40)));
    let edge = edge(
        &[&a, &b],
        "endpoints = [\"@A@\", \"@B@\"]\nbalance = \"round_robin\"\n\
         adaptive_concurrency = { min = 2, max = 10 }\nqueue = { size = 100, timeout = \"10s\" }",
    );
    let limit = |node: &Origin| edge.metric(&endpoint("limit_requests", node));
    let load = Load::start(Talk::Plain, edge.http(), &Ask::get("/"), 160, 40);
    // Each endpoint's latency when it is well has to be known.
    wait::eventually("some load", wait::SOON, || load.so_far().ok >= 160);
    assert!(limit(&a) >= 8.0, "{} at its best", limit(&a));

    slow.store(true, Ordering::SeqCst);
    wait::eventually("a lower limit", wait::secs(40), || limit(&a) <= 6.0);
    assert!(limit(&b) > limit(&a), "{} and {}", limit(&a), limit(&b));
    let active = edge.metric(&endpoint("active_requests", &a));
    assert!(active <= 10.0, "{active} requests at the slow one");
    let before = load.so_far();
    wait::eventually("more load", wait::SOON, || {
        load.so_far().ok >= before.ok + 200
    });
    let after = load.so_far();
    let gained = |name: &str| after.nodes[name] - before.nodes[name];
    assert!(
        gained("b") > 3 * gained("a"),
        "{} at the slow one, {} elsewhere",
        gained("a"),
        gained("b")
    );

    slow.store(false, Ordering::SeqCst);
    wait::eventually("a higher limit", wait::secs(40), || limit(&a) >= 7.0);
    load.end().expect_flawless(600);
}

/// Accepts, and says nothing, so that a TLS handshake takes for ever.
struct Silent {
    accepted: Arc<AtomicUsize>,
    address: std::net::SocketAddr,
}

impl Silent {
    fn start() -> Self {
        let address = ports::free();
        let listener = TcpListener::bind(address).expect("a free port");
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&accepted);
        // Ends with the process: nothing waits for it.
        thread::spawn(move || {
            let mut open = Vec::new();
            while let Ok((socket, _)) = listener.accept() {
                open.push(socket);
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        Self { accepted, address }
    }

    fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

#[test]
fn no_more_requests_wait_for_a_connection_than_may() {
    let nodes = [Silent::start(), Silent::start()];
    let edge = Setup::new()
        .with("A", nodes[0].address)
        .with("B", nodes[1].address)
        .start(&config(
            "endpoints = [\"@A@\", { address = \"@B@\", backup = true }]\nmax_pending = 2\n\
             connect_timeout = \"3s\"\nretry = { attempts = 1 }\ntls = { ca = \"ca.pem\", server_name = \"shop.test\" }",
        ));
    let mut waiting = Vec::new();
    for nth in 1..=4 {
        let mut conn = edge.plain();
        conn.send(Ask::get("/").bytes());
        waiting.push(conn);
        wait::eventually("a connection", wait::SOON, || {
            nodes.iter().map(Silent::accepted).sum::<usize>() == nth
        });
    }
    let accepted = [nodes[0].accepted(), nodes[1].accepted()];
    assert_eq!(accepted, [2, 2], "the third went elsewhere");
    let pending = |node: &Silent| {
        edge.metric(&format!(
            "tidegate_upstream_endpoint_pending_requests{{endpoint=\"{}\"}}",
            node.address
        ))
    };
    wait::eventually("all are shown", wait::SOON, || {
        pending(&nodes[0]) == 2.0 && pending(&nodes[1]) == 2.0
    });
    let began = wait::now();
    let refused = edge.get("/").expect(503);
    assert!(refused.field("retry-after").is_some());
    assert!(began.elapsed() < wait::secs(2), "{:?}", began.elapsed());
    for conn in &mut waiting {
        assert_eq!(conn.reply().status, 504, "connect_timeout");
    }
    wait::eventually("nobody waits", wait::SOON, || {
        pending(&nodes[0]) + pending(&nodes[1]) == 0.0
    });
}

#[test]
fn no_more_connections_are_open_than_may_and_the_rest_waits() {
    let gate = Gate::default();
    let node = held(&gate);
    let edge = edge(
        &[&node],
        "endpoints = [\"@A@\"]\nmax_connections = 3\nqueue = { size = 20, timeout = \"20s\" }",
    );
    let open = endpoint("connections", &node);
    let mut waiting = hold(&edge, &node, 3);
    for _ in 0..5 {
        let mut conn = edge.plain();
        conn.send(Ask::get("/hold").bytes());
        waiting.push(conn);
    }
    edge.await_metric("tidegate_upstream_queued_requests{upstream=\"app\"}", 5.0);
    wait::always("three connections", wait::millis(300), || {
        node.connections() == 3 && edge.metric(&open) == 3.0
    });
    gate.open();
    for conn in &mut waiting {
        conn.reply().expect(200);
    }
    assert_eq!(node.connections(), 3, "those that waited took over");
    assert_eq!(node.count(), 8);
}

#[test]
fn without_a_queue_one_connection_too_many_is_503() {
    let gate = Gate::default();
    let node = held(&gate);
    let edge = edge(&[&node], "endpoints = [\"@A@\"]\nmax_connections = 1");
    let mut waiting = hold(&edge, &node, 1);
    let refused = edge.get("/").expect(503);
    assert!(refused.field("retry-after").is_some());
    gate.open();
    waiting[0].reply().expect(200);
    // POST wants a connection that did not rest: the idle one makes room.
    for _ in 0..3 {
        wait::hold(wait::millis(600));
        edge.ask(&Ask::post("/", "order")).expect(200);
    }
    let connections = node.connections();
    assert_eq!(connections, 4);
}

#[test]
fn idle_connections_are_kept_up_to_the_count() {
    let gate = Gate::default();
    let node = held(&gate);
    let edge = edge(
        &[&node],
        "endpoints = [\"@A@\"]\nkeepalive = { max_idle = 2 }",
    );
    let mut waiting = hold(&edge, &node, 5);
    let open = endpoint("connections", &node);
    edge.await_metric(&open, 5.0);
    gate.open();
    for conn in &mut waiting {
        conn.reply().expect(200);
    }
    wait::eventually("two are kept", wait::SOON, || edge.metric(&open) == 2.0);
    edge.get("/").expect(200);
    assert_eq!(node.connections(), 5, "one of them was used");
}

#[test]
fn idle_connections_are_closed_in_time() {
    let node = held(&Gate::default());
    let edge = edge(
        &[&node],
        "endpoints = [\"@A@\"]\nkeepalive = { idle_timeout = \"1s\" }",
    );
    let open = endpoint("connections", &node);
    for _ in 0..5 {
        assert_eq!(edge.get("/").expect(200).text(), "0");
    }
    edge.await_metric(&open, 1.0);
    wait::eventually("it is closed", wait::SOON, || edge.metric(&open) == 0.0);
    assert_eq!(edge.get("/").expect(200).text(), "1", "a new one");
}

#[test]
fn connections_are_replaced_at_their_age_though_never_idle() {
    let node = held(&Gate::default());
    let edge = edge(
        &[&node],
        "endpoints = [\"@A@\"]\nkeepalive = { max_age = \"1s\" }",
    );
    let began = wait::now();
    let mut conn = edge.plain();
    wait::eventually("a third connection", wait::SOON, || {
        conn.ask(&Ask::get("/")).expect(200).text() == "2"
    });
    let took = began.elapsed();
    assert!(took >= wait::secs(2), "three connections in {took:?}");
    assert!(node.count() > 50, "{} requests on them", node.count());
}

#[test]
fn limits_and_connections_survive_a_reload() {
    let gate = Gate::default();
    let node = held(&gate);
    let rest = "endpoints = [\"@A@\"]\nmax_requests = 2";
    let edge = edge(&[&node], rest);
    let mut waiting = hold(&edge, &node, 2);
    assert_eq!(edge.get("/").status, 503);
    edge.rewrite(&config(&format!("{rest}\nslow_start = \"1s\"")));
    edge.reload(true);
    assert_eq!(edge.get("/").status, 503, "they are still under way");
    assert_eq!(edge.metric(&endpoint("active_requests", &node)), 2.0);
    edge.rewrite(&config(
        &rest.replace("max_requests = 2", "max_requests = 3"),
    ));
    edge.reload(true);
    assert_eq!(
        edge.get("/").expect(200).text(),
        "2",
        "there is room for one"
    );
    assert_eq!(edge.get("/").expect(200).text(), "2");
    gate.open();
    for conn in &mut waiting {
        conn.reply().expect(200);
    }
    edge.rewrite(&config(rest));
    edge.reload(true);
    edge.get("/").expect(200);
    assert_eq!(node.connections(), 3, "kept over three reloads");
    wait::eventually("nothing is left over", wait::SOON, || {
        edge.metric(&endpoint("active_requests", &node)) == 0.0
    });
}
