//! What lives beside requests: the endpoints of each upstream with their state,
//! the connections to them, how they are found, and the checks that watch them.

mod by_hand;
mod common;
mod dial;
mod discovery;
mod events;
mod link;
mod members;
mod place;
mod prober;
mod probes;
mod queue;
mod settings;
mod share;
mod sticky;
mod target;
#[cfg(test)]
mod testing;
mod watch;

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use balancer::{Carry, Mode, Pool};

pub(crate) use by_hand::Change;
pub(crate) use dial::{Addresses, Connection, DialError, refused_certificate};
pub(crate) use discovery::connect;
pub(crate) use link::{
    Came, Connected, Octets, RECENT, Reuse, Session, name_authority, unprocessed,
};
pub(crate) use members::Members;
pub(crate) use place::Place;
pub(crate) use prober::Probers;
pub(crate) use probes::probes;
pub(crate) use queue::{NoTurn, Queue, Try};
pub(crate) use share::Share;
pub(crate) use sticky::{Kept, Sticky, random_key};
pub(crate) use target::Target;
pub(crate) use watch::Watchers;

use self::by_hand::Hands;
use self::common::Common;
use self::dial::Dialer;
use self::discovery::{Found, Source};
use self::prober::Reason;
use self::share::Shares;
use crate::clock;
use crate::listen::TlsError;
use crate::observe::metrics::UpstreamMetrics;

/// One `[upstream.NAME]`, ready for requests.
pub(crate) struct Upstream {
    common: Arc<Common>,
    own_zone: Option<String>,
    members: Shares,
    /// Where its endpoints come from. Kept over a reload that does not change that, with all that
    /// it knows.
    source: Arc<tokio::sync::Mutex<Source>>,
    /// What was changed by hand; held while another set of endpoints is made.
    hands: Mutex<Hands>,
}

/// Why an upstream cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// Its endpoints cannot be found out, and waiting would not help.
    #[error("upstream {upstream:?}: {reason}")]
    Discovery {
        /// The upstream.
        upstream: String,
        /// What failed, and how to mend it.
        reason: String,
    },
    /// Its file of trust anchors holds none, or something else.
    #[error("upstream {upstream:?}: tls.ca {}: {reason}", path.display())]
    Ca {
        /// The upstream.
        upstream: String,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Nobody could be trusted.
    #[error(
        "upstream {upstream:?}: no trust anchors: {reason}; install the system's (ca-certificates) or name a file in tls.ca"
    )]
    Anchors {
        /// The upstream.
        upstream: String,
        /// What is wrong.
        reason: String,
    },
    /// The certificate that is shown to it.
    #[error("upstream {upstream:?}: tls.cert: {source}")]
    Certificate {
        /// The upstream.
        upstream: String,
        /// What is wrong.
        #[source]
        source: TlsError,
    },
    /// The name to be verified is none.
    #[error(
        "upstream {upstream:?}: tls.server_name {name:?} is neither a host name nor an IP address"
    )]
    ServerName {
        /// The upstream.
        upstream: String,
        /// As configured.
        name: String,
    },
    /// The TLS library refused the settings.
    #[error("upstream {upstream:?}: tls: {reason}")]
    Tls {
        /// The upstream.
        upstream: String,
        /// The library's words.
        reason: String,
    },
    /// The system has no randomness, or refuses a cipher.
    #[error("upstream {upstream:?}: sticky: no key can be made")]
    Sticky {
        /// The upstream.
        upstream: String,
    },
}

/// What an upstream is made with, besides its settings.
pub(crate) struct Making<'a> {
    /// What had its name before a reload.
    pub(crate) previous: Option<&'a Upstream>,
    pub(crate) workers: usize,
    pub(crate) own_zone: Option<&'a str>,
    /// For cookies where no secret is configured.
    pub(crate) cookie_key: &'a [u8; 32],
    pub(crate) metrics: Arc<UpstreamMetrics>,
}

/// Finds out whether the upstream's names and files can be used.
///
/// # Errors
/// See [`UpstreamError`].
pub(crate) fn verify(settings: &conf::Upstream) -> Result<(), UpstreamError> {
    Dialer::new(settings)?;
    let mut source = source(settings)?;
    find(settings, &mut source, false).map(drop)
}

/// Waits on this thread, which may block. Within a runtime it is one that was made for that.
fn wait<T>(upstream: &str, work: impl Future<Output = T>) -> Result<T, UpstreamError> {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => Ok(runtime.block_on(work)),
        Err(_) => tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map(|runtime| runtime.block_on(work))
            .map_err(|error| UpstreamError::Discovery {
                upstream: upstream.to_owned(),
                reason: format!("nothing can be looked up: {error}"),
            }),
    }
}

fn source(settings: &conf::Upstream) -> Result<Source, UpstreamError> {
    Source::new(settings).map_err(|error| UpstreamError::Discovery {
        upstream: settings.name.clone(),
        reason: error.to_string(),
    })
}

/// The endpoints as they are now. What is wrong for good is an error. Trouble that may pass gives
/// those that were found, unless something is `running` already, which goes on as it is.
fn find(
    settings: &conf::Upstream,
    source: &mut Source,
    running: bool,
) -> Result<Vec<Found>, UpstreamError> {
    let found = wait(&settings.name, source.look_up())?;
    let failures = match &found {
        Ok(found) => found.failures.as_slice(),
        Err(error) => std::slice::from_ref(error),
    };
    for failure in failures {
        if failure.is_definite() || running {
            return Err(UpstreamError::Discovery {
                upstream: settings.name.clone(),
                reason: failure.to_string(),
            });
        }
        tracing::warn!(
            upstream = settings.name,
            %failure,
            "endpoints are not known yet; looked up again until they are"
        );
    }
    Ok(found.map(|found| found.endpoints).unwrap_or_default())
}

impl Upstream {
    /// Builds the upstream.
    ///
    /// # Errors
    /// See [`UpstreamError`].
    pub(crate) fn new(
        settings: &conf::Upstream,
        making: &Making<'_>,
    ) -> Result<Self, UpstreamError> {
        let previous = making.previous;
        let now = clock::now();
        let (source, found, found_at) = match previous.filter(|it| it.finds_alike(settings)) {
            Some(previous) => {
                let found = previous.members.members().found().to_vec();
                (previous.source.clone(), found, previous.common.found_at())
            }
            None => {
                let mut source = source(settings)?;
                let found = find(settings, &mut source, previous.is_some())?;
                let found_at = (!source.is_fixed()).then_some(now);
                (Arc::new(tokio::sync::Mutex::new(source)), found, found_at)
            }
        };
        let dialer = Arc::new(Dialer::new(settings)?);
        let common = Arc::new(Common {
            queue: queue(settings, previous),
            sticky: sticky(settings, making)?,
            found_at: found_at.map(Mutex::new),
            settings: settings.clone(),
            metrics: making.metrics.clone(),
            dialer,
            links: previous.map_or_else(Arc::default, |previous| previous.common.links.clone()),
            workers: making.workers,
        });
        let hands = previous.map_or_else(Hands::default, |previous| previous.hands().kept());
        let before = previous.map(|previous| previous.members.members());
        let pool = Pool::new(
            settings::pool(settings, making.own_zone, &found, &hands),
            before.as_ref().map(|before| before.pool()),
            Carry::Reload,
            now,
        );
        let members = Members::new(common.clone(), pool, found, before.as_deref());
        Ok(Self {
            common,
            own_zone: making.own_zone.map(str::to_owned),
            members: Shares::new(members, making.workers),
            source,
            hands: Mutex::new(hands),
        })
    }

    /// What is looked up where is the same.
    fn finds_alike(&self, settings: &conf::Upstream) -> bool {
        let before = &self.common.settings;
        before.endpoints == settings.endpoints
            && before.discovery == settings.discovery
            && before.resolve == settings.resolve
    }

    pub(crate) fn name(&self) -> &str {
        self.common.name()
    }

    pub(crate) fn settings(&self) -> &conf::Upstream {
        &self.common.settings
    }

    /// Whether its requests go over HTTP/1.1 and ask for nothing but that.
    pub(crate) fn is_plain(&self) -> bool {
        let settings = self.settings();
        settings.protocol == conf::UpstreamProtocol::H1
            && settings.hedge.is_none()
            && settings.sticky.is_none()
            && settings.proxy_protocol.is_none()
    }

    pub(crate) fn common(&self) -> &Arc<Common> {
        &self.common
    }

    /// Its endpoints as they are now, for a request of `worker`, which takes them once.
    pub(crate) fn share(&self, worker: usize) -> Arc<Share> {
        self.members.of(worker)
    }

    /// Its endpoints as they are now, for all but requests.
    pub(crate) fn members(&self) -> Arc<Members> {
        self.members.members()
    }

    /// The snapshot that this is part of is in force: its endpoints are shown in the metrics.
    pub(crate) fn publish(&self) {
        let members = self.members.members();
        self.common.metrics.show(members.shown().clone());
    }

    /// The snapshot that this is part of is in force no more; `next` has its name in the one that is.
    pub(crate) fn retire(&self, next: Option<&Self>) {
        let next = next.map(|next| next.members.members());
        self.members.members().retire(next.as_deref());
    }

    /// Brings the gauges up to date.
    pub(crate) fn show(&self, now: Instant) {
        self.members.members().show(now);
    }

    /// What is due about once a second.
    pub(crate) fn tick(&self, now: Instant) {
        self.members.members().tick(now);
    }

    /// Takes over what discovery found; whether that is anything new.
    fn found(&self, found: Vec<Found>) -> bool {
        let hands = self.hands();
        let before = self.members.members();
        if before.found() == found.as_slice() {
            return false;
        }
        let known =
            |among: &[Found], one: &Found| among.iter().any(|other| other.target == one.target);
        let names = |some: &[Found], others: &[Found]| -> Vec<String> {
            let gone = some.iter().filter(|one| !known(others, one));
            gone.map(|one| one.name.clone()).collect()
        };
        tracing::info!(
            upstream = self.name(),
            added = ?names(&found, before.found()),
            removed = ?names(before.found(), &found),
            endpoints = found.len(),
            "endpoints changed"
        );
        self.make(found, &before, &hands);
        true
    }

    /// Changes an endpoint by hand, by its address or name.
    ///
    /// # Errors
    /// There is no such endpoint; the message lists those that there are.
    pub(crate) fn change(&self, endpoint: &str, change: Change) -> Result<(), String> {
        let mut hands = self.hands();
        let before = self.members.members();
        let named = |found: &&Found| found.name == endpoint || found.target.id() == endpoint;
        let Some(found) = before.found().iter().find(named) else {
            let there: Vec<&str> = before.found().iter().map(|one| one.name.as_str()).collect();
            return Err(format!(
                "upstream {:?} has no endpoint {endpoint:?}; there are {}",
                self.name(),
                there.join(", ")
            ));
        };
        let id = found.target.id();
        hands.change(&id, change);
        tracing::info!(
            upstream = self.name(),
            endpoint = found.name,
            mode = change.mode.map(Mode::as_str),
            weight = change
                .weight
                .map(|weight| weight.map_or(0, NonZeroU32::get)),
            keep = change.keep,
            "endpoint changed by hand (weight 0: its own again)"
        );
        self.make(before.found().to_vec(), &before, &hands);
        let members = self.members.members();
        if let Some(index) = members.pool().find(&id)
            && members.pool().endpoint(index).mode() != Mode::Enabled
        {
            members.close_idle(index);
        }
        Ok(())
    }

    fn make(&self, found: Vec<Found>, before: &Arc<Members>, hands: &Hands) {
        let pool = Pool::new(
            settings::pool(self.settings(), self.own_zone.as_deref(), &found, hands),
            Some(before.pool()),
            Carry::Refresh,
            clock::now(),
        );
        let members = Members::new(self.common.clone(), pool, found, Some(before));
        self.members.replace(members);
        before.retire(Some(&self.members.members()));
        self.publish();
        if let Some(queue) = &self.common.queue {
            queue.wake();
        }
    }

    /// What was changed at the endpoint of this id.
    pub(crate) fn by_hand(&self, id: &str) -> Option<by_hand::ByHand> {
        self.hands().of(id)
    }

    /// Takes the result of a check of the endpoint of this id; whether it is healthy now.
    fn probed(&self, id: &str, result: &Result<(), Reason>) -> bool {
        let members = self.members.members();
        let Some(endpoint) = members.pool().find(id) else {
            return false;
        };
        let transition = members
            .pool()
            .probed(endpoint, result.is_ok(), clock::now());
        if let Some(transition) = transition {
            let reason = match result {
                Ok(()) => "passed".to_owned(),
                Err(reason) => reason.to_string(),
            };
            members.log(&transition, &reason);
        }
        members.pool().is_healthy(endpoint)
    }

    fn hands(&self) -> MutexGuard<'_, Hands> {
        self.hands.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Those who wait stay in line over a reload that leaves the line as long as it was.
fn queue(settings: &conf::Upstream, previous: Option<&Upstream>) -> Option<Arc<Queue>> {
    let size = settings.queue?.size;
    let before = previous
        .filter(|previous| {
            let before = previous.settings().queue;
            before.is_some_and(|before| before.size == size)
        })
        .and_then(|previous| previous.common.queue.clone());
    Some(before.unwrap_or_else(|| {
        Arc::new(Queue::new(
            usize::try_from(size.get()).unwrap_or(usize::MAX),
        ))
    }))
}

fn sticky(settings: &conf::Upstream, making: &Making<'_>) -> Result<Option<Sticky>, UpstreamError> {
    let Some(sticky) = &settings.sticky else {
        return Ok(None);
    };
    Sticky::new(sticky, &settings.name, making.cookie_key)
        .map(Some)
        .ok_or_else(|| UpstreamError::Sticky {
            upstream: settings.name.clone(),
        })
}
