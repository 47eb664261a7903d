//! Request heads as the lane takes them: as they stand in a connection's buffer, or as the HTTP/2
//! layer gives them.

use http::header::{self, HeaderName};
use http::request::Parts;
use http::{HeaderMap, Method};

use crate::exchange::guard::octets::lower;
use crate::exchange::head::{Checked, HeadView};

/// A head that all decisions can look into.
pub(super) trait LaneHead: HeadView + cache::Fields + static_server::Fields {
    /// The target as it came.
    fn target(&self) -> &str;

    /// Appends those field lines whose names `is_wanted`, names in lower case.
    fn write_lines(&self, out: &mut Vec<u8>, is_wanted: &dyn Fn(&[u8]) -> bool);
}

impl LaneHead for Checked<'_> {
    fn target(&self) -> &str {
        Self::target(self)
    }

    fn write_lines(&self, out: &mut Vec<u8>, is_wanted: &dyn Fn(&[u8]) -> bool) {
        for line in self.lines() {
            let name = line.name();
            if !is_wanted(name) {
                continue;
            }
            let at = out.len();
            if let Some(line) = line.as_written() {
                out.extend_from_slice(line);
            } else {
                out.extend_from_slice(name);
                out.extend_from_slice(b": ");
                out.extend_from_slice(line.value());
                out.extend_from_slice(b"\r\n");
            }
            lower(&mut out[at..], name.len());
        }
    }
}

/// A head of HTTP/2 whose `:authority` stands for Host.
pub(super) struct StreamHead<'a> {
    parts: &'a Parts,
    authority: &'a str,
    target: &'a str,
}

impl<'a> StreamHead<'a> {
    /// `None` for one without `:authority`, or with a Host beside it, or without a path.
    pub(super) fn new(parts: &'a Parts) -> Option<Self> {
        let target = parts.uri.path_and_query()?.as_str();
        let authority = parts.uri.authority()?.as_str();
        let is_plain = target.starts_with('/') && !parts.headers.contains_key(header::HOST);
        is_plain.then_some(Self {
            parts,
            authority,
            target,
        })
    }

    fn fields(&self) -> &'a HeaderMap {
        &self.parts.headers
    }

    fn first_of(&self, name: &HeaderName) -> Option<&'a [u8]> {
        match *name == header::HOST {
            true => Some(self.authority.as_bytes()),
            false => self.fields().get(name).map(|value| value.as_bytes()),
        }
    }
}

impl HeadView for StreamHead<'_> {
    fn method(&self) -> &Method {
        &self.parts.method
    }

    fn field(&self, name: &HeaderName) -> Option<&[u8]> {
        self.first_of(name)
    }

    fn each_field<'a>(&'a self, name: &HeaderName, f: &mut dyn FnMut(&'a [u8])) {
        match *name == header::HOST {
            true => f(self.authority.as_bytes()),
            false => self
                .fields()
                .get_all(name)
                .iter()
                .for_each(|value| f(value.as_bytes())),
        }
    }
}

impl cache::Fields for StreamHead<'_> {
    fn first(&self, name: &HeaderName) -> Option<&[u8]> {
        self.first_of(name)
    }

    fn each(&self, name: &HeaderName, f: &mut dyn FnMut(&[u8])) {
        self.each_field(name, &mut |value| f(value));
    }

    fn all(&self, f: &mut dyn FnMut(&[u8], &[u8])) {
        f(header::HOST.as_str().as_bytes(), self.authority.as_bytes());
        cache::Fields::all(self.fields(), f);
    }
}

impl static_server::Fields for StreamHead<'_> {
    fn first(&self, name: &HeaderName) -> Option<&[u8]> {
        self.first_of(name)
    }

    fn each(&self, name: &HeaderName, f: &mut dyn FnMut(&[u8])) {
        self.each_field(name, &mut |value| f(value));
    }
}

impl LaneHead for StreamHead<'_> {
    fn target(&self) -> &str {
        self.target
    }

    fn write_lines(&self, out: &mut Vec<u8>, is_wanted: &dyn Fn(&[u8]) -> bool) {
        for (name, value) in self.fields() {
            let name = name.as_str().as_bytes();
            if is_wanted(name) {
                out.extend_from_slice(name);
                out.extend_from_slice(b": ");
                out.extend_from_slice(value.as_bytes());
                out.extend_from_slice(b"\r\n");
            }
        }
    }
}
