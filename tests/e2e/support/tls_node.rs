//! An app node behind TLS whose certificate the test changes.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::{ports, runtime};

/// Answers 200 with the name of the certificate that it began with; down when dropped.
pub(crate) struct TlsNode {
    pub(crate) address: SocketAddr,
    config: Arc<Mutex<Arc<ServerConfig>>>,
    accepting: JoinHandle<()>,
}

impl TlsNode {
    /// Shows `STEM.pem` of the folder.
    pub(crate) fn start(folder: &Path, stem: &str) -> Self {
        let name = stem.to_owned();
        Self::answering(folder, stem, move |_| {
            Response::new(Full::new(Bytes::from(name.clone())))
        })
    }

    /// The same, with answers by the request's target.
    pub(crate) fn answering(
        folder: &Path,
        stem: &str,
        answer: impl Fn(&str) -> Response<Full<Bytes>> + Send + Sync + 'static,
    ) -> Self {
        let answer = Arc::new(answer);
        let config = Arc::new(Mutex::new(config(folder, stem)));
        let address = ports::free();
        let current = config.clone();
        let listener = runtime()
            .block_on(TcpListener::bind(address))
            .expect("a listener");
        let accepting = runtime().spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let config = current.lock().expect("no panic").clone();
                let answer = answer.clone();
                tokio::spawn(async move {
                    // A peer that does not like the certificate ends here.
                    let Ok(tls) = TlsAcceptor::from(config).accept(socket).await else {
                        return;
                    };
                    let answer = service_fn(move |request: Request<Incoming>| {
                        let answer = answer(&request.uri().to_string());
                        async move { Ok::<_, Infallible>(answer) }
                    });
                    let server = hyper::server::conn::http1::Builder::new();
                    let _ = server.serve_connection(TokioIo::new(tls), answer).await;
                });
            }
        });
        Self {
            address,
            config,
            accepting,
        }
    }

    /// Shows another one to those who connect from now on.
    pub(crate) fn show(&self, folder: &Path, stem: &str) {
        *self.config.lock().expect("no panic") = config(folder, stem);
    }
}

impl Drop for TlsNode {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// What a server needs to show `STEM.pem` of the folder.
pub(crate) fn config(folder: &Path, stem: &str) -> Arc<ServerConfig> {
    let file = |ending: &str| folder.join(format!("{stem}.{ending}"));
    let chain = CertificateDer::pem_file_iter(file("pem")).expect("a certificate");
    let chain = chain.collect::<Result<Vec<_>, _>>().expect("a chain");
    let key = PrivateKeyDer::from_pem_file(file("key")).expect("a key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("known versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a key that fits");
    Arc::new(config)
}
