//! What the admin server sees of the running edge.

use std::sync::Arc;

use arc_swap::ArcSwap;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::admin::{ListenerAddress, PurgeOutcome, PurgeTarget, Readiness, State};
use crate::carry;
use crate::clock;
use crate::control::LastReload;
use crate::exchange::normalise::normalise_path;
use crate::exchange::spelled;
use crate::observe::Metrics;
use crate::observe::metrics::CacheState;
use crate::snapshot::{Action, Snapshot};

/// See the module's text.
pub(crate) struct AdminState {
    pub(crate) snapshot: Arc<ArcSwap<Snapshot>>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) draining: watch::Receiver<bool>,
    pub(crate) last_reload: Arc<LastReload>,
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
        })
    }

    fn upstreams(&self) -> Value {
        let snapshot = self.snapshot.load();
        let now = clock::now();
        snapshot
            .upstreams
            .iter()
            .map(|upstream| {
                let endpoints: Vec<Value> = upstream
                    .pool
                    .status(now)
                    .iter()
                    .map(|endpoint| {
                        json!({
                            "name": endpoint.name,
                            "address": endpoint.address.to_string(),
                            "weight": endpoint.weight,
                            "backup": endpoint.backup,
                            "health": endpoint.health.as_str(),
                            "ejected_for_seconds": endpoint.ejected_for.map(|d| d.as_secs_f64()),
                            "since_transition_seconds": endpoint.since_transition.map(|d| d.as_secs_f64()),
                            "active_requests": endpoint.active,
                            "consecutive_errors": endpoint.consecutive_errors,
                            "consecutive_failed_checks": endpoint.consecutive_failed_checks,
                        })
                    })
                    .collect();
                json!({ "name": upstream.name(), "endpoints": endpoints })
            })
            .collect()
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

    fn token(&self) -> Option<conf::Secret> {
        self.snapshot.load().config.admin.as_ref()?.token.clone()
    }

    fn purge(&self, target: &PurgeTarget) -> PurgeOutcome {
        let snapshot = self.snapshot.load();
        let merge = snapshot.config.server.merge_slashes;
        let Ok(path) = normalise_path(&target.path, merge) else {
            return PurgeOutcome::NotStored;
        };
        let mut purged = false;
        for upstream in &snapshot.upstreams {
            let scheme = target.scheme.as_str();
            let query = target.query.as_deref();
            let tls = target.scheme == crate::admin::Scheme::Https;
            let host = spelled(&target.host, target.port, tls);
            let key = carry::key_of(scheme, &host, &path, query, upstream);
            purged |= snapshot
                .cache
                .flights
                .purge(&snapshot.cache.store, key.as_key());
        }
        if purged {
            self.metrics.cache().purged();
            PurgeOutcome::Purged
        } else {
            PurgeOutcome::NotStored
        }
    }
}

impl AdminState {
    /// Gauges are read where they live when somebody asks.
    fn bring_up_to_date(&self) {
        let snapshot = self.snapshot.load();
        snapshot.cache.store.maintain();
        let figures = snapshot.cache.store.figures();
        self.metrics.cache().set(CacheState {
            bytes: figures.bytes,
            limit: snapshot.cache.settings.memory,
            entries: figures.entries,
            evictions: figures.evictions,
        });
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
