//! A head's field lines as filters see them: edited where they stand, in the
//! buffer that goes out.

use http::{HeaderName, HeaderValue};

use crate::filter::FieldsMut;

/// Lines of `name: value CRLF` with names in lower case, from `start` to the end of `out`.
pub(super) struct Block<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
}

impl<'a> Block<'a> {
    pub(super) fn new(out: &'a mut Vec<u8>, start: usize) -> Self {
        Self { out, start }
    }

    /// The lines behind the status line that `out` begins with.
    pub(super) fn of_reply(out: &'a mut Vec<u8>) -> Self {
        let start = memchr::memchr(b'\n', out).map_or(out.len(), |end| end + 1);
        Self { out, start }
    }

    /// Ends the head with `lines` and the empty line that stands at their end.
    pub(super) fn end(self, lines: &[u8]) {
        self.out.extend_from_slice(lines);
    }

    /// One more line; `value` has neither CR nor LF.
    pub(super) fn push(&mut self, name: &HeaderName, value: &[u8]) {
        self.out.extend_from_slice(name.as_str().as_bytes());
        self.out.extend_from_slice(b": ");
        self.out.extend_from_slice(value);
        self.out.extend_from_slice(b"\r\n");
    }
}

impl FieldsMut for Block<'_> {
    fn remove(&mut self, name: &HeaderName) {
        let (mut at, mut kept) = (self.start, self.start);
        while let Some(length) = memchr::memchr(b'\n', &self.out[at..]) {
            let end = at + length + 1;
            if !is_of(&self.out[at..end], name) {
                if kept < at {
                    self.out.copy_within(at..end, kept);
                }
                kept += end - at;
            }
            at = end;
        }
        self.out.truncate(kept);
    }

    fn set(&mut self, name: HeaderName, value: HeaderValue) {
        self.remove(&name);
        self.push(&name, value.as_bytes());
    }

    fn add(&mut self, name: HeaderName, value: HeaderValue) {
        self.push(&name, value.as_bytes());
    }
}

fn is_of(line: &[u8], name: &HeaderName) -> bool {
    let name = name.as_str().as_bytes();
    line.get(name.len()) == Some(&b':') && &line[..name.len()] == name
}

#[cfg(test)]
mod tests {
    use http::header::{LINK, SERVER, VARY};

    use super::*;

    #[test]
    fn lines_are_edited_in_place_and_what_stands_before_them_is_not() {
        let mut out = b"server: not a field\r\n".to_vec();
        let start = out.len();
        out.extend_from_slice(
            b"server: a\r\nlink: </a>\r\nserver: b\r\nserver-timing: c\r\nvary: d\r\n",
        );
        let mut block = Block::new(&mut out, start);
        block.remove(&SERVER);
        block.set(VARY, HeaderValue::from_static("accept"));
        block.add(LINK, HeaderValue::from_static("</b>"));
        let wanted = "server: not a field\r\nlink: </a>\r\nserver-timing: c\r\nvary: accept\r\nlink: </b>\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), wanted);
    }
}
