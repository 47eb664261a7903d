//! Pebble, an ACME authority for tests, and the DNS that it asks.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use nix::sys::signal::Signal;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::client::{Ask, Conn};
use super::tools::{Running, find};
use super::{certs, ports, wait};

/// How the authority differs from one that asks for nothing.
pub(crate) struct Wishes {
    /// Where it looks for HTTP-01.
    pub(crate) http: SocketAddr,
    /// Where it looks for TLS-ALPN-01.
    pub(crate) tls: SocketAddr,
    /// Seconds that a certificate lasts.
    pub(crate) life: u32,
    /// Which server it asks for names and records, if not the one beside it.
    pub(crate) dns: Option<SocketAddr>,
    /// Which OCSP responder its certificates name.
    pub(crate) ocsp: Option<SocketAddr>,
    /// Id and key of an account that exists, without which there is none.
    pub(crate) external: Option<(&'static str, &'static str)>,
}

/// An authority; ended when dropped.
pub(crate) struct Pebble {
    running: Option<Running>,
    program: PathBuf,
    pub(crate) address: SocketAddr,
    management: SocketAddr,
    dns: SocketAddr,
    /// Where records are made.
    pub(crate) records: SocketAddr,
    _names: Running,
    folder: TempDir,
}

impl Pebble {
    /// One that listens. `None` where the program is missing (see [`find`]).
    pub(crate) fn start(wishes: &Wishes) -> Option<Self> {
        let mut pebble = Self::ready(wishes)?;
        pebble.up();
        Some(pebble)
    }

    /// One that does not listen yet.
    pub(crate) fn ready(wishes: &Wishes) -> Option<Self> {
        let program = find("pebble", "pebble")?;
        let server = find("pebble-challtestsrv", "pebble")?;
        let folder = TempDir::with_prefix("tidegate-pebble-").expect("a folder for pebble");
        let (cert, key) = certs::write(folder.path(), "pebble", &["127.0.0.1"]);
        let (address, management) = (ports::free(), ports::free());
        let (own, records) = (ports::free(), ports::free());
        let mut config = json!({ "pebble": {
            "listenAddress": address.to_string(),
            "managementListenAddress": management.to_string(),
            "certificate": cert, "privateKey": key,
            "httpPort": wishes.http.port(), "tlsPort": wishes.tls.port(),
            "ocspResponderURL": wishes.ocsp.map_or(String::new(), |at| format!("http://{at}/")),
            "externalAccountBindingRequired": wishes.external.is_some(),
            "certificateValidityPeriod": wishes.life,
        }});
        if let Some((id, key)) = wishes.external {
            config["pebble"]["externalAccountMACKeys"] = json!({ id: key });
        }
        let file = folder.path().join("pebble.json");
        std::fs::write(file, config.to_string()).expect("write pebble's configuration");
        let mut command = Command::new(server);
        command
            .args(["-defaultIPv4", "127.0.0.1", "-defaultIPv6", ""])
            .args(["-http01", "", "-https01", "", "-tlsalpn01", ""])
            .args(["-dns01", &own.to_string()])
            .args(["-management", &records.to_string()]);
        let names = Running::start(&mut command);
        wait::eventually("the names to be served", wait::SOON, || {
            std::net::TcpStream::connect(records).is_ok()
        });
        Some(Self {
            running: None,
            program,
            address,
            management,
            dns: wishes.dns.unwrap_or(own),
            records,
            _names: names,
            folder,
        })
    }

    /// Starts it: accounts, orders and roots of earlier starts are forgotten.
    pub(crate) fn up(&mut self) {
        let mut command = Command::new(&self.program);
        command
            .arg("-config")
            .arg(self.folder.path().join("pebble.json"))
            .args(["-dnsserver", &self.dns.to_string()])
            .env("PEBBLE_VA_NOSLEEP", "1")
            // By itself it refuses one nonce in twenty, so that now and then three in a row are refused, after
            // which an order is given up, as it should be, and tried again too late for a test.
            .env("PEBBLE_WFE_NONCEREJECT", "0")
            // Names are to be validated every time.
            .env("PEBBLE_AUTHZREUSE", "0");
        let mut running = Running::start(&mut command);
        let addresses = [self.address, self.management];
        wait::eventually("pebble to accept", wait::SOON, || {
            assert!(running.is_running(), "pebble: {}", running.stderr());
            // It opens one after the other.
            let accepts = |address: &SocketAddr| std::net::TcpStream::connect(address).is_ok();
            addresses.iter().all(accepts)
        });
        self.running = Some(running);
    }

    /// Ends it at once.
    pub(crate) fn down(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.signal(Signal::SIGKILL);
            running.wait(wait::SOON);
        }
    }

    /// What it says of its work.
    pub(crate) fn log(&self) -> String {
        self.running
            .as_ref()
            .map_or_else(String::new, |it| format!("{}{}", it.stdout(), it.stderr()))
    }

    pub(crate) fn directory(&self) -> String {
        format!("https://{}/dir", self.address)
    }

    /// The key that it signs certificates with, PEM.
    pub(crate) fn key(&self) -> String {
        Conn::tls(self.management, "127.0.0.1")
            .ask(&Ask::get("/intermediate-keys/0").host("127.0.0.1"))
            .expect(200)
            .text()
    }

    /// A client that trusts what it signs, and what is signed by nobody else.
    pub(crate) fn client(&self, protocols: &[&str]) -> Arc<ClientConfig> {
        let root = Conn::tls(self.management, "127.0.0.1")
            .ask(&Ask::get("/roots/0").host("127.0.0.1"))
            .expect(200);
        let root = CertificateDer::from_pem_slice(&root.body).expect("a root");
        let mut roots = RootCertStore::empty();
        roots.add(root).expect("a usable root");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("known versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

/// The certificate that a handshake with any client shows; an error: there was none.
pub(crate) fn shown(address: SocketAddr, host: &str) -> std::io::Result<Vec<u8>> {
    shown_to(certs::client_of_anyone(&["h2", "http/1.1"]), address, host)
}

/// The same for a certain client.
pub(crate) fn shown_to(
    config: Arc<ClientConfig>,
    address: SocketAddr,
    host: &str,
) -> std::io::Result<Vec<u8>> {
    let mut socket = std::net::TcpStream::connect(address)?;
    socket.set_read_timeout(Some(wait::SOON))?;
    let mut tls =
        ClientConnection::new(config, certs::name(host)).map_err(std::io::Error::other)?;
    while tls.is_handshaking() {
        tls.complete_io(&mut socket)?;
    }
    let chain = tls.peer_certificates().expect("a certificate");
    Ok(chain[0].to_vec())
}

/// The files below a storage, sorted.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        match entry.path() {
            path if path.is_dir() => found.extend(files(&path)),
            path => found.push(path),
        }
    }
    found.sort();
    found
}

/// The certificates that the admin server tells of.
pub(crate) fn told(edge: &super::Edge) -> Vec<Value> {
    let all = edge.json("/certificates");
    all.as_array().expect("a list").clone()
}

/// Now, as rustls has it.
pub(crate) fn now() -> u64 {
    UnixTime::now().as_secs()
}
