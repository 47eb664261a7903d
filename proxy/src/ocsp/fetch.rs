//! How a responder is asked: one POST over a connection of its own (RFC 6960 appendix A.1), all within
//! a deadline and a size. The answer is signed, so it needs no TLS, and going round in redirections
//! would bring nothing that the certificate does not name.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONNECTION, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderValue, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::upstreams::connect;

/// From the lookup of the name to the end of the answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Answers have some hundred bytes, with a delegate's certificates a few thousand.
const LARGEST: usize = 64 << 10;
const AGENT: &str = concat!("tidegate/", env!("CARGO_PKG_VERSION"));

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unanswered {
    #[error("{0}")]
    Unreachable(String),
    #[error("the responder answers {0}")]
    Refused(StatusCode),
}

/// The octets of the answer.
///
/// # Errors
/// There is none.
pub(super) async fn ask(responder: &Uri, request: Bytes) -> Result<Bytes, Unanswered> {
    match timeout(PATIENCE, exchange(responder, request)).await {
        Ok(answer) => answer,
        Err(_) => Err(Unanswered::Unreachable(format!(
            "no whole answer within {PATIENCE:?}"
        ))),
    }
}

async fn exchange(responder: &Uri, request: Bytes) -> Result<Bytes, Unanswered> {
    let not = Unanswered::Unreachable;
    let authority = responder.authority();
    let authority = authority.ok_or_else(|| not("its URL has no host".into()))?;
    let stream = connect::to(authority, 80).await.map_err(not)?;
    let broken = |error: hyper::Error| not(format!("the connection broke: {error}"));
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    // Ends with this call, whatever comes of it.
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let path = responder.path_and_query().map_or("/", |it| it.as_str());
    let request = Request::post(path)
        .header(HOST, authority.as_str())
        .header(USER_AGENT, AGENT)
        .header(CONNECTION, "close")
        .header(ACCEPT, "application/ocsp-response")
        .header(
            CONTENT_TYPE,
            HeaderValue::from_static("application/ocsp-request"),
        )
        .body(Full::new(request));
    let request = request.map_err(|error| not(format!("its URL cannot be asked: {error}")))?;
    let response = sender.send_request(request).await.map_err(broken)?;
    if response.status() != StatusCode::OK {
        return Err(Unanswered::Refused(response.status()));
    }
    let body = Limited::new(response.into_body(), LARGEST).collect().await;
    let body = body.map_err(|error| not(format!("the answer broke off: {error}")))?;
    Ok(body.to_bytes())
}
