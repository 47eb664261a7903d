//! Start, reload and end of the process.
//!
//! Everything that can fail at a start fails before the first worker runs.
//! After that one service beside the workers listens for signals, loads new
//! configurations, runs health checks and the admin server, and ends the
//! process once the last request is done.

mod closing;
mod drain;
mod last_reload;
mod owned;
mod reload;
mod restart;
mod sockets;
mod tick;
mod upgrade;

pub(crate) use last_reload::LastReload;

use std::io;
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use pingora::server::configuration::ServerConf;
use pingora::server::{
    ListenFds, RunArgs, Server, ShutdownSignal, ShutdownSignalWatch, ShutdownWatch,
};
use pingora::services::Service;
use tokio::sync::{Mutex, mpsc, watch};

use crate::acme::Keepers;
use crate::admin::{self, AdminListener, HeldAdmin};
use crate::assemble::{self, AssembleError, Surroundings, assemble};
use crate::carry::{Carrier, purge};
use crate::clock;
use crate::handover::{HandedOver, Inheritance, Predecessor, Program, Taken, Word, tell};
use crate::listen::{self, BindError, Command, ListenerState, TlsError, Worker};
use crate::observe::Metrics;
use crate::observe::logging;
use crate::ocsp;
use crate::privileges::{self, PrivilegeError};
use crate::signals::{Asked, Signals};
use crate::snapshot::Snapshot;
use crate::state::AdminState;
use crate::upstreams::{self, Probers, Watchers};
use sockets::{Bound, Held, Sockets, bind_first, hand_out};

/// Threads of each worker that read files.
const BLOCKING_THREADS: usize = 4;

/// How long the last lines of the access log may take to reach the disk.
const LOG_CLOSE: Duration = Duration::from_secs(5);

/// How the caller takes part.
pub struct Options {
    /// Loads the configuration anew on SIGHUP; the error is logged as it is.
    pub load: Box<dyn Fn() -> Result<conf::Config, String> + Send + Sync>,
    /// Called once every listener is bound and signals are listened for.
    pub ready: Box<dyn FnOnce() + Send>,
    /// How this process was started, so that SIGUSR2 can start another one that takes over from it;
    /// `None`: it cannot.
    pub program: Option<Program>,
    /// The process that this one takes over from.
    pub predecessor: Option<Predecessor>,
}

/// Why the edge did not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A listener's address.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The admin listener's address.
    #[error("[admin] address: cannot listen on {address}: {source}")]
    BindAdmin {
        /// As configured.
        address: String,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// Something that the configuration names.
    #[error(transparent)]
    Assemble(#[from] AssembleError),
    /// The account to change to.
    #[error(transparent)]
    Privileges(#[from] PrivilegeError),
    /// The process that this one was to take over from.
    #[error("cannot take over from process {id}: {reason}")]
    TakeOver {
        /// Its process id.
        id: u32,
        /// What is wrong with it.
        reason: String,
    },
    /// The TLS library.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The system gives no random bytes.
    #[error("the system has no randomness")]
    NoRandomness,
    /// Signals cannot be listened for.
    #[error("signals cannot be listened for: {0}")]
    Signals(String),
    /// The event log could not be set up.
    #[error("event log: {0}")]
    Logging(String),
}

impl RunError {
    /// Whether the configuration must be changed (and not the machine).
    #[must_use]
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::Assemble(AssembleError::AccessLog { .. } | AssembleError::Disk(_)) => false,
            Self::Assemble(_) | Self::Privileges(_) => true,
            Self::Bind(_)
            | Self::BindAdmin { .. }
            | Self::TakeOver { .. }
            | Self::Tls(_)
            | Self::NoRandomness
            | Self::Signals(_)
            | Self::Logging(_) => false,
        }
    }
}

/// Looks at all that `config` names, as a start would, and serves nothing: certificates and
/// keys, trust anchors, names of endpoints, roots, the account.
///
/// # Errors
/// What would keep [`run`] from starting, but for ports.
pub fn check(config: &conf::Config) -> Result<(), RunError> {
    assemble::verify(config)?;
    if let Some(user) = &config.server.user {
        privileges::exists(user)?;
    }
    Ok(())
}

/// Certificates that `config` names, as they lie on the disk: an entry for each, with its `names`,
/// `source` (`file` or `acme`), `not_after`, `days_left`, and of those that are obtained when the
/// `next_order` would be.
///
/// # Errors
/// One cannot be read.
pub fn certificates(config: &conf::Config) -> Result<serde_json::Value, RunError> {
    Ok(assemble::certificates_on_disk(config)?)
}

/// Serves by `config` until SIGTERM or SIGINT; returns once the requests under
/// way are done or `shutdown_timeout` is over.
///
/// # Errors
/// Nothing was served: see [`RunError`].
pub fn run(config: conf::Config, mut options: Options) -> Result<(), RunError> {
    let predecessor = options.predecessor.take().map(Arc::new);
    let result = serve(config, options, predecessor.clone());
    if let (Err(error), Some(predecessor)) = (&result, predecessor) {
        predecessor.refuse(&error.to_string());
    }
    result
}

fn serve(
    config: conf::Config,
    options: Options,
    predecessor: Option<Arc<Predecessor>>,
) -> Result<(), RunError> {
    let _events =
        logging::init(&config.log).map_err(|error| RunError::Logging(error.to_string()))?;
    let mut inheritance = upgrade::inherit(predecessor.as_deref())?;
    let workers = config.server.workers.get();
    let surroundings = Surroundings {
        metrics: Arc::new(Metrics::new(workers, clock::wall())),
        tickets: listen::Tickets::default(),
        workers,
        orders: Arc::default(),
        cookie_key: inheritance
            .cookie_key
            .or_else(upstreams::random_key)
            .ok_or(RunError::NoRandomness)?,
        is_taking_over: predecessor.is_some(),
    };
    let (ok, failed) = inheritance.upgrades;
    surroundings.metrics.upgraded(ok, failed);
    let generation = inheritance.generation;
    let assembled = assemble(config, &surroundings, None)?;
    let (mut snapshot, sockets) = bind_first(assembled, workers, &mut inheritance)?;
    let admin = bind_admin(&snapshot.config, &mut inheritance)?;
    if let Some(predecessor) = &predecessor {
        upgrade::disk(predecessor, &mut snapshot, &surroundings)?;
    }
    if let Some(user) = &snapshot.config.server.user {
        privileges::drop_to(user, &owned::owned(&snapshot.config))?;
    }
    let snapshot = Arc::new(ArcSwap::from_pointee(snapshot));
    let (drain, draining) = watch::channel(false);
    let handed_over = Arc::new(HandedOver::default());
    let mut server = Server::new_with_opt_and_conf(None, server_conf());
    server.bootstrap();
    let mut commands = Vec::with_capacity(workers);
    let mut carriers = Vec::with_capacity(workers);
    for index in 0..workers {
        let (sender, receiver) = mpsc::unbounded_channel();
        let carrier = Carrier::new(
            index,
            snapshot.clone(),
            draining.clone(),
            handed_over.clone(),
        );
        let carrier = Arc::new(carrier);
        carriers.push(carrier.clone());
        server.add_service(Worker::new(index, carrier, receiver, draining.clone()));
        commands.push(sender);
    }
    let (ended, end) = watch::channel(false);
    let failure = Arc::new(OnceLock::new());
    server.add_service(Control {
        failure: failure.clone(),
        retired: std::sync::Mutex::default(),
        snapshot: snapshot.clone(),
        last_reload: Arc::default(),
        last_upgrade: Arc::default(),
        disk_moves: Arc::default(),
        surroundings,
        commands,
        carriers,
        sockets: Mutex::new(sockets),
        held: std::sync::Mutex::default(),
        held_admin: std::sync::Mutex::default(),
        admin_ends: watch::channel(false).0,
        generation,
        handed_over,
        predecessor: predecessor.map(|it| (it, inheritance.into_taken())),
        drain,
        draining,
        ended,
        admin: Mutex::new(admin),
        options: Mutex::new(Some(options)),
    });
    server.run(RunArgs {
        shutdown_signal: Box::new(End(Mutex::new(end))),
    });
    if let Some(log) = &snapshot.load().access {
        log.close(LOG_CLOSE);
    }
    match failure.get() {
        Some(reason) => Err(RunError::Signals(reason.clone())),
        None => Ok(()),
    }
}

fn server_conf() -> ServerConf {
    ServerConf {
        threads: 1,
        work_stealing: false,
        // They read files, and a disk is not faster for many readers; tokio's default of 512
        // would be 512 threads with a piece of a file each.
        max_blocking_threads: Some(BLOCKING_THREADS),
        ..ServerConf::default()
    }
}

fn bind_admin(
    config: &conf::Config,
    inheritance: &mut Inheritance,
) -> Result<Option<AdminListener>, RunError> {
    config
        .admin
        .as_ref()
        .map(|admin| {
            let listener = match inheritance.admin(&admin.address) {
                Some(socket) => AdminListener::inherit(&admin.address, socket),
                None => AdminListener::bind(&admin.address),
            };
            listener.map_err(|source| RunError::BindAdmin {
                address: admin.address.to_string(),
                source,
            })
        })
        .transpose()
}

/// Tells Pingora's server to end, once this process has drained itself: its own
/// grace period is a plain sleep, whether there is anything to wait for or not.
struct End(Mutex<watch::Receiver<bool>>);

#[async_trait]
impl ShutdownSignalWatch for End {
    async fn recv(&self) -> ShutdownSignal {
        // An error means that the control service is gone: the same end.
        let _ = self.0.lock().await.wait_for(|ended| *ended).await;
        ShutdownSignal::FastShutdown
    }
}

struct Control {
    /// Listeners that a reload took out and that had connections then: a drain waits for those too.
    retired: std::sync::Mutex<Vec<Arc<ListenerState>>>,
    /// Why nothing is served, if so.
    failure: Arc<OnceLock<String>>,
    snapshot: Arc<ArcSwap<Snapshot>>,
    last_reload: Arc<LastReload>,
    last_upgrade: Arc<LastReload>,
    /// Held while the cache's disk tier is left or taken back.
    disk_moves: Arc<Mutex<()>>,
    surroundings: Surroundings,
    commands: Vec<mpsc::UnboundedSender<Command>>,
    carriers: Vec<Arc<Carrier>>,
    /// Handed to the workers once signals are listened for: nobody is served by a process that a
    /// signal would kill.
    sockets: Mutex<Bound>,
    /// What the workers listen on, once more, for a process that takes over.
    held: std::sync::Mutex<Vec<Held>>,
    held_admin: std::sync::Mutex<Option<HeldAdmin>>,
    /// Ends the admin server before the process does.
    admin_ends: watch::Sender<bool>,
    /// Of this process, in a chain of upgrades.
    generation: u8,
    handed_over: Arc<HandedOver>,
    /// The process that this one takes over from, and what it goes on with.
    predecessor: Option<(Arc<Predecessor>, Taken)>,
    drain: watch::Sender<bool>,
    draining: watch::Receiver<bool>,
    ended: watch::Sender<bool>,
    admin: Mutex<Option<AdminListener>>,
    options: Mutex<Option<Options>>,
}

#[async_trait]
impl Service for Control {
    async fn start_service(
        &mut self,
        _inherited: Option<ListenFds>,
        _shutdown: ShutdownWatch,
        _listeners_per_fd: usize,
    ) {
        self.run().await;
        self.ended.send_replace(true);
    }

    fn name(&self) -> &'static str {
        "control"
    }

    fn threads(&self) -> Option<usize> {
        Some(1)
    }
}

impl Control {
    async fn run(&self) {
        let Some(options) = self.options.lock().await.take() else {
            return;
        };
        let Options {
            load,
            ready,
            program,
            ..
        } = options;
        let load: Arc<dyn Fn() -> Result<conf::Config, String> + Send + Sync> = Arc::from(load);
        let mut signals = match Signals::install() {
            Ok(signals) => signals,
            Err(error) => {
                return self.fail(error.to_string());
            }
        };
        if let Some((predecessor, taken)) = &self.predecessor {
            // Nothing else runs on this thread yet.
            match predecessor.ready(taken.clone()) {
                Ok(()) => self.last_upgrade.set(None),
                Err(reason) => return self.fail(reason),
            }
            if let Some(admin) = &*self.admin.lock().await {
                admin.own();
            }
        }
        for (listener, sockets) in std::mem::take(&mut *self.sockets.lock().await) {
            self.hand_out(&listener, sockets);
        }
        let (changed, mut changes) = mpsc::unbounded_channel();
        let mut probers = Probers::start(upstreams::probes(&self.snapshot.load().upstreams));
        let mut watchers = Watchers::start(&self.snapshot.load().upstreams, &changed);
        let mut keepers = Keepers::start(&self.surroundings.orders, &self.snapshot.load().managed);
        self.serve_admin(changed.clone()).await;
        tokio::spawn(tick::tick(self.snapshot.clone()));
        tokio::spawn(ocsp::keep(self.snapshot.clone()));
        tokio::spawn(closing::watch(self.snapshot.clone()));
        tokio::spawn(purge::tidy_now_and_then(self.snapshot.clone()));
        self.publish();
        self.announce();
        tell(Word::Serving);
        ready();
        loop {
            let asked = tokio::select! {
                asked = signals.next() => asked,
                // Endpoints came, went, or were changed by hand.
                _ = changes.recv() => {
                    probers.update(upstreams::probes(&self.snapshot.load().upstreams));
                    continue;
                }
            };
            match asked {
                Asked::ReopenLog => self.reopen_log(),
                Asked::Drain => break,
                Asked::Upgrade => {
                    let upgraded = tokio::select! {
                        upgraded = self.upgrade(program.as_ref()) => upgraded,
                        // What was started ends with the attempt.
                        () = signals.ending() => {
                            self.take_back().await;
                            break;
                        }
                    };
                    if upgraded {
                        break;
                    }
                }
                Asked::Reload => {
                    let reloaded = tokio::select! {
                        reloaded = self.reload(load.clone()) => reloaded,
                        // It may wait for names to be looked up; the end of the process does not.
                        () = signals.ending() => break,
                    };
                    if reloaded {
                        let snapshot = self.snapshot.load();
                        probers.update(upstreams::probes(&snapshot.upstreams));
                        watchers = Watchers::start(&snapshot.upstreams, &changed);
                        keepers.update(&snapshot.managed);
                    }
                }
            }
        }
        drop((probers, watchers, keepers));
        if !self.handed_over.is_set() {
            tell(Word::Stopping);
        }
        self.held().clear();
        self.drain(&mut signals).await;
        self.write_out(&mut signals).await;
    }

    fn fail(&self, reason: String) {
        // The first and only time that it is set.
        let _ = self.failure.set(reason);
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Vec<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hand_out(&self, listener: &Arc<ListenerState>, mut sockets: Sockets) {
        self.held().append(&mut sockets.held);
        hand_out(&self.commands, listener, sockets);
    }

    fn announce(&self) {
        let snapshot = self.snapshot.load();
        for (listener, configured) in snapshot.listeners.iter().zip(&snapshot.config.listeners) {
            tracing::info!(name = configured.name, address = %listener.address, tls = configured.tls, h3 = configured.h3.is_some(), "listening");
        }
        if let Some(admin) = &snapshot.config.admin {
            tracing::info!(address = %admin.address, "admin listening");
        }
        for warning in &snapshot.config.warnings {
            tracing::warn!("{warning}");
        }
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            workers = self.surroundings.workers,
            "ready"
        );
    }

    async fn serve_admin(&self, changed: mpsc::UnboundedSender<()>) {
        let Some(listener) = self.admin.lock().await.take() else {
            return;
        };
        let state = Arc::new(AdminState {
            snapshot: self.snapshot.clone(),
            metrics: self.surroundings.metrics.clone(),
            orders: self.surroundings.orders.clone(),
            draining: self.draining.clone(),
            last_reload: self.last_reload.clone(),
            last_upgrade: self.last_upgrade.clone(),
            changed,
        });
        match listener.held() {
            Ok(held) => {
                let mut place = self
                    .held_admin
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                *place = Some(held);
            }
            Err(error) => tracing::warn!(%error, "the admin listener cannot be handed over"),
        }
        // The admin server stays to the very end: a drain wants to be watched. Only where another
        // process answers at its address, that one is to be asked.
        let mut ends = self.admin_ends.subscribe();
        tokio::spawn(admin::serve(listener, state, async move {
            if ends.wait_for(|ends| *ends).await.is_err() {
                std::future::pending::<()>().await;
            }
        }));
    }

    fn reopen_log(&self) {
        if let Some(log) = &self.snapshot.load().access {
            log.reopen();
        }
    }

    fn publish(&self) {
        let snapshot = self.snapshot.load();
        self.surroundings.metrics.config_loaded(
            snapshot.table.clone(),
            snapshot.config.hash,
            clock::wall(),
        );
        for upstream in &snapshot.upstreams {
            upstream.publish();
        }
    }

    fn tell_all(&self, command: impl Fn() -> Command) {
        for worker in &self.commands {
            // A worker that is gone is ending with the process.
            let _ = worker.send(command());
        }
    }
}
