//! The real binary, run by a configuration file of the test's own.
//!
//! A test writes only what it is about: sections it does not name come from
//! [`prelude`] (a plain and a TLS listener, an admin address, two workers).
//! `@NAME@` in the text becomes an address: the harness' own (`@HTTP@`,
//! `@HTTPS@`, `@ADMIN@`, `@DIR@`) or what [`Setup::with`] gives.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::client::{Ask, Conn, Reply};
use super::metrics;
use super::successors::{Successors, send};
use super::tools::Running;
use super::{certs, ports, wait};

/// The admin token of every edge started here.
pub(crate) const TOKEN: &str = "token-of-the-tests";

/// The binary under test; `TIDEGATE_BIN` names another.
pub(crate) fn binary() -> PathBuf {
    match std::env::var_os("TIDEGATE_BIN") {
        Some(path) => path.into(),
        None => env!("CARGO_BIN_EXE_tidegate").into(),
    }
}

/// The checkout.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// An edge before its start.
pub(crate) struct Setup {
    folder: TempDir,
    names: Vec<(String, String)>,
    env: Vec<(String, String)>,
    through: Vec<String>,
    program: PathBuf,
}

impl Setup {
    pub(crate) fn new() -> Self {
        let folder = TempDir::with_prefix("tidegate-test-").expect("a folder");
        certs::write(
            folder.path(),
            "shop",
            &["shop.test", "*.shop.test", "127.0.0.1"],
        );
        certs::write_authority(folder.path());
        std::fs::write(folder.path().join("admin.token"), TOKEN).expect("write the token");
        let names = vec![
            ("HTTP".into(), ports::free().to_string()),
            ("HTTPS".into(), ports::free().to_string()),
            ("ADMIN".into(), ports::free().to_string()),
            ("DIR".into(), folder.path().display().to_string()),
        ];
        Self {
            folder,
            names,
            env: Vec::new(),
            through: Vec::new(),
            program: binary(),
        }
    }

    /// Another way to the binary: a link, which may lead somewhere else later.
    pub(crate) fn program(mut self, path: impl Into<PathBuf>) -> Self {
        self.program = path.into();
        self
    }

    /// Started by this command, which gets the binary and its arguments behind its own and runs
    /// them in its own process.
    pub(crate) fn through(mut self, command: &[&str]) -> Self {
        self.through = command.iter().map(|&part| part.to_owned()).collect();
        self
    }

    /// `@NAME@` stands for this.
    pub(crate) fn with(mut self, name: &str, value: impl Display) -> Self {
        self.names.push((name.to_owned(), value.to_string()));
        self
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The folder that the configuration stands in.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What `@NAME@` stands for.
    pub(crate) fn address(&self, name: &str) -> SocketAddr {
        let named = self.names.iter().find(|(known, _)| known == name);
        let (_, value) = named.expect("a known name");
        value.parse().expect("an address")
    }

    /// Writes a file beside the configuration.
    pub(crate) fn file(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        let path = self.folder.path().join(path);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).expect("a folder");
        }
        std::fs::write(path, content).expect("write a file");
        self
    }

    /// Writes the configuration and gives its path without starting anything.
    pub(crate) fn write(&self, toml: &str) -> PathBuf {
        write(self.folder.path(), &self.names, toml)
    }

    /// Starts it and waits until every listener accepts.
    #[track_caller]
    pub(crate) fn start(self, toml: &str) -> Edge {
        self.write(toml);
        let mut edge = Edge {
            running: launch(&self.program, self.folder.path(), &self.env, &self.through),
            successors: Successors::new(self.folder.path()),
            program: self.program,
            folder: self.folder,
            names: self.names,
            env: self.env,
            through: self.through,
        };
        edge.await_ready();
        edge
    }
}

/// A running edge; ended when dropped.
pub(crate) struct Edge {
    running: Running,
    /// Ended before the folder goes.
    successors: Successors,
    program: PathBuf,
    folder: TempDir,
    names: Vec<(String, String)>,
    env: Vec<(String, String)>,
    through: Vec<String>,
}

/// Runs the binary on the configuration in `folder`.
fn launch(program: &Path, folder: &Path, env: &[(String, String)], through: &[String]) -> Running {
    let mut command = match through {
        [] => Command::new(program),
        [before, arguments @ ..] => {
            let mut command = Command::new(before);
            command.args(arguments).arg(program);
            command
        }
    };
    command
        .arg("run")
        .arg("--config")
        .arg(folder.join("tidegate.toml"))
        .current_dir(folder)
        .envs(env.iter().cloned());
    Running::start(&mut command)
}

/// An edge in front of one upstream `app`, everything else as it is by default.
#[track_caller]
pub(crate) fn in_front_of(app: SocketAddr) -> Edge {
    Setup::new().with("APP", app).start(
        r#"
        [upstream.app]
        endpoints = ["@APP@"]
        [[route]]
        name = "all"
        upstream = "app"
        "#,
    )
}

impl Edge {
    /// The most memory that it had at any time, in bytes.
    pub(crate) fn peak_memory(&self) -> u64 {
        self.memory("VmHWM:")
    }

    /// Bytes of the program's own file in memory: of a debug build nearly three times as many as of
    /// what is released.
    pub(crate) fn program_memory(&self) -> u64 {
        self.memory("RssFile:")
    }

    fn memory(&self, name: &str) -> u64 {
        let path = format!("/proc/{}/status", self.running.id());
        let status = std::fs::read_to_string(path).expect("a running process");
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kibibytes = line.and_then(|value| value.trim().strip_suffix(" kB"));
        kibibytes.expect("a size").parse::<u64>().expect("a number") * 1024
    }

    /// What its threads have worked by now.
    pub(crate) fn cpu_time(&self) -> Duration {
        let path = format!("/proc/{}/task", self.running.id());
        let of_all = std::fs::read_dir(path).expect("a running process");
        let times = of_all.filter_map(|thread| {
            let text = std::fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
            text.split(' ').next()?.parse::<u64>().ok()
        });
        Duration::from_nanos(times.sum())
    }

    /// Ends it by this signal, and starts it again on the same files.
    #[track_caller]
    pub(crate) fn restart(&mut self, signal: Signal) {
        self.running.signal(signal);
        self.running.wait(wait::SOON);
        self.running = launch(&self.program, self.folder.path(), &self.env, &self.through);
        self.await_ready();
    }

    #[track_caller]
    fn await_ready(&mut self) {
        let limit = Duration::from_secs(20);
        let ready = wait::try_until(limit, || {
            if !self.running.is_running() {
                return Some(false);
            }
            self.try_admin("/ready")
                .filter(|r| r.status == 200)
                .map(|_| true)
        });
        assert!(
            ready == Some(true),
            "the edge is not ready (still running: {})\n{}",
            self.running.is_running(),
            self.stderr()
        );
    }

    pub(crate) fn address(&self, name: &str) -> SocketAddr {
        let (_, value) = self
            .names
            .iter()
            .find(|(n, _)| n == name)
            .expect("a known name");
        value.parse().expect("an address")
    }

    pub(crate) fn http(&self) -> SocketAddr {
        self.address("HTTP")
    }

    pub(crate) fn https(&self) -> SocketAddr {
        self.address("HTTPS")
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn stderr(&self) -> String {
        self.running.stderr()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.running.is_running()
    }

    /// To the process that serves.
    pub(crate) fn signal(&self, signal: Signal) {
        match self.successors.last() {
            Some(successor) => send(successor, signal),
            None => self.running.signal(signal),
        }
    }

    /// The process that serves.
    pub(crate) fn pid(&self) -> u32 {
        self.successors.last().unwrap_or(self.running.id())
    }

    /// SIGUSR2, and wait until another process has taken over.
    #[track_caller]
    pub(crate) fn upgrade(&mut self) {
        let series = r#"tidegate_upgrades_total{result="ok"}"#;
        let before = self.metric(series);
        let old = self.pid();
        self.signal(Signal::SIGUSR2);
        let done = wait::try_until(wait::SOON, || {
            (self.try_metric(series)? > before).then_some(())
        });
        assert!(done.is_some(), "no other process serves\n{}", self.stderr());
        self.successors.look(old);
    }

    /// SIGUSR2, and wait until that has failed; why it has.
    #[track_caller]
    pub(crate) fn upgrade_fails(&self) -> String {
        let series = r#"tidegate_upgrades_total{result="failed"}"#;
        let before = self.metric(series);
        self.signal(Signal::SIGUSR2);
        let done = wait::try_until(wait::SOON, || (self.metric(series) > before).then_some(()));
        assert!(done.is_some(), "no upgrade failed\n{}", self.stderr());
        let last = self.json("/config")["last_upgrade"].clone();
        assert_eq!(last["successful"], false, "{last}");
        last["error"].as_str().expect("a reason").to_owned()
    }

    /// `None`: nobody answered whole; the admin server goes from one process to the other.
    fn try_metric(&self, series: &str) -> Option<f64> {
        let reply = self.try_admin("/metrics").filter(|it| it.status == 200)?;
        metrics::sum(&reply.text(), series)
    }

    #[track_caller]
    pub(crate) fn wait(&mut self, limit: Duration) -> Option<i32> {
        self.running.wait(limit)
    }

    /// A connection to the plain listener.
    #[track_caller]
    pub(crate) fn plain(&self) -> Conn {
        Conn::open(self.http())
    }

    /// A connection to the TLS listener.
    #[track_caller]
    pub(crate) fn tls(&self) -> Conn {
        Conn::tls(self.https(), "shop.test")
    }

    /// One request on a plain connection of its own.
    #[track_caller]
    pub(crate) fn ask(&self, ask: &Ask) -> Reply {
        self.plain().ask(ask)
    }

    #[track_caller]
    pub(crate) fn get(&self, target: &str) -> Reply {
        self.ask(&Ask::get(target))
    }

    /// Who answered how often, by the text of the answers; every request is answered with 200.
    #[track_caller]
    pub(crate) fn tally(&self, requests: usize) -> BTreeMap<String, usize> {
        let mut conn = self.plain();
        let mut tally = BTreeMap::new();
        for _ in 0..requests {
            let node = conn.ask(&Ask::get("/")).expect(200).text();
            *tally.entry(node).or_default() += 1;
        }
        tally
    }

    /// Who answers at all, in order.
    #[track_caller]
    pub(crate) fn answering(&self) -> Vec<String> {
        self.tally(12).into_keys().collect()
    }

    #[track_caller]
    pub(crate) fn await_answering(&self, wanted: &[&str], limit: Duration) {
        wait::eventually(&format!("{wanted:?} to answer"), limit, || {
            self.answering() == wanted
        });
    }

    /// A GET of the admin server.
    #[track_caller]
    pub(crate) fn admin(&self, target: &str) -> Reply {
        self.admin_ask(&Ask::get(target))
    }

    #[track_caller]
    pub(crate) fn admin_ask(&self, ask: &Ask) -> Reply {
        Conn::open(self.address("ADMIN")).ask(ask)
    }

    /// A POST with the token.
    #[track_caller]
    pub(crate) fn command(&self, target: &str) -> Reply {
        let token = format!("Bearer {TOKEN}");
        self.admin_ask(&Ask::post(target, "").field("Authorization", &token))
    }

    fn try_admin(&self, target: &str) -> Option<Reply> {
        TcpStream::connect(self.address("ADMIN")).ok()?;
        let mut conn = Conn::open(self.address("ADMIN"));
        conn.send(Ask::get(target).bytes());
        conn.read(false).ok()
    }

    #[track_caller]
    pub(crate) fn json(&self, target: &str) -> Value {
        let reply = self.admin(target).expect(200);
        serde_json::from_slice(&reply.body).expect("a JSON body")
    }

    /// The sum of all series of this name that carry (at least) these labels:
    /// `tidegate_requests_total{route="all"}`.
    #[track_caller]
    pub(crate) fn metric(&self, series: &str) -> f64 {
        metrics::sum(&self.admin("/metrics").expect(200).text(), series).unwrap_or(0.0)
    }

    /// Whether any series of this name carries these labels.
    #[track_caller]
    pub(crate) fn has_metric(&self, series: &str) -> bool {
        metrics::sum(&self.admin("/metrics").expect(200).text(), series).is_some()
    }

    #[track_caller]
    pub(crate) fn await_metric(&self, series: &str, least: f64) {
        wait::eventually(&format!("{series} >= {least}"), wait::SOON, || {
            self.metric(series) >= least
        });
    }

    #[track_caller]
    pub(crate) fn await_stderr(&self, words: &str) {
        self.running.await_stderr(words);
    }

    /// Whether the admin server calls this endpoint (by its configured name) healthy.
    pub(crate) fn is_healthy(&self, endpoint: SocketAddr) -> bool {
        self.metric(&format!(
            "tidegate_upstream_endpoint_healthy{{endpoint=\"{endpoint}\"}}"
        )) == 1.0
    }

    /// Writes another configuration in place of the running one.
    pub(crate) fn rewrite(&self, toml: &str) {
        write(self.folder.path(), &self.names, toml);
    }

    /// SIGHUP, and wait until the reload has gone well or failed as expected.
    #[track_caller]
    pub(crate) fn reload(&self, well: bool) {
        let result = if well { "ok" } else { "failed" };
        let series = format!("tidegate_config_reloads_total{{result=\"{result}\"}}");
        let before = self.metric(&series);
        self.signal(Signal::SIGHUP);
        let done = wait::try_until(wait::SOON, || (self.metric(&series) > before).then_some(()));
        assert!(done.is_some(), "no reload was {result}\n{}", self.stderr());
    }
}

fn write(folder: &Path, names: &[(String, String)], toml: &str) -> PathBuf {
    let mut text = format!("{}\n{toml}", prelude(toml));
    for (name, value) in names {
        text = text.replace(&format!("@{name}@"), value);
    }
    let says = text
        .lines()
        .any(|line| line.trim_start().starts_with("lane = "));
    if lane_is_off() && !says {
        text = text.replacen("[server]\n", "[server]\nlane = \"off\"\n", 1);
    }
    let path = folder.join("tidegate.toml");
    let fresh = folder.join("tidegate.toml.new");
    std::fs::write(&fresh, text).expect("write the configuration");
    std::fs::rename(&fresh, &path).expect("put it in place");
    path
}

/// `TIDEGATE_TEST_LANE=off` sends every request of the tests the long way.
pub(crate) fn lane_is_off() -> bool {
    std::env::var("TIDEGATE_TEST_LANE").is_ok_and(|lane| lane == "off")
}

/// What the file does not say itself.
fn prelude(toml: &str) -> String {
    let parts = [
        ("[server]", "workers = 2\nshutdown_timeout = \"10s\"\n"),
        // Whatever else runs on the machine may hold a debug build up for longer than an edge in
        // production would stand.
        ("[overload]", "lag = \"10s\"\n"),
        (
            "[admin]",
            "address = \"@ADMIN@\"\ntoken = { file = \"admin.token\" }\n",
        ),
        ("[[listener]]", "name = \"plain\"\naddress = \"@HTTP@\"\n"),
        (
            "[[listener]]",
            "name = \"secure\"\naddress = \"@HTTPS@\"\ntls = true\n",
        ),
        (
            "[tls]",
            "certificates = [{ cert = \"shop.pem\", key = \"shop.key\" }]\n",
        ),
    ];
    let mut text = String::new();
    for (section, body) in parts {
        let own_listeners = toml.contains("[[listener]]");
        let wanted = match section {
            "[tls]" => !own_listeners || toml.contains("tls = true"),
            _ => true,
        };
        if wanted && !toml.lines().any(|line| line.trim() == section) {
            text.push_str(&format!("{section}\n{body}"));
        }
    }
    text
}
