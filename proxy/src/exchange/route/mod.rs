//! Which route takes a request: compiled once when a configuration is loaded,
//! asked once a request.
//!
//! Precedence: a listener named by the route before none; exact host before wildcard (the longer one first) before any
//! host; then exact path before prefix (the longer one first) before regex
//! before any path; then more conditions before fewer; then file order. A
//! route that fits by host and path and fails a condition gives way to the
//! next. See [`precedence`].
//!
//! Exact hosts, exact paths and prefixes are looked up by hash, so their number
//! does not slow a request down; only regexes of one host are tried in turn.
//!
//! It does not normalise: host, path and query come as
//! [`super::guard::lower`] and [`super::normalise`] give them.

mod conditions;
mod precedence;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;

use conf::{HostPattern, PathPattern};
use http::Method;
use regex::Regex;

use super::head::HeadView;
use super::maintenance::Switch;
use super::normalise::canonical;
use super::pending::PendingPages;
use super::shedding::{Level, Shedding};
use conditions::{Conditions, Verdict};
use precedence::{HostRank, PathRank, Precedence};

/// What a route is found by.
#[derive(Clone, Copy)]
pub(crate) struct Query<'a> {
    /// Place of the listener that it came in on.
    pub(crate) listener: usize,
    /// Lower-case, without port and trailing dot.
    pub(crate) host: &'a str,
    /// Normalised path.
    pub(crate) path: &'a str,
    /// Query as it came, without `?`.
    pub(crate) query: Option<&'a str>,
    /// Method and fields.
    pub(crate) view: &'a dyn HeadView,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Index into the routes that the router was made of.
    Found(usize),
    /// There are routes that fit but for the method: 405 with these in `Allow`
    /// (RFC 9110 section 15.5.6), each once, in order of precedence. Never empty.
    MethodNotAllowed(Vec<Method>),
    /// No route fits: 404.
    NotFound,
}

/// Keys are the operator's and fixed; whoever asks chooses only what is looked for. So no secret
/// is needed in the hash, and a fast one will do.
type Map<K, V> = HashMap<K, V, foldhash::fast::FixedState>;

/// Compiled routes.
#[derive(Debug, Default)]
pub(crate) struct Router {
    /// Routes that name listeners, by listener: they come before all that name none, so that
    /// "everything on port 80 is redirected" needs no care for the other routes.
    of_listener: Map<usize, Hosts>,
    any_listener: Hosts,
    conditions: Vec<Conditions>,
    /// What closes the site, and which routes it does not close.
    closing: Option<(Arc<Switch>, Vec<bool>)>,
    /// What gives requests up, and the priority of each route.
    shedding: Option<(Arc<Shedding>, Vec<conf::Priority>)>,
    /// What is answered before all routes.
    pending: Option<Arc<PendingPages>>,
}

/// Routes by host pattern.
#[derive(Debug, Default)]
struct Hosts {
    /// By host name.
    exact: Map<Box<str>, Paths>,
    /// By `.suffix`.
    suffixes: Map<Box<str>, Paths>,
    any: Paths,
}

/// The routes of one host pattern. Every list of routes is in order of precedence.
#[derive(Debug, Default)]
struct Paths {
    exact: Map<Box<str>, Vec<usize>>,
    prefixes: Map<Box<str>, Vec<usize>>,
    /// The different lengths of the prefixes, longest first.
    prefix_lengths: Vec<usize>,
    regexes: Vec<(Regex, usize)>,
    any: Vec<usize>,
}

impl Router {
    /// Compiles `routes`. Exact paths and prefixes are brought into the
    /// spelling that normalised requests have.
    #[must_use]
    pub(crate) fn new(routes: &[conf::Route]) -> Self {
        let mut router = Self {
            conditions: routes
                .iter()
                .map(|route| Conditions::new(&route.matcher))
                .collect(),
            ..Self::default()
        };
        let mut entries = router.entries(routes);
        entries.sort_by_key(|(precedence, _)| *precedence);
        for (precedence, pattern) in entries {
            let matcher = &routes[precedence.order].matcher;
            if matcher.listeners.is_empty() {
                let paths = router.any_listener.bucket(pattern);
                paths.insert(&matcher.path, precedence.order);
            }
            for listener in &matcher.listeners {
                let hosts = router.of_listener.entry(listener.0).or_default();
                hosts
                    .bucket(pattern)
                    .insert(&matcher.path, precedence.order);
            }
        }
        router
    }

    /// With what closes the site: all of `routes` but those that say otherwise.
    pub(crate) fn closed_by(mut self, switch: &Arc<Switch>, routes: &[conf::Route]) -> Self {
        let open = routes.iter().map(|route| !route.maintenance).collect();
        self.closing = Some((switch.clone(), open));
        self
    }

    /// With the pages that certificate authorities look for.
    pub(crate) fn before_all(mut self, pending: &Arc<PendingPages>) -> Self {
        self.pending = Some(pending.clone());
        self
    }

    /// The pages that certificate authorities look for.
    pub(crate) fn pending(&self) -> Option<&PendingPages> {
        self.pending.as_deref()
    }

    /// Whether a route is closed now.
    pub(crate) fn is_closed(&self, route: usize) -> bool {
        match &self.closing {
            None => false,
            Some((switch, open)) => switch.is_on() && !open.get(route).is_some_and(|open| *open),
        }
    }

    /// With what gives requests up when there are too many.
    pub(crate) fn shed_by(mut self, shedding: &Arc<Shedding>, routes: &[conf::Route]) -> Self {
        let priorities = routes.iter().map(|route| route.priority).collect();
        self.shedding = Some((shedding.clone(), priorities));
        self
    }

    /// Whether requests of a route are given up now.
    pub(crate) fn is_shed(&self, route: usize) -> bool {
        let Some((shedding, priorities)) = &self.shedding else {
            return false;
        };
        let level = shedding.level();
        let priority = priorities.get(route);
        level > Level::Calm && priority.is_some_and(|priority| level.sheds(*priority))
    }

    /// The route of the highest precedence that fits.
    #[must_use]
    pub(crate) fn find(&self, query: &Query<'_>) -> Outcome {
        let mut wrong_method = false;
        let found = self.candidates(query, &mut |route| {
            match self.conditions[route].judge(query) {
                Verdict::Fits => return ControlFlow::Break(route),
                Verdict::WrongMethod => wrong_method = true,
                Verdict::Fails => {}
            }
            ControlFlow::Continue(())
        });
        match found {
            ControlFlow::Break(route) => Outcome::Found(route),
            ControlFlow::Continue(()) if wrong_method => {
                Outcome::MethodNotAllowed(self.allowed(query))
            }
            ControlFlow::Continue(()) => Outcome::NotFound,
        }
    }

    fn allowed(&self, query: &Query<'_>) -> Vec<Method> {
        let mut methods: Vec<Method> = Vec::new();
        let _: ControlFlow<()> = self.candidates(query, &mut |route| {
            let conditions = &self.conditions[route];
            if matches!(conditions.judge(query), Verdict::WrongMethod) {
                for method in conditions.methods() {
                    if !methods.contains(method) {
                        methods.push(method.clone());
                    }
                }
            }
            ControlFlow::Continue(())
        });
        methods
    }

    /// Calls `f` with each route that fits by listener, host and path, in order of precedence.
    fn candidates<B>(
        &self,
        query: &Query<'_>,
        f: &mut impl FnMut(usize) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        if !self.of_listener.is_empty()
            && let Some(hosts) = self.of_listener.get(&query.listener)
        {
            hosts.candidates(query, f)?;
        }
        self.any_listener.candidates(query, f)
    }

    /// One entry for each host pattern of each route.
    fn entries<'a>(&self, routes: &'a [conf::Route]) -> Vec<(Precedence, Option<&'a HostPattern>)> {
        let mut entries = Vec::with_capacity(routes.len());
        for (order, route) in routes.iter().enumerate() {
            let path = PathRank::of(&route.matcher.path);
            let conditions = self.conditions[order].count();
            let entry = |host| {
                (
                    Precedence::new(HostRank::of(host), path, conditions, order),
                    host,
                )
            };
            if route.matcher.hosts.is_empty() {
                entries.push(entry(None));
            }
            entries.extend(route.matcher.hosts.iter().map(|host| entry(Some(host))));
        }
        entries
    }
}

impl Hosts {
    fn candidates<B>(
        &self,
        query: &Query<'_>,
        f: &mut impl FnMut(usize) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        if let Some(paths) = self.exact.get(query.host) {
            paths.candidates(query.path, f)?;
        }
        if !self.suffixes.is_empty() {
            for suffix in suffixes_of(query.host) {
                if let Some(paths) = self.suffixes.get(suffix) {
                    paths.candidates(query.path, f)?;
                }
            }
        }
        self.any.candidates(query.path, f)
    }

    fn bucket(&mut self, pattern: Option<&HostPattern>) -> &mut Paths {
        match pattern {
            None => &mut self.any,
            Some(HostPattern::Exact(host)) => self.exact.entry(host.as_str().into()).or_default(),
            Some(HostPattern::Suffix(suffix)) => {
                self.suffixes.entry(suffix.as_str().into()).or_default()
            }
        }
    }
}

impl Paths {
    /// Routes come in order of precedence.
    fn insert(&mut self, pattern: &PathPattern, route: usize) {
        match pattern {
            PathPattern::Any => push_new(&mut self.any, route),
            PathPattern::Exact(path) => {
                push_new(self.exact.entry(canonical(path).into()).or_default(), route);
            }
            PathPattern::Prefix(prefix) => {
                let prefix = canonical(prefix);
                let mut lengths: BTreeSet<usize> = self.prefix_lengths.iter().copied().collect();
                lengths.insert(prefix.len());
                self.prefix_lengths = lengths.into_iter().rev().collect();
                push_new(self.prefixes.entry(prefix.into()).or_default(), route);
            }
            PathPattern::Regex(regex) => self.regexes.push((regex.clone(), route)),
        }
    }

    fn candidates<B>(
        &self,
        path: &str,
        f: &mut impl FnMut(usize) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        if let Some(routes) = self.exact.get(path) {
            each(routes, f)?;
        }
        for &len in &self.prefix_lengths {
            if let Some(prefix) = prefix_of(path, len)
                && let Some(routes) = self.prefixes.get(prefix)
            {
                each(routes, f)?;
            }
        }
        for (regex, route) in &self.regexes {
            if regex.is_match(path) {
                f(*route)?;
            }
        }
        each(&self.any, f)
    }
}

fn each<B>(routes: &[usize], f: &mut impl FnMut(usize) -> ControlFlow<B>) -> ControlFlow<B> {
    for &route in routes {
        f(route)?;
    }
    ControlFlow::Continue(())
}

/// A route that names one host twice is still one candidate.
fn push_new(routes: &mut Vec<usize>, route: usize) {
    if routes.last() != Some(&route) {
        routes.push(route);
    }
}

/// The first `len` octets of `path` if they end on a segment boundary.
fn prefix_of(path: &str, len: usize) -> Option<&str> {
    let (prefix, rest) = path.split_at_checked(len)?;
    (rest.is_empty() || rest.starts_with('/') || prefix.ends_with('/')).then_some(prefix)
}

/// `.shop.example`, `.example` of `www.shop.example`: longest first.
fn suffixes_of(host: &str) -> impl Iterator<Item = &str> {
    host.match_indices('.')
        .filter(|(at, _)| *at > 0)
        .map(|(at, _)| &host[at..])
}
