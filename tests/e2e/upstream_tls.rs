//! TLS towards endpoints: whom the edge believes, and who it says it is.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{HandshakeKind, RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;

use crate::support::nginx::Nginx;
use crate::support::tools::tool;
use crate::support::{Ask, Edge, Setup, certs, ports, wait};

/// What a handshake was like.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Shaken {
    resumed: bool,
    server_name: Option<String>,
    client: Option<CertificateDer<'static>>,
}

#[derive(Default)]
struct Shared {
    stopping: AtomicBool,
    shaken: Mutex<Vec<Shaken>>,
    failed: Mutex<Vec<String>>,
}

/// An HTTPS app node that closes after each answer, so that each request is a handshake.
struct TlsNode {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

impl TlsNode {
    /// With the certificate `STEM.pem` in `folder`; asks for one of the authority in `clients`.
    fn start(folder: &Path, stem: &str, clients: Option<&Path>) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("known versions");
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                let authority = CertificateDer::from_pem_file(authority).expect("an authority");
                roots.add(authority).expect("a usable authority");
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
            }
        };
        let chain = CertificateDer::from_pem_file(folder.join(format!("{stem}.pem")));
        let key = PrivateKeyDer::from_pem_file(folder.join(format!("{stem}.key")));
        let config = builder
            .with_single_cert(vec![chain.expect("a certificate")], key.expect("a key"))
            .expect("a pair");
        let config = Arc::new(config);
        let address = ports::free();
        let listener = TcpListener::bind(address).expect("a free port");
        let shared = Arc::new(Shared::default());
        let accepting = {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || {
                while let Ok((socket, _)) = listener.accept() {
                    if shared.stopping.load(Ordering::SeqCst) {
                        return;
                    }
                    let (config, shared) = (Arc::clone(&config), Arc::clone(&shared));
                    std::thread::spawn(move || serve(socket, config, &shared));
                }
            })
        };
        Self {
            address,
            shared,
            accepting: Some(accepting),
        }
    }

    fn shaken(&self) -> Vec<Shaken> {
        let shaken = &self.shared.shaken;
        shaken
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Why handshakes failed here.
    fn failed(&self) -> Vec<String> {
        let failed = &self.shared.failed;
        failed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Drop for TlsNode {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

fn serve(mut socket: TcpStream, config: Arc<ServerConfig>, shared: &Shared) {
    let _ = socket.set_read_timeout(Some(wait::SOON));
    let mut tls = ServerConnection::new(config).expect("a server's connection");
    while tls.is_handshaking() {
        if let Err(error) = tls.complete_io(&mut socket) {
            // The alert that says why is still to be sent, and must not be overtaken by a reset
            // for what was not read.
            let _ = tls.write_tls(&mut socket);
            let _ = socket.shutdown(Shutdown::Write);
            let _ = socket.read_to_end(&mut Vec::new());
            let mut failed = shared.failed.lock().unwrap_or_else(PoisonError::into_inner);
            failed.push(error.to_string());
            return;
        }
    }
    let certificates = tls.peer_certificates().unwrap_or_default();
    let shaken = Shaken {
        resumed: tls.handshake_kind() == Some(HandshakeKind::Resumed),
        server_name: tls.server_name().map(str::to_owned),
        client: certificates.first().map(|it| it.clone().into_owned()),
    };
    shared
        .shaken
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(shaken);
    let mut stream = StreamOwned::new(tls, socket);
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return,
        }
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let length = head.split("content-length: ").nth(1);
    let length = length.and_then(|rest| rest.split("\r\n").next()?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    if stream.read_exact(&mut body).is_err() {
        return;
    }
    let _ = stream
        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nsecret");
    stream.conn.send_close_notify();
    let _ = stream.flush();
}

/// A folder with a pair of the tests' authority for `shop.test`, and one that nobody knows.
fn setup() -> Setup {
    let setup = Setup::new();
    certs::write(setup.folder(), "edge", &["edge.test"]);
    let key = rcgen::KeyPair::generate().expect("a key");
    let params = rcgen::CertificateParams::new(vec!["edge.test".to_owned()]);
    let own = params.expect("a name").self_signed(&key);
    let own = own.expect("a certificate").pem();
    setup
        .file("stranger.pem", own)
        .file("stranger.key", key.serialize_pem())
}

fn config(upstream: &str) -> String {
    format!(
        "[log]\nlevel = \"debug\"\naccess = {{ path = \"access.log\" }}\n[upstream.app]\nendpoints = [\"@A@\"]\n{upstream}\n[[route]]\nupstream = \"app\"\n"
    )
}

/// What the access log says of the last request.
#[track_caller]
fn await_why(edge: &Edge, why: &str) {
    let path = edge.folder().join("access.log");
    wait::eventually(&format!("a line that says {why}"), wait::SOON, || {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .any(|line| line["why"] == why)
    });
}

#[test]
fn the_name_that_is_sent_and_verified_is_the_configured_one() {
    let setup = setup();
    let node = TlsNode::start(setup.folder(), "shop", None);
    let edge = setup.with("A", node.address).start(&config(
        "tls = { ca = \"ca.pem\", server_name = \"static.shop.test\" }",
    ));
    assert_eq!(edge.get("/").expect(200).text(), "secret");
    let shaken = node.shaken();
    assert_eq!(shaken[0].server_name.as_deref(), Some("static.shop.test"));
    assert_eq!(shaken[0].client, None);
}

#[test]
fn a_wrong_name_or_an_unknown_authority_is_502() {
    for (tls, reason) in [
        (
            "{ ca = \"ca.pem\", server_name = \"other.test\" }",
            "certificate is not for other.test (it has shop.test",
        ),
        (
            "{ server_name = \"shop.test\" }",
            "certificate of an unknown issuer",
        ),
        (
            "{ ca = \"stranger.pem\", server_name = \"shop.test\" }",
            "certificate of an unknown issuer",
        ),
    ] {
        let setup = setup();
        let node = TlsNode::start(setup.folder(), "shop", None);
        let edge = setup
            .with("A", node.address)
            .start(&config(&format!("tls = {tls}\noutlier_detection = false")));
        edge.ask(&Ask::post("/", "card number")).expect(502);
        await_why(&edge, "upstream_tls");
        let errors = "tidegate_upstream_errors_total{upstream=\"app\",kind=\"tls\"}";
        edge.await_metric(errors, 1.0);
        await_event(&edge, &[reason, "compare the endpoint's certificate"]);
        assert_eq!(node.shaken(), [], "{tls}: nothing was said to a stranger");
    }
}

#[test]
fn verification_can_be_switched_off() {
    let setup = setup();
    let node = TlsNode::start(setup.folder(), "stranger", None);
    let edge = setup.with("A", node.address).start(&config(
        "tls = { server_name = \"other.test\", verify = false }",
    ));
    assert_eq!(edge.get("/").expect(200).text(), "secret");
}

#[test]
fn sessions_are_resumed_and_a_reload_that_changes_nothing_here_does_no_harm() {
    let setup = setup();
    let node = TlsNode::start(setup.folder(), "shop", None);
    let upstream = "tls = { ca = \"ca.pem\", server_name = \"shop.test\" }";
    let edge = setup.with("A", node.address).start(&config(upstream));
    for _ in 0..10 {
        edge.get("/").expect(200);
    }
    // The two workers share what they know.
    let resumed: Vec<bool> = node.shaken().iter().map(|it| it.resumed).collect();
    assert!(!resumed[0]);
    assert_eq!(resumed[1..], [true; 9]);
    edge.reload(true);
    edge.get("/").expect(200);
    edge.get("/").expect(200);
    assert!(node.shaken()[11].resumed);
}

#[test]
fn the_client_certificate_is_shown() {
    let setup = setup();
    let node = TlsNode::start(setup.folder(), "shop", Some(&setup.folder().join("ca.pem")));
    let edge = setup.with("A", node.address).start(&config(
        "tls = { ca = \"ca.pem\", server_name = \"shop.test\", cert = \"edge.pem\", key = \"edge.key\" }",
    ));
    for _ in 0..4 {
        assert_eq!(edge.get("/").expect(200).text(), "secret");
        edge.ask(&Ask::post("/", "order")).expect(200);
    }
    let own = CertificateDer::from_pem_file(edge.folder().join("edge.pem")).expect("ours");
    let shaken = node.shaken();
    assert_eq!(shaken.len(), 8);
    for shaken in shaken {
        assert_eq!(
            shaken.client.as_ref(),
            Some(&own),
            "resumed: {}",
            shaken.resumed
        );
    }
}

#[test]
fn without_a_client_certificate_or_with_a_strangers_the_endpoint_refuses() {
    for (pair, alert) in [
        ("", "CertificateRequired"),
        (
            ", cert = \"stranger.pem\", key = \"stranger.key\"",
            "UnknownCA",
        ),
    ] {
        let setup = setup();
        let authority = setup.folder().join("ca.pem");
        let node = TlsNode::start(setup.folder(), "shop", Some(&authority));
        let edge = setup.with("A", node.address).start(&config(&format!(
            "tls = {{ ca = \"ca.pem\", server_name = \"shop.test\"{pair} }}\noutlier_detection = false"
        )));
        edge.get("/").expect(502);
        await_why(&edge, "upstream_tls");
        edge.ask(&Ask::post("/", "order")).expect(502);
        let errors = "tidegate_upstream_errors_total{upstream=\"app\",kind=\"tls\"}";
        edge.await_metric(errors, 2.0);
        await_event(&edge, &["DEBUG", alert]);
        assert_eq!(node.shaken(), []);
        assert!(!node.failed().is_empty());
    }
}

#[test]
fn what_a_refusing_endpoint_cannot_have_read_goes_to_another_one() {
    let setup = setup();
    let authority = setup.folder().join("ca.pem");
    let strict = TlsNode::start(setup.folder(), "shop", Some(&authority));
    let open = TlsNode::start(setup.folder(), "shop", None);
    let upstream = "tls = { ca = \"ca.pem\", server_name = \"shop.test\" }\nbalance = \"round_robin\"\noutlier_detection = false";
    let edge = setup
        .with("A", strict.address)
        .with("B", open.address)
        .start(&config(upstream).replace("[\"@A@\"]", "[\"@A@\", \"@B@\"]"));
    for _ in 0..6 {
        edge.ask(&Ask::post("/", "order")).expect(200);
    }
    assert_eq!((strict.shaken().len(), open.shaken().len()), (0, 6));
    // A body that is not kept is gone, and not sent by half.
    let large = vec![b'x'; 300_000];
    let statuses = (0..6).map(|_| edge.ask(&Ask::post("/", large.clone())).status);
    let statuses: Vec<u16> = statuses.collect();
    assert!(
        statuses.iter().all(|it| matches!(it, 200 | 502)),
        "{statuses:?}"
    );
}

/// A line of the event log with all of these words.
#[track_caller]
fn await_event(edge: &Edge, words: &[&str]) {
    wait::eventually(&format!("a line with {words:?}"), wait::SOON, || {
        let log = edge.stderr();
        log.lines()
            .any(|line| words.iter().all(|word| line.contains(word)))
    });
}

#[test]
fn http2_over_tls_is_agreed_on() {
    let nginx = tool!("nginx", "nginx-light");
    let setup = setup();
    let address = ports::free();
    let folder = setup.folder().display().to_string();
    let _node = Nginx::node(
        &nginx,
        "a",
        &format!(
            "listen {address} ssl http2; ssl_certificate {folder}/shop.pem; ssl_certificate_key {folder}/shop.key;\n\
             location /seen {{ return 200 \"$server_protocol $host $request_uri $http_x_small\"; }}"
        ),
    );
    // The check has to have passed, too, before a request is let through.
    let tls = "health_check = { type = \"http\", path = \"/healthz\", interval = \"100ms\", start = \"unhealthy\" }\n\
               protocol = \"h2\"\ntls = { ca = \"ca.pem\", server_name = \"shop.test\" }";
    let edge = setup.with("A", address).start(&config(tls));
    wait::eventually("it is in service", wait::SOON, || edge.is_healthy(address));
    let ask = Ask::get("/seen?x=1").field("X-Small", "thing");
    for _ in 0..5 {
        let said = edge.ask(&ask).expect(200).text();
        assert_eq!(said, "HTTP/2.0 shop.test /seen?x=1 thing");
    }
    // What offers no HTTP/2 is told apart.
    let node = TlsNode::start(edge.folder(), "shop", None);
    let without_check = tls.split_once('\n').map_or(tls, |(_, rest)| rest);
    let stubborn = config(without_check).replace("@A@", &node.address.to_string());
    edge.rewrite(&stubborn);
    edge.reload(true);
    edge.ask(&ask).expect(502);
    await_why(&edge, "upstream_tls");
}
