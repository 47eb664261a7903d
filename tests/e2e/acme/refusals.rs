//! Orders that come to nothing: names that lead somewhere else, an authority that was asked too
//! often, a profile that it does not have. What is told, and how long it waits.

use nix::sys::signal::Signal;
use serde_json::json;

use super::{PATIENCE, await_issued, cert, site, wishes, with};
use crate::support::acme_front::{Front, refusal};
use crate::support::pebble::{Pebble, Wishes, now, told};
use crate::support::{Answer, Ask, Conn, Edge, Origin, Setup, ports, wait};

fn orders(outcome: &str) -> String {
    format!("tidegate_acme_orders_total{{outcome=\"{outcome}\"}}")
}

/// Waits until the first order of this process has ended so.
#[track_caller]
fn await_ended(edge: &Edge, pebble: &Pebble, outcome: &str) {
    let series = orders(outcome);
    let done = wait::try_until(PATIENCE, || (edge.metric(&series) >= 1.0).then_some(()));
    assert!(
        done.is_some(),
        "no order was {outcome}\n{}\n{}",
        edge.stderr(),
        pebble.log()
    );
}

/// Waits until a line of the log has all of these.
#[track_caller]
fn await_line(edge: &Edge, words: &[&str]) {
    let came = wait::try_until(wait::SOON, || {
        let log = edge.stderr();
        let mut lines = log.lines();
        let found = lines.any(|line| words.iter().all(|word| line.contains(word)));
        found.then_some(())
    });
    assert!(
        came.is_some(),
        "no line has all of {words:?}\n{}",
        edge.stderr()
    );
}

/// When the next order is due, once so many failed in a row and it is so many seconds away.
#[track_caller]
fn next_after(edge: &Edge, failures: u32, (least, most): (u64, u64)) -> u64 {
    let what = format!("a pause of {least} to {most} seconds after {failures} failures");
    wait::until(&what, wait::SOON, || {
        let all = told(edge);
        let next = all[0]["next_order_seconds"].as_u64()?;
        let pause = next.saturating_sub(now());
        let is_so = all[0]["failures"] == failures
            && all[0]["next_order_by"] == "failure"
            && (least..=most).contains(&pause);
        is_so.then_some(next)
    })
}

#[test]
fn names_that_lead_somewhere_else_cost_one_order_and_then_it_waits_longer_and_longer() {
    let setup = Setup::new();
    let elsewhere = ports::free();
    let Some(pebble) = Pebble::start(&Wishes {
        http: elsewhere,
        ..wishes(&setup)
    }) else {
        return;
    };
    let front = Front::of(&pebble, setup.folder(), |_| None);
    let mut edge = setup
        .with("DIRECTORY", front.directory())
        .start(&site(r#""shop.test""#, ""));
    // Nobody is there.
    await_ended(&edge, &pebble, "challenge");
    await_line(
        &edge,
        &[
            "no certificate: the authority refuses: shop.test: ",
            "can port 80 of each name be reached from the internet",
            "failures=1",
        ],
    );
    // Five minutes and up to a quarter more, and what this test took meanwhile.
    let first = (240, 375);
    let next = next_after(&edge, 1, first);
    let said = cert(&edge, &["list"]);
    assert!(
        said.stdout.contains("tried again after a failure") && said.stdout.contains("port 80"),
        "{said:?}"
    );
    wait::always("no second order", wait::secs(1), || {
        front.orders().len() == 1
    });
    assert_eq!(edge.metric(&orders("challenge")), 1.0);
    // Nor does a start make one.
    edge.restart(Signal::SIGTERM);
    assert_eq!(next_after(&edge, 1, first), next);
    wait::always("no second order", wait::secs(1), || {
        front.orders().len() == 1
    });
    assert_eq!(edge.metric(&orders("challenge")), 0.0);

    let other = Origin::start_at(elsewhere, |_| Answer::ok("another site"));
    let said = cert(&edge, &["issue"]);
    assert_eq!(said.code, Some(1), "{said:?}\n{}", pebble.log());
    assert!(
        said.stdout.contains("shop.test: failed: ")
            && said.stdout.contains("somebody else answered on port 80"),
        "{said:?}"
    );
    assert!(other.count() > 0);
    assert_eq!(edge.metric(&orders("challenge")), 1.0);
    await_line(
        &edge,
        &[
            "no certificate: ",
            "somebody else answered on port 80: do all A and AAAA records lead to this edge?",
            "failures=2",
        ],
    );
    next_after(&edge, 2, (540, 750));
    assert_eq!(front.orders().len(), 2);

    // They lead here at last.
    drop(other);
    let http = edge.http();
    let _here = Origin::start_at(elsewhere, move |asked| {
        let host = asked.field("host").unwrap_or_default();
        let reply = Conn::open(http).ask(&Ask::get(&asked.target).host(host));
        Answer::new(reply.status, reply.body)
    });
    let said = cert(&edge, &["issue"]);
    assert_eq!(said.code, Some(0), "{said:?}\n{}", pebble.log());
    assert_eq!(told(&edge)[0]["failures"], 0);
    assert_eq!(front.orders().len(), 3);
}

#[test]
fn a_tls_port_that_leads_nowhere_is_told_with_what_to_look_at() {
    let setup = Setup::new();
    let Some(pebble) = Pebble::start(&Wishes {
        tls: ports::free(),
        ..wishes(&setup)
    }) else {
        return;
    };
    let edge = with(setup, &pebble).start(&site(r#""shop.test""#, r#"challenge = "tls-alpn-01""#));
    await_ended(&edge, &pebble, "challenge");
    // Authorities do not agree on what to call it.
    await_line(
        &edge,
        &[
            "no certificate: the authority refuses: shop.test: ",
            "port 443",
            "with nothing in between that ends TLS",
            "failures=1",
        ],
    );
    next_after(&edge, 1, (240, 375));
}

#[test]
fn an_authority_that_was_asked_too_often_is_left_alone_for_as_long_as_it_says() {
    let setup = Setup::new();
    let Some(pebble) = Pebble::start(&wishes(&setup)) else {
        return;
    };
    // More than the hour, and a quarter, that it would wait by itself.
    let wanted = 9000_u64;
    let front = Front::of(&pebble, setup.folder(), move |_| {
        Some(refusal(429, "rateLimited").field("Retry-After", &wanted.to_string()))
    });
    let began = now();
    let mut edge = setup
        .with("DIRECTORY", front.directory())
        .start(&site(r#""shop.test""#, ""));
    await_ended(&edge, &pebble, "rate_limited");
    await_line(
        &edge,
        &[
            "no certificate: the authority refuses: not today (urn:ietf:params:acme:error:rateLimited)",
            "not before the authority allows",
            "Try changes with its staging directory",
            "failures=1",
            "next_try_in_minutes=150",
        ],
    );
    let pause = (wanted - 200, wanted);
    let next = next_after(&edge, 1, pause);
    assert!(
        next >= began + wanted,
        "{next} is before {began} + {wanted}"
    );
    // A start does not forget it.
    edge.restart(Signal::SIGTERM);
    assert_eq!(next_after(&edge, 1, pause), next);
    wait::always("no second order", wait::secs(1), || {
        front.orders().len() == 1
    });
    assert_eq!(edge.metric(&orders("rate_limited")), 0.0);
    assert_eq!(edge.get("/").expect(200).text(), "ok");
}

#[test]
fn an_order_says_which_profile_is_wanted_and_nothing_where_none_is() {
    let setup = Setup::new();
    let Some(pebble) = Pebble::start(&wishes(&setup)) else {
        return;
    };
    // Its directory says nothing of profiles.
    let front = Front::of(&pebble, setup.folder(), |order| {
        let is_wanted = order.get("profile").is_some();
        is_wanted.then(|| refusal(400, "invalidProfile"))
    });
    let edge = setup
        .with("DIRECTORY", front.directory())
        .start(&site(r#""shop.test""#, r#"profile = "shortlived""#));
    await_ended(&edge, &pebble, "refused");
    await_line(
        &edge,
        &[
            "no certificate: the authority refuses: ",
            "see `profile`: this authority does not have it",
        ],
    );
    // Other settings do not wait.
    edge.rewrite(&site(r#""shop.test""#, ""));
    edge.reload(true);
    await_issued(&edge, &pebble, 1.0);
    let names = json!([{ "type": "dns", "value": "shop.test" }]);
    let with_it = json!({ "identifiers": names, "profile": "shortlived" });
    let without = json!({ "identifiers": names });
    assert_eq!(front.orders(), [with_it, without]);
}
