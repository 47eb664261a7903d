//! Algorithms that look at latency, at more than two endpoints, or at what is asked for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::support::{Answer, Ask, Conn, Edge, Gate, Origin, Setup, wait};

const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const FOUR: &str = "endpoints = [\"@A@\", \"@B@\", \"@C@\", \"@D@\"]";

/// `@A@`, `@B@`, ... are the nodes' addresses.
fn setup(nodes: &[Origin]) -> Setup {
    let mut setup = Setup::new();
    for (node, name) in nodes.iter().zip(NAMES) {
        setup = setup.with(&name.to_uppercase(), node.address);
    }
    setup
}

fn config(upstream: &str) -> String {
    format!("[upstream.app]\n{upstream}\n[[route]]\nupstream = \"app\"\n")
}

fn four() -> Vec<Origin> {
    NAMES.iter().map(|name| Origin::named(name)).collect()
}

#[test]
fn peak_ewma_avoids_a_slow_node_and_finds_out_when_it_is_slow_no_more() {
    let delay = Arc::new(AtomicU64::new(80));
    let millis = Arc::clone(&delay);
    let slow =
        Origin::start(move |_| Answer::ok("a").after(wait::millis(millis.load(Ordering::SeqCst))));
    let nodes = [slow, Origin::named("b"), Origin::named("c")];
    let three = "endpoints = [\"@A@\", \"@B@\", \"@C@\"]";
    let edge = setup(&nodes).start(&config(&format!("{three}\nbalance = \"peak_ewma\"")));
    edge.tally(30);
    let got = edge.tally(200).get("a").copied().unwrap_or(0);
    assert!(
        got <= 20,
        "the slow one got {got} of 200; an even share is 67"
    );
    let latency = format!(
        "tidegate_upstream_endpoint_latency_seconds{{endpoint=\"{}\"}}",
        nodes[0].address
    );
    let seen = edge.metric(&latency);
    assert!(seen >= 0.05, "its latency is {seen} s");
    delay.store(0, Ordering::SeqCst);
    wait::eventually("its share", wait::secs(60), || {
        edge.tally(50).get("a").copied().unwrap_or(0) >= 10
    });
}

#[test]
fn more_choices_find_the_idle_node_more_often() {
    let share = |choices: &str| {
        let gate = Gate::default();
        let node = |name: &'static str, holds: bool| {
            let gate = gate.clone();
            Origin::start(move |seen| match seen.target.as_str() {
                "/hold" if holds => Answer::ok(name).when(&gate),
                _ => Answer::ok(name),
            })
        };
        let nodes = [
            node("a", true),
            node("b", true),
            node("c", true),
            node("d", false),
        ];
        let edge = setup(&nodes).start(&config(&format!("{FOUR}\nbalance = {choices}")));
        let mut held: Vec<Conn> = Vec::new();
        wait::eventually("three busy nodes", wait::SOON, || {
            let seen = || {
                nodes
                    .iter()
                    .map(|node| node.count_of("/hold"))
                    .sum::<usize>()
            };
            let before = seen();
            let mut conn = edge.plain();
            conn.send(Ask::get("/hold").bytes());
            held.push(conn);
            wait::eventually("somebody was asked", wait::SOON, || seen() > before);
            nodes[..3].iter().all(|node| node.count_of("/hold") > 0)
        });
        let tally = edge.tally(200);
        gate.open();
        tally.get("d").copied().unwrap_or(0)
    };
    // All but the idle one have a request under way. Ten draws, of which none repeats the one
    // before, miss it in one of fifty cases; two in half of them.
    let ten = share("{ least_request = { choices = 10 } }");
    assert!(ten >= 180, "{ten} of 200 with ten choices");
    let two = share("\"least_request\"");
    assert!((60..=150).contains(&two), "{two} of 200 with two choices");
}

/// What is asked for `key`, under each way of hashing.
type Asked = fn(usize) -> Ask;

const KEYS: usize = 80;

/// Each key's node.
#[track_caller]
fn homes(edge: &Edge, asked: Asked) -> Vec<String> {
    let mut conn = edge.plain();
    let mut ask = |key| conn.ask(&asked(key)).expect(200).text();
    let homes: Vec<String> = (0..KEYS).map(&mut ask).collect();
    for (key, home) in homes.iter().enumerate() {
        assert_eq!(&ask(key), home, "key {key} moved for nothing");
    }
    homes
}

/// Takes node `c` out by its check and `d` out of the file; keys of the others stay, but for so
/// many in a hundred when the table is made anew.
#[track_caller]
fn keys_stay(balance: &str, asked: Asked, may_move: usize) {
    let mut nodes = four();
    let rest = format!(
        "balance = {balance}\n\
         health_check = {{ type = \"tcp\", interval = \"100ms\", timeout = \"2s\", unhealthy_after = 1, healthy_after = 1 }}"
    );
    let edge = setup(&nodes).start(&config(&format!("{FOUR}\n{rest}")));
    let before = homes(&edge, asked);
    for name in NAMES {
        let count = before.iter().filter(|home| *home == name).count();
        assert!(count >= KEYS / 20, "{name} has {count} of {KEYS} keys");
    }

    nodes[2].down();
    let gone = nodes[2].address;
    wait::eventually("c to be out", wait::SOON, || !edge.is_healthy(gone));
    let without = homes(&edge, asked);
    for (key, (old, new)) in before.iter().zip(&without).enumerate() {
        assert_eq!(
            old == new,
            old != "c",
            "{balance}: key {key}: {old}, then {new}"
        );
    }
    let heirs = before.iter().zip(&without).filter(|(old, _)| *old == "c");
    let heirs: BTreeMap<&String, ()> = heirs.map(|(_, new)| (new, ())).collect();
    assert!(
        heirs.len() > 1,
        "{balance}: one node inherits all: {heirs:?}"
    );
    nodes[2].up();
    wait::eventually("c to be back", wait::SOON, || edge.is_healthy(gone));
    assert_eq!(homes(&edge, asked), before, "{balance}");

    let three = "endpoints = [\"@A@\", \"@B@\", \"@C@\"]";
    edge.rewrite(&config(&format!("{three}\n{rest}")));
    edge.reload(true);
    let after = homes(&edge, asked);
    let stayed = before.iter().zip(&after).filter(|(old, _)| *old != "d");
    let moved = stayed.filter(|(old, new)| old != new).count();
    assert!(
        moved * 100 <= KEYS * may_move,
        "{balance}: {moved} of {KEYS} keys moved between nodes that are both there"
    );
}

#[test]
fn a_ring_keeps_paths_on_their_node() {
    keys_stay(
        "{ hash = \"path\", table = \"ketama\" }",
        |key| Ask::get(&format!("/page/{key}")),
        0,
    );
}

#[test]
fn maglev_keeps_query_parameters_on_their_node_but_for_a_few() {
    keys_stay(
        "{ hash = { query = \"id\" }, table = \"maglev\" }",
        |key| Ask::get(&format!("/{}?x={}&id=key-{key}", key % 7, key % 3)),
        10,
    );
}

#[test]
fn rendezvous_keeps_headers_on_their_node() {
    keys_stay(
        "{ hash = { header = \"x-user\" } }",
        |key| Ask::get("/").field("X-User", &format!("user-{key}")),
        0,
    );
}

#[test]
fn what_is_not_hashed_does_not_matter() {
    let nodes = four();
    let edge = setup(&nodes).start(&config(&format!(
        "{FOUR}\nbalance = {{ hash = \"path\", table = \"maglev\" }}"
    )));
    for path in ["/a", "/b", "/c", "/d"] {
        let home = edge.get(path).expect(200).text();
        for query in 0..10 {
            let ask = Ask::get(&format!("{path}?page={query}")).field("X-User", &query.to_string());
            assert_eq!(edge.ask(&ask).expect(200).text(), home);
        }
    }
}

#[test]
fn a_key_that_is_asked_for_too_much_spills_over() {
    for (table, max_load) in [
        ("ketama", Some("150%")),
        ("maglev", Some("150%")),
        ("rendezvous", Some("150%")),
        ("ketama", None),
    ] {
        let gate = Gate::default();
        let node = || {
            let gate = gate.clone();
            Origin::start(move |_| Answer::ok("held").when(&gate))
        };
        let nodes = [node(), node(), node()];
        let bound = max_load.map_or(String::new(), |load| format!(", max_load = \"{load}\""));
        let edge = setup(&nodes).start(&config(&format!(
            "endpoints = [\"@A@\", \"@B@\", \"@C@\"]\nbalance = {{ hash = \"path\", table = \"{table}\"{bound} }}"
        )));
        let mut held: Vec<Conn> = Vec::new();
        for count in 1..=12 {
            let mut conn = edge.plain();
            conn.send(Ask::get("/hot").bytes());
            held.push(conn);
            wait::eventually("the request to arrive", wait::SOON, || {
                nodes.iter().map(Origin::count).sum::<usize>() == count
            });
        }
        let mut counts = nodes.each_ref().map(Origin::count);
        counts.sort_unstable();
        match max_load {
            // Half more than a third of twelve.
            Some(_) => assert_eq!(counts, [0, 6, 6], "{table}"),
            None => assert_eq!(counts, [0, 0, 12], "{table}"),
        }
        gate.open();
        for conn in &mut held {
            conn.reply().expect(200);
        }
    }
}
