//! What is decided without asking anybody.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::super::addresses::{Addresses, has_route};
use conf::discovered::Format;

use super::super::document;
use super::super::known::Known;
use super::super::srv::{Service, rank};
use super::super::{DiscoveryError, MOST, Part, Trouble, url};
use super::endpoint;
use crate::clock;

fn addresses(v4: u8, v6: u16) -> Addresses {
    Addresses::new(
        (1..=v4).map(|n| Ipv4Addr::new(10, 0, 0, n)).collect(),
        (1..=v6)
            .map(|n| Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n))
            .collect(),
    )
}

fn taken(v4: u8, v6: u16, has_route: impl Fn(SocketAddr) -> bool) -> Vec<String> {
    let targets = addresses(v4, v6).targets(80, has_route);
    targets.iter().map(super::super::Target::id).collect()
}

#[test]
fn of_two_families_with_several_addresses_one_is_taken() {
    let v4 = ["10.0.0.1:80", "10.0.0.2:80"];
    let v6 = ["[fd00::1]:80", "[fd00::2]:80"];
    assert_eq!(taken(2, 2, |_| true), v6, "even: IPv6");
    assert_eq!(taken(2, 2, |to| to.is_ipv4()), v4, "no route by IPv6");
    assert_eq!(taken(2, 2, |to| to.is_ipv6()), v6);
    assert_eq!(taken(2, 2, |_| false), v6);
    assert_eq!(taken(2, 1, |_| true), v4, "no node is lost");
    assert_eq!(taken(2, 1, |to| to.is_ipv6()), v6[..1], "the only way");
    assert_eq!(taken(1, 2, |_| true), v6);
    assert_eq!(taken(0, 2, |_| false), v6, "no choice");
    assert_eq!(taken(2, 0, |_| false), v4);
    assert_eq!(
        taken(1, 1, |_| false),
        v4[..1],
        "one node, whatever the routes"
    );
    assert!(taken(0, 0, |_| true).is_empty());
}

#[test]
fn loopback_has_a_route_and_nothing_is_sent_there() {
    let listener = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("set");
    let address = listener.local_addr().expect("an address");
    assert!(has_route(address));
    assert!(listener.recv(&mut [0; 8]).is_err(), "a packet came");
    let port_zero_is_no_route = SocketAddr::from(([255, 255, 255, 255], 80));
    assert!(!has_route(port_zero_is_no_route), "broadcast needs leave");
}

fn service(priority: u16, weight: u16) -> Service {
    Service {
        priority,
        weight,
        target: "node.test.".into(),
        port: 80,
    }
}

fn ranked(services: &[(u16, u16, usize)]) -> Vec<(u8, u32)> {
    let records: Vec<Service> = services.iter().map(|(p, w, _)| service(*p, *w)).collect();
    let counts: Vec<usize> = services.iter().map(|(_, _, count)| *count).collect();
    let ranks = rank(&records, &counts);
    ranks.iter().map(|(p, w)| (*p, w.get())).collect()
}

#[test]
fn srv_priorities_are_ranked_and_weights_scaled() {
    assert_eq!(
        ranked(&[(10, 5, 1), (500, 0, 1), (10, 1000, 1)]),
        [(0, 5), (1, 1), (0, 1000)]
    );
    assert_eq!(
        ranked(&[(0, 65535, 1), (0, 32768, 1), (0, 1, 1), (1, 7, 1)]),
        [(0, 1000), (0, 500), (0, 1), (1, 7)],
        "each priority is scaled by itself"
    );
    assert_eq!(
        ranked(&[(0, 1, 1), (0, 1, 2), (0, 1, 3)]),
        [(0, 6), (0, 3), (0, 2)],
        "addresses of one target share its weight"
    );
    assert_eq!(ranked(&[(0, 1, 0), (0, 1, 1)]), [(0, 1), (0, 1)]);
    let many: Vec<(u16, u16, usize)> = (0..15).map(|n| (n * 100, 1, 1)).collect();
    let ranks: Vec<u8> = ranked(&many).iter().map(|(rank, _)| *rank).collect();
    assert_eq!(ranks, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 9, 9, 9]);
    let primes = [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31];
    let many: Vec<(u16, u16, usize)> = primes.iter().map(|n| (0, 60000, *n)).collect();
    let weights = ranked(&many);
    assert_eq!(weights[0], (0, 1000));
    assert_eq!(weights[10], (0, 65), "2/31 of the largest: {weights:?}");
}

#[test]
fn retries_begin_after_a_second_and_slow_down_to_the_interval() {
    let start = clock::now();
    let every = Duration::from_secs(5);
    let error = || DiscoveryError::new(Part::All, Trouble::Timeout, "late");
    let mut known = Known::nothing(start);
    assert_eq!((known.due(), known.value()), (start, None));
    known.found(1, start, every);
    assert_eq!(known.due(), start + every);
    let mut now = start + every;
    for (times, wait) in [1, 2, 4, 5, 5].into_iter().enumerate() {
        let reported = known.failed(error(), now, every);
        assert_eq!(reported.is_repeated(), times > 0);
        assert_eq!(known.due(), now + Duration::from_secs(wait), "{times}");
        assert_eq!(known.value(), Some(&1));
        assert_eq!(known.as_of(), start);
        now = known.due();
    }
    known.confirmed(now, every);
    assert_eq!((known.as_of(), known.error()), (now, None));
    let other = DiscoveryError::new(Part::All, Trouble::Timeout, "otherwise");
    known.failed(error(), now, every);
    assert!(!known.failed(other, now, every).is_repeated());
    for _ in 0..100 {
        known.failed(error(), now, every);
    }
    assert_eq!(known.due(), now + every, "no overflow");
}

#[test]
fn polls_are_spread_by_a_tenth() {
    let every = Duration::from_secs(10);
    assert_eq!(url::spread(every, 0.0), Duration::from_secs(9));
    assert_eq!(url::spread(every, 0.5), every);
    assert!(url::spread(every, 0.999) < Duration::from_secs(11));
}

#[test]
fn a_list_is_read_in_both_formats() {
    let json = r#"{ "endpoints": ["10.0.0.1:80", "App.test:81", "unix:/run/a.sock",
        { "srv": "_http._tcp.test" },
        { "address": "10.0.0.2:80", "weight": 5, "priority": 2, "zone": "b" }] }"#;
    let toml = r#"endpoints = ["10.0.0.1:80", "app.test:81", "unix:/run/a.sock",
        { srv = "_http._tcp.test" },
        { address = "10.0.0.2:80", weight = 5, priority = 2, zone = "b" }]"#;
    let from_json = document::read(json, Format::Json, false).expect("JSON");
    let from_toml = document::read(toml, Format::Toml, false).expect("TOML");
    assert_eq!(from_json, from_toml);
    let mut wanted: Vec<conf::Endpoint> = [
        "10.0.0.1:80",
        "app.test:81",
        "unix:/run/a.sock",
        "srv:_http._tcp.test",
        "10.0.0.2:80",
    ]
    .map(endpoint)
    .into();
    wanted[4].weight = std::num::NonZeroU32::new(5).unwrap();
    wanted[4].priority = 2;
    wanted[4].zone = Some("b".into());
    assert_eq!(from_json, wanted);
    let bare = document::read(r#"["10.0.0.1:80"]"#, Format::Json, false).expect("a bare list");
    assert_eq!(bare, wanted[..1]);
}

#[test]
fn a_wrong_list_is_refused_with_its_place() {
    let wrong = |text: &str, format, kind: Trouble, says: &str| {
        let (found, reason) = document::read(text, format, false).expect_err(text);
        assert_eq!(found, kind, "{text}: {reason}");
        assert!(reason.contains(says), "{text}: {reason}");
    };
    let bad = Trouble::BadDocument;
    wrong(
        "[\n  \"10.0.0.1:80\",\n  \"10.0.0.1\"]",
        Format::Json,
        bad,
        "endpoint 2",
    );
    wrong(
        "endpoints = [\n\"10.0.0.1:80\",",
        Format::Toml,
        bad,
        "line 2",
    );
    wrong("[\"a.test:80\", \"a.test:80\"]", Format::Json, bad, "twice");
    wrong("{\"endpoint\": []}", Format::Json, bad, "endpoint");
    wrong(
        "[{\"address\": \"a.test:80\", \"weigth\": 1}]",
        Format::Json,
        bad,
        "weigth",
    );
    wrong("[{\"weight\": 1}]", Format::Json, bad, "no `address`");
    wrong("", Format::Json, bad, "line 1");
    wrong("[]", Format::Json, Trouble::NotFound, "no endpoint");
    assert_eq!(document::read("[]", Format::Json, true), Ok(vec![]));
    let many: Vec<String> = (0..=MOST).map(|n| format!("\"n{n}.test:80\"")).collect();
    let many = format!("[{}]", many.join(","));
    wrong(&many, Format::Json, bad, "10000");
}
