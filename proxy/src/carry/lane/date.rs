//! The Date of a reply that is originated here, rendered once a second by each worker.

use std::cell::Cell;
use std::time::{SystemTime, UNIX_EPOCH};

/// The length of an HTTP-date in its preferred form (RFC 9110 section 5.6.7).
const LENGTH: usize = 29;

const EPOCH: [u8; LENGTH] = *b"Thu, 01 Jan 1970 00:00:00 GMT";

thread_local! {
    static LAST: Cell<(u64, [u8; LENGTH])> = const { Cell::new((0, EPOCH)) };
}

/// `now` as an HTTP-date. A clock outside the years 1970 to 9999 shows as 1970.
pub(super) fn http_date(now: SystemTime) -> [u8; LENGTH] {
    let second = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (last, text) = LAST.get();
    if last == second {
        return text;
    }
    let text = static_server::date::format(now)
        .and_then(|date| date.as_bytes().try_into().ok())
        .unwrap_or(EPOCH);
    LAST.set((second, text));
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_second_has_its_own_text() {
        let at = |second| http_date(UNIX_EPOCH + Duration::from_secs(second));
        assert_eq!(&at(784_111_777), b"Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(&at(784_111_778), b"Sun, 06 Nov 1994 08:49:38 GMT");
        assert_eq!(&at(0), b"Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(
            &at(u64::from(u32::MAX) * 100),
            b"Thu, 01 Jan 1970 00:00:00 GMT"
        );
    }
}
