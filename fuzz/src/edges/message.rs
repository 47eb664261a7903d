//! Messages of HTTP/1.1 as the two ends of an edge read them, made comparable.

use std::fmt;

use crate::exchange::chunked::ChunkScanner;

/// Most fields of a message that is read here.
const MAX_FIELDS: usize = 512;

/// Names and values, sorted by name; lines of one name in their order.
pub(super) type Fields = Vec<(String, Text)>;

/// Octets that are shown as text.
#[derive(Clone, PartialEq, Eq, Default)]
pub(super) struct Text(pub(super) Vec<u8>);

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 400;
        write!(
            f,
            "\"{}\"",
            self.0[..self.0.len().min(SHOWN)].escape_ascii()
        )?;
        match self.0.len() {
            0..=SHOWN => Ok(()),
            length => write!(f, "... of {length}"),
        }
    }
}

/// Fields in their order, with what differs from request to request put aside: the edges make ids
/// of their own, and they may answer on two sides of a second's end.
pub(super) fn comparable(fields: &[httparse::Header<'_>]) -> Fields {
    let mut fields: Fields = fields
        .iter()
        .map(|field| {
            let name = field.name.to_ascii_lowercase();
            let value = match name.as_str() {
                "date" | "x-request-id" | "age" => b"*".to_vec(),
                "cache-status" => without_ttl(field.value),
                _ => field.value.to_vec(),
            };
            (name, Text(value))
        })
        .collect();
    fields.sort_by(|a, b| a.0.cmp(&b.0));
    fields
}

/// What is left of a page's life counts down by seconds.
fn without_ttl(value: &[u8]) -> Vec<u8> {
    const BEFORE: &[u8] = b";ttl=";
    let found = value.windows(BEFORE.len()).position(|part| part == BEFORE);
    let Some(at) = found else {
        return value.to_vec();
    };
    let (before, digits) = value.split_at(at + BEFORE.len());
    let behind = digits.iter().skip_while(|byte| byte.is_ascii_digit());
    before.iter().chain(behind).copied().collect()
}

fn write_head(f: &mut fmt::Formatter<'_>, line: &Text, fields: &Fields) -> fmt::Result {
    writeln!(f, "{line:?}")?;
    for (name, value) in fields {
        writeln!(f, "  {name}: {value:?}")?;
    }
    Ok(())
}

/// A body, as far as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Body {
    Whole(Text),
    /// The connection ended, or nothing more came, before its end.
    Cut(Text),
    /// Its end is the connection's.
    ToEnd(Text),
}

impl Body {
    /// But for how much came of one that was cut off.
    pub(super) fn is_alike(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Cut(one), Self::Cut(other)) => {
                one.0.starts_with(&other.0) || other.0.starts_with(&one.0)
            }
            _ => self == other,
        }
    }
}

/// One reply as the client has it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Reply {
    /// The status line.
    line: Text,
    fields: Fields,
    pub(super) body: Body,
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_head(f, &self.line, &self.fields)?;
        writeln!(f, "  {:?}", self.body)
    }
}

impl Reply {
    /// Status, reason and fields say the same.
    pub(super) fn has_head_of(&self, other: &Self) -> bool {
        self.line == other.line && self.fields == other.fields
    }

    /// Whether it is the final reply to a request, by its status; the version may be any.
    fn is_final(&self) -> bool {
        !self.status().starts_with(b"1") || self.is_switch()
    }

    fn status(&self) -> &[u8] {
        let mut words = self.line.0.split(|&byte| byte == b' ');
        words.nth(1).unwrap_or_default()
    }

    pub(super) fn is_chunked(&self) -> bool {
        self.fields
            .iter()
            .any(|(name, _)| name == "transfer-encoding")
    }

    pub(super) fn is_final_and_whole(&self) -> bool {
        self.is_final() && matches!(self.body, Body::Whole(_))
    }

    /// Whether another protocol follows.
    pub(super) fn is_switch(&self) -> bool {
        self.status() == b"101"
    }
}

/// Whose method decides whether a reply has a body.
#[derive(Clone, Copy)]
pub(super) enum Methods<'a> {
    /// For each request, whether it is a HEAD.
    Known(&'a [bool]),
    /// Nobody knows where requests begin: then a body is there if it is there. None of the bodies
    /// begins like a reply.
    Unknown,
}

/// The replies at the start of `bytes`, and what is none.
pub(super) fn replies(bytes: &[u8], methods: Methods<'_>) -> (Vec<Reply>, Text) {
    let mut found: Vec<Reply> = Vec::new();
    let mut rest = bytes;
    while let Some((reply, length)) = reply(
        rest,
        methods,
        found.iter().filter(|reply| reply.is_final()).count(),
    ) {
        rest = &rest[length..];
        let switched = reply.is_switch();
        found.push(reply);
        if switched {
            break;
        }
    }
    (found, Text(rest.to_vec()))
}

fn reply(bytes: &[u8], methods: Methods<'_>, nth: usize) -> Option<(Reply, usize)> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut head = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(length) = head.parse(bytes).ok()? else {
        return None;
    };
    let line_end = bytes.iter().position(|&byte| byte == b'\r')?;
    let rest = &bytes[length..];
    let bodyless = matches!(head.code, Some(100..=199 | 204 | 304));
    let to_head = match methods {
        Methods::Known(heads) => heads.get(nth).copied().unwrap_or(false),
        Methods::Unknown => rest.is_empty() || rest.starts_with(b"HTTP/1."),
    };
    let (body, taken) = match framing(head.headers) {
        _ if bodyless || to_head => (Body::Whole(Text::default()), 0),
        Framing::Length(size) => match rest.get(..size) {
            Some(body) => (Body::Whole(without_id(body)), size),
            None => (Body::Cut(without_id(rest)), rest.len()),
        },
        Framing::Chunked => unchunked(rest),
        Framing::None => (Body::ToEnd(without_id(rest)), rest.len()),
    };
    let reply = Reply {
        line: Text(bytes[..line_end].to_vec()),
        fields: comparable(head.headers),
        body,
    };
    Some((reply, length + taken))
}

/// An error's page names its request.
fn without_id(body: &[u8]) -> Text {
    const BEFORE: &[u8] = b"Request id: ";
    let mut body = body.to_vec();
    let found = body.windows(BEFORE.len()).position(|part| part == BEFORE);
    if let Some(at) = found {
        let end = body.len().min(at + BEFORE.len() + 32);
        body[at + BEFORE.len()..end].fill(b'*');
    }
    Text(body)
}

/// How a body ends (RFC 9112 section 6.3).
pub(super) enum Framing {
    None,
    Length(usize),
    Chunked,
}

pub(super) fn framing(fields: &[httparse::Header<'_>]) -> Framing {
    let mut found = Framing::None;
    for field in fields {
        if field.name.eq_ignore_ascii_case("transfer-encoding") {
            return Framing::Chunked;
        }
        if field.name.eq_ignore_ascii_case("content-length") {
            let digits = std::str::from_utf8(field.value).ok();
            if let Some(length) = digits.and_then(|digits| digits.trim().parse().ok()) {
                found = Framing::Length(length);
            }
        }
    }
    found
}

/// The data of a chunked body, and how many octets it takes.
pub(super) fn unchunked(bytes: &[u8]) -> (Body, usize) {
    let mut data = Vec::new();
    match chunks(bytes, &mut data) {
        Some(end) => (Body::Whole(without_id(&data)), end),
        None => (Body::Cut(without_id(&data)), bytes.len()),
    }
}

/// Whether the first final reply in `bytes` has a chunked body that is malformed.
pub(super) fn has_bad_chunks(bytes: &[u8]) -> bool {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut head = httparse::Response::new(&mut fields);
    let Ok(httparse::Status::Complete(length)) = head.parse(bytes) else {
        return false;
    };
    let rest = &bytes[length..];
    match (head.code, framing(head.headers)) {
        (Some(100..=199), _) => has_bad_chunks(rest),
        (_, Framing::Chunked) => ChunkScanner::default().feed(rest).is_err(),
        _ => false,
    }
}

/// Collects chunks; where they end, if they do.
fn chunks(bytes: &[u8], data: &mut Vec<u8>) -> Option<usize> {
    let line_end = |from: usize| {
        let rest = bytes.get(from..)?;
        Some(from + rest.windows(2).position(|pair| pair == b"\r\n")?)
    };
    let mut at = 0;
    loop {
        let end = line_end(at)?;
        let size = bytes[at..end].split(|&byte| byte == b';').next()?;
        let size = usize::from_str_radix(std::str::from_utf8(size).ok()?, 16).ok()?;
        at = end + 2;
        if size == 0 {
            break;
        }
        let rest = &bytes[at..];
        data.extend_from_slice(&rest[..size.min(rest.len())]);
        at = at.checked_add(size)?;
        if bytes.get(at..at + 2)? != b"\r\n" {
            return None;
        }
        at += 2;
    }
    loop {
        let end = line_end(at)?;
        // Trailers belong to what is compared.
        data.extend_from_slice(&bytes[at..end]);
        let is_last = end == at;
        at = end + 2;
        if is_last {
            return Some(at);
        }
    }
}

/// A request as an app has it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Asked {
    /// The request line.
    pub(super) line: Text,
    fields: Fields,
    body: Body,
    /// What came behind it on a connection that changed its protocol.
    pub(super) behind: Text,
    /// Which of the app's connections it came on: one whose end was told must not be used again.
    pub(super) connection: usize,
}

impl fmt::Debug for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_head(f, &self.line, &self.fields)?;
        let Self {
            body,
            behind,
            connection,
            ..
        } = self;
        writeln!(f, "  {body:?} {behind:?} on connection {connection}")
    }
}

impl Asked {
    /// But for how much came of a body that was cut off.
    pub(super) fn is_alike(&self, other: &Self) -> bool {
        let Self { body, .. } = other;
        let same = Self {
            body: self.body.clone(),
            ..other.clone()
        };
        *self == same && self.body.is_alike(body)
    }

    /// The target of its line.
    pub(super) fn target(&self) -> &[u8] {
        self.line
            .0
            .split(|&byte| byte == b' ')
            .nth(1)
            .unwrap_or_default()
    }

    pub(super) fn is_head(&self) -> bool {
        self.line.0.starts_with(b"HEAD ")
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.fields.iter().any(|(other, _)| other == name)
    }

    pub(super) fn body_length(&self) -> usize {
        match &self.body {
            Body::Whole(text) | Body::Cut(text) | Body::ToEnd(text) => text.0.len(),
        }
    }

    pub(super) fn is_whole(&self) -> bool {
        matches!(self.body, Body::Whole(_))
    }
}

/// The request at the start of `bytes`, perhaps not whole, and its octets. What is no request is
/// one with nothing but a line.
pub(super) fn request(bytes: &[u8]) -> Option<(Asked, usize)> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut head = httparse::Request::new(&mut fields);
    let length = match head.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return None,
        Err(_) => {
            let asked = Asked {
                line: Text(bytes.to_vec()),
                fields: Vec::new(),
                body: Body::ToEnd(Text::default()),
                behind: Text::default(),
                connection: 0,
            };
            return Some((asked, bytes.len()));
        }
    };
    let line_end = bytes.iter().position(|&byte| byte == b'\r')?;
    let rest = &bytes[length..];
    let (body, taken) = match framing(head.headers) {
        Framing::None => (Body::Whole(Text::default()), 0),
        Framing::Length(size) => match rest.get(..size) {
            Some(body) => (Body::Whole(Text(body.to_vec())), size),
            None => (Body::Cut(Text(rest.to_vec())), rest.len()),
        },
        Framing::Chunked => unchunked(rest),
    };
    let asked = Asked {
        line: Text(bytes[..line_end].to_vec()),
        fields: comparable(head.headers),
        body,
        behind: Text::default(),
        connection: 0,
    };
    Some((asked, length + taken))
}
