//! Clients that are slow on purpose, clients that are slow because their line is, and clients that come
//! too often.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use crate::support::client::{HOST, find};
use crate::support::h2::{Frames, Verdict};
use crate::support::tools::{self, tool};
use crate::support::{Answer, Ask, Conn, Edge, Origin, Setup, certs, wait};

const APP: &str = "[upstream.app]\nendpoints = [\"@APP@\"]\n[[route]]\nupstream = \"app\"\n";

fn edge(limits: &str, origin: &Origin) -> Edge {
    let config = format!("[limits]\n{limits}\n{APP}");
    Setup::new().with("APP", origin.address).start(&config)
}

fn rejected(edge: &Edge, reason: &str) -> f64 {
    edge.metric(&format!(
        "tidegate_requests_rejected_total{{reason=\"{reason}\"}}"
    ))
}

fn refused(edge: &Edge, reason: &str) -> f64 {
    edge.metric(&format!(
        "tidegate_connections_refused_total{{reason=\"{reason}\"}}"
    ))
}

/// A client that sends and takes as slowly as the test says.
struct Slow(TcpStream);

impl Slow {
    fn open(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).expect("a connection");
        socket.set_nodelay(true).expect("set TCP_NODELAY");
        Self(socket)
    }

    /// With a small buffer, so that what it does not read is not sent either.
    fn narrow(address: SocketAddr) -> Self {
        use socket2::{Domain, Socket, Type};
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket
            .set_recv_buffer_size(8 * 1024)
            .expect("a small buffer");
        socket.connect(&address.into()).expect("a connection");
        Self(socket.into())
    }

    /// Sends `bytes` again and again, with a pause between, until there is a reply or the end or it has
    /// taken `most`; what was said.
    fn drip(&mut self, bytes: &[u8], pause: Duration, most: Duration) -> String {
        let began = wait::now();
        let mut said = Vec::new();
        self.0
            .set_read_timeout(Some(pause))
            .expect("set a read timeout");
        while began.elapsed() < most && find(&said, b"\r\n\r\n").is_none() {
            let _ = self.0.write_all(bytes);
            let mut piece = [0; 4096];
            match self.0.read(&mut piece) {
                Ok(0) => break,
                Ok(count) => said.extend_from_slice(&piece[..count]),
                Err(error) if is_timeout(error.kind()) => {}
                Err(_) => break,
            }
        }
        String::from_utf8_lossy(&said).into_owned()
    }

    /// Takes `size` bytes each `pause`, until the end or until it has taken `most`; how many it got.
    fn sip(&mut self, size: usize, pause: Duration, most: Duration) -> (usize, bool) {
        let began = wait::now();
        let mut got = 0;
        let mut piece = vec![0; size];
        while began.elapsed() < most {
            match self.0.read(&mut piece) {
                Ok(count) if count > 0 => got += count,
                Ok(_) | Err(_) => return (got, true),
            }
            wait::hold(pause);
        }
        (got, false)
    }
}

fn is_timeout(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

fn post(length: usize) -> String {
    format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {length}\r\n\r\n")
}

#[test]
fn a_body_below_the_rate_is_408_and_one_above_it_arrives() {
    let origin = Origin::start(|seen| Answer::ok(seen.body.len().to_string()));
    let edge = edge("min_rate = \"2KiB/s\"\nmin_rate_grace = \"1s\"", &origin);
    for chunked in [false, true] {
        let (head, piece) = match chunked {
            false => (post(1_000_000), b"xx".to_vec()),
            true => (
                post(0).replace("Content-Length: 0", "Transfer-Encoding: chunked"),
                b"2\r\nxx\r\n".to_vec(),
            ),
        };
        let mut slow = Slow::open(edge.http());
        slow.0.write_all(head.as_bytes()).expect("sent");
        let began = wait::now();
        let said = slow.drip(&piece, wait::millis(50), wait::SOON);
        assert!(said.starts_with("HTTP/1.1 408 "), "{said:?}");
        assert!(
            began.elapsed() >= wait::millis(900),
            "{:?}",
            began.elapsed()
        );
    }
    assert_eq!(rejected(&edge, "min_rate"), 2.0);
    // 8 KiB a second, for three times the grace.
    let mut steady = Slow::open(edge.http());
    let length = 3 * 8 * 1024;
    steady.0.write_all(post(length).as_bytes()).expect("sent");
    for _ in 0..30 {
        steady.0.write_all(&vec![b'x'; length / 30]).expect("sent");
        wait::hold(wait::millis(100));
    }
    let rest = length % 30;
    let said = steady.drip(&vec![b'x'; rest], wait::secs(5), wait::secs(5));
    assert!(said.starts_with("HTTP/1.1 200 "), "{said:?}");
    assert_eq!(rejected(&edge, "min_rate"), 2.0);
    wait::eventually("one line", wait::SOON, || {
        edge.stderr()
            .matches("clients were held to a limit")
            .count()
            == 1
    });
}

#[test]
fn a_body_that_is_steady_and_endless_is_408_in_time() {
    let origin = Origin::named("x");
    let edge = edge("request_timeout = \"1s\"", &origin);
    let mut slow = Slow::open(edge.http());
    slow.0.write_all(post(1_000_000).as_bytes()).expect("sent");
    let began = wait::now();
    let said = slow.drip(&[b'x'; 1000], wait::millis(50), wait::SOON);
    assert!(said.starts_with("HTTP/1.1 408 "), "{said:?}");
    assert!(
        began.elapsed() >= wait::millis(900),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(rejected(&edge, "request_timeout"), 1.0);
    // Not in force for one that follows on a connection.
    let mut conn = edge.plain();
    conn.ask(&Ask::post("/", "1")).expect(200);
    wait::hold(wait::millis(1200));
    conn.ask(&Ask::post("/", "2")).expect(200);
}

#[test]
fn the_same_over_http_2() {
    let origin = Origin::start(|seen| Answer::ok(seen.body.len().to_string()));
    for (limits, reason) in [
        ("min_rate = \"2KiB/s\"\nmin_rate_grace = \"1s\"", "min_rate"),
        ("request_timeout = \"1s\"", "request_timeout"),
    ] {
        let edge = edge(limits, &origin);
        let mut frames = Frames::open(edge.http());
        let fields = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", "/"),
            (":authority", HOST),
        ];
        frames.headers(1, &fields, false);
        let began = wait::now();
        let mut verdict = Verdict::Closed;
        frames.patience(wait::millis(50));
        while verdict == Verdict::Closed && began.elapsed() < wait::SOON {
            frames.data(1, b"xx", false);
            verdict = frames.verdict(1);
        }
        assert_eq!(verdict, Verdict::Status(408), "{reason}");
        assert!(
            began.elapsed() >= wait::millis(900),
            "{:?}",
            began.elapsed()
        );
        assert_eq!(rejected(&edge, reason), 1.0);
        // Messages may be far between.
        let mut frames = Frames::open(edge.http());
        let mut grpc = fields.to_vec();
        grpc.push(("content-type", "application/grpc"));
        frames.headers(1, &grpc, false);
        for _ in 0..8 {
            frames.data(1, b"message", false);
            wait::hold(wait::millis(250));
        }
        frames.data(1, b"", true);
        assert_eq!(frames.verdict(1), Verdict::Status(200));
    }
}

#[test]
fn a_reply_taken_below_the_rate_is_ended_and_above_it_is_not() {
    let big = "x".repeat(4 << 20);
    let origin = Origin::start(move |_| Answer::ok(big.clone()));
    let edge = edge("min_rate = \"1MiB/s\"\nmin_rate_grace = \"1s\"", &origin);
    let ask = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    let mut slow = Slow::narrow(edge.http());
    slow.0.write_all(ask.as_bytes()).expect("sent");
    let (got, ended) = slow.sip(8 * 1024, wait::millis(50), wait::SOON);
    assert!(ended && got < 4 << 20, "{got} bytes, ended: {ended}");
    wait::eventually("it is counted", wait::SOON, || {
        refused(&edge, "min_rate") == 1.0
    });
    edge.get("/").expect(200);
    let gentle = self::edge("min_rate = \"10KiB/s\"\nmin_rate_grace = \"1s\"", &origin);
    let mut slow = Slow::narrow(gentle.http());
    slow.0.write_all(ask.as_bytes()).expect("sent");
    let (got, ended) = slow.sip(16 * 1024, wait::millis(100), wait::secs(4));
    assert!(!ended, "{got} bytes, then the end");
    assert_eq!(refused(&gentle, "min_rate"), 0.0);
}

#[test]
fn one_client_opens_so_many_connections_a_second() {
    let edge = Setup::new().start(
        "[limits]\nmax_connection_rate_per_ip = \"1/s\"\n[[route]]\nrespond = { body = \"ok\" }\n",
    );
    let served = |edge: &Edge| {
        let mut conn = edge.plain().patience(wait::secs(5));
        conn.send(Ask::get("/").bytes());
        conn.read(false).is_ok()
    };
    let count = (0..30).filter(|_| served(&edge)).count();
    // Ten at once, some of which were used to see that it is ready, and one for each second.
    assert!((3..20).contains(&count), "{count} of 30");
    let name = "max_connection_rate_per_ip";
    assert!(refused(&edge, name) >= 10.0, "{}", refused(&edge, name));
    wait::eventually("a place again", wait::SOON, || served(&edge));
    let lines = edge.stderr().matches(name).count();
    assert_eq!(lines, 1, "{}", edge.stderr());
}

#[test]
fn one_client_begins_so_many_handshakes_a_second() {
    let edge = Setup::new().start(
        "[limits]\nmax_handshake_rate_per_ip = \"1/s\"\n[[route]]\nrespond = { body = \"ok\" }\n",
    );
    let config = certs::client(&["http/1.1"], rustls::ALL_VERSIONS);
    let shakes = || Conn::tls_with(edge.https(), "shop.test", config.clone()).is_ok();
    let count = (0..30).filter(|_| shakes()).count();
    assert!((3..25).contains(&count), "{count} of 30");
    assert!(refused(&edge, "max_handshake_rate_per_ip") >= 5.0);
    // Plain connections are no handshakes.
    for _ in 0..30 {
        edge.get("/").expect(200);
    }
}

/// slowhttptest in its four modes: none of them keeps an edge from serving.
#[test]
fn slowhttptest_does_not_get_through() {
    let program = tool!("slowhttptest", "slowhttptest");
    tools::raise_open_files(4096);
    let body = "x".repeat(1 << 20);
    let origin = Origin::start(move |_| Answer::ok(body.clone()));
    let edge = edge(
        "header_timeout = \"1s\"\nbody_timeout = \"2s\"\nmin_rate = \"1KiB/s\"\nmin_rate_grace = \"1s\"\nidle_timeout = \"2s\"",
        &origin,
    );
    let url = format!("http://{}/", edge.http());
    for (what, mode) in [
        ("slow headers", &["-H", "-i", "1"][..]),
        ("slow body", &["-B", "-i", "1", "-s", "8192"]),
        (
            "slow read",
            &["-X", "-w", "1", "-y", "2", "-n", "1", "-z", "1", "-k", "3"],
        ),
        ("ranges", &["-R"]),
    ] {
        let mut attack = Command::new(&program);
        attack
            .args(mode)
            .args(["-c", "200", "-r", "200", "-l", "8", "-p", "5", "-u", &url]);
        let mut attack = tools::Running::start(&mut attack);
        let began = wait::now();
        let mut slowest = Duration::ZERO;
        while attack.is_running() && began.elapsed() < wait::secs(30) {
            let asked = wait::now();
            edge.get("/").expect(200);
            slowest = slowest.max(asked.elapsed());
            wait::hold(wait::millis(100));
        }
        attack.wait(wait::secs(30));
        assert!(slowest < wait::secs(2), "{what}: one took {slowest:?}");
        wait::eventually("its connections are gone", wait::secs(20), || {
            edge.metric("tidegate_connections_active{listener=\"plain\"}") <= 1.0
        });
    }
}

/// Prints what a visitor waits for, without and with 5,000 slow connections (`docs/limits.md`):
/// `cargo test --release --test e2e slow_clients::visitors -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
fn visitors_do_not_notice_five_thousand_slow_clients() {
    const SLOW: usize = 5000;
    tools::raise_open_files(16_384);
    let origin = Origin::start(|_| Answer::ok("x".repeat(1000)));
    let edge = edge(
        "header_timeout = \"5m\"\nmax_connections_per_ip = 10000\nmax_connection_rate_per_ip = false",
        &origin,
    );
    let visit = || {
        let mut conn = edge.plain();
        let mut times: Vec<Duration> = (0..4000)
            .map(|_| {
                let began = wait::now();
                conn.ask(&Ask::get("/")).expect(200);
                began.elapsed()
            })
            .collect();
        times.sort_unstable();
        (times[times.len() / 2], times[times.len() * 99 / 100])
    };
    visit();
    let idle = visit();
    let mut slow: Vec<Slow> = (0..SLOW).map(|_| Slow::open(edge.http())).collect();
    for one in &mut slow {
        let head = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n");
        one.0.write_all(head.as_bytes()).expect("sent");
    }
    edge.await_metric(
        "tidegate_connections_active{listener=\"plain\"}",
        SLOW as f64,
    );
    let drips = std::thread::spawn(move || {
        // Each says something every five seconds.
        for _ in 0..3 {
            for batch in slow.chunks_mut(SLOW / 100) {
                for one in batch {
                    one.0.write_all(b"X-Slow: 1\r\n").expect("still open");
                }
                wait::hold(wait::millis(50));
            }
        }
        slow.len()
    });
    let beside = visit();
    println!("idle: p50 {:?}, p99 {:?}", idle.0, idle.1);
    println!(
        "beside {SLOW} slow ones: p50 {:?}, p99 {:?}",
        beside.0, beside.1
    );
    assert_eq!(drips.join().expect("all of them"), SLOW);
}
