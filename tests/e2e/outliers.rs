//! Endpoints that are left out for what they do with requests: too many failures, too slow.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::{Answer, Ask, Edge, Origin, Setup, wait};

fn edge(nodes: &[Origin], upstream: &str) -> Edge {
    let mut setup = Setup::new();
    for (node, name) in nodes.iter().zip(["A", "B", "C", "D"]) {
        setup = setup.with(name, node.address);
    }
    setup.start(&format!(
        "[upstream.app]\n{upstream}\n[[route]]\nupstream = \"app\"\n"
    ))
}

fn series(name: &str, node: &Origin, more: &str) -> String {
    format!(
        "{name}{{upstream=\"app\",endpoint=\"{}\"{more}}}",
        node.address
    )
}

/// Lines of the event log with all of these words, once there are so many: they come through a pipe.
fn events(edge: &Edge, words: &[&str], least: usize) -> Vec<String> {
    wait::until(&format!("{least} lines: {words:?}"), wait::SOON, || {
        let log = edge.stderr();
        let lines = log
            .lines()
            .filter(|line| words.iter().all(|word| line.contains(word)));
        let lines: Vec<String> = lines.map(str::to_owned).collect();
        (lines.len() >= least).then_some(lines)
    })
}

#[test]
fn one_that_fails_too_often_is_ejected_for_longer_each_time_and_returns() {
    // Never twice in a row, so only the rate can tell.
    let sick = Origin::start(|seen| match seen.nth % 2 {
        0 => Answer::new(500, "broken"),
        _ => Answer::ok("a"),
    });
    let nodes = [sick, Origin::named("b")];
    let edge = edge(
        &nodes,
        "endpoints = [\"@A@\", \"@B@\"]\nbalance = \"round_robin\"\n\
         outlier_detection = { consecutive_errors = 3, error_rate = \"40%\", window = \"5s\", min_requests = 10, ejection_time = \"1s\", max_ejected = \"50%\" }",
    );
    let ejections = series(
        "tidegate_upstream_ejections_total",
        &nodes[0],
        ",cause=\"error_rate\"",
    );
    let returns = series("tidegate_upstream_returns_total", &nodes[0], "");
    let address = nodes[0].address.to_string();
    let mut conn = edge.plain();
    let mut count = 0;
    while edge.metric(&ejections) < 1.0 {
        conn.ask(&Ask::get("/"));
        count += 1;
        assert!(count <= 40, "not ejected after {count} requests");
    }
    assert!(count >= 19, "ejected after {count}, of which it had half");
    let ejected = events(&edge, &["endpoint is ejected", &address], 1);
    assert_eq!(ejected.len(), 1, "{}", edge.stderr());
    for word in [
        "error_rate",
        "6 of 11 requests failed in 5s",
        "ejected_for=1s",
        "times=1",
        "ejected=1",
        "endpoints=2",
    ] {
        assert!(ejected[0].contains(word), "no {word} in {}", ejected[0]);
    }
    let seen = nodes[0].count();
    let rest: Vec<u16> = (0..10).map(|_| conn.ask(&Ask::get("/")).status).collect();
    assert_eq!((rest, nodes[0].count()), (vec![200; 10], seen));

    // It goes on failing, so each time is longer.
    wait::eventually("a third ejection", wait::secs(30), || {
        conn.ask(&Ask::get("/"));
        edge.metric(&ejections) >= 3.0
    });
    let ejected = events(&edge, &["endpoint is ejected", &address], 3);
    assert!(
        ejected[1].contains("ejected_for=2s") && ejected[1].contains("times=2"),
        "{}",
        ejected[1]
    );
    assert!(ejected[2].contains("ejected_for=3s"), "{}", ejected[2]);
    let returned = events(&edge, &["returns from ejection", &address], 2);
    assert_eq!(returned.len(), 2, "{}", edge.stderr());
    assert_eq!(edge.metric(&returns), 2.0);
    let endpoint = &edge.json("/upstreams")[0]["endpoints"][0];
    assert_eq!(endpoint["health"], "ejected", "{endpoint}");
    assert_eq!(endpoint["ejections"], 3, "{endpoint}");
    assert!(endpoint["ejected_for_seconds"].as_f64() <= Some(3.0));
}

#[test]
fn one_that_is_much_slower_than_the_others_is_ejected() {
    // Slow enough by themselves that a busy machine does not make an outlier of one.
    let usual = || Answer::ok("well").after(wait::millis(50));
    let slow = Arc::new(AtomicBool::new(true));
    let flag = Arc::clone(&slow);
    let a = Origin::start(move |_| match flag.load(Ordering::SeqCst) {
        true => Answer::ok("slow").after(wait::millis(350)),
        false => usual(),
    });
    let nodes = [
        a,
        Origin::start(move |_| usual()),
        Origin::start(move |_| usual()),
    ];
    let edge = edge(
        &nodes,
        "endpoints = [\"@A@\", \"@B@\", \"@C@\"]\nbalance = \"round_robin\"\n\
         outlier_detection = { latency_factor = 3, window = \"10s\", min_requests = 5, ejection_time = \"2s\", max_ejected = \"50%\" }",
    );
    let ejections = series(
        "tidegate_upstream_ejections_total",
        &nodes[0],
        ",cause=\"latency_factor\"",
    );
    let mut conn = edge.plain();
    wait::eventually("an ejection", wait::SOON, || {
        conn.ask(&Ask::get("/")).expect(200);
        edge.metric(&ejections) >= 1.0
    });
    slow.store(false, Ordering::SeqCst);
    let address = nodes[0].address.to_string();
    let ejected = events(&edge, &["endpoint is ejected", &address], 1);
    for word in [
        "latency_factor",
        "mean latency",
        "more than 3 times the others' median",
    ] {
        assert!(ejected[0].contains(word), "no {word} in {}", ejected[0]);
    }
    let seen = nodes[0].count();
    wait::eventually("its return", wait::SOON, || {
        conn.ask(&Ask::get("/")).expect(200);
        nodes[0].count() > seen
    });
    edge.await_metric(
        &series("tidegate_upstream_returns_total", &nodes[0], ""),
        1.0,
    );
    wait::always("it stays", wait::secs(2), || {
        conn.ask(&Ask::get("/")).expect(200);
        edge.metric(&ejections) == 1.0
    });
}
