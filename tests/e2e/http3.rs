//! HTTP/3 beside TCP: what it serves, how it is announced, early data, and the limits of a request.

use std::convert::Infallible;
use std::future::ready;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Buf, Bytes};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{HeaderMap, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::net::TcpListener;

use crate::support::h3::{Client, narrow};
use crate::support::{Answer, Ask, Conn, Edge, Gate, H2, Origin, Setup, ports, runtime, wait};

/// A shop with HTTP/3. `more` goes to the listener.
pub(crate) fn shop(app: &Origin, more: &str) -> Edge {
    setup(app).start(&config(more))
}

pub(crate) fn setup(app: &Origin) -> Setup {
    Setup::new()
        .with("APP", app.address)
        .file("public/page.html", "<p>a file</p>")
        .file("public/large.bin", pattern(3 * 1024 * 1024))
}

pub(crate) fn config(more: &str) -> String {
    format!(
        r#"
        [log]
        access = {{ path = "access.log", format = "json" }}
        [[listener]]
        name = "secure"
        address = "@HTTPS@"
        tls = true
        {more}
        [[listener]]
        name = "plain"
        address = "@HTTP@"
        [upstream.app]
        endpoints = ["@APP@"]
        [static.files]
        root = "public"
        [[route]]
        name = "files"
        match = {{ path_prefix = "/files" }}
        static = "files"
        strip_prefix = "/files"
        [[route]]
        name = "cached"
        match = {{ path_prefix = "/cached" }}
        upstream = "app"
        cache = {{}}
        early_hints = {{ links = ["</app.css>; rel=preload; as=style"], learn = false }}
        [[route]]
        name = "fixed"
        match = {{ path = "/fixed" }}
        respond = {{ body = "fixed" }}
        [[route]]
        name = "app"
        upstream = "app"
        "#
    )
}

pub(crate) const H3: &str = r#"protocols = ["h1", "h2", "h3"]"#;

fn pattern(length: usize) -> Vec<u8> {
    (0..length)
        .map(|at| u8::try_from(at % 251).unwrap())
        .collect()
}

/// An app that says what it got.
pub(crate) fn app() -> Origin {
    Origin::start(|seen| match seen.target.as_str() {
        "/cached/page" => Answer::fresh(60, "stored").field("Alt-Svc", "h3=\":9\""),
        "/large" => Answer::ok(pattern(5 * 1024 * 1024)),
        "/sum" => Answer::ok(seen.body.len().to_string()),
        "/alt" => Answer::ok("alt").field("Alt-Svc", "h2=\"old.example:443\""),
        "/early" => Answer::new(425, "not yet"),
        _ => Answer::ok(format!("{} {}", seen.method, seen.target)),
    })
}

/// The access log's lines once there are so many.
fn lines(edge: &Edge, least: usize) -> Vec<Value> {
    wait::until("lines in the access log", wait::SOON, || {
        let text = std::fs::read_to_string(edge.folder().join("access.log")).ok()?;
        let lines: Vec<Value> = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        (lines.len() >= least).then_some(lines)
    })
}

#[test]
fn every_kind_of_reply_comes_over_http3_and_is_logged_as_such() {
    let app = app();
    let edge = shop(&app, H3);
    let mut client = Client::new().connect(edge.https());
    assert_eq!(
        client.ask(&Ask::get("/a?b=c")).expect(200).text(),
        "GET /a?b=c"
    );
    assert_eq!(client.ask(&Ask::get("/fixed")).expect(200).text(), "fixed");
    assert_eq!(
        client.ask(&Ask::get("/files/page.html")).expect(200).text(),
        "<p>a file</p>"
    );
    assert_eq!(
        client.ask(&Ask::get("/files/none")).expect(404).version,
        "HTTP/3.0"
    );
    let head = client.ask(&Ask::head("/cached/page")).expect(200);
    assert_eq!(
        (head.field("content-length"), &head.body[..]),
        (Some("6"), &b""[..])
    );
    assert_eq!(
        client.ask(&Ask::post("/sum", "four")).expect(200).text(),
        "4"
    );
    let post = app.last();
    assert_eq!(post.field("host"), Some("shop.test"));
    assert_eq!(post.field("x-forwarded-proto"), Some("https"));
    assert_eq!(post.field("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(post.field("content-length"), Some("4"));
    for line in lines(&edge, 6) {
        assert_eq!(
            (&line["protocol"], &line["tls"]),
            (&"HTTP/3.0".into(), &"TLSv1.3".into()),
            "{line}"
        );
        assert_eq!(line["host"], "shop.test");
    }
    assert_eq!(app.broken(), Vec::<String>::new());
    assert!(edge.metric(r#"tidegate_tls_handshakes_total{listener="secure",result="ok"}"#) >= 1.0);
}

#[test]
fn a_page_is_stored_for_all_versions_of_http() {
    let app = app();
    let edge = shop(&app, H3);
    edge.ask(&Ask::get("/cached/page")).expect(200);
    let mut client = Client::new().connect(edge.https());
    let reply = client.ask(&Ask::get("/cached/page")).expect(200);
    assert!(!reply.is_hit(), "another scheme is another page");
    assert!(client.ask(&Ask::get("/cached/page")).expect(200).is_hit());
    assert!(
        H2::tls(edge.https(), "shop.test")
            .ask(&Ask::get("/cached/page"))
            .is_hit()
    );
}

#[test]
fn large_bodies_go_up_and_down_whole() {
    let app = app();
    let edge = shop(&app, H3);
    let mut client = Client::new().connect(edge.https());
    assert_eq!(
        client.ask(&Ask::get("/large")).expect(200).body,
        pattern(5 * 1024 * 1024)
    );
    let file = client.ask(&Ask::get("/files/large.bin")).expect(200);
    assert_eq!(file.body, pattern(3 * 1024 * 1024));
    let upload = pattern(6 * 1024 * 1024);
    let reply = client.ask(&Ask::post("/sum", upload.clone())).expect(200);
    assert_eq!(reply.text(), upload.len().to_string());
    let many: Vec<Ask> = (0..60).map(|n| Ask::get(&format!("/{n}"))).collect();
    for (n, reply) in client.ask_all(&many).into_iter().enumerate() {
        assert_eq!(reply.unwrap().text(), format!("GET /{n}"));
    }
    assert_eq!(app.broken(), Vec::<String>::new());
}

#[test]
fn a_client_that_reads_slowly_does_not_fill_the_memory() {
    let app = Origin::start(|_| Answer::ok(vec![b'x'; 64 * 1024 * 1024]));
    let edge = shop(&app, H3);
    let before = edge.peak_memory();
    let client = Client::with(narrow(64 * 1024));
    let mut connection = client.connect(edge.https());
    let mut streams: Vec<_> = (0..4).map(|_| connection.begin(&Ask::get("/x"))).collect();
    runtime().block_on(async {
        for stream in &mut streams {
            stream.finish().await.unwrap();
        }
        for stream in &mut streams {
            assert_eq!(stream.recv_response().await.unwrap().status(), 200);
            let piece = stream.recv_data().await.unwrap();
            assert!(piece.is_some_and(|piece| piece.remaining() > 0));
        }
    });
    wait::always("little is held for it", wait::secs(1), || {
        edge.peak_memory() - before < 24 * 1024 * 1024
    });
}

#[test]
fn early_hints_come_before_the_reply() {
    let app = app();
    let edge = shop(&app, H3);
    let mut client = Client::new().connect(edge.https());
    let page = Ask::get("/cached/page")
        .field("Accept", "text/html")
        .field("Sec-Fetch-Mode", "navigate");
    assert_eq!(client.ask(&page).expect(200).interim, [103]);
}

#[test]
fn limits_hold_as_they_do_over_tcp() {
    let app = app();
    let edge = shop(
        &app,
        &format!("{H3}\nlimits = {{ max_body_size = \"64KiB\", max_header_size = \"4KiB\" }}"),
    );
    let mut client = Client::new().connect(edge.https());
    client.ask(&Ask::post("/sum", vec![0; 70_000])).expect(413);
    let mut stream = client.begin(&Ask::new("POST", "/sum"));
    let status = runtime().block_on(async {
        // The server may have answered before it is all sent.
        let _ = stream.send_data(vec![0; 200_000].into()).await;
        stream.recv_response().await.unwrap().status()
    });
    assert_eq!(status, 413, "a body of unknown length");
    let fits = Ask::post("/sum", vec![0; 60_000]);
    assert_eq!(client.ask(&fits).expect(200).text(), "60000");
    let error = client.try_ask(&Ask::get("/").field("X-Long", &"x".repeat(5000)));
    assert!(
        error.is_err_and(|error| error.contains("too big")),
        "the client keeps to our settings"
    );
    assert_eq!(
        client.ask(&Ask::get("/after")).expect(200).text(),
        "GET /after"
    );
}

#[test]
fn a_request_that_is_given_up_is_given_up_upstream() {
    let gate = Gate::default();
    let held = gate.clone();
    let app = Origin::start(move |_| Answer::ok("late").when(&held));
    let edge = shop(&app, H3);
    let mut client = Client::new().connect(edge.https());
    let mut stream = client.begin(&Ask::get("/slow"));
    runtime().block_on(async { stream.finish().await.unwrap() });
    wait::eventually("the app is asked", wait::SOON, || {
        app.count_of("/slow") == 1
    });
    stream.stop_sending(h3::error::Code::H3_REQUEST_CANCELLED);
    let line = &lines(&edge, 1)[0];
    assert_eq!(
        (&line["status"], &line["why"]),
        (&Value::from(0), &"client_gone".into()),
        "{line}"
    );
    gate.open();
    assert_eq!(client.ask(&Ask::get("/next")).expect(200).text(), "late");
}

#[test]
fn replies_over_tcp_say_that_http3_is_spoken() {
    let app = app();
    let edge = shop(&app, H3);
    let offer = format!("h3=\":{}\"; ma=86400", edge.https().port());
    let mut h1 = Conn::tls(edge.https(), "shop.test");
    let mut h2 = H2::tls(edge.https(), "shop.test");
    let mut h3 = Client::new().connect(edge.https());
    // The second time it is stored, and answered on the short way where there is one.
    for path in [
        "/cached/page",
        "/cached/page",
        "/alt",
        "/fixed",
        "/files/page.html",
        "/files/none",
        "/files/large.bin",
    ] {
        let ask = Ask::get(path);
        for (protocol, reply) in [("h1", h1.ask(&ask)), ("h2", h2.ask(&ask))] {
            assert_eq!(reply.all("alt-svc"), [offer.as_str()], "{protocol} {path}");
        }
        assert_eq!(h3.ask(&ask).all("alt-svc"), Vec::<&str>::new(), "h3 {path}");
    }
    let plain = edge.ask(&Ask::get("/alt"));
    assert_eq!(
        plain.all("alt-svc"),
        ["h2=\"old.example:443\""],
        "another listener offers nothing of its own"
    );
}

#[test]
fn the_offer_can_be_another_one_or_none() {
    let app = app();
    let edge = shop(&app, &format!("{H3}\nalt_svc = 'h3=\":443\"; ma=60'"));
    let reply = Conn::tls(edge.https(), "shop.test").ask(&Ask::get("/alt"));
    assert_eq!(reply.all("alt-svc"), ["h3=\":443\"; ma=60"]);
    let edge = shop(&app, &format!("{H3}\nalt_svc = false"));
    let reply = Conn::tls(edge.https(), "shop.test").ask(&Ask::get("/alt"));
    assert_eq!(reply.all("alt-svc"), ["h2=\"old.example:443\""]);
    let reply = Conn::tls(edge.https(), "shop.test").ask(&Ask::get("/fixed"));
    assert_eq!(reply.all("alt-svc"), Vec::<&str>::new());
}

/// A client that was here before.
fn returning(edge: &Edge) -> Client {
    let client = Client::new();
    let mut first = client.connect(edge.https());
    first.ask(&Ask::get("/first")).expect(200);
    first.connection.close(0_u32.into(), b"");
    client
}

/// What clients send to `server` through here arrives; what it says to them waits until `open`.
fn one_way(server: SocketAddr, open: Arc<AtomicBool>) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    socket.set_read_timeout(Some(wait::millis(20))).unwrap();
    std::thread::spawn(move || {
        let (mut client, mut held, until) = (None, Vec::new(), wait::now() + wait::secs(20));
        let mut packet = [0; 2000];
        while wait::now() < until {
            match socket.recv_from(&mut packet) {
                Ok((length, from)) if from == server => held.push(packet[..length].to_vec()),
                Ok((length, from)) => {
                    client = Some(from);
                    socket.send_to(&packet[..length], server).unwrap();
                }
                Err(_) => {}
            }
            if let Some(client) = client.filter(|_| open.load(Ordering::SeqCst)) {
                for packet in held.drain(..) {
                    socket.send_to(&packet, client).unwrap();
                }
            }
        }
    });
    address
}

#[test]
fn safe_requests_are_served_from_early_data_and_others_are_not() {
    let app = app();
    let edge = shop(&app, H3);
    let client = returning(&edge);
    // The handshake cannot come to its end before the requests were looked at.
    let open = Arc::new(AtomicBool::new(false));
    let way = one_way(edge.https(), open.clone());
    let (mut early, accepted) = client.connect_early(way).expect("a ticket");
    let asks = [
        Ask::get("/safe"),
        Ask::post("/unsafe", "x"),
        Ask::get("/early"),
    ];
    let replies = std::thread::scope(|scope| {
        let asked = scope.spawn(|| early.ask_all(&asks));
        lines(&edge, 4);
        open.store(true, Ordering::SeqCst);
        asked.join().unwrap()
    });
    let replies: Vec<_> = replies.into_iter().map(Result::unwrap).collect();
    assert!(runtime().block_on(accepted), "early data was taken");
    assert_eq!(
        replies.iter().map(|reply| reply.status).collect::<Vec<_>>(),
        [200, 425, 425]
    );
    assert_eq!(replies[2].text(), "not yet", "an app may refuse it, too");
    let seen = app.seen();
    let of = |target: &str| seen.iter().find(|seen| seen.target == target);
    assert_eq!(of("/first").unwrap().field("early-data"), None);
    assert_eq!(of("/safe").unwrap().field("early-data"), Some("1"));
    assert!(
        of("/unsafe").is_none(),
        "a request that may be a replay changes nothing"
    );
    // The handshake is done by now.
    assert_eq!(early.ask(&Ask::post("/sum", "x")).expect(200).text(), "1");
    assert_eq!(app.last().field("early-data"), None);
}

#[test]
fn early_data_can_be_switched_off() {
    let app = app();
    let edge = shop(&app, &format!("{H3}\nearly_data = false"));
    assert!(returning(&edge).connect_early(edge.https()).is_none());
}

#[test]
fn a_body_is_passed_on_as_it_comes() {
    let app = app();
    let edge = shop(&app, H3);
    let mut connection = Client::new().connect(edge.https());
    let mut stream = connection.begin(&Ask::new("POST", "/sum"));
    runtime().block_on(async {
        for _ in 0..5 {
            stream
                .send_data(Bytes::from_static(b"piece"))
                .await
                .unwrap();
        }
        stream.finish().await.unwrap();
        assert_eq!(stream.recv_response().await.unwrap().status(), 200);
        let mut piece = stream.recv_data().await.unwrap().unwrap();
        assert_eq!(piece.copy_to_bytes(piece.remaining()), "25");
    });
    assert_eq!(app.last().field("transfer-encoding"), Some("chunked"));
    assert_eq!(app.broken(), Vec::<String>::new());
}

/// An app that speaks HTTP/2 and says something behind its body.
fn app_with_trailers(address: SocketAddr) -> tokio::task::JoinHandle<()> {
    let listener = runtime().block_on(TcpListener::bind(address)).unwrap();
    runtime().spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let answer = service_fn(|_: Request<Incoming>| async {
                let mut trailers = HeaderMap::new();
                trailers.insert("x-sum", HeaderValue::from_static("42"));
                let body = Full::new(Bytes::from_static(b"body"));
                let body = body.with_trailers(ready(Some(Ok(trailers))));
                Ok::<_, Infallible>(Response::new(body))
            });
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(server.serve_connection(TokioIo::new(socket), answer));
        }
    })
}

#[test]
fn what_an_app_says_behind_its_body_is_passed_on() {
    let address = ports::free();
    let app = app_with_trailers(address);
    let config = config(H3).replace("[static.files]", "protocol = \"h2\"\n[static.files]");
    let edge = Setup::new()
        .with("APP", address)
        .file("public/page.html", "")
        .start(&config);
    let mut client = Client::new().connect(edge.https());
    let reply = client.ask(&Ask::get("/trailed")).expect(200);
    assert_eq!(
        (reply.text().as_str(), reply.field("x-sum")),
        ("body", Some("42"))
    );
    app.abort();
}

#[test]
fn an_app_is_told_that_a_client_takes_trailers() {
    let app = Origin::start(|seen| Answer::ok(seen.field("te").unwrap_or("-")));
    let edge = shop(&app, H3);
    let mut client = Client::new().connect(edge.https());
    for (te, told) in [("trailers", "trailers"), ("", "-")] {
        let ask = match te {
            "" => Ask::get("/"),
            te => Ask::get("/").field("te", te),
        };
        assert_eq!(client.ask(&ask).expect(200).text(), told);
    }
}
