//! A stored (or arriving) object on its way to one client: conditions, ranges,
//! Age and Cache-Status are that client's own.

use bytes::Bytes;
use cache::condition::{self, Condition};
use cache::part::{self, Extent};
use cache::range::{self, Cut, Selection};
use cache::status::CacheStatus;
use cache::{Head, Reader, Stored};
use http::header::{self, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;

use super::failure::{ClientFault, Failure};
use super::respond;
use super::turn::{Broken, Turn};
use crate::clock;
use crate::exchange::pages::Cover;
use crate::snapshot::Route;

pub(super) static CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// Adds our line to Cache-Status (RFC 9211).
pub(super) fn mark(head: &mut ResponseHeader, status: &CacheStatus<'_>) {
    if let Ok(value) = HeaderValue::from_str(&status.to_value()) {
        // The name is typed: it cannot be refused.
        let _ = head.append_header(&CACHE_STATUS, value);
    }
}

/// Answers with an object that is whole.
pub(super) async fn answer(
    turn: &mut Turn,
    session: &mut ServerSession,
    route: &Route,
    stored: &Stored,
    mut status: CacheStatus<'_>,
) -> Result<(), Broken> {
    let now = clock::wall();
    let head = stored.head();
    // What a soft purge made stale is past its lifetime.
    status.ttl = Some(stored.freshness().ttl_seconds(now));
    if let Some(cover) = cover_of(turn, session, route, head) {
        let reply = base(head, head.status(), &status)?;
        return write_cover(turn, session, route, reply, cover).await;
    }
    let request = session.req_header();
    if condition::evaluate(head, &request.headers, now) == Condition::NotModified {
        let reply = not_modified(head, &status)?;
        return write(turn, session, route, reply, Vec::new()).await;
    }
    let asked = cache::Request {
        method: &request.method,
        fields: &request.headers,
    };
    let (reply, body) = match range::select(head, asked, stored.len(), now) {
        Selection::Whole => {
            let mut reply = base(head, head.status(), &status)?;
            set_length(&mut reply, head, stored.len())?;
            (reply, stored.segments().to_vec())
        }
        Selection::Part(part) => {
            let mut reply = base(head, StatusCode::PARTIAL_CONTENT, &status)?;
            let body = slice(stored.segments(), part.start, part.end);
            let complete = stored.len();
            let extent = Extent {
                bytes: part,
                complete,
            };
            make_partial(&mut reply, &extent)?;
            (reply, body)
        }
        Selection::Parts(parts) => multipart(head, stored, &parts, &status)?,
        Selection::Unsatisfiable => (unsatisfiable(head, stored.len(), &status)?, Vec::new()),
    };
    write(turn, session, route, reply, body).await
}

/// Answers with a part of a page that is not stored whole.
pub(super) async fn answer_part(
    turn: &mut Turn,
    session: &mut ServerSession,
    route: &Route,
    stored: &Stored,
    found: &part::Found,
    mut status: CacheStatus<'_>,
) -> Result<(), Broken> {
    let now = clock::wall();
    let head = stored.head();
    status.hit = true;
    status.ttl = Some(stored.freshness().ttl_seconds(now));
    if condition::evaluate(head, &session.req_header().headers, now) == Condition::NotModified {
        let reply = not_modified(head, &status)?;
        return write(turn, session, route, reply, Vec::new()).await;
    }
    let mut reply = base(head, StatusCode::PARTIAL_CONTENT, &status)?;
    make_partial(&mut reply, &found.extent)?;
    let body = slice(stored.segments(), found.within.start, found.within.end);
    write(turn, session, route, reply, body).await
}

/// RFC 9110 section 15.3.7.1.
fn make_partial(reply: &mut ResponseHeader, extent: &Extent) -> pingora::Result<()> {
    let length = extent.bytes.end - extent.bytes.start;
    reply.set_status(StatusCode::PARTIAL_CONTENT)?;
    reply.insert_header(header::CONTENT_RANGE, extent.to_value())?;
    reply.insert_header(header::CONTENT_LENGTH, HeaderValue::from(length))
}

/// RFC 9110 section 15.5.17.
fn unsatisfiable(
    head: &Head,
    length: u64,
    status: &CacheStatus<'_>,
) -> pingora::Result<Box<ResponseHeader>> {
    let mut reply = base(head, StatusCode::RANGE_NOT_SATISFIABLE, status)?;
    reply.insert_header(header::CONTENT_RANGE, format!("bytes */{length}"))?;
    reply.insert_header(header::CONTENT_LENGTH, HeaderValue::from_static("0"))?;
    Ok(reply)
}

/// An object that is on its way into the store.
pub(super) struct Arriving<'a> {
    pub(super) head: &'a Head,
    /// The upstream's own head, for the client whose request brought it.
    pub(super) own: Option<Box<ResponseHeader>>,
    pub(super) reader: Reader,
}

/// Answers with an object that is still arriving, or with the part of it that is asked for as soon
/// as its bytes are there. Several parts would have to wait for each other: the whole comes instead.
pub(super) async fn stream(
    turn: &mut Turn,
    session: &mut ServerSession,
    route: &Route,
    object: Arriving<'_>,
    mut status: CacheStatus<'_>,
) -> Result<(), Broken> {
    let Arriving {
        head,
        own,
        mut reader,
    } = object;
    let now = clock::wall();
    status.ttl = Some(head.freshness().ttl_seconds(now));
    if let Some(cover) = cover_of(turn, session, route, head) {
        let mut reply = match own {
            Some(own) => own,
            None => respond::from_fields(head.status(), head.to_header_map()),
        };
        finish_head(&mut reply, head, &status)?;
        respond::adapt(&mut reply, session)?;
        return write_cover(turn, session, route, reply, cover).await;
    }
    if condition::evaluate(head, &session.req_header().headers, now) == Condition::NotModified {
        let reply = not_modified(head, &status)?;
        return write(turn, session, route, reply, Vec::new()).await;
    }
    let request = session.req_header();
    let asked = cache::Request {
        method: &request.method,
        fields: &request.headers,
    };
    let selected = match head.content_length() {
        Some(length) => range::select(head, asked, length, now),
        None => Selection::Whole,
    };
    if selected == Selection::Unsatisfiable {
        let reply = unsatisfiable(head, head.content_length().unwrap_or(0), &status)?;
        return write(turn, session, route, reply, Vec::new()).await;
    }
    let mut reply = match own {
        Some(mut own) => {
            finish_head(&mut own, head, &status)?;
            own
        }
        None => base(head, head.status(), &status)?,
    };
    let mut cut = None;
    if let Some(length) = head.content_length() {
        reply.insert_header(header::CONTENT_LENGTH, length.to_string())?;
        if let Selection::Part(part) = selected {
            cut = Some(Cut::new(part.clone()));
            let extent = Extent {
                bytes: part,
                complete: length,
            };
            make_partial(&mut reply, &extent)?;
        }
    }
    respond::adapt(&mut reply, session)?;
    route.chain.response(&mut *reply);
    let gone = Failure::Client(ClientFault::Gone);
    if respond::begin(session, reply, &turn.id).await.is_err() {
        return turn.fail(session, Some(route), gone).await;
    }
    if !respond::may_have_body(session, head.status()) {
        return Ok(respond::finish(session).await?);
    }
    loop {
        let piece = tokio::select! {
            biased;
            piece = reader.next() => piece,
            _ = session.read_body_or_idle(true) => {
                return turn.fail(session, Some(route), gone).await;
            }
        };
        match piece {
            None => return Ok(respond::finish(session).await?),
            Some(Ok(mut piece)) => {
                if let Some(cut) = &mut cut {
                    piece = cut.take(piece);
                }
                // An empty piece would end a chunked body.
                if !piece.is_empty() && respond::write_body(session, piece, false).await.is_err() {
                    return turn.fail(session, Some(route), gone).await;
                }
                if cut.as_ref().is_some_and(Cut::is_done) {
                    return Ok(respond::finish(session).await?);
                }
            }
            Some(Err(_)) => {
                return turn.fail(session, Some(route), Failure::Reset).await;
            }
        }
    }
}

/// What stands in for the body of a stored error: it is put on at delivery, so that what is stored
/// stays as the app sent it.
fn cover_of(turn: &Turn, session: &ServerSession, route: &Route, head: &Head) -> Option<Cover> {
    let status = head.status();
    if !route.may_cover(status) {
        return None;
    }
    turn.cover_of(session, route, status, &head.to_header_map())
}

async fn write_cover(
    turn: &mut Turn,
    session: &mut ServerSession,
    route: &Route,
    mut reply: Box<ResponseHeader>,
    cover: Cover,
) -> Result<(), Broken> {
    cover.put_on(&mut *reply);
    write(turn, session, route, reply, vec![cover.body]).await
}

/// The stored fields under `status`, with Age (RFC 9111 section 5.1) and Cache-Status.
fn base(
    head: &Head,
    status: StatusCode,
    mark_with: &CacheStatus<'_>,
) -> pingora::Result<Box<ResponseHeader>> {
    let mut reply = respond::from_fields(status, head.to_header_map());
    finish_head(&mut reply, head, mark_with)?;
    Ok(reply)
}

fn finish_head(
    reply: &mut ResponseHeader,
    head: &Head,
    mark_with: &CacheStatus<'_>,
) -> pingora::Result<()> {
    let age = head.freshness().age_seconds(clock::wall());
    // Age says that the origin neither made nor validated the reply for this request (RFC 9111
    // section 5.1). Where it did, only what came through another cache has one.
    let first_hand = mark_with.fwd.is_some() && !mark_with.collapsed;
    if age > 0 || !first_hand {
        reply.insert_header(header::AGE, HeaderValue::from(age))?;
    }
    mark(reply, mark_with);
    Ok(())
}

/// RFC 9110 section 15.4.5.
fn not_modified(head: &Head, mark_with: &CacheStatus<'_>) -> pingora::Result<Box<ResponseHeader>> {
    let mut reply = respond::head(StatusCode::NOT_MODIFIED, 8)?;
    for (name, value) in &head.to_header_map() {
        if Head::belongs_in_not_modified(name.as_str().as_bytes()) {
            reply.append_header(name, value.clone())?;
        }
    }
    finish_head(&mut reply, head, mark_with)?;
    Ok(reply)
}

fn set_length(reply: &mut ResponseHeader, head: &Head, length: u64) -> pingora::Result<()> {
    if head.may_have_body() {
        reply.insert_header(header::CONTENT_LENGTH, HeaderValue::from(length))?;
    }
    Ok(())
}

/// RFC 9110 section 14.6.
fn multipart(
    head: &Head,
    stored: &Stored,
    parts: &[std::ops::Range<u64>],
    status: &CacheStatus<'_>,
) -> pingora::Result<(Box<ResponseHeader>, Vec<Bytes>)> {
    let boundary = format!("{:032x}", crate::random::id());
    let mut reply = base(head, StatusCode::PARTIAL_CONTENT, status)?;
    // Each part has its own (RFC 9110 section 15.3.7.2).
    reply.remove_header(&header::CONTENT_RANGE);
    let media_type = head
        .to_header_map()
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("application/octet-stream")
        .to_owned();
    let mut body = Vec::new();
    for part in parts {
        body.push(Bytes::from(format!(
            "\r\n--{boundary}\r\nContent-Type: {media_type}\r\nContent-Range: bytes {}-{}/{}\r\n\r\n",
            part.start,
            part.end - 1,
            stored.len()
        )));
        body.extend(slice(stored.segments(), part.start, part.end));
    }
    body.push(Bytes::from(format!("\r\n--{boundary}--\r\n")));
    let length: usize = body.iter().map(Bytes::len).sum();
    reply.insert_header(
        header::CONTENT_TYPE,
        format!("multipart/byteranges; boundary={boundary}"),
    )?;
    reply.insert_header(header::CONTENT_LENGTH, HeaderValue::from(length))?;
    Ok((reply, body))
}

async fn write(
    turn: &mut Turn,
    session: &mut ServerSession,
    route: &Route,
    mut head: Box<ResponseHeader>,
    mut body: Vec<Bytes>,
) -> Result<(), Broken> {
    route.chain.response(&mut *head);
    if session.req_header().method == Method::HEAD {
        body.clear();
    }
    if body.len() <= 1 {
        let body = body.pop().unwrap_or_default();
        return turn.write(session, head, body).await;
    }
    let gone = Failure::Client(ClientFault::Gone);
    if respond::begin(session, head, &turn.id).await.is_err() {
        return turn.fail(session, Some(route), gone).await;
    }
    for segment in body {
        if respond::write_body(session, segment, false).await.is_err() {
            return turn.fail(session, Some(route), gone).await;
        }
    }
    Ok(respond::finish(session).await?)
}

/// Segments of a body between two offsets.
fn slice(segments: &[Bytes], mut start: u64, end: u64) -> Vec<Bytes> {
    let mut left = end.saturating_sub(start);
    let mut parts = Vec::new();
    for segment in segments {
        let length = segment.len() as u64;
        if left == 0 {
            break;
        }
        if start >= length {
            start -= length;
            continue;
        }
        let taken = (length - start).min(left);
        let from = usize::try_from(start).unwrap_or(0);
        let to = from + usize::try_from(taken).unwrap_or(0);
        parts.push(segment.slice(from..to));
        left -= taken;
        start = 0;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_goes_over_segment_borders() {
        let segments = [Bytes::from("abc"), Bytes::from("def"), Bytes::from("ghi")];
        let text = |start, end| slice(&segments, start, end).concat();
        assert_eq!(text(0, 9), b"abcdefghi");
        assert_eq!(text(2, 4), b"cd");
        assert_eq!(text(3, 6), b"def");
        assert_eq!(text(8, 9), b"i");
        assert_eq!(text(4, 4), b"");
    }
}
