//! What is stored: a head and a body, neither of which changes any more, and a [`Life`], which does.

use std::sync::Arc;

use bytes::Bytes;

use crate::freshness::Freshness;
use crate::head::Head;
use crate::tags::{Life, State};

/// A whole response.
#[derive(Debug, Clone)]
pub struct Stored {
    head: Arc<Head>,
    segments: Arc<[Bytes]>,
    length: u64,
    life: Arc<Life>,
}

/// What a segment costs beside its bytes: the handle and the counter that it shares.
const SEGMENT_OVERHEAD: usize = size_of::<Bytes>() + 32;
/// What an object costs beside head and body: the counters of two `Arc`s, its place among the
/// variants, and the places that the store's index takes.
const OBJECT_OVERHEAD: usize = 160;

impl Stored {
    /// A response whose body is complete. Gives the head its Content-Length where none was declared.
    pub fn new(head: Arc<Head>, segments: impl Into<Arc<[Bytes]>>, life: Arc<Life>) -> Self {
        let segments = segments.into();
        let length = segments.iter().map(|segment| segment.len() as u64).sum();
        let wanted = head.may_have_body().then_some(length);
        let head = if head.content_length() == wanted {
            head
        } else {
            Arc::new(head.with_length(wanted))
        };
        Self {
            head,
            segments,
            length,
            life,
        }
    }

    /// The same body under another head, as after a 304, which begins another life.
    #[must_use]
    pub fn renewed(&self, head: Arc<Head>, life: Arc<Life>) -> Self {
        Self::new(head, Arc::clone(&self.segments), life)
    }

    /// The head.
    pub fn head(&self) -> &Arc<Head> {
        &self.head
    }

    /// How long it holds, a soft purge taken into account that [`state`](Self::state) has seen.
    pub fn freshness(&self) -> Freshness {
        let freshness = *self.head.freshness();
        match self.life.soft_at() {
            None => freshness,
            Some(time) => freshness.outdated_at(time),
        }
    }

    /// Whether it may still be used, `latest` being that of [`crate::Tags`].
    pub fn state(&self, latest: u64) -> State {
        self.life.state(latest)
    }

    /// What became of it since it was stored.
    pub fn life(&self) -> &Arc<Life> {
        &self.life
    }

    /// The body, in as many pieces as it is kept in; one where it is small.
    pub fn segments(&self) -> &Arc<[Bytes]> {
        &self.segments
    }

    /// Bytes of body.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Whether the body has no byte.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Bytes that it takes in memory, roughly, all told.
    pub fn weight(&self) -> u64 {
        let segments = self.segments.len() * SEGMENT_OVERHEAD;
        let beside = self.head.weight() + segments + OBJECT_OVERHEAD + self.life.weight();
        self.length + beside as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::Fields;
    use crate::tags::{Mode, Tags};
    use crate::testing::{at, head_of, secs};
    use http::header::CONTENT_LENGTH;

    #[test]
    fn a_stored_response_knows_its_length() {
        let head = Arc::new(head_of(200, &["content-length: 3"]));
        let stored = Stored::new(Arc::clone(&head), vec![Bytes::from("abc")], Arc::default());
        assert!(Arc::ptr_eq(stored.head(), &head), "nothing to rewrite");
        let stored = Stored::new(
            Arc::new(head_of(200, &[])),
            vec![Bytes::from("ab"), Bytes::from("c")],
            Arc::default(),
        );
        assert_eq!(stored.head().content_length(), Some(3));
        assert_eq!(stored.len(), 3);
        let empty = Stored::new(Arc::new(head_of(204, &[])), Vec::new(), Arc::default());
        assert!(
            !empty.head().has(&CONTENT_LENGTH),
            "204 has no Content-Length"
        );
    }

    #[test]
    fn the_head_of_a_typical_object_weighs_little() {
        let head = head_of(
            200,
            &[
                "content-type: text/html; charset=utf-8",
                "cache-control: public, max-age=300",
                "etag: \"5f3a-61b2c8d7e9f00\"",
                "last-modified: Sun, 06 Nov 1994 08:49:37 GMT",
                "vary: accept-encoding",
                "server: nginx",
                "x-request-id: 0123456789abcdef0123456789abcdef",
                "strict-transport-security: max-age=31536000",
            ],
        );
        let stored = Stored::new(
            Arc::new(head),
            vec![Bytes::from_static(b"x")],
            Arc::default(),
        );
        assert!(stored.weight() < 1200, "{} bytes", stored.weight());
    }

    #[test]
    fn what_a_soft_purge_made_stale_has_no_lifetime_left() {
        let tags = Tags::new();
        let life = Arc::new(tags.bind([&b"a"[..]], 0));
        let lines = ["cache-control: max-age=100, stale-while-revalidate=10"];
        let stored = Stored::new(Arc::new(head_of(200, &lines)), Vec::new(), life);
        assert!(stored.freshness().is_fresh(at(50)));
        tags.purge(b"a", Mode::Soft(at(20)));
        stored.state(tags.latest());
        let freshness = stored.freshness();
        assert!(!freshness.is_fresh(at(20)));
        assert_eq!(
            freshness.staleness(at(25)),
            secs(5),
            "counted from the purge"
        );
        assert_eq!(freshness.age(at(25)), secs(25), "its age is what it was");
    }
}
