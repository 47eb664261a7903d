//! WebSockets on every pair of versions: by bare streams, by a client and a server of others, by the
//! cases of the Autobahn suite, and from a page in a browser.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::support::client::HOST;
use crate::support::edge::root;
use crate::support::tools::{self, Running, python_with, tool};
use crate::support::{
    Answer, Ask, Edge, Gate, Origin, Seen, Setup, Streams, in_front_of, ports, wait,
};

/// Programs that others have written, on a machine that has other things to do.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

/// 101 as RFC 6455 has it for this request, then every byte is sent back.
pub(crate) fn granted(seen: &Seen) -> Answer {
    let key = seen.field("sec-websocket-key").unwrap_or_default();
    let key = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, key.as_bytes());
    let accept = STANDARD.encode(hash);
    Answer::websocket_with(&format!("Sec-WebSocket-Accept: {accept}\r\n"))
}

fn app() -> Origin {
    Origin::start(|seen| match seen.target.as_str() {
        "/ws" => granted(seen),
        "/forged" => Answer::websocket(),
        "/refused" => Answer::new(403, "no"),
        _ => Answer::ok("a page"),
    })
}

/// In front of `app` by HTTP/1.1, and one in front of that by HTTP/2.
fn edges(app: SocketAddr) -> (Edge, Edge) {
    let inner = in_front_of(app);
    let outer = Setup::new().with("APP", inner.http()).start(
        "[upstream.app]\nendpoints = [\"@APP@\"]\nprotocol = \"h2\"\n[[route]]\nupstream = \"app\"\n",
    );
    (inner, outer)
}

#[test]
fn a_stream_of_http_2_carries_one() {
    let app = app();
    let (inner, outer) = edges(app.address);
    for edge in [&inner, &outer] {
        for mut streams in [
            Streams::tls(edge.https(), HOST),
            Streams::plain(edge.http()),
        ] {
            let mut call = streams.connect("websocket", "/ws");
            let head = call.head().expect("a reply");
            assert_eq!(head.status(), 200);
            for gone in ["sec-websocket-accept", "upgrade", "connection"] {
                assert!(!head.headers().contains_key(gone), "{head:?}");
            }
            let seen = app.last();
            assert_eq!(seen.method, "GET");
            assert_eq!(seen.field("upgrade"), Some("websocket"), "{}", seen.raw);
            assert_eq!(seen.all("connection"), ["upgrade"]);
            assert_eq!(seen.field("sec-websocket-version"), Some("13"));
            assert_eq!(seen.all("sec-websocket-key").len(), 1);
            assert_eq!(seen.field("content-length"), None);
            call.data("ping", false);
            assert_eq!(call.exactly(4), Ok(b"ping".to_vec()));
            let big = vec![b'x'; 60_000];
            for _ in 0..20 {
                call.data(big.clone(), false);
                assert!(call.exactly(big.len()) == Ok(big.clone()));
            }
            // Others share the connection meanwhile.
            let mut other = streams.begin("GET", "/page", &[], true);
            assert_eq!(other.head().expect("a reply").status(), 200);
            call.data("", true);
            assert_eq!(call.rest().expect("an orderly end").0, b"");
        }
        wait::eventually("nothing under way", wait::SOON, || {
            edge.metric("tidegate_requests_active") == 0.0
        });
    }
}

#[test]
fn what_has_passed_is_not_kept() {
    let app = app();
    let edge = in_front_of(app.address);
    let kept = || edge.metric("process_resident_memory_bytes") - edge.program_memory() as f64;
    let mut streams = Streams::plain(edge.http());
    let mut call = streams.connect("websocket", "/ws");
    assert_eq!(call.head().expect("a reply").status(), 200);
    let piece = vec![b'x'; 60_000];
    let mut echo = |times: usize| {
        for _ in 0..times {
            call.data(piece.clone(), false);
            let echoed = call.exactly(piece.len());
            assert_eq!(echoed.map(|octets| octets.len()), Ok(piece.len()));
        }
    };
    echo(50);
    let before = kept();
    // 24 MB.
    echo(400);
    let grown = kept() - before;
    assert!(grown < 8e6, "{grown} octets more");
}

#[test]
fn a_client_that_leaves_takes_its_connection_to_the_app_along() {
    let app = app();
    let edge = in_front_of(app.address);
    let mut streams = Streams::plain(edge.http());
    let mut call = streams.connect("websocket", "/ws");
    call.head().expect("a reply");
    let open = "tidegate_upstream_endpoint_active_requests{upstream=\"app\"}";
    wait::eventually("it is counted", wait::SOON, || edge.metric(open) == 1.0);
    call.reset();
    wait::eventually("it is gone", wait::SOON, || edge.metric(open) == 0.0);
}

#[test]
fn an_app_that_takes_nothing_is_given_up_and_its_client_with_it() {
    let gate = Gate::default();
    let app = {
        let gate = gate.clone();
        Origin::start(move |seen| granted(seen).reads_not_before(&gate))
    };
    let edge = Setup::new().with("APP", app.address).start(
        "[log]\naccess = { path = \"access.log\" }\n[upstream.app]\nendpoints = [\"@APP@\"]\nread_timeout = \"1s\"\n[[route]]\nupstream = \"app\"\n",
    );
    let mut client = TcpStream::connect(edge.http()).expect("connect");
    let asked = format!(
        "GET /ws HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    client.write_all(asked.as_bytes()).expect("ask");
    // Who writes before it is let to is refused.
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte).expect("an answer");
        answer.push(byte[0]);
    }
    let open = "tidegate_upstream_endpoint_active_requests{upstream=\"app\"}";
    wait::eventually("it is counted", wait::SOON, || edge.metric(open) == 1.0);
    let more = client.try_clone().expect("a second handle");
    let writing = thread::spawn(move || {
        let mut more = more;
        // Until it is cut.
        let piece = vec![b'x'; 1 << 20];
        while more.write_all(&piece).is_ok() {}
    });
    wait::eventually("it is gone", wait::SOON, || edge.metric(open) == 0.0);
    wait::eventually("the client is told", wait::SOON, || writing.is_finished());
    gate.open();
    let line = wait::until("its line in the log", wait::SOON, || {
        let log = std::fs::read_to_string(edge.folder().join("access.log")).ok()?;
        log.lines().next().map(str::to_owned)
    });
    assert!(line.contains("\"why\":\"read_timeout\""), "{line}");
}

#[test]
fn http_1_clients_reach_apps_of_http_2() {
    let app = app();
    let (_inner, outer) = edges(app.address);
    for mut conn in [outer.plain(), outer.tls()] {
        let ask = Ask::get("/ws")
            .field("Connection", "Upgrade")
            .field("Upgrade", "websocket")
            .field("Sec-WebSocket-Version", "13")
            .field("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
        let reply = conn.ask(&ask);
        assert_eq!(reply.status, 101);
        assert_eq!(reply.field("upgrade"), Some("websocket"));
        // RFC 6455 section 1.3.
        let accept = reply.field("sec-websocket-accept");
        assert_eq!(accept, Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        let big = vec![b'x'; 200_000];
        let echoed = conn.send(&big).exactly(big.len());
        assert!(echoed == Ok(big));
        conn.finish();
        conn.expect_end();
    }
}

#[test]
fn what_is_no_websocket_does_not_open_one() {
    let app = app();
    let edge = Setup::new().with("APP", app.address).start(
        r#"
        [upstream.app]
        endpoints = ["@APP@"]
        outlier_detection = false
        [[route]]
        upstream = "app"
        [[route]]
        match = { path_prefix = "/said" }
        respond = { status = 200, body = "said" }
        [[route]]
        match = { path_prefix = "/cached" }
        upstream = "app"
        cache = { ttl = "60s" }
        "#,
    );
    let mut streams = Streams::tls(edge.https(), HOST);
    for (protocol, target, status) in [
        ("websocket", "/refused", 403),
        ("websocket", "/page", 502),
        // Its Sec-WebSocket-Accept is missing.
        ("websocket", "/forged", 502),
        ("websocket", "/said", 501),
        ("websocket", "/cached", 502),
        ("webtransport", "/ws", 501),
    ] {
        let mut call = streams.connect(protocol, target);
        assert_eq!(call.head().expect("a reply").status(), status, "{target}");
    }
    // A page that was asked for as one is still to be had.
    edge.get("/cached").expect(200);
    assert_eq!(edge.get("/cached").expect(200).text(), "a page");
}

#[test]
fn an_app_of_http_2_that_takes_none_is_not_asked() {
    let node =
        crate::support::h2_node::H2Node::start(None, |_| crate::support::h2_node::Act::Answer);
    let edge = Setup::new().with("APP", node.address).start(
        "[upstream.app]\nendpoints = [\"@APP@\"]\nprotocol = \"h2\"\n[[route]]\nupstream = \"app\"\n",
    );
    let ask = Ask::get("/ws")
        .field("Connection", "Upgrade")
        .field("Upgrade", "websocket");
    edge.ask(&ask).expect(501);
    let mut streams = Streams::plain(edge.http());
    let mut call = streams.connect("websocket", "/ws");
    assert_eq!(call.head().expect("a reply").status(), 501);
    assert_eq!(node.count(), 0);
}

/// A folder with the programs of tests/websocket and what they need. `None` where npm cannot be had.
pub(crate) fn project(folder: &Path, more: &[&str]) -> Option<PathBuf> {
    let npm = tools::find("npm", "npm")?;
    let project = folder.join("websocket");
    std::fs::create_dir_all(&project).expect("a folder");
    for entry in std::fs::read_dir(root().join("tests/websocket")).expect("programs") {
        let entry = entry.expect("a program");
        if entry.file_type().expect("a type").is_file() {
            std::fs::copy(entry.path(), project.join(entry.file_name())).expect("a copy");
        }
    }
    let mut install = Command::new(npm);
    let flags = ["--no-audit", "--no-fund", "--ignore-scripts"];
    install
        .arg("ci")
        .args(flags)
        .args(more)
        .current_dir(&project);
    let said = tools::run(&mut install, PATIENCE);
    if said.code != Some(0) {
        tools::missing("packages from npm", &format!("a network ({})", said.stderr));
        return None;
    }
    Some(project)
}

pub(crate) fn echo(node: &Path, project: &Path) -> (Running, SocketAddr) {
    let address = ports::free();
    let mut command = Command::new(node);
    command
        .arg("echo.mjs")
        .arg(address.to_string())
        .current_dir(project);
    let mut server = Running::start(&mut command);
    wait::eventually("the echo server", 2 * wait::SOON, || {
        assert!(server.is_running(), "{}", server.stderr());
        TcpStream::connect(address).is_ok()
    });
    (server, address)
}

#[test]
fn messages_pings_silence_and_closes_pass_as_they_are() {
    let node = tool!("node", "nodejs");
    let folder = tempfile::tempdir().expect("a folder");
    let Some(project) = project(folder.path(), &[]) else {
        return;
    };
    let (_server, app) = echo(&node, &project);
    // Every timeout is shorter than the silence.
    let limits =
        "[limits]\nbody_timeout = \"1s\"\nidle_timeout = \"1s\"\nheader_timeout = \"1s\"\n";
    let h1 = Setup::new().with("APP", app).start(&format!(
        "{limits}[upstream.app]\nendpoints = [\"@APP@\"]\nread_timeout = \"1s\"\n[[route]]\nupstream = \"app\"\n"
    ));
    let h2 = Setup::new().with("APP", h1.http()).start(&format!(
        "{limits}[upstream.app]\nendpoints = [\"@APP@\"]\nprotocol = \"h2\"\nread_timeout = \"1s\"\n[[route]]\nupstream = \"app\"\n"
    ));
    for (edge, deflate) in [(&h1, "deflate"), (&h1, "plain"), (&h2, "deflate")] {
        for base in [
            format!("ws://{}", edge.http()),
            format!("wss://{}", edge.https()),
        ] {
            let mut command = Command::new(&node);
            command.arg("talk.mjs").arg(&base).arg(deflate);
            let done = tools::run(command.current_dir(&project), PATIENCE);
            assert_eq!(done.code, Some(0), "{base} {deflate}: {done:?}");
            assert_eq!(done.stdout.lines().count(), 5, "{done:?}");
        }
    }
}

#[test]
fn a_close_is_answered_before_the_stream_ends() {
    let node = tool!("node", "nodejs");
    let folder = tempfile::tempdir().expect("a folder");
    let Some(project) = project(folder.path(), &[]) else {
        return;
    };
    let (_server, app) = echo(&node, &project);
    let edge = in_front_of(app);
    let mut streams = Streams::tls(edge.https(), HOST);
    for _ in 0..5 {
        let mut call = streams.connect("websocket", "/");
        assert_eq!(call.head().expect("a reply").status(), 200);
        // Masked by zeros (RFC 6455 section 5.3): code 3000 and a reason.
        call.data(&b"\x88\x85\0\0\0\0\x0b\xb8bye"[..], false);
        let (answer, _) = call.rest().expect("an orderly end");
        assert_eq!(answer, b"\x88\x05\x0b\xb8bye");
    }
}

/// What the suite's `groups` found of a server: for each case its verdicts.
fn findings(
    python: &Path,
    folder: &Path,
    server: SocketAddr,
    (groups, patience): (&[&str], Duration),
) -> Value {
    let mut command = Command::new(python);
    command
        .args([
            "-c",
            "from kosoku._cli import main; main()",
            "-p",
            "4",
            "-o",
        ])
        .arg(folder)
        .args(groups.iter().map(|group| format!("-i{group}")))
        .arg(server.to_string());
    let done = tools::run(&mut command, patience);
    let index = std::fs::read_to_string(folder.join("index.json"));
    let index = index.unwrap_or_else(|error| panic!("{error}: {done:?}"));
    let index: Value = serde_json::from_str(&index).expect("JSON");
    let (_, cases) = index
        .as_object()
        .and_then(|it| it.iter().next())
        .expect("a server");
    let verdicts = cases
        .as_object()
        .expect("cases")
        .iter()
        .map(|(case, found)| {
            let verdict =
                ["behavior", "behaviorClose", "remoteCloseCode"].map(|it| found[it].clone());
            (case.clone(), Value::from(verdict.to_vec()))
        });
    Value::Object(verdicts.collect())
}

/// Groups 9, 12 and 13, large messages and a thousand compressed ones a case, take many minutes: they
/// run too with `TIDEGATE_TEST_AUTOBAHN=all`.
#[test]
fn the_autobahn_cases_find_the_same_through_the_edge() {
    let mut groups = vec!["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*"];
    let (mut least, mut patience) = (200, PATIENCE);
    if std::env::var_os("TIDEGATE_TEST_AUTOBAHN").is_some_and(|value| value == "all") {
        groups.extend(["9.*", "12.*", "13.*"]);
        (least, patience) = (450, 20 * PATIENCE);
    }
    let node = tool!("node", "nodejs");
    let Some(python) = python_with("kosoku", "kosoku") else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let Some(project) = project(folder.path(), &[]) else {
        return;
    };
    let (_server, app) = echo(&node, &project);
    let edge = in_front_of(app);
    let asked = (groups.as_slice(), patience);
    let direct = findings(&python, &folder.path().join("direct"), app, asked);
    let through = findings(&python, &folder.path().join("through"), edge.http(), asked);
    let cases = direct.as_object().expect("cases");
    assert!(cases.len() > least, "{}", cases.len());
    for (case, verdict) in cases {
        assert_eq!(&through[case], verdict, "case {case}");
    }
}

#[test]
fn a_page_in_a_browser_opens_one_over_http_2() {
    let node = tool!("node", "nodejs");
    let chromium = tool!("chromium", "chromium");
    let folder = tempfile::tempdir().expect("a folder");
    let Some(project) = project(folder.path(), &[]) else {
        return;
    };
    let (_server, app) = echo(&node, &project);
    let edge = Setup::new()
        .with("APP", app)
        .file("site/index.html", "a page")
        .start(
            r#"
        [log]
        access = { path = "access.log", format = "json" }
        [static.site]
        root = "site"
        [upstream.app]
        endpoints = ["@APP@"]
        [[route]]
        match = { path = "/socket", headers = { upgrade = { regex = "(?i)^websocket$" } } }
        upstream = "app"
        [[route]]
        static = "site"
        "#,
        );
    let mut command = Command::new(&node);
    command
        .arg("page.mjs")
        .arg(chromium)
        .arg(format!("https://{}", edge.https()))
        .current_dir(&project);
    let done = tools::run(&mut command, PATIENCE);
    assert_eq!(done.code, Some(0), "{done:?}\n{}", edge.stderr());
    let said: Value = serde_json::from_str(done.stdout.trim()).expect("JSON");
    let log = edge.folder().join("access.log");
    let line = wait::until("its line in the log", wait::SOON, || {
        let log = std::fs::read_to_string(&log).ok()?;
        let line = log.lines().find(|line| line.contains("/socket"))?;
        serde_json::from_str::<Value>(line).ok()
    });
    assert_eq!(line["protocol"], "HTTP/2.0", "{line}");
    assert_eq!(line["status"], 200, "{line}");
    assert_eq!(said["protocol"], "h2", "{said}");
    assert_eq!(said["answer"], "from a page");
    assert_eq!(said["close"], 3000, "{said} {line}");
}
