//! What decisions see of a request head, whoever parsed it.
//!
//! Routing and filters ask a [`HeadView`], which Pingora's request header, a
//! parsed `http` head and a head in place ([`Checked`]) all give. It is read-only
//! and knows neither target nor host: those are normalised first and handed over
//! apart.

use http::Method;
use http::header::{self, HeaderMap, HeaderName};
use http::request::Parts;

use super::guard::MethodKind;

/// A request head, as far as a decision may look into it.
pub(crate) trait HeadView {
    /// The method.
    fn method(&self) -> &Method;

    /// The value of the first line of the field called `name`.
    fn field(&self, name: &HeaderName) -> Option<&[u8]>;

    /// Calls `f` with the value of each line of the field called `name`, in order.
    fn each_field<'a>(&'a self, name: &HeaderName, f: &mut dyn FnMut(&'a [u8]));
}

/// A method and fields that somebody else owns; for tests.
#[cfg(test)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head<'a> {
    /// The method.
    pub(crate) method: &'a Method,
    /// The fields.
    pub(crate) fields: &'a HeaderMap,
}

#[cfg(test)]
impl HeadView for Head<'_> {
    fn method(&self) -> &Method {
        self.method
    }

    fn field(&self, name: &HeaderName) -> Option<&[u8]> {
        self.fields.get(name).map(|value| value.as_bytes())
    }

    fn each_field<'a>(&'a self, name: &HeaderName, f: &mut dyn FnMut(&'a [u8])) {
        each(self.fields, name, f);
    }
}

impl HeadView for Parts {
    fn method(&self) -> &Method {
        &self.method
    }

    fn field(&self, name: &HeaderName) -> Option<&[u8]> {
        self.headers.get(name).map(|value| value.as_bytes())
    }

    fn each_field<'a>(&'a self, name: &HeaderName, f: &mut dyn FnMut(&'a [u8])) {
        each(&self.headers, name, f);
    }
}

/// A head where it stands in a connection's buffer, accepted by the guard.
///
/// It copies nothing; a field is found by looking through the lines, which for the few that
/// a decision asks for costs less than a map of them all.
#[derive(Debug)]
pub(crate) struct Checked<'a> {
    method: Method,
    target: &'a str,
    fields: Vec<Line<'a>>,
    /// A bit for each length that a name has: what is asked for is seldom there, and most of that
    /// is known without looking.
    lengths: u64,
}

/// A field line where it stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Line<'a> {
    /// With its CRLF.
    line: &'a [u8],
    colon: usize,
}

impl<'a> Line<'a> {
    /// As it came.
    pub(crate) fn name(&self) -> &'a [u8] {
        &self.line[..self.colon]
    }

    /// Without the white space around it.
    pub(crate) fn value(&self) -> &'a [u8] {
        cache::fields::trim(&self.line[self.colon + 1..self.line.len() - 2])
    }

    /// The line with its CRLF, if nothing but one space stands around the value.
    pub(crate) fn as_written(&self) -> Option<&'a [u8]> {
        let value = &self.line[self.colon + 1..self.line.len() - 2];
        let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
        match value {
            [b' ', first, ..] if !is_space(first) => value
                .last()
                .is_some_and(|last| !is_space(last))
                .then_some(self.line),
            _ => None,
        }
    }
}

impl<'a> Checked<'a> {
    /// Splits a head, `bytes` from its first to the empty line that ends it. Only for what
    /// [`super::guard::inspect`] took: that there is one way to split it is the guard's word.
    /// `None` for what no guard let through.
    #[must_use]
    pub(crate) fn new(bytes: &'a [u8], method: MethodKind) -> Option<Self> {
        let bytes = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
        let (line, mut rest) = split_line(bytes)?;
        let method = match method {
            MethodKind::Get => Method::GET,
            MethodKind::Head => Method::HEAD,
            MethodKind::Other => {
                let name = line.get(..memchr::memchr(b' ', line)?)?;
                Method::from_bytes(name).ok()?
            }
        };
        let target = line.get(method.as_str().len() + 1..)?;
        let target = &target[..memchr::memchr(b' ', target)?];
        let mut fields = Vec::with_capacity(24);
        let mut lengths = 0;
        loop {
            let (line, next) = split_line(rest)?;
            if line.is_empty() {
                break;
            }
            let colon = memchr::memchr(b':', line)?;
            lengths |= length_bit(colon);
            let line = rest.get(..line.len() + 2)?;
            fields.push(Line { line, colon });
            rest = next;
        }
        Some(Self {
            method,
            target: std::str::from_utf8(target).ok()?,
            fields,
            lengths,
        })
    }

    /// The target as it came.
    #[must_use]
    pub(crate) fn target(&self) -> &'a str {
        self.target
    }

    /// The field lines, in order.
    pub(crate) fn lines(&self) -> &[Line<'a>] {
        &self.fields
    }

    fn values(&self, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
        let name = name.as_str().as_bytes();
        let fields = match self.lengths & length_bit(name.len()) {
            0 => &[],
            _ => self.fields.as_slice(),
        };
        fields
            .iter()
            .filter(move |line| line.name().eq_ignore_ascii_case(name))
            .map(Line::value)
    }
}

/// Names of 64 octets and more share one.
fn length_bit(length: usize) -> u64 {
    1 << length.min(63)
}

/// A line without its CRLF, and what follows.
fn split_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(b'\r', bytes)?;
    Some((&bytes[..end], bytes.get(end + 2..)?))
}

impl HeadView for Checked<'_> {
    fn method(&self) -> &Method {
        &self.method
    }

    fn field(&self, name: &HeaderName) -> Option<&[u8]> {
        self.values(name).next()
    }

    fn each_field<'a>(&'a self, name: &HeaderName, f: &mut dyn FnMut(&'a [u8])) {
        self.values(name).for_each(f);
    }
}

impl static_server::Fields for Checked<'_> {
    fn first(&self, name: &HeaderName) -> Option<&[u8]> {
        self.values(name).next()
    }

    fn each(&self, name: &HeaderName, f: &mut dyn FnMut(&[u8])) {
        self.values(name).for_each(f);
    }
}

impl cache::Fields for Checked<'_> {
    fn first(&self, name: &HeaderName) -> Option<&[u8]> {
        self.values(name).next()
    }

    fn each(&self, name: &HeaderName, f: &mut dyn FnMut(&[u8])) {
        self.values(name).for_each(f);
    }

    fn all(&self, f: &mut dyn FnMut(&[u8], &[u8])) {
        self.fields
            .iter()
            .for_each(|line| f(line.name(), line.value()));
    }
}

fn each<'a>(fields: &'a HeaderMap, name: &HeaderName, f: &mut dyn FnMut(&'a [u8])) {
    for value in fields.get_all(name) {
        f(value.as_bytes());
    }
}

/// The value of the first cookie called `name`, without the quotes that may
/// stand around it (RFC 6265 section 4.1.1). Names are case-sensitive; HTTP/2
/// may spread cookies over several lines (RFC 9113 section 8.2.3).
#[must_use]
pub(crate) fn cookie<'a>(view: &'a dyn HeadView, name: &str) -> Option<&'a [u8]> {
    let mut found = None;
    view.each_field(&header::COOKIE, &mut |line| {
        if found.is_none() {
            found = line
                .split(|&b| b == b';')
                .find_map(|pair| value_of(pair, name));
        }
    });
    found
}

fn value_of<'a>(pair: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let equals = memchr::memchr(b'=', pair)?;
    if pair[..equals].trim_ascii() != name.as_bytes() {
        return None;
    }
    let value = pair[equals + 1..].trim_ascii();
    let unquoted = value
        .strip_prefix(b"\"")
        .and_then(|v| v.strip_suffix(b"\""));
    Some(unquoted.unwrap_or(value))
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, Method, Request, header};

    use super::super::guard::{Inspect, MethodKind, inspect};
    use super::{Checked, Head, HeadView, cookie};

    #[test]
    fn a_head_in_place_reads_as_the_guard_took_it() {
        for start in ["", "\r\n"] {
            let head = format!(
                "{start}HEAD /a?b=c HTTP/1.1\r\nHost: shop.test\r\nX-A: 1\r\nX-Empty:\r\nx-a:\t2 3 \r\n\r\n"
            );
            let both = format!("{head}GET /next HTTP/1.1\r\nHost: b\r\n\r\n");
            let Inspect::Head(facts) = inspect(both.as_bytes(), 4096) else {
                panic!("not a whole head");
            };
            assert_eq!(facts.head_len, head.len());
            let checked = Checked::new(&both.as_bytes()[..facts.head_len], facts.method).unwrap();
            assert_eq!(HeadView::method(&checked), Method::HEAD);
            assert_eq!(checked.target(), "/a?b=c");
            assert_eq!(checked.field(&header::HOST), Some(&b"shop.test"[..]));
            let mut seen = Vec::new();
            checked.each_field(&"x-a".parse().unwrap(), &mut |value| seen.push(value));
            assert_eq!(seen, [&b"1"[..], b"2 3"]);
            assert_eq!(checked.field(&"x-empty".parse().unwrap()), Some(&b""[..]));
            assert_eq!(checked.field(&header::COOKIE), None);
        }
    }

    #[test]
    fn any_method_is_read_in_place_and_no_head_without_its_end() {
        for method in ["POST", "PROPFIND", "M-SEARCH-WITH-A-NAME-THAT-IS-LONG"] {
            let head = format!("{method} /a HTTP/1.1\r\nHost: a\r\n\r\n");
            let checked = Checked::new(head.as_bytes(), MethodKind::Other).unwrap();
            assert_eq!(HeadView::method(&checked).as_str(), method);
            assert_eq!(checked.target(), "/a");
        }
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n";
        assert!(Checked::new(head, MethodKind::Get).is_none());
    }

    #[test]
    fn a_cookie_is_found_on_any_line_and_the_first_one_wins() {
        let mut fields = HeaderMap::new();
        fields.append(
            header::COOKIE,
            HeaderValue::from_static("a=1; sid=\"x y\";b=;c"),
        );
        fields.append(header::COOKIE, HeaderValue::from_static("sid=later; d= 4 "));
        let view = Head {
            method: &Method::GET,
            fields: &fields,
        };
        assert_eq!(cookie(&view, "a"), Some(&b"1"[..]));
        assert_eq!(cookie(&view, "sid"), Some(&b"x y"[..]));
        assert_eq!(cookie(&view, "b"), Some(&b""[..]));
        assert_eq!(cookie(&view, "c"), None, "a cookie without `=` has no name");
        assert_eq!(cookie(&view, "d"), Some(&b"4"[..]));
        assert_eq!(cookie(&view, "SID"), None);
    }

    #[test]
    fn parsed_parts_give_the_same_view() {
        let request = Request::put("/")
            .header("x", "1")
            .header("x", "2")
            .body(())
            .expect("valid");
        let (parts, ()) = request.into_parts();
        let name = header::HeaderName::from_static("x");
        let mut seen = Vec::new();
        parts.each_field(&name, &mut |value| seen.push(value));
        assert_eq!(seen, [b"1", b"2"]);
        assert_eq!(parts.field(&name), Some(&b"1"[..]));
        assert_eq!(HeadView::method(&parts), Method::PUT);
    }
}
