//! Debian's nginx as an app node that can take load and be killed.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::tools::Running;
use super::{ports, wait};

/// One nginx with a folder of its own; ended when dropped.
pub(crate) struct Nginx {
    // First, so that it ends before its folder goes.
    running: Option<Running>,
    pub(crate) address: SocketAddr,
    program: PathBuf,
    folder: TempDir,
}

impl Nginx {
    /// Answers `200 NAME` on `/healthz` and everything else, with the given
    /// extra directives inside its `server`.
    pub(crate) fn node(program: &Path, name: &str, extra: &str) -> Self {
        Self::node_at(program, name, extra, ports::free())
    }

    pub(crate) fn node_at(program: &Path, name: &str, extra: &str, address: SocketAddr) -> Self {
        let server = format!(
            "default_type text/plain;\n\
             add_header x-node {name} always;\n\
             {extra}\n\
             location / {{ return 200 \"{name}\\n\"; }}\n"
        );
        Self::with(program, &server, address)
    }

    /// Does what is written inside its `server`, and may read what this process may.
    pub(crate) fn serving(program: &Path, server: &str) -> Self {
        Self::with(program, server, ports::free())
    }

    fn with(program: &Path, server: &str, address: SocketAddr) -> Self {
        let user = match nix::unistd::geteuid().is_root() {
            true => "user root;\n",
            false => "",
        };
        let folder = TempDir::with_prefix("tidegate-nginx-").expect("a folder for nginx");
        let conf = format!(
            "{user}worker_processes 1;\n\
             error_log stderr warn;\n\
             pid nginx.pid;\n\
             events {{ worker_connections 2048; }}\n\
             http {{\n\
               access_log off;\n\
               keepalive_requests 100000;\n\
               client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;\n\
               uwsgi_temp_path uwsgi; scgi_temp_path scgi;\n\
               server {{\n\
                 listen {address};\n\
                 {server}\n\
               }}\n\
             }}\n"
        );
        std::fs::write(folder.path().join("nginx.conf"), conf).expect("write nginx.conf");
        let mut nginx = Self {
            address,
            program: program.to_owned(),
            folder,
            running: None,
        };
        nginx.up();
        nginx
    }

    /// Starts it (again) and waits until it accepts.
    pub(crate) fn up(&mut self) {
        let folder = self.folder.path();
        let mut command = Command::new(&self.program);
        command
            .args([
                "-e",
                "stderr",
                "-c",
                "nginx.conf",
                "-g",
                "daemon off;",
                "-p",
            ])
            .arg(folder);
        self.running = Some(Running::start(&mut command));
        wait::eventually("nginx to accept", wait::SOON, || {
            std::net::TcpStream::connect(self.address).is_ok()
        });
    }

    /// SIGINT is nginx's quick end: listeners and connections go at once.
    pub(crate) fn down(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.signal(Signal::SIGINT);
            running.wait(wait::SOON);
        }
    }
}
