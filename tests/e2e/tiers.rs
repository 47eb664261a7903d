//! Priorities, backups and zones: who is asked first, and who takes over how much.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use crate::support::{Answer, Ask, Edge, Origin, Setup, wait};

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// Answers requests whatever its check says, so that what is counted is the edge's choice.
struct Node {
    origin: Origin,
    sick: Arc<AtomicBool>,
}

impl Node {
    fn start(name: &'static str) -> Self {
        let sick = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&sick);
        let origin = Origin::start(move |seen| match seen.target.as_str() {
            "/healthz" if flag.load(Ordering::SeqCst) => Answer::new(500, "sick"),
            _ => Answer::ok(name),
        });
        Self { origin, sick }
    }

    /// Waits until the edge knows.
    #[track_caller]
    fn fall_ill(&self, edge: &Edge) {
        self.sick.store(true, Ordering::SeqCst);
        wait::eventually("the node to be out", wait::SOON, || {
            !edge.is_healthy(self.origin.address)
        });
    }

    #[track_caller]
    fn recover(&self, edge: &Edge) {
        self.sick.store(false, Ordering::SeqCst);
        wait::eventually("the node to be back", wait::SOON, || {
            edge.is_healthy(self.origin.address)
        });
    }
}

/// Four nodes behind an edge; `@A@` to `@D@` are their addresses.
struct Pool {
    nodes: [Node; 4],
    edge: Edge,
}

impl Pool {
    #[track_caller]
    fn start(before: &str, upstream: &str) -> Self {
        let nodes = NAMES.map(Node::start);
        let mut setup = Setup::new();
        for (node, name) in nodes.iter().zip(NAMES) {
            setup = setup.with(&name.to_uppercase(), node.origin.address);
        }
        let edge = setup.start(&format!(
            "{before}\n[upstream.app]\n{upstream}\n\
             health_check = {{ type = \"http\", path = \"/healthz\", interval = \"100ms\", timeout = \"2s\", unhealthy_after = 1, healthy_after = 1 }}\n\
             [[route]]\nupstream = \"app\"\n"
        ));
        Self { nodes, edge }
    }

    #[track_caller]
    fn fall_ill(&self, nth: usize) {
        self.nodes[nth].fall_ill(&self.edge);
    }

    #[track_caller]
    fn recover(&self, nth: usize) {
        self.nodes[nth].recover(&self.edge);
    }

    /// Who answered how often.
    #[track_caller]
    fn tally(&self, count: usize) -> BTreeMap<String, usize> {
        let mut conn = self.edge.plain();
        let mut tally = BTreeMap::new();
        for _ in 0..count {
            let node = conn.ask(&Ask::get("/")).expect(200).text();
            *tally.entry(node).or_default() += 1;
        }
        tally
    }

    /// The names of those who answered.
    #[track_caller]
    fn answering(&self, count: usize) -> String {
        self.tally(count).into_keys().collect()
    }
}

/// Whether `got` of 400 is the share `due`: within five standard deviations.
#[track_caller]
fn expect_share(got: Option<&usize>, due: f64) {
    let got = *got.unwrap_or(&0) as f64;
    let deviation = (400.0 * due * (1.0 - due)).sqrt();
    assert!(
        (got - 400.0 * due).abs() <= 5.0 * deviation,
        "{got} of 400 instead of {:.0}",
        400.0 * due
    );
}

#[test]
fn a_priority_hands_on_what_it_cannot_bear() {
    let pool = Pool::start(
        "",
        "endpoints = [\"@A@\", \"@B@\", { address = \"@C@\", priority = 1 }, { address = \"@D@\", backup = true }]\n\
         balance = \"round_robin\"\noverflow_below = \"80%\"",
    );
    assert_eq!(pool.answering(60), "ab");
    pool.fall_ill(1);
    // Half of it is in service, and 80 % are wanted: five eighths stay.
    let tally = pool.tally(400);
    expect_share(tally.get("a"), 0.625);
    expect_share(tally.get("c"), 0.375);
    pool.fall_ill(0);
    assert_eq!(pool.answering(60), "c");
    pool.fall_ill(2);
    assert_eq!(pool.answering(60), "d");
    pool.recover(0);
    pool.recover(1);
    assert_eq!(pool.answering(60), "ab");
}

#[test]
fn without_a_threshold_the_last_one_of_a_priority_bears_it_all() {
    let pool = Pool::start(
        "",
        "endpoints = [\"@A@\", \"@B@\", { address = \"@C@\", priority = 3 }, { address = \"@D@\", backup = true }]",
    );
    pool.fall_ill(0);
    assert_eq!(pool.answering(60), "b");
    pool.fall_ill(1);
    assert_eq!(pool.answering(60), "c");
    pool.fall_ill(2);
    assert_eq!(pool.answering(60), "d");
    pool.recover(1);
    assert_eq!(pool.answering(60), "b");
}

#[test]
fn requests_stay_in_the_own_zone_as_far_as_it_bears_them() {
    let pool = Pool::start(
        "[server]\nworkers = 2\nzone = \"near\"",
        "endpoints = [{ address = \"@A@\", zone = \"near\" }, { address = \"@B@\", zone = \"near\" }, \
         { address = \"@C@\", zone = \"far\" }, \"@D@\"]\nbalance = \"round_robin\"",
    );
    assert_eq!(pool.answering(60), "ab");
    pool.fall_ill(0);
    // Half of it is in service, and 70 % are wanted: five sevenths stay.
    let tally = pool.tally(400);
    expect_share(tally.get("b"), 50.0 / 70.0);
    expect_share(tally.get("c"), 10.0 / 70.0);
    expect_share(tally.get("d"), 10.0 / 70.0);
    pool.fall_ill(1);
    assert_eq!(pool.answering(60), "cd");
    pool.recover(0);
    pool.recover(1);
    assert_eq!(pool.answering(60), "ab");
}

#[test]
fn a_zone_of_a_lower_priority_waits_for_its_priority() {
    let pool = Pool::start(
        "[server]\nworkers = 2\nzone = \"near\"",
        "endpoints = [{ address = \"@A@\", zone = \"far\" }, { address = \"@B@\", zone = \"near\", priority = 1 }, \
         { address = \"@C@\", zone = \"far\", priority = 1 }, { address = \"@D@\", zone = \"near\", backup = true }]",
    );
    assert_eq!(pool.answering(60), "a");
    pool.fall_ill(0);
    assert_eq!(pool.answering(60), "b");
}

#[test]
fn when_nearly_all_look_dead_health_is_ignored_but_not_what_was_drained() {
    let pool = Pool::start(
        "",
        "endpoints = [\"@A@\", \"@B@\", \"@C@\", \"@D@\"]\nbalance = \"round_robin\"\npanic_threshold = \"50%\"",
    );
    let panic = "tidegate_upstream_panic{upstream=\"app\"}";
    let drained = pool.nodes[3].origin.address;
    let change = format!("/upstreams/change?upstream=app&endpoint={drained}&mode=drain");
    assert_eq!(pool.edge.command(&change).status, 200);
    pool.fall_ill(0);
    assert_eq!(pool.answering(60), "bc", "two of three are enough");
    assert_eq!(pool.edge.metric(panic), 0.0);
    pool.fall_ill(1);
    wait::eventually("panic", wait::SOON, || pool.edge.metric(panic) == 1.0);
    assert_eq!(pool.answering(60), "abc");
    assert_eq!(pool.edge.json("/upstreams")[0]["panic"], true);
    assert!(
        !pool.edge.is_healthy(pool.nodes[0].origin.address),
        "what the checks say is still shown"
    );
    await_event(
        &pool.edge,
        &["health is ignored", "in_service=1", "endpoints=3"],
    );

    pool.recover(0);
    wait::eventually("no panic", wait::SOON, || pool.edge.metric(panic) == 0.0);
    assert_eq!(pool.answering(60), "ac");
    await_event(&pool.edge, &["in service again", "in_service=2"]);
    assert_eq!(pool.edge.stderr().matches("health is ignored").count(), 1);
}

#[test]
fn the_share_of_one_that_comes_back_grows() {
    let pool = Pool::start(
        "",
        "endpoints = [\"@A@\", \"@B@\"]\nbalance = \"round_robin\"\nslow_start = \"8s\"",
    );
    let percent = || {
        let endpoint: &Value = &pool.edge.json("/upstreams")[0]["endpoints"][0];
        endpoint["slow_start_percent"].as_u64().expect("a number")
    };
    assert_eq!(percent(), 100, "a start is no return");
    assert_eq!(pool.tally(40)["a"], 20);
    pool.fall_ill(0);
    assert_eq!(pool.answering(20), "b");
    pool.recover(0);

    let (mut early, mut of) = (0, 0);
    let mut last = 0;
    wait::eventually("the whole share", wait::secs(20), || {
        let before = percent();
        assert!(before >= last, "it fell from {last} to {before} percent");
        let tally = pool.tally(20);
        last = percent();
        if last <= 40 {
            early += tally.get("a").copied().unwrap_or(0);
            of += 20;
        }
        last == 100
    });
    assert!(of >= 40, "it was there after {of} requests");
    // With 40 % of its weight it is due 4 of 14.
    assert!(early * 3 < of, "{early} of {of} requests at its beginning");
    assert!(early > 0, "nothing at all of {of}");
    assert_eq!(pool.tally(40)["a"], 20);
}

/// A line of the event log with all of these words.
#[track_caller]
fn await_event(edge: &Edge, words: &[&str]) {
    wait::eventually(&format!("a line with {words:?}"), wait::SOON, || {
        let log = edge.stderr();
        log.lines()
            .any(|line| words.iter().all(|word| line.contains(word)))
    });
}
