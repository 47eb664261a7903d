//! Everything that is compiled from one configuration.
//!
//! A request takes the snapshot once and keeps it to its end, so that it sees
//! one configuration and not two. What must outlive a reload (connections,
//! health, counters, stored pages) is shared between the old snapshot and the
//! new one by `Arc`.

use std::sync::Arc;

use cache::Flights;
use http::StatusCode;
use static_server::Site;

use crate::acme::Managed;
use crate::carry::Twins;
use crate::exchange::caching::Caching;
use crate::exchange::hints::Hints;
use crate::exchange::maintenance::Maintenance;
use crate::exchange::pages::Pages;
use crate::exchange::route::Router;
use crate::filter::Chain;
use crate::listen::{Certificates, ListenerState};
use crate::observe::{AccessLog, CacheCounts, Table};
use crate::overload::Load;
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
    /// In the order of the file.
    pub(crate) sites: Vec<Arc<Site>>,
    /// What handshakes choose from, where there is TLS.
    pub(crate) certificates: Option<Arc<Certificates>>,
    /// Certificates that are obtained by themselves, in file order.
    pub(crate) managed: Vec<Arc<Managed>>,
    /// Listeners in file order.
    pub(crate) listeners: Vec<Arc<ListenerState>>,
    /// Counters and names by the places above.
    pub(crate) table: Arc<Table>,
    /// Where requests are written, if anywhere.
    pub(crate) access: Option<Arc<AccessLog>>,
    /// Stored responses.
    pub(crate) cache: Arc<Cache>,
    /// A route caches: what is stored may be made untrue by a request on any other.
    pub(crate) caches: bool,
    /// Pages for the errors of requests that have no route.
    pub(crate) pages: Option<Arc<Pages>>,
    /// How overloaded the process is; the router knows what that means for a route.
    pub(crate) load: Arc<Load>,
    /// How the site is closed; the router knows whether it is.
    pub(crate) maintenance: Option<Arc<Maintenance>>,
}

/// Pages that are read from the disk at once.
const READERS: usize = 32;

/// Pages that are compressed at once: the threads for it read files, too.
const COMPRESSIONS: usize = 2;

/// The shared response store and what is being fetched into it.
pub(crate) struct Cache {
    pub(crate) store: cache::Store,
    pub(crate) flights: Flights,
    /// How often pages were asked for, where that decides whether they are stored.
    pub(crate) uses: cache::Uses,
    /// Copies of stored bodies that the kernel sends by itself.
    pub(crate) twins: Twins,
    /// Turns to compress a page.
    pub(crate) compressing: tokio::sync::Semaphore,
    /// Held while a page is fetched to compare it for sessions.
    pub(crate) comparing: tokio::sync::Mutex<()>,
    /// What was not stored, and sessions compared.
    pub(crate) counts: Arc<CacheCounts>,
    /// Turns to read a page from the disk, by key: many clients for one page read it once.
    pub(crate) reading: Vec<tokio::sync::Mutex<()>>,
    /// Bytes of memory that it was made with; another size makes another store.
    pub(crate) memory: u64,
    /// The disk that it was made with.
    pub(crate) disk: Option<conf::CacheDisk>,
}

impl Cache {
    /// A store of these settings.
    ///
    /// # Errors
    /// The disk tier's folder cannot be had.
    pub(crate) fn new(
        settings: &conf::CacheStore,
        counts: Arc<CacheCounts>,
    ) -> Result<Self, cache::disk::OpenError> {
        let mut store = cache::Store::new(settings.memory);
        if let Some(disk) = &settings.disk {
            store = store.with_disk(&cache::disk::Settings {
                folder: disk.path.clone(),
                size: disk.size,
            })?;
        }
        let limits = cache::flight::Limits {
            max_buffered: settings.memory,
            ..cache::flight::Limits::default()
        };
        Ok(Self {
            flights: Flights::new(limits, store.tags().clone()),
            store,
            uses: cache::Uses::default(),
            twins: Twins::new(settings.memory),
            compressing: tokio::sync::Semaphore::new(COMPRESSIONS),
            comparing: tokio::sync::Mutex::default(),
            counts,
            disk: settings.disk.clone(),
            reading: (0..READERS)
                .map(|_| tokio::sync::Mutex::default())
                .collect(),
            memory: settings.memory,
        })
    }
}

/// One `[[route]]`.
pub(crate) struct Route {
    pub(crate) name: String,
    pub(crate) chain: Chain,
    pub(crate) action: Action,
    /// Pages for its errors.
    pub(crate) pages: Option<Arc<Pages>>,
    /// What browsers are told before the app is asked.
    pub(crate) hints: Option<Hints>,
    /// Bytes of a request body; `None`: the listener's limit.
    pub(crate) max_body_size: Option<u64>,
    /// Whether a request whose method is not idempotent may be sent again.
    pub(crate) retry_non_idempotent: bool,
    /// Whether gRPC-Web is turned into gRPC.
    pub(crate) grpc_web: bool,
}

impl Route {
    /// Whether a page may take the place of an app's reply with this status.
    pub(crate) fn may_cover(&self, status: StatusCode) -> bool {
        let pages = self.pages.as_ref();
        pages.is_some_and(|pages| pages.may_cover(status))
    }

    /// Most octets of a request's body that came in by a listener with these limits.
    pub(crate) fn most_body(&self, limits: &conf::Limits) -> u64 {
        self.max_body_size.unwrap_or(limits.max_body_size)
    }
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
        cache: Option<Arc<Caching>>,
    },
}
