//! What endpoints see of a connection: the PROXY header in front of it, and Unix sockets.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::support::nginx::Nginx;
use crate::support::tools::tool;
use crate::support::{Ask, Conn, Edge, Setup, ports, wait};

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes up to and with the end of an HTTP head; `None`: the peer ended.
fn head(stream: &mut impl Read) -> Option<Vec<u8>> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") || head == SIGNATURE[..4] {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return None,
        }
    }
    Some(head)
}

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// What a connection carried: what came before the first request, and how many there were.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Carried {
    before: Vec<u8>,
    requests: usize,
}

/// Reads whatever stands before a request, and answers as many requests as come.
struct Raw {
    address: SocketAddr,
    carried: Arc<Mutex<Vec<Carried>>>,
    stopping: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

impl Raw {
    fn start() -> Self {
        let address = ports::free();
        let listener = TcpListener::bind(address).expect("a free port");
        let carried = Arc::<Mutex<Vec<Carried>>>::default();
        let stopping = Arc::new(AtomicBool::new(false));
        let (ledger, stop) = (Arc::clone(&carried), Arc::clone(&stopping));
        let accepting = std::thread::spawn(move || {
            while let Ok((socket, _)) = listener.accept() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let nth = {
                    let mut ledger = lock(&ledger);
                    ledger.push(Carried::default());
                    ledger.len() - 1
                };
                let ledger = Arc::clone(&ledger);
                std::thread::spawn(move || answer(socket, nth, &ledger));
            }
        });
        Self {
            address,
            carried,
            stopping,
            accepting: Some(accepting),
        }
    }

    fn carried(&self) -> Vec<Carried> {
        lock(&self.carried).clone()
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

fn answer(mut socket: TcpStream, nth: usize, ledger: &Mutex<Vec<Carried>>) {
    let _ = socket.set_read_timeout(Some(2 * wait::SOON));
    while let Some(head) = head(&mut socket) {
        let carried = &mut lock(ledger)[nth];
        let request = ["GET ", "POST "].iter().find_map(|method| {
            head.windows(method.len())
                .position(|w| w == method.as_bytes())
        });
        if let Some(start) = request {
            carried.before.extend_from_slice(&head[..start]);
            carried.requests += 1;
            // Says nothing of closing: whether the connection is used again is the edge's choice.
            let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        } else {
            carried.before.extend_from_slice(&head);
        }
    }
}

fn edge(app: impl std::fmt::Display, keys: &str) -> Edge {
    Setup::new().with("A", app).start(&format!(
        "[upstream.app]\nendpoints = [\"@A@\"]\n{keys}\n[[route]]\nupstream = \"app\"\n"
    ))
}

/// A request on a connection of its own; the address that it came from.
#[track_caller]
fn from_somewhere(edge: &Edge, ask: &Ask) -> SocketAddr {
    let socket = TcpStream::connect(edge.http()).expect("a connection");
    let from = socket.local_addr().expect("an address");
    Conn::from(socket).ask(ask).expect(200);
    from
}

#[test]
fn version_1_tells_the_clients_address_on_a_connection_for_each_request() {
    let app = Raw::start();
    let edge = edge(app.address, "proxy_protocol = \"v1\"");
    let mut expected = Vec::new();
    for n in 0..4 {
        let ask = match n % 2 {
            0 => Ask::get("/"),
            _ => Ask::new("POST", "/").field("Content-Length", "0"),
        };
        let from = from_somewhere(&edge, &ask);
        let (client, local) = (from.port(), edge.http().port());
        let line = format!("PROXY TCP4 127.0.0.1 127.0.0.1 {client} {local}\r\n");
        expected.push(Carried {
            before: line.into_bytes(),
            requests: 1,
        });
    }
    assert_eq!(app.carried(), expected);
    // Two requests of one client are no exception.
    let mut conn = edge.plain();
    conn.ask(&Ask::get("/")).expect(200);
    conn.ask(&Ask::get("/")).expect(200);
    let carried = app.carried();
    assert_eq!(carried.len(), 6);
    assert_eq!(carried[4], carried[5]);
    let open = "tidegate_upstream_endpoint_connections{upstream=\"app\"}";
    wait::eventually("none is kept", wait::SOON, || edge.metric(open) == 0.0);
}

#[test]
fn version_2_tells_it_in_binary_and_that_checks_are_nobodys() {
    let app = Raw::start();
    let edge = edge(
        app.address,
        "proxy_protocol = \"v2\"\nhealth_check = { type = \"http\", path = \"/healthz\", interval = \"100ms\" }",
    );
    let from = from_somewhere(&edge, &Ask::get("/"));
    let mut expected = SIGNATURE.to_vec();
    expected.extend_from_slice(&[0x21, 0x11, 0, 12]);
    expected.extend_from_slice(&[127, 0, 0, 1, 127, 0, 0, 1]);
    expected.extend_from_slice(&from.port().to_be_bytes());
    expected.extend_from_slice(&edge.http().port().to_be_bytes());
    let of = |before: &[u8]| {
        let carried = app.carried().into_iter();
        carried.filter(|it| it.before == before).collect::<Vec<_>>()
    };
    let whole = Carried {
        before: expected.clone(),
        requests: 1,
    };
    assert_eq!(of(&expected), [whole]);
    let local = [&SIGNATURE[..], &[0x20, 0, 0, 0]].concat();
    wait::eventually("checks", wait::SOON, || of(&local).len() > 1);
    assert!(edge.is_healthy(app.address));
}

#[test]
fn nginx_understands_both_with_and_without_tls() {
    let nginx = tool!("nginx", "nginx-light");
    let (plain, secure) = (ports::free(), ports::free());
    let setup = Setup::new().with("PLAIN", plain).with("SECURE", secure);
    let folder = setup.folder().display().to_string();
    let _node = Nginx::node(
        &nginx,
        "a",
        &format!(
            "listen {plain} proxy_protocol;\n\
             listen {secure} ssl proxy_protocol; ssl_certificate {folder}/shop.pem; ssl_certificate_key {folder}/shop.key;\n\
             location /who {{ return 200 \"$proxy_protocol_addr:$proxy_protocol_port $https\"; }}"
        ),
    );
    let tls = "tls = { ca = \"ca.pem\", server_name = \"shop.test\" }";
    let mut config = String::new();
    for (name, keys) in [
        ("v1", "endpoints = [\"@PLAIN@\"]\nproxy_protocol = \"v1\""),
        ("v2", "endpoints = [\"@PLAIN@\"]\nproxy_protocol = \"v2\""),
        ("s1", "endpoints = [\"@SECURE@\"]\nproxy_protocol = \"v1\""),
        ("s2", "endpoints = [\"@SECURE@\"]\nproxy_protocol = \"v2\""),
    ] {
        let tls = if name.starts_with('s') { tls } else { "" };
        config.push_str(&format!(
            "[upstream.{name}]\n{keys}\n{tls}\n[[route]]\nmatch = {{ host = \"{name}.test\" }}\nupstream = \"{name}\"\n"
        ));
    }
    let edge = setup.start(&config);
    for (name, https) in [("v1", ""), ("v2", ""), ("s1", "on"), ("s2", "on")] {
        let socket = TcpStream::connect(edge.http()).expect("a connection");
        let from = socket.local_addr().expect("an address");
        let ask = Ask::get("/who").host(&format!("{name}.test"));
        let said = Conn::from(socket).ask(&ask).expect(200).text();
        assert_eq!(said, format!("{from} {https}"), "{name}");
    }
}

/// Answers as soon as the head is there, and does not wait for the body.
fn impatient(orderly: bool) -> SocketAddr {
    let address = ports::free();
    let listener = TcpListener::bind(address).expect("a free port");
    // Ends with the process.
    std::thread::spawn(move || {
        while let Ok((mut socket, _)) = listener.accept() {
            if head(&mut socket).is_none() {
                continue;
            }
            let _ = socket.write_all(
                b"HTTP/1.1 413 Too Large\r\nContent-Length: 5\r\nConnection: close\r\n\r\nlarge",
            );
            if orderly {
                let _ = socket.shutdown(Shutdown::Write);
                let _ = std::io::copy(&mut socket, &mut std::io::sink());
            }
            // Closing with bytes unread is a reset, which may overtake the answer.
        }
    });
    address
}

#[test]
fn an_app_that_answers_before_the_body_is_never_taken_for_a_broken_client() {
    let body = vec![b'x'; 2_000_000];
    for (orderly, statuses) in [(true, &[413][..]), (false, &[413, 502])] {
        let edge = edge(impatient(orderly), "outlier_detection = false");
        for _ in 0..20 {
            let reply = edge.ask(&Ask::post("/", body.clone()));
            assert!(statuses.contains(&reply.status), "{reply:?}");
            if reply.status == 413 {
                assert_eq!(reply.text(), "large");
            }
        }
    }
}

/// An app node on a Unix socket; its socket goes with it.
struct UnixNode {
    path: PathBuf,
    open: Arc<Mutex<Vec<UnixStream>>>,
    stopping: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

impl UnixNode {
    fn start(path: &Path) -> Self {
        let listener = UnixListener::bind(path).expect("a socket");
        let open = Arc::<Mutex<Vec<UnixStream>>>::default();
        let stopping = Arc::new(AtomicBool::new(false));
        let (streams, stop) = (Arc::clone(&open), Arc::clone(&stopping));
        let accepting = std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                lock(&streams).push(stream.try_clone().expect("a second handle"));
                std::thread::spawn(move || {
                    while head(&mut stream).is_some() {
                        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
                    }
                });
            }
        });
        Self {
            path: path.to_owned(),
            open,
            stopping,
            accepting: Some(accepting),
        }
    }

    fn connections(&self) -> usize {
        lock(&self.open).len()
    }
}

impl Drop for UnixNode {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        let _ = UnixStream::connect(&self.path);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
        for stream in lock(&self.open).drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        let _ = std::fs::remove_file(&self.path);
    }
}

#[test]
fn a_unix_socket_is_an_endpoint_also_after_its_app_restarts() {
    let setup = Setup::new();
    let path = setup.folder().join("app.sock");
    let node = UnixNode::start(&path);
    // Relative to the file, as every path is.
    let edge = setup.start(
        "[upstream.app]\nendpoints = [\"unix:app.sock\"]\noutlier_detection = false\n[[route]]\nupstream = \"app\"\n",
    );
    let mut conn = edge.plain();
    for _ in 0..20 {
        assert_eq!(conn.ask(&Ask::get("/")).expect(200).text(), "ok");
    }
    assert!(
        node.connections() <= 2,
        "{} for 20 requests",
        node.connections()
    );
    let endpoint = &edge.json("/upstreams")[0]["endpoints"][0];
    let name = format!("unix:{}", path.display());
    assert_eq!(endpoint["address"], name.as_str(), "{endpoint}");
    let served = format!("tidegate_upstream_requests_total{{endpoint=\"{name}\",class=\"2xx\"}}");
    edge.await_metric(&served, 20.0);

    drop(node);
    let gone = conn.ask(&Ask::get("/"));
    assert!(matches!(gone.status, 502 | 503), "{gone:?}");
    let errors = format!("tidegate_upstream_errors_total{{endpoint=\"{name}\",kind=\"connect\"}}");
    edge.await_metric(&errors, 1.0);
    let node = UnixNode::start(&path);
    conn.ask(&Ask::get("/")).expect(200);

    // Again, between two requests: the kept connection leads nowhere, and nobody notices.
    drop(node);
    let node = UnixNode::start(&path);
    conn.ask(&Ask::get("/")).expect(200);
    conn.ask(&Ask::new("POST", "/").field("Content-Length", "0"))
        .expect(200);
    assert!(node.connections() >= 1);
}

#[test]
fn a_unix_socket_is_checked_balanced_and_drained_like_others() {
    let setup = Setup::new();
    let path = setup.folder().join("app.sock");
    let node = UnixNode::start(&path);
    let raw = Raw::start();
    let edge = setup.with("A", raw.address).start(
        "[upstream.app]\nendpoints = [\"unix:@DIR@/app.sock\", { address = \"@A@\", backup = true }]\n\
         health_check = { type = \"http\", path = \"/healthz\", interval = \"100ms\", unhealthy_after = 1, healthy_after = 1 }\n\
         [[route]]\nupstream = \"app\"\n",
    );
    let name = format!("unix:{}", path.display());
    let health = || {
        let upstreams = edge.json("/upstreams");
        let endpoints = upstreams[0]["endpoints"].as_array().expect("a list");
        let ours = endpoints.iter().find(|it| it["address"] == name.as_str());
        ours.expect("the socket")["health"].clone()
    };
    assert_eq!(health(), "healthy");
    edge.get("/").expect(200);
    drop(node);
    wait::eventually("it is out", wait::SOON, || health() == "unhealthy");
    edge.get("/").expect(200);
    let reason = wait::until("a reason", wait::SOON, || {
        let log = edge.stderr();
        let line = log.lines().find(|line| line.contains("out of service"));
        line.map(str::to_owned)
    });
    assert!(reason.contains(&name), "{reason}");
    let _node = UnixNode::start(&path);
    wait::eventually("it is back", wait::SOON, || health() == "healthy");
    let change = format!("/upstreams/change?upstream=app&endpoint={name}&mode=drain");
    assert_eq!(edge.command(&change).status, 200);
    assert_eq!(health(), "drained");
    edge.get("/").expect(200);
}
