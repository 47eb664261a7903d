//! The Date of a reply that this process did not originate.
//!
//! Date is when a message was originated (RFC 9110 section 6.6.1): age and lifetime are counted from
//! it, so neither a stored reply nor one that passes through may get a new one. Pingora writes the
//! time of sending into every head, and has no switch for it. Whoever sends a reply with a Date
//! therefore leaves it here, and the connection puts it back into the head on its way out: a Date
//! always has the same length, so no other byte moves.
//!
//! Heads of HTTP/2 are compressed before they get here. Its sessions are our own, as are those of
//! HTTP/3, and leave a Date alone ([`crate::listen::session`]).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// The length of an HTTP-date in its preferred form.
const LENGTH: usize = 29;

const NAME: &[u8] = b"date: ";

/// The Date of the reply whose head is written next.
#[derive(Debug, Default)]
pub(crate) struct KeptDate {
    waits: AtomicBool,
    value: Mutex<[u8; LENGTH]>,
}

impl KeptDate {
    /// Leaves it for the head that is written next. One in an obsolete form is not kept.
    pub(crate) fn keep(&self, date: &[u8]) {
        if let Ok(date) = date.try_into() {
            *self.value.lock().unwrap_or_else(PoisonError::into_inner) = date;
            self.waits.store(true, Ordering::Relaxed);
        }
    }

    /// Puts it into what is written now, if that is a head. In any case it waits no longer: what
    /// comes behind a head is a body.
    pub(super) fn restore(&self, written: &mut [u8]) {
        if !self.waits.load(Ordering::Relaxed) {
            return;
        }
        self.waits.store(false, Ordering::Relaxed);
        if let Some(place) = place(written) {
            place.copy_from_slice(&*self.value.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }
}

/// Where the Date of a head stands.
fn place(written: &mut [u8]) -> Option<&mut [u8]> {
    if !written.starts_with(b"HTTP/1.") {
        return None;
    }
    let mut start = 0;
    for line in written.split_inclusive(|byte| *byte == b'\n') {
        let value = start + NAME.len();
        start += line.len();
        match line.split_at_checked(NAME.len()) {
            Some((name, rest)) if name.eq_ignore_ascii_case(NAME) => {
                let whole = rest.len() == LENGTH + 2;
                return whole.then(|| &mut written[value..value + LENGTH]);
            }
            // The blank line.
            None if line == b"\r\n" => return None,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const NEW: &str = "Tue, 24 Nov 2026 20:37:30 GMT";

    fn written(kept: &str, bytes: &str) -> String {
        let date = KeptDate::default();
        date.keep(kept.as_bytes());
        let mut bytes = bytes.as_bytes().to_vec();
        date.restore(&mut bytes);
        assert!(!date.waits.load(Ordering::Relaxed), "for one head only");
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn the_date_of_the_reply_stands_in_the_head_again() {
        for name in ["Date", "date"] {
            let head =
                |date| format!("HTTP/1.1 200 OK\r\na: b\r\n{name}: {date}\r\nc: d\r\n\r\nbody");
            assert_eq!(written(OLD, &head(NEW)), head(OLD));
        }
    }

    #[test]
    fn nothing_but_a_date_in_a_head_is_touched() {
        for bytes in [
            format!("\r\ndate: {NEW}\r\n"),
            format!("HTTP/1.1 200 OK\r\n\r\ndate: {NEW}\r\n"),
            format!("HTTP/1.1 200 OK\r\nx-date: {NEW}\r\n\r\n"),
            "HTTP/1.1 200 OK\r\ndate: now\r\n\r\n".to_owned(),
            format!("HTTP/1.1 200 OK\r\ndate: {NEW}"),
            String::new(),
        ] {
            assert_eq!(written(OLD, &bytes), bytes);
        }
        let head = format!("HTTP/1.1 200 OK\r\ndate: {NEW}\r\n\r\n");
        let date = KeptDate::default();
        date.keep(b"yesterday");
        let mut bytes = head.clone().into_bytes();
        date.restore(&mut bytes);
        assert_eq!(bytes, head.as_bytes(), "an odd one is not kept");
    }
}
