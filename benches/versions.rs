//! What a cached page costs the server over each version of HTTP, asked for by one client.
//!
//! `cargo bench --bench versions` starts the server of the same build with one worker and prints
//! its CPU time for one request: 8 connections with 10 requests under way on each (HTTP/1.1: 80
//! connections), over TLS 1.3, a page of 1 KiB that is in the cache. All versions are measured in
//! turns; of the rounds the medians count. `TIDEGATE_BIN` names another build to measure.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark stops at what is not as it should be, prints, and reads the clock"
)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use http::{Request, StatusCode};
use quinn::crypto::rustls::QuicClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

const ROUNDS: usize = 7;
const SPAN: Duration = Duration::from_secs(2);
const CONNECTIONS: usize = 8;
const STREAMS: usize = 10;
const PAGE: usize = 1024;
const HOST: &str = "shop.test";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    H1,
    H2,
    H3,
}

const ALL: [(Version, &str); 3] = [
    (Version::H1, "HTTP/1.1"),
    (Version::H2, "HTTP/2"),
    (Version::H3, "HTTP/3"),
];

fn main() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut costs = [const { Vec::new() }; ALL.len()];
    for _ in 0..ROUNDS {
        for (place, (version, _)) in ALL.into_iter().enumerate() {
            costs[place].push(runtime.block_on(server.measure(version)));
        }
    }
    println!("CPU time of the server for one cached page of {PAGE} bytes over TLS, us");
    let medians = costs.map(median);
    for ((_, name), cost) in ALL.iter().zip(medians) {
        println!("{name:<9} {cost:>6.2}  {:>5.2} x HTTP/2", cost / medians[1]);
    }
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

struct Server {
    process: Child,
    address: SocketAddr,
    tls: rustls::ClientConfig,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It is ours, and has nothing to lose.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Server {
    fn start(folder: &Path) -> Self {
        let made = rcgen::generate_simple_self_signed(vec![HOST.to_owned()]).unwrap();
        std::fs::write(folder.join("shop.pem"), made.cert.pem()).unwrap();
        std::fs::write(folder.join("shop.key"), made.signing_key.serialize_pem()).unwrap();
        let origin = origin();
        let address = free();
        let config = format!(
            r#"
            [server]
            workers = 1
            [limits]
            max_connection_rate_per_ip = false
            max_handshake_rate_per_ip = false
            max_requests_per_connection = 1000000000
            [[listener]]
            address = "{address}"
            protocols = ["h1", "h2", "h3"]
            tls = true
            [tls]
            certificates = [{{ cert = "shop.pem", key = "shop.key" }}]
            [upstream.app]
            endpoints = ["{origin}"]
            [[route]]
            upstream = "app"
            cache = {{}}
            "#
        );
        std::fs::write(folder.join("tidegate.toml"), config).unwrap();
        let binary = std::env::var("TIDEGATE_BIN");
        let process = Command::new(binary.as_deref().unwrap_or(env!("CARGO_BIN_EXE_tidegate")))
            .args(["run", "--config"])
            .arg(folder.join("tidegate.toml"))
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        let pem = std::fs::read(folder.join("shop.pem")).unwrap();
        roots
            .add(CertificateDer::from_pem_slice(&pem).unwrap())
            .unwrap();
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let server = Self {
            process,
            address,
            tls,
        };
        let deadline = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(address).is_err() {
            assert!(Instant::now() < deadline, "the server does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    /// Microseconds a request.
    async fn measure(&self, version: Version) -> f64 {
        let mut tls = self.tls.clone();
        let protocol: &[u8] = match version {
            Version::H1 => b"http/1.1",
            Version::H2 => b"h2",
            Version::H3 => b"h3",
        };
        tls.alpn_protocols = vec![protocol.to_vec()];
        let until = Instant::now() + SPAN;
        let mut asking = JoinSet::new();
        let before = self.cpu();
        match version {
            Version::H1 => {
                for _ in 0..CONNECTIONS * STREAMS {
                    asking.spawn(http1(self.address, tls.clone(), until));
                }
            }
            Version::H2 => {
                for _ in 0..CONNECTIONS {
                    asking.spawn(http2(self.address, tls.clone(), until));
                }
            }
            Version::H3 => {
                for _ in 0..CONNECTIONS {
                    asking.spawn(http3(self.address, tls.clone(), until));
                }
            }
        }
        let mut asked = 0;
        while let Some(count) = asking.join_next().await {
            asked += count.unwrap();
        }
        let spent = self.cpu() - before;
        assert!(asked > 1000, "{version:?}: {asked} requests");
        spent.as_secs_f64() * 1e6 / asked as f64
    }

    /// Of all its threads, with nanoseconds (proc(5), `schedstat`).
    fn cpu(&self) -> Duration {
        let tasks = format!("/proc/{}/task", self.process.id());
        let mut nanos = 0;
        for task in std::fs::read_dir(tasks).unwrap().flatten() {
            let text = std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            let own = text.split(' ').next().unwrap_or_default();
            nanos += own.parse::<u64>().unwrap_or(0);
        }
        Duration::from_nanos(nanos)
    }
}

/// An app whose page may be kept for an hour.
fn origin() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut socket in listener.incoming().flatten() {
            let mut head = [0; 4096];
            let _ = socket.read(&mut head);
            let body = "x".repeat(PAGE);
            let _ = write!(
                socket,
                "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nCache-Control: max-age=3600\r\n\
                 Content-Length: {PAGE}\r\nConnection: close\r\n\r\n{body}"
            );
        }
    });
    address
}

/// A port that is free for both TCP and UDP.
fn free() -> SocketAddr {
    loop {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        if UdpSocket::bind(address).is_ok() {
            return address;
        }
    }
}

fn name() -> ServerName<'static> {
    ServerName::try_from(HOST).unwrap()
}

async fn connect(
    address: SocketAddr,
    tls: rustls::ClientConfig,
) -> tokio_rustls::client::TlsStream<TcpStream> {
    let socket = TcpStream::connect(address).await.unwrap();
    socket.set_nodelay(true).unwrap();
    TlsConnector::from(Arc::new(tls))
        .connect(name(), socket)
        .await
        .unwrap()
}

async fn http1(address: SocketAddr, tls: rustls::ClientConfig, until: Instant) -> u64 {
    let mut conn = connect(address, tls).await;
    let ask = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    let mut reply = Vec::with_capacity(4096);
    let mut asked = 0;
    while Instant::now() < until {
        conn.write_all(ask.as_bytes()).await.unwrap();
        reply.clear();
        loop {
            assert!(conn.read_buf(&mut reply).await.unwrap() > 0);
            let head = reply.windows(4).position(|four| four == b"\r\n\r\n");
            if head.is_some_and(|head| reply.len() >= head + 4 + PAGE) {
                break;
            }
        }
        assert!(reply.starts_with(b"HTTP/1.1 200"));
        asked += 1;
    }
    asked
}

async fn http2(address: SocketAddr, tls: rustls::ClientConfig, until: Instant) -> u64 {
    let conn = connect(address, tls).await;
    let (sender, driver) = h2::client::handshake(conn).await.unwrap();
    let mut tasks = JoinSet::new();
    let driver = tokio::spawn(driver);
    for _ in 0..STREAMS {
        let sender = sender.clone();
        tasks.spawn(async move {
            let mut sender = sender.ready().await.unwrap();
            let mut asked = 0;
            while Instant::now() < until {
                let (reply, _) = sender.send_request(get(), true).unwrap();
                let reply = reply.await.unwrap();
                assert_eq!(reply.status(), StatusCode::OK);
                let mut body = reply.into_body();
                let mut size = 0;
                while let Some(data) = body.data().await {
                    let data = data.unwrap();
                    size += data.len();
                    body.flow_control().release_capacity(data.len()).unwrap();
                }
                assert_eq!(size, PAGE);
                sender = sender.ready().await.unwrap();
                asked += 1;
            }
            asked
        });
    }
    drop(sender);
    let asked = tasks.join_all().await.into_iter().sum();
    driver.abort();
    asked
}

async fn http3(address: SocketAddr, tls: rustls::ClientConfig, until: Instant) -> u64 {
    let crypto = QuicClientConfig::try_from(tls).unwrap();
    let config = quinn::ClientConfig::new(Arc::new(crypto));
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let endpoint = quinn::Endpoint::client(any).unwrap();
    let connecting = endpoint.connect_with(config, address, HOST).unwrap();
    let conn = h3_quinn::Connection::new(connecting.await.unwrap());
    let (mut driver, sender) = h3::client::new(conn).await.unwrap();
    let driver = tokio::spawn(async move { drop(driver.wait_idle().await) });
    let mut tasks = JoinSet::new();
    for _ in 0..STREAMS {
        let mut sender: h3::client::SendRequest<h3_quinn::OpenStreams, Bytes> = sender.clone();
        tasks.spawn(async move {
            let mut asked = 0;
            while Instant::now() < until {
                let mut stream = sender.send_request(get()).await.unwrap();
                stream.finish().await.unwrap();
                let reply = stream.recv_response().await.unwrap();
                assert_eq!(reply.status(), StatusCode::OK);
                let mut size = 0;
                while let Some(data) = stream.recv_data().await.unwrap() {
                    size += data.remaining();
                }
                assert_eq!(size, PAGE);
                asked += 1;
            }
            asked
        });
    }
    let asked = tasks.join_all().await.into_iter().sum();
    drop(sender);
    driver.abort();
    endpoint.close(0_u32.into(), b"");
    asked
}

fn get() -> Request<()> {
    Request::get(format!("https://{HOST}/")).body(()).unwrap()
}
