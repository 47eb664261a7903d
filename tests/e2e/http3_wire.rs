//! What clients of HTTP/3 may not say, and what becomes of those who do.

use crate::support::h3::{Bare, Client, DATA, GOAWAY, HEADERS, SETTINGS, Verdict, frame, headers};
use crate::support::{Answer, Ask, Edge, Origin, Setup, wait};

const GET: [(&str, &str); 4] = [
    (":method", "GET"),
    (":scheme", "https"),
    (":authority", "shop.test"),
    (":path", "/"),
];

fn edge() -> (Origin, Edge) {
    let app = Origin::start(|seen| Answer::ok(format!("{} {}", seen.method, seen.body.len())));
    let edge = Setup::new().with("APP", app.address).start(
        r#"
        [[listener]]
        name = "secure"
        address = "@HTTPS@"
        tls = true
        protocols = ["h1", "h2", "h3"]
        limits = { max_header_size = "8KiB" }
        [upstream.app]
        endpoints = ["@APP@"]
        [[route]]
        upstream = "app"
        "#,
    );
    (app, edge)
}

/// A connection with a control stream.
fn open(client: &Client, edge: &Edge) -> (Bare, quinn::SendStream) {
    let bare = client.bare(edge.https());
    let control = bare.open_uni(&[&[0][..], &frame(SETTINGS, &[])].concat());
    (bare, control)
}

fn with(more: &[(&str, &str)]) -> Vec<u8> {
    headers(&[&GET[..], more].concat())
}

fn instead(name: &str, value: &str) -> Vec<u8> {
    headers(&GET.map(|field| match field.0 == name {
        true => (name, value),
        false => field,
    }))
}

fn without(name: &str) -> Vec<u8> {
    let kept: Vec<_> = GET.into_iter().filter(|field| field.0 != name).collect();
    headers(&kept)
}

#[test]
fn an_ordinary_request_by_hand_is_served() {
    let (app, edge) = edge();
    let client = Client::new();
    let (bare, _control) = open(&client, &edge);
    for request in [
        headers(&GET),
        with(&[("cookie", "a=1"), ("cookie", "b=2"), ("te", "trailers")]),
        with(&[("host", "shop.test")]),
        [without(":authority"), Vec::new()].concat(),
        // Frames that nobody knows (RFC 9114 section 9), and data in several.
        [
            frame(0x21, &[0; 3000]),
            headers(&GET),
            frame(0x2f, b"x"),
            frame(DATA, b"ab"),
            frame(DATA, b""),
            frame(DATA, b"c"),
        ]
        .concat(),
        // Fields behind the body.
        [
            with(&[("content-length", "2")]),
            frame(DATA, b"ab"),
            headers(&[("x-sum", "1")]),
        ]
        .concat(),
    ] {
        let wanted = match request == without(":authority") {
            // Neither an authority nor Host.
            true => Verdict::Status(400),
            false => Verdict::Status(200),
        };
        assert_eq!(
            bare.send(&request, true),
            wanted,
            "{}",
            String::from_utf8_lossy(&request)
        );
    }
    assert_eq!(app.broken(), Vec::<String>::new());
}

#[test]
fn malformed_requests_are_refused_and_reach_no_app() {
    let (app, edge) = edge();
    let client = Client::new();
    let (bare, _control) = open(&client, &edge);
    let post = |length: &str, body: &[u8]| {
        let head = headers(&[
            (":method", "POST"),
            (":scheme", "https"),
            (":authority", "shop.test"),
            (":path", "/"),
            ("content-length", length),
        ]);
        [head, frame(DATA, body)].concat()
    };
    let late = headers(&[GET[0], GET[1], GET[2], ("accept", "*/*"), GET[3]]);
    let forms: Vec<(&str, Vec<u8>)> = vec![
        ("no method", without(":method")),
        ("no scheme", without(":scheme")),
        ("no path", without(":path")),
        ("no host at all", without(":authority")),
        ("method twice", with(&[(":method", "GET")])),
        ("scheme twice", with(&[(":scheme", "https")])),
        ("path twice", with(&[(":path", "/other")])),
        ("authority twice", with(&[(":authority", "shop.test")])),
        ("unknown pseudo-field", with(&[(":x", "1")])),
        ("status in a request", with(&[(":status", "200")])),
        ("protocol", with(&[(":protocol", "websocket")])),
        ("pseudo-field behind a field", late),
        ("CONNECT", instead(":method", "CONNECT")),
        ("method of two words", instead(":method", "GET x")),
        ("empty path", instead(":path", "")),
        ("path without a slash", instead(":path", "page")),
        ("path with a fragment", instead(":path", "/a#b")),
        ("path with a space", instead(":path", "/a b")),
        ("path with a line end", instead(":path", "/a\r\nx: y")),
        ("path above the root", instead(":path", "/../a")),
        ("scheme of something else", instead(":scheme", "ftp")),
        (
            "authority with userinfo",
            instead(":authority", "a@shop.test"),
        ),
        ("empty authority", instead(":authority", "")),
        ("authority that is none", instead(":authority", "shop test")),
        ("another host", with(&[("host", "other.test")])),
        (
            "host twice",
            with(&[("host", "shop.test"), ("host", "shop.test")]),
        ),
        ("capital letters in a name", with(&[("X-Name", "1")])),
        ("empty name", with(&[("", "1")])),
        ("space in a name", with(&[("x y", "1")])),
        ("CR LF in a value", with(&[("x", "a\r\ny: b")])),
        ("LF in a value", with(&[("x", "a\nb")])),
        ("NUL in a value", with(&[("x", "a\0b")])),
        ("space before a value", with(&[("x", " a")])),
        ("connection", with(&[("connection", "close")])),
        (
            "transfer-encoding",
            with(&[("transfer-encoding", "chunked")]),
        ),
        ("upgrade", with(&[("upgrade", "websocket")])),
        ("keep-alive", with(&[("keep-alive", "timeout=1")])),
        ("proxy-connection", with(&[("proxy-connection", "close")])),
        ("te", with(&[("te", "gzip")])),
        ("content-length that is no number", post("+1", b"a")),
        (
            "content-length twice",
            with(&[("content-length", "0"), ("content-length", "0")]),
        ),
        ("more than announced", post("1", b"ab")),
        ("less than announced", post("3", b"ab")),
        (
            "GET with less than announced",
            with(&[("content-length", "3")]),
        ),
        ("too many fields", with(&[("x", "y"); 130])),
    ];
    for (what, octets) in &forms {
        let verdict = bare.send(octets, true);
        assert!(verdict.is_refusal(), "{what}: {verdict:?}");
        let survives = !matches!(verdict, Verdict::Closed(_));
        assert!(
            survives,
            "{what}: it is the request's fault alone, not {verdict:?}"
        );
    }
    assert_eq!(bare.send(&headers(&GET), true), Verdict::Status(200));
    let reached: Vec<_> = app.seen().iter().map(|seen| seen.raw.clone()).collect();
    assert_eq!(reached.len(), 1, "{reached:#?}");
    assert_eq!(app.broken(), Vec::<String>::new());
    edge.await_metric(
        r#"tidegate_requests_rejected_total{listener="secure",reason="pseudo_field"}"#,
        10.0,
    );
}

#[test]
fn heads_that_are_too_large_get_431_and_are_not_held() {
    let (_app, edge) = edge();
    let client = Client::new();
    let (bare, _control) = open(&client, &edge);
    let large = with(&[("x-large", &"x".repeat(9000))]);
    assert_eq!(bare.send(&large, true), Verdict::Status(431));
    // By their overhead of 32 octets each (RFC 9114 section 4.2.2).
    let many = with(&[("x", "y"); 250]);
    assert_eq!(bare.send(&many, true), Verdict::Status(431));
    // A frame that says that it is huge: it is not waited for.
    let mut huge = frame(HEADERS, &[]);
    huge[4..].copy_from_slice(&(0x8000_0000_u32 | 0x3fff_0000).to_be_bytes());
    huge.extend_from_slice(&[0; 4000]);
    assert_eq!(bare.send(&huge, false), Verdict::Status(431));
    let trailers = [
        headers(&GET),
        frame(DATA, b"x"),
        headers(&[("x", &"x".repeat(9000))]),
    ]
    .concat();
    assert!(bare.send(&trailers, true).is_refusal());
    assert_eq!(bare.send(&headers(&GET), true), Verdict::Status(200));
}

#[test]
fn frames_out_of_place_end_the_connection() {
    let (_app, edge) = edge();
    let client = Client::new();
    for (what, octets, end, code) in [
        ("data first", frame(DATA, b"x"), true, 0x105),
        ("settings on a request", frame(SETTINGS, &[]), true, 0x105),
        (
            "goaway on a request",
            [headers(&GET), frame(GOAWAY, &[0])].concat(),
            true,
            0x105,
        ),
        ("push promise", frame(0x5, &[0]), true, 0x105),
        ("a frame of HTTP/2", frame(0x8, &[0, 0, 0, 1]), true, 0x105),
        (
            "a frame that is cut",
            [headers(&GET), frame(DATA, b"abc")[..9].to_vec()].concat(),
            true,
            0x106,
        ),
        (
            "a head that is cut",
            headers(&GET)[..20].to_vec(),
            true,
            0x106,
        ),
        (
            "data behind trailers",
            [
                headers(&GET),
                frame(DATA, b"x"),
                headers(&[("x", "y")]),
                frame(DATA, b"x"),
            ]
            .concat(),
            true,
            0x105,
        ),
        (
            "a reference to no table",
            frame(HEADERS, &[0, 0, 0x80]),
            true,
            0x200,
        ),
        (
            "an insert count",
            frame(HEADERS, &[1, 0, 0xc0]),
            true,
            0x200,
        ),
    ] {
        let (bare, _control) = open(&client, &edge);
        bare.send(&octets, end);
        assert_eq!(bare.await_close(), Verdict::Closed(code), "{what}");
    }
}

#[test]
fn streams_beside_requests_are_what_they_must_be() {
    let (_app, edge) = edge();
    let client = Client::new();
    let settings = frame(SETTINGS, &[]);
    for (what, octets, code) in [
        (
            "no settings first",
            [&[0][..], &frame(GOAWAY, &[0])].concat(),
            0x10a,
        ),
        (
            "settings twice",
            [&[0][..], &settings, &settings].concat(),
            0x105,
        ),
        (
            "a setting of HTTP/2",
            [&[0][..], &frame(SETTINGS, &[2, 0])].concat(),
            0x109,
        ),
        (
            "data on it",
            [&[0][..], &settings, &frame(DATA, b"x")].concat(),
            0x105,
        ),
        (
            "a frame without end",
            [&[0][..], &settings, &[0x7, 0xbf, 0xff, 0xff, 0xff][..]].concat(),
            0x107,
        ),
        (
            "goaway that grows",
            [
                &[0][..],
                &settings,
                &frame(GOAWAY, &[0]),
                &frame(GOAWAY, &[4]),
            ]
            .concat(),
            0x108,
        ),
        ("a push by a client", vec![1, 0], 0x103),
        (
            "an entry for the table",
            vec![2, 0x41, b'a', 1, b'b'],
            0x201,
        ),
    ] {
        let bare = client.bare(edge.https());
        let _stream = bare.open_uni(&octets);
        assert_eq!(bare.await_close(), Verdict::Closed(code), "{what}");
    }
    let (bare, _control) = open(&client, &edge);
    let _second = bare.open_uni(&[&[0][..], &settings].concat());
    assert_eq!(
        bare.await_close(),
        Verdict::Closed(0x103),
        "a second control stream"
    );
    let (bare, mut control) = open(&client, &edge);
    control.finish().unwrap();
    assert_eq!(
        bare.await_close(),
        Verdict::Closed(0x104),
        "a control stream that ends"
    );
    let (bare, _control) = open(&client, &edge);
    let _unknown = bare.open_uni(&[0x21, 1, 2, 3]);
    let _none = bare.open_uni(&[2, 0x20]);
    assert_eq!(
        bare.send(&headers(&GET), true),
        Verdict::Status(200),
        "others are borne"
    );
}

#[test]
fn a_request_that_never_becomes_whole_is_ended() {
    let (app, edge) = edge();
    let client = Client::new();
    let (bare, _control) = open(&client, &edge);
    assert_eq!(
        bare.send(&[], true),
        Verdict::Reset(0x10d),
        "an empty stream"
    );
    assert_eq!(app.seen().len(), 0);
}

#[test]
fn who_sends_many_malformed_requests_is_cut_off() {
    let (_app, edge) = edge();
    let client = Client::new();
    let (bare, _control) = open(&client, &edge);
    let closed = (0..300).find_map(|_| match bare.send(&without(":path"), true) {
        Verdict::Closed(code) => Some(code),
        _ => None,
    });
    assert_eq!(closed, Some(0x107));
}

#[test]
fn who_gives_every_request_up_is_cut_off() {
    let gate = crate::support::Gate::default();
    let held = gate.clone();
    let app = Origin::start(move |_| Answer::ok("late").when(&held));
    let edge = Setup::new().with("APP", app.address).start(
        r#"
        [[listener]]
        name = "secure"
        address = "@HTTPS@"
        tls = true
        protocols = ["h1", "h2", "h3"]
        [upstream.app]
        endpoints = ["@APP@"]
        [[route]]
        upstream = "app"
        "#,
    );
    let client = Client::new();
    let mut connection = client.connect(edge.https());
    wait::eventually("it is cut off", wait::secs(20), || {
        if connection.connection.close_reason().is_some() {
            return true;
        }
        let request = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            connection.begin(&Ask::get("/x"))
        }));
        if let Ok(mut stream) = request {
            stream.stop_sending(h3::error::Code::H3_REQUEST_CANCELLED);
            stream.stop_stream(h3::error::Code::H3_REQUEST_CANCELLED);
        }
        false
    });
    gate.open();
    let quinn::ConnectionError::ApplicationClosed(close) = connection.await_close() else {
        panic!("closed by the server");
    };
    assert_eq!(close.error_code.into_inner(), 0x107);
}
