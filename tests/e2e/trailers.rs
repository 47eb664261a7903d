//! Fields behind bodies, between all pairs of versions.

use crate::support::client::HOST;
use crate::support::{Answer, Conn, Edge, Origin, Setup, Streams, in_front_of, wait};

const SENT: [&str; 6] = [
    "X-Sum: 1234",
    "x-sum: 5678",
    "Content-Length: 3",
    "Set-Cookie: a=b",
    "X_Sum: forged",
    "X-Last: end",
];

fn app() -> Origin {
    Origin::start(|_| {
        Answer::chunks(&["one", "two"], wait::millis(1))
            .field("Trailer", "X-Sum, X-Last")
            .trailers(&SENT)
    })
}

/// In front of `app` by HTTP/1.1, and one in front of that by HTTP/2.
fn edges(app: &Origin) -> (Edge, Edge) {
    let inner = in_front_of(app.address);
    let outer = Setup::new().with("APP", inner.http()).start(
        "[upstream.app]\nendpoints = [\"@APP@\"]\nprotocol = \"h2\"\n[[route]]\nupstream = \"app\"\n",
    );
    (inner, outer)
}

fn request(method: &str, fields: &str, trailers: &str) -> String {
    format!(
        "{method} /x HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n{fields}\r\n\
         3\r\nabc\r\n0\r\n{trailers}\r\n"
    )
}

fn asked(conn: &mut Conn) -> Vec<String> {
    let reply = conn.reply().expect(200);
    assert_eq!(reply.text(), "onetwo");
    assert_eq!(reply.field("trailer"), Some("X-Sum, X-Last"), "{reply:?}");
    conn.take_trailers()
}

const WANTED: [&str; 3] = ["x-sum: 1234", "x-sum: 5678", "x-last: end"];

#[test]
fn replies_carry_them_to_every_version_from_every_version() {
    let app = app();
    let (inner, outer) = edges(&app);
    for edge in [&inner, &outer] {
        for mut conn in [edge.plain(), edge.tls()] {
            // More than once: what comes behind them is another reply.
            for _ in 0..3 {
                conn.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
                assert_eq!(asked(&mut conn), WANTED);
            }
        }
        let mut streams = Streams::tls(edge.https(), HOST);
        for _ in 0..3 {
            let mut call = streams.begin("GET", "/", &[("te", "trailers")], true);
            let head = call.head().expect("a reply");
            assert_eq!(head.headers()["trailer"], "X-Sum, X-Last");
            let (body, trailers) = call.rest().expect("a whole reply");
            assert_eq!(body, b"onetwo");
            let lines: Vec<_> = trailers
                .iter()
                .map(|(name, value)| format!("{name}: {}", value.to_str().expect("text")))
                .collect();
            assert_eq!(lines, WANTED);
        }
    }
    assert_eq!(app.broken(), Vec::<String>::new());
}

#[test]
fn undeclared_ones_pass_as_well() {
    let app = Origin::start(|_| Answer::chunks(&["one"], wait::millis(0)).trailers(&["x-sum: 1"]));
    let edge = in_front_of(app.address);
    let mut conn = edge.plain();
    let mut streams = Streams::plain(edge.http());
    for _ in 0..3 {
        conn.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
        assert_eq!(conn.reply().expect(200).text(), "one");
        assert_eq!(conn.take_trailers(), ["x-sum: 1"]);
        let mut call = streams.begin("GET", "/", &[], true);
        call.head().expect("a reply");
        assert_eq!(call.rest().expect("a whole reply").1["x-sum"], "1");
    }
}

#[test]
fn who_cannot_have_them_gets_a_whole_reply() {
    let app = app();
    let edge = in_front_of(app.address);
    let mut conn = edge.plain();
    conn.send(format!("GET / HTTP/1.0\r\nHost: {HOST}\r\n\r\n"));
    let reply = conn.reply().expect(200);
    assert_eq!(reply.text(), "onetwo");
    assert_eq!(reply.field("trailer"), None);
    assert_eq!(reply.field("x-sum"), None);
}

#[test]
fn requests_carry_them_to_every_version_from_every_version() {
    let app = Origin::named("fine");
    let (inner, outer) = edges(&app);
    let section = SENT.map(|line| format!("{line}\r\n")).concat();
    for edge in [&inner, &outer] {
        for mut conn in [edge.plain(), edge.tls()] {
            for _ in 0..3 {
                conn.send(request("POST", "Trailer: X-Sum\r\n", &section));
                conn.reply().expect(200);
                let seen = app.last();
                assert_eq!(seen.body, b"abc");
                assert_eq!(seen.trailers, WANTED);
                assert_eq!(seen.field("trailer"), Some("X-Sum"), "{}", seen.raw);
            }
            // Nothing of them is left for the next one.
            conn.send(request("POST", "", ""));
            conn.reply().expect(200);
            assert_eq!(app.last().trailers, Vec::<String>::new());
        }
        let mut streams = Streams::tls(edge.https(), HOST);
        for _ in 0..2 {
            let mut call = streams.begin("POST", "/x", &[("trailer", "x-sum")], false);
            call.data("abc", false);
            call.trailers(&[("x-sum", "9"), ("content-type", "text/html")]);
            call.head().expect("a reply");
            call.rest().expect("a whole reply");
            assert_eq!(app.last().body, b"abc");
            assert_eq!(app.last().trailers, ["x-sum: 9"]);
        }
    }
    assert_eq!(app.broken(), Vec::<String>::new());
}

#[test]
fn a_framing_without_a_place_for_them_leaves_them_out() {
    let app = Origin::named("fine");
    let edge = in_front_of(app.address);
    let mut streams = Streams::plain(edge.http());
    for length in ["3", "300000"] {
        let mut call = streams.begin("POST", "/x", &[("content-length", length)], false);
        let body = vec![b'x'; length.parse().expect("a number")];
        call.data(body.clone(), false);
        call.trailers(&[("x-sum", "9")]);
        assert_eq!(call.head().expect("a reply").status(), 200);
        call.rest().expect("a whole reply");
        assert!(app.last().body == body);
        assert_eq!(app.last().trailers, Vec::<String>::new());
    }
    assert_eq!(app.broken(), Vec::<String>::new());
}

#[test]
fn te_says_of_each_hop_what_it_takes() {
    let app = Origin::named("fine");
    let (inner, outer) = edges(&app);
    for edge in [&inner, &outer] {
        let mut conn = edge.plain();
        let mut te = |fields: &str| {
            conn.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n"));
            conn.reply().expect(200);
            let seen = app.last();
            let named = seen.field("connection").map(str::to_owned);
            (seen.field("te").map(str::to_owned), named)
        };
        let wants = (Some("trailers".to_owned()), Some("te".to_owned()));
        assert_eq!(te("TE: trailers\r\nConnection: TE\r\n"), wants);
        assert_eq!(
            te("TE: gzip, trailers\r\nConnection: keep-alive, te\r\n"),
            wants
        );
        assert_eq!(
            te("TE: trailers\r\n"),
            (None, None),
            "Connection does not name it"
        );
        assert_eq!(te("TE: gzip\r\nConnection: TE\r\n"), (None, None));
        let mut streams = Streams::plain(edge.http());
        for _ in 0..2 {
            let mut call = streams.begin("GET", "/", &[("te", "trailers")], true);
            call.head().expect("a reply");
            assert_eq!(app.last().field("te"), Some("trailers"));
        }
    }
}
