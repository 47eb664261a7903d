//! Which app node gets a request, and what happens when one is sick.

use std::collections::BTreeMap;

use crate::support::{Answer, Ask, Edge, Gate, Origin, Setup, wait};

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

fn nodes(count: usize) -> Vec<Origin> {
    NAMES[..count]
        .iter()
        .map(|name| Origin::named(name))
        .collect()
}

/// `@A@`, `@B@`, ... are the nodes' addresses.
fn edge(nodes: &[Origin], upstream: &str) -> Edge {
    let mut setup = Setup::new();
    for (node, name) in nodes.iter().zip(NAMES) {
        setup = setup.with(&name.to_uppercase(), node.address);
    }
    setup.start(&format!(
        "[upstream.app]\n{upstream}\n[[route]]\nupstream = \"app\"\n"
    ))
}

#[test]
fn round_robin_takes_each_in_turn() {
    let nodes = nodes(3);
    let edge = edge(
        &nodes,
        "endpoints = [\"@A@\", \"@B@\", \"@C@\"]\nbalance = \"round_robin\"",
    );
    let tally = edge.tally(300);
    for name in ["a", "b", "c"] {
        assert!((99..=101).contains(&tally[name]), "{tally:?}");
    }
}

#[test]
fn weights_are_kept_by_round_robin_and_by_random() {
    let nodes = nodes(2);
    for (balance, slack) in [("round_robin", 2), ("random", 60)] {
        let edge = edge(
            &nodes,
            &format!(
                "endpoints = [\"@A@\", {{ address = \"@B@\", weight = 3 }}]\nbalance = \"{balance}\""
            ),
        );
        let tally = edge.tally(400);
        assert!(tally["b"].abs_diff(300) <= slack, "{balance}: {tally:?}");
    }
}

#[test]
fn least_request_avoids_the_busy_node() {
    let gate = Gate::default();
    let held = gate.clone();
    let slow = Origin::start(move |seen| match seen.target.as_str() {
        "/hold" => Answer::ok("a").when(&held),
        _ => Answer::ok("a"),
    });
    let fast = Origin::start(|_| Answer::ok("b"));
    let nodes = [slow, fast];
    let edge = edge(
        &nodes,
        "endpoints = [\"@A@\", \"@B@\"]\nbalance = \"least_request\"",
    );
    // Occupy the slow node; a request that the fast one took is answered and asked again.
    let mut holder = edge.plain();
    wait::eventually("a held request", wait::SOON, || {
        let taken = nodes[1].count_of("/hold");
        holder.send(Ask::get("/hold").bytes());
        wait::eventually("a node to take it", wait::SOON, || {
            nodes[0].count_of("/hold") == 1 || nodes[1].count_of("/hold") > taken
        });
        let is_held = nodes[0].count_of("/hold") == 1;
        if !is_held {
            holder.reply().expect(200);
        }
        is_held
    });
    let tally = edge.tally(100);
    assert_eq!(tally.get("b"), Some(&100), "{tally:?}");
    gate.open();
}

#[test]
fn hashing_keeps_a_client_on_its_node_by_header_cookie_and_address() {
    let nodes = nodes(4);
    let all = "endpoints = [\"@A@\", \"@B@\", \"@C@\", \"@D@\"]";
    let by_address = edge(
        &nodes,
        &format!("{all}\nbalance = {{ hash = \"client_ip\" }}"),
    );
    assert_eq!(by_address.tally(20).len(), 1);

    let header = r#"balance = { hash = { header = "x-user" } }"#;
    let cookie = r#"balance = { hash = { cookie = "sid" } }"#;
    for (balance, by_cookie) in [(header, false), (cookie, true)] {
        let edge = edge(&nodes, &format!("{all}\n{balance}"));
        let mut used = BTreeMap::new();
        for user in 0..60 {
            let ask = match by_cookie {
                true => Ask::get("/").field("Cookie", &format!("x=1; sid=user-{user}; y=2")),
                false => Ask::get("/").field("X-User", &format!("user-{user}")),
            };
            let first = edge.ask(&ask).text();
            for _ in 0..3 {
                assert_eq!(edge.ask(&ask).text(), first, "user {user} {balance}");
            }
            *used.entry(first).or_insert(0) += 1;
        }
        assert_eq!(used.len(), 4, "{balance}: {used:?}");
    }
}

#[test]
fn a_node_that_leaves_moves_only_its_own_clients() {
    let mut nodes = nodes(4);
    let edge = edge(
        &nodes,
        "endpoints = [\"@A@\", \"@B@\", \"@C@\", \"@D@\"]\nbalance = { hash = { header = \"x-user\" } }\n\
         health_check = { type = \"tcp\", interval = \"100ms\", timeout = \"1s\", unhealthy_after = 1 }",
    );
    let ask = |user: usize| Ask::get("/").field("X-User", &format!("user-{user}"));
    let before: Vec<String> = (0..80).map(|user| edge.ask(&ask(user)).text()).collect();
    nodes[2].down();
    let gone = nodes[2].address;
    wait::eventually("the node to be out", wait::SOON, || !edge.is_healthy(gone));
    for (user, old) in before.iter().enumerate() {
        let new = edge.ask(&ask(user)).expect(200).text();
        assert_eq!(&new == old, old != "c", "user {user}: {old} became {new}");
    }
}

#[test]
fn a_connect_failure_is_tried_elsewhere_whatever_the_method() {
    let mut nodes = nodes(2);
    nodes[0].down();
    let edge = edge(
        &nodes,
        "endpoints = [\"@A@\", \"@B@\"]\nbalance = \"round_robin\"",
    );
    for _ in 0..10 {
        assert_eq!(edge.get("/").expect(200).text(), "b");
        assert_eq!(edge.ask(&Ask::post("/", "once")).expect(200).text(), "b");
    }
    assert_eq!(nodes[1].count(), 20);
    edge.await_metric(r#"tidegate_upstream_retries_total{upstream="app"}"#, 1.0);
    let kind = r#"tidegate_upstream_errors_total{upstream="app",kind="connect"}"#;
    edge.await_metric(kind, 1.0);
}

#[test]
fn a_reset_is_tried_elsewhere_only_when_the_request_may_be_sent_again() {
    let sick = Origin::start(|_| Answer::reset());
    let well = Origin::named("b");
    let nodes = [sick, well];
    let edge = edge(
        &nodes,
        "endpoints = [\"@A@\", \"@B@\"]\nbalance = \"round_robin\"\noutlier_detection = false",
    );
    for _ in 0..10 {
        assert_eq!(edge.get("/").expect(200).text(), "b");
    }
    let (sick, well) = (nodes[0].count_of("/order"), nodes[1].count_of("/order"));
    assert_eq!((sick, well), (0, 0));
    let mut statuses = Vec::new();
    for _ in 0..10 {
        statuses.push(edge.ask(&Ask::post("/order", "x")).status);
    }
    let total = nodes[0].count_of("/order") + nodes[1].count_of("/order");
    assert_eq!(total, 10, "an order was sent twice: {statuses:?}");
    assert!(statuses.contains(&502), "{statuses:?}");
}

#[test]
fn attempts_are_bounded_by_the_file() {
    let sick = || Origin::start(|_| Answer::reset());
    let nodes = [sick(), sick(), sick()];
    for (attempts, expected) in [(1, 1), (2, 2), (3, 3)] {
        let before: usize = nodes.iter().map(Origin::count).sum();
        let edge = edge(
            &nodes,
            &format!(
                "endpoints = [\"@A@\", \"@B@\", \"@C@\"]\noutlier_detection = false\n\
                 retry = {{ attempts = {attempts} }}"
            ),
        );
        edge.get("/").expect(502);
        let after: usize = nodes.iter().map(Origin::count).sum();
        assert_eq!(after - before, expected, "attempts = {attempts}");
    }
}

#[test]
fn checks_take_a_node_out_after_the_threshold_and_back_after_the_other() {
    let sick = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let flag = std::sync::Arc::clone(&sick);
    let a = Origin::start(move |seen| match seen.target.as_str() {
        "/healthz" if flag.load(std::sync::atomic::Ordering::SeqCst) => Answer::new(500, "sick"),
        _ => Answer::ok("a"),
    });
    let nodes = [a, Origin::named("b")];
    let edge = edge(
        &nodes,
        "endpoints = [\"@A@\", \"@B@\"]\n\
         health_check = { type = \"http\", path = \"/healthz\", interval = \"100ms\", timeout = \"1s\", unhealthy_after = 3, healthy_after = 2 }",
    );
    let address = nodes[0].address;
    wait::eventually("both healthy", wait::SOON, || {
        edge.is_healthy(address) && edge.is_healthy(nodes[1].address)
    });
    assert_eq!(edge.tally(20).len(), 2);
    sick.store(true, std::sync::atomic::Ordering::SeqCst);
    wait::eventually("out", wait::SOON, || !edge.is_healthy(address));
    assert_eq!(edge.tally(20).len(), 1);
    sick.store(false, std::sync::atomic::Ordering::SeqCst);
    wait::eventually("back", wait::SOON, || edge.is_healthy(address));
    assert_eq!(edge.tally(20).len(), 2);
    let check = nodes[0].seen().into_iter().find(|s| s.target == "/healthz");
    let check = check.expect("a check");
    assert_eq!(check.method, "GET");
    assert_eq!(check.field("host"), Some(address.to_string().as_str()));
}

#[test]
fn a_check_has_its_own_host_and_status() {
    let nodes = [
        Origin::start(|_| Answer::new(204, "")),
        Origin::start(|_| Answer::ok("fine, but not what is expected")),
    ];
    let edge = edge(
        &nodes,
        "endpoints = [\"@A@\", \"@B@\"]\n\
         health_check = { type = \"http\", path = \"/up\", host = \"internal.test\", status = 204, interval = \"50ms\" }",
    );
    wait::eventually("the other out", wait::SOON, || {
        !edge.is_healthy(nodes[1].address)
    });
    assert!(edge.is_healthy(nodes[0].address));
    assert_eq!(nodes[0].last().field("host"), Some("internal.test"));
}

#[test]
fn a_check_that_hangs_has_failed_at_its_timeout() {
    let nodes = [
        Origin::start(|_| Answer::ok("").after(wait::secs(20))),
        Origin::named("b"),
    ];
    let edge = edge(
        &nodes,
        "endpoints = [\"@A@\", \"@B@\"]\n\
         health_check = { type = \"http\", path = \"/\", interval = \"50ms\", timeout = \"100ms\", unhealthy_after = 2 }",
    );
    wait::eventually("out", wait::SOON, || !edge.is_healthy(nodes[0].address));
}

#[test]
fn errors_on_real_requests_eject_a_node_and_time_brings_it_back() {
    let nodes = [
        Origin::start(|_| Answer::new(500, "broken").field("x-node", "a")),
        Origin::named("b"),
    ];
    let edge = edge(
        &nodes,
        "endpoints = [\"@A@\", \"@B@\"]\nbalance = \"round_robin\"\n\
         outlier_detection = { consecutive_errors = 3, ejection_time = \"1s\", max_ejected = \"50%\" }",
    );
    let mut conn = edge.plain();
    let mut errors = 0;
    for _ in 0..30 {
        errors += usize::from(conn.ask(&Ask::get("/")).status == 500);
    }
    assert_eq!(errors, 3, "the third error in a row ejects");
    assert_eq!(
        edge.metric(r#"tidegate_upstream_ejections_total{upstream="app"}"#),
        1.0
    );
    let before = nodes[0].count();
    wait::eventually("traffic again", wait::SOON, || {
        conn.ask(&Ask::get("/"));
        nodes[0].count() > before
    });
}

#[test]
fn never_more_than_the_share_is_ejected_and_detection_can_be_off() {
    let sick = || Origin::start(|_| Answer::new(500, "broken"));
    let nodes = [sick(), sick(), sick(), sick()];
    let all = "endpoints = [\"@A@\", \"@B@\", \"@C@\", \"@D@\"]";
    let half = edge(
        &nodes,
        &format!(
            "{all}\noutlier_detection = {{ consecutive_errors = 1, ejection_time = \"60s\", max_ejected = \"50%\" }}"
        ),
    );
    let mut conn = half.plain();
    for _ in 0..40 {
        assert_eq!(
            conn.ask(&Ask::get("/")).status,
            500,
            "half the pool must stay in"
        );
    }
    assert_eq!(half.metric("tidegate_upstream_ejections_total"), 2.0);

    let off = edge(&nodes, &format!("{all}\noutlier_detection = false"));
    let mut conn = off.plain();
    for _ in 0..40 {
        conn.ask(&Ask::get("/"));
    }
    assert_eq!(off.metric("tidegate_upstream_ejections_total"), 0.0);
}

#[test]
fn a_backup_is_used_only_while_no_other_is_available() {
    let mut nodes = nodes(3);
    let edge = edge(
        &nodes,
        "endpoints = [\"@A@\", \"@B@\", { address = \"@C@\", backup = true }]\n\
         health_check = { type = \"tcp\", interval = \"50ms\", unhealthy_after = 1, healthy_after = 1 }",
    );
    assert_eq!(edge.tally(40).get("c"), None);
    nodes[0].down();
    wait::eventually("a out", wait::SOON, || !edge.is_healthy(nodes[0].address));
    assert_eq!(edge.tally(20).get("b"), Some(&20));
    nodes[1].down();
    wait::eventually("b out", wait::SOON, || !edge.is_healthy(nodes[1].address));
    assert_eq!(edge.tally(20).get("c"), Some(&20));
    nodes[0].up();
    wait::eventually("a back", wait::SOON, || edge.is_healthy(nodes[0].address));
    assert_eq!(edge.tally(20).get("a"), Some(&20));
}

#[test]
fn all_nodes_down_is_503_with_retry_after_at_once() {
    let mut nodes = nodes(2);
    for node in &mut nodes {
        node.down();
    }
    let edge = edge(
        &nodes,
        "endpoints = [\"@A@\", \"@B@\"]\n\
         health_check = { type = \"tcp\", interval = \"50ms\", unhealthy_after = 1 }",
    );
    wait::eventually("both out", wait::SOON, || {
        nodes.iter().all(|node| !edge.is_healthy(node.address))
    });
    let started = wait::now();
    let reply = edge.get("/").expect(503);
    assert!(
        started.elapsed() < wait::millis(500),
        "{:?}",
        started.elapsed()
    );
    let after: u64 = reply
        .field("retry-after")
        .expect("Retry-After")
        .parse()
        .unwrap();
    assert!((1..=60).contains(&after), "{after}");
}

#[test]
fn the_admin_server_shows_every_endpoint_and_its_state() {
    let nodes = nodes(2);
    let edge = edge(
        &nodes,
        "endpoints = [\"@A@\", { address = \"@B@\", weight = 2, backup = true }]",
    );
    let text = edge.json("/upstreams").to_string();
    for node in &nodes {
        assert!(text.contains(&node.address.to_string()), "{text}");
    }
    for word in ["\"app\"", "\"weight\":2", "\"backup\":true", "healthy"] {
        assert!(text.contains(word), "no {word} in {text}");
    }
}

#[test]
fn a_node_given_by_name_is_looked_up() {
    let nodes = nodes(1);
    let port = nodes[0].address.port();
    let edge = edge(&nodes, &format!("endpoints = [\"localhost:{port}\"]"));
    assert_eq!(edge.get("/").expect(200).text(), "a");
}
