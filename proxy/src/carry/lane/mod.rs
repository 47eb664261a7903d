//! The short way: a fresh page or a file, answered on the connection itself, before a
//! session of Pingora is made for the request.
//!
//! It takes a narrow part of HTTP/1.1 and leaves all else, with nothing consumed
//! and nothing counted, to the carrier behind it: a GET or HEAD without body,
//! upgrade or nominated fields, for a page that is stored whole and fresh and
//! needs neither validation nor cutting ([`page`]), or for a file that is there ([`file`]). Each decision is asked of the same
//! function as there, so the two ways differ in cost alone, and in Date: Pingora's
//! session writes a new one, here a page keeps the origin's (RFC 9110 section 6.6.1). What
//! decides may run twice for one request, so it must neither count nor remember.

mod block;
mod date;
mod file;
mod page;
mod twin;

use std::sync::Arc;

use cache::Stored;
use http::header::{self, HeaderName, HeaderValue};
use static_server::{Answer, Sending};

use super::Carrier;
use super::account::{self, Arrival};
use super::request::X_REQUEST_ID;
use crate::clock;
use crate::exchange::guard::{Framing, HeadFacts, MethodKind, Upgrade, Version};
use crate::exchange::head::{Checked, HeadView};
use crate::exchange::{self, Asked, Course, Way};
use crate::filter::{Chain, FieldsMut};
use crate::listen::{Conn, ConnInfo, ListenerSettings};
use crate::observe::{CacheResult, Protocol, Record};
use crate::snapshot::{Action, Snapshot};

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

/// A request and what answers it.
struct Hit {
    snapshot: Arc<Snapshot>,
    settings: Arc<ListenerSettings>,
    record: Record,
    route: usize,
    what: What,
}

/// What there is to send.
enum What {
    Page(Arc<Stored>),
    File(Answer),
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
    /// Answers the request whose head waits on `conn`, if a stored page or a file does.
    /// `last`: it is the connection's last one.
    pub(crate) async fn hit(&self, conn: &mut Conn, facts: &HeadFacts, last: bool) -> Taken {
        let Some(mut hit) = self.find(conn, facts) else {
            return Taken::No;
        };
        let closes = last || !facts.keep_alive;
        hit.write_head(conn.begin_reply(facts.head_len), closes);
        let mut count = 0;
        let sent = match &hit.what {
            _ if facts.method == MethodKind::Head => conn
                .send(&[], &mut count)
                .await
                .map_or(Sent::Gone, |()| Sent::Whole),
            What::Page(page) => page::send(conn, page, &hit.snapshot.cache.twins, &mut count).await,
            What::File(answer) => file::send(conn, &answer.body, &mut count).await,
        };
        hit.record.bytes_out = count;
        let (status, why) = match &hit.what {
            What::Page(page) => (page.head().status(), None),
            What::File(answer) => (answer.status, answer.why()),
        };
        hit.record.status = status.as_u16();
        hit.record.why = match sent {
            Sent::Whole => why,
            Sent::Gone => Some("client_gone"),
            Sent::Changed => Some("file_changed"),
        };
        account::close(&mut hit.record, &hit.snapshot, &hit.settings);
        match sent {
            Sent::Whole if closes => Taken::Last,
            Sent::Whole => Taken::Served,
            Sent::Gone | Sent::Changed => Taken::Broken,
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
        if !matches!(
            route.action,
            Action::Static { .. } | Action::Upstream { cache: Some(_), .. }
        ) {
            return None;
        }
        // Filters and Vary see the host in its one spelling.
        let respelt = head.field(&header::HOST) != Some(way.authority.as_bytes());
        if respelt || !lets_pass(&route.chain, &mut way, &snapshot, info, &head) {
            return None;
        }
        let what = match &route.action {
            Action::Upstream {
                upstream,
                cache: Some(caching),
                ..
            } => {
                let page = page::fresh(&snapshot, info, &way, upstream, caching, &head, wall)
                    .filter(|page| !route.may_cover(page.head().status()))?;
                page.life().hit();
                What::Page(page)
            }
            Action::Static { site, strip_prefix } => {
                let sending = match conn.is_plain() {
                    true => Sending::FromFile,
                    false => Sending::Copied,
                };
                What::File(file::find(
                    site,
                    strip_prefix.as_deref(),
                    route.pages.as_deref(),
                    &way,
                    &head,
                    sending,
                )?)
            }
            _ => return None,
        };
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
        if matches!(what, What::Page(_)) {
            record.cache = CacheResult::Hit;
        }
        Some(Box::new(Hit {
            route: way.route,
            record,
            what,
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

impl Hit {
    /// Status line and fields, with what belongs to this reply alone.
    fn write_head(&self, out: &mut Vec<u8>, closes: bool) {
        let mut block = match &self.what {
            What::Page(page) => page::begin_head(out, page, self.record.wall),
            What::File(answer) => file::begin_head(out, answer, self.record.wall),
        };
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
