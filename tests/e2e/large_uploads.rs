//! Bodies that are too large to be kept go up as they come.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::{ServerConnection, StreamOwned};
use serde_json::Value;
use socket2::{Domain, Socket, Type};

use crate::support::client::{HOST, reset};
use crate::support::tls_node;
use crate::support::{Answer, Ask, Conn, Edge, Gate, Origin, Setup, Streams, wait};

/// Larger than what is kept for a second attempt.
pub(crate) const PIECE: usize = 100_000;

fn edge(app: &Origin, lane: &str, keys: &str) -> Edge {
    Setup::new().with("APP", app.address).start(&format!(
        "[server]\nlane = \"{lane}\"\n\
         [upstream.app]\nendpoints = [\"@APP@\"]\n{keys}\n[[route]]\nupstream = \"app\"\n"
    ))
}

fn counting() -> Origin {
    Origin::start(|seen| Answer::ok(format!("{} bytes", seen.body.len())))
}

/// The head of a request with `length` octets.
fn head(length: usize) -> String {
    format!("POST /photo HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {length}\r\n\r\n")
}

/// Sends `pieces` of [`PIECE`] octets with a `pause` before each.
fn send_slowly(conn: &mut Conn, pieces: usize, pause: Duration) {
    for _ in 0..pieces {
        wait::hold(pause);
        conn.send(body(PIECE));
    }
}

#[test]
fn what_a_client_takes_to_send_is_not_the_apps_time() {
    let patience = "first_byte_timeout = \"400ms\"\noutlier_detection = false";
    for lane in ["on", "off"] {
        let app = counting();
        let edge = edge(&app, lane, patience);
        // Over a connection of its own, and over a kept one.
        for _ in 0..2 {
            let mut conn = edge.plain();
            conn.send(head(3 * PIECE));
            send_slowly(&mut conn, 3, wait::millis(300));
            assert_eq!(conn.reply().expect(200).text(), "300000 bytes", "{lane}");
        }
        let mut streams = Streams::tls(edge.https(), HOST);
        let mut call = streams.begin("POST", "/photo", &[("content-length", "300000")], false);
        for nth in 0..3 {
            wait::hold(wait::millis(300));
            call.data(vec![b'a'; PIECE], nth == 2);
        }
        assert_eq!(call.head().expect("a reply").status(), 200, "{lane}");
        assert_eq!(call.rest().expect("a body").0, b"300000 bytes");
    }
}

#[test]
fn an_app_that_is_silent_behind_a_whole_body_is_504_at_its_timeout() {
    let keys =
        "first_byte_timeout = \"500ms\"\noutlier_detection = false\nretry = { attempts = 1 }";
    for lane in ["on", "off"] {
        let app = Origin::start(|_| Answer::ok("too late").after(wait::secs(5)));
        let edge = edge(&app, lane, keys);
        let mut conn = edge.plain();
        conn.send(head(2 * PIECE));
        send_slowly(&mut conn, 2, wait::millis(300));
        let whole = wait::now();
        conn.reply().expect(504);
        let waited = whole.elapsed();
        assert!(waited >= wait::millis(300), "{waited:?}, {lane}");
        assert!(waited < wait::secs(3), "{waited:?}, {lane}");
    }
}

/// An app that reads a head and `before` octets of its body, and does `then`.
pub(crate) fn app_that(
    before: usize,
    then: impl Fn(&mut TcpStream) + Send + Sync + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    let then = Arc::new(then);
    std::thread::spawn(move || {
        while let Ok((mut socket, _)) = listener.accept() {
            let then = then.clone();
            std::thread::spawn(move || {
                let limit = Some(wait::secs(20));
                socket.set_read_timeout(limit).expect("a limit");
                while has_head(&mut socket) {
                    read_exactly(&mut socket, before);
                    then(&mut socket);
                }
            });
        }
    });
    address
}

/// Reads a head and not an octet more; whether there was one.
pub(crate) fn has_head(socket: &mut impl Read) -> bool {
    read_head(socket).ends_with("\r\n\r\n")
}

/// Reads a head, or as much of it as there is.
pub(crate) fn read_head(socket: &mut impl Read) -> String {
    let mut read = Vec::new();
    let mut byte = [0];
    while !read.ends_with(b"\r\n\r\n") && matches!(socket.read(&mut byte), Ok(1)) {
        read.push(byte[0]);
    }
    String::from_utf8_lossy(&read).into_owned()
}

/// Reads so many octets, or as many as there are.
pub(crate) fn read_exactly(socket: &mut impl Read, length: usize) -> Vec<u8> {
    let mut body = vec![0; length];
    let mut got = 0;
    while got < length {
        match socket.read(&mut body[got..]) {
            Ok(count @ 1..) => got += count,
            _ => break,
        }
    }
    body.truncate(got);
    body
}

pub(crate) fn edge_of(address: SocketAddr, lane: &str, limits: &str) -> Edge {
    Setup::new().with("APP", address).start(&format!(
        "[server]\nworkers = 1\nlane = \"{lane}\"\n[log]\naccess = {{ path = \"access.log\" }}\n\
         [limits]\n{limits}\n[upstream.app]\nendpoints = [\"@APP@\"]\nread_timeout = \"1s\"\n\
         outlier_detection = false\nretry = {{ attempts = 3, on = [\"connect_failure\", \"reset\"] }}\n\
         [[route]]\nupstream = \"app\"\n"
    ))
}

/// What the log says of the one request there was.
pub(crate) fn logged(edge: &Edge) -> Value {
    wait::until("a line in the log", wait::SOON, || {
        let text = std::fs::read_to_string(edge.folder().join("access.log")).ok()?;
        serde_json::from_str(text.lines().next()?).ok()
    })
}

/// A connection, and the same to write to while a reply is waited for.
pub(crate) fn both_ways(edge: &Edge) -> (Conn, TcpStream) {
    let socket = TcpStream::connect(edge.http()).expect("a connection");
    let twin = socket.try_clone().expect("a second handle");
    (Conn::from(socket), twin)
}

pub(crate) fn body(length: usize) -> Vec<u8> {
    (0..=250_u8).cycle().take(length).collect()
}

#[test]
fn what_an_app_says_before_the_body_is_whole_arrives_and_the_rest_goes_up() {
    for lane in ["on", "off"] {
        let sent = body(3 * PIECE);
        let wanted = sent[PIECE..].to_vec();
        let address = app_that(PIECE, move |socket| {
            let hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n";
            socket.write_all(hints).expect("room");
            let rest = read_exactly(socket, 2 * PIECE);
            let answer = if rest == wanted { "whole" } else { "wrong" };
            let reply = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{answer}",
                answer.len()
            );
            socket.write_all(reply.as_bytes()).expect("room");
        });
        let edge = edge_of(address, lane, "");
        for mut conn in [edge.plain(), edge.tls()] {
            conn.send(head(sent.len()));
            conn.send(&sent[..PIECE + 1]);
            wait::hold(wait::millis(100));
            conn.send(&sent[PIECE + 1..]);
            let reply = conn.reply().expect(200);
            assert_eq!(reply.text(), "whole", "lane {lane}");
            assert_eq!(reply.interim, [103], "lane {lane}");
        }
        let line = logged(&edge);
        assert_eq!(line["bytes_in"], 3 * PIECE, "lane {lane}: {line}");
    }
}

#[test]
fn a_route_that_looks_at_the_framing_keeps_what_was_begun_on_it() {
    let sent = body(3 * PIECE);
    let chunks = |data: &[u8]| [format!("{:x}\r\n", data.len()).as_bytes(), data, b"\r\n"].concat();
    let by_length = (head(sent.len()), sent.clone());
    let by_chunks = (
        format!("POST /photo HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n"),
        [chunks(&sent), b"0\r\n\r\n".to_vec()].concat(),
    );
    for lane in ["on", "off"] {
        for (matched, (head, bytes)) in [
            (format!("content-length = \"{}\"", sent.len()), &by_length),
            ("transfer-encoding = true".to_owned(), &by_chunks),
        ] {
            // Nothing is left, so the framing says another length, when the app ends the short way.
            let address = app_that(sent.len() - 5, |socket| {
                let hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n";
                socket.write_all(hints).expect("room");
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nright";
                wait::hold(wait::millis(200));
                socket.write_all(answer).expect("room");
            });
            let edge = Setup::new().with("APP", address).start(&format!(
                "[server]\nlane = \"{lane}\"\n[upstream.app]\nendpoints = [\"@APP@\"]\n\
                 [[route]]\nupstream = \"app\"\nmatch = {{ headers = {{ {matched} }} }}\n\
                 [[route]]\nrespond = {{ status = 404, body = \"another one\" }}\n"
            ));
            let mut conn = edge.plain();
            conn.send(head);
            conn.send(bytes);
            let reply = conn.reply();
            assert_eq!(
                (reply.status, reply.text().as_str(), &reply.interim[..]),
                (200, "right", &[103][..]),
                "{matched}, lane {lane}"
            );
        }
    }
}

#[test]
fn who_waits_to_be_asked_for_a_body_is_asked_once() {
    for lane in ["on", "off"] {
        let sent = body(2 * PIECE);
        let address = app_that(PIECE, |socket| {
            // Nobody asked the app.
            let odd = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n";
            socket.write_all(odd).expect("room");
            let rest = read_exactly(socket, PIECE).len();
            let reply = format!("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n{rest}");
            socket.write_all(reply.as_bytes()).expect("room");
        });
        let edge = edge_of(address, lane, "");
        let expecting = head(sent.len()).replacen("\r\n", "\r\nExpect: 100-continue\r\n", 1);
        let mut conn = edge.plain();
        conn.send(&expecting);
        let asked = b"HTTP/1.1 100 Continue\r\n\r\n";
        assert_eq!(conn.exactly(asked.len()), Ok(asked.to_vec()), "lane {lane}");
        conn.send(&sent);
        let reply = conn.reply().expect(200);
        assert_eq!(reply.text(), "100000", "lane {lane}");
        assert_eq!(reply.interim, [102], "lane {lane}");
        assert_eq!(reply.field("connection"), Some("keep-alive"), "lane {lane}");

        // A body of no length to speak of, none, and one that comes unasked.
        let app = counting();
        let edge = edge_of(app.address, lane, "");
        for length in [0, 5, 2 * PIECE] {
            let expecting = head(length).replacen("\r\n", "\r\nExpect: 100-continue\r\n", 1);
            let mut conn = edge.plain();
            conn.send(
                expecting
                    .into_bytes()
                    .into_iter()
                    .chain(body(length))
                    .collect::<Vec<_>>(),
            );
            let reply = conn.reply().expect(200);
            assert_eq!(reply.text(), format!("{length} bytes"), "lane {lane}");
            assert_eq!(app.last().field("expect"), None, "lane {lane}");
            conn.ask(&Ask::get("/next")).expect(200);
        }
    }
}

#[test]
fn a_reply_before_the_body_is_whole_does_not_stop_it() {
    for lane in ["on", "off"] {
        let sent = body(2 * PIECE);
        let address = app_that(10, |socket| {
            let head = b"HTTP/1.1 200 OK\r\nContent-Length: 200001\r\n\r\n0123456789";
            socket.write_all(head).expect("room");
            let rest = read_exactly(socket, 2 * PIECE - 10);
            socket.write_all(&rest).expect("room");
            socket.write_all(b"!").expect("room");
        });
        let edge = edge_of(address, lane, "");
        let mut conn = edge.plain();
        conn.send(head(sent.len()));
        conn.send(&sent[..PIECE]);
        assert_eq!(conn.head().expect("a head").status, 200, "lane {lane}");
        conn.send(&sent[PIECE..]);
        let got = conn.exactly(2 * PIECE + 1).expect("the body");
        assert!(got[10..2 * PIECE] == sent[10..], "lane {lane}");
        let line = logged(&edge);
        assert_eq!(line["bytes_in"], 2 * PIECE, "lane {lane}: {line}");
    }
}

#[test]
fn an_app_that_refuses_in_the_middle_is_heard() {
    for lane in ["on", "off"] {
        let address = app_that(PIECE, |socket| {
            let refusal =
                b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno!";
            socket.write_all(refusal).expect("room");
            socket.shutdown(Shutdown::Write).expect("open");
            read_exactly(socket, 10 * PIECE);
        });
        let edge = edge_of(address, lane, "");
        let mut conn = edge.plain();
        conn.send(head(20 * PIECE));
        conn.send(body(2 * PIECE));
        assert_eq!(conn.reply().expect(413).text(), "no!", "lane {lane}");
    }
}

#[test]
fn an_app_that_dies_within_a_body_is_502_and_is_not_asked_again() {
    for lane in ["on", "off"] {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let address = app_that(PIECE, move |socket| {
            count.fetch_add(1, Ordering::SeqCst);
            reset(socket);
            let _ = socket.shutdown(Shutdown::Both);
        });
        let edge = edge_of(address, lane, "");
        let mut conn = edge.plain();
        // A method that may be repeated: but its body is gone.
        conn.send(head(20 * PIECE).replace("POST", "PUT"));
        conn.send(body(2 * PIECE));
        conn.reply().expect(502);
        assert_eq!(asked.load(Ordering::SeqCst), 1, "lane {lane}");
        let line = logged(&edge);
        assert_eq!(line["why"], "upstream_reset", "lane {lane}: {line}");
    }
}

#[test]
fn an_app_that_takes_nothing_of_a_body_is_504() {
    for lane in ["on", "off"] {
        let address = app_that(10, |socket| {
            wait::hold(wait::secs(6));
            let _ = socket.shutdown(Shutdown::Both);
        });
        let edge = Setup::new().with("APP", address).start(&format!(
            "[server]\nlane = \"{lane}\"\n[limits]\nmax_body_size = \"1GiB\"\n\
             [upstream.app]\nendpoints = [\"@APP@\"]\nread_timeout = \"500ms\"\nfirst_byte_timeout = \"500ms\"\noutlier_detection = false\n\
             [[route]]\nupstream = \"app\"\n"
        ));
        let (mut conn, mut writer) = both_ways(&edge);
        let begun = wait::now();
        conn.send(head(1000 * PIECE));
        let sending = std::thread::spawn(move || writer.write_all(&body(200 * PIECE)));
        conn.reply().expect(504);
        assert!(begun.elapsed() < wait::secs(5), "{:?}", begun.elapsed());
        drop(conn);
        let _ = sending.join();
    }
}

#[test]
fn a_client_that_stops_within_a_body_is_408_and_one_that_leaves_is_noted() {
    for lane in ["on", "off"] {
        let app = counting();
        let edge = edge_of(app.address, lane, "body_timeout = \"500ms\"");
        let mut conn = edge.plain();
        conn.send(head(3 * PIECE));
        conn.send(body(2 * PIECE));
        conn.reply().expect(408);
        let line = logged(&edge);
        assert_eq!(line["why"], "body_timeout", "lane {lane}: {line}");
        assert_eq!(line["bytes_in"], 2 * PIECE, "lane {lane}: {line}");

        let edge = edge_of(app.address, lane, "");
        let mut conn = edge.plain();
        conn.send(head(3 * PIECE));
        conn.send(body(2 * PIECE));
        conn.finish();
        let line = logged(&edge);
        assert_eq!(line["why"], "client_gone", "lane {lane}: {line}");
        assert_eq!(line["status"], 0, "lane {lane}: {line}");
    }
}

#[test]
fn a_body_that_is_too_slow_or_too_long_under_way_is_408() {
    for lane in ["on", "off"] {
        let app = counting();
        for (limits, why) in [
            ("min_rate = \"1MiB/s\"\nmin_rate_grace = \"1s\"", "min_rate"),
            ("request_timeout = \"1500ms\"", "request_timeout"),
        ] {
            let edge = edge_of(app.address, lane, limits);
            let (mut conn, mut writer) = both_ways(&edge);
            conn.send(head(100 * PIECE));
            let begun = wait::now();
            conn.send(body(PIECE));
            let dripping = std::thread::spawn(move || {
                while begun.elapsed() < wait::secs(10) && writer.write_all(&[b'x'; 1000]).is_ok() {
                    wait::hold(wait::millis(50));
                }
            });
            conn.reply().expect(408);
            assert!(begun.elapsed() < wait::secs(6), "{:?}", begun.elapsed());
            let line = logged(&edge);
            assert_eq!(line["why"], why, "lane {lane}: {line}");
            drop(conn);
            let _ = dripping.join();
        }
    }
}

#[test]
fn nothing_of_a_body_that_is_cut_short_is_taken_for_the_next_request() {
    for lane in ["on", "off"] {
        let heads = Arc::new(Mutex::new(Vec::new()));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        let seen = heads.clone();
        std::thread::spawn(move || {
            while let Ok((mut socket, _)) = listener.accept() {
                let seen = seen.clone();
                std::thread::spawn(move || {
                    loop {
                        let head = read_head(&mut socket);
                        if head.is_empty() {
                            return;
                        }
                        let is_upload = head.starts_with("POST /photo ");
                        seen.lock().expect("no panic").push(head);
                        // Its connection may go on, it says, although it has not read all.
                        let reply: &[u8] = match is_upload {
                            true => {
                                read_exactly(&mut socket, PIECE);
                                b"HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\nno"
                            }
                            false => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
                        };
                        let _ = socket.write_all(reply);
                        if is_upload {
                            read_exactly(&mut socket, 2 * PIECE + 50);
                        }
                    }
                });
            }
        });
        let edge = edge_of(address, lane, "");
        let mut conn = edge.plain();
        conn.send(head(3 * PIECE + 50));
        conn.send(body(3 * PIECE));
        assert_eq!(conn.reply().expect(401).text(), "no", "lane {lane}");
        for nth in 0..5 {
            let reply = edge.get(&format!("/other/{nth}")).expect(200);
            assert_eq!(reply.text(), "ok", "lane {lane}");
        }
        let heads = heads.lock().expect("no panic");
        for head in heads.iter() {
            let is_whole =
                head.starts_with("POST /photo HTTP/1.1\r\n") || head.starts_with("GET /other/");
            assert!(is_whole, "lane {lane}: {head:?}");
        }
        assert_eq!(heads.len(), 6, "lane {lane}: {heads:?}");
    }
}

#[test]
fn an_app_over_tls_that_refuses_in_the_middle_is_heard() {
    for lane in ["on", "off"] {
        for stays in [true, false] {
            let setup = Setup::new();
            let config = tls_node::config(setup.folder(), "shop");
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
            let address = listener.local_addr().expect("its address");
            std::thread::spawn(move || {
                let (socket, _) = listener.accept().expect("a connection");
                let tls = ServerConnection::new(config).expect("a configuration");
                let mut tls = StreamOwned::new(tls, socket);
                assert!(has_head(&mut tls));
                read_exactly(&mut tls, PIECE);
                // Until no more goes up.
                wait::hold(wait::millis(300));
                let refusal = b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nno!";
                tls.write_all(refusal).expect("room");
                if stays {
                    wait::hold(wait::secs(6));
                }
            });
            let edge = setup.with("APP", address).start(&format!(
                "[server]\nlane = \"{lane}\"\n[limits]\nmax_body_size = \"1GiB\"\n\
                 [upstream.app]\nendpoints = [\"@APP@\"]\ntls = {{ ca = \"ca.pem\", server_name = \"shop.test\" }}\n\
                 read_timeout = \"1s\"\nfirst_byte_timeout = \"1s\"\noutlier_detection = false\n\
                 [[route]]\nupstream = \"app\"\n"
            ));
            let (mut conn, mut writer) = both_ways(&edge);
            let begun = wait::now();
            conn.send(head(1000 * PIECE));
            let sending = std::thread::spawn(move || writer.write_all(&body(300 * PIECE)));
            if stays {
                assert_eq!(conn.reply().expect(413).text(), "no!", "lane {lane}");
            } else {
                // A reset may be faster than what was said before it.
                let status = conn.reply().status;
                assert!([413, 502].contains(&status), "{status}, lane {lane}");
            }
            assert!(begun.elapsed() < wait::secs(5), "{:?}", begun.elapsed());
            drop(conn);
            let _ = sending.join();
        }
    }
}

#[test]
fn an_upload_under_way_does_not_see_the_site_close() {
    for lane in ["on", "off"] {
        let gate = Gate::default();
        let held = gate.clone();
        let address = app_that(PIECE, move |socket| {
            held.wait();
            let hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n";
            socket.write_all(hints).expect("room");
            let rest = read_exactly(socket, PIECE).len();
            let reply = format!("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n{rest}");
            socket.write_all(reply.as_bytes()).expect("room");
        });
        let edge = Setup::new().with("APP", address).start(&format!(
            "[server]\nlane = \"{lane}\"\nmaintenance = {{ file = \"closed\" }}\n\
             [upstream.app]\nendpoints = [\"@APP@\"]\n[[route]]\nupstream = \"app\"\n"
        ));
        let mut conn = edge.plain();
        conn.send(head(2 * PIECE));
        conn.send(body(PIECE));
        wait::hold(wait::millis(100));
        std::fs::write(edge.folder().join("closed"), "").expect("a file");
        wait::eventually("the site is closed", wait::SOON, || {
            edge.json("/maintenance")["on"] == true
        });
        edge.get("/").expect(503);
        gate.open();
        wait::hold(wait::millis(100));
        conn.send(body(PIECE));
        let reply = conn.reply().expect(200);
        assert_eq!(reply.text(), "100000", "lane {lane}");
        assert_eq!(reply.interim, [103], "lane {lane}");
    }
}

#[test]
fn what_an_app_has_said_arrives_though_it_pauses() {
    const STEP: usize = 3_333;
    for lane in ["on", "off"] {
        let nth = Arc::new(AtomicUsize::new(0));
        let address = app_that(0, move |socket| {
            let said = 6_000_000 + STEP * nth.fetch_add(1, Ordering::SeqCst);
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", said + 1);
            let _ = socket.write_all(head.as_bytes());
            let _ = socket.write_all(&body(said));
            // It has the last octet later, when nobody waits for it any more.
            has_head(socket);
            let _ = socket.shutdown(Shutdown::Both);
        });
        let edge = edge_of(address, lane, "");
        for nth in 0..15 {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
            // With little room for what it has not read yet.
            socket.set_recv_buffer_size(16_384).expect("a size");
            socket.connect(&edge.http().into()).expect("a connection");
            let mut socket = TcpStream::from(socket);
            let patience = Some(wait::secs(2));
            socket.set_read_timeout(patience).expect("a limit");
            let asked = Ask::get("/slow").bytes();
            socket.write_all(&asked).expect("room");
            assert!(has_head(&mut socket));
            wait::hold(wait::millis(20));
            let said = 6_000_000 + STEP * nth;
            let mut piece = vec![0; 65_536];
            let mut got = 0;
            while got < said {
                match socket.read(&mut piece) {
                    Ok(count @ 1..) => got += count,
                    other => panic!("lane {lane}: {other:?} after {got} of {said}"),
                }
            }
        }
    }
}
