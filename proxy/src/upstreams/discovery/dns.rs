//! Questions to the DNS.
//!
//! hickory asks; here is decided whom, for how long, and what an answer means. Nothing is cached
//! in it: how long an answer holds is [`Known`](super::known::Known)'s business, and a second
//! cache below would only make answers older than their TTL.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::name_server::TokioConnectionProvider;
use hickory_resolver::proto::ProtoErrorKind;
use hickory_resolver::proto::op::{Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::proto::xfer::Protocol;
use hickory_resolver::{Hosts, ResolveError, ResolverBuilder, TokioResolver, system_conf};

use super::error::Part;
use super::file::Stamp;
use super::srv::Service;
use super::{DiscoveryError, Trouble};

/// For one server to answer one question.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Further tries of a question that got no answer.
const RETRIES: usize = 1;

const RESOLV_CONF: &str = "/etc/resolv.conf";
const HOSTS: &str = "/etc/hosts";

/// What one question came to.
#[derive(Debug)]
pub(super) enum Answer<T> {
    /// These records, and how long they hold.
    Records(Vec<T>, Duration),
    /// There is the answer that there are none.
    None(String),
    /// There is no answer.
    Failed(Trouble, String),
}

/// Whom to ask.
pub(super) struct Dns {
    resolver: TokioResolver,
    /// The system's file of names; `None` where own servers are configured, which are then asked
    /// alone.
    hosts: Option<Hosts>,
    /// For errors.
    servers: String,
    /// Of the system's files that all this came from.
    stamps: [Option<Stamp>; 2],
}

impl Dns {
    /// Asks `servers`, or those of the system where there are none.
    ///
    /// # Errors
    /// /etc/resolv.conf cannot be read or understood.
    pub(super) fn new(servers: &[SocketAddr]) -> Result<Self, DiscoveryError> {
        let stamps = system_stamps();
        let (config, mut options) = match servers {
            [] => system_config()?,
            servers => (own_config(servers), ResolverOpts::default()),
        };
        options.timeout = TIMEOUT;
        options.attempts = RETRIES;
        options.cache_size = 0;
        // The files are looked into here, see `addresses`.
        options.use_hosts_file = ResolveHosts::Never;
        let names = config.name_servers().iter();
        let mut asked: Vec<String> = names.map(|one| one.socket_addr.to_string()).collect();
        asked.dedup();
        let mut builder: ResolverBuilder<_> =
            TokioResolver::builder_with_config(config, TokioConnectionProvider::default());
        *builder.options_mut() = options;
        Ok(Self {
            resolver: builder.build(),
            hosts: servers
                .is_empty()
                .then(|| Hosts::from_system().unwrap_or_default()),
            servers: asked.join(", "),
            stamps,
        })
    }

    /// The same after a change of the system's files; `None`: there was none, or what is in them
    /// now is of no use.
    pub(super) fn renewed(&self) -> Option<Self> {
        self.hosts.as_ref()?;
        (system_stamps() != self.stamps)
            .then(|| Self::new(&[]).ok())
            .flatten()
    }

    /// The IPv4 and IPv6 addresses of a host, each where it is wanted.
    ///
    /// As with the system's own look-up, a name that stands in /etc/hosts in one family is not
    /// asked for in the DNS in the other.
    pub(super) async fn addresses(
        &self,
        host: &str,
        want_v4: bool,
        want_v6: bool,
    ) -> (Option<Answer<Ipv4Addr>>, Option<Answer<Ipv6Addr>>) {
        let name = match self.name(host) {
            Ok(name) => name,
            Err(reason) => return (none(want_v4, &reason), none(want_v6, &reason)),
        };
        let v4 = self.local(&name, RecordType::A).filter(|_| want_v4);
        let v6 = self.local(&name, RecordType::AAAA).filter(|_| want_v6);
        if v4.is_some() || v6.is_some() {
            let reason = "it has none in /etc/hosts";
            return (
                v4.map_or_else(
                    || none(want_v4, reason),
                    |found| Some(records(&found, ipv4)),
                ),
                v6.map_or_else(
                    || none(want_v6, reason),
                    |found| Some(records(&found, ipv6)),
                ),
            );
        }
        tokio::join!(
            async {
                match want_v4 {
                    true => Some(self.ask(name.clone(), RecordType::A, ipv4).await),
                    false => None,
                }
            },
            async {
                match want_v6 {
                    true => Some(self.ask(name.clone(), RecordType::AAAA, ipv6).await),
                    false => None,
                }
            }
        )
    }

    /// The SRV records of a name, but for those whose target is the root: "a target of `.` means
    /// that the service is decidedly not available at this domain" (RFC 2782).
    pub(super) async fn services(&self, name: &str) -> Answer<Service> {
        let name = match self.name(name) {
            Ok(name) => name,
            Err(reason) => return Answer::None(reason),
        };
        let service = |data: &RData| match data {
            RData::SRV(srv) if !srv.target().is_root() => Some(Service {
                priority: srv.priority(),
                weight: srv.weight(),
                target: srv.target().to_ascii().to_ascii_lowercase(),
                port: srv.port(),
            }),
            _ => None,
        };
        match self.ask(name, RecordType::SRV, service).await {
            Answer::Records(mut services, hold) => {
                services.sort_unstable();
                services.dedup();
                Answer::Records(services, hold)
            }
            other => other,
        }
    }

    /// The addresses to connect to for something beside requests, IPv6 and IPv4 in turn (RFC 8305,
    /// section 4).
    pub(super) async fn dialled(
        &self,
        host: &str,
        port: u16,
    ) -> Result<Vec<SocketAddr>, (Trouble, String)> {
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Ok(vec![(ip, port).into()]);
        }
        let mut trouble = None;
        let (v4, v6) = self.addresses(host, true, true).await;
        let mut v4 = taken(v4, &mut trouble).into_iter();
        let mut v6 = taken(v6, &mut trouble).into_iter();
        let mut found = Vec::new();
        loop {
            let before = found.len();
            found.extend(v6.next().map(|ip| SocketAddr::from((ip, port))));
            found.extend(v4.next().map(|ip| SocketAddr::from((ip, port))));
            if found.len() == before {
                break;
            }
        }
        match found.is_empty() {
            false => Ok(found),
            true => Err(trouble.unwrap_or_else(|| {
                let reason = format!("the name {host:?} has no address");
                (Trouble::NotFound, reason)
            })),
        }
    }

    /// Names are taken as the zone's: Unicode is left to those who write A-labels, an underscore
    /// is fine. With own servers a name is whole as it stands; with the system's its search list
    /// is gone through.
    fn name(&self, text: &str) -> Result<Name, String> {
        let mut name =
            Name::from_ascii(text).map_err(|error| format!("it is not a name: {error}"))?;
        if self.hosts.is_none() {
            name.set_fqdn(true);
        }
        Ok(name)
    }

    fn local(&self, name: &Name, kind: RecordType) -> Option<Lookup> {
        let query = Query::query(name.clone(), kind);
        self.hosts.as_ref()?.lookup_static_host(&query)
    }

    async fn ask<T>(
        &self,
        name: Name,
        kind: RecordType,
        take: impl Fn(&RData) -> Option<T>,
    ) -> Answer<T> {
        match self.resolver.lookup(name, kind).await {
            Ok(lookup) => match records(&lookup, take) {
                Answer::Records(found, _) if found.is_empty() => Answer::None(format!(
                    "no usable {kind} record is in the answer ({} asked)",
                    self.servers
                )),
                answer => answer,
            },
            Err(error) => self.failure(kind, &error),
        }
    }

    /// hickory reports every response code but the good one as "no records found".
    fn failure<T>(&self, kind: RecordType, error: &ResolveError) -> Answer<T> {
        let servers = &self.servers;
        match error.proto().map(|error| error.kind()) {
            Some(ProtoErrorKind::NoRecordsFound { response_code, .. }) => match response_code {
                ResponseCode::NXDomain => {
                    Answer::None(format!("there is no such name (NXDOMAIN from {servers})"))
                }
                ResponseCode::NoError => {
                    Answer::None(format!("it has no {kind} record ({servers} asked)"))
                }
                ResponseCode::Refused => Answer::Failed(
                    Trouble::Refused,
                    format!("{servers} will not answer us (REFUSED)"),
                ),
                code => Answer::Failed(
                    Trouble::ServerFailure,
                    format!("{servers} could not find its {kind} record: {code}"),
                ),
            },
            Some(ProtoErrorKind::Timeout) => Answer::Failed(
                Trouble::Timeout,
                format!("no answer about its {kind} record in time ({servers} asked)"),
            ),
            Some(ProtoErrorKind::Io(error)) => {
                let trouble = match error.kind() {
                    io::ErrorKind::ConnectionRefused => Trouble::Refused,
                    io::ErrorKind::TimedOut => Trouble::Timeout,
                    _ => Trouble::Io,
                };
                Answer::Failed(trouble, format!("{servers} cannot be asked: {error}"))
            }
            _ => Answer::Failed(Trouble::Io, format!("{servers} cannot be asked: {error}")),
        }
    }
}

fn none<T>(wanted: bool, reason: &str) -> Option<Answer<T>> {
    wanted.then(|| Answer::None(reason.to_owned()))
}

fn ipv4(data: &RData) -> Option<Ipv4Addr> {
    match data {
        RData::A(address) => Some(address.0),
        _ => None,
    }
}

fn ipv6(data: &RData) -> Option<Ipv6Addr> {
    match data {
        RData::AAAA(address) => Some(address.0),
        _ => None,
    }
}

/// The records of the kind, and the least TTL of all in the answer: of a chain of CNAMEs the
/// shortest link counts.
fn records<T>(lookup: &Lookup, take: impl Fn(&RData) -> Option<T>) -> Answer<T> {
    let hold = lookup.record_iter().map(|record| record.ttl()).min();
    let found = lookup.iter().filter_map(take).collect();
    Answer::Records(found, Duration::from_secs(hold.unwrap_or(0).into()))
}

fn taken<T>(answer: Option<Answer<T>>, trouble: &mut Option<(Trouble, String)>) -> Vec<T> {
    match answer {
        Some(Answer::Records(found, _)) => found,
        Some(Answer::Failed(kind, reason)) => {
            *trouble = Some((kind, reason));
            Vec::new()
        }
        Some(Answer::None(_)) | None => Vec::new(),
    }
}

fn system_stamps() -> [Option<Stamp>; 2] {
    [RESOLV_CONF, HOSTS].map(|path| Stamp::of(path.as_ref()).ok())
}

fn own_config(servers: &[SocketAddr]) -> ResolverConfig {
    let mut config = ResolverConfig::new();
    for server in servers {
        config.add_name_server(NameServerConfig::new(*server, Protocol::Udp));
        config.add_name_server(NameServerConfig::new(*server, Protocol::Tcp));
    }
    config
}

/// Without a server in it the one on this machine is meant, as resolv.conf(5) says.
fn system_config() -> Result<(ResolverConfig, ResolverOpts), DiscoveryError> {
    let unusable = |reason: String| {
        DiscoveryError::new(Part::File(RESOLV_CONF.into()), Trouble::Settings, reason)
    };
    let mut text = match fs::read_to_string(RESOLV_CONF) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(unusable(error.to_string())),
    };
    if !text
        .lines()
        .any(|line| line.trim_start().starts_with("nameserver"))
    {
        let _ = write!(text, "\nnameserver {}\n", Ipv4Addr::LOCALHOST);
    }
    system_conf::parse_resolv_conf(&text).map_err(|error| unusable(error.to_string()))
}
