//! A request of which part of the body was passed on, as one whose body is the rest.

use http::header;

/// The head of a request whose Content-Length says `left`, whether it had another one or chunks; `None`
/// where it has neither. `head`: up to and including the empty line.
pub(crate) fn head_of_the_rest(head: &[u8], left: u64) -> Option<Vec<u8>> {
    let (start, end, name) = framing_line(head)?;
    let mut changed = Vec::with_capacity(head.len() + 20);
    changed.extend_from_slice(&head[..start]);
    changed.extend_from_slice(name);
    changed.extend_from_slice(b": ");
    changed.extend_from_slice(itoa::Buffer::new().format(left).as_bytes());
    changed.extend_from_slice(b"\r\n");
    changed.extend_from_slice(&head[end..]);
    Some(changed)
}

/// Where the line begins, where the one behind it does, and the name that one of a length has there.
fn framing_line(head: &[u8]) -> Option<(usize, usize, &[u8])> {
    let length = header::CONTENT_LENGTH.as_str().as_bytes();
    let coding = header::TRANSFER_ENCODING.as_str().as_bytes();
    let mut start = 0;
    while let Some(at) = memchr::memchr(b'\n', &head[start..]) {
        let end = start + at + 1;
        let name = head[start..end].split(|&byte| byte == b':').next()?;
        if name.eq_ignore_ascii_case(length) {
            return Some((start, end, name));
        }
        if name.eq_ignore_ascii_case(coding) {
            return Some((start, end, length));
        }
        start = end;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::guard::{Framing, Inspect, inspect};

    #[test]
    fn only_the_length_changes() {
        let head = b"POST /a HTTP/1.1\r\nHost: a\r\ncontent-LENGTH:  1000 \r\nX: Content-Length: 3\r\n\r\n";
        for left in [0, 7, u64::MAX / 2] {
            let changed = head_of_the_rest(head, left).expect("a length");
            let text = String::from_utf8(changed.clone()).expect("text");
            assert_eq!(
                text,
                format!(
                    "POST /a HTTP/1.1\r\nHost: a\r\ncontent-LENGTH: {left}\r\nX: Content-Length: 3\r\n\r\n"
                )
            );
            let Inspect::Head(facts) = inspect(&changed, 4096) else {
                panic!("no head: {text}");
            };
            assert_eq!(facts.body, Framing::Length(left));
            assert_eq!(facts.head_len, changed.len());
        }
    }

    #[test]
    fn what_had_chunks_has_a_length() {
        let head =
            b"POST /a HTTP/1.1\r\nHost: a\r\ntransfer-ENCODING: chunked\r\nX: transfer-encoding:\r\n\r\n";
        let changed = head_of_the_rest(head, 0).expect("chunks");
        let Inspect::Head(facts) = inspect(&changed, 4096) else {
            panic!("no head");
        };
        assert_eq!(facts.body, Framing::Length(0));
        assert_eq!(facts.head_len, changed.len());
        let text = String::from_utf8(changed).expect("text");
        assert_eq!(
            text,
            "POST /a HTTP/1.1\r\nHost: a\r\ncontent-length: 0\r\nX: transfer-encoding:\r\n\r\n"
        );
    }

    #[test]
    fn what_has_no_body_has_no_rest() {
        for head in [
            &b"POST /a HTTP/1.1\r\nX: Transfer-Encoding: chunked\r\n\r\n"[..],
            b"",
            b"Content-Length: 3",
        ] {
            assert_eq!(head_of_the_rest(head, 1), None);
        }
    }
}
