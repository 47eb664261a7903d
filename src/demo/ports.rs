//! The ports of the edge, taken before anything else starts.
//!
//! They are bound here without `SO_REUSEPORT`, so that a second demo is told of
//! the first instead of sharing its ports, and given back just before the edge
//! binds them.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use anyhow::Context;

use crate::bind;
use crate::cli::DemoArgs;

/// Three ports that nobody else can take while this lives.
#[derive(Debug)]
pub(crate) struct Ports {
    https: Held,
    http: Held,
    admin: Held,
}

#[derive(Debug)]
struct Held {
    address: SocketAddr,
    _listener: TcpListener,
}

impl Ports {
    /// Takes the ports asked for; 0 is any that is free.
    ///
    /// # Errors
    /// A port that cannot be had, with the flag that changes it.
    pub(crate) fn reserve(args: &DemoArgs) -> Result<Self, anyhow::Error> {
        Ok(Self {
            https: hold(args.https_port, "--https-port")?,
            http: hold(args.http_port, "--http-port")?,
            admin: hold(args.admin_port, "--admin-port")?,
        })
    }

    /// Where the shop listens.
    pub(crate) fn https(&self) -> SocketAddr {
        self.https.address
    }

    /// Where the redirect to HTTPS listens.
    pub(crate) fn http(&self) -> SocketAddr {
        self.http.address
    }

    /// Where metrics and state are.
    pub(crate) fn admin(&self) -> SocketAddr {
        self.admin.address
    }
}

fn hold(port: u16, flag: &str) -> Result<Held, anyhow::Error> {
    let wanted = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let listener =
        TcpListener::bind(wanted).map_err(|error| bind::refused(wanted, flag, &error))?;
    let address = listener
        .local_addr()
        .context("a bound port has no number")?;
    Ok(Held {
        address,
        _listener: listener,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(https_port: u16) -> DemoArgs {
        DemoArgs {
            https_port,
            http_port: 0,
            admin_port: 0,
            print_config: false,
        }
    }

    #[test]
    fn free_ports_are_found_and_differ() {
        let ports = Ports::reserve(&args(0)).expect("three free ports");
        let found = [
            ports.https().port(),
            ports.http().port(),
            ports.admin().port(),
        ];
        assert!(found.iter().all(|port| *port != 0), "{found:?}");
        assert!(found[0] != found[1] && found[1] != found[2] && found[0] != found[2]);
    }

    #[test]
    fn a_taken_port_is_named_with_its_flag() {
        let first = Ports::reserve(&args(0)).expect("three free ports");
        let error = Ports::reserve(&args(first.https().port())).expect_err("it is taken");
        let line = error.to_string();
        assert!(line.contains("--https-port"), "{line}");
        assert!(line.contains(&first.https().to_string()), "{line}");
    }
}
