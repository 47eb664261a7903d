//! A file that answers, and its sending.
//!
//! Errors of a route that has pages for them are left to the turn behind, which puts those on.

use std::io::Write as _;
use std::time::SystemTime;

use http::{StatusCode, header};
use static_server::{Answer, Body, FilePart, Part, Request, Sending, Site};

use super::Sent;
use super::block::Block;
use super::date::http_date;
use super::head::LaneHead;
use crate::carry::files::Pieces;
use crate::clock;
use crate::exchange::pages::Pages;
use crate::exchange::{self, Way};
use crate::listen::Conn;

/// The answer, unless it is an error that gets a page.
pub(super) fn find(
    site: &Site,
    strip_prefix: Option<&str>,
    pages: Option<&Pages>,
    way: &Way,
    head: &impl LaneHead,
    sending: Sending,
) -> Option<Answer> {
    if exchange::folder_of(way, strip_prefix).is_some() {
        return None;
    }
    let asked = Request {
        method: head.method(),
        path: exchange::stripped(&way.path, strip_prefix),
        query: way.query.as_deref(),
        fields: head,
        sending,
    };
    let answer = site.answer(&asked, clock::now());
    (answer.status.as_u16() < 400 || pages.is_none()).then_some(answer)
}

/// Whether the body is in memory, and at most so long.
pub(super) fn is_small(answer: &Answer, most: u64) -> bool {
    match &answer.body {
        Body::Empty => true,
        Body::Memory(bytes) => bytes.len() as u64 <= most,
        Body::File(_) | Body::Parts(_) => false,
    }
}

/// Writes the head of `answer`, but for what belongs to every reply.
pub(super) fn begin_head<'a>(out: &'a mut Vec<u8>, answer: &Answer, now: SystemTime) -> Block<'a> {
    match answer.status {
        StatusCode::OK => out.extend_from_slice(b"HTTP/1.1 200 OK\r\n"),
        status => {
            let reason = status.canonical_reason().unwrap_or_default();
            // A vector takes all.
            let _ = write!(out, "HTTP/1.1 {} {reason}\r\n", status.as_str());
        }
    }
    let start = out.len();
    answer.headers.write_lines(out);
    let mut block = Block::new(out, start);
    block.push(&header::DATE, &http_date(now));
    block
}

/// Sends `body` behind the head.
pub(super) async fn send(conn: &mut Conn, body: &Body, count: &mut u64) -> Sent {
    match body {
        Body::Empty => to_sent(conn.send(&[], count).await),
        Body::Memory(bytes) => to_sent(conn.send(std::slice::from_ref(bytes), count).await),
        // Boxed: few are sent piece by piece, and the future of every request has room for this.
        Body::File(part) => match part.sendable().filter(|_| conn.is_plain()) {
            Some(file) => {
                let stretch = part.offset..part.offset.saturating_add(part.len);
                to_sent(conn.send_file(file, stretch, count).await)
            }
            None => Box::pin(copy(conn, part.clone(), count)).await,
        },
        Body::Parts(parts) => Box::pin(send_parts(conn, parts, count)).await,
    }
}

async fn send_parts(conn: &mut Conn, parts: &[Part], count: &mut u64) -> Sent {
    for part in parts {
        let sent = match part {
            Part::Memory(bytes) => to_sent(conn.send(std::slice::from_ref(bytes), count).await),
            Part::File(part) => copy(conn, part.clone(), count).await,
        };
        if !matches!(sent, Sent::Whole) {
            return sent;
        }
    }
    Sent::Whole
}

async fn copy(conn: &mut Conn, part: FilePart, count: &mut u64) -> Sent {
    let mut pieces = Pieces::new(part);
    loop {
        match pieces.next().await {
            Ok(None) => return Sent::Whole,
            Ok(Some(bytes)) => {
                if conn.send(&[bytes], count).await.is_err() {
                    return Sent::Gone;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "file broken off in the middle");
                return Sent::Changed;
            }
        }
    }
}

fn to_sent(result: std::io::Result<()>) -> Sent {
    result.map_or(Sent::Gone, |()| Sent::Whole)
}
