//! Checks of every kind against endpoints that are well, and that are not; who
//! is told, and how often.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use ::http::{Method, StatusCode};
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::upstreams::testing::{
    Authority, dialer, endpoint, listen, ok, serve_h1, settings, tls, tls_endpoint, until,
};

/// Long enough for every check of these tests that is to end by itself.
const PATIENCE: Duration = Duration::from_secs(5);

async fn check(dialer: &Dialer, target: &Target, kind: conf::HealthCheckKind) -> String {
    match check::run(dialer, target, &kind, PATIENCE).await {
        Ok(()) => "passed".into(),
        Err(reason) => reason.to_string(),
    }
}

fn http(change: impl FnOnce(&mut conf::HttpCheck)) -> conf::HealthCheckKind {
    let mut check = conf::HttpCheck {
        method: Method::GET,
        path: "/up?deep=1".into(),
        host: None,
        headers: Vec::new(),
        statuses: Vec::new(),
        body: None,
    };
    change(&mut check);
    conf::HealthCheckKind::Http(check)
}

fn body(pattern: &str) -> Option<conf::BodyPattern> {
    Some(conf::BodyPattern(
        regex::bytes::Regex::new(pattern).unwrap(),
    ))
}

/// Answers `status` with `text`.
async fn answering(status: u16, text: &'static str) -> Target {
    endpoint(move |stream| {
        serve_h1(stream, move |_| async move {
            let mut reply = ok(text)?;
            *reply.status_mut() = StatusCode::from_u16(status).unwrap();
            Ok(reply)
        })
    })
    .await
}

#[tokio::test]
async fn the_status_decides() {
    let dialer = dialer(|_| {});
    let (fine, moved, ill) = (
        answering(200, "").await,
        answering(302, "").await,
        answering(503, "").await,
    );
    let any = || http(|_| {});
    assert_eq!(check(&dialer, &fine, any()).await, "passed");
    assert_eq!(check(&dialer, &moved, any()).await, "status 302");
    assert_eq!(check(&dialer, &ill, any()).await, "status 503");
    let chosen = || http(|it| it.statuses = vec![StatusCode::FOUND, StatusCode::NO_CONTENT]);
    assert_eq!(check(&dialer, &moved, chosen()).await, "passed");
    assert_eq!(check(&dialer, &fine, chosen()).await, "status 200");
}

#[tokio::test]
async fn the_body_decides_where_that_is_asked_for() {
    let dialer = dialer(|_| {});
    let target = answering(200, "db: ok, queue: ok").await;
    for (pattern, result) in [
        ("db: ok", "passed"),
        ("queue: ok$", "passed"),
        ("^db: down", "body does not match"),
    ] {
        let kind = http(|it| it.body = body(pattern));
        assert_eq!(check(&dialer, &target, kind).await, result, "{pattern}");
    }
    let long = endpoint(|stream| {
        serve_h1(stream, |_| async {
            ok([&vec![b'x'; 64 * 1024][..], b"end"].concat())
        })
    })
    .await;
    let kind = http(|it| it.body = body("end"));
    let result = check(&dialer, &long, kind).await;
    assert_eq!(result, "body does not match", "the end is past 64 KiB");
    let kind = http(|it| it.body = body("^x+$"));
    assert_eq!(check(&dialer, &long, kind).await, "passed");
}

#[tokio::test]
async fn the_request_is_the_configured_one() {
    let (seen, mut requests) = tokio::sync::mpsc::unbounded_channel();
    let target = endpoint(move |stream| {
        let seen = seen.clone();
        async move {
            let answer = |request: ::http::Request<hyper::body::Incoming>| {
                seen.send(request.into_parts().0).unwrap();
                async { ok("") }
            };
            serve_h1(stream, answer).await;
        }
    })
    .await;
    let dialer = dialer(|_| {});
    let kind = http(|it| {
        it.method = Method::POST;
        it.headers = vec![(
            ::http::HeaderName::from_static("x-check"),
            "deep".parse().unwrap(),
        )];
    });
    assert_eq!(check(&dialer, &target, kind).await, "passed");
    let request = requests.recv().await.unwrap();
    let field = |name| request.headers.get(name).unwrap().to_str().unwrap();
    assert_eq!(request.method, Method::POST);
    assert_eq!(request.uri, "/up?deep=1");
    assert_eq!(field("host"), target.to_string());
    assert_eq!(field("content-length"), "0");
    assert_eq!(field("x-check"), "deep");
    assert_eq!(field("connection"), "close");
    let kind = http(|it| it.host = Some("shop.test".into()));
    assert_eq!(check(&dialer, &target, kind).await, "passed");
    let request = requests.recv().await.unwrap();
    assert_eq!(request.headers["host"], "shop.test");
}

#[tokio::test]
async fn what_is_no_reply_is_told_as_that() {
    let dialer = dialer(|_| {});
    for (reply, result) in [
        (&b"hello?\r\n\r\n"[..], "the reply is no HTTP"),
        (b"", "the connection was closed before the reply"),
        (
            b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
            "passed",
        ),
    ] {
        let target = endpoint(move |mut stream| async move {
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(reply).await;
            let _ = stream.shutdown().await;
        })
        .await;
        assert_eq!(check(&dialer, &target, http(|_| {})).await, result);
    }
}

#[tokio::test]
async fn a_check_that_takes_too_long_has_failed() {
    let (_listener, target) = listen().await;
    let patience = Duration::from_millis(80);
    let result = check::run(&dialer(|_| {}), &target, &http(|_| {}), patience).await;
    assert_eq!(result.unwrap_err().to_string(), "timeout after 80ms");
}

#[tokio::test]
async fn tcp_asks_for_a_connection_and_tls_for_a_handshake() {
    use conf::HealthCheckKind::{Tcp, Tls};
    let authority = Authority::new();
    let plain = dialer(|_| {});
    let encrypted = dialer(|it| it.tls = Some(tls(&authority)));
    let (gone, nobody) = listen().await;
    drop(gone);
    assert_eq!(check(&plain, &nobody, Tcp).await, "connect: refused");
    assert_eq!(check(&encrypted, &nobody, Tls).await, "connect: refused");
    let (_listener, silent) = listen().await;
    assert_eq!(check(&plain, &silent, Tcp).await, "passed");
    assert_eq!(check(&encrypted, &silent, Tcp).await, "passed");

    let speaks = async |change: fn(&mut rcgen::CertificateParams)| {
        let config = authority.server("app.test", &[], false, change);
        tls_endpoint(config, |mut stream| async move {
            let _ = stream.read(&mut [0; 1]).await;
        })
        .await
    };
    let good = speaks(|_| {}).await;
    assert_eq!(check(&encrypted, &good, Tls).await, "passed");
    let old = speaks(|it| it.not_after = rcgen::date_time_ymd(2002, 1, 1)).await;
    assert_eq!(
        check(&encrypted, &old, Tls).await,
        "tls: certificate expired"
    );
    let result = check(&plain, &good, Tls).await;
    assert!(result.contains("no tls settings"), "{result}");
}

/// What a gRPC server answers.
#[derive(Clone, Copy)]
enum Says {
    /// This serving status.
    Serving(u8),
    /// This status in trailers alone.
    Fails(&'static str),
    /// An HTTP status.
    Http(u16),
}

async fn grpc_endpoint(says: Says) -> Target {
    endpoint(move |stream| async move {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            tokio::spawn(async move {
                let (head, mut body) = request.into_parts();
                assert_eq!(head.method, Method::POST);
                assert_eq!(head.uri.path(), "/grpc.health.v1.Health/Check");
                assert_eq!(head.headers["content-type"], "application/grpc");
                assert_eq!(head.headers["te"], "trailers");
                let mut message = Vec::new();
                while let Some(piece) = body.data().await {
                    message.extend_from_slice(&piece.unwrap());
                }
                assert_eq!(message, b"\0\0\0\0\x06\x0A\x04shop");
                let reply = ::http::Response::builder();
                let mut trailers = ::http::HeaderMap::new();
                match says {
                    Says::Serving(status) => {
                        let mut stream = respond.send_response(reply.body(()).unwrap(), false);
                        let stream = stream.as_mut().unwrap();
                        let message = Bytes::copy_from_slice(&[0, 0, 0, 0, 2, 8, status]);
                        stream.send_data(message, false).unwrap();
                        trailers.insert("grpc-status", "0".parse().unwrap());
                        stream.send_trailers(trailers).unwrap();
                    }
                    Says::Fails(status) => {
                        let reply = reply.header("grpc-status", status).body(());
                        respond.send_response(reply.unwrap(), true).unwrap();
                    }
                    Says::Http(status) => {
                        let reply = reply.status(status).body(()).unwrap();
                        respond.send_response(reply, true).unwrap();
                    }
                }
            });
        }
    })
    .await
}

#[tokio::test]
async fn grpc_asks_the_health_service() {
    let dialer = dialer(|_| {});
    for (says, result) in [
        (Says::Serving(1), "passed"),
        (Says::Serving(2), "grpc: NOT_SERVING"),
        (Says::Serving(0), "grpc: UNKNOWN"),
        (
            Says::Fails("5"),
            "grpc status 5: the server does not know the service",
        ),
        (
            Says::Fails("12"),
            "grpc status 12: the server has no health service",
        ),
        (Says::Fails("14"), "grpc status 14"),
        (Says::Http(503), "status 503"),
    ] {
        let target = grpc_endpoint(says).await;
        let kind = conf::HealthCheckKind::Grpc {
            service: "shop".into(),
        };
        assert_eq!(check(&dialer, &target, kind).await, result);
    }
    let kind = conf::HealthCheckKind::Grpc {
        service: String::new(),
    };
    let h1 = answering(200, "").await;
    let result = check(&dialer, &h1, kind).await;
    assert_eq!(result, "http/2: what answers does not speak it");
}

/// An endpoint that counts its connections.
async fn counting() -> (Target, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let target = endpoint(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        async {}
    })
    .await;
    (target, count)
}

/// Who counts what it is told, and holds the endpoint for healthy or not.
struct Pool {
    told: AtomicUsize,
    healthy: AtomicBool,
}

impl Pool {
    fn new(healthy: bool) -> Arc<Self> {
        Arc::new(Self {
            told: AtomicUsize::new(0),
            healthy: AtomicBool::new(healthy),
        })
    }

    fn told(&self) -> usize {
        self.told.load(Ordering::SeqCst)
    }

    fn probe(self: &Arc<Self>, upstream: &str, target: &Target, interval: [u64; 2]) -> Probe {
        let pool = self.clone();
        let settings = settings(|_| {});
        Probe {
            upstream: upstream.to_owned(),
            endpoint: target.to_string(),
            target: target.clone(),
            check: conf::HealthCheck {
                kind: conf::HealthCheckKind::Tcp,
                interval: Duration::from_millis(interval[0]),
                down_interval: Duration::from_millis(interval[1]),
                timeout: PATIENCE,
                unhealthy_after: 3.try_into().unwrap(),
                healthy_after: 2.try_into().unwrap(),
                start_healthy: true,
            },
            dialer: Arc::new(Dialer::new(&settings).unwrap()),
            report: Arc::new(move |_| {
                pool.told.fetch_add(1, Ordering::SeqCst);
                pool.healthy.load(Ordering::SeqCst)
            }),
        }
    }
}

#[tokio::test]
async fn an_endpoint_of_several_upstreams_is_checked_once_and_all_are_told() {
    let (target, connections) = counting().await;
    let (one, other) = (Pool::new(true), Pool::new(true));
    let each = [20, 20];
    let _probers = Probers::start(vec![
        one.probe("one", &target, each),
        other.probe("other", &target, each),
    ]);
    until("five checks", || one.told() >= 5).await;
    assert!(one.told().abs_diff(other.told()) <= 1);
    let made = connections.load(Ordering::SeqCst);
    assert!(made <= one.told() + 1, "{made} for {}", one.told());
}

#[tokio::test]
async fn an_endpoint_that_is_down_is_asked_at_another_pace() {
    let (target, _) = counting().await;
    let pool = Pool::new(false);
    let _probers = Probers::start(vec![pool.probe("app", &target, [3_600_000, 10])]);
    until("some checks", || pool.told() >= 5).await;
    pool.healthy.store(true, Ordering::SeqCst);
    let told = pool.told();
    sleep(Duration::from_millis(200)).await;
    // One may have been under way, and one waited for: the next is an hour away.
    let since = pool.told() - told;
    assert!(since <= 2, "{since}");
}

#[tokio::test]
async fn checks_that_go_on_keep_their_pace_when_the_list_is_handed_in_anew() {
    let (target, connections) = counting().await;
    let (before, after) = (Pool::new(true), Pool::new(true));
    let each = [400, 400];
    let begun = clock::now();
    // So many there may be: a tenth is the most that chance takes off the time between two.
    let most = || 1 + (clock::now() - begun).as_millis() / 360;
    let mut probers = Probers::start(vec![before.probe("app", &target, each)]);
    until("the first check", || before.told() >= 1).await;
    probers.update(vec![after.probe("app", &target, each)]);
    let told = before.told();
    for _ in 0..20 {
        probers.update(vec![after.probe("app", &target, each)]);
        sleep(Duration::from_millis(5)).await;
    }
    until("the next check", || after.told() >= 1).await;
    assert_eq!(before.told(), told, "who left is told no more");
    let made = connections.load(Ordering::SeqCst) as u128;
    assert!(made <= most(), "{made} checks, {} at the most", most());
}

#[tokio::test]
async fn checks_that_are_not_on_the_list_any_more_end() {
    let (target, connections) = counting().await;
    let pool = Pool::new(true);
    let mut probers = Probers::start(vec![pool.probe("app", &target, [10, 10])]);
    until("some checks", || pool.told() >= 3).await;
    let (elsewhere, _) = counting().await;
    probers.update(vec![pool.probe("app", &elsewhere, [10, 10])]);
    sleep(Duration::from_millis(20)).await;
    let made = connections.load(Ordering::SeqCst);
    let told = pool.told();
    until("checks elsewhere", || pool.told() >= told + 3).await;
    assert_eq!(connections.load(Ordering::SeqCst), made);
}

#[test]
fn checks_drift_apart_by_up_to_a_tenth() {
    let second = Duration::from_secs(1);
    assert_eq!(pause(second, Duration::ZERO, 0.0), second);
    assert_eq!(
        pause(second, Duration::ZERO, 1.0),
        Duration::from_millis(900)
    );
    assert_eq!(
        pause(second, Duration::from_millis(300), 0.0),
        Duration::from_millis(700),
        "a period is from start to start"
    );
    assert_eq!(
        pause(second, Duration::from_secs(3), 0.0),
        Duration::from_millis(100),
        "a check that is always late is not repeated without a rest"
    );
}
