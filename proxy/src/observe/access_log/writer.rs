//! The thread that owns the file: the only one that ever waits for a disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use super::{SWEEP_EVERY, Shared, is_stdout, lock};
use crate::{clock, privileges};

/// Between two warnings about lost lines.
const WARN_EVERY: Duration = Duration::from_secs(10);
/// Capacity that an emptied buffer keeps; a burst's memory is given back.
const KEEP_BYTES: usize = 256 << 10;

/// Sweeps the workers' buffers into the sink until it is told to stop.
pub(super) struct Writer {
    shared: Arc<Shared>,
    sink: Sink,
    spare: Vec<u8>,
    warned: Option<Instant>,
    reported: u64,
    last_error: Option<io::Error>,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, sink: Sink) -> Self {
        // What was dropped before is another log's report.
        let reported = shared.counts.dropped.load(Ordering::Relaxed);
        Self {
            shared,
            sink,
            spare: Vec::new(),
            warned: None,
            reported,
            last_error: None,
        }
    }

    /// The thread's whole life.
    pub(super) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        loop {
            // Read before the sweep, so that what was written before a stop is swept.
            let stop = shared.stop.load(Ordering::Acquire);
            let reopen = shared.reopen.swap(false, Ordering::AcqRel);
            self.sweep(&shared, stop);
            if reopen {
                self.reopen();
            }
            self.warn_of_losses();
            if stop {
                break;
            }
            thread::park_timeout(SWEEP_EVERY);
        }
        *lock(&shared.done) = true;
        shared.on_done.notify_all();
    }

    fn sweep(&mut self, shared: &Shared, last: bool) {
        if last {
            // A buffer that nobody used yet must be closed too, or a late line would be lost uncounted.
            for shard in shared.shards.all() {
                lock(shard).closed = true;
            }
        }
        for shard in shared.shards.each() {
            std::mem::swap(&mut lock(shard).lines, &mut self.spare);
            if !self.spare.is_empty() {
                self.write(shared);
                self.spare.clear();
                self.spare.shrink_to(KEEP_BYTES);
            }
        }
    }

    fn write(&mut self, shared: &Shared) {
        let all = line_count(&self.spare);
        let lost = match self.sink.write(&self.spare) {
            Ok(()) => 0,
            Err(failure) => {
                self.last_error = Some(failure.error);
                line_count(&self.spare[failure.written..])
            }
        };
        shared.counts.lines.fetch_add(all - lost, Ordering::Relaxed);
        shared.counts.dropped.fetch_add(lost, Ordering::Relaxed);
    }

    fn reopen(&mut self) {
        match self.sink.reopen() {
            Ok(()) => tracing::info!(path = %self.sink.path.display(), "access log reopened"),
            Err(error) => tracing::warn!(
                path = %self.sink.path.display(),
                %error,
                "access log not reopened; lines still go to the file that was open"
            ),
        }
    }

    fn warn_of_losses(&mut self) {
        let dropped = self.shared.counts.dropped.load(Ordering::Relaxed);
        if dropped <= self.reported {
            return;
        }
        let now = clock::now();
        if self
            .warned
            .is_some_and(|at| now.saturating_duration_since(at) < WARN_EVERY)
        {
            return;
        }
        let reason = match self.last_error.take() {
            Some(error) => error.to_string(),
            None => "lines came faster than they could be written".to_owned(),
        };
        tracing::warn!(
            path = %self.sink.path.display(),
            lines = dropped - self.reported,
            reason,
            "access log lines dropped"
        );
        self.warned = Some(now);
        self.reported = dropped;
    }
}

fn line_count(lines: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', lines).count() as u64
}

/// Where lines end up: a file, a pipe, standard output.
pub(super) struct Sink {
    path: PathBuf,
    file: File,
    /// The last write broke off within a line.
    torn: bool,
}

/// A write that did not get to its end.
pub(super) struct Failure {
    /// Bytes that were written.
    written: usize,
    error: io::Error,
}

impl Sink {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            file: open_file(path)?,
            torn: false,
        })
    }

    fn reopen(&mut self) -> io::Result<()> {
        self.file = open_file(&self.path)?;
        self.torn = false;
        Ok(())
    }

    /// Writes whole lines. After a line that broke off a new one is begun, so
    /// that a full disk spoils one line and not the next one with it.
    fn write(&mut self, lines: &[u8]) -> Result<(), Failure> {
        if self.torn {
            let mended = self.write_all(b"\n");
            mended.map_err(|failure| Failure {
                written: 0,
                ..failure
            })?;
            self.torn = false;
        }
        let result = self.write_all(lines);
        if let Err(Failure { written, .. }) = &result {
            self.torn = lines[..*written].last().is_some_and(|&last| last != b'\n');
        }
        result
    }

    fn write_all(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let mut written = 0;
        while written < bytes.len() {
            match self.file.write(&bytes[written..]) {
                Ok(0) => {
                    let error = io::ErrorKind::WriteZero.into();
                    return Err(Failure { written, error });
                }
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Failure { written, error }),
            }
        }
        Ok(())
    }
}

/// Standard output is duplicated and so written without a buffer between. A
/// named pipe is opened for reading too: opening it for writing alone would
/// wait until somebody reads it.
fn open_file(path: &Path) -> io::Result<File> {
    if is_stdout(path) {
        return Ok(File::from(io::stdout().as_fd().try_clone_to_owned()?));
    }
    let is_pipe = fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo());
    let mut options = OpenOptions::new();
    if is_pipe {
        options.read(true).write(true);
    } else {
        options.append(true).create(true).mode(0o640);
        options.custom_flags(privileges::follow(path)?.bits().cast_signed());
    }
    options.open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_follows_links_of_root_alone() {
        let scratch = std::env::temp_dir().join(format!("tidegate-link-{}", std::process::id()));
        fs::create_dir_all(&scratch).expect("a directory of our own");
        let link = scratch.join("access.log");
        std::os::unix::fs::symlink(scratch.join("other"), &link).expect("a link");
        assert!(open_file(&link).is_ok(), "our own");
        if nix::unistd::Uid::effective().is_root() {
            std::os::unix::fs::lchown(&link, Some(12_345), None).expect("given away");
            let error = open_file(&link).expect_err("another account's");
            assert!(error.to_string().contains("symbolic link"), "{error}");
        }
        drop(fs::remove_dir_all(&scratch));
    }

    #[test]
    fn a_line_that_broke_off_does_not_run_into_the_next() {
        let path = std::env::temp_dir().join(format!("tidegate-torn-{}", std::process::id()));
        drop(fs::remove_file(&path));
        let mut sink = Sink::open(&path).expect("opens");
        assert!(sink.write(b"whole\nhal").is_ok());
        sink.torn = true;
        assert!(sink.write(b"next\n").is_ok());
        assert!(!sink.torn);
        assert_eq!(
            fs::read_to_string(&path).expect("a file"),
            "whole\nhal\nnext\n"
        );
        drop(fs::remove_file(&path));
    }

    #[test]
    fn a_refused_write_leaves_no_torn_line_behind() {
        let mut sink = Sink::open(Path::new("/dev/full")).expect("opens");
        assert!(sink.write(b"a\nb\n").is_err());
        assert!(!sink.torn, "nothing of it was written");
    }
}
