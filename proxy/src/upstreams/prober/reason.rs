//! Why a check failed, in words for a log line.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use pingora::ErrorType;

use crate::upstreams::dial::DialError;

/// `connect: refused`, `status 503`, `timeout after 1s`, ...
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reason(Cow<'static, str>);

impl Reason {
    pub(super) fn new(words: impl Into<Cow<'static, str>>) -> Self {
        Self(words.into())
    }

    pub(super) fn timeout(after: Duration) -> Self {
        Self(format!("timeout after {after:?}").into())
    }

    pub(super) fn status(status: http::StatusCode) -> Self {
        Self(format!("status {}", status.as_u16()).into())
    }

    /// The request could not be made or sent.
    pub(super) fn sending(error: &pingora::Error) -> Self {
        Self(format!("request: {}", error.etype().as_str()).into())
    }

    /// The reply broke off or is none.
    pub(super) fn reading(error: &pingora::Error) -> Self {
        Self(match error.etype() {
            ErrorType::ConnectionClosed => "the connection was closed before the reply".into(),
            ErrorType::InvalidHTTPHeader | ErrorType::InvalidH2 => "the reply is no HTTP".into(),
            other => format!("reply: {}", other.as_str()).into(),
        })
    }
}

impl From<DialError> for Reason {
    fn from(error: DialError) -> Self {
        Self(error.reason())
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
