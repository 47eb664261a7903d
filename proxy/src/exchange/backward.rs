//! What a client sees of a reply's head, for the plain kind of replies.
//!
//! [`translate`] reads an upstream's HTTP/1.1 head and writes the client's in one go. It knows the
//! narrow form that servers send nearly always and says [`Translated::Other`] to everything else
//! (interim replies, HTTP/1.0, an end that only the end of the connection tells, two framings, a
//! folded line, a bare LF), which is then for Pingora's parser to read or refuse. So where the two
//! differ, it is in what this one leaves alone.

use http::StatusCode;

use super::guard::octets::{TOKEN, is, lower, next_control};
use super::guard::trim;

/// Most octets of a head that is read here.
const MAX_HEAD: usize = 16 * 1024;

/// Most fields of one. Pingora's parser has a bound, too, and refuses what is beyond it.
const MAX_FIELDS: usize = 128;

/// What came of the octets so far.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Translated {
    /// The head does not end here.
    Partial,
    /// It is written.
    Head(ReplyFacts),
    /// It is not for here; nothing is written.
    Other,
}

/// What the carrier must know of a reply's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReplyFacts {
    /// Octets of the upstream's head with its empty line; the body begins there.
    pub(crate) len: usize,
    /// Status, never an interim one.
    pub(crate) status: StatusCode,
    /// How the body is framed.
    pub(crate) body: ReplyBody,
    /// Whether the upstream goes on with the connection.
    pub(crate) keep_alive: bool,
    /// Whether there is a Date.
    pub(crate) dated: bool,
}

/// How the body of a reply is framed (RFC 9112 section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReplyBody {
    /// There is none, whatever the fields say of it: the reply to a HEAD, and a 304.
    None,
    /// So many octets.
    Length(u64),
    /// By chunks.
    Chunked,
}

/// Reads the head at the start of `bytes`, the reply to a HEAD or another request, and appends the
/// client's status line and field lines to `out`: names in lower case, without the fields of the
/// upstream's connection, without an id, with Transfer-Encoding where the body is chunked, and
/// without the empty line, so that more can follow.
#[must_use]
pub(crate) fn translate(bytes: &[u8], to_head: bool, out: &mut Vec<u8>) -> Translated {
    let start = out.len();
    match try_translate(bytes, to_head, out) {
        Ok(facts) => Translated::Head(facts),
        Err(stop) => {
            out.truncate(start);
            match stop {
                Stop::More if bytes.len() < MAX_HEAD => Translated::Partial,
                Stop::More | Stop::Other => Translated::Other,
            }
        }
    }
}

/// What most replies begin with.
const OK: &[u8] = b"HTTP/1.1 200 OK\r\n";

enum Stop {
    More,
    Other,
}

/// What the fields said of the framing.
#[derive(Default)]
struct Framing {
    length: Option<u64>,
    chunked: bool,
    close: bool,
    dated: bool,
}

fn try_translate(bytes: &[u8], to_head: bool, out: &mut Vec<u8>) -> Result<ReplyFacts, Stop> {
    let (status, mut at) = match bytes.starts_with(OK) {
        true => (StatusCode::OK, OK.len()),
        false => status_line(bytes)?,
    };
    if status == StatusCode::OK {
        out.extend_from_slice(OK);
    } else {
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(status.as_str().as_bytes());
        out.push(b' ');
        out.extend_from_slice(status.canonical_reason().ok_or(Stop::Other)?.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    let mut framing = Framing::default();
    let mut count = 0;
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        count += 1;
        match rest {
            [] | [b'\r'] => return Err(Stop::More),
            [b'\r', b'\n', ..] if at < MAX_HEAD => break,
            _ if count > MAX_FIELDS || at >= MAX_HEAD => return Err(Stop::Other),
            _ => at += field(rest, &mut framing, out)?,
        }
    }
    let body = match (framing.length, framing.chunked) {
        (Some(_), true) => return Err(Stop::Other),
        // Neither has a body, so that a framing is a mistake; for a 304 it tells of the page.
        (None, false) if status == StatusCode::NO_CONTENT => ReplyBody::None,
        _ if status == StatusCode::NO_CONTENT => return Err(Stop::Other),
        (_, chunked) if to_head || status == StatusCode::NOT_MODIFIED => match chunked {
            true => return Err(Stop::Other),
            false => ReplyBody::None,
        },
        (Some(length), false) => ReplyBody::Length(length),
        (None, true) => ReplyBody::Chunked,
        (None, false) => return Err(Stop::Other),
    };
    if body == ReplyBody::Chunked {
        out.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
    Ok(ReplyFacts {
        len: at + 2,
        status,
        body,
        keep_alive: !framing.close,
        dated: framing.dated,
    })
}

/// `HTTP/1.1 SP 3DIGIT SP [reason] CRLF`; the status, and where the next line begins.
fn status_line(bytes: &[u8]) -> Result<(StatusCode, usize), Stop> {
    const START: &[u8] = b"HTTP/1.1 ";
    let known = bytes.len().min(START.len());
    if bytes[..known] != START[..known] {
        return Err(Stop::Other);
    }
    let end = next_control(bytes, known).ok_or(Stop::More)?;
    let (digits, reason) = bytes
        .get(START.len()..end)
        .and_then(|rest| rest.split_at_checked(3))
        .ok_or(Stop::Other)?;
    let status = StatusCode::from_bytes(digits).map_err(|_| Stop::Other)?;
    if status.is_informational() || !(reason.is_empty() || reason.starts_with(b" ")) {
        return Err(Stop::Other);
    }
    Ok((status, end + line_end(&bytes[end..])?))
}

/// Octets of the line's end, which begins `bytes`.
fn line_end(bytes: &[u8]) -> Result<usize, Stop> {
    match bytes {
        [b'\r'] => Err(Stop::More),
        [b'\r', b'\n', ..] => Ok(2),
        _ => Err(Stop::Other),
    }
}

/// One field line at the start of `rest`; its octets.
fn field(rest: &[u8], framing: &mut Framing, out: &mut Vec<u8>) -> Result<usize, Stop> {
    let colon = rest
        .iter()
        .position(|&byte| !is(byte, TOKEN))
        .ok_or(Stop::More)?;
    if colon == 0 || rest[colon] != b':' {
        return Err(Stop::Other);
    }
    let end = next_control(rest, colon + 1).ok_or(Stop::More)?;
    let next = end + line_end(&rest[end..])?;
    let value = trim(&rest[colon + 1..end]);
    let at = out.len();
    if rest[colon + 1] == b' ' && colon + 2 + value.len() == end {
        // As it stands, which it nearly always does.
        out.extend_from_slice(&rest[..next]);
    } else {
        out.extend_from_slice(&rest[..colon]);
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    }
    lower(&mut out[at..], colon);
    if !takes_over(&out[at..at + colon], value, framing)? {
        out.truncate(at);
    }
    Ok(next)
}

/// Whether the client gets the field; what it says of the framing is noted. `name` in small
/// letters.
fn takes_over(name: &[u8], value: &[u8], framing: &mut Framing) -> Result<bool, Stop> {
    match name {
        // Which of two counts is for the other carrier to say.
        b"date" if framing.dated => return Err(Stop::Other),
        b"date" => framing.dated = true,
        b"connection" => {
            framing.close |= closes(value)?;
            return Ok(false);
        }
        // What it announces crosses where both framings have a place for it.
        b"trailer" => return Err(Stop::Other),
        // The edge's own id is the one that counts.
        b"upgrade" | b"keep-alive" | b"x-request-id" | b"proxy-connection" => {
            return Ok(false);
        }
        b"content-length" => {
            if framing.length.is_some() {
                return Err(Stop::Other);
            }
            framing.length = Some(length(value).ok_or(Stop::Other)?);
        }
        b"transfer-encoding" => {
            if framing.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Stop::Other);
            }
            framing.chunked = true;
            return Ok(false);
        }
        _ => {}
    }
    Ok(true)
}

/// Whether a Connection field ends the connection. One that names fields is not for here.
fn closes(value: &[u8]) -> Result<bool, Stop> {
    if value.eq_ignore_ascii_case(b"close") {
        return Ok(true);
    }
    match value.eq_ignore_ascii_case(b"keep-alive") {
        true => Ok(false),
        false => Err(Stop::Other),
    }
}

/// Digits, of a number that fits 63 bits.
fn length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 18 {
        return None;
    }
    value.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.wrapping_sub(b'0');
        (digit < 10).then(|| number * 10 + u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn translated(head: &str, to_head: bool) -> Option<(ReplyFacts, String)> {
        let mut out = b"before".to_vec();
        match translate(head.as_bytes(), to_head, &mut out) {
            Translated::Head(facts) => Some((facts, String::from_utf8(out.split_off(6)).unwrap())),
            Translated::Partial | Translated::Other => {
                assert_eq!(out, b"before", "nothing may be left of {head:?}");
                None
            }
        }
    }

    #[test]
    fn a_plain_reply_is_taken_over_without_the_fields_of_its_connection() {
        let head = "HTTP/1.1 200 Fine\r\nServer: app\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\n\
                    Content-Length:  12 \r\nX-Request-Id: theirs\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\
                    Upgrade: h2c\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\nX-Empty:\r\n\r\n";
        let (facts, out) = translated(&format!("{head}hello, world"), false).unwrap();
        assert_eq!(
            out,
            "HTTP/1.1 200 OK\r\nserver: app\r\ncontent-length: 12\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\
             set-cookie: a=1\r\nset-cookie: b=2\r\nx-empty: \r\n"
        );
        assert_eq!(
            facts,
            ReplyFacts {
                len: head.len(),
                status: StatusCode::OK,
                body: ReplyBody::Length(12),
                keep_alive: true,
                dated: true,
            }
        );
    }

    #[test]
    fn each_framing_has_its_body() {
        let body = |head: &str, to_head| translated(head, to_head).map(|(facts, _)| facts.body);
        let chunked = "HTTP/1.1 404 \r\nTransfer-Encoding: Chunked\r\nconnection: Close\r\n\r\n";
        let (facts, out) = translated(chunked, false).unwrap();
        assert_eq!((facts.body, facts.keep_alive), (ReplyBody::Chunked, false));
        assert_eq!(
            out,
            "HTTP/1.1 404 Not Found\r\ntransfer-encoding: chunked\r\n"
        );
        let length = "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n";
        assert_eq!(body(length, false), Some(ReplyBody::Length(7)));
        assert_eq!(body(length, true), Some(ReplyBody::None));
        let unchanged = "HTTP/1.1 304 Not Modified\r\ncontent-length: 7\r\n\r\n";
        assert_eq!(body(unchanged, false), Some(ReplyBody::None));
        assert_eq!(
            body("HTTP/1.1 204 No Content\r\n\r\n", false),
            Some(ReplyBody::None)
        );
    }

    #[test]
    fn what_is_not_plain_is_left_alone() {
        for head in [
            "HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\n",
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 299 Own\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 2000 OK\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 20 OK\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1  200 OK\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\ncontent-length: 0\n\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 0\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\ndate: a\r\ndate: a\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 0, 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: +1\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length:\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 9999999999999999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n",
            "HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntrailer: x\r\ntransfer-encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nconnection: x-secret\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nx: a\r\n b\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nx : a\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\n: a\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nx: a\0b\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nx: a\rb\r\ncontent-length: 0\r\n\r\n",
            "ICY 200 OK\r\n\r\n",
        ] {
            let mut out = Vec::new();
            let got = translate(head.as_bytes(), false, &mut out);
            assert_eq!(got, Translated::Other, "{head:?}");
        }
        let many = |count| {
            format!(
                "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n{}\r\n",
                "a: b\r\n".repeat(count)
            )
        };
        assert!(translated(&many(MAX_FIELDS - 1), false).is_some());
        assert!(translated(&many(MAX_FIELDS), false).is_none());
        let long = |size| {
            format!(
                "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nx: {}\r\n\r\n",
                "a".repeat(size)
            )
        };
        assert!(translated(&long(MAX_HEAD / 2), false).is_some());
        assert!(translated(&long(MAX_HEAD), false).is_none());
        let endless = format!("HTTP/1.1 200 OK\r\nx: {}", "a".repeat(MAX_HEAD));
        assert_eq!(
            translate(endless.as_bytes(), false, &mut Vec::new()),
            Translated::Other
        );
    }

    /// Lines that heads are put together of, right and wrong ones.
    fn line() -> impl Strategy<Value = String> {
        prop_oneof![
            Just("Content-Length: 5\r\n".to_owned()),
            Just("content-length: 5, 5\r\n".to_owned()),
            Just("Transfer-Encoding: chunked\r\n".to_owned()),
            Just("Connection: close\r\n".to_owned()),
            Just("Date: x\r\n".to_owned()),
            "[A-Za-z_-]{1,8}:[ \t]{0,2}[ -~\t]{0,12}\r\n",
            "[A-Za-z]{1,4}[ :\r\n\0]{0,3}[a-z]{0,4}\r?\n",
        ]
    }

    fn head() -> impl Strategy<Value = String> {
        let start = prop_oneof![
            8 => Just("HTTP/1.1 200 OK\r\n".to_owned()),
            1 => Just("HTTP/1.1 304 Not Modified\r\n".to_owned()),
            1 => "HTTP/1.[01] [1-5][0-9]{2} ?[A-Za-z]{0,4}\r?\n",
        ];
        (start, proptest::collection::vec(line(), 0..8))
            .prop_map(|(start, lines)| format!("{start}{}\r\n", lines.concat()))
    }

    proptest! {
        /// What is taken here is a head to the parser that Pingora uses, with the same fields.
        #[test]
        fn what_is_plain_here_is_the_same_to_httparse(head in head(), to_head in any::<bool>()) {
            let mut out = Vec::new();
            if let Translated::Head(facts) = translate(head.as_bytes(), to_head, &mut out) {
                let mut fields = [httparse::EMPTY_HEADER; 32];
                let mut reply = httparse::Response::new(&mut fields);
                let parsed = reply.parse(head.as_bytes());
                prop_assert_eq!(parsed, Ok(httparse::Status::Complete(facts.len)));
                prop_assert_eq!(reply.code, Some(facts.status.as_u16()));
                let length = reply.headers.iter().find(|field| field.name.eq_ignore_ascii_case("content-length"));
                if let ReplyBody::Length(length_here) = facts.body {
                    let value = std::str::from_utf8(length.unwrap().value).unwrap();
                    prop_assert_eq!(value.trim(), length_here.to_string());
                }
                for field in reply.headers.iter() {
                    let kept = ["connection", "keep-alive", "proxy-connection", "upgrade", "transfer-encoding", "x-request-id"];
                    if !kept.iter().any(|name| field.name.eq_ignore_ascii_case(name)) {
                        let line = [field.name.to_ascii_lowercase().as_bytes(), b": ", field.value.trim_ascii(), b"\r\n"].concat();
                        prop_assert!(memchr::memmem::find(&out, &line).is_some(), "{:?}", field);
                    }
                }
            }
        }

        /// A head that arrives in two pieces is judged as if it came in one.
        #[test]
        fn no_prefix_of_a_plain_head_is_judged_otherwise(head in head(), at in any::<prop::sample::Index>()) {
            let whole = translate(head.as_bytes(), false, &mut Vec::new());
            let cut = at.index(head.len());
            match translate(&head.as_bytes()[..cut], false, &mut Vec::new()) {
                Translated::Partial => {}
                early => prop_assert_eq!(early, whole),
            }
        }
    }
}
