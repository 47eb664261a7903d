//! The two edges: one with the lane, in this process, and one without it, in another.
//!
//! An edge sets up the process's event log and takes over its signals, so that a process has one at
//! the most. The one with the lane runs here, where libFuzzer sees which of its code an input
//! reaches (what the lane leaves, it answers on the long way itself, so that this one is seen as
//! well); the other is this same program, started again.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use tempfile::TempDir;

use super::asleep::Threads;

/// Names the configuration of the edge that a process of this program is to be.
const CONFIGURATION: &str = "TIDEGATE_FUZZ_EDGE";

/// What the child says when it accepts connections.
const READY: &str = "ready\n";

/// Where an edge listens, and whether it has something to do.
pub(super) struct Edge {
    pub(super) address: SocketAddr,
    pub(super) threads: Threads,
    /// Ends with its standard input, and so with this process.
    _child: Option<Child>,
}

/// Becomes an edge, and never returns, in the process that was started for that.
pub fn serve_if_asked() {
    let Some(path) = std::env::var_os(CONFIGURATION) else {
        return;
    };
    std::thread::spawn(|| {
        // It ends when the process does that started this one.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    run(Path::new(&path), || print!("{READY}"));
    std::process::exit(0);
}

/// Serves until the process is told to end.
fn run(path: &Path, ready: impl FnOnce() + Send + 'static) {
    // Whoever comes first wins, and Pingora would take another one.
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .expect("no other TLS provider");
    let config = conf::load(path).unwrap_or_else(|error| panic!("{error}"));
    let options = proxy::Options {
        load: Box::new(|| Err("nothing is loaded anew".into())),
        ready: Box::new(ready),
        program: None,
        predecessor: None,
    };
    proxy::run(config, options).expect("the edge runs");
}

/// Both edges, with the lane and without it, and the listeners of their apps.
pub(super) fn start(trusted: &str) -> [(Edge, TcpListener); 2] {
    let folder = TempDir::with_prefix("tidegate-fuzz-").expect("a folder");
    write_files(folder.path());
    let configured = |lane: &str, port: u16| {
        let app = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = SocketAddr::from((own_address(), port));
        let config = include_str!("edge.toml")
            .replace("@EDGE@", &address.to_string())
            .replace("@APP@", &app.local_addr().expect("bound").to_string())
            .replace("@TRUSTED@", trusted)
            .replace("@LANE@", lane);
        let path = folder.path().join(format!("{lane}.toml"));
        fs::write(&path, config).expect("a file");
        (address, path, app)
    };
    let (here, path, app) = configured("on", 8001);
    let (there, other_path, other_app) = configured("off", 8002);
    let child = start_child(&other_path);
    let threads = Threads::of_process(child.id());
    let other = Edge {
        address: there,
        threads,
        _child: Some(child),
    };
    let (ready, is_ready) = mpsc::channel();
    // Static files are read for as long as it runs.
    let folder = folder.keep();
    std::thread::spawn(move || {
        run(&path, move || ready.send(()).expect("somebody waits"));
        // A signal asked for the end.
        let _ = fs::remove_dir_all(folder);
        std::process::exit(0);
    });
    is_ready.recv().expect("the edge starts");
    let one = Edge {
        address: here,
        threads: Threads::own(),
        _child: None,
    };
    [(one, app), (other, other_app)]
}

fn start_child(config: &Path) -> Child {
    let program = std::env::current_exe().expect("a program");
    let mut child = Command::new(program)
        .env(CONFIGURATION, config)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts again");
    let output = child.stdout.take().expect("piped");
    let mut line = String::new();
    BufReader::new(output)
        .read_line(&mut line)
        .expect("the edge starts");
    assert_eq!(line, READY, "the edge starts");
    child
}

/// A loopback address that no other process of these targets uses, so that several may run at once.
fn own_address() -> Ipv4Addr {
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 64 | (high & 63), middle, low)
}

fn write_files(folder: &Path) {
    let site = folder.join("site");
    fs::create_dir_all(site.join("dir")).expect("a folder");
    for (name, content) in [
        ("a.css", "a { color: red }".repeat(8)),
        ("dir/index.html", "<p>index".to_owned()),
        ("app-3f9a1c2b.js", "f()".to_owned()),
        ("large.bin", "0123456789abcdef".repeat(20_000)),
        ("gone.html", "<p>gone {status}".to_owned()),
    ] {
        fs::write(site.join(name), content).expect("a file");
    }
}
