//! Programs that this process starts.
//!
//! With tokio's own kind, a worker looks for ended ones each time that it has nothing to do, which is
//! some sixty instructions, twice a request. Those that are started here are few, and are asked.

use std::io;
use std::process::{ChildStderr, Command, ExitStatus};
use std::time::Duration;

/// How long after the question before a program is first asked whether it has ended, and how long at
/// most.
const ASKED_AFTER: [Duration; 2] = [Duration::from_millis(2), Duration::from_millis(50)];

/// A program under way. It is killed where this is dropped before it ended or was released.
#[derive(Debug)]
pub(crate) struct Child {
    /// `None` where it is nobody's matter any more.
    child: Option<std::process::Child>,
    id: u32,
}

impl Child {
    /// Starts it.
    ///
    /// # Errors
    /// It cannot be started.
    pub(crate) fn start(command: &mut Command) -> io::Result<Self> {
        let child = command.spawn()?;
        Ok(Self {
            id: child.id(),
            child: Some(child),
        })
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// What it writes to standard error, where that was to be a pipe; once.
    pub(crate) fn take_stderr(&mut self) -> Option<ChildStderr> {
        self.child.as_mut().and_then(|child| child.stderr.take())
    }

    /// From now on it goes on without this process; it is cleared away if it ends first.
    pub(crate) fn release(&mut self) {
        if let Some(child) = self.child.take() {
            clear_away(child);
        }
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// Nobody knows of it any more.
    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        let [mut pause, longest] = ASKED_AFTER;
        loop {
            let Some(child) = &mut self.child else {
                return Err(io::ErrorKind::NotFound.into());
            };
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(longest);
        }
    }

    /// Ends it, and waits until it has.
    ///
    /// # Errors
    /// Nobody knows of it any more.
    pub(crate) async fn kill(mut self) -> io::Result<ExitStatus> {
        if let Some(child) = &mut self.child {
            // One that has ended is no mistake here.
            child.kill()?;
        }
        self.wait().await
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        // Nothing can be done about one that cannot be killed.
        let _ = child.kill();
        clear_away(child);
    }
}

/// Waits for its end beside everything else: only who waits clears it away.
fn clear_away(mut child: std::process::Child) {
    let waiting = std::thread::Builder::new().name("child".into());
    // Where there can be no thread, it stays in the table of processes until this one ends.
    let _ = waiting.spawn(move || child.wait());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn shell(script: &str) -> Child {
        Child::start(Command::new("sh").args(["-c", script])).expect("started")
    }

    fn is_there(id: u32) -> bool {
        std::path::Path::new(&format!("/proc/{id}")).exists()
    }

    #[tokio::test]
    async fn its_end_is_told_with_its_status() {
        let mut child = shell("exit 3");
        assert_eq!(child.wait().await.expect("ended").code(), Some(3));
        assert_eq!(child.wait().await.expect("ended").code(), Some(3), "again");
    }

    #[tokio::test]
    async fn one_that_is_killed_or_dropped_is_cleared_away() {
        let child = shell("exec sleep 60");
        let id = child.id();
        assert!(is_there(id));
        assert!(!child.kill().await.expect("ended").success());
        assert!(!is_there(id));
        let child = shell("exec sleep 60");
        let id = child.id();
        drop(child);
        let until = clock::now() + Duration::from_secs(10);
        while is_there(id) {
            assert!(clock::now() < until, "{id} is left");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn one_that_is_released_goes_on() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("done");
        let mut child = shell(&format!("sleep 0.1; echo > {}", file.display()));
        let id = child.id();
        child.release();
        drop(child);
        let until = clock::now() + Duration::from_secs(10);
        while !file.exists() || is_there(id) {
            assert!(clock::now() < until, "it was killed, or is left");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
