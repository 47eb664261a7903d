//! DNS servers for the tests: dnsmasq with a file of hosts, knot with a zone, and a relay that
//! loses some questions.

use std::fs;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User, geteuid};
use tempfile::TempDir;

use super::{SOON, free, tool};
use crate::clock;

/// A server process, ended with the test.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    folder: TempDir,
    arguments: Vec<String>,
    program: std::path::PathBuf,
    child: Option<Child>,
}

impl Server {
    /// dnsmasq with these lines of /etc/hosts and further options, every TTL one second.
    pub(super) fn dnsmasq(hosts: &str, options: &[&str]) -> Option<Self> {
        let program = tool("dnsmasq", "dnsmasq-base")?;
        let folder = tempfile::tempdir().expect("a folder");
        let address = free();
        let me = User::from_uid(geteuid()).ok().flatten().expect("a user");
        let file = folder.path().join("hosts");
        let mut arguments: Vec<String> = vec![
            "--keep-in-foreground".into(),
            "--conf-file=/dev/null".into(),
            "--pid-file=".into(),
            "--no-resolv".into(),
            "--no-hosts".into(),
            "--bind-interfaces".into(),
            "--listen-address=127.0.0.1".into(),
            format!("--port={}", address.port()),
            format!("--user={}", me.name),
            "--local=/test/".into(),
            "--local-ttl=1".into(),
            format!("--addn-hosts={}", file.display()),
        ];
        arguments.extend(options.iter().map(|option| (*option).to_owned()));
        fs::write(file, hosts).expect("written");
        let mut server = Self {
            address,
            folder,
            arguments,
            program,
            child: None,
        };
        server.start();
        Some(server)
    }

    /// knot with one zone, `test`.
    pub(super) fn knot(records: &str) -> Option<Self> {
        let program = tool("knotd", "knot")?;
        let folder = tempfile::tempdir().expect("a folder");
        let address = free();
        let path = folder.path();
        let configuration = format!(
            "server:\n  rundir: {0}\n  listen: 127.0.0.1@{1}\n\
             database:\n  storage: {0}\n\
             zone:\n  - domain: test.\n    storage: {0}\n    file: zone\n",
            path.display(),
            address.port()
        );
        let zone = format!(
            "$ORIGIN test.\n@ 60 SOA ns hostmaster 1 60 60 60 60\n@ 60 NS ns\nns 60 A 127.0.0.1\n\
             {records}\n"
        );
        fs::write(path.join("zone"), zone).expect("written");
        let file = path.join("knot.conf");
        fs::write(&file, configuration).expect("written");
        let arguments = vec!["-c".into(), file.display().to_string()];
        let mut server = Self {
            address,
            folder,
            arguments,
            program,
            child: None,
        };
        server.start();
        Some(server)
    }

    /// Other lines in dnsmasq's file of hosts, read at once.
    pub(super) fn hosts(&self, hosts: &str) {
        self.hosts_before_start(hosts);
        let child = self.child.as_ref().expect("it runs");
        let pid = i32::try_from(child.id()).expect("a process id");
        kill(Pid::from_raw(pid), Signal::SIGHUP).expect("a signal");
    }

    pub(super) fn hosts_before_start(&self, hosts: &str) {
        fs::write(self.folder.path().join("hosts"), hosts).expect("written");
    }

    pub(super) fn start(&mut self) {
        let child = Command::new(&self.program)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the server starts");
        self.child = Some(child);
        let deadline = clock::now() + SOON;
        while TcpStream::connect_timeout(&self.address, Duration::from_millis(50)).is_err() {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().ok());
            assert!(
                ended.flatten().is_none(),
                "{} {:?} ended",
                self.program.display(),
                self.arguments
            );
            assert!(clock::now() < deadline, "no DNS server after {SOON:?}");
        }
    }

    pub(super) fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Passes questions on by UDP, except for those of the type of record.
pub(super) fn losing(kind: u16, behind: SocketAddr) -> SocketAddr {
    let front = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let address = front.local_addr().expect("an address");
    let back = UdpSocket::bind("127.0.0.1:0").expect("a port");
    back.set_read_timeout(Some(SOON)).expect("a timeout");
    back.connect(behind).expect("connected");
    std::thread::spawn(move || {
        let mut message = [0; 4096];
        // Ends with the process.
        while let Ok((length, from)) = front.recv_from(&mut message) {
            // A header of 12 bytes, then labels up to an empty one, then the type.
            let mut at = 12;
            while message[at] != 0 {
                at += usize::from(message[at]) + 1;
            }
            if [message[at + 1], message[at + 2]] == kind.to_be_bytes() {
                continue;
            }
            back.send(&message[..length]).expect("sent");
            let length = back.recv(&mut message).expect("answered");
            front.send_to(&message[..length], from).expect("sent");
        }
    });
    address
}
