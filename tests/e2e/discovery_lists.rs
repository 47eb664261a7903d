//! Endpoints from a file or a URL: what is listed is followed, what is wrong changes nothing.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::edge::binary;
use crate::support::tools::{Finished, run};
use crate::support::{Answer, Edge, Origin, Setup, ports, wait};

const FAILED: &str = "endpoints cannot be looked up";
const AGAIN: &str = "endpoints are known again";
const AGE: &str = "tidegate_upstream_discovery_age_seconds{upstream=\"app\"}";
const FAILURES: &str = "tidegate_upstream_discovery_failures_total{upstream=\"app\"}";
/// A file is looked at once a second; the rest is for a busy machine.
const SEEN: Duration = Duration::from_secs(4);

fn upstream(discovery: &str) -> String {
    format!(
        "[upstream.app]\ndiscovery = {discovery}\nbalance = \"round_robin\"\n\
         [[route]]\nupstream = \"app\"\n"
    )
}

fn nodes() -> [Origin; 3] {
    ["a", "b", "c"].map(Origin::named)
}

/// A list in TOML, which is one in JSON after its first word.
fn list(nodes: &[&Origin]) -> String {
    let addresses: Vec<String> = nodes.iter().map(|node| node.address.to_string()).collect();
    format!("endpoints = {addresses:?}\n")
}

fn json(nodes: &[&Origin]) -> String {
    list(nodes).replace("endpoints = ", "")
}

fn replace(path: &Path, text: &str) {
    let fresh = path.with_extension("new");
    std::fs::write(&fresh, text).expect("write the list");
    std::fs::rename(&fresh, path).expect("put it in place");
}

/// The line of the log that tells the newest failure, once there are so many.
#[track_caller]
fn failure(edge: &Edge, count: usize) -> String {
    wait::until("the failure in the log", wait::SOON, || {
        let log = edge.stderr();
        let lines: Vec<&str> = log.lines().filter(|line| line.contains(FAILED)).collect();
        assert!(lines.len() <= count, "each is told once: {log}");
        (lines.len() == count).then(|| lines[count - 1].to_owned())
    })
}

#[track_caller]
fn says(line: &str, words: &[&str]) {
    for word in words {
        assert!(line.contains(word), "no {word:?} in {line}");
    }
}

fn once(setup: &Setup, toml: &str, command: &[&str]) -> Finished {
    let path = setup.write(toml);
    run(Command::new(binary()).args(command).arg(path), wait::SOON)
}

#[test]
fn a_file_is_followed_and_a_broken_or_deleted_one_changes_nothing() {
    let [a, b, c] = nodes();
    let setup = Setup::new().file("nodes.toml", list(&[&a]));
    let file = setup.folder().join("nodes.toml");
    let edge = setup.start(&upstream("{ file = \"nodes.toml\" }"));
    assert_eq!(edge.answering(), ["a"]);
    replace(&file, &list(&[&a, &b]));
    edge.await_answering(&["a", "b"], SEEN);
    assert_eq!(edge.metric(FAILURES), 0.0);

    replace(
        &file,
        "# nodes\nendpoints = [\n  \"10.0.0.1:80\",\n  \"no port\",\n]\n",
    );
    says(
        &failure(&edge, 1),
        &["nodes.toml", "bad_document", "line 4", "no port"],
    );
    edge.await_metric(FAILURES, 2.0);
    edge.await_metric(AGE, 2.0);
    assert_eq!(edge.answering(), ["a", "b"]);

    // A reload meanwhile is refused like a start would be, and changes nothing either.
    let file_list = upstream("{ file = \"nodes.toml\" }");
    edge.rewrite(&file_list.replace("balance =", "read_timeout = \"29s\"\nbalance ="));
    edge.reload(false);
    assert_eq!(edge.answering(), ["a", "b"]);
    replace(&file, &list(&[&a, &b]));
    edge.reload(true);
    wait::eventually("both", wait::SOON, || edge.answering() == ["a", "b"]);

    // Written in place, by somebody who is slow.
    let whole = list(&[&b, &c]);
    std::fs::write(&file, &whole[..whole.len() / 2]).expect("write a half");
    wait::eventually("the half in the log", wait::SOON, || {
        edge.stderr().matches(FAILED).count() >= 2
    });
    wait::always("the last known", wait::millis(1200), || {
        edge.answering() == ["a", "b"]
    });
    std::fs::write(&file, &whole).expect("write the whole");
    edge.await_answering(&["b", "c"], SEEN);
    wait::eventually("said so", wait::SOON, || edge.stderr().contains(AGAIN));

    std::fs::remove_file(&file).expect("delete it");
    wait::eventually("the loss in the log", wait::SOON, || {
        edge.stderr().contains("kind=\"not_found\"")
    });
    assert_eq!(edge.answering(), ["b", "c"]);
    replace(&file, &list(&[&c]));
    edge.await_answering(&["c"], SEEN);
    wait::eventually("a young age", wait::SOON, || edge.metric(AGE) < 2.0);
}

#[test]
fn what_a_list_says_of_an_endpoint_counts() {
    let [a, b, c] = nodes();
    let setup = Setup::new().file(
        "nodes.json",
        format!(
            r#"{{ "endpoints": ["{}", {{ "address": "localhost:{}", "weight": 3 }}, {{ "address": "{}", "backup": true, "zone": "far" }}] }}"#,
            a.address,
            b.address.port(),
            c.address
        ),
    );
    let edge = setup.start(&upstream("{ file = \"nodes.json\" }"));
    let expected = BTreeMap::from([("a".to_owned(), 10), ("b".to_owned(), 30)]);
    assert_eq!(edge.tally(40), expected);
    let shown = edge.json("/upstreams")[0]["endpoints"].clone();
    let shown = shown.as_array().expect("a list");
    let far = shown.iter().find(|one| one["zone"] == "far");
    assert_eq!(far.expect("the third")["backup"], true, "{shown:?}");
    let name = format!("localhost:{}", b.address.port());
    assert!(
        shown.iter().any(|one| one["name"] == name.as_str()),
        "{shown:?}"
    );
}

#[test]
fn listed_endpoints_stand_beside_configured_ones_and_may_be_none() {
    let [a, b, _] = nodes();
    let setup = Setup::new()
        .with("A", a.address)
        .file("nodes.toml", list(&[&b]));
    let file = setup.folder().join("nodes.toml");
    let edge = setup.start(&upstream(
        "{ file = \"nodes.toml\" }\nendpoints = [\"@A@\"]",
    ));
    assert_eq!(edge.answering(), ["a", "b"]);
    replace(&file, "endpoints = []\n");
    edge.await_answering(&["a"], SEEN);
    assert_eq!(edge.metric(FAILURES), 0.0);
}

#[test]
fn a_list_that_cannot_be_used_is_an_error_at_the_start_and_in_a_check() {
    let setup = Setup::new()
        .file(
            "broken.toml",
            "endpoints = [\n  \"10.0.0.1:80\"\n  \"10.0.0.2:80\"\n]\n",
        )
        .file(
            "broken.json",
            "[\"10.0.0.1:80\",\n{\"address\": \"10.0.0.2:80\", \"wieght\": 2}]",
        )
        .file("twice.json", "[\"10.0.0.1:80\", \"10.0.0.1:80\"]")
        .file("empty.json", "[]")
        .file("nodes.txt", "10.0.0.1:80");
    for (file, words) in [
        ("broken.toml", &["broken.toml", "line 3"][..]),
        ("broken.json", &["broken.json", "wieght", "weight"]),
        ("twice.json", &["twice.json", "10.0.0.1:80"]),
        ("empty.json", &["empty.json", "no endpoint"]),
        ("missing.toml", &["missing.toml"]),
        ("nodes.txt", &["nodes.txt", ".toml", ".json"]),
    ] {
        let toml = upstream(&format!("{{ file = \"{file}\" }}"));
        for command in [&["run", "--config"][..], &["check"]] {
            let said = once(&setup, &toml, command);
            assert_eq!(said.code, Some(2), "{file}: {said:?}");
            says(&said.stderr, words);
        }
    }
}

#[test]
fn a_check_names_keys_of_discovery_that_are_wrong() {
    let setup = Setup::new().file("nodes.toml", "endpoints = [\"10.0.0.1:80\"]\n");
    let file = "{ file = \"nodes.toml\" }";
    for (keys, words) in [
        (upstream("{}"), &["file", "url"][..]),
        (
            upstream("{ file = \"nodes.toml\", url = \"http://10.0.0.1/\" }"),
            &["file", "url"],
        ),
        (
            upstream("{ file = \"nodes.toml\", every = \"5s\" }"),
            &["every", "polled"],
        ),
        (upstream("{ url = \"ftp://10.0.0.1/\" }"), &["ftp", "http"]),
        (
            upstream(&format!("{file}\nresolve = {{ servers = [\"ns.test\"] }}")),
            &["ns.test"],
        ),
        (
            upstream(&format!("{file}\nresolve = {{ family = \"v4\" }}")),
            &["v4", "ipv4"],
        ),
        (
            upstream("0").replace(
                "discovery = 0",
                "endpoints = [\"10.0.0.1:80\"]\nresolve = { every = \"5s\" }",
            ),
            &["resolve"],
        ),
        (
            upstream("0").replace(
                "discovery = 0",
                "endpoints = [{ srv = \"_http._tcp.app.test\", address = \"10.0.0.1:80\" }]",
            ),
            &["srv", "address"],
        ),
    ] {
        let said = once(&setup, &keys, &["check"]);
        assert_eq!(said.code, Some(2), "{keys}: {said:?}");
        says(&said.stderr, words);
        says(&said.stderr, &["tidegate.toml:", "^"]);
    }
}

/// What a list server sends, and how often it sent each status.
#[derive(Clone, Default)]
struct Listing(Arc<Mutex<(String, BTreeMap<u16, usize>)>>);

impl Listing {
    fn set(&self, text: &str) {
        self.0.lock().expect("no panic").0 = text.to_owned();
    }

    fn sent(&self, status: u16) -> usize {
        let held = self.0.lock().expect("no panic");
        held.1.get(&status).copied().unwrap_or(0)
    }

    /// With an ETag that goes with the text.
    fn serve(&self, address: SocketAddr) -> Origin {
        let listing = self.clone();
        Origin::start_at(address, move |seen| {
            let mut held = listing.0.lock().expect("no panic");
            let etag = format!(
                "\"{}-{}\"",
                held.0.len(),
                held.0.bytes().map(u64::from).sum::<u64>()
            );
            let answer = match (seen.field("if-none-match") == Some(&etag), held.0.as_str()) {
                (_, "500") => Answer::new(500, "out of order"),
                (true, _) => Answer::new(304, ""),
                (false, text) => Answer::ok(text).field("Content-Type", "application/json"),
            };
            let status = answer.status();
            *held.1.entry(status).or_default() += 1;
            answer.field("ETag", &etag)
        })
    }
}

#[test]
fn a_url_is_asked_again_and_again_by_its_etag() {
    let [a, b, c] = nodes();
    let listing = Listing::default();
    listing.set(&json(&[&a]));
    let mut server = listing.serve(ports::free());
    let edge = Setup::new().with("LIST", server.address).start(&upstream(
        "{ url = \"http://@LIST@/v1/app?token=hidden\", every = \"200ms\", timeout = \"500ms\" }",
    ));
    assert_eq!(edge.answering(), ["a"]);
    wait::eventually("three polls", wait::SOON, || listing.sent(304) >= 3);
    assert_eq!(
        listing.sent(200),
        1,
        "what did not change is not sent again"
    );
    let poll = server.last();
    assert_eq!(poll.target, "/v1/app?token=hidden");
    assert_eq!(poll.field("accept"), Some("application/json"));
    assert!(poll.field("if-none-match").is_some(), "{}", poll.raw);

    listing.set(&json(&[&a, &b]));
    edge.await_answering(&["a", "b"], SEEN);

    let polls = server.count();
    server.down();
    says(&failure(&edge, 1), &["/v1/app", "refused"]);
    edge.await_metric(FAILURES, 3.0);
    edge.await_metric(AGE, 1.5);
    assert_eq!(edge.answering(), ["a", "b"]);
    assert_eq!(server.count(), polls);
    edge.rewrite(
        &upstream("{ url = \"http://@LIST@/v1/app?token=hidden\", every = \"200ms\", timeout = \"500ms\" }")
            .replace("round_robin", "least_request"),
    );
    edge.reload(true);
    assert!(!edge.tally(12).is_empty(), "a reload without the server");

    listing.set(&json(&[&b, &c]));
    server.up();
    edge.await_answering(&["b", "c"], SEEN);
    wait::eventually("a young age", wait::SOON, || edge.metric(AGE) < 1.5);

    let known = edge.stderr().matches(AGAIN).count();
    listing.set("[\n\"10.0.0.1:80\",\n");
    wait::eventually("the bad list in the log", wait::SOON, || {
        edge.stderr().contains("kind=\"bad_document\"")
    });
    assert_eq!(edge.answering(), ["b", "c"]);
    let log = edge.stderr();
    let line = log.lines().find(|line| line.contains("bad_document"));
    says(line.expect("the line"), &["/v1/app", "line 3"]);
    listing.set("500");
    wait::eventually("the status in the log", wait::SOON, || {
        edge.stderr().contains("kind=\"http_status\"")
    });
    assert_eq!(edge.answering(), ["b", "c"]);
    listing.set(&json(&[&c]));
    edge.await_answering(&["c"], SEEN);
    wait::eventually("said so", wait::SOON, || {
        edge.stderr().matches(AGAIN).count() == known + 1
    });
    assert!(
        !edge.stderr().contains("hidden"),
        "a query may hold a token"
    );
    assert_eq!(server.broken(), Vec::<String>::new());
}

#[test]
fn a_list_server_that_is_down_holds_up_no_start_and_a_wrong_one_does() {
    let [a, ..] = nodes();
    let listing = Listing::default();
    listing.set("{\"nodes\": []}");
    let mut server = listing.serve(ports::free());
    let toml = upstream("{ url = \"http://@LIST@/app\", every = \"200ms\" }");
    let setup = Setup::new().with("LIST", server.address);
    for command in [&["run", "--config"][..], &["check"]] {
        let said = once(&setup, &toml, command);
        assert_eq!(said.code, Some(2), "{said:?}");
        let url = format!("http://{}/app", server.address);
        says(&said.stderr, &["\"app\"", &url, "unknown key `nodes`"]);
    }
    server.down();
    let edge = setup.start(&toml);
    edge.get("/").expect(503);
    listing.set(&json(&[&a]));
    server.up();
    wait::eventually("the endpoint", wait::SOON, || edge.get("/").status == 200);
    assert_eq!(edge.answering(), ["a"]);
}

#[test]
fn a_list_comes_over_tls_from_whom_the_system_trusts() {
    let [a, ..] = nodes();
    let text = json(&[&a]).trim().to_owned();
    let server = Setup::new().with("LIST", &text).start(
        "[[route]]\nrespond = { body = '''@LIST@''', content_type = \"application/json\" }\n",
    );
    let toml = upstream("{ url = \"https://@SERVER@/app\", every = \"200ms\" }");
    let setup = Setup::new().with("SERVER", server.https());
    let authority = setup.folder().join("ca.pem").display().to_string();
    let edge = setup.env("SSL_CERT_FILE", &authority).start(&toml);
    assert_eq!(edge.answering(), ["a"]);

    // Nobody vouches for it here: trouble that may pass, and nothing is taken.
    let setup = Setup::new().with("SERVER", server.https());
    let edge = setup.start(&toml);
    edge.get("/").expect(503);
    says(&failure(&edge, 1), &["tls", "certificate"]);
}
