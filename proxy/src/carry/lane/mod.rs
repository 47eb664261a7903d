//! The short way: a fresh page, answered on the connection itself, before a
//! session of Pingora is made for the request.
//!
//! It takes a narrow part of HTTP/1.1 and leaves all else, with nothing consumed
//! and nothing counted, to the carrier behind it: a GET or HEAD without body,
//! upgrade or nominated fields, for a page that is stored whole and fresh and
//! needs neither validation nor cutting. Each decision is asked of the same
//! function as there, so the two ways differ in cost alone, and in Date: Pingora's
//! session writes a new one, here the origin's stays (RFC 9110 section 6.6.1). What
//! decides may run twice for one request, so it must neither count nor remember.

mod block;
mod twin;

use std::sync::Arc;
use std::time::SystemTime;

use cache::condition::{self, Condition};
use cache::range::{self, Selection};
use cache::reuse::{self, Use};
use cache::status::CacheStatus;
use cache::store::Lookup;
use cache::stored::InCoding;
use cache::{RequestControl, Stored, coding};
use http::header::{self, HeaderName, HeaderValue};

use super::account::{self, Arrival};
use super::request::X_REQUEST_ID;
use super::stored::CACHE_STATUS;
use super::{Carrier, request};
use crate::clock;
use crate::exchange::caching::Caching;
use crate::exchange::guard::{Framing, HeadFacts, MethodKind, Upgrade, Version};
use crate::exchange::head::{Checked, HeadView};
use crate::exchange::{self, Asked, Course, Way};
use crate::filter::{Chain, FieldsMut};
use crate::listen::{Conn, ConnInfo, ListenerSettings};
use crate::observe::{CacheResult, Protocol, Record};
use crate::snapshot::{Action, Snapshot};
use crate::upstreams::Upstream;
use block::Block;
use twin::Twin;

pub(crate) use twin::Twins;

/// What became of a request that was offered.
pub(crate) enum Taken {
    /// It is not for this way, and waits as before.
    No,
    /// It is answered, and another may follow.
    Served,
    /// It is answered, and the connection is to be closed.
    Last,
    /// The reply did not leave whole: nothing may follow it.
    Broken,
}

/// A request and the page that answers it.
struct Hit {
    snapshot: Arc<Snapshot>,
    settings: Arc<ListenerSettings>,
    stored: Arc<Stored>,
    record: Record,
    route: usize,
}

impl Carrier {
    /// Answers the request whose head waits on `conn`, if a stored page does.
    /// `last`: it is the connection's last one.
    pub(crate) async fn hit(&self, conn: &mut Conn, facts: &HeadFacts, last: bool) -> Taken {
        let Some(mut hit) = self.find(conn, facts) else {
            return Taken::No;
        };
        let closes = last || !facts.keep_alive;
        hit.write_head(conn.begin_reply(facts.head_len), closes);
        let mut sent = 0;
        let whole = if facts.method == MethodKind::Head {
            conn.send(&[], &mut sent).await
        } else if let Some(twin) = hit.twin(conn) {
            conn.send_file(twin.file(), hit.stored.len(), &mut sent)
                .await
        } else {
            conn.send(hit.stored.segments(), &mut sent).await
        };
        let whole = whole.is_ok();
        hit.record.bytes_out = sent;
        hit.record.status = hit.stored.head().status().as_u16();
        if !whole {
            hit.record.why = Some("client_gone");
        }
        account::close(&mut hit.record, &hit.snapshot, &hit.settings);
        match whole {
            true if closes => Taken::Last,
            true => Taken::Served,
            false => Taken::Broken,
        }
    }

    /// Boxed: it is held while a slow client takes the body, and every connection has
    /// room for what is held.
    fn find(&self, conn: &Conn, facts: &HeadFacts) -> Option<Box<Hit>> {
        if !is_simple(facts) {
            return None;
        }
        let head = Checked::new(conn.waiting().get(..facts.head_len)?, facts.method)?;
        if !head.target().starts_with('/') || changes_protocol_or_fields(&head) {
            return None;
        }
        let info = conn.info()?;
        let (start, wall) = (clock::now(), clock::wall());
        let snapshot = self.snapshot.load();
        let asked = Asked {
            head: &head,
            listener: usize::from(account::place(&snapshot, info)),
            tls: info.tls.is_some(),
            target: head.target(),
            h2: None,
            merge_slashes: snapshot.config.server.merge_slashes,
        };
        let Course::Route(mut way) = exchange::course(&snapshot.router, &asked) else {
            return None;
        };
        let route = snapshot.routes.get(way.route)?;
        let Action::Upstream {
            upstream,
            cache: Some(caching),
            ..
        } = &route.action
        else {
            return None;
        };
        // Filters and Vary see the host in its one spelling.
        let respelt = head.field(&header::HOST) != Some(way.authority.as_bytes());
        if respelt || !lets_pass(&route.chain, &mut way, &snapshot, info, &head) {
            return None;
        }
        let stored = fresh(&snapshot, info, &way, upstream, caching, &head, wall)
            .filter(|page| !route.may_cover(page.head().status()))?;
        stored.life().hit();
        let settings = info.listener.settings.load_full();
        let arrival = Arrival {
            info,
            settings: &settings,
            head: &head,
            protocol: Protocol::Http11,
            authority: None,
            target: head.target().as_bytes(),
            start,
            wall,
        };
        let mut record = account::open(&snapshot, &arrival);
        record.route = u16::try_from(way.route).ok();
        record.cache = CacheResult::Hit;
        Some(Box::new(Hit {
            route: way.route,
            record,
            stored,
            settings,
            snapshot: Arc::clone(&snapshot),
        }))
    }
}

/// What the head's framing and version must be.
fn is_simple(facts: &HeadFacts) -> bool {
    facts.version == Version::Http11
        && facts.method != MethodKind::Other
        && facts.body == Framing::None
        && facts.upgrade == Upgrade::None
        && !facts.expect_continue
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

/// Whether the filters let the request on, as it is but for its path.
fn lets_pass(
    chain: &Chain,
    way: &mut Way,
    snapshot: &Snapshot,
    info: &ConnInfo,
    head: &Checked<'_>,
) -> bool {
    if chain.is_empty() {
        return true;
    }
    if chain.edits_requests() {
        return false;
    }
    let trusted = &snapshot.config.server.trusted_proxies;
    let client = exchange::client::address(info.peer.ip(), head, trusted);
    exchange::filtered(chain, way, client, info.tls.is_some(), &mut NoEdits).is_none()
}

/// The fields of a request whose filters do not edit any.
struct NoEdits;

impl FieldsMut for NoEdits {
    fn remove(&mut self, _: &HeaderName) {}

    fn set(&mut self, _: HeaderName, _: HeaderValue) {}

    fn add(&mut self, _: HeaderName, _: HeaderValue) {}
}

/// The page, if it may be sent as it stands.
fn fresh(
    snapshot: &Snapshot,
    info: &ConnInfo,
    way: &Way,
    upstream: &Upstream,
    caching: &Caching,
    head: &Checked<'_>,
    now: SystemTime,
) -> Option<Arc<Stored>> {
    let compared = caching.compare_sessions > 0 && caching.is_of_a_session(head);
    if condition::is_for_origin(head) || caching.show_key || compared {
        return None;
    }
    let scheme = request::scheme(snapshot, info, head);
    let key = caching.key(scheme, way, upstream.name(), head);
    let view = caching.normal.apply(head);
    let store = &snapshot.cache.store;
    let Lookup::Found(found) = store.lookup(key.as_key(), &view, &caching.policy.vary) else {
        return None;
    };
    let freshness = found.freshness();
    let usable = reuse::usable(&freshness, &RequestControl::read(head), now);
    // Near its end it may have to be fetched anew, and what is not compressed yet, compressed.
    if usable != Use::Fresh || freshness.remaining(now) <= caching.early_refresh {
        return None;
    }
    let found = represented(caching, head, found)?;
    let page = found.head();
    let asked = cache::Request {
        method: head.method(),
        fields: head,
    };
    let as_it_stands = page.may_have_body()
        && condition::evaluate(page, head, now) == Condition::Full
        && range::select(page, asked, found.len(), now) == Selection::Whole;
    as_it_stands.then_some(found)
}

/// The representation in the coding that is wanted; `None` where that is to be made first.
fn represented(caching: &Caching, head: &Checked<'_>, found: Arc<Stored>) -> Option<Arc<Stored>> {
    if caching.compress.is_empty() || head.field(&header::RANGE).is_some() {
        return Some(found);
    }
    match coding::choose(head, &caching.compress) {
        None => Some(found),
        Some(coding) => match found.in_coding(coding) {
            InCoding::Ready(coded) => Some(coded),
            InCoding::Useless => Some(found),
            InCoding::Unknown => {
                let pays = coding::is_compressible(found.head(), found.len(), coding::MIN_LENGTH);
                (!pays).then_some(found)
            }
        },
    }
}

impl Hit {
    /// The copy of the body that can go out on `conn` without passing through here.
    fn twin(&self, conn: &Conn) -> Option<&Twin> {
        let twins = &self.snapshot.cache.twins;
        conn.is_plain().then(|| twins.of(&self.stored)).flatten()
    }

    /// Status line and fields, with what belongs to this reply alone.
    fn write_head(&self, out: &mut Vec<u8>, closes: bool) {
        let head = self.stored.head();
        let now = self.record.wall;
        let start = out.len() + head.as_http1().len() - head.field_lines().len();
        out.extend_from_slice(head.as_http1());
        let mut block = Block::new(out, start);
        let freshness = self.stored.freshness();
        let age = freshness.age_seconds(now);
        block.push(&header::AGE, itoa::Buffer::new().format(age).as_bytes());
        let status = CacheStatus {
            hit: true,
            ttl: Some(freshness.ttl_seconds(now)),
            ..CacheStatus::default()
        };
        block.push(&CACHE_STATUS, status.to_value().as_bytes());
        if let Some(route) = self.snapshot.routes.get(self.route) {
            route.chain.response(&mut block);
        }
        block.remove(&X_REQUEST_ID);
        block.push(&X_REQUEST_ID, &account::id_digits(self.record.id));
        out.extend_from_slice(match closes {
            true => b"connection: close\r\n\r\n",
            false => b"connection: keep-alive\r\n\r\n",
        });
    }
}
