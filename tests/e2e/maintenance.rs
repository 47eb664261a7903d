//! A site that is closed by a file, by hand or by command, and who still sees it.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::support::client::Reply;
use crate::support::edge::binary;
use crate::support::h2::H2;
use crate::support::tools::{self, Finished};
use crate::support::{Ask, Edge, Origin, Setup, wait};

/// An edge that can be closed. Who comes through the trusted proxy 127.0.0.1 from 192.0.2.7 is let in.
fn edge(app: &Origin) -> Edge {
    Setup::new()
        .file("closed.html", "<h1>back soon</h1>{status}")
        .with("APP", app.address)
        .start(
            r#"
            [server]
            workers = 2
            trusted_proxies = ["127.0.0.1"]
            maintenance = { file = "closed", page = "closed.html", retry_after = "30m", allow = ["192.0.2.7"] }
            [log]
            access = { path = "access.log" }
            [upstream.app]
            endpoints = ["@APP@"]
            [filter.marked]
            response_headers = { set = { x-marked = "yes" } }
            [[route]]
            name = "health"
            match = { path = "/healthz" }
            upstream = "app"
            maintenance = false
            [[route]]
            name = "cached"
            match = { path_prefix = "/cached" }
            upstream = "app"
            cache = { ttl = "1h" }
            [[route]]
            name = "all"
            upstream = "app"
            filters = ["marked"]
            "#,
        )
}

fn file(edge: &Edge) -> PathBuf {
    edge.folder().join("closed")
}

/// Looks by the admin server, so that the test need not wait for the next look.
#[track_caller]
fn is_on(edge: &Edge) -> Option<bool> {
    edge.json("/maintenance")["on"].as_bool()
}

fn command(edge: &Edge, what: &str) -> Finished {
    let mut command = Command::new(binary());
    command
        .args(["maintenance", what, "-c"])
        .arg(edge.folder().join("tidegate.toml"));
    tools::run(&mut command, wait::SOON)
}

#[track_caller]
fn everywhere(edge: &Edge, ask: &Ask) -> Vec<Reply> {
    vec![
        edge.plain().ask(ask),
        edge.tls().ask(ask),
        H2::plain(edge.http()).ask(ask),
        H2::tls(edge.https(), "shop.test").ask(ask),
    ]
}

#[track_caller]
fn expect_closed(edge: &Edge, ask: &Ask) {
    for reply in everywhere(edge, ask) {
        assert_eq!(
            (reply.status, reply.text().as_str()),
            (503, "<h1>back soon</h1>503")
        );
        assert_eq!(reply.field("retry-after"), Some("1800"));
        assert_eq!(reply.field("cache-control"), Some("no-store"));
        assert_eq!(
            reply.field("content-type"),
            Some("text/html; charset=utf-8")
        );
    }
}

#[test]
fn the_file_closes_the_site_within_seconds_and_its_absence_opens_it() {
    let app = Origin::named("app");
    let edge = edge(&app);
    assert_eq!(edge.get("/").expect(200).text(), "app");
    std::fs::write(file(&edge), "").unwrap();
    // Without anybody asking the admin server.
    wait::eventually("the site to close", wait::SOON, || {
        edge.get("/").status == 503
    });
    expect_closed(&edge, &Ask::get("/"));
    expect_closed(&edge, &Ask::post("/form", "a=1"));
    let marked = edge.get("/");
    assert_eq!(marked.field("x-marked"), Some("yes"), "filters run behind");
    assert_eq!(edge.metric("tidegate_maintenance"), 1.0);
    edge.await_stderr("maintenance begins");
    std::fs::remove_file(file(&edge)).unwrap();
    wait::eventually("the site to open", wait::SOON, || {
        edge.get("/").status == 200
    });
    assert_eq!(edge.metric("tidegate_maintenance"), 0.0);
    edge.await_stderr("maintenance is over");
    let log = std::fs::read_to_string(edge.folder().join("access.log")).unwrap();
    let line = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find(|line| line["why"] == "maintenance");
    assert_eq!(line.expect("a line that says why")["route"], "all");
}

#[test]
fn a_stored_page_is_closed_too_and_hits_again_afterwards() {
    let app = Origin::named("app");
    let edge = edge(&app);
    edge.get("/cached/a").expect(200);
    assert!(edge.get("/cached/a").is_hit());
    std::fs::write(file(&edge), "").unwrap();
    assert_eq!(is_on(&edge), Some(true));
    let mut conn = edge.plain();
    for _ in 0..3 {
        conn.ask(&Ask::get("/cached/a")).expect(503);
    }
    std::fs::remove_file(file(&edge)).unwrap();
    assert_eq!(is_on(&edge), Some(false));
    assert!(conn.ask(&Ask::get("/cached/a")).expect(200).is_hit());
}

#[test]
fn a_few_see_the_site_as_usual() {
    let app = Origin::named("app");
    let edge = edge(&app);
    std::fs::write(file(&edge), "").unwrap();
    assert_eq!(is_on(&edge), Some(true));
    for reply in everywhere(&edge, &Ask::get("/healthz")) {
        assert_eq!(reply.expect(200).text(), "app", "the route stays open");
    }
    let inside = Ask::get("/").field("X-Forwarded-For", "192.0.2.7");
    for reply in everywhere(&edge, &inside) {
        assert_eq!(reply.expect(200).text(), "app");
    }
    let inside = Ask::get("/cached/b").field("X-Forwarded-For", "192.0.2.7");
    edge.ask(&inside).expect(200);
    assert!(edge.ask(&inside).expect(200).is_hit());
    edge.ask(&Ask::get("/cached/b")).expect(503);
    let outside = Ask::get("/").field("X-Forwarded-For", "192.0.2.8");
    edge.ask(&outside).expect(503);
    let machine = Ask::get("/").field("Accept", "application/json");
    let reply = edge.ask(&machine).expect(503);
    let value: Value = serde_json::from_slice(&reply.body).expect("JSON");
    assert_eq!(value["status"], 503);
}

#[test]
fn commands_close_and_open_it_and_say_what_the_edge_does() {
    let app = Origin::named("app");
    let mut edge = edge(&app);
    let on = command(&edge, "on");
    assert_eq!(on.code, Some(0), "{on:?}");
    assert!(on.stdout.contains("Made "), "{on:?}");
    assert!(on.stdout.contains("The running edge is closed"), "{on:?}");
    // The command had it look.
    edge.get("/").expect(503);
    let again = command(&edge, "on");
    assert!(again.stdout.contains("there already"), "{again:?}");
    let status = command(&edge, "status");
    assert!(status.stdout.starts_with("On: "), "{status:?}");
    edge.restart(nix::sys::signal::Signal::SIGTERM);
    edge.get("/").expect(503);
    edge.reload(true);
    edge.get("/").expect(503);
    let off = command(&edge, "off");
    assert!(off.stdout.contains("The running edge is open."), "{off:?}");
    edge.get("/").expect(200);
    let status = command(&edge, "status");
    assert!(status.stdout.starts_with("Off: "), "{status:?}");
    edge.signal(nix::sys::signal::Signal::SIGTERM);
    edge.wait(wait::SOON);
    let on = command(&edge, "on");
    assert_eq!(on.code, Some(0), "the file is made: {on:?}");
    assert!(on.stdout.contains("cannot be asked"), "{on:?}");
}

#[test]
fn a_reload_to_another_file_follows_that_one() {
    let app = Origin::named("app");
    let edge = edge(&app);
    std::fs::write(file(&edge), "").unwrap();
    assert_eq!(is_on(&edge), Some(true));
    let text = std::fs::read_to_string(edge.folder().join("tidegate.toml")).unwrap();
    edge.rewrite(&text.replace("\"closed\"", "\"other\""));
    let early = command(&edge, "on");
    assert_eq!(early.code, Some(0), "closed it is: {early:?}");
    std::fs::remove_file(edge.folder().join("other")).unwrap();
    edge.reload(true);
    edge.get("/").expect(200);
    edge.rewrite(&text.replace("file = \"closed\",", "file = \"none/closed\","));
    let refused = command(&edge, "on");
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("make it first"), "{refused:?}");
    let without = edge.folder().join("without.toml");
    std::fs::write(
        &without,
        "[[listener]]\naddress = \"127.0.0.1:1\"\n[[route]]\nrespond = {}\n",
    )
    .unwrap();
    let mut asked = Command::new(binary());
    asked.args(["maintenance", "on", "-c"]).arg(&without);
    let wrong = tools::run(&mut asked, wait::SOON);
    assert_eq!(wrong.code, Some(2), "{wrong:?}");
    assert!(wrong.stderr.contains("add maintenance"), "{wrong:?}");
}
