//! Connections that were in use a moment ago, for requests that cannot be sent again.

use super::*;

/// Whether a request that cannot be sent again goes over a kept connection at `now`.
async fn takes_recent(bench: &Bench, now: Instant) -> bool {
    bench
        .links
        .take(0, &bench.dialer, Reuse::Recent, now)
        .is_some()
}

#[tokio::test]
async fn what_cannot_be_sent_again_takes_what_was_in_use_a_moment_ago() {
    let bench = Bench::new(dialer(|_| {}), h1_endpoint().await);
    let now = clock::now();
    bench.exchange(0, now).await;
    assert!(!takes_recent(&bench, now + RECENT).await, "it may be old");
    assert_eq!(bench.links.idle(), 1, "it stays for others");
    assert!(takes_recent(&bench, now + RECENT / 2).await);
    bench.exchange(0, now).await;
    bench.links.be_careful(now);
    assert!(!takes_recent(&bench, now + RECENT / 2).await);
    assert!(bench.exchange(0, now).await, "others take it");
    let later = now + CAREFUL;
    bench.exchange(0, later).await;
    assert!(takes_recent(&bench, later).await, "it is forgotten");
}

#[tokio::test]
async fn an_endpoint_that_closes_at_once_is_trusted_no_more() {
    // Answers say nothing of the close behind them.
    let target = endpoint(|mut stream| async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let _ = stream.read(&mut [0; 1024]).await;
        let _ = stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            .await;
    })
    .await;
    let bench = Bench::new(dialer(|_| {}), target);
    let now = clock::now();
    bench.exchange(0, now).await;
    // It may have been seen already when the connection was given back.
    until("the end is here", || {
        let mut idle = bench.links.shelves[0].idle();
        idle.back_mut()
            .is_none_or(|last| !last.connection.is_quiet())
    })
    .await;
    assert!(!takes_recent(&bench, now).await);
    assert!(bench.links.is_careful(now));
}

#[tokio::test]
async fn a_connection_that_has_something_left_to_write_is_not_kept() {
    let bench = Bench::new(dialer(|_| {}), h1_endpoint().await);
    for (rest, kept) in [(&b"x"[..], 0), (b"", 1)] {
        let connection = bench.links.dial(0, bench.purpose()).await;
        let mut connection = connection.expect("a connection");
        connection.owe(rest.to_vec());
        let now = clock::now();
        bench.links.put(0, &bench.dialer, connection, now);
        assert_eq!(bench.links.idle(), kept);
    }
}
