//! All names of one upstream: what is known of each, and how it is brought up to date.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use conf::{Endpoint, EndpointAddress, Family, Resolve};
use tokio::task::JoinSet;

use super::addresses::{Addresses, has_route};
use super::dns::{Answer, Dns};
use super::error::Part;
use super::known::Known;
use super::srv::{self, Service};
use super::{DiscoveryError, Found, Target, Trouble, fixed, found};
use crate::clock;

/// Names asked for at once.
const AT_ONCE: usize = 32;

/// For all names that are due together; what has no answer by then is tried again later.
const ROUND: Duration = Duration::from_secs(10);

/// However short a TTL is.
const SOONEST: Duration = Duration::from_secs(1);

pub(super) struct Names {
    dns: Arc<Dns>,
    family: Family,
    every: Duration,
    hosts: BTreeMap<String, Known<Addresses>>,
    services: BTreeMap<String, Known<Vec<Service>>>,
}

impl Names {
    /// # Errors
    /// See [`Dns::new`].
    pub(super) fn new(settings: &Resolve) -> Result<Self, DiscoveryError> {
        Ok(Self {
            dns: Arc::new(Dns::new(&settings.servers)?),
            family: settings.family,
            every: settings.every.max(SOONEST),
            hosts: BTreeMap::new(),
            services: BTreeMap::new(),
        })
    }

    pub(super) fn dns(&self) -> &Arc<Dns> {
        &self.dns
    }

    /// When the first part is due.
    pub(super) fn due(&self) -> Option<Instant> {
        let services = self.services.values().map(Known::due);
        services.chain(self.hosts.values().map(Known::due)).min()
    }

    /// When the part that was confirmed longest ago was confirmed.
    pub(super) fn as_of(&self) -> Option<Instant> {
        let services = self.services.values().map(Known::as_of);
        services.chain(self.hosts.values().map(Known::as_of)).min()
    }

    /// Why parts are not up to date.
    pub(super) fn errors(&self) -> impl Iterator<Item = &DiscoveryError> {
        let services = self.services.values().filter_map(Known::error);
        services.chain(self.hosts.values().filter_map(Known::error))
    }

    /// Asks for every name of `wanted` that is due within `ahead`, forgets the others, and tells
    /// what failed.
    pub(super) async fn refresh(
        &mut self,
        wanted: impl Iterator<Item = &Endpoint>,
        ahead: Duration,
    ) -> Vec<DiscoveryError> {
        let mut hosts = BTreeSet::new();
        let mut services = BTreeSet::new();
        for endpoint in wanted {
            match &endpoint.address {
                EndpointAddress::Name { host, .. } => hosts.insert(host.clone()),
                EndpointAddress::Srv(name) => services.insert(name.clone()),
                EndpointAddress::Ip(_) | EndpointAddress::Unix(_) => continue,
            };
        }
        if hosts.is_empty() && services.is_empty() {
            self.hosts.clear();
            self.services.clear();
            return Vec::new();
        }
        if let Some(renewed) = self.dns.renewed() {
            self.dns = Arc::new(renewed);
            let now = clock::now();
            self.hosts.values_mut().for_each(|known| known.due_now(now));
            let services = self.services.values_mut();
            services.for_each(|known| known.due_now(now));
        }
        let until = clock::now() + ROUND;
        let mut failures = Vec::new();
        self.ask_for_services(services, ahead, until, &mut failures)
            .await;
        let targets = self.services.values().filter_map(Known::value).flatten();
        hosts.extend(targets.map(|service| service.target.clone()));
        self.ask_for_hosts(hosts, ahead, until, &mut failures).await;
        failures
    }

    async fn ask_for_services(
        &mut self,
        wanted: BTreeSet<String>,
        ahead: Duration,
        until: Instant,
        failures: &mut Vec<DiscoveryError>,
    ) {
        let due = due_of(&mut self.services, wanted, ahead);
        let dns = &self.dns;
        let (answers, left) = ask(due, until, |name| {
            let dns = dns.clone();
            async move { dns.services(&name).await }
        })
        .await;
        let now = clock::now();
        for (name, answer) in answers {
            let Some(known) = self.services.get_mut(&name) else {
                continue;
            };
            let part = Part::Srv(name);
            let error = match answer.unwrap_or_else(no_answer) {
                Answer::Records(services, hold) => {
                    known.found(services, now, hold.clamp(SOONEST, self.every));
                    continue;
                }
                Answer::None(reason) => DiscoveryError::new(part, Trouble::NotFound, reason),
                Answer::Failed(kind, reason) => DiscoveryError::new(part, kind, reason),
            };
            failures.push(known.failed(error, now, self.every));
        }
        failures.extend(left_over(left));
    }

    async fn ask_for_hosts(
        &mut self,
        wanted: BTreeSet<String>,
        ahead: Duration,
        until: Instant,
        failures: &mut Vec<DiscoveryError>,
    ) {
        let due = due_of(&mut self.hosts, wanted, ahead);
        let dns = &self.dns;
        let v4 = self.family != Family::Ipv6;
        let v6 = self.family != Family::Ipv4;
        let (answers, left) = ask(due, until, |host| {
            let dns = dns.clone();
            async move { dns.addresses(&host, v4, v6).await }
        })
        .await;
        let now = clock::now();
        for (host, answer) in answers {
            let Some(known) = self.hosts.get_mut(&host) else {
                continue;
            };
            let (v4, v6) = answer.unwrap_or_else(|| (v4.then(no_answer), v6.then(no_answer)));
            failures.extend(take_addresses(known, host, v4, v6, now, self.every));
        }
        failures.extend(left_over(left));
    }

    /// The nodes behind an endpoint, as far as they are known.
    pub(super) fn found(&self, endpoint: &Endpoint) -> Vec<Found> {
        let mut found = self.behind(endpoint);
        // A DNS server gives them in another order each time.
        found.sort_by(|one, other| one.target.compare(&other.target));
        found
    }

    fn behind(&self, endpoint: &Endpoint) -> Vec<Found> {
        match &endpoint.address {
            EndpointAddress::Ip(_) | EndpointAddress::Unix(_) => {
                fixed(endpoint).into_iter().collect()
            }
            EndpointAddress::Name { host, port } => {
                named(endpoint, host, *port, self.targets(host, *port))
            }
            EndpointAddress::Srv(name) => self.behind_services(endpoint, name),
        }
    }

    fn targets(&self, host: &str, port: u16) -> Vec<Target> {
        let known = self.hosts.get(host).and_then(Known::value);
        known.map_or_else(Vec::new, |addresses| addresses.targets(port, has_route))
    }

    fn behind_services(&self, endpoint: &Endpoint, name: &str) -> Vec<Found> {
        let Some(services) = self.services.get(name).and_then(Known::value) else {
            return Vec::new();
        };
        let targets: Vec<Vec<Target>> = services
            .iter()
            .map(|service| self.targets(&service.target, service.port))
            .collect();
        let counts: Vec<usize> = targets.iter().map(Vec::len).collect();
        let ranks = srv::rank(services, &counts);
        services
            .iter()
            .zip(targets)
            .zip(ranks)
            .flat_map(|((service, targets), (priority, weight))| {
                let host = service.target.trim_end_matches('.');
                let mut nodes = named(endpoint, host, service.port, targets);
                for node in &mut nodes {
                    node.priority = priority;
                    node.weight = weight;
                }
                nodes
            })
            .collect()
    }
}

/// A name with one node behind it is that node's name too.
fn named(endpoint: &Endpoint, host: &str, port: u16, targets: Vec<Target>) -> Vec<Found> {
    let alone = targets.len() == 1;
    targets
        .into_iter()
        .map(|target| {
            let mut node = found(endpoint, target);
            if alone {
                node.name = format!("{host}:{port}");
            }
            node
        })
        .collect()
}

/// Brings the table to the names of `wanted`; those that are due, longest overdue first.
fn due_of<T>(
    table: &mut BTreeMap<String, Known<T>>,
    wanted: BTreeSet<String>,
    ahead: Duration,
) -> Vec<String> {
    let now = clock::now();
    table.retain(|name, _| wanted.contains(name));
    for name in wanted {
        table.entry(name).or_insert_with(|| Known::nothing(now));
    }
    let mut due: Vec<(Instant, &String)> = table
        .iter()
        .map(|(name, known)| (known.due(), name))
        .filter(|(due, _)| *due <= now + ahead)
        .collect();
    due.sort_unstable();
    due.into_iter().map(|(_, name)| name.clone()).collect()
}

/// Asks for some at a time until all have answered or time is up. Gives the answers (`None`:
/// asked, and not answered by then), and how many were not asked.
async fn ask<A, F>(
    names: Vec<String>,
    until: Instant,
    question: impl Fn(String) -> F,
) -> (Vec<(String, Option<A>)>, usize)
where
    A: Send + 'static,
    F: Future<Output = A> + Send + 'static,
{
    let mut waiting = names.into_iter();
    let mut asked = BTreeSet::new();
    let mut under_way = JoinSet::new();
    let mut answers = Vec::new();
    loop {
        while under_way.len() < AT_ONCE
            && let Some(name) = waiting.next()
        {
            asked.insert(name.clone());
            let answer = question(name.clone());
            under_way.spawn(async move { (name, answer.await) });
        }
        let next = tokio::time::timeout_at(until.into(), under_way.join_next()).await;
        match next {
            Ok(Some(Ok((name, answer)))) => {
                asked.remove(&name);
                answers.push((name, Some(answer)));
            }
            // A question that was given up counts as one without an answer.
            Ok(Some(Err(_))) => {}
            Ok(None) | Err(_) => break,
        }
    }
    answers.extend(asked.into_iter().map(|name| (name, None)));
    (answers, waiting.len())
}

fn no_answer<T>() -> Answer<T> {
    let reason = format!("no answer within {ROUND:?}");
    Answer::Failed(Trouble::Timeout, reason)
}

fn left_over(names: usize) -> Option<DiscoveryError> {
    (names > 0).then(|| {
        let reason = format!("{names} more names are due than were answered within {ROUND:?}");
        DiscoveryError::new(Part::All, Trouble::Timeout, reason)
    })
}

/// Takes the answers about both families of a host; `None`: it was not asked about.
///
/// Where one family gave addresses and the other no answer, the addresses are taken, beside those
/// known of the other family before.
fn take_addresses(
    known: &mut Known<Addresses>,
    host: String,
    v4: Option<Answer<Ipv4Addr>>,
    v6: Option<Answer<Ipv6Addr>>,
    now: Instant,
    every: Duration,
) -> Option<DiscoveryError> {
    let mut none = None;
    let mut failed = None;
    let mut hold = every;
    let v4 = split(v4, &mut none, &mut failed, &mut hold);
    let v6 = split(v6, &mut none, &mut failed, &mut hold);
    let fresh = v4.as_ref().is_some_and(|v4| !v4.is_empty())
        || v6.as_ref().is_some_and(|v6| !v6.is_empty());
    let part = Part::Name(host);
    match (fresh, failed) {
        (true, None) => {
            let addresses = Addresses::new(v4.unwrap_or_default(), v6.unwrap_or_default());
            known.found(addresses, now, hold.clamp(SOONEST, every));
            None
        }
        (true, Some((kind, reason))) => {
            let before = known.value().cloned().unwrap_or_default();
            let addresses = Addresses::new(v4.unwrap_or(before.v4), v6.unwrap_or(before.v6));
            let error = DiscoveryError::new(part, kind, reason);
            Some(known.found_in_part(addresses, error, now, every))
        }
        (false, Some((kind, reason))) => {
            let error = DiscoveryError::new(part, kind, reason);
            Some(known.failed(error, now, every))
        }
        (false, None) => {
            let reason = none.unwrap_or_else(|| "it has no address".to_owned());
            let error = DiscoveryError::new(part, Trouble::NotFound, reason);
            Some(known.failed(error, now, every))
        }
    }
}

/// The addresses of one family; `None`: there was no answer.
fn split<T>(
    answer: Option<Answer<T>>,
    none: &mut Option<String>,
    failed: &mut Option<(Trouble, String)>,
    hold: &mut Duration,
) -> Option<Vec<T>> {
    match answer {
        Some(Answer::Records(found, held)) => {
            *hold = held.min(*hold);
            Some(found)
        }
        Some(Answer::None(reason)) => {
            none.get_or_insert(reason);
            Some(Vec::new())
        }
        Some(Answer::Failed(kind, reason)) => {
            *failed = Some((kind, reason));
            None
        }
        None => Some(Vec::new()),
    }
}
