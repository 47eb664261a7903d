//! The servers under test, with settings that mean the same as far as each
//! has them: six attempts in all for what may be sent again, half a second for
//! each, a check twice a second, out after two failures, back after two
//! successes, three errors on requests in a row eject.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;

use crate::support::tools::{Running, find};
use crate::support::{ports, wait};

/// The name that stands for the nodes.
pub(crate) const NAME: &str = "app.test";

/// Tidegate's, in the folder of the run.
const ACCESS_LOG: &str = "access.log";

/// Which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Server {
    Tidegate,
    Haproxy,
    Nginx,
}

/// What stands in front of the nodes.
#[derive(Debug, Clone)]
pub(crate) struct Backend {
    pub(crate) nodes: Vec<SocketAddr>,
    /// Where the nodes' name is looked up; `None`: the addresses are given.
    pub(crate) dns: Option<SocketAddr>,
    /// Seconds.
    pub(crate) slow_start: u32,
}

/// A server that runs; ended when dropped.
pub(crate) struct Edge {
    server: Server,
    running: Running,
    pub(crate) address: SocketAddr,
    folder: PathBuf,
}

impl Server {
    pub(crate) fn named(name: &str) -> Self {
        match name {
            "tidegate" => Self::Tidegate,
            "haproxy" => Self::Haproxy,
            "nginx" => Self::Nginx,
            _ => panic!("TIDEGATE_CHAOS_SERVER is tidegate, haproxy or nginx, not {name:?}"),
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tidegate => "Tidegate",
            Self::Haproxy => "HAProxy",
            Self::Nginx => "nginx",
        }
    }

    /// nginx's open-source version looks a name up once.
    pub(crate) fn follows_dns(self) -> bool {
        match self {
            Self::Tidegate => !reduced(),
            Self::Haproxy => true,
            Self::Nginx => false,
        }
    }

    /// `None` where the program is missing.
    pub(crate) fn program(self) -> Option<PathBuf> {
        match self {
            Self::Tidegate => Some(match std::env::var_os("TIDEGATE_BIN") {
                Some(path) => path.into(),
                None => env!("CARGO_BIN_EXE_tidegate").into(),
            }),
            Self::Haproxy => find("haproxy", "haproxy"),
            Self::Nginx => find("nginx", "nginx-light"),
        }
    }

    /// Writes its configuration into the folder and starts it.
    pub(crate) fn start(self, program: &Path, folder: &Path, backend: &Backend) -> Edge {
        let address = ports::free();
        let mut command = Command::new(program);
        command.current_dir(folder);
        match self {
            Self::Tidegate => {
                let file = folder.join("tidegate.toml");
                write(&file, &tidegate(address, folder, backend));
                command.arg("run").arg("--config").arg(file);
            }
            Self::Haproxy => {
                let file = folder.join("haproxy.cfg");
                write(&file, &haproxy(address, folder, backend));
                // With a master process: the reload that its manual recommends.
                command.args(["-W", "-f"]).arg(file);
            }
            Self::Nginx => {
                write(&folder.join("nginx.conf"), &nginx(address, backend));
                let rest = ["-e", "stderr", "-c", "nginx.conf", "-g", "daemon off;"];
                command.args(rest).arg("-p").arg(folder);
            }
        }
        let mut running = Running::start(&mut command);
        let accepts = wait::try_until(2 * wait::SOON, || {
            let up = std::net::TcpStream::connect(address).is_ok();
            (up || !running.is_running()).then_some(up)
        });
        assert!(
            accepts == Some(true),
            "{} does not accept\n{}",
            self.name(),
            running.stderr()
        );
        Edge {
            server: self,
            running,
            address,
            folder: folder.to_owned(),
        }
    }
}

impl Edge {
    /// Reads its configuration again while it serves.
    pub(crate) fn reload(&self) {
        if self.server == Server::Haproxy {
            self.save_state();
        }
        self.running.signal(match self.server {
            Server::Tidegate | Server::Nginx => Signal::SIGHUP,
            Server::Haproxy => Signal::SIGUSR2,
        });
    }

    /// HAProxy's next process begins with what this one knows of the servers,
    /// their addresses included, only if it finds it in a file.
    fn save_state(&self) {
        let socket = self.folder.join("haproxy.sock");
        let mut state = String::new();
        let asked = UnixStream::connect(socket).and_then(|mut stream| {
            stream.set_read_timeout(Some(wait::SOON))?;
            stream.write_all(b"show servers state\n")?;
            stream.read_to_string(&mut state)
        });
        asked.expect("HAProxy's state");
        write(&self.folder.join("haproxy.state"), &state);
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.running.is_running()
    }

    /// What stands in the access log about this request.
    pub(crate) fn evidence(&self, id: usize) -> String {
        let log = std::fs::read_to_string(self.folder.join(ACCESS_LOG)).unwrap_or_default();
        let wanted = format!("/work?id={id}\"");
        let lines = log.lines().filter(|line| line.contains(&wanted));
        lines.collect::<Vec<_>>().join("\n")
    }

    pub(crate) fn messages(&self) -> String {
        self.running.stderr()
    }
}

fn write(file: &Path, text: &str) {
    std::fs::write(file, text).expect("write a configuration");
}

fn tidegate(address: SocketAddr, folder: &Path, backend: &Backend) -> String {
    let list = |endpoints: Vec<String>| endpoints.join(", ");
    let slow_start = backend.slow_start;
    let addresses = backend.nodes.iter().map(|node| format!("\"{node}\""));
    let (endpoints, resolve) = match backend.dns {
        Some(dns) => (
            format!("\"{NAME}:{}\"", port(backend)),
            format!("resolve = {{ servers = [\"{dns}\"], every = \"1s\" }}"),
        ),
        None => (list(addresses.clone().collect()), String::new()),
    };
    let upstream = if reduced() {
        format!(
            r#"
endpoints = [{}]
health_check = {{ type = "http", path = "/healthz", interval = "500ms", timeout = "300ms", unhealthy_after = 2, healthy_after = 2 }}
outlier_detection = {{ consecutive_errors = 3, ejection_time = "2s", max_ejected = "80%" }}
retry = {{ attempts = 6 }}
"#,
            list(addresses.collect())
        )
    } else {
        format!(
            r#"
endpoints = [{endpoints}]
{resolve}
health_check = {{ type = "http", path = "/healthz", interval = "500ms", down_interval = "250ms", timeout = "300ms", unhealthy_after = 2, healthy_after = 2 }}
outlier_detection = {{ consecutive_errors = 3, error_rate = "30%", window = "5s", ejection_time = "2s", max_ejected = "80%" }}
slow_start = "{slow_start}s"
panic_threshold = "10%"
retry = {{ attempts = 6, on = ["connect_failure", "reset", "timeout", "503"], budget = "100%", per_try_timeout = "500ms" }}
"#
        )
    };
    let access_log = folder.join(ACCESS_LOG);
    let access_log = access_log.display();
    let is_off = |lane: String| lane == "off";
    let lane = match std::env::var("TIDEGATE_TEST_LANE").is_ok_and(is_off) {
        true => "off",
        false => "on",
    };
    format!(
        r#"
[server]
workers = 2
lane = "{lane}"
shutdown_timeout = "10s"

[log]
access = {{ path = "{access_log}", format = "json" }}

[[listener]]
address = "{address}"

[[route]]
upstream = "app"

[upstream.app]
balance = "least_request"
connect_timeout = "250ms"
first_byte_timeout = "4s"
{upstream}"#
    )
}

/// For a build from before most of these keys: what it comes to is reported, not judged.
pub(crate) fn reduced() -> bool {
    std::env::var("TIDEGATE_CHAOS_CONFIG").is_ok_and(|value| value == "reduced")
}

fn port(backend: &Backend) -> u16 {
    backend.nodes.first().map_or(0, SocketAddr::port)
}

/// Layer-7 retries are only for GET: HAProxy leaves that to the operator.
/// `idle-close-on-response` keeps a reload from closing a connection on which a
/// client is just sending; the state file keeps it from forgetting who is well.
fn haproxy(address: SocketAddr, folder: &Path, backend: &Backend) -> String {
    let count = backend.nodes.len();
    let (resolvers, servers) = match backend.dns {
        Some(dns) => (
            format!(
                "resolvers dns\n\
                 \x20 nameserver one {dns}\n\
                 \x20 timeout resolve 1s\n\
                 \x20 timeout retry 500ms\n\
                 \x20 hold valid 1s\n\
                 \x20 accepted_payload_size 4096\n"
            ),
            format!(
                "  server-template n {count} {NAME}:{} resolvers dns resolve-prefer ipv4 init-addr last,none\n",
                port(backend)
            ),
        ),
        None => {
            let server = |(nth, node)| format!("  server n{nth} {node}\n");
            let servers = backend.nodes.iter().enumerate().map(server);
            (String::new(), servers.collect())
        }
    };
    let slow_start = backend.slow_start;
    let folder = folder.display();
    format!(
        "global\n\
         \x20 nbthread 2\n\
         \x20 maxconn 8000\n\
         \x20 hard-stop-after 10s\n\
         \x20 stats socket unix@{folder}/haproxy.sock mode 600 level admin expose-fd listeners\n\
         \x20 server-state-file {folder}/haproxy.state\n\
         {resolvers}\
         defaults\n\
         \x20 mode http\n\
         \x20 timeout connect 250ms\n\
         \x20 timeout client 60s\n\
         \x20 timeout http-keep-alive 60s\n\
         \x20 timeout server 500ms\n\
         \x20 timeout queue 4s\n\
         \x20 timeout check 300ms\n\
         \x20 retries 5\n\
         \x20 option redispatch 1\n\
         \x20 retry-on conn-failure empty-response junk-response response-timeout 503\n\
         \x20 load-server-state-from-file global\n\
         \x20 option idle-close-on-response\n\
         frontend edge\n\
         \x20 bind {address}\n\
         \x20 http-request disable-l7-retry if METH_POST\n\
         \x20 default_backend app\n\
         backend app\n\
         \x20 balance leastconn\n\
         \x20 option httpchk GET /healthz\n\
         \x20 http-check expect status 200\n\
         \x20 default-server check inter 500ms fastinter 250ms downinter 250ms fall 2 rise 2 \
         observe layer7 error-limit 3 on-error mark-down slowstart {slow_start}s\n\
         {servers}"
    )
}

/// Without active checks, slow start and DNS, which its open-source version lacks.
fn nginx(address: SocketAddr, backend: &Backend) -> String {
    let server = |node| format!("      server {node} max_fails=3 fail_timeout=2s;\n");
    let servers: String = backend.nodes.iter().map(server).collect();
    format!(
        "worker_processes 2;\n\
         worker_shutdown_timeout 10s;\n\
         error_log stderr crit;\n\
         pid nginx.pid;\n\
         events {{ worker_connections 4096; }}\n\
         http {{\n\
         \x20 access_log off;\n\
         \x20 keepalive_requests 10000000;\n\
         \x20 client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;\n\
         \x20 uwsgi_temp_path uwsgi; scgi_temp_path scgi;\n\
         \x20 upstream app {{\n\
         \x20     zone app 256k;\n\
         \x20     least_conn;\n\
         {servers}\
         \x20     keepalive 128;\n\
         \x20     keepalive_requests 10000000;\n\
         \x20 }}\n\
         \x20 server {{\n\
         \x20   listen {address};\n\
         \x20   location / {{\n\
         \x20     proxy_pass http://app;\n\
         \x20     proxy_http_version 1.1;\n\
         \x20     proxy_set_header Connection \"\";\n\
         \x20     proxy_connect_timeout 250ms;\n\
         \x20     proxy_read_timeout 500ms;\n\
         \x20     proxy_send_timeout 500ms;\n\
         \x20     proxy_next_upstream error timeout http_503;\n\
         \x20     proxy_next_upstream_tries 6;\n\
         \x20     proxy_next_upstream_timeout 4s;\n\
         \x20   }}\n\
         \x20 }}\n\
         }}\n"
    )
}
