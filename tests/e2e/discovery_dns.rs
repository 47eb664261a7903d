//! Endpoints that are names: what becomes of requests when the DNS changes, is silent or is gone.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::thread;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::dns::{Dns, hosts};
use crate::support::edge::binary;
use crate::support::tools::{Finished, run};
use crate::support::{Answer, Ask, Edge, Gate, Origin, Setup, ports, wait};

const FAILED: &str = "endpoints cannot be looked up";
const AGE: &str = "tidegate_upstream_discovery_age_seconds{upstream=\"app\"}";
const FAILURES: &str = "tidegate_upstream_discovery_failures_total{upstream=\"app\"}";
const TWO: [&str; 2] = ["127.0.0.2", "127.0.0.3"];
const THREE: [&str; 3] = ["127.0.0.2", "127.0.0.3", "127.0.0.4"];

/// `app.test` with `every` and further keys, on `@PORT@`.
fn upstream(every: &str, keys: &str) -> String {
    format!(
        "[upstream.app]\n\
         endpoints = [\"app.test:@PORT@\"]\n\
         resolve = {{ servers = [\"@DNS@\"], every = \"{every}\" }}\n\
         balance = \"round_robin\"\n{keys}\n\
         [[route]]\nupstream = \"app\"\n"
    )
}

fn app(addresses: &[&str]) -> String {
    hosts("app.test", addresses)
}

/// A node that answers with its address, but 500 on `/fail`.
fn node(ip: &'static str, port: u16) -> Origin {
    Origin::start_at(at(ip, port), move |seen| match seen.target.as_str() {
        "/fail" => Answer::new(500, ip),
        _ => Answer::ok(ip),
    })
}

fn at(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().expect("an address"), port)
}

fn setup(port: u16, dns: SocketAddr) -> Setup {
    Setup::new().with("PORT", port).with("DNS", dns)
}

fn endpoints(edge: &Edge) -> Vec<Value> {
    let upstreams = edge.json("/upstreams");
    upstreams[0]["endpoints"]
        .as_array()
        .expect("a list")
        .clone()
}

fn count_in_log(edge: &Edge, words: &str) -> usize {
    edge.stderr().matches(words).count()
}

fn once(setup: &Setup, toml: &str, command: &[&str]) -> Finished {
    let path = setup.write(toml);
    run(
        Command::new(binary()).args(command).arg(path),
        wait::secs(20),
    )
}

#[test]
fn traffic_follows_a_name_and_nodes_that_stay_keep_what_is_known_of_them() {
    let port = ports::free().port();
    let Some(dns) = Dns::start(&app(&TWO), &[]) else {
        return;
    };
    let gate = Gate::default();
    let held = gate.clone();
    let two = Origin::start_at(at(TWO[0], port), move |seen| match seen.target.as_str() {
        "/hold" => Answer::ok(TWO[0]).when(&held),
        _ => Answer::ok(TWO[0]),
    });
    let three = node(THREE[1], port);
    let _four = node(THREE[2], port);
    // `every` alone would let a change be seen after half a minute.
    let edge = setup(port, dns.address).start(&upstream(
        "30s",
        "outlier_detection = { consecutive_errors = 2, ejection_time = \"120s\" }",
    ));
    assert_eq!(edge.tally(20)[TWO[0]], 10);
    wait::eventually("an ejection", wait::SOON, || {
        edge.get("/fail");
        edge.metric("tidegate_upstream_ejections_total") == 1.0
    });
    assert_eq!(edge.answering(), [TWO[0]]);
    let served = format!("tidegate_upstream_requests_total{{endpoint=\"127.0.0.2:{port}\"}}");
    let (before, ejected_had) = (edge.metric(&served), three.count());

    dns.answer(&app(&THREE));
    edge.await_answering(&[TWO[0], THREE[2]], wait::secs(6));
    assert_eq!(
        three.count(),
        ejected_had,
        "it was ejected before the change"
    );
    assert_eq!(endpoints(&edge)[1]["health"], "ejected");
    assert_eq!(endpoints(&edge)[1]["ejections"], 1);
    assert!(edge.metric(&served) > before, "counters go on");

    // One that goes finishes what it has.
    thread::scope(|scope| {
        let mut clients = Vec::new();
        while two.count_of("/hold") == 0 {
            clients.push(scope.spawn(|| edge.get("/hold").expect(200).text()));
            wait::hold(wait::millis(50));
        }
        dns.answer(&app(&THREE[2..]));
        edge.await_answering(&THREE[2..], wait::secs(6));
        gate.open();
        let answers: Vec<String> = clients
            .into_iter()
            .map(|c| c.join().expect("no panic"))
            .collect();
        assert!(answers.contains(&TWO[0].to_owned()), "{answers:?}");
    });
    let shown = endpoints(&edge);
    assert_eq!(shown.len(), 1, "{shown:?}");
    assert_eq!(shown[0]["name"], format!("app.test:{port}"));
    assert_eq!(shown[0]["address"], format!("127.0.0.4:{port}"));
    let (seen, gone) = (two.count(), edge.stderr());
    assert_eq!(edge.tally(20)[THREE[2]], 20);
    assert_eq!(two.count(), seen);
    assert!(gone.contains("endpoints changed"), "{gone}");
    assert!(!gone.contains(FAILED), "{gone}");
}

#[test]
fn a_long_ttl_is_cut_short_by_every() {
    let port = ports::free().port();
    let options = ["--local-ttl=3600".to_owned()];
    let Some(dns) = Dns::start(&app(&TWO[..1]), &options) else {
        return;
    };
    let _nodes = TWO.map(|ip| node(ip, port));
    let edge = setup(port, dns.address).start(&upstream("1s", ""));
    assert_eq!(edge.answering(), TWO[..1]);
    dns.answer(&app(&TWO));
    edge.await_answering(&TWO, wait::secs(6));
}

#[test]
fn a_name_with_an_address_of_each_family_is_one_endpoint_that_either_answers_for() {
    if TcpListener::bind("[::1]:0").is_err() {
        let _ = writeln!(std::io::stderr(), "SKIPPED: this machine has no IPv6");
        return;
    }
    let port = ports::free().port();
    let Some(dns) = Dns::start(&app(&["127.0.0.1", "::1"]), &[]) else {
        return;
    };
    let mut six = node("::1", port);
    let mut four = node("127.0.0.1", port);
    four.down();
    let edge = setup(port, dns.address).start(&upstream("30s", ""));
    let one = |edge: &Edge| {
        let shown = endpoints(edge);
        assert_eq!(shown.len(), 1, "{shown:?}");
        assert_eq!(shown[0]["name"], format!("app.test:{port}"));
    };
    one(&edge);
    assert_eq!(edge.answering(), ["::1"]);
    four.up();
    six.down();
    assert_eq!(edge.answering(), ["127.0.0.1"]);
    one(&edge);
    six.up();
    four.down();
    assert_eq!(edge.answering(), ["::1"]);
}

#[test]
fn priorities_and_weights_of_srv_records_are_kept() {
    let port = ports::free().port();
    let record = |host: &str, priority: u16, weight: u16| {
        format!("--srv-host=_http._tcp.app.test,{host}.test,{port},{priority},{weight}")
    };
    let records = |two, three| {
        vec![
            record("two", 10, two),
            record("three", 10, three),
            record("four", 20, 1),
        ]
    };
    let names: String = ["two", "three", "four"]
        .iter()
        .zip(THREE)
        .map(|(name, ip)| hosts(&format!("{name}.test"), &[ip]))
        .collect();
    let Some(mut dns) = Dns::start(&names, &records(30, 10)) else {
        return;
    };
    let mut nodes = THREE.map(|ip| node(ip, port));
    let edge = setup(port, dns.address).start(
        &upstream(
            "1s",
            "health_check = { type = \"tcp\", interval = \"100ms\", unhealthy_after = 1, healthy_after = 1 }",
        )
        .replace("\"app.test:@PORT@\"", "{ srv = \"_http._tcp.app.test\" }"),
    );
    let shares = |two: usize, three: usize| {
        BTreeMap::from([(THREE[0].to_owned(), two), (THREE[1].to_owned(), three)])
    };
    assert_eq!(edge.tally(40), shares(30, 10));
    let shown = endpoints(&edge);
    let field = |name: &str| -> Vec<Value> { shown.iter().map(|one| one[name].clone()).collect() };
    assert_eq!(field("priority"), [0, 0, 1]);
    assert_eq!(field("name")[0], format!("two.test:{port}"));

    dns.down();
    dns.options = records(10, 10);
    dns.up();
    wait::eventually("other weights", wait::SOON, || {
        edge.tally(40) == shares(20, 20)
    });

    nodes[0].down();
    nodes[1].down();
    let in_service = "tidegate_upstream_endpoints_in_service";
    wait::eventually("both out", wait::SOON, || edge.metric(in_service) == 1.0);
    assert_eq!(edge.answering(), THREE[2..]);
    nodes[1].up();
    wait::eventually("the first again", wait::SOON, || {
        edge.answering() == THREE[1..2]
    });
}

#[test]
fn endpoints_outlive_their_dns_server_and_a_reload() {
    let port = ports::free().port();
    let Some(mut dns) = Dns::start(&app(&TWO), &[]) else {
        return;
    };
    let _nodes = THREE.map(|ip| node(ip, port));
    let edge = setup(port, dns.address).start(&upstream("1s", ""));
    assert_eq!(edge.answering(), TWO);
    assert!(edge.metric(AGE) < 4.0, "{}", edge.metric(AGE));
    assert_eq!(edge.metric(FAILURES), 0.0);

    dns.down();
    // Nobody listens, but a question by UDP is only given up after its time.
    wait::eventually("two failures", wait::secs(30), || {
        edge.metric(FAILURES) >= 2.0
    });
    edge.await_metric(AGE, 4.0);
    assert_eq!(edge.answering(), TWO);
    assert_eq!(count_in_log(&edge, FAILED), 1, "{}", edge.stderr());
    let line = edge.stderr();
    let line = line
        .lines()
        .find(|line| line.contains(FAILED))
        .expect("a line")
        .to_owned();
    for word in ["app.test", &dns.address.to_string(), "resolve"] {
        assert!(line.contains(word), "{word} in {line}");
    }

    // A reload that leaves the look-up alone keeps them; one that needs another is refused.
    edge.rewrite(&upstream("1s", "slow_start = \"1s\""));
    edge.reload(true);
    assert_eq!(edge.answering(), TWO);
    let age = edge.metric(AGE);
    assert!(age >= 4.0, "a reload is no look-up: {age}");
    edge.rewrite(&upstream("2s", ""));
    edge.reload(false);
    assert_eq!(edge.answering(), TWO);

    dns.answer(&app(&THREE[2..]));
    dns.up();
    edge.await_answering(&THREE[2..], wait::secs(6));
    wait::eventually("a young age", wait::SOON, || edge.metric(AGE) < 3.0);
    wait::eventually("said so", wait::SOON, || {
        count_in_log(&edge, "endpoints are known again") == 1
    });
}

#[test]
fn a_name_that_vanishes_and_a_server_that_is_silent_change_nothing() {
    let port = ports::free().port();
    let Some(dns) = Dns::start(&app(&TWO), &[]) else {
        return;
    };
    let _nodes = TWO.map(|ip| node(ip, port));
    let edge = setup(port, dns.address).start(&upstream("1s", ""));
    assert_eq!(edge.answering(), TWO);
    dns.answer("");
    edge.await_metric(FAILURES, 2.0);
    edge.await_stderr("NXDOMAIN");
    assert_eq!(edge.answering(), TWO);
    dns.freeze();
    wait::eventually("the timeout in the log", wait::secs(20), || {
        edge.stderr().contains("kind=\"timeout\"")
    });
    let asked = wait::now();
    assert_eq!(edge.answering(), TWO);
    assert!(
        asked.elapsed() < wait::secs(2),
        "requests do not wait for the DNS"
    );
    assert_eq!(count_in_log(&edge, FAILED), 2, "{}", edge.stderr());
    dns.answer(&app(&TWO[1..]));
    dns.thaw();
    edge.await_answering(&TWO[1..], wait::secs(6));
}

#[test]
fn the_end_does_not_wait_for_a_reload_that_waits_for_the_dns() {
    let port = ports::free().port();
    let Some(dns) = Dns::start(&app(&TWO), &[]) else {
        return;
    };
    let _nodes = TWO.map(|ip| node(ip, port));
    let mut edge = setup(port, dns.address).start(&upstream("60s", ""));
    assert_eq!(edge.answering(), TWO);
    dns.freeze();
    edge.rewrite(&upstream("59s", ""));
    edge.signal(Signal::SIGHUP);
    // It cannot be seen from outside that the reload has begun to wait: give it a moment.
    wait::hold(wait::millis(300));
    let told = wait::now();
    edge.signal(Signal::SIGTERM);
    assert_eq!(edge.wait(wait::SOON), Some(0), "{}", edge.stderr());
    assert!(told.elapsed() < wait::secs(2), "{:?}", told.elapsed());
    dns.thaw();
}

#[test]
fn a_name_that_does_not_exist_is_an_error_at_the_start() {
    let Some(dns) = Dns::start("", &[]) else {
        return;
    };
    let setup = setup(ports::free().port(), dns.address);
    let srv = "{ srv = \"_http._tcp.app.test\" }";
    for (endpoint, name) in [
        ("\"nowhere.test:@PORT@\"", "nowhere.test"),
        (srv, "_http._tcp.app.test"),
    ] {
        let toml = upstream("30s", "").replace("\"app.test:@PORT@\"", endpoint);
        for command in [&["run", "--config"][..], &["check"]] {
            let said = once(&setup, &toml, command);
            assert_eq!(said.code, Some(2), "{command:?}: {said:?}");
            for word in [name, "\"app\"", "NXDOMAIN", &dns.address.to_string()] {
                assert!(said.stderr.contains(word), "{word} in {}", said.stderr);
            }
        }
    }
}

#[test]
fn a_dns_server_that_does_not_answer_holds_up_no_start() {
    let port = ports::free().port();
    let Some(mut dns) = Dns::start(&app(&TWO), &[]) else {
        return;
    };
    let _nodes = TWO.map(|ip| node(ip, port));
    for silent in [true, false] {
        match silent {
            true => dns.freeze(),
            false => dns.down(),
        }
        let setup = setup(port, dns.address);
        if silent {
            let checked = once(&setup, &upstream("1s", ""), &["check"]);
            assert_eq!(checked.code, Some(0), "{checked:?}");
        }
        let edge = setup.start(&upstream("1s", ""));
        let reply = edge.get("/").expect(503);
        assert!(reply.field("retry-after").is_some(), "{reply:?}");
        edge.await_stderr("app.test");
        edge.await_metric(FAILURES, 1.0);
        match silent {
            true => dns.thaw(),
            false => dns.up(),
        }
        wait::eventually("the endpoints", wait::secs(20), || {
            edge.get("/").status == 200
        });
        assert_eq!(edge.answering(), TWO);
    }
}

#[test]
fn the_systems_own_names_need_no_server() {
    let nodes = [Origin::named("local")];
    let port = nodes[0].address.port();
    let edge = Setup::new().with("PORT", port).start(
        "[upstream.app]\nendpoints = [\"localhost:@PORT@\"]\n[[route]]\nupstream = \"app\"\n",
    );
    assert_eq!(edge.get("/").expect(200).text(), "local");
    let shown = endpoints(&edge);
    assert_eq!(shown.len(), 1, "{shown:?}");
    assert_eq!(shown[0]["name"], format!("localhost:{port}"));
}

#[test]
fn an_endpoint_drained_by_hand_is_drained_when_it_comes_back() {
    let port = ports::free().port();
    let Some(dns) = Dns::start(&app(&TWO), &[]) else {
        return;
    };
    let nodes = TWO.map(|ip| node(ip, port));
    let edge = setup(port, dns.address).start(&upstream("1s", ""));
    assert_eq!(edge.answering(), TWO);
    let change = |endpoint: &str, what: &str| {
        let target = format!("/upstreams/change?upstream=app&endpoint={endpoint}:{port}&{what}");
        edge.command(&target).expect(200);
    };
    change(TWO[1], "mode=drain");
    assert_eq!(edge.answering(), TWO[..1]);
    let had = nodes[1].count();
    let known = |count: usize| {
        wait::eventually(&format!("{count} endpoints"), wait::SOON, || {
            endpoints(&edge).len() == count
        });
    };
    dns.answer(&app(&TWO[..1]));
    known(1);
    dns.answer(&app(&TWO));
    known(2);
    assert_eq!(endpoints(&edge)[1]["health"], "drained");
    assert_eq!(endpoints(&edge)[1]["by_hand"]["mode"], "drain");
    assert_eq!(edge.answering(), TWO[..1]);
    assert_eq!(nodes[1].count(), had);
    change(TWO[1], "mode=enabled");
    assert_eq!(edge.answering(), TWO);
}

#[test]
fn reloads_and_changes_of_the_dns_lose_no_request() {
    let port = ports::free().port();
    let Some(dns) = Dns::start(&app(&TWO), &[]) else {
        return;
    };
    let _nodes = THREE.map(|ip| node(ip, port));
    let edge = setup(port, dns.address).start(&upstream("1s", ""));
    let done = Gate::default();
    thread::scope(|scope| {
        let clients: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut conn = edge.plain();
                    let mut count = 0;
                    let began = wait::now();
                    while !done.is_open() && began.elapsed() < wait::secs(60) {
                        let reply = conn.ask(&Ask::get("/")).expect(200);
                        count += 1;
                        // One has so many requests that the limit of a connection is met.
                        if reply.field("connection") == Some("close") {
                            conn = edge.plain();
                        }
                    }
                    count
                })
            })
            .collect();
        for (addresses, balance) in [
            (&THREE[1..], "random"),
            (&THREE[..1], "least_request"),
            (&THREE[..], "round_robin"),
        ] {
            dns.answer(&app(addresses));
            edge.rewrite(&upstream("1s", "").replace("round_robin", balance));
            edge.reload(true);
            edge.await_answering(addresses, wait::secs(6));
        }
        done.open();
        for client in clients {
            assert!(client.join().expect("no request fails") > 20);
        }
    });
    assert_eq!(edge.metric("tidegate_upstream_errors_total"), 0.0);
}
