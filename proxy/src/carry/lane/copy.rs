//! A request's head as its route's filters make it.

use http::header::HOST;

use super::block::Block;
use super::head::LaneHead;
use crate::exchange::guard::MethodKind;
use crate::exchange::head::{Checked, HeadView};
use crate::listen::buffers;

/// A head of HTTP/1.1 that can be changed, whatever it was made from, with the host in its one
/// spelling.
pub(super) struct HeadCopy {
    bytes: Vec<u8>,
    /// Where the field lines begin.
    start: usize,
    kind: MethodKind,
}

impl HeadCopy {
    pub(super) fn new(head: &impl LaneHead, authority: &str) -> Self {
        let method = HeadView::method(head);
        let mut bytes = buffers::take();
        for part in [method.as_str(), " ", head.target(), " HTTP/1.1\r\n"] {
            bytes.extend_from_slice(part.as_bytes());
        }
        let start = bytes.len();
        let is_host = |name: &[u8]| name.eq_ignore_ascii_case(HOST.as_str().as_bytes());
        head.write_lines(&mut bytes, &|name| !is_host(name));
        Block::new(&mut bytes, start).push(&HOST, authority.as_bytes());
        let kind = match *method {
            http::Method::GET => MethodKind::Get,
            http::Method::HEAD => MethodKind::Head,
            _ => MethodKind::Other,
        };
        Self { bytes, start, kind }
    }

    /// Its fields, for filters.
    pub(super) fn fields(&mut self) -> Block<'_> {
        Block::new(&mut self.bytes, self.start)
    }

    /// The head as it is then. Once.
    pub(super) fn read(&mut self) -> Option<Checked<'_>> {
        self.bytes.extend_from_slice(b"\r\n");
        Checked::new(&self.bytes, self.kind)
    }
}

impl Drop for HeadCopy {
    fn drop(&mut self) {
        buffers::give(std::mem::take(&mut self.bytes));
    }
}
