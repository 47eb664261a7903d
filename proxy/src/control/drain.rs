//! The end: no new connections, what is under way is finished.

use std::sync::PoisonError;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{interval, timeout};

use super::Control;
use crate::signals::{Asked, Signals};

/// How long the cache's disk tier may write at the end.
const WRITE_OUT: Duration = Duration::from_secs(5);

impl Control {
    pub(super) async fn drain(&self, signals: &mut Signals) {
        let most = self.snapshot.load().config.server.shutdown_timeout;
        match self.handed_over.is_set() {
            false => {
                tracing::info!(timeout = ?most, "draining: no new connections, requests under way are finished");
            }
            true => {
                tracing::info!(timeout = ?most, "another process has taken over; requests under way are finished");
            }
        }
        self.drain.send_replace(true);
        // After it: who is called looks whether the process ends.
        self.snapshot.load().load.call();
        let done = async {
            let mut look = interval(Duration::from_millis(20));
            loop {
                look.tick().await;
                if self.open() == 0 {
                    break;
                }
            }
        };
        tokio::select! {
            result = timeout(most, done) => match result {
                Ok(()) => tracing::info!("drained"),
                Err(_) => tracing::warn!(connections = self.open(), "shutdown_timeout is over; connections left are closed"),
            },
            _ = second(signals) => tracing::warn!(connections = self.open(), "asked to end a second time; connections left are closed"),
        }
    }

    /// Lets the disk tier write what waits, so that the next process finds it.
    pub(super) async fn write_out(&self, signals: &mut Signals) {
        let cache = self.snapshot.load().cache.clone();
        // What was handed over is the next process's already.
        if self.handed_over.is_set() || cache.store.disk().is_none() {
            return;
        }
        let (written, done) = oneshot::channel();
        // A thread that the end of the runtime does not wait for: a disk may hang for as long as it likes.
        let work = std::thread::Builder::new().name("write-out".to_owned());
        let started = work.spawn(move || {
            let in_time = cache.store.disk().is_none_or(|disk| disk.flush(WRITE_OUT));
            if !in_time {
                // Its drop waits for the disk, however long that takes.
                std::mem::forget(cache);
            }
            // Nobody waits any longer.
            let _ = written.send(in_time);
        });
        if let Err(error) = started {
            tracing::warn!(%error, "the cache is not written out: no thread for it");
            return;
        }
        tokio::select! {
            in_time = done => if in_time != Ok(true) {
                tracing::warn!("the cache's disk does not take what waits in time; that is left");
            },
            _ = second(signals) => tracing::warn!("asked to end a second time; what waits for the cache's disk is left"),
        }
    }

    fn open(&self) -> usize {
        let snapshot = self.snapshot.load();
        let retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        snapshot
            .listeners
            .iter()
            .chain(retired.iter())
            .map(|listener| listener.open())
            .sum()
    }
}

async fn second(signals: &mut Signals) {
    while signals.next().await != Asked::Drain {}
}
