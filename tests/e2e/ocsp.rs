//! OCSP stapling, with `openssl ocsp` as the responder and `openssl s_client` as the client; answers
//! that openssl does not give are made here.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use quinn::TransportConfig;
use serde_json::Value;

use crate::support::edge::binary;
use crate::support::h3::Client;
use crate::support::ocsp::{Authority, good, revoked};
use crate::support::pebble::{Pebble, Wishes};
use crate::support::tools::{run, tool};
use crate::support::{Answer, Edge, Origin, Setup, certs, ports, wait};

const SITE: &str = r#"
[tls]
certificates = [{ cert = "ocsp.pem", key = "ocsp.key" }]
[[route]]
respond = { body = "ok" }
"#;

const GOOD: &str = r#"tidegate_ocsp_fetches_total{name="shop.test",source="file",outcome="good"}"#;
const NEXT_UPDATE: &str = "tidegate_ocsp_next_update_timestamp_seconds";
const NONE: &str = "OCSP response: no response sent";

/// An edge that was not started, the authority of its certificate and where the responder is to be.
fn ready(openssl: &Path) -> (Setup, Authority, SocketAddr) {
    let setup = Setup::new();
    let responder = ports::free();
    let authority = Authority::new(openssl, setup.folder(), responder);
    (setup, authority, responder)
}

fn fetches(outcome: &str) -> String {
    format!("tidegate_ocsp_fetches_total{{outcome=\"{outcome}\"}}")
}

/// The pauses after two failures, and the machine's leisure.
const PATIENCE: Duration = Duration::from_secs(40);

#[track_caller]
fn await_fetched(edge: &Edge, outcome: &str, least: f64) {
    let series = fetches(outcome);
    let done = wait::try_until(PATIENCE, || (edge.metric(&series) >= least).then_some(()));
    assert!(done.is_some(), "{series} < {least}\n{}", edge.stderr());
}

/// Of TLS 1.3 and 1.2, where it stands in different messages.
#[track_caller]
fn assert_stapled(authority: &Authority, edge: &Edge) {
    for version in ["-tls1_3", "-tls1_2"] {
        let said = authority.status(edge.https(), version);
        assert!(
            said.contains("OCSP Response Status: successful") && said.contains("Cert Status: good"),
            "{version}: {said}\n{}",
            edge.stderr()
        );
    }
}

#[track_caller]
fn assert_nothing_stapled(authority: &Authority, edge: &Edge) {
    for version in ["-tls1_3", "-tls1_2"] {
        let said = authority.status(edge.https(), version);
        assert!(said.contains(NONE), "{version}: {said}\n{}", edge.stderr());
    }
}

/// Of the first certificate.
fn told(edge: &Edge) -> Value {
    edge.json("/certificates")[0]["ocsp"].clone()
}

fn cert_list(edge: &Edge) -> String {
    let file = edge.folder().join("tidegate.toml");
    let mut command = Command::new(binary());
    command.args(["cert", "list", "--config"]).arg(file);
    let said = run(&mut command, wait::SOON);
    assert_eq!(said.code, Some(0), "{said:?}");
    said.stdout
}

#[test]
fn a_good_response_is_stapled_and_outlives_a_reload() {
    let openssl = tool!("openssl", "openssl");
    let (setup, authority, address) = ready(&openssl);
    let responder = authority.responder(address, "issuer", false);
    let config = format!(
        "[[listener]]\naddress = \"@HTTPS@\"\ntls = true\nprotocols = [\"h1\", \"h2\", \"h3\"]\n{SITE}"
    );
    let edge = setup.start(&config);
    await_fetched(&edge, "good", 1.0);
    edge.await_stderr("an OCSP response is stapled");
    assert_stapled(&authority, &edge);
    // Over QUIC as well.
    let (tls, stapled) = certs::client_of_staples(&["h3"]);
    Client::speaking(tls, TransportConfig::default()).connect(edge.https());
    let octets = stapled.lock().unwrap().clone();
    assert!(octets.len() > 100, "{octets:?}");

    let week = 7.0 * 86_400.0;
    let this = edge.metric("tidegate_ocsp_this_update_timestamp_seconds");
    assert_eq!(edge.metric(NEXT_UPDATE) - this, week);
    assert_eq!(edge.metric("tidegate_ocsp_revoked"), 0.0);
    assert!(edge.has_metric("tidegate_ocsp_revoked{name=\"shop.test\"}"));
    let said = told(&edge);
    assert_eq!(said["stapled"], true, "{said}");
    assert_eq!(said["responder"], format!("http://{address}/"), "{said}");
    let list = cert_list(&edge);
    assert!(list.contains("  ocsp      stapled, until "), "{list}");

    // Nobody answers any more, and nobody has to.
    drop(responder);
    edge.rewrite(&config.replace("\"ok\"", "\"new\""));
    edge.reload(true);
    assert_stapled(&authority, &edge);
    assert_eq!(edge.metric(GOOD), 1.0, "no other was asked for");
    assert_eq!(edge.metric(&fetches("unreachable")), 0.0);
}

#[test]
fn a_revoked_certificate_is_said_loudly_and_not_stapled() {
    let openssl = tool!("openssl", "openssl");
    let (setup, authority, address) = ready(&openssl);
    let _responder = authority.responder(address, "issuer", true);
    let edge = setup.start(SITE);
    await_fetched(&edge, "revoked", 1.0);
    edge.await_stderr("this certificate is REVOKED");
    assert_eq!(
        edge.metric("tidegate_ocsp_revoked{name=\"shop.test\"}"),
        1.0
    );
    assert!(!edge.has_metric(NEXT_UPDATE));
    assert_nothing_stapled(&authority, &edge);
    let list = cert_list(&edge);
    assert!(
        list.contains("the certificate is REVOKED since Thu, 01 Jan 2026"),
        "{list}"
    );
}

#[test]
fn a_responder_that_is_down_is_asked_again() {
    let openssl = tool!("openssl", "openssl");
    let (setup, authority, address) = ready(&openssl);
    let edge = setup.start(SITE);
    await_fetched(&edge, "unreachable", 1.0);
    edge.await_stderr("no OCSP response, nothing is stapled: no connection");
    assert_nothing_stapled(&authority, &edge);
    let said = told(&edge);
    assert_eq!(said["stapled"], false, "{said}");
    assert!(said["failures"].as_u64() >= Some(1), "{said}");
    let _responder = authority.responder(address, "issuer", false);
    await_fetched(&edge, "good", 1.0);
    assert_stapled(&authority, &edge);
    assert_eq!(told(&edge)["failures"], 0);
}

#[test]
fn a_delegate_of_the_issuer_may_sign() {
    let openssl = tool!("openssl", "openssl");
    let (setup, authority, address) = ready(&openssl);
    authority.delegate("delegate");
    let _responder = authority.responder(address, "delegate", false);
    let edge = setup.start(SITE);
    await_fetched(&edge, "good", 1.0);
    assert_stapled(&authority, &edge);
}

#[test]
fn what_another_authority_signed_is_not_stapled() {
    let openssl = tool!("openssl", "openssl");
    let (setup, authority, address) = ready(&openssl);
    authority.root("stranger");
    let _responder = authority.responder(address, "stranger", false);
    let edge = setup.start(SITE);
    await_fetched(&edge, "invalid", 1.0);
    edge.await_stderr("the answer is signed neither by the certificate's issuer");
    assert_nothing_stapled(&authority, &edge);
}

/// A responder that is asked at this address and says what `life` (since when, how long still) tells,
/// or 503.
fn teller(
    authority: &Authority,
    address: SocketAddr,
    life: Arc<Mutex<Option<(u64, u64)>>>,
) -> Origin {
    let key = authority.key();
    Origin::start_at(address, move |seen| {
        assert_eq!((seen.method.as_str(), seen.target.as_str()), ("POST", "/"));
        assert_eq!(seen.field("content-type"), Some("application/ocsp-request"));
        let life = *life.lock().unwrap();
        match life {
            None => Answer::new(503, "later"),
            Some((begun, left)) => {
                let (begun, left) = (Duration::from_secs(begun), Duration::from_secs(left));
                Answer::ok(good(&seen.body, &key, begun, left))
            }
        }
    })
}

#[test]
fn an_old_response_is_stapled_until_its_end_and_no_longer() {
    let openssl = tool!("openssl", "openssl");
    let (setup, authority, address) = ready(&openssl);
    let life = Arc::new(Mutex::new(Some((3600, 12))));
    let _responder = teller(&authority, address, life.clone());
    let edge = setup.start(SITE);
    await_fetched(&edge, "good", 1.0);
    let ends = edge.metric(NEXT_UPDATE);
    *life.lock().unwrap() = None;
    assert_stapled(&authority, &edge);
    // Past half of its life it is asked for anew, in vain: the old one stays.
    await_fetched(&edge, "refused", 1.0);
    edge.await_stderr("no new OCSP response, the old one is stapled until then");
    assert_stapled(&authority, &edge);
    edge.await_stderr("the last OCSP response is over");
    assert_nothing_stapled(&authority, &edge);
    assert!(!edge.has_metric(NEXT_UPDATE), "it ended at {ends}");
}

#[test]
fn a_response_is_renewed_before_its_end() {
    let openssl = tool!("openssl", "openssl");
    let (setup, authority, address) = ready(&openssl);
    let life = Arc::new(Mutex::new(Some((3600, 30))));
    let responder = teller(&authority, address, life.clone());
    let edge = setup.start(SITE);
    await_fetched(&edge, "good", 1.0);
    let first = edge.metric(NEXT_UPDATE);
    *life.lock().unwrap() = Some((0, 86_400));
    await_fetched(&edge, "good", 2.0);
    assert!(edge.metric(NEXT_UPDATE) > first + 80_000.0);
    assert_stapled(&authority, &edge);
    assert_eq!(responder.count(), 2);
}

#[test]
fn an_older_response_does_not_take_the_place_of_a_newer_one() {
    let openssl = tool!("openssl", "openssl");
    let (setup, authority, address) = ready(&openssl);
    let life = Arc::new(Mutex::new(Some((3600, 30))));
    let _responder = teller(&authority, address, life.clone());
    let edge = setup.start(SITE);
    await_fetched(&edge, "good", 1.0);
    let ends = edge.metric(NEXT_UPDATE);
    // Valid for longer than the one that is there, and from before it.
    *life.lock().unwrap() = Some((7200, 86_400));
    await_fetched(&edge, "older", 1.0);
    edge.await_stderr("the answer is older than one before it");
    assert_eq!(edge.metric(NEXT_UPDATE), ends, "the newer one stays");
    assert_stapled(&authority, &edge);
    *life.lock().unwrap() = Some((0, 86_400));
    await_fetched(&edge, "good", 2.0);
    assert!(edge.metric(NEXT_UPDATE) > ends + 80_000.0);
}

#[test]
fn a_response_that_is_over_is_not_stapled() {
    let openssl = tool!("openssl", "openssl");
    let (setup, authority, address) = ready(&openssl);
    let key = authority.key();
    let _responder = Origin::start_at(address, move |seen| {
        // Over for ten seconds: it has an end before it begins to be looked at.
        let hour = Duration::from_secs(3600);
        Answer::ok(good(&seen.body, &key, hour, Duration::ZERO))
    });
    let edge = setup.start(SITE);
    await_fetched(&edge, "invalid", 1.0);
    edge.await_stderr("the answer is over since");
    assert_nothing_stapled(&authority, &edge);
}

#[test]
fn a_responder_that_stays_silent_holds_up_nobody() {
    let openssl = tool!("openssl", "openssl");
    let (setup, authority, address) = ready(&openssl);
    let asked = Arc::new(AtomicBool::new(false));
    let was_asked = asked.clone();
    let _responder = Origin::start_at(address, move |_| {
        was_asked.store(true, Ordering::Relaxed);
        Answer::ok("").after(Duration::from_secs(30))
    });
    let edge = setup.start(SITE);
    wait::eventually("the responder to be asked", wait::SOON, || {
        asked.load(Ordering::Relaxed)
    });
    assert_nothing_stapled(&authority, &edge);
    await_fetched(&edge, "unreachable", 1.0);
    edge.await_stderr("no whole answer within 10s");
}

#[test]
fn what_cannot_be_stapled_is_said_once_and_nobody_is_asked() {
    let openssl = tool!("openssl", "openssl");
    let (setup, authority, address) = ready(&openssl);
    let whole = std::fs::read_to_string(setup.folder().join("ocsp.pem")).unwrap();
    let end = "-----END CERTIFICATE-----\n";
    let leaf = whole.split_inclusive(end).next().unwrap();
    std::fs::write(setup.folder().join("alone.pem"), leaf).unwrap();
    authority.leaf("must", "tlsfeature=status_request\n");
    let responder = Origin::start_at(address, |_| Answer::new(500, ""));
    let edge = setup.start(
        r#"
        [tls]
        certificates = [{ cert = "alone.pem", key = "ocsp.key" }, { cert = "must.pem", key = "must.key" }]
        [[route]]
        respond = { body = "ok" }
        "#,
    );
    edge.await_stderr("the chain does not have the certificate that issued it");
    edge.await_stderr("(must-staple): the certificate names no OCSP responder");
    edge.reload(true);
    edge.rewrite(&SITE.replace("[tls]", "[tls]\nocsp_stapling = false"));
    edge.reload(true);
    wait::hold(Duration::from_millis(1500));
    let log = edge.stderr();
    assert_eq!(log.matches("nothing is stapled").count(), 2, "{log}");
    assert_eq!(responder.count(), 0);
    assert!(!edge.has_metric("tidegate_ocsp_revoked"));
    assert_eq!(told(&edge)["why_not"], "[tls] has ocsp_stapling = false");
    assert_nothing_stapled(&authority, &edge);
}

#[test]
fn a_certificate_of_acme_is_stapled_and_ordered_anew_when_it_is_revoked() {
    let setup = Setup::new();
    let responder = ports::free();
    let wishes = Wishes {
        http: setup.address("HTTP"),
        tls: setup.address("HTTPS"),
        life: 7 * 86_400,
        dns: None,
        ocsp: Some(responder),
        external: None,
    };
    let Some(pebble) = Pebble::start(&wishes) else {
        return;
    };
    let key = rcgen::KeyPair::from_pem(&pebble.key()).expect("a key");
    // Of the first request: it names the first certificate, which is revoked once it was good.
    let first: Mutex<Option<Vec<u8>>> = Mutex::new(None);
    let _responder = Origin::start_at(responder, move |seen| {
        let mut first = first.lock().unwrap();
        let (hour, short) = (Duration::from_secs(3600), Duration::from_secs(12));
        Answer::ok(match &*first {
            None => {
                *first = Some(seen.body.clone());
                good(&seen.body, &key, hour, short)
            }
            Some(known) if *known == seen.body => revoked(&seen.body, &key),
            Some(_) => good(&seen.body, &key, Duration::ZERO, 24 * hour),
        })
    });
    let edge = setup.with("DIRECTORY", pebble.directory()).start(
        r#"
        [tls]
        acme = { hosts = ["shop.test"], storage = "@DIR@/acme", directory = "@DIRECTORY@", ca = "ca.pem" }
        [[route]]
        respond = { body = "ok" }
        "#,
    );
    let stapled = || {
        let (tls, stapled) = certs::client_of_staples(&["http/1.1"]);
        crate::support::pebble::shown_to(Arc::new(tls), edge.https(), "shop.test").ok()?;
        let octets = stapled.lock().unwrap().clone();
        (!octets.is_empty()).then_some(octets)
    };
    let old = wait::until("a staple", PATIENCE, stapled);
    edge.await_stderr("an OCSP response is stapled");
    let issued = r#"tidegate_acme_orders_total{outcome="issued"}"#;
    let is_done = wait::try_until(PATIENCE, || (edge.metric(issued) >= 2.0).then_some(()));
    assert!(is_done.is_some(), "{}\n{}", edge.stderr(), pebble.log());
    edge.await_stderr("this certificate is REVOKED");
    edge.await_stderr("another certificate is ordered in its place");
    wait::eventually("the new one to be stapled", PATIENCE, || {
        stapled().is_some_and(|new| new != old)
    });
    assert_eq!(edge.metric(issued), 2.0);
    assert_eq!(edge.metric("tidegate_ocsp_revoked"), 0.0);
}
