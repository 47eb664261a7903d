//! What a pool consists of: endpoints, and where further ones come from.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::path::Path;

use crate::config::{Discovery, Endpoint, EndpointAddress, Family, Resolve};
use crate::defaults;
use crate::discovered::{self, Format, MOST};
use crate::environment::reason;
use crate::keys::{self, Kind};
use crate::raw::{Node, Value};
use crate::read::{Cx, Finding, Table};
use crate::section::rules;
use crate::source::Place;
use crate::text;

/// The endpoints of a pool, and what other keys want to know of them.
pub(super) struct Members {
    pub(super) endpoints: Vec<Endpoint>,
    /// Where the first one that has a zone stands.
    pub(super) first_zone: Option<Place>,
    /// Whether there is a `discovery`.
    pub(super) discovered: bool,
    /// Whether some could not be read, which was reported: then nothing more is said about them.
    pub(super) damaged: bool,
}

impl Members {
    /// Whether others than those that stand there may come.
    fn open(&self) -> bool {
        self.discovered || self.damaged
    }

    fn any(&self, is: impl Fn(&Endpoint) -> bool) -> bool {
        self.endpoints.iter().any(is)
    }

    /// Whether there may be names among them.
    fn names(&self) -> bool {
        let name = |address: &EndpointAddress| {
            matches!(
                address,
                EndpointAddress::Name { .. } | EndpointAddress::Srv(_)
            )
        };
        self.open() || self.any(|endpoint| name(&endpoint.address))
    }

    /// Whether there may be more than one.
    pub(super) fn several(&self) -> bool {
        self.endpoints.len() > 1 || self.names()
    }

    /// Whether some may come before others.
    pub(super) fn tiers(&self) -> bool {
        let first = self.endpoints.first();
        let first = first.map(|endpoint| (endpoint.priority, endpoint.backup));
        self.open()
            || self.any(|endpoint| {
                matches!(endpoint.address, EndpointAddress::Srv(_))
                    || Some((endpoint.priority, endpoint.backup)) != first
            })
    }

    /// Whether there may be zones.
    pub(super) fn zones(&self) -> bool {
        self.open() || self.any(|endpoint| endpoint.zone.is_some())
    }
}

pub(super) fn members(table: &Table<'_>) -> Members {
    let discovered = table.get("discovery").is_some();
    if !discovered && !table.explains("discovery") {
        table.require("endpoints");
    }
    let (found, whole) = placed(table);
    if let Some(Node {
        place,
        value: Value::List(items),
    }) = table.get("endpoints")
        && items.is_empty()
    {
        let fix = match discovered {
            true => "leave it out; `discovery` finds them",
            false => "such as [\"10.0.0.11:8080\"]",
        };
        let what = "the list `endpoints` is empty";
        table.cx.error(Finding::error(*place, what).label(fix));
    }
    let first_zone = found
        .iter()
        .find(|(endpoint, _)| endpoint.zone.is_some())
        .map(|(_, place)| *place);
    let endpoints: Vec<Endpoint> = found.into_iter().map(|(endpoint, _)| endpoint).collect();
    if !discovered && whole && !endpoints.is_empty() && endpoints.iter().all(|e| e.backup) {
        let place = table
            .get("endpoints")
            .map_or(table.place, |node| node.place);
        table.cx.error(
            Finding::error(
                place,
                "every endpoint is a backup, so there is none to back up",
            )
            .label("take `backup = true` off at least one"),
        );
    }
    Members {
        damaged: !whole || (endpoints.is_empty() && !discovered),
        endpoints,
        first_zone,
        discovered,
    }
}

/// The endpoints of the key `endpoints`, each with its place, and whether these are all: those that
/// cannot be read are reported and left out.
pub(crate) fn placed(table: &Table<'_>) -> (Vec<(Endpoint, Place)>, bool) {
    let cx = table.cx;
    let (Some(node), Kind::List { of, .. }) = (table.get("endpoints"), table.kind("endpoints"))
    else {
        return (Vec::new(), true);
    };
    let Some(items) = table.list("endpoints") else {
        return (Vec::new(), false);
    };
    if let Some(item) = items.get(MOST) {
        cx.error(
            Finding::error(
                item.place,
                format!("these are {} endpoints, more than {MOST}", items.len()),
            )
            .label("spread them over several upstreams"),
        );
        return (Vec::new(), false);
    }
    let mut found: Vec<(Endpoint, Place)> = Vec::with_capacity(items.len());
    let mut first: HashMap<EndpointAddress, Place> = HashMap::new();
    for item in items {
        let Some(endpoint) = endpoint(cx, item, of) else {
            continue;
        };
        if let Some(first) = first.get(&endpoint.address) {
            cx.error(
                Finding::error(
                    item.place,
                    format!("the endpoint {} is there twice", endpoint.address),
                )
                .label("for a larger share give it a weight")
                .also("it is there first at", *first),
            );
        } else {
            first.insert(endpoint.address.clone(), item.place);
        }
        found.push((endpoint, item.place));
    }
    let whole = found.len() == items.len() && !matches!(node.value, Value::Null);
    (found, whole)
}

fn endpoint(cx: &Cx<'_>, item: &Node, kind: &'static Kind) -> Option<Endpoint> {
    if !matches!(item.value, Value::Table(_)) {
        return Some(Endpoint {
            address: address(cx, item, "endpoints", kind)?,
            weight: rules::count(defaults::WEIGHT),
            priority: 0,
            backup: false,
            zone: None,
        });
    }
    let table = Table::open(cx, &keys::ENDPOINT, item.place, item)?;
    let address = match (table.get("address"), table.get("srv")) {
        (Some(node), None) => address(cx, node, "address", table.kind("address")),
        (None, Some(_)) => {
            for name in ["weight", "priority"] {
                table.no_effect(name, "SRV records say it themselves", "delete it");
            }
            table.text("srv", text::srv).map(EndpointAddress::Srv)
        }
        (Some(_), Some(second)) => {
            cx.error(
                Finding::error(second.place, "an endpoint has `address` or `srv`, not both")
                    .label("delete one of them, or make it two endpoints"),
            );
            None
        }
        (None, None) => {
            if !table.has_unknown() {
                table.missing("address");
            }
            None
        }
    };
    let backup = table.flag("backup", false);
    if let (true, Some(entry)) = (backup, table.entry("priority")) {
        cx.error(
            Finding::error(
                entry.place,
                "an endpoint has a priority or is a backup, not both",
            )
            .label("delete one of them; backups come after every priority"),
        );
    }
    let weight = weight(&table);
    let priority = table.integer_or("priority", 0);
    let zone = table.text("zone", text::name);
    Some(Endpoint {
        address: address?,
        weight,
        priority,
        backup,
        zone,
    })
}

/// An address; the path of a socket is relative to the file, as others are.
fn address(cx: &Cx<'_>, node: &Node, name: &str, kind: &Kind) -> Option<EndpointAddress> {
    let address = cx.parsed(node, name, kind, text::endpoint)?;
    let EndpointAddress::Unix(path) = address else {
        return Some(address);
    };
    let path = cx.sources.resolve(node.place.file, &path);
    if let Err(wrong) = text::unix_path(&path) {
        cx.error(Finding::error(node.place, wrong.what).label(wrong.fix));
        return None;
    }
    Some(EndpointAddress::Unix(path))
}

/// Zero is what some programs take for "switched off".
fn weight(table: &Table<'_>) -> NonZeroU32 {
    if let Some(node) = table.get("weight")
        && matches!(node.value, Value::Integer(0))
    {
        table.cx.error(
            Finding::error(node.place, "an endpoint of weight 0 never gets a request")
                .label("delete the endpoint, or write a weight from 1 to 1000"),
        );
        return NonZeroU32::MIN;
    }
    table.count_or("weight", defaults::WEIGHT)
}

pub(super) fn discovery(parent: &Table<'_>) -> Option<Discovery> {
    let table = parent.table("discovery")?;
    match (table.get("file"), table.get("url")) {
        (Some(node), None) => {
            for name in ["every", "timeout"] {
                table.no_effect(name, "a file is watched, not polled", "delete it");
            }
            let path = table.path("file")?;
            listed(&table, node, &path);
            Some(Discovery::File(path))
        }
        (None, Some(_)) => {
            let every = table.duration_or("every", defaults::DISCOVERY_EVERY);
            let timeout = table.duration_or("timeout", defaults::DISCOVERY_TIMEOUT);
            Some(Discovery::Http {
                url: table.text("url", text::http_url)?,
                every,
                timeout,
            })
        }
        (Some(_), Some(second)) => {
            table.cx.error(
                Finding::error(
                    second.place,
                    "endpoints come from a file or from a URL, not from both",
                )
                .label("delete one of them"),
            );
            None
        }
        (None, None) => {
            if !table.has_unknown() {
                table.cx.error(
                    Finding::error(table.place, "this does not say where endpoints are read from")
                        .label("write { file = \"endpoints.toml\" } or { url = \"http://10.0.0.5:8500/app\" }"),
                );
            }
            None
        }
    }
}

/// A mistake in the list shows now, not when the first request finds nobody.
fn listed(table: &Table<'_>, node: &Node, path: &Path) {
    let finding = match Format::of(path) {
        None => Finding::error(
            node.place,
            format!("the name {} does not say what is in it", path.display()),
        )
        .label("let it end in .toml or .json"),
        Some(format) => match table.cx.environment.read(path) {
            Err(error) => rules::unreadable(node.place, path, &reason(&error)),
            Ok(bytes) => {
                let parsed = discovered::parse(&String::from_utf8_lossy(&bytes), format);
                let Err(why) = parsed else { return };
                Finding::error(node.place, format!("{}: {why}", path.display()))
                    .label("this file has a mistake")
            }
        },
    };
    table.cx.error(finding);
}

pub(super) fn resolve(parent: &Table<'_>, members: &Members) -> Resolve {
    const FAMILIES: [Family; 3] = [Family::Auto, Family::Ipv4, Family::Ipv6];
    let standard = Resolve {
        servers: Vec::new(),
        every: defaults::RESOLVE_EVERY,
        family: Family::Auto,
    };
    let Some(table) = parent.table("resolve") else {
        return standard;
    };
    if !members.names() {
        parent.no_effect(
            "resolve",
            "no endpoint is a name",
            "delete it, or write an endpoint as \"app.internal:8080\"",
        );
    }
    Resolve {
        servers: rules::strings(&table, "servers", text::dns_server),
        every: table.duration_or("every", standard.every),
        family: table.choice("family", &FAMILIES, standard.family),
    }
}
