//! A stored page that may be sent as it stands, and its sending.

use std::time::SystemTime;

use cache::status::{CacheStatus, Forward};
use cache::store::{Lookup, Page};
use cache::{KeyBuf, Stored};
use http::header;

use super::Sent;
use super::block::Block;
use super::head::LaneHead;
use super::twin::Twins;
use crate::carry::request;
use crate::carry::stored::CACHE_STATUS;
use crate::exchange::Way;
use crate::exchange::caching::Caching;
use crate::listen::{Conn, ConnInfo};
use crate::snapshot::Snapshot;
use crate::upstreams::Upstream;

/// What is stored for a request.
pub(super) enum Looked {
    /// A page that may be sent as it stands.
    Page(Page),
    /// None.
    Nothing(KeyBuf, Forward),
    /// One that may not, or that is to be looked into.
    Other,
}

/// Looks for the page.
pub(super) fn look(
    snapshot: &Snapshot,
    info: &ConnInfo,
    way: &Way,
    upstream: &Upstream,
    caching: &Caching,
    head: &impl LaneHead,
    now: SystemTime,
) -> Looked {
    let is_of_its_host = || request::is_of_its_host(snapshot, info, head, way);
    if !caching.may_answer_at_once(head) || !is_of_its_host() {
        return Looked::Other;
    }
    let scheme = request::scheme(snapshot, info, head);
    let key = caching.key(scheme, way, upstream.name(), head);
    let view = caching.normal.apply(head);
    let store = &snapshot.cache.store;
    let found = match store.page(key.as_key(), &view, &caching.policy.vary) {
        Lookup::Found(found) => found,
        Lookup::UriMiss => return Looked::Nothing(key, Forward::UriMiss),
        Lookup::VaryMiss => return Looked::Nothing(key, Forward::VaryMiss),
    };
    let page = caching.as_it_stands(head.method(), head, found, now);
    page.map_or(Looked::Other, Looked::Page)
}

/// Writes the head of `page`, but for what belongs to every reply.
pub(super) fn begin_head<'a>(out: &'a mut Vec<u8>, page: &Stored, now: SystemTime) -> Block<'a> {
    let head = page.head();
    let start = out.len() + head.as_http1().len() - head.field_lines().len();
    out.extend_from_slice(head.as_http1());
    let mut block = Block::new(out, start);
    let freshness = page.freshness();
    let age = freshness.age_seconds(now);
    block.push(&header::AGE, itoa::Buffer::new().format(age).as_bytes());
    let status = CacheStatus {
        hit: true,
        ttl: Some(freshness.ttl_seconds(now)),
        ..CacheStatus::default()
    };
    block.push(&CACHE_STATUS, status.to_value().as_bytes());
    block
}

/// Sends the body of `page`: from the copy that can go out without passing through here, if
/// there is one.
pub(super) async fn send(conn: &mut Conn, page: &Stored, twins: &Twins, count: &mut u64) -> Sent {
    let twin = conn.is_plain().then(|| twins.of(page)).flatten();
    let sent = match twin {
        Some(twin) => conn.send_file(twin.file(), 0..page.len(), count).await,
        None => conn.send(page.segments(), count).await,
    };
    sent.map_or(Sent::Gone, |()| Sent::Whole)
}
