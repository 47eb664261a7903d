//! The short way and the long one answer alike, byte for byte.
//!
//! Two edges that differ in `[server] lane` alone get the same requests, in front of two origins
//! that answer the same. What clients saw, what origins saw, what was counted and logged is
//! compared.

mod cached;
mod chunks;
mod replies;
mod uploads;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use replies::replies;

use crate::support::client::HOST;
use crate::support::edge::lane_is_off;
use crate::support::{Answer, Ask, Broken, Conn, Edge, Gate, H2, Origin, Seen, Setup, wait};

/// Requests of which each gets each reply.
fn requests(nth: usize, by: By) -> Vec<Ask> {
    let target = format!("/a//b/%7Ec?x=1&case={nth}");
    let get = Ask::get(&target)
        .field("Accept", "text/html")
        .field("accept", "*/*")
        .field("Cookie", "a=1; b=2")
        .field("X-Forwarded-For", "203.0.113.9")
        .field("X_Forwarded_Proto", "https")
        .field("TE", "trailers");
    let get = match by {
        By::H1 => get,
        // Browsers do.
        By::H2 => get.field("Cookie", "c=3"),
    };
    vec![get, Ask::head(&target)]
}

fn case_of(seen: &Seen) -> Option<usize> {
    seen.target.split("case=").nth(1)?.parse().ok()
}

fn origin() -> Origin {
    let replies = replies();
    Origin::start(move |seen| match case_of(seen) {
        Some(nth) => replies[nth].1.clone(),
        None => Answer::ok("warm"),
    })
}

fn edge(origin: &Origin, lane: &str) -> Edge {
    Setup::new()
        .with("APP", origin.address)
        .with("LANE", lane)
        .file("pages/gone.html", "<p>gone {status}")
        .start(
            r#"
            [server]
            workers = 1
            lane = "@LANE@"
            [log]
            access = { path = "access.log" }
            [error_pages.own]
            root = "pages"
            pages = { "410" = "gone.html" }
            upstream = true
            [upstream.app]
            endpoints = ["@APP@"]
            first_byte_timeout = "1s"
            retry = { attempts = 2, on = ["connect_failure", "reset", "502"], budget = "100%" }
            outlier_detection = { consecutive_errors = 100000 }
            [[route]]
            match = { path_prefix = "/fixed" }
            respond = { status = 200, body = "fixed" }
            [[route]]
            match = { path_prefix = "/moved" }
            redirect = { to = "https://{host}{path}{query}", status = 301 }
            [[route]]
            upstream = "app"
            error_pages = "own"
            "#,
        )
}

type Fields = Vec<(String, String)>;

/// All that a client, an origin and the log tell of one request, but for what differs each time.
#[derive(Debug, PartialEq)]
struct Told {
    reply: Result<(u16, Fields, String, Vec<u16>), Broken>,
    /// Status of a request behind it on the same connection.
    next: Option<u16>,
    asked: Vec<(String, Fields, Vec<u8>)>,
}

/// By which protocol the client asks.
#[derive(Clone, Copy, PartialEq)]
enum By {
    H1,
    H2,
}

fn told(edge: &Edge, origin: &Origin, ask: &Ask, by: By) -> Told {
    let host = match ask.host_name() {
        HOST => "shop.example",
        named => named,
    };
    let ask = ask.clone().host(host);
    // A connection is kept to the app, so that the short way is taken.
    edge.get("/warm").expect(200);
    let before = origin.count();
    let (reply, next) = match by {
        By::H1 => {
            let mut conn = edge.plain();
            conn.send(ask.bytes());
            let reply = conn.read(ask.method() == "HEAD");
            conn.send(Ask::get("/fixed").host("shop.example").bytes());
            (reply, conn.read(false).ok().map(|reply| reply.status))
        }
        By::H2 => {
            let mut conn = H2::plain(edge.http());
            let reply = conn.try_ask(&ask).map_err(|_| Broken::ClosedSilently);
            let next = conn.try_ask(&Ask::get("/fixed").host("shop.example"));
            (reply, next.ok().map(|reply| reply.status))
        }
    };
    let reply = reply.map(|reply| {
        let varies = ["date", "x-request-id"];
        let mut fields: Vec<_> = reply
            .fields
            .into_iter()
            .map(|(name, value)| (name.to_ascii_lowercase(), value))
            .filter(|(name, _)| !varies.contains(&name.as_str()))
            .collect();
        // Lines of one field keep their order.
        fields.sort_by(|a, b| a.0.cmp(&b.0));
        let body = String::from_utf8_lossy(&reply.body).into_owned();
        // An error's page names its request.
        let body = match body.split_once("Request id: ") {
            Some((before, _)) => before.to_owned(),
            None => body,
        };
        (reply.status, fields, body, reply.interim)
    });
    let reply = reply.map_err(|broken| match broken {
        // How much of it arrived depends on when.
        Broken::Cut(_) => Broken::Cut(String::new()),
        other => other,
    });
    let asked = origin.seen().split_off(before);
    Told {
        reply,
        next,
        asked: asked.iter().map(as_asked).collect(),
    }
}

fn as_asked(seen: &Seen) -> (String, Fields, Vec<u8>) {
    let mut fields: Vec<_> = seen
        .fields
        .iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value.clone()))
        .filter(|(name, _)| name != "x-request-id")
        .collect();
    fields.sort_by(|a, b| a.0.cmp(&b.0));
    let line = seen.raw.lines().next().unwrap_or_default();
    (line.to_owned(), fields, seen.body.clone())
}

/// What stands in the log of each request, by method and target.
fn logged(edge: &Edge, count: usize) -> BTreeMap<String, Vec<(String, Value)>> {
    let path = edge.folder().join("access.log");
    wait::until("all lines", wait::SOON, || {
        let text = std::fs::read_to_string(&path).ok()?;
        let lines = text.lines().map(serde_json::from_str::<Value>);
        let lines: BTreeMap<_, _> = lines
            .filter_map(Result::ok)
            .filter(|line| line["target"].to_string().contains("case="))
            .map(|line| {
                (
                    format!("{} {}", line["method"], line["target"]),
                    told_of(&line),
                )
            })
            .collect();
        (lines.len() == count).then_some(lines)
    })
}

fn told_of(line: &Value) -> Vec<(String, Value)> {
    let kept = [
        "method",
        "host",
        "target",
        "status",
        "route",
        "upstream",
        "why",
        "bytes_in",
        "bytes_out",
        "protocol",
        "attempts",
        "cache",
    ];
    let object = line.as_object().expect("an object").clone();
    let object = object
        .into_iter()
        .filter(|(name, _)| kept.contains(&name.as_str()));
    object
        .map(|(name, mut value)| {
            strip_endpoints(&mut value);
            (name, value)
        })
        .collect()
}

/// The two origins have different ports.
fn strip_endpoints(value: &mut Value) {
    match value {
        Value::Array(all) => all.iter_mut().for_each(strip_endpoints),
        Value::Object(fields) => {
            fields.remove("endpoint");
            fields.values_mut().for_each(strip_endpoints);
        }
        _ => {}
    }
}

#[test]
fn every_kind_of_reply_is_the_same_on_both_ways() {
    compare(By::H1);
}

#[test]
fn so_it_is_over_http2() {
    compare(By::H2);
}

/// Names go up as each way writes them.
fn is_of_the_short_way(seen: &Seen) -> bool {
    seen.raw.contains("\r\nhost: ")
}

fn compare(by: By) {
    let (one, other) = (origin(), origin());
    let (short, long) = (edge(&one, "on"), edge(&other, "off"));
    let replies = replies();
    let mut differ = Vec::new();
    for (nth, (name, _)) in replies.iter().enumerate() {
        for ask in requests(nth, by) {
            let (here, there) = std::thread::scope(|scope| {
                let here = scope.spawn(|| told(&short, &one, &ask, by));
                let there = told(&long, &other, &ask, by);
                (here.join().expect("told"), there)
            });
            if here != there {
                let cut = |told: &Told| format!("{told:?}").chars().take(2000).collect::<String>();
                let (here, there) = (cut(&here), cut(&there));
                differ.push(format!("{} of {name:?}:\n{here}\n{there}", ask.method()));
            }
        }
    }
    assert!(
        differ.is_empty(),
        "short and long way differ: {}",
        differ.join("\n")
    );
    let first = |origin: &Origin| is_of_the_short_way(&origin.seen()[1]);
    assert!(first(&one) && !first(&other));
    let count = 2 * replies.len();
    assert_eq!(logged(&short, count), logged(&long, count));
    for series in [
        "tidegate_upstream_errors_total",
        "tidegate_upstream_attempts_total",
    ] {
        assert_eq!(short.metric(series), long.metric(series), "{series}");
    }
}

#[test]
fn what_the_configuration_answers_is_the_same_on_both_ways() {
    let (one, other) = (origin(), origin());
    let (short, long) = (edge(&one, "on"), edge(&other, "off"));
    for (ask, by) in [
        Ask::get("/fixed"),
        Ask::head("/fixed"),
        Ask::get("/moved/a%20b?x=1"),
        Ask::head("/moved"),
        Ask::get("/fixed").field("Connection", "close"),
        Ask::get("/fixed")
            .field("Connection", "x-a")
            .field("X-A", "1"),
        Ask::get("/fixed").field("Upgrade", "h2c"),
        Ask::get("/%00"),
        Ask::get("/a/../../b"),
        Ask::post("/fixed", "body"),
    ]
    .into_iter()
    .flat_map(|ask| [(ask.clone(), By::H1), (ask, By::H2)])
    {
        if by == By::H2
            && ask
                .fields()
                .iter()
                .any(|(name, _)| name == "Connection" || name == "Upgrade")
        {
            continue;
        }
        let here = told(&short, &one, &ask, by);
        let there = told(&long, &other, &ask, by);
        assert_eq!(here.reply, there.reply, "{ask:?}");
        assert_eq!(here.next, there.next, "{ask:?}");
    }
}

#[test]
fn a_client_that_says_no_more_is_treated_alike() {
    // The client's end is there long before the reply.
    let late = || {
        Origin::start(|seen| match seen.target.as_str() {
            "/warm" => Answer::ok("warm"),
            _ => Answer::ok("late").after(Duration::from_millis(600)),
        })
    };
    let (one, other) = (late(), late());
    let told = [edge(&one, "on"), edge(&other, "off")].map(|edge| {
        edge.get("/warm").expect(200);
        let mut conn = edge.plain();
        conn.send(Ask::get("/").host("shop.example").bytes());
        conn.finish();
        conn.read(false).map(|reply| reply.status)
    });
    // The app may have been asked or not: that depends on what is seen first.
    assert_eq!(told[0], told[1]);
    assert_eq!(told[0], Err(Broken::ClosedSilently));
}

#[test]
fn what_comes_behind_a_last_request_does_not_cost_its_reply() {
    const BODY: usize = 200_000;
    const LATE: usize = 60_000;
    let app = Origin::start(|seen| match seen.target.as_str() {
        "/warm" => Answer::ok("warm"),
        _ => Answer::ok(vec![b'x'; BODY]),
    });
    for lane in ["on", "off"] {
        let edge = edge(&app, lane);
        for last in [
            "GET /a HTTP/1.0\r\n",
            "GET /a HTTP/1.1\r\nConnection: close\r\n",
        ] {
            // So that what is sent last waits at the edge.
            let socket = std::net::TcpStream::connect(edge.http()).expect("a connection");
            let small = socket2::SockRef::from(&socket).set_recv_buffer_size(8 * 1024);
            small.expect("a size");
            let mut conn = Conn::from(socket);
            let more = "x".repeat(100_000);
            conn.send(format!(
                "GET /warm HTTP/1.1\r\nHost: a\r\n\r\n{last}Host: a\r\n\r\n{more}"
            ));
            assert_eq!(conn.reply().expect(200).text(), "warm");
            assert_eq!(conn.head().expect("a head").status, 200);
            conn.exactly(BODY - LATE).expect("most of it");
            // The edge is done with it.
            wait::hold(wait::millis(100));
            let rest = conn.exactly(LATE);
            assert!(rest.is_ok(), "{last:?}, lane {lane}");
        }
    }
}

#[test]
fn what_a_stream_has_no_room_for_waits_and_arrives_whole() {
    const BODY: usize = 60_000;
    let app = Origin::start(|_| Answer::ok(vec![b'a'; BODY]));
    let edge = Setup::new()
        .with("APP", app.address)
        .file("www/f/b.css", vec![b'b'; BODY])
        .start(
            r#"
            [server]
            workers = 1
            [upstream.app]
            endpoints = ["@APP@"]
            [static.www]
            root = "www"
            [[route]]
            match = { path_prefix = "/f" }
            static = "www"
            [[route]]
            upstream = "app"
            "#,
        );
    edge.get("/").expect(200);
    // The connection has room for one of them at a time.
    let mut conn = H2::narrow(edge.http(), None);
    let targets = ["/", "/f/b.css", "/", "/f/b.css"];
    let begun: Vec<_> = targets
        .iter()
        .map(|target| conn.begin(&Ask::get(target)))
        .collect();
    // All are read at once: one that is left alone may fill what the others wait for.
    std::thread::scope(|scope| {
        for ((status, mut body), target) in begun.into_iter().zip(targets) {
            assert_eq!(status, 200, "{target}");
            scope.spawn(move || {
                let mut got = Vec::new();
                while let Some(piece) = body.piece() {
                    got.extend_from_slice(&piece.expect("a piece"));
                }
                let wanted = if target == "/" { b'a' } else { b'b' };
                assert!(got == vec![wanted; BODY], "{target}");
            });
        }
    });
}

#[test]
fn streams_that_are_not_read_hold_up_the_app_and_little_memory() {
    const BODY: usize = 4 << 20;
    const CLIENTS: usize = 30;
    let gate = Gate::default();
    let opened = gate.clone();
    let app = Origin::start(move |seen| match seen.target.as_str() {
        "/warm" => Answer::ok("").when(&opened),
        "/chunked" => Answer::chunks(&vec![vec![b'x'; BODY / 8]; 8], Duration::ZERO),
        _ => Answer::ok(vec![b'x'; BODY]),
    });
    let edge = Setup::new().with("APP", app.address).start(
        r#"
        [server]
        workers = 1
        [upstream.app]
        endpoints = ["@APP@"]
        keepalive = { max_idle = 100 }
        [[route]]
        upstream = "app"
        "#,
    );
    keep_connections(&edge, &app, &gate, CLIENTS);
    for target in ["/", "/chunked"] {
        let before = edge.peak_memory();
        let mut conns: Vec<H2> = (0..CLIENTS)
            .map(|_| H2::narrow(edge.http(), None))
            .collect();
        let bodies: Vec<_> = conns
            .iter_mut()
            .map(|conn| conn.begin(&Ask::get(target)))
            .collect();
        let held = calm_peak(&edge).saturating_sub(before);
        std::thread::scope(|scope| {
            for (status, mut body) in bodies {
                assert_eq!(status, 200, "{target}");
                scope.spawn(move || {
                    let mut got = 0;
                    while let Some(piece) = body.piece() {
                        let piece = piece.expect("a piece");
                        assert!(piece.iter().all(|&byte| byte == b'x'));
                        got += piece.len();
                    }
                    assert_eq!(got, BODY, "{target}");
                });
            }
        });
        assert!(held < HELD * CLIENTS as u64, "{target}: {held} octets held");
    }
    let is_warm = |seen: &Seen| seen.target == "/warm";
    let short = |seen: &Seen| is_warm(seen) || is_of_the_short_way(seen);
    assert!(lane_is_off() || app.seen().iter().all(short));
}

#[test]
fn a_stream_whose_reply_breaks_off_is_reset() {
    for lane in ["on", "off"] {
        let app = Origin::start(|seen| match seen.target.as_str() {
            "/warm" => Answer::ok("warm"),
            _ => Answer::ok(vec![b'x'; 200_000]).short_by(50_000),
        });
        let edge = edge(&app, lane);
        edge.get("/warm").expect(200);
        let mut conn = H2::plain(edge.http());
        let (status, mut body) = conn.begin(&Ask::get("/large").host("shop.example"));
        assert_eq!(status, 200);
        let mut got = 0;
        let end = loop {
            match body.piece() {
                Some(Ok(piece)) => got += piece.len(),
                Some(Err(error)) => break Some(error),
                None => break None,
            }
        };
        let end = end.expect("it is not whole");
        assert!(end.contains("INTERNAL_ERROR"), "{end}, lane {lane}");
        assert!(got <= 200_000, "{got}, lane {lane}");
        conn.ask(&Ask::get("/fixed").host("shop.example"))
            .expect(200);
    }
}

/// So many connections are kept to the app afterwards, and the short way is taken. Its replies to
/// `/warm` wait for `gate`.
fn keep_connections(edge: &Edge, app: &Origin, gate: &Gate, count: usize) {
    let asked = (0..count).map(|_| {
        let mut conn = edge.plain();
        conn.send(Ask::get("/warm").host("shop.example").bytes());
        conn
    });
    let asked: Vec<Conn> = asked.collect();
    wait::eventually("all at the app", wait::SOON, || app.count() == count);
    gate.open();
    for mut conn in asked {
        conn.reply().expect(200);
    }
}

/// The most memory that the edge had, when it takes no more.
fn calm_peak(edge: &Edge) -> u64 {
    let (mut last, mut calm) = (0, 0);
    wait::eventually("no more is taken from the app", wait::SOON, || {
        let now = edge.peak_memory();
        calm = if now == last { calm + 1 } else { 0 };
        last = now;
        calm > 20
    });
    last
}

/// Octets that may be held in the process for a client that does not read.
const HELD: u64 = 256 * 1024;

#[test]
fn clients_that_do_not_read_hold_up_the_app_and_little_memory() {
    const BODY: usize = 4 << 20;
    const CLIENTS: usize = 30;
    let gate = Gate::default();
    let opened = gate.clone();
    let app = Origin::start(move |seen| match seen.target.as_str() {
        "/warm" => Answer::ok("").when(&opened),
        _ => Answer::ok(vec![b'x'; BODY]),
    });
    let edge = Setup::new().with("APP", app.address).start(
        r#"
        [server]
        workers = 1
        [upstream.app]
        endpoints = ["@APP@"]
        keepalive = { max_idle = 100 }
        [[route]]
        upstream = "app"
        "#,
    );
    keep_connections(&edge, &app, &gate, CLIENTS);
    for (name, open) in [
        ("plain", Edge::plain as fn(&Edge) -> Conn),
        ("tls", Edge::tls),
    ] {
        let before = edge.peak_memory();
        let mut clients: Vec<Conn> = (0..CLIENTS).map(|_| open(&edge)).collect();
        for conn in &mut clients {
            conn.send(Ask::get("/").host("shop.example").bytes());
        }
        for conn in &mut clients {
            assert_eq!(conn.head().expect("a head").status, 200);
        }
        let held = calm_peak(&edge).saturating_sub(before);
        for conn in &mut clients {
            let body = conn.exactly(BODY).expect("the whole body");
            assert!(body.iter().all(|&byte| byte == b'x'));
        }
        assert!(held < HELD * CLIENTS as u64, "{name}: {held} octets held");
    }
}
