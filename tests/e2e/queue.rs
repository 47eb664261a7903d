//! What an upstream takes at once, and who waits.

use std::thread;

use serde_json::Value;

use crate::support::{Answer, Ask, Edge, Gate, Origin, Reply, Setup, wait};

/// One node that holds `/hold` until the gate opens.
fn held(gate: &Gate) -> Origin {
    let gate = gate.clone();
    Origin::start(move |seen| match seen.target.as_str() {
        "/hold" => Answer::ok("held").when(&gate),
        _ => Answer::ok("at once"),
    })
}

fn edge(node: &Origin, upstream: &str) -> Edge {
    Setup::new().with("A", node.address).start(&format!(
        "[log]\naccess = {{ path = \"access.log\" }}\n[upstream.app]\nendpoints = [\"@A@\"]\n{upstream}\n[[route]]\nupstream = \"app\"\n"
    ))
}

/// Clients that ask for `/hold`, once they all are where they are meant to be.
fn hold<'s>(
    scope: &'s thread::Scope<'s, '_>,
    edge: &'s Edge,
    node: &Origin,
    count: usize,
) -> Vec<thread::ScopedJoinHandle<'s, Reply>> {
    let before = node.count();
    let clients = (0..count)
        .map(|_| scope.spawn(|| edge.get("/hold")))
        .collect();
    wait::eventually("the node is busy", wait::SOON, || {
        node.count() >= before + count
    });
    clients
}

#[test]
fn at_the_limit_the_answer_is_503_with_retry_after_at_once() {
    let gate = Gate::default();
    let node = held(&gate);
    let edge = edge(&node, "max_requests = 2");
    thread::scope(|scope| {
        let clients = hold(scope, &edge, &node, 2);
        let began = wait::now();
        let refused = edge.get("/");
        assert_eq!(refused.status, 503);
        assert!(began.elapsed() < wait::millis(500), "{:?}", began.elapsed());
        assert!(refused.field("retry-after").is_some());
        gate.open();
        for client in clients {
            client.join().expect("no panic").expect(200);
        }
    });
    assert_eq!(edge.get("/").status, 200);
    let refused = "tidegate_upstream_refused_total{upstream=\"app\",reason=\"limit\"}";
    assert_eq!(edge.metric(refused), 1.0);
    await_why(&edge, "upstream_limit");
}

#[test]
fn another_endpoint_takes_what_one_may_not() {
    let gate = Gate::default();
    let (a, b) = (held(&gate), held(&gate));
    let edge = Setup::new()
        .with("A", a.address)
        .with("B", b.address)
        .start("[upstream.app]\nendpoints = [\"@A@\", { address = \"@B@\", backup = true }]\nmax_requests = 1\n[[route]]\nupstream = \"app\"\n");
    thread::scope(|scope| {
        let first = hold(scope, &edge, &a, 1);
        let second = hold(scope, &edge, &b, 1);
        assert_eq!(edge.get("/").status, 503);
        gate.open();
        for client in first.into_iter().chain(second) {
            client.join().expect("no panic").expect(200);
        }
    });
}

#[test]
fn who_waits_is_served_in_turn_and_the_wait_is_told() {
    let gate = Gate::default();
    let node = held(&gate);
    let edge = edge(
        &node,
        "max_requests = 1\nqueue = { size = 10, timeout = \"20s\" }",
    );
    let queued = "tidegate_upstream_queued_requests{upstream=\"app\"}";
    thread::scope(|scope| {
        let first = hold(scope, &edge, &node, 1);
        let mut waiting = Vec::new();
        for n in 0..4 {
            let edge = &edge;
            waiting.push(scope.spawn(move || edge.get(&format!("/turn-{n}"))));
            edge.await_metric(queued, f64::from(n + 1));
        }
        wait::hold(wait::millis(60));
        gate.open();
        for client in first.into_iter().chain(waiting) {
            client.join().expect("no panic").expect(200);
        }
    });
    let order: Vec<String> = node.seen().into_iter().map(|seen| seen.target).collect();
    assert_eq!(order, ["/hold", "/turn-0", "/turn-1", "/turn-2", "/turn-3"]);
    assert_eq!(edge.metric(queued), 0.0);
    // A request is counted when its reply is out, so a moment after its client has it.
    let count = "tidegate_upstream_queue_seconds_count{upstream=\"app\"}";
    edge.await_metric(count, 4.0);
    assert_eq!(edge.metric(count), 4.0);
    let waits = wait::until("four waits in the log", wait::SOON, || {
        let waits: Vec<f64> = lines(&edge)
            .iter()
            .filter_map(|line| line["upstream_queue_ms"].as_f64())
            .collect();
        (waits.len() == 4).then_some(waits)
    });
    assert!(waits.iter().all(|wait| *wait >= 60.0), "{waits:?}");
}

#[test]
fn a_full_queue_and_a_long_wait_are_503() {
    let gate = Gate::default();
    let node = held(&gate);
    let edge = edge(
        &node,
        "max_total_requests = 1\nqueue = { size = 1, timeout = \"400ms\" }",
    );
    thread::scope(|scope| {
        let first = hold(scope, &edge, &node, 1);
        let waiting = scope.spawn(|| edge.get("/waits"));
        edge.await_metric("tidegate_upstream_queued_requests{upstream=\"app\"}", 1.0);
        let full = edge.get("/full");
        assert_eq!(full.status, 503);
        assert!(full.field("retry-after").is_some());
        let late = waiting.join().expect("no panic");
        assert_eq!(late.status, 503);
        assert!(late.field("retry-after").is_some());
        gate.open();
        for client in first {
            client.join().expect("no panic").expect(200);
        }
    });
    for reason in ["queue_full", "queue_timeout"] {
        let series =
            format!("tidegate_upstream_refused_total{{upstream=\"app\",reason=\"{reason}\"}}");
        assert_eq!(edge.metric(&series), 1.0, "{reason}");
        await_why(&edge, reason);
    }
    assert_eq!(node.count(), 1, "the app saw nothing of those");
}

#[test]
fn a_client_that_leaves_the_queue_takes_no_turn() {
    let gate = Gate::default();
    let node = held(&gate);
    let edge = edge(
        &node,
        "max_connections = 1\nqueue = { size = 10, timeout = \"20s\" }",
    );
    let queued = "tidegate_upstream_queued_requests{upstream=\"app\"}";
    thread::scope(|scope| {
        let first = hold(scope, &edge, &node, 1);
        let mut leaving = edge.plain();
        leaving.send("GET /leaves HTTP/1.1\r\nhost: shop.example\r\n\r\n");
        edge.await_metric(queued, 1.0);
        drop(leaving);
        wait::eventually("it is out of the line", wait::SOON, || {
            edge.metric(queued) == 0.0
        });
        gate.open();
        for client in first {
            client.join().expect("no panic").expect(200);
        }
    });
    assert_eq!(edge.get("/next").status, 200);
    assert_eq!(node.count_of("/leaves"), 0);
}

#[test]
fn the_limit_of_connections_counts_idle_ones_and_closes_one_for_another_endpoint() {
    let nodes = ["a", "b", "c"].map(Origin::named);
    let edge = Setup::new()
        .with("A", nodes[0].address)
        .with("B", nodes[1].address)
        .with("C", nodes[2].address)
        .start("[upstream.app]\nendpoints = [\"@A@\", \"@B@\", \"@C@\"]\nbalance = \"round_robin\"\nmax_total_connections = 2\n[[route]]\nupstream = \"app\"\n");
    let mut conn = edge.plain();
    for _ in 0..30 {
        conn.ask(&Ask::get("/")).expect(200);
        let open = edge.metric("tidegate_upstream_connections{upstream=\"app\"}");
        assert!(open <= 2.0, "{open} connections");
    }
}

fn lines(edge: &Edge) -> Vec<Value> {
    let path = edge.folder().join("access.log");
    // The last line may be on its way to the file.
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

fn await_why(edge: &Edge, why: &str) {
    wait::eventually("the log tells why", wait::SOON, || {
        lines(edge).iter().any(|line| line["why"] == why)
    });
}
