//! Which endpoints an upstream has now: addresses of names, SRV records, lists in files and
//! behind URLs.
//!
//! A [`Source`] is asked again and again; each of its parts (a name, a list) is looked up when it
//! is due, and keeps what it knew while it fails. It decides nothing about traffic, and knows
//! neither pools nor connections.

mod addresses;
pub(crate) mod connect;
mod dns;
mod document;
mod error;
mod file;
mod known;
mod names;
mod srv;
#[cfg(test)]
mod tests;
mod url;

use std::collections::HashSet;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use conf::{Endpoint, EndpointAddress};

pub(crate) use super::target::Target;
pub(crate) use error::{DiscoveryError, Part, Trouble};

use self::dns::Dns;
use self::file::Watched;
use self::known::Known;
use self::names::Names;
use self::url::Polled;
use crate::{clock, random};

/// Endpoints of one upstream.
const MOST: usize = 10_000;

/// Between two looks at a file.
const LOOK_AT_FILE: Duration = Duration::from_secs(1);

/// What falls due within this time is done together.
const TOGETHER: Duration = Duration::from_millis(100);

/// One endpoint as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// For logs and metrics: `app.internal:8080` for a name with one node behind it, else the
    /// address.
    pub(crate) name: String,
    /// Where it is.
    pub(crate) target: Target,
    /// Share of requests relative to others (1 to 1000).
    pub(crate) weight: NonZeroU32,
    /// Lower ones are used first (0 to 9).
    pub(crate) priority: u8,
    /// Used only while no other is available.
    pub(crate) backup: bool,
    /// Where it stands.
    pub(crate) zone: Option<String>,
}

/// What one look-up came to.
#[derive(Debug)]
pub(crate) struct LookUp {
    /// In the order of the configuration, those of a name in that of their addresses; no two with
    /// one [`Target::id`], at least one.
    pub(crate) endpoints: Vec<Found>,
    /// When the next look-up is worth while.
    pub(crate) again_in: Duration,
    /// Parts that were tried now and failed: they stand in `endpoints` as they were known last,
    /// or are missing if they never were.
    pub(crate) failures: Vec<DiscoveryError>,
    /// When the part that was confirmed longest ago was confirmed: the age of the list.
    pub(crate) as_of: Instant,
}

/// Where the endpoints of one upstream come from.
pub(crate) struct Source {
    configured: Vec<Endpoint>,
    listed: Option<Listed>,
    names: Option<Names>,
}

/// A list outside of the configuration.
struct Listed {
    place: Place,
    known: Known<Vec<Endpoint>>,
}

enum Place {
    File(Watched),
    Url {
        polled: Box<Polled>,
        every: Duration,
        dns: Arc<Dns>,
    },
}

impl Source {
    /// Reads nothing but the system's DNS settings, and these only where names are to be looked
    /// up.
    ///
    /// # Errors
    /// The URL cannot be used, or /etc/resolv.conf.
    pub(crate) fn new(settings: &conf::Upstream) -> Result<Self, DiscoveryError> {
        let changes = settings.discovery.is_some()
            || settings.endpoints.iter().any(|endpoint| {
                matches!(
                    endpoint.address,
                    EndpointAddress::Name { .. } | EndpointAddress::Srv(_)
                )
            });
        let names = changes.then(|| Names::new(&settings.resolve)).transpose()?;
        let may_be_empty = !settings.endpoints.is_empty();
        let place = match (&settings.discovery, &names) {
            (None, _) | (_, None) => None,
            (Some(conf::Discovery::File(path)), _) => {
                Some(Place::File(Watched::new(path, may_be_empty)))
            }
            (
                Some(conf::Discovery::Http {
                    url,
                    every,
                    timeout,
                }),
                Some(names),
            ) => Some(Place::Url {
                polled: Box::new(Polled::new(url, *timeout, may_be_empty)?),
                every: *every,
                dns: names.dns().clone(),
            }),
        };
        let listed = place.map(|place| Listed {
            place,
            known: Known::nothing(clock::now()),
        });
        Ok(Self {
            configured: settings.endpoints.clone(),
            listed,
            names,
        })
    }

    /// Whether every look-up gives the same: addresses and sockets alone.
    pub(crate) fn is_fixed(&self) -> bool {
        self.names.is_none()
    }

    /// Brings what is due up to date; some ten seconds at most.
    ///
    /// May be dropped at any await: what was learned until then is kept or asked for again.
    ///
    /// # Errors
    /// No endpoint is known, nor was one before: why not. A definite reason is preferred to a
    /// passing one.
    pub(crate) async fn look_up(&mut self) -> Result<LookUp, DiscoveryError> {
        let mut failures = Vec::new();
        if let Some(listed) = &mut self.listed
            && listed.known.due() <= clock::now() + TOGETHER
            && let Err(failure) = listed.refresh().await
        {
            failures.push(failure);
        }
        let listed = self.listed.as_ref().and_then(|listed| listed.known.value());
        let wanted = || self.configured.iter().chain(listed.into_iter().flatten());
        if let Some(names) = &mut self.names {
            failures.extend(names.refresh(wanted(), TOGETHER).await);
        }
        let mut endpoints = match &self.names {
            Some(names) => assemble(wanted().flat_map(|endpoint| names.found(endpoint))),
            None => assemble(wanted().filter_map(fixed)),
        };
        if endpoints.len() > MOST {
            let reason = format!("{} endpoints, of which {MOST} are taken", endpoints.len());
            failures.push(DiscoveryError::new(Part::All, Trouble::TooMany, reason));
            endpoints.truncate(MOST);
        }
        if endpoints.is_empty() {
            return Err(self.why_none(failures));
        }
        Ok(LookUp {
            endpoints,
            again_in: self.again_in(),
            failures,
            as_of: self.as_of(),
        })
    }

    /// When the next look-up is worth while, after one that failed too.
    pub(crate) fn again_in(&self) -> Duration {
        let listed = self.listed.as_ref().map(|listed| listed.known.due());
        let names = self.names.as_ref().and_then(Names::due);
        match listed.into_iter().chain(names).min() {
            Some(due) => due.saturating_duration_since(clock::now()).max(TOGETHER),
            None => Duration::MAX,
        }
    }

    fn as_of(&self) -> Instant {
        let listed = self.listed.as_ref().map(|listed| listed.known.as_of());
        let names = self.names.as_ref().and_then(Names::as_of);
        let parts = listed.into_iter().chain(names);
        parts.min().unwrap_or_else(clock::now)
    }

    fn why_none(&self, mut failures: Vec<DiscoveryError>) -> DiscoveryError {
        let before = self.listed.iter().filter_map(|listed| listed.known.error());
        let before = before.chain(self.names.iter().flat_map(Names::errors));
        failures.extend(before.cloned());
        let definite = failures.iter().position(DiscoveryError::is_definite);
        match failures.is_empty() {
            false => failures.swap_remove(definite.unwrap_or(0)),
            true => DiscoveryError::new(Part::All, Trouble::NotFound, "there is no endpoint"),
        }
    }
}

impl Listed {
    async fn refresh(&mut self) -> Result<(), DiscoveryError> {
        let (changed, again_in, at_most) = match &mut self.place {
            Place::File(watched) => (watched.changed().await, LOOK_AT_FILE, LOOK_AT_FILE),
            Place::Url { polled, every, dns } => {
                if let Some(renewed) = dns.renewed() {
                    *dns = Arc::new(renewed);
                }
                let changed = polled.changed(dns).await;
                (changed, url::spread(*every, random::share()), *every)
            }
        };
        let now = clock::now();
        match changed {
            Ok(Some(list)) => {
                self.known.found(list, now, again_in);
                Ok(())
            }
            Ok(None) => {
                self.known.confirmed(now, again_in);
                Ok(())
            }
            Err(error) => Err(self.known.failed(error, now, at_most)),
        }
    }
}

/// An endpoint that needs no look-up.
fn fixed(endpoint: &Endpoint) -> Option<Found> {
    let target = match &endpoint.address {
        EndpointAddress::Ip(address) => Target::Inet {
            first: *address,
            second: None,
        },
        EndpointAddress::Unix(path) => Target::Unix(path.clone()),
        EndpointAddress::Name { .. } | EndpointAddress::Srv(_) => return None,
    };
    Some(Found {
        name: endpoint.address.to_string(),
        ..found(endpoint, target)
    })
}

/// One node behind an endpoint, named by its address.
fn found(endpoint: &Endpoint, target: Target) -> Found {
    Found {
        name: target.id(),
        target,
        weight: endpoint.weight,
        priority: endpoint.priority,
        backup: endpoint.backup,
        zone: endpoint.zone.clone(),
    }
}

/// Of two with one identity the one named first stays: the configuration's before a list's. The order
/// is that of the configuration and of the list.
fn assemble(found: impl Iterator<Item = Found>) -> Vec<Found> {
    let mut seen = HashSet::new();
    found.filter(|one| seen.insert(one.target.id())).collect()
}
