//! The key of a stored object: scheme, host, path and query, and what a route adds.
//!
//! Each part stands behind its length, so no two requests that differ in a part share a key,
//! whatever bytes the parts hold. The parts are taken as given: whoever makes the key has
//! normalised host and path before, as routing does, so that all see the same.
//!
//! A [`KeyBuf`] is filled for each request and looked up as it is; only what is stored is copied.

use std::borrow::Borrow;

/// A key that stands in the store.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Box<[u8]>);

/// A key that is only looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyRef<'a>(&'a [u8]);

/// A buffer in which a key is built. Keep it and fill it again.
#[derive(Debug, Clone, Default)]
pub struct KeyBuf(Vec<u8>);

/// The parts of a key, for purges by host or prefix and for whoever looks into the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts<'a> {
    /// `http` or `https`.
    pub scheme: &'a [u8],
    /// Host, with the port where it is not the scheme's own.
    pub host: &'a [u8],
    /// The path.
    pub path: &'a [u8],
    /// The query, without its question mark. An empty query is not the same as none.
    pub query: Option<&'a [u8]>,
}

/// The length that says: not there.
const NONE: u32 = u32::MAX;

/// Stand where a length would and are none, so that no part of a key can look like them.
const PART: u32 = u32::MAX - 1;
const PARTS_PASS: u32 = u32::MAX - 2;

impl Key {
    /// The key of these parts.
    pub fn new(scheme: &str, host: &str, path: &str, query: Option<&str>) -> Self {
        let mut buffer = KeyBuf::default();
        buffer.fill(scheme, host, path, query);
        buffer.as_key().to_key()
    }

    /// The key that has these bytes, if they can be those of one.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        KeyRef(bytes).parts()?;
        Some(Self(bytes.into()))
    }

    /// For a look-up.
    pub fn as_key(&self) -> KeyRef<'_> {
        KeyRef(&self.0)
    }

    /// Bytes of the key.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Never: every key has parts.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl KeyBuf {
    /// An empty buffer with room for common keys.
    pub fn new() -> Self {
        Self(Vec::with_capacity(256))
    }

    /// Begins a new key with its four parts.
    pub fn fill(&mut self, scheme: &str, host: &str, path: &str, query: Option<&str>) -> &mut Self {
        self.0.clear();
        self.part(Some(scheme.as_bytes()));
        self.part(Some(host.as_bytes()));
        self.part(Some(path.as_bytes()));
        self.part(query.map(str::as_bytes));
        self
    }

    /// Adds a part of the route's own, such as the value of a field or cookie. The order counts; a
    /// part that is absent is added as `None`.
    pub fn part(&mut self, part: Option<&[u8]>) -> &mut Self {
        // No part is 4 GiB long: a request head is bounded at kilobytes.
        let length = part.map_or(NONE, |part| {
            u32::try_from(part.len()).unwrap_or(PARTS_PASS - 1)
        });
        self.0.extend_from_slice(&length.to_le_bytes());
        self.0.extend_from_slice(part.unwrap_or_default());
        self
    }

    /// The key as it stands.
    pub fn as_key(&self) -> KeyRef<'_> {
        KeyRef(&self.0)
    }
}

impl<'a> KeyRef<'a> {
    /// A key to keep.
    pub fn to_key(self) -> Key {
        Key(self.0.into())
    }

    /// The key under which a [part](crate::part) of this page is kept.
    pub fn of_part(self) -> Key {
        self.aside(PART)
    }

    /// The key of the [marker](crate::Flights::mark) that says: requests for parts of this page go
    /// upstream as they are.
    pub fn of_passing_parts(self) -> Key {
        self.aside(PARTS_PASS)
    }

    fn aside(self, what: u32) -> Key {
        Key([self.0, &what.to_le_bytes()].concat().into())
    }

    /// The bytes, which is what the store hashes.
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// The bytes of the four parts that make the URL, without what a route adds.
    pub fn url(self) -> &'a [u8] {
        let mut rest = self.0;
        for _ in 0..4 {
            if take(&mut rest).is_none() {
                return self.0;
            }
        }
        &self.0[..self.0.len() - rest.len()]
    }

    /// The parts behind those of the URL, in order.
    pub fn added(self) -> impl Iterator<Item = Option<&'a [u8]>> {
        let mut rest = &self.0[self.url().len()..];
        std::iter::from_fn(move || take(&mut rest))
    }

    /// The parts, read back.
    pub fn parts(self) -> Option<Parts<'a>> {
        let mut rest = self.0;
        let (scheme, host) = (take(&mut rest)??, take(&mut rest)??);
        Some(Parts {
            scheme,
            host,
            path: take(&mut rest)??,
            query: take(&mut rest)?,
        })
    }
}

fn take<'a>(rest: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let (length, tail) = rest.split_first_chunk::<4>()?;
    let length = u32::from_le_bytes(*length);
    if length == NONE {
        *rest = tail;
        return Some(None);
    }
    let (part, tail) = tail.split_at_checked(usize::try_from(length).ok()?)?;
    *rest = tail;
    Some(Some(part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_empty_query_is_not_the_same_as_none() {
        assert_ne!(
            Key::new("http", "a", "/", Some("")),
            Key::new("http", "a", "/", None)
        );
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        assert_ne!(
            Key::new("http", "ab", "c", None),
            Key::new("http", "a", "bc", None)
        );
        assert_ne!(
            Key::new("http", "a", "/b", Some("c")),
            Key::new("http", "a", "/b?c", None)
        );
    }

    #[test]
    fn what_stands_aside_of_a_page_has_a_key_that_nothing_else_has() {
        let page = Key::new("http", "a", "/", None);
        let (part, passing) = (page.as_key().of_part(), page.as_key().of_passing_parts());
        assert!(part != page && passing != page && part != passing);
        assert_eq!(
            part.as_key().parts(),
            page.as_key().parts(),
            "for a purge by host"
        );
        let mut buffer = KeyBuf::new();
        let more = buffer.fill("http", "a", "/", None).part(Some(b"")).as_key();
        assert!(part.as_key() != more && passing.as_key() != more);
    }

    #[test]
    fn an_added_part_makes_another_key() {
        let mut buffer = KeyBuf::new();
        let plain = buffer.fill("http", "a", "/", None).as_key().to_key();
        let none = buffer
            .fill("http", "a", "/", None)
            .part(None)
            .as_key()
            .to_key();
        let some = buffer
            .fill("http", "a", "/", None)
            .part(Some(b""))
            .as_key()
            .to_key();
        assert!(plain != none && none != some && plain != some);
    }

    proptest! {
        #[test]
        fn a_key_gives_its_parts_back(scheme: String, host: String, path: String, query: Option<String>) {
            let key = Key::new(&scheme, &host, &path, query.as_deref());
            let parts = key.as_key().parts().unwrap();
            prop_assert_eq!(parts.scheme, scheme.as_bytes());
            prop_assert_eq!(parts.host, host.as_bytes());
            prop_assert_eq!(parts.path, path.as_bytes());
            prop_assert_eq!(parts.query, query.as_ref().map(String::as_bytes));
        }
    }
}
