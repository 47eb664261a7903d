//! What one client cannot do to the others, or to the app servers: take back
//! what a filter sets, share an entry of the cache that is not its own, remove
//! what is stored, or hold up the other direction of a connection.

use std::io::{Read, Write};
use std::net::TcpListener;

use crate::cache::{cached, counting};
use crate::support::client::HOST;
use crate::support::{Answer, Ask, H2, Origin, Setup, client, in_front_of, ports, wait};

#[test]
fn connection_cannot_name_away_what_a_filter_sets() {
    let origin = Origin::start(|_| Answer::ok("x"));
    let edge = Setup::new().with("APP", origin.address).start(
        r#"
        [upstream.app]
        endpoints = ["@APP@"]
        [filter.tenant]
        request_headers = { set = { x-tenant = "public" } }
        [[route]]
        upstream = "app"
        filters = ["tenant"]
        "#,
    );
    let ask = Ask::get("/")
        .field("Connection", "x-tenant, x-own, x-request-id")
        .field("X-Tenant", "admin")
        .field("X-Own", "1");
    edge.ask(&ask).expect(200);
    let seen = origin.last();
    assert_eq!(seen.all("x-tenant"), ["public"]);
    assert_eq!(seen.field("x-own"), None);
    assert!(seen.field("x-request-id").is_some(), "{}", seen.raw);
}

#[test]
fn a_field_that_an_app_would_take_for_another_stays_behind() {
    let origin = Origin::start(|_| Answer::ok("x"));
    let edge = in_front_of(origin.address);
    let ask = Ask::get("/")
        .field("X_Forwarded_For", "10.0.0.1")
        .field("X-Plain", "1");
    edge.ask(&ask).expect(200);
    H2::tls(edge.https(), HOST).ask(&ask).expect(200);
    for seen in origin.seen() {
        assert_eq!(seen.field("x_forwarded_for"), None, "{}", seen.raw);
        assert_eq!(seen.field("x-plain"), Some("1"));
    }
    assert_eq!(origin.count(), 2);
}

#[test]
fn another_spelling_of_the_host_is_the_same_page_and_another_port_is_not() {
    let origin = counting(|seen, a| {
        a.field("Cache-Control", "max-age=60")
            .field("X-Host", seen.field("host").unwrap_or_default())
    });
    let edge = cached(&origin, "{}");
    let host_of = |host: &str| {
        let reply = edge.ask(&Ask::get("/a").host(host)).expect(200);
        (reply.is_hit(), reply.field("x-host").unwrap().to_owned())
    };
    let own = HOST.to_owned();
    let upper = HOST.to_uppercase();
    let other = format!("{HOST}:8080");
    assert_eq!(host_of(&upper), (false, own.clone()));
    assert_eq!(host_of(&format!("{HOST}.")), (true, own.clone()));
    assert_eq!(host_of(&format!("{HOST}:80")), (true, own.clone()));
    assert_eq!(host_of(&other), (false, other.clone()));
    assert_eq!(host_of(HOST), (true, own));
    assert_eq!(host_of(&other), (true, other));
    assert_eq!(origin.count(), 2);
}

/// A purge names the port where the page was asked for with one.
#[test]
fn a_purge_reaches_the_page_of_its_own_port_alone() {
    let origin = counting(|_, a| a.field("Cache-Control", "max-age=60"));
    let edge = cached(&origin, "{}");
    let other = format!("{HOST}:8080");
    let hit = |host: &str| edge.ask(&Ask::get("/a").host(host)).expect(200).is_hit();
    assert!(!hit(HOST) && !hit(&other));
    edge.command(&format!("/cache/purge?url=http://{other}/a"))
        .expect(200);
    assert!(hit(HOST));
    assert!(!hit(&other));
    edge.command(&format!("/cache/purge?url=http://{HOST}/a"))
        .expect(200);
    assert!(hit(&other));
    assert!(!hit(HOST));
}

#[test]
fn a_request_that_may_not_be_stored_does_not_remove_what_is() {
    let origin = counting(|_, a| a.field("Cache-Control", "max-age=60"));
    let edge = cached(&origin, "{}");
    let old = edge.get("/a").expect(200).text();
    for (name, value) in [
        ("Cache-Control", "no-store"),
        ("Authorization", "Basic eDp5"),
    ] {
        edge.ask(&Ask::get("/a").field(name, value)).expect(200);
        let after = edge.get("/a").expect(200);
        assert!(after.is_hit(), "{name}: {after:?}");
        assert_eq!(after.text(), old, "{name}");
    }
}

/// An app that pushes without end to a client that reads nothing still gets
/// every byte that the client sends.
#[test]
fn a_websocket_carries_each_way_while_the_other_stands() {
    let listener = TcpListener::bind(ports::free()).unwrap();
    let edge = in_front_of(listener.local_addr().unwrap());
    let mut conn = edge.plain();
    let ask = Ask::get("/ws")
        .field("Connection", "Upgrade")
        .field("Upgrade", "websocket");
    conn.send(ask.bytes());
    let (mut app, _) = listener.accept().unwrap();
    app.set_read_timeout(Some(wait::SOON)).unwrap();
    let mut head = Vec::new();
    while client::find(&head, b"\r\n\r\n").is_none() {
        let mut byte = [0];
        app.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let accepted =
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    app.write_all(accepted.as_bytes()).unwrap();
    assert_eq!(conn.head().unwrap().status, 101);

    app.set_write_timeout(Some(wait::millis(500))).unwrap();
    let mut push = app.try_clone().unwrap();
    let piece = vec![b'p'; 64 * 1024];
    while push.write_all(&piece).is_ok() {}

    let sent = vec![b'x'; 2 << 20];
    let mut got = vec![0; sent.len()];
    std::thread::scope(|scope| {
        scope.spawn(|| conn.send(&sent));
        app.read_exact(&mut got).unwrap();
    });
    assert!(got == sent);
}

#[test]
fn a_reply_in_a_coding_that_hides_its_length_is_refused() {
    let origin = Origin::start(|_| {
        Answer::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n")
    });
    let edge = in_front_of(origin.address);
    edge.get("/").expect(502);
    H2::tls(edge.https(), HOST).ask(&Ask::get("/")).expect(502);
}

/// Everybody who waits for one page is answered, each within the time that its
/// own request would have had, though the first of them never ends.
#[test]
fn those_who_wait_for_one_page_do_not_wait_in_a_row() {
    let origin = counting(|_, a| a.after(wait::secs(30)));
    let edge = Setup::new().with("APP", origin.address).start(
        r#"
        [upstream.app]
        endpoints = ["@APP@"]
        first_byte_timeout = "1s"
        outlier_detection = false
        [[route]]
        upstream = "app"
        cache = {}
        "#,
    );
    let started = wait::now();
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| assert_eq!(edge.get("/a").status, 504));
        }
    });
    assert!(started.elapsed() < wait::secs(5), "{:?}", started.elapsed());
}
