//! The door: a strict check of a request head before anything else sees it.
//!
//! Pingora's parser is a tolerant one (it takes bare LF, both framings, a
//! missing Host), and what two parsers read differently is how requests are
//! smuggled. So each HTTP/1 head goes through [`inspect`] first, and only what
//! has one reading passes; an HTTP/2 request, framed by its own layer, goes
//! through [`inspect_parts`]. Whatever is refused ends the connection
//! (RFC 9112 section 11.2).
//!
//! `inspect` reads each octet once, allocates nothing, and answers as soon as
//! the answer can no longer change: for every prefix of an input it gives
//! either [`Inspect::Partial`] or what it gives for the whole.
//!
//! It keeps no head and interprets no field beyond framing, host, connection
//! and expectation.

mod fields;
mod host;
mod parts;
mod reject;
mod request_line;
#[cfg(test)]
mod tests;

pub(crate) mod octets;

use fields::Semantics;
use octets::{TOKEN, is, next_control};

pub(crate) use host::{authority_of, lower};
pub(crate) use parts::{OnStream, inspect_parts};
pub(crate) use reject::Reject;

/// Most fields a request may have, whatever is configured.
pub(crate) const MAX_FIELDS: usize = 128;
/// Longest method, in octets.
pub(crate) const MAX_METHOD: usize = 32;

/// What is known about the octets that came so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inspect {
    /// Nothing wrong yet, and the head does not end here.
    Partial,
    /// A whole head.
    Head(HeadFacts),
    /// No continuation makes this acceptable.
    Reject(Reject),
}

/// What the carrier must know of a head that was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HeadFacts {
    /// Octets up to and including the empty line that ends the head; the body begins there.
    pub(crate) head_len: usize,
    /// How many fields it has.
    pub(crate) fields: usize,
    /// Version of the request.
    pub(crate) version: Version,
    /// The method, as far as framing depends on it.
    pub(crate) method: MethodKind,
    /// How the body is framed.
    pub(crate) body: Framing,
    /// Whether another protocol is asked for.
    pub(crate) upgrade: Upgrade,
    /// Whether the client waits for 100 before it sends the body (RFC 9110 section 10.1.1).
    pub(crate) expect_continue: bool,
    /// Whether the client wants to go on with the connection (RFC 9112 section 9.3).
    pub(crate) keep_alive: bool,
    /// Whether it says something of a client's certificate, which not everybody may.
    pub(crate) claims_certificate: bool,
}

/// The versions that are spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
}

/// A method's effect on framing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MethodKind {
    /// GET.
    Get,
    /// HEAD: the reply has no body.
    Head,
    /// Any other token except CONNECT, which is refused.
    Other,
}

/// How a request body is framed (RFC 9112 section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// There is none.
    None,
    /// So many octets, at most 2^63 - 1; may be 0.
    Length(u64),
    /// By chunks; [`super::chunked`] finds the end.
    Chunked,
}

/// What `Upgrade` together with `Connection: upgrade` asks for (RFC 9110 section 7.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Upgrade {
    /// Nothing; always so in HTTP/1.0.
    None,
    /// Exactly `websocket`.
    WebSocket,
    /// Something else (`h2c` among them, which must not be passed on).
    Other,
}

/// Why a parse stops before its end.
enum Stop {
    /// More octets are needed.
    More(Place),
    /// No octet can mend it.
    Reject(Reject),
}

/// Where the octets ran out; picks between 414 and 431.
enum Place {
    Target,
    Elsewhere,
}

impl Stop {
    const MORE: Self = Self::More(Place::Elsewhere);
}

impl From<Reject> for Stop {
    fn from(reject: Reject) -> Self {
        Self::Reject(reject)
    }
}

/// Judges the octets that a connection holds from the first of a request on.
///
/// `bytes` may go on behind the head (body, the next request).
/// `max_header_size` bounds the head with its last empty line, in octets.
#[must_use]
pub(crate) fn inspect(bytes: &[u8], max_header_size: usize) -> Inspect {
    let within = &bytes[..bytes.len().min(max_header_size)];
    match head(within) {
        Ok(facts) => Inspect::Head(facts),
        Err(Stop::Reject(reject)) => Inspect::Reject(reject),
        Err(Stop::More(_)) if within.len() < max_header_size => Inspect::Partial,
        Err(Stop::More(Place::Target)) => Inspect::Reject(Reject::TargetTooLong),
        Err(Stop::More(Place::Elsewhere)) => Inspect::Reject(Reject::HeadTooLarge),
    }
}

fn head(bytes: &[u8]) -> Result<HeadFacts, Stop> {
    let start = leading_empty_line(bytes)?;
    let (line, mut at) = request_line::parse(bytes, start)?;
    let mut semantics = Semantics::new(line.version);
    let mut count = 0;
    loop {
        match bytes.get(at) {
            None => return Err(Stop::MORE),
            Some(b'\r') => {
                let head_len = line_end(bytes, at)?;
                return Ok(semantics.finish(&line, head_len, count)?);
            }
            Some(_) => {}
        }
        count += 1;
        if count > MAX_FIELDS {
            return Err(Reject::TooManyFields.into());
        }
        let field = field_line(bytes, at)?;
        semantics.take(field.name, field.value)?;
        at = field.next;
    }
}

/// One empty line is skipped, as RFC 9112 section 2.2 asks; a second one is not.
fn leading_empty_line(bytes: &[u8]) -> Result<usize, Stop> {
    if bytes.first() != Some(&b'\r') {
        return Ok(0);
    }
    let start = line_end(bytes, 0)?;
    match bytes.get(start) {
        Some(b'\r') => Err(Reject::EmptyLine.into()),
        _ => Ok(start),
    }
}

struct FieldLine<'a> {
    name: &'a [u8],
    /// Without the white space around it.
    value: &'a [u8],
    /// Where the next line begins.
    next: usize,
}

/// `field-name ":" OWS field-value OWS CRLF` (RFC 9112 section 5).
fn field_line(bytes: &[u8], start: usize) -> Result<FieldLine<'_>, Stop> {
    let colon = field_name_end(bytes, start)?;
    let end = next_control(bytes, colon + 1).ok_or(Stop::MORE)?;
    if bytes[end] != b'\r' {
        return Err(stray(bytes, end, Reject::ControlCharacter));
    }
    let next = line_end(bytes, end)?;
    Ok(FieldLine {
        name: &bytes[start..colon],
        value: trim(&bytes[colon + 1..end]),
        next,
    })
}

/// Where the colon behind the name that begins at `start` stands.
fn field_name_end(bytes: &[u8], start: usize) -> Result<usize, Stop> {
    let rest = &bytes[start..];
    let len = rest.iter().position(|&b| !is(b, TOKEN)).ok_or(Stop::MORE)?;
    match rest[len] {
        b':' if len > 0 => Ok(start + len),
        b' ' | b'\t' if len == 0 => Err(Reject::ObsFold.into()),
        b' ' | b'\t' => Err(Reject::SpaceBeforeColon.into()),
        _ => Err(stray(bytes, start + len, Reject::BadFieldName)),
    }
}

/// Where the line after the CR at `at` begins.
fn line_end(bytes: &[u8], at: usize) -> Result<usize, Stop> {
    match bytes.get(at + 1) {
        None => Err(Stop::MORE),
        Some(b'\n') => Ok(at + 2),
        Some(_) => Err(Reject::BareCr.into()),
    }
}

/// Names an octet that may not stand at `at`: line ends by their own names,
/// anything else as `otherwise`.
fn stray(bytes: &[u8], at: usize, otherwise: Reject) -> Stop {
    match bytes.get(at) {
        None => Stop::MORE,
        Some(b'\n') => Reject::BareLf.into(),
        Some(b'\r') => match line_end(bytes, at) {
            Ok(_) => otherwise.into(),
            Err(stop) => stop,
        },
        Some(_) => otherwise.into(),
    }
}

/// Without OWS (RFC 9110 section 5.6.3) at both ends.
pub(crate) fn trim(value: &[u8]) -> &[u8] {
    let white = |b: &u8| matches!(b, b' ' | b'\t');
    let Some(start) = value.iter().position(|b| !white(b)) else {
        return &[];
    };
    let end = value.iter().rposition(|b| !white(b)).map_or(0, |i| i + 1);
    &value[start..end]
}

/// The members of a comma-separated list (RFC 9110 section 5.6.1), empty ones included.
fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&b| b == b',').map(trim)
}
