//! `[[route]]`.

use http::Method;

use crate::config::{
    Action, CacheStore, ErrorPagesId, FilterId, PathPattern, Priority, Route, Server, StaticId,
    Upstream, UpstreamId, UpstreamProtocol,
};
use crate::courtesy::give_way;
use crate::keys;
use crate::raw::Value;
use crate::read::{Finding, Table};
use crate::source::Place;
use crate::text;

use super::names::Names;
use super::{cache, entry, pages, rules, template};

mod matcher;

/// The keys of which a route has exactly one.
const ACTIONS: [&str; 4] = ["upstream", "static", "redirect", "respond"];

/// Routes with the place of each, in file order; `None`: reported.
pub(super) fn routes(
    root: &Table<'_>,
    names: &Names,
    upstreams: &[Option<Upstream>],
    store: &CacheStore,
    server: &Server,
) -> Vec<(Place, Option<Route>)> {
    let tables = entry::list(root, "route", &keys::ROUTE);
    let mut taken: Vec<(String, Place)> = Vec::new();
    let mut routes = Vec::new();
    for (index, table) in tables.iter().enumerate() {
        give_way();
        let name = table
            .text("name", text::name)
            .unwrap_or_else(|| format!("route-{}", index + 1));
        let place = table.get("name").map_or(table.place, |node| node.place);
        if let Some((_, first)) = taken.iter().find(|(known, _)| *known == name) {
            root.cx.error(
                Finding::error(place, format!("two routes are named \"{name}\""))
                    .label("metrics and logs tell routes apart by their names")
                    .also("the first is at", *first),
            );
        }
        taken.push((name.clone(), place));
        let route = route(table, name, names, store, server);
        if let Some(route) = &route {
            check_retry(table, route, upstreams);
            check_grpc_web(table, route, upstreams);
        }
        routes.push((table.place, route));
    }
    routes
}

fn route(
    table: &Table<'_>,
    name: String,
    names: &Names,
    store: &CacheStore,
    server: &Server,
) -> Option<Route> {
    let matcher = table
        .table("match")
        .map(|inner| matcher::matcher(&inner, &names.listeners));
    let matcher = match matcher {
        Some(matcher) => matcher,
        None => Some(crate::config::Match::default()),
    };
    let action = action(table, names);
    let cache = table
        .table("cache")
        .map(|inner| cache::route(&inner, store));
    if let (Some(matcher), Some(_)) = (&matcher, &cache) {
        let cached = [Method::GET, Method::HEAD];
        if !matcher.methods.is_empty() && !matcher.methods.iter().any(|m| cached.contains(m)) {
            table.no_effect(
                "cache",
                "only GET and HEAD are cached, and this route takes neither",
                "delete it",
            );
        }
    }
    if let (Some(matcher), Some(strip)) = (&matcher, table.text("strip_prefix", text::path_prefix))
    {
        check_strip(table, &matcher.path, &strip);
    }
    let filters = filters(table, names);
    Some(Route {
        name,
        matcher: matcher?,
        filters: filters?,
        action: action?,
        cache,
        error_pages: error_pages(table, names, server),
        early_hints: table
            .table("early_hints")
            .map(|inner| pages::early_hints(&inner)),
        maintenance: maintenance(table, server),
        max_body_size: table.size("max_body_size"),
        // In the order of the key's choices.
        priority: table.choice(
            "priority",
            &[Priority::Critical, Priority::Normal, Priority::Sheddable],
            Priority::Normal,
        ),
        retry_non_idempotent: table.flag("retry_non_idempotent", false),
        grpc_web: table.flag("grpc_web", false),
    })
}

/// Exactly one of the four, and what belongs to it.
fn action(table: &Table<'_>, names: &Names) -> Option<Action> {
    let mut given = ACTIONS.iter().filter_map(|name| table.entry(name));
    let Some(first) = given.next() else {
        if table.has_unknown() {
            return None;
        }
        table.cx.error(
            Finding::error(table.place, "this route does nothing")
                .label("write upstream = \"NAME\", static = \"NAME\", redirect = \"...\" or respond = { ... }"),
        );
        return None;
    };
    for second in given {
        table.cx.error(
            Finding::error(
                second.place,
                format!(
                    "a route does one thing: `{}` or `{}`",
                    first.key, second.key
                ),
            )
            .label("delete one of them, or make it another route")
            .also("the other one is at", first.place),
        );
    }
    if first.key != "upstream" && table.get("upstream").is_none() {
        table.no_effect(
            "cache",
            "only responses of an upstream are cached",
            match first.key.as_str() {
                "static" => "delete it; files are kept in memory by [static.NAME] memory",
                _ => "delete it",
            },
        );
        table.no_effect(
            "early_hints",
            "only what goes to an upstream takes so long that hints help",
            "delete it",
        );
        table.no_effect(
            "retry_non_idempotent",
            "only what goes to an upstream is sent again",
            "delete it",
        );
        table.no_effect(
            "grpc_web",
            "only an upstream answers calls of gRPC",
            "delete it",
        );
    }
    if first.key != "static" && table.get("static").is_none() {
        table.no_effect(
            "strip_prefix",
            "it belongs to `static`",
            "for an upstream, a filter's rewrite = { prefix = \"/x\", to = \"/\" } does it",
        );
    }
    match first.key.as_str() {
        "upstream" => {
            let index = names.upstreams.find(table.cx, &first.node)?;
            Some(Action::Upstream(UpstreamId(index)))
        }
        "static" => {
            let site = names.statics.find(table.cx, &first.node)?;
            Some(Action::Static {
                site: StaticId(site),
                strip_prefix: table.text("strip_prefix", text::path_prefix),
            })
        }
        "redirect" => template::redirect(table).map(Action::Redirect),
        _ => template::respond(table).map(Action::Respond),
    }
}

/// Only what can be closed can stay open.
fn maintenance(table: &Table<'_>, server: &Server) -> bool {
    if server.maintenance.is_none() {
        table.no_effect(
            "maintenance",
            "[server] has no maintenance",
            "delete it, or write maintenance = { file = \"...\" } there",
        );
    }
    table.flag("maintenance", true)
}

/// Its own, none, or those that hold where nothing is said.
fn error_pages(table: &Table<'_>, names: &Names, server: &Server) -> Option<ErrorPagesId> {
    let Some(node) = table.get("error_pages") else {
        return server.error_pages;
    };
    if matches!(node.value, Value::Bool(false)) {
        return None;
    }
    names.error_pages.find(table.cx, node).map(ErrorPagesId)
}

/// What is never sent again need not be allowed to be.
fn check_retry(table: &Table<'_>, route: &Route, upstreams: &[Option<Upstream>]) {
    if let Action::Upstream(UpstreamId(index)) = route.action
        && let Some(Some(upstream)) = upstreams.get(index)
        && upstream.retry.attempts.get() == 1
    {
        table.no_effect(
            "retry_non_idempotent",
            &format!(
                "[upstream.{}] has retry = {{ attempts = 1 }}",
                upstream.name
            ),
            "delete it, or allow more attempts there",
        );
    }
}

/// gRPC is spoken over HTTP/2 alone.
fn check_grpc_web(table: &Table<'_>, route: &Route, upstreams: &[Option<Upstream>]) {
    if let Action::Upstream(UpstreamId(index)) = route.action
        && let Some(Some(upstream)) = upstreams.get(index)
        && upstream.protocol == UpstreamProtocol::H1
        && route.grpc_web
    {
        table.no_effect(
            "grpc_web",
            &format!(
                "[upstream.{}] speaks HTTP/1.1, and gRPC needs HTTP/2",
                upstream.name
            ),
            "write protocol = \"h2\" there, or delete it",
        );
    }
}

/// A prefix that no path of this route starts with is never taken off.
fn check_strip(table: &Table<'_>, path: &PathPattern, strip: &str) {
    let below = |path: &str| {
        path.strip_prefix(strip.trim_end_matches('/'))
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let matched = match path {
        PathPattern::Exact(path) | PathPattern::Prefix(path) => path,
        PathPattern::Any | PathPattern::Regex(_) => return,
    };
    let prefix_is_longer =
        matches!(path, PathPattern::Prefix(_)) && strip.starts_with(matched.trim_end_matches('/'));
    if !below(matched) && !prefix_is_longer {
        table.no_effect(
            "strip_prefix",
            &format!("the paths of this route start with \"{matched}\""),
            &format!("write strip_prefix = \"{matched}\""),
        );
    }
}

fn filters(table: &Table<'_>, names: &Names) -> Option<Vec<FilterId>> {
    let items = table.list("filters").unwrap_or_default();
    let mut unknown = false;
    let filters = rules::distinct(table.cx, "filters", items, |item| {
        let found = names.filters.find(table.cx, item);
        unknown |= found.is_none();
        found.map(FilterId)
    });
    (!unknown).then_some(filters)
}
