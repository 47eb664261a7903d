//! Programs from outside: found or visibly skipped, run with a deadline, and
//! ended when the test ends.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::wait;

/// The program's path. Where it is missing: a line on the terminal (libtest
/// would swallow a plain print) and `None`; a failure when
/// `TIDEGATE_REQUIRE_TOOLS` is set, as it is in CI.
pub(crate) fn find(program: &str, package: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(program))
        .find(|file| file.is_file());
    if found.is_none() {
        missing(program, &format!("apt-get install {package}"));
    }
    found
}

/// Python with this module; likewise. `packages` are what pip calls them.
pub(crate) fn python_with(module: &str, packages: &str) -> Option<PathBuf> {
    let python = find("python3", "python3")?;
    let import = format!("import {module}");
    let mut command = Command::new(&python);
    let has_it = run(command.args(["-c", &import]), wait::SOON).code == Some(0);
    if !has_it {
        let how = "python3 -m pip install --target FOLDER";
        missing(
            &format!("Python's {module}"),
            &format!("{how} {packages}, and PYTHONPATH=FOLDER"),
        );
    }
    has_it.then_some(python)
}

pub(crate) fn missing(what: &str, how: &str) {
    let test = std::thread::current().name().unwrap_or("?").to_owned();
    let hint = format!("{test} needs {what}: {how}");
    assert!(
        std::env::var_os("TIDEGATE_REQUIRE_TOOLS").is_none(),
        "{hint}"
    );
    let _ = writeln!(std::io::stderr(), "SKIPPED {hint}");
}

/// `let nginx = tool!("nginx", "nginx-light");` ends the test where it is missing.
macro_rules! tool {
    ($program:literal, $package:literal) => {
        match $crate::support::tools::find($program, $package) {
            Some(path) => path,
            None => return,
        }
    };
}
pub(crate) use tool;

/// Lets this process, and what it starts from now on, have so many files open.
#[track_caller]
pub(crate) fn raise_open_files(wanted: u64) {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("the limit of open files");
    assert!(
        hard >= wanted,
        "this test needs {wanted} open files; ulimit -Hn is {hard}"
    );
    if soft < wanted {
        setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).expect("a higher limit");
    }
}

/// What a program left behind.
#[derive(Debug)]
pub(crate) struct Finished {
    /// Exit code; `None`: ended by a signal.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs to the end; a test failure when that takes longer than `limit`.
#[track_caller]
pub(crate) fn run(command: &mut Command, limit: Duration) -> Finished {
    let mut running = Running::start(command);
    let code = running.wait(limit);
    Finished {
        code,
        stdout: running.stdout(),
        stderr: running.stderr(),
    }
}

/// A child process whose output is collected and that does not outlive this value.
pub(crate) struct Running {
    name: String,
    child: Child,
    stdout: Arc<Mutex<Vec<u8>>>,
    stderr: Arc<Mutex<Vec<u8>>>,
    readers: Vec<std::thread::JoinHandle<()>>,
    ended: bool,
}

impl Running {
    #[track_caller]
    pub(crate) fn start(command: &mut Command) -> Self {
        Self::start_with(command, Stdio::null())
    }

    /// One that lines can be said to.
    #[track_caller]
    pub(crate) fn start_talking(command: &mut Command) -> Self {
        Self::start_with(command, Stdio::piped())
    }

    #[track_caller]
    fn start_with(command: &mut Command, stdin: Stdio) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        let mut child = command
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        let stdout = Arc::default();
        let stderr = Arc::default();
        let readers = vec![
            collect(child.stdout.take(), &stdout),
            collect(child.stderr.take(), &stderr),
        ];
        Self {
            name,
            child,
            stdout,
            stderr,
            readers,
            ended: false,
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).expect("a process id");
        if !self.ended {
            let _ = kill(Pid::from_raw(id), signal);
        }
    }

    /// The process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        !self.ended && matches!(self.child.try_wait(), Ok(None))
    }

    /// The exit code (`None`: ended by a signal).
    #[track_caller]
    pub(crate) fn wait(&mut self, limit: Duration) -> Option<i32> {
        let status = wait::try_until(limit, || {
            self.child.try_wait().expect("a child to wait for")
        });
        let Some(status) = status else {
            let (out, err) = (self.stdout(), self.stderr());
            self.kill();
            panic!("{} still ran after {limit:?}\n{out}\n{err}", self.name);
        };
        self.ended = true;
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        status.code()
    }

    /// Says a line to it; only to those started by [`Running::start_talking`].
    #[track_caller]
    pub(crate) fn say(&mut self, line: &str) {
        let stdin = self.child.stdin.as_mut().expect("one that listens");
        writeln!(stdin, "{line}").expect("it still listens");
    }

    pub(crate) fn stdout(&self) -> String {
        text(&self.stdout)
    }

    pub(crate) fn stderr(&self) -> String {
        text(&self.stderr)
    }

    /// Its log comes through a pipe, and may come after what it counts and answers.
    #[track_caller]
    pub(crate) fn await_stderr(&self, words: &str) {
        let came = wait::try_until(wait::SOON, || self.stderr().contains(words).then_some(()));
        assert!(came.is_some(), "{words:?} is not in\n{}", self.stderr());
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.ended = true;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.is_running() {
            self.signal(Signal::SIGCONT);
            self.signal(Signal::SIGTERM);
            let limit = Duration::from_millis(500);
            if wait::try_until(limit, || self.child.try_wait().ok().flatten()).is_none() {
                self.kill();
            }
        }
        if std::thread::panicking() {
            let (name, said) = (&self.name, self.stdout() + &self.stderr());
            if !said.is_empty() {
                let _ = writeln!(std::io::stderr(), "--- {name} said\n{said}---");
            }
        }
    }
}

fn collect<R: Read + Send + 'static>(
    from: Option<R>,
    into: &Arc<Mutex<Vec<u8>>>,
) -> std::thread::JoinHandle<()> {
    let into = Arc::clone(into);
    std::thread::spawn(move || {
        let Some(mut from) = from else { return };
        let mut buffer = [0; 8192];
        while let Ok(n @ 1..) = from.read(&mut buffer) {
            if let Ok(mut all) = into.lock() {
                all.extend_from_slice(&buffer[..n]);
            }
        }
    })
}

fn text(bytes: &Arc<Mutex<Vec<u8>>>) -> String {
    let bytes = bytes
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    String::from_utf8_lossy(&bytes).into_owned()
}
