//! Everything that is compiled from one configuration.
//!
//! A request takes the snapshot once and keeps it to its end, so that it sees
//! one configuration and not two. What must outlive a reload (connections,
//! health, counters, stored pages) is shared between the old snapshot and the
//! new one by `Arc`.

use std::sync::Arc;

use cache::Flights;
use static_server::Site;

use crate::carry::Twins;
use crate::exchange::route::Router;
use crate::filter::Chain;
use crate::listen::ListenerState;
use crate::observe::{AccessLog, Table};
use crate::upstreams::Upstream;

/// See the module's text.
pub(crate) struct Snapshot {
    /// As loaded.
    pub(crate) config: conf::Config,
    /// Picks a route.
    pub(crate) router: Router,
    /// Routes in file order; what the router's answers index.
    pub(crate) routes: Vec<Route>,
    /// Upstreams in file order.
    pub(crate) upstreams: Vec<Arc<Upstream>>,
    /// Listeners in file order.
    pub(crate) listeners: Vec<Arc<ListenerState>>,
    /// Counters and names by the places above.
    pub(crate) table: Arc<Table>,
    /// Where requests are written, if anywhere.
    pub(crate) access: Option<Arc<AccessLog>>,
    /// Stored responses.
    pub(crate) cache: Arc<Cache>,
}

/// The shared response store and what is being fetched into it.
pub(crate) struct Cache {
    pub(crate) store: cache::Store,
    pub(crate) flights: Flights,
    /// Copies of stored bodies that the kernel sends by itself.
    pub(crate) twins: Arc<Twins>,
    /// What it was made with; another size makes another store.
    pub(crate) settings: conf::CacheStore,
}

impl Cache {
    pub(crate) fn new(settings: conf::CacheStore) -> Self {
        Self {
            store: cache::Store::new(settings.memory),
            flights: Flights::new(cache::flight::Limits {
                max_buffered: settings.memory,
                ..cache::flight::Limits::default()
            }),
            twins: Arc::new(Twins::new(settings.memory)),
            settings,
        }
    }
}

/// One `[[route]]`.
pub(crate) struct Route {
    pub(crate) name: String,
    pub(crate) chain: Chain,
    pub(crate) action: Action,
    /// Bytes of a request body; `None`: the listener's limit.
    pub(crate) max_body_size: Option<u64>,
}

/// What a route does.
pub(crate) enum Action {
    Static {
        site: Arc<Site>,
        strip_prefix: Option<String>,
    },
    Redirect(crate::filter::Redirection),
    Respond(crate::filter::Reply),
    Upstream {
        place: u16,
        upstream: Arc<Upstream>,
        /// Whether and how replies are stored.
        cache: Option<cache::Policy>,
    },
}
