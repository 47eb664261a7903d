//! Whether an edge has done all that it can do.
//!
//! A fuzz target that waits for time to pass runs a few inputs a second. So it asks the system: an
//! edge whose threads all sleep has read what it was sent, has written what it had to say (over
//! loopback, what was written is there when the call returns), and does nothing more until it is
//! sent something, or a timer ends.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

/// The threads of a process.
pub(super) struct Threads {
    folder: String,
    /// The one that asks, which is awake.
    own: Option<String>,
    /// What the folder had of links when `stats` was made: there is one for each thread.
    links: u64,
    stats: Vec<File>,
}

impl Threads {
    /// Those of this process, but for the one that calls.
    pub(super) fn own() -> Self {
        let link = fs::read_link("/proc/thread-self").expect("a thread has a number");
        let number = link.file_name().expect("a name").to_string_lossy();
        Self::of("self", Some(number.into_owned()))
    }

    /// Those of another process.
    pub(super) fn of_process(id: u32) -> Self {
        Self::of(&id.to_string(), None)
    }

    fn of(process: &str, own: Option<String>) -> Self {
        Self {
            folder: format!("/proc/{process}/task"),
            own,
            links: 0,
            stats: Vec::new(),
        }
    }

    /// Whether all of them sleep.
    pub(super) fn are_asleep(&mut self) -> bool {
        self.refresh();
        let is_asleep = |file: &File| {
            let mut line = [0; 64];
            let read = file.read_at(&mut line, 0).unwrap_or(0);
            // The state stands behind the name, which is in brackets and at most 15 octets long.
            let name_end = line[..read].iter().rposition(|&byte| byte == b')');
            matches!(
                name_end.and_then(|end| line.get(end + 2)),
                Some(b'S' | b'I')
            )
        };
        let all = self.stats.iter().all(is_asleep);
        if !all {
            // One may have ended, and another have come.
            self.links = 0;
        }
        all
    }

    fn refresh(&mut self) {
        let folder = fs::metadata(&self.folder).expect("the edge's process is there");
        if folder.nlink() == self.links {
            return;
        }
        self.links = folder.nlink();
        let threads = fs::read_dir(&self.folder).expect("the edge's process is there");
        let others = threads.flatten().filter(|thread| {
            let name = thread.file_name();
            self.own.as_deref() != name.to_str()
        });
        self.stats = others
            .filter_map(|thread| File::open(thread.path().join("stat")).ok())
            .collect();
    }
}
