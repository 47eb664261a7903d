//! Requests whose body comes in chunks.

use std::io::Write as _;

use super::*;
use crate::support::Streams;
use crate::support::tools::tool;

fn post(target: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {target} HTTP/1.1\r\nHost: shop.example\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

fn chunk(data: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", data.len()).as_bytes(), data, b"\r\n"].concat()
}

/// What a client sees of its request and of one behind it, and an origin of them.
type Outcome = (
    Option<(u16, String)>,
    Option<u16>,
    Vec<(String, Fields, Vec<u8>)>,
);

fn outcome(edge: &Edge, origin: &Origin, pieces: &[&[u8]]) -> (Outcome, Vec<bool>) {
    edge.get("/warm").expect(200);
    let before = origin.count();
    let mut conn = edge.plain();
    for piece in pieces {
        conn.send(piece);
    }
    let reply = conn.read(false).ok().map(|reply| {
        let body = reply
            .text()
            .split("Request id: ")
            .next()
            .unwrap_or_default()
            .to_owned();
        (reply.status, body)
    });
    let next = match &reply {
        Some(_) => {
            conn.send(Ask::get("/fixed").host("shop.example").bytes());
            conn.read(false).ok().map(|reply| reply.status)
        }
        None => None,
    };
    let seen = origin.seen().split_off(before);
    let short = seen.iter().map(is_of_the_short_way).collect();
    ((reply, next, seen.iter().map(as_asked).collect()), short)
}

#[test]
fn chunks_go_up_alike_and_plain_ones_the_short_way() {
    let echo = || Origin::start(|seen| Answer::ok(format!("{} octets", seen.body.len())));
    let (one, other) = (echo(), echo());
    let (short, long) = (edge(&one, "on"), edge(&other, "off"));
    let last = b"0\r\n\r\n".to_vec();
    let many: Vec<u8> = (0..2000_u32).flat_map(|_| chunk(b"ab")).collect();
    // Name, the body as it is sent, whether it is whole and plain.
    let cases: Vec<(&str, Vec<u8>, bool)> = vec![
        ("nothing", last.clone(), true),
        ("one", [chunk(b"hello"), last.clone()].concat(), true),
        (
            "two",
            [chunk(b"hello"), chunk(b" you"), last.clone()].concat(),
            true,
        ),
        ("many", [many, last.clone()].concat(), true),
        (
            "odd sizes",
            b"0000A\r\n0123456789\r\n000\r\n\r\n".to_vec(),
            true,
        ),
        (
            "extension",
            b"3;a=\"b\"\r\nabc\r\n0;c\r\n\r\n".to_vec(),
            true,
        ),
        (
            "what looks like another",
            [chunk(&post("/x?case=9", &last)), last.clone()].concat(),
            true,
        ),
        (
            "64 KiB less framing",
            [chunk(&vec![b'x'; 65_000]), last.clone()].concat(),
            true,
        ),
        (
            "trailers",
            b"3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n".to_vec(),
            false,
        ),
        (
            "larger",
            [chunk(&vec![b'x'; 70_000]), last.clone()].concat(),
            true,
        ),
        (
            "larger, and in many",
            [chunk(&[b'x'; 1_000]).repeat(100), last.clone()].concat(),
            true,
        ),
        ("bad size", b"g\r\nabc\r\n0\r\n\r\n".to_vec(), false),
        ("bad end", b"3\r\nabcd\r\n0\r\n\r\n".to_vec(), false),
        ("bare LF", b"3\nabc\n0\n\n".to_vec(), false),
        (
            "bad trailer",
            b"3\r\nabc\r\n0\r\nX Y: 1\r\n\r\n".to_vec(),
            false,
        ),
    ];
    for (nth, (name, body, is_plain)) in cases.iter().enumerate() {
        let bytes = post(&format!("/a?case={nth}"), body);
        // Whole, in two pieces, and with the next request behind it in one go.
        let (a, b) = bytes.split_at(bytes.len() - body.len().min(3));
        for pieces in [vec![&bytes[..]], vec![a, b]] {
            let (here, way) = outcome(&short, &one, &pieces);
            let (there, _) = outcome(&long, &other, &pieces);
            assert_eq!(here, there, "{name}");
            if *is_plain {
                assert_eq!(here.0.as_ref().map(|told| told.0), Some(200), "{name}");
                assert_eq!(here.1, Some(200), "what follows {name}");
                let fields = &here.2[0].1;
                assert!(fields.contains(&("transfer-encoding".into(), "chunked".into())));
                assert!(fields.iter().all(|(field, _)| field != "content-length"));
            }
            if !lane_is_off() {
                assert_eq!(way.first().copied().unwrap_or(false), *is_plain, "{name}");
            }
        }
    }
    assert_eq!(logged(&short, cases.len()), logged(&long, cases.len()));
    // What is malformed breaks off, on both ways.
    assert_eq!(one.broken(), other.broken());
}

#[test]
fn chunks_that_come_by_and_by_are_whole_and_what_follows_is_served() {
    let app = Origin::start(|seen| Answer::ok(seen.body.clone()));
    for lane in ["on", "off"] {
        let edge = edge(&app, lane);
        // Within what is waited for, and beyond it.
        for pause in [5, 120] {
            edge.get("/warm").expect(200);
            let mut conn = edge.plain();
            conn.send(post("/a", b"3\r\na"));
            for piece in [
                "bc\r",
                "\n4\r\ndefg\r\n0",
                "\r\n\r\nGET /fixed HTTP/1.1\r\nHo",
            ] {
                wait::hold(wait::millis(pause));
                conn.send(piece);
            }
            assert_eq!(conn.reply().expect(200).text(), "abcdefg", "{pause} ms");
            conn.send("st: x\r\n\r\n");
            assert_eq!(conn.reply().expect(200).text(), "fixed");
        }
    }
    assert_eq!(app.broken(), Vec::<String>::new());
}

#[test]
fn a_body_in_chunks_keeps_the_bounds_of_its_route() {
    let app = Origin::start(|seen| Answer::ok(format!("{}", seen.body.len())));
    for lane in ["on", "off"] {
        let edge = Setup::new()
            .with("APP", app.address)
            .with("LANE", lane)
            .start(
                r#"
            [server]
            workers = 1
            lane = "@LANE@"
            [limits]
            max_body_size = "1KiB"
            [upstream.app]
            endpoints = ["@APP@"]
            [[route]]
            upstream = "app"
            "#,
            );
        edge.get("/warm").expect(200);
        let before = app.count();
        for (octets, status) in [(1024, 200), (1025, 413)] {
            let body = [chunk(&vec![b'x'; octets]), b"0\r\n\r\n".to_vec()].concat();
            let reply = edge.plain().send(post("/a", &body)).reply();
            assert_eq!(reply.status, status, "{octets} octets, lane {lane}");
        }
        let whole = |seen: &Seen| seen.body.len() == 1024;
        assert_eq!(
            app.seen()[before..]
                .iter()
                .filter(|seen| whole(seen))
                .count(),
            1
        );
    }
}

#[test]
fn a_stream_of_http2_without_a_length_goes_up_in_chunks() {
    let curl = tool!("curl", "curl");
    for lane in ["on", "off"] {
        let app = Origin::start(|seen| Answer::ok(seen.body.clone()));
        let edge = edge(&app, lane);
        edge.get("/warm").expect(200);
        let mut child = std::process::Command::new(&curl)
            .args([
                "-sS",
                "--max-time",
                "10",
                "--http2-prior-knowledge",
                "-T",
                "-",
                "-X",
                "POST",
            ])
            .arg(format!("http://{}/a", edge.http()))
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("curl");
        let mut input = child.stdin.take().expect("a pipe");
        input.write_all(b"what has no length").expect("room");
        drop(input);
        let output = child.wait_with_output().expect("its end");
        assert_eq!(output.stdout, b"what has no length", "lane {lane}");
        let seen = &app.seen()[1];
        assert_eq!(
            seen.field("transfer-encoding"),
            Some("chunked"),
            "lane {lane}"
        );
        assert_eq!(is_of_the_short_way(seen), lane == "on");
        assert_eq!(app.broken(), Vec::<String>::new());
    }
}

#[test]
fn small_chunks_do_not_go_up_twice_when_an_app_says_more_than_its_reply() {
    for said in [
        "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n",
        "HTTP/1.1 102 Processing\r\n\r\n",
    ] {
        for lane in ["on", "off"] {
            // What it says comes before the rest, so that that is waited for elsewhere.
            let app = Origin::start(move |seen| {
                let answer = Answer::ok(format!("{} octets", seen.body.len()));
                match seen.target.as_str() {
                    "/a" => answer.behind(said).after(wait::millis(100)),
                    _ => answer,
                }
            });
            let edge = edge(&app, lane);
            for _ in 0..3 {
                edge.get("/warm").expect(200);
                let mut conn = edge.plain();
                let whole = [chunk(b"hello"), b"0\r\n\r\n".to_vec()].concat();
                conn.send(post("/a", &whole));
                assert_eq!(conn.reply().expect(200).text(), "5 octets", "lane {lane}");
                assert_eq!(edge.get("/next").expect(200).text(), "0 octets");
                let mut streams = Streams::plain(edge.http());
                let mut call = streams.begin("POST", "/a", &[], false);
                call.data("hello", true);
                call.interim();
                assert_eq!(call.head().expect("a reply").status(), 200);
                assert_eq!(call.rest().expect("a body").0, b"5 octets");
                assert_eq!(edge.get("/next").expect(200).text(), "0 octets");
            }
            assert_eq!(app.broken(), Vec::<String>::new(), "lane {lane}");
            let connections = app.connections();
            assert!(connections <= 4, "{connections} connections, lane {lane}");
        }
    }
}
