//! The lane: requests answered on the connection itself, without a session of
//! Pingora.
//!
//! It takes a narrow part of HTTP/1.1 and leaves all else, with nothing consumed
//! and nothing counted, to the carrier behind it: a request without upgrade or
//! nominated fields, for an upstream to which a connection is kept ([`proxied`]), its
//! body absent, or small and there soon, or one that goes up as it comes because its length is
//! too large for that ([`streamed`]) or its chunks are many or slow ([`rechunked`]), on cached
//! routes if it goes past the cache; or a GET or HEAD without body for a page that is
//! stored whole and fresh and needs neither validation nor cutting ([`page`]), for a file
//! that is there ([`file`]), or for a reply that the configuration gives ([`fixed`]).
//! Each decision is asked of the same
//! function as there, so the two ways differ in cost, and in little else
//! (`docs/decisions/0013-the-lane.md`). On both a reply keeps the Date that it came with (RFC 9110
//! section 6.6.1); only one in an obsolete form is replaced by sessions of HTTP/1. What
//! decides may run twice for one request, so it must neither count nor remember.
//!
//! A request that was sent to an upstream and does not get a plain reply is handed over, too,
//! with all that came of it ([`Taken::Begun`]).

mod block;
mod copy;
mod date;
mod file;
mod fixed;
mod flight;
mod flow;
mod head;
mod lines;
mod page;
mod proxied;
mod rechunked;
mod streamed;
mod streams;
mod twin;
mod upload;
mod wire;

use std::sync::Arc;
use std::time::Instant;

use cache::store::Page;
use http::header::{self, HeaderName, HeaderValue};
use http::request::Parts;
use static_server::{Answer, Sending};

use super::account::{self, Arrival};
use super::cached::past::Past;
use super::request;
use super::{Carrier, Held, Pending};
use crate::clock;
use crate::exchange::guard::{HeadFacts, MethodKind, Upgrade, Version};
use crate::exchange::head::{Checked, HeadView};
use crate::exchange::onward::X_REQUEST_ID;
use crate::exchange::{self, Asked, Course, Way};
use crate::filter::{FieldsMut, Reply};
use crate::listen::{Conn, ConnInfo, ListenerSettings};
use crate::observe::{CacheResult, Protocol, Record};
use crate::snapshot::{Action, Route, Snapshot};

use block::Block;
use copy::HeadCopy;
use head::LaneHead;
use page::Looked;
use proxied::Asking;
pub(crate) use streams::{Going, Stream, TakenStream};
pub(crate) use twin::Twins;
use upload::Upload;

/// What became of a request that was offered.
pub(crate) enum Taken {
    /// It is not for this way, and waits as before.
    No,
    /// It waits as before, and was begun.
    Begun(Box<Pending>),
    /// It was answered by then, and another may follow.
    Served(Instant),
    /// It is answered, and the connection is to be closed.
    Last,
    /// The reply did not leave whole: nothing may follow it.
    Broken,
}

/// A request and what answers it.
struct Hit {
    snapshot: Arc<Held>,
    record: Record,
    route: usize,
    what: What,
}

/// What there is to send.
enum What {
    Page(Page),
    File(Answer),
    Fixed(Reply),
    /// The reply that the route's action is. Not copied: the counts of references to its parts are
    /// every worker's.
    Said,
    /// It is to be asked for.
    Proxied(Asking),
}

/// How the sending of a body ended.
enum Sent {
    Whole,
    /// The client is gone, or takes nothing.
    Gone,
    /// The file is not what was promised.
    Changed,
}

impl Carrier {
    /// Answers the request whose head waits on `conn`, if it is of the kind that is answered here.
    /// `last`: it is the connection's last one. `settings`: those of its listener. Where the request
    /// is left with less than it had, `facts` are those of what is left.
    pub(crate) async fn take(
        &self,
        conn: &mut Conn,
        facts: &mut HeadFacts,
        last: bool,
        settings: &Arc<ListenerSettings>,
    ) -> Taken {
        let Some(mut hit) = self.find_h1(conn, facts, settings) else {
            return Taken::No;
        };
        let closes = last || !facts.keep_alive;
        if let What::Proxied(_) = hit.what {
            return Box::pin(self.pass(conn, hit, facts, closes, settings)).await;
        }
        conn.take_request(facts.head_len);
        hit.write_head(conn.staged(), HeadEnd::of_h1(closes));
        let mut count = 0;
        let sent = match &hit.what {
            _ if facts.method == MethodKind::Head => conn
                .send(&[], &mut count)
                .await
                .map_or(Sent::Gone, |()| Sent::Whole),
            What::Page(page) => page::send(conn, page, &hit.snapshot.cache.twins, &mut count).await,
            What::File(answer) => file::send(conn, &answer.body, &mut count).await,
            What::Fixed(_) | What::Said => match hit.reply() {
                Some(reply) => fixed::send(conn, reply, &mut count).await,
                None => Sent::Gone,
            },
            What::Proxied(_) => Sent::Whole,
        };
        hit.record.bytes_out = count;
        match sent {
            Sent::Whole => {}
            Sent::Gone => hit.record.why = Some("client_gone"),
            Sent::Changed => hit.record.why = Some("file_changed"),
        }
        let now = account::close(&mut hit.record, &hit.snapshot, settings);
        match sent {
            Sent::Whole if closes => Taken::Last,
            Sent::Whole => Taken::Served(now),
            Sent::Gone | Sent::Changed => Taken::Broken,
        }
    }

    fn find_h1(
        &self,
        conn: &Conn,
        facts: &HeadFacts,
        settings: &ListenerSettings,
    ) -> Option<Box<Hit>> {
        if !is_simple(facts) {
            return None;
        }
        let upload = Upload::of(facts);
        if facts.expect_continue && upload.is_empty() {
            return None;
        }
        let head = Checked::new(conn.waiting().get(..facts.head_len)?, facts.method)?;
        if !head.target().starts_with('/') || changes_protocol_or_fields(&head) {
            return None;
        }
        let way = By {
            info: conn.info()?,
            settings,
            protocol: Protocol::Http11,
            is_read: facts.method != MethodKind::Other && upload.is_empty(),
            upload,
            expects: facts.expect_continue,
            claims_certificate: facts.claims_certificate,
            h2: None,
            sending: match conn.is_plain() {
                true => Sending::FromFile,
                false => Sending::Copied,
            },
            most: u64::MAX,
        };
        self.find(&head, &way)
    }

    /// Boxed: it is held while a slow client takes the body, and every connection has
    /// room for what is held.
    fn find(&self, head: &impl LaneHead, by: &By<'_>) -> Option<Box<Hit>> {
        let (info, settings) = (by.info, by.settings);
        let (start, wall) = (clock::now(), clock::wall());
        let snapshot = self.snapshot();
        // What is said of a certificate is changed on the other way.
        let trusted = &snapshot.config.server.trusted_proxies;
        let is_certified = info.client_cert.is_some()
            || (by.claims_certificate && !exchange::client::is_trusted(info.peer.ip(), trusted));
        if !snapshot.config.server.lane || is_certified {
            return None;
        }
        let asked = Asked {
            head,
            listener: usize::from(account::place(&snapshot, info)),
            tls: info.tls.is_some(),
            target: head.target(),
            h2: by.h2,
            max_fields: settings.limits.max_headers,
            merge_slashes: snapshot.config.server.merge_slashes,
            begun: None,
        };
        let Course::Route(mut way) = exchange::course(&snapshot.router, &asked) else {
            return None;
        };
        let route = snapshot.routes.get(way.route)?;
        // Filters and Vary see the host in its one spelling.
        let changes = way.respelt || route.chain.edits_requests();
        let arrival = Arrival {
            info,
            settings,
            head,
            protocol: by.protocol,
            authority: by
                .h2
                .and_then(|parts| Some(parts.uri.authority()?.as_str())),
            target: head.target().as_bytes(),
            start,
            wall,
        };
        let mut record = account::prepare(&snapshot, &arrival);
        record.route = u16::try_from(way.route).ok();
        let tls = info.tls.is_some();
        let what = if changes {
            let mut copy = HeadCopy::new(head, &way.authority);
            let fields = &mut copy.fields();
            let reply = exchange::filtered(&route.chain, &mut way, record.client, tls, fields);
            let head = copy.read()?;
            enter(&snapshot, by, route, reply, &way, &head, &mut record)?
        } else {
            let fields = &mut NoEdits;
            let reply = exchange::filtered(&route.chain, &mut way, record.client, tls, fields);
            enter(&snapshot, by, route, reply, &way, head, &mut record)?
        };
        match (&what, &route.action) {
            (What::Fixed(reply), _) | (What::Said, Action::Respond(reply)) => {
                record.status = reply.status.as_u16();
            }
            _ => {}
        }
        settings.metrics.request_begins();
        Some(Box::new(Hit {
            route: way.route,
            record,
            what,
            snapshot,
        }))
    }
}

/// How a request came.
struct By<'a> {
    info: &'a ConnInfo,
    settings: &'a ListenerSettings,
    protocol: Protocol,
    /// A GET or HEAD without a body.
    is_read: bool,
    upload: Upload,
    /// Its client waits for a word before it sends the body (RFC 9110 section 10.1.1).
    expects: bool,
    /// It says something of a client's certificate.
    claims_certificate: bool,
    /// As the HTTP/2 layer gave it.
    h2: Option<&'a Parts>,
    /// How files can be sent.
    sending: Sending,
    /// Most octets of a body that is sent here.
    most: u64,
}

/// What comes of a request that its route's filters let through, or to which they gave `reply`.
fn enter(
    snapshot: &Snapshot,
    by: &By<'_>,
    route: &Route,
    reply: Option<Reply>,
    way: &Way,
    head: &impl LaneHead,
    record: &mut Record,
) -> Option<What> {
    match reply {
        Some(_) if !by.is_read => None,
        Some(reply) => {
            record.why = Some(reply.by.as_str());
            fixed::is_own(route, &reply).then_some(What::Fixed(reply))
        }
        None => act(snapshot, by, route, way, head, record),
    }
}

/// What the route's action gives.
fn act(
    snapshot: &Snapshot,
    by: &By<'_>,
    route: &Route,
    way: &Way,
    head: &impl LaneHead,
    record: &mut Record,
) -> Option<What> {
    let info = by.info;
    Some(match &route.action {
        Action::Upstream { .. } => return through(snapshot, by, route, way, head, record),
        _ if !by.is_read => return None,
        Action::Respond(reply) => match fixed::is_own(route, reply) {
            true => What::Said,
            false => return None,
        },
        Action::Redirect(redirect) => {
            let scheme = exchange::scheme(info.tls.is_some());
            let reply = redirect.reply(scheme, way.host(), &way.path, way.query.as_deref());
            fixed::is_own(route, &reply).then_some(What::Fixed(reply))?
        }
        Action::Static { site, strip_prefix } => {
            let pages = route.pages.as_deref();
            let strip = strip_prefix.as_deref();
            let answer = file::find(site, strip, pages, way, head, by.sending)?;
            if by.most < u64::MAX && !file::is_small(&answer, by.most) {
                return None;
            }
            record.status = answer.status.as_u16();
            record.why = answer.why();
            What::File(answer)
        }
    })
}

/// What the cache of the route gives, or its upstream.
fn through(
    snapshot: &Snapshot,
    by: &By<'_>,
    route: &Route,
    way: &Way,
    head: &impl LaneHead,
    record: &mut Record,
) -> Option<What> {
    let Action::Upstream {
        place,
        upstream,
        cache,
    } = &route.action
    else {
        return None;
    };
    let past = match cache {
        None if snapshot.caches && !HeadView::method(head).is_safe() => {
            let scheme = request::scheme(snapshot, by.info, head);
            Some(Past::method(snapshot, HeadView::method(head), scheme, way)?)
        }
        None => None,
        Some(_) if !by.is_read => {
            record.cache = CacheResult::Bypass;
            let scheme = request::scheme(snapshot, by.info, head);
            Some(Past::method(snapshot, HeadView::method(head), scheme, way)?)
        }
        Some(caching) => {
            let now = record.wall;
            match page::look(snapshot, by.info, way, upstream, caching, head, now) {
                Looked::Page(page) => {
                    if route.may_cover(page.head().status()) || page.len() > by.most {
                        return None;
                    }
                    page.count();
                    record.cache = CacheResult::Hit;
                    record.status = page.head().status().as_u16();
                    return Some(What::Page(page));
                }
                Looked::Nothing(key, why) => {
                    record.cache = CacheResult::Miss;
                    let asked = cache::Request {
                        method: head.method(),
                        fields: head,
                    };
                    Some(Past::alone(&snapshot.cache, caching, asked, (key, why))?)
                }
                Looked::Other => return None,
            }
        }
    };
    let asking = proxied::asking(snapshot, by, route, way, head, record, past)?;
    record.upstream = Some(*place);
    Some(What::Proxied(asking))
}

/// What the head's framing and version must be.
fn is_simple(facts: &HeadFacts) -> bool {
    facts.version == Version::Http11 && facts.upgrade == Upgrade::None
}

/// An Upgrade field, or a Connection that names more than what it means for this connection
/// (RFC 9110 section 7.6.1).
fn changes_protocol_or_fields(head: &Checked<'_>) -> bool {
    let mut names_fields = false;
    head.each_field(&header::CONNECTION, &mut |line| {
        names_fields |= line.split(|&byte| byte == b',').any(|option| {
            let option = option.trim_ascii();
            !option.eq_ignore_ascii_case(b"keep-alive") && !option.eq_ignore_ascii_case(b"close")
        });
    });
    names_fields || head.field(&header::UPGRADE).is_some()
}

/// The fields of a request whose filters do not edit any.
struct NoEdits;

impl FieldsMut for NoEdits {
    fn remove(&mut self, _: &HeaderName) {}

    fn set(&mut self, _: HeaderName, _: HeaderValue) {}

    fn add(&mut self, _: HeaderName, _: HeaderValue) {}
}

impl Hit {
    /// What the configuration gives.
    fn reply(&self) -> Option<&Reply> {
        match &self.what {
            What::Fixed(reply) => Some(reply),
            What::Said => match &self.snapshot.routes.get(self.route)?.action {
                Action::Respond(reply) => Some(reply),
                _ => None,
            },
            _ => None,
        }
    }

    /// Status line and fields.
    fn write_head(&self, out: &mut Vec<u8>, end: HeadEnd) {
        let block = match &self.what {
            What::Page(page) => page::begin_head(out, page, self.record.wall),
            What::File(answer) => file::begin_head(out, answer, self.record.wall),
            What::Fixed(_) | What::Said => match self.reply() {
                Some(reply) => fixed::begin_head(out, reply, self.record.wall),
                None => return,
            },
            What::Proxied(_) => return,
        };
        let with_id = matches!(self.what, What::Page(_));
        finish_head(
            block,
            &self.snapshot,
            self.route,
            &self.record,
            with_id,
            end,
        );
    }
}

/// How a head ends.
#[derive(Clone, Copy)]
enum HeadEnd {
    KeepAlive,
    Close,
    /// The connection is none of its business (RFC 9113 section 8.2.2).
    Stream,
}

impl HeadEnd {
    fn of_h1(closes: bool) -> Self {
        match closes {
            true => Self::Close,
            false => Self::KeepAlive,
        }
    }

    fn lines(self) -> &'static [u8] {
        match self {
            Self::KeepAlive => b"connection: keep-alive\r\n\r\n",
            Self::Close => b"connection: close\r\n\r\n",
            Self::Stream => b"",
        }
    }
}

/// What the client is told of HTTP/3, where its listener speaks that, too (RFC 7838).
fn offer<'a>(snapshot: &'a Snapshot, record: &Record) -> Option<&'a HeaderValue> {
    let listener = snapshot
        .config
        .listeners
        .get(usize::from(record.listener))?;
    listener.h3.as_ref()?.alt_svc.as_ref()
}

/// What belongs to this reply alone, and the end of the head. `with_id`: there may be an id in it
/// that is not this one's.
fn finish_head(
    mut block: Block<'_>,
    snapshot: &Snapshot,
    route: usize,
    record: &Record,
    with_id: bool,
    end: HeadEnd,
) {
    let chain = snapshot.routes.get(route).map(|route| &route.chain);
    let chain = chain.filter(|chain| !chain.is_empty());
    if let Some(chain) = chain {
        chain.response(&mut block);
    }
    if with_id || chain.is_some() {
        block.remove(&X_REQUEST_ID);
    }
    if let Some(offer) = offer(snapshot, record) {
        block.remove(&header::ALT_SVC);
        block.push(&header::ALT_SVC, offer.as_bytes());
    }
    block.push(&X_REQUEST_ID, &account::id_digits(record.id));
    block.end(end.lines());
}
