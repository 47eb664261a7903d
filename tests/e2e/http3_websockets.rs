//! WebSockets over HTTP/3 (RFC 9220): by bare frames, and by aioquic in front of an echo server of others.

use std::collections::HashMap;
use std::process::Command;

use serde_json::Value;

use crate::support::edge::root;
use crate::support::h3::{Bare, Client, DATA, SETTINGS, Verdict, frame, headers};
use crate::support::tools::{self, tool};
use crate::support::{Answer, Edge, Origin, Setup, runtime, wait};
use crate::websockets::{PATIENCE, echo, granted, project};

const CANCELLED: u64 = 0x10c;

fn app() -> Origin {
    Origin::start(|seen| match seen.target.as_str() {
        "/ws" => granted(seen),
        "/refused" => Answer::new(403, "no"),
        _ => Answer::ok("a page"),
    })
}

fn edge_with(app: std::net::SocketAddr, more: &str) -> Edge {
    Setup::new().with("APP", app).start(&format!(
        r#"
        [log]
        access = {{ path = "access.log", format = "json" }}
        [[listener]]
        name = "secure"
        address = "@HTTPS@"
        tls = true
        protocols = ["h1", "h2", "h3"]
        [upstream.app]
        endpoints = ["@APP@"]
        outlier_detection = false
        {more}
        [[route]]
        upstream = "app"
        [[route]]
        match = {{ path_prefix = "/said" }}
        respond = {{ status = 200, body = "said" }}
        "#
    ))
}

fn connect<'a>(protocol: &'a str, path: &'a str) -> Vec<u8> {
    headers(&[
        (":method", "CONNECT"),
        (":protocol", protocol),
        (":scheme", "https"),
        (":authority", "shop.test"),
        (":path", path),
        ("sec-websocket-version", "13"),
    ])
}

fn open(client: &Client, edge: &Edge) -> (Bare, quinn::SendStream) {
    let bare = client.bare(edge.https());
    let control = bare.open_uni(&[&[0][..], &frame(SETTINGS, &[])].concat());
    (bare, control)
}

/// The line of the access log for this path.
fn line(edge: &Edge, path: &str) -> Value {
    let log = edge.folder().join("access.log");
    wait::until("its line in the log", wait::SOON, || {
        let log = std::fs::read_to_string(&log).ok()?;
        let mut lines = log
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.find(|line| line["target"] == path)
    })
}

#[test]
fn a_stream_carries_one_and_its_end_is_the_end_of_it() {
    let app = app();
    let edge = edge_with(app.address, "");
    let client = Client::new();
    let (bare, _control) = open(&client, &edge);
    let mut call = bare.open(&connect("websocket", "/ws"));
    assert_eq!(call.verdict(wait::SOON), Verdict::Status(200));
    let seen = app.last();
    assert_eq!(seen.method, "GET");
    assert_eq!(seen.all("upgrade"), ["websocket"], "{}", seen.raw);
    assert_eq!(seen.all("connection"), ["upgrade"]);
    assert_eq!(seen.all("sec-websocket-key").len(), 1);
    assert!(call.write(&frame(DATA, b"ping")));
    assert_eq!(call.data(4), Ok(b"ping".to_vec()));
    let big = vec![b'x'; 1_000_000];
    // Written beside what comes back, which waits for this client otherwise.
    let mut send = std::mem::replace(
        &mut call.send,
        runtime().block_on(async { bare.0.open_uni().await.expect("a stream") }),
    );
    let writing = runtime().spawn({
        let octets = frame(DATA, &big);
        async move {
            send.write_all(&octets).await.expect("it is taken");
            send
        }
    });
    let echoed = call.data(4 + big.len()).expect("all of it");
    assert!(echoed[4..] == big, "{} octets", echoed.len());
    let mut send = runtime().block_on(writing).expect("written");
    // Others share the connection meanwhile.
    let page = headers(&[
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", "shop.test"),
        (":path", "/page"),
    ]);
    assert_eq!(bare.send(&page, true), Verdict::Status(200));
    send.finish().expect("open until now");
    assert_eq!(
        call.data(usize::MAX).map(|all| all.len()),
        Ok(4 + big.len())
    );
    let line = line(&edge, "/ws");
    assert_eq!(line["protocol"], "HTTP/3.0", "{line}");
    assert_eq!(line["status"], 200, "{line}");
    wait::eventually("nothing under way", wait::SOON, || {
        edge.metric("tidegate_requests_active") == 0.0
    });
}

#[test]
fn a_reset_takes_the_connection_to_the_app_along() {
    let app = app();
    let edge = edge_with(app.address, "");
    let client = Client::new();
    let (bare, _control) = open(&client, &edge);
    let mut call = bare.open(&connect("websocket", "/ws"));
    assert_eq!(call.verdict(wait::SOON), Verdict::Status(200));
    let open = "tidegate_upstream_endpoint_active_requests{upstream=\"app\"}";
    wait::eventually("it is counted", wait::SOON, || edge.metric(open) == 1.0);
    call.send
        .reset(quinn::VarInt::from_u32(0x10c))
        .expect("open");
    wait::eventually("it is gone", wait::SOON, || edge.metric(open) == 0.0);
    assert_eq!(call.sip(1, wait::SOON), Err(Verdict::Reset(CANCELLED)));
}

#[test]
fn what_is_no_websocket_does_not_open_one() {
    let app = app();
    let edge = edge_with(app.address, "");
    let client = Client::new();
    let (bare, _control) = open(&client, &edge);
    for (protocol, path, status) in [
        ("websocket", "/refused", 403),
        ("websocket", "/page", 502),
        ("websocket", "/said", 501),
        ("WebSocket", "/refused", 403),
        ("webtransport", "/ws", 501),
        ("connect-udp", "/ws", 501),
        ("", "/ws", 501),
    ] {
        let verdict = bare.open(&connect(protocol, path)).verdict(wait::SOON);
        assert_eq!(verdict, Verdict::Status(status), "{protocol} {path}");
    }
    // Nothing can follow what has ended.
    let ended = bare.send(&connect("websocket", "/ws"), true);
    assert_eq!(ended, Verdict::Status(501));
    assert_eq!(app.count_of("/ws"), 0);
    for (what, fields) in [
        (
            "no path",
            &[
                (":method", "CONNECT"),
                (":protocol", "websocket"),
                (":scheme", "https"),
                (":authority", "shop.test"),
            ][..],
        ),
        (
            "a protocol with GET",
            &[
                (":method", "GET"),
                (":protocol", "websocket"),
                (":scheme", "https"),
                (":authority", "shop.test"),
                (":path", "/ws"),
            ],
        ),
    ] {
        let verdict = bare.send(&headers(fields), false);
        assert_eq!(verdict, Verdict::Status(400), "{what}");
    }
    // An ordinary CONNECT.
    let plain = headers(&[(":method", "CONNECT"), (":authority", "shop.test:443")]);
    assert_eq!(bare.send(&plain, false), Verdict::Status(501));
}

#[test]
fn a_tunnel_has_data_frames_and_nothing_else() {
    let app = app();
    let edge = edge_with(app.address, "");
    let client = Client::new();
    let (bare, _control) = open(&client, &edge);
    let mut call = bare.open(&connect("websocket", "/ws"));
    assert_eq!(call.verdict(wait::SOON), Verdict::Status(200));
    assert!(call.write(&headers(&[("x", "y")])));
    assert_eq!(bare.await_close(), Verdict::Closed(0x105));
}

#[test]
fn a_client_that_takes_nothing_is_cut() {
    let app = app();
    let edge = edge_with(app.address, "[limits]\nbody_timeout = \"1s\"");
    let client = Client::with(crate::support::h3::narrow(16 * 1024));
    let (bare, _control) = open(&client, &edge);
    let mut call = bare.open(&connect("websocket", "/ws"));
    assert_eq!(call.verdict(wait::SOON), Verdict::Status(200));
    // What it says comes back, and is not taken.
    let _writing = runtime().spawn(async move {
        let written = call.send.write_all(&frame(DATA, &[b'x'; 4 << 20])).await;
        (call, written)
    });
    let series = "tidegate_connections_refused_total{listener=\"secure\",reason=\"write_timeout\"}";
    edge.await_metric(series, 1.0);
}

#[test]
fn aioquic_talks_to_an_echo_server() {
    let Some(python) = tools::python_with("aioquic.h3.connection", "aioquic") else {
        return;
    };
    let node = tool!("node", "nodejs");
    let folder = tempfile::tempdir().expect("a folder");
    let Some(project) = project(folder.path(), &[]) else {
        return;
    };
    let (_server, app) = echo(&node, &project);
    // Every timeout of silence is shorter than that.
    let limits =
        "read_timeout = \"1s\"\n[limits]\nidle_timeout = \"1s\"\nheader_timeout = \"1s\"\n";
    let edge = edge_with(app, limits);
    let mut command = Command::new(python);
    command
        .arg(root().join("tests/e2e/http3_websocket.py"))
        .args(["127.0.0.1", &edge.https().port().to_string()])
        .arg(edge.folder().join("ca.pem"));
    let said = tools::run(&mut command, PATIENCE);
    assert_eq!(said.code, Some(0), "{said:?}\n{}", edge.stderr());
    let lines = said
        .stdout
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    let steps: HashMap<String, Value> = lines
        .map(|line: Value| (line["step"].as_str().unwrap().to_owned(), line))
        .collect();
    assert_eq!(steps["settings"]["connect"], 1);
    for path in ["/", "/later", "/close/3001"] {
        assert_eq!(steps[path]["status"], 200, "{path}");
    }
    assert_eq!(steps["text"]["said"], "hello");
    assert_eq!(steps["large"]["length"], 1_000_000);
    assert_eq!(steps["silence"]["said"], "3500");
    assert_eq!(steps["own close"]["code"], 3000);
    assert_eq!(steps["own close"]["ended"], true);
    assert_eq!(steps["its close"]["code"], 3001);
    let line = line(&edge, "/later");
    assert_eq!(line["protocol"], "HTTP/3.0", "{line}");
    assert_eq!(line["status"], 200, "{line}");
}
