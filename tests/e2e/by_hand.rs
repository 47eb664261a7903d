//! Endpoints seen and changed while the edge runs.

use std::collections::BTreeMap;
use std::process::Command;
use std::thread;

use serde_json::Value;

use crate::support::edge::binary;
use crate::support::tools::{Finished, run};
use crate::support::{Answer, Ask, Edge, Gate, Origin, Setup, wait};

const TWO: &str = r#"
    [upstream.app]
    endpoints = ["@A@", "@B@"]
    balance = "round_robin"
    health_check = { type = "http", path = "/healthz", interval = "200ms", unhealthy_after = 2, healthy_after = 1 }
    [[route]]
    upstream = "app"
"#;

fn edge(nodes: &[Origin; 2]) -> Edge {
    Setup::new()
        .with("A", nodes[0].address)
        .with("B", nodes[1].address)
        .start(TWO)
}

fn nodes() -> [Origin; 2] {
    ["a", "b"].map(Origin::named)
}

fn tidegate(edge: &Edge, arguments: &[&str]) -> Finished {
    let (command, rest) = arguments.split_at(1);
    let all = [&["upstream"], command, &["-c", "tidegate.toml"], rest].concat();
    let mut command = Command::new(binary());
    command.args(all).current_dir(edge.folder());
    run(&mut command, wait::SOON)
}

#[track_caller]
fn said(edge: &Edge, arguments: &[&str]) -> String {
    let finished = tidegate(edge, arguments);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    finished.stdout
}

fn endpoint(edge: &Edge, at: usize) -> Value {
    edge.json("/upstreams")[0]["endpoints"][at].clone()
}

#[test]
fn a_drained_endpoint_finishes_what_it_has_and_gets_nothing_new() {
    let gate = Gate::default();
    let held = gate.clone();
    let a = Origin::start(move |seen| match seen.target.as_str() {
        "/hold" => Answer::ok("a").when(&held),
        _ => Answer::ok("a"),
    });
    let nodes = [a, Origin::named("b")];
    let edge = edge(&nodes);
    let address = nodes[0].address.to_string();
    thread::scope(|scope| {
        let mut clients = Vec::new();
        while nodes[0].count_of("/hold") == 0 {
            clients.push(scope.spawn(|| edge.get("/hold").expect(200).text()));
            wait::eventually("somebody was asked", wait::SOON, || {
                nodes[0].count_of("/hold") + nodes[1].count_of("/hold") == clients.len()
            });
        }
        let list = said(&edge, &["drain", "app", &address]);
        assert!(list.contains("drained"), "{list}");
        assert!(list.contains("by hand, until the next reload"), "{list}");
        assert_eq!(edge.tally(20), BTreeMap::from([("b".to_owned(), 20)]));
        gate.open();
        let answers: Vec<String> = clients
            .into_iter()
            .map(|client| client.join().expect("no panic"))
            .collect();
        assert!(
            answers.contains(&"a".to_owned()),
            "it was finished: {answers:?}"
        );
    });
    assert_eq!(endpoint(&edge, 0)["health"], "drained");
    assert_eq!(endpoint(&edge, 0)["by_hand"]["mode"], "drain");
    let list = said(&edge, &["undrain", "app", &address]);
    assert!(!list.contains("by hand"), "{list}");
    assert_eq!(edge.tally(20)["a"], 10);
}

#[test]
fn a_weight_by_hand_changes_the_shares_at_once() {
    let nodes = nodes();
    let edge = edge(&nodes);
    let address = nodes[0].address.to_string();
    said(&edge, &["weight", "app", &address, "3"]);
    assert_eq!(edge.tally(40)["a"], 30);
    let series =
        format!("tidegate_upstream_endpoint_weight{{upstream=\"app\",endpoint=\"{address}\"}}");
    assert_eq!(edge.metric(&series), 3.0);
    said(&edge, &["weight", "app", &address, "default"]);
    assert_eq!(edge.tally(40)["a"], 20);
}

#[test]
fn an_endpoint_forced_down_is_not_checked_until_it_is_up_again() {
    let nodes = nodes();
    let edge = edge(&nodes);
    let address = nodes[1].address.to_string();
    let list = said(&edge, &["down", "app", &address]);
    assert!(list.contains("down"), "{list}");
    assert_eq!(edge.tally(10), BTreeMap::from([("a".to_owned(), 10)]));
    // A check may be under way in that moment.
    wait::hold(wait::millis(300));
    let checks = nodes[1].count_of("/healthz");
    wait::always("no checks", wait::millis(700), || {
        nodes[1].count_of("/healthz") == checks
    });
    said(&edge, &["up", "app", &address]);
    wait::eventually("checked again", wait::SOON, || {
        nodes[1].count_of("/healthz") > checks
    });
    assert_eq!(edge.tally(10)["b"], 5);
}

#[test]
fn a_reload_forgets_changes_unless_they_were_asked_to_stay() {
    let nodes = nodes();
    let edge = edge(&nodes);
    let (a, b) = (nodes[0].address.to_string(), nodes[1].address.to_string());
    said(&edge, &["weight", "app", &a, "3"]);
    let list = said(&edge, &["drain", "app", &b, "--keep"]);
    assert!(list.contains("by hand, kept over reloads"), "{list}");
    edge.rewrite(&TWO.replace("\"round_robin\"", "\"random\""));
    edge.reload(true);
    assert_eq!(endpoint(&edge, 0)["by_hand"], Value::Null);
    assert_eq!(endpoint(&edge, 0)["weight"], 1);
    assert_eq!(endpoint(&edge, 1)["by_hand"]["keep"], true);
    assert_eq!(edge.tally(10), BTreeMap::from([("a".to_owned(), 10)]));
}

#[test]
fn what_cannot_be_done_is_said_with_what_can() {
    let nodes = nodes();
    let edge = edge(&nodes);
    let address = nodes[0].address.to_string();
    for (arguments, word) in [
        (&["drain", "shop", &address][..], "there are app"),
        (&["drain", "app", "10.9.9.9:1"], &address),
        (&["weight", "app", &address, "0"], "from 1 to 1000"),
        (&["list", "shop"], "there are app"),
    ] {
        let finished = tidegate(&edge, arguments);
        assert_eq!(finished.code, Some(2), "{finished:?}");
        assert!(finished.stderr.contains(word), "{finished:?}");
    }
    let target = format!("/upstreams/change?upstream=app&endpoint={address}&mode=drain");
    assert_eq!(edge.admin_ask(&Ask::post(&target, "")).status, 401);
    assert_eq!(edge.admin_ask(&Ask::get(&target)).status, 405);
    assert_eq!(edge.command("/upstreams/change?upstream=app").status, 400);
    assert_eq!(edge.tally(10)["a"], 5, "nothing was changed");
    let list = said(&edge, &["list", "app"]);
    assert!(list.contains(&address) && list.contains("2 of 2"), "{list}");
    wait::eventually("idle connections are shown", wait::SOON, || {
        let endpoint = endpoint(&edge, 0);
        endpoint["idle_connections"].as_u64() >= Some(1)
            && endpoint["connections"] == endpoint["idle_connections"]
    });
    let json: Value = serde_json::from_str(&said(&edge, &["list", "--json"])).expect("JSON");
    assert_eq!(json[0]["name"], "app");
}
