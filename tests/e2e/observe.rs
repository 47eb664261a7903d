//! What monitoring and operators see.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use serde_json::Value;

use crate::support::client::{HOST, once};
use crate::support::edge::root;
use crate::support::h2::H2;
use crate::support::tools::{run, tool};
use crate::support::{Answer, Ask, Conn, Edge, Origin, Setup, ports, wait};

const APP: &str = r#"
    [upstream.app]
    endpoints = ["@APP@"]
    [[route]]
    name = "shop"
    upstream = "app"
    cache = {}
    [[route]]
    name = "fixed"
    match = { path = "/fixed" }
    respond = { body = "ok" }
"#;

fn edge(origin: &Origin, more: &str) -> Edge {
    Setup::new()
        .with("APP", origin.address)
        .start(&format!("{more}{APP}"))
}

/// The access log's lines once there are so many.
fn lines(edge: &Edge, name: &str, count: usize) -> Vec<String> {
    let path = edge.folder().join(name);
    wait::until(&format!("{count} lines in {name}"), wait::SOON, || {
        let text = fs::read_to_string(&path).unwrap_or_default();
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        (lines.len() >= count && text.ends_with('\n')).then_some(lines)
    })
}

#[test]
fn requests_are_counted_by_listener_route_and_class() {
    let origin = Origin::start(|seen| match seen.target.as_str() {
        "/bad" => Answer::new(500, "x"),
        "/gone" => Answer::new(404, "x"),
        _ => Answer::ok("12345"),
    });
    let edge = edge(&origin, "");
    for target in ["/", "/x", "/gone", "/bad", "/fixed"] {
        edge.ask(&Ask::post(target, "123"));
    }
    edge.tls().ask(&Ask::get("/"));
    H2::tls(edge.https(), HOST).ask(&Ask::get("/"));
    for (labels, count) in [
        (r#"{listener="plain",route="shop",class="2xx"}"#, 2.0),
        (r#"{listener="plain",route="shop",class="4xx"}"#, 1.0),
        (r#"{listener="plain",route="shop",class="5xx"}"#, 1.0),
        (r#"{listener="plain",route="fixed",class="2xx"}"#, 1.0),
        (r#"{listener="secure",route="shop",class="2xx"}"#, 2.0),
    ] {
        edge.await_metric(&format!("tidegate_requests_total{labels}"), count);
        assert_eq!(
            edge.metric(&format!("tidegate_requests_total{labels}")),
            count
        );
    }
    assert_eq!(
        edge.metric(r#"tidegate_request_duration_seconds_count{route="shop"}"#),
        6.0
    );
    assert!(edge.metric(r#"tidegate_request_body_bytes_total{route="shop"}"#) >= 12.0);
    assert!(edge.metric(r#"tidegate_response_body_bytes_total{route="shop"}"#) >= 10.0);
    let upstream = r#"tidegate_upstream_requests_total{upstream="app",class="2xx"}"#;
    assert_eq!(edge.metric(upstream), 4.0);
    assert!(edge.metric(r#"tidegate_upstream_first_byte_seconds_count{upstream="app"}"#) >= 6.0);
    assert!(edge.metric(r#"tidegate_connections_total{listener="plain"}"#) >= 5.0);
    assert_eq!(edge.metric("tidegate_build_info"), 1.0);
    assert_eq!(edge.metric("tidegate_config_info"), 1.0);
    assert_eq!(edge.metric("tidegate_config_last_reload_successful"), 1.0);
    assert!(edge.is_healthy(origin.address));
}

#[test]
fn requests_in_flight_are_seen() {
    let gate = crate::support::Gate::default();
    let held = gate.clone();
    let origin = Origin::start(move |_| Answer::ok("x").when(&held));
    let edge = edge(&origin, "");
    let mut conn = edge.plain();
    conn.send(Ask::post("/hold", "").bytes());
    edge.await_metric(r#"tidegate_requests_active{listener="plain"}"#, 1.0);
    edge.await_metric(r#"tidegate_connections_active{listener="plain"}"#, 1.0);
    edge.await_metric(
        r#"tidegate_upstream_endpoint_active_requests{upstream="app"}"#,
        1.0,
    );
    gate.open();
    conn.reply().expect(200);
    drop(conn);
    wait::eventually("none in flight", wait::SOON, || {
        edge.metric("tidegate_requests_active") == 0.0
            && edge.metric("tidegate_upstream_endpoint_active_requests") == 0.0
            && edge.metric("tidegate_connections_active") == 0.0
    });
}

#[test]
fn promtool_finds_nothing_to_say() {
    let promtool = tool!("promtool", "prometheus");
    let origin = Origin::named("x");
    let edge = edge(
        &origin,
        "[log]\naccess = { path = \"access.log\", format = \"json\" }\n",
    );
    edge.get("/");
    edge.get("/nowhere");
    edge.tls().ask(&Ask::get("/fixed"));
    edge.plain().send("GET\r\n\r\n").reply();
    let metrics = edge.admin("/metrics").expect(200);
    assert!(
        metrics
            .field("content-type")
            .unwrap()
            .starts_with("text/plain")
    );
    let file = edge.folder().join("metrics.txt");
    fs::write(&file, &metrics.body).unwrap();
    let script = format!("{} check metrics < {}", promtool.display(), file.display());
    let said = run(
        Command::new("sh")
            .args(["-c", &script])
            .stdin(Stdio::null()),
        wait::SOON,
    );
    assert_eq!(
        (said.code, said.stdout.as_str(), said.stderr.as_str()),
        (Some(0), "", "")
    );
}

#[test]
fn every_family_that_is_shown_stands_in_the_manual() {
    let manual = fs::read_to_string(root().join("docs/observability.md")).unwrap();
    let origin = Origin::named("x");
    let edge = edge(&origin, "");
    edge.get("/");
    let text = edge.admin("/metrics").expect(200).text();
    let families = text
        .lines()
        .filter_map(|l| l.strip_prefix("# TYPE ")?.split(' ').next());
    let families: Vec<&str> = families.collect();
    assert!(families.len() > 20, "{families:?}");
    for family in families {
        assert!(manual.contains(&format!("`{family}`")), "{family}");
    }
}

#[test]
fn nothing_from_a_client_becomes_a_label() {
    let origin = Origin::start(|_| Answer::new(404, "x"));
    let edge = edge(&origin, "");
    let series = |edge: &Edge| {
        let text = edge.admin("/metrics").text();
        let names = text.lines().filter_map(|line| line.rsplit_once(' '));
        let names: BTreeSet<String> = names.map(|(name, _)| name.to_owned()).collect();
        names
    };
    edge.get("/warm");
    H2::tls(edge.https(), HOST).ask(&Ask::get("/"));
    edge.ask(&Ask::new("BREW", "/")).expect(404);
    wait::eventually("the first", wait::SOON, || {
        edge.metric("tidegate_requests_total") >= 3.0
    });
    let before = series(&edge);
    for n in 0..50 {
        let ask = Ask::new(&format!("M{n}"), &format!("/path-{n}?q={n}"))
            .host(&format!("h{n}.test"))
            .field("User-Agent", &format!("agent-{n}"));
        edge.ask(&ask).expect(404);
    }
    wait::eventually("all counted", wait::SOON, || {
        edge.metric("tidegate_requests_total") >= 53.0
    });
    let after = series(&edge);
    let new: Vec<_> = after.difference(&before).collect();
    assert_eq!(new, Vec::<&String>::new());
}

#[test]
fn live_and_ready_tell_of_the_process_and_of_each_listener() {
    let origin = Origin::named("x");
    let edge = edge(&origin, "");
    edge.admin("/live").expect(200);
    let ready = edge.admin("/ready").expect(200).text();
    for name in ["plain", "secure"] {
        assert!(ready.contains(name), "{ready}");
    }
    let routes = edge.json("/routes").to_string();
    assert!(
        routes.contains("\"shop\"") && routes.contains("\"fixed\""),
        "{routes}"
    );
    let upstreams = edge.json("/upstreams").to_string();
    assert!(
        upstreams.contains(&origin.address.to_string()),
        "{upstreams}"
    );
    assert_eq!(edge.admin("/nothing").status, 404);
    let wrong = edge.admin_ask(&Ask::post("/metrics", ""));
    assert_eq!(wrong.status, 405);
    assert!(wrong.field("allow").unwrap().contains("GET"));
}

#[test]
fn the_admin_server_listens_on_a_unix_socket_too() {
    let curl = tool!("curl", "curl");
    let setup = Setup::new();
    let socket = setup.folder().join("admin.sock");
    let address = ports::free();
    let setup = setup
        .with("SOCKET", socket.display())
        .with("PLAIN", address);
    let file = setup.write(
        "[admin]\naddress = \"unix:@SOCKET@\"\n[[listener]]\naddress = \"@PLAIN@\"\n[[route]]\nrespond = { body = \"ok\" }\n",
    );
    let ask = || {
        let mut command = Command::new(&curl);
        command.arg("-sS").arg("--unix-socket").arg(&socket);
        run(command.arg("http://localhost/metrics"), wait::SOON).stdout
    };
    for round in 0..2 {
        // The second round finds the socket file that a killed process left.
        let mut command = Command::new(crate::support::edge::binary());
        let mut edge =
            crate::support::tools::Running::start(command.arg("run").arg("--config").arg(&file));
        wait::eventually("metrics by the socket", wait::SOON, || {
            ask().contains("tidegate_build_info")
        });
        edge.signal(if round == 0 {
            Signal::SIGKILL
        } else {
            Signal::SIGTERM
        });
        edge.wait(wait::SOON);
    }
}

#[test]
fn the_json_log_has_a_line_with_every_part_for_each_request() {
    let origin = Origin::start(|_| Answer::ok("12345").after(wait::millis(20)));
    let edge = edge(
        &origin,
        "[log]\naccess = { path = \"access.log\", format = \"json\" }\n",
    );
    let ask = Ask::post("/a/b?c=d", "123")
        .field("User-Agent", "test \"agent\" \u{e4}\\")
        .field("Referer", "http://x.test/");
    let reply = edge.tls().ask(&ask).expect(200);
    let line = &lines(&edge, "access.log", 1)[0];
    let entry: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    for (field, value) in [
        ("request_id", reply.field("x-request-id").unwrap()),
        ("listener", "secure"),
        ("route", "shop"),
        ("client", "127.0.0.1"),
        ("method", "POST"),
        ("host", HOST),
        ("target", "/a/b?c=d"),
        ("user_agent", "test \"agent\" \u{e4}\\"),
        ("referer", "http://x.test/"),
    ] {
        assert_eq!(entry[field], value, "{field} in {line}");
    }
    assert_eq!(entry["status"], 200);
    assert_eq!(entry["bytes_in"], 3);
    assert_eq!(entry["bytes_out"], 5);
    assert!(entry["duration_ms"].as_f64().unwrap() >= 19.0, "{line}");
    assert!(
        entry["upstream_first_byte_ms"].as_f64().unwrap() >= 15.0,
        "{line}"
    );
    assert!(entry["upstream_connect_ms"].as_f64().is_some(), "{line}");
    assert!(entry["tls"].as_str().unwrap().contains("1.3"), "{line}");
    assert!(
        entry["protocol"].as_str().unwrap().contains("1.1"),
        "{line}"
    );
    assert!(line.contains(&origin.address.to_string()), "{line}");
    let stamp = entry["ts"].as_str().unwrap();
    assert!(stamp.len() >= 24 && stamp.contains('T'), "{stamp}");
}

#[test]
fn hits_retries_and_errors_say_so_in_the_log() {
    let mut down = Origin::named("down");
    down.down();
    let origin = Origin::start(|_| Answer::fresh(60, "x"));
    let edge = Setup::new()
        .with("APP", origin.address)
        .with("DOWN", down.address)
        .start(
            r#"
            [log]
            access = { path = "access.log", format = "json" }
            [upstream.app]
            endpoints = ["@APP@"]
            [upstream.gone]
            endpoints = ["@DOWN@"]
            [[route]]
            upstream = "app"
            cache = {}
            [[route]]
            match = { path = "/gone" }
            upstream = "gone"
            "#,
        );
    edge.get("/a").expect(200);
    edge.get("/a").expect(200);
    edge.get("/gone").expect(503);
    // Workers write side by side: within half a second, lines stand in any order.
    let lines = lines(&edge, "access.log", 3);
    let line_of = |part: &str| {
        let found = lines.iter().find(|line| line.contains(part));
        found.unwrap_or_else(|| panic!("no line with {part}: {lines:#?}"))
    };
    line_of("\"cache\":\"miss\"");
    line_of("\"cache\":\"hit\"");
    let gone = line_of("\"target\":\"/gone\"");
    assert!(gone.contains(&down.address.to_string()), "{gone}");
    let gone: Value = serde_json::from_str(gone).unwrap();
    assert_eq!(gone["why"], "connect_failure");
}

#[test]
fn a_log_line_cannot_be_forged() {
    let origin = Origin::named("x");
    for format in ["json", "combined"] {
        let edge = edge(
            &origin,
            &format!("[log]\naccess = {{ path = \"access.log\", format = \"{format}\" }}\n"),
        );
        let mut conn = edge.plain();
        let head = b"GET /\"x HTTP/1.1\r\nHost: shop.test\r\nUser-Agent: a\" 200 \"\xff\xfe\t\x80{\"status\":1}\r\n\r\n";
        conn.send(head).reply();
        edge.get("/second");
        let lines = lines(&edge, "access.log", 2);
        assert_eq!(lines.len(), 2, "{format}: {lines:?}");
        if format == "json" {
            for line in &lines {
                serde_json::from_str::<Value>(line).unwrap_or_else(|e| panic!("{e}: {line}"));
            }
        } else {
            for line in &lines {
                assert_eq!(line.matches('"').count(), 6, "{line}");
            }
        }
    }
}

#[test]
fn the_combined_log_reads_as_nginx_writes_it() {
    let origin = Origin::named("12345");
    let edge = edge(
        &origin,
        "[log]\naccess = { path = \"access.log\", format = \"combined\" }\n",
    );
    let ask = Ask::get("/a?b")
        .field("User-Agent", "agent/1")
        .field("Referer", "http://x/");
    edge.ask(&ask).expect(200);
    let line = &lines(&edge, "access.log", 1)[0];
    assert!(line.starts_with("127.0.0.1 - - ["), "{line}");
    let tail = "] \"GET /a?b HTTP/1.1\" 200 5 \"http://x/\" \"agent/1\"";
    assert!(line.contains(tail), "{line}");
}

#[test]
fn the_log_is_reopened_on_sigusr1_and_no_line_is_lost() {
    let origin = Origin::named("x");
    let edge = edge(
        &origin,
        "[log]\naccess = { path = \"access.log\", format = \"json\" }\n",
    );
    edge.get("/before");
    lines(&edge, "access.log", 1);
    let (log, old) = (
        edge.folder().join("access.log"),
        edge.folder().join("access.log.1"),
    );
    fs::rename(&log, &old).unwrap();
    edge.signal(Signal::SIGUSR1);
    wait::eventually("a new file", wait::SOON, || log.exists());
    edge.get("/after");
    let new = lines(&edge, "access.log", 1);
    assert!(new[0].contains("/after"), "{new:?}");
    let old = fs::read_to_string(&old).unwrap();
    assert!(old.contains("/before") && !old.contains("/after"), "{old}");
}

#[test]
fn every_line_is_written_before_the_process_ends() {
    let origin = Origin::named("x");
    let mut edge = edge(
        &origin,
        "[log]\naccess = { path = \"access.log\", format = \"json\" }\n",
    );
    let mut conn = edge.plain();
    for n in 0..200 {
        conn.ask(&Ask::get(&format!("/{n}"))).expect(200);
    }
    drop(conn);
    edge.signal(Signal::SIGTERM);
    assert_eq!(edge.wait(wait::SOON), Some(0));
    let text = fs::read_to_string(edge.folder().join("access.log")).unwrap();
    assert_eq!(text.lines().count(), 200);
}

#[test]
fn a_log_that_nobody_reads_blocks_no_request_and_drops_are_counted() {
    let origin = Origin::named("x");
    let setup = Setup::new().with("APP", origin.address);
    let pipe = setup.folder().join("pipe");
    nix::unistd::mkfifo(&pipe, Mode::from_bits_truncate(0o600)).unwrap();
    // Held open for reading and never read: writes block once the pipe is full.
    let reader = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&pipe)
        .unwrap();
    let edge = setup.start(&format!(
        "[log]\naccess = {{ path = \"pipe\", format = \"json\" }}\n{APP}"
    ));
    let filler = "x".repeat(6_000);
    let dropped = || edge.metric("tidegate_access_log_dropped_total") > 0.0;
    let mut conn = edge.plain();
    let mut slowest = wait::secs(0);
    wait::eventually("the first dropped line", wait::secs(60), || {
        for n in 0..200 {
            let started = wait::now();
            conn.ask(&Ask::get("/fixed").field("User-Agent", &format!("{n}{filler}")));
            slowest = slowest.max(started.elapsed());
        }
        if conn.read_closed() {
            conn = edge.plain();
        }
        dropped()
    });
    assert!(
        slowest < wait::secs(2),
        "a request waited {slowest:?} for the log"
    );
    drop(reader);
}

#[test]
fn a_full_disk_blocks_no_request() {
    let origin = Origin::named("x");
    let edge = edge(
        &origin,
        "[log]\naccess = { path = \"/dev/full\", format = \"json\" }\n",
    );
    let mut conn = edge.plain();
    for _ in 0..100 {
        conn.ask(&Ask::get("/fixed")).expect(200);
    }
    edge.await_metric("tidegate_access_log_dropped_total", 1.0);
    assert!(
        edge.stderr().lines().count() < 60,
        "one line of trouble is enough:\n{}",
        edge.stderr()
    );
}

#[test]
fn events_are_written_as_text_or_json() {
    let setup = Setup::new();
    let edge = setup.start(
        "[log]\nlevel = \"info\"\nformat = \"json\"\n[[route]]\nrespond = { body = \"ok\" }\n",
    );
    wait::eventually("an event", wait::SOON, || !edge.stderr().is_empty());
    for line in edge.stderr().lines() {
        serde_json::from_str::<Value>(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    }
    let quiet =
        Setup::new().start("[log]\nlevel = \"error\"\n[[route]]\nrespond = { body = \"ok\" }\n");
    quiet.get("/").expect(200);
    assert_eq!(quiet.stderr(), "");
}

#[test]
fn a_listener_without_a_name_is_known_by_its_address() {
    let address = ports::free();
    let edge = Setup::new()
        .with("PLAIN", address)
        .start("[[listener]]\naddress = \"@PLAIN@\"\n[[route]]\nrespond = { body = \"ok\" }\n");
    once(address, &Ask::get("/")).expect(200);
    let series = format!("tidegate_requests_total{{listener=\"{address}\",route=\"route-1\"}}");
    edge.await_metric(&series, 1.0);
}

#[test]
fn a_client_that_goes_away_is_logged_as_such_and_frees_the_origin() {
    let origin = Origin::start(|_| Answer::ok("x").after(wait::secs(3)));
    let edge = edge(
        &origin,
        "[log]\naccess = { path = \"access.log\", format = \"json\" }\n",
    );
    let mut conn = Conn::open(edge.http());
    conn.send(Ask::post("/slow", "").bytes());
    wait::eventually("the request upstream", wait::SOON, || origin.count() == 1);
    conn.reset();
    let line = &lines(&edge, "access.log", 1)[0];
    assert!(line.contains("client_gone"), "{line}");
}

#[test]
fn nothing_waits_for_whoever_reads_the_event_log() {
    let setup = Setup::new();
    let fifo = setup.folder().join("events");
    let made = Command::new("mkfifo").arg(&fifo).status();
    assert!(made.expect("mkfifo").success());
    // Open both ways, so that neither side waits for the other.
    let events = File::options().read(true).write(true).open(&fifo);
    let events = events.expect("the pipe");
    let sh = ["sh", "-c", "exec \"$@\" 2> events", "sh"];
    let mut edge = setup.through(&sh).start(
        r#"
        [log]
        level = "trace"
        [[route]]
        respond = { status = 200, body = "here" }
        "#,
    );
    let dropped = "tidegate_event_log_dropped_total";
    let mut client = H2::plain(edge.http());
    let mut fill = |least: f64| {
        wait::eventually("lines to be dropped", 6 * wait::SOON, || {
            for _ in 0..50 {
                client.ask(&Ask::get("/")).expect(200);
            }
            edge.metric(dropped) > least
        });
    };
    fill(0.0);
    let mut lines = BufReader::new(&events).lines();
    let told = lines.find_map(|line| {
        let line = line.expect("text");
        line.contains("nobody read standard error").then_some(line)
    });
    let told = told.expect("the pipe stays open");
    assert!(told.contains("lines="), "{told}");
    // Nobody reads again, and the process ends all the same.
    fill(edge.metric(dropped));
    drop(client);
    edge.signal(Signal::SIGTERM);
    assert_eq!(edge.wait(wait::SOON), Some(0));
}
