//! A reply that the configuration gives: fixed ones, redirects, refusals of filters.

use std::io::Write as _;
use std::time::SystemTime;

use bytes::Bytes;
use http::{StatusCode, header};

use super::Sent;
use super::block::Block;
use super::date::http_date;
use crate::carry::answer;
use crate::filter::Reply;
use crate::listen::Conn;
use crate::snapshot::Route;

/// Whether no page of the route may take the place of the reply's body.
pub(super) fn is_own(route: &Route, reply: &Reply) -> bool {
    let is_covered = route.pages.is_some() && reply.status.as_u16() >= 400;
    answer::is_meant(reply) || !is_covered
}

/// Writes the head of `reply`, but for what belongs to every reply.
pub(super) fn begin_head<'a>(out: &'a mut Vec<u8>, reply: &Reply, now: SystemTime) -> Block<'a> {
    let status = reply.status;
    let reason = status.canonical_reason().unwrap_or_default();
    // A vector takes all.
    let _ = write!(out, "HTTP/1.1 {} {reason}\r\n", status.as_str());
    let start = out.len();
    let mut block = Block::new(out, start);
    for (name, value) in &reply.headers {
        block.push(name, value.as_bytes());
    }
    if has_body(status) {
        let length = itoa::Buffer::new().format(reply.body.len()).to_owned();
        block.push(&header::CONTENT_LENGTH, length.as_bytes());
    }
    block.push(&header::DATE, &http_date(now));
    block
}

/// Sends the body behind the head.
pub(super) async fn send(conn: &mut Conn, reply: &Reply, count: &mut u64) -> Sent {
    let body = match has_body(reply.status) {
        true => std::slice::from_ref(&reply.body),
        false => &[],
    };
    let sent = conn.send(body, count).await;
    sent.map_or(Sent::Gone, |()| Sent::Whole)
}

/// The body, where the status has one.
pub(super) fn body(reply: &Reply) -> Bytes {
    match has_body(reply.status) {
        true => reply.body.clone(),
        false => Bytes::new(),
    }
}

fn has_body(status: StatusCode) -> bool {
    status != StatusCode::NO_CONTENT && status != StatusCode::NOT_MODIFIED
}
