//! Wildcards, and names that are shown to be ours in the DNS.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use nix::sys::signal::Signal;

use super::{PATIENCE, await_issued, cert, site, wishes, with};
use crate::support::pebble::{Pebble, Wishes, shown_to};
use crate::support::tools::{Running, tool};
use crate::support::{Setup, ports, wait};

#[test]
fn a_wildcard_comes_by_dns_01_and_the_records_go_again() {
    let setup = Setup::new();
    let Some(pebble) = Pebble::start(&wishes(&setup)) else {
        return;
    };
    let curl = tool!("curl", "curl");
    let hook = format!(
        "#!/bin/sh\necho \"$@\" >> {log}\n\
         case $1 in\n\
         present) {curl} -fsS -d \"{{\\\"host\\\":\\\"$2.\\\",\\\"value\\\":\\\"$3\\\"}}\" http://{records}/set-txt ;;\n\
         cleanup) {curl} -fsS -d \"{{\\\"host\\\":\\\"$2.\\\"}}\" http://{records}/clear-txt ;;\n\
         esac\n",
        log = setup.folder().join("hook.log").display(),
        curl = curl.display(),
        records = pebble.records,
    );
    let setup = setup.file("hook.sh", hook);
    let path = setup.folder().join("hook.sh");
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).expect("a program");
    let edge = with(setup, &pebble).start(&site(
        r#""*.shop.test", "shop.test""#,
        r#"challenge = "dns-01", hook = ["./hook.sh"], dns_wait = "0s""#,
    ));
    await_issued(&edge, &pebble, 1.0);
    for host in ["shop.test", "a.shop.test"] {
        let config = pebble.client(&["http/1.1"]);
        shown_to(config, edge.https(), host).expect("a trusted handshake");
    }
    let log = std::fs::read_to_string(edge.folder().join("hook.log")).expect("it was called");
    let count = |what: &str| log.lines().filter(|line| line.starts_with(what)).count();
    let name = "_acme-challenge.shop.test ";
    assert_eq!(count(&format!("present {name}")), 2, "{log}");
    assert_eq!(count(&format!("cleanup {name}")), 2, "{log}");
}

#[test]
fn records_of_a_process_that_died_are_taken_away_at_the_next_start() {
    let setup = Setup::new();
    let Some(pebble) = Pebble::start(&wishes(&setup)) else {
        return;
    };
    // The first record takes its time, and the process does not live to see it.
    let hook = "#!/bin/sh\necho \"$@\" >> hook.log\n[ $1 = cleanup ] || sleep 3\n";
    let setup = setup.file("hook.sh", hook).file("hook.log", "");
    let path = setup.folder().join("hook.sh");
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).expect("a program");
    let mut edge = with(setup, &pebble).start(&site(
        r#""shop.test""#,
        r#"challenge = "dns-01", hook = ["./hook.sh"], dns_wait = "0s""#,
    ));
    let path = edge.folder().join("hook.log");
    let first = |what: &str| {
        let log = std::fs::read_to_string(&path).expect("a log");
        log.lines().find_map(|line| {
            let told = line.strip_prefix(what)?;
            Some(told.to_owned())
        })
    };
    let made = wait::until("a record to be made", PATIENCE, || first("present "));
    edge.restart(Signal::SIGKILL);
    let gone = wait::until("it to be taken away", PATIENCE, || first("cleanup "));
    assert_eq!(made, gone);
    edge.await_stderr("records of an order that broke off are taken away");
}

#[test]
fn a_wildcard_comes_by_dynamic_updates_of_its_zone() {
    let knotd = tool!("knotd", "knot");
    let setup = Setup::new();
    let server = ports::free();
    let key = "aG9sZXMtaW4tdGhlLXNhbmQtYXQtdGhlLWJlYWNo";
    let folder = setup.folder().display().to_string();
    let (ip, port) = (server.ip(), server.port());
    let config = format!(
        "server:\n  rundir: {folder}\n  listen: {ip}@{port}\n\
         database:\n  storage: {folder}\n\
         key:\n  - id: tidegate\n    algorithm: hmac-sha256\n    secret: {key}\n\
         acl:\n  - id: updates\n    key: tidegate\n    action: update\n\
         zone:\n  - domain: shop.test\n    storage: {folder}\n    file: zone\n    acl: updates\n"
    );
    let zone = "$ORIGIN shop.test.\n$TTL 60\n\
                @ SOA ns.shop.test. ops.shop.test. 1 3600 600 86400 60\n\
                @ NS ns.shop.test.\n@ A 127.0.0.1\nns A 127.0.0.1\n";
    let setup = setup
        .file("knot.conf", config)
        .file("zone", zone)
        .file("tsig.key", format!("{key}\n"))
        .with("DNS", server);
    let mut command = Command::new(knotd);
    command.arg("-c").arg(setup.folder().join("knot.conf"));
    let mut running = Running::start(&mut command);
    wait::eventually("knot to accept", wait::SOON, || {
        assert!(running.is_running(), "knot: {}", running.stderr());
        std::net::TcpStream::connect(server).is_ok()
    });
    let wishes = Wishes {
        dns: Some(server),
        ..wishes(&setup)
    };
    let Some(pebble) = Pebble::start(&wishes) else {
        return;
    };
    let keys = |name: &str| {
        format!(
            "challenge = \"dns-01\", dns_wait = \"0s\", rfc2136 = {{ server = \"@DNS@\", zone = \"shop.test\", key_name = \"{name}\", secret = {{ file = \"tsig.key\" }} }}"
        )
    };
    let hosts = r#""*.shop.test", "shop.test""#;
    let edge = with(setup, &pebble).start(&site(hosts, &keys("somebody")));
    edge.await_metric(r#"tidegate_acme_orders_total{outcome="record"}"#, 1.0);
    edge.await_stderr("NOTAUTH");
    edge.rewrite(&site(hosts, &keys("tidegate")));
    edge.reload(true);
    let said = cert(&edge, &["issue"]);
    assert_eq!(said.code, Some(0), "{said:?}\n{}", pebble.log());
    shown_to(pebble.client(&["http/1.1"]), edge.https(), "a.shop.test").expect("trusted");
    // The records are gone again: none of the old order is in the way of the next.
    let said = cert(&edge, &["renew"]);
    assert_eq!(said.code, Some(0), "{said:?}\n{}", pebble.log());
}
