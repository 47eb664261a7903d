//! What is stored: a head and a body, neither of which changes any more, and a [`Life`], which does.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::coding::{Coding, coded_head};
use crate::companion::Companion;
use crate::freshness::Freshness;
use crate::head::Head;
use crate::tags::{Life, State};

/// A whole response.
#[derive(Debug)]
pub struct Stored {
    head: Arc<Head>,
    segments: Arc<[Bytes]>,
    length: u64,
    life: Arc<Life>,
    /// Few objects have any.
    extras: OnceLock<Box<Extras>>,
}

/// The compressed representations, and what a carrier keeps.
#[derive(Debug, Default)]
struct Extras {
    companion: Companion,
    /// By the place in [`Coding::ALL`]; `None` inside: compressing does not pay.
    places: [OnceLock<Option<Arc<Stored>>>; Coding::ALL.len()],
    /// A bit for each that somebody makes or made.
    begun: AtomicU8,
}

/// What is known of a compressed representation.
#[derive(Debug, Clone, Copy)]
pub enum InCoding<'a> {
    /// It is there.
    Ready(&'a Arc<Stored>),
    /// It would not be smaller.
    Useless,
    /// Nobody has made it yet.
    Unknown,
}

/// What a segment costs beside its bytes: the handle and the counter that it shares.
const SEGMENT_OVERHEAD: usize = size_of::<Bytes>() + 32;
/// What an object costs beside head and body: the counters of two `Arc`s, its place among the
/// variants, and the places that the store's index takes.
const OBJECT_OVERHEAD: usize = 96;

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
            extras: OnceLock::new(),
        }
    }

    /// The same body under another head, as after a 304, which begins another life.
    #[must_use]
    pub fn renewed(&self, head: Arc<Head>, life: Arc<Life>) -> Self {
        let renewed = Self::new(head, Arc::clone(&self.segments), life);
        if let Some(extras) = self.extras.get() {
            // It is new: nobody else has set them.
            let _ = renewed.extras.set(Box::new(Extras {
                companion: extras.companion.clone(),
                ..Extras::default()
            }));
        }
        for coding in Coding::ALL {
            match self.in_coding(coding) {
                InCoding::Ready(coded) => renewed.set_coded(coding, Some(coded.segments.clone())),
                InCoding::Useless => renewed.set_coded(coding, None),
                InCoding::Unknown => {}
            }
        }
        renewed
    }

    /// The representation in a coding.
    pub fn in_coding(&self, coding: Coding) -> InCoding<'_> {
        let known = self.extras.get();
        match known.and_then(|extras| extras.places[coding as usize].get()) {
            Some(Some(stored)) => InCoding::Ready(stored),
            Some(None) => InCoding::Useless,
            None => InCoding::Unknown,
        }
    }

    /// Whether the caller is the one to make the representation in a coding; it then calls
    /// [`set_coded`](Self::set_coded).
    pub fn begin_coding(&self, coding: Coding) -> bool {
        let bit = 1 << (coding as usize);
        let extras = self.extras.get_or_init(Box::default);
        extras.begun.fetch_or(bit, Ordering::Relaxed) & bit == 0
    }

    /// Adds the body in a coding; `None`: it is not worth it. The store must then
    /// [weigh](crate::Store::weigh) it anew.
    pub fn set_coded(&self, coding: Coding, body: Option<Arc<[Bytes]>>) {
        let stored = body.map(|segments| {
            let length = segments.iter().map(|segment| segment.len() as u64).sum();
            let head = Arc::new(coded_head(&self.head, coding, length));
            Arc::new(Self::new(head, segments, Arc::clone(&self.life)))
        });
        let extras = self.extras.get_or_init(Box::default);
        extras
            .begun
            .fetch_or(1 << (coding as usize), Ordering::Relaxed);
        // Whoever was first has made the same.
        let _ = extras.places[coding as usize].set(stored);
    }

    /// The head.
    pub fn head(&self) -> &Arc<Head> {
        &self.head
    }

    /// How long it holds, a soft purge taken into account that [`state`](Self::state) has seen.
    pub fn freshness(&self) -> Freshness {
        let freshness = self.head.freshness();
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

    /// What a carrier keeps with the body. Asked for only where it may keep something: the place for it
    /// is made then.
    pub fn companion(&self) -> &Companion {
        &self.extras.get_or_init(Box::default).companion
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
        let coded = self.extras.get().map_or(0, |extras| {
            let ready = extras
                .places
                .iter()
                .filter_map(|place| place.get()?.as_ref());
            let bodies: u64 = ready
                .map(|stored| stored.length + (stored.head.weight() + OBJECT_OVERHEAD) as u64)
                .sum();
            bodies + size_of::<Extras>() as u64
        });
        self.length + beside as u64 + coded
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
    fn a_compressed_representation_is_made_once_and_outlives_a_304() {
        let head = Arc::new(head_of(200, &["etag: \"a\"", "content-type: text/html"]));
        let stored = Stored::new(head, vec![Bytes::from("long")], Arc::default());
        let before = stored.weight();
        assert!(stored.begin_coding(Coding::Gzip) && !stored.begin_coding(Coding::Gzip));
        assert!(matches!(stored.in_coding(Coding::Gzip), InCoding::Unknown));
        stored.set_coded(Coding::Gzip, Some(vec![Bytes::from("s")].into()));
        stored.set_coded(Coding::Zstd, None);
        assert!(stored.weight() > before, "it counts");
        let renewed = stored.renewed(
            Arc::new(head_of(200, &["etag: \"a\"", "x-new: 1"])),
            Arc::default(),
        );
        let InCoding::Ready(coded) = renewed.in_coding(Coding::Gzip) else {
            panic!("it is gone");
        };
        assert_eq!(coded.head().etag(), Some(&b"\"a-gzip\""[..]));
        assert!(coded.head().has(&http::HeaderName::from_static("x-new")));
        assert_eq!(coded.segments()[0], "s");
        assert!(matches!(renewed.in_coding(Coding::Zstd), InCoding::Useless));
        assert!(!renewed.begin_coding(Coding::Zstd));
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
