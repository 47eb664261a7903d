//! Kept connections: what is taken again, what is dropped, and the limits.

mod recent;

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use pingora::http::RequestHeader;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::*;
use crate::upstreams::testing::{dialer, endpoint, later, listen, ok, serve_h1, until};

fn http2(change: impl FnOnce(&mut conf::Upstream)) -> Dialer {
    dialer(|it| {
        it.protocol = conf::UpstreamProtocol::H2;
        change(it);
    })
}

fn count(number: u32) -> Option<NonZeroU32> {
    NonZeroU32::new(number)
}

/// Links of one endpoint, used by several workers.
struct Bench {
    links: Arc<EndpointLinks>,
    dialer: Dialer,
    target: Target,
}

impl Bench {
    fn new(dialer: Dialer, target: Target) -> Self {
        Self {
            links: EndpointLinks::new(2, &Arc::default()),
            dialer,
            target,
        }
    }

    fn purpose(&self) -> Purpose<'_> {
        Purpose {
            dialer: &self.dialer,
            target: &self.target,
            from: None,
        }
    }

    async fn connect(&self, worker: usize, now: Instant) -> Result<Connected, DialError> {
        self.links
            .connect(worker, self.purpose(), Reuse::Any, now)
            .await
    }

    async fn release(&self, worker: usize, connected: Connected, now: Instant) {
        self.links
            .release(worker, &self.dialer, connected.session, now)
            .await;
    }

    /// One whole exchange; whether its connection had served before.
    async fn exchange(&self, worker: usize, now: Instant) -> bool {
        let mut connected = self.connect(worker, now).await.expect("a connection");
        ask(&mut connected.session).await.expect("an answer");
        let reused = connected.reused;
        self.release(worker, connected, now).await;
        reused
    }
}

fn head(method: Method) -> Box<RequestHeader> {
    let mut head = RequestHeader::build(method, b"/", None).unwrap();
    head.insert_header("host", "app.test").unwrap();
    Box::new(head)
}

/// Sends a GET and reads the whole answer.
async fn ask(session: &mut Session) -> pingora::Result<()> {
    let mut head = head(Method::GET);
    if session.is_h2() {
        name_authority(&mut head, false);
    }
    session.write_request_header(head, true).await?;
    session.read_response_header().await?;
    while session.read_response_body().await?.is_some() {}
    Ok(())
}

async fn h1_endpoint() -> Target {
    endpoint(|stream| serve_h1(stream, |_| async { ok("hello") })).await
}

#[tokio::test]
async fn a_worker_takes_its_own_connection_again() {
    let bench = Bench::new(dialer(|_| {}), h1_endpoint().await);
    let now = clock::now();
    assert!(!bench.exchange(0, now).await);
    assert!(bench.exchange(0, now).await, "the same worker");
    assert!(!bench.exchange(1, now).await, "another worker has its own");
    assert_eq!((bench.links.open(), bench.links.idle()), (2, 2));
    let never = bench.links.connect(0, bench.purpose(), Reuse::Never, now);
    assert!(
        !never.await.expect("a connection").reused,
        "none that served"
    );
}

#[tokio::test]
async fn the_connection_used_last_is_taken_first() {
    let bench = Bench::new(dialer(|_| {}), h1_endpoint().await);
    let now = clock::now();
    let mut both = Vec::new();
    for _ in 0..2 {
        let mut connected = bench.connect(0, now).await.unwrap();
        ask(&mut connected.session).await.unwrap();
        both.push(connected);
    }
    let fd = |connected: &Connected| connected.session.stream().unwrap().id();
    let last = fd(&both[1]);
    for connected in both {
        bench.release(0, connected, now).await;
    }
    let again = bench.connect(0, now).await.unwrap();
    assert!(again.reused);
    assert_eq!(fd(&again), last);
}

#[tokio::test]
async fn no_more_than_max_idle_are_kept_for_each_endpoint() {
    let bench = Bench::new(dialer(|it| it.keepalive.max_idle = 1), h1_endpoint().await);
    let now = clock::now();
    let mut both = Vec::new();
    for _ in 0..2 {
        let mut connected = bench.connect(0, now).await.unwrap();
        ask(&mut connected.session).await.unwrap();
        both.push(connected);
    }
    assert_eq!(bench.links.open(), 2);
    for connected in both {
        bench.release(0, connected, now).await;
    }
    assert_eq!((bench.links.open(), bench.links.idle()), (1, 1));
}

#[tokio::test]
async fn a_connection_is_not_used_past_its_time() {
    let bench = Bench::new(
        dialer(|it| {
            it.keepalive.idle_timeout = Duration::from_secs(10);
            it.keepalive.max_age = Some(Duration::from_secs(15));
        }),
        h1_endpoint().await,
    );
    let at = |seconds| later(Duration::from_secs(seconds));
    assert!(!bench.exchange(0, at(0)).await);
    assert!(bench.exchange(0, at(9)).await);
    assert!(bench.exchange(0, at(14)).await, "idle for 5 s, 14 s old");
    assert!(!bench.exchange(0, at(16)).await, "older than max_age");
    assert_eq!(bench.links.open(), 0, "the new one looks as old by then");
    assert!(!bench.exchange(0, at(1)).await);
    bench.links.sweep(&bench.dialer, at(10));
    assert_eq!(bench.links.open(), 1);
    bench.links.sweep(&bench.dialer, at(12));
    assert_eq!(bench.links.open(), 0, "idle for 11 s");
}

#[tokio::test]
async fn a_connection_that_the_endpoint_closed_is_not_taken() {
    // It answers once, as if the connection lived on, and closes.
    let target = endpoint(|stream| async move {
        let stream = stream.into_std().unwrap();
        let mut stream = TcpStream::from_std(stream).unwrap();
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let _ = stream.read(&mut [0; 1024]).await;
        let _ = stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            .await;
    })
    .await;
    let bench = Bench::new(dialer(|_| {}), target);
    let now = clock::now();
    bench.exchange(0, now).await;
    until("the close was seen", || {
        bench.links.sweep(&bench.dialer, now);
        bench.links.idle() == 0
    })
    .await;
    assert!(!bench.exchange(0, now).await);
}

#[tokio::test]
async fn connections_made_with_other_settings_are_dropped() {
    let mut bench = Bench::new(dialer(|_| {}), h1_endpoint().await);
    let now = clock::now();
    bench.exchange(0, now).await;
    bench.dialer = dialer(|it| it.connect_timeout *= 2);
    assert!(bench.exchange(0, now).await, "nothing on the wire changed");
    bench.dialer = http2(|_| {});
    bench.links.sweep(&bench.dialer, now);
    assert_eq!(bench.links.idle(), 0, "HTTP/1.1 is of no use any more");
}

#[tokio::test]
async fn a_connection_with_a_proxy_header_serves_one_client() {
    let target = endpoint(|mut stream| async move {
        use tokio::io::AsyncReadExt;
        let mut line = [0; 15];
        stream.read_exact(&mut line).await.unwrap();
        assert_eq!(&line, b"PROXY UNKNOWN\r\n");
        serve_h1(stream, |_| async { ok("hello") }).await;
    })
    .await;
    let bench = Bench::new(
        dialer(|it| it.proxy_protocol = Some(conf::ProxyVersion::V1)),
        target,
    );
    let now = clock::now();
    assert!(!bench.exchange(0, now).await);
    assert!(!bench.exchange(0, now).await);
    assert_eq!(bench.links.open(), 0, "nothing is kept");
}

#[tokio::test]
async fn what_is_dropped_is_counted_down_and_so_is_what_failed() {
    let bench = Bench::new(dialer(|_| {}), h1_endpoint().await);
    let connected = bench.connect(0, clock::now()).await.unwrap();
    assert_eq!(bench.links.open(), 1);
    drop(connected);
    assert_eq!(bench.links.open(), 0);
    let (gone, target) = listen().await;
    drop(gone);
    let bench = Bench::new(dialer(|_| {}), target);
    let failed = bench.connect(0, clock::now()).await.err();
    assert_eq!(failed, Some(DialError::Refused));
    assert_eq!(bench.links.open(), 0);
}

#[tokio::test]
async fn at_the_limit_an_idle_connection_of_another_worker_gives_way() {
    let bench = Bench::new(
        dialer(|it| it.limits.max_connections = count(2)),
        h1_endpoint().await,
    );
    let now = clock::now();
    let _busy = bench.connect(0, now).await.unwrap();
    bench.exchange(0, now).await;
    assert_eq!((bench.links.open(), bench.links.idle()), (2, 1));
    let connected = bench.connect(1, now).await.expect("room was made");
    assert!(!connected.reused);
    assert_eq!((bench.links.open(), bench.links.idle()), (2, 0));
    let refused = bench.connect(1, now).await.err();
    assert_eq!(refused, Some(DialError::Limit(Limit::Endpoint)));
    drop(connected);
    assert!(bench.connect(1, now).await.is_ok());
}

#[tokio::test]
async fn at_the_limit_of_all_an_idle_connection_to_another_endpoint_gives_way() {
    let dialer = dialer(|it| it.limits.max_total_connections = count(2));
    let upstream: Arc<UpstreamLinks> = Arc::default();
    let target = h1_endpoint().await;
    let [one, other] = [0, 1].map(|_| EndpointLinks::new(2, &upstream));
    let purpose = Purpose {
        dialer: &dialer,
        target: &target,
        from: None,
    };
    let now = clock::now();
    let mut connected = one.connect(1, purpose, Reuse::Any, now).await.unwrap();
    ask(&mut connected.session).await.unwrap();
    one.release(1, &dialer, connected.session, now).await;
    let _busy = one.connect(0, purpose, Reuse::Any, now).await.unwrap();
    assert_eq!((upstream.open(), one.idle()), (2, 1));
    let _second = other
        .connect(0, purpose, Reuse::Any, now)
        .await
        .expect("room");
    assert_eq!((upstream.open(), one.idle()), (2, 0));
    let refused = other.connect(0, purpose, Reuse::Any, now).await.err();
    assert_eq!(refused, Some(DialError::Limit(Limit::Upstream)));
    assert_eq!(other.open(), 1, "what was not made is not counted");
}

#[tokio::test]
async fn dropping_the_links_of_an_endpoint_closes_what_is_idle() {
    let bench = Bench::new(dialer(|_| {}), h1_endpoint().await);
    let now = clock::now();
    bench.exchange(0, now).await;
    let upstream = bench.links.upstream.clone();
    assert_eq!(upstream.open(), 1);
    bench.links.close_idle();
    assert_eq!(upstream.open(), 0);
    bench.exchange(0, now).await;
    drop(bench);
    assert_eq!(upstream.open(), 0);
}

/// What an HTTP/2 endpoint does with a request.
#[derive(Clone, Copy)]
enum Does {
    Answers,
    Refuses,
    /// Reads the request, says GOAWAY that covers it, and hangs up.
    Breaks,
}

/// An HTTP/2 endpoint that answers a request when `gate` has a permit for it, and counts
/// its connections.
struct H2Endpoint {
    target: Target,
    connections: Arc<AtomicUsize>,
    gate: Arc<tokio::sync::Semaphore>,
}

async fn h2_endpoint(streams: u32, does: Does) -> H2Endpoint {
    let connections = Arc::new(AtomicUsize::new(0));
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let (counted, permits) = (connections.clone(), gate.clone());
    let target = endpoint(move |stream| {
        counted.fetch_add(1, Ordering::SeqCst);
        let permits = permits.clone();
        async move {
            let mut connection = ::h2::server::Builder::new()
                .max_concurrent_streams(streams)
                .handshake::<_, Bytes>(stream)
                .await
                .unwrap();
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                match does {
                    Does::Answers => {
                        let permits = permits.clone();
                        tokio::spawn(async move {
                            permits.acquire().await.unwrap().forget();
                            let _ = respond.send_response(http::Response::new(()), true);
                        });
                    }
                    Does::Refuses => respond.send_reset(::h2::Reason::REFUSED_STREAM),
                    Does::Breaks => {
                        connection.abrupt_shutdown(::h2::Reason::INTERNAL_ERROR);
                    }
                }
            }
        }
    })
    .await;
    H2Endpoint {
        target,
        connections,
        gate,
    }
}

/// Starts `number` requests of worker 0 at once.
fn start(bench: &Arc<Bench>, number: usize) -> Vec<JoinHandle<bool>> {
    (0..number)
        .map(|_| {
            let bench = bench.clone();
            tokio::spawn(async move { bench.exchange(0, clock::now()).await })
        })
        .collect()
}

async fn wait_for(requests: Vec<JoinHandle<bool>>) {
    for request in requests {
        request.await.expect("answered");
    }
}

#[tokio::test]
async fn requests_that_come_at_once_share_one_http_2_connection() {
    let endpoint = h2_endpoint(100, Does::Answers).await;
    let bench = Arc::new(Bench::new(http2(|_| {}), endpoint.target.clone()));
    endpoint.gate.add_permits(20);
    wait_for(start(&bench, 20)).await;
    assert_eq!(endpoint.connections.load(Ordering::SeqCst), 1);
    assert_eq!((bench.links.open(), bench.links.idle()), (1, 1));
    bench.links.close_idle();
    until("it is closed", || bench.links.open() == 0).await;
}

#[tokio::test]
async fn a_connection_takes_no_more_streams_than_allowed() {
    // By our own setting, then by the peer's.
    for (ours, theirs) in [(3, 100), (100, 3)] {
        let endpoint = h2_endpoint(theirs, Does::Answers).await;
        let dialer = http2(|it| it.max_concurrent_streams = count(ours).unwrap());
        let bench = Arc::new(Bench::new(dialer, endpoint.target.clone()));
        let requests = start(&bench, 7);
        until("three connections for seven requests", || {
            endpoint.connections.load(Ordering::SeqCst) == 3 && bench.links.idle() == 0
        })
        .await;
        endpoint.gate.add_permits(7);
        wait_for(requests).await;
        assert_eq!(endpoint.connections.load(Ordering::SeqCst), 3);
    }
}

#[tokio::test]
async fn at_the_limit_streams_run_out_until_one_is_given_back() {
    let endpoint = h2_endpoint(100, Does::Answers).await;
    let dialer = http2(|it| {
        it.max_concurrent_streams = count(1).unwrap();
        it.limits.max_connections = count(1);
    });
    let bench = Arc::new(Bench::new(dialer, endpoint.target.clone()));
    let requests = start(&bench, 1);
    until("it is under way", || bench.links.open() == 1).await;
    tokio::task::yield_now().await;
    let refused = bench.connect(0, clock::now()).await.err();
    assert_eq!(refused, Some(DialError::Limit(Limit::Endpoint)));
    endpoint.gate.add_permits(2);
    wait_for(requests).await;
    assert!(bench.exchange(0, clock::now()).await, "the stream is free");
    let elsewhere = bench.connect(1, clock::now()).await;
    assert!(elsewhere.is_ok(), "the other worker's idle one gave way");
    assert_eq!(bench.links.open(), 1);
}

#[tokio::test]
async fn a_free_stream_is_not_waited_for_behind_a_connection_in_the_making() {
    // The first connection is answered, the next ones are never.
    let (listener, target) = listen().await;
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let permits = gate.clone();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = ::h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            let permits = permits.clone();
            tokio::spawn(async move {
                permits.acquire().await.unwrap().forget();
                let _ = respond.send_response(http::Response::new(()), true);
            });
        }
        drop(listener);
    });
    let dialer = http2(|it| {
        it.max_concurrent_streams = count(1).unwrap();
        it.connect_timeout = Duration::from_secs(30);
    });
    let bench = Arc::new(Bench::new(dialer, target));
    let first = start(&bench, 1);
    until("it is under way", || bench.links.open() == 1).await;
    tokio::task::yield_now().await;
    let turn = bench.links.shelves[0].h2.connecting.lock().await;
    let second = start(&bench, 1);
    tokio::task::yield_now().await;
    gate.add_permits(2);
    wait_for(first).await;
    wait_for(second).await;
    drop(turn);
    assert_eq!(bench.links.open(), 1);
}

#[tokio::test]
async fn those_who_wait_share_a_failure_too() {
    let tries = Arc::new(AtomicUsize::new(0));
    let counted = tries.clone();
    let authority = crate::upstreams::testing::Authority::new();
    let target = endpoint(move |stream| {
        counted.fetch_add(1, Ordering::SeqCst);
        async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            drop(stream);
        }
    })
    .await;
    let dialer = http2(|it| it.tls = Some(crate::upstreams::testing::tls(&authority)));
    let bench = Arc::new(Bench::new(dialer, target));
    let requests: Vec<_> = (0..10)
        .map(|_| {
            let bench = bench.clone();
            tokio::spawn(async move { bench.connect(0, clock::now()).await.err() })
        })
        .collect();
    for request in requests {
        let error = request.await.unwrap();
        assert!(matches!(error, Some(DialError::Tls { .. })), "{error:?}");
    }
    assert_eq!(tries.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn http_2_connections_grow_old_and_idle_too() {
    let endpoint = h2_endpoint(100, Does::Answers).await;
    endpoint.gate.add_permits(10);
    let dialer = http2(|it| {
        it.keepalive.idle_timeout = Duration::from_secs(10);
        it.keepalive.max_age = Some(Duration::from_secs(60));
    });
    let bench = Bench::new(dialer, endpoint.target.clone());
    let at = |seconds| later(Duration::from_secs(seconds));
    assert!(!bench.exchange(0, at(0)).await);
    assert!(bench.exchange(0, at(20)).await);
    bench.links.sweep(&bench.dialer, at(20));
    bench.links.sweep(&bench.dialer, at(29));
    assert_eq!(bench.links.idle(), 1);
    bench.links.sweep(&bench.dialer, at(31));
    assert_eq!(bench.links.idle(), 0, "idle for 11 s");
    assert!(!bench.exchange(0, at(32)).await);
    assert!(!bench.exchange(0, at(93)).await, "older than max_age");
    until("the old ones are closed", || bench.links.open() == 1).await;
}

#[tokio::test]
async fn an_endpoint_that_speaks_no_http_2_is_told_as_that() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    for answer in [
        &b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"[..],
        b"",
    ] {
        let target = endpoint(move |mut stream| async move {
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(answer).await;
        })
        .await;
        let bench = Bench::new(http2(|_| {}), target);
        let error = bench.connect(0, clock::now()).await.err();
        assert_eq!(error, Some(DialError::NotHttp2), "{answer:?}");
        until("it is closed", || bench.links.open() == 0).await;
    }
}

async fn failure_of(does: Does, method: Method) -> Box<pingora::Error> {
    let endpoint = h2_endpoint(100, does).await;
    let bench = Bench::new(http2(|_| {}), endpoint.target);
    let mut connected = bench.connect(0, clock::now()).await.unwrap();
    let Session::H2(h2) = &mut connected.session else {
        panic!("not HTTP/2");
    };
    let mut head = head(method);
    name_authority(&mut head, false);
    h2.write_request_header(head, true).unwrap();
    h2.read_response_header().await.expect_err("no answer")
}

#[tokio::test]
async fn a_refused_stream_was_not_processed() {
    assert!(unprocessed(
        failure_of(Does::Refuses, Method::POST).await.as_ref()
    ));
}

#[tokio::test]
async fn a_connection_that_breaks_may_have_processed_what_it_took() {
    let error = failure_of(Does::Breaks, Method::POST).await;
    assert!(!unprocessed(&error), "{error:?}");
    let error = pingora::Error::new(pingora::ErrorType::ReadTimedout);
    assert!(!unprocessed(&error));
}

#[tokio::test]
async fn a_request_beyond_the_last_that_a_goaway_names_was_not_processed() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let target = endpoint(|mut stream| async move {
        // Empty SETTINGS; the client's preface, SETTINGS and HEADERS are read as they come.
        stream
            .write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0])
            .await
            .unwrap();
        let mut seen = Vec::new();
        // A HEADERS frame on stream 1.
        let headers = |seen: &[u8]| {
            seen.windows(5)
                .any(|it| it[0] == 1 && it[1..] == [5, 0, 0, 0])
        };
        while !headers(&seen) && stream.read_buf(&mut seen).await.unwrap() > 0 {}
        // GOAWAY: last stream 0, NO_ERROR.
        let goaway = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        stream.write_all(&goaway).await.unwrap();
        let _ = stream.read_to_end(&mut seen).await;
    })
    .await;
    let bench = Bench::new(http2(|_| {}), target);
    let mut connected = bench.connect(0, clock::now()).await.unwrap();
    let error = ask(&mut connected.session).await.expect_err("no answer");
    assert!(unprocessed(&error), "{error:?}");
    let next = bench.connect(0, clock::now()).await.unwrap();
    assert!(!next.reused, "the one that goes away takes no request");
}

#[test]
fn addresses_are_told_apart() {
    let address: SocketAddr = "127.0.0.1:80".parse().unwrap();
    assert_eq!(Target::from(address).to_string(), "127.0.0.1:80");
    let unix = Target::Unix("/run/app.sock".into());
    assert_eq!(unix.to_string(), "unix:/run/app.sock");
}
