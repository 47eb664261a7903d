//! The harness itself holds: a failure of a test is then the edge's.

use crate::support::client::once;
use crate::support::h2::{Frames, Verdict};
use crate::support::load::{Load, Talk};
use crate::support::nginx::Nginx;
use crate::support::tools::{self, tool};
use crate::support::{Answer, Ask, Broken, Conn, Gate, H2, Origin, certs, ports, wait};

#[test]
fn ports_are_never_handed_out_twice() {
    let mut all: Vec<_> = (0..100).map(|_| ports::free()).collect();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 100);
}

#[test]
fn an_origin_answers_and_remembers() {
    let origin =
        Origin::start(|seen| Answer::ok(seen.body.clone()).field("x-nth", &seen.nth.to_string()));
    let mut conn = Conn::open(origin.address);
    assert_eq!(conn.ask(&Ask::get("/a")).field("x-nth"), Some("0"));
    assert_eq!(conn.ask(&Ask::post("/b", "echo")).text(), "echo");
    assert_eq!(origin.last().target, "/b");
    assert_eq!((origin.count(), origin.connections()), (2, 1));
    assert!(origin.broken().is_empty());
}

#[test]
fn an_origin_notes_what_is_not_http() {
    let origin = Origin::named("x");
    Conn::open(origin.address)
        .send("0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .expect_end();
    wait::eventually("the note", wait::SOON, || origin.broken().len() == 1);
}

#[test]
fn an_origin_streams_and_cuts_and_resets() {
    let origin = Origin::start(|seen| match seen.target.as_str() {
        "/chunks" => Answer::chunks(&["one", "two"], wait::millis(1)),
        "/close" => Answer::until_close("all"),
        "/short" => Answer::ok("part").short_by(3),
        "/echo" => Answer::websocket(),
        _ => Answer::reset(),
    });
    assert_eq!(once(origin.address, &Ask::get("/chunks")).text(), "onetwo");
    assert_eq!(once(origin.address, &Ask::get("/close")).text(), "all");
    let mut conn = Conn::open(origin.address);
    let short = conn.send(Ask::get("/short").bytes()).read(false);
    assert_eq!(short.unwrap_err(), Broken::Cut("part".into()));
    let mut conn = Conn::open(origin.address);
    let reset = conn.send(Ask::get("/reset").bytes()).read(false);
    assert_eq!(reset.unwrap_err(), Broken::ClosedSilently);
    let mut conn = Conn::open(origin.address);
    assert_eq!(conn.ask(&Ask::get("/echo")).status, 101);
    assert_eq!(conn.send("ping").exactly(4), Ok(b"ping".to_vec()));
}

#[test]
fn an_origin_goes_down_and_comes_up_again() {
    let mut origin = Origin::named("x");
    let mut conn = Conn::open(origin.address);
    conn.ask(&Ask::get("/"));
    origin.down();
    conn.expect_end();
    assert!(std::net::TcpStream::connect(origin.address).is_err());
    origin.up();
    once(origin.address, &Ask::get("/")).expect(200);
}

#[test]
fn a_gate_holds_an_answer_back() {
    let gate = Gate::default();
    let held = gate.clone();
    let origin = Origin::start(move |_| Answer::ok("late").when(&held));
    let mut conn = Conn::open(origin.address);
    conn.send(Ask::get("/").bytes())
        .expect_quiet(wait::millis(100));
    gate.open();
    assert_eq!(conn.reply().text(), "late");
}

#[test]
fn nginx_serves_as_a_node() {
    let program = tool!("nginx", "nginx-light");
    let mut nginx = Nginx::node(&program, "a", "");
    assert_eq!(once(nginx.address, &Ask::get("/")).text(), "a\n");
    nginx.down();
    assert!(std::net::TcpStream::connect(nginx.address).is_err());
    nginx.up();
    once(nginx.address, &Ask::get("/healthz")).expect(200);
}

#[test]
fn a_program_is_run_with_a_deadline() {
    let mut echo = std::process::Command::new("sh");
    let done = tools::run(
        echo.args(["-c", "echo out; echo err >&2; exit 3"]),
        wait::SOON,
    );
    assert_eq!(done.code, Some(3));
    assert_eq!(
        (done.stdout.as_str(), done.stderr.as_str()),
        ("out\n", "err\n")
    );
}

#[test]
fn clients_and_loads_work_against_nginx_in_every_protocol() {
    let program = tool!("nginx", "nginx-light");
    let folder = tempfile::TempDir::new().unwrap();
    let (cert, key) = certs::write(folder.path(), "shop", &["shop.test"]);
    let (secure, clear) = (ports::free(), ports::free());
    let extra = format!(
        "listen {secure} ssl http2; listen {clear} http2; ssl_certificate {}; ssl_certificate_key {};",
        cert.display(),
        key.display()
    );
    let nginx = Nginx::node(&program, "a", &extra);
    let ask = Ask::get("/");
    assert_eq!(Conn::tls(secure, "shop.test").ask(&ask).text(), "a\n");
    let mut h2 = H2::tls(secure, "shop.test");
    assert_eq!(h2.ask(&ask).text(), "a\n");
    assert!(
        h2.ask_all(&[ask.clone(), ask.clone()])
            .iter()
            .all(Result::is_ok)
    );
    assert_eq!(H2::plain(clear).ask(&ask).text(), "a\n");
    for (talk, address) in [
        (Talk::Plain, nginx.address),
        (Talk::TlsH1, secure),
        (Talk::TlsH2, secure),
    ] {
        let load = Load::start(talk, address, &ask, 200, 4);
        wait::eventually("some load", wait::SOON, || load.so_far().ok >= 100);
        let report = load.end();
        report.expect_flawless(100);
        assert_eq!(report.nodes.get("a"), Some(&report.ok), "{talk:?}");
    }
}

#[test]
fn bare_frames_are_understood_and_judged() {
    let program = tool!("nginx", "nginx-light");
    let clear = ports::free();
    let _nginx = Nginx::node(&program, "a", &format!("listen {clear} http2;"));
    let good = [
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", "shop.test"),
    ];
    let mut frames = Frames::open(clear);
    frames.headers(1, &good, true);
    assert_eq!(frames.verdict(1), Verdict::Status(200));
    let mut frames = Frames::open(clear);
    frames.headers(1, &good[1..], true);
    let verdict = frames.verdict(1);
    assert!(verdict.is_refusal(), "no method: {verdict:?}");
}
