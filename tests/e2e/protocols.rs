//! HTTP/1.1 and HTTP/2 as they are meant to be used.

use crate::support::client::HOST;
use crate::support::h2::H2;
use crate::support::{Answer, Ask, Broken, Conn, Edge, Origin, Setup, in_front_of, wait};

/// Says what it got.
fn mirror() -> Origin {
    Origin::start(|seen| {
        let body = format!("{} {} {}", seen.method, seen.target, seen.body.len());
        Answer::ok(body).field("x-connection", &seen.connection.to_string())
    })
}

const APP: &str = r#"
    [upstream.app]
    endpoints = ["@APP@"]
    [[route]]
    name = "all"
    upstream = "app"
"#;

#[test]
fn a_connection_is_kept_for_many_requests_towards_both_sides() {
    let origin = mirror();
    let edge = in_front_of(origin.address);
    let mut conn = edge.plain();
    for nth in 0..20 {
        let reply = conn.ask(&Ask::get(&format!("/{nth}"))).expect(200);
        assert_eq!(reply.text(), format!("GET /{nth} 0"));
    }
    assert!(origin.connections() <= 2, "{}", origin.connections());
    assert_eq!(origin.broken(), Vec::<String>::new());
}

#[test]
fn connection_close_is_kept_to() {
    let origin = mirror();
    let edge = in_front_of(origin.address);
    let mut conn = edge.plain();
    let reply = conn.ask(&Ask::get("/").field("Connection", "close"));
    assert_eq!(reply.expect(200).field("connection"), Some("close"));
    conn.expect_end();
}

#[test]
fn http_1_0_gets_its_answer_and_a_close_unless_it_asks_to_keep() {
    let origin = mirror();
    let edge = in_front_of(origin.address);
    let mut conn = edge.plain();
    conn.send(format!("GET / HTTP/1.0\r\nHost: {HOST}\r\n\r\n"));
    conn.reply().expect(200);
    conn.expect_end();
}

#[test]
fn http_1_0_never_gets_a_chunked_body() {
    let origin = Origin::start(|_| Answer::chunks(&["one", "two"], wait::millis(1)));
    let edge = in_front_of(origin.address);
    let mut conn = edge.plain();
    conn.send(format!("GET / HTTP/1.0\r\nHost: {HOST}\r\n\r\n"));
    let reply = conn.reply().expect(200);
    assert_eq!(reply.field("transfer-encoding"), None);
    assert_eq!(reply.text(), "onetwo");
}

#[test]
fn requests_split_at_every_byte_are_understood() {
    let origin = mirror();
    let edge = in_front_of(origin.address);
    let mut conn = edge.plain();
    for byte in Ask::post("/slow", "abc").bytes() {
        conn.send([byte]);
    }
    assert_eq!(conn.reply().text(), "POST /slow 3");
}

#[test]
fn bodies_go_both_ways_in_every_framing() {
    let origin = Origin::start(|seen| match seen.target.as_str() {
        "/length" => Answer::ok(seen.body.clone()),
        "/chunks" => Answer::chunks(&[&seen.body], wait::millis(0)),
        _ => Answer::until_close(seen.body.clone()),
    });
    let edge = in_front_of(origin.address);
    let body: Vec<u8> = (0..300_000u32).map(|n| n.to_le_bytes()[0]).collect();
    for target in ["/length", "/chunks", "/close"] {
        assert!(
            edge.ask(&Ask::post(target, body.clone())).body == body,
            "{target}"
        );
        let mut conn = edge.tls();
        let mut request =
            format!("POST {target} HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n")
                .into_bytes();
        for piece in body.chunks(7_001) {
            request.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
            request.extend_from_slice(piece);
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"0\r\n\r\n");
        assert!(conn.send(request).reply().body == body, "{target} chunked");
        let mut h2 = H2::tls(edge.https(), HOST);
        assert!(
            h2.ask(&Ask::post(target, body.clone())).body == body,
            "{target} h2"
        );
    }
    assert_eq!(origin.broken(), Vec::<String>::new());
}

#[test]
fn a_chunked_request_leaves_the_connection_usable() {
    let origin = mirror();
    let edge = in_front_of(origin.address);
    let mut conn = edge.plain();
    for _ in 0..3 {
        conn.send(format!(
            "POST /c HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n\
             3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"
        ));
        assert_eq!(conn.reply().expect(200).text(), "POST /c 5");
    }
}

#[test]
fn head_replies_carry_the_length_and_no_body() {
    let origin = Origin::named("twelve bytes");
    let edge = in_front_of(origin.address);
    let mut conn = edge.plain();
    let reply = conn.ask(&Ask::head("/")).expect(200);
    assert_eq!(reply.field("content-length"), Some("12"));
    assert_eq!(conn.ask(&Ask::get("/")).text(), "twelve bytes");
}

#[test]
fn statuses_without_body_leave_the_connection_usable() {
    let origin = Origin::start(|seen| match seen.target.as_str() {
        "/204" => Answer::new(204, ""),
        "/304" => Answer::new(304, "").field("ETag", "\"x\""),
        _ => Answer::ok("next"),
    });
    let edge = in_front_of(origin.address);
    let mut conn = edge.plain();
    conn.ask(&Ask::get("/204")).expect(204);
    conn.ask(&Ask::get("/304").field("If-None-Match", "\"x\""))
        .expect(304);
    assert_eq!(conn.ask(&Ask::get("/")).text(), "next");
}

#[test]
fn expect_100_is_answered_before_the_body_and_never_by_the_first_byte_of_it() {
    let origin = mirror();
    let edge = in_front_of(origin.address);
    let mut conn = edge.plain();
    conn.send(format!(
        "POST /e HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    ));
    assert_eq!(conn.head().unwrap().status, 100);
    conn.send("hello");
    assert_eq!(conn.reply().expect(200).text(), "POST /e 5");
}

#[test]
fn an_unknown_expectation_is_417() {
    let origin = mirror();
    let edge = in_front_of(origin.address);
    let reply = edge.ask(&Ask::get("/").field("Expect", "the-unexpected"));
    assert_eq!(reply.status, 417);
    assert_eq!(origin.count(), 0);
}

#[test]
fn a_body_above_the_limit_is_413_and_the_origin_never_sees_its_end() {
    let origin = mirror();
    let edge = Setup::new().with("APP", origin.address).start(&format!(
        "[limits]\nmax_body_size = \"1KiB\"\n{APP}\n\
         [[route]]\nname = \"big\"\nmatch = {{ path_prefix = \"/big\" }}\n\
         upstream = \"app\"\nmax_body_size = \"10KiB\"\n"
    ));
    let body = vec![b'x'; 2048];
    edge.ask(&Ask::post("/", body.clone())).expect(413);
    edge.ask(&Ask::post("/big/", body.clone())).expect(200);
    assert_eq!(
        H2::tls(edge.https(), HOST)
            .ask(&Ask::post("/", body.clone()))
            .status,
        413
    );
    let mut conn = edge.plain();
    conn.send(format!(
        "POST /c HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n800\r\n"
    ));
    conn.send(&body).send("\r\n0\r\n\r\n");
    conn.reply().expect(413);
    assert_eq!(origin.count_of("/") + origin.count_of("/c"), 0);
}

#[test]
fn hop_by_hop_fields_end_at_the_edge() {
    let origin = Origin::start(|_| {
        Answer::ok("x")
            .field("Connection", "x-hop")
            .field("X-Hop", "secret")
            .field("Keep-Alive", "timeout=5")
            .field("X-End", "stays")
    });
    let edge = in_front_of(origin.address);
    let ask = Ask::get("/")
        .field("Connection", "keep-alive, x-mine")
        .field("X-Mine", "1")
        .field("Keep-Alive", "timeout=5")
        .field("Proxy-Connection", "keep-alive")
        .field("TE", "trailers")
        .field("X-Through", "1");
    let reply = edge.ask(&ask).expect(200);
    assert_eq!(reply.field("x-end"), Some("stays"));
    assert_eq!(reply.field("x-hop"), None);
    assert_eq!(reply.field("keep-alive"), None);
    let seen = origin.last();
    assert_eq!(seen.field("x-through"), Some("1"));
    for gone in ["x-mine", "keep-alive", "proxy-connection", "te"] {
        assert_eq!(seen.field(gone), None, "{gone}: {}", seen.raw);
    }
}

#[test]
fn the_origin_learns_who_asked_for_what_and_how() {
    let origin = mirror();
    let edge = in_front_of(origin.address);
    let spoofed = Ask::get("/")
        .field("X-Forwarded-For", "10.9.9.9")
        .field("X-Forwarded-Proto", "gopher")
        .field("X-Forwarded-Host", "evil.test");
    edge.ask(&spoofed).expect(200);
    let seen = origin.last();
    assert_eq!(seen.field("host"), Some(HOST));
    assert_eq!(
        seen.all("x-forwarded-for"),
        ["127.0.0.1"],
        "nobody is trusted by default"
    );
    assert_eq!(seen.all("x-forwarded-proto"), ["http"]);
    assert_eq!(seen.all("x-forwarded-host"), [HOST]);
    edge.tls().ask(&Ask::get("/")).expect(200);
    assert_eq!(origin.last().field("x-forwarded-proto"), Some("https"));
}

#[test]
fn a_trusted_proxy_is_believed_from_the_right() {
    let origin = mirror();
    let edge = Setup::new().with("APP", origin.address).start(&format!(
        "[server]\ntrusted_proxies = [\"127.0.0.0/8\", \"10.0.0.0/8\"]\n{APP}"
    ));
    let ask = Ask::get("/").field("X-Forwarded-For", "1.1.1.1, 192.0.2.7, 10.0.0.5");
    edge.ask(&ask).expect(200);
    let chain = origin.last().all("x-forwarded-for").join(", ");
    assert!(chain.contains("192.0.2.7"), "{chain}");
    assert!(chain.ends_with("127.0.0.1"), "{chain}");
}

#[test]
fn a_request_id_is_made_sent_upstream_and_returned() {
    let origin = mirror();
    let edge = in_front_of(origin.address);
    let first = edge.get("/").expect(200);
    let id = first.field("x-request-id").expect("an id").to_owned();
    assert_eq!(origin.last().field("x-request-id"), Some(id.as_str()));
    let forged = Ask::get("/").field("X-Request-Id", "forged");
    let second = edge.ask(&forged).expect(200);
    assert_ne!(second.field("x-request-id"), Some(id.as_str()));
    assert_eq!(origin.last().all("x-request-id").len(), 1);
}

#[test]
fn the_edge_does_not_name_itself_and_leaves_the_origins_server_field() {
    let origin = Origin::start(|_| Answer::ok("x").field("Server", "app/1"));
    let edge = in_front_of(origin.address);
    assert_eq!(edge.get("/").all("server"), ["app/1"]);
    let plain = Origin::named("x");
    assert_eq!(in_front_of(plain.address).get("/").field("server"), None);
}

#[test]
fn h2_by_alpn_and_by_prior_knowledge() {
    let origin = mirror();
    let edge = in_front_of(origin.address);
    for mut h2 in [H2::tls(edge.https(), HOST), H2::plain(edge.http())] {
        let reply = h2.ask(&Ask::get("/h2")).expect(200);
        assert_eq!(reply.version, "HTTP/2.0");
        assert_eq!(reply.text(), "GET /h2 0");
    }
    let seen = origin.last();
    assert_eq!(seen.field("host"), Some(HOST), "{}", seen.raw);
}

#[test]
fn a_hundred_streams_at_once_are_each_answered_with_their_own() {
    let origin = mirror();
    let edge = in_front_of(origin.address);
    let asks: Vec<Ask> = (0..100).map(|n| Ask::get(&format!("/{n}"))).collect();
    let replies = H2::tls(edge.https(), HOST).ask_all(&asks);
    for (nth, reply) in replies.into_iter().enumerate() {
        assert_eq!(reply.expect("a reply").text(), format!("GET /{nth} 0"));
    }
}

#[test]
fn cookies_split_by_h2_arrive_as_one_field() {
    let origin = mirror();
    let edge = in_front_of(origin.address);
    let ask = Ask::get("/").field("cookie", "a=1").field("cookie", "b=2");
    H2::tls(edge.https(), HOST).ask(&ask).expect(200);
    assert_eq!(origin.last().all("cookie"), ["a=1; b=2"], "RFC 9113 8.2.3");
}

#[test]
fn a_listener_speaks_only_its_protocols() {
    let origin = mirror();
    let edge = Setup::new().with("APP", origin.address).start(&format!(
        "[[listener]]\nname = \"plain\"\naddress = \"@HTTP@\"\nprotocols = [\"h1\"]\n\
         [[listener]]\nname = \"secure\"\naddress = \"@HTTPS@\"\ntls = true\nprotocols = [\"h2\"]\n{APP}"
    ));
    edge.get("/").expect(200);
    let mut conn = edge.plain();
    let refused = conn.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").read(false);
    assert!(refused.is_err() || refused.is_ok_and(|r| r.status >= 400));
    H2::tls(edge.https(), HOST).ask(&Ask::get("/")).expect(200);
    let config = crate::support::certs::client(&["http/1.1"], rustls::ALL_VERSIONS);
    let refused = Conn::tls_with(edge.https(), HOST, config).map(|mut conn| {
        conn.send(Ask::get("/").bytes());
        conn.read(false)
    });
    assert!(!matches!(refused, Ok(Ok(reply)) if reply.status == 200));
}

#[test]
fn an_upstream_is_spoken_to_by_h2_when_the_file_says_so() {
    let origin = mirror();
    let inner = in_front_of(origin.address);
    let edge = Setup::new().with("APP", inner.http()).start(
        r#"
        [upstream.app]
        endpoints = ["@APP@"]
        protocol = "h2"
        [[route]]
        upstream = "app"
        "#,
    );
    let reply = edge.ask(&Ask::post("/x", "hello")).expect(200);
    assert_eq!(reply.text(), "POST /x 5");
}

#[test]
fn an_upstream_over_tls_is_verified_against_its_ca_and_name() {
    let origin = mirror();
    let inner = in_front_of(origin.address);
    let ca = inner.folder().join("ca.pem").display().to_string();
    let setup = |tls: &str| {
        Setup::new()
            .with("APP", inner.https())
            .with("CA", &ca)
            .start(&format!(
                "[upstream.app]\nendpoints = [\"@APP@\"]\n\
                 outlier_detection = false\ntls = {tls}\n[[route]]\nupstream = \"app\"\n"
            ))
    };
    let right = setup(r#"{ ca = "@CA@", server_name = "shop.test" }"#);
    assert_eq!(right.get("/x").expect(200).text(), "GET /x 0");
    let wrong_name = setup(r#"{ ca = "@CA@", server_name = "other.test" }"#);
    wrong_name.get("/x").expect(502);
    let unknown_authority = setup(r#"{ server_name = "shop.test" }"#);
    unknown_authority.get("/x").expect(502);
    let unverified = setup(r#"{ server_name = "other.test", verify = false }"#);
    unverified.get("/x").expect(200);
}

#[test]
fn a_websocket_passes_through_and_counts_its_bytes() {
    let origin = Origin::start(|_| Answer::websocket());
    let edge = in_front_of(origin.address);
    for mut conn in [edge.plain(), edge.tls()] {
        let ask = Ask::get("/ws")
            .field("Connection", "Upgrade")
            .field("Upgrade", "websocket")
            .field("Sec-WebSocket-Version", "13")
            .field("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(conn.ask(&ask).status, 101);
        assert_eq!(origin.last().field("upgrade"), Some("websocket"));
        let big = vec![b'x'; 200_000];
        assert_eq!(conn.send("ping").exactly(4), Ok(b"ping".to_vec()));
        let echoed = conn.send(&big).exactly(big.len());
        assert!(echoed == Ok(big));
        conn.finish();
        conn.expect_end();
    }
}

#[test]
fn a_refused_upgrade_is_an_ordinary_reply() {
    let origin = Origin::start(|_| Answer::new(403, "no"));
    let edge = in_front_of(origin.address);
    let ask = Ask::get("/ws")
        .field("Connection", "Upgrade")
        .field("Upgrade", "websocket");
    assert_eq!(edge.ask(&ask).expect(403).text(), "no");
}

#[test]
fn a_reply_streams_as_it_comes() {
    let origin = Origin::start(|_| Answer::chunks(&["first", "second"], wait::secs(1)));
    let edge = in_front_of(origin.address);
    let mut conn = edge.plain().patience(wait::millis(700));
    conn.send(Ask::get("/").bytes());
    assert_eq!(conn.head().unwrap().status, 200);
    let first = conn
        .exactly(10)
        .expect("the first chunk before the second is made");
    assert_eq!(first, b"5\r\nfirst\r\n");
}

#[test]
fn a_reply_that_breaks_off_is_never_passed_as_whole() {
    let origin = Origin::start(|seen| match seen.target.as_str() {
        "/length" => Answer::ok("half").short_by(4),
        _ => Answer::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"),
    });
    let edge = in_front_of(origin.address);
    for target in ["/length", "/chunked"] {
        let mut conn = edge.plain();
        let reply = conn.send(Ask::get(target).bytes()).read(false);
        assert!(
            matches!(reply, Err(Broken::Cut(_) | Broken::ClosedSilently))
                || reply.as_ref().is_ok_and(|r| r.status == 502),
            "{target}: {reply:?}"
        );
        assert!(
            H2::tls(edge.https(), HOST)
                .try_ask(&Ask::get(target))
                .map_or(true, |r| r.status == 502)
        );
    }
}

#[test]
fn what_is_no_http_from_upstream_is_502() {
    let origin = Origin::start(|seen| match seen.target.as_str() {
        "/silence" => Answer::raw(""),
        "/ssh" => Answer::raw("SSH-2.0-OpenSSH_9.2\r\n\r\n"),
        "/both" => Answer::raw(
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        "/lengths" => {
            Answer::raw("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab")
        }
        _ => Answer::raw("HTTP/1.1 200 OK\r\nno colon\r\n\r\n"),
    });
    let edge = Setup::new().with("APP", origin.address).start(
        r#"
        [upstream.app]
        endpoints = ["@APP@"]
        outlier_detection = false
        [[route]]
        upstream = "app"
        "#,
    );
    for target in ["/silence", "/ssh", "/lengths", "/nocolon"] {
        let reply = edge.get(target);
        assert_eq!(reply.status, 502, "{target}: {reply:?}");
        assert!(
            reply
                .field("content-type")
                .unwrap()
                .starts_with("text/plain")
        );
        let id = reply.field("x-request-id").expect("an id").to_owned();
        assert!(reply.text().contains(&id), "the error names the request");
    }
}

#[test]
fn a_silent_upstream_is_504_at_its_timeout() {
    let origin = Origin::start(|_| Answer::ok("too late").after(wait::secs(5)));
    let edge = Setup::new().with("APP", origin.address).start(
        r#"
        [upstream.app]
        endpoints = ["@APP@"]
        first_byte_timeout = "300ms"
        retry = { attempts = 1 }
        [[route]]
        upstream = "app"
        "#,
    );
    let started = wait::now();
    edge.get("/").expect(504);
    assert!(started.elapsed() < wait::secs(3), "{:?}", started.elapsed());
    edge.await_metric(
        r#"tidegate_upstream_errors_total{upstream="app",kind="first_byte_timeout"}"#,
        1.0,
    );
}

#[test]
fn requests_on_a_connection_are_bounded_when_the_file_says_so() {
    let origin = mirror();
    let edge = Setup::new()
        .with("APP", origin.address)
        .start(&format!("[limits]\nmax_requests_per_connection = 3\n{APP}"));
    let mut conn = edge.plain();
    conn.ask(&Ask::get("/1")).expect(200);
    conn.ask(&Ask::get("/2")).expect(200);
    let last = conn.ask(&Ask::get("/3")).expect(200);
    assert_eq!(last.field("connection"), Some("close"));
    conn.expect_end();
}

#[test]
fn an_idle_connection_is_closed_at_its_timeout_and_not_before() {
    let origin = mirror();
    let edge = Setup::new()
        .with("APP", origin.address)
        .start(&format!("[limits]\nidle_timeout = \"1s\"\n{APP}"));
    let mut conn = edge.plain();
    conn.ask(&Ask::get("/")).expect(200);
    conn.expect_quiet(wait::millis(600));
    conn.expect_end();
    let mut conn = edge.tls();
    conn.ask(&Ask::get("/")).expect(200);
    conn.expect_end();
}

#[test]
fn connections_above_the_limits_are_refused_and_counted() {
    let origin = mirror();
    let edge = Setup::new()
        .with("APP", origin.address)
        .start(&format!("[limits]\nmax_connections_per_ip = 4\n{APP}"));
    let let_in = || {
        let mut conn = edge.plain();
        let reply = conn.send(Ask::get("/").bytes()).read(false);
        reply.is_ok_and(|reply| reply.status == 200).then_some(conn)
    };
    let mut held: Vec<Conn> = Vec::new();
    // Asked whether it is ready, it connected to itself, from this very address; that may take its
    // place only now.
    wait::eventually("four connections", wait::SOON, || {
        held.extend(let_in());
        held.len() == 4
    });
    let refused = r#"tidegate_connections_refused_total{listener="plain"}"#;
    let before = edge.metric(refused);
    assert!(let_in().is_none(), "a fifth connection was served");
    edge.await_metric(refused, before + 1.0);
    drop(held);
    wait::eventually("room again", wait::SOON, || let_in().is_some());
}

#[test]
fn a_client_that_takes_no_byte_of_its_reply_is_let_go() {
    let origin = Origin::start(|_| Answer::ok(vec![b'x'; 64 << 20]));
    let edge = Setup::new().with("APP", origin.address).start(
        "[limits]\nbody_timeout = \"1s\"\n[upstream.app]\nendpoints = [\"@APP@\"]\n[[route]]\nupstream = \"app\"\n",
    );
    for connect in [Edge::plain, Edge::tls] {
        let mut client = connect(&edge);
        client.send(Ask::get("/").bytes());
        let name = "a connection given up";
        wait::eventually(name, wait::SOON, || origin.count() > 0);
        wait::eventually(name, wait::SOON, || {
            edge.metric("tidegate_requests_active") == 0.0
                && edge.metric("tidegate_connections_active") == 0.0
        });
        drop(client);
    }
}
