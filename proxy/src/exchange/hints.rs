//! Early Hints (RFC 8297): which links a client is told before the app is asked, and which are
//! learned from the app's replies.
//!
//! What is learned from one visitor's page is told to others, so it is learned only where nothing in
//! the request says who asks and nothing in the reply is for one client alone, and only links that
//! any page of the site could have.

mod link;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, PoisonError, RwLock};

use cache::fields::each_member;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode, Version};

pub(crate) use link::Origin;

/// Paths that a route keeps links of; the oldest make room.
const MOST_PAGES: usize = 1000;
/// Bytes of a host and path whose links are kept.
const MOST_KEY: usize = 1024;
/// Links of one page.
const MOST_LINKS: usize = 16;
/// Bytes of the links of one page together.
const MOST_BYTES: usize = 4096;

static SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// `[[route]] early_hints`.
#[derive(Debug)]
pub(crate) struct Hints {
    links: Vec<HeaderValue>,
    http1: bool,
    learned: Option<Arc<Learned>>,
}

/// Links by host and path. It outlives reloads.
#[derive(Debug, Default)]
pub(crate) struct Learned(RwLock<Pages>);

#[derive(Debug, Default)]
struct Pages {
    links: HashMap<Arc<str>, Arc<[HeaderValue]>>,
    /// The oldest first.
    order: VecDeque<Arc<str>>,
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Page<'a> {
    pub(crate) origin: Origin<'a>,
    pub(crate) path: &'a str,
    /// Whether the request had a query. Links are told whatever it is, and learned without one alone:
    /// what an app repeats of it in a link would be told to others.
    pub(crate) has_query: bool,
}

impl Hints {
    /// By the configuration; `learned` is what a configuration before it has learned.
    pub(crate) fn new(settings: &conf::EarlyHints, learned: Option<Arc<Learned>>) -> Self {
        Self {
            links: settings.links.clone(),
            http1: settings.http1,
            learned: settings.learn.then(|| learned.unwrap_or_default()),
        }
    }

    /// What was learned, for the configuration after this one.
    pub(crate) fn learned(&self) -> Option<&Arc<Learned>> {
        self.learned.as_ref()
    }

    /// Whether this client can use a 103. Browsers that can send `Sec-Fetch-Mode: navigate` with what
    /// becomes a page; over HTTP/1.1 there is too much between here and there that cannot (RFC 8297
    /// section 3).
    pub(crate) fn helps(&self, method: &Method, version: Version, asked: &HeaderMap) -> bool {
        let spoken = version >= Version::HTTP_2 || (self.http1 && version == Version::HTTP_11);
        let navigates = asked
            .get(&SEC_FETCH_MODE)
            .is_some_and(|mode| mode == "navigate");
        spoken && navigates && method == Method::GET
    }

    /// The links for a page, those of the configuration first.
    pub(crate) fn links(&self, page: &Page<'_>) -> Vec<HeaderValue> {
        let mut links = self.links.clone();
        if let Some(known) = self.learned.as_ref().and_then(|all| all.of(page)) {
            for link in known.iter() {
                if !links.contains(link) {
                    links.push(link.clone());
                }
            }
        }
        links
    }

    /// Takes in what an app's reply says of the page.
    pub(crate) fn learn(
        &self,
        page: &Page<'_>,
        method: &Method,
        asked: &HeaderMap,
        status: StatusCode,
        reply: &HeaderMap,
    ) {
        if let Some(learned) = &self.learned
            && method == Method::GET
            && status == StatusCode::OK
            && !page.has_query
            && is_anonymous(asked)
            && is_for_all(reply)
        {
            learned.put(page, links_of(reply, &page.origin));
        }
    }
}

impl Learned {
    fn of(&self, page: &Page<'_>) -> Option<Arc<[HeaderValue]>> {
        let key = key(page)?;
        let pages = self.0.read().unwrap_or_else(PoisonError::into_inner);
        pages.links.get(key.as_str()).cloned()
    }

    fn put(&self, page: &Page<'_>, links: Vec<HeaderValue>) {
        let Some(key) = key(page) else {
            return;
        };
        {
            // Nearly always it is as before.
            let pages = self.0.read().unwrap_or_else(PoisonError::into_inner);
            match pages.links.get(key.as_str()) {
                Some(known) if **known == *links => return,
                None if links.is_empty() => return,
                _ => {}
            }
        }
        let mut pages = self.0.write().unwrap_or_else(PoisonError::into_inner);
        pages.put(key.into(), links);
    }
}

impl Pages {
    fn put(&mut self, key: Arc<str>, links: Vec<HeaderValue>) {
        // A page that has no links any more keeps its place, with none.
        if self.links.insert(key.clone(), links.into()).is_some() {
            return;
        }
        self.order.push_back(key);
        if self.order.len() > MOST_PAGES
            && let Some(oldest) = self.order.pop_front()
        {
            self.links.remove(&oldest);
        }
    }
}

fn key(page: &Page<'_>) -> Option<String> {
    let key = format!(
        "{}://{}{}",
        page.origin.scheme, page.origin.authority, page.path
    );
    (key.len() <= MOST_KEY).then_some(key)
}

/// Nothing in the request says who asks.
fn is_anonymous(asked: &HeaderMap) -> bool {
    !asked.contains_key(header::COOKIE) && !asked.contains_key(header::AUTHORIZATION)
}

/// An HTML page that is not for one client alone.
fn is_for_all(reply: &HeaderMap) -> bool {
    let is_html = reply
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.as_bytes().get(..9))
        .is_some_and(|start| start.eq_ignore_ascii_case(b"text/html"));
    let mut reserved = reply.contains_key(header::SET_COOKIE);
    each_member(reply, &header::CACHE_CONTROL, &mut |directive| {
        let name = directive.split(|&byte| byte == b'=').next();
        let name = name.unwrap_or_default().trim_ascii();
        reserved |= name.eq_ignore_ascii_case(b"private") || name.eq_ignore_ascii_case(b"no-store");
    });
    each_member(reply, &header::VARY, &mut |name| reserved |= name == b"*");
    is_html && !reserved
}

/// The links of a reply that are worth telling, within bounds.
fn links_of(reply: &HeaderMap, origin: &Origin<'_>) -> Vec<HeaderValue> {
    let mut links: Vec<HeaderValue> = Vec::new();
    let mut room = MOST_BYTES;
    for line in reply.get_all(header::LINK) {
        for link in link::split(line.as_bytes()) {
            let Ok(value) = HeaderValue::from_bytes(link) else {
                continue;
            };
            if links.contains(&value) || !link::is_a_hint(link, origin) {
                continue;
            }
            match room.checked_sub(link.len()) {
                Some(left) if links.len() < MOST_LINKS => room = left,
                _ => return links,
            }
            links.push(value);
        }
    }
    links
}

#[cfg(test)]
mod tests {
    use super::*;

    const CSS: &str = "</app.css>; rel=preload; as=style";

    fn settings(links: &[&'static str], learn: bool) -> conf::EarlyHints {
        conf::EarlyHints {
            links: links
                .iter()
                .copied()
                .map(HeaderValue::from_static)
                .collect(),
            learn,
            http1: false,
        }
    }

    fn page(path: &str) -> Page<'_> {
        Page {
            origin: Origin {
                scheme: "https",
                authority: "shop.test",
            },
            path,
            has_query: false,
        }
    }

    fn map(fields: &[(HeaderName, &'static str)]) -> HeaderMap {
        let fields = fields.iter().cloned();
        fields
            .map(|(name, value)| (name, HeaderValue::from_static(value)))
            .collect()
    }

    fn html(more: &[(HeaderName, &'static str)]) -> HeaderMap {
        let mut fields = map(&[
            (header::CONTENT_TYPE, "text/html; charset=utf-8"),
            (header::LINK, CSS),
        ]);
        fields.extend(map(more));
        fields
    }

    /// How many links are known after this exchange.
    fn learns(asked: &HeaderMap, status: StatusCode, reply: &HeaderMap) -> usize {
        let hints = Hints::new(&settings(&[], true), None);
        hints.learn(&page("/a"), &Method::GET, asked, status, reply);
        hints.links(&page("/a")).len()
    }

    #[test]
    fn a_page_that_everybody_gets_is_learned_from() {
        let nobody = HeaderMap::new();
        assert_eq!(learns(&nobody, StatusCode::OK, &html(&[])), 1);
        let public = html(&[(header::CACHE_CONTROL, "max-age=60, public")]);
        assert_eq!(learns(&nobody, StatusCode::OK, &public), 1);
    }

    #[test]
    fn what_may_be_for_one_visitor_is_not() {
        let nobody = HeaderMap::new();
        for reply in [
            html(&[(header::SET_COOKIE, "sid=1")]),
            html(&[(header::CACHE_CONTROL, "Private")]),
            html(&[(header::CACHE_CONTROL, "max-age=0, private=\"x\"")]),
            html(&[(header::CACHE_CONTROL, "no-cache, no-store")]),
            html(&[(header::VARY, "*")]),
            map(&[
                (header::CONTENT_TYPE, "application/json"),
                (header::LINK, CSS),
            ]),
            map(&[(header::LINK, CSS)]),
        ] {
            assert_eq!(learns(&nobody, StatusCode::OK, &reply), 0, "{reply:?}");
        }
        for asked in [
            map(&[(header::COOKIE, "a=1")]),
            map(&[(header::AUTHORIZATION, "Basic YTpi")]),
        ] {
            assert_eq!(learns(&asked, StatusCode::OK, &html(&[])), 0, "{asked:?}");
        }
        assert_eq!(learns(&nobody, StatusCode::NOT_FOUND, &html(&[])), 0);
    }

    #[test]
    fn what_a_query_asks_for_is_not_learned_and_is_told_the_links_of_the_page() {
        let hints = Hints::new(&settings(&[], true), None);
        let nobody = HeaderMap::new();
        let queried = Page {
            has_query: true,
            ..page("/a")
        };
        hints.learn(&queried, &Method::GET, &nobody, StatusCode::OK, &html(&[]));
        assert!(hints.links(&page("/a")).is_empty());
        hints.learn(
            &page("/a"),
            &Method::GET,
            &nobody,
            StatusCode::OK,
            &html(&[]),
        );
        assert_eq!(hints.links(&queried).len(), 1);
    }

    #[test]
    fn links_are_of_one_page_and_go_with_it() {
        let hints = Hints::new(&settings(&["</a>; rel=preload", CSS], true), None);
        let learn = |path: &str, reply: &HeaderMap| {
            let nobody = HeaderMap::new();
            hints.learn(&page(path), &Method::GET, &nobody, StatusCode::OK, reply);
        };
        let other = map(&[
            (header::CONTENT_TYPE, "text/html"),
            (
                header::LINK,
                "</b.css>; rel=preload, </app.css>; rel=preload; as=style",
            ),
        ]);
        learn("/a", &other);
        assert_eq!(hints.links(&page("/a")).len(), 3, "none twice");
        assert_eq!(hints.links(&page("/b")).len(), 2, "the configured ones");
        learn("/a", &map(&[(header::CONTENT_TYPE, "text/html")]));
        assert_eq!(hints.links(&page("/a")).len(), 2, "the page has none now");
        let later = Hints::new(&settings(&[], true), hints.learned().cloned());
        learn("/a", &other);
        assert_eq!(
            later.links(&page("/a")).len(),
            2,
            "a reload forgets nothing"
        );
        let off = Hints::new(&settings(&[], false), hints.learned().cloned());
        assert!(off.links(&page("/a")).is_empty());
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let hints = Hints::new(&settings(&[], true), None);
        let nobody = HeaderMap::new();
        let reply = html(&[]);
        for number in 0..MOST_PAGES + 10 {
            let path = format!("/{number}");
            hints.learn(&page(&path), &Method::GET, &nobody, StatusCode::OK, &reply);
        }
        assert!(hints.links(&page("/9")).is_empty(), "it made room");
        assert_eq!(hints.links(&page("/10")).len(), 1);
        let long = format!("/{}", "x".repeat(MOST_KEY));
        hints.learn(&page(&long), &Method::GET, &nobody, StatusCode::OK, &reply);
        assert!(hints.links(&page(&long)).is_empty());
        let many: String = (0..40)
            .map(|number| format!("</{number}.css>; rel=preload, "))
            .collect();
        let origin = page("/").origin;
        let line = |text: &str| {
            HeaderMap::from_iter([(header::LINK, HeaderValue::from_str(text).expect("a value"))])
        };
        assert_eq!(links_of(&line(&many), &origin).len(), MOST_LINKS);
        let large = format!("</{}>; rel=preload, ", "x".repeat(1500)).repeat(1);
        let large = format!("{large}{}", large.replace("x>", "y>")) + &large.replace("x>", "z>");
        assert_eq!(links_of(&line(&large), &origin).len(), 2, "4 KiB in all");
    }

    #[test]
    fn hints_go_to_who_can_use_them() {
        let hints = Hints::new(&settings(&[CSS], false), None);
        let loud = Hints {
            http1: true,
            ..Hints::new(&settings(&[CSS], false), None)
        };
        let browser = map(&[(SEC_FETCH_MODE.clone(), "navigate")]);
        let script = map(&[(SEC_FETCH_MODE.clone(), "cors")]);
        let get = Method::GET;
        assert!(hints.helps(&get, Version::HTTP_2, &browser));
        assert!(!hints.helps(&get, Version::HTTP_11, &browser));
        assert!(loud.helps(&get, Version::HTTP_11, &browser));
        assert!(!loud.helps(&get, Version::HTTP_10, &browser));
        assert!(!loud.helps(&get, Version::HTTP_2, &script));
        assert!(!loud.helps(&get, Version::HTTP_2, &HeaderMap::new()));
        assert!(!loud.helps(&Method::POST, Version::HTTP_2, &browser));
    }
}
