//! Debian's dnsmasq as a DNS server whose answers the test changes.

use std::fmt::{Display, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::tools::{Running, find};
use super::{ports, wait};

/// One server, for the names under `test`; ended when dropped.
pub(crate) struct Dns {
    running: Option<Running>,
    pub(crate) address: SocketAddr,
    /// In force from the next start on.
    pub(crate) options: Vec<String>,
    program: PathBuf,
    folder: TempDir,
}

impl Dns {
    /// Answers with these lines of /etc/hosts, which hold for one second, and with what the
    /// further options give. `None` where the program is missing (see [`find`]).
    pub(crate) fn start(hosts: &str, options: &[String]) -> Option<Self> {
        Self::start_at(ports::free(), hosts, options)
    }

    pub(crate) fn start_at(address: SocketAddr, hosts: &str, options: &[String]) -> Option<Self> {
        let mut dns = Self {
            running: None,
            address,
            options: options.to_vec(),
            program: find("dnsmasq", "dnsmasq-base")?,
            folder: TempDir::with_prefix("tidegate-dns-").expect("a folder for dnsmasq"),
        };
        dns.write(hosts);
        dns.up();
        Some(dns)
    }

    /// Other lines from now on.
    pub(crate) fn answer(&self, hosts: &str) {
        self.write(hosts);
        if let Some(running) = &self.running {
            running.signal(Signal::SIGHUP);
        }
    }

    fn write(&self, hosts: &str) {
        let (fresh, file) = (self.folder.path().join("new"), hosts_file(&self.folder));
        std::fs::write(&fresh, hosts).expect("write the hosts");
        std::fs::rename(&fresh, file).expect("put them in place");
    }

    /// Starts it (again) and waits until it accepts.
    pub(crate) fn up(&mut self) {
        let mut command = Command::new(&self.program);
        command
            .args(["--keep-in-foreground", "--no-resolv", "--no-hosts"])
            .args(["--conf-file=/dev/null", "--pid-file=", "--log-facility=-"])
            .args(["--listen-address=127.0.0.1", "--bind-interfaces"])
            .args(["--local=/test/", "--cache-size=0"])
            .arg(format!("--port={}", self.address.port()))
            .arg(format!(
                "--addn-hosts={}",
                hosts_file(&self.folder).display()
            ))
            .args(&self.options);
        if !self
            .options
            .iter()
            .any(|one| one.starts_with("--local-ttl"))
        {
            command.arg("--local-ttl=1");
        }
        // It would become a user who cannot read this test's folder.
        if std::fs::metadata("/proc/self").is_ok_and(|myself| myself.uid() == 0) {
            command.arg("--user=root");
        }
        let mut running = Running::start(&mut command);
        let address = self.address;
        wait::eventually("dnsmasq to accept", wait::SOON, || {
            assert!(running.is_running(), "dnsmasq: {}", running.stderr());
            TcpStream::connect(address).is_ok()
        });
        self.running = Some(running);
    }

    /// Ends it at once: questions are refused from now on.
    pub(crate) fn down(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.signal(Signal::SIGKILL);
            running.wait(wait::SOON);
        }
    }

    /// What is asked of it gets no answer until [`Dns::thaw`].
    pub(crate) fn freeze(&self) {
        self.running
            .iter()
            .for_each(|running| running.signal(Signal::SIGSTOP));
    }

    pub(crate) fn thaw(&self) {
        self.running
            .iter()
            .for_each(|running| running.signal(Signal::SIGCONT));
    }
}

fn hosts_file(folder: &TempDir) -> PathBuf {
    let folder: &Path = folder.path();
    folder.join("hosts")
}

/// Lines that give `name` these addresses.
pub(crate) fn hosts(name: &str, addresses: &[impl Display]) -> String {
    addresses.iter().fold(String::new(), |mut lines, ip| {
        let _ = writeln!(lines, "{ip} {name}");
        lines
    })
}
