//! WebSockets are requests until they end.

use crate::support::{Answer, Ask, Conn, Edge, Origin, Setup, wait};

fn node(name: &'static str) -> Origin {
    Origin::start(move |seen| match seen.target.as_str() {
        "/ws" => Answer::websocket(),
        _ => Answer::ok(name),
    })
}

/// An open WebSocket that has carried something.
#[track_caller]
fn socket(mut conn: Conn) -> Conn {
    let upgrade = Ask::get("/ws")
        .field("Connection", "Upgrade")
        .field("Upgrade", "websocket");
    assert_eq!(conn.ask(&upgrade).status, 101);
    assert_eq!(conn.send("ping").exactly(4), Ok(b"ping".to_vec()));
    conn
}

fn active(edge: &Edge, node: &Origin) -> f64 {
    edge.metric(&format!(
        "tidegate_upstream_endpoint_active_requests{{upstream=\"app\",endpoint=\"{}\"}}",
        node.address
    ))
}

#[test]
fn an_open_websocket_counts_as_under_way_and_takes_part_in_limits() {
    let node = node("a");
    let edge = Setup::new().with("A", node.address).start(
        "[upstream.app]\nendpoints = [\"@A@\"]\nmax_requests = 2\n[[route]]\nupstream = \"app\"\n",
    );
    let mut first = socket(edge.plain());
    let second = socket(edge.tls());
    wait::eventually("both are counted", wait::SOON, || {
        active(&edge, &node) == 2.0
    });
    assert_eq!(edge.get("/").status, 503, "there is no room for a third");
    wait::always("they stay counted", wait::millis(500), || {
        active(&edge, &node) == 2.0
    });
    assert_eq!(first.send("still").exactly(5), Ok(b"still".to_vec()));
    drop(second);
    wait::eventually("one has ended", wait::SOON, || active(&edge, &node) == 1.0);
    edge.get("/").expect(200);
    first.finish();
    first.expect_end();
    wait::eventually("none is left", wait::SOON, || active(&edge, &node) == 0.0);
    let open = "tidegate_upstream_endpoint_connections{upstream=\"app\"}";
    wait::eventually("one idle connection", wait::SOON, || {
        edge.metric(open) <= 1.0
    });
}

#[test]
fn least_request_sees_websockets() {
    let nodes = [node("a"), node("b")];
    let edge = Setup::new()
        .with("A", nodes[0].address)
        .with("B", nodes[1].address)
        .start("[upstream.app]\nendpoints = [\"@A@\", \"@B@\"]\nbalance = \"least_request\"\n[[route]]\nupstream = \"app\"\n");
    let _sockets: Vec<Conn> = (0..6).map(|_| socket(edge.plain())).collect();
    let counts = nodes.each_ref().map(|node| node.count_of("/ws"));
    assert_eq!(counts, [3, 3]);
}

#[test]
fn a_drained_endpoint_keeps_its_websockets_and_gets_no_more() {
    let nodes = [node("a"), node("b")];
    let edge = Setup::new()
        .with("A", nodes[0].address)
        .with("B", nodes[1].address)
        .start("[upstream.app]\nendpoints = [\"@A@\", { address = \"@B@\", backup = true }]\n[[route]]\nupstream = \"app\"\n");
    let mut open = socket(edge.plain());
    assert_eq!(nodes[0].count_of("/ws"), 1);
    let change = format!(
        "/upstreams/change?upstream=app&endpoint={}&mode=drain",
        nodes[0].address
    );
    assert_eq!(edge.command(&change).status, 200);
    assert_eq!(edge.get("/").expect(200).text(), "b");
    let other = socket(edge.plain());
    assert_eq!(nodes[1].count_of("/ws"), 1);
    let drained = || edge.json("/upstreams")[0]["endpoints"][0].clone();
    assert_eq!(drained()["health"], "drained");
    assert_eq!(
        drained()["active_requests"],
        1,
        "who waits for the drain sees it"
    );
    assert_eq!(open.send("pong").exactly(4), Ok(b"pong".to_vec()));
    open.finish();
    open.expect_end();
    wait::eventually("the drain is over", wait::SOON, || {
        drained()["active_requests"] == 0
    });
    drop(other);
}
