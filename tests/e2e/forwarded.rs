//! Connections that are passed on as they are: TCP, and TLS by the name that is asked for.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::tools::{run, tool};
use crate::support::{Ask, Conn, Edge, Setup, certs, ports, wait};

/// A server that says its name, then sends back what comes until the client has ended.
struct Echo {
    address: SocketAddr,
    served: Arc<AtomicUsize>,
}

impl Echo {
    fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let served = Arc::new(AtomicUsize::new(0));
        let count = served.clone();
        std::thread::spawn(move || {
            for mut socket in listener.incoming().flatten() {
                count.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || {
                    let _ = socket.write_all(name.as_bytes());
                    let mut bytes = [0; 16 * 1024];
                    while let Ok(count @ 1..) = socket.read(&mut bytes) {
                        if socket.write_all(&bytes[..count]).is_err() {
                            return;
                        }
                    }
                    let _ = socket.write_all(b"bye");
                    let _ = socket.shutdown(Shutdown::Write);
                });
            }
        });
        Self { address, served }
    }

    fn served(&self) -> usize {
        self.served.load(Ordering::SeqCst)
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(wait::SOON)).unwrap();
    socket
}

/// All that comes until the other side ends.
fn rest(socket: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = socket.read_to_end(&mut bytes);
    bytes
}

fn tcp(setup: Setup, more: &str) -> (Edge, SocketAddr) {
    let tcp = ports::free();
    let edge = setup.with("TCP", tcp).start(&format!(
        "[[listener]]\nname = \"db\"\naddress = \"@TCP@\"\n\
         forward = {{ upstream = \"db\", idle_timeout = \"700ms\" }}\n{more}"
    ));
    (edge, tcp)
}

const ENDED: &str = r#"tidegate_forwarded_connections_total{listener="db",result="ended"}"#;

#[test]
fn bytes_go_both_ways_and_each_side_ends_by_itself() {
    let echo = Echo::start("hi ");
    let setup = Setup::new().with("DB", echo.address);
    let (edge, tcp) = tcp(setup, "[upstream.db]\nendpoints = [\"@DB@\"]\n");
    let mut socket = connect(tcp);
    // The server speaks first.
    let mut hi = [0; 3];
    socket.read_exact(&mut hi).unwrap();
    assert_eq!(&hi, b"hi ");
    let sent: Vec<u8> = (0..4_000_000_u32)
        .map(|n| n.to_le_bytes()[n as usize % 3])
        .collect();
    let mut writer = socket.try_clone().unwrap();
    let all = sent.clone();
    let writes = std::thread::spawn(move || {
        writer.write_all(&all).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let got = rest(&mut socket);
    writes.join().unwrap();
    // What it says after the client has ended arrives, too.
    assert!(got == [&sent[..], b"bye"].concat());
    edge.await_metric(ENDED, 1.0);
}

#[test]
fn endpoints_are_tried_in_turn_and_loads_are_shared() {
    let (one, other) = (Echo::start("x"), Echo::start("x"));
    let setup = Setup::new()
        .with("ONE", one.address)
        .with("OTHER", other.address)
        .with("NOBODY", ports::free());
    let (_edge, tcp) = tcp(
        setup,
        "[upstream.db]\nendpoints = [\"@ONE@\", \"@NOBODY@\", \"@OTHER@\"]\nretry = { attempts = 3 }\nbalance = \"round_robin\"\n",
    );
    for _ in 0..12 {
        let mut socket = connect(tcp);
        socket.shutdown(Shutdown::Write).unwrap();
        assert_eq!(rest(&mut socket), b"xbye");
    }
    assert_eq!(one.served() + other.served(), 12);
    assert!(
        one.served() >= 4 && other.served() >= 4,
        "{} {}",
        one.served(),
        other.served()
    );
}

#[test]
fn what_nobody_can_take_is_closed_and_counted_and_a_silent_one_ends() {
    let echo = Echo::start("x");
    let setup = Setup::new()
        .with("NOBODY", ports::free())
        .with("DB", echo.address);
    let more = "[[listener]]\nname = \"none\"\naddress = \"@HTTP@\"\nforward = { upstream = \"gone\" }\n\
                [upstream.gone]\nendpoints = [\"@NOBODY@\"]\n\
                [upstream.db]\nendpoints = [\"@DB@\"]\nmax_connections = 2\n";
    let (edge, tcp) = tcp(setup, more);
    assert_eq!(rest(&mut connect(edge.http())), b"");
    edge.await_metric(
        r#"tidegate_connections_refused_total{listener="none",reason="connect_failure"}"#,
        1.0,
    );
    let mut held: Vec<_> = (0..2).map(|_| connect(tcp)).collect();
    for socket in &mut held {
        socket.read_exact(&mut [0; 1]).unwrap();
    }
    assert_eq!(rest(&mut connect(tcp)), b"", "one too many");
    let began = wait::now();
    for socket in &mut held {
        assert_eq!(rest(socket), b"");
    }
    assert!(began.elapsed() < wait::secs(8));
    edge.await_metric(
        r#"tidegate_forwarded_connections_total{listener="db",result="idle"}"#,
        2.0,
    );
}

#[test]
fn an_upstream_learns_by_a_proxy_header_who_it_is() {
    let echo = Echo::start("");
    let setup = Setup::new().with("DB", echo.address);
    let (_edge, tcp) = tcp(
        setup,
        "[upstream.db]\nendpoints = [\"@DB@\"]\nproxy_protocol = \"v1\"\n",
    );
    let mut socket = connect(tcp);
    let own = socket.local_addr().unwrap();
    socket.write_all(b"SELECT").unwrap();
    socket.shutdown(Shutdown::Write).unwrap();
    let wanted = format!(
        "PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\nSELECTbye",
        own.port(),
        tcp.port()
    );
    assert_eq!(String::from_utf8(rest(&mut socket)).unwrap(), wanted);
}

/// An edge that passes TLS on by name, in front of two that terminate it.
fn by_name(terminates: bool) -> (Edge, Edge, SocketAddr) {
    let pay = Setup::new().start("[[route]]\nrespond = { body = \"pay\" }\n");
    let front = ports::free();
    let setup = Setup::new().with("FRONT", front).with("PAY", pay.https());
    let edge = setup.start(&format!(
        r#"
        [[listener]]
        name = "front"
        address = "@FRONT@"
        forward = {{ names = {{ "pay.shop.test" = "pay", "*.deep.shop.test" = "pay" }} }}
        {}
        [[listener]]
        name = "other"
        address = "@HTTPS@"
        tls = true
        [upstream.pay]
        endpoints = ["@PAY@"]
        [[route]]
        respond = {{ body = "shop" }}
        "#,
        if terminates { "tls = true" } else { "" }
    ));
    (edge, pay, front)
}

#[test]
fn names_that_are_listed_are_passed_on_and_others_terminated_here() {
    let (edge, pay, front) = by_name(true);
    for (host, body) in [
        ("shop.test", "shop"),
        ("pay.shop.test", "pay"),
        ("www.shop.test", "shop"),
        ("a.b.deep.shop.test", "pay"),
    ] {
        let config = match host.contains("deep") {
            true => certs::client_of_anyone(&["http/1.1"]),
            false => certs::client(&["http/1.1"], rustls::ALL_VERSIONS),
        };
        for _ in 0..2 {
            // Sessions resume at whoever gave the ticket.
            let mut conn = Conn::tls_with(front, host, config.clone()).unwrap();
            assert_eq!(conn.ask(&Ask::get("/").host(host)).text(), body, "{host}");
        }
    }
    pay.await_metric(
        r#"tidegate_tls_handshakes_total{listener="secure",result="ok"}"#,
        4.0,
    );
    edge.await_metric(
        r#"tidegate_tls_handshakes_total{listener="front",result="ok"}"#,
        4.0,
    );
    let program = tool!("curl", "curl");
    for (host, body) in [("shop.test", "shop2"), ("pay.shop.test", "pay2")] {
        let mut curl = Command::new(&program);
        curl.args([
            "-sS",
            "--max-time",
            "10",
            "--http2",
            "-w",
            "%{http_version}",
        ]);
        curl.args(["--resolve", &format!("{host}:{}:127.0.0.1", front.port())]);
        curl.arg("--cacert").arg(edge.folder().join("ca.pem"));
        let said = run(
            curl.arg(format!("https://{host}:{}/", front.port())),
            wait::SOON,
        );
        assert_eq!(said.stdout, body, "{said:?}");
    }
    // A hello in pieces, and what is no TLS.
    let mut conn = connect(front);
    conn.write_all(b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n")
        .unwrap();
    let said = rest(&mut conn);
    assert!(said.first().is_none_or(|first| *first == 21), "{said:?}");
    edge.await_metric(
        r#"tidegate_tls_handshakes_total{listener="front",result="failed"}"#,
        1.0,
    );
}

#[test]
fn a_hello_that_comes_octet_by_octet_is_passed_on_or_terminated() {
    for host in ["shop.test", "pay.shop.test"] {
        let (_edge, _pay, front) = by_name(true);
        let config = certs::client(&["http/1.1"], rustls::ALL_VERSIONS);
        let mut tls = rustls::ClientConnection::new(config, certs::name(host)).unwrap();
        let mut socket = connect(front);
        socket.set_nodelay(true).unwrap();
        let mut hello = Vec::new();
        tls.write_tls(&mut hello).unwrap();
        for piece in hello.chunks(100) {
            socket.write_all(piece).unwrap();
            wait::hold(wait::millis(2));
        }
        let mut stream = rustls::Stream::new(&mut tls, &mut socket);
        let ask = Ask::get("/").host(host).field("Connection", "close");
        stream.write_all(&ask.bytes()).unwrap();
        let mut reply = Vec::new();
        let _ = stream.read_to_end(&mut reply);
        assert!(reply.starts_with(b"HTTP/1.1 200"), "{host}: {reply:?}");
    }
}

#[test]
fn without_tls_of_its_own_a_listener_refuses_other_names_with_an_alert() {
    let program = tool!("openssl", "openssl");
    let (edge, _pay, front) = by_name(false);
    let s_client = |name: &str| {
        let mut openssl = Command::new(&program);
        openssl.args(["s_client", "-connect", &front.to_string()]);
        match name {
            "" => openssl.arg("-noservername"),
            name => openssl.args(["-servername", name]),
        };
        run(openssl.stdin(Stdio::null()), wait::SOON)
    };
    let said = s_client("pay.shop.test");
    assert!(said.stdout.contains("BEGIN CERTIFICATE"), "{said:?}");
    for name in ["other.test", "", "deep.shop.test", "xpay.shop.test"] {
        let said = s_client(name);
        assert!(
            said.stderr.contains("unrecognized name"),
            "{name:?}: {said:?}"
        );
    }
    let mut conn = connect(front);
    conn.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(rest(&mut conn), b"");
    for (reason, count) in [("unknown_name", 4.0), ("not_tls", 1.0)] {
        let series =
            format!(r#"tidegate_connections_refused_total{{listener="front",reason="{reason}"}}"#);
        edge.await_metric(&series, count);
    }
}

#[test]
fn a_client_that_does_not_say_its_name_in_time_is_closed() {
    let front = ports::free();
    let edge = Setup::new()
        .with("FRONT", front)
        .with("PAY", ports::free())
        .start(
            r#"
        [limits]
        header_timeout = "400ms"
        [[listener]]
        name = "front"
        address = "@FRONT@"
        forward = { names = { "pay.shop.test" = "pay" } }
        [upstream.pay]
        endpoints = ["@PAY@"]
        "#,
        );
    let mut conn = connect(front);
    conn.write_all(&[22, 3, 1, 2, 0, 1, 0]).unwrap();
    assert_eq!(rest(&mut conn), b"");
    edge.await_metric(
        r#"tidegate_connections_refused_total{listener="front",reason="hello_timeout"}"#,
        1.0,
    );
}

/// The access log's lines once there are so many.
fn logged(edge: &Edge, count: usize) -> Vec<serde_json::Value> {
    let path = edge.folder().join("access.log");
    wait::until(&format!("{count} lines"), wait::SOON, || {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let lines = text.lines().map(serde_json::from_str);
        let lines: Vec<_> = lines.collect::<Result<_, _>>().ok()?;
        (lines.len() >= count).then_some(lines)
    })
}

#[test]
fn each_connection_leaves_a_line_when_it_is_over() {
    let echo = Echo::start("hi");
    let setup = Setup::new()
        .with("DB", echo.address)
        .with("NOBODY", ports::free())
        .with("NAMES", ports::free());
    let more = r#"
        [log]
        access = { path = "access.log", format = "json" }
        [[listener]]
        name = "names"
        address = "@NAMES@"
        forward = { names = { "gone.test" = "gone" } }
        [upstream.gone]
        endpoints = ["@NOBODY@"]
        [upstream.db]
        endpoints = ["@DB@"]
    "#;
    let names = setup.address("NAMES");
    let (edge, tcp) = tcp(setup, more);
    let mut socket = connect(tcp);
    socket.write_all(b"12345").unwrap();
    socket.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(&mut socket), b"hi12345bye");
    let line = &logged(&edge, 1)[0];
    for (key, value) in [
        ("listener", "db"),
        ("protocol", "TCP"),
        ("client", "127.0.0.1"),
        ("upstream", "db"),
        ("endpoint", &echo.address.to_string()),
    ] {
        assert_eq!(line[key], value, "{line}");
    }
    assert_eq!(line["bytes_in"], 5, "{line}");
    assert_eq!(line["bytes_out"], 10, "{line}");
    assert_eq!(line["status"], 0, "{line}");
    assert!(line.get("why").is_none(), "{line}");
    assert!(line["upstream_connect_ms"].is_number(), "{line}");

    // One that says nothing any more.
    assert_eq!(rest(&mut connect(tcp)), b"hi");
    assert_eq!(logged(&edge, 2)[1]["why"], "idle");

    // And those that nobody took.
    let config = certs::client_of_anyone(&["http/1.1"]);
    for (name, why) in [("gone.test", "connect_failure"), ("x.test", "unknown_name")] {
        assert!(Conn::tls_with(names, name, config.clone()).is_err());
        let lines = logged(&edge, if why == "unknown_name" { 4 } else { 3 });
        let line = lines.last().unwrap();
        assert_eq!((&line["host"], &line["why"]), (&name.into(), &why.into()));
        assert_eq!(line["listener"], "names", "{line}");
    }
    let requests = r#"tidegate_requests_total{listener="db"}"#;
    assert!(!edge.has_metric(requests) || edge.metric(requests) == 0.0);
}
