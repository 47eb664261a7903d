//! Replies of the app nodes and of the control service.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};

/// A whole reply.
pub(crate) type Reply = Response<Full<Bytes>>;

/// `text/html`.
pub(crate) const HTML: &str = "text/html; charset=utf-8";
/// `application/json`.
pub(crate) const JSON: &str = "application/json";
/// `text/plain`.
pub(crate) const TEXT: &str = "text/plain; charset=utf-8";

/// A reply that no cache may keep; widen `cache-control` where one may.
pub(crate) fn reply(status: StatusCode, media_type: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(body.into()));
    *reply.status_mut() = status;
    let fields = reply.headers_mut();
    fields.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply
}

/// Sets a field whose value was made from text; one that is no header value is left out.
pub(crate) fn set(reply: &mut Reply, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        reply.headers_mut().insert(name, value);
    }
}

/// 405, with the methods that are allowed: `GET, HEAD`.
pub(crate) fn not_allowed(methods: &str) -> Reply {
    let mut reply = reply(
        StatusCode::METHOD_NOT_ALLOWED,
        TEXT,
        "405 Method Not Allowed\n",
    );
    set(&mut reply, ALLOW, methods);
    reply
}
