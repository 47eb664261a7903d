//! gRPC by its own client and its own server, and gRPC-Web.

use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::support::client::HOST;
use crate::support::tools::{self, Running, python_with};
use crate::support::{Ask, Edge, H2, Reply, Setup, ports, wait};

/// All calls of the client, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// gRPC's own server. `None` where Python has no gRPC.
fn server() -> Option<(Running, SocketAddr)> {
    let python = python_with("grpc", "grpcio")?;
    let address = ports::free();
    let mut command = Command::new(python);
    command
        .args(["-c", include_str!("server.py")])
        .arg(address.to_string());
    let mut server = Running::start(&mut command);
    wait::eventually("the server", 2 * wait::SOON, || {
        assert!(server.is_running(), "{}", server.stderr());
        TcpStream::connect(address).is_ok()
    });
    Some((server, address))
}

fn edge(app: SocketAddr) -> Edge {
    Setup::new()
        .with("APP", app)
        .with("NOBODY", ports::free())
        .start(
            r#"
            [limits]
            body_timeout = "2s"
            [upstream.app]
            endpoints = ["@APP@"]
            protocol = "h2"
            read_timeout = "2s"
            outlier_detection = false
            [upstream.slow]
            endpoints = ["@APP@"]
            protocol = "h2"
            first_byte_timeout = "500ms"
            outlier_detection = false
            retry = { attempts = 1 }
            [upstream.down]
            endpoints = ["@NOBODY@"]
            protocol = "h2"
            [filter.nobody]
            allow = ["192.0.2.1"]
            [filter.still]
            rewrite = { prefix = "/still.Test", to = "/shop.Test" }
            [filter.slow]
            rewrite = { prefix = "/slow.Test", to = "/shop.Test" }
            [filter.small]
            rewrite = { prefix = "/small.Test", to = "/shop.Test" }
            [[route]]
            match = { path_prefix = "/shop.Test" }
            upstream = "app"
            grpc_web = true
            [[route]]
            match = { path_prefix = "/still.Test" }
            upstream = "app"
            filters = ["still"]
            [[route]]
            match = { path_prefix = "/slow.Test" }
            upstream = "slow"
            filters = ["slow"]
            [[route]]
            match = { path_prefix = "/small.Test" }
            upstream = "app"
            filters = ["small"]
            max_body_size = "1KiB"
            grpc_web = true
            [[route]]
            match = { path_prefix = "/denied.Test" }
            upstream = "app"
            filters = ["nobody"]
            [[route]]
            match = { path_prefix = "/down.Test" }
            upstream = "down"
            grpc_web = true
            "#,
        )
}

fn calls(edge: &Edge, target: SocketAddr, authority: &str) {
    let Some(python) = python_with("grpc", "grpcio") else {
        return;
    };
    let mut command = Command::new(python);
    command
        .args(["-c", include_str!("client.py")])
        .arg(target.to_string())
        .arg(authority);
    let done = tools::run(&mut command, PATIENCE);
    let log = edge.stderr();
    assert_eq!(done.code, Some(0), "{done:?}\n{log}");
    assert!(done.stdout.ends_with("all\n"), "{done:?}");
}

#[test]
fn every_kind_of_call_passes_over_tls() {
    let Some((_server, app)) = server() else {
        return;
    };
    let edge = edge(app);
    let authority = edge.folder().join("ca.pem").display().to_string();
    calls(&edge, edge.https(), &authority);
}

#[test]
fn every_kind_of_call_passes_without_tls() {
    let Some((_server, app)) = server() else {
        return;
    };
    let edge = edge(app);
    calls(&edge, edge.http(), "-");
}

/// A message in its frame.
fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("a short message");
    [&[0][..], &length.to_be_bytes(), message].concat()
}

/// The messages of a body of gRPC-Web, and its trailers.
fn read_web(mut body: &[u8]) -> (Vec<Vec<u8>>, String) {
    let mut messages = Vec::new();
    while let [flag, a, b, c, d, rest @ ..] = body {
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        let (frame, more) = rest.split_at(length);
        if *flag == 0x80 {
            assert!(more.is_empty(), "trailers come last");
            return (messages, String::from_utf8(frame.to_vec()).expect("text"));
        }
        messages.push(frame.to_vec());
        body = more;
    }
    panic!("a body without trailers: {body:?} behind {messages:?}");
}

fn web(method: &str, kind: &str, body: Vec<u8>) -> Ask {
    Ask::post(&format!("/shop.Test/{method}"), body)
        .field("Content-Type", kind)
        .field("X-Grpc-Web", "1")
}

/// Over HTTP/1.1 with and without TLS, and over HTTP/2.
fn every_way(edge: &Edge, ask: &Ask) -> [Reply; 3] {
    [
        edge.ask(ask),
        edge.tls().ask(ask),
        H2::tls(edge.https(), HOST).ask(ask),
    ]
}

#[test]
fn a_browser_calls_by_grpc_web() {
    let Some((_server, app)) = server() else {
        return;
    };
    let edge = edge(app);
    let kind = "application/grpc-web+proto";
    for reply in every_way(&edge, &web("Unary", kind, framed(b"hello"))) {
        let reply = reply.expect(200);
        // What stands behind `+` is the server's.
        let answered = reply.field("content-type").unwrap_or_default();
        assert!(answered.starts_with("application/grpc-web"), "{answered}");
        assert_eq!(reply.field("grpc-status"), None, "{reply:?}");
        let (messages, trailers) = read_web(&reply.body);
        assert_eq!(messages, [b"hello"]);
        assert!(trailers.contains("grpc-status: 0\r\n"), "{trailers}");
        assert!(trailers.contains("x-tail: behind\r\n"), "{trailers}");
    }
    for reply in every_way(&edge, &web("Count", kind, framed(b"50"))) {
        assert_eq!(read_web(&reply.expect(200).body).0.len(), 50);
    }
    for reply in every_way(&edge, &web("Refuse", kind, framed(b""))) {
        let (messages, trailers) = read_web(&reply.expect(200).body);
        assert_eq!(messages.len(), 0);
        assert!(trailers.contains("grpc-status: 9\r\n"), "{trailers}");
        assert!(trailers.contains("grpc-message: not "), "{trailers}");
    }
}

/// A body of whole base64 texts behind each other.
fn decoded(text: &[u8]) -> Vec<u8> {
    assert_eq!(text.len() % 4, 0, "whole groups");
    let groups = text.chunks(4);
    groups
        .flat_map(|group| STANDARD.decode(group).expect("base64"))
        .collect()
}

#[test]
fn a_browser_calls_by_grpc_web_in_text() {
    let Some((_server, app)) = server() else {
        return;
    };
    let edge = edge(app);
    let kind = "application/grpc-web-text";
    for size in [0, 1, 2, 5, 300_000] {
        let message = vec![b'm'; size];
        let body = STANDARD.encode(framed(&message)).into_bytes();
        for reply in every_way(&edge, &web("Unary", kind, body)) {
            let reply = reply.expect(200);
            assert_eq!(reply.field("content-type"), Some(kind));
            let (messages, trailers) = read_web(&decoded(&reply.body));
            assert!(messages == [message.clone()], "{size}");
            assert!(trailers.contains("grpc-status: 0\r\n"), "{trailers}");
        }
    }
    for wrong in ["!!!!", "AAAAAA"] {
        for reply in every_way(&edge, &web("Unary", kind, wrong.into())) {
            let (_, trailers) = read_web(&decoded(&reply.expect(200).body));
            assert!(trailers.contains("grpc-status: 13\r\n"), "{trailers}");
        }
    }
}

#[test]
fn what_the_edge_says_to_a_browser_is_grpc_web() {
    let edge = edge(ports::free());
    for (target, status) in [("/down.Test/X", "14"), ("/nowhere.Test/X", "12")] {
        let ask = Ask::post(target, framed(b"x")).field("Content-Type", "application/grpc-web");
        for reply in every_way(&edge, &ask) {
            let (_, trailers) = read_web(&reply.expect(200).body);
            let wanted = format!("grpc-status: {status}\r\n");
            assert!(trailers.contains(&wanted), "{target}: {trailers}");
        }
    }
    let ask = Ask::post("/small.Test/Unary", framed(&[b'x'; 2048]))
        .field("Content-Type", "application/grpc-web");
    for reply in every_way(&edge, &ask) {
        let (_, trailers) = read_web(&reply.expect(200).body);
        assert!(trailers.contains("grpc-status: 8\r\n"), "{trailers}");
    }
    // Whoever does not call gets what everybody gets.
    edge.ask(&Ask::post("/down.Test/X", "x")).expect(503);
}

#[test]
fn a_closed_site_is_unavailable_to_callers() {
    let edge = Setup::new()
        .with("APP", ports::free())
        .file("closed", "")
        .start(
            r#"
            [server]
            maintenance = { file = "closed" }
            [upstream.app]
            endpoints = ["@APP@"]
            protocol = "h2"
            [[route]]
            upstream = "app"
            "#,
        );
    let ask = Ask::post("/shop.Test/X", framed(b"")).field("Content-Type", "application/grpc");
    let reply = H2::tls(edge.https(), HOST).ask(&ask).expect(200);
    assert_eq!(reply.field("content-type"), Some("application/grpc"));
    assert_eq!(reply.field("grpc-status"), Some("14"));
    assert!(reply.field("retry-after").is_some());
    assert_eq!(reply.body, b"");
}
