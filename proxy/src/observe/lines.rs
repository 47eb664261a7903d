//! Lines on their way to standard error, written by a thread of their own.
//!
//! Whoever reads standard error may be slow, or stuck, and nothing else may wait for that: what
//! comes while so much waits is dropped and counted. (`tracing-appender` does the like, but prints to standard
//! output, which may be stuck as well, when it cannot come to its end.)

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// Octets of lines that may wait.
const MOST_WAITING: usize = 4 << 20;

/// A handle on them; each write is a line, or several.
#[derive(Debug, Clone)]
pub(super) struct Lines(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    came: Condvar,
    written: Condvar,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Queue {
    lines: VecDeque<Box<[u8]>>,
    octets: usize,
    is_writing: bool,
}

impl Lines {
    /// Starts the thread, which writes to `out` as long as the process lives.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub(super) fn to(mut out: impl Write + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let lines = Self(Arc::clone(&shared));
        let thread = thread::Builder::new().name("event-log".to_owned());
        thread.spawn(move || {
            loop {
                let line = shared.next();
                if out.write_all(&line).is_err() {
                    shared.dropped.fetch_add(1, Ordering::Relaxed);
                }
            }
        })?;
        Ok(lines)
    }

    /// How many were dropped: so many others waited, or the write failed.
    pub(super) fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }

    /// Whether none waits: somebody reads.
    pub(super) fn are_read(&self) -> bool {
        self.0.queue().lines.is_empty()
    }

    /// Waits until all that came is written, for `limit` at most.
    pub(super) fn flush(&self, limit: Duration) {
        let is_busy = |queue: &mut Queue| queue.is_writing || !queue.lines.is_empty();
        let queue = self.0.queue();
        // Whether it was in time makes no difference.
        drop(self.0.written.wait_timeout_while(queue, limit, is_busy));
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The line before is written; waits for the next one.
    fn next(&self) -> Box<[u8]> {
        let mut queue = self.queue();
        queue.is_writing = false;
        loop {
            if let Some(line) = queue.lines.pop_front() {
                queue.octets -= line.len();
                queue.is_writing = true;
                return line;
            }
            self.written.notify_all();
            let waited = self.came.wait(queue);
            queue = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut queue = self.0.queue();
        if queue.octets + line.len() > MOST_WAITING {
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
        } else {
            queue.octets += line.len();
            queue.lines.push_back(line.into());
            self.0.came.notify_one();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, pipe};

    use super::*;

    #[test]
    fn whoever_writes_does_not_wait_for_whoever_reads() {
        let (read, write) = pipe().expect("a pipe");
        let mut lines = Lines::to(write).expect("a thread");
        let long = "x".repeat(999);
        let count = 3 * MOST_WAITING / 1000;
        for number in 0..count {
            let line = format!("{number} {long}\n");
            lines.write_all(line.as_bytes()).expect("no wait");
        }
        let limit = Duration::from_millis(50);
        lines.flush(limit);
        let dropped = usize::try_from(lines.dropped()).expect("a number");
        assert!(dropped > count / 2, "{dropped} of {count}");
        // The first ones are there, and in order.
        let mut read = BufReader::new(read).lines().map(|line| line.expect("text"));
        for number in 0..2 {
            assert_eq!(read.next(), Some(format!("{number} {long}")));
        }
        let rest = thread::spawn(move || read.find(|line| line == "the end"));
        lines.flush(Duration::from_secs(60));
        lines.write_all(b"the end\n").expect("no wait");
        assert!(rest.join().expect("no panic").is_some());
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted() {
        let (read, write) = pipe().expect("a pipe");
        drop(read);
        let mut lines = Lines::to(write).expect("a thread");
        lines.write_all(b"for nobody\n").expect("no wait");
        lines.flush(Duration::from_secs(60));
        assert_eq!(lines.dropped(), 1);
    }
}
