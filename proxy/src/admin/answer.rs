//! One admin request to its answer: the only place where admin outcomes become HTTP.

use bytes::Bytes;
use http::header::{
    ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};

use super::purge::{Access, PurgeOutcome, PurgeTarget};
use super::{State, ready};
use crate::observe::metrics;

/// An admin answer.
pub(super) type Answer = Response<Full<Bytes>>;

const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";

/// What there is, in the order in which it is shown.
const ENDPOINTS: [Endpoint; 8] = [
    Endpoint::reads("/", Page::Index, "this list"),
    Endpoint::reads(
        "/metrics",
        Page::Metrics,
        "metrics in Prometheus' text format",
    ),
    Endpoint::reads("/live", Page::Live, "200 while the process works"),
    Endpoint::reads(
        "/ready",
        Page::Ready,
        "200 while every listener takes connections",
    ),
    Endpoint::reads(
        "/config",
        Page::Config,
        "the configuration in force and the last reload",
    ),
    Endpoint::reads(
        "/upstreams",
        Page::Upstreams,
        "upstreams, their endpoints and health",
    ),
    Endpoint::reads("/routes", Page::Routes, "routes in order of precedence"),
    Endpoint {
        path: "/cache/purge",
        allow: "POST",
        page: Page::Purge,
        what: "remove ?url=https://host/path from the cache (wants the token)",
    },
];

struct Endpoint {
    path: &'static str,
    /// The Allow field's value.
    allow: &'static str,
    page: Page,
    what: &'static str,
}

impl Endpoint {
    const fn reads(path: &'static str, page: Page, what: &'static str) -> Self {
        Self {
            path,
            allow: "GET, HEAD",
            page,
            what,
        }
    }

    fn allows(&self, method: &Method) -> bool {
        self.allow
            .split(", ")
            .any(|allowed| allowed == method.as_str())
    }
}

#[derive(Clone, Copy)]
enum Page {
    Index,
    Metrics,
    Live,
    Ready,
    Config,
    Upstreams,
    Routes,
    Purge,
}

/// Answers; the body of a request is not read. hyper leaves the body of an answer to HEAD out.
pub(super) async fn answer<B>(request: &Request<B>, state: &dyn State) -> Answer {
    let path = request.uri().path();
    let Some(endpoint) = ENDPOINTS.iter().find(|endpoint| endpoint.path == path) else {
        let there: Vec<&str> = ENDPOINTS.iter().map(|endpoint| endpoint.path).collect();
        let body = json!({ "error": "there is no such page", "pages": there });
        return json_answer(StatusCode::NOT_FOUND, &body);
    };
    if !endpoint.allows(request.method()) {
        let body = json!({ "error": format!("{path} takes {} only", endpoint.allow) });
        let answer = json_answer(StatusCode::METHOD_NOT_ALLOWED, &body);
        return with(answer, ALLOW, endpoint.allow);
    }
    match endpoint.page {
        Page::Index => index(request.headers()),
        Page::Metrics => {
            let text = state.metrics_text();
            plain(StatusCode::OK, metrics::CONTENT_TYPE, text)
        }
        Page::Live if state.live() => plain(StatusCode::OK, TEXT, "live\n"),
        Page::Live => plain(StatusCode::SERVICE_UNAVAILABLE, TEXT, "not live\n"),
        Page::Ready => {
            let (ready, report) = ready::report(state.ready()).await;
            let status = if ready {
                StatusCode::OK
            } else {
                StatusCode::SERVICE_UNAVAILABLE
            };
            json_answer(status, &report)
        }
        Page::Config => json_answer(StatusCode::OK, &state.config()),
        Page::Upstreams => json_answer(StatusCode::OK, &state.upstreams()),
        Page::Routes => json_answer(StatusCode::OK, &state.routes()),
        Page::Purge => purge(request.headers(), request.uri().query(), state),
    }
}

fn purge(headers: &HeaderMap, query: Option<&str>, state: &dyn State) -> Answer {
    let refused = |status, error: &str| json_answer(status, &json!({ "error": error }));
    match Access::of(headers, state.token().as_ref()) {
        Access::Granted => {}
        Access::Disabled => {
            return refused(
                StatusCode::FORBIDDEN,
                "purging is off: set token in [admin] of the configuration",
            );
        }
        Access::NoToken => {
            let answer = refused(
                StatusCode::UNAUTHORIZED,
                "this wants the admin token: Authorization: Bearer TOKEN",
            );
            return with(answer, WWW_AUTHENTICATE, "Bearer realm=\"tidegate\"");
        }
        Access::WrongToken => {
            tracing::warn!("a purge was refused: wrong admin token");
            let answer = refused(StatusCode::UNAUTHORIZED, "this is not the admin token");
            let challenge = "Bearer realm=\"tidegate\", error=\"invalid_token\"";
            return with(answer, WWW_AUTHENTICATE, challenge);
        }
    }
    let target = match PurgeTarget::from_query(query) {
        Ok(target) => target,
        Err(error) => return refused(StatusCode::BAD_REQUEST, error),
    };
    let outcome = state.purge(&target);
    tracing::info!(
        host = target.host,
        path = target.path,
        stored = outcome == PurgeOutcome::Purged,
        "purge"
    );
    match outcome {
        PurgeOutcome::Purged => json_answer(StatusCode::OK, &json!({ "purged": 1 })),
        PurgeOutcome::NotStored => {
            let body = json!({ "purged": 0, "error": "nothing is stored for this URL" });
            json_answer(StatusCode::NOT_FOUND, &body)
        }
    }
}

/// A list for people: HTML for a browser, text for a terminal.
fn index(headers: &HeaderMap) -> Answer {
    let wants_html = headers
        .get(ACCEPT)
        .is_some_and(|accept| memchr::memmem::find(accept.as_bytes(), b"text/html").is_some());
    if !wants_html {
        let line = |endpoint: &Endpoint| {
            let Endpoint {
                path, allow, what, ..
            } = endpoint;
            format!("{allow:<10} {path:<13} {what}\n")
        };
        return plain(
            StatusCode::OK,
            TEXT,
            ENDPOINTS.iter().map(line).collect::<String>(),
        );
    }
    let row = |endpoint: &Endpoint| {
        let Endpoint { path, what, .. } = endpoint;
        if endpoint.allows(&Method::GET) {
            format!("<li><a href=\"{path}\">{path}</a> {what}</li>\n")
        } else {
            format!("<li>{} {path} {what}</li>\n", endpoint.allow)
        }
    };
    let rows: String = ENDPOINTS.iter().map(row).collect();
    let page = format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>Tidegate admin</title>\n\
         <h1>Tidegate admin</h1>\n<ul>\n{rows}</ul>\n</html>\n"
    );
    plain(StatusCode::OK, HTML, page)
}

/// Indented, since people read it with curl; machines do not mind.
fn json_answer(status: StatusCode, body: &Value) -> Answer {
    plain(status, JSON, format!("{body:#}\n"))
}

fn plain(status: StatusCode, media_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let answer = with(answer, CONTENT_TYPE, media_type);
    let answer = with(answer, CACHE_CONTROL, "no-store");
    with(answer, X_CONTENT_TYPE_OPTIONS, "nosniff")
}

fn with(mut answer: Answer, name: HeaderName, value: &'static str) -> Answer {
    answer
        .headers_mut()
        .insert(name, HeaderValue::from_static(value));
    answer
}
