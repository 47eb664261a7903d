//! One request's way without bytes: what is asked, which route takes it, what
//! its filters say.
//!
//! It knows no Pingora and moves nothing. A carrier gives it a head and does
//! what comes out.

pub(crate) mod backward;
pub(crate) mod caching;
pub(crate) mod chunked;
pub(crate) mod client;
pub(crate) mod forwarded;
pub(crate) mod frames;
pub(crate) mod grpc;
pub(crate) mod guard;
pub(crate) mod hash;
pub(crate) mod head;
pub(crate) mod hints;
pub(crate) mod maintenance;
pub(crate) mod normalise;
pub(crate) mod onward;
pub(crate) mod pace;
pub(crate) mod pages;
pub(crate) mod pending;
pub(crate) mod priority;
pub(crate) mod proxy_header;
pub(crate) mod purging;
pub(crate) mod rechunk;
pub(crate) mod remainder;
pub(crate) mod route;
pub(crate) mod shedding;
pub(crate) mod trailers;
pub(crate) mod websocket;

use std::borrow::Cow;
use std::net::IpAddr;

use http::header::{self, HeaderValue};
use http::request::Parts;

use crate::filter::{Chain, Context, FieldsMut, Reply, Scheme, Verdict};
use guard::{Reject, Upgrade};
use head::HeadView;
use route::{Outcome, Query, Router};

/// What is asked.
pub(crate) struct Asked<'a> {
    /// The head.
    pub(crate) head: &'a dyn HeadView,
    /// Place of the listener that it came in on.
    pub(crate) listener: usize,
    /// As it came, `:path` in HTTP/2.
    pub(crate) target: &'a str,
    /// It came over TLS.
    pub(crate) tls: bool,
    /// The same head where it came as HTTP/2, whose framing left some things to check.
    pub(crate) h2: Option<&'a Parts>,
    /// Most fields that such a head may have.
    pub(crate) max_fields: usize,
    /// See [`normalise::normalise`].
    pub(crate) merge_slashes: bool,
    /// The route that it was begun on: what is left of it says another framing than it did when the
    /// routes were asked, which may look at that.
    pub(crate) begun: Option<usize>,
}

/// Which route takes a request.
pub(crate) enum Course {
    /// It must not be served.
    Malformed(Reject),
    /// No route fits.
    NotFound,
    /// Routes fit but for the method; the value of Allow.
    MethodNotAllowed(HeaderValue),
    /// This one.
    Route(Way),
    /// This one, and the site is closed to all but a few.
    Closed(Way),
    /// This one, and there is more to do than can be done.
    Shed(Way),
    /// None: a certificate authority asks, and is answered with this text (RFC 8555 section 8.3).
    Challenge(String),
}

/// A request that has a route.
pub(crate) struct Way {
    /// Index of the route.
    pub(crate) route: usize,
    /// The host with its port, in one spelling: what upstreams see and what pages are known by, so
    /// that no page is made for one spelling and served for another.
    pub(crate) authority: String,
    /// Octets of the host, which that begins with.
    host_len: usize,
    /// The client spelt it in another way.
    pub(crate) respelt: bool,
    /// Normalised, and rewritten where a filter says so.
    pub(crate) path: String,
    /// Without `?`.
    pub(crate) query: Option<String>,
    /// Path and query before a rewrite, where there was one.
    before_rewrite: Option<(String, Option<String>)>,
}

impl Way {
    /// A way to nowhere in particular.
    #[cfg(test)]
    pub(crate) fn plain(host: &str, path: &str, query: Option<&str>) -> Self {
        Self {
            route: 0,
            authority: host.to_owned(),
            host_len: host.len(),
            respelt: false,
            path: path.to_owned(),
            query: query.map(str::to_owned),
            before_rewrite: None,
        }
    }

    /// Lower-case, without port.
    pub(crate) fn host(&self) -> &str {
        self.authority.get(..self.host_len).unwrap_or_default()
    }

    /// Normalised path and query as the client asked: what a cached page is known by, whatever
    /// a rewrite makes of it for the upstream.
    pub(crate) fn as_asked(&self) -> (&str, Option<&str>) {
        match &self.before_rewrite {
            Some((path, query)) => (path, query.as_deref()),
            None => (&self.path, self.query.as_deref()),
        }
    }

    /// Path and query as they go upstream, where a filter has changed them.
    pub(crate) fn rewritten(&self) -> Option<Cow<'_, str>> {
        self.before_rewrite.as_ref().map(|_| self.target())
    }

    /// Path and query as they go upstream.
    pub(crate) fn target(&self) -> Cow<'_, str> {
        match &self.query {
            None => Cow::Borrowed(&self.path),
            Some(query) => Cow::Owned(format!("{}?{query}", self.path)),
        }
    }
}

/// Finds the route for what is asked.
pub(crate) fn course(router: &Router, asked: &Asked<'_>) -> Course {
    match try_course(router, asked) {
        Ok(course) => course,
        Err(reject) => Course::Malformed(reject),
    }
}

fn try_course(router: &Router, asked: &Asked<'_>) -> Result<Course, Reject> {
    if let Some(parts) = asked.h2 {
        guard::inspect_parts(parts, asked.max_fields)?;
    }
    let said = host(asked)?;
    let authority = guard::authority_of(said)?;
    let host = guard::lower(authority.host()?);
    let target = normalise::normalise(asked.target, asked.merge_slashes)?;
    if let Some(pending) = router.pending()
        && let Some(answer) = pending.answer(asked.head.method(), &target.path)
    {
        return Ok(Course::Challenge(answer));
    }
    let found = match asked.begun {
        Some(route) => Outcome::Found(route),
        None => router.find(&Query {
            listener: asked.listener,
            host: &host,
            path: &target.path,
            query: target.query,
            view: asked.head,
        }),
    };
    Ok(match found {
        Outcome::NotFound => Course::NotFound,
        Outcome::MethodNotAllowed(methods) => Course::MethodNotAllowed(allow(&methods)),
        Outcome::Found(route) => {
            let (is_closed, is_shed) = (router.is_closed(route), router.is_shed(route));
            // Made where it stays: it is large, and would be moved.
            let way = || {
                let authority = spelled(&host, authority.port, asked.tls);
                Way {
                    route,
                    host_len: host.len(),
                    respelt: said != authority.as_bytes(),
                    authority,
                    path: target.path.into_owned(),
                    query: target.query.map(str::to_owned),
                    before_rewrite: None,
                }
            };
            match is_closed || is_shed {
                false => Course::Route(way()),
                true => held(way(), is_closed),
            }
        }
    })
}

/// A route that is closed, or given up for now.
#[cold]
fn held(way: Way, is_closed: bool) -> Course {
    match is_closed {
        true => Course::Closed(way),
        false => Course::Shed(way),
    }
}

/// The port stands there only if it is not the scheme's own (RFC 9110 section 4.2.3).
pub(crate) fn spelled(host: &str, port: Option<u16>, tls: bool) -> String {
    let own = if tls { 443 } else { 80 };
    match port {
        Some(port) if port != own => {
            let mut text = String::with_capacity(host.len() + 6);
            text.push_str(host);
            text.push(':');
            text.push_str(itoa::Buffer::new().format(port));
            text
        }
        _ => host.to_owned(),
    }
}

/// `:authority` in HTTP/2, else Host, which the guard held against an absolute target.
fn host<'a>(asked: &Asked<'a>) -> Result<&'a [u8], Reject> {
    let authority = asked.h2.and_then(|parts| parts.uri.authority());
    match (authority, asked.head.field(&header::HOST)) {
        (Some(authority), _) => Ok(authority.as_str().as_bytes()),
        (None, Some(host)) => Ok(host),
        (None, None) => Err(Reject::MissingHost),
    }
}

fn allow(methods: &[http::Method]) -> HeaderValue {
    let list = methods
        .iter()
        .map(http::Method::as_str)
        .collect::<Vec<_>>()
        .join(", ");
    HeaderValue::from_str(&list).unwrap_or(HeaderValue::from_static(""))
}

/// Runs a route's filters; a reply ends the request, else `way` may be rewritten.
pub(crate) fn filtered(
    chain: &Chain,
    way: &mut Way,
    client: IpAddr,
    tls: bool,
    fields: &mut dyn FieldsMut,
) -> Option<Reply> {
    if chain.is_empty() {
        return None;
    }
    let mut context = Context {
        client,
        scheme: scheme(tls),
        host: way.host(),
        path: Cow::Borrowed(&way.path),
        query: way.query.as_deref().map(Cow::Borrowed),
        fields,
    };
    let verdict = chain.request(&mut context);
    let path = owned(context.path);
    let query = context.query.map(Cow::into_owned);
    if let Some(path) = path {
        let path = std::mem::replace(&mut way.path, path);
        let query = std::mem::replace(&mut way.query, query);
        way.before_rewrite = Some((path, query));
    }
    match verdict {
        Verdict::Continue => None,
        Verdict::Reply(reply) => Some(reply),
    }
}

/// A rewrite gives a new path; without one there is nothing to copy.
fn owned(text: Cow<'_, str>) -> Option<String> {
    match text {
        Cow::Borrowed(_) => None,
        Cow::Owned(text) => Some(text),
    }
}

/// How the client reached us.
pub(crate) fn scheme(tls: bool) -> Scheme {
    if tls { Scheme::Https } else { Scheme::Http }
}

/// `path` without `prefix`, which ends at a segment boundary; still a path.
pub(crate) fn stripped<'a>(path: &'a str, prefix: Option<&str>) -> &'a str {
    let Some(prefix) = prefix.map(|prefix| prefix.trim_end_matches('/')) else {
        return path;
    };
    match path.strip_prefix(prefix) {
        Some("") => "/",
        Some(rest) if rest.starts_with('/') => rest,
        _ => path,
    }
}

/// Where a request for exactly the stripped prefix goes: to the folder that it names, relative
/// to itself, so that the links of the page there are right.
pub(crate) fn folder_of(way: &Way, prefix: Option<&str>) -> Option<String> {
    let (path, query) = way.as_asked();
    let prefix = prefix?.trim_end_matches('/');
    if way.path != prefix || way.path != path {
        return None;
    }
    let last = path.rsplit('/').next().filter(|last| !last.is_empty())?;
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    Some(format!("{last}/{query}"))
}

/// What a checked HTTP/1.1 head asks to change to (RFC 9110 section 7.8).
pub(crate) fn wanted_upgrade(head: &Parts) -> Upgrade {
    let asks = head.headers.get_all(header::CONNECTION).iter().any(|line| {
        line.as_bytes()
            .split(|&byte| byte == b',')
            .any(|option| option.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
    });
    let mut protocols = head.headers.get_all(header::UPGRADE).iter();
    let first = protocols.next();
    match first {
        Some(_) if asks && protocols.next().is_some() => Upgrade::Other,
        Some(protocol) if asks && protocol.as_bytes().eq_ignore_ascii_case(b"websocket") => {
            Upgrade::WebSocket
        }
        Some(_) if asks => Upgrade::Other,
        _ => Upgrade::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_stripped_on_segment_boundaries_only() {
        assert_eq!(stripped("/static/app.js", Some("/static")), "/app.js");
        assert_eq!(stripped("/static/app.js", Some("/static/")), "/app.js");
        assert_eq!(stripped("/static", Some("/static")), "/");
        assert_eq!(stripped("/statics/x", Some("/static")), "/statics/x");
        assert_eq!(stripped("/x", None), "/x");
    }
}
