//! What tests of this folder share: settings, certificates, and endpoints that
//! behave as they are told.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::{Dialer, Target};

/// Names an unspecial upstream of one plain endpoint.
const PLAIN: &str = r#"
[[listener]]
address = "127.0.0.1:8080"

[upstream.app]
endpoints = ["127.0.0.1:1"]

[[route]]
upstream = "app"
"#;

/// The settings of an upstream that says nothing, changed by `change`.
pub(super) fn settings(change: impl FnOnce(&mut conf::Upstream)) -> conf::Upstream {
    let config = conf::load_str(PLAIN, Path::new("test.toml")).expect("a valid file");
    let mut upstream = config.upstreams.into_iter().next().expect("one upstream");
    change(&mut upstream);
    upstream
}

pub(super) fn dialer(change: impl FnOnce(&mut conf::Upstream)) -> Dialer {
    Dialer::new(&settings(change)).expect("usable settings")
}

/// Waits until `holds`; fails after five seconds.
pub(super) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = later(Duration::from_secs(5));
    while !holds() {
        assert!(crate::clock::now() < deadline, "not within 5 s: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(super) fn later(by: Duration) -> Instant {
    crate::clock::now() + by
}

/// An authority with a folder for what it signs.
pub(super) struct Authority {
    pub(super) folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
    certificate: rcgen::Certificate,
}

impl Authority {
    pub(super) fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // No two of a process share one, or the second would be taken for the first.
        let name = format!("Authority {}", crate::random::bits());
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.self_signed(&key).expect("an authority");
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("ca.pem"), certificate.pem()).expect("written");
        Self {
            folder,
            issuer: Issuer::new(params, key),
            certificate,
        }
    }

    pub(super) fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    fn leaf(
        &self,
        name: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        change(&mut params);
        let leaf = params.signed_by(&key, &self.issuer).expect("signed");
        (leaf, key)
    }

    /// A certificate for a client, as files.
    pub(super) fn client(&self, name: &str) -> conf::Certificate {
        let (leaf, key) = self.leaf(name, |_| {});
        let pair = conf::Certificate {
            cert: self.folder.path().join(format!("{name}.pem")),
            key: self.folder.path().join(format!("{name}.key")),
        };
        std::fs::write(&pair.cert, leaf.pem()).expect("written");
        std::fs::write(&pair.key, key.serialize_pem()).expect("written");
        pair
    }

    /// Settings of a server called `name`; `asks`: it wants a certificate of this authority.
    pub(super) fn server(
        &self,
        name: &str,
        protocols: &[&str],
        asks: bool,
        change: impl FnOnce(&mut CertificateParams),
    ) -> ServerConfig {
        let (leaf, key) = self.leaf(name, change);
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = crate::listen::provider();
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .expect("versions");
        let builder = if asks {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(self.certificate.der().clone()).expect("a root");
            builder.with_client_cert_verifier(
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                    .build()
                    .expect("a verifier"),
            )
        } else {
            builder.with_no_client_auth()
        };
        let mut config = builder
            .with_single_cert(vec![leaf.der().clone()], key)
            .expect("a fitting key");
        config.alpn_protocols = protocols.iter().map(|it| it.as_bytes().to_vec()).collect();
        config
    }
}

/// What a TLS upstream called `app.test` is told of `authority`.
pub(super) fn tls(authority: &Authority) -> conf::UpstreamTls {
    conf::UpstreamTls {
        ca: Some(authority.ca()),
        server_name: "app.test".into(),
        verify: true,
        certificate: None,
    }
}

pub(super) async fn listen() -> (TcpListener, Target) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address: SocketAddr = listener.local_addr().expect("an address");
    (listener, Target::from(address))
}

/// Serves each connection with `serve`, in a task of its own.
pub(super) async fn endpoint<F, S>(serve: S) -> Target
where
    S: Fn(TcpStream) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let (listener, target) = listen().await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    target
}

/// The same behind TLS; failed handshakes are passed over.
pub(super) async fn tls_endpoint<F, S>(config: ServerConfig, serve: S) -> Target
where
    S: Fn(tokio_rustls::server::TlsStream<TcpStream>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let acceptor = TlsAcceptor::from(Arc::new(config));
    endpoint(move |stream| {
        let (acceptor, serve) = (acceptor.clone(), serve.clone());
        async move {
            if let Ok(stream) = acceptor.accept(stream).await {
                serve(stream).await;
            }
        }
    })
    .await
}

/// What an HTTP endpoint of tests answers.
pub(super) type Answer = Result<http::Response<http_body_util::Full<bytes::Bytes>>, Infallible>;

/// Serves HTTP/1.1 by `answer` until the client goes.
pub(super) async fn serve_h1<F>(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    answer: impl Fn(http::Request<hyper::body::Incoming>) -> F,
) where
    F: Future<Output = Answer>,
{
    let io = hyper_util::rt::TokioIo::new(stream);
    let service = hyper::service::service_fn(answer);
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(io, service)
        .await;
}

/// A 200 with this body.
pub(super) fn ok(body: impl Into<bytes::Bytes>) -> Answer {
    Ok(http::Response::new(http_body_util::Full::new(body.into())))
}
