//! What is malformed or ambiguous is refused with the right status, the
//! connection closed, counted by reason, and never reaches an origin.

use crate::support::client::HOST;
use crate::support::h2::{Frames, Verdict};
use crate::support::{Ask, Broken, Conn, Edge, Origin, Setup, wait};

/// A request that no origin may see.
pub(crate) struct Form {
    pub(crate) what: &'static str,
    pub(crate) bytes: Vec<u8>,
    /// Statuses that are right for it.
    status: Vec<u16>,
}

/// The forms of `forms/http1.txt`.
pub(crate) fn forms() -> Vec<Form> {
    let host = format!("Host: {HOST}\r\n");
    let long = "x".repeat(40_000);
    let many: String = (0..300).map(|n| format!("X-{n}: 1\r\n")).collect();
    let table = rows(include_str!("forms/http1.txt"));
    let forms: Vec<Form> = table
        .map(|row| {
            let [what, statuses, bytes] = row[..] else {
                panic!("not three columns: {row:?}");
            };
            let bytes = unescape(bytes)
                .replace("{host}", &host)
                .replace("{long}", &long)
                .replace("{many}", &many);
            let statuses = statuses.split_whitespace().map(|s| s.parse().unwrap());
            Form {
                what,
                bytes: bytes.chars().map(|c| u8::try_from(c).unwrap()).collect(),
                status: statuses.collect(),
            }
        })
        .collect();
    assert!(forms.len() > 80, "only {} forms", forms.len());
    forms
}

#[track_caller]
fn none_wrong(wrong: &[String]) {
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

pub(crate) fn rows(table: &'static str) -> impl Iterator<Item = Vec<&'static str>> {
    let lines = table.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter(|line| !line.is_empty())
        .map(|line| line.split(" | ").collect())
}

/// Each char of the result stands for one byte.
pub(crate) fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        out.push(match (c, (c == '\\').then(|| rest.next()).flatten()) {
            (_, Some('r')) => '\r',
            (_, Some('n')) => '\n',
            (_, Some('t')) => '\t',
            (_, Some('0')) => '\0',
            (_, Some('x')) => {
                let digits: String = rest.by_ref().take(2).collect();
                char::from(u8::from_str_radix(&digits, 16).expect("two digits"))
            }
            (_, Some(other)) => other,
            (plain, None) => plain,
        });
    }
    out
}

impl Form {
    fn send(&self, conn: &mut Conn) -> Option<String> {
        conn.send(&self.bytes);
        self.judge(conn)
    }

    /// What is wrong with the edge's reaction; nothing if it is right.
    fn judge(&self, conn: &mut Conn) -> Option<String> {
        match conn.read(false) {
            Ok(reply) if self.status.contains(&reply.status) => {
                // Whatever else was sent must not be answered.
                match conn.read(false) {
                    Err(Broken::ClosedSilently) => None,
                    more => Some(format!("{}: then {more:?}", self.what)),
                }
            }
            Ok(reply) => Some(format!("{}: {} {}", self.what, reply.status, reply.text())),
            Err(broken) => Some(format!("{}: {broken:?}", self.what)),
        }
    }
}

pub(crate) fn edge_before(origin: &Origin) -> Edge {
    Setup::new().with("APP", origin.address).start(
        r#"
        [log]
        access = { path = "access.log", format = "json" }
        [limits]
        header_timeout = "2s"
        body_timeout = "2s"
        [upstream.app]
        endpoints = ["@APP@"]
        [[listener]]
        name = "plain"
        address = "@HTTP@"
        [[listener]]
        name = "secure"
        address = "@HTTPS@"
        tls = true
        protocols = ["h1", "h2", "h3"]
        [[route]]
        name = "all"
        upstream = "app"
        "#,
    )
}

const REJECTED: &str = r#"tidegate_requests_rejected_total{listener="plain"}"#;

#[test]
fn every_malformed_request_is_refused_closed_counted_and_kept_from_the_origin() {
    let origin = Origin::named("app");
    let edge = edge_before(&origin);
    let mut wrong = Vec::new();
    for form in &forms() {
        let before = edge.metric(REJECTED);
        let mut conn = edge.plain().patience(wait::secs(5));
        wrong.extend(form.send(&mut conn));
        let counted = || edge.metric(REJECTED) >= before + 1.0;
        if wait::try_until(wait::secs(2), || counted().then_some(())).is_none() {
            wrong.push(format!("{}: not counted", form.what));
        }
        let count = origin.count();
        if count > 0 {
            wrong.push(format!(
                "{}: the origin saw {:?}",
                form.what,
                origin.last().raw
            ));
            break;
        }
    }
    none_wrong(&wrong);
    assert_eq!(edge.get("/").text(), "app");
}

#[test]
fn a_tls_connection_is_no_back_door_for_malformed_requests() {
    let origin = Origin::named("app");
    let edge = edge_before(&origin);
    let wrong: Vec<String> = forms()
        .iter()
        .filter_map(|form| form.send(&mut edge.tls().patience(wait::secs(5))))
        .collect();
    none_wrong(&wrong);
    assert_eq!(origin.count(), 0);
}

#[test]
fn malformed_requests_are_refused_in_pieces_and_after_a_good_one_too() {
    let origin = Origin::named("app");
    let edge = edge_before(&origin);
    let mut wrong = Vec::new();
    let mut good = 0;
    for form in &forms() {
        let mut conn = edge.plain().patience(wait::secs(5));
        conn.ask(&Ask::get("/good")).expect(200);
        good += 1;
        for piece in form.bytes.chunks(11) {
            conn.send(piece);
        }
        wrong.extend(form.judge(&mut conn));
    }
    none_wrong(&wrong);
    assert_eq!((origin.count(), origin.count_of("/good")), (good, good));
}

#[test]
fn refusals_name_their_reasons_in_the_metrics() {
    let origin = Origin::named("app");
    let edge = edge_before(&origin);
    for form in forms() {
        form.send(&mut edge.plain().patience(wait::secs(5)));
    }
    let text = edge.admin("/metrics").expect(200).text();
    let mut reasons: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("tidegate_requests_rejected_total{"))
        .filter(|line| !line.ends_with(" 0"))
        .filter_map(|line| line.split("reason=\"").nth(1)?.split('"').next())
        .collect();
    reasons.sort_unstable();
    reasons.dedup();
    assert!(reasons.len() >= 10, "one word for everything: {reasons:?}");
    let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    let is_plain = |reason: &&str| reason.bytes().all(is_word);
    assert!(reasons.iter().all(is_plain), "{reasons:?}");
}

#[test]
fn a_refused_request_stands_in_the_access_log() {
    let origin = Origin::named("app");
    let edge = edge_before(&origin);
    edge.plain()
        .send("GET / HTTP/1.1\r\n\r\n")
        .reply()
        .expect(400);
    let log = edge.folder().join("access.log");
    wait::eventually("the line", wait::SOON, || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        text.contains("\"status\":400")
    });
}

#[test]
fn a_slow_head_is_408_at_the_header_timeout_in_total() {
    let origin = Origin::named("app");
    let edge = edge_before(&origin);
    let started = wait::now();
    let mut conn = edge.plain();
    conn.send("GET / HTTP/1.1\r\nHost: shop.test\r\n");
    let reply = loop {
        // A byte every 200 ms would keep a per-read timeout of 2 s alive for ever.
        conn.send("X: y\r\n");
        conn = conn.patience(wait::millis(200));
        match conn.read(false) {
            Err(Broken::Silence(_)) => {}
            other => break other,
        }
        assert!(started.elapsed() < wait::secs(6), "slowloris passes");
    };
    assert_eq!(reply.expect("a reply").status, 408);
    assert!(
        started.elapsed() >= wait::millis(1_900),
        "{:?}",
        started.elapsed()
    );
    conn.expect_end();
    assert_eq!(origin.count(), 0);
    let series = r#"tidegate_requests_rejected_total{listener="plain",reason="header_timeout"}"#;
    edge.await_metric(series, 1.0);
}

#[test]
fn a_body_that_stalls_ends_at_the_body_timeout() {
    let origin = Origin::named("app");
    let edge = edge_before(&origin);
    for framing in [
        "Content-Length: 10\r\n\r\nhalf",
        "Transfer-Encoding: chunked\r\n\r\n4\r\nha",
    ] {
        let started = wait::now();
        let mut conn = edge.plain();
        conn.send(format!("POST / HTTP/1.1\r\nHost: {HOST}\r\n{framing}"));
        let reply = conn.read(false);
        assert!(!matches!(&reply, Ok(r) if r.status < 400), "{reply:?}");
        assert!(started.elapsed() < wait::secs(8), "{:?}", started.elapsed());
    }
    assert_eq!(origin.count(), 0, "half a request is none");
}

#[test]
fn silence_before_a_first_request_costs_no_more_than_a_while() {
    let origin = Origin::named("app");
    let edge = Setup::new().with("APP", origin.address).start(
        r#"
        [limits]
        header_timeout = "500ms"
        idle_timeout = "700ms"
        [upstream.app]
        endpoints = ["@APP@"]
        [[route]]
        upstream = "app"
        "#,
    );
    edge.plain().expect_end();
}

const METHOD: (&str, &str) = (":method", "GET");
const SCHEME: (&str, &str) = (":scheme", "http");
const PATH: (&str, &str) = (":path", "/");
const AUTHORITY: (&str, &str) = (":authority", HOST);

/// The forms of `forms/http2.txt`: what each is, and its fields.
pub(crate) fn h2_forms() -> Vec<(&'static str, Vec<(String, String)>)> {
    let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let field = |text: &str| match text {
        "METHOD" => own(METHOD),
        "SCHEME" => own(SCHEME),
        "PATH" => own(PATH),
        "AUTHORITY" => own(AUTHORITY),
        other => own(other.split_once('=').expect("NAME=VALUE")),
    };
    let table = rows(include_str!("forms/http2.txt"));
    let forms = table.map(|row| {
        let fields = row[1].split(", ").map(|text| field(&unescape(text)));
        (row[0], fields.collect())
    });
    forms.collect()
}

#[test]
fn malformed_h2_requests_are_refused_and_kept_from_the_origin() {
    let origin = Origin::named("app");
    let edge = edge_before(&origin);
    let mut wrong = Vec::new();
    let forms = h2_forms();
    assert!(forms.len() > 30, "only {} forms", forms.len());
    for (what, fields) in &forms {
        let fields: Vec<_> = fields
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_str()))
            .collect();
        let mut frames = Frames::open(edge.http());
        frames.headers(1, &fields, true);
        let verdict = frames.verdict(1);
        if !verdict.is_refusal() {
            wrong.push(format!("{what}: {verdict:?}"));
        }
    }
    none_wrong(&wrong);
    assert_eq!(origin.count(), 0, "{:?}", origin.seen());
    let mut frames = Frames::open(edge.http());
    frames.headers(1, &[METHOD, SCHEME, PATH, AUTHORITY], true);
    assert_eq!(frames.verdict(1), Verdict::Status(200));
}

#[test]
fn an_h2_body_longer_than_its_length_never_reaches_the_origin_as_a_request() {
    let origin = Origin::named("app");
    let edge = edge_before(&origin);
    let mut frames = Frames::open(edge.http());
    let head = [
        (":method", "POST"),
        SCHEME,
        PATH,
        AUTHORITY,
        ("content-length", "3"),
    ];
    frames.headers(1, &head, false);
    frames.data(
        1,
        b"abcGET /smuggled HTTP/1.1\r\nHost: shop.test\r\n\r\n",
        true,
    );
    let verdict = frames.verdict(1);
    assert!(
        verdict.is_refusal() || matches!(verdict, Verdict::Status(502)),
        "{verdict:?}"
    );
    assert_eq!(origin.count_of("/smuggled"), 0);
    edge.get("/").expect(200);
    assert_eq!(origin.count_of("/smuggled"), 0);
}

#[test]
fn what_is_unusual_but_right_is_served() {
    let origin = Origin::named("app");
    let edge = edge_before(&origin);
    for (what, bytes) in [
        (
            "an empty line first",
            format!("\r\nGET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
        ),
        (
            "an absolute form",
            format!("GET http://{HOST}/ HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
        ),
        (
            "Host with a port",
            format!("GET / HTTP/1.1\r\nHost: {HOST}:80\r\n\r\n"),
        ),
        (
            "Host in capitals",
            "GET / HTTP/1.1\r\nHost: SHOP.TEST\r\n\r\n".into(),
        ),
        (
            "no space after the colon",
            format!("GET / HTTP/1.1\r\nHost:{HOST}\r\nX:y\r\n\r\n"),
        ),
        (
            "tabs around a value",
            format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nX:\ty\t\r\n\r\n"),
        ),
        (
            "an empty value",
            format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nX:\r\n\r\n"),
        ),
        (
            "a value above ASCII",
            format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nX: ä\r\n\r\n"),
        ),
        (
            "an unknown method",
            format!("BREW / HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
        ),
        (
            "a long query",
            format!(
                "GET /?{} HTTP/1.1\r\nHost: {HOST}\r\n\r\n",
                "q".repeat(4_000)
            ),
        ),
        (
            "a chunk extension",
            format!(
                "POST / HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n2;a=\"b c\"\r\nab\r\n0\r\nX-T: y\r\n\r\n"
            ),
        ),
        (
            "Chunked in capitals",
            format!(
                "POST / HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: CHUNKED\r\n\r\n0\r\n\r\n"
            ),
        ),
    ] {
        let mut conn = edge.plain();
        let reply = conn.send(&bytes).read(false);
        assert!(
            matches!(&reply, Ok(r) if r.status == 200),
            "{what}: {reply:?}"
        );
    }
    assert_eq!(origin.broken(), Vec::<String>::new());
}
