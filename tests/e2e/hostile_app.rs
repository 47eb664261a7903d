//! App servers that answer garbage, too much, or for somebody else.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::{Ask, Conn, Edge, Setup, wait};

/// A server that gives each connection to `talk` once a request's head is there.
struct Hostile {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

impl Hostile {
    fn start(talk: impl Fn(&mut TcpStream, usize) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let (connections, stop) = (
            Arc::new(AtomicUsize::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let (count, stopped, talk) = (connections.clone(), stop.clone(), Arc::new(talk));
        thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    break;
                }
                let (Ok(mut stream), talk) = (stream, talk.clone()) else {
                    continue;
                };
                let nth = count.fetch_add(1, Ordering::SeqCst);
                thread::spawn(move || {
                    let patience = Some(Duration::from_secs(20));
                    stream.set_read_timeout(patience).expect("a timeout");
                    stream.set_write_timeout(patience).expect("a timeout");
                    while head(&mut stream) {
                        talk(&mut stream, nth);
                    }
                });
            }
        });
        Self {
            address,
            connections,
            stop,
        }
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
    }
}

/// Reads to the end of a head; false at the end of the connection.
fn head(stream: &mut TcpStream) -> bool {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return false,
        }
    }
    true
}

fn edge(app: &Hostile) -> Edge {
    Setup::new().with("APP", app.address).start(
        r#"
        [log]
        access = { path = "access.log" }
        [upstream.app]
        endpoints = ["@APP@"]
        first_byte_timeout = "3s"
        read_timeout = "3s"
        retry = { attempts = 1 }
        outlier_detection = { consecutive_errors = 1000 }
        [[route]]
        upstream = "app"
        "#,
    )
}

fn why(edge: &Edge) -> String {
    let path = edge.folder().join("access.log");
    wait::until("a line with a reason", wait::SOON, || {
        let text = std::fs::read_to_string(&path).ok()?;
        let line: serde_json::Value = serde_json::from_str(text.lines().last()?).ok()?;
        line["why"].as_str().map(str::to_owned)
    })
}

fn charged(edge: &Edge) -> u64 {
    let endpoint = &edge.json("/upstreams")[0]["endpoints"][0];
    endpoint["consecutive_errors"].as_u64().expect("a number")
}

/// Sends `bytes` as the answer to every request: 502 for the client, a reason in the log, an error
/// for the endpoint, and a connection of its own for the next request.
#[track_caller]
fn is_a_502(name: &str, bytes: impl Into<Vec<u8>>) {
    let bytes = bytes.into();
    let app = Hostile::start(move |stream, _| {
        // It may be cut off in the middle.
        let _ = stream.write_all(&bytes);
    });
    let edge = edge(&app);
    for nth in 1..=2 {
        let reply = edge.get("/");
        assert_eq!(reply.status, 502, "{name}");
        assert_eq!(charged(&edge), nth, "{name}: the endpoint is charged");
    }
    assert_eq!(why(&edge), "bad_reply", "{name}");
    assert_eq!(
        app.connections.load(Ordering::SeqCst),
        2,
        "{name}: the connection is dropped"
    );
    let series = "tidegate_upstream_errors_total{upstream=\"app\",kind=\"malformed\"}";
    assert_eq!(edge.metric(series), 2.0, "{name}");
}

#[test]
fn garbage_is_a_502() {
    is_a_502("no HTTP", "SSH-2.0-OpenSSH_9.2\r\nno such thing\r\n\r\n");
    is_a_502("a bad status", "HTTP/1.1 20x OK\r\n\r\n");
    is_a_502(
        "a bad field",
        "HTTP/1.1 200 OK\r\nna me: x\r\ncontent-length: 0\r\n\r\n",
    );
    is_a_502(
        "NUL",
        "HTTP/1.1 200 OK\r\na: \0b\r\ncontent-length: 0\r\n\r\n",
    );
    is_a_502(
        "two lengths",
        "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
    );
    is_a_502(
        "a bad length",
        "HTTP/1.1 200 OK\r\ncontent-length: +3\r\n\r\nabc",
    );
}

#[test]
fn a_head_without_end_is_a_502() {
    let mut endless = b"HTTP/1.1 200 OK\r\nx: ".to_vec();
    endless.resize(4 << 20, b'a');
    is_a_502("one endless field", endless);
    let many = "HTTP/1.1 200 OK\r\n".to_owned() + &"a: b\r\n".repeat(200_000) + "\r\n";
    is_a_502("too many fields", many);
}

#[test]
fn interim_responses_for_ever_are_a_502() {
    is_a_502(
        "100 for ever",
        "HTTP/1.1 100 Continue\r\n\r\n".repeat(10_000),
    );
    is_a_502(
        "103 for ever",
        "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n".repeat(10_000),
    );
}

#[test]
fn a_small_reply_that_closes_half_way_is_a_502() {
    let app = Hostile::start(|stream, _| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf");
        let _ = stream.shutdown(std::net::Shutdown::Both);
    });
    let edge = edge(&app);
    for ask in [Ask::get("/"), Ask::post("/", "order")] {
        let reply = edge.ask(&ask);
        assert_eq!(reply.status, 502, "nobody was told of the 200 yet");
    }
    assert_eq!(charged(&edge), 2);
    assert_eq!(why(&edge), "upstream_reset");
}

#[test]
fn a_large_reply_that_closes_half_way_is_cut_and_charged() {
    let app = Hostile::start(|stream, _| {
        let mut reply = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n".to_vec();
        reply.resize(300_000, b'x');
        let _ = stream.write_all(&reply);
        let _ = stream.shutdown(std::net::Shutdown::Both);
    });
    let edge = edge(&app);
    let mut conn = edge.plain();
    conn.send("GET / HTTP/1.1\r\nhost: shop.example\r\n\r\n");
    assert!(conn.read(false).is_err(), "it must not look whole");
    wait::eventually("the endpoint is charged", wait::SOON, || {
        charged(&edge) == 1
    });
    assert_eq!(why(&edge), "upstream_reset");
}

#[test]
fn bytes_beyond_a_reply_reach_nobody() {
    // Behind each answer stands another one, for whoever comes next.
    let app = Hostile::start(|stream, nth| {
        let evil = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nstolen";
        let own = format!("own-{nth}");
        let good = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{own}{evil}{evil}",
            own.len()
        );
        let _ = stream.write_all(good.as_bytes());
    });
    let edge = edge(&app);
    let mut first = edge.plain();
    let mut second = Conn::open(edge.http());
    for _ in 0..40 {
        for conn in [&mut first, &mut second] {
            let body = conn.ask(&Ask::get("/")).expect(200).text();
            assert!(body.starts_with("own-"), "somebody else's bytes: {body:?}");
        }
    }
}

#[test]
fn bytes_that_come_late_behind_a_reply_reach_nobody() {
    let app = Hostile::start(|stream, nth| {
        let own = format!("own-{nth}");
        let good = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{own}",
            own.len()
        );
        let _ = stream.write_all(good.as_bytes());
        // After the connection was put back.
        wait::hold(wait::millis(3));
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nstolen");
    });
    let edge = edge(&app);
    let mut conn = edge.plain();
    for _ in 0..20 {
        // Long enough for them to arrive: what arrives only after the next request was sent cannot
        // be told from its answer, by anybody.
        wait::hold(wait::millis(30));
        let reply = conn.ask(&Ask::get("/"));
        assert!(
            reply.status == 200 && reply.text().starts_with("own-") || reply.status == 502,
            "somebody else's bytes: {} {:?}",
            reply.status,
            reply.text()
        );
    }
}
