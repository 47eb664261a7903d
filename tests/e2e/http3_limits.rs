//! What a client of HTTP/3 may take, and how slow it may be: the same limits as over TCP.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use crate::support::h3::{
    Bare, Client, DATA, GOAWAY, Own, SETTINGS, Verdict, frame, headers, narrow,
};
use crate::support::{Answer, Ask, Edge, Origin, Setup, wait};

/// Types of RFC 9114 section 7.2.
const MAX_PUSH_ID: u64 = 0xd;

const EXCESSIVE_LOAD: Verdict = Verdict::Closed(0x107);
const REQUEST_CANCELLED: Verdict = Verdict::Reset(0x10c);

fn edge(limits: &str, app: &Origin) -> Edge {
    Setup::new().with("APP", app.address).start(&format!(
        r#"
        [[listener]]
        name = "secure"
        address = "@HTTPS@"
        tls = true
        protocols = ["h1", "h2", "h3"]
        [limits]
        {limits}
        [upstream.app]
        endpoints = ["@APP@"]
        [[route]]
        upstream = "app"
        "#
    ))
}

/// The octets of an upload, counted.
fn counting() -> Origin {
    Origin::start(|seen| Answer::ok(seen.body.len().to_string()))
}

fn refused(reason: &str) -> String {
    format!("tidegate_connections_refused_total{{listener=\"secure\",reason=\"{reason}\"}}")
}

fn rejected(reason: &str) -> String {
    format!("tidegate_requests_rejected_total{{listener=\"secure\",reason=\"{reason}\"}}")
}

fn request<'a>(method: &'a str, more: &[(&'a str, &'a str)]) -> Vec<u8> {
    let fields = [
        (":method", method),
        (":scheme", "https"),
        (":authority", "shop.test"),
        (":path", "/"),
    ];
    headers(&[&fields[..], more].concat())
}

/// A connection with a control stream.
fn open(client: &Client, edge: &Edge) -> (Bare, quinn::SendStream) {
    let bare = client.bare(edge.https());
    let control = bare.open_uni(&[&[0][..], &frame(SETTINGS, &[])].concat());
    (bare, control)
}

#[test]
fn a_body_below_the_rate_or_without_end_is_408_and_calls_may_be_as_slow_as_they_like() {
    let app = counting();
    for (limits, reason) in [
        ("min_rate = \"2KiB/s\"\nmin_rate_grace = \"1s\"", "min_rate"),
        ("request_timeout = \"1s\"", "request_timeout"),
    ] {
        let edge = edge(limits, &app);
        let client = Client::new();
        let (bare, _control) = open(&client, &edge);
        let began = wait::now();
        let mut upload = bare.open(&request("POST", &[]));
        let mut verdict = Verdict::Silence;
        while verdict == Verdict::Silence && began.elapsed() < wait::SOON {
            upload.write(&frame(DATA, b"xx"));
            verdict = upload.verdict(wait::millis(50));
        }
        assert_eq!(verdict, Verdict::Status(408), "{reason}");
        let took = began.elapsed();
        assert!(took >= wait::millis(900), "{reason}: {took:?}");
        edge.await_metric(&rejected(reason), 1.0);
        edge.await_stderr("clients were held to a limit");
        // Messages may be far between.
        let mut call = bare.open(&request("POST", &[("content-type", "application/grpc")]));
        for _ in 0..8 {
            assert!(call.write(&frame(DATA, b"message")));
            wait::hold(wait::millis(250));
        }
        call.finish();
        assert_eq!(call.verdict(wait::SOON), Verdict::Status(200), "{reason}");
        assert_eq!(edge.metric(&rejected(reason)), 1.0);
    }
}

#[test]
fn an_upload_above_the_rate_arrives() {
    let app = counting();
    let edge = edge("min_rate = \"2KiB/s\"\nmin_rate_grace = \"1s\"", &app);
    let client = Client::new();
    let (bare, _control) = open(&client, &edge);
    let mut upload = bare.open(&request("POST", &[]));
    // 8 KiB a second, for three times the grace.
    for _ in 0..30 {
        assert!(upload.write(&frame(DATA, &[b'x'; 820])));
        wait::hold(wait::millis(100));
    }
    upload.finish();
    assert_eq!(upload.verdict(wait::SOON), Verdict::Status(200));
    assert!(!edge.has_metric(&rejected("min_rate")) || edge.metric(&rejected("min_rate")) == 0.0);
}

/// Takes `size` octets each `pause`; how it was cut, if it was in this time.
fn slowly(stream: &mut Own, size: usize, pause: Duration, most: Duration) -> Option<Verdict> {
    let began = wait::now();
    while began.elapsed() < most {
        match stream.sip(size, wait::SOON) {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it was whole"),
            Err(verdict) => return Some(verdict),
        }
        wait::hold(pause);
    }
    None
}

#[test]
fn a_reply_taken_below_the_rate_is_cut_and_above_it_is_not() {
    let app = Origin::start(|_| Answer::ok(vec![b'x'; 8 << 20]));
    let pause = wait::millis(50);
    let held = edge("min_rate = \"1MiB/s\"\nmin_rate_grace = \"1s\"", &app);
    let client = Client::with(narrow(16 * 1024));
    let (bare, _control) = open(&client, &held);
    let mut stream = bare.open(&request("GET", &[]));
    stream.finish();
    let cut = slowly(&mut stream, 8 * 1024, pause, wait::SOON);
    assert_eq!(cut, Some(REQUEST_CANCELLED));
    held.await_metric(&refused("min_rate"), 1.0);
    held.await_stderr("reason=\"min_rate\"");
    // Its connection goes on.
    assert_eq!(bare.send(&request("GET", &[]), true), Verdict::Status(200));
    let gentle = edge("min_rate = \"10KiB/s\"\nmin_rate_grace = \"1s\"", &app);
    let (bare, _control) = open(&client, &gentle);
    let mut stream = bare.open(&request("GET", &[]));
    stream.finish();
    assert_eq!(slowly(&mut stream, 8 * 1024, pause, wait::secs(4)), None);
}

/// A line over which what `edge` sends comes at `pause` a packet; ends when nothing comes any more.
fn slow_line(edge: SocketAddr, pause: Duration) -> SocketAddr {
    let line = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    line.set_read_timeout(Some(wait::SOON)).expect("a timeout");
    let address = line.local_addr().expect("an address");
    std::thread::spawn(move || {
        let (mut packet, mut client) = ([0; 2000], edge);
        while let Ok((length, from)) = line.recv_from(&mut packet) {
            let to = match from == edge {
                true => client,
                false => edge,
            };
            if from == edge {
                wait::hold(pause);
            } else {
                client = from;
            }
            // Where it is gone, so is the test.
            let _ = line.send_to(&packet[..length], to);
        }
    });
    address
}

#[test]
fn the_end_of_a_reply_on_a_slow_line_is_not_thrown_away() {
    const SIZE: usize = 400_000;
    let app = Origin::start(|_| Answer::ok(vec![b'x'; SIZE]));
    // The edge holds all of it at once, and has nothing else to do for several times that.
    let edge = edge("idle_timeout = \"1s\"", &app);
    let line = slow_line(edge.https(), wait::millis(15));
    let mut connection = Client::new().connect(line);
    let began = wait::now();
    let reply = connection.ask(&Ask::get("/")).expect(200);
    assert_eq!(reply.body.len(), SIZE);
    assert!(began.elapsed() > wait::secs(3), "it was not slow");
}

#[test]
fn a_body_of_pieces_of_one_octet_arrives_whole_and_is_read_by_the_same_rules() {
    let app = counting();
    let edge = edge("", &app);
    let (bare, _control) = open(&Client::new(), &edge);
    let pieces = |count: usize| frame(DATA, b"x").repeat(count);
    let mut upload = bare.open(&request("POST", &[]));
    // 16 KiB are joined at the most.
    assert!(upload.write(&pieces(40_000)));
    upload.finish();
    assert_eq!(upload.data(5).expect("a reply"), b"40000");
    let more = |length: &str, behind: &[u8]| {
        let announced = request("POST", &[("content-length", length)]);
        bare.send(&[&announced[..], &pieces(300), behind].concat(), true)
    };
    assert_eq!(more("300", &headers(&[("x", "y")])), Verdict::Status(200));
    assert_eq!(more("299", &[]), Verdict::Status(400));
    assert_eq!(more("301", &[]), Verdict::Status(400));
    assert_eq!(
        more("300", &headers(&[(":path", "/")])),
        Verdict::Status(400)
    );
    // SETTINGS belongs on the control stream.
    assert_eq!(more("300", &frame(SETTINGS, &[])), Verdict::Closed(0x105));
}

/// Opens streams that carry `octets` and are then given up, or ended, until the connection is; how many.
fn flood(bare: &Bare, octets: &[u8], ends: bool) -> usize {
    crate::support::runtime().block_on(async {
        for sent in 0..5000 {
            let Ok((mut send, _recv)) = bare.0.open_bi().await else {
                return sent;
            };
            let _ = send.write_all(octets).await;
            if ends {
                let _ = send.finish();
            }
        }
        5000
    })
}

#[test]
fn requests_that_make_the_edge_reset_them_are_counted_and_ended() {
    let app = Origin::start(|_| Answer::ok("").after(Duration::from_secs(20)));
    let edge = edge("", &app);
    let client = Client::new();
    // Trailers that are none, behind a body that an app works on (the like of CVE-2025-8671).
    let (bare, _control) = open(&client, &edge);
    let bad = headers(&[(":path", "/")]);
    let attack = [request("POST", &[]), frame(DATA, b"x"), bad].concat();
    let sent = flood(&bare, &attack, false);
    assert_eq!(bare.await_close(), EXCESSIVE_LOAD, "after {sent}");
    assert!(sent < 1000, "{sent} went through");
    // Streams that end before they say anything.
    let (bare, _control) = open(&client, &edge);
    let sent = flood(&bare, &[], true);
    assert_eq!(bare.await_close(), EXCESSIVE_LOAD, "after {sent}");
}

#[test]
fn a_client_that_does_not_let_the_settings_come_is_closed() {
    let app = counting();
    let edge = edge("header_timeout = \"3s\"", &app);
    for most in [0_u8, 3] {
        let mut transport = quinn::TransportConfig::default();
        transport.max_concurrent_uni_streams(most.into());
        let client = Client::with(transport);
        let (bare, _control) = open(&client, &edge);
        match most {
            0 => assert_eq!(bare.await_close(), Verdict::Closed(0x101)),
            _ => {
                wait::hold(wait::millis(3_500));
                let again = bare.send(&request("GET", &[]), true);
                assert_eq!(again, Verdict::Status(200));
            }
        }
    }
}

#[test]
fn a_window_that_stands_still_is_cut_and_counted() {
    let app = Origin::start(|_| Answer::ok(vec![b'x'; 8 << 20]));
    let edge = edge("body_timeout = \"1s\"", &app);
    // That of the stream, and then that of the connection.
    for (nth, stream) in [16 * 1024, 1 << 20].into_iter().enumerate() {
        let mut windows = narrow(16 * 1024);
        windows.stream_receive_window(quinn::VarInt::from_u32(stream));
        let client = Client::with(windows);
        let (bare, _control) = open(&client, &edge);
        let mut stream = bare.open(&request("GET", &[]));
        stream.finish();
        edge.await_metric(&refused("write_timeout"), [1.0, 2.0][nth]);
        let mut last = stream.sip(1 << 20, wait::SOON);
        while let Ok(Some(_)) = last {
            last = stream.sip(1 << 20, wait::SOON);
        }
        assert_eq!(last, Err(REQUEST_CANCELLED));
    }
}

#[test]
fn frames_that_carry_nothing_are_cut_on_every_stream() {
    let app = counting();
    let (settings, mut floods) = (frame(SETTINGS, &[]), 0.0);
    let edge = edge("", &app);
    let client = Client::new();
    let control = |more: &[u8]| [&[0][..], &settings, more].concat();
    for (what, start, flood) in [
        ("unknown frames", control(&[]), frame(0x21, b"x")),
        ("the same goaway", control(&[]), frame(GOAWAY, &[0])),
        (
            "pushes that grow not",
            control(&[]),
            frame(MAX_PUSH_ID, &[1]),
        ),
        ("a table of no room", vec![2], vec![0x20; 10]),
        ("cancellations", vec![3], vec![0x44; 10]),
    ] {
        let bare = client.bare(edge.https());
        let mut stream = bare.open_uni(&start);
        crate::support::runtime().block_on(async {
            for _ in 0..300 {
                let _ = stream.write_all(&flood.repeat(10)).await;
            }
        });
        assert_eq!(bare.await_close(), EXCESSIVE_LOAD, "{what}");
        floods += 1.0;
        edge.await_metric(&refused("h3_control_frames"), floods);
    }
    for (what, flood) in [
        ("empty pieces", frame(DATA, &[])),
        ("unknown frames", frame(0x21, &[])),
    ] {
        let (bare, _control) = open(&client, &edge);
        let mut upload = bare.open(&request("POST", &[]));
        let cut = (0..300).any(|_| !upload.write(&flood.repeat(10)));
        assert!(cut || bare.await_close() == EXCESSIVE_LOAD, "{what}");
        assert_eq!(bare.await_close(), EXCESSIVE_LOAD, "{what}");
    }
    let (bare, _control) = open(&client, &edge);
    crate::support::runtime().block_on(async {
        while let Ok(mut stream) = bare.0.open_uni().await {
            let _ = stream.write_all(&[0x40, 0x55, 1]).await;
        }
    });
    assert_eq!(bare.await_close(), EXCESSIVE_LOAD, "streams of no kind");
    edge.await_metric(&refused("h3_control_frames"), floods + 3.0);
    edge.await_stderr("reason=\"h3_control_frames\"");
}

#[test]
fn a_stream_beside_requests_says_what_it_may_and_nothing_else() {
    let app = counting();
    let edge = edge("", &app);
    let client = Client::new();
    for (what, octets) in [
        ("an acknowledged section", [3, 0x80]),
        ("an inserted entry", [3, 0x01]),
    ] {
        let bare = client.bare(edge.https());
        let _stream = bare.open_uni(&octets);
        assert_eq!(bare.await_close(), Verdict::Closed(0x202), "{what}");
    }
    let (bare, mut control) = open(&client, &edge);
    crate::support::runtime().block_on(async {
        let _ = control.write_all(&frame(0x3, &[0])).await;
    });
    let cancelled = bare.await_close();
    assert_eq!(
        cancelled,
        Verdict::Closed(0x108),
        "a push that was never promised"
    );
}

#[test]
fn many_requests_that_are_answered_cost_nothing() {
    let app = counting();
    // 200 frames are held.
    let edge = edge("max_control_frame_rate = \"10/s\"", &app);
    let mut connection = Client::new().connect(edge.https());
    for _ in 0..20 {
        let asks = vec![Ask::get("/"); 40];
        for reply in connection.ask_all(&asks) {
            assert_eq!(reply.expect("a reply").status, 200);
        }
    }
    connection.ask(&Ask::post("/", "x".repeat(3_000_000)));
    assert_eq!(connection.connection.close_reason(), None);
}

#[test]
fn connections_and_handshakes_of_one_client_are_counted() {
    let app = counting();
    for (limit, reason) in [
        (
            "max_connection_rate_per_ip = \"1/s\"",
            "max_connection_rate_per_ip",
        ),
        (
            "max_handshake_rate_per_ip = \"1/s\"",
            "max_handshake_rate_per_ip",
        ),
        ("max_connections_per_ip = 10", "max_connections_per_ip"),
    ] {
        let edge = edge(limit, &app);
        let client = Client::new();
        let opened: Vec<_> = (0..30).map(|_| client.try_connect(edge.https())).collect();
        let count = opened.iter().filter(|it| it.is_ok()).count();
        assert!((3..25).contains(&count), "{reason}: {count} of 30");
        assert!(edge.metric(&refused(reason)) >= 5.0, "{reason}");
    }
}
