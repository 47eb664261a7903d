//! PURGE, the method that Varnish and others know for it, from clients who may.
//!
//! `Soft-Purge: 1` makes stale instead of removing; the fields that carry tags in responses name tags
//! instead of the page.

use bytes::Bytes;
use cache::tags;
use http::header::{self, HeaderValue};
use http::{HeaderName, Method, StatusCode};
use pingora::protocols::http::ServerSession;

use super::purge::carry_out;
use crate::carry::respond;
use crate::carry::turn::{Broken, Turn};
use crate::clock;
use crate::exchange::Way;
use crate::exchange::purging::{Purge, Target, Url};
use crate::observe::CacheResult;
use crate::snapshot::{Route, Snapshot};

static SOFT_PURGE: HeaderName = HeaderName::from_static("soft-purge");

/// Whether a request of this method is one, where the method means something here.
pub(crate) fn is_asked(method: &Method, snapshot: &Snapshot) -> bool {
    method.as_str() == "PURGE" && !snapshot.config.cache.purge_from.is_empty()
}

/// Carries it out, if this client may, and answers with the number of objects.
pub(crate) async fn answer(
    turn: &mut Turn,
    session: &mut ServerSession,
    route: &Route,
    way: &Way,
) -> Result<(), Broken> {
    turn.record.cache = CacheResult::Bypass;
    let settings = &turn.snapshot.config.cache;
    let client = turn.record.client;
    if !settings
        .purge_from
        .iter()
        .any(|network| network.contains(&client))
    {
        turn.record.why = Some("purge_refused");
        let status = StatusCode::FORBIDDEN;
        let explanation = "This client may not purge.";
        return turn
            .error(session, Some(route), status, explanation, |_| {})
            .await;
    }
    let fields = &session.req_header().headers;
    let Ok(tags) = tags::read(fields, &settings.tags) else {
        let status = StatusCode::BAD_REQUEST;
        let explanation = "This PURGE names too many tags.";
        return turn
            .error(session, Some(route), status, explanation, |_| {})
            .await;
    };
    let soft = fields.get(&SOFT_PURGE);
    let soft = soft.is_some_and(|value| value.as_bytes() != b"0");
    let snapshot = turn.snapshot.clone();
    let targets = match tags.is_empty() {
        true => vec![Target::Url(url(turn.scheme(session), way))],
        false => tags.into_iter().map(Target::Tag).collect(),
    };
    let purge = Purge {
        targets,
        soft,
        dry_run: false,
    };
    let work = tokio::task::spawn_blocking(move || carry_out(&snapshot, &purge, clock::wall()));
    let objects = work.await.map_err(|_| Broken)?;
    if objects > 0 {
        turn.snapshot.cache.counts.purged();
    }
    tracing::info!(route = route.name, path = way.path, objects, "PURGE");
    let body = Bytes::from(format!("{{\"purged\": {objects}}}\n"));
    let mut head = respond::head(StatusCode::OK, 3)?;
    head.insert_header(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    )?;
    head.insert_header(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))?;
    head.insert_header(header::CONTENT_LENGTH, HeaderValue::from(body.len()))?;
    route.chain.response(&mut *head);
    turn.write(session, head, body).await
}

/// The page that a way leads to.
fn url(scheme: &'static str, way: &Way) -> Url {
    let (path, query) = way.as_asked();
    Url {
        scheme,
        host: way.authority.clone(),
        path: path.to_owned(),
        query: query.map(str::to_owned),
    }
}
