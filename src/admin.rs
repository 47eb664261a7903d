//! Asks the admin server of a running edge, which is found by the configuration file that it runs on.

use std::time::Duration;

use anyhow::{Context, anyhow};
use conf::AdminAddress;
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::failure::Failure;

/// A purge of a large cache takes a while; one that takes longer than this hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where the admin server is, and the token that it wants.
pub(crate) struct Admin {
    address: AdminAddress,
    token: Option<conf::Secret>,
}

impl Admin {
    /// The admin server of this configuration.
    ///
    /// # Errors
    /// The configuration has none.
    pub(crate) fn of(config: &conf::Config) -> Result<Self, Failure> {
        let admin = config.admin.as_ref().ok_or_else(|| {
            Failure::wrong(anyhow!(
                "this configuration has no [admin] section, so a running edge cannot be asked: add address = \"127.0.0.1:9901\" and a token to it"
            ))
        })?;
        Ok(Self {
            address: admin.address.clone(),
            token: admin.token.clone(),
        })
    }

    /// Sends a request without a body. Returns what the answer says.
    ///
    /// # Errors
    /// It cannot be reached, or refuses.
    pub(crate) fn ask(&self, method: &Method, target: &str) -> Result<Value, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start")?;
        let asked = async {
            tokio::time::timeout(PATIENCE, self.exchange(method, target))
                .await
                .map_err(|_| anyhow!("no answer within {} s", PATIENCE.as_secs()))?
        };
        let (status, body) = runtime
            .block_on(asked)
            .with_context(|| format!("admin server at {}", self.address))?;
        let value: Value = serde_json::from_slice(&body)
            .with_context(|| format!("the admin server at {} answers strangely", self.address))?;
        match value["error"].as_str() {
            // Nothing found is an answer.
            Some(_) if status == StatusCode::NOT_FOUND && value["purged"] == 0 => Ok(value),
            Some(why) if status.is_client_error() => Err(Failure::wrong(anyhow!("{why}"))),
            Some(why) => Err(Failure::failed(anyhow!("{why}"))),
            None => Ok(value),
        }
    }

    async fn exchange(&self, method: &Method, target: &str) -> anyhow::Result<(StatusCode, Bytes)> {
        let unreachable = "cannot be reached; is the edge running?";
        match &self.address {
            AdminAddress::Tcp(address) => {
                let stream = TcpStream::connect(address).await.context(unreachable)?;
                self.over(stream, method, target).await
            }
            AdminAddress::Unix(path) => {
                let stream = UnixStream::connect(path).await.context(unreachable)?;
                self.over(stream, method, target).await
            }
        }
    }

    async fn over(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        method: &Method,
        target: &str,
    ) -> anyhow::Result<(StatusCode, Bytes)> {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(connection);
        let mut request = Request::builder()
            .method(method)
            .uri(target)
            .header("host", "admin");
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {}", token.expose()));
        }
        let answer = sender
            .send_request(request.body(Empty::<Bytes>::new())?)
            .await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        drop(sender);
        driver.abort();
        Ok((status, body))
    }
}

/// `value` for a query: whatever is not unreserved is percent-encoded (RFC 3986 section 2).
pub(crate) fn encoded(value: &str) -> String {
    use std::fmt::Write as _;
    let mut encoded = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_encoded_so_that_nothing_of_it_ends_it() {
        assert_eq!(
            encoded("https://a/b?c=1&d e#f"),
            "https%3A%2F%2Fa%2Fb%3Fc%3D1%26d%20e%23f"
        );
        assert_eq!(encoded("p-42_x.~"), "p-42_x.~");
    }
}
