//! What decisions see of a request head, whoever parsed it.
//!
//! Routing and filters ask a [`HeadView`], which Pingora's request header, a
//! parsed `http` head and a later carrier can all give. It is read-only and
//! knows neither target nor host: those are normalised first and handed over
//! apart.

use http::Method;
use http::header::{self, HeaderMap, HeaderName};
use http::request::Parts;

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

    use super::{Head, HeadView, cookie};

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
