//! Habits of the libraries underneath that would bite a user, each undone and
//! held by a test.

use crate::support::client::HOST;
use crate::support::h2::{Frames, H2, Verdict};
use crate::support::{Answer, Ask, Origin, Setup, in_front_of, wait};

#[test]
fn an_h2_body_ended_by_an_empty_frame_does_not_desynchronise_the_pooled_connection() {
    let origin = Origin::start(|seen| Answer::ok(seen.body.clone()));
    let edge = in_front_of(origin.address);
    for nth in 0..10 {
        let mut frames = Frames::open(edge.http());
        let fields = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", "/body"),
            (":authority", HOST),
        ];
        frames.headers(1, &fields, false);
        frames.data(1, b"hello", false);
        frames.data(1, b"", true);
        assert_eq!(frames.verdict(1), Verdict::Status(200), "round {nth}");
        assert_eq!(origin.last().body, b"hello");
        edge.get("/between").expect(200);
    }
    assert_eq!(origin.broken(), Vec::<String>::new());
    assert_eq!(origin.count(), 20);
}

#[test]
fn a_request_shorter_than_the_h2_preface_is_answered() {
    let edge = Setup::new().start("[[route]]\nrespond = { body = \"ok\" }\n");
    let mut conn = edge.plain().patience(wait::secs(2));
    let tiny = "GET / HTTP/1.0\r\n\r\n";
    assert!(tiny.len() < 24);
    // Without Host, so refused, but at once.
    conn.send(tiny).reply().expect(400);
    let mut conn = edge.plain().patience(wait::secs(2));
    let tiny = "GET / HTTP/1.1\r\nHost:a\r\n\r\n";
    for piece in tiny.as_bytes().chunks(5) {
        conn.send(piece);
    }
    conn.reply().expect(200);
}

#[test]
fn a_kept_connection_ends_at_the_idle_timeout_after_any_number_of_requests() {
    let edge = Setup::new()
        .start("[limits]\nidle_timeout = \"500ms\"\n[[route]]\nrespond = { body = \"ok\" }\n");
    let mut conn = edge.plain().patience(wait::secs(5));
    for _ in 0..3 {
        conn.ask(&Ask::get("/"));
    }
    conn.expect_end();
}

#[test]
fn an_h2_connection_that_says_nothing_or_stalls_a_body_is_ended() {
    let origin = Origin::named("x");
    let edge = Setup::new().with("APP", origin.address).start(
        r#"
        [limits]
        header_timeout = "500ms"
        body_timeout = "500ms"
        idle_timeout = "1s"
        [upstream.app]
        endpoints = ["@APP@"]
        [[route]]
        upstream = "app"
        "#,
    );
    let mut half = edge.plain().patience(wait::secs(5));
    half.send("PRI * HTTP/2.0\r\n\r\n");
    assert!(half.read(false).is_err() || half.read(false).is_err());
    let mut frames = Frames::open(edge.http());
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", HOST),
    ];
    frames.headers(1, &fields, false);
    let started = wait::now();
    let verdict = frames.verdict(1);
    assert!(
        verdict.is_refusal() || matches!(verdict, Verdict::Status(500..)),
        "{verdict:?}"
    );
    assert!(started.elapsed() < wait::secs(5), "{:?}", started.elapsed());
    assert_eq!(origin.count(), 0);
}

#[test]
fn a_websocket_that_is_silent_for_more_than_a_minute_stays_open() {
    let origin = Origin::start(|_| Answer::websocket());
    let edge = Setup::new().with("APP", origin.address).start(
        r#"
        [limits]
        idle_timeout = "1s"
        body_timeout = "1s"
        [upstream.app]
        endpoints = ["@APP@"]
        read_timeout = "1s"
        first_byte_timeout = "1s"
        [[route]]
        upstream = "app"
        "#,
    );
    let ask = Ask::get("/ws")
        .field("Connection", "Upgrade")
        .field("Upgrade", "websocket");
    let mut conns = [edge.plain(), edge.tls()];
    for conn in &mut conns {
        assert_eq!(conn.ask(&ask).status, 101);
    }
    wait::hold(wait::secs(63));
    for conn in &mut conns {
        assert_eq!(
            conn.send("still there").exactly(11),
            Ok(b"still there".to_vec())
        );
    }
}

#[test]
fn pipelined_requests_are_all_answered_in_order() {
    let origin = Origin::start(|seen| {
        // The first is the slowest: order must come from the edge.
        Answer::ok(seen.target.clone())
            .after(wait::millis(30u64.saturating_sub(10 * seen.nth as u64)))
    });
    let edge = in_front_of(origin.address);
    for mut conn in [edge.plain(), edge.tls()] {
        let mut bytes = Vec::new();
        for n in 0..8 {
            bytes.extend(Ask::get(&format!("/{n}")).bytes());
            bytes.extend(Ask::post(&format!("/{n}/post"), "body").bytes());
        }
        conn.send(bytes);
        for n in 0..8 {
            assert_eq!(conn.reply().expect(200).text(), format!("/{n}"));
            assert_eq!(conn.reply().expect(200).text(), format!("/{n}/post"));
        }
    }
}

#[test]
fn both_framings_bare_line_feeds_and_spaces_in_targets_are_refused() {
    let origin = Origin::named("x");
    let edge = in_front_of(origin.address);
    for bytes in [
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\nHost: a\n\n",
        "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        let mut conn = edge.plain();
        conn.send(bytes).reply().expect(400);
        conn.expect_end();
    }
    assert_eq!(origin.count(), 0);
}

#[test]
fn http_1_0_without_host_does_not_go_upstream() {
    let origin = Origin::named("x");
    let edge = in_front_of(origin.address);
    edge.plain()
        .send("GET / HTTP/1.0\r\n\r\n")
        .reply()
        .expect(400);
    assert_eq!(origin.count(), 0);
}

#[test]
fn an_interim_reply_from_upstream_never_takes_the_place_of_the_final_one() {
    let origin = Origin::start(|_| {
        Answer::raw(
            "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n\
             HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody",
        )
    });
    let edge = in_front_of(origin.address);
    assert_eq!(edge.get("/").expect(200).text(), "body");
    assert_eq!(
        H2::tls(edge.https(), HOST).ask(&Ask::get("/")).text(),
        "body"
    );
}

#[test]
fn trailers_do_not_break_the_body_they_follow() {
    let origin = Origin::start(|_| {
        Answer::raw(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n\
             4\r\nbody\r\n0\r\nx-sum: 1\r\n\r\n",
        )
    });
    let edge = in_front_of(origin.address);
    assert_eq!(edge.get("/").expect(200).text(), "body");
    assert_eq!(
        H2::tls(edge.https(), HOST).ask(&Ask::get("/")).text(),
        "body"
    );
}

#[test]
fn nothing_is_compressed_for_a_client_that_refuses_it() {
    let page = "word ".repeat(2_000);
    let body = page.clone();
    let origin =
        Origin::start(move |_| Answer::fresh(60, body.clone()).field("Content-Type", "text/html"));
    let edge = Setup::new().with("APP", origin.address).start(
        "[upstream.app]\nendpoints = [\"@APP@\"]\n[[route]]\nupstream = \"app\"\ncache = {}\n",
    );
    for _ in 0..2 {
        let ask = Ask::get("/").field("Accept-Encoding", "gzip;q=0, br;q=0, identity");
        let reply = edge.ask(&ask).expect(200);
        assert_eq!(reply.field("content-encoding"), None);
        assert!(reply.text() == page);
    }
}

#[test]
fn cache_keys_of_different_hosts_schemes_paths_and_queries_never_meet() {
    let origin = Origin::start(|seen| {
        let host = seen.field("host").unwrap_or_default();
        let scheme = seen.field("x-forwarded-proto").unwrap_or_default();
        Answer::fresh(60, format!("{scheme} {host} {}", seen.target))
    });
    let edge = Setup::new().with("APP", origin.address).start(
        "[upstream.app]\nendpoints = [\"@APP@\"]\n[[route]]\nupstream = \"app\"\ncache = {}\n",
    );
    for _ in 0..2 {
        for host in ["shop.test", "shop.tes", "shop.test.x"] {
            for target in [
                "/", "/a", "/a/", "/?a", "/a?", "/a?b", "/a%3Fb", "/A", "/a%2Fb", "/a/b",
            ] {
                let ask = Ask::get(target).host(host);
                let text = edge.ask(&ask).expect(200).text();
                assert!(
                    text.starts_with(&format!("http {host} /")),
                    "{host} {target}: {text}"
                );
                assert!(text.ends_with(target), "{target}: {text}");
            }
        }
        let text = edge.tls().ask(&Ask::get("/a")).text();
        assert!(text.starts_with("https "), "{text}");
    }
}

#[test]
fn an_upstream_that_never_accepts_or_never_speaks_meets_a_timeout_by_default() {
    // A listener that is full: connections hang in SYN.
    let full = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let edge = Setup::new().with("APP", full.local_addr().unwrap()).start(
        r#"
        [upstream.app]
        endpoints = ["@APP@"]
        first_byte_timeout = "1s"
        connect_timeout = "500ms"
        [[route]]
        upstream = "app"
        "#,
    );
    let started = wait::now();
    let reply = edge.get("/");
    assert!(matches!(reply.status, 502..=504), "{reply:?}");
    assert!(started.elapsed() < wait::secs(8), "{:?}", started.elapsed());
}

#[test]
fn many_h2_requests_share_an_upstream_connection() {
    let origin = Origin::start(|_| Answer::ok("x").after(wait::millis(50)));
    let inner = in_front_of(origin.address);
    let edge = Setup::new().with("APP", inner.http()).start(
        "[upstream.app]\nendpoints = [\"@APP@\"]\nprotocol = \"h2\"\n[[route]]\nupstream = \"app\"\n",
    );
    let asks: Vec<Ask> = (0..60).map(|n| Ask::get(&format!("/{n}"))).collect();
    let replies = H2::tls(edge.https(), HOST).ask_all(&asks);
    assert!(
        replies
            .iter()
            .all(|r| r.as_ref().is_ok_and(|r| r.status == 200))
    );
    let connections = inner.metric(r#"tidegate_connections_total{listener="plain"}"#);
    assert!(
        connections <= 12.0,
        "{connections} connections for 60 requests"
    );
}

#[test]
fn verification_of_an_upstream_cannot_be_lost_by_an_empty_name() {
    let setup = Setup::new();
    let file = setup.write(
        "[upstream.app]\nendpoints = [\"127.0.0.1:1\"]\ntls = { server_name = \"\" }\n\
         [[route]]\nupstream = \"app\"\n",
    );
    let mut command = std::process::Command::new(crate::support::edge::binary());
    let said = crate::support::tools::run(command.arg("check").arg(file), wait::SOON);
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.stderr.contains("server_name"), "{said:?}");
}

#[test]
fn a_post_is_never_sent_twice() {
    let origin = Origin::start(|_| Answer::reset());
    let edge = Setup::new().with("APP", origin.address).start(
        r#"
        [upstream.app]
        endpoints = ["@APP@"]
        retry = { attempts = 3 }
        [[route]]
        upstream = "app"
        "#,
    );
    let reply = edge.ask(&Ask::post("/order", "one"));
    assert_eq!(reply.status, 502);
    assert_eq!(origin.count_of("/order"), 1, "the order was placed twice");
}

#[test]
fn a_stale_pooled_connection_fails_neither_get_nor_post() {
    let origin = Origin::start(|seen| Answer::ok(seen.body.clone()).then_close());
    let edge = in_front_of(origin.address);
    // Every reply is followed by an unannounced close: each next request finds
    // a pooled connection that is dead or about to be. That the app does so is known from the
    // second on, which can be sent again: before, a POST may meet the close, and nobody could tell
    // whether the order was placed.
    for _ in 0..2 {
        edge.get("/get").expect(200);
    }
    for nth in 0..30 {
        edge.get("/get").expect(200);
        let reply = edge.ask(&Ask::post("/post", "body"));
        assert_eq!(reply.status, 200, "round {nth}: {}", reply.text());
    }
    assert_eq!(origin.count_of("/post"), 30);
}

#[test]
fn a_malformed_chunk_is_the_clients_error_and_not_ours() {
    let origin = Origin::named("x");
    let edge = in_front_of(origin.address);
    let mut conn = edge.plain();
    conn.send(format!(
        "POST / HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\nab\r\n0\r\n\r\n"
    ));
    conn.reply().expect(400);
    conn.expect_end();
    assert_eq!(origin.count(), 0);
}
