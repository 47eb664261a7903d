//! The snippets of the manual are run as they stand, from top to bottom, in one folder.
//!
//! The word behind the language of a fenced block says what is done with it:
//! - ```` ```toml file=edge.toml ```` is written to that file, and checked;
//! - ```` ```sh ```` is run. A comment behind a command is what it prints, line by line; `…` in
//!   it stands for anything;
//! - ```` ```sh run ```` is started and left running, until the next one of this kind or the end;
//! - any other block is an illustration.
//!
//! The addresses of the manual are put onto free ports.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::support::edge::{binary, root};
use crate::support::{ports, wait};

/// The addresses that the manual uses.
const ADDRESSES: [&str; 3] = ["127.0.0.1:8080", "127.0.0.1:8443", "127.0.0.1:9901"];

#[test]
fn the_page_of_static_files_does_what_it_says() {
    let done = Manual::new("docs/static-files.md").run();
    assert!(done >= 20, "the snippets were found: {done}");
}

struct Block {
    info: String,
    text: String,
    line: usize,
}

struct Manual {
    page: PathBuf,
    blocks: Vec<Block>,
    folder: tempfile::TempDir,
    running: Option<Running>,
    addresses: Vec<(&'static str, String)>,
}

impl Manual {
    fn new(page: &str) -> Self {
        let page = root().join(page);
        let text = fs::read_to_string(&page).unwrap();
        let addresses = ADDRESSES.map(|address| (address, ports::free().to_string()));
        Self {
            blocks: blocks(&text),
            page,
            folder: tempfile::tempdir().unwrap(),
            running: None,
            addresses: addresses.into(),
        }
    }

    /// Runs all snippets; how many there were.
    fn run(mut self) -> usize {
        let mut done = 0;
        for block in std::mem::take(&mut self.blocks) {
            let place = format!("{}:{}", self.page.display(), block.line);
            let text = self.moved(&block.text);
            match block.info.split_once(' ').unwrap_or((&block.info, "")) {
                ("toml", file) if file.starts_with("file=") => {
                    let file = self.folder.path().join(&file["file=".len()..]);
                    fs::write(&file, text).unwrap();
                    let checked = self.shell(&format!("tidegate check {}", file.display()));
                    assert!(checked.status.success(), "{place}: {}", printed(&checked));
                }
                ("sh", "run") => {
                    self.running = None;
                    self.running = Some(self.start(&text, &place));
                }
                ("sh", "") => self.carry_out(&text, &place),
                _ => continue,
            }
            done += 1;
        }
        done
    }

    /// `text` with the test's own ports.
    fn moved(&self, text: &str) -> String {
        let moves = self.addresses.iter();
        let mut text = moves.fold(text.to_owned(), |text, (from, to)| text.replace(from, to));
        for (from, to) in &self.addresses {
            let port = |address: &str| address.rsplit_once(':').unwrap().1.to_owned();
            text = text.replace(
                &format!("localhost:{}", port(from)),
                &format!("localhost:{}", port(to)),
            );
        }
        text
    }

    /// Each command with what is to be printed by it.
    fn carry_out(&self, text: &str, place: &str) {
        let mut commands: Vec<(String, Vec<&str>)> = Vec::new();
        let mut goes_on = false;
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            match (line.strip_prefix("# "), commands.last_mut()) {
                (Some(expected), Some((_, output))) => output.push(expected),
                (None, Some((command, _))) if goes_on || line.starts_with(' ') => {
                    command.push('\n');
                    command.push_str(line);
                }
                _ => commands.push((line.to_owned(), Vec::new())),
            }
            goes_on = line.ends_with(['\\', '|']);
        }
        for (command, expected) in commands {
            let done = self.shell(&command);
            let output = printed(&done);
            assert!(done.status.success(), "{place}: {command}\n{output}");
            for expected in expected {
                let found = output
                    .lines()
                    .any(|line| fits(line.trim(), expected.trim()));
                assert!(
                    found,
                    "{place}: {command}\ndoes not print {expected:?}, but\n{output}"
                );
            }
        }
    }

    fn shell(&self, command: &str) -> std::process::Output {
        self.command(command).output().unwrap()
    }

    fn command(&self, command: &str) -> Command {
        let path = std::env::var("PATH").unwrap_or_default();
        let beside = binary();
        let beside = beside.parent().unwrap_or(Path::new("/"));
        let mut shell = Command::new("bash");
        shell
            .args(["-euo", "pipefail", "-c", command])
            .current_dir(self.folder.path())
            .env("PATH", format!("{}:{path}", beside.display()))
            .env("NO_COLOR", "1")
            .stdin(Stdio::null());
        shell
    }

    fn start(&self, command: &str, place: &str) -> Running {
        let log = self.folder.path().join("running.log");
        let out = fs::File::create(&log).unwrap();
        let mut shell = self.command(command);
        shell.process_group(0);
        shell.stdout(out.try_clone().unwrap()).stderr(out);
        let mut running = Running(shell.spawn().unwrap());
        let address = self.addresses[0].1.clone();
        wait::eventually(place, wait::SOON, || {
            let ended = running.0.try_wait().unwrap();
            assert!(
                ended.is_none(),
                "{place}: ended: {}",
                fs::read_to_string(&log).unwrap()
            );
            std::net::TcpStream::connect(&address).is_ok()
        });
        running
    }
}

/// A group of processes that ends with this.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let group = Pid::from_raw(self.0.id().cast_signed());
        let _ = killpg(group, Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

fn printed(output: &std::process::Output) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

/// Whether a line is what was expected, where `…` stands for anything.
fn fits(line: &str, expected: &str) -> bool {
    let mut parts = expected.split('…');
    let Some(mut rest) = line.strip_prefix(parts.next().unwrap_or_default()) else {
        return false;
    };
    let mut open = false;
    for part in parts {
        let Some(at) = rest.find(part) else {
            return false;
        };
        rest = &rest[at + part.len()..];
        open = part.is_empty();
    }
    open || rest.is_empty()
}

/// The fenced blocks of a page.
fn blocks(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (line, number) in text.lines().zip(1..) {
        match (line.strip_prefix("```"), &mut open) {
            (Some(info), None) => {
                open = Some(Block {
                    info: info.trim().to_owned(),
                    text: String::new(),
                    line: number,
                });
            }
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some(block)) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, None) => {}
        }
    }
    blocks
}

#[test]
fn dots_stand_for_anything_and_all_else_for_itself() {
    for (line, expected, right) in [
        ("etag: \"ab\"", "etag: \"…\"", true),
        ("etag: \"ab\"", "etag: …", true),
        ("etag: \"ab\"", "etag: \"ab", false),
        ("vary: accept", "vary: accept", true),
        ("x vary: accept", "vary: accept", false),
        ("a b c", "a…c", true),
        ("a b c d", "a…c", false),
    ] {
        assert_eq!(fits(line, expected), right, "{line} {expected}");
    }
}
