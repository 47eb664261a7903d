//! Certificates by themselves: orders, challenges, storage, renewal and failures, with Pebble as the
//! authority.

mod keys;
mod records;
mod refusals;

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::Full;
use hyper::Response;
use hyper::body::Bytes;
use hyper::header::HeaderValue;
use nix::sys::signal::Signal;

use crate::support::edge::binary;
use crate::support::pebble::{Pebble, Wishes, files, now, shown, shown_to, told};
use crate::support::tls_node::TlsNode;
use crate::support::tools::{Finished, run};
use crate::support::{Answer, Ask, Conn, Edge, H2, Origin, Setup, certs, ports, wait};

const ISSUED: &str = r#"tidegate_acme_orders_total{outcome="issued"}"#;
const UNREACHABLE: &str = r#"tidegate_acme_orders_total{outcome="unreachable"}"#;

/// Orders may take a few polls, and other tests take their part of the machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// An authority that looks at the listeners of this edge.
fn wishes(setup: &Setup) -> Wishes {
    Wishes {
        http: setup.address("HTTP"),
        tls: setup.address("HTTPS"),
        life: 7 * 86_400,
        dns: None,
        ocsp: None,
        external: None,
    }
}

/// A site for `hosts`, with further keys.
fn site(hosts: &str, keys: &str) -> String {
    format!(
        "[tls]\n\
         acme = {{ hosts = [{hosts}], storage = \"@DIR@/acme\", directory = \"@DIRECTORY@\", ca = \"ca.pem\", {keys} }}\n\
         [[route]]\nrespond = {{ body = \"ok\" }}\n"
    )
}

fn with(setup: Setup, pebble: &Pebble) -> Setup {
    setup.with("DIRECTORY", pebble.directory())
}

#[track_caller]
fn await_issued(edge: &Edge, pebble: &Pebble, count: f64) {
    let done = wait::try_until(PATIENCE, || (edge.metric(ISSUED) >= count).then_some(()));
    assert!(
        done.is_some(),
        "no certificate\n{}\n{}",
        edge.stderr(),
        pebble.log()
    );
}

fn cert(edge: &Edge, arguments: &[&str]) -> Finished {
    let file = edge.folder().join("tidegate.toml");
    let mut command = Command::new(binary());
    command
        .arg("cert")
        .args(arguments)
        .arg("--config")
        .arg(file);
    run(&mut command, PATIENCE)
}

#[test]
fn a_site_is_up_before_it_has_a_certificate_and_gets_one_by_http_01() {
    let setup = Setup::new();
    let Some(mut pebble) = Pebble::ready(&wishes(&setup)) else {
        return;
    };
    let mut edge = with(setup, &pebble).start(&site(
        r#""shop.test", "www.shop.test""#,
        r#"email = "ops@shop.test""#,
    ));
    // The directory is down: plain HTTP serves, a handshake ends with an alert.
    edge.await_metric(UNREACHABLE, 1.0);
    assert_eq!(edge.get("/").expect(200).text(), "ok");
    let refused = shown(edge.https(), "shop.test").expect_err("no certificate");
    assert!(refused.to_string().contains("alert"), "{refused}");
    assert!(edge.is_running());
    let log = edge.stderr();
    assert!(
        log.contains("no certificate") && log.contains("`directory`"),
        "{log}"
    );
    assert_eq!(
        edge.metric(r#"tidegate_acme_failures{name="shop.test"}"#),
        1.0
    );
    let next = edge.metric(r#"tidegate_acme_next_order_timestamp_seconds{name="shop.test"}"#);
    assert!(next > now() as f64 + 30.0, "it waits: {next}");

    pebble.up();
    let said = cert(&edge, &["issue"]);
    assert_eq!(said.code, Some(0), "{said:?}\n{}", pebble.log());
    assert!(
        said.stdout.contains("shop.test www.shop.test: issued"),
        "{said:?}"
    );
    for host in ["shop.test", "www.shop.test"] {
        let config = pebble.client(&["http/1.1"]);
        let mut conn = Conn::tls_with(edge.https(), host, config).expect("a trusted handshake");
        assert_eq!(conn.ask(&Ask::get("/").host(host)).text(), "ok");
    }
    assert_eq!(edge.metric(ISSUED), 1.0);
    assert_eq!(
        edge.metric(r#"tidegate_acme_failures{name="shop.test"}"#),
        0.0
    );
    let end = edge
        .metric(r#"tidegate_certificate_not_after_seconds{name="www.shop.test",source="acme"}"#);
    assert!(end > now() as f64 + 6.5 * 86_400.0);
    let said = cert(&edge, &["list"]);
    assert!(
        said.stdout.contains("shop.test www.shop.test\n")
            && said.stdout.contains(&pebble.directory()),
        "{said:?}"
    );
    // Nothing is pending any more: the path is a route's like any other.
    assert_eq!(edge.get("/.well-known/acme-challenge/x").text(), "ok");

    let storage = edge.folder().join("acme");
    let kept = files(&storage);
    assert_eq!(kept.len(), 3, "account, certificate and lock: {kept:?}");
    for path in &kept {
        let mode = std::fs::metadata(path)
            .expect("a file")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{}", path.display());
    }
    let mode = std::fs::metadata(&storage)
        .expect("a folder")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o700);

    // After a restart it is the same, and nobody is asked for another.
    let before = shown(edge.https(), "shop.test").expect("a certificate");
    edge.restart(Signal::SIGTERM);
    assert_eq!(shown(edge.https(), "shop.test").expect("at once"), before);
    let said = cert(&edge, &["issue"]);
    assert!(said.stdout.contains("nothing to issue"), "{said:?}");
    assert_eq!(edge.metric(ISSUED), 0.0);
    assert_eq!(files(&storage), kept);

    // Without a running edge the disk is read.
    edge.signal(Signal::SIGTERM);
    edge.wait(PATIENCE);
    let said = cert(&edge, &["list"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.stderr.contains("on the disk"), "{said:?}");
    assert!(
        said.stdout.contains("at two thirds of its life"),
        "{said:?}"
    );
}

#[test]
fn a_certificate_comes_by_tls_alpn_01_over_the_listener_that_it_is_for() {
    let setup = Setup::new();
    let Some(pebble) = Pebble::start(&wishes(&setup)) else {
        return;
    };
    let edge = with(setup, &pebble).start(&site(r#""shop.test""#, r#"challenge = "tls-alpn-01""#));
    await_issued(&edge, &pebble, 1.0);
    let config = pebble.client(&["h2", "http/1.1"]);
    shown_to(config, edge.https(), "shop.test").expect("a trusted handshake");
    // Nothing is pending: who validates is refused, and who offers it beside others gets those.
    let alone = certs::client_of_anyone(&["acme-tls/1"]);
    assert!(shown_to(alone, edge.https(), "shop.test").is_err());
    let beside = certs::client_of_anyone(&["acme-tls/1", "http/1.1"]);
    let mut conn = Conn::tls_with(edge.https(), "shop.test", beside).expect("a handshake");
    assert_eq!(conn.ask(&Ask::get("/").host("shop.test")).text(), "ok");
}

#[test]
fn a_certificate_is_renewed_in_time_while_connections_go_on() {
    let setup = Setup::new();
    let life = 18;
    let Some(pebble) = Pebble::start(&Wishes {
        life,
        ..wishes(&setup)
    }) else {
        return;
    };
    let edge = with(setup, &pebble).start(&site(r#""shop.test""#, ""));
    await_issued(&edge, &pebble, 1.0);
    let config = pebble.client(&["http/1.1"]);
    let first = shown_to(config.clone(), edge.https(), "shop.test").expect("trusted");
    let mut conn = Conn::tls_with(edge.https(), "shop.test", config).expect("trusted");
    assert_eq!(conn.ask(&Ask::get("/").host("shop.test")).text(), "ok");
    await_issued(&edge, &pebble, 2.0);
    let second = shown(edge.https(), "shop.test").expect("a certificate");
    assert_ne!(first, second, "it is another one");
    assert_eq!(
        conn.ask(&Ask::get("/").host("shop.test")).text(),
        "ok",
        "the connection knows nothing of it"
    );
    assert_eq!(
        edge.metric("tidegate_config_reloads_total"),
        0.0,
        "nor was there a reload"
    );
}

#[test]
fn the_old_certificate_serves_while_the_directory_is_down_and_failures_wait() {
    let setup = Setup::new();
    let Some(mut pebble) = Pebble::start(&wishes(&setup)) else {
        return;
    };
    let mut edge = with(setup, &pebble).start(&site(r#""shop.test""#, ""));
    await_issued(&edge, &pebble, 1.0);
    let first = shown(edge.https(), "shop.test").expect("a certificate");
    pebble.down();
    let said = cert(&edge, &["renew", "--name", "shop.test"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stdout.contains("shop.test: failed: "), "{said:?}");
    assert_eq!(edge.metric(UNREACHABLE), 1.0);
    assert_eq!(shown(edge.https(), "shop.test").expect("still"), first);
    edge.await_stderr("the old one serves");
    let after = told(&edge);
    assert_eq!(after[0]["failures"], 1, "{after:?}");
    assert_eq!(after[0]["next_order_by"], "failure");
    // A start does not forget that it failed, and does not try again at once.
    edge.restart(Signal::SIGTERM);
    assert_eq!(shown(edge.https(), "shop.test").expect("still"), first);
    assert_eq!(told(&edge)[0]["failures"], 1);
    assert_eq!(edge.metric(UNREACHABLE), 0.0);

    // It comes back and knows no account: another one is opened.
    pebble.up();
    let said = cert(&edge, &["renew"]);
    assert_eq!(said.code, Some(0), "{said:?}\n{}", edge.stderr());
    assert_ne!(shown(edge.https(), "shop.test").expect("another"), first);
    assert_eq!(told(&edge)[0]["failures"], 0);
    let said = cert(&edge, &["renew", "--name", "other.test"]);
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.stderr.contains("there are shop.test"), "{said:?}");
}

#[test]
fn an_account_is_opened_with_the_key_that_the_authority_gave_and_not_without() {
    let setup = Setup::new();
    let key = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    let wishes = Wishes {
        external: Some(("kid-1", key)),
        ..wishes(&setup)
    };
    let Some(pebble) = Pebble::start(&wishes) else {
        return;
    };
    let edge = with(setup, &pebble)
        .file("eab.key", format!("{key}\n"))
        .start(&site(r#""shop.test""#, ""));
    edge.await_metric(r#"tidegate_acme_orders_total{outcome="refused"}"#, 1.0);
    edge.await_stderr("eab = ");
    let eab = r#"eab = { key_id = "kid-1", hmac_key = { file = "eab.key" } }"#;
    edge.rewrite(&site(r#""shop.test""#, eab));
    edge.reload(true);
    // A failure makes the next try wait, but not one with other settings.
    await_issued(&edge, &pebble, 1.0);
    assert!(!edge.stderr().contains(key), "the key is a secret");
}

#[test]
fn another_authority_is_asked_where_the_first_fails() {
    let setup = Setup::new();
    let Some(pebble) = Pebble::start(&wishes(&setup)) else {
        return;
    };
    let setup = with(setup, &pebble).with("GONE", format!("https://{}/dir", ports::free()));
    let edge = setup.start(
        r#"
        [tls]
        acme = { hosts = ["shop.test"], storage = "@DIR@/acme", directory = "@GONE@", fallback_directory = "@DIRECTORY@", ca = "ca.pem" }
        [[route]]
        respond = { body = "ok" }
        "#,
    );
    await_issued(&edge, &pebble, 1.0);
    assert_eq!(told(&edge)[0]["directory"], pebble.directory().as_str());
    edge.await_stderr("no certificate from this authority");
    shown_to(pebble.client(&["http/1.1"]), edge.https(), "shop.test").expect("trusted");
}

/// What the authority asks, asked of edges in several ways.
fn relay(edges: Vec<(SocketAddr, SocketAddr)>, seen: &Arc<Mutex<Vec<String>>>) -> Origin {
    let seen = seen.clone();
    Origin::start(move |asked| {
        let host = asked.field("host").unwrap_or("shop.test").to_owned();
        let ask = |target: &str| Ask::get(target).host(&host);
        let mut found = Answer::new(404, "");
        for (http, https) in &edges {
            if std::net::TcpStream::connect(http).is_err() {
                // It is not up yet.
                continue;
            }
            let reply = Conn::open(*http).ask(&ask(&asked.target));
            if !reply.text().contains('.') {
                continue;
            }
            let other = format!("{}x", asked.target);
            let post = Ask::post(&asked.target, "x").host(&host);
            let mut said = seen.lock().expect("no panic");
            said.push(format!("h1 {}", reply.text()));
            said.push(format!(
                "h2 {}",
                H2::plain(*http).ask(&ask(&asked.target)).text()
            ));
            let anyone = certs::client_of_anyone(&["http/1.1"]);
            if let Ok(mut conn) = Conn::tls_with(*https, "shop.test", anyone) {
                said.push(format!("tls {}", conn.ask(&ask(&asked.target)).text()));
            }
            said.push(format!(
                "other {}",
                Conn::open(*http).ask(&ask(&other)).text()
            ));
            said.push(format!("post {}", Conn::open(*http).ask(&post).text()));
            found = Answer::ok(reply.text());
        }
        found
    })
}

#[test]
fn a_pending_page_is_answered_before_all_routes_by_every_protocol_and_no_other_is() {
    let setup = Setup::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let here = (setup.address("HTTP"), setup.address("HTTPS"));
    let relay = relay(vec![here], &seen);
    let wishes = Wishes {
        http: relay.address,
        ..wishes(&setup)
    };
    let Some(pebble) = Pebble::start(&wishes) else {
        return;
    };
    let edge = with(setup, &pebble).start(
        r#"
        [tls]
        certificates = [{ cert = "shop.pem", key = "shop.key" }]
        acme = { hosts = ["shop.test"], storage = "@DIR@/acme", directory = "@DIRECTORY@", ca = "ca.pem" }
        [[route]]
        match = { listener = "plain" }
        redirect = { to = "https://{host}{path}" }
        [[route]]
        respond = { body = "ok" }
        "#,
    );
    // Until then the file is shown, for the same name.
    await_issued(&edge, &pebble, 1.0);
    let seen = seen.lock().expect("no panic").clone();
    let page = seen[0].strip_prefix("h1 ").expect("the first way");
    let expected = [
        format!("h1 {page}"),
        format!("h2 {page}"),
        format!("tls {page}"),
    ];
    assert_eq!(seen[..3], expected);
    assert!(
        !seen[3].contains(page) && !seen[4].contains(page),
        "{seen:?}"
    );
    shown_to(pebble.client(&["http/1.1"]), edge.https(), "shop.test").expect("the new one");
    let others = certs::client(&["http/1.1"], rustls::ALL_VERSIONS);
    shown_to(others, edge.https(), "www.shop.test").expect("the file, for other names");
}

#[test]
fn a_renewal_comes_when_the_authority_wishes_it_and_not_again_at_once() {
    let setup = Setup::new();
    let Some(pebble) = Pebble::start(&wishes(&setup)) else {
        return;
    };
    // Pebble without renewal information, and somebody in front who adds it.
    let list = Conn::tls(pebble.address, "127.0.0.1")
        .ask(&Ask::get("/dir").host(&pebble.address.to_string()));
    let list: serde_json::Value = serde_json::from_slice(&list.expect(200).body).expect("JSON");
    let (certificate, _) = certs::write(setup.folder(), "front", &["127.0.0.1"]);
    let window = Arc::new(Mutex::new(("2040-01-01T00:00:00Z", "2040-01-02T00:00:00Z")));
    let asked = Arc::new(Mutex::new(Vec::new()));
    let own = Arc::new(Mutex::new(String::new()));
    let (windows, paths, address) = (window.clone(), asked.clone(), own.clone());
    let front = TlsNode::answering(setup.folder(), "front", move |target| {
        let body = match target.strip_prefix("/ari/") {
            Some(id) => {
                paths.lock().expect("no panic").push(id.to_owned());
                let (start, end) = *windows.lock().expect("no panic");
                serde_json::json!({ "suggestedWindow": { "start": start, "end": end } })
            }
            None => {
                let mut list = list.clone();
                let base = address.lock().expect("no panic").clone();
                list["renewalInfo"] = format!("{base}/ari").into();
                list
            }
        };
        let mut answer = Response::new(Full::new(Bytes::from(body.to_string())));
        let hour = HeaderValue::from_static("3600");
        answer.headers_mut().insert("retry-after", hour);
        answer
    });
    assert!(certificate.is_file());
    *own.lock().expect("no panic") = format!("https://{}", front.address);
    let mut edge = setup
        .with("DIRECTORY", format!("https://{}/dir", front.address))
        .start(&site(r#""shop.test""#, ""));
    await_issued(&edge, &pebble, 1.0);
    let first = shown(edge.https(), "shop.test").expect("a certificate");
    wait::eventually("the wish to be known", wait::SOON, || {
        told(&edge)[0]["next_order_by"] == "authority"
    });
    let next = told(&edge)[0]["next_order_seconds"].as_u64();
    // It is good for a week, and not let run out, whatever is wished.
    let days = |days: u64| now() + days * 86_400;
    let before_its_end = days(6)..days(7);
    assert!(
        next.is_some_and(|next| before_its_end.contains(&next)),
        "{next:?}"
    );
    let id = asked.lock().expect("no panic")[0].clone();
    let (authority, serial) = id.split_once('.').expect("two parts");
    assert!(authority.len() > 20 && serial.len() > 6, "{id}");

    // It wishes it now, and has had it for a while.
    *window.lock().expect("no panic") = ("2020-01-01T00:00:00Z", "2020-01-02T00:00:00Z");
    let kept = files(&edge.folder().join("acme/certificates"));
    let file = std::fs::File::options().write(true).open(&kept[0]);
    let earlier = std::time::UNIX_EPOCH + wait::secs(now() - 7200);
    file.and_then(|file| file.set_modified(earlier))
        .expect("older");
    edge.restart(Signal::SIGTERM);
    await_issued(&edge, &pebble, 1.0);
    assert_ne!(shown(edge.https(), "shop.test").expect("another"), first);
    // It goes on wishing it.
    wait::eventually("the next one to wait", wait::SOON, || {
        let next = told(&edge)[0]["next_order_seconds"].as_u64();
        next.is_some_and(|next| next > now() + 3000)
    });
    assert_eq!(edge.metric(ISSUED), 1.0);
}

#[test]
fn two_processes_that_share_a_storage_make_one_order() {
    let (one, two) = (Setup::new(), Setup::new());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let places = [&one, &two].map(|setup| (setup.address("HTTP"), setup.address("HTTPS")));
    let relay = relay(places.to_vec(), &seen);
    let wishes = Wishes {
        http: relay.address,
        ..wishes(&one)
    };
    let Some(pebble) = Pebble::start(&wishes) else {
        return;
    };
    let text = r#"
        [tls]
        acme = { hosts = ["shop.test"], storage = "@SHARED@", directory = "@DIRECTORY@", ca = "ca.pem" }
        [[route]]
        respond = { body = "ok" }
        "#;
    let shared = one.folder().join("shared").display().to_string();
    let one = with(one, &pebble).with("SHARED", &shared).start(text);
    let two = with(two, &pebble).with("SHARED", &shared).start(text);
    let both = wait::try_until(PATIENCE, || {
        let certificates = [&one, &two].map(|edge| shown(edge.https(), "shop.test").ok());
        matches!(&certificates, [Some(a), Some(b)] if a == b).then_some(())
    });
    assert!(both.is_some(), "{}\n{}", one.stderr(), two.stderr());
    assert_eq!(one.metric(ISSUED) + two.metric(ISSUED), 1.0);
}

#[test]
fn a_reload_adds_certificates_and_leaves_those_that_stay_alone() {
    let setup = Setup::new();
    let Some(pebble) = Pebble::start(&wishes(&setup)) else {
        return;
    };
    let edge = with(setup, &pebble).start(&site(r#""shop.test""#, ""));
    await_issued(&edge, &pebble, 1.0);
    let first = shown(edge.https(), "shop.test").expect("a certificate");
    edge.rewrite(
        r#"
        [tls]
        acme = [
            { hosts = ["shop.test"], storage = "@DIR@/acme", directory = "@DIRECTORY@", ca = "ca.pem" },
            { hosts = ["blog.test"], storage = "@DIR@/acme", directory = "@DIRECTORY@", ca = "ca.pem" },
        ]
        [[route]]
        respond = { body = "ok" }
        "#,
    );
    edge.reload(true);
    await_issued(&edge, &pebble, 2.0);
    assert_eq!(shown(edge.https(), "shop.test").expect("the same"), first);
    let blog = shown(edge.https(), "blog.test").expect("a certificate");
    assert_ne!(blog, first);
    // Taken out and put in again: it is still in the storage.
    edge.rewrite(&site(r#""shop.test""#, ""));
    edge.reload(true);
    assert_eq!(told(&edge).len(), 1);
    assert_eq!(shown(edge.https(), "blog.test").expect("the other"), first);
    edge.rewrite(&site(r#""blog.test""#, ""));
    edge.reload(true);
    assert_eq!(shown(edge.https(), "blog.test").expect("at once"), blog);
    assert_eq!(edge.metric(ISSUED), 2.0);
}

#[test]
fn a_storage_that_cannot_be_used_is_told_at_the_start() {
    let setup = Setup::new().file("acme", "a file where a folder is to be");
    let toml = site(r#""shop.test""#, "").replace("@DIRECTORY@", "https://acme.test/dir");
    let path = setup.write(&toml);
    let run_it: [&[&str]; 2] = [&["check"], &["run", "--config"]];
    for arguments in run_it {
        let mut command = Command::new(binary());
        let said = run(command.args(arguments).arg(&path), wait::SOON);
        assert_eq!(said.code, Some(2), "{arguments:?}: {said:?}");
        let names = said.stderr.contains("[tls] acme: storage ") && said.stderr.contains("make it");
        assert!(names, "{said:?}");
    }
}
