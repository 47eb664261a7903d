//! What must not wait for its end: events, interim replies, expectations.

use std::time::Duration;

use crate::support::client::HOST;
use crate::support::{Answer, Ask, Edge, H2, Origin, Setup, Streams, in_front_of, wait};

/// In front of `app` by HTTP/1.1, and one in front of that by HTTP/2.
fn edges(app: &Origin) -> (Edge, Edge) {
    let inner = in_front_of(app.address);
    let outer = Setup::new().with("APP", inner.http()).start(
        "[upstream.app]\nendpoints = [\"@APP@\"]\nprotocol = \"h2\"\n[[route]]\nupstream = \"app\"\n",
    );
    (inner, outer)
}

#[test]
fn each_event_arrives_when_it_is_said() {
    const GAP: Duration = Duration::from_millis(700);
    let app = Origin::start(|_| {
        Answer::chunks(&["data: 1\n\n", "data: 2\n\n", "data: 3\n\n"], GAP)
            .field("Content-Type", "text/event-stream")
    });
    let (inner, outer) = edges(&app);
    for edge in [&inner, &outer] {
        // Twice, so that the second goes over a kept connection.
        for _ in 0..2 {
            let mut conn = edge.plain().patience(wait::secs(3));
            conn.send(Ask::get("/events").bytes());
            let begun = wait::now();
            assert_eq!(conn.head().expect("a head").status, 200);
            for nth in 1..=3 {
                let wanted = format!("9\r\ndata: {nth}\n\n\r\n");
                assert_eq!(conn.exactly(wanted.len()), Ok(wanted.into_bytes()));
                if nth == 1 {
                    assert!(begun.elapsed() < 2 * GAP, "the first one waits");
                }
            }
            let mut streams = Streams::tls(edge.https(), HOST);
            let mut call = streams.begin("GET", "/events", &[], true);
            let begun = wait::now();
            call.head().expect("a head");
            for nth in 1..=3 {
                let wanted = format!("data: {nth}\n\n");
                assert_eq!(call.exactly(wanted.len()), Ok(wanted.into_bytes()));
                if nth == 1 {
                    assert!(begun.elapsed() < 2 * GAP, "the first one waits");
                }
            }
        }
    }
}

#[test]
fn silence_between_events_is_bounded_by_the_read_timeout() {
    let app = Origin::start(|_| Answer::chunks(&["one", "two"], wait::secs(2)));
    let edge = |patience: &str| {
        Setup::new().with("APP", app.address).start(&format!(
            "[limits]\nbody_timeout = \"500ms\"\nidle_timeout = \"500ms\"\n\
             [upstream.app]\nendpoints = [\"@APP@\"]\nread_timeout = \"{patience}\"\n\
             outlier_detection = false\n[[route]]\nupstream = \"app\"\n"
        ))
    };
    // No timeout of the client's side is meant: it has nothing to say.
    let patient = edge("10s");
    assert_eq!(patient.get("/").expect(200).text(), "onetwo");
    let reply = H2::tls(patient.https(), HOST).ask(&Ask::get("/"));
    assert_eq!(reply.expect(200).text(), "onetwo");
    let hasty = edge("300ms");
    let cut = hasty.plain().send(Ask::get("/").bytes()).read(false);
    assert!(cut.is_err(), "{cut:?}");
    assert!(
        H2::tls(hasty.https(), HOST)
            .try_ask(&Ask::get("/"))
            .is_err()
    );
}

#[test]
fn interim_replies_pass_on_every_version() {
    let interim = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n\
                   HTTP/1.1 102 Processing\r\nX-Progress: 50\r\n\r\n\
                   HTTP/1.1 100 Continue\r\n\r\n";
    let app = Origin::start(move |_| Answer::ok("final").behind(interim));
    let (inner, outer) = edges(&app);
    for edge in [&inner, &outer] {
        for _ in 0..2 {
            let mut conn = edge.plain();
            let reply = conn.ask(&Ask::get("/")).expect(200);
            assert_eq!(reply.text(), "final");
            assert_eq!(
                reply.interim,
                [103, 102],
                "but for the 100 that nobody asked for"
            );
            let mut streams = Streams::tls(edge.https(), HOST);
            let mut call = streams.begin("GET", "/", &[], true);
            let hints = call.interim();
            assert_eq!(hints.status(), 103);
            assert_eq!(hints.headers()["link"], "</a.css>; rel=preload");
            let progress = call.interim();
            assert_eq!(progress.status(), 102);
            assert_eq!(progress.headers()["x-progress"], "50");
            assert_eq!(call.head().expect("a reply").status(), 200);
            assert_eq!(call.rest().expect("a body").0, b"final");
        }
    }
    let mut old = inner.plain();
    old.send(format!("GET / HTTP/1.0\r\nHost: {HOST}\r\n\r\n"));
    assert_eq!(old.reply().expect(200).interim, [0_u16; 0]);
}

#[test]
fn expectations_are_answered_on_every_version() {
    let app = Origin::start(|seen| Answer::ok(format!("{} bytes", seen.body.len())));
    let (inner, outer) = edges(&app);
    for edge in [&inner, &outer] {
        let mut streams = Streams::tls(edge.https(), HOST);
        for fields in [
            &[("expect", "100-continue"), ("content-length", "5")][..],
            &[("expect", "100-continue")],
        ] {
            let mut call = streams.begin("POST", "/", fields, false);
            assert_eq!(call.interim().status(), 100);
            call.data("hello", true);
            assert_eq!(call.head().expect("a reply").status(), 200);
            assert_eq!(call.rest().expect("a body").0, b"5 bytes");
        }
        assert_eq!(app.last().field("expect"), None, "it is answered here");
    }
}

#[test]
fn a_body_that_is_too_large_is_refused_before_it_is_asked_for() {
    let app = Origin::named("never");
    let edge = Setup::new().with("APP", app.address).start(
        "[limits]\nmax_body_size = \"1KiB\"\n[upstream.app]\nendpoints = [\"@APP@\"]\n[[route]]\nupstream = \"app\"\n",
    );
    let mut conn = edge.plain();
    conn.send(format!(
        "POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 5000\r\nExpect: 100-continue\r\n\r\n"
    ));
    let reply = conn.reply().expect(413);
    assert_eq!(reply.interim, [0_u16; 0], "nothing invites the body");
    let mut streams = Streams::plain(edge.http());
    let fields = [("expect", "100-continue"), ("content-length", "5000")];
    let mut call = streams.begin("POST", "/", &fields, false);
    assert_eq!(call.head().expect("a reply").status(), 413);
    assert_eq!(app.count(), 0);
}

#[test]
fn a_final_reply_before_the_end_of_the_body_reaches_the_client() {
    // It answers when the head is there, and never reads the body.
    let app = Origin::start(|_| Answer::new(417, "no").then_close());
    let edge = in_front_of(app.address);
    let reply = edge.ask(&Ask::post("/", "hello"));
    assert_eq!(reply.expect(417).text(), "no");
}

#[test]
fn connect_is_refused_on_every_version() {
    let app = Origin::named("never");
    let edge = in_front_of(app.address);
    let mut conn = edge.plain();
    conn.send("CONNECT app.test:80 HTTP/1.1\r\nHost: app.test:80\r\n\r\n");
    conn.reply().expect(501);
    let mut streams = Streams::plain(edge.http());
    let mut call = streams.connect("connect-udp", "/x");
    assert_eq!(call.head().expect("a reply").status(), 501);
    assert_eq!(app.count(), 0);
}

/// Together they are more than waits for the socket at once, so most of them are sent piece by piece.
#[test]
fn replies_that_share_the_room_of_a_connection_all_arrive() {
    let app = Origin::start(|seen| match seen.target.as_str() {
        "/large" => Answer::ok(vec![b'x'; 3_000_000]),
        _ => Answer::ok(vec![b'x'; 60_000]),
    });
    let edge = in_front_of(app.address);
    let asks: Vec<Ask> = (0..40)
        .map(|nth| match nth % 10 {
            9 => Ask::get("/large"),
            nth => Ask::get(&format!("/{nth}")),
        })
        .collect();
    for _ in 0..3 {
        let mut lengths = Vec::new();
        for reply in H2::tls(edge.https(), HOST).ask_all(&asks) {
            lengths.push(reply.expect("a whole reply").body.len());
        }
        let whole: usize = lengths.iter().sum();
        assert_eq!(whole, 4 * 3_000_000 + 36 * 60_000, "{lengths:?}");
    }
}
