//! Look-ups against real DNS servers, files and HTTP servers on this machine.

mod dns;
mod file;
mod pure;
mod server;
mod url;

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use conf::{Discovery, Endpoint, EndpointAddress, Family, Resolve};

use super::{DiscoveryError, LookUp, Source};
use crate::clock;

/// Long enough for anything that ought to happen, on a busy machine.
const SOON: Duration = Duration::from_secs(20);

/// An upstream of these endpoints (`10.0.0.1:80`, `unix:/path`, `app.test:80`, `srv:NAME`).
fn upstream(endpoints: &[&str], servers: &[SocketAddr]) -> conf::Upstream {
    let text = "
        [[listener]]
        address = \"127.0.0.1:8080\"
        [upstream.app]
        endpoints = [\"127.0.0.1:1\"]
        [[route]]
        upstream = \"app\"
    ";
    let config = conf::load_str(text, Path::new("test.toml")).expect("a configuration");
    let mut upstream = config.upstreams.into_iter().next().expect("an upstream");
    upstream.endpoints = endpoints.iter().map(|text| endpoint(text)).collect();
    upstream.discovery = None;
    upstream.resolve = Resolve {
        servers: servers.to_vec(),
        every: Duration::from_secs(30),
        family: Family::Auto,
    };
    upstream
}

fn endpoint(text: &str) -> Endpoint {
    let address = if let Some(path) = text.strip_prefix("unix:") {
        EndpointAddress::Unix(path.into())
    } else if let Some(name) = text.strip_prefix("srv:") {
        EndpointAddress::Srv(name.into())
    } else if let Ok(address) = text.parse() {
        EndpointAddress::Ip(address)
    } else {
        let (host, port) = text.rsplit_once(':').expect("host:port");
        EndpointAddress::Name {
            host: host.into(),
            port: port.parse().expect("a port"),
        }
    };
    Endpoint {
        address,
        weight: std::num::NonZeroU32::MIN,
        priority: 0,
        backup: false,
        zone: None,
    }
}

fn listed(from: Discovery, endpoints: &[&str]) -> Source {
    let mut settings = upstream(endpoints, &[]);
    settings.discovery = Some(from);
    source(&settings)
}

fn source(settings: &conf::Upstream) -> Source {
    Source::new(settings).expect("a source")
}

fn ids(found: &LookUp) -> Vec<String> {
    found.endpoints.iter().map(|one| one.target.id()).collect()
}

fn names(found: &LookUp) -> Vec<&str> {
    found
        .endpoints
        .iter()
        .map(|one| one.name.as_str())
        .collect()
}

/// Looks up as often as the source asks for until it is as wanted.
async fn until(
    source: &mut Source,
    what: &str,
    wanted: impl Fn(&Result<LookUp, DiscoveryError>) -> bool,
) -> Result<LookUp, DiscoveryError> {
    let deadline = clock::now() + SOON;
    loop {
        let looked = source.look_up().await;
        if wanted(&looked) {
            return looked;
        }
        assert!(clock::now() < deadline, "not {what}: {looked:?}");
        tokio::time::sleep(source.again_in().min(Duration::from_millis(200))).await;
    }
}

async fn until_ids(source: &mut Source, wanted: &[&str]) -> LookUp {
    until(source, &format!("{wanted:?}"), |looked| {
        looked.as_ref().is_ok_and(|found| ids(found) == wanted)
    })
    .await
    .expect("as wanted")
}

/// A loopback address whose port is free for UDP and TCP.
fn free() -> SocketAddr {
    loop {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        if UdpSocket::bind(address).is_ok() {
            return address;
        }
    }
}

/// The program's path; `None` with a visible line where it is missing, and a failure where
/// `TIDEGATE_REQUIRE_TOOLS` is set.
fn tool(program: &str, package: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(program))
        .find(|file| file.is_file());
    if found.is_none() {
        let hint = format!("needs {program}: apt-get install {package}");
        let required = std::env::var_os("TIDEGATE_REQUIRE_TOOLS").is_some();
        assert!(!required, "{hint}");
        eprintln!("SKIPPED {hint}");
    }
    found
}

#[test]
fn a_look_up_may_run_on_any_thread() {
    fn sendable<T: Send>(_: &T) {}
    let mut source = source(&upstream(&["10.0.0.1:80"], &[]));
    sendable(&source);
    sendable(&source.look_up());
}
