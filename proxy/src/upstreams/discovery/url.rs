//! A list of endpoints behind a URL that is asked again and again.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT, CONNECTION, CONTENT_ENCODING, ETAG, HOST, IF_NONE_MATCH, LOCATION, USER_AGENT,
};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use tokio::task::JoinSet;

use super::connect::{self, Stream};
use super::dns::Dns;
use conf::discovered::Format;

use super::document::{self, LARGEST};
use super::error::Part;
use super::{DiscoveryError, Trouble};

/// The list, and what is known of it.
pub(super) struct Polled {
    host: String,
    port: u16,
    tls: Tls,
    /// As it goes into the request.
    target: Uri,
    authority: HeaderValue,
    /// For logs: without the query, where tokens tend to stand.
    shown: String,
    timeout: Duration,
    may_be_empty: bool,
    /// Of the list that was had last; `None` where that was of no use, so that it is sent again
    /// when it is put right by going back to the one before.
    etag: Option<HeaderValue>,
}

/// How the server is reached.
enum Tls {
    None,
    /// With the system's trust anchors, read when they are needed first.
    Wanted,
    Ready(Arc<ClientConfig>),
}

impl Polled {
    /// `may_be_empty`: there are endpoints beside it.
    ///
    /// # Errors
    /// The URL is not one of http or https with a host.
    pub(super) fn new(
        url: &str,
        timeout: Duration,
        may_be_empty: bool,
    ) -> Result<Self, DiscoveryError> {
        let shown = url.split(['?', '#']).next().unwrap_or_default();
        let unusable = |shown: &str, reason: &str| {
            DiscoveryError::new(Part::Url(shown.to_owned()), Trouble::Settings, reason)
        };
        let uri: Uri = url
            .parse()
            .map_err(|error| unusable(shown, &format!("it is not a URL: {error}")))?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(unusable(shown, "it needs http:// or https:// and a host"));
        };
        if authority.as_str().contains('@') {
            let shown = format!("{scheme}://{}", authority.host());
            return Err(unusable(
                &shown,
                "a name and password in a URL are not sent; take an address that needs none",
            ));
        }
        let (tls, port) = match scheme {
            "http" => (Tls::None, 80),
            "https" => (Tls::Wanted, 443),
            _ => return Err(unusable(shown, "only http:// and https:// are spoken")),
        };
        let host = authority.host();
        let host = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Ok(Self {
            host: host.to_owned(),
            port: authority.port_u16().unwrap_or(port),
            tls,
            target: path
                .parse()
                .map_err(|_| unusable(shown, "its path cannot be sent"))?,
            authority: HeaderValue::from_str(authority.as_str())
                .map_err(|_| unusable(shown, "its host cannot be sent"))?,
            shown: shown.to_owned(),
            timeout,
            may_be_empty,
            etag: None,
        })
    }

    /// The list, unless it is the one that the last call gave.
    ///
    /// # Errors
    /// It cannot be had in time, or is not a list of endpoints. Redirects are refused: who may
    /// tell where requests go is for the configuration to say.
    pub(super) async fn changed(
        &mut self,
        dns: &Dns,
    ) -> Result<Option<Vec<conf::Endpoint>>, DiscoveryError> {
        match tokio::time::timeout(self.timeout, self.exchange(dns)).await {
            Ok(ended) => ended.map_err(|(kind, reason)| self.failed(kind, reason)),
            Err(_) => Err(self.failed(
                Trouble::Timeout,
                format!("no whole answer within {:?}", self.timeout),
            )),
        }
    }

    fn failed(&self, kind: Trouble, reason: impl Into<String>) -> DiscoveryError {
        DiscoveryError::new(Part::Url(self.shown.clone()), kind, reason)
    }

    /// Takes these trust anchors instead of the system's.
    #[cfg(test)]
    pub(super) fn trusting(mut self, roots: RootCertStore) -> Result<Self, rustls::Error> {
        self.tls = Tls::Ready(client_config(roots)?);
        Ok(self)
    }

    async fn exchange(
        &mut self,
        dns: &Dns,
    ) -> Result<Option<Vec<conf::Endpoint>>, (Trouble, String)> {
        let stream = self.connect(dns).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| broken(&error))?;
        // Ends with this call, whatever comes of it.
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        let response = sender
            .send_request(self.request())
            .await
            .map_err(|error| broken(&error))?;
        let etag = response.headers().get(ETAG).cloned();
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_MODIFIED if self.etag.is_some() => return Ok(None),
            status => return Err((Trouble::Status(status.as_u16()), refusal(&response))),
        }
        let text = body(response).await?;
        self.etag = None;
        let endpoints = document::read(&text, Format::Json, self.may_be_empty)?;
        self.etag = etag;
        Ok(Some(endpoints))
    }

    fn request(&self) -> Request<Empty<Bytes>> {
        let mut request = Request::new(Empty::new());
        *request.method_mut() = Method::GET;
        *request.uri_mut() = self.target.clone();
        let headers = request.headers_mut();
        headers.insert(HOST, self.authority.clone());
        headers.insert(USER_AGENT, HeaderValue::from_static("tidegate"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        if let Some(etag) = &self.etag {
            headers.insert(IF_NONE_MATCH, etag.clone());
        }
        request
    }

    async fn connect(&mut self, dns: &Dns) -> Result<Stream, (Trouble, String)> {
        let addresses = dns.dialled(&self.host, self.port).await?;
        let shown: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        let stream = connect::tcp(addresses)
            .await
            .map_err(|error| not_connected(&error, &shown.join(", ")))?;
        let config = match &self.tls {
            Tls::None => return Ok(Stream::Plain(stream)),
            Tls::Ready(config) => config.clone(),
            Tls::Wanted => {
                let config = system_trust().await?;
                self.tls = Tls::Ready(config.clone());
                config
            }
        };
        connect::tls(stream, &self.host, config)
            .await
            .map_err(|error| (Trouble::Tls, format!("no TLS with {}: {error}", self.host)))
    }
}

/// How long until the next poll: up to a tenth more or less than `every`, so that many edges do
/// not come at once. `share` is random in `[0, 1)`.
pub(super) fn spread(every: Duration, share: f64) -> Duration {
    every.mul_f64(0.9 + 0.2 * share)
}

async fn system_trust() -> Result<Arc<ClientConfig>, (Trouble, String)> {
    let unusable = |reason: String| {
        let reason = format!("the system's trust anchors cannot be read: {reason}");
        (Trouble::Tls, reason)
    };
    let found = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs)
        .await
        .map_err(|error| unusable(error.to_string()))?
        .map_err(|error| unusable(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    // One that cannot be used is no reason to trust none of the others.
    let (added, ignored) = roots.add_parsable_certificates(found);
    if added == 0 {
        return Err(unusable(format!(
            "none, and {ignored} that cannot be used; install ca-certificates"
        )));
    }
    client_config(roots).map_err(|error| unusable(error.to_string()))
}

fn client_config(roots: RootCertStore) -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

async fn body(response: Response<Incoming>) -> Result<String, (Trouble, String)> {
    if let Some(coding) = response.headers().get(CONTENT_ENCODING)
        && !coding.as_bytes().eq_ignore_ascii_case(b"identity")
    {
        let reason = format!("it is sent in the coding {coding:?}, which was not asked for");
        return Err((Trouble::BadDocument, reason));
    }
    let limit = usize::try_from(LARGEST).unwrap_or(usize::MAX);
    let body = Limited::new(response.into_body(), limit);
    let bytes = body
        .collect()
        .await
        .map_err(|error| match error.is::<LengthLimitError>() {
            true => {
                let reason = format!("it is larger than {} MiB", LARGEST >> 20);
                (Trouble::BadDocument, reason)
            }
            false => (Trouble::Io, format!("the answer broke off: {error}")),
        })?;
    String::from_utf8(bytes.to_bytes().into())
        .map_err(|error| (Trouble::BadDocument, format!("it is not UTF-8: {error}")))
}

fn refusal(response: &Response<Incoming>) -> String {
    let status = response.status();
    match response.headers().get(LOCATION) {
        Some(to) if status.is_redirection() => {
            format!("it answers {status} to {to:?}, and redirects are not followed")
        }
        _ => format!("it answers {status}"),
    }
}

fn not_connected(error: &io::Error, addresses: &str) -> (Trouble, String) {
    let kind = match error.kind() {
        io::ErrorKind::ConnectionRefused => Trouble::Refused,
        io::ErrorKind::TimedOut => Trouble::Timeout,
        _ => Trouble::Io,
    };
    (kind, format!("no connection to {addresses}: {error}"))
}

fn broken(error: &hyper::Error) -> (Trouble, String) {
    match error.is_parse() {
        true => (
            Trouble::BadDocument,
            format!("what answers does not speak HTTP/1.1: {error}"),
        ),
        false => (Trouble::Io, format!("the connection broke: {error}")),
    }
}
