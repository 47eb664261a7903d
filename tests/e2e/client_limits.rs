//! What clients may have open at once: connections of a listener, streams of a connection.

use crate::support::client::HOST;
use crate::support::h2::{ACK, Frames, H2, HEADERS, SETTINGS, Verdict, code};
use crate::support::{Answer, Ask, Conn, Edge, Gate, Origin, Setup, wait};

/// RFC 9113 section 6.5.2.
const MAX_CONCURRENT_STREAMS: u16 = 0x3;

/// RFC 9113 section 7.
const REFUSED_STREAM: u32 = 0x7;

const OPEN: &str = r#"tidegate_connections_active{listener="plain"}"#;

const REFUSED: &str =
    r#"tidegate_connections_refused_total{listener="plain",reason="max_connections"}"#;

/// A connection on which a request was answered, as soon as one is let in.
#[track_caller]
fn let_in(edge: &Edge) -> Conn {
    wait::until("a connection is let in", wait::SOON, || {
        let mut conn = edge.plain();
        let reply = conn.send(Ask::get("/").bytes()).read(false);
        reply.is_ok_and(|reply| reply.status == 200).then_some(conn)
    })
}

/// One more connection than may be open, and the count of those that were refused.
#[track_caller]
fn expect_refusal(edge: &Edge) {
    let before = edge.metric(REFUSED);
    edge.plain().expect_end();
    edge.await_metric(REFUSED, before + 1.0);
    assert_eq!(edge.metric(OPEN), 3.0);
}

#[test]
fn a_listener_has_so_many_connections_and_lets_one_in_when_another_ends() {
    let edge = Setup::new()
        .start("[limits]\nmax_connections = 3\n[[route]]\nrespond = { body = \"ok\" }\n");
    // Asked whether it is ready, it connects to itself.
    wait::eventually("no connection", wait::SOON, || edge.metric(OPEN) == 0.0);
    let mut open: Vec<Conn> = (0..3).map(|_| let_in(&edge)).collect();
    expect_refusal(&edge);
    edge.await_stderr("reason=\"max_connections\"");
    // Those that are open go on, and another listener has a count of its own.
    for conn in &mut open {
        conn.ask(&Ask::get("/")).expect(200);
    }
    edge.tls().ask(&Ask::get("/")).expect(200);
    drop(open.pop());
    open.push(let_in(&edge));
    expect_refusal(&edge);
    for conn in &mut open {
        conn.ask(&Ask::get("/")).expect(200);
    }
}

/// Three streams of a connection, to an app.
fn three_streams(app: &Origin) -> Edge {
    Setup::new().with("APP", app.address).start(
        "[limits]\nmax_concurrent_streams = 3\n\
         [upstream.app]\nendpoints = [\"@APP@\"]\n[[route]]\nupstream = \"app\"\n",
    )
}

fn get(path: &str) -> [(&str, &str); 4] {
    [
        (":method", "GET"),
        (":scheme", "http"),
        (":path", path),
        (":authority", HOST),
    ]
}

/// How many streams the peer says that it takes, in the first frame of its own.
#[track_caller]
fn announced(frames: &mut Frames) -> Option<u32> {
    let (kind, flags, _, payload) = frames.read_frame().expect("a frame");
    assert_eq!((kind, flags), (SETTINGS, 0));
    frames.frame(SETTINGS, ACK, 0, &[]);
    payload.chunks_exact(6).find_map(|setting| {
        let is_it = setting.starts_with(&MAX_CONCURRENT_STREAMS.to_be_bytes());
        is_it.then(|| code(&setting[2..]))
    })
}

#[test]
fn a_stream_beyond_what_the_settings_say_is_refused() {
    let gate = Gate::default();
    let held = gate.clone();
    let app = Origin::start(move |seen| match seen.target.as_str() {
        "/hold" => Answer::ok("held").when(&held),
        _ => Answer::ok("ok"),
    });
    let edge = three_streams(&app);
    let mut frames = Frames::open(edge.http());
    assert_eq!(announced(&mut frames), Some(3));
    for stream in [1, 3, 5] {
        frames.headers(stream, &get("/hold"), true);
    }
    wait::eventually("all are held", wait::SOON, || app.count_of("/hold") == 3);
    for stream in [7, 9] {
        frames.headers(stream, &get("/"), true);
        let verdict = frames.verdict(stream);
        assert_eq!(verdict, Verdict::StreamReset(REFUSED_STREAM), "{stream}");
    }
    // What is under way is answered, and then there is room again.
    gate.open();
    let mut answered = Vec::new();
    while answered.len() < 3 {
        let (kind, _, stream, _) = frames.read_frame().expect("an answer");
        if kind == HEADERS {
            answered.push(stream);
        }
    }
    answered.sort_unstable();
    assert_eq!(answered, [1, 3, 5]);
    let mut stream = 9;
    wait::eventually("a stream is taken", wait::SOON, || {
        stream += 2;
        frames.headers(stream, &get("/"), true);
        frames.verdict(stream) == Verdict::Status(200)
    });
    assert_eq!(app.count(), 4, "of the refused ones the app knows nothing");
}

#[test]
fn a_client_that_keeps_to_the_settings_has_all_its_requests_answered() {
    let app = Origin::start(|_| Answer::ok("ok").after(wait::millis(30)));
    let edge = three_streams(&app);
    for mut client in [H2::plain(edge.http()), H2::tls(edge.https(), "shop.test")] {
        // With the first answer it knows them.
        client.ask(&Ask::get("/")).expect(200);
        let asks: Vec<Ask> = (0..12).map(|_| Ask::get("/")).collect();
        for reply in client.ask_all(&asks) {
            assert_eq!(reply.expect("a reply").status, 200);
        }
    }
    assert_eq!(app.count(), 2 * 13);
}
