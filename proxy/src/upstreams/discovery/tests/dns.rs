//! Names: families, TTLs, changes, SRV, and what remains when the DNS fails.

use std::time::Duration;

use conf::Family;

use super::super::{Part, Target, Trouble};
use super::server::{Server, losing};
use super::{free, ids, names, source, until, until_ids, upstream};
use crate::clock;

const AAAA: u16 = 28;

#[tokio::test]
async fn addresses_and_sockets_need_no_look_up() {
    let settings = upstream(&["10.0.0.2:80", "unix:/run/a.sock", "10.0.0.1:80"], &[]);
    let mut source = source(&settings);
    assert!(source.is_fixed());
    let found = source.look_up().await.expect("endpoints");
    assert_eq!(
        ids(&found),
        ["10.0.0.2:80", "unix:/run/a.sock", "10.0.0.1:80"],
        "in the order of the file"
    );
    assert_eq!(names(&found), ids(&found));
    assert_eq!(found.again_in, Duration::MAX);
    assert!(found.failures.is_empty());
}

#[tokio::test]
async fn localhost_is_known_without_a_server() {
    let mut source = source(&upstream(&["localhost:80"], &[]));
    assert!(!source.is_fixed());
    let found = source.look_up().await.expect("loopback");
    assert_eq!(names(&found), ["localhost:80"]);
    assert_eq!(ids(&found), ["127.0.0.1:80"], "{found:?}");
}

#[tokio::test]
async fn one_address_in_each_family_is_one_node_dialled_by_ipv6_first() {
    let Some(server) = Server::dnsmasq("10.0.0.1 app.test\nfd00::1 app.test\n", &[]) else {
        return;
    };
    let mut settings = upstream(&["app.test:80"], &[server.address]);
    let found = source(&settings).look_up().await.expect("a node");
    assert_eq!(names(&found), ["app.test:80"]);
    assert_eq!(ids(&found), ["10.0.0.1:80"]);
    assert_eq!(
        found.endpoints[0].target,
        Target::Inet {
            first: "[fd00::1]:80".parse().unwrap(),
            second: Some("10.0.0.1:80".parse().unwrap()),
        }
    );
    settings.resolve.family = Family::Ipv6;
    let found = source(&settings).look_up().await.expect("a node");
    assert_eq!(ids(&found), ["[fd00::1]:80"]);
    settings.resolve.family = Family::Ipv4;
    let found = source(&settings).look_up().await.expect("a node");
    assert_eq!(ids(&found), ["10.0.0.1:80"]);
    assert!(
        matches!(found.endpoints[0].target, Target::Inet { second: None, .. }),
        "{found:?}"
    );
}

#[tokio::test]
async fn endpoints_follow_the_answers_and_stay_when_the_name_vanishes() {
    let Some(mut server) = Server::dnsmasq("127.0.0.2 app.test\n127.0.0.1 app.test\n", &[]) else {
        return;
    };
    let mut source = source(&upstream(&["app.test:80"], &[server.address]));
    let found = source.look_up().await.expect("two nodes");
    assert_eq!(ids(&found), ["127.0.0.1:80", "127.0.0.2:80"]);
    assert_eq!(names(&found), ids(&found), "two nodes do not share a name");
    assert!(found.again_in <= Duration::from_secs(1), "TTL: {found:?}");

    server.hosts("127.0.0.3 app.test\n127.0.0.1 app.test\n");
    let found = until_ids(&mut source, &["127.0.0.1:80", "127.0.0.3:80"]).await;
    assert!(found.failures.is_empty(), "{found:?}");

    server.hosts("");
    let failed = until(&mut source, "a failure", |looked| {
        looked
            .as_ref()
            .is_ok_and(|found| !found.failures.is_empty())
    });
    let found = failed.await.expect("the last known");
    assert_eq!(ids(&found), ["127.0.0.1:80", "127.0.0.3:80"]);
    let failure = &found.failures[0];
    assert_eq!(failure.kind(), Trouble::NotFound, "{failure}");
    assert_eq!(failure.part(), &Part::Name("app.test".into()));
    assert!(failure.is_definite() && !failure.is_repeated());
    assert!(found.as_of < clock::now() - Duration::from_millis(500));
    let again = until(&mut source, "a second failure", |looked| {
        looked
            .as_ref()
            .is_ok_and(|found| !found.failures.is_empty())
    });
    let again = again.await.expect("the last known");
    assert!(again.failures[0].is_repeated(), "{:?}", again.failures);

    server.stop();
    let dead = until(&mut source, "a server gone", |looked| {
        looked.as_ref().is_ok_and(|found| {
            let passing = |failure: &super::super::DiscoveryError| !failure.is_definite();
            found.failures.iter().any(passing)
        })
    });
    let found = dead.await.expect("the last known");
    assert_eq!(ids(&found), ["127.0.0.1:80", "127.0.0.3:80"]);

    server.hosts_before_start("127.0.0.4 app.test\n");
    server.start();
    let found = until_ids(&mut source, &["127.0.0.4:80"]).await;
    assert_eq!(names(&found), ["app.test:80"]);
    assert!(found.failures.is_empty());
}

#[tokio::test]
async fn nothing_known_is_an_error_that_says_whether_it_may_pass() {
    let Some(server) = Server::dnsmasq("127.0.0.1 app.test\n", &[]) else {
        return;
    };
    let mut missing = source(&upstream(&["other.test:80"], &[server.address]));
    let error = missing.look_up().await.expect_err("no such name");
    assert_eq!(error.kind().as_str(), "not_found");
    assert!(error.is_definite());
    let text = error.to_string();
    assert!(
        text.contains("\"other.test\"") && text.contains(&server.address.to_string()),
        "{text}"
    );
    assert!(missing.again_in() <= Duration::from_secs(1));

    // dnsmasq has nobody to ask for what is not its own.
    let mut refused = source(&upstream(&["app.example:80"], &[server.address]));
    let error = refused.look_up().await.expect_err("not its zone");
    assert_eq!(error.kind(), Trouble::Refused, "{error}");
    assert!(!error.is_definite());

    let silent = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("an address");
    let before = clock::now();
    let mut late = source(&upstream(&["app.test:80"], &[address]));
    let error = late.look_up().await.expect_err("no answer");
    assert_eq!(error.kind(), Trouble::Timeout, "{error}");
    assert!(!error.is_definite());
    assert!(clock::now() - before < Duration::from_secs(11));

    // A part that is known does not wait for one that is not.
    let both = upstream(&["app.test:80", "other.test:80"], &[server.address]);
    let found = source(&both).look_up().await.expect("one of them");
    assert_eq!(ids(&found), ["127.0.0.1:80"]);
    assert!(found.failures[0].is_definite(), "{:?}", found.failures);
}

#[tokio::test]
async fn many_names_without_an_answer_do_not_hold_up_a_look_up_for_long() {
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("an address");
    let names: Vec<String> = (0..200).map(|n| format!("n{n}.test:80")).collect();
    let mut endpoints: Vec<&str> = names.iter().map(String::as_str).collect();
    endpoints.push("10.0.0.1:80");
    let mut source = source(&upstream(&endpoints, &[address]));
    let before = clock::now();
    let found = source.look_up().await.expect("the one that needs none");
    assert!(clock::now() - before < Duration::from_secs(15));
    assert_eq!(ids(&found), ["10.0.0.1:80"]);
    let last = found.failures.last().expect("failures");
    assert!(last.to_string().contains("more names"), "{last}");
    assert!(found.failures.iter().all(|failure| !failure.is_definite()));
}

#[tokio::test]
async fn a_second_server_answers_where_the_first_is_gone() {
    let Some(server) = Server::dnsmasq("127.0.0.1 app.test\n", &[]) else {
        return;
    };
    let servers = [free(), server.address];
    let found = source(&upstream(&["app.test:80"], &servers))
        .look_up()
        .await;
    assert_eq!(ids(&found.expect("an answer")), ["127.0.0.1:80"]);
}

#[tokio::test]
async fn a_family_without_an_answer_does_not_hold_up_the_other() {
    let Some(server) = Server::dnsmasq("127.0.0.1 app.test\nfd00::1 app.test\n", &[]) else {
        return;
    };
    let relay = losing(AAAA, server.address);
    let mut settings = upstream(&["app.test:80"], &[relay]);
    let found = source(&settings).look_up().await.expect("the other family");
    assert_eq!(ids(&found), ["127.0.0.1:80"]);
    assert_eq!(found.failures[0].kind(), Trouble::Timeout);
    let text = found.failures[0].to_string();
    assert!(
        text.contains("AAAA") && text.contains("resolve.family"),
        "{text}"
    );
    settings.resolve.family = Family::Ipv4;
    let found = source(&settings).look_up().await.expect("as configured");
    assert!(found.failures.is_empty());
}

#[tokio::test]
async fn ttls_of_the_zone_count_up_to_the_configured_time() {
    let zone = "short 3 A 127.0.0.1\nlong 1000 A 127.0.0.1\nnone 0 A 127.0.0.1\n\
                alias 2 CNAME long\n";
    let Some(server) = Server::knot(zone) else {
        return;
    };
    let seconds = Duration::from_secs;
    for (name, least, most) in [
        ("short", 2, 3),
        ("long", 19, 20),
        ("none", 0, 1),
        ("alias", 1, 2),
    ] {
        let mut settings = upstream(&[&format!("{name}.test:80")], &[server.address]);
        settings.resolve.every = seconds(20);
        let found = source(&settings).look_up().await.expect("a node");
        assert_eq!(ids(&found), ["127.0.0.1:80"], "{name}");
        let again = found.again_in;
        assert!(
            again > seconds(least) && again <= seconds(most),
            "{name}: {again:?}"
        );
    }
    let mut both = source(&upstream(
        &["short.test:80", "none.test:81"],
        &[server.address],
    ));
    let found = both.look_up().await.expect("nodes");
    assert!(found.again_in <= seconds(1), "the least of all: {found:?}");
}

#[tokio::test]
async fn an_answer_too_large_for_udp_is_had_by_tcp() {
    let records: Vec<String> = (1..=200).map(|n| format!("many 60 A 10.1.0.{n}")).collect();
    let Some(server) = Server::knot(&records.join("\n")) else {
        return;
    };
    let mut source = source(&upstream(&["many.test:80"], &[server.address]));
    let found = source.look_up().await.expect("all of them");
    assert_eq!(found.endpoints.len(), 200);
    assert_eq!(found.endpoints[199].name, "10.1.0.200:80");
}

#[tokio::test]
async fn srv_gives_priority_weight_port_and_nodes() {
    let zone = "_http._tcp.app 60 SRV 10 60 8001 a\n_http._tcp.app 60 SRV 10 0 8002 b\n\
                _http._tcp.app 60 SRV 20 7 8003 c\na 60 A 10.0.0.1\nb 60 A 10.0.0.2\n\
                c 60 A 10.0.0.3\nc 60 AAAA fd00::3\n\
                _gone._tcp.app 60 SRV 0 0 0 .\n";
    let Some(server) = Server::knot(zone) else {
        return;
    };
    let mut settings = upstream(&["srv:_http._tcp.app.test"], &[server.address]);
    settings.endpoints[0].zone = Some("east".into());
    let found = source(&settings).look_up().await.expect("three nodes");
    let seen: Vec<_> = found
        .endpoints
        .iter()
        .map(|one| {
            (
                one.name.as_str(),
                one.target.id(),
                one.priority,
                one.weight.get(),
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            ("a.test:8001", "10.0.0.1:8001".to_owned(), 0, 60),
            ("b.test:8002", "10.0.0.2:8002".to_owned(), 0, 1),
            ("c.test:8003", "10.0.0.3:8003".to_owned(), 1, 7),
        ]
    );
    assert!(
        found
            .endpoints
            .iter()
            .all(|one| one.zone.as_deref() == Some("east"))
    );

    for name in ["srv:_gone._tcp.app.test", "srv:_other._tcp.app.test"] {
        let error = source(&upstream(&[name], &[server.address]))
            .look_up()
            .await;
        let error = error.expect_err("no service");
        assert_eq!(error.kind(), Trouble::NotFound, "{error}");
        assert!(error.to_string().contains("SRV records"), "{error}");
    }
}

#[tokio::test]
async fn srv_targets_that_come_and_go_are_followed() {
    let hosts = "10.0.0.1 a.test\n10.0.0.2 b.test\n";
    let options = [
        "--srv-host=_http._tcp.test,a.test,80,0,5",
        "--srv-host=_http._tcp.test,b.test,80,0,5",
    ];
    let Some(server) = Server::dnsmasq(hosts, &options) else {
        return;
    };
    let mut source = source(&upstream(&["srv:_http._tcp.test"], &[server.address]));
    let found = source.look_up().await.expect("two nodes");
    assert_eq!(names(&found), ["a.test:80", "b.test:80"]);
    server.hosts("10.0.0.1 a.test\n10.0.0.3 b.test\n10.0.0.4 b.test\n");
    let found = until_ids(&mut source, &["10.0.0.1:80", "10.0.0.3:80", "10.0.0.4:80"]).await;
    let weights: Vec<u32> = found.endpoints.iter().map(|one| one.weight.get()).collect();
    assert_eq!(
        weights,
        [10, 5, 5],
        "two addresses share the weight of their target"
    );
}
