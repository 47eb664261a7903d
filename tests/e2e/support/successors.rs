//! Processes that an edge has started to take over from it. They are no children of the test, so that
//! they are found by what they were started with.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::wait;

/// Those of one edge, which are ended when this is dropped.
pub(crate) struct Successors {
    /// What is in the arguments of all of them, and of nobody else.
    config: PathBuf,
    last: Option<u32>,
    known: Vec<u32>,
}

impl Successors {
    /// Of the edge whose configuration stands in `folder`.
    pub(crate) fn new(folder: &Path) -> Self {
        Self {
            config: folder.join("tidegate.toml"),
            last: None,
            known: Vec::new(),
        }
    }

    /// The one that serves.
    pub(crate) fn last(&self) -> Option<u32> {
        self.last
    }

    /// One has taken over from `old`.
    #[track_caller]
    pub(crate) fn look(&mut self, old: u32) {
        self.known.push(old);
        let new = running(&self.config)
            .into_iter()
            .find(|id| !self.known.contains(id));
        self.last = Some(new.expect("another process"));
    }
}

impl Drop for Successors {
    fn drop(&mut self) {
        let ended = wait::try_until(wait::SOON, || {
            let left = running(&self.config);
            for id in &left {
                send(*id, Signal::SIGKILL);
            }
            left.is_empty().then_some(())
        });
        if ended.is_none() && !std::thread::panicking() {
            panic!("processes of {} are left", self.config.display());
        }
    }
}

/// Processes with this argument; those that have ended have none.
fn running(config: &Path) -> Vec<u32> {
    let processes = fs::read_dir("/proc").expect("processes").flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter(|id: &u32| {
        let arguments = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        let mut arguments = arguments.split(|octet| *octet == 0);
        arguments.any(|argument| argument == config.as_os_str().as_bytes())
    })
    .collect()
}

pub(crate) fn send(id: u32, signal: Signal) {
    let id = i32::try_from(id).expect("a process id");
    // It may have ended.
    let _ = kill(Pid::from_raw(id), signal);
}
