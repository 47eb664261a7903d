//! `tidegate demo` does what it prints.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::Command;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::support::client::once;
use crate::support::edge::binary;
use crate::support::tools::{Running, run, tool};
use crate::support::{Ask, Conn, Reply, certs, metrics, ports, wait};

struct Demo {
    running: Running,
    https: SocketAddr,
    http: SocketAddr,
    admin: SocketAddr,
    /// Empty: it needs no file.
    folder: TempDir,
}

impl Demo {
    /// On ports of its own instead of the documented ones.
    fn start() -> Self {
        let (https, http, admin) = (ports::free(), ports::free(), ports::free());
        let folder = TempDir::with_prefix("tidegate-demo-test-").expect("a folder");
        let mut command = Command::new(binary());
        command.arg("demo").current_dir(folder.path());
        for (flag, address) in [
            ("--https-port", https),
            ("--http-port", http),
            ("--admin-port", admin),
        ] {
            command.arg(flag).arg(address.port().to_string());
        }
        let mut running = Running::start(&mut command);
        let ready = wait::try_until(2 * wait::SOON, || {
            let text = running.stdout();
            (!running.is_running() || text.contains("kill -HUP")).then_some(())
        });
        assert!(ready.is_some() && running.is_running(), "no demo");
        let demo = Self {
            running,
            https,
            http,
            admin,
            folder,
        };
        wait::eventually("three healthy nodes", wait::SOON, || {
            demo.metric(r#"tidegate_upstream_endpoint_healthy{upstream="shop"}"#) == 3.0
        });
        demo
    }

    fn visit(&self, ask: &Ask) -> Reply {
        let config = certs::client_of_anyone(&["http/1.1"]);
        Conn::tls_with(self.https, "localhost", config)
            .expect("a TLS handshake")
            .ask(&ask.clone().host(&self.https.to_string()))
    }

    fn get(&self, target: &str) -> Reply {
        self.visit(&Ask::get(target))
    }

    /// What it prints to try: each paragraph's sentence and commands.
    fn lessons(&self) -> Vec<(String, String)> {
        let said = self.running.stdout();
        let at = said.find("In another terminal").expect("something to try");
        let mut lessons: Vec<(String, String)> = Vec::new();
        for line in said[at..].lines() {
            match line.strip_prefix("  ") {
                Some(command) => {
                    let (_, commands) = lessons.last_mut().expect("a sentence first");
                    commands.push_str(command);
                    commands.push('\n');
                }
                None if line.trim().is_empty() => {}
                None => lessons.push((line.to_owned(), String::new())),
            }
        }
        lessons
    }

    /// The output of the lesson whose sentence has this in it.
    #[track_caller]
    fn follow(&self, lessons: &mut Vec<(String, String)>, part: &str) -> String {
        let (_, trust) = &lessons[0];
        let trust = trust.clone();
        let at = lessons
            .iter()
            .position(|(sentence, _)| sentence.contains(part))
            .unwrap_or_else(|| panic!("no word of {part:?} in {lessons:?}"));
        let (_, script) = lessons.remove(at);
        let script = format!("set -euo pipefail\n{trust}{script}");
        let said = run(Command::new("bash").args(["-c", &script]), 3 * wait::SOON);
        assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""), "{script}");
        said.stdout
    }

    fn metric(&self, series: &str) -> f64 {
        let text = once(self.admin, &Ask::get("/metrics")).expect(200).text();
        metrics::sum(&text, series).unwrap_or(0.0)
    }
}

#[test]
fn every_command_that_the_demo_prints_shows_what_it_says() {
    tool!("curl", "curl");
    let mut demo = Demo::start();
    let mut lessons = demo.lessons();
    assert!(lessons[0].1.starts_with("export "), "{lessons:?}");

    let nodes = demo.follow(&mut lessons, "Which node answers");
    let answers: Vec<&str> = nodes.lines().collect();
    assert_eq!(answers.len(), 6, "{nodes}");
    for node in 1..=3 {
        let mark = format!("\"node\":{node},");
        assert!(answers.iter().any(|a| a.contains(&mark)), "{nodes}");
    }

    let cached = demo
        .follow(&mut lessons, "page from the cache")
        .to_lowercase();
    let statuses: Vec<&str> = cached
        .lines()
        .filter(|line| line.starts_with("cache-status: "))
        .collect();
    assert_eq!(statuses.len(), 2, "{cached}");
    assert!(!statuses[0].contains(";hit"), "{cached}");
    assert!(
        statuses[1].contains(";hit") && cached.contains("age: "),
        "{cached}"
    );

    let cart = demo.follow(&mut lessons, "cart stays on one node");
    let lines: BTreeSet<&str> = cart.lines().collect();
    assert_eq!((cart.lines().count(), lines.len()), (3, 1), "{cart}");

    let part = demo.follow(&mut lessons, "part of an image").to_lowercase();
    assert!(
        part.contains(" 206") && part.contains("content-range: bytes 0-99/"),
        "{part}"
    );

    let twice = demo.follow(&mut lessons, "that the client has already");
    let lines: Vec<&str> = twice.lines().collect();
    assert!(
        lines[0].starts_with("200, ") && lines[0] != "200, 0 bytes",
        "{twice}"
    );
    assert_eq!(lines[1..], ["304, 0 bytes"]);

    let killed = demo.follow(&mut lessons, "Kill a node");
    let tally = killed
        .lines()
        .find(|l| l.split_whitespace().eq(["60", "200"]));
    assert!(tally.is_some(), "not every request was answered:\n{killed}");
    let health = killed.lines().filter(|l| l.contains("endpoint_healthy{"));
    let health: Vec<bool> = health.map(|line| line.ends_with(" 1")).collect();
    assert_eq!(health, [true, false, true], "{killed}");

    let redirect = demo
        .follow(&mut lessons, "From HTTP to HTTPS")
        .to_lowercase();
    assert!(redirect.contains(" 308"), "{redirect}");
    assert!(
        redirect.contains(&format!("location: https://{}/cart", demo.https)),
        "{redirect}"
    );

    demo.get("/").expect(200);
    demo.follow(&mut lessons, "out of the cache");
    assert!(!demo.get("/").is_hit());

    let seen = demo.follow(&mut lessons, "What was counted");
    assert!(seen.contains("tidegate_cache_requests_total{"), "{seen}");
    assert!(seen.contains("\"request_id\""), "{seen}");

    demo.follow(&mut lessons, "load it anew");
    wait::eventually("the reload", wait::SOON, || {
        demo.metric(r#"tidegate_config_reloads_total{result="ok"}"#) == 1.0
    });
    assert!(demo.running.is_running());
    assert_eq!(lessons.len(), 1, "not followed: {lessons:?}");
}

#[test]
fn the_demo_serves_every_file_its_page_names_with_validators_and_ranges() {
    let demo = Demo::start();
    let moved = once(demo.http, &Ask::get("/x").host(&demo.http.to_string())).expect(308);
    assert!(moved.field("location").unwrap().starts_with("https://"));

    let page = demo.get("/").expect(200);
    assert!(page.field("content-type").unwrap().starts_with("text/html"));
    let text = page.text();
    let files: BTreeSet<&str> = text
        .split(['"', '\''])
        .filter(|part| part.starts_with("/static/"))
        .collect();
    assert!(files.iter().any(|file| file.ends_with(".css")), "{text}");
    for file in files {
        let reply = demo.get(file).expect(200);
        let etag = reply.field("etag").expect("an ETag").to_owned();
        let again = Ask::get(file).field("If-None-Match", &etag);
        demo.visit(&again).expect(304);
        let part = demo.visit(&Ask::get(file).field("Range", "bytes=0-3"));
        assert_eq!(part.expect(206).body.len(), 4, "{file}");
    }
}

#[test]
fn one_node_killed_in_the_demo_fails_no_request() {
    let demo = Demo::start();
    let healthy = || demo.metric(r#"tidegate_upstream_endpoint_healthy{upstream="shop"}"#);
    demo.visit(&Ask::post("/demo/nodes/2/stop", "")).expect(200);
    for nth in 0..60 {
        demo.get(&format!("/api/time?nth={nth}")).expect(200);
        demo.get("/cart").expect(200);
    }
    wait::eventually("the node to be out", wait::SOON, || healthy() == 2.0);
    demo.visit(&Ask::post("/demo/nodes/2/start", ""))
        .expect(200);
    wait::eventually("the node to be back", wait::SOON, || healthy() == 3.0);
}

#[test]
fn the_demo_leaves_nothing_behind() {
    let mut demo = Demo::start();
    let said = demo.running.stdout();
    let line = said.lines().find(|l| l.trim_start().starts_with("folder "));
    let folder = line.and_then(|l| l.split_whitespace().nth(1));
    let folder = std::path::PathBuf::from(folder.expect("the folder's name"));
    assert!(folder.join("tidegate.toml").is_file(), "{folder:?}");
    demo.running.signal(Signal::SIGINT);
    assert_eq!(demo.running.wait(wait::SOON), Some(0));
    assert!(!folder.exists(), "{folder:?} is still there");
    let own = std::fs::read_dir(demo.folder.path()).unwrap().count();
    assert_eq!(own, 0, "files where it was started");
}

#[test]
fn the_demo_can_print_a_file_that_passes_the_check_but_for_its_certificate() {
    let said = run(
        Command::new(binary()).args(["demo", "--print-config"]),
        wait::SOON,
    );
    assert_eq!(said.code, Some(0), "{said:?}");
    for part in [
        "[[listener]]",
        "[upstream.shop]",
        "127.0.0.1:8443",
        "127.0.0.1:9901",
    ] {
        assert!(said.stdout.contains(part), "no {part} in {}", said.stdout);
    }
}

#[test]
fn a_port_of_the_demo_in_use_is_one_readable_line() {
    let taken = crate::support::Origin::named("first come");
    let mut command = Command::new(binary());
    command.args(["demo", "--https-port"]);
    command.arg(taken.address.port().to_string());
    command.args(["--http-port", "0", "--admin-port", "0"]);
    let said = run(&mut command, wait::SOON);
    assert_eq!(said.code, Some(1), "{said:?}");
    let port = taken.address.port().to_string();
    assert!(said.stderr.contains(&port), "{said:?}");
    assert!(!said.stderr.contains("panicked"), "{said:?}");
}

#[test]
fn a_browser_shows_the_shop_and_where_the_page_came_from() {
    let chromium = tool!("chromium", "chromium");
    let demo = Demo::start();
    let picture = demo.folder.path().join("shop.png");
    let profile = demo.folder.path().join("profile");
    let browse = |extra: &[&str]| {
        let mut command = Command::new(&chromium);
        command.args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--ignore-certificate-errors",
            "--virtual-time-budget=8000",
        ]);
        command.arg(format!("--user-data-dir={}", profile.display()));
        // Its crash reporter writes beside the profile, into the home folder.
        command.env("HOME", demo.folder.path());
        command.args(extra).arg(format!("https://{}/", demo.https));
        run(&mut command, wait::secs(90))
    };
    let page = browse(&["--dump-dom"]);
    assert_eq!(page.code, Some(0), "{page:?}");
    let dom = page.stdout.to_lowercase();
    for shown in ["shop", "node", "cache"] {
        assert!(dom.contains(shown), "no {shown} in the page:\n{dom}");
    }
    let flag = format!("--screenshot={}", picture.display());
    browse(&[&flag, "--window-size=1200,800"]);
    let size = std::fs::metadata(&picture).map_or(0, |m| m.len());
    assert!(size > 10_000, "an empty page: {size} bytes");
}
