//! Bodies in chunks that are too large, or too slow, to be kept go up as they come.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rustls::{ServerConnection, StreamOwned};

use crate::large_uploads::{
    PIECE, app_that, body, both_ways, edge_of, has_head, logged, read_exactly, read_head,
};
use crate::support::client::{HOST, reset};
use crate::support::tls_node;
use crate::support::{Answer, Ask, Edge, Origin, Seen, Setup, wait};

const LAST: &[u8] = b"0\r\n\r\n";

const HINTS: &[u8] = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n";

fn head() -> String {
    format!("POST /photo HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n")
}

fn size(octets: usize) -> String {
    format!("{octets:x}\r\n")
}

/// `data` in chunks of `each` octets, and their end.
fn chunked(data: &[u8], each: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for piece in data.chunks(each) {
        bytes.extend(format!("{:x};a=\"b\"\r\n", piece.len()).bytes());
        bytes.extend(piece);
        bytes.extend(b"\r\n");
    }
    bytes.extend(LAST);
    bytes
}

fn ok(text: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}",
        text.len()
    )
}

/// What an app reads of a body in chunks.
struct Chunked<'a, S> {
    socket: &'a mut S,
    /// Octets of the present chunk that are to come.
    left: usize,
}

/// Data, and the lines behind the last chunk if that was read.
type Part = (Vec<u8>, Option<Vec<String>>);

impl<'a, S: Read> Chunked<'a, S> {
    fn of(socket: &'a mut S) -> Self {
        Self { socket, left: 0 }
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        while !line.ends_with("\r\n") {
            line.push(char::from(*read_exactly(self.socket, 1).first()?));
        }
        Some(line.trim_end_matches("\r\n").to_owned())
    }

    fn size(&mut self) -> Option<usize> {
        usize::from_str_radix(&self.line()?, 16).ok()
    }

    /// So many octets, or as many as there are; `None` if it is cut off or malformed.
    fn read(&mut self, octets: usize) -> Option<Part> {
        let mut data = Vec::new();
        while data.len() < octets {
            if self.left == 0 {
                self.left = self.size()?;
            }
            if self.left == 0 {
                let mut lines = Vec::new();
                loop {
                    match self.line()? {
                        line if line.is_empty() => return Some((data, Some(lines))),
                        line => lines.push(line),
                    }
                }
            }
            let now = self.left.min(octets - data.len());
            data.extend(self.data(now)?);
            if self.left == 0 && !self.line()?.is_empty() {
                return None;
            }
        }
        Some((data, None))
    }

    /// So many octets of the present chunk, whose end need not be there.
    fn data(&mut self, octets: usize) -> Option<Vec<u8>> {
        let data = read_exactly(self.socket, octets);
        self.left = self.left.checked_sub(octets)?;
        (data.len() == octets).then_some(data)
    }

    /// All that is left, and the lines behind it.
    fn rest(&mut self) -> Option<(Vec<u8>, Vec<String>)> {
        let (data, lines) = self.read(usize::MAX)?;
        Some((data, lines?))
    }
}

/// The short way was taken where there is one.
#[track_caller]
fn is_of_its_way(seen: &Seen, lane: &str) {
    let short = seen.raw.contains("\r\nhost: ");
    assert_eq!(short, lane == "on", "{}", seen.raw);
}

#[test]
fn a_large_body_is_whole_and_what_follows_is_served() {
    let sent = body(2 << 20);
    let whole = sent.clone();
    let app = Origin::start(move |seen| match seen.body == whole {
        true => Answer::ok("whole"),
        false => Answer::ok(format!("{} bytes", seen.body.len())),
    });
    for lane in ["on", "off"] {
        let edge = edge_of(app.address, lane, "");
        for mut conn in [edge.plain(), edge.tls()] {
            for each in [2 << 20, 70_001, 1_000, 7] {
                conn.send(head());
                conn.send(chunked(&sent, each));
                assert_eq!(conn.reply().expect(200).text(), "whole", "{each}, {lane}");
                is_of_its_way(&app.last(), lane);
                conn.ask(&Ask::get("/next")).expect(200);
            }
        }
        let line = logged(&edge);
        assert_eq!(line["bytes_in"], 2 << 20, "lane {lane}: {line}");
    }
    assert_eq!(app.broken(), Vec::<String>::new());
}

#[test]
fn a_slow_body_is_whole_wherever_it_is_cut() {
    let app = Origin::start(|seen| Answer::ok(seen.body.clone()));
    for lane in ["on", "off"] {
        let edge = edge_of(app.address, lane, "");
        let bytes = [head().as_bytes(), b"5\r\nhello\r\n3;x=y\r\nyou\r\n", LAST].concat();
        let begin = head().len();
        std::thread::scope(|scope| {
            for cut in begin..bytes.len() {
                let (edge, bytes) = (&edge, &bytes);
                scope.spawn(move || {
                    let mut conn = edge.plain();
                    conn.send(&bytes[..begin]);
                    for piece in [&bytes[begin..cut], &bytes[cut..]] {
                        wait::hold(wait::millis(120));
                        conn.send(piece);
                    }
                    let text = conn.reply().expect(200).text();
                    assert_eq!(text, "helloyou", "cut at {cut}, lane {lane}");
                    conn.ask(&Ask::get("/next")).expect(200);
                });
            }
        });
    }
    assert_eq!(app.broken(), Vec::<String>::new());
}

#[test]
fn an_app_hears_each_octet_though_a_chunk_is_not_ended() {
    for lane in ["on", "off"] {
        let address = app_that(0, |socket| {
            let mut app = Chunked::of(socket);
            let mut data = Vec::new();
            while data.len() < 5 {
                if app.left == 0 {
                    app.left = app.size().expect("a size");
                }
                let octets = app.left;
                data.extend(app.data(octets).expect("data"));
                // The last one may be passed on without its end.
                if data.len() < 5 {
                    assert_eq!(app.line().as_deref(), Some(""));
                }
            }
            socket.write_all(ok("heard").as_bytes()).expect("room");
        });
        let edge = edge_of(address, lane, "");
        let mut conn = edge.plain();
        conn.send(head());
        wait::hold(wait::millis(100));
        conn.send("5\r\nhello");
        assert_eq!(conn.reply().expect(200).text(), "heard", "lane {lane}");
    }
}

#[test]
fn what_an_app_says_within_a_chunk_arrives_and_the_rest_goes_up() {
    for lane in ["on", "off"] {
        let sent = body(3 * PIECE);
        let whole = sent.clone();
        let address = app_that(0, move |socket| {
            let mut app = Chunked::of(socket);
            let (mut data, _) = app.read(PIECE).expect("a part");
            app.socket.write_all(HINTS).expect("room");
            data.extend(app.rest().expect("the rest").0);
            let answer = if data == whole { "whole" } else { "wrong" };
            socket.write_all(ok(answer).as_bytes()).expect("room");
        });
        let edge = edge_of(address, lane, "");
        for mut conn in [edge.plain(), edge.tls()] {
            conn.send(head());
            conn.send(size(sent.len()));
            conn.send(&sent[..PIECE + 1]);
            wait::hold(wait::millis(100));
            conn.send(&sent[PIECE + 1..]);
            conn.send("\r\n");
            conn.send(LAST);
            let reply = conn.reply().expect(200);
            assert_eq!(reply.text(), "whole", "lane {lane}");
            assert_eq!(reply.interim, [103], "lane {lane}");
            assert_eq!(reply.field("connection"), Some("keep-alive"), "lane {lane}");
        }
        let line = logged(&edge);
        assert_eq!(line["bytes_in"], 3 * PIECE, "lane {lane}: {line}");
    }
}

/// Reads a body of which more is under way than there is room for, and says something in the middle.
fn hints_while_it_is_full(socket: &mut (impl Read + Write), whole: &[u8]) {
    let mut app = Chunked::of(socket);
    let (mut data, _) = app.read(10).expect("a part");
    // Until no more goes up.
    wait::hold(wait::millis(500));
    app.socket.write_all(HINTS).expect("room");
    wait::hold(wait::millis(200));
    data.extend(app.rest().expect("the rest").0);
    let answer = if data == whole { "whole" } else { "wrong" };
    socket.write_all(ok(answer).as_bytes()).expect("room");
}

#[test]
fn a_chunk_that_is_written_in_part_is_ended_before_all_else() {
    for lane in ["on", "off"] {
        let sent = Arc::new(body(200 * PIECE));
        let whole = sent.clone();
        let address = app_that(0, move |socket| hints_while_it_is_full(socket, &whole));
        let edge = edge_of(address, lane, "max_body_size = \"1GiB\"");
        whole_with_hints(&edge, &sent, lane);

        let setup = Setup::new();
        let config = tls_node::config(setup.folder(), "shop");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        let whole = sent.clone();
        let serving = std::thread::spawn(move || {
            let (socket, _) = listener.accept().expect("a connection");
            let tls = ServerConnection::new(config).expect("a configuration");
            let mut tls = StreamOwned::new(tls, socket);
            assert!(has_head(&mut tls));
            hints_while_it_is_full(&mut tls, &whole);
        });
        let edge = setup.with("APP", address).start(&format!(
            "[server]\nlane = \"{lane}\"\n[limits]\nmax_body_size = \"1GiB\"\n\
             [upstream.app]\nendpoints = [\"@APP@\"]\ntls = {{ ca = \"ca.pem\", server_name = \"shop.test\" }}\n\
             [[route]]\nupstream = \"app\"\n"
        ));
        whole_with_hints(&edge, &sent, lane);
        serving.join().expect("served");
    }
}

#[track_caller]
fn whole_with_hints(edge: &Edge, sent: &Arc<Vec<u8>>, lane: &str) {
    let (mut conn, mut writer) = both_ways(edge);
    conn.send(head());
    let data = sent.clone();
    let sending = std::thread::spawn(move || writer.write_all(&chunked(&data, 300_000)));
    let reply = conn.reply().expect(200);
    assert_eq!(reply.text(), "whole", "lane {lane}");
    assert_eq!(reply.interim, [103], "lane {lane}");
    sending.join().expect("sent").expect("taken");
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
        conn.send(head());
        conn.send(size(20 * PIECE));
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
        conn.send(head().replace("POST", "PUT"));
        conn.send(size(20 * PIECE));
        conn.send(body(2 * PIECE));
        conn.reply().expect(502);
        assert_eq!(asked.load(Ordering::SeqCst), 1, "lane {lane}");
        let line = logged(&edge);
        assert_eq!(line["why"], "upstream_reset", "lane {lane}: {line}");
    }
}

#[test]
fn an_app_that_takes_nothing_or_says_nothing_is_504() {
    for lane in ["on", "off"] {
        let address = app_that(10, |socket| {
            wait::hold(wait::secs(6));
            let _ = socket.shutdown(Shutdown::Both);
        });
        let edge = Setup::new().with("APP", address).start(&format!(
            "[server]\nlane = \"{lane}\"\n[limits]\nmax_body_size = \"1GiB\"\n\
             [upstream.app]\nendpoints = [\"@APP@\"]\nread_timeout = \"500ms\"\nfirst_byte_timeout = \"500ms\"\noutlier_detection = false\n\
             retry = {{ attempts = 1 }}\n[[route]]\nupstream = \"app\"\n"
        ));
        for pieces in [200, 1] {
            let (mut conn, mut writer) = both_ways(&edge);
            let begun = wait::now();
            conn.send(head());
            let bytes = chunked(&body(pieces * PIECE), 50_000);
            let sending = std::thread::spawn(move || writer.write_all(&bytes));
            conn.reply().expect(504);
            assert!(begun.elapsed() < wait::secs(5), "{:?}", begun.elapsed());
            drop(conn);
            let _ = sending.join();
        }
    }
}

#[test]
fn a_client_that_stops_within_a_body_is_408_and_one_that_leaves_is_noted() {
    for lane in ["on", "off"] {
        let app = Origin::start(|_| Answer::ok("whole"));
        let edge = edge_of(app.address, lane, "body_timeout = \"500ms\"");
        let mut conn = edge.plain();
        conn.send(head());
        conn.send(size(3 * PIECE));
        conn.send(body(2 * PIECE));
        conn.reply().expect(408);
        let line = logged(&edge);
        assert_eq!(line["why"], "body_timeout", "lane {lane}: {line}");
        assert_eq!(line["bytes_in"], 2 * PIECE, "lane {lane}: {line}");

        let edge = edge_of(app.address, lane, "");
        let mut conn = edge.plain();
        conn.send(head());
        conn.send(size(3 * PIECE));
        conn.send(body(2 * PIECE));
        wait::hold(wait::millis(100));
        conn.finish();
        let line = logged(&edge);
        assert_eq!(line["why"], "client_gone", "lane {lane}: {line}");
        assert_eq!(line["status"], 0, "lane {lane}: {line}");
    }
}

#[test]
fn a_body_that_is_too_slow_or_too_long_under_way_is_408() {
    for lane in ["on", "off"] {
        let app = Origin::start(|_| Answer::ok("whole"));
        for (limits, why) in [
            ("min_rate = \"1MiB/s\"\nmin_rate_grace = \"1s\"", "min_rate"),
            ("request_timeout = \"1500ms\"", "request_timeout"),
        ] {
            let edge = edge_of(app.address, lane, limits);
            let (mut conn, mut writer) = both_ways(&edge);
            conn.send(head());
            let begun = wait::now();
            let dripping = std::thread::spawn(move || {
                let chunk = [b"3e8\r\n", &[b'x'; 1000][..], b"\r\n"].concat();
                while begun.elapsed() < wait::secs(10) && writer.write_all(&chunk).is_ok() {
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
fn what_comes_behind_a_large_part_of_a_body_is_judged_alike() {
    let part = |octets: usize| {
        let whole = chunked(&body(octets), 1_000);
        whole[..whole.len() - LAST.len()].to_vec()
    };
    // What comes behind 100 KiB, its status, and why.
    let cases: [(&[u8], u16, Option<&str>); 7] = [
        (b"g\r\nabc\r\n0\r\n\r\n", 400, Some("bad_body")),
        (b"3\r\nabcd\r\n0\r\n\r\n", 400, Some("bad_body")),
        (b"3\nabc\r\n0\r\n\r\n", 400, Some("bad_body")),
        (b"0\r\nX Y: 1\r\n\r\n", 400, Some("bad_body")),
        (b"0\r\nX-Sum: 1\r\nX-B: 2\r\n\r\n", 200, None),
        (b"0;last\r\n\r\n", 200, None),
        (b"4e20\r\n", 413, Some("body_too_large")),
    ];
    for lane in ["on", "off"] {
        for (nth, (behind, status, why)) in cases.iter().enumerate() {
            for pause in [0, 100] {
                let told = Arc::new(Mutex::new(None));
                let heard = told.clone();
                let address = app_that(0, move |socket| {
                    let mut app = Chunked::of(socket);
                    let Some(all) = app.rest() else {
                        return;
                    };
                    *heard.lock().expect("no panic") = Some(all);
                    socket.write_all(ok("whole").as_bytes()).expect("room");
                });
                let edge = edge_of(address, lane, "max_body_size = \"110000B\"");
                let mut conn = edge.plain();
                conn.send(head());
                conn.send(part(102_400));
                wait::hold(wait::millis(pause));
                conn.send(behind);
                if *status == 413 {
                    conn.send(body(8_000));
                }
                let reply = conn.reply();
                assert_eq!(reply.status, *status, "{nth}, lane {lane}: {reply:?}");
                let line = logged(&edge);
                assert_eq!(line["why"].as_str(), *why, "{nth}, lane {lane}: {line}");
                if *status == 200 {
                    let (data, lines) = told.lock().expect("no panic").take().expect("a body");
                    assert!(data == body(102_400), "{nth}, lane {lane}");
                    let wanted: &[&str] = match behind.contains(&b'X') {
                        true => &["x-sum: 1", "x-b: 2"],
                        false => &[],
                    };
                    let lines: Vec<_> = lines.iter().map(|line| line.to_lowercase()).collect();
                    assert_eq!(lines, wanted, "{nth}, lane {lane}");
                    assert_eq!(line["bytes_in"], 102_400, "{nth}, lane {lane}: {line}");
                    conn.send(head());
                    conn.send(LAST);
                    conn.reply().expect(200);
                }
            }
        }
    }
}

#[test]
fn who_waits_to_be_asked_for_a_body_is_asked_once() {
    for lane in ["on", "off"] {
        let app = Origin::start(|seen| Answer::ok(format!("{} bytes", seen.body.len())));
        let edge = edge_of(app.address, lane, "");
        let expecting = head().replacen("\r\n", "\r\nExpect: 100-continue\r\n", 1);
        let asked = b"HTTP/1.1 100 Continue\r\n\r\n";
        for octets in [0, 5, 2 * PIECE] {
            let mut conn = edge.plain();
            conn.send(&expecting);
            assert_eq!(conn.exactly(asked.len()), Ok(asked.to_vec()), "lane {lane}");
            conn.send(chunked(&body(octets), 30_000));
            let reply = conn.reply().expect(200);
            assert_eq!(reply.text(), format!("{octets} bytes"), "lane {lane}");
            assert!(reply.interim.is_empty(), "lane {lane}");
            assert_eq!(app.last().field("expect"), None, "lane {lane}");
            is_of_its_way(&app.last(), lane);
            conn.ask(&Ask::get("/next")).expect(200);
        }
    }
}

#[test]
fn nothing_of_a_body_that_is_cut_short_is_taken_for_the_next_request() {
    for lane in ["on", "off"] {
        // What of the body the app reads before it answers, and what goes up before that.
        for (early, sent) in [(PIECE, 3 * PIECE), (10, 100 * PIECE)] {
            let heads = Arc::new(Mutex::new(Vec::new()));
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
            let address = listener.local_addr().expect("its address");
            let seen = heads.clone();
            std::thread::spawn(move || {
                while let Ok((socket, _)) = listener.accept() {
                    let seen = seen.clone();
                    std::thread::spawn(move || answers_early(socket, &seen, early));
                }
            });
            let edge = edge_of(address, lane, "");
            let (mut conn, mut writer) = both_ways(&edge);
            conn.send(head());
            let bytes = chunked(&body(sent), 40_000);
            let sending = std::thread::spawn(move || writer.write_all(&bytes));
            assert_eq!(conn.reply().expect(401).text(), "no", "lane {lane}");
            for nth in 0..5 {
                let reply = edge.get(&format!("/other/{nth}")).expect(200);
                assert_eq!(reply.text(), "ok", "lane {lane}");
            }
            drop(conn);
            let _ = sending.join();
            let heads = heads.lock().expect("no panic");
            for head in heads.iter() {
                let is_whole =
                    head.starts_with("POST /photo HTTP/1.1\r\n") || head.starts_with("GET /other/");
                assert!(is_whole, "lane {lane}: {head:?}");
            }
            assert_eq!(heads.len(), 6, "lane {lane}: {heads:?}");
        }
    }
}

/// Answers an upload when it has read `early` octets of its body, and goes on with what follows.
fn answers_early(mut socket: TcpStream, seen: &Mutex<Vec<String>>, early: usize) {
    loop {
        let head = read_head(&mut socket);
        if head.is_empty() {
            return;
        }
        let is_upload = head.starts_with("POST /photo ");
        seen.lock().expect("no panic").push(head);
        if !is_upload {
            let _ = socket.write_all(ok("ok").as_bytes());
            continue;
        }
        let mut app = Chunked::of(&mut socket);
        let _ = app.read(early);
        let refusal = b"HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\nno";
        let _ = app.socket.write_all(refusal);
        if app.rest().is_none() {
            return;
        }
    }
}
