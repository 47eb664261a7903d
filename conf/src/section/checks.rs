//! What can only be seen over several sections.

use crate::config::{Admin, AdminAddress, Listener, Log, Route, Upstream};
use crate::raw::{Entry, Node, Value};
use crate::read::{Finding, Table};
use crate::source::Place;

/// Checks listeners against each other, against `[admin]`, `[tls]` and `[cache]`.
pub(super) fn sections(
    root: &Table<'_>,
    listeners: &[(Place, Option<Listener>)],
    admin: Option<&Option<Admin>>,
    routes: &[(Place, Option<Route>)],
) {
    let cx = root.cx;
    if root.entry("listener").is_none() && !root.explains("listener") {
        cx.error(
            Finding::error(root.place, "there is no listener, so nobody can connect")
                .help("help: add a section [[listener]] with address = \"127.0.0.1:8080\""),
        );
    }
    let is_http = |listener: &Option<Listener>| !matches!(listener, Some(listener) if listener.forward.is_some() && !listener.tls);
    let any_http = listeners.is_empty() || listeners.iter().any(|(_, listener)| is_http(listener));
    if any_http && root.entry("route").is_none() && !root.explains("route") {
        cx.error(
            Finding::error(
                root.place,
                "there is no route, so every request would get 404",
            )
            .help("help: add a section [[route]] with upstream = \"NAME\" or static = \"NAME\""),
        );
    }
    let known: Vec<(Place, &Listener)> = listeners
        .iter()
        .filter_map(|(place, listener)| Some((*place, listener.as_ref()?)))
        .collect();
    pairs(root, &known);
    if let Some(Some(admin)) = admin {
        beside_admin(root, &known, admin);
    }
    certificates(
        root,
        &known,
        listeners.iter().all(|(_, known)| known.is_some()),
    );
    unused_store(root, routes);
}

/// No two listeners have one address or one name.
fn pairs(root: &Table<'_>, listeners: &[(Place, &Listener)]) {
    for (index, (place, listener)) in listeners.iter().enumerate() {
        let place = at_key(root, *place, "address");
        if listener.address.port() == 0 {
            root.cx.findings.add(
                Finding::warning(
                    place,
                    "port 0 takes a free port that changes with every start",
                )
                .label("write a port"),
            );
            continue;
        }
        for (first, other) in &listeners[..index] {
            if other.address == listener.address {
                root.cx.error(
                    Finding::error(
                        place,
                        format!("two listeners have the address {}", listener.address),
                    )
                    .label("hosts and paths are told apart by routes, not by listeners")
                    .also("the first is at", at_key(root, *first, "address")),
                );
            } else if other.name == listener.name {
                root.cx.error(
                    Finding::error(
                        at_key(root, listeners[index].0, "name"),
                        format!("two listeners are named \"{}\"", listener.name),
                    )
                    .label("metrics and logs tell listeners apart by their names")
                    .also("the first is at", at_key(root, *first, "name")),
                );
            }
        }
    }
}

fn beside_admin(root: &Table<'_>, listeners: &[(Place, &Listener)], admin: &Admin) {
    let AdminAddress::Tcp(address) = admin.address else {
        return;
    };
    let same = listeners
        .iter()
        .find(|(_, l)| l.address == address && address.port() != 0);
    if let (Some((place, _)), Some(entry)) = (same, root.entry("admin")) {
        root.cx.error(
            Finding::error(
                inner_key(&entry.node.value, "address").unwrap_or(entry.place),
                format!("the admin listener has the address {address} of a [[listener]]"),
            )
            .label("write another port; it is for operators only")
            .also("the listener is at", at_key(root, *place, "address")),
        );
    }
}

/// `tls = true` needs `[tls]`, and `[tls]` needs a listener that uses it.
fn certificates(root: &Table<'_>, listeners: &[(Place, &Listener)], all_known: bool) {
    let with_tls = listeners.iter().find(|(_, listener)| listener.tls);
    match (with_tls, root.entry("tls")) {
        (Some((place, _)), None) if !root.explains("tls") => root.cx.error(
            Finding::error(
                at_key(root, *place, "tls"),
                "this listener speaks TLS, but there are no certificates",
            )
            .label("add a section [tls]")
            .help("help: [tls] certificates = [{ cert = \"shop.pem\", key = \"shop.key\" }]"),
        ),
        (None, Some(entry)) if all_known && !listeners.is_empty() => root.cx.error(
            Finding::error(
                entry.place,
                "[tls] has no effect: no listener has tls = true",
            )
            .label("add tls = true to a [[listener]], or delete this section"),
        ),
        _ => {}
    }
}

/// A listener that speaks of an access log where there is none.
pub(super) fn access_log(root: &Table<'_>, log: &Log) {
    if log.access.is_some() || says(root, "log", "access").is_some() {
        return;
    }
    for entry in root.entries_of("listener") {
        for item in items(entry) {
            if let Some(place) = inner_key(&item.value, "access_log") {
                root.cx.error(
                    Finding::error(place, "`access_log` has no effect: there is no access log")
                        .label("add [log] access = { path = \"access.log\" }, or delete the key"),
                );
            }
        }
    }
}

/// A zone of this process that no endpoint can be in.
pub(super) fn zone(root: &Table<'_>, zone: Option<&str>, upstreams: &[Option<Upstream>]) {
    let (Some(zone), Some(place)) = (zone, says(root, "server", "zone")) else {
        return;
    };
    // What is discovered brings its zones along; where there is a mistake, more may come to light.
    let near = |upstream: &Option<Upstream>| {
        upstream.as_ref().is_none_or(|upstream| {
            let mut endpoints = upstream.endpoints.iter();
            upstream.discovery.is_some() || endpoints.any(|e| e.zone.as_deref() == Some(zone))
        })
    };
    if !upstreams.iter().any(near) {
        root.cx.findings.add(
            Finding::warning(
                place,
                format!("no endpoint is in the zone \"{zone}\", so `zone` has no effect"),
            )
            .label("give endpoints theirs: { address = \"10.0.0.11:8080\", zone = \"...\" }"),
        );
    }
}

/// Where a key of a single section stands.
fn says(root: &Table<'_>, section: &'static str, key: &str) -> Option<Place> {
    root.entries_of(section)
        .find_map(|entry| inner_key(&entry.node.value, key))
}

/// A store that nothing is put into.
fn unused_store(root: &Table<'_>, routes: &[(Place, Option<Route>)]) {
    let caching = |route: &Option<Route>| route.as_ref().is_none_or(|route| route.cache.is_some());
    if let Some(entry) = root.entry("cache")
        && !routes.is_empty()
        && !routes.iter().any(|(_, route)| caching(route))
    {
        root.cx.findings.add(
            Finding::warning(entry.place, "no route caches, so [cache] has no effect")
                .label("add cache = {} to a [[route]], or delete this section"),
        );
    }
}

/// Where the value of a key stands in the list item at `place`; that place where it has none.
fn at_key(root: &Table<'_>, place: Place, key: &str) -> Place {
    root.entries_of("listener")
        .flat_map(items)
        .find(|item| item.place == place)
        .and_then(|item| inner_key(&item.value, key))
        .unwrap_or(place)
}

/// The tables of a list of sections.
fn items(entry: &Entry) -> &[Node] {
    match &entry.node.value {
        Value::List(items) => items,
        _ => std::slice::from_ref(&entry.node),
    }
}

fn inner_key(value: &Value, key: &str) -> Option<Place> {
    let Value::Table(entries) = value else {
        return None;
    };
    let entry = entries.iter().find(|entry| entry.key == key)?;
    Some(entry.node.place)
}
