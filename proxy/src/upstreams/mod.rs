//! What lives beside requests: the endpoints of each upstream with their state,
//! the connections to them, and the checks that watch them.

mod link;
mod prober;

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use balancer::{EndpointIndex, Outcome, Pool, PoolSettings, Transition};
use pingora::protocols::ALPN;
use pingora::upstreams::peer::HttpPeer;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

pub(crate) use link::Link;
pub(crate) use prober::Probers;

use crate::clock;
use crate::observe::metrics::EndpointMetrics;

/// Streams on one HTTP/2 connection to an endpoint.
const H2_STREAMS: usize = 100;

/// One `[upstream.NAME]`, ready for requests.
pub(crate) struct Upstream {
    /// As configured.
    pub(crate) settings: conf::Upstream,
    /// Who gets the next request.
    pub(crate) pool: Pool,
    /// What to connect to, by endpoint.
    peers: Vec<HttpPeer>,
    /// Connections, by worker. Shared with the upstream of the configuration before, where
    /// what they depend on did not change.
    links: Arc<[Link]>,
    /// Counters, by endpoint.
    metrics: Vec<Arc<EndpointMetrics>>,
}

/// Why an upstream cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// An endpoint's name has no address.
    #[error("upstream {upstream:?}: endpoint {endpoint}: {reason}")]
    Resolve {
        /// The upstream.
        upstream: String,
        /// The endpoint as configured.
        endpoint: String,
        /// The resolver's answer.
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
}

/// Finds out whether the upstream's names and files can be used.
///
/// # Errors
/// See [`UpstreamError`].
pub(crate) fn verify(settings: &conf::Upstream) -> Result<Vec<SocketAddr>, UpstreamError> {
    if let Some(path) = settings.tls.as_ref().and_then(|tls| tls.ca.as_ref()) {
        verify_ca(path).map_err(|reason| UpstreamError::Ca {
            upstream: settings.name.clone(),
            path: path.clone(),
            reason,
        })?;
    }
    settings
        .endpoints
        .iter()
        .map(|endpoint| resolve(&settings.name, &endpoint.address))
        .collect()
}

/// Pingora gives up the whole process for a file that it cannot use, so it is read here first.
fn verify_ca(path: &Path) -> Result<(), String> {
    let mut anchors = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| error.to_string())?;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| error.to_string())?;
        anchors
            .add(certificate)
            .map_err(|error| error.to_string())?;
    }
    match anchors.is_empty() {
        true => Err("the file has no CERTIFICATE section".into()),
        false => Ok(()),
    }
}

impl Upstream {
    /// Builds the upstream; `previous` is what had its name before a reload.
    ///
    /// # Errors
    /// See [`UpstreamError`].
    pub(crate) fn new(
        settings: &conf::Upstream,
        previous: Option<&Self>,
        workers: usize,
        metrics: Vec<Arc<EndpointMetrics>>,
    ) -> Result<Self, UpstreamError> {
        let addresses = verify(settings)?;
        let pool = Pool::new(
            pool_settings(settings, &addresses),
            previous.map(|previous| &previous.pool),
            clock::now(),
        );
        let group = group_of(&settings.name);
        let peers: Vec<HttpPeer> = addresses
            .iter()
            .map(|address| peer(settings, *address, group))
            .collect();
        let links = previous
            .filter(|previous| previous.links_fit(settings, &peers, workers))
            .map_or_else(
                || {
                    (0..workers)
                        .map(|_| Link::new(settings, peers.len()))
                        .collect()
                },
                |previous| previous.links.clone(),
            );
        Ok(Self {
            settings: settings.clone(),
            pool,
            peers,
            links,
            metrics,
        })
    }

    /// Connections are kept by endpoint, so they survive while the endpoints and what is
    /// spoken to them do.
    fn links_fit(&self, settings: &conf::Upstream, peers: &[HttpPeer], workers: usize) -> bool {
        self.links.len() == workers
            && self.settings.tls == settings.tls
            && self.settings.protocol == settings.protocol
            && self.settings.keepalive == settings.keepalive
            && self.peers.len() == peers.len()
            && self
                .peers
                .iter()
                .zip(peers)
                .all(|(old, new)| old._address == new._address)
    }

    pub(crate) fn name(&self) -> &str {
        &self.settings.name
    }

    pub(crate) fn peer(&self, endpoint: EndpointIndex) -> Option<&HttpPeer> {
        self.peers.get(endpoint.as_usize())
    }

    pub(crate) fn link(&self, worker: usize) -> Option<&Link> {
        self.links.get(worker)
    }

    /// Tells the pool how an attempt ended, and the log what came of it.
    pub(crate) fn record(&self, endpoint: EndpointIndex, outcome: Outcome, now: Instant) {
        if let Some(transition) = self.pool.record(endpoint, outcome, now) {
            self.log(&transition, outcome.as_str());
        }
    }

    /// Brings the gauges of its endpoints up to date.
    pub(crate) fn show(&self, now: Instant) {
        for (status, metrics) in self.pool.status(now).iter().zip(&self.metrics) {
            let healthy = status.health == balancer::Health::Healthy;
            metrics.set(healthy, u64::from(status.active));
        }
    }

    /// Writes a change of an endpoint's state with the numbers behind it, and what was seen last.
    pub(crate) fn log(&self, transition: &Transition, reason: &str) {
        let upstream = self.name();
        let name = |index: EndpointIndex| self.pool.endpoint(index).name();
        match transition {
            Transition::Unhealthy {
                endpoint,
                failed_checks,
                evidence,
            } => {
                tracing::warn!(
                    upstream,
                    endpoint = name(*endpoint),
                    failed_checks,
                    by = evidence.as_str(),
                    reason,
                    "endpoint is out of service"
                );
            }
            Transition::Healthy {
                endpoint,
                passed_checks,
            } => {
                tracing::info!(
                    upstream,
                    endpoint = name(*endpoint),
                    passed_checks,
                    "endpoint is back in service"
                );
            }
            Transition::Ejected {
                endpoint,
                errors,
                last,
                times,
                ejected_for,
                ejected,
                endpoints,
            } => {
                if let Some(metrics) = self.metrics.get(endpoint.as_usize()) {
                    metrics.ejected();
                }
                tracing::warn!(
                    upstream,
                    endpoint = name(*endpoint),
                    errors,
                    last = last.as_str(),
                    times,
                    ?ejected_for,
                    ejected,
                    endpoints,
                    "endpoint is ejected after errors in a row"
                );
            }
            Transition::Returned {
                endpoint,
                times,
                early,
            } => {
                tracing::info!(
                    upstream,
                    endpoint = name(*endpoint),
                    times,
                    early,
                    "endpoint returns from ejection"
                );
            }
        }
    }
}

fn pool_settings(settings: &conf::Upstream, addresses: &[SocketAddr]) -> PoolSettings {
    let endpoints = settings
        .endpoints
        .iter()
        .zip(addresses)
        .map(|(endpoint, address)| balancer::EndpointSettings {
            address: *address,
            name: endpoint.address.to_string(),
            weight: endpoint.weight,
            backup: endpoint.backup,
        })
        .collect();
    PoolSettings {
        endpoints,
        balance: match settings.balance {
            conf::Balance::RoundRobin => balancer::Balance::RoundRobin,
            conf::Balance::Random => balancer::Balance::Random,
            conf::Balance::LeastRequest { .. } | conf::Balance::PeakEwma => {
                balancer::Balance::LeastRequest
            }
            conf::Balance::Hash { .. } => balancer::Balance::Hash,
        },
        active_checks: settings
            .health_check
            .as_ref()
            .map(|check| balancer::Thresholds {
                unhealthy_after: check.unhealthy_after,
                healthy_after: check.healthy_after,
            }),
        outlier: settings
            .outlier_detection
            .as_ref()
            .map(|outlier| balancer::OutlierSettings {
                consecutive_errors: outlier.consecutive_errors,
                ejection_time: outlier.ejection_time,
                max_ejected_percent: outlier.max_ejected,
            }),
    }
}

/// A name is looked up when the file is loaded; of its addresses an IPv4 one is preferred.
fn resolve(upstream: &str, address: &conf::EndpointAddress) -> Result<SocketAddr, UpstreamError> {
    let (host, port) = match address {
        conf::EndpointAddress::Ip(address) => return Ok(*address),
        conf::EndpointAddress::Name { host, port } => (host.as_str(), *port),
        conf::EndpointAddress::Srv(_) | conf::EndpointAddress::Unix(_) => ("", 0),
    };
    let failed = |reason: String| UpstreamError::Resolve {
        upstream: upstream.to_owned(),
        endpoint: address.to_string(),
        reason,
    };
    let mut found: Vec<SocketAddr> = (host, port)
        .to_socket_addrs()
        .map_err(|error| failed(format!("the name cannot be looked up: {error}")))?
        .collect();
    found.sort_by_key(SocketAddr::is_ipv6);
    found
        .first()
        .copied()
        .ok_or_else(|| failed("the name has no address".into()))
}

fn peer(settings: &conf::Upstream, address: SocketAddr, group: u64) -> HttpPeer {
    let name = settings
        .tls
        .as_ref()
        .map(|tls| tls.server_name.clone())
        .unwrap_or_default();
    let mut peer = HttpPeer::new(address, settings.tls.is_some(), name);
    peer.group_key = group;
    let options = &mut peer.options;
    options.connection_timeout = Some(settings.connect_timeout);
    options.total_connection_timeout = Some(settings.connect_timeout);
    options.idle_timeout = Some(settings.keepalive.idle_timeout);
    options.read_timeout = Some(settings.first_byte_timeout.max(settings.read_timeout));
    options.write_timeout = Some(settings.read_timeout);
    options.max_h2_streams = H2_STREAMS;
    options.alpn = match settings.protocol {
        conf::UpstreamProtocol::H1 => ALPN::H1,
        conf::UpstreamProtocol::H2 => ALPN::H2,
    };
    if let Some(tls) = &settings.tls {
        options.verify_cert = tls.verify;
        options.verify_hostname = tls.verify;
    }
    peer
}

/// Keeps connections of two upstreams apart even when they name one address.
fn group_of(name: &str) -> u64 {
    balancer::hash_key(name.as_bytes())
}
