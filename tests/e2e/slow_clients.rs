//! Clients that are slow on purpose, clients that are slow because their line is, and clients that come
//! too often.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use crate::support::client::{HOST, find, reset};
use crate::support::h2::{Frames, Verdict};
use crate::support::tools::{self, tool};
use crate::support::{Answer, Ask, Conn, Edge, Origin, Setup, certs, ports, runtime, wait};

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

/// Connections that are slow at the same time.
const SLOW: usize = 5000;

/// Of so many connections one is in the middle of a body.
const IN_BODY: usize = 10;

/// Of so many connections one takes a reply: fewer, as each lets the kernel hold what it does not take.
const IN_REPLY: usize = 50;

/// Requests of a visitor in a round, and the time between two.
const ASKS: usize = 500;
const PACE: Duration = Duration::from_millis(4);

/// Rounds at each edge: at least, at most.
const ROUNDS: (usize, usize) = (5, 15);

const ACTIVE: &str = "tidegate_connections_active{listener=\"plain\"}";

/// An edge that lets one client have all these connections, and each take its time.
fn patient(origin: &Origin, mute: SocketAddr) -> Edge {
    Setup::new()
        .with("APP", origin.address)
        .with("MUTE", mute)
        .file("public/large.bin", vec![b'x'; 8 << 20])
        .start(
            r#"
            [limits]
            header_timeout = "10m"
            body_timeout = "10m"
            min_rate = false
            max_connections_per_ip = 10000
            max_connection_rate_per_ip = false
            [upstream.app]
            endpoints = ["@APP@"]
            [upstream.mute]
            endpoints = ["@MUTE@"]
            first_byte_timeout = "10m"
            [static.files]
            root = "public"
            [[route]]
            match = { path_prefix = "/files" }
            static = "files"
            strip_prefix = "/files"
            [[route]]
            match = { path_prefix = "/up" }
            upstream = "mute"
            [[route]]
            upstream = "app"
            "#,
        )
}

/// An app that takes connections and says nothing, without a thread for each.
fn app_that_says_nothing() -> (SocketAddr, tokio::task::JoinHandle<()>) {
    let address = ports::free();
    let listener = runtime()
        .block_on(tokio::net::TcpListener::bind(address))
        .expect("a free port");
    let task = runtime().spawn(async move {
        let mut held = Vec::new();
        while let Ok((socket, _)) = listener.accept().await {
            held.push(socket);
        }
    });
    (address, task)
}

/// Slow connections, each in the middle of something.
struct Crowd {
    slow: Vec<Slow>,
    /// Whose turn it is.
    next: usize,
}

impl Crowd {
    fn gather(edge: &Edge) -> Self {
        let slow = (0..SLOW).map(|nth| Self::begin(nth, edge.http()));
        let crowd = Self {
            slow: slow.collect(),
            next: 0,
        };
        edge.await_metric(ACTIVE, SLOW as f64);
        let under_way = SLOW / IN_BODY + SLOW / IN_REPLY;
        edge.await_metric(
            "tidegate_requests_active{listener=\"plain\"}",
            under_way as f64,
        );
        crowd
    }

    fn begin(nth: usize, address: SocketAddr) -> Slow {
        let mut one = match Self::takes(nth) {
            true => Slow::narrow(address),
            false => Slow::open(address),
        };
        let begun = match nth % IN_BODY {
            0 => post(1_000_000).replace("POST /", "POST /up"),
            _ if Self::takes(nth) => {
                format!("GET /files/large.bin HTTP/1.1\r\nHost: {HOST}\r\n\r\n")
            }
            _ => format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nX-Slow: "),
        };
        let limit = Some(wait::SOON);
        one.0.set_read_timeout(limit).expect("set a read timeout");
        one.0.write_all(begun.as_bytes()).expect("sent");
        one
    }

    /// Whether this one takes a reply.
    fn takes(nth: usize) -> bool {
        nth % IN_REPLY == 1
    }

    /// A few of them say or take a little: called every 5 ms, so each does every five seconds, and never
    /// do many in the same moment, which would be no slow clients.
    fn go_on(&mut self) {
        for _ in 0..5 {
            let nth = self.next;
            self.next = (nth + 1) % SLOW;
            let socket = &mut self.slow[nth].0;
            if Self::takes(nth) {
                let got = socket.read(&mut [0; 2048]).expect("more of a reply");
                assert!(got > 0, "a reply was ended");
            } else {
                socket.write_all(b"x").expect("still open");
            }
        }
    }
}

impl Drop for Crowd {
    /// So that their ports are free at once.
    fn drop(&mut self) {
        for one in &self.slow {
            reset(&one.0);
        }
    }
}

/// 99 of 100 requests of a visitor take no longer. One that was due while the reply before it was still
/// waited for has waited since then: a pause of the edge holds up all who come in it, not one.
fn p99(edge: &Edge, asks: usize) -> Duration {
    let (mut conn, ask) = (edge.plain(), Ask::get("/"));
    let mut due = wait::now();
    let mut times: Vec<Duration> = (0..asks)
        .map(|_| {
            due += PACE;
            let early = due.saturating_duration_since(wait::now());
            wait::hold(early);
            let began = match early.is_zero() {
                true => due,
                false => wait::now(),
            };
            conn.ask(&ask).expect(200);
            began.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[asks * 99 / 100]
}

/// The same while the slow ones go on. They pause while the idle edge is asked: what they cost the machine
/// is to be seen beside them alone.
fn p99_beside(edge: &Edge, crowd: &mut Crowd) -> Duration {
    std::thread::scope(|scope| {
        let visitor = scope.spawn(|| p99(edge, ASKS));
        while !visitor.is_finished() {
            crowd.go_on();
            wait::hold(wait::millis(5));
        }
        visitor.join().expect("all are answered")
    })
}

fn median(times: &[Duration]) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    sorted[sorted.len() / 2]
}

fn is_noticed(alone: &[Duration], beside: &[Duration]) -> bool {
    median(beside) > 2 * median(alone)
}

/// Of two edges that are set up alike one has 5,000 slow connections, and a visitor's p99 there is at most
/// twice of what it is at the idle one.
///
/// They are asked in turns, and the medians of all rounds are compared. What else runs on the machine only
/// adds to what visitors wait for, now at the one edge and now at the other; so while the bound does not
/// hold there are more rounds, up to a limit. That is no search for a good one: all of them count, and an
/// edge that is really slower is so in each, which leaves its median where it is.
///
/// What it prints stands in `docs/limits.md`:
/// `cargo test --release --test e2e slow_clients::visitors -- --nocapture`
#[test]
fn visitors_do_not_notice_five_thousand_slow_clients() {
    tools::raise_open_files(16_384);
    let origin = Origin::start(|_| Answer::ok("x".repeat(1000)));
    let (mute, saying_nothing) = app_that_says_nothing();
    let (idle, busy) = (patient(&origin, mute), patient(&origin, mute));
    let mut crowd = Crowd::gather(&busy);
    // What is done once, by the first requests, is done.
    for edge in [&idle, &busy] {
        p99(edge, 100);
    }
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    while alone.len() < ROUNDS.0 || (alone.len() < ROUNDS.1 && is_noticed(&alone, &beside)) {
        alone.push(p99(&idle, ASKS));
        beside.push(p99_beside(&busy, &mut crowd));
    }
    println!(
        "p99 without slow connections: {:?}, beside {SLOW}: {:?}, of {} rounds",
        median(&alone),
        median(&beside),
        alone.len()
    );
    assert!(
        !is_noticed(&alone, &beside),
        "p99 without slow connections: {alone:?}, beside {SLOW}: {beside:?}"
    );
    let open = busy.metric(ACTIVE);
    assert!(open >= SLOW as f64, "{open} were left to be slow");
    saying_nothing.abort();
}
