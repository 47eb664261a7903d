//! One admin request to its answer: the only place where admin outcomes become HTTP.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{
    ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};

use super::access::Access;
use super::change::Asked;
use super::order::OrderAsked;
use super::{State, ready};
use crate::exchange::purging::{Purge, Target, Url, next_parameter};
use crate::observe::metrics;

/// An admin answer.
pub(super) type Answer = Response<Full<Bytes>>;

const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";

/// What there is, in the order in which it is shown.
const ENDPOINTS: [Endpoint; 15] = [
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
        "/maintenance",
        Page::Maintenance,
        "whether the site is closed for maintenance",
    ),
    Endpoint::reads(
        "/overload",
        Page::Overload,
        "how overloaded the process is, and what it gives up",
    ),
    Endpoint::reads(
        "/upstreams",
        Page::Upstreams,
        "upstreams, their endpoints and health",
    ),
    Endpoint {
        path: "/upstreams/change",
        allow: "POST",
        page: Page::Change,
        what: "change ?upstream=NAME&endpoint=ADDRESS by hand: mode=drain, down or enabled; weight=N or default; keep=true over reloads (wants the token)",
    },
    Endpoint::reads("/routes", Page::Routes, "routes in order of precedence"),
    Endpoint::reads(
        "/certificates",
        Page::Certificates,
        "certificates, how long each lasts, and how the next one comes",
    ),
    Endpoint {
        path: "/certificates/order",
        allow: "POST",
        page: Page::Order,
        what: "order certificates that are obtained by themselves now: all, or ?name=HOST; missing=true only where there is none (wants the token)",
    },
    Endpoint::reads(
        "/cache",
        Page::Cache,
        "the cache: sizes, the most used objects, the largest tags",
    ),
    Endpoint::reads(
        "/cache/inspect",
        Page::Inspect,
        "what is stored for ?url=https://host/path, and what a request would get now",
    ),
    Endpoint {
        path: "/cache/purge",
        allow: "POST",
        page: Page::Purge,
        what: "purge ?url=, ?tag=, ?prefix=, ?host= or ?all=true from the cache; soft=true makes stale, dry_run=true counts (wants the token)",
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
    Maintenance,
    Overload,
    Upstreams,
    Change,
    Routes,
    Certificates,
    Order,
    Cache,
    Inspect,
    Purge,
}

/// Answers; the body of a request is not read. hyper leaves the body of an answer to HEAD out.
pub(super) async fn answer<B>(request: &Request<B>, state: &Arc<dyn State>) -> Answer {
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
        Page::Maintenance => match blocking(state, |state| state.maintenance()).await {
            Some(found) => json_answer(StatusCode::OK, &found),
            None => error(StatusCode::INTERNAL_SERVER_ERROR, "the look-up failed"),
        },
        Page::Overload => json_answer(StatusCode::OK, &state.overload()),
        Page::Upstreams => json_answer(StatusCode::OK, &state.upstreams()),
        Page::Change => change(request.headers(), request.uri().query(), state),
        Page::Routes => json_answer(StatusCode::OK, &state.routes()),
        Page::Certificates => json_answer(StatusCode::OK, &state.certificates()),
        Page::Order => order(request.headers(), request.uri().query(), state),
        Page::Cache => match blocking(state, |state| state.cache()).await {
            Some(cache) => json_answer(StatusCode::OK, &cache),
            None => error(StatusCode::INTERNAL_SERVER_ERROR, "the look-up failed"),
        },
        Page::Inspect => inspect(request.uri().query(), state).await,
        Page::Purge => purge(request.headers(), request.uri().query(), state).await,
    }
}

/// Nothing, or the answer to who may not change state.
fn refused(headers: &HeaderMap, state: &dyn State) -> Option<Answer> {
    match Access::of(headers, state.token().as_ref()) {
        Access::Granted => None,
        Access::Disabled => Some(error(
            StatusCode::FORBIDDEN,
            "changes are off: set token in [admin] of the configuration",
        )),
        Access::NoToken => {
            let answer = error(
                StatusCode::UNAUTHORIZED,
                "this wants the admin token: Authorization: Bearer TOKEN",
            );
            Some(with(answer, WWW_AUTHENTICATE, "Bearer realm=\"tidegate\""))
        }
        Access::WrongToken => {
            tracing::warn!("a change was refused: wrong admin token");
            let answer = error(StatusCode::UNAUTHORIZED, "this is not the admin token");
            let challenge = "Bearer realm=\"tidegate\", error=\"invalid_token\"";
            Some(with(answer, WWW_AUTHENTICATE, challenge))
        }
    }
}

fn change(headers: &HeaderMap, query: Option<&str>, state: &Arc<dyn State>) -> Answer {
    if let Some(refused) = refused(headers, state.as_ref()) {
        return refused;
    }
    match Asked::from_query(query) {
        Err(why) => error(StatusCode::BAD_REQUEST, &why),
        Ok(asked) => match state.change(&asked) {
            Ok(endpoint) => json_answer(StatusCode::OK, &endpoint),
            Err(why) => error(StatusCode::NOT_FOUND, &why),
        },
    }
}

fn order(headers: &HeaderMap, query: Option<&str>, state: &Arc<dyn State>) -> Answer {
    if let Some(refused) = refused(headers, state.as_ref()) {
        return refused;
    }
    match OrderAsked::from_query(query) {
        Err(why) => error(StatusCode::BAD_REQUEST, &why),
        Ok(asked) => match state.order(&asked) {
            Ok(begun) => json_answer(StatusCode::OK, &begun),
            Err(why) => error(StatusCode::NOT_FOUND, &why),
        },
    }
}

async fn purge(headers: &HeaderMap, query: Option<&str>, state: &Arc<dyn State>) -> Answer {
    if let Some(refused) = refused(headers, state.as_ref()) {
        return refused;
    }
    let purge = match Purge::from_query(query) {
        Ok(purge) => purge,
        Err(why) => return error(StatusCode::BAD_REQUEST, &why),
    };
    let asked = purge.clone();
    let objects = blocking(state, move |state| state.purge(&asked)).await;
    let Some(objects) = objects else {
        return error(StatusCode::INTERNAL_SERVER_ERROR, "the purge failed");
    };
    let mode = if purge.soft { "soft" } else { "hard" };
    if purge.dry_run {
        return json_answer(
            StatusCode::OK,
            &json!({ "would_purge": objects, "mode": mode }),
        );
    }
    tracing::info!(targets = ?purge.targets, mode, objects, "purge");
    let body = json!({ "purged": objects, "mode": mode });
    if objects == 0
        && purge
            .targets
            .iter()
            .all(|target| matches!(target, Target::Url(_)))
    {
        let body = json!({ "purged": 0, "error": "nothing is stored for this URL" });
        return json_answer(StatusCode::NOT_FOUND, &body);
    }
    json_answer(StatusCode::OK, &body)
}

/// `?url=...`, and `header=NAME: VALUE` any number of times for what a request would say.
async fn inspect(query: Option<&str>, state: &Arc<dyn State>) -> Answer {
    let (url, fields) = match inspected(query.unwrap_or_default()) {
        Ok(asked) => asked,
        Err(why) => return error(StatusCode::BAD_REQUEST, &why),
    };
    match blocking(state, move |state| state.inspect(&url, &fields)).await {
        Some(found) => json_answer(StatusCode::OK, &found),
        None => error(StatusCode::INTERNAL_SERVER_ERROR, "the look-up failed"),
    }
}

fn inspected(mut query: &str) -> Result<(Url, HeaderMap), String> {
    let mut url = None;
    let mut fields = HeaderMap::new();
    while !query.is_empty() {
        let (name, value) = next_parameter(&mut query)?;
        match name {
            "url" => url = Some(Url::parse(&value)?),
            "header" => {
                let field = value.split_once(':').and_then(|(name, value)| {
                    let name = HeaderName::from_bytes(name.trim().as_bytes()).ok()?;
                    Some((name, HeaderValue::from_str(value.trim()).ok()?))
                });
                let wrong = || format!("header is NAME: VALUE, not {value:?}");
                let (name, value) = field.ok_or_else(wrong)?;
                fields.append(name, value);
            }
            other => return Err(format!("there is no parameter {other:?}")),
        }
    }
    let url = url.ok_or("name the page as ?url=https://host/path")?;
    Ok((url, fields))
}

/// Runs what may take a while off the event loop; `None` when it panicked.
async fn blocking<T: Send + 'static>(
    state: &Arc<dyn State>,
    work: impl FnOnce(&dyn State) -> T + Send + 'static,
) -> Option<T> {
    let state = Arc::clone(state);
    let done = tokio::task::spawn_blocking(move || work(state.as_ref()));
    done.await.ok()
}

fn error(status: StatusCode, why: &str) -> Answer {
    json_answer(status, &json!({ "error": why }))
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
            format!("{allow:<10} {path:<15} {what}\n")
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
