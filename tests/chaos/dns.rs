//! A DNS server of the test's own, whose answers it changes.

use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;

use crate::support::tools::{Running, find};
use crate::support::{ports, wait};

/// The name that stands for the nodes.
pub(crate) const NAME: &str = "app.test";

/// Debian's dnsmasq; ended when dropped.
pub(crate) struct Dns {
    running: Running,
    hosts: PathBuf,
    pub(crate) address: SocketAddr,
}

impl Dns {
    /// `None` where the program is missing (which fails in CI, see [`find`]).
    pub(crate) fn start(folder: &Path, addresses: &[IpAddr]) -> Option<Self> {
        let program = find("dnsmasq", "dnsmasq-base")?;
        let hosts = folder.join("hosts");
        write(&hosts, addresses);
        let address = ports::free();
        let mut command = Command::new(program);
        command
            .args(["--keep-in-foreground", "--no-resolv", "--no-hosts"])
            .args(["--conf-file=/dev/null", "--pid-file=", "--log-facility=-"])
            .args(["--listen-address=127.0.0.1", "--bind-interfaces"])
            // A second is the least that a record can live and still be kept.
            .args(["--local=/test/", "--local-ttl=1", "--cache-size=0"])
            .arg(format!("--port={}", address.port()))
            .arg(format!("--addn-hosts={}", hosts.display()));
        // It would become a user who cannot read this test's folder.
        if std::fs::metadata("/proc/self").is_ok_and(|myself| myself.uid() == 0) {
            command.arg("--user=root");
        }
        let running = Running::start(&mut command);
        wait::eventually("dnsmasq to accept", wait::SOON, || {
            std::net::TcpStream::connect(address).is_ok()
        });
        Some(Self {
            running,
            hosts,
            address,
        })
    }

    /// From now on the name has these addresses.
    pub(crate) fn answer(&self, addresses: &[IpAddr]) {
        write(&self.hosts, addresses);
        self.running.signal(Signal::SIGHUP);
    }
}

fn write(hosts: &Path, addresses: &[IpAddr]) {
    let lines: String = addresses
        .iter()
        .map(|ip| format!("{ip} {NAME}\n"))
        .collect();
    let fresh = hosts.with_extension("new");
    std::fs::write(&fresh, lines).expect("write the hosts");
    std::fs::rename(&fresh, hosts).expect("put them in place");
}
