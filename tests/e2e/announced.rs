//! Load balancers in front that say whose connections theirs are: the PROXY protocol, both
//! versions.

use std::io::Write as _;
use std::net::TcpStream;
use std::process::Command;

use serde_json::Value;

use crate::support::tools::{self, tool};
use crate::support::{Answer, Ask, Conn, Edge, Origin, Setup, certs, ports, wait};

const V1: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.1 5000 443\r\n";

fn v2(rest: &[u8]) -> Vec<u8> {
    let block = [192, 0, 2, 7, 198, 51, 100, 1, 0x13, 0x88, 1, 0xbb];
    let length = u16::try_from(block.len() + rest.len()).expect("short");
    [
        &b"\r\n\r\n\0\r\nQUIT\n\x21\x11"[..],
        &length.to_be_bytes(),
        &block,
        rest,
    ]
    .concat()
}

/// Answers with the client's address as the app sees it.
fn app() -> Origin {
    Origin::start(|seen| Answer::ok(seen.field("x-forwarded-for").unwrap_or("-")))
}

fn edge(app: &Origin, from: &str) -> Edge {
    Setup::new()
        .with("APP", app.address)
        .with("FROM", from)
        .start(
            r#"
            [server]
            workers = 1
            [log]
            access = { path = "access.log" }
            [limits]
            header_timeout = "400ms"
            max_connections_per_ip = 3
            [[listener]]
            name = "plain"
            address = "@HTTP@"
            proxy_protocol = { from = ["@FROM@"] }
            [[listener]]
            name = "secure"
            address = "@HTTPS@"
            tls = true
            proxy_protocol = { from = ["@FROM@"] }
            [upstream.app]
            endpoints = ["@APP@"]
            [[route]]
            upstream = "app"
            "#,
        )
}

fn socket(edge: &Edge, header: &[u8]) -> TcpStream {
    let mut socket = TcpStream::connect(edge.http()).expect("a connection");
    socket.write_all(header).expect("room");
    socket
}

fn ask(conn: &mut Conn) -> String {
    conn.send(Ask::get("/").host("shop.example").bytes());
    conn.reply().expect(200).text()
}

fn refused(reason: &str) -> String {
    format!("tidegate_connections_refused_total{{listener=\"plain\",reason=\"{reason}\"}}")
}

#[test]
fn the_client_is_who_the_balancer_says() {
    let app = app();
    let edge = edge(&app, "127.0.0.0/8");
    for header in [V1.to_vec(), v2(b""), v2(b"\x04\x00\x03abc")] {
        let mut conn = Conn::from(socket(&edge, &header));
        assert_eq!(ask(&mut conn), "192.0.2.7");
        assert_eq!(ask(&mut conn), "192.0.2.7", "the next request, too");
        let mut secure = TcpStream::connect(edge.https()).expect("a connection");
        secure.write_all(&header).expect("room");
        let config = certs::client(&["http/1.1"], rustls::ALL_VERSIONS);
        let mut conn = Conn::tls_over(secure, "shop.test", config).expect("a handshake");
        assert_eq!(ask(&mut conn), "192.0.2.7");
    }
    // With all that follows in one piece, and octet by octet.
    for header in [V1.to_vec(), v2(b"")] {
        let request = Ask::get("/").host("shop.example").bytes();
        let all = [&header[..], request.as_ref()].concat();
        let mut conn = Conn::from(socket(&edge, &all));
        assert_eq!(conn.reply().expect(200).text(), "192.0.2.7");
        let mut pieces = socket(&edge, b"");
        pieces.set_nodelay(true).expect("an option");
        for octet in &header {
            pieces.write_all(&[*octet]).expect("room");
            wait::hold(wait::millis(1));
        }
        assert_eq!(ask(&mut Conn::from(pieces)), "192.0.2.7");
    }
    // A balancer that speaks for itself.
    for header in [
        b"PROXY UNKNOWN\r\n".to_vec(),
        b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00".to_vec(),
    ] {
        assert_eq!(ask(&mut Conn::from(socket(&edge, &header))), "127.0.0.1");
    }
}

#[test]
fn the_log_tells_what_the_balancer_said() {
    let app = app();
    let edge = edge(&app, "127.0.0.1");
    let said = [
        &b"\x02\x00\x0cshop.example"[..],
        b"\x05\x00\x04id-1",
        b"\x20\x00\x14\x07\0\0\0\0\x21\x00\x07TLSv1.2\x22\x00\x02ab",
    ]
    .concat();
    ask(&mut Conn::from(socket(&edge, &v2(&said))));
    let path = edge.folder().join("access.log");
    let line: Value = wait::until("a line", wait::SOON, || {
        let text = std::fs::read_to_string(&path).ok()?;
        serde_json::from_str(text.lines().next()?).ok()
    });
    assert_eq!(line["client"], "192.0.2.7");
    let said = &line["proxy_protocol"];
    assert_eq!(said["authority"], "shop.example");
    assert_eq!(said["unique_id"], "id-1");
    assert_eq!(said["tls"], "TLSv1.2");
    assert_eq!(said["client_cn"], "ab");
    let balancer = said["balancer"].as_str().expect("an address");
    assert!(balancer.starts_with("127.0.0.1:"), "{balancer}");
}

#[test]
fn a_header_that_is_missing_late_or_wrong_closes() {
    let app = app();
    let edge = edge(&app, "127.0.0.1");
    let mut count = 0.0;
    for header in [
        &b"GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n"[..],
        b"PROXY TCP4 192.0.2.7 198.51.100.1 5000\r\n",
        b"PROXY TCP5 192.0.2.7 198.51.100.1 5000 443\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x31\x11\x00\x00",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00",
    ] {
        let mut conn = Conn::from(socket(&edge, header));
        assert!(conn.read(false).is_err(), "{header:?}");
        count += 1.0;
        edge.await_metric(&refused("proxy_header"), count);
    }
    for begun in [&b""[..], b"PROXY TC", &v2(b"")[..20]] {
        let mut conn = Conn::from(socket(&edge, begun));
        assert!(conn.read(false).is_err(), "{begun:?}");
    }
    edge.await_metric(&refused("proxy_header_timeout"), 3.0);
    assert_eq!(app.count(), 0);
    // A look at the port is no mistake.
    drop(socket(&edge, b""));
    assert_eq!(ask(&mut Conn::from(socket(&edge, V1))), "192.0.2.7");
    assert!(edge.metric(&refused("proxy_header")) <= count);
}

#[test]
fn nobody_else_may_say_who_he_is() {
    let app = app();
    let edge = edge(&app, "192.0.2.0/24");
    assert_eq!(ask(&mut Conn::from(socket(&edge, b""))), "127.0.0.1");
    for header in [V1.to_vec(), v2(b"")] {
        let mut conn = Conn::from(socket(&edge, &header));
        conn.send(Ask::get("/").host("shop.example").bytes());
        assert_eq!(conn.reply().status, 400);
    }
    assert_eq!(app.count(), 1);
}

#[test]
fn limits_count_the_clients_and_not_the_balancer() {
    let app = app();
    let edge = edge(&app, "127.0.0.1");
    let of = |last: u8| format!("PROXY TCP4 192.0.2.{last} 198.51.100.1 5000 443\r\n");
    // Three are allowed for each.
    let mut kept: Vec<Conn> = (0..6)
        .map(|nth| Conn::from(socket(&edge, of(nth / 3).as_bytes())))
        .collect();
    for (nth, conn) in kept.iter_mut().enumerate() {
        assert_eq!(ask(conn), format!("192.0.2.{}", nth / 3));
    }
    let mut fourth = Conn::from(socket(&edge, of(1).as_bytes()));
    assert!(fourth.read(false).is_err());
    edge.await_metric(&refused("max_connections_per_ip"), 1.0);
    drop(kept.pop());
    wait::eventually("there is room again", wait::SOON, || {
        let mut conn = Conn::from(socket(&edge, of(1).as_bytes()));
        conn.send(Ask::get("/").host("shop.example").bytes());
        conn.read(false).is_ok()
    });
    // Its own checks are nobody's.
    let checks: Vec<Conn> = (0..8)
        .map(|_| Conn::from(socket(&edge, b"PROXY UNKNOWN\r\n")))
        .collect();
    for mut conn in checks {
        assert_eq!(ask(&mut conn), "127.0.0.1");
    }
}

#[test]
fn the_hosts_of_an_ipv6_network_count_as_one_client() {
    let app = app();
    let edge = edge(&app, "127.0.0.1");
    let from = |address: &str| {
        let header = format!("PROXY TCP6 {address} 2001:db8:ffff::1 5000 443\r\n");
        Conn::from(socket(&edge, header.as_bytes()))
    };
    // Three are allowed for all of a /64 together.
    let mut kept = Vec::new();
    for address in ["2001:db8::1", "2001:db8::2", "2001:db8::ffff:1"] {
        let mut conn = from(address);
        assert_eq!(ask(&mut conn), address);
        kept.push(conn);
    }
    assert!(from("2001:db8::2").read(false).is_err());
    edge.await_metric(&refused("max_connections_per_ip"), 1.0);
    edge.await_stderr("latest=2001:db8::2");
    // The network beside it is somebody else's.
    let mut beside = from("2001:db8:0:1::1");
    assert_eq!(ask(&mut beside), "2001:db8:0:1::1");
    assert_eq!(edge.metric(&refused("max_connections_per_ip")), 1.0);
    // Whichever of its connections ends, any of its hosts may have the next one.
    drop(kept.pop());
    wait::eventually("there is room again", wait::SOON, || {
        let mut conn = from("2001:db8::3");
        conn.send(Ask::get("/").host("shop.example").bytes());
        conn.read(false).is_ok()
    });
}

#[test]
fn curl_is_understood_over_every_protocol() {
    let curl = tool!("curl", "curl");
    let app = app();
    let edge = edge(&app, "127.0.0.1");
    for (scheme, address, version) in [
        ("http", edge.http(), "--http1.1"),
        ("http", edge.http(), "--http2-prior-knowledge"),
        ("https", edge.https(), "--http1.1"),
        ("https", edge.https(), "--http2"),
    ] {
        let output = tools::run(
            Command::new(&curl)
                .args(["-ksS", "--max-time", "5", "--haproxy-protocol", version])
                .arg(format!("{scheme}://{address}/")),
            wait::SOON,
        );
        assert_eq!(
            output.stdout, "127.0.0.1",
            "{scheme} {version}: {}",
            output.stderr
        );
    }
}

#[test]
fn haproxy_says_who_and_what_its_client_is() {
    let haproxy = tool!("haproxy", "haproxy");
    let app = app();
    let edge = edge(&app, "127.0.0.1");
    let front = ports::free();
    for (options, tells) in [
        ("send-proxy", false),
        ("send-proxy-v2", false),
        (
            "send-proxy-v2 proxy-v2-options crc32c,unique-id,authority",
            true,
        ),
    ] {
        let file = edge.folder().join("haproxy.cfg");
        let config = format!(
            "defaults\n mode tcp\n timeout connect 2s\n timeout client 9s\n timeout server 9s\n\
             frontend f\n bind {front}\n unique-id-format %ci-%pid\n default_backend b\n\
             backend b\n server s {} {options}\n",
            edge.http(),
        );
        std::fs::write(&file, config).expect("a file");
        let balancer = tools::Running::start(Command::new(&haproxy).args(["-db", "-f"]).arg(&file));
        let address = front;
        wait::eventually("haproxy listens", wait::SOON, || {
            TcpStream::connect(address).is_ok()
        });
        let mut conn = Conn::open(address);
        assert_eq!(ask(&mut conn), "127.0.0.1", "{options}");
        drop(balancer);
        let path = edge.folder().join("access.log");
        wait::eventually("the log tells it", wait::SOON, || {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let last = text.lines().last().unwrap_or_default();
            let line: Value = serde_json::from_str(last).unwrap_or_default();
            let id = line["proxy_protocol"]["unique_id"].as_str();
            id.is_some_and(|id| id.starts_with("127.0.0.1-")) == tells
        });
    }
}
