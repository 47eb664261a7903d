//! A node dies under load and nobody is the wiser.

use std::process::Command;

use crate::support::client::Ask;
use crate::support::load::{Load, Talk};
use crate::support::nginx::Nginx;
use crate::support::tools::{Running, tool};
use crate::support::{Setup, wait};

#[test]
fn killing_one_of_three_nodes_under_load_fails_no_get() {
    let program = tool!("nginx", "nginx-light");
    let h2load = tool!("h2load", "nghttp2-client");
    let mut nodes = ["a", "b", "c"].map(|name| Nginx::node(&program, name, ""));
    let edge = Setup::new()
        .with("A", nodes[0].address)
        .with("B", nodes[1].address)
        .with("C", nodes[2].address)
        .start(
            r#"
            [upstream.app]
            endpoints = ["@A@", "@B@", "@C@"]
            balance = "round_robin"
            health_check = { type = "http", path = "/healthz", interval = "500ms", timeout = "1s", unhealthy_after = 3, healthy_after = 2 }
            outlier_detection = { consecutive_errors = 5, ejection_time = "2s" }
            [[route]]
            upstream = "app"
            "#,
        );
    let dying = nodes[1].address;
    wait::eventually("all healthy", wait::SOON, || {
        nodes.iter().all(|node| edge.is_healthy(node.address))
    });

    // 200 requests a second for 20 seconds by h2load, beside a client of our
    // own that tells who answered.
    let mut command = Command::new(h2load);
    command.args(["-c", "20", "-t", "1", "--rps", "10", "-D", "20"]);
    let mut outside = Running::start(command.arg(format!("https://{}/", edge.https())));
    let inside = Load::start(Talk::Plain, edge.http(), &Ask::get("/"), 60, 4);

    wait::hold(wait::secs(4));
    nodes[1].down();
    let killed = wait::now();
    wait::eventually("the node to be out", wait::SOON, || !edge.is_healthy(dying));
    let bound = wait::millis(3 * 500 + 1_000);
    assert!(
        killed.elapsed() <= bound,
        "out after {:?}",
        killed.elapsed()
    );
    let out = inside.so_far();
    wait::hold(wait::secs(3));
    let while_down = inside.so_far();
    assert_eq!(
        while_down.nodes.get("b"),
        out.nodes.get("b"),
        "traffic to a dead node"
    );
    for name in ["a", "c"] {
        let gained = while_down.nodes[name] - out.nodes[name];
        assert!(
            gained > 40,
            "{name} got only {gained}: the load is not shared evenly"
        );
    }

    nodes[1].up();
    wait::eventually("the node to be back", wait::SOON, || edge.is_healthy(dying));
    wait::eventually("traffic to it again", wait::SOON, || {
        inside.so_far().nodes["b"] > while_down.nodes["b"] + 20
    });

    assert_eq!(outside.wait(wait::secs(40)), Some(0));
    let report = outside.stdout();
    let requests = report.lines().find(|l| l.starts_with("requests:"));
    let requests = requests.unwrap_or_else(|| panic!("no summary:\n{report}"));
    for flawless in [" 0 failed", " 0 errored", " 0 timeout"] {
        assert!(requests.contains(flawless), "{requests}\n{report}");
    }
    let statuses = report.lines().find(|l| l.starts_with("status codes:"));
    let statuses = statuses.expect("the statuses");
    for none in [" 0 3xx", " 0 4xx", " 0 5xx"] {
        assert!(statuses.contains(none), "{statuses}");
    }
    let total: usize = requests
        .split_whitespace()
        .nth(1)
        .and_then(|n| n.parse().ok())
        .expect("a number of requests");
    assert!(total >= 3_500, "only {total} requests in 20 s");
    inside.end().expect_flawless(500);
}

#[test]
fn a_node_that_dies_with_pooled_connections_fails_no_get_even_without_checks() {
    let program = tool!("nginx", "nginx-light");
    let mut nodes = ["a", "b"].map(|name| Nginx::node(&program, name, ""));
    let edge = Setup::new()
        .with("A", nodes[0].address)
        .with("B", nodes[1].address)
        .start("[upstream.app]\nendpoints = [\"@A@\", \"@B@\"]\n[[route]]\nupstream = \"app\"\n");
    let load = Load::start(Talk::TlsH2, edge.https(), &Ask::get("/"), 200, 4);
    for _ in 0..3 {
        let before = load.so_far().ok;
        wait::eventually("load", wait::SOON, || load.so_far().ok > before + 200);
        nodes[0].down();
        let before = load.so_far().ok;
        wait::eventually("load on the other", wait::SOON, || {
            load.so_far().ok > before + 200
        });
        nodes[0].up();
    }
    load.end().expect_flawless(1_000);
}
