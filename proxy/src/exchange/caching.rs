//! How a route caches: its settings as they are compiled, the key of a request, and what of a stored
//! page it gets.
//!
//! Here and not with the carrier, since every carrier must come to the same.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cache::condition::{self, Condition};
use cache::key::KeyRef;
use cache::range::{self, Selection};
use cache::reuse::{self, Use};
use cache::store::Page;
use cache::stored::InCoding;
use cache::{
    Coding, Fields, KeyBuf, Normal, Policy, QueryRules, Request, RequestControl, Stored, coding,
};
use http::header::{AUTHORIZATION, HOST, RANGE};
use http::{HeaderName, Method};

use super::Way;

/// The `cache` of a route.
#[derive(Debug, Clone)]
pub(crate) struct Caching {
    /// What the decisions go by.
    pub(crate) policy: Policy,
    /// What is stored is served, however old, when nobody answers.
    pub(crate) offline: bool,
    /// The last part of a lifetime, in which a page in demand is refreshed.
    pub(crate) early_refresh: Duration,
    /// Longest wait for the head that another's fetch brings.
    pub(crate) collapse_timeout: Duration,
    /// How long a body may take to come that no client reads.
    pub(crate) background_timeout: Duration,
    /// How long nobody waits for another's fetch of a page that was not to be shared.
    pub(crate) hit_for_miss: Duration,
    /// Requests before a page is stored.
    pub(crate) min_uses: u8,
    /// What becomes of Accept-Encoding and Accept-Language, for variants and for the origin.
    pub(crate) normal: Normal,
    /// Codings in which stored pages are offered, the preferred first.
    pub(crate) compress: Vec<Coding>,
    /// What of the query is part of the key.
    pub(crate) query: QueryRules,
    /// Request fields that are part of the key.
    pub(crate) key_headers: Vec<HeaderName>,
    /// Cookies that are part of the key.
    pub(crate) key_cookies: Vec<String>,
    /// A filter of the route may rewrite what is asked of the upstream.
    pub(crate) rewrites: bool,
    /// A filter of the route says which host is asked for.
    pub(crate) sets_host: bool,
    /// All cookies that belong to one visitor, whether they are shared here or not.
    pub(crate) sessions: Vec<String>,
    /// Percentage of hits by sessions that are compared.
    pub(crate) compare_sessions: u8,
    /// Cache-Status shows the key.
    pub(crate) show_key: bool,
}

impl Caching {
    /// The key of a request. Two upstreams never share an entry, even where a host name leads to
    /// both (by listener, say), nor do two routes to one of them of which one rewrites the path or
    /// names another host.
    /// Names stand beside their values: the store outlives a change of the configuration.
    pub(crate) fn key(
        &self,
        scheme: &str,
        way: &Way,
        upstream: &str,
        fields: &dyn Fields,
    ) -> KeyBuf {
        let (path, query) = way.as_asked();
        let mut key = self.key_of(scheme, &way.authority, path, query, upstream);
        for name in &self.key_headers {
            let value = line_of(fields, name);
            key.part(Some(&named(name.as_str(), value.as_deref())));
        }
        for name in &self.key_cookies {
            let value = cache::fields::cookies(fields, name);
            key.part(Some(&named(name, value.as_deref())));
        }
        if self.sets_host {
            key.part(line_of(fields, &HOST).as_deref());
        }
        if let Some(target) = way.rewritten() {
            key.part(Some(target.as_bytes()));
        }
        key
    }

    /// The key of a URL, as far as it does not hang on the request's fields.
    pub(crate) fn key_of(
        &self,
        scheme: &str,
        host: &str,
        path: &str,
        query: Option<&str>,
        upstream: &str,
    ) -> KeyBuf {
        let mut room = String::new();
        let query = self.query.apply(query, &mut room);
        let mut key = KeyBuf::new();
        key.fill(scheme, host, path, query)
            .part(Some(upstream.as_bytes()));
        key
    }

    /// Whether one URL may have several keys.
    pub(crate) fn has_several_keys(&self) -> bool {
        self.rewrites
            || self.sets_host
            || !(self.key_headers.is_empty() && self.key_cookies.is_empty())
    }

    /// Whether a request says whose it is.
    pub(crate) fn is_of_a_session(&self, fields: &dyn Fields) -> bool {
        let has = |name: &String| cache::fields::cookie(fields, name).is_some();
        fields.has(&AUTHORIZATION) || self.sessions.iter().any(has)
    }

    /// Whether a page that is stored for the request may be its answer [as it stands](Self::as_it_stands)
    /// at all: the origin is not to judge its conditions, and nothing is to be compared or shown.
    pub(crate) fn may_answer_at_once(&self, fields: &dyn Fields) -> bool {
        let is_compared = self.compare_sessions > 0 && self.is_of_a_session(fields);
        !(condition::is_for_origin(fields) || self.show_key || is_compared)
    }

    /// What of `found` is the whole answer, with nothing to be done beside it: it is fresh and not about to be
    /// fetched anew, in the coding that is wanted, no condition makes it a 304 and no range a part.
    pub(crate) fn as_it_stands(
        &self,
        method: &Method,
        fields: &impl Fields,
        found: Page,
        now: SystemTime,
    ) -> Option<Page> {
        let freshness = found.freshness();
        let usable = reuse::usable(&freshness, &RequestControl::read(fields), now);
        if usable != Use::Fresh || freshness.remaining(now) <= self.early_refresh {
            return None;
        }
        let found = match self.represented(fields, &found) {
            Represented::AsStored => found,
            Represented::Coded(coding, _) => found.in_coding_ready(coding),
            Represented::ToBeCoded(_) => return None,
        };
        let page = found.head();
        let asked = Request { method, fields };
        let is_whole = page.may_have_body()
            && condition::evaluate(page, fields, now) == Condition::Full
            && range::select(page, asked, found.len(), now) == Selection::Whole;
        is_whole.then_some(found)
    }

    /// Which representation of `found` the request gets. Parts are cut from what the origin sent: who asks for
    /// one may have another of it.
    pub(crate) fn represented<'a>(
        &self,
        fields: &impl Fields,
        found: &'a Stored,
    ) -> Represented<'a> {
        if self.compress.is_empty() || fields.has(&RANGE) {
            return Represented::AsStored;
        }
        let Some(coding) = coding::choose(fields, &self.compress) else {
            return Represented::AsStored;
        };
        match found.in_coding(coding) {
            InCoding::Ready(coded) => Represented::Coded(coding, coded),
            InCoding::Useless => Represented::AsStored,
            InCoding::Unknown => {
                match coding::is_compressible(found.head(), found.len(), coding::MIN_LENGTH) {
                    true => Represented::ToBeCoded(coding),
                    false => Represented::AsStored,
                }
            }
        }
    }

    /// Whether a fresh page is to be fetched anew already; `draw` is a random number of at least 0 and below 1.
    pub(crate) fn is_due_early(&self, found: &Stored, now: SystemTime, draw: f64) -> bool {
        !self.early_refresh.is_zero()
            && reuse::is_due_early(&found.freshness(), self.early_refresh, now, draw)
    }
}

/// A representation of a stored page.
pub(crate) enum Represented<'a> {
    /// The origin's.
    AsStored,
    /// The one in the coding that the client wants most.
    Coded(Coding, &'a Arc<Stored>),
    /// The origin's until one in this coding is made.
    ToBeCoded(Coding),
}

/// `name=value`, or the name alone where there is none: neither a field's name nor a cookie's has that sign.
fn named(name: &str, value: Option<&[u8]>) -> Vec<u8> {
    let mut part = name.as_bytes().to_vec();
    if let Some(value) = value {
        part.push(b'=');
        part.extend_from_slice(value);
    }
    part
}

/// What a request says to a field: its lines, joined; `None` where there is none.
fn line_of(fields: &dyn Fields, name: &HeaderName) -> Option<Vec<u8>> {
    let mut all: Option<Vec<u8>> = None;
    fields.each(name, &mut |line| match &mut all {
        None => all = Some(line.to_vec()),
        Some(all) => {
            all.extend_from_slice(b", ");
            all.extend_from_slice(line);
        }
    });
    all
}

/// A key for people: `https://shop.example/p?q`, and what the route adds in brackets.
pub(crate) fn shown(key: KeyRef<'_>) -> String {
    let Some(parts) = key.parts() else {
        return String::new();
    };
    let text = String::from_utf8_lossy;
    let mut shown = format!(
        "{}://{}{}",
        text(parts.scheme),
        text(parts.host),
        text(parts.path)
    );
    if let Some(query) = parts.query {
        shown.push('?');
        shown.push_str(&text(query));
    }
    let added: Vec<String> = key
        .added()
        .skip(1)
        .flatten()
        .map(|part| text(part).into_owned())
        .collect();
    if !added.is_empty() {
        shown.push_str(&format!(" [{}]", added.join(", ")));
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use cache::Key;
    use http::{HeaderMap, HeaderValue};

    fn caching() -> Caching {
        Caching {
            policy: Policy::default(),
            offline: false,
            early_refresh: Duration::ZERO,
            collapse_timeout: Duration::ZERO,
            background_timeout: Duration::ZERO,
            hit_for_miss: Duration::ZERO,
            min_uses: 1,
            normal: Normal::default(),
            compress: Vec::new(),
            query: QueryRules {
                drop: vec!["utm_*".parse().expect("a pattern")],
                ..QueryRules::default()
            },
            key_headers: vec![HeaderName::from_static("x-currency")],
            key_cookies: vec!["country".to_owned()],
            rewrites: false,
            sets_host: false,
            sessions: vec!["sid".to_owned()],
            compare_sessions: 0,
            show_key: true,
        }
    }

    fn fields(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    fn key(lines: &[(&'static str, &'static str)]) -> Key {
        let way = Way::plain("shop.example", "/p", Some("q=1"));
        let key = caching().key("https", &way, "app", &fields(lines));
        key.as_key().to_key()
    }

    #[test]
    fn chosen_headers_and_cookies_are_part_of_the_key() {
        let plain = key(&[]);
        assert_ne!(plain, key(&[("x-currency", "")]), "absent is not empty");
        assert_ne!(key(&[("x-currency", "eur")]), key(&[("x-currency", "chf")]));
        assert_ne!(plain, key(&[("cookie", "a=b; country=ch")]));
        assert_eq!(plain, key(&[("cookie", "a=b"), ("x-other", "1")]));
    }

    #[test]
    fn query_parameters_that_make_no_difference_are_left_out() {
        let key = |query| {
            let key = caching().key_of("https", "shop.example", "/p", query, "app");
            key.as_key().to_key()
        };
        assert_eq!(key(Some("q=1&utm_source=x")), key(Some("q=1")));
        assert_ne!(key(Some("q=1&ref=x")), key(Some("q=1")));
    }

    #[test]
    fn a_key_is_shown_as_the_url_and_what_is_added() {
        assert_eq!(
            shown(key(&[("x-currency", "eur")]).as_key()),
            "https://shop.example/p?q=1 [x-currency=eur, country]"
        );
    }

    #[test]
    fn a_session_is_known_by_its_cookie_or_its_authorization() {
        let is = |lines: &[_]| caching().is_of_a_session(&fields(lines));
        assert!(is(&[("cookie", "sid=1")]) && is(&[("authorization", "Bearer x")]));
        assert!(!is(&[("cookie", "theme=dark")]));
    }
}
