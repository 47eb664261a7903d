//! One request from its head to the end of its reply.

use std::sync::Arc;
use std::time::Duration;

use cache::status::{CacheStatus, Forward};
use http::header::{self, HeaderName, HeaderValue};
use http::{Method, StatusCode, Version};
use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;
use static_server::{Answer, Body, Request as FileRequest, Sending, Site};

use super::account::{self, Arrival};
use super::cached::{self, Cached};
use super::failure::{ClientFault, Failure};
use super::upstream::{Begun, Outgoing, Upload, is_streamed};
use super::{Carrier, Held, files, forward, grpc, request, sticky, stored};
use crate::clock;
use crate::exchange::caching::Caching;
use crate::exchange::guard::{Reject, Upgrade};
use crate::exchange::onward::{self, Origin, TakesTrailers};
use crate::exchange::{self, Asked, Course, Way, websocket};
use crate::listen::quic::is_early;
use crate::listen::{ConnInfo, ListenerSettings, NO_PLACE, is_h2, request_trailers};
use crate::observe::{CacheResult, Protocol, Record};
use crate::snapshot::{Action, Route};
use crate::upstreams::{Addresses, Upstream};

const EARLY_DATA: HeaderName = HeaderName::from_static("early-data");

/// The reply was not written whole: the connection cannot be used again.
pub(super) struct Broken;

impl From<Box<pingora::Error>> for Broken {
    fn from(_: Box<pingora::Error>) -> Self {
        Self
    }
}

/// See the module's text.
pub(super) struct Turn {
    pub(super) carrier: Arc<Carrier>,
    pub(super) snapshot: Arc<Held>,
    pub(super) info: Arc<ConnInfo>,
    pub(super) settings: Arc<ListenerSettings>,
    pub(super) record: Record,
    /// The record's id as it is sent.
    pub(super) id: HeaderValue,
    /// What the lane did for the request before it was left to this one.
    pub(super) begun: Option<Begun>,
    /// Octets of the body that the lane sent up as they came; the session has the rest.
    passed: Option<u64>,
}

/// A request that came in, and was begun, on the lane.
pub(crate) struct Pending {
    pub(super) snapshot: Arc<Held>,
    pub(super) settings: Arc<ListenerSettings>,
    pub(super) record: Record,
    pub(super) begun: Begun,
}

impl Pending {
    /// Part of the request's body was sent up as it came.
    pub(crate) fn is_under_way(&self) -> bool {
        self.begun.has_passed().is_some()
    }
}

impl Turn {
    pub(super) fn new(carrier: Arc<Carrier>, info: Arc<ConnInfo>, session: &ServerSession) -> Self {
        let snapshot = carrier.snapshot();
        let settings = info.listener.settings.load_full();
        let head = session.req_header();
        let authority = head.uri.authority().filter(|_| is_h2(session));
        let record = account::open(
            &snapshot,
            &Arrival {
                info: &info,
                settings: &settings,
                head: &**head,
                protocol: match head.version {
                    Version::HTTP_3 => Protocol::Http3,
                    Version::HTTP_2 => Protocol::Http2,
                    Version::HTTP_10 => Protocol::Http10,
                    _ => Protocol::Http11,
                },
                authority: authority.map(|authority| authority.as_str()),
                target: head.raw_path(),
                start: clock::now(),
                wall: clock::wall(),
            },
        );
        Self {
            carrier,
            snapshot,
            info,
            settings,
            id: account::id_value(record.id),
            record,
            begun: None,
            passed: None,
        }
    }

    /// Goes on with what the lane began.
    pub(super) fn pending(carrier: Arc<Carrier>, info: Arc<ConnInfo>, pending: Pending) -> Self {
        Self {
            carrier,
            info,
            id: account::id_value(pending.record.id),
            snapshot: pending.snapshot,
            settings: pending.settings,
            record: pending.record,
            passed: pending.begun.has_passed(),
            begun: Some(pending.begun),
        }
    }

    /// Serves the request; false when the connection cannot be used again.
    pub(super) async fn run(mut self, session: &mut ServerSession) -> bool {
        let timeout = Some(self.settings.limits.body_timeout);
        session.set_read_timeout(timeout);
        session.set_write_timeout(timeout);
        let whole = self.serve(session).await.is_ok();
        self.finish(session, whole);
        whole
    }

    async fn serve(&mut self, session: &mut ServerSession) -> Result<(), Broken> {
        let snapshot = self.snapshot.clone();
        let trusted = &snapshot.config.server.trusted_proxies;
        request::certify(session.req_header_mut(), &self.info, trusted)?;
        let head = session.req_header();
        let Ok(target) = std::str::from_utf8(head.raw_path()) else {
            return self.reject(session, Reject::BadTarget).await;
        };
        // A WebSocket is a GET, and says more than one behind it.
        if is_early(head) && (!head.method.is_safe() || websocket::is_on_stream(&head.extensions)) {
            self.record.why = Some("early_data");
            let explanation = "The request came before the handshake was done; send it again.";
            return self
                .error(session, None, StatusCode::TOO_EARLY, explanation, |_| {})
                .await;
        }
        let course = exchange::course(
            &snapshot.router,
            &Asked {
                head: &**head,
                listener: usize::from(self.record.listener),
                tls: self.info.tls.is_some(),
                target,
                h2: is_h2(session).then_some(&**head),
                max_fields: self.settings.limits.max_headers,
                merge_slashes: snapshot.config.server.merge_slashes,
                begun: self.begun.as_ref().and(self.record.route).map(usize::from),
            },
        );
        match course {
            Course::Malformed(reject) => self.reject(session, reject).await,
            Course::NotFound => {
                self.record.why = Some("no_route");
                let explanation = "No route of this server matches the request.";
                self.error(session, None, StatusCode::NOT_FOUND, explanation, |_| {})
                    .await
            }
            Course::MethodNotAllowed(allow) => {
                self.record.why = Some("no_route_for_method");
                let explanation = "No route of this server takes this method for this path.";
                let status = StatusCode::METHOD_NOT_ALLOWED;
                self.error(session, None, status, explanation, |head| {
                    // A list of tokens: it cannot be refused.
                    let _ = head.insert_header(header::ALLOW, allow);
                })
                .await
            }
            Course::Challenge(answer) => {
                self.record.why = Some("acme_challenge");
                self.challenge(session, answer).await
            }
            // What was begun was let in.
            Course::Closed(way) if self.begun.is_none() && !self.is_let_in() => {
                self.record.route = u16::try_from(way.route).ok();
                self.closed(session, snapshot.routes.get(way.route)).await
            }
            Course::Shed(way) if self.begun.is_none() => {
                self.record.route = u16::try_from(way.route).ok();
                self.shed(session, way.route).await
            }
            Course::Route(way) | Course::Closed(way) | Course::Shed(way) => {
                self.record.route = u16::try_from(way.route).ok();
                match snapshot.routes.get(way.route) {
                    Some(route) => self.enter(session, route, way).await,
                    None => Err(Broken),
                }
            }
        }
    }

    async fn enter(
        &mut self,
        session: &mut ServerSession,
        route: &Route,
        mut way: Way,
    ) -> Result<(), Broken> {
        let tls = self.info.tls.is_some();
        let head = session.req_header_mut();
        // What the client says of its connection is done before the filters add what it must
        // not take away.
        request::enter(head, &way.authority)?;
        match exchange::filtered(&route.chain, &mut way, self.record.client, tls, head) {
            None => self.act(session, route, way).await,
            Some(reply) => {
                self.record.why = Some(reply.by.as_str());
                self.reply(session, Some(route), &reply).await
            }
        }
    }

    async fn act(
        &mut self,
        session: &mut ServerSession,
        route: &Route,
        way: Way,
    ) -> Result<(), Broken> {
        let opens = websocket::is_on_stream(&session.req_header().extensions);
        if opens && !matches!(route.action, Action::Upstream { .. }) {
            // A 200 would open one (RFC 8441 section 5).
            self.record.why = Some("no_websocket");
            let (status, text) = (StatusCode::NOT_IMPLEMENTED, "Nobody here takes WebSockets.");
            return self.error(session, Some(route), status, text, |_| {}).await;
        }
        match &route.action {
            Action::Respond(reply) => self.reply(session, Some(route), reply).await,
            Action::Redirect(redirect) => {
                let scheme = exchange::scheme(self.info.tls.is_some());
                let reply = redirect.reply(scheme, way.host(), &way.path, way.query.as_deref());
                self.reply(session, Some(route), &reply).await
            }
            Action::Static { site, strip_prefix } => {
                if let Some(folder) = exchange::folder_of(&way, strip_prefix.as_deref()) {
                    return self.moved(session, route, &folder).await;
                }
                let answer = look_up(site, session, &way, strip_prefix.as_deref());
                self.record.why = answer.why();
                let mut head = files::head(&answer);
                let mut body = answer.body;
                if let Some(cover) = self.cover(session, Some(route), answer.status) {
                    cover.put_on(&mut *head);
                    body = Body::Memory(cover.body);
                }
                route.chain.response(&mut *head);
                match Box::pin(files::write(session, head, body, &self.id)).await {
                    Ok(()) => Ok(()),
                    Err(files::Cut::Client) => {
                        self.record.why = Some("client_gone");
                        Err(Broken)
                    }
                    Err(files::Cut::File(error)) => {
                        self.record.why = Some("file_changed");
                        tracing::warn!(route = route.name, path = way.path, %error, "file broken off in the middle");
                        Err(Broken)
                    }
                }
            }
            Action::Upstream {
                place,
                upstream,
                cache,
            } => {
                let method = &session.req_header().method;
                if cache.is_some() && cached::purge_method::is_asked(method, &self.snapshot) {
                    return Box::pin(cached::purge_method::answer(self, session, route, &way))
                        .await;
                }
                if self.body_is_too_large(session, route) {
                    let failure = Failure::Client(ClientFault::BodyTooLarge);
                    return self.fail(session, Some(route), failure).await;
                }
                if let Some(caching) = cache
                    && cached::concerns(session)
                    && request::is_of_its_host(
                        &self.snapshot,
                        &self.info,
                        &**session.req_header(),
                        &way,
                    )
                {
                    let cached = Cached {
                        route,
                        upstream,
                        place: *place,
                        caching,
                        way: &way,
                        shown: None,
                    };
                    // Boxed, as are the other ways that a request seldom takes: a future is as
                    // large as its largest way, and it is moved.
                    return Box::pin(cached::serve(self, session, cached)).await;
                }
                if cache.is_some() {
                    self.record.cache = CacheResult::Bypass;
                }
                self.record.upstream = Some(*place);
                Box::pin(self.forward(session, route, upstream, cache.as_deref(), &way)).await
            }
        }
    }

    /// A proxied request past the cache. An unsafe one that went well takes out what it made untrue
    /// (RFC 9111 section 4.4), whichever route stored that.
    async fn forward(
        &mut self,
        session: &mut ServerSession,
        route: &Route,
        upstream: &Arc<Upstream>,
        caching: Option<&Caching>,
        way: &Way,
    ) -> Result<(), Broken> {
        let mut outgoing = match self.outgoing(session, route, upstream, way).await {
            Ok(outgoing) => outgoing,
            Err(failure) => return self.fail(session, Some(route), failure).await,
        };
        self.hint(session, route, way).await;
        let opened = forward::open(self, session, upstream, &mut outgoing).await;
        let (incoming, head) = match opened {
            Ok(opened) => opened,
            Err(failure) => return self.fail(session, Some(route), failure).await,
        };
        self.learn(session, route, way, &head);
        let method = session.req_header().method.clone();
        if self.snapshot.caches && !method.is_safe() {
            let change = cached::purge::Change::new(&method, self.scheme(session), way);
            let outdated = change.outdated(head.status, &head.headers);
            cached::purge::take_out(&self.snapshot, outdated).await;
        }
        let mark = |head: &mut ResponseHeader| {
            if let Some(caching) = caching {
                cached::strip_tags(head, &caching.policy);
                let why = match method {
                    Method::GET | Method::HEAD => Forward::Bypass,
                    _ => Forward::Method,
                };
                let status = CacheStatus {
                    fwd: Some(why),
                    ..CacheStatus::default()
                };
                stored::mark(head, &status);
            }
        };
        let opened = (incoming, head);
        forward::relay(self, session, route, opened, &mut outgoing, mark).await
    }

    /// What goes up for this request. Small bodies are read here.
    pub(super) async fn outgoing(
        &mut self,
        session: &mut ServerSession,
        route: &Route,
        upstream: &Upstream,
        way: &Way,
    ) -> Result<Outgoing, Failure> {
        let asked = session.req_header();
        let upgrade = wanted_upgrade(session);
        let protocol = upstream.settings().protocol;
        let announced = asked.headers.get(header::TRAILER).cloned();
        let sought = exchange::hash::Target {
            path: &way.path,
            query: way.query.as_deref(),
        };
        let balance = &upstream.settings().balance;
        let hash = exchange::hash::key(balance, &**asked, sought, self.record.client);
        let origin = Origin {
            peer: &self.info.peer_text,
            trusted: exchange::client::is_trusted(
                self.info.peer.ip(),
                &self.snapshot.config.server.trusted_proxies,
            ),
            tls: self.info.tls.is_some(),
            // By `certify`.
            certified: true,
            authority: &way.authority,
            id: self.id.as_bytes(),
            trailers: onward::takes_trailers(&**asked).then_some(match protocol {
                conf::UpstreamProtocol::H1 => TakesTrailers::OfConnection,
                conf::UpstreamProtocol::H2 => TakesTrailers::Alone,
            }),
        };
        let mut head = request::prepare(asked, &origin, &way.target(), upgrade)
            .map_err(|_| Failure::Client(ClientFault::BadBody))?;
        let sticky = sticky::take(upstream, &mut head, clock::wall())
            .map_err(|_| Failure::Client(ClientFault::BadBody))?;
        if is_early(asked) {
            // It may come again (RFC 8470 section 5.1). A name and a value that cannot be refused.
            let _ = head.insert_header(EARLY_DATA, HeaderValue::from_static("1"));
        }
        let gone = self.passed.is_some() || self.went_unannounced(session);
        let mut upload = self.upload(session, route, upstream).await?;
        let trailers = match &upload {
            Upload::Buffered(_) => request_trailers(session),
            Upload::Done | Upload::Streamed { .. } => None,
        };
        if let Some(dialect) = grpc::bridged(route, session) {
            grpc::go_up(dialect, &mut head, &mut upload)?;
        }
        frame(&mut head, &upload, protocol, announced)
            .map_err(|_| Failure::Client(ClientFault::BadBody))?;
        Ok(Outgoing {
            head,
            upload,
            trailers,
            hash,
            sticky,
            upgrade: upgrade == Upgrade::WebSocket,
            made_key: websocket::is_on_stream(&session.req_header().extensions),
            repeatable: route.retry_non_idempotent,
            taken: gone,
            from: upstream.settings().proxy_protocol.map(|_| Addresses {
                client: self.info.peer,
                local: self.info.local,
            }),
        })
    }

    pub(super) fn scheme(&self, session: &ServerSession) -> &'static str {
        request::scheme(&self.snapshot, &self.info, &**session.req_header())
    }

    fn most_body(&self, route: &Route) -> u64 {
        route.most_body(&self.settings.limits)
    }

    fn body_is_too_large(&self, session: &ServerSession, route: &Route) -> bool {
        content_length(session).is_some_and(|length| length > self.most_body(route))
    }

    async fn upload(
        &mut self,
        session: &mut ServerSession,
        route: &Route,
        upstream: &Upstream,
    ) -> Result<Upload, Failure> {
        if session.is_body_empty() || websocket::is_on_stream(&session.req_header().extensions) {
            return Ok(Upload::Done);
        }
        if self.passed.is_none() {
            self.answer_expectation(session).await?;
        }
        let most = self.most_body(route);
        match content_length(session) {
            Some(length) if self.passed.is_none() && !is_streamed(upstream, length) => {
                self.read_body(session, Some(length)).await
            }
            None if self.went_unannounced(session) => self.read_body(session, None).await,
            _ => Ok(Upload::Streamed {
                left: most.saturating_sub(self.passed.unwrap_or(0)),
                patience: self.patience(session, upstream),
                text: None,
            }),
        }
    }

    /// Its body went up without a length: it is all there, and goes up no second time.
    fn went_unannounced(&self, session: &mut ServerSession) -> bool {
        let is_sent = self.begun.as_ref().is_some_and(Begun::is_sent);
        is_sent && content_length(session).is_none() && !session.is_body_empty()
    }

    /// Longest silence of the client in the middle of its body. A call of gRPC may have nothing to say
    /// for as long as the other side may.
    fn patience(&self, session: &ServerSession, upstream: &Upstream) -> Duration {
        let own = self.settings.limits.body_timeout;
        match grpc::spoken(session) {
            None => own,
            Some(_) => own.max(upstream.settings().read_timeout),
        }
    }

    /// The whole body, which is of `length` octets if that is known.
    async fn read_body(
        &self,
        session: &mut ServerSession,
        length: Option<u64>,
    ) -> Result<Upload, Failure> {
        let room = length.and_then(|length| usize::try_from(length).ok());
        let mut body = bytes::BytesMut::with_capacity(room.unwrap_or(0));
        let timeout = self.settings.limits.body_timeout;
        loop {
            let piece = tokio::time::timeout(timeout, session.read_request_body())
                .await
                .map_err(|_| Failure::Client(ClientFault::BodyTimeout))?
                .map_err(|error| Failure::Client(super::failure::client_fault(&error)))?;
            match piece {
                Some(piece) => body.extend_from_slice(&piece),
                None if length.is_none_or(|length| body.len() as u64 == length) => {
                    return Ok(Upload::Buffered(body.freeze()));
                }
                None => return Err(Failure::Client(ClientFault::BadBody)),
            }
        }
    }

    /// A record for work that goes on without this client: it counts towards the upstream alone.
    pub(super) fn background_record(&self, place: u16) -> Record {
        let mut record = Record::new(
            clock::now(),
            clock::wall(),
            crate::random::id(),
            NO_PLACE,
            self.record.client,
        );
        record.upstream = Some(place);
        record
    }

    fn finish(mut self, session: &ServerSession, whole: bool) {
        // An interim response is no answer; Pingora remembers it as one until the final one is there.
        let is_final = |status: StatusCode| {
            !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS
        };
        let written = session.response_written();
        let written = written.filter(|head| is_final(head.status));
        self.record.status = written.map_or(0, |head| head.status.as_u16());
        if !whole && written.is_none() && self.record.why.is_none() {
            self.record.why = Some("client_gone");
        }
        let passed = self.passed.unwrap_or(0);
        self.record.bytes_in = passed + session.body_bytes_read() as u64;
        self.record.bytes_out = session.body_bytes_sent() as u64;
        account::close(&mut self.record, &self.snapshot, &self.settings);
    }
}

fn look_up(site: &Site, session: &ServerSession, way: &Way, strip_prefix: Option<&str>) -> Answer {
    let head = session.req_header();
    let asked = FileRequest {
        method: &head.method,
        path: exchange::stripped(&way.path, strip_prefix),
        query: way.query.as_deref(),
        fields: &head.headers,
        sending: Sending::Copied,
    };
    site.answer(&asked, clock::now())
}

fn wanted_upgrade(session: &ServerSession) -> Upgrade {
    let head = session.req_header();
    if websocket::is_on_stream(&head.extensions) {
        return Upgrade::WebSocket;
    }
    if is_h2(session) || head.version != Version::HTTP_11 {
        return Upgrade::None;
    }
    exchange::wanted_upgrade(head)
}

fn content_length(session: &ServerSession) -> Option<u64> {
    announced_length(session.req_header())
}

fn announced_length(head: &pingora::http::RequestHeader) -> Option<u64> {
    let value = head.headers.get(header::CONTENT_LENGTH)?;
    value.to_str().ok()?.parse().ok()
}

/// The framing of the body towards the upstream (RFC 9112 section 6, RFC 9113 section 8.1.1).
fn frame(
    head: &mut pingora::http::RequestHeader,
    upload: &Upload,
    protocol: conf::UpstreamProtocol,
    announced: Option<HeaderValue>,
) -> pingora::Result<()> {
    // HTTP/1.1 has a place for trailers behind chunks alone.
    if let Some(announced) = announced
        && matches!(upload, Upload::Streamed { .. })
        && (protocol == conf::UpstreamProtocol::H2
            || !head.headers.contains_key(header::CONTENT_LENGTH))
    {
        head.insert_header(header::TRAILER, announced)?;
    }
    match upload {
        Upload::Buffered(body) => {
            head.insert_header(header::CONTENT_LENGTH, HeaderValue::from(body.len()))?;
        }
        Upload::Streamed { .. } => match announced_length(head) {
            // Its one spelling: readers of a leading zero need not agree on what it says.
            Some(length) => {
                head.insert_header(header::CONTENT_LENGTH, HeaderValue::from(length))?;
            }
            None if protocol == conf::UpstreamProtocol::H1 => {
                let chunked = HeaderValue::from_static("chunked");
                head.insert_header(header::TRANSFER_ENCODING, chunked)?;
            }
            None => {}
        },
        // A POST without content says so (RFC 9110 section 8.6); Content-Length: 0 was kept.
        Upload::Done => {}
    }
    Ok(())
}
