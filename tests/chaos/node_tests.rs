//! A node does what it is told, so that what the edge makes of it is the edge's.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use tempfile::TempDir;

use crate::cluster::{Cluster, Entry};
use crate::support::wait;
use crate::wire::{ID_FIELD, NOT_LOAD, ask_once, reply_body};

/// What came until the connection ended or nothing more came, and whether it
/// ended by a reset.
fn ask(node: SocketAddr, path: &str, id: u64) -> (String, bool) {
    let mut stream = TcpStream::connect(node).unwrap();
    stream.set_read_timeout(Some(wait::millis(400))).unwrap();
    let head =
        format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{ID_FIELD}: {id}\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut reply = Vec::new();
    let ended = stream.read_to_end(&mut reply);
    let reset = ended.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset);
    (String::from_utf8_lossy(&reply).into_owned(), reset)
}

pub(crate) fn a_node_fails_as_it_is_told() {
    let folder = TempDir::with_prefix("tidegate-chaos-").unwrap();
    let mut cluster = Cluster::start(folder.path(), 1);
    let node = cluster.addresses()[2];

    let (reply, _) = ask(node, "/work", 1);
    let body = String::from_utf8(reply_body("n2", 1, "GET", b"")).unwrap();
    assert!(reply.starts_with("HTTP/1.1 200 "), "{reply}");
    assert!(reply.ends_with(&body), "{reply}");

    cluster.order(2, "errors 100");
    assert!(ask(node, "/work", 2).0.starts_with("HTTP/1.1 503 "));
    cluster.order(2, "clear");
    cluster.order(2, "head 100");
    let (reply, reset) = ask(node, "/work", 3);
    assert!(reset && !reply.contains("\r\n\r\n"), "{reply:?}");
    cluster.order(2, "clear");
    cluster.order(2, "body 100");
    let (reply, reset) = ask(node, "/work", 4);
    assert!(reset && reply.contains("n2 4 GET"), "{reply:?}");
    cluster.order(2, "clear");

    cluster.order(2, "silent 1");
    assert_eq!(ask(node, "/work", 5).0, "");
    assert!(ask(node, "/healthz", NOT_LOAD).0.contains(" 200 "));
    cluster.order(2, "clear");
    cluster.order(2, "flap 1");
    let checks: Vec<bool> = (0..8)
        .map(|_| ask(node, "/healthz", NOT_LOAD).0.contains(" 200 "))
        .collect();
    assert_eq!(checks.iter().filter(|good| **good).count(), 4, "{checks:?}");
    cluster.order(2, "clear");

    cluster.order(2, "slow 300");
    let before = wait::now();
    assert!(ask(node, "/work", 6).0.contains(" 200 "));
    assert!(before.elapsed() >= Duration::from_millis(300));
    cluster.order(2, "clear");

    cluster.stop(2);
    assert_eq!(ask(node, "/work", 7).0, "", "a stopped node says nothing");
    cluster.go_on(2);
    cluster.kill(3);
    assert!(TcpStream::connect(cluster.addresses()[3]).is_err());
    cluster.up(3);
    assert_eq!(ask_once(cluster.addresses()[3], 1).as_deref(), Some("n3"));

    // All of it was executed, whatever became of the reply, by this node alone.
    let load = cluster.ledgers();
    let load = load.into_iter().filter(|entry| entry.id < NOT_LOAD);
    let expected = (1..=7).map(|id| Entry {
        node: 2,
        id,
        post: false,
    });
    assert_eq!(load.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
}
