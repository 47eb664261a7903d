//! Requests with bodies, and of other methods.

use std::io::Write as _;

use super::*;
use crate::support::tools::tool;

const HOST: &str = "shop.example";

/// What a client, an origin and the log tell of `ask` on both ways, which are to be new: what an
/// endpoint did before counts.
#[track_caller]
fn compare(nth: usize, ask: &Ask, by: By, what: &str) -> [Told; 2] {
    let (one, other) = (origin(), origin());
    let (short, long) = (edge(&one, "on"), edge(&other, "off"));
    let (here, there) = std::thread::scope(|scope| {
        let here = scope.spawn(|| told(&short, &one, ask, by));
        let there = told(&long, &other, ask, by);
        (here.join().expect("told"), there)
    });
    let case = |seen: &Seen| case_of(seen) == Some(nth);
    let asked = |origin: &Origin| origin.seen().into_iter().find(case);
    assert!(
        asked(&one).as_ref().is_some_and(is_of_the_short_way),
        "{what}"
    );
    assert!(
        !asked(&other).as_ref().is_some_and(is_of_the_short_way),
        "{what}"
    );
    assert_eq!(logged(&short, 1), logged(&long, 1), "{what}");
    for series in [
        "tidegate_upstream_errors_total",
        "tidegate_upstream_attempts_total",
    ] {
        assert_eq!(
            short.metric(series),
            long.metric(series),
            "{what}: {series}"
        );
    }
    [here, there]
}

fn every_reply(by: By, [one, other]: [&[u8]; 2]) {
    every_reply_to(by, |ask, nth| match nth % 2 {
        0 => ask.body(one),
        _ => ask.body(other),
    });
}

fn every_reply_to(by: By, with_body: impl Fn(Ask, usize) -> Ask) {
    let replies = replies();
    let mut differ = Vec::new();
    for (nth, (name, _)) in replies.iter().enumerate() {
        let target = format!("/order?case={nth}");
        // In turns: one that is sent again where that is allowed, and one that never is.
        let method = ["POST", "PUT"][nth % 2];
        let ask = with_body(Ask::new(method, &target), nth);
        let [here, there] = compare(nth, &ask, by, name);
        if here != there {
            differ.push(format!(
                "{} of {name:?}:\n{here:?}\n{there:?}",
                ask.method()
            ));
        }
    }
    assert!(
        differ.is_empty(),
        "short and long way differ: {}",
        differ.join("\n")
    );
}

#[test]
fn every_kind_of_reply_to_an_upload_is_the_same_on_both_ways() {
    every_reply(By::H1, [b"one of these", b"two of those"]);
}

#[test]
fn so_it_is_with_uploads_that_go_up_as_they_come() {
    every_reply(By::H1, [&[b'x'; 300_000], &[b'y'; 65_537]]);
}

#[test]
fn so_it_is_with_those_in_chunks() {
    every_reply_to(By::H1, |ask, nth| match nth % 2 {
        0 => ask.in_chunks(&[b'x'; 300_000], 70_000),
        _ => ask.in_chunks(&[b'y'; 100_000], 100),
    });
}

#[test]
fn so_it_is_with_uploads_over_http2() {
    every_reply(By::H2, [b"one of these", b"two of those"]);
}

#[test]
fn every_method_and_size_goes_up_alike() {
    let (one, other) = (origin(), origin());
    let (short, long) = (edge(&one, "on"), edge(&other, "off"));
    let mut asks: Vec<Ask> = [
        "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "GET",
    ]
    .into_iter()
    .flat_map(|method| {
        [
            Ask::new(method, "/a").body(vec![b'x'; 1]),
            Ask::new(method, "/b").body(vec![b'x'; 65_536]),
            Ask::new(method, "/c").body(vec![b'x'; 65_537]),
        ]
    })
    .collect();
    for method in ["POST", "DELETE", "OPTIONS", "TRACE", "M-SEARCH"] {
        asks.push(Ask::new(method, "/none"));
        asks.push(Ask::new(method, "/zero").field("Content-Length", "0"));
    }
    asks.push(Ask::post("/fixed", "a body that nobody reads"));
    asks.push(Ask::post("/moved", "likewise"));
    for by in [By::H1, By::H2] {
        for ask in &asks {
            let here = told(&short, &one, ask, by);
            let there = told(&long, &other, ask, by);
            assert!(here == there, "{ask:?}:\n{here:?}\n{there:?}");
        }
    }
    // The first one after the first warm-up.
    assert!(is_of_the_short_way(&one.seen()[1]));
    assert!(!is_of_the_short_way(&other.seen()[1]));
}

#[test]
fn a_body_that_comes_by_and_by_is_whole_and_what_follows_it_is_served() {
    let app = Origin::start(|seen| Answer::ok(seen.body.clone()));
    for lane in ["on", "off"] {
        let edge = edge(&app, lane);
        // Within what is waited for, and beyond it.
        for pause in [5, 120] {
            edge.get("/warm").expect(200);
            let mut conn = edge.plain();
            conn.send(format!(
                "POST /a HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 9\r\n\r\nab"
            ));
            for piece in ["cde", "fghiPOST /b HTTP/1.1\r\nHost: x\r\nContent-Le"] {
                wait::hold(wait::millis(pause));
                conn.send(piece);
            }
            assert_eq!(conn.reply().expect(200).text(), "abcdefghi", "{pause} ms");
            conn.send("ngth: 2\r\n\r\nokGET /fixed HTTP/1.1\r\nHost: x\r\n\r\n");
            assert_eq!(conn.reply().expect(200).text(), "ok");
            assert_eq!(conn.reply().expect(200).text(), "fixed");
        }
        assert_eq!(app.broken(), Vec::<String>::new());
    }
}

#[test]
fn what_follows_a_large_body_in_the_same_segments_is_the_next_request() {
    let body: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
    let whole = body.clone();
    let app = Origin::start(move |seen| match seen.body == whole {
        true => Answer::ok("whole"),
        false => Answer::new(500, format!("{} bytes", seen.body.len())),
    });
    let edge = edge(&app, "on");
    let mut chunked = Vec::new();
    for (nth, piece) in body.chunks(7_001).enumerate() {
        chunked.extend(format!("{:x};nth={nth}\r\n", piece.len()).bytes());
        chunked.extend(piece);
        chunked.extend(b"\r\n");
    }
    chunked.extend(b"0\r\n\r\n");
    let length = format!("Content-Length: {}", body.len());
    for (framing, sent) in [
        (length.as_str(), &body),
        ("Transfer-Encoding: chunked", &chunked),
    ] {
        for mut conn in [edge.plain(), edge.tls()] {
            let mut bytes = Vec::new();
            for _ in 0..2 {
                let head = format!("POST /large HTTP/1.1\r\nHost: {HOST}\r\n{framing}\r\n\r\n");
                bytes.extend(head.bytes());
                bytes.extend(sent);
            }
            bytes.extend(Ask::get("/fixed").bytes());
            conn.send(bytes);
            for _ in 0..2 {
                assert_eq!(conn.reply().expect(200).text(), "whole", "{framing}");
            }
            assert_eq!(conn.reply().expect(200).text(), "fixed", "{framing}");
        }
    }
    assert_eq!(app.broken(), Vec::<String>::new());
}

#[test]
fn a_length_goes_up_in_its_one_spelling() {
    let app = origin();
    for lane in ["on", "off"] {
        let edge = edge(&app, lane);
        for length in [5, 70_000] {
            edge.get("/warm").expect(200);
            let mut conn = edge.plain();
            conn.send(format!(
                "POST /a HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 000{length}\r\n\r\n{}",
                "x".repeat(length)
            ));
            conn.reply().expect(200);
            let seen = app.last();
            assert_eq!(is_of_the_short_way(&seen), lane == "on", "{length}");
            assert_eq!(seen.all("content-length"), [length.to_string()]);
            assert_eq!(seen.body.len(), length, "lane {lane}");
        }
    }
}

#[test]
fn a_client_that_leaves_within_its_body_is_treated_alike() {
    for lane in ["on", "off"] {
        let app = origin();
        let edge = edge(&app, lane);
        edge.get("/warm").expect(200);
        let mut conn = edge.plain();
        conn.send(format!(
            "POST /a?case=0 HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 9\r\n\r\nab"
        ));
        conn.finish();
        let log = logged(&edge, 1);
        let line = log.values().next().expect("a line");
        let of = |name: &str| line.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
        assert_eq!(app.count(), 1, "only the warm-up, lane {lane}");
        assert_eq!(of("status"), Some(0.into()), "lane {lane}: {line:?}");
        assert_eq!(of("why"), Some("client_gone".into()), "lane {lane}");
    }
}

#[test]
fn a_body_that_comes_by_and_by_over_http2_is_whole() {
    let curl = tool!("curl", "curl");
    let app = Origin::start(|seen| Answer::ok(seen.body.clone()));
    for lane in ["on", "off"] {
        let edge = edge(&app, lane);
        for pause in [5, 120] {
            edge.get("/warm").expect(200);
            let mut child = std::process::Command::new(&curl)
                .args([
                    "-sS",
                    "--max-time",
                    "10",
                    "--http2-prior-knowledge",
                    "-T",
                    "-",
                ])
                .args(["-H", "Content-Length: 9", "-X", "POST"])
                .arg(format!("http://{}/a", edge.http()))
                .stdin(std::process::Stdio::piped())
                .stdout(std::process::Stdio::piped())
                .spawn()
                .expect("curl");
            let mut input = child.stdin.take().expect("a pipe");
            for piece in ["abc", "def", "ghi"] {
                wait::hold(wait::millis(pause));
                input.write_all(piece.as_bytes()).expect("room");
            }
            drop(input);
            let output = child.wait_with_output().expect("its end");
            assert_eq!(output.stdout, b"abcdefghi", "{pause} ms, lane {lane}");
        }
        assert_eq!(app.broken(), Vec::<String>::new());
    }
}
