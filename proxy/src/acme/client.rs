//! How a directory is asked: one request over a connection of its own, TLS verified, all within a
//! deadline.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{ACCEPT_LANGUAGE, CONNECTION, CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::failure::Failure;
use crate::clock;
use crate::listen::provider;
use crate::upstreams::connect;

/// One request and its answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Directories, orders and chains have a few thousand bytes.
const LARGEST: usize = 1 << 20;
const AGENT: &str = concat!("tidegate/", env!("CARGO_PKG_VERSION"));

/// The directory could not be asked, or gave no answer of its own.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct NotReached(String);

/// See the module's text.
#[derive(Clone)]
pub(super) struct Client {
    trust: Arc<ClientConfig>,
    patience: Patience,
}

/// Until when the last refusal asks to be left alone (RFC 8555 section 6.6): the library keeps the
/// problem and not the fields.
#[derive(Debug, Clone, Default)]
pub(super) struct Patience(Arc<Mutex<Option<SystemTime>>>);

impl Patience {
    pub(super) fn until(&self) -> Option<SystemTime> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another directory is asked: what the one before wants is no matter of its.
    pub(super) fn forget(&self) {
        self.set(None);
    }

    fn set(&self, until: Option<SystemTime>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }
}

impl Client {
    /// Trusts the system's anchors and those in `extra`, PEM.
    pub(super) fn new(extra: Option<&[u8]>) -> Result<Self, Failure> {
        let mut roots = RootCertStore::empty();
        // One that cannot be used is no reason to trust none of the others.
        if let Ok(found) = rustls_native_certs::load_native_certs() {
            roots.add_parsable_certificates(found);
        }
        for certificate in CertificateDer::pem_slice_iter(extra.unwrap_or_default()) {
            roots
                .add(certificate.map_err(unusable_anchors)?)
                .map_err(unusable_anchors)?;
        }
        if roots.is_empty() {
            return Err(unusable_anchors("there are none"));
        }
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(unusable_anchors)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            trust: Arc::new(config),
            patience: Patience::default(),
        })
    }

    pub(super) fn patience(&self) -> Patience {
        self.patience.clone()
    }

    async fn exchange(
        self,
        mut request: Request<BodyWrapper<Bytes>>,
    ) -> Result<BytesResponse, Error> {
        let uri = request.uri().clone();
        let shown = format!(
            "{}://{}",
            uri.scheme_str().unwrap_or("?"),
            uri.authority().map_or("?", |it| it.as_str())
        );
        let not = |what: String| Error::Other(Box::new(NotReached(format!("{shown}: {what}"))));
        let (Some("https"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(not("only https:// is spoken with a directory".into()));
        };
        let stream = connect::to(authority, 443).await.map_err(not)?;
        let host = connect::bare_host(authority);
        let stream = connect::tls(stream, host, self.trust.clone()).await;
        let stream = stream.map_err(|error| not(format!("no TLS: {error}")))?;
        let broken = |error: hyper::Error| not(format!("the connection broke: {error}"));
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        // Ends with this call, whatever comes of it.
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        let host_field = HeaderValue::from_str(authority.as_str()).map_err(http::Error::from)?;
        *request.uri_mut() = uri.path_and_query().map_or("/", |it| it.as_str()).parse()?;
        let fields = request.headers_mut();
        fields.insert(HOST, host_field);
        fields.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        fields.insert(ACCEPT_LANGUAGE, HeaderValue::from_static("en"));
        fields.insert(CONNECTION, HeaderValue::from_static("close"));
        let response = sender.send_request(request).await.map_err(broken)?;
        let (mut parts, body) = response.into_parts();
        if is_beyond_all(parts.headers.get(RETRY_AFTER)) {
            // The library adds it to the time, and would panic.
            parts.headers.remove(RETRY_AFTER);
        }
        let body = Limited::new(body, LARGEST).collect().await;
        let body = body.map_err(|error| not(format!("the answer broke off: {error}")))?;
        if !parts.status.is_success() {
            self.patience
                .set(retry_after(parts.headers.get(RETRY_AFTER)));
            let kind = parts.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
            if !kind.is_some_and(|kind| kind.starts_with(b"application/problem+json")) {
                return Err(not(format!("it answers {}", parts.status)));
            }
        }
        let response = Response::from_parts(parts, http_body_util::Full::new(body.to_bytes()));
        Ok(BytesResponse::from(response))
    }
}

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let client = self.clone();
        Box::pin(async move {
            match timeout(PATIENCE, client.exchange(request)).await {
                Ok(answer) => answer,
                Err(_) => {
                    let late = format!("no whole answer within {PATIENCE:?}");
                    Err(Error::Other(Box::new(NotReached(late))))
                }
            }
        })
    }
}

/// Whether it is more seconds than anybody waits.
fn is_beyond_all(retry_after: Option<&HeaderValue>) -> bool {
    const YEARS: u64 = 10 * 366 * 86_400;
    let Some(text) = retry_after.and_then(|value| value.to_str().ok()) else {
        return false;
    };
    let text = text.trim();
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number && text.parse::<u64>().map_or(true, |seconds| seconds > YEARS)
}

/// Seconds or a date (RFC 9110 section 10.2.3).
fn retry_after(value: Option<&HeaderValue>) -> Option<SystemTime> {
    let text = value?.to_str().ok()?.trim();
    match text.parse() {
        Ok(seconds) => clock::wall().checked_add(Duration::from_secs(seconds)),
        Err(_) => httpdate::parse_http_date(text).ok(),
    }
}

fn unusable_anchors(reason: impl std::fmt::Display) -> Failure {
    Failure::new(
        super::Outcome::Unusable,
        format!("the trust anchors for the directory cannot be used: {reason}"),
        "install the system's (ca-certificates), or name a PEM file in `ca`",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_that_nobody_can_add_to_the_time_is_known() {
        let is = |text| is_beyond_all(Some(&HeaderValue::from_static(text)));
        assert!(is("18446744073709551615") && is(" 99999999999999999999999 "));
        assert!(!is("3600") && !is("Wed, 21 Oct 2026 07:28:00 GMT") && !is(""));
        assert!(!is_beyond_all(None));
    }
}
