//! A reply that stands in the configuration.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};

use super::{Reply, Step};

/// A compiled fixed reply, for a filter as for a route's action. Making one
/// copies no body.
#[derive(Debug)]
pub(crate) struct FixedReply {
    status: StatusCode,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Bytes,
}

impl FixedReply {
    /// Compiles a reply; without a body there is no Content-Type.
    #[must_use]
    pub(crate) fn new(respond: &conf::Respond) -> Self {
        let body = Bytes::copy_from_slice(respond.body.as_bytes());
        let headers = if body.is_empty() {
            Vec::new()
        } else {
            vec![(header::CONTENT_TYPE, respond.content_type.clone())]
        };
        Self {
            status: respond.status,
            headers,
            body,
        }
    }

    /// The reply, the same for every request.
    #[must_use]
    pub(crate) fn reply(&self) -> Reply {
        Reply {
            by: Step::Respond,
            status: self.status,
            headers: self.headers.clone(),
            body: self.body.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, StatusCode, header};

    use super::FixedReply;

    fn respond(status: StatusCode, body: &str) -> conf::Respond {
        let content_type = HeaderValue::from_static("application/json");
        conf::Respond {
            status,
            body: body.to_owned(),
            content_type,
        }
    }

    #[test]
    fn the_configured_reply_is_given() {
        let reply = FixedReply::new(&respond(StatusCode::OK, "{}")).reply();
        assert_eq!(reply.status, StatusCode::OK);
        let json = HeaderValue::from_static("application/json");
        assert_eq!(reply.headers, [(header::CONTENT_TYPE, json)]);
        assert_eq!(&reply.body[..], b"{}");
    }

    #[test]
    fn without_a_body_there_is_no_content_type() {
        let reply = FixedReply::new(&respond(StatusCode::NO_CONTENT, "")).reply();
        assert!(reply.headers.is_empty());
    }
}
