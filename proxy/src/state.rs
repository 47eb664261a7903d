//! What the admin server sees of the running edge.

mod cache;
pub(crate) mod certificates;
mod upstreams;

use std::sync::Arc;

use arc_swap::ArcSwap;
use http::HeaderMap;
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;

use crate::acme::Orders;
use crate::admin::{Asked, ListenerAddress, OrderAsked, Readiness, State};
use crate::carry;
use crate::clock;
use crate::control::LastReload;
use crate::exchange::purging::{Purge, Url};
use crate::observe::Metrics;
use crate::observe::metrics::CacheState;
use crate::snapshot::{Action, Snapshot};
use crate::upstreams::Upstream;

/// See the module's text.
pub(crate) struct AdminState {
    pub(crate) snapshot: Arc<ArcSwap<Snapshot>>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) orders: Arc<Orders>,
    pub(crate) draining: watch::Receiver<bool>,
    pub(crate) last_reload: Arc<LastReload>,
    pub(crate) last_upgrade: Arc<LastReload>,
    /// Told when somebody changed an endpoint by hand.
    pub(crate) changed: UnboundedSender<()>,
}

impl State for AdminState {
    fn metrics_text(&self) -> String {
        self.bring_up_to_date();
        self.metrics.render()
    }

    fn live(&self) -> bool {
        true
    }

    fn ready(&self) -> Readiness {
        let draining = *self.draining.borrow();
        let snapshot = self.snapshot.load();
        Readiness {
            ok: !draining,
            detail: if draining { "draining" } else { "serving" },
            listeners: snapshot
                .listeners
                .iter()
                // A connection to one that passes all on would be one to its upstream.
                .filter(|listener| {
                    let settings = listener.settings.load();
                    settings
                        .forward
                        .as_ref()
                        .is_none_or(|forward| forward.peeks())
                })
                .map(|listener| ListenerAddress {
                    name: listener.settings.load().name.clone(),
                    address: listener.address,
                })
                .collect(),
        }
    }

    fn config(&self) -> Value {
        let snapshot = self.snapshot.load();
        json!({
            "hash": format!("{:016x}", snapshot.config.hash),
            "last_reload": self.last_reload.to_json(),
            "last_upgrade": self.last_upgrade.to_json(),
        })
    }

    fn maintenance(&self) -> Value {
        let snapshot = self.snapshot.load();
        let Some(maintenance) = &snapshot.maintenance else {
            return json!({ "on": null, "file": null, "trouble": null });
        };
        let switch = maintenance.switch();
        switch.look();
        json!({
            "on": switch.is_on(),
            "file": switch.file().to_string_lossy(),
            "trouble": switch.trouble(),
        })
    }

    fn overload(&self) -> Value {
        let standing = self.metrics.load().standing();
        let [sheddable, normal] = standing.shed;
        json!({
            "level": standing.level.as_str(),
            "memory_bytes": standing.signs.memory,
            "lag_ms": u64::try_from(standing.signs.lag.as_millis()).unwrap_or(u64::MAX),
            "shed": { "sheddable": sheddable, "normal": normal },
        })
    }

    fn upstreams(&self) -> Value {
        let snapshot = self.snapshot.load();
        let now = clock::now();
        snapshot
            .upstreams
            .iter()
            .map(|upstream| upstreams::overview(upstream, now))
            .collect()
    }

    fn change(&self, asked: &Asked) -> Result<Value, String> {
        let snapshot = self.snapshot.load();
        let named = |upstream: &&Arc<Upstream>| upstream.name() == asked.upstream;
        let Some(upstream) = snapshot.upstreams.iter().find(named) else {
            let there: Vec<&str> = snapshot.upstreams.iter().map(|one| one.name()).collect();
            return Err(format!(
                "there is no upstream {:?}; there are {}",
                asked.upstream,
                there.join(", ")
            ));
        };
        upstream.change(&asked.endpoint, asked.change)?;
        // The process is ending if nobody hears it.
        let _ = self.changed.send(());
        Ok(upstreams::overview(upstream, clock::now()))
    }

    fn routes(&self) -> Value {
        let snapshot = self.snapshot.load();
        snapshot
            .config
            .routes
            .iter()
            .zip(&snapshot.routes)
            .map(|(settings, route)| {
                json!({
                    "name": route.name,
                    "match": described(&settings.matcher, &snapshot.config),
                    "action": action(&route.action),
                    "cached": matches!(route.action, Action::Upstream { cache: Some(_), .. }),
                    "filters": settings
                        .filters
                        .iter()
                        .map(|filter| snapshot.config.filters[filter.0].name.as_str())
                        .collect::<Vec<_>>(),
                })
            })
            .collect()
    }

    fn certificates(&self) -> Value {
        let snapshot = self.snapshot.load();
        let certificates = snapshot.certificates.as_deref();
        certificates::overview(certificates, &snapshot.managed, clock::wall())
    }

    fn order(&self, asked: &OrderAsked) -> Result<Value, String> {
        certificates::order(&self.snapshot.load(), asked, clock::wall())
    }

    fn token(&self) -> Option<conf::Secret> {
        self.snapshot.load().config.admin.as_ref()?.token.clone()
    }

    fn cache(&self) -> Value {
        cache::overview(&self.snapshot.load())
    }

    fn inspect(&self, url: &Url, fields: &HeaderMap) -> Value {
        cache::inspect(&self.snapshot.load(), url, fields, clock::wall())
    }

    fn purge(&self, purge: &Purge) -> u64 {
        let snapshot = self.snapshot.load();
        let objects = carry::purge::carry_out(&snapshot, purge, clock::wall());
        if objects > 0 && !purge.dry_run {
            snapshot.cache.counts.purged();
        }
        objects
    }
}

impl AdminState {
    /// Gauges are read where they live when somebody asks.
    fn bring_up_to_date(&self) {
        let snapshot = self.snapshot.load();
        let maintenance = snapshot.maintenance.as_ref();
        self.metrics
            .closed(maintenance.is_some_and(|it| it.switch().is_on()));
        let certificates = certificates::state(&snapshot, &self.orders);
        self.metrics.set_certificates(certificates);
        snapshot.cache.store.maintain();
        let figures = snapshot.cache.store.figures();
        self.metrics.cache().set(CacheState {
            bytes: figures.bytes,
            limit: snapshot.cache.memory,
            entries: figures.entries,
            evictions: figures.evictions,
            tags: snapshot.cache.store.tags().top(0).1 as u64,
            disk: snapshot
                .cache
                .store
                .disk()
                .map(::cache::disk::Disk::figures),
        });
        let sites = snapshot.config.statics.iter().zip(&snapshot.sites);
        let images = sites.filter_map(|(of, site)| Some((of.name.clone(), site.images()?)));
        self.metrics.set_images(images.collect());
        let now = clock::now();
        for upstream in &snapshot.upstreams {
            upstream.show(now);
        }
    }
}

fn action(action: &Action) -> Value {
    match action {
        Action::Static { .. } => json!("static"),
        Action::Redirect(_) => json!("redirect"),
        Action::Respond(reply) => json!({ "respond": reply.status.as_u16() }),
        Action::Upstream { upstream, .. } => json!({ "upstream": upstream.name() }),
    }
}

fn described(matcher: &conf::Match, config: &conf::Config) -> Value {
    let hosts: Vec<String> = matcher
        .hosts
        .iter()
        .map(|host| match host {
            conf::HostPattern::Exact(name) => name.clone(),
            conf::HostPattern::Suffix(suffix) => format!("*{suffix}"),
        })
        .collect();
    let path = match &matcher.path {
        conf::PathPattern::Any => Value::Null,
        conf::PathPattern::Exact(path) => json!({ "path": path }),
        conf::PathPattern::Prefix(prefix) => json!({ "path_prefix": prefix }),
        conf::PathPattern::Regex(regex) => json!({ "path_regex": regex.as_str() }),
    };
    json!({
        "listener": matcher
            .listeners
            .iter()
            .map(|listener| config.listeners[listener.0].name.as_str())
            .collect::<Vec<_>>(),
        "host": hosts,
        "path": path,
        "method": matcher.methods.iter().map(http::Method::as_str).collect::<Vec<_>>(),
        "headers": matcher.headers.iter().map(|field| field.name.as_str()).collect::<Vec<_>>(),
        "query": matcher.query.iter().map(|field| field.name.as_str()).collect::<Vec<_>>(),
    })
}
