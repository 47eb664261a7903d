//! One certificate of the configuration: what is known of it, and one try to get another.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::Notify;

use super::challenge::{Answers, Way};
use super::client::Client;
use super::failure::{Failure, Outcome};
use super::order::{self, Wanted};
use super::schedule::{self, Window};
use super::storage::{Failed, Storage, Stored, short_hash};
use super::{Orders, account, update};
use crate::listen::{Live, Obtained};
use crate::{clock, random};

/// Until a directory that has no renewal information is asked for it again.
const NO_WINDOW: Duration = Duration::from_secs(86_400);
/// The same where it could not be asked.
const NO_ANSWER: Duration = Duration::from_secs(3600);
/// With so little life left, or a quarter of it, a failure is worth waking somebody.
const SOON: Duration = Duration::from_secs(7 * 86_400);

/// Why a configuration with this certificate cannot run.
#[derive(Debug, thiserror::Error)]
pub enum AcmeError {
    /// The folder cannot be made, read or written.
    #[error(
        "[tls] acme: storage {}: {source}; make it readable and writable for the account that runs tidegate",
        path.display()
    )]
    Storage {
        /// As configured.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// Something else that the section names.
    #[error("[tls] acme: {0}")]
    Settings(String),
}

/// See the module's text.
pub(crate) struct Managed {
    settings: conf::Acme,
    storage: Storage,
    obtained: Arc<Obtained>,
    known: Mutex<Known>,
    /// Somebody wants an order now.
    pub(super) asked: Notify,
}

#[derive(Default)]
struct Known {
    /// The directory that the certificate is from.
    directory: String,
    /// When the certificate came to the storage.
    written: Option<SystemTime>,
    window: Option<Window>,
    /// When the window is to be asked for again.
    ask_window: Option<SystemTime>,
    failed: Failed,
    progress: Progress,
}

/// How it goes, for people.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Orders of this process.
    pub(crate) orders: u64,
    /// One is under way.
    pub(crate) is_ordering: bool,
    /// When the next one is due.
    pub(crate) next: Option<SystemTime>,
    /// Whether the authority said when (RFC 9773).
    pub(crate) is_by_window: bool,
    /// Orders that failed in a row.
    pub(crate) failures: u32,
    /// Why the last one failed.
    pub(crate) error: Option<String>,
}

impl Managed {
    /// Prepares the storage, and takes what is in it.
    ///
    /// # Errors
    /// The storage cannot be used.
    pub(crate) fn open(settings: &conf::Acme) -> Result<Self, AcmeError> {
        let wrong = |source| AcmeError::Storage {
            path: settings.storage.clone(),
            source,
        };
        Self::verify(settings)?;
        Storage::of(settings).prepare().map_err(wrong)?;
        Self::read(settings)
    }

    /// Takes what is in the storage, and makes nothing.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn read(settings: &conf::Acme) -> Result<Self, AcmeError> {
        let wrong = |source| AcmeError::Storage {
            path: settings.storage.clone(),
            source,
        };
        let storage = Storage::of(settings);
        let managed = Self {
            obtained: Arc::new(Obtained::new(&settings.hosts)),
            settings: settings.clone(),
            known: Mutex::default(),
            asked: Notify::new(),
            storage,
        };
        match managed.storage.certificate() {
            Ok(Some(stored)) => managed.take(stored),
            Ok(None) => {}
            // Another one is as good.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                tracing::warn!(
                    "a certificate in the ACME storage cannot be used, another one is ordered: {error}"
                );
            }
            Err(error) => return Err(wrong(error)),
        }
        managed.known().failed = managed.remembered();
        Ok(managed)
    }

    /// Looks at what the section names, without making anything.
    ///
    /// # Errors
    /// What cannot be used.
    pub(crate) fn verify(settings: &conf::Acme) -> Result<(), AcmeError> {
        if settings.storage.exists() && !settings.storage.is_dir() {
            return Err(AcmeError::Storage {
                path: settings.storage.clone(),
                source: io::ErrorKind::NotADirectory.into(),
            });
        }
        for directory in &settings.directories {
            let eab = directory.eab.as_ref().map(account::external).transpose();
            eab.map_err(|failure| AcmeError::Settings(failure.to_string()))?;
        }
        if let conf::AcmeChallenge::Dns01 {
            records: conf::DnsRecords::Update(update),
            ..
        } = &settings.challenge
        {
            update::verify(update).map_err(|reason| AcmeError::Settings(reason.to_owned()))?;
        }
        let anchors = Self::anchors(settings).map_err(|error| error.to_string());
        let client = anchors.and_then(|anchors| {
            let client = Client::new(anchors.as_deref());
            client.map(drop).map_err(|failure| failure.to_string())
        });
        client.map_err(AcmeError::Settings)
    }

    fn anchors(settings: &conf::Acme) -> io::Result<Option<Vec<u8>>> {
        settings.ca.as_ref().map(std::fs::read).transpose()
    }

    /// What it was made from.
    pub(crate) fn settings(&self) -> &conf::Acme {
        &self.settings
    }

    /// Where handshakes find it.
    pub(crate) fn obtained(&self) -> &Arc<Obtained> {
        &self.obtained
    }

    /// The one in use.
    pub(crate) fn current(&self) -> Option<Arc<Live>> {
        self.obtained.current()
    }

    /// The directory that the one in use is from.
    pub(crate) fn directory(&self) -> Option<String> {
        let directory = self.known().directory.clone();
        (!directory.is_empty()).then_some(directory)
    }

    /// How it goes.
    pub(crate) fn progress(&self) -> Progress {
        let known = self.known();
        Progress {
            is_by_window: known.window.is_some(),
            failures: known.failed.failures,
            error: (known.failed.failures > 0).then(|| known.failed.reason.clone()),
            ..known.progress.clone()
        }
    }

    /// Orders now, whatever the time and however often it failed.
    pub(crate) fn order_now(&self) {
        self.asked.notify_one();
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is remembered of failures with these settings. Whoever changed them wants to see what
    /// comes of it.
    fn remembered(&self) -> Failed {
        let failed = self.storage.failed();
        let ours = failed.filter(|failed| failed.settings == self.fingerprint());
        ours.unwrap_or_default()
    }

    fn fingerprint(&self) -> String {
        short_hash(&format!("{:?}", self.settings))
    }

    /// From now on this one is in use.
    fn take(&self, stored: Stored) {
        {
            let mut known = self.known();
            known.directory = stored.directory;
            known.written = Some(stored.written);
            known.window = None;
            known.ask_window = None;
        }
        self.obtained.put(stored.live);
    }

    /// Another process may have put a newer one into the storage.
    pub(super) fn look(&self) {
        let written = self.storage.written();
        if written.is_none() || written == self.known().written {
            return;
        }
        match self.storage.certificate() {
            Ok(Some(stored)) => {
                tracing::info!(
                    hosts = self.shown(),
                    "a certificate from the ACME storage is in use"
                );
                self.take(stored);
                self.known().failed = self.remembered();
            }
            Ok(None) => {}
            Err(error) => tracing::warn!("the ACME storage cannot be read: {error}"),
        }
    }

    /// When the next order is due. In the past: at once.
    pub(crate) fn due(&self) -> SystemTime {
        let current = self.obtained.current();
        let mut known = self.known();
        let wanted = current.map_or(UNIX_EPOCH, |live| {
            schedule::renewal(
                (live.leaf.not_before, live.leaf.not_after),
                known.written.unwrap_or(live.leaf.not_before),
                known.window,
                schedule::share_of(&live.leaf.serial),
            )
        });
        let due = match known.failed.failures {
            0 => wanted,
            _ => wanted.max(known.failed.next()),
        };
        known.progress.next = Some(due);
        due
    }

    /// Asks the authority when it would like the certificate to be renewed, if it is time to ask.
    pub(super) async fn ask_window(&self) {
        let now = clock::wall();
        let Some(live) = self.obtained.current() else {
            return;
        };
        let asked = self.known().ask_window;
        if asked.is_some_and(|again| now < again) {
            return;
        }
        let (window, again) = match self.window(&live).await {
            Ok(Some((window, holds))) => (Some(window), holds),
            Ok(None) => (None, NO_WINDOW),
            Err(failure) => {
                tracing::debug!(hosts = self.shown(), "no renewal information: {failure}");
                (self.known().window, NO_ANSWER)
            }
        };
        let mut known = self.known();
        known.window = window;
        known.ask_window = Some(now + again);
    }

    async fn window(&self, live: &Live) -> Result<Option<(Window, Duration)>, Failure> {
        let directory = self.known().directory.clone();
        let mut all = self.settings.directories.iter();
        let Some(directory) = all.find(|one| one.url == directory) else {
            return Ok(None);
        };
        let Some(id) = order::identifier(&live.leaf) else {
            return Ok(None);
        };
        let client = self.client()?;
        let account = account::existing(&self.settings, directory, &self.storage, &client).await?;
        let Some(account) = account else {
            return Ok(None);
        };
        match account.renewal_info(&id).await {
            Ok((info, again)) => {
                let window = Window {
                    start: info.suggested_window.start.into(),
                    end: info.suggested_window.end.into(),
                };
                Ok(Some((window, schedule::window_holds(again))))
            }
            Err(instant_acme::Error::Unsupported(_)) => Ok(None),
            Err(error) => Err(Failure::of(&error, Way::of(&self.settings.challenge))),
        }
    }

    fn client(&self) -> Result<Client, Failure> {
        let anchors = Self::anchors(&self.settings).map_err(|error| {
            let what = format!("`ca` cannot be read: {error}");
            Failure::new(Outcome::Unusable, what, "see `ca`")
        })?;
        Client::new(anchors.as_deref())
    }

    /// Nobody else makes an order while what this returns is there; `None`: somebody does.
    pub(super) fn try_lock(&self) -> io::Result<Option<std::fs::File>> {
        self.storage.try_lock()
    }

    /// Whether a process that died left records in the DNS, or one is making an order.
    pub(super) fn has_records(&self) -> bool {
        !self.storage.records().is_empty()
    }

    /// Takes those records away; who calls has the lock.
    pub(super) async fn withdraw_records(&self, orders: &Orders) {
        let answers = Answers::new(&self.settings.challenge, &orders.challenges, &self.storage);
        if matches!(self.settings.challenge, conf::AcmeChallenge::Dns01 { .. }) {
            tracing::info!(
                hosts = self.shown(),
                "records of an order that broke off are taken away"
            );
        }
        answers.withdraw().await;
    }

    /// What was under way has come to no end.
    pub(super) fn broke_off(&self) {
        self.known().progress.is_ordering = false;
    }

    /// One order, at each directory until one gives a certificate.
    pub(super) async fn order(&self, orders: &Orders) {
        self.known().progress.is_ordering = true;
        let ended = self.try_order(orders).await;
        match ended {
            Ok(stored) => self.succeeded(stored, orders),
            Err(failure) => self.failed(&failure, orders),
        }
        let mut known = self.known();
        known.progress.is_ordering = false;
        known.progress.orders += 1;
    }

    async fn try_order(&self, orders: &Orders) -> Result<Stored, Failure> {
        let client = self.client()?;
        let current = self.obtained.current();
        let wanted = Wanted {
            settings: &self.settings,
            storage: &self.storage,
            challenges: &orders.challenges,
            replaces: current.map(|live| (live.leaf.clone(), self.known().directory.clone())),
        };
        let mut first: Option<Failure> = None;
        for directory in &self.settings.directories {
            match order::obtain(&wanted, directory, &client).await {
                Ok(stored) => return Ok(stored),
                Err(failure) => {
                    tracing::warn!(
                        hosts = self.shown(),
                        directory = directory.url,
                        "no certificate from this authority: {failure}"
                    );
                    first = Some(match first {
                        None => failure,
                        Some(first) => first.and(&failure),
                    });
                }
            }
        }
        let none = || {
            Failure::new(
                Outcome::Unusable,
                "there is no directory",
                "see `directory`",
            )
        };
        Err(first.unwrap_or_else(none))
    }

    fn succeeded(&self, stored: Stored, orders: &Orders) {
        orders.count(Outcome::Issued);
        let left = stored.live.leaf.not_after.duration_since(clock::wall());
        let days = left.unwrap_or_default().as_secs() / 86_400;
        tracing::info!(
            hosts = self.shown(),
            directory = stored.directory,
            days,
            "a new certificate is in use"
        );
        self.take(stored);
        self.known().failed = Failed::default();
        if let Err(error) = self.storage.keep_failed(None) {
            tracing::warn!("the ACME storage cannot be written: {error}");
        }
    }

    fn failed(&self, failure: &Failure, orders: &Orders) {
        orders.count(failure.outcome);
        let now = clock::wall();
        let failures = self.known().failed.failures.saturating_add(1);
        let pause = schedule::pause(
            failures,
            failure.outcome,
            failure.retry_after,
            random::share(),
        );
        let next = now + pause;
        let since = next.duration_since(UNIX_EPOCH).unwrap_or_default();
        let failed = Failed {
            failures,
            next: since.as_secs(),
            reason: failure.to_string(),
            settings: self.fingerprint(),
        };
        if let Err(error) = self.storage.keep_failed(Some(&failed)) {
            tracing::warn!("the ACME storage cannot be written: {error}");
        }
        self.known().failed = failed;
        let minutes = pause.as_secs().div_ceil(60);
        let current = self.obtained.current();
        let leaf = current.as_ref().map(|live| &live.leaf);
        let left = leaf.map(|leaf| leaf.not_after.duration_since(now));
        let soon = leaf.map_or(SOON, |leaf| SOON.min(leaf.life() / 4));
        match left {
            Some(Ok(left)) if left > soon => {
                tracing::warn!(
                    hosts = self.shown(),
                    failures,
                    next_try_in_minutes = minutes,
                    days_left = left.as_secs() / 86_400,
                    "certificate not renewed, the old one serves: {failure}"
                );
            }
            Some(Ok(left)) => {
                tracing::error!(
                    hosts = self.shown(),
                    failures,
                    next_try_in_minutes = minutes,
                    days_left = left.as_secs() / 86_400,
                    "certificate not renewed, and the old one ends soon: {failure}"
                );
            }
            Some(Err(_)) => {
                tracing::error!(
                    hosts = self.shown(),
                    failures,
                    next_try_in_minutes = minutes,
                    "certificate not renewed, and the old one is over: {failure}"
                );
            }
            None => {
                tracing::error!(
                    hosts = self.shown(),
                    failures,
                    next_try_in_minutes = minutes,
                    "no certificate: {failure}"
                );
            }
        }
    }

    pub(super) fn shown(&self) -> String {
        self.settings.hosts.join(" ")
    }
}
