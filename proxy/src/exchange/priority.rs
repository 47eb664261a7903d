//! What a reply is worth among others of its connection (RFC 9218): the `priority` field, and the same
//! value in a PRIORITY_UPDATE frame.
//!
//! The field is a dictionary of structured fields (RFC 8941). What cannot be read of it says nothing,
//! as if it were not there; what is not known is passed over.

use http::header::{HeaderMap, HeaderName};

/// The field (RFC 9218 section 5).
const FIELD: HeaderName = HeaderName::from_static("priority");

/// Where nobody says more (RFC 9218 section 4.1).
const URGENCY: u8 = 3;

/// What somebody says of a reply; `None` where it says nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Wish {
    /// From 0, the most urgent, to 7.
    urgency: Option<u8>,
    /// Of use in pieces, so that it may share with others.
    incremental: Option<bool>,
}

impl Wish {
    /// By the field of a request or a reply.
    pub(crate) fn of(fields: &HeaderMap) -> Self {
        let mut wish = Self::default();
        for line in fields.get_all(FIELD) {
            wish = Self::read(line.as_bytes()).over(wish);
        }
        wish
    }

    /// By the field's value.
    pub(crate) fn read(value: &[u8]) -> Self {
        let mut wish = Self::default();
        for member in value.split(|&octet| octet == b',') {
            // Parameters mean nothing here.
            let item = member.split(|&octet| octet == b';').next();
            let item = item.unwrap_or_default().trim_ascii();
            match item {
                [b'u', b'=', digit @ b'0'..=b'7'] => wish.urgency = Some(digit - b'0'),
                b"i" | b"i=?1" => wish.incremental = Some(true),
                b"i=?0" => wish.incremental = Some(false),
                _ => {}
            }
        }
        wish
    }

    /// This one, and where it says nothing `other` (section 8).
    pub(crate) fn over(self, other: Self) -> Self {
        Self {
            urgency: self.urgency.or(other.urgency),
            incremental: self.incremental.or(other.incremental),
        }
    }

    /// Where the reply to the `nth` request of its connection stands: the higher, the sooner. Those of
    /// one urgency that are of use as a whole alone come one after the other, then those that are of
    /// use in pieces, which share (section 10). Who says nothing shares.
    pub(crate) fn rank(self, nth: u64) -> i32 {
        const URGENCIES: i32 = 1 << 24;
        const PLACES: u64 = 1 << 23;
        let urgency = i32::from(self.urgency.unwrap_or(URGENCY));
        let level = (i32::from(URGENCY) - urgency) * URGENCIES;
        let says_nothing = self == Self::default();
        if says_nothing || self.incremental == Some(true) {
            return level;
        }
        // Less than 2^23.
        level + i32::try_from(PLACES - nth % PLACES).unwrap_or(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &str) -> (Option<u8>, Option<bool>) {
        let wish = Wish::read(value.as_bytes());
        (wish.urgency, wish.incremental)
    }

    #[test]
    fn what_can_be_read_counts_and_nothing_else() {
        assert_eq!(read("u=5, i"), (Some(5), Some(true)));
        assert_eq!(read("i=?0,u=0"), (Some(0), Some(false)));
        assert_eq!(read("u=2;x=1, i=?1;y"), (Some(2), Some(true)));
        assert_eq!(read("u=1, u=6"), (Some(6), None));
        for odd in [
            "", "u", "u=8", "u=-1", "u=2.0", "u=\"1\"", "i=1", "I", "U=1", "ü=1", "u =1",
        ] {
            assert_eq!(read(odd), (None, None), "{odd:?}");
        }
        assert_eq!(read("x=1, i, y=(1 2)"), (None, Some(true)));
    }

    #[test]
    fn a_reply_says_over_its_request() {
        let mut reply = HeaderMap::new();
        reply.append(FIELD, "u=1".parse().unwrap());
        reply.append(FIELD, "u=6".parse().unwrap());
        let said = Wish::of(&reply).over(Wish::read(b"u=2, i"));
        assert_eq!((said.urgency, said.incremental), (Some(6), Some(true)));
    }

    #[test]
    fn the_urgent_come_first_then_the_earlier_then_those_that_share() {
        let rank = |value: &str, nth| Wish::read(value.as_bytes()).rank(nth);
        let order = [
            rank("u=0", 9),
            rank("u=0, i", 2),
            rank("u=2", 1),
            rank("u=3", 1),
            rank("u=3", 2),
            rank("u=3, i", 0),
            rank("u=7", 0),
        ];
        assert!(
            order.is_sorted_by(|sooner, later| sooner > later),
            "{order:?}"
        );
        assert_eq!(rank("i", 1), rank("i", 2));
        assert_eq!(rank("", 1), rank("i", 5), "who says nothing shares");
    }
}
