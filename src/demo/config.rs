//! The demo's configuration file: a text that people can read, with addresses filled in.

use std::net::{Ipv4Addr, SocketAddr};

use super::NODES;
use crate::cli::DemoArgs;

/// The configuration itself.
pub(crate) const FILE: &str = "tidegate.toml";
/// For clients: whom to trust.
pub(crate) const CA: &str = "ca.pem";
/// The edge's certificate.
pub(crate) const CERT: &str = "demo.pem";
/// The edge's key.
pub(crate) const KEY: &str = "demo.key";
/// What the admin listener wants to hear before it changes anything.
pub(crate) const TOKEN: &str = "admin.token";
/// The shop's static files.
pub(crate) const STATIC_ROOT: &str = "static";
/// One JSON object for each request.
pub(crate) const ACCESS_LOG: &str = "access.log";

const TEMPLATE: &str = include_str!("demo.toml");

/// Where everything is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Places {
    /// The shop.
    pub(crate) https: SocketAddr,
    /// The redirect to it.
    pub(crate) http: SocketAddr,
    /// Metrics and state.
    pub(crate) admin: SocketAddr,
    /// The app nodes.
    pub(crate) nodes: [SocketAddr; NODES],
    /// What stops and starts them.
    pub(crate) control: SocketAddr,
}

/// The configuration for these places.
pub(crate) fn render(places: &Places) -> String {
    TEMPLATE
        .replace("@HTTPS@", &places.https.to_string())
        .replace("@HTTPS_PORT@", &places.https.port().to_string())
        .replace("@HTTP@", &places.http.to_string())
        .replace("@ADMIN@", &places.admin.to_string())
        .replace("@NODE1@", &places.nodes[0].to_string())
        .replace("@NODE2@", &places.nodes[1].to_string())
        .replace("@NODE3@", &places.nodes[2].to_string())
        .replace("@CONTROL@", &places.control.to_string())
}

/// The configuration for reading: ports as asked for, nodes at made-up ones.
pub(crate) fn example(args: &DemoArgs) -> String {
    let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    render(&Places {
        https: at(args.https_port),
        http: at(args.http_port),
        admin: at(args.admin_port),
        nodes: [at(3101), at(3102), at(3103)],
        control: at(3100),
    })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::super::folder::Folder;
    use super::*;

    fn args() -> DemoArgs {
        DemoArgs {
            https_port: 8443,
            http_port: 8080,
            admin_port: 9901,
            print_config: true,
        }
    }

    #[test]
    fn nothing_is_left_to_fill_in() {
        let text = example(&args());
        assert!(!text.contains('@'), "{text}");
    }

    #[test]
    fn the_configuration_loads_without_a_warning() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let folder = Folder::create(now).expect("a temporary folder");
        let file = folder
            .write_config(&example(&args()))
            .expect("it can be written");
        let config = conf::load(&file).unwrap_or_else(|errors| panic!("{errors}"));
        let warnings: Vec<String> = config.warnings.iter().map(ToString::to_string).collect();
        assert_eq!(warnings, Vec::<String>::new());
        assert_eq!(config.listeners.len(), 2);
        assert_eq!(config.upstreams.len(), 3);
    }
}
