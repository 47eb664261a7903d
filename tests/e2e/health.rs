//! Active checks: what is sent, what counts as healthy, how often, and who is told.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::tls_node::TlsNode;
use crate::support::{Answer, Edge, Gate, Origin, Seen, Setup, certs, wait};

/// The endpoint's line of the event log that says why it is out.
#[track_caller]
pub(crate) fn reason(edge: &Edge, endpoint: SocketAddr) -> String {
    let endpoint = format!("endpoint=\"{endpoint}\"");
    wait::until(&format!("{endpoint} to be out"), wait::SOON, || {
        let log = edge.stderr();
        let is_it = |line: &&str| line.contains("is out of service") && line.contains(&endpoint);
        log.lines().find(is_it).map(str::to_owned)
    })
}

/// Its checks only.
fn checks(node: &Origin) -> Vec<Seen> {
    let seen = node.seen();
    seen.into_iter()
        .filter(|s| s.field("user-agent") == Some("tidegate-health-check"))
        .collect()
}

/// A node whose `/healthz` fails while the flag is set.
fn moody(name: &'static str) -> (Origin, Arc<AtomicBool>) {
    let sick = Arc::new(AtomicBool::new(false));
    let flag = sick.clone();
    let node = Origin::start(move |seen| {
        match seen.target.starts_with("/healthz") && flag.load(Ordering::SeqCst) {
            true => Answer::new(500, "sick"),
            false => Answer::ok(name),
        }
    });
    (node, sick)
}

#[test]
fn a_check_is_sent_as_the_file_says_and_any_of_its_statuses_will_do() {
    let nodes = [204, 418, 200].map(|status| Origin::start(move |_| Answer::new(status, "")));
    let edge = Setup::new()
        .with("A", nodes[0].address)
        .with("B", nodes[1].address)
        .with("C", nodes[2].address)
        .start(
            "[upstream.app]\nendpoints = [\"@A@\", \"@B@\", \"@C@\"]\n\
             [upstream.app.health_check]\ntype = \"http\"\nmethod = \"POST\"\n\
             path = \"/status?deep=1\"\nhost = \"probe.test\"\nstatus = [204, 418]\n\
             headers = { x-probe = \"1\", authorization = \"Bearer of-the-probe\" }\n\
             interval = \"100ms\"\nunhealthy_after = 2\n\
             [[route]]\nupstream = \"app\"\n",
        );
    assert!(reason(&edge, nodes[2].address).contains("status 200"));
    for node in &nodes[..2] {
        wait::eventually("four checks", wait::SOON, || checks(node).len() >= 4);
        assert!(edge.is_healthy(node.address), "{}", edge.stderr());
    }
    let check = &checks(&nodes[0])[0];
    assert_eq!(
        (check.method.as_str(), check.target.as_str()),
        ("POST", "/status?deep=1")
    );
    for (name, value) in [
        ("host", "probe.test"),
        ("x-probe", "1"),
        ("authorization", "Bearer of-the-probe"),
        ("content-length", "0"),
        ("connection", "close"),
    ] {
        assert_eq!(check.all(name), [value], "{}", check.raw);
    }
    for node in &nodes {
        assert_eq!(node.broken(), Vec::<String>::new());
    }
}

#[test]
fn a_body_must_match_within_its_first_64_kib() {
    let late = format!("{}state: ok", "x".repeat(70_000));
    let nodes = [
        Origin::start(|_| Answer::chunks(&["all in order, sta", "te: ok\n"], wait::millis(20))),
        Origin::start(|_| Answer::ok("state: bad")),
        Origin::start(move |_| Answer::ok(late.clone())),
    ];
    let edge = Setup::new()
        .with("A", nodes[0].address)
        .with("B", nodes[1].address)
        .with("C", nodes[2].address)
        .start(
            "[upstream.app]\nendpoints = [\"@A@\", \"@B@\", \"@C@\"]\n\
             health_check = { type = \"http\", body = \"state: (ok|fine)\", interval = \"100ms\", unhealthy_after = 2 }\n\
             [[route]]\nupstream = \"app\"\n",
        );
    for node in &nodes[1..] {
        let line = reason(&edge, node.address);
        assert!(line.contains("body does not match"), "{line}");
    }
    wait::eventually("four checks", wait::SOON, || checks(&nodes[0]).len() >= 4);
    assert!(edge.is_healthy(nodes[0].address), "{}", edge.stderr());
}

#[test]
fn a_tls_check_wants_a_certificate_that_is_right() {
    let setup = Setup::new();
    let folder = setup.folder().to_owned();
    certs::write(&folder, "good", &["app.test"]);
    certs::write(&folder, "other", &["other.test"]);
    certs::write_expired(&folder, "old", &["app.test"]);
    let [good, other, old] = ["good", "other", "old"].map(|stem| TlsNode::start(&folder, stem));
    let edge = setup
        .with("A", good.address)
        .with("B", other.address)
        .with("C", old.address)
        .start(
            "[upstream.app]\nendpoints = [\"@A@\", \"@B@\", \"@C@\"]\n\
             tls = { ca = \"ca.pem\", server_name = \"app.test\" }\n\
             health_check = { type = \"tls\", interval = \"200ms\", unhealthy_after = 2, healthy_after = 1 }\n\
             [[route]]\nupstream = \"app\"\n",
        );
    let line = reason(&edge, other.address);
    assert!(
        line.contains("not for app.test (it has other.test)"),
        "{line}"
    );
    let line = reason(&edge, old.address);
    assert!(line.contains("certificate expired"), "{line}");
    assert!(edge.is_healthy(good.address), "{}", edge.stderr());
    for _ in 0..10 {
        assert_eq!(edge.get("/").expect(200).text(), "good");
    }
    old.show(&folder, "good");
    wait::eventually("the renewed one", wait::SOON, || {
        edge.is_healthy(old.address)
    });
    assert!(!edge.is_healthy(other.address));
}

#[test]
fn an_endpoint_may_have_to_pass_its_checks_first() {
    let gate = Gate::default();
    let held = gate.clone();
    let node = Origin::start(move |seen| match seen.target.as_str() {
        "/healthz" => Answer::ok("").when(&held),
        _ => Answer::ok("served"),
    });
    let edge = Setup::new().with("A", node.address).start(
        "[upstream.app]\nendpoints = [\"@A@\"]\n\
         health_check = { type = \"http\", path = \"/healthz\", start = \"unhealthy\", interval = \"200ms\", timeout = \"20s\", healthy_after = 3 }\n\
         [[route]]\nupstream = \"app\"\n",
    );
    assert!(!edge.is_healthy(node.address));
    assert!(edge.get("/").expect(503).field("retry-after").is_some());
    assert_eq!(node.count_of("/"), 0);
    gate.open();
    wait::eventually("service", wait::SOON, || edge.get("/").status == 200);
    assert!(node.count_of("/healthz") >= 3);
}

#[test]
fn an_endpoint_that_is_added_has_to_pass_its_checks_too() {
    let (old, _) = moody("old");
    let (new, sick) = moody("new");
    sick.store(true, Ordering::SeqCst);
    let list = |nodes: &[&Origin]| {
        let addresses: Vec<String> = nodes.iter().map(|node| node.address.to_string()).collect();
        format!("endpoints = {addresses:?}\n")
    };
    let setup = Setup::new().file("nodes.toml", list(&[&old]));
    let file = setup.folder().join("nodes.toml");
    let edge = setup.start(
        "[upstream.app]\ndiscovery = { file = \"nodes.toml\" }\n\
         health_check = { type = \"http\", path = \"/healthz\", start = \"unhealthy\", interval = \"100ms\", healthy_after = 2 }\n\
         [[route]]\nupstream = \"app\"\n",
    );
    wait::eventually("the first", wait::SOON, || edge.get("/").status == 200);
    std::fs::write(&file, list(&[&old, &new])).expect("write the list");
    wait::eventually("checks of the new one", wait::SOON, || {
        checks(&new).len() >= 3
    });
    for _ in 0..20 {
        assert_eq!(edge.get("/").expect(200).text(), "old");
    }
    sick.store(false, Ordering::SeqCst);
    wait::eventually("the new one", wait::SOON, || {
        edge.get("/").expect(200).text() == "new"
    });
}

#[test]
fn an_endpoint_that_is_out_is_checked_at_a_pace_of_its_own() {
    let (node, sick) = moody("a");
    sick.store(true, Ordering::SeqCst);
    let edge = Setup::new().with("A", node.address).start(
        "[upstream.app]\nendpoints = [\"@A@\"]\n\
         health_check = { type = \"http\", path = \"/healthz\", interval = \"5s\", down_interval = \"100ms\", unhealthy_after = 1, healthy_after = 1 }\n\
         [[route]]\nupstream = \"app\"\n",
    );
    wait::eventually("out", wait::SOON, || !edge.is_healthy(node.address));
    let before = checks(&node).len();
    wait::eventually("quick checks", wait::secs(3), || {
        checks(&node).len() >= before + 8
    });
    sick.store(false, Ordering::SeqCst);
    wait::eventually("back", wait::secs(3), || edge.is_healthy(node.address));
    let before = checks(&node).len();
    wait::always("slow checks", wait::secs(2), || {
        checks(&node).len() == before
    });
}

#[test]
fn upstreams_that_share_an_endpoint_and_its_check_share_the_probes() {
    let (node, sick) = moody("a");
    let edge = Setup::new().with("A", node.address).start(
        "[upstream.one]\nendpoints = [\"@A@\"]\n\
         health_check = { type = \"http\", path = \"/healthz\", interval = \"200ms\", unhealthy_after = 2 }\n\
         [upstream.two]\nendpoints = [\"@A@\"]\n\
         health_check = { type = \"http\", path = \"/healthz\", interval = \"200ms\", unhealthy_after = 3 }\n\
         [upstream.three]\nendpoints = [\"@A@\"]\n\
         health_check = { type = \"http\", path = \"/healthz?other\", interval = \"200ms\" }\n\
         [[route]]\nmatch = { path = \"/one\" }\nupstream = \"one\"\n\
         [[route]]\nmatch = { path = \"/two\" }\nupstream = \"two\"\n\
         [[route]]\nupstream = \"three\"\n",
    );
    let counts = || (node.count_of("/healthz"), node.count_of("/healthz?other"));
    wait::eventually("first checks", wait::SOON, || {
        counts().0 > 0 && counts().1 > 0
    });
    let before = counts();
    wait::hold(wait::secs(3));
    let after = counts();
    let (shared, own) = (after.0 - before.0, after.1 - before.1);
    // Fifteen to sixteen of each are due; twice as many if each upstream asked.
    assert!(
        (5..=20).contains(&shared),
        "{shared} shared checks beside {own}"
    );
    assert!(
        (5..=20).contains(&own),
        "{own} checks beside {shared} shared ones"
    );
    sick.store(true, Ordering::SeqCst);
    wait::eventually("every upstream to know", wait::SOON, || {
        edge.stderr().matches("endpoint is out of service").count() == 3
    });
    for upstream in ["one", "two", "three"] {
        let line = format!("upstream=\"{upstream}\"");
        edge.await_stderr(&line);
    }
    for path in ["/one", "/two", "/"] {
        edge.get(path).expect(503);
    }
}

#[test]
fn a_reload_goes_on_with_the_checks_that_are_there() {
    let (node, _) = moody("a");
    let toml = "[upstream.app]\nendpoints = [\"@A@\"]\n\
         health_check = { type = \"http\", path = \"/healthz\", interval = \"1s\" }\n\
         [[route]]\nupstream = \"app\"\n";
    let edge = Setup::new().with("A", node.address).start(toml);
    wait::eventually("a check", wait::SOON, || checks(&node).len() == 1);
    let began = wait::now();
    let mut reloads = 0;
    // Each would bring a check with it if it began anew; none may take one away.
    while began.elapsed() < wait::secs(4) {
        edge.rewrite(&format!("{toml}# {reloads}\n"));
        edge.reload(true);
        reloads += 1;
    }
    let (seen, due) = (checks(&node).len(), began.elapsed().as_secs());
    assert!(reloads > 10, "{reloads} reloads are too few to tell");
    let seen = u64::try_from(seen).expect("a few");
    assert!(
        (due - 1..=due + 3).contains(&seen),
        "{seen} checks in {due} s with {reloads} reloads"
    );
}
