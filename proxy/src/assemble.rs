//! Configuration to snapshot: the one place where the words of the file become
//! the types of the leaves.
//!
//! It does what can fail (reading certificates, opening roots, resolving
//! names) before anything of the running state is touched, so that a reload is
//! all or nothing.

mod pages;
mod quic;
mod tls;

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use cache::{Coding, Normal, Pattern, QueryRules};
use serde_json::Value;
use static_server::images::ImageSettings;
use static_server::images::choice::Format;
use static_server::{Encoding, Immutable, Releases, Site, SiteSettings};

use self::pages::PageError;
use crate::acme::{AcmeError, Managed, Orders};
use crate::carry::Forward;
use crate::exchange::caching::Caching;
use crate::exchange::hints::Hints;
use crate::exchange::normalise::canonical;
use crate::exchange::route::Router;
use crate::filter::{Chain, FixedReply, Redirection};
use crate::listen::{self, Certificates, ListenerSettings, ListenerState, Tickets, TlsError};
use crate::observe::{AccessLog, Metrics, Names, Table};
use crate::snapshot::{Action, Cache, Route, Snapshot};
use crate::upstreams::{self, Making, Upstream, UpstreamError};
use crate::{clock, state};

/// Why a configuration that is right in itself cannot run on this machine.
#[derive(Debug, thiserror::Error)]
pub enum AssembleError {
    /// A certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A certificate that is obtained by itself.
    #[error(transparent)]
    Acme(#[from] AcmeError),
    /// An upstream.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// A static site's directory.
    #[error("static {name:?}: {source}")]
    Site {
        /// The site.
        name: String,
        /// What is wrong.
        #[source]
        source: static_server::SiteError,
    },
    /// A page that stands in for an error.
    #[error(transparent)]
    Page(#[from] PageError),
    /// The folder of the cache's disk tier.
    #[error("[cache] disk: {0}")]
    Disk(#[from] cache::disk::OpenError),
    /// The folder of the cache's disk tier is there and cannot be read.
    #[error("[cache] disk: {}: {source}", path.display())]
    DiskFolder {
        /// As configured.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The access log's file.
    #[error("cannot open the access log {}: {source}", path.display())]
    AccessLog {
        /// As configured.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
}

/// What does not come from the file.
#[derive(Clone)]
pub(crate) struct Surroundings {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) tickets: Tickets,
    pub(crate) workers: usize,
    /// Challenges that are pending, and orders.
    pub(crate) orders: Arc<Orders>,
    /// For sticky cookies without a configured secret; lives as long as the process.
    pub(crate) cookie_key: [u8; 32],
    /// Another process still has what only one may have: the folder of the cache's disk tier. It is
    /// opened later.
    pub(crate) is_taking_over: bool,
}

/// A snapshot that is not in force yet.
pub(crate) struct Assembled {
    pub(crate) snapshot: Snapshot,
    /// New settings, by place; they are put in force together with the snapshot.
    pub(crate) listeners: Vec<ListenerSettings>,
}

/// Whether what `config` names is there and usable, without building anything.
///
/// # Errors
/// The first thing that is missing or broken.
pub(crate) fn verify(config: &conf::Config) -> Result<(), AssembleError> {
    if let Some(tls) = &config.tls {
        Certificates::load(
            &tls.certificates,
            Vec::new(),
            Arc::default(),
            tls.ocsp_stapling,
        )?;
        for listener in config.listeners.iter().filter(|listener| listener.tls) {
            listen::verify_tls(tls, &listener.tls_options)?;
        }
        for settings in &tls.acme {
            Managed::verify(settings)?;
        }
    }
    for upstream in &config.upstreams {
        upstreams::verify(upstream)?;
    }
    for settings in &config.statics {
        site(settings)?;
    }
    pages::all(config)?;
    if let Some(page) = config
        .server
        .maintenance
        .iter()
        .find_map(|it| it.page.as_ref())
    {
        pages::page(page)?;
    }
    if let Some(disk) = &config.cache.disk {
        cache::disk::Disk::check(&disk.path).map_err(|source| AssembleError::DiskFolder {
            path: disk.path.clone(),
            source,
        })?;
    }
    Ok(())
}

/// Certificates as they lie on the disk, for who asks without a running edge: see
/// [`crate::state::certificates::overview`].
///
/// # Errors
/// The first that cannot be read.
pub(crate) fn certificates_on_disk(config: &conf::Config) -> Result<Value, AssembleError> {
    let Some(tls) = &config.tls else {
        return Ok(Value::Array(Vec::new()));
    };
    let files = Certificates::load(
        &tls.certificates,
        Vec::new(),
        Arc::default(),
        tls.ocsp_stapling,
    )?;
    let managed = tls.acme.iter().map(|settings| {
        let read = Managed::read(settings).map(Arc::new)?;
        read.due();
        Ok(read)
    });
    let managed = managed.collect::<Result<Vec<_>, AcmeError>>()?;
    let now = clock::wall();
    Ok(state::certificates::overview(Some(&files), &managed, now))
}

/// Builds what `config` describes. `previous` is what is running.
///
/// # Errors
/// The first thing that is missing or broken.
pub(crate) fn assemble(
    config: conf::Config,
    surroundings: &Surroundings,
    previous: Option<&Snapshot>,
) -> Result<Assembled, AssembleError> {
    let managed = tls::managed(&config, previous)?;
    conf::give_way();
    let certificates = tls::certificates(&config, surroundings, previous, &managed)?;
    conf::give_way();
    let tls = tls::of_listeners(&config, surroundings, certificates.as_ref())?;
    conf::give_way();
    let quic = quic::listeners(&config, &tls, previous)?;
    conf::give_way();
    let table = Arc::new(surroundings.metrics.table(names(&config)));
    let upstreams = upstreams(&config, surroundings, previous, &table)?;
    conf::give_way();
    let sites = config
        .statics
        .iter()
        .map(|settings| match kept_site(settings, previous) {
            Some(site) => Ok(site),
            None => site(settings).map(Arc::new),
        })
        .collect::<Result<Vec<_>, _>>()?;
    let access = access_log(&config, surroundings, previous)?;
    let pages = pages::all(&config)?;
    let pages_of = |id: Option<conf::ErrorPagesId>| pages.get(id?.0).cloned();
    conf::give_way();
    let routes: Vec<Route> = config
        .routes
        .iter()
        .map(|settings| Route {
            pages: pages_of(settings.error_pages),
            hints: hints(settings, previous),
            ..route(&config, settings, &upstreams, &sites)
        })
        .collect();
    let settings: Vec<ListenerSettings> = config
        .listeners
        .iter()
        .zip(tls.into_iter().zip(quic))
        .zip(0_u16..)
        .filter_map(|((listener, (tls, quic)), place)| {
            Some(ListenerSettings {
                name: listener.name.clone(),
                place,
                // There is one for each name that the table was made with.
                metrics: table.listener(place)?.clone(),
                tls,
                h1: listener.h1,
                h2: listener.h2,
                quic,
                alt_svc: listener.h3.as_ref().and_then(|h3| h3.alt_svc.clone()),
                announced: listener.proxy_protocol.clone(),
                forward: listener
                    .forward
                    .as_ref()
                    .map(|forward| Arc::new(Forward::new(forward, &upstreams))),
                access_log: listener.access_log,
                limits: listener.limits.clone(),
            })
        })
        .collect();
    conf::give_way();
    let before = previous.and_then(|snapshot| snapshot.maintenance.as_deref());
    let maintenance = pages::closed(&config, before)?;
    let load = surroundings.metrics.load().clone();
    let mut router = Router::new(&config.routes)
        .before_all(surroundings.orders.challenges.pages())
        .shed_by(load.shedding(), &config.routes);
    if let Some(maintenance) = &maintenance {
        router = router.closed_by(maintenance.switch(), &config.routes);
    }
    let caches = |route: &Route| matches!(route.action, Action::Upstream { cache: Some(_), .. });
    Ok(Assembled {
        snapshot: Snapshot {
            router,
            caches: routes.iter().any(caches),
            routes,
            upstreams,
            sites,
            certificates,
            managed,
            listeners: Vec::new(),
            table,
            access,
            cache: cache(&config, surroundings, previous)?,
            pages: pages_of(config.server.error_pages),
            maintenance: maintenance.map(Arc::new),
            load,
            config,
        },
        listeners: settings,
    })
}

fn upstreams(
    config: &conf::Config,
    surroundings: &Surroundings,
    previous: Option<&Snapshot>,
    table: &Table,
) -> Result<Vec<Arc<Upstream>>, UpstreamError> {
    config
        .upstreams
        .iter()
        .zip(0_u16..)
        .map(|(settings, place)| {
            let before = previous.and_then(|snapshot| {
                snapshot
                    .upstreams
                    .iter()
                    .find(|upstream| upstream.name() == settings.name)
            });
            // There is one for each name that the table was made with.
            let Some(metrics) = table.upstream(place).cloned() else {
                return Ok(None);
            };
            let making = Making {
                previous: before.map(AsRef::as_ref),
                workers: surroundings.workers,
                own_zone: config.server.zone.as_deref(),
                cookie_key: &surroundings.cookie_key,
                metrics,
            };
            Upstream::new(settings, &making).map(Arc::new).map(Some)
        })
        .filter_map(Result::transpose)
        .collect()
}

/// A site that did not change keeps what it has in memory.
fn kept_site(settings: &conf::StaticSite, previous: Option<&Snapshot>) -> Option<Arc<Site>> {
    let previous = previous?;
    let mut before = previous.config.statics.iter().zip(&previous.sites);
    before
        .find(|(before, _)| *before == settings)
        .map(|(_, site)| Arc::clone(site))
}

fn site(settings: &conf::StaticSite) -> Result<Site, AssembleError> {
    let precompressed = settings
        .precompressed
        .iter()
        .map(|encoding| match encoding {
            conf::Precompressed::Brotli => Encoding::Brotli,
            conf::Precompressed::Zstd => Encoding::Zstd,
            conf::Precompressed::Gzip => Encoding::Gzip,
        })
        .collect();
    Site::new(SiteSettings {
        root: settings.root.clone(),
        index: settings.index.clone(),
        listing: settings.listing,
        fallback: settings.fallback.clone(),
        precompressed,
        cache_control: Some(settings.cache_control.clone()),
        immutable: settings.immutable.as_ref().map(|immutable| Immutable {
            cache_control: immutable.cache_control.clone(),
            patterns: immutable.paths.clone(),
        }),
        releases: settings.releases.as_ref().map(|releases| Releases {
            keep: usize::try_from(releases.keep.get()).unwrap_or(usize::MAX),
            folder: releases.folder.clone(),
        }),
        images: settings
            .images
            .as_ref()
            .map(|images| self::images(images, &settings.name)),
        dictionaries: settings.dictionaries,
        memory: settings.memory,
        max_memory_file: settings.max_memory_file,
    })
    .map_err(|source| AssembleError::Site {
        name: settings.name.clone(),
        source,
    })
}

fn images(settings: &conf::Images, site: &str) -> ImageSettings {
    let formats = settings.formats.iter().map(|format| match format {
        conf::ImageFormat::Avif => Format::Avif,
        conf::ImageFormat::WebP => Format::WebP,
    });
    let half = || std::thread::available_parallelism().map_or(1, |all| all.get() / 2);
    let workers = match settings.workers {
        Some(workers) => usize::try_from(workers.get()).unwrap_or(1),
        None => half(),
    };
    ImageSettings {
        formats: formats.collect(),
        widths: settings.widths.iter().map(|width| width.get()).collect(),
        cache: settings.cache.join(site),
        size: settings.size,
        quality: settings.quality,
        workers: NonZeroUsize::new(workers).unwrap_or(NonZeroUsize::MIN),
        max_pixels: u64::from(settings.max_megapixels.get()) * 1_000_000,
    }
}

/// The log goes on where its settings did not change: nothing queued is lost.
fn access_log(
    config: &conf::Config,
    surroundings: &Surroundings,
    previous: Option<&Snapshot>,
) -> Result<Option<Arc<AccessLog>>, AssembleError> {
    let Some(settings) = &config.log.access else {
        return Ok(None);
    };
    if let Some(previous) = previous
        && previous.config.log.access.as_ref() == Some(settings)
    {
        return Ok(previous.access.clone());
    }
    let counts = surroundings.metrics.access_log();
    AccessLog::open(settings, surroundings.workers, counts)
        .map(|log| Some(Arc::new(log)))
        .map_err(|source| AssembleError::AccessLog {
            path: settings.path.clone(),
            source,
        })
}

fn route(
    config: &conf::Config,
    settings: &conf::Route,
    upstreams: &[Arc<Upstream>],
    sites: &[Arc<Site>],
) -> Route {
    let filters: Vec<&conf::Filter> = settings
        .filters
        .iter()
        .map(|filter| &config.filters[filter.0])
        .collect();
    let action = match &settings.action {
        conf::Action::Upstream(id) => Action::Upstream {
            place: u16::try_from(id.0).unwrap_or(u16::MAX),
            upstream: upstreams[id.0].clone(),
            cache: settings.cache.as_ref().map(|cache| {
                let sets_host = |filter: &&conf::Filter| {
                    let mut set = filter.request_headers.set.iter();
                    set.any(|(name, _)| *name == http::header::HOST)
                };
                Arc::new(Caching {
                    rewrites: filters.iter().any(|filter| filter.rewrite.is_some()),
                    sets_host: filters.iter().any(sets_host),
                    ..caching(cache, &config.cache, &upstreams[id.0])
                })
            }),
        },
        conf::Action::Static { site, strip_prefix } => Action::Static {
            site: sites[site.0].clone(),
            // In the spelling that normalised paths have.
            strip_prefix: strip_prefix.as_deref().map(canonical),
        },
        conf::Action::Redirect(redirect) => Action::Redirect(Redirection::new(redirect)),
        conf::Action::Respond(respond) => Action::Respond(FixedReply::new(respond).reply()),
    };
    Route {
        name: settings.name.clone(),
        chain: Chain::new(&filters, config.server.merge_slashes),
        action,
        pages: None,
        hints: None,
        max_body_size: settings.max_body_size,
        retry_non_idempotent: settings.retry_non_idempotent,
        grpc_web: settings.grpc_web,
    }
}

/// What was learned for a route goes on under its name.
fn hints(settings: &conf::Route, previous: Option<&Snapshot>) -> Option<Hints> {
    let hints = settings.early_hints.as_ref()?;
    let known = previous.and_then(|snapshot| {
        let mut routes = snapshot.routes.iter();
        routes.find(|route| route.name == settings.name)
    });
    let learned = known.and_then(|route| route.hints.as_ref()?.learned().cloned());
    Some(Hints::new(hints, learned))
}

fn caching(settings: &conf::RouteCache, store: &conf::CacheStore, upstream: &Upstream) -> Caching {
    let session_cookies = match settings.share_sessions {
        true => Vec::new(),
        false => store.session_cookies.clone(),
    };
    Caching {
        policy: cache::Policy {
            ttl: settings.ttl,
            stale_while_revalidate: settings.stale_while_revalidate,
            stale_if_error: settings.stale_if_error,
            max_object_size: store.max_object_size,
            vary: settings.vary.clone(),
            tags: store.tags.clone(),
            share_authorized: settings.share_authorized,
            session_cookies,
        },
        offline: match settings.offline {
            conf::Offline::Fail => false,
            conf::Offline::ServeStale => true,
        },
        early_refresh: settings.early_refresh,
        collapse_timeout: settings
            .collapse_timeout
            .unwrap_or(upstream.settings().first_byte_timeout),
        background_timeout: settings.background_timeout,
        hit_for_miss: settings.hit_for_miss,
        min_uses: u8::try_from(settings.min_uses.get()).unwrap_or(u8::MAX),
        normal: normal(settings),
        compress: settings.compress.iter().map(coding).collect(),
        query: query(settings),
        key_headers: settings.key_headers.clone(),
        key_cookies: settings.key_cookies.clone(),
        // Who knows the filters of the route says so.
        rewrites: false,
        sets_host: false,
        sessions: store.session_cookies.clone(),
        compare_sessions: settings.compare_sessions,
        show_key: settings.show_key,
    }
}

fn coding(coding: &conf::ContentCoding) -> Coding {
    match coding {
        conf::ContentCoding::Brotli => Coding::Brotli,
        conf::ContentCoding::Zstd => Coding::Zstd,
        conf::ContentCoding::Gzip => Coding::Gzip,
    }
}

/// What is compressed here comes from the origin as it is.
fn normal(settings: &conf::RouteCache) -> Normal {
    let mut normal = Normal::default();
    if !settings.compress.is_empty() {
        normal = normal.without([http::header::ACCEPT_ENCODING]);
    }
    let encodings = settings.accept_encoding.iter().map(coding);
    let encodings: Vec<&str> = encodings.map(Coding::as_str).collect();
    let languages = settings.accept_language.iter().map(String::as_str);
    // The configuration's own checks are no weaker.
    if !encodings.is_empty() {
        normal = normal.clone().with_encodings(encodings).unwrap_or(normal);
    }
    if !settings.accept_language.is_empty() {
        normal = normal.clone().with_languages(languages).unwrap_or(normal);
    }
    normal
}

fn query(settings: &conf::RouteCache) -> QueryRules {
    let drop = settings.drop_query.iter().map(|pattern| match pattern {
        conf::QueryPattern::Exact(name) => Pattern::Exact(name.clone()),
        conf::QueryPattern::Prefix(start) => Pattern::Prefix(start.clone()),
    });
    QueryRules {
        sort: settings.sort_query,
        keep: (!settings.keep_query.is_empty()).then(|| settings.keep_query.clone()),
        drop: drop.collect(),
    }
}

/// Stored pages survive a reload unless the store's own settings changed.
fn cache(
    config: &conf::Config,
    surroundings: &Surroundings,
    previous: Option<&Snapshot>,
) -> Result<Arc<Cache>, AssembleError> {
    if let Some(previous) = previous
        && previous.cache.memory == config.cache.memory
        && previous.cache.disk == config.cache.disk
    {
        return Ok(previous.cache.clone());
    }
    let counts = surroundings.metrics.cache().counts();
    let settings = match surroundings.is_taking_over {
        false => config.cache.clone(),
        true => conf::CacheStore {
            disk: None,
            ..config.cache.clone()
        },
    };
    Ok(Arc::new(Cache::new(&settings, counts)?))
}

fn names(config: &conf::Config) -> Names {
    Names {
        listeners: config.listeners.iter().map(|l| l.name.clone()).collect(),
        routes: config.routes.iter().map(|r| r.name.clone()).collect(),
        upstreams: config
            .upstreams
            .iter()
            .map(|upstream| upstream.name.clone())
            .collect(),
    }
}

/// The listener state of `address`, if it is being listened on.
pub(crate) fn listening(
    snapshot: Option<&Snapshot>,
    address: SocketAddr,
) -> Option<&Arc<ListenerState>> {
    snapshot?
        .listeners
        .iter()
        .find(|listener| listener.address == address)
}
