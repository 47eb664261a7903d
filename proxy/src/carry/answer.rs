//! Replies that are made here: refusals, failures, redirects, what the configuration says. Where a
//! route has pages for its errors, they get one.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{StatusCode, Version};
use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;

use super::failure::{ClientFault, Failure};
use super::grpc;
use super::respond::{self, Refused};
use super::turn::{Broken, Turn};
use crate::exchange::guard::Reject;
use crate::exchange::pages::{Cover, Facts, Pages};
use crate::filter::{Reply, Step};
use crate::snapshot::Route;

/// What stands in the configuration is meant as it stands there.
pub(super) fn is_meant(reply: &Reply) -> bool {
    reply.by == Step::Respond && !reply.body.is_empty()
}

impl Turn {
    pub(super) async fn reject(
        &mut self,
        session: &mut ServerSession,
        reject: Reject,
    ) -> Result<(), Broken> {
        self.record.why = Some(reject.as_str());
        match Refused::Malformed(reject).is_limit() {
            true => self
                .info
                .listener
                .rejected(reject.as_str(), self.info.peer.ip()),
            false => self.settings.metrics.rejected(reject.as_str()),
        }
        self.info.malformed.fetch_add(1, Ordering::Relaxed);
        // Where one message ends is no longer certain (RFC 9112 section 11.2).
        session.set_keepalive(None);
        self.error(session, None, reject.status(), reject.explanation(), |_| {})
            .await
    }

    /// The client waits for this before it sends its body (RFC 9110 section 10.1.1).
    pub(super) async fn answer_expectation(
        &self,
        session: &mut ServerSession,
    ) -> Result<(), Failure> {
        let expects = session.req_header().headers.contains_key(header::EXPECT)
            && session.req_header().version != Version::HTTP_10;
        if !expects {
            return Ok(());
        }
        respond::proceed(session)
            .await
            .map_err(|_| Failure::Client(ClientFault::Gone))
    }

    /// Tells the client, if nothing was told yet, that there is no reply for it.
    pub(super) async fn fail(
        &mut self,
        session: &mut ServerSession,
        route: Option<&Route>,
        failure: Failure,
    ) -> Result<(), Broken> {
        self.fail_with(session, route, failure, |_| {}).await
    }

    /// [`Turn::fail`] with more in the head.
    pub(super) async fn fail_with(
        &mut self,
        session: &mut ServerSession,
        route: Option<&Route>,
        failure: Failure,
        more: impl FnOnce(&mut ResponseHeader),
    ) -> Result<(), Broken> {
        let bad_chunk = self.info.bad_chunk.load(Ordering::Relaxed);
        let failure = match failure {
            Failure::Client(_) if bad_chunk => Failure::Client(ClientFault::BadBody),
            other => other,
        };
        self.record.why = Some(failure.as_str());
        match failure {
            Failure::Client(ClientFault::BadBody) => self.settings.metrics.rejected("bad_body"),
            Failure::Client(
                ClientFault::BodyTimeout | ClientFault::TooSlow(_) | ClientFault::BodyTooLarge,
            ) => {
                let client = self.info.peer.ip();
                self.info.listener.rejected(failure.as_str(), client);
            }
            _ => {}
        }
        let told = session
            .response_written()
            .is_some_and(|head| !head.status.is_informational());
        if told && failure != Failure::Client(ClientFault::Gone) {
            self.break_call_off(session, failure).await;
        }
        if told || failure == Failure::Client(ClientFault::Gone) {
            return Err(Broken);
        }
        if matches!(failure, Failure::Client(_)) {
            session.set_keepalive(None);
        }
        let status = failure.status();
        self.error(session, route, status, respond::explanation(failure), more)
            .await
    }

    pub(super) async fn reply(
        &mut self,
        session: &mut ServerSession,
        route: Option<&Route>,
        reply: &Reply,
    ) -> Result<(), Broken> {
        let mut head = respond::head(reply.status, reply.headers.len() + 1)?;
        for (name, value) in &reply.headers {
            head.append_header(name, value.clone())?;
        }
        if reply.status != StatusCode::NO_CONTENT && reply.status != StatusCode::NOT_MODIFIED {
            head.insert_header(header::CONTENT_LENGTH, HeaderValue::from(reply.body.len()))?;
        }
        let mut body = reply.body.clone();
        let is_error = reply.status.is_client_error() || reply.status.is_server_error();
        if is_error && let Some(dialect) = grpc::spoken(session) {
            let text = reply.status.canonical_reason().unwrap_or_default();
            return self.refuse_call(session, route, dialect, head, text).await;
        }
        if !is_meant(reply)
            && let Some(cover) = self.cover(session, route, reply.status)
        {
            cover.put_on(&mut *head);
            body = cover.body;
        }
        if let Some(route) = route {
            route.chain.response(&mut *head);
        }
        self.write(session, head, body).await
    }

    /// What a certificate authority wants to see (RFC 8555 section 8.3).
    pub(super) async fn challenge(
        &mut self,
        session: &mut ServerSession,
        answer: String,
    ) -> Result<(), Broken> {
        let mut head = respond::head(StatusCode::OK, 3)?;
        head.insert_header(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/octet-stream"),
        )?;
        head.insert_header(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))?;
        head.insert_header(header::CONTENT_LENGTH, HeaderValue::from(answer.len()))?;
        self.write(session, head, Bytes::from(answer)).await
    }

    pub(super) async fn moved(
        &mut self,
        session: &mut ServerSession,
        route: &Route,
        location: &str,
    ) -> Result<(), Broken> {
        let mut head = respond::head(StatusCode::MOVED_PERMANENTLY, 2)?;
        head.insert_header(header::LOCATION, location)?;
        head.insert_header(header::CONTENT_LENGTH, HeaderValue::from_static("0"))?;
        route.chain.response(&mut *head);
        self.write(session, head, Bytes::new()).await
    }

    pub(super) async fn write(
        &mut self,
        session: &mut ServerSession,
        head: Box<ResponseHeader>,
        body: Bytes,
    ) -> Result<(), Broken> {
        respond::write(session, head, body, &self.id)
            .await
            .map_err(|_| {
                self.record.why = Some("client_gone");
                Broken
            })
    }

    pub(super) async fn error(
        &mut self,
        session: &mut ServerSession,
        route: Option<&Route>,
        status: StatusCode,
        explanation: &str,
        more: impl FnOnce(&mut ResponseHeader),
    ) -> Result<(), Broken> {
        let (mut head, mut body) = respond::error(status, explanation, &self.id)?;
        more(&mut head);
        if let Some(dialect) = grpc::spoken(session) {
            return self
                .refuse_call(session, route, dialect, head, explanation)
                .await;
        }
        if let Some(cover) = self.cover(session, route, status) {
            cover.put_on(&mut *head);
            body = cover.body;
        }
        if let Some(route) = route {
            route.chain.response(&mut *head);
        }
        self.write(session, head, body).await
    }

    /// Whether the client sees the site though it is closed.
    pub(super) fn is_let_in(&self) -> bool {
        let maintenance = self.snapshot.maintenance.as_ref();
        maintenance.is_none_or(|maintenance| maintenance.lets_in(self.record.client))
    }

    /// The site is closed for maintenance.
    pub(super) async fn closed(
        &mut self,
        session: &mut ServerSession,
        route: Option<&Route>,
    ) -> Result<(), Broken> {
        self.record.why = Some("maintenance");
        let status = StatusCode::SERVICE_UNAVAILABLE;
        let explanation = "The site is closed for maintenance.";
        let (mut head, mut body) = respond::error(status, explanation, &self.id)?;
        let maintenance = self.snapshot.maintenance.as_deref();
        if let Some(maintenance) = maintenance {
            head.insert_header(header::RETRY_AFTER, maintenance.retry_after())?;
        }
        if let Some(dialect) = grpc::spoken(session) {
            return self
                .refuse_call(session, route, dialect, head, explanation)
                .await;
        }
        let asked = &session.req_header().headers;
        let own = maintenance.and_then(|it| it.cover(asked, self.facts(status)));
        if let Some(cover) = own.or_else(|| self.cover(session, route, status)) {
            cover.put_on(&mut *head);
            body = cover.body;
        }
        if let Some(route) = route {
            route.chain.response(&mut *head);
        }
        self.write(session, head, body).await
    }

    /// There is more to do than can be done, and this request is not among the most important.
    pub(super) async fn shed(
        &mut self,
        session: &mut ServerSession,
        route: usize,
    ) -> Result<(), Broken> {
        let snapshot = self.snapshot.clone();
        self.record.why = Some("overload");
        if let Some(settings) = snapshot.config.routes.get(route) {
            snapshot.load.count(settings.priority);
        }
        let after = snapshot.config.overload.retry_after.as_secs().max(1);
        let explanation = "The server is busy.";
        let status = StatusCode::SERVICE_UNAVAILABLE;
        let route = snapshot.routes.get(route);
        self.error(session, route, status, explanation, |head| {
            // A number: it cannot be refused.
            let _ = head.insert_header(header::RETRY_AFTER, HeaderValue::from(after));
        })
        .await
    }

    /// What stands in for the body of an error that was found here.
    pub(super) fn cover(
        &self,
        session: &ServerSession,
        route: Option<&Route>,
        status: StatusCode,
    ) -> Option<Cover> {
        let pages = self.pages(route, status)?;
        pages.own(&session.req_header().headers, self.facts(status))
    }

    /// What stands in for the body of an app's reply with this status and these fields.
    pub(super) fn cover_of(
        &self,
        session: &ServerSession,
        route: &Route,
        status: StatusCode,
        reply: &HeaderMap,
    ) -> Option<Cover> {
        let pages = self.pages(Some(route), status)?;
        pages.of_upstream(&session.req_header().headers, reply, self.facts(status))
    }

    fn pages<'a>(&'a self, route: Option<&'a Route>, status: StatusCode) -> Option<&'a Pages> {
        if !status.is_client_error() && !status.is_server_error() {
            return None;
        }
        match route {
            Some(route) => route.pages.as_deref(),
            None => self.snapshot.pages.as_deref(),
        }
    }

    fn facts(&self, status: StatusCode) -> Facts<'_> {
        Facts {
            status,
            id: self.id.to_str().unwrap_or_default(),
        }
    }
}
