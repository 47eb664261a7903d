//! The service alone in front of a real tree: the suite, and what only a front can do.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use static_server::serve::serve;
use static_server::{Site, SiteSettings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub mod suite;

/// A running service and the way to end it.
struct Front {
    addr: SocketAddr,
    end: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

async fn front(root: &Path, fallback: Option<&str>) -> Front {
    let mut settings = SiteSettings::new(root);
    settings.fallback = fallback.map(str::to_owned);
    settings.max_memory_file = suite::MAX_MEMORY_FILE;
    settings.cache_control = Some(suite::CACHE_CONTROL.parse().unwrap());
    let site = Arc::new(Site::new(settings).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (end, ended) = oneshot::channel();
    let task = tokio::spawn(serve(listener, site, async {
        let _ = ended.await;
    }));
    Front { addr, end, task }
}

/// Runs every case twice: once read anew, once from memory.
async fn run_all(addr: SocketAddr, cases: Vec<suite::Case>) {
    let wrong = tokio::task::spawn_blocking(move || {
        suite::warm(addr).unwrap();
        let twice = cases.iter().chain(&cases);
        twice
            .filter_map(|case| suite::run(addr, case).err())
            .collect::<Vec<_>>()
    });
    let wrong = wrong.await.unwrap();
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_case_of_the_suite_is_right() {
    let dir = tempfile::tempdir().unwrap();
    let root = suite::tree(dir.path());
    let cases = suite::cases(&root);
    assert!(cases.len() > 120, "the list was found: {}", cases.len());
    let front = front(&root, None).await;
    run_all(front.addr, cases).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_case_with_a_fallback_is_right() {
    let dir = tempfile::tempdir().unwrap();
    let root = suite::tree(dir.path());
    let front = front(&root, Some("index.html")).await;
    run_all(front.addr, suite::spa_cases(&root)).await;
}

/// Sends `bytes` and reads until the server closes.
async fn exchange(addr: SocketAddr, bytes: &str) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let mut reply = Vec::new();
    let _ = stream.read_to_end(&mut reply).await;
    String::from_utf8_lossy(&reply).into_owned()
}

#[tokio::test]
async fn a_request_without_exactly_one_host_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let front = front(&suite::tree(dir.path()), None).await;
    for hosts in ["", "host: a\r\nhost: a\r\n"] {
        let request = format!("GET / HTTP/1.1\r\n{hosts}connection: close\r\n\r\n");
        let reply = exchange(front.addr, &request).await;
        assert!(reply.starts_with("HTTP/1.1 400 "), "{reply}");
    }
    let reply = exchange(front.addr, "GET / HTTP/1.0\r\n\r\n").await;
    assert!(
        reply.starts_with("HTTP/1.0 200 "),
        "HTTP/1.0 needs none: {reply}"
    );
}

#[tokio::test]
async fn requests_on_one_connection_are_answered_in_turn() {
    let dir = tempfile::tempdir().unwrap();
    let front = front(&suite::tree(dir.path()), None).await;
    let request = "GET /letters.txt HTTP/1.1\r\nhost: a\r\n\r\n\
                   GET /none HTTP/1.1\r\nhost: a\r\n\r\n\
                   OPTIONS * HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let reply = exchange(front.addr, request).await;
    let statuses: Vec<&str> = reply.matches("HTTP/1.1 ").collect();
    assert_eq!(statuses.len(), 3, "{reply}");
    assert!(reply.contains(" 200 OK") && reply.contains(" 404 ") && reply.contains(" 204 "));
    assert!(
        !reply.to_ascii_lowercase().contains("\nserver:"),
        "says nothing of itself"
    );
}

#[tokio::test]
async fn http_2_is_spoken_to_clients_that_know() {
    let dir = tempfile::tempdir().unwrap();
    let front = front(&suite::tree(dir.path()), None).await;
    let stream = TcpStream::connect(front.addr).await.unwrap();
    let io = TokioIo::new(stream);
    let (mut client, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
        .await
        .unwrap();
    let driver = tokio::spawn(connection);
    for (path, status, len) in [
        ("/letters.txt", 200, 26),
        ("/none", 404, 14),
        ("/big.bin", 200, 3_145_745),
    ] {
        let request = http::Request::get(format!("http://{}{path}", front.addr));
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        let reply = client.send_request(request).await.unwrap();
        assert_eq!(reply.status(), status, "{path}");
        let body = reply.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body.len(), len, "{path}");
    }
    driver.abort();
}

#[tokio::test]
async fn a_file_that_changes_while_it_is_sent_breaks_the_transfer_off() {
    let dir = tempfile::tempdir().unwrap();
    let root = suite::tree(dir.path());
    let path = root.join("huge.bin");
    fs::write(&path, vec![b'a'; 32 * 1_024 * 1_024]).unwrap();
    let front = front(&root, None).await;
    let mut stream = TcpStream::connect(front.addr).await.unwrap();
    let request = "GET /huge.bin HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut first = [0; 1_024];
    stream.read_exact(&mut first).await.unwrap();

    fs::write(&path, vec![b'b'; 32 * 1_024 * 1_024]).unwrap();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    assert!(
        rest.len() < 32 * 1_024 * 1_024,
        "the transfer must not look complete"
    );
    assert!(!rest.contains(&b'b'), "two states must not be mixed");
}

#[tokio::test]
async fn a_file_replaced_by_renaming_is_sent_to_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let root = suite::tree(dir.path());
    let len = 32 * 1_024 * 1_024;
    fs::write(root.join("huge.bin"), vec![b'a'; len]).unwrap();
    let front = front(&root, None).await;
    let mut stream = TcpStream::connect(front.addr).await.unwrap();
    let request = "GET /huge.bin HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut reply = vec![0; 1_024];
    stream.read_exact(&mut reply).await.unwrap();

    fs::write(root.join("huge.new"), vec![b'b'; len]).unwrap();
    fs::rename(root.join("huge.new"), root.join("huge.bin")).unwrap();
    stream.read_to_end(&mut reply).await.unwrap();
    let body = reply.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
    assert_eq!(reply.len() - body, len);
    assert!(
        reply[body..].iter().all(|byte| *byte == b'a'),
        "the old file to its end"
    );
}

#[tokio::test]
async fn the_end_waits_for_what_is_in_flight_and_takes_nothing_new() {
    let dir = tempfile::tempdir().unwrap();
    let root = suite::tree(dir.path());
    fs::write(root.join("huge.bin"), vec![b'a'; 32 * 1_024 * 1_024]).unwrap();
    let front = front(&root, None).await;
    let mut stream = TcpStream::connect(front.addr).await.unwrap();
    let request = "GET /huge.bin HTTP/1.1\r\nhost: a\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut reply = vec![0; 1_024];
    stream.read_exact(&mut reply).await.unwrap();
    let mut idle = TcpStream::connect(front.addr).await.unwrap();
    idle.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    idle.read_exact(&mut [0; 12]).await.unwrap();

    front.end.send(()).unwrap();
    stream.read_to_end(&mut reply).await.unwrap();
    assert!(
        reply.len() > 32 * 1_024 * 1_024,
        "the answer came to its end"
    );
    let _ = idle.read_to_end(&mut Vec::new()).await;
    front.task.await.unwrap();
    assert!(
        TcpStream::connect(front.addr).await.is_err(),
        "nobody listens any more"
    );
}

#[tokio::test(start_paused = true)]
async fn a_head_that_does_not_come_to_its_end_ends_the_connection() {
    let dir = tempfile::tempdir().unwrap();
    let front = front(&suite::tree(dir.path()), None).await;
    for start in ["", "GET", "PRI * HTT", "GET / HTTP/1.1\r\nhost: a\r\nx: "] {
        let reply = exchange(front.addr, start).await;
        assert!(!reply.contains(" 200 "), "{start:?} got {reply}");
    }
}
