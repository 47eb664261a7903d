//! A reply's field lines as decisions see them, where they stand in the buffer that goes out.

use http::HeaderName;

/// Lines of `name: value CRLF`, names in lower case.
pub(super) struct Lines<'a>(&'a [u8]);

impl<'a> Lines<'a> {
    /// The lines behind the status line that `head` begins with.
    pub(super) fn of_reply(head: &'a [u8]) -> Self {
        let start = memchr::memchr(b'\n', head).map_or(head.len(), |end| end + 1);
        Self(&head[start..])
    }

    /// The lines without their ends.
    fn each_line(&self) -> impl Iterator<Item = &'a [u8]> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let end = memchr::memchr(b'\n', rest)?;
            let line = &rest[..end];
            rest = &rest[end + 1..];
            Some(line.strip_suffix(b"\r").unwrap_or(line))
        })
    }

    fn values(&self, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
        let name = name.as_str().as_bytes();
        self.each_line().filter_map(move |line| {
            let value = line.strip_prefix(name)?.strip_prefix(b":")?;
            Some(cache::fields::trim(value))
        })
    }
}

impl cache::Fields for Lines<'_> {
    fn first(&self, name: &HeaderName) -> Option<&[u8]> {
        self.values(name).next()
    }

    fn each(&self, name: &HeaderName, f: &mut dyn FnMut(&[u8])) {
        self.values(name).for_each(f);
    }

    fn all(&self, f: &mut dyn FnMut(&[u8], &[u8])) {
        self.each_line().for_each(|line| {
            if let Some(colon) = memchr::memchr(b':', line) {
                f(&line[..colon], cache::fields::trim(&line[colon + 1..]));
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use cache::Fields;
    use http::header::{AGE, SERVER, VARY};

    use super::*;

    #[test]
    fn fields_are_found_where_they_stand() {
        let head = b"HTTP/1.1 200 OK\r\nvary: a\r\nserver: vary: x\r\nvary:  b \r\nage:\r\n";
        let lines = Lines::of_reply(head);
        assert_eq!(lines.first(&VARY), Some(&b"a"[..]));
        assert_eq!(lines.first(&SERVER), Some(&b"vary: x"[..]));
        assert_eq!(lines.first(&AGE), Some(&b""[..]));
        assert_eq!(lines.first(&http::header::DATE), None);
        let mut seen = Vec::new();
        lines.each(&VARY, &mut |value| seen.push(value.to_vec()));
        assert_eq!(seen, [b"a", b"b"]);
        let mut count = 0;
        lines.all(&mut |_, _| count += 1);
        assert_eq!(count, 4);
    }
}
